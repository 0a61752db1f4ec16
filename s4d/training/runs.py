"""The store of runs: what a configuration reads, and the folder that its training fills."""
import hashlib
import json
import platform
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file

from .. import config as configs
from ..config import ConfigError, Finetune, Pretrain, Source
from ..data import DatasetError, fingerprint, index_of, split_validation
from ..data.dataset import TASKS, Key, Samples, epoch_plan
from ..data.transforms import pretrain_transform, train_transform
from ..files import sha256
from ..models import CheckpointError, create

CHECKPOINT, LOCK = "checkpoint.pt", ".lock"


class RunError(RuntimeError):
    """Training cannot go on; the message says why and what to do. The checkpoint is intact."""


# --- what a configuration reads

def sources(cfg: Pretrain | Finetune) -> dict[str, Source]:
    """Return the source of each task that is trained or tested."""
    found = {task: getattr(cfg, task) for task in TASKS if getattr(cfg, task) is not None}
    for task in getattr(cfg, "tasks", ()):
        if task not in found:
            raise ConfigError(f"task {task!r} is trained but has no source: give it a dataset")
    if not found:
        raise ConfigError("pre-training needs image, video or both: both sources are None")
    return found


def tables(cfg: Pretrain | Finetune) -> dict[str, pd.DataFrame]:
    """Return the indexed rows of each task; for pre-training, those of the train split.

    Where a dataset has no val split, fine-tuning takes one from its training rows.
    """
    fine, found = cfg.stage == "finetune", {}
    for task, source in sources(cfg).items():
        where = f"{source.name} in {source.root}"
        table = index_of(source, task, source.num_classes if fine else None)
        if not fine:
            table = table[table.split == "train"]
        elif table.label.isna().any():
            raise DatasetError(f"{where} has no labels, which fine-tuning needs: pre-train on it")
        elif not (table.split == "val").any():
            table = split_validation(table, cfg.val_fraction, seed=0)  # for all seeds and methods
        if task in getattr(cfg, "tasks", TASKS) and not (table.split == "train").any():
            stage = "fine-tuning" if fine else "pre-training"
            raise DatasetError(f"{where} has no training samples: {stage} reads the train split")
        found[task] = table.reset_index(drop=True)
    return found


def samples_of(cfg: Pretrain | Finetune, task: str, table: pd.DataFrame, split: str) -> Samples:
    """Return the samples of one task and split, augmented if they are for training."""
    source, training, fine = getattr(cfg, task), split == "train", cfg.stage == "finetune"
    transform = None
    if training and fine:
        strength = cfg.randaugment
        if task == "image" and cfg.image_randaugment is not None:
            strength = cfg.image_randaugment
        transform = train_transform(cfg.img_size, cfg.crop_scale, strength, cfg.random_erasing)
    elif training:
        transform = pretrain_transform(cfg.img_size, cfg.crop_scale, flip=task == "image")
    return Samples(table[table.split == split], source.root, task, cfg.img_size, cfg.num_frames,
                   cfg.sampling_rate, transform=transform,
                   repeat_aug=cfg.repeat_aug if task == "video" and not fine else 1,
                   num_classes=source.num_classes if fine else None,
                   test_segments=0 if training else cfg.test_segments, cache=cfg.cache,
                   crop_box=source.crop_box, short_side=source.short_side)


def plan_batches(cfg: Pretrain | Finetune, samples: dict[str, Samples],
                 epoch: int) -> list[list[Key]]:
    """Return the batches of an epoch, as keys of samples; fields that a stage lacks count as 1."""
    def by_task(field: str) -> dict:
        return {task: getattr(cfg, f"{task}_{field}", 1.0) for task in TASKS}
    balanced = {"image": getattr(cfg, "balanced_sampling", False), "video": False}
    return epoch_plan(samples, by_task("batch_size"), by_task("epoch_fraction"), balanced, cfg.seed,
                      epoch, by_task("fraction"))


def build(cfg: Pretrain | Finetune) -> torch.nn.Module:
    """Return the untrained model of a configuration."""
    pretraining, autoencoder = cfg.stage == "pretrain", cfg.model.startswith("s4d_mae_")
    if cfg.model.startswith("s4d_") and autoencoder != pretraining:
        raise ConfigError(f"model {cfg.model!r} is of the other stage: pre-training takes an "
                          "s4d_mae_... model, fine-tuning does not")
    if pretraining:
        return create(cfg.model, img_size=cfg.img_size, num_frames=cfg.num_frames)
    classes = {f"{task}_classes": getattr(cfg, task).num_classes for task in TASKS
               if getattr(cfg, task) is not None}
    model = create(cfg.model, img_size=cfg.img_size, num_frames=cfg.num_frames,
                   num_experts=cfg.num_experts, top_k=cfg.top_k, moae_start=cfg.moae_start,
                   adapter_reduction=cfg.adapter_reduction, drop_path_rate=cfg.drop_path_rate,
                   **classes)
    for layer in model.moae_layers().values():
        layer.noise_mode = "train" if cfg.router_noise else "never"
        layer.capacity_factor = cfg.capacity_factor or None
    return model


