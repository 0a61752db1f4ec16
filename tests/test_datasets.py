"""Every layout and list: indexed, audited, loaded; their errors, and the table that follows."""
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import NAMES, put, write_affectnet, write_image, write_video, write_voxceleb2

from s4d.data import REGISTRY, DatasetError, LabelError, fingerprint, index, split_validation
from s4d.data.audit import examine, report
from s4d.data.dataset import Key, Samples
from s4d.emotions import EMOTIONS_11, ORDERS

HEAD = "subDirectory_filePath,face_x,expression"


def refused(error, match: str, name: str, root: Path, **options) -> None:
    with pytest.raises(error, match=match) as caught:
        index(name, root, **options)
    assert "\n" not in str(caught.value)


def found(name: str, root: Path, **options) -> list[tuple]:
    table = index(name, root, **options)
    return list(zip(table.path, table.label, table.split, strict=True))


def test_affectnet_tests_on_val_unless_there_is_a_test_split(tmp_path):
    write_affectnet(tmp_path, 2, 1)
    table = index("affectnet", tmp_path)
    assert list(table.columns) == ["path", "label", "subject", "split", "fold"]
    assert table.split.value_counts().to_dict() == {"train": 14, "test": 7}
    write_image(tmp_path / "val/7/a.jpg")
    shutil.copytree(tmp_path / "val", tmp_path / "test")
    table = index("affectnet", tmp_path)
    assert table.split.value_counts().to_dict() == {"train": 14, "test": 8, "val": 8}
    assert "contempt" in set(table.label)
    assert set(index("affectnet", tmp_path, num_classes=7).label) == set(NAMES)


@pytest.mark.parametrize("name, file, text, match", [
    ("affectnet", "training.csv", f"{HEAD}\n1/a.jpg,0,11\n", "unknown label 11 in .*training.csv"),
    ("affectnet", "train_set/images/1.jpg", "x", "1.jpg has no readable annotation"),
    ("affectnet", "train/bored/1.jpg", "x", "unknown label 'bored' in .*train: expected one of n"),
    ("affectnet", "test.csv", "image,label\n1.jpg,1.5\n", "unknown label '1.5' in .*, line 2:"),
    ("rafdb", "EmoLabel/list_patition_label.txt", "a_1.jpg 5\n", "'a_1.jpg' .*1 tells no split"),
    ("cremad", "VideoFlash/1001_DFA_QQ_XX.flv", "x", "QQ_XX.flv in .* is no name of this"),
    ("cremad", "VideoFlash/1001_DFA_QQQ_XX.flv", "x", "QQQ_XX.flv .* with one of ANG, DIS")])
def test_a_wrong_label_or_name_is_named(tmp_path, name, file, text, match):
    put(tmp_path / file, text)
    refused((DatasetError, LabelError), match, name, tmp_path, fold=1 if name == "cremad" else None)


def test_folds_and_media_of_dfew(tmp_path):
    official = "EmoLabel_DataSplit/{}(single-labeled)/set_1.csv"
    put(tmp_path / official.format("train"), "video_name,label\n1,1\n2,7\n")
    put(tmp_path / official.format("test"), "video_name,label\n3,2\n")
    put(tmp_path / "Clip/original/00001.mp4", "x")
    assert found("dfew", tmp_path, fold=1) == [
        ("Clip/original/3", "sadness", "test"),
        ("Clip/original/00001.mp4", "happiness", "train"), ("Clip/original/2", "fear", "train")]
    write_image(tmp_path / "Clip/jpg_256/00003/1.jpg")    # aligned frames where there are some
    assert index("dfew", tmp_path, fold=1).path.tolist() == [
        "Clip/jpg_256/00003", "Clip/jpg_256/1", "Clip/jpg_256/2"]
    refused(DatasetError, "no lists of fold 2", "dfew", tmp_path, fold=2)


