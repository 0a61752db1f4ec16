"""Statistics, routing, experts, transfer, courses and confusions, on planted features."""
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NAMES, answers, clips, curves, labelled, pictures, tiny
from PIL import Image
from scipy.stats import spearmanr, ttest_1samp
from scipy.stats import t as student
from sklearn.metrics import accuracy_score, f1_score, recall_score

from s4d.config import Finetune, Source
from s4d.data import MediaError
from s4d.emotions import EMOTIONS
from s4d.study import by_emotion, experts, similarity, stats, stimuli
from s4d.study.by_emotion import course, follow
from s4d.study.experts import group_split, place_split
from s4d.study.protocol import as_text, baselines, confusion, protocol, readable
from s4d.study.similarity import cka, corrected_difference, matched_classes, mean_cosine, prototypes
from s4d.study.stats import StatsError
from s4d.training.evaluate import war_uar

# --- scores and intervals against answers known by hand, by a library, by simulation

def made_up(accuracy: float = 0.6, seeds: int = 3, subjects: int = 30, each: int = 10,
            rng=None) -> pd.DataFrame:
    """Predictions of one system, right with the given probability."""
    rng, kind = rng or np.random.default_rng(0), np.arange(subjects * each) % 7
    label, wrong = np.array(EMOTIONS)[kind], np.array(EMOTIONS)[(kind + 1) % 7]
    subject = [f"p{i // each}" for i in range(len(kind))]
    return pd.concat([table(label, np.where(rng.random(len(kind)) < accuracy, label, wrong),
                            seed=seed, subject=subject) for seed in range(seeds)],
                     ignore_index=True)


def table(labels, predicted, **columns) -> pd.DataFrame:
    n = len(labels)
    base = {"method": "s4d", "pretrained": True, "task": "video", "seed": 0,
            "path": [f"{i}" for i in range(n)], "subject": [f"p{i}" for i in range(n)],
            "label": labels, "predicted": predicted}
    return pd.DataFrame({**base, **columns})


def score(rows: pd.DataFrame, resamples: int = 50) -> pd.DataFrame:
    return stats.scores(rows, resamples=resamples).set_index("metric")


def test_scores_agree_with_scikit_learn_and_with_training_seed_by_seed():
    rows = made_up()
    found = stats.per_seed(rows).set_index(["seed", "metric"])["value"]
    for seed, part in rows.groupby("seed"):
        both = found[seed, "WAR"], found[seed, "UAR"]
        known = (accuracy_score(part.label, part.predicted),
                 recall_score(part.label, part.predicted, average="macro"))
        assert both == pytest.approx(known) == war_uar(part.label, part.predicted)
    mean = score(rows)
    assert mean.loc["WAR", "value"] == pytest.approx(found[:, "WAR"].mean())
    assert mean.loc["UAR", "seed_sd"] == pytest.approx(found[:, "UAR"].std())


@pytest.mark.parametrize("absent", [None, np.nan])
def test_unreadable_samples_count_as_errors(absent):
    rows = table(["neutral"] * 2 + ["fear"] * 2, ["neutral", absent, "fear", "fear"])
    assert score(rows).value.tolist() == pytest.approx([0.75, 0.75])
    found = confusion(rows).set_index(["label", "predicted"])
    assert len(found) == 56 and found["count"]["neutral", "unreadable"] == 1
    assert found["share"]["neutral", "unreadable"] == 0.5


def test_subjects_are_resampled_not_samples():
    """Ten samples of a subject that are all right or all wrong carry the information of one."""
    right = np.repeat(np.arange(20) % 2 == 0, 10)
    label = np.array([EMOTIONS[i % 7] for i in range(200)])
    subject = [f"p{i // 10}" for i in range(200)]
    rows = table(label, np.where(right, label, "none"), subject=subject)
    whole, single = (score(r, 2000).loc["WAR"] for r in (rows, rows.assign(subject=None)))
    width = whole.high - whole.low
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 19), rel=0.12)
    assert 2.5 < width / (single.high - single.low) < 4                     # sqrt(10) in theory
    mean, low, high = stats.mean_interval([*right, np.nan], [*subject, "p0"])
    assert mean == 0.5 and high - low == pytest.approx(width, rel=0.12)


