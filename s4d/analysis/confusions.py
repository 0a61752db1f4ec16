"""What the heads say: the photo head read along the frames of a clip, and which emotions are taken for which."""
from __future__ import annotations

from itertools import permutations as all_orders
from math import factorial

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .people import over_subjects, sums_of, units_of, weights_of


def tidy(matrix: np.ndarray, names: list[str], row: str, column: str, value: str) -> pd.DataFrame:
    """A square matrix as a table with one row a cell."""
    k = len(names)
    return pd.DataFrame({row: np.repeat(names, k), column: np.tile(names, k), value: np.asarray(matrix).reshape(k * k)})


def class_orders(classes: int, most: int = 5040, seed: int = 0) -> np.ndarray:
    """All orders of the classes where they are few, else `most` random ones; the first is the identity. `[R, K]`."""
    if factorial(classes) <= most:
        return np.array(list(all_orders(range(classes))))
    rng = np.random.default_rng(seed)
    return np.array([np.arange(classes), *(rng.permutation(classes) for _ in range(most - 1))])


# Along a clip -----------------------------------------------------------------------------------------------------------

def true_probability(found: np.ndarray, labels: pd.Series, names: tuple[str, ...]) -> np.ndarray:
    """Probability of each sample's own class `[N]`; missing where the head does not know the class."""
    column = labels.map({n: i for i, n in enumerate(names)})
    return np.array([row[int(c)] if c == c else np.nan for row, c in zip(found, column)])


def course(frames: pd.DataFrame, fps: float | None = None, resamples: int = 1000) -> pd.DataFrame:
    """Mean curves around the apex, by emotion and over all but neutral.

    Args:
        frames: one row a frame: path, label, subject, frame, apex (missing: the clip's middle), probability, intensity.
        fps: frames per second of the files; None leaves time in frames.
    Returns:
        tidy table: label ("expressive" over all but neutral), quantity ("probability", "intensity"), time (s or frames from
        the apex), mean, low, high (95 % over subjects), samples, subjects. Times that under a quarter of the clips reach
        are left out.
    """
    middle = frames.groupby("path").frame.transform("median").round()
    frames = frames.assign(offset=(frames.frame - frames.apex.astype(float).fillna(middle)).astype(int))
    expressive = frames[frames.label != "neutral"].assign(label="expressive")
    out = []
    for label, group in pd.concat([expressive, frames]).groupby("label", sort=False):
        clips = group.path.nunique()
        for offset, rows in group.groupby("offset"):
            if rows.path.nunique() * 4 < clips:
                continue
            for quantity in ("probability", "intensity"):
                if rows[quantity].notna().any():
                    found = over_subjects(rows[quantity], rows.subject, resamples)
                    out.append(dict(label=label, quantity=quantity, time=offset / (fps or 1), **found))
    return pd.DataFrame(out)


