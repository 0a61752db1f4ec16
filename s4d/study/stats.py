"""Scores with intervals: recall averages, a bootstrap over test subjects and training seeds, paired differences, Holm's correction.

A method's score varies for two reasons: other people could have been tested, and training could have started from another
seed. Each resample therefore draws whole subjects (a person's samples are not independent) and, apart from them, seeds. A
sample's predictions by all drawn seeds stay together. From n units n - 1 are drawn, which makes the variance of a mean
unbiased: it matters where n is three seeds or twenty people.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..emotions import vocabulary

SYSTEM = ("task", "pretrained", "method")      # columns that name one system on one task
METRICS = ("UAR", "WAR")
MISSING = "unreadable"                         # what a confusion matrix calls a sample without a prediction


class StatsError(ValueError):
    """Predictions that cannot be scored or compared; the message says which and why."""


@dataclass(frozen=True)
class Counts:
    """All that scores need of one system's predictions. G subjects, K classes that occur, S seeds."""

    total: np.ndarray                # int64 [G, K] samples of a subject and class
    correct: np.ndarray              # float64 [S, G, K] those classified correctly, by seed
    seeds: tuple[int, ...]
    key: tuple                       # names the samples, in order: equal keys allow a paired comparison


def collect(grid: Iterable[tuple], runs: Iterable, split: str = "test") -> pd.DataFrame:
    """Predictions of all systems in one table, only of tasks that a system was trained on.

    A single-task run also holds predictions of the other head; that head never learned, so they say nothing about the method.

    Args:
        grid: (method, pretrained, seed, configuration) as `Profile.methods_grid` gives it.
        runs: the finished run of each.
        split: test or validation.
    Returns:
        table: method, pretrained, seed, then the columns of `Run.predictions`.
    """
    parts = []
    for (method, pretrained, seed, cfg), run in zip(grid, runs, strict=True):
        rows = run.predictions()
        rows = rows[rows["task"].isin(cfg.tasks) & (rows["split"] == split)].reset_index(drop=True)
        names = pd.DataFrame({"method": method, "pretrained": pretrained, "seed": seed}, index=rows.index)
        parts.append(pd.concat([names, rows], axis=1))
    return pd.concat(parts, ignore_index=True)


def count(predictions: pd.DataFrame) -> Counts:
    """Counts of one system on one task.

    Args:
        predictions: path, subject, label, predicted, and seed when there are several. A sample without a known subject is a
            subject of its own; one without a prediction (unreadable) counts as an error.
    Raises:
        StatsError: for no rows, a missing label, a sample listed twice, or seeds that cover different samples.
    """
    rows = predictions.assign(seed=predictions["seed"] if "seed" in predictions else 0).sort_values(["seed", "path"])
    if rows.empty:
        raise StatsError("no predictions to score: the chosen task and split hold no samples")
    if rows["label"].isna().any():
        raise StatsError(f"{rows.loc[rows['label'].isna(), 'path'].iloc[0]} has no label: only labelled samples can be scored")
    groups = [part for _, part in rows.groupby("seed")]
    first = groups[0]
    if first["path"].duplicated().any():
        raise StatsError(f"{first.loc[first['path'].duplicated(), 'path'].iloc[0]} is predicted twice by one system: score tasks, methods "
                         "and splits apart")
    key = tuple(zip(first["path"], first["label"]))
    for part in groups[1:]:
        if tuple(zip(part["path"], part["label"])) != key:
            raise StatsError(f"seeds {first['seed'].iloc[0]} and {part['seed'].iloc[0]} cover different samples or labels: train both "
                             "on the same data")
    names = first["subject"].astype(object).where(first["subject"].notna(), "\0" + first["path"].astype(str))
    subject, people = pd.factorize(names)
    label, classes = pd.factorize(first["label"], sort=True)
    cell, shape = subject * len(classes) + label, (len(people), len(classes))
    right = [(part["predicted"].to_numpy() == part["label"].to_numpy()).astype(float) for part in groups]
    correct = np.stack([np.bincount(cell, weights=r, minlength=shape[0] * shape[1]).reshape(shape) for r in right])
    total = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    return Counts(total, correct, tuple(int(p["seed"].iloc[0]) for p in groups), key)


def rates(total: np.ndarray, correct: np.ndarray, absent: np.ndarray | float = 0.0) -> dict[str, np.ndarray]:
    """UAR and WAR, shares in 0..1.

    Args:
        total, correct: `[..., K]` samples and correct ones of each class.
        absent: recall of a class without samples, broadcast to `correct`.
    """
    recall = np.array(np.broadcast_to(absent, correct.shape), dtype=float)
    np.divide(correct, total, out=recall, where=np.broadcast_to(total > 0, correct.shape))
    return {"UAR": recall.mean(-1), "WAR": correct.sum(-1) / total.sum(-1)}


