"""What a notebook leaves behind: figures, tables, the numbers behind them, and a manifest that says where each came from."""
from __future__ import annotations

import contextlib
import json
import platform
import re
import subprocess
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

from .files import ROOT, OutputError, code_version, sha256, write_all, write_text

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "seaborn", "av")
PDF_METADATA = {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None}
LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "–": "--", "—": "---",
         "≤": r"$\le$", "≥": r"$\ge$", "<": "$<$", ">": "$>$", "→": r"$\to$", "Δ": r"$\Delta$", "α": r"$\alpha$", "κ": r"$\kappa$",
         "ρ": r"$\rho$", "τ": r"$\tau$"}


def default_out(profile: str) -> str:
    """Folder of a profile's results: `figures` for the default profile, a folder in it for each other, so that they are kept apart."""
    return "figures" if profile == "sandbox" else f"figures/{profile}"


def _text(text: str) -> Callable[[Path], object]:
    return lambda p: p.write_text(text, encoding="utf-8", newline="\n")


@lru_cache
def commit() -> str | None:
    """The git commit, with `+changes` where sources differ from it; None outside a repository."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "s4d", "notebooks") else "")
    except (OSError, subprocess.SubprocessError):
        return None


@lru_cache
def packages() -> dict[str, str]:
    """Versions of what computes the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a meaningful index as columns, and one level of column names."""
    if not isinstance(table.index, pd.RangeIndex):       # row numbers left over from a selection have no name and say nothing
        table = table.reset_index(drop=table.index.names == [None])
    if isinstance(table.columns, pd.MultiIndex):
        table = table.set_axis(["_".join(str(part) for part in name if part != "") for name in table.columns], axis=1)
    return table


def number(value) -> object:
    """A float as text with six significant digits, so that equal runs give equal files; anything else as it is."""
    if not isinstance(value, (float, np.floating)):
        return value
    return "" if np.isnan(value) else f"{value + 0.0:.6g}"      # + 0.0 turns -0 into 0


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV: no index, floats with six significant digits, missing values empty."""
    table = flat(table)
    columns = {i: table.iloc[:, i].astype(object).map(number, na_action=None) for i in range(table.shape[1])}
    return pd.DataFrame(columns).set_axis(table.columns, axis=1).to_csv(index=False, lineterminator="\n")


def decimals_of(values) -> int:
    """Decimals with which a column of numbers is read: so many that its largest value has four significant digits, fewer where all
    values end earlier, none at least.

    Args:
        values: floats; those that are not finite have no say.
    """
    finite = np.array([v for v in values if np.isfinite(v)], dtype=float)
    largest = np.abs(finite).max(initial=0.0)
    most = max(0, 3 - int(np.floor(np.log10(largest)))) if largest else 0
    return next(d for d in range(most + 1) if d == most or np.allclose(finite.round(d), finite.round(most), rtol=0, atol=0.1 * 10.0 ** -most))


