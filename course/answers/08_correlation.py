"""Answers to 08_correlation: `f__name` answers f.

`Says:` is what the failing test must tell. Names with `right` must pass.
"""
import numpy as np
import pandas as pd

from s4d.study import similarity
from s4d.study.stats import jackknife, units_of


def match__offset_kept(photos, photo_labels, clips, clip_labels):
    """Compares the class means as they are.

    Says: the difference between the kinds covers all
    """
    names = sorted(set(photo_labels) & set(clip_labels))
    a, b = (
        np.stack([f[np.asarray(k) == n].mean(0) for n in names])
        for f, k in ((photos, photo_labels), (clips, clip_labels))
    )
    cosine = (
        a
        / np.linalg.norm(a, axis=1, keepdims=True)
        @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    )
    same = np.eye(len(names), dtype=bool)
    return cosine[same].mean(), cosine[~same].mean()


def match__one_mean_for_both(photos, photo_labels, clips, clip_labels):
    """Subtracts the mean of photos and clips together.

    Says: inside EACH kind
    """
    names = sorted(set(photo_labels) & set(clip_labels))
    a, b = (
        np.stack([f[np.asarray(k) == n].mean(0) for n in names])
        for f, k in ((photos, photo_labels), (clips, clip_labels))
    )
    middle = np.concatenate([a, b]).mean(0)
    a, b = a - middle, b - middle
    cosine = (
        a
        / np.linalg.norm(a, axis=1, keepdims=True)
        @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    )
    same = np.eye(len(names), dtype=bool)
    return cosine[same].mean(), cosine[~same].mean()


def match__mean_over_samples(photos, photo_labels, clips, clip_labels):
    """Subtracts the mean over samples, in which frequent emotions weigh more.

    Says: every CLASS weighs the same
    """
    names = sorted(set(photo_labels) & set(clip_labels))
    a, b = (np.stack([(f - f.mean(0))[np.asarray(k) == n].mean(0) for n in names])
            for f, k in ((photos, photo_labels), (clips, clip_labels)))
    cosine = (
        a
        / np.linalg.norm(a, axis=1, keepdims=True)
        @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    )
    same = np.eye(len(names), dtype=bool)
    return cosine[same].mean(), cosine[~same].mean()


def match__classes_as_they_come(photos, photo_labels, clips, clip_labels):
    """Lists the emotions in the order in which each kind shows them first.

    Says: pair photos and clips of the same NAME
    """
    sides = []
    for f, k in ((photos, photo_labels), (clips, clip_labels)):
        means = np.stack([f[np.asarray(k) == n].mean(0) for n in pd.unique(np.asarray(k))])
        means -= means.mean(0)
        sides.append(means / np.linalg.norm(means, axis=1, keepdims=True))
    cosine = sides[0] @ sides[1].T
    same = np.eye(len(cosine), dtype=bool)
    return cosine[same].mean(), cosine[~same].mean()


def match__right_with_the_project(photos, photo_labels, clips, clip_labels):
    """`similarity.prototypes` on the shared emotions."""
    names = [n for n in np.unique(photo_labels) if n in set(clip_labels)]
    a, b = (
        similarity.prototypes(photos, photo_labels, names),
        similarity.prototypes(clips, clip_labels, names),
    )
    found = similarity.matched_classes(a @ b.T)
    return found["diagonal"], found["off_diagonal"]


def nulls__within_is_any(x, y, labels, permutations=200, seed=0):
    """Shuffles everything for both nulls.

    Says: only to a place of the SAME emotion
    """
    rng, value = np.random.default_rng(seed), similarity.cka(x, y)
    null = np.array([similarity.cka(x, y[rng.permutation(len(y))]) for _ in range(permutations)])
    p = (1 + (null >= value).sum()) / (1 + permutations)
    return {"value": value, "any": null.mean(), "within": null.mean(), "p_any": p, "p_within": p}


def nulls__shuffles_emotions(x, y, labels, permutations=200, seed=0):
    """Exchanges whole emotions instead of the samples inside them.

    Says: only to a place of the SAME emotion
    """
    rng, value, labels = np.random.default_rng(seed), similarity.cka(x, y), np.asarray(labels)
    names, out = np.unique(labels), {"value": value}
    free = [similarity.cka(x, y[rng.permutation(len(y))]) for _ in range(permutations)]
    blocks = []
    for _ in range(permutations):
        blocks.append(
            similarity.cka(
                x, y[np.concatenate([np.flatnonzero(labels == n) for n in rng.permutation(names)])]
            )
        )
    for name, null in (("any", np.array(free)), ("within", np.array(blocks))):
        out |= {name: null.mean(), f"p_{name}": (1 + (null >= value).sum()) / (1 + permutations)}
    return out


def nulls__both_sides(x, y, labels, permutations=200, seed=0):
    """Shuffles both sides alike.

    Says: shuffle ONE side
    """
    rng, value, out = np.random.default_rng(seed), similarity.cka(x, y), {"value": similarity.cka(x, y)}
    for name in ("any", "within"):
        orders = [rng.permutation(len(y)) for _ in range(permutations)]
        null = np.array([similarity.cka(x[o], y[o]) for o in orders])
        out |= {
            name: null.mean(),
            f"p_{name}": (1 + (null >= value - 1e-9).sum()) / (1 + permutations),
        }
    return out


