"""Folders of your own: names, splits and subjects; planted mistakes; one call to scores."""
from __future__ import annotations

import pandas as pd
import pytest
from conftest import cut_off, write_image, write_video

from s4d.__main__ import main
from s4d.data import DatasetError, LabelError, index
from s4d.study.own import configure, study


def photos(root, *folders: str, count: int = 4, end: str = "jpg"):
    for k, folder in enumerate(folders):
        for i in range(count):
            path, seed = root / folder / f"{i:02d}.{end}", 100 * k + i
            if end == "jpg":
                write_image(path, seed, 40, 40)
            else:
                write_video(path, seed, 4, 40, 40)
    return root


def clips(root, *folders: str, count: int = 3):
    return photos(root, *folders, count=count, end="mp4")


def in_test_split(root) -> set[str]:
    return set(index("photos", root).query("split == 'test'")["path"])


def test_folders_are_matched_to_emotions_by_any_spelling(tmp_path):
    names = {"Joy": "happiness", "happy": "happiness", "1_sad": "sadness", "ANGRY": "anger",
             "frightened 2": "fear", "neutral": "neutral"}
    table = index("photos", photos(tmp_path, *names, ".cache/anger"))
    assert dict(zip(table["path"].str.split("/").str[0], table["label"], strict=True)) == names
    assert len(table) == 24 and table["subject"].isna().all()


@pytest.mark.parametrize("layout", ["{split}/{name}", "{name}/{split}"])
def test_split_folders_lie_above_or_below(tmp_path, layout):
    for split in ("Train", "val", "test"):
        folders = [layout.format(split=split, name=n) for n in ("happy", "sad")]
        photos(tmp_path / "faces", *folders, count=2)
    with pytest.raises(LabelError, match="unknown label 'faces' in the class folder"):
        index("photos", tmp_path)
    counts = index("photos", tmp_path / "faces").groupby(["split", "label"]).size().to_dict()
    assert counts == {(s, e): 2 for s in ("train", "val", "test") for e in ("happiness", "sadness")}
    photos(tmp_path / "no_test", "train/happy", "train/sad", "val/happy", "val/sad")
    assert set(index("photos", tmp_path / "no_test")["split"]) == {"train", "test"}


def test_without_splits_a_hash_decides_for_each_class_and_for_good(tmp_path):
    names = in_test_split(photos(tmp_path, "happy", "sad", "fear", count=10))
    of = {c: frozenset(n[-6:] for n in names if n.startswith(c)) for c in ("happy", "sad", "fear")}
    assert {len(n) for n in of.values()} == {2} and names == in_test_split(tmp_path)
    assert len(set(of.values())) > 1, "not the first files of each folder"


@pytest.mark.parametrize("how", ["separator", "folders", "list"])
def test_known_subjects_stay_on_one_side(tmp_path, how):
    rows = ["path,subject"]
    for subject in ("anna", "bo", "cem", "di", "eve"):
        for name in (f"{e}/{subject}{'/' if how == 'folders' else '_'}{i}.jpg"
                     for e in ("happy", "sad") for i in range(3)):
            write_image(tmp_path / name, 0, 40, 40)
            rows.append(f"{name},{subject}")
    if how == "list":
        (tmp_path / "subjects.csv").write_text("\n".join(rows))
    table = index("photos", tmp_path, subject_separator="_" if how == "separator" else None)
    assert set(table["subject"]) == {"anna", "bo", "cem", "di", "eve"}
    assert (table.groupby("subject")["split"].nunique() == 1).all()
    assert table["split"].value_counts().to_dict() == {"train": 24, "test": 6}


def test_clips_are_files_or_folders_of_frames(tmp_path):
    photos(clips(tmp_path, "happy", "sad"), "happy/clip7", "sad/clip9")
    table = index("clips", tmp_path)
    assert {"happy/clip7", "sad/clip9", "sad/02.mp4"} <= set(table["path"]) and len(table) == 8
    photos(tmp_path, "test/sad/clip9")
    with pytest.raises(DatasetError, match="happy/00.mp4 in .* lies in no split folder and others"):
        index("clips", tmp_path)


