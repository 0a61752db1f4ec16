"""Ablations: one thing changed at a time, everything else as in the comparison. The same list serves every profile."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ..config import METHODS, Faces, Finetune, Pretrain, Profile
from ..training.runs import Run, build
from . import stats

S4D, ALL = ("s4d",), ("dynamic", "multitask", "s4d")


@dataclass(frozen=True)
class Study:
    """What is varied.

    Args:
        title: of its panel; unit included.
        values: settings, the default among them.
        change: (profile, configuration, value) -> configuration.
        methods: on which it is done, pre-trained.
    """

    title: str
    values: tuple
    change: Callable[[Profile, Finetune, object], Finetune]
    methods: tuple[str, ...] = S4D


@dataclass(frozen=True)
class Trial:
    """One run of a study."""

    study: str
    value: object
    method: str
    seed: int
    config: Finetune


def _field(name: str) -> Callable[[Profile, Finetune, object], Finetune]:
    return lambda profile, cfg, value: replace(cfg, **{name: value})


def _start(profile: Profile, cfg: Finetune, value: str) -> Finetune:
    """Pre-trained on nothing, on photos alone, on clips alone, or on both; as many epochs of what there is."""
    pre = {"nothing": None, "photos": replace(profile.pretrain, video=None), "clips": replace(profile.pretrain, image=None),
           "both": profile.pretrain}[value]
    return replace(cfg, init=pre)


def _blocks(profile: Profile, cfg: Finetune, value: str) -> Finetune:
    """Experts in all blocks, in the upper half (the default), or in the last one."""
    last = len(build(cfg).blocks) - 1
    return replace(cfg, moae_start={"all": 0, "upper half": None, "last": last}[value])


def _gap(profile: Profile, cfg: Finetune, value: float) -> Finetune:
    """The same people and photos, and clips that are nearer to photos or further from them; pre-training included."""
    if profile.faces is None:
        raise ValueError("the gap between photos and clips can be set only in corpora that are drawn")
    faces = replace(profile.faces, gap=value)
    moved = lambda s: s and replace(s, root=str(Path(s.root).parents[1] / faces.folder / s.name))
    init = replace(cfg.init, image=moved(cfg.init.image), video=moved(cfg.init.video)) if isinstance(cfg.init, Pretrain) else cfg.init
    return replace(cfg, image=moved(cfg.image), video=moved(cfg.video), init=init)


STUDIES = {
    "start": Study("pre-trained on", ("nothing", "photos", "clips", "both"), _start, tuple(METHODS)),
    "experts": Study("experts", (1, 2, 4, 8, 16), lambda p, c, v: replace(c, num_experts=v, top_k=min(c.top_k, v))),
    "top_k": Study("experts a token", (1, 2, 4, 8), _field("top_k")),
    "blocks": Study("blocks with experts", ("all", "upper half", "last"), _blocks),
    "bottleneck": Study("width over bottleneck", (2, 4, 8, 16), _field("adapter_reduction")),
    "balance": Study("balance coefficient", (0.0, 1e-3, 1e-2, 1e-1), _field("aux_loss_weight")),
    "noise": Study("noise on the router", (True, False), _field("router_noise")),
    "capacity": Study("capacity factor, 0: no limit", (0.0, 1.0, 1.25), _field("capacity_factor")),
    "photos": Study("share of the training photos", (0.03, 0.1, 0.3, 1.0), _field("image_fraction"), ("multitask", "s4d")),
    "clips": Study("share of the training clips", (0.1, 0.3, 1.0), _field("video_fraction"), ("dynamic", "s4d")),
    "gap": Study("gap between photos and clips", (0.0, 0.2, 0.5, 1.0), _gap, ALL),
}
EVERY = {name: (study.values, study.methods) for name, study in STUDIES.items()}
# What each profile runs of it: study -> (values, methods). The default value is always shown, from the comparison's runs.
DECLARED = {
    "smoke": {"photos": ((0.3,), S4D)},
    "sandbox": {"photos": ((0.1,), S4D)},
    "night": {name: EVERY[name] for name in ("start", "experts", "top_k", "blocks", "photos", "clips", "gap")},
    "gpu": EVERY,
    "paper": {name: part for name, part in EVERY.items() if name != "gap"},
}


def declared(profile: Profile) -> dict[str, tuple[tuple, tuple[str, ...]]]:
    """What the profile runs: study -> (values, methods)."""
    return DECLARED[profile.name if profile.faces is not None else "paper"]


def default_of(profile: Profile, name: str) -> object:
    """The value of a study that the comparison itself has."""
    base = _base(profile, STUDIES[name].methods[-1], 0)
    for value in STUDIES[name].values:
        if STUDIES[name].change(profile, base, value) == base:      # not by digest: that leaves out where the data lie
            return value
    raise ValueError(f"none of the values of the study {name!r} is the profile's own")


def _base(profile: Profile, method: str, seed: int) -> Finetune:
    return replace(profile.finetune, **METHODS[method], init=profile.pretrain, seed=seed)


def trials(profile: Profile) -> Iterator[Trial]:
    """Every run of the profile's studies, the default settings included, whose runs are those of the comparison."""
    for name, (values, methods) in declared(profile).items():
        study, own = STUDIES[name], default_of(profile, name)
        for value in dict.fromkeys((*(v for v in study.values if v in values or v == own),)):
            for method in methods:
                for seed in profile.seeds:
                    yield Trial(name, value, method, seed, study.change(profile, _base(profile, method, seed), value))


