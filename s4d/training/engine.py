"""What surrounds both training loops: signals, checkpoint, batches, log, progress."""
import io
import itertools
import json
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version

import pandas as pd
import torch
import torch.distributed as dist
from safetensors.torch import save
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from tqdm import tqdm

from .. import config as configs
from ..config import ConfigError
from ..data.dataset import Joint, Samples, loader, part_of, sample_seed
from ..files import code_version, write, write_text, writing
from .runs import CHECKPOINT, Run, RunError, cause_of, device_name, lock, plan_batches
from .setup import Guard, broadcast, gather, keep_memory, rank, say, world_size


class Interrupted(KeyboardInterrupt):
    """Raised where the run can be saved as it stands."""


def progress_bar(name: str, total: int, done: int = 0, unit: str = "step", alone: bool = True,
                 **options) -> tqdm:
    """Show the time left: by a bar on a terminal of its own, elsewhere by a line a minute."""
    if not (alone and sys.stderr.isatty()):
        options |= dict(bar_format="s4d: {l_bar}{bar:10}{r_bar}\n", leave=False, mininterval=60,
                        miniters=1, delay=60)
    return tqdm(total=total, initial=done, desc=name, unit=unit, **options)


class Engine:
    """Carry a run from its first step, or its checkpoint, to its end.

    `pretrain` and `finetune` show the order of its calls. A step is complete when the loop asks
    for the next batch, an epoch when it asks for the next epoch. SIGTERM (of schedulers) or SIGINT
    (Ctrl-C) ends the run after the current step, or at once inside `interruptible`. It is saved
    then, and every `save_minutes`: model, optimizer, average, random state and `saved`.
    """

    alone = True                # no other process trains beside this one and shows its progress
    saved = ("step", "epoch", "best", "waiting")

    def __init__(self, run: Run, cfg, device: torch.device):
        self.run, self.cfg, self.device = run, cfg, device
        self.step = self.epoch = self.steps = 0
        self.best: dict = {}                # filled by the stage
        self.started, self.waiting = time.monotonic(), 0.0      # seconds, of which for the loader
        self.signal: int | None = None
        self.handlers: dict = {}            # of signals, before this run
        self.waits = False                  # for a complete step, should a signal come
        self.lock = self.progress = None

    # --- begin and end

    def __enter__(self) -> "Engine":
        keep_memory()
        if rank() == 0:
            self.lock = lock(self.run)
            for path in self.run.dir.glob(".tmp-*"):    # of a process that was killed
                path.unlink(missing_ok=True)
            settings = json.dumps(configs.to_dict(self.cfg), indent=1)
            write_text(self.run.dir / "config.json", settings)
        if threading.current_thread() is threading.main_thread():      # Python's rule
            self.handlers = {number: signal.signal(number, self._note)
                             for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, frame) -> None:
        self.signal = self.signal or number
        if not self.waits:
            self.waits = True
            raise Interrupted

    def __exit__(self, kind, error, trace) -> None:
        interrupted = isinstance(error, Interrupted)
        try:
            if self.progress is not None:
                self.progress.close()
            if interrupted:
                where = "before its first step"
                if self.steps:
                    self.checkpoint()
                    where = f"after step {self.step} of {self.steps}"
                by = signal.Signals(self.signal).name if self.signal else "another process"
                say(f"{self.run.dir.name} was stopped by {by} {where}; the same call continues")
        finally:
            for number, handler in self.handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            if self.lock is not None:
                self.lock.release()
        if self.signal and (error is None or interrupted):
            signal.raise_signal(self.signal)            # what it does without a training

    def start(self, model: nn.Module, optimizer: Optimizer, data: dict[str, Samples]) -> nn.Module:
        """Continue from the checkpoint, if there is one; return the network to call in the loop."""
        cfg, self.waits = self.cfg, True
        if getattr(cfg, "capacity_factor", 0) and world_size() * cfg.grad_accum_steps > 1:
            raise ConfigError("capacity_factor counts the tokens of a whole batch: train with one "
                              "process and grad_accum_steps=1, or with capacity_factor=0")
        self.model, self.optimizer, self.data = model, optimizer, data
        model.set_grad_checkpointing(cfg.grad_checkpointing)
        decay = getattr(cfg, "ema_decay", 0.0)
        self.average = ModelEmaV3(model, decay=decay) if decay else None
        self.eval_model = self.average.module if decay else model      # validated and kept
        self.guard = Guard(cfg, sum(map(len, data.values())))
        plan = plan_batches(cfg, data, 0)
        self.per_epoch, smallest = len(plan), min(map(len, plan))
        if smallest < world_size() * cfg.grad_accum_steps:
            raise ConfigError(f"a batch of {smallest} samples cannot be cut for {world_size()} "
                              f"processes with grad_accum_steps={cfg.grad_accum_steps}: use "
                              "fewer, or larger batches")
        self.shares: list = []              # this process's parts of batches; workers keep it
        self.loader = loader(Joint(data), self.shares, cfg.num_workers)
        self.steps = max(1, round(cfg.epochs * self.per_epoch))
        self.metrics = self.run.dir / "metrics.jsonl"
        logged = self._restore()
        if rank() == 0:         # rows after the checkpoint go, so that no step stands twice
            with writing(self.metrics), open(self.metrics, "a") as file:
                file.truncate(min(logged, file.tell()))
        self.progress = progress_bar(self.run.dir.name, self.steps, self.step,
                                     alone=Engine.alone, disable=rank() > 0)
        self.saved_at = time.monotonic()
        self.net = model
        if world_size() > 1:            # gradients are averaged; those of the idle head stay None
            ids = [self.device] if self.device.type == "cuda" else None
            self.net = DistributedDataParallel(model, ids, broadcast_buffers=False,
                                               find_unused_parameters=True)
        return self.net

    def finish(self, weights: dict, predictions: pd.DataFrame | None = None, **more) -> None:
        """Write weights, predictions and, at the end, provenance.json: the run is finished."""
        if rank() == 0:
            content = save({k: v.detach().cpu().contiguous() for k, v in weights.items()})
            write(self.run.dir / "weights.safetensors", lambda path: path.write_bytes(content))
            if predictions is not None:
                write_text(self.run.dir / "predictions.csv", predictions.to_csv(index=False))
            versions = {p: version(p) for p in ("torch", "torchvision", "timm", "numpy")}
            versions |= {"s4d": code_version(), "python": platform.python_version()}
            provenance = dict(
                stage=self.cfg.stage, steps=self.steps, versions=versions,
                seconds=round(time.monotonic() - self.started, 1),
                waiting_seconds=round(self.waiting, 1), processes=world_size(),
                device=device_name(self.device), unreadable=self.guard.unreadable,
                warnings=list(self.guard.warned.values()), **more)
            write_text(self.run.dir / "provenance.json", json.dumps(provenance, indent=1))
            (self.run.dir / CHECKPOINT).unlink(missing_ok=True)
        broadcast(None)                            # nobody goes on before the files lie there

    # --- checkpoint

    def checkpoint(self, every: float = 0.0) -> None:
        """Write all that the run needs to go on, unless the last one is younger than `every` s."""
        if time.monotonic() - self.saved_at < every:
            return
        self.saved_at = time.monotonic()
        if rank() == 0:
            average = None if self.average is None else self.average.module.state_dict()
            cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
            with writing(self.metrics), open(self.metrics, "rb+") as log:
                os.fsync(log.fileno())      # the checkpoint counts its rows
            state = dict(model=self.model.state_dict(), optimizer=self.optimizer.state_dict(),
                         average=average, seconds=time.monotonic() - self.started,
                         logged=self.metrics.stat().st_size,
                         guard={key: vars(self.guard)[key] for key in Guard.saved},
                         rng=torch.get_rng_state(), rng_cuda=cuda,
                         **{key: vars(self)[key] for key in self.saved})
            content = io.BytesIO()          # written by Python, whose errors tell of a full disk
            torch.save(state, content)
            write(self.run.dir / CHECKPOINT, lambda path: path.write_bytes(content.getbuffer()))

    def _restore(self) -> int:
        """Go back to the checkpoint, if there is one; return the length of its metrics in bytes."""
        path, state = self.run.dir / CHECKPOINT, {}
        try:
            if rank() == 0 and path.exists():
                state = torch.load(path, map_location="cpu", weights_only=True)
            state = broadcast(state)
            if not state:
                return 0
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
            vars(self).update({key: state[key] for key in self.saved})
            vars(self.guard).update(state["guard"])
            self.started -= state["seconds"]                # of earlier calls
            torch.set_rng_state(state["rng"])
            if torch.cuda.is_available() and state["rng_cuda"] is not None:
                torch.cuda.set_rng_state(state["rng_cuda"])
            return state["logged"]
        except Exception as error:           # torch raises many kinds for a damaged file
            raise RunError(f"cannot continue from {path} ({cause_of(error)[:80]}): it is damaged "
                           "or of another model; remove it, and the run starts again") from error

    # --- the loop

    def epochs(self) -> Iterator[int]:
        """Yield each epoch that is not complete, validation included."""
        while self.epoch * self.per_epoch < self.steps:
            yield self.epoch
            self.epoch += 1
            self.checkpoint(60 * self.cfg.save_minutes)

    def batches(self, epoch: int) -> Iterator[dict]:
        """Yield this process's share of each batch that is left of an epoch.

        A signal to any process ends the run here. A batch that one cannot read at all is skipped.
        """
        begin = epoch * self.per_epoch
        plan = plan_batches(self.cfg, self.data, epoch)[self.step - begin: self.steps - begin]
        self.shares[:] = part_of(plan, rank(), world_size())
        read = None
        for self.keys in plan:
            begun = time.monotonic()
            try:
                read = read or iter(self.loader)
                batch = next(read)
            except Exception:
                if self.signal is None:
                    raise
                batch = {"unreadable": []}      # the signal has ended the loading processes too
            self.waiting += time.monotonic() - begun
            count = len(batch.get("clip", ()))
            found = gather((count, self.signal is not None, batch["unreadable"]))
            counts, signalled, unreadable = zip(*found, strict=True)
            if any(signalled):
                raise Interrupted
            self.guard.media([sample for samples in unreadable for sample in samples])
            self.batch_size = sum(counts)                        # of all processes
            if min(counts):
                if world_size() > 1:
                    torch.manual_seed(sample_seed(self.cfg.seed, self.step, 37, rank()))
                with self.guard.experts(self.model, self.step):
                    yield batch
            self.step += 1
            self.progress.update()
            self.checkpoint(60 * self.cfg.save_minutes)

    def pieces(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Cut a batch `[B, ...]` into `grad_accum_steps` pieces; clear the gradients first."""
        self.optimizer.zero_grad(set_to_none=True)
        self.sums, n = 0.0, len(tensors[0])
        parts = min(n, self.cfg.grad_accum_steps)
        for low, high in itertools.pairwise(n * i // parts for i in range(parts + 1)):
            self.weight = (high - low) * world_size() / self.batch_size      # DDP takes the mean
            last = high == n or world_size() == 1
            with nullcontext() if last else self.net.no_sync():      # exchange gradients once
                yield tuple(t[low:high] for t in tensors)

    def backward(self, total: Tensor, loss: Tensor | None = None) -> None:
        """Add a piece's gradients; `loss` is what is logged, where it is not the total."""
        pair = torch.stack([total.detach(), (total if loss is None else loss).detach()])
        self.sums = self.sums + pair * self.weight
        (total * self.weight).backward()

    def update(self, clip_grad: float = 0.0) -> float:
        """Step on the whole batch's gradients, if they are finite; return its loss."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if clip_grad:
            nn.utils.clip_grads_with_norm_(parameters, clip_grad, norm)
        if world_size() > 1:
            dist.all_reduce(self.sums)
            self.sums /= world_size()
        total, loss = self.sums.tolist()
        if not (math.isfinite(total) and math.isfinite(norm.item())):
            paths = ", ".join(self.data[key.task].paths[key.row] for key in self.keys[:4])
            raise RunError(f"loss is {total}, gradient norm is {norm} at step {self.step} of "
                           f"{self.run.dir.name}, with samples {paths}: lower the learning rate or "
                           "set clip_grad")
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        return loss

    def log(self, modality: str, **values: float) -> None:
        """Write a row of metrics.jsonl."""
        self.progress.set_postfix({f"{modality} {k}": v for k, v in values.items() if k != "lr"},
                                  refresh=False)
        if rank() == 0:
            epoch = round(self.step / self.per_epoch, 4)
            row = dict(step=self.step, epoch=epoch, modality=modality, **values)
            with writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end the run at once, as in validation, where no step would be cut."""
        if self.signal is not None:
            raise Interrupted
        self.waits = False
        try:
            yield
        finally:
            self.waits = True
