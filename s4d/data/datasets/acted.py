"""What CREMA-D and RAVDESS share: actors who perform emotions, labels in the files' names, no published split.

Five folds over actors are this project's convention: the actors, sorted, are dealt out in turn, so that nobody is tested who
was trained on.
"""
from __future__ import annotations

import re
from pathlib import Path

from ...emotions import LabelError
from .tables import DatasetError

FOLDS = (1, 2, 3, 4, 5)


def rows_of(names: list[str], pattern: str, emotions: dict[str, str], fold: int, where: Path, example: str) -> list[tuple]:
    """(path, label, actor, split) of files named by actor and emotion.

    Args:
        names: paths.
        pattern: of a file's stem, with the groups actor and emotion.
        emotions: code -> emotion.
    Raises:
        DatasetError: for a name of another form.
        LabelError: for an unknown code.
    """
    parsed = []
    for name in names:
        match = re.fullmatch(pattern, Path(name).stem)
        if not match:
            raise DatasetError(f"{name} in {where} is not named as its dataset's files are: expected a name such as {example}")
        if match["emotion"] not in emotions:
            raise LabelError(f"unknown label {match['emotion']!r} in {where}/{name}: expected one of {', '.join(emotions)}")
        parsed.append((name, emotions[match["emotion"]], match["actor"]))
    turn = {actor: i % len(FOLDS) + 1 for i, actor in enumerate(sorted({actor for *_, actor in parsed}))}
    return [(name, label, actor, "test" if turn[actor] == fold else "train") for name, label, actor in parsed]
