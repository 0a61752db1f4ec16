"""The benchmarks' protocol: all scores of one test part, of folds, their mean and their pool, with bootstrap intervals over people."""
from __future__ import annotations

import numpy as np
import pandas as pd

from .stats import MISSING, StatsError, draws, interval

POOLED, MEAN = "pooled", "mean of folds"


def metrics(confusion: np.ndarray, absent: np.ndarray | None = None) -> np.ndarray:
    """WAR, UAR, macro and weighted F1, then the recall of each class, shares in 0..1.

    Args:
        confusion: `[..., K, K + 1]` samples by label and answer; the last answer is none of the K classes that occur as labels.
        absent: `[K]` recall (and F1) of a class without samples, NaN when left out.
    Returns:
        `[..., 4 + K]`.
    """
    right, total = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1)
    answered = confusion[..., :-1].sum(-2)
    recall = np.broadcast_to(np.nan if absent is None else absent, total.shape).copy()
    np.divide(right, total, out=recall, where=total > 0)
    f1 = recall.copy()
    np.divide(2 * right, total + answered, out=f1, where=total > 0)
    share = total / total.sum(-1, keepdims=True)
    means = (right.sum(-1) / total.sum(-1), recall.mean(-1), f1.mean(-1), np.nansum(share * f1, -1))
    return np.concatenate([np.stack(means, -1), recall], -1)


def _counts(predictions: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """`[G, K, K + 1]` samples by subject, label and answer; a sample without a known subject is a subject of its own."""
    if predictions["path"].duplicated().any():
        twice = predictions.loc[predictions["path"].duplicated(), "path"].iloc[0]
        raise StatsError(f"{twice} is tested twice: pool folds whose test parts share no sample, of one task and split")
    predictions = predictions.sort_values("path")         # the draws must not depend on the order of rows
    people = predictions["subject"].astype(object)
    subject = pd.factorize(people.where(people.notna(), "\0" + predictions["path"].astype(str)))[0]
    label = pd.Categorical(predictions["label"], classes).codes
    answer = pd.Categorical(predictions["predicted"], classes).codes      # -1, the last column: unreadable, or a class that no label names
    out = np.zeros((subject.max() + 1, len(classes), len(classes) + 1))
    np.add.at(out, (subject, label, answer), 1)
    return out


def _resampled(predictions: pd.DataFrame, classes: list[str], resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores `[4 + K]`, and those of every resample of the people `[R, 4 + K]`."""
    counts = _counts(predictions, classes)
    value = metrics(counts.sum(0))
    weight = draws(len(counts), resamples, np.random.default_rng(seed)).astype(float)
    drawn = (weight @ counts.reshape(len(counts), -1)).reshape(resamples, *counts.shape[1:])
    return value, metrics(drawn, absent=value[4:])


def protocol(parts: dict[str, pd.DataFrame], resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Scores of each part, and of several parts (folds) their mean and their pool.

    Args:
        parts: name -> predictions (path, subject, label, predicted) of one task and split; a sample without a prediction is an error.
        resamples: of the bootstrap over people; those of different folds are drawn independently.
    Returns:
        table: part, metric (WAR, UAR, macro F1, weighted F1, recall <emotion>), value, low, high (95 %), samples, unreadable.
    Raises:
        StatsError: for parts without samples or labels, or with a sample twice.
    """
    for name, rows in parts.items():
        if rows.empty or rows["label"].isna().any():
            raise StatsError(f"{name} has {'no samples' if rows.empty else 'samples without a label'}: nothing can be scored")
    every = pd.concat(parts.values(), ignore_index=True)
    classes = sorted(every["label"].unique())
    names = ["WAR", "UAR", "macro F1", "weighted F1", *(f"recall {c}" for c in classes)]
    results = {name: _resampled(rows, classes, resamples, seed + i) for i, (name, rows) in enumerate(parts.items())}
    sizes = {name: rows for name, rows in parts.items()}
    if len(parts) > 1:
        value, drawn = (np.nanmean(np.stack(v), 0) for v in zip(*results.values()))
        results[MEAN], sizes[MEAN] = (value, drawn), every
        if not every["path"].duplicated().any():        # photos are the same in every fold: there is nothing to pool
            results[POOLED], sizes[POOLED] = _resampled(every, classes, resamples, seed), every
    out = []
    for name, (value, drawn) in results.items():
        rows = sizes[name]
        for k, metric in enumerate(names):
            low, high = interval(drawn[:, k]) if not np.isnan(value[k]) else (np.nan, np.nan)
            out.append((name, metric, value[k], low, high, len(rows), int(rows["predicted"].isna().sum())))
    return pd.DataFrame(out, columns=["part", "metric", "value", "low", "high", "samples", "unreadable"])


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """Scores as they are printed: a row per metric, a column per part, `41.5 [37.0, 46.1]` in per cent."""
    text = [f"{100 * v:.2f} [{100 * low:.1f}, {100 * high:.1f}]" if v == v else "-"
            for v, low, high in zip(table["value"], table["low"], table["high"])]
    out = table.assign(text=text).pivot(index="metric", columns="part", values="text")
    out = out.reindex(index=table["metric"].drop_duplicates(), columns=table["part"].drop_duplicates())
    return out.rename_axis(columns=None).reset_index()


def matrix(predictions: pd.DataFrame) -> pd.DataFrame:
    """Confusion matrix in counts: labels down, answers across, `unreadable` last where there is one."""
    given = predictions["predicted"].fillna(MISSING)
    names = sorted({*predictions["label"], *given} - {MISSING}) + [MISSING] * bool((given == MISSING).any())
    return pd.crosstab(predictions["label"], given).reindex(columns=names, fill_value=0)
