"""Several processes on one run, started by torchrun: who reads which part of a batch, whose draws are whose, who writes.

A step has one global batch, fixed by configuration and seed. Process r of n reads the r-th of n contiguous parts; with
`accumulate` each part is cut again. Draws inside the model (router noise, stochastic depth) and in MixUp and CutMix are made
for the global batch on every process, which keeps its rows: all generators stay equal, so one state serves any number of
processes, and n processes compute what one does, up to the order of floating-point sums.
"""
from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from timm.layers import DropPath
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import ConfigError
from ..data.dataset import cut
from ..models import MoAE
from .runs import RunError


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 writes."""
    return dist.get_rank() if world() > 1 else 0


def join() -> torch.device:
    """This process's device; under torchrun the process enters the group first (gloo on CPU, NCCL on CUDA).

    Raises:
        RunError: when this machine has fewer GPUs than processes.
    """
    cuda, local = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise RunError(f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}: start as many processes as "
                       f"GPUs (torchrun --nproc-per-node {torch.cuda.device_count()})")
    device = torch.device("cuda", local) if cuda and "LOCAL_RANK" in os.environ else torch.device("cuda" if cuda else "cpu")
    if device.index is not None:
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    return device


def leave() -> None:
    """Leaves the group, at the end of the program."""
    if world() > 1:
        dist.destroy_process_group()


def of_first(value):
    """What process 0 holds, on every process."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value) -> list:
    """What every process holds, by rank."""
    if world() == 1:
        return [value]
    found = [None] * world()
    dist.all_gather_object(found, value)
    return found


@contextmanager
def first() -> Iterator[None]:
    """Process 0 goes first, as long as it takes (it may decode a corpus into the cache), the others after it."""
    if world() == 1:
        yield
        return
    group = dist.new_group(backend="gloo", timeout=timedelta(hours=12))
    if rank():
        dist.barrier(group)
    yield
    if not rank():
        dist.barrier(group)


def mine(batches: list) -> list:
    """The batches of an evaluation that this process computes; each belongs to one process, so no sample is counted twice."""
    return batches[rank()::world()]


def merged(total: np.ndarray, count: np.ndarray, bad: dict, broken: list) -> tuple[np.ndarray, np.ndarray, dict, list]:
    """Sums of probabilities and of views, and the unreadable samples, over all processes."""
    if world() == 1:
        return total, count, bad, broken
    for array in (total, count):
        dist.all_reduce(torch.from_numpy(array))
    parts = gathered((bad, broken))
    return total, count, {k: v for b, _ in parts for k, v in b.items()}, [row for _, rows in parts for row in rows]


class Draws(TorchFunctionMode):
    """Inside it a normal or Bernoulli draw for this piece's rows is the piece's part of one draw for the whole batch."""

    def __init__(self, window: list[int]):
        super().__init__()
        self.window = window               # first row, row after the last, rows of the whole batch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        low, _, total = self.window
        if func is torch.randn_like:
            x = args[0]
            return torch.randn((total, *x.shape[1:]), dtype=x.dtype, device=x.device)[low: low + len(x)]
        if func is torch.Tensor.bernoulli_:
            x = args[0]
            return x.copy_(x.new_empty((total, *x.shape[1:])).bernoulli_(*args[1:], **(kwargs or {}))[low: low + len(x)])
        return func(*args, **(kwargs or {}))


