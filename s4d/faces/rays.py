"""Rays: from the camera through every pixel, against ellipsoids, and marching onto the head."""
from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from .shapes import frontal, ramp, step, unit, window

DEPTH = 0.80                                    # front-to-back half depth of the head
PIVOT = (0., -.62, -.22)                        # neck joint, head frame
FAR = 1e3                                       # distance that no ray reaches


def rotation(yaw, pitch, roll):
    """Head-to-camera rotation `[n, 3, 3]`: yaw about y, then pitch about x, then roll about z."""
    o, z = torch.ones_like(yaw), torch.zeros_like(yaw)

    def matrix(*entries):
        return torch.stack(entries, -1).view(-1, 3, 3)
    about_z = matrix(roll.cos(), -roll.sin(), z, roll.sin(), roll.cos(), z, z, z, o)
    about_x = matrix(o, z, z, z, pitch.cos(), pitch.sin(), z, -pitch.sin(), pitch.cos())
    about_y = matrix(yaw.cos(), z, yaw.sin(), z, o, z, -yaw.sin(), z, yaw.cos())
    return about_z @ about_x @ about_y


def camera_rays(scene, S):
    """Send a ray through each of S by S pixels; the camera follows the face as the head turns.

    Camera and head frame each have an origin, three numbers a face, and unit directions, three maps
    `[n, S, S]`. px is the size of a pixel at the head, turn the rotation from head to camera.
    """
    n, device = len(scene["yaw"]), scene["yaw"].device
    extent = 1.16 / scene["scale"]
    p = (torch.arange(S, device=device) + .5) / S * 2 - 1
    turn = rotation(scene["yaw"], scene["pitch"], scene["roll"])
    camera, centre, pivot = (torch.tensor(c, device=device)
                             for c in ((0., -.1, 6.5), (0., -.05, .45), PIVOT))
    moved = (centre - pivot) @ turn.transpose(1, 2) + pivot
    aim = torch.stack([.7 * moved[:, 0], .8 * (moved[:, 1] + .05)], 1) - scene["shift"]
    aim = aim - torch.tensor([0., .02], device=device)
    across = p.view(1, 1, S) * extent.view(-1, 1, 1) + aim[:, 0].view(-1, 1, 1)
    up = -p.view(1, S, 1) * extent.view(-1, 1, 1) + aim[:, 1].view(-1, 1, 1)
    gx, gy = across.expand(n, S, S), up.expand(n, S, S)
    d = unit(torch.stack([gx - camera[0], gy - camera[1], torch.full_like(gx, .3) - camera[2]], 1))
    origin = (camera - pivot) @ turn + pivot    # turn^T (camera - pivot) + pivot
    return SimpleNamespace(
        camera_origin=[camera[i].view(1, 1, 1).expand(n, 1, 1) for i in range(3)],
        camera=list(d.unbind(1)),
        head_origin=[origin[:, i].view(-1, 1, 1) for i in range(3)],
        head=list(torch.einsum("nij,nihw->njhw", turn, d).unbind(1)),
        px=(2 * extent / S).view(-1, 1, 1), turn=turn)


def quadric(o, d, centre, axes):
    """Meet an axis-aligned ellipsoid: entry, exit, least normalised distance of each ray."""
    o = [(a - c) / e for a, c, e in zip(o, centre, axes, strict=True)]
    d = [a / e for a, e in zip(d, axes, strict=True)]
    A = sum(a * a for a in d)
    B = sum(a * b for a, b in zip(o, d, strict=True))
    middle = -B / A
    m2 = (sum(a * a for a in o) - B * B / A).clamp(min=0)
    half = ((1 - m2).clamp(min=0) / A).sqrt()
    return middle - half, middle + half, m2.sqrt()


def reach(o, d, centre, axes, limit, stride=4):
    """The window of rays, tried by strides, that pass an ellipsoid below the limit, or None."""
    _, _, m = quadric(o, [v[..., ::stride, ::stride] for v in d], centre, axes)
    return wider(window(limit - m), stride, d[0].shape[1:])


def wider(box, stride, shape):
    """Scale up a window of every stride-th value to a map `(H, W)`, a little wider all around."""
    if box is None:
        return None
    return ..., *(slice(max(0, stride * (v.start - 1) + 1), min(stride * v.stop, size))
                  for v, size in zip(box[1:], shape, strict=True))


def march_head(table, rays, C, steps=6):
    """Find where each ray meets the head: distance along it and cover 0..1, `[n, S, S]` each.

    `table` holds profile and height / DEPTH `[n, 2, rows, columns]`.
    """
    o, d, px, P = rays.head_origin, rays.head, rays.px, C.maps
    zero, length = 0 * P.face_width, P.face_length.clamp(min=1.0)
    centre = (zero, -.5 * P.jaw, zero)
    axes = (P.face_width + .05, length + .5 * P.jaw + .03, zero + DEPTH)
    hit, cover = torch.full_like(d[0], 6.5), torch.zeros_like(d[0])
    box = reach(o, d, centre, (*axes[:2], axes[2] + .35), 1.15)      # a nose in profile sticks out
    if box:
        d = [v[box] for v in d]
        entry, _, m = quadric(o, d, centre, axes)
        t, best, last = trace(table, o, d, entry - .42, steps)
        late = step(last - .003).mul_(step(.8 - m))         # slowed by the nose, not there yet
        t, best = torch.lerp(t, entry, late), best.mul_(1 - late)
        hit[box].copy_(t)
        cover[box].copy_(ramp(px - .58 * best, px * 1.1))
    return hit, cover


def trace(table, o, d, t, steps):
    """Stride from t to where the surface lies if q keeps falling, then regula falsi.

    Returns the distance along the ray and, where it passes by, the least and the last q - 1.
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
