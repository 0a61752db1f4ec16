"""Ablations: one thing changed at a time, everything else as in the comparison."""
from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..config import METHODS, Faces, Finetune, Pretrain, Profile
from ..training.runs import Run, build
from . import stats

KEYS = ["task", "study", "setting", "method", "metric"]
S4D = ("s4d",)
Change = Callable[[Profile, Finetune, object], Finetune]


class Study(NamedTuple):
    """What is varied, on which pre-trained methods; the default is among the values."""

    title: str                       # of its panel; unit included
    values: tuple
    change: Change                   # (profile, configuration, value) -> configuration
    methods: tuple[str, ...] = S4D


Trial = namedtuple("Trial", "study value method seed config")      # one run of a study


def _field(name: str) -> Change:
    return lambda profile, cfg, value: replace(cfg, **{name: value})


def _start(profile: Profile, cfg: Finetune, value: str) -> Finetune:
    """Pre-train on nothing, on photos, on clips, or on both; as many epochs of what there is."""
    pre = profile.pretrain
    starts = {"nothing": None, "photos": replace(pre, video=None),
              "clips": replace(pre, image=None), "both": pre}
    return replace(cfg, init=starts[value])


def _experts(profile: Profile, cfg: Finetune, value: int) -> Finetune:
    return replace(cfg, num_experts=value, top_k=min(cfg.top_k, value))


def _blocks(profile: Profile, cfg: Finetune, value: str) -> Finetune:
    """Put experts in all blocks, in the upper half (the default), or in the last one."""
    last = len(build(cfg).blocks) - 1
    return replace(cfg, moae_start={"all": 0, "upper half": None, "last": last}[value])


def _gap(profile: Profile, cfg: Finetune, value: float) -> Finetune:
    """Draw clips nearer to photos or further from them; pre-training included."""
    if profile.faces is None:
        raise ValueError("the gap between photos and clips can be set only in drawn corpora")
    folder = replace(profile.faces, gap=value).folder

    def moved(stage: Finetune | Pretrain, **changes) -> Finetune | Pretrain:
        for name, source in (("image", stage.image), ("video", stage.video)):
            if source is not None:
                root = Path(source.root).parents[1] / folder / source.name
                changes[name] = replace(source, root=str(root))
        return replace(stage, **changes)
    return moved(cfg, init=moved(cfg.init) if isinstance(cfg.init, Pretrain) else cfg.init)


STUDIES = {
    "start": Study("pre-trained on", ("nothing", "photos", "clips", "both"), _start,
                   tuple(METHODS)),
    "experts": Study("experts", (1, 2, 4, 8, 16), _experts),
    "top_k": Study("experts a token", (1, 2, 4, 8), _field("top_k")),
    "blocks": Study("blocks with experts", ("all", "upper half", "last"), _blocks),
    "bottleneck": Study("width over bottleneck", (2, 4, 8, 16), _field("adapter_reduction")),
    "balance": Study("balance coefficient", (0.0, 1e-3, 1e-2, 1e-1), _field("aux_loss_weight")),
    "noise": Study("noise on the router", (True, False), _field("router_noise")),
    "capacity": Study("capacity factor, 0: no limit", (0.0, 1.0, 1.25), _field("capacity_factor")),
    "photos": Study("share of the training photos", (0.03, 0.1, 0.3, 1.0),
                    _field("image_fraction"), ("multitask", "s4d")),
    "clips": Study("share of the training clips", (0.1, 0.3, 1.0), _field("video_fraction"),
                   ("dynamic", "s4d")),
    "gap": Study("gap between photos and clips", (0.0, 0.2, 0.5, 1.0), _gap,
                 ("dynamic", "multitask", "s4d")),
}
EVERY = {name: (study.values, study.methods) for name, study in STUDIES.items()}
NIGHT = ("start", "experts", "top_k", "blocks", "photos", "clips", "gap")
# study -> (values, methods), beside the default, whose runs are those of the comparison
DECLARED = {
    "smoke": {"photos": ((0.3,), S4D)},
    "sandbox": {"photos": ((0.1,), S4D)},
    "night": {name: EVERY[name] for name in NIGHT},
    "gpu": EVERY,
    "paper": {name: both for name, both in EVERY.items() if name != "gap"},
}


def declared(profile: Profile) -> dict[str, tuple[tuple, tuple[str, ...]]]:
    """What the profile runs: study -> (values, methods)."""
    return DECLARED[profile.name if profile.faces is not None else "paper"]


def default_of(profile: Profile, name: str) -> object:
    """The value of a study that the comparison itself has."""
    study = STUDIES[name]
    base = replace(profile.finetune, **METHODS[study.methods[-1]], init=profile.pretrain)
    for value in study.values:
        if study.change(profile, base, value) == base:
            return value
    raise ValueError(f"none of the values of the study {name!r} is the profile's own")


def trials(profile: Profile) -> Iterator[Trial]:
    """Every run of the profile's ablations, those of the default settings included."""
    for name, (values, methods) in declared(profile).items():
        study, default = STUDIES[name], default_of(profile, name)
        shown = [v for v in study.values if v in values or v == default]
        for value, method, seed in product(shown, methods, profile.seeds):
            base = replace(profile.finetune, **METHODS[method], init=profile.pretrain, seed=seed)
            yield Trial(name, value, method, seed, study.change(profile, base, value))


def corpora(profile: Profile) -> list[Faces]:
    """The drawn corpora that comparison and ablations read, the profile's own first."""
    if profile.faces is None:
        return []
    gaps = profile.faces.gap, *declared(profile).get("gap", ((), ()))[0]
    return [replace(profile.faces, gap=gap) for gap in dict.fromkeys(gaps)]


def collect(profile: Profile, found: dict[Finetune, Run]) -> pd.DataFrame:
    """Test predictions of every trial: those of `stats.collect`, study, setting (text)."""
    return pd.concat([
        stats.collect([(t.method, True, t.seed, t.config)], [found[t.config]]).assign(
            study=t.study, setting=text(t.value))
        for t in trials(profile)], ignore_index=True)


def beside_default(scored: pd.DataFrame, changed: pd.DataFrame) -> pd.DataFrame:
    """Add the paired difference to the default setting: difference, _low, _high, p_holm."""
    names = {"low": "difference_low", "high": "difference_high"}
    columns = [*KEYS, "difference", *names.values(), "p_holm"]
    return scored.merge(changed.rename(columns=names)[columns], on=KEYS, how="left")


def without_photos(scores: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """Dynamic only as setting 0 of the study of photos: rows as of `beside_default`, on clips."""
    alone = scores.query("task == 'video' and method == 'dynamic' and pretrained")
    pair = differences.query("task == 'video' and method == 's4d' and pretrained and "
                             "method_reference == 'dynamic'").set_index("metric")
    of = alone["metric"]                                    # dynamic only minus S4D: signs turn
    rows = alone.drop(columns="pretrained").assign(
        study="photos", setting="0", difference=-of.map(pair["difference"]),
        difference_low=-of.map(pair["high"]), difference_high=-of.map(pair["low"]),
        p_holm=of.map(pair["p_holm"]))
    return rows[[*KEYS, *(c for c in rows if c not in KEYS)]]


def text(value: object) -> str:
    """A setting as it stands under an axis."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
