"""Figures of the studies: what they show stands where it belongs, and can be read."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from s4d.study.figures import finetuning as plots
from s4d.study.figures import style
from s4d.study.figures.__main__ import draw

ROOT = Path(__file__).parents[1]
UP, OVER = (.05, .15), (-.1, .2)


def pair(a: str, b: str, ends: tuple[float, float], p_holm: float = .01, task: str = "video"):
    return dict(task=task, pretrained=True, method=a, method_reference=b, metric="WAR",
                difference=sum(ends) / 2, low=ends[0], high=ends[1], p=p_holm / 22, p_holm=p_holm,
                seeds=3, subjects=20)


def grid(**columns) -> pd.DataFrame:
    """All combinations of the values of each column."""
    index = pd.MultiIndex.from_product(columns.values(), names=columns)
    return index.to_frame(index=False)


def texts(ax) -> list[str]:
    return [t.get_text() for t in ax.texts]


def test_a_number_is_printed_with_its_interval_or_alone():
    assert style.number(2.26, 1, 3.04, "+.1f") == "+2.3 [+1.0, +3.0]"
    assert style.number(-0.04, -0.25, 0.5) == "0.0 [−0.2, 0.5]"          # a zero has no sign
    assert style.number(-2, form=".0f") == "−2"


@pytest.mark.parametrize("levels", [[5, 5, 5, 5], [1, 6, 6.1, 6.2], [3, 1, 2], [10, 10, 9.9]])
def test_names_beside_curves_keep_their_distance_and_order(levels):
    ax = style.figure()[1]
    ax.set_ylim(0, 10)
    style.name_lines(ax, {f"{i}": level for i, level in enumerate(levels)})
    places = np.array([text.xyann[1] for text in ax.texts])
    order = np.argsort(levels, kind="stable")
    assert (np.diff(places[order]) > 0.849).all() and places.max() <= 10


def test_confusions_bear_their_counts_beside_each_other():
    table = grid(method=("dynamic", "s4d"), task=["video"], label=("joy", "disgust"),
                 predicted=("joy", "disgust"))
    table["share"] = [.9, .1, 1., 0., .6, .4, .3, .7]
    table["samples"] = table["label"].map({"joy": 50, "disgust": 1})
    axes = plots.confusion(table).axes
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["joy (50)", "disgust (1)"]
    assert texts(axes[0]) == ["90", "10", "100", ""]
    assert [ax.get_title() for ax in axes] == ["Dynamic only, clips", "S4D (MoAE), clips"]


def baselines(majority: float) -> pd.DataFrame:
    table = grid(task=("video", "image"), baseline=("chance", "majority")).assign(UAR=.14)
    return table.assign(WAR=table["baseline"].map({"chance": .14, "majority": majority}))


def test_the_comparison_draws_the_differences_and_says_what_was_not_run():
    table = grid(task=("video", "image"), pretrained=(False, True), method=("adapters", "s4d"),
                 metric=("UAR", "WAR"))
    table = table.assign(value=.7, low=.65, high=.75, samples=280, subjects=40)
    table = table[table["pretrained"] | (table["method"] == "s4d")]
    paired = pd.DataFrame([pair("multitask", "dynamic", UP),
                           pair("multitask", "static", OVER, 1.0, task="image"),
                           pair("s4d", "multitask", UP, .2)])
    fig = plots.comparison(table, table.assign(seed=0), baselines(.3), paired)
    said = [texts(ax) for ax in fig.axes]
    assert fig.axes[0].get_title(loc="left") == "Clips: 280 of 40 people"
    assert all(t.count("from scratch: not run") == 1 for t in said[:3])
    assert "chance (dotted) 14.0, majority class (dashed) 30.0" in said[1]
    assert said[3] == ["clips *", "photos", ""]               # a star only where significant
    names = [t.get_text() for t in fig.axes[3].get_yticklabels()]
    assert names == ["Multi-task −\none task alone", "S4D (MoAE) −\nMulti-task"]


@pytest.mark.parametrize("epochs", [1, 6])
def test_curves_name_methods_and_baselines(epochs):
    table = grid(task=("video", "image"), method=("multitask", "s4d"), pretrained=(False, True),
                 seed=(0, 1), epoch=range(1, epochs + 1))
    table["war"] = .4 + .02 * table["epoch"]
    fig = plots.curves(table, baselines(.4), {"video": (112, 16), "image": (645, 161)})
    ax = fig.axes[0]
    assert ax.get_title(loc="left") == "Clips: 112 of 16 people, from scratch"
    assert set(texts(ax)) == {"Multi-task", "S4D (MoAE)",
                              "chance (dotted) 14.0, majority class (dashed) 40.0"}


@pytest.mark.parametrize("p, filled", [(.01, True), (.2, False)])
def test_ablations_have_a_panel_per_study_and_bars_of_the_paired_difference(p, filled):
    ends = dict(method="s4d", value=[.5, .6], low=[.4, .5], high=[.6, .7], p_holm=[p, np.nan],
                difference=[-.1, np.nan], difference_low=[-.13, np.nan],
                difference_high=[-.02, np.nan])
    table = pd.concat([pd.DataFrame(dict(study="photos", setting=["0.1", "1"]) | ends),
                       pd.DataFrame(dict(study="noise", setting=["no", "yes"]) | ends)])
    fig = plots.ablations(table, {"photos": "share", "noise": "noise"},
                          {"photos": "1", "noise": "yes"})
    bold = [t.get_text() for ax in fig.axes for t in ax.get_xticklabels()
            if t.get_fontweight() == "bold"]
    assert bold == ["1", "yes"]
    lines = fig.axes[0].lines
    bars = [sorted(line.get_ydata()) for line in lines if np.ptp(line.get_ydata()) > 0]
    assert bars == [pytest.approx([47, 58])]                              # 60 - 13 and 60 - 2
    points = {float(line.get_ydata()[0]): line.get_markerfacecolor() for line in lines
              if line.get_marker() == "o"}
    assert (points[50.0] != "white") == filled and points[60.0] != "white"


def test_figures_are_drawn_again_from_their_csv():
    folder = ROOT / "figures"
    assert draw("finetuning_comparison", folder, "sandbox", "a note").get_supxlabel() == "a note"
    along = draw("static_along_clip", folder, "sandbox", "")
    along.draw_without_rendering()
    legend = along.legends[0].get_window_extent()
    assert not any(legend.overlaps(ax.get_window_extent()) for ax in along.axes)
    shown = draw("experts_specificity", folder, "sandbox", "").axes[0].get_yticklabels()
    assert [t.get_text() for t in shown][0].startswith("emotion, photos (n = ")
