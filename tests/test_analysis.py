"""Analyses on cases whose answers are known."""
from __future__ import annotations


import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from scipy.stats import ttest_1samp

from s4d.models import create
from s4d.study import confusions as cf
from s4d.study import similarity as co
from s4d.study import experts as ex
from s4d.study import gains as ga
from s4d.study import intervals as pe
from s4d.study import printed
from s4d.study import routing as ro
from s4d.study import splits as sp
from s4d.study import stimuli as st
from s4d.study import transfer as tr
from s4d.study.figures import clips as study_clips
from s4d.study.figures import correlation as study_correlation
from s4d.study.figures import experts as study_experts
from s4d.study.figures import marks, style

NAMES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")


def tiny(experts: int = 4, seed: int = 0):
    """A model of 2 blocks whose experts were moved away from zero, so that routing matters."""
    torch.manual_seed(seed)
    model = create("s4d_nano_patch16_64", img_size=32, num_frames=4, embed_dim=32, depth=2, num_heads=2, stem_dim=8, num_experts=experts).eval()
    for layer in model.moae_layers().values():
        torch.nn.init.normal_(layer.w2, std=0.3)
        torch.nn.init.normal_(layer.router.weight, std=1.0)
    return model


def pictures(n: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def clips(n: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 4, 32, 32), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


def labelled(n: int, subjects: int = 6) -> pd.DataFrame:
    return pd.DataFrame(dict(path=[f"{i}.jpg" for i in range(n)], label=[NAMES[i % 7] for i in range(n)],
                             subject=[f"s{i % subjects}" for i in range(n)]))


# Experts

def test_recorded_gates_sum_to_one_and_the_model_stays_as_it_was():
    model, x = tiny(), pictures()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plain = st.features(model, x)
    routes = ro.routes_of(model, x)
    assert list(routes) == [1] and routes[1].shape == (12, 4, 4)
    torch.testing.assert_close(routes[1].sum(-1), torch.ones(12, 4))
    assert ((routes[1] > 0).sum(-1) == 2).all()
    assert all(layer.record is None for layer in model.moae_layers().values())
    np.testing.assert_array_equal(st.features(model, x), plain)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_recorder_gives_up_its_place_after_an_error_and_to_an_outer_one():
    model, layer = tiny(), 1
    with pytest.raises(RuntimeError), ro.record_routing(model):
        raise RuntimeError
    assert model.moae_layers()[layer].record is None
    with ro.record_routing(model) as outer:
        with ro.record_routing(model) as inner:
            st.features(model, pictures(2))
        st.features(model, pictures(2))
    assert len(outer[layer]) == len(inner[layer]) == 1
    with pytest.raises(ValueError, match="experts=0"), ro.record_routing(tiny(num_experts=0)):
        pass


def test_an_expert_is_switched_off_inside_the_context_only():
    model, x = tiny(), pictures()
    free = ro.routes_of(model, x)[1]
    busiest = int(free.sum((0, 1)).argmax())
    with ro.without_expert(model, 1, busiest):
        masked = ro.routes_of(model, x)[1]
    assert masked[..., busiest].sum() == 0 < free[..., busiest].sum()
    torch.testing.assert_close(masked.sum(-1), torch.ones(12, 4))
    assert torch.equal(ro.routes_of(model, x)[1], free)
    with pytest.raises(ValueError, match="no expert 9 in block 1"), ro.without_expert(model, 1, 9):
        pass


def test_the_cost_of_an_expert_falls_on_the_emotion_that_it_serves():
    """Dark and bright pictures have tokens of their own, so an expert of one kind serves one emotion only."""
    model, n = tiny(), 12
    x = torch.cat([pictures(n) // 8, 255 - pictures(n) // 8])
    rows = pd.DataFrame(dict(label=["fear"] * n + ["anger"] * n, subject=[f"s{i % 6}" for i in range(2 * n)]))
    gates = ro.routes_of(model, x)[1]
    served = (gates > 0).any(1)
    only = [e for e in range(4) if served[:n, e].any() and not served[n:, e].any()]
    costs = ro.cost_of_experts(model, x, rows, np.zeros(2 * n, int), "image")
    assert len(costs) == 4 * 3 and set(costs.emotion) == {"all", "fear", "anger"} and only
    one = costs[costs.expert == only[0] + 1].set_index("emotion")
    assert abs(one.change["anger"]) < 1e-4 < abs(one.change["fear"]) and (one.low <= one.high).all()
    assert one.change["all"] == pytest.approx((one.change["fear"] + one.change["anger"]) / 2, abs=1e-6)
    few = ro.cost_of_experts(model, x, rows.assign(subject="s0"), np.zeros(2 * n, int), "image")
    assert few.low.isna().all() and few.p.isna().all() and few.change.notna().all()


def test_the_interval_of_a_few_people_is_students_and_knows_that_samples_of_a_person_are_alike():
    rng = np.random.default_rng(0)
    values, names = rng.normal(0.3, 1, 9), pd.Series([f"s{i}" for i in range(9)])
    found, known = pe.cluster_t(values, names), ttest_1samp(values, 0)
    assert found["p"] == pytest.approx(known.pvalue) and [found["low"], found["high"]] == pytest.approx(list(known.confidence_interval()))
    again = pe.cluster_t(np.repeat(values, 3), names.repeat(3).reset_index(drop=True))
    assert [again[k] for k in ("low", "high", "p")] == pytest.approx([found[k] for k in ("low", "high", "p")])      # copies tell nothing new
    assert (again["samples"], again["subjects"]) == (27, 9)
    assert pe.cluster_t(np.zeros(6), names[:6])["p"] == 1 and np.isnan(pe.cluster_t(values[:4], names[:4])["p"])
    inside = np.mean([(lambda f: f["low"] < 0 < f["high"])(pe.cluster_t(rng.normal(size=8), names[:8])) for _ in range(400)])
    assert 0.92 < inside < 0.98                                                          # a percentile bootstrap of eight covers 0.88


def test_changes_are_corrected_over_all_experts_and_cells_without_people_are_no_test():
    costs = switched().assign(p=[0.01, 0.02, np.nan] * 8)
    costs.loc[0, "p"] = 0.001
    out = ro.corrected(costs)
    whole = out[out.emotion == "all"].p_holm
    assert whole.iloc[0] == pytest.approx(0.008) and whole.iloc[1:].to_numpy() == pytest.approx(0.07)      # eight means of all samples
    cells = out[out.emotion != "all"]
    assert cells.p_holm.isna().sum() == 8 and cells.p_holm.dropna().to_numpy() == pytest.approx(0.16)


def test_usage_counts_assignments_by_emotion():
    gates = torch.zeros(4, 2, 3)
    gates[:2, :, 0], gates[2:, :, 1], gates[:, :, 2] = 0.7, 0.7, 0.3     # two labels with an expert of their own, one shared
    split = sp.group_split("emotion, image", sp.sample_usage(gates), np.array(["fear", "fear", "anger", "anger"]), np.arange(4), False)
    table = ex.usage_table({4: [split]}, 50).set_index(["group", "expert"])
    assert table.share["fear"].tolist() == [0.5, 0, 0.5] and table.share["anger"].tolist() == [0, 0.5, 0.5]
    assert (table.low == table.share).all() and set(table.task) == {"image"} and set(table.samples) == {2}
    found = ex.entropy_table({3: gates}, "image").iloc[0]
    assert found.effective_experts == pytest.approx(2 ** 1.5) and found.unused == 0 and found.load == pytest.approx(1.5)
    assert table.difference["fear"].tolist() == [0.5, -0.5, 0] and (table.difference_low <= table.difference).all()
    alone = sp.group_split("emotion, image", sp.sample_usage(gates), np.array(["fear"] * 4), np.arange(4), False)
    assert ex.usage_table({4: [alone]}, 20).difference.isna().all()                      # nobody to be compared with


def divided(task: float, emotion: float, people: int = 24) -> pd.DataFrame:
    """Usage of two experts by photos and clips that differ by task, by emotion, or not."""
    rng, n = np.random.default_rng(0), 2 * people
    kind, label = np.repeat(["image", "video"], people), np.tile(["fear", "anger"], people)
    first = 0.5 + task / 2 * np.where(kind == "video", 1, -1) + emotion / 2 * np.where(label == "fear", 1, -1) + 0.02 * rng.normal(size=n)
    usage = np.stack([first, 1 - first], 1)
    splits = [sp.group_split("task", usage, kind, np.arange(n), True)]
    splits += [sp.group_split(f"emotion, {t}", usage[kind == t], label[kind == t], np.arange(people), False) for t in ("image", "video")]
    return ex.usage_table({2: splits}, 100)


@pytest.mark.parametrize("task, emotion", [(0.05, 0.4), (0.4, 0.05)])
def test_the_figure_of_usage_shows_what_was_planted(task, emotion):
    ax = study_experts.usage(divided(task, emotion)).axes[0]
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[0] == "clips minus photos (n = 24, 24)" and len(names) == 5
    assert ax.texts[0].get_text()[:1] == ("+" if task > 0.1 else "")      # 5 points are not shown beside louder emotions


def test_cells_whose_interval_holds_zero_bear_no_number():
    table = divided(0.2, 0.2).assign(difference_low=-0.1, difference_high=0.1)
    assert {t.get_text() for t in study_experts.usage(table).axes[0].texts} == {""}


def test_maps_of_photos_and_clips_agree_where_experts_keep_their_places():
    places = torch.Generator().manual_seed(0)
    gates = torch.rand(1, 8, 4, generator=places).repeat(30, 1, 1) + 0.01 * torch.rand(30, 8, 4, generator=places)
    busy = torch.tensor([0.0, 1.0, 2.0, 3.0])                                            # an expert that is busier everywhere is no place
    grids, units = {"image": (1, 2, 4), "video": (2, 2, 4)}, {"image": np.arange(30), "video": np.arange(30) // 2}
    same = ex.map_agreement(gates, gates.repeat(1, 2, 1) + busy, grids, units)
    assert 0.99 < same["agreement_low"] <= same["agreement"] <= same["agreement_high"] <= 1
    moved = gates[:, torch.randperm(8, generator=places)].repeat(1, 2, 1) + busy
    assert ex.map_agreement(gates + busy, moved, grids, units)["agreement"] < 0.7


def test_token_maps_put_a_token_where_it_lies_on_the_face():
    gates = torch.zeros(5, 2 * 2 * 3, 2)
    gates[:, [4, 10], 1] = 1.0                                            # row 1, column 1, at both time steps
    maps = ex.token_maps(gates, (2, 2, 3))
    assert maps.shape == (2, 2, 3) and maps[1, 1, 1] == 1 and maps.sum() == 1
    table = ex.maps_table({3: gates}, (2, 2, 3), "video")
    assert len(table) == 12 and table.loc[table.gate.idxmax(), ["block", "expert", "row", "column"]].tolist() == [4, 2, 1, 1]
    with pytest.raises(ValueError, match="12 tokens"):
        ex.token_maps(gates, (1, 2, 3))


def test_information_and_index_of_separate_equal_and_unbalanced_groups():
    apart, alike = np.eye(2), np.full((2, 2), 0.5)
    counts = np.array([300.0, 1.0])
    assert ex.information(apart * counts[:, None], counts) == pytest.approx(1.0)           # group sizes do not matter
    assert ex.distance(apart * counts[:, None], counts) == pytest.approx(1.0)
    assert ex.information(alike * counts[:, None], counts) == ex.distance(alike * counts[:, None], counts) == pytest.approx(0.0)
    half = np.array([[1.0, 0.0], [0.75, 0.25]])
    assert ex.distance(half, np.ones(2)) == pytest.approx(0.25)
    assert ex.information(np.vstack([apart, np.zeros(2)]), np.array([1.0, 1.0, 0.0])) == pytest.approx(1)   # an empty group is left out


def test_a_planted_task_is_found_and_a_permuted_one_not():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(20), 4)
    task = np.where(units < 10, "image", "video")
    usage = rng.dirichlet(np.ones(4), 80)
    planted = usage + np.where(task == "image", 1.0, 0.0)[:, None] * np.array([2, 0, 0, 0])
    planted /= planted.sum(1, keepdims=True)
    for measure in (ex.information, ex.distance):
        found = ex.judged(sp.group_split("task", planted, task, units, True), measure, 200)
        assert found["value"] > 2 * found["null_95"] and found["p"] < 0.02 and found["people"] == 20
        assert found["low"] <= found["value"] <= found["high"] + 0.03 and found["low"] > found["null_95"]
        assert ex.judged(sp.group_split("task", usage, task, units, True), measure, 200)["p"] > 0.05


def test_the_null_over_whole_people_is_not_fooled_by_people():
    units, p = np.repeat(np.arange(8), 20), {"samples": [], "people": []}
    task = np.where(units < 4, "image", "video")
    for seed in range(6):
        usage = np.random.default_rng(seed).dirichlet(np.ones(4) * 0.5, 8)[units]        # only the person decides
        p["people"].append(ex.judged(sp.group_split("task", usage, task, units, True), permutations=60, seed=seed)["p"])
        p["samples"].append(ex.judged(sp.group_split("task", usage, task, np.arange(160), False), permutations=60, seed=seed)["p"])
    assert np.median(p["samples"]) < 0.05 and np.median(p["people"]) > 0.1


def test_emotions_are_dealt_within_a_person_and_found_beside_a_louder_identity():
    rng, units = np.random.default_rng(0), np.repeat(np.arange(10), 6)
    emotion = np.tile(["fear", "anger", "neutral"], 20)
    person = rng.dirichlet(np.ones(4) * 0.3, 10)[units]
    split = sp.group_split("emotion, image", person, emotion, units, False)
    dealt = split.null(np.random.default_rng(1))
    np.testing.assert_allclose(dealt[0], split.sums.sum(0))                              # usage that only the person decides cannot change
    planted = 0.9 * person + 0.1 * np.eye(4)[np.unique(emotion, return_inverse=True)[1]]
    assert ex.judged(sp.group_split("emotion, image", planted, emotion, units, False), permutations=100)["p"] < 0.02
    noisy, shuffled = planted + 0.05 * rng.random((60, 4)), rng.permutation(emotion)
    assert ex.judged(sp.group_split("emotion, image", noisy, shuffled, units, False), permutations=100)["p"] > 0.05


def test_places_of_a_router_that_reads_positions_and_of_one_that_does_not():
    by_place = torch.eye(4)[torch.arange(4)].expand(10, 4, 4)
    found = ex.judged(sp.place_split("place, image", by_place, (1, 2, 2), np.arange(10)), permutations=100)
    assert found["value"] == pytest.approx(2.0) and found["p"] < 0.02
    random = torch.eye(4)[torch.randint(0, 4, (50, 4), generator=torch.Generator().manual_seed(0))]
    assert ex.judged(sp.place_split("place, image", random, (1, 2, 2), np.arange(50)), permutations=100)["p"] > 0.05


def test_regions_lie_where_they_belong_on_the_face():
    weights = sp.region_weights((1, 4, 4))
    np.testing.assert_allclose(weights.sum(0), 1)
    rows = dict(zip(sp.REGIONS, (weights.reshape(5, 4, 4).sum(2) / weights.sum(1)[:, None])))
    down = {name: share @ np.arange(4) for name, share in rows.items()}
    assert down["brows"] < down["eyes"] < down["nose"] < down["mouth"]
    assert min(weights[:4].sum(1)) > 0.2 and weights[-1].reshape(4, 4)[0].min() > 0.8    # forehead and background are no region
    fine = sp.region_weights((4, 10, 10))                                                # time is not read, any grid of places will do
    assert fine.shape == (5, 100) and fine[:4].max(1).min() > 0.5


def test_routing_by_region_is_found_and_by_a_shuffled_face_not():
    weights = np.eye(5)[np.random.default_rng(2).permutation(np.repeat(np.arange(5), 5))].T      # five regions of five places
    leader = torch.from_numpy(weights.argmax(0)).clamp(max=3)
    planted = torch.eye(4)[leader].repeat(12, 2, 1)                                      # two time steps, four experts
    units = np.arange(12)
    found = ex.judged(sp.place_split("region, video", planted, (2, 5, 5), units, weights), permutations=200)
    assert found["value"] > 1.8 and found["p"] < 0.02
    generator = torch.Generator().manual_seed(0)
    other = torch.eye(4)[leader[torch.randperm(25, generator=generator)]].repeat(12, 2, 1)       # as clear a division, by other borders
    assert ex.judged(sp.place_split("region, video", other, (2, 5, 5), units, weights), permutations=200)["p"] > 0.05
    table = ex.usage_table({2: [sp.place_split("region, video", planted, (2, 5, 5), units, weights)]}, 20)
    assert table[(table.group == "brows") & (table.expert == 1)].share.item() == 1


def phased(n: int = 40, steps: int = 4, seed: int = 0) -> np.ndarray:
    """Courses of phases `[N, 3, steps]` that begin at different times; every eighth clip is neutral."""
    rng, weights = np.random.default_rng(seed), np.zeros((n, 3, steps))
    for clip in range(n):
        borders = np.sort(rng.integers(0, steps + 1, 2))
        weights[clip, np.searchsorted(borders, np.arange(steps), side="right"), np.arange(steps)] = clip % 8 > 0
    return weights


def test_routing_by_phase_is_found_and_by_time_alone_not():
    weights, grid = phased(), (4, 2, 2)
    leader = np.where(weights.sum(1) > 0, weights.argmax(1), 3)                          # [N, steps]
    spread = lambda leader: torch.from_numpy(np.repeat(np.eye(4)[leader], 4, axis=1)).float()
    found = ex.judged(sp.phase_split("phase, video", spread(leader), grid, np.arange(40) % 10, weights), permutations=200)
    assert found["value"] == pytest.approx(np.log2(3)) and found["p"] < 0.02
    by_time = np.tile(np.arange(4), (40, 1))
    clock = ex.judged(sp.phase_split("phase, video", spread(by_time), grid, np.arange(40) % 10, weights), permutations=200)
    assert clock["value"] > 0.1 and clock["p"] == 1                                      # onset is early, yet the null knows as much
    other = leader[np.random.default_rng(0).permutation(40)]
    assert ex.judged(sp.phase_split("phase, video", spread(other), grid, np.arange(40) % 10, weights), permutations=200)["p"] > 0.05


def test_phases_are_those_of_the_frames_that_the_model_sees():
    phase = np.array(["neutral"] * 4 + ["onset"] * 3 + ["apex"] * 5 + ["offset"] * 4)
    steps = sp.steps_of(phase, 8, 2)                                                     # frames 0, 2, 4 .. 14, two a time step
    assert steps.T.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert sp.steps_of(np.array(["onset", "apex"] * 4), 4, 1).tolist() == [[0.5, 0.5], [0.5, 0.5], [0, 0]]
    assert sp.phase_weights(None, labelled(3), None) is None


def test_phases_come_from_the_truth_of_a_corpus(tmp_path):
    from s4d.config import Finetune, Source
    rows = [(f"dfew/{c}.mp4", "dfew", t, p) for c in "ab" for t, p in enumerate(["onset", "apex", "offset", "neutral"])]
    pd.DataFrame(rows, columns=["path", "corpus", "frame", "phase"]).to_csv(tmp_path / "truth.csv.gz", index=False)
    cfg = Finetune(Source("affectnet", ""), Source("dfew", ""), img_size=32, num_frames=4, sampling_rate=1)
    found = sp.phase_weights(tmp_path, pd.DataFrame(dict(path=["b.mp4", "a.mp4"])), cfg)
    assert found.shape == (2, 3, 2) and found[0].tolist() == [[0.5, 0], [0.5, 0], [0, 0.5]]


def test_specificity_table_names_every_question():
    model = tiny()
    rows = {"image": labelled(14), "video": labelled(6, 3)}
    photo, clip = (ro.routes_of(model, v)[1] for v in (pictures(14), clips()))
    grids, weights = {"image": (1, 2, 2), "video": (2, 2, 2)}, sp.region_weights((1, 2, 2))
    questions = {2: sp.splits_of(photo, clip, rows, grids, weights, phased(6, 2))}
    table, index = ex.specificity_table(questions, 20), ex.index_table(questions, 20)
    asked = {f"{what}, {task}" for what in ("emotion", "region", "place") for task in ("image", "video")}
    tasks = ["task", "task, first time step"]
    assert set(table.about) == asked | {*tasks, "phase, video"} and list(index.about) == tasks
    assert (table.bits <= table.limit + 1e-9).all() and (table.bits >= -1e-9).all() and index["index"].between(0, 1).all()
    assert "phase, video" not in {s.about for s in sp.splits_of(photo, clip, rows, grids, weights)}
    usage = ex.usage_table(questions, 20)
    assert usage.groupby(["task", "by", "group"]).share.sum().to_numpy() == pytest.approx(1)
    found = ex.beyond_null(table.assign(seed=0))
    assert (found.beyond == found["mean"]).all() and found.p_holm.between(0, 1).all()
    assert {t.get_text().split(" (")[0] for t in study_experts.specificity(found).axes[0].get_yticklabels()} == {
        "emotion, photos", "emotion, clips", "place, photos", "place, clips", "region, photos", "region, clips", "phase, clips", *tasks}


def told(task: float, seed: int, draws: int = 100) -> pd.DataFrame:
    """One run whose experts follow the emotion, and the task as far as is asked."""
    rng, units = np.random.default_rng(seed), np.arange(60)
    kind, label = np.repeat(["image", "video"], 30), np.tile(["fear", "anger", "neutral"], 20)
    usage = rng.dirichlet(np.ones(4), 60) + 3 * np.eye(4)[np.unique(label, return_inverse=True)[1]]
    usage += task * np.where(kind == "image", 1, 0)[:, None] * np.array([0, 0, 0, 4])
    usage /= usage.sum(1, keepdims=True)
    splits = [sp.group_split("task", usage, kind, units, True), sp.group_split("emotion, image", usage[:30], label[:30], units[:30], False)]
    return ex.specificity_table({3: splits}, draws).assign(seed=seed)


def test_what_is_told_beyond_chance_is_compared_as_a_share_of_what_could_be():
    runs = pd.concat([told(0, s) for s in range(3)], ignore_index=True)
    found = ex.beyond_null(runs).set_index("about")
    task, emotion = found.loc["task"].iloc[0], found.loc["emotion, image"].iloc[0]
    assert abs(task["mean"]) < 3 and task.p_holm > 0.05 and task["mean"] < 1.5 * task.null_top      # its plug-in bits are above 0, this is not
    assert emotion.p_holm < 0.05 and 0 < emotion.mean_low < emotion["mean"] < emotion.mean_high < 100
    null = 100 * np.stack(list(runs[runs.about == "task"].null)).mean(0)                            # of one bit; less its own mean, as the value is
    assert task.null_top == pytest.approx(np.percentile(null - null.mean(), 95)) and task.null_top > 0
    part = found.loc["emotion, image"]
    assert part.beyond.to_numpy() == pytest.approx(100 * (part.bits - part.null_mean) / np.log2(3))
    assert part.beyond.mean() == pytest.approx(emotion["mean"])
    planted = ex.beyond_null(told(1, 0))
    assert (planted.p_holm < 0.05).all()
    single = ex.beyond_null(told(0, 0).assign(limit=0.0))
    assert single["mean"].isna().all() and single.p_holm.isna().all()


def test_enough_permutations_let_the_smallest_p_outlast_the_correction():
    assert all(tests / (1 + ex.permutations_for(tests)) <= 0.05 for tests in (1, 9, 18, 54))
    assert 18 / (1 + 250) > 0.05


def test_experts_of_two_seeds_are_matched_whatever_their_numbers():
    gates = torch.rand(20, 8, 4, generator=torch.Generator().manual_seed(0))
    other = torch.rand(20, 8, 4, generator=torch.Generator().manual_seed(1))
    found = ex.seed_agreement({0: {2: gates}, 1: {2: gates[..., [2, 0, 3, 1]]}, 2: {2: other}}, 50)
    table = found.set_index(["seed_a", "seed_b"])
    assert table.agreement[0, 1] == table.matched[0, 1] == pytest.approx(1.0) and table.p[0, 1] < 0.05
    assert abs(table.agreement[0, 2]) < 0.1 and table.matched[0, 2] < table.null_95[0, 2] + 0.05 and table.p[0, 2] > 0.05
    assert table.null_mean[0, 2] > 0.25                                                  # the best of 24 pairings agrees by luck
    assert ex.seed_agreement({0: {2: gates}}).empty
    assert ex.stability(found.iloc[:1]) == "stable" and ex.stability(found.iloc[1:]) == "unstable"
    assert ex.stability(found.iloc[:0]) == "unknown" and ex.stability(found.iloc[[0, 0, 1]]) == "partly"
    read = printed.agreement_as_read(found.assign(task="image"), {"image": "photos"})
    assert len(read) == 1 and read.matched[0].startswith(f"{100 * found.matched.mean():.0f} % (")
    assert read["p (Holm)"][0] == f"≤ {found.p.max():.3f}"
    assert printed.agreement_as_read(found.iloc[:0].assign(task="image"), {"image": "photos"}).empty


def test_numbers_over_runs_are_read_as_mean_and_range():
    table = pd.DataFrame(dict(block=[2, 2, 3], img_size=[0.1, 0.3, 0.4]))
    assert printed.spans(table, ["block"], {"size": ".0%"}).values.tolist() == [[2, "20 % (10 % to 30 %)"], [3, "40 %"]]


def test_two_seeds_that_divide_by_place_are_not_alike_for_that_alone():
    places = torch.Generator().manual_seed(3)
    a, b = (torch.eye(4)[torch.randint(0, 4, (16,), generator=places)].expand(30, 16, 4) for _ in range(2))
    table = ex.seed_agreement({0: {1: a}, 1: {1: b}}, 100).iloc[0]
    assert table.matched > 0.3 and table.p > 0.05                            # tokens dealt singly would call this far from chance
    assert ex.seed_agreement({0: {1: a}, 1: {1: a[..., [3, 2, 1, 0]]}}, 100).iloc[0].p < 0.02


def test_leaders_are_written_where_their_tokens_lie():
    gates = torch.full((2, 8, 3), 0.1)
    gates[1, 5, 2] = 0.9                                                                 # step 1, row 0, column 1 of a 2 x 2 x 2 grid
    table = ex.leading_table(gates, (2, 2, 2), [1])
    assert len(table) == 8 and table.loc[table.gate.idxmax(), ["sample", "step", "row", "column", "expert"]].tolist() == [1, 1, 0, 1, 3]


def test_released_routing_changes_between_passes_and_paper_routing_does_not():
    model, x = tiny(), pictures(40)
    torch.nn.init.constant_(model.blocks[1].moae.noise_proj.bias, 3.0)
    table = ro.compare_modes(model, x, np.zeros(40, int), "image")
    shift, dropped = table.groupby("mode")["shift"].max(), table.groupby("mode").dropped.first()
    assert shift["paper"] < 1e-5 and dropped["paper"] == dropped["noise only"] == 0
    assert min(shift["noise only"], shift["released"], shift["capacity only"]) > 1e-4
    assert 0 < dropped["capacity only"] < 1
    modes = ro.modes_table(table, {"image": pd.Series([f"s{i % 8}" for i in range(40)])}, 20)
    read = printed.modes_as_read(modes, {"image": "40 photos"})
    assert read["change of WAR (points)"].tolist()[0] == "--" and all(c.count("[") == 1 for c in read["change of WAR (points)"][1:])
    assert read["WAR (%)"].str.fullmatch(r"\d+\.\d").all() and set(read.samples) == {"40 photos"}
    layer = model.moae_layers()[1]
    assert layer.capacity_factor is None and layer.noise_mode == "train"
    summary = ro.modes_table(table, {"image": labelled(40).subject}, resamples=20).set_index("mode")
    assert summary.change["paper"] == 0 and summary["shift"]["released"] > 0
    lost = table.assign(correct=np.where(table["mode"] == "released", 0.0, 1.0))
    assert ro.modes_table(lost, {"image": labelled(40).subject}, resamples=20).set_index("mode").change["released"] == -100


# Correlation

def test_cka_and_rsa_of_equal_rotated_and_independent_representations():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(60, 12)), rng.normal(size=(60, 30))
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    assert co.cka(x, x) == pytest.approx(1) and co.rsa(x, x) == pytest.approx(1)
    assert co.cka(x, 3 * x @ turn + 1) == pytest.approx(1) and co.rsa(x, 3 * x @ turn + 1) == pytest.approx(1)
    assert abs(co.cka(x, noise)) < 0.1 and abs(co.rsa(x, noise)) < 0.1
    with pytest.raises(ValueError, match="at least 4"):
        co.cka(x[:3], x[:3])


def test_rsa_is_scipys_spearman_of_the_distances():
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 6))
    y = x[:, :4] + rng.normal(size=(20, 4))
    assert co.rsa(x, y) == pytest.approx(spearmanr(*(pdist(v - v.mean(0), "cosine") for v in (x, y)))[0])


