"""The notebooks as a reader has them: JupyterLab in a headless browser, every panel's controls moved, every notebook and every
solution run from top to bottom, pictures kept to be looked at.

Run by hand: `python -m pytest tests/test_browser.py -s`; the pictures go to build/browser.
"""
from __future__ import annotations

import base64
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

import nbformat
import numpy as np
import pytest
import websocket
from nbformat.v4 import new_code_cell, new_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from test_panels import prof  # noqa: F401  a fixture

from s4d import config as configs
from s4d.artifacts import ROOT
from s4d.notebooks import NOTEBOOKS
from s4d.panels import SLIDERS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PATIENCE = 240          # seconds for JupyterLab to start and the kernel to load torch, on a busy machine
PICTURES = ROOT / "build" / "browser"
PANELS = {"actor": "panels.actor(subjects(1, seed=3))", "masking": "panels.masking(prof)", "heads": "panels.heads(prof)",
          "experts": "panels.experts(prof)", "scrub": "panels.scrub(prof)"}
# What a page can be asked: panels in order, each with its picture and its controls.
BOXES = "[...document.querySelectorAll('.jp-OutputArea-output .widget-vbox')].filter(b => b.querySelector('img'))"


class Page:
    """A tab of a browser, driven through its debugging port."""

    def __init__(self, port: int):
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        address = next(p for p in pages if p["type"] == "page")["webSocketDebuggerUrl"]
        self.socket, self.numbers = websocket.create_connection(address, timeout=60), itertools.count(1)

    def call(self, method: str, **params) -> dict:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                return answer["result"]

    def js(self, text: str):
        """The value of an expression; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, f"{text}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def until(self, text: str, seconds: float = PATIENCE):
        """Waits until an expression is true."""
        return wait(lambda: self.js(text), seconds, text)

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, name: str, k: int) -> None:
        """Saves what the k-th panel looks like."""
        self.js(f"{BOXES}[{k}].scrollIntoView()")
        box = self.js(f"(b => [b.x, b.y, b.width, b.height])({BOXES}[{k}].getBoundingClientRect())")
        clip = dict(zip(("x", "y", "width", "height"), box), scale=1)
        shot = self.call("Page.captureScreenshot", format="png", clip=clip)
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def wait(found, seconds: float, what: str):
    """Polls until something is true; returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = found()
        except OSError:
            value = None
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def started():
    """A function that starts a process; all are ended after the test."""
    running = []

    def start(*command: str, **options) -> None:
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options))
    yield start
    for process in reversed(running):
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def lab(folder: Path, start) -> str:
    """Starts JupyterLab on a folder; returns its address. All cells are rendered, seen or not, and the application can be scripted."""
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    port, env = free_port(), {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(folder / "config"),
                              "JUPYTER_DATA_DIR": str(folder / "share"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    start(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=",
          "--LabApp.expose_app_in_browser=True", f"--LabApp.user_settings_dir={folder / 'settings'}", f"--ServerApp.root_dir={folder}",
          cwd=folder, env=env)
    address = f"http://127.0.0.1:{port}"
    wait(lambda: urllib.request.urlopen(f"{address}/api").status == 200, PATIENCE, "JupyterLab")
    return address


def browser(address: str, folder: Path, start) -> Page:
    port = free_port()
    start(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}",
          f"--remote-debugging-port={port}", "--remote-allow-origins=*", "--window-size=1300,1100", address)
    wait(lambda: any(p["type"] == "page" for p in json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))), 60, "the browser")
    return Page(port)


def move(page: Page, k: int, c: int) -> float:
    """Moves control c of panel k and waits for another picture; returns the milliseconds between."""
    control, picture = f"{BOXES}[{k}].querySelectorAll('.widget-slider, .widget-dropdown')[{c}]", f"{BOXES}[{k}].querySelector('img').src"
    before = page.js(picture)
    page.js(f"{control}.scrollIntoView()")
    start = time.monotonic()
    if page.js(f"!!{control}.querySelector('select')"):
        page.js(f"(s => {{s.selectedIndex = (s.selectedIndex + 1) % s.options.length; s.dispatchEvent(new Event('change', {{bubbles: true}}))}})"
                f"({control}.querySelector('select'))")
    else:
        end = page.js(f"(h => {{h.focus(); return h.ariaValueNow === h.ariaValueMax}})({control}.querySelector('.noUi-handle'))")
        page.press(*(("ArrowLeft", 37) if end else ("ArrowRight", 39)))
    page.until(f"{picture} !== {json.dumps(before)}", 20)
    return 1000 * (time.monotonic() - start)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium, or install Chrome")
