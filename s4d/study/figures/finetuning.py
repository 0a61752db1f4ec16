"""Figures of fine-tuning: scores beside paired differences, confusions, curves, ablations."""
from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import style
from .marks import heading, key, legend, look, name_lines, number, point, present, zero
from .style import GREY, KINDS, METHOD_COLOURS, METHOD_LABELS, PAGE, SMALL, STARTS, figure, stamp

TASKS = ("video", "image")                            # the task that the method is for comes first
UNORDERED = ("capacity",)                             # studies in which 0 means no limit
ALONE = ("dynamic", "static")                         # the single-task methods
COMPARED = (("multitask", ALONE), ("s4d", ALONE), ("s4d", ("multitask",)),
            ("adapters", ("multitask",)), ("s4d", ("adapters",)))


def _baselines(ax, rows: pd.DataFrame, metric: str, upright: bool = True) -> None:
    """Draw one task's chance and majority class as lines, or as words outside of the axes."""
    low, high = ax.get_xlim() if upright else ax.get_ylim()
    values = {r.baseline.replace("majority", "majority class"): 100 * getattr(r, metric)
              for r in rows.itertuples()}
    if abs(values["majority class"] - values["chance"]) < 0.3:
        values = {"chance, majority class": values["chance"]}
    low = min([low, *(v - 3 for v in values.values() if v > low - 8)])
    ax.set(**{"xlim" if upright else "ylim": (low, high)})
    how = dict(color=GREY, fontsize=SMALL, textcoords="offset points")
    for name, v in values.items():
        if not low < v < high:
            continue
        line = dict(color=GREY, lw=0.8, ls="--" if name == "majority class" else ":", zorder=0)
        before = name == "chance"                     # its name ends where the other's begins
        if upright:
            ax.axvline(v, **line)
            ax.annotate(name, (v, 1), (-2 if before else 2, 1), ax.get_xaxis_transform(),
                        va="bottom", ha="right" if before else "left", **how)
        else:
            ax.axhline(v, **line)
            ax.annotate(name, (1, v), (-2, -1 if before else 1), ax.get_yaxis_transform(),
                        ha="right", va="top" if before else "bottom", **how)
    far = ", ".join(f"{name} {v:.1f}" for name, v in values.items() if v <= low)
    if far:
        ax.text(*((0, 1.01) if upright else (0.6, 0.02)), f"{'←' if upright else '↓'} {far}",
                transform=ax.transAxes, color=GREY, fontsize=SMALL)


def _scores(ax, scores: pd.DataFrame, single: pd.DataFrame) -> None:
    """Draw a metric of a task: a row a method, hollow from scratch, ticks of seeds below."""
    methods, starts = present(scores["method"]), set(scores["pretrained"])
    for (y, method), start in ((m, s) for m in enumerate(methods) for s in sorted(starts)):
        rows, dots = (t[(t["method"] == method) & (t["pretrained"] == start)]
                      for t in (scores, single))
        colour, at = METHOD_COLOURS[method], y + (0.16 if start else -0.2)
        ax.scatter(100 * dots["value"], np.full(len(dots), at + 0.15), s=12, marker="|",
                   color=colour, lw=0.9, zorder=2)
        for row in rows.itertuples():
            point(ax, at, 100 * row.value, 100 * row.low, 100 * row.high, colour,
                  style.METHOD_MARKERS[method], start)
        if rows.empty:
            ax.annotate(f"{STARTS[start]}: not run", (1, at), (-2, 0), ax.get_yaxis_transform(),
                        "offset points", color=GREY, fontsize=SMALL, ha="right", va="center")
    ax.set_yticks(range(len(methods)), [METHOD_LABELS[m] for m in methods])
    ax.set_ylim(len(methods) - 0.5, -0.5)


def _differences(ax, table: pd.DataFrame) -> None:
    """Draw paired differences of WAR, a row a comparison; a star where significant."""
    table = table[(table["metric"] == "WAR") & table["method_reference"].notna()]
    start = bool(table["pretrained"].any())
    table, names = table[table["pretrained"] == start], []
    for a, others in COMPARED:
        rows = table[(table["method"] == a) & table["method_reference"].isin(others)]
        if rows.empty:
            continue
        for row in rows.itertuples():
            at = len(names) + (-0.17 if row.task == "video" else 0.17)
            point(ax, at, 100 * row.difference, 100 * row.low, 100 * row.high,
                  style.TASK_COLOURS[row.task], style.TASK_MARKERS[row.task])
            text = "" if names else KINDS[row.task]
            text += " *" if row.p_holm <= style.LEVEL else ""
            ax.annotate(text, (100 * row.high, at), (3, 0), textcoords="offset points",
                        fontsize=7, va="center")
        other = "one task alone" if others == ALONE else METHOD_LABELS[others[0]]
        names.append(f"{METHOD_LABELS[a]} −\n{other}")
    zero(ax)
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.5, -0.5), xlabel="difference in WAR, points")
    ax.margins(x=0.12)
    ax.set_title(f"Paired differences, {STARTS[start]}", pad=10)