def draws(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n units enters each resample, int64 `[R, n]`: n - 1 drawn with replacement (the one, if n is 1).

    Raises:
        StatsError: for no resamples.
    Source: Rao and Wu 1988, the rescaled bootstrap.
    """
    if resamples < 1:
        raise StatsError(f"resamples is {resamples}: expected a number of bootstrap resamples from 1")
    return rng.multinomial(max(1, n - 1), np.full(n, 1 / n), size=resamples)


def resample(counts: Counts, resamples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """UAR and WAR of each resample, `[R]`. Systems on the same samples get the same draws, so differences are paired.

    A class that no drawn subject shows keeps its recall of the whole test part: leaving it out would shift the UAR of a
    system that always gives one answer.
    """
    rng = np.random.default_rng(seed)
    people = draws(len(counts.total), resamples, rng).astype(float)                        # [R, G]
    seeds = draws(len(counts.seeds), resamples, rng).astype(float)
    seeds /= seeds.sum(1, keepdims=True)                                                   # [R, S]
    correct = sum((people @ layer) * seeds[:, s, None] for s, layer in enumerate(counts.correct))      # [R, K]
    return rates(people @ counts.total, correct, absent=seeds @ (counts.correct.sum(1) / counts.total.sum(0)))


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of resampled values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def scores(predictions: pd.DataFrame, by: Iterable[str] = SYSTEM, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """UAR and WAR of every system, mean over seeds, with 95 % intervals over test subjects and seeds.

    Args:
        predictions: as `collect` gives them.
        by: columns that name a system and its task.
    Returns:
        table: `by`, metric, value, low, high (shares), seed_sd (over seeds; missing for one), seeds, subjects, samples.
    """
    by, out = list(by), []
    for name, rows in predictions.groupby(by, sort=False):
        counts = count(rows)
        each, drawn = rates(counts.total.sum(0), counts.correct.sum(1)), resample(counts, resamples, seed)
        for metric in METRICS:
            low, high = interval(drawn[metric])
            out.append({**dict(zip(by, name)), "metric": metric, "value": each[metric].mean(), "low": low, "high": high,
                        "seed_sd": each[metric].std(ddof=1) if len(counts.seeds) > 1 else np.nan, "seeds": len(counts.seeds),
                        "subjects": len(counts.total), "samples": int(counts.total.sum())})
    return pd.DataFrame(out)


def per_seed(predictions: pd.DataFrame, by: Iterable[str] = SYSTEM) -> pd.DataFrame:
    """UAR and WAR of every single run: `by`, seed, metric, value."""
    by, out = list(by), []
    for name, rows in predictions.groupby(by, sort=False):
        counts = count(rows)
        each = rates(counts.total.sum(0), counts.correct.sum(1))
        out += [{**dict(zip(by, name)), "seed": s, "metric": m, "value": each[m][i]} for m in METRICS for i, s in enumerate(counts.seeds)]
    return pd.DataFrame(out)


def paired(predictions: pd.DataFrame, pairs: Iterable[tuple[dict, dict]], resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Differences of two systems on the same samples, for all pairs, corrected together.

    Args:
        predictions: as `collect` gives them.
        pairs: (system, reference), each a dictionary of column -> value that selects one system on one task.
    Returns:
        table: the columns both share, then those in which they differ as `<column>` and `<column>_reference`, metric,
        difference (system minus reference), low, high, p (two-sided), p_holm (over all pairs of one metric), seeds, subjects.
    Raises:
        StatsError: for a system without predictions, or two with different samples or seeds.
    """
    cache, out = {}, []
    for system, reference in pairs:
        found = []
        for chosen in (system, reference):
            key = tuple(sorted(chosen.items()))
            if key not in cache:
                counts = count(select(predictions, chosen))
                cache[key] = counts, rates(counts.total.sum(0), counts.correct.sum(1)), resample(counts, resamples, seed)
            found.append(cache[key])
        (a, each, drawn), (b, each_b, drawn_b) = found
        if a.key != b.key or a.seeds != b.seeds:
            what = "samples" if a.key != b.key else f"seeds ({a.seeds} and {b.seeds})"
            raise StatsError(f"{system} and {reference} were run on different {what}: a paired difference needs the same ones")
        names = dict(system) | {f"{c}_reference": v for c, v in reference.items() if system.get(c) != v}
        for metric in METRICS:
            d = drawn[metric] - drawn_b[metric]
            low, high = interval(d)
            out.append({**names, "metric": metric, "difference": (each[metric] - each_b[metric]).mean(), "low": low, "high": high,
                        "p": p_value(d), "seeds": len(a.seeds), "subjects": len(a.total)})
    table = pd.DataFrame(out)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", table.groupby("metric")["p"].transform(lambda p: holm(p.to_numpy())))
    return table


def select(predictions: pd.DataFrame, chosen: dict) -> pd.DataFrame:
    """Rows in which every named column has the given value.

    Raises:
        StatsError: when there are none.
    """
    keep = np.logical_and.reduce([predictions[c] == v for c, v in chosen.items()])
    if not keep.any():
        raise StatsError(f"no predictions of {', '.join(f'{c}={v}' for c, v in chosen.items())}: train that system, on that task, first")
    return predictions[keep]


def p_value(differences: np.ndarray) -> float:
    """Two-sided bootstrap p: twice the smaller share of resampled differences on one side of 0, never below 2 / (R + 1)."""
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (1 + tail) / (1 + len(differences))))


