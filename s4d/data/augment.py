"""RandAugment for whole clips: one draw for all frames, timm's operations and strengths, at the cost of few passes over the pixels.

Operations on values work on the array of all frames at once, bit for bit as Pillow does them on the frames below each other; where they
look at the whole picture (mean, histogram) it is the clip. Geometric operations look up every source pixel once and move its values in
all frames together.
"""
from __future__ import annotations

import math
import random
import re
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps, ImageStat
from timm.data.auto_augment import LEVEL_TO_ARG
from torch import Tensor

GEOMETRY = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
COLOUR = ("AutoContrast", "Equalize", "Invert", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd", "ColorIncreasing",
          "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing")
PROBABILITY, SPREAD = 0.5, 0.5      # that a drawn operation is carried out; standard deviation of its magnitude


class ClipRandAugment(torch.nn.Module):
    """RandAugment of a clip or photo.

    Args:
        text: timm's notation "m<magnitude 0..10>-n<operations>".
        fill: colour of what a geometric operation leaves empty, 0..255.
    Raises:
        ValueError: for a text of another form.
    Source: METHOD section 6, timm's rand-m7-n4-mstd0.5-inc1.
    """

    def __init__(self, text: str, fill: tuple[int, int, int]):
        super().__init__()
        match = re.fullmatch(r"m(\d+(?:\.\d+)?)-n(\d+)", text)
        if not match or float(match[1]) > 10:
            raise ValueError(f"unknown RandAugment {text!r}: expected m<magnitude 0..10>-n<operations>, as in m7-n4, or an empty text")
        self.magnitude, self.operations, self.fill = float(match[1]), int(match[2]), fill

    def forward(self, clip: Tensor) -> Tensor:
        """uint8 `[T, 3, H, W]` -> the same shape, drawing from torch's global generator."""
        names, frames = GEOMETRY + COLOUR, clip.permute(0, 2, 3, 1).contiguous()
        for _ in range(self.operations):
            name = names[int(torch.randint(len(names), ()))]
            done, level = torch.rand(()) < PROBABILITY, float(torch.normal(self.magnitude, SPREAD, (1,)).clamp(0, 10))
            sign = int(torch.randint(2 ** 31, ()))
            if done:
                frames = apply(frames, name, level, sign, self.fill)
        return frames.permute(0, 3, 1, 2)


def apply(frames: Tensor, name: str, level: float, seed: int, fill: tuple[int, int, int]) -> Tensor:
    """One operation on uint8 frames `[T, H, W, 3]`.

    Args:
        name: of timm's operation.
        level: timm's magnitude 0..10.
        seed: decides the sign of operations that have one.
        fill: colour of what is left empty.
    """
    arguments = ()
    if LEVEL_TO_ARG[name] is not None:
        state = random.getstate()                # timm draws the sign from Python's generator, which is left as it was
        random.seed(seed)
        arguments = LEVEL_TO_ARG[name](level, {})
        random.setstate(state)
    if name in GEOMETRY:
        return moved(frames, matrix(name, *arguments, frames.shape[2], frames.shape[1]), fill)
    return OPERATIONS[name](frames, *arguments)


def picture(frames: Tensor) -> Image.Image:
    """The frames below each other."""
    return Image.fromarray(frames.flatten(0, 1).numpy())


