"""Skin, brows, eyes, lips and beard, painted in head coordinates, each in its own window.

Colours are linear light; widths and places are in half head heights, set by hand.
"""
from collections import namedtuple
from types import SimpleNamespace

import torch

from .controls import lip_curves, sided
from .rays import light
from .shapes import DEPTH, bell, gauss, lay, lookup, ramp, smooth, tint, unit, window

RED, DARK = tint(1.0, .62, .55), tint(.62, .50, .46)    # what blood, sockets leave of skin's light
CELLS = 26                             # of freckles, a head's half height
# Of a window's pixels `[n, H, W]`: head coordinates, coarse and fine noise of the skin.
Patch = namedtuple("Patch", "x y z n1 n2")


def strand(P, u, w):
    """Texture of strands along w, in [-1, 1]; u runs across them."""
    s = P.seed.float() % 97
    u = u + (.10 * P.curl * torch.sin(w * 11 + s) + .05 * torch.sin(w * 5 + s * 2))
    coarse, middle, fine = ((1 / (f * P.px * .55)).clamp(max=1) for f in (31, 57, 103))
    return (.45 * torch.sin(u * 31 + s) * coarse
            + .35 * torch.sin(u * 57 + s * 3 + 2 * w) * middle
            + .35 * torch.sin(u * 103 + s * 5 + w * 4) * fine)


def paint(C, p, zone):
    """Paint the face; `zone` says where a beard grows, 0..1 `[n, H, W]`.

    Returns albedo, gloss, painted occlusion, and layers of eyes and mouth, each with its window.
    """
    def inside(box):
        return Patch(*(v[box] for v in p))
    P, box, occ = C.maps, window(zone), torch.zeros_like(p.x)
    alb, gloss = skin(C, p)
    if box:                                                      # stubble, beard, moustache
        x, y, _, _, n2 = inside(box)
        zone, part, strands = zone[box], alb[box], strand(P, x * 1.3 + .4 * y * x.sign(), y)
        lay(part, C.skin * tint(.55, .58, .62), .55 * zone * P.stubble)
        thick = (zone - .5 + .22 * strands + .14 * n2) * 2 + .25 + .4 * P.beard
        thick = thick.clamp_(0, 1) * zone.clamp(max=.5) * 2 * (P.beard * 1.6).clamp(0, .95)
        lay(part, C.hair_rgb * (1.15 + .35 * strands[:, None]), thick)
        gloss[box].mul_(1 - thick)
    scalp = smooth(p.y - P.hairline + P.fringe, .06, .12)
    scalp = scalp + smooth(p.z, .05, -.10) * smooth(p.y, .12, .28)
    lay(alb, C.hair_rgb * .6, scalp.clamp_(0, 1) * (1 - P.bald))
    box = window(torch.minimum(.30 - (p.y - .25).abs(), .66 - p.x.abs()))
    if box:
        brows(C, inside(box), alb[box], gloss[box], occ[box])
    eye = mouth = None
    box = window(torch.minimum(.22 - p.y.abs(), .56 - p.x.abs()))
    if box:
        eye = eyes(C, inside(box), alb[box])
        eye.box = box
    aside = C.cx.amax(1).view(-1, 1, 1) * 1.08 + .04 - p.x.abs()
    lower = .55 * P.jaw
    box = window(torch.minimum(.29 + lower - (p.y - P.ym - .01 + lower).abs(), aside))
    if box:
        mouth = lips(C, inside(box), alb[box], gloss[box])
        mouth.box = box
    return alb, gloss, occ, eye, mouth


