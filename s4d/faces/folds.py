"""Wrinkles as darkening, and where hair grows on the lower face: maps for the head's tables.

In a table x is a row and y a column, so what depends on one of them costs next to nothing.
"""
from __future__ import annotations

import math

import torch

from .controls import lip_curves, sided
from .shapes import gauss, part, smooth


def upper_lines(C, x, y, occ):
    """Darken the occlusion `[n, rows, columns]`, in place, by lines of forehead and brows.

    x and y are the columns and rows of a table of the head.
    """
    P = C.maps
    box, xs, ys = part(x, y, (-.8, .8), (.22, .64))              # forehead: AU1 centre, AU2 sides
    ax = xs.abs()
    fore1, fore2 = sided(C, ("fore1", "fore2"), xs)
    raised = (fore1 * gauss(ax, .22) + fore2 * gauss(ax - .32, .17)).clamp_(max=1)
    lines = (ys - .50 - .012 * torch.cos(xs * 9)) * (2 * math.pi / .085)
    rows = .26 * smooth(ys, .25, .33) * smooth(ys, .60, .50)
    occ[box].addcmul_(raised, (.5 + .5 * torch.cos(lines)) ** 3 * rows)
    box, xs, ys = part(x, y, (-.25, .25), (-.15, .36))           # between the brows, AU4
    ax, area = xs.abs(), occ[box]
    upright = .55 * gauss(ax - .052 - .10 * (ys - .16), .015) * gauss(ys - .17, .075)
    area.addcmul_(P.frown, upright + .30 * gauss(ys - .10, .016) * gauss(xs, .06))
    lines = (.5 + .5 * torch.cos((ys + .35 * ax) * (2 * math.pi / .052))) ** 2      # nose root, AU9
    area.addcmul_(P.nosew, .50 * lines * gauss(ax - .05, .075) * gauss(ys - .035, .065))


def lower_lines(C, x, y, occ):
    """Darken the occlusion, in place, by lines of eyes and mouth."""
    P = C.maps
    box, xs, ys = part(x, y, (-.85, .85), (-.30, .25))           # crow's feet, bags under the eyes
    ax, area = xs.abs(), occ[box]
    ex, ey, crow, bag = sided(C, ("ex", "ey", "crow", "bag"), xs)
    dx, dy = ax - (P.ew + ex + .012), ys - ey - .004
    r = torch.addcmul(dx * dx, dy, dy).sqrt_().add_(1e-4)
    fan = torch.cos((dy / r).mul_(8).add_(.4))
    strength = .45 * crow * smooth(dx, 0., .03)
    area += (fan * fan).mul_(fan).mul_(gauss(r - .085, .055)).mul_(strength)
    ox = ax - ex
    below = gauss(ys - (ey - .105 - .25 * ox * ox + .10 * ox), .018)
    area += below.mul_(.30 * bag * gauss(ox + .02, .13))
    box, xs, ys = part(x, y, (-.62, .62), (-1.15, -.30))         # marionette lines, chin crease
    area = occ[box]
    cx, down, mario = sided(C, ("cx", "down", "mario"), xs)
    drop = ys - (P.ym - down)
    aside = (-drop - .05).clamp_(0).mul_(.25).add_(cx + .006)
    area += gauss(aside.sub_(xs.abs()), .018).mul_(gauss(drop + .075, .05)).mul_(.45 * mario)
    level = P.ym - P.lower_lip - .062 - .5 * P.jaw - .6 * xs * xs
    area += gauss(ys - level, .022).mul_(.26 * (P.chinw + .25) * gauss(xs, .15))


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
