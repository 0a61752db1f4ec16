"""Clips: of films (DFEW, FERV39K, MAFW), television (CAER), actors and speakers.

DFEW, FERV39K and MAFW have a list for each fold and split; in the others, names tell everything.
CREMA-D and RAVDESS have no published split: we deal their sorted actors out in turn to five folds.
"""
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...emotions import ORDERS, canonical
from ..lists import Dataset, Entry, Files, class_folders, labels_of, read_list
from ..media import VIDEOS, DatasetError, files, folders

CREMAD_CODES = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness",
                "NEU": "neutral", "SAD": "sadness"}
RAVDESS_CODES = {"01": "neutral", "02": "neutral", "03": "happiness", "04": "sadness",
                 "05": "anger", "06": "fear", "07": "disgust", "08": "surprise"}      # 02: calm


def listed_rows(root: Path, fold: int | None, label_order: str | None, name: str, layout: str,
                lists: tuple[str, ...], media: tuple[str, ...], **reading) -> list[tuple]:
    """Rows of the first layout of `lists` that is there; clips or frames are in one of the folders
    `media`, the preferred first, and `labels_of` takes the `reading`."""
    for pattern in lists:
        found = {s: root / pattern.format(split=s, fold=fold) for s in ("train", "test")}
        missing = [path for path in found.values() if not path.is_file()]
        if len(missing) < 2:
            break
    else:
        of = f" of fold {fold}" if fold else ""
        raise DatasetError(f"{name} in {root} has no lists{of}: expected {layout}")
    if missing:
        raise DatasetError(f"{name} has no {missing[0]}, but its other list: copy both of them")
    clips = Files(root, media, VIDEOS, frames=True)
    if not clips.bases:
        raise DatasetError(f"{name} in {root} holds no clips: expected {layout}")
    entries = [(split, e) for split, path in found.items() for e in read_list(path)]
    base = int("(single-labeled)" in pattern)      # DFEW's official lists count from 1
    labels = labels_of([e for _, e in entries], base=base, label_order=label_order,
                       sample=[e for split, e in entries if split == "train"], **reading)
    return [(clips.find(e.name), label, None, split)
            for (split, e), label in zip(entries, labels, strict=True)]


def of_lists(name: str, lists: tuple[str, ...], media: tuple[str, ...], layout: str, listed: int,
             train: tuple[int, ...], tests: dict, orders: tuple[str, ...]) -> Dataset:
    """A dataset whose samples are published by fold, and by class of the first fold."""
    (first, test), *others = tests.items()
    counts = dict(zip(ORDERS[name], train, strict=True))
    published = {(first, "train"): counts,
                 (first, "test"): dict(zip(ORDERS[name], test, strict=True))}
    for fold, number in others:
        published |= {(fold, "train"): listed - number, (fold, "test"): number}
    read = partial(listed_rows, name=name, layout=layout, lists=lists, media=media, orders=orders,
                   counts=counts)
    return Dataset(name, "video", layout, read, tuple(tests) if others else (), published)


def acted(names: list[str], pattern: str, codes: dict[str, str], fold: int, root: Path,
          example: str) -> list[tuple]:
    """Rows of files with the actor as subject; `pattern` has the groups actor and emotion."""
    parsed = []
    for name in names:
        match = re.fullmatch(pattern, Path(name).stem)
        if not match or match["emotion"] not in codes:
            raise DatasetError(f"{name} in {root} is no name of this dataset: expected one such as "
                               f"{example}, with one of {', '.join(codes)}")
        parsed.append((name, codes[match["emotion"]], match["actor"]))
    tested = sorted({actor for *_, actor in parsed})[fold - 1::5]
    return [(*row, "test" if row[2] in tested else "train") for row in parsed]


def cremad_rows(root: Path, fold: int, label_order: str | None) -> list[tuple]:
    """Names are actor, sentence, emotion, level."""
    names = [f"VideoFlash/{n}" for n in files(root / "VideoFlash", VIDEOS)]
    pattern = r"(?P<actor>\d{4})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_[A-Z]{1,2}"
    return acted(names, pattern, CREMAD_CODES, fold, root, "1001_DFA_ANG_XX.flv")


def ravdess_rows(root: Path, fold: int, label_order: str | None) -> list[tuple]:
    """Names are modality, channel, emotion, intensity, statement, repetition, actor; song is left
    out, and of a performance stored with and without sound, one file is kept."""
    kept = {}
    for actor in folders(root):
        for name in files(actor, VIDEOS) if actor.name.startswith("Actor_") else []:
            fields = Path(name).stem.split("-")
            if fields[1:2] != ["02"]:      # sorted: 01, with sound, comes before 02, without
                kept.setdefault(tuple(fields[1:]), f"{actor.name}/{name}")
    pattern = r"\d\d-01-(?P<emotion>\d\d)(-\d\d){3}-(?P<actor>\d\d)"
    return acted([*kept.values()], pattern, RAVDESS_CODES, fold, root, "01-01-03-01-01-01-01.mp4")


