"""How hard the embedded corpora are: a linear classifier that is told the true actions, and one that sees raw pixels."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..data import index, read_clip
from .corpus import truth

SIDE = 24                 # pixels a side of what the pixel classifier sees, in grey
INPUTS = ("true actions", "raw pixels")


def difficulty(folder: str | Path, train: int = 2000, test: int = 600, fold: int = 1, seed: int = 0) -> pd.DataFrame:
    """Predictions of logistic regressions on photos, and on clips at their apex frame.

    Args:
        folder: of the corpora.
        train, test: at most so many samples are used.
        fold: test fold of the clips.
        seed: of the choice of samples.
    Returns:
        the table of a run's predictions: task, input, seed, path, subject, split, label, predicted.
    """
    known = truth(folder)
    known = known[known["frame"] == known["apex"]].set_index("path")
    actions = [c for c in known if c.startswith("AU")]
    out = []
    for task, name, which in (("image", "affectnet", None), ("video", "dfew", fold)):
        rows = index(name, Path(folder) / name, fold=which)
        rows = rows.assign(path=name + "/" + rows["path"]).sample(frac=1, random_state=seed)
        parts = {"train": rows[rows["split"] == "train"][:train], "test": rows[rows["split"] == "test"][:test]}
        for kind in INPUTS:
            x = {k: known.loc[p["path"], actions].to_numpy() if kind == INPUTS[0] else pixels(folder, p["path"], known["apex"])
                 for k, p in parts.items()}
            strength = 1.0 if kind == INPUTS[0] else 1e-3            # pixels outnumber samples: regularised harder
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200, class_weight="balanced"))
            model.fit(x["train"], parts["train"]["label"])
            out.append(parts["test"][["path", "subject", "split", "label"]].assign(
                task=task, input=kind, seed=seed, predicted=model.predict(x["test"]), trained=len(parts["train"])))
    return pd.concat(out, ignore_index=True)


def pixels(folder: str | Path, paths: pd.Series, apex: pd.Series) -> np.ndarray:
    """Grey pictures of the apex frames, flattened `[n, SIDE * SIDE]`."""
    grey = [read_clip(Path(folder) / p, [int(apex[p])], size=SIDE)[0].float().mean(0).flatten().numpy() for p in paths]
    return np.stack(grey)
