"""What photos are worth: recall by emotion with and without them, whether static confusability foretells it, and the clips they save."""
from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .confusions import class_orders
from .stats import count, draws, holm, interval, p_value, rates, resample, select


def recalls(predictions: pd.DataFrame, names: list[str], resamples: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, dict]:
    """Recall of every emotion, mean over seeds.

    Args:
        predictions: of one system on one task: path, subject, seed, label, predicted.
        names: emotions, in the order of the result.
        resamples: of whole people and of seeds; equal samples and seeds get equal draws, so that two systems are paired.
    Returns:
        recall `[K]` in 0..1 (missing without samples); resampled `[R, K]`; samples `[K]`, people `[K]` who show the emotion, and seeds.
    """
    known = predictions[predictions.label.isin(names)]
    counts, present = count(known), sorted(known.label.unique())
    rng, k = np.random.default_rng(seed), len(names)
    people = draws(len(counts.total), resamples, rng).astype(float)
    seeds = draws(len(counts.seeds), resamples, rng).astype(float)
    seeds /= seeds.sum(1, keepdims=True)
    total = people @ counts.total
    correct = sum((people @ layer) * seeds[:, s, None] for s, layer in enumerate(counts.correct))
    value, drawn, samples = np.full(k, np.nan), np.full((resamples, k), np.nan), np.zeros(k, int)
    shown = np.zeros(k, int)
    at = [names.index(n) for n in present]
    value[at] = counts.correct.sum(1).mean(0) / counts.total.sum(0)
    drawn[:, at] = np.divide(correct, total, out=np.full_like(correct, np.nan), where=total > 0)
    samples[at], shown[at] = counts.total.sum(0), (counts.total > 0).sum(0)
    return value, drawn, dict(samples=samples, people=shown, seeds=len(counts.seeds))


def gain_by_emotion(tests: dict[tuple[str, str], pd.DataFrame], names: list[str], methods: tuple[str, ...] = ("multitask", "s4d"),
                    reference: str = "dynamic", resamples: int = 1000) -> pd.DataFrame:
    """Recall on clips with photos in training, minus that without, by emotion, paired over people and seeds.

    Args:
        tests: (method, task) -> predictions on the test split, seeds stacked.
        names: emotions.
    Returns:
        method, label, without, recall (%), gain (points), low, high (95 %), p, p_holm (over all rows), samples, people (who show the
        emotion), seeds.
    """
    base, base_drawn, about = recalls(tests[reference, "video"], names, resamples)
    out = []
    for method in methods:
        value, drawn, _ = recalls(tests[method, "video"], names, resamples)
        for k, label in enumerate(names):
            if about["samples"][k]:
                difference = (drawn - base_drawn)[:, k]
                difference = difference[np.isfinite(difference)]
                low, high = interval(100 * difference)
                out.append(dict(method=method, label=label, without=100 * base[k], recall=100 * value[k], gain=100 * (value[k] - base[k]),
                                low=low, high=high, p=p_value(difference), samples=about["samples"][k], people=about["people"][k],
                                seeds=about["seeds"]))
    table = pd.DataFrame(out)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table.p.to_numpy()))
    return table


