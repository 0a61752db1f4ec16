"""Every layout in miniature, lists of the real sizes, and the table that follows from them."""
from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import NAMES, write_affectnet, write_dfew, write_image, write_voxceleb2

from s4d.data import DatasetError, LabelError, audit, fingerprint, index, split_validation
from s4d.data import corpora as registry
from s4d.data import tables
from s4d.emotions import ORDERS


def test_affectnet_in_class_folders(tmp_path):
    write_affectnet(tmp_path, 2, 1)
    table = index("affectnet", tmp_path)
    assert list(table.columns) == ["path", "label", "subject", "split", "fold", "frames"] and len(table) == 21
    assert table.split.value_counts().to_dict() == {"train": 14, "test": 7}      # val is what is reported on
    assert all(Path(p).parts[1] == l for p, l in zip(table.path, table.label))
    for number, name in enumerate(NAMES):
        (tmp_path / "val" / name).rename(tmp_path / "val" / str(number))
    assert sorted(index("affectnet", tmp_path).query("split == 'test'").label) == sorted(NAMES)
    write_image(tmp_path / "val/7/a.jpg")
    shutil.copytree(tmp_path / "val", tmp_path / "test")
    table = index("affectnet", tmp_path)
    assert table.split.value_counts().to_dict() == {"train": 14, "test": 8, "val": 8}
    assert set(index("affectnet", tmp_path, num_classes=7).label) == set(NAMES) and "contempt" in set(table.label)


def test_affectnet_of_2021_with_annotations(tmp_path):
    for part, labels in (("train", [0, 1, 7]), ("val", [6])):
        (tmp_path / f"{part}_set/annotations").mkdir(parents=True)
        for i, label in enumerate(labels):
            write_image(tmp_path / f"{part}_set/images/{i}.jpg", i)
            np.save(tmp_path / f"{part}_set/annotations/{i}_exp.npy", str(label))
    table = index("affectnet", tmp_path)
    assert list(zip(table.path, table.label, table.split)) == [
        ("val_set/images/0.jpg", "anger", "test"), ("train_set/images/0.jpg", "neutral", "train"),
        ("train_set/images/1.jpg", "happiness", "train"), ("train_set/images/2.jpg", "contempt", "train")]
    np.save(tmp_path / "train_set/annotations/1_exp.npy", "9")
    with pytest.raises(LabelError, match=r"unknown label 9 in .*1_exp.npy: expected 0..7"):
        index("affectnet", tmp_path)
    (tmp_path / "train_set/annotations/1_exp.npy").unlink()
    with pytest.raises(DatasetError, match=r"train_set/images/1.jpg has no readable annotation"):
        index("affectnet", tmp_path)


def test_affectnet_with_its_original_lists(tmp_path):
    head = "subDirectory_filePath,face_x,expression,valence\n"
    (tmp_path / "training.csv").write_text(head + "1/a.jpg,0,3,0.1\n1/b.jpg,0,8,0.1\n2/c.jpg,0,10,0\n")
    (tmp_path / "validation.csv").write_text(head + "2/d.jpg,0,0,0.1\n")
    table = index("affectnet", tmp_path)
    assert list(zip(table.path, table.label, table.split)) == [("Manually_Annotated_Images/2/d.jpg", "neutral", "test"),
                                                               ("Manually_Annotated_Images/1/a.jpg", "surprise", "train")]
    (tmp_path / "training.csv").write_text(head + "1/a.jpg,0,11,0.1\n")
    with pytest.raises(LabelError, match="unknown label 11 in .*training.csv"):
        index("affectnet", tmp_path)
    (tmp_path / "training.csv").write_text("subDirectory_filePath,feeling\n1/a.jpg,3\n")
    with pytest.raises(DatasetError, match="training.csv has no column for the label: expected one of label, .*, found subdirectory_filepath, feeling"):
        index("affectnet", tmp_path)