def p_text(p: float) -> str:
    """A p value as it is printed: three decimals, `< 0.001` below that (never 0.000), `n/a` where there is none."""
    if np.isnan(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction: the i-th smallest of m values (from 0) times m - i, made increasing, at most 1."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    out = np.empty_like(p)
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return out


def mean_interval(values: np.ndarray, subjects: Iterable, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of one number per sample, and its 95 % interval over subjects.

    Args:
        values: float `[N]`.
        subjects: N names; a missing one makes the sample a subject of its own.
    """
    values, names = np.asarray(values, dtype=float), pd.Series(list(subjects), dtype=object)
    group, people = pd.factorize(names.where(names.notna(), "\0" + names.index.astype(str)))
    weight = draws(len(people), resamples, np.random.default_rng(seed))
    drawn = (weight @ np.bincount(group, weights=values)) / (weight @ np.bincount(group))
    return float(values.mean()), *interval(drawn)


def confusion(predictions: pd.DataFrame, classes: int = 7) -> pd.DataFrame:
    """Confusion matrix of one system on one task, counts summed over seeds.

    Returns:
        table: label, predicted, count, share (of the label's predictions), every pair of classes in canonical order; a column
        class "unreadable" exists when a sample has no prediction.
    """
    names = [*vocabulary(classes)]
    given = predictions["predicted"].fillna(MISSING)
    columns = names + [MISSING] * bool((given == MISSING).any())
    counts = pd.crosstab(predictions["label"], given).reindex(index=names, columns=columns, fill_value=0)
    table = counts.rename_axis(columns="predicted").stack().rename("count").reset_index()
    total = table.groupby("label")["count"].transform("sum")
    return table.assign(share=(table["count"] / total).where(total > 0))


def baselines(predictions: pd.DataFrame, classes: int | dict[str, int] = 7) -> pd.DataFrame:
    """What needs no model, by task: guessing among the classes with equal probability, and always the most frequent class.

    Args:
        classes: how many a system chooses from, for all tasks or by task; some may not occur in a small test part.
    Returns:
        table: task, baseline (chance, majority), label (the frequent class), UAR, WAR, in expectation, shares.
    """
    out = []
    for task, rows in predictions.drop_duplicates(["task", "path"]).groupby("task", sort=False):
        share = rows["label"].value_counts(normalize=True)
        guess = 1 / (classes[task] if isinstance(classes, dict) else classes)
        out += [{"task": task, "baseline": "chance", "label": None, "UAR": guess, "WAR": guess},
                {"task": task, "baseline": "majority", "label": share.index[0], "UAR": 1 / len(share), "WAR": share.iloc[0]}]
    return pd.DataFrame(out)


def readable(table: pd.DataFrame, value: str = "value") -> pd.DataFrame:
    """Scores or differences as a paper prints them: a row per system or pair, a column per metric, `41.5 [37.0, 46.1]` in per cent.

    Args:
        table: of `scores`, or of `paired` with value="difference"; then the sign is shown and Holm's p has columns too.
    """
    sign = "+" if value == "difference" else ""
    names = list(table.columns[: table.columns.get_loc("metric")])
    out = table[names].drop_duplicates().reset_index(drop=True)
    for metric, rows in table.groupby("metric", sort=False):
        if len(rows) != len(out):
            raise StatsError(f"{metric} has {len(rows)} rows for {len(out)} systems: give all metrics of one table")
        numbers = zip(*(100 * rows[c] for c in (value, "low", "high")))
        out[metric] = [f"{v:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]" for v, low, high in numbers]
        if "p_holm" in rows:
            out[f"{metric} p"] = [p_text(p) for p in rows["p_holm"]]
    last = table.drop_duplicates(names).reset_index(drop=True)
    return out.assign(**{c: last[c] for c in ("seeds", "subjects", "samples") if c in last})


def verdict(low: float, high: float, p_holm: float, level: float = 0.05) -> str:
    """What an interval of a difference allows to say, in one clause."""
    if low <= 0 <= high:
        return "the interval includes 0, so the two are not told apart"
    side = "higher" if low > 0 else "lower"
    if p_holm > level:
        return f"the interval lies on the {side} side, but the difference does not outlast the correction for all comparisons"
    return f"the first is {side}, also after the correction for all comparisons"
