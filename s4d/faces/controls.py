"""From actions to control points: where lips, lids and brows lie, how deep each fold is."""
from types import SimpleNamespace

import torch

from .facs import ACTIONS
from .shapes import gauss


def controls(subject, actions, gaze):
    """Compute the control points of n faces, in half head heights, from actions `[n, 2, 23]`.

    They are `[n, 1]`, or left and right `[n, 2]`, beside the subject's numbers and its colours
    `[n, 3, 1, 1]`; `maps` holds whatever is `[n, 1]` as `[n, 1, 1]`. All gains are set by hand.
    """
    own = {k: v[:, None] if v.dim() == 1 else v[..., None, None] for k, v in subject.items()}
    C = SimpleNamespace(gaze=gaze, **own)
    a = dict(zip(ACTIONS, actions.permute(2, 0, 1).contiguous().unbind(0), strict=True))
    uneven = C.asymmetry * torch.tensor([[1., -1.]])
    mouth(C, a, uneven)
    upper_face(C, a, uneven)
    C.raised = both(C.cheek)
    C.chin = -C.face_length * .87 - C.jaw + .02 * C.chinw             # height of the chin's middle
    C.maps = SimpleNamespace(**{k: v[..., None] for k, v in vars(C).items() if v.shape[1] == 1})
    return C


def both(t):
    """The mean of the sides, `[n, 1]`."""
    return t.mean(1, keepdim=True)


def mouth(C, a, uneven):
    """Place jaw and lips; `a` holds each action `[n, 2]`."""
    smile = a[12]
    part = (a[25] + a[26] + a[27] + .6 * a[16] + .35 * a[10] * (a[9] + .3) + .6 * a[22]).clamp(0, 1)
    sealed = (1 - .8 * a[24] - .8 * a[28] - .5 * a[23]).clamp(0, 1)
    C.part = part = both(part * sealed)
    C.jaw = jaw = both(.17 * a[26] + .36 * a[27]).clamp(max=.40)
    C.ym = -(C.nose_length + C.philtrum)
    wide = (1 + .26 * smile + .36 * a[20] + .10 * a[14] + .05 * a[10] - .40 * a[18] - .24 * a[22]
            - .24 * a[23] - .01 * a[24] - .10 * a[27] - .06 * a[17] - .03 * a[15] + .03 * a[28])
    C.cx = C.lip_width * wide.clamp(min=.45)
    C.up = .115 * smile + .050 * a[14] + .012 * a[10] + .3 * uneven - .42 * jaw      # corners
    C.down = .010 + .105 * a[15] + .03 * a[20] + .018 * a[17]
    C.y0 = y0 = C.ym + both(.055 * a[17] + .022 * a[10] + .012 * a[9] + .012 * a[24] + .016 * smile
                            - .012 * a[15] + .01 * a[28])
    lift = (.014 * part + .066 * a[10] + .036 * a[9] + .030 * smile * part + .022 * a[22] * part
            + .09 * jaw)
    C.yu = y0 + lift * (.25 + .75 * part)       # inner edges at the midline
    fall = y0 - .042 * part - .075 * a[16] * part - .90 * jaw * part - .025 * a[22] * part
    C.yl = both(fall) - .020 * a[16] + .012 * a[10] * (1 - part)
    thin = (1 - .24 * smile - .16 * a[20] - .34 * a[23] - .68 * a[24] - .92 * a[28]).clamp(min=.05)
    C.tu = C.upper_lip * thin * (1 + .45 * a[18] + .75 * a[22] - .15 * a[10] + .05 * a[17])
    full = 1 + .35 * a[18] + .65 * a[22] + .28 * a[17] - .12 * a[16]
    C.tl = C.lower_lip * thin * full * (1 - .15 * both(a[27]))
    C.pout = both(.085 * a[18] + .075 * a[22] + .035 * a[17] + .030 * a[23] - .025 * a[28]
                  - .020 * a[24])
    C.oval = (jaw / .16 + .5 * both(a[22])).clamp(0, 1)
    C.press = both(a[24] + .1 * a[23] + .8 * a[28]).clamp(0, 1)
    C.pucker = both(a[18] + .6 * a[22] + .5 * a[23]).clamp(0, 1)
    C.square = (a[10] * .8 + a[9] * .3 + a[20] * .6).clamp(0, 1)


