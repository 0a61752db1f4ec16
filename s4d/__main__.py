"""The command line: `python -m s4d {faces,audit,pack,pretrain,finetune,own,runs,scaling,evaluate,predict,reproduce,verify,book,bench}`."""
from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import sys
from pathlib import Path

from . import config as configs
from .commands import CommandError, audit, book, evaluate, own, pack, predict


def faces(args) -> int:
    """Writes the procedural-face corpora of a profile."""
    from .faces import corpus
    settings = configs.profile(args.profile, data=args.data)
    if settings.faces is None:
        raise CommandError(f"profile {args.profile} reads licensed data, not procedural faces: choose smoke, sandbox, night or gpu")
    print(corpus.ensure(settings.faces, data=args.data, workers=args.workers, progress=sys.stderr.isatty()))
    return 0


def train(args, rest: list[str]) -> int:
    """Trains one configuration: the profile's, changed by a flag per field. Under torchrun, on all its processes."""
    import tyro
    settings = configs.profile(args.profile, data=args.data, runs=args.runs)
    base = settings.pretrain if args.command == "pretrain" else settings.finetune
    if args.command == "finetune":
        init = {"profile": settings.pretrain, "none": None}.get(args.init, args.init)
        if isinstance(init, str) and not Path(init).is_file():
            raise CommandError(f"no checkpoint {init!r}: --init takes `profile`, `none` or a file")
        method = args.method and configs.METHODS[args.method]
        base = configs.update(base, **(method or {}))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            cfg = tyro.cli(tyro.conf.AvoidSubcommands[type(base)], default=base, args=rest, prog=f"python -m s4d {args.command}",
                           description=f"{type(base).__doc__} Every field is a flag; --profile, --data, --runs, --dry-run"
                                       + (", --init, --method" if args.command == "finetune" else "") + " come first.")
    except SystemExit as stop:
        if not stop.code:                        # --help
            raise
        raise CommandError(f"{sentence(said.getvalue())} `python -m s4d {args.command} --help` lists the flags") from None
    if args.command == "finetune":
        cfg = configs.update(cfg, init=init)
    from . import training                       # after the flags were checked: torch takes seconds to load
    speak = print if os.environ.get("RANK", "0") == "0" else lambda *_: None
    speak(json.dumps(configs.to_dict(cfg), indent=1))
    if args.dry_run:
        for line in training.describe(training.dry_run(cfg)):
            speak(line)
    else:
        run = training.train(cfg, args.runs)
        speak(f"{run.dir} ({run.provenance['seconds']:.0f} s)")
    training.leave()
    return 0


def runs(args) -> int:
    """Lists the runs of a store, or draws the learning curves of some: `python -m s4d runs`, `python -m s4d runs show NAME ...`."""
    from . import overview
    if args.action == "list":
        print(overview.text(overview.table(args.runs)))
    else:
        print(overview.draw(args.runs, args.name, args.out))
    return 0


def scaling(args) -> int:
    """The cost of training on many GPUs, on paper: bytes that a step moves against the time that it takes."""
    from .training import scaling as paper
    machine = paper.Machine(args.tflops, args.use, args.node, args.inside, args.between, args.latency)
    print(paper.text(paper.table(paper.work(args.model), {"image": args.images, "video": args.clips}, machine, args.strong)))
    return 0


def sentence(box: str) -> str:
    """The first paragraph under the title of the framed text in which tyro reports an error; the frame depends on the terminal."""
    lines = [line.strip("│| ") for line in box.splitlines()][1:]                # the first holds the title
    rule = lambda line: not line.strip("─-╭╮╰╯")
    return " ".join(itertools.takewhile(lambda line: not rule(line), itertools.dropwhile(rule, lines))).rstrip(".") + ":"


def bench(args) -> int:
    """Measures the machine: frames drawn a second; models against a naive reference and the arithmetic limit."""
    import torch

    from . import bench as measure
    if args.device == "cuda" and not torch.cuda.is_available():
        raise CommandError("no CUDA device was found: choose --device cpu")
    measure.main(args.device, args.seconds, args.part)
    return 0


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one sentence; the usage is what --help is for."""

    def error(self, message: str):
        self.exit(2, f"s4d: {message}: `{self.prog} --help` lists what is allowed\n")


def reproduce(args) -> int:
    """Every figure and table of a profile."""
    from .artifacts import default_out
    from .pipeline import reproduce as run
    run(args.profile, out=args.out or default_out(args.profile), data=args.data, runs=args.runs, fresh=args.fresh, notebooks=args.notebook,
        parameters=dict(map(key_value, args.parameter)), jobs=args.jobs)
    return 0


def key_value(text: str) -> tuple[str, object]:
    """`key=value` with the value as JSON where it is JSON, else as text."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise CommandError(f"parameter {text!r} is not of the form name=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def verify(args) -> int:
    """Compares a run's numbers with the committed ones, table by table and claim by claim; exit status 1 when one fails."""
    from .verify import run
    return run(args.fresh, args.committed, args.csv, args.strict, args.exact)


