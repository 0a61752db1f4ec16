"""Several processes on one run: the gradients of one, each sample once, resume bit for bit."""
from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ranks
import torch
from conftest import tiny_finetune, tiny_pretrain
from faults import checkpoint, same
from safetensors.torch import load_file

from s4d.config import ConfigError, to_dict, update
from s4d.data.dataset import part_of
from s4d.training import Run, finetune, locate, train

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
    statuses, said = ranks.group(given, 2)
    assert statuses == [1, -15], said
    assert "was stopped by another process after step 2 of 8" in said
    run = locate(cfg, tmp_path / "two")
    assert checkpoint(run)["step"] == 2
    statuses, said = ranks.group({**given, "faults": []}, 2)
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
    statuses, said = ranks.group(whole, 2)
    assert statuses == [0, 0], said
    for cfg, how in zip(cfgs, ("kill", "defect"), strict=True):
        begun = time.monotonic()
        statuses, said = ranks.group({**parts, "faults": [(1, cfg.stage, 3, how)]}, 2)
        assert 0 not in statuses and time.monotonic() - begun < 60
        assert checkpoint(locate(cfg, tmp_path / "parts"))["step"] == 2
    assert "ValueError: a defect in one process" in said
    statuses, said = ranks.group(parts, 2)
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
