"""Findings stated in prose: each stands in its text as the committed csv has it, and holds."""
from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
README, RESULTS = "README.md", "docs/results.md"
BOTH = (README, RESULTS)
SANDBOX, NIGHT = "figures/source_data/", "figures/night/source_data/"
PAIRS, HARD = SANDBOX + "finetuning_paired.csv", SANDBOX + "faces_difficulty.csv"
USE, TRANSFER = SANDBOX + "experts_specificity.csv", SANDBOX + "transfer_matrix.csv"
HELP, ABLATIONS = NIGHT + "ablations_help.csv", NIGHT + "ablations_paired.csv"


def pair(method, reference, metric="WAR", task="video", pretrained=True):
    return dict(method=method, method_reference=reference, metric=metric, task=task,
                pretrained=pretrained)


def start(method):
    return dict(pretrained=True, pretrained_reference=False, method=method, metric="WAR",
                task="video")


def changed(study, setting, method="s4d"):
    return dict(study=study, setting=setting, method=method, metric="WAR", task="video")


def hard(name):
    return dict(input=name, metric="WAR")


def used(about):       # in the last block; each seed's row repeats the mean over seeds
    return dict(block=3, about=about, seed=0, index="")


# (where it is said, the words, csv, row, what must hold). In the words {ci} is the row's value with
# its interval, in per cent or points, and {column:format} another cell.
FINDINGS = [
    (BOTH, "Multi-task gains {ci}", PAIRS, pair("multitask", "dynamic"), "significant"),
    (BOTH, "S4D gains {ci}", PAIRS, pair("s4d", "dynamic"), "significant"),
    (BOTH, "differs from static only by {ci}", PAIRS, pair("multitask", "static", "UAR", "image"),
     "open"),
    (RESULTS, "S4D loses {ci} points of UAR on photos", PAIRS,
     pair("s4d", "static", "UAR", "image", False), "corrected away"),
    (BOTH, "differs from multi-task by {ci}", PAIRS, pair("s4d", "multitask"), "open"),
    (RESULTS, "the difference is {ci}", PAIRS, pair("s4d", "multitask", pretrained=False), "open"),
    (BOTH, "differs from them by {ci}", PAIRS, pair("s4d", "adapters"), "open"),
    (BOTH, "adds {ci} points of WAR to dynamic only", PAIRS, start("dynamic"), "significant"),
    (BOTH, "and {ci} to S4D", PAIRS, start("s4d"), "significant"),
    (RESULTS, "It adds {ci} to multi-task", PAIRS, start("multitask"), "corrected away"),
    (RESULTS, "dynamic only falls from {ci} to", HARD, hard("Dynamic only, whole clip"), ""),
    (RESULTS, "to {ci} WAR and S4D", HARD, hard("Dynamic only, middle frame"), ""),
    (RESULTS, "and S4D from {ci} to", HARD, hard("S4D (MoAE), whole clip"), ""),
    (RESULTS, "[54.9, 67.4] to {ci}.", HARD, hard("S4D (MoAE), middle frame"), ""),
    (RESULTS, "reaches {ci} on the whole clip", HARD, hard("true actions, whole clip"), ""),
    (RESULTS, "and {ci} on its middle frame", HARD, hard("true actions, middle frame"), ""),
    (RESULTS, "tells {ci} of a photo's emotion", USE, used("emotion, image"), "above null"),
    (RESULTS, "and {ci} of a clip's", USE, used("emotion, video"), "above null"),
    (RESULTS, "tells {ci} of the place", USE, used("place, image"), "above null"),
    (RESULTS, "tells {ci} of whether", USE, used("task"), "within null"),
    (RESULTS, "correlation is {rho:.2f} [{low:.2f}, {high:.2f}]", SANDBOX + "confusability.csv",
     dict(comparison="separate", label="fear", wrong="surprise"), "above 0"),
    (RESULTS, "cosine of {diagonal:.2f}. Those of different emotions have {off_diagonal:.2f}",
     SANDBOX + "prototype_similarity.csv",
     dict(method="s4d", image_class="fear", video_class="fear"), ""),
    (RESULTS, "photo head recognises {ci} of the clips", TRANSFER,
     dict(method="s4d", head="image", stimuli="video", reading="head"), ""),
    (RESULTS, "its clip head {ci}.", TRANSFER,
     dict(method="s4d", head="video", stimuli="video", reading="head"), ""),
    (RESULTS, "| photos held still | {ci} |", HELP, changed("gap", "0"), "significant"),
    (RESULTS, "| the sandbox corpus | {ci} |", HELP, changed("gap", "0.2"), "significant"),
    (RESULTS, "| 0.5 | | {ci} |", HELP, changed("gap", "0.5"), "significant"),
    (RESULTS, "talking | {ci}, not significant |", HELP, changed("gap", "1"), "open"),
    (RESULTS, "photos add {ci} points", HELP, changed("clips", "0.1"), "significant"),
    (RESULTS, "with {clips:.0f} clips and 6 390 photos does as well as dynamic only with "
     "{alone:.0f} clips. The interval of that number goes from {low:.0f}",
     NIGHT + "clips_saved.csv", dict(share="0.1"), ""),
    (RESULTS, "photos S4D loses {ci}", ABLATIONS, changed("photos", "0.03"), "corrected away"),
    (RESULTS, "with 10 % {ci}", ABLATIONS, changed("photos", "0.1"), "corrected away"),
    (RESULTS, "with 10 % {ci}", SANDBOX + "ablations_paired.csv", changed("photos", "0.1"),
     "significant"),
    (RESULTS, "with 30 % {ci}", ABLATIONS, changed("photos", "0.3"), "open"),
    (RESULTS, "| photos instead of both | {ci} |", ABLATIONS, changed("start", "photos"), "open"),
    (RESULTS, "| {ci} |", ABLATIONS, changed("start", "photos", "dynamic"), "open"),
    (RESULTS, "clips instead of both | {ci}", ABLATIONS, changed("start", "clips"), "significant"),
    (RESULTS, "| {ci} |", ABLATIONS, changed("start", "clips", "dynamic"), "significant"),
    (RESULTS, "| 1 expert | {ci} |", ABLATIONS, changed("experts", "1"), "open"),
    (RESULTS, "| 16 experts | {ci} |", ABLATIONS, changed("experts", "16"), "open"),
    (RESULTS, "| 1 expert per token | {ci} |", ABLATIONS, changed("top_k", "1"), "open"),
    (RESULTS, "| all 8 experts per token | {ci} |", ABLATIONS, changed("top_k", "8"), "open"),
    (RESULTS, "| experts in all blocks | {ci} |", ABLATIONS, changed("blocks", "all"), "open"),
    (RESULTS, "in the last block alone | {ci} |", ABLATIONS, changed("blocks", "last"), "open"),
]

