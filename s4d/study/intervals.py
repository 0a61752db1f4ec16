"""Intervals over subjects (bootstrap, Student's t, jackknife) and p values.

The samples of a subject are not independent, so whole subjects are drawn again, or left out.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy.stats import t as student

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
    if resamples < 1:
        raise StatsError(f"resamples is {resamples}: expected a number of resamples from 1")
    rng = np.random.default_rng(seed)
    return rng.multinomial(max(1, n - 1), np.full(n, 1 / n), size=resamples).astype(float)


def weights_of(units: int, resamples: int, seed: int = 0) -> np.ndarray:
    """`draws` `[R, U]`; all resamples are missing with fewer than two units."""
    return draws(units, resamples, seed) if units > 1 else np.full((resamples, units), np.nan)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Percentile 95 % interval of resampled values."""
    return tuple(np.quantile(values, LIMITS).tolist())


def mean_table(values: np.ndarray, subjects: Iterable, resamples: int = 1000, seed: int = 0,
               sort: bool = True, fewest: int = FEWEST) -> pd.DataFrame:
    """Means of the columns of `[N, T]`, a row each: mean, low, high (95 %), samples, subjects."""
    unit = units_of(subjects, sort)
    count, size = unit.max() + 1, np.bincount(unit)
    low = high = np.full(values.shape[1], np.nan)
    if count >= fewest:
        weight = draws(count, resamples, seed)
        drawn = (weight @ sums_of(values, unit)) / (weight @ size)[:, None]
        low, high = np.quantile(drawn, LIMITS, axis=0)
    found = dict(mean=values.mean(0), low=low, high=high, samples=len(values), subjects=count)
    return pd.DataFrame(found)


def mean_interval(values: np.ndarray, subjects: Iterable, resamples: int = 2000,
                  seed: int = 0) -> tuple[float, float, float]:
    """Mean of `[N]` numbers, missing ones left out, and its 95 % interval over subjects."""
    values, subjects = np.asarray(values, dtype=float), np.asarray(list(subjects), dtype=object)
    known = ~np.isnan(values)
    if not known.any():
        return np.nan, np.nan, np.nan
    table = mean_table(values[known, None], subjects[known], resamples, seed, False, fewest=2)
    return tuple(table.loc[0, ["mean", "low", "high"]].astype(float))


def cluster_t(values: np.ndarray, subjects: Iterable) -> dict:
    """Mean of paired differences `[N]` with 95 % interval and p; missing below FEWEST subjects.

    For few subjects, of whom a percentile bootstrap is too narrow.
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


def leave_out(statistic: Callable[[np.ndarray], np.ndarray], units: np.ndarray, groups: int = 10,
              seed: int = 0) -> np.ndarray:
    """A statistic of the kept samples' indices, without each of G random groups of subjects.

    `[G, ...]`, empty for one subject; units `[N]` are the subject of each sample.
    """
    subjects, unit = np.unique(units, return_inverse=True)
    groups = min(groups, len(subjects))
    if groups < 2:
        return np.empty(0)
    dealt = (np.random.default_rng(seed).permutation(len(subjects)) % groups)[unit]
    return np.array([statistic(np.flatnonzero(dealt != g)) for g in range(groups)])


def left_out_half(left: np.ndarray) -> np.ndarray:
    """Half the width of a 95 % interval, from `leave_out` (delete-a-group jackknife, Kott 2001)."""
    groups = len(left)
    if groups < 2:
        return np.nan
    squares = ((left - left.mean(0)) ** 2).sum(0)
    return student.ppf(0.975, groups - 1) * np.sqrt((groups - 1) / groups * squares)


def jackknife(statistic: Callable[[np.ndarray], np.ndarray], units: np.ndarray, groups: int = 10,
              seed: int = 0) -> np.ndarray:
    """`left_out_half` of `leave_out`: a bootstrap shows stimuli twice, each like its copy."""
    return left_out_half(leave_out(statistic, units, groups, seed))


def p_value(differences: np.ndarray) -> float:
    """Two-sided bootstrap p: twice the smaller share on one side of 0, at least 2 / (R + 1)."""
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (1 + tail) / (1 + len(differences))))


def permutation_p(null: np.ndarray, value: float, slack: float = 1e-12) -> float:
    """One-sided p of a value against its permutations: (1 + as large ones) / (1 + all)."""
    return (1 + (null >= value - slack).sum()) / (1 + len(null))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of m p values: the i-th smallest, from 0, times m - i."""
    p = np.asarray(p, dtype=float)
    order, out = np.argsort(p, kind="stable"), np.empty_like(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    out[order] = np.minimum(1.0, steps)
    return out


def p_text(p: float) -> str:
    """A p value as it is printed: three decimals, `< 0.001`, or `n/a` where there is none."""
    if p < 0.001:
        return "< 0.001"
    return "n/a" if np.isnan(p) else f"{p:.3f}"
