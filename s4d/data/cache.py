"""Decoded samples in one memory-mapped file beside the data, so that training decodes once."""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from ..files import OutputError, write_text
from .media import Box, MediaError, read_frames
from .tables import DatasetError, in_threads, stamps

FORMAT = 4       # raised whenever decoding or the layout change: older files are not read


class Packed:
    """Samples as uint8 frames `[T, H, W, 3]` in a file written by `packed`.

    `unreadable` is {path: cause} of the samples that could not be decoded; they hold no frames.
    """

    def __init__(self, file: Path, root: Path, paths: list[str]):
        stored = _index(str(file), file.with_suffix(".json").stat().st_mtime_ns)
        found = [stored["samples"][p] for p in paths]
        self.file, self.root, self.paths, self.bytes = file, root, paths, stored["bytes"]
        self.shapes = np.array([s["shape"] for s in found])      # frames, height, width
        self.offsets = [s["offset"] for s in found]
        self.unreadable = {p: s["cause"] for p, s in zip(paths, found, strict=True) if s["cause"]}
        self._map = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_map": None}      # else all pixels would travel to a worker

    def length(self, i: int) -> int:
        """Frames of sample i; 0 when it could not be decoded."""
        return int(self.shapes[i, 0])

    def clip(self, i: int, indices: Sequence[int] | None = None) -> torch.Tensor:
        """Frames of sample i as `read_clip` gives them, channels last in memory."""
        path, (length, height, width) = self.paths[i], self.shapes[i]
        wanted = np.arange(length) if indices is None else np.asarray(indices, dtype=np.int64)
        cause = self.unreadable.get(path)
        if not cause and ((wanted < 0) | (wanted >= length)).any():
            cause = f"frames {wanted.min()} to {wanted.max()} were asked for, but it has {length}"
        if not cause and self._map is None:
            if _whole(self.file, self.bytes):
                self._map = np.memmap(self.file, np.uint8, mode="r")
            else:
                cause = (f"the packed cache {self.file} is missing or cut short: call again, and "
                         "it is made anew")
        if cause:
            raise MediaError(self.root / path, cause)
        frames = self._map[self.offsets[i]:][:3 * length * height * width]
        frames = np.asarray(frames).reshape(length, height, width, 3)
        return torch.from_numpy(frames[wanted]).permute(0, 3, 1, 2)


def packed(table: pd.DataFrame, root: str | Path, size: int, num_workers: int = 2,
           crop_box: Box | None = None) -> Packed:
    """Decode the samples of a table once; later calls find them, also as a part of a larger cache.

    A cache fits while sizes and modification times of the files stay as they are. It lies in
    `<root>/.cache`, complete or not at all; of processes that ask for it at once, one makes it.

    Args:
        size: short side in px.
        num_workers: decoding threads.
    """
    root, unique = Path(root), list(dict.fromkeys(table["path"]))
    home = root / ".cache"
    stamp = dict(zip(unique, map(list, stamps(unique, root)), strict=True))
    form = f"{size}" + (f"-box{'.'.join(map(str, crop_box))}" if crop_box else "")
    found = _covering(home, form, stamp)
    if found is None:
        digest = hashlib.sha256(json.dumps([FORMAT, list(stamp.items())]).encode()).hexdigest()
        file = home / f"{digest[:16]}-{form}.bin"
        try:
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock")):      # another process may have been first
                found = _covering(home, form, stamp)
                if found is None:
                    found = _write(file, stamp, root, size, num_workers, crop_box)
        except (OSError, OutputError) as error:
            raise DatasetError(f"the cache of decoded samples in {home} cannot be written "
                               f"({error}): free disk space, or train with cache=False") from error
    return Packed(found, root, list(table["path"]))


def _whole(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


@lru_cache(maxsize=16)
def _index(file: str, modified: int) -> dict:
    """A cache's index: format, bytes, and samples by path; `modified` tells a new one."""
    return json.loads(Path(file).with_suffix(".json").read_text(encoding="utf-8"))


def _covering(home: Path, form: str, stamp: dict[str, list[int]]) -> Path | None:
    """A finished cache that holds all these samples as they are now on disk."""
    for index in sorted(home.glob(f"[0-9a-f]*-{form}.json")):
        file = index.with_suffix(".bin")
        try:
            stored = _index(str(file), index.stat().st_mtime_ns)
            if (stored["format"] == FORMAT and _whole(file, stored["bytes"])
                    and all(stored["samples"][p]["stamp"] == s for p, s in stamp.items())):
                return file
        except (OSError, ValueError, KeyError, TypeError):      # of others, damaged, or removed
            continue
    return None


def _write(file: Path, stamp: dict, root: Path, size: int, num_workers: int,
           crop_box: Box | None) -> Path:
    """Write the pixels under a temporary name and, when they are whole, the index beside them."""
    def decode(path: str) -> torch.Tensor | str:
        try:
            return read_frames(root / path, size=size, aspect=True, crop_box=crop_box)
        except MediaError as error:
            return error.cause

    samples, written, draft = {}, 0, file.with_name(f".part-{file.name}")
    try:
        with open(draft, "wb") as out:
            decoded = in_threads(decode, list(stamp), num_workers, "decoding")
            for (path, mark), clip in zip(stamp.items(), decoded, strict=True):
                cause = clip if isinstance(clip, str) else None
                samples[path] = dict(stamp=mark, offset=written, cause=cause,
                                     shape=[0, 0, 0] if cause else list(clip.shape[:3]))
                written += 0 if cause else out.write(clip.numpy().data)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    index = {"format": FORMAT, "bytes": written, "samples": samples}
    write_text(file.with_suffix(".json"), json.dumps(index))
    return file