def nulls__right_by_sorting(x, y, labels, permutations=200, seed=0):
    """Random keys, sorted inside each emotion."""
    rng, value, code = (
        np.random.default_rng(seed),
        similarity.cka(x, y),
        np.unique(labels, return_inverse=True)[1],
    )
    out = {"value": value}
    for name, groups in (("any", np.zeros(len(code))), ("within", code)):
        null = []
        for _ in range(permutations):
            order = np.empty(len(code), int)
            order[np.lexsort((np.arange(len(code)), groups))] = np.lexsort(
                (rng.random(len(code)), groups)
            )
            null.append(similarity.cka(x, y[order]))
        out |= {
            name: float(np.mean(null)),
            f"p_{name}": (1 + sum(v >= value for v in null)) / (1 + permutations),
        }
    return out


def match_interval__clips_as_units(photos, photo_labels, clips, clip_labels, clip_people):
    """Leaves out single clips.

    Says: leave out whole PEOPLE
    """
    def difference(keep):
        return np.subtract(*match(photos, photo_labels, clips[keep], np.asarray(clip_labels)[keep]))
    value = difference(np.arange(len(clips)))
    half = jackknife(difference, np.arange(len(clips)))[1]
    return value, value - half, value + half


def match_interval__equal_alone(photos, photo_labels, clips, clip_labels, clip_people):
    """Forgets to subtract the unequal ones.

    Says: equal minus unequal
    """
    def equal(keep):
        return np.array(match(photos, photo_labels, clips[keep], np.asarray(clip_labels)[keep])[0])

    value, half = (
        float(equal(np.arange(len(clips)))),
        float(jackknife(equal, units_of(clip_people))[1]),
    )
    return value, value - half, value + half


def match_interval__half_for_the_whole(photos, photo_labels, clips, clip_labels, clip_people):
    """Takes half the width for the whole.

    Says: half the width differs
    """
    def difference(keep):
        return np.subtract(*match(photos, photo_labels, clips[keep], np.asarray(clip_labels)[keep]))
    value = difference(np.arange(len(clips)))
    half = jackknife(difference, units_of(clip_people))[1] / 1.5
    return value, value - half, value + half


def match_interval__right_by_people_numbers(photos, photo_labels, clips, clip_labels, clip_people):
    """Units made with pandas."""
    labels = np.asarray(clip_labels)
    pair = match(photos, photo_labels, clips, labels)
    half = jackknife(
        lambda k: np.array(match(photos, photo_labels, clips[k], labels[k])) @ [1, -1],
        np.unique(clip_people, return_inverse=True)[1],
    )[1]
    value = pair[0] - pair[1]
    return value, value - float(half), value + float(half)


def run_study__no_control(gaps):
    """Measures trained networks only.

    Says: without the untrained network
    """
    return pd.DataFrame(
        [
            dict(
                condition=f"gap {g}",
                network="trained",
                measure=m,
                value=0.5,
                low=0.4,
                high=0.6,
                stimuli=20,
                people=4,
            )
            for g in gaps
            for m in ("match", "cka")
        ]
    )


def run_study__clips_counted_as_people(gaps):
    """Takes clips for independent.

    Says: whose clips are not independent
    """
    return pd.DataFrame(
        [
            dict(
                condition=f"gap {g}",
                network=n,
                measure=m,
                value=0.5,
                low=0.4,
                high=0.6,
                stimuli=20,
                people=20,
            )
            for g in gaps
            for m in ("match", "cka")
            for n in ("trained", "untrained")
        ]
    )


def run_study__one_condition(gaps):
    """Measures the first value of the dial.

    Says: one condition alone
    """
    return pd.DataFrame(
        [
            dict(
                condition=f"gap {g}",
                network=n,
                measure=m,
                value=0.5,
                low=0.4,
                high=0.6,
                stimuli=20,
                people=4,
            )
            for g in gaps[:1]
            for m in ("match", "cka")
            for n in ("trained", "untrained")
        ]
    )


def run_study__no_intervals(gaps):
    """Gives point values.

    Says: lacks the column 'low'
    """
    return pd.DataFrame(
        [
            dict(condition=f"gap {g}", network=n, measure=m, value=0.5, stimuli=20, people=4)
            for g in gaps
            for m in ("match", "cka")
            for n in ("trained", "untrained")
        ]
    )


def run_study__one_model_twice(gaps):
    """Measures the same network under both names.

    Says: was the trained model loaded?
    """
    return pd.DataFrame(
        [
            dict(
                condition=f"gap {g}",
                network=n,
                measure=m,
                value=0.5,
                low=0.4,
                high=0.6,
                stimuli=20,
                people=4,
            )
            for g in gaps
            for m in ("match", "cka")
            for n in ("trained", "untrained")
        ]
    )