def test_layer_similarity_tells_category_from_individual_content():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 15)
    category, own = rng.normal(size=(4, 10))[labels] * 2, rng.normal(size=(60, 10))
    noise = lambda: 0.5 * rng.normal(size=(60, 10))
    pairs = {"category": (category + noise(), category + noise()), "own": (own + noise(), own + noise()), "none": (noise(), noise())}
    first, second = ({k: v[i] for k, v in pairs.items()} for i in (0, 1))
    rows = pd.DataFrame(dict(label=labels, subject=[f"s{i % 12}" for i in range(60)]))
    table = co.similarity_by_layer({"m": [(first, second)]}, rows, permutations=60).query("measure == 'cka'").set_index("layer")
    assert table.p_any["category"] < 0.05 < table.p_within["category"]
    assert table.p_within["own"] < 0.05 and table.p_any["none"] > 0.05
    assert table.within_mean["category"] > 0.5 * table.value["category"] and abs(table.any_mean["category"]) < 0.1


def test_layer_similarity_tells_the_person_from_the_clip():
    rng = np.random.default_rng(1)
    units = np.arange(60) % 12
    person, own = 2 * rng.normal(size=(12, 10))[units], rng.normal(size=(60, 10))
    noise = lambda: 0.5 * rng.normal(size=(60, 10))
    pairs = {"person": (person + noise(), person + noise()), "own": (own + noise(), own + noise())}
    first, second = ({k: v[i] for k, v in pairs.items()} for i in (0, 1))
    rows = pd.DataFrame(dict(label=["a", "b"] * 30, subject=[f"s{u}" for u in units]))
    both = {"m": [(first, second)], "other": [(second, first), (first, second)]}
    table = co.similarity_by_layer(both, rows, 100, tested=("person",)).query("comparison == 'm'").set_index(["measure", "layer"])
    assert table.p_person["cka", "person"] > 0.05 > table.p_within["cka", "person"]
    assert table.loc[[("rsa", "person"), ("cka", "own")], ["p_person", "person_mean", "any_95"]].isna().all(axis=None)      # not asked for
    alone = co.similarity_by_layer(both, rows.assign(subject=[f"s{i}" for i in range(60)]), 100).query("measure == 'cka'").set_index("layer")
    assert alone.p_person.isna().all() and (alone.p_within["own"] < 0.05).all()             # nobody shows two: no such null
    tested = co.similarity_by_layer(both, rows, 100).query("measure == 'cka'").set_index(["comparison", "layer"])
    assert tested.p_person["m", "own"] < 0.05


