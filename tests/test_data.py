"""From files to batches: every picture mode, every layout in miniature, and every way in which files go wrong."""
from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NAMES, smooth, write_affectnet, write_dfew, write_image, write_video, write_voxceleb2
from PIL import Image

from s4d.data import (DatasetError, LabelError, MediaError, audit, count_frames, fingerprint, frame_size, index, packed, read_clip,
                      split_validation)
from s4d.data import datasets as registry
from s4d.data.batches import Clips, Joint, Key, collate, draw_order, epoch_plan, loader, to_model
from s4d.data.media import natural
from s4d.data.transforms import denormalise, eval_views, normalise, pretrain_transform, test_indices, train_indices, train_transform


def damage(path: Path, start: float, stop: float) -> Path:
    """Overwrites a part of a file, given as shares of its length, with noise."""
    content = bytearray(path.read_bytes())
    a, z = int(start * len(content)), int(stop * len(content))
    content[a:z] = np.random.default_rng(0).bytes(z - a)
    path.write_bytes(bytes(content))
    return path


def cut_off(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


# --- media

def test_a_video_has_the_frames_that_were_written(tmp_path):
    path = write_video(tmp_path / "v.mp4", 3, frames=9, width=96, height=64)
    clip = read_clip(path)
    assert clip.shape == (9, 3, 64, 96) and clip.dtype == torch.uint8 and count_frames(path) == 9 and frame_size(path) == (96, 64)
    for t in range(9):
        assert np.abs(clip[t].permute(1, 2, 0).numpy().astype(int) - smooth(3, 96, 64, t / 4)).mean() < 4
    assert torch.equal(read_clip(path, [7, 0, 7]), clip[[7, 0, 7]])
    assert read_clip(path, [2], size=32).shape == (1, 3, 32, 32)


def test_a_frame_folder_is_read_in_natural_order_with_mixed_extensions(tmp_path):
    names = ["f1.jpg", "f2.PNG", "f9.jpeg", "f10.bmp", "f11.jpg"]
    for i, name in enumerate(names):
        Image.new("RGB", (32, 32), (40 * i, 0, 0)).save(tmp_path / name)
    (tmp_path / ".f0.jpg").write_bytes(b"hidden")
    (tmp_path / "notes.txt").write_text("no frame")
    clip = read_clip(tmp_path)
    assert count_frames(tmp_path) == 5 and (clip[:, 0].float().mean((1, 2)) / 40).round().tolist() == [0, 1, 2, 3, 4]
    assert sorted(["b10", "b9", "a", "b01", "B2"], key=natural) == ["B2", "a", "b01", "b9", "b10"]
    Image.new("RGB", (48, 32)).save(tmp_path / "f12.png")
    with pytest.raises(MediaError, match=r"frame f12.png is 48 x 32 px, f1.jpg is 32 x 32 px: give a size"):
        read_clip(tmp_path)
    assert read_clip(tmp_path, size=32).shape == (6, 3, 32, 32)


def test_every_image_mode_becomes_rgb(tmp_path):
    rgb = smooth(1, 40, 30)
    picture, path = Image.fromarray(rgb), tmp_path / "p.png"

    def read(image: Image.Image, name: str = "p.png", **options) -> np.ndarray:
        image.save(tmp_path / name, **options)
        return read_clip(tmp_path / name)[0].permute(1, 2, 0).numpy().astype(int)

    assert np.array_equal(read(picture), rgb)
    grey = np.array(picture.convert("L"))
    assert np.array_equal(read(picture.convert("L")), np.stack([grey] * 3, -1))
    assert np.abs(read(Image.fromarray(grey.astype(np.uint16) * 257)) - grey[..., None]).max() <= 1          # 16 bit
    assert np.abs(read(Image.fromarray(grey.astype(np.float32)), "p.tiff") - grey[..., None]).max() <= 1
    black = read(Image.fromarray(np.dstack([rgb, np.zeros_like(grey)]), "RGBA"))
    assert black.max() == 0
    half = read(Image.fromarray(np.dstack([rgb, np.full_like(grey, 128)]), "RGBA"))
    assert np.abs(half - rgb / 2).max() < 3
    assert np.abs(read(picture.convert("P", palette=Image.Palette.ADAPTIVE)) - rgb).mean() < 10
    assert read(picture.convert("1")).shape == (30, 40, 3)
    for size in (None, 16):
        picture.convert("CMYK").save(tmp_path / "c.jpg", quality=95)
        found = read_clip(tmp_path / "c.jpg", size=size)
        wanted = picture if size is None else picture.resize((16, 16), Image.Resampling.BICUBIC)
        assert np.abs(found[0].permute(1, 2, 0).numpy().astype(int) - np.array(wanted)).mean() < 6, size
    upright = np.array(picture.rotate(-90, expand=True))
    exif = Image.Exif()
    exif[0x0112] = 6                                      # to be turned by 90 degrees for display
    assert np.array_equal(read(picture, exif=exif), upright)
    write_image(path, 1, 40, 30)
    assert read_clip(path, size=16).shape == (1, 3, 16, 16) and count_frames(path) == 1 and read_clip(path, [0, 0]).shape[0] == 2


def refused(path: Path, said: str, **options) -> None:
    with pytest.raises(MediaError, match=said) as caught:
        read_clip(path, **options)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))       # it crosses process borders
    assert (copy.path, copy.cause) == (caught.value.path, caught.value.cause)


