"""What the heads say: the photo head read along the frames of a clip, and which emotions are taken for which."""
from __future__ import annotations

from itertools import permutations as all_orders
from math import factorial

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .people import FEWEST, deal_people, left_out_half, sums_of, units_of, weights_of


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
    """Mean curves around the apex, by emotion and over all of them; neutral clips have no apex and are left out.

    A curve whose clips change along it may rise or fall for that alone. So the times are those that half of the clips cover whole, and
    only these clips are read.

    Args:
        frames: one row a frame: path, label, subject, frame, apex (missing: the clip's middle), probability, intensity.
        fps: frames per second of the files; None leaves time in frames.
    Returns:
        tidy table: label ("expressive" over all), quantity ("probability", "intensity"), time (s or frames from the apex), mean, low,
        high (95 % over subjects, missing with fewer than FEWEST), samples, subjects.
    """
    frames = frames[frames.label != "neutral"]
    middle = frames.groupby("path").frame.transform("median").round()
    frames = frames.assign(offset=(frames.frame - frames.apex.astype(float).fillna(middle)).astype(int))
    reach = frames.groupby("path").offset.agg(["min", "max"])
    out = []
    if len(reach):
        first, last = np.quantile(reach["min"], 0.75, method="higher"), np.quantile(reach["max"], 0.25, method="lower")
        whole = reach.index[(reach["min"] <= first) & (reach["max"] >= last)]
        frames = frames[frames.path.isin(whole) & frames.offset.between(first, last)]
    for label, group in pd.concat([frames.assign(label="expressive"), frames]).groupby("label", sort=False):
        subjects = group.drop_duplicates("path").set_index("path").subject.sort_index()
        for quantity in ("probability", "intensity"):
            wide = group.pivot(index="path", columns="offset", values=quantity).sort_index()
            if wide.notna().all(axis=None):
                out.append(_bands(wide.to_numpy(float), subjects, resamples).assign(
                    label=label, quantity=quantity, time=wide.columns / (fps or 1)))
    columns = ["label", "quantity", "time", "mean", "low", "high", "samples", "subjects"]
    return pd.concat(out, ignore_index=True)[columns] if out else pd.DataFrame(columns=columns)


def _bands(values: np.ndarray, subjects: pd.Series, resamples: int, seed: int = 0) -> pd.DataFrame:
    """Means of the columns of `[N, T]`, one row a column, with 95 % intervals over people; missing with fewer than FEWEST."""
    unit = units_of(subjects)
    people = unit.max() + 1
    low = high = np.full(values.shape[1], np.nan)
    if people >= FEWEST:
        times = weights_of(people, resamples, seed)
        drawn = (times @ sums_of(values, unit)) / (times @ np.bincount(unit))[:, None]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return pd.DataFrame(dict(mean=values.mean(0), low=low, high=high, samples=len(values), subjects=people))


def inside(frames: pd.DataFrame) -> pd.DataFrame:
    """Pearson r of the probability with the true intensity inside each clip; clips in which either is constant are left out.

    Args:
        frames: as in `course`.
    Returns:
        path, label, subject, r; one row a clip.
    """
    groups = frames.groupby("path", sort=True)
    table = groups[["label", "subject"]].agg("first").reset_index()
    table["r"] = [_pearson(g.probability.to_numpy(float), g.intensity.to_numpy(float)) for _, g in groups]
    return table.dropna(subset="r").reset_index(drop=True)


