"""What a training takes, measured: memory by the sample, for an error that helps, and ten steps, for a dry run."""
from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch
from torch.nn.modules import Module

from ..config import Pretrain, update
from .ranks import world
from .runs import RunError

GB = 1e9


def recompute(model: Module, enable: bool) -> None:
    """Switches the recomputation of activations in a model; in an autoencoder the decoder, which has all tokens, keeps most of them."""
    model.set_grad_checkpointing(enable)


def capacity(device: torch.device) -> int:
    """Bytes that a process can use: all of a GPU, or what is free of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):          # Windows and macOS do not tell
        return 8 * 2 ** 30


def kept(model: Module, inputs: tuple[torch.Tensor, ...]) -> int:
    """Bytes that a step takes beside the model's: on CUDA the peak of forward and backward, elsewhere what the forward pass keeps
    for the backward pass."""
    if inputs[0].device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model(*inputs).float().sum().backward()
        model.zero_grad(set_to_none=True)
        return torch.cuda.max_memory_allocated() - before
    own, seen = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = model(*inputs)                               # held, so that no address is used twice
    del out
    return sum(seen.values())


def by_sample(loop, task: str) -> tuple[int, int]:
    """Bytes that a step takes for each sample, and beside the samples; from steps of one and of two, draws left as they were."""
    model, cuda = loop.model, [loop.device] if loop.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        loop.split.window[:] = [0, 2, 2]
        with loop.autocast():
            one, two = (kept(model, loop.inputs(task, n)) for n in (1, 2))
    state = sum(p.numel() for p in model.parameters()) * (16 + 4 * (world() > 1) + 4 * (loop.average is not None))
    return max(1, two - one), max(0, 2 * one - two) + state       # weights, gradients and two moments, float32; DDP's buckets; EMA


def out_of_memory(loop, error: BaseException | None = None) -> RunError:
    """What to change, from memory measured with one and with two samples of the modality at hand."""
    if loop is None or loop.task is None:
        return RunError("the model does not fit into the device's memory: choose a smaller one, or another device")
    if error is not None:
        traceback.clear_frames(error.__traceback__)        # they hold the step's activations
    if loop.device.type == "cuda":
        torch.cuda.empty_cache()
    task, cfg, room = loop.task, loop.cfg, 0.9 * capacity(loop.device)
    rows = max(1, -(-max(loop.split.rows) // cfg.grad_accum_steps))
    head = f"out of memory at step {loop.step} of {loop.run.dir.name} with {rows} {task} samples at once"
    try:
        recompute(loop.model, cfg.grad_checkpointing)
        each, beside = by_sample(loop, task)
        recompute(loop.model, True)
        each_again, beside_again = by_sample(loop, task)
    except torch.OutOfMemoryError:
        return RunError(f"{head}, and not even two fit: choose a smaller model, size or frames, or a GPU with more memory; the last "
                        "state is intact")
    fit, fit_again = int((room - beside) // each), int((room - beside_again) // each_again)
    measured = f"one takes {each / GB:.3g} GB, the model {beside / GB:.3g} GB of {capacity(loop.device) / GB:.3g} GB (measured)"
    repeats = cfg.repeat_aug if isinstance(cfg, Pretrain) and task == "video" else 1
    ways = []
    if 1 <= fit < rows:
        pieces = -(-max(loop.split.rows) // fit)
        batch = max(1, fit * world() * cfg.grad_accum_steps // repeats)
        ways.append(f"accumulate={pieces} cuts the same batch into pieces that fit, or {task}_batch={batch}")
    elif fit >= rows:
        ways.append("this should fit: close other programs that use the device")
    if not cfg.grad_checkpointing and fit_again > max(fit, 0):
        ways.append(f"checkpointing=True fits up to {fit_again} samples at once")
    ways = ways or ["choose a smaller model, size or frames"]
    return RunError(f"{head}: {measured}; {'; '.join(ways)}; the last state is intact")


class Measured(BaseException):
    """Ten steps were measured."""


class Probe:
    """Stops a training after ten measured steps, half of either modality, each after one that is not counted.

    Args:
        count: of the measured steps.
    """

    def __init__(self, count: int = 10):
        self.count, self.seconds, self.steps, self.tasks, self.peak = count, {}, 0, Counter(), 0

    def choose(self, batches: list, steps: int) -> list:
        """Which of an epoch's planned batches to run."""
        self.steps, self.tasks = steps, Counter(keys[0].task for keys in batches)
        each = self.count // len(self.tasks) + 1
        parts = [[keys for keys in batches if keys[0].task == task] for task in sorted(self.tasks)]
        chosen = [part[i % len(part)] for part in parts for i in range(each)]
        self.left, self.at, self.task = len(chosen), time.perf_counter(), None
        return chosen

    def tick(self, task: str, device: torch.device) -> None:
        """One step done."""
        if device.type == "cuda":
            torch.cuda.synchronize()
            self.peak = torch.cuda.max_memory_allocated()
        now = time.perf_counter()
        times = self.seconds.setdefault(task, [])
        times.append(now - self.at)
        self.at, self.left = now, self.left - 1
        if not self.left:
            raise Measured

    def table(self) -> dict:
        """steps, seconds a step by modality, hours of all steps (without validation and test), peak memory in GB."""
        each = {task: sum(t[1:] or t) / len(t[1:] or t) for task, t in self.seconds.items()}
        batches = sum(self.tasks.values())
        hours = sum(self.steps * self.tasks[task] / batches * s for task, s in each.items()) / 3600
        return {"steps": self.steps, "measured": sum(len(t[1:] or t) for t in self.seconds.values()),
                "seconds_per_step": {k: round(v, 4) for k, v in each.items()}, "hours": hours, "peak_gb": (self.peak or resident()) / GB}


def resident() -> int:
    """Largest memory that this process has had, bytes."""
    try:
        import resource
    except ImportError:                                    # Windows
        return 0
    import sys
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def dry_run(cfg, count: int = 10) -> dict:
    """Trains ten steps in a folder that is thrown away, and says what the whole run would take.

    A pre-training that fine-tuning would start from is left out: weights do not change the time of a step. Samples are decoded
    anew: a packed cache would take long to make, and stay.
    """
    from .jobs import train
    from .loop import Loop
    cfg = update(cfg, cache=False)
    if isinstance(getattr(cfg, "init", None), Pretrain):
        cfg = update(cfg, init=None)
    Loop.probe = Probe(count)
    try:
        with tempfile.TemporaryDirectory() as folder:
            try:
                train(cfg, Path(folder))
            except Measured:
                pass
        return Loop.probe.table()
    finally:
        Loop.probe = None


def describe(found: dict) -> list[str]:
    """A dry run's findings, a sentence each."""
    hours, each = found["hours"], found["seconds_per_step"]
    time_ = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
    rates = " and ".join(f"{v:.3g} s for {task}s" for task, v in sorted(each.items()))
    return [f"{found['steps']} steps; a step takes {rates} (mean of {found['measured']} measured steps)",
            f"about {time_}, without validation and test; at most {found['peak_gb']:.2f} GB of memory in this process so far"]
