"""Usage of the experts counted by group: task, emotion, region of the face, place, phase."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ..config import Faces, Finetune
from ..data.transforms import test_indices
from ..faces import facs, render, subjects, views
from ..models.tokens import TUBELET_SIZE
from .intervals import sums_of, units_of
from .stimuli import clip_truth

REGIONS = ("brows", "eyes", "nose", "mouth", "other")
MOVERS = {"brows": (1, 2, 4), "eyes": (5, 6, 7, 43), "mouth": facs.MOUTH, "nose": (9,)}  # actions
SEEN = 0.2              # share of a region's largest change from which a pixel belongs to it
BLUR = 1.5              # pixels (standard deviation): regions without specks
SIDE, WHO = 64, 2       # pixels a side and subjects on whom the actions are tried
PHASES = ("onset", "apex", "offset")


@lru_cache
def region_map(zoom: float = Faces.zoom) -> np.ndarray:
    """Region of each pixel of an aligned frontal face, int `[SIDE, SIDE]`, an index into REGIONS.

    A region is where its actions, each alone, change the picture most. The nose wrinkler also
    pulls brows and lip, so the nose gets what the other regions leave.
    """
    who, scene = subjects(WHO, seed=0, glasses=0, beard=0), views(WHO, zoom=zoom)

    def draw(actions: dict) -> Tensor:
        return render(who, np.repeat(facs.sheet(actions)[None], WHO, 0), scene, SIDE).float()
    still, shares = draw({}), {}
    for name, actions in MOVERS.items():
        changes = [(draw({a: 1.0}) - still).abs().mean((0, 1)).numpy() for a in actions]
        change = gaussian_filter(np.mean(changes, 0), BLUR)
        shares[name] = change / np.percentile(change, 99)
    nose = shares.pop("nose")
    most = np.stack(list(shares.values()))
    free = most.max(0) < SEEN
    out = np.full((SIDE, SIDE), REGIONS.index("other"))
    out[~free] = np.array([REGIONS.index(n) for n in shares])[most.argmax(0)][~free]
    out[free & (nose >= SEEN)] = REGIONS.index("nose")
    return out


def region_weights(grid: tuple[int, int, int], zoom: float = Faces.zoom) -> np.ndarray:
    """Share of each token's pixels in each region, `[5, rows * columns]`, columns sum to 1."""
    inside = torch.from_numpy(region_map(zoom)[None] == np.arange(len(REGIONS))[:, None, None])
    return F.adaptive_avg_pool2d(inside.double(), grid[1:]).flatten(1).numpy()


def phase_weights(folder, rows: pd.DataFrame, cfg: Finetune) -> np.ndarray | None:
    """Share of each time step's frames in each phase, `[N, 3, T / 2]`; none of those at rest.

    The phases are those of a corpus' truth in its folder: None for licensed data.
    """
    if folder is None:
        return None
    known = clip_truth(folder).sort_values("frame")
    phases, out = dict(tuple(known.groupby("path")["phase"])), []
    for phase in (phases[path].to_numpy() for path in rows.path):
        seen = phase[test_indices(len(phase), cfg.num_frames, cfg.sampling_rate, 1)[0]]
        member = (seen[None] == np.array(PHASES)[:, None]).astype(float)
        out.append(member.reshape(len(PHASES), -1, TUBELET_SIZE).mean(-1))
    return np.stack(out)


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
        counts = np.bincount(dealt, minlength=len(names))
        return np.eye(len(names))[dealt].T @ usage, counts
    sums = sums_of(member[:, :, None] * usage[:, None], unit)
    names = tuple(map(str, names))
    return Split(about, names, sums, sums_of(member, unit), null, np.bincount(group))


def place_split(about: str, gates: Tensor, grid: tuple[int, int, int], units: np.ndarray,
                weights: np.ndarray | None = None) -> Split:
    """Split places on the face, averaged over the time steps; gates `[N, L, E]`.

    Without weights each place is a group, and the null permutes the tokens of every sample. With
    those of `region_weights` it moves the regions, which must tell more than a random grouping.
    """
    n, _, e = gates.shape
    usage = usage_of(gates, True).reshape(n, grid[0], -1, e).mean(1)                 # [N, P, E]
    places, mean = usage.shape[1], usage.sum(0)
    member = np.eye(places) if weights is None else weights
    names = tuple(map(str, range(1, places + 1))) if weights is None else REGIONS

    def null(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if weights is None:
            order = rng.random((n, places)).argsort(1)
            moved = np.take_along_axis(usage, order[..., None], 1)
            return moved.sum(0), np.full(places, float(n))
        moved = member[:, rng.permutation(places)]
        return moved @ mean, n * moved.sum(1)
    unit = np.unique(units, return_inverse=True)[1]
    counts = np.bincount(unit)[:, None] * member.sum(1)
    sums = np.einsum("vp,upe->uve", member, sums_of(usage, unit))
    return Split(about, names, sums, counts, null, np.full(len(names), n))


def phase_split(about: str, gates: Tensor, grid: tuple[int, int, int], units: np.ndarray,
                weights: np.ndarray) -> Split:
    """Split phases of the expression, by time step of clips, averaged over the face.

    Onset comes early, and a router may read the time: the null gives whole courses of phases to
    other clips, so that what the time step alone explains stays in it.
    """
    shown = weights.sum((1, 2)) > 0                                  # a neutral clip has no phases
    gates, weights = gates[shown], weights[shown]
    unit = np.unique(np.asarray(units)[shown], return_inverse=True)[1]
    steps = gates.shape[0], grid[0], -1, gates.shape[-1]
    usage = usage_of(gates, True).reshape(steps).mean(2)                             # [N, T, E]

    def null(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        dealt = weights[rng.permutation(len(weights))]
        return np.einsum("nvt,nte->ve", dealt, usage), dealt.sum((0, 2))
    counts = weights.sum(2)
    sums = sums_of(np.einsum("nvt,nte->nve", weights, usage), unit)
    return Split(about, PHASES, sums, sums_of(counts, unit), null, (counts > 0).sum(0))


def splits_of(photo: Tensor, clip: Tensor, rows: dict[str, pd.DataFrame], grids: dict[str, tuple],
              regions: np.ndarray, phases: np.ndarray | None = None) -> list[Split]:
    """Ask every question about one block, from the gates of photos and clips.

    The task is also read on the clips' first time step alone: a photo has the positions of time
    step 0, so a router that merely reads positions would look task-specific on whole clips.
    regions, phases: of `region_weights` and `phase_weights`.
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
                place_split(f"region, {name}", gates, grids[name], unit, regions),
                place_split(f"place, {name}", gates, grids[name], unit)]
    if phases is not None and phases.any():
        out.append(phase_split("phase, video", clip, grids["video"], units["video"], phases))
    return out
