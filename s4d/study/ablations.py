"""Ablations: one thing changed at a time, everything else as in the comparison."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..config import METHODS, Faces, Finetune, Pretrain, Profile
from ..training.runs import Run, build
from . import stats

S4D, ALL = ("s4d",), ("dynamic", "multitask", "s4d")
Change = Callable[[Profile, Finetune, object], Finetune]


class Study(NamedTuple):
    """What is varied, on which pre-trained methods; the default is among the values."""

    title: str                       # of its panel; unit included
    values: tuple
    change: Change                   # (profile, configuration, value) -> configuration
    methods: tuple[str, ...] = S4D


class Trial(NamedTuple):
    """One run of a study."""

    study: str
    value: object
    method: str
    seed: int
    config: Finetune


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
    "gap": Study("gap between photos and clips", (0.0, 0.2, 0.5, 1.0), _gap, ALL),
}
EVERY = {name: (study.values, study.methods) for name, study in STUDIES.items()}
NIGHT = ("start", "experts", "top_k", "blocks", "photos", "clips", "gap")
# What each profile runs: study -> (values, methods). The default is always shown: its runs are
# those of the comparison.
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
    base = _base(profile, study.methods[-1], 0)
    for value in study.values:
        if study.change(profile, base, value) == base:      # a digest leaves out where data lie
            return value
    raise ValueError(f"none of the values of the study {name!r} is the profile's own")


def _base(profile: Profile, method: str, seed: int) -> Finetune:
    return replace(profile.finetune, **METHODS[method], init=profile.pretrain, seed=seed)


def trials(profile: Profile) -> Iterator[Trial]:
    """Every run of the profile's ablations, those of the default settings included."""
    for name, (values, methods) in declared(profile).items():
        study, default = STUDIES[name], default_of(profile, name)
        for value in [v for v in study.values if v in values or v == default]:
            for method in methods:
                for seed in profile.seeds:
                    cfg = study.change(profile, _base(profile, method, seed), value)
                    yield Trial(name, value, method, seed, cfg)


def corpora(profile: Profile) -> list[Faces]:
    """The drawn corpora that comparison and ablations read, the profile's own first."""
    if profile.faces is None:
        return []
    gaps = declared(profile).get("gap", ((), ()))[0]
    return list(dict.fromkeys((profile.faces, *(replace(profile.faces, gap=g) for g in gaps))))


def collect(profile: Profile, found: dict[Finetune, Run]) -> pd.DataFrame:
    """Test predictions of every trial: those of `stats.collect`, study, setting (text)."""
    tables = []
    for t in trials(profile):
        rows = stats.collect([(t.method, True, t.seed, t.config)], [found[t.config]])
        tables.append(rows.assign(study=t.study, setting=text(t.value)))
    return pd.concat(tables, ignore_index=True)


def beside_default(scored: pd.DataFrame, changed: pd.DataFrame) -> pd.DataFrame:
    """Add the paired difference to the default setting: difference, _low, _high, p_holm."""
    keys = ["task", "study", "setting", "method", "metric"]
    names = {"low": "difference_low", "high": "difference_high"}
    columns = [*keys, "difference", *names.values(), "p_holm"]
    return scored.merge(changed.rename(columns=names)[columns], on=keys, how="left")


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
    keys = ["task", "study", "setting", "method", "metric"]
    return rows[[*keys, *(c for c in rows if c not in keys)]]


def text(value: object) -> str:
    """A setting as it stands under an axis."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
