"""What all figures share: widths, and a fixed colour per method, task and emotion."""
from __future__ import annotations

from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, PAGE = 3.5, 7.16         # inches: one column and two columns of an IEEE page
SMALL = 6.5                      # points: the smallest letters
LEVEL = 0.05                     # of Holm-corrected p up to which a difference is significant

METHOD_NAMES = ("dynamic", "static", "multitask", "adapters", "s4d")
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
EMOTION_MARKERS = dict(zip(EMOTION_COLOURS, "osDX^vP<>*h", strict=True))


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
