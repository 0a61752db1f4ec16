"""Which expert serves whom: usage by task, emotion, facial region and phase, what these say in bits, agreement between seeds.

Gates are kept by block index, from 0 as in `model.blocks`; the tables number blocks and experts from 1, as they are read.
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

from .intervals import draws, holm, interval, jackknife, weights_of
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
        person), null_mean, null_95 (95th percentile), p (one-sided), people, and what `beyond_null` reads: null (values of the null) and
        boot (resampled values), float64 `[permutations]`.
    """
    rng = np.random.default_rng(seed)
    value = float(measure(split.sums.sum(0), split.counts.sum(0)))
    null = np.array([measure(*split.null(rng)) for _ in range(permutations)])
    times = weights_of(len(split.sums), permutations, seed)
    if np.isnan(times).any():
        low, high, boot = np.nan, np.nan, np.full(permutations, np.nan)
    else:
        boot = measure(np.tensordot(times, split.sums, 1), times @ split.counts)
        low, high = (max(0.0, v) for v in 2 * value - np.percentile(boot, [97.5, 2.5]))
    return dict(value=value, low=low, high=high, null_mean=null.mean(), null_95=np.percentile(null, 95),
                p=(1 + (null >= value - 1e-12).sum()) / (1 + permutations), people=len(split.sums), null=null, boot=boot)


def specificity_table(splits: dict[int, list[Split]], permutations: int = 500, seed: int = 0) -> pd.DataFrame:
    """Bits of every block about task, emotion, region, place and phase.

    Args:
        splits: block number (from 1) -> of `splits_of`.
        seed: of permutations and resamples; one for all runs, so that they are shown the same people.
    Returns:
        tidy table: block, about, limit (largest possible bits), bits and the rest of `judged`.
    """
    out = []
    for block, questions in splits.items():
        for split in questions:
            found = judged(split, information, permutations, seed)
            limit = np.log2(min(split.sums.shape[2], (split.counts.sum(0) > 0).sum()))
            out.append(dict(block=block, about=split.about, limit=limit, bits=found.pop("value"), **found))
    return pd.DataFrame(out)


def index_table(splits: dict[int, list[Split]], permutations: int = 500, seed: int = 0) -> pd.DataFrame:
    """Task-specificity index of every block, with interval and null: block, about, limit (1), index and the rest of `judged`."""
    out = []
    for block, questions in splits.items():
        for split in [s for s in questions if s.about.startswith("task")]:
            found = judged(split, distance, permutations, seed)
            out.append(dict(block=block, about=split.about, limit=1.0, index=found.pop("value"), **found))
    return pd.DataFrame(out)


def beyond_null(table: pd.DataFrame, value: str = "bits", seed: int = 0) -> pd.DataFrame:
    """What groups tell beyond their null, as a share of what they could tell: in every run, and in the mean over runs, which is tested.

    Bits about two tasks and about seven emotions have other limits, and samples of other sizes lift them by other amounts. A value less
    the mean of its null, over its limit, can be compared. All runs must have been given the same permutations and resamples.

    Args:
        table: of `specificity_table` or `index_table`, runs stacked, with a column seed.
        value: "bits" or "index".
        seed: of the draws of runs.
    Returns:
        the table without null and boot, with beyond (% of the limit, negative below the null's mean) and, alike in all rows of a block and
        question, mean (over runs), mean_low, mean_high (95 %: people and runs drawn again), null_top (95th percentile of the mean's null, less its
        mean) and p_holm (one-sided, over all blocks and questions).
    """
    out = []
    for _, part in table.groupby(["block", "about"], sort=False):
        scale = 100 / part.limit.to_numpy() if part.limit.all() else np.full(len(part), np.nan)       # a single group has nothing to tell
        null, boot = (np.stack(list(part[c])) * scale[:, None] for c in ("null", "boot"))             # [S, R]
        beyond = part[value].to_numpy() * scale - null.mean(1)
        runs = draws(len(part), boot.shape[1], np.random.default_rng(seed))
        again = (runs.T * (beyond[:, None] + boot - boot.mean(1, keepdims=True))).sum(0) / runs.sum(1)
        low, high = (np.nan, np.nan) if np.isnan(again).any() else interval(again)
        chance = null.mean(0) - null.mean()
        p = (1 + (chance >= beyond.mean() - 1e-9).sum()) / (1 + len(chance)) if part.limit.all() else np.nan
        out.append(part.drop(columns=["null", "boot"]).assign(beyond=beyond, mean=beyond.mean(), mean_low=low, mean_high=high,
                                                              null_top=np.percentile(chance, 95), p_holm=p))
    found = pd.concat(out, ignore_index=True)
    tests = found.drop_duplicates(["block", "about"]).dropna(subset="p_holm")
    corrected = tests.assign(p_holm=holm(tests.p_holm.to_numpy()))[["block", "about", "p_holm"]]
    return found.drop(columns="p_holm").merge(corrected, on=["block", "about"], how="left")


def permutations_for(tests: int, level: float = 0.05) -> int:
    """So many permutations that the smallest p, 1 / (1 + permutations), can outlast Holm's correction over all tests."""
    return int(np.ceil(tests / level))


