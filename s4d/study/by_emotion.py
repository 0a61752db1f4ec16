"""What the heads answer by emotion: along a clip, in confusions, and with photos in training."""
from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from . import stats

Tests = dict[tuple[str, str], pd.DataFrame]    # (method, task) -> predictions, seeds stacked


def class_orders(classes: int, most: int = 5040, seed: int = 0) -> np.ndarray:
    """All orders of the classes, or `most` random ones; the first is the identity. `[R, K]`."""
    if factorial(classes) <= most:
        return np.array(list(permutations(range(classes))))
    rng = np.random.default_rng(seed)
    return np.array([np.arange(classes), *(rng.permutation(classes) for _ in range(most - 1))])


def course(frames: pd.DataFrame, fps: float | None = None, resamples: int = 1000) -> pd.DataFrame:
    """Mean curves around the apex of all clips but neutral ones.

    Only clips that cover the whole range of times enter, about half: no curve changes its clips.

    Args:
        frames: path, label, subject, frame, apex (missing: the middle), probability, intensity.
        fps: frames per second of the files; None leaves time in frames.
    Returns: time (from the apex), quantity (probability or intensity), label, `stats.mean_table`'s.
    """
    frames = frames[frames.label != "neutral"]
    middle = frames.groupby("path").frame.transform("median").round()
    apex = frames.apex.astype(float).fillna(middle)
    frames = frames.assign(offset=(frames.frame - apex).astype(int))
    reach = frames.groupby("path").offset.agg(["min", "max"])
    first = np.quantile(reach["min"], 0.75, method="higher")
    last = np.quantile(reach["max"], 0.25, method="lower")
    whole = reach.index[(reach["min"] <= first) & (reach["max"] >= last)]
    frames = frames[frames.path.isin(whole) & frames.offset.between(first, last)]
    subjects, out = frames.groupby("path").subject.first(), []
    for quantity in ("probability", "intensity"):
        curves = frames.pivot(index="path", columns="offset", values=quantity)
        if curves.notna().all(axis=None):
            table = stats.mean_table(curves.to_numpy(float), subjects, resamples)
            table.insert(0, "time", curves.columns / (fps or 1))
            out.append(table.assign(label="expressive", quantity=quantity))
    return pd.concat(out, ignore_index=True)


