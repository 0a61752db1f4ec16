"""Answers to 06_metrics: `f__name` answers f.

`Says:` is what the failing test must tell. Names with `right` must pass.
"""
import numpy as np
import pandas as pd


def scores__precision(labels, predicted):
    """Averages over the predicted classes: precision.

    Says: recall is 0 for fear and 1 for anger
    """
    table = pd.DataFrame({"label": labels, "predicted": predicted})
    right = table.label == table.predicted
    every = right.groupby(table.predicted).mean().reindex(sorted(set(labels)), fill_value=0)
    return float(right.mean()), float(every.mean())


def scores__missing_left_out(labels, predicted):
    """Drops samples without a prediction.

    Says: a missing answer is an error
    """
    table = pd.DataFrame({"label": labels, "predicted": predicted}).dropna()
    right = table.label == table.predicted
    return float(right.mean()), float(right.groupby(table.label).mean().mean())


def scores__classes_of_both(labels, predicted):
    """Counts predicted classes too, with a recall of 0 for those that never occur.

    Says: has no recall and no part in the mean
    """
    right = np.array([p == t for p, t in zip(predicted, labels, strict=True)])
    names = {*labels, *(p for p in predicted if p)}
    recalls = [right[np.array(labels) == n].mean() if n in labels else 0.0 for n in names]
    return float(right.mean()), float(np.mean(recalls))


def scores__accuracy_twice(labels, predicted):
    """Weights the recalls by the classes' sizes, which is WAR again.

    Says: every CLASS weighs the same
    """
    war = float(np.mean([p == t for p, t in zip(predicted, labels, strict=True)]))
    return war, war


def scores__right_from_counts(labels, predicted):
    """Plain Python."""
    right, total = {}, {}
    for t, p in zip(labels, predicted, strict=True):
        total[t] = total.get(t, 0) + 1
        right[t] = right.get(t, 0) + (t == p)
    return sum(right.values()) / len(labels), sum(right[t] / total[t] for t in total) / len(total)


def useless__chance_by_shares(labels):
    """Guesses as often as classes occur: the sum of squared shares.

    Says: the classes' shares do not enter
    """
    share = pd.Series(labels).value_counts(normalize=True)
    return {"majority": (share.max(), 1 / len(share)), "chance": ((share**2).sum(), 1 / len(share))}


def useless__majority_uar_is_its_share(labels):
    """Takes the share for the UAR too.

    Says: no single answer can lift UAR above 1 / K
    """
    share = pd.Series(labels).value_counts(normalize=True)
    return {"majority": (share.max(), share.max()), "chance": (1 / len(share), 1 / len(share))}


def useless__majority_is_a_guess(labels):
    """Takes 1 / K for everything.

    Says: so WAR is 0.6
    """
    k = len(set(labels))
    return {"majority": (1 / k, 1 / k), "chance": (1 / k, 1 / k)}


def useless__right_by_confusion(labels):
    """Expected confusion matrices."""
    names, count = np.unique(labels, return_counts=True)
    best = np.eye(len(names))[count.argmax()]
    recall = {"majority": best, "chance": np.full(len(names), 1 / len(names))}
    return {k: (float(r @ count / count.sum()), float(r.mean())) for k, r in recall.items()}


def interval_over_people__single_clips(correct, people, resamples=1000, seed=0):
    """Draws clips.

    Says: are 40 observations and not 400
    """
    rng = np.random.default_rng(seed)
    drawn = correct[rng.integers(len(correct), size=(resamples, len(correct)))].mean(1)
    return tuple(np.percentile(drawn, [2.5, 97.5]))


def interval_over_people__without_replacement(correct, people, resamples=1000, seed=0):
    """Shuffles people: every draw is the whole test part.

    Says: WITHOUT replacement
    """
    rng = np.random.default_rng(seed)
    names, unit = np.unique(people, return_inverse=True)
    drawn = [
        correct[np.isin(people, rng.permutation(names)[: len(names)])].mean()
        for _ in range(resamples)
    ]
    return tuple(np.percentile(drawn, [2.5, 97.5]))


def interval_over_people__mean_of_people(correct, people, resamples=1000, seed=0):
    """Averages people's own scores, so that one clip weighs as much as nineteen.

    Says: must weigh 19 times
    """
    rng = np.random.default_rng(seed)
    names, unit = np.unique(people, return_inverse=True)
    each = np.bincount(unit, weights=correct) / np.bincount(unit)
    drawn = each[rng.integers(len(names), size=(resamples, len(names)))].mean(1)
    return tuple(np.percentile(drawn, [2.5, 97.5]))


def interval_over_people__standard_error_forgotten(correct, people, resamples=1000, seed=0):
    """Draws a single person a time.

    Says: draw as many people as there are
    """
    rng = np.random.default_rng(seed)
    names, unit = np.unique(people, return_inverse=True)
    each = np.bincount(unit, weights=correct) / np.bincount(unit)
    return tuple(np.percentile(each[rng.integers(len(names), size=resamples)], [2.5, 97.5]))


def interval_over_people__right_with_lists(correct, people, resamples=1000, seed=0):
    """Draw by draw, with the clips themselves."""
    rng = np.random.default_rng(seed)
    clips = [correct[people == p] for p in np.unique(people)]
    drawn = [
        np.concatenate([clips[i] for i in rng.choice(len(clips), len(clips))]).mean()
        for _ in range(resamples)
    ]
    return np.quantile(drawn, 0.025), np.quantile(drawn, 0.975)


def weights__one_minus_the_share(labels):
    """1 - share, normalised.

    Says: not 1 minus its share
    """
    share = pd.Series(labels).value_counts(normalize=True)
    w = 1 - pd.Series(labels).map(share).to_numpy()
    return w / w.sum()


def weights__one_a_class(labels):
    """Returns a weight for each class.

    Says: one weight for each SAMPLE
    """
    _, count = np.unique(labels, return_counts=True)
    return (1 / count) / (1 / count).sum()


def weights__not_normalised(labels):
    """1 / count.

    Says: and not 1
    """
    _, unit, count = np.unique(labels, return_inverse=True, return_counts=True)
    return 1 / count[unit]


def weights__right_with_pandas(labels):
    """Map and normalise."""
    s = pd.Series(labels)
    w = 1 / s.map(s.value_counts())
    return (w / w.sum()).to_numpy()
