"""Figures of pre-training: masks, losses and reconstructions."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLUMN, PAGE, TASK_COLOURS, TASK_LABELS, figure, show, stamp

GREY, PALE = "#777777", 200                           # lines of baselines; level of a removed token's pixels, 0..255


def pretraining_loss(table: pd.DataFrame, window: int = 25, note: str = "") -> Figure:
    """Loss of both modalities over the steps of pre-training: every step faint, the running median drawn over it.

    Args:
        table: step, modality (image or video), loss (1: predicting each token's mean).
        window: steps of one modality in a median.
        note: stamp.
    """
    fig, ax = figure(COLUMN, 2.3)
    ax.axhline(1, color=GREY, lw=0.8, ls=":")
    ax.annotate("predicting each token's mean", (1, 1), (0, -2), ax.get_yaxis_transform(), "offset points", color=GREY, fontsize=6.5,
                ha="right", va="top")
    levels = [1.0]
    for task in ("image", "video"):
        rows = table[table["modality"] == task].sort_values("step")
        middle = rows["loss"].rolling(window, min_periods=1, center=True).median()
        ax.plot(rows["step"], rows["loss"], color=TASK_COLOURS[task], lw=0.4, alpha=0.3)
        few = "o" if len(rows) < 20 else None          # a single point makes no line
        ax.plot(rows["step"], middle, color=TASK_COLOURS[task], lw=1.2, marker=few, ms=2.5, label=TASK_LABELS[task])
        levels += [middle.min(), min(middle.max(), 1.25)]
    ax.set(xlabel="step of pre-training", ylabel="masked squared error\n(share of a token's variance)",
           ylim=(min(levels) - 0.06, max(levels) + 0.06))
    ax.legend(loc="upper right")
    stamp(fig, note)
    return fig


def covered(frame: np.ndarray, removed: np.ndarray, patch: int) -> np.ndarray:
    """A picture whose removed tokens are painted grey: uint8 `[3, H, W]`, bool `[rows, columns]`."""
    hide = np.kron(removed, np.ones((patch, patch), dtype=bool)).astype(bool)
    return np.where(hide, np.uint8(PALE), frame)


def _grid(ax, side: int, patch: int) -> None:
    """White lines between tokens."""
    for i in range(1, side):
        ax.axhline(i * patch - 0.5, color="w", lw=0.5)
        ax.axvline(i * patch - 0.5, color="w", lw=0.5)


def masks(photo, photo_mask, clip, clip_mask, positions, patch: int, note: str = "") -> Figure:
    """Tokens of a photo and a clip, what masking leaves of them, and the table of positions.

    Args:
        photo, clip: uint8 `[3, H, W]` and `[T, 3, H, W]`.
        photo_mask, clip_mask: bool `[L]`, True = removed; L in time, row, column order.
        positions: float `[L, D]`.
        patch: side of a token, px.
    """
    photo, clip, positions = np.asarray(photo), np.asarray(clip), np.asarray(positions)
    side = photo.shape[-1] // patch
    still, moving = np.asarray(photo_mask).reshape(side, side), np.asarray(clip_mask).reshape(-1, side, side)
    times = np.linspace(0, len(clip) - 1, 8).round().astype(int)
    fig, axes = figure(PAGE, 3.35, 3, 8)
    for ax, picture, title in zip(axes[0], (photo, photo, covered(photo, still, patch)),
                                  ("photo", f"{side * side} tokens", f"{(~still).sum()} visible")):
        show(picture, ax, title)
    _grid(axes[0, 1], side, patch)
    for column, t in enumerate(times):
        show(clip[t], axes[1, column], f"frame {t + 1}" if column else "clip, frame 1")
        show(covered(clip[t], moving[t // 2], patch), axes[2, column],
             f"{(~moving).sum()} of {moving.size} visible" if column == 0 else "")
        _grid(axes[1, column], side, patch)
    for ax in axes[0, 3:]:
        ax.remove()
    ax = fig.add_subplot(axes[0, 0].get_gridspec()[0, 4:])
    waves = np.concatenate([positions[:, 0::2], positions[:, 1::2]], axis=1)     # told apart, sines and cosines show their waves
    ax.imshow(waves.T, aspect="auto", cmap="cividis", vmin=-1, vmax=1, origin="lower", interpolation="nearest")
    ax.axvline(side * side - 0.5, color="w", lw=0.8)
    ax.set(xlabel=f"token (a photo has the first {side * side})", yticks=[])
    ax.set_title(f"positions: {waves.shape[1] // 2} sines below, as many cosines above; -1 dark, 1 bright", fontsize=7, fontweight="normal",
                 loc="center", pad=2)
    stamp(fig, note)
    return fig


def reconstructions(pictures: np.ndarray, rows: Sequence[str], columns: Sequence[str], note: str = "") -> Figure:
    """Rows of pictures: inputs and what models make of their visible tokens.

    Args:
        pictures: `[R, C, 3, H, W]`, uint8 or floats in 0..1.
        rows, columns: names; an empty column name leaves the title out.
    """
    fig, axes = figure(PAGE, 0.4 + PAGE * 0.92 * len(rows) / len(columns), len(rows), len(columns), squeeze=False)
    for r, name in enumerate(rows):
        for c, title in enumerate(columns):
            show(pictures[r][c], axes[r, c], title if r == 0 else "")
        axes[r, 0].text(-0.08, 0.5, name, transform=axes[r, 0].transAxes, rotation=90, ha="right", va="center", fontsize=7)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    stamp(fig, note)
    return fig
