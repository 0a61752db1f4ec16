"""Figures of the static-dynamic study: transfer, prototypes, layers, the course along a clip, confusions."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from ..analysis.stats import p_text
from .style import COLUMN, EMOTION_COLOURS, METHOD_COLOURS, METHOD_LABELS, METHOD_NAMES, PAGE, TASK_LABELS, figure, stamp

SMALL = 6.5          # pt, for numbers inside cells
NULL = "#CC79A7"     # what a null model gives
HEADS = {"image": "photo head", "video": "clip head"}
SHORT = {"neutral": "neu", "happiness": "hap", "sadness": "sad", "surprise": "sur", "fear": "fea", "disgust": "dis", "anger": "ang",
         "contempt": "con", "anxiety": "anx", "helplessness": "hel", "disappointment": "dsp"}


def _p(p: float) -> str:
    """`p = 0.006` or `p < 0.001`."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def transfer(table: pd.DataFrame, chance: float, note: str = "") -> Figure:
    """WAR of every trained head (rows) on photos and clips (columns); zero-shot cells are framed.

    Args:
        table: of `analysis.correlation.transfer_matrix`.
        chance: WAR of guessing, %.
    """
    order = [(m, h) for m in ("static", "dynamic", "multitask", "s4d") for h in ("image", "video")]
    rows = [k for k in order if ((table.method == k[0]) & (table["head"] == k[1])).any()]
    fig, ax = figure(COLUMN, 0.7 + 0.32 * len(rows))
    wide = table.pivot(index=["method", "head"], columns="stimuli", values="war").loc[rows, ["image", "video"]]
    top = max(wide.max().max(), 1.5 * chance)
    picture = ax.imshow(wide, vmin=0, vmax=top, aspect="auto", cmap="cividis")
    for r in table.itertuples():
        i, j = rows.index((r.method, r.head)), ("image", "video").index(r.stimuli)
        text = f"{r.war:.1f}" + ("" if np.isnan(r.low) else f"\n[{r.low:.1f}, {r.high:.1f}]")
        ax.text(j, i, text, ha="center", va="center", fontsize=SMALL, color="white" if r.war < 0.55 * top else "black")
        if r.zero_shot:
            ax.add_patch(Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, fill=False, edgecolor="#D55E00", linewidth=1.4))
    ax.set_xticks([0, 1], [TASK_LABELS[t] for t in ("image", "video")])
    ax.set_yticks(range(len(rows)), [f"{METHOD_LABELS[m]}, {HEADS[h]}" for m, h in rows])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("evaluated on (framed: zero-shot)")
    bar = fig.colorbar(picture, ax=ax, pad=0.02)
    bar.set_label("WAR (%), line: chance")
    bar.ax.axhline(chance, color="white", linewidth=1.5)
    stamp(fig, note)
    return fig


def prototype_similarity(cells: pd.DataFrame, stats: pd.DataFrame, note: str = "") -> Figure:
    """Cosine similarity of static (rows) and dynamic (columns) class prototypes, one panel a method.

    Args:
        cells: method, image_class, video_class, cosine (mean over seeds).
        stats: method, difference (diagonal minus off-diagonal), p.
    """
    methods = [m for m in METHOD_NAMES if m in set(cells.method)]
    names = list(dict.fromkeys(cells.image_class))
    fig, axes = figure(PAGE, 2.35, 1, len(methods), squeeze=False, sharey=True)
    for ax, method in zip(axes[0], methods):
        grid = cells[cells.method == method].pivot(index="image_class", columns="video_class", values="cosine").loc[names, names]
        picture = ax.imshow(grid, vmin=-1, vmax=1, cmap="PuOr")
        for k in range(len(names)):
            ax.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=0.7))
        found = stats[stats.method == method].iloc[0]
        numbers = f"difference {found.difference:.2f}, {_p(found.p)}".replace("-", "−")
        ax.set_title(f"{METHOD_LABELS[method]}\n{numbers}", fontsize=7, fontweight="normal")
        ax.set_xticks(range(len(names)), [SHORT[n] for n in names], rotation=90)
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(length=0)
        ax.set_xlabel("prototype of clips")
    axes[0, 0].set_ylabel("prototype of photos")
    fig.colorbar(picture, ax=axes, shrink=0.75, pad=0.01).set_label("cosine similarity")
    stamp(fig, note)
    return fig