def test_what_is_missing_empty_or_no_picture_is_refused(tmp_path):
    refused(tmp_path / "no.jpg", "there is no such file")
    (tmp_path / "frames").mkdir()
    refused(tmp_path / "frames", "holds no frames")
    for name in ("e.jpg", "e.mp4"):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "the file is empty")
    (tmp_path / "t.txt").write_text("text")
    refused(tmp_path / "t.txt", "unknown extension '.txt'")
    (tmp_path / "t.jpg").write_text("text, not a picture")
    refused(tmp_path / "t.jpg", "not an image")
    (tmp_path / "t.mp4").write_text("text, not a video" * 100)
    refused(tmp_path / "t.mp4", "it is no video")
    refused(write_image(tmp_path / "thin.png", width=200, height=20), "200 x 20 px, but a face crop")
    refused(write_image(tmp_path / "small.png", width=8, height=8), "at least 16 px")
    path = write_image(tmp_path / "p.png")
    refused(path, "frame 1 was asked for, but it has 1", indices=[1])
    refused(write_video(tmp_path / "v.mp4"), r"frame 8 was asked for, but it has 8 \(0 to 7\)", indices=[0, 8])
    refused(path, "no frame was asked for", indices=[])


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_truncated_and_damaged_images_are_refused(tmp_path, extension, size):
    for harm in (lambda p: cut_off(p, 0.6), lambda p: damage(p, 0.5, 0.6), lambda p: damage(p, 0.0, 0.1)):
        refused(harm(write_image(tmp_path / f"p.{extension}", 1, 160, 160)), "damaged", size=size)


@pytest.mark.parametrize("gop", [1, 4, 12])
def test_truncated_and_damaged_videos_are_refused(tmp_path, gop):
    for harm in (lambda p: cut_off(p, 0.6), lambda p: damage(p, 0.5, 0.52), lambda p: damage(p, 0.8, 0.85), lambda p: damage(p, 0.0, 0.1)):
        path = harm(write_video(tmp_path / "v.mp4", 1, 16, 96, 96, gop=gop))
        refused(path, "damaged")
        refused(path, "damaged", indices=[0], size=32)
    path = write_video(tmp_path / "v.mp4", 1, 16, 96, 96, gop=gop)
    assert len(read_clip(path)) == 16                     # the good file in the damaged one's place is read


