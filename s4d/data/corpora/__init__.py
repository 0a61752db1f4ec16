"""Datasets on disk -> index tables. To add one, write a `Dataset` and list it here."""
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from ...config import Source
from ...emotions import vocabulary
from ..lists import Dataset, subjects_of
from ..media import DatasetError, stamps
from . import clips, photos

REGISTRY = {d.name: d for d in (
    photos.AFFECTNET, clips.CAER, photos.CLIPS, clips.CREMAD, clips.DFEW, clips.FERV39K, clips.MAFW,
    photos.PHOTOS, photos.RAFDB, clips.RAVDESS, clips.VOXCELEB2)}


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
    Returns: path (relative to root), label (emotion name or None), subject (text or None), split
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
    if given and dataset not in (photos.PHOTOS, photos.CLIPS):
        raise DatasetError(f"{name} tells its subjects itself, if at all: leave subject_separator "
                           "out, it is for `photos` and `clips` of your own")
    rows = sorted(dataset.rows(root, fold, label_order, **given), key=lambda row: (row[3], row[0]))
    columns = ["path", "label", "subject", "split"]
    out = pd.DataFrame(rows, columns=columns, dtype=object)      # an unknown label stays None
    out["fold"] = pd.array([fold] * len(out), dtype="Int64")
    if out.empty:
        raise DatasetError(f"{name} in {root} holds no samples: expected {dataset.layout}")
    listed = out["path"].map(subjects_of(root)).astype(object)
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


def split_validation(index: pd.DataFrame, val_fraction: float = 0.15,
                     seed: int = 0) -> pd.DataFrame:
    """A copy of an index table with split "val" for about `val_fraction` of its train rows: whole
    subjects where they are known, else class by class."""
    out, rng = index.copy(), np.random.default_rng(seed)
    train = out[out["split"] == "train"]
    counts = train["subject"].value_counts().sort_index()
    order = counts.index.to_numpy()[rng.permutation(len(counts))]
    target, total, taken = val_fraction * counts.sum(), 0, set()
    for name in order[:-1]:      # as near as whole subjects come; one is left to train on
        more = total + int(counts[name])
        if not taken or abs(more - target) < abs(total - target):
            taken.add(name)
            total = more
    chosen = list(train.index[train["subject"].isin(taken)])
    for _, rows in train[train["subject"].isna()].groupby(train["label"].fillna("")):
        count = max(1, round(val_fraction * len(rows))) if len(rows) > 1 else 0
        chosen += list(rng.permutation(rows.index.to_numpy())[:count])
    if not chosen:
        raise DatasetError(f"no validation split can be taken from {len(train)} training samples "
                           f"of {len(counts)} subject(s): add a subject, or samples of a class")
    out.loc[chosen, "split"] = "val"
    return out


def fingerprint(index: pd.DataFrame, root: str | Path) -> str:
    """Sixteen hex digits that name the data: path, label, split and size of each sample."""
    columns = [index[c].where(index[c].notna(), "") for c in ("path", "label", "split")]
    sizes = [size for size, _ in stamps(index["path"], root)]
    text = "".join("\t".join(map(str, row)) + "\n" for row in zip(*columns, sizes, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