def comparison(scores: pd.DataFrame, single: pd.DataFrame, baselines: pd.DataFrame,
               differences: pd.DataFrame, note: str = "") -> Figure:
    """Draw UAR and WAR on clips, UAR on photos, and the paired differences that are claimed."""
    fig, axes = figure(PAGE, 4.6, 2, 2)
    panels = (("video", "UAR"), ("video", "WAR"), ("image", "UAR"))
    for ax, (task, metric) in zip(axes.flat, panels, strict=False):
        rows, dots = (t[(t["task"] == task) & (t["metric"] == metric)] for t in (scores, single))
        _scores(ax, rows, dots)
        _baselines(ax, baselines[baselines["task"] == task], metric)
        ax.set_xlabel(f"{metric}, %")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
        n, people = rows[["samples", "subjects"]].iloc[0]
        ax.set_title(f"{KINDS[task].capitalize()}: {n:.0f} of {people:.0f} people", pad=10)
    photos = scores[scores["task"] == "image"]
    photos = photos.pivot(index=["pretrained", "method"], columns="metric", values="value")
    gap = np.ceil(np.round(1000 * (photos["UAR"] - photos["WAR"]).abs().max(), 6)) / 10
    axes[1, 0].set_xlabel(f"UAR, % (WAR within {gap:.1f} points of it)")
    _differences(axes[1, 1], differences)
    legend(fig, [key("from scratch", marker="o", markerfacecolor="w"),
                 key("pre-trained", marker="o"), key("one seed", marker="|"),
                 key("significant after Holm's correction", marker="$*$")])
    return stamp(fig, note)


