"""How fast one core makes training samples, from files and from the packed cache."""
from __future__ import annotations

import tempfile
import time
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from PIL import Image

from .dataset import Key, Samples
from .tables import table
from .transforms import train_transform


def throughput(seconds: float = 5.0, img_size: int = 160, num_frames: int = 16, length: int = 40,
               side: int = 256, clips: int = 8) -> pd.DataFrame:
    """Table of frames a processor second: media, pipeline, frames_per_second, ratio."""
    threads, rows = torch.get_num_threads(), []
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), clips, length, side)
        for media, name in (("mp4", "{}.mp4"), ("frames", "{}")):
            listed = table([(name.format(i), "fear", None, "train") for i in range(clips)], None, 1)
            for pipeline in ("files", "packed"):
                data = Samples(listed, folder, "video", img_size, num_frames, 2,
                               train_transform(img_size), cache=pipeline == "packed")
                data[Key("video", 0, 0)]
                begun, stop, n = time.process_time(), time.perf_counter() + seconds, 0
                while n == 0 or time.perf_counter() < stop:
                    n += 1
                    data[Key("video", n % clips, n)]
                rate = n * num_frames / max(time.process_time() - begun, 1e-9)
                first = rate if pipeline == "files" else rows[-1]["frames_per_second"]
                rows.append({"media": media, "pipeline": pipeline, "frames_per_second": rate,
                             "ratio": rate / first})
    torch.set_num_threads(threads)
    return pd.DataFrame(rows)


def _write(root: Path, clips: int, frames: int, side: int) -> None:
    """Moving smooth pictures with grain, as mp4 files and as folders of jpg."""
    y, x = np.mgrid[0:1:side * 1j, 0:1:side * 1j]
    for i in range(clips):
        rng = np.random.default_rng(i)
        grain, (a, b) = rng.normal(0, 6, (side, side, 3)), rng.uniform(2, 9, (2, 3))
        (root / f"{i}").mkdir()
        with av.open(str(root / f"{i}.mp4"), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"crf": "20"})
            stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
            for t in range(frames):
                waves = np.sin(x[..., None] * a + y[..., None] * b + t / 6)
                picture = (127 + 90 * waves + grain).clip(0, 255).astype(np.uint8)
                Image.fromarray(picture).save(root / f"{i}/{t:03d}.jpg", quality=92)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode())
