"""Several processes on one run, as torchrun starts them: data parallelism in plain torch.

The configuration fixes the batch of all processes together. Each reads a contiguous share of it.
Gradients are averaged, weighted by what each process could read. Random draws inside the model
are a function of step and process, so that a run resumes bit for bit on as many processes.
"""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .runs import RunError


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; 0 writes."""
    return dist.get_rank() if world() > 1 else 0


def pick_device(deterministic: bool = False) -> torch.device:
    """Return this process's device; under torchrun, join the group of processes first.

    Args:
        deterministic: hold PyTorch to deterministic algorithms on CUDA.
    """
    cuda, local, device = torch.cuda.is_available(), os.environ.get("LOCAL_RANK"), "cpu"
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")     # read when cuBLAS starts
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = False
        device, count = "cuda", torch.cuda.device_count()
        if local is not None:
            if int(local) >= count:
                raise RunError(f"process {local} of this machine has no GPU, there are {count}: "
                               "start as many processes as GPUs (torchrun --nproc-per-node "
                               f"{count})")
            device = f"cuda:{local}"
            torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    return torch.device(device)


def leave() -> None:
    """Leave the group, at the end of the program."""
    if world() > 1:
        dist.destroy_process_group()


def of_first(value):
    """Return on every process what process 0 holds."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value) -> list:
    """Return what every process holds, by rank."""
    values = [value] * world()
    if world() > 1:
        dist.all_gather_object(values, value)
    return values


@contextmanager
def first() -> Iterator[None]:
    """Let process 0 go first, as long as it takes: it may decode a corpus into the cache."""
    group = None
    if world() > 1:
        group = dist.new_group(backend="gloo", timeout=timedelta(hours=12))
    if rank() > 0:
        dist.barrier(group)
    yield
    if group is not None and rank() == 0:
        dist.barrier(group)


def wrapped(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model with gradients averaged over processes; the idle head keeps none."""
    if world() == 1:
        return model
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, ids, broadcast_buffers=False, find_unused_parameters=True)