def corpora(profile: Profile) -> list[Faces]:
    """The drawn corpora that comparison and studies read, the profile's own first."""
    if profile.faces is None:
        return []
    gaps = declared(profile).get("gap", ((), ()))[0]
    return list(dict.fromkeys((profile.faces, *(replace(profile.faces, gap=g) for g in gaps))))


def collect(profile: Profile, found: dict[Finetune, Run]) -> pd.DataFrame:
    """Test predictions of every trial.

    Args:
        found: the run of each trial's configuration.
    Returns:
        the columns of `stats.collect`, and study and setting (text).
    """
    tables = [stats.collect([(t.method, True, t.seed, t.config)], [found[t.config]]).assign(study=t.study, setting=text(t.value))
              for t in trials(profile)]
    return pd.concat(tables, ignore_index=True)


def beside_default(scored: pd.DataFrame, changed: pd.DataFrame) -> pd.DataFrame:
    """Scores, and beside each its paired difference to the default setting; missing for the default itself.

    Args:
        scored: task, study, setting, method, metric and what `stats.scores` gives.
        changed: the same keys and what `stats.paired` gives.
    Returns:
        the columns of `scored`, and difference, difference_low, difference_high, p_holm.
    """
    keys = ["task", "study", "setting", "method", "metric"]
    renamed = changed.rename(columns={"low": "difference_low", "high": "difference_high"})
    return scored.merge(renamed[[*keys, "difference", "difference_low", "difference_high", "p_holm"]], on=keys, how="left")


def without_photos(scores: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """Dynamic only as the setting 0 of the study of photos, from the comparison's tables: rows as of `beside_default`, on clips.

    Args:
        scores: of the comparison: task, pretrained, method, metric and more (`stats.scores`).
        differences: of the comparison, among them S4D minus dynamic only, both pre-trained (`stats.paired`).
    """
    alone = scores[(scores["task"] == "video") & (scores["method"] == "dynamic") & scores["pretrained"]].drop(columns="pretrained")
    pair = differences[(differences["task"] == "video") & (differences["method"] == "s4d") & (differences["method_reference"] == "dynamic")
                       & differences["pretrained"]].set_index("metric")
    turned = {"difference": "difference", "difference_low": "high", "difference_high": "low"}       # dynamic only minus S4D
    rows = alone.assign(study="photos", setting="0", **{new: -alone["metric"].map(pair[old]) for new, old in turned.items()},
                        p_holm=alone["metric"].map(pair["p_holm"]))
    keys = ["task", "study", "setting", "method", "metric"]
    return rows[[*keys, *(c for c in rows if c not in keys)]]


def text(value: object) -> str:
    """A setting as it stands under an axis."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
