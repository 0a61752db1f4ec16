"""Sphinx settings of the book: executed notebooks as they are, formulas as MathML.

The source folder is a copy of docs/ with the executed notebooks in notebooks/ (see `make book`).
"""
import json
import re
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.errors import ConfigError

project = html_title = "Static for Dynamic"
author = "the S4D companion"
extensions = ["myst_nb"]
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_sphinx = html_copy_source = html_show_sourcelink = False
suppress_warnings = ["mystnb.unknown_mime_type"]


def inline(self, node):
    self.body.append(convert(node.astext()))
    raise SkipNode      # the node is written: Sphinx leaves its children out


def display(self, node):
    formula = convert(node.astext(), display="block")
    self.body.append(f'<div class="math">{formula}</div>')
    raise SkipNode


def check_notebooks(app):
    """Stop when a notebook is missing, was not executed or failed."""
    for page in re.findall(r"^notebooks/\w+$", Path(app.srcdir, "index.md").read_text(), re.M):
        file = Path(app.srcdir, f"{page}.ipynb")
        remedy = "`make reproduce` executes all notebooks"
        if not file.is_file():
            raise ConfigError(f"{page}.ipynb is missing: {remedy}")
        cells = json.loads(file.read_text("utf-8"))["cells"]
        outputs = [o for cell in cells for o in cell.get("outputs", [])]
        if not outputs:
            raise ConfigError(f"{page}.ipynb was not executed: {remedy}")
        if any(o["output_type"] == "error" for o in outputs):
            raise ConfigError(f"{page}.ipynb ended in an error: {remedy}")


def adapt(app, docname, source):
    """Drop a run's machine paths, and links to files that are not in the book."""
    if docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        notebook["cells"] = [cell for cell in notebook["cells"]
                             if "injected-parameters" not in cell["metadata"].get("tags", [])]
        source[0] = json.dumps(notebook)
    else:
        text = source[0].replace("](../notebooks/", "](notebooks/")
        source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", text)


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    app.connect("builder-inited", check_notebooks)
    app.connect("source-read", adapt)
