"""Sliders that move one face, for JupyterLab."""
from __future__ import annotations

import io

from PIL import Image

from ..emotions import EMOTIONS
from . import facs, people, render, views

# Every action that takes part in one of the seven emotions, so that each prototype can be set by hand.
SLIDERS = tuple(sorted({a for e in EMOTIONS for a, *_ in (*facs.PROTOTYPES[e], *facs.ALTERNATIVES.get(e, ()))}))


def portrait(person: dict, spec: dict, yaw: float = 0.0, pitch: float = 0.0, size: int = 160) -> Image.Image:
    """One face as a picture.

    Args:
        person: of `people`.
        spec: actions as `facs.sheet` reads them.
        yaw, pitch: degrees.
        size: pixels a side.
    """
    pixels = render(person, facs.sheet(spec)[None], views(1, yaw, pitch), size)[0]
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def panel(person: dict | None = None, actions: tuple[int, ...] = SLIDERS, size: int = 160):
    """A face and a slider for each action and for the pose.

    Where no front end shows widgets (a notebook run by papermill), nothing moves; show `portrait` beside it.

    Args:
        person: of `people`; None draws one.
        actions: those that get a slider.
        size: pixels a side.
    Returns:
        an ipywidgets box.
    """
    import ipywidgets as widgets
    person = person or people(1, seed=21, glasses=0)
    wide = {"style": {"description_width": "150px"}, "layout": widgets.Layout(width="340px")}
    sliders = [widgets.FloatSlider(0.0, min=0, max=1, step=.05, description=f"{a} {facs.NAMES[a]}", continuous_update=False, **wide)
               for a in actions]
    yaw, pitch = (widgets.FloatSlider(0.0, min=-35, max=35, step=5, description=f"{n} (degrees)", continuous_update=False, **wide)
                  for n in ("yaw", "pitch"))
    view = widgets.Image(format="png", width=2 * size, height=2 * size)

    def redraw(_=None) -> None:
        buffer = io.BytesIO()
        portrait(person, {a: s.value for a, s in zip(actions, sliders)}, yaw.value, pitch.value, size).save(buffer, "png")
        view.value = buffer.getvalue()

    for slider in (*sliders, yaw, pitch):
        slider.observe(redraw, "value")
    redraw()
    return widgets.HBox([view, widgets.VBox([*sliders, yaw, pitch])], layout=widgets.Layout(align_items="flex-start"))
