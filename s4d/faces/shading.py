"""Paint, light, hair, accessories, sensor."""
from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from .head import DEPTH, brow_line, gauss, lip_curves, lookup, quadric, ramp, sided, smooth, unit


def strand(C, u, w, px):
    """Hair strand texture along w, in [-1, 1]; u runs across the strands."""
    s = C.I['seed'].float() % 97
    fade = lambda f: (1 / (f * px * .55)).clamp(max=1)
    warp = .10 * C.I['curl'] * torch.sin(w * 11 + s) + .05 * torch.sin(w * 5 + s * 2)
    u = u + warp
    return (.45 * torch.sin(u * 31 + s) * fade(31) + .35 * torch.sin(u * 57 + s * 3 + 2 * w) * fade(57)
            + .35 * torch.sin(u * 103 + s * 5 + w * 4) * fade(103))


def over(col, layer, alpha):
    return torch.lerp(col, layer, alpha[:, None])


def rgb(t):
    return t.view(-1, 3, 1, 1)


def paint_skin(C, I, x, y, z, px, cav, tex):
    """Albedo [n, 3, H, W] and gloss of the skin, brows, lips, eyes and mouth at head coordinates."""
    P = C.I
    v = lambda k: getattr(C, k).view(-1, 1, 1)
    ax = x.abs()
    sgn = torch.where(x > 0, 1., -1.)
    n1, n2 = tex[:, 0], tex[:, 1]
    aa = px * 1.15
    skin = rgb(I['skin'])
    tone = (P['tone'] / 9)
    red = torch.tensor([1.0, .62, .55]).view(1, 3, 1, 1)
    dark = torch.tensor([.62, .50, .46]).view(1, 3, 1, 1)
    nl = P['nose_length']
    blood = .42 * gauss(ax - .40, .17) * gauss(y + .25, .14) + .40 * gauss(x, .10) * gauss(y + nl - .03, .08) + .10 * n1
    socket = gauss(ax - P['eye_spacing'] + .02, .15) * (.55 * gauss(y + .07, .055) * (.4 + .6 * P['age']) + .40 * gauss(y - .055, .06))
    alb = skin * (1 + .06 * n2[:, None])
    alb = torch.lerp(alb, skin * red, (blood * (1 - .55 * tone)).clamp(-.3, .8)[:, None])
    alb = over(alb, skin * dark, (socket * .75).clamp(0, .8))
    freck = (n2 * 2.2 - 1.7).clamp(0, 1) * P['freckles'] * gauss(ax - .2, .3) * gauss(y + .18, .2)
    alb = over(alb, skin * dark * .7, freck * .8)
    gloss = .35 + .20 * gauss(x, .12) * gauss(y + .2, .3) + .2 * gauss(y - .45, .2)

    # painted occlusion lines: wrinkles read at low resolution mainly as darkening
    ex, ey, uh, lh, nlf, cx, up, crow, bag, dimple, dn, mario, fore1, fore2, ala = sided(
        C, ('ex', 'ey', 'uh', 'lh', 'nlf', 'cx', 'up', 'crow', 'bag', 'dimple', 'down', 'mario', 'fore1', 'fore2', 'ala'), x)
    frown, nosew = v('frown'), v('nosew')
    occ = .55 * frown * gauss(ax - .052 - .10 * (y - .16), .013) * gauss(y - .17, .075)
    occ = occ + .30 * frown * gauss(y - .10, .014) * gauss(x, .06)
    fy = (y - .50 - .012 * torch.cos(x * 9)) * (2 * math.pi / .085)
    raise_ = fore1 * gauss(ax, .22) + fore2 * gauss(ax - .32, .17)
    occ = occ + .26 * raise_.clamp(max=1) * (.5 + .5 * torch.cos(fy)) ** 3 * smooth(y, .25, .33) * smooth(y, .60, .50)
    occ = occ + .50 * nosew * (.5 + .5 * torch.cos((y + .35 * ax) * (2 * math.pi / .052))) ** 2 * gauss(ax - .05, .075) * gauss(y - .035, .065)
    yt, yb_ = -nl + .05 + ala, v('ym') - .075 + .25 * up
    w = ((yt - y) / (yt - yb_)).clamp(-.3, 1.3)
    w0 = w.clamp(min=0)
    xf = P['nose_width'] + .045 + (cx + .035 - P['nose_width']) * (w0 * (1.55 - .55 * w0))
    occ = occ + .36 * nlf * gauss(ax - xf, .020 + .3 * px) * smooth(w, -.25, .1) * smooth(w, 1.28, .7)
    occ = occ + .55 * gauss(ax - P['nose_width'] - .035, .020) * gauss(y + nl - .02 - ala, .035)   # alar groove
    occ = occ + .75 * gauss(ax - .052, .026) * gauss(y + nl + .022 - .4 * ala, .018)               # nostril
    dx, dy = ax - (v('ew') + ex + .012), y - ey - .004
    rr = (dx * dx + dy * dy).sqrt() + 1e-4
    occ = occ + .45 * crow * smooth(dx, 0., .03) * gauss(rr - .085, .055) * (torch.cos(dy / rr * 8 + .4) ** 4)
    occ = occ + .30 * bag * gauss(y - ey + .105 + .25 * (ax - ex) ** 2 - .10 * (ax - ex), .016) * gauss(ax - ex + .02, .13)
    occ = occ + .62 * dimple * gauss(ax - cx - .050, .020) * gauss(y - v('ym') - up, .06)
    occ = occ + .45 * mario * gauss(ax - cx - .006 - .25 * (v('ym') - dn - y - .05).clamp(0), .016) * gauss(y - v('ym') + dn + .075, .05)
    occ = occ + .26 * (v('chinw') + .25) * gauss(y - (v('ym') - P['lower_lip'] - .062 - .5 * v('jaw')) + .6 * x * x, .022) * gauss(x, .15)

    # beard
    t, ui, li, uo, lo_, line, taper = lip_curves(C, x)
    chin_y = -P['face_length'] - v('jaw')
    jawzone = smooth(y, -.10, -.42) * smooth(ax, .40, .52) + smooth(y, v('ym') - .07, v('ym') - .14)
    stache = smooth(y, -nl - .025, -nl - .085) * smooth(y, uo - .03, uo + .015) * smooth(ax, cx + .10, cx - .03)
    zone = (jawzone + stache + gauss(x, .05) * gauss(y - lo_ + .06, .05) + smooth(y, v('ym') + .10, v('ym') - .06) * smooth(ax, cx + .0, cx + .09)).clamp(0, 1)
    zone = zone * smooth(y, -.02, -.16)
    hair = rgb(I['hair_rgb'])
    stub = strand(C, x * 1.3 + .4 * y * sgn, y, px)
    alb = over(alb, skin * torch.tensor([.55, .58, .62]).view(1, 3, 1, 1), .55 * zone * P['stubble'])
    ba = ((zone - .5 + .22 * stub + .14 * n2) * 2 + .25 + .4 * P['beard']).clamp(0, 1) * zone.clamp(max=.5) * 2 * (P['beard'] * 1.6).clamp(0, .95)
    alb = over(alb, hair * (1.15 + .35 * stub[:, None]), ba)
    gloss = gloss * (1 - ba)

    scalp = (smooth(y - P['hairline'] + P['fringe'], .06, .12) + smooth(z, .05, -.10) * smooth(y, .12, .28)).clamp(0, 1) * (1 - P['bald'])
    alb = over(alb, hair * .6, scalp)
    # ---- brows
    tb, yb = brow_line(C, ax, x)
    half = P['brow_thick'] * (1.08 - .75 * tb.clamp(0, 1) ** 2) * (.75 + .25 * smooth(tb, -.05, .2))
    bm = ramp(half - (y - yb).abs(), aa + .018) * smooth(tb, -.10, .10) * smooth(tb, 1.10, .80)
    hairs = torch.sin((ax * 1.0 + (y - yb) * (.9 - 1.8 * tb)) * 260 + P['seed'].float() % 7) * (1 / (260 * px * .6)).clamp(max=1)
    bm = bm * (P['brow_density'] + .12 * hairs + .16 * n2).clamp(0, 1)
    alb = over(alb, torch.minimum(hair * .85 + .004, skin * .45), bm)
    gloss = gloss * (1 - bm)
    lidfold = smooth(yb - y, half * .2, half + .02) * smooth(y, ey + uh * .8, yb)              # shade under a lowered brow
    b4 = sided(C, ('b4',), x)[0]
    occ = occ + 3.0 * b4 * lidfold * gauss(ax - ex + .03, .16)

    # ---- eyes
    lx = ax - ex
    te = lx / v('ew')
    tip = P['eye_tilt'] * te
    te2 = te * te
    asymu = (1 - te2) * (1 - .22 * te + .10 * te2)                                             # upper arc peaks medially
    yu_e = ey + tip + uh * asymu
    yl_e = ey + tip - lh * (1 - te2) * (1 + .22 * te)
    inside = ramp(yu_e - y, aa) * ramp(y - yl_e, aa) * (te2 < 1).float()
    r = .064
    gx, gy = C.gaze[:, 0].view(-1, 1, 1), C.gaze[:, 1].view(-1, 1, 1)
    ix, iy = lx - gx * .058 * sgn, y - ey - .004 - gy * .036
    ri = (ix * ix + iy * iy).sqrt()
    ball = (1 - .85 * te2 - 5. * (y - ey) ** 2).clamp(.25, 1)
    lidshade = .55 + .45 * smooth(yu_e - y, .0, .035)
    sclera = (torch.tensor([.62, .56, .52]).view(1, 3, 1, 1) * (ball * lidshade)[:, None])
    spoke = 1 + .25 * torch.sin(torch.atan2(iy, ix) * 13) * gauss(ri - .04, .02)
    iris = rgb(I['iris_rgb']) * (spoke * lidshade * (.75 + 6 * (-iy).clamp(0, .06)))[:, None]
    eye = over(sclera, iris, ramp(r - ri, aa))
    eye = over(eye, iris * .25, gauss(ri - r, .010) * .7)
    eye = over(eye, torch.full_like(eye, .004), ramp(.027 - ri, aa))
    glint = gauss(lx - gx * .05 * sgn - .020 * sgn, .011 + .25 * px) * gauss(iy - .026, .011 + .25 * px)
    caruncle = gauss(te + .93, .10)
    eye = over(eye, skin * red * .8, caruncle * .7)
    # lashes, lid crease
    span = smooth(te2, 1.15, .75)
    lash = gauss(y - yu_e - .004, .011 + .4 * px) * span * (.75 + .35 * P['makeup'] + .25 * smooth(te, -.2, .9)).clamp(0, 1)
    lower = gauss(y - yl_e + .004, .008 + .3 * px) * span * (.28 + .3 * P['makeup'])
    crease_y = torch.maximum(yu_e + .022, ey + tip + .058 * asymu) + .008 + .016 * P['lid_crease']   # stays up when the lid closes
    crease = gauss(y - crease_y, .011 + .3 * px) * span * P['lid_crease'].clamp(0, 1) * .55
    alb = over(alb, skin * dark * .55, crease.clamp(0, .7))
    lidskin = ramp(y - yu_e, aa) * ramp(crease_y - y, .02) * span
    alb = over(alb, skin * torch.tensor([.75, .35, .42]).view(1, 3, 1, 1), lidskin * .55 * P['makeup'])
    alb = over(alb, skin * torch.tensor([.80, .55, .50]).view(1, 3, 1, 1), lower.clamp(0, 1) * .8)
    eyespec = inside * glint

    # ---- lips
    lipm = ramp(uo - y, aa + .008) * ramp(y - lo_, aa + .010) * ramp((1 - t) * cx, aa + .015)
    lr = P['lip_red']
    lipc = skin * torch.lerp(torch.tensor([.88, .52, .50]).view(1, 3, 1, 1), torch.tensor([.78, .32, .33]).view(1, 3, 1, 1), lr[:, None])
    lipc = torch.lerp(lipc, torch.tensor([.32, .03, .04]).view(1, 3, 1, 1), (.7 * P['makeup'])[:, None])
    lines = 1 - .10 * torch.sin(x * 120 + 3 * n2) * (1 / (120 * px * .5)).clamp(max=1)
    upper_lip = ramp(y - line, .02)
    alb = over(alb, lipc * (lines * (1 - .22 * upper_lip))[:, None], lipm * .92)
    gloss = torch.lerp(gloss, .75 + .5 * P['makeup'], lipm * (1 - upper_lip))
    # mouth interior: fixed upper teeth, jaw-borne lower teeth, tongue, dark cavity
    opening = ramp(ui - y, aa) * ramp(y - li, aa) * (t < 1).float()
    seam = gauss(y - line, .009 + .35 * px) * smooth(t, 1.06, .9) * (1 - v('part')) * (.75 + .35 * v('press'))
    return alb, gloss, occ, SimpleNamespace(eye=eye, inside=inside, lash=lash, eyespec=eyespec, opening=opening, seam=seam,
                                            t=t, ui=ui, li=li, lidskin=lidskin, lipm=lipm, beard=ba)


