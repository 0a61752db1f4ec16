"""The embedded corpora as files: AffectNet's photos, DFEW's and MAFW's clips, VoxCeleb2's speakers.

First what they hold (`samples`), then how it is drawn and written (`ensure`). Beside them lies
`truth.csv.gz`, what no dataset has: each frame's actions, phase and pose. Training never reads it.
"""
import base64
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import av
import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from PIL import Image
from tqdm.auto import tqdm

from ..config import Faces, to_dict
from ..files import OutputError, write_text
from . import facs
from .renderer import render
from .subject import subjects, views

# Training photos and clips (MAFW: of fold 1) of each class in the real datasets, in their label
# order; they set how unbalanced the embedded ones are.
REAL = {"affectnet": dict(neutral=74874, happiness=134415, sadness=25459, surprise=14090, fear=6378,
                          disgust=3803, anger=24882),
        "dfew": dict(happiness=2445, sadness=1894, neutral=2669, anger=2173, surprise=1469,
                     disgust=145, fear=902),
        "mafw": dict(anger=1112, anxiety=732, contempt=188, disappointment=145, disgust=511,
                     fear=500, happiness=993, helplessness=209, neutral=910, sadness=1176,
                     surprise=857)}
SPLITS = {"train": .80, "val": .08, "test": .12}
FOLDS = (1, 2, 3, 4, 5)
SHARD = {"affectnet": 64, "dfew": 8, "mafw": 8, "voxceleb2": 8}     # samples drawn together; fixed
ANGLES = ("yaw", "pitch", "roll")
TURNING = np.array([1, .7, .6])    # how far heads turn about each, relative to yaw
LARGE = 200_000                    # frames from which a GPU draws where there is one
COLUMNS = ("path", "corpus", "frame", "subject", "label", "performed", "before", "phase", "apex",
           "intensity", *(f"AU{a}_{side}" for a in facs.ACTIONS for side in "LR"), *ANGLES)
ROW = "%s/%s,%s,%d,%s,%s,%d,%.4f" + len(facs.ACTIONS) * 2 * ",%.3f" + 3 * ",%.2f" + "\n"


class Sample(NamedTuple):
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


def apportion(total: int, real: Iterable[float], power: float, least: int) -> np.ndarray:
    """Split `total` as `real` to a power, into whole numbers of `least` or more."""
    share = np.array(list(real), float) ** power
    rest = total - least * len(share)
    quota = share / share.sum() * rest
    out = np.floor(quota).astype(int)
    out[np.argsort(out - quota, kind="stable")[:rest - out.sum()]] += 1   # largest remainders
    return out + least


def samples(cfg: Faces) -> list[Sample]:
    """List every file of the four corpora, in the order in which they are drawn.

    Subjects are numbered through, so nobody is in two corpora, photo splits or clip folds.
    """
    first = cfg.photo_subjects
    out = _photos(cfg) + _clips(cfg, "dfew", cfg.clips, cfg.clip_subjects, first)
    first += cfg.clip_subjects
    out += _clips(cfg, "mafw", cfg.compound, cfg.compound_subjects, first)
    first += cfg.compound_subjects
    rng = np.random.default_rng([cfg.seed, 3])
    labels = rng.choice(list(REAL["dfew"]), cfg.speaking).tolist()
    who = np.sort(_spread(cfg.speaking, np.arange(cfg.speaking_subjects), rng)).tolist()
    for i, (w, label) in enumerate(zip(who, labels, strict=True)):
        digest = hashlib.sha256(f"{cfg.seed} {i}".encode()).digest()
        video = base64.urlsafe_b64encode(digest).decode()[:11].replace("-", "a")
        out.append(Sample("voxceleb2", f"dev/mp4/id{w + 1:05d}/{video}/00001.mp4", first + w,
                          f"id{w + 1:05d}", label, "train", label))
    return out


