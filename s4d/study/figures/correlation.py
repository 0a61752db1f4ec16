"""Figures of the static-dynamic study: transfer, prototypes, layers, confusions, a shared map."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..intervals import p_text
from .style import (EMOTION_COLOURS, EMOTION_MARKERS, KINDS, METHOD_LABELS, METHOD_NAMES, NULL_COLOUR, PAGE, SMALL, TASK_LABELS, figure,
                    label_points, look, spread, stamp)

HEADS = {"image": "photo head", "video": "clip head"}
PROBES = {"image": "probe of photos", "video": "probe of clips"}
ORDER = ("static", "dynamic", "multitask", "s4d")
SHORT = {"neutral": "neu", "happiness": "hap", "sadness": "sad", "surprise": "sur", "fear": "fea", "disgust": "dis", "anger": "ang",
         "contempt": "con", "anxiety": "anx", "helplessness": "hel", "disappointment": "dsp"}


def _p(p: float) -> str:
    """`p = 0.006` or `p < 0.001`."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def ranged(row, value: str = "value", digits: int = 2, sign: str = "", low: str | None = "low", high: str = "high") -> str:
    """A number with its interval, `0.78 [0.71, 0.85]`; without the interval where there is none, or where `low` is None.

    Args:
        row: of a table, or a named tuple of one.
        sign: "+" shows that of positive numbers.
    """
    row = row if isinstance(row, pd.Series) else row._asdict()
    numbers = [float(row[name]) for name in ((value, low, high) if low else [value])]
    texts = [f"{v:{sign}{z}.{digits}f}".replace("-", "−") for v, z in zip(numbers, ("z", "", ""))]      # a limit of −0.00 is below 0
    return texts[0] + ("" if low is None or np.isnan(numbers[1:]).any() else f" [{texts[1]}, {texts[2]}]")


def transfer(table: pd.DataFrame, note: str = "") -> Figure:
    """WAR of every trained head, and of every linear probe (rows), on photos and clips (columns); cells across tasks are framed.

    Args:
        table: of `study.transfer.transfer_matrix` with a column reading ("head", "probe").
    """
    titles = {"head": ("Trained heads", HEADS), "probe": ("Linear probes", PROBES)}
    readings = [r for r in titles if r in set(table.reading)]
    rows = {r: [k for k in ((m, h) for m in ORDER for h in ("image", "video")) if ((table.reading == r) & (table.method == k[0])
                & (table["head"] == k[1])).any()] for r in readings}
    fig, axes = figure(PAGE, 1.25 + 0.3 * max(map(len, rows.values())), 1, len(readings), squeeze=False)
    for ax, reading in zip(axes[0], readings):
        title, names = titles[reading]
        picture = _cells(ax, table[table.reading == reading], rows[reading], max(table.war.max(), 1.5 * table.majority.max()))
        ax.set_yticks(range(len(rows[reading])), [f"{METHOD_LABELS[m]}, {names[h]}" for m, h in rows[reading]])
        ax.set_title(title)
    fig.colorbar(picture, ax=axes, pad=0.01).set_label("WAR (%)")
    handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor="black", linewidth=1.2, linestyle=style) for style in FRAMES.values()]
    fig.legend(handles, ["neither network nor head saw labels of this kind", "network did, head or probe did not"],
               loc="outside upper center", ncols=2, fontsize=SMALL, handlelength=2.2)
    stamp(fig, note)
    return fig


FRAMES = {True: "-", False: (0, (2.5, 1.5))}             # whether the network, too, never saw the kind


def _cells(ax, table: pd.DataFrame, rows: list[tuple[str, str]], top: float):
    wide = table.pivot(index=["method", "head"], columns="stimuli", values="war").loc[rows, ["image", "video"]]
    picture = ax.imshow(wide, vmin=0, vmax=top, aspect="auto", cmap="cividis")
    for r in table.itertuples():
        i, j = rows.index((r.method, r.head)), ("image", "video").index(r.stimuli)
        text = f"{r.war:.1f}" + ("" if np.isnan(r.low) else f"\n[{r.low:.1f}, {r.high:.1f}]")
        ax.text(j, i, text, ha="center", va="center", fontsize=SMALL, color="white" if r.war < 0.55 * top else "black")
        if r.zero_shot:                                  # black on white is seen on every colour, in grey too
            frame = dict(xy=(j - 0.47, i - 0.45), width=0.94, height=0.9, fill=False)
            ax.add_patch(Rectangle(**frame, edgecolor="white", linewidth=2.4))
            ax.add_patch(Rectangle(**frame, edgecolor="black", linewidth=1.1, linestyle=FRAMES[bool(r.unseen)]))
    about = table.groupby("stimuli")[["samples", "subjects", "majority"]].max()
    ax.set_xticks([0, 1], [f"{TASK_LABELS[t]}\nn = {about.samples[t]},\n{about.subjects[t]} people\nmajority: {about.majority[t]:.1f}"
                           for t in ("image", "video")])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return picture


