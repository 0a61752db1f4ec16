"""Augmentation on uint8 clips `[T, 3, H, W]` (one draw for all frames), views, normalisation."""
import math
import random
import re
from functools import partial

import torch
from timm.data import IMAGENET_DEFAULT_MEAN as MEAN
from timm.data import IMAGENET_DEFAULT_STD as STD
from timm.data.auto_augment import LEVEL_TO_ARG
from torch.nn.functional import interpolate
from torchvision.transforms import RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as F

from ..config import ConfigError

GREY = tuple(round(255 * m) for m in MEAN)                     # 0 after normalisation
GEOMETRY = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
COLOUR = {      # statistics are those of each frame
    "AutoContrast": F.autocontrast,
    "Equalize": F.equalize,
    "Invert": F.invert,
    "PosterizeIncreasing": lambda x, bits: F.posterize(x, max(1, bits)),
    "SolarizeIncreasing": lambda x, v: (x.to(torch.int16) >= v).to(torch.uint8).mul_(255) ^ x,
    "SolarizeAdd": lambda x, v: (x < 128).to(torch.uint8).mul_(v).add_(x),
    "ColorIncreasing": F.adjust_saturation,
    "ContrastIncreasing": F.adjust_contrast,
    "BrightnessIncreasing": F.adjust_brightness,
    "SharpnessIncreasing": lambda x, v: F.adjust_sharpness(      # so in a third of the time
        x.contiguous(memory_format=torch.channels_last), v).contiguous()}
RATIO = (3 / 4, 4 / 3)      # width / height of random crops
PROBABILITY, SPREAD = 0.5, 0.5      # that an operation is carried out; SD of its magnitude


def pretrain_transform(img_size: int, crop_scale: tuple[float, float] = (0.2, 1.0),
                       flip: bool = True) -> partial:
    """Random resized crop and flip of uint8 `[T, 3, H, W]` (docs/method.md, section 4).

    Args:
        crop_scale: range of the cropped area as a share of the picture; (1, 1) keeps it whole.
        flip: mirror half of the draws; the released recipe does so for photos alone.
    """
    return partial(_crop_flip, size=[img_size] * 2, scale=tuple(crop_scale), flip=flip)


def _crop_flip(clip: torch.Tensor, size: list[int], scale: tuple, flip: bool) -> torch.Tensor:
    """torchvision's draws and pixels, without what its classes add to a small clip's time."""
    if scale != (1, 1):      # aligned faces stay aligned, and nothing is resampled
        top, left, height, width = RandomResizedCrop.get_params(clip, scale, RATIO)
        clip = clip[..., top:top + height, left:left + width]
    if list(clip.shape[-2:]) != size:
        clip = interpolate(clip, size, mode="bicubic", antialias=True)
    return clip.flip(-1) if flip and torch.rand(1) < 0.5 else clip


def train_transform(img_size: int, crop_scale: tuple[float, float] = (0.5, 1.0),
                    randaugment: str = "m7-n4", random_erasing: float = 0.25) -> v2.Transform:
    """Random resized crop, flip, RandAugment, random erasing (docs/method.md, section 5).

    Differs: erased parts take the mean colour (0 after normalisation) instead of noise.

    Args:
        randaugment: timm's notation m<magnitude 0..10>-n<operations>: rand-m7-n4-mstd0.5-inc1 is
            m7-n4; empty for none.
        random_erasing: probability that a rectangle is painted over, the same in all frames.
    """
    steps = [pretrain_transform(img_size, crop_scale)]
    if randaugment:
        match = re.fullmatch(r"m(\d+(?:\.\d+)?)-n(\d+)", randaugment)
        if not match or float(match[1]) > 10:
            raise ConfigError(f"unknown RandAugment {randaugment!r}: expected m<magnitude 0..10>-"
                              "n<operations>, as in m7-n4, or an empty text")
        steps.append(partial(rand_augment, magnitude=float(match[1]), operations=int(match[2])))
    if random_erasing:
        steps.append(v2.RandomErasing(p=random_erasing, scale=(0.02, 1 / 3), value=GREY))
    return v2.Compose(steps)


def rand_augment(clip: torch.Tensor, magnitude: float, operations: int) -> torch.Tensor:
    """RandAugment with one draw for all frames: timm's operations and strengths."""
    names, clip = [*GEOMETRY, *COLOUR], clip.contiguous()
    for _ in range(operations):
        name = names[int(torch.randint(len(names), ()))]
        done = torch.rand(()) < PROBABILITY
        level = float(torch.normal(magnitude, SPREAD, (1,)).clamp(0, 10))
        sign_seed = int(torch.randint(2 ** 31, ()))
        if done:
            clip = augment(clip, name, level, sign_seed)
    return clip


