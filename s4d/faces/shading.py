"""Light on surfaces: the lamp, its reflection, and the painted face in it."""
from __future__ import annotations

from types import SimpleNamespace

import torch

from .paint import Patch, mouth_interior, paint
from .rays import DEPTH
from .shapes import lay, lookup, rgb, smooth, step, tint, unit

WRAP = (.34, .20, .15)                 # light creeps round the terminator, red the furthest


def lamp(scene, turn, towards):
    """Colours and directions of the light, in the head frame."""
    warm, one = scene["warmth"].view(-1, 1), torch.ones_like(towards[:, :1])
    key = scene["key"].view(-1, 1) * torch.cat([1 + .12 * warm, one, 1 - .16 * warm], 1)
    ambient = scene["ambient"].view(-1, 1) * torch.cat([1 - .05 * warm, one, 1 + .08 * warm], 1)
    return SimpleNamespace(key=rgb(key), ambient=rgb(ambient), towards=towards.view(-1, 1, 3),
                           up=turn[:, 1].reshape(-1, 1, 3))


def dot(maps, vector):
    """Products of vectors `[n, 3, H, W]` with one vector a face `[n, 1, 3]`: `[n, 1, H, W]`."""
    return torch.bmm(vector, maps.reshape(-1, 3, maps.shape[2] * maps.shape[3])).view(
        -1, 1, *maps.shape[2:])


def light(lamp, N, alb, occlusion, view=None, gloss=None, shadow=None):
    """Wrapped diffuse, hemisphere ambient and, with gloss, two specular lobes.

    N, alb, view are normals, albedo and directions of the rays `[n, 3, H, W]`. Returns radiance and
    the cosine between normal and light `[n, 1, H, W]`.
    """
    wrap = tint(N.device, *WRAP)
    ndl, occlusion = dot(N, lamp.towards), occlusion[:, None]
    direct, lit = .55 + .45 * occlusion, None
    if shadow is not None:
        lit = 1 - .72 * shadow[:, None]
        direct.mul_(lit)
    colour = torch.addcmul(lamp.key * (wrap / (1 + wrap)), ndl, lamp.key / (1 + wrap))
    colour = colour.clamp_(min=0).mul_(direct)
    sky = dot(N, lamp.up).mul_(.38).add_(.62).mul_(occlusion)
    colour.addcmul_(sky, lamp.ambient).mul_(alb)
    if gloss is None:
        return colour, ndl
    facing = (N[:, :1] * view[:, :1]).addcmul_(N[:, 1:2], view[:, 1:2])
    facing.addcmul_(N[:, 2:], view[:, 2:])
    half = dot(view, lamp.towards).mul_(-2).add_(2).clamp_(min=1e-4).rsqrt_()   # 1 / |light - view|
    n2 = (ndl - facing).mul_(half).clamp_(0, 1).square_()
    n4 = n2 * n2
    n8 = n4 * n4
    n16 = n8 * n8
    lobes = n4.mul_(n2).mul_(n8).mul_(.10).addcmul_(n16 * n16, n16, value=.13)  # powers 14 and 48
    lobes.mul_(step(ndl.clone()))
    if lit is not None:
        lobes *= lit
    grazing = facing.clamp_(-1, 0).add_(1).square_()
    lobes.addcmul_(grazing, grazing, value=.05).mul_(occlusion).mul_(gloss[:, None])
    return colour.addcmul_(lobes, lamp.key), ndl


def face(C, lamp, rays, hit, tables, box):
    """Colours of the face inside a window `[n, 3, h, w]`, the light on it, and its Patch."""
    d = [v[box] for v in rays.head]
    t = hit[box]
    x, y, z = (a + t * b for a, b in zip(rays.head_origin, d, strict=True))
    h, hx, hy, Gx, Gy, occ, shadow, *zone = lookup(tables.surface[:, 1:], x, y).unbind(1)
    w = z - DEPTH * h
    shadow = shadow * smooth(w, .0, .25)                     # tabulated for the front half
    w *= 1 / DEPTH ** 2
    slope = (torch.addcmul(Gx, w, hx, value=-1), torch.addcmul(Gy, w, hy, value=-1), w)
    normal = unit(torch.stack(slope, 1))
    noise = lookup(tables.skin, x, y)
    p = Patch(x, y, z, noise[:, 0], noise[:, 1], rays.px)
    alb, gloss, folds, eye, mouth = paint(C, p, zone[0] if zone else None)
    occlusion = (1 - occ - folds).clamp_(.12, 1.12)
    view = torch.stack(d, 1)
    colour, ndl = light(lamp, normal, alb, occlusion, view, gloss, shadow)
    lit = ndl.clamp_(-.3, 1).add_(1).mul_(.4).mul_(1 - .5 * shadow[:, None])
    lit = torch.addcmul(.36 * lamp.ambient, lit, lamp.key)
    if eye:
        part = colour[eye.box]
        lay(part, eye.colour * lit[eye.box], eye.inside)
        lay(part, torch.minimum(rgb(C.hair_rgb) * .15, part * .35), eye.lash)
        part.addcmul_(eye.glint[:, None], lamp.key, value=.55)
    if mouth:
        part, q = colour[mouth.box], p.cut(mouth.box)
        if bool((mouth.opening > 0).any()):
            ray = view[mouth.box]
            back = .055 / (-ray[:, 2]).clamp(min=.3)         # the interior lies behind the lips
            deep_x, deep_y = q.x + ray[:, 0] * back, q.y + ray[:, 1] * back
            inner = mouth_interior(C, deep_x, deep_y, mouth, rays.px)
            lay(part, inner * lit[mouth.box], mouth.opening)
        lay(part, part * tint(x.device, .24, .15, .15), mouth.seam)
    return colour, lit, p
