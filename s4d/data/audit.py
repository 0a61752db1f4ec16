"""What is wrong with a dataset on disk: files against lists, lists against themselves, pictures against each other."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from .datasets import DatasetError, index
from .datasets import find as find_dataset
from .datasets.tables import read_csv
from .media import MediaError, frame_files, frame_size, kind, read_clip

MIN_FRAMES = 4        # a shorter clip shows no course of an expression


def audit(name: str, root: str | Path, fold: int | None = None, workers: int = 1) -> pd.DataFrame:
    """Reads every file of a dataset and checks its lists.

    Args:
        name: key of the registry of datasets.
        root: the dataset's folder.
        fold: one fold; None checks all.
        workers: decoding threads.
    Returns:
        table (path, problem), empty when clean: missing, unreadable or very short samples; sizes unlike the others';
        samples listed twice or in two splits, in no or several test folds; clips without an entry; subjects in two
        splits; entries of subjects.csv without a sample.
    Raises:
        DatasetError, LabelError: when the dataset cannot be indexed at all.
    """
    module, root = find_dataset(name, root), Path(root)
    problems: list[tuple[str, str]] = []
    tables = {}
    for k in [fold] if fold is not None or not module.FOLDS else module.FOLDS:
        try:
            tables[k] = index(name, root, fold=k)
        except DatasetError as error:
            if fold is not None or not module.FOLDS:
                raise
            problems.append((f"fold {k}", str(error)))
    if not tables:
        raise DatasetError(problems[0][1])
    for k, table in tables.items():
        problems += _lists(table, f" of fold {k}" if k else "")
    if fold is None and len(tables) > 1:
        problems += _test_folds(tables)
    paths = sorted({p for table in tables.values() for p in table["path"]})
    if hasattr(module, "unlisted"):
        problems += [(p, "it is on disk but in no list") for p in module.unlisted(root, set(paths))] if fold is None else []
    problems += _subjects(root, set(paths)) + _media(root, paths, module.KIND, workers)
    return pd.DataFrame(problems, columns=["path", "problem"])


def _lists(table: pd.DataFrame, where: str) -> list[tuple[str, str]]:
    """Samples listed more than once, and subjects in more than one split."""
    out = []
    repeated = table[table["path"].duplicated(keep=False)]
    for path, rows in repeated.groupby("path"):
        parts = ", ".join(f"{s} as {l}" for s, l in zip(rows["split"], rows["label"]))
        out.append((path, f"it is listed {len(rows)} times{where}: {parts}"))
    known = table[table["subject"].notna()]
    for subject, rows in known.groupby("subject"):
        splits = sorted(rows["split"].unique())
        if len(splits) > 1:
            out.append((rows["path"].iloc[0], f"its subject {subject} is in {' and '.join(splits)}{where}"))
    return out


def _test_folds(tables: dict[int, pd.DataFrame]) -> list[tuple[str, str]]:
    """Samples that are not in exactly one test fold."""
    found = {path: [] for table in tables.values() for path in table["path"]}
    for k, table in tables.items():
        for path in set(table.loc[table["split"] == "test", "path"]):
            found[path].append(k)
    return [(path, f"it is in {'no test fold' if not folds else 'test folds ' + ', '.join(map(str, folds))}: expected exactly one")
            for path, folds in sorted(found.items()) if len(folds) != 1]


def _subjects(root: Path, paths: set[str]) -> list[tuple[str, str]]:
    path = root / "subjects.csv"
    if not path.is_file():
        return []
    listed = read_csv(path, ("path", "subject"))["path"]
    return [(p, "it is in subjects.csv but not in the dataset") for p in sorted(set(listed) - paths)]


def _media(root: Path, paths: list[str], what: str, workers: int) -> list[tuple[str, str]]:
    """Problems of the files themselves: they are decoded in full, at a small size."""
    def check(path: str) -> tuple[str | None, int, tuple[int, int] | None]:
        try:
            frames = len(read_clip(root / path, size=32))
            sizes = _sizes(root / path)
            mixed = f"its frames differ in size: {_text(sizes)}" if len(sizes) > 1 else None
            return mixed, frames, sizes[0] if len(sizes) == 1 else None
        except MediaError as error:
            return f"it cannot be read: {error.cause}", 0, None
    results = _parallel(check, paths, workers)
    sizes = Counter(size for _, _, size in results if size)
    common, count = sizes.most_common(1)[0] if sizes else (None, 0)
    out = []
    for path, (problem, frames, size) in zip(paths, results):
        if problem:
            out.append((path, problem))
        elif what == "video" and frames < MIN_FRAMES:
            out.append((path, f"it has {frames} frame(s), fewer than {MIN_FRAMES}"))
        if size and size != common and 2 * count > len(paths):      # where sizes vary freely none is wrong
            out.append((path, f"it is {_text([size])} px, while most are {_text([common])} px"))
    return out


def _sizes(path: Path) -> list[tuple[int, int]]:
    return sorted({frame_size(f) for f in frame_files(path)}) if kind(path) == "frames" else [frame_size(path)]


def _text(sizes: list[tuple[int, int]]) -> str:
    return ", ".join(f"{w} x {h}" for w, h in sizes)


def _parallel(function: Callable, items: list, workers: int) -> list:
    with ThreadPoolExecutor(max(1, workers)) as pool:       # decoders release Python's lock
        return list(tqdm(pool.map(function, items), total=len(items), desc="auditing", unit="file", disable=None))
