"""LaTeX commands for the paper's text: every number that it uses, and the captions of its figures."""
from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from .artifacts import LATEX, Artifacts, csv_text
from .files import OutputError
from .captions import signed


def macro_name(*parts: object) -> str:
    """A LaTeX command's name: the parts joined, each with a capital; digits as words, since TeX allows only letters.

    Raises:
        OutputError: for a part in which no letter is left.
    """
    digits = dict(zip("0123456789", ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")))
    words = []
    for part in parts:
        pieces = [digits.get(piece, piece) for piece in re.findall(r"[A-Za-z]+|[0-9]", str(part))]
        if not pieces:
            raise OutputError(f"{part!r} cannot be part of a LaTeX command's name: it has no letter or digit")
        words += [p[0].upper() + p[1:] for p in pieces]
    return "".join(words)


def macros_of(judged: pd.DataFrame, scores: pd.DataFrame, gains: pd.DataFrame, ranks: pd.DataFrame, extra: dict) -> pd.DataFrame:
    """Every number that the report's text uses.

    Args:
        judged: from `judge`.
        scores: task, pretrained, method, metric, value, low, high (shares), samples, subjects.
        gains, ranks: from `s4d.published`.
        extra: further name -> text.
    Returns:
        table: name (a LaTeX command without the backslash), text.
    """
    rows = [(macro_name(k), str(v)) for k, v in extra.items()]
    for r in judged.itertuples():
        missing = pd.isna(r.difference)
        rows += [(macro_name("diff", r.name), "--" if missing else signed(r.difference)),
                 (macro_name("interval", r.name), "--" if missing else f"[{signed(r.low)}, {signed(r.high)}]"),
                 (macro_name("verdict", r.name), r.verdict)]
    for r in scores.itertuples():
        name = (r.metric.lower(), r.method, r.task, "pretrained" if r.pretrained else "scratch")
        rows += [(macro_name(*name), f"{100 * r.value:.1f}"), (macro_name(*name, "interval"), f"[{100 * r.low:.1f}, {100 * r.high:.1f}]")]
    for r in scores.drop_duplicates("task").itertuples():
        rows += [(macro_name("samples", r.task), str(r.samples)), (macro_name("subjects", r.task), str(r.subjects))]
    for r in gains.itertuples():
        rows += [(macro_name("published", r.dataset), f"{r.s4d:.2f}"), (macro_name("publishedBaseline", r.dataset), f"{r.baseline:.2f}"),
                 (macro_name("publishedGain", r.dataset), f"{r.gain:.2f}")]
    for r in ranks.itertuples():
        rows += [(macro_name("publishedRank", r.dataset), str(r.rank)), (macro_name("publishedMethods", r.dataset), str(r.methods))]
    return pd.DataFrame(rows, columns=["name", "text"])


def macros_text(table: pd.DataFrame) -> str:
    """One \\newcommand a row, in the table's order.

    Raises:
        OutputError: for a name that occurs twice or that TeX would not take.
    """
    for name, count in table["name"].value_counts().items():
        if count > 1 or not re.fullmatch("[A-Za-z]+", name):
            raise OutputError(f"macro {name!r} occurs {count} times: each name must be unique and of letters only")
    escaped = ("".join(LATEX.get(c, c) for c in text) for text in table["text"])
    return "".join(f"\\newcommand{{\\{name}}}{{{text}}}\n" for name, text in zip(table["name"], escaped))


def captions_of(manifest: dict, names: Iterable[str], prefix: str = "") -> pd.DataFrame:
    """Captions of figures as LaTeX commands, as the notebooks that drew them wrote them, with what they found: name, text.

    Args:
        manifest: of `read_manifest`.
        names: of the figures; those that a profile does not draw are left out.
        prefix: of the commands, after "caption", where two profiles draw figures of one name.
    """
    return pd.DataFrame([{"name": macro_name("caption", *[prefix] * bool(prefix), name), "text": manifest[name]["caption"]} for name in names if name in manifest],
                        columns=["name", "text"])


def write_macros(made: Artifacts, table: pd.DataFrame, name: str = "numbers", caption: str = "Numbers of the report's text") -> None:
    """Writes `tables/<name>.tex` with one command a row, and the same as CSV, as an artifact of its notebook.

    Args:
        table: name (letters), text.
        caption: what the commands hold.
    """
    def writer(text: str):
        return lambda path: path.write_text(text, encoding="utf-8", newline="\n")
    made._add("table", name, f"{caption}, one LaTeX command each.",
              {f"tables/{name}.tex": writer(macros_text(table)), f"source_data/{name}.csv": writer(csv_text(table))})
