"""FERV39K: clips of 22 scenes labelled with seven emotions, one split."""
from __future__ import annotations

from pathlib import Path

from ...emotions import ORDERS as NAMES
from ..media import VIDEOS
from .lists import Files, fold_lists, listed_rows

KIND, FOLDS, ORDERS = "video", (), ("ferv39k", "dfew")
LAYOUT = ("4_setups/All_scenes/train_All.csv and test_All.csv with lines such as 'Action/Happy/0118 Happy', or train.csv and test.csv with "
          "header path,id, and frames or clips in 2_ClipsforFaceCrop/Action/Happy/0118")
LISTED = 38935
MEDIA = ("2_ClipsforFaceCrop", "")
LISTS = (("4_setups/All_scenes/{split}_All.csv", 0), ("All_scenes/{split}_All.csv", 0), ("{split}_All.csv", 0), ("{split}.csv", 0))
PUBLISHED = {(None, "train"): dict(zip(NAMES["ferv39k"], (5906, 1833, 1680, 5854, 7790, 5523, 2502))),
             (None, "test"): dict(zip(NAMES["ferv39k"], (1487, 467, 431, 1473, 1958, 1393, 638)))}


def rows(root: Path, fold: None = None, order: str | None = None) -> list[tuple]:
    """(path, label, None, split); integers are in the order of S4D's lists or in DFEW's, which folders or counts tell."""
    found, base = fold_lists(root, LISTS, None, "ferv39k", LAYOUT)
    return listed_rows(root, "ferv39k", found, Under(root, MEDIA, VIDEOS, frames=True), LAYOUT, orders=ORDERS, classes=7, base=base,
                       counts=PUBLISHED[None, "train"], order=order)


class Under(Files):
    """Lists name clips with or without the folder that holds them all."""

    def find(self, name: str) -> str:
        return super().find(name.removeprefix("2_ClipsforFaceCrop/") if self.bases[0] else name)
