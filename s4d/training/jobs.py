"""Several runs side by side: one process and one thread each, faster than many threads a run."""
from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import torch
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ..config import Finetune, Pretrain
from ..progress import Progress
from .finetune import finetune
from .inputs import locate
from .pretrain import pretrain
from .runs import Run, RunError


def train(cfg: Pretrain | Finetune, runs: str | Path = "runs") -> Run:
    """Run the stage that a configuration is of."""
    return pretrain(cfg, runs) if isinstance(cfg, Pretrain) else finetune(cfg, runs)


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
        later = [c for c in missing if isinstance(getattr(c, "init", None), Pretrain)]
        ended, folders = threading.Event(), [(c, locate(c, runs)) for c in missing]
        watcher = threading.Thread(target=_watch, args=(name, folders, ended), daemon=True)
        watcher.start()
        try:
            for wave in ([c for c in missing if c not in later], later):
                _side_by_side(wave, runs, workers)
        finally:
            ended.set()
            watcher.join()
    return [train(cfg, runs) for cfg in jobs]


def _side_by_side(wave: list, runs: str | Path, workers: int) -> None:
    calls = [delayed(_work)(cfg, runs, os.getpid()) for cfg in wave]
    # Workers that drew faces are small: loky would take what training adds for a leak.
    get_reusable_executor().shutdown(kill_workers=True)
    try:
        Parallel(n_jobs=workers, pre_dispatch="n_jobs", batch_size=1)(calls)
    except TerminatedWorkerError as error:
        raise RunError("a training process was killed, most often for lack of memory: close other "
                       "programs or train one run at a time (--n-jobs 1), then call again; "
                       "finished runs are kept, the others continue") from error
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


def _watch(name: str, folders: list[tuple], ended: threading.Event) -> None:
    """Show how many epochs of runs in other processes are done."""
    begun = sum(_epochs(run) for _, run in folders)
    progress = Progress(name, sum(cfg.epochs for cfg, _ in folders), begun, unit="epoch")
    while not ended.wait(1.0):
        finished = sum(run.done for _, run in folders)
        progress.update(sum(_epochs(run) for _, run in folders) - progress.done,
                        runs=f"{finished} of {len(folders)} done")
    progress.close()


def _epochs(run: Run) -> float:
    """Return the epoch in the last row of a run's metrics."""
    try:
        return json.loads((run.dir / "metrics.jsonl").read_bytes()[-500:].splitlines()[-1])["epoch"]
    except (OSError, ValueError, IndexError):
        return 0.0
