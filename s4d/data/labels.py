"""Listed labels -> emotion names, and which order a list's integers are in."""
from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..emotions import ORDERS, LabelError, by_index, canonical
from .tables import DatasetError

FIT, APART = 0.1, 0.2      # of class shares (sum of differences): of a match, to the next order


class Entry(NamedTuple):
    """One line of a list."""

    name: str      # of the file or folder, as listed, made safe
    label: str     # as listed
    where: str     # file and line, for errors


def labels_of(entries: list[Entry], orders: tuple[str, ...], num_classes: int, base: int = 0,
              counts: dict[str, int] | None = None, label_order: str | None = None,
              sample: list[Entry] | None = None) -> list[str]:
    """Emotion names of a list's entries; a label written as a name is taken at its word.

    Args:
        entries: of all splits, labelled by names or by integers.
        orders: keys of ORDERS that integers may be in.
        num_classes: size of the vocabulary that names must belong to.
        base: integer of the first class where the integers do not tell (0 occurs, or the number of
            classes does).
        counts: published number of samples by emotion, to tell the order from.
        label_order: the order's name, where it is known.
        sample: the entries that `counts` is about; all when left out.
    Raises:
        LabelError: for a label outside the vocabulary, or integers that fit no order.
        DatasetError: for an unknown order, and when nothing tells which order it is.
    """
    if label_order is not None and label_order not in orders:
        allowed = ", ".join(orders) or "none, this dataset names its emotions"
        raise DatasetError(f"unknown label order {label_order!r}: choose {allowed}")
    integers = [e for e in entries if orders and re.fullmatch(r"\d{1,3}", e.label)]
    order = label_order
    if integers:
        numbers, size = [int(e.label) for e in integers], len(ORDERS[orders[0]])
        if min(numbers) == 0:
            base = 0
        elif max(numbers) == size:
            base = 1
        in_range = base <= min(numbers) and max(numbers) < base + size
        if order is None and in_range and len(orders) > 1:
            counted = [e for e in sample or integers if e.label.isdigit()]
            order = (told_by_folders(integers, orders, base)
                     or told_by_counts(counted, orders, base, counts))
        order = order or orders[0]
    known = set(integers)
    return [by_index(int(e.label), order, base, e.where) if e in known
            else canonical(e.label, num_classes, e.where) for e in entries]


def emotion_in(path: str) -> str | None:
    """The emotion that one of a path's folders is named after, or None."""
    return _emotion_of(path.rpartition("/")[0])


@lru_cache(maxsize=4096)
def _emotion_of(folder: str) -> str | None:
    for part in reversed(folder.split("/")):
        try:
            return canonical(part)
        except LabelError:
            continue
    return None


def told_by_folders(entries: list[Entry], orders: tuple[str, ...], base: int) -> str | None:
    """The order in which the integers agree with folders named after emotions, if there are any.

    Raises:
        LabelError: when no order agrees with nine entries in ten.
    """
    named = [(int(e.label) - base, emotion_in(e.name)) for e in entries]
    if any(emotion is None for _, emotion in named):
        return None
    agree = {o: sum(ORDERS[o][n] == emotion for n, emotion in named) for o in orders}
    best = max(agree, key=agree.get)
    if agree[best] < 0.9 * len(named):
        raise LabelError(f"the integers of {entries[0].where.rpartition(',')[0]} fit the folders' "
                         f"emotions in no known order (at best {best}, in {agree[best]} of "
                         f"{len(named)} entries): copy the list again, or give label_order, one of "
                         f"{', '.join(orders)}")
    return best


def told_by_counts(entries: list[Entry], orders: tuple[str, ...], base: int,
                   counts: dict[str, int]) -> str:
    """The one order in which the classes have the published shares.

    Raises:
        DatasetError: when none or several orders fit.
    """
    found = Counter(int(e.label) - base for e in entries)
    share = np.array([found[k] for k in range(len(ORDERS[orders[0]]))]) / len(entries)
    distance = {}
    for order in orders:
        published = np.array([counts[e] for e in ORDERS[order]]) / sum(counts.values())
        distance[order] = np.abs(share - published).sum()
    best, second = sorted(orders, key=distance.get)[:2]
    if distance[best] > FIT or distance[second] < APART:
        listed = ", ".join(f"{found[k]} of {k + base}" for k in range(len(share)))
        raise DatasetError(f"{entries[0].where.rpartition(',')[0]} labels by integers whose order "
                           f"its class counts do not tell ({listed}): give label_order, one of "
                           f"{', '.join(orders)}")
    return best
