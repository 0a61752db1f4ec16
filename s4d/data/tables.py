"""Index tables of datasets: what a dataset is, columns, validation split, fingerprint."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm


class DatasetError(ValueError):
    """A dataset's folder or lists are missing, empty or contradictory."""


@dataclass(frozen=True)
class Dataset:
    """One dataset on disk."""

    name: str
    task: str                           # "image" or "video"
    layout: str                         # what the folder must hold, in one line
    # (root, fold, label_order) -> of each sample: path below root, emotion or None, subject or
    # None, split; an own folder also takes a subject_separator
    rows: Callable[..., Iterable[tuple]]
    folds: tuple[int, ...] = ()
    # {(fold, split): samples, or {emotion: samples}}, a split None is the whole; or a function of
    # (root, index table) that gives it
    published: dict | Callable = field(default_factory=dict)


def table(rows: Iterable[tuple], fold: int | None) -> pd.DataFrame:
    """Rows (path, label, subject, split) as an index table, in one order on every machine."""
    rows = sorted(rows, key=lambda row: (row[3], row[0]))
    columns = ["path", "label", "subject", "split"]
    out = pd.DataFrame(rows, columns=columns, dtype=object)      # an unknown label stays None
    out["fold"] = pd.array([fold] * len(out), dtype="Int64")
    return out


def folders(path: Path) -> list[Path]:
    """Visible folders inside a folder, sorted by name; none when it does not exist."""
    inside = os.scandir(path) if path.is_dir() else []
    return sorted(path / e.name for e in inside if e.name[0] != "." and e.is_dir())


def files(path: Path, suffixes: set[str]) -> list[str]:
    """Names of the visible files with one of the extensions, sorted; none without the folder."""
    inside = os.scandir(path) if path.is_dir() else []
    fit = [e for e in inside if os.path.splitext(e.name)[1].lower() in suffixes]
    return sorted(e.name for e in fit if e.name[0] != "." and e.is_file())


def listed_subjects(root: Path) -> dict[str, str]:
    """{path: subject} of the optional `<root>/subjects.csv`."""
    path = root / "subjects.csv"
    if not path.is_file():
        return {}
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
        pairs = zip(found["path"].str.strip(), found["subject"].str.strip(), strict=True)
    except (OSError, ValueError, KeyError) as error:      # a parser's errors are ValueErrors
        raise DatasetError(f"list {path} cannot be read ({' '.join(str(error).split())}): expected "
                           "a table with the columns path,subject") from error
    return {p: s for p, s in pairs if s}


def split_validation(index: pd.DataFrame, val_fraction: float = 0.15,
                     seed: int = 0) -> pd.DataFrame:
    """A copy of an index table with split "val" for about `val_fraction` of its train rows: whole
    subjects where they are known, else class by class."""
    out, rng = index.copy(), np.random.default_rng(seed)
    train = out[out["split"] == "train"]
    counts = train["subject"].value_counts().sort_index()
    order = counts.index.to_numpy()[rng.permutation(len(counts))]
    target, total, taken = val_fraction * counts.sum(), 0, set()
    for name in order[:-1]:      # as near as whole subjects come; one is left to train on
        more = total + int(counts[name])
        if not taken or abs(more - target) < abs(total - target):
            taken.add(name)
            total = more
    chosen = list(train.index[train["subject"].isin(taken)])
    for _, rows in train[train["subject"].isna()].groupby(train["label"].fillna("")):
        count = max(1, round(val_fraction * len(rows))) if len(rows) > 1 else 0
        chosen += list(rng.permutation(rows.index.to_numpy())[:count])
    if not chosen:
        raise DatasetError(f"no validation split can be taken from {len(train)} training samples "
                           f"of {len(counts)} subject(s): two subjects, or two samples of a class, "
                           "are the least")
    out.loc[chosen, "split"] = "val"
    return out


def fingerprint(index: pd.DataFrame, root: str | Path) -> str:
    """Sixteen hex digits that name the data: path, label, split and size of each sample."""
    columns = [index[c].where(index[c].notna(), "") for c in ("path", "label", "split")]
    sizes = [size for size, _ in stamps(index["path"], root)]
    text = "".join("\t".join(map(str, row)) + "\n" for row in zip(*columns, sizes, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamps(paths: Iterable[str], root: str | Path) -> list[tuple[int, int]]:
    """(bytes, modification time in ns) of each file, -1 where missing; over all of a folder."""
    def stamp(path: str) -> tuple[int, int]:
        path = os.path.join(root, path)
        try:
            found = [os.stat(path)]
            if os.path.isdir(path):
                found = [e.stat() for e in os.scandir(path) if e.name[0] != "."]
            return sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=-1)
        except OSError:
            return -1, -1

    with ThreadPool(8) as pool:      # hides a network's latency
        return pool.map(stamp, paths)


def in_threads(function: Callable, items: list, num_workers: int, what: str) -> Iterator:
    """Results in order; a few dozen are in memory at once. Decoders release Python's lock."""
    size = 16 * max(1, num_workers)
    with ThreadPool(max(1, num_workers)) as pool:
        for start in tqdm(range(0, len(items), size), desc=what, unit_scale=size, unit="file",
                          disable=None):
            yield from pool.map(function, items[start:start + size], chunksize=1)
