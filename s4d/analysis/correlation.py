"""How static and dynamic expressions correlate inside the networks: transfer, class prototypes, CKA and RSA by layer, a shared map."""
from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from .confusions import class_orders, tidy
from .people import jackknife, over_subjects, units_of
from .stimuli import choose


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
    return _answers(rows, np.array(shared)[logits[:, [names.index(n) for n in shared]].argmax(1)], shared)


def _answers(rows: pd.DataFrame, predicted: np.ndarray, shared: list[str]) -> pd.DataFrame:
    out = rows[["path", "label", "subject"]].assign(predicted=predicted)
    return out.assign(correct=(out.predicted == out.label).astype(float))[rows.label.isin(shared)].reset_index(drop=True)


def read_by_probe(train: np.ndarray, labels: pd.Series, pooled: np.ndarray, rows: pd.DataFrame, shared: list[str]) -> pd.DataFrame:
    """Every sample as a linear probe reads it: a logistic regression on the features of training samples, the network left as it is.

    Args:
        train: features `[M, D]` of training samples, photos or clips.
        labels: their M emotions.
        pooled: features `[N, D]` of test samples, of either kind.
        rows: table of the test samples.
        shared: emotions that both tasks know; training samples of others are left out.
    Returns:
        as `read_by_head`.
    """
    use = labels.isin(shared).to_numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500, class_weight="balanced"))
    probe.fit(train[use], labels[use])
    return _answers(rows, probe.predict(pooled), shared)


def transfer_matrix(read: pd.DataFrame, resamples: int = 1000) -> pd.DataFrame:
    """WAR of every trained head, or probe, on photos and on clips.

    Args:
        read: rows of `read_by_head` or `read_by_probe` with the columns method, seed, head (the kind it was trained on), stimuli added.
    Returns:
        tidy table: method, head, stimuli, zero_shot (head or probe was trained on the other kind), war, low, high (%; mean over
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
    return _relative(means)


def _relative(means: np.ndarray) -> np.ndarray:
    """Class means `[..., K, D]` less their mean over the classes, unit length."""
    means = means - np.nanmean(means, -2, keepdims=True)
    return means / np.maximum(np.linalg.norm(means, axis=-1, keepdims=True), 1e-12)


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


def match_interval(photos: list[np.ndarray], clips: list[np.ndarray], photo_rows: pd.DataFrame, clip_rows: pd.DataFrame,
                   names: list[str], groups: int = 20, seed: int = 0) -> tuple[float, float, float]:
    """The difference of `matched_classes`, mean over networks, freed of the noise of few people, with its 95 % interval.

    Class means of few people are noisy, which makes prototypes look less alike than they are; people drawn again add as much
    noise once more, so that a bootstrap interval lies below its own estimate. Leaving out people in turn tells both: how far
    noise moves the difference, and how much it varies.

    Args:
        photos, clips: features `[N, D]`, `[M, D]` of each network.
        groups: of people of both tests, dealt at random and left out in turn (at most one group a person).
    Returns:
        corrected difference, low, high, at most K / (K - 1), which equal prototypes give; missing where one of the tests shows
        fewer than two people or both fewer than two classes.
    Source: Quenouille's correction of the bias and the delete-a-group jackknife, Shao and Tu 1995; Student's t with groups - 1
        degrees of freedom.
    """
    units = [units_of(rows.subject) for rows in (photo_rows, clip_rows)]
    people = [len(np.unique(u)) for u in units]
    classes = len(set(photo_rows.label) & set(clip_rows.label) & set(names))
    if min(*people, classes) < 2:
        return np.nan, np.nan, np.nan
    groups = min(groups, sum(people))
    dealt = np.split(np.random.default_rng(seed).permutation(sum(people)) % groups, [people[0]])
    sides = [[_means_without(f, rows.label, names, deal[unit], groups) for f in features]
             for features, rows, deal, unit in zip((photos, clips), (photo_rows, clip_rows), dealt, units)]
    full, *left = np.mean([_difference(p, c) for p, c in zip(*sides)], axis=0)
    corrected = groups * full - (groups - 1) * np.mean(left)
    half = student.ppf(0.975, groups - 1) * (groups - 1) / np.sqrt(groups) * np.std(left)
    return tuple(min(float(v), classes / (classes - 1)) for v in (corrected, corrected - half, corrected + half))


def _means_without(features: np.ndarray, labels: pd.Series, names: list[str], group: np.ndarray, groups: int) -> np.ndarray:
    """Class means `[1 + groups, K, D]` of all samples, then without each group in turn; a class without samples is missing."""
    member = labels.to_numpy()[:, None] == np.array(names)
    kept = np.vstack([np.ones(len(group), bool), group != np.arange(groups)[:, None]])[..., None] & member       # [1 + G, N, K]
    total = kept.sum(1)[..., None]
    return np.where(total > 0, np.einsum("gnk,nd->gkd", kept, features, optimize=True) / np.maximum(total, 1), np.nan)


def _difference(photos: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Mean cosine of equal classes less that of unequal ones: class means `[R, K, D]` twice -> `[R]`."""
    cosine = np.einsum("rkd,rjd->rkj", _relative(photos), _relative(clips))
    equal = np.eye(cosine.shape[1], dtype=bool)
    return np.nanmean(np.where(equal, cosine, np.nan), (1, 2)) - np.nanmean(np.where(equal, np.nan, cosine), (1, 2))


