"""What the corpora hold before a pixel is drawn: who, which emotion, which split or fold, which file."""
from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from ..config import Faces
from ..emotions import EMOTIONS, ORDERS
from .facs import NEIGHBOUR, TURNS

# Training photos and clips (MAFW: of fold 1) of each class in the real datasets; they set how unbalanced the embedded ones are.
AFFECTNET = {"neutral": 74874, "happiness": 134415, "sadness": 25459, "surprise": 14090, "fear": 6378, "disgust": 3803, "anger": 24882}
MAFW = {"anger": 1112, "anxiety": 732, "contempt": 188, "disappointment": 145, "disgust": 511, "fear": 500, "happiness": 993,
        "helplessness": 209, "neutral": 910, "sadness": 1176, "surprise": 857}
DFEW = {"happiness": 2445, "sadness": 1894, "neutral": 2669, "anger": 2173, "surprise": 1469, "disgust": 145, "fear": 902}
SPLITS = {"train": .80, "val": .08, "test": .12}
FOLDS = (1, 2, 3, 4, 5)
SHARD = {"affectnet": 64, "dfew": 8, "mafw": 8, "voxceleb2": 8}     # samples drawn together; fixed, so that workers change nothing
CORPORA = tuple(SHARD)


class FacesError(ValueError):
    """Settings that no corpus can be built from; the message names the value and what is allowed."""


@dataclass(frozen=True)
class Sample:
    """One file of a corpus."""

    corpus: str
    path: str                # below the corpus' own folder
    identity: int            # row in the table of all identities
    subject: str
    label: str               # emotion that the lists name; a speaking clip has one too, but no list
    split: str               # of a photo; a clip's test fold
    performed: str           # emotion that is shown: another than the label where annotators erred
    before: str | None = None   # emotion that turns into it


def check(cfg: Faces) -> None:
    """Raises FacesError for settings outside what can be drawn."""
    def need(ok: bool, name: str, what: str) -> None:
        if not ok:
            raise FacesError(f"faces setting {name} = {getattr(cfg, name)!r}: {what}")
    need(isinstance(cfg.img_size, int) and 32 <= cfg.img_size <= 224 and cfg.img_size % 2 == 0, "img_size", "give an even number of pixels from 32 to 224")
    for name, least in (("photos", 21), ("photo_subjects", 3), ("clips", 35), ("clip_subjects", 5), ("compound", 55),
                        ("compound_subjects", 5), ("speaking", 1),
                        ("speaking_subjects", 1)):
        need(getattr(cfg, name) >= least, name, f"at least {least} are needed to fill every split and class")
    need(2 <= cfg.num_frames <= 600, "num_frames", "give 2 to 600 frames a clip")
    need(1 <= cfg.fps <= 60, "fps", "give 1 to 60 frames a second")
    need(0 <= min(cfg.intensity) and cfg.intensity[0] <= cfg.intensity[1] <= 2, "intensity", "give two numbers from 0 to 2, the smaller one first")
    need(0 <= cfg.label_noise <= .3, "label_noise", "give a share from 0 to 0.3")
    for name in ("gap", "order", "nuisance", "class_balance"):
        need(0 <= getattr(cfg, name) <= 1, name, "give a number from 0 to 1")
    need(0 <= cfg.pose <= 30, "pose", "give 0 to 30 degrees")
    need(.5 <= cfg.zoom <= 2, "zoom", "give a number from 0.5 to 2")


def distance(cfg: Faces) -> SimpleNamespace:
    """What the gap makes of the clips.

    Returns:
        intensity: range of the factor on the emotion's actions, down to (.4, .8) at gap 1;
        pose: standard deviation of yaw in degrees, up to three times that of photos; motion: of the head while the clip lasts;
        speech: share of clips in which the person talks; order: share that turns from one emotion into another;
        life: 0 where the apex is held all along .. 1 with onset, offset, blinks (from a gap of .2 on);
        label_noise: share under a neighbouring label, up to three times that of photos; crf: x264's quality, 18 fine to 34 coarse.
    """
    g, life = cfg.gap, min(1.0, 5 * cfg.gap)
    far = g * g                                              # faces turn away and expressions fade late on the way
    low, high = cfg.intensity
    return SimpleNamespace(intensity=(low + far * (min(low, .4) - low), high + far * (min(high, .8) - high)), pose=cfg.pose * (1 + 2 * far),
                           motion=1.5 * cfg.pose * g, speech=g, order=cfg.order * life, life=life,
                           label_noise=cfg.label_noise * (1 + 2 * g), crf=18 + round(16 * g))


