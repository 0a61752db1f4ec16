"""Emotion names, each dataset's label order, and the maps between them. Labels are names; integers never travel alone."""
from __future__ import annotations

EMOTIONS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
EMOTIONS_8 = EMOTIONS + ("contempt",)
EMOTIONS_11 = EMOTIONS_8 + ("anxiety", "helplessness", "disappointment")

# Index 0 first. Sources: the datasets' own documentation and the label lists that the named releases use. FERV39K's lists come
# in its own order (S4D) or in DFEW's (MAE-DFER, DFER-CLIP); MAFW's in one of three (S4D, MAE-DFER, DFER-CLIP).
ORDERS = {
    "affectnet": EMOTIONS_8,
    "dfew": ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear"),
    "rafdb": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
    "ferv39k": ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    "mafw": ("anger", "anxiety", "contempt", "disappointment", "disgust", "fear", "happiness", "helplessness", "neutral",
             "sadness", "surprise"),
    "mafw-mae-dfer": ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
                      "disappointment"),
    "mafw-dfer-clip": ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear", "contempt", "anxiety", "helplessness",
                       "disappointment"),
}

# Spellings met in folder names and lists; the key is lower case.
SPELLINGS = {"happy": "happiness", "joy": "happiness", "joyful": "happiness", "sad": "sadness", "unhappy": "sadness", "angry": "anger",
             "fearful": "fear", "afraid": "fear", "scared": "fear", "frightened": "fear", "surprised": "surprise", "disgusted": "disgust",
             "contemptuous": "contempt", "calm": "neutral", "anxious": "anxiety", "helpless": "helplessness", "disappointed": "disappointment"}


class LabelError(ValueError):
    """A label is outside the vocabulary."""


def vocabulary(classes: int) -> tuple[str, ...]:
    """The canonical vocabulary of 7, 8 or 11 classes.

    Raises:
        LabelError: for any other number.
    """
    by_size = {7: EMOTIONS, 8: EMOTIONS_8, 11: EMOTIONS_11}
    if classes not in by_size:
        raise LabelError(f"no vocabulary of {classes} classes: choose 7, 8 (with contempt) or 11 (MAFW)")
    return by_size[classes]


def canonical(label: str, classes: int = 11, where: str = "") -> str:
    """A label's canonical name.

    Args:
        label: any known spelling, any case.
        classes: size of the vocabulary it must belong to.
        where: file or folder it came from, for the error.
    Raises:
        LabelError: naming the label, where it stood and what is allowed.
    """
    name = SPELLINGS.get(label.strip().lower(), label.strip().lower())
    allowed = vocabulary(classes)
    if name not in allowed:
        raise LabelError(f"unknown label {label!r}{' in ' + where if where else ''}: expected one of {', '.join(allowed)}")
    return name


def by_index(index: int, order: str | tuple[str, ...], base: int = 0, where: str = "") -> str:
    """The emotion an integer stands for in a named order.

    Args:
        index: the integer as written in the list.
        order: a key of ORDERS or the names themselves, index `base` first.
        base: the integer of the first class (1 in DFEW's official lists and in RAF-DB).
    Raises:
        LabelError: for an integer outside the order.
    """
    names = ORDERS[order] if isinstance(order, str) else order
    if not 0 <= int(index) - base < len(names):
        raise LabelError(f"unknown label {index}{' in ' + where if where else ''}: expected {base}..{base + len(names) - 1} "
                         f"for {', '.join(names)}")
    return names[int(index) - base]
