"""Which expert serves whom: usage by group, what it tells in bits, agreement between seeds.

Gates are kept by block index, from 0; the tables number blocks and experts from 1.
"""
from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .routing import Routes
from .splits import Split
from .stats import LIMITS, draws, holm, interval, jackknife, permutation_p, weights_of

Questions = dict[int, list[Split]]             # block number (from 1) -> of `splits_of`
Grid = tuple[int, int, int]                    # tokens along time, rows, columns


def usage_table(questions: Questions, resamples: int = 500) -> pd.DataFrame:
    """Share of the assignments that each expert takes for each task and emotion.

    The difference is to the other groups of the question together, with a 95 % interval.
    """
    def measured(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        others = sums.sum(-2, keepdims=True) - sums, counts.sum(-1, keepdims=True) - counts
        share, rest = (s / np.where(c > 1e-9, c, np.nan)[..., None]
                       for s, c in ((sums, counts), others))
        return share, share - rest
    rows = []
    for block, split in [(b, s) for b, splits in questions.items() for s in splits]:
        by, _, task = split.about.partition(", ")
        if by == "place" or task == "first time step":
            continue
        weights = weights_of(len(split.sums), resamples)
        share, difference = measured(split.sums.sum(0), split.counts.sum(0))
        drawn = measured(np.tensordot(weights, split.sums, 1), weights @ split.counts)[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)     # one subject has no limits
            low, high = np.nanquantile(drawn, LIMITS, axis=0)
        rows += [(block, task or split.names[v], by, split.names[v], e + 1, share[v, e],
                  int(split.samples[v]), difference[v, e], low[v, e], high[v, e])
                 for v, e in np.ndindex(share.shape)]
    return pd.DataFrame(rows, columns=["block", "task", "by", "group", "expert", "share", "samples",
                                       "difference", "difference_low", "difference_high"])


def entropy(p: np.ndarray) -> np.ndarray:
    """Shannon entropy in bits along the last axis of probabilities; 0 log 0 = 0."""
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)


