"""What the command line does with datasets and finished runs; each function returns a status."""
from __future__ import annotations

import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from . import config as configs
from .config import ConfigError
from .data import MediaError, count_frames, index, read_clip
from .files import ROOT, write, write_all, write_text
from .study.artifacts import default_out
from .study.printed import wide
from .study.protocol import matrix, protocol
from .training import Run, RunError, along_time, pick_device, war_uar
from .training import predict as predict_samples


def warn(text: str) -> None:
    print(f"s4d: {text}", file=sys.stderr)


def audit(dataset, root, fold, label_order, csv, workers, subset) -> int:
    from .data.audit import examine, report
    problems, counts = examine(dataset, root, fold, workers, label_order, published=not subset)
    print(report(problems, counts))
    if csv:
        write(csv, lambda p: problems.to_csv(p, index=False))
    return int((problems["kind"] != "note").any())


def pack(dataset, root, img_size, fold, label_order, workers) -> int:
    from .data.cache import packed
    from .data.corpora import find
    folds = [fold] if fold is not None else find(dataset, root).folds or [None]
    tables = [index(dataset, root, fold=k, label_order=label_order) for k in folds]
    table = pd.concat(tables).drop_duplicates("path").sort_values("path")
    cache = packed(table, root, img_size, num_workers=workers)
    for path, cause in cache.unreadable.items():
        warn(f"{path} cannot be read: {cause}")
    print(f"{cache.file}: {len(cache) - len(cache.unreadable)} samples")
    return int(len(cache.unreadable) > 0)


def own(photos, clips, subject_separator, profile, data, runs, init, steps, seed, out) -> int:
    from .study.own import study
    made = study(photos, clips, out, profile, data, runs, subject_separator=subject_separator,
                 init=init, steps=steps, seed=seed)
    for task, scores in made.scores.groupby("task"):
        print(f"\n{task}, test: {scores['samples'].iloc[0]} samples; per cent [95 % interval over "
              "people, or samples of unknown people]")
        print(wide(scores.rename(columns={"task": "part"})).to_string(index=False))
    for row in made.problems.itertuples():
        warn(f"{row.path}: {row.problem}")
    seconds = made.run.provenance["seconds"]
    print(f"{made.run.dir} ({seconds:.0f} s of training); {len(made.files)} files in {out}")
    return int(len(made.problems) > 0)


def open_run(folder: str) -> Run:
    """Return the finished fine-tuning run in a folder."""
    run = Run(Path(folder))
    if not (run.dir / "config.json").is_file():
        raise RunError(f"{folder} is not a run: it has no config.json; fine-tuned runs are "
                       "folders runs/finetune-..., and `python -m s4d runs` lists them")
    if not run.done:
        raise RunError(f"run {folder} is not finished: call its training again, it continues from "
                       "its last state")
    if not isinstance(run.config, configs.Finetune):
        raise RunError(f"run {folder} is a pre-training: evaluation and prediction need a "
                       "fine-tuned model")
    return run


def list_runs(folder: str) -> str:
    """Return one line a run: state, steps, best validation UAR, settings that differ."""
    found = [Run(p.parent) for p in sorted(Path(folder).glob("*/config.json"))]
    if not found:
        raise RunError(f"{folder} holds no runs: `python -m s4d pretrain` and `python -m s4d "
                       "finetune` make some, --runs names another folder")
    settings = {run.dir.name: pd.json_normalize(run.settings).iloc[0].astype(str) for run in found}
    table, rows = pd.DataFrame(settings).T, []
    for (stage, run), values in zip(((r.dir.name.split("-")[0], r) for r in found),
                                    settings.values(), strict=True):
        peers = table[table.index.str.startswith(stage)]
        differing = [c for c in peers if peers[c].nunique(dropna=False) > 1 and c in values.index]
        shown = [f"{c}={values[c]}" for c in differing if not c.endswith(("root", "kind"))]
        metrics = run.metrics() if (run.dir / "metrics.jsonl").is_file() else pd.DataFrame()
        val = metrics[metrics["modality"] == "val"] if len(metrics) else metrics
        best = {f"best {t} UAR %": f"{100 * val[f'{t}_uar'].max():.1f}"
                for t in ("image", "video") if f"{t}_uar" in val}
        steps = int(metrics["step"].max()) + 1 if len(metrics) else 0
        rows.append({"run": run.dir.name, "state": run.state,
                     "steps": steps, **best, "differs in": ", ".join(shown[:8]) or "-"})
    return pd.DataFrame(rows).fillna("-").to_string(index=False)


def export(folder: str, out: str) -> Path:
    """Write a run's weights in the release's format; return the file."""
    import torch

    from .models import to_released
    run = Run(Path(folder))
    if not run.done:
        raise RunError(f"{folder} is not a finished run: nothing can be exported")
    state = to_released(run.load())
    write(out, lambda p: torch.save({"model": state}, p))
    return Path(out)


