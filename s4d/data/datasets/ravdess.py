"""RAVDESS: 24 actors speak two sentences in eight emotions (open: CC BY-NC-SA 4.0); five folds over actors, this project's convention.

Calm counts as neutral. Song is left out. Of a performance stored with and without sound, one file is kept.
"""
from __future__ import annotations

from pathlib import Path

from ..media import VIDEOS
from .acted import FOLDS, rows_of
from .tables import files, folders

__all__ = ["FOLDS", "rows"]

KIND, ORDERS = "video", ()
LAYOUT = "Actor_01/01-01-03-01-01-01-01.mp4"
EMOTIONS = {"01": "neutral", "02": "neutral", "03": "happiness", "04": "sadness", "05": "anger", "06": "fear", "07": "disgust",
            "08": "surprise"}
PUBLISHED = {(None, None): 1440}      # 24 actors, 60 spoken performances each


def rows(root: Path, fold: int, order: None = None) -> list[tuple]:
    """(path, label, actor, split); names are modality, channel, emotion, intensity, statement, repetition, actor."""
    names = [f"{actor.name}/{n}" for actor in folders(root) if actor.name.startswith("Actor_") for n in files(actor, VIDEOS)]
    kept = {}
    for name in names:
        fields = Path(name).stem.split("-")
        if fields[1:2] != ["02"]:
            kept.setdefault("-".join(fields[1:]), name)      # sorted: 01, with sound, comes before 02, without
    return rows_of(list(kept.values()), r"\d\d-01-(?P<emotion>\d\d)(-\d\d){3}-(?P<actor>\d\d)", EMOTIONS, fold, root,
                   "01-01-03-01-01-01-01.mp4")
