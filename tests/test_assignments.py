"""Assignments in miniature: versions, leaks, conventions, errors, grading of one of them. `make course-test` runs all of the course."""
from __future__ import annotations

import copy
import re
from pathlib import Path

import nbformat
import pytest
from course import EVERY, NAMES, Answer, answers, attempt
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from s4d import assignments as course
from s4d.__main__ import main
from s4d.assignments import AssignmentError

# Lines that hidden tests share with given code and that tell nothing.
COMMON = ("torch.manual_seed(0)", "with torch.no_grad():", "layer = layer_with_experts()", 'mae = timm.create_model("s4d_mae_nano_patch16_64")')
FIRST = "# 1 Doubling\n\n**Goals.** Double.\n**Time.** 5 minutes.\n**Prerequisites.** None."


def cell(source: str, grade_id: str, **about) -> nbformat.NotebookNode:
    """A cell with nbgrader's metadata; text where it is to be graded by hand."""
    marks = dict(schema_version=3, grade=False, solution=False, locked=False, task=False, grade_id=grade_id) | about
    make = new_markdown_cell if marks["solution"] and marks["grade"] else new_code_cell
    return make(source, metadata={"nbgrader": marks})


def tiny() -> nbformat.NotebookNode:
    """A master of one function, one test and one written answer."""
    return new_notebook(cells=[
        new_markdown_cell(FIRST),
        cell("import math", "setup", locked=True),
        cell("def double(x: int) -> int:\n    ### BEGIN SOLUTION\n    return math.prod((2, x))\n    ### END SOLUTION", "double", solution=True),
        cell("assert double(2) == 4, 'twice two'\n### BEGIN HIDDEN TESTS\nassert double(-5) == -10, 'negative'\n### END HIDDEN TESTS",
             "double-test", grade=True, locked=True, points=2),
        new_markdown_cell("Why?"),
        cell("### BEGIN SOLUTION\nBecause of the factor.\n### END SOLUTION", "why", grade=True, solution=True, points=1)])


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the tiny master."""
    place = tmp_path / "masters"
    place.mkdir()
    nbformat.write(tiny(), place / "1_double.ipynb")
    return place


def secrets(master: nbformat.NotebookNode) -> set[str]:
    """Lines of solutions, model answers and hidden tests that say something."""
    lines = (line.strip() for c in master.cells for what in ("SOLUTION", "HIDDEN TESTS") for part in course.regions(c.source, what)
             for line in part.splitlines())
    return {line for line in lines if len(line) >= 12 and line not in COMMON}


def leaks(files: dict[str, str], hidden: set[str]) -> list[tuple[str, str]]:
    """(file, line) of every secret line in a student's file."""
    return [(name, line) for name, text in files.items() for line in sorted(hidden) if line in text]


def texts(folder: Path) -> dict[str, str]:
    """Every string of every notebook under a folder: sources, metadata, outputs."""
    def strings(value) -> list[str]:
        if isinstance(value, dict):
            return [s for k, v in value.items() for s in (k, *strings(v))]
        return [s for v in value for s in strings(v)] if isinstance(value, list) else [str(value)]
    return {p.name: "\n".join(strings(nbformat.read(p, 4))) for p in sorted(folder.rglob("*.ipynb"))}


def test_nothing_of_solutions_is_in_what_students_get(tmp_path):
    course.write([], tmp_path)
    released = texts(tmp_path / "release")
    assert sorted(released) == [f"{name}.ipynb" for name in NAMES]
    hidden = set().union(*(secrets(course.read(name)) for name in NAMES))
    assert len(hidden) > 300
    assert leaks(released, hidden) == []
    assert not any(re.search("BEGIN|END (SOLUTION|HIDDEN)|[Mm]odel answer|points \\|", text) for text in released.values())
    assert {p.suffix for p in (tmp_path / "release").rglob("*") if p.is_file()} == {".ipynb"}


def test_the_search_for_leaks_finds_one():
    master = tiny()
    text = "\n".join(c.source for c in course.student(master).cells)
    assert leaks({"a": text}, secrets(master)) == []
    assert leaks({"a": text + "\n# return math.prod((2, x))"}, secrets(master)) == [("a", "return math.prod((2, x))")]
    assert leaks({"a": text + "assert double(-5) == -10, 'negative'"}, secrets(master))


