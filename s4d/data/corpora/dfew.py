"""DFEW: film clips labelled with seven emotions, five folds; each clip is in one test fold."""
from __future__ import annotations

from pathlib import Path

from ...emotions import ORDERS
from ..lists import Files, fold_lists, listed_rows
from ..media import VIDEOS
from ..tables import Dataset

LAYOUT = ("EmoLabel_DataSplit/train(single-labeled)/set_1.csv and test(single-labeled)/set_1.csv "
          "(or train_set_1.csv and test_set_1.csv), header video_name,label, and clips in "
          "Clip/original/ or frames in Clip/jpg_256/ or clip_jpg_256/")
LISTED = 11697            # clips in the complete lists; the others on disk have no single label
MEDIA = ("Clip/jpg_256", "clip_jpg_256", "Clip/original")      # aligned frames before whole scenes
# a fold's lists, and the integer of the first class where the numbers themselves do not tell
LISTS = (("EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv", 1),
         ("{split}_set_{fold}.csv", 0), ("EmoLabel_DataSplit/{split}_set_{fold}.csv", 0))
TRAIN_1 = dict(zip(ORDERS["dfew"], (1956, 1515, 2135, 1738, 1175, 116, 721), strict=True))
TEST_1 = dict(zip(ORDERS["dfew"], (489, 379, 534, 435, 294, 29, 181), strict=True))
TESTS = {2: 2341, 3: 2340, 4: 2339, 5: 2336}


def rows(root: Path, fold: int, label_order: str | None = None) -> list[tuple]:
    """(path, label, None, split); labels count from 1 in the official lists, from 0 in S4D's."""
    found, base = fold_lists(root, LISTS, fold, "dfew", LAYOUT)
    media = Files(root, MEDIA, VIDEOS, frames=True)
    return listed_rows(root, "dfew", found, media, LAYOUT, orders=("dfew",), num_classes=7,
                       base=base, label_order=label_order)


DATASET = Dataset(
    "dfew", "video", LAYOUT, rows, folds=(1, 2, 3, 4, 5), orders=("dfew",), listed=LISTED,
    published={(1, "train"): TRAIN_1, (1, "test"): TEST_1,
               **{(k, "test"): n for k, n in TESTS.items()},
               **{(k, "train"): LISTED - n for k, n in TESTS.items()}})
