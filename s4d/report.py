"""The report: earlier notebooks' numbers read back, the paper's claims judged by them, and what ran where."""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from .artifacts import read_manifest
from .files import OutputError
from .captions import effect, outcome, p_words, signed
from .config import digest
from .study.figures.style import METHOD_LABELS

STAGES = {"pretrain": "pre-training", "finetune": "fine-tuning"}


@dataclass(frozen=True)
class Claim:
    """A statement of the paper as a difference of two systems on the test clips.

    Args:
        name: letters only; it becomes part of a macro's name.
        text: the statement in short.
        system, reference: column -> value, as the paired table names them.
        expected: +1 or -1, the sign of system minus reference that the paper expects.
        premise: name of the claim that this one takes for granted.
        without: the system without its experts, when the claim's difference could be due to something else than them.
        paper: whether the paper says so.
    """

    name: str
    text: str
    system: dict = field(hash=False)
    reference: dict = field(hash=False)
    expected: int
    premise: str = ""
    without: dict | None = field(default=None, hash=False)
    paper: bool = True


def _on_clips(method: str, pretrained: bool = True) -> dict:
    return {"task": "video", "method": method, "pretrained": pretrained}


# What becomes of a claim whose premise is not supported, by the verdict on the premise: it can be neither right nor wrong.
UNFOUNDED = {"against": "no harm to repair", "not decided": "harm not shown"}
# The statements are those of the paper's abstract, where they stand for licensed data and full-size models; the one that is none shows
# how much of the claim above it photos alone explain.
CLAIMS = (
    Claim("NegativeTransfer", "plain multi-task harms clips", _on_clips("multitask"), _on_clips("dynamic"), -1),
    Claim("Repair", "experts repair that harm", _on_clips("s4d"), _on_clips("multitask"), +1, premise="NegativeTransfer"),
    Claim("StaticHelps", "photos with experts help clips", _on_clips("s4d"), _on_clips("dynamic"), +1, without=_on_clips("multitask")),
    Claim("PlainHelps", "photos without experts help clips", _on_clips("multitask"), _on_clips("dynamic"), +1, paper=False),
    Claim("Pretraining", "pre-training helps clips", _on_clips("s4d"), _on_clips("s4d", pretrained=False), +1),
)


def read_results(out: str | Path, names: Iterable[str], profile: str) -> dict[str, pd.DataFrame]:
    """Source data of earlier notebooks.

    Args:
        out: folder of the artifacts.
        names: of the artifacts.
        profile: that they must have been made with, so that no report mixes two.
    Raises:
        OutputError: for an artifact that is missing or of another profile.
    """
    manifest, tables = read_manifest(Path(out)), {}
    for name in names:
        file = Path(out) / "source_data" / f"{name}.csv"
        if name not in manifest or not file.is_file():
            raise OutputError(f"{file} is missing: the report reads what notebooks 02 to 05 leave there, so run them first")
        if manifest[name]["profile"] != profile:
            raise OutputError(f"{file} was made with profile {manifest[name]['profile']} and the report is for {profile}: run "
                              f"{manifest[name]['notebook']} again with this profile, or choose another folder")
        tables[name] = pd.read_csv(file)
    return tables


def difference(paired: pd.DataFrame, claim: Claim, metric: str = "WAR") -> pd.Series | None:
    """The paired table's row of a claim; None where the comparison was not made.

    A column in which system and reference agree stands once, one in which they differ has a partner `<column>_reference`.
    """
    keep = paired["metric"] == metric
    for column, value in claim.system.items():
        other, partner = claim.reference[column], f"{column}_reference"
        keep &= paired[column].astype(str) == str(value)
        stated = paired[partner] if partner in paired else pd.Series(pd.NA, index=paired.index, dtype=object)
        keep &= stated.isna() | (stated.astype(str) == str(value)) if other == value else stated.astype(str) == str(other)
    return paired[keep].iloc[0] if keep.any() else None


def word(low: float, high: float, p_holm: float, expected: int) -> str:
    """What a difference says of a claim: supported, against, or not decided.

    Args:
        low, high: 95 % interval of system minus reference.
        p_holm: two-sided p, corrected for all comparisons.
        expected: the sign that the claim expects.
    """
    if outcome(low, high, p_holm) != "apart":
        return "not decided"
    return "supported" if (low > 0) == (expected > 0) else "against"


