"""Independent runs side by side: one process and one thread each, which on few cores beats many threads for one run."""
from __future__ import annotations

import multiprocessing as mp
import queue
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..config import Finetune, Pretrain, digest
from .finetune import finetune
from .loop import Progress
from .pretrain import pretrain
from .runs import Run


def train(cfg: Pretrain | Finetune, runs: str | Path = "runs") -> Run:
    """Runs the stage that a configuration is of."""
    return pretrain(cfg, runs) if isinstance(cfg, Pretrain) else finetune(cfg, runs)


def _enter(channel) -> None:
    torch.set_num_threads(1)
    Progress.queue = channel


def run_all(jobs: list[Pretrain | Finetune], runs: str | Path = "runs", workers: int = 2, name: str = "training") -> list[Run]:
    """Trains every configuration that the store does not hold, `workers` at a time; returns their runs in order.

    A configuration that starts from a pre-training waits for it; the others go ahead, so that no core idles. The first
    failing run stops the rest, which continue from their state when called again. On a GPU, or with one worker, runs go
    one after another in this process.
    """
    waiting, seen = [], set()
    for cfg in jobs:
        for c in ((cfg.init, cfg) if isinstance(getattr(cfg, "init", None), Pretrain) else (cfg,)):
            if digest(c) not in seen:
                seen.add(digest(c))
                waiting.append(c)
    if workers > 1 and not torch.cuda.is_available():
        _side_by_side(waiting, runs, workers, name)
    return [train(cfg, runs) for cfg in jobs]


def _side_by_side(waiting: list, runs, workers: int, name: str) -> None:
    context = mp.get_context("spawn")
    ready = lambda c: not (isinstance(c, Finetune) and isinstance(c.init, Pretrain) and digest(c.init) not in done)
    done, running = set(), {}
    with context.Manager() as manager, tqdm(total=len(waiting), desc=name, unit="run", disable=None) as bar:
        channel = manager.Queue()
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_enter, initargs=(channel,))
        try:
            while waiting or running:
                for cfg in [c for c in waiting if ready(c)][: workers - len(running)]:
                    waiting.remove(cfg)
                    running[pool.submit(train, cfg, runs)] = cfg
                finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                steps = _drain(channel)
                bar.set_postfix_str(f"{bar.postfix_steps} steps" if (bar.__dict__.update(
                    postfix_steps=getattr(bar, "postfix_steps", 0) + steps) or True) else "", refresh=True)
                for future in finished:
                    future.result()          # raises the run's own error
                    done.add(digest(running.pop(future)))
                    bar.update(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(getattr(pool, "_processes", {}).values()):
                process.terminate()
            raise
        pool.shutdown()


def _drain(channel) -> int:
    steps = 0
    while True:
        try:
            steps += channel.get_nowait()
        except queue.Empty:
            return steps
