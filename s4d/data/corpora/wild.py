"""DFEW, FERV39K and MAFW: film clips labelled by lists, one list a fold and split."""
from __future__ import annotations

from functools import partial
from pathlib import Path

from ...emotions import ORDERS
from ..lists import Files, labels_of, read_list
from ..media import VIDEOS
from ..tables import Dataset, DatasetError


def rows(root: Path, fold: int | None, label_order: str | None, name: str, layout: str,
         lists: tuple[str, ...], media: tuple[str, ...], **reading) -> list[tuple]:
    """(path, label, None, split) of the first layout of `lists` (with {split} and {fold}) there is.

    Clips or frames are in one of the folders `media`, the preferred first; `labels_of` takes the
    `reading`.
    """
    what = f"fold {fold}" if fold else "train and test"
    for pattern in lists:
        found = {s: root / pattern.format(split=s, fold=fold) for s in ("train", "test")}
        there = [s for s, path in found.items() if path.is_file()]
        if len(there) == 1:
            missing = found["test" if there == ["train"] else "train"]
            raise DatasetError(f"{name} {what} has {found[there[0]].name} but no {missing}: copy "
                               "the list of the same release")
        if there:
            break
    else:
        raise DatasetError(f"{name} in {root} has no lists of {what}: expected {layout}")
    clips = Files(root, media, VIDEOS, frames=True)
    if not clips.bases:
        raise DatasetError(f"{name} in {root} holds no clips: expected {layout}")
    entries = {split: read_list(path) for split, path in found.items()}
    everything = [(split, e) for split, listed in entries.items() for e in listed]
    base = int("(single-labeled)" in pattern)      # DFEW's official lists count from 1
    labels = labels_of([e for _, e in everything], base=base, label_order=label_order,
                       sample=entries["train"], **reading)
    return [(clips.find(e.name), label, None, split)
            for (split, e), label in zip(everything, labels, strict=True)]


def dataset(name: str, lists: tuple[str, ...], media: tuple[str, ...], layout: str, listed: int,
            train: tuple[int, ...], tests: dict, orders: tuple[str, ...]) -> Dataset:
    """A dataset whose lists' samples are published by fold, or by class as a tuple."""
    def by_class(known: int | tuple) -> int | dict:
        return dict(zip(ORDERS[name], known, strict=True)) if isinstance(known, tuple) else known

    published = {(k, "test"): by_class(n) for k, n in tests.items()}
    published |= {(k, "train"): listed - n for k, n in tests.items() if isinstance(n, int)}
    first, counts = next(iter(tests)), by_class(train)
    published[first, "train"] = counts
    read = partial(rows, name=name, layout=layout, lists=lists, media=media, orders=orders,
                   num_classes=len(train), counts=counts)
    folds = () if first is None else tuple(tests)
    return Dataset(name, "video", layout, read, folds, orders, published, listed)


# Each clip is in one test fold; those without a single label are in no list.
DFEW = dataset(
    "dfew", ("EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv", "{split}_set_{fold}.csv",
             "EmoLabel_DataSplit/{split}_set_{fold}.csv"),
    ("Clip/jpg_256", "clip_jpg_256", "Clip/original"),      # aligned frames before whole scenes
    "EmoLabel_DataSplit/train(single-labeled)/set_1.csv and test(single-labeled)/set_1.csv (or "
    "train_set_1.csv and test_set_1.csv), header video_name,label, and clips in Clip/original/ or "
    "frames in Clip/jpg_256/ or clip_jpg_256/",
    listed=11697, train=(1956, 1515, 2135, 1738, 1175, 116, 721), orders=("dfew",),
    tests={1: (489, 379, 534, 435, 294, 29, 181), 2: 2341, 3: 2340, 4: 2339, 5: 2336})
# Clips of 22 scenes; integers are in the order of S4D's lists or in DFEW's.
FERV39K = dataset(
    "ferv39k", ("4_setups/All_scenes/{split}_All.csv", "All_scenes/{split}_All.csv",
                "{split}_All.csv", "{split}.csv"), ("2_ClipsforFaceCrop", ""),
    "4_setups/All_scenes/train_All.csv and test_All.csv with lines such as 'Action/Happy/0118 "
    "Happy', or train.csv and test.csv with header path,id, and frames or clips in "
    "2_ClipsforFaceCrop/Action/Happy/0118",
    listed=38935, train=(5906, 1833, 1680, 5854, 7790, 5523, 2502), orders=("ferv39k", "dfew"),
    tests={None: (1487, 467, 431, 1473, 1958, 1393, 638)})
# Eleven emotions, the lists of single labels; integers are in one of three orders.
MAFW = dataset(
    "mafw", ("single/no_caption/set_{fold}/{split}.txt", "set_{fold}/{split}.csv",
             "single/set_{fold}/{split}.csv"),
    ("frames_crop_align_224", "frames", "clips", "Clips", "data/clips"),
    "single/no_caption/set_1/train.txt and test.txt with lines such as '00025.mp4 anger', or "
    "set_1/train.csv and test.csv with header video_name,labels, and clips in clips/ or frames in "
    "frames_crop_align_224/",
    listed=9172, train=(1112, 732, 188, 145, 511, 500, 993, 209, 910, 1176, 857),
    tests={1: 1839, 2: 1837, 3: 1833, 4: 1832, 5: 1831},
    orders=("mafw", "mafw-mae-dfer", "mafw-dfer-clip"))
