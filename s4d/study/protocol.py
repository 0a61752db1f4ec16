"""The benchmarks' protocol: scores of a test split and of folds, matrices, tables as printed."""
import numpy as np
import pandas as pd

from ..emotions import vocabulary
from .stats import count, draws, interval, p_text, rates, sums_of, units_of


def _measured(rows: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Return a column a metric: its value in row 0, then its resamples over subjects."""
    rows = rows.sort_values("path")                # the draws must not depend on the order of rows
    counts, classes = count(rows), sorted(rows["label"].unique())
    answers = rows["predicted"].to_numpy()[:, None] == np.array(classes, dtype=object)     # [N, K]
    subjects = len(counts.total)
    weight = np.vstack([np.ones(subjects), draws(subjects, resamples, seed)])         # [1 + R, G]
    parts = counts.total, counts.correct[0], sums_of(answers, units_of(rows["subject"], sort=False))
    total, right, given = (weight @ part for part in parts)                           # [1 + R, K]
    found = rates(total, right, absent=right[0] / total[0])
    f1 = 2 * right / np.maximum(total + given, 1)
    f1 = np.where(total > 0, f1, f1[0])
    table = pd.DataFrame({"WAR": found["WAR"], "UAR": found["UAR"], "macro F1": f1.mean(1),
                          "weighted F1": (total * f1).sum(1) / total.sum(1)})
    return table.assign(**{f"recall {c}": found["recall"][:, k] for k, c in enumerate(classes)})


def protocol(splits: dict[str, pd.DataFrame], resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Score each test split, and of several (folds) their mean and their pool.

    `splits`: name -> predictions of one task (path, subject, label, predicted).
    Returns: part, metric, value, low, high (95 % over subjects), samples.
    """
    every = pd.concat(splits.values(), ignore_index=True)
    parts = {name: _measured(rows, resamples, seed + i)
             for i, (name, rows) in enumerate(splits.items())}
    if len(splits) > 1:
        parts["mean of folds"] = pd.concat(parts).groupby(level=1).mean()
        if not every["path"].duplicated().any():   # photos are the same in every fold
            parts["pooled"] = _measured(every, resamples, seed)
    found = pd.concat(parts)                       # a class that a fold lacks is missing there
    out = [(part, metric, numbers[0], *interval(numbers[1:]), len(splits.get(part, every)))
           for part in parts for metric, numbers in found.loc[part].items()]
    return pd.DataFrame(out, columns=["part", "metric", "value", "low", "high", "samples"])


def confusion(predictions: pd.DataFrame, classes: int = 7) -> pd.DataFrame:
    """Count one task's labels and answers: label, predicted, count, share of the label.

    The answer to a sample that could not be read is `unreadable`.
    """
    names = [*vocabulary(classes)]
    counts = pd.crosstab(predictions["label"], predictions["predicted"].fillna("unreadable"))
    answers = [*names, *(name for name in counts if name == "unreadable")]
    counts = counts.reindex(index=names, columns=answers, fill_value=0)
    table = counts.stack().rename("count").reset_index()
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
