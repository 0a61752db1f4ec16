"""Trainings in processes of their own, and the faults that strike them; for tests and soak."""
import itertools
import json
import multiprocessing as mp
import os
import resource
import signal
import socket
import sys
import traceback
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))          # torchrun runs this file

import torch
from safetensors.torch import load_file

from s4d import config
from s4d.training import Run, locate, train
from s4d.training.engine import Engine
from s4d.training.runs import CHECKPOINT

# Children are forked from a process that has loaded torch and computed nothing: a quick start.
CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(["s4d.training"])
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}


def kill(*_, by: signal.Signals = signal.SIGKILL) -> None:
    os.kill(os.getpid(), by)


def nth(function, number: int, before=None, after=None):
    """A function that does something before or after its n-th call, counted from 1."""
    count = itertools.count(1)

    def call(*args, **kwargs):
        struck = next(count) == number
        if struck and before is not None:
            before(*args)
        result = function(*args, **kwargs)
        if struck and after is not None:
            after()
        return result
    return call


def half_written(content, file, save=torch.save) -> None:
    save(content, file)
    file.truncate(file.tell() // 2)
    kill()


def strike(kind: str, at: int) -> None:
    """Arrange a fault in this process.

    Args:
        kind: kill, term, int: the signal, within step `at`; group: SIGTERM, to all that load too;
            half: killed within the writing of the at-th checkpoint; rename, renamed: killed before
            or after the at-th renaming; validate: SIGTERM within the at-th validation; quota: files
            can have `at` bytes.
    """
    if kind in SIGNALS:
        Engine.update = nth(Engine.update, at, before=partial(kill, by=SIGNALS[kind]))
    elif kind == "group":
        os.setpgrp()
        Engine.update = nth(Engine.update, at, before=lambda *_: os.killpg(0, signal.SIGTERM))
    elif kind == "half":
        torch.save = nth(torch.save, at, before=half_written)
    elif kind == "rename":
        os.replace = nth(os.replace, at, before=kill)
    elif kind == "renamed":
        os.replace = nth(os.replace, at, after=kill)
    elif kind == "validate":
        stage = sys.modules["s4d.training.finetune"]
        stage.predict = nth(stage.predict, at, before=partial(kill, by=signal.SIGTERM))
    elif kind == "quota":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))


def work(cfg, runs, fault, said) -> None:
    torch.set_num_threads(1)
    sys.stderr = open(said, "a", buffering=1)
    if fault is not None:
        strike(*fault)
    train(cfg, runs)


def struck(cfg, runs: Path, fault: tuple[str, int] | None = None) -> int:
    """Train in a process of its own; return its exit status, of a signal the negative number."""
    runs.mkdir(parents=True, exist_ok=True)
    process = CONTEXT.Process(target=work, args=(cfg, runs, fault, str(runs / "said.txt")))
    process.start()
    process.join(300)
    return process.exitcode


def checkpoint(run: Run) -> dict:
    """The run's checkpoint; of step 0 where it has none."""
    path = run.dir / CHECKPOINT
    return torch.load(path, weights_only=True) if path.exists() else {"step": 0}


def steps_done(run: Run) -> int:
    """Optimizer steps that metrics.jsonl tells of."""
    path = run.dir / "metrics.jsonl"
    rows = path.read_text().splitlines() if path.exists() else []
    return sum(json.loads(r)["modality"] != "val" for r in rows if r.endswith("}"))


def lost(cfg, runs: Path) -> int:
    """Steps that a stopped run has to do again."""
    run = locate(cfg, runs)
    return steps_done(run) - checkpoint(run)["step"]


def same(a: Run, b: Run) -> None:
    """Equal weights, predictions and metrics, bit for bit."""
    left, right = (load_file(run.dir / "weights.safetensors") for run in (a, b))
    assert set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)
    for name in ("predictions.csv", "metrics.jsonl"):
        if (a.dir / name).exists():
            assert (a.dir / name).read_text() == (b.dir / name).read_text(), name


# --- several processes: torchrun runs this file; quick tests fork it with torchrun's variables

def die(how: str) -> None:
    if how == "defect":
        raise ValueError("a defect in one process")
    os.kill(os.getpid(), SIGNALS[how])


def work_on(job: dict) -> None:
    """Train a job's configurations; its faults are (process, stage, step, how)."""
    torch.set_num_threads(1)
    if "batch_size" in job:
        stage = sys.modules["s4d.training.finetune"]
        stage.predict = partial(stage.predict, batch_size=job["batch_size"])
    original = Engine.update
    for values in job["configs"]:
        cfg = config.from_dict(values)
        for process, stage, step, how in job["faults"]:
            if stage == cfg.stage and process == int(os.environ["RANK"]):
                Engine.update = nth(original, step, before=lambda *_, how=how: die(how))
        train(cfg, job["runs"])
        Engine.update = original


def tell_of_files(runs: str, rank: int) -> None:
    """Say which files of the runs this process opens to write, renames or removes."""
    def hook(event: str, args: tuple) -> None:
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        changes = event in ("os.rename", "os.remove") or event == "open" and args[2] & writes
        if changes and str(args[0]).startswith(runs):
            sys.stderr.write(f"process {rank} wrote {args[0]}\n")
    sys.addaudithook(hook)


def member(job: dict, rank: int, processes: int, port: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with open(job["said"], "a", buffering=1) as sys.stderr:
        tell_of_files(job["runs"], rank)
        try:
            work_on(job)
        except BaseException:
            traceback.print_exc()
            os._exit(1)


def group(job: dict, processes: int) -> tuple[list[int], str]:
    """Run a job on forked processes; return their exit statuses and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members = [CONTEXT.Process(target=member, args=(job, r, processes, port))
               for r in range(processes)]
    for process in members:
        process.start()
    for process in members:
        process.join(60)
    return [p.exitcode for p in members], Path(job["said"]).read_text()


if __name__ == "__main__":
    work_on(json.loads(Path(sys.argv[1]).read_text()))
