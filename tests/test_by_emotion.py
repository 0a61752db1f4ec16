"""Courses along a clip, confusions and gains, on planted curves and recalls."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from study import NAMES, answers, curves, labelled

from s4d.study import by_emotion
from s4d.study.by_emotion import confusability, course, follow


def test_a_planted_course_is_found_and_locked_to_the_apex():
    table = course(curves(True), fps=8, resamples=50)
    whole = table[table.label == "expressive"]
    mean = whole[whole.quantity == "probability"].set_index("time")["mean"]
    assert mean.idxmax() == 0 and mean[0] == pytest.approx(0.8)
    assert whole.time.agg(["min", "max"]).tolist() == [-0.5, 0.75] and table.samples.max() == 10
    assert table.groupby(["label", "quantity"]).samples.nunique().eq(1).all()    # the same clips
    neutral = curves(True).assign(path=lambda t: "n" + t.path, label="neutral", apex=0)
    again = course(pd.concat([curves(True), neutral]), fps=8, resamples=50)
    pd.testing.assert_frame_equal(again, table)
    assert whole.low.notna().all()                                       # 6 subjects, else 3
    assert table[table.label != "expressive"].low.isna().all()
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


def test_confusability_finds_shared_confusions_and_rejects_renamed_ones():
    rng, off = np.random.default_rng(0), ~np.eye(7, dtype=bool)
    base = rng.random((7, 7)) ** 3 + 6 * np.eye(7)
    a, b = (m / m.sum(1, keepdims=True) for m in (base, base + 0.02 * rng.random((7, 7))))
    found, order = confusability(a, b), rng.permutation(7)
    assert found["rho"] == pytest.approx(spearmanr(a[off], b[off])[0]) and found["rho"] > 0.8
    assert found["p"] < 0.002 and found["p_least"] == 1 / 2000
    assert confusability(a, b[np.ix_(order, order)])["p"] > 0.05
    liked = confusability(*(0.1 * np.arange(7) + 0.001 * rng.random((2, 7, 7))))
    assert liked["rho"] > 0.8 and abs(liked["rho_cells"]) < 0.5 < 10 * liked["p_cells"]
    assert np.isnan(confusability(np.ones((7, 7)), b)["p"])


def test_soft_confusion_is_the_mean_probability_by_true_class_and_equal_ones_agree():
    columns, names = [f"prob_{n}" for n in NAMES], list(NAMES)
    given = np.random.default_rng(0).dirichlet(np.ones(7), 70)
    rows = pd.concat([labelled(70), pd.DataFrame(given, columns=columns)], axis=1)
    known = rows.groupby("label")[columns].mean().loc[names].to_numpy()
    np.testing.assert_allclose(by_emotion.soft_confusion(rows, names), known)
    keys = ("m", "image"), ("m", "video")
    rows["predicted"] = "fear"
    pairs = by_emotion.confusion_study(dict.fromkeys(keys, rows), {"m": keys}, names)
    assert len(pairs) == 42 and (pairs.static == pairs.dynamic).all() and pairs.clips.eq(70).all()
    assert pairs.rho[0] == pytest.approx(1) and -1 <= pairs.low[0] <= pairs.high[0] <= 1
    single = by_emotion.confusability_interval(rows.assign(subject="s0"), rows, names)
    assert np.isnan(single).all()


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


def test_a_planted_relation_of_static_error_and_gain_is_found_and_a_permuted_one_not():
    clear = dict(zip(NAMES, np.linspace(0.1, 0.9, 7), strict=True))
    gain = {n: 0.3 + 0.6 * v for n, v in clear.items()}      # clear in photos: gains
    mixed = dict(zip(NAMES, np.array(list(gain.values()))[[3, 0, 5, 2, 6, 1, 4]], strict=True))
    tests = {("static", "image"): answers(clear),
             ("dynamic", "video"): answers(dict.fromkeys(NAMES, 0.3)),
             ("multitask", "video"): answers(gain, seed=2),
             ("s4d", "video"): answers(mixed, seed=3)}
    found = by_emotion.foretold(tests, list(NAMES)).set_index("outcome")
    gained = found.loc["multitask"]
    assert gained.rho < -0.9 and gained.p < 0.01 and found.emotions.eq(7).all()
    assert found.p["s4d"] > 0.1 and found.p["error on clips"] > 0.05
    known = pd.DataFrame({key: (t.predicted == t.label).groupby(t.label).mean()
                          for (key, _), t in tests.items()})
    rho = spearmanr(known.static, (known.dynamic - known.s4d).round(9))[0]
    assert found.rho["s4d"] == pytest.approx(rho)