class Touch(nn.Module):
    """Adds nothing to a classifier's logits, but idle parameters to its graph: DDP waits for a gradient of each."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        out = self.model(x, *rest)
        for p in idle(self.model, x):
            out = out + 0.0 * p.sum()
        return out


def idle(model: nn.Module, x: Tensor) -> list[nn.Parameter]:
    """Parameters that take no part in this input's loss: the other modality's head, and the noise maps of routers without noise."""
    heads = getattr(model, "head", None)
    if not isinstance(heads, nn.ModuleDict):
        return []
    silent = [layer.noise_proj for layer in model.modules() if isinstance(layer, MoAE) and layer.top_k and layer.noise_mode == "never"]
    return [p for module in (heads["video" if x.ndim == 4 else "image"], *silent) for p in module.parameters()]


class Split:
    """How a step's batch is cut over processes and pieces, and what is put together again.

    Args:
        model: the model on its device.
        device: this process's.
        pieces: that each process cuts its part into (`accumulate`).
        example: a batch of one input, and what else the model takes: DDP orders its buckets by a first backward pass, which
            must be the same one whether a run begins or goes on, for equal sums.
    Raises:
        ConfigError: for experts with a limited capacity where the batch is cut.
    """

    def __init__(self, model: nn.Module, device: torch.device, pieces: int, example: tuple[Tensor, ...]):
        self.model, self.device, self.count = model, device, pieces
        self.window, self.rows, self.routed, self.net = [0, 0, 0], [0], {}, model
        self.on = world() > 1 or pieces > 1
        if self.on and any(isinstance(layer, MoAE) and layer.capacity_factor for layer in model.modules()):
            raise ConfigError("capacity counts the tokens of a whole batch, which several processes or accumulate above 1 cut: train with one "
                              "process and accumulate=1, or with capacity=0")
        if self.on:
            self._share_draws()
        if world() > 1:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):     # the option's new name is not in older releases
                self.net = nn.parallel.DistributedDataParallel(
                    Touch(model), device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False)
            self.window[:] = [0, len(example[0]), len(example[0])]
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                self.net(*example).sum().backward()
            model.zero_grad(set_to_none=True)

    def _share_draws(self) -> None:
        draws = Draws(self.window)

        def within(function, layer=None):
            def call(*args):
                with draws:
                    out = function(*args)
                if layer is not None and layer.training:
                    _, chosen, scores = out
                    self.routed[layer] = (chosen.detach().float().sum((0, 1)), scores.softmax(-1).mean((0, 1)), chosen.shape[1])
                return out
            return call
        for module in self.model.modules():
            if isinstance(module, MoAE):
                module.route = within(module.route, module)
            elif isinstance(module, DropPath):
                module.forward = within(module.forward)
        self.draws = draws

    def exchange(self, rows: int, stop: bool, bad: list) -> tuple[bool, list]:
        """Tells the others how many rows of a batch could be read here; returns whether one was asked to stop, and all that is bad."""
        self.rows = [rows]
        if world() > 1:
            told = [torch.empty(3, dtype=torch.int64) for _ in range(world())]
            dist.all_gather(told, torch.tensor([rows, int(stop), len(bad)]))
            self.rows, stops, broken = torch.stack(told).t().tolist()
            stop = any(stops)
            if any(broken):
                bad = [b for part in gathered(bad) for b in part]
        return stop, bad

    @property
    def total(self) -> int:
        """Rows of the batch over all processes."""
        return sum(self.rows)

    def part(self, rows: Tensor) -> Tensor:
        """This process's rows of a tensor `[B, ...]` made for the whole batch; one row where it has none."""
        start = sum(self.rows[:rank()])
        return rows[start: start + self.rows[rank()]] if self.rows[rank()] else rows[:1]

    def mixed(self, mix, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """MixUp or CutMix as over the whole batch: mates are neighbours in a circle, and this process's first row has the last row
        of the process before."""
        if world() == 1:
            return mix(x, y)
        lasts = [[torch.empty_like(t[-1:]) for _ in range(world())] for t in (x, y)]
        for found, t in zip(lasts, (x, y)):
            dist.all_gather(found, t[-1:].contiguous())
        before = next(r % world() for r in range(rank() - 1 + world(), rank() - 1, -1) if self.rows[r % world()])
        x, y = mix(*(torch.cat([found[before], t]) for found, t in zip(lasts, (x, y))))
        return x[1:], y[1:]

    def pieces(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Cuts this process's part; gradients are exchanged with the last piece alone, and each piece makes the same draws."""
        states = self._generators() if self.count > 1 else None
        for i in range(self.count):
            edges = [cut(n, self.count)[i:i + 2] for n in self.rows]
            low, high = edges[rank()]
            start = sum(self.rows[:rank()]) + low
            self.window[:] = [start if high > low else 0, start + high - low, self.total]
            self.piece_rows, self.weight = sum(b - a for a, b in edges), (high - low) * world() / max(1, self.total)
            if i and states is not None:
                self._generators(states)
            with self.net.no_sync() if world() > 1 and i < self.count - 1 else nullcontext():
                yield tuple(t[low:high] if high > low else t[:1] for t in tensors)     # without rows: one that weighs nothing

    def _generators(self, states: tuple | None = None) -> tuple | None:
        cuda = self.device.type == "cuda"
        if states is None:
            return torch.get_rng_state(), torch.cuda.get_rng_state(self.device) if cuda else None
        torch.set_rng_state(states[0])
        if cuda:
            torch.cuda.set_rng_state(states[1], self.device)

    def balance_loss(self) -> Tensor:
        """The experts' balance loss of the piece: shares of tokens over all processes, gradients through this one's probabilities.

        Weighted by the rows and summed over processes it is the loss of the whole batch. With `accumulate` above 1 it is the mean of
        its pieces' losses instead, as a piece cannot wait for the ones after it.
        """
        if not self.on:
            return self.model.balance_loss()
        layers = [layer for layer in self.model.modules() if isinstance(layer, MoAE) and layer.top_k]
        if not layers:
            return self.model.balance_loss()
        counts = torch.stack([self.routed[layer][0] for layer in layers]) * (1.0 if self.weight else 0.0)
        if world() > 1:
            dist.all_reduce(counts)
        tokens = max(1, self.piece_rows) * self.routed[layers[0]][2]
        terms = [layer.num_experts * (n / (tokens * layer.top_k) * self.routed[layer][1]).sum() for layer, n in zip(layers, counts)]
        return torch.stack(terms).sum()

    def summed(self, *values: Tensor) -> list[float]:
        """Sums over processes."""
        if world() == 1:
            return [v.item() for v in values]
        box = torch.stack([v.detach().double().cpu() for v in values])
        dist.all_reduce(box)
        return (box / world()).tolist()