def test_seed_spread_enters_the_interval():
    """Seeds that are right on all or no samples: the interval spans them."""
    rows = pd.concat([made_up(accuracy=a, seeds=1).assign(seed=i)
                      for i, a in enumerate((0.0, 0.5, 1.0))])
    found = score(rows, 2000).loc["WAR"]
    assert found.low < 0.1 and found.high > 0.9
    means = stats.resample(stats.count(rows), 20000)["WAR"]
    assert means.std() == pytest.approx(0.5 / np.sqrt(3), rel=0.08)         # n - 1 draws: unbiased


def compared(rows: pd.DataFrame, other: pd.DataFrame, resamples: int = 500) -> pd.DataFrame:
    """S4D against another system, and the other way round."""
    pair = dict(task="video", method="s4d"), dict(task="video", method="other")
    both = pd.concat([rows, other.assign(method="other")])
    return stats.paired(both, [pair, pair[::-1]], resamples=resamples)


def test_a_planted_difference_is_found_with_its_sign_and_equal_methods_differ_by_zero():
    rng, rows = np.random.default_rng(1), made_up()
    found = compared(made_up(accuracy=0.7, rng=rng), made_up(accuracy=0.55, rng=rng), 2000)
    up, down = found[found.method == "s4d"], found[found.method == "other"]
    assert (up.low > 0).all() and (up.p < 0.01).all() and set(up.method_reference) == {"other"}
    assert np.allclose(up.difference, -down.difference.to_numpy()) and (down.high < 0).all()
    assert up.difference.iloc[1] == pytest.approx(0.15, abs=0.06)
    same = compared(rows, rows)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None)
    assert (same[["p", "p_holm"]] == 1).all(axis=None)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """150 studies of 40 differing subjects and 3 differing seeds, a true accuracy of 0.6."""
    rng, n, hits = np.random.default_rng(3), 150, 0
    for _ in range(n):
        subject, start = rng.normal(0, 0.10, 40), rng.normal(0, 0.02, 3)
        chance = np.clip(0.6 + subject[None, :] + start[:, None], 0, 1)             # [S, G]
        correct = rng.binomial(8, chance).astype(float)[..., None]                  # [S, G, 1]
        counts = stats.Counts(np.full((40, 1), 8), correct, (0, 1, 2), ())
        drawn = stats.resample(counts, 400, seed=int(rng.integers(1 << 30)))
        low, high = stats.interval(drawn["WAR"])
        hits += low <= 0.6 <= high
    assert 0.88 <= hits / n <= 0.995


def test_holm_by_hand_and_by_statsmodels():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    known, p = pytest.importorskip("statsmodels.stats.multitest"), np.linspace(0, 1, 20) ** 3
    np.testing.assert_allclose(stats.holm(p), known.multipletests(p, method="holm")[1])


def test_the_interval_of_few_subjects_is_students_and_copies_tell_nothing_new():
    values = np.random.default_rng(0).normal(0.3, 1, 9)
    names = pd.Series([f"s{i}" for i in range(9)])
    found, known = stats.cluster_t(values, names), ttest_1samp(values, 0)
    again = stats.cluster_t(np.repeat(values, 3), names.repeat(3))
    for result in (found, again):
        assert [result[k] for k in ("low", "high", "p")] == pytest.approx(
            [*known.confidence_interval(), known.pvalue])
    assert (again["samples"], again["subjects"]) == (27, 9)
    assert np.isnan(stats.cluster_t(values[:4], names[:4])["p"])


