"""Claims of README, notebook 06 and paper: the number each states, its interval, what a fresh run gives, and a verdict."""
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable

import pandas as pd

from .study.figures.style import KINDS, METHOD_LABELS
from .report import UNFOUNDED

Triple = tuple[float, float, float]            # value, low, high
COLUMNS = ["where", "claim", "committed", "interval", "fresh", "verdict"]
VERDICTS = ("fails", "moved", "weaker", "stronger", "holds", "illustration")        # from the worst on
SIDES = {"supported": 1, "against": -1, "not decided": 0} | dict.fromkeys(UNFOUNDED.values(), 0)
START = {"True": "pre-trained", "False": "from scratch"}
NUMBER = r"[+-]?\d+\.\d \[[+-]?\d+\.\d, [+-]?\d+\.\d\]"
SECTIONS = {"sandbox": "Results", "night": "What it depends on"}                   # of README, by the profile whose numbers it states
COUNTS = ("seeds", "test clips", "people of test clips", "test photos", "people of test photos")
PEOPLE = r"(\d+) seeds, (\d+) test clips of (\d+) people and (\d+) test photos of (\d+) people"


def section(readme: str, title: str | None) -> str:
    """README's text under a title of the second level; empty where there is none."""
    return readme.partition(f"\n## {title}\n")[2].partition("\n## ")[0] if title else ""


