"""Figures of the experts' study: usage, maps over the face, specificity beyond chance, what switching one off costs."""
from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter
from scipy.ndimage import label as connected

from ..experts_said import marked, number
from ..intervals import FEWEST
from ...captions import LEVEL
from .style import EMOTION_COLOURS, KINDS, NULL_COLOUR, PAGE, SMALL, TASK_COLOURS, TASK_MARKERS, figure, show, stamp

ORDER = ("image", "video", *EMOTION_COLOURS, "brows", "eyes", "nose", "mouth", "other", "onset", "apex", "offset")


def ends(blocks) -> list[int]:
    """All blocks where they are two, else the first and the last: what fits on a page."""
    blocks = sorted(set(blocks))
    return blocks if len(blocks) <= 2 else [blocks[0], blocks[-1]]


def cells(ax, values: np.ndarray, texts: list[list[str]], norm: Normalize):
    """A table in colours, purple above 0 and orange below, with numbers whose sign is read in grey print too."""
    picture = ax.imshow(values, norm=norm, cmap="PuOr", aspect="auto")
    for (i, j), v in np.ndenumerate(values):
        dark = picture.cmap(float(norm(v)))[:3] @ np.array([0.3, 0.6, 0.1]) < 0.5
        ax.text(j, i, texts[i][j], ha="center", va="center", fontsize=SMALL, color="white" if dark else "black")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return picture


def usage(table: pd.DataFrame, note: str = "") -> Figure:
    """Which expert serves which task and emotion: difference of an expert's share from that in the other groups, in points.

    Args:
        table: of `study.experts.usage_table`, one seed; of more than two blocks the first and the last are drawn.
    """
    blocks = ends(table.block)
    table = table[(table.by == "emotion") | (table.by == "task")]
    drawn = table[(table.by == "emotion") | (table.group == "video")].drop_duplicates(["task", "by", "group"])
    rows = sorted(drawn[["by", "task", "group", "samples"]].itertuples(index=False, name=None),
                  key=lambda k: (k[0] == "emotion", k[1], ORDER.index(k[2])))
    fig, axes = figure(PAGE, 0.95 + 0.155 * len(rows), 1, len(blocks), squeeze=False, sharey=True)
    top = max(1.0, 100 * table.difference.abs().max())
    for ax, block in zip(axes[0], blocks):
        part = table[table.block == block]
        wide = part.set_index(["by", "task", "group", "expert"])
        experts = sorted(part.expert.unique())
        values, low, high = (100 * np.array([[wide[c][(*r[:3], e)] for e in experts] for r in rows])
                             for c in ("difference", "difference_low", "difference_high"))
        texts = np.where((low > 0) | (high < 0), [[_points(v) for v in row] for row in values], "")
        picture = cells(ax, values, texts.tolist(), Normalize(-top, top))
        for i in range(1, len(rows)):
            if rows[i][:2] != rows[i - 1][:2]:
                ax.axhline(i - 0.5, color="black", linewidth=0.8)
        ax.set_title(f"Block {block}")
        mean = 100 * part[part.by == "task"].groupby("expert").share.mean()
        photos = part[part.group == "image"].samples.max()
        ax.set_xticks(range(len(experts)), [f"{e}\n{mean[e]:.0f} %" for e in experts], fontsize=SMALL)
        ax.set_yticks(range(len(rows)), [f"{KINDS[t]}: {g} (n = {n})" if by == "emotion" else f"clips minus photos (n = {n}, {photos})"
                                        for by, t, g, n in rows],
                      fontsize=SMALL)
        ax.set_xlabel("expert, and its share of all assignments")
    fig.colorbar(picture, ax=axes, shrink=0.8, pad=0.01).set_label("difference of the share from\nthe other groups (points)", fontsize=7)
    stamp(fig, note)
    return fig


def _points(value: float) -> str:
    """Whole points; tenths where they would be 0."""
    return number(value, form="+.0f" if abs(value) >= 0.95 else "+.1f")