def test_affectnet_with_lists_of_lines(tmp_path):
    write_image(tmp_path / "images/1/my face.png")
    write_image(tmp_path / "images/1/b.jpg")
    (tmp_path / "affectnet_train.txt").write_text("1/my face.jpg 1\n\n1/b.jpg,sad\n")
    (tmp_path / "test.csv").write_text("image,label\n1/b.jpg,6\n")
    table = index("affectnet", tmp_path)
    assert list(zip(table.path, table.label, table.split)) == [
        ("images/1/b.jpg", "anger", "test"), ("images/1/b.jpg", "sadness", "train"), ("images/1/my face.png", "happiness", "train")]
    (tmp_path / "test.csv").write_text("1/b.jpg,bored\n")
    with pytest.raises(LabelError, match=r"unknown label 'bored' in .*test.csv, line 1: expected one of neutral"):
        index("affectnet", tmp_path)
    (tmp_path / "test.csv").write_text("1/b.jpg\n")
    with pytest.raises(LabelError, match="no label for '1/b.jpg' in .*line 1"):
        index("affectnet", tmp_path)


def test_dfew_in_its_official_layout(tmp_path):
    write_dfew(tmp_path, 7, 7, frames=4)
    table = index("dfew", tmp_path, fold=1)
    assert table.split.value_counts().to_dict() == {"train": 7, "test": 7} and (table.fold == 1).all()
    assert dict(zip(table.path, table.label))["Clip/original/00001.mp4"] == "happiness"
    assert dict(zip(table.path, table.label))["Clip/original/00007.mp4"] == "fear"
    write_image(tmp_path / "Clip/jpg_256/00003/1.jpg")    # aligned frames come first where there are some
    paths = set(index("dfew", tmp_path, fold=1).path)
    assert "Clip/jpg_256/00003" in paths and "Clip/jpg_256/00001" in paths
    with pytest.raises(DatasetError, match="no lists of fold 2"):
        index("dfew", tmp_path, fold=2)
    with pytest.raises(DatasetError, match="dfew has no fold 6: choose one of 1, 2, 3, 4, 5"):
        index("dfew", tmp_path, fold=6)
    with pytest.raises(DatasetError, match="has folds and none was chosen"):
        index("dfew", tmp_path)
    path = tmp_path / "EmoLabel_DataSplit/test(single-labeled)/set_1.csv"
    for text, error, said in (("video_name,label\n1,8\n", LabelError, "unknown label 8 in .*set_1.csv, line 2: expected 1..7"),
                              ("video_name,label\n1,bored\n", LabelError, "unknown label 'bored' in .*set_1.csv, line 2: expected one of"),
                              ("video_name,label\n", DatasetError, "set_1.csv holds no entries"),
                              ("", DatasetError, "set_1.csv holds no entries"),
                              ("video_name,emo\n1,1\n", DatasetError, "no column for the label")):
        path.write_text(text)
        with pytest.raises(error, match=said):
            index("dfew", tmp_path, fold=1)
    path.unlink()
    with pytest.raises(DatasetError, match="fold 1 has set_1.csv but no .*test"):
        index("dfew", tmp_path, fold=1)


def test_dfew_as_the_release_lists_it(tmp_path):
    for i in range(1, 8):
        write_image(tmp_path / f"clip_jpg_256/{i:05d}/1.jpg", i)
    (tmp_path / "train_set_2.csv").write_text("video_name,label\n1,0\n00002,1\n3,2\n4,3\n5,4\n")
    (tmp_path / "test_set_2.csv").write_text("video_name,label\n6,5\n7,6\n")
    table = index("dfew", tmp_path, fold=2).set_index("path")
    assert table.label["clip_jpg_256/00001"] == "happiness" and table.label["clip_jpg_256/00007"] == "fear" and (table.fold == 2).all()
    assert table.split.value_counts().to_dict() == {"train": 5, "test": 2}


def test_voxceleb2(tmp_path):
    write_voxceleb2(tmp_path, people=2, clips=2, frames=2)
    table = index("voxceleb2", tmp_path)
    assert table.path[0] == "dev/mp4/id00000/video/00000.mp4" and table.subject.tolist() == ["id00000"] * 2 + ["id00001"] * 2
    assert table.label.isna().all() and set(table.split) == {"train"}


