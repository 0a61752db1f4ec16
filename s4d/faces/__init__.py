"""Procedural faces: who (`people`), doing what (`facs`), seen how (`views`), drawn by `render`; `corpus` writes them as datasets."""
from __future__ import annotations

import math

import numpy as np
import torch

from . import facs
from .identity import sample_identity
from .plan import FacesError
from .renderer import render as draw
from .scene import sample_scene

__all__ = ["FacesError", "facs", "people", "render", "views"]


def people(n: int, seed: int = 0, **given: float) -> dict[str, torch.Tensor]:
    """Draws n people.

    Args:
        n: number of identities.
        seed: of the draw.
        given: properties set by hand for all of them, such as glasses=0, beard=0, age=.3 (see `identity.IDENTITY` for more).
    Returns:
        name -> tensor with n rows.
    Raises:
        FacesError: for n below 1 or an unknown property.
    """
    if n < 1:
        raise FacesError(f"{n} people cannot be drawn: give 1 or more")
    skin = torch.full((n,), float(given.pop("tone"))) if "tone" in given else None
    found = sample_identity(n, torch.Generator().manual_seed(seed), skin)
    for name, value in given.items():
        if name not in found:
            raise FacesError(f"unknown property {name!r} of a face: choose one of tone, {', '.join(sorted(found))}")
        found[name] = torch.full_like(found[name], value)
    return found


def views(n: int, yaw=0.0, pitch=0.0, roll=0.0, gaze=(0.0, 0.0), nuisance: float = 0.0, zoom: float = 1.3,
          seed: int = 0) -> dict[str, torch.Tensor]:
    """n views of a head.

    Args:
        n: number of views.
        yaw, pitch, roll: degrees, a number or n of them.
        gaze: right and up, about -1..1; a pair or n pairs.
        nuisance: 0 aligned and evenly lit .. 1 in the wild.
        zoom: framing, as in `config.Faces`.
        seed: of camera, light, background and occluder.
    Returns:
        name -> tensor with n rows.
    """
    scene = sample_scene(n, torch.Generator().manual_seed(seed), nuisance, zoom)
    for name, angle in (("yaw", yaw), ("pitch", pitch), ("roll", roll)):
        scene[name] = torch.as_tensor(angle, dtype=torch.float32).expand(n) * (math.pi / 180)
    scene["gaze"] = torch.as_tensor(gaze, dtype=torch.float32).expand(n, 2)
    return scene


def render(identity: dict, actions: np.ndarray | torch.Tensor, scene: dict | None = None, size: int = 64, seed: int = 0) -> torch.Tensor:
    """Draws faces.

    Args:
        identity: of `people`; one row serves all frames.
        actions: `[n, 2, 23]` in 0..1: left and right, in the order of `facs.ACTIONS`; `facs.sheet` writes one down by name.
        scene: of `views`; one row serves all frames; None is a frontal view.
        size: pixels a side, 32 to 224.
        seed: of the sensor's noise.
    Returns:
        uint8 `[n, 3, size, size]`.
    Raises:
        FacesError: for actions of another shape, a size out of range, or rows that do not match.
    """
    actions = torch.as_tensor(actions, dtype=torch.float32)
    n = actions.shape[0]
    if actions.shape[1:] != (2, len(facs.ACTIONS)):
        raise FacesError(f"actions of shape {list(actions.shape)}: expected [n, 2, {len(facs.ACTIONS)}], left and right of each action")
    if not 32 <= size <= 224:
        raise FacesError(f"size {size} px: give 32 to 224")
    identity, scene = _rows(identity, n, "identities"), _rows(scene or views(1), n, "views")
    gen = torch.Generator().manual_seed(seed)
    parts = [draw({k: v[i:i + 16] for k, v in identity.items()}, actions[i:i + 16].clamp(0, 1), {k: v[i:i + 16] for k, v in scene.items()},
                  size, gen) for i in range(0, n, 16)]
    return (torch.cat(parts) * 255).round().to(torch.uint8)


def _rows(table: dict, n: int, what: str) -> dict:
    have = len(next(iter(table.values())))
    if have not in (1, n):
        raise FacesError(f"{have} {what} for {n} frames: give 1 or {n}")
    return {k: v if have == n else v.expand(n, *v.shape[1:]) for k, v in table.items()}
