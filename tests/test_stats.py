"""Scores, intervals and comparisons against answers known by hand, by an independent library or by simulation."""
from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, recall_score

from s4d.config import Finetune
from s4d.emotions import EMOTIONS
from s4d.study import intervals, printed, protocol, stats


def made_up(method: str = "s4d", accuracy: float = 0.6, seeds: int = 3, subjects: int = 30, each: int = 10, rng=None, **columns):
    """Predictions of one system: labels the same for all seeds, correct with the given probability."""
    rng = np.random.default_rng(0) if rng is None else rng
    label = np.array([EMOTIONS[i % 7] for i in range(subjects * each)])
    path = [f"{i}.jpg" for i in range(len(label))]
    subject = [f"p{i // each}" for i in range(len(label))]
    parts = []
    for seed in range(seeds):
        right = rng.random(len(label)) < accuracy
        wrong = np.array([EMOTIONS[(EMOTIONS.index(v) + 1) % 7] for v in label])
        parts.append(pd.DataFrame({"method": method, "pretrained": True, "task": "video", "seed": seed, "path": path, "subject": subject,
                                   "label": label, "predicted": np.where(right, label, wrong)}).assign(**columns))
    return pd.concat(parts, ignore_index=True)


def table(labels: list, predicted: list, **columns) -> pd.DataFrame:
    n = len(labels)
    base = {"method": "s4d", "pretrained": True, "task": "video", "seed": 0, "path": [f"{i}" for i in range(n)],
            "subject": [f"p{i}" for i in range(n)], "label": labels, "predicted": predicted}
    return pd.DataFrame({**base, **columns})


def value(found: pd.DataFrame, metric: str) -> float:
    return found.set_index("metric").loc[metric, "value"]


def test_uar_and_war_under_imbalance_by_hand():
    rows = table(["neutral"] * 8 + ["fear"] * 2, ["neutral"] * 8 + ["fear", "neutral"])
    found = stats.scores(rows, resamples=50)
    assert value(found, "WAR") == pytest.approx(0.9) and value(found, "UAR") == pytest.approx(0.75)
    always = stats.scores(rows.assign(predicted="neutral"), resamples=50)
    assert value(always, "WAR") == pytest.approx(0.8) and value(always, "UAR") == pytest.approx(0.5)


def test_scores_agree_with_scikit_learn_seed_by_seed():
    rows = made_up()
    found = stats.per_seed(rows).set_index(["seed", "metric"])["value"]
    for seed, part in rows.groupby("seed"):
        assert found[seed, "WAR"] == pytest.approx(accuracy_score(part.label, part.predicted))
        assert found[seed, "UAR"] == pytest.approx(recall_score(part.label, part.predicted, average="macro"))
    mean = stats.scores(rows, resamples=50).set_index("metric")
    assert mean.loc["WAR", "value"] == pytest.approx(found[:, "WAR"].mean())
    assert mean.loc["UAR", "seed_sd"] == pytest.approx(found[:, "UAR"].std())


@pytest.mark.parametrize("absent", [None, np.nan])
def test_unreadable_samples_count_as_errors(absent):
    rows = table(["neutral", "neutral", "fear", "fear"], ["neutral", absent, "fear", "fear"])
    found = stats.scores(rows, resamples=50)
    assert value(found, "WAR") == pytest.approx(0.75) and value(found, "UAR") == pytest.approx(0.75)
    matrix = protocol.confusion(rows).set_index(["label", "predicted"])["share"]
    assert matrix["neutral", "unreadable"] == pytest.approx(0.5) and np.isnan(matrix["anger", "anger"])


def test_subjects_are_resampled_not_samples():
    """Ten samples of a person that are all right or all wrong carry the information of one sample."""
    people = np.repeat(np.arange(20) % 2 == 0, 10)
    label = np.array([EMOTIONS[i % 7] for i in range(200)])
    rows = table(list(label), list(np.where(people, label, "none")), subject=[f"p{i // 10}" for i in range(200)])
    width = lambda t: (t.high - t.low)[t.metric == "WAR"].item()
    whole = width(stats.scores(rows, resamples=2000))
    single = width(stats.scores(rows.assign(subject=None), resamples=2000))
    assert whole == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 20 * 20 / 19), rel=0.12)
    assert 2.5 < whole / single < 4                     # sqrt(10) in theory


