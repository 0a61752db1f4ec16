"""A run that is stopped, killed or refused a file ends where one that was left alone does."""
from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_finetune, tiny_pretrain
from faults import CONTEXT, checkpoint, lost, nth, same, struck

from s4d.config import update
from s4d.files import OutputError
from s4d.training import RunError, finetune, locate, pretrain, train
from s4d.training.engine import Engine
from s4d.training.runs import CHECKPOINT, LOCK, lock

CONFIGS = {"pretrain": tiny_pretrain, "finetune": tiny_finetune}


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {LOCK}


def interrupted(cfg, runs: Path, step: int, before=lambda *_: None) -> None:
    """Train until Ctrl-C is typed in a step, counted from 1."""
    def strike(engine, *_):
        before(engine)
        signal.raise_signal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "update", nth(Engine.update, step, before=strike))
        with pytest.raises(KeyboardInterrupt):
            train(cfg, runs)


# --- the same result, however it is cut

# One renaming comes before the first step (settings), then one a checkpoint.
CHAINS = {"pretrain": [(("kill", 2), 0.0), (("half", 2), 0.0), (("rename", 3), 0.0),
                       (("term", 2), 9.0), (("int", 1), 9.0), (("renamed", 3), 0.0)],
          "finetune": [(("term", 3), 9.0), (("kill", 2), 0.0), (("rename", 4), 0.0),
                       (("validate", 1), 9.0), (("int", 2), 9.0), (("half", 2), 0.0),
                       (("validate", 3), 9.0)]}


@pytest.mark.parametrize("stage", CHAINS)
def test_a_run_cut_many_times_equals_one_that_was_not(mini, tmp_path, monkeypatch, stage):
    """With MixUp, router noise, stochastic depth and a moving average drawing and drifting."""
    changes = {"ema_decay": 0.9} if stage == "finetune" else {}
    cfg, parts, begun = CONFIGS[stage](mini, epochs=2, **changes), tmp_path / "parts", 0
    whole = train(cfg, tmp_path / "whole")
    for fault, minutes in CHAINS[stage]:
        status = struck(update(cfg, save_minutes=minutes), parts, fault)
        expected = {"term": -15, "validate": -15, "int": 1}.get(fault[0], -9)
        assert status == expected, (fault, (parts / "said.txt").read_text())
        assert lost(cfg, parts) <= (0 if minutes else 1), fault
        assert checkpoint(locate(cfg, parts))["step"] >= begun
        begun = checkpoint(locate(cfg, parts))["step"]
    assert begun > 0 and not locate(cfg, parts).done
    said = (parts / "said.txt").read_text()
    assert "was stopped by SIGTERM after step" in said and "by SIGINT after step" in said
    steps, original = [], Engine.update
    monkeypatch.setattr(Engine, "update",
                        lambda self, *a: steps.append(self.step) or original(self, *a))
    end = train(cfg, parts)
    assert (steps[0] if steps else 12) == begun
    same(whole, end)
    assert files(end.dir) == files(whole.dir)


def test_ctrl_c_in_a_cell_stops_between_two_steps_and_loses_none(mini, tmp_path, capsys):
    cfg = tiny_pretrain(mini)
    whole, before = train(cfg, tmp_path / "whole"), signal.getsignal(signal.SIGINT)
    interrupted(cfg, tmp_path / "parts", 3)
    assert "was stopped by SIGINT after step 3 of 6; the same call" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    run = locate(cfg, tmp_path / "parts")
    assert run.state == "interrupted" and locate(cfg, tmp_path / "whole").state == "finished"
    assert files(run.dir) == {"config.json", "metrics.jsonl", CHECKPOINT}
    with open(run.dir / "metrics.jsonl", "a") as f:
        f.write('{"step": 99}\n')                 # logged after the last checkpoint: cut off again
    same(whole, train(cfg, tmp_path / "parts"))


def test_what_was_counted_before_a_stop_is_counted_after(mini, tmp_path, monkeypatch):
    cfg = tiny_finetune(mini, max_unreadable=1.0)

    def fill(engine):
        guard = engine.guard
        guard.unreadable["gone.jpg"], guard.warned["kind"] = "empty", "said before"
        guard.idle_since["blocks.1.moae 0"], guard.skipped = -600, 2
        engine.started -= 1e6
        engine.waiting += 1e5
    interrupted(cfg, tmp_path, 2, before=fill)
    idle = []
    look = nth(Engine.update, 1, before=lambda e, *_: idle.append(dict(e.guard.idle_since)))
    monkeypatch.setattr(Engine, "update", look)
    found = finetune(cfg, tmp_path).provenance
    assert idle[0]["blocks.1.moae 0"] == -600 and found["skipped"] == 2
    assert found["unreadable"] == {"gone.jpg": "empty"} and "said before" in found["warnings"]
    assert found["seconds"] > 1e6 and found["waiting_seconds"] >= 1e5


