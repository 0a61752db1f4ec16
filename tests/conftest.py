"""What all tests share: one thread, no display, notebooks, datasets in miniature."""
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")      # before torch is loaded
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from s4d.config import Finetune, Pretrain, Source
from s4d.emotions import EMOTIONS as NAMES
from s4d.models import create
from s4d.training import Run, finetune

PARAMETERS = 'profile = "smoke"\nout = "figures"\ndata = "data"\nruns = "runs"'


@pytest.fixture
def write_notebook():
    """A function that writes a notebook: title, parameters cell, then the given code cells."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    def write(path: Path, *cells: str, more: str = "") -> None:
        tagged = new_code_cell(PARAMETERS + more, metadata={"tags": ["parameters"]})
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        title, code = new_markdown_cell(f"# {path.stem}"), map(new_code_cell, cells)
        nb = new_notebook(metadata={"kernelspec": kernel}, cells=[title, tagged, *code])
        put(path, nbformat.writes(nb))
    return write


def smooth(seed: int, width: int = 64, height: int = 64, t: float = 0.0) -> np.ndarray:
    """A random smooth picture `[H, W, 3]` uint8; `t` moves it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    channels = [np.sin(rng.uniform(2, 6) * x + rng.uniform(2, 6) * y + rng.uniform(0, 6) + t)
                for _ in range(3)]
    return np.uint8(127.5 + 120 * np.stack(channels, -1))


def write_image(path: Path, seed: int = 0, width: int = 64, height: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth(seed, width, height)).save(path)
    return path


