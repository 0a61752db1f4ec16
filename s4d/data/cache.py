"""Decoded samples in memory-mapped shards beside the data, so that training does not decode again and again."""
from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .datasets import DatasetError, stamps
from .datasets.tables import cache_home
from .media import MediaError, count_frames, fitted, frame_size, read_frames

FORMAT = 2                 # raised whenever decoding or the files' layout change, so that older caches are not read
SHARD = 1 << 28            # bytes of pixels that a shard is meant to hold
PROBED = 200               # samples whose headers tell the size of the whole


class Packed:
    """Samples as uint8 frames `[T, H, W, 3]` on disk, the short side at the cache's size.

    Args:
        folder: a cache folder written by `packed`.
        root: folder of the data, for error messages.
        paths: the samples, in order; all of the cache when left out.

    `bad` is {path: cause} of the samples that could not be decoded; they hold no frames.
    """

    def __init__(self, folder: str | Path, root: str | Path, paths: Sequence[str] | None = None):
        self.folder, self.root = Path(folder), Path(root)
        stored = _index(str(self.folder), (self.folder / "index.json").stat().st_mtime_ns)
        self.paths = list(stored["paths"] if paths is None else paths)
        rows = [stored["rows"][p] for p in self.paths]
        self.bad: dict[str, str] = {p: stored["bad"][p] for p in self.paths if p in stored["bad"]}
        self.shapes = stored["shapes"][rows]                                     # [N, 3] frames, height, width
        self.shards, self.offsets = stored["shard"][rows], stored["offset"][rows]
        self._maps = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_maps": {}}      # a pickled memory map would carry all pixels to the worker process

    def length(self, i: int) -> int:
        """Frames of sample i; 0 when it could not be decoded."""
        return int(self.shapes[i, 0])

    def clip(self, i: int, indices: Sequence[int] | None = None) -> torch.Tensor:
        """Frames of sample i, as `read_clip` gives them: uint8 `[T, 3, H, W]` (in memory with the channels last).

        Raises:
            MediaError: for a sample that could not be decoded, or an index outside it.
        """
        path, (length, height, width) = self.paths[i], self.shapes[i]
        if path in self.bad:
            raise MediaError(self.root / path, self.bad[path])
        wanted = np.arange(length) if indices is None else np.asarray(indices, dtype=np.int64)
        if ((wanted < 0) | (wanted >= length)).any():
            raise MediaError(self.root / path, f"frames {wanted.min()} to {wanted.max()} were asked for, but it has {length}")
        shard = int(self.shards[i])
        start, size = int(self.offsets[i]), int(length) * 3 * int(height) * int(width)
        try:
            if shard not in self._maps:
                self._maps[shard] = np.memmap(_shard(self.folder, shard), np.uint8, mode="r")
            frames = np.asarray(self._maps[shard][start:start + size]).reshape(length, height, width, 3)
        except (OSError, ValueError) as error:      # gone, or shorter than it was written
            raise MediaError(self.root / path, f"{_shard(self.folder, shard)} of the packed cache is missing or cut short: restore it, or "
                             "remove its folder, and the cache is made again") from error
        return torch.from_numpy(frames[wanted]).permute(0, 3, 1, 2)


@lru_cache(maxsize=16)
def _index(folder: str, modified: int) -> dict:
    """A cache's index: paths, rows {path: number}, bad, stamps, and per sample shape, shard and offset."""
    stored = json.loads((Path(folder) / "index.json").read_text(encoding="utf-8"))
    shapes = np.array(stored["shapes"], dtype=np.int64).reshape(-1, 3)
    shard = np.repeat(np.arange(len(stored["counts"])), stored["counts"])
    bytes_ = 3 * shapes.prod(1)
    starts = np.concatenate([[0], np.cumsum(bytes_)])[:-1]
    first = np.concatenate([[0], np.cumsum(stored["counts"])])[:-1].astype(int)
    offset = starts - (starts[first][shard] if len(starts) else 0)
    return {**stored, "rows": {p: i for i, p in enumerate(stored["paths"])}, "shapes": shapes, "shard": shard, "offset": offset}


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.bin"


