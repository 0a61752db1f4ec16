"""Training loops and the store of runs; several runs side by side."""
import os
import signal
import threading
import time
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path

import torch
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from ..config import Finetune, Pretrain
from .engine import Engine, progress_bar
from .evaluate import along_time, predict, war_uar
from .finetune import finetune
from .pretrain import pretrain
from .runs import Run, RunError, build, locate, plan_batches, samples_of, sources, tables
from .setup import pick_device

__all__ = ["Run", "RunError", "along_time", "build", "finetune", "locate", "pick_device",
           "plan_batches", "predict", "pretrain", "run_all", "samples_of", "sources", "tables",
           "train", "war_uar"]


def train(cfg: Pretrain | Finetune, runs: str | Path = "runs") -> Run:
    """Pre-train or fine-tune, as the configuration says."""
    return pretrain(cfg, runs) if isinstance(cfg, Pretrain) else finetune(cfg, runs)


def run_all(jobs: list[Pretrain | Finetune], runs: str | Path = "runs",
            workers: int = 2) -> list[Run]:
    """Train every configuration that the store does not hold; return the runs in order.

    On a CPU, each has a process and a thread of its own, faster than a run on many: the longest go
    first, and a run that starts from a pre-training waits for that one alone. On a GPU, or with one
    worker, they go one after another in this process. The first failing run stops the rest, which
    continue when called again.
    """
    inits = [cfg.init for cfg in jobs if isinstance(getattr(cfg, "init", None), Pretrain)]
    known: dict = {}
    found = {cfg: locate(cfg, runs, known=known) for cfg in dict.fromkeys([*inits, *jobs])}
    missing = [cfg for cfg, run in found.items() if not run.done]
    if missing and workers > 1 and not torch.cuda.is_available():
        bar = progress_bar("training", len(missing), unit="run", alone=False)
        # Workers that drew faces are small: loky would take what training adds for a leak.
        get_reusable_executor(workers).shutdown(kill_workers=True)
        try:
            _side_by_side(missing, runs, workers, bar)
        except TerminatedWorkerError as error:
            raise RunError("a training process was killed, most often for lack of memory: close "
                           "other programs or train one run at a time (--n-jobs 1), then call "
                           "again; finished runs are kept, the others continue") from error
        finally:
            bar.close()
            get_reusable_executor(workers).shutdown(kill_workers=True)   # another size would wait
    return [found[cfg] if found[cfg].done else train(cfg, runs) for cfg in jobs]


def _side_by_side(missing: list, runs: str | Path, workers: int, bar: tqdm) -> None:
    def length(cfg) -> tuple[int, int]:
        return (3, 0) if isinstance(cfg, Pretrain) else (len(cfg.tasks), cfg.num_experts)

    left, running = sorted(missing, key=length, reverse=True), {}
    executor = get_reusable_executor(workers)
    while left or running:
        unfinished = {*left, *running.values()}
        ready = [cfg for cfg in left if getattr(cfg, "init", None) not in unfinished]
        for cfg in ready[:workers - len(running)]:
            left.remove(cfg)
            running[executor.submit(_work, cfg, runs, os.getpid())] = cfg
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            future.result()
            del running[future]
            bar.update()
    executor.shutdown()


def _work(cfg, runs: str | Path, parent: int) -> None:
    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)                     # which saves the run
    torch.set_num_threads(1)
    Engine.alone = False
    threading.Thread(target=end_with_parent, daemon=True).start()
    train(cfg, runs)
