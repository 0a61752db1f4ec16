"""RAF-DB: photos labelled with seven basic emotions, one split."""
from __future__ import annotations

from functools import partial
from pathlib import Path

from ..lists import Files, class_folders, labels_of, read_list
from ..media import IMAGES
from ..tables import Dataset, DatasetError

TOP = ("basic/", "")
FOLDERS = ("Image/aligned", "aligned", "Image/original", "original")


def rows(root: Path, fold: None = None, label_order: str | None = None) -> list[tuple]:
    """(path, label, None, split); integers count from 1, and the name's first part is the split."""
    read = partial(labels_of, orders=("rafdb",), num_classes=7, base=1, label_order=label_order)
    lists = [root / top / sub for top in TOP for sub in ("EmoLabel", "")]
    path = next((p for p in (f / "list_patition_label.txt" for f in lists) if p.is_file()), None)
    if path is None:
        for top in ("", "DATASET/"):
            found = class_folders(root / top, IMAGES, read)
            if found:
                return [(top + path, *rest) for path, *rest in found]
        return []
    images = Files(root, [top + folder for top in TOP for folder in FOLDERS], IMAGES,
                   variants=("{}_aligned", "{}"))
    entries, out = read_list(path), []
    for entry, label in zip(entries, read(entries), strict=True):
        split = entry.name.rpartition("/")[2].split("_")[0]
        if split not in ("train", "test"):
            raise DatasetError(f"{entry.name!r} in {entry.where} tells no split: expected a name "
                               "such as train_00001.jpg")
        out.append((images.find(entry.name), label, None, split))
    return out


DATASET = Dataset(
    "rafdb", "image",
    "basic/EmoLabel/list_patition_label.txt with lines such as 'train_00001.jpg 5' and "
    "basic/Image/aligned/train_00001_aligned.jpg, or train/ and test/ with folders 1 to 7",
    rows, orders=("rafdb",), listed=15339,
    published={(None, "train"): 12271, (None, "test"): 3068})
