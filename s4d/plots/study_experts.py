"""Figures of the experts' study: usage, maps over the face, specificity in bits, what switching one off costs."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import EMOTION_COLOURS, PAGE, TASK_COLOURS, TASK_LABELS, figure, stamp

SMALL = 6.5          # pt, for numbers inside cells


def usage(table: pd.DataFrame, note: str = "") -> Figure:
    """Share of assignments by expert (columns, from the most static to the most dynamic) and by task and emotion (rows).

    Args:
        table: of `analysis.experts.usage_table`, both tasks, one seed.
    """
    blocks = sorted(table.block.unique())
    across = min(len(blocks), 3)
    down = -(-len(blocks) // across)
    groups = table.drop_duplicates(["task", "emotion"])
    groups = [(t, e) for t in ("image", "video") for e in ("all", *EMOTION_COLOURS) if e in set(groups[groups.task == t].emotion)]
    fig, axes = figure(PAGE, 0.5 + 0.155 * len(groups) * down + 0.35 * down, down, across, squeeze=False, sharey=True)
    top = 100 * table.share.max()
    for ax, block in zip(axes.flat, blocks):
        wide = table[table.block == block].pivot(index=["task", "emotion"], columns="expert", values="share").loc[groups]
        order = (wide.loc[("video", "all")] - wide.loc[("image", "all")]).sort_values(kind="stable").index
        share = 100 * wide[order].to_numpy()
        picture = ax.imshow(share, vmin=0, vmax=top, aspect="auto", cmap="cividis")
        if across <= 2:
            for (i, j), v in np.ndenumerate(share):
                ax.text(j, i, f"{v:.0f}", ha="center", va="center", fontsize=SMALL, color="white" if v < 0.55 * top else "black")
        ax.set_title(f"Block {block}")
        ax.set_xticks(range(len(order)), [str(e) for e in order])
        ax.set_yticks(range(len(groups)), [f"{TASK_LABELS[t].split()[0]}: {e}" for t, e in groups])
        ax.axhline(sum(t == "image" for t, _ in groups) - 0.5, color="white", linewidth=2)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("expert, from static to dynamic")
    for ax in axes.flat[len(blocks):]:
        ax.set_axis_off()
    bar = fig.colorbar(picture, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("share of the assignments (%), line: even use")
    even = 100 / table.expert.nunique()
    if even < top:
        bar.ax.axhline(even, color="white", linewidth=1.5)
    stamp(fig, note)
    return fig


def maps(table: pd.DataFrame, faces: dict[str, np.ndarray], note: str = "") -> Figure:
    """Mean gate of every expert on the token grid, over the mean face.

    Args:
        table: of `analysis.experts.maps_table`, both tasks, one seed.
        faces: task -> grey mean picture `[H, W]`, 0..1.
    """
    rows = [(block, task) for block in sorted(table.block.unique()) for task in ("image", "video")]
    experts = sorted(table.expert.unique())
    fig, axes = figure(PAGE, 0.45 + 0.85 * len(rows), len(rows), len(experts), squeeze=False)
    top = table.gate.max()
    for i, (block, task) in enumerate(rows):
        for e, ax in zip(experts, axes[i]):
            part = table[(table.block == block) & (table.task == task) & (table.expert == e)]
            grid = part.pivot(index="row", columns="column", values="gate").to_numpy()
            extent = (0, 1, 1, 0)
            ax.imshow(faces[task], cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="bilinear")
            picture = ax.imshow(grid, cmap="cividis", vmin=0, vmax=top, extent=extent, alpha=0.62)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if i == 0:
                ax.set_title(f"expert {e}", fontsize=7, fontweight="normal", loc="center")
        axes[i, 0].set_ylabel(f"block {block}\n{TASK_LABELS[task].split()[0]}", fontsize=7)
    fig.colorbar(picture, ax=axes, shrink=0.7, pad=0.01).set_label("mean gate of a token")
    stamp(fig, note)
    return fig


PANELS = {"Task": [("task", "#000000", "all time steps"), ("task, first time step", "#999999", "first time step")],
          "Emotion": [(f"emotion, {t}", TASK_COLOURS[t], TASK_LABELS[t].split()[0]) for t in TASK_COLOURS],
          "Place on the face": [(f"place, {t}", TASK_COLOURS[t], TASK_LABELS[t].split()[0]) for t in TASK_COLOURS]}


def specificity(table: pd.DataFrame, note: str = "") -> Figure:
    """Mutual information between expert and task, emotion, place, by block: one point a seed, its interval, its null.

    Args:
        table: of `analysis.experts.specificity_table` with a column seed.
    """
    fig, axes = figure(PAGE, 2.3, 1, 3)
    blocks, seeds = sorted(table.block.unique()), sorted(table.seed.unique())
    for ax, (title, series) in zip(axes, PANELS.items()):
        for s, (about, colour, label) in enumerate(series):
            for j, seed in enumerate(seeds):
                part = table[(table.about == about) & (table.seed == seed)].sort_values("block")
                x = np.arange(len(blocks)) + (s - 0.5) * 0.4 + (j - (len(seeds) - 1) / 2) * 0.1
                if part.low.notna().all():
                    ax.vlines(x, part.low, part.high, color=colour, linewidth=0.9)
                ax.plot(x, part.bits, "o", color=colour, label=label if j == 0 else None)
                ax.hlines(part.null_95, x - 0.045, x + 0.045, color="#CC79A7", linewidth=1.5, zorder=3,
                          label="null, 95th percentile" if s == 1 and j == 0 else None)
        ax.set_title(title)
        ax.set_xticks(range(len(blocks)), [str(b) for b in blocks])
        ax.set_xlim(-0.6, len(blocks) - 0.4)
        ax.set_ylim(0, 1.45 * max(table[table.about.isin([a for a, *_ in series])][["bits", "high", "null_95"]].max()))
        ax.set_xlabel("block")
        ax.legend(loc="upper left", fontsize=SMALL, handlelength=1, borderaxespad=0, labelspacing=0.2)
    axes[0].set_ylabel("mutual information\nwith the expert (bits)")
    stamp(fig, note)
    return fig


def switched_off(table: pd.DataFrame, note: str = "") -> Figure:
    """Change of the probability of the true class when one expert is never chosen.

    Args:
        table: of `analysis.experts.cost_of_experts`, both tasks, one seed.
    """
    blocks = sorted(table.block.unique())
    fig, axes = figure(PAGE, 2.2, 1, len(blocks), squeeze=False, sharey=True)
    for ax, block in zip(axes[0], blocks):
        for k, (task, colour) in enumerate(TASK_COLOURS.items()):
            part = table[(table.block == block) & (table.task == task)].sort_values("expert")
            x = part.expert + (k - 0.5) * 0.3
            ax.vlines(x, part.low, part.high, color=colour, linewidth=0.9)
            ax.plot(x, part.change, "o", color=colour, label=TASK_LABELS[task])
        ax.axhline(0, color="#888888", linewidth=0.6, zorder=0)
        ax.set_title(f"Block {block}")
        ax.set_xticks(range(1, table.expert.nunique() + 1))
        ax.set_xlabel("expert switched off")
    largest = max(1.0, table[["change", "low", "high"]].abs().max().max())
    axes[0, 0].set_ylim(-1.1 * largest, 1.1 * largest)
    axes[0, 0].set_ylabel("change of true class\nprobability (points)")
    axes[0, 0].legend(loc="best", fontsize=SMALL)
    stamp(fig, note)
    return fig
