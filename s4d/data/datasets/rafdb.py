"""RAF-DB: photos labelled with seven basic emotions, one split."""
from __future__ import annotations

from functools import partial
from pathlib import Path

from ..media import IMAGES
from .lists import Files, class_folders, labels_of, read_list
from .tables import DatasetError

KIND, FOLDS, ORDERS = "image", (), ("rafdb",)
LAYOUT = ("basic/EmoLabel/list_patition_label.txt with lines such as 'train_00001.jpg 5' and basic/Image/aligned/train_00001_aligned.jpg, "
          "or train/ and test/ with folders 1 to 7")
LISTED = 15339
PUBLISHED = {(None, "train"): 12271, (None, "test"): 3068}
TOP = ("basic/", "")
IMAGE_FOLDERS = ("Image/aligned", "aligned", "Image/original", "original")


def rows(root: Path, fold: None = None, order: str | None = None) -> list[tuple]:
    """(path, label, None, split); integers count from 1, and the name's first part is the split."""
    read = partial(labels_of, orders=ORDERS, classes=7, base=1, order=order)
    for path in (root / top / folder / "list_patition_label.txt" for top in TOP for folder in ("EmoLabel", "")):
        if path.is_file():
            entries, out = read_list(path), []
            images = Files(root, [top + f for top in TOP for f in IMAGE_FOLDERS], IMAGES, variants=("{}_aligned", "{}"))
            for entry, label in zip(entries, read(entries)):
                split = entry.name.rpartition("/")[2].split("_")[0]
                if split not in ("train", "test"):
                    raise DatasetError(f"{entry.name!r} in {entry.where} tells no split: expected a name such as train_00001.jpg")
                out.append((images.find(entry.name), label, None, split))
            return out
    for top in ("", "DATASET"):
        found = [(f"{top}/{p}" if top else p, *rest) for p, *rest in class_folders(root / top, IMAGES, read)]
        if found:
            return found
    return []
