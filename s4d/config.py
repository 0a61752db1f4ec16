"""Configurations: a frozen dataclass per stage, a table of profiles, and the names of runs."""
from __future__ import annotations

import hashlib
import json
import math
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import ClassVar


class ConfigError(ValueError):
    """A configuration holds an unknown key, or a value outside what is allowed."""


def bounded(default, low: float, high: float = math.inf, ends: bool = True):
    """A field between `low` and `high`, two ascending numbers where the default is a pair;
    `ends`: whether `low` and `high` are allowed."""
    return field(default=default, metadata={"bounds": (low, high, ends)})


@dataclass(frozen=True)
class _Checked:
    """A configuration that refuses numbers outside the bounds of their fields."""

    def __post_init__(self):
        for f in (f for f in fields(self) if "bounds" in f.metadata):
            value, (low, high, ends) = getattr(self, f.name), f.metadata["bounds"]
            pair = isinstance(f.default, tuple) and isinstance(value, tuple) and len(value) == 2
            numbers = list(value) if pair else [value]
            kind = int if f.type == "int" else int | float
            inside = (isinstance(n, kind) and not isinstance(n, bool)
                      and (low <= n <= high if ends else low < n < high) for n in numbers)
            if all(inside) and numbers == sorted(numbers):
                continue
            allowed = f"from {low:g} to {high:g}" if ends else f"above {low:g} and below {high:g}"
            raise ConfigError(f"{type(self).__name__}.{f.name} is {value!r}: expected {f.type} "
                              f"{allowed}{', ascending' if pair else ''}")


@dataclass(frozen=True)
class Faces(_Checked):
    """The embedded corpora of procedural faces. Angles in degrees, shares in 0..1."""

    version: int = 5                  # of the generator; raised whenever its pixels change
    seed: int = 0
    img_size: int = bounded(64, 32, 224)       # pixels, square, an even number
    photos: int = bounded(8000, 21)            # labelled, train + val + test (AffectNet's layout)
    photo_subjects: int = bounded(2000, 3)
    clips: int = bounded(1400, 35)             # labelled, five folds (DFEW's layout)
    clip_subjects: int = bounded(200, 5)
    compound: int = bounded(330, 55)           # clips of 11 emotions, five folds (MAFW's layout)
    compound_subjects: int = bounded(55, 5)
    speaking: int = bounded(500, 1)            # unlabelled speaking clips (VoxCeleb2's layout)
    speaking_subjects: int = bounded(100, 1)
    num_frames: int = bounded(16, 2, 600)      # frames of a clip on disk
    fps: int = bounded(8, 1, 60)               # frames per second of a clip
    intensity: tuple[float, float] = bounded((1.15, 1.45), 0, 2)   # range of photos' expression
    gap: float = bounded(0.2, 0, 1)            # clips: 0 held still .. 1 faint, turned, talking
    order: float = bounded(0.1, 0, 1)          # share of paired clips that only order tells apart
    label_noise: float = bounded(0.045, 0, 0.3)    # share of photos with a neighbouring label
    pose: float = bounded(4.0, 0, 30)          # deviation of yaw; pitch .7, roll .6 of it
    nuisance: float = bounded(0.0, 0, 1)       # 0 aligned, evenly lit .. 1 wild (light, noise)
    zoom: float = bounded(1.45, 0.5, 2)        # 1 head and shoulders, 1.45 the face alone
    class_balance: float = bounded(0.5, 0, 1)  # exponent on real class shares: 0 uniform

    def __post_init__(self):
        super().__post_init__()
        if self.img_size % 2:
            raise ConfigError(f"Faces.img_size is {self.img_size}: expected an even number")

    @property
    def folder(self) -> str:
        """Name of the corpus folder: a changed corpus never overwrites another."""
        return f"faces-{digest(self)}"


@dataclass(frozen=True)
class Source:
    """Where a dataset lies. The folder does not enter a run's name."""

    name: str                                # in the registry of datasets
    root: str                                # its folder
    fold: int | None = None                  # of datasets with folds
    num_classes: int = 7                     # of its vocabulary: 7, 8 or 11
    label_order: str | None = None           # of a list's integers, a key of emotions.ORDERS
    subject_separator: str | None = None     # ends a subject's name in own files: _ in anna_01.jpg
    crop_box: tuple[int, int, int, int] | None = None    # used part: top, left, height, width in px
    short_side: int | None = None            # px before the random crop of training; None: img_size


