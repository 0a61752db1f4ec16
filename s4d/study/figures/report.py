"""The report's figures: published results, and the paper's claims against measured intervals."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .marks import heading, key, number
from .style import COLUMN, GREY, METHOD_COLOURS, PAGE, SMALL, figure, stamp

DARK, SHADE = "#333333", "#D5DDE6"              # of marks; of the side that is expected


def published(table: pd.DataFrame, method: str, baseline: str) -> Figure:
    """Draw published WAR (filled) and UAR (hollow) of every method, one panel per dataset.

    The gain over the baseline, whose WAR is derived, is shaded; all axes have equal width.
    """
    names = table.drop_duplicates("method").set_index("method")["year"].iloc[::-1]
    y, groups = np.arange(len(names)), list(table.groupby("dataset", sort=False))
    width = 1.35 * max(np.ptp(rows[["UAR", "WAR"]].stack().dropna()) for _, rows in groups)
    fig, axes = figure(PAGE, 3.2, 1, len(groups), sharey=True)
    for ax, (dataset, rows) in zip(axes, groups, strict=True):
        rows = rows.set_index("method").loc[names.index, ["UAR", "WAR"]]
        war = rows["WAR"]
        ax.hlines(y, rows["UAR"], war, color=DARK, linewidth=0.6)
        ax.plot(rows["UAR"], y, "o", color=DARK, markerfacecolor="white")
        ax.plot(war, y, "o", color=DARK)
        ax.plot(war[baseline], names.index.get_loc(baseline), "D", color=DARK)
        ax.plot(war[method], names.index.get_loc(method), "o", color=METHOD_COLOURS["s4d"])
        for at, value in zip(y, war, strict=True):
            if np.isnan(value):
                ax.text(0.3, at, "not found", transform=ax.get_yaxis_transform(), ha="center",
                        va="center", fontsize=SMALL, color=GREY)
            else:
                ax.text(value, at, f"  {value:.2f}", va="center", fontsize=SMALL)
        ax.axvspan(war[baseline], war[method], color="#EBD3C3", linewidth=0, zorder=0)
        left = rows.min().min() - 0.05 * width
        ax.set(xlim=(left, left + width), ylim=(-0.7, len(y) - 0.3), xlabel="recall, %")
        heading(ax, f"{dataset}: WAR {war[method] - war[baseline]:+.2f} points")
        ax.grid(axis="y", linewidth=0.4)
    axes[0].set_yticks(y, [f"{name} ({year})" for name, year in names.items()])
    for label, name in zip(axes[0].get_yticklabels(), names.index, strict=True):
        label.set_fontweight("bold" if name in (method, baseline) else "normal")
    handles = [key("WAR", marker="o"), key("WAR, derived", marker="D"),
               key("UAR", marker="o", markerfacecolor="w")]
    fig.legend(handles=handles, loc="outside upper right", ncols=3, handletextpad=0.1)
    return stamp(fig, "published numbers on licensed data; none was measured here")


def claims(table: pd.DataFrame, note: str) -> Figure:
    """Draw each claim that `s4d.study.tables.judge` judged: its difference with its interval."""
    fig, ax = figure(COLUMN, 0.65 + 0.42 * len(table))
    reach = 1.15 * float(np.nanmax(np.abs(table[["low", "high"]].to_numpy(float)), initial=1.0))
    edge = ax.get_yaxis_transform()
    for y, row in enumerate(table.iloc[::-1].itertuples()):
        ax.barh(y - 0.2, row.expected * reach, height=0.42, color=SHADE, zorder=0)
        ax.hlines(y - 0.2, row.low, row.high, color=DARK, linewidth=1.4)
        ax.plot(row.difference, y - 0.2, "o", color=DARK,
                markerfacecolor=DARK if row.paper else "w")
        ax.text(0, y + 0.21, row.claim, transform=edge, va="center", fontsize=7)
        ax.text(1, y + 0.21, row.verdict, transform=edge, ha="right", va="center", fontsize=7)
        if pd.notna(row.difference):                              # numbers stand beside the bar
            left = row.low + row.high > 0
            end = min(row.low, 0) if left else max(row.high, 0)
            text = number(row.difference, row.low, row.high, "+.1f")
            ax.text(end, y - 0.2, f" {text} ", va="center", ha="right" if left else "left",
                    fontsize=SMALL)
    ax.axvline(0, color=DARK, linewidth=0.6)
    ax.set(xlim=(-reach, reach), ylim=(-0.55, len(table) - 0.55), yticks=[],
           xlabel="WAR difference, points")
    ax.spines["left"].set_visible(False)
    heading(ax, "shaded: the side that is expected; hollow: no claim of the paper", SMALL, pad=3)
    return stamp(fig, note)
