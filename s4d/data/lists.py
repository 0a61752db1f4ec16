"""Label lists: their text, and the files that they name."""
from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ..emotions import LabelError
from .labels import Entry, labels_of
from .media import IMAGES, VIDEOS
from .tables import DatasetError, files, folders

NAME_COLUMNS = ("video_name", "path", "image", "image_path", "file", "filename", "name", "clip",
                "subdirectory_filepath")
LABEL_COLUMNS = ("label", "labels", "id", "expression", "emotion", "class")
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val",
          "validation": "val", "test": "test"}
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_notes: ContextVar[dict[str, list[str]] | None] = ContextVar("notes", default=None)


@contextmanager
def noting() -> Iterator[dict[str, list[str]]]:
    """Collect what lists leave to be guessed while they are read inside: {what: examples}."""
    found: dict[str, list[str]] = {}
    token = _notes.set(found)
    try:
        yield found
    finally:
        _notes.reset(token)


def note(what: str, example: str) -> None:
    found = _notes.get()
    if found is not None:
        found.setdefault(what, []).append(example)


def read_text(path: Path) -> str:
    """A text file in UTF-8 (with or without a byte-order mark), UTF-16 with one, or GBK."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        cause = f"({error.strerror}): copy it again"
        raise DatasetError(f"list {path} cannot be read {cause}") from error
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    for code in ("utf-16",) if wide else ("utf-8-sig", "gb18030"):
        try:
            text = raw.decode(code)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DatasetError(f"list {path} cannot be read: it is no text in UTF-8, UTF-16 or GBK; copy "
                       "it again")


def read_list(path: Path) -> list[Entry]:
    """The entries of a list, with or without a header, separated by commas, tabs or blanks.

    A name may hold blanks. A label such as 1.0 is the integer 1: pandas writes it so beside a
    missing value.

    Raises:
        DatasetError: for a list without entries or columns, and for a name that is not safe.
        LabelError: for an entry without a label.
    """
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    first = next((line for line in lines if line.strip()), "")
    separator = r"[,;\t]" if re.search(r"[,;\t]", first) else r"\s+"
    head = [c.strip().strip('"').lower() for c in re.split(separator, first)]
    has_header = len(head) > 1 and set(head) & set(NAME_COLUMNS)
    out = []
    for number, name, label in _table(path, lines, head) if has_header else _lines(path, lines):
        where = f"{path}, line {number}"
        if not label:
            raise LabelError(f"no label for {name!r} in {where}: expected `name label` or "
                             "`name,label`")
        if re.fullmatch(r"\d+\.0+", label):
            label = label.partition(".")[0]
            note("a label written as a float, such as 1.0, is read as an integer", where)
        out.append(Entry(safe(name, where), label, where))
    if not out:
        raise DatasetError(f"list {path} holds no entries: copy it again")
    return out


def _table(path: Path, lines: list[str], head: list[str]) -> Iterator[tuple[int, str, str]]:
    """(line, name, label) below a header."""
    columns = []
    for what, allowed in (("name", NAME_COLUMNS), ("label", LABEL_COLUMNS)):
        column = next((c for c in allowed if c in head), None)
        if column is None:
            raise DatasetError(f"list {path} has no column for the {what}: expected one of "
                               f"{', '.join(allowed)}, found {', '.join(head)}")
        columns.append(head.index(column))
    start = next(i for i, line in enumerate(lines) if line.strip())
    separator = next((s for s in ",;\t" if s in lines[start]), " ")
    rows = csv.reader((line + "\n" for line in lines[start + 1:]), delimiter=separator,
                      skipinitialspace=True)
    for row in rows:
        if any(field.strip() for field in row):
            name, label = (row[c].strip(" \t") if c < len(row) else "" for c in columns)
            yield start + 1 + rows.line_num, name, label


def _lines(path: Path, lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """(line, name, label) of lines without a header."""
    for number, line in enumerate(lines, 1):
        line = line.strip(" \t")
        if not line:
            continue
        if line.count('"') % 2:
            raise DatasetError(f"list {path}, line {number} opens a quote and does not close it: a "
                               "path with a line break is refused")
        match = re.fullmatch(r'(.+?)[,;\s]+"?([^,;\s"]+)"?', line)
        name, label = (match[1], match[2]) if match else (line, "")
        yield number, name.strip('"'), label


def safe(name: str, where: str) -> str:
    """A listed name as a path below the dataset's folder, with forward slashes.

    Raises:
        DatasetError: for a name that is empty, absolute, leaves the folder or holds control
            characters such as line breaks.
    """
    path = name.replace("\\", "/")
    if CONTROL.search(path):
        raise DatasetError(f"{name!r} in {where} holds a line break or another control character: "
                           "write each path on one line")
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path):
        raise DatasetError(f"{name!r} in {where} is an absolute path: make it relative to the "
                           "dataset's folder")
    parts = [p for p in path.split("/") if p not in ("", ".")]
    if ".." in parts:
        raise DatasetError(f"{name!r} in {where} leaves the dataset's folder by '..': make it "
                           "relative to that folder")
    if not parts:
        raise DatasetError(f"{name!r} in {where} names no file: remove the line")
    return "/".join(parts)


def fold_lists(root: Path, patterns: tuple[tuple[str, int], ...], fold: int | None, name: str,
               layout: str) -> tuple[dict[str, Path], int]:
    """The lists of the first layout that is there, by split, and its integer of the first class.

    Args:
        patterns: (path with {split} and {fold}, first integer).
    """
    what = f"fold {fold}" if fold else "train and test"
    for pattern, base in patterns:
        found = {s: root / pattern.format(split=s, fold=fold) for s in ("train", "test")}
        there = [s for s, p in found.items() if p.is_file()]
        if len(there) == 2:
            return found, base
        if there:
            missing = found["test" if there == ["train"] else "train"]
            raise DatasetError(f"{name} {what} has {found[there[0]].name} but no {missing}: copy "
                               "the list of the same release")
    raise DatasetError(f"{name} in {root} has no lists of {what}: expected {layout}")


class Files:
    """Find listed samples on disk: with another extension, without leading zeros, in another
    Unicode form, with or without the folder that holds them all.

    Args:
        root: the dataset's folder.
        bases: folders below it that names are relative to, the preferred first.
        suffixes: of the files.
        frames: whether folders of frames count as samples; then the first base that holds anything
            is the only one, since aligned frames and whole scenes must not be mixed.
        variants: forms of a name's stem, the preferred first.
    """

    def __init__(self, root: Path, bases: Iterable[str], suffixes: set[str], frames: bool = False,
                 variants: tuple[str, ...] = ("{}",)):
        self.root, self.suffixes, self.frames, self.variants = root, suffixes, frames, variants
        self.listed: dict[str, tuple] = {}
        bases = list(bases)
        parts = [b.split("/") for b in bases if b]
        self.repeated = sorted({"/".join(p[i:]) + "/" for p in parts for i in range(len(p))},
                               key=len, reverse=True)
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
        """Path below root of a listed name, or where it is expected, which an audit reports."""
        name = unicodedata.normalize("NFC", name)
        prefix = next((p for p in self.repeated if name.startswith(p)), "")
        found = self._lookup(name)
        if found is None and prefix:
            note(f"a name that repeats the folder {prefix[:-1]} is read without it", name)
            name = name.removeprefix(prefix)
            found = self._lookup(name)
        return found or self._expected(name)

    def _lookup(self, name: str) -> str | None:
        for base in self.bases or [""]:
            folder, _, leaf = f"{base}{name}".rpartition("/")
            names, keys = self.inside(folder)
            stem, suffix = split_suffix(leaf)
            for variant in self.variants:
                wanted = variant.format(stem)
                found = names.get(wanted + suffix) or keys.get(key(wanted))
                if found:
                    return f"{folder}/{found}" if folder else found
        return None

    def _expected(self, name: str) -> str:
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


def class_folders(root: Path, suffixes: set[str],
                  read: Callable[[list[Entry]], list[str]]) -> list[tuple]:
    """(path, label, None, split) of files in train/happiness/, val/1/ and so on.

    Args:
        read: entries -> emotion names; an entry's label is the folder's name.
    """
    out = []
    for part in folders(root):
        groups = folders(part) if part.name.lower() in SPLITS else []
        labels = read([Entry(g.name, g.name, str(part)) for g in groups]) if groups else []
        for group, label in zip(groups, labels, strict=True):
            out += [(f"{part.name}/{group.name}/{name}", label, None, SPLITS[part.name.lower()])
                    for name in files(group, suffixes)]
    return out


def listed_rows(root: Path, name: str, found: dict[str, Path], media: Files, layout: str,
                **reading) -> list[tuple]:
    """(path, label, None, split) of a dataset with one list a split.

    Args:
        found: list of each split.
        reading: orders, num_classes, base, counts (of the training list) and label_order, as
            `labels_of` takes them.
    """
    if not media.bases:
        raise DatasetError(f"{name} in {root} holds no clips: expected {layout}")
    entries = {split: read_list(path) for split, path in found.items()}
    everything = [(split, e) for split, listed in entries.items() for e in listed]
    labels = labels_of([e for _, e in everything], sample=entries["train"], **reading)
    return [(media.find(e.name), label, None, split)
            for (split, e), label in zip(everything, labels, strict=True)]
