"""DFEW: film clips labelled with seven emotions, five folds; every clip is in exactly one test fold."""
from __future__ import annotations

import os
import re
from pathlib import Path

from ...emotions import LabelError, by_index
from ..media import VIDEOS
from .tables import DatasetError, files, folders, read_csv

KIND, FOLDS = "video", (1, 2, 3, 4, 5)
LAYOUT = ("EmoLabel_DataSplit/train(single-labeled)/set_1.csv and test(single-labeled)/set_1.csv (or train_set_1.csv and test_set_1.csv), "
          "header video_name,label, and clips in Clip/original/ or frames in Clip/jpg_256/ or clip_jpg_256/")
LISTED = 11697            # clips in the complete official lists; the others have no single label
MEDIA = ("Clip/jpg_256", "clip_jpg_256", "Clip/original")      # aligned frames come first: the original clips show whole scenes
# Folder and name of a fold's lists, and the integer of the first class where the numbers themselves do not tell.
LISTS = (("EmoLabel_DataSplit", "{split}(single-labeled)/set_{fold}.csv", 1), ("", "{split}_set_{fold}.csv", 0),
         ("EmoLabel_DataSplit", "{split}_set_{fold}.csv", 0))


def lists(root: Path, fold: int) -> tuple[dict[str, Path], int]:
    """The fold's lists by split, and the first class's integer in their layout.

    Raises:
        DatasetError: when a list is missing.
    """
    for folder, pattern, base in LISTS:
        found = {s: root / folder / pattern.format(split=s, fold=fold) for s in ("train", "test")}
        there = [s for s, p in found.items() if p.is_file()]
        if len(there) == 2:
            return found, base
        if there:
            missing = found["test" if there == ["train"] else "train"]
            raise DatasetError(f"dfew fold {fold} has {found[there[0]].name} but no {missing}: copy the list of the same release")
    raise DatasetError(f"dfew in {root} has no lists of fold {fold}: expected {LAYOUT}")


def media(root: Path) -> tuple[str, dict[str, str]]:
    """Folder of the clips and {clip: entry name}; a clip's key is its number without leading zeros.

    Raises:
        DatasetError: when there is none.
    """
    for folder in MEDIA:
        names = [f.name for f in folders(root / folder)] + files(root / folder, VIDEOS)
        if names:
            return folder, {key(os.path.splitext(n)[0]): n for n in names}
    raise DatasetError(f"dfew in {root} holds no clips: expected {LAYOUT}")


def key(name: str) -> str:
    return name.lstrip("0") or "0"


def rows(root: Path, fold: int) -> list[tuple]:
    """(path, label, None, split) of a fold; labels count from 1 in the official lists and from 0 in those of S4D."""
    found, base = lists(root, fold)
    tables = {split: read_csv(path, ("video_name", "label")) for split, path in found.items()}
    for split, listed in tables.items():
        wrong = [v for v in listed["label"] if not re.fullmatch(r"\d+", v)]
        if wrong:
            raise LabelError(f"unknown label {wrong[0]!r} in {found[split]}: expected an integer, 1..7 (official lists) or 0..6 (S4D's)")
        if listed.empty:
            raise DatasetError(f"list {found[split]} holds no clips: copy it again")
    numbers = [int(v) for listed in tables.values() for v in listed["label"]]
    base = 0 if min(numbers) == 0 else 1 if max(numbers) >= 7 else base
    folder, clips = media(root)
    out = []
    for split, listed in tables.items():
        for name, label in zip(listed["video_name"], listed["label"]):
            stem = os.path.splitext(name)[0]
            entry = clips.get(key(stem), f"{stem.zfill(5)}.mp4" if folder == "Clip/original" else stem.zfill(5))
            out.append((f"{folder}/{entry}", by_index(int(label), "dfew", base, str(found[split])), None, split))
    return out


def unlisted(root: Path, listed: set[str]) -> list[str]:
    """Clips on disk without an entry; none where the lists are the complete official ones, which leave clips out on purpose."""
    folder, clips = media(root)
    return [] if len(listed) == LISTED else sorted(p for p in (f"{folder}/{n}" for n in clips.values()) if p not in listed)