@dataclass(frozen=True, kw_only=True)
class _Training(_Checked):
    """What both stages of training have in common."""

    img_size: int = bounded(160, 1)              # side of the pictures, px
    num_frames: int = bounded(16, 1)             # sampled from a clip
    sampling_rate: int = bounded(4, 1)           # frames between two sampled frames
    epochs: float = bounded(100, 0, ends=False)  # passes over the plan, also fractions
    warmup_ratio: float = bounded(0.05, 0, 1)    # share of all steps
    weight_decay: float = bounded(0.05, 0)       # of AdamW, on matrices alone
    seed: int = bounded(0, 0)                    # of initial weights, order and draws
    num_workers: int = bounded(8, 0)             # decoding processes; 0: in the training process
    cache: bool = False                 # decode once, into a packed file beside the data
    amp: bool = True                    # bf16 autocast on CUDA and on CPUs with bf16 units
    save_minutes: float = bounded(10.0, 0)       # between two resumable states
    max_unreadable: float = bounded(0.01, 0, 1)  # largest share of unreadable samples tolerated
    grad_accum_steps: int = bounded(1, 1)        # pieces of a batch: less memory, the same batch
    grad_checkpointing: bool = False    # recompute activations: less memory, a third more time
    skip_nonfinite: bool = False        # pass over a step without a finite loss; False: stop there
    deterministic: bool = False         # on CUDA only deterministic algorithms: slower
    tensorboard: bool = False           # curves for TensorBoard too, where it is installed


@dataclass(frozen=True)
class Pretrain(_Training):
    """Dual-modal masked pre-training (docs/method.md section 4)."""

    image: Source | None                # photos; None: pre-train on clips alone
    video: Source | None                # unlabelled clips; None: pre-train on photos alone
    model: str = "s4d_mae_base_patch16_160"             # name in timm's registry
    image_mask_ratio: float = bounded(0.90, 0, 1, ends=False)   # share of a photo's tokens removed
    video_mask_ratio: float = bounded(0.95, 0, 1, ends=False)   # share of a clip's tokens removed
    image_batch_size: int = bounded(192, 1)             # per step, all GPUs together
    video_batch_size: int = bounded(48, 1)              # clips per step, all GPUs together
    repeat_aug: int = bounded(4, 1)                     # masks and crops drawn from each clip
    video_epoch_fraction: float = bounded(0.25, 1e-6, 1)    # share of the video batches per epoch
    lr: float = bounded(1.6e-3, 0, ends=False)          # at image batch 512; scaled linearly
    betas: tuple[float, float] = (0.9, 0.95)            # of AdamW's two moments
    crop_scale: tuple[float, float] = bounded((0.2, 1.0), 1e-6, 1)  # area range of random crops
    stage: ClassVar[str] = "pretrain"


@dataclass(frozen=True)
class Finetune(_Training):
    """Joint fine-tuning; `tasks`, `num_experts` and `top_k` select the method."""

    image: Source | None                # labelled photos
    video: Source | None                # labelled clips
    tasks: tuple[str, ...] = ("image", "video")         # that are trained: image, video or both
    num_experts: int = bounded(8, 0)    # 0: dense blocks, the plain multi-task model
    top_k: int = bounded(2, 0)          # experts per token; 0: every adapter serves every token
    moae_start: int | None = None       # first block with experts, from 0; None: the upper half
    adapter_reduction: int = bounded(4, 1)              # width over an expert's bottleneck
    router_noise: bool = True           # on the router's scores while training
    capacity_factor: float = bounded(0.0, 0)    # on an expert's even share of tokens; 0: no limit
    image_fraction: float = bounded(1.0, 1e-6, 1)   # of the training photos that is used
    video_fraction: float = bounded(1.0, 1e-6, 1)   # the same of the training clips
    init: Pretrain | str | None = None  # a pre-training, a checkpoint file, or None: from scratch
    model: str = "s4d_base_patch16_160"                 # name in timm's registry
    image_batch_size: int = bounded(32, 1)              # photos per step, all GPUs together
    video_batch_size: int = bounded(16, 1)              # clips per step, all GPUs together
    image_epoch_fraction: float = bounded(0.5, 1e-6, 1)     # share of the image batches per epoch
    balanced_sampling: bool = True      # image classes oversampled to equal counts
    lr: float = bounded(1e-5, 0, ends=False)            # at video batch 8; scaled linearly
    min_lr: float = bounded(1e-6, 0)                    # at total batch 256; scaled linearly
    layer_decay: float = bounded(0.75, 1e-6, 1)         # of the learning rate, each block downwards
    betas: tuple[float, float] = (0.9, 0.999)           # of AdamW's two moments
    drop_path_rate: float = bounded(0.1, 0, 1)          # of the last block; the first has 0
    aux_loss_weight: float = bounded(1e-3, 0)           # coefficient of the experts' balance loss
    mixup: float = bounded(0.8, 0)                      # alpha of MixUp; 0: none
    cutmix: float = bounded(1.0, 0)                     # alpha of CutMix; 0: none
    label_smoothing: float = bounded(0.1, 0, 1)         # share of a label spread over all classes
    randaugment: str = "m7-n4"          # magnitude and number of operations; empty: none
    image_randaugment: str | None = None                # the same of photos; None: as of clips
    random_erasing: float = bounded(0.25, 0, 1)         # probability that a rectangle is erased
    crop_scale: tuple[float, float] = bounded((0.5, 1.0), 1e-6, 1)  # area range of random crops
    clip_grad: float = bounded(0.0, 0)                  # largest gradient norm; 0: none
    test_segments: int = bounded(2, 1)                  # test views along time
    test_crops: int = bounded(2, 1)                     # test views across the picture
    val_fraction: float = bounded(0.1, 0, 1, ends=False)    # of the training clips, whole subjects
    test_each_epoch: bool = False       # test after every epoch too, as some papers do
    ema_decay: float = bounded(0.0, 0, 0.99999)         # of the averaged weights; 0: none
    stage: ClassVar[str] = "finetune"

    def __post_init__(self):
        super().__post_init__()
        if not self.tasks or not set(self.tasks) <= {"image", "video"}:
            raise ConfigError(f"Finetune.tasks is {self.tasks!r}: expected image (photos), video "
                              "(clips) or both")
        if self.num_experts and self.top_k > self.num_experts:
            raise ConfigError(f"Finetune.top_k is {self.top_k}: expected 1 to {self.num_experts}, "
                              "the number of experts")


