"""What all figures share: widths, colours of methods, tasks and emotions, marks and their names."""
from collections.abc import Iterable
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import isotonic_regression

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, PAGE = 3.5, 7.16         # inches: one column and two columns of an IEEE page
SMALL = 6.5                      # points: the smallest letters
LEVEL = 0.05                     # of Holm-corrected p up to which a difference is significant

METHOD_LABELS = {"dynamic": "Dynamic only", "static": "Static only", "multitask": "Multi-task",
                 "adapters": "Adapters, no routing", "s4d": "S4D (MoAE)"}
# Okabe and Ito's palette for methods and tasks, Tol's muted one for emotions: no hue means two
# things. Some are alike in grey print, so methods also have a marker and a dash of their own.
METHOD_COLOURS = {"dynamic": "#0072B2", "static": "#E69F00", "multitask": "#222222",
                  "adapters": "#56B4E9", "s4d": "#D55E00"}
METHOD_MARKERS = {"dynamic": "s", "static": "v", "multitask": "D", "adapters": "^", "s4d": "o"}
METHOD_DASHES = {"dynamic": (0, (5, 1.5)), "static": (0, (1, 1)), "multitask": (0, (4, 1, 1, 1)),
                 "adapters": (0, (2, 1)), "s4d": "-"}
TASK_COLOURS = {"image": "#E69F00", "video": "#0072B2"}      # those of the single-task methods
TASK_MARKERS = {"image": "v", "video": "s"}
TASK_LABELS = {"image": "static (photos)", "video": "dynamic (clips)"}
KINDS = {"image": "photos", "video": "clips"}
STARTS = {False: "from scratch", True: "pre-trained"}
GREY, NULL_COLOUR = "#666666", "#BBBBBB"                     # of baselines; of null models
EMOTION_COLOURS = {
    "neutral": "#999999", "happiness": "#999933", "sadness": "#332288", "surprise": "#44AA99",
    "fear": "#AA4499", "disgust": "#117733", "anger": "#882255", "contempt": "#CC6677",
    "anxiety": "#88CCEE", "helplessness": "#DDCC77", "disappointment": "#661100"}


def figure(width: float = COLUMN, height: float = 2.2, nrows: int = 1, ncols: int = 1, **kwargs):
    """Make a figure in the paper's style, inches; returns it and its axes as `subplots` does."""
    matplotlib.style.use(STYLE)      # for good: titles, legends and saving read the settings later
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(nrows, ncols, **kwargs)


def stamp(fig: Figure, text: str) -> Figure:
    """Write a small grey line at the bottom: which data, profile and seeds the figure shows."""
    fig.supxlabel(text, fontsize=SMALL, color="#777777", x=0.995, ha="right")
    return fig


def show(picture, ax, title: str = "") -> None:
    """Draw a picture, uint8 or 0..1 `[3, H, W]`, without axes."""
    pixels = np.asarray(picture).transpose(1, 2, 0)
    ax.imshow(pixels if pixels.dtype == np.uint8 else pixels.clip(0, 1))
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=7, fontweight="normal", loc="center", pad=2)


def number(value: float, low: float = np.nan, high: float = np.nan, form: str = ".1f") -> str:
    """Write a number, and its interval if known: `+3.2 [+1.0, +5.5]`. A rounded 0 has no sign."""
    if np.isnan(value):
        return "--"
    text = f"{value:{form}}"
    text = text.lstrip("+-") if float(text) == 0 else text
    if not (np.isnan(low) or np.isnan(high)):
        text += f" [{low:{form}}, {high:{form}}]"
    return text.replace("-", "\N{MINUS SIGN}")


def key(label: str, **drawn) -> Line2D:
    """Make an entry of a legend; by default a black mark without a line."""
    drawn = dict(color="#222222", linestyle="none", markersize=4) | drawn
    return Line2D([], [], label=label, **drawn)


def present(values, order: Iterable[str] = METHOD_LABELS) -> list[str]:
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


def name_lines(ax, ends: dict[str, float | tuple[float, float]],
               colours: dict[str, str] | None = None) -> None:
    """Write names to the right of an axes, apart, each joined to its end by a thin line.

    An end is the height at which a line leaves the axes, or a point (x, y); data units.
    """
    bottom, top = ax.get_ylim()
    side, tall = ax.get_yaxis_transform(), top - bottom
    heights = np.array([np.ravel(end)[-1] for end in ends.values()])
    order = np.argsort(heights, kind="stable")
    steps, places = 0.085 * tall * np.arange(len(heights)), np.empty(len(heights))
    apart = isotonic_regression(heights[order] - steps).x       # no two nearer than a step
    places[order] = np.clip(apart, bottom + 0.03 * tall, top - steps[-1]) + steps
    for (name, end), place in zip(ends.items(), places, strict=True):
        line = dict(arrowstyle="-", linewidth=0.5, color=(colours or {}).get(name, "#888888"),
                    shrinkA=0, shrinkB=0, relpos=(0, 0.5))
        at = (end, ax.transData) if np.ndim(end) else ((1.01, end), side)
        ax.annotate(name, at[0], (1.07, place), at[1], side, fontsize=SMALL, va="center",
                    annotation_clip=False, arrowprops=line)
