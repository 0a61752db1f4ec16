"""Decoded samples in one memory-mapped file beside the data, so that training on a laptop does not decode again and again."""
from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .datasets import DatasetError, stamps
from .datasets.tables import cache_home
from .media import MediaError, read_clip

FORMAT = 1            # raised whenever decoding or the files' layout change, so that older caches are not read


class Packed:
    """Samples as uint8 frames `[N, 3, size, size]` on disk, N over all samples.

    Args:
        folder: a cache folder written by `packed`.
        root: folder of the data, for error messages.

    `bad` is {path: cause} of the samples that could not be decoded; they hold no frames.
    """

    def __init__(self, folder: str | Path, root: str | Path):
        self.folder, self.root = Path(folder), Path(root)
        stored = json.loads((self.folder / "index.json").read_text())
        self.paths: list[str] = stored["paths"]
        self.bad: dict[str, str] = stored["bad"]
        self.offsets = np.concatenate([[0], np.cumsum(stored["lengths"], dtype=np.int64)])
        self._frames = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_frames": None}      # a pickled memory map would carry all pixels to the worker process

    @property
    def frames(self) -> np.ndarray:
        """All frames, mapped, read-only."""
        if self._frames is None:
            self._frames = np.load(self.folder / "frames.npy", mmap_mode="r" if self.offsets[-1] else None)
        return self._frames

    def length(self, i: int) -> int:
        """Frames of sample i; 0 when it could not be decoded."""
        return int(self.offsets[i + 1] - self.offsets[i])

    def clip(self, i: int, indices: Sequence[int] | None = None) -> torch.Tensor:
        """Frames of sample i, as `read_clip` gives them: uint8 `[T, 3, size, size]`.

        Raises:
            MediaError: for a sample that could not be decoded, or an index outside it.
        """
        path, length = self.paths[i], self.length(i)
        if path in self.bad:
            raise MediaError(self.root / path, self.bad[path])
        wanted = np.arange(length) if indices is None else np.asarray(indices, dtype=np.int64)
        if ((wanted < 0) | (wanted >= length)).any():
            raise MediaError(self.root / path, f"frames {wanted.min()} to {wanted.max()} were asked for, but it has {length}")
        return torch.from_numpy(self.frames[self.offsets[i] + wanted])


def packed(table: pd.DataFrame, root: str | Path, size: int, cache_dir: str | Path | None = None, workers: int = 2) -> Packed:
    """The decoded samples of a table, made on the first call and found by later ones.

    The folder's name follows from the paths, sizes and modification times of the files and from `size`; labels and splits
    do not enter. It appears complete or not at all: two processes that make it at once get equal results.

    Args:
        table: rows of `s4d.data.index`; sample i is row i.
        root: folder the paths are relative to.
        size: side in px.
        cache_dir: where caches lie; None is `<root>/.cache`, or the user's cache folder when root cannot be written.
        workers: decoding threads.
    Raises:
        DatasetError: when the cache cannot be written.
    """
    paths = list(table["path"])
    digest = hashlib.sha256(json.dumps([FORMAT, paths, stamps(paths, root)]).encode()).hexdigest()[:16]
    home = cache_home(Path(root), cache_dir)
    folder = home / f"{digest}-{size}"
    if not (folder / "index.json").is_file():
        draft = home / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"      # mkdtemp would shut other users of the data out
        try:
            draft.mkdir()
            _write(draft, paths, Path(root), size, workers)
            _publish(draft, folder)
        except OSError as error:
            raise DatasetError(f"the cache of decoded samples in {home} cannot be written ({error}): free disk space, or train with "
                               "cache=False") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return Packed(folder, root)


def _publish(draft: Path, folder: Path) -> None:
    """Renames the finished draft; when another process was first, its equal result stays."""
    try:
        os.rename(draft, folder)
    except OSError:
        if not (folder / "index.json").is_file():
            raise


def _write(draft: Path, paths: list[str], root: Path, size: int, workers: int) -> None:
    lengths, bad = [], {}
    with open(draft / "frames.npy", "wb") as out:
        _header(out, 0, size)
        for path, clip in tqdm(_decoded(paths, root, size, workers), total=len(paths), desc="decoding", unit="file", disable=None):
            if isinstance(clip, str):
                bad[path] = clip
            else:
                out.write(clip.numpy().data)
            lengths.append(0 if isinstance(clip, str) else len(clip))
        out.seek(0)
        _header(out, sum(lengths), size)
    (draft / "index.json").write_text(json.dumps({"paths": paths, "lengths": lengths, "bad": bad}))


def _header(out, count: int, size: int) -> None:
    """The .npy header; numpy pads it so that the first axis can grow in place."""
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (count, 3, size, size)})


def _decoded(paths: list[str], root: Path, size: int, workers: int) -> Iterator[tuple[str, torch.Tensor | str]]:
    """(path, clip, or the cause why there is none) in order; at most a few dozen clips are in memory."""
    def decode(path: str) -> torch.Tensor | str:
        try:
            return read_clip(root / path, size=size)
        except MediaError as error:
            return error.cause
    with ThreadPoolExecutor(max(1, workers)) as pool:       # decoders release Python's lock
        step = 16 * max(1, workers)
        for start in range(0, len(paths), step):
            yield from zip(paths[start:start + step], pool.map(decode, paths[start:start + step]))