VERDICTS = {
    "significant": lambda r: r["low"] * r["high"] > 0 and r["p_holm"] < 0.05,
    "corrected away": lambda r: r["low"] * r["high"] > 0 and r["p_holm"] >= 0.05,
    "open": lambda r: r["low"] <= 0 <= r["high"],
    "above 0": lambda r: r["low"] > 0,
    "above null": lambda r: r["mean"] > r["null_top"] and r["p_holm"] < 0.05,
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
    if name is None:
        return ""
    ends = ("mean_low", "mean_high") if name == "mean" else ("low", "high")
    scale = 1 if name in ("war", "mean") else 100
    form = "+.1f" if name == "difference" else ".1f"
    value, low, high = (format(scale * float(row[column]), form) for column in (name, *ends))
    return f"{value} [{low}, {high}]"


@pytest.mark.parametrize("where, words, table, key, verdict", FINDINGS)
def test_a_finding_stands_as_measured_and_holds(where, words, table, key, verdict):
    rows = pd.read_csv(ROOT / table, dtype={"setting": str, "share": str})
    for column, value in key.items():
        rows = rows[rows[column].isna() if value == "" else rows[column] == value]
    assert len(rows) == 1, f"{len(rows)} rows of {table} have {key}"
    row = rows.iloc[0]
    expected = words.replace(" %", "").format(ci=interval(row), **row)
    for file in (where,) if isinstance(where, str) else where:
        assert expected in text_of(file), f"{file} does not say: {expected}"
    assert VERDICTS[verdict](row), f"not {verdict}: {row.to_dict()}"


def test_the_table_of_results_is_the_csv():
    names = dict(dynamic="dynamic only", static="static only", multitask="multi-task", s4d="S4D")
    table = pd.read_csv(ROOT / SANDBOX / "finetuning_table.csv")
    for (method, pretrained), rows in table.groupby(["method", "pretrained"]):
        cells = {(r["task"], r["metric"]): interval(r) for _, r in rows.iterrows()}
        shown = [cells.get(k, "-") for k in (("video", "UAR"), ("video", "WAR"), ("image", "UAR"))]
        begin = "pre-trained" if pretrained else "from scratch"
        line = " | ".join((names.get(method, method), begin, *shown))
        assert f"| {line} |" in text_of(RESULTS)
