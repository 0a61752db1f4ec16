"""Which expert serves whom: usage by group, what it tells in bits, agreement between seeds.

Gates are kept by block index, from 0; the tables number blocks and experts from 1.
"""
from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

from .intervals import LIMITS, draws, holm, interval, jackknife, permutation_p, weights_of
from .routing import Routes
from .splits import Split, usage_of

Questions = dict[int, list[Split]]             # block number (from 1) -> of `splits_of`
Grid = tuple[int, int, int]                    # tokens along time, rows, columns


def entropy(p: np.ndarray) -> np.ndarray:
    """Shannon entropy in bits along the last axis of probabilities; 0 log 0 = 0."""
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)


def _usage(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Usage of each group `[..., V, E]`; 0 for an empty one."""
    return sums / np.where(counts > 0, counts, 1)[..., None]


def information(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mutual information `[...]` between expert and group, in bits, every group weighing the same.

    It is the Jensen-Shannon divergence of the groups' usage: 0 when all use the experts alike,
    log2 of the number of groups when no expert is shared. sums `[..., V, E]` are usage times
    weight, counts `[..., V]` weight.
    """
    p, present = _usage(sums, counts), (counts > 0).astype(float)
    weight = present / np.maximum(present.sum(-1, keepdims=True), 1)
    return entropy((weight[..., None] * p).sum(-2)) - (weight * entropy(p)).sum(-1)


def distance(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of one group's assignments to move to get the other's usage, 0 (equal) .. 1."""
    p = _usage(sums, counts)
    return np.abs(p[..., 0, :] - p[..., 1, :]).sum(-1) / 2


def judged(split: Split, measure: Callable = information, permutations: int = 500,
           seed: int = 0) -> dict:
    """Measure how much the group tells about the experts, against its null model.

    The interval is a basic bootstrap over subjects, which corrects the upward bias of the value.
    Returns: value, low, high (95 %), null_mean, null_95 (95th percentile), p (one-sided), people,
    null and boot (permuted and resampled values).
    """
    rng = np.random.default_rng(seed)
    value = float(measure(split.sums.sum(0), split.counts.sum(0)))
    null = np.array([measure(*split.null(rng)) for _ in range(permutations)])
    weights = weights_of(len(split.sums), permutations, seed)
    low, high, boot = np.nan, np.nan, np.full(permutations, np.nan)
    if not np.isnan(weights).any():
        boot = measure(np.tensordot(weights, split.sums, 1), weights @ split.counts)
        low, high = np.maximum(0.0, 2 * value - np.quantile(boot, LIMITS[::-1]))
    return dict(value=value, low=low, high=high, null_mean=null.mean(),
                null_95=np.percentile(null, 95), p=permutation_p(null, value),
                people=len(split.sums), null=null, boot=boot)


def specificity_table(splits: Questions, permutations: int = 500, seed: int = 0,
                      measure: Callable = information) -> pd.DataFrame:
    """Bits of every block about task, emotion, region, place and phase, with their limit.

    One seed of permutations and resamples for all runs lets them share subjects.
    """
    found = [(block, split, judged(split, measure, permutations, seed))
             for block, questions in splits.items() for split in questions]
    return pd.DataFrame([
        dict(block=block, about=split.about, limit=split.limit, bits=of.pop("value"), **of)
        for block, split, of in found])


def index_table(splits: Questions, permutations: int = 500, seed: int = 0) -> pd.DataFrame:
    """`distance` of the tasks in every block, as index, with its limit 1."""
    tasks = {block: [split for split in questions if split.about.startswith("task")]
             for block, questions in splits.items()}
    table = specificity_table(tasks, permutations, seed, distance)
    return table.assign(limit=1.0).rename(columns={"bits": "index"})


def beyond_null(table: pd.DataFrame, value: str = "bits", seed: int = 0) -> pd.DataFrame:
    """What groups tell beyond their null, as a share of the limit, by run and in the mean of runs.

    Bits about two tasks and about seven emotions have other limits, and few samples lift them.
    A value less the mean of its null, over its limit, can be compared.

    Args:
        table: of `specificity_table` or `index_table`, runs stacked, with a column seed.
        value: "bits" or "index".
    Returns:
        the table with beyond (% of the limit) and, for each block and question, mean (over runs),
        mean_low, mean_high (95 % over subjects and runs), null_top (95th percentile of the mean's
        null) and p_holm (one-sided, over all blocks and questions).
    """
    keys, out = ["block", "about"], []
    for _, runs in table.groupby(keys, sort=False):
        beyond, mean = _mean_beyond(runs, value, seed)
        out.append(runs.drop(columns=["null", "boot"]).assign(beyond=beyond, **mean))
    found = pd.concat(out, ignore_index=True)
    tests = found.drop_duplicates(keys).dropna(subset="p_mean")
    corrected = tests[keys].assign(p_holm=holm(tests.p_mean.to_numpy()))
    return found.drop(columns="p_mean").merge(corrected, on=keys, how="left")


def _mean_beyond(runs: pd.DataFrame, value: str, seed: int) -> tuple[np.ndarray, dict]:
    """Per cent beyond the null of each run, and their mean with its interval, null and p."""
    limit = runs.limit.to_numpy()
    testable = limit.all()                                  # a single group has nothing to tell
    scale = 100 / limit if testable else np.full(len(limit), np.nan)
    null = np.stack(list(runs.null)) * scale[:, None]                                # [S, R]
    boot = np.stack(list(runs.boot)) * scale[:, None]
    beyond = runs[value].to_numpy() * scale - null.mean(1)
    weights = draws(len(runs), boot.shape[1], seed)                                  # [R, S]
    moved = beyond[:, None] + boot - boot.mean(1, keepdims=True)
    again = (weights.T * moved).sum(0) / weights.sum(1)
    low, high = (np.nan, np.nan) if np.isnan(again).any() else interval(again)
    chance = null.mean(0) - null.mean()
    p = permutation_p(chance, beyond.mean(), slack=1e-9) if testable else np.nan
    return beyond, dict(mean=beyond.mean(), mean_low=low, mean_high=high,
                        null_top=np.percentile(chance, 95), p_mean=p)


def permutations_for(tests: int, level: float = 0.05) -> int:
    """Permutations whose smallest p, 1 / (1 + permutations), can pass Holm's correction."""
    return int(np.ceil(tests / level))


def usage_table(splits: Questions, resamples: int = 500) -> pd.DataFrame:
    """Share of the assignments that each expert takes in each group, with 95 % intervals.

    The difference is to the other groups of the question together.
    """
    def shares(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return sums / np.where(counts > 1e-9, counts, np.nan)[..., None]

    def measured(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        usage = shares(sums, counts)
        others = sums.sum(-2, keepdims=True) - sums, counts.sum(-1, keepdims=True) - counts
        return usage, usage - shares(*others)
    rows = []
    for block, split in [(b, s) for b, questions in splits.items() for s in questions]:
        by, _, task = split.about.partition(", ")
        if by == "place" or task == "first time step":
            continue
        weights = weights_of(len(split.sums), resamples)
        share, change = measured(split.sums.sum(0), split.counts.sum(0))
        drawn = measured(np.tensordot(weights, split.sums, 1), weights @ split.counts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)     # one subject has no limits
            limits, change_limits = (np.nanquantile(d, LIMITS, axis=0) for d in drawn)
        rows += [(block, task or split.names[v], by, split.names[v], e + 1, share[v, e],
                  *limits[:, v, e], int(split.samples[v]), change[v, e], *change_limits[:, v, e])
                 for v, e in np.ndindex(share.shape)]
    return pd.DataFrame(rows, columns=["block", "task", "by", "group", "expert", "share", "low",
                                       "high", "samples", "difference", "difference_low",
                                       "difference_high"])


def entropy_table(routes: Routes, task: str) -> pd.DataFrame:
    """How evenly the experts of a block are used, and how decided a token's gates are.

    effective_experts is 2 to the entropy of the usage, load the busiest expert's over an even
    share, unused the experts with under 1 %.
    """
    rows = []
    for block, gates in routes.items():
        share = usage_of(gates).mean(0)
        bits = float(entropy(gates.double().numpy()).mean())
        rows.append((block + 1, task, 2 ** float(entropy(share)), bits,
                     float(share.max() * len(share)), int((share < 0.01).sum())))
    columns = ["block", "task", "effective_experts", "gate_bits", "load", "unused"]
    return pd.DataFrame(rows, columns=columns)


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


def leading_table(gates: Tensor, grid: Grid, samples: list[int]) -> pd.DataFrame:
    """Which expert leads each token: sample, step, row, column (from 0), expert, gate."""
    rows = [(n, *np.unravel_index(i, grid), int(leader) + 1, float(gate)) for n in samples
            for i, (gate, leader) in enumerate(zip(*gates[n].max(-1), strict=True))]
    return pd.DataFrame(rows, columns=["sample", "step", "row", "column", "expert", "gate"])


def seed_agreement(routes: dict[int, Routes], permutations: int = 100,
                   seed: int = 0) -> pd.DataFrame:
    """Test whether two runs divide the same tokens alike, whatever numbers their experts have.

    agreement is the adjusted mutual information of the leading experts; matched the share of the
    tokens that matched experts lead (Hungarian method), its null permutes the samples and the
    places of one run. `routes` is seed -> gates of the same stimuli.
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
            agreement = adjusted_mutual_info_score(a.ravel(), b.ravel())
            rows.append((block + 1, one, other, agreement, matched, null.mean(),
                         np.percentile(null, 95), permutation_p(null, matched), a.size))
    return pd.DataFrame(rows, columns=["block", "seed_a", "seed_b", "agreement", "matched",
                                       "null_mean", "null_95", "p", "tokens"])
