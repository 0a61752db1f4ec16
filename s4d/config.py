"""Configurations: a frozen dataclass per stage, a table of profiles, and the names of runs."""
from __future__ import annotations

import hashlib
import json
import math
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar, Literal


class ConfigError(ValueError):
    """A configuration holds an unknown key, or a value outside what is allowed."""


def bounded(default, low: float, high: float = math.inf):
    """A number from `low` to `high`, or an ascending pair of them. A tiny `low` excludes 0."""
    return field(default=default, metadata={"bounds": (low, high)})


@dataclass(frozen=True)
class _Checked:
    """A configuration that refuses numbers outside the bounds of their fields."""

    def __post_init__(self):
        for f in (f for f in fields(self) if f.metadata):
            value, (low, high) = getattr(self, f.name), f.metadata["bounds"]
            pair = value if isinstance(f.default, tuple) else (value, value)
            whole = f.type != "int" or isinstance(value, int)
            if not whole or not low <= pair[0] <= pair[1] <= high:
                raise ConfigError(f"{type(self).__name__}.{f.name} is {value!r}: expected {f.type} "
                                  f"from {low:g} to {high:g}")


@dataclass(frozen=True)
class Faces(_Checked):
    """The embedded corpora of procedural faces. The lowest counts hold each class in each split."""

    version: int = 5                                # version of the generator and its pixels
    seed: int = 0                                   # random seed of subjects and scenes
    img_size: int = bounded(64, 32, 224)            # side of the pictures, an even number of px
    photos: int = bounded(8000, 21)                 # labelled photos in all (AffectNet's layout)
    photo_subjects: int = bounded(2000, 3)          # people in the photos
    clips: int = bounded(1400, 35)                  # labelled clips, five folds (DFEW's layout)
    clip_subjects: int = bounded(200, 5)            # people in these clips
    compound: int = bounded(330, 55)                # clips of 11 emotions (MAFW's layout)
    compound_subjects: int = bounded(55, 5)         # people in these clips
    speaking: int = bounded(500, 1)                 # unlabelled clips (VoxCeleb2's layout)
    speaking_subjects: int = bounded(100, 1)        # people in these clips
    num_frames: int = bounded(16, 2, 600)           # frames of a clip on disk
    fps: int = bounded(8, 1, 60)                    # frames per second of a clip
    intensity: tuple[float, float] = bounded((1.15, 1.45), 0, 2)    # range of photos' expression
    gap: float = bounded(0.2, 0, 1)                 # of clips: 0 still .. 1 faint, turned, talking
    order: float = bounded(0.1, 0, 1)               # share of clips that only order tells apart
    label_noise: float = bounded(0.045, 0, 0.3)     # share of photos with a neighbouring label
    pose: float = bounded(4.0, 0, 30)               # degrees of yaw; pitch 0.7 and roll 0.6 of it
    nuisance: float = bounded(0.0, 0, 1)            # 0 aligned, evenly lit .. 1 wild light, noise
    zoom: float = bounded(1.45, 0.5, 2)             # 1 head and shoulders .. 1.45 the face alone
    class_balance: float = bounded(0.5, 0, 1)       # exponent on real class shares; 0: uniform

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
    """A dataset and where it lies. The folder does not enter a run's name."""

    name: str                               # the dataset's name in the registry
    root: str                               # the dataset's folder
    fold: int | None = None                 # the fold, of datasets with folds
    num_classes: int = 7                    # size of the vocabulary: 7, 8 or 11
    label_order: str | None = None          # what a list's integers mean, a key of emotions.ORDERS
    subject_separator: str | None = None    # ends the subject in own file names: _ in anna_01.jpg
    crop_box: tuple[int, int, int, int] | None = None   # part to use: top, left, height, width, px
    short_side: int | None = None           # px before random crops; photos: at most


