"""Ablations: one thing changed at a time, everything else as in the comparison."""
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pandas as pd

from ..config import METHODS, Faces, Finetune, Pretrain, Profile
from ..training.runs import Run, build
from . import stats

KEYS = ["task", "study", "setting", "method", "metric"]


class Study(NamedTuple):
    """What is varied, on which pre-trained methods; the default is among the values."""

    title: str                       # of its panel; unit included
    values: tuple
    methods: tuple[str, ...] = ("s4d",)
    field: str = ""                  # of `Finetune` that takes the value; else see `changed`


STUDIES = {
    "start": Study("pre-trained on", ("nothing", "photos", "clips", "both"), tuple(METHODS)),
    "experts": Study("experts", (1, 2, 4, 8, 16)),
    "top_k": Study("experts a token", (1, 2, 4, 8), field="top_k"),
    "blocks": Study("blocks with experts", ("all", "upper half", "last")),
    "bottleneck": Study("width over bottleneck", (2, 4, 8, 16), field="adapter_reduction"),
    "balance": Study("balance coefficient", (0.0, 1e-3, 1e-2, 1e-1), field="aux_loss_weight"),
    "noise": Study("noise on the router", (True, False), field="router_noise"),
    "capacity": Study("capacity factor, 0: no limit", (0.0, 1.0, 1.25), field="capacity_factor"),
    "photos": Study("share of the training photos", (0.03, 0.1, 0.3, 1.0), ("multitask", "s4d"),
                    "image_fraction"),
    "clips": Study("share of the training clips", (0.1, 0.3, 1.0), ("dynamic", "s4d"),
                   "video_fraction"),
    "gap": Study("gap between photos and clips", (0.0, 0.2, 0.5, 1.0),
                 ("dynamic", "multitask", "s4d")),
}
Trial = namedtuple("Trial", "study value method seed config")      # one run of a study


def declared(profile: Profile) -> dict[str, tuple]:
    """What the profile runs beside the runs of the comparison: study -> (values, methods)."""
    every = {name: (study.values, study.methods) for name, study in STUDIES.items()}
    if profile.faces is None:                              # recorded clips cannot be moved
        return {name: both for name, both in every.items() if name != "gap"}
    night = ("start", "experts", "top_k", "blocks", "photos", "clips", "gap")
    return {"smoke": {"photos": ((0.3,), ("s4d",))}, "sandbox": {},
            "night": {name: every[name] for name in night}, "gpu": every}[profile.name]


def changed(profile: Profile, cfg: Finetune, name: str, value: object) -> Finetune:
    """The configuration with one setting of a study; a gap moves all clips and photos."""
    if field := STUDIES[name].field:
        return replace(cfg, **{field: value})
    if name == "start":                                    # as many epochs of what there is
        without = {"photos": {"video": None}, "clips": {"image": None}, "both": {}}
        init = replace(profile.pretrain, **without[value]) if value in without else None
        return replace(cfg, init=init)
    if name == "experts":
        return replace(cfg, num_experts=value, top_k=min(cfg.top_k, value))
    if name == "blocks":
        last = len(build(cfg).blocks) - 1
        return replace(cfg, moae_start={"all": 0, "upper half": None, "last": last}[value])
    old, new = profile.faces.folder, replace(profile.faces, gap=value).folder

    def moved(stage: Finetune | Pretrain) -> Finetune | Pretrain:
        for task in ("image", "video"):
            if source := getattr(stage, task):
                source = replace(source, root=source.root.replace(old, new))
                stage = replace(stage, **{task: source})
        return stage
    return moved(replace(cfg, init=moved(cfg.init) if cfg.init else None))


def default_of(profile: Profile, name: str) -> object:
    """The value of a study that the comparison itself has."""
    method = STUDIES[name].methods[-1]
    base = replace(profile.finetune, **METHODS[method], init=profile.pretrain)
    return next(value for value in STUDIES[name].values
                if changed(profile, base, name, value) == base)


def trials(profile: Profile) -> Iterator[Trial]:
    """Every run of the profile's ablations, those of the default settings included."""
    for name, (values, methods) in declared(profile).items():
        default = default_of(profile, name)
        shown = [v for v in STUDIES[name].values if v in values or v == default]
        for value, method, seed in product(shown, methods, profile.seeds):
            base = replace(profile.finetune, **METHODS[method], init=profile.pretrain, seed=seed)
            yield Trial(name, value, method, seed, changed(profile, base, name, value))


def corpora(profile: Profile) -> list[Faces]:
    """The drawn corpora that comparison and ablations read, the profile's own first."""
    if profile.faces is None:
        return []
    gaps = profile.faces.gap, *declared(profile).get("gap", ((), ()))[0]
    return [replace(profile.faces, gap=gap) for gap in dict.fromkeys(gaps)]


def text(value: object) -> str:
    """A setting as it stands under an axis."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def collect(profile: Profile, found: dict[Finetune, Run]) -> pd.DataFrame:
    """Test predictions of every trial: those of `stats.collect`, study, setting (text)."""
    return pd.concat([
        stats.collect([(t.method, True, t.seed, t.config)], [found[t.config]]).assign(
            study=t.study, setting=text(t.value))
        for t in trials(profile)], ignore_index=True)


def beside_default(scored: pd.DataFrame, paired: pd.DataFrame) -> pd.DataFrame:
    """Add the paired difference to the default setting: difference, _low, _high, p_holm."""
    names = {"low": "difference_low", "high": "difference_high"}
    columns = [*KEYS, "difference", *names.values(), "p_holm"]
    return scored.merge(paired.rename(columns=names)[columns], on=KEYS, how="left")


def without_photos(scores: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """Dynamic only as setting 0 of the study of photos: rows as of `beside_default`, on clips."""
    alone = scores.query("task == 'video' and method == 'dynamic' and pretrained")
    pair = differences.query("task == 'video' and method == 's4d' and pretrained and "
                             "method_reference == 'dynamic'")
    named = dict(study="photos", setting="0", method="dynamic")
    rows = alone.drop(columns="pretrained").assign(**named).set_index(KEYS).reset_index()
    turned = pair.assign(difference=-pair["difference"], low=-pair["high"], high=-pair["low"])
    return beside_default(rows, turned.assign(**named))
