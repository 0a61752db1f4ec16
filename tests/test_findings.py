"""Findings stated in prose: each stands in its text as the committed csv has it, and holds."""
from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
README, RESULTS = "README.md", "docs/results.md"
N1, N2, N3, N4, N5, N6 = (f"notebooks/{name}.ipynb" for name in (
    "01_faces", "02_pretraining", "03_finetuning", "04_experts", "05_correlation", "06_report"))
BOTH, ALL = (README, RESULTS), (README, RESULTS, N3, N6)
SANDBOX, NIGHT = "figures/source_data/", "figures/night/source_data/"
PAIRS, HARD = SANDBOX + "finetuning_paired.csv", SANDBOX + "faces_difficulty.csv"
USE, TRANSFER = SANDBOX + "experts_specificity.csv", SANDBOX + "transfer_matrix.csv"
HELP, ABLATIONS = NIGHT + "ablations_help.csv", NIGHT + "ablations_paired.csv"
NIGHT_PAIRS, TABLE = NIGHT + "finetuning_paired.csv", SANDBOX + "finetuning_table.csv"
ACTIONS, ERRORS = SANDBOX + "faces_actions.csv", SANDBOX + "pretraining_error.csv"
PROTOTYPES, WRONG = SANDBOX + "prototype_similarity.csv", SANDBOX + "confusability.csv"
CKA, ALONG = SANDBOX + "layer_similarity.csv", SANDBOX + "static_along_clip.csv"
MAPS, OFF = SANDBOX + "experts_maps.csv", SANDBOX + "experts_switched_off.csv"
MODES, GAINS = SANDBOX + "routing_modes.csv", SANDBOX + "static_gains.csv"
CONFUSED = SANDBOX + "finetuning_confusion.csv"
FEAR = dict(image_class="fear", video_class="fear")
CROSSED = dict(comparison="separate", label="fear", wrong="surprise")


def pair(method, reference, metric="WAR", task="video", pretrained=True):
    return dict(method=method, method_reference=reference, metric=metric, task=task,
                pretrained=pretrained)


def start(method):
    return dict(method=method, metric="WAR", task="video", pretrained_reference=False)


def changed(study, setting, method="s4d"):
    return dict(study=study, setting=setting, method=method, metric="WAR", task="video")


def hard(name, **task):
    return dict(input=name, metric="WAR", **task)


def used(about, block=3):       # each seed's row repeats the mean over seeds
    return dict(block=block, about=about, seed=0)


def read_by(method, head, stimuli):
    return dict(method=method, head=head, stimuli=stimuli, reading="head")


