"""Faults planted in files and lists are found and named; clean data pass."""
from __future__ import annotations

import shutil
from pathlib import Path

from conftest import cut_off, damage, write_affectnet, write_dfew, write_image, write_video

from s4d.data import audit


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
    assert audit("dfew", tmp_path, fold=1, published=False).empty
    with open(lists["test"] / "set_1.csv", "a") as f:
        f.write("00001,3\n99,1\n")
    damage(tmp_path / "Clip/original/00002.mp4", 0.5, 0.6)
    write_video(tmp_path / "Clip/original/00003.mp4", 1, frames=2)
    write_video(tmp_path / "Clip/original/00300.mp4", 1, frames=5)
    found = audit("dfew", tmp_path, fold=1, published=False)
    said = {(Path(p).name, t.split(":")[0].split(",")[0]) for p, t in zip(found.path, found.problem)}
    assert said == {("00001.mp4", "it is listed 2 times of fold 1"), ("00002.mp4", "it cannot be read"), ("00099.mp4", "it is listed but not on disk"),
                    ("00003.mp4", "it has 2 frame(s)")}
    everything = set(audit("dfew", tmp_path, published=False).problem.str.split(":").str[0])
    assert "it is on disk but in no list" in everything and any("has no lists of fold 5" in p for p in everything)
    for folder in lists.values():
        shutil.copy(folder / "set_1.csv", folder / "set_2.csv")
    everything = set(audit("dfew", tmp_path, published=False).problem)
    assert "it is in no test fold: expected exactly one" in everything and "it is in test folds 1, 2: expected exactly one" in everything
