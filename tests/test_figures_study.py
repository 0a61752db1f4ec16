"""Figures of notebooks 04 and 05: what they show stands where it belongs, and can be read."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from study import NAMES, answers, labelled

from s4d.study import by_emotion, experts, similarity
from s4d.study.figures import correlation as correlation_figures
from s4d.study.figures import experts as expert_figures
from s4d.study.figures import style


def boxes(ax) -> list:
    """Where the texts of a drawn panel stand; none overlap."""
    found = [Text.get_window_extent(t) for t in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    return found


def texts(items) -> list[str]:
    return [t.get_text() for t in items]


def test_labels_of_the_scatter_cover_neither_each_other_nor_the_border():
    rng, pairs = np.random.default_rng(0), [(a, b) for a in NAMES for b in NAMES if a != b]
    cells = pd.concat([pd.DataFrame(pairs, columns=["label", "wrong"]).assign(
        comparison=c, static=0.2 + 0.05 * rng.random(42), dynamic=0.2 + 0.05 * rng.random(42), p=p)
        for c, p in (("multitask", 0.0005), ("s4d", 0.25))])
    table = cells.assign(rho=0.5, low=0.1, high=0.9, rho_cells=0.3, p_cells=0.04, photos=9, clips=9)
    fig = correlation_figures.confusability(table)
    fig.draw_without_rendering()
    for ax, p in zip(fig.axes, ("p < 0.001", "p = 0.250"), strict=True):
        found = boxes(ax)
        assert len(found) >= 2 and all(0 <= b.x0 and b.x1 <= fig.bbox.x1 for b in found)
        assert set(texts(ax.texts)) == set(texts(fig.axes[0].texts))     # the same pairs
        assert p in ax.get_title(loc="left")


def divided(task: float, emotion: float) -> pd.DataFrame:
    """Usage of two experts by photos and clips that differ by task and by emotion."""
    rng, n = np.random.default_rng(0), 48
    kind, label = np.repeat(["image", "video"], 24), np.tile(["fear", "anger"], 24)
    signs = np.where(kind == "video", 1, -1), np.where(label == "fear", 1, -1)
    first = 0.5 + task / 2 * signs[0] + emotion / 2 * signs[1] + 0.02 * rng.normal(size=n)
    usage = np.stack([first, 1 - first], 1)
    found = [experts.group_split("task", usage, kind, np.arange(n), True)]
    found += [experts.group_split(f"emotion, {t}", usage[kind == t], label[kind == t],
                                  np.arange(24), False) for t in ("image", "video")]
    return experts.usage_table({2: found}, 100)


@pytest.mark.parametrize("task, emotion", [(0.05, 0.4), (0.4, 0.05)])
def test_the_figure_of_usage_shows_what_was_planted(task, emotion):
    ax = expert_figures.usage(divided(task, emotion)).axes[0]
    names = texts(ax.get_yticklabels())
    assert names[0] == "clips minus photos (n = 24, 24)" and len(names) == 5
    numbered = {text.get_position()[1] for text in ax.texts}             # rows
    assert (0 in numbered) == (task > 0.1)                               # 5 points are not shown


def test_gains_are_filled_where_significant_and_say_how_many():
    systems = ("static", "image"), ("dynamic", "video"), ("multitask", "video"), ("s4d", "video")
    tests = {k: answers(dict.fromkeys(NAMES, 0.4), seed=i) for i, k in enumerate(systems)}
    table = by_emotion.gain_by_emotion(tests, list(NAMES), resamples=30).assign(p_holm=1.0)
    table.loc[(table.method == "s4d") & (table.label == "fear"), "p_holm"] = 0.01
    fig = correlation_figures.gains(table)
    assert fig.axes[0].get_yticklabels()[0].get_text() == "neutral (60, 20)"
    filled = [line.get_xdata()[0] for line in fig.axes[1].lines if line.get_marker() == "o"
              and line.get_markerfacecolor() == style.METHOD_COLOURS["s4d"]]
    assert filled == table[table.p_holm < 0.05].gain.tolist()


def test_layers_of_all_comparisons_are_named_at_their_lines_and_nulls_stand_beside():
    rng = np.random.default_rng(0)
    layers = {name: rng.normal(size=(20, 6)) for name in ("embed", "pooled")}
    noisy = {k: v + rng.normal(size=v.shape) for k, v in layers.items()}
    couples = {name: [(layers, noisy)] for name in ("static", "s4d", "start")}
    table = similarity.similarity_by_layer(couples, labelled(20, 5), 40)
    fig = correlation_figures.layer_similarity(table)
    fig.draw_without_rendering()
    lines, nulls = fig.axes[:2]
    titles = ["Static only", "S4D (MoAE)", "Before fine-tuning"]
    assert texts(lines.texts) == titles and len(boxes(lines)) == 3
    assert "20 clips, 5 people" in lines.get_title(loc="left")
    assert len(nulls.patches) == 6


def test_a_head_new_to_a_kind_is_hollow_and_a_network_new_to_it_in_a_ring():
    cells = [(m, h, k, h != k, h != k and m == "static")
             for m, h in (("static", "image"), ("s4d", "image"), ("s4d", "video"))
             for k in ("image", "video")]
    table = pd.DataFrame(cells, columns=["method", "head", "stimuli", "zero_shot", "unseen"])
    fig = correlation_figures.transfer(table.assign(
        war=50.0, low=40.0, high=60.0, samples=9, subjects=5, majority=20.0, reading="head"))
    ax = fig.axes[0]
    hollow = [line.get_ydata()[0] for line in ax.lines if line.get_markerfacecolor() == "white"
              and line.get_marker() in style.TASK_MARKERS.values()]
    rings = [line.get_ydata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert hollow == [0.16, 1.16, 1.84] and rings == [0.16]
    assert texts(ax.get_yticklabels()) == ["Static only, photo head", "S4D (MoAE), photo head",
                                           "S4D (MoAE), clip head"]


def test_maps_show_what_their_bar_says():
    cells = [(2, t, e, 0, c, 0.2 * e + 0.1 * c) for t in ("image", "video") for e in (1, 2)
             for c in range(2)]
    table = pd.DataFrame(cells, columns=["block", "task", "expert", "row", "column", "gate"])
    faces = dict.fromkeys(("image", "video"), np.zeros((8, 8)))
    axes = expert_figures.maps(table.assign(agreement=-0.5), faces, {"image": 3, "video": 2}).axes
    [image] = axes[1].images
    assert image.get_clim() == (0, pytest.approx(0.5))
    assert image.get_array().tolist() == [pytest.approx([0.2, 0.3])]
    assert axes[3].get_ylabel() == "block 2\n2 clips\nr = −0.50"
