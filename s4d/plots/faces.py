"""Figures of the embedded data: each action alone, emotions on several people, one clip above its actions."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from .style import EMOTION_COLOURS, PAGE, figure, show, stamp

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")      # Okabe and Ito
PHASES = {"onset": 0.10, "apex": 0.20, "offset": 0.05}      # grey of their bands


def sheet(pictures, labels: Sequence[str], columns: int = 8, note: str = "") -> Figure:
    """Pictures in rows, each with its label above.

    Args:
        pictures: uint8 `[n, 3, H, W]`.
        labels: n texts of one or two lines.
        columns: pictures a row.
        note: stamp.
    """
    rows = -(-len(pictures) // columns)
    fig, axes = figure(PAGE, rows * (PAGE / columns + 0.14) + 0.15, rows, columns, squeeze=False)
    for ax, picture, label in zip(axes.flat, pictures, labels):
        show(picture, ax, label)
    for ax in axes.flat[len(pictures):]:
        ax.set_axis_off()
    stamp(fig, note)
    return fig


def emotions(pictures, names: Sequence[str], note: str = "") -> Figure:
    """Rows of emotions, columns of people or of moments.

    Args:
        pictures: uint8 `[rows, columns, 3, H, W]`.
        names: of the rows; those of emotions get their colour.
        note: stamp.
    """
    rows, columns = pictures.shape[:2]
    side = (PAGE - 0.8) / columns
    fig, axes = figure(PAGE, rows * side + 0.2, rows, columns, squeeze=False)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for i, name in enumerate(names):
        for j in range(columns):
            show(pictures[i, j], axes[i, j])
        axes[i, 0].text(-0.06, 0.5, name, transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=8,
                        color=EMOTION_COLOURS.get(name, "black"), fontweight="bold")
    stamp(fig, note)
    return fig


def filmstrip(frames, table: pd.DataFrame, shown: int = 8, note: str = "") -> Figure:
    """Frames of a clip above the curves of its strongest actions; onset, apex and offset shaded.

    Args:
        frames: uint8 `[T, 3, H, W]`.
        table: time (s), action (name), intensity (0..1), phase, apex (bool), one row a frame and action.
        shown: number of frames drawn, evenly spaced.
        note: stamp.
    """
    side = PAGE / shown
    fig, blank = figure(PAGE, side + 2.0)
    blank.remove()
    grid = GridSpec(2, shown, fig, height_ratios=[side, 1.7])
    for column, t in enumerate(np.linspace(0, len(frames) - 1, shown).round().astype(int)):
        time = np.sort(table["time"].unique())[t]
        show(frames[t], fig.add_subplot(grid[0, column]), f"{time:.2f} s")
    ax = fig.add_subplot(grid[1, :])
    names = list(table.groupby("action")["intensity"].max().sort_values(ascending=False).index)
    ends = []
    for name, colour in zip(names, COLOURS):
        rows = table[table["action"] == name].sort_values("time")
        ax.plot(rows["time"], rows["intensity"], color=colour, marker="o", ms=2.5, lw=1.2)
        ends.append((rows["intensity"].iloc[-1], rows["time"].iloc[-1], name, colour))
    _end_labels(ax, ends)
    phases = table.drop_duplicates("time").sort_values("time")
    _shade(ax, phases)
    ax.set(xlabel="time (s)", ylabel="intensity of the action (0..1)", ylim=(-0.02, 1.02),
           xlim=(phases["time"].min(), phases["time"].max()))
    stamp(fig, note)
    return fig


def _end_labels(ax, ends: list[tuple]) -> None:
    """Each curve's name at its right end, moved apart where they would overlap."""
    last = -1.0
    for value, time, name, colour in sorted(ends):
        last = max(value, last + 0.13)
        ax.text(1.01, last, name, transform=ax.get_yaxis_transform(), va="center", fontsize=7, color=colour)


def _shade(ax, phases: pd.DataFrame) -> None:
    """Grey bands for onset, apex and offset, each named once on top; a line at the apex frame."""
    time, step = phases["time"].to_numpy(), np.diff(phases["time"]).min()
    runs = (phases["phase"] != phases["phase"].shift()).cumsum()
    for _, rows in phases.groupby(runs.to_numpy()):
        phase = rows["phase"].iloc[0]
        left, right = rows["time"].min() - step / 2, rows["time"].max() + step / 2
        if phase in PHASES:
            ax.axvspan(left, right, color="k", alpha=PHASES[phase], lw=0)
            middle = (max(left, time[0]) + min(right, time[-1])) / 2
            ax.text(middle, 1.03, phase, ha="center", va="bottom", fontsize=7, color="#444444")
    ax.axvline(phases.loc[phases["apex"], "time"].iloc[0], color="k", lw=0.8, ls=":")
