"""`make verify`: the numbers of a fresh run against the committed ones, table by table and claim by claim.

What data and settings decide must be equal. What training decides is not on another processor: sums round otherwise, training
lets the difference grow, and the run is then like one with new seeds. Such a number holds inside its committed 95 % interval. A
few of a hundred numbers leave theirs by chance: one outside has moved, and fails when its own interval has nothing in common with
the committed one. Numbers with seeds and no interval get one from their seeds. What has neither is an illustration, of which
rows, columns and finite numbers are checked.
"""
from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binom
from scipy.stats import t as student

from .artifacts import ROOT, csv_text, default_out, read_manifest
from .files import OutputError, write_text
from .claims import COLUMNS, SECTIONS, VERDICTS, macros, of_notebook, of_paper, of_readme, section

DIGITS = 1e-5       # relative: the files hold six significant digits, so equal numbers may differ by one unit of the last
CHANCE = 0.99       # with which as many values of a table miss their 95 % intervals as are let pass


@dataclass(frozen=True)
class Kind:
    """What training decides in a table of source data. Every other column must be equal.

    Args:
        intervals: columns whose 95 % interval stands in `<column>_low` and `<column>_high`, or else in `low` and `high`.
        seeds: columns without one, of tables with a row a seed.
        free: columns without either.
        totals: those of them whose sum must be equal.
        why: of an illustration, what keeps its numbers from being compared.
    """

    intervals: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()
    why: str = ""


# Null models, p values and spreads: they accompany a trained number.
BESIDE = {"low", "high", "p", "p_holm", "seed_sd", "seed_low", "seed_high", "null", "null_mean", "null_95", "any_95", "within_mean",
          "within_95", "p_any", "p_within"}
ONE = "one network's experts"       # another training deals them other numbers; the tables with seeds hold what networks have in common
FIXED = ("corpus_counts", "faces_actions", "faces_emotions", "faces_filmstrip", "faces_gap", "faces_turn", "model_sizes",
         "pretraining_masks", "report_published", "report_runs", "report_sources")
TABLES = {
    **dict.fromkeys(FIXED, Kind()),
    **dict.fromkeys(("faces_difficulty", "finetuning_table"), Kind(intervals=("value",))),
    **dict.fromkeys(("finetuning_ablations", "finetuning_starts"), Kind(intervals=("value", "difference"))),
    **dict.fromkeys(("ablations_help", "ablations_paired", "finetuning_paired", "starts_paired"), Kind(intervals=("difference",))),
    "clips_saved": Kind(intervals=("alone",), free=("war", "beyond")),
    **dict.fromkeys(("report_claims", "report_intervals"), Kind(intervals=("difference",), free=("verdict",))),
    "confusability": Kind(intervals=("rho",), free=("static", "dynamic", "rho_cells", "p_cells")),
    "finetuning_comparison": Kind(intervals=("value",)),
    "layer_similarity": Kind(intervals=("value",), free=("any_mean", "person_mean", "person_95", "p_person")),
    "pretraining_error": Kind(intervals=("error",)),
    "prototype_similarity": Kind(intervals=("corrected", "change"), free=("cosine", "diagonal", "off_diagonal", "difference")),
    "routing_modes": Kind(intervals=("change",), free=("war", "changed", "shift", "dropped")),
    "static_along_clip": Kind(intervals=("mean",)),
    "static_gains": Kind(intervals=("gain",), free=("without", "recall")),
    "static_gains_foretold": Kind(intervals=("rho",)),
    "static_timing": Kind(intervals=("best", "peak")),
    "transfer_matrix": Kind(intervals=("war",), free=("uar",)),
    "experts_branch": Kind(seeds=("size",)),
    "experts_evenness": Kind(seeds=("effective_experts", "gate_bits", "load", "unused")),
    "experts_specificity": Kind(seeds=("bits", "index"), free=("beyond", "mean", "mean_low", "mean_high", "null_top")),
    "experts_stability": Kind(seeds=("agreement", "matched")),          # pairs of seeds, taken as if each were a seed
    "finetuning_curves": Kind(seeds=("war",)),
    "numbers": Kind(free=("text",)),                                    # judged one by one, as the paper uses them
    **dict.fromkeys(("experts_switched_off", "experts_switched_off_emotions"), Kind(free=("change",), why=ONE)),
    "experts_maps": Kind(free=("gate", "agreement", "agreement_low", "agreement_high"), why=ONE),
    "experts_tokens": Kind(free=("expert", "gate"), why="single pictures"),
    "experts_usage": Kind(free=("share", "difference", "difference_low", "difference_high"), why=ONE),
    "finetuning_confusion": Kind(free=("count", "share"), totals=("count",), why="no interval"),
    "pretraining_loss": Kind(free=("loss",), why="one run; see its error"),
    "pretraining_reconstructions": Kind(free=("pixel_rmse",), why="single pictures"),
    "captions": Kind(free=("text",), why="its numbers are judged above"),
    "shared_space": Kind(free=("x", "y"), why="a t-SNE map"),
}