def caer_rows(root: Path, fold: None, label_order: str | None) -> list[tuple]:
    """One split with validation; folders name the seven emotions."""
    def read(entries: list[Entry]) -> list[str]:
        return [canonical(entry.label, 7, entry.where) for entry in entries]

    return class_folders(root, VIDEOS, read)


def voxceleb2_rows(root: Path, fold: None, label_order: None) -> Iterator[tuple]:
    """Unlabelled clips of speaking people, the development part; used for pre-training."""
    for video in sorted(root.glob("dev/mp4/id*/*")):
        for name in files(video, VIDEOS):
            yield f"{video.relative_to(root).as_posix()}/{name}", None, video.parts[-2], "train"


# Each clip is in one test fold
DFEW = of_lists(
    "dfew", ("EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv", "{split}_set_{fold}.csv",
             "EmoLabel_DataSplit/{split}_set_{fold}.csv"),
    ("Clip/jpg_256", "clip_jpg_256", "Clip/original"),      # aligned frames before whole scenes
    "EmoLabel_DataSplit/train(single-labeled)/set_1.csv and test(single-labeled)/set_1.csv (or "
    "train_set_1.csv and test_set_1.csv), header video_name,label, and clips in Clip/original/ or "
    "frames in Clip/jpg_256/ or clip_jpg_256/",
    listed=11697, train=(1956, 1515, 2135, 1738, 1175, 116, 721), orders=("dfew",),
    tests={1: (489, 379, 534, 435, 294, 29, 181), 2: 2341, 3: 2340, 4: 2339, 5: 2336})
# Clips of 22 scenes; integers are in the order of S4D's lists or in DFEW's.
FERV39K = of_lists(
    "ferv39k", ("4_setups/All_scenes/{split}_All.csv", "All_scenes/{split}_All.csv",
                "{split}_All.csv", "{split}.csv"), ("2_ClipsforFaceCrop", ""),
    "4_setups/All_scenes/train_All.csv and test_All.csv with lines such as 'Action/Happy/0118 "
    "Happy', or train.csv and test.csv with header path,id, and frames or clips in "
    "2_ClipsforFaceCrop/Action/Happy/0118",
    listed=38935, train=(5906, 1833, 1680, 5854, 7790, 5523, 2502), orders=("ferv39k", "dfew"),
    tests={None: (1487, 467, 431, 1473, 1958, 1393, 638)})
# Eleven emotions, the lists of single labels; integers are in one of three orders.
MAFW = of_lists(
    "mafw", ("single/no_caption/set_{fold}/{split}.txt", "set_{fold}/{split}.csv",
             "single/set_{fold}/{split}.csv"),
    ("frames_crop_align_224", "frames", "clips", "Clips", "data/clips"),
    "single/no_caption/set_1/train.txt and test.txt with lines such as '00025.mp4 anger', or "
    "set_1/train.csv and test.csv with header video_name,labels, and clips in clips/ or frames in "
    "frames_crop_align_224/",
    listed=9172, train=(1112, 732, 188, 145, 511, 500, 993, 209, 910, 1176, 857),
    tests={1: (278, 183, 47, 36, 128, 125, 249, 52, 227, 296, 218),
           2: 1837, 3: 1833, 4: 1832, 5: 1831},
    orders=("mafw", "mafw-mae-dfer", "mafw-dfer-clip"))
# 91 actors, twelve sentences; open: ODbL
CREMAD = Dataset("cremad", "video", "VideoFlash/1001_DFA_ANG_XX.flv", cremad_rows, (1, 2, 3, 4, 5),
                 published={(None, None): 7442})
# 24 actors, 60 spoken performances each; open: CC BY-NC-SA 4.0
RAVDESS = Dataset("ravdess", "video", "Actor_01/01-01-03-01-01-01-01.mp4", ravdess_rows,
                  (1, 2, 3, 4, 5), published={(None, None): 1440})
CAER = Dataset(
    "caer", "video",
    "train/, validation/ and test/ with a folder for each emotion, as in train/Happy/0001.avi",
    caer_rows, published={(None, None): 13201})
VOXCELEB2 = Dataset("voxceleb2", "video", "dev/mp4/id00012/<video>/00001.mp4", voxceleb2_rows,
                    published={(None, None): 1092009})      # 283 of them are unreadable
