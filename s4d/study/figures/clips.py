"""Figures along clips and by emotion: the photo head on frames, and what photos add."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from . import style
from .marks import heading, key, legend, look, name_lines, point, present, zero
from .style import EMOTION_COLOURS, GREY, METHOD_COLOURS, METHOD_LABELS, METHOD_MARKERS, figure


def along_clip(courses: pd.DataFrame, follow: pd.DataFrame, curves: pd.DataFrame, unit: str,
               note: str = "") -> Figure:
    """Draw the photo head along frames of clips: course, by emotion, correlation inside, lag.

    The tables, with a column method, are those of `course`, `follow` and `lagged` in
    `s4d.study.confusions`; the last two are empty where no truth is known.
    """
    known = len(follow) > 0
    fig, axes = figure(style.PAGE, 4.6 if known else 2.6, 1 + known, 2, squeeze=False)
    for ax in axes[0]:
        zero(ax)
        ax.set_xlabel(f"time from the {'apex' if known else 'middle'} ({unit})")
        ax.set_ylabel("probability of the true class", fontsize=7)
    rows = courses[courses.label == "expressive"]
    truth = rows[rows.quantity == "intensity"].drop_duplicates("time").sort_values("time")
    axes[0, 0].plot(truth.time, truth["mean"], "--", color=GREY)
    _lines(axes[0, 0], rows[rows.quantity == "probability"], "time")
    axes[0, 0].set_ylim(0, None)
    heading(axes[0, 0],
            f"All but neutral ({rows.samples.max()} clips, {rows.subjects.max()} people)")
    _by_emotion(axes[0, 1], courses[courses.label != "expressive"])
    methods = present(courses.method)
    handles = [key(METHOD_LABELS[m], **look(m)) for m in methods]
    handles.append(Patch(color=METHOD_COLOURS[methods[0]], alpha=0.25,
                         label=f"95 % interval of {METHOD_LABELS[methods[0]]}"))
    if known:
        axes[0, 0].set_ylabel("probability; intensity\n(1: a full expression)", fontsize=7)
        _follow(axes[1, 0], follow)
        _lag(axes[1, 1], curves, unit)
        handles.insert(0, key("true intensity", marker="", linestyle="--", color=GREY))
        handles.append(Patch(facecolor=style.NULL_COLOUR, edgecolor=GREY, linewidth=0.5,
                             label="another person's clip, mean to 95 %"))
    legend(fig, handles, 5)
    return style.stamp(fig, note)


def _lines(ax, table: pd.DataFrame, along: str) -> None:
    """Draw a line a method, with a band about the first alone: two would cover one another."""
    for k, method in enumerate(present(table.method)):
        rows = table[table.method == method].sort_values(along)
        if k == 0:
            band = rows[[along, "low", "high"]].astype(float)
            ax.fill_between(*band.to_numpy().T, color=METHOD_COLOURS[method], alpha=0.25,
                            linewidth=0)
        ax.plot(rows[along], rows["mean"], **look(method), markersize=3)


def _by_emotion(ax, courses: pd.DataFrame) -> None:
    table = courses[(courses.method == "static") & (courses.quantity == "probability")]
    half, ends = ((table.high - table.low) / 2).astype(float).median(), {}
    for label in present(table.label, EMOTION_COLOURS):
        rows = table[table.label == label].sort_values("time")
        ax.plot(rows.time, rows["mean"], color=EMOTION_COLOURS[label],
                marker=style.EMOTION_MARKERS[label], markersize=3)
        ends[f"{label} ({rows.samples.max()})"] = rows["mean"].iloc[-1]
    ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
    name_lines(ax, ends)
    about = "" if np.isnan(half) else f"; 95 % about ±{half:.2f}"
    heading(ax, f"{METHOD_LABELS['static']}, by emotion (n{about})")


def _lag(ax, curves: pd.DataFrame, unit: str) -> None:
    _lines(ax, curves, "lag")
    zero(ax)
    zero(ax, horizontal=True)
    ax.set(xlabel=f"lag of the probability behind the intensity ({unit})",
           ylabel="mean r inside a clip")
    number = "no clip varies enough"
    if len(curves):
        number = f"{curves.clips.max()} clips, {curves.subjects.max()} people"
    heading(ax, f"Shifted in time ({number})")


def _follow(ax, follow: pd.DataFrame) -> None:
    """Draw a row an emotion, the first for all; hollow without an interval."""
    labels = present(follow.label, ("expressive", *EMOTION_COLOURS))
    methods = present(follow.method)
    for k, method in enumerate(methods):
        rows = follow[follow.method == method].set_index("label").reindex(labels)
        y = np.arange(len(labels)) + (k - (len(methods) - 1) / 2) * 0.36
        ax.barh(y, rows.null_95 - rows.null, 0.3, rows.null, color=style.NULL_COLOUR,
                edgecolor=GREY, linewidth=0.5)
        for at, r in zip(y, rows.to_dict("records"), strict=True):
            point(ax, at, r["mean"], r["low"], r["high"], METHOD_COLOURS[method],
                  METHOD_MARKERS[method], filled=pd.notna(r["low"]))
    zero(ax)
    n = follow.groupby("label")[["clips", "subjects"]].max()
    names = [f"{name} ({n.clips[name]}, {n.subjects[name]})" for name in labels]
    ax.set_yticks(range(len(labels)), [name.replace("expressive", "all") for name in names])
    ax.invert_yaxis()
    ax.set_xlabel("r with the true intensity")
    heading(ax, "Inside a clip (n clips, people)")


def gains(table: pd.DataFrame, note: str = "") -> Figure:
    """Draw recall on clips without and with photos, and the gain, of `gain_by_emotion`."""
    names, methods = present(table.label, EMOTION_COLOURS), list(dict.fromkeys(table.method))
    fig, (left, right) = figure(style.PAGE, 0.8 + 0.3 * len(names), 1, 2, sharey=True)
    for r in table.itertuples():
        y = names.index(r.label) + (methods.index(r.method) - (len(methods) - 1) / 2) * 0.34
        colour, marker = METHOD_COLOURS[r.method], METHOD_MARKERS[r.method]
        left.hlines(y, r.without, r.recall, color=colour, linewidth=0.8)
        left.plot(r.without, y, METHOD_MARKERS["dynamic"], color=METHOD_COLOURS["dynamic"],
                  markersize=3)
        left.plot(r.recall, y, marker, color=colour, markersize=4)
        point(right, y, r.gain, r.low, r.high, colour, marker, filled=r.p_holm <= style.LEVEL)
    n = table.groupby("label")[["samples", "people"]].max()
    left.set_yticks(range(len(names)), [f"{m} ({n.samples[m]}, {n.people[m]})" for m in names])
    left.invert_yaxis()
    left.set_xlabel("recall on clips (%)")
    heading(left, "Without and with photos (n clips, people)")
    zero(right)
    right.set_xlabel("gain over dynamic only (points)")
    heading(right, "Paired difference, 95 %; filled: significant (Holm)")
    legend(fig, [key(METHOD_LABELS[m], marker=METHOD_MARKERS[m], color=METHOD_COLOURS[m])
                 for m in ("dynamic", *methods)])
    return style.stamp(fig, note)
