"""Tables as they are printed: a row a system, numbers with their intervals as text."""
from __future__ import annotations

import numpy as np
import pandas as pd

from .intervals import holm, p_text


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """`protocol` as it is printed: a row a metric, a column a split, `41.5 [37.0, 46.1]`, %."""
    text = [f"{100 * v:.2f} [{100 * low:.1f}, {100 * high:.1f}]" if v == v else "-"
            for v, low, high in zip(table["value"], table["low"], table["high"], strict=True)]
    out = table.assign(text=text).pivot(index="metric", columns="part", values="text")
    out = out.reindex(index=table["metric"].unique(), columns=table["part"].unique())
    return out.rename_axis(columns=None).rename_axis("metric").reset_index()


def readable(table: pd.DataFrame, value: str = "value") -> pd.DataFrame:
    """`scores` as a paper prints them: a row a system, a column a metric, `41.5 [37.0, 46.1]`, %.

    With value "difference", a table of `paired`: with signs, and Holm's p.
    """
    sign = "+" if value == "difference" else ""
    names = list(table.columns[: table.columns.get_loc("metric")])
    out = table[names].drop_duplicates().reset_index(drop=True)
    for metric, rows in table.groupby("metric", sort=False):
        numbers = zip(*(100 * rows[c] for c in (value, "low", "high")), strict=True)
        out[metric] = [f"{v:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
                       for v, low, high in numbers]
        if "p_holm" in rows:
            out[f"{metric} p"] = [p_text(p) for p in rows["p_holm"]]
    last = table.drop_duplicates(names).reset_index(drop=True)
    return out.assign(**{c: last[c] for c in ("seeds", "subjects", "samples") if c in last})


def agreement_as_read(pairs: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """`seed_agreement`, tasks stacked: a row a block and task, with the largest p of its pairs.

    A permutation p is never below 1 / (1 + permutations), so it is printed as a limit.
    """
    parts = pairs.groupby(["block", "task"], sort=False)
    seen = parts.matched.agg(["mean", "min", "max"]).astype(float)
    worst = parts[["null_95", "p"]].max()
    matched = [f"{mean:.0%} ({low:.0%} to {high:.0%})" for mean, low, high in seen.to_numpy()]
    return pd.DataFrame({
        "block": seen.index.get_level_values("block"),
        "task": seen.index.get_level_values("task").map(kinds),
        "matched": [text.replace("%", " %") for text in matched],
        "null, 95 %": [f"{100 * v:.0f} %" for v in worst.null_95],
        "p (Holm)": [f"\N{LESS-THAN OR EQUAL TO} {p:.3f}" for p in holm(worst.p.to_numpy())]})


def modes_as_read(table: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """`modes_table` with one decimal; changes are counted from the mode "paper"."""
    change = [f"{r.change:+z.1f} [{r.low:+z.1f}, {r.high:+z.1f}]".replace("-", "\N{MINUS SIGN}")
              for r in table.itertuples()]
    shown = table[["war", "changed", "shift", "dropped"]].map("{:.1f}".format)
    return pd.DataFrame({
        "samples": table.task.map(kinds), "evaluation": table["mode"], "WAR (%)": shown.war,
        "change of WAR (points)": np.where(table["mode"] == "paper", "--", change),
        "answers that differ (%)": shown.changed, "shift of probability (%)": shown["shift"],
        "dropped (%)": shown.dropped})