def skin(C, p):
    """Albedo and gloss of bare skin: blood in cheeks and nose, dark eye sockets, freckles."""
    P, ax, x, y = C.maps, p.x.abs(), p.x, p.y
    base, tone = C.skin, P.tone / 9
    cheeks = bell(ax - .40, .17, y + .25, .14).mul_(.42)
    nose = bell(x, .10, y + (P.nose_length - .03), .08)
    blood = torch.add(cheeks, nose, alpha=.40).add_(p.n1, alpha=.10)
    socket = gauss(y + .07, .055).mul_(.22 + .33 * P.age).add_(gauss(y - .055, .06), alpha=.40)
    socket *= gauss(ax - (P.eye_spacing - .02), .15)
    alb = base * (1 + .06 * p.n2[:, None])
    lay(alb, base * RED, blood.mul_(1 - .55 * tone).clamp_(-.3, .8))
    lay(alb, base * DARK, socket.mul_(.75).clamp_(0, .8))
    rows = (C.freckles[:, 0] > 0).nonzero()[:, 0]                # few people have any
    if len(rows):
        u, v = x[rows] * CELLS, y[rows] * CELLS
        i, j = u.floor(), v.floor()                              # one or none a cell of a grid
        seed = (P.seed[rows] % 97).float()
        first = torch.frac(torch.sin(i * 12.99 + j * 78.23 + seed).abs() * 4375.85)
        second, third = torch.frac(first * 57.3), torch.frac(first * 917.)
        off = (u - i - .3 - .4 * first).square_() + (v - j - .3 - .4 * second).square_()
        size = .06 + .14 * third + .3 * CELLS * P.px[rows]
        dots = gauss(off.sqrt_(), size) * (third > .45) * (.14 / size).clamp(max=1)
        spread = P.freckles[rows] * gauss(ax[rows] - .2, .3) * gauss(y[rows] + .18, .2)
        dots = dots.mul_(spread).mul_(.75)
        dotted = alb[rows]
        lay(dotted, base[rows] * DARK * .8, dots)
        alb[rows] = dotted
    shine = torch.add(bell(x, .12, y + .2, .3), gauss(y - .45, .2))
    return alb, shine.mul_(.2).add_(.35).mul_(1 - .65 * tone)


def brows(C, p, alb, gloss, occ):
    """Brow hairs, and the shade under a lowered brow."""
    P, ax, x, y, px = C.maps, p.x.abs(), p.x, p.y, C.maps.px
    ex, ey, uh, b1, b2, b4, bx, yb = sided(C, "ex ey uh b1 b2 b4 bx yb", x)
    t = (ax - bx) / P.brow_length                                # 0 inside, 1 outside
    tl, tc = t.clamp(-.3, 1.4), t.clamp(0, 1)
    line = (yb + P.brow_arch * (1 - ((tl - .62) / .62) ** 2) + P.brow_tilt * (tl - .5)
            + b1 * gauss(tl, .48) + b2 * gauss(tl - .80, .52) - b4 * (1.05 - .85 * tl.clamp(0, 1)))
    half = P.brow_thick * (1.08 - .75 * tc * tc) * (.75 + .25 * smooth(t, -.05, .2))
    mask = ramp(half - (y - line).abs(), P.aa + .018)
    mask = mask * smooth(t, -.10, .10) * smooth(t, 1.10, .80)
    across = (ax + (y - line) * (.9 - 1.8 * t)) * 260
    hairs = torch.sin(across + P.seed.float() % 7) * (1 / (260 * px * .6)).clamp(max=1)
    mask = mask * (P.brow_density + .12 * hairs + .08 * p.n2).clamp_(.5, 1)
    lay(alb, torch.minimum(C.hair_rgb * .85 + .004, C.skin * .45), mask)
    gloss *= 1 - mask
    shade = 3.0 * b4 * smooth(line - y, half * .2, half + .02) * smooth(y, ey + uh * .8, line)
    occ += shade * gauss(ax - ex + .03, .16)


