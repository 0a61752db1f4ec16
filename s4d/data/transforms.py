"""Augmentation on uint8 clips `[T, 3, H, W]` (one draw for all frames), test views, normalisation, sampling along time."""
from __future__ import annotations

import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from .augment import ClipRandAugment

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)      # ImageNet, for RGB in 0..1
GREY = tuple(round(255 * m) for m in MEAN)                     # 0 after normalisation


def _crop(size: int, scale: tuple[float, float]) -> v2.Transform:
    if tuple(scale) == (1, 1):        # the whole picture: aligned faces stay aligned, and nothing is resampled
        return v2.Resize((size, size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return v2.RandomResizedCrop(size, scale=tuple(scale), interpolation=InterpolationMode.BICUBIC, antialias=True)


def pretrain_transform(size: int, crop: tuple[float, float] = (0.2, 1.0), flip: bool = True) -> v2.Transform:
    """Random resized crop and, for photos, horizontal flip.

    Args:
        size: side in px of the result.
        crop: range of the cropped area as a share of the picture; (1, 1) keeps it whole.
        flip: mirror half of the draws; the released recipe does so for photos and not for clips.
    Returns:
        uint8 `[T, 3, H, W]` -> uint8 `[T, 3, size, size]`, drawing from torch's global generator.
    Source: METHOD section 4.
    """
    return v2.Compose([_crop(size, crop)] + ([v2.RandomHorizontalFlip()] if flip else []))


def train_transform(size: int, crop: tuple[float, float] = (0.5, 1.0), randaugment: str = "m7-n4", erasing: float = 0.25) -> v2.Transform:
    """Augmentation of fine-tuning: random resized crop, flip, RandAugment, random erasing.

    Args:
        size: side in px of the result.
        crop: range of the cropped area as a share of the picture; (1, 1) keeps it whole.
        randaugment: timm's notation "m<magnitude 0..10>-n<operations>"; empty for none.
        erasing: probability that a rectangle is painted over, the same in all frames.
    Returns:
        uint8 `[T, 3, H, W]` -> uint8 `[T, 3, size, size]`, drawing from torch's global generator.
    Raises:
        ValueError: for a RandAugment text of another form.
    Source: METHOD section 6. Differs: RandAugment's statistics are those of the clip, not of a frame; erased parts take the mean
        colour (0 after normalisation) instead of noise.
    """
    steps = [_crop(size, crop), v2.RandomHorizontalFlip()]
    if randaugment:
        steps.append(ClipRandAugment(randaugment, GREY))
    if erasing:
        steps.append(v2.RandomErasing(p=erasing, scale=(0.02, 1 / 3), value=GREY))
    return v2.Compose(steps)


def eval_views(x: torch.Tensor, size: int, crops: int = 1) -> list[torch.Tensor]:
    """Square test views: the short side resized to `size`, windows at even steps along the long side.

    Args:
        x: uint8 with height and width last: `[B, 3, H, W]`, `[B, 3, T, H, W]` or a clip `[T, 3, H, W]`.
        size: side in px.
        crops: number of windows; 1 is the central one.
    Returns:
        views, `x` with sides of `size`. A square picture has one window, so it gives one view: equal views would only
        cost time (the released code averages two equal ones).
    """
    h, w = x.shape[-2:]
    if min(h, w) != size:
        h, w = (size, round(w * size / h)) if h <= w else (round(h * size / w), size)
        x = F.resize(x, [h, w], interpolation=InterpolationMode.BICUBIC, antialias=True)
    free = max(h, w) - size
    starts = [round(free / 2)] if crops == 1 or free == 0 else [round(free * i / (crops - 1)) for i in range(crops)]
    return [F.crop(x, s if h > w else 0, s if w >= h else 0, size, size) for s in starts]


def _per_channel(values: tuple, x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=x.device).view(1, 3, *[1] * (x.ndim - 2))


def normalise(x: torch.Tensor) -> torch.Tensor:
    """uint8 pixels with channels on axis 1 (`[B, 3, H, W]`, `[B, 3, T, H, W]` or `[T, 3, H, W]`) -> float32, ImageNet mean 0, SD 1."""
    scale, shift = (_per_channel(v, x) for v in (tuple(1 / (255 * s) for s in STD), tuple(-m / s for m, s in zip(MEAN, STD))))
    return x.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale).add_(shift)      # one pass less than the formula


def denormalise(x: torch.Tensor) -> torch.Tensor:
    """The inverse of `normalise`: rounded and clamped to uint8."""
    return ((x.float() * _per_channel(STD, x) + _per_channel(MEAN, x)) * 255).round().clamp(0, 255).to(torch.uint8)


def _window(start: int, n: int, frames: int, stride: int) -> list[int]:
    return [min(start + i * stride, n - 1) for i in range(frames)]


def train_indices(n: int, frames: int, stride: int, generator: torch.Generator | None = None) -> list[int]:
    """A random window of a clip.

    Args:
        n: frames that the clip has.
        frames: frames to sample.
        stride: distance between two sampled frames.
        generator: source of the draw.
    Returns:
        `frames` ascending indices; a clip shorter than the window is padded by its last frame.
    """
    free = max(0, n - (frames - 1) * stride - 1)
    return _window(int(torch.randint(free + 1, (), generator=generator)), n, frames, stride)


def test_indices(n: int, frames: int, stride: int, segments: int) -> list[list[int]]:
    """Test views along time: `segments` windows whose starts are evenly spaced from the first to the last possible one.

    Args:
        n, frames, stride: as in `train_indices`.
        segments: number of windows; 1 is the central one.
    """
    free = max(0, n - (frames - 1) * stride - 1)
    starts = [free // 2] if segments == 1 else [round(free * i / (segments - 1)) for i in range(segments)]
    return [_window(s, n, frames, stride) for s in starts]


test_indices.__test__ = False      # a name that pytest would collect
