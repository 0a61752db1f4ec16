"""The command line: `python -m s4d COMMAND --help`."""
import argparse
import json
import os
import sys

import tyro

from . import commands
from . import config as configs


def train(stage: str, args: list[str]) -> int:
    """Train a profile's configuration, changed by a flag per field. Under torchrun, on all GPUs."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first = dict(profile="paper", data="data", runs="runs")
    about = "Also: --profile NAME --data FOLDER --runs FOLDER"
    if stage == "finetune":
        first |= dict(method=None, init="profile")
        about += f" --method {'|'.join(configs.METHODS)} --init profile|none|FILE"
    for name, default in first.items():
        parser.add_argument(f"--{name}", default=default)
    given, rest = parser.parse_known_args(args)
    profile = configs.profile(given.profile, data=given.data, runs=given.runs)
    base = getattr(profile, stage)
    if stage == "finetune":
        init = commands.init_of(given.init, profile)
        if given.method not in (None, *configs.METHODS):
            raise configs.ConfigError(f"no method {given.method!r}: --method takes one of "
                                      f"{', '.join(configs.METHODS)}")
        base = configs.update(base, **configs.METHODS.get(given.method, {}))
    cfg = tyro.cli(tyro.conf.AvoidSubcommands[type(base)], default=base, args=rest,
                   prog=f"python -m s4d {stage}",
                   description=f"{about}. Defaults below are those of {given.profile}.")
    if stage == "finetune":
        cfg = configs.update(cfg, init=init)
    from . import training
    first_process = os.environ.get("RANK", "0") == "0"
    if first_process:
        print(json.dumps(configs.to_dict(cfg), indent=1))
    run = training.train(cfg, given.runs)
    if first_process:
        print(f"{run.dir} ({run.provenance['seconds']:.0f} s)")
    return 0


def pretrain() -> int:
    """Pre-train the masked autoencoder on photos and clips; every field is a flag."""
    return train("pretrain", sys.argv[2:])


def finetune() -> int:
    """Fine-tune jointly on photos and clips; every field is a flag, --method sets some."""
    return train("finetune", sys.argv[2:])


COMMANDS = {command.__name__: command for command in (
    commands.faces, commands.audit, commands.pack, pretrain, finetune, commands.evaluate,
    commands.predict, commands.own, commands.runs, commands.reproduce, commands.verify,
    commands.bench, commands.export)}


def main(args: list[str] | None = None) -> int:
    """Carry out a command line; errors of this package are one sentence and exit status 2."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        if args[:1] in (["pretrain"], ["finetune"]):
            return train(args[0], args[1:])
        return tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="python -m s4d", args=args, config=(tyro.conf.OmitSubcommandPrefixes,),
            description="S4D: static for dynamic facial expression recognition.") or 0
    except KeyboardInterrupt:
        print("s4d: interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if type(error).__module__.split(".")[0] != "s4d" and not isinstance(error, OSError):
            raise
        details = getattr(error, "details", None)
        who = "s4d"
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            who += f", process {os.environ['RANK']}"
        if details:
            print(f"{details}\n", file=sys.stderr)
        print(f"{who}: {error}", file=sys.stderr)
        return 2 if details is None else 1


if __name__ == "__main__":
    sys.exit(main())
