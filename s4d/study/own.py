"""From a folder of one's own to a trained model, scores with intervals and figures, in one call."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .. import config as configs
from ..config import Finetune, Source
from ..data import index, read_clip
from ..data.audit import examine
from ..emotions import EMOTIONS, EMOTIONS_8, EMOTIONS_11
from ..files import write_all
from ..training import Run, plan_batches, samples_of, sources, tables, train
from .artifacts import pictures
from .figures import faces as face_figures
from .figures import finetuning as figures
from .figures.style import KINDS, PAGE, TASK_COLOURS, TASK_LABELS, figure
from .protocol import confusion, protocol

UNUSABLE = ("unreadable", "empty", "frames")          # kinds of problems that stop a training
ACROSS = 8                                            # samples of a class in the figure, at most


class OwnError(ValueError):
    """An own folder cannot be used; the message names it and what to do."""


@dataclass(frozen=True)
class Study:
    """What one call made."""

    run: Run
    scores: pd.DataFrame          # task, metric, value, low, high, samples: of the test split
    problems: pd.DataFrame        # of the audit, with which training went on: kind, path, problem
    files: list[Path]             # written figures and tables


def check(source: Source) -> pd.DataFrame:
    """Decode every file of a folder; return the problems that leave the rest usable."""
    problems, _ = examine(source.name, source.root)
    worst = problems[problems["kind"].isin(UNUSABLE)]
    if len(worst):
        first = worst.iloc[0]
        raise OwnError(f"{len(worst)} of the {source.name} in {source.root} cannot be used, the "
                       f"first is {first.path}: {first.problem}; repair or remove them (`python "
                       f"-m s4d audit {source.name} {source.root}` lists all)")
    return problems


def configure(photos: str | Path | None = None, clips: str | Path | None = None,
              subject_separator: str | None = None, profile: str = "sandbox", init=None,
              steps: int = 300, seed: int = 0, data: str = "data", runs: str = "runs") -> Finetune:
    """Return the configuration that trains on own folders: one task, or S4D where both are given.

    A dataset gets the smallest vocabulary that has all its classes.

    Args:
        profile: whose model, sizes and learning rate.
        init: a pre-training configuration, a checkpoint file, or None: from scratch.
        steps: of training, about; each of one modality.
    """
    if photos is None and clips is None:
        raise OwnError("no folder was given: name one of photos, one of clips, or both")
    if steps < 1:
        raise OwnError(f"steps is {steps}: expected the number of training steps, 1 or more")
    given = {"image": photos and str(photos), "video": clips and str(clips)}
    method = "static" if clips is None else "s4d"
    method = "dynamic" if photos is None else method
    for task, folder in given.items():
        if folder is not None:
            labels = set(index(KINDS[task], folder, subject_separator=subject_separator)["label"])
            names = next(v for v in (EMOTIONS, EMOTIONS_8, EMOTIONS_11) if labels <= set(v))
            given[task] = Source(KINDS[task], folder, num_classes=len(names),
                                 subject_separator=subject_separator)
    base = configs.profile(profile, data=data, runs=runs).finetune
    cfg = configs.update(base, **given, **configs.METHODS[method], init=init, seed=seed,
                         image_epoch_fraction=1.0)
    plain = configs.update(cfg, cache=False)              # counting steps needs no pixels
    splits = {task: samples_of(plain, task, table, "train") for task, table in tables(cfg).items()}
    return configs.update(cfg, epochs=max(1.0, round(steps / len(plan_batches(cfg, splits, 0)))))


def study(photos: str | Path | None = None, clips: str | Path | None = None,
          out: str | Path = "build/own", profile: str = "sandbox", data: str = "data",
          runs: str = "runs", resamples: int = 2000, **settings) -> Study:
    """Check own folders, train on them, score the test split and draw it all into `out`.

    The same call finds the finished run.

    Args:
        resamples: of the bootstrap.
        settings: subject_separator, init, steps and seed, as for `configure`.
    """
    cfg = configure(photos, clips, profile=profile, data=data, runs=runs, **settings)
    problems = pd.concat([check(s) for s in sources(cfg).values()], ignore_index=True)
    faces = configs.profile(profile, data=data, runs=runs).faces
    if faces is not None and isinstance(cfg.init, configs.Pretrain):
        from ..faces import corpus
        corpus.ensure(faces, data=data)
    run = train(cfg, runs)
    tested = run.predictions().query("split == 'test'")
    scores = [protocol({task: rows}, resamples) for task, rows in tested.groupby("task")]
    table = pd.concat(scores, ignore_index=True).rename(columns={"part": "task"})
    return Study(run, table, problems, draw(run, tested, table, Path(out)))


def draw(run: Run, tested: pd.DataFrame, scores: pd.DataFrame, out: Path) -> list[Path]:
    """Write samples, confusion matrix and learning curves as PNG and PDF, and both tables."""
    cfg, note = run.config, f"own data, {run.dir.name}"
    shares = pd.concat(confusion(rows, sources(cfg)[task].num_classes).assign(task=task)
                       for task, rows in tested.groupby("task"))
    total = shares.groupby(["task", "label"])["count"].transform("sum")
    seen = shares.assign(samples=total).query("samples > 0")
    drawn = {"confusion": figures.confusion(seen, note), "curves": curves(run)}
    for task, rows in tables(cfg).items():
        drawn[KINDS[task]] = samples(cfg, task, rows, note)
    savers = {out / "scores.csv": lambda p: scores.to_csv(p, index=False),
              out / "predictions.csv": lambda p: tested.to_csv(p, index=False)}
    for name, fig in drawn.items():
        savers |= {out / file: save for file, save in pictures(fig, name).items()}
    write_all(savers)
    return list(savers)


def samples(cfg: Finetune, task: str, rows: pd.DataFrame, note: str):
    """Draw a few samples of each class, of clips the middle frame."""
    chosen = []
    for _, group in rows.groupby("label", sort=True):
        places = np.unique(np.linspace(0, len(group) - 1, ACROSS).round().astype(int))
        chosen += list(group.sort_values("path").iloc[places].itertuples())
    root = Path(sources(cfg)[task].root)
    clips = [read_clip(root / r.path, size=cfg.img_size) for r in chosen]
    labels = [f"{r.label}\n{r.split}" for r in chosen]
    return face_figures.sheet(np.stack([c[len(c) // 2] for c in clips]), labels, ACROSS, note)


def curves(run: Run):
    """Draw losses over the steps and validation UAR."""
    rows = run.metrics()
    fig, axes = figure(PAGE, 2.6, 1, 2)
    for task in run.config.tasks:
        losses = rows[rows["modality"] == task]
        style = dict(color=TASK_COLOURS[task], lw=1, label=TASK_LABELS[task])
        smooth = losses["loss"].rolling(25, min_periods=1, center=True).median()
        axes[0].plot(losses["step"], smooth, **style)
        scores = rows[rows["modality"] == "val"]
        axes[1].plot(scores["step"], 100 * scores[f"{task}_uar"], marker="o", ms=2.5, **style)
    axes[0].set(xlabel="step", ylabel="loss (running median of 25 steps)")
    axes[1].set(xlabel="step", ylabel="validation UAR (%)")
    axes[1].legend()
    return fig
