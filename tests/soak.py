"""The long forms of test_resume.py, test_ranks.py and test_watch.py; `make soak` runs them and prints what was survived.

pytest does not collect this file by itself: its name is no test's.
"""
from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
import ranks
import torch
from conftest import tiny_finetune, tiny_pretrain
from faults import CONTEXT, lost, remember, same, steps_done, struck, work
from test_ranks import close, torchrun

from s4d.config import to_dict, update
from s4d.training import locate, train
from s4d.training.state import load_state

CONFIGS = {"pretrain": tiny_pretrain, "finetune": tiny_finetune}
POINTS = int(os.environ.get("SOAK_POINTS", "24"))         # kill points for each stage
TABLE = defaultdict(lambda: [0, 0, 0])                     # fault -> injected, survived, most steps lost


@pytest.fixture(scope="module", autouse=True)
def table():
    """Prints, and writes to build/soak.csv, what was injected."""
    yield
    lines = ["fault,injected,survived,steps lost at most", *(f"{k},{a},{b},{c}" for k, (a, b, c) in sorted(TABLE.items()))]
    folder = Path(__file__).parents[1] / "build"
    folder.mkdir(exist_ok=True)
    (folder / "soak.csv").write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))


def count(fault: str, survived: bool, steps: int) -> None:
    row = TABLE[fault]
    row[:] = [row[0] + 1, row[1] + survived, max(row[2], steps)]


WHOLE = {}


def whole(stage: str, mini: Path, tmp_path_factory):
    """The run that nothing happens to."""
    if stage not in WHOLE:
        cfg = CONFIGS[stage](mini, epochs=2, **({"ema": 0.9} if stage == "finetune" else {}))
        folder = tmp_path_factory.mktemp(f"whole-{stage}")
        assert struck(cfg, folder) == 0
        WHOLE[stage] = cfg, locate(cfg, folder)
    return WHOLE[stage]


# --- one process

KINDS = {"kill": 12, "term": 12, "int": 12, "half": 12, "rename": 30, "renamed": 30, "validate": 8}
NAMES = {"kill": "SIGKILL within a step", "term": "SIGTERM within a step", "int": "SIGINT within a step",
         "half": "SIGKILL within a state's writing",
         "rename": "SIGKILL before a renaming", "renamed": "SIGKILL after a renaming", "validate": "SIGTERM within validation or test",
         "time": "SIGKILL at a random time"}


@pytest.mark.parametrize("stage", CONFIGS)
@pytest.mark.parametrize("point", range(POINTS))
def test_a_kill_point(mini, tmp_path, tmp_path_factory, stage, point):
    cfg, reference = whole(stage, mini, tmp_path_factory)
    draw = random.Random(f"{stage} {point}")
    kind = draw.choice([k for k in KINDS if k != "validate" or stage == "finetune"])
    at = draw.randint(1, KINDS[kind])
    minutes = 9.0 if kind in ("term", "int", "validate") else 0.0
    status = struck(update(cfg, save_minutes=minutes), tmp_path, (kind, at))
    run = locate(cfg, tmp_path)
    steps = 0 if run.done else lost(cfg, tmp_path)
    assert status != 0 or run.done
    assert struck(cfg, tmp_path) == 0, (tmp_path / "said.txt").read_text()
    same(reference, run)
    assert steps <= (0 if minutes else 1)
    count(NAMES[kind], True, steps)


@pytest.mark.parametrize("stage", CONFIGS)
def test_kills_at_random_times_until_the_end(mini, tmp_path, tmp_path_factory, stage):
    """As often as it takes; each time the process may be anywhere, in loading, a step, a state's writing or the test."""
    cfg, reference = whole(stage, mini, tmp_path_factory)
    run, draw = locate(cfg, tmp_path), random.Random(stage)
    for _ in range(60):
        process = CONTEXT.Process(target=work, args=(update(cfg, save_minutes=0.0), tmp_path, None, str(tmp_path / "said.txt")))
        process.start()
        before = steps_done(run) if run.dir.exists() else 0
        end = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < end and (steps_done(run) if run.dir.exists() else 0) < min(before + 2, 12):
            time.sleep(0.005)
        process.join(draw.uniform(0, 0.3))
        alive = process.is_alive()
        process.kill()
        process.join()
        if run.done:
            break
        count(NAMES["time"], alive, lost(cfg, tmp_path))
    assert run.done or struck(cfg, tmp_path) == 0
    same(reference, run)


@pytest.mark.parametrize("stage", CONFIGS)
def test_loading_processes_change_nothing(mini, tmp_path, tmp_path_factory, stage):
    """Samples have seeds of their own, so a run may even go on with another number of loading processes."""
    cfg, reference = whole(stage, mini, tmp_path_factory)
    assert struck(update(cfg, num_workers=2), tmp_path, ("term", 5)) == -15
    assert lost(cfg, tmp_path) == 0 and struck(update(cfg, num_workers=1), tmp_path) == 0
    same(reference, locate(cfg, tmp_path))
    count("SIGTERM with two loading processes", True, 0)