def test_shuffles_of_all_comparisons_at_once_are_those_of_each():
    rng = np.random.default_rng(2)
    forms = {"a": [tuple(co.unbiased_centre(rng.normal(size=(20, 5))) for _ in "12") for _ in range(2)],
             "b": [tuple(co.unbiased_centre(rng.normal(size=(20, 5))) for _ in "12")]}
    orders = np.array([rng.permutation(20) for _ in range(7)])
    found = co._shuffled(forms, orders)
    for name, pairs in forms.items():
        np.testing.assert_allclose(found[name], [np.mean([(a * b[np.ix_(o, o)]).sum() for a, b in pairs]) for o in orders])


def test_equal_networks_are_equal_in_every_layer_and_the_interval_knows_it():
    rng = np.random.default_rng(0)
    layers = {"a": rng.normal(size=(40, 8)), "b": rng.normal(size=(40, 8))}
    rows = labelled(40, 10)
    same = co.similarity_by_layer({"m": [(layers, layers), (layers, {k: 3 * v for k, v in layers.items()})]}, rows, 30)
    assert same[["value", "low", "high", "seed_low", "seed_high"]].to_numpy() == pytest.approx(1) and (same.p_any.dropna() < 0.05).all()
    noisy = {k: v + 0.7 * rng.normal(size=v.shape) for k, v in layers.items()}
    found = co.similarity_by_layer({"m": [(layers, noisy)]}, rows, 30)
    assert ((found.low < found.value) & (found.value < found.high) & (found.high <= 1)).all() and found.people.eq(10).all()
    mixed = co.similarity_by_layer({"m": [(layers, noisy), (layers, {k: rng.normal(size=v.shape) for k, v in layers.items()})]}, rows, 30)
    assert (mixed.seed_low < mixed.value).all() and (mixed.value < mixed.seed_high).all()


