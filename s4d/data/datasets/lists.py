"""Label lists: their text, the files that they name, and the order that their integers are in."""
from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...emotions import ORDERS, LabelError, by_index, canonical
from ..media import IMAGES, VIDEOS
from .tables import DatasetError, files, folders

NAME_COLUMNS = ("video_name", "path", "image", "image_path", "file", "filename", "name", "clip", "subdirectory_filepath")
LABEL_COLUMNS = ("label", "labels", "id", "expression", "emotion", "class")
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
FIT, APART = 0.1, 0.2      # of class shares (sum of differences): largest distance of a match, least one of the next best order


class Entry(NamedTuple):
    """One line of a list."""

    name: str      # of the file or folder, as listed, made safe
    label: str     # as listed
    where: str     # file and line, for errors


def read_text(path: Path) -> str:
    """A text file in UTF-8 (with or without a byte-order mark), UTF-16 with one, or GBK.

    Raises:
        DatasetError: for a file that cannot be opened or is none of these.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"list {path} cannot be read ({error.strerror}): copy it again") from error
    for code in ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "gb18030"):
        try:
            text = raw.decode(code)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DatasetError(f"list {path} cannot be read: it is no text in UTF-8, UTF-16 or GBK; copy it again")


def read_list(path: Path) -> list[Entry]:
    """The entries of a list, with or without a header, separated by commas, tabs or blanks; a name may hold blanks.

    Raises:
        DatasetError: for a list without entries or columns, and for a name that is no safe path below the dataset.
        LabelError: for an entry without a label.
    """
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    first = next((line for line in lines if line.strip()), "")
    head = [c.strip().strip('"').lower() for c in re.split(r"[,;\t]" if re.search(r"[,;\t]", first) else r"\s+", first)]
    fields = _table(path, lines, head) if set(head) & set(NAME_COLUMNS) and len(head) > 1 else _lines(path, lines)
    out = []
    for number, name, label in fields:
        where = f"{path}, line {number}"
        if not label:
            raise LabelError(f"no label for {name!r} in {where}: expected `name label` or `name,label`")
        out.append(Entry(safe(name, where), label, where))
    if not out:
        raise DatasetError(f"list {path} holds no entries: copy it again")
    return out


def _table(path: Path, lines: list[str], head: list[str]) -> Iterable[tuple[int, str, str]]:
    """(line, name, label) below a header."""
    columns = []
    for what, allowed in (("name", NAME_COLUMNS), ("label", LABEL_COLUMNS)):
        column = next((c for c in allowed if c in head), None)
        if column is None:
            raise DatasetError(f"list {path} has no column for the {what}: expected one of {', '.join(allowed)}, found {', '.join(head)}")
        columns.append(head.index(column))
    start = next(i for i, line in enumerate(lines) if line.strip())
    separator = next((s for s in ",;\t" if s in lines[start]), " ")
    rows = csv.reader((line + "\n" for line in lines[start + 1:]), delimiter=separator, skipinitialspace=True)
    for row in rows:
        if any(field.strip() for field in row):
            yield start + 1 + rows.line_num, *((row[c].strip(" \t") if c < len(row) else "") for c in columns)


def _lines(path: Path, lines: list[str]) -> Iterable[tuple[int, str, str]]:
    """(line, name, label) of lines without a header; a first line that names no file (`image,label`) is left out."""
    for number, line in enumerate(lines, 1):
        line = line.strip(" \t")
        if not line:
            continue
        if line.count('"') % 2:
            raise DatasetError(f"list {path}, line {number} opens a quote and does not close it: a path with a line break is refused")
        match = re.fullmatch(r'(.+?)[,;\s]+"?([^,;\s"]+)"?', line)
        yield (number, match[1].strip('"'), match[2]) if match else (number, line.strip('"'), "")


def safe(name: str, where: str) -> str:
    """A listed name as a path below the dataset's folder, with forward slashes.

    Raises:
        DatasetError: for a name that is empty, absolute, leaves the folder or holds control characters such as line breaks.
    """
    path = name.replace("\\", "/")
    if CONTROL.search(path):
        raise DatasetError(f"{name!r} in {where} holds a line break or another control character: write each path on one line")
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path):
        raise DatasetError(f"{name!r} in {where} is an absolute path: make it relative to the dataset's folder")
    parts = [p for p in path.split("/") if p not in ("", ".")]
    if ".." in parts:
        raise DatasetError(f"{name!r} in {where} leaves the dataset's folder by '..': make it relative to that folder")
    if not parts:
        raise DatasetError(f"{name!r} in {where} names no file: remove the line")
    return "/".join(parts)


def fold_lists(root: Path, patterns: tuple[tuple[str, int], ...], fold: int | None, name: str, layout: str) -> tuple[dict[str, Path], int]:
    """The lists of the first layout that is there, by split, and the integer of the first class in that layout.

    Args:
        patterns: (path with {split}, {Split} and {fold}, first integer).
    Raises:
        DatasetError: when no layout is there, or one with a single list.
    """
    what = f"fold {fold}" if fold else "train and test"
    for pattern, base in patterns:
        found = {s: root / pattern.format(split=s, fold=fold) for s in ("train", "test")}
        there = [s for s, p in found.items() if p.is_file()]
        if len(there) == 2:
            return found, base
        if there:
            missing = found["test" if there == ["train"] else "train"]
            raise DatasetError(f"{name} {what} has {found[there[0]].name} but no {missing}: copy the list of the same release")
    raise DatasetError(f"{name} in {root} has no lists of {what}: expected {layout}")


class Files:
    """Finds listed samples on disk: with another extension, without leading zeros, in another Unicode form; a folder is listed once.

    Args:
        root: the dataset's folder.
        bases: folders below it that names are relative to, the preferred first.
        suffixes: of the files.
        frames: whether folders of frames count as samples; then the first base that holds anything is the only one, since
            aligned frames and whole scenes must not be mixed.
        variants: forms of a name's stem, the preferred first.
    """

    def __init__(self, root: Path, bases: Iterable[str], suffixes: set[str], frames: bool = False, variants: tuple[str, ...] = ("{}",)):
        self.root, self.suffixes, self.frames, self.variants, self.listed = root, suffixes, frames, variants, {}
        self.bases = [f"{b}/" if b else "" for b in bases if (root / b).is_dir()]
        if frames:
            self.bases = [b for b in self.bases if self.inside(b.rstrip("/"))[0]][:1]

    def inside(self, folder: str) -> tuple[dict[str, str], dict[str, str]]:
        """Entries of a folder by name (NFC) and by key."""
        if folder not in self.listed:
            entries = [f.name for f in folders(self.root / folder)] if self.frames else []
            entries += files(self.root / folder, self.suffixes)
            names, keys = {}, {}
            for entry in entries:
                names[unicodedata.normalize("NFC", entry)] = entry
                keys.setdefault(key(entry), entry)
            self.listed[folder] = names, keys
        return self.listed[folder]

    def find(self, name: str) -> str:
        """Path below root of a listed name; where nothing fits, the path at which it is expected, which auditing reports as missing."""
        name = unicodedata.normalize("NFC", name)
        for base in self.bases or [""]:
            folder, _, leaf = f"{base}{name}".rpartition("/")
            names, keys = self.inside(folder)
            stem, suffix = split_suffix(leaf)
            for variant in self.variants:
                found = names.get(variant.format(stem) + suffix) or keys.get(key(variant.format(stem)))
                if found:
                    return f"{folder}/{found}" if folder else found
        return self.expected(name)

    def expected(self, name: str) -> str:
        """Where a missing sample would lie, named as its neighbours are."""
        folder, _, leaf = f"{(self.bases or [''])[0]}{name}".rpartition("/")
        neighbour = next(iter(self.inside(folder)[0].values()), None) if self.frames else None
        if neighbour is not None:
            (stem, _), (like, suffix) = split_suffix(leaf), split_suffix(neighbour)
            leaf = (stem.zfill(len(like)) if stem.isdigit() and like.isdigit() else stem) + suffix
        return f"{folder}/{leaf}" if folder else leaf


def split_suffix(name: str) -> tuple[str, str]:
    """Stem and extension; only the extensions of media count, so that `a.1` stays whole."""
    stem, suffix = os.path.splitext(name)
    return (stem, suffix) if suffix.lower() in IMAGES | VIDEOS else (name, "")


def key(name: str) -> str:
    """What equal samples share: the stem, without leading zeros where it is a number."""
    stem = unicodedata.normalize("NFC", split_suffix(name)[0])
    return (stem.lstrip("0") or "0") if stem.isdigit() else stem


def labels_of(entries: list[Entry], orders: tuple[str, ...], classes: int, base: int = 0, counts: dict[str, int] | None = None,
              order: str | None = None, sample: list[Entry] | None = None) -> list[str]:
    """Emotion names of a list's entries; a label written as a name is taken at its word.

    Args:
        entries: of all splits, labelled by names or by integers.
        orders: keys of ORDERS that integers may be in.
        classes: size of the vocabulary that names must belong to.
        base: integer of the first class where the integers do not tell (0 occurs, or the number of classes does).
        counts: published number of samples by emotion, to tell the order from.
        order: the order's name, where it is known.
        sample: the entries that `counts` is about; all when left out.
    Raises:
        LabelError: for a label outside the vocabulary, or integers that fit no order.
        DatasetError: for an unknown order, and when nothing tells which order the integers are in.
    """
    if order is not None and order not in orders:
        raise DatasetError(f"unknown label order {order!r}: choose {', '.join(orders) or 'none, this dataset names its emotions'}")
    integers = [e for e in entries if orders and re.fullmatch(r"\d{1,3}", e.label)]
    if integers:
        numbers, size = [int(e.label) for e in integers], len(ORDERS[orders[0]])
        base = 0 if min(numbers) == 0 else 1 if max(numbers) == size else base
        if order is None and base <= min(numbers) and max(numbers) < base + size:
            counted = [e for e in sample or integers if e.label.isdigit()]
            order = (orders[0] if len(orders) == 1
                     else told_by_folders(integers, orders, base) or told_by_counts(counted, orders, base, counts))
    known = set(integers)
    return [by_index(int(e.label), order or orders[0], base, e.where) if e in known else canonical(e.label, classes, e.where)
            for e in entries]


def emotion_in(path: str) -> str | None:
    """The emotion that one of a path's folders is named after, or None."""
    return _emotion_of(path.rpartition("/")[0])


