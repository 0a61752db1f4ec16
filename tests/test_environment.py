"""The environment's files agree with each other, with the imports and with the notebooks."""
from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as normal
from papermill import inspect_notebook

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK_FILES = sorted(p for folder in ("notebooks", "course")
                        for p in (ROOT / folder).rglob("*.ipynb")
                        if ".ipynb_checkpoints" not in p.parts)
IMPORT_NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml",
                "websocket": "websocket-client"}
PINS = [line for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]


def test_conda_environment_holds_the_same_exact_pins():
    for line in PINS:
        specifiers = list(Requirement(line).specifier)
        assert [s.operator for s in specifiers] == ["=="] and "*" not in str(specifiers[0]), line
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert dependencies == ["python=3.11", "pip", {"pip": PINS}], "run `make pins`"


def test_pins_fulfil_the_ranges():
    read = map(Requirement, PINS)
    pinned = {normal(r.name): next(iter(r.specifier)).version for r in read}
    for line in PROJECT["dependencies"] + OPTIONAL["dev"]:
        wanted = Requirement(line)
        assert normal(wanted.name) in pinned, f"{wanted.name} has no pin"
        assert wanted.specifier.contains(pinned[normal(wanted.name)], prereleases=True), line


@pytest.mark.parametrize("folder", ["s4d", "tests"])
def test_every_import_is_declared(folder):
    lines = PROJECT["dependencies"] + OPTIONAL["book"]
    lines += OPTIONAL["dev"] if folder == "tests" else []
    declared = {normal(Requirement(line).name) for line in lines}
    ours = {"s4d", *(p.stem for p in (ROOT / "tests").glob("*.py"))}
    used = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module.split(".")[0])
    used -= sys.stdlib_module_names | ours
    assert {normal(IMPORT_NAMES.get(name, name)) for name in used} <= declared


@pytest.mark.parametrize("path", NOTEBOOK_FILES, ids=lambda p: p.stem)
def test_notebook_is_stripped_and_parametrised(path):
    cells = json.loads(path.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in code), "run `make strip`"
    if path.parent.name == "notebooks":
        assert sum("parameters" in c["metadata"].get("tags", []) for c in cells) == 1
        assert {"profile", "out", "data", "runs"} <= set(inspect_notebook(path))


def test_an_old_python_is_refused_in_one_sentence(tmp_path):
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "test", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert run.returncode and "older than Python 3.11" in run.stderr
    assert not (tmp_path / "venv").exists()
