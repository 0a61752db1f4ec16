"""Figures along clips and by emotion: the photo head on single frames, and which emotions profit from photos."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .style import (EMOTION_COLOURS, EMOTION_MARKERS, METHOD_COLOURS, METHOD_LABELS, METHOD_MARKERS, METHOD_NAMES, NULL_COLOUR, PAGE, SMALL,
                    figure, look, spread, stamp)


def along_clip(courses: pd.DataFrame, follow: pd.DataFrame, curves: pd.DataFrame, unit: str, note: str = "") -> Figure:
    """The photo head read along the frames of clips: mean course, by emotion, correlation inside a clip, lag.

    Args:
        courses: of `study.confusions.course` with a column method.
        follow: of `study.confusions.follow` with a column method; empty where no truth is known.
        curves: of `study.confusions.lagged` with a column method; empty where no truth is known.
        unit: of time, "s" or "frames".
    """
    known = len(follow) > 0
    fig, axes = figure(PAGE, 4.6 if known else 2.6, 1 + known, 2, squeeze=False)
    _course(axes[0, 0], courses)
    _by_emotion(axes[0, 1], courses)
    for ax in axes[0]:
        ax.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
        ax.set_xlabel(f"time from the {'apex' if known else 'middle'} ({unit})")
        ax.set_ylabel("probability of the true class", fontsize=7)
    methods = [m for m in METHOD_NAMES if m in set(courses.method)]
    handles = [Line2D([], [], **look(m), markersize=4, label=METHOD_LABELS[m]) for m in methods]
    handles.append(Patch(color=METHOD_COLOURS[methods[0]], alpha=0.25, label=f"95 % interval of {METHOD_LABELS[methods[0]]}"))
    if known:
        axes[0, 0].set_ylabel("probability; intensity\n(1: a full expression)", fontsize=7)
        _follow(axes[1, 0], follow)
        _lag(axes[1, 1], curves, unit)
        handles.insert(0, Line2D([], [], linestyle="--", color="#666666", label="true intensity"))
        handles.append(Patch(facecolor=NULL_COLOUR, edgecolor="#666666", linewidth=0.5, label="another person's clip, mean to 95 %"))
    fig.legend(handles=handles, loc="outside upper center", ncols=5, fontsize=SMALL)
    stamp(fig, note)
    return fig


def _lines(ax, table: pd.DataFrame, along: str) -> None:
    """One line a method, a band about the first alone: those of two that lie upon each other would cover one another."""
    for k, method in enumerate(m for m in METHOD_NAMES if m in set(table.method)):
        own = table[table.method == method].sort_values(along)
        if k == 0:
            ax.fill_between(own[along].astype(float), own.low.astype(float), own.high.astype(float), color=METHOD_COLOURS[method], alpha=0.25,
                            linewidth=0)
        ax.plot(own[along], own["mean"], **look(method), markersize=3)


def _course(ax, courses: pd.DataFrame) -> None:
    part = courses[courses.label == "expressive"]
    truth = part[part.quantity == "intensity"].drop_duplicates("time").sort_values("time")
    if len(truth):
        ax.plot(truth.time, truth["mean"], "--", color="#666666")
    _lines(ax, part[part.quantity == "probability"], "time")
    ax.set_ylim(0, None)
    ax.set_title(f"All but neutral ({part.samples.max()} clips, {part.subjects.max()} people)", fontsize=7.5)


def _by_emotion(ax, courses: pd.DataFrame) -> None:
    first = courses[(courses.method == "static") & (courses.quantity == "probability") & (courses.label != "expressive")]
    ends, half = [], ((first.high - first.low) / 2).astype(float).median()
    for label in [n for n in EMOTION_COLOURS if n in set(first.label)]:
        part = first[first.label == label].sort_values("time")
        ax.plot(part.time, part["mean"], color=EMOTION_COLOURS[label], marker=EMOTION_MARKERS[label], markersize=3)
        ends.append((part["mean"].iloc[-1], f"{label} ({part.samples.max()})", part.time.iloc[-1]))
    ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
    _direct_labels(ax, ends)
    about = "" if np.isnan(half) else f"; 95 % about ±{half:.2f}"
    ax.set_title(f"{METHOD_LABELS['static']}, by emotion (n{about})", fontsize=7.5)


def _direct_labels(ax, ends: list[tuple[float, str, float]]) -> None:
    """Names beside the right ends of lines, pushed apart so that none overlap, each with a thin line to its own."""
    if not ends:
        return
    height, (left, right) = ax.get_ylim()[1], ax.get_xlim()
    places = spread([value for value, *_ in ends], 0.085 * height, 0.03 * height, height)       # the lowest name stays clear of the axis
    for (value, label, time), place in zip(ends, places):
        ax.annotate(label, (time, value), (right + 0.04 * (right - left), place), fontsize=SMALL, va="center", annotation_clip=False,
                    arrowprops=dict(arrowstyle="-", linewidth=0.4, color="#888888", shrinkA=0, shrinkB=0, relpos=(0, 0.5)))


def _lag(ax, curves: pd.DataFrame, unit: str) -> None:
    _lines(ax, curves, "lag")
    ax.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
    ax.axhline(0, color="#cccccc", linewidth=0.6, zorder=0)
    ax.set_xlabel(f"lag of the probability behind the intensity ({unit})")
    ax.set_ylabel("mean r inside a clip")
    number = f"{curves.clips.max()} clips, {curves.subjects.max()} people" if len(curves) else "no clip varies enough"
    ax.set_title(f"Shifted in time ({number})", fontsize=7.5)


def _follow(ax, follow: pd.DataFrame) -> None:
    """One row an emotion, the first for all; hollow where there are too few people for an interval."""
    labels = [n for n in ("expressive", *EMOTION_COLOURS) if n in set(follow.label)]
    methods = [m for m in METHOD_NAMES if m in set(follow.method)]
    for k, method in enumerate(methods):
        part = follow[follow.method == method].set_index("label").reindex(labels)
        y = np.arange(len(labels)) + (k - (len(methods) - 1) / 2) * 0.36
        ax.barh(y, part.null_95 - part.null, 0.3, part.null, color=NULL_COLOUR, edgecolor="#666666", linewidth=0.5)
        ax.hlines(y, part.low, part.high, color=METHOD_COLOURS[method], linewidth=1)
        for at, mean, sure in zip(y, part["mean"], part.low.notna()):
            ax.plot(mean, at, color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method], markersize=4,
                    markerfacecolor=METHOD_COLOURS[method] if sure else "white")
    ax.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
    about = follow.groupby("label")[["clips", "subjects"]].max()
    ax.set_yticks(range(len(labels)), [f"{'all' if n == 'expressive' else n} ({about.clips[n]}, {about.subjects[n]})" for n in labels])
    ax.invert_yaxis()
    ax.set_xlabel("r with the true intensity")
    ax.set_title("Inside a clip (n clips, people)", fontsize=7.5)


def gains(table: pd.DataFrame, note: str = "") -> Figure:
    """Left: recall on clips without and with photos in training, by emotion. Right: the paired difference with its interval.

    Args:
        table: of `study.gains.gain_by_emotion`.
    """
    names, methods = [n for n in EMOTION_COLOURS if n in set(table.label)], list(dict.fromkeys(table.method))
    fig, (left, right) = figure(PAGE, 0.8 + 0.3 * len(names), 1, 2, sharey=True)
    for k, method in enumerate(methods):
        part = table[table.method == method].set_index("label").reindex(names)
        y, colour = np.arange(len(names)) + (k - (len(methods) - 1) / 2) * 0.34, METHOD_COLOURS[method]
        left.hlines(y, part.without, part.recall, color=colour, linewidth=0.8)
        left.plot(part.without, y, METHOD_MARKERS["dynamic"], color=METHOD_COLOURS["dynamic"], markersize=3)
        left.plot(part.recall, y, METHOD_MARKERS[method], color=colour, markersize=4)
        right.hlines(y, part.low, part.high, color=colour, linewidth=1)
        for at, gain, p in zip(y, part.gain, part.p_holm):
            right.plot(gain, at, METHOD_MARKERS[method], color=colour, markersize=4.5, markerfacecolor=colour if p <= 0.05 else "white")
    about = table.groupby("label")[["samples", "people"]].max()
    left.set_yticks(range(len(names)), [f"{n} ({about.samples[n]}, {about.people[n]})" for n in names])
    left.invert_yaxis()
    left.set_xlabel("recall on clips (%)")
    left.set_title("Without and with photos (n clips, people)", fontsize=7.5)
    right.axvline(0, color="#888888", linewidth=0.6, zorder=0)
    right.set_xlabel("gain over dynamic only (points)")
    right.set_title("Paired difference, 95 %; filled: outlasts Holm", fontsize=7.5)
    handles = [Line2D([], [], linestyle="", marker=METHOD_MARKERS[m], color=METHOD_COLOURS[m], markersize=4, label=METHOD_LABELS[m])
               for m in ("dynamic", *methods)]
    fig.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=SMALL, handletextpad=0.1)
    stamp(fig, note)
    return fig