def follow(frames: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Does the probability follow the true intensity inside each clip more closely than that of another clip?

    The null pairs a clip with a clip of the same emotion and of another person, shifted so that both have their apex in one frame:
    rising and falling about the apex stays in it, what is peculiar to this clip's course does not.

    Args:
        frames: as in `course`.
        resamples: of the people, and of the partners.
    Returns:
        label ("expressive" over all, first), mean, low, high (r of `inside`; 95 % over subjects, missing with fewer than FEWEST), null,
        null_95 (mean and 95th percentile of the mean r over random partners), p (one-sided), clips, subjects.
    """
    own, rng = inside(frames), np.random.default_rng(seed)
    known = {path: (g.probability.to_numpy(float), g.intensity.to_numpy(float), g.apex.iloc[0])
             for path, g in frames[frames.path.isin(own.path)].groupby("path")}
    unit, drawn = units_of(own.subject), np.full((len(own), resamples), np.nan)
    for k, row in enumerate(own.itertuples()):
        partners = own.path[(own.label == row.label) & (unit != unit[k])]
        p, _, apex = known[row.path]
        r = np.array([_shifted(p, known[other][1], int(apex - known[other][2])) for other in partners])
        r = r[np.isfinite(r)]
        if len(r):
            drawn[k] = r[rng.integers(len(r), size=resamples)]
    out = []
    for label in ["expressive", *dict.fromkeys(own.label)] if len(own) else []:
        rows = np.flatnonzero((own.label == label) | (label == "expressive"))
        found, paired = _bands(own.r.to_numpy()[rows, None], own.subject.iloc[rows], resamples).iloc[0], np.isfinite(drawn[rows, 0])
        null = drawn[rows][paired].mean(0) if paired.any() else np.full(resamples, np.nan)
        beyond = (1 + (null >= own.r.to_numpy()[rows][paired].mean()).sum()) / (1 + resamples) if paired.any() else np.nan
        out.append(dict(label=label, **found[["mean", "low", "high"]], null=null.mean(), null_95=np.percentile(null, 95), p=beyond,
                        clips=len(rows), subjects=int(found.subjects)))
    return pd.DataFrame(out, columns=["label", "mean", "low", "high", "null", "null_95", "p", "clips", "subjects"])


def lagged(frames: pd.DataFrame, fps: float | None = None, most: int | None = None, resamples: int = 1000,
           seed: int = 0) -> tuple[pd.DataFrame, dict]:
    """How much later than the expression does the probability rise and fall?

    Args:
        frames: as in `course`; clips in which a course is constant at one of the shifts are left out.
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
        r = [_shifted(p, i, s) for s in shifts]
        if np.isfinite(r).all():
            known.append((subject, r, p.argmax() - g.apex.iloc[0]))
    if not known:
        return pd.DataFrame(columns=["lag", "mean", "low", "high", "clips", "subjects"]), {}
    subjects, r, peak = pd.Series([k[0] for k in known], dtype=object), np.array([k[1] for k in known]), np.array([k[2] for k in known])
    scale, unit = 1 / (fps or 1), units_of(subjects)
    curve = _bands(r, subjects, resamples, seed).rename(columns={"samples": "clips"})
    curve.insert(0, "lag", shifts * scale)
    times = weights_of(unit.max() + 1, resamples, seed)
    best = shifts[(times @ sums_of(r, unit)).argmax(1)] if np.isfinite(times).all() else np.full(resamples, np.nan)
    apart = _bands(scale * peak[:, None], subjects, resamples, seed).iloc[0]
    return curve, dict(best=shifts[r.mean(0).argmax()] * scale, best_low=scale * np.percentile(best, 2.5),
                       best_high=scale * np.percentile(best, 97.5), peak=apart["mean"], peak_low=apart["low"],
                       peak_high=apart["high"], clips=len(r), subjects=int(apart["subjects"]))


def _shifted(p: np.ndarray, i: np.ndarray, shift: int) -> float:
    """Correlation of `p` with `i` moved so many frames later, where they overlap; missing where that is less than half of `p`."""
    first, last = max(0, shift), min(len(p), len(i) + shift)
    return _pearson(p[first:last], i[first - shift:last - shift]) if 2 * (last - first) >= len(p) else np.nan


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
        smallest p that so many orders can give; rho_cells and p_cells after the mean of each column is removed, which takes away the
        plain preference of both models for a class.
    """
    off, orders = ~np.eye(len(static), dtype=bool), class_orders(len(static), 2000, seed)
    centred = [np.where(off, m, np.nan) - np.nanmean(np.where(off, m, np.nan), 0) for m in (static, dynamic)]
    plain, cells = (_renamed(*(_ranks(m, off) for m in pair), orders) for pair in ((static, dynamic), centred))
    p, p_cells = ((null >= null[0] - 1e-12).mean() if np.isfinite(null[0]) else np.nan for null in (plain, cells))
    return dict(rho=plain[0], null_95=np.percentile(plain, 95), p=p, p_least=1 / len(orders), rho_cells=cells[0], p_cells=p_cells)


def _ranks(matrix: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Ranks of the off-diagonal cells, standardised, zero diagonal; sums of products of two are Spearman's rho. Missing if all are equal."""
    rank = rankdata(matrix[off].round(12))
    rank -= rank.mean()
    out = np.zeros_like(matrix, dtype=float)
    out[off] = rank / np.linalg.norm(rank) if rank.any() else np.nan
    return out


def _renamed(x: np.ndarray, y: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Sums of the products of `[K, K]` with another whose classes are renamed in each order, `[R]`."""
    return np.einsum("ij,rij->r", x, y[orders[:, :, None], orders[:, None]])


def confusability_interval(static: pd.DataFrame, dynamic: pd.DataFrame, names: list[str], groups: int = 20,
                           seed: int = 0) -> tuple[float, float]:
    """95 % interval of the correlation over the people of both tests, who are left out in groups; missing with fewer than two in one.

    Drawn again, people would add the noise of few people a second time, which lowers a correlation: a bootstrap's interval lies below
    its own estimate.
    """
    dealt = deal_people((static, dynamic), groups, seed)
    if dealt is None:
        return np.nan, np.nan
    off = ~np.eye(len(names), dtype=bool)

    def rho(left: int) -> float:
        sides = [_ranks(soft_confusion(t, names, d != left), off) for t, d in zip((static, dynamic), dealt)]
        return float((sides[0] * sides[1]).sum())
    value, half = rho(-1), left_out_half(np.array([rho(g) for g in range(max(d.max() for d in dealt) + 1)]))
    return max(-1.0, value - half), min(1.0, value + half)


def confusion_study(tests: dict[tuple[str, str], pd.DataFrame], sides: dict[str, tuple], names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Static against dynamic confusions of several pairs of readings.

    Args:
        tests: (method, task) -> predictions on the test split, seeds stacked.
        sides: comparison -> (key of the static reading, key of the dynamic one).
        names: classes that both tasks know.
    Returns:
        one row a pair of classes: comparison, label, wrong, static, dynamic (mean probability of the wrong class); and one row a
        comparison: rho, low, high, null_95, p, p_least, rho_cells, p_cells.
    """
    pairs, stats = [], []
    for comparison, keys in sides.items():
        known = [tests[k][tests[k].label.isin(names)].reset_index(drop=True) for k in keys]
        static, dynamic = (soft_confusion(t, names) for t in known)
        low, high = confusability_interval(*known, names)
        stats.append(dict(comparison=comparison, low=low, high=high, **confusability(static, dynamic)))
        pairs.append(tidy(static, names, "label", "wrong", "static").assign(dynamic=dynamic.ravel(), comparison=comparison))
    table = pd.concat(pairs, ignore_index=True)
    return table[table.label != table.wrong].reset_index(drop=True), pd.DataFrame(stats)
