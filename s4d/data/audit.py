"""What is wrong with a dataset on disk: files against lists, lists against published counts, pictures against each other."""
from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from ..emotions import LabelError
from .datasets import DatasetError, index, stamps
from .datasets import find as find_dataset
from .datasets.lists import emotion_in
from .datasets.tables import cache_home, files, folders, read_csv
from .media import IMAGES, VIDEOS, MediaError, frame_files, frame_size, header, kind, natural, read_clip

MIN_FRAMES = 4        # a shorter clip shows no course of an expression
FORMAT = 1            # of the remembered results; raised whenever a check changes
KINDS = {"list": "a list cannot be read", "counts": "a count differs from the published one",
         "label": "a list's label contradicts the folder's name",
         "twice": "a sample is listed twice", "folds": "a sample is not in exactly one test fold", "subject": "a person is in two splits",
         "missing": "a listed file is not there", "empty": "a file or folder holds nothing", "unreadable": "a file cannot be decoded",
         "short": f"a clip has fewer than {MIN_FRAMES} frames", "gap": "a frame folder lacks a number",
         "sizes": "frames of one clip differ in size",
         "size": "a picture is not as large as most", "rate": "a clip has other frames per second than most",
         "duplicate": "equal bytes in two splits, or under two labels", "unlisted": "a file is in no list",
         "subjects": "subjects.csv names no sample"}


class Seen(NamedTuple):
    """What is known of one sample after reading it."""

    kind: str = ""                            # of the problem, or ""
    problem: str = ""
    frames: int = 0
    size: tuple[int, int] | None = None       # width and height in px
    rate: float | None = None                 # frames per second
    digest: str | None = None                 # of the bytes, where another sample has as many


def audit(name: str, root: str | Path, fold: int | None = None, workers: int = 1, order: str | None = None,
          published: bool = True) -> pd.DataFrame:
    """Reads every file of a dataset and checks its lists.

    Args:
        name: key of the registry of datasets.
        root: the dataset's folder.
        fold: one fold; None checks all.
        workers: decoding threads.
        order: of the lists' integers, where the lists do not tell.
        published: compare the numbers of samples with the published ones; never done for procedural faces.
    Returns:
        table (kind, path, problem), empty when clean; the kinds are the keys of KINDS.
    Raises:
        DatasetError, LabelError: when the dataset cannot be indexed at all.
    """
    return examine(name, root, fold, workers, order, published)[0]


