"""Scores of systems with intervals, and paired differences.

Other subjects could have been tested, and training could have started from another seed: a
resample draws whole subjects and, apart from them, seeds.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from .intervals import StatsError, draws, holm, interval, p_value, sums_of, units_of

SYSTEM = ("task", "pretrained", "method")      # columns that name one system on one task
METRICS = ("UAR", "WAR")


@dataclass(frozen=True)
class Counts:
    """What scores need of one system: G subjects, K classes that occur, S seeds."""

    total: np.ndarray                # int64 [G, K] samples of a subject and class
    correct: np.ndarray              # float64 [S, G, K] those classified correctly, by seed
    seeds: tuple[int, ...]
    key: tuple                       # names the samples: equal keys allow a paired comparison

    def rates(self) -> dict:
        """`rates` of each seed on all samples."""
        return rates(self.total.sum(0), self.correct.sum(1))


def collect(grid: Iterable[tuple], runs: Iterable, split: str = "test") -> pd.DataFrame:
    """Predictions of all runs of a `Profile.methods_grid`, only of tasks that they trained on."""
    tables = []
    for (method, pretrained, seed, cfg), run in zip(grid, runs, strict=True):
        rows = run.predictions()
        rows = rows[rows["task"].isin(cfg.tasks) & (rows["split"] == split)]
        names = dict(method=method, pretrained=pretrained, seed=seed)
        tables.append(pd.concat([pd.DataFrame(names, index=rows.index), rows], axis=1))
    return pd.concat(tables, ignore_index=True)


def check(rows: pd.DataFrame, what: str) -> None:
    """Require samples of one test, each with a label and none twice."""
    if rows.empty:
        raise StatsError(f"{what} has no samples: nothing can be scored")
    for bad, cause in ((rows["label"].isna(), "has no label: only labelled samples can be scored"),
                       (rows["path"].duplicated(), "is tested twice: score tasks, methods, splits "
                        "apart, and pool only folds that share no sample")):
        if bad.any():
            raise StatsError(f"{rows.loc[bad, 'path'].iloc[0]} {cause}")


def count(predictions: pd.DataFrame) -> Counts:
    """Count the samples of one system on one task; an unreadable sample is an error."""
    rows = predictions.assign(seed=predictions.get("seed", 0)).sort_values(["seed", "path"])
    parts = {int(seed): part for seed, part in rows.groupby("seed")}
    seeds, first = tuple(parts), next(iter(parts.values()), rows)
    check(first, "the chosen task and split")
    keys = [tuple(zip(part["path"], part["label"], strict=True)) for part in parts.values()]
    for seed, key in zip(seeds, keys, strict=True):
        if key != keys[0]:
            raise StatsError(f"seeds {seeds[0]} and {seed} cover different samples or labels: "
                             "train both on the same data")
    subject = units_of(first["subject"], sort=False)
    label, classes = pd.factorize(first["label"], sort=True)
    right = np.stack([part["predicted"].to_numpy() == part["label"].to_numpy()
                      for part in parts.values()])
    member = np.eye(len(classes))[label]                                             # [N, K]
    total = sums_of(member, subject).astype(int)
    correct = np.stack([sums_of(member * r[:, None], subject) for r in right])
    return Counts(total, correct, seeds, keys[0])


def rates(total: np.ndarray, correct: np.ndarray, absent: np.ndarray | float = 0.0) -> dict:
    """UAR, WAR and recall `[..., K]` in 0..1; `absent`: recall of a class without samples."""
    recall = np.array(np.broadcast_to(absent, correct.shape), dtype=float)
    np.divide(correct, total, out=recall, where=np.broadcast_to(total > 0, correct.shape))
    return {"UAR": recall.mean(-1), "WAR": correct.sum(-1) / total.sum(-1), "recall": recall}


def resample(counts: Counts, resamples: int, seed: int = 0) -> dict:
    """`rates` of each resample of subjects and seeds, and the total `[R, K]` of each class.

    Systems on the same samples get the same draws, so differences are paired. A class that no
    drawn subject shows keeps its recall of the whole test split, which leaves the UAR unbiased.
    """
    rng = np.random.default_rng(seed)
    subjects = draws(len(counts.total), resamples, rng)                              # [R, G]
    seeds = draws(len(counts.seeds), resamples, rng)
    seeds /= seeds.sum(1, keepdims=True)                                             # [R, S]
    correct = sum((subjects @ c) * seeds[:, s, None] for s, c in enumerate(counts.correct))
    total = subjects @ counts.total
    absent = seeds @ (counts.correct.sum(1) / counts.total.sum(0))
    return {**rates(total, correct, absent), "total": total}


def scores(predictions: pd.DataFrame, by: Iterable[str] = SYSTEM, resamples: int = 2000,
           seed: int = 0) -> pd.DataFrame:
    """UAR and WAR of every system, mean over seeds, with 95 % intervals over subjects and seeds.

    `by` are the columns that name a system and its task.
    Returns: `by`, metric, value, low, high (shares), seed_sd, seeds, subjects, samples.
    """
    by, out = list(by), []
    for name, rows in predictions.groupby(by, sort=False):
        counts = count(rows)
        each, drawn = counts.rates(), resample(counts, resamples, seed)
        sizes = len(counts.seeds), len(counts.total), int(counts.total.sum())
        for metric in METRICS:
            spread = each[metric].std(ddof=1) if len(counts.seeds) > 1 else np.nan
            out.append((*name, metric, each[metric].mean(), *interval(drawn[metric]), spread,
                        *sizes))
    columns = ["metric", "value", "low", "high", "seed_sd", "seeds", "subjects", "samples"]
    return pd.DataFrame(out, columns=[*by, *columns])


def per_seed(predictions: pd.DataFrame, by: Iterable[str] = SYSTEM) -> pd.DataFrame:
    """UAR and WAR of every single run: `by`, seed, metric, value."""
    by, out = list(by), []
    for name, rows in predictions.groupby(by, sort=False):
        counts = count(rows)
        out += [(*name, seed, metric, value) for metric in METRICS
                for seed, value in zip(counts.seeds, counts.rates()[metric], strict=True)]
    return pd.DataFrame(out, columns=[*by, "seed", "metric", "value"])


def select(predictions: pd.DataFrame, chosen: dict) -> pd.DataFrame:
    """Rows in which every named column has the given value; StatsError when there are none."""
    keep = np.logical_and.reduce([predictions[c] == v for c, v in chosen.items()])
    if not keep.any():
        system = ", ".join(f"{c}={v}" for c, v in chosen.items())
        raise StatsError(f"no predictions of {system}: train that system, on that task, first")
    return predictions[keep]


def paired(predictions: pd.DataFrame, pairs: Iterable[tuple[dict, dict]], resamples: int = 2000,
           seed: int = 0) -> pd.DataFrame:
    """Differences of two systems on the same samples, for all pairs, corrected together.

    Args:
        pairs: (system, reference), each column -> value that selects one system on one task.
    Returns:
        the columns of both (`<column>_reference` where they differ), metric, difference (system
        minus reference), low, high, p (two-sided), p_holm (by metric), seeds, subjects.
    """
    @cache
    def measured(*chosen: tuple[str, object]) -> tuple[Counts, dict, dict]:
        counts = count(select(predictions, dict(chosen)))
        return counts, counts.rates(), resample(counts, resamples, seed)
    out = []
    for system, reference in pairs:
        a, each, drawn = measured(*system.items())
        b, each_b, drawn_b = measured(*reference.items())
        if a.key != b.key or a.seeds != b.seeds:
            what = "samples" if a.key != b.key else f"seeds ({a.seeds} and {b.seeds})"
            raise StatsError(f"{system} and {reference} were run on different {what}: a paired "
                             "difference needs the same ones")
        others = {f"{c}_reference": v for c, v in reference.items() if system.get(c) != v}
        for metric in METRICS:
            change = drawn[metric] - drawn_b[metric]
            difference, (low, high) = (each[metric] - each_b[metric]).mean(), interval(change)
            found = dict(difference=difference, low=low, high=high, p=p_value(change))
            out.append({**system, **others, "metric": metric, **found, "seeds": len(a.seeds),
                        "subjects": len(a.total)})
    table = pd.DataFrame(out)
    corrected = table.groupby("metric")["p"].transform(lambda p: holm(p.to_numpy()))
    table.insert(table.columns.get_loc("p") + 1, "p_holm", corrected)
    return table