def mouth_interior(C, x, y, m, px, aa):
    v = lambda k: getattr(C, k).view(-1, 1, 1)
    P = C.I
    cx = C.cx.mean(1).view(-1, 1, 1)
    tt = x / (cx * .92)
    arch = (1 - tt * tt).clamp(0, 1)
    yt = v('ym') + .020 - .048 + .030 * tt * tt                                                 # lower edge of the upper teeth
    up = ramp(y - yt, aa) * ramp(m.ui - y - .002, aa)
    ylt = v('ym') - .038 - v('jaw') + .028 * tt * tt                                            # upper edge of the lower teeth
    lo = ramp(ylt - y, aa) * ramp(y - m.li - .004, aa)
    gaps = 1 - .28 * gauss(torch.remainder(x + .0225, .045) - .0225, .004 + .3 * px) * (.012 / px).clamp(max=1)
    shade_u = (.25 + .75 * arch) * (.55 + .45 * smooth(m.ui - y, .0, .03))
    cav = torch.tensor([.045, .010, .010]).view(1, 3, 1, 1)
    tongue = torch.tensor([.30, .085, .08]).view(1, 3, 1, 1)
    tooth = torch.tensor([.66, .60, .50]).view(1, 3, 1, 1)
    depth = smooth(m.ui - m.li, .02, .12)
    col = cav.expand(x.shape[0], 3, *x.shape[1:])
    ty = m.li + .30 * (m.ui - m.li)
    col = over(col, tongue * (.35 + .5 * arch)[:, None], .8 * depth * ramp(ty - y + .02 * arch, .04) * smooth(tt.abs(), .85, .5))
    col = over(col, tooth * (.6 * shade_u * gaps)[:, None], lo * smooth(tt.abs(), .80, .62) * .85)
    col = over(col, tooth * (shade_u * gaps)[:, None], up * smooth(tt.abs(), .99, .84))
    return col