@pytest.mark.parametrize("folders, text", [
    (("happy", "joy"), "holds one class, happiness"),
    (("happy", "cats"), "unknown label 'cats' in .*/cats/00.jpg: expected one of neutral, happine"),
    ((".",), "00.jpg in .* lies in no class folder: .* happy/00.jpg"),
    (("test/happy", "test/sad"), "split folders for test alone: add train"),
    (("train/happy", "train/sad"), "split folders for train alone: add test"),
    (("train/happy/test", "train/sad"), "lies in folders test and train: leave one")])
def test_planted_mistakes_end_in_one_sentence(tmp_path, folders, text):
    with pytest.raises((DatasetError, LabelError), match=text) as raised:
        index("photos", photos(tmp_path, *folders))
    assert "\n" not in str(raised.value)


def test_mixed_folders_and_one_without_samples_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds 3 clips beside 8 photos, .* happy/00.mp4: give"):
        index("photos", clips(photos(tmp_path / "a", "happy", "sad"), "happy"))
    (photos(tmp_path / "b", "happy", "sad") / "angry").mkdir()
    with pytest.raises(DatasetError, match="class folder angry in .* holds no photos: fill"):
        index("photos", tmp_path / "b")
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="holds no samples: expected a folder for each emotion"):
        index("clips", tmp_path / "none")


def test_the_vocabulary_is_the_smallest_that_has_the_classes(tmp_path):
    seven, eight = photos(tmp_path / "a", "happy", "sad"), photos(tmp_path / "b", "joy", "contempt")
    eleven, given = clips(tmp_path / "c", "happy", "helpless"), dict(profile="smoke", steps=5)
    assert configure(eight, **given).image.num_classes == 8
    moving, both = configure(None, eleven, **given), configure(seven, eleven, **given)
    assert moving.video.num_classes == 11 and moving.tasks == ("video",) and moving.image is None
    assert both.image.num_classes == 7 and both.tasks == ("image", "video") and both.num_experts
    with pytest.raises(DatasetError, match="no folder was given"):
        configure(profile="smoke")


def test_an_unreadable_file_stops_before_training(tmp_path):
    cut_off(photos(tmp_path / "own", "happy", "sad") / "sad/02.jpg", 0.3)
    with pytest.raises(DatasetError, match="1 of the photos in .* cannot be used, the first is "
                                           "sad/02.jpg: it cannot be read: "):
        study(tmp_path / "own", profile="smoke", runs=str(tmp_path / "runs"), steps=1)
    assert not list(tmp_path.glob("runs/*"))


def test_the_command_trains_both_scores_draws_and_says_what_the_audit_warns_of(tmp_path, capsys):
    root = photos(tmp_path / "photos", "happy", "sad", count=6)
    twin = next(p for p in in_test_split(root) if p.startswith("happy"))
    (root / "happy/twin.jpg").write_bytes((root / twin).read_bytes())
    moving = clips(tmp_path / "clips", "happy", "sad", count=4)
    command = ["own", "--photos", str(root), "--clips", str(moving), "--profile", "smoke",
               "--steps", "1", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    for _ in range(2):                                       # found again, not trained again
        assert main(command) == 1 and len(list((tmp_path / "runs").iterdir())) == 1
    out, err = capsys.readouterr()
    assert "image, test" in out and "video, test" in out and "equal bytes under 2 names" in err
    files = list((tmp_path / "out").iterdir())
    assert {p.name for p in files} == {"scores.csv", "predictions.csv", *(
        f"{name}.{end}" for name in ("photos", "clips", "confusion", "curves")
        for end in ("png", "pdf"))}
    assert all(p.stat().st_size > 100 for p in files)
    predictions = pd.read_csv(tmp_path / "out/predictions.csv").query("task == 'image'")
    assert set(predictions["path"]) == in_test_split(root)
    scores = pd.read_csv(tmp_path / "out/scores.csv").set_index(["task", "metric"])
    war = scores.loc["image", "WAR"]
    right = (predictions["label"] == predictions["predicted"]).mean()
    assert war["value"] == pytest.approx(right) and war["low"] <= war["value"] <= war["high"]
    assert main(["own", "--photos", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
