"""The store of what was trained: one folder a run, named by its configuration and its data."""
from __future__ import annotations

import json
import platform
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .. import config as configs
from .. import files
from ..files import code_version


class RunError(RuntimeError):
    """Training cannot go on; the message says why and what to do. The last saved state is intact."""


@dataclass(frozen=True)
class Run:
    """A folder: config.json, metrics.jsonl, weights.safetensors, predictions.csv, provenance.json; two states while it trains."""

    dir: Path

    @property
    def settings(self) -> dict:
        """The configuration as it was written down, also by another version of this project."""
        return self._read("config.json", lambda path: json.loads(path.read_text()))

    @cached_property
    def config(self):
        return configs.from_dict(self.settings)

    @property
    def done(self) -> bool:
        return (self.dir / "provenance.json").is_file()     # written last

    @property
    def provenance(self) -> dict:
        return self._read("provenance.json", lambda path: json.loads(path.read_text()))

    def metrics(self) -> pd.DataFrame:
        """One row a logged step or epoch."""
        return self._read("metrics.jsonl", lambda path: pd.read_json(path, lines=True))

    def predictions(self) -> pd.DataFrame:
        """One row a sample: path, task, split, subject, label, predicted, prob_<emotion>."""
        return self._read("predictions.csv", lambda path: pd.read_csv(path, dtype={"subject": str, "path": str}))

    def _read(self, name: str, read):
        """A file of the run, or a RunError that names it."""
        path = self.dir / name
        try:
            return read(path)
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path} ({cause_of(error)}): it is missing or damaged; remove the folder {self.dir} and "
                           "train again") from error

    def load(self) -> torch.nn.Module:
        """The trained model, in evaluation mode, on the CPU."""
        model, path = build(self.config), self.dir / "weights.safetensors"
        try:
            model.load_state_dict(load_file(path))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunError(f"cannot read {path} ({cause_of(error)}): it is missing or damaged; remove the folder {self.dir} and "
                           "train again") from error
        return model.eval()


def cause_of(error: Exception) -> str:
    """An error's first line; torch raises some without a text, and for a file that cannot be written one that hides the reason."""
    if "enforce fail" in str(error) and isinstance(error.__context__, OSError):
        error = error.__context__
    return getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)


def build(cfg) -> torch.nn.Module:
    """The untrained model of a configuration.

    Raises:
        ConfigError: for an unknown model, and for one of the other stage.
    """
    from ..models import create
    pre = isinstance(cfg, configs.Pretrain)
    size = cfg.model.removeprefix("s4d_").removeprefix("mae_")
    wanted = f"s4d_mae_{size}" if pre else f"s4d_{size}"
    if cfg.model.startswith("s4d_") and cfg.model != wanted:
        raise configs.ConfigError(f"{type(cfg).__name__}.model is {cfg.model!r}, a model of the other stage: {cfg.stage} takes {wanted}")
    if pre:
        return create(cfg.model, img_size=cfg.img_size, num_frames=cfg.num_frames)
    classes = {f"{t}_classes": s.num_classes for t, s in (("image", cfg.image), ("video", cfg.video)) if s is not None}
    model = create(cfg.model, img_size=cfg.img_size, num_frames=cfg.num_frames, num_experts=cfg.num_experts, top_k=cfg.top_k, moae_start=cfg.moae_start,
                   adapter_reduction=cfg.adapter_reduction, drop_path_rate=cfg.drop_path_rate, **classes)
    for layer in model.moae_layers().values():
        layer.noise_mode, layer.capacity_factor = "train" if cfg.router_noise else "never", cfg.capacity_factor or None
    return model


def run_dir(cfg, runs: str | Path, fingerprints: list[str]) -> Path:
    """Where the run of this configuration on these data lives.

    Args:
        fingerprints: hexadecimal texts that name the data, and what training starts from.
    """
    data = "".join(f[:8] for f in fingerprints)
    return Path(runs) / f"{cfg.stage}-{configs.digest(cfg)}-{data}"


def write(path: Path, save) -> None:
    """`files.write`, with the sentence of a run.

    Raises:
        RunError: when the folder is full, over its quota, read-only or gone; nothing half-written stays.
    """
    def guarded(draft: Path) -> None:
        try:
            save(draft)
        except (RuntimeError, SafetensorError) as error:      # how torch and safetensors report a full disk
            raise OSError(cause_of(error)) from error
    try:
        files.write(path, guarded)
    except files.OutputError as error:
        raise RunError(f"cannot write {path}: {cause_of(error.__cause__)}; free space or choose another runs folder, then call again: "
                       "the run continues from its last state") from error


def write_text(path: Path, text: str) -> None:
    write(path, lambda p: p.write_text(text, encoding="utf-8", newline="\n"))


def save_weights(path: Path, state: dict) -> None:
    write(path, lambda p: save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, p))


def versions() -> dict[str, str]:
    """Versions of what computed the run; `s4d` is the digest of this package's sources."""
    from importlib.metadata import version
    return {"s4d": code_version(), "python": platform.python_version(),
            **{p: version(p) for p in ("torch", "torchvision", "timm", "numpy")}}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"


class Log:
    """metrics.jsonl: appended line by line, cut back to the resumed state's length so that no step stands twice."""

    def __init__(self, path: Path, length: int = 0):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines()[:length] if length and path.exists() else []
        write_text(path, "".join(line + "\n" for line in lines))
        self.length = len(lines)

    def sync(self) -> None:
        """Brings the rows to the disk, before a state that counts them."""
        try:
            files.sync(self.path)
        except OSError as error:
            raise self.failed(error) from error

    def failed(self, error: OSError) -> RunError:
        return RunError(f"cannot write {self.path}: {error.strerror}; free space or restore the folder, then call again: the run "
                        "continues from its last state")

    def add(self, **row) -> None:
        try:
            with open(self.path, "a") as f:
                f.write(json.dumps(row) + "\n")
        except OSError as error:
            raise self.failed(error) from error
        self.length += 1


def forget(paths: list[Path]) -> None:
    """Removes run folders."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