def test_versions(folder, tmp_path):
    out = tmp_path / "out"
    files = course.write([], out, folder)
    assert {p.relative_to(out).as_posix() for p in files} == {
        "nbgrader_config.py", "solution/1_double/rubric.md", *(f"{v}/1_double/1_double.ipynb" for v in ("source", "release", "solution", "autograder"))}
    read = {v: nbformat.read(out / v / "1_double" / "1_double.ipynb", 4) for v in ("source", "release", "solution", "autograder")}
    assert read["source"] == nbformat.read(folder / "1_double.ipynb", 4)
    answer, test, why = ([c.source for c in nb.cells][i] for nb in (read["release"],) for i in (2, 3, 5))
    assert answer == "def double(x: int) -> int:\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    assert test == "assert double(2) == 4, 'twice two'" and why == "YOUR ANSWER HERE"
    assert "math.prod" in read["solution"].cells[2].source and "BEGIN" not in read["solution"].cells[3].source
    assert read["autograder"].cells[3].source == read["solution"].cells[3].source and "NotImplemented" in read["autograder"].cells[2].source
    assert read["release"].cells[3].metadata.editable is False and "editable" not in read["release"].cells[2].metadata
    assert (out / "solution" / "1_double" / "rubric.md").read_text() == "# Rubric: 1 Doubling\n\nWhy?\n\n*1 points*\n\nBecause of the factor.\n"


