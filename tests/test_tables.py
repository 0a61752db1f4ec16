"""Artifacts and the report: same bytes each time, claims judged, a paper that fits."""
from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from s4d.files import OutputError
from s4d.reproduce import NOTEBOOKS
from s4d.study import tables
from s4d.study.artifacts import Artifacts, csv_text, latex_text, macro_name, read_results

ROOT = Path(__file__).resolve().parents[1]
PAPER, BIB = ((ROOT / "paper" / name).read_text("utf-8") for name in ("main.tex", "references.bib"))
CLAIM = tables.CLAIMS[0]                # multitask minus dynamic on clips, expected to be negative


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in sorted(folder.rglob("*")) if p.is_file()}


def test_artifacts_have_the_same_bytes_each_time_and_name_no_machine(tmp_path):
    data = pd.DataFrame({"x": [1, 2], "y": [1 / 3, -0.0]})
    for folder in ("a", "b"):
        fig = Figure(figsize=(2, 2))
        fig.add_subplot(xlabel="epoch").plot(np.arange(5), np.sqrt(np.arange(5)))
        Artifacts(tmp_path / folder, "smoke", "n", (0,)).figure(fig, "curve", data, "A curve.")
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert (tmp_path / "a/source_data/curve.csv").read_bytes() == b"x,y\n1,0.333333\n2,0\n"
    assert b"CreationDate" not in (tmp_path / "a/curve.pdf").read_bytes()


def test_missing_and_foreign_artifacts_are_refused(tmp_path):
    with pytest.raises(OutputError, match="methods.csv is missing: run the notebook"):
        read_results(tmp_path, ["methods"])
    made = Artifacts(tmp_path, "smoke", "n")
    made.table(pd.DataFrame({"method": ["s4d"]}), "methods", "Methods.")
    assert len(read_results(tmp_path, ["methods"])["methods"]) == 1
    with pytest.raises(OutputError, match="already a table of notebook n"):
        Artifacts(tmp_path, "smoke", "m").table(pd.DataFrame({"a": [1]}), "methods", "")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match=r'results of profile smoke.*"../build/gpu/out"'):
        Artifacts(tmp_path, "gpu", "n")
    assert snapshot(tmp_path) == before


def test_text_of_tables():
    table = pd.DataFrame({"a_b": ["multi_task", "s4d"], "WAR": [51.23456, np.nan], "n": [1, 2],
                          "95 % CI": ["50 & 2", None]})
    assert csv_text(table) == "a_b,WAR,n,95 % CI\nmulti_task,51.2346,1,50 & 2\ns4d,,2,\n"
    tex = latex_text(table, "Two methods.", precision=1).splitlines()
    assert tex[:3] == ["% Two methods.", r"\begin{tabular}{lrrl}", r"\toprule"]
    assert tex[3] == r"a\_b & WAR & n & 95 \% CI \\" and tex[-1] == r"\end{tabular}"
    assert tex[5:7] == [r"multi\_task & 51.2 & 1 & 50 \& 2 \\", r"s4d & -- & 2 & -- \\"]
    assert r"\cite{x}" in latex_text(pd.DataFrame({"source": [r"\cite{x}"]}), escape=False)


def test_macros_are_named_by_letters_and_escaped(tmp_path):
    name = macro_name("war", "s4d", "FERV39K", "pre-trained")
    assert name == "WarSFourDFERVThreeNineKPreTrained"
    Artifacts(tmp_path, "smoke", "n").macros({name: "50 %", "B": 2}, "numbers", "")
    text = (tmp_path / "tables/numbers.tex").read_text()
    assert text == f"\\newcommand{{\\{name}}}{{50 \\%}}\n\\newcommand{{\\B}}{{2}}\n"


def row(claim: tables.Claim, low: float, high: float, p_holm: float = 0.01) -> dict:
    """A line of a paired table in which a claim's difference has this interval."""
    reference = None if claim.reference == claim.system else claim.reference
    return dict(task="video", pretrained=True, method=claim.system, method_reference=reference,
                metric="WAR", difference=(low + high) / 2, low=low, high=high, p=p_holm / 22,
                p_holm=p_holm, seeds=3, subjects=20)


