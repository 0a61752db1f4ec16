"""Commands about data, finished runs and the book: audit, pack, own, evaluate, predict, book. Each takes parsed arguments and returns an exit status."""
from __future__ import annotations

import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path

from . import config as configs


class CommandError(ValueError):
    """A command line that cannot be carried out."""


def write_table(table, file: str) -> None:
    """Writes a table as CSV, whole or not at all."""
    from .files import write_all
    write_all({Path(file): lambda p: table.to_csv(p, index=False)})


def data_folder(args) -> str:
    """The dataset's folder, given as an argument or by --root."""
    root = args.root or args.folder
    if root is None:
        raise CommandError(f"{args.command} {args.dataset} needs the dataset's folder: "
                           f"python -m s4d {args.command} {args.dataset} --root FOLDER")
    return root


def audit(args) -> int:
    """Checks a dataset's files against its lists; exit status 1 when there are problems."""
    from .data.audit import examine, report
    root = data_folder(args)
    problems, counts = examine(args.dataset, root, args.fold, args.workers, args.order, published=not args.subset)
    print(report(problems, counts))
    if args.csv:
        write_table(problems, args.csv)
    return 1 if (problems["kind"] != "note").any() else 0


def pack(args) -> int:
    """Decodes a dataset once into a memory-mapped file beside it; exit status 1 when samples cannot be decoded."""
    import pandas as pd

    from .data import index
    from .data.cache import estimate, packed
    from .data.corpora import find
    root = data_folder(args)
    folds = [args.fold] if args.fold is not None else find(args.dataset, root).folds or [None]
    table = pd.concat([index(args.dataset, root, k, label_order=args.order) for k in folds]).drop_duplicates("path").sort_values("path")
    size, probed = estimate(table, root, args.size)
    print(f"{len(table)} samples at {args.size} px take about {size / 1e9:.2f} GB (told by the headers of {probed})")
    if args.dry_run:
        return 0
    cache = packed(table, root, args.size, num_workers=args.workers)
    for path, cause in cache.unreadable.items():
        print(f"s4d: {path} cannot be read: {cause}", file=sys.stderr)
    print(f"{cache.file}: {len(cache) - len(cache.unreadable)} samples")
    return 1 if cache.unreadable else 0


def book(args) -> int:
    """Sets the executed notebooks of a profile, a map and a glossary as an HTML book."""
    from .book import build
    print(build(Path("build") / args.profile, Path(args.out)))
    return 0


def own(args) -> int:
    """Trains on folders of one's own photos and clips, a folder a class, and scores and draws the result; exit status 1 when the audit warns."""
    from .study.printed import wide
    from .own import study
    init = None if args.init == "none" else args.init
    if init not in (None, "profile") and not Path(init).is_file():
        raise CommandError(f"no checkpoint {init!r}: --init takes `profile`, `none` or a file")
    made = study(args.photos, args.clips, args.out, args.profile, args.data, args.runs, people=args.people, init=init, steps=args.steps,
                 seed=args.seed)
    for task, scores in made.scores.groupby("task"):
        print(f"\n{task}, test: {scores['samples'].iloc[0]} samples; per cent [95 % interval over people, or samples of unknown people]")
        print(wide(scores.rename(columns={"task": "part"})).to_string(index=False))
    for row in made.problems.itertuples():
        print(f"s4d: {row.path}: {row.problem}", file=sys.stderr)
    print(f"{made.run.dir} ({made.run.provenance['seconds']:.0f} s of training); {len(made.files)} files in {args.out}")
    return 1 if len(made.problems) else 0


def open_run(folder: str):
    """The finished fine-tuning run in a folder."""
    from .training import Run, RunError
    run = Run(Path(folder))
    if not (run.dir / "config.json").is_file():
        raise RunError(f"{folder} is not a run: it has no config.json; runs lie in runs/<stage>-<name>")
    if not run.done:
        raise RunError(f"run {folder} is not finished: call its training again, it continues from its last state")
    if not isinstance(run.config, configs.Finetune):
        raise RunError(f"run {folder} is a pre-training: evaluation and prediction need a fine-tuned model")
    return run


