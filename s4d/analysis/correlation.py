"""How static and dynamic expressions correlate: transfer, prototypes, CKA and RSA, the course along a clip, confusions."""
from __future__ import annotations

from itertools import permutations as all_orders
from math import factorial

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from torch import Tensor, nn

from .experts import units_of
from .stats import mean_interval
from .stimuli import probabilities


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


# Transfer ---------------------------------------------------------------------------------------------------------------

def shared_classes(image: tuple[str, ...], video: tuple[str, ...]) -> list[str]:
    """Emotions that both heads know, in the image head's order."""
    return [name for name in image if name in video]


def read_by_head(model: nn.Module, x: Tensor, rows: pd.DataFrame, head: str, names: tuple[str, ...], shared: list[str]) -> pd.DataFrame:
    """Every sample as one head reads it, among the emotions that both tasks share.

    Args:
        x: uint8 pictures or clips; the head may belong to the other task (zero-shot).
        rows: table of the samples (label, subject).
        head: "image" or "video".
        names: the head's classes in order.
    Returns:
        one row a sample with a shared label: path, label, subject, predicted, correct.
    """
    use = rows.label.isin(shared).to_numpy()
    found = probabilities(model, x, head)[:, [names.index(n) for n in shared]]
    out = rows[["path", "label", "subject"]].assign(predicted=np.array(shared)[found.argmax(1)])
    return out.assign(correct=(out.predicted == out.label).astype(float))[use].reset_index(drop=True)


def transfer_matrix(read: pd.DataFrame, resamples: int = 1000) -> pd.DataFrame:
    """WAR of every trained head on photos and on clips.

    Args:
        read: rows of `read_by_head` with the columns method, seed, head, stimuli added.
    Returns:
        tidy table: method, head, stimuli, zero_shot (the head was trained on the other kind), war, low, high (%; mean over
        seeds, 95 % over subjects), uar (%), samples, subjects, seeds.
    """
    out = []
    for (method, head, stimuli), group in read.groupby(["method", "head", "stimuli"], sort=False):
        sample = group.groupby(["path", "label"], sort=False, as_index=False).agg(correct=("correct", "mean"), subject=("subject", "first"))
        found = over_subjects(100 * sample.correct, sample.subject, resamples)
        out.append(dict(method=method, head=head, stimuli=stimuli, zero_shot=head != stimuli, war=found.pop("mean"), **found,
                        uar=100 * sample.groupby("label").correct.mean().mean(), seeds=group.seed.nunique()))
    return pd.DataFrame(out)


# Prototypes -------------------------------------------------------------------------------------------------------------

def prototypes(features: np.ndarray, labels: np.ndarray, names: list[str]) -> np.ndarray:
    """Class means relative to the mean of the class means, unit length: `[N, D]` -> `[K, D]`.

    The offset between the modalities, which all classes share, is thereby removed; a class without samples is missing.
    """
    labels = np.asarray(labels)
    means = np.array([features[labels == n].mean(0) if (labels == n).any() else np.full(features.shape[1], np.nan) for n in names])
    means = means - np.nanmean(means, 0)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def class_orders(classes: int, most: int = 5040, seed: int = 0) -> np.ndarray:
    """All orders of the classes where they are few, else `most` random ones; the first is the identity. `[R, K]`."""
    if factorial(classes) <= most:
        return np.array(list(all_orders(range(classes))))
    rng = np.random.default_rng(seed)
    return np.array([np.arange(classes), *(rng.permutation(classes) for _ in range(most - 1))])


def matched_classes(similarity: np.ndarray, seed: int = 0) -> dict:
    """Are equal classes more alike across modalities than unequal ones?

    Args:
        similarity: `[K, K]`, row class in one modality, column class in the other.
    Returns:
        diagonal, off_diagonal, difference (their means), null_95 and p against the same matrix with the classes of one side
        renamed in every order.
    """
    known = ~np.isnan(similarity).all(1) & ~np.isnan(similarity).all(0)
    s = similarity[np.ix_(known, known)]
    k = len(s)
    if k < 2:
        return dict(diagonal=np.nan, off_diagonal=np.nan, difference=np.nan, null_95=np.nan, p=np.nan)
    on = s[np.arange(k), class_orders(k, seed=seed)].mean(1)
    difference = on - (s.sum() - on * k) / (k * (k - 1))
    return dict(diagonal=on[0], off_diagonal=(s.sum() - on[0] * k) / (k * (k - 1)), difference=difference[0],
                null_95=np.percentile(difference, 95), p=(difference >= difference[0] - 1e-12).mean())


