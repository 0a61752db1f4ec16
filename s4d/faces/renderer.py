"""Identity x actions x scene -> pixels."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from .controls import controls
from .head import head_table, march_head
from .identity import seeded_normal
from .scene import camera_rays
from .shading import develop, picture


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch inside, as many as before after it: the maps of a batch are small, threads cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
@torch.no_grad()
def render(identity: dict, actions: torch.Tensor, scene: dict, size: int = 64, gen: torch.Generator | None = None) -> torch.Tensor:
    """Draws faces.

    Args:
        identity: of `sample_identity`, n rows; rows of one person repeated make a clip.
        actions: `[n, 2, 23]` in 0..1, left and right, in the order of `facs.ACTIONS`.
        scene: of `neutral_scene` or `sample_scene`, n rows; angles in radians.
        size: pixels a side.
        gen: source of the sensor's noise.
    Returns:
        float32 `[n, 3, size, size]` in 0..1, sRGB.
    """
    C = controls(identity, actions, scene['gaze'])
    rays, R = camera_rays(scene, size)
    lh = torch.einsum('nij,ni->nj', R, scene['light'] / scene['light'].norm(dim=1, keepdim=True))      # light in the head frame
    surface = head_table(C, lh, 96 if size <= 72 else 144 if size <= 128 else 176)
    hit, cover = march_head(surface[:, :2], rays.head_origin, rays.head, C, rays.px, 6 if size <= 72 else 9)
    tables = SimpleNamespace(surface=surface, **textures(identity['seed'], scene, size))
    return develop(picture(C, identity, scene, rays, R, lh, hit, cover, tables), identity, scene, gen)


def textures(seed: torch.Tensor, scene: dict, size: int) -> dict:
    """Skin noise `[n, 2, 64, 64]` and background blobs. They belong to the identity, so that frames of one person agree."""
    own, row = torch.unique(seed, return_inverse=True)
    skin = torch.cat([stretched(seeded_normal(own, 1, 9), 64), seeded_normal(own + 1, 1, 64)], 1)
    if not bool((scene['bg_tex'] > 0).any()):
        return {'skin': skin[row], 'blobs': None}
    blobs = seeded_normal(own + 2, 1, 6) + .3 * seeded_normal(own + 3, 3, 6)
    return {'skin': skin[row], 'blobs': stretched(blobs, size)[row]}


def stretched(maps, size):
    """Bicubic interpolation of `[n, c, k, k]` to `[n, c, size, size]` as two matrix products."""
    k = maps.shape[-1]
    weights = F.interpolate(torch.eye(k, device=maps.device)[None, None], size=(size, k), mode='bicubic', align_corners=True)[0, 0]
    return weights @ maps @ weights.T
