"""A run that is cut, or shared by several processes, ends where one left alone does."""
import errno
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_finetune, tiny_pretrain
from faults import CONTEXT, checkpoint, group, lost, nth, same, struck
from safetensors.torch import load_file

from s4d.config import ConfigError, to_dict, update
from s4d.data.dataset import part_of
from s4d.files import OutputError
from s4d.training import Run, RunError, finetune, locate, pretrain, train
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
        guard.idle_since["blocks.1.moae 0"] = -600
        engine.started -= 1e6
        engine.waiting += 1e5
    interrupted(cfg, tmp_path, 2, before=fill)
    idle = []
    look = nth(Engine.update, 1, before=lambda e, *_: idle.append(dict(e.guard.idle_since)))
    monkeypatch.setattr(Engine, "update", look)
    found = finetune(cfg, tmp_path).provenance
    assert idle[0]["blocks.1.moae 0"] == -600
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


# --- several processes: the gradients of one, each sample once, resume bit for bit

# Processes and pieces add the same numbers in another order. AdamW divides a gradient by its size,
# so rounding near zero moves a weight by a share of the learning rate (1e-3): 1.2e-5 was measured.
# A sample counted twice moves them by more than 1e-4.
WEIGHTS, LOSS = 3e-5, 3e-6
# Nothing random in the model, so that processes and pieces draw nothing of their own.
STILL = dict(router_noise=False, drop_path_rate=0.0, mixup=0.0, cutmix=0.0, aux_loss_weight=0.0,
             amp=False)


def job(folder: Path, name: str, configs: list, *faults: tuple, **more) -> dict:
    return {"runs": str(folder / name), "said": str(folder / f"{name}.txt"),
            "configs": [to_dict(c) for c in configs], "faults": list(faults), **more}


def close(a: Run, b: Run) -> None:
    """Losses, scores, predictions and weights equal up to the order of sums."""
    left, right = (load_file(run.dir / "weights.safetensors") for run in (a, b))
    assert max((left[k] - right[k]).abs().max().item() for k in left) < WEIGHTS
    one, two = a.metrics(), b.metrics()
    assert np.allclose(one.pop("loss"), two.pop("loss"), atol=LOSS, equal_nan=True)
    assert one.equals(two)
    if (a.dir / "predictions.csv").exists():
        p, q = a.predictions(), b.predictions()
        assert (p.path == q.path).all() and p.predicted.equals(q.predicted)
        assert np.allclose(p.filter(like="prob_"), q.filter(like="prob_"), atol=1e-5,
                           equal_nan=True)


def test_two_processes_have_the_gradients_of_one_and_evaluate_as_one(mini, tmp_path):
    """With unreadable files; and a signal to one of them stops both between two steps."""
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    for path in ("affectnet/train/fear/001.jpg", "dfew/Clip/original/00015.mp4",
                 "dfew/Clip/original/00020.mp4"):
        (root / path).write_bytes(b"")
    cfg = tiny_finetune(root, image_batch_size=3, video_batch_size=3, balanced_sampling=False,
                        epochs=2, max_unreadable=0.5, test_segments=2, ema_decay=0.5, **STILL)
    given = job(tmp_path, "two", [cfg], (1, "finetune", 2, "term"), batch_size=3)
    statuses, said = group(given, 2)
    assert statuses == [1, -15], said
    assert "was stopped by another process after step 2 of 8" in said
    run = locate(cfg, tmp_path / "two")
    assert checkpoint(run)["step"] == 2
    statuses, said = group({**given, "faults": []}, 2)
    assert statuses == [0, 0], said
    assert set(re.findall(r"process (\d) wrote", said)) == {"0"}
    one = finetune(cfg, tmp_path / "one")
    close(one, run)
    assert run.provenance["processes"] == 2 and len(run.provenance["missing_in_test"]) == 2
    assert run.provenance["unreadable"] == one.provenance["unreadable"] != {}


def test_two_processes_resume_bit_for_bit_when_one_dies(mini, tmp_path):
    """Everything random is on: masks, MixUp, router noise, stochastic depth."""
    cfgs = [tiny_pretrain(mini, image_batch_size=7, video_batch_size=2, save_minutes=0.0),
            tiny_finetune(mini, image_batch_size=3, video_batch_size=3, save_minutes=0.0)]
    whole, parts = job(tmp_path, "whole", cfgs), job(tmp_path, "parts", cfgs)
    statuses, said = group(whole, 2)
    assert statuses == [0, 0], said
    for cfg, how in zip(cfgs, ("kill", "defect"), strict=True):
        begun = time.monotonic()
        statuses, said = group({**parts, "faults": [(1, cfg.stage, 3, how)]}, 2)
        assert 0 not in statuses and time.monotonic() - begun < 60
        assert checkpoint(locate(cfg, tmp_path / "parts"))["step"] == 2
    assert "ValueError: a defect in one process" in said
    statuses, said = group(parts, 2)
    assert statuses == [0, 0], said
    for cfg in cfgs:
        same(locate(cfg, tmp_path / "whole"), locate(cfg, tmp_path / "parts"))


# --- pieces: the same cutting without processes

@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_pieces_of_a_batch_equal_the_batch(mini, tmp_path, stage):
    sizes = dict(image_batch_size=5, video_batch_size=3)
    cfg = (tiny_pretrain(mini, **sizes, amp=False) if stage == "pretrain"
           else tiny_finetune(mini, **sizes, **STILL))
    whole, pieces = train(cfg, tmp_path), train(update(cfg, grad_accum_steps=3), tmp_path)
    assert whole.dir != pieces.dir
    close(whole, pieces)


def test_recomputed_activations_change_no_bit(mini, tmp_path, monkeypatch):
    """Drawn again in the backward pass, noise and stochastic depth are what they were."""
    cfg, calls = tiny_finetune(mini, drop_path_rate=0.3, grad_accum_steps=2), []
    whole, block = finetune(cfg, tmp_path / "a"), sys.modules["s4d.models.vit"].checkpoint
    monkeypatch.setattr("s4d.models.vit.checkpoint",
                        lambda *a, **k: calls.append(1) or block(*a, **k))
    again = finetune(update(cfg, grad_checkpointing=True), tmp_path / "b")
    assert calls and again.dir.name == whole.dir.name     # how a run is carried out: not its name
    same(whole, again)


def test_the_idle_head_is_left_alone(mini, tmp_path):
    """AdamW would decay it in a step that is not its own."""
    run = finetune(tiny_finetune(mini, tasks=("video",)), tmp_path)
    torch.manual_seed(run.config.seed)
    start = sys.modules["s4d.training.finetune"].start_model(run.config, tmp_path)
    assert torch.equal(start.head["image"].weight, run.load().head["image"].weight)


# --- who reads what

def test_shares_of_a_batch_are_contiguous_complete_and_equal_in_size():
    batches = [list(range(10, 17)), list(range(8))]
    for world in (1, 2, 3, 4, 7):
        for i, batch in enumerate(batches):
            shares = [part_of(batches, r, world)[i] for r in range(world)]
            assert [k for s in shares for k in s] == batch
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("changes, said", [
    (dict(grad_accum_steps=3), "batch of 2 samples cannot be cut for 1 processes with grad"),
    (dict(capacity_factor=1.0, grad_accum_steps=2), "capacity_factor counts the tokens of a whol")])
def test_a_batch_that_cannot_be_cut_is_a_sentence(mini, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        finetune(tiny_finetune(mini, **changes), tmp_path)
