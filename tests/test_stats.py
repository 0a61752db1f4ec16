"""Scores and intervals against answers known by hand, by an independent library, by simulation."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp
from sklearn.metrics import accuracy_score, f1_score, recall_score

from s4d.config import Finetune
from s4d.emotions import EMOTIONS
from s4d.study import stats
from s4d.study.protocol import as_text, baselines, confusion, protocol, readable
from s4d.study.stats import StatsError
from s4d.training.evaluate import war_uar


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
