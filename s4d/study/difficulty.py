"""How hard the embedded corpora are: simple readers of actions and pixels, and one frame of a clip.

A reader answers from the emotion that was drawn, from the true actions, or from raw pixels; a
trained model from one frame of a clip or from all of it.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..config import Finetune
from ..data import index, read_clip
from ..emotions import vocabulary
from ..faces.corpus import truth
from .stimuli import probabilities, subset

SIDE = 24                 # pixels a side of what the pixel reader sees, in grey
BOUND, ORACLE, PIXELS = "emotion shown", "true actions", "raw pixels"
MIDDLE, WHOLE = "true actions, middle frame", "true actions, whole clip"
INPUTS = {"image": (BOUND, ORACLE, PIXELS), "video": (BOUND, ORACLE, MIDDLE, WHOLE, PIXELS)}
STRENGTH = {ORACLE: 1.0, MIDDLE: 1.0, WHOLE: .03, PIXELS: 1e-3}    # C: less for more inputs


def difficulty(folder: str | Path, train: int = 2000, test: int = 600, fold: int = 1,
               seed: int = 0) -> pd.DataFrame:
    """Predict photos and clips by the simplest readers.

    "emotion shown" answers with the emotion that was drawn: where it differs from the label, the
    label is an error, and nobody can do better. The others are logistic regressions on the true
    actions of the apex frame, of a clip's middle frame, of all its frames (see `course`), and on
    the grey pixels of the apex frame.

    Args:
        train, test: at most so many samples are used.
        fold: test fold of the clips.
    Returns:
        the table of a run's predictions: path, subject, split, label, task, input, seed, predicted.
    """
    known = truth(folder)
    actions = known.columns[known.columns.str.startswith("AU")]
    apex = known[known["frame"] == known["apex"]].set_index("path")
    out = []
    for task, name, which in (("image", "affectnet", None), ("video", "dfew", fold)):
        rows = index(name, Path(folder) / name, fold=which)
        rows = rows.assign(path=name + "/" + rows["path"]).sample(frac=1, random_state=seed)
        fit, held = rows[rows["split"] == "train"][:train], rows[rows["split"] == "test"][:test]
        clips = course(known[known["corpus"] == name], actions) if task == "video" else {}
        for kind in INPUTS[task]:
            if kind == BOUND:
                predicted = apex.loc[held["path"], "performed"].to_numpy()
            else:
                x, y = (_inputs(kind, part["path"], folder, apex, actions, clips)
                        for part in (fit, held))
                reader = LogisticRegression(C=STRENGTH[kind], max_iter=200, class_weight="balanced")
                predicted = make_pipeline(StandardScaler(), reader).fit(x, fit["label"]).predict(y)
            out.append(held[["path", "subject", "split", "label"]].assign(
                task=task, input=kind, seed=seed, predicted=predicted, trained=len(fit)))
    return pd.concat(out, ignore_index=True)


def _inputs(kind: str, paths: pd.Series, folder, apex: pd.DataFrame, actions: pd.Index,
            clips: dict) -> np.ndarray:
    if kind == ORACLE:
        return apex.loc[paths, actions].to_numpy()
    if kind == PIXELS:
        pictures = (read_clip(Path(folder) / p, [int(apex.loc[p, "apex"])], size=SIDE)[0]
                    for p in paths)
        return np.stack([picture.float().mean(0).flatten().numpy() for picture in pictures])
    return np.stack([clips[p][kind == WHOLE] for p in paths])


def course(known: pd.DataFrame, actions: pd.Index) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """True actions of each clip: path -> (of the middle frame `[46]`, of the whole clip `[184]`).

    The whole clip is each action's largest and mean intensity, and by how much both are larger in
    the first half than in the second: which of two expressions came first.
    """
    values, out = known[actions].to_numpy(), {}
    groups = known.reset_index(drop=True).groupby("path", sort=False).indices
    for path, rows in groups.items():
        clip, half = values[rows], len(rows) // 2
        first, then = clip[:half], clip[half:]
        order = first.max(0) - then.max(0), first.mean(0) - then.mean(0)
        out[path] = clip[half], np.concatenate([clip.max(0), clip.mean(0), *order])
    return out


def frame_and_clip(run, cfg: Finetune, name: str,
                   unreadable: dict[str, str] | None = None) -> pd.DataFrame:
    """Predict each test clip by a trained model that sees the clip, or its middle frame all along.

    `unreadable` gets {path: cause} of the clips that cannot be read.
    Returns: path, subject, split, label, predicted, task, seed, input ("<name>, whole clip" or
    "<name>, middle frame").
    """
    x, rows = subset(cfg, "video", limit=10 ** 9, unreadable=unreadable)
    names = np.array(vocabulary(cfg.video.num_classes))
    model, middle = run.load(), x.shape[2] // 2
    still = x[:, :, middle:middle + 1].expand_as(x)
    out = []
    for seen, clips in (("whole clip", x), ("middle frame", still)):
        predicted = names[probabilities(model, clips, "video").argmax(1)]
        out.append(rows.assign(predicted=predicted, task="video", seed=cfg.seed,
                               input=f"{name}, {seen}"))
    return pd.concat(out, ignore_index=True)