def maps(table: pd.DataFrame, faces: dict[str, np.ndarray], counts: dict[str, int], note: str = "") -> Figure:
    """Mean gate of every expert on the token grid, beside the mean face with the same grid.

    Args:
        table: of `study.experts.maps_table`, both tasks, one seed; with a column agreement, that of a block is written beside its rows.
        faces: task -> grey mean picture `[H, W]`, 0..1.
        counts: task -> number of samples.
    """
    rows = [(block, task) for block in sorted(table.block.unique()) for task in ("image", "video")]
    experts = sorted(table.expert.unique())
    fig, axes = figure(PAGE, 0.45 + 0.68 * len(rows), len(rows), 1 + len(experts), squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for row, (block, task) in zip(axes, rows):
        part = table[(table.block == block) & (table.task == task)]
        for e, ax in zip(experts, row[1:]):
            grid = part[part.expert == e].pivot(index="row", columns="column", values="gate").to_numpy()
            picture = ax.imshow(grid, cmap="cividis", vmin=0, vmax=table.gate.max(), extent=(0, 1, 1, 0))
        row[0].imshow(faces[task], cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0), interpolation="bilinear")
        for k in range(1, len(grid)):
            row[0].axhline(k / len(grid), color="white", linewidth=0.5)
            row[0].axvline(k / len(grid), color="white", linewidth=0.5)
        r = f"\nr = {number(part.agreement.iloc[0], form='.2f')}" if "agreement" in part and task == "video" else ""
        row[0].set_ylabel(f"block {block}\n{counts[task]} {KINDS[task]}{r}", fontsize=SMALL)
    for ax, title in zip(axes[0], ["mean face", *(f"expert {e}" for e in experts)]):
        ax.set_title(title, fontsize=7, fontweight="normal", loc="center")
    bar = fig.colorbar(picture, ax=axes, shrink=0.7, pad=0.01)
    bar.set_label("mean gate of a token", fontsize=7)
    even = min(1 / len(experts), table.gate.max())
    bar.ax.axhline(even, color="white", linewidth=1.5)
    bar.ax.text(-0.3, even, "even\nuse", transform=bar.ax.get_yaxis_transform(), ha="right", va="center", fontsize=SMALL)
    stamp(fig, note)
    return fig


