"""Panels follow their controls, are fast, say what is missing, leave a picture in a batch run."""
from __future__ import annotations

import time
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from conftest import tiny_finetune, tiny_pretrain

from s4d import config as configs
from s4d import panels
from s4d.emotions import EMOTIONS
from s4d.faces import facs, subjects
from s4d.notebooks import execute
from s4d.study import stimuli
from s4d.study.figures import panels as parts
from s4d.study.figures.panels import Control, Panel
from s4d.study.figures.style import figure
from s4d.training import run_all

SIZES = dict(img_size=64, num_frames=8)       # those of profile sandbox, whose speed matters
MAKERS = {"masking": panels.masking, "heads": panels.heads, "experts": panels.experts,
          "scrub": panels.scrub, "actor": lambda prof: panels.actor(subjects(1, seed=3))}


@pytest.fixture(scope="module")
def prof(mini, tmp_path_factory) -> configs.Profile:
    """A profile whose three runs are trained, for a few steps."""
    runs = str(tmp_path_factory.mktemp("panel_runs"))
    made = configs.Profile("mini", None, tiny_pretrain(mini, **SIZES), tiny_finetune(mini, **SIZES),
                           seeds=(0,), methods=("static", "s4d"), scratch_methods=(), runs=runs)
    run_all([cfg for *_, cfg in made.methods_grid()], runs=runs, workers=1)
    return made


@pytest.fixture(scope="module")
def made(prof) -> dict[str, Panel]:
    return {name: make(prof) for name, make in MAKERS.items()}


def other(control: Control):
    """A value that the control does not have at first."""
    values = [o[1] if isinstance(o, tuple) else o for o in control.options]
    return next(v for v in (*values[::-1], control.low, control.high) if v != control.value)


@pytest.mark.parametrize("name", MAKERS)
def test_every_control_changes_the_picture_within_a_fifth_of_a_second(made, name):
    panel = made[name]
    controls, view = panel.box().children
    first, spent = view.value, []
    for (control, spec), widget in zip(panel.controls.items(), controls.children, strict=True):
        if control in panel.presets:
            continue
        before, start = widget.value, time.process_time()
        widget.value = other(spec)
        spent.append(time.process_time() - start)         # of one core, whoever else is at work
        assert view.value != first, control
        widget.value = before
        assert view.value == first, f"{control} moved back"
    assert np.median(spent) < 0.2, f"{name}: {1000 * np.median(spent):.0f} ms a step"


def pictures(panel: Panel) -> list[np.ndarray]:
    """The pictures that a panel shows, `[H, W, 3]` each."""
    return [np.asarray(ax.images[0].get_array()) for ax in panel.fig.axes
            if ax.images and ax.get_visible()]


def test_masking_fills_in_the_hidden_tokens_and_no_others(made):
    panel = made["masking"]
    panel.png(removed=0.5, seed=3, subject=1, emotion="fear")
    face, seen, *guesses = pictures(panel)
    titles = [ax.get_title() for ax in panel.fig.axes]
    assert "8 of 16 tokens" in titles[1]
    assert float(titles[3].split()[-1]) == pytest.approx(1, abs=0.02)     # a token's own variance
    hidden = (seen == 200).all(-1)
    assert hidden.mean() == 0.5
    for guess in guesses:
        away = np.abs(guess - face / 255).max(-1)
        assert away[~hidden].max() < 1e-5 < away[hidden].max()


