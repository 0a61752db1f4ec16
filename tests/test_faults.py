"""Media of every kind, and every way in which files and lists go wrong, planted one at a time."""
import errno
import pickle
import re
import shutil
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import cut_off, damage, put, smooth, write_dfew, write_image, write_video
from PIL import Image

from s4d.data import REGISTRY, DatasetError, LabelError, MediaError, audit, count_frames, read_clip
from s4d.data.audit import _media, examine
from s4d.data.media import header

CLIP, PHOTO = "Clip/original/00003.mp4", "images/1/a.jpg"
FRAMES = "2_ClipsforFaceCrop/Action/Happy/0001"
TEST1 = "EmoLabel_DataSplit/test(single-labeled)/set_1.csv"
TRAIN1 = "EmoLabel_DataSplit/train(single-labeled)/set_1.csv"


def clean(root: Path, name: str) -> None:
    """A dataset of a few samples in which nothing is wrong."""
    if name == "dfew":
        for i in range(1, 11):
            write_video(root / f"Clip/original/{i:05d}.mp4", i, frames=5)
        for k in range(5):
            for split in ("train", "test"):
                of = [i for i in range(1, 11) if (i % 5 == k) == (split == "test")]
                lines = "".join(f"{i},{i % 7 + 1}\n" for i in of)
                put(root / f"EmoLabel_DataSplit/{split}(single-labeled)/set_{k + 1}.csv",
                    f"video_name,label\n{lines}")
    elif name == "affectnet":
        for split, names in (("train", ("1/a.jpg", "1/b.jpg", "1/c.png")),
                             ("test", ("2/d.jpg", "2/e.bmp", "2/f.png"))):
            for i, photo in enumerate(names):
                write_image(root / "images" / photo, 10 * len(split) + i)
            put(root / f"{split}.txt", "".join(f"{photo} {i}\n" for i, photo in enumerate(names)))
    else:
        for split, where, label in (("train", "Action/Happy/0001", 3),
                                    ("test", "Action/Angry/0002", 0)):
            for t in range(1, 6):
                write_image(root / f"2_ClipsforFaceCrop/{where}/{t}.png", 10 * label + t, 32, 32)
            put(root / f"{split}.csv", f"path,id\n{where},{label}\n")


def append(path: str, text: str):
    return lambda root: (root / path).write_text((root / path).read_text() + text)


def fill(path: str, what: bytes):
    return lambda root: (root / path).write_bytes(what)


def replaced(path: str, old: str, new: str):
    return lambda root: (root / path).write_text((root / path).read_text().replace(old, new))


def copied(source: str, target: str):
    return lambda root: shutil.copy(root / source, root / target)


def removed(path: str):
    return lambda root: (shutil.rmtree if (root / path).is_dir() else Path.unlink)(root / path)


def clip(**options):
    return lambda root: write_video(root / CLIP, 3, **{"frames": 5, **options})


def sound(root: Path) -> None:
    with av.open(str(root / CLIP), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.rate = 16000
        out.mux([*stream.encode(frame), *stream.encode()])


def vast(root: Path) -> None:
    """A PNG of a hundred bytes whose header asks for ten gigabytes."""
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)),
                       (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + data))
        png += struct.pack(">I", len(data)) + kind + data + check
    (root / PHOTO).write_bytes(png)


