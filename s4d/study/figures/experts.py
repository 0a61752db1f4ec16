"""Figures of the experts: usage, maps over the face, specificity, what switching one off costs."""
from __future__ import annotations

from itertools import product

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from scipy.ndimage import label as connected

from ..intervals import FEWEST
from . import style
from .marks import heading, key, legend, number, point, present, zero
from .style import KINDS, LEVEL, PAGE, SMALL, TASK_COLOURS, TASK_MARKERS, figure, show, stamp

WORTH = 0.5           # points of probability from which an effect is framed
LINEAR = 0.1          # points up to which a scale is linear; beyond it is logarithmic
QUESTIONS = {f"{what}, {task}": (f"{what}, {kind}", TASK_COLOURS[task], TASK_MARKERS[task])
             for what in ("emotion", "place", "region", "phase") for task, kind in KINDS.items()}
QUESTIONS |= {text: (text, "#222222", "o") for text in ("task", "task, first time step")}


def ends(blocks) -> list[int]:
    """The first and the last block: what fits on a page."""
    return sorted({min(blocks), max(blocks)})


def cells(ax, values: np.ndarray, shown: np.ndarray, norm: Normalize, whole: float = np.inf):
    """Draw a table in colours, purple above 0 and orange below; whole numbers from `whole` up."""
    picture = ax.imshow(values, norm=norm, cmap="PuOr", aspect="auto")
    for (i, j), v in np.ndenumerate(values):
        text = number(v, form="+.0f" if abs(v) >= whole else "+.1f") if shown[i, j] else ""
        dark = picture.cmap(float(norm(v)))[:3] @ np.array([0.3, 0.6, 0.1]) < 0.5
        ax.text(j, i, text, ha="center", va="center", fontsize=SMALL,
                color="white" if dark else "black")
    ax.tick_params(length=0, labelsize=SMALL)
    ax.spines[:].set_visible(False)
    return picture