def shade_faces(C, I, scene, o, d, oh, dh, R, px, lh, t, cover, march, shade, tex_t, blobs):
    """Everything after the hit: normals, painting, light, hair, body, accessories, tone curve.  Pure tensor code, so
    torch.compile takes it whole."""
    n, S, P = t.shape[0], t.shape[-1], C.I
    x, y, z = (a + t * b for a, b in zip(oh, dh))
    h, iw2, Yf = lookup(march, x, y).unbind(1)
    hx, hy, diw, dY, cav, shadow = lookup(shade, x, y).unbind(1)
    zz = (z - h) * (1 / DEPTH ** 2)
    shadow = shadow * smooth(z - h, .0, .25)                                                     # tabulated for the front half
    gX = .74 + .78 * (x * x * iw2) ** 2
    N = torch.stack([x * iw2 * gX - zz * hx, .5 * (x * x * diw * gX + dY) - zz * hy, zz], 1)
    N = unit(N)

    tex = lookup(tex_t, x, y)
    alb, gloss, occ, m = paint_skin(C, I, x, y, z, px, cav, tex)
    aa = px * 1.15

    warm = scene['warmth'].view(-1, 1)
    keyc = scene['key'].view(-1, 1) * torch.cat([1 + .12 * warm, torch.ones(n, 1), 1 - .16 * warm], 1)
    ambc = scene['ambient'].view(-1, 1) * torch.cat([1 - .05 * warm, torch.ones(n, 1), 1 + .08 * warm], 1)
    up = R[:, 1]                                                                                # camera up in the head frame

    def light(N, alb, gloss, occl, shadow):
        """Wrapped diffuse with a red-shifted terminator, hemisphere ambient, broad specular."""
        L, U = lh.view(-1, 3, 1, 1), up.view(-1, 3, 1, 1)
        ndl = (N * L).sum(1, keepdim=True)
        wrap = torch.tensor([.34, .20, .15]).view(1, 3, 1, 1)
        lit = 1 - .72 * shadow[:, None]
        dif = ((ndl + wrap) / (1 + wrap)).clamp(min=0) * lit
        amb = (.62 + .38 * (N * U).sum(1, keepdim=True)) * occl[:, None]
        V = torch.stack(dh, 1)
        H = unit(L - V)
        nh = (N * H).sum(1, keepdim=True).clamp(0, 1)
        nv = -(N * V).sum(1, keepdim=True)
        fres = (1 - nv.clamp(0, 1)) ** 4
        spec = (.10 * nh ** 14 + .13 * nh ** 48) * gloss[:, None] * lit * (ndl > 0) + .05 * fres * gloss[:, None]
        return alb * (rgb(keyc) * dif * (.55 + .45 * occl[:, None]) + rgb(ambc) * amb) + spec * rgb(keyc) * occl[:, None], ndl

    ao = (1 - 1.05 * cav - occ).clamp(.12, 1.12)
    skin, ndl = light(N, alb, gloss, ao, shadow)
    litc = (.45 * rgb(ambc) + rgb(keyc) * (.5 + .5 * ndl.clamp(-.3, 1)) * (1 - .5 * shadow[:, None])) * .80
    skin = over(skin, m.eye * litc, m.inside)
    hair_rgb = rgb(I['hair_rgb'])
    skin = over(skin, torch.minimum(hair_rgb * .15, skin * .35), m.lash.clamp(0, 1))
    skin = skin + (1.1 * m.eyespec[:, None] * rgb(keyc) * .5)
    # the interior lies behind the lips: shift along the view ray
    back = .055 / (-dh[2]).clamp(min=.3)
    inner = mouth_interior(C, x + dh[0] * back, y + dh[1] * back, m, px, aa)
    skin = over(skin, inner * litc, m.opening)
    skin = over(skin, skin * torch.tensor([.24, .15, .15]).view(1, 3, 1, 1), m.seam.clamp(0, 1))

    # ---- glasses temples and frame (a plane in front of the eyes)
    gsz, gon = P['glasses_size'], P['glasses']
    zg = DEPTH + .09
    tg = (zg - oh[2]) / dh[2]
    tg = (zg - .38 * (oh[0] + tg * dh[0]) ** 2 - oh[2]) / dh[2]                                  # curved front
    gx_, gy_ = oh[0] + tg * dh[0], oh[1] + tg * dh[1]
    ux, uy = (gx_.abs() - P['eye_spacing'] - .005) / gsz, (gy_ + .015) / (gsz * .80)
    rad = ((ux ** 4 + uy ** 4).clamp(min=1e-6)) ** .25
    rim = ramp(.013 + .008 * gon - (rad - 1).abs() * gsz, aa)
    bridge = ramp(.012 - (gy_ - .03 - .02 * (1 - (gx_ / .1) ** 2)).abs(), aa) * (gx_.abs() < P['eye_spacing'] - gsz).float()
    temple = ramp(.014 - (y - .04).abs(), aa) * smooth(x.abs(), P['eye_spacing'] + gsz * .95, P['eye_spacing'] + gsz * 1.05)
    on = (gon > 0).float()
    skin = over(skin, rgb(I['glasses_rgb']) * litc, temple * on)

    # ---- background, far hair, body, neck
    bgr = scene['bg']
    gradv = ((torch.arange(S) + .5) / S).view(1, 1, S, 1)
    img = torch.lerp(rgb(bgr[:, 0]), rgb(bgr[:, 1]), gradv).expand(n, 3, S, S).contiguous()
    img = (img * (1 + .45 * scene['bg_tex'].view(-1, 1, 1, 1) * blobs)).clamp(0, 1)

    long, vol = P['hair_long'], P['hair_vol']
    hw = P['face_width'] + .065 + vol * .9 + .03 * long
    htop, hbot = 1.05 + vol, torch.lerp(torch.full_like(long, -.42), torch.full_like(long, -1.65), long)
    hc = ((long * 0), (htop + hbot) / 2, long * 0 - .10)
    haxes = (hw, (htop - hbot) / 2, DEPTH + .02 + vol)
    th, tfar, mh = quadric(oh, dh, hc, haxes)

    def hair_shade(tt):
        px_, py_, pz_ = (a + tt * b for a, b in zip(oh, dh))
        nn = torch.stack([(px_ - hc[0]) / haxes[0] ** 2, (py_ - hc[1]) / haxes[1] ** 2, (pz_ - hc[2]) / haxes[2] ** 2], 1)
        nn = unit(nn)
        ang = torch.atan2(px_ - .25 * P['part'] * smooth(py_, .2, .9), (pz_ + .35).clamp(min=-.3))
        st = strand(C, ang * 1.1, py_ * 1.2 + pz_, px)
        bandy = nn[:, 1] - .55 + .05 * st
        col, _ = light(nn, hair_rgb * (1 + .40 * st[:, None]), torch.zeros_like(st), 1 - .25 * (st < -.3).float(), torch.zeros_like(st))
        sheen = gauss(bandy, .20) * (.6 + .4 * st) * (1 - .6 * P['curl'])
        col = col + (hair_rgb * .9 + .018) * rgb(keyc) * .45 * sheen[:, None]
        return col, (px_, py_, pz_, st)

    rim_noise = .02 + .05 * P['curl']
    hcol, (hx_, hy_, hz_, st) = hair_shade(th)
    rough = lookup(tex_t[:, 1:], 1.05 * torch.sin(hx_ * 2), hy_)[:, 0].clamp(-1.3, 1.3)
    hcover = ramp((1 - mh) * hw + rim_noise * (rough * .45 - .25), px * 2.0 + .02 + .03 * P['curl'])
    hason = 1 - P['bald']
    # hair behind the head
    fary = oh[1] + tfar * dh[1] + .03 * st
    backa = hcover * hason * smooth(fary, (hbot + .45).clamp(max=-.45), (hbot + .62).clamp(max=-.30))
    img = over(img, hcol * .38, backa)

    def solid(img, centre, axes, alb, occl, soft=1.3):
        t0, _, mm = quadric(o, d, centre, axes)
        p = [a + t0 * b for a, b in zip(o, d)]
        nn = torch.stack([(q - c) / e ** 2 for q, c, e in zip(p, centre, axes)], 1)
        nn = torch.einsum('nij,nihw->njhw', R, unit(nn))
        col, _ = light(nn, alb, torch.full_like(mm, .15), occl(p), torch.zeros_like(mm))
        return over(img, col, ramp((1 - mm) * .45, px * soft))

    c = lambda a: torch.full((n, 1, 1), float(a))
    chin = -P['face_length'] - .25 * C.jaw.view(-1, 1, 1)
    neckx = .075 * scene['yaw'].sin().view(-1, 1, 1)
    img = solid(img, (neckx, c(-1.1), c(-.16)), (P['neck_width'], c(1.2), c(.45)), rgb(I['skin']) * .95,
                lambda p: .30 + .70 * smooth(p[1], chin + .05, chin - .42))
    img = solid(img, (c(0), c(-2.18), c(-.28)), (c(1.42), c(.74), c(.62)), rgb(I['cloth']) * 1.0, lambda p: c(1).expand(n, S, S))
    img = over(img, skin, cover)

    # ---- front hair: outside the face opening of the shell
    hl = P['hairline'] - P['fringe']
    ow = P['face_width'] - .02 + .02 * long
    oy, oh_h = -.40, hl + .40
    lean = P['part'] * hx_ * .16 * (1 - .5 * long)
    jag = .022 * st + .012 * torch.sin(hx_ * 23 + P['seed'].float() % 13)
    e1 = (hx_.abs() / ow).clamp(max=3)
    e2 = ((hy_ - oy + lean + jag) / oh_h)
    square = torch.where(e2 > 0, e2.clamp(min=0) ** (2.4 + P['temples']) , torch.zeros_like(e2)) + e1 ** (3.2 + 1.5 * P['temples'])
    edge = (square.clamp(min=1e-4) ** .35 - 1) * .9
    front = torch.maximum(ramp(edge * .5 + .010 * st, px * 1.5 + .035), (hz_ < .12 + .1 * long).float())
    low_edge = torch.lerp(.10 - .45 * smooth(hz_, -.12, -.40) - .16 * smooth(hz_, .05, .2), hbot + .38, long)
    bottom = smooth(hy_ + .03 * st - low_edge, -.05, .08)
    ha = hcover * front * bottom * hason
    crown = smooth(hy_, -.2, .3)
    # contact shadow of the hair on the forehead
    img = img * (1 - .35 * (cover * hason * (1 - ha) * gauss(edge.clamp(max=0), .10)) * smooth(y, -.1, .3))[:, None]
    img = over(img, hcol * (.75 + .25 * crown)[:, None], ha)

    # ---- ears, hidden by nearer head or hair
    for s in (1., -1.):
        e = P['ear_size']
        cx_ = s * (P['face_width'] + .055)
        te_, _, me = quadric(oh, dh, (cx_, c(-.06), c(-.08)), (.085 * e, .20 * e, .13 * e))
        ex_, ey_, ez_ = (a + te_ * b for a, b in zip(oh, dh))
        nn = torch.stack([(ex_ - cx_) / .085 ** 2, (ey_ + .06) / .2 ** 2, (ez_ + .08) / .13 ** 2], 1)
        nn = unit(nn)
        inner_e = gauss((ex_ - cx_) * s + .005, .04) * gauss(ey_ + .04, .11)
        col, _ = light(nn, rgb(I['skin']) * torch.tensor([.98, .84, .82]).view(1, 3, 1, 1), torch.full_like(me, .2), (.85 - .5 * inner_e), torch.zeros_like(me))
        seen = (1 - cover * (t < te_).float()) * (1 - ha * ((th < te_ + .05) & (long > .3)).float())
        img = over(img, col, ramp((1 - me) * .1, px * 1.3) * seen)

    # ---- glasses frame
    img = over(img, img * .93 + .012, on * ramp((1 - rad) * gsz, aa) * cover)
    img = over(img, rgb(I['glasses_rgb']) * litc * .9 + .01, (torch.maximum(rim, bridge) * on).clamp(0, 1))
    glare = gauss(ux + uy * .6 - .35, .22) * (rad < .93).float() * on * .10
    img = img + glare[:, None] * rgb(keyc)

    # ---- occluder: a soft capsule, skin- or cloth-coloured
    oc = scene['occluder']
    s, cth = oc[:, 2].sin().view(-1, 1, 1), oc[:, 2].cos().view(-1, 1, 1)
    p = ((torch.arange(S) + .5) / S * 2 - 1) * 1.15
    qx, qy = p.view(1, 1, S) - oc[:, 0].view(-1, 1, 1), -p.view(1, S, 1) - oc[:, 1].view(-1, 1, 1)
    along, across = (qx * cth + qy * s), (-qx * s + qy * cth)
    dist = (((along.abs() - .4).clamp(min=0)) ** 2 + across ** 2).sqrt() / oc[:, 3].view(-1, 1, 1)
    ocol = torch.where((oc[:, 2:3] > 1.5), I['skin'], I['cloth'])
    img = over(img, rgb(ocol) * (rgb(ambc) * .5 + rgb(keyc) * .6 * (1 - .5 * dist.clamp(0, 1) ** 2)[:, None]), ramp(1 - dist, .12) * oc[:, 4].view(-1, 1, 1))

    # ---- sensor
    auto = .86 + .75 * (I['tone'] / 9) ** 2                                                     # the camera meters on the face
    img = (img * (scene['exposure'] * auto).view(-1, 1, 1, 1)).clamp(min=0)
    img = 1 - torch.exp(-1.25 * img)
    return img.clamp(1e-5, 1) ** (1 / 2.2)