def usage_table(splits: dict[int, list[Split]], resamples: int = 500) -> pd.DataFrame:
    """Share of the assignments that each expert takes in each group.

    Args:
        splits: block number (from 1) -> of `splits_of`; places and the first time step are left out.
    Returns:
        tidy table: block, task, by ("task", "emotion", "region", "phase"), group, expert, share (sums to 1 over experts), low, high
        (95 % over people), samples, difference from the other groups of the same question taken together (missing where there is none) and
        difference_low, difference_high.
    """
    out = []
    for block, questions in splits.items():
        for s in [s for s in questions if not s.about.startswith(("place", "task, first"))]:
            times = weights_of(len(s.sums), resamples)
            found = usage_and_difference(s.sums.sum(0), s.counts.sum(0))
            drawn = usage_and_difference(np.tensordot(times, s.sums, 1), times @ s.counts)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)                # a single person or group has no limits: all are missing
                limits = [np.nanpercentile(d, [2.5, 97.5], axis=0) for d in drawn]
            by, _, task = s.about.partition(", ")
            for v, e in np.ndindex(found[0].shape):
                share, difference = ((value[v, e], *limit[:, v, e]) for value, limit in zip(found, limits))
                out.append((block, task or s.names[v], by, s.names[v], e + 1, *share, int(s.samples[v]), *difference))
    return pd.DataFrame(out, columns=["block", "task", "by", "group", "expert", "share", "low", "high", "samples", "difference",
                                      "difference_low", "difference_high"])


def usage_and_difference(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Usage of each group `[..., V, E]`, and how far it is from that of all other groups together; missing where nobody shows one."""
    usage = lambda sums, counts: sums / np.where(counts > 1e-9, counts, np.nan)[..., None]
    own = usage(sums, counts)
    return own, own - usage(sums.sum(-2, keepdims=True) - sums, counts.sum(-1, keepdims=True) - counts)


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


def map_agreement(photo: Tensor, clip: Tensor, grids: dict[str, tuple], units: dict[str, np.ndarray]) -> dict[str, float]:
    """Whether experts lie at the same places in photos and in clips: correlation of the two sets of maps, over all experts and places.

    Each expert's mean gate is taken off first, so that it is the places that agree, and not how busy the experts are.

    Args:
        photo, clip: gates `[N, L, E]`.
        grids: task -> tokens along time, rows, columns.
        units: task -> `[N]`, people.
    Returns:
        agreement (Pearson's r), agreement_low, agreement_high (95 %, jackknife over people of both kinds; missing with fewer than two).
    """
    maps = [g.double().view(len(g), grids[t][0], -1, g.shape[-1]).mean(1).numpy() for t, g in (("image", photo), ("video", clip))]

    def correlation(kept: np.ndarray) -> float:
        means = [m[k].mean(0) for m, k in zip(maps, (kept[kept < len(photo)], kept[kept >= len(photo)] - len(photo)))]
        return np.corrcoef(*[(m - m.mean(0)).ravel() for m in means])[0, 1]
    everybody = np.concatenate([units["image"], units["video"] + len(photo)])
    r = correlation(np.arange(len(everybody)))
    half = float(jackknife(correlation, everybody))
    return dict(agreement=r, agreement_low=max(-1.0, r - half), agreement_high=min(1.0, r + half))


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
    That every one beats it asks for no correction; that most do is a description.

    Args:
        pairs: of `seed_agreement`, tasks stacked.
    """
    if pairs.empty:
        return "unknown"
    closed = ((pairs.matched - pairs.null_mean) / (1 - pairs.null_mean)).mean()
    beats = pairs.p <= 0.05
    return "stable" if beats.all() and closed > 0.5 else "partly" if beats.mean() > 0.5 else "unstable"


def spans(table: pd.DataFrame, by: list[str], formats: dict[str, str]) -> pd.DataFrame:
    """Mean over runs with the smallest and largest in brackets, as text, one row a group.

    Args:
        by: columns that name a group.
        formats: column -> format of its numbers, as in {"share": ".1%"}.
    """
    def text(values: pd.Series, form: str) -> str:
        mean, low, high = (format(v, form).replace("%", " %") for v in (values.mean(), values.min(), values.max()))
        return mean if low == high else f"{mean} ({low} to {high})"
    rows = [[*name, *(text(part[c], form) for c, form in formats.items())] for name, part in table.groupby(by, sort=False)]
    return pd.DataFrame(rows, columns=[*by, *formats])


def stability_as_read(pairs: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """`seed_agreement`, tasks stacked, as it is printed: one row a block and task, p the largest of its pairs, after Holm over the rows.

    A permutation p is never below 1 / (1 + permutations), so it is printed as a limit.

    Args:
        kinds: task -> its name.
    """
    rows = spans(pairs, ["block", "task"], {"matched": ".0%", "agreement": ".2f"})
    worst = pairs.groupby(["block", "task"], sort=False)[["null_95", "p"]].max()
    p = [f"\N{LESS-THAN OR EQUAL TO} {v:.3f}" for v in holm(worst.p.to_numpy())]
    return pd.DataFrame({"block": rows.block, "task": rows.task.map(kinds), "matched": rows.matched,
                         "null, 95 %": [f"{100 * v:.0f} %" for v in worst.null_95], "adjusted mutual information": rows.agreement, "p (Holm)": p})