@pytest.mark.parametrize("name, match, options", [
    ("affectnet", "affectnet: there is no folder .*none: give the folder that holds", {}),
    ("afew", "unknown dataset 'afew': choose one of affectnet, caer, clips, cremad, dfew, ferv39k, "
             "mafw, photos, rafdb, ravdess, voxceleb2", {}),
    ("affectnet", "has no fold 1: choose None, since it has none", {"fold": 1}),
    ("dfew", "has no fold 6: choose 1, 2, 3, 4, 5", {"fold": 6}),
    ("dfew", "has no fold None: choose 1, 2, 3, 4, 5", {}),
    ("affectnet", "holds images and was named as the source of videos: choose one of caer",
     {"task": "video"}),
    ("caer", "caer tells its subjects itself", {"subject_separator": "_"}),
    ("voxceleb2", "voxceleb2 in .* holds no samples: expected", {})])
def test_unknown_datasets_folders_folds_and_tasks(tmp_path, name, match, options):
    refused(DatasetError, match, name, tmp_path / "none" if "no folder" in match else tmp_path,
            **options)


def subjects(n: int, each: int) -> pd.DataFrame:
    rows = [(f"{s}/{i}.jpg", "fear", f"p{s}", "train") for s in range(n) for i in range(each)]
    return pd.DataFrame([*rows, ("t.jpg", "fear", "q", "test")],
                        columns=["path", "label", "subject", "split"], dtype=object)


def test_validation_takes_whole_subjects():
    table = subjects(20, 5)
    split = split_validation(table, 0.2, seed=0)
    val = set(split[split.split == "val"].subject)
    assert len(val) == 4 and not val & set(split[split.split == "train"].subject)
    assert (split.split == "test").sum() == 1 and (table.split == "val").sum() == 0
    assert split.equals(split_validation(table, 0.2, seed=0))
    assert not split.equals(split_validation(table, 0.2, seed=1))
    unknown = table.assign(subject=None, label=["fear", "anger"] * 50 + ["fear"])
    counts = split_validation(unknown, 0.1).query("split == 'val'").label.value_counts().to_dict()
    assert counts == {"fear": 5, "anger": 5}
    with pytest.raises(DatasetError, match="can be taken from 3 training samples of 1 subject"):
        split_validation(subjects(1, 3))


def test_subjects_come_from_their_list(tmp_path):
    write_affectnet(tmp_path, 1, 1)
    put(tmp_path / "subjects.csv", "path,subject\ntrain/fear/000.jpg, 7\n")
    table = index("affectnet", tmp_path).set_index("path")
    assert table.subject["train/fear/000.jpg"] == "7" and table.subject.notna().sum() == 1


