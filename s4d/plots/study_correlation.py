"""Figures of the static-dynamic study: transfer, prototypes, layers, confusions, a shared map."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..analysis.stats import p_text
from .study_experts import KINDS, NULL, SMALL
from .style import EMOTION_COLOURS, METHOD_COLOURS, METHOD_LABELS, METHOD_NAMES, PAGE, TASK_LABELS, figure, label_points, stamp

HEADS = {"image": "photo head", "video": "clip head"}
PROBES = {"image": "probe of photos", "video": "probe of clips"}
ORDER = ("static", "dynamic", "multitask", "s4d")
SHORT = {"neutral": "neu", "happiness": "hap", "sadness": "sad", "surprise": "sur", "fear": "fea", "disgust": "dis", "anger": "ang",
         "contempt": "con", "anxiety": "anx", "helplessness": "hel", "disappointment": "dsp"}


def _p(p: float) -> str:
    """`p = 0.006` or `p < 0.001`."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def transfer(table: pd.DataFrame, chance: float, note: str = "") -> Figure:
    """WAR of every trained head, and of every linear probe (rows), on photos and clips (columns); cells across tasks are framed.

    Args:
        table: of `analysis.correlation.transfer_matrix` with a column reading ("head", "probe").
        chance: WAR of guessing, %.
    """
    titles = {"head": ("Trained heads", HEADS, "framed: zero-shot"), "probe": ("Linear probes", PROBES, "framed: fitted on the other kind")}
    readings = [r for r in titles if r in set(table.reading)]
    rows = {r: [k for k in ((m, h) for m in ORDER for h in ("image", "video")) if ((table.reading == r) & (table.method == k[0])
                & (table["head"] == k[1])).any()] for r in readings}
    fig, axes = figure(PAGE, 0.9 + 0.3 * max(map(len, rows.values())), 1, len(readings), squeeze=False)
    top = max(table.war.max(), 1.5 * chance)
    for ax, reading in zip(axes[0], readings):
        title, names, framed = titles[reading]
        picture = _cells(ax, table[table.reading == reading], rows[reading], top)
        ax.set_yticks(range(len(rows[reading])), [f"{METHOD_LABELS[m]}, {names[h]}" for m, h in rows[reading]])
        ax.set_title(title)
        ax.set_xlabel(f"evaluated on ({framed})")
    bar = fig.colorbar(picture, ax=axes, pad=0.01)
    bar.set_label("WAR (%), line: chance")
    bar.ax.axhline(chance, color="white", linewidth=1.5)
    stamp(fig, note)
    return fig


def _cells(ax, table: pd.DataFrame, rows: list[tuple[str, str]], top: float):
    wide = table.pivot(index=["method", "head"], columns="stimuli", values="war").loc[rows, ["image", "video"]]
    picture = ax.imshow(wide, vmin=0, vmax=top, aspect="auto", cmap="cividis")
    for r in table.itertuples():
        i, j = rows.index((r.method, r.head)), ("image", "video").index(r.stimuli)
        text = f"{r.war:.1f}" + ("" if np.isnan(r.low) else f"\n[{r.low:.1f}, {r.high:.1f}]")
        ax.text(j, i, text, ha="center", va="center", fontsize=SMALL, color="white" if r.war < 0.55 * top else "black")
        if r.zero_shot:
            ax.add_patch(Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, fill=False, edgecolor="#D55E00", linewidth=1.4))
    counts = table.groupby("stimuli")[["samples", "subjects"]].max()
    ax.set_xticks([0, 1], [f"{TASK_LABELS[t]}\nn = {counts.samples[t]},\n{counts.subjects[t]} people" for t in ("image", "video")])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return picture


