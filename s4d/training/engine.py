"""What surrounds both training loops: signals, checkpoint, batches, log, progress."""
from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import config as configs
from ..config import ConfigError
from ..data.dataset import Joint, Key, cut, loader, part_of, sample_seed
from ..progress import Progress, say
from .guards import Guard, gradient_norm
from .optim import autocast, restore_rng, rng_state
from .parallel import gathered, of_first, rank, world, wrapped
from .runs import (
    CHECKPOINT,
    Board,
    Log,
    Run,
    RunError,
    cause_of,
    device_name,
    lock,
    versions,
    write,
    write_json,
)


class Interrupted(KeyboardInterrupt):
    """Raised where the run can be saved as it stands."""


class Signals:
    """Note SIGTERM (of schedulers) and SIGINT (Ctrl-C) until a step is complete.

    `at_once` is true where there is no step to complete; there a signal raises Interrupted.
    """

    def __init__(self):
        self.number, self.time, self.at_once, self.before = None, 0.0, True, {}

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():      # Python's rule
            both = (signal.SIGTERM, signal.SIGINT)
            self.before = {s: signal.signal(s, self.note) for s in both}

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.before = {}

    def note(self, number: int, frame) -> None:
        again = self.number is not None and time.monotonic() - self.time > 1    # not an echo
        self.number, self.time = self.number or number, time.monotonic()
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.at_once:
            self.at_once = False
            raise Interrupted


