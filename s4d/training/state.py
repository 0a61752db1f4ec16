"""What a run needs to go on: two resumable states, every random generator, and a lock that ends with its process."""
from __future__ import annotations

import contextlib
import os
import platform
import random
import time
import zipfile
from pathlib import Path

import numpy as np
import torch

from .runs import RunError, cause_of, write

try:
    import fcntl
except ImportError:      # Windows locks a byte of the file instead
    fcntl = None
    import msvcrt

NEWEST, PREVIOUS = "state.pt", "state.previous.pt"


def rng_state() -> dict:
    """The states of the random generators that this process draws from, as plain numbers and tensors."""
    name, keys, *rest = np.random.get_state()
    state = {"rng": torch.get_rng_state(), "python_rng": random.getstate(), "numpy_rng": (name, keys.tolist(), *rest)}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state()
    return state


def restore_rng(state: dict) -> None:
    """The inverse of `rng_state`; what a state does not hold stays as it is."""
    torch.set_rng_state(state["rng"])
    if "python_rng" in state:
        random.setstate(state["python_rng"])
        np.random.set_state(state["numpy_rng"])
    if torch.cuda.is_available() and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"])


def save_state(folder: Path, state: dict) -> None:
    """Writes the newest state and keeps the one before; at every moment a complete one lies under one of the two names.

    Raises:
        RunError: when the folder is full, read-only or gone; the state that was the newest is then intact.
    """
    def save(path: Path) -> None:
        with open(path, "wb") as file:     # of Python's own, whose errors say what is wrong
            torch.save(state, file)
        keep_previous(folder)
    if not folder.is_dir():                # made anew it would lie on the disk under a mount that has vanished
        raise RunError(f"cannot write {folder / NEWEST}: the folder is gone; mount or restore it, then call again: the run continues "
                       "from its last state")
    write(folder / NEWEST, save)


def keep_previous(folder: Path) -> None:
    """Gives the newest state its second name, by a hard link where the file system has them, so that it never lacks the first."""
    newest, spare = folder / NEWEST, folder / f".tmp-{os.getpid()}-{PREVIOUS}"
    if not newest.exists():
        return
    try:
        os.link(newest, spare)
        os.replace(spare, folder / PREVIOUS)
    except OSError:
        os.replace(newest, folder / PREVIOUS)
    spare.unlink(missing_ok=True)          # left where both names were one file already


def read_state(path: Path, lines: int) -> dict:
    """One state, checked against the checksums inside it.

    Args:
        lines: that metrics.jsonl has; a state that counts more has outlived them.
    Raises:
        ValueError, and whatever torch and zipfile raise for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:       # torch.load does not compare the checksums that torch.save wrote
        broken = archive.testzip()
    if broken:
        raise ValueError(f"wrong checksum of {broken}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["log"] > lines:
        raise ValueError(f"it counts {state['log']} lines of metrics.jsonl, which has {lines}")
    return state


def load_state(folder: Path, say=print) -> dict | None:
    """The newest state that can be read, or None; a damaged one is set aside and said."""
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            return read_state(path, lines)
        except Exception as error:   # torch and zipfile raise many kinds for a damaged archive
            path.replace(path.with_suffix(".damaged"))
            then = "the run goes on from the state before" if name == NEWEST and (folder / PREVIOUS).exists() else "the run starts again"
            say(f"{name} of {folder.name} is damaged ({cause_of(error)[:80]}): set aside as {path.stem}.damaged, {then}")
    return None


def remove_states(folder: Path) -> None:
    """What a finished run does not need."""
    for name in (NEWEST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


class Lock:
    """One process a run. The system holds the lock for as long as the process lives, so a killed one leaves none behind.

    Args:
        folder: of the run; the file `lock` in it names the holder.
    """

    def __init__(self, folder: Path):
        self.path, self.file = folder / "lock", None

    def take(self) -> Lock:
        """Raises RunError, naming the holder, when another process has the run, and when the folder cannot be written."""
        while self.file is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = open(self.path, "a+")
            except OSError as error:
                raise RunError(f"cannot write {self.path}: {error.strerror}; choose another runs folder, or make this one "
                               "writable") from error
            try:
                free = _try(file)
            except OSError as error:
                file.close()
                raise RunError(f"cannot lock {self.path}: {error.strerror}; choose a runs folder on a file system that has locks") from error
            if not free:
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise RunError(f"run {self.path.parent.name} is being trained by {holder}: wait for it, or stop it and call again; two "
                               "at once would overwrite each other")
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                self.file = file
            else:
                file.close()                   # its holder has just removed it
        with contextlib.suppress(OSError):         # a full disk has no room for a name; the lock holds without
            self.file.truncate(0)
            self.file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            self.file.flush()
        return self

    def release(self) -> None:
        if self.file is not None:
            try:
                self.path.unlink(missing_ok=True)      # still locked: nobody can take it in between
            except OSError:                            # the folder is read-only or gone
                pass
            self.file.close()
            self.file = None

    @staticmethod
    def holder(folder: Path) -> str | None:
        """Who trains the run in this folder now, or None."""
        try:
            with open(folder / "lock", "r+") as file:
                return None if _try(file) else file.read().strip()
        except OSError:
            return None


def _try(file) -> bool:
    """Locks an open file without waiting."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(1 << 20)             # beyond the text, which others must be able to read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        return True
    except (BlockingIOError, PermissionError):
        return False