def _spread(count: int, subjects: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose `count` of `subjects`, each about equally often, in random order."""
    return rng.permutation(np.resize(rng.permutation(subjects), count))


def _photos(cfg: Faces) -> list[Sample]:
    rng = np.random.default_rng([cfg.seed, 1])
    photos = apportion(cfg.photos, SPLITS.values(), 1, 7)
    people = apportion(cfg.photo_subjects, SPLITS.values(), 1, 1)
    groups = np.split(rng.permutation(cfg.photo_subjects), people.cumsum()[:-1])
    real, out = REAL["affectnet"], []
    for split, count, group in zip(SPLITS, photos, groups, strict=True):
        power = cfg.class_balance if split == "train" else 0
        counts = apportion(count, real.values(), power, 1)
        labels = rng.permutation(np.repeat(list(real), counts))
        for label, row in zip(labels.tolist(), _spread(count, group, rng).tolist(), strict=True):
            shown = facs.NEIGHBOUR[label] if rng.random() < cfg.label_noise else label
            out.append(Sample("affectnet", f"{split}/{label}/{len(out):06d}.jpg", row,
                              f"p{row:05d}", label, split, shown))
    return out


def _clips(cfg: Faces, corpus: str, clips: int, subjects: int, first: int) -> list[Sample]:
    """Labelled clips in five folds; `first` numbers the first subject."""
    rng = np.random.default_rng([cfg.seed, 2 if corpus == "dfew" else 4])
    far, real = distance(cfg), REAL[corpus]
    counts = apportion(clips, real.values(), cfg.class_balance, 5)
    labels = np.repeat(list(real), counts).tolist()
    fold = np.resize(FOLDS, clips)           # class after class, so that folds are stratified
    groups = np.array_split(rng.permutation(subjects), len(FOLDS))
    who = np.empty(clips, int)
    for k, group in zip(FOLDS, groups, strict=True):
        who[fold == k] = _spread(int((fold == k).sum()), group, rng)
    folder, letter = ("Clip/original", "c") if corpus == "dfew" else ("clips", "m")
    out = []
    for n, i in enumerate(rng.permutation(clips), 1):
        label = labels[i]
        shown = facs.NEIGHBOUR[label] if rng.random() < far.label_noise else label
        before = facs.TURNS.get(shown) if rng.random() < far.order else None
        out.append(Sample(corpus, f"{folder}/{n:05d}.mp4", int(first + who[i]),
                          f"{letter}{who[i]:05d}", label, str(fold[i]), shown, before))
    return out


def ensure(cfg: Faces, data: str | Path = "data", workers: int = 2, progress: bool = False) -> Path:
    """Return the corpora's folder `<data>/<cfg.folder>`, built first when it is not there.

    An interrupted build goes on where it stopped. Files are equal whatever number of processes
    (`workers`, one thread each) draws them; OutputError where they cannot be written.
    """
    folder = Path(data) / cfg.folder
    if (folder / "corpus.json").is_file():
        return folder
    build, lock = folder.with_name(f"{folder.name}.part"), folder.with_name(f"{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):                                 # two callers do not build at once
            if not (folder / "corpus.json").is_file():
                todo = [shard for shard in shards(cfg, build) if not shard[0].is_file()]
                drawing = Parallel(max(1, int(workers)), return_as="generator_unordered")(
                    delayed(draw_shard)(cfg, build, *shard) for shard in todo)
                list(tqdm(drawing, "faces", len(todo), unit="part", disable=not progress))
                _finish(cfg, build)
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(build, folder)
        lock.unlink(missing_ok=True)
    except TerminatedWorkerError as error:
        raise OutputError("a process that draws faces was killed, most often for lack of memory: "
                          "close other programs, then call again; finished parts stay") from error
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot write the corpus {folder}: {cause}; free space or choose "
                          "another data folder, then call again: finished parts stay") from error
    return folder


def shards(cfg: Faces, build: Path) -> list[tuple[Path, str, int, list[Sample]]]:
    """Cut the work: (part of the truth, corpus, number, samples), always the same samples each."""
    out, every = [], samples(cfg)
    for name, size in SHARD.items():
        of = [s for s in every if s.corpus == name]
        out += [(build / f"parts/{name}-{k:05d}.csv", name, k, of[i:i + size])
                for k, i in enumerate(range(0, len(of), size))]
    return out


def draw_shard(cfg: Faces, build: Path, part: Path, corpus: str, number: int,
               members: list[Sample]) -> None:
    """Draw and write one shard's files and, last, its part of the truth."""
    rng = np.random.default_rng([cfg.seed, 11 + list(SHARD).index(corpus), number])
    acts = [_act(cfg, sample, rng) for sample in members]
    lines, pixels = [], _pixels(cfg, members, acts, int(rng.integers(2 ** 31)))
    for sample, act, frames in zip(members, acts, pixels, strict=True):
        path = build / corpus / sample.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if corpus == "affectnet":
            Image.fromarray(frames[0]).save(path, quality=95, subsampling=0)
        else:
            write_clip(path, frames, cfg.fps, distance(cfg).crf)
        about = ",".join([sample.subject, sample.label, sample.performed, sample.before or ""])
        actions = act["actions"].transpose(0, 2, 1).reshape(len(frames), -1)
        numbers = np.column_stack([act["intensity"], actions, act["pose"]]).tolist()
        lines += [ROW % (corpus, sample.path, corpus, t, about, act["phase"][t], act["apex"], *of)
                  for t, of in enumerate(numbers)]      # in one go: text took long
    write_text(part, "".join(lines))


def preview(cfg: Faces, emotion: str, seed: int = 0) -> np.ndarray:
    """Draw a labelled clip as the corpus holds it, uint8 `[T, 3, H, W]`; nothing is written."""
    sample = Sample("dfew", "", seed % len(_everyone(cfg)["tone"]), "", emotion, "", emotion)
    act = _act(cfg, sample, np.random.default_rng(seed))
    return _pixels(cfg, [sample], [act], seed)[0].transpose(0, 3, 1, 2)


def _act(cfg: Faces, sample: Sample, rng: np.random.Generator) -> dict:
    """Draw what a sample shows: `facs.perform`, with gaze `[T, 2]` and pose `[T, 3]` in degrees."""
    gaze_sd = .15 + .3 * cfg.nuisance
    if sample.corpus == "affectnet":
        strength = rng.uniform(*cfg.intensity)
        actions = facs.draw(sample.performed, strength, rng)[None]
        expressed = sample.performed != "neutral"
        gaze = rng.normal(0, gaze_sd, (1, 2))
        pose = cfg.pose * TURNING * rng.standard_normal(3).clip(-2, 2)
        return {"actions": actions, "intensity": np.array([strength * expressed]), "apex": 0,
                "phase": ["apex" if expressed else "neutral"], "pose": pose[None], "gaze": gaze}
    far = distance(cfg)
    talk = sample.corpus == "voxceleb2" or rng.random() < far.speech
    strength = rng.uniform(*far.intensity)
    act = facs.perform(sample.performed, strength, cfg.num_frames, cfg.fps, rng, talk,
                       sample.before, far.life)
    t = np.arange(cfg.num_frames) / cfg.fps
    pose = far.pose * TURNING * rng.standard_normal(3).clip(-2, 2)
    pose = pose + np.stack([facs.wander(t, m * far.motion, rng) for m in TURNING], 1)
    gaze = rng.normal(0, gaze_sd, 2)
    gaze = gaze + np.stack([facs.wander(t, .08 * far.life, rng) for _ in range(2)], 1)
    if sample.performed == "sadness":                        # eyes and head sink
        gaze[:, 1] -= .4 * far.life * act["intensity"]
        pose[:, 1] += .6 * far.life * cfg.pose * act["intensity"]
    return act | {"pose": pose, "gaze": gaze}


@lru_cache(1)                           # drawn once a process, not once a shard
def _everyone(cfg: Faces) -> dict[str, torch.Tensor]:
    people = cfg.photo_subjects, cfg.clip_subjects, cfg.compound_subjects, cfg.speaking_subjects
    return subjects(sum(people), cfg.seed)


def _pixels(cfg: Faces, members: list[Sample], acts: list[dict], seed: int) -> list[np.ndarray]:
    """The samples' pictures, uint8 `[T, H, W, 3]` each."""
    gen = torch.Generator().manual_seed(seed)
    counts = [len(a["actions"]) for a in acts]
    sample = torch.arange(len(members)).repeat_interleave(torch.tensor(counts))
    who = torch.tensor([m.row for m in members])[sample]
    subject = {k: v[who].to(device(cfg)) for k, v in _everyone(cfg).items()}
    scene = views(len(members), nuisance=cfg.nuisance, zoom=cfg.zoom, seed=gen)
    scene = {k: v[sample] for k, v in scene.items()}
    pose, gaze, actions = (np.concatenate([a[k] for a in acts])
                           for k in ("pose", "gaze", "actions"))
    given = dict(zip((*ANGLES, "gaze"), (*np.deg2rad(pose).T, gaze), strict=True))
    scene |= {k: torch.from_numpy(v.astype(np.float32)) for k, v in given.items()}
    drawn = render(subject, actions, scene, cfg.img_size, gen)
    return np.split(drawn.permute(0, 2, 3, 1).cpu().numpy(), np.cumsum(counts)[:-1])


def device(cfg: Faces) -> torch.device:
    """What draws: a GPU draws large corpora, with other roundings than a CPU."""
    frames = cfg.photos + (cfg.clips + cfg.compound + cfg.speaking) * cfg.num_frames
    return torch.device("cuda" if frames >= LARGE and torch.cuda.is_available() else "cpu")


def write_clip(path: Path, frames: np.ndarray, fps: int, crf: int) -> None:
    """Write uint8 `[T, H, W, 3]` as H.264, a key frame every four; crf is 0 (no loss) to 51."""
    with av.open(str(path), "w") as container:
        # One thread: the number of cores changes no byte. x264's macroblock tree now and then does.
        options = {"crf": str(crf), "preset": "veryfast", "g": "4", "threads": "1",
                   "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _finish(cfg: Faces, build: Path) -> None:
    """Write the lists, the truth and, last, corpus.json."""
    files = samples(cfg)
    for name in ("affectnet", "dfew", "mafw"):
        rows = [(s.path, s.subject) for s in files if s.corpus == name]
        write_text(build / name / "subjects.csv", _csv(rows, ["path", "subject"]))
    number = {name: i for i, name in enumerate(REAL["dfew"], 1)}
    for k in FOLDS:
        for split in ("train", "test"):
            of = [s for s in files if (s.split == str(k)) == (split == "test")]
            rows = [(int(Path(s.path).stem), number[s.label]) for s in of if s.corpus == "dfew"]
            listed = build / f"dfew/EmoLabel_DataSplit/{split}(single-labeled)/set_{k}.csv"
            write_text(listed, _csv(rows, ["video_name", "label"]))
            lines = [f"{Path(s.path).name} {s.label}\n" for s in of if s.corpus == "mafw"]
            write_text(build / f"mafw/single/no_caption/set_{k}/{split}.txt", "".join(lines))
    with open(build / "truth.csv.gz", "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as f:
        f.write((",".join(COLUMNS) + "\n").encode())         # no time stamp: equal bytes every time
        for part, *_ in shards(cfg, build):
            f.write(part.read_bytes())
    shutil.rmtree(build / "parts")
    made = {"faces": to_dict(cfg), "files": len(files), "drawn_on": device(cfg).type}
    write_text(build / "corpus.json", json.dumps(made, indent=1, sort_keys=True) + "\n")


def _csv(rows: list, header: list[str] | bool = False) -> str:
    return pd.DataFrame(rows).to_csv(index=False, header=header, lineterminator="\n")


def truth(folder: str | Path) -> pd.DataFrame:
    """Read what was drawn in a folder of `ensure`, one row a frame, with COLUMNS.

    Paths are below the folder; label is as listed, performed as shown, before the emotion that
    turned into it; apex is a frame number, actions are 0..1, angles degrees.
    """
    return pd.read_csv(Path(folder) / "truth.csv.gz")
