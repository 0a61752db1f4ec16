"""Figures of fine-tuning: scores beside paired differences, confusions, learning curves and ablations."""
from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...captions import LEVEL, STARTS, effect
from .style import (COLUMN, METHOD_COLOURS, METHOD_DASHES, METHOD_LABELS, METHOD_MARKERS, METHOD_NAMES, PAGE, SMALL, TASK_COLOURS, TASK_MARKERS,
                    figure, spread, stamp)

TASKS = ("video", "image")                            # the task that the method is for comes first
DATA = {"video": "Clips", "image": "Photos"}
GREY = "#606060"                                      # of lines and names of baselines
UNORDERED = ("capacity",)                             # studies whose numbers are no scale: there 0 means no limit
ALONE = ("dynamic", "static")                         # the methods that know one task
COMPARED = (("multitask", ALONE), ("s4d", ALONE), ("s4d", ("multitask",)), ("adapters", ("multitask",)), ("s4d", ("adapters",)))


def _present(table: pd.DataFrame) -> list[str]:
    return [m for m in METHOD_NAMES if m in set(table["method"])]


def _title(rows: pd.DataFrame, task: str) -> str:
    first = rows.iloc[0]
    return f"{DATA[task]}: {first['samples']:.0f} of {first['subjects']:.0f} people"


def _baselines(ax, rows: pd.DataFrame, metric: str, reach: tuple[float, float], horizontal: bool = False) -> list[float]:
    """Chance and always naming the most frequent class: a line where it is near the values, words where it would stretch the axis.

    Args:
        rows: baseline, UAR, WAR of one task.
        reach: lowest and highest value drawn, per cent.
    Returns:
        where the lines are.
    """
    values = {{"majority": "majority class"}.get(r.baseline, r.baseline): 100 * getattr(r, metric) for r in rows.itertuples()}
    if abs(values["majority class"] - values["chance"]) < 0.3:
        values = {"chance, majority class": values["chance"]}
    near = {name: v for name, v in values.items() if v > reach[0] - 0.3 * max(reach[1] - reach[0], 10)}
    for i, (name, v) in enumerate(sorted(near.items(), key=lambda item: item[1])):
        (ax.axhline if horizontal else ax.axvline)(v, color=GREY, lw=0.8, ls="--" if name == "majority class" else ":", zorder=0)
        last = i > 0 or len(near) == 1                          # the lower one's name stands before its line, so that names never meet
        if horizontal:
            ax.annotate(name, (1, v), (-2, 1 if last else -1), ax.get_yaxis_transform(), "offset points", color=GREY, fontsize=SMALL,
                        ha="right", va="bottom" if last else "top")
        else:
            ax.annotate(name, (v, 1), (0 if len(near) == 1 else 2 if last else -2, 1), ax.get_xaxis_transform(), "offset points", color=GREY,
                        fontsize=SMALL, ha="center" if len(near) == 1 else "left" if last else "right", va="bottom")
    far = ", ".join(f"{name} {v:.1f}" for name, v in values.items() if name not in near)
    if far and horizontal:
        ax.annotate(f"↓ {far}", (1, 0), (-2, 3), "axes fraction", "offset points", color=GREY, fontsize=SMALL, ha="right")
    elif far:
        ax.annotate(f"← {far}", (0, 1), (0, 1), "axes fraction", "offset points", color=GREY, fontsize=SMALL, va="bottom")
    return list(near.values())


def _scores(ax, scores: pd.DataFrame, single: pd.DataFrame) -> None:
    """One metric of one task: a row a method, hollow from scratch above filled pre-trained, ticks of seeds below each."""
    methods, starts = _present(scores), set(scores["pretrained"])
    for y, method in enumerate(methods):
        for start, shift in ((False, -0.2), (True, 0.16)):
            rows = scores[(scores["method"] == method) & (scores["pretrained"] == start)]
            dots = single[(single["method"] == method) & (single["pretrained"] == start)]
            colour, at = METHOD_COLOURS[method], y + shift
            ax.scatter(100 * dots["value"], np.full(len(dots), at + 0.15), s=12, marker="|", color=colour, lw=0.9, zorder=2)
            for row in rows.itertuples():
                ax.plot([100 * row.low, 100 * row.high], [at, at], color=colour, lw=1.2, zorder=1)
                ax.plot(100 * row.value, at, METHOD_MARKERS[method], ms=4.5, mec=colour, mfc=colour if start else "w", mew=1.1, zorder=3)
            if rows.empty and start in starts:
                ax.annotate(f"{STARTS[start]}: not run", (1, at), (-2, 0), ax.get_yaxis_transform(), "offset points", color=GREY,
                            fontsize=SMALL, ha="right", va="center")
    ax.set_yticks(range(len(methods)), [METHOD_LABELS[m] for m in methods])
    ax.set_ylim(len(methods) - 0.5, -0.5)


