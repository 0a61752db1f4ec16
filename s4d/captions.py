"""Findings in words, for captions: each is written from the table that is drawn, by one rule, whichever way its numbers fall."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from .study.intervals import p_text
from .study.figures.style import KINDS, METHOD_LABELS

LEVEL = 0.05                    # of Holm-corrected p up to which a difference counts
STARTS = {False: "from scratch", True: "pre-trained"}


# Numbers and clauses ----------------------------------------------------------------------------------------------------

def signed(value: float) -> str:
    """A difference with its sign and one decimal; a rounded zero has none, and a minus is a minus."""
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def effect(value: float, low: float, high: float) -> str:
    """A difference and its interval, points: `+17.4 [+10.3, +24.5]`."""
    return f"{signed(value)} [{signed(low)}, {signed(high)}]"


def level(value: float, low: float, high: float) -> str:
    """A share and its interval, in per cent: `61.0 % [54.9, 67.4]`."""
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def counted(n: int, what: str) -> str:
    """`1 seed`, `3 seeds`, `1 person`, `2 people`."""
    return f"{n} {what}" if n == 1 else f"{n} {'people' if what == 'person' else what + 's'}"


def p_words(p: float, p_holm: float, resamples: int) -> str:
    """Holm's p as it is printed. Where the bootstrap gave its smallest value, 2 / (resamples + 1), it is a bound."""
    return f"≤ {p_holm:.3f}" if p <= 2 / (resamples + 1) * 1.0001 else p_text(p_holm)


def outcome(low: float, high: float, p_holm: float) -> str:
    """What is known of a difference: `apart`, `uncorrected` (its interval excludes 0, Holm's p does not count), or `together`."""
    if low <= 0 <= high:
        return "together"
    return "apart" if p_holm <= LEVEL else "uncorrected"


def compared(a: str, b: str, difference: float, low: float, high: float, p_holm: float, unit: str = "points of WAR") -> str:
    """A clause on a minus b (points): above, below, or not told apart."""
    said = outcome(low, high, p_holm)
    if said == "together":
        return f"{a} and {b} are not told apart ({effect(difference, low, high)} {unit})"
    if said == "uncorrected":
        return f"{a} minus {b} is {effect(difference, low, high)} {unit}, which does not outlast the correction"
    ends = sorted((abs(low), abs(high)))
    return f"{a} is {abs(difference):.1f} {unit} [{ends[0]:.1f}, {ends[1]:.1f}] {'above' if difference > 0 else 'below'} {b}"


def sentence(clauses: Iterable[str]) -> str:
    """Clauses joined to a sentence; empty for none."""
    text = "; ".join(clauses)
    return text and f"{text[0].upper()}{text[1:]}."


def test_part(scores: pd.DataFrame, tasks: Iterable[str] = ("video", "image")) -> str:
    """How much a score rests on: `280 clips of 40 people, 965 photos of 241 people, 3 seeds`.

    Args:
        scores: task, seeds, subjects, samples (`stats.scores`).
    """
    first = {task: rows.iloc[0] for task, rows in scores.groupby("task")}
    parts = [f"{first[t]['samples']} {KINDS[t]} of {counted(first[t]['subjects'], 'person')}" for t in tasks if t in first]
    return ", ".join([*parts, counted(scores["seeds"].iloc[0], "seed")])


def _points(row) -> tuple[float, float, float]:
    return tuple(100 * float(row[c]) for c in ("difference", "low", "high"))


# Findings ---------------------------------------------------------------------------------------------------------------

def comparison(differences: pd.DataFrame) -> str:
    """What photos, and experts, do to clips, from notebook 03's paired differences; of pre-trained systems where there are some."""
    rows = differences[(differences["task"] == "video") & (differences["metric"] == "WAR") & differences["method_reference"].notna()]
    start = bool(rows["pretrained"].any())
    rows, clauses = rows[rows["pretrained"] == start], []
    for a, b in (("multitask", "dynamic"), ("s4d", "dynamic"), ("s4d", "multitask")):
        for _, row in rows[(rows["method"] == a) & (rows["method_reference"] == b)].iterrows():
            clauses.append(compared(METHOD_LABELS[a], METHOD_LABELS[b], *_points(row), row["p_holm"]))
    return sentence([f"on clips, {STARTS[start]}, {clauses[0]}", *clauses[1:]]) if clauses else ""


def _changed(row, titles: dict[str, str]) -> str:
    said = {"apart": "told apart after the correction", "uncorrected": "which does not outlast the correction",
            "together": "not told apart from none"}[outcome(row["low"], row["high"], row["p_holm"])]
    return (f"{titles[row['study']]} {row['setting']} instead of {row['setting_reference']} changes the WAR of {METHOD_LABELS[row['method']]} "
            f"on clips by {effect(*_points(row))} points, {said}")


def ablations(changed: pd.DataFrame, titles: dict[str, str]) -> str:
    """What changed settings do to WAR on clips: each of up to three, else how many move it and the one that does so furthest.

    Args:
        changed: study, setting, setting_reference, method, metric and what `stats.paired` gives, on clips.
        titles: of the studies.
    """
    rows = changed[changed["metric"] == "WAR"]
    if len(rows) <= 3:
        return sentence(_changed(row, titles) for _, row in rows.iterrows())
    apart = rows[[outcome(*r) == "apart" for r in rows[["low", "high", "p_holm"]].itertuples(index=False)]]
    count = f"{len(apart)} of {len(rows)} changed settings move WAR on clips beyond the correction for all of them"
    furthest = (apart if len(apart) else rows).loc[lambda t: t["difference"].abs().nlargest(1).index].iloc[0]
    return sentence([count, f"furthest, {_changed(furthest, titles)}"])