def latex_text(table: pd.DataFrame, caption: str = "", escape: bool = True, decimals: dict[str, int] | None = None) -> str:
    """The table as a booktabs `tabular`: numbers to the right, text to the left, the floats of a column with equally many decimals; the
    caption as a comment on top.

    Args:
        decimals: column -> number of decimals of its floats, where `decimals_of` does not suit.
    Raises:
        OutputError: for decimals of a column that the table lacks.
    """
    table = flat(table)
    real = lambda value: isinstance(value, (float, np.floating))
    for name in decimals or {}:
        if name not in table.columns:
            raise OutputError(f"decimals are given for column {name!r}: the table has {', '.join(map(str, table.columns))}")
    places = [(decimals or {}).get(name, decimals_of([v for v in table.iloc[:, i] if real(v)])) for i, name in enumerate(table.columns)]

    def cell(value, places: int = 0) -> str:
        if value is None or value is pd.NA or (real(value) and np.isnan(value)):
            return "--"
        text = f"{round(float(value), places) + 0.0:.{places}f}" if real(value) else str(value)      # + 0.0 turns -0 into 0
        return "".join(LATEX.get(c, c) for c in text) if escape else text

    align = "".join("r" if pd.api.types.is_numeric_dtype(dtype) and dtype != bool else "l" for dtype in table.dtypes)
    lines = [f"% {line}" for line in caption.splitlines()]
    lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule", " & ".join(cell(str(c)) for c in table.columns) + r" \\", r"\midrule"]
    lines += [" & ".join(map(cell, row, places)) + r" \\" for row in table.itertuples(index=False, name=None)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def pictures(fig, name: str) -> dict[str, Callable[[Path], object]]:
    """What writes a Matplotlib figure as PDF and PNG, by file name; equal figures give equal bytes."""
    return {f"{name}.pdf": lambda p: fig.savefig(p, format="pdf", metadata=PDF_METADATA),
            f"{name}.png": lambda p: fig.savefig(p, format="png", metadata={"Software": None})}


def read_manifest(out: Path) -> dict:
    """The artifacts of a folder: name -> entry; empty where there is no manifest.

    Raises:
        OutputError: for a manifest that is not JSON.
    """
    path = Path(out) / "manifest.json"
    try:
        return json.loads(path.read_text("utf-8"))["artifacts"] if path.exists() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is damaged ({error}): remove it and call again") from error


def manifest_text(artifacts: dict) -> str:
    return json.dumps({"artifacts": artifacts}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


class Artifacts:
    """Writes a notebook's results into a folder: `<name>.pdf`, `<name>.png`, `tables/<name>.tex`, `source_data/<name>.csv`, and
    one manifest entry each.

    Args:
        out: folder of all notebooks' artifacts.
        profile, notebook: names, e.g. "sandbox", "03_finetuning".
        seeds: of the runs that the artifacts show.
        config_digest: `s4d.config.digest` of the profile or run.
    Raises:
        OutputError: when the folder holds results of another profile, which would be overwritten or mixed with these.
    """

    def __init__(self, out: str | Path, profile: str, notebook: str, seeds: tuple[int, ...] = (), config_digest: str = ""):
        self.out, self.notebook, self.written = Path(out), notebook, []
        held = {entry["profile"] for entry in read_manifest(self.out).values()} - {profile}
        if held:
            raise OutputError(f"{self.out} holds results of profile {min(held)} and would be overwritten with those of {profile}: set out to "
                              f'another folder, as in out = "../build/{profile}/out"')
        self.origin = {"notebook": notebook, "profile": profile, "seeds": [int(s) for s in seeds], "config": config_digest}

    def figure(self, fig, name: str, data: pd.DataFrame, caption: str) -> None:
        """Writes a Matplotlib figure as PDF and PNG, and the numbers it shows.

        Args:
            name: letters, digits, `_` and `-`.
            data: tidy table of every number in the figure.
            caption: what it shows, with units, n and the interval.
        Raises:
            OutputError: when the folder cannot be written; nothing is half-written.
        """
        self._add("figure", name, caption, {**pictures(fig, name), f"source_data/{name}.csv": _text(csv_text(data))})

    def table(self, df: pd.DataFrame, name: str, caption: str, data: pd.DataFrame | None = None, escape: bool = True,
              decimals: dict[str, int] | None = None) -> None:
        """Writes a table as LaTeX (booktabs) and as CSV.

        Args:
            df: the table as it is read.
            data: the plain numbers behind it; `df` itself when None.
            escape: replace what LaTeX would read as commands.
            decimals: column -> number of decimals of its floats in LaTeX; else see `decimals_of`.
        """
        self._add("table", name, caption, {
            f"tables/{name}.tex": _text(latex_text(df, caption, escape, decimals)),
            f"source_data/{name}.csv": _text(csv_text(df if data is None else data))})

    def _add(self, kind: str, name: str, caption: str, savers: dict) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise OutputError(f"artifact name {name!r} is not usable as a file name: letters, digits, _ and - only")
        manifest = read_manifest(self.out)
        other = manifest.get(name, {})
        if other and (other["notebook"], other["kind"]) != (self.notebook, kind):
            raise OutputError(f"artifact {name!r} is already a {other['kind']} of notebook {other['notebook']}: choose another name")
        write_all({self.out / file: save for file, save in savers.items()})
        manifest[name] = {"kind": kind, "caption": caption, **self.origin, "code": code_version(), "commit": commit(),
                          "packages": packages(), "files": {file: sha256(self.out / file) for file in savers}}
        write_text(self.out / "manifest.json", manifest_text(manifest))
        self.written.append(name)

    def check(self, names: list[str] | tuple[str, ...] | None = None) -> None:
        """Checks that artifacts exist as written.

        Args:
            names: those that the notebook declares; None: those written through this object.
        Raises:
            OutputError: for the first one that is missing, or changed since it was written.
        """
        manifest = read_manifest(self.out)
        for name in self.written if names is None else names:
            if name not in manifest:
                raise OutputError(f"artifact {name!r} is declared by {self.notebook} but was not written to {self.out}")
            for file, digest in manifest[name]["files"].items():
                if not (self.out / file).is_file():
                    raise OutputError(f"artifact {name!r} lacks its file {self.out / file}: run {self.notebook} again")
                if sha256(self.out / file) != digest:
                    raise OutputError(f"{self.out / file} changed after {manifest[name]['notebook']} wrote it: run that notebook again")
