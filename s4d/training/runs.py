"""The store of what was trained: one folder a run, named by its configuration and its data."""
from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file

from .. import config as configs
from .. import files
from ..models import create

CHECKPOINT, LOCK = "checkpoint.pt", ".lock"


class RunError(RuntimeError):
    """Training cannot go on; the message says why and what to do. The checkpoint is intact."""


@dataclass(frozen=True)
class Run:
    """A folder with config, metrics, weights, predictions and provenance, or a checkpoint."""

    dir: Path

    @property
    def settings(self) -> dict:
        """The configuration as it was written down."""
        return self._read("config.json", lambda path: json.loads(path.read_text()))

    @cached_property
    def config(self):
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

    def _read(self, name: str, read: Callable[[Path], object]):
        path = self.dir / name
        try:
            return read(path)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise RunError(f"cannot read {path} ({cause_of(error)}): it is missing or damaged; "
                           f"remove the folder {self.dir} and train again") from error


def cause_of(error: Exception) -> str:
    """Return an error's first line; torch's hides the reason where a file cannot be written."""
    if "enforce fail" in str(error) and isinstance(error.__context__, OSError):
        error = error.__context__
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return getattr(error, "strerror", None) or first


def build(cfg) -> torch.nn.Module:
    """Return the untrained model of a configuration."""
    size = cfg.model.removeprefix("s4d_").removeprefix("mae_")
    wanted = f"s4d_mae_{size}" if cfg.stage == "pretrain" else f"s4d_{size}"
    if cfg.model.startswith("s4d_") and cfg.model != wanted:
        raise configs.ConfigError(f"{type(cfg).__name__}.model is {cfg.model!r}, a model of the "
                                  f"other stage: {cfg.stage} takes {wanted}")
    if cfg.stage == "pretrain":
        return create(cfg.model, img_size=cfg.img_size, num_frames=cfg.num_frames)
    classes = {f"{task}_classes": getattr(cfg, task).num_classes for task in ("image", "video")
               if getattr(cfg, task) is not None}
    model = create(cfg.model, img_size=cfg.img_size, num_frames=cfg.num_frames,
                   num_experts=cfg.num_experts, top_k=cfg.top_k, moae_start=cfg.moae_start,
                   adapter_reduction=cfg.adapter_reduction, drop_path_rate=cfg.drop_path_rate,
                   **classes)
    for layer in model.moae_layers().values():
        layer.noise_mode = "train" if cfg.router_noise else "never"
        layer.capacity_factor = cfg.capacity_factor or None
    return model


def lock(run: Run) -> FileLock:
    """Take the run for this process; the system frees it when the process ends."""
    held = FileLock(run.dir / LOCK, timeout=0)
    try:
        run.dir.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        raise RunError(f"run {run.dir.name} is being trained by another process: wait for it, or "
                       "stop it and call again") from None
    except (OSError, NotImplementedError) as error:
        raise RunError(f"cannot lock {run.dir / LOCK}: {cause_of(error)}; choose another runs "
                       "folder, or make this one writable") from error
    return held


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a RunError where the folder is full, over its quota, read-only or gone."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:   # the last two: of a full disk
        known = error.__cause__ if isinstance(error, files.OutputError) else error
        raise RunError(f"cannot write {path}: {cause_of(known)}; free space or choose another runs "
                       "folder, then call again: the run continues from its last checkpoint"
                       ) from error


def write(path: Path, content: str | Callable[[Path], object]) -> None:
    """Write a text, or a file by a function of its path, under a temporary name first."""
    with writing(path):
        if isinstance(content, str):
            files.write_text(path, content)
        else:
            files.write(path, content)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"


class Log:
    """Append rows to metrics.jsonl, and as curves to TensorBoard where `board` is true.

    Args:
        length: rows that the checkpoint counts; later ones are cut off, so that no step stands
            twice.
        step: of the checkpoint.
    """

    def __init__(self, folder: Path, length: int, step: int, board: bool):
        self.path, self.board = folder / "metrics.jsonl", None
        lines = self.path.read_text().splitlines()[:length] if self.path.exists() else []
        write(self.path, "".join(line + "\n" for line in lines))
        self.length = len(lines)
        if board:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise configs.ConfigError("tensorboard=True, but TensorBoard is not installed: pip "
                                          "install tensorboard, or leave the option out") from error
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def add(self, row: dict) -> None:
        with writing(self.path), open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        self.length += 1
        for key in row if self.board else ():
            if key not in ("step", "modality"):
                self.board.add_scalar(f"{row['modality']}/{key}", row[key], row["step"])

    def sync(self) -> None:
        """Bring the rows to the disk, before a checkpoint that counts them."""
        with writing(self.path):
            files.sync(self.path)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
