"""Predictions of a model on indexed samples: several views each, broken files reported, never replaced."""
from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, recall_score

from ..data.batches import Clips, Joint, Key, loader, to_model
from ..data.transforms import eval_views, normalise
from ..emotions import vocabulary
from .ranks import merged, mine


def war_uar(labels, predicted) -> tuple[float, float]:
    """Accuracy, and the mean of the per-class recalls over the classes that occur. A missing prediction is an error."""
    labels, predicted = list(labels), [p if isinstance(p, str) else "" for p in predicted]
    return accuracy_score(labels, predicted), recall_score(labels, predicted, labels=sorted(set(labels)), average="macro", zero_division=0)


@torch.no_grad()
def predict(model: torch.nn.Module, data: Clips, classes: int, crops: int = 1, batch: int = 64, workers: int = 0,
            device: torch.device | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """Mean softmax over the test views of every sample.

    Args:
        model: an `S4D`; its routing mode is left as it is.
        data: samples of one task, `segments` views along time, no transform.
        crops: views across the picture.
    Returns:
        table (path, task, split, subject, label, predicted, prob_<emotion>...), rows as in `data.table`; and
        {path: cause} of the unreadable samples, whose predicted and probabilities are missing (they count as errors); a clip
        of which one view can be read and another cannot is unreadable.
    """
    device = device or next(model.parameters()).device
    names = vocabulary(classes)
    views = range(max(1, data.segments)) if data.task == "video" else range(1)
    keys = [Key(data.task, row, 0, view) for row in range(len(data)) for view in views]
    total, count, bad, broken = np.zeros((len(data), classes)), np.zeros(len(data)), {}, []
    model.eval()
    for b in loader(Joint({data.task: data}), mine([keys[i:i + batch] for i in range(0, len(keys), batch)]), workers):
        bad.update(dict(b["bad"]))
        broken += b["bad_rows"]
        if "clip" not in b:
            continue
        x = to_model(b["clip"].to(device), data.task)
        crop = eval_views(x, data.size, crops)
        probability = torch.stack([model(normalise(v)).float().softmax(-1) for v in crop]).mean(0).double().cpu().numpy()
        np.add.at(total, b["row"].numpy(), probability)
        np.add.at(count, b["row"].numpy(), 1)
    total, count, bad, broken = merged(total, count, bad, broken)
    count[broken] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count[:, None] > 0, total / count[:, None], np.nan)
    table = data.table[["path", "split", "subject", "label"]].copy()
    table.insert(1, "task", data.task)
    table["predicted"] = [names[int(p.argmax())] if c else None for p, c in zip(mean, count)]
    for k, name in enumerate(names):
        table[f"prob_{name}"] = mean[:, k].round(6)
    return table, bad
