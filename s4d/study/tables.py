"""Tables of the report: the paper's claims judged, published results, runs, numbers as macros."""
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .artifacts import macro_name
from .figures.style import LEVEL, METHOD_LABELS, number
from .stats import p_text

BENCHMARKS, METHOD, BASELINE = ("DFEW", "FERV39K", "MAFW"), "S4D", "VideoMAE, as in S4D"
# What becomes of a claim whose premise is not supported: it is neither right nor wrong.
UNFOUNDED = {"against": "no harm to repair", "not decided": "harm not shown"}


@dataclass(frozen=True)
class Claim:
    """A statement of the paper as a difference of WAR of two pre-trained systems on test clips."""

    name: str                   # part of a macro's name
    claim: str
    system: str
    reference: str              # the system itself: from scratch
    expected: int = 1           # sign of system minus reference that the paper expects
    premise: str = ""           # name of the claim that this one takes for granted
    paper: bool = True          # whether the paper says so


CLAIMS = (
    Claim("NegativeTransfer", "plain multi-task harms clips", "multitask", "dynamic", -1),
    Claim("Repair", "experts repair that harm", "s4d", "multitask", premise="NegativeTransfer"),
    Claim("StaticHelps", "photos with experts help clips", "s4d", "dynamic"),
    Claim("PlainHelps", "photos without experts help clips", "multitask", "dynamic", paper=False),
    Claim("Pretraining", "pre-training helps clips", "s4d", "s4d"))


def judge(paired: pd.DataFrame, claims: Iterable[Claim] = CLAIMS) -> pd.DataFrame:
    """Judge every claim by `stats.paired` (shares), in points; what was not measured is missing."""
    measured = ["difference", "low", "high", "p", "p_holm", "seeds", "subjects"]
    rows = paired.query("task == 'video' and metric == 'WAR' and pretrained")
    rows = rows[measured].assign(system=rows["method"],
                                 reference=rows["method_reference"].fillna(rows["method"]))
    table = pd.DataFrame(claims).merge(rows, "left", ["system", "reference"])
    table[measured[:3]] *= 100
    start = np.where(table["system"] == table["reference"], ", pre-trained minus from scratch",
                     " minus " + table["reference"].map(METHOD_LABELS))
    table["comparison"], verdicts = table["system"].map(METHOD_LABELS) + start, {}
    for r in table.itertuples():
        verdict = "supported" if (r.low > 0) == (r.expected > 0) else "against"
        if r.low <= 0 <= r.high or not r.p_holm <= LEVEL:
            verdict = "not decided"
        verdict = UNFOUNDED.get(verdicts.get(r.premise), verdict)
        verdicts[r.name] = "not measured" if pd.isna(r.difference) else verdict
    table["verdict"] = list(verdicts.values())
    return table[["name", "claim", "comparison", "paper", "expected", *measured, "verdict"]]


def p_words(p: float, p_holm: float, resamples: int) -> str:
    """Holm's p as printed; a bound where the bootstrap gave its smallest, 2 / (resamples + 1)."""
    return f"≤ {p_holm:.3f}" if p <= 2 / (resamples + 1) * 1.0001 else p_text(p_holm)


def standing(table: pd.DataFrame) -> pd.DataFrame:
    """Where S4D stands by WAR: dataset, baseline, s4d, gain, rank (1: highest), methods."""
    war = table.pivot(index="dataset", columns="method", values="WAR").loc[list(BENCHMARKS)]
    rank = war.rank(axis=1, ascending=False)[METHOD].astype(int)
    places = pd.DataFrame({"baseline": war[BASELINE], "s4d": war[METHOD]})
    places["gain"] = (places["s4d"] - places["baseline"]).round(2)
    return places.assign(rank=rank, methods=war.count(axis=1)).reset_index()


def sources_table(table: pd.DataFrame) -> pd.DataFrame:
    """Published results to read, a row a method, with the source as LaTeX."""
    texts = table[["UAR", "WAR"]].map("{:.2f}".format).replace("nan", "--")
    pairs = (texts["UAR"] + " / " + texts["WAR"]).where(table["WAR"].notna(), "--")
    wide = table.assign(pair=pairs).pivot(index="method", columns="dataset", values="pair")
    out = table.drop_duplicates("method")[["method", "year", "kind", "key"]]
    out = out.merge(wide[list(BENCHMARKS)], left_on="method", right_index=True)
    derived = out["method"].eq(BASELINE).map({True: ", derived", False: ""})
    return out.assign(source=r"\cite{" + out["key"] + "}" + derived).drop(columns="key")


def numbers(judged: pd.DataFrame, scores: pd.DataFrame, places: pd.DataFrame,
            extra: dict[str, object]) -> dict[str, str]:
    """Every number of the paper's text, of `judge`, `stats.scores`, `standing`: command -> text."""
    out = {macro_name(name): str(text) for name, text in extra.items()}
    for r in judged.itertuples():
        value, _, limits = number(r.difference, r.low, r.high, "+.1f").partition(" ")
        out |= {macro_name("diff", r.name): value, macro_name("interval", r.name): limits or "--",
                macro_name("verdict", r.name): r.verdict}
    for r in scores.query("metric == 'WAR' and pretrained").itertuples():
        name = macro_name("war", r.method, r.task, "pretrained")
        out |= {name: f"{100 * r.value:.1f}",
                name + "Interval": f"[{100 * r.low:.1f}, {100 * r.high:.1f}]",
                macro_name("samples", r.task): str(r.samples),
                macro_name("subjects", r.task): str(r.subjects)}
    for r in places.itertuples():
        texts = {"": f"{r.s4d:.2f}", "gain": f"{r.gain:.2f}", "rank": r.rank, "methods": r.methods}
        out |= {macro_name("published", name, r.dataset): str(v) for name, v in texts.items()}
    return out
