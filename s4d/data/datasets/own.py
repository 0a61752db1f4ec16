"""Folders of one's own: a folder a class, with split folders or without, of people who are known or not.

The first folder of a path that is no split (`train`, `val`, `test`) is the class and names an emotion, `1_happy` or `Joy` too; a
folder below it names the person. Split folders may lie above or below the class folders, in all classes or in none. With `train` and
`val` alone, `val` is the test part. Without split folders the test part is a fifth, told by a hash: of whole people where they are
known (by folders, by the beginning of file names, or by subjects.csv), else of each class's files. Files of one unknown person may
then lie on both sides, and the score is too good for strangers.
"""
from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...emotions import LabelError, canonical
from ..media import IMAGES, VIDEOS
from .lists import SPLITS
from .tables import DatasetError, read_csv

TEST = 0.2          # share of the samples in the test part, where no folder tells


class Found(NamedTuple):
    """One sample."""

    path: str                  # relative to the root
    label: str
    person: str | None
    split: str | None


def rows(root: Path, clips: bool, people: str | None = None) -> list[tuple]:
    """(path, label, person, split) of every photo, or of every clip: a video file, or a folder of frames below a class folder.

    Args:
        clips: whether the folder holds clips; both kinds in one folder are refused.
        people: the sign that ends a person's name in a file's name, as `_` in anna_01.jpg.
    Raises:
        DatasetError: for both kinds, a sample in no class folder, an empty class folder, a single class, or splits that are incomplete.
        LabelError: for a class folder that names no emotion.
    """
    found = [_sample(path, root, people) for path in _paths(root, clips)]
    _complete(root, found, clips)
    if not found:
        return []
    found = _named(root, found)
    given = {f.split for f in found}
    if None in given:
        if len(given) > 1:
            lone = next(f.path for f in found if f.split is None)
            raise DatasetError(f"{lone} in {root} lies in no split folder and others do: put all samples into train, val and test, or none")
        tests = _test_part(found)
        return [(f.path, f.label, f.person, "test" if f.path in tests else "train") for f in found]
    if "train" not in given or len(given) == 1:
        raise DatasetError(f"{root} has split folders for {' and '.join(sorted(given))} alone: add {'test' if 'train' in given else 'train'}, "
                           "or remove the split folders and let a hash of the names decide")
    names = {"val": "test"} if "test" not in given else {}
    return [(f.path, f.label, f.person, names.get(f.split, f.split)) for f in found]


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """(relative path, names of folders, names of files) of every visible folder, in order."""
    for folder, below, files in os.walk(root):
        below[:] = sorted(d for d in below if not d.startswith("."))
        path = Path(folder).relative_to(root).as_posix()
        yield "" if path == "." else path, below, sorted(f for f in files if not f.startswith("."))


def _paths(root: Path, clips: bool) -> list[str]:
    """Samples of the wanted kind.

    Raises:
        DatasetError: when there are samples of the other kind too.
    """
    samples, others = [], []
    for path, _, files in _walk(root):
        join = lambda name: f"{path}/{name}" if path else name
        kinds = {kind: [join(f) for f in files if os.path.splitext(f)[1].lower() in kind_of] for kind, kind_of in
                 (("photo", IMAGES), ("clip", VIDEOS))}
        if clips and kinds["photo"] and len(_classes(path)) > 1:      # a folder below a class folder: the frames of one clip
            samples.append(path)
            kinds["photo"] = []
        samples += kinds["clip" if clips else "photo"]
        others += kinds["photo" if clips else "clip"]
    if others:
        what = ("photos", "clips") if clips else ("clips", "photos")
        raise DatasetError(f"{root} holds {len(others)} {what[0]} beside {len(samples)} {what[1]}, the first is {others[0]}: give each kind a "
                           "folder of its own" + ("; a clip's frames lie in a folder below the class folder" if clips else ""))
    return samples


def _classes(path: str) -> list[str]:
    """Folders of a path that are no split."""
    return [part for part in path.split("/") if part and part.lower() not in SPLITS]


def _sample(path: str, root: Path, people: str | None) -> Found:
    """What a path tells; the label is still the folder's name."""
    folder, _, name = path.rpartition("/")
    own = _classes(folder)
    splits = {SPLITS[p.lower()] for p in folder.split("/") if p.lower() in SPLITS}
    if not own:
        raise DatasetError(f"{path} in {root} lies in no class folder: move it into a folder that is named after its emotion, as in happy/{name}")
    if len(splits) > 1:
        raise DatasetError(f"{path} in {root} lies in the split folders {' and '.join(sorted(splits))}: leave one of them")
    person = own[1] if len(own) > 1 else None
    stem = os.path.splitext(name)[0]
    if people and people in stem:
        person = stem.split(people)[0]
    return Found(path, own[0], person, next(iter(splits), None))


def _complete(root: Path, found: list[Found], clips: bool) -> None:
    """Raises DatasetError when a class folder is empty."""
    full = {tuple(p.split("/")[:k]) for p, *_ in found for k in range(p.count("/") + 1)}
    for path, below, _ in _walk(root):
        parts = tuple(path.split("/")) if path else ()
        if len(_classes(path)) == 1 and parts[-1].lower() not in SPLITS and parts not in full:
            raise DatasetError(f"class folder {path} in {root} holds no {'clips' if clips else 'photos'}: fill it or remove it")


def _named(root: Path, found: list[Found]) -> list[Found]:
    """The samples with emotions for labels, and the people of subjects.csv.

    Raises:
        LabelError: for a folder that names no emotion.
        DatasetError: for a single class.
    """
    emotions = {}
    for folder in sorted({f.label for f in found}):
        try:
            emotions[folder] = canonical(re.sub(r"^\d+[\s._-]+|[\s._-]+\d+$", "", folder))
        except LabelError as error:
            known = str(error).partition(": expected one of ")[2]
            raise LabelError(f"class folder {folder!r} in {root} names no emotion: the heads answer in emotions alone, so rename it to one of "
                             f"{known}, or leave it out") from error
    if len(set(emotions.values())) == 1:
        raise DatasetError(f"{root} holds one class, {next(iter(emotions.values()))}: there is nothing to tell apart; add a second class folder")
    listed = root / "subjects.csv"
    people = dict(read_csv(listed, ("path", "subject")).itertuples(index=False)) if listed.is_file() else {}
    return [f._replace(label=emotions[f.label], person=people.get(f.path) or f.person) for f in found]


def _test_part(found: list[Found]) -> set[str]:
    """Paths of the test part: the first by hash among people, and among the files of each class whose people are unknown."""
    known = [f for f in found if f.person]
    tests, wanted = set(), TEST * len(known)
    people = _by_hash({f.person for f in known})
    for person in people[:-1]:                        # somebody is left to train on
        if len(tests) >= wanted:
            break
        tests |= {f.path for f in known if f.person == person}
    rest = [f for f in found if not f.person]
    for label in {f.label for f in rest}:
        paths = _by_hash({f.path for f in rest if f.label == label})
        tests |= set(paths[:max(1, round(TEST * len(paths))) if len(paths) > 1 else 0])
    return tests


def _by_hash(names: set[str]) -> list[str]:
    """Names in the order of their hash: as good as drawn, and the same everywhere."""
    return sorted(names, key=lambda n: (hashlib.sha256(n.encode()).hexdigest(), n))
