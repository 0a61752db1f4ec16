"""Clips of one's own, a folder a class: video files, or folders of frames."""
from __future__ import annotations

from pathlib import Path

from . import own

KIND, FOLDS, ORDERS, PEOPLE = "video", (), (), True
LAYOUT = "a folder for each emotion, as in happy/001.mp4 or happy/001/0001.jpg, with or without train/, val/ and test/ above or below"
PUBLISHED = {}


def rows(root: Path, fold: None = None, order: None = None, people: str | None = None) -> list[tuple]:
    """(path, label, person or None, split)."""
    return own.rows(root, True, people)
