"""What all tests share: one thread, no display, and notebooks made on the spot."""
from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")      # before torch is loaded
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'profile = "smoke"\nout = "figures"\ndata = "data"\nruns = "runs"'


@pytest.fixture
def write_notebook():
    """A function that writes a notebook: title, parameters cell, then the given code cells."""
    def write(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
        tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nb = new_notebook(cells=[new_markdown_cell(f"# {path.stem}"), tagged, *map(new_code_cell, cells)], metadata=kernel)
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, path)
        return path
    return write
