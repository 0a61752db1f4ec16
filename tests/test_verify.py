"""Verification: what must be equal, what may move inside an interval, which claims fail; the committed numbers are the sample."""
from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from s4d import claims, verify
from s4d.__main__ import main
from s4d.artifacts import csv_text
from s4d.files import OutputError

ROOT = Path(__file__).resolve().parents[1]
SOURCE, PAPER = ROOT / "figures" / "source_data", (ROOT / "paper" / "main.tex").read_text()
OLD = verify.read(SOURCE)
SCORES, PAIRED = OLD["finetuning_table"], OLD["finetuning_paired"]


def printed(row: pd.Series, value: str) -> str:
    return " ".join(claims.shown(claims.points(row, value), "+" * (value == "difference")))


def readme() -> str:
    """The sentence of counts and two numbers, as README prints them, of whatever run `figures/` holds."""
    clips, photos = (SCORES[SCORES["task"] == task].iloc[0] for task in ("video", "image"))
    return (f"\n## Results\n\n{clips['seeds']} seeds, {clips['samples']} test clips of {clips['subjects']} people and {photos['samples']} test "
            f"photos of {photos['subjects']} people, chance is 14.3.\n| a | {printed(SCORES.iloc[0], 'value')} |\n"
            f"- it helps: {printed(PAIRED.iloc[1], 'difference')}.\n\n## Next\n\n9.9 [9.8, 9.9]")


@pytest.fixture
def fresh() -> dict[str, pd.DataFrame]:
    """A copy of the committed tables, to be changed."""
    return {name: table.copy() for name, table in OLD.items()}


@pytest.fixture
def folder(tmp_path) -> Path:
    """The same as files."""
    return Path(shutil.copytree(SOURCE, tmp_path / "fresh"))


def rewrite(folder: Path, name: str, **columns) -> None:
    (folder / f"{name}.csv").write_text(csv_text(OLD[name].assign(**columns)))


