"""Predict indexed samples, several views each; score predictions."""
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, recall_score

from ..config import Finetune
from ..data.dataset import Joint, Key, Samples, loader, to_model
from ..data.media import header, read_clip
from ..data.transforms import eval_views, normalise, test_indices
from ..emotions import vocabulary
from .setup import gather, rank, world_size


def war_uar(labels, predicted) -> tuple[float, float]:
    """Return accuracy (WAR) and mean recall of the classes (UAR); no prediction is an error."""
    labels, predicted = list(labels), [p if isinstance(p, str) else "" for p in predicted]
    uar = recall_score(labels, predicted, labels=sorted(set(labels)), average="macro",
                       zero_division=0)
    return accuracy_score(labels, predicted), uar


@torch.no_grad()
def predict(model: torch.nn.Module, data: Samples, crops: int = 1, batch_size: int = 64,
            num_workers: int = 0) -> tuple[pd.DataFrame, dict[str, str], np.ndarray]:
    """Return the mean softmax over the test views of every sample.

    A sample of which one view is unreadable has no prediction, which counts as an error.

    Args:
        data: samples of one task, `test_segments` views along time, no transform.
        crops: views across the picture.
    Returns:
        rows as in `data.table` (path, task, split, subject, label, predicted, prob_<emotion>...);
        {path: cause} of the unreadable samples; pooled features, float32 `[N, D]`, mean over views.
    """
    data, device = copy(data), next(model.parameters()).device
    data.test_crops, names = crops, vocabulary(model.head[data.task].out_features)
    views = range(max(1, data.test_segments) if data.task == "video" else 1)
    keys = [Key(data.task, row, 0, view) for row in range(len(data)) for view in views]
    batches = [keys[i:i + batch_size] for i in range(0, len(keys), batch_size)]
    sums, counts = np.zeros((len(data), len(names))), np.zeros((len(data), 1))
    pooled, causes = np.zeros((len(data), model.embed_dim)), {}
    model.eval()
    for batch in loader(Joint({data.task: data}), batches[rank()::world_size()], num_workers):
        causes.update(batch["unreadable"])
        counts[batch["unreadable_rows"]] = np.nan          # whatever is added: no prediction
        if "clip" in batch:
            x, rows = normalise(to_model(batch["clip"].to(device), data.task)), batch["row"].numpy()
            hidden = model.forward_features(x)             # [B, D]
            logits = model.forward_head(hidden, data.task)
            np.add.at(sums, rows, logits.float().softmax(-1).double().cpu().numpy())
            np.add.at(pooled, rows, hidden.double().cpu().numpy())
            np.add.at(counts, rows, 1)
    found = gather((sums, pooled, counts, causes))
    sums, pooled, counts = (sum(arrays) for arrays in list(zip(*found, strict=True))[:3])
    mean = sums / counts
    table = data.table[["path", "split", "subject", "label"]].copy()
    table.insert(1, "task", data.task)
    table["predicted"] = [None if np.isnan(p[0]) else names[int(p.argmax())] for p in mean]
    table[[f"prob_{name}" for name in names]] = mean.round(6)
    causes = {path: cause for *_, causes in found for path, cause in causes.items()}
    return table, causes, (pooled / counts).astype(np.float32)


@torch.no_grad()
def along_time(model: torch.nn.Module, path: str | Path, cfg: Finetune) -> pd.DataFrame:
    """Return a clip's probabilities in up to 32 windows, with the middle of each, along time."""
    names = vocabulary(model.head["video"].out_features)
    device, (frames, stride) = next(model.parameters()).device, (cfg.num_frames, cfg.sampling_rate)
    clip, rate = read_clip(path, size=cfg.img_size, aspect=True), header(path)[2]
    places = len(clip) - (frames - 1) * stride              # where a window can begin
    indices = np.array(test_indices(len(clip), frames, stride, max(1, min(32, places))))
    views = torch.stack([eval_views(clip[i], cfg.img_size)[0] for i in indices])  # [N, T, 3, H, W]
    logits = model.eval()(normalise(to_model(views, "video")).to(device))
    probability = logits.float().softmax(-1).cpu().numpy()
    middle = (indices[:, 0] + indices[:, -1]) / 2
    table = pd.DataFrame(dict(path=str(path), frame=middle, seconds=middle / (rate or np.nan),
                              predicted=np.array(names)[probability.argmax(1)]))
    table[[f"prob_{name}" for name in names]] = probability.round(6)
    return table