@pytest.mark.parametrize("name, fold", [("affectnet", None), ("dfew", 1), ("voxceleb2", None)])
def test_missing_and_empty_folders_say_what_is_expected(tmp_path, name, fold):
    with pytest.raises(DatasetError, match=f"{name}: there is no folder .*none: give the folder that holds"):
        index(name, tmp_path / "none", fold=fold)
    with pytest.raises(DatasetError, match=f"{name} in .* (holds no samples|has no lists).*: expected"):
        index(name, tmp_path, fold=fold)


def test_unknown_datasets_folds_and_labels(tmp_path):
    with pytest.raises(DatasetError, match="unknown dataset 'afew': choose one of affectnet, caer, clips, cremad, dfew, ferv39k, mafw, photos, rafdb, ravdess, voxceleb2"):
        index("afew", tmp_path)
    write_image(tmp_path / "train/bored/1.jpg")
    with pytest.raises(LabelError, match="unknown label 'bored' in .*train: expected one of neutral"):
        index("affectnet", tmp_path)
    with pytest.raises(DatasetError, match="affectnet has no fold 1: choose none, it has no folds"):
        index("affectnet", tmp_path, fold=1)


def people(n: int, each: int, label: str = "fear") -> pd.DataFrame:
    rows = [(f"{s}/{i}.jpg", label, f"p{s}", "train") for s in range(n) for i in range(each)] + [("t.jpg", label, "q", "test")]
    return tables.table(rows, None, 1)


def test_validation_takes_whole_subjects():
    table = people(20, 5)
    split = split_validation(table, 0.2, seed=0)
    held = set(split[split.split == "val"].subject)
    assert len(held) == 4 and not held & set(split[split.split == "train"].subject) and (split.split == "test").sum() == 1
    assert split.equals(split_validation(table, 0.2, seed=0)) and not split.equals(split_validation(table, 0.2, seed=1))
    assert (table.split == "val").sum() == 0
    unknown = table.assign(subject=None, label=["fear", "anger"] * 50 + ["fear"])
    counts = split_validation(unknown, 0.1)[lambda t: t.split == "val"].label.value_counts().to_dict()
    assert counts == {"fear": 5, "anger": 5}
    with pytest.raises(DatasetError, match="validation fraction 1.5 is outside"):
        split_validation(table, 1.5)
    with pytest.raises(DatasetError, match="no validation split can be taken from 3 training samples of 1 subject"):
        split_validation(people(1, 3))


def test_subjects_come_from_their_list(tmp_path):
    write_affectnet(tmp_path, 1, 1)
    (tmp_path / "subjects.csv").write_text("path,subject\ntrain/fear/000.jpg, 7\n")
    table = index("affectnet", tmp_path).set_index("path")
    assert table.subject["train/fear/000.jpg"] == "7" and table.subject.notna().sum() == 1


