"""Which expert serves whom: usage by task, emotion, facial region and phase, what these say in bits, agreement between seeds.

Gates are kept by block index, from 0 as in `model.blocks`; the tables number blocks and experts from 1, as they are read.
"""
from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

from .people import weights_of
from .routing import Routes
from .splits import Split, sample_usage


# What the counts say ----------------------------------------------------------------------------------------------------

def entropy(p: np.ndarray, axis: int = -1) -> np.ndarray:
    """Shannon entropy in bits along an axis of probabilities; 0 log 0 = 0."""
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(axis)


def _groups(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Usage of each group `[..., V, E]` and the groups' weights `[..., V]`: all alike, 0 for an empty one."""
    present = (counts > 0).astype(float)
    return sums / np.where(counts > 0, counts, 1)[..., None], present / np.maximum(present.sum(-1, keepdims=True), 1)


def information(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mutual information between expert and group, in bits, every group weighing the same.

    With equal weights it equals the Jensen-Shannon divergence of the groups' usage: 0 when all groups use the experts
    alike, log2 of the number of groups when no expert is shared. It does not depend on how many samples a group has.

    Args:
        sums: `[..., V, E]` usage times weight.
        counts: `[..., V]` weight.
    Returns:
        `[...]`.
    """
    p, weight = _groups(sums, counts)
    return entropy((weight[..., None] * p).sum(-2)) - (weight * entropy(p)).sum(-1)


def distance(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Specificity index of two groups: half the summed difference of their usage, 0 (alike) .. 1 (no expert in common).

    It is the share of one group's assignments that would have to move to other experts to give the usage of the other group.

    Args and Returns: as in `information`, V = 2.
    """
    p, _ = _groups(sums, counts)
    return np.abs(p[..., 0, :] - p[..., 1, :]).sum(-1) / 2


def judged(split: Split, measure: Callable = information, permutations: int = 500, seed: int = 0) -> dict:
    """How much the group says about the experts that serve it.

    Args:
        measure: `information` or `distance`.
        permutations: of the null, and resamples of people for the interval.
    Returns:
        value, low, high (95 %, basic bootstrap over people, which corrects the upward bias of the plug-in value; missing for a single
        person), null_mean, null_95 (95th percentile), p (one-sided), people.
    """
    rng = np.random.default_rng(seed)
    value = float(measure(split.sums.sum(0), split.counts.sum(0)))
    null = np.array([measure(*split.null(rng)) for _ in range(permutations)])
    times = weights_of(len(split.sums), permutations, seed)
    if np.isnan(times).any():
        low = high = np.nan
    else:
        boot = measure(np.tensordot(times, split.sums, 1), times @ split.counts)
        low, high = (max(0.0, v) for v in 2 * value - np.percentile(boot, [97.5, 2.5]))
    return dict(value=value, low=low, high=high, null_mean=null.mean(), null_95=np.percentile(null, 95),
                p=(1 + (null >= value - 1e-12).sum()) / (1 + permutations), people=len(split.sums))


def specificity_table(splits: dict[int, list[Split]], permutations: int = 500, seed: int = 0) -> pd.DataFrame:
    """Bits of every block about task, emotion, region, place and phase.

    Args:
        splits: block number (from 1) -> of `splits_of`.
    Returns:
        tidy table: block, about, limit (largest possible bits), bits and the rest of `judged`.
    """
    out = []
    for block, questions in splits.items():
        for split in questions:
            fewer = max(20, permutations // 5) if split.about.startswith("place") else permutations      # its null is the slow one
            found = judged(split, information, fewer, seed)
            limit = np.log2(min(split.sums.shape[2], (split.counts.sum(0) > 0).sum()))
            out.append(dict(block=block, about=split.about, limit=limit, bits=found.pop("value"), **found))
    return pd.DataFrame(out)


def index_table(splits: dict[int, list[Split]], permutations: int = 500, seed: int = 0) -> pd.DataFrame:
    """Task-specificity index of every block, with interval and null: block, about, index and the rest of `judged`."""
    out = []
    for block, questions in splits.items():
        for split in [s for s in questions if s.about.startswith("task")]:
            found = judged(split, distance, permutations, seed)
            out.append(dict(block=block, about=split.about, index=found.pop("value"), **found))
    return pd.DataFrame(out)


def usage_table(splits: dict[int, list[Split]], resamples: int = 500) -> pd.DataFrame:
    """Share of the assignments that each expert takes in each group.

    Args:
        splits: block number (from 1) -> of `splits_of`; places and the first time step are left out.
    Returns:
        tidy table: block, task, by ("task", "emotion", "region", "phase"), group, expert, share (sums to 1 over experts), low, high
        (95 % over people), samples.
    """
    out = []
    for block, questions in splits.items():
        for s in [s for s in questions if not s.about.startswith(("place", "task, first"))]:
            times = weights_of(len(s.sums), resamples)
            share = _groups(s.sums.sum(0), s.counts.sum(0))[0]
            drawn = times @ s.counts
            usage = np.tensordot(times, s.sums, 1) / np.where(drawn > 0, drawn, np.nan)[..., None]      # a group that nobody drawn shows
            low, high = np.nanpercentile(usage, [2.5, 97.5], axis=0) if len(s.sums) > 1 else np.full((2, *share.shape), np.nan)
            by, _, task = s.about.partition(", ")
            for (v, e), value in np.ndenumerate(share):
                out.append((block, task or s.names[v], by, s.names[v], e + 1, value, low[v, e], high[v, e], int(s.samples[v])))
    return pd.DataFrame(out, columns=["block", "task", "by", "group", "expert", "share", "low", "high", "samples"])


def entropy_table(routes: Routes, task: str) -> pd.DataFrame:
    """How evenly the experts of a block are used and loaded, and how decided a token's gates are.

    Returns:
        block, task, effective_experts (2 to the entropy of the usage: 1..E), gate_bits (mean entropy of a token's gates,
        at most log2 of top k), load (assignments of the busiest expert over those of an even share, 1..E), unused (experts that
        take under 1 % of the assignments).
    """
    rows = []
    for block, gates in routes.items():
        share = sample_usage(gates).mean(0)
        rows.append((block + 1, task, 2 ** float(entropy(share)), float(entropy(gates.double().numpy()).mean()),
                     float(share.max() * len(share)), int((share < 0.01).sum())))
    return pd.DataFrame(rows, columns=["block", "task", "effective_experts", "gate_bits", "load", "unused"])


# Where a token lies -----------------------------------------------------------------------------------------------------

def token_maps(gates: Tensor, grid: tuple[int, int, int]) -> np.ndarray:
    """Mean gate of every expert at every place of the face: `[N, L, E]`, grid (t, rows, columns) -> `[E, rows, columns]`.

    Raises:
        ValueError: when the grid does not hold L tokens.
    """
    if gates.shape[1] != np.prod(grid):
        raise ValueError(f"{gates.shape[1]} tokens do not fill a grid of {' x '.join(map(str, grid))}")
    return gates.double().mean(0).view(*grid, -1).mean(0).permute(2, 0, 1).numpy()


def maps_table(routes: Routes, grid: tuple[int, int, int], task: str) -> pd.DataFrame:
    """`token_maps` of every block as a tidy table: block, task, expert, row and column (from 0), gate."""
    rows = [(block + 1, task, e + 1, *place, g) for block, gates in routes.items()
            for (e, *place), g in np.ndenumerate(token_maps(gates, grid))]
    return pd.DataFrame(rows, columns=["block", "task", "expert", "row", "column", "gate"])


def leading_table(gates: Tensor, grid: tuple[int, int, int], samples: list[int]) -> pd.DataFrame:
    """Which expert leads at each token of single samples: sample, step, row, column (from 0), expert, gate."""
    rows = []
    for n in samples:
        gate, leader = gates[n].max(-1)
        rows += [(n, *np.unravel_index(i, grid), int(leader[i]) + 1, float(gate[i])) for i in range(len(gate))]
    return pd.DataFrame(rows, columns=["sample", "step", "row", "column", "expert", "gate"])


# Across seeds -----------------------------------------------------------------------------------------------------------

def matched_share(a: np.ndarray, b: np.ndarray, experts: int) -> float:
    """Share of the tokens that matched experts lead in both runs; the Hungarian method finds the best matching.

    Args:
        a, b: leading expert of each token in two runs, of equal shape.
    """
    both = np.bincount((a * experts + b).ravel(), minlength=experts * experts).reshape(experts, experts)
    return float(both[linear_sum_assignment(-both)].sum() / a.size)


def seed_agreement(routes: dict[int, Routes], permutations: int = 100, seed: int = 0) -> pd.DataFrame:
    """Whether two training runs divide the same tokens alike, whatever numbers their experts have.

    The null deals the samples and the places of one run anew: each run keeps a division that depends on both as much as it did, but the
    two have nothing to do with each other. With few places and experts, even such divisions match in part.

    Args:
        routes: seed -> gates of the same stimuli.
    Returns:
        block, seed_a, seed_b, agreement: adjusted mutual information of the tokens' leading experts (0 chance, 1 the same
        division); matched: of `matched_share`, with null_mean, null_95, p; tokens. Empty with a single seed.
    """
    rng, rows = np.random.default_rng(seed), []
    for one, other in combinations(sorted(routes), 2):
        for block, gates in routes[one].items():
            a, b = (routes[s][block].argmax(-1).numpy() for s in (one, other))
            experts = gates.shape[-1]
            found = matched_share(a, b, experts)
            null = np.array([matched_share(a, b[rng.permutation(len(b))][:, rng.permutation(b.shape[1])], experts)
                             for _ in range(permutations)])
            rows.append((block + 1, one, other, adjusted_mutual_info_score(a.ravel(), b.ravel()), found, null.mean(),
                         np.percentile(null, 95), (1 + (null >= found - 1e-12).sum()) / (1 + permutations), a.size))
    return pd.DataFrame(rows, columns=["block", "seed_a", "seed_b", "agreement", "matched", "null_mean", "null_95", "p", "tokens"])


def stability(pairs: pd.DataFrame) -> str:
    """One word on the division of labour: "stable" when every comparison beats its null (p of at most 5 %) and closes, on average, more
    than half of the distance from the null to equality; "partly" when most beat it; else "unstable"; "unknown" without comparisons.

    Args:
        pairs: of `seed_agreement`, tasks stacked.
    """
    if pairs.empty:
        return "unknown"
    closed = ((pairs.matched - pairs.null_mean) / (1 - pairs.null_mean)).mean()
    beats = pairs.p <= 0.05
    return "stable" if beats.all() and closed > 0.5 else "partly" if beats.mean() > 0.5 else "unstable"
