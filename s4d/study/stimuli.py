"""What the analyses show to a model, and what it makes of that: features, probabilities."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..config import Finetune, update
from ..data import MediaError, read_clip
from ..data.dataset import Key, to_model
from ..data.transforms import normalise
from ..training.finetune import part, tables


class StimuliError(ValueError):
    """There is nothing to show; the message says of which task and split."""


def choose(rows: int, limit: int, seed: int = 0) -> np.ndarray:
    """At most `limit` row numbers, drawn once and sorted: every model sees the same samples."""
    return np.sort(np.random.default_rng([seed, rows]).permutation(rows)[:limit])


def subset(cfg: Finetune, task: str, split: str = "test", limit: int = 280, seed: int = 0,
           unreadable: dict[str, str] | None = None) -> tuple[Tensor, pd.DataFrame]:
    """Draw a random subset of one task's samples, one central view each.

    Args:
        cfg: any fine-tuning configuration of the profile; sources and sampling are read.
        unreadable: gets {path: cause} of the drawn files that cannot be read and are left out.
    Returns:
        uint8 `[N, 3, H, W]` or `[N, 3, T, H, W]`, and the table of the same N samples.
    """
    data = part(update(cfg, test_segments=1), task, tables(cfg)[task], split)
    kept, clips = [], []
    for row in choose(len(data), limit, seed):
        sample = data[Key(task, int(row), seed)]
        if "unreadable" not in sample:
            kept.append(row)
            clips.append(sample["clip"])
        elif unreadable is not None:
            unreadable.update([sample["unreadable"]])
    if not kept:
        raise StimuliError(f"no readable {task} sample in split {split!r} ({len(data)} listed): "
                           "audit the dataset, or choose another split")
    rows = data.table.loc[kept, ["path", "label", "subject", "split"]]
    return to_model(torch.cat(clips), task), rows.reset_index(drop=True)


def frames_of(cfg: Finetune, rows: pd.DataFrame,
              unreadable: dict[str, str] | None = None) -> tuple[Tensor, pd.DataFrame]:
    """Read all frames of clips, each as a picture: uint8 `[M, 3, H, W]`, and their table.

    Args:
        rows: table of clips, as `subset` gives it.
        unreadable: gets {path: cause} of the clips of which not every frame can be read.
    """
    pictures, table = [], []
    for row in rows.itertuples():
        try:
            clip = read_clip(Path(cfg.video.root) / row.path, size=cfg.img_size)
        except MediaError as error:
            if unreadable is not None:
                unreadable[row.path] = error.cause
            continue
        pictures.append(clip)
        table += [(row.path, row.label, row.subject, t) for t in range(len(clip))]
    if not pictures:
        raise StimuliError(f"none of {len(rows)} clips in {cfg.video.root} can be read: audit "
                           "the dataset")
    return torch.cat(pictures), pd.DataFrame(table, columns=["path", "label", "subject", "frame"])


def left_out(unreadable: dict[str, str]) -> str:
    """Name the files that could not be read, in one sentence; empty when there are none."""
    if not unreadable:
        return ""
    count = "1 file" if len(unreadable) == 1 else f"{len(unreadable)} files"
    files = "; ".join(f"`{path}` ({cause})" for path, cause in unreadable.items())
    return f"Left out, because {count} cannot be read: {files}."


def apex_frames(frames: pd.DataFrame, apex: pd.Series | None = None) -> np.ndarray:
    """Row number of one frame a clip: the apex (path -> frame) if it is known, else the middle."""
    found = []
    for path, group in frames.groupby("path", sort=False):
        target = apex[path] if apex is not None else group.frame.median()
        found.append((group.frame - target).abs().idxmin())
    return np.array(found)


def truth_of(folder: Path | str | None, frames: pd.DataFrame) -> pd.DataFrame:
    """Add the true intensity (1: a full expression) and the clip's apex frame to `frames_of`.

    Both are missing without the folder of a procedural corpus.
    """
    if folder is None:
        return frames.assign(apex=np.nan, intensity=np.nan)
    from ..faces.corpus import truth
    known = truth(folder)
    known = known[known["corpus"] == "dfew"]
    known = known.assign(path=known["path"].str.removeprefix("dfew/"))   # as in the index
    return frames.merge(known[["path", "frame", "apex", "intensity"]], on=["path", "frame"],
                        how="left", validate="one_to_one")


def batches(x: Tensor, size: int = 64) -> Iterator[Tensor]:
    """Yield uint8 samples `[N, ...]` as normalised float batches."""
    for start in range(0, len(x), size):
        yield normalise(x[start:start + size])


@torch.no_grad()
def _evaluated(model: nn.Module, x: Tensor, outputs: Callable[[Tensor], dict[str, Tensor]],
               batch_size: int = 64) -> dict[str, np.ndarray]:
    """Outputs of the model in evaluation mode for all samples, float64."""
    device = next(model.parameters()).device
    model.eval()
    found: dict[str, list[Tensor]] = {}
    for batch in batches(x, batch_size):
        for name, value in outputs(batch.to(device)).items():
            found.setdefault(name, []).append(value.float().cpu())
    return {name: torch.cat(values).double().numpy() for name, values in found.items()}


def features(model: nn.Module, x: Tensor) -> np.ndarray:
    """Pooled features of uint8 photos or clips, float64 `[N, D]`."""
    return _evaluated(model, x, lambda batch: {"pooled": model.forward_features(batch)})["pooled"]


def layer_features(model: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """Mean of the tokens after every stage, float64 `[N, D]`: embed, block 1 .. n, pooled."""
    def stages(batch: Tensor) -> dict[str, Tensor]:
        out = model.forward_intermediates(batch)
        blocks = {f"block {i + 1}": tokens.mean(1) for i, tokens in enumerate(out["blocks"])}
        return {"embed": out["embed"].mean(1), **blocks, "pooled": out["pooled"]}
    return _evaluated(model, x, stages)


def probabilities(model: nn.Module, x: Tensor, head: str, batch: int = 64) -> np.ndarray:
    """Softmax of one head on uint8 photos or clips, float64 `[N, K]`."""
    def softmax(batch: Tensor) -> dict[str, Tensor]:
        logits = model.forward_head(model.forward_features(batch), head)
        return {"probability": logits.float().softmax(-1)}
    return _evaluated(model, x, softmax, batch)["probability"]
