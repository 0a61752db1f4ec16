"""Decoded samples in one memory-mapped file beside the data, so that training decodes once."""
import hashlib
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from ..files import OutputError, write_all, writing
from .media import Box, MediaError, in_threads, read_frames, stamps

FORMAT = 5       # raised whenever decoding or the layout change: older files are not read


class Packed:
    """Samples as uint8 frames `[T, H, W, 3]` in a file; `unreadable` is {path: cause} of others."""

    def __init__(self, file: Path, root: Path, paths: list[str]):
        stored = _index(str(file), file.with_suffix(".json").stat().st_mtime_ns)
        found = [stored["samples"][p] for p in paths]
        self.file, self.root, self.paths, self.bytes = file, root, paths, stored["bytes"]
        self.shapes = [s["shape"] for s in found]      # frames (0: unreadable), height, width
        self.offsets = [s["offset"] for s in found]
        self.unreadable = {p: s["cause"] for p, s in zip(paths, found, strict=True) if s["cause"]}
        self._map = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_map": None}      # else all pixels would travel to a worker

    def clip(self, i: int, indices: Sequence[int] | None = None) -> torch.Tensor:
        """Frames of sample i as `read_clip` gives them, channels last in memory."""
        path, shape = self.paths[i], (*self.shapes[i], 3)
        if path in self.unreadable:
            raise MediaError(self.root / path, self.unreadable[path])
        if self._map is None:
            if not self.file.is_file() or self.file.stat().st_size != self.bytes:
                raise MediaError(self.root / path, f"the packed cache {self.file} is missing or "
                                 "cut short: call again, and it is made anew")
            self._map = np.asarray(np.memmap(self.file, np.uint8, mode="r"))
        frames = self._map[self.offsets[i]:][:math.prod(shape)].reshape(shape)
        frames = frames.copy() if indices is None else frames.take(indices, 0)
        return torch.from_numpy(frames).permute(0, 3, 1, 2)


def packed(table: pd.DataFrame, root: str | Path, size: int, num_workers: int = 2,
           crop_box: Box | None = None) -> Packed:
    """Decode samples once, `size` px on the short side (photos: at most), with threads.

    Later calls find them, also as a part of a larger cache, while sizes and modification times of
    the files stay as they are. The cache lies in `<root>/.cache`, complete or not at all; of
    processes that ask for it at once, one makes it.
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
            with writing(file):
                home.mkdir(parents=True, exist_ok=True)
                with FileLock(file.with_suffix(".lock")):      # another process may have been first
                    for draft in home.glob(f".tmp-*-{file.name}"):     # of a killed process
                        draft.unlink(missing_ok=True)
                    found = (_covering(home, form, stamp)
                             or _write(file, stamp, root, size, num_workers, crop_box))
        except OutputError as error:
            raise OutputError(f"{error}, or set cache=False") from error
    return Packed(found, root, list(table["path"]))


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
            if (stored["format"] == FORMAT and file.stat().st_size == stored["bytes"]
                    and all(stored["samples"][p]["stamp"] == s for p, s in stamp.items())):
                return file
        except (OSError, ValueError, KeyError, TypeError):      # of others, damaged, or removed
            continue
    return None


def _write(file: Path, stamp: dict, root: Path, size: int, num_workers: int,
           crop_box: Box | None) -> Path:
    """Write the pixels and their index, both or none."""
    index = {"format": FORMAT, "samples": {}}

    def decode(path: str) -> torch.Tensor | str:
        try:
            return read_frames(root / path, size=size, aspect=True, crop_box=crop_box)
        except MediaError as error:
            return error.cause

    def save_pixels(draft: Path) -> None:
        decoded = in_threads(decode, list(stamp), num_workers, "decoding")
        with open(draft, "wb") as out:
            for (path, mark), clip in zip(stamp.items(), decoded, strict=True):
                cause = clip if isinstance(clip, str) else None
                index["samples"][path] = dict(stamp=mark, offset=out.tell(), cause=cause,
                                              shape=[0, 0, 0] if cause else list(clip.shape[:3]))
                if not cause:
                    out.write(clip.numpy().data)
            index["bytes"] = out.tell()

    write_all({file: save_pixels, file.with_suffix(".json"):
               lambda draft: draft.write_text(json.dumps(index), encoding="utf-8")})
    return file
