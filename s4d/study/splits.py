"""Usage of the experts counted by group: task, emotion, region of the face, place, phase; each with its null model and its people."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from .intervals import sums_of, units_of
from .regions import PHASES, REGIONS


def token_usage(gates: Tensor) -> np.ndarray:
    """Share of each token's assignments that each expert takes: gates `[N, L, E]` -> `[N, L, E]`, last axis sums to 1."""
    chosen = (gates > 0).double()
    return (chosen / chosen.sum(-1, keepdim=True).clamp(min=1)).numpy()


def sample_usage(gates: Tensor) -> np.ndarray:
    """Share of a sample's assignments that each expert takes: gates `[N, L, E]` -> `[N, E]`, rows sum to 1."""
    chosen = (gates > 0).double().sum(1)
    return (chosen / chosen.sum(1, keepdim=True).clamp(min=1)).numpy()


@dataclass(frozen=True)
class Split:
    """Usage of the experts, summed by person and group. U people, V groups, E experts.

    A group is a task, an emotion, a region of the face or a phase; weights may be parts, as for a token between two regions.
    """

    about: str
    names: tuple[str, ...]           # of the groups
    sums: np.ndarray                 # [U, V, E] usage times weight
    counts: np.ndarray               # [U, V] weight
    null: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]   # sums [V, E] and counts [V] with the groups dealt anew
    samples: np.ndarray              # [V] photos or clips that a group was seen in


def group_split(about: str, usage: np.ndarray, groups: np.ndarray, units: np.ndarray, whole: bool) -> Split:
    """Samples that belong to one group each.

    Args:
        usage: `[N, E]` of `sample_usage`.
        groups: `[N]`, task or emotion.
        units: `[N]`, people.
        whole: the null deals groups to whole people (a person has one group, as with tasks). Else it deals them among the samples of each
            person (as with emotions), and among all people of whom there is one sample.
    """
    names, group = np.unique(groups, return_inverse=True)
    unit = np.unique(units, return_inverse=True)[1]
    first, size = np.unique(unit, return_index=True)[1], np.bincount(unit)
    onehot = np.eye(len(names))
    pool = np.where(size[unit] > 1, unit, -1)
    home = np.argsort(pool, kind="stable")

    def null(rng: np.random.Generator):
        if whole:
            dealt = rng.permutation(group[first])[unit]
        else:
            dealt = np.empty_like(group)
            dealt[home] = group[np.lexsort((rng.random(len(pool)), pool))]
        return onehot[dealt].T @ usage, np.bincount(dealt, minlength=len(names))
    member = onehot[group]
    return Split(about, tuple(map(str, names)), sums_of(member[:, :, None] * usage[:, None], unit), sums_of(member, unit), null,
                 np.bincount(group))


def place_split(about: str, gates: Tensor, grid: tuple[int, int, int], units: np.ndarray, weights: np.ndarray | None = None) -> Split:
    """Places on the face, averaged over the time steps.

    The null of places moves the tokens of every sample at random. That of regions moves the regions: they must tell more than an
    equally large random grouping of places would.

    Args:
        gates: `[N, L, E]`.
        grid: tokens along time, rows, columns.
        units: `[N]`, people.
        weights: `[V, places]` of `regions.region_weights`; None: each place is a group.
    """
    n, _, e = gates.shape
    usage = token_usage(gates).reshape(n, grid[0], -1, e).mean(1)                            # [N, places, E]
    places = usage.shape[1]
    member = np.eye(places) if weights is None else weights
    names = tuple(map(str, range(1, places + 1))) if weights is None else REGIONS
    mean = usage.sum(0)

    def null(rng: np.random.Generator):
        if weights is None:
            order = rng.random((n, places)).argsort(1)
            return np.take_along_axis(usage, order[..., None], 1).sum(0), np.full(places, float(n))
        moved = member[:, rng.permutation(places)]
        return moved @ mean, n * moved.sum(1)
    unit = np.unique(units, return_inverse=True)[1]
    counts = np.bincount(unit)[:, None] * member.sum(1)
    return Split(about, names, np.einsum("vp,upe->uve", member, sums_of(usage, unit)), counts, null, np.full(len(names), n))


def phase_split(about: str, gates: Tensor, grid: tuple[int, int, int], units: np.ndarray, weights: np.ndarray) -> Split:
    """Phases of the expression, by time step of clips, averaged over the face.

    Onset comes early and offset late, and a router may read the time. The null therefore deals whole courses of phases to other
    clips: what the time step alone explains stays in it.

    Args:
        gates: `[N, L, E]`.
        grid: tokens along time, rows, columns.
        units: `[N]`, people.
        weights: `[N, 3, time steps]` of `regions.phase_weights`.
    """
    shown = weights.sum((1, 2)) > 0                                                          # a neutral clip has no phases
    gates, units, weights = gates[shown], np.asarray(units)[shown], weights[shown]
    usage = token_usage(gates).reshape(len(gates), grid[0], -1, gates.shape[-1]).mean(2)     # [N, steps, E]

    def null(rng: np.random.Generator):
        dealt = weights[rng.permutation(len(weights))]
        return np.einsum("nvt,nte->ve", dealt, usage), dealt.sum((0, 2))
    unit = np.unique(units, return_inverse=True)[1]
    return Split(about, PHASES, sums_of(np.einsum("nvt,nte->nve", weights, usage), unit), sums_of(weights.sum(2), unit), null,
                 (weights.sum(2) > 0).sum(0))


def splits_of(photo: Tensor, clip: Tensor, rows: dict[str, pd.DataFrame], grids: dict[str, tuple], regions: np.ndarray,
              phases: np.ndarray | None = None) -> list[Split]:
    """Every question about one block.

    The task is also read on the clips' first time step alone: a photo has the positions of time step 0, so a router that
    merely reads positions would look task-specific when all time steps of a clip are counted.

    Args:
        photo, clip: gates of photos and clips.
        rows: {"image": table, "video": table} with label and subject.
        grids: {"image": grid, "video": grid}, tokens along time, rows, columns.
        regions: `regions.region_weights`.
        phases: `regions.phase_weights`; None where the phases are unknown.
    """
    units = {t: units_of(r.subject) for t, r in rows.items()}
    task = np.repeat(["image", "video"], [len(rows["image"]), len(rows["video"])])
    both = np.concatenate([units["image"], units["video"] + len(rows["image"])])             # nobody is in both corpora
    usage = {about: np.concatenate([sample_usage(photo), sample_usage(seen)])
             for about, seen in (("task", clip), ("task, first time step", clip[:, :photo.shape[1]]))}
    out = [group_split(about, u, task, both, True) for about, u in usage.items()]
    for name, gates in (("image", photo), ("video", clip)):
        out += [group_split(f"emotion, {name}", sample_usage(gates), rows[name].label.to_numpy(), units[name], False),
                place_split(f"region, {name}", gates, grids[name], units[name], regions),
                place_split(f"place, {name}", gates, grids[name], units[name])]
    if phases is not None and phases.any():
        out.append(phase_split("phase, video", clip, grids["video"], units["video"], phases))
    return out
