"""One face as a picture, and the actions worth moving by hand."""
from __future__ import annotations

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
