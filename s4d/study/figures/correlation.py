"""Figures of how photos and clips relate: transfer, likeness, along a clip, confusions, gains."""
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..stats import p_text
from . import style
from .style import PAGE, SMALL, figure, heading, key, legend, number, point, present, stamp, zero

READERS = {"head": "Trained heads", "probe": "Linear probes"}
COUPLES = style.METHOD_LABELS | {"between": "Static against dynamic", "start": "Before fine-tuning"}
HEADS = {"separate": "Static only, dynamic only", "multitask": "Multi-task, both heads",
         "s4d": "S4D, both heads"}
SHORT = {"neutral": "neu", "happiness": "hap", "sadness": "sad", "surprise": "sur", "fear": "fea",
         "disgust": "dis", "anger": "ang", "contempt": "con", "anxiety": "anx",
         "helplessness": "hel", "disappointment": "dsp"}
LOOKS = {m: style.look(m) for m in style.METHOD_LABELS} | {
    "between": dict(color="#555555", marker="X", linestyle="-"),
    "start": dict(color="#555555", marker="*", linestyle=":")}
NULLS = {"any": ("clips shuffled at will, mean to 95 %", "white"),
         "within": ("shuffled within each emotion", style.NULL_COLOUR)}
RING = dict(color="black", marker="o", markerfacecolor="none", markersize=8.5, linewidth=0.8)


def _p(p: float) -> str:
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def transfer(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw WAR of trained heads and linear probes (rows) on photos and on clips.

    The table is `transfer_matrix`, with a column reading (head, probe). A head that did not learn
    from the kind is hollow, and in a ring where its network did not either.
    """
    readings = present(table.reading, READERS)
    fig, axes = figure(PAGE, 3.2, 1, len(readings), squeeze=False, sharex=True)
    for ax, reading in zip(axes[0], readings, strict=True):
        part = table[table.reading == reading]
        heads = part["head"].map({"image": ", photo ", "video": ", clip "})
        names = part.method.map(style.METHOD_LABELS) + heads + reading
        rows = list(names.unique())
        for name, r in zip(names, part.itertuples(), strict=True):
            y = rows.index(name) + (-0.16 if r.stimuli == "image" else 0.16)
            point(ax, y, r.war, r.low, r.high, style.TASK_COLOURS[r.stimuli],
                  style.TASK_MARKERS[r.stimuli], filled=not r.zero_shot)
            if r.unseen:
                ax.plot(r.war, y, **RING)
        for kind, majority in part.groupby("stimuli").majority.first().items():
            ax.axvline(majority, color=style.TASK_COLOURS[kind], linestyle=":", linewidth=0.9)
        ax.set_yticks(range(len(rows)), rows, fontsize=SMALL)
        ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="WAR (%)")
        heading(ax, READERS[reading])
    n = table.groupby("stimuli")[["samples", "subjects"]].max()
    handles = [key(f"{n.samples[k]} {name} ({n.subjects[k]} people)", marker=style.TASK_MARKERS[k],
                   color=style.TASK_COLOURS[k]) for k, name in style.KINDS.items()]
    handles += [key("head not trained on this kind", marker="s", markerfacecolor="white"),
                key("nor its network", **RING),
                key("most frequent class", linestyle=":", color=style.GREY)]
    legend(fig, handles, 5)
    return stamp(fig, note)


def prototype_similarity(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw cosines of photo (rows) and clip prototypes (columns), of `prototype_study`."""
    methods, names = present(table.method), list(dict.fromkeys(table.image_class))
    fig, axes = figure(PAGE, 2.75, 1, len(methods), squeeze=False, sharey=True)
    for ax, method in zip(axes[0], methods, strict=True):
        rows = table[table.method == method]
        wide = rows.pivot(index="image_class", columns="video_class", values="cosine")
        wide, found = wide.loc[names, names], rows.iloc[0]
        picture = ax.imshow(wide, vmin=-1, vmax=1)         # grey print keeps the sign
        for k, value in enumerate(np.diag(wide)):
            ax.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, linewidth=0.7))
            ax.text(k, k, number(value, form=".2f").replace("0.", "."), ha="center", va="center",
                    fontsize=SMALL, color="black" if value > 0.1 else "white")
        corrected = number(found.corrected, found.low, found.high, ".2f")
        drawn = number(found.difference, form=".2f")
        heading(ax, f"{style.METHOD_LABELS[method]}\nΔ drawn {drawn}, {_p(found.p)}\n"
                f"corrected {corrected}", SMALL)
        same = rows[rows.image_class == rows.video_class]
        photos, clips = same.photos.map(" ({})".format), same.clips.map(" ({})".format)
        ax.set_yticks(range(len(names)), names + photos, fontsize=SMALL)
        ax.set_xticks(range(len(names)), same.video_class.map(SHORT) + clips, rotation=90,
                      fontsize=SMALL)
        ax.tick_params(length=0)
        ax.set_xlabel("prototype of clips (n)", fontsize=7)
    axes[0, 0].set_ylabel("prototype of photos (n)", fontsize=7)
    fig.colorbar(picture, ax=axes, shrink=0.75, pad=0.01).set_label("cosine similarity")
    return stamp(fig, f"Δ is at most {table.ceiling.max():.2f}; {note}")


