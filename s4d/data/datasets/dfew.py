"""DFEW: film clips labelled with seven emotions, five folds; every clip is in exactly one test fold."""
from __future__ import annotations

from pathlib import Path

from ...emotions import ORDERS as NAMES
from ..media import VIDEOS
from .lists import Files, fold_lists, listed_rows

KIND, FOLDS, ORDERS = "video", (1, 2, 3, 4, 5), ("dfew",)
LAYOUT = ("EmoLabel_DataSplit/train(single-labeled)/set_1.csv and test(single-labeled)/set_1.csv (or train_set_1.csv and test_set_1.csv), "
          "header video_name,label, and clips in Clip/original/ or frames in Clip/jpg_256/ or clip_jpg_256/")
LISTED = 11697            # clips in the complete lists; the others on disk have no single label
MEDIA = ("Clip/jpg_256", "clip_jpg_256", "Clip/original")      # aligned frames come first: the original clips show whole scenes
# A fold's lists, and the integer of the first class where the numbers themselves do not tell.
LISTS = (("EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv", 1), ("{split}_set_{fold}.csv", 0),
         ("EmoLabel_DataSplit/{split}_set_{fold}.csv", 0))
PUBLISHED = {(1, "train"): dict(zip(NAMES["dfew"], (1956, 1515, 2135, 1738, 1175, 116, 721))),
             (1, "test"): dict(zip(NAMES["dfew"], (489, 379, 534, 435, 294, 29, 181))),
             **{(k, "test"): n for k, n in enumerate((2341, 2340, 2339, 2336), 2)}}
PUBLISHED |= {(k, "train"): LISTED - PUBLISHED[k, "test"] for k in FOLDS[1:]}      # every clip is in one test part


def rows(root: Path, fold: int, order: str | None = None) -> list[tuple]:
    """(path, label, None, split) of a fold; labels count from 1 in the official lists and from 0 in those of S4D."""
    found, base = fold_lists(root, LISTS, fold, "dfew", LAYOUT)
    return listed_rows(root, "dfew", found, Files(root, MEDIA, VIDEOS, frames=True), LAYOUT, orders=ORDERS, classes=7, base=base,
                       order=order)
