"""What is wrong with a dataset on disk: files against lists, published counts and each other."""
from __future__ import annotations

import hashlib
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..emotions import LabelError
from .corpora import find, index
from .lists import emotion_in, noting
from .media import IMAGES, VIDEOS, MediaError, frame_files, frame_size, header, natural, read_clip
from .tables import (
    Dataset,
    DatasetError,
    files,
    folders,
    in_threads,
    listed_subjects,
    stamps,
)

MIN_FRAMES = 4        # a shorter clip shows no course of an expression
EXAMPLES = 20         # problems of a kind that a report shows
KINDS = {"list": "a list cannot be read", "counts": "a count differs from the published one",
         "label": "a list's label contradicts the folder's name",
         "twice": "a sample is listed twice", "folds": "a sample is not in exactly one test fold",
         "subject": "a subject is in two splits", "missing": "a listed file is not there",
         "empty": "a file or folder holds nothing", "unreadable": "a file cannot be decoded",
         "short": f"a clip has fewer than {MIN_FRAMES} frames",
         "gap": "a frame folder lacks a number", "sizes": "frames of one clip differ in size",
         "size": "a picture is not as large as most",
         "rate": "a clip has other frames per second than most",
         "duplicate": "equal bytes in two splits, or under two labels",
         "unlisted": "a file is in no list", "subjects": "subjects.csv names no sample",
         "note": "no problem, but read otherwise than it is written"}
Problems = list[tuple[str, str, str]]      # kind, path, problem


class Seen(NamedTuple):
    """What is known of one sample after reading it."""

    kind: str = ""                            # of the problem
    problem: str = ""
    frames: int = 0
    size: tuple[int, int] | None = None       # width and height in px
    rate: float | None = None                 # frames per second
    digest: str | None = None                 # of the bytes, where another sample has as many


def audit(name: str, root: str | Path, *options, **more) -> pd.DataFrame:
    """The table of problems (kind, path, problem) that `examine` finds, empty when clean."""
    return examine(name, root, *options, **more)[0]


