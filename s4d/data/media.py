"""Files -> pixels: a video, a folder of frames or an image becomes a uint8 clip `[T, 3, H, W]`."""
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing.pool import ThreadPool
from pathlib import Path
from stat import S_ISDIR

import av
import decord
import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

decord.logging.set_level(decord.logging.QUIET)      # errors arrive as exceptions

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".flv", ".m4v", ".mpg", ".mpeg", ".wmv"}
MIN_SIDE, MAX_RATIO = 16, 3      # px, long side / short side: beyond these nothing is a face crop
Box = tuple[int, int, int, int]  # top, left, height, width in px


class MediaError(ValueError):
    """A file, frame folder or frame cannot be read; `path` names it, `cause` says why."""

    def __init__(self, path: str | Path, cause: str):
        super().__init__(str(path), cause)      # both: the error is pickled between processes
        self.path, self.cause = Path(path), cause

    def __str__(self) -> str:
        return f"{self.path} cannot be read: {self.cause}"


class DatasetError(ValueError):
    """A dataset's folder or lists are missing, empty or contradictory."""


@contextmanager
def _reading(path: str | Path, what: str = "") -> Iterator[None]:
    """Turn what a decoder raises, or the file system, into one sentence."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:      # decoders raise many types, from SyntaxError to their own
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, PermissionError) or not what:
            reason = (getattr(error, "strerror", None) or text).lower()
            cause = f"{reason}: make it readable, or restore its disk or mount"
        elif what == "video":
            cause = ("it is no video, has no frames, or is damaged or truncated: copy or extract "
                     "it again")
        else:
            cause = f"it is not an image, or is damaged or truncated ({text})"
        raise MediaError(path, cause) from error


def kind(path: str | Path) -> str:
    """What a path holds: "frames" (a folder), "image" or "video", by its extension."""
    path = Path(path)
    suffix = path.suffix.lower()
    with _reading(path):        # no permission, or a mount that has vanished
        if path.is_dir():
            return "frames"
        if not path.is_file():
            raise MediaError(path, "there is no such file or folder")
        if path.stat().st_size == 0:
            raise MediaError(path, "the file is empty (0 bytes): copy or extract it again")
    if suffix not in IMAGES | VIDEOS:
        raise MediaError(path, f"unknown extension {suffix!r}: expected a folder of frames, or one "
                               f"of {', '.join(sorted(IMAGES | VIDEOS))}")
    return "image" if suffix in IMAGES else "video"


def frame_files(folder: str | Path) -> list[Path]:
    """Visible image files of a frame folder, frame10 after frame9; at least one."""
    with _reading(folder):
        files = [f for f in Path(folder).iterdir()
                 if f.suffix.lower() in IMAGES and not f.name.startswith(".")]
    if not files:
        raise MediaError(folder, "the folder holds no frames: extract the clip again")
    return sorted(files, key=lambda f: re.sub("[0-9]+", lambda m: m[0].zfill(20), f.name))


def count_frames(path: str | Path) -> int:
    """Number of frames; 1 for an image."""
    what = kind(path)
    if what == "frames":
        return len(frame_files(path))
    if what == "video":
        return _video(path)[0]
    header(path)      # must be readable
    return 1


def header(path: str | Path) -> tuple[int, int, float | None]:
    """Width and height in px (of a folder's first frame) and frames per second, or None."""
    what = kind(path)
    if what == "frames":
        return header(frame_files(path)[0])
    with _reading(path, what):
        if what == "image":
            with Image.open(path) as image:
                return *image.size, None
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(path, "it holds sound but no video")
            stream = container.streams.video[0]
            rate = float(stream.average_rate) if stream.average_rate else None
            return stream.width, stream.height, rate


def read_clip(path: str | Path, indices: Sequence[int] | None = None, size: int | None = None,
              aspect: bool = False) -> torch.Tensor:
    """Decode frames of a video file, a folder of frames, or an image: uint8 RGB `[T, 3, H, W]`.

    Args:
        indices: frame numbers from 0, in any order, repeats allowed; None reads all.
        size: side in px of the square after resizing, or with `aspect` short side, which in an
            image stays where it is shorter.
    Raises MediaError for anything that is not wholly there, or that is no face crop.
    """
    return read_frames(path, indices, size, aspect).permute(0, 3, 1, 2).contiguous()


def read_frames(path: str | Path, indices: Sequence[int] | None = None, size: int | None = None,
                aspect: bool = False, crop_box: Box | None = None) -> torch.Tensor:
    """As `read_clip`, channels last: uint8 `[T, H, W, 3]`, the fastest order to resize; of each
    picture only `crop_box`, cut out before resizing."""
    path, what = Path(path), kind(path)
    if crop_box is not None:
        whole, (top, left, height, width) = read_frames(path, indices), crop_box
        if top + height > whole.shape[1] or left + width > whole.shape[2]:
            raise MediaError(path, f"it is {whole.shape[2]} x {whole.shape[1]} px, too small for "
                                   f"the box of {width} x {height} px at row {top}, column {left}: "
                                   "change the source's crop_box")
        kept = whole[:, top:top + height, left:left + width].contiguous()
        return _resized(kept, _fitted((width, height), size, aspect, what))
    if what == "video":
        return _read_video(path, indices, size, aspect)
    files = [path] if what == "image" else frame_files(path)
    wanted, done = _checked(path, indices, len(files)), {}
    for i in dict.fromkeys(wanted):
        picture = torch.from_numpy(_read_image(files[i], size))[None]
        (height, width), name = picture.shape[1:3], files[i].name
        if not done:
            first, shape = (width, height, name), _fitted((width, height), size, aspect, what)
        elif shape is None and (width, height) != first[:2]:
            raise MediaError(path, f"frame {name} is {width} x {height} px, {first[2]} is "
                                   f"{first[0]} x {first[1]} px: give a size to resize to, or "
                                   "extract the clip again")
        done[i] = _resized(picture, shape)
    return torch.cat([done[i] for i in wanted])


def _fitted(shape: tuple[int, int], size: int | None, aspect: bool, what: str) -> tuple | None:
    """Width and height in px after resizing: a square, or the short side at `size`."""
    if size is None or (aspect and what == "image" and min(shape) <= size):
        return None
    if not aspect:
        return size, size
    return tuple(max(size, round(side * size / min(shape))) for side in shape)


def _resized(frames: torch.Tensor, shape: tuple[int, int] | None) -> torch.Tensor:
    """Frames `[T, H, W, 3]` at one width and height."""
    if shape is None or tuple(frames.shape[1:3]) == shape[::-1]:
        return frames
    frames = interpolate(frames.permute(0, 3, 1, 2), shape[::-1], mode="bicubic", antialias=True)
    return frames.permute(0, 2, 3, 1).contiguous()


def _video(path: str | Path) -> tuple[int, int, int]:
    """Number of frames, width and height of a video without damage."""
    found = Path(path).stat()
    return _probed(str(path), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _probed(path: str, size: int, modified: int) -> tuple[int, int, int]:
    """As `_video`, once per file and process; size and time tell a changed file.

    decord paints over damaged parts from their neighbours and says nothing; FFmpeg refuses them.
    `explode` alone lets some overwritten stretches of H.264 pass as noise.
    """
    shape, good = header(path)[:2], 0
    _check_shape(Path(path), shape)
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.options = {"err_detect": "explode+aggressive"}
            for _ in container.decode(stream):      # no frame is converted to RGB
                good += 1
    except av.FFmpegError as error:
        raise MediaError(path, f"it is damaged or truncated after frame {good}: copy or extract it "
                               "again") from error
    return len(_reader(path, None)), *shape


def _read_video(path: Path, indices: Sequence[int] | None, size: int | None,
                aspect: bool) -> torch.Tensor:
    """Frames `[T, H, W, 3]` of a video, taken one after another from the start: seeking can spin
    forever on files whose header counts more frames than decode."""
    count, *shape = _video(path)
    wanted = _checked(path, indices, count)
    reader, frames, at = _reader(path, _fitted(tuple(shape), size, aspect, "video")), {}, 0
    for t in sorted(set(wanted)):
        try:
            if t > at:
                reader.skip_frames(t - at)      # decoded, but not turned into RGB
            frame = reader.next().asnumpy()
        except Exception as error:      # DECORDError, DECORDLimitReachedError, StopIteration
            raise MediaError(path, f"decoding fails at frame {t} of {count}: the video is damaged "
                                   "or truncated") from error
        h, w, c = frame.shape      # at widths such as 24 and 72, padding of rows is in c too
        frames[t] = frame if c == 3 else frame.reshape(h, w * c)[:, :3 * w].reshape(h, w, 3)
        at = t + 1
    return torch.from_numpy(np.stack([frames[t] for t in wanted]))


def _reader(path: str | Path, shape: tuple[int, int] | None) -> decord.VideoReader:
    """An open video that resizes while it decodes and repeats no good frame for a damaged one."""
    width, height = shape or (-1, -1)
    with _reading(path, "video"):
        # fault_tol: the share of frames replaced by neighbours; below one frame means none at all
        return decord.VideoReader(str(path), ctx=decord.cpu(0), width=width, height=height,
                                  num_threads=1, fault_tol=1e-6)


def _read_image(path: Path, size: int | None) -> np.ndarray:
    """An image as RGB `[H, W, 3]`, upright, transparent parts black, no side smaller than `size`
    where the file's is not."""
    with _reading(path, "image"), Image.open(path) as file:
        _check_shape(path, file.size)
        if size:
            file.draft("RGB", (size, size))      # JPEG decodes at a fraction of its size
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith(("I", "F")):      # 16 and 32 bit grey: convert() would clip
            grey = np.asarray(image, dtype=np.float64)
            grey = grey / 257 if grey.max() > 255 else grey
            image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
        if image.has_transparency_data:
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image.convert("RGBA"))
        return np.array(image.convert("RGB"))


def _checked(path: Path, indices: Sequence[int] | None, count: int) -> list[int]:
    wanted = list(range(count)) if indices is None else [int(i) for i in indices]
    outside = [i for i in wanted if not 0 <= i < count]
    if outside or not wanted:
        raise MediaError(path, f"frames {outside or 'none'} were asked for, but it has {count} "
                               f"(0 to {count - 1})")
    return wanted


def _check_shape(path: Path, shape: tuple[int, int]) -> None:
    width, height = shape
    if min(shape) < MIN_SIDE or max(shape) > MAX_RATIO * min(shape):
        raise MediaError(path, f"it is {width} x {height} px, but a face crop has at least "
                               f"{MIN_SIDE} px a side and is at most {MAX_RATIO} times as long as "
                               "wide: crop the face first")


def folders(path: Path) -> list[Path]:
    """Visible folders inside a folder, sorted by name; none when it does not exist."""
    inside = os.scandir(path) if path.is_dir() else []
    return sorted(path / e.name for e in inside if e.name[0] != "." and e.is_dir())


def files(path: Path, suffixes: set[str]) -> list[str]:
    """Names of the visible files with one of the extensions, sorted; none without the folder."""
    inside = os.scandir(path) if path.is_dir() else []
    fit = [e for e in inside if os.path.splitext(e.name)[1].lower() in suffixes]
    return sorted(e.name for e in fit if e.name[0] != "." and e.is_file())


def stamps(paths: Iterable[str], root: str | Path) -> list[tuple[int, int]]:
    """(bytes, modification time in ns) of each file, -1 where missing; over all of a folder."""
    def stamp(path: str) -> tuple[int, int]:
        path = os.path.join(root, path)
        try:
            found = [os.stat(path)]
            if S_ISDIR(found[0].st_mode):
                found = [e.stat() for e in os.scandir(path) if e.name[0] != "."]
            return sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=-1)
        except OSError:
            return -1, -1

    with ThreadPool(8) as pool:      # hides a network's latency
        return pool.map(stamp, paths)


def in_threads(function: Callable, items: list, num_workers: int, what: str) -> Iterator:
    """Results in order; a few dozen are in memory at once. Decoders release Python's lock."""
    size = 16 * max(1, num_workers)
    with ThreadPool(max(1, num_workers)) as pool:
        for start in tqdm(range(0, len(items), size), desc=what, unit_scale=size, unit="file",
                          disable=None):
            yield from pool.map(function, items[start:start + size], chunksize=1)