def test_the_fingerprint_follows_rows_and_sizes(tmp_path):
    write_affectnet(tmp_path / "a", 1, 1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    table = index("affectnet", tmp_path / "a")
    first = fingerprint(table, tmp_path / "a")
    assert first == fingerprint(index("affectnet", tmp_path / "b"), tmp_path / "b")
    for other in (table.assign(label="fear"), table.assign(split="train"), table[1:]):
        assert first != fingerprint(other, tmp_path / "a")
    with open(tmp_path / "b/train/fear/000.jpg", "ab") as file:
        file.write(b"x")
    assert first != fingerprint(table, tmp_path / "b")


# --- lists of the real sizes, with the class counts that the releases state

REAL = {   # samples a class, in the first order's sequence: train, test
    "dfew": ((1956, 1515, 2135, 1738, 1175, 116, 721), (489, 379, 534, 435, 294, 29, 181)),
    "ferv39k": ((5906, 1833, 1680, 5854, 7790, 5523, 2502),
                (1487, 467, 431, 1473, 1958, 1393, 638)),
    "mafw": ((1112, 732, 188, 145, 511, 500, 993, 209, 910, 1176, 857),
             (278, 183, 47, 36, 128, 125, 249, 52, 227, 296, 218))}


@pytest.mark.parametrize("name, order, pattern, header, base", [
    ("dfew", "dfew", "{}_set_1.csv", "video_name,label", 0),
    ("dfew", "dfew", "EmoLabel_DataSplit/{}(single-labeled)/set_1.csv", "video_name,label", 1),
    ("ferv39k", "ferv39k", "{}.csv", "path,id in folders", 0),
    ("ferv39k", "dfew", "{}.csv", "path,id in folders", 0),
    ("ferv39k", "ferv39k", "{}.csv", "path,id", 0), ("ferv39k", "dfew", "{}.csv", "", 0),
    ("mafw", "mafw", "set_1/{}.csv", "video_name,labels", 0),
    ("mafw", "mafw-mae-dfer", "set_1/{}.csv", "video_name,labels", 0),
    ("mafw", "mafw-dfer-clip", "set_1/{}.csv", "video_name,labels", 1),
    ("mafw", "mafw-mae-dfer", "single/set_1/{}.csv", "", 0)])
def test_lists_of_the_real_size_have_the_published_counts(tmp_path, name, order, pattern, header,
                                                          base):
    wanted, clip = {}, 0
    header, _, in_folders = header.partition(" in ")
    for split, counts in zip(("train", "test"), REAL[name], strict=True):
        wanted[split] = dict(zip(ORDERS[name], counts, strict=True))
        lines = [header] if header else []
        for label, count in wanted[split].items():
            folder = f"Action/{label}/" if in_folders else ""
            for _ in range(count):
                clip += 1
                separator = "," if header else " "
                lines.append(f"{folder}{clip:05d}{separator}{ORDERS[order].index(label) + base}")
        put(tmp_path / pattern.format(split), "\n".join(lines))
    media = {"dfew": "clip_jpg_256", "ferv39k": "2_ClipsforFaceCrop", "mafw": "frames"}[name]
    put(tmp_path / media / "00001/1.jpg", "x")
    fold = 1 if REGISTRY[name].folds else None
    table = index(name, tmp_path, fold=fold)
    for split, counts in wanted.items():
        assert table[table.split == split].label.value_counts().to_dict() == counts
    assert (table.split == "train").sum() == {"dfew": 9356, "ferv39k": 31088, "mafw": 7333}[name]
    assert index(name, tmp_path, fold=fold, label_order=order).equals(table)


def test_an_order_that_nothing_tells_is_asked_for(tmp_path):
    put(tmp_path / "frames/00001/1.jpg", "x")
    for split, start in (("train", 0), ("test", 11)):
        lines = "".join(f"{start + k},{k}\n" for k in range(11))
        put(tmp_path / f"set_1/{split}.csv", f"video_name,labels\n{lines}")
    refused(DatasetError, r"whose order its class counts do not tell \(1 of 0, .*give label_order, "
            "one of mafw, mafw-mae-dfer, mafw-dfer-clip", "mafw", tmp_path, fold=1)
    refused(DatasetError, "unknown label order 'dfew': choose mafw, mafw-mae-dfer", "mafw",
            tmp_path, fold=1, label_order="dfew")


@pytest.mark.parametrize("name", ["Clip/jpg_256/00001", r"Clip\jpg_256\00001", "jpg_256/00001",
                                  "00001"])
def test_a_name_may_repeat_the_folder_of_media(tmp_path, name):
    write_image(tmp_path / "Clip/jpg_256/00001/1.jpg")
    for split, other in (("train", name), ("test", name.replace("00001", "2"))):
        (tmp_path / f"{split}_set_1.csv").write_text(f"video_name,label\n{other},0\n")
    paths = index("dfew", tmp_path, fold=1).path.tolist()
    assert paths == ["Clip/jpg_256/2", "Clip/jpg_256/00001"]      # also where one is missing
    notes = examine("dfew", tmp_path, fold=1)[0].query("kind == 'note'")
    assert len(notes) == (name != "00001")
    if len(notes):
        assert notes.problem.iloc[0].endswith("is read without it (2 lines)")


def test_a_label_may_be_written_as_a_float(tmp_path):
    write_image(tmp_path / "images/a.jpg")
    (tmp_path / "train.csv").write_text("path,label\na.jpg,1.0\nb.jpg,6.00\nc.jpg,3\n")
    labels = dict(index("affectnet", tmp_path)[["path", "label"]].to_numpy())
    assert labels == {
        "images/a.jpg": "happiness", "images/b.jpg": "anger", "images/c.jpg": "surprise"}
    notes = examine("affectnet", tmp_path)[0].query("kind == 'note'")
    assert notes.problem.tolist() == ["a label written as a float, such as 1.0, is read as an "
                                      "integer (2 lines)"]


@pytest.mark.parametrize("text", ["path   label\na.jpg  1\n", "\tpath\tlabel\n0\ta.jpg\t1\n",
                                  " a.jpg 1  \n"])
def test_columns_may_stand_apart_or_behind_an_index(tmp_path, text):
    put(tmp_path / "train.csv", text)
    assert found("affectnet", tmp_path) == [("a.jpg", "happiness", "train")]


def test_the_first_release_of_affectnet_is_read_by_its_own_lists(tmp_path):
    for name in ("training.csv", "validation.csv"):
        put(tmp_path / name, f"{HEAD}\n1/{name[0]}.jpg,0,1\n")
    put(tmp_path / "affectnet_test.txt", "1/t.jpg 1\n")      # would repeat a training photo
    assert sorted(split for *_, split in found("affectnet", tmp_path)) == ["test", "train"]


# --- the other datasets, and the text of lists

def test_caer_in_its_folders(tmp_path):
    for part, emotion in (("train", "Happy"), ("validation", "Anger"), ("test", "Sad")):
        put(tmp_path / part / emotion / "0001.avi", "x")
    assert [(label, split) for _, label, split in found("caer", tmp_path)] == [
        ("sadness", "test"), ("happiness", "train"), ("anger", "val")]


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_in_other_encodings_are_read_right(tmp_path, code, end):
    names = ["中文 名字.jpg", "u\u0308ber.jpg", "sub dir/b c.jpg"]
    for name in names:
        write_image(tmp_path / "images" / name)
    lines = ["name,label", "中文 名字.png,1", "\u00fcber.jpg,fear", '"sub dir\\b c.jpg",6', ""]
    (tmp_path / "train.csv").write_bytes(end.join(lines).encode(code))
    labels = index("affectnet", tmp_path).set_index("path").label.to_dict()
    assert labels == {f"images/{n}": e
                      for n, e in zip(names, ("happiness", "fear", "anger"), strict=True)}


# --- every layout in miniature

AROUSED = f"{HEAD},valence,arousal"
PHOTO, CROPS = "680/{i}_aligned/face_det_000000", "2_ClipsforFaceCrop/Action/{E}/{i:04d}"
BASIC = "basic/Image/aligned/{split}_{i:05d}_aligned.jpg"
OFFICIAL, TRAIN_TEST = "EmoLabel_DataSplit/{split}(single-labeled)/set_1.csv", ("train", "test")
# Dataset, classes, names of the splits, samples (# is a frame), then list, header and line. Fields:
# i is the number, n and n1 the label from 0 and from 1, e and E the emotion.
LAYOUTS = {
    "AffectNet original": ("affectnet", 7, ("training", "validation"), "Manually_Annotated_Images/"
                           "{i}.bmp", "{split}.csv", AROUSED, "{i}.jpg,0,{n},0.1,0.2"),
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
        more = ["1/none.jpg,0,8,0,0"] if head == AROUSED else []
        put(root / path, "\n".join(lines + more) + "\n")
    return out


def check(name: str, root: Path, table, fold: int | None, order: str | None, classes: int) -> None:
    """The audit finds nothing, and every sample loads."""
    problems = examine(name, root, fold=fold, label_order=order)[0].query("kind != 'count'")
    assert problems.empty, problems.values.tolist()
    task = REGISTRY[name].task
    samples = Samples(table, root, task, 32, 4, 1, num_classes=classes, test_segments=1)
    batch = samples.batch([Key(task, row, 0) for row in range(len(table))])
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


def test_a_report_begins_with_the_summary_and_shows_twenty_examples_a_kind(tmp_path):
    write_affectnet(tmp_path, 1, 1)
    lines = "".join(f"gone/{i}.jpg,1\n" for i in range(588)) + "fear/000.jpg,4.0\n"
    shutil.rmtree(tmp_path / "train")
    shutil.move(tmp_path / "val", tmp_path / "images")
    (tmp_path / "train.csv").write_text(f"path,label\n{lines}")
    problems, counts = examine("affectnet", tmp_path)
    text = report(problems, counts).splitlines()
    assert text[0].split() == ["split", "label", "found"] and len(text) < 50
    assert f"{'588':>8}  missing" in text[:8]
    assert sum(line.startswith("images/gone/") for line in text) == 20
    assert "... and 568 more: --csv FILE writes all" in text
    clean = report(problems[:0], counts).splitlines()
    assert clean[-1] == "no problems"