def test_the_jackknife_of_a_mean_is_students_and_leaves_out_subjects():
    values = np.random.default_rng(0).normal(size=(12, 3))
    half = student.ppf(0.975, 11) * values.std(0, ddof=1) / np.sqrt(12)
    copies, units = np.repeat(values, 4, 0), np.repeat(np.arange(12), 4)    # tell nothing new
    found = stats.jackknife(lambda kept: copies[kept].mean(0), units, groups=12)[1]
    np.testing.assert_allclose(found, half, rtol=1e-9)
    assert np.isnan(stats.jackknife(lambda kept: copies[kept].mean(), np.zeros(48, int))[1])


def test_baselines_are_chance_and_the_most_frequent_class():
    rows = table(["neutral", "neutral", "neutral", "fear"], ["neutral", "fear", "neutral", "fear"])
    two = pd.concat([rows, rows.assign(seed=1, predicted="neutral")])
    found = baselines(two, {"video": 4}).set_index("baseline")
    assert found.loc["majority", ["label", "UAR", "WAR"]].tolist() == ["neutral", 0.5, 0.75]
    assert found.loc["chance", ["UAR", "WAR"]].tolist() == [0.25, 0.25]


def test_tables_read_as_a_paper_prints_them():
    rows = table(["neutral"] * 8 + ["fear"] * 2, ["neutral"] * 8 + ["fear"] * 2)
    assert readable(stats.scores(rows, resamples=50))["WAR"].tolist() == ["100.0 [100.0, 100.0]"]
    shown = readable(compared(rows, rows.assign(predicted="none"), 99), "difference")
    assert shown.loc[0, ["UAR", "UAR p"]].tolist() == ["+100.0 [+100.0, +100.0]", "0.040"]
    p = (0.25, 0.001, 0.0009, np.nan)
    assert list(map(stats.p_text, p)) == ["0.250", "0.001", "< 0.001", "n/a"]


def test_only_trained_tasks_are_collected():
    class Stored:
        def predictions(self):
            rows = [table(["fear"], ["fear"], task=t, split=s)
                    for t in ("image", "video") for s in ("val", "test")]
            return pd.concat(rows).drop(columns=["method", "pretrained", "seed"])
    grid = [("static", False, 0, Finetune(None, None, tasks=("image",))),
            ("s4d", False, 0, Finetune(None, None))]
    found = stats.collect(grid, [Stored(), Stored()])
    assert list(zip(found["method"], found["task"], strict=True)) == [
        ("static", "image"), ("s4d", "image"), ("s4d", "video")]


def test_what_cannot_be_compared_is_said():
    rows = made_up()
    pair = [(dict(method="s4d"), dict(method="multitask"))]
    fewer, later = rows[rows.path != "0"], rows[rows.seed > 0]
    for other, cause in ((rows[:0], "no predictions of method=multitask"),
                         (fewer, "different samples"), (later, "different seeds")):
        with pytest.raises(StatsError, match=cause):
            stats.paired(pd.concat([rows, other.assign(method="multitask")]), pair)
    for bad, cause in ((rows[(rows.seed > 0) | (rows.path != "0")], "cover different samples"),
                       (pd.concat([rows, rows]), "twice"), (rows[:0], "has no samples"),
                       (table(["fear", None], ["fear", "fear"]), "has no label")):
        with pytest.raises(StatsError, match=cause):
            stats.count(bad)


def test_the_protocol_has_the_scores_of_scikit_learn_and_the_intervals_of_comparisons():
    rows = made_up(subjects=12, seeds=1)
    rows.loc[:4, "predicted"] = None                      # unreadable: an error
    found = protocol({"all": rows}, resamples=20, seed=4).set_index("metric")
    y, p = rows.label, rows.predicted.fillna("none")
    given = dict(labels=sorted(EMOTIONS), zero_division=0)
    f1 = [f1_score(y, p, average=kind, **given) for kind in ("macro", "weighted")]
    each = recall_score(y, p, average=None, **given)
    assert found.value.tolist() == pytest.approx([accuracy_score(y, p), each.mean(), *f1, *each])
    known = stats.scores(rows, resamples=20, seed=4).set_index("metric")[["value", "low", "high"]]
    np.testing.assert_allclose(found.loc[known.index, known.columns], known)


