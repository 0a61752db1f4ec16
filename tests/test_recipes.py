"""The recipes of the paper, and the epochs whose predictions are kept."""
from __future__ import annotations

import pytest
from conftest import tiny_finetune

from s4d import config
from s4d.config import Source
from s4d.training import finetune

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
    assert config.digest(pre) == config.digest(config.profile("paper").pretrain)   # one for all


def test_the_test_split_after_each_epoch_changes_nothing(mini, tmp_path):
    plain = finetune(tiny_finetune(mini, epochs=2), tmp_path)
    watched = finetune(tiny_finetune(mini, epochs=2, test_each_epoch=True), tmp_path)
    for name in ("weights.safetensors", "predictions.csv"):
        assert (watched.dir / name).read_bytes() == (plain.dir / name).read_bytes()
    rows = watched.metrics()
    assert rows.modality.value_counts()[["test", "val"]].tolist() == [2, 2]
    chosen = rows[rows.modality == "val"].reset_index()[["image_war", "video_war"]].mean(1).idxmax()
    tested = watched.predictions().query("split == 'test' and task == 'video'")
    war = (tested.label == tested.predicted).mean()
    assert rows[rows.modality == "test"].video_war.iloc[chosen] == pytest.approx(war, abs=1e-5)