@dataclass(frozen=True)
class _Training(_Checked):
    """What both stages of training have in common."""

    image: Source | None                            # dataset of photos; None: clips alone
    video: Source | None                            # dataset of clips; None: photos alone
    _: KW_ONLY
    img_size: int = bounded(160, 1)                 # side of the model's input, px
    num_frames: int = bounded(16, 1)                # frames sampled from a clip
    sampling_rate: int = bounded(4, 1)              # steps from one sampled frame to the next
    epochs: float = bounded(100, 1e-6)              # passes over the data, also fractions
    warmup_ratio: float = bounded(0.05, 0, 1)       # share of the steps that warm up
    weight_decay: float = bounded(0.05, 0)          # AdamW's decay of matrices
    seed: int = bounded(0, 0)                       # random seed of weights, order and draws
    num_workers: int = bounded(8, 0)                # decoding processes; 0: decode while training
    cache: bool = False                             # decode once, into a file beside the data
    amp: bool = True                                # bf16 autocast; slow on CPUs without bf16 units
    save_minutes: float = bounded(10.0, 0)          # minutes between two resumable states
    max_unreadable: float = bounded(0.01, 0, 1)     # largest tolerated share of unreadable samples
    grad_accum_steps: int = bounded(1, 1)           # pieces of a batch, to save memory
    grad_checkpointing: bool = False                # recompute activations, to save memory
    deterministic: bool = False                     # only deterministic algorithms on CUDA: slower


@dataclass(frozen=True)
class Pretrain(_Training):
    """Dual-modal masked pre-training (docs/method.md section 4)."""

    model: str = "s4d_mae_base_patch16_160"                 # name in timm's registry
    image_mask_ratio: float = bounded(0.90, 0.01, 0.99)     # share of a photo's tokens removed
    video_mask_ratio: float = bounded(0.95, 0.01, 0.99)     # share of a clip's tokens removed
    image_batch_size: int = bounded(192, 1)                 # photos per step, all GPUs together
    video_batch_size: int = bounded(48, 1)                  # clips per step, all GPUs together
    repeat_aug: int = bounded(4, 1)                         # masked crops of each clip
    video_epoch_fraction: float = bounded(0.25, 1e-6, 1)    # share of the clips in an epoch
    lr: float = bounded(1.6e-3, 1e-12)                      # learning rate at a batch of 512 photos
    betas: tuple[float, float] = bounded((0.9, 0.95), 0, 0.99999)   # decay of AdamW's two moments
    crop_scale: tuple[float, float] = bounded((0.2, 1.0), 1e-6, 1)  # area range of random crops
    stage: ClassVar[str] = "pretrain"


@dataclass(frozen=True)
class Finetune(_Training):
    """Joint fine-tuning; `tasks`, `num_experts` and `top_k` select the method."""

    tasks: tuple[Literal["image", "video"], ...] = ("image", "video")   # tasks to train
    num_experts: int = bounded(8, 0)                        # experts a block; 0: plain multi-task
    top_k: int = bounded(2, 0)                              # experts a token; 0: all, not routed
    moae_start: int | None = None                           # first block with experts; None: middle
    adapter_reduction: int = bounded(4, 1)                  # embed_dim over an expert's width
    router_noise: bool = True                               # noise on the scores in training
    capacity_factor: float = bounded(0.0, 0)                # limit on an expert's tokens; 0: none
    image_fraction: float = bounded(1.0, 1e-6, 1)           # share of the training photos to use
    video_fraction: float = bounded(1.0, 1e-6, 1)           # share of the training samples to use
    init: Pretrain | str | None = None                      # pre-training or checkpoint to start at
    model: str = "s4d_base_patch16_160"                     # name in timm's registry
    image_batch_size: int = bounded(32, 1)                  # photos per step, all GPUs together
    video_batch_size: int = bounded(16, 1)                  # clips per step, all GPUs together
    image_epoch_fraction: float = bounded(0.5, 1e-6, 1)     # share of the photos in an epoch
    balanced_sampling: bool = True                          # draw photos of all classes as often
    lr: float = bounded(1e-5, 1e-12)                        # learning rate at a batch of 8 clips
    min_lr: float = bounded(1e-6, 0)                        # smallest rate at a batch of 256
    layer_decay: float = bounded(0.75, 1e-6, 1)             # factor on the rate, block by block
    betas: tuple[float, float] = bounded((0.9, 0.999), 0, 0.99999)  # decay of AdamW's two moments
    drop_path_rate: float = bounded(0.1, 0, 1)              # stochastic depth of the last block
    aux_loss_weight: float = bounded(1e-3, 0)               # factor on the experts' balance loss
    mixup: float = bounded(0.8, 0)                          # alpha of MixUp; 0: none
    cutmix: float = bounded(1.0, 0)                         # alpha of CutMix; 0: none
    label_smoothing: float = bounded(0.1, 0, 1)             # share of a label given to all classes
    randaugment: str = "m7-n4"                              # magnitude, operations; empty: none
    image_randaugment: str | None = None                    # the same for photos; None: as clips
    random_erasing: float = bounded(0.25, 0, 1)             # probability of an erased rectangle
    crop_scale: tuple[float, float] = bounded((0.5, 1.0), 1e-6, 1)  # area range of random crops
    clip_grad: float = bounded(0.0, 0)                      # largest gradient norm; 0: no limit
    test_segments: int = bounded(2, 1)                      # test views along time
    test_crops: int = bounded(2, 1)                         # test views across the picture
    val_fraction: float = bounded(0.1, 1e-6, 0.99)          # share of training clips for validation
    test_each_epoch: bool = False                           # test after every epoch too
    ema_decay: float = bounded(0.0, 0, 0.99999)             # decay of averaged weights; 0: none
    stage: ClassVar[str] = "finetune"