def upper_face(C, a, uneven):
    """Place lids and brows (raised in and out, lowered); set the depth of all folds by age too."""
    C.close = close = .72 * a[43] + .28 * a[43] ** 6  # lashes hide a slit: it falls evenly
    upper = 1 + .62 * a[5] - .30 * a[7] - .22 * a[6] - .12 * a[4] - .10 * a[9] - .10 * a[12] * a[6]
    lower = .042 * C.eye_open * (1 + .10 * a[5] - .62 * a[7] - .58 * a[6] - .30 * a[9])
    sunk = .012 * C.gaze[:, 1:2].clamp(-1, 0).neg()
    C.uh = (.060 * C.eye_open * upper - sunk) * (1 - close) - .030 * close
    C.lh = torch.lerp(lower, torch.full_like(lower, .033), close)
    C.ex, C.ey, C.ew = C.eye_spacing.expand(-1, 2), .5 * uneven, .138 * C.eye_size
    C.b1, C.b2, C.b4 = .100 * a[1], .095 * a[2], .112 * a[4] + .050 * a[9]
    C.bx = .115 - .030 * a[4] - .008 * a[9]
    C.yb = C.brow_height + uneven
    age = C.age
    pulled = .75 * a[12] + .62 * a[10] + .55 * a[9] + .2 * a[6] + .30 * a[14] + .15 * a[20]
    C.nlf = (.10 + .30 * age + pulled * (.65 + .45 * age)).clamp(0, 1.2)
    C.crow = (.10 * age + .85 * a[6] + .15 * a[7]) * (.45 + .55 * age)
    C.bag = .18 + .35 * age + .65 * a[6] + .45 * a[7]
    C.cheek = .070 * a[6] + .055 * a[12] + .015 * a[9]
    C.fore1 = (.14 * age + .9 * a[1]) * (.5 + .5 * age)
    C.fore2 = (.14 * age + .9 * a[2]) * (.5 + .5 * age)
    C.frown = both(.10 * age + .95 * a[4] + .25 * a[9]) * (.65 + .35 * age)
    C.nosew = both(a[9]) + .12 * both(a[10])
    C.ala = .034 * a[9] + .016 * a[10]
    C.dimple = a[14] + .05 * a[12]
    C.mario = .12 * age + .8 * a[15] + .3 * a[17] + .25 * a[20]
    C.chinw = both(a[17] + .35 * a[15])


def sided(C, names, x):
    """Blend the (left, right) controls across the midline at coordinate x."""
    s = torch.sigmoid(x / .045)
    sides = (getattr(C, name)[..., None] for name in names.split())
    return [torch.lerp(v[:, 1:], v[:, :1], s) for v in sides]


def lip_curves(C, x):
    """Lip contours at x: t = |x| / corner, inner and outer edges (upper, lower), line, taper."""
    cx, up, down, yu, yl, tu, tl, square = sided(C, "cx up down yu yl tu tl square", x)
    P = C.maps
    t = x.abs() / cx
    t2 = t * t
    taper = (1 - t2).clamp(min=0)
    profile = torch.lerp(taper, taper.sqrt(), (.25 + .75 * P.oval).maximum(square * .8))
    tt = t2.clamp(max=1.4)
    line = P.y0 + up * tt - down * tt * tt
    inner_upper = line + (yu - P.y0) * profile
    inner_lower = line + (yl - P.y0) * profile
    bow = 1 + P.cupid_bow * (gauss(t - .30, .17) - .6 * gauss(t, .14))
    upper = taper.sqrt() * (.45 + .55 * taper) * bow
    lower = taper.sqrt() * (.35 + .65 * taper)
    outer_upper, outer_lower = inner_upper + tu * upper, inner_lower - tl * lower
    return t, inner_upper, inner_lower, outer_upper, outer_lower, line, taper
