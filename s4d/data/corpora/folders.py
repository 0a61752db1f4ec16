"""CAER and VoxCeleb2: clips told by their folders alone."""
from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..lists import class_folders, labels_of
from ..media import VIDEOS
from ..tables import Dataset, files, folders


def caer_rows(root: Path, fold: None = None, label_order: str | None = None) -> list[tuple]:
    """Clips of television series, one split with validation; folders name the seven emotions."""
    read = partial(labels_of, orders=(), num_classes=7, label_order=label_order)
    return class_folders(root, VIDEOS, read)


def voxceleb2_rows(root: Path, fold: None = None, label_order: None = None) -> Iterator[tuple]:
    """Unlabelled clips of speaking people, the development part; used for pre-training."""
    for person in folders(root / "dev/mp4"):
        for video in folders(person) if person.name.startswith("id") else []:
            for name in files(video, VIDEOS):
                yield f"dev/mp4/{person.name}/{video.name}/{name}", None, person.name, "train"


CAER = Dataset(
    "caer", "video",
    "train/, validation/ and test/ with a folder for each emotion, as in train/Happy/0001.avi",
    caer_rows, published={(None, None): 13201})
VOXCELEB2 = Dataset(
    "voxceleb2", "video", "dev/mp4/id00012/<video>/00001.mp4", voxceleb2_rows,
    published={(None, None): 1092009})      # 283 of them are unreadable
