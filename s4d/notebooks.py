"""Notebooks: which there are, what parameters they take, and one run of one of them in a kernel of this interpreter."""
from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import re
import sys
from pathlib import Path

from .artifacts import ROOT
from .files import OutputError, write_text

NOTEBOOKS = ("01_faces", "02_pretraining", "03_finetuning", "04_experts", "05_correlation", "06_report")
# Papermill ends a kernel right after a last question, so that the interrupt with which Jupyter ends kernels may meet it answering.
# It then logs an error where nothing is wrong; all its other errors are shown.
KERNEL_CONFIG = '''import logging
logging.getLogger("IPKernelApp").addFilter(lambda record: not record.getMessage().startswith("KeyboardInterrupt caught in kernel"))
'''
GIVEN = ("profile", "out", "data", "runs")      # parameters that every notebook has and `reproduce` itself sets


class PipelineError(RuntimeError):
    """A request that cannot be carried out; the message says what is wrong and what is allowed."""


class NotebookError(PipelineError):
    """A notebook failed. `details` holds the traceback that it printed."""

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details


def parameters_of(notebook: Path) -> dict[str, dict]:
    """A notebook's parameters: name -> papermill's description (inferred_type_name, default, help).

    Raises:
        PipelineError: for a file that is not a notebook, or names no kernel.
    """
    from papermill import inspect_notebook
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        return inspect_notebook(notebook)
    except (ValueError, KeyError, AttributeError) as error:
        raise PipelineError(f"{notebook} cannot be read as a Python notebook ({error}): save it again from JupyterLab") from error


def cells_of(notebook: Path) -> list[tuple[str, str]]:
    """(type, source) of every cell: what a notebook says, without outputs and metadata."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return [(c["cell_type"], "".join(c["source"])) for c in cells]


def select(folder: Path, names: list[str] | tuple[str, ...] | None) -> list[str]:
    """The notebooks to run, in order.

    Raises:
        PipelineError: for a name that is not a notebook of the folder.
    """
    chosen = list(NOTEBOOKS) if names is None else [Path(n).stem for n in names]
    for name in chosen:
        if not (folder / f"{name}.ipynb").is_file():
            known = sorted(p.stem for p in folder.glob("*.ipynb"))
            raise PipelineError(f"no notebook {name!r} in {folder}: there are {', '.join(known) or 'none'}")
    order = {name: i for i, name in enumerate(NOTEBOOKS)}
    return sorted(dict.fromkeys(chosen), key=lambda n: (order.get(n, len(order)), n))


def check_parameters(folder: Path, names: list[str], given: dict) -> dict[str, dict]:
    """The parameters that each notebook gets beside `profile`, `out`, `data` and `runs`.

    Raises:
        PipelineError: for a parameter that no selected notebook has or that has the wrong type, and for a notebook that
            lacks one of the four. Papermill alone would only warn.
    """
    known = {name: parameters_of(folder / f"{name}.ipynb") for name in names}
    for name, has in known.items():
        for parameter in GIVEN:
            if parameter not in has:
                raise PipelineError(f"notebook {name} has no parameter {parameter!r}: its cell tagged `parameters` must set "
                                    f"{', '.join(GIVEN)}; it sets {', '.join(has) or 'none'}")
    for parameter, value in given.items():
        if parameter in GIVEN:
            raise PipelineError(f"parameter {parameter!r} is set by --{parameter}, not through the notebooks' parameters")
        if not any(parameter in has for has in known.values()):
            lists = "; ".join(f"{name} knows {', '.join(has)}" for name, has in known.items())
            raise PipelineError(f"unknown notebook parameter {parameter!r}: {lists}")
        for name, has in known.items():
            if parameter in has:
                _check_type(name, parameter, value, has[parameter]["default"])
    return {name: {k: v for k, v in given.items() if k in has} for name, has in known.items()}


def _check_type(notebook: str, parameter: str, value, default: str) -> None:
    try:
        expected = type(ast.literal_eval(default))
    except (ValueError, SyntaxError):
        return
    fits = isinstance(value, expected) and not (expected is int and isinstance(value, bool))
    if not (fits or expected is type(None) or (expected is float and type(value) is int)):
        raise PipelineError(f"parameter {parameter} of notebook {notebook} is {value!r}: expected {expected.__name__}, as in {default}")


@contextlib.contextmanager
def kernel(folder: Path):
    """Makes Jupyter know one kernel, this interpreter, through a folder of its own: nothing global is read or installed.

    Args:
        folder: where the kernel's description is written.
    Yields:
        the kernel's name.
    """
    jupyter = folder.resolve()
    spec = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--HistoryManager.enabled=False",
                     "--log-level=ERROR"],
            "display_name": "S4D", "language": "python",
            "env": {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0", "IPYTHONDIR": str(jupyter / "ipython"),
                    "PYDEVD_DISABLE_FILE_VALIDATION": "1",      # or the debugger warns in every kernel's log
                    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}}
    write_text(jupyter / "kernels" / "s4d" / "kernel.json", json.dumps(spec, indent=1))
    write_text(jupyter / "ipython" / "profile_default" / "ipython_kernel_config.py", KERNEL_CONFIG)
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(jupyter), before]))
    try:
        yield "s4d"
    finally:
        if before is None:
            del os.environ["JUPYTER_PATH"]
        else:
            os.environ["JUPYTER_PATH"] = before


def execute(notebook: Path, build: Path, parameters: dict) -> None:
    """Runs one notebook in a fresh kernel.

    Args:
        notebook: the source; its folder is the kernel's working directory.
        build: folder of the executed copy, which is there after a failure too.
        parameters: values of the cell tagged `parameters`.
    Raises:
        NotebookError: naming the notebook, the cell and its first line, with the error.
        OutputError: when the executed copy cannot be written.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook
    copy, name = build / notebook.name, notebook.stem
    try:
        with kernel(build / "jupyter") as kernel_name:
            execute_notebook(notebook, copy, parameters=parameters, kernel_name=kernel_name, language="python",
                             cwd=notebook.parent, progress_bar={"desc": name, "leave": False} if sys.stderr.isatty() else False)
    except PapermillExecutionError as error:
        raise _failure(notebook, copy, error) from error
    except DeadKernelError as error:
        raise NotebookError(f"the kernel of notebook {name} died, most often for want of memory: close other programs or choose a "
                            "smaller profile") from error
    except OSError as error:
        raise OutputError(f"cannot write {copy}: {(error.strerror or str(error)).lower()}; free space there, then call again") from error


def _failure(notebook: Path, copy: Path, error) -> NotebookError:
    """The sentence for a failing cell; cells are counted as in the notebook itself, without the one papermill adds."""
    sources = [source for _, source in cells_of(notebook)]
    number = sources.index(error.source) + 1 if error.source in sources else error.cell_index
    first = next((line.strip() for line in error.source.splitlines() if line.strip()), "")
    details = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    return NotebookError(f"notebook {notebook.stem} failed in cell {number} of {len(sources)} (`{first}`) with {error.ename}: "
                         f"{' '.join(error.evalue.split())}; the executed copy is {copy}, earlier artifacts are untouched", details)