# Reading ----------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def committed_data(folder: str) -> Iterator[Path]:
    """A folder of source data as of the last git commit, in a temporary folder: `reproduce` writes over the files of the working tree.

    Raises:
        OutputError: outside a git repository, or when nothing is committed there.
    """
    with tempfile.TemporaryDirectory() as place:
        try:
            packed = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD", folder], capture_output=True, check=True, timeout=60).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise OutputError(f"the committed numbers cannot be read from git ({type(error).__name__}): name a folder of source data to "
                              "compare with as the second argument") from error
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(place, filter="data")
        yield Path(place) / folder


def read(folder: str | Path) -> dict[str, pd.DataFrame]:
    """Name -> table of every CSV file in a folder.

    Raises:
        OutputError: when there is none, or one cannot be read.
    """
    files, tables = sorted(Path(folder).glob("*.csv")), {}
    if not files:
        raise OutputError(f"{folder} holds no source data (*.csv): run `make reproduce`, or name the right folder")
    for file in files:
        try:
            tables[file.stem] = pd.read_csv(file)
        except (OSError, ValueError) as error:
            raise OutputError(f"{file} is no table ({str(error).lower()}): run the notebook that writes it again") from error
    return tables


def profile_of(folder: str | Path, tables: dict[str, pd.DataFrame]) -> str | None:
    """The profile that a folder of source data was made with: notebook 06's numbers name it, or else the manifest above the folder."""
    named = macros(tables).get("Profile")
    return named or next((entry["profile"] for entry in read_manifest(Path(folder).resolve().parent).values()), None)


# Tables -----------------------------------------------------------------------------------------------------------------

def unequal(fresh: pd.Series, committed: pd.Series) -> np.ndarray:
    """Where two columns differ, bool `[N]`: text and whole numbers at all, decimals by more than the digits that the files hold."""
    if not all(pd.api.types.is_numeric_dtype(c) for c in (fresh, committed)):
        return ~((fresh.astype(str) == committed.astype(str)) | (fresh.isna() & committed.isna())).to_numpy()
    a, b = fresh.to_numpy(float), committed.to_numpy(float)
    whole = (a == np.round(a)) & (b == np.round(b))
    return np.where(whole, a != b, ~np.isclose(a, b, rtol=DIGITS, atol=1e-12, equal_nan=True))      # 1e-12: a sum that is 0 but for rounding


def unlike(fresh: pd.DataFrame, committed: pd.DataFrame, kind: Kind) -> str:
    """What keeps two tables from being compared, or breaks what must be equal, in a sentence; empty where nothing does."""
    if list(fresh.columns) != list(committed.columns) or len(fresh) != len(committed):
        return f"{len(fresh)} rows of {', '.join(fresh.columns)}; committed {len(committed)} of {', '.join(committed.columns)}"
    for column in fresh.columns:
        a, b = fresh[column], committed[column]
        if column not in trained(kind):
            wrong, what = unequal(a, b), "is"
        else:
            wrong, what = (a.isna() != b.isna()).to_numpy() | np.isin(a.to_numpy(object), (np.inf, -np.inf)), "is no number like that one:"
        if wrong.any():
            row = int(np.argmax(wrong))
            return f"{column} {what} {a[row]} in row {row + 1}, committed {b[row]}; {wrong.sum()} such rows"
    for column in kind.totals:
        if fresh[column].sum() != committed[column].sum():
            return f"{column} adds up to {fresh[column].sum()}, committed {committed[column].sum()}"
    return ""


