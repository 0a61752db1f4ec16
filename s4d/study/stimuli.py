"""What the analyses show to a model: a fixed subset of photos, clips, single frames of clips, and the activations they cause."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..config import Finetune, update
from ..data import MediaError, read_clip
from ..data.dataset import Key, Samples, to_model
from ..data.transforms import normalise
from ..training.finetune import part, tables


class StimuliError(ValueError):
    """There is nothing that an analysis could use; the message says of which task and split."""


def choose(rows: int, limit: int, seed: int = 0) -> np.ndarray:
    """At most `limit` row numbers, drawn once and sorted: every model sees the same samples."""
    return np.sort(np.random.default_rng([seed, rows]).permutation(rows)[:limit])


def subset(cfg: Finetune, task: str, split: str = "test", limit: int = 280, seed: int = 0,
           unreadable: dict[str, str] | None = None) -> tuple[Tensor, pd.DataFrame]:
    """A random subset of one task's samples, one central view each.

    Args:
        cfg: any fine-tuning configuration of the profile; sources, size, frames and stride are read.
        task: "image" or "video".
        split: "train", "val" or "test".
        limit: largest number of samples.
        seed: of the draw.
        unreadable: gets {path: cause} of the drawn files that cannot be read, for `left_out` to name.
    Returns:
        uint8 `[N, 3, H, W]` or `[N, 3, T, H, W]`, and the table of the same N samples (path, label, subject, split).
        Files that cannot be read are left out.
    Raises:
        StimuliError: when no sample is left.
    """
    data = part(update(cfg, test_segments=1), task, tables(cfg)[task], split)
    kept, clips = [], []
    for row in choose(len(data), limit, seed):
        sample = data[Key(task, int(row), seed)]
        if "unreadable" in sample:
            if unreadable is not None:
                unreadable.update([sample["unreadable"]])
            continue
        kept.append(row)
        clips.append(sample["clip"])
    if not kept:
        raise StimuliError(f"no readable {task} sample in split {split!r} ({len(data)} listed): audit the dataset, or choose another split")
    columns = ["path", "label", "subject", "split"]
    return to_model(torch.cat(clips), task), data.table.loc[kept, columns].reset_index(drop=True)


def frames_of(cfg: Finetune, rows: pd.DataFrame, every: int = 1, unreadable: dict[str, str] | None = None) -> tuple[Tensor, pd.DataFrame]:
    """All frames of clips, each as a picture of its own.

    Args:
        cfg: names the clips' source and the picture size.
        rows: table of clips, as `subset` gives it.
        every: keep one frame in so many.
        unreadable: gets {path: cause} of the clips of which not every frame can be read; they have no frames in the table.
    Returns:
        uint8 `[M, 3, H, W]`, and a table (path, label, subject, frame) of the same M frames, frame counted from 0.
    Raises:
        StimuliError: when no clip can be read.
    """
    data = Samples(rows, cfg.video.root, "video", cfg.img_size, cfg.num_frames, cfg.sampling_rate, num_classes=cfg.video.num_classes)
    pictures, table = [], []
    for row in rows.itertuples():
        try:
            clip = read_clip(data.root / row.path, size=cfg.img_size)
        except MediaError as error:
            if unreadable is not None:
                unreadable[row.path] = error.cause
            continue
        numbers = range(0, len(clip), every)
        pictures.append(clip[list(numbers)])
        table += [(row.path, row.label, row.subject, t) for t in numbers]
    if not pictures:
        raise StimuliError(f"none of {len(rows)} clips in {cfg.video.root} can be read: audit the dataset")
    return torch.cat(pictures), pd.DataFrame(table, columns=["path", "label", "subject", "frame"])


def left_out(unreadable: dict[str, str]) -> str:
    """One sentence with the number and the names of the files that could not be read; empty when there are none."""
    if not unreadable:
        return ""
    files = "; ".join(f"`{path}` ({cause})" for path, cause in unreadable.items())
    return f"Left out, because {len(unreadable)} file{'s' * (len(unreadable) > 1)} cannot be read: {files}."


def apex_frames(frames: pd.DataFrame, apex: pd.Series | None = None) -> np.ndarray:
    """Row number of one frame a clip: the apex where it is known, else the middle frame.

    Args:
        frames: table of `frames_of`.
        apex: path -> frame number.
    Returns:
        int `[clips]`, in the order in which the clips appear.
    """
    found = []
    for path, group in frames.groupby("path", sort=False):
        target = apex[path] if apex is not None else group.frame.median()
        found.append((group.frame - target).abs().idxmin())
    return np.array(found)


def truth_of(corpus_folder, frames: pd.DataFrame) -> pd.DataFrame:
    """The frames' true intensity (1: a full expression; strong ones exceed it) and the apex frame of their clip, from a procedural corpus.

    Args:
        corpus_folder: folder of the procedural corpus; None gives a table without truth (licensed data have none).
        frames: table of `frames_of`.
    Returns:
        `frames` with columns `apex` (frame number) and `intensity`; both missing without truth.
    """
    if corpus_folder is None:
        return frames.assign(apex=np.nan, intensity=np.nan)
    from ..faces.corpus import truth
    known = truth(corpus_folder)
    known = known[known["corpus"] == "dfew"]
    known = known.assign(path=known["path"].str.removeprefix("dfew/"))      # an index counts from the dataset's own folder
    return frames.merge(known[["path", "frame", "apex", "intensity"]], on=["path", "frame"], how="left", validate="one_to_one")


def batches(x: Tensor, size: int = 64) -> Iterator[Tensor]:
    """uint8 samples `[N, ...]` as normalised float batches."""
    for start in range(0, len(x), size):
        yield normalise(x[start:start + size])


@torch.no_grad()
def features(model: nn.Module, x: Tensor) -> np.ndarray:
    """Pooled features of uint8 pictures or clips, float64 `[N, D]`; the model is left in evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    return torch.cat([model.forward_features(b.to(device)).float().cpu() for b in batches(x)]).double().numpy()


@torch.no_grad()
def layer_features(model: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """Mean of the tokens after every stage, float64 `[N, D]` each: embed, block 1 .. block n, pooled."""
    device = next(model.parameters()).device
    model.eval()
    found: dict[str, list[Tensor]] = {}
    for batch in batches(x):
        out = model.forward_intermediates(batch.to(device))
        blocks = {f"block {i + 1}": b.mean(1) for i, b in enumerate(out["blocks"])}
        stages = {"embed": out["embed"].mean(1), **blocks, "pooled": out["pooled"]}
        for name, value in stages.items():
            found.setdefault(name, []).append(value.float().cpu())
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


@torch.no_grad()
def probabilities(model: nn.Module, x: Tensor, head: str, batch: int = 64) -> np.ndarray:
    """Softmax of one head on pictures or clips, whichever that head was trained on, `[N, K]`."""
    device = next(model.parameters()).device
    model.eval()
    out = [model.forward_head(model.forward_features(b.to(device)), head).float().softmax(-1).cpu() for b in batches(x, batch)]
    return torch.cat(out).double().numpy()
