"""How static and dynamic expressions correlate inside the networks: transfer, class prototypes, CKA and RSA by layer."""
from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import nn

from .confusions import class_orders, over_subjects, tidy


# Transfer ---------------------------------------------------------------------------------------------------------------

def shared_classes(image: tuple[str, ...], video: tuple[str, ...]) -> list[str]:
    """Emotions that both heads know, in the image head's order."""
    return [name for name in image if name in video]


@torch.no_grad()
def read_by_head(model: nn.Module, pooled: np.ndarray, rows: pd.DataFrame, head: str, names: tuple[str, ...],
                 shared: list[str]) -> pd.DataFrame:
    """Every sample as one head reads it, among the emotions that both tasks share.

    Args:
        pooled: features `[N, D]` of pictures or of clips; the head may belong to the other task (zero-shot).
        rows: table of the samples (path, label, subject).
        head: "image" or "video".
        names: the head's classes in order.
    Returns:
        one row a sample with a shared label: path, label, subject, predicted, correct.
    """
    weight = next(model.parameters())
    logits = model.forward_head(torch.from_numpy(pooled).to(weight), head).float().cpu().numpy()
    found = logits[:, [names.index(n) for n in shared]].argmax(1)
    out = rows[["path", "label", "subject"]].assign(predicted=np.array(shared)[found])
    return out.assign(correct=(out.predicted == out.label).astype(float))[rows.label.isin(shared)].reset_index(drop=True)


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


def matched_classes(similarity: np.ndarray, seed: int = 0) -> dict:
    """Are equal classes more alike across modalities than unequal ones?

    Args:
        similarity: `[K, K]`, row class in one modality, column class in the other.
    Returns:
        diagonal, off_diagonal, difference (their means), null_95 and p against the same matrix with the classes of one side
        renamed in every order; p_least, the smallest p that so many orders can give.
    """
    known = ~np.isnan(similarity).all(1) & ~np.isnan(similarity).all(0)
    s = similarity[np.ix_(known, known)]
    k = len(s)
    if k < 2:
        return dict(diagonal=np.nan, off_diagonal=np.nan, difference=np.nan, null_95=np.nan, p=np.nan, p_least=np.nan)
    on = s[np.arange(k), class_orders(k, seed=seed)].mean(1)
    difference = on - (s.sum() - on * k) / (k * (k - 1))
    return dict(diagonal=on[0], off_diagonal=(s.sum() - on[0] * k) / (k * (k - 1)), difference=difference[0],
                null_95=np.percentile(difference, 95), p=(difference >= difference[0] - 1e-12).mean(), p_least=1 / len(difference))


def prototype_study(photos: dict[tuple[str, int], np.ndarray], clips: dict[tuple[str, int], np.ndarray], photo_labels: pd.Series,
                    clip_labels: pd.Series, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prototypes of both tasks in every network.

    Args:
        photos, clips: (method, seed) -> pooled features `[N, D]`.
        photo_labels, clip_labels: emotions of the samples.
        names: classes to compare.
    Returns:
        cells: method, image_class, video_class, cosine (mean over seeds); and one row a method: `matched_classes` of the mean
        matrix, with seed_low and seed_high, the range of the difference over seeds.
    """
    cells, stats = [], []
    for method in dict.fromkeys(m for m, _ in photos):
        each = [prototypes(photos[k], photo_labels, names) @ prototypes(clips[k], clip_labels, names).T for k in photos if k[0] == method]
        mean, differences = np.mean(each, axis=0), [matched_classes(s)["difference"] for s in each]
        cells.append(tidy(mean, names, "image_class", "video_class", "cosine").assign(method=method))
        stats.append(dict(method=method, **matched_classes(mean), seed_low=min(differences), seed_high=max(differences)))
    return pd.concat(cells, ignore_index=True), pd.DataFrame(stats)


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
    """Ranks of the pairwise cosine distances of `[N, D]`, standardised, zero diagonal: products are Spearman's rho.

    The mean stimulus is subtracted first. Unlike the usual correlation distance, which subtracts every stimulus' mean over
    features, this does not change when the features are rotated.
    """
    n = len(x)
    upper = np.triu_indices(n, 1)
    centred = x - x.mean(0)
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
    """Representational similarity: Spearman correlation of the two tables of pairwise cosine distances."""
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
