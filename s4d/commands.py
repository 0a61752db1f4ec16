"""The commands. Each imports what it needs when it is called, so that `--help` is quick."""
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from . import config as configs
from .config import ConfigError
from .files import write, write_all, write_text

Folder = Annotated[str, arg(metavar="FOLDER")]
Dataset = Annotated[str, Positional, arg(metavar="DATASET")]
Root = Annotated[str, Positional, arg(metavar="FOLDER")]
CPUS = min(8, os.cpu_count() or 1)


def say(sentence: str) -> None:
    print(f"s4d: {sentence}", file=sys.stderr)


def faces(profile: str = "sandbox", data: Folder = "data") -> None:
    """Write the procedural-face corpora of a profile: smoke, sandbox, night or gpu."""
    from .faces import corpus
    settings = configs.profile(profile, data=data)
    if settings.faces is None:
        raise ConfigError(f"profile {profile} reads licensed data, not procedural faces")
    print(corpus.ensure(settings.faces, data, CPUS, progress=sys.stderr.isatty()))


def audit(dataset: Dataset, root: Root, fold: int | None = None, label_order: str | None = None,
          csv: str | None = None, workers: int = CPUS) -> int:
    """Check a dataset's files against its lists; exit status 1 when there are problems.

    Args:
        dataset: name, e.g. affectnet.
        fold: of datasets with folds; all when left out.
        label_order: of the lists' integers, where the lists do not tell it.
        csv: file for the table of all problems.
    """
    from .data.audit import examine, report
    problems, counts = examine(dataset, root, fold, workers, label_order)
    print(report(problems, counts))
    if csv:
        write(csv, lambda p: problems.to_csv(p, index=False))
    return int((problems["kind"] != "note").any())


def pack(dataset: Dataset, root: Root, img_size: int = 160, fold: int | None = None,
         label_order: str | None = None, workers: int = CPUS) -> int:
    """Decode a dataset once into a memory-mapped file beside it; exit status 1 when samples fail.

    Args:
        img_size: side of the model's input in px; photos keep up to twice as much.
        fold: of datasets with folds; all when left out, since they share the file.
        label_order: of the lists' integers, where the lists do not tell it.
    """
    import pandas as pd

    from .data import index, packed
    from .data.corpora import find
    from .data.dataset import DECODED
    found = find(dataset, root)
    folds = [fold] if fold is not None else found.folds or [None]
    tables = [index(dataset, root, fold=k, label_order=label_order) for k in folds]
    table = pd.concat(tables).drop_duplicates("path").sort_values("path")
    cache = packed(table, root, DECODED[found.task] * img_size, num_workers=workers)
    for path, cause in cache.unreadable.items():
        say(f"{path} cannot be read: {cause}")
    print(f"{cache.file}: {len(table) - len(cache.unreadable)} samples")
    return int(len(cache.unreadable) > 0)


def init_of(text: str, profile: configs.Profile):
    """Return what training starts from: the profile's pre-training, nothing, or a file."""
    if text in ("profile", "none"):
        return profile.pretrain if text == "profile" else None
    if not Path(text).is_file():
        raise ConfigError(f"no checkpoint {text!r}: --init takes `profile`, `none` or a file")
    return text


def own(photos: str | None = None, clips: str | None = None, subject_separator: str | None = None,
        profile: str = "sandbox", data: Folder = "data", runs: Folder = "runs",
        init: str = "none", steps: int = 300, out: Folder = "build/own") -> int:
    """Train on own folders, one per class, then score and draw; exit status 1 on audit warnings.

    Args:
        photos: folder of photos, as in happy/001.jpg.
        clips: folder of clips, likewise; with both, they are trained jointly (S4D).
        subject_separator: ends a person's name in file names, as _ in anna_01.jpg.
        init: none; profile, for its pre-training; or a checkpoint file.
        steps: of training, about.
    """
    start = init_of(init, configs.profile(profile, data, runs))
    from .study.own import study
    from .study.protocol import as_text
    run, scores, problems, written = study(photos, clips, out, profile, data, runs, init=start,
                                           steps=steps, subject_separator=subject_separator)
    for task, rows in scores.groupby("task"):
        print(f"\n{task}, test: {rows['samples'].iloc[0]} samples; per cent [95 % interval over "
              f"people, or samples of unknown people]\n{as_text(rows)}")
    for row in problems.itertuples():
        say(f"{row.path}: {row.problem}")
    print(f"{run.dir}; {len(written)} files in {out}")
    return int(len(problems) > 0)


