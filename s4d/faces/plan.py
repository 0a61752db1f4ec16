"""What the corpora hold before a pixel is drawn: who, which emotion, which split or fold, which file."""
from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

import numpy as np

from ..config import Faces
from ..emotions import EMOTIONS, ORDERS

# Training photos and clips of each class in the real datasets; they set how unbalanced the embedded ones are.
AFFECTNET = {"neutral": 74874, "happiness": 134415, "sadness": 25459, "surprise": 14090, "fear": 6378, "disgust": 3803, "anger": 24882}
DFEW = {"happiness": 2445, "sadness": 1894, "neutral": 2669, "anger": 2173, "surprise": 1469, "disgust": 145, "fear": 902}
SPLITS = {"train": .80, "val": .08, "test": .12}
FOLDS = (1, 2, 3, 4, 5)
SHARD = {"affectnet": 64, "dfew": 8, "voxceleb2": 8}     # samples drawn together; fixed, so that workers change nothing
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
    label: str               # emotion; of a speaking clip too, where no list names it
    split: str               # of a photo; a clip's test fold


def check(cfg: Faces) -> None:
    """Raises FacesError for settings outside what can be drawn."""
    def need(ok: bool, name: str, what: str) -> None:
        if not ok:
            raise FacesError(f"faces setting {name} = {getattr(cfg, name)!r}: {what}")
    need(isinstance(cfg.size, int) and 32 <= cfg.size <= 224 and cfg.size % 2 == 0, "size", "give an even number of pixels from 32 to 224")
    for name, least in (("photos", 21), ("photo_identities", 3), ("clips", 35), ("clip_identities", 5), ("speaking", 1),
                        ("speaking_identities", 1)):
        need(getattr(cfg, name) >= least, name, f"at least {least} are needed to fill every split and class")
    need(2 <= cfg.frames <= 600, "frames", "give 2 to 600 frames a clip")
    need(1 <= cfg.fps <= 60, "fps", "give 1 to 60 frames a second")
    for name in ("photo_intensity", "clip_intensity"):
        low, high = getattr(cfg, name)
        need(0 <= low <= high <= 2, name, "give two numbers from 0 to 2, the smaller one first")
    for name in ("speech", "nuisance", "balance"):
        need(0 <= getattr(cfg, name) <= 1, name, "give a number from 0 to 1")
    need(0 <= cfg.pose <= 30, "pose", "give 0 to 30 degrees")
    need(.5 <= cfg.zoom <= 2, "zoom", "give a number from 0.5 to 2")


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
    """Every file of the three corpora, in the order in which they are drawn.

    Identities are numbered through: first those of the photos, then of the clips, then of the speaking clips, so nobody is in
    two corpora; nobody is in two photo splits or two clip folds.
    """
    check(cfg)
    return _photos(cfg) + _clips(cfg) + _speaking(cfg)


def identities(cfg: Faces) -> int:
    """Number of identities of the three corpora together."""
    return cfg.photo_identities + cfg.clip_identities + cfg.speaking_identities


def _spread(count: int, people: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`count` entries of `people`, each about equally often, in random order."""
    return rng.permutation(np.resize(rng.permutation(people), count))


def _photos(cfg: Faces) -> list[Sample]:
    rng = np.random.default_rng([cfg.seed, 1])
    weights = np.array(list(SPLITS.values()))
    counts, people = apportion(cfg.photos, weights, 7), apportion(cfg.photo_identities, weights, 1)
    order, out, first = rng.permutation(cfg.photo_identities), [], 0
    for split, count, persons in zip(SPLITS, counts, people):
        share = shares(AFFECTNET, cfg.balance if split == "train" else 0, EMOTIONS)
        labels = rng.permutation(np.repeat(EMOTIONS, apportion(count, share, 1)))
        who = _spread(count, order[first:first + persons], rng)
        first += persons
        out += [Sample("affectnet", f"{split}/{label}/{len(out) + i:06d}.jpg", int(person), f"p{person:05d}", str(label), split)
                for i, (label, person) in enumerate(zip(labels, who))]
    return out


def _clips(cfg: Faces) -> list[Sample]:
    rng = np.random.default_rng([cfg.seed, 2])
    names = ORDERS["dfew"]
    labels = np.repeat(names, apportion(cfg.clips, shares(DFEW, cfg.balance, names), 5))
    fold = np.resize(FOLDS, cfg.clips)                       # class after class, so that folds are stratified
    groups = np.array_split(rng.permutation(cfg.clip_identities), len(FOLDS))
    who = np.empty(cfg.clips, int)
    for k in FOLDS:
        who[fold == k] = _spread(int((fold == k).sum()), groups[k - 1], rng)
    return [Sample("dfew", f"Clip/original/{n:05d}.mp4", int(cfg.photo_identities + who[i]), f"c{who[i]:05d}", str(labels[i]), str(fold[i]))
            for n, i in enumerate(rng.permutation(cfg.clips), 1)]


def _speaking(cfg: Faces) -> list[Sample]:
    rng = np.random.default_rng([cfg.seed, 3])
    labels = rng.choice(ORDERS["dfew"], cfg.speaking)
    who = np.sort(_spread(cfg.speaking, np.arange(cfg.speaking_identities), rng))
    name = lambda i: base64.urlsafe_b64encode(hashlib.sha256(f"{cfg.seed} {i}".encode()).digest()).decode()[:11].replace("-", "a")
    offset = cfg.photo_identities + cfg.clip_identities
    return [Sample("voxceleb2", f"dev/mp4/id{w + 1:05d}/{name(i)}/00001.mp4", int(offset + w), f"id{w + 1:05d}", str(label), "train")
            for i, (w, label) in enumerate(zip(who, labels))]
