"""The book: its pages hold no folder of this machine, its map names what exists, its tool changes no pin of the environment."""
from __future__ import annotations

import importlib.util
import json
import pkgutil
import re
import shutil
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement

from s4d import book
from s4d.artifacts import ROOT
from s4d.notebooks import NOTEBOOKS

ROWS = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in (ROOT / "docs/map.md").read_text().splitlines() if line.startswith("| ")][1:]

PYTHON = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}


def executed(folder: Path, names=NOTEBOOKS, outputs: bool = True) -> Path:
    """Notebooks as a run leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        given = new_code_cell('data = "/home/somebody/data"', metadata={"tags": ["injected-parameters"]})
        said = [new_output("stream", text="as printed\n")] if outputs else []
        text = new_markdown_cell(f"# {name}\n\n## A part\n\n$$\\frac{{a}}{{b}} \\qquad \\text{{if }} c$$\n\nand $x_i$ in a line")
        cells = [text, given, new_code_cell("print('as printed')", outputs=said)]
        nbformat.write(new_notebook(cells=cells, metadata=PYTHON), folder / f"{name}.ipynb")
    return folder


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_map_names_what_exists(row):
    part, formula, functions, notebook, artifacts = row
    assert part and formula and re.fullmatch(r"\[(\d\d)\]\(notebooks/(\1_\w+)\.ipynb\)", notebook)[2] in NOTEBOOKS
    for name in re.findall(r"`([^`]+)`", functions):
        assert pkgutil.resolve_name(name) is not None
    known = json.loads((ROOT / "figures/manifest.json").read_text())["artifacts"]
    assert set(artifacts.split(", ")) <= {*known, "-"}


def test_every_figure_and_table_is_on_the_map():
    known = json.loads((ROOT / "figures/manifest.json").read_text())["artifacts"]
    lost = set(known) - {name for row in ROWS for name in row[4].split(", ")}
    assert not lost, f"add a row to docs/map.md for {', '.join(sorted(lost))}"


def test_the_glossary_is_in_order_and_says_something_of_each_word():
    body = (ROOT / "docs/glossary.md").read_text().split("```{glossary}\n")[1].split("```")[0]
    terms, meanings = zip(*(entry.split("\n  ") for entry in body.strip().split("\n\n")))
    assert list(terms) == sorted(set(terms), key=str.lower) and all(len(m) > 20 and m.endswith(".") for m in meanings)


def test_the_contents_list_every_notebook():
    assert re.findall(r"^notebooks/(.+)$", (ROOT / "docs/index.md").read_text(), re.M) == list(NOTEBOOKS)


def test_a_page_names_no_folder_of_this_machine(tmp_path):
    text = book.page(executed(tmp_path) / "01_faces.ipynb")
    assert "/home/somebody" not in text and "as printed" in text


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    executed(tmp_path, NOTEBOOKS[:-1])
    with pytest.raises(book.BookError, match="06_report.ipynb is missing: `make reproduce` executes all notebooks"):
        book.build(tmp_path, tmp_path / "book")
    executed(tmp_path, NOTEBOOKS[-1:], outputs=False)
    with pytest.raises(book.BookError, match="06_report.ipynb was not executed"):
        book.build(tmp_path, tmp_path / "book")
    broken = new_code_cell("1 / 0", outputs=[new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])])
    nbformat.write(new_notebook(cells=[broken]), tmp_path / "06_report.ipynb")
    with pytest.raises(book.BookError, match="06_report.ipynb ended in an error"):
        book.build(tmp_path, tmp_path / "book")
    executed(tmp_path)
    monkeypatch.setattr(book, "NEEDED", ("json", "no_such_tool"))
    with pytest.raises(book.BookError, match="the book needs no_such_tool, .*requirements-book.txt` adds it and changes nothing else"):
        book.build(tmp_path, tmp_path / "book")
    assert not (tmp_path / "book").exists()


def test_the_tools_pins_leave_those_of_the_environment_alone():
    pins = {file: {re.sub(r"[-_.]+", "-", Requirement(line).name).lower(): Requirement(line) for line in (ROOT / file).read_text().splitlines()
                   if line and not line.startswith("#")} for file in ("requirements.txt", "requirements-book.txt")}
    assert not set(pins["requirements.txt"]) & set(pins["requirements-book.txt"])
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["book"]
    for wanted in map(Requirement, extra):
        pin = str(next(iter(pins["requirements-book.txt"][wanted.name].specifier)).version)
        assert wanted.specifier.contains(pin), wanted
    assert {w.name.replace("-", "_") for w in map(Requirement, extra)} == set(book.NEEDED)


@pytest.mark.slow
def test_the_book_is_set(tmp_path, monkeypatch, capsys):
    lacking = [name for name in book.NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not installed: pip install -r requirements-book.txt")
    first = book.build(executed(tmp_path / "build"), tmp_path / "book", strict=True)
    contents, page = first.read_text(), (first.parent / "notebooks/03_finetuning.html").read_text()
    assert all(f"notebooks/{name}.html" in contents for name in NOTEBOOKS) and "glossary.html" in contents
    assert "<mfrac>" in page and "as printed" in page and "/home/somebody" not in page
    shutil.copytree(book.PAGES, tmp_path / "docs")
    with open(tmp_path / "docs/map.md", "a") as page:
        page.write("\n[lost](no_such_page.md)\n")
    monkeypatch.setattr(book, "PAGES", tmp_path / "docs")
    with pytest.raises(book.BookError, match="Sphinx reports: .*no_such_page"):
        book.build(tmp_path / "build", tmp_path / "book", strict=True)
    assert book.build(tmp_path / "build", tmp_path / "book").is_file() and "no_such_page" in capsys.readouterr().err
