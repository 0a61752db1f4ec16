"""`make verify`: counts are exact, trained numbers hold inside their committed interval."""
from __future__ import annotations

import subprocess

import pandas as pd
import pytest

from s4d import verify
from s4d.__main__ import main
from s4d.files import OutputError

SCORES = pd.DataFrame({"task": ["image", "video"], "method": "s4d", "value": [0.5, 0.6],
                       "low": [0.4, 0.5], "high": [0.6, 0.7], "seeds": 3, "subjects": [40, 20]})


def files(**tables: pd.DataFrame) -> dict[str, bytes]:
    return {f"{name}.csv": table.to_csv(index=False).encode() for name, table in tables.items()}


def verdicts(new: pd.DataFrame, old: pd.DataFrame = SCORES, name: str = "scores") -> list[str]:
    return verify.verify(files(**{name: new}), files(**{name: old}))["verdict"].tolist()


def changed(column: str, value, row: int = 1) -> pd.DataFrame:
    table = SCORES.copy()
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    return table.infer_objects()


def test_equal_tables_hold():
    assert verdicts(SCORES) == [] and verify.verify(files(a=SCORES), files(a=SCORES), True).empty


@pytest.mark.parametrize("column, value", [("subjects", 21), ("seeds", 2), ("method", "dense")])
def test_a_count_or_name_that_differs_fails(column, value):
    assert verdicts(changed(column, value)) == ["fails"]


def test_a_trained_number_may_differ_inside_its_interval_alone():
    assert verdicts(changed("value", 0.69)) == []
    moved = SCORES.assign(value=[0.5, 0.75], low=[0.4, 0.65], high=[0.6, 0.85])
    assert verdicts(moved) == ["moved"]
    apart = SCORES.assign(value=[0.5, 0.9], low=[0.4, 0.85], high=[0.6, 0.95])
    assert verdicts(apart) == ["fails"]
    assert verdicts(changed("value", None)) != []


def test_rows_columns_and_files_must_be_the_same():
    assert verdicts(SCORES[:1]) == ["fails"] and verdicts(SCORES.drop(columns="seeds")) == ["fails"]
    assert verify.verify({}, files(a=SCORES))["verdict"].tolist() == ["fails: no fresh file"]
    assert len(verify.verify(files(a=SCORES), {})) == 1


def test_numbers_of_data_are_exact_and_bytes_on_request():
    counts = pd.DataFrame({"corpus": ["a"], "share": [0.25]})
    assert verdicts(counts.assign(share=0.26), counts, "corpus_counts") == ["fails"]
    other = SCORES.assign(value=[0.5, 0.61])
    found = verify.verify(files(a=other), files(a=SCORES), exact=True)
    assert found["number"].tolist() == ["bytes"]


def test_the_interval_of_a_number_is_found():
    table = SCORES.assign(difference=0.1, difference_low=0.0, difference_high=0.2)
    assert verify.intervals(table) == {"difference": ("difference_low", "difference_high"),
                                       "value": ("low", "high")}


def test_the_committed_numbers_are_those_of_the_last_commit(tmp_path):
    folder = tmp_path / "figures/source_data"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("x\n1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    (folder / "a.csv").write_text("x\n2\n")
    assert verify.committed("figures/source_data", tmp_path) == {"a.csv": b"x\n1\n"}
    with pytest.raises(OutputError, match="nothing committed can be read from other"):
        verify.committed("other", tmp_path)


def test_the_command_says_what_fails_by_its_status(tmp_path, capsys):
    for name, table in (("old", SCORES), ("new", changed("subjects", 21))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.csv").write_bytes(files(scores=table)["scores.csv"])
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    assert main(["verify", old, old]) == 0 and "1 tables: 0 numbers fail" in capsys.readouterr().out
    assert main(["verify", new, old]) == 1 and "subjects of video" in capsys.readouterr().out
    assert main(["verify", str(tmp_path), old]) == 2
    assert "holds no source data (*.csv)" in capsys.readouterr().err