def _differences(ax, table: pd.DataFrame) -> None:
    """Paired differences of WAR, a row a comparison, clips above photos; a star where one outlasts the correction."""
    table = table[(table["metric"] == "WAR") & table["method_reference"].notna()]
    start = bool(table["pretrained"].any())
    table, names = table[table["pretrained"] == start], []
    for a, others in COMPARED:
        rows = table[(table["method"] == a) & table["method_reference"].isin(others)]
        if rows.empty:
            continue
        for task, shift in zip(TASKS, (-0.17, 0.17)):
            for row in rows[rows["task"] == task].itertuples():
                at, colour = len(names) + shift, TASK_COLOURS[task]
                ax.plot([100 * row.low, 100 * row.high], [at, at], color=colour, lw=1.2)
                ax.plot(100 * row.difference, at, TASK_MARKERS[task], ms=4.5, color=colour)
                said = DATA[task].lower() * (not names) + " *" * (row.p_holm <= LEVEL)
                ax.annotate(said, (100 * row.high, at), (3, 0), textcoords="offset points", fontsize=7, va="center")
        names.append(f"{METHOD_LABELS[a]} −\n{'one task alone' if others == ALONE else METHOD_LABELS[others[0]]}")
    ax.axvline(0, color=GREY, lw=0.8, zorder=0)
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.5, -0.5), xlabel="difference in WAR, points")
    ax.margins(x=0.12)
    ax.set_title(f"Paired differences, {STARTS[start]}", pad=10)


def comparison(scores: pd.DataFrame, single: pd.DataFrame, baselines: pd.DataFrame, differences: pd.DataFrame, note: str = "") -> Figure:
    """UAR and WAR on clips, UAR on photos, and the paired differences that are claimed.

    Args:
        scores: task, method, pretrained, metric, value, low, high (`stats.scores`; shares), samples, subjects.
        single: task, method, pretrained, metric, seed, value (`stats.per_seed`).
        baselines: task, baseline, UAR, WAR (`protocol.baselines`).
        differences: task, method, method_reference, pretrained, metric, difference, low, high, p_holm (`stats.paired`).
    """
    fig, axes = figure(PAGE, 4.6, 2, 2)
    for ax, task, metric in zip(axes.flat, ("video", "video", "image"), ("UAR", "WAR", "UAR")):
        mine = [t[(t["task"] == task) & (t["metric"] == metric)] for t in (scores, single)]
        _scores(ax, *mine)
        _baselines(ax, baselines[baselines["task"] == task], metric, (100 * mine[0]["low"].min(), 100 * mine[0]["high"].max()))
        ax.set_xlabel(f"{metric}, %")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
        ax.set_title(_title(mine[0], task), pad=10)
    photos = scores[scores["task"] == "image"].pivot(index=["pretrained", "method"], columns="metric", values="value")
    gap = np.ceil(np.round(1000 * (photos["UAR"] - photos["WAR"]).abs().max(), 6)) / 10
    axes[1, 0].set_xlabel(f"UAR, % (WAR within {gap:.1f} points of it)")
    _differences(axes[1, 1], differences)
    handles = [Line2D([], [], color=GREY, marker="o", mfc="w", ms=4.5, lw=1.2, label="from scratch"),
               Line2D([], [], color=GREY, marker="o", ms=4.5, lw=1.2, label="pre-trained"),
               Line2D([], [], color=GREY, marker="|", ls="", ms=5, label="one seed"),
               Line2D([], [], color="k", marker="$*$", ls="", ms=4, label="outlasts Holm's correction")]
    fig.legend(handles=handles, loc="outside upper right", ncols=4)
    stamp(fig, note)
    return fig


