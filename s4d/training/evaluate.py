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

    A sample of which one view is unreadable has no prediction, which counts as an error. Several
    processes share the batches; each sample is counted once.

    Args:
        model: an `S4D`; its routing mode is left as it is.
        data: samples of one task, `test_segments` views along time, no transform.
        crops: views across the picture.
        features: gets `features`, float32 `[N, D]`: pooled, mean over views, NaN if unreadable.
    Returns:
        rows as in `data.table` (path, task, split, subject, label, predicted, prob_<emotion>...);
        {path: cause} of the unreadable samples.
    """
    device = device or next(model.parameters()).device
    data = copy(data)
    data.test_crops = crops
    views = range(max(1, data.test_segments) if data.task == "video" else 1)
    keys = [Key(data.task, row, 0, view) for row in range(len(data)) for view in views]
    batches = [keys[i:i + batch] for i in range(0, len(keys), batch)][rank()::world()]
    total, count = np.zeros((len(data), classes)), np.zeros((len(data), 1))
    pooled = np.zeros((len(data), model.embed_dim if features is not None else 0))
    unreadable, broken = {}, []
    model.eval()
    for b in loader(Joint({data.task: data}), batches, workers):
        unreadable.update(b["unreadable"])
        broken += b["unreadable_rows"]
        if "clip" in b:
            hidden = model.forward_features(normalise(to_model(b["clip"].to(device), data.task)))
            logits, rows = model.forward_head(hidden, data.task), b["row"].numpy()
            np.add.at(total, rows, logits.float().softmax(-1).double().cpu().numpy())
            np.add.at(count, rows, 1)
            if features is not None:
                np.add.at(pooled, rows, hidden.double().cpu().numpy())
    totals, counts, sums, causes, lost = zip(*gathered((total, count, pooled, unreadable, broken)),
                                             strict=True)
    count = sum(counts)
    count[sum(lost, [])] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, pooled = (np.where(count > 0, sum(s) / count, np.nan) for s in (totals, sums))
    if features is not None:
        features["features"] = pooled.astype(np.float32)
    names, table = vocabulary(classes), data.table[["path", "split", "subject", "label"]].copy()
    table.insert(1, "task", data.task)
    table["predicted"] = [None if np.isnan(p[0]) else names[int(p.argmax())] for p in mean]
    table[[f"prob_{name}" for name in names]] = mean.round(6)
    return table, {path: cause for found in causes for path, cause in found.items()}


@torch.no_grad()
def along_time(model: torch.nn.Module, path: str | Path, classes: int, size: int, frames: int,
               stride: int, windows: int = 32) -> pd.DataFrame:
    """Return the probabilities of a clip in windows that slide from its start to its end.

    Args:
        windows: at most; fewer where the clip has fewer places for one.
    Returns:
        table: path, frame (the middle of the window), seconds (missing where the file tells no
        rate), predicted, prob_<emotion>.
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
