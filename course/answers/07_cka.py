"""Answers to 07_cka: `f__name` answers f.

`Says:` is what the failing test must tell. Names with `right` must pass.
"""
import numpy as np

from s4d.study import similarity


def centre__columns_alone(gram):
    """Subtracts the column means.

    Says: columns sum to 0 and rows do not
    """
    return gram - gram.mean(0)


def centre__overall_mean_forgotten(gram):
    """Subtracts row and column means and adds nothing.

    Says: columns must sum to 0
    """
    return gram - gram.mean(0)[None] - gram.mean(1)[:, None]


def centre__overall_mean_alone(gram):
    """Subtracts the overall mean.

    Says: subtract the column means
    """
    return gram - gram.mean()


def centre__in_place(gram):
    """Changes the caller's matrix.

    Says: work on a copy
    """
    rows = gram.mean(0).copy()
    gram -= rows[None]
    gram -= rows[:, None]
    gram += rows.mean()
    return gram


def centre__right_by_the_matrix(gram):
    """H K H."""
    h = np.eye(len(gram)) - np.ones_like(gram) / len(gram)
    return h @ gram @ h


def cka__not_centred(x, y):
    """Leaves the centring out.

    Says: centre both Gram matrices
    """
    k, m = x @ x.T, y @ y.T
    return float((k * m).sum() / (np.linalg.norm(k) * np.linalg.norm(m)))


def cka__one_norm(x, y):
    """Divides by one norm, squared.

    Says: the norms take the scale out
    """
    k, m = centre(x @ x.T), centre(y @ y.T)
    return float((k * m).sum() / np.linalg.norm(k) ** 2)


def cka__features_by_number(x, y):
    """Correlates the features themselves.

    Says: not features by number
    """
    n = min(x.shape[1], y.shape[1])
    a, b = x[:, :n] - x[:, :n].mean(0), y[:, :n] - y[:, :n].mean(0)
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def cka__whitened(x, y):
    """Whitens first: this is CCA.

    Says: whitening the features (as CCA does)
    """
    a, b = (np.linalg.svd(v - v.mean(0), full_matrices=False)[0] for v in (x, y))
    k, m = a @ a.T, b @ b.T
    return float((k * m).sum() / (np.linalg.norm(k) * np.linalg.norm(m)))


def cka__no_norms(x, y):
    """Returns the inner product.

    Says: divide by BOTH norms
    """
    return float((centre(x @ x.T) * centre(y @ y.T)).sum())


def cka__right_by_features(x, y):
    """The form with D x E matrices, cheaper for many stimuli."""
    a, b = x - x.mean(0), y - y.mean(0)
    return (
        np.linalg.norm(b.T @ a, "fro") ** 2
        / np.linalg.norm(a.T @ a, "fro")
        / np.linalg.norm(b.T @ b, "fro")
    ).item()


def permutation_p__without_the_one(x, y, permutations=200, seed=0, measure=similarity.cka):
    """Returns count / P.

    Says: cannot prove p = 0
    """
    rng, value = np.random.default_rng(seed), measure(x, y)
    return float(
        np.mean([measure(x, y[rng.permutation(len(y))]) >= value for _ in range(permutations)])
    )


def permutation_p__both_sides_alike(x, y, permutations=200, seed=0, measure=similarity.cka):
    """Shuffles both with one order.

    Says: the same order on both changes nothing
    """
    rng, value, count = np.random.default_rng(seed), measure(x, y), 0
    for _ in range(permutations):
        order = rng.permutation(len(y))
        count += measure(x[order], y[order]) >= value - 1e-12
    return (1 + count) / (1 + permutations)


def permutation_p__columns(x, y, permutations=200, seed=0, measure=similarity.cka):
    """Shuffles features.

    Says: columns (features) do not either
    """
    rng, value = np.random.default_rng(seed), measure(x, y)
    null = [measure(x, y[:, rng.permutation(y.shape[1])]) for _ in range(permutations)]
    return (1 + sum(v >= value - 1e-12 for v in null)) / (1 + permutations)


def permutation_p__less_similar(x, y, permutations=200, seed=0, measure=similarity.cka):
    """Counts the wrong side.

    Says: features made from one another give p
    """
    rng, value = np.random.default_rng(seed), measure(x, y)
    null = [measure(x, y[rng.permutation(len(y))]) for _ in range(permutations)]
    return (1 + sum(v <= value for v in null)) / (1 + permutations)


def permutation_p__own_measure(x, y, permutations=200, seed=0, measure=similarity.cka):
    """Ignores the measure that is given.

    Says: use the measure that is given
    """
    rng, value = np.random.default_rng(seed), cka(x, y)
    null = [cka(x, y[rng.permutation(len(y))]) for _ in range(permutations)]
    return (1 + sum(v >= value for v in null)) / (1 + permutations)


def permutation_p__right_shuffling_the_other(x, y, permutations=200, seed=0, measure=similarity.cka):
    """Shuffles x, with another kind of generator."""
    import random
    order, chance, value, count = list(range(len(x))), random.Random(seed), measure(x, y), 1
    for _ in range(permutations):
        chance.shuffle(order)
        count += bool(measure(x[order], y) >= value)
    return count / (permutations + 1)