# (where it is said, the words, csv, row, what must hold). In the words {ci} is the row's value with
# its interval, in per cent or points, and {column:format} another cell.
FINDINGS = [
    (ALL, "gains {ci}", PAIRS, pair("multitask", "dynamic"), "significant"),
    (ALL, "{ci}", PAIRS, pair("s4d", "dynamic"), "significant"),
    (BOTH, "differs from static only by {ci}", PAIRS, pair("multitask", "static", "UAR", "image"),
     "open"),
    (RESULTS, "S4D loses {ci} points of UAR on photos", NIGHT_PAIRS,
     pair("s4d", "static", "UAR", "image", False), "corrected away"),
    (ALL, "{ci}", PAIRS, pair("s4d", "multitask"), "open"),
    (RESULTS, "the difference is {ci}", NIGHT_PAIRS, pair("s4d", "multitask", pretrained=False),
     "open"),
    (BOTH, "differs from them by {ci}", PAIRS, pair("s4d", "adapters"), "open"),
    (BOTH, "adds {ci} points of WAR to dynamic only", PAIRS, start("dynamic"), "significant"),
    ((*BOTH, N6), "{ci}", PAIRS, start("s4d"), "significant"),
    (RESULTS, "it adds {ci} to multi-task", NIGHT_PAIRS, start("multitask"), "corrected away"),
    *((N3, words, TABLE, dict(task="video", metric="WAR", method="dynamic", pretrained=start_), "")
      for words, start_ in (("reaches {ci} of the clips from scratch", False),
                            ("from scratch and {ci} pre-trained", True))),
    (N3, "is right {count:.0f} times of 39", CONFUSED,
     dict(task="video", method="s4d", label="disgust", predicted="disgust"), ""),
    *((RESULTS, words, HARD, hard(reader), "") for words, reader in (
        ("dynamic only falls from {ci} to", "Dynamic only, whole clip"),
        ("to {ci} WAR and S4D", "Dynamic only, middle frame"),
        ("and S4D from {ci} to", "S4D (MoAE), whole clip"),
        ("[54.9, 67.4] to {ci}.", "S4D (MoAE), middle frame"))),
    *(((RESULTS, N1), "{ci}", HARD, hard(f"true actions, {shown}"), "")
      for shown in ("whole clip", "middle frame")),
    *((N1, "{ci}", HARD, hard(reader, task=task), "")
      for reader in ("true actions", "raw pixels") for task in ("image", "video")),
    *((N1, words + " by {change_full:.1f}", ACTIONS, dict(name=name), "") for words, name in (
        ("mouth stretch changes a pixel", "mouth stretch"),
        ("upper lid raiser", "upper lid raiser"))),
    *((N2, words + " [{low:.3f}, {high:.3f}]", ERRORS, dict(modality=kind, guess=guess), "")
      for words, kind, guess in (
        ("held-out people is {error:.3f}", "photos", "pre-trained model"),
        ("on photos and {error:.3f}", "clips", "pre-trained model"),
        ("which looks at nothing, has {error:.3f}", "photos", "average face"),
        ("[0.687, 0.752] and {error:.3f}", "clips", "average face"))),
    ((RESULTS, N4), "tells {ci} of a photo's emotion", USE, used("emotion, image"), "above null"),
    ((RESULTS, N4), "and {ci} of a clip's", USE, used("emotion, video"), "above null"),
    ((RESULTS, N4), "{ci} of the place", USE, used("place, image"), "above null"),
    ((RESULTS, N4), "{ci} of", USE, used("task"), "within null"),
    (N4, "In block 2 the first time step alone tells {ci} of the task", USE,
     used("task, first time step", 2), "above null"),
    *((N4, "{agreement:.2f} [{agreement_low:.2f}, {agreement_high:.2f}] in block " + str(block),
       MAPS, dict(task="image", expert=1, row=0, column=0, block=block), "") for block in (2, 3)),
    (N4, "the largest is {change:.2f} [{low:.2f}, {high:.2f}] points", OFF,
     dict(block=2, expert=2, task="video"), ""),
    *((N4, "{change:+.1f} [{low:+.1f}, {high:+.1f}] " + words, MODES,
       dict(task=task, mode="released"), "open")
      for words, task in (("points on photos", "image"), ("on clips", "video"))),
    ((RESULTS, N5), "{rho:.2f} [{low:.2f}, {high:.2f}]", WRONG, CROSSED, "above 0"),
    (RESULTS, "cosine of {diagonal:.2f}. Those of different emotions have {off_diagonal:.2f}",
     PROTOTYPES, dict(FEAR, method="s4d"), ""),
    *((N5, "{corrected:.2f} [{low:.2f}, {high:.2f}] in " + name, PROTOTYPES,
       dict(FEAR, method=method), "above 0")
      for name, method in (("S4D", "s4d"), ("static only", "static"))),
    (RESULTS, "photo head recognises {ci} of the clips", TRANSFER,
     read_by("s4d", "image", "video"), ""),
    (RESULTS, "its clip head {ci}.", TRANSFER, read_by("s4d", "video", "video"), ""),
    (N5, "clip head of S4D recognises {ci} of the photos", TRANSFER,
     read_by("s4d", "video", "image"), ""),
    (N5, "recognises {ci} of the clips", TRANSFER, read_by("static", "image", "video"), ""),
    *((N5, words + " {value:.2f} [{low:.2f}, {high:.2f}]", CKA,
       dict(comparison=name, layer="pooled"), "above 0") for words, name in (
        ("the pooled CKA is", "s4d"), ("in S4D and", "static"), ("fine-tuning it is", "start"))),
    (N5, "within each emotion leaves {within_mean:.2f} of that", CKA,
     dict(comparison="start", layer="pooled"), ""),
    (N5, "and {within_mean:.2f} in S4D", CKA, dict(comparison="s4d", layer="pooled"), ""),
    *((N5, "{mean:.2f} [{low:.2f}, {high:.2f}] for " + name, ALONG,
       dict(part="follow", label="expressive", method=method), "above 0")
      for name, method in (("static only", "static"), ("S4D", "s4d"))),
    (N5, "{gain:+.1f} [{low:+.1f}, {high:+.1f}] points more", GAINS,
     dict(method="s4d", label="fear"), "significant"),
    *((RESULTS, f"| {gap} | {name}| {{ci}}", HELP, changed("gap", gap), "significant")
      for gap, name in (("0", "photos held still "), ("0.2", "the sandbox corpus "), ("0.5", ""))),
    (RESULTS, "talking | {ci}, not significant |", HELP, changed("gap", "1"), "open"),
    (RESULTS, "photos add {ci} points", HELP, changed("clips", "0.1"), "significant"),
    (RESULTS, "photos S4D loses {ci}", ABLATIONS, changed("photos", "0.03"), "corrected away"),
    (RESULTS, "with 10 % {ci}", ABLATIONS, changed("photos", "0.1"), "corrected away"),
    (N3, "S4D loses {ci}", ABLATIONS, changed("photos", "0.1"), "corrected away"),
    (RESULTS, "with 30 % {ci}", ABLATIONS, changed("photos", "0.3"), "open"),
    *((RESULTS, words, ABLATIONS, changed("start", begin, method), verdict)
      for begin, verdict in (("photos", "open"), ("clips", "significant"))
      for words, method in ((begin + " instead of both | {ci}", "s4d"), ("| {ci} |", "dynamic"))),
    *((RESULTS, f"{name} | {{ci}} |", ABLATIONS, changed(study, setting), "open")
      for name, study, setting in (
        ("| 1 expert", "experts", "1"), ("| 16 experts", "experts", "16"),
        ("1 expert per token", "top_k", "1"), ("all 8 experts per token", "top_k", "8"),
        ("experts in all blocks", "blocks", "all"), ("in the last block alone", "blocks", "last"))),
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
    ends = ("mean_low", "mean_high") if "mean_low" in row else ("low", "high")
    scale = 1 if name in ("war", "mean") else 100
    form = "+.1f" if name == "difference" else ".1f"
    value, low, high = (format(scale * float(row[column]), form) for column in (name, *ends))
    return f"{value} [{low}, {high}]"


@pytest.mark.parametrize("where, words, table, key, verdict", FINDINGS)
def test_a_finding_stands_as_measured_and_holds(where, words, table, key, verdict):
    rows = pd.read_csv(ROOT / table, dtype={"setting": str, "share": str})
    for column, value in key.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1, f"{len(rows)} rows of {table} have {key}"
    row = rows.iloc[0]
    ci = interval(row) if "{ci}" in words else ""
    expected = words.replace(" %", "").format(ci=ci, **row)
    for file in (where,) if isinstance(where, str) else where:
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
