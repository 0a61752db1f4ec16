"""The executed notebooks as a small HTML book with a map and a glossary, by Sphinx and MyST-NB; nothing is executed again."""
from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path

from .artifacts import ROOT
from .files import write_text
from .notebooks import NOTEBOOKS

PAGES = ROOT / "docs"
NEEDED = ("sphinx", "myst_nb", "furo", "latex2mathml")


class BookError(RuntimeError):
    """The book cannot be made; the message says what is missing."""


def page(executed: Path) -> str:
    """An executed notebook as a page: without the cell of parameters that the run put in, which names folders of this machine.

    Raises:
        BookError: when the notebook is not there, was not executed, or failed.
    """
    remedy = "`make reproduce` executes all notebooks"
    if not executed.is_file():
        raise BookError(f"{executed} is missing: {remedy}")
    content = json.loads(executed.read_text("utf-8"))
    content["cells"] = [c for c in content["cells"] if "injected-parameters" not in c["metadata"].get("tags", [])]
    code = [c for c in content["cells"] if c["cell_type"] == "code"]
    failed = any(o["output_type"] == "error" for c in code for o in c["outputs"])
    if failed or not any(c["outputs"] for c in code):
        raise BookError(f"{executed} {'ended in an error' if failed else 'was not executed'}: {remedy}")
    return json.dumps(content)


def build(executed: Path, out: Path, strict: bool = False) -> Path:
    """Makes the book. What Sphinx warns of, such as a link that leads nowhere, is printed.

    Args:
        executed: folder of the executed notebooks, as `reproduce` leaves them in build/<profile>.
        out: folder of the book; its `html` is replaced.
        strict: a warning is an error.
    Returns:
        the first page.
    Raises:
        BookError: when a notebook or the tool is missing, or a page cannot be set.
    """
    pages = {name: page(executed / f"{name}.ipynb") for name in NOTEBOOKS}
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise BookError(f"the book needs {', '.join(missing)}, which is not part of the default environment: "
                        "`.venv/bin/python -m pip install -r requirements-book.txt` adds it and changes nothing else")
    source, html = out / "source", out / "html"
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PAGES, source, ignore=shutil.ignore_patterns("__pycache__"))
    for name, content in pages.items():
        write_text(source / "notebooks" / f"{name}.ipynb", content)
    from sphinx.cmd.build import main
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main([*["-W", "--keep-going"] * strict, "-q", "-d", str(out / "doctrees"), str(source), str(html)])
    if status:
        raise BookError(f"Sphinx reports: {' '.join(said.getvalue().split())}")
    print(said.getvalue(), end="", file=sys.stderr)
    return html / "index.html"
