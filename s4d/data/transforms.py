"""Augmentation on uint8 clips `[T, 3, H, W]` (one draw for all frames), views, normalisation, time."""
from __future__ import annotations

import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from .augment import ClipRandAugment

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)      # ImageNet, for RGB in 0..1
GREY = tuple(round(255 * m) for m in MEAN)                     # 0 after normalisation


def _crop(img_size: int, crop_scale: tuple[float, float]) -> v2.Transform:
    if tuple(crop_scale) == (1, 1):      # aligned faces stay aligned, and nothing is resampled
        return v2.Resize((img_size, img_size), InterpolationMode.BICUBIC, antialias=True)
    return v2.RandomResizedCrop(img_size, tuple(crop_scale),
                                interpolation=InterpolationMode.BICUBIC, antialias=True)


def pretrain_transform(img_size: int, crop_scale: tuple[float, float] = (0.2, 1.0),
                       flip: bool = True) -> v2.Transform:
    """Random resized crop and, for photos, horizontal flip (docs/method.md, section 4).

    Args:
        img_size: side in px of the result.
        crop_scale: range of the cropped area as a share of the picture; (1, 1) keeps it whole.
        flip: mirror half of the draws; the released recipe does so for photos and not for clips.
    Returns:
        uint8 `[T, 3, H, W]` -> uint8 `[T, 3, img_size, img_size]`, drawing from torch's global
        generator.
    """
    steps = [_crop(img_size, crop_scale)]
    return v2.Compose(steps + ([v2.RandomHorizontalFlip()] if flip else []))


def train_transform(img_size: int, crop_scale: tuple[float, float] = (0.5, 1.0),
                    randaugment: str = "m7-n4", random_erasing: float = 0.25) -> v2.Transform:
    """Random resized crop, flip, RandAugment, random erasing (docs/method.md, section 5).

    Differs: erased parts take the mean colour (0 after normalisation) instead of noise.

    Args:
        img_size, crop_scale: as for `pretrain_transform`.
        randaugment: timm's notation "m<magnitude 0..10>-n<operations>"; empty for none.
        random_erasing: probability that a rectangle is painted over, the same in all frames.
    Returns:
        a function as of `pretrain_transform`.
    Raises:
        ValueError: for a RandAugment text of another form.
    """
    steps = [_crop(img_size, crop_scale), v2.RandomHorizontalFlip()]
    if randaugment:
        steps.append(ClipRandAugment(randaugment, GREY))
    if random_erasing:
        steps.append(v2.RandomErasing(p=random_erasing, scale=(0.02, 1 / 3), value=GREY))
    return v2.Compose(steps)


def eval_views(x: torch.Tensor, img_size: int, test_crops: int = 1) -> list[torch.Tensor]:
    """Square test views: the short side resized, windows at even steps along the long side.

    Args:
        x: uint8 with height and width last: `[B, 3, H, W]`, `[B, 3, T, H, W]` or `[T, 3, H, W]`.
        test_crops: number of windows; 1 is the central one. A square picture has one window (the
            released code averages two equal ones).
    """
    h, w = x.shape[-2:]
    if min(h, w) != img_size:
        short = min(h, w)
        h, w = (img_size if side == short else round(side * img_size / short) for side in (h, w))
        x = F.resize(x, [h, w], interpolation=InterpolationMode.BICUBIC, antialias=True)
    free = max(h, w) - img_size
    if test_crops == 1 or free == 0:
        starts = [round(free / 2)]
    else:
        starts = [round(free * i / (test_crops - 1)) for i in range(test_crops)]
    return [F.crop(x, s if h > w else 0, s if w >= h else 0, img_size, img_size) for s in starts]


def _per_channel(values: list[float], x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=x.device).view(1, 3, *[1] * (x.ndim - 2))


def normalise(x: torch.Tensor) -> torch.Tensor:
    """uint8 pixels with channels on axis 1 -> float32, ImageNet mean 0, standard deviation 1."""
    scale = _per_channel([1 / (255 * s) for s in STD], x)
    shift = _per_channel([-m / s for m, s in zip(MEAN, STD, strict=True)], x)
    x = x.to(torch.float32, memory_format=torch.contiguous_format)
    return x.mul_(scale).add_(shift)      # one pass less than the formula


def denormalise(x: torch.Tensor) -> torch.Tensor:
    """The inverse of `normalise`: rounded and clamped to uint8."""
    x = (x.float() * _per_channel(list(STD), x) + _per_channel(list(MEAN), x)) * 255
    return x.round().clamp(0, 255).to(torch.uint8)


def _window(start: int, n: int, num_frames: int, sampling_rate: int) -> list[int]:
    return [min(start + i * sampling_rate, n - 1) for i in range(num_frames)]


def train_indices(n: int, num_frames: int, sampling_rate: int,
                  generator: torch.Generator | None = None) -> list[int]:
    """A random window of a clip of n frames; a shorter clip is padded by its last frame."""
    free = max(0, n - (num_frames - 1) * sampling_rate - 1)
    start = int(torch.randint(free + 1, (), generator=generator))
    return _window(start, n, num_frames, sampling_rate)


def test_indices(n: int, num_frames: int, sampling_rate: int,
                 test_segments: int) -> list[list[int]]:
    """`test_segments` windows at even steps along a clip of n frames; one is the central one."""
    free = max(0, n - (num_frames - 1) * sampling_rate - 1)
    if test_segments == 1:
        starts = [free // 2]
    else:
        starts = [round(free * i / (test_segments - 1)) for i in range(test_segments)]
    return [_window(s, n, num_frames, sampling_rate) for s in starts]


test_indices.__test__ = False      # a name that pytest would collect