def parser() -> argparse.ArgumentParser:
    """The parser; each subcommand names the function that carries it out."""
    top = Parser(prog="python -m s4d", description="S4D: static for dynamic facial expression recognition.")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, function, **options):
        sub = commands.add_parser(name, help=function.__doc__.splitlines()[0], description=function.__doc__, allow_abbrev=False, **options)
        sub.set_defaults(function=function)
        return sub

    def places(sub, profile: str, *names: str):
        sub.add_argument("--profile", default=profile, help=f"{', '.join(configs.PROFILES)} (default {profile})")
        for name in names:
            sub.add_argument(f"--{name}", default=name, help=f"folder (default {name})")

    sub = command("faces", faces)
    places(sub, "sandbox", "data")
    sub.add_argument("--workers", type=int, default=2, help="processes; the files do not depend on it")
    sub = command("audit", audit)
    sub.add_argument("dataset", help="name in the registry, e.g. affectnet")
    sub.add_argument("folder", nargs="?", help="its folder")
    sub.add_argument("--root", help="the same, as a flag")
    sub.add_argument("--fold", type=int, help="of datasets with folds; all when left out")
    sub.add_argument("--order", help="of the lists' integers, by name, where the lists do not tell")
    sub.add_argument("--csv", help="file for the table of problems")
    sub.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="decoding threads (default: one a core)")
    sub.add_argument("--subset", action="store_true", help="do not compare the numbers of samples with the published ones")
    sub = command("pack", pack)
    sub.add_argument("dataset", help="name in the registry, e.g. dfew")
    sub.add_argument("folder", nargs="?", help="its folder")
    sub.add_argument("--root", help="the same, as a flag")
    sub.add_argument("--size", type=int, default=160, help="short side in px (default 160)")
    sub.add_argument("--fold", type=int, help="of datasets with folds; all when left out: they share the shards")
    sub.add_argument("--order", help="of the lists' integers, by name, where the lists do not tell")
    sub.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="decoding threads (default: one a core)")
    sub.add_argument("--dry-run", action="store_true", help="only say how large it will be")
    for name in ("pretrain", "finetune"):
        sub = command(name, train, add_help=False)      # tyro shows the help: it knows the fields
        places(sub, "paper", "data", "runs")
        if name == "finetune":
            sub.add_argument("--init", default="profile", help="profile: its pre-training; none; or a checkpoint file")
            sub.add_argument("--method", choices=configs.METHODS, help="sets tasks and experts")
        sub.add_argument("--dry-run", action="store_true", help="only say what the run would take, from ten measured steps")
    sub = command("own", own)
    sub.add_argument("--photos", help="folder of photos, a folder a class: happy/001.jpg")
    sub.add_argument("--clips", help="folder of clips, likewise; with both, photos and clips are trained together (S4D)")
    sub.add_argument("--people", metavar="SIGN", help="that ends a person's name in file names, as _ in anna_01.jpg: splits keep people together")
    places(sub, "sandbox", "data", "runs")
    sub.add_argument("--init", default="none", help="none (the default); profile: its pre-training; or a checkpoint file")
    sub.add_argument("--steps", type=int, default=300, help="of training, about (default 300)")
    sub.add_argument("--seed", type=int, default=0, help="of the training (default 0)")
    sub.add_argument("--out", default="build/own", help="folder of figures and tables (default build/own)")
    sub = command("runs", runs)
    sub.add_argument("action", nargs="?", default="list", choices=("list", "show"), help="default list")
    sub.add_argument("name", nargs="*", help="of the runs to show, or the beginning of their names; the newest when left out")
    sub.add_argument("--runs", default="runs", help="folder of the store (default runs)")
    sub.add_argument("--out", default="build/curves.png", help="picture to draw into, .png or .pdf (default build/curves.png)")
    sub = command("scaling", scaling)
    sub.add_argument("--model", default="s4d_mae_base_patch16_160", help="default s4d_mae_base_patch16_160")
    for name, default, text in (("images", 192, "photos a step, of all GPUs of one machine"),
                                ("clips", 192, "clips, or crops of clips, likewise"),
                                ("tflops", 400.0, "peak rate of a GPU, 10^12 per second, in bf16"),
                                ("use", 0.35, "share of it that is reached"),
                                ("node", 8, "GPUs of a machine"), ("inside", 300.0, "GB/s that a GPU sends to its machine's others"),
                                ("between", 25.0, "GB/s of the network card that each GPU has"),
                                ("latency", 10.0, "microseconds of a message")):
        sub.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default {default:g})")
    sub.add_argument("--strong", action="store_true", help="the batch stays as it is; without, every machine adds as much")
    sub = command("evaluate", evaluate)
    sub.add_argument("runs", nargs="+", metavar="RUN", help="folders of fine-tuning runs; several are folds: each, their mean, their pool")
    sub.add_argument("--split", help="test or validation (default: all that is stored)")
    sub.add_argument("--views", help="segments x crops, as in 2x2: predict anew with these")
    sub.add_argument("--data", help="folder of the datasets, where they were moved: predict anew")
    sub.add_argument("--features", metavar="NPZ", help="file for the pooled features: predict anew")
    sub.add_argument("--csv", metavar="FILE", help="file for the predictions: .csv, or .parquet where pyarrow is installed")
    sub.add_argument("--scores", metavar="CSV", help="file for the scores")
    sub.add_argument("--skip-unreadable", action="store_true", help="leave unreadable samples out instead of counting them as errors")
    sub.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (default 2000)")
    sub = command("predict", predict)
    sub.add_argument("files", nargs="+", help="images, videos or folders of frames")
    sub.add_argument("--run", required=True, help="folder of a fine-tuning run")
    sub.add_argument("--json", help="file for the answers")
    sub.add_argument("--picture", help="file (.png or .pdf) for a picture of them")
    sub.add_argument("--along-time", action="store_true", help="of clips, also in windows from start to end")
    sub = command("reproduce", reproduce)
    places(sub, "sandbox", "data", "runs")
    sub.add_argument("--out", help="folder of the artifacts (default figures for sandbox, figures/<profile> for others)")
    sub.add_argument("--fresh", action="store_true", help="forget the profile's corpus, runs and executed notebooks first")
    sub.add_argument("--jobs", type=int, help="runs trained side by side (default: the profile's); 1 needs the least memory")
    sub.add_argument("--notebook", action="append", help="only this notebook; may be given several times")
    sub.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="a further notebook parameter")
    sub = command("verify", verify)
    sub.add_argument("fresh", help="folder of source data just made")
    sub.add_argument("committed", nargs="?", help="folder to compare with (default: that of the profile in the last git commit)")
    sub.add_argument("--csv", help="file for the table of claims (default build/<profile>/claims.csv)")
    sub.add_argument("--strict", action="store_true", help="a number outside its interval fails even if the two intervals overlap")
    sub.add_argument("--exact", action="store_true", help="compare bytes: on one machine, with equal threads, two runs are equal")
    sub = command("book", book)
    places(sub, "sandbox")
    sub.add_argument("--out", default="build/book", help="folder of the book (default build/book)")
    sub = command("bench", bench)
    sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    sub.add_argument("--seconds", type=float, default=20.0, help="to measure for each row group (default 20); long calls are made twice at least")
    sub.add_argument("--part", choices=("all", "faces", "data", "models"), default="all", help="default all")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. The package's own errors end in one sentence and status 2, failed notebooks in status 1."""
    top = parser()
    args, rest = top.parse_known_args(arguments)
    if rest and args.function is not train:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return args.function(args, rest) if args.function is train else args.function(args)
    except KeyboardInterrupt:
        print("s4d: interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except Exception as error:
        own = type(error).__module__ in ("s4d", "__main__") or type(error).__module__.startswith("s4d.")
        if args.debug or not own:
            raise
        details = getattr(error, "details", None)
        who = f"s4d, process {os.environ['RANK']}" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "s4d"
        print(f"{details}\n\n{who}: {error}" if details else f"{who}: {error}", file=sys.stderr)
        return 1 if details is not None else 2


if __name__ == "__main__":
    sys.exit(main())