def eyes(C, p, alb):
    """Paint lids and lashes; return eyeball, opening, lashes and glint as layers."""
    P, base, x, y, px, aa = C.maps, C.skin, p.x, p.y, C.maps.px, C.maps.aa
    ex, ey, uh, lh = sided(C, "ex ey uh lh", x)
    lx = p.x.abs() - ex
    te = lx / P.ew
    te2, tip = te * te, P.eye_tilt * te
    arc = (1 - te2) * (1 - .22 * te + .10 * te2)                 # the upper arc peaks medially
    upper = ey + tip + uh * arc
    lower = ey + tip - lh * (1 - te2) * (1 + .22 * te)
    inside = ramp(upper - y, aa) * ramp(y - lower, aa) * (te2 < 1).float()
    span = smooth(te2, 1.15, .75)
    thick = .75 + .35 * P.makeup + .25 * smooth(te, -.2, .9)
    lash = gauss(y - upper - .004, .011 + .4 * px) * span * thick.clamp_(0, 1)
    crease_y = torch.maximum(upper + .022, ey + tip + .058 * arc)     # stays when the lid closes
    crease_y = crease_y + .008 + .016 * P.lid_crease
    crease = gauss(y - crease_y, .011 + .3 * px) * span * P.lid_crease.clamp(0, 1) * .55
    lay(alb, base * DARK * .55, crease.clamp_(0, .7))
    lid = ramp(y - upper, aa) * ramp(crease_y - y, .02) * span
    lay(alb, base * tint(.75, .35, .42), lid * .55 * P.makeup)
    lower_lash = gauss(y - lower + .004, .008 + .3 * px) * span * (.28 + .3 * P.makeup)
    lay(alb, base * tint(.80, .55, .50), lower_lash.clamp_(0, 1) * .8)
    shade = .55 + .45 * smooth(upper - y, .0, .035)
    colour, glint = eyeball(C, p, lx, y - ey, te, shade)
    lash, glint = lash.clamp_(0, 1), inside * glint
    return SimpleNamespace(colour=colour, inside=inside, lash=lash, glint=glint)


def eyeball(C, p, x, y, te, shade):
    """Colours of white, iris, pupil, and the glint; x, y about the eye, te between its corners."""
    px, sign, aa = C.maps.px, p.x.sign(), C.maps.aa
    gx, gy = C.gaze[:, 0].view(-1, 1, 1), C.gaze[:, 1].view(-1, 1, 1)
    ix, iy = x - gx * .058 * sign, y - .004 - gy * .036
    r = (ix * ix + iy * iy).sqrt_()
    white = (1 - .85 * (te * te) - 5. * y ** 2).clamp_(.25, 1) * shade
    spoke = 1 + .25 * torch.sin(torch.atan2(iy, ix) * 13) * gauss(r - .04, .02)
    iris = C.iris_rgb * (spoke * shade * (.75 + 6 * (-iy).clamp_(0, .06)))[:, None]
    colour = tint(.62, .56, .52) * white[:, None]
    lay(colour, iris, ramp(.064 - r, aa))
    lay(colour, iris * .25, gauss(r - .064, .010) * .7)
    lay(colour, tint(.004, .004, .004), ramp(.027 - r, aa))
    lay(colour, C.skin * RED * .8, gauss(te + .93, .10) * .7)   # inner corner
    size = .011 + .25 * px
    return colour, gauss(x - gx * .05 * sign - .020 * sign, size) * gauss(iy - .026, size)


def lips(C, p, alb, gloss):
    """Paint the lips; return the opening, the seam where closed lips meet, and the inner edges."""
    P, x, y, px, aa = C.maps, p.x, p.y, C.maps.px, C.maps.aa
    t, ui, li, uo, lo, line, _ = lip_curves(C, x)
    cx, = sided(C, "cx", x)
    mask = ramp(uo - y, aa + .008) * ramp(y - lo, aa + .010) * ramp((1 - t) * cx, aa + .015)
    pale, red = tint(.88, .52, .50), tint(.78, .32, .33)
    colour = C.skin * torch.lerp(pale, red, P.lip_red[:, None])
    colour = torch.lerp(colour, tint(.32, .03, .04), (.7 * P.makeup)[:, None])
    lines = 1 - .10 * torch.sin(x * 120 + 3 * p.n2) * (1 / (120 * px * .5)).clamp(max=1)
    upper = ramp(y - line, .02)
    lay(alb, colour * (lines * (1 - .22 * upper))[:, None], mask * .92)
    gloss.copy_(torch.lerp(gloss, (.75 + .5 * P.makeup).expand_as(gloss), mask * (1 - upper)))
    opening = ramp(ui - y, aa) * ramp(y - li, aa) * (t < 1).float()
    seam = gauss(y - line, .009 + .35 * px) * smooth(t, 1.06, .9)
    seam = seam * (1 - P.part) * (.75 + .35 * P.press)
    return SimpleNamespace(opening=opening, seam=seam.clamp_(0, 1), ui=ui, li=li)


