"""What a panel is: controls, and a figure of which every move changes what is drawn."""
from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import Image, display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...faces.renderer import one_thread
from .style import PAGE, figure, show


@dataclass(frozen=True)
class Control:
    """A number from `low` to `high`, whole where `step` is, or one of `options`."""

    label: str
    value: object
    low: float = 0
    high: float = 200
    step: float = 1
    options: Sequence = ()

    def widget(self):
        """Make the slider or the menu."""
        look = dict(description=self.label, style={"description_width": "140px"},
                    layout=widgets.Layout(width="345px"))
        if self.options:
            return widgets.Dropdown(options=self.options, value=self.value, **look)
        kind = widgets.FloatSlider if isinstance(self.step, float) else widgets.IntSlider
        return kind(self.value, min=self.low, max=self.high, step=self.step, **look)


class Panel:
    """Controls above a figure that follows them.

    Widgets are made only where somebody sits at the notebook; papermill gets a picture.

    Args:
        fig: the figure; its layout is settled by the first picture.
        draw: changes the figure, given the value of each control by name.
        presets: name of a control -> function of its value that gives values of others.
    """

    def __init__(self, fig: Figure, draw: Callable, controls: dict[str, Control],
                 presets: dict[str, Callable] | None = None):
        self.fig, self.draw, self.controls = fig, draw, controls
        self.presets = presets or {}
        FigureCanvasAgg(fig)
        fig.set_dpi(110)

    @torch.no_grad()
    def png(self, **changed) -> bytes:
        """Draw the picture at the controls' first values, but for those that are given."""
        first = {name: control.value for name, control in self.controls.items()}
        with one_thread():                                # more threads would only wait
            self.draw(**first | changed)
        buffer = io.BytesIO()
        self.fig.savefig(buffer, format="png", dpi=110, pil_kwargs={"compress_level": 1})
        self.fig.set_layout_engine("none")
        return buffer.getvalue()

    def box(self) -> widgets.VBox:
        """Make the widgets: controls in rows above the picture."""
        made = {name: control.widget() for name, control in self.controls.items()}
        view = widgets.Image(format="png", width=int(110 * self.fig.get_figwidth()))
        busy = []

        def moved(change) -> None:
            if busy:                                      # a preset moves several, and draws once
                return
            busy.append(True)
            try:
                name = next(n for n, w in made.items() if w is change["owner"])
                preset = self.presets[name](change["new"]) if name in self.presets else {}
                for other, value in preset.items():
                    made[other].value = value
                view.value = self.png(**{n: w.value for n, w in made.items()})
            finally:
                busy.clear()                              # a failing picture must not freeze them

        for widget in made.values():
            widget.observe(moved, "value")
        view.value = self.png()
        rows = widgets.Box(list(made.values()), layout=widgets.Layout(flex_flow="row wrap"))
        return widgets.VBox([rows, view])

    def _ipython_display_(self) -> None:
        display(self.box() if attended() else Image(self.png(), format="png"))


def attended() -> bool:
    """Tell whether somebody sits at the notebook: batch runs announce that nobody can answer."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


def put(ax, pixels, title: str = "") -> None:
    """Show uint8 or floats in 0..1 `[3, H, W]`; later pictures replace the first."""
    if not ax.images:
        show(pixels, ax, title or " ")
    pixels = np.asarray(pixels).transpose(1, 2, 0)
    ax.images[0].set_data(pixels if pixels.dtype == np.uint8 else pixels.clip(0, 1))
    ax.title.set_text(title)


def strip(height: float, ratio: float, pictures: int, charts: int):
    """A page-wide figure with a row of pictures above a row of charts."""
    fig, blank = figure(PAGE, height)
    blank.remove()
    top, bottom = fig.add_gridspec(2, 1, height_ratios=[ratio, 1])
    return (fig, [fig.add_subplot(cell) for cell in top.subgridspec(1, pictures, wspace=0.05)],
            [fig.add_subplot(cell) for cell in bottom.subgridspec(1, charts, wspace=0.08)])
