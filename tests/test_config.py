"""Configurations: what they refuse and name, recipes, ablations, and what each field changes."""
import dataclasses
import shutil
import sys
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_finetune, tiny_pretrain, write_video

from s4d import config, reproduce
from s4d import config as configs
from s4d.config import HOW, METHODS, ConfigError, Finetune, Pretrain, Source, update
from s4d.data.dataset import Key, draw_order
from s4d.emotions import EMOTIONS_11, ORDERS, LabelError, by_index, canonical, vocabulary
from s4d.models.moae import MoAE
from s4d.study import ablations
from s4d.training import Run, finetune, pretrain, samples_of, tables

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
    (config.Faces(), dict(photo_subjects=0), "photo_subjects is 0: .* from 3"),
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


# --- the recipes of the paper

FINE = dict(
    num_frames=16, img_size=160, epochs=100, warmup_ratio=0.05, layer_decay=0.75,
    video_batch_size=16, image_batch_size=32, lr=1e-5, min_lr=1e-6, image_epoch_fraction=0.5,
    balanced_sampling=True, mixup=0.8, cutmix=1.0, label_smoothing=0.1, randaugment="m7-n4",
    image_randaugment="m9-n4", random_erasing=0.25, test_segments=2, test_crops=2, num_experts=8,
    top_k=2, aux_loss_weight=1e-3)
PRE = dict(
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
    assert {k: getattr(fine, k) for k in FINE} == FINE
    assert {k: getattr(pre, k) for k in PRE} == PRE
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


# --- ablations

CHANGES = {"start": {"init"}, "experts": {"num_experts", "top_k"}, "blocks": {"moae_start"},
           "gap": {"image", "video", "init"}}


def test_a_trial_differs_only_in_what_its_study_names():
    prof = configs.profile("gpu")
    grid = {(m, s): cfg for m, pretrained, s, cfg in prof.methods_grid() if pretrained}
    default = {name: ablations.default_of(prof, name) for name in ablations.STUDIES}
    for trial in ablations.trials(prof):
        base, cfg = grid[trial.method, trial.seed], trial.config
        different = {f.name for f in fields(base) if getattr(base, f.name) != getattr(cfg, f.name)}
        assert different <= CHANGES.get(trial.study, {ablations.STUDIES[trial.study].field})
        assert bool(different) == (trial.value != default[trial.study])


def test_each_run_that_a_profile_declares_is_trained_once_on_its_own_corpus():
    prof, gaps = configs.profile("night"), [.2, 0, .5, 1]
    every = reproduce.configurations(prof)
    assert {t.config for t in ablations.trials(prof)} <= set(every)
    assert len(every) == len(set(every))
    assert [f.gap for f in ablations.corpora(prof)] == gaps
    other = [c for c in every if isinstance(c, configs.Finetune) and c.tasks == ("video",)
             and c.init and c.video.root != prof.finetune.video.root]
    assert len({c.video.root for c in other}) == len(gaps) - 1
    assert all(c.init.video.root == c.video.root for c in other if c.init.video.name == "dfew")


def test_a_night_finds_the_runs_of_the_sandbox():
    night, sandbox = ({configs.digest(c) for c in reproduce.configurations(configs.profile(name))}
                      for name in ("night", "sandbox"))
    assert sandbox < night


def test_adapters_without_routing_are_the_mean_of_all():
    torch.manual_seed(0)
    layer, x = MoAE(32, num_experts=4, top_k=0), torch.randn(2, 5, 32)
    torch.nn.init.normal_(layer.w2)
    torch.nn.init.normal_(layer.b2)
    each = [F.linear(F.gelu(F.linear(x, layer.w1[e], layer.b1[e])), layer.w2[e], layer.b2[e])
            for e in range(4)]
    torch.testing.assert_close(layer(x), torch.stack(each).mean(0), rtol=1e-4, atol=1e-4)
    assert layer.train()(x).requires_grad and layer.balance == 0
    assert not any("router" in name for name, _ in layer.named_parameters())
    with pytest.raises(configs.ConfigError, match="or 0 for no routing"):
        MoAE(32, num_experts=4, top_k=5)


@pytest.mark.parametrize("balanced", [True, False])
def test_a_fraction_of_the_data_nests_and_keeps_the_length_of_an_epoch(balanced):
    labels, used = np.repeat([0, 1, 2], [60, 30, 10]).tolist(), {}
    for share in (.2, .5, 1.0):
        orders = [draw_order(labels, seed, epoch, 1.0, balanced, share)
                  for seed in (0, 1) for epoch in (0, 1)]
        used[share] = set(np.concatenate(orders).tolist())
        assert all(len(order) == 100 for order in orders) and len(used[share]) <= share * 100
    assert len(used[.2]) >= 15 and used[.2] < used[.5]


def test_dynamic_only_is_the_setting_without_photos():
    columns = ["pretrained", "method", "metric", "value"]
    scores = [(True, "dynamic", "WAR", .44), (True, "dynamic", "UAR", .38),
              (False, "dynamic", "WAR", .2), (True, "s4d", "WAR", .61)]
    scores = pd.DataFrame(scores, columns=columns).assign(task="video")
    pair = dict(task="video", method="s4d", method_reference="dynamic", p_holm=.02)
    paired = pd.DataFrame([
        dict(pair, pretrained=p, metric=k, difference=d, low=d - .06, high=d + .05)
        for p, k, d in ((True, "WAR", .17), (True, "UAR", .2), (False, "WAR", .3))])
    none = ablations.without_photos(scores, paired).set_index("metric")
    assert set(none["setting"]) == {"0"} and none["value"].tolist() == [.44, .38]
    found = none.loc["WAR", ["difference", "difference_low", "difference_high"]]
    assert found.tolist() == pytest.approx([-.17, -.22, -.11])


# --- every field reaches what it is for, and changes weights or predictions

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
ELSEWHERE = {"image", "video", "init", "model", "max_unreadable", "val_fraction",
             "test_each_epoch", "grad_accum_steps"} | HOW   # have their own tests


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
        for name, value in (("crop_box", (0, 0, 48, 48)), ("short_side", 48)):
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
        draws = data.batch([Key(task, 0, seed) for seed in range(16)])["clip"][:, 0]
        assert any(torch.equal(d, draws[0].flip(-1)) for d in draws) == (task == "image")
