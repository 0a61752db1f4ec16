"""Figures of the experts: usage, maps over the face, specificity."""
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from . import style
from .style import KINDS, PAGE, SMALL, figure, heading, key, legend, number, present, stamp, zero

QUESTIONS = {
    f"{what}, {task}": (f"{what}, {kind}", style.TASK_COLOURS[task], style.TASK_MARKERS[task])
    for what in ("emotion", "place") for task, kind in KINDS.items()}
QUESTIONS |= {text: (text, "#222222", "o") for text in ("task", "task, first time step")}


def usage(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw which expert serves which task and emotion: its share less that in other groups."""
    blocks = sorted({table.block.min(), table.block.max()})         # what fits on a page
    drawn = table[(table.by == "emotion") | (table.group == "video")]
    drawn = drawn.drop_duplicates(["task", "by", "group"])
    order = ("image", "video", *style.EMOTION_COLOURS)
    rows = sorted(drawn[["by", "task", "group", "samples"]].itertuples(index=False, name=None),
                  key=lambda k: (k[0] == "emotion", k[1], order.index(k[2])))
    fig, axes = figure(PAGE, 0.95 + 0.155 * len(rows), 1, len(blocks), squeeze=False, sharey=True)
    top = max(1.0, 100 * table.difference.abs().max())
    for ax, block in zip(axes[0], blocks, strict=True):
        part = table[table.block == block]
        wide = part.set_index(["by", "task", "group", "expert"])
        wide = wide[["difference", "difference_low", "difference_high"]].unstack("expert")
        wide = 100 * wide.loc[[r[:3] for r in rows]]
        shown = (wide["difference_low"] > 0) | (wide["difference_high"] < 0)
        values = wide["difference"].to_numpy()
        picture = ax.imshow(values, norm=Normalize(-top, top), cmap="PuOr", aspect="auto")
        for i, j in np.argwhere(shown.to_numpy()):
            v = values[i, j]
            dark = picture.to_rgba(v)[:3] @ np.array([0.3, 0.6, 0.1]) < 0.5
            ax.text(j, i, number(v, form="+.0f" if abs(v) >= 0.95 else "+.1f"), ha="center",
                    va="center", fontsize=SMALL, color="white" if dark else "black")
        for i in range(1, len(rows)):
            if rows[i][:2] != rows[i - 1][:2]:
                ax.axhline(i - 0.5, color="black", linewidth=0.8)
        ax.set_title(f"Block {block}")
        ax.tick_params(length=0, labelsize=SMALL)
        ax.spines[:].set_visible(False)
        mean = 100 * part[part.by == "task"].groupby("expert").share.mean()
        ax.set_xticks(range(len(mean)), [f"{e}\n{share:.0f} %" for e, share in mean.items()])
        photos = part[part.group == "image"].samples.max()
        ax.set_yticks(range(len(rows)), [
            f"{KINDS[task]}: {group} (n = {n})" if by == "emotion" else
            f"clips minus photos (n = {n}, {photos})" for by, task, group, n in rows])
        ax.set_xlabel("expert, and its share of all assignments")
    bar = fig.colorbar(picture, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("difference of the share from\nthe other groups (points)", fontsize=7)
    return stamp(fig, note)


def maps(table: pd.DataFrame, faces: dict[str, np.ndarray], counts: dict[str, int],
         note: str = "") -> Figure:
    """Draw the mean gate of every expert on the token grid, beside the mean face.

    Args:
        table: of `s4d.study.experts.maps_table`, both tasks, one seed, with a column agreement.
        faces, counts: task -> grey mean picture `[H, W]`, 0..1; task -> number of samples.
    """
    rows = [(block, task) for block in sorted(table.block.unique()) for task in KINDS]
    experts = sorted(table.expert.unique())
    fig, axes = figure(PAGE, 0.45 + 0.68 * len(rows), len(rows), 1 + len(experts), squeeze=False,
                       subplot_kw=dict(xticks=[], yticks=[]))
    for ax in axes.flat:
        ax.spines[:].set_visible(False)
    square = (0, 1, 1, 0)
    for row, (block, task) in zip(axes, rows, strict=True):
        part = table[(table.block == block) & (table.task == task)]
        for e, ax in zip(experts, row[1:], strict=True):
            grid = part[part.expert == e].pivot(index="row", columns="column", values="gate")
            picture = ax.imshow(grid, vmin=0, vmax=table.gate.max(), extent=square)
        row[0].imshow(faces[task], cmap="gray", vmin=0, vmax=1, extent=square,
                      interpolation="bilinear")
        for k in range(1, len(grid)):
            for line in (row[0].axhline, row[0].axvline):
                line(k / len(grid), color="white", linewidth=0.5)
        r = f"\nr = {number(part.agreement.iloc[0], form='.2f')}" if task == "video" else ""
        row[0].set_ylabel(f"block {block}\n{counts[task]} {KINDS[task]}{r}", fontsize=SMALL)
    for ax, title in zip(axes[0], ["mean face", *(f"expert {e}" for e in experts)], strict=True):
        heading(ax, title, 7, loc="center")
    bar = fig.colorbar(picture, ax=axes, shrink=0.7, pad=0.01)
    bar.set_label("mean gate of a token", fontsize=7)
    even = min(1 / len(experts), table.gate.max())
    bar.ax.axhline(even, color="white", linewidth=1.5)
    bar.ax.text(-0.3, even, "even\nuse", transform=bar.ax.get_yaxis_transform(), ha="right",
                va="center", fontsize=SMALL)
    return stamp(fig, note)


def specificity(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw what each of `QUESTIONS` tells beyond its null, of `specificity_table`."""
    blocks, rows = sorted({table.block.min(), table.block.max()}), present(table.about, QUESTIONS)
    fig, axes = figure(PAGE, 0.95 + 0.27 * len(rows), 1, len(blocks), squeeze=False, sharex=True,
                       sharey=True)
    for (k, block), (y, about) in product(enumerate(blocks), enumerate(rows)):
        ax, part = axes[0, k], table[(table.block == block) & (table.about == about)]
        r, (_, colour, marker) = part.iloc[0], QUESTIONS[about]
        ax.barh(y, r.null_top, height=0.8, color=style.NULL_COLOUR, zorder=0)
        ax.hlines(y, r.mean_low, r.mean_high, color=colour, linewidth=1.4)
        places = y + 0.22 * (np.arange(len(part)) - (len(part) - 1) / 2)
        ax.plot(part.beyond, places, marker, color=colour, markersize=3.5,
                markerfacecolor=colour if r.p_holm <= style.LEVEL else "white")
        ax.text(1.02, y, number(r["mean"], r.mean_low, r.mean_high), va="center", fontsize=SMALL,
                transform=ax.get_yaxis_transform())
    for ax, block in zip(axes[0], blocks, strict=True):
        zero(ax)
        ax.tick_params(axis="y", length=0)
        ax.set_title(f"Block {block}")
        ax.set_xlabel("told about the expert beyond the null\n(% of the largest possible)")
    people = table.groupby("about").people.max()
    axes[0, 0].set_yticks(range(len(rows)), [f"{QUESTIONS[q][0]} (n = {people[q]})" for q in rows])
    axes[0, 0].set_ylim(len(rows) - 0.4, -0.6)
    legend(fig, [key("a seed", marker="o"),
                 key("a seed; mean not shown to exceed the null", marker="o", markerfacecolor="w"),
                 key("95 % interval of the mean", linestyle="-"),
                 Patch(color=style.NULL_COLOUR, label="null up to its 95th percentile")])
    return stamp(fig, note)
