"""The check for a GPU, rehearsed on a CPU: small models, few steps, none of the codecs."""
from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import gpu_check
import pandas as pd
import pytest


def rehearse(tmp_path, *parts) -> dict[str, pd.DataFrame]:
    """Run parts as on the bare machine: imports that it lacks fail."""
    code = ("import runpy, sys\nfor name in ('av', 'decord', 'tyro', 'papermill', 'seaborn'): "
            "sys.modules[name] = None\nsys.path.insert(0, sys.argv[1])\nimport gpu_check\n"
            "from pathlib import Path\nfor part in sys.argv[3:]:\n    getattr(gpu_check, part)"
            "(gpu_check.Rows(part, Path(sys.argv[2])), True, 'cpu')")
    folder = str(gpu_check.ROOT / "tests")
    subprocess.run([sys.executable, "-c", code, folder, str(tmp_path), *parts], check=True,
                   timeout=300)
    return {part: pd.read_csv(tmp_path / f"{part}.csv") for part in parts}


def test_models_are_compared_and_timed(tmp_path):
    found = rehearse(tmp_path, "correct", "fast", "compiled")
    assert found["correct"].passed.all() and len(found["correct"]) == 19
    ours = found["fast"][found["fast"].model == "ours"]
    assert set(ours.stage) == set(gpu_check.STAGES) and (ours.step_ms > 0).all()
    assert set(found["compiled"].way) == {"eager", "compiled"}


def test_the_whole_way_runs_from_faces_to_scores(tmp_path):
    found = rehearse(tmp_path, "faces", "pretraining", "finetuning")
    assert (found["faces"].frames_per_second > 0).all()
    assert {"image loss", "video loss"} <= set(found["pretraining"].what)
    assert {"image WAR", "video WAR"} <= set(found["finetuning"].what)


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    assert rehearse(tmp_path, "faces", "lossless")["lossless"].equal.all()


@pytest.mark.parametrize("code, state", [("raise ValueError('no such kernel')", "failed"),
                                         ("import time; time.sleep(60)", "out of time")])
def test_a_part_that_fails_or_hangs_is_said_and_stops_no_other(tmp_path, monkeypatch, code, state):
    stand_in = tmp_path / "check.py"
    stand_in.write_text(code)
    monkeypatch.setattr(gpu_check, "__file__", str(stand_in))
    monkeypatch.setitem(gpu_check.SECONDS, "fast", 3)
    found = gpu_check.run_part("fast", SimpleNamespace(device="cpu", out=tmp_path, tiny=True))
    assert found["state"] == state and found["seconds"] < 20
    assert state != "failed" or "no such kernel" in found["error"][-1]
    assert json.dumps(found)
