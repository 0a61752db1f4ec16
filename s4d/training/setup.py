"""Device, processes, optimizer and learning rate of both stages.

Several processes on one run, as torchrun starts them, share each batch: the configuration fixes
its size for all together. Gradients are averaged, weighted by what each process could read. Random
draws inside the model depend on step and process, so that a run resumes on as many bit for bit.
"""
from __future__ import annotations

import atexit
import math
import os

import torch
import torch.distributed as dist
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; 0, the main process, writes."""
    return dist.get_rank() if world_size() > 1 else 0


def pick_device(deterministic: bool = False) -> torch.device:
    """Return this process's device; under torchrun, join the group of processes first."""
    cuda, device = torch.cuda.is_available(), "cpu"
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")     # read when cuBLAS starts
        torch.use_deterministic_algorithms(deterministic)
        device = "cuda"
        if "LOCAL_RANK" in os.environ:
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)
    return torch.device(device)


def broadcast(value):
    """Return on every process what the main process holds."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value) -> list:
    """Return what every process holds, by rank."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def cosine(step: int, steps: int, warmup: int, peak: float, low: float = 0.0) -> float:
    """Return a step's learning rate: linear warm-up to `peak`, then half a cosine to `low`."""
    if step < warmup:
        return 1e-6 + (peak - 1e-6) * (step + 1) / warmup
    turn = math.pi * (step - warmup) / max(1, steps - warmup)
    return low + (peak - low) * 0.5 * (1 + math.cos(turn))


def optimizer_for(model: nn.Module, betas: tuple[float, float], weight_decay: float,
                  layer_decay: float = 1.0) -> Optimizer:
    """Return AdamW over timm's groups: no decay on biases and norms, `lr_scale` for layer decay."""
    spared = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    if layer_decay < 1:
        groups = param_groups_layer_decay(model, weight_decay, spared, layer_decay=layer_decay)
    else:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spared)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)    # a fifth of the time


def set_lr(optimizer: Optimizer, lr: float) -> float:
    """Set each group's rate, times its `lr_scale` (without it layer decay is silently off)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    return lr
