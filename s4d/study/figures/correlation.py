"""Figures of the static-dynamic study: transfer, prototypes, layers, confusions, a shared map."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..intervals import p_text
from . import style
from .marks import heading, legend, look, name_lines, number, point, present, ranged, zero
from .style import EMOTION_COLOURS, KINDS, METHOD_LABELS, METHOD_NAMES, PAGE, SMALL, figure, stamp

HEADS = {"head": {"image": "photo head", "video": "clip head"},
         "probe": {"image": "probe of photos", "video": "probe of clips"}}
TITLES = {"head": "Trained heads", "probe": "Linear probes"}
ORDER = ("static", "dynamic", "multitask", "s4d")
SHORT = {"neutral": "neu", "happiness": "hap", "sadness": "sad", "surprise": "sur", "fear": "fea",
         "disgust": "dis", "anger": "ang", "contempt": "con", "anxiety": "anx",
         "helplessness": "hel", "disappointment": "dsp"}
# Of a cell's frame, by whether the network, too, never saw labels of the kind.
FRAMES = {True: ("-", "neither network nor head saw labels of this kind"),
          False: ((0, (2.5, 1.5)), "network did, head or probe did not")}
LOOKS = {m: look(m) for m in METHOD_NAMES} | {
    "between": dict(color="#555555", marker="X", linestyle="-"),
    "start": dict(color="#555555", marker="*", linestyle=":")}
NULLS = {"any": ("at will", "white", ""), "within": ("within each emotion", style.NULL_COLOUR, ""),
         "person": ("within each person", "white", "//////")}


def _p(p: float) -> str:
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def transfer(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw WAR of trained heads and linear probes (rows) on photos and clips (columns).

    Zero-shot cells of `transfer_matrix`, with a column reading (head, probe), are framed.
    """
    readings = present(table.reading, TITLES)
    n = table.groupby("stimuli")[["samples", "subjects", "majority"]].max()
    wide = table.pivot(index=["reading", "method", "head"], columns="stimuli", values="war")
    rows = {r: [(m, h) for m in ORDER for h in KINDS if (r, m, h) in wide.index] for r in readings}
    fig, axes = figure(PAGE, 1.25 + 0.3 * max(map(len, rows.values())), 1, len(readings),
                       squeeze=False)
    top = max(table.war.max(), 1.5 * table.majority.max())
    for ax, reading in zip(axes[0], readings, strict=True):
        picture = ax.imshow(wide.loc[reading].loc[rows[reading], list(KINDS)], vmin=0, vmax=top,
                            aspect="auto")
        for r in table[table.reading == reading].itertuples():
            x, y = list(KINDS).index(r.stimuli), rows[reading].index((r.method, r.head))
            ax.text(x, y, number(r.war, r.low, r.high).replace(" [", "\n["), ha="center",
                    va="center", fontsize=SMALL, color="white" if r.war < 0.55 * top else "black")
            frames = (("white", 2.4, "-"), ("black", 1.1, FRAMES[bool(r.unseen)][0]))
            for edge, width, dash in frames if r.zero_shot else ():   # two are seen on every colour
                ax.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False,
                                       edgecolor=edge, linewidth=width, linestyle=dash))
        ax.set_yticks(range(len(rows[reading])), [f"{METHOD_LABELS[m]}, {HEADS[reading][h]}"
                                                  for m, h in rows[reading]])
        ax.set_xticks([0, 1], [
            f"{style.TASK_LABELS[t]}\nn = {n.samples[t]},\n{n.subjects[t]} people\n"
            f"majority: {n.majority[t]:.1f}" for t in KINDS])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(TITLES[reading])
    fig.colorbar(picture, ax=axes, pad=0.01).set_label("WAR (%)")
    legend(fig, [Rectangle((0, 0), 1, 1, fill=False, linewidth=1.2, linestyle=dash, label=text)
                 for dash, text in FRAMES.values()], 2)
    return stamp(fig, note)


