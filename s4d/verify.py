"""Compare the numbers of a fresh run with the committed ones, table by table.

Counts, names and settings must be equal. A trained number holds inside its committed 95 % interval.
On another processor sums round otherwise, and a trained run is then like one with a new seed: some
numbers leave their interval by chance and are reported as moved. A number fails when its own
interval has nothing in common with the committed one. Trained numbers without an interval are
illustrations: their rows must be the same, their values are not judged.
"""
from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd

from .files import OutputError

DIGITS = 1e-5       # relative; the files hold six significant digits
# Written from data and settings alone: every number must be equal.
FIXED = {"corpus_counts", "faces_actions", "faces_emotions", "faces_filmstrip", "faces_gap",
         "faces_turn", "model_sizes", "pretraining_masks", "report_runs", "report_published"}
TRAINED = {"count", "verdict", "text", "reading", "people", "tokens"}
BESIDE = ("low", "high", "seed_sd", "null_95", "p")       # accompany a number and are not judged
SKIPPED = {"numbers"}                                     # repeats others


def committed(folder: str, repository: Path) -> dict[str, bytes]:
    """Read the csv files of a folder as of the last git commit; `reproduce` writes over the tree's.

    Raises:
        OutputError: outside a git repository, or when nothing is committed there.
    """
    command = ["git", "-C", str(repository), "archive", "HEAD", folder]
    try:
        packed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise OutputError(f"nothing committed can be read from {folder}: call verify in a clone, "
                          "or name a folder of source data to compare with") from error
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        files = [m for m in archive if m.isfile() and Path(m.name).parent == Path(folder)]
        return {Path(m.name).name: archive.extractfile(m).read() for m in files}


def stored(folder: str | Path) -> dict[str, bytes]:
    """Read the csv files of a folder; OutputError when there are none."""
    found = {p.name: p.read_bytes() for p in sorted(Path(folder).glob("*.csv"))}
    if not found:
        raise OutputError(f"{folder} holds no source data (*.csv): run `make reproduce`, or name "
                          "the right folder")
    return found


def intervals(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return column -> its two columns with the ends of its 95 % interval."""
    columns = list(table.columns)
    out = {c: (f"{c}_low", f"{c}_high") for c in columns
           if {f"{c}_low", f"{c}_high"} <= set(columns) and c != "seed"}
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


def compare(name: str, old: pd.DataFrame, new: pd.DataFrame) -> list[dict]:
    """Judge one table; return a row (table, number, committed, fresh, verdict) for each mismatch.

    Verdicts: moved (outside the committed interval, intervals overlap), fails.
    """
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        what = f"{len(old)} rows of {', '.join(old.columns)}"
        return [dict(table=name, number="rows and columns", committed=what,
                     fresh=f"{len(new)} rows of {', '.join(new.columns)}", verdict="fails")]
    found = intervals(old)
    exact = [c for c in old if name in FIXED or (old[c].dtype.kind != "f" and c not in TRAINED)]
    out = []
    for column in exact:
        for i in np.flatnonzero(~same(old[column], new[column])):
            out.append(_row(name, old, new, column, i, "fails"))
    if out or name in FIXED:
        return out
    for column, (low, high) in found.items():
        inside = new[column].between(old[low] - _slack(old[low]), old[high] + _slack(old[high]))
        apart = (new[low] > old[high]) | (new[high] < old[low])
        known = old[low].notna() & new[column].notna()
        for i in np.flatnonzero((known & ~inside) | (old[column].isna() != new[column].isna())):
            out.append(_row(name, old, new, column, i, "fails" if apart[i] else "moved"))
    return out


def _slack(ends: pd.Series) -> pd.Series:
    return DIGITS * ends.abs()


def same(old: pd.Series, new: pd.Series) -> np.ndarray:
    """Tell row by row whether two columns are equal, floats to the digits that files hold."""
    if old.dtype.kind in "fi" and new.dtype.kind in "fi":
        return np.isclose(old, new, rtol=DIGITS, atol=0, equal_nan=True)
    return ((old == new) | (old.isna() & new.isna())).to_numpy()


def _row(name: str, old: pd.DataFrame, new: pd.DataFrame, column: str, i: int, verdict: str):
    keys = [str(v) for c, v in old.iloc[i].items() if old[c].dtype.kind not in "f" and c != column]
    value = [t[column].iloc[i] for t in (old, new)]
    return dict(table=name, number=f"{column} of {', '.join(keys[:6])}", committed=value[0],
                fresh=value[1], verdict=verdict)


def verify(fresh: dict[str, bytes], old: dict[str, bytes], exact: bool = False) -> pd.DataFrame:
    """Judge every table; return the mismatches, none where all numbers hold.

    Args:
        fresh, old: file name -> bytes.
        exact: compare bytes: on one machine, with equal threads, two runs are equal.
    """
    rows = []
    for name in sorted(old.keys() | fresh.keys()):
        table = Path(name).stem
        if name not in fresh or name not in old:
            where = "fresh" if name not in fresh else "committed"
            rows.append(dict(table=table, number="file", committed=name in old,
                             fresh=name in fresh, verdict=f"fails: no {where} file"))
        elif exact and fresh[name] != old[name]:
            rows.append(dict(table=table, number="bytes", committed=len(old[name]),
                             fresh=len(fresh[name]), verdict="fails"))
        elif not exact and table not in SKIPPED:
            rows += compare(table, *(pd.read_csv(io.BytesIO(b[name])) for b in (old, fresh)))
    return pd.DataFrame(rows, columns=["table", "number", "committed", "fresh", "verdict"])
