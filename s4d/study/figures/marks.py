"""Marks that many figures share: numbers as text, points with intervals, names beside lines."""
from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from .style import METHOD_COLOURS, METHOD_DASHES, METHOD_MARKERS, METHOD_NAMES, SMALL


def number(value: float, low: float = np.nan, high: float = np.nan, form: str = ".1f") -> str:
    """Write a number, and its interval if known: `+3.2 [+1.0, +5.5]`. A rounded 0 has no sign."""
    text = f"{value:{form}}"
    text = text.lstrip("+-") if float(text) == 0 else text
    if not (np.isnan(low) or np.isnan(high)):
        text += f" [{low:{form}}, {high:{form}}]"
    return text.replace("-", "\N{MINUS SIGN}")


def ranged(row, value: str = "value", form: str = ".2f", low: str = "low", high: str = "high",
           scale: float = 1) -> str:
    """Write a table's number with its interval, by the names of their columns."""
    row = row if isinstance(row, pd.Series) else row._asdict()
    return number(*(scale * float(row[name]) for name in (value, low, high)), form)


def key(label: str, **drawn) -> Line2D:
    """Make an entry of a legend; by default a black mark without a line."""
    drawn = dict(color="#222222", linestyle="none", markersize=4) | drawn
    return Line2D([], [], label=label, **drawn)


def present(values, order: Iterable[str] = METHOD_NAMES) -> list[str]:
    """Those names of an order, by default of the methods, that a column has."""
    values = set(values)
    return [name for name in order if name in values]


def legend(fig: Figure, handles: list, ncols: int = 4) -> None:
    """Put a legend of small letters above all axes."""
    fig.legend(handles=handles, loc="outside upper center", ncols=ncols, fontsize=SMALL,
               handletextpad=0.4)


def heading(ax, text: str, size: float = 7.5, **how) -> None:
    """Title an axes in letters smaller than the style's; plain ones below 7.5 points."""
    ax.set_title(text, fontsize=size, fontweight="bold" if size > 7 else "normal", **how)


def look(method: str) -> dict[str, object]:
    """Colour, dash and marker of a method, as `plot` takes them."""
    return dict(color=METHOD_COLOURS[method], linestyle=METHOD_DASHES[method],
                marker=METHOD_MARKERS[method])


def point(ax, at: float, value: float, low: float, high: float, colour: str, marker: str = "o",
          filled: bool = True, vertical: bool = False) -> None:
    """Draw a value with its interval at a place of the other axis; hollow unless `filled`."""
    bar, mark = ([low, high], [at, at]), (value, at)
    if vertical:
        bar, mark = bar[::-1], mark[::-1]
    ax.plot(*bar, color=colour, linewidth=1.1, solid_capstyle="butt", zorder=2)
    ax.plot(*mark, marker, color=colour, markersize=4.2, markeredgewidth=0.9, zorder=3,
            markerfacecolor=colour if filled else "white")


def zero(ax, horizontal: bool = False) -> None:
    """Draw a thin grey line at 0."""
    (ax.axhline if horizontal else ax.axvline)(0, color="#aaaaaa", linewidth=0.6, zorder=0)


def spread(values, gap: float, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Move values so that no two are nearer than `gap`; order and, within limits, means stay."""
    values = np.asarray(values, float)
    order = np.argsort(values, kind="stable")
    groups: list[list[float]] = []                      # [mean place, members]
    for v in values[order]:
        groups.append([v, 1])
        while len(groups) > 1:
            (a, n), (b, m) = groups[-2:]
            if b - a >= gap * (m + n) / 2:
                break
            groups[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    places = [mean + gap * (np.arange(n) - (n - 1) / 2) for mean, n in groups]
    places = np.concatenate([*places, []])
    rank, out = np.arange(len(places)), np.empty_like(values)
    out[order] = np.maximum(np.minimum(places, high - gap * rank[::-1]), low + gap * rank)
    return out


def name_lines(ax, ends: dict[str, float], colours: dict[str, str] | None = None) -> None:
    """Write names beside the right ends of lines, apart, each joined to its end by a thin line."""
    bottom, top = ax.get_ylim()
    side, tall = ax.get_yaxis_transform(), top - bottom
    places = spread(list(ends.values()), 0.085 * tall, bottom + 0.03 * tall, top)
    for (name, value), place in zip(ends.items(), places, strict=True):
        line = dict(arrowstyle="-", linewidth=0.5, color=(colours or {}).get(name, "#888888"),
                    shrinkA=0, shrinkB=0, relpos=(0, 0.5))
        ax.annotate(name, (1.01, value), (1.07, place), side, side, fontsize=SMALL, va="center",
                    annotation_clip=False, arrowprops=line)


def label_points(ax, points: np.ndarray, labels: list[tuple[str, tuple[float, float]]]) -> None:
    """Write names where they cover neither a point nor each other: the nearest free place wins.

    Call it when the axes have their final limits and place.

    Args:
        points: all points that stay uncovered `[n, 2]`, data units; labels: (text, point).
    """
    scale = ax.figure.dpi / 72                                          # pixels in a point
    pixels = ax.transData.transform(np.asarray(points, float))
    inside, taken = ax.get_window_extent(), []
    line = dict(arrowstyle="-", linewidth=0.4, shrinkA=0, shrinkB=2)
    ways = [(np.cos(a), np.sin(a)) for a in np.arange(8) * np.pi / 4]
    for text, at in labels:
        note = ax.annotate(text, at, (0, 0), textcoords="offset points", ha="center", va="center",
                           fontsize=SMALL, arrowprops=line)
        note.set_in_layout(False)                                       # or the axes move again
        box = Bbox(note.get_window_extent().get_points())
        half, best = np.array([box.width, box.height]) / 2, None
        for distance, way in product(range(1, 12), ways):
            shift = (half + 3 * distance * scale) * way
            moved = box.translated(*shift)
            out = not (inside.contains(*moved.p0) and inside.contains(*moved.p1))
            crossed = moved.padded(2 * scale).count_contains(pixels)
            crossed += 3 * (moved.count_overlaps(taken) + out)
            if best is None or crossed < best[0]:
                best = crossed, shift, moved
        note.set_position(best[1] / scale)
        taken.append(best[2].padded(scale))
