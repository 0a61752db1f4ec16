"""Figures of fine-tuning: scores, differences, confusions, curves, ablations, single answers."""
from itertools import product
from pathlib import Path

import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import style
from .style import KINDS, METHOD_LABELS, PAGE, SMALL, figure, key, legend, point, present, stamp


def _baselines(ax, title: str, rows: pd.DataFrame, metric: str, upright: bool = True) -> None:
    """Title an axes; write a task's chance and majority class below, draw those within reach."""
    (low, high), draw = (ax.get_xlim(), ax.axvline) if upright else (ax.get_ylim(), ax.axhline)
    chance, majority = 100 * rows.set_index("baseline")[metric].loc[["chance", "majority"]]
    for value, dash in ((chance, ":"), (majority, "--")):
        if low < value < high:
            draw(value, color=style.GREY, lw=0.8, ls=dash, zorder=0)
    ax.set_title(title, pad=10)
    ax.text(0, 1.02, f"chance (dotted) {chance:.1f}, majority class (dashed) {majority:.1f}",
            transform=ax.transAxes, color=style.GREY, fontsize=SMALL)


def _scores(ax, scores: pd.DataFrame, single: pd.DataFrame) -> None:
    """Draw a metric of a task: a row a method, hollow from scratch, ticks of seeds below."""
    methods = present(scores["method"])
    place = {(m, start): methods.index(m) + (0.16 if start else -0.2)
             for m, start in product(methods, set(scores["pretrained"]))}
    for r in single.itertuples():
        ax.plot(100 * r.value, place[r.method, r.pretrained] + 0.15, "|", ms=3.5, mew=0.9,
                color=style.METHOD_COLOURS[r.method], zorder=2)
    for r in scores.itertuples():
        point(ax, place.pop((r.method, r.pretrained)), 100 * r.value, 100 * r.low, 100 * r.high,
              style.METHOD_COLOURS[r.method], style.METHOD_MARKERS[r.method], r.pretrained)
    for (_, start), y in place.items():
        ax.text(0.98, y, f"{style.STARTS[start]}: not run", transform=ax.get_yaxis_transform(),
                color=style.GREY, fontsize=SMALL, ha="right", va="center")
    ax.set_yticks(range(len(methods)), [METHOD_LABELS[m] for m in methods])
    ax.set_ylim(len(methods) - 0.5, -0.5)


def _differences(ax, table: pd.DataFrame) -> None:
    """Draw paired differences of WAR, a row a comparison; a star where significant."""
    table = table[(table["metric"] == "WAR") & table["method_reference"].notna()]
    start = bool(table["pretrained"].any())
    table = table[table["pretrained"] == start]
    alone = dict.fromkeys(("dynamic", "static"), "one task alone")
    others = table["method_reference"].replace(METHOD_LABELS | alone)
    names = table["method"].map(METHOD_LABELS) + " −\n" + others
    order = list(dict.fromkeys(names))
    for name, r in zip(names, table.itertuples(), strict=True):
        y = order.index(name) + (-0.17 if r.task == "video" else 0.17)
        point(ax, y, 100 * r.difference, 100 * r.low, 100 * r.high,
              style.TASK_COLOURS[r.task], style.TASK_MARKERS[r.task])
        text = KINDS[r.task] if name == order[0] else ""
        text += " *" if r.p_holm <= style.LEVEL else ""
        ax.annotate(text, (100 * r.high, y), (3, 0), textcoords="offset points", fontsize=7,
                    va="center")
    style.zero(ax)
    ax.set_yticks(range(len(order)), order)
    ax.set(ylim=(len(order) - 0.5, -0.5), xlabel="difference in WAR, points")
    ax.margins(x=0.12)
    ax.set_title(f"Paired differences, {style.STARTS[start]}", pad=10)


