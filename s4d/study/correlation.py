"""How static and dynamic expressions correlate inside the networks: transfer, class prototypes, CKA and RSA by layer, a shared map."""
from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from .confusions import class_orders, tidy
from .intervals import deal_subjects, jackknife, left_out_half, units_of
from .stats import scores
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


def transfer_matrix(read: pd.DataFrame, saw: dict[str, tuple[str, ...]], resamples: int = 1000) -> pd.DataFrame:
    """WAR of every trained head, or probe, on photos and on clips.

    Args:
        read: rows of `read_by_head` or `read_by_probe` with the columns method, seed, head (the kind it was trained on), stimuli added.
        saw: method -> kinds of labelled samples that its network was trained on.
    Returns:
        tidy table: method, head, stimuli, zero_shot (head or probe was trained on the other kind), unseen (so was the network), war,
        low, high (%; mean over seeds, 95 % over subjects and seeds), samples, subjects, uar (%), seeds, majority (WAR of the stimuli's most
        frequent class, %).
    """
    cells = ["method", "head", "stimuli"]
    found = scores(read, cells, resamples)
    uar = 100 * found[found.metric == "UAR"].value.to_numpy()
    table = found[found.metric == "WAR"].rename(columns={"value": "war"}).reset_index(drop=True)
    table[["war", "low", "high"]] *= 100
    share = read.drop_duplicates(["stimuli", "path"]).groupby("stimuli").label.agg(lambda labels: labels.value_counts(normalize=True).iloc[0])
    other = table["head"] != table.stimuli
    unseen = other & np.array([k not in saw[m] for m, k in zip(table.method, table.stimuli)])
    table = table.assign(zero_shot=other, unseen=unseen, uar=uar, majority=100 * table.stimuli.map(share))
    return table[[*cells, "zero_shot", "unseen", "war", "low", "high", "samples", "subjects", "uar", "seeds", "majority"]]


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


def match_without(photos: list[np.ndarray], clips: list[np.ndarray], photo_rows: pd.DataFrame, clip_rows: pd.DataFrame,
                  names: list[str], groups: int = 20, seed: int = 0) -> np.ndarray:
    """The difference of `matched_classes`, mean over networks, of all people, then without each group of people in turn: `[1 + G]`.

    Args:
        photos, clips: features `[N, D]`, `[M, D]` of each network.
        groups: of people of both tests, dealt at random (at most one group a person); equal tests and seeds are dealt equally.
    Returns:
        missing, `[1]`, where one of the tests shows fewer than two people or both fewer than two classes.
    """
    dealt = deal_subjects((photo_rows, clip_rows), groups, seed)
    if dealt is None or len(set(photo_rows.label) & set(clip_rows.label) & set(names)) < 2:
        return np.full(1, np.nan)
    count = max(d.max() for d in dealt) + 1
    sides = [[_means_without(f, rows.label, names, deal, count) for f in features]
             for features, rows, deal in zip((photos, clips), (photo_rows, clip_rows), dealt)]
    return np.mean([_difference(p, c) for p, c in zip(*sides)], axis=0)