def verify(fresh: str, committed: str | None, exact: bool, strict: bool) -> int:
    from . import verify as compare
    new = compare.stored(fresh)
    if committed is None:
        parts = Path(fresh).resolve().parts              # .../build/<profile>/figures/source_data
        profile = parts[-3] if parts[-2:] == ("figures", "source_data") else "sandbox"
        profile = profile if profile in configs.PROFILES else "sandbox"
        old = compare.committed(f"{default_out(profile)}/source_data", ROOT)
    else:
        old = compare.stored(committed)
    found = compare.verify(new, old, exact)
    failed = found if strict else found[found["verdict"] != "moved"]
    if len(found):
        print(found.to_string(index=False, max_colwidth=60))
    print(f"{len(old)} tables: {len(failed)} numbers fail, {len(found) - len(failed)} moved out of "
          "their committed intervals but agree with them")
    return int(len(failed) > 0)


# Evaluation --------------------------------------------------------------------------------------

def evaluate(folders, split, views, data, features, csv, scores, skip_unreadable,
             resamples) -> int:
    parquet = bool(csv) and Path(csv).suffix == ".parquet"
    if parquet and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(f"--csv is {csv!r}, and Parquet files need pyarrow, which is not "
                          "installed: pip install pyarrow, or name a .csv file")
    runs, pooled, tables = dict(zip(_names(folders), map(open_run, folders), strict=True)), {}, {}
    for name, run in runs.items():
        tables[name], pooled[name] = _predictions(run, split, views, data, bool(features))
    every = pd.concat([t.assign(part=n) for n, t in tables.items()], ignore_index=True)
    if split:
        every = every[every["split"] == split]
    if every.empty:
        raise ConfigError(f"no predictions of split {split!r}: choose val or test")
    unreadable, found = every.loc[every["predicted"].isna(), "path"].unique(), []
    if skip_unreadable:
        every = every[every["predicted"].notna()]
    for (task, part), rows in every.groupby(["task", "split"]):
        table = protocol(dict(list(rows.groupby("part", sort=False))), resamples=resamples)
        found.append(table.assign(task=task, split=part))
        print(f"\n{task}, {part}: {len(rows)} samples, {rows['predicted'].isna().sum()} "
              "unreadable; per cent [95 % interval over people]")
        print(wide(table).to_string(index=False))
        if part == "test":
            print(matrix(rows).to_string())
            print(_chosen(runs, task))
    for path in unreadable:
        done = "left out" if skip_unreadable else "counted as an error"
        warn(f"{path} could not be read: {done}")
    savers = {}
    if csv:
        save = every.to_parquet if parquet else every.to_csv
        savers[Path(csv)] = lambda p: save(p, index=False)
    if scores:
        savers[Path(scores)] = lambda p: pd.concat(found).to_csv(p, index=False)
    if features:
        arrays = {f"{name}/{key}": value for name, a in pooled.items() for key, value in a.items()}
        savers[Path(features)] = lambda p: _save_arrays(p, arrays)
    write_all(savers)
    return int(len(unreadable) > 0)


def _save_arrays(path: Path, arrays: dict) -> None:
    with open(path, "wb") as out:                        # given a name, numpy adds an ending
        np.savez(out, **arrays)


def _names(folders: list[str]) -> list[str]:
    """Name runs by their folds where these tell them apart, else by their folders."""
    folds = [open_run(f).config.video for f in folders]
    names = [f"fold {s.fold}" for s in folds if s is not None and s.fold is not None]
    distinct = len(set(names)) == len(folders)
    return names if distinct else [Path(f).name for f in folders]


def _predictions(run: Run, split, views, data, features: bool) -> tuple[pd.DataFrame, dict]:
    """Return stored predictions, or new ones and pooled features where these are asked for."""
    from .training import samples_of, sources, tables
    if not (views or data or features):
        return run.predictions(), {}
    cfg, split = run.config, split or "test"
    if views:
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", views)
        if not match:
            raise ConfigError(f"--views is {views!r}: expected segments x crops, as in 2x2")
        cfg = configs.update(cfg, test_segments=int(match[1]), test_crops=int(match[2]))
    for task, source in sources(cfg).items() if data else ():
        moved = configs.update(source, root=str(Path(data) / source.name))
        cfg = configs.update(cfg, **{task: moved})
    model, out, arrays = run.load().to(pick_device()), [], {}
    for task, table in tables(cfg).items():
        if task in cfg.tasks and (table["split"] == split).any():
            got = {} if features else None
            rows, _ = predict_samples(model, samples_of(cfg, task, table, split),
                                      sources(cfg)[task].num_classes, cfg.test_crops,
                                      64, cfg.num_workers, features=got)
            out.append(rows)
            if got:
                arrays |= {f"{task}/path": rows["path"].to_numpy(str),
                           f"{task}/label": rows["label"].to_numpy(str),
                           f"{task}/features": got["features"]}
    return (pd.concat(out, ignore_index=True) if out else run.predictions()[:0]), arrays


