"""What is wrong with a dataset on disk: files against lists, published counts and each other."""
import hashlib
from pathlib import Path

import pandas as pd

from ..emotions import LabelError
from .corpora import find, index
from .lists import Dataset, notes, subjects_of
from .media import DatasetError, MediaError, frame_files, header, in_threads, read_clip, stamps

MIN_FRAMES = 4        # a shorter clip shows no course of an expression
EXAMPLES = 20         # problems of a kind that a report shows
Problems = list[tuple[str, str, str]]      # kind, path, problem


def audit(name: str, root: str | Path, *options, **more) -> pd.DataFrame:
    """The table of problems (kind, path, problem) that `examine` finds, empty when clean."""
    return examine(name, root, *options, **more)[0]


def examine(name: str, root: str | Path, fold: int | None = None, num_workers: int = 1,
            label_order: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read every file of a dataset, of all folds or one, and check its lists: tables of problems
    (kind, path, problem) and of samples (fold, split, label, found, published where known)."""
    dataset, root = find(name, root), Path(root)
    tables, problems = {}, []
    notes.clear()
    for k in [fold] if fold is not None else dataset.folds or [None]:
        try:
            tables[k] = index(name, root, k, label_order=label_order)
        except (DatasetError, LabelError) as error:
            problems.append(("list", f"fold {k}", str(error)))
            last = error
    if not tables:
        raise last
    problems += [("note", where, f"{what} ({n} lines)") for (where, what), n in notes.items()]
    counts = _counts(dataset, root, tables)
    for row in counts[counts["published"].notna()].itertuples():
        if row.found != row.published:
            of = f" of {row.label}" if row.label else ""
            where = f"fold {row.fold} " if row.fold else ""
            problems.append(("count", f"{where}{row.split or 'all'}",
                             f"{row.found} samples{of}, where {row.published} are published"))
    everything = pd.concat(tables.values(), ignore_index=True)
    problems += _lists(everything)
    paths = sorted(set(everything["path"]))
    problems += [("subject", path, "it is in subjects.csv but not in the dataset")
                 for path in sorted(set(subjects_of(root)) - set(paths))]
    work = [(root / path, size) for path, (size, _) in zip(paths, stamps(paths, root), strict=True)]
    seen = in_threads(lambda given: check(*given), work, num_workers, "auditing")
    columns = ["kind", "problem", "frames", "size", "rate", "digest"]
    seen = pd.DataFrame(list(seen), index=paths, columns=columns, dtype=object)
    problems += _media(seen, everything, dataset.task)
    return pd.DataFrame(problems, columns=["kind", "path", "problem"]), counts


def report(problems: pd.DataFrame, counts: pd.DataFrame) -> str:
    """The result of `examine` as text: counts, a line a kind, and examples of each kind."""
    counts = counts.assign(label=counts["label"].fillna("all"), split=counts["split"].fillna("all"))
    shown = counts.drop(columns=[c for c in ("fold", "published") if counts[c].isna().all()])
    lines, examples = [shown.to_string(index=False, na_rep="-"), ""], []
    for what, rows in problems.groupby("kind", sort=False):
        lines.append(f"{len(rows):>8}  {what}")
        examples += ["", f"{what}:"]
        examples += [f"{r.path}: {r.problem}" for r in rows.head(EXAMPLES).itertuples()]
        if len(rows) > EXAMPLES:
            examples.append(f"... and {len(rows) - EXAMPLES} more: --csv FILE writes all")
    number = (problems["kind"] != "note").sum()
    return "\n".join([*lines, f"{number} problems" if number else "no problems", *examples])


def _counts(dataset: Dataset, root: Path, tables: dict) -> pd.DataFrame:
    """Samples by fold, split and label; sums have no label and, over splits, no split."""
    drawn = (root.parent / "corpus.json").is_file()      # procedural faces borrow the layout
    known, rows = {} if drawn else dataset.published, []
    for fold, table in tables.items():
        for split, here in table.groupby("split"):
            wanted = known.get((fold, split))
            each = wanted if isinstance(wanted, dict) else {}
            labels = here["label"].value_counts().to_dict()
            rows += [(fold, split, label, labels.get(label, 0), each.get(label))
                     for label in sorted({*labels, *each})]
            rows.append((fold, split, None, len(here), None if each else wanted))
        if (None, None) in known:
            rows.append((fold, None, None, len(table), known[None, None]))
    columns = ["fold", "split", "label", "found", "published"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _lists(table: pd.DataFrame) -> Problems:
    """Problems of lists: samples listed twice, splits, folds."""
    out = []
    for fold, rows in table.groupby(table["fold"].fillna(0)):
        where = f" of fold {fold}" if fold else ""
        for path, twice in rows[rows["path"].duplicated(keep=False)].groupby("path"):
            listed = ", ".join(f"{row.split} as {row.label}" for row in twice.itertuples())
            out.append(("listed twice", path, f"it is listed {len(twice)} times{where}: {listed}"))
        for subject, theirs in rows.groupby("subject"):
            splits = sorted(set(theirs["split"]))
            if len(splits) > 1:
                out.append(("subject", theirs["path"].iloc[0],
                            f"its subject {subject} is in {' and '.join(splits)}{where}"))
    if table["fold"].nunique() > 1:
        tested = table["fold"].where(table["split"] == "test").groupby(table["path"]).nunique()
        out += [("test folds", path, f"it is in {number} test folds: expected one")
                for path, number in tested[tested != 1].items()]
    return out


def _media(seen: pd.DataFrame, table: pd.DataFrame, task: str) -> Problems:
    """Problems of the files, of those unlike the others (unless sizes or rates vary freely), and of
    those with equal bytes in two splits of a fold, or under two labels."""
    wrong = seen[seen["kind"].notna()]
    out = list(zip(wrong["kind"], wrong.index, wrong["problem"], strict=True))
    if task == "video":
        out += [("short clip", path, f"it has {n} frame(s), fewer than {MIN_FRAMES}")
                for path, n in seen["frames"].items() if n < MIN_FRAMES]
    for what in ("size", "rate"):
        found = seen[what].dropna()
        usual, count = next(iter(found.value_counts().items()), (None, 0))
        if 2 * count > len(seen):
            out += [("unlike most", path, f"it has {value}, while most have {usual}")
                    for path, value in found[found != usual].items()]
    digest = seen["digest"].dropna()
    digest = digest[digest.duplicated(keep=False)]
    table = table[table["path"].isin(digest.index)]
    for _, rows in table.groupby(table["path"].map(digest)):
        splits = rows.groupby(rows["fold"].fillna(0))["split"].nunique().max()
        if splits > 1 or rows["label"].nunique() > 1:
            first = rows.drop_duplicates("path").sort_values("path")
            names = ", ".join(f"{r.path} ({r.split}, {r.label})" for r in first.itertuples())
            out.append(("duplicate", first["path"].iloc[0],
                        f"equal bytes under {len(first)} names: {names}"))
    return out


def check(path: Path, size: int) -> dict:
    """Decode one sample of `size` bytes in full (-1: it is missing): what it is, what is wrong."""
    if size < 0:
        return dict(kind="missing", problem="it is listed but not on disk")
    if size == 0:
        return dict(kind="empty", problem="it is empty: copy or extract it again")
    try:
        seen = {"frames": len(read_clip(path, size=32))}
        images = frame_files(path) if path.is_dir() else [path]
        heads = [header(file) for file in images]
        sizes = sorted({f"{width} x {height} px" for width, height, _ in heads})
        if len(sizes) > 1:
            return seen | dict(kind="frames", problem=f"its frames differ in size: {sizes}")
        content = hashlib.sha256()
        for file in images:
            content.update(file.read_bytes())
        rate = heads[0][2] and f"{heads[0][2]:g} frames a second"
        return seen | dict(size=sizes[0], rate=rate, digest=content.hexdigest())
    except MediaError as error:
        inside = f"frame {error.path.name}: " if error.path != path else ""
        return dict(kind="unreadable", problem=f"it cannot be read: {inside}{error.cause}")
    except OSError as error:
        return dict(kind="unreadable", problem=f"it cannot be read: {error.strerror}")