def examine(name: str, root: str | Path, fold: int | None = None, num_workers: int = 1,
            label_order: str | None = None,
            published: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read every file of a dataset and check its lists.

    Args:
        fold: one fold; None checks all.
        published: compare with the published counts; never done for procedural faces.
    Returns:
        table (kind, path, problem) whose kinds are the keys of KINDS; table of samples: fold,
        split, label, found, published (where known).
    """
    dataset, root = find(name, root), Path(root)
    tables, problems, last = {}, [], None
    with noting() as notes:
        for k in [fold] if fold is not None or not dataset.folds else dataset.folds:
            try:
                tables[k] = index(name, root, k, label_order=label_order)
            except (DatasetError, LabelError) as error:
                problems.append(("list", f"fold {k}", str(error)))
                last = error
    if not tables:
        raise last
    problems += [("note", examples[0], f"{what} ({len(set(examples))} entries)")
                 for what, examples in notes.items()]
    counts = _counts(dataset, root, tables, published)
    for row in counts[counts["published"].notna()].itertuples():
        if row.found != row.published:
            of = f" of {row.label}" if row.label else ""
            where = f"fold {row.fold} " if row.fold else ""
            problems.append(("counts", f"{where}{row.split or 'all'}",
                             f"{row.found} samples{of}, where {row.published} are published"))
    everything = pd.concat(tables.values(), ignore_index=True)
    problems += _lists(tables) + (_test_folds(everything) if len(tables) > 1 else [])
    paths = sorted(set(everything["path"]))
    if fold is None and len(paths) != (dataset.listed or len(paths)):
        problems += _unlisted(root, set(paths))
    problems += [("subjects", path, "it is in subjects.csv but not in the dataset")
                 for path in sorted(set(listed_subjects(root)) - set(paths))]
    sizes = [size for size, _ in stamps(paths, root)]
    alike = Counter(sizes)
    work = [(root / p, size, alike[size] > 1) for p, size in zip(paths, sizes, strict=True)]
    seen = in_threads(lambda given: check(*given), work, num_workers, "auditing")
    seen = dict(zip(paths, seen, strict=True))
    problems += _media(seen, dataset.task) + _duplicates(seen, everything)
    return pd.DataFrame(problems, columns=["kind", "path", "problem"]), counts


def report(problems: pd.DataFrame, counts: pd.DataFrame) -> str:
    """The result of `examine` as text: counts, a line a kind, and examples of each kind."""
    counts = counts.assign(label=counts["label"].fillna("all"), split=counts["split"].fillna("all"))
    shown = counts.drop(columns=[c for c in ("fold", "published") if counts[c].isna().all()])
    lines, examples = [shown.to_string(index=False, na_rep="-"), ""], []
    for what, rows in problems.groupby("kind", sort=False):
        lines.append(f"{len(rows):>8}  {what:<11} {KINDS[what]}")
        examples += ["", f"{what}:"]
        examples += [f"{r.path}: {r.problem}" for r in rows.head(EXAMPLES).itertuples()]
        if len(rows) > EXAMPLES:
            examples.append(f"... and {len(rows) - EXAMPLES} more: --csv FILE writes all")
    number = (problems["kind"] != "note").sum()
    return "\n".join([*lines, f"{number} problems" if number else "no problems", *examples])


def _counts(dataset: Dataset, root: Path, tables: dict, published: bool) -> pd.DataFrame:
    """Samples by fold, split and label; sums have no label and, over splits, no split."""
    known, rows = {}, []
    if published and not (root.parent / "corpus.json").is_file():      # procedural faces
        known = dataset.published
        if callable(known):
            known = known(root, next(iter(tables.values())))
    for fold, table in tables.items():
        for split, here in table.groupby("split"):
            wanted = known.get((fold, split))
            each = wanted if isinstance(wanted, dict) else {}
            labels = here["label"].value_counts().to_dict()
            rows += [(fold, split, label, labels.get(label, 0), each.get(label))
                     for label in sorted({*labels, *each})]
            rows.append((fold, split, None, len(here), None if each else wanted))
        if (None, None) in known:
            rows.append((fold, None, None, len(table), known[None, None]))
    columns = ["fold", "split", "label", "found", "published"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _lists(tables: dict[int | None, pd.DataFrame]) -> Problems:
    """Samples listed twice or against their folder's name, and subjects in two splits."""
    out = []
    for k, table in tables.items():
        where = f" of fold {k}" if k else ""
        for path, rows in table[table["path"].duplicated(keep=False)].groupby("path"):
            listed = ", ".join(f"{row.split} as {row.label}" for row in rows.itertuples())
            out.append(("twice", path, f"it is listed {len(rows)} times{where}: {listed}"))
        for path, label in zip(table["path"], table["label"], strict=True):
            folder = emotion_in(path.rpartition("/")[0]) if isinstance(label, str) else None
            if folder is not None and folder != label:
                out.append(("label", path, f"it is listed as {label}{where}, but its folder is "
                                           f"named after {folder}"))
        for subject, rows in table[table["subject"].notna()].groupby("subject"):
            splits = sorted(rows["split"].unique())
            if len(splits) > 1:
                out.append(("subject", rows["path"].iloc[0], f"its subject {subject} is in "
                                                             f"{' and '.join(splits)}{where}"))
    return out


def _test_folds(table: pd.DataFrame) -> Problems:
    """Samples that are not in exactly one test fold."""
    out, tested = [], table[table["split"] == "test"].groupby("path")["fold"].unique()
    for path in sorted(set(table["path"])):
        folds = ", ".join(map(str, sorted(tested.get(path, ()))))
        if not folds or "," in folds:
            where = f"test folds {folds}" if folds else "no test fold"
            out.append(("folds", path, f"it is in {where}: expected exactly one"))
    return out


def _unlisted(root: Path, listed: set[str]) -> Problems:
    """Files and frame folders beside listed ones that no list names; photos beside photos."""
    out, suffixes = [], {}
    for path in listed:
        folder, suffix = path.rpartition("/")[0], os.path.splitext(path)[1].lower()
        suffixes.setdefault(folder, set()).add(suffix)
    for folder, like in sorted(suffixes.items()):
        if like & IMAGES:
            there = files(root / folder, IMAGES)
        else:
            there = files(root / folder, VIDEOS) + [f.name for f in folders(root / folder)]
        found = sorted(f"{folder}/{name}" if folder else name for name in there)
        out += [("unlisted", p, "it is on disk but in no list") for p in found if p not in listed]
    return out


def _media(seen: dict[str, Seen], task: str) -> Problems:
    """Problems of the files, and of those unlike the others, unless sizes or rates vary freely."""
    def usual(values):
        common = Counter(v for v in values if v).most_common(1)
        return common[0][0] if common and 2 * common[0][1] > len(seen) else None
    size, rate, out = usual(s.size for s in seen.values()), usual(s.rate for s in seen.values()), []
    for path, s in seen.items():
        if s.kind:
            out.append((s.kind, path, s.problem))
        elif task == "video" and s.frames < MIN_FRAMES:
            out.append(("short", path, f"it has {s.frames} frame(s), fewer than {MIN_FRAMES}"))
        if size and s.size and s.size != size:
            out.append(("size", path, f"it is {_text(s.size)} px, while most are {_text(size)} px"))
        if rate and s.rate and s.rate != rate:
            out.append(("rate", path, f"it has {s.rate:g} frames a second, while most have "
                                      f"{rate:g}"))
    return out


def _duplicates(seen: dict[str, Seen], table: pd.DataFrame) -> Problems:
    """Samples with equal bytes that are in two splits of a fold or have two labels."""
    times, out = Counter(s.digest for s in seen.values() if s.digest), []
    digest = table["path"].map({p: s.digest for p, s in seen.items() if times[s.digest] > 1})
    for _, rows in table[digest.notna()].groupby(digest.dropna()):
        splits = rows.groupby(rows["fold"].fillna(0))["split"].nunique().max()
        first = rows.drop_duplicates("path").sort_values("path")
        if len(first) > 1 and (splits > 1 or rows["label"].nunique() > 1):
            names = [f"{r.path} ({r.split}{f', {r.label}' if isinstance(r.label, str) else ''})"
                     for r in first.itertuples()]
            out.append(("duplicate", first["path"].iloc[0],
                        f"equal bytes under {len(first)} names: {', '.join(names)}"))
    return out


def check(path: Path, size: int, digest: bool = False) -> Seen:
    """Decode one sample in full, at a small size; `digest` its bytes to compare them. Its size on
    disk is -1 where it is missing."""
    if size <= 0:
        return (Seen("empty", "it is empty: copy or extract it again") if size == 0
                else Seen("missing", "it is listed but not on disk"))
    try:
        frames = len(read_clip(path, size=32))
        images = frame_files(path) if path.is_dir() else []
        sizes = sorted({frame_size(f) for f in images or [path]})
        if len(sizes) > 1:
            return Seen("sizes", f"its frames differ in size: {', '.join(map(_text, sizes))}",
                        frames)
        lacking = _gap(images)
        if lacking:
            return Seen("gap", lacking, frames, sizes[0])
        alike = hashlib.sha256()
        for file in (images or [path]) if digest else []:
            alike.update(file.read_bytes())
        rate = None if images else header(path)[2]
        return Seen("", "", frames, sizes[0], rate, alike.hexdigest()[:16] if digest else None)
    except MediaError as error:
        inside = f"frame {error.path.name}: " if error.path != path else ""
        return Seen("unreadable", f"it cannot be read: {inside}{error.cause}")
    except OSError as error:
        return Seen("unreadable", f"it cannot be read: {error.strerror}")


def _gap(images: list[Path]) -> str | None:
    """The first number that numbered frames leave out, or None; any even step is no gap."""
    numbers = []
    for file in images:
        digits = [n for n, _ in natural(file.stem)[0] if n >= 0]
        if not digits:
            return None
        numbers.append(digits[-1])
    steps = [after - before for before, after in pairwise(numbers)]
    usual = Counter(steps).most_common(1)[0][0] if len(steps) > 1 else None
    for before, step in zip(numbers, steps, strict=False):
        if usual is not None and step != usual:
            return (f"between frames {before} and {before + step} there are none, while others are "
                    f"{usual} apart: extract the clip again")
    return None


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