def evaluate(args) -> int:
    """Scores of one run, or of the runs of several folds; exit status 1 when a test sample could not be read."""
    import pandas as pd

    from .study.printed import wide
    from .study.protocol import matrix, protocol
    if args.csv and Path(args.csv).suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise CommandError(f"--csv is {args.csv!r}, and Parquet files need pyarrow, which is not installed: pip install pyarrow, or name "
                           "a .csv file")
    runs = dict(zip(_names(args.runs), map(open_run, args.runs)))
    features = {}
    tables = {name: _predictions(run, args, features.setdefault(name, {})) for name, run in runs.items()}
    every = pd.concat([t.assign(part=name) for name, t in tables.items()], ignore_index=True)
    if args.split:
        every = every[every["split"] == args.split]
    if every.empty:
        raise CommandError(f"no predictions of split {args.split!r}: choose validation or test")
    unreadable = every[every["predicted"].isna()]
    if args.skip_unreadable:
        every = every[every["predicted"].notna()]
    scores = []
    for (task, split), rows in every.groupby(["task", "split"]):
        parts = {name: part for name, part in rows.groupby("part", sort=False)}
        table = protocol(parts, resamples=args.resamples)
        scores.append(table.assign(task=task, split=split))
        print(f"\n{task}, {split}: {len(rows)} samples, {int(rows['predicted'].isna().sum())} unreadable; "
              "per cent [95 % interval over people]")
        print(wide(table).to_string(index=False))
        if split == "test":
            print(matrix(rows).to_string())
            print(_chosen(runs, task))
    for path in unreadable["path"].unique():
        print(f"s4d: {path} could not be read: {'left out' if args.skip_unreadable else 'counted as an error'}", file=sys.stderr)
    _save(args, every, pd.concat(scores, ignore_index=True), features)
    return 1 if len(unreadable) else 0


def _names(folders: list[str]) -> list[str]:
    """What the runs are called: their fold where it tells them apart, else their folder."""
    folds = [open_run(f).config.video for f in folders]
    names = [f"fold {s.fold}" if s is not None and s.fold is not None else "" for s in folds]
    return names if all(names) and len(set(names)) == len(names) else [Path(f).name for f in folders]


def _predictions(run, args, features: dict):
    """A run's stored predictions, or new ones where other views, another folder or features are asked for."""
    import pandas as pd
    if not (args.views or args.data or args.features):
        return run.predictions()
    from .training.finetune import part, sources, tables
    from .training import predict as run_model
    cfg, split = run.config, args.split or "test"
    if args.views:
        views = re.fullmatch(r"(\d+)x(\d+)", args.views)
        if not views or not int(views[1]) or not int(views[2]):
            raise CommandError(f"--views is {args.views!r}: expected segments x crops, as in 2x2")
        cfg = configs.update(cfg, test_segments=int(views[1]), test_crops=int(views[2]))
    if args.data:
        moved = {t: configs.update(s, root=str(Path(args.data) / s.name)) for t, s in sources(cfg).items()}
        cfg = configs.update(cfg, **moved)
    model, out = run.load(), []
    for task, table in tables(cfg).items():
        if task in cfg.tasks and (table["split"] == split).any():
            got = {} if args.features else None
            rows, _ = run_model(model, part(cfg, task, table, split), sources(cfg)[task].num_classes, cfg.test_crops,
                                workers=cfg.num_workers, features=got)
            out.append(rows)
            if got:
                features[task] = rows["path"].to_numpy(str), rows["label"].to_numpy(str), got["features"]
    return pd.concat(out, ignore_index=True) if out else run.predictions()[:0]


def _chosen(runs: dict, task: str) -> str:
    """The three ways of choosing an epoch, mean over the runs, as text."""
    import pandas as pd

    from .training import war_uar
    files = {"chosen on validation (ours)": "predictions.csv", "last epoch": "predictions_last.csv",
             "chosen on TEST (the field's habit: too good)": "predictions_best_test.csv"}
    lines = []
    for name, file in files.items():
        there = [run.dir / file for run in runs.values() if (run.dir / file).is_file() and task in run.config.tasks]
        if len(there) < len(runs):
            lines.append(f"{name:<46} " + ("task not trained" if file == "predictions.csv" else "not recorded: train with --each-epoch"))
            continue
        tables = [t[(t["task"] == task) & (t["split"] == "test")] for t in map(pd.read_csv, there)]
        war, uar = (100 * sum(v) / len(tables) for v in zip(*(war_uar(t["label"], t["predicted"]) for t in tables)))
        lines.append(f"{name:<46} WAR {war:6.2f}  UAR {uar:6.2f}")
    return "\n".join(["as stored in training:", *lines])


