"""Figures of the embedded data: each action alone, emotions on several people, one clip above its actions."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import PAGE, SMALL, figure, show, stamp

PHASES = {"onset": 0.09, "apex": 0.18, "offset": 0.09}      # grey of their bands: as dark as the expression is strong


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


def emotions(pictures, names: Sequence[str], columns: Sequence[str] = (), tags: Sequence[Sequence[str]] = (), note: str = "") -> Figure:
    """Rows of emotions or settings, columns of people or of moments.

    Args:
        pictures: uint8 `[rows, columns, 3, H, W]`.
        names: of the rows, of one line or more.
        columns: titles of the columns; none when empty.
        tags: a short text for the corner of each picture, by row and column; none when empty.
        note: stamp.
    """
    rows, across = pictures.shape[:2]
    margin = 0.1 + 0.07 * max(len(line) for name in names for line in name.splitlines())      # inches that bold letters of 8 pt need
    side = (PAGE - margin) / across
    fig, axes = figure(PAGE, rows * side + (0.35 if columns else 0.2), rows, across, squeeze=False)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for i, name in enumerate(names):
        for j in range(across):
            show(pictures[i, j], axes[i, j], columns[j] if columns and i == 0 else "")
            if tags:
                axes[i, j].text(0.05, 0.95, tags[i][j], transform=axes[i, j].transAxes, ha="left", va="top", fontsize=7, fontweight="bold",
                                bbox=dict(boxstyle="square,pad=0.15", facecolor="w", edgecolor="none"))
        axes[i, 0].text(-0.06, 0.5, name, transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=8, fontweight="bold")
    stamp(fig, note)
    return fig


def filmstrip(frames, table: pd.DataFrame, shown: int = 8, note: str = "") -> Figure:
    """Frames of a clip, each above its time, and a row for each action below; onset, apex and offset shaded.

    Args:
        frames: uint8 `[T, 3, H, W]`.
        table: time (s), action (name), intensity (0..1), phase, apex (bool), one row a frame and action; actions in the order of the rows.
        shown: number of frames drawn at most, in equal steps from the first.
        note: stamp.
    """
    times, names = np.sort(table["time"].unique()), list(dict.fromkeys(table["action"]))
    spacing = times[1] - times[0]
    drawn = np.arange(0, len(times), -(-len(times) // shown))
    width = spacing * (drawn[1] - drawn[0] if len(drawn) > 1 else 1)                       # seconds that a picture covers
    side = (PAGE - 1.0) / len(drawn)                # inches, as high as a picture can get: were it less, the pictures would leave their times
    fig, axes = figure(PAGE, side + 0.31 * len(names) + 0.6, 1 + len(names), 1,
                       gridspec_kw={"height_ratios": [side + 0.04, *[0.29] * len(names)]})
    fig.get_layout_engine().set(h_pad=0.01, hspace=0)
    for t in drawn:
        axes[0].imshow(np.asarray(frames[t]).transpose(1, 2, 0), extent=(times[t] - 0.48 * width, times[t] + 0.48 * width, 0, 0.96))
    axes[0].set(ylim=(0, 0.96), aspect=width, anchor="S")
    axes[0].set_axis_off()
    for ax, name in zip(axes[1:], names):
        _course(ax, table[table["action"] == name].sort_values("time"), name)
    for ax in axes:
        ax.set_xlim(times[0] - width / 2, max(times[drawn[-1]] + width / 2, times[-1] + spacing / 2))
        ax.set_xticks(times[drawn], [f"{time:.2f}" for time in times[drawn]] if ax is axes[-1] else [])
    _shade(axes[1:], table.drop_duplicates("time").sort_values("time"))
    axes[1].text(1.01, 1.08, "peak (0..1)", transform=axes[1].transAxes, ha="left", va="bottom", fontsize=7, color="#444444")
    axes[-1].set_xlabel("time (s); each frame stands above its time")
    stamp(fig, note)
    return fig


def _course(ax, rows: pd.DataFrame, name: str) -> None:
    """Intensity of one action over time, 0..1 from the lower to the upper edge; its name to the left, its peak to the right."""
    ax.fill_between(rows["time"], rows["intensity"], color="#4D4D4D", lw=0, alpha=0.75)
    ax.plot(rows["time"], rows["intensity"], color="k", marker="o", ms=2, lw=0.8, clip_on=False)
    ax.set(ylim=(0, 1), yticks=[])
    ax.spines["left"].set_visible(False)
    ax.text(-0.01, 0.05, name, transform=ax.transAxes, ha="right", va="bottom", fontsize=7)
    ax.text(1.01, 0.05, f"{rows['intensity'].max():.2f}", transform=ax.transAxes, ha="left", va="bottom", fontsize=7)


def _shade(axes: Sequence, phases: pd.DataFrame) -> None:
    """Grey bands for onset, apex and offset, each named once on top; a line at the apex frame."""
    time, step = phases["time"].to_numpy(), np.diff(phases["time"]).min()
    runs = (phases["phase"] != phases["phase"].shift()).cumsum()
    for _, rows in phases.groupby(runs.to_numpy()):
        phase = rows["phase"].iloc[0]
        left, right = rows["time"].min() - step / 2, rows["time"].max() + step / 2
        if phase in PHASES:
            for ax in axes:
                ax.axvspan(left, right, color="k", alpha=PHASES[phase], lw=0, zorder=0)
            middle = (max(left, time[0]) + min(right, time[-1])) / 2
            axes[0].text(middle, 1.08, phase, transform=axes[0].get_xaxis_transform(), ha="center", va="bottom", fontsize=SMALL, color="#444444")
    for ax in axes:
        ax.axvline(phases.loc[phases["apex"], "time"].iloc[0], color="k", lw=0.8, ls=":")
