"""What all figures share: widths, one fixed colour per method, task and emotion, and the three helpers that draw with them."""
from __future__ import annotations

from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, PAGE = 3.5, 7.16         # inches: one column and two columns of an IEEE page

METHOD_NAMES = ("dynamic", "static", "multitask", "adapters", "s4d")
METHOD_LABELS = {"dynamic": "Dynamic only", "static": "Static only", "multitask": "Multi-task", "adapters": "Adapters, no routing",
                 "s4d": "S4D (MoAE)"}
# Okabe and Ito's palette: told apart by colour-blind readers; the order also differs in lightness, for grey print.
METHOD_COLOURS = {"dynamic": "#0072B2", "static": "#E69F00", "multitask": "#666666", "adapters": "#56B4E9", "s4d": "#D55E00"}
TASK_COLOURS = {"image": "#E69F00", "video": "#0072B2"}
TASK_LABELS = {"image": "static (photos)", "video": "dynamic (clips)"}
EMOTION_COLOURS = {
    "neutral": "#7F7F7F", "happiness": "#E69F00", "sadness": "#0072B2", "surprise": "#56B4E9", "fear": "#332288",
    "disgust": "#009E73", "anger": "#D55E00", "contempt": "#CC79A7", "anxiety": "#88CCEE", "helplessness": "#AA4499",
    "disappointment": "#999933"}


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
    fig.supxlabel(text, fontsize=6, color="#777777", x=0.995, ha="right")


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