def apportion(total: int, shares: np.ndarray, least: int = 0) -> np.ndarray:
    """`total` split into whole numbers in proportion to `shares` (largest remainders), each at least `least`."""
    quota = np.asarray(shares, float) / np.sum(shares) * (total - least * len(shares))
    out = np.floor(quota).astype(int)
    out[np.argsort(out - quota, kind="stable")[:total - least * len(shares) - out.sum()]] += 1
    return out + least


def shares(real: dict[str, int], balance: float, names: tuple[str, ...]) -> np.ndarray:
    """Class shares in the order of `names`: the real ones to the power `balance`, summing to 1."""
    raw = np.array([real[n] for n in names], float) ** balance
    return raw / raw.sum()


def samples(cfg: Faces) -> list[Sample]:
    """Every file of the four corpora, in the order in which they are drawn.

    Identities are numbered through, corpus after corpus, so nobody is in two of them; nobody is in two photo splits or two clip folds.
    """
    check(cfg)
    clips = _clips(cfg, "dfew", cfg.clips, cfg.clip_subjects, cfg.photo_subjects, DFEW)
    compound = _clips(cfg, "mafw", cfg.compound, cfg.compound_subjects, cfg.photo_subjects + cfg.clip_subjects, MAFW)
    return _photos(cfg) + clips + compound + _speaking(cfg)


def identities(cfg: Faces) -> int:
    """Number of identities of all corpora together."""
    return cfg.photo_subjects + cfg.clip_subjects + cfg.compound_subjects + cfg.speaking_subjects


def _spread(count: int, people: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`count` entries of `people`, each about equally often, in random order."""
    return rng.permutation(np.resize(rng.permutation(people), count))


def _photos(cfg: Faces) -> list[Sample]:
    rng = np.random.default_rng([cfg.seed, 1])
    weights = np.array(list(SPLITS.values()))
    counts, people = apportion(cfg.photos, weights, 7), apportion(cfg.photo_subjects, weights, 1)
    order, out, first = rng.permutation(cfg.photo_subjects), [], 0
    for split, count, persons in zip(SPLITS, counts, people):
        share = shares(AFFECTNET, cfg.class_balance if split == "train" else 0, EMOTIONS)
        labels = rng.permutation(np.repeat(EMOTIONS, apportion(count, share, 1)))
        who = _spread(count, order[first:first + persons], rng)
        first += persons
        for label, person in zip(labels, who):
            path = f"{split}/{label}/{len(out):06d}.jpg"
            out.append(Sample("affectnet", path, int(person), f"p{person:05d}", str(label), split, _performed(label, cfg.label_noise, rng)))
    return out


def _performed(label: str, noise: float, rng: np.random.Generator) -> str:
    """The emotion that a sample with this label shows: now and then the one it is mistaken for."""
    return NEIGHBOUR[label] if rng.random() < noise else str(label)


def _clips(cfg: Faces, corpus: str, clips: int, people: int, first: int, real: dict[str, int]) -> list[Sample]:
    """Labelled clips in five folds; `first` is the number of their first identity, `real` the real dataset's class counts."""
    rng = np.random.default_rng([cfg.seed, 2 if corpus == "dfew" else 4])
    far, names = distance(cfg), ORDERS[corpus]
    labels = np.repeat(names, apportion(clips, shares(real, cfg.class_balance, names), 5))
    fold = np.resize(FOLDS, clips)                           # class after class, so that folds are stratified
    groups = np.array_split(rng.permutation(people), len(FOLDS))
    who = np.empty(clips, int)
    for k in FOLDS:
        who[fold == k] = _spread(int((fold == k).sum()), groups[k - 1], rng)
    folder, letter = ("Clip/original", "c") if corpus == "dfew" else ("clips", "m")
    out = []
    for n, i in enumerate(rng.permutation(clips), 1):
        shown = _performed(labels[i], far.label_noise, rng)
        before = TURNS.get(shown) if rng.random() < far.order else None
        out.append(Sample(corpus, f"{folder}/{n:05d}.mp4", int(first + who[i]), f"{letter}{who[i]:05d}", str(labels[i]), str(fold[i]), shown, before))
    return out


def _speaking(cfg: Faces) -> list[Sample]:
    rng = np.random.default_rng([cfg.seed, 3])
    labels = rng.choice(ORDERS["dfew"], cfg.speaking)
    who = np.sort(_spread(cfg.speaking, np.arange(cfg.speaking_subjects), rng))
    name = lambda i: base64.urlsafe_b64encode(hashlib.sha256(f"{cfg.seed} {i}".encode()).digest()).decode()[:11].replace("-", "a")
    offset = identities(cfg) - cfg.speaking_subjects
    return [Sample("voxceleb2", f"dev/mp4/id{w + 1:05d}/{name(i)}/00001.mp4", int(offset + w), f"id{w + 1:05d}", str(label), "train", str(label))
            for i, (w, label) in enumerate(zip(who, labels))]
