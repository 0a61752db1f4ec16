"""Identity x actions x scene -> pixels."""
from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from .head import controls, head_table, march_head, ramp
from .identity import seeded_normal
from .scene import camera_rays
from .shading import shade_faces


@torch.no_grad()
def render(I, au, scene, S=64, table=None, gen=None, hit=None, steps=12):
    """Renders identities I with au [n, 2, 23] under a scene: [n, 3, S, S] in [0, 1], sRGB."""
    n = au.shape[0]
    T = table or (96 if S <= 72 else 144 if S <= 128 else 176)
    C = controls(I, au, scene['gaze'])
    C.gaze = scene['gaze']
    P = C.I
    o, d, oh, dh, R, px = camera_rays(scene, S)
    key_dir = scene['light'] / scene['light'].norm(dim=1, keepdim=True)
    lh = torch.einsum('nij,ni->nj', R, key_dir)                                                 # light in the head frame
    march, shade, Z = head_table(C, lh, T)
    if hit is None:
        t, miss = march_head(march, oh, dh, P['face_width'], P['face_length'], C.jaw.view(-1, 1, 1), steps)
        cover = ramp(px - miss, px * 1.1)
    else:
        t, cover = hit(C, march, R, scene, S, oh, dh)
    seed = I['seed']                                                        # texture belongs to the identity, so frames of one face agree
    tex_t = torch.cat([F.interpolate(seeded_normal(seed, 1, 9), size=(64, 64), mode='bicubic'), seeded_normal(seed + 1, 1, 64)], 1)
    blob = seeded_normal(seed + 2, 1, 6) + .3 * seeded_normal(seed + 3, 3, 6)
    blobs = F.interpolate(blob, size=(S, S), mode='bicubic', align_corners=True)
    img = shade_faces(C, I, scene, o, d, oh, dh, R, px, lh, t, cover, march, shade, tex_t, blobs)
    if bool((scene['blur'] > 0).any()):
        p = F.pad(img, (2, 2, 2, 2), mode='replicate')
        p = .0625 * (p[..., :-4] + p[..., 4:]) + .25 * (p[..., 1:-3] + p[..., 3:-1]) + .375 * p[..., 2:-2]
        b = .0625 * (p[..., :-4, :] + p[..., 4:, :]) + .25 * (p[..., 1:-3, :] + p[..., 3:-1, :]) + .375 * p[..., 2:-2, :]
        img = torch.lerp(img, b, scene['blur'].view(-1, 1, 1, 1))
    if bool((scene['noise'] > 0).any()):
        img = img + scene['noise'].view(-1, 1, 1, 1) * torch.randn(n, 3, S, S, generator=gen)
    return img.clamp(0, 1)
