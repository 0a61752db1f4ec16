"""The benchmarks' protocol: scores of a test split, of folds, their mean and pool; matrices."""
from __future__ import annotations

import numpy as np
import pandas as pd

from ..emotions import vocabulary
from .intervals import draws, interval, sums_of, units_of
from .stats import check, rates

MISSING = "unreadable"                         # what a matrix calls a sample without a prediction


def metrics(confusion: np.ndarray, absent: np.ndarray | float = np.nan) -> np.ndarray:
    """WAR, UAR, macro and weighted F1, then the recall of each class, shares `[..., 4 + K]`.

    Args:
        confusion: `[..., K, K + 1]` samples by label and answer; the last answer is no class.
        absent: `[K]` recall (and F1) of a class without samples.
    """
    right, total = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1)
    found = rates(total, right, absent)
    f1 = found["recall"].copy()
    np.divide(2 * right, total + confusion[..., :-1].sum(-2), out=f1, where=total > 0)
    share = total / total.sum(-1, keepdims=True)
    means = (found["WAR"], found["UAR"], f1.mean(-1), np.nansum(share * f1, -1))
    return np.concatenate([np.stack(means, -1), found["recall"]], -1)


def _resampled(predictions: pd.DataFrame, classes: list[str], resamples: int,
               seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`metrics` `[4 + K]`, and those of every resample of the subjects `[R, 4 + K]`."""
    rows = predictions.sort_values("path")         # the draws must not depend on the order of rows
    label = pd.Categorical(rows["label"], classes).codes
    answer = pd.Categorical(rows["predicted"], classes).codes                    # -1: the last
    cells = np.eye(len(classes))[label][:, :, None] * np.eye(len(classes) + 1)[answer][:, None]
    counts = sums_of(cells, units_of(rows["subject"], sort=False))               # [G, K, K + 1]
    value = metrics(counts.sum(0))
    weight = draws(len(counts), resamples, seed)
    drawn = (weight @ counts.reshape(len(counts), -1)).reshape(resamples, *counts.shape[1:])
    return value, metrics(drawn, absent=value[4:])


def protocol(splits: dict[str, pd.DataFrame], resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Scores of each test split, and of several (folds) their mean and their pool.

    Args:
        splits: name -> predictions (path, subject, label, predicted) of one task.
    Returns:
        part, metric (WAR, UAR, macro F1, weighted F1, recall <emotion>), value, low, high (95 %
        over subjects), samples, unreadable (which are errors).
    """
    for name, rows in splits.items():
        check(rows, name)
    every = pd.concat(splits.values(), ignore_index=True)
    classes = sorted(every["label"].unique())
    names = ["WAR", "UAR", "macro F1", "weighted F1", *(f"recall {c}" for c in classes)]
    results = {name: _resampled(rows, classes, resamples, seed + i)
               for i, (name, rows) in enumerate(splits.items())}
    if len(splits) > 1:
        value, drawn = (np.nanmean(np.stack(v), 0) for v in zip(*results.values(), strict=True))
        results["mean of folds"] = value, drawn
        if not every["path"].duplicated().any():   # photos are the same in every fold
            results["pooled"] = _resampled(every, classes, resamples, seed)
    out = []
    for name, (value, drawn) in results.items():
        predicted = splits.get(name, every)["predicted"]
        for k, metric in enumerate(names):
            low, high = (np.nan, np.nan) if np.isnan(value[k]) else interval(drawn[:, k])
            out.append((name, metric, value[k], low, high, len(predicted), predicted.isna().sum()))
    columns = ["part", "metric", "value", "low", "high", "samples", "unreadable"]
    return pd.DataFrame(out, columns=columns)


def matrix(predictions: pd.DataFrame) -> pd.DataFrame:
    """Confusion matrix in counts: labels down, answers across, `unreadable` last."""
    given = predictions["predicted"].fillna(MISSING)
    names = sorted({*predictions["label"], *given}, key=lambda name: (name == MISSING, name))
    return pd.crosstab(predictions["label"], given).reindex(columns=names, fill_value=0)


def confusion(predictions: pd.DataFrame, classes: int = 7) -> pd.DataFrame:
    """`matrix` of one task over all classes: label, predicted, count, share (of the label)."""
    names, counts = [*vocabulary(classes)], matrix(predictions)
    answers = names + [c for c in counts.columns if c == MISSING]
    counts = counts.reindex(index=names, columns=answers, fill_value=0)
    table = counts.rename_axis(columns="predicted").stack().rename("count").reset_index()
    total = table.groupby("label")["count"].transform("sum")
    return table.assign(share=(table["count"] / total).where(total > 0))


def baselines(predictions: pd.DataFrame, classes: dict[str, int]) -> pd.DataFrame:
    """Expected UAR and WAR of guessing among a task's classes, and of the most frequent one."""
    out = []
    for task, rows in predictions.drop_duplicates(["task", "path"]).groupby("task", sort=False):
        share, guess = rows["label"].value_counts(normalize=True), 1 / classes[task]
        out += [(task, "chance", None, guess, guess),
                (task, "majority", share.index[0], 1 / len(share), share.iloc[0])]
    return pd.DataFrame(out, columns=["task", "baseline", "label", "UAR", "WAR"])
