"""Figures of the experts' study: usage, maps over the face, specificity in bits, what switching one off costs."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from .style import EMOTION_COLOURS, PAGE, TASK_COLOURS, TASK_LABELS, figure, show, stamp

SMALL = 6.5          # pt, for numbers inside cells
NULL = "#CC79A7"     # what a null model gives
KINDS = {"image": "photos", "video": "clips"}
ORDER = ("image", "video", *EMOTION_COLOURS, "brows", "eyes", "nose", "mouth", "other", "onset", "apex", "offset")


def tag(ax, text: str, x: float = 0.98, y: float = 0.98, **kwargs) -> None:
    """A small grey note inside the axes, in the upper right corner if not told otherwise: how many samples or people it shows."""
    given = dict(ha="right" if x > 0.5 else "left", va="top" if y > 0.5 else "bottom", fontsize=6, color="#555555") | kwargs
    ax.text(x, y, text, transform=ax.transAxes, **given)


def ends(blocks) -> list[int]:
    """All blocks where they are two, else the first and the last: what fits on a page."""
    blocks = sorted(set(blocks))
    return blocks if len(blocks) <= 2 else [blocks[0], blocks[-1]]


def usage(table: pd.DataFrame, note: str = "") -> Figure:
    """Share of assignments by expert (columns, from the most static to the most dynamic) and by task, emotion, region, phase (rows).

    Args:
        table: of `analysis.experts.usage_table`, one seed; of more than two blocks the first and the last are drawn.
    """
    blocks = ends(table.block)
    known = table.drop_duplicates(["task", "by", "group"])
    known = known[["by", "task", "group", "samples"]].itertuples(index=False, name=None)
    rows = sorted(known, key=lambda k: (("task", "emotion", "region", "phase").index(k[0]), k[1], ORDER.index(k[2])))
    fig, axes = figure(PAGE, 0.9 + 0.148 * len(rows), 1, len(blocks), squeeze=False, sharey=True)
    top = 100 * table.share.max()
    for ax, block in zip(axes[0], blocks):
        part = table[table.block == block]
        wide = part.pivot(index=["by", "task", "group"], columns="expert", values="share")
        order = (wide.loc[("task", "video", "video")] - wide.loc[("task", "image", "image")]).sort_values(kind="stable").index
        share = 100 * wide.loc[[k[:3] for k in rows], order].to_numpy()
        picture = ax.imshow(share, vmin=0, vmax=top, aspect="auto", cmap="cividis")
        for (i, j), v in np.ndenumerate(share):
            ax.text(j, i, f"{v:.0f}", ha="center", va="center", fontsize=6, color="white" if v < 0.55 * top else "black")
        for i in range(1, len(rows)):
            if rows[i][:2] != rows[i - 1][:2] and rows[i][0] != "task":
                ax.axhline(i - 0.5, color="white", linewidth=2.5)
        width = 50 * (part.high - part.low)[part.share > 0.01].median()                      # of experts that are used at all
        ax.set_title(f"Block {block}" + ("" if np.isnan(width) else f", 95 % interval ±{width:.1f} points (median)"), fontsize=7.5)
        ax.set_xticks(range(len(order)), [str(e) for e in order])
        named = [KINDS[t] if by == "task" else f"{KINDS[t]}: {g}" for by, t, g, _ in rows]
        ax.set_yticks(range(len(rows)), [f"{text} ({n})" for text, (*_, n) in zip(named, rows)], fontsize=SMALL)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("expert, from static to dynamic")
    bar = fig.colorbar(picture, ax=axes, shrink=0.6, pad=0.01)
    bar.set_label("share of the assignments (%), line: even use")
    bar.ax.axhline(min(100 / table.expert.nunique(), top), color="white", linewidth=1.5)
    stamp(fig, note)
    return fig


def maps(table: pd.DataFrame, faces: dict[str, np.ndarray], counts: dict[str, int], note: str = "") -> Figure:
    """Mean gate of every expert on the token grid, over the mean face.

    Args:
        table: of `analysis.experts.maps_table`, both tasks, one seed.
        faces: task -> grey mean picture `[H, W]`, 0..1.
        counts: task -> number of samples.
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
        axes[i, 0].set_ylabel(f"block {block}\n{counts[task]} {KINDS[task]}", fontsize=7)
    fig.colorbar(picture, ax=axes, shrink=0.7, pad=0.01).set_label("mean gate of a token")
    stamp(fig, note)
    return fig