# Representations --------------------------------------------------------------------------------------------------------

def unbiased_centre(x: np.ndarray) -> np.ndarray:
    """U-centred Gram matrix of `[N, D]`: zero diagonal, rows sum to 0; its products estimate HSIC without bias.

    Source: Szekely and Rizzo 2014; Song et al. 2012.
    """
    n = len(x)
    if n < 4:
        raise ValueError(f"{n} stimuli: the unbiased similarity of two representations needs at least 4")
    gram = x @ x.T
    np.fill_diagonal(gram, 0)
    rows = gram.sum(1) / (n - 2)
    gram = gram - rows[:, None] - rows[None] + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0)
    return gram


def rank_rdm(x: np.ndarray) -> np.ndarray:
    """Ranks of the pairwise correlation distances of `[N, D]`, standardised, zero diagonal: products are Spearman's rho."""
    n = len(x)
    upper = np.triu_indices(n, 1)
    centred = x - x.mean(1, keepdims=True)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    rank = rankdata((1 - centred @ centred.T)[upper].round(12))
    rank -= rank.mean()
    out = np.zeros((n, n))
    out[upper] = rank / max(np.linalg.norm(rank), 1e-12)
    return out + out.T


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment without bias: 1 for equal representations up to rotation and scale, 0 expected for
    independent ones (it may be slightly negative).

    Args:
        x, y: `[N, D]`, `[N, E]`, rows are the same stimuli.
    Source: Kornblith et al. 2019, with the unbiased estimator of HSIC.
    """
    a, b = unbiased_centre(x), unbiased_centre(y)
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def rsa(x: np.ndarray, y: np.ndarray) -> float:
    """Representational similarity: Spearman correlation of the two matrices of pairwise correlation distances."""
    return float((rank_rdm(x) * rank_rdm(y)).sum() / 2)


def similarity_by_layer(first: dict[str, np.ndarray], second: dict[str, np.ndarray], labels: np.ndarray, permutations: int = 100,
                        seed: int = 0) -> pd.DataFrame:
    """CKA and RSA of every layer between two representations of the same stimuli, against two null models.

    `any` shuffles the stimuli of one side: what remains is chance. `within` shuffles them inside each emotion: what remains
    is what the category alone explains, so similarity above it is shared knowledge of the single stimulus (its identity,
    its pose, its own expression).

    Args:
        first, second: of `layer_features`, equal layers are compared.
        labels: `[N]`, emotion of each stimulus.
    Returns:
        layer, measure ("cka", "rsa"), value, any_95, within_mean, within_95 (95th percentiles), p_any, p_within.
    """
    rng, n = np.random.default_rng(seed), len(labels)
    free = [rng.permutation(n) for _ in range(permutations)]
    inside = [_within(np.asarray(labels), rng) for _ in range(permutations)]
    rows = []
    for layer in [name for name in first if name in second]:
        for measure, form in (("cka", unbiased_centre), ("rsa", rank_rdm)):
            a, b = form(first[layer]), form(second[layer])
            scale = max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)
            value = float((a * b).sum() / scale)
            null = {k: np.array([(a * b[np.ix_(o, o)]).sum() / scale for o in orders]) for k, orders in (("any", free), ("within", inside))}
            p = {k: (1 + (v >= value).sum()) / (1 + permutations) for k, v in null.items()}
            rows.append((layer, measure, value, np.percentile(null["any"], 95), null["within"].mean(),
                         np.percentile(null["within"], 95), p["any"], p["within"]))
    return pd.DataFrame(rows, columns=["layer", "measure", "value", "any_95", "within_mean", "within_95", "p_any", "p_within"])


def _within(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.arange(len(labels))
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        order[rows] = rng.permutation(rows)
    return order


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
        rho, null_95 and p against renaming the classes of one side in every order; rho_cells after the mean of each column
        is removed, which takes away the plain preference of both models for a class.
    """
    k = len(static)
    off = ~np.eye(k, dtype=bool)
    x = rankdata(static[off])
    score = lambda m: _pearson(x, rankdata(m[off]))
    orders = class_orders(k, 2000, seed)
    null = np.array([score(dynamic[np.ix_(o, o)]) for o in orders])
    centred = [np.where(off, m, np.nan) - np.nanmean(np.where(off, m, np.nan), 0) for m in (static, dynamic)]
    return dict(rho=null[0], null_95=np.nanpercentile(null, 95), p=(null >= null[0] - 1e-12).mean(),
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