def test_folds_have_a_mean_and_a_pool():
    folds = {}
    for k in (1, 2):
        rows = made_up(accuracy=0.3 + 0.2 * k, seeds=1, rng=np.random.default_rng(k))
        folds[f"fold {k}"] = rows.assign(path=f"{k}/" + rows.path, subject=f"{k}/" + rows.subject)
    found, every = protocol(folds, resamples=100), pd.concat(folds.values())
    war = found[found.metric == "WAR"].set_index("part")
    assert war.value["mean of folds"] == pytest.approx(war.value[["fold 1", "fold 2"]].mean())
    assert war.value["pooled"] == pytest.approx((every.label == every.predicted).mean())
    assert (war.low < war.value).all() and war.samples.tolist() == [300, 300, 600, 600]
    assert as_text(found).splitlines()[0].split()[:5] == ["part", "fold", "1", "fold", "2"]
    same = protocol({"a": folds["fold 1"], "b": folds["fold 1"]}, resamples=20)
    assert set(same.part) == {"a", "b", "mean of folds"}      # one test split, trained twice
    lacking = protocol({"a": every, "b": every[every.label != "fear"]}, resamples=20)
    assert as_text(lacking).count(" -") == 1


# --- routing, expert usage and what it tells, on planted divisions of labour

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


# --- stimuli, transfer, prototypes, similarity of representations

LABELS = np.array(NAMES)[np.arange(140) % 7]


def test_cka_of_equal_rotated_and_independent_representations():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(60, 12)), rng.normal(size=(60, 30))
    turned = 3 * x @ np.linalg.qr(rng.normal(size=(12, 12)))[0] + 1
    assert cka(x, x) == pytest.approx(1) and cka(x, turned) == pytest.approx(1)
    assert abs(cka(x, noise)) < 0.1
    with pytest.raises(ValueError, match="at least 4"):
        cka(x[:3], x[:3])


def test_layer_similarity_tells_category_and_clip_apart_and_knows_its_interval():
    rng, labels = np.random.default_rng(3), np.repeat(np.arange(4), 15)
    contents = dict(category=2 * rng.normal(size=(4, 10))[labels], clip=rng.normal(size=(60, 10)),
                    none=np.zeros((60, 10)))
    rows = pd.DataFrame(dict(label=labels, subject=[f"s{u % 12}" for u in range(60)]))
    couples = {}
    for name, x in contents.items():
        one, other = x + 0.5 * rng.normal(size=(2, *x.shape))
        couples[name] = [({"embed": one, "pooled": one}, {"embed": other, "pooled": other})]
    couples["same"] = [(pair[0], pair[0]) for [pair] in couples.values()]
    table = similarity.similarity_by_layer(couples, rows, 100)
    assert table[table.layer == "embed"].p_any.isna().all()
    found = table[table.layer == "pooled"].set_index("comparison")
    category, clip, none = (found.loc[name] for name in contents)
    assert category.p_any < 0.05 < category.p_within
    assert category.within_mean > 0.5 * category.value
    assert max(clip.p_any, clip.p_within) < 0.05 < none.p_any
    assert clip.low < clip.value < clip.high <= 1
    assert found.loc["same", ["value", "low", "high"]].tolist() == pytest.approx([1, 1, 1])


