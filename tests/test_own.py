"""Folders of one's own: what becomes of names, splits and people; planted mistakes; one call from the folder to scores and figures."""
from __future__ import annotations

import pandas as pd
import pytest
from conftest import cut_off, write_image, write_video

from s4d.__main__ import main
from s4d.config import Source, digest
from s4d.data import DatasetError, LabelError, audit, index
from s4d.emotions import canonical
from s4d.own import OwnError, configure, study


def photos(root, *folders: str, count: int = 4, name="{i:02d}.jpg"):
    for k, folder in enumerate(folders):
        for i in range(count):
            write_image(root / folder / name.format(i=i), 100 * k + i, 40, 40)
    return root


def clips(root, *folders: str, count: int = 3):
    for k, folder in enumerate(folders):
        for i in range(count):
            write_video(root / folder / f"{i:02d}.mp4", 100 * k + i, 4, 40, 40)
    return root


def split_of(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["path"], table["split"]))


def test_folders_are_matched_to_emotions_by_any_spelling(tmp_path):
    table = index("photos", photos(tmp_path, "Joy", "1_sad", "ANGRY", "frightened 2", "neutral"))
    of = {path.split("/")[0]: label for path, label in zip(table["path"], table["label"])}
    assert of == {"Joy": "happiness", "1_sad": "sadness", "ANGRY": "anger", "frightened 2": "fear", "neutral": "neutral"}
    assert len(table) == 20 and table["subject"].isna().all() and (table["frames"] == 1).all()
    assert canonical("Disappointed") == "disappointment"


def test_two_folders_may_mean_one_emotion(tmp_path):
    assert index("photos", photos(tmp_path, "happy", "joy", "sad"))["label"].value_counts().to_dict() == {"happiness": 8, "sadness": 4}


@pytest.mark.parametrize("layout", ["{split}/{name}", "{name}/{split}", "faces/{split}/{name}"])
def test_split_folders_lie_above_or_below(tmp_path, layout):
    for split in ("Train", "val", "test"):
        photos(tmp_path, *(layout.format(split=split, name=n) for n in ("happy", "sad")), count=2)
    if layout.startswith("faces"):
        with pytest.raises(LabelError, match="class folder 'faces' in .* names no emotion"):
            index("photos", tmp_path)
        tmp_path = tmp_path / "faces"
    table = index("photos", tmp_path)
    splits = ("train", "val", "test")
    assert table.groupby(["split", "label"]).size().to_dict() == {(s, l): 2 for s in splits for l in ("happiness", "sadness")}


def test_a_lone_validation_part_is_the_test_part(tmp_path):
    photos(tmp_path, "train/happy", "train/sad", "val/happy", "val/sad")
    assert index("photos", tmp_path)["split"].value_counts().to_dict() == {"train": 8, "test": 8}


def test_without_splits_a_hash_decides_for_each_class_and_for_good(tmp_path):
    table = index("photos", photos(tmp_path, "happy", "sad", "fear", count=10))
    assert table[table["split"] == "test"]["label"].value_counts().to_dict() == {"happiness": 2, "sadness": 2, "fear": 2}
    again = split_of(index("photos", tmp_path))
    assert again == split_of(table)
    numbers = {label: set(g["path"].str[-6:]) for label, g in table[table["split"] == "test"].groupby("label")}
    assert len(set(map(frozenset, numbers.values()))) > 1, "not the first files of each folder"


@pytest.mark.parametrize("how", ["sign", "folders", "list"])
def test_known_people_stay_on_one_side(tmp_path, how):
    for person in ("anna", "bo", "cem", "di", "eve"):
        for label in ("happy", "sad"):
            for i in range(3):
                name = f"{label}/{person}/{i}.jpg" if how == "folders" else f"{label}/{person}_{i}.jpg"
                write_image(tmp_path / name, i, 40, 40)
    if how == "list":
        rows = [f"{p.relative_to(tmp_path).as_posix()},{p.stem.split('_')[0]}" for p in sorted(tmp_path.rglob("*.jpg"))]
        (tmp_path / "subjects.csv").write_text("path,subject\n" + "\n".join(rows) + "\n")
    table = index("photos", tmp_path, subject_separator="_" if how == "sign" else None)
    assert set(table["subject"]) == {"anna", "bo", "cem", "di", "eve"}
    assert (table.groupby("subject")["split"].nunique() == 1).all() and table["split"].value_counts().to_dict() == {"train": 24, "test": 6}


