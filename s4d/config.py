"""Configurations: one frozen dataclass per stage, four profiles, and the digest that names a run."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass, replace
from pathlib import Path


class ConfigError(ValueError):
    """A configuration holds an unknown key, or a value outside what is allowed."""


@dataclass(frozen=True)
class Faces:
    """The embedded corpora of procedural faces. Times in seconds, angles in degrees, shares in 0..1."""

    version: int = 5                  # of the generator; raised whenever its pixels change
    seed: int = 0
    img_size: int = 64                    # pixels, square
    photos: int = 8000                # labelled photos, train + validation + test (AffectNet's layout)
    photo_subjects: int = 2000
    clips: int = 1400                 # labelled clips over five folds (DFEW's layout)
    clip_subjects: int = 200
    compound: int = 330               # labelled clips of eleven emotions over five folds (MAFW's layout)
    compound_subjects: int = 55
    speaking: int = 500               # unlabelled speaking clips (VoxCeleb2's layout)
    speaking_subjects: int = 100
    num_frames: int = 16                  # frames a clip on disk
    fps: int = 8                      # frames per second of a clip
    intensity: tuple[float, float] = (1.15, 1.45)  # uniform range that scales the actions of a photo's emotion
    gap: float = 0.2                  # how far clips are from photos: 0 a photo held still .. 1 faint, turned away, talking (see plan.distance)
    order: float = 0.1                # share, of clips whose emotion has a partner, that turn from it: only their order tells which
    label_noise: float = 0.045        # share of photos listed under a neighbouring emotion; clips have more, by the gap
    pose: float = 4.0                 # standard deviation of yaw; pitch .7 and roll .6 of it
    nuisance: float = 0.0             # 0 aligned and evenly lit .. 1 in the wild (light, occluders, noise, blur)
    zoom: float = 1.45                # framing: 1 head and shoulders, 1.45 the face fills the picture
    class_balance: float = 0.5              # exponent on the real class shares of AffectNet and DFEW: 1 as they are, 0 uniform

    @property
    def folder(self) -> str:
        """Name of the corpus folder: the parameters decide it, so a changed corpus never overwrites another."""
        return f"faces-{digest(self)}"


def _check(config, rules: dict[str, tuple[float, float, bool]]) -> None:
    """Raises ConfigError for a number outside its range.

    Args:
        rules: field -> (low, high, whether the ends are allowed).
    """
    whole = {f.name for f in dataclasses.fields(config) if f.type == "int"}
    for name, (low, high, ends) in rules.items():
        value = getattr(config, name)
        number = isinstance(value, int if name in whole else (int, float)) and not isinstance(value, bool)
        if not number or not (low <= value <= high if ends else low < value < high):
            least = f"{'from' if ends else 'above'} {low:g}" + ("" if high == INF else f" {'to' if ends else 'and below'} {high:g}")
            raise ConfigError(f"{type(config).__name__}.{name} is {value!r}: expected a {'whole ' * (name in whole)}number {least}")
    crop = config.crop_scale
    if len(crop) != 2 or not 0 < crop[0] <= crop[1] <= 1:
        raise ConfigError(f"{type(config).__name__}.crop_scale is {crop!r}: expected two shares of the picture's area, as in (0.5, 1.0)")


INF = float("inf")
_COUNTS = dict.fromkeys(("img_size", "num_frames", "sampling_rate", "image_batch_size", "video_batch_size"), (1, INF, True))
_BOTH = {**_COUNTS, "grad_accum_steps": (1, INF, True), "epochs": (0, INF, False), "lr": (0, INF, False), "warmup_ratio": (0, 1, True),
         "weight_decay": (0, INF, True),
         "num_workers": (0, INF, True), "save_minutes": (0, INF, True), "max_unreadable": (0, 1, True), "seed": (0, INF, True)}
_PRETRAIN = {**_BOTH, "image_mask_ratio": (0, 1, False), "video_mask_ratio": (0, 1, False), "repeat_aug": (1, INF, True), "video_epoch_fraction": (1e-6, 1, True)}
_FINETUNE = {**_BOTH, "min_lr": (0, INF, True), "image_epoch_fraction": (1e-6, 1, True), "layer_decay": (1e-6, 1, True), "aux_loss_weight": (0, INF, True),
             "label_smoothing": (0, 1, True), "random_erasing": (0, 1, True), "mixup": (0, INF, True), "cutmix": (0, INF, True),
             "drop_path_rate": (0, 1, True), "ema_decay": (0, 0.99999, True), "clip_grad": (0, INF, True), "test_segments": (1, INF, True), "test_crops": (1, INF, True),
             "val_fraction": (0, 1, False), "num_experts": (0, INF, True), "top_k": (0, INF, True), "adapter_reduction": (1, INF, True),
             "capacity_factor": (0, INF, True), "image_fraction": (1e-6, 1, True), "video_fraction": (1e-6, 1, True)}


@dataclass(frozen=True)
class Source:
    """Where a dataset lies: its name in the registry, its folder, its fold. The folder does not enter a run's name."""

    name: str                         # in the registry of datasets
    root: str                         # its folder
    fold: int | None = None           # of datasets with folds
    num_classes: int = 7                  # of its vocabulary: 7, 8 or 11
    label_order: str | None = None          # of a list's integers, a key of emotions.ORDERS, where the list does not tell it
    subject_separator: str | None = None         # of own folders: the sign that ends a person's name in a file's name, as "_" in anna_01.jpg
    crop_box: tuple[int, int, int, int] | None = None   # top, left, height, width in px: the part of the stored pictures that is used
    short_side: int | None = None          # short side in px that training pictures have before the random crop; the model's size if None


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What both stages of training have in common."""

    img_size: int = 160                   # side of the pictures, px
    num_frames: int = 16                  # sampled from a clip
    sampling_rate: int = 4                   # frames between two sampled frames
    epochs: float = 100               # passes over the plan; a fraction ends inside one
    warmup_ratio: float = 0.05              # share of all steps
    weight_decay: float = 0.05        # of AdamW, on matrices alone
    seed: int = 0                     # of initial weights, order and draws
    num_workers: int = 8                  # decoding processes; 0 decodes in the training process
    cache: bool = False               # decode every sample once into a packed uint8 file beside the data
    amp: bool = True                  # bf16 autocast on CUDA and on CPUs with bf16 units
    save_minutes: float = 10.0        # between two resumable states
    max_unreadable: float = 0.01             # largest share of unreadable samples that training tolerates
    grad_accum_steps: int = 1               # pieces that each process cuts its part of a batch into: less memory, the same batch
    grad_checkpointing: bool = False       # recompute activations in the backward pass: less memory, about a third more time
    skip_nonfinite: bool = False      # pass over a step whose loss or gradient is no number; False stops the run there
    deterministic: bool = False       # on CUDA only deterministic algorithms: slower; CPUs need no switch
    tensorboard: bool = False         # curves for TensorBoard too, where it is installed


@dataclass(frozen=True)
class Pretrain(_Training):
    """Dual-modal masked pre-training (METHOD: images 90 %, videos 95 % of the tokens removed)."""

    image: Source | None             # photos; None: pre-train on clips alone
    video: Source | None             # unlabelled clips; None: pre-train on photos alone
    model: str = "s4d_mae_base_patch16_160"   # name in timm's registry
    image_mask_ratio: float = 0.90          # share of a photo's tokens removed
    video_mask_ratio: float = 0.95          # share of a clip's tokens removed
    image_batch_size: int = 192            # per step, all GPUs together
    video_batch_size: int = 48             # clips per step, all GPUs together
    repeat_aug: int = 4                  # masks and crops drawn from each decoded clip
    video_epoch_fraction: float = 0.25         # share of the video batches used per epoch
    lr: float = 1.6e-3                # at total batch 512; scaled linearly with the image batch
    betas: tuple[float, float] = (0.9, 0.95)   # of AdamW's two moments
    crop_scale: tuple[float, float] = (0.2, 1.0)   # area range of the random resized crop
    stage: typing.ClassVar[str] = "pretrain"

    def __post_init__(self):
        _check(self, _PRETRAIN)


@dataclass(frozen=True)
class Finetune(_Training):
    """Joint fine-tuning on photos and clips; `tasks` and `experts` select the method."""

    image: Source | None              # labelled photos
    video: Source | None              # labelled clips
    tasks: tuple[str, ...] = ("image", "video")   # that are trained: image, video or both
    num_experts: int = 8                  # 0: dense blocks, the plain multi-task model
    top_k: int = 2                    # experts a token; 0: adapters without routing, all of them for every token
    moae_start: int | None = None      # first block with experts, from 0; None: the upper half of the blocks
    adapter_reduction: int = 4                # width over an expert's bottleneck
    router_noise: bool = True                # on the router's scores while training
    capacity_factor: float = 0.0             # tokens that an expert takes, as a factor on its even share; 0: no limit
    image_fraction: float = 1.0           # share of the training photos that is used; an epoch keeps its steps
    video_fraction: float = 1.0           # the same of the training clips
    init: Pretrain | str | None = None   # a pre-training configuration, a checkpoint file, or None: from scratch
    model: str = "s4d_base_patch16_160"   # name in timm's registry
    image_batch_size: int = 32             # photos per step, all GPUs together
    video_batch_size: int = 16             # clips per step, all GPUs together
    image_epoch_fraction: float = 0.5          # share of the image batches used per epoch
    balanced_sampling: bool = True             # image classes oversampled to equal counts
    lr: float = 1e-5                  # at video batch 8; scaled linearly
    min_lr: float = 1e-6              # at total batch 256; scaled linearly
    layer_decay: float = 0.75         # factor on the learning rate from each block to the one below
    betas: tuple[float, float] = (0.9, 0.999)   # of AdamW's two moments
    drop_path_rate: float = 0.1            # largest rate of stochastic depth, reached in the last block
    aux_loss_weight: float = 1e-3             # coefficient of the experts' balance loss
    mixup: float = 0.8                # alpha of MixUp; 0: none
    cutmix: float = 1.0               # alpha of CutMix; 0: none
    label_smoothing: float = 0.1            # share of a label spread over all classes
    randaugment: str = "m7-n4"        # magnitude and number of operations; empty: none
    image_randaugment: str | None = None   # the same of photos; None: as of clips
    random_erasing: float = 0.25             # probability that a rectangle is painted over
    crop_scale: tuple[float, float] = (0.5, 1.0)   # area range of the random resized crop
    clip_grad: float = 0.0            # largest gradient norm; 0: none
    test_segments: int = 2                 # test views along time
    test_crops: int = 2                    # test views across the picture
    val_fraction: float = 0.1           # share of the training clips (whole subjects where known) held out
    test_each_epoch: bool = False          # test after every epoch too, to report the last epoch and the one chosen on test beside ours
    ema_decay: float = 0.0                  # decay of a moving average of the weights, which is validated and kept; 0: none
    stage: typing.ClassVar[str] = "finetune"

    def __post_init__(self):
        _check(self, _FINETUNE)
        if not self.tasks or not set(self.tasks) <= {"image", "video"}:
            raise ConfigError(f"Finetune.tasks is {self.tasks!r}: expected image (photos), video (clips) or both")
        if self.num_experts and self.top_k > self.num_experts:
            raise ConfigError(f"Finetune.top_k is {self.top_k}: expected 1 to {self.num_experts}, the number of experts")


METHODS = {                           # method name -> what it sets; the fixed names of every table and figure
    "dynamic": dict(tasks=("video",), num_experts=0),
    "static": dict(tasks=("image",), num_experts=0),
    "multitask": dict(tasks=("image", "video"), num_experts=0),
    "adapters": dict(tasks=("image", "video"), num_experts=8, top_k=0),     # as many weights as S4D, no routing
    "s4d": dict(tasks=("image", "video"), num_experts=8),
}


@dataclass(frozen=True)
class Profile:
    """What one word selects everywhere: corpora, pre-training, fine-tuning, seeds."""

    name: str
    faces: Faces | None               # None: licensed data
    pretrain: Pretrain
    finetune: Finetune
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = tuple(METHODS)      # that start from the pre-training
    scratch_methods: tuple[str, ...] = tuple(METHODS)      # and from scratch
    n_jobs: int = 2                     # runs side by side, one thread each on a CPU
    notebooks: tuple[str, ...] | None = None       # that `reproduce` executes unless others are named; None: all
    resamples: int = 2000             # of every bootstrap
    runs: str = "runs"

    def methods_grid(self) -> list[tuple[str, bool, int, Finetune]]:
        """Every (method, pretrained, seed, configuration) of the comparison, from-scratch runs first."""
        grid = []
        for pretrained in (False, True):
            for seed in self.seeds:
                for method in self.methods if pretrained else [m for m in self.scratch_methods if m in self.methods]:
                    init = self.pretrain if pretrained else None
                    cfg = replace(self.finetune, **METHODS[method], init=init, seed=seed)
                    grid.append((method, pretrained, seed, cfg))
        return grid


PROFILES = ("smoke", "sandbox", "night", "gpu", "paper", "paper-ferv39k", "paper-mafw")
# What the recipes of the paper differ in: fold, classes of clips and photos, frames between two sampled ones. `paper` is DFEW's.
RECIPES = {"dfew": (1, 7, 7, 4), "ferv39k": (None, 7, 7, 1), "mafw": (1, 11, 8, 4)}


def profile(name: str, data: str = "data", runs: str = "runs") -> Profile:
    """The profile of that name.

    Args:
        name: smoke, sandbox, night, gpu; paper (AffectNet and DFEW), paper-ferv39k or paper-mafw.
        data: folder of the corpora; for the paper's it holds affectnet/, voxceleb2/ and dfew/, ferv39k/ or mafw/.
        runs: folder of the run store.
    Raises:
        ConfigError: for an unknown name.
    """
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    if name.startswith("paper"):
        clips, root = name.removeprefix("paper").lstrip("-") or "dfew", Path(data)
        fold, classes, photo_classes, stride = RECIPES[clips]
        photos, speaking = Source("affectnet", str(root / "affectnet"), num_classes=photo_classes), str(root / "voxceleb2")
        return Profile(name, None, Pretrain(update(photos, num_classes=7), Source("voxceleb2", speaking, crop_box=(0, 32, 160, 160), short_side=192)),
                       Finetune(photos, Source(clips, str(root / clips), fold, classes), sampling_rate=stride, image_randaugment="m9-n4"),
                       n_jobs=1, runs=runs)
    if name == "night":      # the sandbox's networks and runs, and most ablations: for a laptop that works overnight
        return replace(profile("sandbox", data, runs), name=name, scratch_methods=tuple(METHODS), notebooks=("03_finetuning",))
    faces = {"smoke": Faces(photos=280, photo_subjects=70, clips=100, clip_subjects=20, speaking=40,
                            speaking_subjects=10, compound=55, compound_subjects=10, num_frames=8),
             "sandbox": Faces(seed=1),      # people nobody looked at while the settings were chosen, with seed 0: see docs/log.md
             "gpu": Faces(img_size=160, photos=40000, photo_subjects=10000, clips=20000, clip_subjects=2000,
                          speaking=20000, speaking_subjects=4000, compound=5000, compound_subjects=500, num_frames=32, fps=12)}[name]
    root = Path(data) / faces.folder
    photos, clips, speaking = (Source(d, str(root / d), fold)
                               for d, fold in (("affectnet", None), ("dfew", 1), ("voxceleb2", None)))
    nano = dict(img_size=64, num_frames=8, sampling_rate=2 if faces.num_frames >= 16 else 1, num_workers=0, cache=True, save_minutes=1.0,
                amp=False)     # the same arithmetic on every CPU
    if name == "gpu":
        nano = dict(img_size=160, num_frames=16, sampling_rate=2, num_workers=8, cache=True, save_minutes=2.0)
    pre = Pretrain(photos, speaking, **nano, **PRETRAIN[name])
    fine = Finetune(photos, clips, **nano, **FINETUNE[name])
    if name == "smoke":
        return Profile(name, faces, pre, fine, seeds=(0,), resamples=200, runs=runs)
    if name == "gpu":
        return Profile(name, faces, pre, fine, n_jobs=1, runs=runs)
    return Profile(name, faces, pre, fine, scratch_methods=("dynamic", "static", "multitask", "s4d"), runs=runs)


# What each profile changes of the released recipe. The sandbox values were chosen by measurement: see docs/log.md.
# In fine-tuning aligned faces stay whole (crop 1): a transformer this small does not learn from a few thousand shifted ones.
# The mask ratios are lower than the paper's because a nano model has 16 tokens a photo, of which 90 % would leave two.
_NANO_PT = dict(model="s4d_mae_nano_patch16_64", image_mask_ratio=0.75, video_mask_ratio=0.9, lr=1.2e-2, crop_scale=(0.5, 1.0))
_NANO_FT = dict(model="s4d_nano_patch16_64", image_batch_size=32, video_batch_size=16, image_epoch_fraction=0.5, balanced_sampling=True, layer_decay=1.0,
                mixup=0.0, cutmix=0.0, label_smoothing=0.1, randaugment="", random_erasing=0.0, crop_scale=(1.0, 1.0), drop_path_rate=0.0,
                clip_grad=1.0, test_crops=1, test_segments=1)
PRETRAIN = {
    "smoke": dict(_NANO_PT, image_batch_size=32, video_batch_size=8, repeat_aug=2, epochs=1),
    "sandbox": dict(_NANO_PT, image_batch_size=64, video_batch_size=16, video_epoch_fraction=0.5, epochs=24),
    "gpu": dict(model="s4d_mae_small_patch16_160", epochs=20),
}
FINETUNE = {
    "smoke": dict(_NANO_FT, epochs=1, lr=1e-3),
    "sandbox": dict(_NANO_FT, epochs=7, lr=5e-4),
    "gpu": dict(model="s4d_small_patch16_160", epochs=20),
}


def to_dict(config) -> dict:
    """A configuration as plain nested dictionaries; nested configurations name their class under `kind`."""
    out = {"kind": type(config).__name__}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        out[f.name] = to_dict(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
    return out


def from_dict(values: dict):
    """The inverse of `to_dict`.

    Raises:
        ConfigError: for an unknown kind, and for an unknown or a missing key, naming it and what is allowed.
    """
    kinds = {c.__name__: c for c in (Faces, Source, Pretrain, Finetune, Profile)}
    if values.get("kind") not in kinds:
        raise ConfigError(f"unknown configuration kind {values.get('kind')!r}: expected one of {', '.join(kinds)}")
    cls = kinds[values["kind"]]
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known - {"kind"})
    if unknown:
        raise ConfigError(f"unknown key {unknown[0]!r} for {cls.__name__}: allowed are {', '.join(sorted(known))}")
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in values and f.default is f.default_factory]
    if missing:
        raise ConfigError(f"key {missing[0]!r} of {cls.__name__} is missing")
    read = lambda v: from_dict(v) if isinstance(v, dict) else tuple(v) if isinstance(v, list) else v
    return cls(**{k: read(v) for k, v in values.items() if k != "kind"})


def update(config, **changes):
    """A copy with fields replaced; an unknown field is an error that names it."""
    known = {f.name for f in dataclasses.fields(config)}
    for key in changes:
        if key not in known:
            raise ConfigError(f"unknown key {key!r} for {type(config).__name__}: allowed are {', '.join(sorted(known))}")
    return replace(config, **changes)


# Fields that say how a run is carried out, not what it computes: they do not enter its name.
HOW = {"root", "num_workers", "cache", "save_minutes", "runs", "grad_checkpointing", "deterministic", "tensorboard"}

def digest(config) -> str:
    """Ten hex digits that name a configuration: equal settings, equal name, wherever the data lie."""
    def strip(d):
        return {k: strip(v) if isinstance(v, dict) else v for k, v in d.items() if k not in HOW}
    text = json.dumps(strip(to_dict(config)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