def prototype_similarity(cells: pd.DataFrame, stats: pd.DataFrame, counts: dict[str, pd.Series],
                         note: str = "") -> Figure:
    """Draw cosine similarity of photo (rows) and clip prototypes (columns), a panel a method.

    Args:
        cells: method, image_class, video_class, cosine (mean over seeds).
        stats: of `s4d.study.similarity.prototype_study`.
        counts: "image" and "video" -> number of samples by class.
    """
    methods, names = present(cells.method), list(dict.fromkeys(cells.image_class))
    fig, axes = figure(PAGE, 2.75, 1, len(methods), squeeze=False, sharey=True)
    for ax, method in zip(axes[0], methods, strict=True):
        wide = cells[cells.method == method].pivot(index="image_class", columns="video_class",
                                                   values="cosine").loc[names, names]
        picture = ax.imshow(wide, vmin=-1, vmax=1)         # grey print keeps the sign
        for k, value in enumerate(np.diag(wide)):
            ax.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, linewidth=0.7))
            ax.text(k, k, number(value, form=".2f").replace("0.", "."), ha="center", va="center",
                    fontsize=SMALL, color="black" if value > 0.1 else "white")
        found = stats[stats.method == method].iloc[0]
        heading(ax, f"{METHOD_LABELS[method]}\nΔ drawn {number(found.difference, form='.2f')}, "
                f"{_p(found.p)}\ncorrected {ranged(found, 'corrected')}", SMALL)
        labels = [[f"{words.get(n, n)} ({counts[kind].get(n, 0)})" for n in names]
                  for kind, words in (("image", {}), ("video", SHORT))]
        ax.set_yticks(range(len(names)), labels[0], fontsize=SMALL)
        ax.set_xticks(range(len(names)), labels[1], rotation=90, fontsize=SMALL)
        ax.tick_params(length=0)
        ax.set_xlabel("prototype of clips (n)", fontsize=7)
    axes[0, 0].set_ylabel("prototype of photos (n)", fontsize=7)
    fig.colorbar(picture, ax=axes, shrink=0.75, pad=0.01).set_label("cosine similarity")
    return stamp(fig, f"Δ is at most {stats.ceiling.max():.2f}; {note}")


def layer_similarity(table: pd.DataFrame, titles: dict[str, str], layer: str = "pooled",
                     note: str = "") -> Figure:
    """Draw CKA of `similarity_by_layer`: by layer, and of one layer beside its null models.

    The right panel is of one layer; titles (comparison -> title) are in the order of its rows.
    """
    table = table[table.measure == "cka"]
    layers, names, ends = list(dict.fromkeys(table.layer)), present(table.comparison, titles), {}
    fig, (left, right) = figure(PAGE, 2.9, 1, 2)
    for k, name in enumerate(names):
        rows = table[table.comparison == name].set_index("layer").loc[layers]
        x = np.arange(len(layers)) + 0.05 * (k - (len(names) - 1) / 2)
        left.vlines(x, rows.low, rows.high, color=LOOKS[name]["color"], linewidth=0.8)
        left.plot(x, rows.value, **LOOKS[name], markersize=3)
        ends[titles[name]] = rows.value.iloc[-1]
    left.set(ylim=(min(0, left.get_ylim()[0]), 1.03), xlim=(-0.3, len(layers) - 0.8))
    name_lines(left, ends)
    few = len(layers) <= 8
    shown = range(len(layers)) if few else [0, *range(2, len(layers) - 1, 3), len(layers) - 1]
    left.set_xticks(shown, [layers[i] for i in shown], rotation=0 if few else 90)
    left.set_ylabel("linear CKA of frame and clip")
    heading(left, f"By layer ({table.stimuli.max()} clips, {table.people.max()} people)")
    _beside_nulls(right, table[table.layer == layer].set_index("comparison").loc[names], titles)
    heading(right, f"Layer “{layer}”, and its nulls")
    fig.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3,
               fontsize=SMALL, title="mean to 95th percentile when clips are shuffled",
               title_fontsize=SMALL)
    return stamp(fig, note)