def _save(args, predictions, scores, features: dict) -> None:
    """Writes the files that were asked for, all or none."""
    import numpy as np

    from .files import write_all
    savers = {}
    if args.csv:
        parquet = Path(args.csv).suffix == ".parquet"
        savers[Path(args.csv)] = lambda p: predictions.to_parquet(p, index=False) if parquet else predictions.to_csv(p, index=False)
    if args.scores:
        savers[Path(args.scores)] = lambda p: scores.to_csv(p, index=False)
    if args.features:
        arrays = {f"{name}/{task}/{what}": value for name, tasks in features.items() for task, values in tasks.items()
                  for what, value in zip(("path", "label", "features"), values)}

        def save(path: Path) -> None:
            with open(path, "wb") as out:                 # given a name, numpy would add an ending to it
                np.savez(out, **arrays)
        savers[Path(args.features)] = save
    write_all(savers)


def predict(args) -> int:
    """Class probabilities of image and video files; exit status 1 when one cannot be read."""
    import pandas as pd

    from .data import MediaError, count_frames
    run, tasks, broken = open_run(args.run), {"image": [], "video": []}, {}
    for file in args.files:
        try:
            tasks["image" if count_frames(Path(file)) == 1 else "video"].append(file)
        except MediaError as error:
            broken[file] = str(error)
    tables, courses = _answers(run, tasks, args, broken)
    for error in broken.values():
        print(f"s4d: {error}", file=sys.stderr)
    for table in itertools.chain(tables, courses.values()):
        print(table.rename(columns=lambda c: c.removeprefix("prob_")).to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    found = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["path"])
    if args.json:
        _write_json(args.json, found, courses, broken)
    if args.picture and len(found):
        _write_picture(args.picture, found, courses, f"run {run.dir.name}")
    return 1 if broken else 0


def _answers(run, tasks: dict[str, list[str]], args, broken: dict) -> tuple[list, dict]:
    """One table a task that has files, and {path: table along time} of the clips where that is asked for."""
    import pandas as pd

    from .data.dataset import Samples
    from .training import along_time
    from .training import predict as run_model
    cfg, tables, courses = run.config, [], {}
    for task, files in tasks.items():
        if files and task not in cfg.tasks:      # its head for this task is as it was at step 0
            raise CommandError(f"run {args.run} was not trained on {task}s, so it cannot judge {files[0]}: choose another run")
    model = run.load()
    for task, files in tasks.items():
        if not files:
            continue
        classes = getattr(cfg, task).num_classes
        table = pd.DataFrame({"path": files, "split": "test", "subject": None, "label": None})
        data = Samples(table, "", task, cfg.img_size, cfg.num_frames, cfg.sampling_rate, num_classes=classes, test_segments=cfg.test_segments)
        rows, bad = run_model(model, data, classes, crops=cfg.test_crops)
        broken.update({path: f"{path} cannot be read: {cause}" for path, cause in bad.items()})
        rows = rows[rows["predicted"].notna()].drop(columns=["split", "subject", "label"])
        if len(rows):
            tables.append(rows)
        if args.along_time and task == "video":
            courses |= {p: along_time(model, p, classes, cfg.img_size, cfg.num_frames, cfg.sampling_rate) for p in rows["path"]}
    return tables, courses


def _write_json(file: str, table, courses: dict, broken: dict) -> None:
    from .files import write_text
    answers = []
    for row in table.to_dict("records"):
        shares = {k.removeprefix("prob_"): v for k, v in row.items() if k.startswith("prob_") and v == v}
        answers.append({"path": row["path"], "task": row["task"], "predicted": row["predicted"], "probabilities": shares})
        if row["path"] in courses:
            course = courses[row["path"]].drop(columns="path").rename(columns=lambda c: c.removeprefix("prob_"))
            answers[-1]["along_time"] = json.loads(course.to_json(orient="records"))
    write_text(Path(file), json.dumps({"files": answers, "unreadable": broken}, indent=1, ensure_ascii=False) + "\n")


def _write_picture(file: str, table, courses: dict, note: str) -> None:
    from .artifacts import PDF_METADATA
    from .files import write_all
    from .data import count_frames, read_clip
    from .study.figures.prediction import predictions
    kind = Path(file).suffix.lower().lstrip(".")
    if kind not in ("png", "pdf"):
        raise CommandError(f"--picture is {file!r}: expected a .png or .pdf file")
    pictures = [read_clip(p, [count_frames(p) // 2])[0] for p in table["path"]]
    figure = predictions(table, pictures, courses, note)
    write_all({Path(file): lambda p: figure.savefig(p, format=kind, metadata=PDF_METADATA if kind == "pdf" else {"Software": None})})
