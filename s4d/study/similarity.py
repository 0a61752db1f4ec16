"""How photos and clips relate inside the networks: transfer of heads, prototypes, CKA by layer."""
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from . import stats
from .by_emotion import class_orders

Pairs = list[tuple[np.ndarray, np.ndarray]]    # features `[N, D]` of photos and clips, by seed
Layers = dict[str, np.ndarray]                 # of `stimuli.layer_features`: layer -> `[N, D]`


@torch.no_grad()
def read_by_head(model: nn.Module, pooled: np.ndarray, head: str, names: tuple[str, ...],
                 shared: list[str]) -> np.ndarray:
    """Name the emotion of features `[N, D]` by one head, of classes `names`, among the shared."""
    x = torch.from_numpy(pooled).to(next(model.parameters()))
    logits = model.forward_head(x, head).float().cpu().numpy()
    return np.array(shared)[logits[:, [names.index(n) for n in shared]].argmax(1)]


def read_by_probe(train: np.ndarray, labels: np.ndarray, x: np.ndarray, C: float = 0.1,
                  max_iter: int = 500) -> np.ndarray:
    """Name the emotion of features `[N, D]` by logistic regression on training samples."""
    reader = LogisticRegression(C=C, max_iter=max_iter, class_weight="balanced")
    return make_pipeline(StandardScaler(), reader).fit(train, labels).predict(x)


def transfer_matrix(read: pd.DataFrame, saw: dict[str, tuple[str, ...]],
                    resamples: int = 1000) -> pd.DataFrame:
    """WAR (%) of every trained head, or probe, on photos and on clips, with 95 % intervals.

    Args:
        read: path, label, subject, predicted, method, seed, head (the kind that it, or the probe,
            was trained on) and stimuli (the kind of the sample).
        saw: method -> kinds of labelled samples that its network was trained on.
    Returns: method, head, stimuli, war, low, high, samples, subjects, majority (WAR of one class),
    zero_shot (the head was trained on the other kind), unseen (so was the network).
    """
    table = stats.scores(read, ["method", "head", "stimuli"], resamples)
    table = table[table.metric == "WAR"].rename(columns={"value": "war"}).reset_index(drop=True)
    table[["war", "low", "high"]] *= 100
    labels = read.drop_duplicates(["stimuli", "path"]).groupby("stimuli").label
    share = labels.agg(lambda names: names.value_counts(normalize=True).iloc[0])
    table["majority"] = 100 * table.stimuli.map(share)
    table["zero_shot"] = table["head"] != table.stimuli
    new = [kind not in saw[m] for m, kind in zip(table.method, table.stimuli, strict=True)]
    table["unseen"] = table.zero_shot & np.array(new)
    return table.drop(columns=["metric", "seed_sd", "seeds"])


def prototypes(features: np.ndarray, labels: np.ndarray, names: list[str]) -> np.ndarray:
    """Class means less the mean of the class means, unit length: `[N, D]` -> `[K, D]`.

    That removes the offset of photos from clips; a class without samples is missing.
    """
    labels, missing = np.asarray(labels), np.full(features.shape[1], np.nan)
    means = np.array([features[labels == n].mean(0) if n in labels else missing for n in names])
    means -= np.nanmean(means, 0)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def matched_classes(similarity: np.ndarray) -> dict:
    """Test whether equal classes are more alike across modalities than unequal ones, `[K, K]`.

    Returns: diagonal, off_diagonal, difference (their means), ceiling (its largest value, of equal
    prototypes), p against renaming one side's classes in every order, p_least (its least value).
    """
    known = ~np.isnan(similarity).all(1) & ~np.isnan(similarity).all(0)
    s, k = similarity[np.ix_(known, known)], known.sum()
    on = s[np.arange(k), class_orders(k)].mean(1)                          # [R], first as named
    off = (s.sum() - on * k) / (k * (k - 1))
    difference, *renamed = on - off
    return dict(diagonal=on[0], off_diagonal=off[0], difference=difference, ceiling=k / (k - 1),
                p=stats.permutation_p(np.array(renamed), difference), p_least=1 / len(on))


def mean_cosine(pairs: Pairs, photo_labels: np.ndarray, clip_labels: np.ndarray,
                names: list[str]) -> np.ndarray:
    """Cosines of the prototypes of photos and of clips, `[K, K]`, mean over networks."""
    both = [(prototypes(photos, photo_labels, names), prototypes(clips, clip_labels, names))
            for photos, clips in pairs]
    return np.mean([still @ moving.T for still, moving in both], axis=0)