def test_prototypes_match_across_an_offset_and_not_when_classes_are_renamed():
    rng, names = np.random.default_rng(0), list(NAMES)
    centres = rng.normal(size=(7, 20))[np.arange(140) % 7]

    def noisy(offset: float) -> np.ndarray:
        return centres + offset + 0.3 * rng.normal(size=(140, 20))
    a, b = (prototypes(noisy(offset), LABELS, names) for offset in (0, 9))
    found = matched_classes(a @ b.T)
    assert found["diagonal"] > 0.9 and found["p"] < 0.01
    assert matched_classes(a @ np.roll(b, -1, 0).T)["p"] > 0.5
    rows = pd.DataFrame(dict(label=LABELS, subject=np.arange(140) % 20))
    networks, fewer = {"m": [(noisy(0), noisy(9)) for _ in "12"]}, rows.replace("anger", "fear")
    table = similarity.prototype_study(networks, rows, fewer, names)     # no clip is of anger
    equal = table[(table.image_class == table.video_class) & (table.video_class != "anger")]
    one = table.iloc[0]
    assert len(table) == 49 and equal.cosine.mean() == pytest.approx(one.diagonal)
    assert table.photos.eq(20).all() and equal.clips.tolist() == [20, 20, 20, 20, 40, 20]
    assert one.ceiling == pytest.approx(6 / 5)
    assert 0.5 < one.low < one.corrected < one.high <= one.ceiling


def shown_to(subjects: int, centres: np.ndarray, rng: np.random.Generator) -> tuple:
    """Features of subjects who each show up to three emotions in a manner of their own."""
    subject = np.repeat(np.arange(subjects), rng.integers(1, 4, subjects))
    label = rng.integers(0, len(centres), len(subject))
    manner = 0.7 * rng.normal(size=(subjects, centres.shape[1]))[subject]
    features = centres[label] + manner + rng.normal(size=(len(subject), centres.shape[1]))
    return features, pd.DataFrame(dict(label=np.array(NAMES)[label], subject=subject))


def test_the_interval_of_matching_prototypes_covers_what_was_planted():
    names, covered, errors = list(NAMES), [], []
    for world in range(200):      # whose clips share half of the photos' prototypes
        rng = np.random.default_rng(world)
        still, own = rng.normal(size=(2, 7, 20))
        moving = 0.5 * still + np.sqrt(0.75) * own
        cosine, equal = mean_cosine([(still, moving)], NAMES, NAMES, names), np.eye(7) > 0
        true = cosine[equal].mean() - cosine[~equal].mean()
        (photos, photo_rows), (x, rows) = shown_to(150, still, rng), shown_to(60, moving, rng)
        corrected, low, high = corrected_difference([(photos, x)], photo_rows, rows, names)
        cosine = mean_cosine([(photos, x)], photo_rows.label, rows.label, names)
        covered.append(low <= true <= high)
        errors.append((matched_classes(cosine)["difference"] - true, corrected - true))
    assert 0.90 <= np.mean(covered) <= 0.98
    noise, left = np.mean(errors, 0)
    assert noise < -0.02 and abs(left) < -noise / 4
    one = corrected_difference([(photos, x)], photo_rows, rows.assign(subject="s"), names)
    assert np.isnan(one).all()


def test_transfer_reads_the_trained_head_on_the_other_modality():
    model, x, rows = tiny(), clips(), labelled(6)
    pooled = stimuli.features(model, x)

    def read(head: str, shared: list[str]) -> pd.DataFrame:
        found = similarity.read_by_head(model, pooled, head, NAMES, shared)
        return rows.assign(predicted=found, method="m", seed=0, head=head, stimuli="video")
    direct = model.head["image"](torch.from_numpy(pooled).float()).argmax(1)
    both = pd.concat([read("image", list(NAMES)), read("video", list(NAMES))])
    assert read("image", list(NAMES)).predicted.tolist() == [NAMES[i] for i in direct]
    table = similarity.transfer_matrix(both, {"m": ("video",)}, resamples=50)
    assert table.zero_shot.tolist() == [True, False] and not table.unseen.any()
    assert table.majority.tolist() == pytest.approx([100 / 6] * 2)
    assert similarity.transfer_matrix(both, {"m": ("image",)}, 50).unseen.tolist() == [True, False]
    assert set(read("image", ["neutral", "fear"]).predicted) <= {"neutral", "fear"}