METHODS = {                             # the fixed names of every table and figure
    "dynamic": dict(tasks=("video",), num_experts=0),
    "static": dict(tasks=("image",), num_experts=0),
    "multitask": dict(tasks=("image", "video"), num_experts=0),
    "adapters": dict(tasks=("image", "video"), num_experts=8, top_k=0),  # S4D's weights, no routing
    "s4d": dict(tasks=("image", "video"), num_experts=8),
}


@dataclass(frozen=True)
class Profile:
    """What one word selects everywhere: corpora, pre-training, fine-tuning, seeds."""

    name: str
    faces: Faces | None                 # None: licensed data
    pretrain: Pretrain
    finetune: Finetune
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = tuple(METHODS)           # that start from the pre-training
    scratch_methods: tuple[str, ...] = tuple(METHODS)   # and from scratch
    n_jobs: int = 2                     # runs side by side, one thread each on a CPU
    notebooks: tuple[str, ...] | None = None            # that `reproduce` executes; None: all
    resamples: int = 2000               # of every bootstrap
    runs: str = "runs"

    def methods_grid(self) -> list[tuple[str, bool, int, Finetune]]:
        """Every (method, pretrained, seed, configuration), from-scratch runs first."""
        scratch = [m for m in self.scratch_methods if m in self.methods]
        return [(method, init is not None, seed,
                 replace(self.finetune, **METHODS[method], init=init, seed=seed))
                for init, methods in ((None, scratch), (self.pretrain, self.methods))
                for seed in self.seeds for method in methods]


# Chosen by measurement (docs/log.md). `amp` is off: the same arithmetic on every CPU. A nano model
# has 16 tokens a photo: removing 90 % would leave two. Aligned faces stay whole (crop 1) in
# fine-tuning: so small a transformer does not learn from a few thousand shifted ones.
_NANO = dict(img_size=64, num_frames=8, num_workers=0, cache=True, save_minutes=1.0, amp=False)
_NANO_PRETRAIN = dict(model="s4d_mae_nano_patch16_64", image_mask_ratio=0.75, video_mask_ratio=0.9,
                      lr=1.2e-2, crop_scale=(0.5, 1.0))
_NANO_FINETUNE = dict(model="s4d_nano_patch16_64", layer_decay=1.0, mixup=0.0, cutmix=0.0,
                      randaugment="", random_erasing=0.0, crop_scale=(1.0, 1.0), drop_path_rate=0.0,
                      clip_grad=1.0, test_crops=1, test_segments=1)
_SANDBOX = dict(
    faces=dict(seed=1),     # people nobody looked at while the settings were chosen, with seed 0
    both=_NANO | dict(sampling_rate=2),
    pretrain=_NANO_PRETRAIN | dict(image_batch_size=64, video_batch_size=16,
                                   video_epoch_fraction=0.5, epochs=24),
    finetune=_NANO_FINETUNE | dict(epochs=7, lr=5e-4))
_PAPER = dict(speaking=dict(crop_box=(0, 32, 160, 160), short_side=192), n_jobs=1,
              finetune=dict(image_randaugment="m9-n4"))

