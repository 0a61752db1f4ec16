"""What the heads answer: photos along a clip, and which emotions are confused."""
from __future__ import annotations

from itertools import permutations as all_orders
from math import factorial

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from . import intervals
from .intervals import LIMITS, mean_table, units_of


def tidy(matrix: np.ndarray, names: list[str], row: str, column: str, value: str) -> pd.DataFrame:
    """Write a square matrix as a table with one row a cell."""
    index = pd.MultiIndex.from_product([names, names], names=[row, column])
    return pd.Series(np.asarray(matrix).ravel(), index, name=value).reset_index()


def class_orders(classes: int, most: int = 5040, seed: int = 0) -> np.ndarray:
    """All orders of the classes, or `most` random ones; the first is the identity. `[R, K]`."""
    if factorial(classes) <= most:
        return np.array(list(all_orders(range(classes))))
    rng = np.random.default_rng(seed)
    return np.array([np.arange(classes), *(rng.permutation(classes) for _ in range(most - 1))])


def true_probability(found: np.ndarray, labels: pd.Series, names: tuple[str, ...]) -> np.ndarray:
    """Probability `[N]` of each sample's own class; missing where the head does not know it."""
    pairs = zip(found, labels, strict=True)
    return np.array([row[names.index(n)] if n in names else np.nan for row, n in pairs])


def course(frames: pd.DataFrame, fps: float | None = None, resamples: int = 1000) -> pd.DataFrame:
    """Mean curves around the apex, by emotion and over all ("expressive"), without neutral clips.

    Only the half of the clips is read that covers the whole range of times, since a change of
    clips along a curve would look like a change in time.

    Args:
        frames: path, label, subject, frame, apex (missing: the middle), probability, intensity.
        fps: frames per second of the files; None leaves time in frames.
    Returns:
        label, quantity ("probability", "intensity"), time (from the apex), and `mean_table`.
    """
    frames = frames[frames.label != "neutral"]
    middle = frames.groupby("path").frame.transform("median").round()
    apex = frames.apex.astype(float).fillna(middle)
    frames = frames.assign(offset=(frames.frame - apex).astype(int))
    reach = frames.groupby("path").offset.agg(["min", "max"])
    if len(reach):
        first = np.quantile(reach["min"], 0.75, method="higher")
        last = np.quantile(reach["max"], 0.25, method="lower")
        whole = reach.index[(reach["min"] <= first) & (reach["max"] >= last)]
        frames = frames[frames.path.isin(whole) & frames.offset.between(first, last)]
    out = []
    both = pd.concat([frames.assign(label="expressive"), frames])
    for label, group in both.groupby("label", sort=False):
        subjects = group.drop_duplicates("path").set_index("path").subject.sort_index()
        for quantity in ("probability", "intensity"):
            curves = group.pivot(index="path", columns="offset", values=quantity).sort_index()
            if curves.notna().all(axis=None):
                table = mean_table(curves.to_numpy(float), subjects, resamples)
                time = curves.columns / (fps or 1)
                out.append(table.assign(label=label, quantity=quantity, time=time))
    columns = ["label", "quantity", "time", "mean", "low", "high", "samples", "subjects"]
    return pd.concat(out, ignore_index=True)[columns] if out else pd.DataFrame(columns=columns)


def inside(frames: pd.DataFrame) -> pd.DataFrame:
    """Pearson's r of probability and true intensity in each clip where both vary."""
    groups = frames.groupby("path", sort=True)
    table = groups[["label", "subject"]].agg("first").reset_index()
    table["r"] = [_shifted(g.probability.to_numpy(float), g.intensity.to_numpy(float), 0)
                  for _, g in groups]
    return table.dropna(subset="r").reset_index(drop=True)