def prototype_similarity(cells: pd.DataFrame, stats: pd.DataFrame, counts: dict[str, pd.Series], note: str = "") -> Figure:
    """Cosine similarity of static (rows) and dynamic (columns) class prototypes, one panel a method; the diagonal in numbers.

    Args:
        cells: method, image_class, video_class, cosine (mean over seeds).
        stats: of `study.similarity.prototype_study`.
        counts: "image" and "video" -> number of samples by class.
    """
    methods = [m for m in METHOD_NAMES if m in set(cells.method)]
    names = list(dict.fromkeys(cells.image_class))
    fig, axes = figure(PAGE, 2.75, 1, len(methods), squeeze=False, sharey=True)
    for ax, method in zip(axes[0], methods):
        grid = cells[cells.method == method].pivot(index="image_class", columns="video_class", values="cosine").loc[names, names]
        picture = ax.imshow(grid, vmin=-1, vmax=1, cmap="cividis")                # lightness follows the value, so that grey print keeps the sign
        for k, value in enumerate(np.diag(grid)):
            ax.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=0.7))
            ax.text(k, k, f"{value:.2f}".replace("0.", ".").replace("-", "−"), ha="center", va="center", fontsize=SMALL,
                    color="black" if value > 0.1 else "white")
        found = stats[stats.method == method].iloc[0]
        numbers = (f"Δ drawn {found.difference:.2f}, {_p(found.p)}\ncorrected {found.corrected:.2f} [{found.low:.2f}, {found.high:.2f}]"
                   .replace("-", "−"))
        ax.set_title(f"{METHOD_LABELS[method]}\n{numbers}", fontsize=SMALL, fontweight="normal")
        ax.set_xticks(range(len(names)), [f"{SHORT[n]} ({counts['video'].get(n, 0)})" for n in names], rotation=90, fontsize=SMALL)
        ax.set_yticks(range(len(names)), [f"{n} ({counts['image'].get(n, 0)})" for n in names], fontsize=SMALL)
        ax.tick_params(length=0)
        ax.set_xlabel("prototype of clips (n)", fontsize=7)
    axes[0, 0].set_ylabel("prototype of photos (n)", fontsize=7)
    fig.colorbar(picture, ax=axes, shrink=0.75, pad=0.01).set_label("cosine similarity")
    stamp(fig, f"Δ is at most {stats.ceiling.max():.2f}; {note}")
    return fig


def layer_similarity(table: pd.DataFrame, titles: dict[str, str], layer: str = "pooled", note: str = "") -> Figure:
    """Left: CKA by layer, one line a comparison. Right: CKA of one layer beside its null models.

    Args:
        table: of `study.similarity.similarity_by_layer`.
        titles: comparison -> title, in order.
        layer: of the right panel.
    """
    table = table[table.measure == "cka"]
    layers, names = list(dict.fromkeys(table.layer)), [c for c in titles if c in set(table.comparison)]
    fig, (left, right) = figure(PAGE, 2.9, 1, 2)
    ends = {}
    for k, name in enumerate(names):
        part = table[table.comparison == name].set_index("layer").loc[layers]
        x, drawn = np.arange(len(layers)) + 0.05 * (k - (len(names) - 1) / 2), _look(name)
        left.vlines(x, part.low, part.high, color=drawn["color"], linewidth=0.8)
        left.plot(x, part.value, **drawn, markersize=3)
        ends[name] = part.value.iloc[-1]
    left.set(ylim=(min(0, left.get_ylim()[0]), 1.03), xlim=(-0.3, len(layers) - 1 + 0.2))
    bottom, top = left.get_ylim()
    for name, place in zip(ends, spread(list(ends.values()), 0.075 * (top - bottom), bottom, top)):
        left.annotate(titles[name], (len(layers) - 0.82, ends[name]), (len(layers) - 0.55, place), fontsize=SMALL, va="center",
                      annotation_clip=False, arrowprops=dict(arrowstyle="-", linewidth=0.4, color="#888888", shrinkA=0, shrinkB=0, relpos=(0, 0.5)))
    shown = range(len(layers)) if len(layers) <= 8 else [0, *range(2, len(layers) - 1, 3), len(layers) - 1]
    left.set_xticks(list(shown), [layers[i] for i in shown], rotation=0 if len(layers) <= 8 else 90)
    left.set_ylabel("linear CKA of frame and clip")
    left.set_title(f"By layer ({table.stimuli.max()} clips, {table.people.max()} people)", fontsize=7.5)
    _beside_nulls(right, table[table.layer == layer].set_index("comparison").loc[names], titles)
    right.set_title(f"Layer “{layer}”, beside shuffled clips", fontsize=7.5)
    fig.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=SMALL, title="mean to 95th percentile when clips are shuffled",
               title_fontsize=SMALL)
    stamp(fig, note)
    return fig


OTHERS = {"between": dict(color="#555555", marker="X", linestyle="-"), "start": dict(color="#555555", marker="*", linestyle=":")}


def _look(name: str) -> dict:
    """Colour, marker and dash of a method, or of a comparison that is none."""
    return OTHERS.get(name) or look(name)