def leaders(table: pd.DataFrame, pictures: dict[str, list], titles: dict[str, list[str]], regions: np.ndarray, names: tuple[str, ...],
            note: str = "") -> Figure:
    """The leading expert of every token, written on faces; lines run between tokens with different leaders. Left: the regions.

    Args:
        table: of `analysis.experts.leading_table`, with columns task and picture (number in its row of the figure).
        pictures: task -> uint8 pictures `[3, H, W]`.
        titles: task -> one title a picture.
        regions: int `[H, W]`, region of each pixel, an index into `names`.
    """
    across = 1 + max(map(len, pictures.values()))
    fig, axes = figure(PAGE, 1.22 * len(pictures) + 0.2, len(pictures), across, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    _regions(axes[0, 0], pictures["image"][0], regions, names)
    for row, (task, shown) in zip(axes, pictures.items()):
        for k, (ax, picture) in enumerate(zip(row[1:], shown)):
            show(picture, ax, titles[task][k])
            part = table[(table.task == task) & (table.picture == k)]
            _leaders(ax, part.pivot(index="row", columns="column", values="expert").to_numpy(), np.asarray(picture).shape[-1])
    stamp(fig, note)
    return fig


def _leaders(ax, grid: np.ndarray, size: int) -> None:
    step = size / len(grid)
    halo = [withStroke(linewidth=1.6, foreground="black")]
    for (i, j), e in np.ndenumerate(grid):
        at = (step * (j + 0.5) - 0.5, step * (i + 0.5) - 0.5)
        ax.text(*at, str(e), ha="center", va="center", fontsize=min(8.0, 40 / len(grid)), color="white", path_effects=halo)
        right, under = at[0] + step / 2, at[1] + step / 2
        if j + 1 < grid.shape[1] and grid[i, j + 1] != e:
            ax.plot([right] * 2, [under - step, under], color="white", linewidth=1.3, solid_capstyle="butt")
        if i + 1 < grid.shape[0] and grid[i + 1, j] != e:
            ax.plot([right - step, right], [under] * 2, color="white", linewidth=1.3, solid_capstyle="butt")


def _regions(ax, picture, regions: np.ndarray, names: tuple[str, ...]) -> None:
    """Regions as outlines with their names over a pale face."""
    size = np.asarray(picture).shape[-1]
    grey = np.asarray(picture).mean(0) / 255
    ax.imshow(0.55 + 0.45 * grey, cmap="gray", vmin=0, vmax=1)
    axis = (np.arange(len(regions)) + 0.5) * size / len(regions) - 0.5
    for k, name in enumerate(names[:-1]):
        inside = (regions == k).astype(float)
        ax.contour(axis, axis, inside, levels=[0.5], colors="black", linewidths=0.8)
        rows = np.flatnonzero(inside.any(1))
        ax.annotate(name, (1.0, 1 - (rows.mean() + 0.5) / len(regions)), xycoords="axes fraction", fontsize=6, ha="left", va="center",
                    xytext=(2, 0), textcoords="offset points")
    ax.set_title("regions", fontsize=7, fontweight="normal", loc="center", pad=2)


BOTH = lambda about: [(f"{about}, {t}", TASK_COLOURS[t], "so"[t == "image"], KINDS[t]) for t in TASK_COLOURS]
TASK = [("task", "#000000", "s", "all time steps"), ("task, first time step", "#999999", "o", "first time step")]
PANELS = {"Task": ("bits", TASK), "Task-specificity index": ("index", TASK), "Emotion": ("bits", BOTH("emotion")),
          "Region of the face": ("bits", BOTH("region")), "Place (each token)": ("bits", BOTH("place")),
          "Phase": ("bits", [("phase, video", TASK_COLOURS["video"], "s", "clips")])}


def specificity(bits: pd.DataFrame, index: pd.DataFrame, note: str = "") -> Figure:
    """Mutual information between expert and task, emotion, region, place, phase, and the specificity index, by block: one point a
    seed, its interval, its null.

    Args:
        bits: of `analysis.experts.specificity_table` with a column seed.
        index: of `analysis.experts.index_table` with a column seed.
    """
    shown = {title: (bits if column == "bits" else index, column, series) for title, (column, series) in PANELS.items()}
    shown = {k: v for k, v in shown.items() if v[0].about.isin([a for a, *_ in v[2]]).any()}          # no phase without truth
    fig, axes = figure(PAGE, 4.1, 2, 3)
    for ax in axes.flat[len(shown):]:
        ax.set_axis_off()
    for ax, (title, (table, column, series)) in zip(axes.flat, shown.items()):
        _series(ax, table, column, series)
        ax.set_title(title)
    for ax in axes[:, 0]:
        ax.set_ylabel("mutual information\nwith the expert (bits)")
    axes[0, 1].set_ylabel("index (0 alike, 1 apart)")
    for ax in axes[-1]:
        ax.set_xlabel("block")
    stamp(fig, note)
    return fig


def _series(ax, table: pd.DataFrame, column: str, series: list[tuple]) -> None:
    blocks, seeds, counts, top = sorted(table.block.unique()), sorted(table.seed.unique()), [], 0.0
    for s, (about, colour, marker, label) in enumerate(series):
        shift = (s - (len(series) - 1) / 2) * 0.42
        for j, seed in enumerate(seeds):
            part = table[(table.about == about) & (table.seed == seed)].sort_values("block")
            x = np.arange(len(part)) + shift + (j - (len(seeds) - 1) / 2) * 0.11
            ax.vlines(x, part.low, part.high, color=colour, linewidth=0.9)
            ax.plot(x, part[column], marker, color=colour, markersize=3.5, label=label if j == 0 else None)
            ax.hlines(part.null_95, x - 0.05, x + 0.05, color=NULL, linewidth=1.5, zorder=3)
            top = max(top, np.nanmax(part[[column, "high", "null_95"]].to_numpy(), initial=0))
        counts.append(f"{part.people.max()}")
    ax.plot([], [], "_", color=NULL, markeredgewidth=1.5, label="null, 95 %")
    ax.set_xticks(range(len(blocks)), [str(b) for b in blocks])
    ax.set_xlim(-0.6, len(blocks) - 0.4)
    ax.set_ylim(0, 1.55 * max(top, 1e-6))
    ax.legend(loc="upper left", fontsize=SMALL, handlelength=1, borderaxespad=0, labelspacing=0.2)
    tag(ax, "n = " + " and ".join(dict.fromkeys(counts)) + " people")


def switched_off(table: pd.DataFrame, note: str = "") -> Figure:
    """Change of the probability of the true class when one expert is never chosen, over all samples.

    Args:
        table: of `analysis.routing.cost_of_experts`, both tasks, one seed.
    """
    table = table[table.emotion == "all"]
    blocks = sorted(table.block.unique())
    fig, axes = figure(PAGE, 2.2, 1, len(blocks), squeeze=False, sharey=True)
    for ax, block in zip(axes[0], blocks):
        for k, (task, colour) in enumerate(TASK_COLOURS.items()):
            part = table[(table.block == block) & (table.task == task)].sort_values("expert")
            x = part.expert + (k - 0.5) * 0.3
            ax.vlines(x, part.low, part.high, color=colour, linewidth=0.9)
            ax.plot(x, part.change, "os"[k], color=colour, markersize=3.5, label=f"{TASK_LABELS[task]}, n = {part.samples.max()}")
        ax.axhline(0, color="#888888", linewidth=0.6, zorder=0)
        ax.set_title(f"Block {block}")
        ax.set_xticks(range(1, table.expert.nunique() + 1))
        ax.set_xlabel("expert switched off")
    largest = max(1.0, table[["change", "low", "high"]].abs().max().max())
    axes[0, 0].set_ylim(-1.1 * largest, 1.1 * largest)
    axes[0, 0].set_ylabel("change of true class\nprobability (points)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=SMALL)
    stamp(fig, note)
    return fig


def switched_off_by_emotion(table: pd.DataFrame, note: str = "") -> Figure:
    """The same by emotion (columns) and expert (rows): change in points; framed where the 95 % interval excludes 0.

    Args:
        table: as in `switched_off`; of more than two blocks the first and the last are drawn.
    """
    table = table[table.emotion != "all"]
    blocks, experts = ends(table.block), sorted(table.expert.unique())
    fig, axes = figure(PAGE, 0.6 + 2 * (0.5 + 0.15 * len(experts)), 2, len(blocks), squeeze=False, sharey=True)
    top = max(1e-3, table.change.abs().max())
    digits = 1 if top >= 1 else 2 if top >= 0.1 else 3
    for row, task in zip(axes, KINDS):
        for ax, block in zip(row, blocks):
            part = table[(table.block == block) & (table.task == task)]
            names = [n for n in EMOTION_COLOURS if n in set(part.emotion)]
            wide = part.pivot(index="expert", columns="emotion", values="change").loc[experts, names]
            picture = ax.imshow(wide, vmin=-top, vmax=top, cmap="PuOr", aspect="auto")
            for (i, j), v in np.ndenumerate(wide.to_numpy()):
                shown = f"{v:+z.{digits}f}".replace("-", "−")
                ax.text(j, i, shown if float(f"{v:.{digits}f}") else "0", ha="center", va="center", fontsize=6,
                        color="white" if abs(v) > 0.6 * top else "black")
            for r in part[(part.low > 0) | (part.high < 0)].itertuples():
                corner = names.index(r.emotion) - 0.47, experts.index(r.expert) - 0.44
                ax.add_patch(Rectangle(corner, 0.94, 0.88, fill=False, linewidth=1.2))
            size = part.drop_duplicates("emotion").set_index("emotion").samples
            ax.set_xticks(range(len(names)), [f"{n[:3]}\n{size[n]}" for n in names], fontsize=SMALL)
            ax.set_yticks(range(len(experts)), experts)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            width = ((part.high - part.low) / 2).median()
            spread = "" if np.isnan(width) else f"; 95 % interval ±{width:.1g} (median)"
            ax.set_title(f"Block {block}, {KINDS[task]}{spread}", fontsize=7)
        row[0].set_ylabel("expert switched off")
    for ax in axes[-1]:
        ax.set_xlabel("emotion, and number of samples")
    fig.colorbar(picture, ax=axes, shrink=0.7, pad=0.01).set_label("change of true class\nprobability (points)")
    stamp(fig, note)
    return fig
