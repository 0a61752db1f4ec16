"""What a notebook leaves behind: figures, tables, the numbers behind them, and a manifest."""
from __future__ import annotations

import contextlib
import json
import platform
import re
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import OutputError, sha256, write_all, write_text

PDF_METADATA = {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None}
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scipy", "scikit-learn",
            "matplotlib", "seaborn", "av")


def packages() -> dict[str, str]:
    """Versions of what computes the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def default_out(profile: str) -> str:
    """Folder of a profile's results: `figures`, or a folder in it for all but the default one."""
    return "figures" if profile == "sandbox" else f"figures/{profile}"


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8", newline="\n")


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a meaningful index as columns, and one level of column names."""
    if not isinstance(table.index, pd.RangeIndex):     # row numbers of a selection say nothing
        table = table.reset_index(drop=table.index.names == [None])
    if isinstance(table.columns, pd.MultiIndex):
        names = ["_".join(str(part) for part in name if part != "") for name in table.columns]
        table = table.set_axis(names, axis=1)
    return table


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV: floats with six significant digits, so that equal runs give equal files."""
    def text(value) -> object:
        if not isinstance(value, (float, np.floating)):
            return value
        return "" if np.isnan(value) else f"{value + 0.0:.6g}"      # + 0.0 turns -0 into 0

    table = flat(table)
    columns = [table.iloc[:, i].astype(object).map(text) for i in range(table.shape[1])]
    texts = pd.DataFrame(dict(enumerate(columns))).set_axis(table.columns, axis=1)
    return texts.to_csv(index=False, lineterminator="\n")


def latex_text(table: pd.DataFrame, caption: str = "", escape: bool = True,
               decimals: dict[str, int] | None = None) -> str:
    """The table as a booktabs `tabular`; `decimals` of a column's floats, where two do not suit."""
    table = flat(table)
    style = table.style.hide(axis="index").format_index(escape="latex", axis=1)
    style = style.format(precision=2, na_rep="--", escape="latex" if escape else None)
    for column, places in (decimals or {}).items():
        style = style.format(precision=places, na_rep="--", subset=[column])
    align = "".join("r" if t.kind in "iuf" else "l" for t in table.dtypes)
    comment = "".join(f"% {line}\n" for line in caption.splitlines())
    return comment + style.to_latex(hrules=True, column_format=align)


def pictures(fig, name: str) -> dict[str, Callable[[Path], object]]:
    """What writes a figure as PDF and PNG, by file name; equal figures give equal bytes."""
    return {f"{name}.pdf": lambda p: fig.savefig(p, format="pdf", metadata=PDF_METADATA),
            f"{name}.png": lambda p: fig.savefig(p, format="png", metadata={"Software": None})}


def read_manifest(out: str | Path) -> dict:
    """The artifacts of a folder: name -> entry; empty where there is no manifest."""
    path = Path(out) / "manifest.json"
    try:
        return json.loads(path.read_text("utf-8"))["artifacts"] if path.exists() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is damaged ({error}): remove it and call again") from error


