"""Procedural faces: who (`subjects`), doing what (`facs`), seen how (`views`), drawn by `render`.

`corpus` writes them as datasets.
"""
from __future__ import annotations

import torch

from . import facs
from .plan import FacesError
from .renderer import render
from .scene import views
from .subject import sample_subjects

__all__ = ["FacesError", "facs", "render", "subjects", "views"]


def subjects(n: int, seed: int = 0, **given: float) -> dict[str, torch.Tensor]:
    """Draw n subjects.

    Args:
        seed: of the draw.
        given: properties set by hand for all of them, such as glasses=0, beard=0, age=.3.
    Returns:
        name -> tensor with n rows.
    Raises:
        FacesError: for n below 1 or an unknown property.
    """
    if n < 1:
        raise FacesError(f"{n} subjects cannot be drawn: give 1 or more")
    tone = torch.full((n,), float(given.pop("tone"))) if "tone" in given else None
    found = sample_subjects(n, torch.Generator().manual_seed(seed), tone)
    for name, value in given.items():
        if name not in found:
            raise FacesError(f"unknown property {name!r} of a face: choose one of tone, "
                             f"{', '.join(sorted(found))}")
        found[name] = torch.full_like(found[name], value)
    return found