def confusion(table: pd.DataFrame, note: str = "") -> Figure:
    """Confusion matrices beside each other, in per cent of each true class; shares under half a per cent are left blank.

    Args:
        table: method (may be missing for one system), task, label, predicted, share (`protocol.confusion`), samples of the label.
    """
    table = table if "method" in table else table.assign(method="")
    panels = list(dict.fromkeys(table[["method", "task"]].itertuples(index=False, name=None)))
    fig, axes = figure(PAGE, 2.75, 1, len(panels), squeeze=False)
    for ax, (method, task), before in zip(axes[0], panels, [None, *panels]):
        rows = table[(table["method"] == method) & (table["task"] == task)]
        order, across = list(dict.fromkeys(rows["label"])), list(dict.fromkeys(rows["predicted"]))
        matrix = 100 * rows.pivot(index="label", columns="predicted", values="share").reindex(index=order, columns=across)
        text = matrix.map(lambda v: f"{v:.0f}" if v >= 0.5 else "")
        seaborn.heatmap(matrix, vmin=0, vmax=100, cmap="Blues", annot=text, fmt="", annot_kws={"size": SMALL}, cbar=False, square=True,
                        xticklabels=True, yticklabels=True, ax=ax)
        for cell, share in zip(ax.texts, matrix.to_numpy().ravel()):
            cell.set_color("w" if share > 70 else "k")
        samples = rows.drop_duplicates("label").set_index("label")["samples"]
        ax.set_xticks(ax.get_xticks(), across, rotation=45, ha="right", rotation_mode="anchor")
        same = before is not None and before[1] == task           # its rows are those of the matrix to the left
        ax.set_yticks(ax.get_yticks(), [""] * len(order) if same else [f"{name} ({samples[name]})" for name in order], rotation=0)
        ax.set(xlabel="predicted", ylabel="" if same else f"true class ({DATA[task].lower()})")
        ax.set_title(f"{METHOD_LABELS[method]}, {DATA[task].lower()}" if method else DATA[task], loc="center")
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    stamp(fig, note)
    return fig


