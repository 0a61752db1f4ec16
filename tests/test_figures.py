"""Figures: what they show stands where it belongs, and can be read."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import NAMES, answers, labelled
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.text import Text

from s4d.study import by_emotion, experts, similarity
from s4d.study.figures import correlation as correlation_figures
from s4d.study.figures import experts as expert_figures
from s4d.study.figures import faces, pretraining, style
from s4d.study.figures import finetuning as plots
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


def texts(items) -> list[str]:
    return [t.get_text() for t in items]


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
    assert texts(axes[0].texts) == ["90", "10", "100", ""]
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
    said = [texts(ax.texts) for ax in fig.axes]
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
    assert set(texts(ax.texts)) == {"Multi-task", "S4D (MoAE)",
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


# --- notebooks 04 and 05

def boxes(ax) -> list:
    """Where the texts of a drawn panel stand; none overlap."""
    found = [Text.get_window_extent(t) for t in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    return found


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


# --- faces and pre-training

SIZE = 16
BLACK = np.zeros((2, 8, 3, SIZE, SIZE), dtype=np.uint8)


def visible(fig) -> list[Text]:
    """All texts but the stamp."""
    fig.draw_without_rendering()
    return [t for t in fig.findobj(Text)
            if t.get_text().strip() and t.get_visible() and t is not fig._supxlabel]


ACTIONS = (("jaw drop", 0.84, 0.5), ("lip stretcher", 0.22, 0.75))     # peak 0..1, its time in s
MANY = (*ACTIONS, *((f"lip corner depressor {i}", 0.5, 0.5) for i in range(5)))
PHASES = np.array(["neutral", "onset", "apex", "apex", "offset", "neutral", "neutral", "neutral"])


def course(frames: int, actions=ACTIONS) -> pd.DataFrame:
    t = np.arange(frames)
    phase, apex = PHASES[t * 8 // frames], t == frames * 3 // 8
    base = pd.DataFrame({"time": t / 8, "phase": phase, "apex": apex})
    return pd.concat([base.assign(action=name, intensity=peak * np.exp(-((t / 8 - at) / 0.3) ** 2))
                      for name, peak, at in actions])


@pytest.mark.parametrize("frames, drawn, actions", [
    (16, 8, ACTIONS), (8, 8, ACTIONS[:1]), (32, 8, MANY), (9, 5, MANY), (1000, 8, ACTIONS)])
def test_each_frame_of_the_filmstrip_stands_above_its_time(frames, drawn, actions):
    numbers = np.arange(frames, dtype=np.uint64).astype(np.uint8)
    pictures = np.zeros((frames, 3, SIZE, SIZE), np.uint8) + numbers[:, None, None, None]
    fig = faces.filmstrip(pictures, course(frames, actions))
    fig.draw_without_rendering()
    strip, *rows = fig.axes
    shown, ticks = strip.get_images(), rows[-1].get_xticks()
    assert len(shown) == drawn and np.allclose(np.diff(ticks), np.diff(ticks)[0])
    for image, tick in zip(shown, ticks, strict=True):
        left, right = image.get_extent()[:2]
        below = rows[-1].transData.transform((tick, 0))[0]
        assert np.isclose((left + right) / 2, tick)
        assert strip.transData.transform((tick, 0))[0] == pytest.approx(below, abs=0.5)
        assert np.asarray(image.get_array()).flat[0] == np.uint8(round(tick * 8) % 256)
        box = image.get_window_extent()
        assert box.width == pytest.approx(box.height, rel=0.03)          # faces keep their shape
    said = {t.get_text(): t.axes for t in visible(fig)}
    assert {"onset", "apex", "offset"} <= set(said)
    assert all(said[name] is row for row, (name, *_) in zip(rows, actions, strict=True))


def losses(photos: int = 300, clips: int = 100) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    step = rng.permutation(photos + clips)
    loss = 0.6 + 0.5 * np.exp(-step / 40) + 0.02 * rng.standard_normal(len(step))
    task = ["image"] * photos + ["video"] * clips
    return pd.DataFrame({"step": step, "modality": task, "loss": loss}).sort_values("step")


@pytest.mark.parametrize("photos, clips", [(300, 100), (7, 5), (1, 1), (5, 0)])
def test_names_stand_at_their_curves_and_cover_none(photos, clips):
    table = losses(photos, clips)
    names = {"image": "photos, 75 % removed", "video": "clips, 90 % removed"}
    names = {task: names[task] for task in table["modality"].unique()}
    fig = pretraining.pretraining_loss(table, names)
    said = [t for t in visible(fig) if t.get_text() in names.values()]
    assert sorted(t.get_text() for t in said) == sorted(names.values())
    ax = fig.axes[0]
    boxes = [Text.get_window_extent(t) for t in ax.texts]
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)
    late = table.loc[table["step"] >= 0.5 * table["step"].max(), ["step", "loss"]]
    points = ax.transData.transform(late.to_numpy())
    assert not any(Text.get_window_extent(t).count_contains(points) for t in said)


def test_the_table_of_positions_has_sines_below_cosines():
    clip = np.random.default_rng(0).integers(0, 255, (8, 3, 64, 64), dtype=np.uint8)
    positions = np.tile(np.arange(128), (64, 1))                    # the value is the dimension
    fig = pretraining.masks(clip[0], np.arange(16) > 3, clip, np.arange(64) > 6, positions, 16)
    said, found = [t.get_text() for t in visible(fig)], fig.findobj(Axes)
    assert "4 of 16 visible" in said and "7 of 64 visible" in said
    ax = next(a for a in found if a.get_title(loc="center").startswith("positions"))
    drawn = ax.findobj(AxesImage)[0].get_array()[:, 0]
    for tick, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True):
        assert drawn[int(tick)] % 2 == (label.get_text() == "cosine")


def test_letters_are_large_enough_to_print():
    rows, letters = ["a", "b"], list("12345678")
    made = [faces.filmstrip(BLACK[0].repeat(2, 0), course(16)),
            faces.emotions(BLACK, rows, letters, ["ABCDEFGH"] * 2),
            faces.sheet(BLACK[0], letters),
            pretraining.pretraining_loss(losses(), {"image": "photos", "video": "clips"}),
            pretraining.reconstructions(BLACK, rows, letters, ["c", "measured"]),
            pretraining.masks(BLACK[0, 0], np.arange(1) > 1, BLACK[0], np.arange(4) > 2,
                              np.zeros((4, 8)), SIZE)]
    assert min(t.get_fontsize() for fig in made for t in visible(fig)) >= 6.5