class Engine:
    """Hold a run from its first step, or its checkpoint, to its end. Use it in a `with` statement.

    The loop reads: `for epoch in epochs()`, `for batch in batches(plan)`, `for ... in pieces(...)`,
    `backward`, `update`, `log`. `best` is saved too; the stage fills it.
    """

    def __init__(self, run: Run, cfg, device: torch.device):
        self.run, self.cfg, self.device = run, cfg, device
        self.step = self.epoch = self.steps = 0
        self.seconds, self.started = 0.0, time.monotonic()
        self.saved: int | None = None                   # step of the last checkpoint
        self.best: dict = {}
        self.signals, self.lock, self.progress = Signals(), None, None
        self.metrics, self.board = None, None           # of process 0

    def __enter__(self) -> Engine:
        if rank() == 0:
            self.lock = lock(self.run)
            for path in self.run.dir.glob(".tmp-*"):    # of a process that was killed
                path.unlink(missing_ok=True)
            write_json(self.run.dir / "config.json", configs.to_dict(self.cfg))
        self.signals.install()
        return self

    def __exit__(self, kind, error, trace) -> bool:
        if self.progress is not None:
            self.progress.close()
        try:
            if isinstance(error, Interrupted):
                self._stopped()
        finally:
            self.signals.restore()
            if self.lock is not None:
                self.lock.release()
        if self.signals.number is not None and (error is None or isinstance(error, Interrupted)):
            signal.raise_signal(self.signals.number)    # what it does without a training
        if isinstance(error, torch.OutOfMemoryError):
            raise RunError(f"out of memory at step {self.step} of {self.run.dir.name}: raise "
                           "grad_accum_steps, set grad_checkpointing=True or use smaller batches; "
                           "the last checkpoint is intact") from error
        return False

    def _stopped(self) -> None:
        where = "before its first step"
        if self.steps:
            self.checkpoint()
            where = f"after step {self.step} of {self.steps}"
        number = self.signals.number
        by = signal.Signals(number).name if number else "a signal to another process"
        self.say(f"{self.run.dir.name} was stopped by {by} {where}; the same call continues there")

    def say(self, sentence: str) -> None:
        if rank() == 0:
            say(sentence)

    def start(self, name: str, model: nn.Module, optimizer: Optimizer, data: dict,
              per_epoch: int) -> nn.Module:
        """Continue from the checkpoint, if there is one.

        Args:
            name: of the stage, for the progress.
            model, optimizer: filled in place.
            data: training samples by task.
            per_epoch: steps.
        Returns:
            the network to call in the loop: `model`, or under torchrun its parallel form.
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
        state = of_first(self._read_checkpoint() if rank() == 0 else {})
        self._restore(state)
        if rank() == 0:
            self.metrics = Log(self.run.dir / "metrics.jsonl", state.get("log", 0))
            self.board = Board(self.run.dir, self.step) if cfg.tensorboard else None
        self.steps = max(1, round(cfg.epochs * per_epoch))
        self.progress = Progress(f"{name} {self.run.dir.name}", self.steps, self.step,
                                 quiet=rank() > 0)
        self.last = time.monotonic()
        self.net = wrapped(model, self.device)
        self.signals.at_once = False
        return self.net

    def _read_checkpoint(self) -> dict:
        path = self.run.dir / CHECKPOINT
        if not path.exists():
            return {}
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:           # torch raises many kinds for a damaged file
            raise RunError(f"cannot read {path} ({cause_of(error)[:80]}): remove it, and the run "
                           "starts again") from error

    def _restore(self, state: dict) -> None:
        if not state:
            return
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
        self.guard.load_state_dict(state["guard"])
        restore_rng(state["rng"])

    def checkpoint(self) -> None:
        """Write all that the run needs to go on, under a temporary name first."""
        if rank() == 0:
            self.metrics.sync()
            average = None if self.average is None else self.average.module.state_dict()
            state = dict(model=self.model.state_dict(), optimizer=self.optimizer.state_dict(),
                         average=average, step=self.step, epoch=self.epoch, best=self.best,
                         seconds=self.elapsed(), log=self.metrics.length,
                         guard=self.guard.state_dict(), rng=rng_state())

            def save(path: Path) -> None:
                with open(path, "wb") as file:     # Python's own, whose errors say what is wrong
                    torch.save(state, file)
            write(self.run.dir / CHECKPOINT, save)
        self.saved, self.last = self.step, time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds spent in this call and in earlier ones."""
        return self.seconds + time.monotonic() - self.started

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
            told = gathered((rows, self.signals.number is not None, batch["unreadable"]))
            if any(stop for _, stop, _ in told):
                raise Interrupted
            self.guard.media([sample for _, _, unreadable in told for sample in unreadable])
            self.rows, self.all_rows = rows, sum(n for n, _, _ in told)
            if self.all_rows:
                if not rows:                       # others have samples: take part without any
                    batch |= self._blank(batch["task"])
                if world() > 1:
                    torch.manual_seed(sample_seed(self.cfg.seed, self.step, 37, rank()))
                self.guard.listen(self.model, self.step)
                yield batch
                self.guard.routers(self.model, self.step)
            self.step += 1
            self.progress.update()
            self._save_in_time()

    def _blank(self, task: str) -> dict:
        """Return one black sample, which weighs nothing."""
        frames, side = (self.cfg.num_frames if task == "video" else 1), self.cfg.img_size
        return {"clip": torch.zeros(1, frames, 3, side, side, dtype=torch.uint8),
                "label": torch.zeros(1, dtype=torch.int64)}

    def _save_in_time(self) -> None:
        if time.monotonic() - self.last > 60 * self.cfg.save_minutes:
            self.checkpoint()

    def autocast(self):
        return autocast(self.device, self.cfg.amp)

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
        """Take the optimizer's step on the whole batch's gradients; return the loss.

        Raises:
            RunError: for a loss or gradient that is not finite (see `Guard.numbers`).
        """
        norm = gradient_norm(self.model, clip_grad)
        if world() > 1:
            dist.all_reduce(self.sums)
            self.sums /= world()
        total, loss = self.sums.tolist()
        if self.guard.numbers(total, norm.item(), self.step, self._paths, self.saved):
            self.optimizer.step()
            if self.average is not None:
                self.average.update(self.model)
        return loss

    def _paths(self) -> list[str]:
        return [str(self.data[key.task].table["path"][key.row]) for key in self.keys]

    def log(self, modality: str, **values: float) -> None:
        """Write a row of metrics.jsonl."""
        epoch = round(self.step / self.per_epoch, 4)
        row = dict(step=self.step, epoch=epoch, modality=modality, **values)
        if self.metrics is not None:
            self.metrics.add(row)
        if self.board is not None:
            self.board.add(row)
        shown = {f"{modality} {k}": v for k, v in values.items() if k == "loss" or "uar" in k}
        self.progress.update(0, **{k: f"{v:.3f}" for k, v in shown.items()})

    @property
    def eval_model(self) -> nn.Module:
        """What is validated and kept: the moving average of the weights where there is one."""
        return self.model if self.average is None else self.average.module

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the run without waiting, as in validation."""
        if self.signals.number is not None:
            raise Interrupted
        self.signals.at_once = True
        try:
            yield
        finally:
            self.signals.at_once = False

    def finish(self, **more) -> None:
        """Write provenance.json, which marks the run as finished, and remove the checkpoint."""
        if self.board is not None:
            self.board.close()
        if rank() == 0:
            write_json(self.run.dir / "provenance.json", dict(
                stage=self.cfg.stage, steps=self.steps, seconds=round(self.elapsed(), 1),
                device=device_name(self.device), **more, unreadable=self.guard.unreadable,
                processes=world(), skipped=self.guard.skipped,
                warnings=list(self.guard.warned.values()), versions=versions()))
            (self.run.dir / CHECKPOINT).unlink(missing_ok=True)
        of_first(None)                             # nobody goes on before the files lie there
