"""Intervals over people: samples of one person are not independent, so whole people are drawn again, or left out."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import t as student

from .stats import draws, mean_interval

FEWEST = 5        # people of whom an interval is given; two or three say nothing about others


def units_of(subjects: pd.Series) -> np.ndarray:
    """Integer unit of each sample: its subject, or itself where the subject is unknown."""
    text = [s if isinstance(s, str) else f"row {i}" for i, s in enumerate(subjects)]
    return np.unique(text, return_inverse=True)[1]


def over_subjects(values, subjects, resamples: int = 1000, seed: int = 0) -> dict:
    """Mean with a 95 % interval over subjects.

    Args:
        values: `[N]`, one a sample; missing values are left out.
        subjects: N names; a sample without one is a subject of its own.
    Returns:
        mean, low, high (the limits are missing with fewer than two subjects), samples, subjects.
    """
    values, names = np.asarray(values, float), pd.Series(list(subjects), dtype=object)
    names = names.where(names.notna(), "row " + names.index.astype(str))[~np.isnan(values)]
    values = values[~np.isnan(values)]
    people = names.nunique()
    if people < 2:
        return dict(mean=values.mean() if len(values) else np.nan, low=np.nan, high=np.nan, samples=len(values), subjects=people)
    mean, low, high = mean_interval(values, names, resamples, seed)
    return dict(mean=mean, low=low, high=high, samples=len(values), subjects=people)


def sums_of(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Sums over the samples of each unit: `[N, ...]` -> `[U, ...]`, units numbered from 0."""
    out = np.zeros((unit.max() + 1, *values.shape[1:]))
    np.add.at(out, unit, values)
    return out


def weights_of(units: int, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each unit enters each resample, float64 `[R, U]`; all resamples are missing with fewer than two units."""
    if units < 2:
        return np.full((resamples, units), np.nan)
    return draws(units, resamples, np.random.default_rng(seed)).astype(float)


def jackknife(statistic: Callable[[np.ndarray], np.ndarray], units: np.ndarray, groups: int = 10, seed: int = 0) -> np.ndarray:
    """Half the width of a 95 % interval, from leaving out groups of whole people in turn.

    A bootstrap would show some stimuli twice, and a stimulus resembles its copy perfectly; the jackknife repeats none.

    Args:
        statistic: indices of the kept samples -> an array of statistics.
        units: `[N]`, person of each sample.
        groups: people are dealt to so many groups at random (at most one group a person).
    Returns:
        array like the statistic; missing with fewer than two people.
    Source: see `left_out_half`.
    """
    people = np.unique(units, return_inverse=True)[1]
    count = people.max() + 1
    groups = min(groups, count)
    if groups < 2:
        return np.full_like(np.asarray(statistic(np.arange(len(units))), float), np.nan)
    dealt = (np.random.default_rng(seed).permutation(count) % groups)[people]
    left = np.array([statistic(np.flatnonzero(dealt != g)) for g in range(groups)])
    return left_out_half(left)


def left_out_half(left: np.ndarray) -> np.ndarray:
    """Half the width of a 95 % interval of a statistic that was taken without each of G groups of people in turn, `[G, ...]`.

    Source: delete-a-group jackknife, Kott 2001; Student's t with groups - 1 degrees of freedom.
    """
    groups = len(left)
    return student.ppf(0.975, groups - 1) * np.sqrt((groups - 1) / groups * ((left - left.mean(0)) ** 2).sum(0))


def deal_people(tables: tuple[pd.DataFrame, pd.DataFrame], groups: int, seed: int) -> list[np.ndarray] | None:
    """Deals the people of two tests to groups at random, to be left out in turn: the group of each sample, of either test.

    Groups are at most as many as people. None when a test shows fewer than two people.
    """
    units = [units_of(t.subject) for t in tables]
    people = [u.max() + 1 if len(u) else 0 for u in units]
    if min(people) < 2:
        return None
    dealt = np.split(np.random.default_rng(seed).permutation(sum(people)) % min(groups, sum(people)), [people[0]])
    return [deal[unit] for deal, unit in zip(dealt, units)]
