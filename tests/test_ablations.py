"""Ablations: each trial differs from the comparison in what its study names, and data amounts nest."""
from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch

from s4d import config as configs
from s4d import reproduce as pipeline
from s4d.data.dataset import draw_order
from s4d.models import create
from s4d.models.moae import MoAE
from s4d.study import ablations
from s4d.training.runs import build

CHANGES = {"start": {"init"}, "experts": {"num_experts", "top_k"}, "top_k": {"top_k"}, "blocks": {"moae_start"}, "bottleneck": {"adapter_reduction"},
           "balance": {"aux_loss_weight"}, "noise": {"router_noise"}, "capacity": {"capacity_factor"}, "photos": {"image_fraction"}, "clips": {"video_fraction"},
           "gap": {"image", "video", "init"}}


def test_a_trial_differs_only_in_what_its_study_names():
    prof, seen = configs.profile("gpu"), {}
    grid = {(m, s): cfg for m, pretrained, s, cfg in prof.methods_grid() if pretrained}
    for trial in ablations.trials(prof):
        base = grid[trial.method, trial.seed]
        different = {f.name for f in fields(base) if getattr(base, f.name) != getattr(trial.config, f.name)}
        assert different <= CHANGES[trial.study], (trial.study, different)
        seen.setdefault(trial.study, {}).setdefault(trial.value, set()).update(different)
    assert set(seen) == set(ablations.STUDIES)
    for name, values in seen.items():
        own = ablations.default_of(prof, name)
        assert not values[own] and all(different for value, different in values.items() if value != own), name


@pytest.mark.parametrize("name", ["smoke", "sandbox", "night", "gpu"])
def test_the_pipeline_trains_what_a_profile_declares_and_each_run_once(name):
    prof = configs.profile(name)
    every = pipeline.configurations(prof)
    assert len(every) == len(set(every)) and {t.config for t in ablations.trials(prof)} <= set(every)
    assert [f.gap for f in ablations.corpora(prof)] == ([.2, 0, .5, 1] if name in ("night", "gpu") else [.2])
    if name in ("night", "gpu"):                                       # corpora that differ give configurations that differ, though not in their digest
        gaps = [c for c in every if isinstance(c, configs.Finetune) and c.init and c.tasks == ("video",) and c.video.root != prof.finetune.video.root]
        assert len({c.video.root for c in gaps}) == 3 and all(c.init.video.root.rsplit("/", 1)[0] == c.video.root.rsplit("/", 1)[0] for c in gaps)


def test_a_night_is_the_sandbox_and_most_ablations(tmp_path):
    night, sandbox = (configs.profile(name, runs=str(tmp_path)) for name in ("night", "sandbox"))
    every, known = (pipeline.configurations(p) for p in (night, sandbox))
    assert set(known) < set(every) and set(ablations.declared(night)) < set(ablations.STUDIES)
    assert all(declared == ablations.declared(configs.profile("gpu"))[name] for name, declared in ablations.declared(night).items())
    assert night.notebooks == ("03_finetuning",) and configs.digest(sandbox) == configs.digest(replace(sandbox, notebooks=None))
    assert pipeline.missing_runs(night) == len(every)         # those of other gaps have names that the comparison's runs have, too
    for cfg in known:
        folder = tmp_path / f"{cfg.stage}-{configs.digest(cfg)}-00"
        folder.mkdir()
        (folder / "provenance.json").write_text("{}")
    assert pipeline.missing_runs(sandbox) == 0 and pipeline.missing_runs(night) == len(every) - len(known)


def test_adapters_without_routing_are_the_mean_of_all():
    torch.manual_seed(0)
    layer, x = MoAE(32, num_experts=4, top_k=0), torch.randn(2, 5, 32)
    torch.nn.init.normal_(layer.w2)
    torch.nn.init.normal_(layer.b2)
    each = [torch.nn.functional.gelu(x @ layer.w1[e].T + layer.b1[e]) @ layer.w2[e].T + layer.b2[e] for e in range(4)]
    torch.testing.assert_close(layer(x), torch.stack(each).mean(0), rtol=1e-4, atol=1e-4)
    assert layer.train()(x).requires_grad and layer.balance_loss() == 0 and not any("router" in n for n, _ in layer.named_parameters())
    with pytest.raises(configs.ConfigError, match="or 0 for no routing"):
        MoAE(32, num_experts=4, top_k=5)


def test_the_configuration_reaches_the_layers():
    base = replace(configs.profile("smoke").finetune, router_noise=False, capacity_factor=1.25, adapter_reduction=8, moae_start=0, top_k=1)
    layers = build(base).moae_layers()
    assert list(layers) == list(range(len(create(base.model).blocks)))
    for layer in layers.values():
        assert (layer.noise_mode, layer.capacity_factor, layer.top_k, layer.w1.shape[1]) == ("never", 1.25, 1, layer.w1.shape[2] // 8)


@pytest.mark.parametrize("balanced", [True, False])
def test_a_part_of_the_data_nests_and_keeps_the_length_of_an_epoch(balanced):
    labels = np.repeat([0, 1, 2], [60, 30, 10]).tolist()
    used = {part: [draw_order(labels, seed, epoch, 1.0, balanced, part) for seed in (0, 1) for epoch in (0, 1)] for part in (.2, .5, 1.0)}
    for part, orders in used.items():
        rows = set(np.concatenate(orders).tolist())
        assert all(len(order) == 100 for order in orders) and len(rows) <= round(part * 100)
    small, half = (set(np.concatenate(used[p]).tolist()) for p in (.2, .5))
    assert len(small) >= 15 and small < half


def shares(**columns) -> pd.DataFrame:
    """Two settings of a study of photos with their scores and their difference."""
    keys = dict(task="video", study="photos", method="s4d", metric="WAR")
    return pd.DataFrame([dict(keys, setting="0.1", value=.5, low=.4, high=.6), dict(keys, setting="1", value=.6, low=.5, high=.7)]).assign(**columns)


def test_each_score_stands_beside_its_own_paired_difference():
    changed = pd.DataFrame([dict(task="video", study="photos", method=m, metric=k, setting="0.1", setting_reference="1", difference=d, low=d - .02,
                                 high=d + .02, p_holm=.01) for m, k, d in (("s4d", "WAR", -.1), ("s4d", "UAR", -.3), ("multitask", "WAR", -.2))])
    beside = ablations.beside_default(shares(), changed)
    assert len(beside) == 2 and beside["difference"].tolist()[0] == -.1 and np.isnan(beside["difference"][1])
    assert beside.loc[0, ["difference_low", "difference_high"]].tolist() == pytest.approx([-.12, -.08])


def test_dynamic_only_is_the_setting_without_photos():
    scores = pd.DataFrame([dict(task=t, pretrained=p, method=m, metric=k, value=v) for t, p, m, k, v in (
        ("video", True, "dynamic", "WAR", .44), ("video", True, "dynamic", "UAR", .38), ("video", False, "dynamic", "WAR", .2),
        ("video", True, "s4d", "WAR", .61), ("image", True, "static", "WAR", .7))])
    pair = dict(task="video", method="s4d", method_reference="dynamic", p_holm=.02)
    paired = pd.DataFrame([dict(pair, pretrained=p, metric=k, difference=d, low=d - .06, high=d + .05) for p, k, d in (
        (True, "WAR", .17), (True, "UAR", .2), (False, "WAR", .3))])
    none = ablations.without_photos(scores, paired).set_index("metric")
    assert none["setting"].tolist() == ["0", "0"] and none["value"].tolist() == [.44, .38]
    assert none.loc["WAR", ["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([-.17, -.22, -.11])