def test_a_probe_finds_emotions_that_a_line_separates_and_none_in_permuted_labels():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(7, 10))[np.arange(140) % 7] + 0.3 * rng.normal(size=(2, 140, 10))
    assert (similarity.read_by_probe(train, LABELS, test) == LABELS).mean() > 0.95
    permuted = similarity.read_by_probe(train, rng.permutation(LABELS), test)
    assert (permuted == LABELS).mean() < 0.35


def test_a_broken_photo_and_a_broken_clip_are_left_out_and_named(tmp_path, monkeypatch):
    for name in ("good", "other"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
        (tmp_path / name).mkdir()
        for t in range(4):
            Image.new("RGB", (32, 32)).save(tmp_path / name / f"{t}.png")
    for broken in ("other.png", "other/3.png"):
        (tmp_path / broken).write_bytes(b"no picture")

    def rows(*paths: str) -> pd.DataFrame:
        return pd.DataFrame(dict(path=paths, label="fear", subject="a", split="test"))
    source = Source("affectnet", str(tmp_path))
    cfg = Finetune(image=source, video=source, img_size=32, num_frames=4, sampling_rate=1)
    monkeypatch.setattr(stimuli, "tables", lambda cfg: {"image": rows("good.png", "other.png")})
    found: dict[str, str] = {}
    x, kept = stimuli.subset(cfg, "image", unreadable=found)
    assert len(x) == 1 and kept.path.tolist() == ["good.png"] and list(found) == ["other.png"]
    x, frames = stimuli.frames_of(cfg, rows("good", "other"), unreadable=found)
    assert len(x) == 4 and set(frames.path) == {"good"} and list(found) == ["other.png", "other"]
    named = stimuli.left_out({"a.jpg": "empty", "b.mp4": "truncated"})
    assert "`a.jpg` (empty); `b.mp4` (truncated)" in named and not stimuli.left_out({})
    with pytest.raises(MediaError, match="none of 1 clips"):
        stimuli.frames_of(cfg, rows("other"), {})


def test_layers_are_read_in_order_and_a_frame_stands_for_its_clip():
    model, x = tiny(), clips()
    found = stimuli.layer_features(model, x)
    assert list(found) == ["embed", "block 1", "block 2", "pooled"]
    np.testing.assert_allclose(found["pooled"], stimuli.features(model, x), atol=1e-6)
    frames = pd.DataFrame(dict(path=["a"] * 5 + ["b"] * 3, frame=[0, 1, 2, 3, 4, 0, 1, 2]))
    assert stimuli.apex_frames(stimuli.truth_of(None, frames)).tolist() == [2, 6]
    known = frames.assign(apex=frames.path.map({"a": 4, "b": 0}))
    assert stimuli.apex_frames(known).tolist() == [4, 5]


# --- courses along a clip, confusions and gains

def test_a_planted_course_is_found_and_locked_to_the_apex():
    table = course(curves(True), fps=8, resamples=50)
    mean = table[table.quantity == "probability"].set_index("time")["mean"]
    assert mean.idxmax() == 0 and mean[0] == pytest.approx(0.8)
    assert table.time.agg(["min", "max"]).tolist() == [-0.5, 0.75]
    assert table.samples.eq(10).all() and table.low.notna().all()
    neutral = curves(True).assign(path=lambda t: "n" + t.path, label="neutral", apex=0)
    again = course(pd.concat([curves(True), neutral]), fps=8, resamples=50)
    pd.testing.assert_frame_equal(again, table)
    unknown = course(curves(True).assign(apex=np.nan, intensity=np.nan), resamples=20)
    assert set(unknown.quantity) == {"probability"} and unknown.time.abs().max() <= 7


def test_following_ones_own_course_is_told_from_rising_about_the_apex():
    """Courses of one width are explained by any clip; courses of own widths by themselves."""
    shared = curves(True)
    width = 1 + shared.path.str[:-4].astype(int) % 5
    intensity = np.exp(-0.5 * ((shared.frame - shared.apex) / width) ** 2)
    own = shared.assign(intensity=intensity, probability=0.2 + 0.6 * intensity)
    alike, peculiar = (follow(f, 200).set_index("label").loc["expressive"] for f in (shared, own))
    assert alike["mean"] > 0.999 and alike.null > 0.99 and alike.p > 0.05
    assert peculiar.null_95 < peculiar["mean"] and peculiar.p < 0.01
    table = follow(shared, resamples=50)
    assert table.label.tolist() == ["expressive", "happiness", "sadness"]
    assert table.samples.tolist() == [12, 6, 6] and table.low.isna().tolist() == [False, True, True]
    assert (follow(curves(False), resamples=50)["mean"].abs() < 0.3).all()
    one = follow(shared.assign(subject="s0"), resamples=50)
    assert one[["null", "null_95", "p", "low"]].isna().all(axis=None)    # no other subject
    assert all(follow(shared.assign(intensity=i), resamples=50).empty for i in (1.0, np.nan))


def answered(confusion: np.ndarray, subjects: int = 6) -> pd.DataFrame:
    """70 predictions whose probabilities are the true class's row of a confusion matrix."""
    rows = labelled(70, subjects).assign(predicted="fear")
    return rows.assign(**{f"prob_{n}": confusion[np.arange(70) % 7, k]
                          for k, n in enumerate(NAMES)})


def test_confusability_finds_shared_confusions_and_rejects_renamed_ones():
    rng, off = np.random.default_rng(0), ~np.eye(7, dtype=bool)
    base = rng.random((7, 7)) ** 3 + 6 * np.eye(7)
    a, b = (m / m.sum(1, keepdims=True) for m in (base, base + 0.02 * rng.random((7, 7))))
    order, keys = rng.permutation(7), (("m", "image"), ("m", "video"))

    def study(b: np.ndarray, subjects: int = 6) -> pd.DataFrame:
        tests = dict(zip(keys, (answered(a), answered(b, subjects)), strict=True))
        return by_emotion.confusion_study(tests, {"m": keys}, list(NAMES))
    pairs = study(b)
    found = pairs.iloc[0]
    assert pairs.static.to_numpy() == pytest.approx(a[off]) and pairs.clips.eq(70).all()
    assert found.rho == pytest.approx(spearmanr(a[off], b[off])[0]) and found.rho > 0.8
    assert -1 <= found.low <= found.rho <= found.high <= 1
    assert found.p < 0.002 and found.p_least == 1 / 2000
    assert study(b[np.ix_(order, order)]).p[1] > 0.05
    assert np.isnan(study(np.ones((7, 7))).p[1])
    assert study(b, 1)[["low", "high"]].isna().all(axis=None)           # one subject


def test_the_emotion_that_profits_is_found_and_equal_networks_gain_nothing():
    flat, names = dict.fromkeys(NAMES, 0.4), list(NAMES)
    tests = {("dynamic", "video"): answers(flat), ("multitask", "video"): answers(flat),
             ("s4d", "video"): answers({**flat, "fear": 0.9, "anger": 0.1}, seed=1)}
    table = by_emotion.gain_by_emotion(tests, names, resamples=200).set_index(["method", "label"])
    same, other = table.loc["multitask"], table.loc["s4d"]
    assert (same[["gain", "low", "high"]] == 0).all(axis=None) and (same.p_holm == 1).all()
    assert other.p["fear"] < 0.02 and other.low["fear"] > 0 and other.high["anger"] < 0
    assert (other.low <= other.gain).all() and (other.gain <= other.high).all()
    fear = tests["dynamic", "video"].query("label == 'fear'")
    expected = 100 * (fear.predicted == fear.label).mean()
    assert other.without["fear"] == pytest.approx(expected)
    few = {k: t[(t.label != "fear") | t.subject.isin(["s1", "s2"])] for k, t in tests.items()}
    found = by_emotion.gain_by_emotion(few, names, resamples=20).set_index(["method", "label"])
    assert found.loc["s4d"].loc[["fear", "anger"], "subjects"].tolist() == [2, 20]
