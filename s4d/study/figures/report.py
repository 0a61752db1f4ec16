"""The report's figures: the published comparison, and the claims of the paper against the intervals measured here."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...captions import effect
from .style import COLUMN, METHOD_COLOURS, PAGE, figure, stamp

DARK, SHADE = "#333333", "#D5DDE6"              # of marks that belong to no method; of the side that is expected


def published(table: pd.DataFrame, method: str, baseline: str) -> Figure:
    """Published WAR (filled) and UAR (hollow) of every method, one panel per dataset; the gain over the baseline is shaded.

    Args:
        table: method, year, dataset, UAR, WAR (percent, missing where unknown), as from `s4d.published.results`, in the order of the rows.
        method, baseline: the rows set apart; the baseline's number is derived, so it has a mark of its own.
    Returns:
        a figure two columns wide. All panels have axes of equal width, so that equal gaps are equal points.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    names = table.drop_duplicates("method")[["method", "year"]].iloc[::-1]
    place = {name: i for i, name in enumerate(names["method"])}
    ends = table.groupby("dataset")[["UAR", "WAR"]].agg(["min", "max"])
    width = 1.35 * float((ends.max(axis=1) - ends.min(axis=1)).max())
    fig, axes = figure(PAGE, 3.2, 1, len(datasets), sharey=True)
    for ax, dataset in zip(axes, datasets):
        rows = table[table["dataset"] == dataset]
        _recalls(ax, rows, place, method, baseline)
        war, left = rows.set_index("method")["WAR"], rows[["UAR", "WAR"]].min().min() - 0.05 * width
        ax.axvspan(war[baseline], war[method], color="#EBD3C3", linewidth=0, zorder=0)
        ax.set(xlim=(left, left + width), ylim=(-0.7, len(place) - 0.3), xlabel="recall, %")
        ax.set_title(f"{dataset}: WAR {war[method] - war[baseline]:+.2f} points", fontsize=7.5)
        ax.grid(axis="y", linewidth=0.4)
    axes[0].set_yticks(range(len(place)), [f"{m} ({y})" for m, y in names.itertuples(index=False)])
    for label, name in zip(axes[0].get_yticklabels(), place):
        label.set_fontweight("bold" if name in (method, baseline) else "normal")
    handles = [Line2D([], [], color=DARK, ls="", marker=m, mfc=c, label=said)
               for m, c, said in (("o", DARK, "WAR"), ("D", DARK, "WAR, derived"), ("o", "w", "UAR"))]
    fig.legend(handles=handles, loc="outside upper right", ncols=3, handletextpad=0.1)
    stamp(fig, "published numbers on licensed data; none was measured here")
    return fig


def _recalls(ax, rows: pd.DataFrame, place: dict[str, int], method: str, baseline: str) -> None:
    """One dataset's rows: marks joined where both recalls are known, the WAR in figures."""
    for row in rows.itertuples():
        y, colour = place[row.method], METHOD_COLOURS["s4d"] if row.method == method else DARK
        if pd.isna(row.WAR):
            ax.annotate("not found", (0.5, y), xycoords=("axes fraction", "data"), ha="center", va="center", fontsize=6.5, color="#606060",
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
            continue
        ax.plot([row.UAR, row.WAR], [y, y], color=colour, linewidth=0.6)
        ax.plot(row.UAR, y, "o", color=colour, markerfacecolor="white")
        ax.plot(row.WAR, y, "D" if row.method == baseline else "o", color=colour)
        ax.annotate(f"{row.WAR:.2f}", (row.WAR, y), (5, 0), textcoords="offset points", va="center", fontsize=6.5, color="k")


def claims(table: pd.DataFrame, note: str) -> Figure:
    """Each claim's difference with its interval and numbers; the side on which it expects the difference is shaded.

    Args:
        table: claim, difference, low, high (percentage points), expected (+1 or -1), verdict, paper, as from `s4d.report.judge`.
        note: which data, profile and seeds the numbers are from.
    Returns:
        a figure one column wide. Every verdict is printed in the same size and weight; what is no claim of the paper has a hollow mark.
    """
    fig, ax = figure(COLUMN, 0.65 + 0.42 * len(table))
    reach = 1.15 * float(np.nanmax(np.abs(table[["low", "high"]].to_numpy(float)), initial=1.0))
    edge = ax.get_yaxis_transform()
    for y, row in enumerate(table.iloc[::-1].itertuples()):
        ax.barh(y - 0.2, row.expected * reach, height=0.42, color=SHADE, zorder=0)
        ax.plot([row.low, row.high], [y - 0.2, y - 0.2], color=DARK, linewidth=1.4, solid_capstyle="butt")
        ax.plot(row.difference, y - 0.2, "o", color=DARK, markerfacecolor=DARK if row.paper else "w")
        ax.annotate(row.claim, (0, y + 0.21), xycoords=edge, va="center", fontsize=7)
        ax.annotate(row.verdict, (1, y + 0.21), xycoords=edge, ha="right", va="center", fontsize=7, gid="verdict")
        if pd.notna(row.difference):                                        # the numbers stand where the bar is not
            left = row.low + row.high > 0
            ax.annotate(effect(row.difference, row.low, row.high), (min(row.low, 0) if left else max(row.high, 0), y - 0.2),
                        (-4 if left else 4, 0), textcoords="offset points", ha="right" if left else "left", va="center", fontsize=6.5)
    ax.axvline(0, color=DARK, linewidth=0.6)
    ax.set(xlim=(-reach, reach), ylim=(-0.55, len(table) - 0.55), yticks=[], xlabel="WAR difference, points")
    ax.spines["left"].set_visible(False)
    ax.set_title("shaded: the side that is expected; hollow: no claim of the paper", fontsize=6.5, fontweight="normal", pad=3)
    stamp(fig, note)
    return fig