BROKEN = {
    "no end": (lambda nb: nb.cells[2].update(source=nb.cells[2].source.replace("### END SOLUTION", "")),
               "cell 3 (double): `### BEGIN SOLUTION` has no `### END SOLUTION` after it"),
    "no begin": (lambda nb: nb.cells[3].update(source=nb.cells[3].source.replace("### BEGIN HIDDEN TESTS\n", "")),
                 "cell 4 (double-test): `### END HIDDEN TESTS` has no `### BEGIN HIDDEN TESTS` before it"),
    "no solution": (lambda nb: nb.cells[2].update(source="pass"), "cell 3 (double): it is marked as an answer and has no `### BEGIN SOLUTION`"),
    "solution unmarked": (lambda nb: nb.cells[2].metadata.pop("nbgrader"), "cell 3: it has a solution but is not marked solution=true"),
    "hidden unmarked": (lambda nb: nb.cells[3].metadata.nbgrader.update(grade=False), "cell 4 (double-test): it has hidden tests but"),
    "test open": (lambda nb: nb.cells[3].metadata.nbgrader.update(locked=False), "cell 4 (double-test): it is a test that students could change"),
    "no points": (lambda nb: nb.cells[3].metadata.nbgrader.pop("points"), "cell 4 (double-test): its points are None"),
    "a key missing": (lambda nb: nb.cells[1].metadata.nbgrader.pop("task"), "cell 2 (setup): its nbgrader metadata lack 'task'"),
    "old schema": (lambda nb: nb.cells[1].metadata.nbgrader.update(schema_version=1), "cell 2 (setup): its nbgrader schema_version is 1"),
    "same id": (lambda nb: nb.cells[3].metadata.nbgrader.update(grade_id="setup"), "cell 4 (setup): cell 2 has the same grade_id"),
    "odd id": (lambda nb: nb.cells[1].metadata.nbgrader.update(grade_id="set up"), "cell 2 (set up): its grade_id is 'set up'"),
    "outputs": (lambda nb: nb.cells[1].update(execution_count=3), "cell 2 (setup): it has outputs: run `make strip`"),
    "no time": (lambda nb: nb.cells[0].update(source=FIRST.replace("**Time.**", "Time:")), "cell 1: a line `**Time.** ...` is missing"),
    "no test": (lambda nb: nb.cells.pop(3), "has no test cell"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_malformed_master_is_refused_and_nothing_is_written(fault, folder, tmp_path):
    master = tiny()
    change, says = BROKEN[fault]
    change(master)
    nbformat.write(master, folder / "1_double.ipynb")
    with pytest.raises(AssignmentError) as error:
        course.write([], tmp_path / "out", folder)
    assert says in str(error.value) and "assignment 1_double" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_unknown_assignment_and_no_notebook(capsys, folder):
    assert main(["assignments", "write", "10_poems"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "unknown assignment '10_poems': choose one of 01_tubelets, 02_masking" in said
    (folder / "2_broken.ipynb").write_text("{}")
    with pytest.raises(AssignmentError, match="2_broken.ipynb cannot be read as a notebook"):
        course.read("2_broken", folder)


def test_masters_keep_the_conventions_and_the_guide_lists_them(capsys):
    assert len(NAMES) >= 8
    for name in NAMES:
        facts = course.facts_of(course.read(name), name)
        assert facts["tests"] >= 6 and facts["written"] >= 1
    guide = (course.FOLDER / "README.md").read_text("utf-8")
    assert main(["assignments", "list"]) == 0
    assert capsys.readouterr().out.strip() in guide, "the table of the guide differs from the masters: paste what `python -m s4d assignments list` says"
    masters = " ".join(re.sub(r'"\s*\\?\s*f?"', "", c.source) for name in NAMES for c in course.read(name).cells)
    quoted = re.findall(r"^\| `\w+` \|[^|]+\| “([^”]+)” \|$", guide, re.M)
    assert len(quoted) >= len(NAMES) and [q for q in quoted if q not in masters] == []


def test_answers_are_read_with_their_imports():
    for name in NAMES:
        assert sum(bool(a.says) for a in answers(name)) >= 3 and sum(not a.says for a in answers(name)) >= 1
    first = next(a for a in EVERY if a.label == "right_by_convolution")
    assert first.function == "embed" and "import torch" in first.source and "def embed(x" in first.source


def test_attempt_tells_right_from_wrong():
    solved = course.solution(tiny())
    tries = {"return 2 * x": None, "return 4": "negative", "return x": "twice two"}
    for body, says in tries.items():
        error = attempt(solved, Answer("1_double", "double", "x", "", f"def double(x):\n    {body}"))
        assert str(error) == says if says else error is None


# Grading ----------------------------------------------------------------------------------------------------------------

def submission(folder: Path, body: str, change=None) -> Path:
    """A student's file with this function body."""
    handed = course.student(course.read("1_double", folder))
    handed.cells[2].source = f"def double(x: int) -> int:\n    {body}"
    if change:
        change(handed)
    file = folder.parent / "anna" / "1_double.ipynb"
    file.parent.mkdir(exist_ok=True)
    nbformat.write(handed, file)
    return file


def test_grading_uses_our_tests_whatever_the_student_did_to_them(folder, tmp_path):
    def cheat(nb):
        nb.cells[3].source = "assert True"
        nb.cells[3].metadata.nbgrader.points = 100
        nb.cells.insert(2, new_code_cell("helper = 2"))
    rows = course.grade(submission(folder, "return helper * abs(x)", cheat), tmp_path / "graded", folder=folder).set_index("grade_id")
    assert rows.points["double-test"] == 0 and rows.of["double-test"] == 2 and rows.message["double-test"] == "AssertionError: negative"
    assert rows.points.isna()["why"] and rows.of["why"] == 1
    executed = nbformat.read(tmp_path / "graded" / "anna" / "1_double.ipynb", 4)
    assert "double(-5)" in executed.cells[4].source and executed.cells[4].outputs


def test_a_submission_without_a_cell_or_with_one_twice_is_refused(folder):
    def copied(nb):
        nb.cells.append(copy.deepcopy(nb.cells[3]))
        nb.cells[-1].id = "copy"

    for change, says in ((lambda nb: nb.cells.pop(3), "lacks the cell 'double-test'"), (lambda nb: nb.cells.pop(2), "lacks the cell 'double'"),
                         (copied, "has twice the cell 'double-test'")):
        with pytest.raises(AssignmentError, match=says):
            course.completed(course.load(submission(folder, "return 2 * x", change)), "1_double", folder)


def test_the_command_grades_a_solved_assignment(tmp_path, capsys):
    file = tmp_path / "teacher" / "03_attention.ipynb"
    file.parent.mkdir()
    nbformat.write(course.solution(course.read("03_attention")), file)
    assert main(["assignments", "grade", str(file), "--out", str(tmp_path / "out")]) == 0
    assert "10 of 10 points from tests, 2 to be given by hand" in capsys.readouterr().out


@pytest.mark.parametrize("ename, evalue, said", [("NotImplementedError", "", "not answered: its stub is still there"),
                                                 ("AssertionError", "centre both\nmatrices", "AssertionError: centre both matrices")])
def test_a_stub_that_was_left_is_called_so(ename, evalue, said):
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("error", ename=ename, evalue=evalue)], execution_count=1)
    assert course.failure(cell) == said