def examine(name: str, root: str | Path, fold: int | None = None, workers: int = 1, order: str | None = None,
            published: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As `audit`, and the table of samples by fold, split and label: fold, split, label, found, published (missing where unknown)."""
    module, root = find_dataset(name, root), Path(root)
    problems, tables = _indexed(name, module, root, fold, order)
    known = _published(module, root, next(iter(tables.values()))) if published else {}
    numbers = pd.concat([_numbers(table, k, known) for k, table in tables.items()], ignore_index=True)
    problems += [("counts", f"{f'fold {row.fold} ' if row.fold else ''}{row.split or 'all'}",
                  f"{row.found} samples{f' of {row.label}' if row.label else ''}, where {row.published} are published")
                 for row in numbers.itertuples() if row.published is not None and row.found != row.published]
    for k, table in tables.items():
        problems += _lists(table, f" of fold {k}" if k else "")
    if fold is None and len(tables) > 1:
        problems += _test_folds(tables)
    everything = pd.concat(tables.values(), ignore_index=True)
    paths = sorted(set(everything["path"]))
    if fold is None and len(paths) != getattr(module, "LISTED", len(paths)):
        problems += _unlisted(root, set(paths))
    seen = dict(zip(paths, list(_read(root, paths, workers))))
    problems += _subjects(root, set(paths)) + _media(seen, module.KIND) + _duplicates(seen, everything)
    return pd.DataFrame(problems, columns=["kind", "path", "problem"]), numbers


def _indexed(name: str, module, root: Path, fold: int | None, order: str | None) -> tuple[list, dict]:
    """Problems of the lists, and the index table of each fold that can be read."""
    problems, tables = [], {}
    for k in [fold] if fold is not None or not module.FOLDS else module.FOLDS:
        try:
            tables[k] = index(name, root, fold=k, order=order)
        except (DatasetError, LabelError) as error:
            problems.append(("list", f"fold {k}", str(error)))
            last = error
    if not tables:
        raise last
    return problems, tables


def _published(module, root: Path, table: pd.DataFrame) -> dict:
    """{(fold, split): number or {emotion: number}}; nothing for procedural faces, which only borrow the layouts."""
    if (root.parent / "corpus.json").is_file():
        return {}
    return module.published(root, table) if hasattr(module, "published") else module.PUBLISHED


def _numbers(table: pd.DataFrame, fold: int | None, known: dict) -> pd.DataFrame:
    """Samples by split and label, with sums over labels (label None) and, where a total is published, over splits."""
    rows = []
    for split in sorted(table["split"].unique()):
        here, wanted = table[table["split"] == split], known.get((fold, split))
        labels = here["label"].value_counts().to_dict()
        each = wanted if isinstance(wanted, dict) else {}
        rows += [(fold, split, label, labels.get(label, 0), each.get(label)) for label in sorted({*labels, *each})]
        rows.append((fold, split, None, len(here), None if isinstance(wanted, dict) else wanted))
    if (None, None) in known:
        rows.append((fold, None, None, len(table), known[None, None]))
    return pd.DataFrame(rows, columns=["fold", "split", "label", "found", "published"], dtype=object)


def _lists(table: pd.DataFrame, where: str) -> list[tuple[str, str, str]]:
    """Samples listed more than once or against their folder's name, and subjects in more than one split."""
    out = []
    repeated = table[table["path"].duplicated(keep=False)]
    for path, rows in repeated.groupby("path"):
        parts = ", ".join(f"{s} as {l}" for s, l in zip(rows["split"], rows["label"]))
        out.append(("twice", path, f"it is listed {len(rows)} times{where}: {parts}"))
    for path, label in zip(table["path"], table["label"]):
        told = emotion_in(path) if isinstance(label, str) else None
        if told is not None and told != label:
            out.append(("label", path, f"it is listed as {label}{where}, but its folder is named after {told}"))
    known = table[table["subject"].notna()]
    for subject, rows in known.groupby("subject"):
        splits = sorted(rows["split"].unique())
        if len(splits) > 1:
            out.append(("subject", rows["path"].iloc[0], f"its subject {subject} is in {' and '.join(splits)}{where}"))
    return out


def _test_folds(tables: dict[int, pd.DataFrame]) -> list[tuple[str, str, str]]:
    """Samples that are not in exactly one test fold."""
    found = {path: [] for table in tables.values() for path in table["path"]}
    for k, table in tables.items():
        for path in set(table.loc[table["split"] == "test", "path"]):
            found[path].append(k)
    return [("folds", path, f"it is in {'no test fold' if not of else 'test folds ' + ', '.join(map(str, of))}: expected exactly one")
            for path, of in sorted(found.items()) if len(of) != 1]


def _unlisted(root: Path, listed: set[str]) -> list[tuple[str, str, str]]:
    """Files and frame folders beside listed ones that no list names; pictures beside pictures, clips beside clips."""
    out, known = [], {}
    for path in listed:
        known.setdefault(path.rpartition("/")[0], set()).add(os.path.splitext(path)[1].lower())
    for folder, like in sorted(known.items()):
        there = files(root / folder, IMAGES if like & IMAGES else VIDEOS)
        there += [] if like & IMAGES else [f.name for f in folders(root / folder)]
        found = (f"{folder}/{n}" if folder else n for n in there)
        out += [("unlisted", p, "it is on disk but in no list") for p in sorted(found) if p not in listed]
    return out


def _subjects(root: Path, paths: set[str]) -> list[tuple[str, str, str]]:
    path = root / "subjects.csv"
    if not path.is_file():
        return []
    listed = read_csv(path, ("path", "subject"))["path"]
    return [("subjects", p, "it is in subjects.csv but not in the dataset") for p in sorted(set(listed) - paths)]


def _media(seen: dict[str, Seen], what: str) -> list[tuple[str, str, str]]:
    """Problems of the files themselves, and of those unlike the others; where sizes or rates vary freely none is wrong."""
    sizes, rates = (Counter(getattr(s, field) for s in seen.values() if getattr(s, field)) for field in ("size", "rate"))
    size, rate = (next((v for v, n in c.most_common(1) if 2 * n > len(seen)), None) for c in (sizes, rates))
    out = []
    for path, s in seen.items():
        if s.kind:
            out.append((s.kind, path, s.problem))
        elif what == "video" and s.frames < MIN_FRAMES:
            out.append(("short", path, f"it has {s.frames} frame(s), fewer than {MIN_FRAMES}"))
        if size and s.size and s.size != size:
            out.append(("size", path, f"it is {_text([s.size])} px, while most are {_text([size])} px"))
        if rate and s.rate and s.rate != rate:
            out.append(("rate", path, f"it has {s.rate:g} frames a second, while most have {rate:g}"))
    return out


def _duplicates(seen: dict[str, Seen], table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Samples with equal bytes that are in different splits of a fold or have different labels."""
    times = Counter(s.digest for s in seen.values() if s.digest)
    digest = table["path"].map({path: s.digest for path, s in seen.items() if times[s.digest] > 1})
    out = []
    for _, rows in table[digest.notna()].groupby(digest.dropna()):
        splits = rows.groupby(rows["fold"].fillna(0))["split"].nunique().max()
        first = rows.drop_duplicates("path").sort_values("path")
        if len(first) > 1 and (splits > 1 or rows["label"].nunique() > 1):
            parts = ", ".join(f"{p} ({s}{f', {l}' if isinstance(l, str) else ''})"
                              for p, s, l in zip(first["path"], first["split"], first["label"]))
            out.append(("duplicate", first["path"].iloc[0], f"equal bytes under {len(first)} names: {parts}"))
    return out


def _read(root: Path, paths: list[str], workers: int) -> Iterator[Seen]:
    """What is in each file, in order. Sound ones are remembered beside the dataset, so that an audit goes on where it was stopped."""
    stamp = dict(zip(paths, stamps(paths, root)))
    alike = Counter(size for size, _ in stamp.values())
    known, store = _remembered(root)

    def look(path: str) -> tuple[Seen, bool]:
        wanted = alike[stamp[path][0]] > 1
        kept = known.get(path)
        if kept and kept[0] == list(stamp[path]) and (kept[1].digest or not wanted):
            return kept[1], False
        return check(root / path, stamp[path][0], wanted), True

    step = 64 * max(1, workers)
    bar = tqdm(total=len(paths), desc="auditing", unit="file", disable=None)
    with ThreadPoolExecutor(max(1, workers)) as pool:       # decoders release Python's lock
        for start in range(0, len(paths), step):
            part = paths[start:start + step]
            results = list(pool.map(look, part))
            fresh = [json.dumps([path, stamp[path], seen]) for path, (seen, new) in zip(part, results) if new and not seen.kind]
            if fresh and store is not None:
                with open(store, "a", encoding="utf-8") as out:
                    out.write("\n".join(["", *fresh, ""]))      # the last line of a stopped audit may lack its end
            bar.update(len(part))
            yield from (seen for seen, _ in results)
    bar.close()


def _remembered(root: Path) -> tuple[dict, Path | None]:
    """Results of earlier audits, {path: (stamp, Seen)}, and the file that keeps them; a damaged line is read again."""
    try:
        store = cache_home(root) / f"audit-{FORMAT}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.jsonl"
    except DatasetError:
        return {}, None
    known = {}
    for line in store.read_text(encoding="utf-8", errors="replace").splitlines() if store.is_file() else []:
        try:
            path, stamp, values = json.loads(line)
            seen = Seen(*values)
            known[path] = stamp, seen._replace(size=tuple(seen.size) if seen.size else None)
        except (ValueError, TypeError):
            continue
    return known, store


def check(path: Path, size: int, digest: bool = False) -> Seen:
    """Decodes one sample in full, at a small size.

    Args:
        size: bytes on disk, -1 where the file is missing.
        digest: whether its bytes are to be compared with others'.
    """
    if size <= 0:
        return Seen("missing", "it is listed but not on disk") if size < 0 else Seen("empty", "it is empty: copy or extract it again")
    try:
        folder = kind(path) == "frames"
        frames, sizes = len(read_clip(path, size=32)), _sizes(path)
        if len(sizes) > 1:
            return Seen("sizes", f"its frames differ in size: {_text(sizes)}", frames)
        lacking = _gap(path) if folder else None
        if lacking:
            return Seen("gap", lacking, frames, sizes[0])
        return Seen("", "", frames, sizes[0], None if folder else header(path)[2], _digest(path) if digest else None)
    except MediaError as error:
        inside = f"frame {error.path.name}: " if error.path != path else ""
        return Seen("unreadable", f"it cannot be read: {inside}{error.cause}")
    except OSError as error:
        return Seen("unreadable", f"it cannot be read: {error.strerror}")


def _gap(folder: Path) -> str | None:
    """The first number that a folder of numbered frames leaves out, or None; any even step is no gap."""
    numbers = [next((n for n, _ in reversed(natural(f.stem)[0]) if n >= 0), None) for f in frame_files(folder)]
    if None in numbers or len(numbers) < 3:
        return None
    steps = Counter(b - a for a, b in zip(numbers, numbers[1:]))
    step = steps.most_common(1)[0][0]
    odd = next(((a, b) for a, b in zip(numbers, numbers[1:]) if b - a != step), None)
    return odd and f"between frames {odd[0]} and {odd[1]} there are none, while others are {step} apart: extract the clip again"


def _digest(path: Path) -> str:
    """Sixteen hex digits of a file's bytes, or of a folder's frames in order."""
    digest = hashlib.sha256()
    for file in frame_files(path) if path.is_dir() else [path]:
        with open(file, "rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def _sizes(path: Path) -> list[tuple[int, int]]:
    return sorted({frame_size(f) for f in frame_files(path)}) if kind(path) == "frames" else [frame_size(path)]


def _text(sizes: list[tuple[int, int]]) -> str:
    return ", ".join(f"{w} x {h}" for w, h in sizes)
