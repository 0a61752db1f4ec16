"""The embedded corpora as files in the real datasets' layouts: AffectNet's photos, DFEW's and MAFW's clips, VoxCeleb2's
speaking clips.

Beside them lies `truth.csv.gz`, what no dataset has: each frame's actions, phase and pose. Training never reads it.
"""
from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..files import OutputError
from ..config import Faces, to_dict
from ..emotions import ORDERS
from ..processes import end_with_parent
from . import facs
from .identity import sample_identity
from .plan import CORPORA, FOLDS, SHARD, FacesError, Sample, check, distance, identities, samples
from .renderer import render
from .scene import sample_scene

__all__ = ["FacesError", "ensure", "truth"]
ANGLES = ("yaw", "pitch", "roll")
COLUMNS = ("path", "corpus", "frame", "subject", "label", "performed", "before", "phase", "apex", "intensity",
           *(f"AU{a}_{side}" for a in facs.ACTIONS for side in "LR"), *ANGLES)
BATCH = {"cpu": 16, "cuda": 256}   # frames drawn at a time: on a CPU their maps just fit a core's cache
LARGE = 200_000           # frames from which a GPU draws where there is one; smaller corpora have the same pixels with and without


def ensure(cfg: Faces, data: str | Path = "data", workers: int = 2, progress: bool = False) -> Path:
    """The corpora's folder, built first when it is not there.

    An interrupted build goes on where it stopped. Files are equal whatever `workers` is.

    Args:
        cfg: what to draw; it decides the folder's name.
        data: folder of all corpora.
        workers: processes, one thread each; 1 draws in this process.
        progress: show a bar.
    Returns:
        `<data>/<cfg.folder>` with affectnet/, dfew/, mafw/, voxceleb2/, truth.csv.gz and corpus.json (written last).
    Raises:
        FacesError: for settings that cannot be drawn.
        OutputError: for a folder that cannot be written.
    """
    check(cfg)
    folder = Path(data) / cfg.folder
    if (folder / "corpus.json").is_file():
        return folder
    build = folder.with_name(folder.name + ".part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(build):
            if not (folder / "corpus.json").is_file():
                build.mkdir(exist_ok=True)
                _draw_all(cfg, build, max(1, int(workers)), progress)
                _finish(cfg, build)
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(build, folder)
    except OSError as error:
        raise OutputError(f"cannot write the corpus {folder}: {(error.strerror or str(error)).lower()}; free space there or choose "
                          "another data folder, then call again: finished parts are kept") from error
    return folder


@contextmanager
def _alone(build: Path):
    """Holds a lock beside the folder, so that two callers do not build it at once. Without fcntl (Windows) there is none."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = build.with_name(build.name + ".lock")
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    path.unlink(missing_ok=True)


def shards(cfg: Faces) -> list[tuple[str, int, list[Sample]]]:
    """The work: (corpus, number, samples) with a fixed number of samples each."""
    out = []
    for name in CORPORA:
        of = [s for s in samples(cfg) if s.corpus == name]
        out += [(name, k, of[i:i + SHARD[name]]) for k, i in enumerate(range(0, len(of), SHARD[name]))]
    return out


def device(cfg: Faces) -> torch.device:
    """What draws the corpus. Pixels differ by rounding between kinds of device, so corpus.json names it."""
    frames = cfg.photos + (cfg.clips + cfg.compound + cfg.speaking) * cfg.num_frames
    return torch.device("cuda" if frames >= LARGE and torch.cuda.is_available() else "cpu")


def _draw_all(cfg: Faces, build: Path, workers: int, progress: bool) -> None:
    from tqdm.auto import tqdm
    todo = [s for s in shards(cfg) if not _part(build, s[0], s[1]).is_file()]
    for folder in sorted({(build / s.corpus / s.path).parent for _, _, members in todo for s in members}):
        folder.mkdir(parents=True, exist_ok=True)
    (build / "parts").mkdir(exist_ok=True)
    size = lambda s: len(s[2]) * (1 if s[0] == "affectnet" else cfg.num_frames)
    with tqdm(total=sum(map(size, todo)), unit="frame", desc="faces", disable=not progress) as bar:
        if workers == 1:
            for shard in todo:
                draw_shard(cfg, build, *shard)
                bar.update(size(shard))
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
            jobs = {pool.submit(draw_shard, cfg, build, *shard): shard for shard in todo}
            try:
                for job in as_completed(jobs):
                    job.result()
                    bar.update(size(jobs[job]))
            except BrokenProcessPool as error:               # it does not say which process died
                raise FacesError(f"one of {workers} processes that draw faces was killed (out of memory, perhaps): draw with fewer "
                                 "(workers=1), then call again; finished parts are kept") from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _part(build: Path, corpus: str, number: int) -> Path:
    return build / "parts" / f"{corpus}-{number:05d}.csv"


def draw_shard(cfg: Faces, build: Path, corpus: str, number: int, members: list[Sample]) -> None:
    """Draws and writes one shard's files; its part of the truth, written last, marks it as done."""
    rng = np.random.default_rng([cfg.seed, 11 + CORPORA.index(corpus), number])
    still = corpus == "affectnet"
    acts = [_photo(cfg, s, rng) if still else _clip(cfg, s, rng) for s in members]
    pixels = _pixels(cfg, members, acts, int(rng.integers(2 ** 31)))
    rows = []
    for sample, act, frames in zip(members, acts, pixels):
        path = build / corpus / sample.path
        if still:
            Image.fromarray(frames[0]).save(path, quality=95, subsampling=0)
        else:
            write_clip(path, frames, cfg.fps, distance(cfg).crf)
        for t in range(len(frames)):
            rows.append([f"{corpus}/{sample.path}", corpus, t, sample.subject, sample.label, sample.performed,
                         sample.before or "", act["phase"][t], act["apex"],
                         f"{act['intensity'][t]:.4f}", *(f"{v:.3f}" for v in act["actions"][t].T.reshape(-1)),
                         *(f"{v:.2f}" for v in act["pose"][t])])
    part = _part(build, corpus, number)
    with open(part.with_suffix(".tmp"), "w", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows(rows)
    os.replace(part.with_suffix(".tmp"), part)


def preview(cfg: Faces, emotion: str, seed: int = 0) -> np.ndarray:
    """A labelled clip as the corpus would hold it before it is coded; nothing is written.

    Args:
        cfg: settings.
        emotion: that is shown.
        seed: of the person and of the performance.
    Returns:
        uint8 `[T, 3, H, W]`.
    Raises:
        FacesError: for settings that cannot be drawn.
    """
    check(cfg)
    sample = Sample("dfew", "", seed % identities(cfg), "", emotion, "", emotion)
    frames = _pixels(cfg, [sample], [_clip(cfg, sample, np.random.default_rng(seed))], seed)[0]
    return frames.transpose(0, 3, 1, 2)


def _pose(sd: float, rng: np.random.Generator) -> np.ndarray:
    """Yaw, pitch and roll in degrees."""
    return sd * np.array([1, .7, .6]) * rng.standard_normal(3).clip(-2, 2)


def _photo(cfg: Faces, sample: Sample, rng: np.random.Generator) -> dict:
    strength = rng.uniform(*cfg.intensity)
    actions = facs.draw(sample.performed, strength, rng)[None]
    expressed = sample.performed != "neutral"
    gaze = rng.normal(0, .15 + .3 * cfg.nuisance, (1, 2))
    return {"actions": actions, "intensity": np.array([strength * expressed]), "phase": ["apex" if expressed else "neutral"], "apex": 0,
            "pose": _pose(cfg.pose, rng)[None], "gaze": gaze}


def _clip(cfg: Faces, sample: Sample, rng: np.random.Generator) -> dict:
    far = distance(cfg)
    talk = sample.corpus == "voxceleb2" or rng.random() < far.speech
    strength = rng.uniform(*far.intensity)
    act = facs.perform(sample.performed, strength, cfg.num_frames, cfg.fps, rng, talk, sample.before, far.life)
    t = np.arange(cfg.num_frames) / cfg.fps
    act["pose"] = _pose(far.pose, rng) + np.stack([facs.wander(t, m * far.motion, rng) for m in (1, .7, .6)], 1)
    gaze = rng.normal(0, .15 + .3 * cfg.nuisance, 2) + np.stack([facs.wander(t, .08 * far.life, rng) for _ in range(2)], 1)
    if sample.performed == "sadness":                        # eyes and head sink
        gaze[:, 1] -= .4 * far.life * act["intensity"]
        act["pose"][:, 1] += .6 * far.life * cfg.pose * act["intensity"]
    act["gaze"] = gaze
    return act


@lru_cache(1)
def _everyone(count: int, seed: int) -> dict[str, torch.Tensor]:
    """All identities of the corpora: drawn once a process, not once a shard."""
    return sample_identity(count, torch.Generator().manual_seed(seed))


def _pixels(cfg: Faces, members: list[Sample], acts: list[dict], seed: int) -> list[np.ndarray]:
    """The samples' pictures, uint8 `[T, H, W, 3]` each."""
    gen = torch.Generator().manual_seed(seed)
    everyone = _everyone(identities(cfg), cfg.seed)
    counts = [len(a["actions"]) for a in acts]
    sample = torch.arange(len(members)).repeat_interleave(torch.tensor(counts))
    who = torch.tensor([m.identity for m in members])[sample]
    person = {k: v[who] for k, v in everyone.items()}
    scene = {k: v[sample] for k, v in sample_scene(len(members), gen, cfg.nuisance, cfg.zoom).items()}
    pose = np.concatenate([a["pose"] for a in acts])
    for i, name in enumerate(ANGLES):
        scene[name] = torch.from_numpy(np.deg2rad(pose[:, i]).astype(np.float32))
    scene["gaze"] = torch.from_numpy(np.concatenate([a["gaze"] for a in acts]).astype(np.float32))
    actions = torch.from_numpy(np.concatenate([a["actions"] for a in acts]))
    place = device(cfg)
    batch, out = BATCH[place.type], []
    for i in range(0, len(actions), batch):
        there = lambda table: {k: v[i:i + batch].to(place) for k, v in table.items()}
        image = render(there(person), actions[i:i + batch].to(place), there(scene), cfg.img_size, gen=gen)
        out.append((image * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    return np.split(np.concatenate(out), np.cumsum(counts)[:-1])


def write_clip(path: Path, frames: np.ndarray, fps: int, crf: int = 18) -> None:
    """Writes an H.264 video with a key frame every four frames.

    Args:
        path: file to write.
        frames: uint8 `[T, H, W, 3]`, even sides.
        fps: frames per second.
        crf: x264's quality, from 0 (no loss) to 51.
    """
    with av.open(str(path), "w") as container:
        # x264's macroblock tree gives now and then other bytes for equal frames (about one clip in a thousand): off.
        options = {"crf": str(crf), "preset": "veryfast", "g": "4", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1                # the bytes must not depend on the number of cores
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _finish(cfg: Faces, build: Path) -> None:
    """Writes the lists, the truth and, last, corpus.json."""
    everything = samples(cfg)
    for name in ("affectnet", "dfew", "mafw"):
        _csv(build / name / "subjects.csv", ("path", "subject"), [(s.path, s.subject) for s in everything if s.corpus == name])
    number = {name: i for i, name in enumerate(ORDERS["dfew"], 1)}
    lists = build / "dfew/EmoLabel_DataSplit"
    for k in FOLDS:
        for split in ("train", "test"):
            of = lambda corpus: [s for s in everything if s.corpus == corpus and (s.split == str(k)) == (split == "test")]
            _csv(lists / f"{split}(single-labeled)" / f"set_{k}.csv", ("video_name", "label"),
                 [(int(Path(s.path).stem), number[s.label]) for s in of("dfew")])
            listed = build / "mafw/single/no_caption" / f"set_{k}" / f"{split}.txt"
            listed.parent.mkdir(parents=True, exist_ok=True)
            listed.write_text("".join(f"{Path(s.path).name} {s.label}\n" for s in of("mafw")), encoding="utf-8")
    with open(build / "truth.csv.gz", "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as f:      # equal bytes every time
        f.write((",".join(COLUMNS) + "\n").encode())
        for name, k, _ in shards(cfg):
            f.write(_part(build, name, k).read_bytes())
    shutil.rmtree(build / "parts")
    text = json.dumps({"faces": to_dict(cfg), "files": len(everything), "drawn_on": device(cfg).type}, indent=1, sort_keys=True)
    (build / "corpus.json").write_text(text + "\n", encoding="utf-8")


def _csv(path: Path, header: tuple, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def truth(folder: str | Path) -> pd.DataFrame:
    """What was drawn, one row a frame.

    Args:
        folder: as `ensure` returns it.
    Returns:
        path (below the folder), corpus, frame, subject, label (as listed), performed (as shown), before (the emotion that turned into it), phase, apex (frame number), intensity, AU<n>_L and AU<n>_R (0..1),
        yaw, pitch, roll (degrees).
    Raises:
        FacesError: where no finished corpus lies.
    """
    path = Path(folder) / "truth.csv.gz"
    if not path.is_file():
        raise FacesError(f"{folder} holds no truth.csv.gz: build the corpus with s4d.faces.corpus.ensure")
    return pd.read_csv(path)
