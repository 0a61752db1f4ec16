"""Published results on the three benchmarks of the paper, with their sources. Nothing here was measured by this project."""
from __future__ import annotations

import pandas as pd

BENCHMARKS = ("DFEW", "FERV39K", "MAFW")
METHOD, BASELINE = "S4D", "VideoMAE, as in S4D"

# Method, year, kind, (UAR, WAR) in percent on DFEW, FERV39K and MAFW, source, key in paper/references.bib. None: not found.
# The protocols of DFEW and MAFW average five folds. No publication states the baseline's WAR in this form: it is derived, S4D's WAR
# minus the gain that the S4D paper gives, so its source is that paper and not VideoMAE's, which does not use these datasets.
ROWS = (
    ("Former-DFER", 2021, "CNN and transformer", ((53.69, 65.70), (36.88, 45.72), (31.16, 43.27)), "ACM MM 2021", "formerdfer"),
    ("IAL", 2023, "ResNet-18", ((55.71, 69.24), (35.82, 48.54), None), "AAAI 2023, arXiv 2208.10335", "ial"),
    ("M3DFEL", 2023, "3D CNN", ((56.10, 69.25), (35.94, 47.67), None), "CVPR 2023", "m3dfel"),
    ("DFER-CLIP", 2023, "vision and language", ((59.61, 71.25), (41.27, 51.65), (39.89, 52.55)), "BMVC 2023, arXiv 2308.13382", "dferclip"),
    ("LSGTNet", 2024, "CNN and transformer", ((61.33, 72.34), (41.30, 51.31), None), "Applied Soft Computing 2024", "lsgtnet"),
    ("SVFAP", 2023, "self-supervised on video", ((62.83, 74.27), (42.14, 52.29), (41.19, 54.28)), "arXiv 2401.00416", "svfap"),
    ("MAE-DFER", 2023, "self-supervised on video", ((63.41, 74.43), (43.12, 52.07), (41.62, 54.31)), "ACM MM 2023, arXiv 2307.02227",
     "maedfer"),
    ("DK-CLIP", 2024, "vision and language", ((64.95, 75.41), (41.84, 52.37), (43.01, 56.56)), "ACM MM 2024", "dkclip"),
    ("S2D", 2024, "image model adapted", ((61.82, 76.03), (41.28, 52.56), (41.86, 57.37)), "TAFFC 2024, arXiv 2312.05447", "s2d"),
    ("FineCLIPER", 2024, "vision and language", ((65.98, 76.21), (45.22, 53.98), (45.01, 56.91)), "ACM MM 2024, arXiv 2407.02157",
     "finecliper"),
    ("MMA-DFER", 2024, "audio and video", ((67.01, 77.51), None, (44.11, 58.52)), "CVPR Workshops 2024, arXiv 2404.09010", "mmadfer"),
    (BASELINE, 2025, "self-supervised on video", ((None, 74.60), (None, 52.39), (None, 53.51)),
     "derived: S4D's WAR minus its gain, TAFFC 2025, arXiv 2409.06154", "s4d"),
    ("S4D", 2025, "self-supervised on image and video", ((None, 76.68), (None, 53.65), (None, 58.44)), "TAFFC 2025, arXiv 2409.06154",
     "s4d"),
)


def results() -> pd.DataFrame:
    """The published comparison, one row per method and dataset.

    Returns:
        table: method, year, kind, dataset, UAR, WAR (percent; missing where it was not found), source, key.
    """
    rows = [(method, year, kind, dataset, *(scores or (None, None)), source, key)
            for method, year, kind, per_dataset, source, key in ROWS for dataset, scores in zip(BENCHMARKS, per_dataset)]
    table = pd.DataFrame(rows, columns=["method", "year", "kind", "dataset", "UAR", "WAR", "source", "key"])
    return table.astype({"UAR": float, "WAR": float})


def gains() -> pd.DataFrame:
    """S4D's gain over its baseline on each benchmark.

    Returns:
        table: dataset, baseline, s4d (WAR in percent), gain (percentage points).
    """
    war = results().pivot(index="dataset", columns="method", values="WAR").loc[list(BENCHMARKS)]
    out = pd.DataFrame({"dataset": BENCHMARKS, "baseline": war[BASELINE].to_numpy(), "s4d": war[METHOD].to_numpy()})
    return out.assign(gain=(out["s4d"] - out["baseline"]).round(2))


def ranks() -> pd.DataFrame:
    """Where S4D's WAR stands among the methods listed here.

    Returns:
        table: dataset, rank (1 is the highest WAR), methods (with a WAR on that dataset), best (the highest one's name).
    """
    table = results().dropna(subset="WAR")
    rows = []
    for dataset in BENCHMARKS:
        here = table[table["dataset"] == dataset].sort_values("WAR", ascending=False, ignore_index=True)
        rows.append((dataset, int(here.index[here["method"] == METHOD][0]) + 1, len(here), here["method"][0]))
    return pd.DataFrame(rows, columns=["dataset", "rank", "methods", "best"])


def by_war(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `results`, methods from the highest WAR on the first benchmark down."""
    first = table[table["dataset"] == BENCHMARKS[0]].sort_values("WAR", ascending=False)["method"]
    place = {method: i for i, method in enumerate(first)}
    return table.sort_values("method", key=lambda names: names.map(place), kind="stable", ignore_index=True)


def reading_table() -> pd.DataFrame:
    """The comparison as it is printed: one row a method, `UAR / WAR` per dataset, from the highest WAR on the first one down; LaTeX markup
    in the last column."""
    def pair(row) -> str:
        return "--" if pd.isna(row["WAR"]) else " / ".join("--" if pd.isna(v) else f"{v:.2f}" for v in (row["UAR"], row["WAR"]))
    table = by_war(results())
    wide = table.assign(pair=table.apply(pair, axis=1)).pivot(index="method", columns="dataset", values="pair")
    heads = table.drop_duplicates("method")
    out = heads[["method", "year", "kind"]].reset_index(drop=True)
    for dataset in BENCHMARKS:
        out[dataset] = wide.loc[heads["method"], dataset].to_numpy()
    out["source"] = [rf"\cite{{{row.key}}}" + ", derived" * (row.method == BASELINE) for row in heads.itertuples()]
    return out
