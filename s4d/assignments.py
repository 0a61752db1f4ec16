"""Assignments: one master notebook each, in nbgrader's conventions, from which every other version is made.

A master holds the task, the solution, the visible and the hidden tests and the rubric. Marked regions say what is whose: lines between
`### BEGIN SOLUTION` and `### END SOLUTION` are left out of what students get, and so are those between `### BEGIN HIDDEN TESTS` and
`### END HIDDEN TESTS`. nbgrader reads masters as they are; nothing here needs it.
"""
from __future__ import annotations

import copy
import re
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode

from .artifacts import ROOT
from .files import write_all, write_text

FOLDER = ROOT / "notebooks" / "exercises"
KEYS = ("schema_version", "grade", "solution", "locked", "task", "grade_id")     # of a cell's nbgrader metadata
STUBS = {"code": "# YOUR CODE HERE\nraise NotImplementedError()", "markdown": "YOUR ANSWER HERE"}     # nbgrader's own
FACTS = ("Goals", "Time", "Prerequisites")      # what the first cell tells, each as a paragraph "**Goals.** ..."
CONFIG = """c = get_config()
c.CourseDirectory.course_id = "s4d"
c.ExecutePreprocessor.timeout = 900      # seconds a cell; the projects train small models
"""


class AssignmentError(ValueError):
    """An assignment that does not exist, cannot be read or breaks the conventions; the message says which cell and what is missing."""


def names(folder: Path = FOLDER) -> list[str]:
    """The assignments that there are, in order."""
    return sorted(p.stem for p in folder.glob("[0-9]*.ipynb"))


def read(name: str, folder: Path = FOLDER) -> NotebookNode:
    """The master of an assignment, checked.

    Raises:
        AssignmentError: for an unknown name, a file that is no notebook, or one that `check` refuses.
    """
    if name not in names(folder):
        raise AssignmentError(f"unknown assignment {name!r}: choose one of {', '.join(names(folder)) or f'none, {folder} is empty'}")
    master = load(folder / f"{name}.ipynb")
    check(master, name)
    return master


def load(path: Path) -> NotebookNode:
    """A notebook file.

    Raises:
        AssignmentError: when it cannot be read as a notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        cause = " ".join(str(error).split())[:120] or type(error).__name__
        raise AssignmentError(f"{path} cannot be read as a notebook ({cause}): save it again from JupyterLab") from error


def mark(cell: NotebookNode) -> dict:
    """A cell's nbgrader metadata; empty for an ordinary cell."""
    return cell.metadata.get("nbgrader", {})


def kind(cell: NotebookNode) -> str:
    """What a cell is: "answer" (code that students write), "test", "written" (text graded by hand), "locked" or "" (ordinary)."""
    about = mark(cell)
    if about.get("solution"):
        return "written" if about.get("grade") else "answer"
    return "test" if about.get("grade") else "locked" if about.get("locked") else ""


def regions(source: str, what: str) -> list[str]:
    """Texts between the markers `### BEGIN what` and `### END what`.

    Raises:
        AssignmentError: for a marker without its partner.
    """
    found, inside = [], None
    for line in source.splitlines():
        if f"### BEGIN {what}" in line:
            if inside is not None:
                raise AssignmentError(f"`### BEGIN {what}` stands twice without `### END {what}` between: add that line")
            inside = []
        elif f"### END {what}" in line:
            if inside is None:
                raise AssignmentError(f"`### END {what}` has no `### BEGIN {what}` before it: add that line")
            found.append("\n".join(inside))
            inside = None
        elif inside is not None:
            inside.append(line)
    if inside is not None:
        raise AssignmentError(f"`### BEGIN {what}` has no `### END {what}` after it: add that line")
    return found


def without(source: str, what: str, instead: str | None = "") -> str:
    """A cell's source without its regions.

    Args:
        what: SOLUTION or HIDDEN TESTS.
        instead: stands in their place, indented like the first marker; None keeps their content and drops the markers alone.
    """
    out, inside = [], False
    for line in source.splitlines():
        if f"### BEGIN {what}" in line:
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            out += [indent + s for s in (instead or "").splitlines()]
        elif f"### END {what}" in line:
            inside = False
        elif not inside or instead is None:
            out.append(line)
    return "\n".join(out).rstrip("\n")


def check(master: NotebookNode, name: str) -> None:
    """Refuses a master that nbgrader, or a student, could not use.

    Raises:
        AssignmentError: naming the cell, by number and grade_id, and what is missing.
    """
    facts_of(master, name)
    seen = {}
    for number, cell in enumerate(master.cells, 1):
        where = f"assignment {name}, cell {number}" + (f" ({mark(cell)['grade_id']})" if mark(cell).get("grade_id") else "")
        try:
            _check_cell(cell)
        except AssignmentError as error:
            raise AssignmentError(f"{where}: {error}") from None
        grade_id = mark(cell).get("grade_id")
        if grade_id and seen.setdefault(grade_id, number) != number:
            raise AssignmentError(f"{where}: cell {seen[grade_id]} has the same grade_id: give it another")
    kinds = [kind(c) for c in master.cells]
    if "answer" not in kinds or "test" not in kinds:
        raise AssignmentError(f"assignment {name} has no {'answer' if 'answer' not in kinds else 'test'} cell: mark one in its nbgrader metadata")