def information(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mutual information `[...]` between expert and group, in bits, every group weighing the same.

    It is the Jensen-Shannon divergence of the groups' usage: 0 when all use the experts alike,
    log2 of the number of groups when no expert is shared.

    Args:
        sums: usage times weight `[..., V, E]`; counts: weight `[..., V]`, 0 for an empty group.
    """
    usage = sums / np.where(counts > 0, counts, 1)[..., None]
    present = (counts > 0).astype(float)
    weight = present / np.maximum(present.sum(-1, keepdims=True), 1)
    return entropy((weight[..., None] * usage).sum(-2)) - (weight * entropy(usage)).sum(-1)


def specificity_table(questions: Questions, permutations: int = 500, seed: int = 0) -> pd.DataFrame:
    """Bits that the groups of every question tell about the expert of every block.

    One seed of permutations and resamples for all runs lets them share subjects.

    Returns:
        block, about, limit, bits, null_mean, people, and as arrays `[R]` null (bits of permuted
        groups) and boot (bits of resampled subjects).
    """
    rows = []
    for block, split in [(b, s) for b, splits in questions.items() for s in splits]:
        rng, people = np.random.default_rng(seed), len(split.sums)
        null = np.array([information(*split.null(rng)) for _ in range(permutations)])
        weights = weights_of(people, permutations, seed)
        boot = information(np.tensordot(weights, split.sums, 1), weights @ split.counts)
        bits = float(information(split.sums.sum(0), split.counts.sum(0)))
        rows.append(dict(block=block, about=split.about, limit=split.limit, bits=bits,
                         null_mean=null.mean(), people=people, null=null, boot=boot))
    return pd.DataFrame(rows)


def beyond_null(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """What groups tell beyond their null, in per cent of the limit, by run and in the mean of runs.

    Bits about two tasks and about seven emotions have other limits, and few samples lift them.
    Bits less the mean of their null, over their limit, can be compared.

    Args:
        table: of `specificity_table`, runs stacked, with a column seed.
    Returns:
        the table with beyond (%) and, for each block and question, mean (over runs), mean_low,
        mean_high (95 % over subjects and runs), null_top (95th percentile of the mean's null) and
        p_holm (one-sided, over all blocks and questions).
    """
    keys, out = ["block", "about"], []
    for _, runs in table.groupby(keys, sort=False):
        limit = runs.limit.iloc[0]
        scale = 100 / limit if limit else np.nan            # a single group has nothing to tell
        null, boot = (scale * np.stack(list(runs[name])) for name in ("null", "boot"))   # [S, R]
        beyond = scale * runs.bits.to_numpy() - null.mean(1)
        moved = beyond[:, None] + boot - boot.mean(1, keepdims=True)
        weights = draws(len(runs), boot.shape[1], seed)                                  # [R, S]
        low, high = interval((weights.T * moved).sum(0) / weights.sum(1))
        chance = null.mean(0) - null.mean()
        p = permutation_p(chance, beyond.mean(), slack=1e-9) if limit else np.nan
        out.append(runs.drop(columns=["null", "boot"]).assign(
            beyond=beyond, mean=beyond.mean(), mean_low=low, mean_high=high,
            null_top=np.percentile(chance, 95), p=p))
    found = pd.concat(out, ignore_index=True)
    tests = found.drop_duplicates(keys).dropna(subset="p")
    corrected = tests[keys].assign(p_holm=holm(tests.p.to_numpy()))
    return found.drop(columns="p").merge(corrected, on=keys, how="left")


def maps_table(routes: Routes, grid: Grid, task: str) -> pd.DataFrame:
    """Mean gate of every expert at every place: block, task, expert, row, column (from 0), gate."""
    rows = []
    for block, gates in routes.items():
        maps = gates.double().mean(0).view(*grid, -1).mean(0).permute(2, 0, 1).numpy()
        rows += [(block + 1, task, e + 1, *place, gate)
                 for (e, *place), gate in np.ndenumerate(maps)]
    return pd.DataFrame(rows, columns=["block", "task", "expert", "row", "column", "gate"])


def map_agreement(photo: Tensor, clip: Tensor, grids: dict[str, Grid],
                  units: dict[str, np.ndarray]) -> dict[str, float]:
    """Correlate the experts' maps in photos with those in clips, each expert's mean taken off.

    The 95 % interval is a jackknife over the subjects (`units`) of both kinds.
    """
    n, everybody = len(photo), np.concatenate([units["image"], units["video"] + len(photo)])
    maps = [g.double().view(len(g), grids[t][0], -1, g.shape[-1]).mean(1).numpy()
            for t, g in (("image", photo), ("video", clip))]

    def correlation(kept: np.ndarray) -> float:
        means = [maps[0][kept[kept < n]].mean(0), maps[1][kept[kept >= n] - n].mean(0)]
        return np.corrcoef(*[(m - m.mean(0)).ravel() for m in means])[0, 1]
    r = correlation(np.arange(len(everybody)))
    half = float(jackknife(correlation, everybody))
    return dict(agreement=r, agreement_low=max(-1.0, r - half), agreement_high=min(1.0, r + half))


def seed_agreement(routes: dict[int, Routes], permutations: int = 100,
                   seed: int = 0) -> pd.DataFrame:
    """Test whether two runs divide the same tokens alike, whatever numbers their experts have.

    matched is the share of the tokens whose leading experts are matched (Hungarian method); its
    null permutes the samples and the places of one run. `routes` is seed -> gates of the same
    stimuli.
    """
    def matched_share(a: np.ndarray, b: np.ndarray, experts: int) -> float:
        both = np.bincount((a * experts + b).ravel(), minlength=experts * experts)
        both = both.reshape(experts, experts)
        return float(both[linear_sum_assignment(-both)].sum() / a.size)
    rng, rows = np.random.default_rng(seed), []
    for one, other in combinations(sorted(routes), 2):
        for block, gates in routes[one].items():
            a, b = (routes[s][block].argmax(-1).numpy() for s in (one, other))
            experts, null = gates.shape[-1], []
            for _ in range(permutations):
                moved = b[rng.permutation(len(b))][:, rng.permutation(b.shape[1])]
                null.append(matched_share(a, moved, experts))
            null, matched = np.array(null), matched_share(a, b, experts)
            rows.append((block + 1, one, other, matched, null.mean(), np.percentile(null, 95),
                         permutation_p(null, matched), a.size))
    return pd.DataFrame(rows, columns=["block", "seed_a", "seed_b", "matched", "null_mean",
                                       "null_95", "p", "tokens"])
