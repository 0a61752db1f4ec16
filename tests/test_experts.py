"""Routing, expert usage and what it tells, on planted divisions of labour."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from study import clips, labelled, pictures, switched, tiny

from s4d.config import Finetune, Source
from s4d.study import experts, printed, routing, splits, stimuli
from s4d.study.experts import judged
from s4d.study.splits import group_split, phase_split, place_split


def test_recorded_gates_sum_to_one_and_the_model_stays_as_it_was():
    model, x = tiny(), pictures()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plain = stimuli.features(model, x)
    routes = routing.routes_of(model, x)
    assert list(routes) == [1] and routes[1].shape == (12, 4, 4)
    torch.testing.assert_close(routes[1].sum(-1), torch.ones(12, 4))
    assert ((routes[1] > 0).sum(-1) == 2).all()
    np.testing.assert_array_equal(stimuli.features(model, x), plain)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_recorder_gives_up_its_place_after_an_error_and_to_an_outer_one():
    model = tiny()
    with pytest.raises(RuntimeError), routing.record_routing(model):
        raise RuntimeError
    assert model.moae_layers()[1].record is None
    with routing.record_routing(model) as outer:
        with routing.record_routing(model) as inner:
            stimuli.features(model, pictures(2))
        stimuli.features(model, pictures(2))
    assert len(outer[1]) == len(inner[1]) == 1
    with pytest.raises(ValueError, match="num_experts=0"), routing.record_routing(tiny(0)):
        pass


def test_an_expert_is_switched_off_inside_the_context_only():
    model, x = tiny(), pictures()
    free = routing.routes_of(model, x)[1]
    busiest = int(free.sum((0, 1)).argmax())
    with routing.without_expert(model, 1, busiest):
        masked = routing.routes_of(model, x)[1]
    assert masked[..., busiest].sum() == 0 < free[..., busiest].sum()
    torch.testing.assert_close(masked.sum(-1), torch.ones(12, 4))
    assert torch.equal(routing.routes_of(model, x)[1], free)


def test_the_cost_of_an_expert_falls_on_the_emotion_that_it_serves():
    """Dark and bright pictures have tokens of their own, so an expert may serve one emotion."""
    model, n = tiny(), 12
    x = torch.cat([pictures(n) // 8, 255 - pictures(n) // 8])
    rows = pd.DataFrame(dict(label=["fear"] * n + ["anger"] * n,
                             subject=[f"s{i % 6}" for i in range(2 * n)]))
    served = (routing.routes_of(model, x)[1] > 0).any(1)
    only = [e for e in range(4) if served[:n, e].any() and not served[n:, e].any()]
    costs = routing.cost_of_experts(model, x, rows, np.zeros(2 * n, int), "image")
    assert len(costs) == 4 * 3 and set(costs.emotion) == {"all", "fear", "anger"} and only
    one = costs[costs.expert == only[0] + 1].set_index("emotion")
    assert abs(one.change["anger"]) < 1e-4 < abs(one.change["fear"])
    assert (one.low <= one.high).all()
    mean = (one.change["fear"] + one.change["anger"]) / 2
    assert one.change["all"] == pytest.approx(mean, abs=1e-6)


def test_changes_are_corrected_over_all_experts_and_cells_without_subjects_are_no_test():
    costs = switched().assign(p=[0.01, 0.02, np.nan] * 8)
    costs.loc[0, "p"] = 0.001
    found = routing.corrected(costs)
    whole, cells = found[found.emotion == "all"].p_holm, found[found.emotion != "all"].p_holm
    assert whole.tolist() == pytest.approx([0.008] + [0.07] * 7)
    assert cells.isna().sum() == 8 and cells.dropna().tolist() == pytest.approx([0.16] * 8)


def test_usage_counts_assignments_by_emotion():
    """Two emotions have an expert of their own, and share the third."""
    gates, subjects = torch.zeros(4, 2, 3), np.arange(4)
    gates[:2, :, 0] = gates[2:, :, 1] = 0.7
    gates[:, :, 2] = 0.3
    usage, emotions = splits.usage_of(gates), np.repeat(["fear", "anger"], 2)
    split = group_split("emotion, image", usage, emotions, subjects, False)
    table = experts.usage_table({4: [split]}, 50).set_index(["group", "expert"])
    assert table.share["fear"].tolist() == [0.5, 0, 0.5]
    assert table.share["anger"].tolist() == [0, 0.5, 0.5]
    assert (table.low == table.share).all() and set(table.samples) == {2}
    assert table.difference["fear"].tolist() == [0.5, -0.5, 0]
    alone = group_split("emotion, image", usage, np.repeat("fear", 4), subjects, False)
    assert experts.usage_table({4: [alone]}, 20).difference.isna().all()
    found = experts.entropy_table({3: gates}, "image").iloc[0]
    assert [found.effective_experts, found.load] == pytest.approx([2 ** 1.5, 1.5])


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


def test_maps_and_leaders_put_a_token_where_it_lies_on_the_face():
    gates = torch.zeros(5, 2 * 2 * 3, 2)
    gates[:, [4, 10], 1] = 1.0                              # row 1, column 1, at both time steps
    table = experts.maps_table({3: gates}, (2, 2, 3), "video")
    place = table.loc[table.gate.idxmax(), ["block", "expert", "row", "column", "gate"]]
    assert len(table) == 12 and place.tolist() == [4, 2, 1, 1, 1] and table.gate.sum() == 1
    table = experts.leading_table(gates, (2, 2, 3), [1])
    led = table[table.gate > 0].drop(columns="gate").values.tolist()
    assert len(table) == 12 and led == [[1, 0, 1, 1, 2], [1, 1, 1, 1, 2]]


def test_information_and_index_of_separate_equal_and_unbalanced_groups():
    apart, alike, counts = np.eye(2), np.full((2, 2), 0.5), np.array([300.0, 1.0])
    for measure in (experts.information, experts.distance):
        assert measure(apart * counts[:, None], counts) == pytest.approx(1.0)
        assert measure(alike * counts[:, None], counts) == pytest.approx(0.0)
    half = np.array([[1.0, 0.0], [0.75, 0.25]])
    assert experts.distance(half, np.ones(2)) == pytest.approx(0.25)
    empty = np.vstack([apart, np.zeros(2)]), np.array([1.0, 1.0, 0.0])
    assert experts.information(*empty) == pytest.approx(1)


def test_a_planted_task_is_found_and_a_permuted_one_not():
    units, usage = np.repeat(np.arange(20), 4), np.random.default_rng(0).dirichlet(np.ones(4), 80)
    task = np.where(units < 10, "image", "video")
    planted = usage + np.outer(task == "image", [2, 0, 0, 0])
    planted /= planted.sum(1, keepdims=True)
    for measure in (experts.information, experts.distance):
        found = judged(group_split("task", planted, task, units, True), measure, 200)
        assert found["value"] > 2 * found["null_95"] and found["p"] < 0.02
        assert found["null_95"] < found["low"] <= found["value"] <= found["high"] + 0.03
        assert judged(group_split("task", usage, task, units, True), measure, 200)["p"] > 0.05


def test_the_null_over_whole_subjects_is_not_fooled_by_subjects():
    units = np.repeat(np.arange(8), 20)
    task = np.where(units < 4, "image", "video")

    def median(whole: bool, unit: np.ndarray) -> float:
        usages = [np.random.default_rng(s).dirichlet(np.ones(4) * 0.5, 8)[units] for s in range(6)]
        return np.median([judged(group_split("task", usage, task, unit, whole), permutations=60,
                                 seed=s)["p"] for s, usage in enumerate(usages)])
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
    assert judged(split(planted, emotion), permutations=100)["p"] < 0.02
    noisy = planted + 0.05 * rng.random((60, 4))
    assert judged(split(noisy, rng.permutation(emotion)), permutations=100)["p"] > 0.05


def test_places_of_a_router_that_reads_positions_and_of_one_that_does_not():
    def found(leader: torch.Tensor) -> dict:
        split = place_split("place", torch.eye(4)[leader], (1, 2, 2), np.arange(len(leader)))
        return judged(split, permutations=100)
    places = found(torch.arange(4).expand(10, 4))
    assert places["value"] == pytest.approx(2.0) and places["p"] < 0.02
    random = torch.randint(0, 4, (50, 4), generator=torch.Generator().manual_seed(0))
    assert found(random)["p"] > 0.05


def test_regions_lie_where_they_belong_on_the_face():
    weights = splits.region_weights((1, 4, 4))
    np.testing.assert_allclose(weights.sum(0), 1)
    rows = weights.reshape(5, 4, 4).sum(2) / weights.sum(1)[:, None]
    down = dict(zip(splits.REGIONS, rows @ np.arange(4), strict=True))
    assert down["brows"] < down["eyes"] < down["nose"] < down["mouth"]
    assert min(weights[:4].sum(1)) > 0.2 and weights[-1].reshape(4, 4)[0].min() > 0.8
    np.testing.assert_allclose(splits.region_weights((4, 10, 10)).sum(0), 1)


def test_routing_by_region_is_found_and_by_a_shuffled_face_not():
    places = np.random.default_rng(2).permutation(np.repeat(np.arange(5), 5))
    weights, random = np.eye(5)[places].T, torch.Generator().manual_seed(0)
    leader = torch.from_numpy(places).clamp(max=3)

    def split(leader: torch.Tensor):
        gates = torch.eye(4)[leader].repeat(12, 2, 1)       # two time steps, four experts
        return place_split("region, video", gates, (2, 5, 5), np.arange(12), weights)
    found = judged(split(leader), permutations=200)
    assert found["value"] > 1.8 and found["p"] < 0.02
    other = leader[torch.randperm(25, generator=random)]    # as clear a division, other borders
    assert judged(split(other), permutations=200)["p"] > 0.05
    table = experts.usage_table({2: [split(leader)]}, 20).set_index(["group", "expert"])
    assert table.share["brows", 1] == 1


def phased(n: int = 40, steps: int = 4) -> np.ndarray:
    """Phases `[N, 3, steps]` that begin at different times; every eighth clip is neutral."""
    rng, weights = np.random.default_rng(0), np.zeros((n, 3, steps))
    for clip in range(n):
        borders = np.sort(rng.integers(0, steps + 1, 2))
        phase = np.searchsorted(borders, np.arange(steps), side="right")
        weights[clip, phase, np.arange(steps)] = clip % 8 > 0
    return weights


def test_routing_by_phase_is_found_and_by_time_alone_not():
    weights = phased()
    leader = np.where(weights.sum(1) > 0, weights.argmax(1), 3)                     # [N, steps]

    def told(leader: np.ndarray) -> dict:
        gates = torch.from_numpy(np.repeat(np.eye(4)[leader], 4, axis=1)).float()
        split = phase_split("phase", gates, (4, 2, 2), np.arange(40) % 10, weights)
        return judged(split, permutations=200)
    found, clock = told(leader), told(np.tile(np.arange(4), (40, 1)))
    assert found["value"] == pytest.approx(np.log2(3)) and found["p"] < 0.02
    assert clock["value"] > 0.1 and clock["p"] == 1         # onset is early, as the null knows
    assert told(leader[np.random.default_rng(0).permutation(40)])["p"] > 0.05


def test_phases_are_those_of_the_frames_that_the_model_sees(tmp_path):
    phases = {"a": ["neutral"] * 4 + ["onset"] * 3 + ["apex"] * 5 + ["offset"] * 4,
              "b": ["onset", "apex"] + ["offset"] * 2 + ["neutral"] * 12}
    rows = [(f"dfew/{c}.mp4", "dfew", t, p) for c in phases for t, p in enumerate(phases[c])]
    truth = pd.DataFrame(rows, columns=["path", "corpus", "frame", "phase"])
    truth.to_csv(tmp_path / "truth.csv.gz", index=False)
    cfg = Finetune(Source("affectnet", ""), Source("dfew", ""), img_size=32, num_frames=8,
                   sampling_rate=2)                         # frames 0, 2, 4 .. 14
    found = splits.phase_weights(tmp_path, pd.DataFrame(dict(path=["b.mp4", "a.mp4"])), cfg)
    assert found[0].T.tolist() == [[0.5, 0, 0.5], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert found[1].T.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert splits.phase_weights(None, labelled(3), None) is None


def test_every_question_is_asked_in_every_table():
    model, rows = tiny(), {"image": labelled(14), "video": labelled(6, 3)}
    photo, clip = (routing.routes_of(model, v)[1] for v in (pictures(14), clips()))
    given = rows, {"image": (1, 2, 2), "video": (2, 2, 2)}, splits.region_weights((1, 2, 2))
    questions = {2: splits.splits_of(photo, clip, *given, phased(6, 2))}
    table, index = experts.specificity_table(questions, 20), experts.index_table(questions, 20)
    asked = {f"{what}, {task}" for what in ("emotion", "region", "place")
             for task in ("image", "video")}
    tasks = ["task", "task, first time step"]
    assert set(table.about) == asked | {*tasks, "phase, video"} and list(index.about) == tasks
    assert (table.bits <= table.limit + 1e-9).all() and (table.bits >= -1e-9).all()
    assert index["index"].between(0, 1).all()
    assert "phase, video" not in {s.about for s in splits.splits_of(photo, clip, *given)}
    usage = experts.usage_table(questions, 20).groupby(["task", "by", "group"]).share.sum()
    assert usage.to_numpy() == pytest.approx(1)
    found = experts.beyond_null(table.assign(seed=0))
    assert (found.beyond == found["mean"]).all() and found.p_holm.between(0, 1).all()


def told(task: float, seed: int) -> pd.DataFrame:
    """One run whose experts follow the emotion, and the task as far as is asked."""
    rng, units = np.random.default_rng(seed), np.arange(60)
    kind, emotion = np.repeat(["image", "video"], 30), np.tile(["fear", "anger", "neutral"], 20)
    usage = rng.dirichlet(np.ones(4), 60)
    usage += 3 * np.eye(4)[np.unique(emotion, return_inverse=True)[1]]
    usage += task * np.outer(kind == "image", [0, 0, 0, 4])
    usage /= usage.sum(1, keepdims=True)
    both = [group_split("task", usage, kind, units, True),
            group_split("emotion, image", usage[:30], emotion[:30], units[:30], False)]
    return experts.specificity_table({3: both}, 100).assign(seed=seed)


def test_what_is_told_beyond_the_null_is_compared_as_a_share_of_the_limit():
    runs = pd.concat([told(0, s) for s in range(3)], ignore_index=True)
    found = experts.beyond_null(runs).set_index("about")
    task, emotion = found.loc["task"].iloc[0], found.loc["emotion, image"].iloc[0]
    assert abs(task["mean"]) < 3 and task["mean"] < 1.5 * task.null_top and task.p_holm > 0.05
    assert 0 < emotion.mean_low < emotion["mean"] < emotion.mean_high < 100
    assert emotion.p_holm < 0.05
    null = 100 * np.stack(list(runs[runs.about == "task"].null)).mean(0)            # of one bit
    assert task.null_top == pytest.approx(np.percentile(null - null.mean(), 95))
    part = found.loc["emotion, image"]
    expected = 100 * (part.bits - part.null_mean) / np.log2(3)
    assert part.beyond.to_numpy() == pytest.approx(expected.to_numpy())
    assert (experts.beyond_null(told(1, 0)).p_holm < 0.05).all()
    single = experts.beyond_null(told(0, 0).assign(limit=0.0))
    assert single["mean"].isna().all() and single.p_holm.isna().all()
    assert all(n / (1 + experts.permutations_for(n)) <= 0.05 for n in (1, 9, 18, 54))


def test_experts_of_two_seeds_are_matched_whatever_their_numbers():
    gates, other = (torch.rand(20, 8, 4, generator=torch.Generator().manual_seed(s))
                    for s in (0, 1))
    routes = {0: {2: gates}, 1: {2: gates[..., [2, 0, 3, 1]]}, 2: {2: other}}
    found = experts.seed_agreement(routes, 50)
    table = found.set_index(["seed_a", "seed_b"])
    same, apart = table.loc[0, 1], table.loc[0, 2]
    assert same.agreement == same.matched == pytest.approx(1.0) and same.p < 0.05
    assert abs(apart.agreement) < 0.1 and apart.p > 0.05
    assert apart.null_mean > 0.25                           # the best of 24 matchings, by luck
    assert experts.seed_agreement({0: {2: gates}}).empty
    read = printed.agreement_as_read(found.assign(task="image"), {"image": "photos"})
    assert read["p (Holm)"].tolist() == [f"≤ {found.p.max():.3f}"]


def test_two_seeds_that_divide_by_place_are_not_alike_for_that_alone():
    random = torch.Generator().manual_seed(3)
    a, b = (torch.eye(4)[torch.randint(0, 4, (16,), generator=random)].expand(30, 16, 4)
            for _ in range(2))
    table = experts.seed_agreement({0: {1: a}, 1: {1: b}}, 100).iloc[0]
    assert table.matched > 0.3 and table.p > 0.05
    turned = experts.seed_agreement({0: {1: a}, 1: {1: a[..., [3, 2, 1, 0]]}}, 100)
    assert turned.iloc[0].p < 0.02


def test_released_routing_changes_between_passes_and_paper_routing_does_not():
    model, x, subjects = tiny(), pictures(40), {"image": labelled(40, 8).subject}
    torch.nn.init.constant_(model.blocks[1].moae.noise_proj.bias, 3.0)
    table = routing.compare_modes(model, x, np.zeros(40, int), "image")
    layer = model.moae_layers()[1]
    assert layer.capacity_factor is None and layer.noise_mode == "train"
    shift, dropped = (table.groupby("mode")[c].max() for c in ("shift", "dropped"))
    assert shift["paper"] < 1e-5 < 1e-4 < shift.drop("paper").min()
    assert dropped["paper"] == dropped["noise only"] == 0 < dropped["capacity only"] < 1
    modes = routing.modes_table(table, subjects, 20)
    assert modes.set_index("mode").change["paper"] == 0
    read = printed.modes_as_read(modes, {"image": "40 photos"})
    change = read["change of WAR (points)"]
    assert change[0] == "--" and all(c.count("[") == 1 for c in change[1:])
    lost = table.assign(correct=np.where(table["mode"] == "released", 0.0, 1.0))
    found = routing.modes_table(lost, subjects, 20).set_index("mode")
    assert found.change["released"] == found.low["released"] == -100


def test_the_size_of_the_experts_branch():
    model, x, seen = tiny(), torch.randn(2, 3, 32, 32), []
    layer, mlp = model.moae_layers()[1], model.blocks[1].mlp
    torch.nn.init.zeros_(layer.w2)
    torch.nn.init.zeros_(layer.b2)
    with mlp.register_forward_hook(lambda module, given, out: seen.append(out.detach())):
        model(x)
    assert routing.branch_size(model, x) == {1: 0.0}
    torch.nn.init.ones_(layer.b2)                           # the branch gives 1 to every token
    expected = float(1 / seen[0].square().mean().sqrt())
    assert routing.branch_size(model, x)[1] == pytest.approx(expected, rel=1e-5)