def comparison(scores: pd.DataFrame, single: pd.DataFrame, baselines: pd.DataFrame,
               differences: pd.DataFrame, note: str = "") -> Figure:
    """Draw UAR and WAR on clips, UAR on photos, and the paired differences that are claimed."""
    fig, axes = figure(PAGE, 4.6, 2, 2)
    panels = (("video", "UAR"), ("video", "WAR"), ("image", "UAR"))
    for ax, (task, metric) in zip(axes.flat, panels, strict=False):
        rows, dots = (t[(t["task"] == task) & (t["metric"] == metric)] for t in (scores, single))
        _scores(ax, rows, dots)
        n, people = rows[["samples", "subjects"]].iloc[0]
        _baselines(ax, f"{KINDS[task].capitalize()}: {n:.0f} of {people:.0f} people",
                   baselines[baselines["task"] == task], metric)
        ax.set_xlabel(f"{metric}, %")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
    _differences(axes[1, 1], differences)
    legend(fig, [key("from scratch", marker="o", markerfacecolor="w"),
                 key("pre-trained", marker="o"), key("one seed", marker="|"),
                 key("significant after Holm's correction", marker="$*$")])
    return stamp(fig, note)


def confusion(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw `protocol.confusion` of each method and task in per cent; under half a one is blank."""
    panels = list(table.groupby(["method", "task"], sort=False))
    fig, axes = figure(PAGE, 2.75, 1, len(panels), squeeze=False)
    for ax, ((method, task), rows) in zip(axes[0], panels, strict=True):
        order, across = rows["label"].unique(), rows["predicted"].unique()
        matrix = 100 * rows.pivot(index="label", columns="predicted", values="share")
        matrix = matrix.loc[order, across]
        seaborn.heatmap(matrix, vmin=0, vmax=100, cmap="Blues", cbar=False, square=True, ax=ax,
                        annot=matrix.map(lambda v: f"{v:.0f}" if v >= 0.5 else ""), fmt="",
                        annot_kws={"size": SMALL}, xticklabels=True, yticklabels=True)
        samples = rows.groupby("label")["samples"].first()
        ax.set_xticks(ax.get_xticks(), across, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(ax.get_yticks(), [f"{name} ({samples[name]})" for name in order], rotation=0)
        ax.set(xlabel="predicted", ylabel=f"true class ({KINDS[task]})")
        ax.set_title(", ".join(filter(None, (METHOD_LABELS.get(method), KINDS[task]))),
                     loc="center")
        ax.tick_params(length=0)
    return stamp(fig, note)


def curves(table: pd.DataFrame, baselines: pd.DataFrame, samples: dict[str, tuple[int, int]],
           note: str = "") -> Figure:
    """Draw validation WAR over the epochs of fine-tuning: mean over seeds, and their range.

    `samples` are the validation split's, and their people, by task.
    """
    starts, last = present(table["pretrained"], style.STARTS), table["epoch"].max()
    fig, axes = figure(PAGE, 4.4, 2, len(starts), squeeze=False, sharex=True)
    for ax, (task, start) in zip(axes.flat, product(("video", "image"), starts), strict=True):
        rows, ends = table[(table["task"] == task) & (table["pretrained"] == start)], {}
        for method in present(rows["method"]):
            mine = rows[rows["method"] == method]
            war = 100 * mine.groupby("epoch")["war"].agg(["mean", "min", "max"])
            ax.fill_between(war.index, war["min"], war["max"], color=style.METHOD_COLOURS[method],
                            alpha=0.13, lw=0)
            ax.plot(war.index, war["mean"], **style.look(method), lw=1.2, ms=3, clip_on=False,
                    markevery=max(1, len(war) // 5))
            ends[METHOD_LABELS[method]] = war["mean"].iloc[-1]
        n, people = samples[task]
        _baselines(ax, f"{KINDS[task].capitalize()}: {n} of {people} people, {style.STARTS[start]}",
                   baselines[baselines["task"] == task], "WAR", upright=False)
        style.name_lines(ax, ends, {METHOD_LABELS[m]: c for m, c in style.METHOD_COLOURS.items()})
        ax.set(xlabel="epoch" if task == "image" else "",
               ylabel="validation WAR, %" if start == starts[0] else "",
               xlim=(1, last) if last > 1 else (0.5, 1.5))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    return stamp(fig, note)


def _study(ax, rows: pd.DataFrame, default: str) -> None:
    """Draw one panel of `ablations`."""
    settings, methods = list(dict.fromkeys(rows["setting"])), present(rows["method"])
    ordered = pd.to_numeric(pd.Series(settings), errors="coerce").notna().all()
    for k, method in enumerate(methods):
        mine, colour = rows[rows["method"] == method], style.METHOD_COLOURS[method]
        places = mine["setting"].map(settings.index) + 0.14 * (k - (len(methods) - 1) / 2)
        if ordered and len(mine) > 2:
            ax.plot(places, 100 * mine["value"], color=colour, lw=0.8, zorder=1,
                    ls=style.METHOD_DASHES[method])
        for x, row in zip(places, mine.itertuples(), strict=True):
            hollow = getattr(row, "p_holm", 0) > style.LEVEL              # the default has no p
            point(ax, x, 100 * row.value, 100 * row.low, 100 * row.high, colour,
                  style.METHOD_MARKERS[method], not hollow, vertical=True)
            if row.setting == default and "difference_low" in rows:
                ax.axhline(100 * row.value, color=colour, lw=0.7, ls=":", zorder=0)
    if ax.get_ylim()[0] <= 0:
        style.zero(ax, horizontal=True)
    ax.set_xticks(range(len(settings)), settings)
    ax.set_xlim(-0.5, len(settings) - 0.5)
    if default in settings:
        ax.get_xticklabels()[settings.index(default)].set_fontweight("bold")


def ablations(table: pd.DataFrame, titles: dict[str, str], default: dict[str, str], note: str = "",
              ylabel: str = "WAR on clips, %") -> Figure:
    """Draw a panel per study: a score, or difference, by setting; the default's name is bold.

    Args:
        table: study, setting (text, in the order of the axis), method, value, low, high (shares);
            with difference_low, difference_high (paired, to the default) the bars are the
            difference's interval around the default's dotted level.
        titles, default: study -> name of its axis, and setting of the comparison itself.
    """
    if "difference_low" in table:                               # the default itself has no bar
        level = table["value"] - table["difference"]
        table = table.assign(low=(level + table["difference_low"]).fillna(table["value"]),
                             high=(level + table["difference_high"]).fillna(table["value"]))
    studies = list(table.groupby("study", sort=False))
    columns = min(3, len(studies))
    rows = -(-len(studies) // columns)
    fig, axes = figure(style.COLUMN if columns == 1 else PAGE, 0.6 + 1.75 * rows, rows, columns,
                       squeeze=False, sharey=True)
    for ax in axes.flat[len(studies):]:
        ax.set_axis_off()
    for ax, (study, found) in zip(axes.flat, studies, strict=False):
        _study(ax, found, default[study])
        ax.set_xlabel(titles[study])
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    legend(fig, [key(METHOD_LABELS[m], **style.look(m)) for m in present(table["method"])],
           ncols=2 if columns == 1 else 5)
    return stamp(fig, note)


def predictions(table: pd.DataFrame, pictures: list, courses: dict[str, pd.DataFrame] | None = None,
                note: str = "") -> Figure:
    """Draw a row per file: picture, class probabilities, and for clips their course in time.

    Args:
        pictures: one uint8 `[3, H, W]` a row.
        courses: path -> table of `s4d.training.along_time`.
    """
    courses, widths = courses or {}, [1, 2, 3] if courses else [1, 2]
    fig, axes = figure(PAGE, 0.4 + 1.5 * len(table), len(table), len(widths), squeeze=False,
                       width_ratios=widths)
    shares = table.filter(like="prob_").rename(columns=lambda name: name.removeprefix("prob_"))
    for path, (_, share), ax, picture in zip(table["path"].astype(str), shares.iterrows(), axes,
                                             pictures, strict=True):
        name, share = Path(path).name, share.dropna()        # classes of the other task have none
        style.show(picture, ax[0], name if len(name) < 19 else f"...{name[-16:]}")
        ax[1].barh(share.index, share, color=[style.EMOTION_COLOURS[e] for e in share.index])
        ax[1].set(xlim=(0, 1), xlabel="probability")
        ax[1].invert_yaxis()
        if path in courses:
            course = courses[path]
            unit = "seconds" if course["seconds"].notna().all() else "frame"
            for emotion in share.index:
                ax[2].plot(course[unit], course[f"prob_{emotion}"], label=emotion, marker=".",
                           ms=3, color=style.EMOTION_COLOURS[emotion])
            ax[2].set(ylim=(0, 1), ylabel="probability", xlabel=f"middle of the window ({unit})")
            ax[2].legend(fontsize=SMALL, loc="center left", bbox_to_anchor=(1, 0.5))
        elif courses:
            ax[2].set_axis_off()
    return stamp(fig, note)
