"""Ablations: a trial differs from the comparison in what its study names; data amounts nest."""
from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from s4d import config as configs
from s4d import reproduce
from s4d.data.dataset import draw_order
from s4d.models.moae import MoAE
from s4d.study import ablations
from s4d.training.runs import build

CHANGES = {
    "start": {"init"}, "experts": {"num_experts", "top_k"}, "top_k": {"top_k"},
    "blocks": {"moae_start"}, "bottleneck": {"adapter_reduction"}, "noise": {"router_noise"},
    "balance": {"aux_loss_weight"}, "capacity": {"capacity_factor"},
    "photos": {"image_fraction"}, "clips": {"video_fraction"}, "gap": {"image", "video", "init"}}


def test_a_trial_differs_only_in_what_its_study_names():
    prof, seen = configs.profile("gpu"), {}
    grid = {(m, s): cfg for m, pretrained, s, cfg in prof.methods_grid() if pretrained}
    for trial in ablations.trials(prof):
        base, cfg = grid[trial.method, trial.seed], trial.config
        different = {f.name for f in fields(base) if getattr(base, f.name) != getattr(cfg, f.name)}
        assert different <= CHANGES[trial.study], (trial.study, different)
        seen.setdefault(trial.study, {}).setdefault(trial.value, set()).update(different)
    assert set(seen) == set(ablations.STUDIES)
    for name, values in seen.items():
        assert not values.pop(ablations.default_of(prof, name)) and all(values.values()), name


@pytest.mark.parametrize("name, gaps", [("smoke", [.2]), ("sandbox", [.2]),
                                        ("night", [.2, 0, .5, 1]), ("gpu", [.2, 0, .5, 1])])
def test_each_run_that_a_profile_declares_is_trained_once(name, gaps):
    prof = configs.profile(name)
    every = reproduce.configurations(prof)
    assert len(every) == len(set(every))
    assert {t.config for t in ablations.trials(prof)} <= set(every)
    assert [f.gap for f in ablations.corpora(prof)] == gaps
    other = [c for c in every if isinstance(c, configs.Finetune) and c.tasks == ("video",)
             and c.init and c.video.root != prof.finetune.video.root]
    assert len({c.video.root for c in other}) == len(gaps) - 1
    assert all(c.init.video.root == c.video.root for c in other if c.init.video.name == "dfew")


def test_a_night_is_the_sandbox_and_most_ablations(tmp_path):
    night, sandbox = (configs.profile(n, runs=str(tmp_path)) for n in ("night", "sandbox"))
    every, known = (reproduce.configurations(p) for p in (night, sandbox))
    declared, gpu = ablations.declared(night), ablations.declared(configs.profile("gpu"))
    assert set(known) < set(every) and declared.items() < gpu.items()
    assert reproduce.missing_runs(night) == len(every)
    for cfg in known:
        folder = tmp_path / f"{cfg.stage}-{configs.digest(cfg)}-00"
        folder.mkdir()
        (folder / "provenance.json").write_text("{}")
    assert reproduce.missing_runs(sandbox) == 0
    assert reproduce.missing_runs(night) == len(every) - len(known)


def test_adapters_without_routing_are_the_mean_of_all():
    torch.manual_seed(0)
    layer, x = MoAE(32, num_experts=4, top_k=0), torch.randn(2, 5, 32)
    torch.nn.init.normal_(layer.w2)
    torch.nn.init.normal_(layer.b2)
    each = [F.linear(F.gelu(F.linear(x, layer.w1[e], layer.b1[e])), layer.w2[e], layer.b2[e])
            for e in range(4)]
    torch.testing.assert_close(layer(x), torch.stack(each).mean(0), rtol=1e-4, atol=1e-4)
    assert layer.train()(x).requires_grad and layer.balance_loss() == 0
    assert not any("router" in name for name, _ in layer.named_parameters())
    with pytest.raises(configs.ConfigError, match="or 0 for no routing"):
        MoAE(32, num_experts=4, top_k=5)


def test_the_configuration_reaches_the_layers():
    model = build(replace(configs.profile("smoke").finetune, router_noise=False, moae_start=0,
                          capacity_factor=1.25, adapter_reduction=8, top_k=1))
    layers = model.moae_layers()
    assert list(layers) == list(range(len(model.blocks)))
    for layer in layers.values():
        assert (layer.noise_mode, layer.capacity_factor, layer.top_k) == ("never", 1.25, 1)
        assert layer.w1.shape[1] == layer.w1.shape[2] // 8


@pytest.mark.parametrize("balanced", [True, False])
def test_a_fraction_of_the_data_nests_and_keeps_the_length_of_an_epoch(balanced):
    labels, used = np.repeat([0, 1, 2], [60, 30, 10]).tolist(), {}
    for share in (.2, .5, 1.0):
        orders = [draw_order(labels, seed, epoch, 1.0, balanced, share)
                  for seed in (0, 1) for epoch in (0, 1)]
        used[share] = set(np.concatenate(orders).tolist())
        assert all(len(order) == 100 for order in orders) and len(used[share]) <= share * 100
    assert len(used[.2]) >= 15 and used[.2] < used[.5]


def test_each_score_stands_beside_its_own_paired_difference():
    keys = dict(task="video", study="photos", method="s4d", metric="WAR")
    scored = pd.DataFrame([dict(keys, setting="0.1", value=.5), dict(keys, setting="1", value=.6)])
    changed = pd.DataFrame([
        {**keys, "method": m, "metric": k, "setting": "0.1", "difference": d, "low": d - .02,
         "high": d + .02, "p_holm": .01}
        for m, k, d in (("s4d", "WAR", -.1), ("s4d", "UAR", -.3), ("multitask", "WAR", -.2))])
    found = ablations.beside_default(scored, changed)[["difference", "difference_low", "p_holm"]]
    np.testing.assert_allclose(found, [[-.1, -.12, .01], [np.nan] * 3])


def test_dynamic_only_is_the_setting_without_photos():
    columns = ["task", "pretrained", "method", "metric", "value"]
    scores = pd.DataFrame([("video", True, "dynamic", "WAR", .44),
                           ("video", True, "dynamic", "UAR", .38),
                           ("video", False, "dynamic", "WAR", .2),
                           ("video", True, "s4d", "WAR", .61)], columns=columns)
    pair = dict(task="video", method="s4d", method_reference="dynamic", p_holm=.02)
    paired = pd.DataFrame([
        dict(pair, pretrained=p, metric=k, difference=d, low=d - .06, high=d + .05)
        for p, k, d in ((True, "WAR", .17), (True, "UAR", .2), (False, "WAR", .3))])
    none = ablations.without_photos(scores, paired).set_index("metric")
    assert none["setting"].tolist() == ["0", "0"] and none["value"].tolist() == [.44, .38]
    found = none.loc["WAR", ["difference", "difference_low", "difference_high"]]
    assert found.tolist() == pytest.approx([-.17, -.22, -.11])
