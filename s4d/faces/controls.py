"""From actions and identity to control points: where the lips, lids and brows lie, how deep each fold is."""
from __future__ import annotations

from types import SimpleNamespace

import torch

from .facs import INDEX
from .shapes import gauss


def controls(identity, actions, gaze):
    """Moving control points of n faces.

    Args:
        identity: dictionary of `[n]` and `[n, 3]` tensors.
        actions: `[n, 2, 23]` in 0..1; axis 1 left, right.
        gaze: `[n, 2]`, right and up, about -1..1.
    Returns:
        a namespace: values for both sides `[n, 1]`, or per side `[n, 2]`; lengths in half head heights; `I` holds the identity's
        numbers as `[n, 1, 1]`.
    """
    C = SimpleNamespace(gaze=gaze)
    columns = actions.permute(2, 0, 1).contiguous().unbind(0)                  # [n, 2] each
    action = lambda k: columns[INDEX[k]]
    own = lambda k: identity[k].view(-1, 1)
    uneven = own('asymmetry') * torch.tensor([[1., -1.]], device=actions.device)
    mouth(C, action, own, uneven)
    lids(C, action, own, uneven, gaze)
    forehead(C, action, own, uneven)
    folds(C, action, own)
    C.I = {k: v.view(-1, 1, 1) for k, v in identity.items() if v.dim() == 1}
    return C


def both(t):
    """The mean of the sides, `[n, 1]`."""
    return t.mean(1, keepdim=True)


def shared(C, name):
    """A control that both sides share, ready to broadcast `[n, 1, 1]`."""
    return getattr(C, name).view(-1, 1, 1)


def mouth(C, a, own, uneven):
    """Jaw and lips."""
    part = (a(25) + 1.0 * a(26) + a(27) + .6 * a(16) + .35 * a(10) * a(9).add(.3) + .6 * a(22)).clamp(0, 1)
    sealed = (1 - .8 * a(24) - .8 * a(28) - .5 * a(23)).clamp(0, 1)
    part = both(part * sealed)
    jaw = both(.17 * a(26) + .36 * a(27)).clamp(max=.40)
    ym = -(own('nose_length') + own('philtrum'))
    smile = a(12)
    C.cx = own('lip_width') * (1 + .26 * smile + .36 * a(20) + .10 * a(14) + .05 * a(10) - .40 * a(18) - .24 * a(22) - .24 * a(23)
                               - .01 * a(24) - .10 * a(27) - .06 * a(17) - .03 * a(15) + .03 * a(28)).clamp(min=.45)
    C.up = .115 * smile + .050 * a(14) + .012 * a(10) + .3 * uneven - .42 * jaw      # corner rise, parabolic
    C.down = .010 + .105 * a(15) + .03 * a(20) + .018 * a(17)      # corner drop, at the ends
    y0 = ym + both(.055 * a(17) + .022 * a(10) + .012 * a(9) + .012 * a(24) + .016 * a(12) - .012 * a(15) + .01 * a(28))
    up_lift = .014 * part + .066 * a(10) + .036 * a(9) + .030 * a(12) * part + .022 * a(22) * part + .09 * jaw
    C.part, C.jaw, C.ym, C.y0 = part, jaw, ym, y0
    C.yu = y0 + up_lift * (.25 + .75 * part)      # upper inner edge at the midline
    C.yl = both(y0 - .042 * part - .075 * a(16) * part - .90 * jaw * part - .025 * a(22) * part) - .020 * a(16) + .012 * a(10) * (1 - part)
    thin = (1 - .24 * smile - .16 * a(20) - .34 * a(23) - .68 * a(24) - .92 * a(28)).clamp(min=.05)
    C.tu = own('upper_lip') * thin * (1 + .45 * a(18) + .75 * a(22) - .15 * a(10) + .05 * a(17))
    C.tl = own('lower_lip') * thin * (1 + .35 * a(18) + .65 * a(22) + .28 * a(17) - .12 * a(16)) * (1 - .15 * both(a(27)))
    C.pout = both(.085 * a(18) + .075 * a(22) + .035 * a(17) + .030 * a(23) - .025 * a(28) - .020 * a(24))
    C.oval = (jaw / .16 + .5 * both(a(22))).clamp(0, 1)
    C.press = both(a(24) + .1 * a(23) + .8 * a(28)).clamp(0, 1)
    C.pucker = both(a(18) + .6 * a(22) + .5 * a(23)).clamp(0, 1)
    C.square = (a(10) * .8 + a(9) * .3 + a(20) * .6).clamp(0, 1)


