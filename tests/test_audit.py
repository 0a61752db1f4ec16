"""Faults planted in files and lists are found and named; clean data pass."""
from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
from conftest import cut_off, damage, write_affectnet, write_dfew, write_image, write_video

from s4d.data import REGISTRY, audit

auditing = sys.modules[audit.__module__]      # the function hides its module's name


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


def test_equal_bytes_are_a_fault_across_the_splits_of_one_fold():
    """What is trained on in one fold is tested on in another: that is no fault."""
    seen = {name: auditing.Seen(digest="d") for name in "ab"}
    of = lambda *rows: auditing._duplicates(seen, pd.DataFrame([(p, "fear", s, f) for p, s, f in rows], columns=["path", "label", "split", "fold"]))
    assert of(("a", "train", 1), ("b", "train", 1), ("a", "test", 2), ("b", "test", 2)) == []
    assert [path for _, path, _ in of(("a", "train", 1), ("b", "test", 1))] == ["a"]


def test_counts_stand_beside_the_published_ones(tmp_path, monkeypatch):
    write_dfew(tmp_path / "dfew", 7, 7, frames=5)
    problems, counts = auditing.examine("dfew", tmp_path / "dfew", fold=1)
    assert counts[counts.split == "test"].set_index("label").loc["fear", ["found", "published"]].tolist() == [1, 181]
    assert set(problems.kind) == {"counts"} and len(problems) == 14
    assert "1 samples of fear, where 181 are published" in set(problems.problem)
    published = {(1, "test"): 7, (1, "train"): dict.fromkeys(counts.label.dropna(), 1)}
    monkeypatch.setitem(REGISTRY, "dfew", replace(REGISTRY["dfew"], published=published))
    problems, counts = auditing.examine("dfew", tmp_path / "dfew", fold=1)
    assert problems.empty and counts[counts.label.isna() & (counts.split == "test")].published.tolist() == [7]
    (tmp_path / "corpus.json").write_text("{}")           # procedural faces borrow the layout, not the counts
    assert auditing.examine("dfew", tmp_path / "dfew", fold=1)[1].published.isna().all()


def test_affectnet_is_counted_against_the_part_that_it_is(tmp_path):
    parts = {"s4d": (471, 457, 473, 458, 469, 469, 470), "2017": (500,) * 7}
    for name, each in parts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.txt").write_text("".join(f"{k}/{i}.jpg {k}\n" for k, n in enumerate(each) for i in range(n)))
        assert set(audit("affectnet", tmp_path / name).kind) == {"missing"}
        with open(tmp_path / name / "test.txt", "a") as f:
            f.write("0/x.jpg 0\n")
        found = audit("affectnet", tmp_path / name)
        assert found[found.kind == "counts"].problem.tolist() == [f"{each[0] + 1} samples of neutral, where {each[0]} are published"]
    for name, header in (("training", "subDirectory_filePath,expression"), ("validation", "subDirectory_filePath,expression")):
        (tmp_path / "2017" / f"{name}.csv").write_text(f"{header}\na.jpg,0\n")
    (tmp_path / "2017/test.txt").unlink()
    with open(tmp_path / "2017/validation.csv", "w") as f:             # the first release has eight classes, of 500 each
        f.write("subDirectory_filePath,expression\n" + "".join(f"v/{k}-{i}.jpg,{k}\n" for k in range(11) for i in range(500)))
    found = audit("affectnet", tmp_path / "2017")
    assert not [p for k, p in zip(found.kind, found.path) if k == "counts" and p != "train"]
    assert "1 samples of neutral, where 74874 are published" in set(audit("affectnet", tmp_path / "2017").problem)


def test_every_fold_has_published_counts_of_both_parts():
    """What is not in a fold's test part is in its training part."""
    for name, folds, clips in (("dfew", 5, 11697), ("mafw", 5, 9172)):
        module = REGISTRY[name]
        size = lambda known: sum(known.values()) if isinstance(known, dict) else known
        assert sum(size(module.published[k, "test"]) for k in range(1, folds + 1)) == module.listed == clips
        assert all(size(module.published[k, "train"]) + size(module.published[k, "test"]) == clips for k in range(1, folds + 1))


def test_a_report_begins_with_the_summary_and_shows_twenty_examples_a_kind(tmp_path):
    write_affectnet(tmp_path, 1, 1)
    lines = "".join(f"gone/{i}.jpg,1\n" for i in range(588)) + "fear/000.jpg,4.0\n"
    shutil.rmtree(tmp_path / "train")
    shutil.move(tmp_path / "val", tmp_path / "images")
    (tmp_path / "train.csv").write_text(f"path,label\n{lines}")
    problems, counts = auditing.examine("affectnet", tmp_path)
    text = auditing.report(problems, counts).splitlines()
    assert text[0].split() == ["split", "label", "found"] and len(text) < 50
    assert f"{'588':>8}  missing     a listed file is not there" in text[:8]
    assert sum(line.startswith("gone/") for line in text) == 20
    assert "... and 568 more: --csv FILE writes all" in text
    clean = auditing.report(problems[:0], counts).splitlines()
    assert clean[-1] == "no problems"
