"""The report: earlier notebooks' numbers read back, the paper's claims judged by them, and macros for the text."""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from .artifacts import LATEX, Artifacts, OutputError, csv_text, read_manifest
from .config import digest
from .plots.style import METHOD_LABELS

LEVEL = 0.05      # of Holm-corrected p below which a difference counts
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
    """

    name: str
    text: str
    system: dict = field(hash=False)
    reference: dict = field(hash=False)
    expected: int
    premise: str = ""
    without: dict | None = field(default=None, hash=False)


def _on_clips(method: str, pretrained: bool = True) -> dict:
    return {"task": "video", "method": method, "pretrained": pretrained}


# The statements are those of the paper's abstract; there they stand for licensed data and full-size models.
CLAIMS = (
    Claim("NegativeTransfer", "plain multi-task harms clips", _on_clips("multitask"), _on_clips("dynamic"), -1),
    Claim("Repair", "experts repair that harm", _on_clips("s4d"), _on_clips("multitask"), +1, premise="NegativeTransfer"),
    Claim("StaticHelps", "photos with experts help clips", _on_clips("s4d"), _on_clips("dynamic"), +1, without=_on_clips("multitask")),
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
    if low <= 0 <= high or not p_holm <= LEVEL:
        return "not decided"
    return "supported" if (low > 0) == (expected > 0) else "against"


def judge(paired: pd.DataFrame, claims: Iterable[Claim] = CLAIMS, metric: str = "WAR") -> pd.DataFrame:
    """Every claim with the difference measured here.

    Args:
        paired: as from `s4d.analysis.stats.paired`, shares in 0..1.
    Returns:
        table: name, claim, comparison, expected, difference, low, high (percentage points), p_holm, seeds, subjects, verdict;
        a comparison that was not made has missing numbers and the verdict "not measured".
    """
    rows = []
    for claim in claims:
        found = difference(paired, claim, metric)
        head = {"name": claim.name, "claim": claim.text, "comparison": comparison(claim), "expected": claim.expected}
        if found is None:
            rows.append({**head, "verdict": "not measured"})
            continue
        points = {k: 100 * float(found[k]) for k in ("difference", "low", "high")}
        rows.append({**head, **points, "p_holm": float(found["p_holm"]), "seeds": int(found["seeds"]), "subjects": int(found["subjects"]),
                     "verdict": word(found["low"], found["high"], found["p_holm"], claim.expected)})
    columns = ["name", "claim", "comparison", "expected", "difference", "low", "high", "p_holm", "seeds", "subjects", "verdict"]
    return pd.DataFrame(rows).reindex(columns=columns)


def comparison(claim: Claim) -> str:
    """The two systems of a claim in words."""
    a, b = (METHOD_LABELS[s["method"]] for s in (claim.system, claim.reference))
    if claim.system["pretrained"] != claim.reference["pretrained"]:
        return f"{a}, pre-trained minus from scratch"
    return f"{a} minus {b}"


def signed(value: float) -> str:
    """A difference with its sign and one decimal; a rounded zero has none, and a minus is a minus."""
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def claims_as_read(judged: pd.DataFrame) -> pd.DataFrame:
    """The judged claims as a table to read: numbers as text, every verdict set alike."""
    def value(row) -> str:
        return "--" if pd.isna(row["difference"]) else f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]"
    sign = judged["expected"].map({1: "> 0", -1: "< 0"})
    return pd.DataFrame({"claim": judged["claim"], "comparison": judged["comparison"], "expected": sign,
                         "difference, 95 % interval": judged.apply(value, axis=1), "verdict": judged["verdict"]})


def sentences(paired: pd.DataFrame, claims: Iterable[Claim] = CLAIMS, metric: str = "WAR") -> list[str]:
    """What the measured differences allow to say of each claim, in Markdown.

    Args:
        paired: as `judge` takes it.
    Returns:
        a text a claim, by one rule. Where experts and photos come together, it also says what photos give without experts;
        where a claim's premise is not supported, it says so.
    """
    claims, out = tuple(claims), []
    judged = {row.name: row for row in judge(paired, claims, metric).itertuples(index=False)}
    for claim in claims:
        parts = [_sentence(judged[claim.name])]
        premise = judged.get(claim.premise)
        if premise is not None and premise.verdict != "supported":
            parts.append(f"The claim takes for granted that {premise.claim}, which is not shown here.")
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
    if row.verdict == "not decided":
        why = ("the interval includes 0, so neither a gain nor a loss is shown" if row.low <= 0 <= row.high else
               "the difference does not outlast the correction for all comparisons, so it is not claimed")
        return f"**Not decided**: whether {row.claim}. {_numbers(row)}: {why}."
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
                     "experts": getattr(cfg, "experts", 0), "pretrained": getattr(cfg, "init", None) is not None, "seed": cfg.seed,
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
    table = rows.groupby(["stage", "device", "versions"], sort=False).agg(runs=("seed", "size"), steps=("steps", "sum")).reset_index()
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


def macro_name(*parts: object) -> str:
    """A LaTeX command's name: the parts joined, each with a capital; digits as words, since TeX allows only letters.

    Raises:
        OutputError: for a part in which no letter is left.
    """
    digits = dict(zip("0123456789", ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")))
    words = []
    for part in parts:
        pieces = [digits.get(piece, piece) for piece in re.findall(r"[A-Za-z]+|[0-9]", str(part))]
        if not pieces:
            raise OutputError(f"{part!r} cannot be part of a LaTeX command's name: it has no letter or digit")
        words += [p[0].upper() + p[1:] for p in pieces]
    return "".join(words)


def macros_of(judged: pd.DataFrame, scores: pd.DataFrame, gains: pd.DataFrame, ranks: pd.DataFrame, extra: dict) -> pd.DataFrame:
    """Every number that the report's text uses.

    Args:
        judged: from `judge`.
        scores: task, pretrained, method, metric, value, low, high (shares), samples, subjects.
        gains, ranks: from `s4d.published`.
        extra: further name -> text.
    Returns:
        table: name (a LaTeX command without the backslash), text.
    """
    rows = [(macro_name(k), str(v)) for k, v in extra.items()]
    for r in judged.itertuples():
        missing = pd.isna(r.difference)
        rows += [(macro_name("diff", r.name), "--" if missing else signed(r.difference)),
                 (macro_name("interval", r.name), "--" if missing else f"[{signed(r.low)}, {signed(r.high)}]"),
                 (macro_name("verdict", r.name), r.verdict)]
    for r in scores.itertuples():
        name = (r.metric.lower(), r.method, r.task, "pretrained" if r.pretrained else "scratch")
        rows += [(macro_name(*name), f"{100 * r.value:.1f}"), (macro_name(*name, "interval"), f"[{100 * r.low:.1f}, {100 * r.high:.1f}]")]
    for r in scores.drop_duplicates("task").itertuples():
        rows += [(macro_name("samples", r.task), str(r.samples)), (macro_name("subjects", r.task), str(r.subjects))]
    for r in gains.itertuples():
        rows += [(macro_name("published", r.dataset), f"{r.s4d:.2f}"), (macro_name("publishedBaseline", r.dataset), f"{r.baseline:.2f}"),
                 (macro_name("publishedGain", r.dataset), f"{r.gain:.2f}")]
    for r in ranks.itertuples():
        rows += [(macro_name("publishedRank", r.dataset), str(r.rank)), (macro_name("publishedMethods", r.dataset), str(r.methods))]
    return pd.DataFrame(rows, columns=["name", "text"])


def macros_text(table: pd.DataFrame) -> str:
    """One \\newcommand a row, in the table's order.

    Raises:
        OutputError: for a name that occurs twice or that TeX would not take.
    """
    for name, count in table["name"].value_counts().items():
        if count > 1 or not re.fullmatch("[A-Za-z]+", name):
            raise OutputError(f"macro {name!r} occurs {count} times: each name must be unique and of letters only")
    escaped = ("".join(LATEX.get(c, c) for c in text) for text in table["text"])
    return "".join(f"\\newcommand{{\\{name}}}{{{text}}}\n" for name, text in zip(table["name"], escaped))


def captions_of(manifest: dict, names: Iterable[str]) -> pd.DataFrame:
    """Captions of figures as LaTeX commands, as the notebooks that drew them wrote them, with what they found: name, text.

    Args:
        manifest: of `read_manifest`.
        names: of the figures; those that a profile does not draw are left out.
    """
    return pd.DataFrame([{"name": macro_name("caption", name), "text": manifest[name]["caption"]} for name in names if name in manifest],
                        columns=["name", "text"])


def write_macros(made: Artifacts, table: pd.DataFrame, name: str = "numbers", caption: str = "Numbers of the report's text") -> None:
    """Writes `tables/<name>.tex` with one command a row, and the same as CSV, as an artifact of its notebook.

    Args:
        table: name (letters), text.
        caption: what the commands hold.
    """
    def writer(text: str):
        return lambda path: path.write_text(text, encoding="utf-8", newline="\n")
    made._add("table", name, f"{caption}, one LaTeX command each.",
              {f"tables/{name}.tex": writer(macros_text(table)), f"source_data/{name}.csv": writer(csv_text(table))})
