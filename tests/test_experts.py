"""Routing, expert usage and what it tells, on planted divisions of labour."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from study import clips, labelled, pictures, tiny

from s4d.study import experts, stimuli
from s4d.study.experts import group_split, place_split


def told(split: experts.Split, permutations: int = 200, seed: int = 0) -> pd.Series:
    """What one question tells in one run."""
    return experts.specificity_table({0: {3: [split]}}, permutations, seed).iloc[0]


def test_recorded_gates_sum_to_one_and_the_model_stays_as_it_was():
    model, x = tiny(), pictures()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plain = stimuli.features(model, x)
    routes = stimuli.routes_of(model, x)
    assert list(routes) == [1] and routes[1].shape == (12, 4, 4)
    torch.testing.assert_close(routes[1].sum(-1), torch.ones(12, 4))
    assert ((routes[1] > 0).sum(-1) == 2).all()
    np.testing.assert_array_equal(stimuli.features(model, x), plain)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.moae_layers()[1].record is None
    with pytest.raises(ValueError, match="num_experts=0"):
        stimuli.routes_of(tiny(0), x)


def test_an_expert_is_switched_off_inside_the_context_only():
    model, x = tiny(), pictures()
    free = stimuli.routes_of(model, x)[1]
    busiest = int(free.sum((0, 1)).argmax())
    with experts.without_expert(model, 1, busiest):
        masked = stimuli.routes_of(model, x)[1]
    assert masked[..., busiest].sum() == 0 < free[..., busiest].sum()
    torch.testing.assert_close(masked.sum(-1), torch.ones(12, 4))
    assert torch.equal(stimuli.routes_of(model, x)[1], free)


def test_the_cost_of_an_expert_falls_on_the_pictures_that_it_serves():
    """Dark and bright pictures have tokens of their own, so an expert may serve only one kind."""
    model, n = tiny(), 12
    x, rows = torch.cat([pictures(n) // 8, 255 - pictures(n) // 8]), labelled(n)
    served = (stimuli.routes_of(model, x)[1] > 0).any(1)
    only = next(e for e in range(4) if served[:n, e].any() and not served[n:, e].any())
    dark, bright = (experts.cost_of_experts(model, part, rows, np.zeros(n, int), "image")
                    for part in x.split(n))
    assert dark.expert.tolist() == [1, 2, 3, 4] and set(dark.block) == {2}
    assert abs(bright.change[only]) < 1e-4 < abs(dark.change[only])
    assert (dark.low <= dark.high).all()


def test_usage_counts_assignments_by_emotion():
    """Two emotions have an expert of their own, and share the third."""
    gates, subjects = torch.zeros(4, 2, 3), np.arange(4)
    gates[:2, :, 0] = gates[2:, :, 1] = 0.7
    gates[:, :, 2] = 0.3
    usage, emotions = experts.usage_of(gates), np.repeat(["fear", "anger"], 2)
    split = group_split("emotion, image", usage, emotions, subjects, False)
    table = experts.usage_table({4: [split]}, 50).set_index(["group", "expert"])
    assert table.share["fear"].tolist() == [0.5, 0, 0.5]
    assert table.share["anger"].tolist() == [0, 0.5, 0.5]
    assert set(table.samples) == {2}
    assert table.difference["fear"].tolist() == [0.5, -0.5, 0]


def test_maps_of_photos_and_clips_agree_where_experts_keep_their_places():
    random = torch.Generator().manual_seed(0)
    gates = torch.rand(1, 8, 4, generator=random).repeat(30, 1, 1)
    gates = gates + 0.01 * torch.rand(30, 8, 4, generator=random)
    busy = torch.arange(4.0)                                # busier everywhere: that is no place
    grids = {"image": (1, 2, 4), "video": (2, 2, 4)}
    units = {"image": np.arange(30), "video": np.arange(30) // 2}
    same = experts.map_agreement(gates, gates.repeat(1, 2, 1) + busy, grids, units)
    assert 0.99 < same["agreement_low"] <= same["agreement"] <= same["agreement_high"] <= 1
    moved = gates[:, torch.randperm(8, generator=random)].repeat(1, 2, 1) + busy
    assert experts.map_agreement(gates + busy, moved, grids, units)["agreement"] < 0.7


def test_a_map_has_a_token_where_it_lies_on_the_face():
    gates = torch.zeros(5, 2 * 2 * 3, 2)
    gates[:, [4, 10], 1] = 1.0                              # row 1, column 1, at both time steps
    table = experts.maps_table({3: gates}, (2, 2, 3), "video")
    place = table.loc[table.gate.idxmax(), ["block", "expert", "row", "column", "gate"]]
    assert len(table) == 12 and place.tolist() == [4, 2, 1, 1, 1] and table.gate.sum() == 1


def test_information_of_separate_equal_and_unbalanced_groups():
    apart, alike, counts = np.eye(2), np.full((2, 2), 0.5), np.array([300.0, 1.0])
    assert experts.information(apart * counts[:, None], counts) == pytest.approx(1.0)
    assert experts.information(alike * counts[:, None], counts) == pytest.approx(0.0)
    empty = np.vstack([apart, np.zeros(2)]), np.array([1.0, 1.0, 0.0])
    assert experts.information(*empty) == pytest.approx(1)


def test_a_planted_task_is_found_and_a_permuted_one_not():
    units, usage = np.repeat(np.arange(20), 4), np.random.default_rng(0).dirichlet(np.ones(4), 80)
    task = np.where(units < 10, "image", "video")
    planted = usage + np.outer(task == "image", [2, 0, 0, 0])
    planted /= planted.sum(1, keepdims=True)
    found = told(group_split("task", planted, task, units, True))
    assert found.mean_low > found.null_top and found.p_holm < 0.02
    assert found.mean_low < found["mean"] < found.mean_high
    assert told(group_split("task", usage, task, units, True)).p_holm > 0.05


def test_the_null_over_whole_subjects_is_not_fooled_by_subjects():
    units = np.repeat(np.arange(8), 20)
    task = np.where(units < 4, "image", "video")

    def median(whole: bool, unit: np.ndarray) -> float:
        usages = [np.random.default_rng(s).dirichlet(np.ones(4) * 0.5, 8)[units] for s in range(6)]
        return np.median([told(group_split("task", usage, task, unit, whole), 60, s).p_holm
                          for s, usage in enumerate(usages)])
    assert median(False, np.arange(160)) < 0.05 and median(True, units) > 0.1


def test_emotions_are_permuted_within_a_subject_and_found_beside_a_louder_identity():
    rng, units = np.random.default_rng(0), np.repeat(np.arange(10), 6)
    emotion = np.tile(["fear", "anger", "neutral"], 20)
    identity = rng.dirichlet(np.ones(4) * 0.3, 10)[units]

    def split(usage: np.ndarray, emotion: np.ndarray):
        return group_split("emotion, image", usage, emotion, units, False)
    alone = split(identity, emotion)
    sums, _ = alone.null(np.random.default_rng(1))
    np.testing.assert_allclose(sums, alone.sums.sum(0))     # what identity decides cannot change
    planted = 0.9 * identity + 0.1 * np.eye(4)[np.unique(emotion, return_inverse=True)[1]]
    assert told(split(planted, emotion)).p_holm < 0.02
    noisy = planted + 0.05 * rng.random((60, 4))
    assert told(split(noisy, rng.permutation(emotion))).p_holm > 0.05


def test_places_of_a_router_that_reads_positions_and_of_one_that_does_not():
    def found(leader: torch.Tensor) -> pd.Series:
        gates = torch.eye(4)[leader].repeat(1, 2, 1)        # two time steps
        return told(place_split("place", gates, (2, 2, 2), np.arange(len(leader))))
    places = found(torch.arange(4).expand(10, 4))
    assert places.bits == places.limit == pytest.approx(2.0) and places.p_holm < 0.02
    random = torch.randint(0, 4, (50, 4), generator=torch.Generator().manual_seed(0))
    assert found(random).p_holm > 0.05


def test_every_question_is_asked_in_every_table():
    model, rows = tiny(), {"image": labelled(14), "video": labelled(6, 3)}
    photo, clip = (stimuli.routes_of(model, v)[1] for v in (pictures(14), clips()))
    grids = {"image": (1, 2, 2), "video": (2, 2, 2)}
    questions = {2: experts.splits_of(photo, clip, rows, grids)}
    table = experts.specificity_table({0: questions}, 20)
    assert set(table.about) == {"task", "task, first time step", "emotion, image", "place, image",
                                "emotion, video", "place, video"}
    assert table.bits.between(-1e-9, table.limit + 1e-9).all()
    usage = experts.usage_table(questions, 20)
    assert set(usage.by) == {"task", "emotion"}
    assert usage.groupby(["task", "by", "group"]).share.sum().to_numpy() == pytest.approx(1)
    rows["video"] = rows["video"].assign(label="fear")      # one emotion has nothing to tell
    assert len(experts.splits_of(photo, clip, rows, grids)) == 5


def test_what_is_told_beyond_the_null_is_compared_as_a_share_of_the_limit():
    """Experts of three runs follow the emotion and not the task."""
    units, kind = np.arange(60), np.repeat(["image", "video"], 30)
    emotion, runs = np.tile(["fear", "anger", "neutral"], 20), {}
    for seed in range(3):
        usage = np.random.default_rng(seed).dirichlet(np.ones(4), 60)
        usage = (usage + 3 * np.eye(4)[np.unique(emotion, return_inverse=True)[1]]) / 4
        runs[seed] = {3: [
            group_split("task", usage, kind, units, True),
            group_split("emotion, image", usage[:30], emotion[:30], units[:30], False)]}
    found = experts.specificity_table(runs, 100).set_index("about")
    task, part = found.loc["task"].iloc[0], found.loc["emotion, image"]
    assert abs(task["mean"]) < 3 and task["mean"] < 1.5 * task.null_top and task.p_holm > 0.05
    first = part.iloc[0]
    assert 0 < first.mean_low < first["mean"] < first.mean_high < 100 and first.p_holm < 0.05
    expected = 100 * (part.bits - part.null_mean) / np.log2(3)
    assert part.beyond.to_numpy() == pytest.approx(expected.to_numpy())


def test_experts_of_two_seeds_are_matched_whatever_their_numbers():
    gates, other = (torch.rand(20, 8, 4, generator=torch.Generator().manual_seed(s))
                    for s in (0, 1))
    routes = {0: {2: gates}, 1: {2: gates[..., [2, 0, 3, 1]]}, 2: {2: other}}
    found = experts.seed_agreement(routes, 50)
    table = found.set_index(["seed_a", "seed_b"])
    same, apart = table.loc[0, 1], table.loc[0, 2]
    assert same.matched == pytest.approx(1.0) and same.p < 0.05 < apart.p
    assert apart.null_mean > 0.25                           # the best of 24 matchings, by luck
    assert experts.seed_agreement({0: {2: gates}}).empty
    leaders = torch.randint(0, 4, (2, 16), generator=torch.Generator().manual_seed(3))
    places = {s: {1: torch.eye(4)[leader].expand(30, 16, 4)} for s, leader in enumerate(leaders)}
    table = experts.seed_agreement(places, 100).iloc[0]     # both divide by place, each its own way
    assert table.matched > 0.3 and table.p > 0.05


def test_released_routing_changes_between_passes_and_paper_routing_does_not():
    model, x, subjects = tiny(), pictures(40), {"image": labelled(40, 8).subject}
    torch.nn.init.constant_(model.blocks[1].moae.noise_proj.bias, 3.0)
    table = experts.compare_modes(model, x, np.zeros(40, int), "image")
    layer = model.moae_layers()[1]
    assert layer.capacity_factor is None and layer.noise_mode == "train"
    shift, dropped = (table.groupby("mode")[c].max() for c in ("shift", "dropped"))
    assert shift["paper"] < 1e-5 < 1e-4 < shift.drop("paper").min()
    assert dropped["paper"] == dropped["noise only"] == 0 < dropped["capacity only"] < 1
    modes = experts.modes_table(table, subjects, 20)
    assert modes.set_index("mode").change["paper"] == 0
    lost = table.assign(correct=1.0 * (table["mode"] != "released"))
    found = experts.modes_table(lost, subjects, 20).set_index("mode")
    assert found.change["released"] == found.low["released"] == -100
