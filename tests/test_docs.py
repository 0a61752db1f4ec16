"""README, docs and book name what exists: files, links, targets, commands with flags, functions."""
import ast
import contextlib
import io
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from s4d.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md",
         *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "log.md")]
TEXT = {page: page.read_text("utf-8") for page in PAGES}
FOLDERS = "s4d|docs|tests|notebooks|figures|course|paper"


def found(pattern: str) -> set:
    """Every match in README and docs, placeholders such as <name> left out."""
    matches = {match for text in TEXT.values() for match in re.findall(pattern, text, re.M)}
    return {match for match in matches if not re.search("[<>*]", str(match))}


@cache
def help_of(command: str) -> str:
    """What `python -m s4d COMMAND --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        main([command, "--help"])
    return printed.getvalue()


def test_the_readme_is_at_most_12_kb():
    assert len((ROOT / "README.md").read_bytes()) <= 12_000


def test_links_lead_somewhere():
    for page, text in TEXT.items():
        for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
            file, _, heading = target.partition("#")
            there = page.parent / file if file else page
            assert there.exists(), f"{page.name} links to {target}"
            if heading:
                titles = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.M)
                anchors = [re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles]
                assert heading in anchors, f"{page.name} links to {target}"


def test_files_and_functions_exist():
    for file in found(rf"`((?:{FOLDERS})/[\w./-]+)`"):
        assert (ROOT / file).exists(), file
    for name in found(r"`(s4d\.[\w.]+)`"):
        assert pkgutil.resolve_name(name) is not None


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in found(r"(?:`|^)make ([a-z-]+)"):
        assert re.search(rf"^{target}:", makefile, re.M), f"make {target}"


def test_commands_and_their_flags_exist():
    for command, arguments in found(r"(?:python|torchrun [^`]*?|launch) -m s4d (\w+)([^`\n#]*)"):
        assert command in COMMANDS, f"python -m s4d {command}"
        for flag in re.findall(r"--[\w.-]+", arguments):
            assert flag in help_of(command), f"python -m s4d {command} {flag}"
    for flag in found(r"`(--[\w.-]+)"):
        assert any(flag in help_of(command) for command in COMMANDS), flag


def test_python_in_the_pages_can_be_read():
    for text in TEXT.values():
        for block in re.findall(r"```python\n(.*?)```", text, re.S):
            ast.parse(block)


# --- the book

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