def test_the_jackknife_gives_the_interval_of_a_mean_over_people():
    rng = np.random.default_rng(0)
    person = rng.normal(size=60)
    values, units = np.repeat(person, 4), np.repeat(np.arange(60), 4)                # a person's samples are equal: 60 values, not 240
    half = pe.jackknife(lambda keep: values[keep].mean(), units, groups=60)
    assert half == pytest.approx(2.0 * person.std(ddof=1) / np.sqrt(60), rel=0.01)
    assert pe.jackknife(lambda keep: values[keep].mean(), units) == pytest.approx(half, rel=0.5)
    assert np.isnan(pe.jackknife(lambda keep: values[keep].mean(), np.zeros(240, int)))


def test_prototypes_match_across_an_offset_and_not_when_classes_are_renamed():
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(7, 20)), np.array(NAMES)[np.arange(140) % 7]
    make = lambda offset: centres[np.arange(140) % 7] + offset + 0.3 * rng.normal(size=(140, 20))
    a, b = co.prototypes(make(0), labels, NAMES), co.prototypes(make(9), labels, NAMES)
    found = co.matched_classes(a @ b.T)
    assert found["diagonal"] > 0.9 and found["p"] < 0.01
    photos, moving = ({("m", seed): make(offset) for seed in (0, 1)} for offset in (0, 9))
    rows = pd.DataFrame(dict(label=labels, subject=[f"s{i % 20}" for i in range(140)]))
    cells, stats = co.prototype_study(photos, moving, rows, rows, list(NAMES), "m")
    equal = cells[cells.image_class == cells.video_class].cosine
    assert len(cells) == 49 and equal.mean() == pytest.approx(stats.diagonal[0]) and stats.seed_low[0] <= stats.seed_high[0]
    assert 0.5 < stats.low[0] < stats.corrected[0] < stats.high[0] and stats.corrected[0] > stats.difference[0]
    noise = {("m", 0): rng.normal(size=(140, 20))}
    low, high = co.prototype_study(noise, {("m", 0): rng.normal(size=(140, 20))}, rows, rows, list(NAMES))[1][["low", "high"]].iloc[0]
    assert low < 0.1 and high - low > 0.05
    assert co.matched_classes(a @ b[[1, 2, 3, 4, 5, 6, 0]].T)["p"] > 0.5
    assert stats.ceiling[0] == pytest.approx(7 / 6) and (stats[["change", "change_low", "change_high"]] == 0).all(axis=None)
    weak = {("weak", 0): rng.normal(size=(140, 20)) + 0.5 * photos["m", 0]}
    stats = co.prototype_study({**photos, **weak}, {**moving, ("weak", 0): moving["m", 0][::-1]}, rows, rows, list(NAMES), "m")[1].set_index("method")
    assert stats.change_high["weak"] < 0 and stats.high["m"] <= stats.ceiling["m"]


