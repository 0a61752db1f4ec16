"""What each of several processes does in test_ranks.py and in `make soak`: train, and die.

torchrun runs this file; the quick tests fork its processes, with the variables that torchrun sets.
"""
from __future__ import annotations

import functools
import json
import os
import socket
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from faults import CONTEXT, SIGNALS, nth

from s4d import config
from s4d.training import train
from s4d.training.engine import Engine


def die(how: str) -> None:
    if how == "defect":
        raise ValueError("a defect in one process")
    os.kill(os.getpid(), SIGNALS[how])


def work(job: dict) -> None:
    """Train a job's configurations; its faults are (process, stage, step, how)."""
    torch.set_num_threads(1)
    if "batch_size" in job:
        stage = sys.modules["s4d.training.finetune"]
        stage.predict = functools.partial(stage.predict, batch_size=job["batch_size"])
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
            work(job)
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
    work(json.loads(Path(sys.argv[1]).read_text()))
