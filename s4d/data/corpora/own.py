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

from ...emotions import LabelError, canonical
from ..lists import SPLITS
from ..media import IMAGES, VIDEOS
from ..tables import Dataset, DatasetError, listed_subjects

TEST = 0.2          # of the samples in the test split, where no folder tells


def rows(root: Path, fold: None = None, label_order: None = None,
         subject_separator: str | None = None, clips: bool = False) -> list[tuple]:
    """(path, label, subject, split) of every photo, or clip: a video file or a folder of frames."""
    found, others, groups = [], [], []
    for folder, below, names in os.walk(root):
        below[:] = sorted(d for d in below if d[0] != ".")
        parts = Path(folder).relative_to(root).parts
        classes = [part for part in parts if part.lower() not in SPLITS]
        if len(classes) == 1 and parts[-1] == classes[0]:
            groups.append("/".join(parts))
        photos, videos = (["/".join([*parts, n]) for n in sorted(names) if n[0] != "."
                           and os.path.splitext(n)[1].lower() in suffixes]
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
    for group in groups:
        if not any(path.startswith(f"{group}/") for path in found):
            raise DatasetError(f"class folder {group} in {root} holds no {kind}: fill it or remove "
                               "it")
    emotions, subjects = _emotions(root, {s[1] for s in samples}), listed_subjects(root)
    return _split(root, [(path, emotions[folder], subjects.get(path) or subject, split)
                         for path, folder, subject, split in samples])


def _sample(path: str, root: Path, subject_separator: str | None) -> tuple:
    """(path, class folder, subject, split) as a path tells."""
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
    return path, classes[0], subject, splits[0] if splits else None


def _emotions(root: Path, folders: set[str]) -> dict[str, str]:
    """{class folder: emotion}, of two emotions at least."""
    emotions = {}
    for folder in sorted(folders):
        try:
            emotions[folder] = canonical(re.sub(r"^\d+[\s._-]+|[\s._-]+\d+$", "", folder))
        except LabelError as error:
            known = str(error).partition(": expected one of ")[2]
            raise LabelError(f"class folder {folder!r} in {root} names no emotion: the heads "
                             f"answer in emotions alone, so rename it to one of {known}, or "
                             "leave it out") from error
    if len(set(emotions.values())) == 1:
        raise DatasetError(f"{root} holds one class, {next(iter(emotions.values()))}: there is "
                           "nothing to tell apart; add a second class folder")
    return emotions


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
        return sorted(set(names), key=lambda n: (hashlib.sha256(n.encode()).hexdigest(), n))

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
