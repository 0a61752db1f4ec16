"""The head as a surface: tables of height, width, slope, hollows and shadow over the frontal plane, and where rays meet it.

Head frame: x to the subject's left, y up, z out of the face; the head is 2 high, the eyes lie at y = 0. The surface is q = 1 with
q^2 = G(x, y) + ((z - h(x, y)) / D)^2 with G = X (.74 + .26 X^2) + Y(y), X = (x / W(y))^2. h and G are tabulated once a face, rays
march against the table, and every feature is painted by the x and y of its hit.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F

from .controls import both, lip_curves, sided
from .folds import beard_zone, darken, spots
from .shapes import LOG2E, X0, X1, Y0, Y1, at, frontal, gauss, part, power, quadric, ramp, reach, smooth, step

DEPTH = 0.80                                     # front-to-back half depth of the head
FAR = 1e3                                        # distance that no ray reaches


def grid(T, device):
    """Head coordinates of a table's columns `[1, 1, 5 T / 6]` and rows `[1, T, 1]`."""
    return torch.linspace(X0, X1, T * 5 // 6, device=device).view(1, 1, -1), torch.linspace(Y0, Y1, T, device=device).view(1, T, 1)


def head_table(C, light, T):
    """Tabulates the head.

    Args:
        C: control points of n faces.
        light: unit direction towards the light, head frame `[n, 3]`.
        T: rows of the table.
    Returns:
        `[n, 8, T, 5 T / 6]`: profile G and height h / DEPTH; slopes of h, then of G / 2, along x and y; occlusion; cast shadow; where one
        of the faces has a beard, a ninth, the zone it grows in.
    """
    x, y = grid(T, light.device)
    low = (-y / (C.I['face_length'] + C.jaw.view(-1, 1, 1))).clamp(0, 1.15)
    iw2, Y = outline(C, y, low)
    h, occ = features(C, x, y)
    h += .10 * low
    square = x * x * iw2
    G = torch.addcmul(Y, square, .74 + .26 * square * square)
    bearded = bool((C.I['beard'] + C.I['stubble'] > 0).any())
    out = h.new_empty(len(h), 9 if bearded else 8, *h.shape[1:])
    out[:, 0] = G
    torch.mul(h, 1 / DEPTH, out=out[:, 1])
    slopes(h, 1., out[:, 2], out[:, 3])
    slopes(G, .5, out[:, 4], out[:, 5])
    torch.add(occ, cavity(h), alpha=1.05, out=out[:, 6])
    cast_shadow(h + DEPTH * (1 - G).clamp_(min=0).sqrt_(), light, out[:, 7])
    if bearded:
        box, xs, ys = part(x, y, (-.85, .85), (-1.4, .02))
        at(out[:, 8].zero_(), box).copy_(beard_zone(C, xs, ys))
    return out


def features(C, x, y):
    """Height that everything on the face adds, and how dark its folds are, `[n, rows, columns]` each."""
    h, occ = relief(C, x, y), Bumps(C.jaw.shape[0], x, y)
    spots(C, occ.add, (Y1 - Y0) / (y.shape[1] - 1))
    occ = occ.sum()
    darken(C, x, y, occ)
    box, xs, ys = part(x, y, (-.42, .42), (-.56, .36))
    at(h, box).add_(nose(C, xs, ys))
    box, xs, ys = part(x, y, (-.62, .62), (-1.15, -.22))
    height, fold = mouth_relief(C, xs, ys)
    at(h, box).add_(height)
    at(occ, box).add_(fold)
    box, xs, ys = part(x, y, (X0, X1), (-.25, .2))
    at(h, box).add_(crow_feet(C, xs, ys))
    return h, occ


def slopes(a, scale, along_x, along_y):
    """Central differences of a table `[n, rows, columns]` in head coordinates, times a scale, written to two tables."""
    sx, sy = scale * (a.shape[2] - 1) / (2 * (X1 - X0)), scale * (a.shape[1] - 1) / (2 * (Y1 - Y0))
    torch.sub(a[:, :, 2:], a[:, :, :-2], out=along_x[:, :, 1:-1])
    torch.sub(a[:, 2:], a[:, :-2], out=along_y[:, 1:-1])
    for edge, inner in ((0, 1), (-1, -2)):                                 # never seen: the head ends before the table
        along_x[:, :, edge], along_y[:, edge] = along_x[:, :, inner], along_y[:, inner]
    along_x *= sx
    along_y *= sy


def outline(C, y, low):
    """1 / W^2 and vertical profile Y of each row `[n, T, 1]`; `low` is 0 at the eyes and 1 at the chin."""
    I, jaw = C.I, C.jaw.view(-1, 1, 1)
    L = I['face_length']
    yn = torch.where(y > 0, y / 1.0, -y / (L + jaw))
    Y = yn ** 2 * torch.where(y > 0, .72 + .28 * yn ** 2, .45 + .55 * yn ** 4)
    raised = both(C.cheek).view(-1, 1, 1) * .25
    W = (I['face_width'] * (1 - I['jaw_taper'] * low ** 2) + (I['cheekbone'] + raised) * gauss(y + .16, .22)
         + I['jaw_angle'] * gauss(y + .56 * L, .2) - I['temple'] * gauss(y - .30, .16) + .3 * (I['cheek_full'] - .045) * gauss(y + .4, .25))
    return 1 / W ** 2, Y


class Bumps:
    """A sum of bumps that factor into x and y: all bells at once, then one matrix product."""

    def __init__(self, n, x, y):
        self.n, self.x, self.y, self.sign, self.columns = n, x.view(1, 1, -1), y.view(1, 1, -1), [], ([], [], [], [], [])

    def add(self, amp, xc, xs, yc, ys):
        """Adds amp * exp(-((|x| - xc) / xs)^2 - ((y - yc) / ys)^2); values `[n, 2]` are per side; xc None is one bump at x = 0."""
        signs = (1.,) if xc is None else (1., -1.)
        self.sign += signs
        for column, value in zip(self.columns, (amp, 0. if xc is None else xc, xs, yc, ys)):
            value = value if torch.is_tensor(value) else float(value)
            column.append((value, len(signs)))

    def sum(self):
        """The map `[n, rows, columns]`."""
        amp, xc, xs, yc, ys = (self.gather(c) for c in self.columns)
        sign = self.x.new_tensor(self.sign).view(1, -1, 1)
        fx = gauss(sign * self.x - xc, xs).mul_(amp)
        return torch.bmm(gauss(self.y - yc, ys).transpose(1, 2), fx)

    def gather(self, column):
        """One argument of all bumps `[n, K, 1]`: numbers in one go, then the tensors."""
        out = self.x.new_tensor([0. if torch.is_tensor(v) else v for v, k in column for _ in range(k)]).repeat(self.n, 1)
        where, parts, i = [], [], 0
        for v, k in column:
            if torch.is_tensor(v):
                where += range(i, i + k)
                parts.append(v.reshape(self.n, -1).expand(-1, k))
            i += k
        if parts:
            out[:, where] = torch.cat(parts, 1)
        return out[..., None]


def relief(C, x, y):
    """Height that separable bumps make: bones, cheeks, eyeballs, and the folds that lie along an axis `[n, rows, columns]`."""
    own = lambda k: C.I[k].view(-1, 1)
    bumps = Bumps(C.jaw.shape[0], x, y)
    chin_y = chin(C)
    skull(C, own, bumps.add, chin_y)
    creases(C, own, bumps.add, chin_y)
    return bumps.sum()


def chin(C):
    """Height of the chin's middle `[n, 1]`."""
    return -C.I['face_length'].view(-1, 1) * .87 - C.jaw + .02 * C.chinw


def skull(C, own, bump, chin_y):
    """Bones, cheeks, eyeballs, nose wings and muzzle."""
    ynb, ala = -own('nose_length'), C.ala
    bd = C.b1 * .5 + C.b2 * .6 - C.b4 * .8
    bump(own('brow_ridge') + .25 * C.b4, .27, .20, own('brow_height') - .01 + bd, .075)
    bump(own('brow_ridge') * .6 + .30 * both(C.b4), None, .10, .17 + both(bd), .09)
    bump(own('forehead_round'), None, .38, .50, .2)
    bump(-own('eye_depth') * .9, C.ex - .02, .16, .01, .115)
    bump(-.035, .10, .055, .01, .07)                                       # medial canthus hollow
    bump(.055 + .012 * C.close, C.ex, .115, C.ey, .072)                    # eyeball under the lids
    bump(own('cheekbone') + .025, .47, .15, -.17, .11)
    bump(own('cheek_full'), .40, .17, -.42, .18)
    bump(C.cheek, .37, .135, -.215, .085)                                  # raised cheek, AU6/12
    bump(-.35 * C.cheek, .36, .15, -.095, .028)
    bump(.080 + .03 * C.oval, None, .27, C.ym, .17)                        # muzzle
    bump(own('chin_proj') + .012 * C.chinw, None, own('chin_width'), chin_y, .105)
    bump(-own('chin_cleft'), None, .03, chin_y, .07)
    bump(-.045 - .020 * C.chinw, None, .15, (C.ym + chin_y) / 2 - .02 - .5 * C.jaw, .045)  # mentolabial sulcus
    bump(own('nose_tip'), None, .065, ynb + .045, .05)
    bump(.085 + .02 * ala, own('nose_width') * .98, .048, ynb + .022 + ala, .046)           # alae
    bump(-.022, None, .022, (C.ym + ynb) / 2 + .01, .06)                   # philtrum
    bump(.012, .04, .016, (C.ym + ynb) / 2 + .01, .06)
    bump(own('nose_bump'), None, .05, -.03, .07)


def creases(C, own, bump, chin_y):
    """Dimples, marionette lines, furrows of brow, forehead and nose root."""
    press = C.press.view(-1, 1)
    bump(-.060 * C.dimple, C.cx + .060, .034, C.ym + C.up * .9, .055)      # dimple, AU14
    bump(.030 * C.dimple, C.cx + .125, .040, C.ym + C.up, .075)
    bump(-.030 * C.mario, C.cx + .012, .028, C.ym - C.down - .075, .055)   # marionette fold, AU15
    bump(-.055 * C.frown, .050, .016, .165, .075)                          # glabellar furrows, AU4
    bump(.035 * C.frown, .082, .022, .150, .06)
    bump(.020 * C.frown, None, .024, .165, .06)
    bump(.028 * press, None, .20, C.ym + .085, .03)       # bulge round pressed lips
    bump(.030 * press, None, .18, C.ym - .10, .035)
    for k, (yy, a) in enumerate(((.330, 1.), (.415, .9), (.500, .7))):     # forehead lines, AU1 centre, AU2 sides
        bump(-.013 * a * C.fore1, .07, .13, yy, .018)
        bump(-.013 * a * C.fore2, .33, .13, yy + .008, .018)
        bump(.006 * a * C.fore1, .07, .15, yy - .04, .02)
    for k in range(3):                                                     # nose root, AU9
        bump(-.026 * C.nosew, None, .075, .105 - .042 * k, .011)
        bump(-.022 * C.nosew, .085, .03, .055 - .045 * k, .011)


def nose(C, xs, ys):
    """Height of the nose ridge in its window."""
    I = C.I
    nl, np_, nb = I['nose_length'], I['nose_proj'], I['nose_bridge']
    s = ((.13 - ys) / (.13 + nl)).clamp(0, 1.3)                            # 0 at the root, 1 at the base
    prof = (nb + (np_ - nb) * s ** 1.15) * smooth(ys, .26, .03) * smooth(ys, -nl - .045, -nl + .055)
    wid = I['nose_bridge_width'] + (I['nose_width'] * .78 - I['nose_bridge_width']) * s ** 2
    return prof * torch.exp2(-LOG2E * power((xs / wid).abs().clamp_(min=1e-6), 2.2))


def mouth_relief(C, xs, ys):
    """Height of lips, nasolabial fold, chin pebbling and pucker lines in their window, and the darkness of the fold."""
    I, nl = C.I, C.I['nose_length']
    v = lambda k: getattr(C, k).view(-1, 1, 1)
    t, ui, li, uo, lo_, line, taper = lip_curves(C, xs)
    full = taper.sqrt()
    pout = v('pout')
    lu = gauss(ys - (ui + uo) / 2, .62 * (uo - ui) + .012) * (.030 + .5 * (uo - ui) * .9 + pout * .9)
    ll = gauss(ys - (li + lo_) / 2, .62 * (li - lo_) + .012) * (.034 + .5 * (li - lo_) + pout)
    gap = torch.sigmoid((ui - ys) / .008) * torch.sigmoid((ys - li) / .008) * (ui - li).clamp(0, .05) * 2
    seam = gauss(ys - line, .013) * .030 * (1 - v('part'))
    corner = gauss(t - 1.02, .10) * gauss(ys - line, .028) * .035
    patch = (lu + ll) * full + pout * .5 * gauss(xs, .17) * gauss(ys - v('y0'), .15) - gap - seam * (t < 1.05) - corner
    nlf, ala_s, cx, up, chk_s = sided(C, ('nlf', 'ala', 'cx', 'up', 'cheek'), xs)
    ax = xs.abs()
    yt, ybm = -nl + .05 + ala_s, v('ym') - .075 + .25 * up
    w = ((yt - ys) / (yt - ybm)).clamp(-.2, 1.25)
    w0 = w.clamp(min=0)
    xf = I['nose_width'] + .045 + (cx + .035 - I['nose_width']) * (w0 * (1.55 - .55 * w0))
    d = (ax - xf) * .85
    env = smooth(w, -.2, .12) * smooth(w, 1.25, .75)
    groove = gauss(d, .024)
    env *= nlf
    patch = patch + env * (.048 * gauss(d - .075, .070) - .040 * groove)
    chinw = v('chinw')
    cyp = chin(C).view(-1, 1, 1)
    peb = torch.sin(xs * 58 + 2.1 * torch.sin(ys * 43)) * torch.sin(ys * 61 + 1.7 * torch.sin(xs * 37))
    patch = patch + .0075 * chinw * peb * gauss(xs, .15) * gauss(ys - cyp - .02, .10)
    pk = torch.sin(xs * 75) * gauss(xs, .2) * (gauss(ys - uo - .035, .03) + gauss(ys - lo_ + .035, .03))
    return patch + .006 * v('pucker') * pk, env.mul_(groove).mul_(.36)


def crow_feet(C, xs, ys):
    """Height of the lines at the outer corners of the eyes, in their rows."""
    crow, = sided(C, ('crow',), xs)
    dx, dy = xs.abs() - (C.ew.view(-1, 1, 1) + C.I['eye_spacing'] + .01), ys - .005
    rr = (dx * dx + dy * dy).sqrt() + 1e-4
    sect = smooth(dx, .0, .04) * gauss(rr - .10, .06)
    return -.013 * crow * sect * (torch.cos(dy / rr * 9 + .5) ** 2 * 2 - 1)


def box_mean(a, k):
    """Means over k by k cells (k odd) of tables `[n, H, W]`; the outermost cells repeat."""
    a = F.pad(a[:, None], (k // 2,) * 4, mode='replicate')[:, 0]
    for axis in (2, 1):
        size = a.shape[axis] - k + 1
        total = a.narrow(axis, 0, size) + a.narrow(axis, 1, size)
        for i in range(2, k):
            total += a.narrow(axis, i, size)
        a = total
    return a.mul_(1 / k ** 2)


def cavity(h):
    """How much deeper than its surroundings each point lies, at a fine and a coarse scale `[n, rows, columns]`."""
    T = h.shape[-2]
    wide = F.avg_pool2d(h[:, None], 4)[:, 0]
    for _ in range(2):
        wide = box_mean(wide, max(3, T // 36) | 1)
    wide = F.interpolate(wide[:, None], size=h.shape[1:], mode='bilinear', align_corners=False)[:, 0]
    near = box_mean(h, max(3, T // 28) | 1)
    return near.sub_(h).mul_(7.5).clamp_(-.25, .8).add_(wide.sub_(h).mul_(2.6).clamp_(-.2, .45))


def cast_shadow(z, light, out):
    """Shadow 0..1 of the front of the head `[n, rows, columns]`: four steps towards the light at half resolution, into `out`."""
    small = z[:, None, ::2, ::2].contiguous()
    rows, columns = small.shape[2:]
    gx, gy = (torch.linspace(-1, 1, k, device=z.device) for k in (columns, rows))
    sx, sy = ((k - .5) / (k - 1) * 2 / extent for k, extent in ((columns, X1 - X0), (rows, Y1 - Y0)))
    lx, ly, lz = (light[:, i].view(-1, 1, 1) for i in range(3))
    lz = lz.clamp(min=.22)[:, None]
    shadow, places = torch.zeros_like(small), small.new_empty(len(z), 2, rows, columns)
    for step in (.05, .10, .16, .24):
        places[:, 0], places[:, 1] = gx + lx * (sx * step), gy.view(-1, 1) + ly * (sy * step)
        there = F.grid_sample(small, places.permute(0, 2, 3, 1), align_corners=True, padding_mode='border')
        shadow = torch.maximum(shadow, there.sub_(small).sub_(lz * step).mul_(1 / (.25 * step + .012)))
    shadow = shadow.clamp_(0, 1)[:, 0]
    right, below = torch.cat([shadow[..., 1:], shadow[..., -1:]], 2), torch.cat([shadow[:, 1:], shadow[:, -1:]], 1)
    across = (shadow + right).mul_(.5)
    out[:, ::2, ::2], out[:, ::2, 1::2] = shadow, across
    torch.add(shadow, below, out=below).mul_(.5)
    out[:, 1::2, ::2] = below
    out[:, 1::2, 1::2] = (below + torch.cat([below[..., 1:], below[..., -1:]], 2)).mul_(.5)


def march_head(table, o, d, C, px, steps=6):
    """Where each ray meets the head.

    Args:
        table: profile and height / DEPTH `[n, 2, rows, columns]`.
        o, d: origin and unit direction of the rays, three maps each.
        C: control points.
        px: size of a pixel `[n, 1, 1]`.
        steps: evaluations of the surface a ray.
    Returns:
        distance along the ray and anti-aliased cover 0..1, `[n, S, S]` each.
    """
    width, length, jaw = C.I['face_width'], C.I['face_length'].clamp(min=1.0), C.jaw.view(-1, 1, 1)
    centre, axes = (0 * width, -.5 * jaw, 0 * width), (width + .05, length + .5 * jaw + .03, 0 * width + DEPTH)
    box = reach(o, d, centre, axes[:2] + (axes[2] + .35,), 1.15)           # a nose in profile sticks out
    hit, cover = torch.full_like(d[0], 6.5), torch.zeros_like(d[0])
    if box:
        d = [at(v, box) for v in d]
        entry, _, m = quadric(o, d, centre, axes)
        t, best, last = trace(table, o, d, entry - .42, steps)
        late = step(last - .003).mul_(step(.8 - m))                        # slowed down by the nose, not there yet
        t, best = torch.lerp(t, entry, late), best.mul_(1 - late)
        at(hit, box).copy_(t)
        at(cover, box).copy_(ramp(px - .58 * best, px * 1.1))
    return hit, cover


def trace(table, o, d, t, steps):
    """Sphere tracing that strides to where the surface lies if q keeps falling, then regula falsi once the surface is bracketed.

    Args:
        table, o, d: as for `march_head`.
        t: distance to begin at `[n, H, W]`.
        steps: evaluations of the surface a ray.
    Returns:
        distance along the ray and, for rays that pass by, the least and the last q - 1 (0 for those that hit), `[n, H, W]` each.
    """
    plane = t.new_empty(t.shape[0], 2, *t.shape[1:])
    places, spots = plane.unbind(1), plane.permute(0, 2, 3, 1)
    start, ahead = frontal(o[0], o[1]).unbind(3), frontal(d[0], d[1], 0., 0.).unbind(3)
    oz, dz = o[2] / DEPTH, d[2] / DEPTH
    best, tbest = torch.full_like(t, 9.), t                                 # nearest approach, for soft silhouettes
    lo, flo, hi, fhi = t, torch.full_like(t, .1), torch.full_like(t, FAR), torch.full_like(t, -.1)
    for k in range(steps):
        for place, a, b in zip(places, start, ahead):
            torch.addcmul(a, t, b, out=place)
        G, h = F.grid_sample(table, spots, align_corners=True, padding_mode='border').unbind(1)
        w = torch.addcmul(oz, t, dz).sub_(h)
        f = torch.addcmul(G, w, w).sqrt_().sub_(1)
        tbest, best = torch.lerp(tbest, t, step(best - f)), torch.minimum(best, f)
        out, stride = step(f.clone()), f * .7
        if k:
            stride = torch.minimum(torch.maximum((t - lo).mul_(f).div_((flo - f).add_(1e-9)), stride), f * 3)
        lo, flo = torch.lerp(lo, t, out), torch.lerp(flo, f, out)
        hi, fhi = torch.lerp(t, hi, out), torch.lerp(f, fhi, out)
        inside = step(FAR - 1 - hi)
        between = torch.addcmul(lo, hi - lo, (flo / (flo - fhi)).clamp_(.08, .92))
        t = torch.lerp(stride.add_(t), between, inside)
    return torch.lerp(tbest, t, inside), best.clamp_(min=0), f.mul_(1 - inside)
