"""The book: its map names what exists, its words are in order."""
from __future__ import annotations

import importlib.util
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
PYTHON = {"name": "python", "pygments_lexer": "ipython3"}
TOOLS = ("sphinx", "myst_nb", "furo", "latex2mathml")
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


def test_the_glossary_is_in_order_and_explains_each_word():
    body = (DOCS / "glossary.md").read_text().split("```{glossary}\n")[1].split("```")[0]
    entries = dict(entry.split("\n  ") for entry in body.strip().split("\n\n"))
    assert list(entries) == sorted(entries, key=str.lower)
    assert all(len(meaning) > 20 and meaning.endswith(".") for meaning in entries.values())


def test_the_contents_list_every_notebook_and_page():
    listed = re.findall(r"^([\w/]+)$", (DOCS / "index.md").read_text(), re.M)
    assert [name for name in listed if "/" in name] == [f"notebooks/{n}" for n in NOTEBOOKS]
    assert {*listed, "index"} >= {page.stem for page in DOCS.glob("*.md")}


def set_book(tmp_path, **notebooks) -> subprocess.CompletedProcess:
    source = tmp_path / "source"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "notebooks").mkdir()
    for name in NOTEBOOKS:
        outputs = notebooks.get(name, [new_output("stream", text="as printed\n")])
        given = new_code_cell('data = "/home/somebody"', metadata={"tags": ["injected-parameters"]})
        text = new_markdown_cell(f"# {name}\n\n$$\\frac{{a}}{{b}}$$")
        cells = [text, given, new_code_cell("print('as printed')", outputs=outputs)]
        notebook = new_notebook(cells=cells, metadata={"language_info": PYTHON})
        nbformat.write(notebook, source / "notebooks" / f"{name}.ipynb")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    return subprocess.run([*command, source, tmp_path / "html"], capture_output=True, text=True)


@pytest.mark.slow
def test_the_book_is_set(tmp_path):
    lacking = [name for name in TOOLS if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not installed: pip install -r requirements-book.txt")
    done = set_book(tmp_path / "whole")
    assert not done.returncode, done.stderr
    page = (tmp_path / "whole/html/notebooks/03_finetuning.html").read_text()
    assert "<mfrac>" in page and "as printed" in page and "/home/somebody" not in page
    error = new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])
    for outputs, problem in ([], "was not executed"), ([error], "ended in an error"):
        done = set_book(tmp_path / problem, **{NOTEBOOKS[-1]: outputs})
        assert done.returncode and f"{NOTEBOOKS[-1]}.ipynb {problem}" in done.stderr
