"""What both stages share: schedule, optimizer groups, progress, and the loop's position, steps and state."""
from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from tqdm.auto import tqdm

from ..config import ConfigError
from ..data.dataset import Joint, Key, loader, part_of
from .memory import recompute
from .ranks import Split, idle, join, of_first, rank, world
from .runs import Log, Run, RunError, cause_of, device_name, versions, write_text
from .signals import Interrupted, Signals, say
from .state import load_state, remove_states, restore_rng, rng_state, save_state
from .watch import MediaGuard, Watch, gradient_norm


def pick_device(deterministic: bool = False) -> torch.device:
    """This process's device, with PyTorch held to deterministic algorithms on CUDA if asked."""
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")     # read once, when cuBLAS starts
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = False
    return join()


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


def blank(cfg, task: str, n: int, device: torch.device) -> torch.Tensor:
    """n grey samples as the model takes them: `[n, 3, H, W]`, or `[n, 3, T, H, W]`."""
    return torch.zeros(n, 3, *((cfg.num_frames,) if task == "video" else ()), cfg.img_size, cfg.img_size, device=device)


class Progress:
    """A bar with rate and time left, the losses of both modalities and the last scores; silent when the output is no terminal. In a
    worker process of `run_all` it has no bar and tells the parent ("begin", steps to go) once and ("steps", 1) after each."""

    queue = None      # set in the worker processes of `run_all`

    def __init__(self, name: str, steps: int, done: int):
        quiet = True if Progress.queue is not None or rank() else None
        self.bar = tqdm(total=steps, initial=done, desc=name, unit="step", disable=quiet)
        self.shown = {}
        self.tell("begin", steps - done)

    def tell(self, what: str, count: int) -> None:
        if Progress.queue is not None:
            Progress.queue.put((what, count))

    def step(self, task: str, loss: float | None) -> None:
        """One step done; `loss` is None when the whole batch was unreadable."""
        if loss is not None:
            self.show(**{task: f"{loss:.3f}"})
        self.bar.update(1)
        self.tell("steps", 1)

    def scores(self, scores: dict[str, float]) -> None:
        """Validation scores, shares, to be shown as per cent."""
        self.show(**{name.replace("_", " ").replace("war", "WAR").replace("uar", "UAR"): f"{100 * v:.1f}" for name, v in scores.items()})

    def show(self, **what: str) -> None:
        self.shown |= what
        self.bar.set_postfix_str(", ".join(f"{k} {self.shown[k]}" for k in sorted(self.shown)), refresh=False)

    def close(self) -> None:
        self.bar.close()


def seed_all(seed: int) -> None:
    if seed >= 2 ** 63:
        raise ConfigError(f"seed is {seed}: expected a whole number below 2 ** 63")
    random.seed(seed)
    torch.manual_seed(seed)


