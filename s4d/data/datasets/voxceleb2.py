"""VoxCeleb2: unlabelled clips of speaking people, by person; used for pre-training."""
from __future__ import annotations

from pathlib import Path

from ..media import VIDEOS
from .tables import files, folders

KIND, FOLDS = "video", ()
LAYOUT = "dev/mp4/id00012/<video>/00001.mp4"


def rows(root: Path, fold: None = None) -> list[tuple]:
    """(path, None, person, "train") of every clip of the development part."""
    return [(f"dev/mp4/{person.name}/{video.name}/{name}", None, person.name, "train")
            for person in folders(root / "dev/mp4") if person.name.startswith("id")
            for video in folders(person) for name in files(video, VIDEOS)]
