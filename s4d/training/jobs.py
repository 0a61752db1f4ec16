"""Independent runs side by side: one process and one thread each, which on few cores beats many threads for one run."""
from __future__ import annotations

import multiprocessing as mp
import queue
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..config import Finetune, Pretrain
from ..processes import end_with_parent
from .finetune import finetune
from .finetune import locate as locate_finetune
from .loop import Progress
from .pretrain import locate as locate_pretrain
from .pretrain import pretrain
from .runs import Run, RunError


def train(cfg: Pretrain | Finetune, runs: str | Path = "runs") -> Run:
    """Runs the stage that a configuration is of."""
    return pretrain(cfg, runs) if isinstance(cfg, Pretrain) else finetune(cfg, runs)


def locate(cfg: Pretrain | Finetune, runs: str | Path = "runs") -> Run:
    """The run of a configuration on the data as they lie, whether or not it was trained (`done` says)."""
    return locate_pretrain(cfg, runs) if isinstance(cfg, Pretrain) else locate_finetune(cfg, runs)


def _enter(channel) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())        # its own lock is for several processes, and one that is stopped would leave it behind
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
            if c not in seen:                   # not by its digest: that leaves out where the data lie
                seen.add(c)
                waiting.append(c)
    if workers > 1 and not torch.cuda.is_available():
        found = {c for c in waiting if locate(c, runs).done}
        if len(found) < len(waiting):
            _side_by_side([c for c in waiting if c not in found], found, runs, workers, name)
    return [train(cfg, runs) for cfg in jobs]


def _side_by_side(waiting: list, done: set, runs, workers: int, name: str) -> None:
    """Trains `waiting`; `done` holds the configurations that are finished."""
    context = mp.get_context("spawn")
    ready = lambda c: not (isinstance(c, Finetune) and isinstance(c.init, Pretrain) and c.init not in done)
    running, overall, channel = {}, Overall(name, len(waiting)), context.Queue()
    pool = ProcessPoolExecutor(min(workers, len(waiting)), mp_context=context, initializer=_enter, initargs=(channel,))
    try:
        while waiting or running:
            for cfg in [c for c in waiting if ready(c)][: workers - len(running)]:
                waiting.remove(cfg)
                running[pool.submit(train, cfg, runs)] = cfg
            finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            overall.read(channel)
            for future in finished:
                future.result()          # raises the run's own error
                done.add(running.pop(future))
                overall.finish()
    except BaseException as error:
        processes = list((pool._processes or {}).values())      # shutdown forgets them
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise _killed([locate(c, runs).dir.name for c in running.values()]) from error
        raise
    finally:
        overall.bar.close()
    pool.shutdown()


def _killed(names: list[str]) -> RunError:
    """What to say when the system ended a worker; it does not tell which of the runs under way that was."""
    return RunError(f"a training process was killed while it trained {' or '.join(names)}, most often for want of memory: close other "
                    "programs, train one run at a time (--jobs 1, or workers=1 of run_all) or with smaller batches (image_batch and "
                    "video_batch), then call again; finished runs are kept, the others continue from their last state")


class Overall:
    """One bar over all runs, in steps, with the time left; silent when the output is no terminal.

    The number of steps of runs that have not begun is taken to be the mean of those that have.
    """

    def __init__(self, name: str, jobs: int):
        self.bar = tqdm(desc=name, unit="step", disable=None)
        self.jobs, self.begun, self.known, self.finished, self.steps = jobs, 0, 0, 0, 0

    def read(self, channel) -> None:
        """Takes in what the runs have told since the last call."""
        before = self.steps
        while True:
            try:
                what, count = channel.get_nowait()
            except queue.Empty:
                break
            if what == "begin":
                self.begun, self.known = self.begun + 1, self.known + count
            else:
                self.steps += count
        if self.begun:
            self.bar.total = max(self.steps, round(self.known * self.jobs / self.begun))
        self.bar.update(self.steps - before)

    def finish(self) -> None:
        """One run is done."""
        self.finished += 1
        self.bar.set_postfix_str(f"{self.finished} of {self.jobs} runs done")
