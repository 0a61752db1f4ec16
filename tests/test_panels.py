"""The panels follow their controls, are fast enough to play with, say what is missing, and leave a plain picture in a batch run."""
from __future__ import annotations

import io
import time

import nbformat
import numpy as np
import pytest
from conftest import tiny_finetune, tiny_pretrain
from PIL import Image

from s4d import config as configs
from s4d import panels
from s4d.study import stimuli
from s4d.emotions import EMOTIONS
from s4d.faces import facs, people
from s4d.notebooks import execute
from s4d.plots import panels as boards
from s4d.training import run_all

SIZES = dict(img_size=64, num_frames=8)       # those of profile sandbox, whose speed is what matters
MAKERS = {"masking": panels.masking, "heads": panels.heads, "experts": panels.experts, "scrub": panels.scrub,
          "actor": lambda prof: panels.actor(people(1, seed=3))}


@pytest.fixture(scope="module")
def prof(mini, tmp_path_factory) -> configs.Profile:
    """A profile whose three runs are trained, for a few steps."""
    runs = str(tmp_path_factory.mktemp("panel_runs"))
    made = configs.Profile("mini", None, tiny_pretrain(mini, **SIZES), tiny_finetune(mini, **SIZES), seeds=(0,), methods=("static", "s4d"),
                           scratch_methods=(), runs=runs)
    run_all([cfg for *_, cfg in made.methods_grid()], runs=runs, workers=1)
    return made


@pytest.fixture(scope="module")
def made(prof) -> dict[str, panels.Panel]:
    return {name: make(prof) for name, make in MAKERS.items()}


def other(control):
    """A value that the control does not have at first."""
    if isinstance(control, panels.Choice):
        values = [o[1] if isinstance(o, tuple) else o for o in control.options]
        return next(v for v in reversed(values) if v != control.value)
    return control.low if control.value > (control.low + control.high) / 2 else control.high


@pytest.mark.parametrize("name", MAKERS)
def test_every_control_changes_the_picture_within_a_fifth_of_a_second(made, name):
    panel = made[name]
    controls, view = panel.box().children
    first, spent = view.value, []
    assert Image.open(io.BytesIO(first)).format == "PNG" and len(controls.children) == len(panel.controls)
    for (control, spec), widget in zip(panel.controls.items(), controls.children):
        if control in panel.presets:
            continue
        before, start = widget.value, time.process_time()
        widget.value = other(spec)
        spent.append(time.process_time() - start)         # of one core: wall time depends on who else is at work
        assert view.value != first, control
        widget.value = before
        assert view.value == first, f"{control} moved back"
    assert np.median(spent) < 0.2, f"{name}: {1000 * np.median(spent):.0f} ms a step"


def captured(monkeypatch, board: type) -> list:
    """What a board is given from now on."""
    calls = []
    monkeypatch.setattr(board, "update", lambda self, *given: calls.append(given) or b"")
    return calls


def test_masking_fills_in_the_hidden_tokens_and_no_others(made, monkeypatch):
    calls, panel = captured(monkeypatch, boards.Masking), made["masking"]
    panel.png(removed=0.5, seed=3, person=1, emotion="fear")
    (face, seen, filled, mean), removed, tokens, (model, flat) = calls[0]
    assert (removed, tokens) == (8, 16) and flat == pytest.approx(1, abs=0.02)
    hidden = (np.asarray(seen) == 200).all(0)
    assert hidden.mean() == 0.5
    for guess in (filled, mean):
        away = np.abs(guess.numpy() - face.numpy() / 255).max(0)
        assert away[~hidden].max() < 1e-5 < away[hidden].max()
    panel.png(removed=0.5, seed=4, person=1, emotion="fear")
    assert (np.asarray(calls[1][0][1]) != np.asarray(seen)).any() and (calls[1][0][0] == face).all()