def test_the_fingerprint_follows_rows_and_sizes(tmp_path):
    write_affectnet(tmp_path / "a", 1, 1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    table = index("affectnet", tmp_path / "a")
    first = fingerprint(table, tmp_path / "a")
    assert first == fingerprint(index("affectnet", tmp_path / "b"), tmp_path / "b") and len(first) == 16
    assert first != fingerprint(table.assign(label="fear"), tmp_path / "a")
    assert first != fingerprint(table.assign(split="train"), tmp_path / "a") != fingerprint(table[1:], tmp_path / "a")
    with open(tmp_path / "b/train/fear/000.jpg", "ab") as f:
        f.write(b"x")
    assert first != fingerprint(table, tmp_path / "b")
    (tmp_path / "b/train/fear/000.jpg").unlink()
    assert first != fingerprint(table, tmp_path / "b")


def test_mafw_lists_and_their_errors(tmp_path):
    root = tmp_path / "mafw"
    with pytest.raises(DatasetError, match="there is no folder"):
        index("mafw", root, fold=1)
    (root / "clips").mkdir(parents=True)
    (root / "clips" / "00001.mp4").write_bytes(b"x")
    with pytest.raises(DatasetError, match="mafw in .* has no lists of fold 1: expected single/no_caption/set_1/train.txt"):
        index("mafw", root, fold=1)
    lists = root / "single" / "no_caption" / "set_1"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("00001.mp4 anger\n00002.mp4 helplessness\n")
    (lists / "test.txt").write_text("")
    with pytest.raises(DatasetError, match="test.txt holds no entries"):
        index("mafw", root, fold=1)
    (lists / "test.txt").write_text("00003.mp4\n")
    with pytest.raises(LabelError, match="no label for '00003.mp4' in .*test.txt, line 1"):
        index("mafw", root, fold=1)
    (lists / "test.txt").write_text("00003.mp4 rage\n")
    with pytest.raises(LabelError, match="unknown label 'rage'"):
        index("mafw", root, fold=1)
    (lists / "test.txt").write_text("00003.mp4 disappointment\n")
    found = index("mafw", root, fold=1)
    assert found[["path", "label", "split"]].values.tolist() == [
        ["clips/00003.mp4", "disappointment", "test"], ["clips/00001.mp4", "anger", "train"], ["clips/00002.mp4", "helplessness", "train"]]


# --- lists of the real sizes, with the class counts that the releases state

REAL = {   # dataset: samples a class, in the first order's sequence
    "dfew": ((1956, 1515, 2135, 1738, 1175, 116, 721), (489, 379, 534, 435, 294, 29, 181)),
    "ferv39k": ((5906, 1833, 1680, 5854, 7790, 5523, 2502), (1487, 467, 431, 1473, 1958, 1393, 638)),
    "mafw": ((1112, 732, 188, 145, 511, 500, 993, 209, 910, 1176, 857), (278, 183, 47, 36, 128, 125, 249, 52, 227, 296, 218)),
}
FOLDERS = {"anger": "Angry", "disgust": "Disgust", "fear": "Fear", "happiness": "Happy", "neutral": "Neutral", "sadness": "Sad",
           "surprise": "Surprise"}


def real_lists(root: Path, name: str, order: str, write, base: int = 0, folders: bool = False) -> dict[str, dict[str, int]]:
    """Writes both lists of a dataset at their real size, `write(split, [(name, label)])`; returns the samples a class."""
    counts, number = {}, 0
    for split, each in zip(("train", "test"), REAL[name]):
        counts[split], rows = dict(zip(ORDERS[name], each)), []
        for label, n in counts[split].items():
            for number in range(number + 1, number + n + 1):
                rows.append((f"Action/{FOLDERS[label]}/{number:04d}" if folders else f"{number:05d}", ORDERS[order].index(label) + base))
        write(split, rows)
    return counts


def csv_writer(root: Path, pattern: str, header: str, separator: str = ","):
    def write(split: str, rows: list) -> None:
        path = root / pattern.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in [header] * bool(header) + [f"{n}{separator}{k}" for n, k in rows]))
    return write


@pytest.mark.parametrize("name, order, pattern, header, base, folders, frames", [
    ("dfew", "dfew", "{split}_set_1.csv", "video_name,label", 0, False, "clip_jpg_256/00001"),
    ("dfew", "dfew", "EmoLabel_DataSplit/{split}(single-labeled)/set_1.csv", "video_name,label", 1, False, "Clip/jpg_256/00001"),
    ("ferv39k", "ferv39k", "{split}.csv", "path,id", 0, True, "2_ClipsforFaceCrop/Action/Angry/0001"),
    ("ferv39k", "dfew", "{split}.csv", "path,id", 0, True, "2_ClipsforFaceCrop/Action/Angry/0001"),
    ("ferv39k", "ferv39k", "{split}.csv", "path,id", 0, False, "2_ClipsforFaceCrop/00001"),
    ("ferv39k", "dfew", "{split}.csv", "", 0, False, "2_ClipsforFaceCrop/00001"),
    ("mafw", "mafw", "set_1/{split}.csv", "video_name,labels", 0, False, "frames_crop_align_224/00001"),
    ("mafw", "mafw-mae-dfer", "set_1/{split}.csv", "video_name,labels", 0, False, "frames_crop_align_224/00001"),
    ("mafw", "mafw-dfer-clip", "set_1/{split}.csv", "video_name,labels", 1, False, "frames_crop_align_224/00001"),
    ("mafw", "mafw-mae-dfer", "single/set_1/{split}.csv", "", 0, False, "frames_crop_align_224/00001")])