def freed_of_noise(without: np.ndarray) -> tuple[float, float, float]:
    """A statistic of all people and without each of G groups `[1 + G]`, freed of the noise of few people, with its 95 % interval.

    Class means of few people are noisy, which makes prototypes look less alike than they are; people drawn again add as much
    noise once more, so that a bootstrap interval lies below its own estimate. Leaving out people in turn tells both: how far
    noise moves the difference, and how much it varies.

    Returns:
        corrected statistic, low, high; missing without groups.
    Source: Quenouille's correction of the bias.
    """
    groups = len(without) - 1
    if groups < 2:
        return np.nan, np.nan, np.nan
    value, half = groups * without[0] - (groups - 1) * without[1:].mean(), left_out_half(without[1:])
    return float(value), float(value - half), float(value + half)


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
                    clip_rows: pd.DataFrame, names: list[str], reference: str = "static") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prototypes of both tasks in every network.

    Args:
        photos, clips: (method, seed) -> pooled features `[N, D]`.
        photo_rows, clip_rows: tables of the samples (label, subject).
        names: classes to compare.
        reference: method from which the others' differences are told.
    Returns:
        cells: method, image_class, video_class, cosine (mean over seeds); and one row a method: `matched_classes` of the mean
        matrix, with corrected, low and high (of `freed_of_noise`), ceiling (K / (K - 1), which equal prototypes give and no limit
        exceeds), seed_low and seed_high (range of the difference over seeds), change, change_low and change_high (corrected minus that
        of the reference, paired over people, not cut at the ceiling).
    """
    cells, stats, without = [], [], {}
    for method in dict.fromkeys(m for m, _ in photos):
        pairs = [(photos[k], clips[k]) for k in photos if k[0] == method]
        each = [prototypes(p, photo_rows.label, names) @ prototypes(c, clip_rows.label, names).T for p, c in pairs]
        mean, differences = np.mean(each, axis=0), [matched_classes(s)["difference"] for s in each]
        cells.append(tidy(mean, names, "image_class", "video_class", "cosine").assign(method=method))
        without[method] = match_without(*map(list, zip(*pairs)), photo_rows, clip_rows, names)
        stats.append(dict(method=method, **matched_classes(mean), seed_low=min(differences), seed_high=max(differences)))
    table, known = pd.DataFrame(stats), len(set(photo_rows.label) & set(clip_rows.label) & set(names))
    table["ceiling"] = known / (known - 1) if known > 1 else np.nan
    table[["corrected", "low", "high"]] = [np.minimum(freed_of_noise(without[m]), c) for m, c in zip(table.method, table.ceiling)]
    table[["change", "change_low", "change_high"]] = [freed_of_noise(without[m] - without.get(reference, np.nan)) for m in table.method]
    return pd.concat(cells, ignore_index=True), table


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


def similarity_by_layer(couples: dict[str, list[tuple[Layers, Layers]]], rows: pd.DataFrame, permutations: int = 1000,
                        tested: tuple[str, ...] | None = None, seed: int = 0) -> pd.DataFrame:
    """CKA and RSA of every layer between two representations of the same stimuli, mean over seeds; CKA against three null models.

    `any` shuffles the stimuli of one side: what remains is chance. `within` shuffles them inside each emotion: what remains is what
    the category alone explains. `person` shuffles them inside each person: what remains is identity. Similarity above a null is
    knowledge of the single stimulus, or of what that null destroys.

    Args:
        couples: comparison -> two representations for each seed; equal layers are compared.
        rows: table of the N stimuli (label, subject).
        permutations: of each null model, the same ones in all comparisons.
        tested: layers that are held against the null models; None: all.
    Returns:
        comparison, layer, measure ("cka", "rsa"), value, low, high (95 % over people, jackknife), seed_low, seed_high (range),
        <null>_mean, <null>_95 (95th percentile) and p_<null> of each null (missing for RSA and layers that are not tested; for
        `person` where nobody shows two stimuli), stimuli, people.
    """
    n, units = len(rows), units_of(rows.subject)
    orders = _orders(rows.label.to_numpy(), units, permutations, np.random.default_rng(seed))
    first = next(iter(couples.values()))[0]
    out = []
    for layer in [name for name in first[0] if name in first[1]]:
        for measure, form in MEASURES.items():
            given = {name: [(a[layer], b[layer]) for a, b in pairs] for name, pairs in couples.items()}
            forms = {name: [(_unit(form(a)), _unit(form(b))) for a, b in pairs] for name, pairs in given.items()}
            used = orders if measure == "cka" and (tested is None or layer in tested) else {}
            null = {kind: _shuffled(forms, of) for kind, of in used.items()}
            for name, pairs in given.items():
                each = [float((a * b).sum()) for a, b in forms[name]]
                half = jackknife(lambda keep: np.mean([(_unit(form(a[keep])) * _unit(form(b[keep]))).sum() for a, b in pairs]), units)
                value = np.mean(each)
                out.append(dict(comparison=name, layer=layer, measure=measure, value=value, low=value - half, high=min(1.0, value + half),
                                seed_low=min(each), seed_high=max(each), **_against(value, {k: v[name] for k, v in null.items()}),
                                stimuli=n, people=len(np.unique(units))))
    return pd.DataFrame(out)


NULLS = ("any", "within", "person")


def _orders(labels: np.ndarray, units: np.ndarray, permutations: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Orders of the stimuli for each null, `[R, N]`; none for `person` where nobody shows two."""
    groups = {"any": np.zeros(len(labels)), "within": labels, "person": units}
    if len(np.unique(units)) == len(units):
        del groups["person"]
    return {kind: np.array([_within(group, rng) for _ in range(permutations)]) for kind, group in groups.items()}


def _shuffled(forms: dict[str, list[tuple[np.ndarray, np.ndarray]]], orders: np.ndarray) -> dict[str, np.ndarray]:
    """Similarities after the stimuli of one side are shuffled, comparison -> `[R]`, mean over seeds.

    All comparisons stand side by side in memory, so that one pass through the pairs of stimuli serves them all.
    """
    sides = [np.stack([pair[side] for pairs in forms.values() for pair in pairs], axis=-1) for side in (0, 1)]       # [N, N, C]
    i, j = np.triu_indices(orders.shape[1], 1)
    given, moved = sides[0][i, j], sides[1].reshape(-1, sides[1].shape[-1])
    found = np.array([2 * np.einsum("mc,mc->c", given, moved[o[i] * len(o) + o[j]]) for o in orders])                # [R, C]
    ends = np.cumsum([len(pairs) for pairs in forms.values()])[:-1]
    return {name: part.mean(1) for name, part in zip(forms, np.split(found, ends, axis=1))}


def _against(value: float, null: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean, 95th percentile and p of each null model; missing for those that are not given."""
    out = {}
    for kind in NULLS:
        v = null.get(kind, np.full(1, np.nan))
        p = (1 + (v >= value - 1e-12).sum()) / (1 + len(v)) if kind in null else np.nan
        out |= {f"{kind}_mean": v.mean(), f"{kind}_95": np.percentile(v, 95), f"p_{kind}": p}
    return out


def _unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / max(np.linalg.norm(matrix), 1e-12)


def _within(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.arange(len(labels))
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        order[rows] = rng.permutation(rows)
    return order


# A map ------------------------------------------------------------------------------------------------------------------

def perplexity(samples: int) -> float:
    """t-SNE's number of neighbours: 30, a third of the samples where they are few."""
    return min(30, (samples - 1) / 3)


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
    place = TSNE(perplexity=perplexity(len(both)), init="pca", method="exact", max_iter=500, random_state=seed).fit_transform(both)
    rows = [r.iloc[k][["label"]].assign(task=t) for r, k, t in ((photo_rows, kept[0], "image"), (clip_rows, kept[1], "video"))]
    return pd.concat(rows, ignore_index=True).assign(x=place[:, 0], y=place[:, 1])[["task", "label", "x", "y"]]
