"""Device, processes, optimizer, learning rate and guards of both stages.

Processes that torchrun starts share each batch, whose size the configuration fixes for all. Their
gradients are averaged. Draws in the model depend on step and process: as many resume bit for bit.
"""
import atexit
import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist
from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import Optimizer
from tqdm import tqdm

from ..config import Finetune, Pretrain
from ..models import MoAE
from .runs import RunError

EVERY, LEAST, PATIENCE = 10, 0.01, 500     # steps between looks; least share of assignments; steps


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; 0, the main process, writes."""
    return dist.get_rank() if world_size() > 1 else 0


def keep_memory() -> None:
    """Let glibc keep the memory that a step frees: given back, it costs up to a third of a step."""
    with suppress(OSError, AttributeError):           # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-1, 2**31 - 1)                        # M_TRIM_THRESHOLD: the heap never shrinks
        mallopt(-4, 0)                                # M_MMAP_MAX: no tensor lies outside of it


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
    return create_optimizer_v2(model, "adamw", lr=0.0, betas=betas, weight_decay=weight_decay,
                               layer_decay=layer_decay if layer_decay < 1 else None,
                               fused=True)                               # five times as fast


def set_lr(optimizer: Optimizer, lr: float) -> float:
    """Set each group's rate, times its `lr_scale` (without it layer decay is silently off)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    return lr


def say(sentence: str) -> None:
    """Write a sentence of the main process to the error stream, beside a running bar."""
    if rank() == 0:
        tqdm.write(f"s4d: {sentence}", file=sys.stderr)


class Guard:
    """Look at every step of a run on so many samples; say each warning once."""

    saved = ("unreadable", "warned", "idle_since")         # with each checkpoint

    def __init__(self, cfg: Pretrain | Finetune, samples: int):
        self.cfg, self.samples = cfg, samples
        self.unreadable: dict[str, str] = {}       # path -> cause
        self.warned: dict[str, str] = {}           # kind -> sentence
        self.idle_since: dict[str, int] = {}       # expert -> step since which it is idle

    def warn(self, kind: str, sentence: str) -> None:
        if kind not in self.warned:
            self.warned[kind] = sentence
            say(sentence)

    def media(self, unreadable: list[tuple[str, str]]) -> None:
        """Count unreadable samples, each once; raise RunError when they are too many."""
        self.unreadable.update(unreadable)
        if len(self.unreadable) > self.cfg.max_unreadable * self.samples:
            path, cause = next(iter(self.unreadable.items()))
            raise RunError(f"{len(self.unreadable)} of {self.samples} training samples are "
                           f"unreadable, more than max_unreadable={self.cfg.max_unreadable:g}; "
                           f"the first is {path} ({cause}): run `python -m s4d audit`, repair the "
                           "files or raise max_unreadable")

    @contextmanager
    def experts(self, model: nn.Module, step: int) -> Iterator[None]:
        """Look at the gates of every tenth step; warn of an expert that is idle for long."""
        layers = {name: layer for name, layer in model.named_modules()
                  if step % EVERY == 0 and isinstance(layer, MoAE) and layer.top_k}
        for layer in layers.values():
            layer.record = []
        yield
        for name, layer in layers.items():
            gates, layer.record = layer.record, None           # one [B, L, E] a forward pass
            used = (gates[0] > 0).float().mean((0, 1)).tolist() if gates else []
            for expert, share in enumerate(used):
                key = f"{name} {expert}"
                if share >= LEAST * layer.top_k:
                    self.idle_since.pop(key, None)
                elif step - self.idle_since.setdefault(key, step) >= PATIENCE:
                    self.warn(name, f"expert {expert} of {name} has had under {LEAST:.0%} of the "
                                    f"assignments since step {self.idle_since[key]}: its router "
                                    "has collapsed; raise aux_loss_weight, or use fewer experts")