def prototype_similarity(cells: pd.DataFrame, stats: pd.DataFrame, counts: tuple[int, int], note: str = "") -> Figure:
    """Cosine similarity of static (rows) and dynamic (columns) class prototypes, one panel a method.

    Args:
        cells: method, image_class, video_class, cosine (mean over seeds).
        stats: method, corrected (diagonal minus off-diagonal, freed of noise), low, high, p.
        counts: number of photos and of clips.
    """
    methods = [m for m in METHOD_NAMES if m in set(cells.method)]
    names = list(dict.fromkeys(cells.image_class))
    fig, axes = figure(PAGE, 2.5, 1, len(methods), squeeze=False, sharey=True)
    for ax, method in zip(axes[0], methods):
        grid = cells[cells.method == method].pivot(index="image_class", columns="video_class", values="cosine").loc[names, names]
        picture = ax.imshow(grid, vmin=-1, vmax=1, cmap="PuOr")
        for k in range(len(names)):
            ax.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=0.7))
        found = stats[stats.method == method].iloc[0]
        numbers = f"Δ = {found.corrected:.2f} [{found.low:.2f}, {found.high:.2f}]\n{_p(found.p)}".replace("-", "−")
        ax.set_title(f"{METHOD_LABELS[method]}\n{numbers}", fontsize=7, fontweight="normal")
        ax.set_xticks(range(len(names)), [SHORT[n] for n in names], rotation=90)
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(length=0)
        ax.set_xlabel(f"prototype of clips (n = {counts[1]})", fontsize=7)
    axes[0, 0].set_ylabel(f"prototype of photos (n = {counts[0]})", fontsize=7)
    fig.colorbar(picture, ax=axes, shrink=0.75, pad=0.01).set_label("cosine similarity")
    stamp(fig, note)
    return fig


def layer_similarity(table: pd.DataFrame, titles: dict[str, str], note: str = "") -> Figure:
    """CKA and RSA by layer; one column a comparison, with both null models.

    Args:
        table: of `analysis.correlation.similarity_by_layer` with a column comparison.
        titles: comparison -> title, in order.
    """
    comparisons = [c for c in titles if c in set(table.comparison)]
    layers = list(dict.fromkeys(table.layer))
    fig, axes = figure(PAGE, 3.1, 2, len(comparisons), squeeze=False, sharex=True, sharey="row")
    x = np.arange(len(layers))
    for row, measure in zip(axes, ("cka", "rsa")):
        for ax, name in zip(row, comparisons):
            part = table[(table.comparison == name) & (table.measure == measure)].set_index("layer").loc[layers]
            colour = METHOD_COLOURS.get(name, "#000000")
            ax.fill_between(x, part.within_mean, part.within_95, color=NULL, alpha=0.45, linewidth=0,
                            label="shuffled within emotion, mean to 95 %")
            ax.plot(x, part.any_95, ":", color="#888888", label="shuffled freely, 95 %")
            ax.vlines(x, part.low, part.high, color=colour, linewidth=0.9)
            ax.plot(x, part.value, "o-", color=colour, markersize=3, label="matched stimuli (bar: 95 % interval over people)")
            ax.axhline(0, color="#cccccc", linewidth=0.5, zorder=0)
            number = f"n = {part.stimuli.max()} clips, {part.people.max()} people"
            title, size = (f"{titles[name]}\n{number}", 6.5) if measure == "cka" else (number, 6)
            ax.set_title(title, fontsize=size, fontweight="normal")
        row[0].set_ylabel({"cka": "linear CKA", "rsa": "RSA (rank ρ)"}[measure])
    for ax in axes[1]:
        shown = range(len(layers)) if len(layers) <= 8 else [0, *range(2, len(layers) - 1, 3), len(layers) - 1]
        ax.set_xticks(list(shown), [layers[i] for i in shown], rotation=90)
    handles, labels = axes[0, -1].get_legend_handles_labels()
    fig.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=3, fontsize=SMALL)
    stamp(fig, note)
    return fig