def test_clips_are_files_or_folders_of_frames(tmp_path):
    clips(tmp_path, "happy", "sad")
    photos(tmp_path, "happy/clip7", "test/sad/clip9")
    with pytest.raises(DatasetError, match="happy/00.mp4 in .* lies in no split folder and others do"):
        index("clips", tmp_path)
    (tmp_path / "test/sad/clip9").rename(tmp_path / "sad/clip9")
    (tmp_path / "test/sad").rmdir()
    (tmp_path / "test").rmdir()
    table = index("clips", tmp_path)
    assert {"happy/clip7", "sad/clip9", "sad/02.mp4"} <= set(table["path"]) and len(table) == 8 and table["frames"].isna().all()


def test_planted_mistakes_end_in_one_sentence(tmp_path):
    def refused(kind: str, error: type, text: str, root) -> None:
        with pytest.raises(error, match=text) as raised:
            index(kind, root)
        assert "\n" not in str(raised.value)

    mixed = clips(photos(tmp_path / "a", "happy", "sad"), "happy")
    refused("photos", DatasetError, "holds 3 clips beside 8 photos, the first is happy/00.mp4: give each kind", mixed)
    refused("clips", DatasetError, "holds 8 photos beside 3 clips, the first is happy/00.jpg", mixed)
    empty = photos(tmp_path / "b", "happy", "sad")
    (empty / "anger").mkdir()
    refused("photos", DatasetError, "class folder anger in .* holds no photos: fill it or remove it", empty)
    (photos(tmp_path / "c", "train/happy", "test/happy", "train/sad", "test/sad") / "test/fear").mkdir()
    refused("photos", DatasetError, "class folder test/fear in", tmp_path / "c")
    refused("photos", DatasetError, "holds one class, happiness", photos(tmp_path / "d", "happy", "joy"))
    refused("photos", LabelError, "class folder 'cats' in .* names no emotion: .* rename it to one of neutral, happiness",
            photos(tmp_path / "e", "happy", "cats"))
    refused("photos", DatasetError, "00.jpg in .* lies in no class folder: .* happy/00.jpg", photos(tmp_path / "f", "."))
    refused("photos", DatasetError, "split folders for test alone: add train", photos(tmp_path / "g", "test/happy", "test/sad"))
    refused("photos", DatasetError, "split folders for train alone: add test", photos(tmp_path / "h", "train/happy", "train/sad"))
    refused("photos", DatasetError, "lies in the split folders test and train", photos(tmp_path / "i", "train/happy/test", "train/sad"))
    (tmp_path / "j").mkdir()
    refused("clips", DatasetError, "holds no samples: expected a folder for each emotion", tmp_path / "j")
    with pytest.raises(DatasetError, match="caer tells its subjects itself"):
        index("caer", empty, subject_separator="_")


def test_hidden_folders_and_the_cache_are_no_classes(tmp_path):
    photos(tmp_path, "happy", "sad", ".cache/anger", ".thumbs")
    assert len(index("photos", tmp_path)) == 8


def test_the_sign_enters_a_runs_name_only_when_it_is_given():
    assert digest(Source("photos", "a")) == digest(Source("photos", "b")) != digest(Source("photos", "a", subject_separator="_"))