@pytest.mark.parametrize("size", [20_000, 100_000, 3_000_000, 9_000_000])
def test_files_that_cannot_grow(mini, tmp_path, tmp_path_factory, size):
    """The kernel refuses to write beyond a size: settings and metrics, weights and states stop the run one after another."""
    cfg, reference = whole("pretrain", mini, tmp_path_factory)
    assert struck(update(cfg, save_minutes=0.0), tmp_path, ("kill", 4)) == -9
    run = locate(cfg, tmp_path)
    before = load_state(run.dir)["step"]
    status = struck(update(cfg, save_minutes=0.0), tmp_path, ("quota", size))
    assert status == 0 or "cannot write" in (tmp_path / "said.txt").read_text()
    steps = 0 if run.done else steps_done(run) - load_state(run.dir)["step"]
    assert run.done or load_state(run.dir)["step"] >= before
    assert struck(cfg, tmp_path) == 0
    same(reference, run)
    count("file size limit", True, steps)


def test_memory_over_two_thousand_steps(mini, tmp_path):
    """In a process that does nothing else."""
    cfg = update(tiny_pretrain(mini, image_batch_size=1, epochs=143, save_minutes=0.05), video=None)
    process = CONTEXT.Process(target=remember, args=(cfg, tmp_path / "runs", tmp_path / "sizes"))
    process.start()
    process.join()
    sizes = [int(line) for line in (tmp_path / "sizes").read_text().split()]
    assert len(sizes) == 2002
    growth = (sum(sizes[-200:]) - sum(sizes[200:400])) / 200
    print(f"\nmemory after 2 000 steps: {growth / 1e6:+.2f} MB against steps 200 to 400")
    assert growth < 2e6                                    # 1 kB a step, where one batch has 12 kB and the gradients 3 MB


# --- several processes

def job(runs: Path, cfgs: list, faults: list = ()) -> dict:
    return {"runs": str(runs), "configs": [to_dict(c) for c in cfgs], "faults": list(faults), "said": str(runs) + "-said.txt"}


def four(mini: Path) -> list:
    """A configuration of either stage whose batches four processes can share, in unequal parts."""
    return [tiny_pretrain(mini, epochs=2, image_batch_size=7, video_batch_size=4, repeat_aug=1, video_epoch_fraction=1.0, save_minutes=0.0, amp=False),
            tiny_finetune(mini, epochs=2, image_batch_size=5, video_batch_size=5, test_segments=2, save_minutes=0.0, amp=False)]


def test_four_processes_equal_one_and_resume_bit_for_bit_and_with_other_numbers(mini, tmp_path):
    cfgs = four(mini)
    status, said, _ = torchrun(job(tmp_path / "four", cfgs), tmp_path, 4)
    assert status == 0, said
    for cfg in cfgs:
        close(train(cfg, tmp_path / "one"), locate(cfg, tmp_path / "four"))
    for cfg, step in zip(cfgs, (3, 2)):
        for end, numbers in (("bits", (4, 4)), ("others", (4, 2, 1))):
            runs = tmp_path / f"{cfg.stage}-{end}"
            for i, n in enumerate(numbers[:-1]):
                statuses, said = ranks.group(job(runs, [cfg], [(n - 1, cfg.stage, step - i, "kill")]), n)
                assert statuses[n - 1] == -9 and 0 not in statuses, said
                count("SIGKILL of one of several processes", True, lost(cfg, runs))
            assert ranks.group(job(runs, [cfg]), numbers[-1])[0] == [0] * numbers[-1]
            if end == "bits":
                same(locate(cfg, tmp_path / "four"), locate(cfg, runs))
            else:
                close(locate(cfg, tmp_path / "one"), locate(cfg, runs))


@pytest.mark.parametrize("how", ["defect", "kill"])
def test_torchrun_ends_all_within_a_minute(mini, tmp_path, how):
    cfg = four(mini)[0]
    status, said, seconds = torchrun(job(tmp_path / "runs", [cfg], [(2, "pretrain", 3, how)]), tmp_path, 4)
    assert status != 0 and seconds < 60, said
    assert "ValueError: a defect in one process" in said if how == "defect" else "Signal 9 (SIGKILL)" in said
    steps = lost(cfg, tmp_path / "runs")
    assert torchrun(job(tmp_path / "runs", [cfg]), tmp_path, 2)[0] == 0
    close(train(cfg, tmp_path / "one"), locate(cfg, tmp_path / "runs"))
    count(f"{'error' if how == 'defect' else 'SIGKILL'} in one process of torchrun", True, steps)


def test_sigterm_to_torchrun_loses_nothing(mini, tmp_path):
    """As a scheduler sends it: to torchrun, which passes it on."""
    cfg = update(four(mini)[0], save_minutes=9.0, epochs=40)
    (tmp_path / "job.json").write_text(json.dumps(job(tmp_path / "runs", [cfg])))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(Path(ranks.__file__)), "job.json"]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True) as process:
        run, end = locate(cfg, tmp_path / "runs"), time.monotonic() + 90
        while steps_done(run) < 5 and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert "was stopped by SIGTERM after step" in said
    steps = lost(cfg, tmp_path / "runs")
    assert steps == 0 and ranks.group(job(tmp_path / "runs", [cfg]), 2)[0] == [0, 0]
    assert ranks.group(job(tmp_path / "whole", [cfg]), 2)[0] == [0, 0]
    same(locate(cfg, tmp_path / "whole"), locate(cfg, tmp_path / "runs"))
    count("SIGTERM to torchrun", True, steps)


def test_threads_are_one():
    """Equal bits are promised for an equal number of threads."""
    assert torch.get_num_threads() == 1
