"""The check for a GPU, rehearsed on a CPU as on its bare machine: small, without the codecs."""

import subprocess
import sys
from pathlib import Path

import gpu_check
import pandas as pd
import pytest

MISSING = ("av", "decord", "tyro", "papermill", "seaborn", "nbformat")


def rehearse(out: Path, monkeypatch, *more: str) -> dict[str, pd.DataFrame]:
    for name in MISSING:
        (out / f"{name}.py").write_text("raise ImportError('not on that machine')")
    monkeypatch.setenv("PYTHONPATH", str(out))
    command = [sys.executable, gpu_check.__file__, "--tiny", "--device", "cpu", "--out", str(out)]
    subprocess.run([*command, "--here", *more], check=True, timeout=300)
    return {path.stem: pd.read_csv(path) for path in out.glob("*.csv")}


def test_every_part_runs_to_its_end(tmp_path, monkeypatch):
    found = rehearse(tmp_path, monkeypatch, "--workers", "0")
    assert set(found) == set(gpu_check.SECONDS)
    assert found["correct"].passed.all() and set(found["correct"].way) >= {"eager", "compiled"}
    assert found["correct"].gradient_error.max() > 1e-7                # two ways were compared
    ours = found["fast"][found["fast"].model == "package"]
    assert set(ours.stage) >= set(gpu_check.bench.EXPERTS) and (ours.step_ms > 0).all()
    assert "compiled" in set(found["fast"].model) and len(found["faces"]) == 2
    for stage, what in (("pretraining", "image loss"), ("finetuning", "video WAR")):
        assert {"steps a second", "waiting, per cent", what} <= set(found[stage].what)
    assert found["lossless"].killed.all() and found["lossless"].equal.all()


@pytest.mark.slow
def test_loading_processes_lack_the_codecs_too(tmp_path, monkeypatch):
    given = "--workers", "1", "--parts", "faces", "pretraining"
    assert set(rehearse(tmp_path, monkeypatch, *given)) == {"faces", "pretraining"}


@pytest.mark.parametrize("code, state", [("raise ValueError('no such kernel')", "failed"),
                                         ("import time; time.sleep(60)", "out of time")])
def test_a_part_that_fails_or_hangs_is_said(monkeypatch, code, state):
    monkeypatch.setitem(gpu_check.SECONDS, "fast", 1)
    found = gpu_check.limited("fast", [sys.executable, "-c", code])
    assert found["state"] == state and found["seconds"] < 20
    assert any("no such kernel" in line for line in found["said"]) == (state == "failed")