def shown_to(people: int, centres: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame]:
    """Features of people who each show up to three emotions, with what is peculiar to the person, and their rows."""
    subject = np.repeat(np.arange(people), rng.integers(1, 4, people))
    label = rng.integers(0, len(centres), len(subject))
    peculiar = 0.7 * rng.normal(size=(people, centres.shape[1]))[subject] + rng.normal(size=(len(subject), centres.shape[1]))
    return centres[label] + peculiar, pd.DataFrame(dict(label=np.array(NAMES)[label], subject=[f"s{i}" for i in subject]))


def test_the_interval_of_matching_prototypes_covers_what_was_planted():
    """Worlds whose clips share half of the photos' prototypes: 95 % intervals hold the true difference in about as many of them."""
    covered, plain = [], []
    for world in range(200):
        rng = np.random.default_rng(world)
        still, own = rng.normal(size=(2, 7, 20))
        moving = 0.5 * still + np.sqrt(0.75) * own
        true = co.matched_classes(co.prototypes(still, NAMES, NAMES) @ co.prototypes(moving, NAMES, NAMES).T)["difference"]
        (photos, photo_rows), (clips, clip_rows) = shown_to(150, still, rng), shown_to(60, moving, rng)
        corrected, low, high = co.freed_of_noise(co.match_without([photos], [clips], photo_rows, clip_rows, list(NAMES)))
        seen = co.matched_classes(co.prototypes(photos, photo_rows.label, NAMES) @ co.prototypes(clips, clip_rows.label, NAMES).T)["difference"]
        covered.append(low <= true <= high)
        plain.append((seen - true, corrected - true))
    assert 0.90 <= np.mean(covered) <= 0.98
    noise, left = np.mean(plain, 0)
    assert noise < -0.02 and abs(left) < -noise / 4
    one = clip_rows[:2].assign(subject="s0")
    assert np.isnan(co.freed_of_noise(co.match_without([photos], [clips[:2]], photo_rows, one, list(NAMES)))).all()


def test_a_class_without_samples_is_left_out_of_the_match():
    rng = np.random.default_rng(0)
    labels = np.array(NAMES)[np.arange(60) % 6]
    p = co.prototypes(rng.normal(size=(60, 8)), labels, NAMES)
    found = co.matched_classes(p @ p.T)
    assert np.isnan(p[6]).all() and found["diagonal"] == pytest.approx(1)


def test_transfer_reads_the_trained_head_on_the_other_modality():
    model, x, rows = tiny(), clips(), labelled(6)
    pooled = st.features(model, x)
    read = pd.concat([tr.read_by_head(model, pooled, rows, head, NAMES, list(NAMES)).assign(method="m", seed=0, head=head, stimuli="video")
                      for head in ("image", "video")])
    direct = model.head["image"](torch.from_numpy(pooled).float()).argmax(1)
    assert read[read["head"] == "image"].predicted.tolist() == [NAMES[i] for i in direct]
    table = tr.transfer_matrix(read, {"m": ("video",)}, resamples=50)
    assert table.zero_shot.tolist() == [True, False] and table.war.between(0, 100).all()
    assert not table.unseen.any() and tr.transfer_matrix(read, {"m": ("image",)}, resamples=50).unseen.tolist() == [True, False]
    assert table.majority.tolist() == pytest.approx([100 * rows.label.value_counts().max() / 6] * 2)
    part = tr.read_by_head(model, pooled, rows, "image", NAMES, ["neutral", "fear"])
    assert set(part.predicted) <= {"neutral", "fear"} and set(part.label) == {"neutral", "fear"}


def test_a_probe_finds_emotions_that_a_line_separates_and_none_in_permuted_labels():
    rng, labels = np.random.default_rng(0), np.array(NAMES)[np.arange(140) % 7]
    centres = rng.normal(size=(7, 10))
    make = lambda: centres[np.arange(140) % 7] + 0.3 * rng.normal(size=(140, 10))
    rows = labelled(140, 20)
    read = lambda labels: pd.concat([tr.read_by_probe(make(), pd.Series(labels), make(), rows, list(NAMES)).assign(
        method="m", seed=0, head="image", stimuli=kind) for kind in ("image", "video")])
    saw = {"m": ("image", "video")}
    table = tr.transfer_matrix(read(labels), saw, 50)
    assert table.war.min() > 95 and table.zero_shot.tolist() == [False, True] and (table.samples == 140).all()
    assert tr.transfer_matrix(read(rng.permutation(labels)), saw, 50).war.max() < 35
    part = tr.read_by_probe(make(), pd.Series(labels), make(), rows, ["neutral", "fear"])
    assert set(part.predicted) == {"neutral", "fear"} == set(part.label)


def test_a_reading_by_its_own_head_has_the_numbers_of_the_comparison():
    from s4d.study import stats
    read = pd.concat([answers(dict.fromkeys(NAMES, r), seed=i).assign(method=m, head="video", stimuli="video")
                      for i, (m, r) in enumerate((("a", 0.4), ("b", 0.6)))])
    table = tr.transfer_matrix(read, {"a": ("video",), "b": ("video",)}, 100)
    known = stats.scores(read.assign(task="video", pretrained=True), resamples=100)
    for metric, columns in (("WAR", ["war", "low", "high"]), ("UAR", ["uar"])):
        np.testing.assert_allclose(table[columns], 100 * known[known.metric == metric][["value", "low", "high"]].to_numpy()[:, :len(columns)])
    assert table.seeds.tolist() == [2, 2] and table.subjects.tolist() == [20, 20]


def test_the_shared_map_keeps_neighbours_and_repeats_itself():
    rng, labels = np.random.default_rng(0), np.array(["fear", "anger"])[np.arange(40) % 2]
    photos, moving = (8.0 * (labels == "fear")[:, None] + rng.normal(size=(40, 5)) for _ in range(2))
    rows = pd.DataFrame(dict(label=labels))
    table = tr.shared_space(photos, moving, rows, rows, most=30)
    pd.testing.assert_frame_equal(table, tr.shared_space(photos, moving, rows, rows, most=30))
    assert table.task.value_counts().tolist() == [30, 30]
    at, label = table[["x", "y"]].to_numpy(), table.label.to_numpy()
    apart = np.linalg.norm(at[:, None] - at[None], axis=2) + 1e9 * np.eye(60)
    assert (label[apart.argmin(1)] == label).mean() > 0.9


def curves(follow: bool) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for c in range(12):
        apex = 4 + c % 5
        intensity = np.exp(-0.5 * ((np.arange(14) - apex) / 2) ** 2)
        probability = 0.2 + 0.6 * intensity if follow else rng.random(14)
        rows += [(f"{c}.mp4", NAMES[1 + c % 2], f"s{c % 6}", t, apex, p, i) for t, (p, i) in enumerate(zip(probability, intensity))]
    return pd.DataFrame(rows, columns=["path", "label", "subject", "frame", "apex", "probability", "intensity"])