def trained(kind: Kind) -> set[str]:
    """Columns of a table that training decides."""
    return {*BESIDE, *kind.free, *kind.seeds, *kind.intervals, *(f"{c}_{side}" for c in kind.intervals for side in ("low", "high"))}


def with_intervals(fresh: pd.DataFrame, committed: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column's values and intervals, each once: value, low, high (fresh), known_low, known_high (committed), what."""
    low, high = (f"{column}_{side}" if f"{column}_{side}" in committed else side for side in ("low", "high"))
    rows = pd.DataFrame({"value": fresh[column], "low": fresh[low].fillna(fresh[column]), "high": fresh[high].fillna(fresh[column]),
                         "known_low": committed[low], "known_high": committed[high], "what": column})
    return rows.dropna().drop_duplicates()


def over_seeds(fresh: pd.DataFrame, committed: pd.DataFrame, column: str, kind: Kind) -> pd.DataFrame:
    """A column's means over seeds with their 95 % intervals (Student's t), as `with_intervals`; groups of one seed are left out."""
    seeds = [c for c in committed if c == "seed" or c.startswith("seed_") and c not in BESIDE]
    keys = [c for c in committed if c not in trained(kind) and c not in seeds]
    rows = committed[column].notna()
    known, new = (table[rows].groupby(keys, dropna=False, sort=False)[column].agg(["mean", "std", "count"]).reset_index(drop=True)
                  for table in (committed, fresh))
    half, known_half = (student.ppf(0.975, t["count"] - 1) * t["std"] / np.sqrt(t["count"]) for t in (new, known))
    return pd.DataFrame({"value": new["mean"], "low": new["mean"] - half, "high": new["mean"] + half, "known_low": known["mean"] - known_half,
                         "known_high": known["mean"] + known_half, "what": f"mean {column}"}).dropna()


def check(name: str, fresh: pd.DataFrame | None, committed: pd.DataFrame | None) -> dict:
    """One table as a line of the result; a table that only one side has fails."""
    kind, line = TABLES.get(name, Kind()), {"where": "source data", "claim": f"{name}.csv", "interval": "", "verdict": "fails"}
    if fresh is None or committed is None:
        return line | {"committed": "missing" if committed is None else f"{len(committed)} rows", "fresh": "missing" if fresh is None else "new"}
    line |= {"committed": f"{len(committed)} rows", "fresh": unlike(fresh, committed, kind)}
    if line["fresh"]:
        return line
    judged = [with_intervals(fresh, committed, c) for c in kind.intervals if c in committed]
    judged += [over_seeds(fresh, committed, c, kind) for c in kind.seeds if c in committed]
    rows = pd.concat(judged, ignore_index=True) if judged else pd.DataFrame()
    if rows.empty:
        return line | {"interval": kind.why, "fresh": "same rows, finite" if kind.free or kind.seeds else "equal",
                       "verdict": "illustration" if kind.why else "holds"}
    return line | _judged(rows, 0 if kind.intervals else int(binom.ppf(CHANCE, len(rows), 0.05)))


def _judged(rows: pd.DataFrame, allowed: int) -> dict:
    """Interval, fresh and verdict of a table whose values and intervals these are; so many intervals may have nothing in common."""
    slack = DIGITS * rows.drop(columns="what").abs().max(axis=1)                # of the digits in the files
    outside = rows[(rows["value"] < rows["known_low"] - slack) | (rows["value"] > rows["known_high"] + slack)]
    apart = rows[(rows["high"] < rows["known_low"] - slack) | (rows["low"] > rows["known_high"] + slack)]
    first = "".join(f"; {r.what} {r.value:.4g} outside {r.known_low:.4g} to {r.known_high:.4g}"
                    for r in pd.concat([apart, outside]).head(1).itertuples())
    return {"interval": "95 % over seeds" + f", {allowed} may differ" if allowed else "95 %",
            "fresh": f"{len(rows) - len(outside)} of {len(rows)} inside" + f", {len(apart)} apart" * bool(len(apart)) + first,
            "verdict": "fails" if len(apart) > allowed else "moved" if len(outside) else "holds"}


# Together ---------------------------------------------------------------------------------------------------------------

def compare(fresh: dict[str, pd.DataFrame], committed: dict[str, pd.DataFrame], readme: str, paper: str) -> pd.DataFrame:
    """All tables and claims of a fresh run.

    Args:
        fresh, committed: source data, name -> table.
        readme: the section of README that states results of this profile.
        paper: its text.
    Returns:
        where, claim, committed, interval, fresh, verdict, all text. Verdicts: fails; moved, outside the interval but not apart from
        it; weaker, no longer shown; stronger, shown only now; holds; illustration.
    """
    lines = [check(name, fresh.get(name), committed.get(name)) for name in sorted(fresh | committed)]
    lines += of_readme(fresh, committed, readme) + of_notebook(fresh, committed) + of_paper(fresh, committed, paper)
    return pd.DataFrame(lines, columns=COLUMNS)


def text(table: pd.DataFrame, width: int = 60) -> str:
    """The table aligned, cells cut at `width`, and a line of totals that names what fails."""
    cells = [COLUMNS, *table.astype(str).values.tolist()]
    cells = [[c if len(c) <= width else c[:width - 1] + "…" for c in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells]
    counts = table["verdict"].value_counts()
    totals = ", ".join(f"{v} {counts[v]}" for v in reversed(VERDICTS) if v in counts)
    failing = [f"{r.where} {r.claim}" for r in table[table["verdict"] == "fails"].itertuples()]
    return "\n".join([*lines, f"{len(table)} claims and tables: {totals}" + f" ({'; '.join(failing)})" * bool(failing)])


def different_bytes(fresh: str | Path, committed: str | Path) -> list[str]:
    """Names of the files that two folders do not share byte by byte."""
    new, old = ({p.name: p.read_bytes() for p in Path(folder).glob("*.csv")} for folder in (fresh, committed) if read(folder))
    return [name for name in sorted(new | old) if new.get(name) != old.get(name)]


def run(fresh: str | Path, committed: str | Path | None = None, csv: str | Path | None = None, strict: bool = False,
        exact: bool = False) -> int:
    """Compares, prints, and writes the table.

    Args:
        committed: folder of source data; None: that of the profile in the last git commit.
        csv: file for the table; None: build/<profile>/claims.csv.
        strict: a number that has moved out of its interval fails, too.
        exact: compare bytes instead, as one machine with equal threads can give them again.
    Returns:
        exit status: 1 when a table or a claim fails.
    """
    new = read(fresh)
    profile = profile_of(fresh, new)
    if profile is None:
        raise OutputError(f"nothing names the profile of {fresh}: it needs notebook 06's numbers.csv, or manifest.json in the folder above it")
    home = f"{default_out(profile)}/source_data"
    with contextlib.nullcontext(committed) if committed else committed_data(home) as known:
        if exact:
            names = different_bytes(fresh, known)
            print("\n".join(f"{name} differs" for name in names) or "the same bytes")
            return int(bool(names))
        old = read(known)
        other = profile_of(known, old)
    if other not in (None, profile):
        raise OutputError(f"{fresh} was made with profile {profile} and {committed or home} with {other}: compare runs of one profile, for "
                          "which a folder may be named as the second argument")
    readme, paper = ((ROOT / file).read_text("utf-8") for file in ("README.md", "paper/main.tex"))
    table = compare(new, old, section(readme, SECTIONS.get(profile)), paper)
    if strict:
        table["verdict"] = table["verdict"].replace("moved", "fails")
    path = Path(csv or f"build/{profile}/claims.csv")
    write_text(path, csv_text(table))
    print(text(table))
    print(f"written to {path}", file=sys.stderr)
    return int((table["verdict"] == "fails").any())
