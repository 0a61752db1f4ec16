"""How hard the embedded corpora are: what the label's errors alone allow, linear classifiers that are told the true actions, one that
sees raw pixels, and a trained model that sees one frame of a clip or all of it."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..config import Finetune
from ..data import index, read_clip
from .corpus import truth

SIDE = 24                 # pixels a side of what the pixel classifier sees, in grey
BOUND, ORACLE, MIDDLE, WHOLE, PIXELS = "emotion shown", "true actions", "true actions, middle frame", "true actions, whole clip", "raw pixels"
INPUTS = {"image": (BOUND, ORACLE, PIXELS), "video": (BOUND, ORACLE, MIDDLE, WHOLE, PIXELS)}


def difficulty(folder: str | Path, train: int = 2000, test: int = 600, fold: int = 1, seed: int = 0) -> pd.DataFrame:
    """Predictions of the simplest readers of photos and clips.

    "emotion shown" answers with the emotion that was drawn: where it differs from the label, the label is an error, and nobody can
    do better. The others are logistic regressions on the true actions of the apex frame, of a clip's middle frame, of all its frames
    (see `course`), and on the grey pixels of the apex frame.

    Args:
        folder: of the corpora.
        train, test: at most so many samples are used.
        fold: test fold of the clips.
        seed: of the choice of samples.
    Returns:
        the table of a run's predictions: task, input, seed, path, subject, split, label, predicted.
    """
    known = truth(folder)
    actions = known.columns[known.columns.str.startswith("AU")]
    apex = known[known["frame"] == known["apex"]].set_index("path")
    out = []
    for task, name, which in (("image", "affectnet", None), ("video", "dfew", fold)):
        rows = index(name, Path(folder) / name, fold=which)
        rows = rows.assign(path=name + "/" + rows["path"]).sample(frac=1, random_state=seed)
        parts = {"train": rows[rows["split"] == "train"][:train], "test": rows[rows["split"] == "test"][:test]}
        told = course(known[known["corpus"] == name], actions) if task == "video" else {}
        readers = {ORACLE: lambda p: apex.loc[p, actions].to_numpy(), PIXELS: lambda p: pixels(folder, p, apex["apex"]),
                   MIDDLE: lambda p: np.stack([told[q][0] for q in p]), WHOLE: lambda p: np.stack([told[q][1] for q in p])}
        for kind in INPUTS[task]:
            if kind == BOUND:
                predicted = apex.loc[parts["test"]["path"], "performed"].to_numpy()
            else:
                strength = {ORACLE: 1.0, MIDDLE: 1.0, WHOLE: .03, PIXELS: 1e-3}[kind]     # the more inputs, the harder it is regularised
                model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200, class_weight="balanced"))
                model.fit(readers[kind](parts["train"]["path"]), parts["train"]["label"])
                predicted = model.predict(readers[kind](parts["test"]["path"]))
            out.append(parts["test"][["path", "subject", "split", "label"]].assign(
                task=task, input=kind, seed=seed, predicted=predicted, trained=len(parts["train"])))
    return pd.concat(out, ignore_index=True)


def course(known: pd.DataFrame, actions: pd.Index) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """True actions of each clip: path -> (those of the middle frame `[46]`, those of the whole clip `[184]`).

    The whole clip is told by each action's largest and mean intensity, wherever in the clip they lie, and by how much larger both
    are in the first half than in the second: which of two expressions came first.
    """
    values = known[actions].to_numpy()
    out = {}
    for path, rows in known.reset_index(drop=True).groupby("path", sort=False).indices.items():
        clip, half = values[rows], len(rows) // 2
        first, then = clip[:half], clip[half:]
        out[path] = clip[half], np.concatenate([clip.max(0), clip.mean(0), first.max(0) - then.max(0), first.mean(0) - then.mean(0)])
    return out


def frame_and_clip(run, cfg: Finetune, name: str, unreadable: dict[str, str] | None = None) -> pd.DataFrame:
    """What a trained model answers for each test clip when it sees the clip, and when it sees the middle frame all along.

    Args:
        run: finished fine-tuning run that reads clips.
        cfg: its configuration, with the data where they lie now.
        name: of the system.
        unreadable: gets {path: cause} of the clips that cannot be read.
    Returns:
        path, subject, split, label, predicted, task, seed, input ("<name>, whole clip" or "<name>, middle frame").
    """
    from ..study.stimuli import probabilities, subset
    from ..emotions import vocabulary
    x, rows = subset(cfg, "video", limit=10 ** 9, unreadable=unreadable)
    names = np.array(vocabulary(cfg.video.num_classes))
    model, middle = run.load(), x.shape[2] // 2
    seen = {f"{name}, whole clip": x, f"{name}, middle frame": x[:, :, middle:middle + 1].expand_as(x)}
    return pd.concat([rows.assign(predicted=names[probabilities(model, v, "video").argmax(1)], task="video", seed=cfg.seed, input=k)
                      for k, v in seen.items()], ignore_index=True)


def pixels(folder: str | Path, paths: pd.Series, apex: pd.Series) -> np.ndarray:
    """Grey pictures of the apex frames, flattened `[n, SIDE * SIDE]`."""
    grey = [read_clip(Path(folder) / p, [int(apex[p])], size=SIDE)[0].float().mean(0).flatten().numpy() for p in paths]
    return np.stack(grey)
