"""The command line: `python -m s4d COMMAND --help`. Each command is a typed function below."""
from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitSubcommandPrefixes, Positional, UseAppendAction, arg

from . import config as configs

Folder = Annotated[str, arg(metavar="FOLDER")]
Dataset = Annotated[str, Positional, arg(metavar="DATASET")]
Root = Annotated[str, Positional, arg(metavar="FOLDER")]
RunFolder = Annotated[str, Positional, arg(metavar="RUN")]
CPUS = os.cpu_count() or 1


class CommandError(ValueError):
    """A command line that cannot be carried out."""


def faces(profile: str = "sandbox", data: Folder = "data", workers: int = 2) -> int:
    """Write the procedural-face corpora of a profile.

    Args:
        profile: smoke, sandbox, night or gpu.
        workers: processes; the files do not depend on it.
    """
    from .faces import corpus
    settings = configs.profile(profile, data=data)
    if settings.faces is None:
        raise CommandError(f"profile {profile} reads licensed data, not procedural faces: choose "
                           "smoke, sandbox, night or gpu")
    terminal = sys.stderr.isatty()
    print(corpus.ensure(settings.faces, data=data, workers=workers, progress=terminal))
    return 0


def audit(dataset: Dataset, root: Root, fold: int | None = None, label_order: str | None = None,
          csv: str | None = None, workers: int = CPUS, subset: bool = False) -> int:
    """Check a dataset's files against its lists; exit status 1 when there are problems.

    Args:
        dataset: name, e.g. affectnet.
        root: its folder.
        fold: of datasets with folds; all when left out.
        label_order: of the lists' integers, where the lists do not tell it.
        csv: file for the table of all problems.
        workers: decoding threads.
        subset: do not compare the numbers of samples with the published ones.
    """
    from . import commands
    return commands.audit(dataset, root, fold, label_order, csv, workers, subset)


def pack(dataset: Dataset, root: Root, img_size: int = 160, fold: int | None = None,
         label_order: str | None = None, workers: int = CPUS) -> int:
    """Decode a dataset once into a memory-mapped file beside it; exit status 1 when samples fail.

    Args:
        img_size: short side in px.
        fold: of datasets with folds; all when left out, since they share the file.
        label_order: of the lists' integers, where the lists do not tell it.
        workers: decoding threads.
    """
    from . import commands
    return commands.pack(dataset, root, img_size, fold, label_order, workers)


def own(photos: str | None = None, clips: str | None = None, subject_separator: str | None = None,
        profile: str = "sandbox", data: Folder = "data", runs: Folder = "runs",
        init: str = "none", steps: int = 300, seed: int = 0, out: Folder = "build/own") -> int:
    """Train on own folders, one per class, then score and draw; exit status 1 on audit warnings.

    Args:
        photos: folder of photos, as in happy/001.jpg.
        clips: folder of clips, likewise; with both, they are trained jointly (S4D).
        subject_separator: ends a person's name in file names, as _ in anna_01.jpg.
        init: none; profile, for its pre-training; or a checkpoint file.
        steps: of training, about.
    """
    from . import commands
    return commands.own(photos, clips, subject_separator, profile, data, runs,
                        init_of(init, configs.profile(profile, data, runs)), steps, seed, out)


def runs(runs: Folder = "runs") -> int:
    """List the runs of a store: state, steps, best validation scores, differing settings."""
    from . import commands
    print(commands.list_runs(runs))
    return 0


def evaluate(folders: Annotated[list[str], Positional, arg(metavar="RUN")],
             split: Literal["val", "test"] | None = None, views: str | None = None,
             data: str | None = None, features: str | None = None, csv: str | None = None,
             scores: str | None = None, skip_unreadable: bool = False,
             resamples: int = 2000) -> int:
    """Score one run, or the runs of several folds; exit status 1 when a sample is unreadable.

    Args:
        folders: of fine-tuning runs; several are folds: each, their mean, their pool.
        split: all that is stored when left out.
        views: segments x crops, as in 2x2: predict anew with these.
        data: folder of the datasets, where they were moved: predict anew.
        features: .npz file for the pooled features: predict anew.
        csv: file for the predictions: .csv, or .parquet where pyarrow is installed.
        scores: .csv file for the scores.
        skip_unreadable: leave unreadable samples out instead of counting them as errors.
        resamples: of the bootstrap.
    """
    from . import commands
    return commands.evaluate(folders, split, views, data, features, csv, scores, skip_unreadable,
                             resamples)


def predict(files: Annotated[list[str], Positional, arg(metavar="FILE")], run: str,
             json: str | None = None, picture: str | None = None,
            along_time: bool = False) -> int:
    """Print class probabilities of files; exit status 1 when one cannot be read.

    Args:
        files: images, videos or folders of frames.
        run: folder of a fine-tuning run.
        json: file for the answers.
        picture: .png or .pdf file for a picture of them.
        along_time: of clips, also in windows from start to end.
    """
    from . import commands
    return commands.predict(files, run, json, picture, along_time)


def export(run: RunFolder, out: Annotated[str, Positional, arg(metavar="FILE")]) -> int:
    """Write a finished run's weights in the format of the authors' release.

    Args:
        run: folder of a run of either stage.
        out: .pth file.
    """
    from . import commands
    print(commands.export(run, out))
    return 0


