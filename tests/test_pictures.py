"""Figures of faces and of pre-training: what they show stands where it belongs, and can be read."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.text import Text

from s4d.study.figures import faces, pretraining

SIZE = 16
BLACK = np.zeros((2, 8, 3, SIZE, SIZE), dtype=np.uint8)


def texts(fig) -> list[Text]:
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
    said = {t.get_text(): t.axes for t in texts(fig)}
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
    said = [t for t in texts(fig) if t.get_text() in names.values()]
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
    said, found = [t.get_text() for t in texts(fig)], fig.findobj(Axes)
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
    assert min(t.get_fontsize() for fig in made for t in texts(fig)) >= 6.5
