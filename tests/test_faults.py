"""Faults of files and lists, planted one at a time in clean datasets: each is found and named, within a time limit.

`python tests/test_faults.py` prints the table.
"""
from __future__ import annotations

import shutil
import struct
import tempfile
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
            (root / f"set_{k + 1}/{split}.csv").write_text("video_name,labels\n" + "".join(f"{i:05d},anger\n" for i in of))


def clean_affectnet(root: Path) -> None:
    """Six photos of three kinds of file, lists of lines."""
    for split, names in (("train", ("1/a.jpg", "1/b.jpg", "1/c.png")), ("test", ("2/d.jpg", "2/e.bmp", "2/f.png"))):
        for i, name in enumerate(names):
            write_image(root / "images" / name, 10 * len(split) + i)
        (root / f"{split}.txt").write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)))


def clean_ferv39k(root: Path) -> None:
    """Two clips in folders named after their emotions, S4D's lists."""
    for split, where, label in (("train", "Action/Happy/0001", 3), ("test", "Action/Angry/0002", 0)):
        write_video(root / f"2_ClipsforFaceCrop/{where}.mp4", label, frames=5)
        (root / f"{split}.csv").write_text(f"path,id\n{where},{label}\n")


CLEAN = {"dfew": clean_dfew, "mafw": clean_mafw, "affectnet": clean_affectnet, "ferv39k": clean_ferv39k}


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
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        out.mux([*stream.encode(frame), *stream.encode()])


def slow(root: Path) -> None:
    import av
    with av.open(str(root / CLIP), "w") as out:
        stream = out.add_stream("libx264", rate=3)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for t in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(smooth(1, t=t / 4), format="rgb24")))
        out.mux(stream.encode())


