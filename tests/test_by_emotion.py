"""Courses along a clip, confusions and gains, on planted curves and recalls."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from study import NAMES, answers, curves, labelled

from s4d.study import by_emotion
from s4d.study.by_emotion import course, follow


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