def test_lists_of_the_real_size_have_the_published_counts_in_every_order(tmp_path, name, order, pattern, header, base, folders, frames):
    wanted = real_lists(tmp_path, name, order, csv_writer(tmp_path, pattern, header, "," if header else " "), base, folders)
    (tmp_path / frames).mkdir(parents=True)
    table = index(name, tmp_path, fold=1 if registry.REGISTRY[name].folds else None)
    assert {s: table[table.split == s].label.value_counts().to_dict() for s in ("train", "test")} == wanted
    assert (table.split == "train").sum() == {"dfew": 9356, "ferv39k": 31088, "mafw": 7333}[name]
    if base == 0 and header:                    # the same when the order is given by name; another order gives other names
        again = index(name, tmp_path, fold=1 if registry.REGISTRY[name].folds else None, label_order=order)
        assert again.equals(table)


def test_the_list_that_s4d_tests_photos_on(tmp_path):
    counts = (471, 457, 473, 458, 469, 469, 470)
    lines = [f"680/{k}{i}_aligned/face_det_000000.bmp {k}\n" for k, n in enumerate(counts) for i in range(n)]
    (tmp_path / "test.txt").write_text("".join(lines))
    table = index("affectnet", tmp_path)
    assert len(table) == 3267 and [int((table.label == n).sum()) for n in NAMES] == list(counts)


def test_an_order_that_nothing_tells_is_asked_for(tmp_path):
    (tmp_path / "frames_crop_align_224/00001").mkdir(parents=True)
    for split, start in (("train", 0), ("test", 11)):
        path = tmp_path / f"set_1/{split}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("video_name,labels\n" + "".join(f"{start + k},{k}\n" for k in range(11)))
    with pytest.raises(DatasetError, match=r"train.csv labels by integers whose order its class counts do not tell \(1 of 0, .*give label_order, one of "
                                           "mafw, mafw-mae-dfer, mafw-dfer-clip"):
        index("mafw", tmp_path, fold=1)
    for order in ("mafw", "mafw-mae-dfer", "mafw-dfer-clip"):
        assert index("mafw", tmp_path, fold=1, label_order=order).query("split == 'train'").label.tolist() == list(ORDERS[order])
    with pytest.raises(DatasetError, match="unknown label order 'dfew': choose mafw, mafw-mae-dfer, mafw-dfer-clip"):
        index("mafw", tmp_path, fold=1, label_order="dfew")
    with pytest.raises(DatasetError, match="unknown label order 'dfew': choose none, this dataset names its emotions"):
        write_image(tmp_path / "train/Happy/1.jpg")
        index("caer", tmp_path, label_order="dfew")


def test_integers_that_contradict_the_folders_are_refused(tmp_path):
    (tmp_path / "2_ClipsforFaceCrop/Action/Happy/0001").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("path,id\nAction/Happy/0001,5\nAction/Angry/0002,1\n")
    with pytest.raises(LabelError, match="the integers of .*train.csv fit the folders' emotions in no known order"):
        index("ferv39k", tmp_path)


@pytest.mark.parametrize("name", ["Clip/jpg_256/00001", r"Clip\jpg_256\00001", "jpg_256/00001",
                                  "00001"])
def test_a_name_may_repeat_the_folder_of_media(tmp_path, name):
    write_image(tmp_path / "Clip/jpg_256/00001/1.jpg")
    for split, other in (("train", name), ("test", name.replace("00001", "2"))):
        (tmp_path / f"{split}_set_1.csv").write_text(f"video_name,label\n{other},0\n")
    paths = index("dfew", tmp_path, fold=1).path.tolist()
    assert paths == ["Clip/jpg_256/00002", "Clip/jpg_256/00001"]      # also where one is missing
    notes = audit("dfew", tmp_path, fold=1, published=False).query("kind == 'note'")
    assert len(notes) == (name != "00001")
    if len(notes):
        assert notes.problem.iloc[0].endswith("is read without it (2 entries)")


