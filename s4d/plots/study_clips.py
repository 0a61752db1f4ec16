"""Figures along clips and by emotion: the photo head on single frames, and which emotions profit from photos."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .study_correlation import SHORT, _p
from .study_experts import NULL, SMALL, tag
from .style import EMOTION_COLOURS, METHOD_COLOURS, METHOD_LABELS, METHOD_NAMES, PAGE, figure, label_points, stamp


def along_clip(courses: pd.DataFrame, follow: pd.DataFrame, curves: pd.DataFrame, unit: str, note: str = "") -> Figure:
    """The photo head read along the frames of clips: mean course, by emotion, correlation inside a clip, lag.

    Args:
        courses: of `analysis.confusions.course` with a column method.
        follow: of `analysis.confusions.follow` with a column method; empty where no truth is known.
        curves: of `analysis.confusions.lagged` with a column method; empty where no truth is known.
        unit: of time, "s" or "frames".
    """
    known = len(follow) > 0
    fig, axes = figure(PAGE, 4.3 if known else 2.4, 1 + known, 2, squeeze=False)
    _course(axes[0, 0], courses)
    _by_emotion(axes[0, 1], courses)
    for ax in axes[0]:
        ax.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
        ax.set_xlabel(f"time from the {'apex' if known else 'middle'} ({unit})")
        ax.set_ylabel("probability of the true class", fontsize=7)
    if known:
        axes[0, 0].set_ylabel("probability of the true class;\nintensity (dashed)", fontsize=7)     # which may exceed 1
    handles = [*axes[0, 0].get_legend_handles_labels()[0], Patch(color="#888888", alpha=0.3, label="95 % interval over people")]
    if known:
        _follow(axes[1, 0], follow)
        _lag(axes[1, 1], curves, unit)
        handles.append(Line2D([], [], linestyle="", marker="|", color=NULL, markersize=6, markeredgewidth=1.5,
                              label="with another clip's intensity"))
    fig.legend(handles=handles, loc="outside upper center", ncols=5, fontsize=SMALL)
    stamp(fig, note)
    return fig


def _course(ax, courses: pd.DataFrame) -> None:
    part = courses[courses.label == "expressive"]
    truth = part[part.quantity == "intensity"].drop_duplicates("time").sort_values("time")
    if len(truth):
        ax.plot(truth.time, truth["mean"], "--", color="#888888", label="true intensity")
    for method, style in zip([m for m in METHOD_NAMES if m in set(courses.method)], ("-", "-.")):
        own = part[(part.method == method) & (part.quantity == "probability")].sort_values("time")
        ax.fill_between(own.time, own.low, own.high, color=METHOD_COLOURS[method], alpha=0.2, linewidth=0)
        ax.plot(own.time, own["mean"], style, color=METHOD_COLOURS[method], label=METHOD_LABELS[method])
    ax.set_ylim(0, None)
    ax.set_title(f"All but neutral ({part.samples.max()} clips, {part.subjects.max()} people)", fontsize=7.5)


def _by_emotion(ax, courses: pd.DataFrame) -> None:
    first = courses[(courses.method == "static") & (courses.quantity == "probability") & (courses.label != "expressive")]
    ends, half = [], ((first.high - first.low) / 2).median()
    for label, part in first.groupby("label", sort=False):
        part = part.sort_values("time")
        ax.plot(part.time, part["mean"], color=EMOTION_COLOURS[label])
        ends.append((part["mean"].iloc[-1], f"{label} ({part.samples.max()})", part.time.iloc[-1], EMOTION_COLOURS[label]))
    ax.set_ylim(0, 1.15 * ax.get_ylim()[1])
    _direct_labels(ax, ends)
    ax.set_title(f"{METHOD_LABELS['static']}, by emotion (n clips)", fontsize=7.5)
    if not np.isnan(half):
        tag(ax, f"95 % interval ±{half:.2f} (median)", 0.02, 0.98)


def _lag(ax, curves: pd.DataFrame, unit: str) -> None:
    for method, style in zip([m for m in METHOD_NAMES if m in set(curves.method)], ("o-", "s-.")):
        part = curves[curves.method == method].sort_values("lag")
        ax.fill_between(part.lag, part.low, part.high, color=METHOD_COLOURS[method], alpha=0.2, linewidth=0)
        ax.plot(part.lag, part["mean"], style, markersize=3, color=METHOD_COLOURS[method])
    ax.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
    ax.axhline(0, color="#cccccc", linewidth=0.6, zorder=0)
    ax.set_xlabel(f"lag of the probability behind the intensity ({unit})")
    ax.set_ylabel("mean r inside a clip")
    number = f"{curves.clips.max()} clips, {curves.subjects.max()} people" if len(curves) else "no clip varies enough"
    ax.set_title(f"Lag ({number})", fontsize=7.5)


def _direct_labels(ax, ends: list[tuple[float, str, float, str]]) -> None:
    """Names at the right ends of lines, pushed apart so that none overlap."""
    low, high = 0.0, ax.get_ylim()[1]
    gap, y = 0.075 * (high - low), low - 0.02 * (high - low)      # the lowest name stays clear of the axis
    right = max(t for *_, t, _ in ends)
    for value, label, _, colour in sorted(ends):
        y = max(value, y + gap)
        ax.annotate(label, (right, y), xytext=(3, 0), textcoords="offset points", fontsize=SMALL, va="center",
                    color=colour, annotation_clip=False)


def _follow(ax, follow: pd.DataFrame) -> None:
    labels = [n for n in EMOTION_COLOURS if n in set(follow.label)]
    methods = [m for m in METHOD_NAMES if m in set(follow.method)]
    for k, method in enumerate(methods):
        part = follow[follow.method == method].set_index("label").reindex(labels)
        y = np.arange(len(labels)) + (k - (len(methods) - 1) / 2) * 0.3
        ax.hlines(y, part.low, part.high, color=METHOD_COLOURS[method], linewidth=0.9)
        ax.plot(part["mean"], y, "os"[k % 2], markersize=3.5, color=METHOD_COLOURS[method])
        ax.plot(part.null, y, "|", color=NULL, markersize=6, markeredgewidth=1.5)
    ax.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
    clips = follow.groupby("label").clips.max()
    ax.set_yticks(range(len(labels)), [f"{n} ({clips[n]})" for n in labels])
    ax.invert_yaxis()
    ax.set_xlabel("r with the true intensity")
    ax.set_title("Inside a clip (n clips)", fontsize=7.5)


def gains(table: pd.DataFrame, points: pd.DataFrame, stats: pd.DataFrame, note: str = "") -> Figure:
    """Left: gain of recall on clips through photos, by emotion. Right: what the static network's error on an emotion foretells.

    Args:
        table: of `analysis.gains.gain_by_emotion`.
        points, stats: of `analysis.gains.foretold`.
    """
    outcomes = list(stats.outcome)
    fig, axes = figure(PAGE, 2.7, 1, 1 + len(outcomes), gridspec_kw=dict(width_ratios=[1.35, *[1] * len(outcomes)]))
    _gain(axes[0], table)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=SMALL, handletextpad=0.1)
    for ax, outcome in zip(axes[1:], outcomes):
        part, found = points[points.outcome == outcome], stats[stats.outcome == outcome].iloc[0]
        for label, at in zip(part.label, part[["static", "value"]].to_numpy()):
            ax.plot(*at, "o", color=EMOTION_COLOURS[label], markersize=4)
        name = METHOD_LABELS.get(outcome)
        numbers = f"ρ = {found.rho:.2f} [{found.low:.2f}, {found.high:.2f}]\n{_p(found.p)}, n = {found.emotions}".replace("-", "−")
        ax.set_title((f"Gain of {name}" if name else "Error on clips") + "\n" + numbers, fontsize=6.5, fontweight="normal")
        ax.set_ylabel("gain on clips (points)" if name else "error, dynamic only (%)", fontsize=7, labelpad=1)
        ax.set_xlabel("error on photos (%)")
        ax.margins(0.16)
    stamp(fig, note)
    fig.draw_without_rendering()         # fixes the axes, so that names can be placed between the points
    for ax, outcome in zip(axes[1:], outcomes):
        part = points[points.outcome == outcome]
        at = part[["static", "value"]].to_numpy()
        label_points(ax, at, [(SHORT[n], tuple(p), EMOTION_COLOURS[n]) for n, p in zip(part.label, at)], line=False)
    return fig


def _gain(ax, table: pd.DataFrame) -> None:
    names = [n for n in EMOTION_COLOURS if n in set(table.label)]
    for k, method in enumerate(dict.fromkeys(table.method)):
        part = table[table.method == method].set_index("label").reindex(names)
        y = np.arange(len(names)) + (k - 0.5) * 0.3
        ax.hlines(y, part.low, part.high, color=METHOD_COLOURS[method], linewidth=0.9)
        ax.plot(part.gain, y, "os"[k % 2], color=METHOD_COLOURS[method], markersize=3.5, label=METHOD_LABELS[method])
    size = table.groupby("label").samples.max()
    ax.axvline(0, color="#888888", linewidth=0.6, zorder=0)
    ax.set_yticks(range(len(names)), [f"{n} ({size[n]})" for n in names])
    ax.invert_yaxis()
    ax.set_xlabel("gain of recall over\ndynamic only (points)")
    ax.set_title(f"Clips (n; {table.people.max()} people)", fontsize=7.5)