def augment(clip: torch.Tensor, name: str, level: float, sign_seed: int) -> torch.Tensor:
    """One of timm's operations at its magnitude 0..10 on uint8 frames `[T, 3, H, W]`."""
    state = random.getstate()      # timm draws the sign from Python's generator
    random.seed(sign_seed)
    values = LEVEL_TO_ARG[name](level, {}) if LEVEL_TO_ARG[name] else ()
    random.setstate(state)
    if name in COLOUR:
        return COLOUR[name](clip, *values)
    (value,), (height, width) = values, clip.shape[-2:]
    if name == "Rotate":
        angle, x, y = -math.radians(value), width / 2, height / 2
        cos, sin = math.cos(angle), math.sin(angle)
        return _moved(clip, (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y))
    maps = {"ShearX": (1, value, 0, 0, 1, 0), "ShearY": (1, 0, 0, value, 1, 0),
            "TranslateXRel": (1, 0, value * width, 0, 1, 0),
            "TranslateYRel": (1, 0, 0, 0, 1, value * height)}
    return _moved(clip, maps[name])


def _moved(clip: torch.Tensor, m: tuple[float, ...]) -> torch.Tensor:
    """All frames under one affine map, bilinear in steps of 1/8 px; the outside turns grey.

    The result at x, y shows the source at m0 x + m1 y + m2, m3 x + m4 y + m5 (px). Every source
    pixel is looked up once for all frames: twice as fast as torchvision's maps.
    """
    t, _, h, w = clip.shape
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    sx = (m[0] * x + m[1] * y + m[2]).flatten()
    sy = (m[3] * x + m[4] * y + m[5]).flatten()
    outside = (sx < 0) | (sx >= w) | (sy < 0) | (sy >= h)
    fx, fy = ((8 * (s - 0.5)).round().to(torch.int64) for s in (sx, sy))
    right, down = ((f & 7).to(torch.int16)[:, None] for f in (fx, fy))      # eighths
    source = torch.empty(h * w + 1, 3 * t, dtype=torch.uint8)      # its last row is the filling
    source[:-1] = clip.reshape(3 * t, h * w).T
    source[-1] = torch.tensor(GREY, dtype=torch.uint8).repeat(t)

    def pixels(dy: int, dx: int) -> torch.Tensor:
        at = ((fy >> 3) + dy).clamp(0, h - 1) * w + ((fx >> 3) + dx).clamp(0, w - 1)
        return source.index_select(0, torch.where(outside, h * w, at)).to(torch.int16)

    def between(dy: int) -> torch.Tensor:
        mixed = pixels(dy, 0).mul_(8 - right)
        return mixed.add_(pixels(dy, 1).mul_(right)) if right.any() else mixed

    out = between(0).mul_(8 - down)
    if down.any():
        out.add_(between(1).mul_(down))
    return out.add_(32).bitwise_right_shift_(6).to(torch.uint8).T.reshape(t, 3, h, w)


def eval_views(x: torch.Tensor, img_size: int, test_crops: int = 1) -> list[torch.Tensor]:
    """Square test views of uint8 `[..., H, W]`: the short side resized, windows at even steps along
    the long side. One window is the central one; a square picture has one."""
    h, w = (round(side * img_size / min(x.shape[-2:])) for side in x.shape[-2:])
    if (h, w) != x.shape[-2:]:
        x = interpolate(x, [h, w], mode="bicubic", antialias=True)
    free = max(h, w) - img_size
    starts = [round(free / 2)]
    if test_crops > 1 and free:
        starts = [round(free * i / (test_crops - 1)) for i in range(test_crops)]
    return [F.crop(x, s if h > w else 0, s if w >= h else 0, img_size, img_size) for s in starts]


def normalise(x: torch.Tensor) -> torch.Tensor:
    """uint8 pixels with channels on axis 1 -> float32, ImageNet mean 0, standard deviation 1."""
    scale = torch.tensor([1 / (255 * s) for s in STD], device=x.device)
    shift = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)], device=x.device)
    shape = (1, 3, *[1] * (x.ndim - 2))
    x = x.to(torch.float32, memory_format=torch.contiguous_format)
    return x.mul_(scale.view(shape)).add_(shift.view(shape))      # one pass less than the formula


def train_indices(n: int, num_frames: int, sampling_rate: int,
                  generator: torch.Generator | None = None) -> list[int]:
    """A random window of a clip of n frames; a shorter clip is padded by its last frame."""
    free = max(0, n - (num_frames - 1) * sampling_rate - 1)
    start = int(torch.randint(free + 1, (), generator=generator))
    return [min(start + i * sampling_rate, n - 1) for i in range(num_frames)]


def test_indices(n: int, num_frames: int, sampling_rate: int,
                 test_segments: int) -> list[list[int]]:
    """`test_segments` windows at even steps along a clip of n frames; one is the central one."""
    free = max(0, n - (num_frames - 1) * sampling_rate - 1)
    starts = [free // 2]
    if test_segments > 1:
        starts = [round(free * i / (test_segments - 1)) for i in range(test_segments)]
    return [[min(s + i * sampling_rate, n - 1) for i in range(num_frames)] for s in starts]