@lru_cache(maxsize=4096)
def _emotion_of(folder: str) -> str | None:
    for part in reversed(folder.split("/")):
        try:
            return canonical(part)
        except LabelError:
            continue
    return None


def told_by_folders(entries: list[Entry], orders: tuple[str, ...], base: int) -> str | None:
    """The order in which the integers agree with folders named after emotions; None without such folders.

    Raises:
        LabelError: when no order agrees with nine entries in ten.
    """
    named = [(int(e.label) - base, emotion_in(e.name), e.where) for e in entries]
    if any(emotion is None for _, emotion, _ in named):
        return None
    agree = {o: sum(ORDERS[o][n] == emotion for n, emotion, _ in named) for o in orders}
    best = max(agree, key=agree.get)
    if agree[best] < 0.9 * len(named):
        raise LabelError(f"the integers of {entries[0].where.rpartition(',')[0]} fit the folders' emotions in no known order (at best "
                         f"{best}, in {agree[best]} of {len(named)} entries): copy the list again, or give order, one of "
                         f"{', '.join(orders)}")
    return best


def told_by_counts(entries: list[Entry], orders: tuple[str, ...], base: int, counts: dict[str, int] | None) -> str:
    """The one order in which the classes have the published shares.

    Raises:
        DatasetError: when none or several orders fit.
    """
    found = Counter(int(e.label) - base for e in entries)
    share = np.array([found[k] for k in range(len(ORDERS[orders[0]]))]) / len(entries)
    distance = {o: np.abs(share - np.array([counts[e] for e in ORDERS[o]]) / sum(counts.values())).sum() for o in orders}
    best, second = sorted(orders, key=distance.get)[:2]
    if distance[best] > FIT or distance[second] < APART:
        raise DatasetError(f"{entries[0].where.rpartition(',')[0]} labels by integers whose order its class counts do not tell ("
                           + ", ".join(f"{found[k]} of {k + base}" for k in range(len(share)))
                           + f"): give order, one of {', '.join(orders)}")
    return best