def confusion(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw confusion matrices in per cent of each true class; under half a per cent is blank.

    Args:
        table: method (may be missing for one system), task, label, predicted, share (of
            `stats.confusion`), samples of the label.
    """
    table = table if "method" in table else table.assign(method="")
    panels, before = list(table.groupby(["method", "task"], sort=False)), None
    fig, axes = figure(PAGE, 2.75, 1, len(panels), squeeze=False)
    for ax, ((method, task), rows) in zip(axes[0], panels, strict=True):
        order, across = (list(dict.fromkeys(rows[c])) for c in ("label", "predicted"))
        wide = rows.pivot(index="label", columns="predicted", values="share")
        matrix = 100 * wide.reindex(index=order, columns=across)
        text = matrix.map(lambda v: f"{v:.0f}" if v >= 0.5 else "")
        seaborn.heatmap(matrix, vmin=0, vmax=100, cmap="Blues", annot=text, fmt="", cbar=False,
                        annot_kws={"size": SMALL}, square=True, xticklabels=True, yticklabels=True,
                        ax=ax)
        samples = rows.drop_duplicates("label").set_index("label")["samples"]
        names = [f"{name} ({samples[name]})" for name in order]
        title = f"{METHOD_LABELS[method]}, {KINDS[task]}" if method else KINDS[task].capitalize()
        same = task == before                                # its rows are named to the left
        ax.set_xticks(ax.get_xticks(), across, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(ax.get_yticks(), [""] * len(order) if same else names, rotation=0)
        ax.set(xlabel="predicted", ylabel="" if same else f"true class ({KINDS[task]})")
        ax.set_title(title, loc="center")
        ax.tick_params(length=0)
        before = task
    return stamp(fig, note)


def curves(table: pd.DataFrame, baselines: pd.DataFrame, samples: dict[str, tuple[int, int]],
           note: str = "") -> Figure:
    """Draw validation WAR over the epochs of fine-tuning: mean over seeds, and their range.

    Args:
        table: task, method, pretrained, seed, epoch, war (share).
        baselines, samples: of the validation split; task -> samples and people.
    """
    starts, last = present(table["pretrained"], STARTS), table["epoch"].max()
    fig, axes = figure(PAGE, 4.2, len(TASKS), len(starts), squeeze=False, sharex=True)
    for (r, c), ax in np.ndenumerate(axes):
        task, start = TASKS[r], starts[c]
        rows, ends = table[(table["task"] == task) & (table["pretrained"] == start)], {}
        war = 100 * rows["war"]
        for method in present(rows["method"]):
            by_epoch = war[rows["method"] == method].groupby(rows["epoch"])
            mean, colour = by_epoch.mean(), METHOD_COLOURS[method]
            ax.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.13,
                            lw=0)
            ax.plot(mean.index, mean, **look(method), lw=1.2, ms=3, clip_on=False,
                    markevery=max(1, len(mean) // 5))
            ends[METHOD_LABELS[method]] = mean.iloc[-1]
        margin = 0.08 * max(war.max() - war.min(), 5)
        ax.set_ylim(war.min() - margin, war.max() + margin)
        _baselines(ax, baselines[baselines["task"] == task], "WAR", upright=False)
        name_lines(ax, ends, {METHOD_LABELS[m]: c for m, c in METHOD_COLOURS.items()})
        n, people = samples[task]
        heading(ax, f"{KINDS[task].capitalize()}: {n} of {people} people, {STARTS[start]}")
        ax.set(xlabel="epoch" if r else "", ylabel="" if c else "validation WAR, %",
               xlim=(1, last) if last > 1 else (0.5, 1.5))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    return stamp(fig, note)


def _study(ax, rows: pd.DataFrame, default: str, write: bool) -> None:
    """Draw one panel of `ablations`."""
    values = list(dict.fromkeys(rows["setting"]))
    joined = rows["study"].iloc[0] not in UNORDERED
    joined &= all(s.replace(".", "", 1).isdigit() for s in values)
    several = [m for m in present(rows["method"]) if (rows["method"] == m).sum() > 1]
    for method in present(rows["method"]):
        mine, colour = rows[rows["method"] == method], METHOD_COLOURS[method]
        shift = several.index(method) - (len(several) - 1) / 2 if method in several else 0.0
        places = mine["setting"].map(values.index) + 0.14 * shift
        if joined and len(mine) > 2:
            ax.plot(places, 100 * mine["value"], color=colour, lw=0.8, zorder=1,
                    ls=style.METHOD_DASHES[method])
        for x, row in zip(places, mine.itertuples(), strict=True):
            hollow = getattr(row, "p_holm", 0) > style.LEVEL              # the default has no p
            point(ax, x, 100 * row.value, 100 * row.low, 100 * row.high, colour,
                  style.METHOD_MARKERS[method], not hollow, vertical=True)
            if not hasattr(row, "difference_low"):
                continue
            if row.setting == default:
                ax.axhline(100 * row.value, color=colour, lw=0.7, ls=":", zorder=0)
            if write:
                text = f"{100 * row.value:.1f}"
                if row.setting != default:
                    text += "\n" + number(*(100 * v for v in (
                        row.difference, row.difference_low, row.difference_high)), "+.1f")
                ax.annotate(text, (x, 100 * row.value), (6, -2), textcoords="offset points",
                            fontsize=SMALL, va="top" if row.setting == default else "center")
    ax.set_xticks(range(len(values)), values)
    ax.set_xlim(-0.3 if write else -0.5, len(values) - 0.5)
    for text in ax.get_xticklabels():
        text.set_fontweight("bold" if text.get_text() == default else "normal")


def ablations(table: pd.DataFrame, titles: dict[str, str], default: dict[str, str], note: str = "",
              ylabel: str = "WAR on clips, %", differences: bool = False) -> Figure:
    """Draw a panel per study: a score against the setting; the default's name is bold.

    Args:
        table: study, setting (text, in the order of the axis), method, value, low, high (shares);
            with difference, difference_low, difference_high, p_holm (paired, to the default) the
            bars are the difference's interval around the default's dotted level.
        titles, default: study -> name of its axis, and setting of the comparison itself.
        differences: whether values are differences, so that 0 gets a line.
    """
    if "difference_low" in table:                               # the default itself has no bar
        value = table["value"]
        ends = (value - table["difference"] + table[f"difference_{end}"] for end in ("low", "high"))
        low, high = (end.where(table["difference"].notna(), value) for end in ends)
        table = table.assign(low=low, high=high)
    studies = list(dict.fromkeys(table["study"]))
    columns = min(3, len(studies))
    rows = -(-len(studies) // columns)
    fig, axes = figure(style.COLUMN if columns == 1 else PAGE, 0.6 + 1.75 * rows, rows, columns,
                       squeeze=False, sharey=True)
    for ax in axes.flat[len(studies):]:
        ax.set_axis_off()
    for ax, study in zip(axes.flat, studies, strict=False):
        _study(ax, table[table["study"] == study], default[study], write=len(studies) == 1)
        if differences:
            zero(ax, horizontal=True)
        ax.set_xlabel(titles[study])
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    legend(fig, [key(METHOD_LABELS[m], **look(m)) for m in present(table["method"])],
           ncols=2 if columns == 1 else 5)
    return stamp(fig, note)
