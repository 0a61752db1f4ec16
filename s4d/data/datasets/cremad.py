"""CREMA-D: 91 actors speak twelve sentences in six emotions (open: ODbL); five folds over actors, this project's convention."""
from __future__ import annotations

from pathlib import Path

from ..media import VIDEOS
from .acted import FOLDS, rows_of
from .tables import files

__all__ = ["FOLDS", "rows"]

KIND, ORDERS = "video", ()
LAYOUT = "VideoFlash/1001_DFA_ANG_XX.flv"
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness", "NEU": "neutral", "SAD": "sadness"}
PUBLISHED = {(None, None): 7442}


def rows(root: Path, fold: int, order: None = None) -> list[tuple]:
    """(path, label, actor, split); names are actor, sentence, emotion, level."""
    names = [f"VideoFlash/{n}" for n in files(root / "VideoFlash", VIDEOS)]
    return rows_of(names, r"(?P<actor>\d{4})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_[A-Z]{1,2}", EMOTIONS, fold, root, "1001_DFA_ANG_XX.flv")
