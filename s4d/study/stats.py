"""Scores of systems, paired differences, and intervals of any statistic.

The samples of a subject are not independent, so whole subjects are drawn again, or left out. A
training could have started from another seed, so resamples of scores draw seeds, too.
"""
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import t as student

SYSTEM = ("task", "pretrained", "method")      # columns that name one system on one task
METRICS = ("UAR", "WAR")
FEWEST = 5                     # subjects of whom an interval is given
LIMITS = [0.025, 0.975]        # of a 95 % interval


class StatsError(ValueError):
    """Predictions that cannot be scored or compared; the message says which and why."""


def units_of(subjects: Iterable, sort: bool = True) -> np.ndarray:
    """Number the subjects `[N]`, by name or as they appear; an unknown one is its own unit."""
    names = [f"row {i}" if pd.isna(s) else str(s) for i, s in enumerate(subjects)]
    return pd.factorize(np.array(names, dtype=object), sort=sort)[0]


def units_of_two(tests: Iterable[pd.DataFrame]) -> np.ndarray | None:
    """Units of two tests of different subjects, stacked; None when one shows fewer than two."""
    first, second = (units_of(test.subject) for test in tests)
    if min(len(np.unique(first)), len(np.unique(second))) < 2:
        return None
    return np.concatenate([first, second + first.max() + 1])


