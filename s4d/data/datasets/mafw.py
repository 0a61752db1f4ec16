"""MAFW: clips labelled with eleven emotions, five folds; the official lists of single labels."""
from __future__ import annotations

from pathlib import Path

from ...emotions import canonical
from ..media import VIDEOS
from .tables import DatasetError, files

KIND, FOLDS = "video", (1, 2, 3, 4, 5)
LAYOUT = "single/no_caption/set_1/train.txt and test.txt with lines such as '00025.mp4 anger', and the clips in clips/"


def rows(root: Path, fold: int) -> list[tuple]:
    """(path, label, None, split) of a fold.

    Raises:
        DatasetError: for a missing or empty list, a line of another form, or a folder without clips.
        LabelError: for a label outside the eleven.
    """
    there, out = files(root / "clips", VIDEOS), []
    if not there:
        raise DatasetError(f"mafw in {root} holds no clips: expected {LAYOUT}")
    for split in ("train", "test"):
        listed = root / "single" / "no_caption" / f"set_{fold}" / f"{split}.txt"
        if not listed.is_file():
            raise DatasetError(f"mafw in {root} has no list {listed.relative_to(root)}: expected {LAYOUT}")
        lines = [line.split() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not lines:
            raise DatasetError(f"list {listed} holds no clips: copy it again")
        for line in lines:
            if len(line) != 2:
                raise DatasetError(f"list {listed} has the line {' '.join(line)!r}: expected a clip and its emotion, as in '00025.mp4 anger'")
            out.append((f"clips/{line[0]}", canonical(line[1], 11, str(listed)), None, split))
    return out


def unlisted(root: Path, listed: set[str]) -> list[str]:
    """Clips on disk without an entry."""
    return sorted(p for p in (f"clips/{n}" for n in files(root / "clips", VIDEOS)) if p not in listed)
