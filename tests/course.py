"""The exercises: every solution runs, every typical wrong answer fails with a message that teaches, every other right answer passes.

`make course-test` runs all of it; `tests/test_assignments.py`, a part of `make test`, uses the functions.
"""
from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbformat import NotebookNode

from s4d import assignments as course

NAMES = course.names()


@dataclass(frozen=True)
class Answer:
    """One way to answer one function of an assignment; `says` is what the failing test must tell, empty for a right answer."""

    assignment: str
    function: str
    label: str
    says: str
    source: str

    def __str__(self) -> str:
        return f"{self.assignment}-{self.function}-{self.label}"


def answers(name: str) -> list[Answer]:
    """The answers kept beside a master."""
    text = (course.FOLDER / "answers" / f"{name}.py").read_text("utf-8")
    found, needed = [], []
    for node in ast.parse(text).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            needed.append(ast.get_source_segment(text, node))
        if isinstance(node, ast.FunctionDef):
            function, label = node.name.split("__", 1)
            says = re.search(r"Says: (.+)", ast.get_docstring(node) or "")
            source = re.sub(rf"\b{node.name}\b", function, ast.get_source_segment(text, node))
            found.append(Answer(name, function, label, says[1].strip() if says else "", "\n".join([*needed, source])))
    return found


EVERY = [a for name in NAMES for a in answers(name)]


def functions_of(source: str) -> list[str]:
    return [n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]


def runs(cell: NotebookNode) -> bool:
    """Whether later cells need this one: settings, given code and answers, but not pictures and experiments."""
    return course.kind(cell) in ("answer", "locked") or "parameters" in cell.metadata.get("tags", ())


def attempt(notebook: NotebookNode, answer: Answer) -> Exception | None:
    """The error of the test that follows an answer, when the rest of the notebook is solved; None when it passes.

    Runs the code cells in this process up to that test; ordinary cells are pictures and experiments, and are left out.
    """
    notebook, space = copy.deepcopy(notebook), {}
    at = next(i for i, c in enumerate(notebook.cells) if course.kind(c) == "answer" and answer.function in functions_of(c.source))
    notebook.cells[at].source = answer.source
    last = next(i for i, c in enumerate(notebook.cells) if i > at and course.kind(c) == "test")
    for i, cell in enumerate(notebook.cells[:last + 1]):
        if runs(cell) or i == last:
            try:
                exec(compile(cell.source, f"{answer}, cell {i + 1}", "exec"), space)
            except Exception as error:
                if i == last:
                    return error
                raise
            finally:
                plt.close("all")
    return None


@pytest.fixture(scope="session")
def solved() -> dict[str, NotebookNode]:
    return {name: course.solution(course.read(name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_runs_and_gets_all_points(name, tmp_path):
    submission = tmp_path / "teacher" / f"{name}.ipynb"
    submission.parent.mkdir()
    nbformat.write(course.solution(course.read(name)), submission)
    rows = course.grade(submission, tmp_path / "graded")
    tests = rows[rows.points.notna()]
    assert (tests.points == tests.of).all(), tests[tests.message != ""].to_dict("records")
    executed = nbformat.read(tmp_path / "graded" / "teacher" / f"{name}.ipynb", 4)
    assert [course.failure(c) for c in executed.cells if c.cell_type == "code" and course.failure(c)] == []


@pytest.mark.parametrize("name", NAMES)
def test_stubs_pass_no_test(name):
    space, errors = {}, {}
    for cell in course.autograder(course.read(name)).cells:
        if runs(cell) or course.kind(cell) == "test":
            try:
                exec(cell.source, space)
            except NotImplementedError as error:
                errors[course.mark(cell)["grade_id"]] = error
            else:
                assert course.kind(cell) != "test", f"the test {course.mark(cell)['grade_id']} passes with an empty answer"
    assert errors


@pytest.mark.parametrize("answer", [a for a in EVERY if a.says], ids=str)
def test_a_wrong_answer_fails_and_is_told_why(answer, solved):
    error = attempt(solved[answer.assignment], answer)
    assert isinstance(error, AssertionError), f"expected a failing test, got {error!r}"
    assert answer.says in str(error), f"the message is: {error}"


@pytest.mark.parametrize("answer", [a for a in EVERY if not a.says], ids=str)
def test_a_right_answer_written_another_way_passes(answer, solved):
    error = attempt(solved[answer.assignment], answer)
    assert error is None, repr(error)


@pytest.mark.parametrize("name", NAMES)
def test_every_assignment_has_enough_answers(name):
    given = answers(name)
    assert sum(bool(a.says) for a in given) >= 3 and sum(not a.says for a in given) >= 1
    assert all(("right" in a.label) != bool(a.says) for a in given)
