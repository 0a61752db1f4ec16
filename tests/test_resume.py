"""A run that is stopped, killed or damaged ends where one that was left alone does, and what cannot go on says why."""
from __future__ import annotations

import errno
import os
import random
import signal
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_finetune, tiny_pretrain
from faults import lost, nth, same, struck
from safetensors import SafetensorError

from s4d.config import update
from s4d.training import RunError, finetune, locate, pretrain, train
from s4d.training.loop import Loop
from s4d.training.runs import Log, write_text
from s4d.training.state import Lock, load_state, read_state, restore_rng, rng_state, save_state

CONFIGS = {"pretrain": tiny_pretrain, "finetune": tiny_finetune}
STATES = {"state.pt", "state.previous.pt"}


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


# --- the same result, however it is cut

# A step has three renamings at most: the previous state's, the newest state's, and before the first step the log's and the settings'.
CHAINS = {"pretrain": [(("kill", 2), 0.0), (("half", 2), 0.0), (("rename", 6), 0.0), (("term", 2), 9.0), (("int", 1), 9.0),
                       (("renamed", 4), 0.0)],
          "finetune": [(("term", 3), 9.0), (("kill", 2), 0.0), (("rename", 5), 0.0), (("validate", 1), 9.0), (("int", 2), 9.0),
                       (("half", 2), 0.0), (("validate", 3), 9.0)]}


@pytest.mark.parametrize("stage", CHAINS)
def test_a_run_cut_many_times_equals_one_that_was_not(mini, tmp_path, stage):
    """With mix-up, router noise, stochastic depth and a moving average drawing and drifting."""
    cfg = CONFIGS[stage](mini, epochs=2, **({"ema": 0.9} if stage == "finetune" else {}))
    whole = train(cfg, tmp_path / "whole")
    begun = 0
    for fault, minutes in CHAINS[stage]:
        status = struck(update(cfg, save_minutes=minutes), tmp_path / "parts", fault)
        assert status == {"term": -15, "validate": -15, "int": 1}.get(fault[0], -9), (fault, (tmp_path / "parts/said.txt").read_text())
        assert lost(cfg, tmp_path / "parts") <= (0 if minutes else 1), fault
        state = load_state(locate(cfg, tmp_path / "parts").dir)
        assert state["step"] >= begun and not locate(cfg, tmp_path / "parts").done
        begun = state["step"]
    assert begun > 0
    said = (tmp_path / "parts/said.txt").read_text()
    assert "was stopped by SIGTERM after step" in said and "was stopped by SIGINT after step" in said and "continues from there" in said
    steps = []
    original = Loop.advance
    try:
        Loop.advance = lambda self, *args: steps.append(self.step) or original(self, *args)
        parts = train(cfg, tmp_path / "parts")
    finally:
        Loop.advance = original
    assert (steps[0] if steps else 12) == begun
    same(whole, parts)
    assert files(parts.dir) == files(whole.dir)


def test_ctrl_c_in_a_cell_stops_between_two_steps_and_loses_none(mini, tmp_path, monkeypatch, capsys):
    cfg = tiny_pretrain(mini)
    whole, before = train(cfg, tmp_path / "whole"), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "update", nth(Loop.update, 3, before=lambda *_: signal.raise_signal(signal.SIGINT)))
        with pytest.raises(KeyboardInterrupt):
            train(cfg, tmp_path / "parts")
    assert "was stopped by SIGINT after step 3 of 6; the same call continues" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    run = locate(cfg, tmp_path / "parts")
    assert files(run.dir) == {"config.json", "metrics.jsonl", "state.pt"} and load_state(run.dir)["step"] == 3
    with open(run.dir / "metrics.jsonl", "a") as f:
        f.write('{"step": 99}\n')                         # logged after the last state: cut off again
    same(whole, train(cfg, tmp_path / "parts"))


