"""What a store of runs holds: state, what their configurations differ in, best scores, learning curves."""
from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd

from . import config as configs
from .study.figures.style import PAGE, TASK_COLOURS, TASK_LABELS, figure
from .training.runs import Run, RunError, write
from .training.state import NEWEST, PREVIOUS, Lock

COLUMNS = ["run", "state", "steps", "best_image", "best_video", "changed", "differs"]


def found(runs: str | Path) -> list[Run]:
    """The runs of a store, by time of their last change.

    Raises:
        RunError: when there is none.
    """
    folders = [p.parent for p in Path(runs).glob("*/config.json")]
    if not folders:
        raise RunError(f"{runs} holds no runs: `python -m s4d pretrain` and `python -m s4d finetune` make some, --runs names another "
                       "folder")
    return [Run(p) for p in sorted(folders, key=lambda p: (p / "metrics.jsonl").stat().st_mtime if (p / "metrics.jsonl").exists() else 0.0)]


def rows_of(run: Run) -> list[dict]:
    """Rows of metrics.jsonl; a last line that is just being written is left out."""
    path, rows = run.dir / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def state(run: Run) -> str:
    """finished, running (by whom), interrupted, or begun where no state was saved."""
    if run.done:
        return "finished"
    holder = Lock.holder(run.dir)
    if holder:
        return f"running: {holder}"
    return "interrupted" if (run.dir / NEWEST).exists() or (run.dir / PREVIOUS).exists() else "begun, nothing saved"


def flat(values: dict, prefix: str = "") -> dict:
    """Nested settings as {a.b: value}; folders and what a run is carried out with are left out."""
    out = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        elif key not in configs.HOW and key != "kind":
            out[prefix + key] = tuple(value) if isinstance(value, list) else value
    return out


def differences(settings: dict[str, dict]) -> dict[str, str]:
    """By run, the settings in which the runs of its stage are not all alike.

    Args:
        settings: run -> flat settings, with `stage`.
    """
    out = {}
    for name, mine in settings.items():
        peers = [s for s in settings.values() if s["stage"] == mine["stage"]]
        keys = [k for k in mine if any(p.get(k, None) != mine[k] for p in peers)]
        keys = [k for k in keys if not (k.startswith("init.") and k != "init.seed" and len(keys) > 6)]
        init = ", init=pretrained" if any(k.startswith("init.") for k in mine) and any("init" in p for p in peers) else ""
        out[name] = ", ".join(f"{k}={_short(mine[k])}" for k in keys if not k.startswith("init.")) + init or "-"
    return out


def _short(value) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def table(runs: str | Path) -> pd.DataFrame:
    """One row a run: name, state, steps, best validation UAR of either task (a share), time of the last change, differences."""
    listed, rows = found(runs), []
    settings = {r.dir.name: flat(r.settings) | {"stage": r.dir.name.split("-")[0]} for r in listed}
    differs = differences(settings)
    for run in listed:
        metrics = rows_of(run)
        done = max((r["step"] + (r["modality"] != "val") for r in metrics), default=0)
        best = {task: max((r[f"{task}_uar"] for r in metrics if f"{task}_uar" in r), default=None) for task in ("image", "video")}
        changed = max(p.stat().st_mtime for p in run.dir.iterdir())
        rows.append((run.dir.name, state(run), done, best["image"], best["video"], time.strftime("%Y-%m-%d %H:%M", time.localtime(changed)),
                     differs[run.dir.name]))
    return pd.DataFrame(rows, columns=COLUMNS)


def text(found_: pd.DataFrame) -> str:
    """The table for a terminal, scores in per cent."""
    shown = found_.copy()
    for task in ("image", "video"):
        shown[f"best_{task}"] = ["-" if pd.isna(v) else f"{100 * v:.1f}" for v in found_[f"best_{task}"]]
    shown = shown.rename(columns={"best_image": "photos UAR %", "best_video": "clips UAR %", "changed": "last change"})
    lines = [list(shown.columns), *shown.astype(str).values.tolist()]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(v.ljust(w) for v, w in zip(line, widths)).rstrip() for line in lines)


def curves(chosen: list[Run]):
    """Losses over the steps, and validation UAR, of up to a handful of runs: a matplotlib figure."""
    fig, axes = figure(PAGE, 2.6, 1, 2)
    styles = ("-", "--", ":", "-.")
    for i, run in enumerate(chosen):
        rows = pd.DataFrame(rows_of(run))
        for task in ("image", "video"):
            losses = rows[rows["modality"] == task] if len(rows) else rows
            label = f"{TASK_LABELS[task]}, {run.dir.name[:18]}"
            if len(losses):
                smooth = losses["loss"].rolling(25, min_periods=1, center=True).median()
                axes[0].plot(losses["step"], smooth, styles[i % 4], color=TASK_COLOURS[task], lw=1, label=label)
            if f"{task}_uar" in rows:
                scores = rows[rows["modality"] == "val"].dropna(subset=f"{task}_uar")
                axes[1].plot(scores["step"], 100 * scores[f"{task}_uar"], styles[i % 4], color=TASK_COLOURS[task], lw=1, marker="o",
                             ms=2.5, label=label)
    axes[0].set(xlabel="step", ylabel="loss (running median of 25 steps)")
    axes[1].set(xlabel="step", ylabel="validation UAR (%)")
    for ax in axes:
        if ax.has_data():
            ax.legend(fontsize=5.5)
        else:
            ax.text(0.5, 0.5, "nothing yet", ha="center", va="center", transform=ax.transAxes)
    return fig


def draw(runs: str | Path, names: list[str], out: str | Path) -> Path:
    """Draws the learning curves of the runs whose names begin so, or of the newest one; returns the picture's path.

    Raises:
        RunError: for a name that no run has, and when the picture cannot be written.
    """
    listed = found(runs)
    chosen = [] if names else listed[-1:]
    for name in names:
        fitting = [r for r in listed if r.dir.name.startswith(Path(name).name)]
        if not fitting:
            raise RunError(f"no run in {runs} begins with {name!r}: `python -m s4d runs` lists them")
        chosen += fitting
    out = Path(out)
    if out.suffix not in (".png", ".pdf"):
        raise RunError(f"cannot draw into {out}: expected a name that ends in .png or .pdf")
    write(out, lambda path: curves(chosen).savefig(path, format=out.suffix[1:]))
    return out
