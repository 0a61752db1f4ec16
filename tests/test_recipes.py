"""The recipes of the paper, and the epochs whose weights are kept."""
from __future__ import annotations

import sys

import pandas as pd
import pytest
from conftest import tiny_finetune

from s4d import config
from s4d.config import Source
from s4d.emotions import EMOTIONS
from s4d.training import Run, finetune


def test_three_ways_of_choosing_an_epoch_are_kept_and_change_nothing(mini, tmp_path):
    plain = finetune(tiny_finetune(mini, epochs=2), tmp_path)
    watched = finetune(tiny_finetune(mini, epochs=2, test_each_epoch=True), tmp_path)
    assert watched.dir != plain.dir and (watched.dir / "weights.safetensors").read_bytes() == (plain.dir / "weights.safetensors").read_bytes()
    assert (watched.dir / "predictions.csv").read_bytes() == (plain.dir / "predictions.csv").read_bytes()
    metrics = watched.metrics()
    on_test = metrics[metrics.modality == "test"]
    tables = {name: pd.read_csv(watched.dir / f"predictions_{name}.csv").query("split == 'test'") for name in ("last", "best_test")}
    for task in ("image", "video"):
        war = {name: (t[t.task == task].label == t[t.task == task].predicted).mean() for name, t in tables.items()}
        assert war["last"] == pytest.approx(on_test[f"{task}_war"].iloc[-1], abs=1e-5)
        assert war["best_test"] == pytest.approx(on_test[f"{task}_war"].max(), abs=1e-5) and len(on_test) == 2
    assert not (plain.dir / "predictions_last.csv").exists()


@pytest.mark.parametrize("name, clips, classes, stride", [("paper", "dfew", (7, 7), 4), ("paper-ferv39k", "ferv39k", (7, 7), 1),
                                                          ("paper-mafw", "mafw", (8, 11), 4)])
def test_recipes_of_the_paper_are_those_released(name, clips, classes, stride):
    found = config.profile(name, data="d")
    fine, pre = found.finetune, found.pretrain
    assert fine.video == Source(clips, f"d/{clips}", None if clips == "ferv39k" else 1, classes[1]) and fine.image.num_classes == classes[0]
    assert (fine.sampling_rate, fine.num_frames, fine.img_size, fine.epochs, fine.warmup_ratio, fine.layer_decay) == (stride, 16, 160, 100, 0.05, 0.75)
    assert (fine.video_batch_size, fine.image_batch_size, fine.lr, fine.min_lr, fine.image_epoch_fraction, fine.balanced_sampling) == (16, 32, 1e-5, 1e-6, 0.5, True)
    assert (fine.mixup, fine.cutmix, fine.label_smoothing, fine.randaugment, fine.random_erasing) == (0.8, 1.0, 0.1, "m7-n4", 0.25)
    assert fine.image_randaugment == "m9-n4" and config.profile("gpu").finetune.image_randaugment is None
    assert (fine.test_segments, fine.test_crops, fine.num_experts, fine.top_k, fine.aux_loss_weight) == (2, 2, 8, 2, 1e-3)
    assert (pre.image_mask_ratio, pre.video_mask_ratio, pre.repeat_aug, pre.video_epoch_fraction, pre.lr, pre.betas) == (0.9, 0.95, 4, 0.25, 1.6e-3, (0.9, 0.95))
    assert pre.crop_scale == (0.2, 1.0) and pre.video.crop_box == (0, 32, 160, 160) and pre.video.short_side == 192 and pre.image.crop_box is None
    assert config.from_dict(config.to_dict(found)) == found
    assert config.digest(pre) == config.digest(config.profile("paper").pretrain)      # one pre-training serves all three


def test_the_epoch_best_on_test_is_kept_by_task(mini, tmp_path, monkeypatch):
    stage = sys.modules[finetune.__module__]
    right = {"image": iter((1, 5, 3)), "video": iter((6, 2, 4))}      # correct ones of seven, epoch by epoch

    def tested(*_):
        parts = [pd.DataFrame({"path": list("abcdefg"), "task": task, "split": "test", "subject": None, "label": EMOTIONS,
                               "predicted": [e if i < n else "none" for i, e in enumerate(EMOTIONS)]})
                 for task, n in ((t, next(v)) for t, v in right.items())]
        return pd.concat(parts, ignore_index=True), {}
    monkeypatch.setattr(stage, "test", tested)
    best, run = {}, Run(tmp_path)
    scores = [stage.test_epoch(tiny_finetune(mini), None, {}, None, run, best)["image_war"] for _ in range(3)]
    of = lambda name, task: (lambda t: int((t.label == t.predicted).sum()))(pd.read_csv(tmp_path / name).query("task == @task"))
    assert (of("predictions_best_test.csv", "image"), of("predictions_best_test.csv", "video")) == (5, 6)
    assert (of("predictions_last.csv", "image"), of("predictions_last.csv", "video")) == (3, 4)
    assert scores == pytest.approx([1 / 7, 5 / 7, 3 / 7], abs=1e-5)
