"""Ablations: a trial differs from the comparison in what its study names; data amounts nest."""
from __future__ import annotations

from dataclasses import fields

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
