"""AffectNet and RAF-DB, and folders of your own, of photos or of clips.

AffectNet is met in four layouts. It publishes no test split; results are reported on its validation
split. So `val` is the test split, unless a folder or list named test exists too.

In an own folder the first folder of a path that is no split (`train`, `val`, `test`) is the class
and names an emotion; a folder below it names the subject. Without split folders a hash makes a
fifth the test split, of whole subjects where they are known. Else one person may lie on both sides.
"""
import hashlib
import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from ...emotions import canonical
from ..lists import SPLITS, Dataset, Entry, Files, class_folders, labels_of, read_list, subjects_of
from ..media import IMAGES, VIDEOS, DatasetError, files, folders

LIST = "EmoLabel/list_patition_label.txt"
NOT_EXPRESSIONS = ("8", "9", "10")      # None, Uncertain, No-Face: dropped, as in the field
TEST = 0.2          # of the samples of own folders in the test split, where no folder tells


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
    out, names = [], files(root, {".csv", ".txt"})
    if "training.csv" in names:      # the first release's own lists; others would repeat samples
        names = [name for name in names if name in ("training.csv", "validation.csv")]
    for name in names:
        split = SPLITS.get(re.split(r"[_\-]", Path(name).stem.lower())[-1])
        if split is not None:
            out += [(images.find(e.name), e, split) for e in read_list(root / name)
                    if e.label not in NOT_EXPRESSIONS]
    return out


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


def own(root: Path, fold: None = None, label_order: None = None,
        subject_separator: str | None = None, clips: bool = False) -> list[tuple]:
    """(path, label, subject, split) of every photo, or clip: a video file or a folder of frames."""
    found, others, empty = [], [], {}
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
        if classes:                                    # any of its folders may hold the samples
            empty[classes[0]] = empty.get(classes[0], True) and not (photos or videos)
    kind, other = ("clips", "photos") if clips else ("photos", "clips")
    if others:
        raise DatasetError(f"{root} holds {len(others)} {other} beside {len(found)} {kind}, the "
                           f"first is {others[0]}: give each kind a folder of its own")
    lacking = ", ".join(name for name, nothing in empty.items() if nothing)
    if lacking:
        raise DatasetError(f"class folder {lacking} in {root} holds no {kind}: fill or remove it")
    samples = [_sample(path, root, subject_separator) for path in found]
    if len({emotion for _, emotion, *_ in samples}) == 1:
        raise DatasetError(f"{root} holds one class, {samples[0][1]}: add a second class folder")
    subjects = subjects_of(root)
    return _split(root, [(path, emotion, subjects.get(path) or subject, split)
                         for path, emotion, subject, split in samples])


def _sample(path: str, root: Path, subject_separator: str | None) -> tuple:
    """(path, emotion, subject, split) as a path tells."""
    *above, name = path.split("/")
    classes = [part for part in above if part.lower() not in SPLITS]
    splits = sorted({SPLITS[part.lower()] for part in above if part.lower() in SPLITS})
    if not classes:
        raise DatasetError(f"{path} in {root} lies in no class folder: move it into a folder that "
                           f"is named after its emotion, as in happy/{name}")
    if len(splits) > 1:
        raise DatasetError(f"{path} in {root} lies in folders {' and '.join(splits)}: leave one")
    subject, stem = classes[1] if len(classes) > 1 else None, os.path.splitext(name)[0]
    if subject_separator and subject_separator in stem:
        subject = stem.split(subject_separator)[0]
    emotion = re.sub(r"^\d+[\s._-]+|[\s._-]+\d+$", "", classes[0])
    emotion = canonical(emotion, where=f"the class folder of {root}/{path}")
    return path, emotion, subject, splits[0] if splits else None


def _split(root: Path, found: list[tuple]) -> list[tuple]:
    """Rows with the splits of their folders; without those, whole subjects and a share of each
    class's other files become the test split, chosen by a hash, so the same on every machine."""
    given = {split for *_, split in found}
    if len(given) > 1 and None in given:
        lone = next(path for path, *_, split in found if split is None)
        raise DatasetError(f"{lone} in {root} lies in no split folder and others do: put all "
                           "samples into train, val and test, or none")
    if "train" in given and len(given) > 1:
        return found if "test" in given else tested_on_val(found)
    if given - {None}:
        missing = "test" if "train" in given else "train"
        raise DatasetError(f"{root} has split folders for {' and '.join(sorted(given))} alone: add "
                           f"{missing}, or remove them and let a hash of the names decide")

    def by_hash(names: Iterable[str]) -> list[str]:
        return sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())

    known, tests = [f for f in found if f[2]], set()
    for subject in by_hash(who for _, _, who, _ in known)[:-1]:      # somebody is left to train on
        if len(tests) < TEST * len(known):
            tests |= {path for path, _, who, _ in known if who == subject}
    for emotion in {label for _, label, *_ in found}:
        paths = by_hash(path for path, label, who, _ in found if label == emotion and not who)
        tests |= set(paths[:max(1, round(TEST * len(paths))) if len(paths) > 1 else 0])
    return [(*row, "test" if row[0] in tests else "train") for *row, _ in found]


def tested_on_val(rows: list[tuple]) -> list[tuple]:
    """Rows whose validation split is their test split."""
    return [(*row, "test" if split == "val" else split) for *row, split in rows]


AFFECTNET = Dataset(
    "affectnet", "image",
    "train/ and val/ or test/ with a folder per class (name or 0..7), lists train.csv and test.csv "
    "of lines `image label`, training.csv and validation.csv with Manually_Annotated_Images/, or "
    "train_set/ and val_set/ with annotations/", affectnet)
RAFDB = Dataset(
    "rafdb", "image",
    "basic/EmoLabel/list_patition_label.txt with lines such as 'train_00001.jpg 5' and "
    "basic/Image/aligned/train_00001_aligned.jpg, or train/ and test/ with folders 1 to 7",
    rafdb, published={(None, "train"): 12271, (None, "test"): 3068})
LAYOUT = "a folder for each emotion, as in {}, with or without train/, val/, test/ above or below"
PHOTOS = Dataset("photos", "image", LAYOUT.format("happy/001.jpg"), own)
CLIPS = Dataset("clips", "video", LAYOUT.format("happy/001.mp4 or happy/001/0001.jpg"),
                partial(own, clips=True))
