"""Hair: the shell it forms around the head, and the edge that leaves the face free."""
from __future__ import annotations

from types import SimpleNamespace

import torch

from .paint import strand
from .rays import DEPTH, quadric, wider
from .shading import light
from .shapes import at, gauss, lookup, power, ramp, rgb, smooth, step, unit, window


def hair(C, lamp, rays, tables):
    """Draw the hair shell inside its window; None when all are bald.

    Returns:
        a namespace: box (the window), colour, and how much of it lies behind and in front of the
        head; crown, edge and near serve shadow and ears.
    """
    P, o, px = C.maps, rays.head_origin, rays.px
    long, volume = P.hair_long, P.hair_vol
    width = P.face_width + .065 + volume * .9 + .03 * long
    top = 1.05 + volume
    bottom = torch.lerp(torch.full_like(long, -.42), torch.full_like(long, -1.65), long)
    centre = (long * 0, (top + bottom) / 2, long * 0 - .10)
    axes = (width, (top - bottom) / 2, DEPTH + .02 + volume)
    box = hair_window(P, o, rays, centre, axes, bottom)
    if not box:
        return None
    d = [at(v, box) for v in rays.head]
    near, far, m = quadric(o, d, centre, axes)
    x, y, z = place = [a + near * b for a, b in zip(o, d, strict=True)]
    normal = unit(torch.stack([(q - c) / e ** 2
                               for q, c, e in zip(place, centre, axes, strict=True)], 1))
    angle = torch.atan2(x - .25 * P.parting * smooth(y, .2, .9), (z + .35).clamp_(min=-.3))
    strands = strand(P, angle * 1.1, y * 1.2 + z, px)
    base = rgb(C.hair_rgb)
    dark = 1 - .25 * step(-.3 - strands)
    colour, _ = light(lamp, normal, base * (1 + .40 * strands[:, None]), dark)
    sheen = gauss(normal[:, 1] - .55 + .05 * strands, .20) * (.6 + .4 * strands) * (1 - .6 * P.curl)
    colour.addcmul_(sheen[:, None], (base * .9 + .018) * lamp.key, value=.45)
    rough = lookup(tables.skin[:, 1:], .88 * torch.sin(x * 2), y)[:, 0].clamp_(-1.3, 1.3)
    outside = (1 - m) * width + (.02 + .05 * P.curl) * (rough * .45 - .25)
    cover = ramp(outside, px * 2.0 + .02 + .03 * P.curl) * (1 - P.bald)
    back = o[1] + far * d[1] + .03 * strands
    behind = cover * smooth(back, (bottom + .45).clamp(max=-.45), (bottom + .62).clamp(max=-.30))
    edge = face_edge(P, x, y, strands)
    front = torch.maximum(ramp(edge * .5 + .010 * strands, px * 1.5 + .035),
                          step(.12 + .1 * long - z))
    short_end = .10 - .45 * smooth(z, -.12, -.40) - .16 * smooth(z, .05, .2)
    end = torch.lerp(short_end, bottom + .38, long)
    front = cover * front * smooth(y + .03 * strands - end, -.05, .08)
    return SimpleNamespace(box=box, colour=colour, behind=behind, front=front,
                           crown=smooth(y, -.2, .3), edge=edge, near=near)


def hair_window(P, o, rays, centre, axes, bottom):
    """The window that every hair lies in, found on each fourth ray; None when all are bald."""
    few = [v[..., ::4, ::4] for v in rays.head]
    near, far, m = quadric(o, few, centre, axes)
    y = o[1] + torch.maximum(near * few[1], far * few[1])
    lowest = torch.where(P.hair_long > 0, bottom + .2, -.75 + P.hair_long) + 9 * (P.bald == 1)
    inside = torch.minimum((1 - m) * axes[0] + .10 + rays.px * 4, y - lowest + rays.px * 4)
    return wider(window(inside), 4, rays.head[0].shape[1:])


def face_edge(P, x, y, strands):
    """Signed distance to the edge of the hair around the face, negative where the face is free."""
    long, middle = P.hair_long, -.40
    height = P.hairline - P.fringe - middle
    ragged = .022 * strands + .012 * torch.sin(x * 23 + P.seed.float() % 13)
    across = (x.abs() / (P.face_width - .02 + .02 * long)).clamp_(1e-6, 3)
    slanted = y - middle + P.parting * x * .16 * (1 - .5 * long) + ragged
    along = (slanted / height).clamp_(min=1e-6)
    square = power(along, 2.4 + P.temples).add_(power(across, 3.2 + 1.5 * P.temples))
    return power(square.clamp_(min=1e-4), .35).sub_(1).mul_(.9)
