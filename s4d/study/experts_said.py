"""What the experts' tables show, in a sentence that reads well whichever way the numbers fall: the first one of a caption."""
from __future__ import annotations

import numpy as np
import pandas as pd

from ..captions import LEVEL
from ..study.figures.style import KINDS
from .experts import stability as verdict
from .routing import WORTH

MOST = 6                # findings that a sentence lists


def number(value: float, low: float = np.nan, high: float = np.nan, form: str = "+.1f") -> str:
    """`+3.2 [+1.0, +5.5]` with true minus signs, without brackets where the limits are missing."""
    limits = "" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}{limits}".replace("-", "\N{MINUS SIGN}")


def listed(parts: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


# Who is asked -----------------------------------------------------------------------------------------------------------

def usage(table: pd.DataFrame) -> str:
    """The largest difference between tasks beside that between emotions, of `experts.usage_table`."""
    known = table[table.difference.notna() & ((table.by == "emotion") | (table.group == "video"))]
    if set(known.by) != {"task", "emotion"}:
        return "Tasks or emotions are too few to be compared."
    task, emotion = (_largest(known[known.by == by]) for by in ("task", "emotion"))
    clear = [a.least > b.most for a, b in ((emotion, task), (task, emotion))]
    lead = ("Experts divide emotions more than tasks: t" if clear[0] else "Experts divide tasks more than emotions: t" if clear[1] else "T")
    return (f"{lead}he largest difference in an expert's share of the assignments is {number(task.points, task.least, task.most, '.1f')} points "
            f"between clips and photos (expert {task.expert} of block {task.block}), and "
            f"{number(emotion.points, emotion.least, emotion.most, '.1f')} between one emotion and the others ({emotion.group} in "
            f"{KINDS[emotion.task]}, expert {emotion.expert} of block {emotion.block}).")


def _largest(part: pd.DataFrame) -> pd.Series:
    """The row with the largest difference, and its size with limits, in points and without sign: points, least, most."""
    row = part.loc[part.difference.abs().idxmax()]
    ends = sorted(100 * np.sign(row.difference) * row[["difference_low", "difference_high"]].astype(float))
    return pd.concat([row, pd.Series(dict(points=100 * abs(row.difference), least=ends[0], most=ends[1]))])


def widths(table: pd.DataFrame) -> str:
    """Median half width of the differences' intervals, by the rows of the figure; empty where no interval is known."""
    half = 50 * (table.difference_high - table.difference_low)
    by = {"clips and photos": table.by == "task", **{f"emotions in {k}": (table.by == "emotion") & (table.task == t) for t, k in KINDS.items()}}
    found = [f"{half[rows].median():.1f} ({name})" for name, rows in by.items() if half[rows].notna().any()]
    return f"median half width of the intervals {listed(found)} points" if found else "a single person gives no interval"


def maps(agreement: pd.DataFrame, shown: int) -> str:
    """Correlation of photos' and clips' maps, of `experts.map_agreement` for every seed and block, with that of the seed that is shown first."""
    parts = [f"r = {number(r.agreement, r.agreement_low, r.agreement_high, '.2f')} in block {r.block}"
             for r in agreement[agreement.seed == shown].itertuples()]
    others = agreement[agreement.seed != shown].agreement
    more = f" (in other seeds {number(others.min(), form='.2f')} to {number(others.max(), form='.2f')})" if len(others) else ""
    return f"The maps of photos and of clips correlate with {listed(parts)}{more}."


def leaders(table: pd.DataFrame) -> str:
    """How many tokens of a picture the most frequent leader has, and how many keep theirs along a clip, of `experts.leading_table`."""
    most = {t: part.groupby("picture").expert.agg(lambda e: e.value_counts().max()) for t, part in table.groupby("task")}
    tokens = table[table.task == "image"].groupby("picture").size().max()
    clip = table[table.task == "video"].pivot(index=["row", "column"], columns="picture", values="expert")
    kept = int((clip.nunique(axis=1) == 1).sum())
    return (f"One expert leads {most['image'].min()} to {most['image'].max()} of the {tokens} tokens of a photo (mean of these examples "
            f"{most['image'].mean():.1f}); {kept} of {len(clip)} places keep their leader over all steps of the clip.")


# What decides it --------------------------------------------------------------------------------------------------------

def specificity(table: pd.DataFrame) -> str:
    """What tells most about the expert, and which questions do beyond chance, of `experts.beyond_null`."""
    rows = table.drop_duplicates(["block", "about"]).dropna(subset="mean")
    if rows.empty:
        return "There is a single group of everything, so nothing can tell about the expert."
    top = rows.loc[rows["mean"].idxmax()]
    share = rows.assign(shown=rows.p_holm <= LEVEL).groupby("about", sort=False).shown.mean()
    sets = [("in every block for", share == 1), ("in some blocks for", (share > 0) & (share < 1)), ("in no block for", share == 0)]
    parts = [f"{where} {_questions(list(share.index[use]), list(share.index))}" for where, use in sets if use.any()]
    told = number(top["mean"], top.mean_low, top.mean_high, ".1f")
    return (f"{question(top.about).capitalize()} tells most about the expert: {told} % of what it could, beyond chance (block {top.block}); more than its "
            f"null is shown {listed(parts)} (Holm over {rows.p_holm.notna().sum()} tests).")


def question(about: str) -> str:
    """`emotion, image` -> `emotion of photos`."""
    what, _, detail = about.partition(", ")
    return f"{what} of {KINDS[detail]}" if detail in KINDS else f"{what} at the {detail}" if detail else what


def _questions(chosen: list[str], known: list[str]) -> str:
    """Names of questions; one word for photos and clips where both are meant."""
    out = []
    for about in chosen:
        what = about.partition(", ")[0]
        alike = [k for k in known if k.partition(", ")[0] == what]
        out.append(what if len(alike) > 1 and set(alike) <= set(chosen) else question(about))
    return listed(list(dict.fromkeys(out)))


def stability(pairs: pd.DataFrame) -> str:
    """Whether seeds divide the work alike, of `experts.seed_agreement`, tasks stacked."""
    word = verdict(pairs)
    if word == "unknown":
        return "One seed cannot show whether the division of labour is stable: run a profile with several."
    found = {"stable": "is stable", "partly": "is only partly stable", "unstable": "is not stable"}[word]
    return (f"The division of labour {found} across seeds: matched experts lead {100 * pairs.matched.mean():.0f} % of the tokens "
            f"({100 * pairs.matched.min():.0f} to {100 * pairs.matched.max():.0f} % over pairs, blocks and tasks; "
            f"{100 * pairs.null_mean.mean():.0f} % by chance).")


# Who would be missed ----------------------------------------------------------------------------------------------------

def switched_off(table: pd.DataFrame) -> str:
    """The largest mean change without an expert, and which differ from 0, of `routing.corrected` over all samples."""
    top = table.loc[table.change.abs().idxmax()]
    clear = table[table.p_holm <= LEVEL].sort_values("p_holm")
    which = [f"expert {r.expert} of block {r.block} for {KINDS[r.task]}" for r in clear.head(MOST).itertuples()]
    return (f"The largest mean change of the true class's probability without one expert is {number(top.change, top.low, top.high, '+.2f')} points "
            f"(expert {top.expert} of block {top.block}, {KINDS[top.task]}); {len(clear)} of {table.p_holm.notna().sum()} changes "
            f"differ from 0 after Holm's correction" + (f": {listed(which)}{' first' * (len(clear) > MOST)}." if which else "."))


def switched_off_by_emotion(table: pd.DataFrame) -> str:
    """Which emotion misses which expert, of `routing.corrected` by emotion."""
    clear = table[marked(table)].sort_values(["block", "expert", "task"])
    tests = table.p_holm.notna().sum()
    if clear.empty:
        top = table.loc[table.change.abs().idxmax()]
        return (f"No change by {WORTH} points or more outlasts Holm's correction over {tests} cells; the largest is "
                f"{number(top.change, top.low, top.high)} points ({top.emotion} in {KINDS[top.task]}, expert {top.expert} of block {top.block}).")
    largest = clear.loc[clear.change.abs().sort_values(ascending=False).index[:MOST]].sort_values(["block", "expert", "task"])
    parts = [f"{r.emotion} in {KINDS[r.task]} without expert {r.expert} of block {r.block} {number(r.change, r.low, r.high)}"
             for r in largest.itertuples()]
    losses = (clear.change < 0).sum()
    return (f"{len(clear)} of {tests} changes reach {WORTH} points and outlast Holm's correction (losses: {losses}, gains: {len(clear) - losses}): "
            f"{'; '.join(parts)} points{f' ({MOST} largest)' * (len(clear) > MOST)}.")


def marked(table: pd.DataFrame) -> pd.Series:
    """Cells that outlast the correction and are worth a remark, bool `[rows]`."""
    return (table.p_holm <= LEVEL) & (table.change.abs() >= WORTH)


def modes(table: pd.DataFrame) -> str:
    """What the released way to route changes, of `routing.modes_table`."""
    rows = table[table["mode"] == "released"].itertuples()
    parts = [f"{number(r.change, r.low, r.high)} points for {KINDS[r.task]}, where two passes differ in {r.changed:.1f} % of the answers"
             for r in rows]
    return f"Evaluated as released, with noise and capacity limit, WAR changes by {', and by '.join(parts)}."
