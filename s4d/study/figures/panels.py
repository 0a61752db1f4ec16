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

DPI = 110


@dataclass(frozen=True)
class Control:
    """A number from `low` to `high`, whole where `step` is, or one of `options`."""

    label: str
    value: object
    low: float = 0
    high: float = 200
    step: float = 1
    options: Sequence = ()

    def widget(self) -> widgets.Widget:
        look = dict(description=self.label, style={"description_width": "140px"},
                    layout=widgets.Layout(width="345px"))
        if self.options:
            return widgets.Dropdown(options=self.options, value=self.value, **look)
        kind = widgets.FloatSlider if isinstance(self.step, float) else widgets.IntSlider
        return kind(self.value, min=self.low, max=self.high, step=self.step, **look)


class Panel:
    """Controls above a figure that follows them; papermill gets a picture without widgets.

    Args:
        fig: the figure; its layout is settled by the first picture.
        draw: changes the figure, given the value of each control by name.
        presets: name of a control -> function of its value that gives values of others.
    """

    def __init__(self, fig: Figure, draw: Callable, controls: dict[str, Control], **presets):
        self.fig, self.draw, self.controls, self.presets = fig, draw, controls, presets
        FigureCanvasAgg(fig)
        fig.set_dpi(DPI)

    @torch.no_grad()
    def png(self, **changed) -> bytes:
        """Draw the picture at the controls' first values, but for those that are given."""
        first = {name: control.value for name, control in self.controls.items()}
        with one_thread():
            self.draw(**first | changed)
        buffer = io.BytesIO()
        self.fig.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
        self.fig.set_layout_engine("none")
        return buffer.getvalue()

    def box(self) -> widgets.VBox:
        """Make the widgets: controls in rows above the picture."""
        made = {name: control.widget() for name, control in self.controls.items()}
        view = widgets.Image(format="png", width=int(DPI * self.fig.get_figwidth()))
        busy = []

        def moved(change) -> None:
            if busy:                                      # a preset moves several, and draws once
                return
            busy.append(True)
            try:
                for name, preset in self.presets.items():
                    if made[name] is change["owner"]:
                        for other, value in preset(change["new"]).items():
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
        """Show widgets where somebody sits: batch runs announce that nobody can answer."""
        kernel = getattr(get_ipython(), "kernel", None)
        request = kernel.get_parent("shell").get("content", {}) if kernel else {}
        live = request.get("allow_stdin")
        display(self.box() if live else Image(self.png(), format="png"))


def put(ax, pixels, title: str = "") -> None:
    """Show uint8 or floats in 0..1 `[3, H, W]`; later pictures replace the first."""
    if not ax.images:
        show(pixels, ax, title or " ")
    pixels = np.asarray(pixels).transpose(1, 2, 0)
    ax.images[0].set_data(pixels if pixels.dtype == np.uint8 else pixels.clip(0, 1))
    ax.title.set_text(title)


def strip(height: float, ratio: float, pictures: int, charts: int):
    """Make a page-wide figure with a row of pictures above a row of charts."""
    fig, blank = figure(PAGE, height)
    blank.remove()
    top, bottom = fig.add_gridspec(2, 1, height_ratios=[ratio, 1])
    return (fig, [fig.add_subplot(cell) for cell in top.subgridspec(1, pictures, wspace=0.05)],
            [fig.add_subplot(cell) for cell in bottom.subgridspec(1, charts, wspace=0.08)])