def test_seed_spread_enters_the_interval():
    """Seeds that are right on all or no samples: without subjects' variation the interval still spans them."""
    rows = pd.concat([made_up(accuracy=a, seeds=1).assign(seed=i) for i, a in enumerate((0.0, 0.5, 1.0))])
    found = stats.scores(rows, resamples=2000).set_index("metric").loc["WAR"]
    assert found.low < 0.1 and found.high > 0.9
    means = stats.resample(stats.count(rows), 20000)["WAR"]
    assert means.std() == pytest.approx(0.5 / np.sqrt(3), rel=0.08)     # sd of three seeds / sqrt(3): n - 1 draws are unbiased


def test_one_answer_for_all_has_a_uar_without_spread():
    """Few people, so that resamples miss classes: the UAR of a constant answer is 1 / K in every one of them."""
    rows = made_up(subjects=4, each=5, seeds=2).assign(predicted="sadness")
    found = stats.scores(rows, resamples=500).set_index("metric")
    assert found.loc["UAR", ["value", "low", "high"]].tolist() == pytest.approx([1 / 7] * 3) and found.loc["WAR", "high"] > 1 / 7


def test_identical_methods_differ_by_exactly_zero():
    rows = made_up("s4d")
    both = pd.concat([rows, rows.assign(method="multitask")])
    found = stats.paired(both, [(dict(task="video", method="s4d"), dict(task="video", method="multitask"))], resamples=500)
    assert (found[["difference", "low", "high"]] == 0).all(axis=None) and (found.p == 1).all() and (found.p_holm == 1).all()
    assert printed.verdict(0.0, 0.0, 1.0).endswith("not told apart")


def test_a_planted_difference_is_found_with_its_sign():
    rng = np.random.default_rng(1)
    both = pd.concat([made_up("s4d", 0.7, rng=rng), made_up("dynamic", 0.55, rng=rng)])
    pair = (dict(task="video", method="s4d"), dict(task="video", method="dynamic"))
    found = stats.paired(both, [pair, pair[::-1]], resamples=2000)
    up, down = found[found.method == "s4d"], found[found.method == "dynamic"]
    assert (up.low > 0).all() and (up.p < 0.01).all() and list(up.method_reference) == ["dynamic"] * 2
    assert np.allclose(up.difference.to_numpy(), -down.difference.to_numpy()) and (down.high < 0).all()
    assert up.set_index("metric").loc["WAR", "difference"] == pytest.approx(0.15, abs=0.06)
    assert "higher" in printed.verdict(0.01, 0.2, 0.01) and "does not outlast" in printed.verdict(-0.2, -0.01, 0.2)


def test_pairing_removes_what_both_methods_share():
    """Two systems with equal answers on all but a few samples: the difference is known far better than either score."""
    rows = made_up("s4d", 0.5, seeds=1)
    other = rows.assign(method="multitask")
    other.loc[other.index[::40], "predicted"] = "none"
    found = stats.paired(pd.concat([rows, other]), [(dict(method="s4d"), dict(method="multitask"))], resamples=1000)
    score = stats.scores(rows, resamples=1000)
    assert ((found.high - found.low).to_numpy() < 0.5 * (score.high - score.low).to_numpy()).all()


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """150 simulated studies: 40 people of differing difficulty, 3 seeds of differing quality, a true accuracy of 0.6."""
    rng, n, hits = np.random.default_rng(3), 150, 0
    for _ in range(n):
        person, start = rng.normal(0, 0.10, 40), rng.normal(0, 0.02, 3)
        chance = np.clip(0.6 + person[None, :] + start[:, None], 0, 1)                            # [S, G]
        correct = rng.binomial(8, chance).astype(float)[..., None]                                # [S, G, 1]
        drawn = stats.resample(stats.Counts(np.full((40, 1), 8), correct, (0, 1, 2), ()), 400, seed=int(rng.integers(1 << 30)))
        low, high = intervals.interval(drawn["WAR"])
        hits += low <= 0.6 <= high
    assert 0.88 <= hits / n <= 0.995


def test_p_values_under_no_difference_are_rarely_small():
    rng, small = np.random.default_rng(5), 0
    for _ in range(40):
        both = pd.concat([made_up("s4d", 0.6, rng=rng), made_up("dynamic", 0.6, rng=rng)])
        small += (stats.paired(both, [(dict(method="s4d"), dict(method="dynamic"))], resamples=200).p < 0.05).any()
    assert small <= 6


def test_holm_by_hand():
    assert intervals.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert intervals.holm(np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0])
    assert intervals.holm(np.array([0.02])) == pytest.approx([0.02])


