"""Faults of files and lists, planted one at a time in clean datasets: each is found and named."""
from __future__ import annotations

import re
import shutil
import struct
import threading
import zlib
from pathlib import Path

import pytest
from conftest import cut_off, damage, smooth, write_image, write_video
from PIL import Image

from s4d.data import DatasetError, LabelError, MediaError, audit, read_clip
from s4d.data.audit import KINDS

LIMIT = 30      # seconds for one audit of ten samples
CLIP, FRAMES, PHOTO = "Clip/original/00003.mp4", "frames_crop_align_224/00003", "images/1/c.png"
TEST1 = "EmoLabel_DataSplit/test(single-labeled)/set_1.csv"
TRAIN1 = "EmoLabel_DataSplit/train(single-labeled)/set_1.csv"


def clean_dfew(root: Path) -> None:
    """Ten clips in five folds, official lists."""
    for i in range(1, 11):
        write_video(root / f"Clip/original/{i:05d}.mp4", i, frames=5)
    for k in range(5):
        for split in ("train", "test"):
            path = root / f"EmoLabel_DataSplit/{split}(single-labeled)/set_{k + 1}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            of = [i for i in range(1, 11) if (i % 5 == k) == (split == "test")]
            path.write_text("video_name,label\n" + "".join(f"{i},{i % 7 + 1}\n" for i in of))


def clean_mafw(root: Path) -> None:
    """Ten frame folders in five folds, lists of names."""
    for i in range(1, 11):
        for t in range(1, 6):
            write_image(root / f"frames_crop_align_224/{i:05d}/{t}.png", 10 * i + t, 32, 32)
    for k in range(5):
        (root / f"set_{k + 1}").mkdir()
        for split in ("train", "test"):
            of = [i for i in range(1, 11) if (i % 5 == k) == (split == "test")]
            lines = "".join(f"{i:05d},anger\n" for i in of)
            (root / f"set_{k + 1}/{split}.csv").write_text(f"video_name,labels\n{lines}")


def clean_affectnet(root: Path) -> None:
    """Six photos of three kinds of file, lists of lines."""
    for split, names in (("train", ("1/a.jpg", "1/b.jpg", "1/c.png")),
                         ("test", ("2/d.jpg", "2/e.bmp", "2/f.png"))):
        for i, name in enumerate(names):
            write_image(root / "images" / name, 10 * len(split) + i)
        (root / f"{split}.txt").write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)))


def clean_ferv39k(root: Path) -> None:
    """Two clips in folders named after their emotions, S4D's lists."""
    for split, where, label in (("train", "Action/Happy/0001", 3),
                                ("test", "Action/Angry/0002", 0)):
        write_video(root / f"2_ClipsforFaceCrop/{where}.mp4", label, frames=5)
        (root / f"{split}.csv").write_text(f"path,id\n{where},{label}\n")


CLEAN = {"dfew": clean_dfew, "mafw": clean_mafw, "affectnet": clean_affectnet,
         "ferv39k": clean_ferv39k}


def append(path: str, text: str):
    def plant(root: Path) -> None:
        with open(root / path, "a", encoding="utf-8") as f:
            f.write(text)
    return plant


def put(path: str, content: bytes):
    return lambda root: (root / path).write_bytes(content)


def replaced(path: str, old: str, new: str):
    def plant(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new))
    return plant


def copied(source: str, target: str):
    return lambda root: shutil.copy(root / source, root / target)


def clip(**options):
    return lambda root: write_video(root / CLIP, 3, **{"frames": 5, **options})


