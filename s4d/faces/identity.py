"""Who a face belongs to: forty continuous parameters, colours, hair, glasses."""
from __future__ import annotations

import torch

# Monk Skin Tone scale, sRGB
MONK = torch.tensor([[246, 237, 228], [243, 231, 219], [247, 234, 208], [234, 218, 186], [215, 189, 150],
                     [160, 126, 86], [130, 92, 67], [96, 65, 52], [58, 49, 42], [41, 36, 32]]) / 255.
HAIR = torch.tensor([[.010, .008, .007], [.030, .018, .011], [.075, .042, .022], [.16, .095, .05],
                     [.40, .27, .13], [.20, .055, .018], [.33, .32, .31]])
IRIS = torch.tensor([[.05, .022, .01], [.11, .05, .02], [.17, .12, .05], [.10, .15, .08], [.10, .18, .28], [.2, .24, .26]])

# continuous identity parameters: (mean, sd), truncated at 2 sd
IDENTITY = dict(
    face_width=(.66, .035), face_length=(1.01, .045), jaw_taper=(.27, .06), jaw_angle=(.025, .025),
    cheekbone=(.025, .015), cheek_full=(.045, .03), chin_width=(.17, .03), chin_proj=(.150, .035), chin_cleft=(.004, .008),
    brow_ridge=(.035, .02), forehead_round=(.02, .015), temple=(.02, .015),
    nose_width=(.105, .02), nose_length=(.345, .025), nose_proj=(.25, .04), nose_bridge=(.08, .03),
    nose_bridge_width=(.070, .012), nose_tip=(.02, .012), nose_bump=(.0, .014),
    lip_width=(.245, .02), upper_lip=(.058, .014), lower_lip=(.080, .017), cupid_bow=(.30, .12), philtrum=(.195, .018), lip_red=(.5, .2),
    eye_size=(1., .09), eye_open=(1., .12), eye_spacing=(.305, .014), eye_tilt=(.012, .012), lid_crease=(.5, .22), eye_depth=(.09, .02),
    brow_height=(.195, .017), brow_thick=(.030, .007), brow_arch=(.030, .015), brow_tilt=(.0, .016), brow_density=(.8, .14),
    brow_length=(.375, .022), asymmetry=(.0, .010), ear_size=(1., .12), neck_width=(.41, .035))


def sample_identity(n: int, gen: torch.Generator, skin: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Draws n people.

    Args:
        n: number of identities.
        gen: source of the draw.
        skin: tones on the Monk scale, 0 light to 9 dark `[n]`; drawn evenly where None.
    Returns:
        name -> tensor `[n]`, colours `[n, 3]` in linear light.
    """
    r = lambda *s: torch.rand(*s, generator=gen)
    g = lambda *s: torch.randn(*s, generator=gen)
    I = {k: m + s * g(n).clamp(-2, 2) for k, (m, s) in IDENTITY.items()}
    I['tone'] = (r(n) * 9.98 - .49).clamp(0, 9) if skin is None else skin
    colours(I, n, r, g, gen)
    male = r(n) < .5                                                    # correlates beard, hair and brows, nothing else
    I['beard'] = ((r(n) - .45) * 1.9).clamp(0, 1) * male
    I['stubble'] = r(n) * .5 * male
    hair(I, n, r, g, male)
    I['glasses'] = (r(n) < .18).float() * (.5 + .5 * r(n))
    I['glasses_size'] = .16 + .05 * r(n)
    I['glasses_rgb'] = r(n, 3) ** 3 * .25
    I['makeup'] = (r(n) < .35).float() * ~male * r(n)
    I['freckles'] = (r(n) < .15).float() * (I['tone'] < 4) * r(n)
    I['cloth'] = r(n, 3) ** 1.6 * .6 + .01
    I['brow_thick'] = I['brow_thick'] * torch.where(male, torch.tensor(1.15), torch.tensor(.85))
    I['face_width'] = I['face_width'] + .01 * male
    I['jaw_angle'] = I['jaw_angle'] + .012 * male
    I['seed'] = torch.randint(0, 2 ** 30, (n,), generator=gen)
    return I


def colours(I, n, r, g, gen):
    """Adds age and the colours of skin, hair and eyes; dark skin goes with dark hair and eyes."""
    tone, dark = I['tone'], I['tone'] > 4.5
    below = tone.floor().long().clamp(max=8)
    linear = torch.lerp(MONK[below], MONK[below + 1], (tone - below)[:, None]) ** 2.2
    warm = torch.tensor([1.0, .80, .66]) * (1 + .05 * g(n, 3))          # the printed scale is paler than lit skin
    I['skin'] = linear * torch.lerp(warm, torch.tensor([1.25, 1.02, .88]).expand(n, 3), (tone / 9)[:, None]) * .78 + .004
    I['age'] = r(n) ** 1.3
    kind = torch.multinomial(torch.tensor([.22, .28, .22, .13, .10, .05, 1e-6]), n, replacement=True, generator=gen)
    kind = torch.where(dark, (r(n) * 1.5).long(), kind)
    grey = ((I['age'] - .6) * 2.4).clamp(0, 1) * r(n)
    I['hair_rgb'] = torch.lerp(HAIR[kind] * (1 + .18 * g(n, 1) + .03 * g(n, 3)), HAIR[6].expand(n, 3), grey[:, None]).clamp(.004, .8)
    eye = torch.multinomial(torch.tensor([.3, .25, .15, .1, .13, .07]), n, replacement=True, generator=gen)
    eye = torch.where(dark, torch.zeros(n).long(), eye)
    I['iris_rgb'] = (IRIS[eye] * (1 + .25 * g(n, 1) + .04 * g(n, 3))).clamp(.01, .5)


def hair(I, n, r, g, male):
    """Adds length, volume, hairline, baldness, fringe, parting, curl and temples."""
    I['hair_long'] = torch.where(male, (r(n) < .08).float(), (r(n) < .75).float()) * (.6 + .4 * r(n))
    I['hair_vol'] = .05 + .10 * r(n) + .12 * (r(n) < .15)
    I['hairline'] = .60 + .07 * g(n).clamp(-1.5, 1.2) + .10 * (I['age'] - .4).clamp(min=0) * male
    I['bald'] = ((r(n) < .10) & male).float()
    I['fringe'] = (r(n) < .25).float() * r(n) * .22 * (1 - I['bald'])
    I['part'] = (r(n) - .5) * .9
    I['curl'] = torch.where(I['tone'] > 4.5, .5 + .5 * r(n), r(n) ** 2)
    I['temples'] = .25 + .75 * r(n)


def seeded_normal(seed, c, k):
    """Per-face noise [n, c, k, k], about standard normal: the sum of the four bytes of an integer hash of the seed."""
    x = seed.view(-1, 1) * 7919 + torch.arange(c * k * k, device=seed.device) * 104729
    for m in (0x45d9f3b, 0x119de1f3):
        x = ((x ^ (x >> 16)) * m) & 0xffffffff
    x = x ^ (x >> 16)
    pairs = (x & 0xff00ff) + ((x >> 8) & 0xff00ff)                       # two sums of two bytes
    total = ((pairs & 0xffff) + (pairs >> 16)).float()
    return (total.view(-1, c, k, k) - 510) * (1.732 / 256)