def test_confusion_counts_and_baselines():
    rows = table(["neutral", "neutral", "neutral", "fear"], ["neutral", "fear", "neutral", "fear"])
    two = pd.concat([rows, rows.assign(seed=1, predicted="neutral")])
    matrix = protocol.confusion(two).set_index(["label", "predicted"])
    assert matrix.loc[("neutral", "fear"), "count"] == 1 and matrix.loc[("neutral", "neutral"), "share"] == pytest.approx(5 / 6)
    assert matrix.loc[("fear", "neutral"), "share"] == pytest.approx(0.5) and len(matrix) == 49
    found = protocol.baselines(two, {"video": 4}).set_index("baseline")
    assert found.loc["majority", ["label", "UAR", "WAR"]].tolist() == ["neutral", 0.5, 0.75]
    assert found.loc["chance", ["UAR", "WAR"]].tolist() == [0.25, 0.25] and protocol.baselines(two)["UAR"].iloc[0] == pytest.approx(1 / 7)


def test_mean_interval_resamples_subjects():
    values, people = np.repeat([0.0, 1.0] * 10, 5), np.repeat(np.arange(20), 5)
    mean, low, high = intervals.mean_interval(values, people)
    assert mean == 0.5 and high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(19), rel=0.12)
    _, low, high = intervals.mean_interval(values, [None] * 100)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 10, rel=0.12)


def test_tables_read_as_a_paper_prints_them():
    rows = table(["neutral"] * 8 + ["fear"] * 2, ["neutral"] * 8 + ["fear"] * 2)
    found = printed.readable(stats.scores(rows, resamples=50))
    assert found["WAR"].tolist() == ["100.0 [100.0, 100.0]"] and found["subjects"].tolist() == [10]
    pair = [(dict(task="video", method="s4d"), dict(task="video", method="static"))]
    differences = stats.paired(pd.concat([rows, rows.assign(method="static", predicted="none")]), pair, resamples=99)
    shown = printed.readable(differences, "difference").iloc[0]
    assert (shown["UAR"], shown["UAR p"], shown["method_reference"]) == ("+100.0 [+100.0, +100.0]", "0.020", "static")


def test_only_trained_tasks_are_collected():
    class Stored:
        def predictions(self):
            rows = [table(["fear"], ["fear"], task=t, split=s) for t in ("image", "video") for s in ("val", "test")]
            return pd.concat(rows).drop(columns=["method", "pretrained", "seed"])
    cfg = Finetune(None, None)
    grid = [("static", False, 0, Finetune(None, None, tasks=("image",))), ("s4d", False, 0, cfg)]
    found = stats.collect(grid, [Stored(), Stored()])
    assert found.groupby(["method", "task"]).size().to_dict() == {("static", "image"): 1, ("s4d", "image"): 1, ("s4d", "video"): 1}
    with pytest.raises(ValueError):
        stats.collect(grid, [Stored()])


def test_what_cannot_be_compared_is_said():
    rows = made_up("s4d")
    pair = [(dict(method="s4d"), dict(method="multitask"))]
    with pytest.raises(intervals.StatsError, match="no predictions of method=multitask"):
        stats.paired(rows, pair)
    with pytest.raises(intervals.StatsError, match="different samples"):
        stats.paired(pd.concat([rows, rows[rows.path != "0.jpg"].assign(method="multitask")]), pair)
    with pytest.raises(intervals.StatsError, match="different seeds"):
        stats.paired(pd.concat([rows, rows[rows.seed > 0].assign(method="multitask")]), pair)
    with pytest.raises(intervals.StatsError, match="cover different samples"):
        stats.scores(rows[(rows.seed > 0) | (rows.path != "0.jpg")])
    with pytest.raises(intervals.StatsError, match="twice"):
        stats.count(pd.concat([rows, rows]))
    with pytest.raises(intervals.StatsError, match="has no label"):
        stats.count(table(["fear", None], ["fear", "fear"]))


def test_a_printed_p_is_never_zero():
    assert [intervals.p_text(p) for p in (0.25, 0.0011, 0.001, 0.0009, 1 / 5040, 0.0, float("nan"))] == [
        "0.250", "0.001", "0.001", "< 0.001", "< 0.001", "< 0.001", "n/a"]


def test_a_full_study_takes_seconds():
    rng = np.random.default_rng(0)
    rows = pd.concat([made_up(m, subjects=100, rng=rng, pretrained=p, task=t) for t in ("image", "video") for p in (False, True)
                      for m in ("single", "multitask", "s4d")])
    pairs = [(dict(task=t, pretrained=p, method="s4d"), dict(task=t, pretrained=p, method=m)) for t in ("image", "video")
             for p in (False, True) for m in ("single", "multitask")]
    started = time.process_time()
    assert len(stats.scores(rows)) == 24 and len(stats.paired(rows, pairs)) == 16
    assert time.process_time() - started < 5