def macros(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """LaTeX command -> text; empty where notebook 06 left none."""
    found = tables.get("numbers")
    return {} if found is None else dict(zip(found["name"], found["text"].astype(str)))


def turned(before: int, after: int) -> str:
    """What becomes of a verdict: signs of what was and is shown, 0 for nothing. Its opposite fails; what nothing shows any more is weaker."""
    if before == after:
        return "holds"
    return "fails" if before and after else "stronger" if after else "weaker"


def side(low: float, high: float) -> int:
    """The sign that an interval of a difference shows; 0 when it includes 0."""
    return int(low > 0) - int(high < 0)


def judge(committed: Triple, fresh: Triple, difference: bool) -> str:
    """The verdict on a number with an interval.

    It fails when the intervals have nothing in common, when the fresh value is not even in its own, when a difference turns into
    its opposite, and when one is no longer shown whose value has moved out of the interval.
    """
    (_, low, high), (value, fresh_low, fresh_high) = committed, fresh
    inside, step = low <= value <= high, turned(side(low, high), side(fresh_low, fresh_high)) if difference else "holds"
    together = max(low, fresh_low) <= min(high, fresh_high) and fresh_low <= value <= fresh_high
    if not together or step == "fails" or (step == "weaker" and not inside):
        return "fails"
    return step if inside else "moved"


def worst(verdicts: Iterable[str]) -> str:
    """The first of `VERDICTS` that occurs; none given, all hold."""
    return min(verdicts, key=VERDICTS.index, default="holds")


def shown(numbers: Triple, sign: str = "") -> tuple[str, str]:
    """A value and its interval as text."""
    return f"{numbers[0]:{sign}.1f}", f"[{numbers[1]:{sign}.1f}, {numbers[2]:{sign}.1f}]"


def line(where: str, claim: str, committed: str, interval: str, fresh: str, verdict: str) -> dict:
    """One line of the result."""
    return dict(zip(COLUMNS, (where, claim, committed, interval, fresh, verdict)))


def described(row: pd.Series) -> str:
    """What a row of scores or of differences is about: `clips, WAR: S4D (MoAE) minus Multi-task, pre-trained`."""
    words = METHOD_LABELS | START
    parts = []
    for column in ("input", "method", "pretrained", "study", "setting"):
        if pd.notna(row.get(column)):
            own, other = (words.get(str(row.get(c)), str(row.get(c))) for c in (column, f"{column}_reference"))
            parts.append(own if pd.isna(row.get(f"{column}_reference")) else f"{own} minus {other}")
    return f"{KINDS[row['task']]}, {row['metric']}: {', '.join(parts)}"


def points(row: pd.Series, value: str) -> Triple:
    """A row's value and interval in per cent."""
    return tuple(100 * float(row[c]) for c in (value, "low", "high"))


def of_readme(fresh: dict[str, pd.DataFrame], committed: dict[str, pd.DataFrame], text: str) -> list[dict]:
    """Every number of README's section of results; each is found in the committed tables by how it is printed."""
    rows, out = {}, of_people(fresh, text)
    for name, value in (("finetuning_table", "value"), ("faces_difficulty", "value"), ("finetuning_ablations", "value"),
                        ("finetuning_starts", "value"), ("finetuning_paired", "difference"), ("ablations_paired", "difference"),
                        ("ablations_help", "difference"), ("starts_paired", "difference")):
        for i, row in committed.get(name, pd.DataFrame()).iterrows():
            rows.setdefault(" ".join(shown(points(row, value), "+" * (value == "difference"))), (name, value, i, row))
    for printed in dict.fromkeys(re.findall(NUMBER, text)):
        number, _, interval = printed.partition(" ")
        if printed not in rows:
            out.append(line("README", printed, number, interval, "no committed table has this number", "fails"))
            continue
        name, value, i, row = rows[printed]
        table, difference = fresh.get(name), value == "difference"
        new = points(table.loc[i], value) if table is not None and i in table.index else None
        out.append(line("README", described(row), number, interval, " ".join(shown(new, "+" * difference)) if new else "missing",
                        judge(points(row, value), new, difference) if new else "fails"))
    return out


def of_people(fresh: dict[str, pd.DataFrame], text: str) -> list[dict]:
    """README's counts of seeds, samples and people, and its chance level: equal to those of the fresh tables."""
    out, table, hard = [], fresh.get("finetuning_table"), fresh.get("faces_difficulty")
    found, chance = re.search(PEOPLE, " ".join(text.split())), re.search(r"chance is (\d+\.\d)", text)
    if found:
        first = {} if table is None else {task: rows.iloc[0] for task, rows in table.groupby("task")}
        cells = [("video", "seeds"), ("video", "samples"), ("video", "subjects"), ("image", "samples"), ("image", "subjects")]
        for name, said, (task, column) in zip(COUNTS, found.groups(), cells):
            new = str(first[task][column]) if task in first else "missing"
            out.append(line("README", name, said, "", new, "holds" if new == said else "fails"))
    if chance:
        new = "missing" if hard is None else f"{100 * hard['chance'].iloc[0]:.1f}"
        out.append(line("README", "chance", chance[1], "", new, "holds" if new == chance[1] else "fails"))
    return out


def of_notebook(fresh: dict[str, pd.DataFrame], committed: dict[str, pd.DataFrame]) -> list[dict]:
    """The claims of the paper as notebook 06 judges them."""
    out, new = [], fresh.get("report_claims", pd.DataFrame(columns=["name"])).set_index("name")
    for old in committed.get("report_claims", pd.DataFrame()).itertuples():
        claim = f"{old.claim}: {old.comparison}"
        if old.name not in new.index:
            out.append(line("notebook 06", claim, old.verdict, "", "missing", "fails"))
            continue
        now = new.loc[old.name]
        numbers, fresh_numbers = ((r.difference, r.low, r.high) for r in (old, now))
        if old.verdict not in SIDES or now.verdict not in SIDES:                 # not measured
            verdict = "holds" if old.verdict == now.verdict else "fails"
        else:
            both = judge(numbers, fresh_numbers, False), turned(SIDES[old.verdict], SIDES[now.verdict])
            verdict = "fails" if both == ("moved", "weaker") else worst(both)
        (value, interval), new_text = shown(numbers, "+"), " ".join(shown(fresh_numbers, "+"))
        out.append(line("notebook 06", claim, f"{value}, {old.verdict}", interval, f"{new_text}, {now.verdict}", verdict))
    return out


def of_paper(fresh: dict[str, pd.DataFrame], committed: dict[str, pd.DataFrame], text: str) -> list[dict]:
    """Every number that the paper's text uses, value and interval in one line."""
    old, new, out = macros(committed), macros(fresh), []
    used = [name for name in dict.fromkeys(re.findall(r"\\([A-Z][A-Za-z]+)", text)) if name in old or name in new]
    partner = lambda name: name.replace("Diff", "Interval", 1) if name.startswith("Diff") else f"{name}Interval"
    intervals = {partner(name) for name in used}
    for name in used:
        if name not in intervals:
            said, now = old.get(name, "missing"), new.get(name, "missing")
            interval, fresh_interval = (texts.get(partner(name), "") for texts in (old, new))
            out.append(line("paper", name, said, interval, f"{now} {fresh_interval}".strip(), _macro(name, said, now, interval, fresh_interval)))
    words = worst([row["verdict"] for row in out if row["claim"].startswith("Verdict")])
    for row in out:
        if row["claim"] in ("Supported", "Against", "Undecided", "Unfounded") and row["committed"] != row["fresh"]:
            row["verdict"] = words                                              # they count those verdicts
    return out


def _macro(name: str, said: str, now: str, interval: str, fresh_interval: str) -> str:
    """The verdict on one LaTeX command."""
    if name.startswith("Verdict") and said in SIDES and now in SIDES:
        return turned(SIDES[said], SIDES[now])
    with contextlib.suppress(ValueError):                                       # no number: not measured, or missing
        if interval:
            known, new = (tuple(float(word.strip("[],").replace("−", "-")) for word in words.split())
                          for words in (f"{said} {interval}", f"{now} {fresh_interval}"))
            return judge(known, new, name.startswith("Diff"))
    return "holds" if said == now else "fails"
