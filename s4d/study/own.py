"""From a folder of one's own to a trained model, scores with intervals and figures, in one call."""
from pathlib import Path

import numpy as np
import pandas as pd

from .. import config as configs
from ..config import Finetune, Source
from ..data import DatasetError, index, read_clip
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


def configure(photos: str | Path | None = None, clips: str | Path | None = None,
              subject_separator: str | None = None, profile: str = "sandbox", init=None,
              steps: int = 300, data: str = "data", runs: str = "runs") -> Finetune:
    """Return the configuration that trains on own folders: one task, or S4D where both are given.

    Args:
        init: a pre-training configuration, a checkpoint file, or None: from scratch.
        steps: of training, about; at least an epoch.
    """
    if photos is None and clips is None:
        raise DatasetError("no folder was given: name one of photos, one of clips, or both")
    given = {"image": photos, "video": clips}
    for task, folder in given.items():
        if folder is not None:
            labels = set(index(KINDS[task], folder, subject_separator=subject_separator)["label"])
            names = next(v for v in (EMOTIONS, EMOTIONS_8, EMOTIONS_11) if labels <= set(v))
            given[task] = Source(KINDS[task], str(folder), num_classes=len(names),
                                 subject_separator=subject_separator)
    method = "static" if clips is None else "s4d"
    method = "dynamic" if photos is None else method
    base = configs.profile(profile, data=data, runs=runs).finetune
    cfg = configs.update(base, **given, **configs.METHODS[method], init=init,
                         image_epoch_fraction=1.0)
    plain = configs.update(cfg, cache=False)              # counting steps needs no pixels
    splits = {task: samples_of(plain, task, table, "train") for task, table in tables(cfg).items()}
    return configs.update(cfg, epochs=max(1.0, round(steps / len(plan_batches(cfg, splits, 0)))))


def study(photos: str | Path | None = None, clips: str | Path | None = None,
          out: str | Path = "build/own", profile: str = "sandbox", data: str = "data",
          runs: str = "runs", **settings) -> tuple[Run, pd.DataFrame, pd.DataFrame, list[Path]]:
    """Check own folders, train on them, score the test split and draw it all into `out`.

    `settings` are those of `configure`. Returns: the run; `protocol` of the test split, by task;
    problems of the audit with which training went on (kind, path, problem); written files.
    """
    cfg, problems = configure(photos, clips, profile=profile, data=data, runs=runs, **settings), []
    for source in sources(cfg).values():
        problems.append(examine(source.name, source.root)[0])
        unusable = problems[-1].query(f"kind in {UNUSABLE}")
        if len(unusable):
            path, problem = unusable[["path", "problem"]].iloc[0]
            raise DatasetError(f"{len(unusable)} of the {source.name} in {source.root} cannot be "
                               f"used, the first is {path}: {problem}; repair or remove them")
    faces = configs.profile(profile, data=data, runs=runs).faces
    if faces is not None and isinstance(cfg.init, configs.Pretrain):
        from ..faces import corpus
        corpus.ensure(faces, data=data)
    run = train(cfg, runs)
    tested = run.predictions().query("split == 'test'")
    scores = [protocol({task: rows}) for task, rows in tested.groupby("task")]
    scores = pd.concat(scores, ignore_index=True).rename(columns={"part": "task"})
    files = draw(run, tested, scores, Path(out))
    return run, scores, pd.concat(problems, ignore_index=True), files


def draw(run: Run, tested: pd.DataFrame, scores: pd.DataFrame, out: Path) -> list[Path]:
    """Write samples, confusion matrix and learning curves as PNG and PDF, and both tables."""
    cfg, note = run.config, f"own data, {run.dir.name}"
    shares = pd.concat(confusion(rows, sources(cfg)[task].num_classes).assign(task=task)
                       for task, rows in tested.groupby("task"))
    total = shares.groupby(["task", "label"])["count"].transform("sum")
    seen = shares.assign(samples=total, method="").query("samples > 0")
    logged = run.metrics().set_index("step")
    curves, axes = figure(PAGE, 2.6, 1, 2)
    for task in cfg.tasks:
        style = dict(color=TASK_COLOURS[task], label=TASK_LABELS[task])
        losses = logged["loss"][logged["modality"] == task]
        axes[0].plot(losses.rolling(25, min_periods=1, center=True).median(), **style)
        validated = logged[f"{task}_uar"][logged["modality"] == "val"]
        axes[1].plot(100 * validated, marker=".", **style)
    axes[0].set(xlabel="step", ylabel="loss (running median of 25 steps)")
    axes[1].set(xlabel="step", ylabel="validation UAR (%)")
    axes[1].legend()
    drawn = {"confusion": figures.confusion(seen, note), "curves": curves}
    for task, rows in tables(cfg).items():      # a few samples of each class, the middle frame
        chosen = rows.sample(frac=1, random_state=0).groupby("label").head(ACROSS)
        chosen = chosen.sort_values(["label", "path"])
        clips = [read_clip(Path(sources(cfg)[task].root) / path, size=cfg.img_size)
                 for path in chosen["path"]]
        middle = np.stack([clip[len(clip) // 2] for clip in clips])
        labels = list(chosen["label"] + "\n" + chosen["split"])
        drawn[KINDS[task]] = face_figures.sheet(middle, labels, ACROSS, note)
    savers = {out / "scores.csv": lambda p: scores.to_csv(p, index=False),
              out / "predictions.csv": lambda p: tested.to_csv(p, index=False)}
    for name, fig in drawn.items():
        savers |= {out / file: save for file, save in pictures(fig, name).items()}
    write_all(savers)
    return list(savers)
