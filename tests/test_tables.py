"""Artifacts, the report, findings in prose and `make verify`: each number as measured."""
import json
import re
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from s4d import verify
from s4d.__main__ import main
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
    table = pd.read_csv(ROOT / "paper/published.csv")
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


# --- verify: counts are exact, trained numbers hold inside their interval

SCORES = pd.DataFrame({"task": ["image", "video"], "method": "s4d", "value": [0.5, 0.6],
                       "low": [0.4, 0.5], "high": [0.6, 0.7], "seeds": 3, "subjects": [40, 20]})


def verdicts(new: pd.DataFrame, old: pd.DataFrame = SCORES, name: str = "scores") -> list[str]:
    return verify.verify({name: new}, {name: old})["verdict"].tolist()


def edited(column: str, value) -> pd.DataFrame:
    table = SCORES.copy()
    table[column] = table[column].astype(object)
    table.loc[1, column] = value
    return table.infer_objects()


def test_counts_names_rows_and_files_must_be_equal():
    assert verdicts(SCORES) == []
    for column, value in (("subjects", 21), ("seeds", 2), ("method", "dense")):
        assert verdicts(edited(column, value)) == ["fails"]
    assert verdicts(SCORES[:1]) == ["fails"] and verdicts(SCORES.drop(columns="seeds")) == ["fails"]
    for fresh, old in (({}, {"a": SCORES}), ({"a": SCORES}, {})):
        assert verify.verify(fresh, old)["verdict"].tolist() == ["fails"]
    counts = pd.DataFrame({"corpus": ["a"], "share": [0.25]})
    assert verdicts(counts.assign(share=0.26), counts, "corpus_counts") == ["fails"]


def test_a_trained_number_may_differ_inside_its_interval_alone():
    assert verdicts(edited("value", 0.69)) == []
    moved = SCORES.assign(value=[0.5, 0.75], low=[0.4, 0.65], high=[0.6, 0.85])
    assert verdicts(moved) == ["moved"]
    apart = SCORES.assign(value=[0.5, 0.9], low=[0.4, 0.85], high=[0.6, 0.95])
    assert verdicts(apart) == ["fails"]
    assert verdicts(edited("value", None)) != []


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
    edited("subjects", 21).to_csv(committed / "scores.csv", index=False)     # not committed
    assert main(["verify"]) == 0 and "1 tables: 0 numbers fail" in capsys.readouterr().out
    edited("subjects", 21).to_csv(fresh / "scores.csv", index=False)
    assert main(["verify"]) == 1 and "subjects of video" in capsys.readouterr().out
    assert main(["verify", "--profile", "smoke"]) == 2
    assert "holds no source data (*.csv)" in capsys.readouterr().err


# --- findings in prose: each stands in its text as the committed csv has it, and holds

# A line a finding: the texts that say it; the words, in which {ci} is the row's value with its
# interval, in per cent or points, and {column:format} another cell; csv and row; what must hold.
LINES = (ROOT / "tests/findings.tsv").read_text("utf-8").splitlines()[1:]
FINDINGS = [line.split("\t") for line in LINES]
RESULTS, TABLE = "docs/results.md", "figures/source_data/finetuning_table.csv"
VERDICTS = {
    "significant": lambda r: r["low"] * r["high"] > 0 and r["p_holm"] < 0.05,
    "corrected away": lambda r: r["low"] * r["high"] > 0 and r["p_holm"] >= 0.05,
    "open": lambda r: r["low"] <= 0 <= r["high"],
    "above 0": lambda r: r["low"] > 0,
    "above null": lambda r: r["mean"] > r["null_top"] and r["p_holm"] < 0.05,
    "null corrected away": lambda r: r["mean"] > r["null_top"] and r["p_holm"] >= 0.05,
    "within null": lambda r: r["mean"] <= r["null_top"],
    "": lambda r: True,
}


def text_of(file: str) -> str:
    """A file's words in one line, per cent signs left out; of a notebook, its cells."""
    text = (ROOT / file).read_text("utf-8")
    if file.endswith(".ipynb"):
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return " ".join(text.replace("**", "").replace("\\%", "").replace(" %", "").split())


def interval(row: pd.Series) -> str:
    """A value as prose prints it, `+17.4 [+10.3, +24.5]` or `44.0 [37.9, 51.6]`."""
    name = next((name for name in ("difference", "value", "war", "mean") if name in row), None)
    ends = ("mean_low", "mean_high") if "mean_low" in row else ("low", "high")
    scale = 1 if name in ("war", "mean") else 100
    form = "+.1f" if name == "difference" else ".1f"
    value, low, high = (format(scale * float(row[column]), form) for column in (name, *ends))
    return f"{value} [{low}, {high}]"


@pytest.mark.parametrize("where, words, table, key, verdict", FINDINGS)
def test_a_finding_stands_as_measured_and_holds(where, words, table, key, verdict):
    rows = pd.read_csv(ROOT / table, dtype={"setting": str, "share": str})
    for column, value in (pair.split("=") for pair in key.split("; ")):
        rows = rows[rows[column].astype(str) == value]
    assert len(rows) == 1, f"{len(rows)} rows of {table} have {key}"
    row = rows.iloc[0]
    ci = interval(row) if "{ci}" in words else ""
    expected = words.replace(" %", "").format(ci=ci, **row)
    for file in where.split():
        assert expected in text_of(file), f"{file} does not say: {expected}"
    assert VERDICTS[verdict](row), f"not {verdict}: {row.to_dict()}"


def test_the_table_of_results_is_the_csv():
    names = dict(dynamic="dynamic only", static="static only", multitask="multi-task", s4d="S4D")
    for (method, pretrained), rows in pd.read_csv(ROOT / TABLE).groupby(["method", "pretrained"]):
        cells = {(r["task"], r["metric"]): interval(r) for _, r in rows.iterrows()}
        shown = [cells.get(k, "-") for k in (("video", "UAR"), ("video", "WAR"), ("image", "UAR"))]
        begin = "pre-trained" if pretrained else "from scratch"
        line = " | ".join((names.get(method, method), begin, *shown))
        assert f"| {line} |" in text_of(RESULTS)