def follow(frames: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Does the probability follow the true intensity inside each clip?

    Args:
        frames: as in `course`; clips of constant intensity (neutral) have no correlation and are left out.
    Returns:
        label, mean, low, high (Pearson r inside a clip; 95 % over subjects), null (mean r with the intensity of another clip
        of the emotion, which keeps what all clips share in their time course), clips, subjects.
    """
    rng, curves = np.random.default_rng(seed), {}
    for (path, label, subject), g in frames.groupby(["path", "label", "subject"], dropna=False, sort=True):
        curves.setdefault(label, []).append((subject, g.probability.to_numpy(float), g.intensity.to_numpy(float)))
    out = []
    for label, clips in curves.items():
        own = np.array([_pearson(p, i) for _, p, i in clips])
        shift = rng.integers(1, len(clips), size=len(clips)) if len(clips) > 1 else np.zeros(1, int)
        other = [_pearson(p, clips[(k + s) % len(clips)][2]) if len(clips) > 1 else np.nan
                 for k, ((_, p, _), s) in enumerate(zip(clips, shift))]
        if np.isfinite(own).any():
            found = over_subjects(own, [s for s, _, _ in clips], resamples)
            null = np.array(other)[np.isfinite(other)]
            out.append(dict(label=label, mean=found["mean"], low=found["low"], high=found["high"],
                            null=null.mean() if len(null) else np.nan, clips=found["samples"], subjects=found["subjects"]))
    return pd.DataFrame(out, columns=["label", "mean", "low", "high", "null", "clips", "subjects"])


def lagged(frames: pd.DataFrame, fps: float | None = None, most: int | None = None, resamples: int = 1000,
           seed: int = 0) -> tuple[pd.DataFrame, dict]:
    """How much later than the expression does the probability rise and fall?

    Args:
        frames: as in `course`; clips without a course of intensity are left out.
        fps: frames per second of the files; None leaves time in frames.
        most: largest shift, frames; None for a quarter of the shortest clip.
    Returns:
        curve: lag (s or frames; positive: the probability comes later), mean, low, high (Pearson r of the shifted courses; 95 % over
        people), clips, subjects; empty without truth. And best (the lag of the largest mean r), best_low, best_high, peak (mean time of
        a clip's largest probability less that of its apex), peak_low, peak_high, clips, subjects.
    """
    most = most or int(frames.groupby("path").size().min() // 4)
    shifts, known = np.arange(-most, most + 1), []
    for (_, subject), g in frames.groupby(["path", "subject"], dropna=False, sort=True):
        p, i = g.probability.to_numpy(float), g.intensity.to_numpy(float)
        r = [_pearson(p[max(s, 0):len(p) + min(s, 0)], i[max(-s, 0):len(i) - max(s, 0)]) for s in shifts]
        if np.isfinite(r).all():
            known.append((subject, r, p.argmax() - g.apex.iloc[0]))
    if not known:
        return pd.DataFrame(columns=["lag", "mean", "low", "high", "clips", "subjects"]), {}
    subjects, r, peak = pd.Series([k[0] for k in known], dtype=object), np.array([k[1] for k in known]), np.array([k[2] for k in known])
    scale, unit = 1 / (fps or 1), units_of(subjects)
    curve = []
    for shift, values in zip(shifts, r.T):
        found = over_subjects(values, subjects, resamples, seed)
        limits = {k: found[k] for k in ("mean", "low", "high", "subjects")}
        curve.append(dict(lag=shift * scale, clips=len(r), **limits))
    times = weights_of(unit.max() + 1, resamples, seed)
    best = shifts[(times @ sums_of(r, unit)).argmax(1)] if np.isfinite(times).all() else np.full(resamples, np.nan)
    apart = over_subjects(scale * peak, subjects, resamples, seed)
    return pd.DataFrame(curve), dict(best=shifts[r.mean(0).argmax()] * scale, best_low=scale * np.percentile(best, 2.5),
                                     best_high=scale * np.percentile(best, 97.5), peak=apart["mean"], peak_low=apart["low"],
                                     peak_high=apart["high"], clips=len(r), subjects=apart["subjects"])


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation over the common length; missing where either is constant or unknown."""
    n = min(len(a), len(b))
    a, b = a[:n] - a[:n].mean(), b[:n] - b[:n].mean()
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 1e-9 else np.nan


# Confusions -------------------------------------------------------------------------------------------------------------

def soft_confusion(predictions: pd.DataFrame, names: list[str], weights: np.ndarray | None = None) -> np.ndarray:
    """Mean probability of every class given the true one, `[K, K]`, rows sum to 1.

    Args:
        predictions: label and prob_<emotion> of every sample; seeds may be stacked.
        weights: `[N]`, how often each row counts (a bootstrap's draw).
    """
    table = predictions[[f"prob_{n}" for n in names]].to_numpy(float)
    weights = np.where(np.isnan(table).any(1), 0, 1 if weights is None else weights)
    member = (predictions.label.to_numpy()[None] == np.array(names)[:, None]) * weights
    total = member @ np.nan_to_num(table)
    return total / np.maximum(total.sum(1, keepdims=True), 1e-12)


def confusability(static: np.ndarray, dynamic: np.ndarray, seed: int = 0) -> dict:
    """Do static confusions predict dynamic ones? Spearman correlation of the off-diagonal cells.

    Returns:
        rho, null_95 and p against renaming the classes of one side in 2000 random orders (all, where there are fewer); p_least, the
        smallest p that so many orders can give; rho_cells after the mean of each column is removed, which takes away the plain
        preference of both models for a class.
    """
    k = len(static)
    off = ~np.eye(k, dtype=bool)
    x = rankdata(static[off])
    score = lambda m: _pearson(x, rankdata(m[off]))
    orders = class_orders(k, 2000, seed)
    null = np.array([score(dynamic[np.ix_(o, o)]) for o in orders])
    centred = [np.where(off, m, np.nan) - np.nanmean(np.where(off, m, np.nan), 0) for m in (static, dynamic)]
    return dict(rho=null[0], null_95=np.nanpercentile(null, 95), p=(null >= null[0] - 1e-12).mean(), p_least=1 / len(null),
                rho_cells=_pearson(rankdata(centred[0][off]), rankdata(centred[1][off])))


def confusability_interval(static: pd.DataFrame, dynamic: pd.DataFrame, names: list[str], resamples: int = 300,
                           seed: int = 0) -> tuple[float, float]:
    """95 % interval of the correlation when the subjects of both test sets are drawn again (samples, where subjects are unknown)."""
    rng, found = np.random.default_rng(seed), []
    units = [units_of(t.subject.where(t.subject.notna(), t.path)) for t in (static, dynamic)]
    off = ~np.eye(len(names), dtype=bool)
    for _ in range(resamples):
        drawn = []
        for table, unit in zip((static, dynamic), units):
            count = unit.max() + 1
            times = np.bincount(rng.integers(count, size=count), minlength=count)
            drawn.append(soft_confusion(table, names, times[unit])[off])
        found.append(_pearson(rankdata(drawn[0]), rankdata(drawn[1])))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def confusion_study(tests: dict[tuple[str, str], pd.DataFrame], sides: dict[str, tuple], names: list[str],
                    resamples: int = 200) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Static against dynamic confusions of several pairs of readings.

    Args:
        tests: (method, task) -> predictions on the test split, seeds stacked.
        sides: comparison -> (key of the static reading, key of the dynamic one).
        names: classes that both tasks know.
    Returns:
        one row a pair of classes: comparison, label, wrong, static, dynamic (mean probability of the wrong class); and one row a
        comparison: rho, low, high, null_95, p, p_least, rho_cells.
    """
    pairs, stats = [], []
    for comparison, keys in sides.items():
        known = [tests[k][tests[k].label.isin(names)].reset_index(drop=True) for k in keys]
        static, dynamic = (soft_confusion(t, names) for t in known)
        low, high = confusability_interval(*known, names, resamples)
        stats.append(dict(comparison=comparison, low=low, high=high, **confusability(static, dynamic)))
        pairs.append(tidy(static, names, "label", "wrong", "static").assign(dynamic=dynamic.ravel(), comparison=comparison))
    table = pd.concat(pairs, ignore_index=True)
    return table[table.label != table.wrong].reset_index(drop=True), pd.DataFrame(stats)
