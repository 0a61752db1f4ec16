"""Indexed tables -> batches: one dataset for photos and clips, one plan of single-task steps."""
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from ..emotions import vocabulary
from .cache import packed
from .media import Box, MediaError, count_frames, read_frames
from .transforms import eval_views, test_indices, train_indices

TASKS = ("image", "video")
DECODED = {"image": 2, "video": 1}      # short side, at most of photos, over the model's img_size


@dataclass(frozen=True)
class Key:
    """One draw of one sample; `seed` fixes its augmentation, whichever process loads it."""

    task: str        # "image" or "video"
    row: int         # of the task's table
    seed: int
    view: int = 0    # test view along time


class Samples:
    """Samples of one task as uint8 clips `[T, 3, H, W]`; a photo has T = 1.

    Args:
        table: rows of `s4d.data.index`, in the order that keys refer to.
        transform: uint8 clip -> square uint8 clip by torch's generator; None: test views.
        repeat_aug: draws of one decoded clip, stacked.
        num_classes: vocabulary of the labels; None for unlabelled data.
        test_segments: test views along time; 0 draws a random window, as training does.
        short_side: of decoded training samples, in px; DECODED tells it when left out.
    """

    test_crops = 1      # test views across the picture; a square picture has one

    def __init__(self, table: pd.DataFrame, root: str | Path, task: str, img_size: int,
                 num_frames: int, sampling_rate: int, transform=None, repeat_aug: int = 1,
                 num_classes: int | None = 7, test_segments: int = 0, cache: bool = False,
                 crop_box: Box | None = None, short_side: int | None = None):
        self.table, self.root = table.reset_index(drop=True), Path(root)
        self.task, self.img_size, self.transform = task, img_size, transform
        self.num_frames, self.sampling_rate = num_frames, sampling_rate
        self.repeat_aug, self.test_segments = repeat_aug, test_segments
        names = vocabulary(num_classes) if num_classes else ()
        self.paths = self.table["path"].tolist()      # finding one entry takes pandas long
        self.labels = [names.index(v) if names and isinstance(v, str) else -1
                       for v in self.table["label"]]
        size = short_side if short_side and transform else DECODED[task] * img_size
        self.reading = dict(size=size, aspect=True, crop_box=crop_box)
        self.packed = packed(self.table, self.root, size, crop_box=crop_box) if cache else None

    def __len__(self) -> int:
        return len(self.table)

    def load(self, key: Key) -> torch.Tensor:
        """The sampled frames of one sample, `[T, 3, H, W]`, channels last in memory."""
        path, indices, packed = self.root / self.paths[key.row], None, self.packed
        if self.task == "video":
            count = packed.shapes[key.row][0] if packed else count_frames(path)
            given = count, self.num_frames, self.sampling_rate
            if self.test_segments:
                indices = test_indices(*given, self.test_segments)[key.view]
            else:
                indices = train_indices(*given, torch.Generator().manual_seed(key.seed))
        if packed:
            return packed.clip(key.row, indices)
        return read_frames(path, indices, **self.reading).permute(0, 3, 1, 2)

    def batch(self, keys: list[Key]) -> dict:
        """Load samples of this task: N draws or views as clip uint8 `[N, T, 3, H, W]`, label and
        row `[N]`, unless all are unreadable; and of those [(path, cause)] and their rows."""
        views = self.repeat_aug if self.transform else self.test_crops
        shape = 1 if self.task == "image" else self.num_frames, 3, self.img_size, self.img_size
        clip, rows = torch.empty(len(keys) * views, *shape, dtype=torch.uint8), []
        batch = {"task": self.task, "unreadable": [], "unreadable_rows": []}
        state = torch.get_rng_state()      # fork_rng also looks after every device: as long again
        for key in keys:
            torch.default_generator.manual_seed(key.seed)
            try:
                found = self.load(key)
            except MediaError as error:
                batch["unreadable"].append((self.paths[key.row], error.cause))
                batch["unreadable_rows"].append(key.row)
                continue
            draws = ((self.transform(found) for _ in range(views)) if self.transform
                     else eval_views(found, self.img_size, self.test_crops))
            for draw in draws:
                clip[len(rows)] = draw      # channels last until here
                rows.append(key.row)
        torch.set_rng_state(state)
        if rows:
            labels = torch.tensor([self.labels[row] for row in rows])
            batch |= dict(clip=clip[:len(rows)], row=torch.tensor(rows), label=labels)
        return batch