# By dataset: fault, plant, what is found (a kind of the audit, or the error that ends it), words.
FAULTS = {
    "dfew": (
        ("clip missing", removed(CLIP), "missing", "not on disk"),
        ("clip of 0 bytes", fill(CLIP, b""), "empty", "it is empty"),
        ("clip truncated", lambda r: cut_off(r / CLIP, 0.6), "unreadable", "damaged"),
        ("text named .mp4", fill(CLIP, b"<html>404</html>" * 40), "unreadable", "no video"),
        ("sound without a picture", sound, "unreadable", "sound but no video"),
        ("clip of 2 frames", clip(frames=2), "short clip", r"2 frame\(s\)"),
        ("clip of another size", clip(width=96, height=96), "unlike most", "96 x 96 px"),
        ("clip of another rate", clip(rate=3), "unlike most", "3 frames a second"),
        ("clip too small for a face", clip(width=8, height=8), "unreadable", "8 x 8 px"),
        ("clip far longer than wide", clip(width=200, height=20), "unreadable", "200 x 20 px"),
        ("same clip in two splits", copied("Clip/original/00005.mp4", "Clip/original/00001.mp4"),
         "duplicate", "equal bytes"),
        ("clip in train twice", append(TRAIN1, "3,1\n"), "listed twice", "train as happiness"),
        ("clip in train and test", append(TEST1, "3,4\n"), "listed twice", "test as anger, train"),
        ("clip in two test folds", append(TEST1, "3,4\n"), "test folds", "in 2 test folds"),
        ("clip in no test fold", replaced(TEST1, "5,6\n", ""), "test folds", "in 0 test folds"),
        ("label outside the range", replaced(TRAIN1, "3,4", "3,9"), "list", "unknown label 9"),
        ("label unknown", replaced(TRAIN1, "3,4", "3,joy!"), "list", "unknown label 'joy!'"),
        ("label missing", replaced(TRAIN1, "3,4", "3,"), "list", "no label for '3'"),
        ("list missing", removed(TRAIN1), "list", "but its other list"),
        ("list that is empty", fill(TRAIN1, b"video_name,label\n"), "list", "holds no entries"),
        ("list without labels", fill(TRAIN1, b"video_name,who\n1,x\n"), "list",
         "no column for the label: expected one of label, .*, found video_name, who"),
        ("list that is no text", fill(TRAIN1, bytes(range(256)) * 9), "list", "no text"),
        ("path with ..", append(TRAIN1, "../../secret.mp4,1\n"), "list", "leaves the dataset's"),
        ("absolute path", append(TRAIN1, "/etc/passwd,1\n"), "list", "absolute path"),
        ("path with a drive", append(TRAIN1, "C:\\clips\\3.mp4,1\n"), "list", "absolute path"),
        ("line break in a path", append(TRAIN1, '"00003\n.mp4",1\n'), "list", "no label"),
        ("no folder of clips", removed("Clip"), DatasetError, "holds no clips"),
        ("person in two splits", fill("subjects.csv", b"path,subject\nClip/original/00001.mp4,p\n"
                                      b"Clip/original/00005.mp4,p"),
         "subject", "subject p is in test and train"),
        ("subjects.csv of another", fill("subjects.csv", b"path,subject\n7.mp4,p"), "subject",
         "not in the dataset"),
        ("subjects.csv without subjects", fill("subjects.csv", b"path,who\n7.mp4,p"),
         DatasetError, "cannot be read .*columns path,subject"),
    ),
    "affectnet": (
        ("photo truncated", lambda r: cut_off(r / PHOTO, 0.6), "unreadable", "truncated"),
        ("photo of 10 GB", vast, "unreadable", "damaged|px"),
        ("photo under two labels", copied("images/1/a.jpg", "images/1/b.jpg"), "duplicate",
         "equal bytes"),
    ),
    "ferv39k": (
        ("frames missing", removed(FRAMES), "missing", "not on disk"),
        ("folder without frames", lambda r: [f.unlink() for f in (r / FRAMES).iterdir()],
         "empty", "it is empty"),
        ("frame truncated", lambda r: cut_off(r / FRAMES / "3.png", 0.5), "unreadable",
         "frame 3.png.*truncated"),
        ("frames of two sizes", lambda r: write_image(r / FRAMES / "3.png", 1, 48, 48),
         "frames", "differ in size"),
        ("counts unlike the published", lambda r: None, "count", "1487 are published"),
        ("integers against folders", replaced("train.csv", ",3", ",6"), LabelError,
         "fit the folders' emotions in no known order"),
    ),
}
EVERY = [(dataset, *fault) for dataset, faults in FAULTS.items() for fault in faults]


