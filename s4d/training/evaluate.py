"""Predictions of a model on indexed samples: several views each, broken files reported, never replaced."""
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
from .ranks import merged, mine


def war_uar(labels, predicted) -> tuple[float, float]:
    """Accuracy, and the mean of the per-class recalls over the classes that occur. A missing prediction is an error."""
    labels, predicted = list(labels), [p if isinstance(p, str) else "" for p in predicted]
    return accuracy_score(labels, predicted), recall_score(labels, predicted, labels=sorted(set(labels)), average="macro", zero_division=0)


@torch.no_grad()
def predict(model: torch.nn.Module, data: Samples, classes: int, crops: int = 1, batch: int = 64, workers: int = 0,
            device: torch.device | None = None, features: dict | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """Mean softmax over the test views of every sample.

    Args:
        model: an `S4D`; its routing mode is left as it is.
        data: samples of one task, `segments` views along time, no transform.
        crops: views across the picture.
        features: gets `features`, float32 `[N, D]`: pooled, mean over views, NaN for an unreadable sample.
    Returns:
        table (path, task, split, subject, label, predicted, prob_<emotion>...), rows as in `data.table`; and
        {path: cause} of the unreadable samples, whose predicted and probabilities are missing (they count as errors); a clip
        of which one view can be read and another cannot is unreadable.
    """
    device = device or next(model.parameters()).device
    names = vocabulary(classes)
    views = range(max(1, data.test_segments)) if data.task == "video" else range(1)
    keys = [Key(data.task, row, 0, view) for row in range(len(data)) for view in views]
    pooled = None
    total, count, bad, broken = np.zeros((len(data), classes)), np.zeros(len(data)), {}, []
    model.eval()
    data = copy(data)
    data.test_crops = crops
    for b in loader(Joint({data.task: data}), mine([keys[i:i + batch] for i in range(0, len(keys), batch)]), workers):
        bad.update(dict(b["unreadable"]))
        broken += b["unreadable_rows"]
        if "clip" not in b:
            continue
        x = normalise(to_model(b["clip"].to(device), data.task))
        hidden = model.forward_features(x) if features is not None else None
        logits = model(x) if hidden is None else model.forward_head(hidden, data.task)
        np.add.at(total, b["row"].numpy(), logits.float().softmax(-1).double().cpu().numpy())
        np.add.at(count, b["row"].numpy(), 1)
        if features is not None:
            pooled = np.zeros((len(data), hidden.shape[1])) if pooled is None else pooled
            np.add.at(pooled, b["row"].numpy(), hidden.double().cpu().numpy())
    total, count, bad, broken = merged(total, count, bad, broken)
    count[broken] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count[:, None] > 0, total / count[:, None], np.nan)
        if features is not None and pooled is not None:
            features["features"] = np.where(count[:, None] > 0, pooled / count[:, None], np.nan).astype(np.float32)
    table = data.table[["path", "split", "subject", "label"]].copy()
    table.insert(1, "task", data.task)
    table["predicted"] = [names[int(p.argmax())] if c else None for p, c in zip(mean, count)]
    for k, name in enumerate(names):
        table[f"prob_{name}"] = mean[:, k].round(6)
    return table, bad


@torch.no_grad()
def along_time(model: torch.nn.Module, path: str | Path, classes: int, size: int, frames: int, stride: int,
               windows: int = 32) -> pd.DataFrame:
    """Probabilities of a clip in windows that slide from its start to its end.

    Args:
        path: a video or a folder of frames.
        classes, size, frames, stride: of the run.
        windows: at most; fewer where the clip has fewer places for one.
    Returns:
        table: path, frame (the middle of the window), seconds (missing where the file tells no rate), predicted, prob_<emotion>.
    Raises:
        MediaError: for a file that cannot be read.
    """
    names, clip, rate = vocabulary(classes), read_clip(path, size=size, aspect=True), header(path)[2]
    free = max(0, len(clip) - (frames - 1) * stride - 1)
    places, rows = test_indices(len(clip), frames, stride, min(windows, free + 1)), []
    model.eval()
    for indices in places:
        x = normalise(to_model(eval_views(clip[indices], size)[0][None], "video")).to(next(model.parameters()).device)
        probability = model(x)[0].float().softmax(-1).cpu().numpy()
        middle = (indices[0] + indices[-1]) / 2
        rows.append((str(path), middle, middle / rate if rate else None, names[int(probability.argmax())], *probability.round(6)))
    return pd.DataFrame(rows, columns=["path", "frame", "seconds", "predicted", *(f"prob_{n}" for n in names)])
