"""What a notebook leaves behind: figures, tables, the numbers behind them, and a manifest."""
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from ..files import OutputError, sha256, write_all, write_text, writing

PDF_METADATA = {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None}
DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def default_out(profile: str) -> str:
    """Folder of a profile's results: `figures`, or a folder in it for all but the default one."""
    return "figures" if profile == "sandbox" else f"figures/{profile}"


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8", newline="\n")


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV: floats with six significant digits, so that equal runs give equal files."""
    def text(value) -> object:
        if not isinstance(value, (float, np.floating)):
            return value
        return "" if np.isnan(value) else f"{value + 0.0:.6g}"      # + 0.0 turns -0 into 0
    return table.astype(object).map(text).to_csv(index=False, lineterminator="\n")


def latex_text(table: pd.DataFrame, caption: str = "", escape: bool = True,
               precision: int = 2) -> str:
    """The table as a booktabs `tabular`."""
    style = table.style.hide(axis="index").format_index(escape="latex", axis=1)
    style = style.format(precision=precision, na_rep="--", escape="latex" if escape else None)
    align = "".join("r" if t.kind in "iuf" else "l" for t in table.dtypes)
    comment = "".join(f"% {line}\n" for line in caption.splitlines())
    return comment + style.to_latex(hrules=True, column_format=align)


def macro_name(*parts: object) -> str:
    """A LaTeX command's name: the parts joined, each with a capital; digits as words."""
    pieces = [p for part in parts for p in re.findall(r"[A-Za-z]+|[0-9]", str(part))]
    return "".join(DIGITS[int(p)] if p.isdigit() else p[0].upper() + p[1:] for p in pieces)


def pictures(fig, name: str) -> dict[str, Callable[[Path], object]]:
    """What writes a figure as PDF and PNG, by file name; equal figures give equal bytes."""
    return {f"{name}.pdf": lambda p: fig.savefig(p, format="pdf", metadata=PDF_METADATA),
            f"{name}.png": lambda p: fig.savefig(p, format="png", metadata={"Software": None})}


def read_manifest(out: str | Path) -> dict:
    """The artifacts of a folder: name -> entry; empty where there is no manifest."""
    path = Path(out) / "manifest.json"
    return json.loads(path.read_text("utf-8"))["artifacts"] if path.exists() else {}


def manifest_text(artifacts: dict) -> str:
    return json.dumps({"artifacts": artifacts}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_results(out: str | Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Source data of earlier notebooks, by name."""
    files = {name: Path(out) / "source_data" / f"{name}.csv" for name in names}
    for file in files.values():
        if not file.is_file():
            raise OutputError(f"{file} is missing: run the notebook that writes it first")
    return {name: pd.read_csv(file) for name, file in files.items()}


class Artifacts:
    """Writes a notebook's figures, tables, their source data and one manifest entry each.

    The folder `out` is all notebooks'; one that holds another profile's artifacts is refused.
    """

    def __init__(self, out: str | Path, profile: str, notebook: str, seeds: Iterable[int] = (),
                 config_digest: str = ""):
        self.out, self.notebook = Path(out), notebook
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
              escape: bool = True, precision: int = 2) -> None:
        """Write a table as LaTeX and the plain numbers behind it, `df` or `data`, as CSV."""
        self._add("table", name, caption, df if data is None else data, {
            f"tables/{name}.tex": _text(latex_text(df, caption, escape, precision))})

    def macros(self, commands: dict[str, str], name: str, caption: str) -> None:
        r"""Write texts as LaTeX commands, one `\newcommand` each, and as CSV."""
        data = pd.DataFrame({"name": list(commands), "text": list(commands.values())})
        escaped = data["text"].astype(str).str.replace(r"([&%$#_{}])", r"\\\1", regex=True)
        lines = "\\newcommand{\\" + data["name"] + "}{" + escaped + "}\n"
        self._add("table", name, caption, data, {f"tables/{name}.tex": _text("".join(lines))})

    def _add(self, kind: str, name: str, caption: str, data: pd.DataFrame, savers: dict) -> None:
        savers = savers | {f"source_data/{name}.csv": _text(csv_text(data))}
        with writing(self.out), FileLock(self.out / ".tmp-lock"):     # they run side by side
            manifest = read_manifest(self.out)
            other = manifest.get(name, {})
            if other and (other["notebook"], other["kind"]) != (self.notebook, kind):
                raise OutputError(f"artifact {name!r} is already a {other['kind']} of notebook "
                                  f"{other['notebook']}: choose another name")
            write_all({self.out / file: save for file, save in savers.items()})
            manifest[name] = {"kind": kind, "caption": caption, **self.origin,
                              "files": {file: sha256(self.out / file) for file in savers}}
            write_text(self.out / "manifest.json", manifest_text(manifest))