def verdicts(fresh: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Claim -> verdict, of those of README with `README: ` before."""
    table = verify.compare(fresh, OLD, claims.section(readme(), "Results"), PAPER)
    return {("README: " if r.where == "README" else "") + r.claim: r.verdict for r in table.itertuples()}


def failing(fresh: dict[str, pd.DataFrame]) -> set[str]:
    return {claim for claim, verdict in verdicts(fresh).items() if verdict == "fails"}


def test_every_committed_table_is_classified_by_columns_that_it_has():
    assert set(OLD) <= set(verify.TABLES)
    for name, table in OLD.items():
        kind = verify.TABLES[name]
        assert {*kind.intervals, *kind.seeds, *kind.free, *kind.totals} - {"corrected"} <= set(table), name
        assert not kind.seeds or any(c == "seed" or c.startswith("seed_") for c in table), name
        assert bool(kind.why) == (bool(kind.free) and not kind.intervals and not kind.seeds and name != "numbers"), name
    assert set(verify.BESIDE) <= {c for table in OLD.values() for c in table}


def test_the_same_numbers_hold_and_the_command_says_so(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "paper").mkdir()
    (tmp_path / "README.md").write_text(readme())
    (tmp_path / "paper/main.tex").write_text(PAPER)
    monkeypatch.setattr(verify, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["verify", str(folder), str(SOURCE)]) == 0
    table, said = pd.read_csv(tmp_path / f"build/{claims.macros(OLD)['Profile']}/claims.csv"), capsys.readouterr().out.splitlines()
    assert list(table.columns) == claims.COLUMNS and set(table["verdict"]) == {"holds", "illustration"}
    assert len(said) == len(table) + 2 and re.fullmatch(rf"{len(table)} claims and tables: illustration \d+, holds \d+", said[-1])
    assert len({line.index(verdict) for line, verdict in zip(said, ["verdict", *table["verdict"]])}) == 1      # aligned
    assert main(["verify", str(folder), str(SOURCE), "--exact"]) == 0
    rewrite(folder, "corpus_counts", fear=OLD["corpus_counts"]["fear"] + 1)
    assert main(["verify", str(folder), str(SOURCE), "--csv", "other.csv"]) == 1 and (tmp_path / "other.csv").is_file()
    assert capsys.readouterr().out.splitlines()[-1].endswith("fails 1 (source data corpus_counts.csv)")
    shutil.copy(SOURCE / "corpus_counts.csv", folder)
    score = SCORES.iloc[-1]
    rewrite(folder, "finetuning_table", value=SCORES["value"].where(SCORES.index < len(SCORES) - 1, score["high"] + 0.001),
            high=SCORES["high"] + 0.01)
    assert main(["verify", str(folder), str(SOURCE)]) == 0 and "moved 1," in capsys.readouterr().out.splitlines()[-1] + ","
    assert main(["verify", str(folder), str(SOURCE), "--strict"]) == 1 and "fails 1 (source data finetuning_table.csv)" in capsys.readouterr().out
    assert main(["verify", str(folder), str(SOURCE), "--exact"]) == 1 and capsys.readouterr().out == "finetuning_table.csv differs\n"


@pytest.mark.parametrize("name, column", [("corpus_counts", "people"), ("model_sizes", "tokens"), ("pretraining_masks", "removed"),
                                          ("report_published", "WAR"), ("finetuning_table", "samples"), ("experts_usage", "samples"),
                                          ("layer_similarity", "people"), ("report_runs", "steps"), ("faces_emotions", "action_12")])
def test_what_training_does_not_decide_must_be_equal(fresh, name, column):
    fresh[name].loc[1, column] += 1
    assert failing(fresh) == {f"{name}.csv"}
    row = verify.check(name, fresh[name], OLD[name])
    assert row["fresh"].startswith(f"{column} is ") and "in row 2, committed" in row["fresh"]


def test_counts_are_exact_and_decimals_equal_to_the_digits_of_the_files():
    equal = lambda a, b: not verify.unequal(pd.Series([a]), pd.Series([b])).any()
    assert equal(0.123456, 0.123457) and not equal(0.123456, 0.123468) and equal(1e-16, 0.0)
    assert equal(200000, 200000) and not equal(200000, 200001) and not equal(200000.0, 200001.0)
    assert equal(np.nan, np.nan) and not equal(np.nan, 0.0) and equal("fear", "fear") and not equal("fear", "anger")


def test_a_trained_number_may_move_inside_its_interval_and_fails_when_its_own_is_apart(fresh):
    row, three = SCORES.iloc[0], ["value", "low", "high"]
    where = {"finetuning_table.csv", f"README: {claims.described(row)}"}

    def said(value: float, low: float, high: float) -> dict[str, str]:
        fresh["finetuning_table"].loc[0, three] = value, low, high
        return {k: v for k, v in verdicts(fresh).items() if v not in ("holds", "illustration")}
    width = row["high"] - row["low"]
    assert said(row["high"] - 0.001, row["low"] + 0.01, row["high"] + 0.01) == {}
    assert said(row["high"] + 0.001, row["high"] - 0.01, row["high"] + width) == dict.fromkeys(where, "moved")
    assert said(row["high"] + width, row["high"] + 0.01, row["high"] + 2 * width) == dict.fromkeys(where, "fails")
    assert said(row["low"] - width, row["low"] - 2 * width, row["low"] - 0.01) == dict.fromkeys(where, "fails")
    assert said(row["high"] + 0.001, row["low"], row["high"])[min(where)] == "fails"            # only the value was changed
    line = verify.check("finetuning_table", fresh["finetuning_table"], SCORES)
    assert line["fresh"].startswith("27 of 28 inside; value ")


def test_an_interval_that_differs_beside_the_value_is_found_in_its_own_columns(fresh):
    table = fresh["static_timing"]
    table.loc[0, ["peak", "peak_low", "peak_high"]] += 1
    line = verify.check("static_timing", table, OLD["static_timing"])
    old = OLD["static_timing"].loc[0]
    assert line["verdict"] == "fails"
    assert f"1 apart; peak {old.peak + 1:.4g} outside {old.peak_low:.4g} to {old.peak_high:.4g}" in line["fresh"]


def test_the_mean_of_new_seeds_is_apart_from_that_of_old_ones_only_by_rare_chance():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"block": np.repeat(np.arange(2000), 3), "seed": np.tile([0, 1, 2], 2000), "size": rng.normal(size=6000)})
    kind = verify.TABLES["experts_branch"]
    rows = verify.over_seeds(table.assign(size=rng.normal(size=6000)), table, "size", kind)
    apart = (rows["low"] > rows["known_high"]) | (rows["high"] < rows["known_low"])
    assert len(rows) == 2000 and apart.mean() < 0.01
    assert 0.94 < ((rows["known_low"] < 0) & (rows["known_high"] > 0)).mean() < 0.96             # the true mean
    assert verify.over_seeds(table[table["seed"] == 0], table[table["seed"] == 0], "size", kind).empty
    shifted = verify.over_seeds(table.assign(size=table["size"] + 100), table, "size", kind)
    assert (shifted["low"] > shifted["known_high"]).mean() > 0.99


def test_values_without_interval_may_move_as_far_as_other_seeds_would(fresh):
    table = fresh["experts_branch"]
    table["size"] = table["size"].sample(frac=1, random_state=0).to_numpy()
    assert not failing(fresh)
    table["size"] += 1
    assert failing(fresh) == {"experts_branch.csv"}
    assert verify.check("experts_branch", table, OLD["experts_branch"])["interval"] == "95 % over seeds, 2 may differ"
    few = OLD["experts_branch"].assign(size=OLD["experts_branch"]["size"].where((table["block"] != 2) | (table["task"] != "image"), 9))
    assert verify.check("experts_branch", few, OLD["experts_branch"])["verdict"] == "moved"


def test_an_illustration_may_look_different_but_must_be_there_and_finite(fresh):
    fresh["shared_space"]["x"] *= -3
    fresh["finetuning_confusion"]["count"] = OLD["finetuning_confusion"]["count"].to_numpy()[::-1]      # other errors, of as many predictions
    assert {verdicts(fresh)[f"{name}.csv"] for name in ("shared_space", "finetuning_confusion")} == {"illustration"}
    for wrong in (np.nan, np.inf):
        fresh["shared_space"].loc[4, "x"] = wrong
        assert failing(fresh) == {"shared_space.csv"}
    fresh["shared_space"] = OLD["shared_space"].iloc[:-1]
    fresh["finetuning_confusion"].loc[0, "count"] += 1
    assert failing(fresh) == {"shared_space.csv", "finetuning_confusion.csv"}


def test_a_missing_table_and_one_too_many_fail(fresh):
    del fresh["finetuning_table"]
    fresh["more"] = pd.DataFrame({"x": [1]})
    assert failing(fresh) == {"finetuning_table.csv", "more.csv", f"README: {claims.described(SCORES.iloc[0])}",
                              *(f"README: {name}" for name in claims.COUNTS)}


@pytest.mark.parametrize("before, after, said", [(1, 1, "holds"), (0, 0, "holds"), (1, 0, "weaker"), (-1, 0, "weaker"), (0, 1, "stronger"),
                                                 (0, -1, "stronger"), (1, -1, "fails"), (-1, 1, "fails")])
def test_a_verdict_must_not_turn_into_its_opposite(before, after, said):
    assert claims.turned(before, after) == said
    intervals, value = {1: (1.0, 9.0), 0: (-9.0, 9.0), -1: (-9.0, -1.0)}, 2.0 * (after or before)       # inside both, but for opposites
    assert claims.judge((2.0 * before, *intervals[before]), (value, *intervals[after]), True) == said
    old = (2.0, 1.0, 9.0)
    assert claims.judge(old, (9.5, 1.0, 10.0), True) == "moved" == claims.judge(old, (0.5, -1.0, 3.0), False)
    assert claims.judge(old, (0.5, -1.0, 3.0), True) == "fails" == claims.judge(old, (9.5, 9.2, 10.0), True)      # not shown any more; apart


@pytest.mark.parametrize("now, said", [("opposite", "fails"), ("not decided", "weaker"), ("same", "holds"), ("not measured", "fails")])
def test_claims_of_the_notebook_and_the_paper_follow_the_verdicts(fresh, now, said):
    old, numbers = OLD["report_claims"], fresh["numbers"]
    row = int(np.flatnonzero(old["verdict"].isin(["supported", "against"]))[0])
    claim, was = old.iloc[row], old["verdict"][row]
    word = {"opposite": "against" if was == "supported" else "supported", "same": was}.get(now, now)
    fresh["report_claims"].loc[row, "verdict"] = word
    numbers.loc[numbers["name"] == f"Verdict{claim['name']}", "text"] = word
    if word != was:
        numbers.loc[numbers["name"] == was.capitalize(), "text"] = "0"
    found = verdicts(fresh)
    assert found[f"{claim.claim}: {claim.comparison}"] == found[f"Verdict{claim['name']}"] == found[was.capitalize()] == said
    assert {v for k, v in found.items() if k not in (f"{claim.claim}: {claim.comparison}", f"Verdict{claim['name']}", was.capitalize())} <= {
        "holds", "illustration"}


def test_a_difference_that_changes_sides_fails_wherever_it_is_claimed(fresh):
    row = PAIRED.iloc[1]                                                         # README's sentence above states it
    assert row["low"] > 0 or row["high"] < 0
    fresh["finetuning_paired"].loc[1, ["difference", "low", "high"]] = -row["difference"], -row["high"], -row["low"]
    assert failing(fresh) == {"finetuning_paired.csv", f"README: {claims.described(row)}"}


def test_a_claim_that_is_no_longer_shown_fails_when_its_value_has_left_the_interval():
    old = pd.DataFrame([dict(name="A", claim="it helps", comparison="a minus b", difference=5.0, low=2.0, high=8.0, verdict="supported")])
    for value, said in ((3.0, "weaker"), (1.0, "fails")):
        new = old.assign(difference=value, low=value - 4, high=value + 4, verdict="not decided")
        assert claims.of_notebook({"report_claims": new}, {"report_claims": old})[0]["verdict"] == said
        tables = [{"numbers": pd.DataFrame({"name": ["DiffA", "IntervalA"], "text": texts})} for texts in (
            [f"+{value}", f"[{value - 4:+}, {value + 4:+}]".replace("-", "−")], ["+5.0", "[+2.0, +8.0]"])]
        assert claims.of_paper(*tables, r"\DiffA \IntervalA")[0]["verdict"] == said
    assert claims.of_notebook({}, {"report_claims": old})[0]["verdict"] == "fails"


def test_every_number_that_the_paper_uses_is_a_claim(fresh):
    old = claims.macros(OLD)
    edge = old["WarSFourDVideoPretrainedInterval"].strip("[]").split(", ")[0]
    for texts, wrong in (({"Seeds": "1"}, {"Seeds"}), ({"PublishedDFEW": "76.69"}, {"PublishedDFEW"}), ({"WarSFourDVideoPretrained": edge}, set()),
                         ({"WarSFourDVideoPretrained": "99.0"}, {"WarSFourDVideoPretrained"}),
                         ({"DiffRepair": "−60.0", "IntervalRepair": "[−70.0, −50.0]"}, {"DiffRepair"})):
        fresh["numbers"] = OLD["numbers"].assign(text=OLD["numbers"]["name"].map(texts).fillna(OLD["numbers"]["text"]))
        assert {r["claim"] for r in claims.of_paper(fresh, OLD, PAPER) if r["verdict"] == "fails"} == wrong
    fresh["numbers"] = OLD["numbers"].query("name != 'TopK'").reset_index(drop=True)
    assert failing(fresh) == {"numbers.csv", "TopK"}
    used = set(re.findall(r"\\([A-Z][A-Za-z]+)", PAPER)) & set(old)
    said = {r["claim"] for r in claims.of_paper(OLD, OLD, PAPER)}
    assert {n for n in used if not {n, n.removesuffix("Interval"), n.replace("Interval", "Diff")} & said} == set() and len(used) > 40


def test_folders_that_cannot_be_compared_are_refused_in_one_sentence(folder, tmp_path, capsys):
    def refused(*folders) -> str:
        assert main(["verify", *map(str, folders)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("s4d: ") and said.count("\n") == 1
        return said
    assert f"{tmp_path / 'none'} holds no source data" in refused(tmp_path / "none", SOURCE)
    assert f"{tmp_path} holds no source data" in refused(folder, tmp_path)
    rewrite(folder, "numbers", text=OLD["numbers"]["text"].where(OLD["numbers"]["name"] != "Profile", "tiny"))
    assert f"{folder} was made with profile tiny and {SOURCE} with " in refused(folder, SOURCE)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/t.csv").write_text("x\n1\n")
    assert "nothing names the profile of" in refused(tmp_path / "a", tmp_path / "a")
    (folder / "shared_space.csv").write_text("")
    assert "shared_space.csv is no table" in refused(folder, SOURCE)


def test_the_committed_numbers_come_from_git(tmp_path, monkeypatch, capsys):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path / "clone", check=True, capture_output=True)
    clone = tmp_path / "clone"
    for folder in ("paper", "figures/source_data"):
        (clone / folder).mkdir(parents=True)
    (clone / "README.md").touch()
    (clone / "paper/main.tex").touch()
    monkeypatch.setattr(verify, "ROOT", clone)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="cannot be read from git"), verify.committed_data("figures/source_data"):
        pass
    for name in ("numbers", "corpus_counts"):
        shutil.copy(SOURCE / f"{name}.csv", clone / "figures/source_data")
    for command in (["init"], ["add", "."], ["commit", "-m", "numbers"]):
        git(*command)
    rewrite(clone / "figures/source_data", "corpus_counts", fear=0)            # as `reproduce` does
    assert main(["verify", str(clone / "figures/source_data")]) == 1
    shutil.copy(SOURCE / "corpus_counts.csv", clone / "figures/source_data")
    assert main(["verify", str(clone / "figures/source_data")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 claims and tables: holds 2"


def test_results_of_a_profile_are_compared_with_those_of_that_profile(tmp_path, monkeypatch, capsys):
    """Without notebook 06 the manifest names it; README's section about it is checked, and no other."""
    clone, fresh = tmp_path / "clone", tmp_path / "fresh"
    for folder in (clone / "paper", clone / "figures/night/source_data", fresh / "source_data"):
        folder.mkdir(parents=True)
    (clone / "paper/main.tex").touch()
    (clone / "README.md").write_text(f"\n## Results\n9.9 [9.8, 9.9]\n\n## What it depends on\nby {printed(PAIRED.iloc[1], 'difference')}.\n\n## Next\n")
    for folder in (clone / "figures/night", fresh):
        shutil.copy(SOURCE / "finetuning_paired.csv", folder / "source_data")
        (folder / "manifest.json").write_text('{"artifacts": {"finetuning_paired": {"profile": "night"}}}')
    for command in (["init"], ["add", "."], ["commit", "-m", "numbers"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=clone, check=True, capture_output=True)
    monkeypatch.setattr(verify, "ROOT", clone)
    monkeypatch.chdir(tmp_path)
    assert main(["verify", str(fresh / "source_data")]) == 0 and (tmp_path / "build/night/claims.csv").is_file()
    assert capsys.readouterr().out.splitlines()[-1] == "2 claims and tables: holds 2"
    assert main(["verify", str(fresh / "source_data"), str(clone / "figures/night/source_data"), "--exact"]) == 0
    (fresh / "manifest.json").write_text('{"artifacts": {"finetuning_paired": {"profile": "gpu"}}}')
    assert main(["verify", str(fresh / "source_data"), str(clone / "figures/night/source_data")]) == 2
    assert "was made with profile gpu and" in capsys.readouterr().err
