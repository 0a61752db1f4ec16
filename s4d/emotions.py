"""Emotion names, each dataset's label order, and maps between them. Labels are names."""
EMOTIONS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
EMOTIONS_8 = EMOTIONS + ("contempt",)
EMOTIONS_11 = EMOTIONS_8 + ("anxiety", "helplessness", "disappointment")

# Index 0 first. Sources: the datasets' documentation, and the label lists that releases use.
# FERV39K's lists come in its own order (S4D) or in DFEW's (MAE-DFER, DFER-CLIP), MAFW's in three.
ORDERS = {
    "affectnet": EMOTIONS_8,
    "dfew": ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear"),
    "rafdb": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
    "ferv39k": ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    "mafw": ("anger", "anxiety", "contempt", "disappointment", "disgust", "fear", "happiness",
             "helplessness", "neutral", "sadness", "surprise"),
    "mafw-mae-dfer": ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise",
                      "contempt", "anxiety", "helplessness", "disappointment"),
    "mafw-dfer-clip": ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear",
                       "contempt", "anxiety", "helplessness", "disappointment")}

# Spellings met in folder names and lists; the key is lower case.
SPELLINGS = {
    "happy": "happiness", "joy": "happiness", "joyful": "happiness", "sad": "sadness",
    "unhappy": "sadness", "angry": "anger", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "frightened": "fear", "surprised": "surprise", "disgusted": "disgust", "calm": "neutral",
    "contemptuous": "contempt", "anxious": "anxiety", "helpless": "helplessness",
    "disappointed": "disappointment"}


class LabelError(ValueError):
    """A label is outside the vocabulary."""


def vocabulary(classes: int) -> tuple[str, ...]:
    """The canonical vocabulary of 7, 8 or 11 classes."""
    if classes not in (7, 8, 11):
        raise LabelError(f"no vocabulary of {classes} classes: choose 7, 8 (with contempt) or 11")
    return EMOTIONS_11[:classes]


def canonical(label: str, classes: int = 11, where: str = "") -> str:
    """A label's name in the vocabulary of `classes`; `where` it came from, for the LabelError."""
    name, allowed = label.strip().lower(), vocabulary(classes)
    name = SPELLINGS.get(name, name)
    if name not in allowed:
        raise LabelError(f"unknown label {label!r}{where and f' in {where}'}: expected one of "
                         f"{', '.join(allowed)}")
    return name


def by_index(index: int, order: str, base: int = 0, where: str = "") -> str:
    """The emotion that an integer of a list stands for; `base` is that of the first class (1 in
    DFEW's official lists and in RAF-DB)."""
    names = ORDERS[order]
    if not 0 <= index - base < len(names):
        raise LabelError(f"unknown label {index}{where and f' in {where}'}: expected {base}.."
                         f"{base + len(names) - 1} for {', '.join(names)}")
    return names[index - base]
