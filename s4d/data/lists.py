"""What datasets are made of: folders, label lists, listed files, the order of integer labels."""
import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..emotions import ORDERS, LabelError, by_index, canonical
from .media import IMAGES, VIDEOS, DatasetError, files, folders

# Headers of the two columns that are read, the preferred first
NAMES = ("video_name", "path", "image", "image_path", "file", "filename", "name", "clip",
         "subdirectory_filepath")
LABELS = ("label", "labels", "id", "expression", "emotion", "class")
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val",
          "validation": "val", "test": "test"}
FIT, APART = 0.1, 0.2      # of class shares (sum of differences): of a match, to the next order

# {(list or folder, what was read otherwise than it is written): lines}, for an audit to show
notes: Counter[tuple[str, str]] = Counter()


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
    # {(fold, split): samples, or {emotion: samples}}; a split None is the whole
    published: dict = field(default_factory=dict)


def subjects_of(root: Path) -> dict[str, str]:
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


class Entry(NamedTuple):
    """One line of a list."""

    name: str      # of the file or folder, as listed, made safe
    label: str     # as listed
    where: str     # file and line, for errors

    @property
    def number(self) -> int | None:
        return int(self.label) if re.fullmatch(r"\d{1,3}", self.label) else None


def read_list(path: Path) -> list[Entry]:
    """The entries of a list, with or without a header, separated by commas, tabs or blanks.

    A name may hold blanks. A label such as 1.0 is 1: pandas writes it so beside a missing value.
    """
    lines = re.split(r"\r\n|\r|\n", _text(path))
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    first, columns, out = numbered[0][1] if numbered else "", [], []
    separator = next((s for s in ",;\t" if s in first), " ")
    parts = first.split(separator if separator != " " else None)
    head = [c.strip(' \t"').lower() for c in parts]
    if len(head) > 1 and set(head) & set(NAMES):
        columns = [next((head.index(c) for c in allowed if c in head), None)
                   for allowed in (NAMES, LABELS)]
        if None in columns:
            raise DatasetError(f"list {path} has no column for the label: expected one of "
                               f"{', '.join(LABELS)}, found {', '.join(head)}")
    for number, line in numbered[1:] if columns else numbered:
        where = f"{path}, line {number}"
        if columns:
            line = line if separator == "\t" else line.strip()
            row = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
            name, label = (row[c].strip(" \t") if c < len(row) else "" for c in columns)
        else:
            match = re.fullmatch(r'(.+?)[,;\s]+"?([^,;\s"]+)"?', line.strip())
            name, label = match.groups() if match else (line.strip(), "")
        if not label:
            raise LabelError(f"no label for {name!r} in {where}: give `name label` or `name,label`")
        if re.fullmatch(r"\d+\.0+", label):
            label = label.partition(".")[0]
            notes[str(path), "a label written as a float, such as 1.0, is read as an integer"] += 1
        listed = name.strip('"').replace("\\", "/")        # a path below the dataset's folder
        parts = [p for p in listed.split("/") if p not in ("", ".")]
        faults = {"is an absolute path": re.match("[/~]|[A-Za-z]:", listed),
                  "leaves the dataset's folder by '..'": ".." in parts, "names no file": not parts}
        for fault in (fault for fault, there in faults.items() if there):
            raise DatasetError(f"{name!r} in {where} {fault}: give a path below the dataset folder")
        out.append(Entry("/".join(parts), label, where))
    if not out:
        raise DatasetError(f"list {path} holds no entries: copy it again")
    return out


def _text(path: Path) -> str:
    """UTF-8, with or without a byte-order mark, UTF-16 with one, or GBK."""
    raw = path.read_bytes()
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    for code in ("utf-16",) if wide else ("utf-8-sig", "gb18030"):
        try:
            text = raw.decode(code)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DatasetError(f"list {path} is no text in UTF-8, UTF-16 or GBK: copy it again")


class Files:
    """Find listed samples on disk: with another extension, without leading zeros, in another
    Unicode form, with or without `_aligned` or the folder that holds them all.

    `bases` are the folders that names are relative to, the preferred first. Where folders of
    `frames` count as samples, the first base that holds anything is the only one, since aligned
    frames and whole scenes must not be mixed.
    """

    def __init__(self, root: Path, bases: list[str], suffixes: set[str], frames: bool = False):
        self.root, self.suffixes, self.frames, self.listed = root, suffixes, frames, {}
        parts = [b.split("/") for b in bases if b]
        repeated = {"/".join(p[i:]) + "/" for p in parts for i in range(len(p))}
        self.repeated, self.expected = sorted(repeated, key=len, reverse=True), bases[0]
        self.bases = [b for b in bases if (root / b).is_dir()]
        if frames:
            self.bases = [b for b in self.bases if self.inside(b)][:1]

    def inside(self, folder: str) -> dict[str, str]:
        """Entries of a folder by name and, where no name is in the way, by what samples share."""
        if folder not in self.listed:
            entries = [f.name for f in folders(self.root / folder)] if self.frames else []
            entries += files(self.root / folder, self.suffixes)
            shared = {_key(entry): entry for entry in reversed(entries)}
            self.listed[folder] = shared | {unicodedata.normalize("NFC", e): e for e in entries}
        return self.listed[folder]

    def find(self, name: str) -> str:
        """Path below root of a listed name, or where it is expected, which an audit reports."""
        name = unicodedata.normalize("NFC", name)
        prefix = next((p for p in self.repeated if name.startswith(p)), "")
        for wanted in dict.fromkeys((name, name.removeprefix(prefix))):
            if wanted != name:
                notes[prefix, "a name that repeats this folder is read without it"] += 1
            for base in self.bases:
                folder, _, leaf = f"{base}/{wanted}".lstrip("/").rpartition("/")
                inside = self.inside(folder)
                found = inside.get(leaf) or inside.get(_key(leaf))
                if found:
                    return f"{folder}/{found}".lstrip("/")
        return f"{(self.bases or [self.expected])[0]}/{wanted}".lstrip("/")


