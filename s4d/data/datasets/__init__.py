"""Datasets on disk -> index tables, one small module per dataset.

A dataset's module has KIND ("image" or "video"), FOLDS (their numbers, or none), LAYOUT (one line: what its folder must
hold) and `rows(root, fold)`, which lists (path relative to root, emotion name or None, subject or None, split). To add a
dataset, write such a module and enter it in REGISTRY.
"""
from __future__ import annotations

from pathlib import Path

import pandas as pd

from ...emotions import LabelError, vocabulary
from . import affectnet, dfew, mafw, voxceleb2
from .tables import DatasetError, fingerprint, split_validation, stamps, table, with_subjects

__all__ = ["REGISTRY", "DatasetError", "LabelError", "fingerprint", "index", "split_validation", "stamps"]

REGISTRY = {"affectnet": affectnet, "dfew": dfew, "mafw": mafw, "voxceleb2": voxceleb2}


def index(name: str, root: str | Path, fold: int | None = None, classes: int | None = None) -> pd.DataFrame:
    """The samples of a dataset, from its folders and lists; no picture is opened.

    Args:
        name: key of REGISTRY.
        root: the dataset's folder.
        fold: which fold, of datasets that have some.
        classes: 7, 8 or 11 keeps the samples of that vocabulary (AffectNet with 7 drops contempt); None keeps all.
    Returns:
        table: path (relative to root), label (emotion name or None), subject (text or None), split (train, validation,
        test), fold, frames (1 for images; missing for clips, which would have to be opened). The order is fixed.
    Raises:
        DatasetError: for an unknown dataset or fold, and for a folder or list that is missing or empty.
        LabelError: for a label outside the dataset's vocabulary.
    """
    module, root = find(name, root), Path(root)
    if fold is None and module.FOLDS:
        raise DatasetError(f"{name} has folds and none was chosen: give fold, one of {', '.join(map(str, module.FOLDS))}")
    if fold is not None and fold not in module.FOLDS:
        allowed = f"one of {', '.join(map(str, module.FOLDS))}" if module.FOLDS else "none, it has no folds"
        raise DatasetError(f"{name} has no fold {fold}: choose {allowed}")
    found = module.rows(root, fold)
    if not found:
        raise DatasetError(f"{name} in {root} holds no samples: expected {module.LAYOUT}")
    out = with_subjects(table(found, fold, 1 if module.KIND == "image" else None), root)
    if classes is not None:
        out = out[out["label"].isna() | out["label"].isin(vocabulary(classes))].reset_index(drop=True)
    return out


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