def test_every_control_of_every_panel_moves_in_a_browser(prof, tmp_path, started):  # noqa: F811
    (tmp_path / "prof.json").write_text(json.dumps(configs.to_dict(prof)))
    first = "import json\nfrom s4d import config, panels\nfrom s4d.faces import subjects\nprof = config.from_dict(json.load(open('prof.json')))"
    notebook = new_notebook(cells=[new_code_cell(text) for text in (first, *PANELS.values())],
                            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    nbformat.write(notebook, tmp_path / "play.ipynb")
    page = browser(f"{lab(tmp_path, started)}/doc/tree/play.ipynb", tmp_path / "chromium", started)
    page.until("!!window.jupyterapp && !!document.querySelector('.jp-Notebook .jp-Cell')")
    page.until("window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.js("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")
    page.until(f"{BOXES}.length === {len(PANELS)} && {BOXES}.every(b => b.querySelector('img').src.startsWith('blob:'))")
    for k, name in enumerate(PANELS):
        count = page.js(f"{BOXES}[{k}].querySelectorAll('.widget-slider, .widget-dropdown').length")
        assert count == {"actor": len(SLIDERS) + 2, "masking": 4, "heads": len(SLIDERS) + 2, "experts": 5, "scrub": 2}[name]
        page.picture(f"{name}_start", k)
        spent = [move(page, k, c) for c in range(count)]
        page.picture(f"{name}_moved", k)
        print(f"{name}: {count} controls, from key to picture {np.median(spent):.0f} ms (median), {max(spent):.0f} ms (most)")
    assert page.js("document.querySelectorAll('[data-mime-type=\"application/vnd.jupyter.stderr\"]').length") == 0


def readable(folder: Path) -> list[str]:
    """Puts every notebook, set to the smallest profile, and every assignment's solution into a folder; their paths in it."""
    places = dict(profile="smoke", **{k: str(folder / k) for k in ("out", "data", "runs")})
    for name in NOTEBOOKS:
        notebook = load_notebook_node(str(ROOT / "notebooks" / f"{name}.ipynb"))
        nbformat.write(parameterize_notebook(notebook, places), folder / f"{name}.ipynb")
    shutil.copytree(ROOT / "course" / "source", folder / "course")
    solved = sorted((folder / "course").rglob("*.ipynb"))
    assert len(solved) == 9
    return [*(f"{name}.ipynb" for name in NOTEBOOKS), *(str(p.relative_to(folder)) for p in solved)]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium, or install Chrome")
def test_every_notebook_and_every_solution_runs_in_jupyterlab(tmp_path, started):
    """One after another, so that a notebook finds what those before it wrote."""
    page = browser(f"{lab(tmp_path, started)}/lab", tmp_path / "chromium", started)
    page.until("!!window.jupyterapp && !!document.querySelector('.jp-Launcher')")
    shown = "window.jupyterapp.shell.currentWidget"
    kernel = f"{shown}?.sessionContext?.session?.kernel?.status === 'idle'"
    cells = f"{shown}.content.widgets.filter(c => c.model.type === 'code' && c.model.sharedModel.getSource().trim())"
    for path in readable(tmp_path):
        page.js(f"window.jupyterapp.commands.execute('docmanager:open', {{path: {json.dumps(path)}}}).then(() => true)")
        page.until(f"{shown}?.context?.path === {json.dumps(path)} && {kernel}")
        start = time.monotonic()
        page.js("window.jupyterapp.commands.execute('notebook:run-all-cells'); true")     # not waited for: it takes longer than a call may
        page.until(f"{kernel} && {cells}.every(c => c.model.executionCount !== null)", 900)
        failed = page.js(f"{cells}.flatMap(c => c.model.outputs.toJSON()).filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue)")
        assert not failed, f"{path}: {failed}"
        print(f"{path}: {time.monotonic() - start:.0f} s in JupyterLab")
        shot = page.call("Page.captureScreenshot", format="png")
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / f"{Path(path).stem}.png").write_bytes(base64.b64decode(shot["data"]))
        page.js(f"{shown}.context.save().then(() => {shown}.sessionContext.shutdown()).then(() => {shown}.close()).then(() => true)")