def _chosen(runs: dict[str, Run], task: str) -> str:
    """Return what three ways of choosing an epoch score on test, mean over the runs, as text."""
    ways = {"chosen on validation (ours)": [], "last epoch": [],
            "chosen on TEST (the field's habit: too good)": []}
    ours, last, best = ways.values()
    for run in (run for run in runs.values() if task in run.config.tasks):
        rows, log = run.predictions(), run.metrics()
        rows = rows[(rows["task"] == task) & (rows["split"] == "test")]
        ours.append(war_uar(rows["label"], rows["predicted"]))
        if run.config.test_each_epoch:
            tested = log.loc[log["modality"] == "test", [f"{task}_war", f"{task}_uar"]]
            last.append(tuple(tested.iloc[-1]))
            best.append(tuple(tested.loc[tested[f"{task}_war"].idxmax()]))
    lines = ["as stored in training:"]
    for way, scores in ways.items():
        text = "not recorded: train with --test-each-epoch" if ours else "task not trained"
        if scores and len(scores) == len(runs):
            war, uar = 100 * np.mean(scores, axis=0)
            text = f"WAR {war:6.2f}  UAR {uar:6.2f}"
        lines.append(f"{way:<46} {text}")
    return "\n".join(lines)


# Prediction --------------------------------------------------------------------------------------

def predict(files, folder, json_file, picture, windows) -> int:
    run, tasks, broken = open_run(folder), {"image": [], "video": []}, {}
    if picture and Path(picture).suffix not in (".png", ".pdf"):
        raise ConfigError(f"--picture is {picture!r}: expected a .png or .pdf file")
    for file in files:
        try:
            tasks["image" if count_frames(Path(file)) == 1 else "video"].append(file)
        except MediaError as error:
            broken[file] = str(error)
    found, courses = _answers(run, tasks, windows, broken)
    for error in broken.values():
        warn(error)
    for table in itertools.chain((t for _, t in found.groupby("task")), courses.values()):
        shown = table.dropna(axis=1, how="all").rename(columns=lambda c: c.removeprefix("prob_"))
        print(shown.to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    if json_file:
        _write_json(json_file, found, courses, broken)
    if picture and len(found):
        from .study.figures.finetuning import predictions
        pictures = [read_clip(p, [count_frames(p) // 2])[0] for p in found["path"]]
        figure = predictions(found, pictures, courses, f"run {run.dir.name}")
        write(picture, lambda p: figure.savefig(p, format=Path(picture).suffix[1:]))
    return int(len(broken) > 0)


def _answers(run: Run, tasks: dict[str, list[str]], windows: bool, broken: dict):
    """Return one table of all files, and {path: table along time} of the clips if asked for."""
    from .data.dataset import Samples
    cfg, tables, courses = run.config, [pd.DataFrame(columns=["path", "task"])], {}
    for task, files in tasks.items():
        if files and task not in cfg.tasks:               # its head is as it was at step 0
            raise ConfigError(f"run {run.dir} was not trained on {task}s, so it cannot judge "
                              f"{files[0]}: choose another run")
    model = run.load().to(pick_device())
    for task, files in tasks.items():
        if not files:
            continue
        classes = getattr(cfg, task).num_classes
        table = pd.DataFrame({"path": files, "split": "test", "subject": None, "label": None})
        data = Samples(table, "", task, cfg.img_size, cfg.num_frames, cfg.sampling_rate,
                       num_classes=classes, test_segments=cfg.test_segments)
        rows, bad = predict_samples(model, data, classes, crops=cfg.test_crops)
        broken.update({path: f"{path} cannot be read: {cause}" for path, cause in bad.items()})
        rows = rows[rows["predicted"].notna()].drop(columns=["split", "subject", "label"])
        tables.append(rows)
        if windows and task == "video":
            courses |= {p: along_time(model, p, classes, cfg.img_size, cfg.num_frames,
                                      cfg.sampling_rate) for p in rows["path"]}
    return pd.concat(tables, ignore_index=True), courses


def _write_json(file: str, table: pd.DataFrame, courses: dict, broken: dict) -> None:
    answers = []
    for row in table.to_dict("records"):
        shares = {k.removeprefix("prob_"): v for k, v in row.items()
                  if k.startswith("prob_") and v == v}
        answer = {"path": row["path"], "task": row["task"], "predicted": row["predicted"],
                  "probabilities": shares}
        if row["path"] in courses:
            course = courses[row["path"]].drop(columns="path")
            course = course.rename(columns=lambda c: c.removeprefix("prob_"))
            answer["along_time"] = json.loads(course.to_json(orient="records"))
        answers.append(answer)
    content = {"files": answers, "unreadable": broken}
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
