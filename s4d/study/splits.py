"""Usage of the experts counted by group: task, emotion, place on the face."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from .stats import sums_of, units_of


def usage_of(gates: Tensor, by_token: bool = False) -> np.ndarray:
    """Share of each sample's, or token's, assignments by expert, from gates `[N, L, E]`."""
    chosen = (gates > 0).double()
    chosen = chosen if by_token else chosen.sum(1)
    return (chosen / chosen.sum(-1, keepdim=True).clamp(min=1)).numpy()


@dataclass(frozen=True)
class Split:
    """Usage of the experts, summed by subject and group. U subjects, V groups, E experts."""

    about: str
    names: tuple[str, ...]           # of the groups
    sums: np.ndarray                 # [U, V, E] usage times weight
    counts: np.ndarray               # [U, V] weight
    null: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]     # sums, counts permuted
    samples: np.ndarray              # [V] photos or clips that a group was seen in

    @property
    def limit(self) -> float:
        """Largest possible bits."""
        return np.log2(min(self.sums.shape[2], (self.counts.sum(0) > 0).sum()))


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
    sums = sums_of(member[:, :, None] * usage[:, None], unit)
    names = tuple(map(str, names))
    return Split(about, names, sums, sums_of(member, unit), null, np.bincount(group))


def place_split(about: str, gates: Tensor, grid: tuple[int, int, int], units: np.ndarray) -> Split:
    """Split places on the face, averaged over the time steps; gates `[N, L, E]`.

    The null permutes the places of every sample.
    """
    n, _, experts = gates.shape
    usage = usage_of(gates, True).reshape(n, grid[0], -1, experts).mean(1)           # [N, P, E]
    places = usage.shape[1]

    def null(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        order = rng.random((n, places)).argsort(1)
        moved = np.take_along_axis(usage, order[..., None], 1)
        return moved.sum(0), np.full(places, float(n))
    unit = np.unique(units, return_inverse=True)[1]
    counts = np.bincount(unit)[:, None] * np.ones(places)
    names = tuple(map(str, range(1, places + 1)))
    return Split(about, names, sums_of(usage, unit), counts, null, np.full(places, n))


def splits_of(photo: Tensor, clip: Tensor, rows: dict[str, pd.DataFrame],
              grids: dict[str, tuple]) -> list[Split]:
    """Ask every question about one block, from the gates of photos and clips.

    The task is also read on the clips' first time step alone: a photo has the positions of time
    step 0, so a router that merely reads positions would look task-specific on whole clips.
    """
    units = {t: units_of(r.subject) for t, r in rows.items()}
    task = np.repeat(["image", "video"], [len(rows["image"]), len(rows["video"])])
    both = np.concatenate([units["image"], units["video"] + len(rows["image"])])
    out = []
    for about, seen in (("task", clip), ("task, first time step", clip[:, :photo.shape[1]])):
        usage = np.concatenate([usage_of(photo), usage_of(seen)])
        out.append(group_split(about, usage, task, both, whole=True))
    for name, gates in (("image", photo), ("video", clip)):
        labels, unit = rows[name].label.to_numpy(), units[name]
        out += [group_split(f"emotion, {name}", usage_of(gates), labels, unit, whole=False),
                place_split(f"place, {name}", gates, grids[name], unit)]
    return out