def test_a_planted_course_is_found_and_locked_to_the_apex():
    table = cf.course(curves(True), fps=8, resamples=50)
    mean = table[(table.label == "expressive") & (table.quantity == "probability")].set_index("time")["mean"]
    assert mean.idxmax() == 0 and mean[0] == pytest.approx(0.8) and mean.index.min() >= -1
    assert table.groupby(["label", "quantity"]).samples.nunique().eq(1).all()                       # the same clips all along
    assert table[table.label == "expressive"].time.agg(["min", "max"]).tolist() == [-0.5, 0.75] and table.samples.max() == 10
    neutral = curves(True).assign(path=lambda t: "n" + t.path, label="neutral", apex=0)
    pd.testing.assert_frame_equal(cf.course(pd.concat([curves(True), neutral]), fps=8, resamples=50), table)
    assert table[table.label != "expressive"].low.isna().all() and table[table.label == "expressive"].low.notna().all()    # 3 and 6 people


def test_following_ones_own_course_is_told_from_rising_about_the_apex():
    """Courses that all have one width are explained by anybody's; with widths of their own only by themselves."""
    shared, own = curves(True), widths()
    found = {name: cf.follow(frames, resamples=200).set_index("label").loc["expressive"] for name, frames in (("shared", shared), ("own", own))}
    assert found["shared"]["mean"] > 0.999 and found["shared"].null > 0.99 and found["shared"].p > 0.05
    assert found["own"].null_95 < found["own"]["mean"] and found["own"].p < 0.01
    table = cf.follow(shared, resamples=50)
    assert table.label.tolist() == ["expressive", "happiness", "sadness"] and table.clips.tolist() == [12, 6, 6]
    assert table.low.isna().tolist() == [False, True, True]                                   # 6, 3 and 3 people
    assert (cf.follow(curves(False), resamples=50)["mean"].abs() < 0.3).all()
    one = cf.follow(shared.assign(subject="s0"), resamples=50)
    assert one[["null", "null_95", "p", "low"]].isna().all(axis=None)                         # no other person
    assert cf.inside(shared).r.min() > 0.999 and len(cf.inside(shared.assign(intensity=1.0))) == 0


def widths() -> pd.DataFrame:
    """Clips of which each rises and falls at a speed of its own; the probability follows."""
    frames = curves(True)
    frames["intensity"] = np.exp(-0.5 * ((frames.frame - frames.apex) / (1 + frames.path.str[:-4].astype(int) % 5)) ** 2)
    return frames.assign(probability=0.2 + 0.6 * frames.intensity)


@pytest.mark.parametrize("late", [-2, 0, 1])
def test_a_planted_lag_is_found(late):
    frames = curves(True)
    frames["probability"] = frames.groupby("path").probability.shift(late).fillna(0.2)
    curve, best = cf.lagged(frames, fps=8, resamples=50)
    assert best["best"] == best["best_low"] == best["best_high"] == late / 8 and best["peak"] == pytest.approx(late / 8)
    assert curve.loc[curve["mean"].idxmax(), "lag"] == late / 8 and curve["mean"].max() > 0.99 and best["clips"] == 12
    assert cf.lagged(curves(False), fps=8, resamples=50)[0]["mean"].abs().max() < 0.3


def test_without_truth_the_course_is_locked_to_the_middle():
    frames = curves(True).assign(apex=np.nan, intensity=np.nan)
    table = cf.course(frames, resamples=20)
    assert set(table.quantity) == {"probability"} and table.time.min() >= -7 and table.time.max() <= 7
    assert cf.follow(frames, resamples=20).empty and cf.lagged(frames, resamples=20)[1] == {}


def test_confusability_finds_shared_confusions_and_rejects_renamed_ones():
    rng = np.random.default_rng(0)
    base = rng.random((7, 7)) ** 3 + 6 * np.eye(7)
    a, b = (m / m.sum(1, keepdims=True) for m in (base, base + 0.02 * rng.random((7, 7))))
    assert cf.confusability(a, b)["rho"] > 0.8 and cf.confusability(a, b)["p"] < 0.01
    order = rng.permutation(7)
    assert cf.confusability(a, b[np.ix_(order, order)])["p"] > 0.05
    from scipy.stats import spearmanr
    off = ~np.eye(7, dtype=bool)
    found = cf.confusability(a, b)
    assert found["rho"] == pytest.approx(spearmanr(a[off], b[off])[0]) and found["p"] < 0.002 and found["p_least"] == 1 / 2000
    liked = 0.1 * np.arange(7) + 0.001 * rng.random((2, 7, 7))                   # both prefer the same classes, and agree in nothing else
    found = cf.confusability(*liked)
    assert found["rho"] > 0.8 and abs(found["rho_cells"]) < 0.5 and found["p_cells"] > 0.05
    assert np.isnan(cf.confusability(np.ones((7, 7)), b)["p"])


def answers(right: dict[str, float], seeds: int = 2, people: int = 20, seed: int = 0) -> pd.DataFrame:
    """Predictions with a given recall of every emotion: three samples of each emotion a person."""
    rng, rows = np.random.default_rng(seed), []
    for run in range(seeds):
        for p in range(people):
            for label in NAMES:
                wrong = NAMES[(NAMES.index(label) + 1) % 7]
                rows += [(f"{p}-{label}-{k}", f"s{p}", run, label, label if rng.random() < right[label] else wrong) for k in range(3)]
    return pd.DataFrame(rows, columns=["path", "subject", "seed", "label", "predicted"])


def test_the_emotion_that_profits_is_found_and_equal_networks_gain_nothing():
    flat = dict.fromkeys(NAMES, 0.4)
    tests = {("dynamic", "video"): answers(flat), ("multitask", "video"): answers(flat),
             ("s4d", "video"): answers({**flat, "fear": 0.9, "anger": 0.1}, seed=1)}
    table = ga.gain_by_emotion(tests, list(NAMES), resamples=200).set_index(["method", "label"])
    same = table.loc["multitask"]
    assert (same[["gain", "low", "high"]] == 0).all().all() and (same.p_holm == 1).all()
    other = table.loc["s4d"]
    assert other.gain["fear"] > 30 and other.low["fear"] > 0 and other.high["anger"] < 0 and other.p["fear"] < 0.02
    assert (other.samples == 60).all() and (other.people == 20).all() and same.seeds.eq(2).all() and ((other.low <= other.gain) & (other.gain <= other.high)).all()
    few = {k: t[(t.label != "fear") | t.subject.isin(["s1", "s2"])] for k, t in tests.items()}
    assert ga.gain_by_emotion(few, list(NAMES), resamples=20).set_index(["method", "label"]).people["s4d"][["fear", "anger"]].tolist() == [2, 20]
    fear = tests["dynamic", "video"].query("label == 'fear'")
    assert other.without["fear"] == pytest.approx(100 * (fear.predicted == fear.label).mean())


def test_a_planted_relation_of_static_error_and_gain_is_found_and_a_permuted_one_not():
    clear = dict(zip(NAMES, np.linspace(0.1, 0.9, 7)))
    half = dict.fromkeys(NAMES, 0.3)
    gain = {n: 0.3 + 0.6 * v for n, v in clear.items()}      # clear in photos: gains; so error and gain run against each other
    mixed = dict(zip(NAMES, np.array(list(gain.values()))[[3, 0, 5, 2, 6, 1, 4]]))
    tests = {("static", "image"): answers(clear), ("dynamic", "video"): answers(half), ("multitask", "video"): answers(gain, seed=2),
             ("s4d", "video"): answers(mixed, seed=3)}
    points, told = ga.foretold(tests, list(NAMES), resamples=60)
    told = told.set_index("outcome")
    assert told.rho["multitask"] < -0.9 and told.p["multitask"] < 0.01 and told.high["multitask"] < 0
    assert told.p["s4d"] > 0.1 and told.p["error on clips"] > 0.05 and len(points) == 21 and (told.emotions == 7).all()
    sure = ga.rank_correlation(np.arange(7.0), np.arange(7.0), np.tile(np.arange(7.0), (9, 1)), np.tile(np.arange(7.0), (9, 1)))
    assert sure["rho"] == sure["low"] == pytest.approx(1) and sure["p"] == pytest.approx(2 / 5040) == sure["p_least"]
    flat = ga.rank_correlation(np.arange(7.0), np.ones(7), np.ones((9, 7)), np.ones((9, 7)))
    assert np.isnan(flat["rho"]) and np.isnan(flat["p"])