def foretold(tests: dict[tuple[str, str], pd.DataFrame], names: list[str], methods: tuple[str, ...] = ("multitask", "s4d"),
             resamples: int = 1000) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Does the error of the static network on an emotion foretell that of the dynamic network, and the gain on it?

    Args:
        tests: as in `gain_by_emotion`, with ("static", "image") and ("dynamic", "video").
    Returns:
        points: label, static (error on photos, %), outcome ("error on clips", or a method: its gain), value; and one row an outcome: of
        `rank_correlation`.
    """
    static, static_drawn, _ = recalls(tests["static", "image"], names, resamples, seed=1)
    dynamic, dynamic_drawn, _ = recalls(tests["dynamic", "video"], names, resamples)
    outcomes = {"error on clips": (1 - dynamic, 1 - dynamic_drawn)}
    for method in methods:
        value, drawn, _ = recalls(tests[method, "video"], names, resamples)
        outcomes[method] = value - dynamic, drawn - dynamic_drawn
    points, stats = [], []
    for outcome, (value, drawn) in outcomes.items():
        points.append(pd.DataFrame(dict(label=names, static=100 * (1 - static), outcome=outcome, value=100 * value)))
        stats.append(dict(outcome=outcome, **rank_correlation(1 - static, value, 1 - static_drawn, drawn)))
    return pd.concat(points, ignore_index=True).dropna(), pd.DataFrame(stats)


def reached(shares: np.ndarray, curve: np.ndarray, level: float) -> float:
    """The smallest share of the data at which a learning curve reaches a level.

    Args:
        shares: `[N]` ascending, in 0..1.
        curve: `[N]` scores there; between them it is linear in the logarithm of the share.
    Returns:
        a share; the first where the curve begins above the level, infinity where it ends below.
    """
    above = np.flatnonzero(curve >= level)
    if not len(above):
        return np.inf
    i = above[0]
    if i == 0:
        return float(shares[0])
    part = (level - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(np.exp(np.log(shares[i - 1]) + part * np.log(shares[i] / shares[i - 1])))


def clips_saved(predictions: pd.DataFrame, clips: int, method: str = "s4d", reference: str = "dynamic", resamples: int = 1000) -> pd.DataFrame:
    """How many clips a network without photos needs to do as well as one with photos and a share of the clips.

    Args:
        predictions: of both methods on test clips, for several shares of the clips: method, setting (the share, as text), seed, path, ...
        clips: number of the training clips.
    Returns:
        share, clips, war (of `method`, share), alone (clips that `reference` needs), low, high (95 %, over people and seeds),
        beyond (share of the resamples in which not even all clips are enough; alone, low and high are then infinite where they must be).
    """
    def curve(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = select(predictions, dict(method=name))
        shares = sorted(rows["setting"].unique(), key=float)
        counts = [count(rows[rows["setting"] == s]) for s in shares]
        value = [rates(c.total.sum(0), c.correct.sum(1))["WAR"].mean() for c in counts]
        return np.array(shares, float), np.array(value), np.stack([resample(c, resamples)["WAR"] for c in counts], 1)
    (at, value, drawn), (shares, alone, alone_drawn) = curve(method), curve(reference)
    out = []
    for i, share in enumerate(at):
        needed = np.array([reached(shares, c, level) for c, level in zip(alone_drawn, drawn[:, i])])
        low, high = np.quantile(needed, [0.025, 0.975], method="nearest")        # no mean of a number and infinity
        out.append(dict(share=share, clips=round(share * clips), war=value[i], alone=clips * reached(shares, alone, value[i]),
                        low=clips * low, high=clips * high, beyond=float(np.isinf(needed).mean())))
    return pd.DataFrame(out)


def rank_correlation(x: np.ndarray, y: np.ndarray, x_drawn: np.ndarray, y_drawn: np.ndarray) -> dict:
    """Spearman's rho over emotions, two-sided p from renaming them in every order, 95 % interval over people.

    Args:
        x, y: `[K]`; missing values are left out.
        x_drawn, y_drawn: `[R, K]` of resampled people.
    Returns:
        rho, low, high, p, p_least (the smallest that so many orders can give), emotions; all missing with fewer than three.
    """
    known = np.isfinite(x) & np.isfinite(y)
    k = int(known.sum())
    if k < 3:
        return dict(rho=np.nan, low=np.nan, high=np.nan, p=np.nan, p_least=np.nan, emotions=k)
    a, b = rankdata(x[known]), rankdata(y[known])
    scale = np.sqrt(a.var() * b.var()) * k
    if scale < 1e-12:
        return dict(rho=np.nan, low=np.nan, high=np.nan, p=np.nan, p_least=np.nan, emotions=k)
    orders = class_orders(k)
    null = (a - a.mean()) @ (b - b.mean())[orders].T / scale
    drawn = [_rho(p, q) for p, q in zip(x_drawn[:, known], y_drawn[:, known])]
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    p = (np.abs(null) >= abs(null[0]) - 1e-12).mean()
    return dict(rho=null[0], low=low, high=high, p=p, p_least=2 / len(orders), emotions=k)


def _rho(x: np.ndarray, y: np.ndarray) -> float:
    use = np.isfinite(x) & np.isfinite(y)
    if use.sum() < 3 or np.ptp(x[use]) == 0 or np.ptp(y[use]) == 0:
        return np.nan
    return float(np.corrcoef(rankdata(x[use]), rankdata(y[use]))[0, 1])
