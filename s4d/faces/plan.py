"""What the corpora hold before a pixel is drawn: who, which emotion, split or fold, file."""
from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from ..config import Faces
from ..emotions import EMOTIONS, ORDERS
from .facs import NEIGHBOUR, TURNS

# Training photos and clips (MAFW: of fold 1) of each class in the real datasets; they set how
# unbalanced the embedded ones are.
AFFECTNET = {"neutral": 74874, "happiness": 134415, "sadness": 25459, "surprise": 14090,
             "fear": 6378, "disgust": 3803, "anger": 24882}
MAFW = {"anger": 1112, "anxiety": 732, "contempt": 188, "disappointment": 145, "disgust": 511,
        "fear": 500, "happiness": 993, "helplessness": 209, "neutral": 910, "sadness": 1176,
        "surprise": 857}
DFEW = {"happiness": 2445, "sadness": 1894, "neutral": 2669, "anger": 2173, "surprise": 1469,
        "disgust": 145, "fear": 902}
SPLITS = {"train": .80, "val": .08, "test": .12}
FOLDS = (1, 2, 3, 4, 5)
SHARD = {"affectnet": 64, "dfew": 8, "mafw": 8, "voxceleb2": 8}     # samples drawn together; fixed
CORPORA = tuple(SHARD)


class FacesError(ValueError):
    """Settings that nothing can be drawn from; the message names the value and what is allowed."""


@dataclass(frozen=True)
class Sample:
    """One file of a corpus."""

    corpus: str
    path: str                # below the corpus' own folder
    row: int                 # in the table of all subjects
    subject: str
    label: str               # emotion that the lists name; a speaking clip has one too, but no list
    split: str               # of a photo; a clip's test fold
    performed: str           # emotion that is shown: not the label where annotators erred
    before: str | None = None   # emotion that turns into it


def distance(cfg: Faces) -> SimpleNamespace:
    """Say what the gap makes of the clips."""
    g, life = cfg.gap, min(1.0, 5 * cfg.gap)
    far = g * g                              # faces turn away and expressions fade late on the way
    low, high = cfg.intensity
    return SimpleNamespace(
        intensity=(low + far * (min(low, .4) - low), high + far * (min(high, .8) - high)),
        pose=cfg.pose * (1 + 2 * far),       # standard deviation of yaw in degrees
        motion=1.5 * cfg.pose * g,           # of the head while the clip lasts
        speech=g,                            # share of clips in which the subject talks
        order=cfg.order * life,              # share that turns from one emotion into another
        life=life,                           # 0: the apex is held all along; 1: rise, fall, blinks
        label_noise=cfg.label_noise * (1 + 2 * g),      # share under a neighbouring label
        crf=18 + round(16 * g))              # of x264: 18 fine .. 34 coarse


def apportion(total: int, shares: np.ndarray, least: int = 0) -> np.ndarray:
    """Split `total` into whole numbers in proportion to `shares`, each at least `least`."""
    rest = total - least * len(shares)
    quota = np.asarray(shares, float) / np.sum(shares) * rest
    out = np.floor(quota).astype(int)
    short = rest - out.sum()
    out[np.argsort(out - quota, kind="stable")[:short]] += 1              # largest remainders
    return out + least


def shares(real: dict[str, int], balance: float, names: tuple[str, ...]) -> np.ndarray:
    """Class shares in the order of `names`: the real ones to the power `balance`, summing to 1."""
    raw = np.array([real[n] for n in names], float) ** balance
    return raw / raw.sum()


def num_subjects(cfg: Faces) -> int:
    """Count the subjects of all corpora together."""
    return cfg.photo_subjects + cfg.clip_subjects + cfg.compound_subjects + cfg.speaking_subjects


