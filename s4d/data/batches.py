"""Indexed tables -> batches: one dataset for images and clips, one schedule of single-modality steps shuffled together."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from ..emotions import vocabulary
from .cache import packed
from .media import MediaError, count_frames, read_frames
from .transforms import eval_views, test_indices, train_indices


@dataclass(frozen=True)
class Key:
    """One draw of one sample; `seed` fixes its augmentation, whichever process or order loads it."""

    task: str        # "image" or "video"
    row: int         # of the task's table
    seed: int
    view: int = 0    # test view along time


class Clips(Dataset):
    """Samples of one task as uint8 clips `[T, 3, H, W]`; an image has T = 1.

    Args:
        table: rows of `s4d.data.index` (path, label, ...), in the order that keys refer to.
        root: folder the paths are relative to.
        task: "image" or "video".
        size: side in px of the pictures given out; files are decoded with this short side and keep the ratio of their sides.
        frames, stride: sampling along time.
        transform: uint8 clip -> square uint8 clip, drawing from torch's global generator; None takes `crops` test views.
        repeats: draws of one decoded clip, stacked (pre-training reads a clip once and masks it several times).
        classes: vocabulary of the labels; None for unlabelled data.
        segments: test views along time; 0 samples for training.
        cache: keep decoded samples in a packed file beside the data.
        box: part of the stored pictures that is used, as for `read_frames`.
        short: short side in px that training samples are decoded to before the transform; `size` when left out.

    `crops` is the number of test views across the picture; a square picture has one.
    """

    crops = 1

    def __init__(self, table: pd.DataFrame, root: str | Path, task: str, size: int, frames: int, stride: int, transform=None,
                 repeats: int = 1, classes: int | None = 7, segments: int = 0, cache: bool = False,
                 box: tuple[int, int, int, int] | None = None, short: int | None = None):
        self.table, self.root, self.task, self.size = table.reset_index(drop=True), Path(root), task, size
        self.frames, self.stride, self.transform, self.repeats, self.segments = frames, stride, transform, repeats, segments
        names = vocabulary(classes) if classes else ()
        self.paths = self.table["path"].tolist()                 # a list: pandas takes longer to find one entry than to copy a frame
        self.labels = [names.index(v) if names and isinstance(v, str) else -1 for v in self.table["label"]]
        self.reading = dict(size=short if short and transform is not None else size, aspect=True, box=box)
        self.packed = packed(self.table, self.root, self.reading["size"], box=box) if cache else None

    def __len__(self) -> int:
        return len(self.table)

    def load(self, key: Key, generator: torch.Generator) -> torch.Tensor:
        """The sampled frames of one sample, `[T, 3, H, W]`, in memory with the channels last.

        Raises:
            MediaError: naming the file and the cause.
        """
        path = self.paths[key.row]
        if self.packed is not None and path in self.packed.bad:
            raise MediaError(self.root / path, self.packed.bad[path])
        if self.task == "image":
            if self.packed is not None:
                return self.packed.clip(key.row, [0])
            return read_frames(self.root / path, **self.reading).permute(0, 3, 1, 2)
        length = self.packed.length(key.row) if self.packed is not None else count_frames(self.root / path)
        if self.segments:
            indices = test_indices(length, self.frames, self.stride, self.segments)[key.view]
        else:
            indices = train_indices(length, self.frames, self.stride, generator)
        if self.packed is not None:
            return self.packed.clip(key.row, indices)
        return read_frames(self.root / path, indices, **self.reading).permute(0, 3, 1, 2)

    def __getitem__(self, key: Key) -> dict:
        path = self.paths[key.row]
        generator = torch.Generator().manual_seed(key.seed)
        try:
            clip = self.load(key, generator)
        except MediaError as error:
            return {"row": key.row, "bad": (path, error.cause)}
        if self.transform is not None:
            state = torch.get_rng_state()        # transforms draw from the global generator; fork_rng and manual_seed, which also look
            torch.default_generator.manual_seed(key.seed)      # after every device, take several times as long as a flip
            try:
                draws = [self.transform(clip) for _ in range(self.repeats)]
            finally:
                torch.set_rng_state(state)
        else:
            draws = eval_views(clip, self.size, self.crops) * self.repeats
        return {"row": key.row, "clip": torch.stack(draws).contiguous(), "label": self.labels[key.row]}


class Joint(Dataset):
    """Several `Clips` behind one loader; keys name the task."""

    def __init__(self, parts: dict[str, Clips]):
        self.parts = parts

    def __getitem__(self, key: Key) -> dict:
        return {**self.parts[key.task][key], "task": key.task}


def collate(samples: list[dict]) -> dict:
    """Stacks a single-modality batch: uint8 clip `[N, T, 3, H, W]`, label `[N]`, row `[N]`, N draws or views; bad [(path, cause)]."""
    good = [s for s in samples if "bad" not in s]
    batch = {"task": samples[0].get("task"), "bad": [s["bad"] for s in samples if "bad" in s],
             "bad_rows": [s["row"] for s in samples if "bad" in s]}
    if good:
        each = torch.tensor([len(s["clip"]) for s in good])
        batch |= {"clip": torch.cat([s["clip"] for s in good])}
        batch |= {name: torch.tensor([s[name] for s in good]).repeat_interleave(each) for name in ("label", "row")}
    return batch


def to_model(clip: torch.Tensor, task: str) -> torch.Tensor:
    """`[B, T, 3, H, W]` -> the model's layout: images `[B, 3, H, W]`, clips `[B, 3, T, H, W]`."""
    return clip[:, 0] if task == "image" else clip.transpose(1, 2)


