"""A run that is asked to stop, finds no memory or loses a process: what is saved, and what is said."""
from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tqdm.auto import tqdm

from .ranks import rank, world
from .runs import Run, RunError, cause_of
from .state import Lock


def say(sentence: str) -> None:
    """A sentence on the error stream, beside a running bar; from process 0."""
    if rank() == 0:
        tqdm.write(f"s4d: {sentence}", file=sys.stderr)


class Interrupted(BaseException):
    """Raised where the run can be saved as it stands."""


class Signals:
    """Notes SIGTERM (as schedulers send it) and SIGINT (Ctrl-C, or the stop button of a notebook) until a step is complete.

    Outside the main thread, where Python handles no signals, it notes nothing.
    """

    def __init__(self):
        self.number, self.at, self.before = None, 0.0, {}
        self.now = True                    # until a loop begins there is nothing to complete

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self.note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self.before = {}

    def note(self, number: int, frame) -> None:
        again = self.number is not None and time.monotonic() - self.at > 1      # torchrun and a terminal both pass one on
        self.number, self.at = self.number or number, time.monotonic()
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.now:
            self.now = False
            raise Interrupted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While the run stands at the end of a step, as in validation, a signal ends it without waiting."""
        if self.number is not None:
            raise Interrupted
        self.now = True
        try:
            yield
        finally:
            self.now = False

    def deliver(self) -> None:
        """Lets a noted signal do what it does without a training: most often end the process, or raise KeyboardInterrupt."""
        if self.number is not None:
            sys.stdout.flush()             # a process that a signal ends does not
            signal.raise_signal(self.number)


class Attended:
    """What surrounds a loop: its run's lock, its signals, and sentences for failures that the run does not cause itself.

    Args:
        run: its folder is locked by process 0.

    `loop` is set once there is one.
    """

    def __init__(self, run: Run):
        self.run, self.loop, self.signals, self.lock = run, None, Signals(), Lock(run.dir)

    def __enter__(self) -> Attended:
        if rank() == 0:
            self.lock.take()
            for path in self.run.dir.glob(".tmp-*"):       # of a process that was killed while it wrote
                path.unlink(missing_ok=True)
        self.signals.__enter__()
        return self

    def __exit__(self, kind, error, trace) -> bool:
        try:
            if isinstance(error, Interrupted):
                by = signal.Signals(self.signals.number).name if self.signals.number else "a signal to another process"
                where = "before its first step"
                if self.loop is not None:
                    self.loop.progress.close()
                    self.loop.store()
                    where = f"after step {self.loop.step} of {self.loop.steps}"
                say(f"{self.run.dir.name} was stopped by {by} {where}; the same call continues from there")
            elif error is not None and self.loop is not None:
                self.loop.progress.close()
        finally:
            self.signals.__exit__()
            self.lock.release()
        if isinstance(error, Interrupted) or error is None:
            self.signals.deliver()
        if isinstance(error, Interrupted):                 # the signal was another process's, or its handler returned
            raise KeyboardInterrupt from None
        said = explained(error, self.loop)
        if said is not None:
            raise said from error
        return False


def explained(error: BaseException | None, loop) -> RunError | None:
    """What to say about a failure of the machine; None for everything else."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        from .memory import out_of_memory
        return out_of_memory(loop, error)
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return RunError(f"a loading process ended ({cause_of(error)}), most often for want of memory: use fewer workers or smaller "
                        "batches, then call again; the run continues from its last state")
    if isinstance(error, RuntimeError) and not isinstance(error, RunError) and world() > 1 and any(
            w in text for w in ("closed by peer", "onnection", "NCCL", "gloo", "Timed out")):
        return RunError(f"another process of this run ended (here: {cause_of(error)[:120]}): its own message says why; start torchrun "
                        "again, with any number of processes, and the run continues from its last state")
    return None
