"""Seeds, learning-rate schedule, optimizer and precision of both stages."""
from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer

from ..config import ConfigError


def cosine(step: int, steps: int, warmup: int, peak: float, low: float = 0.0,
           start: float = 1e-6) -> float:
    """Return a step's learning rate: linear warm-up to `peak`, then half a cosine to `low`."""
    if step < warmup:
        return start + (peak - start) * (step + 1) / warmup
    turn = math.pi * (step - warmup) / max(1, steps - warmup)
    return low + (peak - low) * 0.5 * (1 + math.cos(turn))


def optimizer_for(model: nn.Module, betas: tuple[float, float], weight_decay: float,
                  layer_decay: float = 1.0) -> Optimizer:
    """Return AdamW over timm's groups: no decay on biases and norms, `lr_scale` for layer decay."""
    if not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"betas are {tuple(betas)!r}: expected two numbers from 0 and below 1, "
                          "as in (0.9, 0.999)")
    spared = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    if layer_decay < 1:
        groups = param_groups_layer_decay(model, weight_decay, no_weight_decay_list=spared,
                                          layer_decay=layer_decay)
    else:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spared)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)    # a fifth of the time


def set_lr(optimizer: Optimizer, lr: float) -> float:
    """Set each group's rate, times its `lr_scale` (without it layer decay is silently off)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    return lr


def autocast(device: torch.device, enabled: bool):
    """Return bf16 autocast on CUDA and on CPUs with bf16 units; float32 elsewhere."""
    units = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    able = device.type == "cuda" or (device.type == "cpu" and enabled and units())
    return torch.autocast(device.type, torch.bfloat16) if enabled and able else nullcontext()