def manifest_text(artifacts: dict) -> str:
    return json.dumps({"artifacts": artifacts}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_results(out: str | Path, names: Iterable[str], profile: str) -> dict[str, pd.DataFrame]:
    """Source data of earlier notebooks of a profile, by name."""
    manifest, tables = read_manifest(out), {}
    for name in names:
        file = Path(out) / "source_data" / f"{name}.csv"
        if name not in manifest or not file.is_file():
            raise OutputError(f"{file} is missing: run the notebook that writes it first")
        entry = manifest[name]
        if entry["profile"] != profile:
            raise OutputError(f"{file} was made with profile {entry['profile']}, not {profile}: "
                              f"run {entry['notebook']} with it, or choose another folder")
        tables[name] = pd.read_csv(file)
    return tables


class Artifacts:
    """Writes a notebook's figures, tables, their source data and one manifest entry each.

    Args:
        out: folder of all notebooks' artifacts; one that holds another profile's is refused.
        seeds, config_digest: of the runs that the artifacts show.
    """

    def __init__(self, out: str | Path, profile: str, notebook: str, seeds: Iterable[int] = (),
                 config_digest: str = ""):
        self.out, self.notebook, self.written = Path(out), notebook, []
        others = {entry["profile"] for entry in read_manifest(self.out).values()} - {profile}
        if others:
            raise OutputError(f"{self.out} holds results of profile {min(others)}, which those of "
                              f'{profile} would overwrite: set out = "../build/{profile}/out"')
        self.origin = {"notebook": notebook, "profile": profile, "seeds": [int(s) for s in seeds],
                       "config": config_digest}

    def figure(self, fig, name: str, data: pd.DataFrame, caption: str) -> None:
        """Write a Matplotlib figure as PDF and PNG, and a tidy table of the numbers it shows."""
        self._add("figure", name, caption, data, pictures(fig, name))

    def table(self, df: pd.DataFrame, name: str, caption: str, data: pd.DataFrame | None = None,
              escape: bool = True, decimals: dict[str, int] | None = None) -> None:
        """Write a table as LaTeX and the plain numbers behind it, `df` or `data`, as CSV."""
        self._add("table", name, caption, df if data is None else data, {
            f"tables/{name}.tex": _text(latex_text(df, caption, escape, decimals))})

    def macros(self, commands: dict[str, str], name: str, caption: str) -> None:
        r"""Write texts as LaTeX commands, one `\newcommand` each, and as CSV."""
        data = pd.DataFrame({"name": list(commands), "text": list(commands.values())})
        self._add("table", name, caption, data,
                  {f"tables/{name}.tex": _text(macros_text(commands))})

    def _add(self, kind: str, name: str, caption: str, data: pd.DataFrame, savers: dict) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise OutputError(f"artifact name {name!r} is no file name: use letters, digits, _, -")
        manifest = read_manifest(self.out)
        other = manifest.get(name, {})
        if other and (other["notebook"], other["kind"]) != (self.notebook, kind):
            raise OutputError(f"artifact {name!r} is already a {other['kind']} of notebook "
                              f"{other['notebook']}: choose another name")
        savers = savers | {f"source_data/{name}.csv": _text(csv_text(data))}
        write_all({self.out / file: save for file, save in savers.items()})
        manifest[name] = {"kind": kind, "caption": caption, **self.origin,
                          "files": {file: sha256(self.out / file) for file in savers}}
        write_text(self.out / "manifest.json", manifest_text(manifest))
        self.written.append(name)

    def check(self, names: Iterable[str] | None = None) -> None:
        """Check that the declared artifacts, or those written here, exist as written."""
        manifest = read_manifest(self.out)
        for name in self.written if names is None else names:
            if name not in manifest:
                raise OutputError(f"artifact {name!r} is declared by {self.notebook} but was not "
                                  f"written to {self.out}")
            for file, digest in manifest[name]["files"].items():
                path = self.out / file
                if not path.is_file() or sha256(path) != digest:
                    raise OutputError(f"{path} of artifact {name!r} is missing or was changed: run "
                                      f"notebook {manifest[name]['notebook']} again")


def macro_name(*parts: object) -> str:
    """A LaTeX command's name: the parts joined, each with a capital; digits as words."""
    digits = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    pieces = [p for part in parts for p in re.findall(r"[A-Za-z]+|[0-9]", str(part))]
    return "".join(digits[int(p)] if p.isdigit() else p[0].upper() + p[1:] for p in pieces)


def macros_text(commands: dict[str, str]) -> str:
    r"""One `\newcommand` a line; names are of letters only, and texts are escaped."""
    lines = []
    for name, text in commands.items():
        if not re.fullmatch("[A-Za-z]+", name):
            raise OutputError(f"macro name {name!r} must be of letters only")
        text = re.sub(r"[&%$#_{}]", r"\\\g<0>", str(text))
        lines.append(f"\\newcommand{{\\{name}}}{{{text}}}\n")
    return "".join(lines)
