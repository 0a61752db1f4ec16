"""What a model answers on single files: a picture, its probabilities, and their course in time."""
from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from .style import EMOTION_COLOURS, PAGE, SMALL, figure, show, stamp


def predictions(table: pd.DataFrame, pictures: list, courses: dict[str, pd.DataFrame] | None = None,
                note: str = "") -> Figure:
    """Draw a row per file: picture, class probabilities, and for clips their course in time.

    Classes that never reach a tenth along a clip are left out of its course.

    Args:
        table: path, predicted, prob_<emotion>; classes that a file's task lacks are missing.
        pictures: one uint8 `[3, H, W]` a row.
        courses: path -> table of `s4d.training.along_time`.
    """
    courses, widths = courses or {}, [1, 2, 3] if courses else [1, 2]
    fig, axes = figure(PAGE, 0.4 + 1.5 * len(table), len(table), len(widths), squeeze=False,
                       width_ratios=widths)
    for row, ax, picture in zip(table.to_dict("records"), axes, pictures, strict=True):
        shares = {column.removeprefix("prob_"): share for column, share in row.items()
                  if column.startswith("prob_") and pd.notna(share)}
        path = str(row["path"])
        name = Path(path).name
        show(picture, ax[0], name if len(name) < 19 else f"...{name[-16:]}")
        ax[1].barh(list(shares), list(shares.values()), color=[EMOTION_COLOURS[e] for e in shares])
        ax[1].set(xlim=(0, 1), xlabel="probability")
        ax[1].invert_yaxis()
        if path not in courses:
            for blank in ax[2:]:
                blank.set_axis_off()
            continue
        course = courses[path]
        unit = "seconds" if course["seconds"].notna().all() else "frame"
        for emotion, color in EMOTION_COLOURS.items():
            share = course.get(f"prob_{emotion}")
            if share is not None and (share >= 0.1).any():
                ax[2].plot(course[unit], share, color=color, label=emotion, ms=3,
                           marker="o" if len(course) < 3 else None)
        ax[2].set(ylim=(0, 1), ylabel="probability",
                  xlabel=f"middle of the window ({unit.replace('seconds', 's')})")
        ax[2].legend(fontsize=SMALL)
    return stamp(fig, note)
