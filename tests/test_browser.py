"""The panels as a reader has them: JupyterLab in a headless browser, every control moved.

Run by hand: `python -m pytest tests/test_browser.py -s`.
"""
from __future__ import annotations

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

import pytest
from conftest import put
from test_panels import prof  # noqa: F401  a fixture

from s4d import config as configs
from s4d.panels import SLIDERS

CHROMIUM = next(filter(None, map(shutil.which, (
    "chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PATIENCE = 240          # seconds for JupyterLab to start and the kernel to load torch
ROOT = Path(__file__).resolve().parents[1]
PANELS = {"actor(subjects(1, seed=3))": len(SLIDERS) + 2, "masking(prof)": 4,   # how many controls
          "heads(prof)": len(SLIDERS) + 2, "experts(prof)": 5, "scrub(prof)": 2}
# Panels in order, each with its picture and its controls.
BOXES = ("[...document.querySelectorAll('.jp-OutputArea-output .widget-vbox')]"
         ".filter(b => b.querySelector('img'))")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: apt install chromium, or install Chrome")]


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


def test_every_control_of_every_panel_moves(prof, tmp_path, browse, write_notebook):  # noqa: F811
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
