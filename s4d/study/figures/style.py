"""What all figures share: widths, one fixed colour per method, task and emotion, and the helpers that draw with them."""
from __future__ import annotations

from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, PAGE = 3.5, 7.16         # inches: one column and two columns of an IEEE page
SMALL = 6.5                      # points: the smallest letters

METHOD_NAMES = ("dynamic", "static", "multitask", "adapters", "s4d")
METHOD_LABELS = {"dynamic": "Dynamic only", "static": "Static only", "multitask": "Multi-task", "adapters": "Adapters, no routing",
                 "s4d": "S4D (MoAE)"}
# Okabe and Ito's palette for methods and tasks, Tol's muted one for emotions: no hue means two things, colour-blind readers tell each set
# apart. In grey print some are alike, so methods also have a marker and a dash of their own.
METHOD_COLOURS = {"dynamic": "#0072B2", "static": "#E69F00", "multitask": "#222222", "adapters": "#56B4E9", "s4d": "#D55E00"}
METHOD_MARKERS = {"dynamic": "s", "static": "v", "multitask": "D", "adapters": "^", "s4d": "o"}
METHOD_DASHES = {"dynamic": (0, (5, 1.5)), "static": (0, (1, 1)), "multitask": (0, (4, 1, 1, 1)), "adapters": (0, (2, 1)), "s4d": "-"}
TASK_COLOURS = {"image": "#E69F00", "video": "#0072B2"}               # those of the methods that see this task alone
TASK_MARKERS = {"image": "v", "video": "s"}
TASK_LABELS = {"image": "static (photos)", "video": "dynamic (clips)"}
KINDS = {"image": "photos", "video": "clips"}                         # what a task is given
NULL_COLOUR = "#BBBBBB"                                               # of what chance would give
EMOTION_COLOURS = {
    "neutral": "#999999", "happiness": "#999933", "sadness": "#332288", "surprise": "#44AA99", "fear": "#AA4499",
    "disgust": "#117733", "anger": "#882255", "contempt": "#CC6677", "anxiety": "#88CCEE", "helplessness": "#DDCC77",
    "disappointment": "#661100"}
EMOTION_MARKERS = dict(zip(EMOTION_COLOURS, "osDX^vP<>*h"))

def figure(width: float = COLUMN, height: float = 2.2, nrows: int = 1, ncols: int = 1, **kwargs):
    """A figure in the paper's style.

    Args:
        width, height: inches; widths are COLUMN or PAGE.
        nrows, ncols, kwargs: of `Figure.subplots`.
    Returns:
        (figure, axes): one Axes, or an array of them as `subplots` gives it.
    """
    matplotlib.style.use(STYLE)      # for good: titles, legends and saving read the settings after this call
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(nrows, ncols, **kwargs)


def stamp(fig: Figure, text: str) -> None:
    """A small grey line at the bottom: which data, profile and seeds the figure shows."""
    fig.supxlabel(text, fontsize=SMALL, color="#777777", x=0.995, ha="right")


def show(picture, ax, title: str = "") -> None:
    """Draws one picture without axes.

    Args:
        picture: uint8 `[3, H, W]` or floats in 0..1 of the same shape (torch or numpy).
    """
    pixels = np.asarray(picture)
    ax.imshow(pixels.transpose(1, 2, 0) if pixels.dtype == np.uint8 else pixels.transpose(1, 2, 0).clip(0, 1))
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=7, fontweight="normal", loc="center", pad=2)


def look(method: str) -> dict[str, object]:
    """Colour, dash and marker of a method, as `plot` takes them."""
    return dict(color=METHOD_COLOURS[method], linestyle=METHOD_DASHES[method], marker=METHOD_MARKERS[method])


def spread(values, gap: float, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Places near the values, in their order, no two nearer than `gap`; groups that are pushed apart keep their mean, but within limits."""
    values = np.asarray(values, float)
    if not len(values):
        return values
    order = np.argsort(values, kind="stable")
    groups: list[list[float]] = []                      # [mean place, members]
    for v in values[order]:
        groups.append([v, 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (b, m), (a, n) = groups.pop(), groups.pop()
            groups.append([(a * n + b * m) / (n + m), n + m])
    places = np.concatenate([mean + gap * (np.arange(n) - (n - 1) / 2) for mean, n in groups])
    places = np.minimum(places, high - gap * np.arange(len(places))[::-1])
    out = np.empty_like(values)
    out[order] = np.maximum(places, low + gap * np.arange(len(places)))
    return out


def label_points(ax, points: np.ndarray, labels: list[tuple[str, tuple[float, float], str]], size: float = SMALL, line: bool = True) -> None:
    """Writes names where they cover neither a point nor each other: of the places around its point the nearest free one is taken.

    Call it when the axes have their final limits and place.

    Args:
        points: all points that stay uncovered `[n, 2]`, data units.
        labels: (text, point, colour) of those that are named.
        size: of the letters.
        line: whether a thin line leads from a name to its point.
    """
    scale = ax.figure.dpi / 72                                                        # pixels in a point
    pixels = ax.transData.transform(np.asarray(points, float))
    inside, taken = ax.get_window_extent(), []
    for text, at, colour in labels:
        arrow = dict(arrowstyle="-", linewidth=0.4, color=colour, shrinkA=0, shrinkB=2) if line else None
        note = ax.annotate(text, at, xytext=(0, 0), textcoords="offset points", ha="center", va="center", fontsize=size, color=colour,
                           arrowprops=arrow)
        note.set_in_layout(False)                                                     # else the axes would move once more
        box = Bbox(note.get_window_extent().get_points())
        best = None
        for distance in range(1, 12):
            for way in np.arange(8) * np.pi / 4:
                shift = (np.array([box.width, box.height]) / 2 + 3 * distance * scale) * (np.cos(way), np.sin(way))
                moved = box.translated(*shift)
                crossed = moved.padded(2 * scale).count_contains(pixels) + 3 * moved.count_overlaps(taken)
                crossed += 3 * (not (inside.contains(moved.x0, moved.y0) and inside.contains(moved.x1, moved.y1)))
                if best is None or crossed < best[0]:
                    best = crossed, shift, moved
        note.set_position(best[1] / scale)
        taken.append(best[2].padded(scale))
