"""Around the face: pose, camera, light, background, occluder, sensor."""
from __future__ import annotations

import math

import torch


def sample_scene(n: int, gen: torch.Generator, nuisance: float = 0.,
                 zoom: float = 1.) -> dict[str, torch.Tensor]:
    """Draw camera, light, background, occluder and sensor of n frontal views.

    `nuisance` goes from 0, aligned and evenly lit, to 1, in the wild; `zoom` as in `config.Faces`.
    """
    def uniform(*shape):
        return torch.rand(n, *shape, generator=gen)

    def normal(*shape):
        return torch.randn(n, *shape, generator=gen)
    z = torch.zeros(n)
    s = dict(yaw=z, pitch=z, roll=z, gaze=torch.zeros(n, 2))
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


def views(n: int, yaw=0.0, pitch=0.0, roll=0.0, gaze=(0.0, 0.0), nuisance: float = 0.0,
          zoom: float = 1.3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Set up n views of a head: name -> tensor with n rows.

    Args:
        yaw, pitch, roll: degrees, a number or n of them.
        gaze: right and up, about -1..1; a pair or n pairs.
        nuisance, zoom, seed: of `sample_scene`.
    """
    scene = sample_scene(n, torch.Generator().manual_seed(seed), nuisance, zoom)
    for name, angle in (("yaw", yaw), ("pitch", pitch), ("roll", roll)):
        degrees = torch.as_tensor(angle, dtype=torch.float32).expand(n)
        scene[name] = degrees * (math.pi / 180)
    scene["gaze"] = torch.as_tensor(gaze, dtype=torch.float32).expand(n, 2)
    return scene