def test_what_was_counted_before_a_stop_is_counted_after(mini, tmp_path, monkeypatch):
    cfg = tiny_finetune(mini, max_unreadable=1.0)

    def fill(loop, *_):
        loop.guard.bad["gone.jpg"], loop.watch.said["kind"], loop.watch.skipped = "empty", "said before", 2
        loop.watch.unused["blocks.1.moae 0"], loop.seconds = -600, 1e6
        signal.raise_signal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "update", nth(Loop.update, 2, before=fill))
        with pytest.raises(KeyboardInterrupt):
            finetune(cfg, tmp_path)
    unused = []
    monkeypatch.setattr(Loop, "update", nth(Loop.update, 1, before=lambda loop, *_: unused.append(dict(loop.watch.unused))))
    found = finetune(cfg, tmp_path).provenance
    assert unused[0]["blocks.1.moae 0"] == -600 and found["skipped"] == 2 and found["unreadable"] == {"gone.jpg": "empty"}
    assert "said before" in found["warnings"] and found["seconds"] > 1e6


def test_every_generator_is_restored():
    """Also those that nothing draws from today."""
    draw = lambda: (random.random(), np.random.rand(), torch.rand(1).item())
    state = rng_state()
    first = draw()
    assert draw() != first
    restore_rng(state)
    assert draw() == first


def test_states_are_saved_every_so_many_minutes(mini, tmp_path, monkeypatch):
    """By a clock on which a step takes 25 seconds."""
    now, saved = [0.0], []
    monkeypatch.setattr("s4d.training.loop.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    update_, store = Loop.update, Loop.store

    def slow(self, *args):
        now[0] += 25
        return update_(self, *args)
    monkeypatch.setattr(Loop, "update", slow)
    monkeypatch.setattr(Loop, "store", lambda self: saved.append(self.step) or store(self))
    run = pretrain(tiny_pretrain(mini, save_minutes=1.0), tmp_path)
    assert saved == [3, 6] and run.provenance["seconds"] == 150


def test_a_fine_tuning_that_is_stopped_in_its_pre_training_goes_on_there(mini, tmp_path, monkeypatch, capsys):
    cfg = tiny_finetune(mini, init=tiny_pretrain(mini), epochs=0.34)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "update", nth(Loop.update, 3, before=lambda *_: signal.raise_signal(signal.SIGINT)))
        with pytest.raises(KeyboardInterrupt):
            finetune(cfg, tmp_path)
    said = capsys.readouterr().err
    assert "pretrain-" in said and "after step 3 of 6" in said and "was stopped by SIGINT before its first step" in said
    assert load_state(locate(cfg.init, tmp_path).dir)["step"] == 3 and "lock" not in files(locate(cfg, tmp_path).dir)
    assert finetune(cfg, tmp_path).done


def test_a_run_outside_the_main_thread_has_no_signals_and_trains(mini, tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(pretrain(tiny_pretrain(mini, epochs=0.34), tmp_path)))
    thread.start()
    thread.join()
    assert found[0].done


# --- two states

