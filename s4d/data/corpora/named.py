"""CREMA-D, RAVDESS, CAER and VoxCeleb2: the names of files and folders tell everything.

CREMA-D and RAVDESS are of actors and have no published split. Five folds over actors are this
project's convention: the sorted actors are dealt out in turn, so that nobody is tested who was
trained on.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...emotions import LabelError
from ..lists import class_folders, labels_of
from ..media import VIDEOS
from ..tables import Dataset, DatasetError, files, folders

FOLDS = (1, 2, 3, 4, 5)
CREMAD_CODES = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness",
                "NEU": "neutral", "SAD": "sadness"}
RAVDESS_CODES = {"01": "neutral", "02": "neutral", "03": "happiness", "04": "sadness",
                 "05": "anger", "06": "fear", "07": "disgust", "08": "surprise"}


def acted(names: list[str], pattern: str, codes: dict[str, str], fold: int, root: Path,
          example: str) -> list[tuple]:
    """(path, label, actor, split) of files; `pattern` has the groups actor and emotion."""
    parsed = []
    for name in names:
        match = re.fullmatch(pattern, Path(name).stem)
        if not match:
            raise DatasetError(f"{name} in {root} is not named as its dataset's files are: "
                               f"expected a name such as {example}")
        code = match["emotion"]
        if code not in codes:
            raise LabelError(f"unknown label {code!r} in {root}/{name}: expected one of "
                             f"{', '.join(codes)}")
        parsed.append((name, codes[code], match["actor"]))
    tested = sorted({actor for *_, actor in parsed})[fold - 1::len(FOLDS)]
    return [(*row, "test" if row[2] in tested else "train") for row in parsed]


def cremad_rows(root: Path, fold: int, label_order: str | None = None) -> list[tuple]:
    """Names are actor, sentence, emotion, level."""
    names = [f"VideoFlash/{n}" for n in files(root / "VideoFlash", VIDEOS)]
    pattern = r"(?P<actor>\d{4})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_[A-Z]{1,2}"
    return acted(names, pattern, CREMAD_CODES, fold, root, "1001_DFA_ANG_XX.flv")


def ravdess_rows(root: Path, fold: int, label_order: str | None = None) -> list[tuple]:
    """Names are modality, channel, emotion, intensity, statement, repetition, actor.

    Calm counts as neutral. Song is left out. Of a performance stored with and without sound, one
    file is kept.
    """
    kept = {}
    for actor in folders(root):
        for name in files(actor, VIDEOS) if actor.name.startswith("Actor_") else []:
            fields = Path(name).stem.split("-")
            if fields[1:2] != ["02"]:      # sorted: 01, with sound, comes before 02, without
                kept.setdefault(tuple(fields[1:]), f"{actor.name}/{name}")
    pattern = r"\d\d-01-(?P<emotion>\d\d)(-\d\d){3}-(?P<actor>\d\d)"
    return acted([*kept.values()], pattern, RAVDESS_CODES, fold, root, "01-01-03-01-01-01-01.mp4")


def caer_rows(root: Path, fold: None = None, label_order: str | None = None) -> list[tuple]:
    """Clips of television series, one split with validation; folders name the seven emotions."""
    read = partial(labels_of, orders=(), num_classes=7, label_order=label_order)
    return class_folders(root, VIDEOS, read)


def voxceleb2_rows(root: Path, fold: None = None, label_order: None = None) -> Iterator[tuple]:
    """Unlabelled clips of speaking people, the development part; used for pre-training."""
    for person in folders(root / "dev/mp4"):
        for video in folders(person) if person.name.startswith("id") else []:
            for name in files(video, VIDEOS):
                yield f"dev/mp4/{person.name}/{video.name}/{name}", None, person.name, "train"


CREMAD = Dataset(      # 91 actors, twelve sentences; open: ODbL
    "cremad", "video", "VideoFlash/1001_DFA_ANG_XX.flv", cremad_rows, FOLDS,
    published={(None, None): 7442})
RAVDESS = Dataset(     # 24 actors, 60 spoken performances each; open: CC BY-NC-SA 4.0
    "ravdess", "video", "Actor_01/01-01-03-01-01-01-01.mp4", ravdess_rows, FOLDS,
    published={(None, None): 1440})
CAER = Dataset(
    "caer", "video",
    "train/, validation/ and test/ with a folder for each emotion, as in train/Happy/0001.avi",
    caer_rows, published={(None, None): 13201})
VOXCELEB2 = Dataset(
    "voxceleb2", "video", "dev/mp4/id00012/<video>/00001.mp4", voxceleb2_rows,
    published={(None, None): 1092009})      # 283 of them are unreadable