class Loop:
    """Where a run stands, what its steps share, and what it saves.

    Args:
        run: its folder holds the states, if there are any; process 0 reads and sends them.
        cfg: configuration of either stage.
        name: what the bar is called.
        steps: of the whole run.
        samples: that it trains on; the guard counts shares of them.
        model, optimizer: filled in place.
        device: this process's.
        inputs: a function (task, n) -> what the model takes, for n blank samples.
        signals: noted by whoever attends the run.

    `more` is saved too; the stage fills it. `scored` is the step of the last validation, `saved` that of the last state.
    """

    probe = None      # set by a dry run

    def __init__(self, run: Run, cfg, name: str, steps: int, samples: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer,
                 device: torch.device, inputs: Callable[[str, int], tuple[torch.Tensor, ...]], signals: Signals):
        state = of_first(load_state(run.dir, say) or {} if rank() == 0 else None)
        self.run, self.cfg, self.steps, self.model, self.optimizer, self.signals = run, cfg, steps, model, optimizer, signals
        self.device, self.inputs, self.task = device, inputs, None
        self.step, self.scored, self.seconds = state.get("step", 0), state.get("scored", -1), state.get("seconds", 0.0)
        self.saved, self.more = (self.step if state else None), state.get("more", {})
        self.average = averaged(model, getattr(cfg, "ema_decay", 0.0))
        recompute(model, cfg.grad_checkpointing)
        self._restore(state)
        self.split = Split(model, device, cfg.grad_accum_steps, inputs("image", 1))
        self.log = Log(run.dir / "metrics.jsonl", state.get("log", 0)) if rank() == 0 else None
        self.guard = MediaGuard(samples, cfg.max_unreadable, state.get("bad"))
        self.watch = Watch(say, state.get("said"), state.get("skipped", 0), state.get("unused"), cfg.skip_nonfinite)
        self.board = Board(run.dir, self.step) if cfg.tensorboard and rank() == 0 else None
        self.progress, self.last, self.started = Progress(name, steps, self.step), time.monotonic(), time.monotonic()
        signals.now = False

    def _restore(self, state: dict) -> None:
        if not state:
            return
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise RunError(f"the state of {self.run.dir.name} is of another model ({cause_of(error)}): remove the folder "
                           f"{self.run.dir} and train again") from error
        restore_rng(state)

    def elapsed(self) -> float:
        """Seconds spent in this call and in earlier ones."""
        return self.seconds + time.monotonic() - self.started

    def load(self, joint: Joint, batches: list[list[Key]]) -> Iterator[dict]:
        """This process's part of each global batch. A signal to any process ends the run here, between two steps."""
        if self.probe is not None:
            batches = self.probe.choose(batches, self.steps)
        least = min(map(len, batches))
        if least < world() * self.cfg.grad_accum_steps:
            raise ConfigError(f"a batch of {least} samples cannot be cut for {world()} processes with "
                              f"accumulate={self.cfg.grad_accum_steps}: use fewer, or larger image_batch and video_batch")
        wanted = iter(batches)
        for batch in loader(joint, part_of(batches, rank(), world()), self.cfg.num_workers):
            self.keys, self.joint = next(wanted), joint
            rows = len(batch["clip"]) if "clip" in batch else 0
            stop, bad = self.split.exchange(rows, self.signals.number is not None, batch["unreadable"])
            if stop:
                raise Interrupted
            self.guard.see(bad)
            self.task = batch["task"]
            if not rows and self.split.total:              # another process has samples: take part without any
                batch["clip"], batch["label"] = self.blank(batch["task"])
            yield batch
            self.save()

    def blank(self, task: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A black sample, uint8 `[1, T, 3, H, W]`, that weighs nothing."""
        frames = self.cfg.num_frames if task == "video" else 1
        return torch.zeros(1, frames, 3, self.cfg.img_size, self.cfg.img_size, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)

    def autocast(self):
        return autocast(self.device, self.cfg.amp)

    def pieces(self, *tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Pieces of this process's part of the batch, one unless `accumulate` says otherwise."""
        self.sums = None
        self.optimizer.zero_grad(set_to_none=True)
        self.watch.listen(self.model, self.step)
        self.input = tensors[0]
        yield from self.split.pieces(*tensors)

    def backward(self, total: torch.Tensor, loss: torch.Tensor | None = None) -> None:
        """Adds a piece's gradients; `loss` is what is logged, where it is not the total."""
        pair = torch.stack([total.detach(), (total if loss is None else loss).detach()])
        if self.split.on:
            total, pair = total * self.split.weight, pair * self.split.weight
        self.sums = pair if self.sums is None else self.sums + pair
        total.backward()

    def update(self, clip_grad: float = 0.0) -> tuple[float, float]:
        """The optimizer's step on the whole batch's gradients; returns total and logged loss.

        Raises:
            RunError: for a loss or gradient that is no number (see `Watch`).
        """
        if world() > 1:
            for p in idle(self.model, self.input):
                p.grad = None                              # as in one process: the optimizer leaves the idle head alone
        norm = gradient_norm(self.model, clip_grad)
        total, loss = self.split.summed(*self.sums)
        named = lambda: [str(self.joint.parts[k.task].table["path"][k.row]) for k in self.keys]
        if self.watch.step(total, norm.item(), self.step, self.run.dir, named, self.saved):
            self.optimizer.step()
            if self.average is not None:
                self.average.update(self.model)
        self.watch.routers(self.model, self.step)
        return total, loss

    def note(self, **row) -> None:
        """A row of metrics.jsonl, from process 0."""
        if self.log is not None:
            self.log.add(**row)
        if self.board is not None:
            self.board.add(row)

    def scored_now(self, epoch: float, scores: dict[str, float]) -> None:
        """Notes the validation at this step, and saves when it is time."""
        self.note(step=self.step, epoch=epoch, modality="val", **scores)
        self.progress.scores(scores)
        self.scored = self.step
        self.save()

    def advance(self, task: str, loss: float | None) -> None:
        """One step done; `loss` is None when no batch was readable yet."""
        self.step += 1
        self.progress.step(task, loss)
        if self.probe is not None:
            self.probe.tick(task, self.device)

    def best_model(self) -> torch.nn.Module:
        """What is validated and kept: the moving average where there is one."""
        return self.model if self.average is None else self.average.module

    def save(self) -> None:
        """Writes the resumable state when it is time."""
        if time.monotonic() - self.last > 60 * self.cfg.save_minutes:
            self.store()

    def store(self) -> None:
        """Writes the resumable state, from process 0."""
        if rank() == 0:
            self.log.sync()
            average = {} if self.average is None else {"average": self.average.module.state_dict()}
            save_state(self.run.dir, dict(
                model=self.model.state_dict(), optimizer=self.optimizer.state_dict(), step=self.step, scored=self.scored,
                log=self.log.length, bad=self.guard.bad, said=self.watch.said, skipped=self.watch.skipped,
                unused=self.watch.unused, seconds=self.elapsed(), more=self.more, **average, **rng_state()))
        self.saved, self.last = self.step, time.monotonic()

    def finish(self, stage: str, device: torch.device, **more) -> None:
        """Writes provenance.json, which marks the run as finished, and removes the states."""
        self.progress.close()
        if self.board is not None:
            self.board.close()
        if rank() == 0:
            write_text(self.run.dir / "provenance.json", json.dumps(dict(
                stage=stage, steps=self.steps, seconds=round(self.elapsed(), 1), device=device_name(device), **more,
                unreadable=self.guard.bad, processes=world(), skipped=self.watch.skipped, warnings=list(self.watch.said.values()),
                versions=versions()), indent=1))
            remove_states(self.run.dir)
        of_first(None)                                     # nobody goes on before the files lie there


def averaged(model: torch.nn.Module, decay: float) -> ModelEmaV3 | None:
    """A moving average of the weights, or None."""
    return ModelEmaV3(model, decay=decay) if decay else None


class Board:
    """Curves for TensorBoard, in the run's folder.

    Raises:
        ConfigError: where it is not installed.
    """

    def __init__(self, folder: Path, step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("tensorboard=True, but TensorBoard is not installed: pip install tensorboard, or leave the option out; "
                              "metrics.jsonl holds the same numbers") from error
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def add(self, row: dict) -> None:
        for key, value in row.items():
            if key not in ("step", "modality"):
                self.writer.add_scalar(f"{row['modality']}/{key}", value, row["step"])

    def close(self) -> None:
        self.writer.close()