def test_the_heads_read_the_photo_and_the_clip(made, prof, monkeypatch):
    calls, panel = captured(monkeypatch, boards.Heads), made["heads"]
    panel.png()
    photo, clip, found = calls[0]
    assert len(clip) == SIZES["frames"] and len(found) == 3
    assert [round(float(p.sum()), 4) for p in found] == [1, 1, 1] and np.abs(found[0] - found[1]).max() > 1e-6
    for (method, x, task), given in zip((("static", photo[None], "image"), ("s4d", photo[None], "image"),
                                         ("s4d", clip.transpose(0, 1)[None], "video")), found):
        expected = stimuli.probabilities(panels.found(prof, method)[0].load(), x, task)[0]
        np.testing.assert_allclose(given, expected, atol=1e-5)
    assert (clip[len(clip) // 2] == photo).all() and (clip[0] == clip[-1]).all() and (clip[0] != photo).any()



def test_a_prototype_moves_all_sliders_and_draws_once(made, monkeypatch):
    calls, panel = captured(monkeypatch, boards.Heads), made["heads"]
    widgets = dict(zip(panel.controls, panel.box().children[0].children))
    calls.clear()
    widgets["prototype"].value = "anger"
    assert len(calls) == 1
    assert {a: widgets[f"action_{a}"].value for a in panels.SLIDERS} == {a: panels.prototype_spec("anger").get(a, 0) for a in panels.SLIDERS}
    widgets["action_12"].value = 1
    assert len(calls) == 2 and (calls[1][0] != calls[0][0]).any()


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 16])
def test_a_clip_rises_to_the_expression_and_falls(frames):
    full = facs.sheet({12: 1})
    distinct, which = panels.course(full, frames)
    level = distinct[which][:, 0].max(1)
    assert len(level) == frames and (distinct[-1] == full).all() and len(distinct) <= 4
    assert (level == level[::-1]).all() and (np.diff(level[: -(-frames // 2)]) >= 0).all() and level.max() == 1


def test_every_prototype_can_be_set_by_the_sliders():
    for emotion in EMOTIONS:
        spec = panels.prototype_spec(emotion)
        assert set(spec) <= set(panels.SLIDERS) and all(0 < v <= 1 for v in spec.values()) and bool(spec) == (emotion != "neutral")


@pytest.mark.parametrize("kind, steps", [("photo", 1), ("clip", 4)])
def test_the_lit_tokens_are_those_of_the_gates(made, monkeypatch, kind, steps):
    calls, panel = captured(monkeypatch, boards.Experts), made["experts"]
    given = dict(kind=kind, block=panel.controls["block"].value, person=5, emotion="anger")
    for expert in range(1, 9):
        panel.png(expert=expert, **given)
    gates = np.stack([gates for _, gates, *_ in calls])
    assert gates.shape == (8, steps, 4, 4) and [n for *_, n, _ in calls] == list(range(1, 9))
    np.testing.assert_allclose(gates.sum(0), 1, atol=1e-5)
    assert ((gates > 0).sum(0) == 2).all()
    np.testing.assert_allclose(calls[0][3], np.bincount(gates.argmax(0).ravel(), minlength=8) / gates[0].size)


def test_titles_of_steps_that_were_hidden_at_first_stand_in_the_picture():
    board, faces = boards.Experts(64, 4, 8), np.zeros((4, 3, 64, 64), np.uint8)
    for steps in (1, 4):
        board.update(faces[:steps], np.ones((steps, 4, 4)), 2, np.ones(8) / 8)
    assert all(board.fig.bbox.contains(*ax.title.get_window_extent().max) for ax in board.strip)


def test_scrubbing_shows_the_frame_and_its_reading(made, prof, monkeypatch):
    panel, curves = made["scrub"], []
    monkeypatch.setattr(boards.Scrub, "clip", lambda self, *given: curves.append(given))
    calls = captured(monkeypatch, boards.Scrub)
    for clip, frame in ((1, 2), (1, 5), (0, 99)):
        panel.png(clip=clip, frame=frame)
    assert len(curves) == 2, "a clip is read once"
    assert [t for _, t in calls] == [1, 4, 5], "the last frame of a clip of six"
    label, probabilities, truth = curves[0]
    assert probabilities.shape == (6, 7) and truth is None and f"2: {label}" in [name for name, _ in panel.controls["clip"].options]
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    assert (np.asarray(calls[0][0]) != np.asarray(calls[1][0])).any()


def test_the_line_marks_the_frame():
    board = boards.Scrub(64, EMOTIONS)
    board.clip("fear", np.full((6, 7), 1 / 7), np.arange(6) / 3)
    board.update(np.zeros((3, 64, 64), np.uint8), 3)
    assert list(board.mark.get_xdata()) == [4, 4] and board.truth.get_ydata().max() == 1
    assert "frame 4, true label: fear" in board.frame.get_title()


def test_what_is_missing_is_said(prof, tmp_path):
    untrained = configs.update(prof, runs=str(tmp_path))
    with pytest.raises(panels.PanelError, match="no finished pre-training of profile mini in .*: execute this notebook's cells above"):
        panels.masking(untrained)
    with pytest.raises(panels.PanelError, match=r"no finished run of S4D \(MoAE\), seed 0"):
        panels.experts(untrained)
    with pytest.raises(panels.PanelError, match="has no run of Static only, seed 7: it has the methods static, s4d with seeds 0"):
        panels.heads(prof, seed=7)
    moved = configs.profile("smoke", data=str(tmp_path), runs=str(tmp_path))
    with pytest.raises(panels.PanelError, match="cannot be looked up without its data .*reproduce --profile smoke"):
        panels.masking(moved)


def test_a_panel_is_a_picture_where_nobody_sits_at_the_notebook(monkeypatch):
    shown, panel = [], panels.actor(people(1, seed=3), size=32)
    monkeypatch.setattr(panels, "display", shown.append)

    class Shell:
        class kernel:
            asked = False
            get_parent = classmethod(lambda cls, channel: {"content": {"allow_stdin": cls.asked}})
    monkeypatch.setattr(panels, "get_ipython", lambda: Shell)
    panel._ipython_display_()
    Shell.kernel.asked = True
    panel._ipython_display_()
    monkeypatch.setattr(panels, "get_ipython", lambda: None)
    panel._ipython_display_()
    assert [type(s).__name__ for s in shown] == ["Image", "VBox", "Image"]


@pytest.mark.slow
def test_a_batch_run_leaves_no_widget_in_the_notebook(write_notebook, tmp_path):
    path = write_notebook(tmp_path / "play.ipynb", "from s4d import panels\nfrom s4d.faces import people\npanels.actor(people(1), size=32)")
    execute(path, tmp_path / "build", {"profile": "smoke"})
    done = nbformat.read(tmp_path / "build/play.ipynb", as_version=4)
    kinds = [set(o["data"]) for o in done.cells[-1].outputs]
    assert len(kinds) == 1 and "image/png" in kinds[0] and not any("widget" in k for k in kinds[0])
    assert "widgets" not in done.metadata


def test_a_picture_that_fails_does_not_freeze_the_controls():
    def draw(x: int) -> bytes:
        if x == 2:
            raise RuntimeError("no picture")
        return bytes([x])
    box = panels.Panel(draw, {"x": panels.Slider("x", 1, 0, 5)}).box()
    slider, view = box.children[0].children[0], box.children[1]
    with pytest.raises(RuntimeError, match="no picture"):
        slider.value = 2
    slider.value = 3
    assert view.value == bytes([3])