def sound(root: Path) -> None:
    import av
    import numpy as np
    with av.open(str(root / CLIP), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.rate = 16000
        out.mux([*stream.encode(frame), *stream.encode()])


def slow(root: Path) -> None:
    import av
    with av.open(str(root / CLIP), "w") as out:
        stream = out.add_stream("libx264", rate=3)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for t in range(5):
            picture = av.VideoFrame.from_ndarray(smooth(1, t=t / 4), format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


def vast(root: Path) -> None:
    """A PNG of a hundred bytes whose header asks for ten gigabytes."""
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)),
                       (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + check
    (root / PHOTO).write_bytes(content)


def link(root: Path) -> None:
    (root / CLIP).unlink()
    (root / CLIP).symlink_to(root / "gone.mp4")


def emptied(folder: str):
    def plant(root: Path) -> None:
        for file in (root / folder).iterdir():
            file.unlink()
    return plant


def folder_for_a_file(root: Path) -> None:
    (root / CLIP).unlink()
    (root / CLIP).mkdir()


# By dataset: fault, plant, what is found (a kind of the audit, or the error that ends it), words.
FAULTS = {
    "dfew": (
        ("clip missing", lambda r: (r / CLIP).unlink(), "missing", "not on disk"),
        ("clip behind a dead link", link, "missing", "not on disk"),
        ("clip of 0 bytes", put(CLIP, b""), "empty", "it is empty"),
        ("clip truncated", lambda r: cut_off(r / CLIP, 0.6), "unreadable", "damaged"),
        ("clip damaged in its middle", lambda r: damage(r / CLIP, 0.5, 0.55),
         "unreadable", "damaged"),
        ("clip damaged in its header", lambda r: damage(r / CLIP, 0.0, 0.1),
         "unreadable", "damaged"),
        ("clip of zeros", put(CLIP, bytes(4000)), "unreadable", "no video"),
        ("text named .mp4", put(CLIP, b"<html>404 not found</html>" * 40),
         "unreadable", "no video"),
        ("sound without a picture", sound, "unreadable", "sound but no video"),
        ("folder in a clip's place", folder_for_a_file, "empty|unreadable", "no frames|empty"),
        ("clip of 2 frames", clip(frames=2), "short", r"2 frame\(s\)"),
        ("photo named .mp4", lambda r: Image.fromarray(smooth(1)).save(r / CLIP, format="jpeg"),
         "short|unreadable", "1 frame|no video"),
        ("clip of another size", clip(width=96, height=96), "size", "96 x 96 px"),
        ("clip of another frame rate", slow, "rate", "3 frames a second"),
        ("clip too small for a face", clip(width=8, height=8), "unreadable", "8 x 8 px"),
        ("clip far longer than wide", clip(width=200, height=20), "unreadable", "200 x 20 px"),
        ("same clip in two splits", copied("Clip/original/00005.mp4", "Clip/original/00001.mp4"),
         "duplicate", "equal bytes"),
        ("clip in no list", copied(CLIP, "Clip/original/00099.mp4"), "unlisted", "in no list"),
        ("clip listed twice", append(TRAIN1, "3,4\n"), "twice", "listed 2 times"),
        ("clip listed under two labels", append(TRAIN1, "3,1\n"),
         "twice", "train as anger, train as happiness"),
        ("clip in train and test", append(TEST1, "3,4\n"),
         "twice", "test as anger, train as anger"),
        ("clip in two test folds", append(TEST1, "3,4\n"), "folds", "test folds 1, 4"),
        ("clip in no test fold", replaced(TEST1, "5,6\n", ""), "folds", "no test fold"),
        ("label outside the range", replaced(TRAIN1, "3,4", "3,9"), "list", "unknown label 9"),
        ("label that is no number", replaced(TRAIN1, "3,4", "3,joy!"),
         "list", "unknown label 'joy!'"),
        ("label missing", replaced(TRAIN1, "3,4", "3,"), "list", "no label for '3'"),
        ("list truncated within a line", lambda r: cut_off(r / TRAIN1, 0.94), "list", "no label"),
        ("list missing", lambda r: (r / TRAIN1).unlink(), "list", "but no"),
        ("both lists of a fold missing", lambda r: ((r / TRAIN1).unlink(), (r / TEST1).unlink()),
         "list", "no lists of fold 1"),
        ("list of 0 bytes", put(TRAIN1, b""), "list", "holds no entries"),
        ("list with a header only", put(TRAIN1, b"video_name,label\n"), "list", "holds no entries"),
        ("list without its label column", put(TRAIN1, b"video_name,who\n1,x\n"),
         "list", "no column for the label"),
        ("list that is no text", put(TRAIN1, bytes(range(256)) * 9), "list", "no text"),
        ("path with ..", append(TRAIN1, "../../secret.mp4,1\n"),
         "list", "leaves the dataset's folder"),
        ("absolute path", append(TRAIN1, "/etc/passwd,1\n"), "list", "absolute path"),
        ("Windows path with a drive", append(TRAIN1, "C:\\clips\\3.mp4,1\n"),
         "list", "absolute path"),
        ("line break in a path", append(TRAIN1, '"00003\n.mp4",1\n'), "list", "line break"),
        ("no folder of clips", lambda r: shutil.rmtree(r / "Clip"), DatasetError, "holds no clips"),
        ("person in two splits",
         put("subjects.csv", b"path,subject\nClip/original/00001.mp4,p\nClip/original/00005.mp4,p"),
         "subject", "subject p is in test and train"),
        ("subjects.csv names no clip",
         put("subjects.csv", b"path,subject\nClip/original/77777.mp4,p\n"),
         "subjects", "not in the dataset"),
    ),
    "mafw": (
        ("frame folder missing", lambda r: shutil.rmtree(r / FRAMES), "missing", "not on disk"),
        ("frame folder without frames", emptied(FRAMES), "empty", "it is empty"),
        ("frame of 0 bytes", put(f"{FRAMES}/3.png", b""), "unreadable", "frame 3.png: its content"),
        ("frame truncated", lambda r: cut_off(r / FRAMES / "3.png", 0.5),
         "unreadable", "frame 3.png.*truncated"),
        ("frame number left out", lambda r: (r / FRAMES / "3.png").unlink(),
         "gap", "between frames 2 and 4"),
        ("frames of two sizes", lambda r: write_image(r / FRAMES / "3.png", 1, 48, 48),
         "sizes", "differ in size"),
        ("counts unlike the published", None, "counts", "where 1839 are published"),
        ("integers in an order that nothing tells",
         lambda r: [f.write_text("video_name,labels\n1,3\n2,4\n") for f in r.glob("set_*/*.csv")],
         DatasetError, "order its class counts do not tell"),
    ),
    "affectnet": (
        ("photo truncated", lambda r: cut_off(r / "images/1/a.jpg", 0.6),
         "unreadable", "truncated"),
        ("photo damaged in its middle", lambda r: damage(r / PHOTO, 0.5, 0.6),
         "unreadable", "damaged"),
        ("photo whose header asks for 10 GB", vast, "unreadable", "damaged|px"),
        ("text named .png", put(PHOTO, b"no picture"), "unreadable", "not an image"),
        ("same photo in two splits", copied("images/1/c.png", "images/2/f.png"),
         "duplicate", "equal bytes"),
        ("same photo under two labels", copied("images/1/a.jpg", "images/1/b.jpg"),
         "duplicate", "equal bytes"),
        ("label of a name list unknown", append("train.txt", "1/a.jpg bored\n"),
         LabelError, "unknown label 'bored'"),
    ),
    "ferv39k": (
        ("label against the folder's name",
         append("train.csv", "Action/Sad/0003,sadness\nAction/Happy/0004,sadness\n"),
         "label", "listed as sadness, but its folder is named after happiness"),
        ("integers against the folders' names", replaced("train.csv", ",3", ",6"),
         LabelError, "fit the folders' emotions in no known order"),
    ),
}


def audited(name: str, root: Path, published: bool = False):
    """Problems of a dataset, or the error that ends the audit, within a time limit."""
    out = []

    def work() -> None:
        try:
            out.append(audit(name, root, published=published))
        except (DatasetError, LabelError) as error:
            out.append(error)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LIMIT)
    if not out:
        raise TimeoutError(f"audit of {root} crashed or took more than {LIMIT} s")
    return out[0]