def vast(root: Path) -> None:
    """A PNG of a hundred bytes whose header asks for ten gigabytes."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (root / PHOTO).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))


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


# Fault, dataset, plant, what is found: a kind of the audit, or the type of the error that ends it, and words of the message.
FAULTS = (
    ("clip missing", "dfew", lambda r: (r / CLIP).unlink(), "missing", "not on disk"),
    ("clip behind a dead link", "dfew", link, "missing", "not on disk"),
    ("clip of 0 bytes", "dfew", put(CLIP, b""), "empty", "it is empty"),
    ("clip truncated", "dfew", lambda r: cut_off(r / CLIP, 0.6), "unreadable", "damaged"),
    ("clip damaged in its middle", "dfew", lambda r: damage(r / CLIP, 0.5, 0.55), "unreadable", "damaged"),
    ("clip damaged in its header", "dfew", lambda r: damage(r / CLIP, 0.0, 0.1), "unreadable", "damaged"),
    ("clip of zeros", "dfew", put(CLIP, bytes(4000)), "unreadable", "no video"),
    ("text named .mp4", "dfew", put(CLIP, b"<html>404 not found</html>" * 40), "unreadable", "no video"),
    ("sound without a picture", "dfew", sound, "unreadable", "sound but no video"),
    ("folder in a clip's place", "dfew", folder_for_a_file, "empty|unreadable", "no frames|empty"),
    ("clip of 2 frames", "dfew", clip(frames=2), "short", r"2 frame\(s\)"),
    ("photo named .mp4", "dfew", lambda r: Image.fromarray(smooth(1)).save(r / CLIP, format="jpeg"), "short|unreadable", "1 frame|no video"),
    ("clip of another size", "dfew", clip(width=96, height=96), "size", "96 x 96 px"),
    ("clip of another frame rate", "dfew", slow, "rate", "3 frames a second"),
    ("clip too small for a face", "dfew", clip(width=8, height=8), "unreadable", "8 x 8 px"),
    ("clip far longer than wide", "dfew", clip(width=200, height=20), "unreadable", "200 x 20 px"),
    ("same clip in two splits", "dfew", copied("Clip/original/00005.mp4", "Clip/original/00001.mp4"), "duplicate", "equal bytes"),
    ("clip in no list", "dfew", copied(CLIP, "Clip/original/00099.mp4"), "unlisted", "in no list"),
    ("clip listed twice", "dfew", append(TRAIN1, "3,4\n"), "twice", "listed 2 times"),
    ("clip listed under two labels", "dfew", append(TRAIN1, "3,1\n"), "twice", "train as anger, train as happiness"),
    ("clip in train and test", "dfew", append(TEST1, "3,4\n"), "twice", "test as anger, train as anger"),
    ("clip in two test folds", "dfew", append(TEST1, "3,4\n"), "folds", "test folds 1, 4"),
    ("clip in no test fold", "dfew", replaced(TEST1, "5,6\n", ""), "folds", "no test fold"),
    ("label outside the range", "dfew", replaced(TRAIN1, "3,4", "3,9"), "list", "unknown label 9"),
    ("label that is no number", "dfew", replaced(TRAIN1, "3,4", "3,joy!"), "list", "unknown label 'joy!'"),
    ("label missing", "dfew", replaced(TRAIN1, "3,4", "3,"), "list", "no label for '3'"),
    ("list truncated within a line", "dfew", lambda r: cut_off(r / TRAIN1, 0.94), "list", "no label"),
    ("list missing", "dfew", lambda r: (r / TRAIN1).unlink(), "list", "but no"),
    ("both lists of a fold missing", "dfew", lambda r: ((r / TRAIN1).unlink(), (r / TEST1).unlink()), "list", "no lists of fold 1"),
    ("list of 0 bytes", "dfew", put(TRAIN1, b""), "list", "holds no entries"),
    ("list with a header only", "dfew", put(TRAIN1, b"video_name,label\n"), "list", "holds no entries"),
    ("list without its label column", "dfew", put(TRAIN1, b"video_name,who\n1,x\n"), "list", "no column for the label"),
    ("list that is no text", "dfew", put(TRAIN1, bytes(range(256)) * 9), "list", "no text"),
    ("path with ..", "dfew", append(TRAIN1, "../../secret.mp4,1\n"), "list", "leaves the dataset's folder"),
    ("absolute path", "dfew", append(TRAIN1, "/etc/passwd,1\n"), "list", "absolute path"),
    ("Windows path with a drive", "dfew", append(TRAIN1, "C:\\clips\\3.mp4,1\n"), "list", "absolute path"),
    ("line break in a path", "dfew", append(TRAIN1, '"00003\n.mp4",1\n'), "list", "line break"),
    ("no folder of clips", "dfew", lambda r: shutil.rmtree(r / "Clip"), DatasetError, "holds no clips"),
    ("person in two splits", "dfew", put("subjects.csv", b"path,subject\nClip/original/00001.mp4,p\nClip/original/00005.mp4,p\n"), "subject",
     "subject p is in test and train"),
    ("subjects.csv names no clip", "dfew", put("subjects.csv", b"path,subject\nClip/original/77777.mp4,p\n"), "subjects", "not in the dataset"),
    ("frame folder missing", "mafw", lambda r: shutil.rmtree(r / FRAMES), "missing", "not on disk"),
    ("frame folder without frames", "mafw", emptied(FRAMES), "empty", "it is empty"),
    ("frame of 0 bytes", "mafw", put(f"{FRAMES}/3.png", b""), "unreadable", "frame 3.png: its content"),
    ("frame truncated", "mafw", lambda r: cut_off(r / FRAMES / "3.png", 0.5), "unreadable", "frame 3.png.*truncated"),
    ("frame number left out", "mafw", lambda r: (r / FRAMES / "3.png").unlink(), "gap", "between frames 2 and 4"),
    ("frames of two sizes", "mafw", lambda r: write_image(r / FRAMES / "3.png", 1, 48, 48), "sizes", "differ in size"),
    ("counts unlike the published", "mafw", None, "counts", "where 1839 are published"),
    ("integers in an order that nothing tells", "mafw", lambda r: [f.write_text("video_name,labels\n1,3\n2,4\n") for f in r.glob("set_*/*.csv")],
     DatasetError, "order its class counts do not tell"),
    ("photo truncated", "affectnet", lambda r: cut_off(r / "images/1/a.jpg", 0.6), "unreadable", "truncated"),
    ("photo damaged in its middle", "affectnet", lambda r: damage(r / PHOTO, 0.5, 0.6), "unreadable", "damaged"),
    ("photo whose header asks for 10 GB", "affectnet", vast, "unreadable", "damaged|px"),
    ("text named .png", "affectnet", put(PHOTO, b"no picture"), "unreadable", "not an image"),
    ("same photo in two splits", "affectnet", copied("images/1/c.png", "images/2/f.png"), "duplicate", "equal bytes"),
    ("same photo under two labels", "affectnet", copied("images/1/a.jpg", "images/1/b.jpg"), "duplicate", "equal bytes"),
    ("label of a name list unknown", "affectnet", append("train.txt", "1/a.jpg bored\n"), LabelError, "unknown label 'bored'"),
    ("label against the folder's name", "ferv39k", append("train.csv", "Action/Sad/0003,sadness\nAction/Happy/0004,sadness\n"), "label",
     "listed as sadness, but its folder is named after happiness"),
    ("integers against the folders' names", "ferv39k", replaced("train.csv", ",3", ",6"), LabelError, "fit the folders' emotions in no known order"),
)


def audited(name: str, root: Path, published: bool = False):
    """Problems of a dataset, or the error that ends the audit; a TimeoutError when it takes too long."""
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


def found(templates: Path, folder: Path, dataset: str, plant, kind) -> list[tuple[str, str]]:
    """(kind or type of error, message) of what the audit says after the fault was planted."""
    root = Path(shutil.copytree(templates / dataset, folder / dataset, symlinks=True))
    if plant is not None:
        plant(root)
    result = audited(dataset, root, published=kind == "counts")
    if isinstance(result, Exception):
        return [(type(result).__name__, str(result))]
    return list(zip(result["kind"], result["problem"]))


@pytest.fixture(scope="module")
def templates(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    for name, make in CLEAN.items():
        make(root / name)
    return root


@pytest.mark.parametrize("dataset", CLEAN)
def test_nothing_is_found_where_nothing_is_wrong(templates, dataset, tmp_path):
    assert audited(dataset, Path(shutil.copytree(templates / dataset, tmp_path / dataset))).empty


@pytest.mark.parametrize("fault, dataset, plant, kind, words", FAULTS, ids=[f[0] for f in FAULTS])
def test_a_planted_fault_is_found_and_named(templates, tmp_path, fault, dataset, plant, kind, words):
    import re
    said = found(templates, tmp_path, dataset, plant, kind)
    name = kind if isinstance(kind, str) else kind.__name__
    assert any(re.fullmatch(name, k) and re.search(words, text) for k, text in said), said
    assert all("\n" not in text for _, text in said)
    assert all(k in KINDS or k == name for k, _ in said)


def test_what_the_audit_calls_unreadable_is_an_error_to_the_reader(templates, tmp_path):
    for i, (_, dataset, plant, kind, _) in enumerate(FAULTS):
        if kind in ("missing", "empty", "unreadable"):
            root = Path(shutil.copytree(templates / dataset, tmp_path / str(i)))
            plant(root)
            with pytest.raises(MediaError):
                read_clip(root / {"dfew": CLIP, "mafw": FRAMES, "affectnet": "images/1/a.jpg" if "truncated" in FAULTS[i][0] else PHOTO}[dataset], size=32)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name, make in CLEAN.items():
            make(Path(folder) / "clean" / name)
        for number, (fault, dataset, plant, kind, _) in enumerate(FAULTS, 1):
            said = found(Path(folder) / "clean", Path(folder) / str(number), dataset, plant, kind)
            import re
            named = kind if isinstance(kind, str) else kind.__name__
            first = next(((k, text) for k, text in said if re.fullmatch(named, k)), ("NOT FOUND", ""))
            print(f"{number:>3} | {fault} | {first[0]} | {first[1].replace(f'{folder}/{number}/', '')[:150]}")