@pytest.fixture(scope="module")
def templates(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    for name in FAULTS:
        clean(root / name, name)
        assert set(examine(name, root / name)[0].kind) <= {"count"}
    return root


@pytest.mark.parametrize("dataset, fault, plant, kind, words", EVERY, ids=[f[1] for f in EVERY])
def test_a_planted_fault_is_found_and_named(templates, tmp_path, dataset, fault, plant, kind,
                                            words):
    root = Path(shutil.copytree(templates / dataset, tmp_path / dataset))
    plant(root)
    if not isinstance(kind, str):
        with pytest.raises(kind, match=words) as caught:
            examine(dataset, root)
        assert "\n" not in str(caught.value)
        return
    problems = examine(dataset, root)[0]
    found = list(zip(problems["kind"], problems["problem"], strict=True))
    assert any(re.fullmatch(kind, k) and re.search(words, text) for k, text in found), found
    assert all("\n" not in text for _, text in found)
    if kind in ("missing", "empty", "unreadable"):        # and is an error to the reader
        path = {"dfew": CLIP, "ferv39k": FRAMES, "affectnet": PHOTO}[dataset]
        with pytest.raises(MediaError):
            read_clip(root / path, size=32)


# --- counts, duplicates and the report

def test_equal_bytes_are_a_fault_across_the_splits_of_one_fold():
    """What is trained on in one fold is tested on in another: that is no fault."""
    columns = ["kind", "problem", "frames", "size", "rate", "digest"]
    seen = pd.DataFrame([{"digest": "d"}] * 2, index=["a", "b"], columns=columns, dtype=object)

    def of(*rows):
        table = pd.DataFrame(rows, columns=["path", "split", "fold"]).assign(label="fear")
        return _media(seen, table, "image")
    assert of(("a", "train", 1), ("b", "train", 1), ("a", "test", 2), ("b", "test", 2)) == []
    assert [path for _, path, _ in of(("a", "train", 1), ("b", "test", 1))] == ["a"]


def test_counts_stand_beside_the_published_ones(tmp_path):
    write_dfew(tmp_path / "dfew", 7, 7, frames=5)
    problems, counts = examine("dfew", tmp_path / "dfew", fold=1)
    fear = counts[(counts.split == "test") & (counts.label == "fear")].iloc[0]
    assert (fear.found, fear.published) == (1, 181)
    assert set(problems.kind) == {"count"} and len(problems) == 14
    assert "1 samples of fear, where 181 are published" in set(problems.problem)
    assert audit("dfew", tmp_path / "dfew", fold=1).equals(problems)
    (tmp_path / "corpus.json").write_text("{}")           # procedural faces borrow the layout
    assert examine("dfew", tmp_path / "dfew", fold=1)[1].published.isna().all()


def test_every_fold_has_published_counts_of_both_splits():
    """What is not in a fold's test split is in its training split."""
    for name, clips in (("dfew", 11697), ("mafw", 9172)):
        dataset = REGISTRY[name]
        sizes = {key: sum(known.values()) if isinstance(known, dict) else known
                 for key, known in dataset.published.items()}
        assert clips == sum(sizes[k, "test"] for k in dataset.folds)
        assert all(sizes[k, "train"] + sizes[k, "test"] == clips for k in dataset.folds)


# --- pictures of every kind, damaged and whole

def pixels(picture: torch.Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("width", [24, 48, 72, 64, 96])      # decord pads rows of some
def test_a_video_has_the_frames_that_were_written(tmp_path, width):
    path = write_video(tmp_path / "v.mp4", 3, frames=4, width=width, height=64)
    clip = read_clip(path)
    assert clip.shape == (4, 3, 64, width) and clip.dtype == torch.uint8
    assert count_frames(path) == 4 and header(path) == (width, 64, 8)
    for t in range(4):
        assert np.abs(pixels(clip[t]) - smooth(3, width, 64, t / 4)).mean() < 6
    assert torch.equal(read_clip(path, [3, 0, 3]), clip[[3, 0, 3]])
    resized = read_clip(write_video(tmp_path / "w.mp4", 3, 4, 128, 64), [2], size=width)[0]
    wanted = Image.fromarray(smooth(3, 128, 64, 2 / 4)).resize((width, width))
    assert np.abs(pixels(resized) - np.array(wanted)).mean() < 6


def test_a_frame_folder_is_read_in_natural_order_with_mixed_extensions(tmp_path):
    names = ["f1.jpg", "f2.PNG", "f9.jpeg", "f10.bmp", "f11.jpg"]
    for i, name in enumerate(names):
        Image.new("RGB", (32, 32), (40 * i, 0, 0)).save(tmp_path / name)
    (tmp_path / ".f0.jpg").write_bytes(b"hidden")
    (tmp_path / "notes.txt").write_text("no frame")
    clip = read_clip(tmp_path)
    assert count_frames(tmp_path) == 5
    assert (clip[:, 0].float().mean((1, 2)) / 40).round().tolist() == [0, 1, 2, 3, 4]
    Image.new("RGB", (48, 32)).save(tmp_path / "f12.png")
    refused(tmp_path, r"frame f12.png is 48 x 32 px, f1.jpg is 32 x 32 px: give a size")
    assert read_clip(tmp_path, size=32).shape == (6, 3, 32, 32)


def test_every_image_mode_becomes_rgb(tmp_path):
    rgb = smooth(1, 40, 30)
    picture = Image.fromarray(rgb)

    def read(image: Image.Image, name: str = "p.png", size: int | None = None, **options):
        image.save(tmp_path / name, **options)
        return pixels(read_clip(tmp_path / name, size=size, aspect=True)[0])
    grey = np.array(picture.convert("L"))
    assert np.array_equal(read(picture), rgb)
    assert np.array_equal(read(picture.convert("L")), np.stack([grey] * 3, -1))
    sixteen, floats = grey.astype(np.uint16) * 257, grey.astype(np.float32)
    assert np.abs(read(Image.fromarray(sixteen)) - grey[..., None]).max() <= 1
    assert np.abs(read(Image.fromarray(floats), "p.tiff") - grey[..., None]).max() <= 1
    for alpha in (0, 128):
        found = read(Image.fromarray(np.dstack([rgb, np.full_like(grey, alpha)]), "RGBA"))
        assert np.abs(found - rgb * (alpha / 255)).max() < 3
    assert np.abs(read(picture.convert("P", palette=Image.Palette.ADAPTIVE)) - rgb).mean() < 10
    assert read(picture.convert("1")).shape == (30, 40, 3)
    found = read(picture.convert("CMYK"), "c.jpg", 16, quality=95)
    wanted = picture.resize((21, 16), Image.Resampling.BICUBIC)
    assert np.abs(found - np.array(wanted)).mean() < 6
    upright = np.array(picture.rotate(-90, expand=True))
    exif = Image.Exif()
    exif[0x0112] = 6                                      # to be turned by 90 degrees for display
    assert np.array_equal(read(picture, exif=exif), upright)
    for name in ("p.png", "p.jpg"):                       # also where it is decoded smaller
        found = read(picture.resize((160, 120)), name, 30, exif=exif)
        assert found.shape == (40, 30, 3) and np.abs(found - upright).mean() < 6


@pytest.mark.parametrize("place", ["is_dir", "iterdir"])
def test_a_folder_that_cannot_be_reached_is_a_sentence(tmp_path, monkeypatch, place):
    """No permission, or a network mount that has vanished."""
    write_image(tmp_path / "frames/1.jpg")

    def fail(self):
        raise OSError(errno.ESTALE, "Stale file handle")
    monkeypatch.setattr(Path, place, fail)
    refused(tmp_path / "frames", "stale file handle: make it readable, or restore its disk")


def refused(path: Path, said: str, **options) -> None:
    with pytest.raises(MediaError, match=said) as caught:
        read_clip(path, **options)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))       # it crosses process borders
    assert (copy.path, copy.cause) == (caught.value.path, caught.value.cause)


