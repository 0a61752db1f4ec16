"""Counts, duplicates and the report of an audit; test_faults plants the faults of files."""
from __future__ import annotations

import shutil

import pandas as pd
from conftest import write_affectnet, write_dfew

from s4d.data import REGISTRY, audit


def test_equal_bytes_are_a_fault_across_the_splits_of_one_fold():
    """What is trained on in one fold is tested on in another: that is no fault."""
    columns = ["kind", "problem", "frames", "size", "rate", "digest"]
    seen = pd.DataFrame([{"digest": "d"}] * 2, index=["a", "b"], columns=columns, dtype=object)

    def of(*rows):
        table = pd.DataFrame(rows, columns=["path", "split", "fold"]).assign(label="fear")
        return audit._media(seen, table, "image")
    assert of(("a", "train", 1), ("b", "train", 1), ("a", "test", 2), ("b", "test", 2)) == []
    assert [path for _, path, _ in of(("a", "train", 1), ("b", "test", 1))] == ["a"]


def test_counts_stand_beside_the_published_ones(tmp_path):
    write_dfew(tmp_path / "dfew", 7, 7, frames=5)
    problems, counts = audit.examine("dfew", tmp_path / "dfew", fold=1)
    fear = counts[(counts.split == "test") & (counts.label == "fear")].iloc[0]
    assert (fear.found, fear.published) == (1, 181)
    assert set(problems.kind) == {"count"} and len(problems) == 14
    assert "1 samples of fear, where 181 are published" in set(problems.problem)
    (tmp_path / "corpus.json").write_text("{}")           # procedural faces borrow the layout
    assert audit.examine("dfew", tmp_path / "dfew", fold=1)[1].published.isna().all()


def test_every_fold_has_published_counts_of_both_splits():
    """What is not in a fold's test split is in its training split."""
    for name, clips in (("dfew", 11697), ("mafw", 9172)):
        dataset = REGISTRY[name]
        sizes = {key: sum(known.values()) if isinstance(known, dict) else known
                 for key, known in dataset.published.items()}
        assert clips == sum(sizes[k, "test"] for k in dataset.folds)
        assert all(sizes[k, "train"] + sizes[k, "test"] == clips for k in dataset.folds)


def test_a_report_begins_with_the_summary_and_shows_twenty_examples_a_kind(tmp_path):
    write_affectnet(tmp_path, 1, 1)
    lines = "".join(f"gone/{i}.jpg,1\n" for i in range(588)) + "fear/000.jpg,4.0\n"
    shutil.rmtree(tmp_path / "train")
    shutil.move(tmp_path / "val", tmp_path / "images")
    (tmp_path / "train.csv").write_text(f"path,label\n{lines}")
    problems, counts = audit.examine("affectnet", tmp_path)
    text = audit.report(problems, counts).splitlines()
    assert text[0].split() == ["split", "label", "found"] and len(text) < 50
    assert f"{'588':>8}  missing" in text[:8]
    assert sum(line.startswith("images/gone/") for line in text) == 20
    assert "... and 568 more: --csv FILE writes all" in text
    clean = audit.report(problems[:0], counts).splitlines()
    assert clean[-1] == "no problems"
