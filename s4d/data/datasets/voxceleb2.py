"""VoxCeleb2: unlabelled clips of speaking people, by person; used for pre-training."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..media import VIDEOS
from .tables import cached_tree

KIND, FOLDS, ORDERS = "video", (), ()
LAYOUT = "dev/mp4/id00012/<video>/00001.mp4"
PUBLISHED = {(None, None): 1092009}      # 283 of them are unreadable


def rows(root: Path, fold: None = None, order: None = None) -> Iterator[tuple]:
    """(path, None, person, "train") of every clip of the development part; a million are listed once and found in a cache later."""
    for path in cached_tree(root, "dev/mp4", "id", VIDEOS):
        yield path, None, sys.intern(path.split("/", 3)[2]), "train"
