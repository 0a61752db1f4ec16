"""Tables of the report: the paper's claims judged, published results, runs, numbers as macros."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from ..files import ROOT
from .artifacts import macro_name
from .figures.marks import number
from .figures.style import LEVEL, METHOD_LABELS
from .intervals import p_text

BENCHMARKS, METHOD, BASELINE = ("DFEW", "FERV39K", "MAFW"), "S4D", "VideoMAE, as in S4D"
# What becomes of a claim whose premise is not supported: it is neither right nor wrong.
UNFOUNDED = {"against": "no harm to repair", "not decided": "harm not shown"}


@dataclass(frozen=True)
class Claim:
    """A statement of the paper as a difference of WAR of two pre-trained systems on test clips."""

    name: str                   # part of a macro's name
    text: str
    system: str
    reference: str | None       # None: the same system from scratch
    expected: int = 1           # sign of system minus reference that the paper expects
    premise: str = ""           # name of the claim that this one takes for granted
    paper: bool = True          # whether the paper says so


CLAIMS = (
    Claim("NegativeTransfer", "plain multi-task harms clips", "multitask", "dynamic", -1),
    Claim("Repair", "experts repair that harm", "s4d", "multitask", premise="NegativeTransfer"),
    Claim("StaticHelps", "photos with experts help clips", "s4d", "dynamic"),
    Claim("PlainHelps", "photos without experts help clips", "multitask", "dynamic", paper=False),
    Claim("Pretraining", "pre-training helps clips", "s4d", None),
)


def word(low: float, high: float, p_holm: float, expected: int) -> str:
    """What a difference's interval and corrected p say of a claim that expects a sign."""
    if low <= 0 <= high or not p_holm <= LEVEL:
        return "not decided"
    return "supported" if (low > 0) == (expected > 0) else "against"


def judge(paired: pd.DataFrame, claims: Iterable[Claim] = CLAIMS) -> pd.DataFrame:
    """Judge every claim by `stats.paired` (shares), in points; what was not measured is missing."""
    on_clips = paired.query("task == 'video' and metric == 'WAR' and pretrained")
    rows, verdicts = [], {}
    for claim in claims:
        other = on_clips["method_reference"]
        same = other.isna() if claim.reference is None else other == claim.reference
        found = on_clips[(on_clips["method"] == claim.system) & same]
        second = "from scratch" if claim.reference is None else METHOD_LABELS[claim.reference]
        first = METHOD_LABELS[claim.system] + (", pre-trained" if claim.reference is None else "")
        row = {"name": claim.name, "claim": claim.text, "comparison": f"{first} minus {second}",
               "paper": claim.paper, "expected": claim.expected}
        verdict = "not measured"
        for r in found.to_dict("records"):
            row |= {column: 100 * r[column] for column in ("difference", "low", "high")}
            row |= {column: r[column] for column in ("p", "p_holm", "seeds", "subjects")}
            verdict = word(r["low"], r["high"], r["p_holm"], claim.expected)
            verdict = UNFOUNDED.get(verdicts.get(claim.premise), verdict)
        verdicts[claim.name] = verdict
        rows.append(row | {"verdict": verdict})
    columns = ["name", "claim", "comparison", "paper", "expected", "difference", "low", "high",
               "p", "p_holm", "seeds", "subjects", "verdict"]
    return pd.DataFrame(rows).reindex(columns=columns)


def p_words(p: float, p_holm: float, resamples: int) -> str:
    """Holm's p as printed; a bound where the bootstrap gave its smallest, 2 / (resamples + 1)."""
    return f"≤ {p_holm:.3f}" if p <= 2 / (resamples + 1) * 1.0001 else p_text(p_holm)


