"""The report's figure of published results."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .marks import heading, key
from .style import GREY, METHOD_COLOURS, PAGE, SMALL, figure, stamp


def published(table: pd.DataFrame, method: str, baseline: str) -> Figure:
    """Draw published WAR (filled) and UAR (hollow) of every method, one panel per dataset.

    The gain over the baseline, whose WAR is derived, is shaded; all axes have equal width.
    """
    names = table.drop_duplicates("method").set_index("method")["year"].iloc[::-1]
    y, groups, dark = np.arange(len(names)), list(table.groupby("dataset", sort=False)), "#333333"
    width = 1.35 * max(np.ptp(rows[["UAR", "WAR"]].stack().dropna()) for _, rows in groups)
    fig, axes = figure(PAGE, 3.2, 1, len(groups), sharey=True)
    for ax, (dataset, rows) in zip(axes, groups, strict=True):
        rows = rows.set_index("method").loc[names.index, ["UAR", "WAR"]]
        war = rows["WAR"]
        ax.hlines(y, rows["UAR"], war, color=dark, linewidth=0.6)
        ax.plot(rows["UAR"], y, "o", color=dark, markerfacecolor="white")
        ax.plot(war, y, "o", color=dark)
        ax.plot(war[baseline], names.index.get_loc(baseline), "D", color=dark)
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
