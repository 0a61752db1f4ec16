"""Panels follow their controls, are fast, say what is missing; in a browser by hand (slow)."""
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import put, tiny_finetune, tiny_pretrain

from s4d import config as configs
from s4d import panels
from s4d.faces import facs, subjects
from s4d.panels import SLIDERS, Panel
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
    seen, spent = [view.value], []
    for (control, spec), widget in zip(panel.controls.items(), controls.children, strict=True):
        if control in panel.presets:
            continue
        values = [o[1] if isinstance(o, tuple) else o for o in spec.options]
        before, start = widget.value, time.process_time()
        widget.value = next(v for v in (*values[::-1], spec.low, spec.high) if v != spec.value)
        spent.append(time.process_time() - start)         # of one core, whoever else is at work
        assert view.value not in seen, control
        seen.append(view.value)
        if len(spent) < 4:
            widget.value = before
            assert view.value in seen[:-1], f"{control} moved back"
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


# --- in JupyterLab, in a headless browser: `python -m pytest tests/test_panels.py -m slow`

CHROMIUM = next(filter(None, map(shutil.which, (
    "chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PATIENCE = 240          # seconds for JupyterLab to start and the kernel to load torch
ROOT = Path(__file__).resolve().parents[1]
PANELS = {"actor(subjects(1, seed=3))": len(SLIDERS) + 2, "masking(prof)": 4,   # how many controls
          "heads(prof)": len(SLIDERS) + 2, "experts(prof)": 5, "scrub(prof)": 2}
# Panels in order, each with its picture and its controls.
BOXES = ("[...document.querySelectorAll('.jp-OutputArea-output .widget-vbox')]"
         ".filter(b => b.querySelector('img'))")


def fetch(port: int, path: str):
    return json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}"))


class Page:
    """A tab of a browser, driven through its debugging port."""

    def __init__(self, port: int):
        websocket, self.numbers = pytest.importorskip("websocket"), itertools.count(1)
        tab = next(p for p in fetch(port, "json") if p["type"] == "page")
        self.socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=60)

    def call(self, method: str, **params) -> dict:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                return answer["result"]

    def js(self, text: str):
        said = self.call("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, f"{text}: {said['exceptionDetails']}"
        return said["result"].get("value")

    def until(self, text: str) -> None:
        wait(lambda: self.js(text), text)


def wait(found, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found():
                return
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


@pytest.fixture
def browse(tmp_path):
    """A function that opens a page of JupyterLab on `tmp_path`; both are ended after the test."""
    running, quiet = [], dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(*command: str, **options) -> None:
        running.append(subprocess.Popen(command, **quiet, **options))

    def open_page(path: str) -> Page:
        put(tmp_path / "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings",
            '{"windowingMode": "none"}')          # all cells are rendered, seen or not
        folders = {f"JUPYTER_{k}_DIR": str(tmp_path / k) for k in ("CONFIG", "DATA", "RUNTIME")}
        with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as two:
            port, debug = (s.getsockname()[1] for s in (one, two))
        start(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
              "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True",
              f"--LabApp.user_settings_dir={tmp_path / 'settings'}",
              f"--ServerApp.root_dir={tmp_path}", cwd=tmp_path,
              env={**os.environ, "PYTHONPATH": str(ROOT), **folders})
        wait(lambda: fetch(port, "api"), "JupyterLab")
        start(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
              "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'chromium'}",
              f"--remote-debugging-port={debug}", "--remote-allow-origins=*",
              "--window-size=1300,1100", f"http://127.0.0.1:{port}/{path}")
        wait(lambda: any(p["type"] == "page" for p in fetch(debug, "json")), "the browser")
        return Page(debug)
    yield open_page
    for process in reversed(running):
        process.terminate()
        process.wait(60)


def move(page: Page, picture: str, control: str) -> None:
    before = page.js(picture)
    page.js(f"{control}.scrollIntoView()")
    if page.js(f"!!{control}.querySelector('select')"):
        page.js("(s => {s.selectedIndex = (s.selectedIndex + 1) % s.options.length; "
                "s.dispatchEvent(new Event('change', {bubbles: true}))})"
                f"({control}.querySelector('select'))")
    else:
        end = page.js("(h => {h.focus(); return h.ariaValueNow === h.ariaValueMax})"
                      f"({control}.querySelector('.noUi-handle'))")
        key, code = ("ArrowLeft", 37) if end else ("ArrowRight", 39)
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=code)
    page.until(f"{picture} !== {json.dumps(before)}")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium, or Chrome")
def test_every_control_of_every_panel_moves(prof, tmp_path, browse, write_notebook):
    (tmp_path / "prof.json").write_text(json.dumps(configs.to_dict(prof)))
    first = ("import json\nfrom s4d import config, panels\nfrom s4d.faces import subjects\n"
             "prof = config.from_dict(json.load(open('prof.json')))")
    write_notebook(tmp_path / "play.ipynb", first, *(f"panels.{made}" for made in PANELS))
    page = browse("doc/tree/play.ipynb")
    page.until("!!window.jupyterapp && !!document.querySelector('.jp-Notebook .jp-Cell')")
    page.until("window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status "
               "=== 'idle'")
    page.js("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")
    page.until(f"{BOXES}.length === {len(PANELS)} && "
               f"{BOXES}.every(b => b.querySelector('img').src.startsWith('blob:'))")
    for k, count in enumerate(PANELS.values()):
        controls = f"{BOXES}[{k}].querySelectorAll('.widget-slider, .widget-dropdown')"
        assert count == page.js(f"{controls}.length")
        for c in range(count):
            move(page, f"{BOXES}[{k}].querySelector('img').src", f"{controls}[{c}]")
    errors = "document.querySelectorAll('[data-mime-type=\"application/vnd.jupyter.stderr\"]')"
    assert page.js(f"{errors}.length") == 0