def judge(paired: pd.DataFrame, claims: Iterable[Claim] = CLAIMS, metric: str = "WAR") -> pd.DataFrame:
    """Every claim with the difference measured here.

    Args:
        paired: as from `s4d.study.stats.paired`, shares in 0..1.
    Returns:
        table: name, claim, comparison, paper, expected, difference, low, high (percentage points), p, p_holm, seeds, subjects, verdict;
        a comparison that was not made has missing numbers and the verdict "not measured", one whose premise is not supported a
        verdict that says so, whatever its numbers.
    """
    rows, verdicts = [], {}
    for claim in claims:
        found = difference(paired, claim, metric)
        row = {"name": claim.name, "claim": claim.text, "comparison": comparison(claim), "paper": claim.paper, "expected": claim.expected,
               "verdict": "not measured"}
        if found is not None:
            row |= {k: 100 * float(found[k]) for k in ("difference", "low", "high")} | {k: float(found[k]) for k in ("p", "p_holm")}
            row |= {k: int(found[k]) for k in ("seeds", "subjects")}
            direct = word(found["low"], found["high"], found["p_holm"], claim.expected)
            row["verdict"] = UNFOUNDED.get(verdicts.get(claim.premise), direct)
        verdicts[claim.name] = row["verdict"]
        rows.append(row)
    columns = ["name", "claim", "comparison", "paper", "expected", "difference", "low", "high", "p", "p_holm", "seeds", "subjects", "verdict"]
    return pd.DataFrame(rows).reindex(columns=columns)


def comparison(claim: Claim) -> str:
    """The two systems of a claim in words."""
    a, b = (METHOD_LABELS[s["method"]] for s in (claim.system, claim.reference))
    if claim.system["pretrained"] != claim.reference["pretrained"]:
        return f"{a}, pre-trained minus from scratch"
    return f"{a} minus {b}"


