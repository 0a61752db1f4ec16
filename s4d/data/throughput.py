"""How fast a loading process makes samples, from decoding through augmentation, against a pipeline of one PIL picture at a time.

Each pipeline ends where its loader does: ours with uint8 pixels, which are normalised on the device, the other with floats.
"""
from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import RandomErasing, RandomResizedCrop
from torchvision.transforms import functional as F

from .dataset import Key, Samples
from .media import frame_files
from .tables import table
from .transforms import MEAN, STD, train_indices, train_transform


def pictures(seed: int, frames: int, side: int) -> np.ndarray:
    """A moving smooth picture with fine grain, uint8 `[T, side, side, 3]`: it compresses about as a face crop does."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:1:side * 1j, 0:1:side * 1j]
    waves = [(rng.uniform(2, 9), rng.uniform(2, 9), rng.uniform(0, 6)) for _ in range(3)]
    grain = rng.normal(0, 6, (side, side, 3))
    return np.stack([(127 + 90 * np.stack([np.sin(a * x + b * y + c + t / 6) for a, b, c in waves], -1) + grain).clip(0, 255)
                     for t in range(frames)]).astype(np.uint8)


def write(root: Path, clips: int, frames: int, side: int) -> dict[str, pd.DataFrame]:
    """The same clips as mp4 files and as folders of jpg frames; their index tables."""
    for i in range(clips):
        shown = pictures(i, frames, side)
        (root / f"frames/{i}").mkdir(parents=True)
        for t, picture in enumerate(shown):
            Image.fromarray(picture).save(root / f"frames/{i}/{t:03d}.jpg", quality=92)
        with av.open(str(root / f"{i}.mp4"), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"crf": "20"})
            stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
            for picture in shown:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode())
    return {"mp4": table([(f"{i}.mp4", "fear", None, "train") for i in range(clips)], None, None),
            "frames": table([(f"frames/{i}", "fear", None, "train") for i in range(clips)], None, None)}


def one_by_one(path: Path, frames: int, stride: int, size: int, seed: int) -> torch.Tensor:
    """A clip as many loaders make it: every sampled frame becomes a PIL picture of full size, is augmented by PIL, then made a tensor."""
    if path.is_dir():
        files = frame_files(path)
        indices = train_indices(len(files), frames, stride, torch.Generator().manual_seed(seed))
        shown = [Image.open(files[i]).convert("RGB") for i in indices]
    else:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "NONE"
            everything = list(container.decode(video=0))
        shown = [everything[i].to_image() for i in train_indices(len(everything), frames, stride, torch.Generator().manual_seed(seed))]
    torch.manual_seed(seed)
    box, flip = RandomResizedCrop.get_params(shown[0], (0.5, 1.0), (3 / 4, 4 / 3)), torch.rand(()) < 0.5
    augment, out = rand_augment_transform("rand-m7-n4-mstd0.5-inc1", dict(translate_const=int(0.45 * size))), []
    for picture in shown:
        picture = F.resized_crop(picture, *box, [size, size], F.InterpolationMode.BICUBIC)
        random.seed(seed)
        np.random.seed(seed % 2 ** 32)                     # the same draw for every frame
        picture = augment(F.hflip(picture) if flip else picture)
        out.append(F.normalize(F.to_tensor(picture), MEAN, STD))
    return RandomErasing(0.25)(torch.stack(out))


def throughput(seconds: float = 5.0, size: int = 160, frames: int = 16, stride: int = 2, length: int = 40, side: int = 256,
               clips: int = 8) -> pd.DataFrame:
    """Frames a second of one core, for mp4 files and folders of frames, from files and from the packed cache.

    Args:
        seconds: to measure each pipeline for.
        size, frames, stride: of a training sample.
        length, side: frames of a clip and their side in px.
        clips: written.
    Returns:
        table: media (mp4, frames), pipeline (one by one, files, packed), frames_per_second, ratio to one by one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            root, work = Path(folder), {}
            for media, rows in write(root, clips, length, side).items():
                transform = train_transform(size)
                work[media, "one by one"] = lambda i, rows=rows: one_by_one(root / rows["path"][i % clips], frames, stride, size, i)
                for name in ("files", "packed"):
                    data = Samples(rows, root, "video", size, frames, stride, transform=transform, cache=name == "packed")
                    work[media, name] = lambda i, data=data: data[Key("video", i % clips, i)]["clip"]
            taken = _turns(work, seconds)
    finally:
        torch.set_num_threads(threads)
    out = [{"media": m, "pipeline": p, "frames_per_second": frames / s, "ratio": taken[m, "one by one"] / s} for (m, p), s in taken.items()]
    return pd.DataFrame(out)


def _turns(work: dict[tuple, Callable[[int], object]], seconds: float) -> dict[tuple, float]:
    """Mean processor seconds of a call over all its threads, calls taking turns; the first of each is not counted.

    Processor time is what a core has to give; time by the clock would also count what other programs take from a busy machine.
    """
    spent = dict.fromkeys(work, 0.0)
    for function in work.values():
        function(0)
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < seconds * len(work) or rounds < 2:
        rounds += 1
        for name, function in work.items():
            begun = time.process_time()
            function(rounds)
            spent[name] += time.process_time() - begun
    return {name: total / rounds for name, total in spent.items()}
