"""MAFW: clips labelled with eleven emotions, five folds; the lists of single labels."""
from __future__ import annotations

from pathlib import Path

from ...emotions import ORDERS
from ..lists import Files, fold_lists, listed_rows
from ..media import VIDEOS
from ..tables import Dataset

LAYOUT = ("single/no_caption/set_1/train.txt and test.txt with lines such as '00025.mp4 anger', or "
          "set_1/train.csv and test.csv with header video_name,labels, and clips in clips/ or "
          "frames in frames_crop_align_224/")
LISTED = 9172
MEDIA = ("frames_crop_align_224", "frames", "clips", "Clips", "data/clips")
LISTS = (("single/no_caption/set_{fold}/{split}.txt", 0), ("set_{fold}/{split}.csv", 0),
         ("single/set_{fold}/{split}.csv", 0))
NAMES = ("mafw", "mafw-mae-dfer", "mafw-dfer-clip")
TRAIN_1 = dict(zip(ORDERS["mafw"], (1112, 732, 188, 145, 511, 500, 993, 209, 910, 1176, 857),
                   strict=True))
TESTS = {1: 1839, 2: 1837, 3: 1833, 4: 1832, 5: 1831}


def rows(root: Path, fold: int, label_order: str | None = None) -> list[tuple]:
    """(path, label, None, split); integers are in one of three orders, which their counts tell."""
    found, base = fold_lists(root, LISTS, fold, "mafw", LAYOUT)
    media = Files(root, MEDIA, VIDEOS, frames=True)
    return listed_rows(root, "mafw", found, media, LAYOUT, orders=NAMES, num_classes=11, base=base,
                       counts=TRAIN_1, label_order=label_order)


DATASET = Dataset(
    "mafw", "video", LAYOUT, rows, folds=(1, 2, 3, 4, 5), orders=NAMES, listed=LISTED,
    published={**{(k, "test"): n for k, n in TESTS.items()},
               **{(k, "train"): LISTED - n for k, n in TESTS.items()}, (1, "train"): TRAIN_1})
