"""Compare the numbers of a fresh run with the committed ones, table by table.

Counts, names and settings must be equal. A trained number holds inside its committed 95 % interval,
has moved outside of it (another processor rounds like a new seed), and fails where the two
intervals have nothing in common. Trained numbers without an interval are not judged.
"""
import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd

from .files import ROOT, OutputError

DIGITS = 1e-5       # relative; the files hold six significant digits
# Written from data and settings alone: every number must be equal.
FIXED = {"corpus_counts", "faces_actions", "faces_emotions", "faces_filmstrip", "faces_gap",
         "faces_turn", "model_sizes", "pretraining_masks", "report_runs", "report_sources"}
TRAINED = {"count", "verdict", "text", "reading", "people", "tokens"}
BESIDE = ("low", "high", "seed_sd", "null_95", "p")       # accompany a number and are not judged


def committed(folder: str, repository: Path = ROOT) -> dict[str, pd.DataFrame]:
    """Read the tables of a folder as of the last git commit; `reproduce` writes over the tree's."""
    command = ["git", "-C", str(repository), "archive", "HEAD", folder]
    try:
        packed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise OutputError(f"nothing committed can be read from {folder}: use a clone") from error
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {Path(member.name).stem: pd.read_csv(archive.extractfile(member))
                for member in archive if Path(member.name).parent == Path(folder)}


def stored(folder: str | Path) -> dict[str, pd.DataFrame]:
    """Read the tables of a folder; OutputError when there are none."""
    found = {path.stem: pd.read_csv(path) for path in sorted(Path(folder).glob("*.csv"))}
    if not found:
        raise OutputError(f"{folder} holds no source data (*.csv): run `make reproduce` first")
    return found


def intervals(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return column -> its two columns with the ends of its 95 % interval."""
    columns = list(table)
    out = {c: (f"{c}_low", f"{c}_high") for c in columns
           if {f"{c}_low", f"{c}_high"} <= set(columns)}
    if {"low", "high"} <= set(columns):
        at = columns.index("low")
        for name in (*reversed(columns[:at]), *columns[at:]):
            if name in BESIDE or name in out or table[name].dtype.kind != "f":
                continue
            inside = table[name].between(table["low"] - DIGITS, table["high"] + DIGITS)
            if (inside | table[name].isna() | table["low"].isna()).all():
                out[name] = ("low", "high")
                break
    return out


def compare(name: str, old: pd.DataFrame, new: pd.DataFrame) -> list[tuple]:
    """Return (table, number, committed, fresh, verdict) of each mismatch of one table.

    Verdicts: moved (outside the committed interval, intervals overlap), fails.
    """
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return [(name, "rows and columns", old.shape, new.shape, "fails")]
    floats = {c for c in old if old[c].dtype.kind == "f"}

    def rows(column: str, wrong: pd.Series, apart: pd.Series) -> list[tuple]:
        keys = [c for c in old if c not in floats and c != column][:6]
        return [(name, f"{column} of {', '.join(old.loc[i, keys].astype(str))}", old[column][i],
                 new[column][i], "fails" if apart[i] else "moved") for i in np.flatnonzero(wrong)]

    out = []
    for column in (c for c in old if name in FIXED or c not in TRAINED | floats):
        one, other = old[column], new[column]
        equal = (one == other) | (one.isna() & other.isna())
        if one.dtype.kind in "fi" and other.dtype.kind in "fi":
            equal |= np.isclose(one, other, rtol=DIGITS, atol=0)
        out += rows(column, ~equal, ~equal)
    if out or name in FIXED:
        return out
    for column, (low, high) in intervals(old).items():
        slack = DIGITS * old[[low, high]].abs()
        inside = new[column].between(old[low] - slack[low], old[high] + slack[high])
        known = old[low].notna() & new[column].notna()
        wrong = (known & ~inside) | (old[column].isna() != new[column].isna())
        out += rows(column, wrong, (new[low] > old[high]) | (new[high] < old[low]))
    return out


def verify(fresh: dict[str, pd.DataFrame], old: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Judge every table; return the mismatches, none where all numbers hold."""
    rows = [(name, "file", name in old, name in fresh, "fails")
            for name in sorted(old.keys() ^ fresh.keys())]
    for name in sorted((old.keys() & fresh.keys()) - {"numbers"}):      # repeats others
        rows += compare(name, old[name], fresh[name])
    return pd.DataFrame(rows, columns=["table", "number", "committed", "fresh", "verdict"])