def test_a_label_may_be_written_as_a_float(tmp_path):
    write_image(tmp_path / "images/a.jpg")
    (tmp_path / "train.csv").write_text("path,label\na.jpg,1.0\nb.jpg,6.00\nc.jpg,3\n")
    labels = dict(index("affectnet", tmp_path)[["path", "label"]].to_numpy())
    assert labels == {"images/a.jpg": "happiness", "b.jpg": "anger", "c.jpg": "surprise"}
    notes = audit("affectnet", tmp_path).query("kind == 'note'")
    assert notes.problem.tolist() == ["a label written as a float, such as 1.0, is read as an "
                                      "integer (2 entries)"]
    (tmp_path / "train.csv").write_text("path,label\na.jpg,1.5\n")
    with pytest.raises(LabelError, match="unknown label '1.5'"):
        index("affectnet", tmp_path)


# --- the other datasets in miniature

def test_rafdb_by_its_list_and_in_folders(tmp_path):
    for stem in ("train_00001", "test_0001"):
        write_image(tmp_path / f"basic/Image/aligned/{stem}_aligned.jpg")
    (tmp_path / "basic/EmoLabel").mkdir()
    listed = tmp_path / "basic/EmoLabel/list_patition_label.txt"
    listed.write_text("train_00001.jpg 5\ntrain_00002.jpg 7\ntest_0001.jpg 1\n")
    table = index("rafdb", tmp_path)
    assert list(zip(table.path, table.label, table.split)) == [
        ("basic/Image/aligned/test_0001_aligned.jpg", "surprise", "test"), ("basic/Image/aligned/train_00001_aligned.jpg", "sadness", "train"),
        ("basic/Image/aligned/train_00002.jpg", "neutral", "train")]
    listed.write_text("valid_1.jpg 5\n")
    with pytest.raises(DatasetError, match="'valid_1.jpg' in .*line 1 tells no split"):
        index("rafdb", tmp_path)
    for part, number in (("train", 2), ("test", 4)):
        write_image(tmp_path / f"mirror/DATASET/{part}/{number}/a.jpg")
    table = index("rafdb", tmp_path / "mirror")
    assert list(zip(table.path, table.label)) == [("DATASET/test/4/a.jpg", "happiness"), ("DATASET/train/2/a.jpg", "fear")]


def test_ferv39k_by_its_official_lists(tmp_path):
    write_image(tmp_path / "2_ClipsforFaceCrop/Daily_Life/Happy/0118/1.jpg")
    for split, line in (("train", "Daily_Life/Happy/0118 Happy"), ("test", "Daily_Life/Angry/0001 Angry")):
        path = tmp_path / f"4_setups/All_scenes/{split}_All.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line + "\n")
    table = index("ferv39k", tmp_path)
    assert list(zip(table.path, table.label, table.split)) == [("2_ClipsforFaceCrop/Daily_Life/Angry/0001", "anger", "test"),
                                                               ("2_ClipsforFaceCrop/Daily_Life/Happy/0118", "happiness", "train")]


def test_mafw_and_dfew_match_names_across_extensions_and_zeros(tmp_path):
    write_image(tmp_path / "frames_crop_align_224/00025/1.png")
    for split, name in (("train", "25.mp4,anger"), ("test", "00026,helplessness")):
        (tmp_path / "set_1").mkdir(exist_ok=True)
        (tmp_path / f"set_1/{split}.csv").write_text(f"video_name,labels\n{name}\n")
    assert index("mafw", tmp_path, fold=1).path.tolist() == ["frames_crop_align_224/00026", "frames_crop_align_224/00025"]


