"""The report: published numbers, verdicts, macros, figures, and that README and paper only use what exists."""
from __future__ import annotations

import ast
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from s4d import claims, config as configs, macros as tex, published, report
from s4d.study import stats
from s4d.artifacts import Artifacts
from s4d.files import OutputError
from s4d.notebooks import NOTEBOOKS
from s4d.study.figures import report as plots

ROOT = Path(__file__).resolve().parents[1]
README, PAPER = (ROOT / "README.md").read_text(), (ROOT / "paper" / "main.tex").read_text()
BIB = (ROOT / "paper" / "references.bib").read_text()
REPORT = ["".join(c["source"]) for c in json.loads((ROOT / "notebooks" / "06_report.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
CLAIM = report.CLAIMS[0]                # multitask minus dynamic on clips, expected to be negative


def row(claim: report.Claim, low: float, high: float, p_holm: float = 0.01) -> dict:
    """One line of a paired table in which a claim's difference has this interval."""
    partners = {f"{c}_reference": v for c, v in claim.reference.items() if claim.system[c] != v}
    return {**claim.system, **partners, "metric": "WAR", "difference": (low + high) / 2, "low": low, "high": high, "p": p_holm / 22,
            "p_holm": p_holm, "seeds": 3, "subjects": 20}


def scores(methods=("dynamic", "multitask", "s4d")) -> pd.DataFrame:
    rows = [(t, p, m, k, 0.5, 0.4, 0.6, 20, 280) for t in ("image", "video") for p in (True, False) for m in methods for k in ("UAR", "WAR")]
    return pd.DataFrame(rows, columns=["task", "pretrained", "method", "metric", "value", "low", "high", "subjects", "samples"])


def test_published_numbers_are_plausible_and_sourced():
    table = published.results()
    assert len(table) == 39 and not table.duplicated(["method", "dataset"]).any()
    assert table[["WAR", "UAR"]].stack().dropna().between(20, 80).all()
    both = table.dropna()
    assert len(both) == 29 and (both["UAR"] < both["WAR"]).all()
    assert table["source"].str.len().gt(5).all() and table["year"].between(2021, 2025).all()
    assert [k for k in table["key"].unique() if f"{{{k}," not in BIB] == []


def test_the_papers_headline_numbers():
    gains = published.gains().set_index("dataset")
    assert gains.loc[["FERV39K", "MAFW", "DFEW"], "s4d"].tolist() == [53.65, 58.44, 76.68]      # from the paper's abstract
    assert gains["gain"].tolist() == [2.08, 1.26, 4.93]
    ranks = published.ranks()
    assert ranks["methods"].tolist() == [13, 12, 10] and ranks["best"].tolist() == ["MMA-DFER", "FineCLIPER", "MMA-DFER"]


@pytest.mark.parametrize("low, high, p, said", [(-0.05, -0.01, 0.01, "supported"), (0.01, 0.05, 0.01, "against"),
                                                (-0.05, 0.01, 0.01, "not decided"), (-0.05, -0.01, 0.20, "not decided"),
                                                (-0.05, 0.0, 0.01, "not decided"), (-0.05, -0.01, np.nan, "not decided")])
def test_verdicts_follow_interval_correction_and_expected_sign(low, high, p, said):
    paired = pd.DataFrame([row(CLAIM, low, high, p)])
    judged = report.judge(paired, [CLAIM])
    assert judged["verdict"].tolist() == [said] and judged["low"].iloc[0] == pytest.approx(100 * low)
    mirrored = report.word(-high, -low, p, -CLAIM.expected)
    assert mirrored == said


def test_a_comparison_that_was_not_made_has_no_number():
    judged = report.judge(pd.DataFrame([row(CLAIM, -0.05, -0.01)]))
    assert judged["verdict"].tolist() == ["supported", "not measured", "not measured", "against", "not measured"]
    assert judged["difference"].isna().sum() == 3 and "--" in report.claims_as_read(judged, 2000).iloc[1].tolist()
    plots.claims(judged, "a note").savefig("/dev/null", format="png")


def test_claims_find_their_rows_in_real_statistics(tmp_path):
    """Predictions in which multi-task is worse, experts better, and pre-training better: every claim holds, also through a CSV file."""
    quality, rng, rows = {("dynamic", True): 0.6, ("multitask", True): 0.3, ("s4d", True): 0.9, ("s4d", False): 0.5}, np.random.default_rng(0), []
    luck = rng.random(400)
    for (method, pretrained), share in quality.items():
        for i in range(400):
            label = ("anger", "fear")[i % 2]
            rows.append({"task": "video", "method": method, "pretrained": pretrained, "seed": 0, "path": f"{i:03d}", "subject": str(i // 10),
                         "label": label, "predicted": label if luck[i] < share else "disgust"})
    pairs = [(dict(c.system), dict(c.reference)) for c in report.CLAIMS]
    stats.paired(pd.DataFrame(rows), pairs, resamples=300).to_csv(tmp_path / "p.csv", index=False)
    judged = report.judge(pd.read_csv(tmp_path / "p.csv"))
    assert judged["verdict"].tolist() == ["supported", "supported", "supported", "against", "supported"]
    assert judged["difference"].round().tolist() == pytest.approx([100 * (a - b) for a, b in ((.3, .6), (.9, .3), (.9, .6), (.3, .6), (.9, .5))], abs=8)
    assert (np.sign(judged["difference"]) == judged["expected"])[judged["paper"]].all() and judged["paper"].tolist() == [True] * 3 + [False, True]


def test_names_and_text_of_macros():
    assert tex.macro_name("war", "s4d", "FERV39K", "pre-trained") == "WarSFourDFERVThreeNineKPreTrained"
    assert [report.signed(v) for v in (1.26, -0.04, -2.0)] == ["+1.3", "0.0", "−2.0"]
    table = pd.DataFrame({"name": ["A", "B"], "text": ["50 %", "−2.0"]})
    assert tex.macros_text(table) == "\\newcommand{\\A}{50 \\%}\n\\newcommand{\\B}{$-$2.0}\n"
    for names in (["A", "A"], ["A", "B1"]):
        with pytest.raises(OutputError, match="unique and of letters only"):
            tex.macros_text(table.assign(name=names))
    with pytest.raises(OutputError, match="no letter or digit"):
        tex.macro_name("war", "-")


def macros() -> pd.DataFrame:
    judged = report.judge(pd.DataFrame([row(c, -0.05, -0.01) for c in report.CLAIMS]))
    assignment = next(node for cell in REPORT for node in ast.walk(ast.parse(cell))
                      if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "extra")
    extra = {key.value: "1" for key in assignment.value.keys}
    return tex.macros_of(judged, scores(), published.gains(), published.ranks(), extra)


def test_every_number_of_the_paper_has_a_macro(tmp_path):
    made = Artifacts(tmp_path, "smoke", "06_report")
    tex.write_macros(made, macros())
    made.check(["numbers"])
    defined = set(re.findall(r"\\newcommand\{\\([A-Za-z]+)\}", (tmp_path / "tables" / "numbers.tex").read_text()))
    used = {name for name in re.findall(r"\\([A-Z][A-Za-z]+)", PAPER) if not name.endswith("IfFileExists") and not name.startswith("Caption")}
    assert {"DiffRepair", "WarSFourDVideoPretrained", "PublishedGainMAFW"} <= used <= defined


def test_the_paper_types_no_result_and_uses_only_declared_artifacts():
    body = PAPER.split(r"\begin{document}")[1]
    assert not re.search(r"\d+\.\d", re.sub(r"\[.*?\]\{", "{", body))          # decimals are results, and results are macros
    declared = set(re.findall(r'"([a-z_]+)"', REPORT[-1]))
    used = set(re.findall(r"(?:includegraphics(?:\[.*?\])?\{|\\fit\{\\[a-z]+\}\{)([a-z_]+)", PAPER))
    assert used <= declared and len(used) == 5
    figures = dict(re.findall(r"\\drawn\{([a-z_]+)\}\{\\([A-Za-z]+)\}", PAPER))
    written = tex.captions_of(json.loads((ROOT / "figures/manifest.json").read_text())["artifacts"], figures)
    assert len(figures) == 9 and figures == dict(zip(figures, written["name"])) and all(f'"{name}"' in "".join(REPORT) for name in figures)
    assert {f"fig:{name}" for name in figures} >= set(re.findall(r"ref\{(fig:[a-z]+_[a-z_]+)\}", PAPER))
    night = dict(re.findall(r"\\drawn\{night/([a-z_]+)\}\{\\([A-Za-z]+)\}", PAPER))
    written = tex.captions_of(json.loads((ROOT / "figures/night/manifest.json").read_text())["artifacts"], night, "night")
    assert len(night) == 3 and night == dict(zip(night, written["name"])) and all(
        f"\\newcommand{{\\{name}}}" in (ROOT / "figures/night/tables/captions.tex").read_text() for name in night.values())
    assert {f"night/{name}" for name in night} == set(re.findall(r"ref\{fig:(night/[a-z_]+)\}", PAPER))
    assert set(re.findall(r"\\cite\{([a-z0-9,]+)\}", PAPER)) and all(
        f"{{{key}," in BIB for keys in re.findall(r"\\cite\{([a-z0-9,]+)\}", PAPER) for key in keys.split(","))


def test_results_of_another_profile_or_none_are_refused(tmp_path):
    with pytest.raises(OutputError, match="scores.csv is missing: .* notebooks 02 to 05"):
        report.read_results(tmp_path, ["scores"], "smoke")
    Artifacts(tmp_path, "smoke", "03_finetuning").table(scores(), "scores", "Scores.")
    assert len(report.read_results(tmp_path, ["scores"], "smoke")["scores"]) == 24
    with pytest.raises(OutputError, match="made with profile smoke and the report is for gpu: run 03_finetuning"):
        report.read_results(tmp_path, ["scores"], "gpu")
    with pytest.raises(OutputError, match="no column 'low'"):
        report.long_scores(scores().drop(columns="low"))


def test_published_figure_shows_all_and_is_the_same_each_time(tmp_path):
    table = published.results()
    for folder in ("a", "b"):
        fig = plots.published(published.by_war(table), published.METHOD, published.BASELINE)
        Artifacts(tmp_path / folder, "smoke", "06_report").figure(fig, "published", table, "Published.")
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in ("published.pdf", "source_data/published.csv"))
    assert len(fig.axes) == 3 and len(fig.axes[0].get_yticklabels()) == 13
    texts = [t.get_text() for ax in fig.axes for t in ax.texts]
    assert texts.count("not found") == 4 and {"76.68", "53.65", "58.44"} <= set(texts) and "none was measured here" in fig.get_supxlabel()
    assert len({round(float(np.ptp(ax.get_xlim())), 6) for ax in fig.axes}) == 1        # equal gaps are equal points
    assert all(ax.get_legend() is None for ax in fig.axes) and [t.get_text() for t in fig.legends[0].get_texts()] == ["WAR", "WAR, derived", "UAR"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()][-1].startswith("MMA-DFER")
    colours = {line.get_color() for ax in fig.axes for line in ax.lines}
    assert len(colours) == 2                                                             # S4D's, and one for all others


def test_the_baselines_number_is_derived_and_says_so():
    table = published.results()
    baseline = table[table["method"] == published.BASELINE]
    assert set(baseline["key"]) == {"s4d"} and baseline["source"].str.startswith("derived").all() and "videomae" not in set(table["key"])
    read = published.reading_table().set_index("method")
    assert read.loc[published.BASELINE, "source"] == r"\cite{s4d}, derived" and read.loc["IAL", "MAFW"] == "--"
    assert read.index[0] == "MMA-DFER" and read.index[-1] == "Former-DFER" and len(read) == 13
    assert read["source"].str.endswith("derived").sum() == 1


def test_every_verdict_is_set_in_the_same_type():
    for harm in ((-.1, -.05), (.05, .1), (-.1, .1)):
        judged = report.judge(differences(NegativeTransfer=harm, Repair=(-.1, -.05), StaticHelps=(-.1, .1), Pretraining=(.05, .1)))
        ax = plots.claims(judged, "note").axes[0]
        said = [t for t in ax.texts if t.get_gid() == "verdict"]
        assert [t.get_text() for t in said] == judged["verdict"].tolist()[::-1]
        assert len({(t.get_fontsize(), t.get_fontweight(), t.get_color()) for t in said}) == 1
        sides = {(bar.get_y(), bar.get_width() > 0) for bar in ax.patches}                 # the expected side, claim by claim
        assert [side for _, side in sorted(sides)] == [e > 0 for e in judged["expected"][::-1]]


@pytest.mark.parametrize("harm, said, word", [((-.1, -.05), "supported", "supported"), ((.05, .1), "against", "no harm to repair"),
                                              ((-.1, .1), "not decided", "harm not shown"), (None, "not measured", "supported")])
@pytest.mark.parametrize("repair", [(.05, .1), (-.1, -.05), (-.1, .1)])
def test_a_claim_without_its_premise_is_not_judged(harm, said, word, repair):
    """Whatever the experts change: without a harm there is none to repair, and only a shown harm lets the claim be judged."""
    given = {"Repair": repair} | ({"NegativeTransfer": harm} if harm else {})
    verdict = report.judge(differences(**given)).set_index("name")["verdict"]
    direct = {(.05, .1): "supported", (-.1, -.05): "against", (-.1, .1): "not decided"}[repair]
    assert verdict["NegativeTransfer"] == said and verdict["Repair"] == (direct if word == "supported" else word)
    assert {v for v in verdict if v != "not measured"} <= set(claims.SIDES)


def test_verification_follows_a_claim_that_lost_its_premise():
    old, new = (report.judge(differences(NegativeTransfer=harm, Repair=(.05, .1))) for harm in ((-.1, -.05), (-.1, .1)))
    found = {r["claim"].split(":")[0]: r["verdict"] for r in claims.of_notebook({"report_claims": new}, {"report_claims": old})}
    assert found["experts repair that harm"] == "weaker" and found["pre-training helps clips"] == "holds"
    back = {r["claim"].split(":")[0]: r["verdict"] for r in claims.of_notebook({"report_claims": old}, {"report_claims": new})}
    assert back["experts repair that harm"] == "stronger"


def test_the_table_of_claims_shows_p_and_marks_what_is_not_the_papers():
    paired = pd.DataFrame([row(CLAIM, -.05, -.01, 0.03) | {"p": 2 / 2001}, row(report.CLAIMS[1], -.05, .01, 0.03)])
    read = report.claims_as_read(report.judge(paired), 2000)
    assert read["p"].tolist()[:2] == ["≤ 0.030", "0.030"] and report.claims_as_read(report.judge(paired), 4000)["p"][0] == "0.030"
    assert read["claim"].str.contains("not of the paper").tolist() == [False, False, False, True, False]


def differences(**intervals) -> pd.DataFrame:
    """A paired table with the claims' comparisons: claim's name -> (low, high)."""
    return pd.DataFrame([row(c, *intervals[c.name]) for c in report.CLAIMS if c.name in intervals])


def test_a_claim_that_is_not_decided_is_a_question_and_never_a_finding():
    up, over, down = (.05, .1), (-.1, .1), (-.1, -.05)
    harm, repair, helps, start = report.sentences(differences(NegativeTransfer=up, Repair=over, StaticHelps=over, Pretraining=up))
    assert harm.startswith("**Against**: that plain multi-task harms clips. Multi-task minus Dynamic only is +7.5 points (+5.0 to +10.0")
    assert repair.startswith("**No harm to repair**: whether experts repair that harm.") and "neither a gain nor a loss is shown" in repair
    assert "takes for granted that plain multi-task harms clips, which is contradicted here" in repair
    lost = report.sentences(differences(NegativeTransfer=over, Repair=down))[1]
    assert lost.startswith("**Harm not shown**") and "which is not shown here" in lost and "with them it is lower, which repairs nothing" in lost
    assert helps.startswith("**Not decided**: whether photos") and start.startswith("**Supported**: that pre-training helps clips.")
    shown = report.sentences(differences(NegativeTransfer=down, Repair=up))
    assert shown[0].startswith("**Supported**") and "takes for granted" not in shown[1] and shown[3].startswith("**Not measured**: whether")
    uncorrected = report.sentences(pd.DataFrame([row(CLAIM, -.1, -.05, 0.2)]), [CLAIM])[0]
    assert uncorrected.startswith("**Not decided**: whether") and "does not outlast the correction" in uncorrected


@pytest.mark.parametrize("experts, said", [((-.1, .1), "not to be credited to them"), ((.05, .1), "the experts add"),
                                           ((-.1, -.05), "with the experts it is lower")])
def test_what_photos_give_without_experts_stands_beside_the_claim(experts, said):
    text = report.sentences(differences(NegativeTransfer=(.2, .3), Repair=experts, StaticHelps=(.2, .4)))[2]
    assert text.startswith("**Supported**") and "Without experts, Multi-task minus Dynamic only is +25.0 points (+20.0 to +30.0" in text
    assert said in text
    assert "was not measured" in report.sentences(differences(StaticHelps=(.2, .4)))[2]


def test_the_pixel_classifier_is_read_only_for_the_same_faces(tmp_path):
    faces = configs.profile("smoke").faces
    table = pd.DataFrame([(t, i, m, v, v - .1, v + .1) for t, v in (("image", .5), ("video", .3)) for i in ("true actions", "raw pixels")
                          for m in ("UAR", "WAR")], columns=["task", "input", "metric", "value", "low", "high"])
    assert report.pixel_classifier(tmp_path, "smoke", faces) is None
    Artifacts(tmp_path, "smoke", "01_faces", config_digest=configs.digest(faces)).table(table, "faces_difficulty", "Scores.")
    assert report.pixel_classifier(tmp_path, "smoke", faces)["value"].to_dict() == {"image": .5, "video": .3}
    assert report.pixel_classifier(tmp_path, "smoke", replace(faces, seed=9)) is None
    assert report.pixel_classifier(tmp_path, "sandbox", faces) is None and report.pixel_classifier(tmp_path, "smoke", None) is None


def test_runs_are_shown_in_words():
    rows = [("pretrain", "s4d_mae_nano_patch16_64", "image+video", 0, False), ("finetune", "s4d_nano_patch16_64", "video", 0, False),
            ("finetune", "s4d_nano_patch16_64", "image+video", 0, True), ("finetune", "s4d_nano_patch16_64", "image+video", 8, True)]
    table = pd.DataFrame(rows, columns=["stage", "model", "tasks", "experts", "pretrained"])
    shown = report.summary_as_read(table.assign(runs=1, seeds=1, steps=4))
    assert shown["system"].tolist() == ["masked autoencoder", "Dynamic only", "Multi-task", "S4D (MoAE)"]
    assert shown["start"].tolist() == ["-", "from scratch", "pre-trained", "pre-trained"]
    assert shown["network"].iloc[0] == "nano, tokens of 16 px, pictures of 64 px" and shown["stage"].iloc[1] == "fine-tuning"


def test_what_is_compared_byte_by_byte_holds_no_time_and_no_machine():
    rows = pd.DataFrame([{"stage": "finetune", "model": "m", "tasks": "video", "experts": 0, "pretrained": False, "seed": s, "steps": 4,
                          "seconds": 1.5 + s, "device": "CPU", "versions": "torch 2"} for s in (0, 1)])
    assert list(report.runs_summary(rows).columns) == ["stage", "model", "tasks", "experts", "pretrained", "runs", "seeds", "steps"]
    assert report.runs_summary(rows)[["runs", "seeds", "steps"]].values.tolist() == [[2, 2, 4]]
    assert "seconds" not in report.runs_as_read(rows, "smoke")


def test_citation_and_licence_agree():
    citation, project = yaml.safe_load((ROOT / "CITATION.cff").read_text()), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"]) == (project["version"], "MIT")
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    preferred = citation["preferred-citation"]
    for text in (README, BIB):
        assert preferred["doi"] in text and preferred["title"] in " ".join(text.split())


def test_the_committed_figures_are_complete():
    entries = json.loads((ROOT / "figures/manifest.json").read_text())["artifacts"].values()
    assert {e["notebook"] for e in entries} == set(NOTEBOOKS)
    assert all((ROOT / "figures" / file).is_file() for e in entries for file in e["files"])
