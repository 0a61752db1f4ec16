"""Configurations: what they refuse, what names a run, and the vocabularies of labels."""
from __future__ import annotations

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
    for method, pretrained, seed, cfg in profile.methods_grid():
        assert all(getattr(cfg, k) == v for k, v in METHODS[method].items()) and cfg.seed == seed
        assert cfg.init == (profile.pretrain if pretrained else None)
    names = {config.digest(cfg) for *_, cfg in profile.methods_grid()}
    runs = len(profile.methods) + len(profile.scratch_methods)
    assert len(names) == len(profile.seeds) * runs
    with pytest.raises(ConfigError, match="unknown profile 'x': choose one of smoke, sandbox, nig"):
        config.profile("x")


def test_the_digest_names_what_is_computed_and_not_how():
    """Run folders of earlier trainings are found by these names."""
    sandbox = config.profile("sandbox", data="anywhere")
    digests = [config.digest(c) for c in (sandbox.faces, sandbox.pretrain, sandbox.finetune)]
    assert digests == ["0d4632f8a0", "74b754e3f6", "33ade58704"]
    cfg = Finetune(PHOTOS, CLIPS)
    how = dict(num_workers=0, cache=True, save_minutes=1.0)
    moved = config.update(cfg, image=Source("affectnet", "/elsewhere"), **how)
    assert config.digest(moved) == config.digest(cfg)
    for change in (dict(lr=2e-5), dict(tasks=("video",)), dict(init=Pretrain(PHOTOS, None)),
                   dict(video=Source("dfew", "data/dfew", 2))):
        assert config.digest(config.update(cfg, **change)) != config.digest(cfg), change
    assert config.Faces().folder != config.Faces(seed=1).folder != config.Faces(photos=40).folder


def test_unknown_and_missing_keys_are_named():
    values = config.to_dict(Pretrain(PHOTOS, CLIPS))
    path = {**values, "image": {**values["image"], "path": "x"}}
    for wrong, said in (({**values, "masks": 1}, "Pretrain.* unexpected .* 'masks'"),
                        (path, "Source.* unexpected .* 'path'"),
                        ({k: v for k, v in values.items() if k != "image"}, "missing .* 'image'"),
                        ({"kind": "Train"}, "configuration of kind 'Train'")):
        with pytest.raises(ConfigError, match=said):
            config.from_dict(wrong)


@pytest.mark.parametrize("cfg, change, said", [
    (Pretrain(PHOTOS, CLIPS), dict(epochs=0), "Pretrain.epochs is 0: expected float from 1e-06"),
    (Pretrain(PHOTOS, CLIPS), dict(video_mask_ratio=1.0), "is 1.0: .* from 0.01 to 0.99"),
    (Pretrain(PHOTOS, CLIPS), dict(lr=float("nan")), "Pretrain.lr is nan"),
    (Finetune(PHOTOS, CLIPS), dict(image_batch_size=2.5), "size is 2.5: expected int from 1"),
    (Finetune(PHOTOS, CLIPS), dict(crop_scale=(0.5, 2.0)), "crop_scale is .* from 1e-06 to 1"),
    (Finetune(PHOTOS, CLIPS), dict(crop_scale=(0.9, 0.5)), "crop_scale is"),
    (config.Faces(), dict(img_size=65), "Faces.img_size is 65: expected an even number")])
def test_values_that_are_not_allowed_are_refused(cfg, change, said):
    with pytest.raises(ConfigError, match=said):
        config.update(cfg, **change)


def test_labels_have_one_name_and_each_list_its_order():
    assert [vocabulary(n) for n in (7, 8, 11)] == [EMOTIONS_11[:n] for n in (7, 8, 11)]
    for order in ORDERS.values():
        assert len(set(order)) == len(order) and set(order) <= set(EMOTIONS_11)
    assert canonical(" Happy ") == canonical("HAPPINESS", 7) == "happiness"
    assert by_index(0, "affectnet") == "neutral"
    assert (by_index(1, "dfew", base=1), by_index(7, "dfew", base=1)) == ("happiness", "fear")
    assert by_index(4, "rafdb", base=1) == "happiness"
    for call, said in (
            (lambda: vocabulary(9), "no vocabulary of 9 classes: choose 7, 8"),
            (lambda: canonical("contempt", 7, "l.csv"), "'contempt' in l.csv: .*neutral, .*anger$"),
            (lambda: by_index(8, "affectnet", where="l.csv"), "label 8 in l.csv: expected 0..7"),
            (lambda: by_index(0, "dfew", base=1), "expected 1..7")):
        with pytest.raises(LabelError, match=said):
            call()