def _beside_nulls(ax, rows: pd.DataFrame, titles: dict[str, str]) -> None:
    """Draw a row a comparison: its value, and below it a bar of each null, mean to 95 %."""
    y = np.arange(len(rows))
    for kind, (label, colour, hatch) in NULLS.items():
        low, high = rows[f"{kind}_mean"], rows[f"{kind}_95"]
        if low.notna().any():
            ax.barh(y + 0.25, np.maximum(high - low, 0.006), 0.3, low, color=colour,
                    edgecolor="#444444", hatch=hatch, linewidth=0.6, label=label)
    for at, r in zip(y, rows.itertuples(), strict=True):
        drawn = LOOKS[r.Index]
        point(ax, at - 0.15, r.value, r.low, r.high, drawn["color"], drawn["marker"])
    ax.set_yticks(y, [titles[n] for n in rows.index], fontsize=SMALL)
    ax.set_ylim(len(rows) - 0.45, -0.55)
    zero(ax)
    ax.set_xlabel("linear CKA of frame and clip")


def confusability(cells: pd.DataFrame, stats: pd.DataFrame, titles: dict[str, str],
                  counts: tuple[int, int], note: str = "") -> Figure:
    """Draw the probability given to wrong classes: static against dynamic, a panel a comparison.

    The six pairs that both sides confuse most, mean over comparisons, are named.

    Args:
        cells: comparison, label, wrong, static, dynamic (shares 0..1), a row a point.
        stats: comparison, rho, low, high, p, rho_cells, p_cells.
        counts: number of photos and of clips.
    """
    names = present(cells.comparison, titles)
    fig, axes = figure(PAGE, 2.6, 1, len(names), squeeze=False)
    rank = cells.groupby("comparison")[["static", "dynamic"]].rank().sum(axis=1)
    mean = rank.groupby([cells.label, cells.wrong]).mean()
    most = mean.sort_values(ascending=False, kind="stable").index[:6]
    for ax, name in zip(axes[0], names, strict=True):
        part, found = cells[cells.comparison == name], stats[stats.comparison == name].iloc[0]
        points = 100 * part[["static", "dynamic"]].to_numpy()
        named = part.set_index(["label", "wrong"]).index.isin(most)
        ax.scatter(*points.T, s=12, c=np.where(named, "black", "#aaaaaa"), linewidths=0)
        ends = {f"{SHORT[r.label]} → {SHORT[r.wrong]}": (100 * r.static, 100 * r.dynamic)
                for r in part[named].itertuples()}
        name_lines(ax, ends)
        heading(ax, f"{titles[name]}\nρ = {ranged(found, 'rho')}, {_p(found.p)}\nwithout "
                f"preferences {number(found.rho_cells, form='.2f')}, {_p(found.p_cells)}", 7)
        ax.margins(0.12)
        ax.set_xlabel(f"mean probability of the wrong\nclass, {counts[0]} photos (%)", fontsize=7)
    axes[0, 0].set_ylabel(f"mean probability of the wrong\nclass, {counts[1]} clips (%)",
                          fontsize=7)
    return stamp(fig, note)


def shared_space(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw t-SNE of photos and clips, of `shared_space`: one kind in colour, the other in grey."""
    fig, axes = figure(PAGE, 3.4, 1, 2, sharex=True, sharey=True)
    for ax, task in zip(axes, KINDS, strict=True):
        rows, other = table[table.task == task], table[table.task != task]
        ax.scatter(other.x, other.y, s=5, color="#b0b0b0", linewidths=0, zorder=1)
        for label in present(table.label, EMOTION_COLOURS):
            part = rows[rows.label == label]
            ax.scatter(part.x, part.y, s=16, marker=style.EMOTION_MARKERS[label], linewidths=0,
                       color=EMOTION_COLOURS[label], zorder=2, label=label)
        heading(ax, f"{KINDS[task].capitalize()} (n = {len(rows)}); small grey: the other kind "
                f"(n = {len(other)})")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=11,
               fontsize=7, handletextpad=0.1)
    return stamp(fig, f"an illustration, not a measurement; {note}")