Box = tuple[int, int, int, int] | None


def packed(table: pd.DataFrame, root: str | Path, size: int, cache_dir: str | Path | None = None, workers: int = 2,
           box: Box = None) -> Packed:
    """The decoded samples of a table, made on the first call and found by later ones, also as a part of a larger cache.

    A cache fits while the sizes and modification times of the files are those it was made from; labels and splits do not enter.
    It appears complete or not at all, shard by shard; one that was stopped goes on. Processes that make it at once get equal results.

    Args:
        table: rows of `s4d.data.index`; sample i is row i.
        root: folder the paths are relative to.
        size: short side in px.
        cache_dir: where caches lie; None is `<root>/.cache`, or the user's cache folder when root cannot be written.
        workers: decoding threads.
        box: part of the stored pictures that is kept, as for `read_frames`.
    Raises:
        DatasetError: when the cache cannot be written, or the disk has not enough room.
    """
    root, paths = Path(root), list(dict.fromkeys(table["path"]))
    stamp = dict(zip(paths, map(list, stamps(paths, root))))
    home = cache_home(root, cache_dir)
    form = f"{size}" + (f"-box{'.'.join(map(str, box))}" if box else "")
    found = _covering(home, form, stamp)
    if found is None:
        digest = hashlib.sha256(json.dumps([FORMAT, paths, list(stamp.values())]).encode()).hexdigest()[:16]
        found, draft = home / f"{digest}-{form}", home / f".part-{digest}-{form}"
        try:
            draft.mkdir(exist_ok=True)
            _write(draft, paths, stamp, root, size, workers, box)
            _publish(draft, found)
        except OSError as error:
            if not (found / "index.json").is_file():
                raise DatasetError(f"the cache of decoded samples in {home} cannot be written ({error}): free disk space, or train with "
                                   "cache=False; the next call goes on from there") from error
            shutil.rmtree(draft, ignore_errors=True)           # another process was first: its equal result stays
    return Packed(found, root, list(table["path"]))


def _covering(home: Path, form: str, stamp: dict[str, list[int]]) -> Path | None:
    """A finished cache that holds all these samples as they are now on disk."""
    for folder in sorted(home.glob(f"[0-9a-f]*-{form}")):
        try:
            stored = _index(str(folder), (folder / "index.json").stat().st_mtime_ns)
            rows, known = stored["rows"], stored["stamps"]
            if stored["format"] == FORMAT and all(p in rows and known[rows[p]] == s for p, s in stamp.items()):
                return folder
        except (OSError, ValueError, KeyError, TypeError):     # of another format, half removed, or damaged
            continue
    return None


def estimate(table: pd.DataFrame, root: str | Path, size: int, box: Box = None) -> tuple[int, int]:
    """Bytes that a cache of these samples will take, and of how many samples' headers that is told.

    Args:
        table, root, size, box: as for `packed`.
    """
    paths = list(dict.fromkeys(table["path"]))
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(PROBED, len(paths))).round().astype(int))]
    sizes = []
    for path in chosen:
        try:
            width, height = fitted(box[:1:-1] if box else frame_size(Path(root) / path), size, True)
            sizes.append(3 * width * height * count_frames(Path(root) / path))
        except MediaError:
            sizes.append(0)
    return round(len(paths) * float(np.mean(sizes))), len(chosen)


def _publish(draft: Path, folder: Path) -> None:
    """Renames the finished draft."""
    os.rename(draft, folder)


