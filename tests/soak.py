"""The long forms of test_resume.py and test_training.py; `make soak` runs them.

pytest does not collect this file by itself: its name is no test's.
"""
import json
import os
import random
import signal
import subprocess
import sys
import time

import faults
import pytest
from conftest import tiny_finetune, tiny_pretrain
from faults import CONTEXT, group, lost, same, steps_done, struck, work
from test_resume import job

from s4d.config import update
from s4d.training import locate

CONFIGS = {"pretrain": tiny_pretrain, "finetune": tiny_finetune}
POINTS = int(os.environ.get("SOAK_POINTS", "24"))         # kill points for each stage


@pytest.fixture(scope="module")
def whole(mini, tmp_path_factory):
    """By stage, a configuration and the run that nothing happens to."""
    out = {}
    for stage, tiny in CONFIGS.items():
        cfg = tiny(mini, epochs=2, **({"ema_decay": 0.9} if stage == "finetune" else {}))
        folder = tmp_path_factory.mktemp(f"whole-{stage}")
        assert struck(cfg, folder) == 0
        out[stage] = cfg, locate(cfg, folder)
    return out


# --- one process

KINDS = {"kill": 12, "term": 12, "int": 12, "half": 12, "rename": 15, "renamed": 15, "validate": 8}


@pytest.mark.parametrize("stage", CONFIGS)
@pytest.mark.parametrize("point", range(POINTS))
def test_a_kill_point(tmp_path, whole, stage, point):
    (cfg, reference), draw = whole[stage], random.Random(f"{stage} {point}")
    kind = draw.choice([k for k in KINDS if k != "validate" or stage == "finetune"])
    minutes = 9.0 if kind in ("term", "int", "validate") else 0.0
    fault = kind, draw.randint(1, KINDS[kind])
    status = struck(update(cfg, save_minutes=minutes), tmp_path, fault)
    run = locate(cfg, tmp_path)
    steps = 0 if run.done else lost(cfg, tmp_path)
    assert (status != 0 or run.done) and steps <= (0 if minutes else 1)
    assert struck(cfg, tmp_path) == 0, (tmp_path / "said.txt").read_text()
    same(reference, run)


@pytest.mark.parametrize("stage", CONFIGS)
def test_kills_at_random_times_until_the_end(tmp_path, whole, stage):
    """As often as it takes: in loading, a step, a checkpoint's writing or the test."""
    (cfg, reference), draw = whole[stage], random.Random(stage)
    run, eager = locate(cfg, tmp_path), update(cfg, save_minutes=0.0)
    for _ in range(60):
        said = str(tmp_path / "said.txt")
        process = CONTEXT.Process(target=work, args=(eager, tmp_path, None, said))
        process.start()
        goal, end = min(steps_done(run) + 2, 12), time.monotonic() + 60
        while process.is_alive() and time.monotonic() < end and steps_done(run) < goal:
            time.sleep(0.005)
        process.join(draw.uniform(0, 0.3))
        process.kill()
        process.join()
        if run.done:
            break
    assert run.done or struck(cfg, tmp_path) == 0
    same(reference, run)


@pytest.mark.parametrize("stage", CONFIGS)
def test_loading_processes_change_nothing(tmp_path, whole, stage):
    """A signal to them too is no fault, and a run may go on with another number of them."""
    cfg, reference = whole[stage]
    assert struck(update(cfg, num_workers=2), tmp_path, ("group", 5)) == -15
    assert lost(cfg, tmp_path) == 0 and struck(update(cfg, num_workers=1), tmp_path) == 0
    same(reference, locate(cfg, tmp_path))


# --- several processes

def test_sigterm_to_torchrun_loses_nothing(mini, tmp_path):
    """As a scheduler sends it: to torchrun, which passes it on."""
    cfg = tiny_pretrain(mini, epochs=40, image_batch_size=7, video_batch_size=2, save_minutes=9.0)
    (tmp_path / "job.json").write_text(json.dumps(job(tmp_path, "parts", [cfg])))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               faults.__file__, "job.json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE,
                          text=True) as process:
        run, end = locate(cfg, tmp_path / "parts"), time.monotonic() + 90
        while steps_done(run) < 5 and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert "was stopped by SIGTERM after step" in said and lost(cfg, tmp_path / "parts") == 0
    for name in ("parts", "whole"):
        assert group(job(tmp_path, name, [cfg]), 2)[0] == [0, 0]
    same(locate(cfg, tmp_path / "whole"), locate(cfg, tmp_path / "parts"))