def _curves(ax, rows: pd.DataFrame, baselines: pd.DataFrame) -> None:
    """One task and start: the mean of every method with its mark and dash, the range of its seeds, its name at the right end."""
    ends = {}
    for method in _present(rows):
        by_epoch = (100 * rows[rows["method"] == method].set_index("epoch")["war"]).groupby(level=0)
        mean, colour = by_epoch.mean(), METHOD_COLOURS[method]
        ax.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.13, lw=0)
        ax.plot(mean.index, mean, color=colour, lw=1.2, ls=METHOD_DASHES[method], marker=METHOD_MARKERS[method], ms=3,
                markevery=max(1, len(mean) // 5), clip_on=False)
        ends[method] = mean.iloc[-1]
    reach = 100 * rows["war"].min(), 100 * rows["war"].max()
    low, high = min([reach[0], *_baselines(ax, baselines, "WAR", reach, horizontal=True)]), reach[1]
    margin = 0.08 * max(high - low, 5)
    ax.set_ylim(low - margin, high + margin)
    places = spread(list(ends.values()), 0.085 * (high - low + 2 * margin))
    for (method, y), place in zip(ends.items(), places):
        ax.annotate(METHOD_LABELS[method], (1.01, y), (1.08, place), ax.get_yaxis_transform(), ax.get_yaxis_transform(), fontsize=7,
                    va="center", annotation_clip=False,
                    arrowprops=dict(arrowstyle="-", color=METHOD_COLOURS[method], lw=0.8, relpos=(0, 0.5), shrinkA=0, shrinkB=0))


def curves(table: pd.DataFrame, baselines: pd.DataFrame, samples: dict[str, tuple[int, int]], note: str = "") -> Figure:
    """Validation accuracy over the epochs of fine-tuning: mean over seeds, and their range.

    Args:
        table: task, method, pretrained, seed, epoch, war (share).
        baselines: as in `comparison`, of the validation part.
        samples: task -> samples and people of the validation part.
    """
    starts = [s for s in STARTS if s in set(table["pretrained"])]
    fig, axes = figure(PAGE, 4.2, len(TASKS), len(starts), squeeze=False, sharex=True)
    last = table["epoch"].max()
    for r, task in enumerate(TASKS):
        for ax, start in zip(axes[r], starts):
            rows = table[(table["task"] == task) & (table["pretrained"] == start)]
            _curves(ax, rows, baselines[baselines["task"] == task])
            ax.set_title("{}: {} of {} people, {}".format(DATA[task], *samples[task], STARTS[start]), fontsize=7.5)
        axes[r, 0].set_ylabel("validation WAR, %")
    for ax in axes[-1]:
        ax.set(xlabel="epoch", xlim=(1, last) if last > 1 else (0.5, 1.5))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    stamp(fig, note)
    return fig


def _study(ax, part: pd.DataFrame, default: str, write: bool) -> None:
    """One panel of `ablations`."""
    values = list(dict.fromkeys(part["setting"]))
    methods = _present(part)
    joined = part["study"].iloc[0] not in UNORDERED and all(s.replace(".", "", 1).isdigit() for s in values)
    several = [m for m in methods if (part["method"] == m).sum() > 1]         # others stand at one setting alone, without a shift
    for method in methods:
        mine, colour = part[part["method"] == method].set_index("setting"), METHOD_COLOURS[method]
        shift = 0.14 * (several.index(method) - (len(several) - 1) / 2) if method in several else 0.0
        points = [(values.index(s) + shift, row) for s, row in zip(mine.index, mine.itertuples())]
        if joined and len(points) > 2:
            ax.plot([x for x, _ in points], [100 * row.value for _, row in points], color=colour, lw=0.8, ls=METHOD_DASHES[method], zorder=1)
        for x, row in points:
            low, high, reference = _bar(row)
            if reference is not None and row.Index == default:
                ax.axhline(100 * row.value, color=colour, lw=0.7, ls=":", zorder=0)
            shown = not getattr(row, "p_holm", 0) > LEVEL                     # the default itself has none
            ax.plot([x, x], [100 * low, 100 * high], color=colour, lw=1.1, zorder=2)
            ax.plot(x, 100 * row.value, METHOD_MARKERS[method], ms=4.5, mec=colour, mfc=colour if shown else "w", mew=1.0, zorder=3)
            if write and reference is not None:
                said = [f"{100 * row.value:.1f}"]
                if row.Index != default:
                    said.append(effect(*(100 * v for v in (row.difference, row.difference_low, row.difference_high))))
                ax.annotate("\n".join(said), (x, 100 * row.value), (6, -2), textcoords="offset points", fontsize=SMALL,
                            va="top" if row.Index == default else "center")
    ax.set_xticks(range(len(values)), values)
    ax.set_xlim(-0.3 if write else -0.5, len(values) - 0.5)
    for text in ax.get_xticklabels():
        text.set_fontweight("bold" if text.get_text() == default else "normal")


def _bar(row) -> tuple[float, float, float | None]:
    """Ends of a point's bar, and the level of the default that it is read against: with a paired difference beside it, the bar is that
    difference's interval, laid around the default's level; without one it is the value's own."""
    if not hasattr(row, "difference_low"):
        return row.low, row.high, None
    if np.isnan(row.difference):                                              # the default itself
        return row.value, row.value, row.value
    reference = row.value - row.difference
    return reference + row.difference_low, reference + row.difference_high, reference


def ablations(table: pd.DataFrame, titles: dict[str, str], default: dict[str, str], note: str = "", ylabel: str = "WAR on clips, %",
              zero: bool = False) -> Figure:
    """A panel per study: a score against the setting, mean over seeds; the default's name is bold, its level dotted.

    Args:
        table: study, setting (text, in the order of the axis), method, value, low, high (shares); with difference, difference_low,
            difference_high, p_holm (paired, to the default) the bars are the difference's interval around the default's level, and a
            point is filled where it outlasts the correction.
        titles: study -> name of its axis.
        default: study -> the setting of the comparison itself.
        ylabel: of the values, in per cent or points.
        zero: draw a line there; for differences.
    """
    studies = list(dict.fromkeys(table["study"]))
    columns = min(3, len(studies))
    rows = -(-len(studies) // columns)
    fig, axes = figure(COLUMN if columns == 1 else PAGE, 0.6 + 1.75 * rows, rows, columns, squeeze=False, sharey=True)
    for ax in axes.flat[len(studies):]:
        ax.set_axis_off()
    for ax, study in zip(axes.flat, studies):
        _study(ax, table[table["study"] == study], default[study], write=len(studies) == 1)
        if zero:
            ax.axhline(0, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.set_xlabel(titles[study])
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    handles = [Line2D([], [], color=METHOD_COLOURS[m], marker=METHOD_MARKERS[m], ms=4.5, lw=1.1, label=METHOD_LABELS[m]) for m in _present(table)]
    fig.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 2 if columns == 1 else 5))
    stamp(fig, note)
    return fig
