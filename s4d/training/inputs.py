"""What a configuration reads: its rows, samples and batches, and the run that follows from them."""
from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from .. import config as configs
from ..config import ConfigError, Finetune, Pretrain, Source
from ..data import DatasetError, fingerprint, index_of, split_validation
from ..data.dataset import TASKS, Samples, epoch_plan
from ..data.transforms import pretrain_transform, train_transform
from ..files import sha256
from ..models import CheckpointError
from .runs import Run


def sources(cfg: Pretrain | Finetune) -> dict[str, Source]:
    """Return the source of each task that is trained or tested."""
    found = {task: getattr(cfg, task) for task in TASKS if getattr(cfg, task) is not None}
    for task in getattr(cfg, "tasks", ()):
        if task not in found:
            raise ConfigError(f"task {task!r} is trained but has no source: give `{task}` a "
                              "dataset")
    if not found:
        raise ConfigError("pre-training needs image, video or both: both sources are None")
    return found


def tables(cfg: Pretrain | Finetune) -> dict[str, pd.DataFrame]:
    """Return the indexed rows of each task; for pre-training, those of the train split.

    Where a dataset has no val split, fine-tuning takes one from its training rows.
    """
    fine, out = cfg.stage == "finetune", {}
    for task, source in sources(cfg).items():
        where = f"{source.name} in {source.root}"
        table = index_of(source, task, source.num_classes if fine else None)
        if not fine:
            table = table[table.split == "train"]
        elif table.label.isna().any():
            raise DatasetError(f"{where} has no labels: fine-tuning needs them, pre-training does "
                               "not")
        elif not (table.split == "val").any():
            table = split_validation(table, cfg.val_fraction, seed=0)  # for all seeds and methods
        if task in getattr(cfg, "tasks", TASKS) and not (table.split == "train").any():
            stage = "fine-tuning" if fine else "pre-training"
            raise DatasetError(f"{where} has no training samples: {stage} reads the train split")
        out[task] = table.reset_index(drop=True)
    return out


def locate(cfg: Pretrain | Finetune, runs: str | Path = "runs", rows: dict | None = None) -> Run:
    """Return the run of this configuration on the data, and from the starting weights, that lie
    there now, trained or not.

    Args:
        rows: result of `tables`, when it is at hand.
    """
    rows, init = rows or tables(cfg), getattr(cfg, "init", None)
    marks = [fingerprint(table, getattr(cfg, task).root) for task, table in rows.items()]
    if isinstance(init, Pretrain):       # its data may be others than those of fine-tuning
        marks.append(hashlib.sha256(locate(init, runs).dir.name.encode()).hexdigest())
    elif init is not None:
        try:
            marks.append(sha256(init))
        except OSError as error:
            raise CheckpointError(f"cannot read checkpoint {init}: {error.strerror}; give the "
                                  "path of a .pth, .pt or .safetensors file") from error
    data = "".join(mark[:8] for mark in marks)
    return Run(Path(runs) / f"{cfg.stage}-{configs.digest(cfg)}-{data}")


def augmentation(cfg: Pretrain | Finetune, task: str):
    """Return the transform of training samples of a task."""
    if cfg.stage == "pretrain":
        return pretrain_transform(cfg.img_size, cfg.crop_scale, flip=task == "image")
    own = task == "image" and cfg.image_randaugment is not None
    field = "image_randaugment" if own else "randaugment"
    try:
        return train_transform(cfg.img_size, cfg.crop_scale, getattr(cfg, field),
                               cfg.random_erasing)
    except ValueError as error:
        raise ConfigError(f"Finetune.{field} cannot be used: {error}") from error


def part(cfg: Pretrain | Finetune, task: str, table: pd.DataFrame, split: str) -> Samples:
    """Return the samples of one task and split."""
    source, training, fine = getattr(cfg, task), split == "train", cfg.stage == "finetune"
    return Samples(table[table.split == split], source.root, task, cfg.img_size, cfg.num_frames,
                   cfg.sampling_rate, transform=augmentation(cfg, task) if training else None,
                   repeat_aug=cfg.repeat_aug if task == "video" and not fine else 1,
                   num_classes=source.num_classes if fine else None,
                   test_segments=0 if training else cfg.test_segments, cache=cfg.cache,
                   crop_box=source.crop_box, short_side=source.short_side)


def plan(cfg: Pretrain | Finetune, data: dict[str, Samples], epoch: int) -> list:
    """Return the batches of an epoch, as keys of samples; a share that a stage lacks is 1."""
    sizes, shares, used = ({task: getattr(cfg, f"{task}_{field}", 1.0) for task in TASKS}
                           for field in ("batch_size", "epoch_fraction", "fraction"))
    balanced = {"image": getattr(cfg, "balanced_sampling", False), "video": False}
    return epoch_plan(data, sizes, shares, balanced, cfg.seed, epoch, used)