# What each profile changes: the embedded corpora, both stages, each stage, the sources (`photos`,
# `clips`, `speaking`), then fields of Profile. `paper` is the released recipe for DFEW.
PROFILES = {
    "smoke": dict(
        faces=dict(photos=280, photo_subjects=70, clips=100, clip_subjects=20, compound=55,
                   compound_subjects=10, speaking=40, speaking_subjects=10, num_frames=8),
        both=_NANO | dict(sampling_rate=1, epochs=1), seeds=(0,), resamples=200,
        pretrain=_NANO_PRETRAIN | dict(image_batch_size=32, video_batch_size=8, repeat_aug=2),
        finetune=_NANO_FINETUNE | dict(lr=1e-3)),
    "sandbox": _SANDBOX | dict(scratch_methods=("dynamic", "static", "multitask", "s4d")),
    "night": _SANDBOX | dict(notebooks=("03_finetuning",)),     # all methods, and most ablations
    "gpu": dict(
        faces=dict(img_size=160, photos=40000, photo_subjects=10000, clips=20000, fps=12,
                   clip_subjects=2000, compound=5000, compound_subjects=500, num_frames=32,
                   speaking=20000, speaking_subjects=4000),
        both=dict(sampling_rate=2, cache=True, save_minutes=2.0, epochs=20), n_jobs=1,
        pretrain=dict(model="s4d_mae_small_patch16_160"),
        finetune=dict(model="s4d_small_patch16_160")),
    "paper": _PAPER,
    "paper-ferv39k": _PAPER | dict(clips=dict(name="ferv39k", fold=None),
                                   finetune=_PAPER["finetune"] | dict(sampling_rate=1)),
    "paper-mafw": _PAPER | dict(photos=dict(num_classes=8),
                                clips=dict(name="mafw", num_classes=11)),
}


def profile(name: str, data: str = "data", runs: str = "runs") -> Profile:
    """The profile of that name, with its corpora in folders of `data` and its runs in `runs`."""
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    row = dict(PROFILES[name])
    faces = Faces(**row.pop("faces")) if "faces" in row else None
    root, both = Path(data) / faces.folder if faces else Path(data), row.pop("both", {})

    def source(part: str, name: str, **fixed) -> Source:
        given = {"name": name} | fixed | row.pop(part, {})
        return Source(root=str(root / given["name"]), **given)

    photos, clips = source("photos", "affectnet"), source("clips", "dfew", fold=1)
    pretrain = Pretrain(Source("affectnet", str(root / "affectnet")),
                        source("speaking", "voxceleb2"), **both, **row.pop("pretrain", {}))
    finetune = Finetune(photos, clips, **both, **row.pop("finetune", {}))
    return Profile(name, faces, pretrain, finetune, runs=runs, **row)


def to_dict(config) -> dict:
    """A configuration as plain nested dictionaries; each names its class under `kind`."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {"kind": type(config).__name__} | {
        k: to_dict(v) if is_dataclass(v) else list(v) if isinstance(v, tuple) else v
        for k, v in values.items()}


def from_dict(values: dict):
    """The inverse of `to_dict`; an unknown or a missing key is an error that names it."""
    kinds = {c.__name__: c for c in (Faces, Source, Pretrain, Finetune, Profile)}
    if values.get("kind") not in kinds:
        raise ConfigError(f"unknown configuration kind {values.get('kind')!r}: expected "
                          f"{', '.join(kinds)}")
    read = {}
    for key, value in values.items():
        value = from_dict(value) if isinstance(value, dict) else value
        read[key] = tuple(value) if isinstance(value, list) else value
    return _make(kinds[read.pop("kind")], read)


def update(config, **changes):
    """A copy with fields replaced; an unknown field is an error that names it."""
    return _make(type(config), {**vars(config), **changes})


def _make(cls, values: dict):
    known = [f.name for f in fields(cls)]
    unknown = ", ".join(sorted(set(values) - set(known))) or "none"
    missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
    if unknown != "none" or missing:
        raise ConfigError(f"keys of {cls.__name__}: unknown {unknown}, missing "
                          f"{', '.join(missing) or 'none'}; allowed are {', '.join(known)}")
    return cls(**values)


# Fields that say how a run is carried out, not what it computes: they do not enter its name.
HOW = {"root", "num_workers", "cache", "save_minutes", "runs", "grad_checkpointing",
       "deterministic", "tensorboard",
       "skip_nonfinite", "max_unreadable"}


def digest(config) -> str:
    """Ten hex digits that name a configuration, wherever the data lie."""
    what = json.loads(json.dumps(to_dict(config)), object_hook=lambda values: {
        k: v for k, v in values.items() if k not in HOW})
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:10]
