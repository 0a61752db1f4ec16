"""Every layout in miniature, in files of its kind: indexed, audited, loaded."""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import NAMES, put, write_image, write_video, write_voxceleb2

from s4d.data import REGISTRY, examine, index
from s4d.data.dataset import Key, Samples, collate
from s4d.emotions import EMOTIONS_11, ORDERS

HEAD = "subDirectory_filePath,face_x,expression,valence,arousal"
PHOTO, CROPS = "680/{i}_aligned/face_det_000000", "2_ClipsforFaceCrop/Action/{E}/{i:04d}"
BASIC = "basic/Image/aligned/{split}_{i:05d}_aligned.jpg"
OFFICIAL, TRAIN_TEST = "EmoLabel_DataSplit/{split}(single-labeled)/set_1.csv", ("train", "test")
# Dataset, classes, names of the splits, samples (# is a frame), then list, header and line. Fields:
# i is the number, n and n1 the label from 0 and from 1, e and E the emotion.
LAYOUTS = {
    "AffectNet original": ("affectnet", 7, ("training", "validation"), "Manually_Annotated_Images/"
                           "{i}.bmp", "{split}.csv", HEAD, "{i}.jpg,0,{n},0.1,0.2"),
    "AffectNet 2021": ("affectnet", 8, ("train_set", "val_set"), "{split}/images/{i}.jpg"),
    "AffectNet folders": ("affectnet", 8, ("train", "val"), "{split}/{n}/{i}.png"),
    "AffectNet lists": ("affectnet", 7, TRAIN_TEST, PHOTO + ".png", "{split}.txt", "",
                        PHOTO + ".bmp {n}"),
    "RAF-DB list": ("rafdb", 7, TRAIN_TEST, BASIC, "basic/EmoLabel/list_patition_label.txt", "",
                    "{split}_{i:05d}.jpg {n1}"),
    "RAF-DB folders": ("rafdb", 7, TRAIN_TEST, "DATASET/{split}/{n1}/{i}.jpg"),
    "DFEW official, clips": ("dfew", 7, TRAIN_TEST, "Clip/original/{i:05d}.mp4", OFFICIAL,
                             "video_name,label", "{i},{n1}"),
    "DFEW official, frames": ("dfew", 7, TRAIN_TEST, "Clip/jpg_256/{i:05d}/#.jpg", OFFICIAL,
                              "video_name,label", "{i},{n1}"),
    "DFEW of S4D": ("dfew", 7, TRAIN_TEST, "clip_jpg_256/{i:05d}/#.jpg", "{split}_set_1.csv",
                    "video_name,label", "{i},{n}"),
    "FERV39K official": ("ferv39k", 7, TRAIN_TEST, CROPS + "/#.jpg",
                         "4_setups/All_scenes/{split}_All.csv", "", "Action/{E}/{i:04d} {E}"),
    "FERV39K of S4D": ("ferv39k", 7, TRAIN_TEST, CROPS + ".mp4", "{split}.csv", "path,id",
                       "Action/{E}/{i:04d},{n}"),
    "MAFW official": ("mafw", 11, TRAIN_TEST, "clips/{i:05d}.mp4",
                      "single/no_caption/set_1/{split}.txt", "", "{i:05d}.mp4 {e}"),
    "MAFW of S4D": ("mafw", 11, TRAIN_TEST, "frames_crop_align_224/{i:05d}/#.png",
                    "set_1/{split}.csv", "video_name,labels", "{i:05d}.mp4,{n}"),
    "CAER": ("caer", 7, TRAIN_TEST, "{split}/{E}/{i:04d}.avi")}


def write(path: Path, seed: int) -> None:
    """A photo, a clip of four frames, or a folder of them."""
    if path.stem == "#":
        for t in range(1, 5):
            write_image(path.with_stem(str(t)), 10 * seed + t, 48, 48)
    elif path.suffix in (".mp4", ".avi", ".flv"):
        write_video(path, seed, frames=4)
    else:
        write_image(path, seed)