def layer_similarity(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw CKA of `similarity_by_layer`: by layer, and of the tested one beside its nulls."""
    layers, names, ends = list(dict.fromkeys(table.layer)), present(table.comparison, COUPLES), {}
    fig, (left, right) = figure(PAGE, 2.9, 1, 2)
    rows = table.dropna(subset="any_mean").set_index("comparison").loc[names]
    bars = [right.barh(np.arange(len(names)) + 0.25, rows[f"{null}_95"] - rows[f"{null}_mean"], 0.3,
                       rows[f"{null}_mean"], color=colour, edgecolor="#444444", linewidth=0.6,
                       label=label) for null, (label, colour) in NULLS.items()]
    for k, name in enumerate(names):
        drawn, line = LOOKS[name], table[table.comparison == name].set_index("layer").loc[layers]
        x = np.arange(len(layers)) + 0.05 * (k - (len(names) - 1) / 2)
        left.vlines(x, line.low, line.high, color=drawn["color"], linewidth=0.8)
        left.plot(x, line.value, **drawn, markersize=3)
        ends[COUPLES[name]] = line.value.iloc[-1]
        point(right, k - 0.15, *rows.loc[name, ["value", "low", "high"]], drawn["color"],
              drawn["marker"])
    left.set(ylim=(min(0, left.get_ylim()[0]), 1.03), xlim=(-0.3, len(layers) - 0.8),
             ylabel="linear CKA of frame and clip")
    left.set_xticks(range(len(layers)), layers, rotation=0 if len(layers) <= 8 else 90)
    style.name_lines(left, ends)
    heading(left, f"By layer ({table.stimuli.max()} clips, {table.people.max()} people)")
    right.set_yticks(range(len(names)), [COUPLES[name] for name in names], fontsize=SMALL)
    right.set(ylim=(len(names) - 0.45, -0.55), xlabel="linear CKA of frame and clip")
    zero(right)
    heading(right, f"Layer “{rows.layer.iloc[0]}”, and its nulls")
    legend(fig, bars)
    return stamp(fig, note)


def confusability(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw the probabilities of wrong classes, of `confusion_study`: static against dynamic.

    The six pairs that both sides confuse most, mean over comparisons, are named.
    """
    names = present(table.comparison, HEADS)
    fig, axes = figure(PAGE, 2.6, 1, len(names), squeeze=False)
    rank = table.groupby("comparison")[["static", "dynamic"]].rank().sum(axis=1)
    mean = rank.groupby([table.label, table.wrong]).mean()
    most = mean.sort_values(ascending=False, kind="stable").index[:6]
    for ax, name in zip(axes[0], names, strict=True):
        part = table[table.comparison == name]
        points, found = 100 * part[["static", "dynamic"]].to_numpy(), part.iloc[0]
        named = part.set_index(["label", "wrong"]).index.isin(most)
        ax.scatter(*points.T, s=12, c=np.where(named, "black", "#aaaaaa"), linewidths=0)
        rho = number(found.rho, found.low, found.high, ".2f")
        heading(ax, f"{HEADS[name]}\nρ = {rho}, {_p(found.p)}", 7)
        ax.margins(0.12)
        ends = zip(part.label[named], part.wrong[named], points[named], strict=True)
        style.name_lines(ax, {f"{SHORT[a]} → {SHORT[b]}": end for a, b, end in ends})
        wrong = "mean probability of the wrong\nclass, "
        ax.set_xlabel(f"{wrong}{found.photos} photos (%)", fontsize=7)
    axes[0, 0].set_ylabel(f"{wrong}{found.clips} clips (%)", fontsize=7)
    return stamp(fig, note)


def _emotion_rows(ax, table: pd.DataFrame) -> pd.Series:
    """Name a row an emotion, with its clips and people; return the height of each table row."""
    labels = present(table.label, ("expressive", *style.EMOTION_COLOURS))
    methods = present(table.method)
    n = table.groupby("label")[["samples", "subjects"]].max()
    names = [f"{name} ({n.samples[name]}, {n.subjects[name]})" for name in labels]
    ax.set_yticks(range(len(labels)), names, fontsize=SMALL)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    beside = 0.36 * (table.method.map(methods.index) - (len(methods) - 1) / 2)
    return table.label.map(labels.index) + beside


def along_clip(table: pd.DataFrame, unit: str, note: str = "") -> Figure:
    """Draw the photo head along the frames of clips, and its correlation with the intensity.

    The table has the rows of `course` and of `follow` (none where no truth is known), by its
    columns part and method. A band stands about the first method alone: two would cover each other.
    """
    courses, follow = (table[table.part == part] for part in ("course", "follow"))
    fig, axes = figure(PAGE, 2.6, 1, 1 + (len(follow) > 0), squeeze=False)
    (left, *right), methods = axes[0], present(courses.method)
    truth = courses[courses.quantity == "intensity"].drop_duplicates("time")
    if len(truth):
        left.plot(truth.time, truth["mean"], "--", color=style.GREY,
                  label="true intensity (1: full)")
    for method in methods:
        rows = courses.query("method == @method and quantity == 'probability'")
        left.plot(rows.time, rows["mean"], **style.look(method), markersize=3,
                  label=style.METHOD_LABELS[method])
        if method == methods[0]:
            left.fill_between(*rows[["time", "low", "high"]].to_numpy(float).T, linewidth=0,
                              color=style.METHOD_COLOURS[method], alpha=0.25,
                              label=f"95 % interval of {style.METHOD_LABELS[method]}")
    zero(left)
    left.set(ylim=(0, None), xlabel=f"time from the {'apex' if right else 'middle'} ({unit})",
             ylabel="probability of the true class")
    clips, people = courses.samples.max(), courses.subjects.max()
    heading(left, f"Along the clips ({clips} clips, {people} people)")
    for ax in right:                                   # where the true intensity is known
        y = _emotion_rows(ax, follow)
        ax.barh(y, follow.null_95 - follow.null, 0.3, follow.null, color=style.NULL_COLOUR,
                edgecolor=style.GREY, linewidth=0.5, label="another person's clip, mean to 95 %")
        for at, r in zip(y, follow.itertuples(), strict=True):
            point(ax, at, r.mean, r.low, r.high, style.METHOD_COLOURS[r.method],
                  style.METHOD_MARKERS[r.method], filled=pd.notna(r.low))
        zero(ax)
        ax.set_xlabel("r with the true intensity")
        heading(ax, "Inside a clip (n clips, people)")
    legend(fig, [handle for ax in axes[0] for handle in ax.get_legend_handles_labels()[0]], 5)
    return stamp(fig, note)


def gains(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw recall on clips without and with photos, and the gain, of `gain_by_emotion`."""
    methods = present(table.method)
    fig, (left, right) = figure(PAGE, 0.8 + 0.3 * table.label.nunique(), 1, 2, sharey=True)
    y, colours = _emotion_rows(left, table), table.method.map(style.METHOD_COLOURS)
    left.hlines(y, table.without, table.recall, color=colours, linewidth=0.8)
    left.plot(table.without, y, **dict(style.look("dynamic"), linestyle="none"), markersize=3)
    for at, r, colour in zip(y, table.itertuples(), colours, strict=True):
        marker = style.METHOD_MARKERS[r.method]
        left.plot(r.recall, at, marker, color=colour, markersize=4)
        point(right, at, r.gain, r.low, r.high, colour, marker, filled=r.p_holm <= style.LEVEL)
    left.set_xlabel("recall on clips (%)")
    heading(left, "Without and with photos (n clips, people)")
    zero(right)
    right.set_xlabel("gain over dynamic only (points)")
    heading(right, "Paired difference, 95 %; filled: significant (Holm)")
    legend(fig, [key(style.METHOD_LABELS[m], **dict(style.look(m), linestyle="none"))
                 for m in ("dynamic", *methods)])
    return stamp(fig, note)