def _check_cell(cell: NotebookNode) -> None:
    about, what = mark(cell), kind(cell)
    inside = {w: regions(cell.source, w) for w in ("SOLUTION", "HIDDEN TESTS")}
    if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
        raise AssignmentError("it has outputs: run `make strip`")
    if about:
        missing = [k for k in KEYS if k not in about]
        if missing:
            raise AssignmentError(f"its nbgrader metadata lack {missing[0]!r}: they need {', '.join(KEYS)}")
        if about["schema_version"] != 3:
            raise AssignmentError(f"its nbgrader schema_version is {about['schema_version']!r}: expected 3")
        if not re.fullmatch(r"[\w-]+", str(about["grade_id"])):
            raise AssignmentError(f"its grade_id is {about['grade_id']!r}: use letters, digits, - and _")
        points = about.get("points")
        if about["grade"] and (not isinstance(points, (int, float)) or isinstance(points, bool) or points <= 0):
            raise AssignmentError(f"its points are {points!r}: a graded cell needs a number above 0")
    if inside["SOLUTION"] and what not in ("answer", "written"):
        raise AssignmentError("it has a solution but is not marked solution=true in its nbgrader metadata")
    if what in ("answer", "written") and not inside["SOLUTION"]:
        raise AssignmentError("it is marked as an answer and has no `### BEGIN SOLUTION`: put the solution between the markers")
    if inside["HIDDEN TESTS"] and what != "test":
        raise AssignmentError("it has hidden tests but is not marked grade=true, solution=false in its nbgrader metadata")
    if what == "test" and not about["locked"]:
        raise AssignmentError("it is a test that students could change: set locked=true in its nbgrader metadata")
    if (what == "answer" or what == "test") != (cell.cell_type == "code") and what in ("answer", "test", "written"):
        raise AssignmentError(f"it is a {cell.cell_type} cell: {'a text graded by hand is markdown' if what == 'written' else 'answers and tests are code'}")


def facts_of(master: NotebookNode, name: str) -> dict:
    """What the first cell and the points say: title, Goals, Time, Prerequisites (texts), tests and written (points).

    Raises:
        AssignmentError: when the first cell lacks one of them.
    """
    first = master.cells[0].source if master.cells else ""
    found = {"title": first.splitlines()[0].lstrip("# ")} if first.startswith("# ") else {}
    for fact in FACTS:
        told = re.search(rf"^\*\*{fact}\.\*\* (.+)$", first, re.M)
        if told:
            found[fact] = told[1]
    lacking = [f for f in ("title", *FACTS) if f not in found]
    if lacking:
        wanted = "`# title`" if lacking[0] == "title" else f"a line `**{lacking[0]}.** ...`"
        raise AssignmentError(f"assignment {name}, cell 1: {wanted} is missing")
    points = lambda what: sum(mark(c)["points"] for c in master.cells if kind(c) == what and "points" in mark(c))
    return {**found, "tests": points("test"), "written": points("written")}


# Versions ---------------------------------------------------------------------------------------------------------------

def student(master: NotebookNode) -> NotebookNode:
    """What is handed out: stubs instead of solutions, no hidden tests, tests locked."""
    return _version(master, stubs=True, hidden=False)


def solution(master: NotebookNode) -> NotebookNode:
    """The solved notebook with all tests, to read and to run; markers are gone."""
    return _version(master, stubs=False, hidden=True)


def autograder(master: NotebookNode) -> NotebookNode:
    """What submitted answers are put into: stubs, and all tests."""
    return _version(master, stubs=True, hidden=True)


def _version(master: NotebookNode, stubs: bool, hidden: bool) -> NotebookNode:
    out = copy.deepcopy(master)
    for cell in out.cells:
        cell.source = without(cell.source, "SOLUTION", STUBS.get(cell.cell_type, "") if stubs else None)
        cell.source = without(cell.source, "HIDDEN TESTS", None if hidden else "")
        if mark(cell).get("locked"):
            cell.metadata.update(editable=False, deletable=False)
    return out


def rubric(master: NotebookNode) -> str:
    """Model answers and rubrics of the written parts, as Markdown; the question of each is the text cell before it."""
    parts, question = [], ""
    for cell in master.cells:
        if kind(cell) == "written":
            parts.append(f"{question}\n\n*{mark(cell)['points']} points*\n\n" + "\n\n".join(regions(cell.source, "SOLUTION")))
        question = cell.source if cell.cell_type == "markdown" else question
    return "\n\n".join([f"# Rubric: {master.cells[0].source.splitlines()[0].lstrip('# ')}", *parts]) + "\n"


