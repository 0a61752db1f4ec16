"""RandAugment for whole clips: one draw for all frames, timm's operations and strengths, at the cost of few passes over the pixels.

Colour operations see the frames as one tall picture, so that Pillow works through all of them in one call and statistics (mean,
histogram) are those of the clip. Geometric operations look up every source pixel once and move its values in all frames together.
"""
from __future__ import annotations

import math
import random
import re

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP

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

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """uint8 `[T, 3, H, W]` -> the same shape, drawing from torch's global generator."""
        names, frames = GEOMETRY + COLOUR, clip.permute(0, 2, 3, 1).contiguous().numpy()
        shape = frames.shape
        for _ in range(self.operations):
            name = names[int(torch.randint(len(names), ()))]
            done, level = torch.rand(()) < PROBABILITY, float(torch.normal(self.magnitude, SPREAD, (1,)).clamp(0, 10))
            sign = int(torch.randint(2 ** 31, ()))
            if done:
                frames = apply(frames, shape, name, level, sign, self.fill)
        return torch.from_numpy(_array(frames, shape)).permute(0, 3, 1, 2)


Frames = np.ndarray | Image.Image                # uint8 `[T, H, W, 3]`, or the frames below each other in one picture


def _array(frames: Frames, shape: tuple[int, ...]) -> np.ndarray:
    return frames if isinstance(frames, np.ndarray) else np.array(frames).reshape(shape)


def _picture(frames: Frames) -> Image.Image:
    return frames if isinstance(frames, Image.Image) else Image.fromarray(frames.reshape(-1, *frames.shape[2:]))


def apply(frames: Frames, shape: tuple[int, ...], name: str, level: float, seed: int, fill: tuple[int, int, int]) -> Frames:
    """One operation.

    Args:
        frames: in either form.
        shape: (T, H, W, 3).
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
    if name == "PosterizeIncreasing":
        arguments = (max(1, *arguments),)        # at magnitude 10 timm asks for 0 bits, which Pillow refuses
    if name in GEOMETRY:
        return moved(_array(frames, shape), matrix(name, *arguments, shape[2], shape[1]), fill)
    if name == "SharpnessIncreasing":            # it looks at neighbours, which must not be those of another frame
        return Image.blend(_picture(smooth(_array(frames, shape))), _picture(frames), *arguments)
    return NAME_TO_OP[name](_picture(frames), *arguments)


def smooth(frames: np.ndarray) -> np.ndarray:
    """Pillow's SMOOTH filter, (1 1 1, 1 5 1, 1 1 1) / 13, inside each frame `[T, H, W, 3]`; the border stays."""
    x, out = torch.from_numpy(frames).to(torch.int16), torch.from_numpy(frames.copy())
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * x[:, 1:-1, 1:-1]
    out[:, 1:-1, 1:-1] = (total * (1 / 13) + 0.5).to(torch.uint8)
    return out.numpy()


def matrix(name: str, value: float, width: int, height: int) -> tuple[float, ...]:
    """(a, b, c, d, e, f): the result at x, y shows the source at a x + b y + c, d x + e y + f (in px)."""
    if name == "Rotate":
        angle, x, y = -math.radians(value), width / 2, height / 2
        a, b, d = math.cos(angle), math.sin(angle), -math.sin(angle)
        return a, b, x - a * x - b * y, d, a, y - d * x - a * y
    return {"ShearX": (1, value, 0, 0, 1, 0), "ShearY": (1, 0, 0, value, 1, 0), "TranslateXRel": (1, 0, value * width, 0, 1, 0),
            "TranslateYRel": (1, 0, 0, 0, 1, value * height)}[name]


def moved(frames: np.ndarray, m: tuple[float, ...], fill: tuple[int, int, int]) -> np.ndarray:
    """All frames under one affine map, bilinear in steps of 1/8 px; what lies outside takes the colour `fill`."""
    t, h, w, _ = frames.shape
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    sx, sy = (m[0] * x + m[1] * y + m[2]).flatten(), (m[3] * x + m[4] * y + m[5]).flatten()
    outside = (sx < 0) | (sx >= w) | (sy < 0) | (sy >= h)
    fx, fy = ((8 * (s - 0.5)).round().to(torch.int64) for s in (sx, sy))
    left, top, px, py = fx >> 3, fy >> 3, (fx & 7).to(torch.int16)[:, None], (fy & 7).to(torch.int16)[:, None]
    source = torch.from_numpy(frames).permute(1, 2, 0, 3).reshape(h * w, 3 * t)      # a pixel's values of all frames lie together
    row = lambda dy, dx: source.index_select(0, (top + dy).clamp(0, h - 1) * w + (left + dx).clamp(0, w - 1)).to(torch.int16)
    level = lambda dy: row(dy, 0).mul_(8 - px).add_(row(dy, 1).mul_(px)) if px.any() else row(dy, 0).mul_(8)
    out = level(0).mul_(8 - py).add_(level(1).mul_(py)) if py.any() else level(0).mul_(8)
    out = out.add_(32).bitwise_right_shift_(6).to(torch.uint8)
    out = torch.where(outside[:, None], torch.tensor(fill, dtype=torch.uint8).repeat(t), out)
    return out.view(h, w, t, 3).permute(2, 0, 1, 3).contiguous().numpy()