def _write(draft: Path, paths: list[str], stamp: dict, root: Path, size: int, workers: int, box: Box) -> None:
    """Writes the shards that are not there yet, each under a temporary name first, and then the index."""
    total, _ = estimate(pd.DataFrame({"path": paths}), root, size, box)
    done = sum(f.stat().st_size for f in draft.glob("shard-*.bin"))
    free = shutil.disk_usage(draft).free
    if total - done > free:
        raise OSError(f"it needs about {(total - done) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    each = max(1, round(SHARD * len(paths) / max(total, 1)))
    parts = [paths[i:i + each] for i in range(0, len(paths), each)]
    with tqdm(total=len(paths), desc="decoding", unit="file", disable=None) as bar:
        for number, part in enumerate(parts):
            if not _shard(draft, number).with_suffix(".json").is_file():
                _write_shard(draft, number, part, root, size, workers, box, bar)
            else:
                bar.update(len(part))
    notes = [json.loads(_shard(draft, k).with_suffix(".json").read_text(encoding="utf-8")) for k in range(len(parts))]
    _put(draft / "index.json", json.dumps({
        "format": FORMAT, "size": size, "paths": paths, "stamps": list(stamp.values()), "counts": [len(p) for p in parts],
        "shapes": [s for n in notes for s in n["shapes"]], "sha256": [n["sha256"] for n in notes],
        "bad": {p: c for n in notes for p, c in n["bad"].items()}}))


def _write_shard(draft: Path, number: int, paths: list[str], root: Path, size: int, workers: int, box: Box, bar) -> None:
    """One shard and, last, the note beside it (shapes, bad, sha256) that marks it as done."""
    shapes, bad, digest = [], {}, hashlib.sha256()
    temporary = draft / f".tmp-{secrets.token_hex(4)}"
    try:
        with open(temporary, "wb") as out:
            for path, clip in _decoded(paths, root, size, workers, box):
                if isinstance(clip, str):
                    bad[path] = clip
                else:
                    out.write(clip.numpy().data)
                    digest.update(clip.numpy().data)
                shapes.append([0, 0, 0] if isinstance(clip, str) else [*clip.shape[:3]])
                bar.update(1)
        os.replace(temporary, _shard(draft, number))
    finally:
        temporary.unlink(missing_ok=True)
    _put(_shard(draft, number).with_suffix(".json"), json.dumps({"shapes": shapes, "bad": bad, "sha256": digest.hexdigest()}))


def _put(path: Path, text: str) -> None:
    temporary = path.with_name(f".tmp-{secrets.token_hex(4)}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def verify(folder: str | Path) -> list[int]:
    """Numbers of the shards of a cache that are missing or whose bytes are not those that were written."""
    hashes = json.loads((Path(folder) / "index.json").read_text(encoding="utf-8"))["sha256"]
    wrong = []
    for number, expected in enumerate(hashes):
        try:
            with open(_shard(Path(folder), number), "rb") as f:
                found = hashlib.file_digest(f, "sha256").hexdigest()
        except OSError:
            found = ""
        if found != expected:
            wrong.append(number)
    return wrong


def repair(folder: str | Path, wrong: list[int]) -> None:
    """Turns a cache with damaged shards back into an unfinished one, so that the next call of `packed` writes only those."""
    folder = Path(folder)
    draft = folder.with_name(f".part-{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    os.rename(folder, draft)
    (draft / "index.json").unlink()
    for number in wrong:
        for path in (_shard(draft, number), _shard(draft, number).with_suffix(".json")):
            path.unlink(missing_ok=True)


def _decoded(paths: list[str], root: Path, size: int, workers: int, box: Box) -> Iterator[tuple[str, torch.Tensor | str]]:
    """(path, clip, or the cause why there is none) in order; at most a few dozen clips are in memory."""
    def decode(path: str) -> torch.Tensor | str:
        try:
            return read_frames(root / path, size=size, aspect=True, box=box)
        except MediaError as error:
            return error.cause
    with ThreadPoolExecutor(max(1, workers)) as pool:       # decoders release Python's lock
        step = 16 * max(1, workers)
        for start in range(0, len(paths), step):
            yield from zip(paths[start:start + step], pool.map(decode, paths[start:start + step]))