def test_the_vocabulary_is_the_smallest_that_has_the_classes(tmp_path):
    seven = configure(photos(tmp_path / "a", "happy", "sad"), profile="smoke", steps=5)
    eight = configure(photos(tmp_path / "b", "happy", "contempt"), profile="smoke", steps=5)
    eleven = configure(None, clips(tmp_path / "c", "happy", "helpless"), profile="smoke", steps=5)
    assert (seven.image.num_classes, eight.image.num_classes, eleven.video.num_classes) == (7, 8, 11)
    assert seven.tasks == ("image",) and seven.video is None and eleven.tasks == ("video",) and eleven.image is None
    both = configure(tmp_path / "a", tmp_path / "c", profile="smoke", steps=5)
    assert both.tasks == ("image", "video") and both.num_experts == 8
    with pytest.raises(OwnError, match="no folder was given"):
        configure(profile="smoke")
    with pytest.raises(OwnError, match="steps is 0"):
        configure(tmp_path / "a", profile="smoke", steps=0)


def test_one_call_trains_scores_and_draws(tmp_path):
    photos(tmp_path / "own", "happy", "sad", "anger", count=8)
    given = dict(photos=tmp_path / "own", out=tmp_path / "out", profile="smoke", runs=str(tmp_path / "runs"), steps=3, resamples=50)
    made = study(**given)
    assert {p.name for p in made.files} == {"scores.csv", "predictions.csv", "photos.png", "photos.pdf", "confusion.png", "confusion.pdf",
                                            "curves.png", "curves.pdf"} and all(p.stat().st_size > 100 for p in made.files)
    predictions = pd.read_csv(tmp_path / "out/predictions.csv")
    assert sorted(predictions["path"]) == sorted(p for p, s in split_of(index("photos", tmp_path / "own")).items() if s == "test")
    war = made.scores.query("metric == 'WAR'").iloc[0]
    assert war["value"] == pytest.approx((predictions["label"] == predictions["predicted"]).mean()) and war["low"] <= war["value"] <= war["high"]
    assert study(**given).run.dir == made.run.dir and len(list((tmp_path / "runs").iterdir())) == 1
    steps = made.run.metrics().query("modality == 'image'")
    assert len(steps) == 3 and made.problems.empty


def test_photos_and_clips_together_train_s4d(tmp_path):
    made = study(photos(tmp_path / "photos", "happy", "sad"), clips(tmp_path / "clips", "happy", "sad", count=4), tmp_path / "out", "smoke",
                 runs=str(tmp_path / "runs"), steps=3, resamples=20)
    assert set(made.scores["task"]) == {"image", "video"} and {"photos.png", "clips.png"} <= {p.name for p in made.files}
    assert made.run.config.num_experts == 8 and set(made.run.metrics()["modality"]) == {"image", "video", "val"}


def test_an_unreadable_file_stops_before_training(tmp_path):
    cut_off(photos(tmp_path / "own", "happy", "sad") / "sad/02.jpg", 0.3)
    said = r"1 of the photos in .* cannot be used, the first is sad/02.jpg: it cannot be read: .*`python -m s4d audit photos"
    with pytest.raises(OwnError, match=said):
        study(tmp_path / "own", profile="smoke", runs=str(tmp_path / "runs"), out=tmp_path / "out", steps=1)
    assert not list(tmp_path.glob("runs/*")) and not (tmp_path / "out").exists()
    assert audit("photos", tmp_path / "own")["kind"].tolist() == ["unreadable"]


def test_the_command_says_what_the_audit_warns_of(tmp_path, capsys):
    root = photos(tmp_path / "own", "happy", "sad", count=6)
    twin = next(p for p, s in split_of(index("photos", root)).items() if s == "test" and p.startswith("happy"))
    (root / "happy/twin.jpg").write_bytes((root / twin).read_bytes())
    arguments = ["own", "--photos", str(root), "--profile", "smoke", "--steps", "1", "--runs", str(tmp_path / "runs"),
                 "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "WAR" in said.out and "8 files in" in said.out and "equal bytes under 2 names" in said.err
    assert main(["own", "--photos", str(tmp_path / "nowhere")]) == 2 and "there is no folder" in capsys.readouterr().err
    assert main(["own"]) == 2 and "no folder was given" in capsys.readouterr().err
    assert main([*arguments, "--init", "none.pth"]) == 2 and "no checkpoint 'none.pth'" in capsys.readouterr().err
