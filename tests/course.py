"""The course: solutions run, wrong answers fail with a message that teaches, other right ones pass.

`make course-test` runs all of it; `tests/test_assignments.py`, a part of `make test`, uses the
functions. Masters keep nbgrader's conventions; only the steps that nbgrader does itself need it.
"""
import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
COURSE = ROOT / "course"
EXERCISES = ROOT / "notebooks" / "exercises"
NAMES = sorted(p.name for p in (COURSE / "source").iterdir() if p.is_dir())


def master(name: str) -> NotebookNode:
    return nbformat.read(COURSE / "source" / name / f"{name}.ipynb", as_version=4)


def student(name: str) -> NotebookNode:
    return nbformat.read(EXERCISES / f"{name}.ipynb", as_version=4)


def mark(cell: NotebookNode) -> dict:
    return cell.metadata.get("nbgrader", {})


def kind(cell: NotebookNode) -> str:
    """Say answer (code), written (text graded by hand), test, locked or "" (ordinary)."""
    about = mark(cell)
    if about.get("solution"):
        return "written" if about["grade"] else "answer"
    if about.get("grade"):
        return "test"
    return "locked" if about.get("locked") else ""


class Answer(NamedTuple):
    """One way to answer one function; `says` is what the failing test must tell, or empty."""

    assignment: str
    function: str
    label: str
    says: str
    source: str


def answers(name: str) -> list[Answer]:
    """Read the answers to one assignment: functions called `<function>__<label>`."""
    text = (COURSE / "answers" / f"{name}.py").read_text("utf-8")
    found, imports = [], ""
    for node in ast.parse(text).body:
        source = ast.get_source_segment(text, node) + "\n"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports += source
        if isinstance(node, ast.FunctionDef):
            function, label = node.name.split("__", 1)
            says = re.findall(r"Says: (.+)", ast.get_docstring(node) or "") or [""]
            source = re.sub(rf"\b{node.name}\b", function, source)
            found.append(Answer(name, function, label, says[0].strip(), imports + source))
    return found


EVERY = [answer for name in NAMES for answer in answers(name)]


def needed(cell: NotebookNode) -> bool:
    """Whether tests need a cell: settings, given code and answers, but no pictures."""
    return kind(cell) in ("answer", "locked") or "parameters" in cell.metadata.get("tags", ())


def place(notebook: NotebookNode, answer: Answer) -> int:
    """The number of the cell that an answer belongs into."""
    return next(i for i, c in enumerate(notebook.cells)
                if kind(c) == "answer" and f"def {answer.function}(" in c.source)


def check(answer: Answer) -> None:
    """Run the test that follows an answer, all else solved: it passes, or tells what is wrong."""
    notebook, space = master(answer.assignment), {}
    at = place(notebook, answer)
    test = next(i for i, c in enumerate(notebook.cells) if i > at and kind(c) == "test")
    for i, cell in enumerate(notebook.cells[:test]):
        if needed(cell):
            exec(answer.source if i == at else cell.source, space)
    expected = (pytest.raises(AssertionError, match=re.escape(answer.says)) if answer.says
                else contextlib.nullcontext())
    with expected:
        exec(notebook.cells[test].source, space)
    plt.close("all")


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_passes_every_test(name, tmp_path):
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(master(name), timeout=900, kernel_name="python3", resources=where).execute()


@pytest.mark.parametrize("name", NAMES)
def test_stubs_pass_no_test(name):
    space = {}
    for ours, theirs in zip(master(name).cells, student(name).cells, strict=True):
        if kind(ours) == "test":
            with pytest.raises(NotImplementedError):
                exec(ours.source, space)
        elif needed(ours):
            exec(theirs.source, space)


@pytest.mark.parametrize("answer", EVERY, ids=lambda a: "-".join(a[:3]))
def test_wrong_answers_are_told_why_and_right_ones_pass(answer):
    check(answer)


@pytest.fixture
def nbgrader(tmp_path):
    """A function that runs an nbgrader command in a new course folder, and returns the folder."""
    pytest.importorskip("nbgrader", reason="pip install -r requirements-course.txt")
    shutil.copy(COURSE / "nbgrader_config.py", tmp_path)
    shutil.copytree(COURSE / "source", tmp_path / "source")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic

    def run(*command: str) -> Path:
        done = subprocess.run([sys.executable, "-m", "nbgrader", *command], cwd=tmp_path,
                              env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return tmp_path
    return run


def test_student_versions_are_up_to_date(nbgrader):
    made = nbgrader("generate_assignment", "*", "--no-db") / "release"
    for name in NAMES:
        release = nbformat.read(made / name / f"{name}.ipynb", as_version=4)
        assert release == student(name), f"{name} differs from its master: run `make assignments`"


def test_nbgrader_grades_with_our_tests_whatever_a_student_did_to_them(nbgrader):
    name, wrong = "03_attention", next(a for a in answers("03_attention") if a.says)
    folder = nbgrader("generate_assignment", name)
    for who in ("right", "wrong"):
        handed = student(name)
        for cell, ours in zip(handed.cells, master(name).cells, strict=True):
            cell.source = "assert True" if kind(ours) == "test" else ours.source
        if who == "wrong":
            handed.cells[place(handed, wrong)].source = wrong.source
        (folder / "submitted" / who / name).mkdir(parents=True)
        nbformat.write(handed, folder / "submitted" / who / name / f"{name}.ipynb")
    nbgrader("autograde", name)
    nbgrader("export")
    rows = pd.read_csv(folder / "grades.csv").set_index("student_id")
    points = sum(mark(c)["points"] for c in master(name).cells if kind(c) == "test")
    assert rows.score["right"] == points and rows.score["wrong"] < points
    graded = folder / "autograded" / "wrong" / name / f"{name}.ipynb"
    assert wrong.says in graded.read_text("utf-8")
