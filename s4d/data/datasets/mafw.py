"""MAFW: clips labelled with eleven emotions, five folds; the lists of single labels."""
from __future__ import annotations

from pathlib import Path

from ...emotions import ORDERS as NAMES
from ..media import VIDEOS
from .lists import Files, fold_lists, listed_rows

KIND, FOLDS, ORDERS = "video", (1, 2, 3, 4, 5), ("mafw", "mafw-mae-dfer", "mafw-dfer-clip")
LAYOUT = ("single/no_caption/set_1/train.txt and test.txt with lines such as '00025.mp4 anger', or set_1/train.csv and test.csv with "
          "header video_name,labels, and clips in clips/ or frames in frames_crop_align_224/")
LISTED = 9172
MEDIA = ("frames_crop_align_224", "frames", "clips", "Clips", "data/clips")
LISTS = (("single/no_caption/set_{fold}/{split}.txt", 0), ("set_{fold}/{split}.csv", 0), ("single/set_{fold}/{split}.csv", 0))
PUBLISHED = {(1, "train"): dict(zip(NAMES["mafw"], (1112, 732, 188, 145, 511, 500, 993, 209, 910, 1176, 857))),
             **{(k, "test"): n for k, n in enumerate((1839, 1837, 1833, 1832, 1831), 1)}}
PUBLISHED |= {(k, "train"): LISTED - PUBLISHED[k, "test"] for k in FOLDS[1:]}      # every clip is in one test part


def rows(root: Path, fold: int, order: str | None = None) -> list[tuple]:
    """(path, label, None, split) of a fold; integers are in one of three orders, which their counts tell."""
    found, base = fold_lists(root, LISTS, fold, "mafw", LAYOUT)
    return listed_rows(root, "mafw", found, Files(root, MEDIA, VIDEOS, frames=True), LAYOUT, orders=ORDERS, classes=11, base=base,
                       counts=PUBLISHED[1, "train"], order=order)
