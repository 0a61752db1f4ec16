"""How alike photos and clips are inside the networks: class prototypes, CKA and RSA by layer."""
from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .confusions import class_orders, tidy
from .intervals import jackknife, leave_out, left_out_half, permutation_p, units_of, units_of_two


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

    Returns: diagonal, off_diagonal, difference (their means), null_95 and p against renaming the
    classes of one side in every order; p_least, the smallest possible p.
    """
    known = ~np.isnan(similarity).all(1) & ~np.isnan(similarity).all(0)
    s = similarity[np.ix_(known, known)]
    k, keys = len(s), ("diagonal", "off_diagonal", "difference", "null_95", "p", "p_least")
    if k < 2:
        return dict.fromkeys(keys, np.nan)
    on = s[np.arange(k), class_orders(k)].mean(1)
    off = (s.sum() - on * k) / (k * (k - 1))
    null = on - off
    p = (null >= null[0] - 1e-12).mean()
    found = on[0], off[0], null[0], np.percentile(null, 95), p, 1 / len(null)
    return dict(zip(keys, found, strict=True))


def match_without(photos: list[np.ndarray], clips: list[np.ndarray], photo_rows: pd.DataFrame,
                  clip_rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """The difference of `matched_classes` on all subjects, then without each group: `[1 + G]`.

    It is a mean over networks, of which each has features of photos and of clips; missing, `[1]`,
    where a test shows fewer than two subjects or both share fewer than two classes.
    """
    units, n = units_of_two((photo_rows, clip_rows)), len(photo_rows)
    if units is None or len(_shared(photo_rows, clip_rows, names)) < 2:
        return np.full(1, np.nan)
    labels = photo_rows.label.to_numpy(), clip_rows.label.to_numpy()
    equal = np.eye(len(names), dtype=bool)

    def difference(kept: np.ndarray) -> float:
        kept, found = (kept[kept < n], kept[kept >= n] - n), []
        for pair in zip(photos, clips, strict=True):
            a, b = (prototypes(pair[i][kept[i]], labels[i][kept[i]], names) for i in (0, 1))
            cosine = a @ b.T
            found.append(np.nanmean(cosine[equal]) - np.nanmean(cosine[~equal]))
        return np.mean(found)
    whole = difference(np.arange(len(units)))
    return np.array([whole, *leave_out(difference, units, groups=20)])


def _shared(photo_rows: pd.DataFrame, clip_rows: pd.DataFrame, names: list[str]) -> set[str]:
    return set(photo_rows.label) & set(clip_rows.label) & set(names)


def freed_of_noise(without: np.ndarray) -> tuple[float, float, float]:
    """Correct a statistic `[1 + G]`, of all subjects and without each group, for its bias: 95 %.

    Class means of few subjects are noisy, so prototypes look less alike than they are, and a
    bootstrap adds as much noise once more. Source: Quenouille's correction of the bias.
    """
    groups = len(without) - 1
    if groups < 2:
        return np.nan, np.nan, np.nan
    value = groups * without[0] - (groups - 1) * without[1:].mean()
    half = left_out_half(without[1:])
    return float(value), float(value - half), float(value + half)


def prototype_study(photos: dict[tuple[str, int], np.ndarray],
                    clips: dict[tuple[str, int], np.ndarray], photo_rows: pd.DataFrame,
                    clip_rows: pd.DataFrame, names: list[str],
                    reference: str = "static") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the prototypes of photos with those of clips in every network.

    Args:
        photos, clips: (method, seed) -> pooled features.
    Returns:
        cells: image_class, video_class, cosine (mean over seeds), method; and one row a method:
        `matched_classes` of the mean matrix, the range over seeds, ceiling (of equal prototypes),
        corrected, low and high (of `freed_of_noise`, up to the ceiling), change, change_low,
        change_high (less the reference, paired over subjects).
    """
    cells, stats, without = [], [], {}
    for method in dict.fromkeys(m for m, _ in photos):
        keys = [k for k in photos if k[0] == method]
        each = [prototypes(photos[k], photo_rows.label, names)
                @ prototypes(clips[k], clip_rows.label, names).T for k in keys]
        mean, differences = np.mean(each, 0), [matched_classes(s)["difference"] for s in each]
        table = tidy(mean, names, "image_class", "video_class", "cosine")
        cells.append(table.assign(method=method))
        without[method] = match_without([photos[k] for k in keys], [clips[k] for k in keys],
                                        photo_rows, clip_rows, names)
        stats.append(dict(method=method, **matched_classes(mean), seed_low=min(differences),
                          seed_high=max(differences)))
    table = pd.DataFrame(stats)
    known = len(_shared(photo_rows, clip_rows, names))
    table["ceiling"] = ceiling = known / (known - 1) if known > 1 else np.nan
    base = without.get(reference, np.nan)
    table[["corrected", "low", "high"]] = [
        np.minimum(freed_of_noise(without[m]), ceiling) for m in table.method]
    table[["change", "change_low", "change_high"]] = [
        freed_of_noise(without[m] - base) for m in table.method]
    return pd.concat(cells, ignore_index=True), table


