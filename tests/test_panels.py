"""Panels follow their controls, are fast, say what is missing, leave a picture in a batch run."""
from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_finetune, tiny_pretrain

from s4d import config as configs
from s4d import panels
from s4d.faces import facs, subjects
from s4d.panels import Panel
from s4d.study import stimuli
from s4d.training import run_all

SIZES = dict(img_size=64, num_frames=8)       # those of profile sandbox, whose speed matters
MAKERS = {"masking": panels.masking, "heads": panels.heads, "experts": panels.experts,
          "scrub": panels.scrub, "actor": lambda prof: panels.actor(subjects(1, seed=3))}


@pytest.fixture(scope="module")
def prof(mini, tmp_path_factory) -> configs.Profile:
    """Three runs, trained for a few steps."""
    runs = str(tmp_path_factory.mktemp("runs"))
    made = configs.Profile("mini", None, tiny_pretrain(mini, **SIZES), tiny_finetune(mini, **SIZES),
                           seeds=(0,), methods=("static", "s4d"), scratch_methods=(), runs=runs)
    run_all([cfg for *_, cfg in made.methods_grid()], runs=runs, workers=1)
    return made


@pytest.fixture(scope="module")
def made(prof) -> dict[str, Panel]:
    return {name: make(prof) for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_every_control_changes_the_picture_within_a_fifth_of_a_second(made, name):
    panel = made[name]
    controls, view = panel.box().children
    first, spent = view.value, []
    for (control, spec), widget in zip(panel.controls.items(), controls.children, strict=True):
        if control in panel.presets:
            continue
        values = [o[1] if isinstance(o, tuple) else o for o in spec.options]
        before, start = widget.value, time.process_time()
        widget.value = next(v for v in (*values[::-1], spec.low, spec.high) if v != spec.value)
        spent.append(time.process_time() - start)         # of one core, whoever else is at work
        assert view.value != first, control
        widget.value = before
        assert view.value == first, f"{control} moved back"
    assert np.median(spent) < 0.2, f"{name}: {1000 * np.median(spent):.0f} ms a step"


def pictures(panel: Panel) -> list[np.ndarray]:
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
    assert (clip[4] == photo).all() and (clip[0] == clip[-1]).all() and (clip[0] != photo).any()


def test_a_prototype_moves_all_sliders_and_draws_once(made, monkeypatch):
    panel, calls = made["heads"], []
    draw = panel.draw
    monkeypatch.setattr(panel, "draw", lambda **given: calls.append(given) or draw(**given))
    widgets = dict(zip(panel.controls, panel.box().children[0].children, strict=True))
    calls.clear()
    widgets["prototype"].value = "anger"
    spec = panels.prototype("anger")
    assert len(calls) == 1 and spec
    for a in panels.SLIDERS:
        assert widgets[f"action_{a}"].value == calls[0][f"action_{a}"] == spec.get(a, 0)


@pytest.mark.parametrize("kind, steps", [("photo", 1), ("clip", 4)])
def test_the_lit_tokens_are_those_of_the_gates(made, prof, kind, steps):
    panel, lit, asked = made["experts"], 0, 0
    for expert in range(1, 9):
        panel.png(kind=kind, expert=expert, subject=5, emotion="anger")
        shown = [ax for ax in panel.fig.axes if ax.images and ax.get_visible()]
        asked += sum(int(ax.get_title().split()[2]) for ax in shown)
        lit = lit + np.stack(pictures(panel)).astype(float)
    assert asked == 2 * 16 * steps                              # two experts a token
    apex = facs.sheet(panels.prototype("anger"))
    actions = panels.course(apex, 8)[::2] if kind == "clip" else [apex]
    faces = panels.face(prof, 5, actions, 64).permute(0, 2, 3, 1).numpy()
    light = 8 * panels.DIM + 1 - panels.DIM                     # gates of a token add up to one
    np.testing.assert_allclose(lit / light, faces, atol=8 / light)


def test_scrubbing_shows_the_frame_and_its_reading(made):
    panel, seen = made["scrub"], []
    label = panel.controls["clip"].options[1][0].removeprefix("2: ")
    for frame, shown in ((2, 2), (5, 5), (99, 6)):              # the clip has six
        panel.png(clip=1, frame=frame)
        curves = [line.get_ydata() for line in panel.fig.axes[1].lines[:7]]
        np.testing.assert_allclose(np.sum(curves, 0), 1, atol=1e-6)
        assert f"frame {shown}, true label: {label}" in panel.fig.axes[0].get_title()
        seen.append(pictures(panel)[0])
    assert (seen[0] != seen[1]).any()


def test_what_is_missing_is_said(prof, tmp_path):
    untrained = configs.update(prof, runs=str(tmp_path))
    moved = configs.profile("smoke", data=str(tmp_path), runs=str(tmp_path))
    for made, make, message in (
            (untrained, panels.masking, "the pre-training of profile mini .*no finished run in .*"
                                        "execute this notebook's cells above"),
            (moved, panels.masking, "data are not here.*reproduce --profile smoke")):
        with pytest.raises(panels.RunError, match=message):
            make(made)


@pytest.mark.parametrize("asked, shown", [(True, "VBox"), (False, "Image"), (None, "Image")])
def test_a_panel_is_a_picture_where_nobody_sits_at_the_notebook(monkeypatch, asked, shown):
    found, message = [], {"content": {"allow_stdin": asked}}
    kernel = None if asked is None else SimpleNamespace(get_parent=lambda channel: message)
    monkeypatch.setattr(panels, "display", found.append)
    monkeypatch.setattr(panels, "get_ipython", lambda: SimpleNamespace(kernel=kernel))
    panels.actor(subjects(1, seed=3))._ipython_display_()
    assert [type(s).__name__ for s in found] == [shown]