def samples(cfg: Faces) -> list[Sample]:
    """List every file of the four corpora, in the order in which they are drawn.

    Subjects are numbered through, so nobody is in two corpora, photo splits or clip folds.
    """
    first = cfg.photo_subjects
    clips = _clips(cfg, "dfew", cfg.clips, cfg.clip_subjects, first, DFEW)
    first += cfg.clip_subjects
    compound = _clips(cfg, "mafw", cfg.compound, cfg.compound_subjects, first, MAFW)
    return _photos(cfg) + clips + compound + _speaking(cfg, first + cfg.compound_subjects)


def _spread(count: int, subjects: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose `count` of `subjects`, each about equally often, in random order."""
    return rng.permutation(np.resize(rng.permutation(subjects), count))


def _performed(label: str, noise: float, rng: np.random.Generator) -> str:
    """The emotion that a sample with this label shows: now and then the one it is mistaken for."""
    return NEIGHBOUR[label] if rng.random() < noise else label


def _photos(cfg: Faces) -> list[Sample]:
    rng = np.random.default_rng([cfg.seed, 1])
    weights = np.array(list(SPLITS.values()))
    photos, subjects = apportion(cfg.photos, weights, 7), apportion(cfg.photo_subjects, weights, 1)
    groups = np.split(rng.permutation(cfg.photo_subjects), subjects.cumsum()[:-1])
    out = []
    for split, count, group in zip(SPLITS, photos, groups, strict=True):
        share = shares(AFFECTNET, cfg.class_balance if split == "train" else 0, EMOTIONS)
        labels = rng.permutation(np.repeat(EMOTIONS, apportion(count, share, 1)))
        for label, row in zip(labels.tolist(), _spread(count, group, rng).tolist(), strict=True):
            out.append(Sample("affectnet", f"{split}/{label}/{len(out):06d}.jpg", row,
                              f"p{row:05d}", label, split, _performed(label, cfg.label_noise, rng)))
    return out


def _clips(cfg: Faces, corpus: str, clips: int, subjects: int, first: int,
           real: dict[str, int]) -> list[Sample]:
    """Labelled clips in five folds; `first` numbers the first subject, `real` counts classes."""
    rng = np.random.default_rng([cfg.seed, 2 if corpus == "dfew" else 4])
    far, names = distance(cfg), ORDERS[corpus]
    labels = np.repeat(names, apportion(clips, shares(real, cfg.class_balance, names), 5)).tolist()
    fold = np.resize(FOLDS, clips)           # class after class, so that folds are stratified
    groups = np.array_split(rng.permutation(subjects), len(FOLDS))
    who = np.empty(clips, int)
    for k, group in zip(FOLDS, groups, strict=True):
        who[fold == k] = _spread(int((fold == k).sum()), group, rng)
    folder, letter = ("Clip/original", "c") if corpus == "dfew" else ("clips", "m")
    out = []
    for n, i in enumerate(rng.permutation(clips), 1):
        shown = _performed(labels[i], far.label_noise, rng)
        before = TURNS.get(shown) if rng.random() < far.order else None
        out.append(Sample(corpus, f"{folder}/{n:05d}.mp4", int(first + who[i]),
                          f"{letter}{who[i]:05d}", labels[i], str(fold[i]), shown, before))
    return out


def _speaking(cfg: Faces, first: int) -> list[Sample]:
    rng = np.random.default_rng([cfg.seed, 3])
    labels = rng.choice(ORDERS["dfew"], cfg.speaking).tolist()
    who = np.sort(_spread(cfg.speaking, np.arange(cfg.speaking_subjects), rng)).tolist()
    out = []
    for i, (w, label) in enumerate(zip(who, labels, strict=True)):
        digest = hashlib.sha256(f"{cfg.seed} {i}".encode()).digest()
        video = base64.urlsafe_b64encode(digest).decode()[:11].replace("-", "a")
        out.append(Sample("voxceleb2", f"dev/mp4/id{w + 1:05d}/{video}/00001.mp4", first + w,
                          f"id{w + 1:05d}", label, "train", label))
    return out