def reproduce(profile: str = "sandbox", data: Folder = "data", runs: Folder = "runs",
              out: str | None = None, fresh: bool = False, n_jobs: int | None = None,
              notebook: UseAppendAction[tuple[str, ...]] = (),
              parameter: Annotated[UseAppendAction[tuple[str, ...]], arg(aliases=["-p"])] = (),
              ) -> int:
    """Make every figure and table of a profile; a second call redoes only what changed.

    Args:
        out: folder of the artifacts; figures for sandbox, figures/<profile> for others.
        fresh: forget the profile's corpora, runs and executed notebooks first.
        n_jobs: runs trained side by side; 1 needs the least memory.
        notebook: only this one; may be given several times.
        parameter: NAME=VALUE, a further notebook parameter; may be given several times.
    """
    from .reproduce import reproduce as run
    from .study.artifacts import default_out
    given = dict(map(key_value, parameter))
    run(profile, out or default_out(profile), data, runs, fresh, list(notebook) or None, given,
        n_jobs=n_jobs)
    return 0


def key_value(text: str) -> tuple[str, object]:
    """Split `key=value`, the value as JSON where it is JSON, else as text."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise CommandError(f"parameter {text!r} is not of the form name=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def verify(fresh: Root, committed: Annotated[str | None, Positional] = None,
           exact: bool = False, strict: bool = False) -> int:
    """Compare a run's numbers with the committed ones; exit status 1 when one fails.

    Args:
        fresh: folder of source data just made, as build/sandbox/figures/source_data.
        committed: folder to compare with; the profile's in the last git commit when left out.
        exact: compare bytes: on one machine, with equal threads, two runs are equal.
        strict: a number outside its committed 95 % interval fails even where intervals overlap.
    """
    from . import commands
    return commands.verify(fresh, committed, exact, strict)


def bench(device: Literal["cpu", "cuda"] = "cpu", seconds: float = 1.0,
          part: Literal["all", "faces", "models"] = "all") -> int:
    """Measure this machine against a plain reference and its own matrix products.

    Args:
        seconds: that each measurement takes at least.
    """
    import torch

    from . import bench as measure
    if device == "cuda" and not torch.cuda.is_available():
        raise CommandError("no CUDA device was found: choose --device cpu")
    measure.main(device, seconds, part)
    return 0


def init_of(text: str, profile: configs.Profile):
    """Return what training starts from: the profile's pre-training, nothing, or a file."""
    if text in ("profile", "none"):
        return profile.pretrain if text == "profile" else None
    if not Path(text).is_file():
        raise CommandError(f"no checkpoint {text!r}: --init takes `profile`, `none` or a file")
    return text


@dataclasses.dataclass(frozen=True)
class Training:
    """What comes before the fields of a training configuration."""

    profile: str = "paper"            # whose values the flags change
    data: str = "data"                # folder of the datasets
    runs: str = "runs"                # folder of the runs
    init: str = "profile"             # fine-tuning: profile (its pre-training), none, or a file
    method: str | None = None         # fine-tuning: sets tasks and experts


def train(stage: str, args: list[str]) -> int:
    """Train a profile's configuration, changed by a flag per field. Under torchrun, on all GPUs."""
    words = dict(prog=f"python -m s4d {stage}")
    first, rest = tyro.cli(Training, args=[a for a in args if a not in ("-h", "--help")],
                           return_unknown_args=True, **words)
    settings = configs.profile(first.profile, data=first.data, runs=first.runs)
    base = settings.pretrain if stage == "pretrain" else settings.finetune
    methods, about = "|".join(configs.METHODS), "--profile NAME --data FOLDER --runs FOLDER"
    if stage == "finetune":
        about += f" --init profile|none|FILE --method {methods}"
        init = init_of(first.init, settings)
        if first.method not in (None, *configs.METHODS):
            raise CommandError(f"no method {first.method!r}: --method takes {methods}")
        base = configs.update(base, init=None, **configs.METHODS.get(first.method, {}))
    rest += [a for a in args if a in ("-h", "--help")]
    about = f"Also: {about}. Defaults below are those of profile {first.profile}."
    cfg = tyro.cli(tyro.conf.AvoidSubcommands[type(base)], default=base, args=rest,
                   description=about, **words)
    if stage == "finetune":
        cfg = configs.update(cfg, init=init)
    from . import training
    first_process = os.environ.get("RANK", "0") == "0"
    if first_process:
        print(json.dumps(configs.to_dict(cfg), indent=1))
    run = training.train(cfg, first.runs)
    if first_process:
        print(f"{run.dir} ({run.provenance['seconds']:.0f} s)")
    return 0


def pretrain() -> int:
    """Pre-train the masked autoencoder on photos and clips; every field is a flag."""
    return train("pretrain", sys.argv[2:])


def finetune() -> int:
    """Fine-tune jointly on photos and clips; every field is a flag, --method sets some."""
    return train("finetune", sys.argv[2:])


COMMANDS = {f.__name__: f for f in (faces, audit, pack, pretrain, finetune, evaluate, predict, own,
                                    runs, reproduce, verify, bench, export)}


def main(args: list[str] | None = None) -> int:
    """Carry out a command line; errors of this package are one sentence and exit status 2."""
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args[:1] and bool(args.pop(0))
    try:
        if args[:1] in (["pretrain"], ["finetune"]):
            return train(args[0], args[1:])
        return tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="python -m s4d", args=args, config=(OmitSubcommandPrefixes,),
            description="S4D: static for dynamic facial expression recognition.")
    except KeyboardInterrupt:
        print("s4d: interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except Exception as error:
        module = type(error).__module__
        if debug or not (module == "__main__" or module.split(".")[0] == "s4d"):
            raise
        details = getattr(error, "details", None)
        rank = os.environ["RANK"] if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
        who = "s4d" if rank is None else f"s4d, process {rank}"
        if details:
            print(f"{details}\n", file=sys.stderr)
        print(f"{who}: {error}", file=sys.stderr)
        return 2 if details is None else 1


if __name__ == "__main__":
    sys.exit(main())