def confusability(cells: pd.DataFrame, stats: pd.DataFrame, titles: dict[str, str], counts: tuple[int, int], note: str = "") -> Figure:
    """Probability given to a wrong class: static against dynamic, one point a pair (true, wrong), one panel a comparison.

    Args:
        cells: comparison, label, wrong, static, dynamic (shares 0..1).
        stats: comparison, rho, low, high, p.
        titles: comparison -> title, in order.
        counts: number of photos and of clips.
    """
    names = [c for c in titles if c in set(cells.comparison)]
    fig, axes = figure(PAGE, 2.6, 1, len(names), squeeze=False)
    for ax, name in zip(axes[0], names):
        part, found = cells[cells.comparison == name], stats[stats.comparison == name].iloc[0]
        ax.scatter(100 * part.static, 100 * part.dynamic, s=12, c=[EMOTION_COLOURS[n] for n in part.label], linewidths=0)
        numbers = f"ρ = {found.rho:.2f} [{found.low:.2f}, {found.high:.2f}], {_p(found.p)}".replace("-", "−")
        ax.set_title(f"{titles[name]} ({len(part)} pairs)\n{numbers}", fontsize=7, fontweight="normal")
        ax.set_xlabel(f"static confusion, {counts[0]} photos (%)")
        ax.margins(0.1)
    axes[0, 0].set_ylabel(f"dynamic confusion, {counts[1]} clips (%)")
    for label in [n for n in EMOTION_COLOURS if n in set(cells.label)]:
        axes[0, 0].scatter([], [], s=12, color=EMOTION_COLOURS[label], label=label)
    fig.legend(loc="outside upper center", ncols=11, fontsize=SMALL, title="true class", title_fontsize=SMALL, handletextpad=0.1)
    stamp(fig, note)
    fig.draw_without_rendering()         # fixes the axes, so that labels can be placed between the points
    for ax, name in zip(axes[0], names):
        _label_pairs(ax, cells[cells.comparison == name])
    return fig


def shared_space(table: pd.DataFrame, title: str, note: str = "") -> Figure:
    """t-SNE of photos and clips in one space: left the photos in colour, right the clips, the others in grey.

    Args:
        table: of `analysis.correlation.shared_space`.
        title: the network.
    """
    fig, axes = figure(PAGE, 3.4, 1, 2, sharex=True, sharey=True)
    names = [n for n in EMOTION_COLOURS if n in set(table.label)]
    for ax, task in zip(axes, KINDS):
        own, other = table[table.task == task], table[table.task != task]
        ax.scatter(other.x, other.y, s=6, color="#d8d8d8", linewidths=0, zorder=1)
        for label, marker in zip(names, "osDX^vP<>*h"):
            part = own[own.label == label]
            ax.scatter(part.x, part.y, s=14, marker=marker, color=EMOTION_COLOURS[label], linewidths=0, zorder=2, label=label)
        ax.set_title(f"{title}: {KINDS[task]} (n = {len(own)}); grey: the other kind (n = {len(other)})", fontsize=7)
        ax.set(xticks=[], yticks=[])
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=11, fontsize=SMALL, handletextpad=0.1)
    stamp(fig, f"an illustration, not a measurement; {note}")
    return fig


def _label_pairs(ax, part: pd.DataFrame) -> None:
    """Writes the names of the most confused pairs."""
    named = _apart(part)
    label_points(ax, 100 * part[["static", "dynamic"]].to_numpy(),
                 [(f"{SHORT[r.label]} → {SHORT[r.wrong]}", (100 * r.static, 100 * r.dynamic), EMOTION_COLOURS[r.label]) for r in named])


def _apart(part: pd.DataFrame, most: int = 4) -> list:
    """The pairs that are confused most on both sides, far enough from each other to carry a label."""
    x, y = (part[c] / max(part[c].max() - part[c].min(), 1e-9) for c in ("static", "dynamic"))
    chosen = []
    for i in (part.static.rank() + part.dynamic.rank()).sort_values(ascending=False).index[:15]:
        if len(chosen) < most and all(abs(y[i] - y[j]) > 0.09 or abs(x[i] - x[j]) > 0.4 for j in chosen):
            chosen.append(i)
    return list(part.loc[chosen].itertuples())