def blend(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Pillow's blend of uint8 values: `first` at share 0, `second` at 1, beyond them it goes on; cut to 0..255, towards 0."""
    return (second.float() - first).mul_(share).add_(first).clamp_(0, 255).to(torch.uint8)


def posterize(frames: Tensor, bits: int) -> Tensor:
    """Keeps the highest bits, one at least: at magnitude 10 timm asks for 0, which Pillow refuses."""
    return frames & (256 - 2 ** (8 - max(1, bits)))


def contrast(frames: Tensor, factor: float) -> Tensor:
    """Away from the clip's mean grey, or towards it."""
    return blend(torch.tensor(int(ImageStat.Stat(picture(frames).convert("L")).mean[0] + 0.5)), frames, factor)


def on_picture(operation: Callable[[Image.Image], Image.Image]) -> Callable[[Tensor], Tensor]:
    """An operation of Pillow on the frames below each other."""
    return lambda frames: torch.from_numpy(np.array(operation(picture(frames)))).view_as(frames)


OPERATIONS = {
    "AutoContrast": on_picture(ImageOps.autocontrast),
    "Equalize": on_picture(ImageOps.equalize),
    "Invert": lambda frames: 255 - frames,
    "PosterizeIncreasing": posterize,
    "SolarizeIncreasing": lambda frames, level: (frames.to(torch.int16) >= level).to(torch.uint8).mul_(255).bitwise_xor_(frames),
    "SolarizeAdd": lambda frames, more: (frames < 128).to(torch.uint8).mul_(more).add_(frames),       # at most 127 + 110
    "ColorIncreasing": lambda frames, factor: on_picture(lambda p: Image.blend(p.convert("L").convert("RGB"), p, factor))(frames),
    "ContrastIncreasing": contrast,
    "BrightnessIncreasing": lambda frames, factor: blend(torch.tensor(0), frames, factor),
    "SharpnessIncreasing": lambda frames, factor: blend(smooth(frames), frames, factor),
}


def smooth(frames: Tensor) -> Tensor:
    """Pillow's SMOOTH filter, (1 1 1, 1 5 1, 1 1 1) / 13, inside each frame `[T, H, W, 3]`; the border stays."""
    x, out = frames.to(torch.int16), frames.clone()
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * x[:, 1:-1, 1:-1]
    out[:, 1:-1, 1:-1] = total.float().mul_(1 / 13).add_(0.5).to(torch.uint8)
    return out


def matrix(name: str, value: float, width: int, height: int) -> tuple[float, ...]:
    """(a, b, c, d, e, f): the result at x, y shows the source at a x + b y + c, d x + e y + f (in px)."""
    if name == "Rotate":
        angle, x, y = -math.radians(value), width / 2, height / 2
        a, b, d = math.cos(angle), math.sin(angle), -math.sin(angle)
        return a, b, x - a * x - b * y, d, a, y - d * x - a * y
    return {"ShearX": (1, value, 0, 0, 1, 0), "ShearY": (1, 0, 0, value, 1, 0), "TranslateXRel": (1, 0, value * width, 0, 1, 0),
            "TranslateYRel": (1, 0, 0, 0, 1, value * height)}[name]


def moved(frames: Tensor, m: tuple[float, ...], fill: tuple[int, int, int]) -> Tensor:
    """All frames under one affine map, bilinear in steps of 1/8 px; what lies outside takes the colour `fill`."""
    t, h, w, _ = frames.shape
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    sx, sy = (m[0] * x + m[1] * y + m[2]).flatten(), (m[3] * x + m[4] * y + m[5]).flatten()
    outside = (sx < 0) | (sx >= w) | (sy < 0) | (sy >= h)
    fx, fy = ((8 * (s - 0.5)).round().to(torch.int64) for s in (sx, sy))
    left, top, px, py = fx >> 3, fy >> 3, (fx & 7).to(torch.int16)[:, None], (fy & 7).to(torch.int16)[:, None]
    source = torch.empty(h * w + 1, 3 * t, dtype=torch.uint8)      # a pixel's values of all frames lie together; the last row is the filling
    np.copyto(source[:-1].view(h * w * 3, t).numpy(), frames.view(t, -1).numpy().T)
    source[-1] = torch.tensor(fill, dtype=torch.uint8).repeat_interleave(t)
    place = lambda dy, dx: torch.where(outside, h * w, (top + dy).clamp(0, h - 1) * w + (left + dx).clamp(0, w - 1))
    row = lambda dy, dx: source.index_select(0, place(dy, dx)).to(torch.int16)
    level = lambda dy: row(dy, 0).mul_(8 - px).add_(row(dy, 1).mul_(px)) if px.any() else row(dy, 0).mul_(8)
    out = level(0).mul_(8 - py).add_(level(1).mul_(py)) if py.any() else level(0).mul_(8)
    out = out.add_(32).bitwise_right_shift_(6).to(torch.uint8)
    return torch.from_numpy(np.ascontiguousarray(out.view(h * w * 3, t).numpy().T)).view(frames.shape)
