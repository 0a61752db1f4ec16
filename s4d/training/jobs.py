"""Several runs side by side: one process and one thread each, faster than many threads a run."""
from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from statistics import mean

import torch
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ..config import Finetune, Pretrain
from ..progress import Progress
from .finetune import finetune
from .finetune import locate as locate_finetune
from .pretrain import locate as locate_pretrain
from .pretrain import pretrain
from .runs import Run, RunError


def train(cfg: Pretrain | Finetune, runs: str | Path = "runs") -> Run:
    """Run the stage that a configuration is of."""
    return pretrain(cfg, runs) if isinstance(cfg, Pretrain) else finetune(cfg, runs)


def locate(cfg: Pretrain | Finetune, runs: str | Path = "runs") -> Run:
    """Return the run of a configuration on the data as they lie, trained or not."""
    return locate_pretrain(cfg, runs) if isinstance(cfg, Pretrain) else locate_finetune(cfg, runs)


def run_all(jobs: list[Pretrain | Finetune], runs: str | Path = "runs", workers: int = 2,
            name: str = "training") -> list[Run]:
    """Train every configuration that the store does not hold; return the runs in order.

    Pre-trainings and runs from scratch go first, then the runs that start from a pre-training.
    The first failing run stops the rest, which continue when called again. On a GPU, or with one
    worker, runs go one after another in this process.

    Args:
        workers: runs at a time.
    """
    inits = [cfg.init for cfg in jobs if isinstance(getattr(cfg, "init", None), Pretrain)]
    missing = [c for c in dict.fromkeys([*inits, *jobs]) if not locate(c, runs).done]
    if workers > 1 and not torch.cuda.is_available() and missing:
        waves = [], []
        for cfg in missing:
            waves[isinstance(getattr(cfg, "init", None), Pretrain)].append(cfg)
        with _Watcher(name, missing, runs):
            for wave in waves:
                _side_by_side(wave, runs, workers)
    return [train(cfg, runs) for cfg in jobs]


def _side_by_side(wave: list, runs: str | Path, workers: int) -> None:
    calls = [delayed(_work)(cfg, runs, os.getpid()) for cfg in wave]
    try:
        Parallel(n_jobs=workers, pre_dispatch="n_jobs", batch_size=1)(calls)
    except TerminatedWorkerError as error:
        raise RunError("a training process was killed, most often for want of memory: close other "
                       "programs, train one run at a time (--jobs 1) or with smaller batches, then "
                       "call again; finished runs are kept, the others continue") from error
    finally:
        get_reusable_executor().shutdown(kill_workers=True)      # idle ones would keep memory


def _work(cfg, runs: str | Path, parent: int) -> None:
    torch.set_num_threads(1)
    Progress.quiet = True
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    train(cfg, runs)


def _end_with(parent: int) -> None:
    """Stop this process, which saves its run, once its parent was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


class _Watcher(threading.Thread):
    """Show the progress of runs in other processes, as their metrics.jsonl tell it."""

    def __init__(self, name: str, configs: list, runs: str | Path):
        super().__init__(daemon=True)
        self.runs = [(cfg, locate(cfg, runs)) for cfg in configs]
        self.ended = threading.Event()
        done, total, _ = self.count()
        self.progress = Progress(name, total, done)

    def __enter__(self) -> _Watcher:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.join()
        self.progress.close()

    def run(self) -> None:
        while not self.ended.wait(1.0):
            done, self.progress.total, finished = self.count()
            self.progress.update(done - self.progress.done,
                                 runs=f"{finished} of {len(self.runs)} done")

    def count(self) -> tuple[float, float, int]:
        """Return steps done, steps in all, and finished runs.

        A run that has not begun is taken to be as long as the mean of its stage.
        """
        places = [(cfg, *_position(run)) for cfg, run in self.runs]
        steps = {"pretrain": [], "finetune": []}
        for cfg, step, epoch in places:
            if epoch:
                steps[cfg.stage].append(step / epoch * cfg.epochs)
        every = sum(steps.values(), []) or [1.0]
        total = sum(map(sum, steps.values()))
        total += sum(mean(steps[cfg.stage] or every) for cfg, _, epoch in places if not epoch)
        done = sum(step for _, step, _ in places)
        return done, max(done, total), sum(run.done for _, run in self.runs)


def _position(run: Run) -> tuple[int, float]:
    """Return step and epoch of the last row of a run's metrics."""
    try:
        last = (run.dir / "metrics.jsonl").read_bytes()[-500:].splitlines()[-1]
        row = json.loads(last)
        return row["step"], row["epoch"]
    except (OSError, ValueError, IndexError):
        return 0, 0.0
