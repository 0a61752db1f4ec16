"""What a model answers on single files: a picture, its probabilities, and their course in time."""
from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .style import EMOTION_COLOURS, PAGE, SMALL, figure, show, stamp


def predictions(table: pd.DataFrame, pictures: list, courses: dict[str, pd.DataFrame] | None = None,
                note: str = "") -> Figure:
    """Draw a row per file: picture, class probabilities, and for clips their course in time.

    Args:
        table: path, predicted, prob_<emotion>; classes that a file's task lacks are missing.
        pictures: one uint8 `[3, H, W]` a row.
        courses: path -> table of `s4d.training.along_time`.
    """
    courses = courses or {}
    widths = [1, 2, 3] if courses else [1, 2]
    fig, axes = figure(PAGE, 0.4 + 1.5 * len(table), len(table), len(widths), squeeze=False,
                       width_ratios=widths)
    for row, ax, picture in zip(table.to_dict("records"), axes, pictures, strict=True):
        shares = {column.removeprefix("prob_"): share for column, share in row.items()
                  if column.startswith("prob_") and pd.notna(share)}
        path = str(row["path"])
        name = path.rstrip("/").rpartition("/")[2]
        show(picture, ax[0], name if len(name) < 19 else f"...{name[-16:]}")
        ax[1].barh(list(shares), list(shares.values()), color=[EMOTION_COLOURS[e] for e in shares])
        ax[1].set(xlim=(0, 1), xlabel="probability")
        ax[1].invert_yaxis()
        if path in courses:
            _course(ax[2], courses[path])
        elif courses:
            ax[2].set_axis_off()
    return stamp(fig, note)


def _course(ax, table: pd.DataFrame) -> None:
    """Draw probabilities along one clip; classes that never reach a tenth are left out."""
    unit = "s" if table["seconds"].notna().all() else "frame"
    x = table["seconds" if unit == "s" else "frame"]
    for column in table.columns[table.columns.str.startswith("prob_")]:
        if (table[column] >= 0.1).any():
            emotion = column.removeprefix("prob_")
            ax.plot(x, table[column], color=EMOTION_COLOURS[emotion], label=emotion, ms=3,
                    marker="o" if len(x) < 3 else None)
    ax.set(ylim=(0, 1), xlabel=f"middle of the window ({unit})", ylabel="probability")
    ax.legend(fontsize=SMALL)