def test_checkpoints_are_written_every_so_many_minutes(mini, tmp_path, monkeypatch):
    """By a clock on which a step takes 25 seconds."""
    now, saved, save = [0.0], [], torch.save

    def slow(self, modality, **values):
        now[0] += 25
    monkeypatch.setattr("s4d.training.engine.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Engine, "log", slow)
    monkeypatch.setattr(torch, "save",
                        lambda state, file: saved.append(state["step"]) or save(state, file))
    run = pretrain(tiny_pretrain(mini, save_minutes=1.0), tmp_path)
    assert saved == [3, 6] and run.provenance["seconds"] == 150


def test_a_fine_tuning_stopped_in_its_pre_training_goes_on_there(mini, tmp_path, capsys):
    cfg = tiny_finetune(mini, init=tiny_pretrain(mini), epochs=0.34)
    interrupted(cfg, tmp_path, 3)
    said = capsys.readouterr().err
    assert "after step 3 of 6" in said and "was stopped by SIGINT before its first step" in said
    assert checkpoint(locate(cfg.init, tmp_path))["step"] == 3
    assert locate(cfg, tmp_path).state == "begun" and finetune(cfg, tmp_path).done


# --- checkpoints that cannot be used

@pytest.mark.parametrize("content", [b"?", {"model": {"a": torch.zeros(1)}, "optimizer": {}}])
def test_a_checkpoint_that_cannot_be_used_is_a_sentence(mini, tmp_path, content):
    path = locate(tiny_pretrain(mini), tmp_path).dir / CHECKPOINT
    path.parent.mkdir()
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(RunError, match="cannot continue from .*checkpoint.pt .*damaged or of"):
        pretrain(tiny_pretrain(mini), tmp_path)


# --- one process a run

def hold(run, ready) -> None:
    with lock(run):
        ready.set()
        time.sleep(60)


def test_two_processes_on_one_run_are_kept_apart(mini, tmp_path):
    cfg = tiny_pretrain(mini, epochs=0.34)
    run, ready = locate(cfg, tmp_path), CONTEXT.Event()
    other = CONTEXT.Process(target=hold, args=(run, ready))
    other.start()
    assert ready.wait(60) and run.state == "running"
    with pytest.raises(RunError, match=r"run pretrain-\w+-\w+ is being trained by another process"):
        pretrain(cfg, tmp_path)
    other.kill()
    other.join()
    assert run.state == "begun"                  # the file outlives its process, the lock does not


# --- disks

@pytest.mark.parametrize("name, code", [
    ("config.json", errno.EROFS), ("checkpoint.pt", errno.ENOSPC),
    ("weights.safetensors", errno.EDQUOT), ("provenance.json", errno.ESTALE)])
def test_a_folder_that_refuses_files_is_a_sentence_and_nothing_is_half_written(
        mini, tmp_path, monkeypatch, name, code):
    def refuse(source, target):
        if Path(target).name == name:
            raise OSError(code, os.strerror(code), str(target))
        original(source, target)
    original, cfg = os.replace, tiny_pretrain(mini, epochs=0.34, save_minutes=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        said = f"cannot write .*{name}: {os.strerror(code).lower()}; free space"
        with pytest.raises(OutputError, match=said):
            pretrain(cfg, tmp_path)
    run = locate(cfg, tmp_path)
    assert not run.done
    assert not [f for f in files(run.dir) if f.startswith(".tmp") or f == name]
    assert pretrain(cfg, tmp_path).done


def test_the_kernels_own_limit_leaves_the_last_checkpoint_intact(mini, tmp_path):
    cfg = tiny_pretrain(mini, save_minutes=0.0)
    assert struck(cfg, tmp_path, ("kill", 3)) == -9
    run = locate(cfg, tmp_path)
    assert struck(cfg, tmp_path, ("quota", 100_000)) == 1
    said = (tmp_path / "said.txt").read_text()
    assert "cannot write" in said and "file too large" in said
    assert checkpoint(run)["step"] == 2 and not [f for f in files(run.dir) if f[:4] == ".tmp"]
    same(pretrain(cfg, tmp_path / "whole"), pretrain(cfg, tmp_path))


def test_a_runs_folder_that_cannot_be_made_is_a_sentence(mini, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match="cannot lock .*: .*choose another runs folder"):
        pretrain(tiny_pretrain(mini), tmp_path / "runs")