class Joint(dict):
    """The `Samples` of several tasks, by task, behind one loader: each batch is of one."""

    def __getitems__(self, keys: list[Key]) -> dict:
        return self[keys[0].task].batch(keys)


def to_model(clip: torch.Tensor, task: str) -> torch.Tensor:
    """`[B, T, 3, H, W]` -> the model's layout: photos `[B, 3, H, W]`, clips `[B, 3, T, H, W]`."""
    return clip[:, 0] if task == "image" else clip.transpose(1, 2)


def sample_seed(*parts: int) -> int:
    """One 63-bit seed from several integers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def draw_order(labels: list[int], seed: int, epoch: int, epoch_fraction: float,
               balanced_sampling: bool, fraction: float = 1.0) -> np.ndarray:
    """Rows of one task for one epoch: shuffled, or with classes oversampled to equal counts.

    `epoch_fraction` of the epoch is given out. Only the share `fraction` of all rows is used, the
    same for every seed and method; they repeat, so that an epoch keeps its length.
    """
    rng = np.random.default_rng([seed, epoch, 17])
    labels = np.asarray(labels)
    count = max(1, round(fraction * len(labels)))
    used = np.sort(np.random.default_rng(29).permutation(len(labels))[:count])
    if balanced_sampling:
        groups = [used[labels[used] == k] for k in np.unique(labels[used])]
        most = max(map(len, groups))
        drawn = [[rng.permutation(g) for _ in range(-(-most // len(g)))] for g in groups]
        used = np.concatenate([np.concatenate(several)[:most] for several in drawn])
    rows = rng.permutation(used)
    more = [rng.permutation(rows) for _ in range(len(labels) // len(rows))]
    return np.concatenate([rows, *more])[:max(1, round(epoch_fraction * len(labels)))]


def epoch_plan(parts: dict[str, Samples], batch_size: dict[str, int],
               epoch_fraction: dict[str, float], balanced_sampling: dict[str, bool], seed: int,
               epoch: int, fraction: dict[str, float] | None = None) -> list[list[Key]]:
    """Plan an epoch's batches: each of one task, all shuffled together, by seed and epoch alone.

    A last batch smaller than the others is dropped, unless it is the only one.
    """
    batches = []
    for task, samples in sorted(parts.items()):
        number = TASKS.index(task)      # a method with one task draws what one with both draws
        rows = draw_order(samples.labels, sample_seed(seed, number), epoch, epoch_fraction[task],
                          balanced_sampling[task], (fraction or {}).get(task, 1.0))
        size = min(batch_size[task], len(rows))
        keys = [Key(task, int(row), sample_seed(seed, epoch, number, i))
                for i, row in enumerate(rows)]
        batches += [keys[i:i + size] for i in range(0, len(rows) - size + 1, size)]
    order = np.random.default_rng([seed, epoch, 23]).permutation(len(batches))
    return [batches[i] for i in order]


def part_of(batches: list[list[Key]], rank: int, world: int) -> list[list[Key]]:
    """What process `rank` of `world` reads of planned batches: a contiguous part of each."""
    return [keys[len(keys) * rank // world: len(keys) * (rank + 1) // world] for keys in batches]


def end_quietly(worker: int) -> None:
    """Let a signal to all processes end a loading one without an error in the one that trains."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))


def loader(dataset: Joint, batches: list[list[Key]], num_workers: int = 0) -> DataLoader:
    """Load planned batches; video readers open inside the workers, never before a fork."""
    # its own generator: starting draws a number, which would move the draws of a resumed run
    return DataLoader(dataset, batch_sampler=batches, collate_fn=dict, num_workers=num_workers,
                      pin_memory=torch.cuda.is_available(),
                      generator=torch.Generator().manual_seed(0),
                      multiprocessing_context="spawn" if num_workers else None,
                      worker_init_fn=end_quietly, persistent_workers=num_workers > 0)
