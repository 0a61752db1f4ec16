"""README and docs name what exists: files, links, make targets, commands with flags, functions."""
from __future__ import annotations

import ast
import contextlib
import io
import pkgutil
import re
from functools import cache
from pathlib import Path

import pytest

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