def claims_as_read(judged: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """The judged claims as a table to read: numbers as text, every verdict set alike.

    Args:
        resamples: of the bootstrap, which sets the smallest p that it can give.
    """
    shown = [("--", "--") if pd.isna(r.difference) else (effect(r.difference, r.low, r.high), p_words(r.p, r.p_holm, resamples))
             for r in judged.itertuples()]
    numbers, p = zip(*shown)
    return pd.DataFrame({"claim": judged["claim"].where(judged["paper"], judged["claim"] + " (not of the paper)"), "comparison": judged["comparison"],
                         "expected": judged["expected"].map({1: "> 0", -1: "< 0"}), "difference, 95 % interval": numbers, "p": p,
                         "verdict": judged["verdict"]})


def sentences(paired: pd.DataFrame, claims: Iterable[Claim] = CLAIMS, metric: str = "WAR") -> list[str]:
    """What the measured differences allow to say of each claim, in Markdown.

    Args:
        paired: as `judge` takes it.
    Returns:
        a text for each claim of the paper, by one rule. Where experts and photos come together, it also says what photos give without
        experts; where a claim's premise is not supported, it says so.
    """
    claims, out = tuple(c for c in claims if c.paper), []
    judged = {row.name: row for row in judge(paired, claims, metric).itertuples(index=False)}
    for claim in claims:
        parts = [_sentence(judged[claim.name])]
        premise = judged.get(claim.premise)
        if premise is not None and premise.verdict != "supported":
            parts.append(f"The claim takes for granted that {premise.claim}, which is {'contradicted' if premise.verdict == 'against' else 'not shown'} "
                         "here.")
        if claim.without is not None:
            parts.append(_without_experts(claim, paired, metric))
        out.append(" ".join(parts))
    return out


def _numbers(row) -> str:
    return f"{row.comparison} is {signed(row.difference)} points ({signed(row.low)} to {signed(row.high)}, p = {row.p_holm:.3f})"


def _sentence(row) -> str:
    """One judged claim. A claim that is not decided stands as a question, so that it cannot be read as a finding."""
    if row.verdict == "not measured":
        return f"**Not measured**: whether {row.claim}."
    if row.verdict in ("not decided", *UNFOUNDED.values()):
        why = ("the interval includes 0, so neither a gain nor a loss is shown" if row.low <= 0 <= row.high else
               "the difference does not outlast the correction for all comparisons, so it is not claimed"
               if outcome(row.low, row.high, row.p_holm) == "uncorrected" else
               f"with them it is {'higher' if row.low > 0 else 'lower'}, which repairs nothing that is shown")
        return f"**{row.verdict.capitalize()}**: whether {row.claim}. {_numbers(row)}: {why}."
    return f"**{row.verdict.capitalize()}**: that {row.claim}. {_numbers(row)}; {row.subjects} people."


def _without_experts(claim: Claim, paired: pd.DataFrame, metric: str) -> str:
    """What the system gives without its experts, and whether the rest can be put down to them."""
    pairs = ((claim.without, claim.reference), (claim.system, claim.without))
    plain, added = (judge(paired, [Claim(claim.name, "", a, b, +1)], metric).iloc[0] for a, b in pairs)
    if "not measured" in (plain["verdict"], added["verdict"]):
        return "What it gives without experts was not measured, so nothing is to be credited to the experts."
    credit = {"supported": "the experts add to what sharing gives", "against": "with the experts it is lower",
              "not decided": "an effect of the experts is not shown, and the difference above is not to be credited to them"}
    return f"Without experts, {_numbers(plain)}. What the experts change: {_numbers(added)}; {credit[added['verdict']]}."


def pixel_classifier(out: str | Path, profile: str, faces) -> pd.DataFrame | None:
    """UAR of notebook 01's logistic regression on raw pixels, as it left it in `out`.

    Args:
        out: folder of the artifacts.
        profile, faces: of the systems it is to be compared with (`Profile.faces`; None for licensed data).
    Returns:
        table by task (image, video): value, low, high (shares), subjects, samples, and more; None where notebook 01 has not
        scored these very data.
    """
    entry = read_manifest(Path(out)).get("faces_difficulty")
    if faces is None or entry is None or (entry["profile"], entry["config"]) != (profile, digest(faces)):
        return None
    table = read_results(out, ["faces_difficulty"], profile)["faces_difficulty"]
    return table[(table["input"] == "raw pixels") & (table["metric"] == "UAR")].set_index("task")


def run_rows(configurations: Iterable, runs: Iterable) -> pd.DataFrame:
    """One row per run: what it computed, and where, from its provenance.

    Returns:
        table: stage, model, tasks, experts, pretrained, seed, steps, seconds, device, versions (text).
    """
    rows = []
    for cfg, run in zip(configurations, runs, strict=True):
        p = run.provenance
        rows.append({"stage": cfg.stage, "model": cfg.model, "tasks": "+".join(getattr(cfg, "tasks", ("image", "video"))),
                     "experts": getattr(cfg, "num_experts", 0), "pretrained": getattr(cfg, "init", None) is not None, "seed": cfg.seed,
                     "steps": p["steps"], "seconds": p["seconds"], "device": p["device"],
                     "versions": ", ".join(f"{k} {v}" for k, v in p["versions"].items())})
    return pd.DataFrame(rows)


def runs_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs counted by what they computed: stage, model, tasks, experts, pretrained, runs, seeds, steps (each). Nothing in it
    depends on the machine."""
    keys = ["stage", "model", "tasks", "experts", "pretrained"]
    return rows.groupby(keys, sort=False).agg(runs=("seed", "size"), seeds=("seed", "nunique"), steps=("steps", "median")).astype(
        {"steps": int}).reset_index()


def summary_as_read(summary: pd.DataFrame) -> pd.DataFrame:
    """The runs of `runs_summary` in words: stage, system, network, start, runs, seeds, steps (each)."""
    def system(row) -> str:
        if row["stage"] == "pretrain":
            return "masked autoencoder"
        single = {"video": "dynamic", "image": "static"}.get(row["tasks"])
        return METHOD_LABELS[single or ("s4d" if row["experts"] else "multitask")]

    def network(name: str) -> str:
        found = re.fullmatch(r"s4d(?:_mae)?_(.+)_patch(\d+)_(\d+)", name)
        return "{}, tokens of {} px, pictures of {} px".format(*found.groups()) if found else name
    start = summary["pretrained"].map({False: "from scratch", True: "pre-trained"}).where(summary["stage"] != "pretrain", "-")
    return pd.DataFrame({"stage": summary["stage"].replace(STAGES), "system": summary.apply(system, axis=1),
                         "network": summary["model"].map(network), "start": start, **summary[["runs", "seeds", "steps"]]})


def runs_as_read(rows: pd.DataFrame, profile: str) -> pd.DataFrame:
    """Runs by stage and place: profile, stage, runs, steps (all), device, versions. Times are left out: they differ each time."""
    places = rows.assign(device=rows["device"].str.replace("1 thread(s)", "1 thread").str.replace("thread(s)", "threads"))
    table = places.groupby(["stage", "device", "versions"], sort=False).agg(runs=("seed", "size"), steps=("steps", "sum")).reset_index()
    table.insert(0, "profile", profile)
    table["stage"] = table["stage"].replace(STAGES)
    return table[["profile", "stage", "runs", "steps", "device", "versions"]]


def long_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Notebook 03's scores, of the systems it trained on a task.

    Args:
        table: task, pretrained, method, metric, value, low, high (shares), subjects, samples, in any order; more columns are left out.
    Raises:
        OutputError: for a column that is missing.
    """
    wanted = ["task", "pretrained", "method", "metric", "value", "low", "high", "subjects", "samples"]
    for column in wanted:
        if column not in table:
            raise OutputError(f"finetuning_table.csv has no column {column!r} (it has {', '.join(table.columns)}): run notebook 03 again")
    return table[wanted].dropna(subset="value").reset_index(drop=True)
