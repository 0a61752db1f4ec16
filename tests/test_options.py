"""Every field of a configuration reaches what it is for: one that is silently off would leave weights or predictions as they were."""
from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_finetune, tiny_pretrain, write_mini, write_video
from safetensors.torch import load_file

from s4d.config import HOW, Finetune, Pretrain, update
from s4d.data.dataset import Key
from s4d.training import Run, finetune, pretrain

stage_pretrain, stage_finetune = (sys.modules[f"s4d.training.{stage}"] for stage in ("pretrain", "finetune"))

BOTH = dict(img_size=48, num_frames=2, sampling_rate=2, epochs=1, warmup_ratio=0.6, weight_decay=1.0, seed=1, betas=(0.5, 0.6), crop_scale=(0.3, 0.4), lr=3e-3)
PRETRAIN = dict(BOTH, image_mask_ratio=0.25, video_mask_ratio=0.5, image_batch_size=3, video_batch_size=2, repeat_aug=1, video_epoch_fraction=0.5)
FINETUNE = dict(BOTH, tasks=("video",), num_experts=4, top_k=1, moae_start=0, adapter_reduction=8, router_noise=False, capacity_factor=0.5, image_fraction=0.5,
                video_fraction=0.5, image_batch_size=3, video_batch_size=3, image_epoch_fraction=0.5, balanced_sampling=False, min_lr=1.0, layer_decay=0.5, drop_path_rate=0.5,
                aux_loss_weight=1.0, mixup=0.0, cutmix=0.0, label_smoothing=0.5, randaugment="", image_randaugment="", random_erasing=1.0, clip_grad=1e-3,
                ema_decay=0.5, grad_accum_steps=2)
TESTED = dict(test_segments=2, test_crops=2)                        # these change predictions, not weights
# Fields with tests of their own: data, start and model (test_training.py, test_layouts.py), what happens to bad samples and numbers, equal
# pieces (test_ranks.py), what is held out and watched (test_protocol.py), bf16.
ELSEWHERE = {"image", "video", "init", "model", "amp", "max_unreadable", "skip_nonfinite", "val_fraction", "test_each_epoch"} | HOW


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """The datasets in miniature, with clips wider than high, so that crops differ."""
    root = write_mini(tmp_path_factory.mktemp("wide"))
    for i, path in enumerate(sorted(root.rglob("*.mp4"))):
        write_video(path, i, 6, 96, 64)
    return root


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.dir / "weights.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a)


def test_no_field_is_left_out():
    for cls, tried in ((Pretrain, {*PRETRAIN, "grad_accum_steps"}), (Finetune, {*FINETUNE, *TESTED})):
        assert {f.name for f in dataclasses.fields(cls)} == tried | ELSEWHERE & {f.name for f in dataclasses.fields(cls)}


def test_every_option_of_pretraining_changes_the_weights(wide, tmp_path):
    cfg = tiny_pretrain(wide, epochs=0.67)
    first = pretrain(cfg, tmp_path)
    assert set(first.metrics().modality) == {"image", "video"} and equal(weights(first), weights(pretrain(cfg, tmp_path / "again")))
    for name, value in PRETRAIN.items():
        assert not equal(weights(first), weights(pretrain(update(cfg, **{name: value}), tmp_path))), name
    for name, value in (("crop_box", (0, 0, 48, 48)), ("short_side", 64)):
        for task in ("image", "video"):
            source = update(getattr(cfg, task), **{name: value})
            assert not equal(weights(first), weights(pretrain(update(cfg, **{task: source}), tmp_path))), (task, name)


def test_every_option_of_finetuning_changes_the_weights(wide, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_finetune, "validate", lambda cfg, *_: dict.fromkeys((f"{t}_{m}" for t in cfg.tasks for m in ("war", "uar")), 0.0))
    monkeypatch.setattr(stage_finetune, "test", lambda *_: (pd.DataFrame({"path": []}), {}))
    cfg = tiny_finetune(wide, epochs=0.67)
    first = finetune(cfg, tmp_path)
    assert {"image", "video"} < set(first.metrics().modality) and equal(weights(first), weights(finetune(cfg, tmp_path / "again")))
    for name, value in FINETUNE.items():
        assert not equal(weights(first), weights(finetune(update(cfg, **{name: value}), tmp_path))), name
    for name, value in (("crop_box", (0, 0, 48, 48)), ("short_side", 64)):
        source = update(cfg.video, **{name: value})
        assert not equal(weights(first), weights(finetune(update(cfg, video=source), tmp_path))), name


def test_views_change_predictions_alone(wide, tmp_path):
    cfg = tiny_finetune(wide, epochs=0.34, tasks=("video",))
    first = finetune(cfg, tmp_path)
    for name, value in TESTED.items():
        run = finetune(update(cfg, **{name: value}), tmp_path)
        apart = [np.abs(a - b).max() for a, b in ((r.query("task == 'video'").filter(like="prob_").to_numpy() for r in pair)
                                                  for pair in [(first.predictions(), run.predictions())])]
        assert equal(weights(first), weights(run)) and apart[0] > 1e-5, name


def test_photos_are_mirrored_in_pretraining_and_clips_are_not(wide):
    cfg = tiny_pretrain(wide, crop_scale=(1.0, 1.0), repeat_aug=1)
    for task, data in stage_pretrain.parts(cfg, stage_pretrain.tables(cfg)).items():
        draws = torch.stack([data[Key(task, 0, seed)]["clip"][0, 0] for seed in range(16)])
        mirrored = [not torch.equal(d, draws[0]) for d in draws] if task == "image" else [torch.equal(d, draws[0].flip(-1)) for d in draws]
        assert any(mirrored) == (task == "image")
