"""AffectNet: photos labelled with eight expressions, in the four layouts in which it is met.

AffectNet publishes no test part; its validation part is what results are reported on. So `val` is the test split, unless a
folder or list named test exists too.
"""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...emotions import LabelError, by_index, canonical
from ..media import IMAGES
from .tables import DatasetError, files, folders, read_csv

KIND, FOLDS = "image", ()
LAYOUT = ("train/ and val/ or test/ with a folder per class (name or 0..7), lists train.csv and test.csv of lines `image label`, "
          "training.csv and validation.csv with Manually_Annotated_Images/, or train_set/ and val_set/ with annotations/")
SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
NOT_EXPRESSIONS = {"8": "None", "9": "Uncertain", "10": "No-Face"}      # dropped, as every protocol does


def rows(root: Path, fold: None = None) -> list[tuple]:
    """(path, label, None, split) of the first layout that the folder has."""
    for layout in LAYOUTS:
        found = layout(root)
        if found:
            if not any(r[3] == "test" for r in found):
                found = [(p, l, s, "test" if split == "validation" else split) for p, l, s, split in found]
            return found
    return []


def emotion(text: str, where: str) -> str:
    """Name of a label written as 0..7 or as a name."""
    text = str(text).strip()
    return by_index(int(text), "affectnet", where=where) if re.fullmatch(r"-?\d+", text) else canonical(text, 8, where)


def class_folders(root: Path) -> list[tuple]:
    """train/happiness/0001.jpg or train/1/0001.jpg."""
    out = []
    for part in folders(root):
        if part.name.lower() in SPLITS:
            for group in folders(part):
                label = emotion(group.name, str(part))
                out += [(f"{part.name}/{group.name}/{name}", label, None, SPLITS[part.name.lower()]) for name in files(group, IMAGES)]
    return out


def original(root: Path) -> list[tuple]:
    """training.csv and validation.csv: subDirectory_filePath, ..., expression; images in Manually_Annotated_Images/."""
    out = []
    for name in ("training.csv", "validation.csv"):
        path = root / name
        if path.is_file() and "subDirectory_filePath" in _first_line(path):
            found = read_csv(path, ("subDirectory_filePath", "expression"))
            found = found[~found["expression"].isin(NOT_EXPRESSIONS)]
            out += [(f"Manually_Annotated_Images/{image}", emotion(label, str(path)), None, SPLITS[path.stem])
                    for image, label in zip(found["subDirectory_filePath"], found["expression"])]
    return out


def release_2021(root: Path) -> list[tuple]:
    """train_set/images/N.jpg with train_set/annotations/N_exp.npy."""
    out = []
    for part in ("train", "val"):
        folder = root / f"{part}_set"
        for name in files(folder / "images", IMAGES):
            note = folder / "annotations" / f"{Path(name).stem}_exp.npy"
            try:
                label = str(np.load(note, allow_pickle=False))
            except (OSError, ValueError, EOFError) as error:
                raise DatasetError(f"{folder.name}/images/{name} has no readable annotation {note} ({error}): copy the annotations "
                                   "again") from error
            out.append((f"{folder.name}/images/{name}", emotion(label, str(note)), None, SPLITS[part]))
    return out


def lists(root: Path) -> list[tuple]:
    """train.csv, test.txt, affectnet_val.txt ...: lines `680/<hash>_aligned/face_det_000000.bmp 0`, or with a comma."""
    out, images = [], _Images(root)
    for name in files(root, {".csv", ".txt"}):
        split = SPLITS.get(re.split(r"[_\-]", Path(name).stem.lower())[-1])
        if split is None:
            continue
        for number, line in enumerate((root / name).read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
            match = re.fullmatch(r"(.+?)[,\s]+([^,\s]+)", line.strip())      # the image's name may hold blanks
            image, label = match.groups() if match else (line.strip(), None)
            if not image or (number == 1 and not Path(image).suffix):      # blank, or a header
                continue
            where = f"{root / name}, line {number}"
            if label is None:
                raise LabelError(f"no label for {image!r} in {where}: expected `image label`")
            out.append((images.find(image), emotion(label, where), None, split))
    return out


class _Images:
    """Finds listed images that lie under images/ or carry another extension than the list says; each folder is listed once."""

    def __init__(self, root: Path):
        self.root, self.listed = root, {}
        self.bases = [""] + [f"{f.name}/" for f in folders(root) if f.name.lower() in ("image", "images", "manually_annotated_images")]

    def find(self, image: str) -> str:
        for base in self.bases:
            folder, _, name = f"{base}{image}".rpartition("/")
            if folder not in self.listed:
                names = files(self.root / folder, IMAGES)
                self.listed[folder] = set(names), {Path(n).stem: n for n in names}
            names, stems = self.listed[folder]
            if name in names or Path(name).stem in stems:
                return (f"{folder}/" if folder else "") + (name if name in names else stems[Path(name).stem])
        return image          # as listed; reading or auditing reports that it is missing


def _first_line(path: Path) -> str:
    with open(path, encoding="utf-8-sig", errors="replace") as f:
        return f.readline()


LAYOUTS = (class_folders, release_2021, original, lists)