def unbiased_centre(x: np.ndarray) -> np.ndarray:
    """U-centred Gram matrix of `[N, D]`: zero diagonal; products estimate HSIC without bias.

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
    return gram


def rank_rdm(x: np.ndarray) -> np.ndarray:
    """Standardised ranks of the pairwise cosine distances of `[N, D]`, zero diagonal.

    The mean stimulus is subtracted, so that a rotation of the features changes nothing.
    """
    upper, out = np.triu_indices(len(x), 1), np.zeros((len(x), len(x)))
    centred = x - x.mean(0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    rank = rankdata((1 - centred @ centred.T)[upper].round(12))
    rank -= rank.mean()
    out[upper] = rank / max(np.linalg.norm(rank), 1e-12)
    return out + out.T


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased linear CKA of `[N, D]` and `[N, E]`, rows are the same stimuli.

    1 for equal representations up to rotation and scale; 0 is expected of independent ones.
    Source: Kornblith et al. 2019, with the unbiased estimator of HSIC.
    """
    a, b = unbiased_centre(x), unbiased_centre(y)
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def rsa(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman correlation of two representations' pairwise cosine distances."""
    return float((rank_rdm(x) * rank_rdm(y)).sum() / 2)


MEASURES = {"cka": unbiased_centre, "rsa": rank_rdm}
NULLS = ("any", "within", "person")
Layers = dict[str, np.ndarray]           # of `stimuli.layer_features`: layer -> [N, D]


def similarity_by_layer(couples: dict[str, list[tuple[Layers, Layers]]], rows: pd.DataFrame,
                        permutations: int = 1000, tested: tuple[str, ...] | None = None,
                        seed: int = 0) -> pd.DataFrame:
    """CKA and RSA of every layer between two representations of the same stimuli, mean over seeds.

    Three nulls shuffle the stimuli of one side: `any` all of them (what remains is chance),
    `within` inside each emotion (what remains is the emotion), `person` inside each subject.

    Args:
        couples: comparison -> two representations for each seed; equal layers are compared.
        tested: layers whose CKA is compared with the nulls; None: all.
    Returns:
        comparison, layer, measure, value, low, high (95 %, jackknife over subjects), seed_low,
        seed_high (range), <null>_mean, <null>_95, p_<null> (if tested), stimuli, people.
    """
    units = units_of(rows.subject)
    orders = _orders(rows.label.to_numpy(), units, permutations, np.random.default_rng(seed))
    first, out = next(iter(couples.values()))[0], []
    for layer in [name for name in first[0] if name in first[1]]:
        for measure, form in MEASURES.items():
            forms = {name: [(_unit(form(a[layer])), _unit(form(b[layer]))) for a, b in pairs]
                     for name, pairs in couples.items()}
            nulls = {}
            if measure == "cka" and (tested is None or layer in tested):
                nulls = {null: _shuffled(forms, of) for null, of in orders.items()}
            for name, pairs in couples.items():
                given = [(a[layer], b[layer]) for a, b in pairs]
                each = [float((a * b).sum()) for a, b in forms[name]]
                half = jackknife(partial(_similarity, given, form), units)
                value, against = np.mean(each), {}
                for null in NULLS:
                    drawn = nulls[null][name] if null in nulls else np.full(1, np.nan)
                    p = permutation_p(drawn, value) if null in nulls else np.nan
                    against |= {f"{null}_mean": drawn.mean(),
                                f"{null}_95": np.percentile(drawn, 95), f"p_{null}": p}
                out.append(dict(comparison=name, layer=layer, measure=measure, value=value,
                                low=value - half, high=min(1.0, value + half),
                                seed_low=min(each), seed_high=max(each), **against,
                                stimuli=len(rows), people=len(np.unique(units))))
    return pd.DataFrame(out)


def _unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / max(np.linalg.norm(matrix), 1e-12)


def _similarity(pairs: list[tuple[np.ndarray, np.ndarray]], form, kept: np.ndarray) -> float:
    return np.mean([(_unit(form(a[kept])) * _unit(form(b[kept]))).sum() for a, b in pairs])


def _orders(labels: np.ndarray, units: np.ndarray, permutations: int,
            rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Orders of the stimuli for each null, `[R, N]`; none for `person` if nobody shows two."""
    groups = {"any": np.zeros(len(labels)), "within": labels, "person": units}
    if len(np.unique(units)) == len(units):
        del groups["person"]
    out = {null: np.empty((permutations, len(labels)), int) for null in groups}
    for null, group in groups.items():
        members = [np.flatnonzero(group == name) for name in np.unique(group)]
        for order in out[null]:
            for rows in members:
                order[rows] = rng.permutation(rows)
    return out


def _shuffled(forms: dict[str, list[tuple[np.ndarray, np.ndarray]]],
              orders: np.ndarray) -> dict[str, np.ndarray]:
    """Similarities with one side's stimuli shuffled, comparison -> `[R]`, mean over seeds.

    All comparisons stand side by side in memory, so that one pass through the pairs serves all.
    """
    sides = [np.stack([pair[side] for pairs in forms.values() for pair in pairs], axis=-1)
             for side in (0, 1)]                                                     # [N, N, C]
    i, j = np.triu_indices(orders.shape[1], 1)
    given, moved = sides[0][i, j], sides[1].reshape(-1, sides[1].shape[-1])
    found = np.array([2 * np.einsum("mc,mc->c", given, moved[o[i] * len(o) + o[j]])
                      for o in orders])                                              # [R, C]
    ends = np.cumsum([len(pairs) for pairs in forms.values()])[:-1]
    parts = np.split(found, ends, axis=1)
    return {name: part.mean(1) for name, part in zip(forms, parts, strict=True)}
