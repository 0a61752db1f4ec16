"""VoxCeleb2: unlabelled clips of speaking people, by person; used for pre-training."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..media import VIDEOS
from ..tables import Dataset, files, folders


def rows(root: Path, fold: None = None, label_order: None = None) -> Iterator[tuple]:
    """(path, None, person, "train") of every clip of the development part."""
    for person in folders(root / "dev/mp4"):
        for video in folders(person) if person.name.startswith("id") else []:
            for name in files(video, VIDEOS):
                yield f"dev/mp4/{person.name}/{video.name}/{name}", None, person.name, "train"


DATASET = Dataset(
    "voxceleb2", "video", "dev/mp4/id00012/<video>/00001.mp4", rows,
    published={(None, None): 1092009})      # 283 of them are unreadable