METHODS = {                             # the fixed names of every table and figure
    "dynamic": dict(tasks=("video",), num_experts=0),
    "static": dict(tasks=("image",), num_experts=0),
    "multitask": dict(tasks=("image", "video"), num_experts=0),
    "adapters": dict(tasks=("image", "video"), num_experts=8, top_k=0),  # S4D's weights, no routing
    "s4d": dict(tasks=("image", "video"), num_experts=8)}


@dataclass(frozen=True)
class Profile:
    """What one word selects everywhere: corpora, pre-training, fine-tuning, seeds."""

    name: str
    faces: Faces | None                                 # the embedded corpora; None: licensed data
    pretrain: Pretrain
    finetune: Finetune
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = tuple(METHODS)           # methods that start from the pre-training
    scratch_methods: tuple[str, ...] = tuple(METHODS)   # methods that start from scratch
    n_jobs: int = 2                                     # runs side by side, a thread each on a CPU
    notebooks: tuple[str, ...] | None = None            # notebooks of `reproduce`; None: all
    resamples: int = 2000                               # draws of every bootstrap
    runs: str = "runs"                                  # folder of the runs

    def methods_grid(self) -> list[tuple[str, bool, int, Finetune]]:
        """Every (method, pretrained, seed, configuration), from-scratch runs first."""
        scratch = [m for m in self.scratch_methods if m in self.methods]
        return [(method, init is not None, seed,
                 replace(self.finetune, **METHODS[method], init=init, seed=seed))
                for init, methods in ((None, scratch), (self.pretrain, self.methods))
                for seed in self.seeds for method in methods]


# Settings of the nano models, chosen by measurement (docs/log.md). `amp` is off: the same
# arithmetic on every CPU. A photo has 16 tokens: removing 90 % would leave two. Aligned faces stay
# whole in fine-tuning (crop_scale 1): so small a model does not learn from a few thousand crops.
_NANO = dict(img_size=64, num_frames=8, num_workers=0, cache=True, save_minutes=1.0, amp=False)
_NANO_PRETRAIN = dict(model="s4d_mae_nano_patch16_64", image_mask_ratio=0.75, video_mask_ratio=0.9,
                      lr=1.2e-2, crop_scale=(0.5, 1.0))
_NANO_FINETUNE = dict(model="s4d_nano_patch16_64", layer_decay=1.0, mixup=0.0, cutmix=0.0,
                      randaugment="", random_erasing=0.0, crop_scale=(1.0, 1.0), drop_path_rate=0.0,
                      clip_grad=1.0, test_crops=1, test_segments=1)
_SANDBOX = dict(
    faces=dict(seed=1),     # the settings were chosen on other people, those of seed 0
    both=_NANO | dict(sampling_rate=2),
    pretrain=_NANO_PRETRAIN | dict(image_batch_size=64, video_batch_size=16,
                                   video_epoch_fraction=0.5, epochs=24),
    finetune=_NANO_FINETUNE | dict(epochs=7, lr=5e-4))
