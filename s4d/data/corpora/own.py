"""Folders of your own: a folder a class, with split folders or without, subjects known or not.

The first folder of a path that is no split (`train`, `val`, `test`) is the class and names an
emotion; a folder below it names the subject. Without split folders a fifth is the test split, told
by a hash: of whole subjects where they are known, else of each class's files. Files of one unknown
person may then lie on both sides, and the score is too good for strangers.
"""
from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ...emotions import canonical
from ..lists import SPLITS
from ..media import IMAGES, VIDEOS
from ..tables import Dataset, DatasetError, files, listed_subjects

TEST = 0.2          # of the samples in the test split, where no folder tells


def rows(root: Path, fold: None = None, label_order: None = None,
         subject_separator: str | None = None, clips: bool = False) -> list[tuple]:
    """(path, label, subject, split) of every photo, or clip: a video file or a folder of frames."""
    found, others = [], []
    for folder, below, _ in os.walk(root):
        below[:] = sorted(d for d in below if d[0] != ".")
        parts = Path(folder).relative_to(root).parts
        classes = [part for part in parts if part.lower() not in SPLITS]
        photos, videos = (["/".join([*parts, name]) for name in files(Path(folder), suffixes)]
                          for suffixes in (IMAGES, VIDEOS))
        if clips and photos and len(classes) > 1:      # the frames of one clip
            photos, videos = [], [*videos, "/".join(parts)]
        found += videos if clips else photos
        others += photos if clips else videos
    kind, other = ("clips", "photos") if clips else ("photos", "clips")
    if others:
        hint = "; a clip's frames lie in a folder below the class folder" if clips else ""
        raise DatasetError(f"{root} holds {len(others)} {other} beside {len(found)} {kind}, the "
                           f"first is {others[0]}: give each kind a folder of its own{hint}")
    samples = [_sample(path, root, subject_separator) for path in found]
    if len({emotion for _, emotion, *_ in samples}) == 1:
        raise DatasetError(f"{root} holds one class, {samples[0][1]}: there is nothing to tell "
                           "apart; add a second class folder")
    subjects = listed_subjects(root)
    return _split(root, [(path, emotion, subjects.get(path) or subject, split)
                         for path, emotion, subject, split in samples])


def _sample(path: str, root: Path, subject_separator: str | None) -> tuple:
    """(path, emotion, subject, split) as a path tells."""
    *folders, name = path.split("/")
    classes = [part for part in folders if part.lower() not in SPLITS]
    splits = sorted({SPLITS[part.lower()] for part in folders if part.lower() in SPLITS})
    if not classes:
        raise DatasetError(f"{path} in {root} lies in no class folder: move it into a folder that "
                           f"is named after its emotion, as in happy/{name}")
    if len(splits) > 1:
        raise DatasetError(f"{path} in {root} lies in the split folders {' and '.join(splits)}: "
                           "leave one of them")
    subject, stem = classes[1] if len(classes) > 1 else None, os.path.splitext(name)[0]
    if subject_separator and subject_separator in stem:
        subject = stem.split(subject_separator)[0]
    emotion = re.sub(r"^\d+[\s._-]+|[\s._-]+\d+$", "", classes[0])
    emotion = canonical(emotion, where=f"the class folder of {root}/{path}")
    return path, emotion, subject, splits[0] if splits else None


def _split(root: Path, found: list[tuple]) -> list[tuple]:
    """Rows with the splits of their folders, or else a test split that hashes decide."""
    given = {split for *_, split in found}
    if given <= {None}:
        return _split_by_hash(found)
    if None in given:
        lone = next(path for path, *_, split in found if split is None)
        raise DatasetError(f"{lone} in {root} lies in no split folder and others do: put all "
                           "samples into train, val and test, or none")
    if "train" not in given or len(given) == 1:
        missing = "test" if "train" in given else "train"
        raise DatasetError(f"{root} has split folders for {' and '.join(sorted(given))} alone: add "
                           f"{missing}, or remove the split folders and let a hash of the names "
                           "decide")
    return found if "test" in given else tested_on_val(found)


def tested_on_val(rows: list[tuple]) -> list[tuple]:
    """Rows whose validation split is their test split."""
    return [(*row, "test" if split == "val" else split) for *row, split in rows]


def _split_by_hash(found: list[tuple]) -> list[tuple]:
    """Rows of which whole subjects, and a share of each class's other files, are the test split."""
    def by_hash(names: Iterable[str]) -> list[str]:      # as good as drawn, the same everywhere
        return sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())

    known, tests = [f for f in found if f[2]], set()
    for subject in by_hash(who for _, _, who, _ in known)[:-1]:      # somebody is left to train on
        if len(tests) < TEST * len(known):
            tests |= {path for path, _, who, _ in known if who == subject}
    for emotion in {label for _, label, *_ in found}:
        paths = by_hash(path for path, label, who, _ in found if label == emotion and not who)
        tests |= set(paths[:max(1, round(TEST * len(paths))) if len(paths) > 1 else 0])
    return [(*row, "test" if row[0] in tests else "train") for *row, _ in found]


LAYOUT = ("a folder for each emotion, as in {}, with or without train/, val/ and test/ above or "
          "below")
PHOTOS = Dataset("photos", "image", LAYOUT.format("happy/001.jpg"), rows)
CLIPS = Dataset("clips", "video", LAYOUT.format("happy/001.mp4 or happy/001/0001.jpg"),
                partial(rows, clips=True))