def lids(C, a, own, uneven, gaze):
    """Heights of the lids over and under the middle of the eye."""
    close = .72 * a(43) + .28 * a(43) ** 6                      # lashes hide a narrow slit: what is seen of the eye falls evenly
    uh = .060 * own('eye_open') * (1 + .62 * a(5) - .30 * a(7) - .22 * a(6) - .12 * a(4) - .10 * a(9) - .10 * a(12) * a(6))
    lh = .042 * own('eye_open') * (1 + .10 * a(5) - .62 * a(7) - .58 * a(6) - .30 * a(9))
    C.uh = (uh - .012 * gaze[:, 1:2].clamp(-1, 0).neg()) * (1 - close) - .030 * close
    C.lh = torch.lerp(lh, torch.full_like(lh, .033), close)
    C.close = close
    C.ex = own('eye_spacing') + 0 * uneven
    C.ey = .5 * uneven + 0 * close
    C.ew = .138 * own('eye_size')


def forehead(C, a, own, uneven):
    """Brows: raised inner and outer parts, lowering, distance from the midline."""
    C.b1, C.b2 = .100 * a(1), .095 * a(2)
    C.b4 = .112 * a(4) + .050 * a(9)
    C.bx = .115 - .030 * a(4) - .008 * a(9)
    C.yb = own('brow_height') + 1.0 * uneven


def folds(C, a, own):
    """Depth of folds and wrinkles; age adds a floor to each."""
    age = own('age')
    smile = a(12)
    pulled = .75 * smile + .62 * a(10) + .55 * a(9) + .2 * a(6) + .30 * a(14) + .15 * a(20)
    C.nlf = (.10 + .30 * age + pulled * (.65 + .45 * age)).clamp(0, 1.2)
    C.crow = (.10 * age + .85 * a(6) + .15 * a(7)) * (.45 + .55 * age)
    C.bag = .18 + .35 * age + .65 * a(6) + .45 * a(7)
    C.cheek = .070 * a(6) + .055 * a(12) + .015 * a(9)
    C.fore1 = (.14 * age + .9 * a(1)) * (.5 + .5 * age)
    C.fore2 = (.14 * age + .9 * a(2)) * (.5 + .5 * age)
    C.frown = both(.10 * age + .95 * a(4) + .25 * a(9)) * (.65 + .35 * age)
    C.nosew = both(a(9)) + .12 * both(a(10))
    C.ala = .034 * a(9) + .016 * a(10)
    C.dimple = a(14) + .05 * a(12)
    C.mario = .12 * age + .8 * a(15) + .3 * a(17) + .25 * a(20)
    C.chinw = both(a(17) + .35 * a(15))


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
    su = taper.sqrt() * (.45 + .55 * taper) * (1 + bow * (gauss(t - .30, .17) - .6 * gauss(t, .14)))
    sl = taper.sqrt() * (.35 + .65 * taper)
    return t, ui, li, ui + tu * su, li - tl * sl, line, taper


def brow_line(C, ax, x):
    b1, b2, b4, bx, yb = sided(C, ('b1', 'b2', 'b4', 'bx', 'yb'), x)
    t = (ax - bx) / C.I['brow_length']
    tc = t.clamp(-.3, 1.4)
    y = (yb + C.I['brow_arch'] * (1 - ((tc - .62) / .62) ** 2) + C.I['brow_tilt'] * (tc - .5)
         + b1 * gauss(tc, .48) + b2 * gauss(tc - .80, .52) - b4 * (1.05 - .85 * tc.clamp(0, 1)))
    return t, y