@pytest.fixture(scope="module")
def templates(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    for name, make in CLEAN.items():
        make(root / name)
    return root


@pytest.mark.parametrize("dataset", CLEAN)
def test_nothing_is_found_where_nothing_is_wrong(templates, dataset, tmp_path):
    assert audited(dataset, Path(shutil.copytree(templates / dataset, tmp_path / dataset))).empty


EVERY = [(dataset, *fault) for dataset, faults in FAULTS.items() for fault in faults]


@pytest.mark.parametrize("dataset, fault, plant, kind, words", EVERY, ids=[f[1] for f in EVERY])
def test_a_planted_fault_is_found_and_named(templates, tmp_path, dataset, fault, plant, kind,
                                            words):
    root = Path(shutil.copytree(templates / dataset, tmp_path / dataset, symlinks=True))
    if plant is not None:
        plant(root)
    result, name = audited(dataset, root, published=kind == "counts"), kind
    if isinstance(result, Exception):
        found, name = [(type(result).__name__, str(result))], kind.__name__
    else:
        found = list(zip(result["kind"], result["problem"], strict=True))
        assert set(result["kind"]) <= set(KINDS)
    assert any(re.fullmatch(name, k) and re.search(words, text) for k, text in found), found
    assert all("\n" not in text for _, text in found)
    if name in ("missing", "empty", "unreadable"):        # and is an error to the reader
        photo = "images/1/a.jpg" if "truncated" in fault else PHOTO
        with pytest.raises(MediaError):
            read_clip(root / {"dfew": CLIP, "mafw": FRAMES, "affectnet": photo}[dataset], size=32)
