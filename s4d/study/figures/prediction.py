"""What a model answers on single files: a picture beside its class probabilities, and their course along a clip."""
from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .style import EMOTION_COLOURS, PAGE, figure, show, stamp


def predictions(table: pd.DataFrame, pictures: list, courses: dict[str, pd.DataFrame] | None = None, note: str = "") -> Figure:
    """A row per file: the picture, the probability of each class, and for clips the probabilities along time.

    Args:
        table: path, predicted, prob_<emotion>; classes that a file's task does not have are missing.
        pictures: one uint8 `[3, H, W]` a row.
        courses: path -> table of `s4d.training.along_time`.
        note: stamp.
    """
    courses = courses or {}
    fig, axes = figure(PAGE, 0.4 + 1.5 * len(table), len(table), 3 if courses else 2, squeeze=False,
                       width_ratios=[1, 2, 3] if courses else [1, 2])
    for row, ax, picture in zip(table.to_dict("records"), axes, pictures):
        shares = {k.removeprefix("prob_"): v for k, v in row.items() if k.startswith("prob_") and v == v}
        path = str(row["path"])
        name = path.rstrip("/").rpartition("/")[2]
        show(picture, ax[0], name if len(name) < 19 else f"...{name[-16:]}")
        ax[1].barh(list(shares), list(shares.values()), color=[EMOTION_COLOURS[e] for e in shares])
        ax[1].set(xlim=(0, 1), xlabel="probability")
        ax[1].invert_yaxis()
        if courses:
            _course(ax[2], courses.get(path))
    stamp(fig, note)
    return fig


def _course(ax, table: pd.DataFrame | None) -> None:
    """Probabilities along one clip; classes that never reach a tenth are left out."""
    if table is None:
        ax.set_axis_off()
        return
    timed = table["seconds"].notna().all()
    x = table["seconds"] if timed else table["frame"]
    for column in table.columns[table.columns.str.startswith("prob_")]:
        emotion = column.removeprefix("prob_")
        if (table[column] >= 0.1).any():
            ax.plot(x, table[column], color=EMOTION_COLOURS[emotion], label=emotion, marker="o" if len(x) < 3 else None, ms=3)
    ax.set(ylim=(0, 1), xlabel="middle of the window (s)" if timed else "middle of the window (frame)", ylabel="probability")
    ax.legend(fontsize=6)
