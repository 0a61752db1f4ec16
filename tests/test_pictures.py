"""Figures of faces and of pre-training: what they show stands where it belongs, and can be read."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.image import AxesImage
from matplotlib.text import Text

from s4d.study.figures import faces
from s4d.study.figures import pretraining as training

SIZE = 16


def texts(fig) -> list[Text]:
    """All texts of a drawn figure but the stamp."""
    fig.draw_without_rendering()
    return [t for t in fig.findobj(Text) if t.get_text().strip() and t.get_visible() and t is not fig._supxlabel]


ACTIONS = (("jaw drop", 0.84, 0.5), ("lip stretcher", 0.22, 0.75))
MANY = (*ACTIONS, *((f"lip corner depressor {i}", 0.5, 0.5) for i in range(5)))


def course(frames: int, fps: float = 8.0, actions=ACTIONS) -> pd.DataFrame:
    """Actions of a clip: name, intensity and time of the peak."""
    time = np.arange(frames) / fps
    phase = np.array(["neutral", "onset", "apex", "apex", "offset", "neutral", "neutral", "neutral"])[np.arange(frames) * 8 // frames]
    base = pd.DataFrame({"time": time, "phase": phase, "apex": np.arange(frames) == frames * 3 // 8})
    return pd.concat([base.assign(action=name, intensity=peak * np.exp(-((time - at) / 0.3) ** 2))
                      for name, peak, at in actions])


@pytest.mark.parametrize("actions", [ACTIONS[:1], ACTIONS, MANY])
@pytest.mark.parametrize("frames, drawn", [(16, 8), (8, 8), (32, 8), (9, 5), (1000, 8)])
def test_each_frame_of_the_filmstrip_stands_above_its_time(frames, drawn, actions):
    table = course(frames, actions=actions)
    pictures = np.zeros((frames, 3, SIZE, SIZE), dtype=np.uint8)
    pictures += np.arange(frames, dtype=np.uint64).astype(np.uint8)[:, None, None, None]
    fig = faces.filmstrip(pictures, table, shown=8)
    fig.draw_without_rendering()
    strip, *rows = fig.axes
    shown = strip.get_images()
    assert len(shown) == drawn
    for image, tick in zip(shown, rows[-1].get_xticks()):
        left, right = image.get_extent()[:2]
        assert np.isclose((left + right) / 2, tick)
        assert strip.transData.transform((tick, 0))[0] == pytest.approx(rows[-1].transData.transform((tick, 0))[0], abs=0.5)
        assert np.asarray(image.get_array()).flat[0] == np.uint8(round(tick * 8) % 256)      # and is that frame
        box = image.get_window_extent()
        assert box.width == pytest.approx(box.height, rel=0.03)                              # faces keep their shape
    assert np.allclose(np.diff(rows[-1].get_xticks()), np.diff(rows[-1].get_xticks())[0])


def test_the_filmstrip_names_each_action_at_its_own_curve():
    fig = faces.filmstrip(np.zeros((16, 3, SIZE, SIZE), dtype=np.uint8), course(16))
    said = {t.get_text(): t for t in texts(fig)}
    for row, (name, peak) in zip(fig.axes[1:], (("jaw drop", "0.84"), ("lip stretcher", "0.22"))):
        assert said[name].axes is row and said[peak].axes is row
        assert row.get_ylim() == (0, 1)                                                      # rows compare
    assert {"onset", "apex", "offset"} <= set(said)


def test_rows_of_emotions_have_titles_tags_and_black_names():
    pictures = np.zeros((2, 3, 3, SIZE, SIZE), dtype=np.uint8)
    fig = faces.emotions(pictures, ["happiness", "surprise"], ["0.0 s", "0.1 s", "0.2 s"], ["ABC", "CBA"])
    said = [t.get_text() for t in texts(fig)]
    assert said.count("0.1 s") == 1 and [said.count(letter) for letter in "ABC"] == [2, 2, 2]
    names = [t for t in texts(fig) if t.get_text() in ("happiness", "surprise")]
    assert [to_rgb(t.get_color()) for t in names] == [(0, 0, 0)] * 2
    plain = [t.get_text() for t in texts(faces.emotions(pictures, ["happiness", "surprise"]))]
    assert sorted(plain) == ["happiness", "surprise"]


def losses(photos: int = 300, clips: int = 100, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    step = rng.permutation(photos + clips)
    loss = 0.6 + 0.5 * np.exp(-step / 40) + 0.02 * rng.standard_normal(len(step))
    return pd.DataFrame({"step": step, "modality": ["image"] * photos + ["video"] * clips, "loss": loss}).sort_values("step")


def test_the_running_median_does_not_look_ahead_at_the_edges():
    table, names = losses(), {"image": "photos", "video": "clips"}
    fig = training.pretraining_loss(table, names)
    bold = [line for line in fig.axes[0].lines if line.get_linewidth() == 1.4]
    for task, line in zip(names, bold, strict=True):
        mine = table.loc[table["modality"] == task, "loss"].to_numpy()
        half, drawn = training.median_window(len(mine)) // 2, line.get_ydata()
        assert half > 0 and np.isnan(drawn[:half]).all() and np.isnan(drawn[-half:]).all()
        assert drawn[half] == pytest.approx(np.median(mine[:2 * half + 1]))
    for n in range(1, 400):
        window = training.median_window(n)
        assert window % 2 == 1 and 1 <= window <= n


@pytest.mark.parametrize("higher", [0, 0.2, 0.3, 0.4, 0.5])
@pytest.mark.parametrize("photos, clips", [(300, 100), (7, 5), (1, 1), (5, 0)])
def test_names_stand_at_their_curves_and_cover_none(photos, clips, higher):
    table, names = losses(photos, clips).assign(loss=lambda t: t["loss"] + higher), {"image": "photos, 75 % removed", "video": "clips, 90 % removed"}
    present = {task: name for task, name in names.items() if (table["modality"] == task).any()}
    fig = training.pretraining_loss(table, present)
    said = [t for t in texts(fig) if t.get_text() in names.values()]
    assert sorted(t.get_text() for t in said) == sorted(present.values())
    ax, boxes = fig.axes[0], [Text.get_window_extent(t) for t in fig.axes[0].texts]
    assert [box.count_overlaps(boxes) for box in boxes] == [1] * len(boxes)                # each with itself
    points = ax.transData.transform(table.loc[table["step"] >= 0.5 * table["step"].max(), ["step", "loss"]].to_numpy())
    assert [Text.get_window_extent(t).count_contains(points) for t in said] == [0] * len(said)      # of the letters, not the line


@pytest.mark.parametrize("width", [128, 12, 768])
def test_the_table_of_positions_says_which_dimension_a_row_is(width):
    rng = np.random.default_rng(0)
    photo, clip = rng.integers(0, 255, (3, 64, 64), dtype=np.uint8), rng.integers(0, 255, (8, 3, 64, 64), dtype=np.uint8)
    positions = np.tile(np.arange(width) / width, (64, 1))                    # the value tells the dimension
    fig = training.masks(photo, np.arange(16) > 3, clip, np.arange(64) > 6, positions, 16)
    said = [t.get_text() for t in texts(fig)]
    assert "4 of 16 visible" in said and "7 of 64 visible" in said
    found = fig.findobj(Axes)
    ax = next(ax for ax in found if ax.get_title(loc="center").startswith("table of positions"))
    drawn = ax.findobj(AxesImage)[0].get_array()
    assert len(ax.get_yticks()) == 4
    for tick, label in zip(ax.get_yticks(), ax.get_yticklabels()):
        assert drawn[int(tick), 0] * width == pytest.approx(int(label.get_text()))
    assert [line.get_xdata()[0] for line in ax.lines if line.get_xdata()[0] == line.get_xdata()[1]] == [15.5]
    assert any([t.get_text() for t in bar.get_yticklabels()] == ["−1", "0", "1"] for bar in found)      # a bar, with a minus
    boxes = [t.get_window_extent() for t in (*ax.texts, *ax.get_yticklabels(), ax.xaxis.label, *(other.title for other in fig.axes if other is not ax))
             if t.get_text()]
    assert [box.count_overlaps(boxes) for box in boxes] == [1] * len(boxes)                # each with itself
    assert all(fig.bbox.contains(*corner) for box in boxes for corner in box.get_points())
    left = [ax.get_position().x0 for ax in fig.axes if len(ax.images) and ax.images[0].get_array().shape == (64, 64, 3)]
    assert np.allclose(np.diff(np.unique(np.round(left, 4))), np.diff(np.unique(np.round(left, 4)))[0], atol=1e-3)      # even columns


def test_reconstructions_say_what_each_row_measures():
    fig = training.reconstructions(np.zeros((2, 3, 3, SIZE, SIZE), dtype=np.uint8), ["input", "model"], ["a", "b", ""], ["", "photos 0.573"])
    measured = next(t for t in texts(fig) if t.get_text() == "photos 0.573")
    assert measured.axes is fig.axes[-1]                                       # the last picture of the last row


def test_letters_are_large_enough_to_print():
    pictures, table = np.zeros((2, 8, 3, SIZE, SIZE), dtype=np.uint8), losses()
    made = [faces.filmstrip(pictures[0].repeat(2, 0), course(16)), faces.emotions(pictures, ["a", "b"], list("12345678"), ["ABCDEFGH"] * 2),
            faces.sheet(pictures[0], list("abcdefgh")), training.pretraining_loss(table, {"image": "photos", "video": "clips"}),
            training.reconstructions(pictures, ["a", "b"], list("12345678"), ["c", "d"]),
            training.masks(pictures[0, 0], np.arange(1) > 1, pictures[0], np.arange(4) > 2, np.zeros((4, 8)), SIZE)]
    for fig in made:
        assert min(t.get_fontsize() for t in texts(fig)) >= 6.5