def test_caer_in_its_folders(tmp_path):
    for part, emotion in (("train", "Happy"), ("validation", "Anger"), ("test", "Sad")):
        (tmp_path / part / emotion).mkdir(parents=True)
        (tmp_path / part / emotion / "0001.avi").write_bytes(b"x")
    assert index("caer", tmp_path)[["label", "split"]].values.tolist() == [["sadness", "test"], ["happiness", "train"], ["anger", "val"]]


def test_actors_of_cremad_and_ravdess_are_in_one_fold_each(tmp_path):
    (tmp_path / "VideoFlash").mkdir()
    for actor in range(1001, 1011):
        (tmp_path / f"VideoFlash/{actor}_DFA_ANG_XX.flv").write_bytes(b"x")
        (tmp_path / f"Actor_{actor - 1000:02d}").mkdir()
        for stem in ("01-01-02-01-01-01", "02-01-02-01-01-01", "01-02-03-01-01-01", "02-01-08-01-01-02"):
            (tmp_path / f"Actor_{actor - 1000:02d}/{stem}-{actor - 1000:02d}.mp4").write_bytes(b"x")
    for name, each in (("cremad", ["anger"]), ("ravdess", ["neutral", "surprise"])):
        tests = [index(name, tmp_path, fold=k) for k in (1, 2, 3, 4, 5)]
        held = [set(t[t.split == "test"].subject) for t in tests]
        assert [len(h) for h in held] == [2] * 5 and len(set().union(*held)) == 10
        assert all(not h & set(t[t.split == "train"].subject) for h, t in zip(held, tests))
        assert sorted(tests[0].label) == sorted(each * 10)      # no song, and one file of each performance
    (tmp_path / "VideoFlash/1001_DFA_QQQ_XX.flv").write_bytes(b"x")
    with pytest.raises(LabelError, match="unknown label 'QQQ' in .*1001_DFA_QQQ_XX.flv: expected one of ANG, DIS"):
        index("cremad", tmp_path, fold=1)
    (tmp_path / "VideoFlash/1001_DFA_QQQ_XX.flv").rename(tmp_path / "VideoFlash/notes.flv")
    with pytest.raises(DatasetError, match="VideoFlash/notes.flv in .* is not named as its dataset's files are"):
        index("cremad", tmp_path, fold=1)


# --- the text of lists

@pytest.mark.parametrize("line, said", [("../secret/1.jpg 1", "leaves the dataset's folder by '..'"), ("a/../../1.jpg 1", "leaves the dataset's"),
                                        ("/data/1.jpg 1", "is an absolute path"), ("C:\\data\\1.jpg 1", "is an absolute path"),
                                        ('"a\nb.jpg" 1', "opens a quote and does not close it"), ("a\x0bb.jpg 1", "holds a line break or"),
                                        ("a\u2028b.jpg 1", "holds a line break or"), ("./ 1", "names no file")])
def test_listed_paths_that_are_not_safe_are_refused(tmp_path, line, said):
    (tmp_path / "train.txt").write_bytes(f"ok.jpg 1\n{line}\n".encode())
    with pytest.raises(DatasetError, match=said):
        index("affectnet", tmp_path)


def test_a_line_break_inside_a_table_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text('path,label\n"a\nb.jpg",1\n')
    with pytest.raises(DatasetError, match=r"'a\\nb.jpg' in .*train.csv, line 3 holds a line break"):
        index("affectnet", tmp_path)


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_in_other_encodings_are_read_right(tmp_path, code, end):
    names = ["中文 名字.jpg", "u\u0308ber.jpg", "sub dir/b c.jpg"]
    for name in names:
        write_image(tmp_path / "images" / name)
    text = end.join(["name,label", "中文 名字.png,1", "\u00fcber.jpg,fear", '"sub dir\\b c.jpg",6', ""])
    (tmp_path / "train.csv").write_bytes(text.encode(code))
    table = index("affectnet", tmp_path).set_index("path").label
    assert table.to_dict() == {f"images/{names[0]}": "happiness", f"images/{names[1]}": "fear", f"images/{names[2]}": "anger"}


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "train.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(DatasetError, match="train.csv cannot be read: it is no text"):
        index("affectnet", tmp_path)