def runs(runs: Folder = "runs") -> None:
    """List the runs of a store: state, steps, best validation scores, differing settings."""
    import pandas as pd

    from .training import Run, RunError
    found = [Run(path.parent) for path in sorted(Path(runs).glob("*/config.json"))]
    if not found:
        raise RunError(f"{runs} holds no runs: --runs names another folder")
    settings = pd.concat([pd.json_normalize(run.settings).astype(str) for run in found])
    rows = []
    for run, (_, values) in zip(found, settings.iterrows(), strict=True):
        peers = settings[settings["kind"] == values["kind"]]
        varied = values[(peers.nunique(dropna=False) > 1) & values.notna()]
        differing = [f"{name}={value}" for name, value in varied.items()
                     if not name.endswith(("root", "kind"))]
        log = run.metrics() if (run.dir / "metrics.jsonl").is_file() else pd.DataFrame()
        best = {f"best {task} UAR %": 100 * log[f"{task}_uar"][log["modality"] == "val"].max()
                for task in ("image", "video") if f"{task}_uar" in log}
        rows.append({"run": run.dir.name, "state": run.state, **best,
                     "differs in": ", ".join(differing[:8])})
    print(pd.DataFrame(rows).to_string(index=False, na_rep="-", float_format="{:.1f}".format))


def open_run(folder: str):
    """Return the finished fine-tuning run in a folder."""
    from .training import Run, RunError
    run = Run(Path(folder))
    if not (run.done and isinstance(run.config, configs.Finetune)):
        raise RunError(f"{folder} is not a finished fine-tuning run")
    return run


def evaluate(folders: Annotated[list[str], Positional, arg(metavar="RUN")],
             views: tuple[int, int] | None = None, features: str | None = None,
             csv: str | None = None, scores: str | None = None) -> int:
    """Score one run, or the runs of several folds; exit status 1 when a sample is unreadable.

    Args:
        folders: of fine-tuning runs; several are folds: each, their mean, their pool.
        views: along time and across the picture, as in 2 2: predict the test split anew.
        features: .npz file for the pooled features: predict the test split anew.
        csv: file for the predictions.
        scores: .csv file for the scores.
    """
    import numpy as np
    import pandas as pd

    from .study.protocol import as_text, protocol
    runs = {f"run {k}": open_run(folder) for k, folder in enumerate(folders, 1)}
    arrays, parts, tables = {}, [], []
    for name, run in runs.items():
        rows, pooled = predict_again(run, views) if views or features else (run.predictions(), {})
        arrays |= {f"{name}/{key}": values for key, values in pooled.items()}
        parts.append(rows.assign(part=name))
    every = pd.concat(parts, ignore_index=True)
    for (task, split), rows in every.groupby(["task", "split"]):
        table = protocol(dict(list(rows.groupby("part", sort=False))))
        tables.append(table.assign(task=task, split=split))
        print(f"\n{task}, {split}: {len(rows)} samples, {rows['predicted'].isna().sum()} "
              f"unreadable; per cent [95 % interval over people]\n{as_text(table)}")
        if split == "test":
            print(pd.crosstab(rows["label"], rows["predicted"].fillna("unreadable")).to_string())
    for name, run in runs.items():
        log = run.metrics().query("modality == 'test'")           # of --test-each-epoch
        if len(log):
            shown = log.filter(regex="^epoch$|_war$|_uar$").to_string(index=False)
            print(f"\n{name}, test after each epoch; the best of them is too good\n{shown}")
    lost = every.loc[every["predicted"].isna(), "path"].unique()
    for path in lost:
        say(f"{path} cannot be read: counted as an error")
    savers = {csv: lambda p: every.to_csv(p, index=False),
              scores: lambda p: pd.concat(tables).to_csv(p, index=False),
              features: lambda p: np.savez(p.open("wb"), **arrays)}    # a name would get an ending
    write_all({Path(file): save for file, save in savers.items() if file})
    return int(len(lost) > 0)


def predict_again(run, views: tuple[int, int] | None) -> tuple:
    """Return new predictions of the test split, and the pooled features by task and column."""
    import pandas as pd

    from .training import pick_device, predict, samples_of, tables
    cfg, out, arrays = run.config, [], {}
    if views:
        cfg = configs.update(cfg, test_segments=views[0], test_crops=views[1])
    model, listed = run.load().to(pick_device()), tables(cfg)
    for task in cfg.tasks:
        rows, _, pooled = predict(model, samples_of(cfg, task, listed[task], "test"),
                                  cfg.test_crops, num_workers=cfg.num_workers)
        out.append(rows)
        arrays |= {f"{task}/{column}": rows[column].to_numpy(str) for column in ("path", "label")}
        arrays[f"{task}/features"] = pooled
    return pd.concat(out, ignore_index=True), arrays


