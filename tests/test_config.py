"""Configurations: what they refuse, what names a run, and the vocabularies of labels."""
from __future__ import annotations

import dataclasses

import pytest

from s4d import config
from s4d.config import METHODS, ConfigError, Finetune, Pretrain, Source
from s4d.emotions import EMOTIONS_11, ORDERS, LabelError, by_index, canonical, vocabulary

PHOTOS, CLIPS = Source("affectnet", "data/affectnet"), Source("dfew", "data/dfew", 1)


@pytest.mark.parametrize("name", config.PROFILES)
def test_every_profile_survives_its_dictionary(name):
    profile = config.profile(name, data="d", runs="r")
    assert config.from_dict(config.to_dict(profile)) == profile and profile.runs == "r"
    for source in (profile.pretrain.image, profile.finetune.video):
        assert source.root.startswith("d/")
    assert {m for m, *_ in profile.methods_grid()} == set(METHODS)
    for method, pretrained, seed, cfg in profile.methods_grid():
        assert all(getattr(cfg, k) == v for k, v in METHODS[method].items()) and cfg.seed == seed
        assert cfg.init == (profile.pretrain if pretrained else None)
    names = {config.digest(cfg) for *_, cfg in profile.methods_grid()}
    runs = len(profile.methods) + len(profile.scratch_methods)
    assert len(names) == len(profile.seeds) * runs
    with pytest.raises(ConfigError, match="unknown profile 'x': choose one of smoke, sandbox, nig"):
        config.profile("x")


def test_the_papers_recipe_is_the_released_one():
    paper = config.profile("paper", data="d")
    p, f = paper.pretrain, paper.finetune
    assert (p.model, p.epochs, p.lr, p.betas) == (
        "s4d_mae_base_patch16_160", 100, 1.6e-3, (0.9, 0.95))
    assert (p.image_mask_ratio, p.video_mask_ratio, p.repeat_aug) == (0.9, 0.95, 4)
    assert (f.model, f.lr, f.layer_decay) == ("s4d_base_patch16_160", 1e-5, 0.75)
    assert (f.mixup, f.cutmix, f.label_smoothing) == (0.8, 1.0, 0.1)
    assert (f.num_experts, f.top_k, f.aux_loss_weight) == (8, 2, 1e-3)
    assert paper.faces is None and f.video == Source("dfew", "d/dfew", 1)


def test_the_digest_names_what_is_computed_and_not_how():
    cfg = Finetune(PHOTOS, CLIPS)
    name = config.digest(cfg)
    how = dict(num_workers=0, cache=True, save_minutes=1.0)
    moved = config.update(cfg, image=Source("affectnet", "/elsewhere"), **how)
    assert config.digest(moved) == name
    for change in (dict(lr=2e-5), dict(seed=1), dict(num_experts=0), dict(tasks=("video",)),
                   dict(video=Source("dfew", "data/dfew", 2)), dict(init=Pretrain(PHOTOS, None)),
                   dict(image=Source("affectnet", "data/affectnet", num_classes=8))):
        assert config.digest(config.update(cfg, **change)) != name, change
    assert config.digest(Pretrain(PHOTOS, None)) != config.digest(Pretrain(PHOTOS, None, seed=1))


def test_unknown_and_missing_keys_are_named():
    with pytest.raises(ConfigError, match="Finetune: unknown epoch, missing none; allowed are img"):
        config.update(Finetune(PHOTOS, CLIPS), epoch=3)
    values = config.to_dict(Pretrain(PHOTOS, CLIPS))
    path = {**values, "image": {**values["image"], "path": "x"}}
    for wrong, said in (({**values, "masks": 1}, "Pretrain: unknown masks, missing none"),
                        (path, "Source: unknown path, missing none; allowed are name, root"),
                        ({k: v for k, v in values.items() if k != "image"}, "none, missing image;"),
                        ({"kind": "Train"}, "unknown configuration kind 'Train'")):
        with pytest.raises(ConfigError, match=said):
            config.from_dict(wrong)


@pytest.mark.parametrize("cls, change, said", [
    (Pretrain, dict(epochs=0), "Pretrain.epochs is 0: expected a number above 0"),
    (Pretrain, dict(epochs="ten"), "Pretrain.epochs is 'ten'"),
    (Pretrain, dict(video_mask_ratio=1.0), "is 1.0: expected a number above 0 and below 1"),
    (Pretrain, dict(lr=float("nan")), "Pretrain.lr is nan"),
    (Finetune, dict(image_batch_size=0), "size is 0: expected a whole number from 1"),
    (Finetune, dict(image_batch_size=2.5), "size is 2.5: expected a whole number from 1"),
    (Finetune, dict(seed=True), "Finetune.seed is True"),
    (Finetune, dict(ema_decay=1.0), "is 1.0: expected a number from 0 to 0.99999"),
    (Finetune, dict(crop_scale=(0.5, 2.0)), "expected ascending numbers from 1e-06 to 1"),
    (Finetune, dict(crop_scale=(0.9, 0.5)), "crop_scale is"),
    (Finetune, dict(crop_scale=(0.1, 0.5, 0.9)), "crop_scale is"),
    (Finetune, dict(tasks=()), r"tasks is \(\)"),
    (Finetune, dict(tasks=("images",)), r"expected image \(photos\), video \(clips\) or both"),
    (Finetune, dict(num_experts=4, top_k=5), "top_k is 5: expected 1 to 4")])
def test_values_outside_their_range_are_refused(cls, change, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(cls(PHOTOS, CLIPS), **change)


def test_a_corpus_has_a_folder_of_its_own_and_bounds():
    assert config.Faces().folder != config.Faces(seed=1).folder != config.Faces(photos=40).folder
    for wrong in (dict(img_size=65), dict(intensity=(2, 1)), dict(intensity=(1, 3)), dict(fps=0)):
        with pytest.raises(ConfigError, match=f"Faces.{[*wrong][0]} is"):
            config.Faces(**wrong)


def test_vocabularies():
    assert [vocabulary(n) for n in (7, 8, 11)] == [EMOTIONS_11[:n] for n in (7, 8, 11)]
    assert len(set(EMOTIONS_11)) == 11
    for order in ORDERS.values():
        assert len(set(order)) == len(order) and set(order) <= set(EMOTIONS_11)
    with pytest.raises(LabelError, match="no vocabulary of 9 classes: choose 7, 8"):
        vocabulary(9)


def test_labels_have_one_name():
    assert canonical(" Happy ") == canonical("HAPPINESS", 7) == "happiness"
    assert canonical("Angry") == "anger"
    said = "unknown label 'contempt' in list.csv: expected one of neutral, .*anger$"
    with pytest.raises(LabelError, match=said):
        canonical("contempt", 7, "list.csv")
    assert by_index(0, "affectnet") == "neutral"
    assert (by_index(1, "dfew", base=1), by_index(7, "dfew", base=1)) == ("happiness", "fear")
    assert by_index(4, "rafdb", base=1) == "happiness" and by_index(1, ("a", "b")) == "b"
    for index in (-1, 8):
        said = f"unknown label {index} in l.csv: expected 0..7 for neutral"
        with pytest.raises(LabelError, match=said):
            by_index(index, "affectnet", where="l.csv")
    with pytest.raises(LabelError, match="expected 1..7"):
        by_index(0, "dfew", base=1)
