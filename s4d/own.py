"""From a folder of one's own to a trained model, scores with intervals and figures, in one call."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from . import config as configs
from .study.protocol import confusion, protocol
from .artifacts import pictures
from .files import write_all
from .config import Finetune, Source
from .data import index, read_clip
from .data.audit import examine
from .emotions import EMOTIONS, EMOTIONS_8, EMOTIONS_11
from .overview import curves
from .study.figures import faces as face_plots
from .study.figures import finetuning as plots
from .training import Run, train
from .training.finetune import part, plan, sources, tables

DATASETS = {"image": "photos", "video": "clips"}      # names in the registry, by task
STOPS = ("unreadable", "empty", "sizes", "gap")       # kinds of an audit's problems with which training would be of no use
ACROSS = 8                                            # samples of a class in the figure, at most


class OwnError(ValueError):
    """A folder of one's own cannot be used; the message names the file or the folder and what to do."""


@dataclass(frozen=True)
class Study:
    """What one call made."""

    run: Run
    scores: pd.DataFrame          # task, metric, value, low, high, samples: of the test part
    problems: pd.DataFrame        # of the audit, with which training went on: kind, path, problem
    files: list[Path]             # written figures and tables


def source_of(task: str, folder: str | Path, people: str | None = None) -> Source:
    """A folder as a dataset, its vocabulary the smallest that has all of its classes (7, 8 or 11 emotions).

    Raises:
        DatasetError, LabelError: for a folder that is no dataset, see `s4d.data.corpora.own`.
    """
    labels = set(index(DATASETS[task], folder, subject_separator=people)["label"])
    classes = next(len(names) for names in (EMOTIONS, EMOTIONS_8, EMOTIONS_11) if labels <= set(names))
    return Source(DATASETS[task], str(folder), num_classes=classes, subject_separator=people)


def check(source: Source) -> pd.DataFrame:
    """Decodes every file of a folder; returns the problems that are to be known and leave the rest usable.

    Raises:
        OwnError: when files cannot be read.
    """
    problems, _ = examine(source.name, source.root)
    worst = problems[problems["kind"].isin(STOPS)]
    if len(worst):
        first = worst.iloc[0]
        raise OwnError(f"{len(worst)} of the {source.name} in {source.root} cannot be used, the first is {first.path}: {first.problem}; repair or "
                       f"remove them (`python -m s4d audit {source.name} {source.root}` lists all)")
    return problems


def configure(photos: str | Path | None = None, clips: str | Path | None = None, people: str | None = None, profile: str = "sandbox",
              init: str | None = None, steps: int = 300, seed: int = 0, data: str = "data", runs: str = "runs") -> Finetune:
    """The configuration that trains on own folders: one task where one folder is given, S4D where both are.

    Args:
        photos, clips: folders; one may be None.
        people: the sign that ends a person's name in a file's name.
        profile: whose model, sizes and learning rate.
        init: "profile" for its pre-training, None for a start from scratch, or a checkpoint file.
        steps: of training, about; each of one modality.
        seed: of the training.
        data, runs: where the profile's own corpora and runs lie.
    Raises:
        OwnError, DatasetError, LabelError, ConfigError: one sentence each.
    """
    if photos is None and clips is None:
        raise OwnError("no folder was given: name one of photos, one of clips, or both")
    if steps < 1:
        raise OwnError(f"steps is {steps}: expected the number of training steps, 1 or more")
    given = {"image": photos, "video": clips}
    own = {task: None if folder is None else source_of(task, folder, people) for task, folder in given.items()}
    method = "s4d" if all(own.values()) else "static" if photos is not None else "dynamic"
    settings = configs.profile(profile, data=data, runs=runs)
    cfg = configs.update(settings.finetune, **own, **configs.METHODS[method], init=settings.pretrain if init == "profile" else init, seed=seed,
                         image_epoch_fraction=1.0)
    plain = configs.update(cfg, cache=False)              # counting steps needs no pixels
    trained = {task: part(plain, task, rows, "train") for task, rows in tables(cfg).items()}
    return configs.update(cfg, epochs=max(1.0, round(steps / len(plan(cfg, trained, 0)))))


def study(photos: str | Path | None = None, clips: str | Path | None = None, out: str | Path = "build/own", profile: str = "sandbox",
          data: str = "data", runs: str = "runs", resamples: int = 2000, **settings) -> Study:
    """Checks own folders, trains on them, scores the test part and draws it all.

    Args:
        photos, clips, profile, data, runs: as for `configure`.
        out: folder of figures and tables.
        resamples: of the bootstrap.
        settings: people, init, steps and seed, as for `configure`.
    Returns:
        the `Study`. The same call finds the finished run.
    Raises:
        OwnError, DatasetError, LabelError, ConfigError, RunError: one sentence each.
    """
    cfg = configure(photos, clips, profile=profile, data=data, runs=runs, **settings)
    problems = pd.concat([check(source) for source in sources(cfg).values()], ignore_index=True)
    prof = configs.profile(profile, data=data, runs=runs)
    if prof.faces is not None and isinstance(cfg.init, configs.Pretrain):
        from .faces import corpus
        corpus.ensure(prof.faces, data=data)
    run = train(cfg, runs)
    tested = run.predictions().query("split == 'test'")
    scores = pd.concat([protocol({task: rows}, resamples).rename(columns={"part": "task"}) for task, rows in tested.groupby("task")],
                       ignore_index=True)
    return Study(run, scores, problems, draw(run, tested, scores, Path(out)))


def draw(run: Run, tested: pd.DataFrame, scores: pd.DataFrame, out: Path) -> list[Path]:
    """Samples of each class, the confusion matrix and the learning curves as PNG and PDF; scores and predictions as CSV."""
    cfg, note = run.config, f"own data, {run.dir.name}"
    shares = pd.concat([confusion(rows, sources(cfg)[task].num_classes).assign(task=task) for task, rows in tested.groupby("task")])
    seen = shares.assign(samples=shares.groupby(["task", "label"])["count"].transform("sum")).query("samples > 0")
    figures = {"confusion": plots.confusion(seen, note), "curves": curves([run])}
    figures |= {DATASETS[task]: samples(cfg, task, rows, note) for task, rows in tables(cfg).items()}
    savers = {out / "scores.csv": lambda p: scores.to_csv(p, index=False), out / "predictions.csv": lambda p: tested.to_csv(p, index=False)}
    savers |= {out / file: save for name, fig in figures.items() for file, save in pictures(fig, name).items()}
    write_all(savers)
    return list(savers)


def samples(cfg: Finetune, task: str, rows: pd.DataFrame, note: str):
    """A few samples of each class, of clips the middle frame, each with its emotion above and its split below."""
    chosen = [r for _, group in rows.groupby("label", sort=True) for r in group.sort_values("path").iloc[
        np.unique(np.linspace(0, len(group) - 1, ACROSS).round().astype(int))].itertuples()]
    clips = [read_clip(Path(sources(cfg)[task].root) / r.path, size=cfg.img_size) for r in chosen]
    return face_plots.sheet(np.stack([c[len(c) // 2] for c in clips]), [f"{r.label}\n{r.split}" for r in chosen], ACROSS, note)