def _beside_nulls(ax, part: pd.DataFrame, titles: dict[str, str]) -> None:
    """One row a comparison: value with interval, and below it a bar from the mean to the 95th percentile of each null."""
    nulls = {"any": ("at will", "white", ""), "within": ("within each emotion", NULL_COLOUR, ""), "person": ("within each person", "white", "//////")}
    y = np.arange(len(part))
    for kind, (label, colour, hatch) in nulls.items():
        low, high = part[f"{kind}_mean"], part[f"{kind}_95"]
        if low.notna().any():
            ax.barh(y + 0.25, np.maximum(high - low, 0.006), 0.3, low, color=colour, edgecolor="#444444", hatch=hatch, linewidth=0.6, label=label)
    for at, (name, r) in enumerate(part.iterrows()):
        drawn = _look(name)
        ax.hlines(at - 0.15, r.low, r.high, color=drawn["color"], linewidth=1)
        ax.plot(r.value, at - 0.15, color=drawn["color"], marker=drawn["marker"], markersize=4)
    ax.set_yticks(y, [titles[n] for n in part.index], fontsize=SMALL)
    ax.set_ylim(len(part) - 0.45, -0.55)
    ax.axvline(0, color="#cccccc", linewidth=0.5, zorder=0)
    ax.set_xlabel("linear CKA of frame and clip")


def confusability(cells: pd.DataFrame, stats: pd.DataFrame, titles: dict[str, str], counts: tuple[int, int], note: str = "") -> Figure:
    """Probability given to a wrong class: static against dynamic, one point a pair (true, wrong), one panel a comparison.

    Args:
        cells: comparison, label, wrong, static, dynamic (shares 0..1).
        stats: comparison, rho, low, high, p, rho_cells, p_cells.
        titles: comparison -> title, in order.
        counts: number of photos and of clips.
    """
    names = [c for c in titles if c in set(cells.comparison)]
    fig, axes = figure(PAGE, 2.6, 1, len(names), squeeze=False)
    most = most_confused(cells)
    for ax, name in zip(axes[0], names):
        part, found = cells[cells.comparison == name], stats[stats.comparison == name].iloc[0]
        named = part.set_index(["label", "wrong"]).index.isin(most)
        for those, colour in ((~named, "#aaaaaa"), (named, "black")):
            ax.scatter(100 * part.static[those], 100 * part.dynamic[those], s=12, c=colour, linewidths=0)
        numbers = (f"ρ = {found.rho:.2f} [{found.low:.2f}, {found.high:.2f}], {_p(found.p)}\n"
                   f"without preferences {found.rho_cells:.2f}, {_p(found.p_cells)}").replace("-", "−")
        ax.set_title(f"{titles[name]}\n{numbers}", fontsize=7, fontweight="normal")
        ax.margins(0.12)
        ax.set_xlim(right=130 * part.static.max())                                   # room for the names of the outermost points
        ax.set_xlabel(f"mean probability of the wrong\nclass, {counts[0]} photos (%)", fontsize=7)
    axes[0, 0].set_ylabel(f"mean probability of the wrong\nclass, {counts[1]} clips (%)", fontsize=7)
    stamp(fig, note)
    fig.draw_without_rendering()         # fixes the axes, so that labels can be placed between the points
    for ax, name in zip(axes[0], names):
        part = cells[cells.comparison == name]
        chosen = [r for r in part.itertuples() if (r.label, r.wrong) in most]
        label_points(ax, 100 * part[["static", "dynamic"]].to_numpy(),
                     [(f"{SHORT[r.label]} → {SHORT[r.wrong]}", (100 * r.static, 100 * r.dynamic), "black") for r in chosen], size=SMALL)
    return fig


def most_confused(cells: pd.DataFrame, most: int = 6) -> list[tuple[str, str]]:
    """The pairs (true, wrong) that are confused most on both sides in the mean over comparisons."""
    rank = cells.groupby("comparison")[["static", "dynamic"]].rank().sum(axis=1)
    return list(rank.groupby([cells.label, cells.wrong]).mean().sort_values(ascending=False, kind="stable").index[:most])


def shared_space(table: pd.DataFrame, note: str = "") -> Figure:
    """t-SNE of photos and clips in one space: left the photos in colour, right the clips, the others in grey.

    Args:
        table: of `study.transfer.shared_space`.
    """
    fig, axes = figure(PAGE, 3.4, 1, 2, sharex=True, sharey=True)
    names = [n for n in EMOTION_COLOURS if n in set(table.label)]
    for ax, task in zip(axes, KINDS):
        own, other = table[table.task == task], table[table.task != task]
        ax.scatter(other.x, other.y, s=5, color="#b0b0b0", linewidths=0, zorder=1)
        for label in names:
            part = own[own.label == label]
            ax.scatter(part.x, part.y, s=16, marker=EMOTION_MARKERS[label], color=EMOTION_COLOURS[label], linewidths=0, zorder=2, label=label)
        ax.set_title(f"{KINDS[task].capitalize()} (n = {len(own)}); small grey: the other kind (n = {len(other)})", fontsize=7.5)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=11, fontsize=7, handletextpad=0.1)
    stamp(fig, f"an illustration, not a measurement; {note}")
    return fig
