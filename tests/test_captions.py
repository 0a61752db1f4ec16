"""Captions state what their tables hold, whichever way the numbers fall, and the figures of fine-tuning show what they say."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from s4d import captions
from s4d.study.figures import finetuning as plots
from s4d.study.figures import style

UP, DOWN, OVER = (.05, .15), (-.15, -.05), (-.1, .2)


def pair(a: str, b: str, ends: tuple[float, float], p_holm: float = .01, task: str = "video", **more) -> dict:
    return dict(task=task, pretrained=True, method=a, method_reference=b, metric="WAR", difference=sum(ends) / 2, low=ends[0], high=ends[1],
                p_holm=p_holm) | more


@pytest.mark.parametrize("ends, p, said", [
    (UP, .01, "Multi-task is 10.0 points of WAR [5.0, 15.0] above Dynamic only"),
    (DOWN, .01, "Multi-task is 10.0 points of WAR [5.0, 15.0] below Dynamic only"),
    (UP, .2, "Multi-task minus Dynamic only is +10.0 [+5.0, +15.0] points of WAR, which does not outlast the correction"),
    (OVER, .01, "Multi-task and Dynamic only are not told apart (+5.0 [−10.0, +20.0] points of WAR)")])
def test_a_comparison_reads_well_whichever_way_it_falls(ends, p, said):
    text = captions.comparison(pd.DataFrame([pair("multitask", "dynamic", ends, p), pair("s4d", "multitask", OVER)]))
    assert text == f"On clips, pre-trained, {said}; S4D (MoAE) and Multi-task are not told apart (+5.0 [−10.0, +20.0] points of WAR)."
    assert captions.comparison(pd.DataFrame([pair("static", "x", ends, p)])) == ""


def test_the_smallest_p_of_a_bootstrap_is_a_bound():
    assert captions.p_words(2 / 2001, .022, 2000) == "≤ 0.022" and captions.p_words(4 / 2001, .022, 2000) == "0.022"
    assert captions.p_words(0.0009995, .022, 2000) == "≤ 0.022"                             # as read from a file of six digits


def test_many_changed_settings_are_counted_and_few_are_named():
    row = lambda setting, ends, p: pair("s4d", "s4d", ends, p, study="photos", setting=setting, setting_reference="1")
    titles = {"photos": "share of the photos"}
    few = captions.ablations(pd.DataFrame([row("0.1", DOWN, .01), row("0.3", OVER, 1.0)]), titles)
    assert few.startswith("Share of the photos 0.1 instead of 1 changes the WAR of S4D (MoAE) on clips by −10.0 [−15.0, −5.0] points, told apart")
    assert "0.3 instead of 1" in few and "not told apart from none" in few
    many = pd.DataFrame([row("0.1", (-.3, -.2), .01), row("0.2", (-.6, -.4), .2), row("0.3", OVER, 1.0), row("0.4", UP, .01)])
    text = captions.ablations(many, titles)
    assert text.startswith("2 of 4 changed settings move WAR") and "photos 0.1 instead of 1" in text           # 0.2 is further, but not shown
    assert captions.ablations(many.assign(p_holm=1.0), titles).startswith("0 of 4 changed settings")


def test_help_is_told_at_the_ends_of_a_study():
    rows = [pair(m, "dynamic", ends, study="gap", setting=s) for m, s, ends in (
        ("s4d", "0", UP), ("s4d", "0.5", OVER), ("s4d", "1", DOWN), ("multitask", "1", UP))]
    text = captions.help_by_setting(pd.DataFrame(rows), {"gap": "gap"})
    assert "by gap: +10.0 [+5.0, +15.0] points at 0 and −10.0 [−15.0, −5.0] points at 1" in text
    assert "of 4 intervals of all methods, 2 lie above 0 and 1 below" in text


def judged(repair: tuple, p: float = .01) -> pd.DataFrame:
    rows = [("StaticHelps", True, (11, 23), "supported"), ("PlainHelps", False, (10, 24), "supported"), ("Repair", True, repair, "no harm to repair")]
    return pd.DataFrame([dict(name=n, paper=own, difference=sum(e) / 2, low=e[0], high=e[1], p_holm=p, verdict=v) for n, own, e, v in rows])


@pytest.mark.parametrize("repair, p, said", [((-6, 5), 1, "no part of it is shown to be theirs"), ((2, 8), .01, "they add to it"),
                                             ((-8, -2), .01, "they lower it"), ((2, 8), .2, "does not outlast the correction")])
def test_what_photos_give_is_credited_to_experts_only_where_that_is_shown(repair, p, said):
    text = captions.claims(judged(repair, p))
    assert said in text and "by +17.0 [+11.0, +23.0] points with experts and by +17.0 [+10.0, +24.0] without" in text
    assert text.endswith("verdicts on the 2 claims of the paper: supported: 1, no harm to repair: 1.")
    unmeasured = judged(repair).assign(difference=np.nan, verdict="not measured")
    assert captions.claims(unmeasured) == "Verdicts on the 2 claims of the paper: not measured: 2."


def test_late_change_is_that_of_single_runs():
    rows = [("video", "s4d", True, s, e, w) for s, wars in ((0, (.1, .3, .5)), (1, (.1, .3, .2))) for e, w in enumerate(wars, 1)]
    curves = pd.DataFrame(rows, columns=["task", "method", "pretrained", "seed", "epoch", "war"])
    late = captions.late_change(curves).iloc[0]
    assert (late["change"], late["least"], late["most"], late["runs"]) == pytest.approx((5, -10, 20, 2))
    assert "+5.0 (single runs −10.0 to +20.0) on clips pre-trained" in captions.learning(curves)
    assert "0.0 (single runs 0.0 to 0.0)" in captions.learning(curves.query("epoch == 1"))


def matrices() -> pd.DataFrame:
    shares = {"dynamic": ((.9, .1), (1., 0.)), "s4d": ((.6, .4), (.3, .7))}
    return pd.DataFrame([dict(method=m, task="video", label=a, predicted=b, share=shares[m][i][j], samples=(50, 1)[i], people=(9, 1)[i])
                         for m in shares for i, a in enumerate(("joy", "disgust")) for j, b in enumerate(("joy", "disgust"))])


def test_confusions_are_named_with_their_counts_and_drawn_beside_each_other():
    text = captions.confusions(matrices())
    assert text.startswith("Dynamic only has its lowest recall on clips for disgust (0 % of 1 clip of 1 person) and most often takes disgust for joy")
    assert "S4D (MoAE) has its lowest recall on clips for joy (60 % of 50 clips of 9 people)" in text
    axes = plots.confusion(matrices()).axes
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["joy (50)", "disgust (1)"] and axes[1].get_ylabel() == ""
    assert [t.get_text() for t in axes[0].texts] == ["90", "10", "100", ""]
    alone = plots.confusion(matrices().query("method == 's4d'").drop(columns="method")).axes
    assert [ax.get_title() for ax in (*axes, *alone)] == ["Dynamic only, clips", "S4D (MoAE), clips", "Clips"]


@pytest.mark.parametrize("levels", [[50, 50, 50, 50], [10, 60, 61, 62], [5], [], [3, 1, 2]])
def test_names_beside_curves_keep_their_distance_and_order(levels):
    levels = np.array(levels, float)
    places = style.spread(levels, 4.0)
    order = np.argsort(levels, kind="stable")
    assert places.shape == levels.shape and (np.diff(places[order]) > 3.99).all()
    assert np.isclose(places.sum(), levels.sum()) and style.spread(np.array([1., 9.]), 4.0).tolist() == [1, 9]


def scores() -> pd.DataFrame:
    rows = [(t, p, m, k, v) for t, alone in (("video", "dynamic"), ("image", "static")) for m in (alone, "multitask", "adapters", "s4d")
            for p in (False, True) if p or m != "adapters" for k, v in (("UAR", .7), ("WAR", .71))]
    return pd.DataFrame(rows, columns=["task", "pretrained", "method", "metric", "value"]).assign(low=.65, high=.75, samples=280, subjects=40, seeds=3)


def test_the_comparison_draws_the_differences_and_says_what_is_left_out():
    table, base = scores(), pd.DataFrame([(t, b, .14, w) for t in ("video", "image") for b, w in (("chance", .14), ("majority", .3))],
                                         columns=["task", "baseline", "UAR", "WAR"])
    paired = pd.DataFrame([pair("multitask", "dynamic", UP), pair("multitask", "static", OVER, 1.0, task="image"),
                           pair("s4d", "multitask", UP, .2)])
    fig = plots.comparison(table, table.assign(seed=0), base, paired)
    assert len(fig.axes) == 4 and fig.axes[0].get_title(loc="left") == "Clips: 280 of 40 people"
    texts = [[t.get_text() for t in ax.texts] for ax in fig.axes]
    assert all(t.count("from scratch: not run") == 1 for t in texts[:3]) and "← chance 14.0, majority class 30.0" in texts[1]
    assert texts[3] == ["clips *", "photos", ""]                                             # a star only where the correction is outlasted
    assert fig.axes[2].get_xlabel() == "UAR, % (WAR within 1.0 points of it)"
    assert [t.get_text() for t in fig.axes[3].get_yticklabels()] == ["Multi-task −\none task alone", "S4D (MoAE) −\nMulti-task"]
    assert captions.test_part(table) == "280 clips of 40 people, 280 photos of 40 people, 3 seeds"


@pytest.mark.parametrize("epochs", [1, 6])
def test_curves_name_methods_and_baselines_that_are_near(epochs):
    rows = [(t, m, p, s, e, .4 + .02 * e) for t in ("video", "image") for m in ("multitask", "s4d") for p in (False, True) for s in (0, 1)
            for e in range(1, epochs + 1)]
    table = pd.DataFrame(rows, columns=["task", "method", "pretrained", "seed", "epoch", "war"])
    base = pd.DataFrame([(t, b, .14, w) for t in ("video", "image") for b, w in (("chance", .14), ("majority", .4))],
                        columns=["task", "baseline", "UAR", "WAR"])
    fig = plots.curves(table, base, {"video": (112, 16), "image": (645, 161)})
    ax = fig.axes[0]
    assert ax.get_title(loc="left") == "Clips: 112 of 16 people, from scratch" and ax.get_xlim()[0] == (1 if epochs > 1 else .5)
    assert {"Multi-task", "S4D (MoAE)", "majority class", "↓ chance 14.0"} == {t.get_text() for t in ax.texts} or epochs == 1
    assert {line.get_linestyle() for line in ax.lines if len(line.get_xdata()) == epochs and epochs > 2} <= {"-", "--"}
    assert ax.get_ylim()[0] < 40