def write(chosen: list[str], out: Path, folder: Path = FOLDER) -> list[Path]:
    """Writes all versions of assignments, or none: source/, release/, solution/ and autograder/ with a folder each, as nbgrader wants it.

    Returns:
        the files.
    Raises:
        AssignmentError: for an unknown or malformed assignment, before anything is written.
    """
    savers = {out / "nbgrader_config.py": lambda p: p.write_text(CONFIG, "utf-8")}
    for name in chosen or names(folder):
        master = read(name, folder)
        versions = {"source": master, "release": student(master), "solution": solution(master), "autograder": autograder(master)}
        for version, notebook in versions.items():
            savers[out / version / name / f"{name}.ipynb"] = lambda p, notebook=notebook: nbformat.write(notebook, p)
        savers[out / "solution" / name / "rubric.md"] = lambda p, master=master: p.write_text(rubric(master), "utf-8")
    write_all(savers)
    return list(savers)


def table(folder: Path = FOLDER) -> str:
    """All assignments as a Markdown table: name, title, goals, time, prerequisites, points of tests and of written parts."""
    lines = ["| assignment | you will be able to | time | before | points: tests + written |", "|---|---|---|---|---|"]
    for name in names(folder):
        f = facts_of(read(name, folder), name)
        title = re.sub(r"^\d+\s*", "", f["title"])
        lines.append(f"| [{name}]({name}.ipynb): {title} | {f['Goals']} | {f['Time']} | {f['Prerequisites']} | {f['tests']} + {f['written']} |")
    return "\n".join(lines)


# Grading ----------------------------------------------------------------------------------------------------------------

def completed(submitted: NotebookNode, name: str, folder: Path = FOLDER) -> NotebookNode:
    """A submission ready to be graded: as handed in, with every locked and test cell replaced by the master's, hidden tests included.

    Raises:
        AssignmentError: when a cell of the assignment is missing or stands twice.
    """
    ours = {mark(c)["grade_id"]: c for c in autograder(read(name, folder)).cells if mark(c)}
    out, seen = copy.deepcopy(submitted), []
    for cell in out.cells:
        own = ours.get(mark(cell).get("grade_id"))
        if own is None or own.cell_type != cell.cell_type:
            cell.metadata.pop("nbgrader", None)
            continue
        seen.append(mark(own)["grade_id"])
        cell.metadata = own.metadata
        cell.source = own.source if kind(own) in ("test", "locked") else cell.source
    wrong = [(g, "lacks") for g in ours if g not in seen] + [(g, "has twice") for g in ours if seen.count(g) > 1]
    if wrong:
        raise AssignmentError(f"the submission of {name} {wrong[0][1]} the cell {wrong[0][0]!r}: copy the answers into a fresh release file")
    return out


def grade(file: Path, out: Path, timeout: int = 900, folder: Path = FOLDER) -> pd.DataFrame:
    """Runs one submitted notebook with all tests in a kernel of its own and counts points; its code is executed as it is.

    Args:
        file: a submission, named as its assignment.
        out: folder of the executed copy, `<parent folder of file>/<name>.ipynb`.
        timeout: seconds a cell.
        folder: of the masters.
    Returns:
        table: grade_id, points (missing for written parts), of, message (of the failing test, else empty).
    Raises:
        AssignmentError: for a file that belongs to no assignment or lacks cells of it.
    """
    name, file = file.stem, file.resolve()
    read(name, folder)                      # an unknown name is said before a missing file
    notebook = completed(load(file), name, folder)
    run(notebook, out / ".kernel", file.parent, timeout, through=True)
    copy_to = out / file.parent.name / f"{name}.ipynb"
    write_text(copy_to, nbformat.writes(notebook))
    rows = []
    for cell in notebook.cells:
        if kind(cell) in ("test", "written"):
            wrong = failure(cell) if kind(cell) == "test" else ""
            points = None if kind(cell) == "written" else 0 if wrong else mark(cell)["points"]
            rows.append((mark(cell)["grade_id"], points, mark(cell)["points"], wrong))
    return pd.DataFrame(rows, columns=["grade_id", "points", "of", "message"])


def run(notebook: NotebookNode, build: Path, cwd: Path, timeout: int = 900, through: bool = False) -> None:
    """Executes a notebook in place, in a fresh kernel of this interpreter.

    Args:
        build: folder for the kernel's description.
        cwd: folder in which the code runs.
        through: go on after a failing cell.
    """
    from nbclient import NotebookClient

    from .notebooks import kernel
    with kernel(build) as name:
        NotebookClient(notebook, kernel_name=name, timeout=timeout, interrupt_on_timeout=True, allow_errors=through,
                       resources={"metadata": {"path": str(cwd)}}).execute()


def failure(cell: NotebookNode) -> str:
    """The error that an executed cell ended with, as one line; empty when it passed."""
    for output in cell.get("outputs", ()):
        if output.output_type == "error":
            said = " ".join(output.evalue.split())
            return "not answered: its stub is still there" if output.ename == "NotImplementedError" and not said else f"{output.ename}: {said}"
    return "" if cell.get("execution_count") else "not run"