def test_sound_without_a_picture_is_refused(tmp_path):
    import av
    with av.open(str(tmp_path / "s.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    refused(tmp_path / "s.mp4", "sound but no video")


# --- layouts

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
    assert table.split.value_counts().to_dict() == {"train": 14, "test": 8, "validation": 8}
    assert set(index("affectnet", tmp_path, classes=7).label) == set(NAMES) and "contempt" in set(table.label)


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
    (tmp_path / "training.csv").write_text("subDirectory_filePath,emotion\n1/a.jpg,3\n")
    with pytest.raises(DatasetError, match="training.csv has no column 'expression'"):
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
    for text, error, said in (("video_name,label\n1,8\n", LabelError, "unknown label 8 in .*set_1.csv: expected 1..7"),
                              ("video_name,label\n1,happy\n", LabelError, "unknown label 'happy' in .*set_1.csv"),
                              ("video_name,label\n", DatasetError, "set_1.csv holds no clips"),
                              ("", DatasetError, "set_1.csv cannot be read"),
                              ("clip,label\n1,1\n", DatasetError, "no column 'video_name'")):
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
    with pytest.raises(DatasetError, match="unknown dataset 'afew': choose one of affectnet, dfew, mafw, voxceleb2"):
        index("afew", tmp_path)
    write_image(tmp_path / "train/bored/1.jpg")
    with pytest.raises(LabelError, match="unknown label 'bored' in .*train: expected one of neutral"):
        index("affectnet", tmp_path)
    with pytest.raises(DatasetError, match="affectnet has no fold 1: choose none, it has no folds"):
        index("affectnet", tmp_path, fold=1)


def people(n: int, each: int, label: str = "fear") -> pd.DataFrame:
    rows = [(f"{s}/{i}.jpg", label, f"p{s}", "train") for s in range(n) for i in range(each)] + [("t.jpg", label, "q", "test")]
    return registry.table(rows, None, 1)


def test_validation_takes_whole_subjects():
    table = people(20, 5)
    split = split_validation(table, 0.2, seed=0)
    held = set(split[split.split == "validation"].subject)
    assert len(held) == 4 and not held & set(split[split.split == "train"].subject) and (split.split == "test").sum() == 1
    assert split.equals(split_validation(table, 0.2, seed=0)) and not split.equals(split_validation(table, 0.2, seed=1))
    assert (table.split == "validation").sum() == 0
    unknown = table.assign(subject=None, label=["fear", "anger"] * 50 + ["fear"])
    counts = split_validation(unknown, 0.1)[lambda t: t.split == "validation"].label.value_counts().to_dict()
    assert counts == {"fear": 5, "anger": 5}
    with pytest.raises(DatasetError, match="validation share 1.5 is outside"):
        split_validation(table, 1.5)
    with pytest.raises(DatasetError, match="no validation part can be taken from 3 training samples of 1 subject"):
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


# --- cache and batches

@pytest.fixture(scope="module")
def clips_root(tmp_path_factory):
    """Three clips of 12 frames, one of them damaged in its middle."""
    root = tmp_path_factory.mktemp("clips")
    for i in range(3):
        write_video(root / f"{i}.mp4", i, 12, gop=4)
    damage(root / "1.mp4", 0.5, 0.6)
    return root


def table_of(root: Path, pattern: str = "*.mp4", label: str | None = "fear") -> pd.DataFrame:
    return registry.table([(p.name, label, None, "train") for p in sorted(root.glob(pattern))], None, None)


def test_the_cache_holds_the_files_pixels_and_names_broken_ones(clips_root, tmp_path):
    table = table_of(clips_root)
    cache = packed(table, clips_root, 32, tmp_path)
    assert list(cache.bad) == ["1.mp4"] and "damaged" in cache.bad["1.mp4"] and [cache.length(i) for i in range(3)] == [12, 0, 12]
    assert torch.equal(cache.clip(2, [3, 0, 3]), read_clip(clips_root / "2.mp4", [3, 0, 3], size=32))
    with pytest.raises(MediaError, match="1.mp4 cannot be read: .*damaged"):
        cache.clip(1)
    with pytest.raises(MediaError, match="frames 12 to 12 were asked for, but it has 12"):
        cache.clip(0, [12])
    assert len(pickle.dumps(cache)) < 10_000
    folder = cache.folder
    stamp = (folder / "frames.npy").stat().st_mtime_ns
    again = packed(table.assign(label="anger"), clips_root, 32, tmp_path)
    assert again.folder == folder and (folder / "frames.npy").stat().st_mtime_ns == stamp
    assert packed(table, clips_root, 16, tmp_path).folder != folder != packed(table[:2], clips_root, 32, tmp_path).folder
    assert folder.stat().st_mode & 0o055 == 0o055         # a shared dataset's cache serves its other users too


def test_a_cache_on_a_full_disk_is_a_sentence_and_leaves_nothing(clips_root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("s4d.data.cache.os.rename", full)
    with pytest.raises(DatasetError, match="cannot be written .*No space left.*: free disk space, or train with cache=False"):
        packed(table_of(clips_root), clips_root, 32, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("segments", [0, 2])
def test_clips_are_the_same_with_and_without_a_cache(clips_root, segments, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = table_of(clips_root)
    options = dict(size=32, frames=4, stride=2, segments=segments, transform=pretrain_transform(32), repeats=2)
    plain, cached = (Clips(table, clips_root, "video", cache=c, **options) for c in (False, True))
    for key in (Key("video", 0, 5), Key("video", 2, 6, view=1 if segments else 0)):
        assert torch.equal(plain[key]["clip"], cached[key]["clip"]) and plain[key]["clip"].shape == (2, 4, 3, 32, 32)
    assert not torch.equal(plain[Key("video", 0, 5)]["clip"][0], plain[Key("video", 0, 5)]["clip"][1])
    bad = plain[Key("video", 1, 0)], cached[Key("video", 1, 0)]
    assert bad[0] == bad[1] and bad[0]["bad"][0] == "1.mp4" and "damaged" in bad[0]["bad"][1]


def test_a_samples_augmentation_depends_on_its_key_alone(clips_root):
    data = Clips(table_of(clips_root), clips_root, "video", 32, 4, 2, transform=train_transform(32))
    torch.manual_seed(1)
    first = data[Key("video", 0, 9)]["clip"]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(data[Key("video", 0, 9)]["clip"], first) and not torch.equal(data[Key("video", 0, 10)]["clip"], first)
    assert torch.equal(torch.get_rng_state(), state)


def test_collate_leaves_bad_samples_out_and_names_them(clips_root):
    data = Clips(table_of(clips_root), clips_root, "video", 32, 4, 2)
    batch = collate([Joint({"video": data})[Key("video", row, 0)] for row in range(3)])
    assert batch["clip"].shape == (2, 4, 3, 32, 32) and batch["row"].tolist() == [0, 2] and batch["label"].tolist() == [4, 4]
    assert [path for path, _ in batch["bad"]] == ["1.mp4"] and batch["bad_rows"] == [1] and batch["task"] == "video"
    assert to_model(batch["clip"], "video").shape == (2, 3, 4, 32, 32) and to_model(batch["clip"][:, :1], "image").shape == (2, 3, 32, 32)
    assert "clip" not in collate([Joint({"video": data})[Key("video", 1, 0)]])


def test_labels_outside_the_vocabulary_and_unlabelled_samples(tmp_path):
    write_image(tmp_path / "a.jpg")
    contempt = table_of(tmp_path, "*.jpg", "contempt")
    with pytest.raises(ValueError):
        Clips(contempt, tmp_path, "image", 32, 1, 1, classes=7)
    assert Clips(contempt, tmp_path, "image", 32, 1, 1, classes=8).labels == [7]
    assert Clips(contempt, tmp_path, "image", 32, 1, 1, classes=None).labels == [-1]
    assert Clips(table_of(tmp_path, "*.jpg", None), tmp_path, "image", 32, 1, 1).labels == [-1]


class Labels:
    def __init__(self, labels):
        self.labels = labels


def plan(**changes):
    given = dict(parts={"image": Labels([0] * 18 + [1] * 2), "video": Labels([0] * 11)}, batch={"image": 4, "video": 3},
                 share={"image": 1.0, "video": 1.0}, balanced={"image": False, "video": False}, seed=0, epoch=0)
    return epoch_plan(**{**given, **changes})


def test_the_plan_depends_on_seed_and_epoch_alone():
    first = plan()
    assert first == plan() and first != plan(seed=1) and first != plan(epoch=1)
    assert all(len({k.task for k in batch}) == 1 for batch in first)
    assert [sum(b[0].task == t for b in first) for t in ("image", "video")] == [5, 3]
    rows = [k.row for b in first for k in b if k.task == "image"]
    assert sorted(rows) == list(range(20)) and len({k.seed for b in first for k in b}) == sum(map(len, first))
    assert sum(b[0].task == "image" for b in plan(share={"image": 0.4, "video": 1.0})) == 2
    alone = plan(parts={"video": Labels([0] * 11)})       # a method with one task draws what the joint one draws
    assert sorted(map(str, alone)) == sorted(str(b) for b in first if b[0].task == "video")
    assert len(plan(parts={"video": Labels([0] * 2)})) == 1


def test_balanced_order_shows_classes_equally_often():
    labels = [0] * 90 + [1] * 10
    rows = draw_order(labels, 0, 0, 1.0, True)
    assert len(rows) == 100 and abs(np.bincount(np.asarray(labels)[rows])[1] - 50) < 15
    assert sorted(draw_order(labels, 0, 0, 1.0, False)) == list(range(100)) and len(draw_order(labels, 0, 0, 0.25, True)) == 25


@pytest.mark.slow
def test_loading_processes_change_nothing(clips_root):
    data = Joint({"video": Clips(table_of(clips_root), clips_root, "video", 32, 4, 1, transform=pretrain_transform(32))})
    batches = [[Key("video", 0, 1), Key("video", 1, 2)], [Key("video", 2, 3)]]
    state = torch.get_rng_state()
    alone, helped = (list(loader(data, batches, workers)) for workers in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)      # a resumed run's draws are not moved by its loader
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a["clip"], b["clip"]) and a["bad"] == b["bad"]


# --- transforms

@pytest.mark.parametrize("transform", [pretrain_transform(24), train_transform(24), train_transform(24, randaugment="m10-n6", erasing=1.0)])
def test_one_draw_serves_all_frames(transform):
    frame = torch.from_numpy(smooth(2, 32, 32)).permute(2, 0, 1)
    for seed in range(12):
        torch.manual_seed(seed)
        out = transform(frame.expand(5, -1, -1, -1).clone())
        assert out.shape == (5, 3, 24, 24) and out.dtype == torch.uint8 and all(torch.equal(out[0], f) for f in out), seed


def test_randaugment_and_flips_are_what_their_texts_say():
    with pytest.raises(ValueError, match="unknown RandAugment 'rand-m7': expected"):
        train_transform(24, randaugment="rand-m7")
    with pytest.raises(ValueError, match="unknown RandAugment 'm11-n2'"):
        train_transform(24, randaugment="m11-n2")
    x = torch.from_numpy(smooth(2, 24, 24)).permute(2, 0, 1)[None]
    flip, still = pretrain_transform(24, (1.0, 1.0)), pretrain_transform(24, (1.0, 1.0), flip=False)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        out = flip(x)
        seen |= {"as it was"} if torch.equal(out, x) else {"mirrored"} if torch.equal(out, x.flip(-1)) else {"cropped"}
        assert not torch.equal(still(x), x.flip(-1))
    assert {"as it was", "mirrored"} <= seen


def test_indices_of_training_stay_inside_and_vary():
    draw = torch.Generator().manual_seed(0)
    starts = set()
    for _ in range(60):
        found = train_indices(20, 4, 3, draw)
        assert found == list(range(found[0], found[0] + 10, 3)) and found[-1] < 20
        starts.add(found[0])
    assert starts == set(range(11))
    assert train_indices(5, 4, 2, draw) == [0, 2, 4, 4] and train_indices(1, 3, 4, draw) == [0, 0, 0]


def test_indices_of_tests_span_the_clip():
    assert test_indices(20, 4, 3, 2) == [[0, 3, 6, 9], [10, 13, 16, 19]] and test_indices(20, 4, 3, 1) == [[5, 8, 11, 14]]
    assert test_indices(20, 4, 3, 3)[1] == [5, 8, 11, 14] and test_indices(2, 4, 1, 2) == [[0, 1, 1, 1]] * 2


def test_views_across_the_picture():
    x = torch.arange(60, dtype=torch.uint8).view(1, 1, 1, 60).expand(1, 3, 20, 60)
    left, middle, right = eval_views(x, 20, 3)
    assert (left[0, 0, 0, 0], middle[0, 0, 0, 0], right[0, 0, 0, -1]) == (0, 20, 59) and left.shape == (1, 3, 20, 20)
    assert torch.equal(eval_views(x, 20, 1)[0], middle) and torch.equal(eval_views(x.transpose(-1, -2), 20, 3)[2], right.transpose(-1, -2))
    assert len(eval_views(x[..., :20], 20, 3)) == 1 and eval_views(x, 10, 2)[1].shape == (1, 3, 10, 10)
    assert eval_views(torch.zeros(2, 3, 4, 20, 60, dtype=torch.uint8), 20, 2)[0].shape == (2, 3, 4, 20, 20)


def test_normalisation_has_an_inverse():
    for shape in ((2, 3, 8, 8), (2, 3, 4, 8, 8)):
        x = torch.randint(0, 256, shape, dtype=torch.uint8)
        assert torch.equal(denormalise(normalise(x)), x)
    white = normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    assert torch.allclose(white, torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]))


# --- audit

def test_audit_of_clean_photos_and_of_planted_faults(tmp_path):
    write_affectnet(tmp_path, 2, 1)
    (tmp_path / "subjects.csv").write_text("path,subject\ntrain/fear/000.jpg,a\ntrain/fear/001.jpg,b\n")
    assert audit("affectnet", tmp_path).empty
    (tmp_path / "subjects.csv").write_text("path,subject\ntrain/fear/000.jpg,a\nval/fear/000.jpg,a\ntrain/none.jpg,b\n")
    cut_off(tmp_path / "train/anger/000.jpg", 0.5)
    write_image(tmp_path / "train/anger/001.jpg", width=96, height=96)
    (tmp_path / "val/anger/000.jpg").write_bytes(b"")
    found = audit("affectnet", tmp_path).set_index("path").problem
    assert "damaged" in found["train/anger/000.jpg"] and "empty" in found["val/anger/000.jpg"]
    assert found["train/anger/001.jpg"] == "it is 96 x 96 px, while most are 64 x 64 px"
    assert "its subject a is in test and train" in found.get("val/fear/000.jpg", found.get("train/fear/000.jpg"))
    assert found["train/none.jpg"] == "it is in subjects.csv but not in the dataset" and len(found) == 5


def test_audit_of_planted_faults_in_clips(tmp_path):
    write_dfew(tmp_path, 7, 7, frames=5)
    lists = {s: tmp_path / "EmoLabel_DataSplit" / f"{s}(single-labeled)" for s in ("train", "test")}
    assert audit("dfew", tmp_path, fold=1).empty
    with open(lists["test"] / "set_1.csv", "a") as f:
        f.write("00001,3\n99,1\n")
    damage(tmp_path / "Clip/original/00002.mp4", 0.5, 0.6)
    write_video(tmp_path / "Clip/original/00003.mp4", 1, frames=2)
    write_video(tmp_path / "Clip/original/00300.mp4", 1, frames=5)
    found = audit("dfew", tmp_path, fold=1)
    said = {(Path(p).name, t.split(":")[0].split(",")[0]) for p, t in zip(found.path, found.problem)}
    assert said == {("00001.mp4", "it is listed 2 times of fold 1"), ("00002.mp4", "it cannot be read"), ("00099.mp4", "it cannot be read"),
                    ("00003.mp4", "it has 2 frame(s)")}
    everything = set(audit("dfew", tmp_path).problem.str.split(":").str[0])
    assert "it is on disk but in no list" in everything and any("has no lists of fold 5" in p for p in everything)
    for folder in lists.values():
        shutil.copy(folder / "set_1.csv", folder / "set_2.csv")
    everything = set(audit("dfew", tmp_path).problem)
    assert "it is in no test fold: expected exactly one" in everything and "it is in test folds 1, 2: expected exactly one" in everything


def test_mafw_lists_and_their_errors(tmp_path):
    root = tmp_path / "mafw"
    with pytest.raises(DatasetError, match="there is no folder"):
        index("mafw", root, fold=1)
    (root / "clips").mkdir(parents=True)
    (root / "clips" / "00001.mp4").write_bytes(b"x")
    with pytest.raises(DatasetError, match="has no list single/no_caption/set_1/train.txt"):
        index("mafw", root, fold=1)
    lists = root / "single" / "no_caption" / "set_1"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("00001.mp4 anger\n00002.mp4 helplessness\n")
    (lists / "test.txt").write_text("")
    with pytest.raises(DatasetError, match="test.txt holds no clips"):
        index("mafw", root, fold=1)
    (lists / "test.txt").write_text("00003.mp4\n")
    with pytest.raises(DatasetError, match="has the line '00003.mp4'"):
        index("mafw", root, fold=1)
    (lists / "test.txt").write_text("00003.mp4 rage\n")
    with pytest.raises(LabelError, match="unknown label 'rage'"):
        index("mafw", root, fold=1)
    (lists / "test.txt").write_text("00003.mp4 disappointment\n")
    found = index("mafw", root, fold=1)
    assert found[["path", "label", "split"]].values.tolist() == [
        ["clips/00003.mp4", "disappointment", "test"], ["clips/00001.mp4", "anger", "train"], ["clips/00002.mp4", "helplessness", "train"]]