def test_what_is_missing_empty_or_no_picture_is_refused(tmp_path):
    (tmp_path / "frames").mkdir()
    for name, said in (("t.txt", "unknown extension '.txt'"), ("t.jpg", "not an image")):
        (tmp_path / name).write_text("text")              # test_faults plants the other kinds
        refused(tmp_path / name, said)
    refused(tmp_path / "no.jpg", "there is no such file")
    refused(tmp_path / "frames", "holds no frames")
    refused(write_image(tmp_path / "small.png", width=8, height=8), "at least 16 px")
    path = write_image(tmp_path / "p.png")
    refused(path, r"frames \[1\] were asked for, but it has 1", indices=[1])
    refused(path, "frames none were asked for", indices=[])
    refused(write_video(tmp_path / "v.mp4"), r"frames \[8\] were asked for, but it has 8",
            indices=[0, 8])


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_truncated_and_damaged_images_are_refused(tmp_path, extension, size):
    for harm in (lambda p: cut_off(p, 0.6), lambda p: damage(p, 0.5, 0.6),
                 lambda p: damage(p, 0.0, 0.1)):
        refused(harm(write_image(tmp_path / f"p.{extension}", 1, 160, 160)), "damaged", size=size)


@pytest.mark.parametrize("gop", [1, 4, 12])
def test_truncated_and_damaged_videos_are_refused(tmp_path, gop):
    for harm in (lambda p: cut_off(p, 0.6), lambda p: damage(p, 0.5, 0.52),
                 lambda p: damage(p, 0.8, 0.85), lambda p: damage(p, 0.0, 0.1)):
        path = harm(write_video(tmp_path / "v.mp4", 1, 16, 96, 96, gop=gop))
        refused(path, "damaged")
        refused(path, "damaged", indices=[0], size=32)
    path = write_video(tmp_path / "v.mp4", 1, 16, 96, 96, gop=gop)
    assert len(read_clip(path)) == 16      # the good file in the damaged one's place
