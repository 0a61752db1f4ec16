"""Index tables: their columns, the helpers that list folders, the validation split, the fingerprint."""
from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = ["path", "label", "subject", "split", "fold", "frames"]
REMEMBERED = 10_000      # files, from which on a tree's listing is worth keeping


class DatasetError(ValueError):
    """A dataset's folder or lists are missing, empty or contradictory; the message says what is expected."""


def table(rows: Iterable[tuple], fold: int | None, frames: int | None) -> pd.DataFrame:
    """Rows (path, label, subject, split) as an index table, sorted by split and path so that every machine numbers them alike.

    Rows are taken one by one and put into columns: a million tuples would cost more than the table.
    """
    columns = [[], [], [], []]
    for row in rows:
        for column, value in zip(columns, row):
            column.append(value)
    paths, splits = columns[0], columns[3]
    if any((splits[i], paths[i]) > (splits[i + 1], paths[i + 1]) for i in range(len(paths) - 1)):
        order = sorted(range(len(paths)), key=lambda i: (splits[i], paths[i]))
        columns = [[column[i] for i in order] for column in columns]
    out = pd.DataFrame(dict(zip(COLUMNS, columns)), columns=COLUMNS[:4], dtype=object)      # object: an unknown label stays None
    out["fold"] = pd.array([fold] * len(out), dtype="Int64")
    out["frames"] = pd.array([frames] * len(out), dtype="Int64")
    return out


def folders(path: Path) -> list[Path]:
    """Visible folders inside a folder, sorted by name; none when it does not exist."""
    if not path.is_dir():
        return []
    return [path / e for e in sorted(e.name for e in os.scandir(path) if not e.name.startswith(".") and e.is_dir())]


def files(path: Path, suffixes: set[str]) -> list[str]:
    """Names of the visible files with one of the extensions, sorted; none when the folder does not exist."""
    if not path.is_dir():
        return []
    return sorted(e.name for e in os.scandir(path)
                  if not e.name.startswith(".") and os.path.splitext(e.name)[1].lower() in suffixes and e.is_file())


def cache_home(root: Path, cache_dir: str | Path | None = None) -> Path:
    """The first folder for what is kept beside a dataset that can be written: `cache_dir`, or `<root>/.cache`, or the user's own.

    Raises:
        DatasetError: when none can.
    """
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s4d"
    homes = [root / ".cache", user] if cache_dir is None else [Path(cache_dir)]
    for home in homes:
        try:
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=home):
                return home
        except OSError:
            continue
    raise DatasetError(f"no cache of decoded samples can be written in {' or '.join(map(str, homes))}: give a cache_dir that can be "
                       "written, or train with cache=False")


def cached_tree(root: Path, top: str, prefix: str, suffixes: set[str]) -> list[str]:
    """Paths of the files in `<top>/<prefix...>/<folder>/`, in order; remembered until one of the folders changes.

    A folder's time of modification changes with every entry that is added, removed or renamed, so that comparing the times of all
    folders finds every such change, at a tenth of the cost of listing a million files.
    """
    name = hashlib.sha256(f"{root.resolve()} {top}".encode()).hexdigest()[:16]
    try:
        store = cache_home(root) / f"paths-{name}.npz"
    except DatasetError:
        store = None
    if store is not None and store.is_file():
        try:
            with np.load(store, allow_pickle=False) as kept:
                known, times, paths = (kept[k] for k in ("folders", "times", "paths"))
            known = known.tobytes().decode().split("\n")
            if np.array_equal(times, [_time(root / k) for k in known]):
                return paths.tobytes().decode().split("\n") if len(paths) else []
        except (OSError, ValueError, KeyError, EOFError, UnicodeDecodeError, zipfile.BadZipFile):
            pass                             # damaged, or of another form: listed again
    known, paths, times = [top], [], [_time(root / top)]
    for outer in folders(root / top):
        inner = folders(outer) if outer.name.startswith(prefix) else []
        known += [f"{top}/{outer.name}", *(f"{top}/{outer.name}/{f.name}" for f in inner)] if inner else []
        times += [_time(outer), *map(_time, inner)] if inner else []      # before the files are listed: a later change is seen
        paths += [f"{top}/{outer.name}/{f.name}/{n}" for f in inner for n in files(f, suffixes)]
    if store is not None and len(paths) >= REMEMBERED and not any("\n" in p for p in paths):
        draft = store.with_name(f".tmp-{secrets.token_hex(4)}.npz")
        try:
            np.savez(draft, times=np.array(times), **{k: np.frombuffer("\n".join(v).encode(), np.uint8) for k, v in
                                                      (("folders", known), ("paths", paths))})
            os.replace(draft, store)
        except (OSError, UnicodeEncodeError):
            draft.unlink(missing_ok=True)
    return paths