def corrected_difference(pairs: Pairs, photo_rows: pd.DataFrame, clip_rows: pd.DataFrame,
                         names: list[str]) -> tuple[float, float, float]:
    """The difference of `matched_classes` freed of the noise of few subjects, and its 95 % limits.

    Class means of few subjects are noisy, so prototypes look less alike than they are, and a
    bootstrap adds as much noise once more. Missing with fewer than two subjects.
    Source: jackknife over groups of subjects, with Quenouille's correction of the bias.
    """
    n, equal = len(photo_rows), np.eye(len(names)) > 0
    units = stats.units_of_two((photo_rows, clip_rows))
    if units is None:
        return np.nan, np.nan, np.nan

    def difference(kept: np.ndarray) -> float:
        one, other = kept[kept < n], kept[kept >= n] - n
        some = [(photos[one], clips[other]) for photos, clips in pairs]
        cosine = mean_cosine(some, photo_rows.label.iloc[one], clip_rows.label.iloc[other], names)
        return np.nanmean(cosine[equal]) - np.nanmean(cosine[~equal])
    left, half = stats.jackknife(difference, units, groups=20)
    value = len(left) * difference(np.arange(len(units))) - (len(left) - 1) * left.mean()
    return float(value), float(value - half), float(value + half)


def prototype_study(networks: dict[str, Pairs], photo_rows: pd.DataFrame, clip_rows: pd.DataFrame,
                    names: list[str]) -> pd.DataFrame:
    """Compare the prototypes of photos with those of clips, method by method.

    Returns: one row a pair of classes: image_class, video_class, cosine (mean over seeds), method,
    photos, clips (samples of the classes), and of the method's matrix those of `matched_classes`,
    corrected, low and high (of `corrected_difference`, up to the ceiling).
    """
    cells = pd.MultiIndex.from_product([names, names], names=["image_class", "video_class"])
    photos, clips = (rows.label.value_counts().reindex(names, fill_value=0)
                     for rows in (photo_rows, clip_rows))
    out = []
    for method, pairs in networks.items():
        cosine = mean_cosine(pairs, photo_rows.label, clip_rows.label, names)
        found = matched_classes(cosine)
        found["corrected"], found["low"], found["high"] = np.minimum(
            corrected_difference(pairs, photo_rows, clip_rows, names), found["ceiling"])
        table = pd.DataFrame(dict(cosine=cosine.ravel(), method=method, **found), cells)
        out.append(table.reset_index())
    table = pd.concat(out, ignore_index=True)
    return table.assign(photos=table.image_class.map(photos), clips=table.video_class.map(clips))


def centred_gram(x: np.ndarray) -> np.ndarray:
    """U-centred Gram matrix of `[N, D]`, of norm 1: products of two estimate CKA without bias.

    Source: Szekely and Rizzo 2014; Song et al. 2012.
    """
    n = len(x)
    if n < 4:
        raise ValueError(f"{n} stimuli: the unbiased similarity needs at least 4")
    gram = x @ x.T
    np.fill_diagonal(gram, 0)
    rows = gram.sum(1) / (n - 2)
    gram = gram - rows[:, None] - rows[None] + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0)
    return gram / max(np.linalg.norm(gram), 1e-12)


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased linear CKA of `[N, D]` and `[N, E]`, rows are the same stimuli.

    1 for equal representations up to rotation and scale; 0 is expected of independent ones.
    Source: Kornblith et al. 2019, with the unbiased estimator of HSIC.
    """
    return float((centred_gram(x) * centred_gram(y)).sum())


def similarity_by_layer(couples: dict[str, list[tuple[Layers, Layers]]], rows: pd.DataFrame,
                        permutations: int = 1000, seed: int = 0) -> pd.DataFrame:
    """CKA of every layer between two representations of the same stimuli, mean over seeds.

    Two nulls shuffle one side: `any` all stimuli (leaves chance), `within` an emotion (leaves it).

    `couples`: comparison -> two representations for each seed, with the same layers.
    Returns: comparison, layer, value, low, high (95 %, jackknife over subjects), stimuli, people,
    and of the layer "pooled" <null>_mean, <null>_95 (percentile), p_<null>.
    """
    units, rng, out = stats.units_of(rows.subject), np.random.default_rng(seed), []

    def mean_cka(kept: np.ndarray | slice, pairs: Pairs) -> float:
        return np.mean([cka(a[kept], b[kept]) for a, b in pairs])

    def shuffled(groups: list[np.ndarray]) -> np.ndarray:
        order = np.empty(len(rows), int)
        for members in groups:
            order[members] = rng.permutation(members)
        return order
    nulls = {"any": [np.arange(len(rows))], "within": rows.groupby("label").indices.values()}
    orders = {null: [shuffled(groups) for _ in range(permutations)]
              for null, groups in nulls.items()}
    layers = next(iter(couples.values()))[0][0]
    for layer, name in product(layers, couples):
        pairs = [(a[layer], b[layer]) for a, b in couples[name]]
        value = mean_cka(np.s_[:], pairs)
        half = stats.jackknife(partial(mean_cka, pairs=pairs), units)[1]
        found = dict(comparison=name, layer=layer, value=value, low=value - half,
                     high=min(1.0, value + half), stimuli=len(rows), people=len(np.unique(units)))
        if layer == "pooled":
            grams = [(centred_gram(a), centred_gram(b)) for a, b in pairs]
            for null in orders:
                drawn = np.array([np.mean([(a * b[o][:, o]).sum() for a, b in grams])
                                  for o in orders[null]])
                found |= {f"{null}_mean": drawn.mean(), f"{null}_95": np.percentile(drawn, 95),
                          f"p_{null}": stats.permutation_p(drawn, value)}
        out.append(found)
    return pd.DataFrame(out)
