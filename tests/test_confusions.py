"""Courses along a clip, confusions and gains, on planted curves and recalls."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from study import NAMES, answers, curves, labelled

from s4d.study import confusions, gains
from s4d.study.confusions import confusability, course, follow, lagged


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
    assert table.clips.tolist() == [12, 6, 6] and table.low.isna().tolist() == [False, True, True]
    assert (follow(curves(False), resamples=50)["mean"].abs() < 0.3).all()
    one = follow(shared.assign(subject="s0"), resamples=50)
    assert one[["null", "null_95", "p", "low"]].isna().all(axis=None)    # no other subject
    assert confusions.inside(shared.assign(intensity=1.0)).empty


@pytest.mark.parametrize("late", [-2, 0, 1])
def test_a_planted_lag_is_found(late):
    frames = curves(True)
    frames["probability"] = frames.groupby("path").probability.shift(late).fillna(0.2)
    curve, best = lagged(frames, fps=8, resamples=50)
    assert best["best"] == best["best_low"] == best["best_high"] == late / 8
    assert best["peak"] == pytest.approx(late / 8) and best["clips"] == 12
    assert curve.loc[curve["mean"].idxmax(), "lag"] == late / 8 and curve["mean"].max() > 0.99


def test_without_truth_the_course_is_locked_to_the_middle():
    frames = curves(True).assign(apex=np.nan, intensity=np.nan)
    table = course(frames, resamples=20)
    assert set(table.quantity) == {"probability"} and table.time.abs().max() <= 7
    assert follow(frames, resamples=20).empty and lagged(frames, resamples=20)[1] == {}
    assert lagged(curves(False), fps=8, resamples=50)[0]["mean"].abs().max() < 0.3


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


def test_soft_confusion_is_the_mean_probability_by_true_class():
    columns, names = [f"prob_{n}" for n in NAMES], list(NAMES)
    given = np.random.default_rng(0).dirichlet(np.ones(7), 70)
    rows = pd.concat([labelled(70), pd.DataFrame(given, columns=columns)], axis=1)
    known = rows.groupby("label")[columns].mean().loc[names].to_numpy()
    np.testing.assert_allclose(confusions.soft_confusion(rows, names), known)
    keys = ("m", "image"), ("m", "video")
    pairs, found = confusions.confusion_study(dict.fromkeys(keys, rows), {"m": keys}, names)
    assert len(pairs) == 42 and (pairs.static == pairs.dynamic).all()
    assert found.rho[0] == pytest.approx(1) and -1 <= found.low[0] <= found.high[0] <= 1
    single = confusions.confusability_interval(rows.assign(subject="s0"), rows, names)
    assert np.isnan(single).all()
    true = confusions.true_probability(given[:2], pd.Series(["fear", "contempt"]), NAMES)
    assert true[0] == given[0, NAMES.index("fear")] and np.isnan(true[1])


def test_the_emotion_that_profits_is_found_and_equal_networks_gain_nothing():
    flat, names = dict.fromkeys(NAMES, 0.4), list(NAMES)
    tests = {("dynamic", "video"): answers(flat), ("multitask", "video"): answers(flat),
             ("s4d", "video"): answers({**flat, "fear": 0.9, "anger": 0.1}, seed=1)}
    table = gains.gain_by_emotion(tests, names, resamples=200).set_index(["method", "label"])
    same, other = table.loc["multitask"], table.loc["s4d"]
    assert (same[["gain", "low", "high"]] == 0).all(axis=None) and (same.p_holm == 1).all()
    assert other.gain["fear"] > 30 and other.low["fear"] > 0 and other.high["anger"] < 0
    assert other.p["fear"] < 0.02 and other.seeds.eq(2).all()
    assert (other.low <= other.gain).all() and (other.gain <= other.high).all()
    fear = tests["dynamic", "video"].query("label == 'fear'")
    expected = 100 * (fear.predicted == fear.label).mean()
    assert other.without["fear"] == pytest.approx(expected)
    few = {k: t[(t.label != "fear") | t.subject.isin(["s1", "s2"])] for k, t in tests.items()}
    found = gains.gain_by_emotion(few, names, resamples=20).set_index(["method", "label"])
    assert found.loc["s4d"].loc[["fear", "anger"], "people"].tolist() == [2, 20]


def test_a_planted_relation_of_static_error_and_gain_is_found_and_a_permuted_one_not():
    clear = dict(zip(NAMES, np.linspace(0.1, 0.9, 7), strict=True))
    gain = {n: 0.3 + 0.6 * v for n, v in clear.items()}      # clear in photos: gains
    mixed = dict(zip(NAMES, np.array(list(gain.values()))[[3, 0, 5, 2, 6, 1, 4]], strict=True))
    tests = {("static", "image"): answers(clear),
             ("dynamic", "video"): answers(dict.fromkeys(NAMES, 0.3)),
             ("multitask", "video"): answers(gain, seed=2),
             ("s4d", "video"): answers(mixed, seed=3)}
    points, found = gains.foretold(tests, list(NAMES), resamples=60)
    found = found.set_index("outcome")
    one = found.loc["multitask"]
    assert one.rho < -0.9 and one.p < 0.01 and one.high < 0 and len(points) == 21
    assert found.p["s4d"] > 0.1 and found.p["error on clips"] > 0.05
    line, flat = np.arange(7.0), np.ones(7)
    sure = gains.rank_correlation(line, line, np.tile(line, (9, 1)), np.tile(line, (9, 1)))
    assert sure["rho"] == sure["low"] == pytest.approx(1)
    assert sure["p"] == pytest.approx(2 / 5040) == sure["p_least"]
    none = gains.rank_correlation(line, flat, np.ones((9, 7)), np.ones((9, 7)))
    assert np.isnan(none["rho"]) and np.isnan(none["p"])


def test_a_learning_curve_is_read_at_a_level():
    shares, curve = np.array([.1, .4, 1.0]), np.array([.2, .4, .6])
    levels = {.1: .1, .3: .2, .4: .4, .6: 1, .61: np.inf}    # .3: half way in the logarithm
    for level, share in levels.items():
        assert gains.reached(shares, curve, level) == pytest.approx(share)
    dip = gains.reached(shares, np.array([.4, .2, .6]), .5)
    assert dip == pytest.approx(.4 ** .25)                   # from .4 on, as if there were none


def test_clips_that_photos_save_are_those_that_were_planted():
    """Dynamic only needs four times the clips of S4D; with all of them it does not get as far."""
    war = {("dynamic", "0.1"): .2, ("dynamic", "0.4"): .4, ("dynamic", "1"): .6,
           ("s4d", "0.1"): .4, ("s4d", "1"): .9}
    rows = pd.DataFrame([
        dict(method=m, setting=s, seed=seed, path=f"{p}/{i}", subject=str(p),
             label=("fear", "anger")[i % 2],
             predicted=("fear", "anger")[i % 2] if i < round(20 * share) else None)
        for (m, s), share in war.items() for seed in (0, 1) for p in range(30)
        for i in range(20)])                                 # no spread over subjects
    saved = gains.clips_saved(rows, clips=1000, resamples=100).set_index("share")
    assert saved["clips"].tolist() == [100, 1000]
    assert saved["war"].tolist() == pytest.approx([.4, .9])
    few = saved.loc[.1]
    assert few[["alone", "low", "high"]].tolist() == pytest.approx([400] * 3) and few.beyond == 0
    assert np.isinf(saved.loc[1.0, ["alone", "low", "high"]].astype(float)).all()
    assert saved.loc[1.0, "beyond"] == 1
    swapped = rows.assign(method=rows.method.map({"dynamic": "s4d", "s4d": "dynamic"}))
    found = gains.clips_saved(swapped, 1000, resamples=50)
    assert found["alone"].iloc[0] == 100                     # the smallest that was tried
