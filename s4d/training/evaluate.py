"""Predict indexed samples, several views each; score predictions."""
from __future__ import annotations

from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, recall_score

from ..data.dataset import Joint, Key, Samples, loader, to_model
from ..data.media import header, read_clip
from ..data.transforms import eval_views, normalise, test_indices
from ..emotions import vocabulary
from .parallel import gathered, rank, world


def war_uar(labels, predicted) -> tuple[float, float]:
    """Return accuracy (WAR), and the mean recall of the classes that occur (UAR).

    A missing prediction is an error.
    """
    labels, predicted = list(labels), [p if isinstance(p, str) else "" for p in predicted]
    uar = recall_score(labels, predicted, labels=sorted(set(labels)), average="macro",
                       zero_division=0)
    return accuracy_score(labels, predicted), uar


@torch.no_grad()
def predict(model: torch.nn.Module, data: Samples, classes: int, crops: int = 1, batch: int = 64,
            workers: int = 0, device: torch.device | None = None,
            features: dict | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the mean softmax over the test views of every sample.

    An unreadable sample has no prediction, which counts as an error. So has a clip of which one
    view cannot be read. Several processes share the batches; each sample is counted once.

    Args:
        model: an `S4D`; its routing mode is left as it is.
        data: samples of one task, `test_segments` views along time, no transform.
        crops: views across the picture.
        features: gets `features`, float32 `[N, D]`: pooled, mean over views, NaN if unreadable.
    Returns:
        table (path, task, split, subject, label, predicted, prob_<emotion>...), rows as in
        `data.table`; {path: cause} of the unreadable samples.
    """
    device = device or next(model.parameters()).device
    data = copy(data)
    data.test_crops = crops
    views = range(max(1, data.test_segments)) if data.task == "video" else range(1)
    keys = [Key(data.task, row, 0, view) for row in range(len(data)) for view in views]
    batches = [keys[i:i + batch] for i in range(0, len(keys), batch)][rank()::world()]
    total, count = np.zeros((len(data), classes)), np.zeros(len(data))
    pooled = None if features is None else np.zeros((len(data), model.embed_dim))
    unreadable, broken = {}, []
    model.eval()
    for b in loader(Joint({data.task: data}), batches, workers):
        unreadable.update(dict(b["unreadable"]))
        broken += b["unreadable_rows"]
        if "clip" in b:
            x = normalise(to_model(b["clip"].to(device), data.task))
            hidden = model.forward_features(x)
            logits = model.forward_head(hidden, data.task)
            rows = b["row"].numpy()
            np.add.at(total, rows, logits.float().softmax(-1).double().cpu().numpy())
            np.add.at(count, rows, 1)
            if pooled is not None:
                np.add.at(pooled, rows, hidden.double().cpu().numpy())
    told = gathered((total, count, pooled, unreadable, broken))
    total, count = sum(t[0] for t in told), sum(t[1] for t in told)
    for _, _, _, more, rows in told:
        unreadable.update(more)
        count[rows] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count[:, None] > 0, total / count[:, None], np.nan)
        if features is not None:
            pooled = sum(t[2] for t in told) / count[:, None]
            pooled[count == 0] = np.nan
            features["features"] = pooled.astype(np.float32)
    return _table(data, mean, vocabulary(classes)), unreadable


def _table(data: Samples, mean: np.ndarray, names: tuple[str, ...]) -> pd.DataFrame:
    table = data.table[["path", "split", "subject", "label"]].copy()
    table.insert(1, "task", data.task)
    table["predicted"] = [None if np.isnan(p[0]) else names[int(p.argmax())] for p in mean]
    for k, name in enumerate(names):
        table[f"prob_{name}"] = mean[:, k].round(6)
    return table


@torch.no_grad()
def along_time(model: torch.nn.Module, path: str | Path, classes: int, size: int, frames: int,
               stride: int, windows: int = 32) -> pd.DataFrame:
    """Return the probabilities of a clip in windows that slide from its start to its end.

    Args:
        path: a video or a folder of frames.
        classes, size, frames, stride: of the run.
        windows: at most; fewer where the clip has fewer places for one.
    Returns:
        table: path, frame (the middle of the window), seconds (missing where the file tells no
        rate), predicted, prob_<emotion>.
    Raises:
        MediaError: for a file that cannot be read.
    """
    names, device = vocabulary(classes), next(model.parameters()).device
    clip, rate = read_clip(path, size=size, aspect=True), header(path)[2]
    free = max(0, len(clip) - (frames - 1) * stride - 1)
    rows = []
    model.eval()
    for indices in test_indices(len(clip), frames, stride, min(windows, free + 1)):
        x = normalise(to_model(eval_views(clip[indices], size)[0][None], "video")).to(device)
        probability = model(x)[0].float().softmax(-1).cpu().numpy()
        middle = (indices[0] + indices[-1]) / 2
        rows.append((str(path), middle, middle / rate if rate else None,
                     names[int(probability.argmax())], *probability.round(6)))
    columns = ["path", "frame", "seconds", "predicted", *(f"prob_{n}" for n in names)]
    return pd.DataFrame(rows, columns=columns)
