"""CAER: clips of television series labelled with seven emotions, one split with validation."""
from __future__ import annotations

from functools import partial
from pathlib import Path

from ..labels import labels_of
from ..lists import class_folders
from ..media import VIDEOS
from ..tables import Dataset


def rows(root: Path, fold: None = None, label_order: str | None = None) -> list[tuple]:
    """(path, label, None, split); the folders name the emotions."""
    read = partial(labels_of, orders=(), num_classes=7, label_order=label_order)
    return class_folders(root, VIDEOS, read)


DATASET = Dataset(
    "caer", "video",
    "train/, validation/ and test/ with a folder for each emotion, as in train/Happy/0001.avi",
    rows, published={(None, None): 13201})
