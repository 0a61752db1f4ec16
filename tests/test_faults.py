"""Faults of files and lists, planted one at a time in clean datasets: each is found and named."""
from __future__ import annotations

import re
import shutil
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import cut_off, put, write_image, write_video

from s4d.data import DatasetError, LabelError, MediaError, examine, read_clip

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
