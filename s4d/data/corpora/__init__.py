"""Datasets on disk -> index tables. To add one, write a `Dataset` and list it here."""
from __future__ import annotations

from pathlib import Path

import pandas as pd

from ...config import Source
from ...emotions import vocabulary
from ..tables import Dataset, DatasetError, listed_subjects, table
from . import clips, own, photos

REGISTRY = {d.name: d for d in (
    photos.AFFECTNET, clips.CAER, own.CLIPS, clips.CREMAD, clips.DFEW, clips.FERV39K, clips.MAFW,
    own.PHOTOS, photos.RAFDB, clips.RAVDESS, clips.VOXCELEB2)}


def find(name: str, root: str | Path) -> Dataset:
    """A dataset by name; its folder must exist."""
    if name not in REGISTRY:
        raise DatasetError(f"unknown dataset {name!r}: choose one of {', '.join(sorted(REGISTRY))}")
    if not Path(root).is_dir():
        raise DatasetError(f"{name}: there is no folder {root}: give the folder that holds "
                           f"{REGISTRY[name].layout}")
    return REGISTRY[name]


def index(name: str, root: str | Path, fold: int | None = None, num_classes: int | None = None,
          label_order: str | None = None, task: str | None = None,
          subject_separator: str | None = None) -> pd.DataFrame:
    """The samples of a dataset, from its folders and lists; no picture is opened.

    Args:
        num_classes: 7, 8 or 11 keeps the samples of that vocabulary; None keeps all.
        label_order: key of `s4d.emotions.ORDERS`, where a list does not tell it.
        task: "image" or "video" that the samples are for; None takes any.
        subject_separator: the sign that ends a subject's name in file names of an own folder.
    Returns:
        table: path (relative to root), label (emotion name or None), subject (text or None), split
        (train, val, test) and fold, in a fixed order.
    """
    dataset, root = find(name, root), Path(root)
    if task not in (None, dataset.task):
        others = ", ".join(n for n, d in sorted(REGISTRY.items()) if d.task == task)
        raise DatasetError(f"{name} holds {dataset.task}s and was named as the source of {task}s: "
                           f"choose one of {others}")
    if fold not in (dataset.folds or (None,)):
        allowed = ", ".join(map(str, dataset.folds)) or "None, since it has none"
        raise DatasetError(f"{name} has no fold {fold}: choose {allowed}")
    given = {} if subject_separator is None else {"subject_separator": subject_separator}
    if given and dataset not in (own.PHOTOS, own.CLIPS):
        raise DatasetError(f"{name} tells its subjects itself, if at all: leave subject_separator "
                           "out, it is for `photos` and `clips` of your own")
    out = table(dataset.rows(root, fold, label_order, **given), fold)
    if out.empty:
        raise DatasetError(f"{name} in {root} holds no samples: expected {dataset.layout}")
    listed = out["path"].map(listed_subjects(root)).astype(object)
    out["subject"] = listed.where(listed.notna(), out["subject"])
    if num_classes is None:
        return out
    kept = out["label"].isna() | out["label"].isin(vocabulary(num_classes))
    return out[kept].reset_index(drop=True)


def index_of(source: Source, task: str | None = None,
             num_classes: int | None = None) -> pd.DataFrame:
    """`index` of a dataset as a configuration names it."""
    return index(source.name, source.root, source.fold, num_classes, source.label_order, task,
                 source.subject_separator)
