"""Figures of the embedded corpus: rows of faces, and one clip above its facial actions."""
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import PAGE, SMALL, figure, show, stamp


def sheet(pictures, labels: Sequence[str], columns: int = 8, note: str = "") -> Figure:
    """Draw pictures, uint8 `[n, 3, H, W]`, in rows, each with its label above."""
    rows = -(-len(pictures) // columns)
    fig, axes = figure(PAGE, rows * (PAGE / columns + 0.14) + 0.15, rows, columns, squeeze=False)
    for ax, picture, label in zip(axes.flat, pictures, labels, strict=False):
        show(picture, ax, label)
    for ax in axes.flat[len(pictures):]:
        ax.set_axis_off()
    return stamp(fig, note)


def emotions(pictures, names: Sequence[str], columns: Sequence[str] = (),
             tags: Sequence[Sequence[str]] = (), note: str = "") -> Figure:
    """Draw rows of emotions or settings and columns of people or moments.

    Pictures are uint8 `[rows, columns, 3, H, W]`; `tags`, by row and column, stand in a corner.
    """
    rows, across = pictures.shape[:2]
    letters = max(len(line) for name in names for line in name.splitlines())
    side = (PAGE - 0.1 - 0.07 * letters) / across               # 0.07 in: a bold letter of 8 pt
    fig, axes = figure(PAGE, rows * side + (0.35 if columns else 0.2), rows, across, squeeze=False)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for (i, j), ax in np.ndenumerate(axes):
        show(pictures[i, j], ax, columns[j] if columns and i == 0 else "")
        if tags:
            ax.text(0.05, 0.95, tags[i][j], transform=ax.transAxes, va="top", fontsize=7,
                    fontweight="bold", bbox=dict(boxstyle="square,pad=0.15", fc="w", ec="none"))
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.text(-0.06, 0.5, name, transform=ax.transAxes, ha="right", va="center", fontsize=8,
                fontweight="bold")
    return stamp(fig, note)


def filmstrip(frames, table: pd.DataFrame, note: str = "") -> Figure:
    """Draw frames of a clip `[T, 3, H, W]`, at most eight, and below them a row for each action.

    `table`: time (s), action (name), intensity (0..1), phase, apex (bool), by frame and action.
    """
    times, names = np.sort(table["time"].unique()), list(dict.fromkeys(table["action"]))
    spacing = times[1] - times[0]
    drawn = np.arange(0, len(times), -(-len(times) // 8))
    width = spacing * (drawn[1] - drawn[0] if len(drawn) > 1 else 1)        # seconds of a picture
    side = (PAGE - 1.0) / len(drawn)          # inches; less, and the pictures leave their times
    fig, axes = figure(PAGE, side + 0.31 * len(names) + 0.6, 1 + len(names), 1,
                       height_ratios=[side + 0.04, *[0.29] * len(names)])
    fig.get_layout_engine().set(h_pad=0.01, hspace=0)
    for t in drawn:
        axes[0].imshow(np.asarray(frames[t]).transpose(1, 2, 0),
                       extent=(times[t] - 0.48 * width, times[t] + 0.48 * width, 0, 0.96))
    axes[0].set(ylim=(0, 0.96), aspect=width, anchor="S")
    axes[0].set_axis_off()
    for ax, name in zip(axes[1:], names, strict=True):
        rows = table[table["action"] == name].sort_values("time")
        time, level = rows["time"], rows["intensity"]
        ax.fill_between(time, level, color="#4D4D4D", lw=0, alpha=0.75)
        ax.plot(time, level, color="k", marker="o", ms=2, lw=0.8, clip_on=False)
        ax.set(ylim=(0, 1), yticks=[])
        ax.spines["left"].set_visible(False)
        for x, side, text in ((-0.01, "right", name), (1.01, "left", f"{level.max():.2f}")):
            ax.text(x, 0.05, text, transform=ax.transAxes, ha=side, va="bottom", fontsize=7)
    right = max(times[drawn[-1]] + width / 2, times[-1] + spacing / 2)
    for ax in axes:
        ax.set(xlim=(times[0] - width / 2, right), xticks=[])
    axes[-1].set_xticks(times[drawn], [f"{time:.2f}" for time in times[drawn]])
    axes[-1].set_xlabel("time (s); each frame stands above its time")
    phases = table.drop_duplicates("time").sort_values("time")
    for phase, grey in {"onset": 0.09, "apex": 0.18, "offset": 0.09}.items():
        span = phases.loc[phases["phase"] == phase, "time"]
        if span.empty:
            continue
        left, right = span.min() - spacing / 2, span.max() + spacing / 2
        for ax in axes[1:]:
            ax.axvspan(left, right, color="k", alpha=grey, lw=0, zorder=0)
        axes[1].text((max(left, times[0]) + min(right, times[-1])) / 2, 1.08, phase, ha="center",
                     va="bottom", transform=axes[1].get_xaxis_transform(), fontsize=SMALL,
                     color="#444444")
    for ax in axes[1:]:
        ax.axvline(phases.loc[phases["apex"], "time"].iloc[0], color="k", lw=0.8, ls=":")
    axes[1].text(1.01, 1.08, "peak (0..1)", transform=axes[1].transAxes, va="bottom", fontsize=7,
                 color="#444444")
    return stamp(fig, note)