def mouth_interior(C, x, y, m):
    """Cavity, tongue and teeth: the upper ones fixed to the skull, the lower ones to the jaw."""
    P, px, aa = C.maps, C.maps.px, C.maps.aa
    tt = x / (C.cx.mean(1).view(-1, 1, 1) * .92)
    t2 = tt * tt
    arch = (1 - t2).clamp(0, 1)
    upper = ramp(y - (P.ym - .028 + .030 * t2), aa) * ramp(m.ui - y - .002, aa)
    lower = ramp(P.ym - .038 - P.jaw + .028 * t2 - y, aa) * ramp(y - m.li - .004, aa)
    between = gauss(torch.remainder(x + .0225, .045) - .0225, .004 + .3 * px)
    gaps = 1 - .28 * between * (.012 / px).clamp(max=1)
    shade = (.25 + .75 * arch) * (.55 + .45 * smooth(m.ui - y, .0, .03))
    tongue, tooth = tint(.30, .085, .08), tint(.66, .60, .50)
    colour = tint(.045, .010, .010).repeat(x.shape[0], 1, *x.shape[1:])
    tip = m.li + .30 * (m.ui - m.li)
    seen = .8 * smooth(m.ui - m.li, .02, .12) * ramp(tip - y + .02 * arch, .04)
    lay(colour, tongue * (.35 + .5 * arch)[:, None], seen * smooth(tt.abs(), .85, .5))
    lay(colour, tooth * (.6 * shade * gaps)[:, None], lower * smooth(tt.abs(), .80, .62) * .85)
    lay(colour, tooth * (shade * gaps)[:, None], upper * smooth(tt.abs(), .99, .84))
    return colour


def face(C, lamp, rays, hit, tables, box):
    """Colours of the face inside a window `[n, 3, h, w]`, and the light on it."""
    d = [v[box] for v in rays.head]
    t = hit[box]
    x, y, z = (a + t * b for a, b in zip(rays.head_origin, d, strict=True))
    h, hx, hy, Gx, Gy, occ, shadow, zone = lookup(tables.surface[:, 1:], x, y).unbind(1)
    w = z - DEPTH * h
    shadow = shadow * smooth(w, .0, .25)                     # tabulated for the front half
    w *= 1 / DEPTH ** 2
    slope = (torch.addcmul(Gx, w, hx, value=-1), torch.addcmul(Gy, w, hy, value=-1), w)
    normal = unit(torch.stack(slope, 1))
    noise = lookup(tables.skin, x, y)
    p = Patch(x, y, z, noise[:, 0], noise[:, 1])
    alb, gloss, folds, eye, mouth = paint(C, p, zone)
    occlusion = (1 - occ - folds).clamp_(.12, 1.12)
    view = torch.stack(d, 1)
    colour, ndl = light(lamp, normal, alb, occlusion, view, gloss, shadow)
    lit = ndl.clamp_(-.3, 1).add_(1).mul_(.4).mul_(1 - .5 * shadow[:, None])
    lit = torch.addcmul(.36 * lamp.ambient, lit, lamp.key)
    if eye:
        part = colour[eye.box]
        lay(part, eye.colour * lit[eye.box], eye.inside)
        lay(part, torch.minimum(C.hair_rgb * .15, part * .35), eye.lash)
        part.addcmul_(eye.glint[:, None], lamp.key, value=.55)
    if mouth:
        part = colour[mouth.box]
        if bool((mouth.opening > 0).any()):
            ray = view[mouth.box]
            back = .055 / (-ray[:, 2]).clamp(min=.3)         # the interior lies behind the lips
            deep_x, deep_y = x[mouth.box] + ray[:, 0] * back, y[mouth.box] + ray[:, 1] * back
            inner = mouth_interior(C, deep_x, deep_y, mouth)
            lay(part, inner * lit[mouth.box], mouth.opening)
        lay(part, part * tint(.24, .15, .15), mouth.seam)
    P = C.maps
    if bool((P.glasses > 0).any()):                          # their side pieces
        side = P.eye_spacing + P.glasses_size * .95
        bar = ramp(.014 - (y - .04).abs(), P.aa)
        bar = bar * smooth(x.abs(), side, side + .1 * P.glasses_size)
        lay(colour, C.glasses_rgb * lit, bar * (P.glasses > 0).float())
    return colour, lit