def test_the_last_two_states_are_kept_and_a_damaged_one_falls_back(mini, tmp_path, monkeypatch, capsys):
    cfg = tiny_pretrain(mini, save_minutes=0.0)
    whole = train(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "update", nth(Loop.update, 5, before=lambda *_: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            pretrain(cfg, tmp_path)
    folder = locate(cfg, tmp_path).dir
    assert STATES < files(folder) and not [f for f in files(folder) if f.startswith(".tmp")]
    assert [read_state(folder / name, 99)["step"] for name in sorted(STATES, reverse=True)] == [4, 3]
    content = bytearray((folder / "state.pt").read_bytes())
    place = content.index(torch.load(folder / "state.pt", weights_only=True)["model"]["mask_token"].numpy().tobytes())
    content[place] ^= 1                                   # one bit of one weight: torch.load would not notice
    (folder / "state.pt").write_bytes(bytes(content))
    begun = []
    monkeypatch.setattr(Loop, "update", nth(Loop.update, 1, before=lambda loop, *_: begun.append(loop.step)))
    same(whole, pretrain(cfg, tmp_path))
    assert begun == [3]                                   # a run from the start would end in the same weights
    said = capsys.readouterr().err
    assert "state.pt of pretrain-" in said and "is damaged (wrong checksum" in said and "goes on from the state before" in said
    assert "state.damaged" in files(folder) and not STATES & files(folder)


def test_without_a_readable_state_a_run_starts_again_and_says_so(mini, tmp_path, capsys):
    cfg = tiny_pretrain(mini)
    run = locate(cfg, tmp_path)
    run.dir.mkdir()
    for name in STATES:
        (run.dir / name).write_bytes(b"not a state")
    assert pretrain(cfg, tmp_path).done
    assert "set aside as state.previous.damaged, the run starts again" in capsys.readouterr().err


def test_a_state_that_has_outlived_its_metrics_is_not_used(tmp_path):
    """As after a power cut, when one file reached the disk and the other did not."""
    (tmp_path / "metrics.jsonl").write_text("{}\n{}\n")
    save_state(tmp_path, {"step": 2, "log": 2})
    save_state(tmp_path, {"step": 5, "log": 5})
    said = []
    assert load_state(tmp_path, said.append)["step"] == 2 and "counts 5 lines of metrics.jsonl, which has 2" in said[0]


def test_states_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2, 3):
        save_state(tmp_path, {"step": step, "log": 0})
    assert files(tmp_path) == STATES and [read_state(tmp_path / n, 0)["step"] for n in sorted(STATES, reverse=True)] == [3, 2]


def test_the_state_of_another_model_is_a_sentence(mini, tmp_path):
    cfg = tiny_pretrain(mini)
    run = locate(cfg, tmp_path)
    run.dir.mkdir()
    save_state(run.dir, {"step": 1, "log": 0, "model": {"a": torch.zeros(1)}, "optimizer": {}})
    with pytest.raises(RunError, match="is of another model .*remove the folder"):
        pretrain(cfg, tmp_path)


# --- one process a run

def test_two_processes_on_one_run_are_kept_apart(mini, tmp_path):
    cfg = tiny_pretrain(mini, epochs=0.34)
    lock = Lock(locate(cfg, tmp_path).dir).take()
    with pytest.raises(RunError, match=rf"pretrain-\w+-\w+ is being trained by process {os.getpid()} on .* since .*: wait for it"):
        pretrain(cfg, tmp_path)
    assert Lock.holder(lock.path.parent).startswith(f"process {os.getpid()} ")
    lock.release()
    assert Lock.holder(lock.path.parent) is None and pretrain(cfg, tmp_path).done
    assert struck(update(cfg, seed=1), tmp_path, ("kill", 1)) == -9
    other = locate(update(cfg, seed=1), tmp_path)
    assert "lock" in files(other.dir) and Lock.holder(other.dir) is None      # the file outlives its process, the lock does not
    assert pretrain(update(cfg, seed=1), tmp_path).done and "lock" not in files(other.dir)


def test_a_file_system_without_locks_is_a_sentence(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr("s4d.training.state.fcntl.flock", fail)
    with pytest.raises(RunError, match="cannot lock .*lock: No locks available; choose a runs folder on a file system that has locks"):
        Lock(tmp_path).take()


# --- disks

def refuse(name: str, code: int, monkeypatch) -> None:
    original = os.replace

    def replace(source, target):
        if Path(target).name == name:
            raise OSError(code, os.strerror(code), str(target))
        original(source, target)
    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("name", ["config.json", "state.pt", "weights.safetensors", "provenance.json"])
@pytest.mark.parametrize("code, said", [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system"),
                                        (errno.EDQUOT, "Disk quota exceeded"), (errno.ESTALE, "Stale file handle")])
def test_a_folder_that_refuses_files_is_a_sentence_and_nothing_is_half_written(mini, tmp_path, monkeypatch, name, code, said):
    cfg = tiny_pretrain(mini, epochs=0.34, save_minutes=0.0)
    refuse(name, code, monkeypatch)
    with pytest.raises(RunError, match=f"cannot write .*{name}: {said}; free space or choose another runs folder, then call again"):
        pretrain(cfg, tmp_path)
    run = locate(cfg, tmp_path)
    assert not run.done and not [f for f in files(run.dir) if f.startswith(".tmp") or f == name]
    monkeypatch.undo()
    assert pretrain(cfg, tmp_path).done


@pytest.mark.parametrize("place, error", [("torch.save", OSError(errno.ENOSPC, "No space left on device")),
                                          ("torch.save", RuntimeError("[enforce fail] No space left on device")),
                                          ("s4d.training.runs.save_file", SafetensorError("I/O error: No space left on device"))])
def test_a_disk_that_fills_while_weights_are_written(mini, tmp_path, monkeypatch, place, error):
    def fill(content, file):
        file.write(b"half") if place == "torch.save" else Path(file).write_bytes(b"half")
        raise error
    monkeypatch.setattr(place, fill)
    cfg = tiny_pretrain(mini, epochs=0.34, save_minutes=0.0)
    with pytest.raises(RunError, match="cannot write .*No space left on device"):
        pretrain(cfg, tmp_path)
    assert files(locate(cfg, tmp_path).dir) <= {"config.json", "metrics.jsonl"} | STATES


def test_the_kernels_own_limit_leaves_the_last_state_intact(mini, tmp_path):
    """The state grows past a real limit on a file's size when the moments of the optimizer join it."""
    cfg = tiny_pretrain(mini, save_minutes=0.0)
    assert struck(cfg, tmp_path, ("kill", 3)) == -9
    run = locate(cfg, tmp_path)
    before = load_state(run.dir)["step"]
    assert struck(cfg, tmp_path, ("quota", 100_000)) == 1
    assert "cannot write" in (tmp_path / "said.txt").read_text() and "File too large" in (tmp_path / "said.txt").read_text()
    assert load_state(run.dir)["step"] == before == 2 and not [f for f in files(run.dir) if f.startswith(".tmp")]
    same(pretrain(cfg, tmp_path / "whole"), pretrain(cfg, tmp_path))


def test_a_mount_that_vanishes_is_a_sentence_and_nothing_is_written_beneath_it(mini, tmp_path, monkeypatch):
    cfg = tiny_pretrain(mini, save_minutes=0.0)
    folder = locate(cfg, tmp_path / "runs").dir
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "note", nth(Loop.note, 4, before=lambda *_: (tmp_path / "runs").rename(tmp_path / "away")))
        with pytest.raises(RunError, match="cannot write .*metrics.jsonl: No such file or directory; free space or restore the folder"):
            pretrain(cfg, tmp_path / "runs")
    assert not folder.exists()
    with pytest.raises(RunError, match="the folder is gone; mount or restore it"):
        save_state(folder, {})
    (tmp_path / "away").rename(tmp_path / "runs")
    assert load_state(folder)["step"] == 3
    same(pretrain(cfg, tmp_path / "runs"), pretrain(cfg, tmp_path / "whole"))


def test_a_runs_folder_that_cannot_be_made_is_a_sentence(mini, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match="cannot write .*lock: .*choose another runs folder"):
        pretrain(tiny_pretrain(mini), tmp_path / "runs")


def test_content_is_on_the_disk_before_the_name_that_shows_it(tmp_path, monkeypatch):
    """Otherwise a power cut leaves an empty file under the good one's name."""
    done, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.fstat(handle).st_ino) or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("renamed") or replace(*names))
    save_state(tmp_path, {"step": 1, "log": 0})
    assert done == [(tmp_path / "state.pt").stat().st_ino, "renamed", tmp_path.stat().st_ino]
    log = Log(tmp_path / "metrics.jsonl")
    log.add(step=0)
    done.clear()
    log.sync()
    assert done == [log.path.stat().st_ino]


def test_files_of_a_run_can_be_read_by_others(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "text")
    assert (tmp_path / "a" / "b.txt").stat().st_mode & 0o044 == 0o044