def layer_similarity(table: pd.DataFrame, titles: dict[str, str], note: str = "") -> Figure:
    """CKA and RSA by layer; one column a comparison, with both null models.

    Args:
        table: of `analysis.correlation.similarity_by_layer` with columns comparison and seed.
        titles: comparison -> title, in order.
    """
    comparisons = [c for c in titles if c in set(table.comparison)]
    layers = list(dict.fromkeys(table.layer))
    fig, axes = figure(PAGE, 3.1, 2, len(comparisons), squeeze=False, sharex=True, sharey="row")
    x = np.arange(len(layers))
    for row, measure in zip(axes, ("cka", "rsa")):
        for ax, name in zip(row, comparisons):
            part = table[(table.comparison == name) & (table.measure == measure)].groupby("layer")
            mean, low, high = (getattr(part.value, f)()[layers] for f in ("mean", "min", "max"))
            colour = METHOD_COLOURS.get(name, "#000000")
            ax.fill_between(x, part.within_mean.mean()[layers], part.within_95.mean()[layers], color=NULL, alpha=0.45, linewidth=0,
                            label="shuffled within emotion, mean to 95 %")
            ax.plot(x, part.any_95.mean()[layers], ":", color="#888888", label="shuffled freely, 95 %")
            ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            ax.plot(x, mean, "o-", color=colour, markersize=3, label="matched stimuli (band: range of seeds)")
            ax.axhline(0, color="#cccccc", linewidth=0.5, zorder=0)
            if measure == "cka":
                ax.set_title(titles[name], fontsize=7)
        row[0].set_ylabel({"cka": "linear CKA", "rsa": "RSA (rank ρ)"}[measure])
    for ax in axes[1]:
        shown = range(len(layers)) if len(layers) <= 8 else [0, *range(2, len(layers) - 1, 3), len(layers) - 1]
        ax.set_xticks(list(shown), [layers[i] for i in shown], rotation=90)
    handles, labels = axes[0, -1].get_legend_handles_labels()
    fig.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=3, fontsize=SMALL)
    stamp(fig, note)
    return fig


def along_clip(courses: pd.DataFrame, follow: pd.DataFrame, unit: str, note: str = "") -> Figure:
    """The photo head read along the frames of clips.

    Args:
        courses: of `analysis.confusions.course` with a column method.
        follow: of `analysis.confusions.follow` with a column method; empty where no truth is known.
        unit: of time, "s" or "frames".
    """
    fig, axes = figure(PAGE, 2.6, 1, 2 + (len(follow) > 0), gridspec_kw=dict(width_ratios=[1, 1.25, 1][: 2 + (len(follow) > 0)]))
    all_clips = courses[courses.label == "expressive"]
    truth = all_clips[all_clips.quantity == "intensity"].drop_duplicates("time").sort_values("time")
    if len(truth):
        axes[0].plot(truth.time, truth["mean"], "--", color="#888888", label="true intensity")
    for method in [m for m in METHOD_NAMES if m in set(courses.method)]:
        part = all_clips[(all_clips.method == method) & (all_clips.quantity == "probability")].sort_values("time")
        axes[0].fill_between(part.time, part.low, part.high, color=METHOD_COLOURS[method], alpha=0.2, linewidth=0)
        axes[0].plot(part.time, part["mean"], color=METHOD_COLOURS[method], label=METHOD_LABELS[method])
    axes[0].set_title("All but neutral")
    axes[0].set_ylim(0, None)
    first = courses[(courses.method == "static") & (courses.quantity == "probability") & (courses.label != "expressive")]
    ends = []
    for label, part in first.groupby("label", sort=False):
        part = part.sort_values("time")
        axes[1].plot(part.time, part["mean"], color=EMOTION_COLOURS[label])
        ends.append((part["mean"].iloc[-1], label, part.time.iloc[-1]))
    axes[1].set_ylim(0, 1.15 * axes[1].get_ylim()[1])
    _direct_labels(axes[1], ends)
    axes[1].set_title(f"{METHOD_LABELS['static']}, by emotion")
    for ax in axes[:2]:
        ax.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
        ax.set_xlabel(f"time from the {'apex' if len(follow) else 'middle'} ({unit})")
    axes[0].set_ylabel("probability of the true class")
    handles = axes[0].get_legend_handles_labels()[0]
    if len(follow):
        _follow(axes[2], follow)
        handles.append(Line2D([], [], linestyle="", marker="|", color=NULL, markersize=6, markeredgewidth=1.5,
                              label="with another clip's intensity"))
    fig.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=SMALL)
    stamp(fig, note)
    return fig


def _direct_labels(ax, ends: list[tuple[float, str, float]]) -> None:
    """Names at the right ends of lines, pushed apart so that none overlap."""
    low, high = 0.0, ax.get_ylim()[1]
    gap, y = 0.075 * (high - low), low - 0.02 * (high - low)      # the lowest name stays clear of the axis
    right = max(t for *_, t in ends)
    for value, label, _ in sorted(ends):
        y = max(value, y + gap)
        ax.annotate(label, (right, y), xytext=(3, 0), textcoords="offset points", fontsize=SMALL, va="center",
                    color=EMOTION_COLOURS[label], annotation_clip=False)


