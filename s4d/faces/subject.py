"""Who a face belongs to (`subjects`), and how it is seen: pose, camera, light (`views`)."""
import math
from functools import partial

import torch

from ..config import ConfigError

# Monk Skin Tone scale, sRGB; of hair and eyes, black to grey, linear light.
MONK = torch.tensor([[246, 237, 228], [243, 231, 219], [247, 234, 208], [234, 218, 186],
                     [215, 189, 150], [160, 126, 86], [130, 92, 67], [96, 65, 52], [58, 49, 42],
                     [41, 36, 32]]) / 255.
HAIR = torch.tensor([[.010, .008, .007], [.030, .018, .011], [.075, .042, .022], [.16, .095, .05],
                     [.40, .27, .13], [.20, .055, .018], [.33, .32, .31]])
IRIS = torch.tensor([[.05, .022, .01], [.11, .05, .02], [.17, .12, .05], [.10, .15, .08],
                     [.10, .18, .28], [.2, .24, .26]])

# (mean, standard deviation), truncated at two of them; lengths in half head heights, set by hand.
SHAPE = dict(
    face_width=(.66, .035), face_length=(1.01, .045), jaw_taper=(.27, .06), jaw_angle=(.025, .025),
    cheekbone=(.025, .015), cheek_full=(.045, .03), chin_width=(.17, .03), chin_proj=(.150, .035),
    chin_cleft=(.004, .008), brow_ridge=(.035, .02), forehead_round=(.02, .015), temple=(.02, .015),
    nose_width=(.105, .02), nose_length=(.345, .025), nose_proj=(.25, .04), nose_bridge=(.08, .03),
    nose_bridge_width=(.070, .012), nose_tip=(.02, .012), nose_bump=(.0, .014),
    lip_width=(.245, .02), upper_lip=(.058, .014), lower_lip=(.080, .017), cupid_bow=(.30, .12),
    philtrum=(.195, .018), lip_red=(.5, .2), eye_size=(1., .09), eye_open=(1., .12),
    eye_spacing=(.305, .014), eye_tilt=(.012, .012), lid_crease=(.5, .22), eye_depth=(.09, .02),
    brow_height=(.195, .017), brow_thick=(.030, .007), brow_arch=(.030, .015),
    brow_tilt=(.0, .016), brow_density=(.8, .14), brow_length=(.375, .022), asymmetry=(.0, .010),
    ear_size=(1., .12), neck_width=(.41, .035))


def subjects(n: int, seed: int = 0, **given: float) -> dict[str, torch.Tensor]:
    """Draw n subjects: name -> tensor `[n]`, colours `[n, 3]` in linear light.

    `given` are set for all of them: glasses=0, beard=0, age=.3; tone is 0 light to 9 dark (Monk).
    """
    gen = torch.Generator().manual_seed(seed)
    uniform, normal = (partial(f, n, generator=gen) for f in (torch.rand, torch.randn))
    s = {name: mean + sd * normal().clamp(-2, 2) for name, (mean, sd) in SHAPE.items()}
    s["tone"] = (torch.full((n,), float(given["tone"])) if "tone" in given
                 else (uniform() * 9.98 - .49).clamp(0, 9))
    # Colours of skin, hair and eyes: dark skin goes with dark hair and eyes.
    choice = partial(torch.multinomial, num_samples=n, replacement=True, generator=gen)
    tone, dark = s["tone"], s["tone"] > 4.5
    lower = tone.floor().long().clamp(max=8)
    linear = torch.lerp(MONK[lower], MONK[lower + 1], (tone - lower)[:, None]) ** 2.2
    warm = torch.tensor([1.0, .80, .66]) * (1 + .05 * normal(3))        # the printed scale is paler
    deep = torch.tensor([1.25, 1.02, .88]).expand(n, 3)
    s["skin"] = linear * torch.lerp(warm, deep, (tone / 9)[:, None]) * .78 + .004
    s["age"] = uniform() ** 1.3
    kind = choice(torch.tensor([.22, .28, .22, .13, .10, .05, 1e-6]))
    kind = torch.where(dark, (uniform() * 1.5).long(), kind)
    grey = ((s["age"] - .6) * 2.4).clamp(0, 1) * uniform()
    hair = HAIR[kind] * (1 + .18 * normal(1) + .03 * normal(3))
    s["hair_rgb"] = torch.lerp(hair, HAIR[6].expand(n, 3), grey[:, None]).clamp(.004, .8)
    eye = torch.where(dark, 0, choice(torch.tensor([.3, .25, .15, .1, .13, .07])))
    s["iris_rgb"] = (IRIS[eye] * (1 + .25 * normal(1) + .04 * normal(3))).clamp(.01, .5)
    male = uniform() < .5                   # goes with beard, hair and brows, nothing else
    s["beard"] = ((uniform() - .45) * 1.9).clamp(0, 1) * male
    s["stubble"] = uniform() * .5 * male
    long = torch.where(male, (uniform() < .08).float(), (uniform() < .75).float())
    s["hair_long"] = long * (.6 + .4 * uniform())
    s["hair_vol"] = .05 + .10 * uniform() + .12 * (uniform() < .15)
    recedes = .10 * (s["age"] - .4).clamp(min=0) * male
    s["hairline"] = .60 + .07 * normal().clamp(-1.5, 1.2) + recedes
    s["bald"] = ((uniform() < .10) & male).float()
    s["fringe"] = (uniform() < .25).float() * uniform() * .22 * (1 - s["bald"])
    s["parting"] = (uniform() - .5) * .9
    s["curl"] = torch.where(s["tone"] > 4.5, .5 + .5 * uniform(), uniform() ** 2)
    s["temples"] = .25 + .75 * uniform()
    # What is worn; then the sexes' brows and jaws.
    s["glasses"] = (uniform() < .18).float() * (.5 + .5 * uniform())
    s["glasses_size"] = .16 + .05 * uniform()
    s["glasses_rgb"] = uniform(3) ** 3 * .25
    s["makeup"] = (uniform() < .35).float() * ~male * uniform()
    s["freckles"] = (uniform() < .15).float() * (s["tone"] < 4) * uniform()
    s["cloth"] = uniform(3) ** 1.6 * .6 + .01
    s["brow_thick"] = s["brow_thick"] * torch.where(male, torch.tensor(1.15), torch.tensor(.85))
    s["face_width"] = s["face_width"] + .01 * male
    s["jaw_angle"] = s["jaw_angle"] + .012 * male
    s["seed"] = torch.randint(0, 2 ** 30, (n,), generator=gen)
    for name, value in given.items():
        if name not in s:
            raise ConfigError(f"unknown property {name!r} of a face: choose one of "
                              f"{', '.join(sorted(s))}")
        s[name] = torch.full_like(s[name], value)
    return s


