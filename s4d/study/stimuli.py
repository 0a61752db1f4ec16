"""What the analyses show to a model, and what it makes of that: features, probabilities, gates."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..config import Finetune, update
from ..data import MediaError, read_clip
from ..data.dataset import Key, to_model
from ..data.transforms import normalise
from ..faces.corpus import truth
from ..training import samples_of, tables

Routes = dict[int, Tensor]      # block index, from 0 -> gates [N, L, E]


def subset(cfg: Finetune, task: str, split: str = "test", limit: int = 280, seed: int = 0,
           unreadable: dict[str, str] | None = None) -> tuple[Tensor, pd.DataFrame]:
    """Draw a random subset of one task's samples, one central view each: uint8, and their table.

    `unreadable` gets {path: cause} of the drawn files that cannot be read and are left out.
    """
    data = samples_of(update(cfg, test_segments=1), task, tables(cfg)[task], split)
    order = np.random.default_rng([seed, len(data)]).permutation(len(data))   # for every model
    drawn = data.batch([Key(task, row, seed) for row in sorted(order[:limit].tolist())])
    if unreadable is not None:
        unreadable.update(drawn["unreadable"])
    if "clip" not in drawn:
        raise MediaError(getattr(cfg, task).root, f"no readable {task} in split {split!r} of "
                         f"{len(data)} listed: audit the dataset, or choose another split")
    rows = data.table.loc[drawn["row"].tolist(), ["path", "label", "subject", "split"]]
    return to_model(drawn["clip"], task), rows.reset_index(drop=True)


def frames_of(cfg: Finetune, rows: pd.DataFrame,
              unreadable: dict[str, str]) -> tuple[Tensor, pd.DataFrame]:
    """Read all frames of the clips of `subset`, as pictures: uint8 `[M, 3, H, W]`; their table.

    `unreadable` gets {path: cause} of the clips of which not every frame can be read.
    """
    pictures, table = [], []
    for row in rows.itertuples():
        try:
            clip = read_clip(Path(cfg.video.root) / row.path, size=cfg.img_size)
        except MediaError as error:
            unreadable[row.path] = error.cause
            continue
        pictures.append(clip)
        table += [(row.path, row.label, row.subject, t) for t in range(len(clip))]
    if not pictures:
        raise MediaError(cfg.video.root, f"none of {len(rows)} clips is whole: audit the dataset")
    return torch.cat(pictures), pd.DataFrame(table, columns=["path", "label", "subject", "frame"])


def left_out(unreadable: dict[str, str]) -> str:
    """Name the files that could not be read, in one sentence; empty when there are none."""
    files = "; ".join(f"`{path}` ({cause})" for path, cause in unreadable.items())
    return f"Left out, because they cannot be read: {files}." if files else ""


def truth_of(folder: Path | str | None, frames: pd.DataFrame) -> pd.DataFrame:
    """Add the true intensity (1: full) and the apex frame to `frames_of`; missing without truth."""
    if folder is None:
        return frames.assign(apex=np.nan, intensity=np.nan)
    known = truth(folder).query("corpus == 'dfew'")
    known = known.assign(path=known["path"].str.removeprefix("dfew/"))
    known = known[["path", "frame", "apex", "intensity"]]
    return frames.merge(known, on=["path", "frame"], how="left", validate="one_to_one")


def apex_frames(frames: pd.DataFrame) -> np.ndarray:
    """Row number of one frame a clip of `truth_of`: the apex if it is known, else the middle."""
    middle = frames.groupby("path").frame.transform("median")
    distance = (frames.frame - frames.apex.fillna(middle)).abs()
    return distance.groupby(frames.path, sort=False).idxmin().to_numpy(copy=True)


@torch.no_grad()
def evaluated(model: nn.Module, x: Tensor, output: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Output of the model in evaluation mode for all uint8 samples `[N, ...]`, float64."""
    device = next(model.parameters()).device
    model.eval()
    outputs = [output(normalise(batch).to(device)).float().cpu() for batch in x.split(64)]
    return torch.cat(outputs).double().numpy()


def features(model: nn.Module, x: Tensor) -> np.ndarray:
    """Pooled features of uint8 photos or clips, float64 `[N, D]`."""
    return evaluated(model, x, model.forward_features)


def layer_features(model: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """Mean of the tokens after every stage, float64 `[N, D]`: embed, block 1 .. n, pooled."""
    def stages(batch: Tensor) -> Tensor:
        out = model.forward_intermediates(batch)
        tokens = out["embed"], *out["blocks"]
        return torch.stack([*(t.mean(1) for t in tokens), out["pooled"]], 1)         # [B, S, D]
    found = evaluated(model, x, stages).transpose(1, 0, 2).copy()
    names = ["embed", *(f"block {i + 1}" for i in range(len(found) - 2)), "pooled"]
    return dict(zip(names, found, strict=True))


def probabilities(model: nn.Module, x: Tensor, head: str) -> np.ndarray:
    """Softmax of one head on uint8 photos or clips, float64 `[N, K]`."""
    def softmax(batch: Tensor) -> Tensor:
        return model.forward_head(model.forward_features(batch), head).float().softmax(-1)
    return evaluated(model, x, softmax)


@contextmanager
def record_routing(model: nn.Module) -> Iterator[dict[int, list[Tensor]]]:
    """Collect the gates `[B, L, E]` of every forward pass inside the context, by block.

    A token's gates are 0 for experts that were not chosen and sum to 1, less what a limit dropped.
    """
    layers = model.moae_layers()
    if not layers:
        raise ValueError("this model has no MoAE layer (num_experts=0): record the routing of a "
                         "model that was made with experts")
    try:
        for layer in layers.values():
            layer.record = []
        yield {i: layer.record for i, layer in layers.items()}
    finally:
        for layer in layers.values():
            layer.record = None


def routes_of(model: nn.Module, x: Tensor) -> Routes:
    """Gates of all samples, float32 on the CPU; the model is left in evaluation mode."""
    with record_routing(model) as records:
        features(model, x)
    return {i: torch.cat([g.float().cpu() for g in gates]) for i, gates in records.items()}
