"""What heads and probes of one kind make of the other: the transfer matrix, and a shared map."""
from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from .stats import scores
from .stimuli import choose


def shared_classes(image: tuple[str, ...], video: tuple[str, ...]) -> list[str]:
    """Emotions that both heads know, in the image head's order."""
    return [name for name in image if name in video]


@torch.no_grad()
def read_by_head(model: nn.Module, pooled: np.ndarray, rows: pd.DataFrame, head: str,
                 names: tuple[str, ...], shared: list[str]) -> pd.DataFrame:
    """Predict every sample by one head, of classes `names`, among the emotions that tasks share.

    pooled, rows: features `[N, D]` and table of photos or clips, of either task.
    """
    x = torch.from_numpy(pooled).to(next(model.parameters()))
    logits = model.forward_head(x, head).float().cpu().numpy()
    best = logits[:, [names.index(n) for n in shared]].argmax(1)
    return _answers(rows, np.array(shared)[best], shared)


def _answers(rows: pd.DataFrame, predicted: np.ndarray, shared: list[str]) -> pd.DataFrame:
    out = rows[["path", "label", "subject"]].assign(predicted=predicted)
    return out[rows.label.isin(shared)].reset_index(drop=True)


def read_by_probe(train: np.ndarray, labels: pd.Series, pooled: np.ndarray, rows: pd.DataFrame,
                  shared: list[str]) -> pd.DataFrame:
    """Predict every sample by logistic regression on features and labels of training samples."""
    use = labels.isin(shared).to_numpy()
    reader = LogisticRegression(C=0.1, max_iter=500, class_weight="balanced")
    probe = make_pipeline(StandardScaler(), reader).fit(train[use], labels[use])
    return _answers(rows, probe.predict(pooled), shared)


def transfer_matrix(read: pd.DataFrame, saw: dict[str, tuple[str, ...]],
                    resamples: int = 1000) -> pd.DataFrame:
    """WAR (%) of every trained head, or probe, on photos and on clips, with 95 % intervals.

    Args:
        read: rows of `read_by_head` or `read_by_probe` with the columns method, seed, head (the
            kind it was trained on) and stimuli.
        saw: method -> kinds of labelled samples that its network was trained on.
    Returns:
        method, head, stimuli, zero_shot (head was trained on the other kind), unseen (so was the
        network), war, low, high, samples, subjects, uar, seeds, majority (WAR of one class).
    """
    cells = ["method", "head", "stimuli"]
    found = scores(read, cells, resamples)
    table = found[found.metric == "WAR"].rename(columns={"value": "war"}).reset_index(drop=True)
    table[["war", "low", "high"]] *= 100
    table["uar"] = 100 * found[found.metric == "UAR"].value.to_numpy()
    labels = read.drop_duplicates(["stimuli", "path"]).groupby("stimuli").label
    share = labels.agg(lambda names: names.value_counts(normalize=True).iloc[0])
    table["majority"] = 100 * table.stimuli.map(share)
    table["zero_shot"] = table["head"] != table.stimuli
    new = [kind not in saw[m] for m, kind in zip(table.method, table.stimuli, strict=True)]
    table["unseen"] = table.zero_shot & np.array(new)
    return table[[*cells, "zero_shot", "unseen", "war", "low", "high", "samples", "subjects",
                  "uar", "seeds", "majority"]]


def perplexity(samples: int) -> float:
    """t-SNE's number of neighbours: 30, a third of the samples where they are few."""
    return min(30, (samples - 1) / 3)


def shared_space(photos: np.ndarray, clips: np.ndarray, photo_rows: pd.DataFrame,
                 clip_rows: pd.DataFrame, most: int = 140, seed: int = 0) -> pd.DataFrame:
    """t-SNE of at most so many photos and clips: distances, sizes and gaps in it mean little.

    Source: van der Maaten and Hinton 2008; the exact gradient, equal for any number of threads.
    """
    kept = [choose(len(f), most, seed) for f in (photos, clips)]
    both = StandardScaler().fit_transform(np.concatenate([photos[kept[0]], clips[kept[1]]]))
    tsne = TSNE(perplexity=perplexity(len(both)), init="pca", method="exact", max_iter=500,
                random_state=seed)
    labels = pd.concat([photo_rows.label.iloc[kept[0]], clip_rows.label.iloc[kept[1]]])
    task = np.repeat(["image", "video"], [len(k) for k in kept])
    table = pd.DataFrame(dict(task=task, label=labels.to_numpy()))
    table[["x", "y"]] = tsne.fit_transform(both)
    return table
