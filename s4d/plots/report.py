"""The report's figures: the published comparison, and the claims of the paper against the intervals measured here."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLUMN, METHOD_COLOURS, PAGE, figure, stamp

BASELINE_COLOUR, OTHER_COLOUR = "#0072B2", "#707070"


def published(table: pd.DataFrame, method: str = "S4D", baseline: str = "VideoMAE") -> Figure:
    """Published WAR (filled) and UAR (hollow) of every method, one panel per dataset; the gain over the baseline is shaded.

    Args:
        table: method, year, dataset, UAR, WAR (percent, missing where unknown), as from `s4d.published.results`.
        method, baseline: the rows drawn in colour.
    Returns:
        a figure two columns wide. Methods are in the order of their WAR on the first dataset.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    order = table[table["dataset"] == datasets[0]].sort_values("WAR")[["method", "year"]]
    place = {name: i for i, name in enumerate(order["method"])}
    colour = {method: METHOD_COLOURS["s4d"], baseline: BASELINE_COLOUR}
    fig, axes = figure(PAGE, 3.0, 1, len(datasets), sharey=True)
    for ax, dataset in zip(axes, datasets):
        for row in table[table["dataset"] == dataset].dropna(subset="WAR").itertuples():
            y, c = place[row.method], colour.get(row.method, OTHER_COLOUR)
            ax.plot([row.UAR, row.WAR], [y, y], color=c, linewidth=0.6)
            ax.plot(row.UAR, y, "o", color=c, markerfacecolor="white")
            ax.plot(row.WAR, y, "o", color=c)
            ax.annotate(f"{row.WAR:.2f}", (row.WAR, y), (5, 0), textcoords="offset points", va="center", fontsize=6.5, color=c)
        war = table[table["dataset"] == dataset].set_index("method")["WAR"]
        ax.axvspan(war[baseline], war[method], color="#f7e3d6", linewidth=0, zorder=0)
        for name in [m for m in place if m not in war.dropna().index]:
            ax.annotate("not found", (0.5, place[name]), xycoords=("axes fraction", "data"), ha="center", va="center", fontsize=6,
                        color="#777777", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        ax.set(title=f"{dataset} (gain {war[method] - war[baseline]:+.2f})", xlabel="recall (%)",
               ylim=(-0.7, len(place) - 0.3))
        ax.margins(x=0.2)
        ax.grid(axis="y", linewidth=0.4)
    axes[0].set_yticks(range(len(place)), [f"{m} ({y})" for m, y in order.itertuples(index=False)])
    for label, name in zip(axes[0].get_yticklabels(), place):
        label.set_color(colour.get(name, "black"))
    _key(axes[0])
    stamp(fig, "published numbers on licensed data; none was measured here")
    return fig


def _key(ax) -> None:
    """Filled is WAR, hollow is UAR."""
    ax.plot([], [], "o", color=OTHER_COLOUR, label="WAR")
    ax.plot([], [], "o", color=OTHER_COLOUR, markerfacecolor="white", label="UAR")
    ax.legend(loc="upper left", handletextpad=0.1, borderaxespad=0.1)


def claims(table: pd.DataFrame, note: str) -> Figure:
    """Each claim's difference with its interval; the side on which the paper expects it is shaded.

    Args:
        table: claim, difference, low, high (percentage points), expected (+1 or -1), verdict, as from `s4d.report.judge`.
        note: which data, profile and seeds the numbers are from.
    Returns:
        a figure one column wide. Every verdict is printed in the same size and weight.
    """
    fig, ax = figure(COLUMN, 0.6 + 0.52 * len(table))
    reach = 1.25 * float(np.nanmax(np.abs(table[["low", "high"]].to_numpy(float)), initial=1.0))
    for y, row in enumerate(table.iloc[::-1].itertuples()):
        ax.barh(y, row.expected * reach, height=0.82, color="#eef2f6", zorder=0)
        middle = 0.0 if pd.isna(row.difference) else row.difference
        ax.plot([row.low, row.high], [y, y], color="#333333", linewidth=1.4, solid_capstyle="butt")
        ax.plot(row.difference, y, "o", color="#333333")
        ax.annotate(row.verdict, (middle, y), (0, 5), textcoords="offset points", ha="center", fontsize=7)
    ax.axvline(0, color="#333333", linewidth=0.6)
    ax.set_yticks(range(len(table)), table["claim"].iloc[::-1])
    ax.set_title("the paper's claim ", loc="left", ha="right", fontsize=6.5, fontweight="normal", color="#777777", pad=2)
    ax.set(xlim=(-reach, reach), ylim=(-0.6, len(table) - 0.4), xlabel="WAR difference (percentage points)")
    ax.tick_params(axis="y", length=0)
    stamp(fig, note)
    return fig
