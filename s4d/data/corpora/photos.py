"""AffectNet and RAF-DB: labelled photos.

AffectNet is met in four layouts. It publishes no test split; results are reported on its validation
split. So `val` is the test split, unless a folder or list named test exists too.
"""
from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ...emotions import EMOTIONS, EMOTIONS_8
from ..lists import SPLITS, Entry, Files, class_folders, labels_of, read_list
from ..media import IMAGES
from ..tables import Dataset, DatasetError, files, folders
from .own import tested_on_val

LIST = "EmoLabel/list_patition_label.txt"
NOT_EXPRESSIONS = ("8", "9", "10")      # None, Uncertain, No-Face: dropped, as in the field
TRAIN = dict(zip(EMOTIONS, (74874, 134415, 25459, 14090, 6378, 3803, 24882), strict=True))
# S4D's list; the first release with seven and with eight classes; the release of 2021
TESTS = {3267: dict(zip(EMOTIONS, (471, 457, 473, 458, 469, 469, 470), strict=True)),
         3500: dict.fromkeys(EMOTIONS, 500), 4000: dict.fromkeys(EMOTIONS_8, 500), 3999: 3999}


def affectnet(root: Path, fold: None = None, label_order: str | None = None) -> list[tuple]:
    """Rows of the first layout that the folder has."""
    read = partial(labels_of, orders=("affectnet",), label_order=label_order)
    found = class_folders(root, IMAGES, read)      # train/happiness/0001.jpg or train/1/0001.jpg
    if not found:
        listed = release_2021(root) or lists(root)
        labels = read([entry for _, entry, _ in listed])
        found = [(path, label, None, split)
                 for (path, _, split), label in zip(listed, labels, strict=True)]
    return found if any(split == "test" for *_, split in found) else tested_on_val(found)


def release_2021(root: Path) -> list[tuple]:
    """(path, entry, split) of train_set/images/N.jpg with train_set/annotations/N_exp.npy."""
    out = []
    for split in ("train", "val"):
        folder = root / f"{split}_set"
        for file in files(folder / "images", IMAGES):
            name = f"{folder.name}/images/{file}"
            note = folder / "annotations" / f"{Path(file).stem}_exp.npy"
            try:
                label = str(np.load(note, allow_pickle=False)).strip()
            except (OSError, ValueError, EOFError) as error:
                raise DatasetError(f"{name} has no readable annotation {note} ({error}): copy the "
                                   "annotations again") from error
            out.append((name, Entry(name, label, str(note)), split))
    return out


def lists(root: Path) -> list[tuple]:
    """Likewise of lists whose names end in a split, as training.csv of the first release and
    affectnet_val.txt with lines `680/<hash>_aligned/face_det_000000.bmp 0`."""
    usual = ("image", "images", "manually_annotated_images")
    inside = [f.name for f in folders(root) if f.name.lower() in usual]
    images = Files(root, [*inside, "Manually_Annotated/Manually_Annotated_Images", ""], IMAGES)
    out = []
    for name in files(root, {".csv", ".txt"}):
        split = SPLITS.get(re.split(r"[_\-]", Path(name).stem.lower())[-1])
        if split is not None:
            out += [(images.find(e.name), e, split) for e in read_list(root / name)
                    if e.label not in NOT_EXPRESSIONS]
    return out


def published(root: Path, table: pd.DataFrame) -> dict:
    """Counts of the known test split nearest in size, and of the first release's training split;
    none for class folders, which may hold any selection."""
    if any(f.name.lower() in SPLITS and folders(f) for f in folders(root)):
        return {}
    size = (table["split"] == "test").sum()
    counts = {(None, "test"): TESTS[min(TESTS, key=lambda known: abs(known - size))]}
    return counts | {(None, "train"): TRAIN} if (root / "training.csv").is_file() else counts


def rafdb(root: Path, fold: None = None, label_order: str | None = None) -> list[tuple]:
    """Integers count from 1; the first part of a listed name is the split."""
    read = partial(labels_of, orders=("rafdb",), base=1, label_order=label_order)
    tops = [top for top in ("basic/", "") if (root / top / LIST).is_file()]
    if not tops:
        found = class_folders(root, IMAGES, read)
        return found or [(f"DATASET/{path}", *rest)
                         for path, *rest in class_folders(root / "DATASET", IMAGES, read)]
    images = Files(root, [f"{tops[0]}Image/{kind}" for kind in ("aligned", "original")], IMAGES)
    entries, out = read_list(root / tops[0] / LIST), []
    for entry, label in zip(entries, read(entries), strict=True):
        split = entry.name.rpartition("/")[2].split("_")[0]
        if split not in ("train", "test"):
            raise DatasetError(f"{entry.name!r} in {entry.where} tells no split: expected a name "
                               "such as train_00001.jpg")
        out.append((images.find(entry.name), label, None, split))
    return out


AFFECTNET = Dataset(
    "affectnet", "image",
    "train/ and val/ or test/ with a folder per class (name or 0..7), lists train.csv and test.csv "
    "of lines `image label`, training.csv and validation.csv with Manually_Annotated_Images/, or "
    "train_set/ and val_set/ with annotations/",
    affectnet, published=published)
RAFDB = Dataset(
    "rafdb", "image",
    "basic/EmoLabel/list_patition_label.txt with lines such as 'train_00001.jpg 5' and "
    "basic/Image/aligned/train_00001_aligned.jpg, or train/ and test/ with folders 1 to 7",
    rafdb, published={(None, "train"): 12271, (None, "test"): 3068})
