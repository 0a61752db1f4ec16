"""The course's files: no solution reaches students, masters keep nbgrader's conventions."""
import re

import nbformat
import pytest

from course import COURSE, EVERY, EXERCISES, NAMES, answers, check, kind, mark, master, student

STUBS = {"code": "# YOUR CODE HERE\nraise NotImplementedError()", "markdown": "YOUR ANSWER HERE"}
REGION = r"(?ms)^( *)### BEGIN {0}\n(.*?)\n *### END {0}$"


def without_solutions(cell: nbformat.NotebookNode) -> str:
    """What nbgrader must make of a master's cell."""
    def stub(match: re.Match) -> str:
        return "\n".join(match[1] + line for line in STUBS[cell.cell_type].splitlines())
    source = re.sub(REGION.format("SOLUTION"), stub, cell.source)
    return re.sub(REGION.format("HIDDEN TESTS"), "", source).rstrip("\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_student_version_is_the_master_without_solutions(name):
    for ours, theirs in zip(master(name).cells, student(name).cells, strict=True):
        assert theirs.source == without_solutions(ours), "run `make assignments`"
        assert theirs.id == ours.id and mark(ours).items() <= mark(theirs).items()
        assert theirs.metadata.get("editable", True) == (kind(ours) not in ("test", "locked"))


def test_nothing_of_solutions_is_in_what_students_get():
    assert {p.name for p in EXERCISES.iterdir()} - {".ipynb_checkpoints"} == {
        "README.md", *(f"{name}.ipynb" for name in NAMES)}
    for name in NAMES:
        text = " ".join(" ".join(cell.source for cell in student(name).cells).split())
        assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN)|[Mm]odel answer|points \|", text)


@pytest.mark.parametrize("name", NAMES)
def test_an_assignment_keeps_the_conventions(name):
    cells = master(name).cells
    for fact in ("# ", "**Goals.** ", "**Time.** ", "**Prerequisites.** "):
        assert f"\n{fact}" in f"\n{cells[0].source}"
    ids = [mark(cell)["grade_id"] for cell in cells if mark(cell)]
    assert len(set(ids)) == len(ids)
    for cell in cells:
        what, about = kind(cell), mark(cell)
        assert ("### BEGIN SOLUTION" in cell.source) == (what in ("answer", "written")), cell.id
        assert "### BEGIN HIDDEN TESTS" not in cell.source or what == "test", cell.id
        if what:
            assert cell.cell_type == ("markdown" if what == "written" else "code"), cell.id
        assert what != "test" or about["locked"], f"{cell.id}: students could change this test"
        assert what not in ("test", "written") or about["points"] > 0, cell.id
    wrong = [bool(a.says) for a in answers(name)]
    assert sum(wrong) >= 3 and not all(wrong)
    assert wrong == ["right" not in a.label for a in answers(name)]


def test_the_guide_lists_points():
    guide = (COURSE / "README.md").read_text("utf-8")
    for name in NAMES:
        cells = master(name).cells
        tests, written = (sum(mark(c)["points"] for c in cells if kind(c) == what)
                          for what in ("test", "written"))
        assert re.search(rf"^\| \[{name}\].*\| {tests:g} \+ {written:g} \|$", guide, re.M), name


def test_the_pins_of_the_course_fit_those_of_the_project():
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (COURSE.parent / name).read_text(), re.M))
    course, book = pins("requirements-course.txt"), pins("requirements-book.txt")
    assert course["nbgrader"] and not course.keys() & pins("requirements.txt").keys()
    assert all(book.get(name, version) == version for name, version in course.items())


FEW = [next(a for a in EVERY if a.assignment == name and bool(a.says) == wrong)
       for name in NAMES for wrong in (False, True)]


@pytest.mark.parametrize("answer", FEW, ids=lambda a: "-".join(a[:3]))
def test_wrong_answers_are_told_why_and_right_ones_pass(answer):
    check(answer)
