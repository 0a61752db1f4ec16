"""Wrinkles as darkening, and where hair grows on the lower face: maps for the head's tables.

In a table x is a row and y a column, so what depends on one of them costs next to nothing.
"""
from __future__ import annotations

import math

import torch

from .controls import lip_curves, sided
from .shapes import at, gauss, part, smooth


def darken(C, x, y, occ):
    """Add all wrinkles to the occlusion `[n, rows, columns]`, in place; x, y of `head.grid`."""
    for draw, x_range, y_range in ((forehead_lines, (-.8, .8), (.22, .64)),
                                   (frown_lines, (-.25, .25), (-.15, .36)),
                                   (eye_lines, (-.85, .85), (-.30, .25)),
                                   (mouth_lines, (-.62, .62), (-1.15, -.30))):
        box, xs, ys = part(x, y, x_range, y_range)
        draw(C, xs, ys, at(occ, box))


def forehead_lines(C, x, y, occ):
    """Lines across the forehead: AU1 in the middle, AU2 at the sides."""
    ax = x.abs()
    fore1, fore2 = sided(C, ("fore1", "fore2"), x)
    raised = (fore1 * gauss(ax, .22) + fore2 * gauss(ax - .32, .17)).clamp_(max=1)
    lines = (y - .50 - .012 * torch.cos(x * 9)) * (2 * math.pi / .085)
    rows = .26 * smooth(y, .25, .33) * smooth(y, .60, .50)
    occ.addcmul_(raised, (.5 + .5 * torch.cos(lines)) ** 3 * rows)


def frown_lines(C, x, y, occ):
    """Furrows between the brows (AU4) and across the nose root (AU9)."""
    ax, P = x.abs(), C.maps
    upright = .55 * gauss(ax - .052 - .10 * (y - .16), .015) * gauss(y - .17, .075)
    occ.addcmul_(P.frown, upright + .30 * gauss(y - .10, .016) * gauss(x, .06))
    lines = (.5 + .5 * torch.cos((y + .35 * ax) * (2 * math.pi / .052))) ** 2
    occ.addcmul_(P.nosew, .50 * lines * gauss(ax - .05, .075) * gauss(y - .035, .065))


def eye_lines(C, x, y, occ):
    """Crow's feet and bags under the eyes."""
    ax = x.abs()
    ex, ey, crow, bag = sided(C, ("ex", "ey", "crow", "bag"), x)
    dx, dy = ax - (C.maps.ew + ex + .012), y - ey - .004
    r = torch.addcmul(dx * dx, dy, dy).sqrt_().add_(1e-4)
    fan = torch.cos((dy / r).mul_(8).add_(.4))
    strength = .45 * crow * smooth(dx, 0., .03)
    occ += (fan * fan).mul_(fan).mul_(gauss(r - .085, .055)).mul_(strength)
    ox = ax - ex
    below = gauss(y - (ey - .105 - .25 * ox * ox + .10 * ox), .018)
    occ += below.mul_(.30 * bag * gauss(ox + .02, .13))


def mouth_lines(C, x, y, occ):
    """Marionette lines and the crease above the chin."""
    P = C.maps
    cx, down, mario = sided(C, ("cx", "down", "mario"), x)
    drop = y - (P.ym - down)
    aside = (-drop - .05).clamp_(0).mul_(.25).add_(cx + .006)
    occ += gauss(aside.sub_(x.abs()), .018).mul_(gauss(drop + .075, .05)).mul_(.45 * mario)
    level = P.ym - P.lower_lip - .062 - .5 * P.jaw - .6 * x * x
    occ += gauss(y - level, .022).mul_(.26 * (P.chinw + .25) * gauss(x, .15))


def spots(C, cell):
    """Wings of the nose, nostrils and dimples, for `head.bumps`; cell is the table's spacing."""
    nl, ala = C.nose_length, C.ala
    return [(.55, C.nose_width + .035, .020, ala - nl + .02, .035),
            (.72, .052, .026, .4 * ala - nl - .022, .012 + .3 * cell),
            (.62 * C.dimple, C.cx + .050, .020, C.ym + C.up, .06)]


def beard_zone(C, x, y):
    """Map where a beard grows, 0..1 `[n, rows, columns]`."""
    P, ax = C.maps, x.abs()
    _, _, _, uo, lo, _, _ = lip_curves(C, x)
    cx, = sided(C, ("cx",), x)
    nl = P.nose_length
    zone = smooth(y, -.10, -.42) * smooth(ax, .40, .52) + smooth(y, P.ym - .07, P.ym - .14)
    taper = smooth(y + .35 * ax, -nl + .01, -nl - .06)      # a moustache falls to the sides
    zone = zone.addcmul(smooth(y, uo - .03, uo + .015) * smooth(ax, cx + .07, cx - .07), taper)
    zone.addcmul_(gauss(y - (lo - .06), .05), gauss(x, .05))
    zone.addcmul_(smooth(y, P.ym + .10, P.ym - .06), smooth(ax, cx, cx + .09))
    return zone.clamp_(0, 1).mul_(smooth(y, -.02, -.16))
