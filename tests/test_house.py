"""The house's rules: sizes, imports, an environment and pages that name what exists."""
import ast
import contextlib
import io
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as normal
from papermill import inspect_notebook

from s4d.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "s4d").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CORE = ("config", "emotions", "__init__", "__main__", "models", "data", "training")
LIMITS = {"package": 10_000, "core": 4_500, "tests": 6_500}    # lines
# Each room may import from rooms above it and from its own.
STOREYS = (("config", "emotions", "files"), ("models", "data", "faces"),
           ("training",), ("study",), ("panels", "bench", "notebooks", "verify"),
           ("reproduce",), ("commands",), ("__main__",))
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
           for p in PACKAGE}


def lines(paths) -> int:
    return sum(len(p.read_text("utf-8").splitlines()) for p in paths)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(module: str, path: Path) -> set[str]:
    """Modules of the package that a module imports, in functions too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "s4d"}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            if base.split(".")[0] == "s4d":
                named = {f"{base}.{a.name}" for a in node.names}
                found |= {name if name in MODULES else base for name in named}
    return found - {module}


GRAPH = {module: imports(module, path) for module, path in MODULES.items()}


def test_the_package_is_lean():
    core = [p for p in PACKAGE if p.relative_to(ROOT / "s4d").parts[0].removesuffix(".py") in CORE]
    sizes = {"package": lines(PACKAGE), "core": lines(core), "tests": lines(TESTS)}
    assert all(sizes[name] <= most for name, most in LIMITS.items()), sizes
    long = {p.name: lines([p]) for p in PACKAGE if lines([p]) > 350}
    assert not long, "no module has more than 350 lines"


def test_lines_fit_the_page():
    written = [line for p in PACKAGE + TESTS for line in p.read_text("utf-8").splitlines() if line]
    assert sum(len(line) > 100 for line in written) <= 0.01 * len(written)


def test_no_import_goes_in_a_circle():
    waiting = {m: {i for i in found if i in GRAPH} for m, found in GRAPH.items()}
    while waiting:
        free = {m for m, found in waiting.items() if not found & set(waiting)}
        assert free, f"a circle goes through {', '.join(sorted(waiting))}"
        waiting = {m: found for m, found in waiting.items() if m not in free}


def test_imports_go_one_way_through_the_rooms():
    level = {name: i for i, names in enumerate(STOREYS) for name in names}
    for module, found in GRAPH.items():
        for other in found:
            here, there = room(module), room(other)
            if here != there and "__init__" not in (here, there):
                assert level[there] < level[here], f"{module} imports {other}"


def test_every_room_has_its_place():
    assert {room(m) for m in MODULES} - {"__init__"} <= {n for names in STOREYS for n in names}


# --- the environment's files

NOTEBOOK_FILES = sorted(p for folder in ("notebooks", "course")
                        for p in (ROOT / folder).rglob("*.ipynb")
                        if ".ipynb_checkpoints" not in p.parts)
IMPORT_NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml",
                "websocket": "websocket-client"}
PINS = [line for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]


def test_conda_environment_holds_the_same_exact_pins():
    for line in PINS:
        specifiers = list(Requirement(line).specifier)
        assert [s.operator for s in specifiers] == ["=="] and "*" not in str(specifiers[0]), line
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert dependencies == ["python=3.11", "pip", {"pip": PINS}], "run `make pins`"


def test_pins_fulfil_the_ranges():
    read = map(Requirement, PINS)
    pinned = {normal(r.name): next(iter(r.specifier)).version for r in read}
    for line in PROJECT["dependencies"] + OPTIONAL["dev"]:
        wanted = Requirement(line)
        assert normal(wanted.name) in pinned, f"{wanted.name} has no pin"
        assert wanted.specifier.contains(pinned[normal(wanted.name)], prereleases=True), line


@pytest.mark.parametrize("folder", ["s4d", "tests"])
def test_every_import_is_declared(folder):
    lines = PROJECT["dependencies"] + OPTIONAL["book"]
    lines += OPTIONAL["dev"] if folder == "tests" else []
    declared = {normal(Requirement(line).name) for line in lines}
    ours = {"s4d", *(p.stem for p in (ROOT / "tests").glob("*.py"))}
    used = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module.split(".")[0])
    used -= sys.stdlib_module_names | ours
    assert {normal(IMPORT_NAMES.get(name, name)) for name in used} <= declared


@pytest.mark.parametrize("path", NOTEBOOK_FILES, ids=lambda p: p.stem)
def test_notebook_is_stripped_and_parametrised(path):
    cells = json.loads(path.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in code), "run `make strip`"
    if path.parent.name == "notebooks":
        assert sum("parameters" in c["metadata"].get("tags", []) for c in cells) == 1
        assert {"profile", "out", "data", "runs"} <= set(inspect_notebook(path))


def test_an_old_python_is_refused_in_one_sentence(tmp_path):
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "test", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert run.returncode and "older than Python 3.11" in run.stderr
    assert not (tmp_path / "venv").exists()


# --- README, docs and book: files, links, make targets, commands with flags, functions

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
ARTIFACTS = {name for folder in ("figures", "figures/night")
             for name in json.loads((ROOT / folder / "manifest.json").read_text())["artifacts"]}
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