def predict(files: Annotated[list[str], Positional, arg(metavar="FILE")], run: str,
            answers: Annotated[str | None, arg(name="json")] = None, picture: str | None = None,
            along_time: bool = False) -> int:
    """Print class probabilities of files; exit status 1 when one cannot be read.

    Args:
        files: images, videos or folders of frames.
        run: folder of a fine-tuning run.
        answers: file for the answers.
        picture: .png or .pdf file for a picture of them.
        along_time: of clips, also in windows from start to end.
    """
    import pandas as pd

    from . import training
    from .data import MediaError, count_frames, read_clip
    from .data.dataset import Samples
    if picture and Path(picture).suffix not in (".png", ".pdf"):
        raise ConfigError(f"--picture is {picture!r}: expected a .png or .pdf file")
    opened = open_run(run)
    cfg, by_task, lost = opened.config, {}, {}
    for file in files:
        try:
            task = "image" if count_frames(Path(file)) == 1 else "video"
            by_task.setdefault(task, []).append(file)
            if task not in cfg.tasks:                      # its head is as it was at step 0
                raise ConfigError(f"run {run} was not trained on {task}s: it cannot judge {file}")
        except MediaError as error:
            lost[file] = str(error)
    model, found, courses = opened.load().to(training.pick_device()), [], {}
    for task, paths in by_task.items():
        table = pd.DataFrame({"path": paths, "split": "test", "subject": None, "label": None})
        data = Samples(table, "", task, cfg.img_size, cfg.num_frames, cfg.sampling_rate,
                       test_segments=cfg.test_segments, crop_box=getattr(cfg, task).crop_box)
        rows, bad, _ = training.predict(model, data, cfg.test_crops)
        lost |= {path: f"{path} cannot be read: {cause}" for path, cause in bad.items()}
        rows = rows[rows["predicted"].notna()].drop(columns=["split", "subject", "label"])
        found.append(rows)
        if along_time and task == "video":
            courses = {path: training.along_time(model, path, cfg) for path in rows["path"]}
    for table in (*found, *courses.values()):
        shown = table.rename(columns=lambda name: name.removeprefix("prob_"))
        print(shown.to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    for error in lost.values():
        say(error)
    table = pd.concat([*found, pd.DataFrame()], ignore_index=True)
    if answers:
        along = {path: rows.to_dict("records") for path, rows in courses.items()}
        content = dict(files=table.to_dict("records"), along_time=along, unreadable=lost)
        write_text(answers, pd.Series(content).to_json(indent=1) + "\n")       # NaN becomes null
    if picture and len(table):
        from .study.figures.finetuning import predictions
        pictures = [read_clip(path, [count_frames(path) // 2])[0] for path in table["path"]]
        figure = predictions(table, pictures, courses, f"run {Path(run).name}")
        write(picture, lambda p: figure.savefig(p, format=Path(picture).suffix[1:]))
    return int(len(lost) > 0)


def export(run: Annotated[str, Positional, arg(metavar="RUN")],
           out: Annotated[str, Positional, arg(metavar="FILE")]) -> None:
    """Write a finished run's weights in the format of the authors' release, a .pth file."""
    import torch

    from .models import to_released
    from .training import Run, RunError
    if not Run(Path(run)).done:
        raise RunError(f"{run} is not a finished run: nothing can be exported")
    state = {"model": to_released(Run(Path(run)).load())}
    write(out, lambda p: torch.save(state, p))
    print(out)


def reproduce(profile: str = "sandbox", data: Folder = "data", runs: Folder = "runs",
              out: str | None = None, fresh: bool = False, n_jobs: int | None = None,
              notebook: UseAppendAction[tuple[str, ...]] = (),
              parameter: Annotated[UseAppendAction[tuple[tuple[str, str], ...]],
                                   arg(aliases=["-p"], metavar="NAME VALUE")] = ()) -> None:
    """Make every figure and table of a profile; a second call redoes only what changed.

    Args:
        out: folder of the artifacts; figures for sandbox, figures/<profile> for others.
        fresh: forget the profile's corpora, runs and executed notebooks first.
        n_jobs: runs trained side by side; 1 needs the least memory.
        notebook: only this one; may be given several times.
        parameter: a further parameter of notebooks; may be given several times.
    """
    from .reproduce import reproduce as run
    from .study.artifacts import default_out
    run(profile, out or default_out(profile), data, runs, fresh, notebook, dict(parameter), n_jobs)


def verify(profile: str = "sandbox") -> int:
    """Compare the last run of a profile with the last commit; exit status 1 when a number fails."""
    from . import verify as compare
    from .study.artifacts import default_out
    new = compare.stored(f"build/{profile}/figures/source_data")
    old = compare.committed(f"{default_out(profile)}/source_data")
    found = compare.verify(new, old)
    if len(found):
        print(found.to_string(index=False, max_colwidth=60))
    failed = int((found["verdict"] == "fails").sum())
    print(f"{len(old)} tables: {failed} numbers fail, {len(found) - failed} moved out of their "
          "committed intervals but agree with them")
    return int(failed > 0)


def bench(device: Literal["cpu", "cuda"] = "cpu", seconds: float = 1.0,
          peers: bool = False) -> None:
    """Time training steps beside a plain reference and, with `peers`, Hugging Face's VideoMAE."""
    import torch
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device was found: choose --device cpu")
    from . import bench as measure
    measure.main(device, seconds, peers)
