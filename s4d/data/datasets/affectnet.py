"""AffectNet: photos labelled with eight expressions, in the four layouts in which it is met.

AffectNet publishes no test part; its validation part is what results are reported on. So `val` is the test split, unless a
folder or list named test exists too.
"""
from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ...emotions import EMOTIONS, EMOTIONS_8
from ..media import IMAGES
from .lists import SPLITS, Entry, Files, class_folders, labels_of, read_list
from .tables import DatasetError, files, folders

KIND, FOLDS, ORDERS = "image", (), ("affectnet",)
LAYOUT = ("train/ and val/ or test/ with a folder per class (name or 0..7), lists train.csv and test.csv of lines `image label`, "
          "training.csv and validation.csv with Manually_Annotated_Images/, or train_set/ and val_set/ with annotations/")
NOT_EXPRESSIONS = {"8": "None", "9": "Uncertain", "10": "No-Face"}      # dropped, as every protocol does
TRAIN = dict(zip(EMOTIONS, (74874, 134415, 25459, 14090, 6378, 3803, 24882)))
# S4D's list; the first release with seven and with eight classes; the release of 2021.
TESTS = (dict(zip(EMOTIONS, (471, 457, 473, 458, 469, 469, 470))), dict.fromkeys(EMOTIONS, 500), dict.fromkeys(EMOTIONS_8, 500), 3999)


def read(entries: list[Entry], order: str | None = None) -> list[str]:
    return labels_of(entries, ORDERS, 8, order=order)


def rows(root: Path, fold: None = None, order: str | None = None) -> list[tuple]:
    """(path, label, None, split) of the first layout that the folder has."""
    found = next(filter(None, (layout(root, order) for layout in LAYOUTS)), [])
    if not any(r[3] == "test" for r in found):
        found = [(p, l, s, "test" if split == "val" else split) for p, l, s, split in found]
    return found


def published(root: Path, table: pd.DataFrame) -> dict:
    """Published counts: those of the release whose layout it is, or of the known test parts the one nearest in size; none for class
    folders, which may hold any selection."""
    if any(f.name.lower() in SPLITS and folders(f) for f in folders(root)):
        return {}
    if (root / "val_set").is_dir():
        return {(None, "test"): TESTS[3]}
    if is_original(root / "validation.csv"):
        return {(None, "test"): TESTS[2], (None, "train"): TRAIN}
    size = (table["split"] == "test").sum()
    test = min(TESTS, key=lambda known: abs((sum(known.values()) if isinstance(known, dict) else known) - size))
    return {(None, "test"): test}


def original(root: Path, order: str | None) -> list[tuple]:
    """training.csv and validation.csv: subDirectory_filePath, ..., expression; images in Manually_Annotated_Images/."""
    out, images = [], Files(root, ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images"), IMAGES)
    images.bases = images.bases or ["Manually_Annotated_Images/"]
    for name in ("training.csv", "validation.csv"):
        path = root / name
        if is_original(path):
            entries = [e for e in read_list(path) if e.label not in NOT_EXPRESSIONS]
            out += [(images.find(e.name), label, None, SPLITS[path.stem]) for e, label in zip(entries, read(entries, order))]
    return out


def release_2021(root: Path, order: str | None) -> list[tuple]:
    """train_set/images/N.jpg with train_set/annotations/N_exp.npy."""
    out = []
    for part in ("train", "val"):
        folder, entries = root / f"{part}_set", []
        for name in files(folder / "images", IMAGES):
            note = folder / "annotations" / f"{Path(name).stem}_exp.npy"
            try:
                entries.append(Entry(f"{folder.name}/images/{name}", str(np.load(note, allow_pickle=False)).strip(), str(note)))
            except (OSError, ValueError, EOFError) as error:
                raise DatasetError(f"{folder.name}/images/{name} has no readable annotation {note} ({error}): copy the annotations "
                                   "again") from error
        out += [(e.name, label, None, SPLITS[part]) for e, label in zip(entries, read(entries, order) if entries else [])]
    return out


def lists(root: Path, order: str | None) -> list[tuple]:
    """train.csv, test.txt, affectnet_val.txt ...: lines `680/<hash>_aligned/face_det_000000.bmp 0`, or with a comma."""
    out = []
    inside = ("image", "images", "manually_annotated_images")
    images = Files(root, ["", *(f.name for f in folders(root) if f.name.lower() in inside)], IMAGES)
    for name in files(root, {".csv", ".txt"}):
        split = SPLITS.get(re.split(r"[_\-]", Path(name).stem.lower())[-1])
        if split is not None:
            entries = read_list(root / name)
            out += [(images.find(e.name), label, None, split) for e, label in zip(entries, read(entries, order))]
    return out


def is_original(path: Path) -> bool:
    """Whether a file is a list of the first release, told by its header."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as f:
        return "subDirectory_filePath" in f.readline()


def in_folders(root: Path, order: str | None) -> list[tuple]:
    """train/happiness/0001.jpg or train/1/0001.jpg."""
    return class_folders(root, IMAGES, partial(read, order=order))


LAYOUTS = (in_folders, release_2021, original, lists)
