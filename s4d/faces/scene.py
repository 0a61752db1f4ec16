"""Around the face: pose, camera, light, background, occluder, sensor."""
from __future__ import annotations

from types import SimpleNamespace

import torch

from .shapes import unit

def neutral_scene(n: int) -> dict[str, torch.Tensor]:
    """n frontal views in even light before a plain background: name -> tensor with n rows; angles in radians."""
    z = torch.zeros(n)
    bg = torch.full((n, 2, 3), .18) * torch.tensor([1., 1.02, 1.08])
    return dict(yaw=z, pitch=z, roll=z, scale=z + 1, shift=torch.zeros(n, 2), light=torch.tensor([.35, .55, .75]).expand(n, 3),
                key=z + 1.55, ambient=z + .5, warmth=z, bg=bg, bg_tex=z + .3, occluder=torch.zeros(n, 5), router_noise=z, blur=z,
                exposure=z + 1, gaze=torch.zeros(n, 2))


def sample_scene(n, gen, nuisance=0., zoom=1.):
    """Draws camera, light, background, occluder, sensor for n samples, between aligned (nuisance 0) and in the wild (1)."""
    r = lambda *s: torch.rand(*s, generator=gen)
    g = lambda *s: torch.randn(*s, generator=gen)
    s = neutral_scene(n)
    s['scale'] = (zoom * (1 + nuisance * .12 * (2 * r(n) - 1)))
    s['shift'] = .06 * nuisance * g(n, 2)
    az, el = (r(n) - .5) * 2.4, r(n) * 1.0 + .05
    wild = torch.stack([az.sin() * el.cos(), el.sin(), az.cos() * el.cos()], 1)
    s['light'] = torch.lerp(s['light'], wild, nuisance)
    s['key'], s['ambient'] = torch.lerp(s['key'], 1.0 + 1.0 * r(n), nuisance), torch.lerp(s['ambient'], .3 + .4 * r(n), nuisance)
    s['warmth'] = nuisance * (r(n) - .5)
    grey = r(n, 2, 1)
    s['bg'] = torch.lerp(s['bg'], (grey + .35 * g(n, 2, 3) * r(n, 1, 1)).clamp(0, 1) ** 2 * .7 + .01, .2 + .8 * nuisance)
    s['bg_tex'] = nuisance * r(n)
    s['occluder'] = torch.stack([(r(n) - .5) * 1.6, (r(n) - .5) * 2, r(n) * 3.14, .12 + .12 * r(n), (r(n) < .08 * nuisance).float()], 1)
    s['noise'], s['blur'] = nuisance * r(n) ** 2 * .035, nuisance * (r(n) < .4).float() * r(n) * .7
    s['exposure'] = (.22 * nuisance * g(n)).exp()
    return s


def rotation(yaw, pitch, roll):
    """Head-to-camera rotation [n, 3, 3]: yaw about y, then pitch about x, then roll about z."""
    cy, sy, cp, sp, cr, sr = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    o, z = torch.ones_like(yaw), torch.zeros_like(yaw)
    m = lambda *r: torch.stack(r, -1).view(-1, 3, 3)
    return m(cr, -sr, z, sr, cr, z, z, z, o) @ m(o, z, z, z, cp, sp, z, -sp, cp) @ m(cy, z, sy, z, o, z, -sy, z, cy)


PIVOT = (0., -.62, -.22)                                # neck joint, head frame


def camera_rays(scene, S):
    """A ray for every pixel, in the frames of the camera and of the head; the camera follows the face as the head turns.

    Args:
        scene: of `neutral_scene` or `sample_scene`.
        S: pixels a side.
    Returns:
        a namespace (camera_origin and head_origin: three numbers a face; camera and head: unit directions, three maps `[n, S, S]`;
        px: size of a pixel at the head) and the rotation from head to camera `[n, 3, 3]`.
    """
    n = scene['yaw'].shape[0]
    ext = 1.16 / scene['scale']
    device = ext.device
    p = (torch.arange(S, device=device) + .5) / S * 2 - 1
    R = rotation(scene['yaw'], scene['pitch'], scene['roll'])
    cam, centre, pivot = (torch.tensor(c, device=device) for c in ((0., -.1, 6.5), (0., -.05, .45), PIVOT))
    moved = (centre - pivot) @ R.transpose(1, 2) + pivot
    aim = torch.stack([.7 * moved[:, 0], .8 * (moved[:, 1] + .05)], 1) - scene['shift'] - torch.tensor([0., .02], device=device)
    gx = (p.view(1, 1, S) * ext.view(-1, 1, 1) + aim[:, 0].view(-1, 1, 1)).expand(n, S, S)
    gy = (-p.view(1, S, 1) * ext.view(-1, 1, 1) + aim[:, 1].view(-1, 1, 1)).expand(n, S, S)
    d = torch.stack([gx - cam[0], gy - cam[1], torch.full_like(gx, .3) - cam[2]], 1)
    d = unit(d)
    oh = (cam - pivot) @ R + pivot                                                              # R^T (cam - pivot) + pivot
    dh = torch.einsum('nij,nihw->njhw', R, d)
    rays = SimpleNamespace(camera_origin=[cam[i].view(1, 1, 1).expand(n, 1, 1) for i in range(3)], camera=list(d.unbind(1)),
                           head_origin=[oh[:, i].view(-1, 1, 1) for i in range(3)], head=list(dh.unbind(1)),
                           px=(2 * ext / S).view(-1, 1, 1))
    return rays, R