def claims_table(judged: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """The judged claims to read; resamples of the bootstrap set the smallest p."""
    claim = judged["claim"].where(judged["paper"], judged["claim"] + " (not of the paper)")
    rows = [(number(r.difference, r.low, r.high, "+.1f"), p_words(r.p, r.p_holm, resamples))
            if pd.notna(r.difference) else ("--", "--") for r in judged.itertuples()]
    interval, p = zip(*rows, strict=True)
    return pd.DataFrame({"claim": claim, "comparison": judged["comparison"],
                         "expected": judged["expected"].map({1: "> 0", -1: "< 0"}),
                         "difference, 95 % interval": interval, "p": p,
                         "verdict": judged["verdict"]})


def published() -> pd.DataFrame:
    """Published results on licensed data: method, year, kind, dataset, UAR, WAR, source, key."""
    return pd.read_csv(ROOT / "paper/published.csv")


def standing(table: pd.DataFrame) -> pd.DataFrame:
    """Where S4D stands by WAR: dataset, baseline, s4d, gain, rank (1: highest), methods, best."""
    war = table.pivot(index="dataset", columns="method", values="WAR").loc[list(BENCHMARKS)]
    s4d, baseline = war[METHOD], war[BASELINE]
    return pd.DataFrame({"baseline": baseline, "s4d": s4d, "gain": (s4d - baseline).round(2),
                         "rank": war.rank(axis=1, ascending=False)[METHOD].astype(int),
                         "methods": war.notna().sum(axis=1),
                         "best": war.idxmax(axis=1)}).reset_index()


def sources_table(table: pd.DataFrame) -> pd.DataFrame:
    """Published results to read: a row a method, `UAR / WAR` per dataset, source as LaTeX."""
    texts = table[["UAR", "WAR"]].map(lambda v: "--" if pd.isna(v) else f"{v:.2f}")
    pairs = (texts["UAR"] + " / " + texts["WAR"]).where(table["WAR"].notna(), "--")
    wide = table.assign(pair=pairs).pivot(index="method", columns="dataset", values="pair")
    out = table.drop_duplicates("method")[["method", "year", "kind", "key"]]
    out = out.merge(wide[list(BENCHMARKS)], left_on="method", right_index=True)
    derived = out["method"].eq(BASELINE).map({True: ", derived", False: ""})
    return out.assign(source=r"\cite{" + out["key"] + "}" + derived).drop(columns="key")


def by_war(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `published`, methods from the highest WAR on the first benchmark down."""
    first = table[table["dataset"] == BENCHMARKS[0]].sort_values("WAR", ascending=False)["method"]
    return table.sort_values("method", key=pd.Index(first).get_indexer, kind="stable",
                             ignore_index=True)


def run_rows(configurations: Iterable, runs: Iterable) -> pd.DataFrame:
    """A row a run: what it computed, its seed, steps and seconds, device and versions."""
    rows = [{"stage": cfg.stage, "model": cfg.model,
             "tasks": "+".join(getattr(cfg, "tasks", ("image", "video"))),
             "experts": getattr(cfg, "num_experts", 0),
             "pretrained": getattr(cfg, "init", None) is not None, "seed": cfg.seed,
             **{k: run.provenance[k] for k in ("steps", "seconds", "device", "versions")}}
            for cfg, run in zip(configurations, runs, strict=True)]
    return pd.DataFrame(rows)


def runs_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs counted by what they computed; nothing in it depends on the machine."""
    groups = rows.groupby(["stage", "model", "tasks", "experts", "pretrained"], sort=False)
    table = groups.agg(runs=("seed", "size"), seeds=("seed", "nunique"), steps=("steps", "median"))
    return table.astype({"steps": int}).reset_index()


def numbers(judged: pd.DataFrame, scores: pd.DataFrame, places: pd.DataFrame,
            extra: dict[str, object]) -> dict[str, str]:
    """Every number that the paper's text uses: LaTeX command -> text.

    Args:
        judged, scores, places: of `judge`, `stats.scores` and `standing`; extra: name -> text.
    """
    out = {macro_name(name): str(text) for name, text in extra.items()}
    for r in judged.itertuples():
        value, _, limits = number(r.difference, r.low, r.high, "+.1f").partition(" ")
        measured = pd.notna(r.difference)
        out[macro_name("diff", r.name)] = value if measured else "--"
        out[macro_name("interval", r.name)] = limits if measured else "--"
        out[macro_name("verdict", r.name)] = r.verdict
    for r in scores.itertuples():
        start = "pretrained" if r.pretrained else "scratch"
        name = macro_name(r.metric.lower(), r.method, r.task, start)
        out[name] = f"{100 * r.value:.1f}"
        out[name + "Interval"] = f"[{100 * r.low:.1f}, {100 * r.high:.1f}]"
    for r in scores.drop_duplicates("task").itertuples():
        out |= {macro_name(name, r.task): str(getattr(r, name)) for name in ("samples", "subjects")}
    recalls = {"published": "s4d", "publishedBaseline": "baseline", "publishedGain": "gain"}
    for r in places.itertuples():
        out |= {macro_name(k, r.dataset): f"{getattr(r, v):.2f}" for k, v in recalls.items()}
    for r in places.itertuples():
        out[macro_name("publishedRank", r.dataset)] = str(r.rank)
        out[macro_name("publishedMethods", r.dataset)] = str(r.methods)
    return out


def captions(manifest: dict, names: Iterable[str], prefix: str = "") -> dict[str, str]:
    """Captions of the drawn figures as LaTeX commands, `\\Caption<Prefix><Name>`."""
    return {macro_name("caption", prefix, name): manifest[name]["caption"]
            for name in names if name in manifest}
