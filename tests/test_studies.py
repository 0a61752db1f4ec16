"""Ablations: each trial differs from the comparison in what its study names, and data amounts nest."""
from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from s4d import config as configs
from s4d import pipeline, studies
from s4d.data.batches import draw_order
from s4d.models import create
from s4d.models.moae import MoAE
from s4d.plots import training as plots
from s4d.training.runs import build

CHANGES = {"start": {"init"}, "experts": {"experts", "top_k"}, "top_k": {"top_k"}, "blocks": {"moae_from"}, "bottleneck": {"reduction"},
           "balance": {"balance"}, "noise": {"noise"}, "capacity": {"capacity"}, "photos": {"image_part"}, "clips": {"video_part"},
           "gap": {"image", "video", "init"}}


def test_a_trial_differs_only_in_what_its_study_names():
    prof, seen = configs.profile("gpu"), {}
    grid = {(m, s): cfg for m, pretrained, s, cfg in prof.methods_grid() if pretrained}
    for trial in studies.trials(prof):
        base = grid[trial.method, trial.seed]
        different = {f.name for f in fields(base) if getattr(base, f.name) != getattr(trial.config, f.name)}
        assert different <= CHANGES[trial.study], (trial.study, different)
        seen.setdefault(trial.study, {}).setdefault(trial.value, set()).update(different)
    assert set(seen) == set(studies.STUDIES)
    for name, values in seen.items():
        own = studies.default_of(prof, name)
        assert not values[own] and all(different for value, different in values.items() if value != own), name


@pytest.mark.parametrize("name", ["smoke", "sandbox", "night", "gpu"])
def test_the_pipeline_trains_what_a_profile_declares_and_each_run_once(name):
    prof = configs.profile(name)
    every = pipeline.configurations(prof)
    assert len(every) == len(set(every)) and {t.config for t in studies.trials(prof)} <= set(every)
    assert [f.gap for f in studies.corpora(prof)] == ([.2, 0, .5, 1] if name in ("night", "gpu") else [.2])
    if name in ("night", "gpu"):                                       # corpora that differ give configurations that differ, though not in their digest
        gaps = [c for c in every if isinstance(c, configs.Finetune) and c.init and c.tasks == ("video",) and c.video.root != prof.finetune.video.root]
        assert len({c.video.root for c in gaps}) == 3 and all(c.init.videos.root.rsplit("/", 1)[0] == c.video.root.rsplit("/", 1)[0] for c in gaps)


def test_a_night_is_the_sandbox_and_every_ablation(tmp_path):
    night, sandbox = (configs.profile(name, runs=str(tmp_path)) for name in ("night", "sandbox"))
    every, known = (pipeline.configurations(p) for p in (night, sandbox))
    assert set(known) < set(every) and studies.declared(night) == studies.declared(configs.profile("gpu"))
    assert night.notebooks == ("03_finetuning",) and configs.digest(sandbox) == configs.digest(replace(sandbox, notebooks=None))
    assert pipeline.missing_runs(night) == len(every)         # those of other gaps have names that the comparison's runs have, too
    for cfg in known:
        folder = tmp_path / f"{cfg.stage}-{configs.digest(cfg)}-00"
        folder.mkdir()
        (folder / "provenance.json").write_text("{}")
    assert pipeline.missing_runs(sandbox) == 0 and pipeline.missing_runs(night) == len(every) - len(known)


def test_an_option_that_is_off_leaves_the_name_of_a_run():
    base = configs.profile("smoke").finetune
    old = {k: v for k, v in configs.to_dict(base).items() if k not in ("moae_from", "reduction", "noise", "capacity", "image_part", "video_part")}
    assert configs.digest(configs.from_dict(old)) == configs.digest(base)
    for change in (dict(reduction=8), dict(noise=False), dict(capacity=1.0), dict(image_part=.5), dict(video_part=.5), dict(moae_from=0)):
        assert configs.digest(replace(base, **change)) != configs.digest(base), change


def test_adapters_without_routing_are_the_mean_of_all():
    torch.manual_seed(0)
    layer, x = MoAE(32, experts=4, top_k=0), torch.randn(2, 5, 32)
    torch.nn.init.normal_(layer.w2)
    torch.nn.init.normal_(layer.b2)
    each = [torch.nn.functional.gelu(x @ layer.w1[e].T + layer.b1[e]) @ layer.w2[e].T + layer.b2[e] for e in range(4)]
    torch.testing.assert_close(layer(x), torch.stack(each).mean(0), rtol=1e-4, atol=1e-4)
    assert layer.train()(x).requires_grad and layer.balance_loss() == 0 and not any("router" in n for n, _ in layer.named_parameters())
    with pytest.raises(configs.ConfigError, match="or 0 for no routing"):
        MoAE(32, experts=4, top_k=5)


def test_the_configuration_reaches_the_layers():
    base = replace(configs.profile("smoke").finetune, noise=False, capacity=1.25, reduction=8, moae_from=0, top_k=1)
    layers = build(base).moae_layers()
    assert list(layers) == list(range(len(create(base.model).blocks)))
    for layer in layers.values():
        assert (layer.noisy, layer.capacity_factor, layer.top_k, layer.w1.shape[1]) == ("never", 1.25, 1, layer.w1.shape[2] // 8)


@pytest.mark.parametrize("balanced", [True, False])
def test_a_part_of_the_data_nests_and_keeps_the_length_of_an_epoch(balanced):
    labels = np.repeat([0, 1, 2], [60, 30, 10]).tolist()
    used = {part: [draw_order(labels, seed, epoch, 1.0, balanced, part) for seed in (0, 1) for epoch in (0, 1)] for part in (.2, .5, 1.0)}
    for part, orders in used.items():
        rows = set(np.concatenate(orders).tolist())
        assert all(len(order) == 100 for order in orders) and len(rows) <= round(part * 100)
    small, half = (set(np.concatenate(used[p]).tolist()) for p in (.2, .5))
    assert len(small) >= 15 and small < half


def test_the_figure_has_a_panel_per_study_and_marks_the_default():
    import pandas as pd
    table = pd.DataFrame([dict(study=s, setting=v, method=m, value=.5, low=.4, high=.6) for s, values in (("photos", ("0.1", "1")), ("noise", ("yes", "no")))
                          for v in values for m in ("multitask", "s4d")])
    fig = plots.ablations(table, {"photos": "share", "noise": "noise"}, {"photos": "1", "noise": "yes"})
    panels = [ax for ax in fig.axes if ax.axison]
    bold = [[t.get_text() for t in ax.get_xticklabels() if t.get_fontweight() == "bold"] for ax in panels]
    assert [ax.get_xlabel() for ax in panels] == ["share", "noise"] and bold == [["1"], ["yes"]]