def follow(frames: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Test whether the probability follows the true intensity of its own clip.

    The null pairs a clip with clips of the same emotion and of other subjects, moved to a common
    apex: rising and falling about the apex stays in it, what is peculiar to one clip does not.
    Returns: label ("expressive" first), mean, low, high (r of `inside`), null, null_95 (mean and
    95th percentile of the mean r over random partners), p (one-sided), clips, subjects.
    """
    clips, rng = inside(frames), np.random.default_rng(seed)
    unit, null = units_of(clips.subject), np.full((len(clips), resamples), np.nan)
    courses = {path: (g.probability.to_numpy(float), g.intensity.to_numpy(float), g.apex.iloc[0])
               for path, g in frames[frames.path.isin(clips.path)].groupby("path")}
    for k, clip in enumerate(clips.itertuples()):
        probability, _, apex = courses[clip.path]
        others = clips.path[(clips.label == clip.label) & (unit != unit[k])]
        r = np.array([_shifted(probability, courses[other][1], int(apex - courses[other][2]))
                      for other in others])
        r = r[np.isfinite(r)]
        if len(r):
            null[k] = r[rng.integers(len(r), size=resamples)]
    out = []
    for label in ["expressive", *dict.fromkeys(clips.label)] if len(clips) else []:
        rows = np.flatnonzero((clips.label == label) | (label == "expressive"))
        r = clips.r.to_numpy()[rows]
        mean = mean_table(r[:, None], clips.subject.iloc[rows], resamples).iloc[0]
        paired, chance, p = np.isfinite(null[rows, 0]), np.full(resamples, np.nan), np.nan
        if paired.any():
            chance = null[rows][paired].mean(0)
            p = intervals.permutation_p(chance, r[paired].mean(), slack=0)
        out.append((label, *mean[["mean", "low", "high"]], chance.mean(),
                    np.percentile(chance, 95), p, len(rows), int(mean.subjects)))
    return pd.DataFrame(out, columns=["label", "mean", "low", "high", "null", "null_95", "p",
                                      "clips", "subjects"])


def lagged(frames: pd.DataFrame, fps: float | None = None,
           resamples: int = 1000) -> tuple[pd.DataFrame, dict]:
    """Measure how much later than the expression the probability rises and falls.

    The shifts go to a quarter of the shortest clip.
    Returns: curve: lag (positive: the probability comes later) and `mean_table` of r at each; and
    best (lag of the largest mean r), peak (mean time of a clip's largest probability less its
    apex), both with _low and _high, clips, subjects. Empty without truth.
    """
    most = int(frames.groupby("path").size().min() // 4)
    shifts, scale = np.arange(-most, most + 1), 1 / (fps or 1)
    subjects, r, peak = [], [], []
    for (_, subject), g in frames.groupby(["path", "subject"], dropna=False, sort=True):
        probability, intensity = g.probability.to_numpy(float), g.intensity.to_numpy(float)
        found = [_shifted(probability, intensity, s) for s in shifts]
        if np.isfinite(found).all():
            subjects.append(subject)
            r.append(found)
            peak.append(probability.argmax() - g.apex.iloc[0])
    if not r:
        return pd.DataFrame(columns=["lag", "mean", "low", "high", "clips", "subjects"]), {}
    r, unit = np.array(r), units_of(subjects)
    curve = mean_table(r, subjects, resamples).rename(columns={"samples": "clips"})
    curve.insert(0, "lag", shifts * scale)
    weights = intervals.weights_of(unit.max() + 1, resamples)
    best = np.full(resamples, np.nan)
    if np.isfinite(weights).all():
        best = shifts[(weights @ intervals.sums_of(r, unit)).argmax(1)]
    best_low, best_high = scale * np.quantile(best, LIMITS)
    late = mean_table(scale * np.array(peak)[:, None], subjects, resamples).iloc[0]
    return curve, dict(best=shifts[r.mean(0).argmax()] * scale, best_low=best_low,
                       best_high=best_high, peak=late["mean"], peak_low=late["low"],
                       peak_high=late["high"], clips=len(r), subjects=int(late["subjects"]))


def _shifted(a: np.ndarray, b: np.ndarray, shift: int) -> float:
    """Correlate `a` with `b` moved so many frames later; missing if half of `a` has no partner."""
    first, last = max(0, shift), min(len(a), len(b) + shift)
    if 2 * (last - first) < len(a):
        return np.nan
    a, b = a[first:last], b[first - shift:last - shift]
    a, b = a - a.mean(), b - b.mean()
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 1e-9 else np.nan


def soft_confusion(predictions: pd.DataFrame, names: list[str],
                   weights: np.ndarray | float = 1) -> np.ndarray:
    """Mean probability of every class given the true one, `[K, K]`, rows sum to 1."""
    table = predictions[[f"prob_{n}" for n in names]].to_numpy(float)
    weights = np.where(np.isnan(table).any(1), 0, weights)
    member = (predictions.label.to_numpy()[None] == np.array(names)[:, None]) * weights
    total = member @ np.nan_to_num(table)
    return total / np.maximum(total.sum(1, keepdims=True), 1e-12)


def confusability(static: np.ndarray, dynamic: np.ndarray, seed: int = 0) -> dict:
    """Test whether static confusions predict dynamic ones: Spearman's rho of the wrong cells.

    Returns: rho, null_95 and p against renaming the classes of one side in 2000 random orders (all,
    where there are fewer); p_least, the smallest possible p; rho_cells and p_cells without each
    column's mean, which is a model's preference for a class.
    """
    off, orders = ~np.eye(len(static), dtype=bool), class_orders(len(static), 2000, seed)

    def renamed(static: np.ndarray, dynamic: np.ndarray) -> tuple[np.ndarray, float]:
        moved = _ranks(dynamic, off)[orders[:, :, None], orders[:, None]]            # [R, K, K]
        null = np.einsum("ij,rij->r", _ranks(static, off), moved)
        return null, (null >= null[0] - 1e-12).mean() if np.isfinite(null[0]) else np.nan
    wrong = [np.where(off, m, np.nan) for m in (static, dynamic)]
    plain, p = renamed(static, dynamic)
    cells, p_cells = renamed(*(m - np.nanmean(m, 0) for m in wrong))
    return dict(rho=plain[0], null_95=np.percentile(plain, 95), p=p, p_least=1 / len(orders),
                rho_cells=cells[0], p_cells=p_cells)


def _ranks(matrix: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Standardised ranks of the cells off the diagonal; products of two sum to Spearman's rho."""
    rank = rankdata(matrix[off].round(12))
    rank -= rank.mean()
    out = np.zeros_like(matrix, dtype=float)
    out[off] = rank / np.linalg.norm(rank) if rank.any() else np.nan
    return out


def confusability_interval(static: pd.DataFrame, dynamic: pd.DataFrame,
                           names: list[str]) -> tuple[float, float]:
    """95 % interval of rho, from leaving out groups of the subjects of both tests in turn.

    Subjects drawn again would add the noise of few subjects twice, which lowers a correlation.
    """
    units, off = intervals.units_of_two((static, dynamic)), ~np.eye(len(names), dtype=bool)
    if units is None:
        return np.nan, np.nan

    def rho(kept: np.ndarray) -> float:
        use = np.isin(np.arange(len(units)), kept)
        sides = (static, use[:len(static)]), (dynamic, use[len(static):])
        a, b = (_ranks(soft_confusion(test, names, w), off) for test, w in sides)
        return float((a * b).sum())
    value, half = rho(np.arange(len(units))), intervals.jackknife(rho, units, groups=20)
    return max(-1.0, value - half), min(1.0, value + half)


def confusion_study(tests: dict[tuple[str, str], pd.DataFrame], sides: dict[str, tuple],
                    names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare static with dynamic confusions in several pairs of networks.

    Args:
        tests: (method, task) -> predictions on the test split, seeds stacked.
        sides: comparison -> (key of the static test, key of the dynamic one).
    Returns:
        one row a pair of classes: label, wrong, static, dynamic (mean probabilities), comparison;
        and one row a comparison: low, high, and those of `confusability`.
    """
    pairs, stats = [], []
    for comparison, keys in sides.items():
        known = [tests[k][tests[k].label.isin(names)].reset_index(drop=True) for k in keys]
        static, dynamic = (soft_confusion(t, names) for t in known)
        low, high = confusability_interval(*known, names)
        stats.append(dict(comparison=comparison, low=low, high=high,
                          **confusability(static, dynamic)))
        table = tidy(static, names, "label", "wrong", "static")
        pairs.append(table.assign(dynamic=dynamic.ravel(), comparison=comparison))
    table = pd.concat(pairs, ignore_index=True)
    return table[table.label != table.wrong].reset_index(drop=True), pd.DataFrame(stats)