def _follow(ax, follow: pd.DataFrame) -> None:
    labels = [n for n in EMOTION_COLOURS if n in set(follow.label)]
    methods = [m for m in METHOD_NAMES if m in set(follow.method)]
    for k, method in enumerate(methods):
        part = follow[follow.method == method].set_index("label").reindex(labels)
        y = np.arange(len(labels)) + (k - (len(methods) - 1) / 2) * 0.3
        ax.hlines(y, part.low, part.high, color=METHOD_COLOURS[method], linewidth=0.9)
        ax.plot(part["mean"], y, "o", color=METHOD_COLOURS[method])
        ax.plot(part.null, y, "|", color=NULL, markersize=6, markeredgewidth=1.5)
    ax.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlabel("r with the true intensity")
    ax.set_title("Inside a clip")


def confusability(cells: pd.DataFrame, stats: pd.DataFrame, titles: dict[str, str], note: str = "") -> Figure:
    """Probability given to a wrong class: static against dynamic, one point a pair (true, wrong), one panel a comparison.

    Args:
        cells: comparison, label, wrong, static, dynamic (shares 0..1).
        stats: comparison, rho, low, high, p.
        titles: comparison -> title, in order.
    """
    names = [c for c in titles if c in set(cells.comparison)]
    fig, axes = figure(PAGE, 2.6, 1, len(names), squeeze=False)
    for ax, name in zip(axes[0], names):
        part, found = cells[cells.comparison == name], stats[stats.comparison == name].iloc[0]
        ax.scatter(100 * part.static, 100 * part.dynamic, s=12, c=[EMOTION_COLOURS[n] for n in part.label], linewidths=0)
        numbers = f"ρ = {found.rho:.2f} [{found.low:.2f}, {found.high:.2f}], {_p(found.p)}".replace("-", "−")
        ax.set_title(f"{titles[name]}\n{numbers}", fontsize=7, fontweight="normal")
        ax.set_xlabel("static confusion, photos (%)")
        ax.margins(0.1)
    axes[0, 0].set_ylabel("dynamic confusion, clips (%)")
    for label in [n for n in EMOTION_COLOURS if n in set(cells.label)]:
        axes[0, 0].scatter([], [], s=12, color=EMOTION_COLOURS[label], label=label)
    fig.legend(loc="outside upper center", ncols=11, fontsize=SMALL, title="true class", title_fontsize=SMALL, handletextpad=0.1)
    stamp(fig, note)
    fig.draw_without_rendering()         # fixes the axes, so that labels can be placed between the points
    for ax, name in zip(axes[0], names):
        _label_pairs(ax, cells[cells.comparison == name])
    return fig


def _label_pairs(ax, part: pd.DataFrame) -> None:
    """Writes the names of the most confused pairs where they cover neither a point nor each other; a thin line leads to the point.

    For each name, of the places around its point (eight directions, growing distance), the nearest free one is taken.
    """
    scale = ax.figure.dpi / 72                                                        # pixels in a point
    points = ax.transData.transform(100 * part[["static", "dynamic"]].to_numpy())
    inside, taken = ax.get_window_extent(), []
    for r in _apart(part):
        note = ax.annotate(f"{SHORT[r.label]} → {SHORT[r.wrong]}", (100 * r.static, 100 * r.dynamic), xytext=(0, 0),
                           textcoords="offset points", ha="center", va="center", fontsize=SMALL - 0.5, color=EMOTION_COLOURS[r.label],
                           arrowprops=dict(arrowstyle="-", linewidth=0.4, color=EMOTION_COLOURS[r.label], shrinkA=0, shrinkB=2))
        note.set_in_layout(False)                                                     # else the axes would move once more
        text = Bbox(note.get_window_extent().get_points())
        best = None
        for distance in range(1, 12):
            for way in np.arange(8) * np.pi / 4:
                shift = (np.array([text.width, text.height]) / 2 + 3 * distance * scale) * (np.cos(way), np.sin(way))
                box = text.translated(*shift)
                crossed = box.padded(2 * scale).count_contains(points) + 3 * box.count_overlaps(taken)
                crossed += 3 * (not (inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)))
                if best is None or crossed < best[0]:
                    best = crossed, shift, box
        note.set_position(best[1] / scale)
        taken.append(best[2].padded(scale))


def _apart(part: pd.DataFrame, most: int = 4) -> list:
    """The pairs that are confused most on both sides, far enough from each other to carry a label."""
    x, y = (part[c] / max(part[c].max() - part[c].min(), 1e-9) for c in ("static", "dynamic"))
    chosen = []
    for i in (part.static.rank() + part.dynamic.rank()).sort_values(ascending=False).index[:15]:
        if len(chosen) < most and all(abs(y[i] - y[j]) > 0.09 or abs(x[i] - x[j]) > 0.4 for j in chosen):
            chosen.append(i)
    return list(part.loc[chosen].itertuples())