def sums_of(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Sum the samples of each unit: `[N, ...]` -> `[U, ...]`, units numbered from 0."""
    out = np.zeros((unit.max() + 1, *values.shape[1:]))
    np.add.at(out, unit, values)
    return out


def draws(n: int, resamples: int, seed: int | np.random.Generator) -> np.ndarray:
    """Count how often each of n units enters each resample, float64 `[R, n]`.

    Of n units n - 1 are drawn, which makes the variance of a mean unbiased (Rao and Wu 1988).
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(max(1, n - 1), np.full(n, 1 / n), size=resamples).astype(float)


def weights_of(units: int, resamples: int, seed: int = 0) -> np.ndarray:
    """`draws` `[R, U]`; all resamples are missing with fewer than two units."""
    return draws(units, resamples, seed) if units > 1 else np.full((resamples, units), np.nan)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Percentile 95 % interval of resampled values."""
    return tuple(np.quantile(values, LIMITS).tolist())


def mean_table(values: np.ndarray, subjects: Iterable, resamples: int = 1000, sort: bool = True,
               fewest: int = FEWEST) -> pd.DataFrame:
    """Means of the columns of `[N, T]`, a row each: mean, low, high (95 %), samples, subjects."""
    unit = units_of(subjects, sort)
    people, size = unit.max() + 1, np.bincount(unit)
    low = high = np.full(values.shape[1], np.nan)
    if people >= fewest:
        weight = draws(people, resamples, 0)
        drawn = (weight @ sums_of(values, unit)) / (weight @ size)[:, None]
        low, high = np.quantile(drawn, LIMITS, axis=0)
    return pd.DataFrame(dict(mean=values.mean(0), low=low, high=high, samples=len(values),
                             subjects=people))


def mean_interval(values: np.ndarray, subjects: Iterable,
                  resamples: int = 2000) -> tuple[float, float, float]:
    """Mean of `[N]` numbers, missing ones left out, and its 95 % interval over subjects."""
    values, subjects = np.asarray(values, dtype=float), np.asarray(list(subjects), dtype=object)
    known = ~np.isnan(values)
    if not known.any():
        return np.nan, np.nan, np.nan
    table = mean_table(values[known, None], subjects[known], resamples, sort=False, fewest=2)
    return tuple(table.loc[0, ["mean", "low", "high"]].astype(float))


def cluster_t(values: np.ndarray, subjects: Iterable) -> dict:
    """Mean of few subjects' differences `[N]`, 95 % interval and p; missing below FEWEST subjects.

    Source: linearised ratio estimate over clusters, Student's t (Cochran 1977, section 6).
    """
    unit, mean = units_of(subjects), float(values.mean())
    count = unit.max() + 1
    low = high = p = np.nan
    if count >= FEWEST:
        squares = np.square(np.bincount(unit, weights=values - mean)).sum()
        error = np.sqrt(count / (count - 1) * squares) / len(values)
        half = student.ppf(0.975, count - 1) * error
        low, high = mean - half, mean + half
        p = 2 * student.sf(abs(mean) / max(error, 1e-300), count - 1)
    return dict(mean=mean, low=low, high=high, p=p, samples=len(values), subjects=int(count))


def jackknife(statistic: Callable[[np.ndarray], np.ndarray], units: np.ndarray,
              groups: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """A statistic of the kept samples' indices, without each of G groups of subjects `[G, ...]`.

    Second, half the width of its 95 % interval, missing below two subjects. A bootstrap would show
    stimuli twice, each like its copy. Source: delete-a-group jackknife (Kott 2001).
    """
    subjects, unit = np.unique(units, return_inverse=True)
    groups = min(groups, len(subjects))
    if groups < 2:
        return np.empty(0), np.nan
    dealt = (np.random.default_rng(0).permutation(len(subjects)) % groups)[unit]
    left = np.array([statistic(np.flatnonzero(dealt != g)) for g in range(groups)])
    squares = ((left - left.mean(0)) ** 2).sum(0)
    return left, student.ppf(0.975, groups - 1) * np.sqrt((groups - 1) / groups * squares)


def p_value(differences: np.ndarray) -> float:
    """Two-sided bootstrap p: twice the smaller share on one side of 0, at least 2 / (R + 1)."""
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (1 + tail) / (1 + len(differences))))


def permutation_p(null: np.ndarray, value: float, slack: float = 1e-12) -> float:
    """One-sided p of a value against its permutations: (1 + as large ones) / (1 + all)."""
    p = (1 + (null >= value - slack).sum()) / (1 + len(null))
    return p if np.isfinite(value) else np.nan


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of m p values: the i-th smallest, from 0, times m - i."""
    p = pd.Series(np.asarray(p, dtype=float)).sort_values(kind="stable")
    steps = (p * np.arange(len(p), 0, -1)).cummax().clip(upper=1)
    return steps.sort_index().to_numpy()


def p_text(p: float) -> str:
    """A p value as it is printed: three decimals, `< 0.001`, or `n/a` where there is none."""
    if p < 0.001:
        return "< 0.001"
    return "n/a" if np.isnan(p) else f"{p:.3f}"


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


def count(predictions: pd.DataFrame) -> Counts:
    """Count the samples of one system on one task; an unreadable one is classified wrongly."""
    rows = predictions.assign(seed=predictions.get("seed", 0)).sort_values(["seed", "path"])
    parts = {int(seed): part for seed, part in rows.groupby("seed")}
    seeds, first = tuple(parts), next(iter(parts.values()), rows)
    if first.empty:
        raise StatsError("the chosen task and split has no samples: nothing can be scored")
    for bad, cause in ((first["label"].isna(), "has no label"),
                       (first["path"].duplicated(), "is tested twice: score tasks, splits apart")):
        if bad.any():
            raise StatsError(f"{first.loc[bad, 'path'].iloc[0]} {cause}")
    keys = [tuple(zip(part["path"], part["label"], strict=True)) for part in parts.values()]
    if len(set(keys)) > 1:
        raise StatsError(f"seeds {seeds} cover different samples or labels: use the same data")
    subject = units_of(first["subject"], sort=False)
    label, classes = pd.factorize(first["label"], sort=True)
    member = np.eye(len(classes))[label]                                             # [N, K]
    right = [(part["predicted"] == part["label"]).to_numpy() for part in parts.values()]
    correct = np.stack([sums_of(member * r[:, None], subject) for r in right])
    return Counts(sums_of(member, subject).astype(int), correct, seeds, keys[0])


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
        out += [(*name, metric, each[metric].mean(), *interval(drawn[metric]),
                 pd.Series(each[metric]).std(), *sizes) for metric in METRICS]
    columns = ["metric", "value", "low", "high", "seed_sd", "seeds", "subjects", "samples"]
    return pd.DataFrame(out, columns=[*by, *columns])


def per_seed(predictions: pd.DataFrame) -> pd.DataFrame:
    """UAR and WAR of every single run: task, pretrained, method, seed, metric, value."""
    out = []
    for name, rows in predictions.groupby(list(SYSTEM), sort=False):
        counts = count(rows)
        out += [(*name, seed, metric, value) for metric in METRICS
                for seed, value in zip(counts.seeds, counts.rates()[metric], strict=True)]
    return pd.DataFrame(out, columns=[*SYSTEM, "seed", "metric", "value"])


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

    `pairs`: (system, reference), each column -> value that selects one system on one task.
    Returns: the columns of both (`<column>_reference` where they differ), metric, difference
    (system minus reference), low, high, p (two-sided), p_holm (by metric), seeds, subjects.
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
            raise StatsError(f"{system} and {reference} were run on different {what}: use the same")
        others = {f"{c}_reference": v for c, v in reference.items() if system.get(c) != v}
        for metric in METRICS:
            change = drawn[metric] - drawn_b[metric]
            difference, (low, high) = (each[metric] - each_b[metric]).mean(), interval(change)
            found = dict(difference=difference, low=low, high=high, p=p_value(change), p_holm=None)
            out.append({**system, **others, "metric": metric, **found, "seeds": len(a.seeds),
                        "subjects": len(a.total)})
    table = pd.DataFrame(out)
    return table.assign(p_holm=table.groupby("metric")["p"].transform(holm))
