"""Notebooks: which there are, their parameters, and one run of one of them in a fresh kernel."""
from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import re
import sys
from pathlib import Path

from .files import ROOT, OutputError, write_text

NOTEBOOKS = (
    "01_faces", "02_pretraining", "03_finetuning", "04_experts", "05_correlation", "06_report",
)
GIVEN = ("profile", "out", "data", "runs")      # every notebook has these; `reproduce` sets them
# Papermill ends a kernel right after its last question, and the kernel may log that interrupt as
# an error. All other errors are shown.
KERNEL_CONFIG = '''import logging
c.HistoryManager.enabled = False
logging.getLogger("IPKernelApp").addFilter(
    lambda record: not record.getMessage().startswith("KeyboardInterrupt caught in kernel"))
'''


class ReproduceError(RuntimeError):
    """A request that cannot be carried out; the message says what is allowed."""


class NotebookError(ReproduceError):
    """A notebook failed; `details` holds its traceback."""

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details


def select(folder: Path, names: list[str] | tuple[str, ...] | None) -> list[str]:
    """Return the notebooks to run, in order; an unknown name is a ReproduceError."""
    chosen = list(NOTEBOOKS) if names is None else [Path(n).stem for n in names]
    for name in chosen:
        if not (folder / f"{name}.ipynb").is_file():
            known = ", ".join(sorted(p.stem for p in folder.glob("*.ipynb"))) or "none"
            raise ReproduceError(f"no notebook {name!r} in {folder}: there are {known}")
    return sorted(set(chosen))


def parameters_of(notebook: Path) -> dict[str, dict]:
    """Return papermill's description of a notebook's parameters, by name."""
    from papermill import inspect_notebook
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        return inspect_notebook(notebook)
    except (ValueError, KeyError, AttributeError) as error:
        raise ReproduceError(f"{notebook} cannot be read as a Python notebook ({error}): "
                             "save it again from JupyterLab") from error


def check_parameters(folder: Path, names: list[str], given: dict) -> dict[str, dict]:
    """Return the parameters of each notebook beside `GIVEN`. Papermill alone would only warn.

    Raises:
        ReproduceError: for a parameter that no selected notebook has or that has the wrong type,
            and for a notebook that lacks one of `GIVEN`.
    """
    known = {name: parameters_of(folder / f"{name}.ipynb") for name in names}
    for name, has in known.items():
        for parameter in GIVEN:
            if parameter not in has:
                raise ReproduceError(
                    f"notebook {name} has no parameter {parameter!r}: its cell tagged `parameters` "
                    f"must set {', '.join(GIVEN)}; it sets {', '.join(has) or 'none'}")
    for parameter, value in given.items():
        if parameter in GIVEN:
            raise ReproduceError(f"parameter {parameter!r} is set by --{parameter}, not through "
                                 "the notebooks' parameters")
        if not any(parameter in has for has in known.values()):
            lists = "; ".join(f"{name} knows {', '.join(has)}" for name, has in known.items())
            raise ReproduceError(f"unknown notebook parameter {parameter!r}: {lists}")
        for name, has in known.items():
            if parameter in has:
                _check_type(name, parameter, value, has[parameter]["default"])
    return {name: {k: v for k, v in given.items() if k in has} for name, has in known.items()}


def _check_type(notebook: str, parameter: str, value, default: str) -> None:
    try:
        expected = type(ast.literal_eval(default))
    except (ValueError, SyntaxError):
        return
    allowed = {float: (float, int), type(None): object}.get(expected, expected)
    if not isinstance(value, allowed) or (isinstance(value, bool) and expected in (int, float)):
        raise ReproduceError(f"parameter {parameter} of notebook {notebook} is {value!r}: "
                             f"expected {expected.__name__}, as in {default}")


@contextlib.contextmanager
def kernel(folder: Path):
    """Make Jupyter know one kernel, this interpreter; nothing global is read or installed."""
    folder = folder.resolve()
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0", "IPYTHONDIR": str(folder / "ipython"),
           "PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONPATH": paths}
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
            "--log-level=ERROR"]
    spec = {"argv": argv, "display_name": "S4D", "language": "python", "env": env}
    write_text(folder / "kernels/s4d/kernel.json", json.dumps(spec, indent=1))
    write_text(folder / "ipython/profile_default/ipython_kernel_config.py", KERNEL_CONFIG)
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    try:
        yield "s4d"
    finally:
        os.environ.pop("JUPYTER_PATH")
        if before is not None:
            os.environ["JUPYTER_PATH"] = before


def execute(notebook: Path, build: Path, parameters: dict) -> None:
    """Run one notebook in a fresh kernel; its executed copy lies in `build`, after a failure too.

    Raises:
        NotebookError: naming the notebook, the cell and its first line, with the error.
        OutputError: when the executed copy cannot be written.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook
    copy, name = build / notebook.name, notebook.stem
    bar = {"desc": name, "leave": False} if sys.stderr.isatty() else False
    try:
        with kernel(build / "jupyter") as kernel_name:
            execute_notebook(notebook, copy, parameters=parameters, kernel_name=kernel_name,
                             language="python", cwd=notebook.parent, progress_bar=bar)
    except PapermillExecutionError as error:
        raise _failure(notebook, copy, error) from error
    except DeadKernelError as error:
        raise NotebookError(f"the kernel of notebook {name} died, most often for lack of memory: "
                            "close other programs or choose a smaller profile") from error
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot write {copy}: {cause}; free space there, then call again"
                          ) from error


def cells_of(notebook: Path) -> list[str]:
    """Return the source of every cell."""
    return ["".join(c["source"]) for c in json.loads(notebook.read_text("utf-8"))["cells"]]


def _failure(notebook: Path, copy: Path, error) -> NotebookError:
    """Cells are counted as in the notebook itself, without the one that papermill adds."""
    sources = cells_of(notebook)
    number = error.cell_index
    if error.source in sources:
        number = sources.index(error.source) + 1
    first = next((line.strip() for line in error.source.splitlines() if line.strip()), "")
    details = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    return NotebookError(
        f"notebook {notebook.stem} failed in cell {number} of {len(sources)} (`{first}`) with "
        f"{error.ename}: {' '.join(error.evalue.split())}; the executed copy is {copy}, earlier "
        "artifacts are untouched", details)