def follow(frames: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Test whether the probability follows the true intensity of its own clip.

    The statistic is Pearson's r of the two inside each clip where both vary. The null takes the
    intensity of random clips of the same emotion and of other subjects, moved to a common apex:
    rising and falling about the apex stays in it, what is peculiar to one clip does not.

    Returns: label ("expressive" first), mean, low, high (of r), null, null_95 (mean and 95th
    percentile of the null's mean r), p (one-sided), samples, subjects; empty without truth.
    """
    rng, columns = np.random.default_rng(seed), ["probability", "intensity"]
    curves = {path: g[columns].to_numpy(float).T for path, g in frames.groupby("path")}
    clips = frames.groupby("path")[["label", "subject", "apex"]].first()
    clips = clips.assign(r=[_correlation(*curves[path]) for path in clips.index])
    clips = clips.dropna(subset="r").reset_index()
    unit, null = stats.units_of(clips.subject), np.full((len(clips), resamples), np.nan)
    for k, clip in enumerate(clips.itertuples()):
        others = clips[(clips.label == clip.label) & (unit != unit[k])]
        r = np.array([_correlation(curves[clip.path][0], curves[other.path][1],
                                   int(clip.apex - other.apex)) for other in others.itertuples()])
        r = r[np.isfinite(r)]
        if len(r):
            null[k] = r[rng.integers(len(r), size=resamples)]
    out = []
    for label in ["expressive", *clips.label.unique()] if len(clips) else []:
        rows = np.flatnonzero((clips.label == label) | (label == "expressive"))
        r = clips.r.to_numpy()[rows]
        mean = stats.mean_table(r[:, None], clips.subject.iloc[rows], resamples).iloc[0]
        paired, chance, p = np.isfinite(null[rows, 0]), np.full(resamples, np.nan), np.nan
        if paired.any():
            chance = null[rows][paired].mean(0)
            p = stats.permutation_p(chance, r[paired].mean(), slack=0)
        out.append(dict(label=label, **mean[["mean", "low", "high"]], null=chance.mean(),
                        null_95=np.percentile(chance, 95), p=p, samples=len(rows),
                        subjects=int(mean.subjects)))
    return pd.DataFrame(out)


def _correlation(a: np.ndarray, b: np.ndarray, shift: int = 0) -> float:
    """Correlate `a` with `b` moved so many frames later; missing if half of `a` has no partner."""
    first, last = max(0, shift), min(len(a), len(b) + shift)
    if 2 * (last - first) < len(a):
        return np.nan
    a, b = a[first:last], b[first - shift:last - shift]
    a, b = a - a.mean(), b - b.mean()
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 1e-9 else np.nan


def soft_confusion(predictions: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Mean probability of every class given the true one, `[K, K]`, rows sum to 1."""
    columns = [f"prob_{n}" for n in names]
    mean = predictions.groupby("label")[columns].mean().reindex(names).fillna(0).to_numpy()
    return mean / np.maximum(mean.sum(1, keepdims=True), 1e-12)


def wrong_ranks(confusion: np.ndarray) -> np.ndarray:
    """Standardised ranks of the wrong cells, else 0; products of two sum to Spearman's rho."""
    off = ~np.eye(len(confusion), dtype=bool)
    rank = rankdata(confusion[off].round(12))
    rank -= rank.mean()
    out = np.zeros_like(confusion, dtype=float)
    out[off] = rank / np.linalg.norm(rank) if rank.any() else np.nan
    return out


def confusability(static: pd.DataFrame, dynamic: pd.DataFrame, names: list[str]) -> dict:
    """Test whether the confusions of one test predict another's: Spearman's rho of the wrong cells.

    Drawing subjects again would add their noise twice and lower rho: the interval leaves some out.

    Returns: rho, low, high (95 %, subjects of both tests), p against renaming the classes of one
    side in 2000 random orders (all, where there are fewer), p_least, the smallest possible p.
    """
    units, n = stats.units_of_two((static, dynamic)), len(static)
    orders = class_orders(len(names), 2000)

    def ranks(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sides = static.iloc[kept[kept < n]], dynamic.iloc[kept[kept >= n] - n]
        return tuple(wrong_ranks(soft_confusion(side, names)) for side in sides)
    a, b = ranks(np.arange(n + len(dynamic)))
    rho = np.einsum("ij,rij->r", a, b[orders[:, :, None], orders[:, None]])
    half = np.nan
    if units is not None:
        half = stats.jackknife(lambda kept: np.multiply(*ranks(kept)).sum(), units, groups=20)[1]
    low, high = np.clip([rho[0] - half, rho[0] + half], -1, 1)
    return dict(rho=rho[0], low=low, high=high, p=stats.permutation_p(rho[1:], rho[0]),
                p_least=1 / len(orders))


def confusion_study(tests: Tests, sides: dict[str, tuple], names: list[str]) -> pd.DataFrame:
    """Compare static with dynamic confusions in several pairs of networks.

    `sides`: comparison -> (key of the static test, key of the dynamic one).
    Returns: one row a pair of classes: label, wrong, static, dynamic (mean probabilities),
    comparison, and of it photos, clips (counts) and those of `confusability`.
    """
    out, cells = [], pd.MultiIndex.from_product([names, names], names=["label", "wrong"])
    for comparison, keys in sides.items():
        known = [tests[k][tests[k].label.isin(names)] for k in keys]
        static, dynamic = (soft_confusion(test, names).ravel() for test in known)
        photos, clips = (tests[k].dropna(subset="predicted").path.nunique() for k in keys)
        table = pd.DataFrame(dict(
            static=static, dynamic=dynamic, comparison=comparison, photos=photos, clips=clips,
            **confusability(*known, names)), cells)
        out.append(table.reset_index().query("label != wrong"))
    return pd.concat(out, ignore_index=True)


def gain_by_emotion(tests: Tests, names: list[str], resamples: int = 1000) -> pd.DataFrame:
    """Recall (%) on clips with photos in training, minus that without, by emotion, paired.

    The interval is over subjects and seeds, p_holm over all rows.
    """
    def measured(method: str):
        test = tests[method, "video"]
        counts = stats.count(test[test.label.isin(names)])
        again = stats.resample(counts, resamples)
        drawn = np.where(again["total"] > 0, again["recall"], np.nan)
        return 100 * counts.rates()["recall"].mean(0), 100 * drawn, counts.total
    base, base_drawn, total = measured("dynamic")
    labels = sorted(set(tests["dynamic", "video"].label) & set(names))       # in count's order
    out = []
    for method in ("multitask", "s4d"):
        value, drawn, _ = measured(method)
        for k, label in enumerate(labels):
            difference = (drawn - base_drawn)[:, k]
            difference = difference[np.isfinite(difference)]
            low, high = stats.interval(difference)
            out.append(dict(
                method=method, label=label, without=base[k], recall=value[k],
                gain=value[k] - base[k], low=low, high=high, p=stats.p_value(difference),
                samples=total[:, k].sum(), subjects=(total[:, k] > 0).sum()))
    table = pd.DataFrame(out)
    return table.assign(p_holm=stats.holm(table.p))
