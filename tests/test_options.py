"""Every field of a configuration reaches what it is for, and changes weights or predictions."""
from __future__ import annotations

import dataclasses
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_finetune, tiny_pretrain, write_video

from s4d.config import HOW, update
from s4d.data.dataset import Key
from s4d.training import Run, finetune, pretrain, samples_of, tables

BOTH = dict(img_size=48, num_frames=2, sampling_rate=2, epochs=1, warmup_ratio=0.6, lr=3e-3,
            weight_decay=1.0, seed=1, betas=(0.5, 0.6), crop_scale=(0.3, 0.4), amp=False)
PRETRAIN = dict(BOTH, image_mask_ratio=0.25, video_mask_ratio=0.5, image_batch_size=3,
                video_batch_size=2, repeat_aug=1, video_epoch_fraction=0.5)
FINETUNE = dict(BOTH, tasks=("video",), num_experts=4, top_k=1, moae_start=0, adapter_reduction=8,
                router_noise=False, capacity_factor=0.5, image_fraction=0.5, video_fraction=0.5,
                image_batch_size=3, video_batch_size=3, image_epoch_fraction=0.5,
                balanced_sampling=False, min_lr=1.0, layer_decay=0.5, drop_path_rate=0.5,
                aux_loss_weight=1.0, mixup=0.0, cutmix=0.0, label_smoothing=0.5, randaugment="",
                image_randaugment="", random_erasing=1.0, clip_grad=1e-3, ema_decay=0.5,
                grad_accum_steps=2)
VIEWS = dict(test_segments=2, test_crops=2)                  # these change predictions, not weights
ELSEWHERE = {"image", "video", "init", "model", "max_unreadable", "skip_nonfinite",
             "val_fraction", "test_each_epoch", "grad_accum_steps"} | HOW   # have their own tests


@pytest.fixture(scope="module")
def wide(mini, tmp_path_factory):
    """The datasets in miniature, with clips wider than high, so that crops differ."""
    root = shutil.copytree(mini, tmp_path_factory.mktemp("wide") / "data")
    for i, path in enumerate(sorted(root.rglob("*.mp4"))):
        write_video(path, i, 6, 96, 64)
    return root


def weights(run: Run) -> bytes:
    return (run.dir / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("train, tiny, tasks, options", [
    (pretrain, tiny_pretrain, ("image", "video"), PRETRAIN),
    (finetune, tiny_finetune, ("video",), FINETUNE)])
def test_every_option_changes_the_weights(train, tiny, tasks, options, wide, tmp_path, monkeypatch):
    stage, cfg = sys.modules[finetune.__module__], tiny(wide, epochs=0.67)
    names = {f.name for f in dataclasses.fields(cfg)}
    assert names == {*options, *(VIEWS if train is finetune else ())} | ELSEWHERE & names
    monkeypatch.setattr(stage, "scores_of", lambda cfg, *_: dict.fromkeys(
        (f"{t}_{m}" for t in cfg.tasks for m in ("war", "uar")), 0.0))
    monkeypatch.setattr(stage, "predict_all", lambda *_, **__: (pd.DataFrame({"path": []}), {}))
    changed = {name: update(cfg, **{name: value}) for name, value in options.items()}
    for task in tasks:
        for name, value in (("crop_box", (0, 0, 48, 48)), ("short_side", 64)):
            source = update(getattr(cfg, task), **{name: value})
            changed[task, name] = update(cfg, **{task: source})
    first = train(cfg, tmp_path)
    assert {"image", "video"} <= set(first.metrics().modality)
    assert weights(first) == weights(train(cfg, tmp_path / "again"))
    assert not [n for n, c in changed.items() if weights(train(c, tmp_path)) == weights(first)]


def test_views_change_predictions_alone(wide, tmp_path):
    cfg = tiny_finetune(wide, epochs=0.34, tasks=("video",))
    first = finetune(cfg, tmp_path)
    for name, value in VIEWS.items():
        run = finetune(update(cfg, **{name: value}), tmp_path)
        before, after = (r.predictions().filter(like="prob_").to_numpy() for r in (first, run))
        assert weights(run) == weights(first) and np.abs(before - after).max() > 1e-5, name


def test_photos_are_mirrored_in_pretraining_and_clips_are_not(wide):
    cfg = tiny_pretrain(wide, crop_scale=(1.0, 1.0), repeat_aug=1)
    for task, table in tables(cfg).items():
        data = samples_of(cfg, task, table, "train")
        draws = torch.stack([data[Key(task, 0, seed)]["clip"][0, 0] for seed in range(16)])
        assert any(torch.equal(d, draws[0].flip(-1)) for d in draws) == (task == "image")