def views(n: int, yaw=0.0, pitch=0.0, nuisance: float = 0.0, zoom: float = 1.3,
          seed: int | torch.Generator = 0) -> dict[str, torch.Tensor]:
    """Draw n views of a head (camera, light, background, occluder, sensor): name -> tensor `[n]`.

    Args:
        yaw, pitch: degrees, a number or n of them; roll (radians) and gaze (about -1..1) are 0.
        nuisance, zoom: as in `config.Faces`.
    """
    gen = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    uniform, normal = (partial(f, n, generator=gen) for f in (torch.rand, torch.randn))
    z = torch.zeros(n)
    s = {name: torch.as_tensor(angle, dtype=torch.float32).expand(n) * (math.pi / 180)
         for name, angle in (("yaw", yaw), ("pitch", pitch), ("roll", 0.0))}
    s["gaze"] = torch.zeros(n, 2)                              # right and up
    s["scale"] = zoom * (1 + nuisance * .12 * (2 * uniform() - 1))
    s["shift"] = .06 * nuisance * normal(2)
    side, height = (uniform() - .5) * 2.4, uniform() * 1.0 + .05
    wild = torch.stack([side.sin() * height.cos(), height.sin(), side.cos() * height.cos()], 1)
    s["light"] = torch.lerp(torch.tensor([.35, .55, .75]).expand(n, 3), wild, nuisance)
    s["key"] = torch.lerp(z + 1.55, 1.0 + 1.0 * uniform(), nuisance)
    s["ambient"] = torch.lerp(z + .5, .3 + .4 * uniform(), nuisance)
    s["warmth"] = nuisance * (uniform() - .5)
    grey = uniform(2, 1)
    colours = (grey + .35 * normal(2, 3) * uniform(1, 1)).clamp(0, 1) ** 2 * .7 + .01
    plain = torch.full((n, 2, 3), .18) * torch.tensor([1., 1.02, 1.08])
    s["bg"] = torch.lerp(plain, colours, .2 + .8 * nuisance)
    s["bg_tex"] = nuisance * uniform()
    s["occluder"] = torch.stack([(uniform() - .5) * 1.6, (uniform() - .5) * 2, uniform() * 3.14,
                                 .12 + .12 * uniform(), (uniform() < .08 * nuisance).float()], 1)
    s["noise"] = nuisance * uniform() ** 2 * .035
    s["blur"] = nuisance * (uniform() < .4).float() * uniform() * .7
    s["exposure"] = (.22 * nuisance * normal()).exp()
    return s