def _key(name: str) -> str:
    """What names of one sample share: the stem, without zeros in front where it is a number."""
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", name))
    if suffix.lower() not in IMAGES | VIDEOS:      # `a.1` stays whole
        stem += suffix
    stem = stem.removesuffix("_aligned")
    return (stem.lstrip("0") or "0") if stem.isdigit() else stem


def class_folders(root: Path, suffixes: set[str],
                  read: Callable[[list[Entry]], list[str]]) -> list[tuple]:
    """Rows of files in train/happiness/, val/1/ and so on; `read` gives the emotions of entries."""
    out = []
    for part in folders(root):
        groups = folders(part) if part.name.lower() in SPLITS else []
        labels = read([Entry(g.name, g.name, str(part)) for g in groups])
        for group, label in zip(groups, labels, strict=True):
            out += [(f"{part.name}/{group.name}/{name}", label, None, SPLITS[part.name.lower()])
                    for name in files(group, suffixes)]
    return out


def labels_of(entries: list[Entry], orders: tuple[str, ...], base: int = 0,
              counts: dict[str, int] | None = None, label_order: str | None = None,
              sample: list[Entry] | None = None) -> list[str]:
    """Emotion names of a list's entries; a label written as a name is taken at its word.

    Args:
        orders: keys of ORDERS that integers may be in; `label_order` is the one, where known.
        base: of the integers where they do not tell: 0 occurs, or the number of classes does.
        counts: published samples by emotion of the entries in `sample`, which tell the order.
    """
    if label_order not in (None, *orders):
        raise DatasetError(f"unknown label order {label_order!r}: choose {', '.join(orders)}")
    numbered = [e for e in entries if e.number is not None]
    order, size = label_order or orders[0], len(ORDERS[orders[0]])
    if numbered:
        least, most = min(e.number for e in numbered), max(e.number for e in numbered)
        if least == 0:
            base = 0
        elif most == size:
            base = 1
        if label_order is None and len(orders) > 1 and base <= least and most < base + size:
            order = (_told_by_folders(numbered, orders, base)
                     or _told_by_counts(sample, orders, base, counts))
    return [canonical(e.label, size, e.where) if e.number is None
            else by_index(e.number, order, base, e.where) for e in entries]


def _told_by_folders(entries: list[Entry], orders: tuple[str, ...], base: int) -> str | None:
    """The order in which nine of ten integers agree with folders named after emotions, if any."""
    try:
        named = [(e.number - base, canonical(e.name.split("/")[-2])) for e in entries]
    except (IndexError, LabelError):      # in no folder, or in one named otherwise
        return None
    agree = {o: sum(ORDERS[o][n] == emotion for n, emotion in named) for o in orders}
    best = max(agree, key=agree.get)
    if agree[best] < 0.9 * len(named):
        raise LabelError(f"the integers of {entries[0].where.rpartition(',')[0]} fit the folders' "
                         f"emotions in no known order (at best {best}, in {agree[best]} of "
                         f"{len(named)} entries): copy the list again, or give label_order, one of "
                         f"{', '.join(orders)}")
    return best


def _told_by_counts(entries: list[Entry], orders: tuple[str, ...], base: int,
                    counts: dict[str, int]) -> str:
    """The one order in which the classes have the published shares."""
    found = Counter(e.number - base for e in entries if e.number is not None)
    share = np.array([found[k] for k in range(len(counts))]) / max(1, found.total())
    published = {o: np.array([counts[e] for e in ORDERS[o]]) / sum(counts.values()) for o in orders}
    distance = {o: np.abs(share - published[o]).sum() for o in orders}
    best, second = sorted(orders, key=distance.get)[:2]
    if distance[best] > FIT or distance[second] < APART:
        listed = ", ".join(f"{found[k]} of {k + base}" for k in range(len(share)))
        raise DatasetError(f"{entries[0].where.rpartition(',')[0]} labels by integers whose order "
                           f"its class counts do not tell ({listed}): give label_order, one of "
                           f"{', '.join(orders)}")
    return best
