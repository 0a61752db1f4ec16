"""Which expert serves whom, in bits and between seeds, who misses one, and two ways to route.

Gates are kept by block index, from 0; the tables number blocks and experts from 1.
"""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from . import stats
from .stimuli import Routes, probabilities, record_routing

Grid = tuple[int, int, int]      # tokens along time, rows, columns
MODES = {"paper": (None, False), "noise only": (None, True), "capacity only": (1.0, False),
         "released": (1.0, True)}             # capacity factor and noise in evaluation


@dataclass(frozen=True)
class Split:
    """Usage of the experts, summed by subject and group. U subjects, V groups, E experts."""

    about: str                       # task; emotion or place, with the task after a comma
    names: tuple[str, ...]           # of the groups
    sums: np.ndarray                 # [U, V, E] usage times weight
    counts: np.ndarray               # [U, V] weight
    null: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]     # sums, counts permuted
    samples: np.ndarray              # [V] photos or clips that a group was seen in

    @property
    def limit(self) -> float:
        """Largest possible bits."""
        return np.log2(min(self.sums.shape[2], (self.counts.sum(0) > 0).sum()))


Questions = dict[int, list[Split]]             # block number (from 1) -> of `splits_of`


def usage_of(gates: Tensor) -> np.ndarray:
    """Share of each sample's assignments by expert, from gates `[N, L, E]`."""
    chosen = (gates > 0).double().sum(1)
    return (chosen / chosen.sum(-1, keepdim=True).clamp(min=1)).numpy()