def test_soft_confusion_is_the_mean_probability_by_true_class():
    rows = labelled(70).assign(**{f"prob_{n}": p for n, p in zip(NAMES, np.random.default_rng(0).dirichlet(np.ones(7), 70).T)})
    found = cf.soft_confusion(rows, list(NAMES))
    columns = [f"prob_{n}" for n in NAMES]
    np.testing.assert_allclose(found, rows.groupby("label")[columns].mean().loc[list(NAMES)].to_numpy())
    keys = (("m", "image"), ("m", "video"))
    pairs, stats = cf.confusion_study(dict.fromkeys(keys, rows), {"m": keys}, list(NAMES))
    assert len(pairs) == 42 and (pairs.static == pairs.dynamic).all()
    assert stats.rho[0] == pytest.approx(1) and -1 <= stats.low[0] <= stats.high[0] <= 1
    assert np.isnan(cf.confusability_interval(rows.assign(subject="s0"), rows, list(NAMES))).all()


def test_apex_frames_take_the_true_apex_or_the_middle():
    frames = pd.DataFrame(dict(path=["a"] * 5 + ["b"] * 3, frame=[0, 1, 2, 3, 4, 0, 1, 2]))
    assert st.apex_frames(frames).tolist() == [2, 6]
    assert st.apex_frames(frames, pd.Series({"a": 4, "b": 0})).tolist() == [4, 5]


def test_files_that_cannot_be_read_are_named_with_their_number():
    assert st.left_out({}) == ""
    assert "1 file cannot" in st.left_out({"a.jpg": "empty"})
    assert st.left_out({"a.jpg": "empty", "b.mp4": "truncated"}) == (
        "Left out, because 2 files cannot be read: `a.jpg` (empty); `b.mp4` (truncated).")