def usage(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw which expert serves which task and emotion: its share less that in other groups."""
    blocks = ends(table.block)
    table = table[table.by.isin(["emotion", "task"])]
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
        picture = cells(ax, wide["difference"].to_numpy(), shown.to_numpy(), Normalize(-top, top),
                        whole=0.95)
        for i in range(1, len(rows)):
            if rows[i][:2] != rows[i - 1][:2]:
                ax.axhline(i - 0.5, color="black", linewidth=0.8)
        ax.set_title(f"Block {block}")
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


def leaders(table: pd.DataFrame, pictures: dict[str, list], titles: dict[str, list[str]],
            regions: np.ndarray, names: tuple[str, ...], note: str = "") -> Figure:
    """Draw which expert leads at every token of single pictures, below each face.

    Args:
        table: of `s4d.study.experts.leading_table`, with columns task and picture.
        pictures, titles: task -> uint8 `[3, H, W]`; what a row shows, then one title a picture.
        regions: int `[H, W]`, region of each pixel, an index into `names`.
    """
    across = 1 + max(map(len, pictures.values()))
    fig, axes = figure(PAGE, 1.95 * len(pictures) * 7 / across + 0.2, 2 * len(pictures), across,
                       squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    side = dict(ha="right", va="center", fontsize=7)
    for above, below, task in zip(axes[::2], axes[1::2], pictures, strict=True):
        about, *over = titles[task]
        if task != "image":                                   # regions stand beside the photos
            above[0].text(1, 0.5, about, transform=above[0].transAxes, **side)
        below[0].text(1, 0.5, "expert with\nthe largest\ngate", transform=below[0].transAxes,
                      **side)
        for j, picture in enumerate(pictures[task]):
            part = table[(table.task == task) & (table.picture == j)]
            show(picture, above[1 + j], over[j])
            grid = part.pivot(index="row", columns="column", values="expert")
            _leaders(below[1 + j], grid.to_numpy())
    _regions(axes[0, 0], pictures["image"][0], regions, names)
    return stamp(fig, note)


def _leaders(ax, grid: np.ndarray) -> None:
    """Draw a pale colour for each expert, its number in each area, and lines between areas."""
    colours = np.array(matplotlib.colormaps["Set3"].colors)
    ax.imshow(colours[(grid - 1) % len(colours)])
    for e in np.unique(grid):
        areas, count = connected(grid == e)
        for area in (np.argwhere(areas == a) for a in range(1, count + 1)):
            if len(grid) <= 8 or len(area) >= 4:              # a number needs room
                row, column = area[np.square(area - area.mean(0)).sum(1).argmin()]
                ax.text(column, row, str(e), ha="center", va="center", fontsize=SMALL)
    line = dict(color="black", linewidth=0.8)
    for i, j in np.argwhere(np.diff(grid, axis=0)):
        ax.plot([j - 0.5, j + 0.5], [i + 0.5, i + 0.5], **line)
    for i, j in np.argwhere(np.diff(grid, axis=1)):
        ax.plot([j + 0.5, j + 0.5], [i - 0.5, i + 0.5], **line)


def _regions(ax, picture, regions: np.ndarray, names: tuple[str, ...]) -> None:
    """Draw outlines of regions over a pale face, each with its name; the last is the rest."""
    pixels = np.asarray(picture).mean(0) / 255
    ax.imshow(0.55 + 0.45 * pixels, cmap="gray", vmin=0, vmax=1)
    axis = (np.arange(len(regions)) + 0.5) * len(pixels) / len(regions) - 0.5
    for k, name in enumerate(names):
        rows, columns = np.nonzero(regions == k)
        rest = k == len(names) - 1
        if not rest:
            ax.contour(axis, axis, (regions == k).astype(float), levels=[0.5], colors="black",
                       linewidths=0.7)
        row = 0 if rest else rows[len(rows) // 2]
        at = axis[columns[rows == row].min()] + 1.5, axis[row]
        ax.annotate(name, at, (-0.12, 1 - (0.7 + (k + 1) % len(names)) / len(names)),
                    textcoords="axes fraction", ha="right", va="center", fontsize=SMALL,
                    arrowprops=dict(arrowstyle="-", linewidth=0.6, shrinkA=0, shrinkB=0))
    heading(ax, "regions", 7, loc="center", pad=2)


def specificity(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw what each of `QUESTIONS` tells about the expert beyond the null, of `beyond_null`."""
    blocks, rows = ends(table.block), present(table.about, QUESTIONS)
    fig, axes = figure(PAGE, 0.95 + 0.27 * len(rows), 1, len(blocks), squeeze=False, sharex=True,
                       sharey=True)
    for (k, block), (y, about) in product(enumerate(blocks), enumerate(rows)):
        ax, part = axes[0, k], table[(table.block == block) & (table.about == about)]
        if part["mean"].isna().all():
            continue
        r, (_, colour, marker) = part.iloc[0], QUESTIONS[about]
        ax.barh(y, r.null_top, height=0.8, color=style.NULL_COLOUR, zorder=0)
        ax.hlines(y, r.mean_low, r.mean_high, color=colour, linewidth=1.4)
        places = y + 0.22 * (np.arange(len(part)) - (len(part) - 1) / 2)
        ax.plot(part.beyond, places, marker, color=colour, markersize=3.5,
                markerfacecolor=colour if r.p_holm <= LEVEL else "white")
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


def switched_off(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw the change of the true class's probability when one expert is never chosen."""
    table = table[table.emotion == "all"]
    blocks = sorted(table.block.unique())
    fig, axes = figure(PAGE, 2.3, 1, len(blocks), squeeze=False, sharey=True)
    for r in table.itertuples():
        point(axes[0, blocks.index(r.block)], r.expert + (-0.18 if r.task == "image" else 0.18),
              r.change, r.low, r.high, TASK_COLOURS[r.task], TASK_MARKERS[r.task],
              r.p_holm <= LEVEL, vertical=True)
    for ax, block in zip(axes[0], blocks, strict=True):
        zero(ax, horizontal=True)
        ax.set_title(f"Block {block}")
        ax.set_xticks(range(1, table.expert.max() + 1))
        ax.set_xlabel("expert switched off")
    largest = max(2 * LINEAR, 1.3 * table[["change", "low", "high"]].abs().max().max())
    decades = [d for d in (0.1, 1.0, 10.0, 100.0) if d <= largest]
    ticks, ax = [*(-d for d in reversed(decades)), 0, *decades], axes[0, 0]
    ax.set_yscale("symlog", linthresh=LINEAR)                # a large change hides no small one
    ax.set_yticks(ticks, [number(t, form="+g") for t in ticks])
    ax.set_yticks([], minor=True)
    ax.set(ylim=(-largest, largest), ylabel="change of true class\nprobability (points)")
    size = table.groupby("task")[["samples", "subjects"]].max()
    legend(fig, [*(key(f"{size.samples[t]} {kind} of {size.subjects[t]} people", linestyle="-",
                       color=TASK_COLOURS[t], marker=TASK_MARKERS[t]) for t, kind in KINDS.items()),
                 key("differs from 0 (Holm)", marker="o"),
                 key("not shown to differ", marker="o", markerfacecolor="w")])
    return stamp(fig, note)


def switched_off_by_emotion(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw the same by emotion (rows) and expert (columns).

    Framed: significant and at least `WORTH` points; hatched: fewer than `FEWEST` people.
    """
    table = table[table.emotion != "all"]
    blocks, experts = ends(table.block), sorted(table.expert.unique())
    tasks = present(table.task, KINDS)
    names = {t: present(table[table.task == t].emotion, style.EMOTION_COLOURS) for t in tasks}
    fig, axes = figure(PAGE, 0.9 + sum(0.4 + 0.16 * len(names[t]) for t in tasks), len(tasks),
                       len(blocks), squeeze=False, sharey="row")
    top = max(1e-3, table.change.abs().max())
    norm = SymLogNorm(top / 20, vmin=-top, vmax=top)         # one large cell whitens no others
    for (i, j), ax in np.ndenumerate(axes):
        task, block = tasks[i], blocks[j]
        part = table[(table.block == block) & (table.task == task)]
        wide = part.pivot(index="emotion", columns="expert", values="change")
        wide = wide.loc[names[task], experts].to_numpy()
        picture = cells(ax, wide, np.abs(wide) >= 0.05, norm)
        for r in part.itertuples():
            corner = experts.index(r.expert) - 0.46, names[task].index(r.emotion) - 0.44
            if r.subjects < FEWEST:
                ax.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, linewidth=0, hatch="////",
                                       edgecolor="#999999", zorder=1.5))
            elif r.p_holm <= LEVEL and abs(r.change) >= WORTH:
                ax.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, linewidth=1.3))
        size = part.drop_duplicates("emotion").set_index("emotion")
        ax.set_xticks(range(len(experts)), experts)
        ax.set_yticks(range(len(names[task])), [
            f"{n} ({size.samples[n]}; {size.subjects[n]} people)" for n in names[task]])
        ax.set_title(f"Block {block}, {KINDS[task]}")
        if task == tasks[-1]:
            ax.set_xlabel("expert switched off")
    ticks = [0, *(sign * d for d in (0.1, 1.0, 10.0) if d <= top for sign in (-1, 1))]
    bar = fig.colorbar(picture, ax=axes, shrink=0.7, pad=0.01, ticks=sorted(ticks), format="%g")
    bar.set_label("change of true class\nprobability (points)", fontsize=7)
    bar.minorticks_off()
    return stamp(fig, note)