def made(root: Path, name: str, classes: int, splits: tuple[str, str], media: str,
         listed: str = "", head: str = "", line: str = "") -> list[tuple[str, int, str]]:
    """Write a layout; return (split, number, emotion) of two training and one test sample each."""
    emotions, lists, out = EMOTIONS_11 if classes == 11 else NAMES, {}, []
    for i, emotion in enumerate(emotions * 3, 1):
        tested, n = i > 2 * len(emotions), ORDERS.get(name, NAMES).index(emotion)
        given = dict(i=i, n=n, n1=n + 1, e=emotion, E=emotion.capitalize(), split=splits[tested])
        write(root / media.format(**given), i)
        lists.setdefault(listed.format(**given), [head] if head else []).append(
            line.format(**given))
        if splits[0] == "train_set":
            file = put(root / given["split"] / f"annotations/{i}_exp.npy", "")
            np.save(file, str(n))
        out.append(("test" if tested else "train", i, emotion))
    for path, lines in lists.items() if listed else ():
        more = ["1/none.jpg,0,8,0,0"] if head == HEAD else []
        put(root / path, "\n".join(lines + more) + "\n")
    return out


def check(name: str, root: Path, table, fold: int | None, order: str | None, classes: int) -> None:
    """The audit finds nothing, and every sample loads."""
    problems = examine(name, root, fold=fold, label_order=order)[0].query("kind != 'count'")
    assert problems.empty, problems.values.tolist()
    task = REGISTRY[name].task
    samples = Samples(table, root, task, 32, 4, 1, num_classes=classes, test_segments=1)
    batch = collate([samples[Key(task, row, 0)] for row in range(len(table))])
    assert batch["clip"].shape == (len(table), 1 if task == "image" else 4, 3, 32, 32)
    assert min(batch["label"]) >= 0 and not batch["unreadable"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_indexed_with_its_labels_audited_and_loaded(layout, tmp_path):
    name, classes = LAYOUTS[layout][:2]
    wanted = made(tmp_path, *LAYOUTS[layout])
    fold = 1 if name in ("dfew", "mafw") else None
    order = "mafw" if layout == "MAFW of S4D" else None
    table = index(name, tmp_path, fold=fold, num_classes=classes, label_order=order)
    numbers = [int(re.search(r"(\d+)(_aligned.*)?(\.\w+)?$", p)[1]) for p in table.path]
    assert sorted(zip(table.split, numbers, table.label, strict=True)) == sorted(wanted)
    check(name, tmp_path, table, fold, order, classes)


@pytest.mark.parametrize("name, file, labels, left_out", [
    ("cremad", "VideoFlash/10{actor:02d}_DFA_{code}_XX.flv",
     dict(ANG="anger", DIS="disgust", FEA="fear", HAP="happiness", NEU="neutral", SAD="sadness"),
     []),
    ("ravdess", "Actor_{actor:02d}/01-01-{code}-01-01-01-{actor:02d}.mp4",
     {"01": "neutral", "02": "neutral", "03": "happiness", "04": "sadness", "05": "anger",
      "06": "fear", "07": "disgust", "08": "surprise"},
     ["01-02-03-01-01-01-01.mp4", "02-01-03-01-01-01-01.mp4"])])      # song; without sound
def test_actors_are_in_one_fold_each_and_their_emotions_in_names(tmp_path, name, file, labels,
                                                                 left_out):
    codes = {file.format(actor=actor, code=code): label for actor in range(1, 6)
             for code, label in labels.items()}
    for seed, path in enumerate([*codes, *(f"Actor_01/{n}" for n in left_out)]):
        write(tmp_path / path, seed)
    tables = [index(name, tmp_path, fold=k, num_classes=7) for k in range(1, 6)]
    assert dict(zip(tables[0].path, tables[0].label, strict=True)) == codes
    tested = [set(t[t.split == "test"].subject) for t in tables]
    assert [len(actors) for actors in tested] == [1] * 5 and len(set().union(*tested)) == 5
    for table, actors in zip(tables, tested, strict=True):
        assert not actors & set(table[table.split == "train"].subject)
    check(name, tmp_path, tables[0], 1, None, 7)


def test_voxceleb2_has_subjects_and_no_labels(tmp_path):
    write_voxceleb2(tmp_path, frames=4)
    table = index("voxceleb2", tmp_path)
    assert table.path[0] == "dev/mp4/id00000/video/00000.mp4" and set(table.split) == {"train"}
    assert table.subject.tolist() == ["id00000"] * 2 + ["id00001"] * 2 and table.label.isna().all()
    assert set(examine("voxceleb2", tmp_path)[0].kind) == {"count"}