def sample_seed(*parts: int) -> int:
    """One 63-bit seed from several integers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def draw_order(labels: list[int], seed: int, epoch: int, share: float, balanced: bool, part: float = 1.0) -> np.ndarray:
    """Rows of one task for one epoch: a shuffle, or classes oversampled to equal counts; then its first `share`.

    With `part` below 1 only that share of the rows is used, the same ones for every seed and method, a smaller part inside a larger
    one; rows come round more often, so that an epoch keeps its length.
    """
    rng = np.random.default_rng([seed, epoch, 17])
    labels = np.asarray(labels)
    kept = np.sort(np.random.default_rng(29).permutation(len(labels))[:max(1, round(part * len(labels)))])
    if balanced:
        groups = [kept[labels[kept] == k] for k in np.unique(labels[kept])]
        most = max(len(g) for g in groups)
        rows = np.concatenate([np.concatenate([rng.permutation(g) for _ in range(-(-most // len(g)))])[:most] for g in groups])
        rows = rng.permutation(rows)                     # classes come equally often
    else:
        rows = rng.permutation(kept)
    if len(rows) < len(labels):
        rows = np.concatenate([rows, *(rng.permutation(rows) for _ in range(len(labels) // len(rows)))])
    rows = rows[: len(labels)]                           # an epoch keeps its length
    return rows[: max(1, round(share * len(rows)))]


def epoch_plan(parts: dict[str, Clips], batch: dict[str, int], share: dict[str, float], balanced: dict[str, bool], seed: int,
               epoch: int, part: dict[str, float] | None = None) -> list[list[Key]]:
    """The epoch's batches: each of one modality, all shuffled together from one seed.

    The plan depends on seed and epoch alone, so a resumed run continues in the middle of it and any number of loading
    processes sees the same samples. A last batch smaller than the others is dropped, unless it is the only one.
    """
    batches = []
    for task, clips in sorted(parts.items()):
        number = ("image", "video").index(task)      # fixed, so that a method with one task draws what one with both draws
        rows = draw_order(clips.labels, sample_seed(seed, number), epoch, share[task], balanced[task], (part or {}).get(task, 1.0))
        size = min(batch[task], len(rows))
        for start in range(0, len(rows) - size + 1, size):
            batches.append([Key(task, int(r), sample_seed(seed, epoch, number, start + i))
                            for i, r in enumerate(rows[start:start + size])])
    order = np.random.default_rng([seed, epoch, 23]).permutation(len(batches))
    return [batches[i] for i in order]


def cut(n: int, parts: int) -> list[int]:
    """The ends of `parts` contiguous parts of n rows, sizes differing by one at most: 0 ... n."""
    return [n * i // parts for i in range(parts + 1)]


def part_of(batches: list[list[Key]], rank: int, world: int) -> list[list[Key]]:
    """What process `rank` of `world` reads of planned batches: of every batch the same contiguous part, so that the order of the
    samples does not depend on how many processes there are."""
    if world == 1:
        return batches
    return [keys[cut(len(keys), world)[rank]: cut(len(keys), world)[rank + 1]] for keys in batches]


def loader(dataset: Dataset, batches: list[list[Key]], workers: int = 0) -> DataLoader:
    """A loader over planned batches; video readers open inside the workers, never before a fork.

    It has a generator of its own: a loader draws a number when it starts, and from the global generator that would move the
    draws of a run that was resumed in the middle of an epoch.
    """
    return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers, pin_memory=torch.cuda.is_available(),
                      generator=torch.Generator().manual_seed(0), multiprocessing_context="spawn" if workers else None)