def test_a_broken_photo_and_a_broken_clip_are_left_out_and_named(tmp_path, monkeypatch):
    from PIL import Image

    from s4d.config import Finetune, Source
    for name in ("good", "other"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
        (tmp_path / name).mkdir()
        for t in range(4):
            Image.new("RGB", (32, 32)).save(tmp_path / name / f"{t}.png")
    (tmp_path / "other.png").write_bytes(b"no picture")
    (tmp_path / "other" / "3.png").write_bytes(b"no picture")
    row = lambda path: dict(path=path, label="fear", subject="a", split="test")
    source = Source("affectnet", str(tmp_path))
    cfg = Finetune(image=source, video=source, img_size=32, num_frames=4, sampling_rate=1)
    monkeypatch.setattr(st, "tables", lambda cfg: {"image": pd.DataFrame([row("good.png"), row("other.png")])})
    found: dict[str, str] = {}
    x, rows = st.subset(cfg, "image", unreadable=found)
    assert len(x) == 1 and rows.path.tolist() == ["good.png"] and list(found) == ["other.png"] and found["other.png"]
    x, frames = st.frames_of(cfg, pd.DataFrame([row("good"), row("other")]), unreadable=found)
    assert len(x) == 4 and set(frames.path) == {"good"} and list(found) == ["other.png", "other"]


def test_layers_are_read_in_order_and_pooled_is_what_the_heads_see():
    model, x = tiny(), clips()
    found = st.layer_features(model, x)
    assert list(found) == ["embed", "block 1", "block 2", "pooled"]
    np.testing.assert_allclose(found["pooled"], st.features(model, x), atol=1e-6)
    assert np.array_equal(st.choose(10, 4, 1), st.choose(10, 4, 1)) and len(st.choose(3, 10)) == 3


def test_the_size_of_the_experts_branch():
    model = tiny(num_experts=4)
    x = torch.randn(2, 3, 32, 32)
    for layer in model.moae_layers().values():
        torch.nn.init.zeros_(layer.w2)
        torch.nn.init.zeros_(layer.b2)
    assert set(ro.branch_size(model, x).values()) == {0.0}
    last = list(model.moae_layers())[-1]
    seen = []
    handle = model.blocks[last].mlp.register_forward_hook(lambda module, given, output: seen.append(output.detach()))
    model(x)
    handle.remove()
    torch.nn.init.ones_(model.moae_layers()[last].b2)          # every token gets exactly 1 from this branch
    assert ro.branch_size(model, x)[last] == pytest.approx(float(1 / seen[0].square().mean().sqrt()), rel=1e-5)


# Figures

def confused(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two comparisons with many wrong pairs that lie close together."""
    rng, pairs = np.random.default_rng(seed), [(a, b) for a in NAMES for b in NAMES if a != b]
    cells = pd.concat([pd.DataFrame(dict(comparison=c, label=[a for a, _ in pairs], wrong=[b for _, b in pairs],
                                         static=0.2 + 0.05 * rng.random(42), dynamic=0.2 + 0.05 * rng.random(42))) for c in ("m", "s4d")])
    return cells, pd.DataFrame(dict(comparison=["m", "s4d"], rho=0.5, low=0.1, high=0.9, p=[0.0005, 0.25], rho_cells=0.3, p_cells=0.04))


def test_labels_of_the_scatter_cover_neither_each_other_nor_the_border():
    fig = study_correlation.confusability(*confused(), {"m": "One", "s4d": "Two"}, (50, 20))
    fig.draw_without_rendering()
    for ax in fig.axes:
        boxes = [Text.get_window_extent(t) for t in ax.texts]       # without the line to the point
        assert len(boxes) >= 2
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert {t.get_text() for t in ax.texts} == {t.get_text() for t in fig.axes[0].texts}        # the same pairs in every panel
        assert all(0 <= b.x0 and b.x1 <= fig.bbox.x1 for b in boxes)
    assert "p < 0.001" in fig.axes[0].get_title(loc="left") and "p = 0.250" in fig.axes[1].get_title(loc="left")
    assert "0.000" not in "".join(ax.get_title(loc="left") for ax in fig.axes)


def test_the_legend_along_a_clip_lies_outside_the_axes():
    frames = curves(True)
    courses, follow = cf.course(frames, 8, 20).assign(method="static"), cf.follow(frames, 20).assign(method="static")
    lags = cf.lagged(frames, 8, resamples=20)[0].assign(method="static")
    fig = study_clips.along_clip(courses, follow, lags, "s")
    fig.draw_without_rendering()
    assert all(ax.get_legend() is None for ax in fig.axes)
    legend = fig.legends[0].get_window_extent()
    assert not any(legend.overlaps(ax.get_window_extent()) for ax in fig.axes)


def switched() -> pd.DataFrame:
    kinds = [(t, m) for t in ("image", "video") for m in ("all", "fear", "anger")]
    cells = [(b, e, *kind, 0.1, 0.0, 0.2, 10, 6, 1.0) for b in (2, 3) for e in (1, 2) for kind in kinds]
    columns = ["block", "expert", "task", "emotion", "change", "low", "high", "samples", "subjects", "p_holm"]
    return pd.DataFrame(cells, columns=columns)


def test_the_label_of_switched_off_experts_fits_into_the_figure():
    fig = study_experts.switched_off(switched())
    fig.draw_without_rendering()
    ax = fig.axes[0]
    box, axes = ax.yaxis.label.get_window_extent(), ax.get_window_extent()
    assert axes.y0 <= box.y0 and box.y1 <= axes.y1 and box.x0 >= 0
    assert [a.get_title(loc="left") for a in fig.axes] == ["Block 2", "Block 3"]


def test_changes_that_outlast_the_correction_are_filled():
    table = switched()
    one = (table.block == 3) & (table.expert == 2) & (table.task == "video") & (table.emotion == "all")
    table.loc[one, ["change", "low", "high", "p_holm"]] = -4.0, -6.0, -2.0, 0.01
    faces = [[line.get_markerfacecolor() for line in ax.lines if line.get_linestyle() == "None"] for ax in study_experts.switched_off(table).axes]
    assert faces == [["white"] * 4, ["white"] * 3 + [style.TASK_COLOURS["video"]]]


def test_only_large_changes_that_outlast_the_correction_are_framed_and_few_people_are_hatched():
    table = switched().assign(p_holm=0.01)                                               # small changes, however sure, are not framed
    at = (table.block == 3) & (table.expert == 2) & (table.task == "image")
    table.loc[at & (table.emotion == "fear"), "change"] = -2.0
    table.loc[at & (table.emotion == "anger"), ["change", "p_holm"]] = -2.0, 0.2         # large, but not sure
    table.loc[(table.task == "video") & (table.emotion == "anger"), ["subjects", "p_holm"]] = 4, np.nan
    fig = study_experts.switched_off_by_emotion(table)
    rows = list(style.EMOTION_COLOURS)
    fear = sorted(("fear", "anger"), key=rows.index).index("fear")
    framed = [[p.get_xy() for p in ax.patches if not p.get_hatch()] for ax in fig.axes[:4]]
    assert framed == [[], [pytest.approx((0.54, fear - 0.44))], [], []]
    assert [len(ax.patches) for ax in fig.axes[2:4]] == [2, 2] and all(p.get_hatch() for ax in fig.axes[2:4] for p in ax.patches)
    assert "block 3, photos" in fig.axes[1].get_title(loc="left").lower()
    assert fig.axes[2].get_yticklabels()[1 - fear].get_text() == "anger (10; 4 people)"


def test_names_of_points_cover_neither_points_nor_each_other():
    fig, ax = style.figure(3, 2)
    points = np.array([[10, 5], [10.4, 5.2], [11, 5], [50, 20]])
    ax.plot(*points.T, "o")
    fig.draw_without_rendering()
    marks.label_points(ax, points, [(f"name {k}", tuple(p)) for k, p in enumerate(points)])
    boxes, pixels = [Text.get_window_extent(t) for t in ax.texts], ax.transData.transform(points)
    assert [t.get_text() for t in ax.texts] == ["name 0", "name 1", "name 2", "name 3"]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.count_contains(pixels) for box in boxes)


def test_figures_say_how_many():
    flat = dict.fromkeys(NAMES, 0.4)
    systems = (("static", "image"), ("dynamic", "video"), ("multitask", "video"), ("s4d", "video"))
    tests = {k: answers(flat, seed=i) for i, k in enumerate(systems)}
    table = ga.gain_by_emotion(tests, list(NAMES), resamples=30).assign(p_holm=1.0)
    table.loc[(table.method == "s4d") & (table.label == "fear"), "p_holm"] = 0.01
    fig = study_clips.gains(table)
    fig.draw_without_rendering()
    assert fig.axes[0].get_yticklabels()[0].get_text() == "neutral (60, 20)"
    filled = [line for line in fig.axes[1].lines if line.get_marker() == "o" and line.get_markerfacecolor() == style.METHOD_COLOURS["s4d"]]
    assert [line.get_xdata()[0] for line in filled] == table[table.p_holm < 0.05].gain.tolist()       # hollow where Holm leaves nothing


def test_layers_of_all_comparisons_are_named_at_their_lines_and_nulls_stand_beside():
    rng = np.random.default_rng(0)
    layers = {name: rng.normal(size=(20, 6)) for name in ("embed", "pooled")}
    noisy = {k: v + rng.normal(size=v.shape) for k, v in layers.items()}
    titles = {"static": "Static only", "s4d": "S4D", "start": "Before"}
    table = co.similarity_by_layer({name: [(layers, noisy)] for name in titles}, labelled(20, 5), 40)
    fig = study_correlation.layer_similarity(table, titles)
    fig.draw_without_rendering()
    boxes = [Text.get_window_extent(t) for t in fig.axes[0].texts]
    assert [t.get_text() for t in fig.axes[0].texts] == list(titles.values()) and "20 clips, 5 people" in fig.axes[0].get_title(loc="left")
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert len(fig.axes[1].patches) == 9 and [t.get_text() for t in fig.axes[1].get_yticklabels()] == list(titles.values())


def test_frames_tell_a_network_that_never_saw_the_kind_from_a_head_that_did_not():
    table = pd.DataFrame([dict(method=m, head=h, stimuli=k, zero_shot=h != k, unseen=h != k and m == "static", war=50.0, low=40.0, high=60.0, samples=9,
                               subjects=5, uar=50.0, seeds=1, majority=20.0, reading="head")
                          for m, h in (("static", "image"), ("s4d", "image"), ("s4d", "video")) for k in ("image", "video")])
    fig = study_correlation.transfer(table)
    fig.draw_without_rendering()
    lines = [p.get_linestyle() for p in fig.axes[0].patches if p.get_edgecolor()[:3] == (0, 0, 0)]
    assert [line == "-" for line in lines] == [True, False, False]
    assert fig.axes[0].get_xticklabels()[1].get_text().split("\n")[1:] == ["n = 9,", "5 people", "majority: 20.0"]


def test_leaders_are_numbered_below_the_face_and_lines_run_where_they_change():
    places = [(0, "image", r, c, 1 + (c > 0)) for r in range(2) for c in range(2)]
    grid = pd.DataFrame(places, columns=["picture", "task", "row", "column", "expert"])
    face = np.zeros((3, 32, 32), np.uint8)
    fig = study_experts.leaders(grid, {"image": [face]}, {"image": ["photos", "fear"]}, sp.region_map(), sp.REGIONS)
    regions, picture, _, tokens = fig.axes
    assert not picture.texts and picture.get_title() == "fear"                           # nothing covers the face
    assert [t.get_text() for t in tokens.texts] == ["1", "2"]                            # once in each connected area
    assert [list(line.get_xdata()) for line in tokens.lines] == [[0.5, 0.5]] * 2         # between the columns, nowhere else
    assert [t.get_text() for t in regions.texts] == list(sp.REGIONS)


def test_maps_show_what_their_bar_says():
    table = pd.DataFrame([(2, t, e, 0, c, 0.2 * e + 0.1 * c) for t in ("image", "video") for e in (1, 2) for c in range(2)],
                         columns=["block", "task", "expert", "row", "column", "gate"]).assign(agreement=-0.5)
    fig = study_experts.maps(table, dict.fromkeys(("image", "video"), np.zeros((8, 8))), {"image": 3, "video": 2})
    face, first = fig.axes[0], fig.axes[1]
    assert face.images[0].get_cmap().name == "gray" and len(first.image) == 1 and first.image[0].get_alpha() is None
    assert first.image[0].get_array().tolist() == [pytest.approx([0.2, 0.3])] and first.image[0].get_clim() == (0, pytest.approx(0.5))
    assert fig.axes[3].get_ylabel() == "block 2\n2 clips\nr = −0.50"


def test_a_learning_curve_is_read_at_a_level():
    shares, curve = np.array([.1, .4, 1.0]), np.array([.2, .4, .6])
    assert ga.reached(shares, curve, .1) == .1 and ga.reached(shares, curve, .4) == pytest.approx(.4) and ga.reached(shares, curve, .61) == np.inf
    assert ga.reached(shares, curve, .6) == 1                               # the last that was tried is enough
    assert ga.reached(shares, curve, .3) == pytest.approx(.2)             # half way in the logarithm, from .1 to .4
    assert ga.reached(shares, np.array([.4, .2, .6]), .5) == pytest.approx(.4 ** .25)     # a dip is passed over


def test_clips_that_photos_save_are_those_that_were_planted():
    """Dynamic only needs four times the clips of S4D; with all of them it does not get as far."""
    scores = {("dynamic", "0.1"): .2, ("dynamic", "0.4"): .4, ("dynamic", "1"): .6, ("s4d", "0.1"): .4, ("s4d", "1"): .9}
    people, each = 30, 20                      # every person's clips are recognised to the same share: no spread over people
    rows = [dict(method=m, setting=s, seed=seed, path=f"{p}/{i}", subject=str(p), label=("fear", "anger")[i % 2],
                 predicted=("fear", "anger")[i % 2] if i < round(each * war) else None)
            for (m, s), war in scores.items() for seed in (0, 1) for p in range(people) for i in range(each)]
    saved = ga.clips_saved(pd.DataFrame(rows), clips=1000, resamples=100).set_index("share")
    assert saved["clips"].tolist() == [100, 1000] and saved["war"].tolist() == pytest.approx([.4, .9])
    assert saved.loc[.1, ["alone", "low", "high"]].tolist() == pytest.approx([400] * 3, rel=1e-6) and saved.loc[.1, "beyond"] == 0
    assert np.isinf(saved.loc[1.0, ["alone", "low", "high"]].astype(float)).all() and saved.loc[1.0, "beyond"] == 1
    swapped = [{**r, "method": {"dynamic": "s4d", "s4d": "dynamic"}[r["method"]]} for r in rows]
    assert ga.clips_saved(pd.DataFrame(swapped), 1000, resamples=50)["alone"].iloc[0] == 100         # the smallest that was tried is enough


def test_the_jackknifes_half_width_of_a_mean_is_that_of_students_t():
    from scipy.stats import t as student
    values = np.random.default_rng(0).normal(size=(12, 3))
    left = np.array([np.delete(values, i, 0).mean(0) for i in range(12)])
    half = student.ppf(0.975, 11) * values.std(0, ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(pe.left_out_half(left), half, rtol=1e-9)
    np.testing.assert_allclose(pe.jackknife(lambda kept: values[kept].mean(0), np.arange(12), groups=12), half, rtol=1e-9)
