"""The recipes of the paper, and the epochs whose predictions are kept."""
from __future__ import annotations

import sys

import pandas as pd
import pytest
from conftest import tiny_finetune

from s4d import config
from s4d.config import Source
from s4d.emotions import EMOTIONS
from s4d.training import Run, finetune

FINETUNE = dict(
    num_frames=16, img_size=160, epochs=100, warmup_ratio=0.05, layer_decay=0.75,
    video_batch_size=16, image_batch_size=32, lr=1e-5, min_lr=1e-6, image_epoch_fraction=0.5,
    balanced_sampling=True, mixup=0.8, cutmix=1.0, label_smoothing=0.1, randaugment="m7-n4",
    image_randaugment="m9-n4", random_erasing=0.25, test_segments=2, test_crops=2, num_experts=8,
    top_k=2, aux_loss_weight=1e-3)
PRETRAIN = dict(
    image_mask_ratio=0.9, video_mask_ratio=0.95, repeat_aug=4, video_epoch_fraction=0.25,
    lr=1.6e-3, betas=(0.9, 0.95), crop_scale=(0.2, 1.0))


@pytest.mark.parametrize("name, clips, classes, rate", [
    ("paper", "dfew", (7, 7), 4), ("paper-ferv39k", "ferv39k", (7, 7), 1),
    ("paper-mafw", "mafw", (8, 11), 4)])
def test_recipes_of_the_paper_are_those_released(name, clips, classes, rate):
    found = config.profile(name, data="d")
    fine, pre = found.finetune, found.pretrain
    fold = None if clips == "ferv39k" else 1
    assert fine.video == Source(clips, f"d/{clips}", fold, classes[1])
    assert (fine.image.num_classes, fine.sampling_rate) == (classes[0], rate)
    assert {k: getattr(fine, k) for k in FINETUNE} == FINETUNE
    assert {k: getattr(pre, k) for k in PRETRAIN} == PRETRAIN
    assert pre.video.crop_box == (0, 32, 160, 160) and pre.video.short_side == 192
    assert pre.image.crop_box is None
    assert config.profile("gpu").finetune.image_randaugment is None
    assert config.from_dict(config.to_dict(found)) == found
    assert config.digest(pre) == config.digest(config.profile("paper").pretrain)   # one for all


def test_three_ways_of_choosing_an_epoch_are_kept_and_change_nothing(mini, tmp_path):
    plain = finetune(tiny_finetune(mini, epochs=2), tmp_path)
    watched = finetune(tiny_finetune(mini, epochs=2, test_each_epoch=True), tmp_path)
    assert watched.dir != plain.dir and not (plain.dir / "predictions_last.csv").exists()
    for name in ("weights.safetensors", "predictions.csv"):
        assert (watched.dir / name).read_bytes() == (plain.dir / name).read_bytes()
    on_test = watched.metrics().query("modality == 'test'")
    assert len(on_test) == 2
    for task in ("image", "video"):
        war = {}
        for name in ("last", "best_test"):
            rows = pd.read_csv(watched.dir / f"predictions_{name}.csv")
            rows = rows[(rows.split == "test") & (rows.task == task)]
            war[name] = (rows.label == rows.predicted).mean()
        assert war["last"] == pytest.approx(on_test[f"{task}_war"].iloc[-1], abs=1e-5)
        assert war["best_test"] == pytest.approx(on_test[f"{task}_war"].max(), abs=1e-5)


def test_the_epoch_best_on_test_is_kept_by_task(mini, tmp_path):
    stage, run = sys.modules[finetune.__module__], Run(tmp_path)
    right = {"image": iter((1, 5, 3)), "video": iter((6, 2, 4))}     # of seven, epoch by epoch

    def tested() -> pd.DataFrame:
        parts = []
        for task, counts in right.items():
            n = next(counts)
            predicted = [e if i < n else "none" for i, e in enumerate(EMOTIONS)]
            parts.append(pd.DataFrame(dict(path=list("abcdefg"), task=task, split="test",
                                           subject=None, label=EMOTIONS, predicted=predicted)))
        return pd.concat(parts, ignore_index=True)
    cfg, best = tiny_finetune(mini), {}
    for _ in range(3):
        last = tested()
        best = stage.keep_best_on_test(cfg, run, last, stage.scores_of(cfg, last), best)
    assert best == pytest.approx({"image": 5 / 7, "video": 6 / 7}, abs=1e-5)
    for name, counts in (("best_test", [5, 6]), ("last", [3, 4])):
        rows = pd.read_csv(tmp_path / f"predictions_{name}.csv")
        hits = (rows.label == rows.predicted).groupby(rows.task).sum()
        assert hits[["image", "video"]].tolist() == counts
