"""How hard the drawn corpora are: simple readers of actions and pixels; one frame of a clip."""
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import Finetune
from ..data import index, read_clip
from ..emotions import vocabulary
from ..faces.corpus import truth
from .similarity import read_by_probe
from .stimuli import probabilities, subset

SIDE = 24                 # pixels a side of what the pixel reader sees, in grey
# Reader -> C of its logistic regression, less for more inputs. Photos have no middle frame.
READERS = {"emotion shown": None, "true actions": 1.0, "true actions, middle frame": 1.0,
           "true actions, whole clip": .03, "raw pixels": 1e-3}


def difficulty(folder: str | Path, train: int = 2000, test: int = 600) -> pd.DataFrame:
    """Predict at most `test` photos and clips (fold 1) by readers fitted on at most `train`.

    "emotion shown" answers with the emotion that was drawn: where it differs from the label, the
    label is an error, and nobody can do better. The others are logistic regressions on `told`.
    """
    known = truth(folder)
    actions, groups = known.filter(regex="^AU").to_numpy(), known.groupby("path").indices
    apex, out = known[known["frame"] == known["apex"]].set_index("path"), []
    for task, name, fold in (("image", "affectnet", None), ("video", "dfew", 1)):
        rows = index(name, Path(folder) / name, fold=fold)
        rows = rows.assign(path=name + "/" + rows["path"]).sample(frac=1, random_state=0)
        fit, held = rows[rows["split"] == "train"][:train], rows[rows["split"] == "test"][:test]
        samples = {path: (actions[groups[path]], int(apex.at[path, "apex"]), Path(folder) / path)
                   for path in (*fit["path"], *held["path"])}
        for reader, strength in READERS.items():
            if task == "image" and reader.endswith(("frame", "clip")):
                continue
            predicted = apex.loc[held["path"], "performed"].to_numpy()
            if strength:
                x, y = (np.stack([told(reader, *samples[path]) for path in part["path"]])
                        for part in (fit, held))
                predicted = read_by_probe(x, fit["label"], y, C=strength, max_iter=200)
            out.append(held[["path", "subject", "split", "label"]].assign(
                task=task, input=reader, seed=0, predicted=predicted))
    return pd.concat(out, ignore_index=True)


def told(reader: str, actions: np.ndarray, apex: int, file: Path) -> np.ndarray:
    """Grey pixels, or true actions `[T, 46]`, of one frame or of the whole clip, as a reader gets.

    The whole clip is each action's largest and mean intensity, and by how much both are larger in
    the first half than in the second: which of two expressions came first.
    """
    if reader == "raw pixels":
        return read_clip(file, [apex], size=SIDE)[0].float().mean(0).flatten().numpy()
    half = len(actions) // 2
    if reader == "true actions, whole clip":
        first, then = actions[:half], actions[half:]
        return np.concatenate([actions.max(0), actions.mean(0), first.max(0) - then.max(0),
                               first.mean(0) - then.mean(0)])
    return actions[half if reader == "true actions, middle frame" else apex]


def frame_and_clip(run, cfg: Finetune, name: str, unreadable: dict[str, str]) -> pd.DataFrame:
    """Predict each test clip by a trained model that sees the clip, or its middle frame all along.

    `unreadable` gets {path: cause} of the clips that cannot be read.
    """
    x, rows = subset(cfg, "video", limit=10 ** 9, unreadable=unreadable)
    names, model, middle = np.array(vocabulary(cfg.video.num_classes)), run.load(), x.shape[2] // 2
    still, out = x[:, :, middle:middle + 1].expand_as(x), []
    for shown, clips in (("whole clip", x), ("middle frame", still)):
        predicted = names[probabilities(model, clips, "video").argmax(1)]
        out.append(rows.assign(predicted=predicted, task="video", seed=cfg.seed,
                               input=f"{name}, {shown}"))
    return pd.concat(out, ignore_index=True)
