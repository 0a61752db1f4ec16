"""Rays from the camera onto ellipsoids and the head, and the light that surfaces send back."""
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from .shapes import DEPTH, frontal, ramp, step, tint, unit, window

PIVOT = (0., -.62, -.22)               # neck joint, head frame
CAMERA, CENTRE = (0., -.1, 6.5), (0., -.05, .45)    # and the point of the face that it follows
FAR = 1e3                              # distance that no ray reaches
WRAP = (.34, .20, .15)                 # light creeps round the terminator, red the furthest


def rotation(angle, axis):
    """Rotations `[n, 3, 3]` by angles `[n]` about the axis 0 (x), 1 (y) or 2 (z)."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn = torch.eye(3).repeat(len(angle), 1, 1)
    turn[:, i, i] = turn[:, j, j] = angle.cos()
    turn[:, i, j], turn[:, j, i] = -angle.sin(), angle.sin()
    return turn


def camera_rays(scene, S):
    """Send a ray through each of S by S pixels; the camera follows the face as the head turns.

    Frames of camera and head: origin, three numbers a face; unit directions, three `[n, S, S]`.
    px is the size of a pixel at the head, turn the rotation from head to camera.
    """
    n, extent = len(scene["yaw"]), 1.16 / scene["scale"]
    p = (torch.arange(S) + .5) / S * 2 - 1
    turn = rotation(scene["roll"], 2) @ rotation(-scene["pitch"], 0) @ rotation(scene["yaw"], 1)
    camera, centre, pivot = (torch.tensor(c) for c in (CAMERA, CENTRE, PIVOT))
    moved = (centre - pivot) @ turn.transpose(1, 2) + pivot
    aim = torch.stack([.7 * moved[:, 0], .8 * (moved[:, 1] + .05)], 1) - scene["shift"]
    aim = aim - torch.tensor([0., .02])
    gx = (p.view(1, 1, S) * extent.view(-1, 1, 1) + aim[:, :1, None]).expand(n, S, S)
    gy = (-p.view(1, S, 1) * extent.view(-1, 1, 1) + aim[:, 1:, None]).expand(n, S, S)
    d = unit(torch.stack([gx - camera[0], gy - camera[1], torch.full_like(gx, .3) - camera[2]], 1))
    origin = (camera - pivot) @ turn + pivot    # turn^T (camera - pivot) + pivot
    return SimpleNamespace(
        camera_origin=camera.view(3, 1, 1, 1).unbind(0), camera=d.unbind(1),
        head_origin=origin[..., None, None].unbind(1),
        head=torch.einsum("nij,nihw->njhw", turn, d).unbind(1),
        px=(2 * extent / S).view(-1, 1, 1), turn=turn)


def quadric(o, d, centre, axes):
    """Meet an axis-aligned ellipsoid: entry, exit, least normalised distance of each ray."""
    o = [(a - c) / e for a, c, e in zip(o, centre, axes, strict=True)]
    d = [a / e for a, e in zip(d, axes, strict=True)]
    A = sum(a * a for a in d)
    B = sum(a * b for a, b in zip(o, d, strict=True))
    m2 = (sum(a * a for a in o) - B * B / A).clamp(min=0)
    middle, half = -B / A, ((1 - m2).clamp(min=0) / A).sqrt()
    return middle - half, middle + half, m2.sqrt()


def reach(o, d, centre, axes, limit):
    """The window of rays that pass an ellipsoid below the limit, or None; every fourth is tried."""
    _, _, m = quadric(o, [v[..., ::4, ::4] for v in d], centre, axes)
    return window(limit - m, 4, d[0].shape[1:])


def march_head(table, rays, C, steps):
    """Find how far along each ray the head lies, and its cover 0..1, from profile and height."""
    o, d, px, P = rays.head_origin, rays.head, rays.px, C.maps
    centre = (0., -.5 * P.jaw, 0.)
    axes = (P.face_width + .05, P.face_length.clamp(min=1.0) + .5 * P.jaw + .03, DEPTH)
    hit, cover = torch.full_like(d[0], 6.5), torch.zeros_like(d[0])
    box = reach(o, d, centre, (*axes[:2], axes[2] + .35), 1.15)      # a nose in profile sticks out
    d = [v[box] for v in d]
    entry, _, m = quadric(o, d, centre, axes)
    t, best, last = trace(table, o, d, entry - .42, steps)
    late = step(last - .003).mul_(step(.8 - m))             # slowed by the nose, not there yet
    hit[box].copy_(torch.lerp(t, entry, late))
    cover[box].copy_(ramp(px - .58 * best.mul_(1 - late), px * 1.1))
    return hit, cover


def trace(table, o, d, t, steps):
    """Stride from t to where the surface lies if q keeps falling, then regula falsi.

    Returns the distance and, where a ray passes by, the least and the last q - 1.
    """
    plane = t.new_empty(t.shape[0], 2, *t.shape[1:])
    places, spots = plane.unbind(1), plane.permute(0, 2, 3, 1)
    start, ahead = frontal(o[0], o[1]).unbind(3), frontal(d[0], d[1], 0., 0.).unbind(3)
    oz, dz = o[2] / DEPTH, d[2] / DEPTH
    best, tbest = torch.full_like(t, 9.), t                 # nearest approach: soft silhouettes
    lo, flo = t, torch.full_like(t, .1)                         # outside, and hi inside the surface
    hi, fhi = torch.full_like(t, FAR), torch.full_like(t, -.1)
    for k in range(steps):
        for place, a, b in zip(places, start, ahead, strict=True):
            torch.addcmul(a, t, b, out=place)
        G, h = F.grid_sample(table, spots, align_corners=True, padding_mode="border").unbind(1)
        w = torch.addcmul(oz, t, dz).sub_(h)
        f = torch.addcmul(G, w, w).sqrt_().sub_(1)
        tbest, best = torch.lerp(tbest, t, step(best - f)), torch.minimum(best, f)
        out, stride = step(f.clone()), f * .7
        if k:
            falling = (t - lo).mul_(f).div_((flo - f).add_(1e-9))
            stride = torch.minimum(torch.maximum(falling, stride), f * 3)
        lo, flo = torch.lerp(lo, t, out), torch.lerp(flo, f, out)
        hi, fhi = torch.lerp(t, hi, out), torch.lerp(f, fhi, out)
        inside = step(FAR - 1 - hi)
        between = torch.addcmul(lo, hi - lo, (flo / (flo - fhi)).clamp_(.08, .92))
        t = torch.lerp(stride.add_(t), between, inside)
    return torch.lerp(tbest, t, inside), best.clamp_(min=0), f.mul_(1 - inside)


def lamp(scene, turn):
    """Colours `[n, 3, 1, 1]` and directions `[n, 1, 3]` of the light, in the head frame."""
    towards = scene["light"] / scene["light"].norm(dim=1, keepdim=True)
    towards = torch.einsum("nij,ni->nj", turn, towards)
    warm, one = scene["warmth"].view(-1, 1), torch.ones_like(towards[:, :1])
    key = scene["key"].view(-1, 1) * torch.cat([1 + .12 * warm, one, 1 - .16 * warm], 1)
    ambient = scene["ambient"].view(-1, 1) * torch.cat([1 - .05 * warm, one, 1 + .08 * warm], 1)
    return SimpleNamespace(key=key[..., None, None], ambient=ambient[..., None, None],
                           towards=towards[:, None], up=turn[:, 1:2])


def dot(maps, vector):
    """Products of vectors `[n, 3, H, W]` with one vector a face `[n, 1, 3]`: `[n, 1, H, W]`."""
    return torch.bmm(vector, maps.flatten(2)).unflatten(2, maps.shape[2:])


def light(lamp, N, alb, occlusion, view=None, gloss=None, shadow=None):
    """Wrapped diffuse, hemisphere ambient and, with gloss and a cast shadow, two specular lobes.

    N, alb, view: normals, albedo, rays `[n, 3, H, W]`. Returns radiance and cosine to the light.
    """
    wrap = tint(*WRAP)
    ndl, occlusion = dot(N, lamp.towards), occlusion[:, None]
    direct = .55 + .45 * occlusion
    if gloss is not None:
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
    lobes.mul_(step(ndl.clone())).mul_(lit)
    grazing = facing.clamp_(-1, 0).add_(1).square_()
    lobes.addcmul_(grazing, grazing, value=.05).mul_(occlusion).mul_(gloss[:, None])
    return colour.addcmul_(lobes, lamp.key), ndl
