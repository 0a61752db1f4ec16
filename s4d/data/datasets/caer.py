"""CAER: clips of television series labelled with seven emotions, one split with a validation part."""
from __future__ import annotations

from functools import partial
from pathlib import Path

from ..media import VIDEOS
from .lists import class_folders, labels_of

KIND, FOLDS, ORDERS = "video", (), ()
LAYOUT = "train/, validation/ and test/ with a folder for each emotion, as in train/Happy/0001.avi"
PUBLISHED = {(None, None): 13201}


def rows(root: Path, fold: None = None, order: None = None) -> list[tuple]:
    """(path, label, None, split); the folders name the emotions."""
    return class_folders(root, VIDEOS, partial(labels_of, orders=ORDERS, classes=7, order=order))