def _time(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return -1


def read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A list with a header; all values as stripped text.

    Raises:
        DatasetError: for a list that is empty, not a table, or without one of the columns.
    """
    wanted = f"expected a table with the columns {','.join(columns)}"
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DatasetError(f"list {path} cannot be read ({' '.join(str(error).split())}): {wanted}") from error
    found.columns = [c.strip() for c in found.columns]
    missing = [c for c in columns if c not in found]
    if missing:
        raise DatasetError(f"list {path} has no column {missing[0]!r}: {wanted}")
    return found[list(columns)].apply(lambda c: c.str.strip())


def with_subjects(out: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Fills in the subjects that the optional `<root>/subjects.csv` (path,subject) names."""
    path = root / "subjects.csv"
    if path.is_file():
        listed = read_csv(path, ("path", "subject"))
        known = out["path"].map(dict(zip(listed["path"], listed["subject"])))
        out["subject"] = [k if isinstance(k, str) and k else s for k, s in zip(known, out["subject"])]
        out["subject"] = out["subject"].astype(object)
    return out


def split_validation(index: pd.DataFrame, share: float = 0.15, seed: int = 0) -> pd.DataFrame:
    """A copy of an index table with split "val" for about `share` of its train rows.

    Whole subjects where they are known, so that nobody is on both sides; rows without a subject class by class.

    Args:
        index: table of `s4d.data.index`.
        share: of the train rows, between 0 and 1.
        seed: of the draw; the result depends on it and on the table alone.
    Raises:
        DatasetError: for a share outside 0..1, or when nothing can be held out.
    """
    if not 0 < share < 1:
        raise DatasetError(f"validation share {share} is outside 0..1: choose for example 0.15")
    out, rng = index.copy(), np.random.default_rng(seed)
    train = out.index[out["split"] == "train"]
    known = out.loc[train, "subject"].notna()
    held = _whole_subjects(out.loc[train[known], "subject"], share, rng)
    rest = out.loc[train[~known], "label"].fillna("")
    for name in sorted(rest.unique()):
        rows = rest.index[rest == name]
        count = max(1, round(share * len(rows))) if len(rows) > 1 else 0
        held += list(rng.permutation(rows.to_numpy())[:count])
    if not held:
        raise DatasetError(f"no validation part can be taken from {len(train)} training samples of {out.loc[train, 'subject'].nunique()} "
                           "subject(s): two subjects, or two samples of a class, are the least")
    out.loc[held, "split"] = "val"
    return out


def _whole_subjects(subjects: pd.Series, share: float, rng: np.random.Generator) -> list:
    """Row numbers of randomly chosen subjects, as near to the share as whole subjects come; at least one stays in training."""
    counts = subjects.value_counts().sort_index()
    order = counts.index.to_numpy()[rng.permutation(len(counts))]
    target, total, chosen = share * len(subjects), 0, set()
    for name in order[:-1]:
        more = total + int(counts[name])
        if not chosen or abs(more - target) < abs(total - target):
            chosen.add(name)
            total = more
    return list(subjects.index[subjects.isin(chosen)])


def fingerprint(index: pd.DataFrame, root: str | Path) -> str:
    """Sixteen hex digits that name the data: rows (path, label, split) and the sizes of their files.

    Equal on every machine that holds the same files. Contents are not read: a change that keeps a file's size is not seen.

    Args:
        index: table of `s4d.data.index`.
        root: folder its paths are relative to.
    """
    digest = hashlib.sha256()
    columns = (index[c].where(index[c].notna(), "") for c in ("path", "label", "split"))
    for row in zip(*columns, (size for size, _ in stamps(index["path"], root))):
        digest.update("\t".join(map(str, row)).encode() + b"\n")
    return digest.hexdigest()[:16]


def stamps(paths: Iterable[str], root: str | Path) -> list[tuple[int, int]]:
    """(size in bytes, modification time in ns) of each file; -1 where it is missing; sum and latest over a frame folder."""
    def stamp(path: str) -> tuple[int, int]:
        try:
            if os.path.isdir(path):
                inside = [e.stat() for e in os.scandir(path) if not e.name.startswith(".")]
                return sum(s.st_size for s in inside), max((s.st_mtime_ns for s in inside), default=-1)
            found = os.stat(path)
            return found.st_size, found.st_mtime_ns
        except OSError:
            return -1, -1
    full = [os.path.join(root, p) for p in paths]
    if len(full) < 2000:
        return [stamp(p) for p in full]
    groups = [full[i:i + 500] for i in range(0, len(full), 500)]      # a task per file would cost more than the file
    with ThreadPoolExecutor(8) as pool:                              # hides the latency of network disks
        return [s for group in pool.map(lambda group: [stamp(p) for p in group], groups) for s in group]
