"""What photos add to clips: the gain of each emotion, what predicts it, and the clips they save."""
from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .confusions import class_orders
from .intervals import LIMITS, holm, interval, p_value
from .stats import count, resample, select

Tests = dict[tuple[str, str], pd.DataFrame]    # (method, task) -> predictions, seeds stacked
WITH_PHOTOS = ("multitask", "s4d")             # compared with "dynamic"


def recalls(predictions: pd.DataFrame, names: list[str], resamples: int = 1000,
            seed: int = 0) -> tuple[np.ndarray, np.ndarray, dict]:
    """Recall of every emotion, mean over seeds: `[K]`, resampled `[R, K]`, and counts."""
    known = predictions[predictions.label.isin(names)]
    counts = count(known)
    again = resample(counts, resamples, seed)
    at = [names.index(n) for n in sorted(known.label.unique())]
    value, drawn = np.full(len(names), np.nan), np.full((resamples, len(names)), np.nan)
    samples, people = np.zeros(len(names), int), np.zeros(len(names), int)
    value[at] = counts.correct.sum(1).mean(0) / counts.total.sum(0)
    drawn[:, at] = np.where(again["total"] > 0, again["recall"], np.nan)
    samples[at], people[at] = counts.total.sum(0), (counts.total > 0).sum(0)
    return value, drawn, dict(samples=samples, people=people, seeds=len(counts.seeds))


def gain_by_emotion(tests: Tests, names: list[str], resamples: int = 1000) -> pd.DataFrame:
    """Recall (%) on clips with photos in training, minus that without, by emotion, paired.

    The interval is over subjects and seeds, p_holm over all rows; people show the emotion.
    """
    base, base_drawn, about = recalls(tests["dynamic", "video"], names, resamples)
    out = []
    for method in WITH_PHOTOS:
        value, drawn, _ = recalls(tests[method, "video"], names, resamples)
        for k in np.flatnonzero(about["samples"]):
            difference = (drawn - base_drawn)[:, k]
            difference = difference[np.isfinite(difference)]
            low, high = interval(100 * difference)
            out.append((method, names[k], 100 * base[k], 100 * value[k],
                        100 * (value[k] - base[k]), low, high, p_value(difference),
                        about["samples"][k], about["people"][k], about["seeds"]))
    table = pd.DataFrame(out, columns=["method", "label", "without", "recall", "gain", "low",
                                       "high", "p", "samples", "people", "seeds"])
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table.p.to_numpy()))
    return table


def foretold(tests: Tests, names: list[str],
             resamples: int = 1000) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlate the static network's error on an emotion with the dynamic one's, and with gains.

    Returns: label, static (error on photos, %), outcome ("error on clips", or a method: its gain),
    value; and one row an outcome, of `rank_correlation`.
    """
    static, static_drawn, _ = recalls(tests["static", "image"], names, resamples, seed=1)
    dynamic, dynamic_drawn, _ = recalls(tests["dynamic", "video"], names, resamples)
    outcomes = {"error on clips": (1 - dynamic, 1 - dynamic_drawn)}
    for method in WITH_PHOTOS:
        value, drawn, _ = recalls(tests[method, "video"], names, resamples)
        outcomes[method] = value - dynamic, drawn - dynamic_drawn
    points, stats = [], []
    for outcome, (value, drawn) in outcomes.items():
        points.append(pd.DataFrame(dict(label=names, static=100 * (1 - static), outcome=outcome,
                                        value=100 * value)))
        found = rank_correlation(1 - static, value, 1 - static_drawn, drawn)
        stats.append(dict(outcome=outcome, **found))
    return pd.concat(points, ignore_index=True).dropna(), pd.DataFrame(stats)


def rank_correlation(x: np.ndarray, y: np.ndarray, x_drawn: np.ndarray,
                     y_drawn: np.ndarray) -> dict:
    """Spearman's rho of `[K]` and `[K]` with an interval from resampled ones, `[R, K]`.

    Returns: rho, low, high, p (two-sided, from renaming the emotions in every order), p_least (the
    smallest possible), emotions; all missing with fewer than three.
    """
    def usable(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
        use = np.isfinite(x) & np.isfinite(y)
        return None if use.sum() < 3 or np.ptp(x[use]) == 0 or np.ptp(y[use]) == 0 else use

    known, emotions = usable(x, y), int((np.isfinite(x) & np.isfinite(y)).sum())
    if known is None:
        return {**dict.fromkeys(("rho", "low", "high", "p", "p_least"), np.nan),
                "emotions": emotions}
    a, b, orders = rankdata(x[known]), rankdata(y[known]), class_orders(emotions)
    scale = np.sqrt(a.var() * b.var()) * emotions
    null = (a - a.mean()) @ (b - b.mean())[orders].T / scale
    drawn = []
    for one, other in zip(x_drawn[:, known], y_drawn[:, known], strict=True):
        use = usable(one, other)
        if use is not None:
            drawn.append(np.corrcoef(rankdata(one[use]), rankdata(other[use]))[0, 1])
    low, high = np.quantile(drawn, LIMITS) if drawn else (np.nan, np.nan)
    p = (np.abs(null) >= abs(null[0]) - 1e-12).mean()
    return dict(rho=null[0], low=low, high=high, p=p, p_least=2 / len(orders), emotions=emotions)


def reached(shares: np.ndarray, curve: np.ndarray, level: float) -> float:
    """The smallest share at which a curve, linear in log share, reaches a level; else infinity."""
    above = np.flatnonzero(curve >= level)
    if not len(above):
        return np.inf
    i = above[0]
    if i == 0:
        return float(shares[0])
    part = (level - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(np.exp(np.log(shares[i - 1]) + part * np.log(shares[i] / shares[i - 1])))


def clips_saved(predictions: pd.DataFrame, clips: int, resamples: int = 1000) -> pd.DataFrame:
    """How many clips the network without photos needs to do as well as S4D.

    The predictions of both have the column setting, a share of that many training clips.
    Returns: share, clips, war (of S4D, share), alone (clips that dynamic only needs), low, high
    (95 %), beyond (share of the resamples in which not even all clips are enough).
    """
    def curve(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = select(predictions, dict(method=name))
        shares = sorted(rows["setting"].unique(), key=float)
        counts = [count(rows[rows["setting"] == s]) for s in shares]
        value = [c.rates()["WAR"].mean() for c in counts]
        drawn = np.stack([resample(c, resamples)["WAR"] for c in counts], 1)
        return np.array(shares, float), np.array(value), drawn
    (at, value, drawn), (shares, alone, alone_drawn) = curve("s4d"), curve("dynamic")
    out = []
    for i, share in enumerate(at):
        pairs = zip(alone_drawn, drawn[:, i], strict=True)
        needed = np.array([reached(shares, other, level) for other, level in pairs])
        low, high = np.quantile(needed, LIMITS, method="nearest")   # no mean with infinity
        out.append(dict(share=share, clips=round(share * clips), war=value[i],
                        alone=clips * reached(shares, alone, value[i]), low=clips * low,
                        high=clips * high, beyond=float(np.isinf(needed).mean())))
    return pd.DataFrame(out)
