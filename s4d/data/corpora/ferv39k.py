"""FERV39K: clips of 22 scenes labelled with seven emotions, one split."""
from __future__ import annotations

from pathlib import Path

from ...emotions import ORDERS
from ..lists import Files, fold_lists, listed_rows
from ..media import VIDEOS
from ..tables import Dataset

LAYOUT = ("4_setups/All_scenes/train_All.csv and test_All.csv with lines such as "
          "'Action/Happy/0118 Happy', or train.csv and test.csv with header path,id, and frames or "
          "clips in 2_ClipsforFaceCrop/Action/Happy/0118")
MEDIA = ("2_ClipsforFaceCrop", "")
LISTS = (("4_setups/All_scenes/{split}_All.csv", 0), ("All_scenes/{split}_All.csv", 0),
         ("{split}_All.csv", 0), ("{split}.csv", 0))
TRAIN = dict(zip(ORDERS["ferv39k"], (5906, 1833, 1680, 5854, 7790, 5523, 2502), strict=True))
TEST = dict(zip(ORDERS["ferv39k"], (1487, 467, 431, 1473, 1958, 1393, 638), strict=True))


def rows(root: Path, fold: None = None, label_order: str | None = None) -> list[tuple]:
    """(path, label, None, split); integers are in the order of S4D's lists or in DFEW's."""
    found, base = fold_lists(root, LISTS, None, "ferv39k", LAYOUT)
    media = Files(root, MEDIA, VIDEOS, frames=True)
    return listed_rows(root, "ferv39k", found, media, LAYOUT, orders=("ferv39k", "dfew"),
                       num_classes=7, base=base, counts=TRAIN, label_order=label_order)


DATASET = Dataset(
    "ferv39k", "video", LAYOUT, rows, orders=("ferv39k", "dfew"), listed=38935,
    published={(None, "train"): TRAIN, (None, "test"): TEST})
