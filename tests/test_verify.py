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


def verdicts(new: pd.DataFrame, old: pd.DataFrame = SCORES, name: str = "scores") -> list[str]:
    return verify.verify({name: new}, {name: old})["verdict"].tolist()


def changed(column: str, value) -> pd.DataFrame:
    table = SCORES.copy()
    table[column] = table[column].astype(object)
    table.loc[1, column] = value
    return table.infer_objects()


def test_counts_names_rows_and_files_must_be_equal():
    assert verdicts(SCORES) == []
    for column, value in (("subjects", 21), ("seeds", 2), ("method", "dense")):
        assert verdicts(changed(column, value)) == ["fails"]
    assert verdicts(SCORES[:1]) == ["fails"] and verdicts(SCORES.drop(columns="seeds")) == ["fails"]
    for fresh, old in (({}, {"a": SCORES}), ({"a": SCORES}, {})):
        assert verify.verify(fresh, old)["verdict"].tolist() == ["fails"]
    counts = pd.DataFrame({"corpus": ["a"], "share": [0.25]})
    assert verdicts(counts.assign(share=0.26), counts, "corpus_counts") == ["fails"]


def test_a_trained_number_may_differ_inside_its_interval_alone():
    assert verdicts(changed("value", 0.69)) == []
    moved = SCORES.assign(value=[0.5, 0.75], low=[0.4, 0.65], high=[0.6, 0.85])
    assert verdicts(moved) == ["moved"]
    apart = SCORES.assign(value=[0.5, 0.9], low=[0.4, 0.85], high=[0.6, 0.95])
    assert verdicts(apart) == ["fails"]
    assert verdicts(changed("value", None)) != []


def test_the_interval_of_a_number_is_found():
    table = SCORES.assign(difference=0.1, difference_low=0.0, difference_high=0.2)
    assert verify.intervals(table) == {"difference": ("difference_low", "difference_high"),
                                       "value": ("low", "high")}


def test_the_command_compares_with_the_last_commit(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verify.committed, "__defaults__", (tmp_path,))
    committed, fresh = (tmp_path / f"{f}/source_data" for f in ("figures", "build/sandbox/figures"))
    for folder in (committed, fresh):
        folder.mkdir(parents=True)
        SCORES.to_csv(folder / "scores.csv", index=False)
    with pytest.raises(OutputError, match="nothing committed can be read from figures/source_data"):
        verify.committed("figures/source_data")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    changed("subjects", 21).to_csv(committed / "scores.csv", index=False)     # not committed
    assert main(["verify"]) == 0 and "1 tables: 0 numbers fail" in capsys.readouterr().out
    changed("subjects", 21).to_csv(fresh / "scores.csv", index=False)
    assert main(["verify"]) == 1 and "subjects of video" in capsys.readouterr().out
    assert main(["verify", "--profile", "smoke"]) == 2
    assert "holds no source data (*.csv)" in capsys.readouterr().err