_PAPER = dict(n_jobs=1, pretrain=dict(video=dict(crop_box=(0, 32, 160, 160), short_side=192)),
              finetune=dict(image_randaugment="m9-n4"))    # the released recipe, for DFEW

# What each profile changes of `Faces`, of both stages, of each stage (`image` and `video` of their
# sources), and of the fields of `Profile`.
PROFILES = {
    "smoke": dict(
        faces=dict(photos=280, photo_subjects=70, clips=100, clip_subjects=20, compound=55,
                   compound_subjects=10, speaking=40, speaking_subjects=10, num_frames=8),
        both=_NANO | dict(sampling_rate=1, epochs=1), seeds=(0,), resamples=200,
        pretrain=_NANO_PRETRAIN | dict(image_batch_size=32, video_batch_size=8, repeat_aug=2),
        finetune=_NANO_FINETUNE | dict(lr=1e-3)),
    "sandbox": _SANDBOX | dict(methods=("dynamic", "static", "multitask", "s4d"),
                               scratch_methods=("dynamic", "s4d")),
    "night": _SANDBOX | dict(notebooks=("03_finetuning",)),     # all methods, and most ablations
    "gpu": dict(
        faces=dict(img_size=160, photos=40000, photo_subjects=10000, clips=20000, fps=12,
                   clip_subjects=2000, compound=5000, compound_subjects=500, num_frames=32,
                   speaking=20000, speaking_subjects=4000),
        both=dict(sampling_rate=2, cache=True, save_minutes=2.0, epochs=20), n_jobs=1,
        pretrain=dict(model="s4d_mae_small_patch16_160"),
        finetune=dict(model="s4d_small_patch16_160")),
    "paper": _PAPER,
    "paper-ferv39k": _PAPER | dict(finetune=dict(
        image_randaugment="m9-n4", sampling_rate=1, video=dict(name="ferv39k", fold=None))),
    "paper-mafw": _PAPER | dict(finetune=dict(
        image_randaugment="m9-n4", image=dict(num_classes=8),
        video=dict(name="mafw", num_classes=11)))}


def profile(name: str, data: str = "data", runs: str = "runs") -> Profile:
    """The profile of that name, with its corpora in folders of `data` and its runs in `runs`."""
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    row = dict(PROFILES[name])
    faces = Faces(**row.pop("faces")) if "faces" in row else None
    root, both = Path(data, faces.folder if faces else ""), row.pop("both", {})

    def stage(cls, **sources: dict):
        changed = both | row.pop(cls.stage, {})
        for task, source in sources.items():
            source = source | changed.get(task, {})
            changed[task] = Source(root=str(root / source["name"]), **source)
        return cls(**changed)

    pretrain = stage(Pretrain, image=dict(name="affectnet"), video=dict(name="voxceleb2"))
    finetune = stage(Finetune, image=dict(name="affectnet"), video=dict(name="dfew", fold=1))
    return Profile(name, faces, pretrain, finetune, runs=runs, **row)


# Fields that say how a run is carried out, not what it computes: they do not enter its name.
HOW = {"root", "num_workers", "cache", "save_minutes", "runs", "grad_checkpointing",
       "deterministic", "max_unreadable"}
update = replace    # a copy of a configuration with fields replaced


def digest(config) -> str:
    """Ten hex digits that name a configuration, wherever the data lie."""
    def named(c) -> dict:
        return {"kind": type(c).__name__} | {k: v for k, v in vars(c).items() if k not in HOW}

    text = json.dumps(config, default=named, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def to_dict(config) -> dict:
    """A configuration as plain nested dictionaries; each names its class under `kind`."""
    return json.loads(json.dumps(config, default=lambda c: {"kind": type(c).__name__, **vars(c)}))


def from_dict(values: dict):
    """The inverse of `to_dict`; an unknown or a missing key is an error that names it."""
    classes = {c.__name__: c for c in (Faces, Source, Pretrain, Finetune, Profile)}

    def build(found: dict):
        kind = found.pop("kind", None)
        found = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        try:
            return classes[kind](**found)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"cannot read a configuration of kind {kind!r}: {error}") from error

    return json.loads(json.dumps(values), object_hook=build)