def write_video(path: Path, seed: int = 0, frames: int = 8, width: int = 64, height: int = 64,
                gop: int = 12, rate: int = 8) -> Path:
    """A clip whose frame t is `smooth(seed, t=t / 4)`, in H.264 or as its extension suggests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crf": "18", "preset": "ultrafast", "g": str(gop), "threads": "1"}
    with av.open(str(path), "w") as out:
        coder = {".avi": "mpeg4", ".flv": "flv"}.get(path.suffix)
        stream = out.add_stream(coder or "libx264", rate=rate, options={} if coder else options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t in range(frames):
            picture = smooth(seed, width, height, t / 4)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return path


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def damage(path: Path, start: float, stop: float) -> Path:
    """Overwrite a part of a file, given as shares of its length, with noise."""
    content = bytearray(path.read_bytes())
    a, z = int(start * len(content)), int(stop * len(content))
    content[a:z] = np.random.default_rng(0).bytes(z - a)
    path.write_bytes(content)
    return path


def cut_off(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def write_affectnet(root: Path, train: int = 2, test: int = 1) -> Path:
    """AffectNet in class folders: `train` and `test` photos of each of seven classes."""
    for split, count, shift in (("train", train, 0), ("val", test, 50)):
        for k, name in enumerate(NAMES):
            for i in range(count):
                write_image(root / split / name / f"{i:03d}.jpg", 100 * k + i + shift)
    return root


def write_dfew(root: Path, train: int = 14, test: int = 7, frames: int = 8) -> None:
    """DFEW with fold 1 in the official lists (1 = happiness ... 7 = fear), clips as files."""
    for split, first, count in (("train", 1, train), ("test", train + 1, test)):
        for i in range(count):
            write_video(root / f"Clip/original/{first + i:05d}.mp4", first + i, frames)
        lines = [f"{first + i:05d},{i % 7 + 1}\n" for i in range(count)]
        put(root / f"EmoLabel_DataSplit/{split}(single-labeled)/set_1.csv",
            "".join(["video_name,label\n", *lines]))


def write_voxceleb2(root: Path, frames: int) -> None:
    """VoxCeleb2: two clips of each of two people."""
    for p, c in ((0, 0), (0, 1), (1, 0), (1, 1)):
        write_video(root / f"dev/mp4/id0000{p}/video/{c:05d}.mp4", 10 * p + c, frames)


@pytest.fixture(scope="session")
def mini(tmp_path_factory) -> Path:
    """A folder with the three datasets in miniature; tests that change files copy it."""
    root = tmp_path_factory.mktemp("mini")
    write_affectnet(root / "affectnet")
    write_dfew(root / "dfew", frames=6)
    write_voxceleb2(root / "voxceleb2", frames=6)
    return root


def tiny_pretrain(root: Path, **changes) -> Pretrain:
    """The smallest pre-training: nano model, 14 photos, 4 clips, one epoch of six steps."""
    given = dict(model="s4d_mae_nano_patch16_64", img_size=32, num_frames=4, sampling_rate=1,
                 image_batch_size=4, video_batch_size=1, repeat_aug=2, video_epoch_fraction=0.75,
                 epochs=1, num_workers=0, crop_scale=(0.6, 1.0))
    return Pretrain(Source("affectnet", str(root / "affectnet")),
                    Source("voxceleb2", str(root / "voxceleb2")), **{**given, **changes})


def tiny_finetune(root: Path, **changes) -> Finetune:
    """The smallest fine-tuning: nano model, 7 photos, a dozen clips, six steps, all randomness."""
    given = dict(model="s4d_nano_patch16_64", img_size=32, num_frames=4, sampling_rate=1,
                 image_batch_size=2, video_batch_size=2, image_epoch_fraction=1.0, epochs=1,
                 lr=1e-3, drop_path_rate=0.1, crop_scale=(0.8, 1.0), test_segments=1,
                 test_crops=1, num_workers=0)
    return Finetune(Source("affectnet", str(root / "affectnet")),
                    Source("dfew", str(root / "dfew"), 1), **{**given, **changes})


@pytest.fixture(scope="session")
def finished(mini, tmp_path_factory) -> Run:
    """A finished fine-tuning run of both tasks."""
    return finetune(tiny_finetune(mini), tmp_path_factory.mktemp("runs"))


# --- of the study: a tiny model with experts, random samples, planted tables

def tiny(num_experts: int = 4):
    """A model of 2 blocks whose experts were moved away from zero, so that routing matters."""
    torch.manual_seed(0)
    model = create("s4d_nano_patch16_64", img_size=32, num_frames=4, embed_dim=32, depth=2,
                   num_heads=2, stem_dim=8, num_experts=num_experts).eval()
    for layer in model.moae_layers().values():
        torch.nn.init.normal_(layer.w2, std=0.3)
        torch.nn.init.normal_(layer.router.weight, std=1.0)
    return model


def pictures(n: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)


def clips(n: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 4, 32, 32), generator=generator, dtype=torch.uint8)


def labelled(n: int, subjects: int = 6) -> pd.DataFrame:
    return pd.DataFrame(dict(path=[f"{i}.jpg" for i in range(n)],
                             label=[NAMES[i % 7] for i in range(n)],
                             subject=[f"s{i % subjects}" for i in range(n)]))


def curves(follow: bool) -> pd.DataFrame:
    """Frames of 12 clips around an apex; the photo head follows the intensity or does not."""
    rng, out = np.random.default_rng(0), []
    for c in range(12):
        apex, t = 4 + c % 5, np.arange(14)
        intensity = np.exp(-0.5 * ((t - apex) / 2) ** 2)
        probability = 0.2 + 0.6 * intensity if follow else rng.random(14)
        out.append(pd.DataFrame(dict(
            path=f"{c}.mp4", label=NAMES[1 + c % 2], subject=f"s{c % 6}", frame=t, apex=apex,
            probability=probability, intensity=intensity)))
    return pd.concat(out, ignore_index=True)


def answers(right: dict[str, float], seeds: int = 2, subjects: int = 20,
            seed: int = 0) -> pd.DataFrame:
    """Predictions with a given recall of every emotion: three samples of each a subject."""
    index = pd.MultiIndex.from_product([range(seeds), range(subjects), range(7), range(3)],
                                       names=["seed", "person", "k", "i"])
    rows = index.to_frame(index=False)
    rows["label"] = [NAMES[k] for k in rows.k]
    rows["path"] = rows.person.astype(str) + rows.label + rows.i.astype(str)
    hit = np.random.default_rng(seed).random(len(rows)) < rows.label.map(right)
    wrong = [NAMES[(k + 1) % 7] for k in rows.k]
    rows["predicted"] = rows.label.where(hit, wrong)
    return rows.assign(subject="s" + rows.person.astype(str))