def group_split(about: str, usage: np.ndarray, groups: np.ndarray, units: np.ndarray,
                whole: bool) -> Split:
    """Split samples that belong to one group each, with usage `[N, E]`.

    The null permutes the groups of whole subjects, who have one group each (tasks); else those of
    each subject's samples (emotions), with all single samples in one pool.
    """
    names, group = np.unique(groups, return_inverse=True)
    _, first, unit, size = np.unique(units, return_index=True, return_inverse=True,
                                     return_counts=True)
    member = np.eye(len(names))[group]
    pool = np.where(size[unit] > 1, unit, -1)
    home = np.argsort(pool, kind="stable")

    def null(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if whole:
            dealt = rng.permutation(group[first])[unit]
        else:
            dealt = np.empty_like(group)
            dealt[home] = group[np.lexsort((rng.random(len(pool)), pool))]
        return np.eye(len(names))[dealt].T @ usage, np.bincount(dealt, minlength=len(names))
    sums = stats.sums_of(member[:, :, None] * usage[:, None], unit)
    names = tuple(map(str, names))
    return Split(about, names, sums, stats.sums_of(member, unit), null, np.bincount(group))


def place_split(about: str, gates: Tensor, grid: Grid, units: np.ndarray) -> Split:
    """Split places on the face, averaged over the time steps; gates `[N, L, E]`.

    The null permutes the places of every sample.
    """
    n, _, experts = gates.shape
    usage = usage_of(gates.reshape(-1, 1, experts))                                  # of tokens
    usage = usage.reshape(n, grid[0], -1, experts).mean(1)                           # [N, P, E]
    places = usage.shape[1]

    def null(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        order = rng.random((n, places)).argsort(1)
        moved = np.take_along_axis(usage, order[..., None], 1)
        return moved.sum(0), np.full(places, float(n))
    names = tuple(str(place + 1) for place in range(places))
    counts = np.bincount(units)[:, None] * np.ones(places)
    return Split(about, names, stats.sums_of(usage, units), counts, null, np.full(places, n))


def splits_of(photo: Tensor, clip: Tensor, rows: dict[str, pd.DataFrame],
              grids: dict[str, Grid]) -> list[Split]:
    """Ask every question about one block that has an answer, from the gates of photos and clips.

    The task is also read on the clips' first time step alone: a photo has the positions of time
    step 0, so a router that merely reads positions would look task-specific on whole clips.
    """
    units = {t: stats.units_of(r.subject) for t, r in rows.items()}
    task = np.repeat(["image", "video"], [len(photo), len(clip)])
    both = np.concatenate([units["image"], units["video"] + len(photo)])
    out = []
    for about, seen in (("task", clip), ("task, first time step", clip[:, :photo.shape[1]])):
        usage = np.concatenate([usage_of(photo), usage_of(seen)])
        out.append(group_split(about, usage, task, both, whole=True))
    for name, gates in (("image", photo), ("video", clip)):
        labels, unit = rows[name].label.to_numpy(), units[name]
        out += [group_split(f"emotion, {name}", usage_of(gates), labels, unit, whole=False),
                place_split(f"place, {name}", gates, grids[name], unit)]
    return [split for split in out if split.limit > 0]


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
        weights = stats.weights_of(len(split.sums), resamples)
        share, difference = measured(split.sums.sum(0), split.counts.sum(0))
        drawn = measured(np.tensordot(weights, split.sums, 1), weights @ split.counts)[1]
        low, high = np.nanquantile(drawn, stats.LIMITS, axis=0)
        rows += [(block, task or split.names[v], by, split.names[v], e + 1, share[v, e],
                  int(split.samples[v]), difference[v, e], low[v, e], high[v, e])
                 for v, e in np.ndindex(share.shape)]
    return pd.DataFrame(rows, columns=["block", "task", "by", "group", "expert", "share", "samples",
                                       "difference", "difference_low", "difference_high"])


def information(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mutual information `[...]` between expert and group, in bits, every group weighing the same.

    It is the Jensen-Shannon divergence of the groups' usage: 0 when all use the experts alike,
    log2 of the number of groups when no expert is shared.

    `sums`: usage times weight `[..., V, E]`; `counts`: weight `[..., V]`, 0 for an empty group.
    """
    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)
    usage = sums / np.where(counts > 0, counts, 1)[..., None]
    present = (counts > 0).astype(float)
    weight = present / np.maximum(present.sum(-1, keepdims=True), 1)
    return entropy((weight[..., None] * usage).sum(-2)) - (weight * entropy(usage)).sum(-1)


def specificity_table(runs: dict[int, Questions], permutations: int = 500,
                      seed: int = 0) -> pd.DataFrame:
    """Bits that the groups of every question tell about the expert of every block, by run.

    Questions have other limits, and few samples lift bits. Bits less the mean of their null, over
    their limit, can be compared. Runs share permutations and resamples.

    `runs`: seed of a run -> its questions.
    Returns: block, about, limit, bits, null_mean, people, seed, beyond (bits beyond the null, % of
    the limit) and, of a block's question, mean (over runs), mean_low, mean_high (95 % over subjects
    and runs), null_top (95th percentile of the mean's null) and p_holm (one-sided, over all).
    """
    first, out, p = next(iter(runs.values())), [], []
    for block, question in [(b, q) for b, splits in first.items() for q in range(len(splits))]:
        rows, null, boot = [], [], []
        for run, questions in runs.items():
            split, rng = questions[block][question], np.random.default_rng(seed)
            people, scale = len(split.sums), 100 / split.limit
            bits = float(information(split.sums.sum(0), split.counts.sum(0)))
            permuted = np.array([information(*split.null(rng)) for _ in range(permutations)])
            weights = stats.weights_of(people, permutations, seed)
            again = information(np.tensordot(weights, split.sums, 1), weights @ split.counts)
            null.append(scale * permuted)
            boot.append(scale * again)
            rows.append(dict(block=block, about=split.about, limit=split.limit, bits=bits,
                             null_mean=permuted.mean(), people=people, seed=run,
                             beyond=scale * bits - null[-1].mean()))
        rows, null, boot = pd.DataFrame(rows), np.stack(null), np.stack(boot)            # [S, R]
        moved = rows.beyond.to_numpy()[:, None] + boot - boot.mean(1, keepdims=True)
        weights = stats.draws(len(runs), permutations, seed)                             # [R, S]
        low, high = stats.interval((weights.T * moved).sum(0) / weights.sum(1))
        chance, mean = null.mean(0) - null.mean(), rows.beyond.mean()
        p.append(stats.permutation_p(chance, mean, slack=1e-9))
        out.append(rows.assign(mean=mean, mean_low=low, mean_high=high,
                               null_top=np.percentile(chance, 95)))
    return pd.concat(out, ignore_index=True).assign(p_holm=np.repeat(stats.holm(p), len(runs)))


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
    half = float(stats.jackknife(correlation, everybody)[1])
    return dict(agreement=r, agreement_low=max(-1.0, r - half), agreement_high=min(1.0, r + half))


def seed_agreement(routes: dict[int, Routes], permutations: int = 100) -> pd.DataFrame:
    """Test whether two runs divide the same tokens alike, whatever numbers their experts have.

    matched is the share of the tokens whose leading experts are matched (Hungarian method); its
    null permutes samples and places of one run. `routes`: seed -> gates of the same stimuli.
    """
    def matched_share(a: np.ndarray, b: np.ndarray, experts: int) -> float:
        both = np.bincount((a * experts + b).ravel(), minlength=experts * experts)
        both = both.reshape(experts, experts)
        return float(both[linear_sum_assignment(-both)].sum() / a.size)
    rng, rows = np.random.default_rng(0), []
    for one, other in combinations(sorted(routes), 2):
        for block, gates in routes[one].items():
            a, b = (routes[s][block].argmax(-1).numpy() for s in (one, other))
            experts, null = gates.shape[-1], []
            for _ in range(permutations):
                moved = b[rng.permutation(len(b))][:, rng.permutation(b.shape[1])]
                null.append(matched_share(a, moved, experts))
            null, matched = np.array(null), matched_share(a, b, experts)
            rows.append((block + 1, one, other, matched, null.mean(), np.percentile(null, 95),
                         stats.permutation_p(null, matched), a.size))
    return pd.DataFrame(rows, columns=["block", "seed_a", "seed_b", "matched", "null_mean",
                                       "null_95", "p", "tokens"])


@contextmanager
def without_expert(model: nn.Module, block: int, expert: int) -> Iterator[nn.Module]:
    """Inside the context the router of one block never chooses one expert (both from 0)."""
    bias = model.moae_layers()[block].router.bias.data
    before = bias[expert].clone()
    try:
        bias[expert] = -1e9
        yield model
    finally:
        bias[expert] = before


def cost_of_experts(model: nn.Module, x: Tensor, rows: pd.DataFrame, target: np.ndarray,
                    task: str) -> pd.DataFrame:
    """Probability of the true class without each expert in turn, minus that with all experts.

    Returns: block, expert, task, change (points; negative: it is missed), the rest of `cluster_t`.
    """
    def true_class() -> np.ndarray:
        return 100.0 * probabilities(model, x, task)[np.arange(len(target)), target]
    whole, out = true_class(), []
    for block, moae in model.moae_layers().items():
        for expert in range(moae.num_experts):
            with without_expert(model, block, expert):
                found = stats.cluster_t(true_class() - whole, rows.subject)
            out.append(dict(block=block + 1, expert=expert + 1, task=task,
                            change=found.pop("mean"), **found))
    return pd.DataFrame(out)


def compare_modes(model: nn.Module, x: Tensor, target: np.ndarray, task: str,
                  seed: int = 0) -> pd.DataFrame:
    """Two passes through each of MODES; the second in another sample order.

    Returns: task, mode, sample, correct (share of the two passes), changed (their predictions
    differ), shift (total variation distance of their probabilities), dropped (share of the
    assignments over the capacity limit).
    """
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    model, out = deepcopy(model), []                        # the caller's keeps its own mode
    layers = model.moae_layers()
    for mode, (capacity, noise) in MODES.items():
        model.set_routing(capacity_factor=capacity, noise=noise)
        with torch.random.fork_rng(), record_routing(model) as records:
            torch.manual_seed(seed)
            first = probabilities(model, x, task)
            second = np.empty_like(first)
            second[order.numpy()] = probabilities(model, x[order], task)
        passes = [(gates, layers[i].top_k) for i, batches in records.items() for gates in batches]
        kept = sum(int((gates > 0).sum()) for gates, _ in passes)
        asked = sum(gates[..., 0].numel() * top_k for gates, top_k in passes)
        answers = np.stack([first.argmax(1), second.argmax(1)])
        out.append(pd.DataFrame(dict(
            task=task, mode=mode, sample=range(len(x)), correct=(answers == target).mean(0),
            changed=(answers[0] != answers[1]).astype(float),
            shift=np.abs(first - second).sum(1) / 2, dropped=1 - kept / asked)))
    return pd.concat(out, ignore_index=True)


def modes_table(passes: pd.DataFrame, subjects: dict[str, pd.Series],
                resamples: int = 1000) -> pd.DataFrame:
    """Compare every routing mode of each task with the paper's, all in per cent.

    `passes`: of `compare_modes`, seeds and tasks stacked; `subjects`: of each task's samples.
    """
    measures, out = ["correct", "changed", "shift", "dropped"], []
    for task, part in passes.groupby("task", sort=False):
        mean = 100 * part.groupby(["mode", "sample"], sort=False)[measures].mean()
        for mode in MODES:
            found = mean.loc[mode]
            change = found.correct - mean.loc["paper"].correct
            war, *others = found.mean()
            out.append((task, mode, war, *stats.mean_interval(change, subjects[task], resamples),
                        *others))
    columns = ["task", "mode", "war", "change", "low", "high", *measures[1:]]
    return pd.DataFrame(out, columns=columns)
