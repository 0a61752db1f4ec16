"""The environment's files agree with each other, with the imports and with the notebooks."""
from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from s4d.reproduce import GIVEN, NOTEBOOKS, inspect_notebook

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK_FILES = sorted(p for folder in ("notebooks", "course")
                        for p in (ROOT / folder).rglob("*.ipynb")
                        if ".ipynb_checkpoints" not in p.parts)
IMPORT_NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml",
                "websocket": "websocket-client"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imports(folder: Path) -> set[str]:
    """Top-level names that the folder's modules import from outside."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"s4d"}


def test_every_line_is_an_exact_pin():
    for line in pins():
        specifiers = list(Requirement(line).specifier)
        assert [s.operator for s in specifiers] == ["=="] and "*" not in str(specifiers[0]), line


def test_conda_environment_holds_the_same_pins():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert [d for d in dependencies if isinstance(d, dict)] == [{"pip": pins()}], "run `make pins`"
    assert dependencies[:2] == ["python=3.11", "pip"]


def test_pins_fulfil_the_ranges():
    read = map(Requirement, pins())
    pinned = {normal(r.name): next(iter(r.specifier)).version for r in read}
    for line in project()["dependencies"] + project()["optional-dependencies"]["dev"]:
        wanted = Requirement(line)
        assert normal(wanted.name) in pinned, f"{wanted.name} has no pin"
        assert wanted.specifier.contains(pinned[normal(wanted.name)], prereleases=True), line


@pytest.mark.parametrize("folder", ["s4d", "tests"])
def test_every_import_is_declared(folder):
    optional = project()["optional-dependencies"]
    lines = project()["dependencies"] + (optional["dev"] if folder == "tests" else [])
    declared = {normal(Requirement(line).name) for line in lines}
    declared |= {normal(p.stem) for p in (ROOT / "tests").glob("*.py")}
    declared |= {normal(Requirement(line).name) for line in optional["book"]}
    used = {normal(IMPORT_NAMES.get(name, name)) for name in imports(ROOT / folder)}
    assert not used - declared


def test_no_machine_path_in_the_environment_files():
    for name in ("requirements.txt", "environment.yml", "pyproject.toml", "Makefile"):
        text = (ROOT / name).read_text()
        assert not re.search(r"file:|@ |/home/|--index-url|--find-links", text), name


def test_every_notebook_exists():
    assert [n for n in NOTEBOOKS if not (ROOT / "notebooks" / f"{n}.ipynb").is_file()] == []


@pytest.mark.parametrize("path", NOTEBOOK_FILES, ids=lambda p: p.stem)
def test_notebook_is_stripped_and_parametrised(path):
    cells = json.loads(path.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in code), "run `make strip`"
    if path.parent.name == "notebooks":
        assert sum("parameters" in c["metadata"].get("tags", []) for c in cells) == 1
        assert set(GIVEN) <= set(inspect_notebook(path))


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Runs make as a user would, whether or not make runs the tests."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, env=env)


def test_make_without_a_target_explains_itself():
    text = make().stdout
    for target in ("reproduce", "smoke", "test", "test-all", "lab", "clean"):
        assert re.search(rf"^  {target} +\w", text, re.M), target


def test_an_old_python_is_refused_in_one_sentence(tmp_path):
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    run = make("test", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert run.returncode and "older than Python 3.11" in run.stderr
    assert not (tmp_path / "venv").exists()


def test_a_failing_installation_leaves_no_stamp(tmp_path):
    wheel = "no-such-package-of-s4d @ file:///nowhere/nothing-0.1-py3-none-any.whl"
    (tmp_path / "requirements.txt").write_text(wheel + "\n")
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    run = make("venv", f"PYTHON={sys.executable}", cwd=tmp_path)
    assert run.returncode and not (tmp_path / ".venv" / ".installed").exists()
