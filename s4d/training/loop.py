"""Pieces that both stages share: device, schedule, optimizer groups, progress, the guard against bad media."""
from __future__ import annotations

import math
import random
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from tqdm.auto import tqdm

from ..config import ConfigError
from .runs import Log, Run, RunError, load_state, write


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, enabled: bool):
    """bf16 autocast on CUDA, and on CPUs with bf16 units, where it shortens training steps (`make bench`); float32 elsewhere."""
    units = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    able = device.type == "cuda" or (device.type == "cpu" and enabled and units())
    return torch.autocast(device.type, torch.bfloat16) if enabled and able else nullcontext()


def cosine(step: int, steps: int, warmup: int, peak: float, low: float = 0.0, start: float = 1e-6) -> float:
    """Learning rate of a step: linear warm-up from `start` to `peak`, then half a cosine to `low`."""
    if step < warmup:
        return start + (peak - start) * (step + 1) / warmup
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def optimizer_for(model: torch.nn.Module, betas: tuple[float, float], weight_decay: float, layer_decay: float = 1.0):
    """AdamW over timm's groups: no decay on biases and norms, layer-wise learning-rate scales in `lr_scale`.

    Raises:
        ConfigError: for betas outside 0..1.
    """
    if not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"betas are {tuple(betas)!r}: expected two numbers from 0 and below 1, as in (0.9, 0.999)")
    spared = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups = (param_groups_layer_decay(model, weight_decay, no_weight_decay_list=spared, layer_decay=layer_decay) if layer_decay < 1
              else param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spared))
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)      # a step in a fifth of the time at base size on a CPU


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets each group's rate, honouring its `lr_scale` (layer decay is silently off without this)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def step_loss(loss: torch.Tensor, step: int, run: Path) -> float:
    """The loss as a number.

    Raises:
        RunError: for a non-finite loss, naming the step.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise RunError(f"loss is {value} at step {step} of {run.name}: lower the learning rate or clip gradients; the last state is intact")
    return value


class MediaGuard:
    """Counts unreadable training samples, each once, and stops a run that meets too many."""

    def __init__(self, samples: int, limit: float, bad: dict[str, str] | None = None):
        self.samples, self.limit, self.bad = samples, limit, dict(bad or {})

    def see(self, bad: list[tuple[str, str]]) -> None:
        """Raises RunError when more than the configured share of the samples is unreadable."""
        self.bad.update(dict(bad))
        if len(self.bad) > self.limit * self.samples:
            path, cause = next(iter(self.bad.items()))
            raise RunError(f"{len(self.bad)} of {self.samples} training samples are unreadable, more than max_bad={self.limit:g}; the "
                           f"first is {path} ({cause}): run `python -m s4d audit`, repair the files or raise max_bad")


class Progress:
    """A bar with the time left, silent when the output is no terminal. In a worker process of `run_all` it has no bar and tells
    the parent ("begin", steps to go) once and ("steps", 1) after each."""

    queue = None      # set in the worker processes of `run_all`

    def __init__(self, name: str, steps: int, done: int):
        self.bar = tqdm(total=steps, initial=done, desc=name, unit="step", disable=True if Progress.queue is not None else None)
        self.tell("begin", steps - done)

    def tell(self, what: str, count: int) -> None:
        if Progress.queue is not None:
            Progress.queue.put((what, count))

    def step(self, loss: float | None) -> None:
        """One step done; `loss` is None when the whole batch was unreadable."""
        if loss is not None:
            self.bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self.bar.update(1)
        self.tell("steps", 1)

    def close(self) -> None:
        self.bar.close()


class Saver:
    """Writes the resumable state every `minutes`, atomically."""

    def __init__(self, folder: Path, minutes: float):
        self.path, self.seconds, self.last = folder / "state.pt", 60 * minutes, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last > self.seconds

    def save(self, **state) -> None:
        state["rng"] = torch.get_rng_state()
        if torch.cuda.is_available():
            state["cuda_rng"] = torch.cuda.get_rng_state()
        write(self.path, lambda p: torch.save(state, p))
        self.last = time.monotonic()


def restore_rng(state: dict) -> None:
    torch.set_rng_state(state["rng"])
    if torch.cuda.is_available() and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"])


def seed_all(seed: int) -> None:
    if seed >= 2 ** 63:
        raise ConfigError(f"seed is {seed}: expected a whole number below 2 ** 63")
    random.seed(seed)
    torch.manual_seed(seed)


@dataclass
class Loop:
    """Where the loop of a run stands, and what it keeps beside model and optimizer."""

    step: int                         # the next one
    seconds: float                    # that earlier calls spent
    log: Log
    guard: MediaGuard
    saver: Saver
    progress: Progress
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds spent in this call and in earlier ones."""
        return self.seconds + time.monotonic() - self.started

    def advance(self, loss: float | None) -> None:
        """One step done; `loss` is None when no batch was readable yet."""
        self.step += 1
        self.progress.step(loss)

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **more) -> None:
        """Writes the resumable state, `more` beside it, when it is time."""
        if self.saver.due():
            self.saver.save(model=model.state_dict(), optimizer=optimizer.state_dict(), step=self.step, log=self.log.length,
                            bad=self.guard.bad, seconds=self.elapsed(), **more)


def resume(run: Run, cfg, name: str, steps: int, samples: int, model: torch.nn.Module,
           optimizer: torch.optim.Optimizer) -> tuple[Loop, dict]:
    """A run's loop: at step 0, or where its last state was saved, with model, optimizer and random generators as they were then.

    Args:
        run: its folder holds the state, if there is one.
        cfg: configuration of either stage.
        name: what the bar is called.
        steps: of the whole run.
        samples: that it trains on; the guard counts shares of them.
        model, optimizer: filled in place.
    Returns:
        the loop, and the state that was read, empty at step 0.
    """
    state = load_state(run.dir) or {}
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        restore_rng(state)
    step, log = state.get("step", 0), Log(run.dir / "metrics.jsonl", state.get("log", 0))
    guard, saver = MediaGuard(samples, cfg.max_bad, state.get("bad")), Saver(run.dir, cfg.save_minutes)
    return Loop(step, state.get("seconds", 0.0), log, guard, saver, Progress(name, steps, step)), state