def class_folders(root: Path, suffixes: set[str], read: Callable[[list[Entry]], list[str]]) -> list[tuple]:
    """(path, label, None, split) of files in train/happiness/, val/1/ and so on.

    Args:
        read: entries -> emotion names; an entry's label is the folder's name.
    """
    out = []
    for part in folders(root):
        groups = folders(part) if part.name.lower() in SPLITS else []
        labels = read([Entry(g.name, g.name, str(part)) for g in groups]) if groups else []
        out += [(f"{part.name}/{group.name}/{name}", label, None, SPLITS[part.name.lower()])
                for group, label in zip(groups, labels) for name in files(group, suffixes)]
    return out


def listed_rows(root: Path, name: str, found: dict[str, Path], media: Files, layout: str, **reading) -> list[tuple]:
    """(path, label, None, split) of a dataset with one list a split.

    Args:
        found: list of each split.
        reading: orders, classes, base, counts (of the training list) and order, as `labels_of` takes them.
    Raises:
        DatasetError: when there is no sample on disk.
    """
    if not media.bases:
        raise DatasetError(f"{name} in {root} holds no clips: expected {layout}")
    entries = {split: read_list(path) for split, path in found.items()}
    everything = [e for part in entries.values() for e in part]
    labels = iter(labels_of(everything, sample=entries["train"], **reading))
    return [(media.find(e.name), next(labels), None, split) for split, part in entries.items() for e in part]
