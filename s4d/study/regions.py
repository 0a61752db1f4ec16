"""What a token shows: the region of the face that it lies on, and the phase of the expression at its time."""
from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from ..config import Faces, Finetune
from ..data.transforms import test_indices
from ..faces import facs, render, subjects, views
from ..models.tokens import TUBELET_SIZE

REGIONS = ("brows", "eyes", "nose", "mouth", "other")
MOVERS = {"brows": (1, 2, 4), "eyes": (5, 6, 7, 43), "mouth": facs.MOUTH, "nose": (9,)}      # actions that move a region
SEEN = 0.2              # share of a region's largest change from which a pixel belongs to it
BLUR = 1.5              # pixels (standard deviation): regions without specks
SIDE, WHO = 64, 2       # pixels a side and people of the faces on which the actions are tried
PHASES = ("onset", "apex", "offset")


@lru_cache
def region_map(zoom: float = Faces.zoom) -> np.ndarray:
    """Which region each pixel of an aligned frontal face belongs to.

    Every action is performed alone; a region is where its actions change the picture, relative to where they change it most.
    The nose wrinkler also pulls the brows and the lip, so the nose gets what the other regions leave.

    Args:
        zoom: framing of the faces. Licensed faces are taken to be aligned like the embedded ones.
    Returns:
        int `[SIDE, SIDE]`, an index into REGIONS.
    """
    who, scene = subjects(WHO, seed=0, glasses=0, beard=0), views(WHO, zoom=zoom)
    draw = lambda spec: render(who, np.repeat(facs.sheet(spec)[None], WHO, 0), scene, SIDE).float()
    still = draw({})
    out = np.full((SIDE, SIDE), REGIONS.index("other"))
    change = lambda action: (draw({action: 1.0}) - still).abs().mean((0, 1)).numpy()
    changes = {name: gaussian_filter(np.mean([change(a) for a in actions], 0), BLUR) for name, actions in MOVERS.items()}
    shares = {name: c / np.percentile(c, 99) for name, c in changes.items()}
    nose = shares.pop("nose")
    most = np.stack(list(shares.values()))
    free = most.max(0) < SEEN
    out[~free] = np.array([REGIONS.index(n) for n in shares])[most.argmax(0)][~free]
    out[free & (nose >= SEEN)] = REGIONS.index("nose")
    return out


def region_weights(grid: tuple[int, int, int], zoom: float = Faces.zoom) -> np.ndarray:
    """Share of each token's pixels that lie in each region.

    A token of a coarse grid may hold brow and eye alike; it then counts for both, in parts.

    Args:
        grid: tokens along time, rows, columns; time is not read.
    Returns:
        float64 `[5, rows * columns]`, columns sum to 1.
    """
    inside = torch.from_numpy(region_map(zoom)[None] == np.arange(len(REGIONS))[:, None, None]).double()
    return F.adaptive_avg_pool2d(inside, grid[1:]).flatten(1).numpy()


def phase_weights(folder, rows: pd.DataFrame, cfg: Finetune) -> np.ndarray | None:
    """Share of each time step's frames that lie in each phase, from the truth of a procedural corpus.

    Frames at rest, before and after an expression and in neutral clips, belong to no phase.

    Args:
        folder: of the corpus; None for licensed data, whose phases nobody knows.
        rows: table of clips, as `stimuli.subset` gives it with the same configuration.
        cfg: tells which frames of a clip the model sees.
    Returns:
        float64 `[N, 3, T / 2]`, or None without truth.
    """
    if folder is None:
        return None
    from ..faces.corpus import truth
    known = truth(folder)
    known = known[known["corpus"] == "dfew"]
    courses = dict(tuple(known.assign(path=known["path"].str.removeprefix("dfew/")).sort_values("frame").groupby("path")["phase"]))
    return np.stack([steps_of(courses[path].to_numpy(), cfg.num_frames, cfg.sampling_rate) for path in rows.path])


def steps_of(phase: np.ndarray, frames: int, stride: int) -> np.ndarray:
    """One clip's phases by time step of its central view: names of all frames -> `[3, frames / 2]`."""
    seen = phase[test_indices(len(phase), frames, stride, 1)[0]]
    member = (seen[None] == np.array(PHASES)[:, None]).astype(float)
    return member.reshape(len(PHASES), -1, TUBELET_SIZE).mean(-1)
