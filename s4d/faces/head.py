"""The head as a surface: tables of height, slope, hollows and shadow over the frontal plane.

x points to the subject's left, y up, z out of the face; the head is 2 high, the eyes lie at y = 0.
The surface is q = 1 with q^2 = G(x, y) + ((z - h(x, y)) / D)^2, G = X (.74 + .26 X^2) + Y(y) and
X = (x / W(y))^2. `rays` marches against the tables of h and G; features are painted by x and y.
In a table x is a row and y a column, so what depends on one of them costs next to nothing.
"""
import math

import torch
import torch.nn.functional as F

from .controls import both, lip_curves, sided
from .shapes import DEPTH, LOG2E, X0, X1, Y0, Y1, gauss, part, power, smooth


def head_table(C, light, T):
    """Tabulate the head `[n, 9, T, 5 T / 6]`; `light` is the direction to it `[n, 3]`.

    Tables: profile G, height h / DEPTH; slopes of h and G / 2 along x, y; occlusion; shadow; beard.
    """
    x = torch.linspace(X0, X1, T * 5 // 6).view(1, 1, -1)
    y = torch.linspace(Y0, Y1, T).view(1, T, 1)
    P, L = C.maps, C.maps.face_length
    low = (-y / (L + P.jaw)).clamp(0, 1.15)                     # 0 at the eyes, 1 at the chin
    yn = torch.where(y > 0, y / 1.0, -y / (L + P.jaw))
    Y = yn ** 2 * torch.where(y > 0, .72 + .28 * yn ** 2, .45 + .55 * yn ** 4)
    W = (P.face_width * (1 - P.jaw_taper * low ** 2)
         + (P.cheekbone + P.raised * .25) * gauss(y + .16, .22)
         + P.jaw_angle * gauss(y + .56 * L, .2) - P.temple * gauss(y - .30, .16)
         + .3 * (P.cheek_full - .045) * gauss(y + .4, .25))
    square = x * x * (1 / W ** 2)
    G = torch.addcmul(Y, square, .74 + .26 * square * square)
    h, occ = features(C, x, y)
    h += .10 * low
    out = h.new_empty(len(h), 9, *h.shape[1:])
    out[:, 0] = G
    torch.mul(h, 1 / DEPTH, out=out[:, 1])
    slopes(h, 1., out[:, 2], out[:, 3])
    slopes(G, .5, out[:, 4], out[:, 5])
    torch.add(occ, cavity(h), alpha=1.05, out=out[:, 6])
    cast_shadow(h + DEPTH * (1 - G).clamp_(min=0).sqrt_(), light, out[:, 7])
    box, xs, ys = part(x, y, (-.85, .85), (-1.4, .02))
    out[:, 8].zero_()[box].copy_(beard_zone(C, xs, ys))
    return out


def features(C, x, y):
    """Height of everything on the face, and darkness of its folds, `[n, rows, columns]` each."""
    n, P, nl, ala = len(C.jaw), C.maps, C.maps.nose_length, C.ala
    h = bumps(relief(C), n, x, y)
    cell = (Y1 - Y0) / (y.shape[1] - 1)
    occ = bumps([(.55, C.nose_width + .035, .020, ala - C.nose_length + .02, .035),      # nose wing
                 (.72, .052, .026, .4 * ala - C.nose_length - .022, .012 + .3 * cell),    # nostril
                 (.62 * C.dimple, C.cx + .050, .020, C.ym + C.up, .06)], n, x, y)
    wrinkles(C, x, y, occ)
    box, xs, ys = part(x, y, (-.42, .42), (-.56, .36))
    s = ((.13 - ys) / (.13 + nl)).clamp(0, 1.3)                 # 0 at the root, 1 at the base
    ridge = P.nose_bridge + (P.nose_proj - P.nose_bridge) * s ** 1.15
    ridge = ridge * smooth(ys, .26, .03) * smooth(ys, -nl - .045, -nl + .055)
    width = P.nose_bridge_width + (P.nose_width * .78 - P.nose_bridge_width) * s ** 2
    h[box].add_(ridge * torch.exp2(-LOG2E * power((xs / width).abs().clamp_(min=1e-6), 2.2)))
    box, xs, ys = part(x, y, (-.62, .62), (-1.15, -.22))
    height, fold = mouth_relief(C, xs, ys)
    h[box].add_(height)
    occ[box].add_(fold)
    box, xs, ys = part(x, y, (X0, X1), (-.25, .2))              # lines at the eyes' outer corners
    crow, = sided(C, "crow", xs)
    dx, dy = xs.abs() - (P.ew + P.eye_spacing + .01), ys - .005
    r = (dx * dx + dy * dy).sqrt() + 1e-4
    sector = smooth(dx, .0, .04) * gauss(r - .10, .06)
    h[box].add_(-.013 * crow * sector * (torch.cos(dy / r * 9 + .5) ** 2 * 2 - 1))
    return h, occ


def bumps(entries, n, x, y):
    """Sum bumps `amp * exp(-((|x| - xc) / xs)^2 - ((y - yc) / ys)^2)`: `[n, rows, columns]`.

    Entries hold amp, xc, xs, yc, ys: numbers or `[n, 1]`, or left and right `[n, 2]`. A bump whose
    xc is None lies at x = 0. They factor: all bells at once, then one matrix product.
    """
    signs, columns = [], ([], [], [], [], [])
    for amp, xc, *others in entries:
        sides = (1.,) if xc is None else (1., -1.)
        signs += sides
        for column, v in zip(columns, (amp, 0. if xc is None else xc, *others), strict=True):
            column.append(torch.as_tensor(v).expand(n, len(sides)))
    amp, xc, xs, yc, ys = (torch.cat(column, 1)[..., None] for column in columns)
    fx = gauss(x.new_tensor(signs).view(1, -1, 1) * x.view(1, 1, -1) - xc, xs).mul_(amp)
    return torch.bmm(gauss(y.view(1, 1, -1) - yc, ys).transpose(1, 2), fx)


def relief(C):
    """Bumps of skull, cheeks, nose and muzzle, then of dimples, furrows and lines."""
    base, ala = -C.nose_length, C.ala
    raised = C.b1 * .5 + C.b2 * .6 - C.b4 * .8
    philtrum = (C.ym + base) / 2 + .01
    sulcus = (C.ym + C.chin) / 2 - .02 - .5 * C.jaw                 # between lower lip and chin
    found = [
        (C.brow_ridge + .25 * C.b4, .27, .20, C.brow_height - .01 + raised, .075),
        (C.brow_ridge * .6 + .30 * both(C.b4), None, .10, .17 + both(raised), .09),
        (C.forehead_round, None, .38, .50, .2),
        (-C.eye_depth * .9, C.ex - .02, .16, .01, .115),
        (-.035, .10, .055, .01, .07),                                   # hollow at the inner corner
        (.055 + .012 * C.close, C.ex, .115, C.ey, .072),                # eyeball under the lids
        (C.cheekbone + .025, .47, .15, -.17, .11),
        (C.cheek_full, .40, .17, -.42, .18),
        (C.cheek, .37, .135, -.215, .085),                              # raised cheek, AU6 and AU12
        (-.35 * C.cheek, .36, .15, -.095, .028),
        (.080 + .03 * C.oval, None, .27, C.ym, .17),                    # muzzle
        (C.chin_proj + .012 * C.chinw, None, C.chin_width, C.chin, .105),
        (-C.chin_cleft, None, .03, C.chin, .07),
        (-.045 - .020 * C.chinw, None, .15, sulcus, .045),
        (C.nose_tip, None, .065, base + .045, .05),
        (.085 + .02 * ala, C.nose_width * .98, .048, base + .022 + ala, .046),
        (-.022, None, .022, philtrum, .06),
        (.012, .04, .016, philtrum, .06),
        (C.nose_bump, None, .05, -.03, .07),
        (-.060 * C.dimple, C.cx + .060, .034, C.ym + C.up * .9, .055),  # dimple, AU14
        (.030 * C.dimple, C.cx + .125, .040, C.ym + C.up, .075),
        (-.030 * C.mario, C.cx + .012, .028, C.ym - C.down - .075, .055),  # marionette fold, AU15
        (-.055 * C.frown, .050, .016, .165, .075),                      # between the brows, AU4
        (.035 * C.frown, .082, .022, .150, .06),
        (.020 * C.frown, None, .024, .165, .06),
        (.028 * C.press, None, .20, C.ym + .085, .03),                  # round pressed lips
        (.030 * C.press, None, .18, C.ym - .10, .035)]
    for y, a in ((.330, 1.), (.415, .9), (.500, .7)):           # forehead: AU1 centre, AU2 sides
        found += [(-.013 * a * C.fore1, .07, .13, y, .018),
                  (-.013 * a * C.fore2, .33, .13, y + .008, .018),
                  (.006 * a * C.fore1, .07, .15, y - .04, .02)]
    for k in range(3):                                          # nose root, AU9
        found += [(-.026 * C.nosew, None, .075, .105 - .042 * k, .011),
                  (-.022 * C.nosew, .085, .03, .055 - .045 * k, .011)]
    return found


def wrinkles(C, x, y, occ):
    """Darken the occlusion `[n, rows, columns]`, in place, by lines of brows, eyes and mouth."""
    P = C.maps
    box, xs, ys = part(x, y, (-.8, .8), (.22, .64))              # forehead: AU1 centre, AU2 sides
    ax = xs.abs()
    fore1, fore2 = sided(C, "fore1 fore2", xs)
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
    box, xs, ys = part(x, y, (-.85, .85), (-.30, .25))           # crow's feet, bags under the eyes
    ax, area = xs.abs(), occ[box]
    ex, ey, crow, bag = sided(C, "ex ey crow bag", xs)
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
    cx, down, mario = sided(C, "cx down mario", xs)
    drop = ys - (P.ym - down)
    aside = (-drop - .05).clamp_(0).mul_(.25).add_(cx + .006)
    area += gauss(aside.sub_(xs.abs()), .018).mul_(gauss(drop + .075, .05)).mul_(.45 * mario)
    level = P.ym - P.lower_lip - .062 - .5 * P.jaw - .6 * xs * xs
    area += gauss(ys - level, .022).mul_(.26 * (P.chinw + .25) * gauss(xs, .15))


def mouth_relief(C, x, y):
    """Height of lips, nasolabial fold, pebbled chin and pucker, and darkness of the fold."""
    P = C.maps
    t, ui, li, uo, lo, line, taper = lip_curves(C, x)
    upper = gauss(y - (ui + uo) / 2, .62 * (uo - ui) + .012)
    upper = upper * (.030 + .5 * (uo - ui) * .9 + P.pout * .9)
    lower = gauss(y - (li + lo) / 2, .62 * (li - lo) + .012) * (.034 + .5 * (li - lo) + P.pout)
    gap = torch.sigmoid((ui - y) / .008) * torch.sigmoid((y - li) / .008)
    gap = gap * (ui - li).clamp(0, .05) * 2
    seam = gauss(y - line, .013) * .030 * (1 - P.part)
    corner = gauss(t - 1.02, .10) * gauss(y - line, .028) * .035
    pout = P.pout * .5 * gauss(x, .17) * gauss(y - P.y0, .15)
    height = (upper + lower) * taper.sqrt() + pout - gap - seam * (t < 1.05) - corner
    nlf, ala, cx, up = sided(C, "nlf ala cx up", x)
    top, bottom = -P.nose_length + .05 + ala, P.ym - .075 + .25 * up
    w = ((top - y) / (top - bottom)).clamp(-.2, 1.25)           # 0 at the nose, 1 below the corner
    w0 = w.clamp(min=0)
    middle = P.nose_width + .045 + (cx + .035 - P.nose_width) * (w0 * (1.55 - .55 * w0))
    d = (x.abs() - middle) * .85
    strength = smooth(w, -.2, .12) * smooth(w, 1.25, .75)
    strength *= nlf
    groove = gauss(d, .024)
    fold = strength * (.048 * gauss(d - .075, .070) - .040 * groove)
    pebbles = (torch.sin(x * 58 + 2.1 * torch.sin(y * 43))
               * torch.sin(y * 61 + 1.7 * torch.sin(x * 37)))
    pebbled = .0075 * P.chinw * pebbles * gauss(x, .15) * gauss(y - P.chin - .02, .10)
    above_below = gauss(y - uo - .035, .03) + gauss(y - lo + .035, .03)
    pucker = torch.sin(x * 75) * gauss(x, .2) * above_below
    return height + fold + pebbled + .006 * P.pucker * pucker, strength.mul_(groove).mul_(.36)


def beard_zone(C, x, y):
    """Map where a beard grows, 0..1 `[n, rows, columns]`."""
    P, ax = C.maps, x.abs()
    _, _, _, uo, lo, _, _ = lip_curves(C, x)
    cx, = sided(C, "cx", x)
    nl = P.nose_length
    zone = smooth(y, -.10, -.42) * smooth(ax, .40, .52) + smooth(y, P.ym - .07, P.ym - .14)
    taper = smooth(y + .35 * ax, -nl + .01, -nl - .06)      # a moustache falls to the sides
    zone = zone.addcmul(smooth(y, uo - .03, uo + .015) * smooth(ax, cx + .07, cx - .07), taper)
    zone.addcmul_(gauss(y - (lo - .06), .05), gauss(x, .05))
    zone.addcmul_(smooth(y, P.ym + .10, P.ym - .06), smooth(ax, cx, cx + .09))
    return zone.clamp_(0, 1).mul_(smooth(y, -.02, -.16))


def slopes(a, scale, along_x, along_y):
    """Write central differences in head coordinates, times a scale, to two tables."""
    sx = scale * (a.shape[2] - 1) / (2 * (X1 - X0))
    sy = scale * (a.shape[1] - 1) / (2 * (Y1 - Y0))
    torch.sub(a[:, :, 2:], a[:, :, :-2], out=along_x[:, :, 1:-1]).mul_(sx)
    torch.sub(a[:, 2:], a[:, :-2], out=along_y[:, 1:-1]).mul_(sy)
    for edge, inner in ((0, 1), (-1, -2)):
        along_x[:, :, edge], along_y[:, edge] = along_x[:, :, inner], along_y[:, inner]


def cavity(h):
    """How much deeper than its surroundings each point lies, at a fine and a coarse scale."""
    def box_mean(a, k):                        # over k by k cells; the outermost cells repeat
        a = F.pad(a[:, None], (k // 2,) * 4, mode="replicate")[:, 0]
        for axis in (2, 1):
            a = sum(a.narrow(axis, i, a.shape[axis] - k + 1) for i in range(k))
        return a.mul_(1 / k ** 2)
    fine, coarse = (max(3, h.shape[-2] // cells) | 1 for cells in (28, 36))         # odd
    wide = box_mean(box_mean(F.avg_pool2d(h[:, None], 4)[:, 0], coarse), coarse)
    wide = F.interpolate(wide[:, None], h.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    deep = wide.sub_(h).mul_(2.6).clamp_(-.2, .45)
    return box_mean(h, fine).sub_(h).mul_(7.5).clamp_(-.25, .8).add_(deep)


def cast_shadow(z, light, out):
    """Write the shadow 0..1 of the front of the head: four steps to the light, half resolution."""
    small = z[:, None, ::2, ::2].contiguous()
    rows, columns = small.shape[2:]
    gx, gy = (torch.linspace(-1, 1, k) for k in (columns, rows))
    sx = (columns - .5) / (columns - 1) * 2 / (X1 - X0)
    sy = (rows - .5) / (rows - 1) * 2 / (Y1 - Y0)
    lx, ly, lz = (light[:, i].view(-1, 1, 1) for i in range(3))
    lz = lz.clamp(min=.22)[:, None]
    shadow, places = torch.zeros_like(small), small.new_empty(len(z), 2, rows, columns)
    for far in (.05, .10, .16, .24):
        places[:, 0] = gx + lx * (sx * far)
        places[:, 1] = gy.view(-1, 1) + ly * (sy * far)
        there = F.grid_sample(small, places.permute(0, 2, 3, 1), align_corners=True,
                              padding_mode="border")
        higher = there.sub_(small).sub_(lz * far).mul_(1 / (.25 * far + .012))
        shadow = torch.maximum(shadow, higher)
    shadow = F.pad(shadow.clamp_(0, 1), (0, 1, 0, 1), mode="replicate")
    full = F.interpolate(shadow.mT, (2 * columns + 1, 2 * rows + 1), mode="bilinear",
                         align_corners=True).mT
    out.copy_(full[:, 0, :out.shape[1], :out.shape[2]])
