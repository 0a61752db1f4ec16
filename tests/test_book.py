"""The book: its map names what exists, its words are in order."""
from __future__ import annotations

import json
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("0*.ipynb"))
ARTIFACTS = set(json.loads((ROOT / "figures/manifest.json").read_text())["artifacts"])
ROWS = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in (DOCS / "map.md").read_text().splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_map_names_what_exists(row):
    part, formula, functions, notebook, artifacts, drawn_by = row
    assert part and formula and (DOCS / re.search(r"\((.+)\)", notebook)[1]).is_file()
    for name in re.findall(r"`([^`]+)`", functions + drawn_by):
        assert pkgutil.resolve_name(name) is not None
    assert set(artifacts.split(", ")) <= ARTIFACTS | {"-"}


def test_every_figure_and_table_is_on_the_map():
    lost = ARTIFACTS - {name for row in ROWS for name in row[4].split(", ")}
    assert not lost, f"add a row to docs/map.md for {', '.join(sorted(lost))}"


def test_the_glossary_is_in_order():
    words = re.findall(r"^(\S.*)\n  \S", (DOCS / "glossary.md").read_text(), re.M)
    assert len(words) > 20 and words == sorted(words, key=str.lower)


def test_the_contents_list_every_notebook_and_page():
    listed = re.findall(r"^([\w/]+)$", (DOCS / "index.md").read_text(), re.M)
    assert [name for name in listed if "/" in name] == [f"notebooks/{n}" for n in NOTEBOOKS]
    assert {*listed, "index"} >= {page.stem for page in DOCS.glob("*.md")}


def set_book(folder: Path, last: list) -> subprocess.CompletedProcess:
    """Set the book of notebooks with one output each, the last one with those given."""
    source = folder / "source"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "notebooks").mkdir()
    for name in NOTEBOOKS:
        outputs = last if name == NOTEBOOKS[-1] else [new_output("stream", text="as printed\n")]
        given = new_code_cell('data = "/home/somebody"', metadata={"tags": ["injected-parameters"]})
        text = new_markdown_cell(f"# {name}\n\n$$\\frac{{a}}{{b}}$$")
        cells = [text, given, new_code_cell("print('as printed')", outputs=outputs)]
        metadata = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
        notebook = new_notebook(cells=cells, metadata=metadata)
        nbformat.write(notebook, source / "notebooks" / f"{name}.ipynb")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    return subprocess.run([*command, source, folder / "html"], capture_output=True, text=True)


@pytest.mark.slow
def test_the_book_is_set(tmp_path):
    for package in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(package, reason="pip install -r requirements-book.txt")
    done = set_book(tmp_path / "whole", [new_output("stream", text="as printed\n")])
    assert not done.returncode, done.stderr
    page = (tmp_path / "whole/html/notebooks/03_finetuning.html").read_text()
    assert "<mfrac>" in page and "as printed" in page and "/home/somebody" not in page
    error = new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])
    for outputs, problem in ([], "was not executed"), ([error], "ended in an error"):
        done = set_book(tmp_path / problem, outputs)
        assert done.returncode and f"{NOTEBOOKS[-1]}.ipynb {problem}" in done.stderr
