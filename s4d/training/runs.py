"""The store of what was trained: one folder a run, named by its configuration and its data."""
from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .. import config as configs
from .. import files
from ..files import code_version
from ..models import create

CHECKPOINT, LOCK = "checkpoint.pt", ".lock"


class RunError(RuntimeError):
    """Training cannot go on; the message says why and what to do. The checkpoint is intact."""


@dataclass(frozen=True)
class Run:
    """A folder: config.json, metrics.jsonl, weights.safetensors, predictions.csv, provenance.json;
    checkpoint.pt while it trains."""

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

    def _read(self, name: str, read):
        """Read a file of the run, or raise a RunError that names it."""
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
    """Return the untrained model of a configuration.

    Raises:
        ConfigError: for an unknown model, and for one of the other stage.
    """
    size = cfg.model.removeprefix("s4d_").removeprefix("mae_")
    wanted = f"s4d_mae_{size}" if cfg.stage == "pretrain" else f"s4d_{size}"
    if cfg.model.startswith("s4d_") and cfg.model != wanted:
        raise configs.ConfigError(f"{type(cfg).__name__}.model is {cfg.model!r}, a model of the "
                                  f"other stage: {cfg.stage} takes {wanted}")
    if cfg.stage == "pretrain":
        return create(cfg.model, img_size=cfg.img_size, num_frames=cfg.num_frames)
    sources = {"image": cfg.image, "video": cfg.video}
    classes = {f"{t}_classes": s.num_classes for t, s in sources.items() if s is not None}
    model = create(cfg.model, img_size=cfg.img_size, num_frames=cfg.num_frames,
                   num_experts=cfg.num_experts, top_k=cfg.top_k, moae_start=cfg.moae_start,
                   adapter_reduction=cfg.adapter_reduction, drop_path_rate=cfg.drop_path_rate,
                   **classes)
    for layer in model.moae_layers().values():
        layer.noise_mode = "train" if cfg.router_noise else "never"
        layer.capacity_factor = cfg.capacity_factor or None
    return model


def run_dir(cfg, runs: str | Path, fingerprints: list[str]) -> Path:
    """Return where the run of this configuration on these data lives.

    Args:
        fingerprints: hexadecimal texts that name the data, and what training starts from.
    """
    data = "".join(f[:8] for f in fingerprints)
    return Path(runs) / f"{cfg.stage}-{configs.digest(cfg)}-{data}"


def lock(run: Run) -> FileLock:
    """Take the run for this process; the system frees it when the process ends.

    Raises:
        RunError: when another process has it, and when its folder cannot be written.
    """
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


def write(path: Path, save) -> None:
    """Write a file by `files.write`, with the sentence of a run.

    Raises:
        RunError: when the folder is full, over its quota, read-only or gone.
    """
    def guarded(draft: Path) -> None:
        try:
            save(draft)
        except (RuntimeError, SafetensorError) as error:      # how both libraries tell a full disk
            raise OSError(cause_of(error)) from error
    try:
        files.write(path, guarded)
    except files.OutputError as error:
        raise _refused(path, error.__cause__) from error


def _refused(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write {path}: {cause_of(error)}; free space or choose another runs "
                    "folder, then call again: the run continues from its last checkpoint")


def write_text(path: Path, text: str) -> None:
    write(path, lambda p: p.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, values: dict) -> None:
    write_text(path, json.dumps(values, indent=1))


def save_weights(path: Path, state: dict) -> None:
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    write(path, lambda p: save_file(tensors, p))


def versions() -> dict[str, str]:
    """Return versions of what computed the run; `s4d` is the digest of this package's sources."""
    packages = ("torch", "torchvision", "timm", "numpy")
    return {"s4d": code_version(), "python": platform.python_version(),
            **{p: version(p) for p in packages}}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"


class Log:
    """Append rows to metrics.jsonl.

    Args:
        length: rows that the checkpoint counts; later ones are cut off, so that no step stands
            twice.
    """

    def __init__(self, path: Path, length: int = 0):
        self.path = path
        lines = path.read_text().splitlines()[:length] if length and path.exists() else []
        write_text(path, "".join(line + "\n" for line in lines))
        self.length = len(lines)

    def add(self, row: dict) -> None:
        try:
            with open(self.path, "a") as f:
                f.write(json.dumps(row) + "\n")
        except OSError as error:
            raise _refused(self.path, error) from error
        self.length += 1

    def sync(self) -> None:
        """Bring the rows to the disk, before a checkpoint that counts them."""
        try:
            files.sync(self.path)
        except OSError as error:
            raise _refused(self.path, error) from error


class Board:
    """Write curves for TensorBoard into the run's folder.

    Raises:
        ConfigError: where it is not installed.
    """

    def __init__(self, folder: Path, step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise configs.ConfigError("tensorboard=True, but TensorBoard is not "
                                      "installed: pip install tensorboard, or leave the option "
                                      "out") from error
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def add(self, row: dict) -> None:
        for key, value in row.items():
            if key not in ("step", "modality"):
                self.writer.add_scalar(f"{row['modality']}/{key}", value, row["step"])

    def close(self) -> None:
        self.writer.close()
