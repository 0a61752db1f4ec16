"""What surrounds both training loops: signals, checkpoint, batches, log, progress."""
from __future__ import annotations

import itertools
import json
import math
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from signal import SIG_DFL, SIGINT, SIGTERM

import pandas as pd
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import config as configs
from ..config import ConfigError
from ..data.dataset import Joint, Key, cut, loader, part_of, sample_seed
from ..files import code_version
from ..progress import Progress, say
from .guards import Guard
from .optim import autocast
from .parallel import gathered, of_first, rank, world, wrapped
from .runs import CHECKPOINT, Log, Run, RunError, cause_of, device_name, lock, write


class Interrupted(KeyboardInterrupt):
    """Raised where the run can be saved as it stands."""


class Engine:
    """Hold a run from its first step, or its checkpoint, to its end. Use it in a `with` statement.

    The loop reads: `for epoch in epochs()`, `for batch in batches(plan)`, `for ... in pieces(...)`,
    `backward`, `update`, `log`. `best` is saved too; the stage fills it. SIGTERM (of schedulers)
    and SIGINT (Ctrl-C) are noted until a step is complete.
    """

    def __init__(self, run: Run, cfg, device: torch.device):
        if cfg.seed >= 2 ** 63:
            raise ConfigError(f"seed is {cfg.seed}: expected a whole number below 2 ** 63")
        self.run, self.cfg, self.device = run, cfg, device
        self.step = self.epoch = self.steps = 0
        self.seconds, self.started = 0.0, time.monotonic()
        self.saved: int | None = None                   # step of the last checkpoint
        self.best: dict = {}
        self.number, self.noted, self.handlers = None, 0.0, {}      # of a signal; its time
        self.interruptible = True           # no step to complete: a signal raises Interrupted
        self.lock = self.progress = None
        self.metrics: Log | None = None                 # of process 0
        self.autocast = partial(autocast, device, cfg.amp)

    def __enter__(self) -> Engine:
        if rank() == 0:
            self.lock = lock(self.run)
            for path in self.run.dir.glob(".tmp-*"):    # of a process that was killed
                path.unlink(missing_ok=True)
            settings = json.dumps(configs.to_dict(self.cfg), indent=1)
            write(self.run.dir / "config.json", settings)
        if threading.current_thread() is threading.main_thread():      # Python's rule
            self.handlers = {s: signal.signal(s, self._note) for s in (SIGTERM, SIGINT)}
        return self

    def __exit__(self, kind, error, trace) -> bool:
        if self.progress is not None:
            self.progress.close()
        number, stopped = self.number, isinstance(error, Interrupted)
        try:
            if stopped:
                if self.steps:
                    self.checkpoint()
                by = signal.Signals(number).name if number else "a signal to another process"
                done = f"after step {self.step} of {self.steps}"
                where = done if self.steps else "before its first step"
                self.say(f"{self.run.dir.name} was stopped by {by} {where}; the same call "
                         "continues there")
        finally:
            for handled, handler in self.handlers.items():
                signal.signal(handled, SIG_DFL if handler is None else handler)
            if self.lock is not None:
                self.lock.release()
        if number is not None and (error is None or stopped):
            signal.raise_signal(number)                 # what it does without a training
        if isinstance(error, torch.OutOfMemoryError):
            raise RunError(f"out of memory at step {self.step} of {self.run.dir.name}: raise "
                           "grad_accum_steps, set grad_checkpointing=True or use smaller batches; "
                           "the last checkpoint is intact") from error
        return False

    def _note(self, number: int, frame) -> None:
        again = self.number is not None and time.monotonic() - self.noted > 1    # not an echo
        self.number, self.noted = self.number or number, time.monotonic()
        if again and number == SIGINT:
            raise KeyboardInterrupt
        if self.interruptible:
            self.interruptible = False
            raise Interrupted

    def say(self, sentence: str) -> None:
        if rank() == 0:
            say(sentence)

    def start(self, name: str, model: nn.Module, optimizer: Optimizer, data: dict,
              per_epoch: int) -> nn.Module:
        """Continue from the checkpoint, if there is one; return the network to call in the loop.

        Args:
            name: of the stage, for the progress.
            data: training samples by task.
            per_epoch: steps.
        """
        cfg = self.cfg
        if getattr(cfg, "capacity_factor", 0) and world() * cfg.grad_accum_steps > 1:
            raise ConfigError("capacity_factor counts the tokens of a whole batch: train with one "
                              "process and grad_accum_steps=1, or with capacity_factor=0")
        self.model, self.optimizer, self.data, self.per_epoch = model, optimizer, data, per_epoch
        decay = getattr(cfg, "ema_decay", 0.0)
        self.average = ModelEmaV3(model, decay=decay) if decay else None
        self.guard = Guard(self.run.dir.name, sum(map(len, data.values())), cfg.max_unreadable,
                           cfg.skip_nonfinite, self.say)
        model.set_grad_checkpointing(cfg.grad_checkpointing)
        state = of_first(self._checkpoint() if rank() == 0 else {})
        if state:
            self._restore(state)
        if rank() == 0:
            self.metrics = Log(self.run.dir, state.get("log", 0), self.step, cfg.tensorboard)
        self.steps = max(1, round(cfg.epochs * per_epoch))
        name = f"{name} {self.run.dir.name}"
        self.progress = Progress(name, self.steps, self.step, quiet=rank() > 0)
        self.last = time.monotonic()
        self.net = wrapped(model, self.device)
        self.interruptible = False
        return self.net

    def _checkpoint(self) -> dict:
        path = self.run.dir / CHECKPOINT
        try:
            return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else {}
        except Exception as error:           # torch raises many kinds for a damaged file
            raise RunError(f"cannot read {path} ({cause_of(error)[:80]}): remove it, and the run "
                           "starts again") from error

    def _restore(self, state: dict) -> None:
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise RunError(f"the checkpoint of {self.run.dir.name} is of another model "
                           f"({cause_of(error)}): remove the folder {self.run.dir} and train "
                           "again") from error
        for key in ("step", "epoch", "seconds", "best"):
            setattr(self, key, state[key])
        self.saved = self.step
        vars(self.guard).update(state["guard"])
        torch.set_rng_state(state["rng"])
        if torch.cuda.is_available() and state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"])

    def checkpoint(self) -> None:
        """Write all that the run needs to go on."""
        if rank() == 0:
            self.metrics.sync()
            average = None if self.average is None else self.average.module.state_dict()
            kept = ("unreadable", "warned", "unused", "skipped")
            guard = {key: getattr(self.guard, key) for key in kept}
            cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
            state = dict(model=self.model.state_dict(), optimizer=self.optimizer.state_dict(),
                         average=average, step=self.step, epoch=self.epoch, best=self.best,
                         seconds=self.elapsed(), log=self.metrics.length,
                         guard=guard, rng=torch.get_rng_state(), rng_cuda=cuda)

            def save(path) -> None:
                with open(path, "wb") as file:     # Python's own, whose errors say what is wrong
                    torch.save(state, file)
            write(self.run.dir / CHECKPOINT, save)
        self.saved, self.last = self.step, time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds spent in this call and in earlier ones."""
        return self.seconds + time.monotonic() - self.started

    def _save_in_time(self) -> None:
        if time.monotonic() - self.last > 60 * self.cfg.save_minutes:
            self.checkpoint()

    def epochs(self) -> Iterator[int]:
        """Yield each epoch that is not complete, validation included."""
        while self.epoch * self.per_epoch < self.steps:
            yield self.epoch
            self.epoch += 1
            self._save_in_time()

    def batches(self, plan: list[list[Key]]) -> Iterator[dict]:
        """Yield this process's share of the batches that are left of an epoch's plan.

        A signal to any process ends the run here, between two steps.
        """
        least, pieces = min(map(len, plan)), self.cfg.grad_accum_steps
        if least < world() * pieces:
            raise ConfigError(f"a batch of {least} samples cannot be cut for {world()} processes "
                              f"with grad_accum_steps={pieces}: use fewer, or larger batches")
        begin = self.epoch * self.per_epoch
        plan = plan[self.step - begin: self.steps - begin]
        shares = part_of(plan, rank(), world())
        read = loader(Joint(self.data), shares, self.cfg.num_workers) if plan else ()
        for batch, self.keys in zip(read, plan, strict=True):
            rows = len(batch["clip"]) if "clip" in batch else 0
            told = gathered((rows, self.number is not None, batch["unreadable"]))
            if any(stop for _, stop, _ in told):
                raise Interrupted
            self.guard.media([sample for _, _, unreadable in told for sample in unreadable])
            self.rows, self.all_rows = rows, sum(n for n, _, _ in told)
            if self.all_rows:
                if not rows:       # others have samples: take part with a black one of no weight
                    frames, side = self.cfg.num_frames, self.cfg.img_size
                    shape = 1, frames if batch["task"] == "video" else 1, 3, side, side
                    batch |= {"clip": torch.zeros(shape, dtype=torch.uint8),
                              "label": torch.zeros(1, dtype=torch.int64)}
                if world() > 1:
                    torch.manual_seed(sample_seed(self.cfg.seed, self.step, 37, rank()))
                with self.guard.routers(self.model, self.step):
                    yield batch
            self.step += 1
            self.progress.update()
            self._save_in_time()

    def pieces(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Cut a batch `[B, ...]` into `grad_accum_steps` pieces; clear the gradients first."""
        self.optimizer.zero_grad(set_to_none=True)
        self.sums, n = 0.0, len(tensors[0])
        for low, high in itertools.pairwise(cut(n, min(n, self.cfg.grad_accum_steps))):
            self.weight = (high - low if self.rows else 0) * world() / self.all_rows
            last = high == n or world() == 1
            with nullcontext() if last else self.net.no_sync():      # exchange gradients once
                yield tuple(t[low:high] for t in tensors)

    def backward(self, total: Tensor, loss: Tensor | None = None) -> None:
        """Add a piece's gradients; `loss` is what is logged, where it is not the total."""
        pair = torch.stack([total.detach(), (total if loss is None else loss).detach()])
        self.sums = self.sums + pair * self.weight
        (total * self.weight).backward()

    def update(self, clip_grad: float = 0.0) -> float:
        """Take the optimizer's step on the whole batch's gradients, if they are finite; return
        the loss."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip_grad or math.inf)
        if world() > 1:
            dist.all_reduce(self.sums)
            self.sums /= world()
        total, loss = self.sums.tolist()
        paths = [self.data[key.task].paths[key.row] for key in self.keys[:4]]
        if self.guard.numbers(total, norm.item(), self.step, paths, self.saved):
            self.optimizer.step()
            if self.average is not None:
                self.average.update(self.model)
        return loss

    def log(self, modality: str, **values: float) -> None:
        """Write a row of metrics.jsonl."""
        if self.metrics is not None:
            epoch = round(self.step / self.per_epoch, 4)
            self.metrics.add(dict(step=self.step, epoch=epoch, modality=modality, **values))
        shown = {f"{modality} {k}": v for k, v in values.items() if k == "loss" or "uar" in k}
        self.progress.update(0, **{k: f"{v:.3f}" for k, v in shown.items()})

    @property
    def eval_model(self) -> nn.Module:
        """What is validated and kept: the moving average of the weights where there is one."""
        return self.model if self.average is None else self.average.module

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the run without waiting, as in validation."""
        if self.number is not None:
            raise Interrupted
        self.interruptible = True
        try:
            yield
        finally:
            self.interruptible = False

    def finish(self, weights: dict, predictions: pd.DataFrame | None = None, **more) -> None:
        """Write weights, predictions and last provenance.json, which marks the run as finished."""
        if rank() == 0:
            self.metrics.close()
            tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
            write(self.run.dir / "weights.safetensors", lambda path: save_file(tensors, path))
            if predictions is not None:
                write(self.run.dir / "predictions.csv", predictions.to_csv(index=False))
            versions = {p: version(p) for p in ("torch", "torchvision", "timm", "numpy")}
            versions |= {"s4d": code_version(), "python": platform.python_version()}
            guard = dict(unreadable=self.guard.unreadable, skipped=self.guard.skipped,
                         warnings=list(self.guard.warned.values()))
            provenance = dict(stage=self.cfg.stage, steps=self.steps, versions=versions,
                              seconds=round(self.elapsed(), 1), processes=world(),
                              device=device_name(self.device), **guard, **more)
            write(self.run.dir / "provenance.json", json.dumps(provenance, indent=1))
            (self.run.dir / CHECKPOINT).unlink(missing_ok=True)
        of_first(None)                             # nobody goes on before the files lie there