# --- the folder of a run

@dataclass(frozen=True)
class Run:
    """A folder with config, metrics, weights, predictions and provenance, or a checkpoint."""

    dir: Path

    @property
    def settings(self) -> dict:
        """The configuration as it was written down."""
        return self._read("config.json", lambda path: json.loads(path.read_text()))

    @cached_property
    def config(self) -> Pretrain | Finetune:
        return configs.from_dict(self.settings)

    @property
    def done(self) -> bool:
        return (self.dir / "provenance.json").is_file()     # written last

    @property
    def state(self) -> str:
        """Return finished, running, interrupted (a checkpoint waits) or begun."""
        if self.done:
            return "finished"
        try:
            with FileLock(self.dir / LOCK, timeout=0):
                return "interrupted" if (self.dir / CHECKPOINT).exists() else "begun"
        except (Timeout, OSError):
            return "running"

    @property
    def provenance(self) -> dict:
        return self._read("provenance.json", lambda path: json.loads(path.read_text()))

    def metrics(self) -> pd.DataFrame:
        """Return one row a logged step or epoch."""
        return self._read("metrics.jsonl", lambda path: pd.read_json(path, lines=True))

    def predictions(self) -> pd.DataFrame:
        """Return one row a sample: path, task, split, subject, label, predicted, prob_<emotion>."""
        kinds = {"subject": str, "path": str}
        return self._read("predictions.csv", lambda path: pd.read_csv(path, dtype=kinds))

    def load(self) -> torch.nn.Module:
        """Return the trained model, in evaluation mode, on the CPU."""
        model = build(self.config)
        self._read("weights.safetensors", lambda path: model.load_state_dict(load_file(path)))
        return model.eval()

    def _read(self, name: str, read):
        path = self.dir / name
        try:
            return read(path)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise RunError(f"cannot read {path} ({cause_of(error)}): it is missing or damaged; "
                           f"remove the folder {self.dir} and train again") from error


def locate(cfg: Pretrain | Finetune, runs: str | Path = "runs", rows: dict | None = None,
           known: dict | None = None) -> Run:
    """Return the run of a configuration on the data and starting weights that lie there now.

    It need not be trained. `rows` is the result of `tables`, when it is at hand; `known` keeps
    what was read from the disk for further configurations of one call.
    """
    known, init = {} if known is None else known, getattr(cfg, "init", None)
    read = (getattr(cfg, name, 0) for name in ("stage", "tasks", "val_fraction"))
    data = (*read, *sources(cfg).items())
    if data not in known:
        rows = rows or tables(cfg)
        known[data] = [fingerprint(table, getattr(cfg, task).root) for task, table in rows.items()]
    marks = [*known[data]]
    if isinstance(init, Pretrain):       # its data may be others than those of fine-tuning
        name = locate(init, runs, known=known).dir.name
        marks.append(hashlib.sha256(name.encode()).hexdigest())
    elif init is not None:
        if not Path(init).is_file():
            raise CheckpointError(f"there is no checkpoint {init}: give .pth, .pt or .safetensors")
        marks.append(sha256(init))
    data = "".join(mark[:8] for mark in marks)
    return Run(Path(runs) / f"{cfg.stage}-{configs.digest(cfg)}-{data}")


def lock(run: Run) -> FileLock:
    """Take the run for this process; the system frees it when the process ends."""
    taken = FileLock(run.dir / LOCK, timeout=0)
    try:
        run.dir.mkdir(parents=True, exist_ok=True)
        taken.acquire()
    except Timeout:
        raise RunError(f"run {run.dir.name} is being trained by another process: wait for it, or "
                       "stop it and call again") from None
    except (OSError, NotImplementedError) as error:
        raise RunError(f"cannot lock {run.dir / LOCK}: {cause_of(error)}; choose another runs "
                       "folder, or make this one writable") from error
    return taken


def cause_of(error: Exception) -> str:
    """Return the system's reason, or an error's first line."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return getattr(error, "strerror", None) or first


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"
