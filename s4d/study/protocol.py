"""The benchmarks' protocol: scores of a test split and of folds, matrices, tables as printed."""
from __future__ import annotations

import numpy as np
import pandas as pd

from ..emotions import vocabulary
from .stats import check, draws, holm, interval, p_text, rates, sums_of, units_of

MISSING = "unreadable"                         # what a matrix calls a sample without a prediction


def _metrics(confusion: np.ndarray, absent: np.ndarray | float = np.nan) -> np.ndarray:
    """Return WAR, UAR, macro and weighted F1, then the recall of each class, `[..., 4 + K]`.

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


def _resampled(predictions: pd.DataFrame, classes: list[str], resamples: int, seed: int) -> tuple:
    """Return `_metrics` `[4 + K]`, and those of every resample of the subjects `[R, 4 + K]`."""
    rows = predictions.sort_values("path")         # the draws must not depend on the order of rows
    label = pd.Categorical(rows["label"], classes).codes
    answer = pd.Categorical(rows["predicted"], classes).codes                    # -1: the last
    cells = np.eye(len(classes))[label][:, :, None] * np.eye(len(classes) + 1)[answer][:, None]
    counts = sums_of(cells, units_of(rows["subject"], sort=False))               # [G, K, K + 1]
    value, weight = _metrics(counts.sum(0)), draws(len(counts), resamples, seed)
    drawn = (weight @ counts.reshape(len(counts), -1)).reshape(resamples, *counts.shape[1:])
    return value, _metrics(drawn, absent=value[4:])


def protocol(splits: dict[str, pd.DataFrame], resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Score each test split, and of several (folds) their mean and their pool.

    Args:
        splits: name -> predictions of one task (path, subject, label, predicted).
    Returns:
        part, metric, value, low, high (95 % over subjects), samples.
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
    out = [(part, metric, value[k], *interval(drawn[:, k]), len(splits.get(part, every)))
           for part, (value, drawn) in results.items() for k, metric in enumerate(names)]
    return pd.DataFrame(out, columns=["part", "metric", "value", "low", "high", "samples"])


def matrix(predictions: pd.DataFrame) -> pd.DataFrame:
    """Count labels down and answers across, `unreadable` last."""
    given = predictions["predicted"].fillna(MISSING)
    names = sorted({*predictions["label"], *given}, key=lambda name: (name == MISSING, name))
    return pd.crosstab(predictions["label"], given).reindex(columns=names, fill_value=0)


def confusion(predictions: pd.DataFrame, classes: int = 7) -> pd.DataFrame:
    """Return `matrix` of one task over all classes: label, predicted, count, share of the label."""
    names, counts = [*vocabulary(classes)], matrix(predictions)
    answers = names + [c for c in counts.columns if c == MISSING]
    counts = counts.reindex(index=names, columns=answers, fill_value=0)
    table = counts.rename_axis(columns="predicted").stack().rename("count").reset_index()
    total = table.groupby("label")["count"].transform("sum")
    return table.assign(share=(table["count"] / total).where(total > 0))


def baselines(predictions: pd.DataFrame, classes: dict[str, int]) -> pd.DataFrame:
    """Return the UAR and WAR of guessing among a task's classes, and of the most frequent one."""
    out = []
    for task, rows in predictions.drop_duplicates(["task", "path"]).groupby("task", sort=False):
        share, guess = rows["label"].value_counts(normalize=True), 1 / classes[task]
        out += [(task, "chance", None, guess, guess),
                (task, "majority", share.index[0], 1 / len(share), share.iloc[0])]
    return pd.DataFrame(out, columns=["task", "baseline", "label", "UAR", "WAR"])


def readable(table: pd.DataFrame, value: str = "value", digits: int = 1) -> pd.DataFrame:
    """Print scores, or with value "difference" those of `stats.paired`: a row a system, in %."""
    form = ("+" if value == "difference" else "") + f".{digits}f"
    names = list(table.columns[: table.columns.get_loc("metric")])
    out = table[names].drop_duplicates().reset_index(drop=True)
    for metric, rows in table.groupby("metric", sort=False):
        numbers = zip(*(100 * rows[c] for c in (value, "low", "high")), strict=True)
        out[metric] = [f"{v:{form}} [{low:{form}}, {high:{form}}]" for v, low, high in numbers]
        if "p_holm" in rows:
            out[f"{metric} p"] = [p_text(p) for p in rows["p_holm"]]
    last = table.drop_duplicates(names).reset_index(drop=True)
    return out.assign(**{c: last[c] for c in ("seeds", "subjects", "samples") if c in last})


def as_text(table: pd.DataFrame) -> str:
    """Return `protocol` as it is printed: a row a metric, a column a split."""
    shown = readable(table, digits=2).set_index(table.columns[0]).T
    return shown.replace("nan [nan, nan]", "-").to_string()


def agreement_as_read(pairs: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """Print `seed_agreement`: a row a block and task, a limit of the largest p of its pairs."""
    parts = pairs.groupby(["block", "task"], sort=False)
    seen = parts.matched.agg(["mean", "min", "max"]).astype(float)
    worst = parts[["null_95", "p"]].max()
    matched = [f"{mean:.0%} ({low:.0%} to {high:.0%})" for mean, low, high in seen.to_numpy()]
    return pd.DataFrame({
        "block": seen.index.get_level_values("block"),
        "task": seen.index.get_level_values("task").map(kinds),
        "matched": [text.replace("%", " %") for text in matched],
        "null, 95 %": [f"{100 * v:.0f} %" for v in worst.null_95],
        "p (Holm)": [f"\N{LESS-THAN OR EQUAL TO} {p:.3f}" for p in holm(worst.p.to_numpy())]})


def modes_as_read(table: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """Print `modes_table` with one decimal; changes are counted from the mode "paper"."""
    change = [f"{r.change:+z.1f} [{r.low:+z.1f}, {r.high:+z.1f}]".replace("-", "\N{MINUS SIGN}")
              for r in table.itertuples()]
    shown = table[["war", "changed", "shift", "dropped"]].map("{:.1f}".format)
    return pd.DataFrame({
        "samples": table.task.map(kinds), "evaluation": table["mode"], "WAR (%)": shown.war,
        "change of WAR (points)": np.where(table["mode"] == "paper", "--", change),
        "answers that differ (%)": shown.changed, "shift of probability (%)": shown["shift"],
        "dropped (%)": shown.dropped})