def prototype_study(photos: dict[tuple[str, int], np.ndarray], clips: dict[tuple[str, int], np.ndarray], photo_rows: pd.DataFrame,
                    clip_rows: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prototypes of both tasks in every network.

    Args:
        photos, clips: (method, seed) -> pooled features `[N, D]`.
        photo_rows, clip_rows: tables of the samples (label, subject).
        names: classes to compare.
    Returns:
        cells: method, image_class, video_class, cosine (mean over seeds); and one row a method: `matched_classes` of the mean
        matrix, with corrected, low and high (of `match_interval`), seed_low and seed_high, the range of the difference over seeds.
    """
    cells, stats = [], []
    for method in dict.fromkeys(m for m, _ in photos):
        pairs = [(photos[k], clips[k]) for k in photos if k[0] == method]
        each = [prototypes(p, photo_rows.label, names) @ prototypes(c, clip_rows.label, names).T for p, c in pairs]
        mean, differences = np.mean(each, axis=0), [matched_classes(s)["difference"] for s in each]
        cells.append(tidy(mean, names, "image_class", "video_class", "cosine").assign(method=method))
        corrected, low, high = match_interval(*map(list, zip(*pairs)), photo_rows, clip_rows, names)
        seeds = dict(seed_low=min(differences), seed_high=max(differences))
        stats.append(dict(method=method, **matched_classes(mean), corrected=corrected, low=low, high=high, **seeds))
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


MEASURES = {"cka": unbiased_centre, "rsa": rank_rdm}
Layers = dict[str, np.ndarray]           # of `stimuli.layer_features`: layer -> [N, D]


def similarity_by_layer(pairs: list[tuple[Layers, Layers]], rows: pd.DataFrame, permutations: int = 100, seed: int = 0) -> pd.DataFrame:
    """CKA and RSA of every layer between two representations of the same stimuli, mean over seeds, against two null models.

    `any` shuffles the stimuli of one side: what remains is chance. `within` shuffles them inside each emotion: what remains
    is what the category alone explains, so similarity above it is shared knowledge of the single stimulus (its identity,
    its pose, its own expression).

    Args:
        pairs: one for each seed; equal layers are compared.
        rows: table of the N stimuli (label, subject).
    Returns:
        layer, measure ("cka", "rsa"), value, low, high (95 % over people, jackknife), seed_low, seed_high (range), any_95,
        within_mean, within_95 (95th percentiles), p_any, p_within, stimuli, people.
    """
    rng, n, units = np.random.default_rng(seed), len(rows), units_of(rows.subject)
    orders = {"any": [rng.permutation(n) for _ in range(permutations)],
              "within": [_within(rows.label.to_numpy(), rng) for _ in range(permutations)]}
    out = []
    for layer in [name for name in pairs[0][0] if name in pairs[0][1]]:
        for measure, form in MEASURES.items():
            given = [(first[layer], second[layer]) for first, second in pairs]
            forms = [(_unit(form(a)), _unit(form(b))) for a, b in given]
            each = [float((a * b).sum()) for a, b in forms]
            value = np.mean(each)
            null = {k: np.array([np.mean([(a * b[np.ix_(o, o)]).sum() for a, b in forms]) for o in of]) for k, of in orders.items()}
            half = jackknife(lambda keep: np.mean([(_unit(form(a[keep])) * _unit(form(b[keep]))).sum() for a, b in given]), units)
            p = {k: (1 + (v >= value).sum()) / (1 + permutations) for k, v in null.items()}
            out.append(dict(layer=layer, measure=measure, value=value, low=value - half, high=min(1.0, value + half),
                            seed_low=min(each), seed_high=max(each), any_95=np.percentile(null["any"], 95),
                            within_mean=null["within"].mean(), within_95=np.percentile(null["within"], 95), p_any=p["any"],
                            p_within=p["within"], stimuli=n, people=len(np.unique(units))))
    return pd.DataFrame(out)


def _unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / max(np.linalg.norm(matrix), 1e-12)


def _within(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.arange(len(labels))
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        order[rows] = rng.permutation(rows)
    return order


# A map ------------------------------------------------------------------------------------------------------------------

def shared_space(photos: np.ndarray, clips: np.ndarray, photo_rows: pd.DataFrame, clip_rows: pd.DataFrame, most: int = 140,
                 seed: int = 0) -> pd.DataFrame:
    """t-SNE of photos and clips together: a picture of neighbourhoods, in which distances, sizes and gaps mean little.

    Args:
        photos, clips: pooled features `[N, D]`, `[M, D]` of one network.
        photo_rows, clip_rows: tables of the samples (label).
        most: largest number of each kind, drawn at random.
        seed: of the draw and of the map.
    Returns:
        task, label, x, y: one row a sample.
    Source: van der Maaten and Hinton 2008; the exact gradient, whose result does not depend on the number of threads.
    """
    from sklearn.manifold import TSNE
    kept = [choose(len(f), most, seed) for f in (photos, clips)]
    both = StandardScaler().fit_transform(np.concatenate([photos[kept[0]], clips[kept[1]]]))
    place = TSNE(perplexity=min(30, (len(both) - 1) / 3), init="pca", method="exact", max_iter=500, random_state=seed).fit_transform(both)
    rows = [r.iloc[k][["label"]].assign(task=t) for r, k, t in ((photo_rows, kept[0], "image"), (clip_rows, kept[1], "video"))]
    return pd.concat(rows, ignore_index=True).assign(x=place[:, 0], y=place[:, 1])[["task", "label", "x", "y"]]