def starts(begun: pd.DataFrame, method: str = "s4d") -> str:
    """What each start does instead of pre-training on both, for one method, and on how many of all the difference is shown."""
    rows = begun[begun["metric"] == "WAR"]
    apart = sum(outcome(*r) == "apart" for r in rows[["low", "high", "p_holm"]].itertuples(index=False))
    clauses = []
    for task, part in rows[rows["method"] == method].groupby("task", sort=False):
        each = ", ".join(f"{row['setting']} {effect(*_points(row))}" for _, row in part.iterrows())
        clauses.append(f"on {KINDS[task]}, {each}")
    if clauses:
        clauses[0] = f"instead of pre-training on both, other starts change the WAR of {METHOD_LABELS[method]} by these points: {clauses[0]}"
    return sentence([*clauses, f"{apart} of all {len(rows)} differences outlast the correction"])


def help_by_setting(helped: pd.DataFrame, titles: dict[str, str], method: str = "s4d") -> str:
    """What photos add for one method at the first and the last setting of every study, and the count of all.

    Args:
        helped: study, setting, method, metric, difference, low, high (shares), against dynamic only with the same setting.
    """
    rows, clauses = helped[helped["metric"] == "WAR"], []
    for study, part in rows[rows["method"] == method].groupby("study", sort=False):
        ends = [f"{effect(*_points(part.iloc[i]))} points at {part.iloc[i]['setting']}" for i in ((0, -1) if len(part) > 1 else (0,))]
        clauses.append(f"{titles[study]}: {' and '.join(ends)}")
    above, below = int((rows["low"] > 0).sum()), int((rows["high"] < 0).sum())
    return sentence([f"what photos add to the WAR of {METHOD_LABELS[method]} on clips, by {clauses[0]}", *clauses[1:],
                     f"of {len(rows)} intervals of all methods, {above} lie above 0 and {below} below"]) if clauses else ""


def confusions(matrices: pd.DataFrame) -> str:
    """The lowest recall and the largest confusion on clips of every method that is drawn.

    Args:
        matrices: task, method, label, predicted, share, samples, people.
    """
    clauses = []
    for method, rows in matrices[(matrices["task"] == "video") & matrices["share"].notna()].groupby("method", sort=False):
        right = rows["label"] == rows["predicted"]
        low, wrong = rows[right].nsmallest(1, "share").iloc[0], rows[~right].nlargest(1, "share").iloc[0]
        clauses.append(f"{METHOD_LABELS[method]} has its lowest recall on clips for {low['label']} ({100 * low['share']:.0f} % of "
                       f"{counted(low['samples'], 'clip')} of {counted(low['people'], 'person')}) and most often takes {wrong['label']} for "
                       f"{wrong['predicted']} ({100 * wrong['share']:.0f} % of {counted(wrong['samples'], 'clip')})")
    return sentence(clauses)


def late_change(curves: pd.DataFrame) -> pd.DataFrame:
    """How much validation WAR changes from the middle to the end of training: task, pretrained, change, least, most (points), runs.

    Args:
        curves: task, method, pretrained, seed, epoch, war (shares).
    """
    one_run = curves.sort_values("epoch").groupby(["task", "pretrained", "method", "seed"], sort=False)["war"]
    change = 100 * one_run.agg(lambda values: values.iloc[-1] - values.iloc[(len(values) - 1) // 2])
    return change.groupby(["task", "pretrained"], sort=False).agg(change="mean", least="min", most="max", runs="size").reset_index()


def learning(curves: pd.DataFrame) -> str:
    """`late_change` as a sentence."""
    parts = [f"{signed(r.change)} (single runs {signed(r.least)} to {signed(r.most)}) on {KINDS[r.task]} {STARTS[bool(r.pretrained)]}"
             for r in late_change(curves).itertuples()]
    return sentence([f"from the middle to the end of training, validation WAR changes on average by these points: {', '.join(parts)}"])


def claims(judged: pd.DataFrame) -> str:
    """What photos give clips with and without experts, what experts add, and the count of verdicts on the paper's claims.

    Args:
        judged: of `report.judge`.
    """
    row = {r["name"]: r for _, r in judged.iterrows() if not np.isnan(r["difference"])}
    number = lambda name: effect(*(row[name][c] for c in ("difference", "low", "high")))
    clauses = []
    if {"StaticHelps", "PlainHelps", "Repair"} <= set(row):
        experts = row["Repair"]
        credit = {"together": "no part of it is shown to be theirs", "uncorrected": "an effect of theirs does not outlast the correction"}.get(
            outcome(experts["low"], experts["high"], experts["p_holm"]), "they add to it" if experts["difference"] > 0 else "they lower it")
        clauses.append(f"photos change WAR on clips by {number('StaticHelps')} points with experts and by {number('PlainHelps')} without; "
                       f"experts change it by {number('Repair')}: {credit}")
    words = judged[judged["paper"]]["verdict"].value_counts()
    said = ", ".join(f"{word}: {count}" for word, count in words.items())
    return sentence([*clauses, f"verdicts on the {int(judged['paper'].sum())} claims of the paper: {said}"])


def published(gains: pd.DataFrame, ranks: pd.DataFrame) -> str:
    """S4D's stated gain and its place, benchmark by benchmark.

    Args:
        gains, ranks: of `s4d.published`.
    """
    parts = [f"{g.gain:+.2f} points on {g.dataset} (number {r.rank} of {r.methods} methods)" for g, r in zip(gains.itertuples(), ranks.itertuples())]
    return sentence([f"by its authors' numbers, S4D changes the WAR of its VideoMAE baseline by {', '.join(parts)}"])
