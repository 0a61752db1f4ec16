"""The head as a surface: actions and identity -> control points -> height table -> hit of each ray."""
from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from .facs import INDEX as AU_INDEX

X0, X1, Y0, Y1 = -1.1, 1.1, -1.5, 1.15          # extent of the displacement table
DEPTH = 0.80                                     # front-to-back half depth of the head


def window(mask):
    """The smallest window (row slice, column slice) that holds every true pixel of a batch `[n, H, W]`; None where there is none."""
    rows, columns = (mask.any(0).any(d).nonzero()[:, 0].tolist() for d in (1, 0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if rows else None


def at(v, box):
    """A view of a window of the last two axes."""
    return v[..., box[0], box[1]]


def unit(v):
    """Vectors along axis 1, scaled to length 1."""
    return v * torch.rsqrt((v * v).sum(1, keepdim=True).clamp_(min=1e-8))


def ramp(x, w):
    """Anti-aliased step: 0 to 1 across a width w around 0."""
    return (x / w).add_(.5).clamp_(0, 1)


def smooth(x, a, b):
    """Smoothstep from 0 at a to 1 at b; a may be the larger one."""
    t = ((x - a) / (b - a)).clamp_(0, 1)
    return (3 - 2 * t).mul_(t).mul_(t)


def gauss(x, s):
    """exp(-(x / s)^2)."""
    if torch.is_tensor(s):
        x = x / s
        return (x * x).neg_().exp_()
    return (x * x).mul_(-1 / (s * s)).exp_()


def controls(I, au, gaze):
    """AU intensities au[n, 2 (left, right), 23] and identity -> moving control points, each [n, 1, 1] or a (left, right) pair."""
    A = lambda k: au[:, :, AU_INDEX[k]]                                  # [n, 2]
    col = lambda k: I[k].view(-1, 1)
    sgn = torch.tensor([[1., -1.]])
    asym = col('asymmetry') * sgn
    mean = lambda t: t.mean(1, keepdim=True)
    C, P = SimpleNamespace(), {}
    # ---- jaw and mouth
    part = (A(25) + 1.0 * A(26) + A(27) + .6 * A(16) + .35 * A(10) * A(9).add(.3) + .6 * A(22)).clamp(0, 1)
    sealed = (1 - .8 * A(24) - .8 * A(28) - .5 * A(23)).clamp(0, 1)
    part = mean(part * sealed)
    jaw = mean(.17 * A(26) + .36 * A(27)).clamp(max=.40)
    ym = -(col('nose_length') + col('philtrum'))
    smile = A(12)
    P['cx'] = col('lip_width') * (1 + .30 * smile + .30 * A(20) + .10 * A(14) + .05 * A(10) - .40 * A(18) - .24 * A(22) - .12 * A(23)
                                  - .05 * A(24) - .10 * A(27) - .06 * A(17) - .03 * A(15) + .03 * A(28)).clamp(min=.45)
    P['up'] = .125 * smile + .050 * A(14) + .012 * A(10) + .3 * asym - .42 * jaw          # corner rise, parabolic
    P['down'] = .010 + .105 * A(15) + .03 * A(20) + .018 * A(17)                                  # corner drop, at the ends
    y0 = ym + mean(.055 * A(17) + .022 * A(10) + .012 * A(9) + .012 * A(24) + .016 * A(12) - .012 * A(15) + .01 * A(28))
    up_lift = .014 * part + .066 * A(10) + .036 * A(9) + .030 * A(12) * part + .022 * A(22) * part + .09 * jaw
    C.part, C.jaw, C.ym, C.y0 = part, jaw, ym, y0
    P['yu'] = y0 + up_lift * (.25 + .75 * part)                                            # upper inner edge at the midline
    P['yl'] = mean(y0 - .042 * part - .075 * A(16) * part - .90 * jaw * part - .025 * A(22) * part) - .020 * A(16) + .012 * A(10) * (1 - part)
    thin = (1 - .24 * smile - .16 * A(20) - .52 * A(23) - .60 * A(24) - .92 * A(28)).clamp(min=.05)
    P['tu'] = col('upper_lip') * thin * (1 + .45 * A(18) + .75 * A(22) - .15 * A(10) + .05 * A(17))
    P['tl'] = col('lower_lip') * thin * (1 + .35 * A(18) + .65 * A(22) + .28 * A(17) - .12 * A(16)) * (1 - .15 * mean(A(27)))
    C.pout = mean(.085 * A(18) + .075 * A(22) + .035 * A(17)) - .025 * mean(A(28)) - .012 * mean(A(24))
    C.oval = (jaw / .16 + .5 * mean(A(22))).clamp(0, 1)
    C.press = mean(A(24) + .6 * A(23) + .8 * A(28)).clamp(0, 1)
    C.pucker = mean(A(18) + .6 * A(22)).clamp(0, 1)
    P['square'] = (A(10) * .8 + A(9) * .3 + A(20) * .6).clamp(0, 1)
    # ---- eyes
    close = A(43)
    uh = .060 * col('eye_open') * (1 + .62 * A(5) - .30 * A(7) - .22 * A(6) - .12 * A(4) - .10 * A(9) - .10 * A(12) * A(6))
    lh = .042 * col('eye_open') * (1 + .10 * A(5) - .62 * A(7) - .58 * A(6) - .30 * A(9))
    P['uh'] = (uh - .012 * gaze[:, 1:2].clamp(-1, 0).neg()) * (1 - close) - .030 * close
    P['lh'] = torch.lerp(lh, torch.full_like(lh, .033), close)
    C.close = close
    P['ex'] = col('eye_spacing') + 0 * asym
    P['ey'] = .5 * asym + 0 * close
    C.ew = .138 * col('eye_size')
    # ---- brows
    P['b1'], P['b2'] = .100 * A(1), .095 * A(2)
    P['b4'] = .112 * A(4) + .050 * A(9)
    P['bx'] = .115 - .030 * A(4) - .008 * A(9)
    P['yb'] = col('brow_height') + 1.0 * asym
    P['brow_sq'] = A(4) * A(1)
    # ---- folds and wrinkles; age adds a floor
    age = col('age')
    P['nlf'] = (.10 + .30 * age + (.75 * smile + .62 * A(10) + .55 * A(9) + .2 * A(6) + .30 * A(14) + .15 * A(20)) * (.65 + .45 * age)).clamp(0, 1.2)
    P['crow'] = (.10 * age + .85 * A(6) + .15 * A(7)) * (.45 + .55 * age)
    P['bag'] = .18 + .35 * age + .65 * A(6) + .45 * A(7)
    P['cheek'] = .070 * A(6) + .055 * A(12) + .015 * A(9)
    P['fore1'] = (.14 * age + .9 * A(1)) * (.5 + .5 * age)
    P['fore2'] = (.14 * age + .9 * A(2)) * (.5 + .5 * age)
    C.frown = mean(.10 * age + .95 * A(4) + .25 * A(9)) * (.65 + .35 * age)
    C.nosew = mean(A(9)) + .12 * mean(A(10))
    P['ala'] = .034 * A(9) + .016 * A(10)
    P['dimple'] = A(14) + .05 * A(12)
    P['mario'] = .12 * age + .8 * A(15) + .3 * A(17) + .25 * A(20)
    C.chinw = mean(A(17) + .35 * A(15))
    P['platysma'] = A(20)
    for k, v in P.items():
        setattr(C, k, v)
    C.I = {k: v.view(-1, 1, 1) for k, v in I.items() if v.dim() == 1}
    return C


def sided(C, names, x):
    """Blends the (left, right) controls across the midline at coordinate x."""
    s = torch.sigmoid(x / .045)
    return [torch.lerp(getattr(C, k)[:, 1].view(-1, 1, 1), getattr(C, k)[:, 0].view(-1, 1, 1), s) for k in names]


def lip_curves(C, x):
    """Lip contours at x: t = |x|/corner, inner upper, inner lower, outer upper, outer lower, line, taper."""
    cx, up, dn, yu, yl, tu, tl, sq = sided(C, ('cx', 'up', 'down', 'yu', 'yl', 'tu', 'tl', 'square'), x)
    v = lambda k: getattr(C, k).view(-1, 1, 1)
    t = x.abs() / cx
    t2 = t * t
    taper = (1 - t2).clamp(min=0)
    oval = v('oval')
    prof = torch.lerp(taper, taper.sqrt(), (.25 + .75 * oval).maximum(sq * .8))
    tt = t2.clamp(max=1.4)
    line = v('y0') + up * tt - dn * tt * tt
    ui = line + (yu - v('y0')) * prof
    li = line + (yl - v('y0')) * prof
    bow = C.I['cupid_bow']
    su = taper.sqrt() * (.45 + .55 * taper) * (1 + bow * torch.exp(-((t - .30) / .17) ** 2) - .6 * bow * torch.exp(-(t / .14) ** 2))
    sl = taper.sqrt() * (.35 + .65 * taper)
    return t, ui, li, ui + tu * su, li - tl * sl, line, taper


def brow_line(C, ax, x):
    b1, b2, b4, bx, yb = sided(C, ('b1', 'b2', 'b4', 'bx', 'yb'), x)
    t = (ax - bx) / C.I['brow_length']
    tc = t.clamp(-.3, 1.4)
    y = (yb + C.I['brow_arch'] * (1 - ((tc - .62) / .62) ** 2) + C.I['brow_tilt'] * (tc - .5)
         + b1 * gauss(tc, .48) + b2 * gauss(tc - .80, .52) - b4 * (1.05 - .85 * tc.clamp(0, 1)))
    return t, y


def head_table(C, light, T):
    """Tabulates the head: returns march table [n, 3, T, T] = (h, 1/W^2, Y) and shade table (h_x, h_y, dy(1/W^2), dy Y, cavity, shadow)."""
    I = C.I
    n = I['age'].shape[0]
    x = torch.linspace(X0, X1, T).view(1, 1, T)
    y = torch.linspace(Y0, Y1, T).view(1, T, 1)
    v = lambda k: getattr(C, k).view(-1, 1, 1)
    jaw, L = v('jaw'), I['face_length']
    Hb = L + jaw
    low = (-y / Hb).clamp(0, 1.15)
    yn = torch.where(y > 0, y / 1.0, -y / Hb)
    Yf = yn ** 2 * torch.where(y > 0, .72 + .28 * yn ** 2, .45 + .55 * yn ** 4)
    chk = (C.cheek.mean(1).view(-1, 1, 1)) * .25
    W = (I['face_width'] * (1 - I['jaw_taper'] * low ** 2) + (I['cheekbone'] + chk) * gauss(y + .16, .22) + I['jaw_angle'] * gauss(y + .56 * L, .2)
         - I['temple'] * gauss(y - .30, .16) + .3 * (I['cheek_full'] - .045) * gauss(y + .4, .25))
    iw2 = (1 / W ** 2)
    fx, fy = [], []

    def bump(amp, xc, xs, yc, ys):
        """Adds amp * exp(-((|x|-xc)/xs)^2 - ((y-yc)/ys)^2); pairs [n, 2] are per side, xc None is central."""
        one = lambda p: p.view(-1, 1) if torch.is_tensor(p) else torch.full((1, 1), float(p))
        if xc is None:
            fx.append((one(amp) * gauss(x.view(1, T) / one(xs), 1.)).expand(n, T))
            fy.append(gauss((y.view(1, T) - one(yc)) / one(ys), 1.).expand(n, T))
            return
        for i, s in ((0, 1.), (1, -1.)):
            pick = lambda p: p[:, i:i + 1] if torch.is_tensor(p) and p.dim() == 2 and p.shape[1] == 2 else one(p)
            fx.append((pick(amp) * gauss((s * x.view(1, T) - pick(xc)) / pick(xs), 1.)).expand(n, T))
            fy.append(gauss((y.view(1, T) - pick(yc)) / pick(ys), 1.).expand(n, T))

    f = lambda k: I[k].view(-1, 1)
    ynb = -f('nose_length')
    ala = C.ala
    chin_y = -f('face_length') * .87 - C.jaw + .02 * C.chinw
    bd = C.b1 * .5 + C.b2 * .6 - C.b4 * .8
    bump(f('brow_ridge') + .25 * C.b4, .27, .20, f('brow_height') - .01 + bd, .075)
    bump(f('brow_ridge') * .6 + .30 * C.b4.mean(1, keepdim=True), None, .10, .17 + bd.mean(1, keepdim=True), .09)
    bump(f('forehead_round'), None, .38, .50, .2)
    bump(-f('eye_depth') * .9, C.ex - .02, .16, .01, .115)
    bump(-.035, .10, .055, .01, .07)                                       # medial canthus hollow
    bump(.055 + .012 * C.close, C.ex, .115, C.ey, .072)                    # eyeball under the lids
    bump(f('cheekbone') + .025, .47, .15, -.17, .11)
    bump(f('cheek_full'), .40, .17, -.42, .18)
    bump(C.cheek, .37, .135, -.215, .085)                                  # raised cheek, AU6/12
    bump(-.35 * C.cheek, .36, .15, -.095, .028)
    bump(.080 + .03 * C.oval, None, .27, C.ym, .17)                        # muzzle
    bump(f('chin_proj') + .012 * C.chinw, None, f('chin_width'), chin_y, .105)
    bump(-f('chin_cleft'), None, .03, chin_y, .07)
    bump(-.045 - .020 * C.chinw, None, .15, (C.ym + chin_y) / 2 - .02 - .5 * C.jaw, .045)  # mentolabial sulcus
    bump(f('nose_tip'), None, .065, ynb + .045, .05)
    bump(.085 + .02 * ala, f('nose_width') * .98, .048, ynb + .022 + ala, .046)           # alae
    bump(-.022, None, .022, (C.ym + ynb) / 2 + .01, .06)                   # philtrum
    bump(.012, .04, .016, (C.ym + ynb) / 2 + .01, .06)
    bump(f('nose_bump'), None, .05, -.03, .07)
    bump(-.060 * C.dimple, C.cx + .060, .034, C.ym + C.up * .9, .055)      # dimple, AU14
    bump(.030 * C.dimple, C.cx + .125, .040, C.ym + C.up, .075)
    bump(-.030 * C.mario, C.cx + .012, .028, C.ym - C.down - .075, .055)   # marionette fold, AU15
    bump(-.055 * C.frown, .050, .016, .165, .075)                          # glabellar furrows, AU4
    bump(.035 * C.frown, .082, .022, .150, .06)
    bump(.020 * C.frown, None, .024, .165, .06)
    bump(.020 * v('press').view(-1, 1), None, .20, C.ym + .085, .03)       # bulge round pressed lips
    bump(.022 * v('press').view(-1, 1), None, .18, C.ym - .10, .035)
    for k, (yy, a) in enumerate(((.330, 1.), (.415, .9), (.500, .7))):     # forehead lines, AU1 centre, AU2 sides
        bump(-.013 * a * C.fore1, .07, .13, yy, .018)
        bump(-.013 * a * C.fore2, .33, .13, yy + .008, .018)
        bump(.006 * a * C.fore1, .07, .15, yy - .04, .02)
    for k in range(3):                                                     # nose root, AU9
        bump(-.026 * C.nosew, None, .075, .105 - .042 * k, .011)
        bump(-.022 * C.nosew, .085, .03, .055 - .045 * k, .011)
    h = torch.bmm(torch.stack(fy, 2), torch.stack(fx, 1))                  # sum of separable bumps, one matrix product
    h = h + .10 * low

    # nose ridge
    ia, ib = int((-.56 - Y0) / (Y1 - Y0) * T), int((.36 - Y0) / (Y1 - Y0) * T)
    ja, jb = int((-.42 - X0) / (X1 - X0) * T), int((.42 - X0) / (X1 - X0) * T)
    xs, ys = x[..., ja:jb], y[:, ia:ib]
    nl, np_, nb = I['nose_length'], I['nose_proj'], I['nose_bridge']
    s = ((.13 - ys) / (.13 + nl)).clamp(0, 1.3)                            # 0 at the root, 1 at the base
    prof = (nb + (np_ - nb) * s ** 1.15) * smooth(ys, .26, .03) * smooth(ys, -nl - .045, -nl + .055)
    wid = I['nose_bridge_width'] + (I['nose_width'] * .78 - I['nose_bridge_width']) * s ** 2
    h[:, ia:ib, ja:jb] += prof * torch.exp(-(xs / wid).abs() ** 2.2)

    # lips, nasolabial fold, crow's feet, chin pebbling
    ia, ib = int((-1.15 - Y0) / (Y1 - Y0) * T), int((-.22 - Y0) / (Y1 - Y0) * T)
    ja, jb = int((-.62 - X0) / (X1 - X0) * T), int((.62 - X0) / (X1 - X0) * T)
    xs, ys = x[..., ja:jb], y[:, ia:ib]
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
    patch = patch + nlf * env * (-.040 * gauss(d, .024) + .048 * gauss(d - .075, .070))
    chinw = v('chinw')
    cyp = chin_y.view(-1, 1, 1)
    peb = torch.sin(xs * 58 + 2.1 * torch.sin(ys * 43)) * torch.sin(ys * 61 + 1.7 * torch.sin(xs * 37))
    patch = patch + .0075 * chinw * peb * gauss(xs, .15) * gauss(ys - cyp - .02, .10)
    pk = torch.sin(xs * 75) * gauss(xs, .2) * (gauss(ys - uo - .035, .03) + gauss(ys - lo_ + .035, .03))
    h[:, ia:ib, ja:jb] += patch + .006 * v('pucker') * pk
    ia, ib = int((-.25 - Y0) / (Y1 - Y0) * T), int((.2 - Y0) / (Y1 - Y0) * T)
    ys = y[:, ia:ib]
    crow, = sided(C, ('crow',), x)
    dx, dy = x.abs() - (C.ew.view(-1, 1, 1) + I['eye_spacing'] + .01), ys - .005
    rr = (dx * dx + dy * dy).sqrt() + 1e-4
    sect = smooth(dx, .0, .04) * gauss(rr - .10, .06)
    h[:, ia:ib] += -.013 * crow * sect * (torch.cos(dy / rr * 9 + .5) ** 2 * 2 - 1)

    # derivatives, cavity, shadow
    sx, sy = (X1 - X0) / (T - 1), (Y1 - Y0) / (T - 1)
    hp = F.pad(h[:, None], (1, 1, 1, 1), mode='replicate')[:, 0]
    hx, hy = (hp[:, 1:-1, 2:] - hp[:, 1:-1, :-2]) / (2 * sx), (hp[:, 2:, 1:-1] - hp[:, :-2, 1:-1]) / (2 * sy)
    d1 = lambda a: F.pad((a[:, 2:] - a[:, :-2]) / (2 * sy), (0, 0, 1, 1)) if a.shape[2] > 1 else \
        torch.cat([a[:, 1:2] - a[:, :1], (a[:, 2:] - a[:, :-2]) / 2, a[:, -1:] - a[:, -2:-1]], 1) / sy
    box = lambda a, k: F.avg_pool2d(a[:, None], k, 1, k // 2, count_include_pad=False)[:, 0]
    k1, k2 = max(3, T // 28) | 1, max(3, T // 36) | 1
    half = F.avg_pool2d(h[:, None], 4)
    for _ in range(2):
        half = F.avg_pool2d(half, k2, 1, k2 // 2, count_include_pad=False)
    wide = F.interpolate(half, size=(T, T), mode='bilinear', align_corners=False)[:, 0]
    cav = (7.5 * (box(h, k1) - h)).clamp(-.25, .8) + (2.6 * (wide - h)).clamp(-.2, .45)
    X = x * x * iw2
    Z = h + DEPTH * (1 - X * (.74 + .26 * X * X) - Yf).clamp(min=0).sqrt()
    Zs = F.interpolate(Z[:, None], size=(T // 2, T // 2), mode='bilinear', align_corners=True)
    gy, gx = torch.meshgrid(torch.linspace(-1, 1, T // 2), torch.linspace(-1, 1, T // 2), indexing='ij')
    base = torch.stack([gx, gy], -1)[None]
    lx, ly, lz = light[:, 0], light[:, 1], light[:, 2].clamp(min=.22)
    sh = torch.zeros_like(Zs)
    for step in (.05, .10, .16, .24):
        off = torch.stack([lx / (X1 - X0), ly / (Y1 - Y0)], -1).view(-1, 1, 1, 2) * 2 * step
        zz = F.grid_sample(Zs, base + off, align_corners=True, padding_mode='border')
        sh = torch.maximum(sh, (zz - Zs - (lz * step).view(-1, 1, 1, 1)) / (.25 * step + .012))
    sh = F.interpolate(sh.clamp(0, 1), size=(T, T), mode='bilinear', align_corners=True)[:, 0]
    ex = lambda a: a.expand(n, T, T)
    return torch.stack([h, ex(iw2), ex(Yf), hx, hy, ex(d1(iw2)), ex(d1(Yf)), cav, sh], 1)


def quadric(o, d, centre, axes):
    """Ray against an axis-aligned ellipsoid: entry t, exit t, least normalised distance."""
    o_, d_ = [(a - c) / e for a, c, e in zip(o, centre, axes)], [a / e for a, e in zip(d, axes)]
    A = sum(a * a for a in d_)
    B = sum(a * b for a, b in zip(o_, d_))
    tc = -B / A
    m2 = (sum(a * a for a in o_) - B * B / A).clamp(min=0)
    half = ((1 - m2).clamp(min=0) / A).sqrt()
    return tc - half, tc + half, m2.sqrt()


def lookup(table, x, y):
    g = torch.stack([(x - X0) * (2 / (X1 - X0)) - 1, (y - Y0) * (2 / (Y1 - Y0)) - 1], -1)
    return F.grid_sample(table, g, align_corners=True, padding_mode='border')


def march_head(table, o, d, C, px, steps=10):
    """Where each ray meets the head: sphere tracing, then regula falsi once the surface is bracketed.

    Args:
        table: height, 1 / width^2 and vertical profile `[n, 3, T, T]`.
        o, d: origin and unit direction of the rays, three maps each.
        C: control points.
        px: size of a pixel `[n, 1, 1]`.
        steps: evaluations of the surface a ray.
    Returns:
        distance along the ray and anti-aliased cover 0..1, `[n, S, S]` each.
    """
    width, length, jaw = C.I['face_width'], C.I['face_length'].clamp(min=1.0), C.jaw.view(-1, 1, 1)
    centre, axes = (0 * width, -.5 * jaw, 0 * width), (width + .05, length + .5 * jaw + .03, 0 * width + DEPTH)
    entry, _, _ = quadric(o, d, centre, axes)
    _, _, m = quadric(o, d, centre, axes[:2] + (axes[2] + .35,))           # a nose in profile sticks out
    box = window(m < 1.15)
    hit, cover = torch.full_like(entry, 6.5), torch.zeros_like(entry)
    if box:
        d = [at(v, box) for v in d]
        t = at(entry, box) - .42
        best, tbest = torch.full_like(t, 9.), t                                 # nearest approach, for soft silhouettes
        lo, flo, hi, fhi = t, torch.full_like(t, .1), torch.full_like(t, 1e3), torch.full_like(t, -.1)
        for _ in range(steps):
            x, y, z = (a + t * b for a, b in zip(o, d))
            h, iw2, Y = lookup(table, x, y).unbind(1)
            X = x * x * iw2
            f = ((X * (.74 + .26 * X * X) + ((z - h) * (1 / DEPTH)) ** 2 + Y).sqrt_() - 1) * .58
            nearer, out = f < best, f > 0
            best, tbest = torch.where(nearer, f, best), torch.where(nearer, t, tbest)
            lo, flo = torch.where(out, t, lo), torch.where(out, f, flo)
            hi, fhi = torch.where(out, hi, t), torch.where(out, fhi, f)
            inside = hi < 999.
            t = torch.where(inside, lo + (hi - lo) * (flo / (flo - fhi)).clamp_(.08, .92), t + f)
        at(hit, box).copy_(torch.where(inside, t, tbest))
        at(cover, box).copy_(ramp(px - torch.where(inside, 0., best), px * 1.1))
    return hit, cover