def test_the_heads_read_the_photo_and_the_clip(made, prof):
    panel = made["heads"]
    panel.png()
    photo, *clip = torch.from_numpy(np.stack(pictures(panel))).permute(0, 3, 1, 2)
    charts = [[bar.get_width() for bar in ax.patches] for ax in panel.fig.axes if ax.patches]
    inputs = (("static", photo[None], "image"), ("s4d", photo[None], "image"),
              ("s4d", torch.stack(clip, 1)[None], "video"))
    for (method, x, task), read in zip(inputs, charts, strict=True):
        expected = stimuli.probabilities(panels.found(prof, method)[0].load(), x, task)[0]
        np.testing.assert_allclose(read, expected, atol=1e-5)
    assert (clip[SIZES["num_frames"] // 2] == photo).all() and (clip[0] == clip[-1]).all()
    assert (clip[0] != photo).any()


def test_a_prototype_moves_all_sliders_and_draws_once(made, monkeypatch):
    panel, calls = made["heads"], []
    draw = panel.draw
    monkeypatch.setattr(panel, "draw", lambda **given: calls.append(given) or draw(**given))
    widgets = dict(zip(panel.controls, panel.box().children[0].children, strict=True))
    calls.clear()
    widgets["prototype"].value = "anger"
    spec = panels.prototype("anger")
    assert len(calls) == 1
    for a in panels.SLIDERS:
        assert widgets[f"action_{a}"].value == calls[0][f"action_{a}"] == spec.get(a, 0)


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 16])
def test_a_clip_rises_to_the_expression_and_falls(frames):
    full = facs.sheet({12: 1})
    distinct, which = panels.course(full, frames)
    level = distinct[which][:, 0].max(1)
    assert len(level) == frames and (distinct[-1] == full).all() and len(distinct) <= 4
    assert (level == level[::-1]).all() and level.max() == 1
    assert (np.diff(level[: -(-frames // 2)]) >= 0).all()


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_every_prototype_can_be_set_by_the_sliders(emotion):
    spec = panels.prototype(emotion)
    assert set(spec) <= set(panels.SLIDERS) and all(0 < v <= 1 for v in spec.values())
    assert bool(spec) == (emotion != "neutral")


@pytest.mark.parametrize("kind, steps", [("photo", 1), ("clip", 4)])
def test_the_lit_tokens_are_those_of_the_gates(made, prof, kind, steps):
    panel, lit, asked = made["experts"], 0, 0
    for expert in range(1, 9):
        panel.png(kind=kind, expert=expert, subject=5, emotion="anger")
        shown = [ax for ax in panel.fig.axes if ax.images and ax.get_visible()]
        asked += sum(int(ax.get_title().split()[2]) for ax in shown)
        lit = lit + np.stack(pictures(panel)).astype(float)
    assert asked == 2 * 16 * steps                              # two experts a token
    actions, which = panels.course(facs.sheet(panels.prototype("anger")), 8)
    which = which[::2] if kind == "clip" else [-1]
    faces = panels.face(prof, 5, actions, 64)[which].permute(0, 2, 3, 1).numpy()
    light = 8 * panels.DIM + 1 - panels.DIM                     # gates of a token add up to one
    np.testing.assert_allclose(lit / light, faces, atol=8 / light)
    for ax in shown:                                            # though some were hidden at first
        assert panel.fig.bbox.contains(*ax.title.get_window_extent().max)
    chart = next(ax for ax in panel.fig.axes if ax.patches)
    assert sum(bar.get_height() for bar in chart.patches) == pytest.approx(100)


def test_scrubbing_shows_the_frame_and_its_reading(made):
    panel, seen = made["scrub"], []
    for clip, frame in ((1, 2), (1, 5), (0, 99)):
        panel.png(clip=clip, frame=frame)
        title = panel.fig.axes[0].get_title()
        mark = next(line for line in panel.fig.axes[1].lines if list(line.get_ydata()) == [0, 1])
        curves = [line.get_ydata() for line in panel.fig.axes[1].lines[:7]]
        seen.append((title, mark.get_xdata()[0], pictures(panel)[0]))
        np.testing.assert_allclose(np.sum(curves, 0), 1, atol=1e-6)
    assert [t for _, t, _ in seen] == [2, 5, 6], "the last frame of a clip of six"
    label = panel.controls["clip"].options[1][0].removeprefix("2: ")
    assert f"frame 2, true label: {label}" in seen[0][0] and (seen[0][2] != seen[1][2]).any()


def test_what_is_missing_is_said(prof, tmp_path):
    untrained = configs.update(prof, runs=str(tmp_path))
    moved = configs.profile("smoke", data=str(tmp_path), runs=str(tmp_path))
    for made, make, message in (
            (untrained, panels.masking, "the pre-training of profile mini .*no finished run in .*"
                                        "execute this notebook's cells above"),
            (untrained, panels.experts, r"the run of S4D \(MoAE\) of profile mini"),
            (configs.update(prof, methods=("s4d",)), panels.heads, "has no run of Static only"),
            (moved, panels.masking, "data are not here.*reproduce --profile smoke")):
        with pytest.raises(panels.PanelError, match=message):
            make(made)


@pytest.mark.parametrize("asked, shown", [(True, "VBox"), (False, "Image"), (None, "Image")])
def test_a_panel_is_a_picture_where_nobody_sits_at_the_notebook(monkeypatch, asked, shown):
    found, message = [], {"content": {"allow_stdin": asked}}
    kernel = None if asked is None else SimpleNamespace(get_parent=lambda channel: message)
    monkeypatch.setattr(parts, "display", found.append)
    monkeypatch.setattr(parts, "get_ipython", lambda: SimpleNamespace(kernel=kernel))
    panels.actor(subjects(1, seed=3), img_size=32)._ipython_display_()
    assert [type(s).__name__ for s in found] == [shown]


@pytest.mark.slow
def test_a_batch_run_leaves_no_widget_in_the_notebook(write_notebook, tmp_path):
    code = ("from s4d import panels\nfrom s4d.faces import subjects\n"
            "panels.actor(subjects(1), img_size=32)")
    execute(write_notebook(tmp_path / "play.ipynb", code), tmp_path / "build", {"profile": "smoke"})
    done = nbformat.read(tmp_path / "build/play.ipynb", as_version=4)
    kinds = [set(o["data"]) for o in done.cells[-1].outputs]
    assert len(kinds) == 1 and "image/png" in kinds[0]
    assert not any("widget" in k for k in kinds[0]) and "widgets" not in done.metadata


def test_a_picture_that_fails_does_not_freeze_the_controls():
    fig, ax = figure(1, 1)

    def draw(x: int) -> None:
        if x == 2:
            raise RuntimeError("no picture")
        ax.set_xlim(0, x)
    box = Panel(fig, draw, {"x": Control("x", 1, 0, 5)}).box()
    slider, before = box.children[0].children[0], box.children[1].value
    with pytest.raises(RuntimeError, match="no picture"):
        slider.value = 2
    slider.value = 3
    assert box.children[1].value != before
