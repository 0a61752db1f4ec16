"""Datasets on disk -> index tables, one small module per dataset.

A dataset's module has KIND ("image" or "video"), FOLDS (their numbers, or none), ORDERS (keys of `s4d.emotions.ORDERS` that its
integers may be in, or none), LAYOUT (one line: what its folder must hold), PUBLISHED ({(fold, split): number of samples, or {emotion:
number}}; a split None is the whole) or `published(root, table)`, LISTED where complete lists leave out files on disk (their number of
samples), and `rows(root, fold, order)`, which lists (path relative to root, emotion name or None, subject or None, split); PEOPLE
where `rows` also takes `people`. To add a dataset, write such a module and enter it in REGISTRY.
"""
from __future__ import annotations

from pathlib import Path

import pandas as pd

from ...config import Source
from ...emotions import LabelError, vocabulary
from . import affectnet, caer, clips, cremad, dfew, ferv39k, mafw, photos, rafdb, ravdess, voxceleb2
from .tables import DatasetError, fingerprint, split_validation, stamps, table, with_subjects

__all__ = ["REGISTRY", "DatasetError", "LabelError", "fingerprint", "index", "split_validation", "stamps"]

REGISTRY = {"affectnet": affectnet, "caer": caer, "clips": clips, "cremad": cremad, "dfew": dfew, "ferv39k": ferv39k, "mafw": mafw,
            "photos": photos, "rafdb": rafdb, "ravdess": ravdess, "voxceleb2": voxceleb2}


def index(name: str, root: str | Path, fold: int | None = None, classes: int | None = None, order: str | None = None,
          task: str | None = None, people: str | None = None) -> pd.DataFrame:
    """The samples of a dataset, from its folders and lists; no picture is opened.

    Args:
        name: key of REGISTRY.
        root: the dataset's folder.
        fold: which fold, of datasets that have some.
        classes: 7, 8 or 11 keeps the samples of that vocabulary (AffectNet with 7 drops contempt); None keeps all.
        order: name of the order that a list's integers are in (a key of `s4d.emotions.ORDERS`), where the list does not tell.
        task: "image" or "video" that the samples are for; None takes any.
        people: the sign that ends a person's name in a file's name; for photos and clips of one's own.
    Returns:
        table: path (relative to root), label (emotion name or None), subject (text or None), split (train, validation,
        test), fold, frames (1 for images; missing for clips, which would have to be opened). The order is fixed.
    Raises:
        DatasetError: for an unknown dataset, fold or order, for one of photos where clips are wanted or the other way round, for a
            folder or list that is missing or empty, for a listed path that is not safe, and for integers whose order nothing tells.
        LabelError: for a label outside the dataset's vocabulary.
    """
    module, root = find(name, root), Path(root)
    if task not in (None, module.KIND):
        holds = {"image": "photos", "video": "clips"}
        raise DatasetError(f"{name} holds {holds[module.KIND]} and was named as the source of {holds[task]}: choose one of "
                           f"{', '.join(n for n, m in sorted(REGISTRY.items()) if m.KIND == task)}")
    if fold is None and module.FOLDS:
        raise DatasetError(f"{name} has folds and none was chosen: give fold, one of {', '.join(map(str, module.FOLDS))}")
    if fold is not None and fold not in module.FOLDS:
        allowed = f"one of {', '.join(map(str, module.FOLDS))}" if module.FOLDS else "none, it has no folds"
        raise DatasetError(f"{name} has no fold {fold}: choose {allowed}")
    if people is not None and not getattr(module, "PEOPLE", False):
        raise DatasetError(f"{name} tells its people itself, if at all: leave people={people!r} out, it is for `photos` and `clips` of one's own")
    out = table(module.rows(root, fold, order, *([people] if people is not None else [])), fold, 1 if module.KIND == "image" else None)
    if out.empty:
        raise DatasetError(f"{name} in {root} holds no samples: expected {module.LAYOUT}")
    out = with_subjects(out, root)
    if classes is not None:
        out = out[out["label"].isna() | out["label"].isin(vocabulary(classes))].reset_index(drop=True)
    return out


def index_of(source: Source, task: str | None = None, classes: int | None = None) -> pd.DataFrame:
    """`index` of a dataset as a configuration names it.

    Args:
        task, classes: as for `index`.
    """
    return index(source.name, source.root, source.fold, classes, source.label_order, task, source.subject_separator)


def find(name: str, root: str | Path):
    """A dataset's module.

    Raises:
        DatasetError: for an unknown name or a missing folder.
    """
    if name not in REGISTRY:
        raise DatasetError(f"unknown dataset {name!r}: choose one of {', '.join(sorted(REGISTRY))}")
    if not Path(root).is_dir():
        raise DatasetError(f"{name}: there is no folder {root}: give the folder that holds {REGISTRY[name].LAYOUT}")
    return REGISTRY[name]