def leaders(table: pd.DataFrame, pictures: dict[str, list], titles: dict[str, list[str]], regions: np.ndarray, names: tuple[str, ...],
            note: str = "") -> Figure:
    """Which expert leads at every token of single pictures: below each face its tokens, a colour and a number an expert.

    Args:
        table: of `study.experts.leading_table`, with columns task and picture (number in its row of the figure).
        pictures: task -> uint8 pictures `[3, H, W]`.
        titles: task -> what a row shows, then one title a picture.
        regions: int `[H, W]`, region of each pixel, an index into `names`.
    """
    across = 1 + max(map(len, pictures.values()))
    fig, axes = figure(PAGE, 1.95 * len(pictures) * 7 / across + 0.2, 2 * len(pictures), across, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    _regions(axes[0, 0], pictures["image"][0], regions, names)
    for k, (task, shown) in enumerate(pictures.items()):
        about, *over = titles[task]
        if k:
            axes[2 * k, 0].text(1, 0.5, about, ha="right", va="center", fontsize=7, transform=axes[2 * k, 0].transAxes)
        axes[2 * k + 1, 0].text(1, 0.5, "expert with\nthe largest\ngate", ha="right", va="center", fontsize=7,
                                transform=axes[2 * k + 1, 0].transAxes)
        for j, picture in enumerate(shown):
            part = table[(table.task == task) & (table.picture == j)]
            grid = part.pivot(index="row", columns="column", values="expert").to_numpy()
            show(picture, axes[2 * k, 1 + j], over[j])
            _leaders(axes[2 * k + 1, 1 + j], grid)
    stamp(fig, note)
    return fig


def _leaders(ax, grid: np.ndarray) -> None:
    """A pale colour for each expert and its number once in each connected area; on fine grids only where the number has room."""
    colours = np.array(matplotlib.colormaps["Set3"].colors)
    ax.imshow(colours[(grid - 1) % len(colours)], aspect="equal")
    for e in np.unique(grid):
        areas, count = connected(grid == e)
        for area in (np.argwhere(areas == a) for a in range(1, count + 1)):
            if len(grid) <= 8 or len(area) >= 4:
                row, column = area[np.square(area - area.mean(0)).sum(1).argmin()]
                ax.text(column, row, str(e), ha="center", va="center", fontsize=SMALL)
    for i, j in np.ndindex(*grid.shape):
        if j + 1 < grid.shape[1] and grid[i, j + 1] != grid[i, j]:
            ax.plot([j + 0.5] * 2, [i - 0.5, i + 0.5], color="black", linewidth=0.8)
        if i + 1 < grid.shape[0] and grid[i + 1, j] != grid[i, j]:
            ax.plot([j - 0.5, j + 0.5], [i + 0.5] * 2, color="black", linewidth=0.8)


def _regions(ax, picture, regions: np.ndarray, names: tuple[str, ...]) -> None:
    """Outlines of the regions over a pale face, with lines from their names; the last region is what the others leave."""
    size = np.asarray(picture).shape[-1]
    grey = np.asarray(picture).mean(0) / 255
    ax.imshow(0.55 + 0.45 * grey, cmap="gray", vmin=0, vmax=1)
    axis = (np.arange(len(regions)) + 0.5) * size / len(regions) - 0.5
    halo = [withStroke(linewidth=1.6, foreground="white")]
    for k, name in enumerate(names):
        inside = regions == k
        row, column = (0, 0)                                              # what the others leave begins in the corner
        if k + 1 < len(names):
            ax.contour(axis, axis, inside.astype(float), levels=[0.5], colors="black", linewidths=0.7)
            rows = np.flatnonzero(inside.any(1))
            row = rows[len(rows) // 2]
            column = np.flatnonzero(inside[row])[0]
        place = 1 - (0.7 + (k + 1) % len(names)) / len(names)             # from the top: the rest, then the regions as they lie
        ax.annotate(name, (axis[column] + 1.5, axis[row] + (row == 0)), xytext=(-0.12, place), textcoords="axes fraction", ha="right", va="center",
                    fontsize=SMALL, arrowprops=dict(arrowstyle="-", linewidth=0.6, shrinkA=0, shrinkB=0, path_effects=halo))
    ax.set_title("regions", fontsize=7, fontweight="normal", loc="center", pad=2)


QUESTIONS = {f"{what}, {task}": (f"{what}, {kind}", TASK_COLOURS[task], TASK_MARKERS[task])
             for what in ("emotion", "place", "region", "phase") for task, kind in KINDS.items()}
QUESTIONS |= {"task": ("task", "#222222", "o"), "task, first time step": ("task, first time step", "#222222", "o")}


def specificity(table: pd.DataFrame, note: str = "") -> Figure:
    """What emotion, place, region, phase and task tell about the expert beyond chance, as a share of what they could tell.

    Args:
        table: of `study.experts.beyond_null`, bits; of more than two blocks the first and the last are drawn.
    """
    blocks, rows = ends(table.block), [q for q in QUESTIONS if q in set(table.about)]
    fig, axes = figure(PAGE, 0.95 + 0.27 * len(rows), 1, len(blocks), squeeze=False, sharex=True)
    for ax, block in zip(axes[0], blocks):
        for y, about in enumerate(rows):
            _question(ax, y, table[(table.block == block) & (table.about == about)], *QUESTIONS[about][1:])
        ax.axvline(0, color="#888888", linewidth=0.6, zorder=0)
        people = [table[table.about == q].people.max() for q in rows]
        ax.set_yticks(range(len(rows)), [f"{QUESTIONS[q][0]} (n = {n})" for q, n in zip(rows, people)] if ax is axes[0, 0] else [""] * len(rows))
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_title(f"Block {block}")
        ax.set_xlabel("told about the expert beyond the null\n(% of the largest possible)")
    mark = dict(color="#222222", linestyle="none", markersize=4)
    keys = [Line2D([], [], marker="o", label="a seed", **mark),
            Line2D([], [], marker="o", markerfacecolor="white", label="a seed; mean not shown to exceed the null", **mark),
            Line2D([], [], color="#222222", linewidth=1.4, label="95 % interval of the mean"),
            Patch(color=NULL_COLOUR, label="null up to its 95th percentile")]
    fig.legend(handles=keys, loc="outside upper center", ncols=4, fontsize=SMALL)
    stamp(fig, note)
    return fig


def _question(ax, y: float, part: pd.DataFrame, colour: str, marker: str) -> None:
    """One row: the null, a point a seed, the interval of their mean, and the mean as a number beyond the right border."""
    if part.empty or part["mean"].isna().all():
        return
    r = part.iloc[0]
    ax.barh(y, r.null_top, height=0.8, color=NULL_COLOUR, zorder=0)
    ax.hlines(y, r.mean_low, r.mean_high, color=colour, linewidth=1.4)
    places = y + 0.22 * (np.arange(len(part)) - (len(part) - 1) / 2)
    ax.plot(part.beyond, places, marker, color=colour, markersize=3.5, markeredgewidth=0.8,
            markerfacecolor=colour if r.p_holm <= LEVEL else "white")
    ax.text(1.02, y, number(r["mean"], r.mean_low, r.mean_high, ".1f"), transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL)


def switched_off(table: pd.DataFrame, note: str = "") -> Figure:
    """Change of the probability of the true class when one expert is never chosen, over all samples; filled where it differs from 0.

    Args:
        table: of `study.routing.corrected`, both tasks, one seed.
    """
    table = table[table.emotion == "all"]
    blocks = sorted(table.block.unique())
    fig, axes = figure(PAGE, 2.3, 1, len(blocks), squeeze=False, sharey=True)
    for ax, block in zip(axes[0], blocks):
        for k, (task, colour) in enumerate(TASK_COLOURS.items()):
            part = table[(table.block == block) & (table.task == task)].sort_values("expert")
            for r in part.itertuples():
                x = r.expert + (k - 0.5) * 0.36
                ax.vlines(x, r.low, r.high, color=colour, linewidth=1)
                ax.plot(x, r.change, TASK_MARKERS[task], color=colour, markersize=3.2, markeredgewidth=0.8,
                        markerfacecolor=colour if r.p_holm <= LEVEL else "white")
        ax.axhline(0, color="#888888", linewidth=0.6, zorder=0)
        ax.set_title(f"Block {block}")
        ax.set_xticks(range(1, table.expert.nunique() + 1))
        ax.set_xlabel("expert switched off")
    _around_zero(axes[0, 0], max(2 * LINEAR, 1.3 * table[["change", "low", "high"]].abs().max().max()))
    axes[0, 0].set_ylabel("change of true class\nprobability (points)")
    size = {t: table[table.task == t][["samples", "subjects"]].max() for t in TASK_COLOURS}
    keys = [Line2D([], [], color=colour, marker=TASK_MARKERS[t], linewidth=1, markersize=3.2,
                   label=f"{size[t].samples} {KINDS[t]} of {size[t].subjects} people") for t, colour in TASK_COLOURS.items()]
    keys += [Line2D([], [], color="#222222", marker="o", linestyle="none", markersize=3.2, markerfacecolor=f, label=text)
             for f, text in (("#222222", "differs from 0 (Holm)"), ("white", "not shown to differ"))]
    fig.legend(handles=keys, loc="outside upper center", ncols=4, fontsize=SMALL)
    stamp(fig, note)
    return fig


LINEAR = 0.1         # points up to which the scale is linear; from there on it is logarithmic


def _around_zero(ax, largest: float) -> None:
    """A scale that is linear around 0 and logarithmic beyond, with both borders at one distance, so that a large change hides no small one."""
    ax.set_yscale("symlog", linthresh=LINEAR)
    decades = [d for d in (0.1, 1.0, 10.0, 100.0) if d <= largest]
    ax.yaxis.set_major_locator(FixedLocator([*(-d for d in reversed(decades)), 0, *decades]))
    ax.yaxis.set_minor_locator(FixedLocator([]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: number(v, form="+g") if v else "0"))
    ax.set_ylim(-largest, largest)


def switched_off_by_emotion(table: pd.DataFrame, note: str = "") -> Figure:
    """The same by emotion (rows) and expert (columns), framed where `study.experts_said.marked` says so; hatched where people are few.

    Args:
        table: as in `switched_off`; of more than two blocks the first and the last are drawn.
    """
    table = table[table.emotion != "all"]
    blocks, experts, tasks = ends(table.block), sorted(table.expert.unique()), [t for t in KINDS if t in set(table.task)]
    names = {t: [n for n in EMOTION_COLOURS if n in set(table[table.task == t].emotion)] for t in tasks}
    height = 0.9 + sum(0.4 + 0.16 * len(names[t]) for t in tasks)
    fig, axes = figure(PAGE, height, len(tasks), len(blocks), squeeze=False, sharey="row")
    top = max(1e-3, table.change.abs().max())
    norm = SymLogNorm(top / 20, vmin=-top, vmax=top)      # linear up to a twentieth: one large cell must not turn the others white
    for row, task in zip(axes, tasks):
        for ax, block in zip(row, blocks):
            part = table[(table.block == block) & (table.task == task)].assign(framed=marked)
            wide = part.pivot(index="emotion", columns="expert", values="change").loc[names[task], experts].to_numpy()
            texts = [[number(v, form="+.1f") if abs(v) >= 0.05 else "" for v in line] for line in wide]
            picture = cells(ax, wide, texts, norm)
            for r in part[part.framed | (part.subjects < FEWEST)].itertuples():
                corner = experts.index(r.expert) - 0.46, names[task].index(r.emotion) - 0.44
                look = dict(linewidth=1.3) if r.framed else dict(linewidth=0, hatch="////", edgecolor="#999999", zorder=1.5)
                ax.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, **look))
            size = part.drop_duplicates("emotion").set_index("emotion")
            ax.set_xticks(range(len(experts)), experts, fontsize=SMALL)
            ax.set_yticks(range(len(names[task])), [f"{n} ({size.samples[n]}; {size.subjects[n]} people)" for n in names[task]],
                          fontsize=SMALL)
            ax.set_title(f"Block {block}, {KINDS[task]}")
    for ax in axes[-1]:
        ax.set_xlabel("expert switched off")
    ticks = [t for d in (0.1, 1.0, 10.0) if d <= top for t in (-d, d)]
    bar = fig.colorbar(picture, ax=axes, shrink=0.7, pad=0.01, ticks=sorted([0, *ticks]), format=FuncFormatter(lambda v, _: f"{v:g}"))
    bar.set_label("change of true class\nprobability (points)", fontsize=7)
    bar.minorticks_off()
    stamp(fig, note)
    return fig