@pytest.mark.parametrize("low, high, p, verdict", [
    (-0.05, -0.01, 0.01, "supported"), (0.01, 0.05, 0.01, "against"),
    (-0.05, 0.01, 0.01, "not decided"), (-0.05, -0.01, 0.20, "not decided"),
    (-0.05, 0.0, 0.01, "not decided"), (-0.05, -0.01, np.nan, "not decided")])
def test_verdicts_follow_interval_correction_and_expected_sign(low, high, p, verdict):
    table = tables.judge(pd.DataFrame([row(CLAIM, low, high, p)]), [CLAIM])
    assert table["verdict"].tolist() == [verdict] and table["low"][0] == pytest.approx(100 * low)


@pytest.mark.parametrize("harm, said, word", [
    ((-.1, -.05), "supported", "against"), ((.05, .1), "against", "no harm to repair"),
    ((-.1, .1), "not decided", "harm not shown"), (None, "not measured", "against")])
def test_a_claim_without_its_premise_is_not_judged(harm, said, word):
    given = {"Repair": (-.1, -.05), "Pretraining": (.1, .2)}
    given |= {"NegativeTransfer": harm} if harm else {}
    rows = [row(c, *given[c.name]) for c in tables.CLAIMS if c.name in given]
    verdicts = tables.judge(pd.DataFrame(rows)).set_index("name")["verdict"]
    assert verdicts.drop("PlainHelps").tolist() == [said, word, "not measured", "supported"]


def test_the_smallest_p_of_a_bootstrap_is_printed_as_a_bound():
    assert tables.p_words(2 / 2001, 0.03, 2000) == "≤ 0.030"
    assert tables.p_words(4 / 2001, 0.03, 2000) == "0.030"
    assert tables.p_words(np.nan, np.nan, 2000) == "n/a"


def test_published_numbers_are_plausible_and_sourced():
    table = tables.published()
    assert len(table) == 39 and not table.duplicated(["method", "dataset"]).any()
    assert [k for k in table["key"].unique() if f"{{{k}," not in BIB] == []
    assert table[table["dataset"] == "DFEW"]["WAR"].is_monotonic_decreasing
    places = tables.standing(table)
    assert places["s4d"].tolist() == [76.68, 53.65, 58.44]            # from the paper's abstract
    assert places["gain"].tolist() == [2.08, 1.26, 4.93] and (places["rank"] == 2).all()
    read = tables.sources_table(table).set_index("method")
    assert read.loc[tables.BASELINE, ["DFEW", "source"]].tolist() == [
        "-- / 74.60", r"\cite{s4d}, derived"]
    assert read.loc["IAL", "MAFW"] == "--"


def test_the_paper_types_no_result_and_uses_only_what_exists():
    body = PAPER.split(r"\begin{document}")[1]
    assert not re.search(r"\d+\.\d", re.sub(r"\[.*?\]\{", "{", body))     # results are macros
    written = [p.read_text("utf-8") for p in (ROOT / "figures").rglob("tables/*.tex")]
    known = re.findall(r"\\newcommand\{\\([A-Za-z]+)\}", "".join(written))
    latex = {"InputIfFileExists", "IfFileExists", "DeclareUnicodeCharacter", "Delta"}
    assert set(re.findall(r"\\([A-Z][A-Za-z]+)", PAPER)) <= {*known, *latex}
    files = [f"{name}.pdf" for name in re.findall(r"(?:drawn|graphics)\{([a-z_/]+)", body)]
    files += [f"tables/{name}.tex" for name in re.findall(r"\\fit\{\\[a-z]+\}\{([a-z_]+)\}", body)]
    assert len(files) == 14 and all((ROOT / "figures" / file).is_file() for file in files)
    keys = {k for keys in re.findall(r"\\cite\{([a-z0-9,]+)\}", PAPER) for k in keys.split(",")}
    assert keys and all(f"{{{key}," in BIB for key in keys)


def test_citation_and_licence_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], "MIT")
    preferred = citation["preferred-citation"]
    for text in ((ROOT / "README.md").read_text("utf-8"), BIB):
        assert preferred["doi"] in text and preferred["title"] in " ".join(text.split())


def test_the_committed_figures_are_complete():
    entries = json.loads((ROOT / "figures/manifest.json").read_text("utf-8"))["artifacts"].values()
    assert {e["notebook"] for e in entries} >= set(NOTEBOOKS) - {"00_method"}
    assert all((ROOT / "figures" / file).is_file() for e in entries for file in e["files"])
