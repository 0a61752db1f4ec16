"""Every layout in miniature, in files of its kind: indexed, audited, loaded."""
from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import NAMES, smooth, write_image, write_video, write_voxceleb2

from s4d.data import audit, index
from s4d.data.dataset import Key, Samples, collate
from s4d.emotions import EMOTIONS_11, ORDERS

CODERS = {".avi": "mpeg4", ".flv": "flv", ".mp4": "libx264"}


def film(path: Path, seed: int) -> None:
    """A clip of four frames, coded as its extension suggests."""
    if path.suffix == ".mp4":
        write_video(path, seed, frames=4)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(CODERS[path.suffix], rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for t in range(4):
            picture = av.VideoFrame.from_ndarray(smooth(seed, t=t / 4), format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


def frames(folder: Path, seed: int, suffix: str) -> None:
    for t in range(1, 5):
        write_image(folder / f"{t}{suffix}", 10 * seed + t, 48, 48)


def text(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def numbered(emotions: tuple[str, ...]) -> dict[str, list[tuple[int, str]]]:
    """Two training samples and one test sample of each emotion: split -> (number, emotion)."""
    both = [(i, e) for i, e in enumerate(emotions * 3, 1)]
    return {"train": both[: 2 * len(emotions)], "test": both[2 * len(emotions):]}


SEVEN = numbered(NAMES)


def affectnet_original(root: Path) -> None:
    for split, name in (("train", "training"), ("test", "validation")):
        lines = ["subDirectory_filePath,face_x,expression,valence,arousal"]
        for i, emotion in SEVEN[split]:
            write_image(root / f"Manually_Annotated_Images/{i % 3}/{i}.bmp", i)
            lines.append(f"{i % 3}/{i}.jpg,0,{NAMES.index(emotion)},0.1,0.2")      # stored as bmp
        text(root / f"{name}.csv", lines + ["1/none.jpg,0,8,0,0"])


def affectnet_2021(root: Path) -> None:
    for split, part in (("train", "train_set"), ("test", "val_set")):
        (root / part / "annotations").mkdir(parents=True)
        for i, emotion in SEVEN[split]:
            write_image(root / part / f"images/{i}.jpg", i)
            np.save(root / part / f"annotations/{i}_exp.npy", str(NAMES.index(emotion)))


def affectnet_folders(root: Path) -> None:
    for split, part in (("train", "train"), ("test", "val")):
        for i, emotion in SEVEN[split]:
            write_image(root / part / str(NAMES.index(emotion)) / f"{i}.png", i)


def affectnet_lists(root: Path) -> None:
    for split in SEVEN:
        for i, _ in SEVEN[split]:
            write_image(root / f"680/{i}_aligned/face_det_000000.png", i)
        text(root / f"{split}.txt", [f"680/{i}_aligned/face_det_000000.bmp {NAMES.index(e)}"
                                     for i, e in SEVEN[split]])


def rafdb_list(root: Path) -> None:
    lines = []
    for split in SEVEN:
        for i, emotion in SEVEN[split]:
            write_image(root / f"basic/Image/aligned/{split}_{i:05d}_aligned.jpg", i)
            lines.append(f"{split}_{i:05d}.jpg {ORDERS['rafdb'].index(emotion) + 1}")
    text(root / "basic/EmoLabel/list_patition_label.txt", lines)


def rafdb_folders(root: Path) -> None:
    for split in SEVEN:
        for i, emotion in SEVEN[split]:
            write_image(root / f"DATASET/{split}/{ORDERS['rafdb'].index(emotion) + 1}/{i}.jpg", i)


def dfew(media: str, lists: str, base: int):
    def make(root: Path) -> None:
        for split in SEVEN:
            for i, _ in SEVEN[split]:
                if "jpg" in media:
                    frames(root / media / f"{i:05d}", i, ".jpg")
                else:
                    film(root / media / f"{i:05d}.mp4", i)
            lines = [f"{i},{ORDERS['dfew'].index(e) + base}" for i, e in SEVEN[split]]
            text(root / lists.format(split=split), ["video_name,label", *lines])
    return make


def ferv39k(official: bool):
    def make(root: Path) -> None:
        for split in SEVEN:
            lines = [] if official else ["path,id"]
            for i, emotion in SEVEN[split]:
                name = f"Action/{emotion.capitalize()}/{i:04d}"
                if official:
                    frames(root / "2_ClipsforFaceCrop" / name, i, ".jpg")
                    lines.append(f"{name} {emotion.capitalize()}")
                else:
                    film(root / f"2_ClipsforFaceCrop/{name}.mp4", i)
                    lines.append(f"{name},{ORDERS['ferv39k'].index(emotion)}")
            listed = f"4_setups/All_scenes/{split}_All.csv" if official else f"{split}.csv"
            text(root / listed, lines)
    return make


def mafw(official: bool):
    def make(root: Path) -> None:
        for split, rows in numbered(EMOTIONS_11).items():
            for i, _ in rows:
                if official:
                    film(root / f"clips/{i:05d}.mp4", i)
                else:
                    frames(root / f"frames_crop_align_224/{i:05d}", i, ".png")
            if official:
                lines = [f"{i:05d}.mp4 {e}" for i, e in rows]
                text(root / f"single/no_caption/set_1/{split}.txt", lines)
            else:
                lines = [f"{i:05d}.mp4,{ORDERS['mafw'].index(e)}" for i, e in rows]
                text(root / f"set_1/{split}.csv", ["video_name,labels", *lines])
    return make


def caer(root: Path) -> None:
    for split in SEVEN:
        for i, emotion in SEVEN[split]:
            film(root / split / emotion.capitalize() / f"{i:04d}.avi", i)


def cremad(root: Path) -> None:
    for actor in range(1001, 1006):
        for i, code in enumerate(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")):
            film(root / f"VideoFlash/{actor}_DFA_{code}_XX.flv", 10 * actor + i)


def ravdess(root: Path) -> None:
    for actor in range(1, 6):
        for code in range(1, 9):
            name = f"01-01-{code:02d}-01-01-01-{actor:02d}.mp4"
            film(root / f"Actor_{actor:02d}/{name}", 10 * actor + code)


OFFICIAL, RELEASED = "EmoLabel_DataSplit/{split}(single-labeled)/set_1.csv", "{split}_set_1.csv"
LAYOUTS = {   # name -> dataset, fold, classes, order, training and test samples, what writes it
    "AffectNet original": ("affectnet", None, 7, None, 14, 7, affectnet_original),
    "AffectNet 2021": ("affectnet", None, 8, None, 14, 7, affectnet_2021),
    "AffectNet folders": ("affectnet", None, 8, None, 14, 7, affectnet_folders),
    "AffectNet lists": ("affectnet", None, 7, None, 14, 7, affectnet_lists),
    "RAF-DB list": ("rafdb", None, 7, None, 14, 7, rafdb_list),
    "RAF-DB folders": ("rafdb", None, 7, None, 14, 7, rafdb_folders),
    "DFEW official, clips": ("dfew", 1, 7, None, 14, 7, dfew("Clip/original", OFFICIAL, 1)),
    "DFEW official, frames": ("dfew", 1, 7, None, 14, 7, dfew("Clip/jpg_256", OFFICIAL, 1)),
    "DFEW of S4D": ("dfew", 1, 7, None, 14, 7, dfew("clip_jpg_256", RELEASED, 0)),
    "FERV39K official": ("ferv39k", None, 7, None, 14, 7, ferv39k(True)),
    "FERV39K of S4D": ("ferv39k", None, 7, None, 14, 7, ferv39k(False)),
    "MAFW official": ("mafw", 1, 11, None, 22, 11, mafw(True)),
    "MAFW of S4D": ("mafw", 1, 11, "mafw", 22, 11, mafw(False)),
    "CAER": ("caer", None, 7, None, 14, 7, caer),
    "CREMA-D": ("cremad", 1, 7, None, 24, 6, cremad),
    "RAVDESS": ("ravdess", 1, 7, None, 32, 8, ravdess),
}


def number(path: str) -> int:
    """The number that a writer gave a sample, from its path."""
    return int(re.search(r"(\d+)(_aligned.*)?(\.\w+)?$", path)[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_indexed_with_its_labels_audited_and_loaded(layout, tmp_path):
    name, fold, num_classes, order, train, tested, write = LAYOUTS[layout]
    write(tmp_path)
    table = index(name, tmp_path, fold=fold, num_classes=num_classes, label_order=order)
    assert table.split.value_counts().to_dict() == {"train": train, "test": tested}
    if name not in ("cremad", "ravdess"):
        emotions = EMOTIONS_11 if name == "mafw" else NAMES
        rows = {s: {n: e for n, e in of} for s, of in numbered(emotions).items()}
        assert [rows[s][number(p)] for p, s in zip(table.path, table.split, strict=True)] \
            == table.label.tolist()
    problems = audit(name, tmp_path, fold=fold, label_order=order, published=False)
    assert problems.empty, problems.values.tolist()
    task = "image" if table.frames.notna().all() else "video"
    samples = Samples(table, tmp_path, task, 32, 4, 1, num_classes=num_classes, test_segments=1)
    batch = collate([samples[Key(task, row, 0)] for row in range(len(table))])
    assert batch["clip"].shape == (len(table), 1 if task == "image" else 4, 3, 32, 32)
    assert min(batch["label"]) >= 0 and not batch["unreadable"]


def test_actors_emotions_are_in_their_files_names(tmp_path):
    cremad(tmp_path)
    ravdess(tmp_path)
    codes = index("cremad", tmp_path, fold=1)
    assert {p.split("_")[2]: e for p, e in zip(codes.path, codes.label, strict=True)} == {
        "ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness", "NEU": "neutral",
        "SAD": "sadness"}
    codes = index("ravdess", tmp_path, fold=1)
    assert {p.split("-")[2]: e for p, e in zip(codes.path, codes.label, strict=True)} == {
        "01": "neutral", "02": "neutral", "03": "happiness", "04": "sadness", "05": "anger",
        "06": "fear", "07": "disgust", "08": "surprise"}


def test_voxceleb2_has_subjects_and_no_labels(tmp_path):
    write_voxceleb2(tmp_path, people=2, clips=2, frames=4)
    table = index("voxceleb2", tmp_path)
    assert table.path[0] == "dev/mp4/id00000/video/00000.mp4" and set(table.split) == {"train"}
    assert table.subject.tolist() == ["id00000"] * 2 + ["id00001"] * 2 and table.label.isna().all()
    assert audit("voxceleb2", tmp_path, published=False).empty
