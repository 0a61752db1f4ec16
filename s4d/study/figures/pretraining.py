"""Figures of pre-training: masks, losses and reconstructions."""
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLUMN, GREY, PAGE, SMALL, TASK_COLOURS, figure, heading, name_lines, show, stamp

PALE = 200                            # level of a removed token's pixels, 0..255


def pretraining_loss(table: pd.DataFrame, names: dict[str, str], note: str = "") -> Figure:
    """Draw the loss of each modality, named in words: all steps faint, a running median bold."""
    fig, ax = figure(COLUMN, 2.3)
    ax.axhline(1, color=GREY, lw=0.8, ls=":")
    ax.annotate("predicting each token's mean", (1, 1), (0, 2), ax.get_yaxis_transform(),
                "offset points", color=GREY, fontsize=SMALL, ha="right", va="bottom")
    ends = {}
    for task, name in names.items():
        rows = table[table["modality"] == task].sort_values("step").set_index("step")["loss"]
        few = (len(rows) - 1) // 2 * 2 + 1             # the largest odd number of steps
        window = min(max(3, len(rows) // 25 // 2 * 2 + 1), few)
        middle = rows.rolling(window, center=True).median()
        ax.plot(rows.index, rows, color=TASK_COLOURS[task], lw=0.4, alpha=0.3)
        marker = "o" if middle.count() < 20 else None  # a single point makes no line
        ax.plot(rows.index, middle, color=TASK_COLOURS[task], lw=1.4, marker=marker, ms=2.5)
        ends[name] = middle.dropna().iloc[-1]
    lowest = min(1.0, table["loss"].quantile(0.01))
    highest = max(1.12, *(value + 0.1 for value in ends.values()))
    ax.set(xlabel="step of pre-training", ylim=(lowest - 0.05, highest),
           ylabel="masked squared error\n(share of a token's variance)")
    ax.margins(x=0)
    name_lines(ax, ends, {names[task]: TASK_COLOURS[task] for task in names})
    return stamp(fig, note)


def covered(frame: np.ndarray, removed: np.ndarray, patch: int) -> np.ndarray:
    """Paint removed tokens grey: uint8 `[3, H, W]`, bool `[rows, columns]`."""
    return np.where(np.kron(removed, np.ones((patch, patch), dtype=bool)), np.uint8(PALE), frame)


def masks(photo, photo_mask, clip, clip_mask, positions, patch: int, note: str = "") -> Figure:
    """Draw tokens of a photo and a clip, what masking leaves of them, and the position table.

    Args:
        photo, clip: uint8 `[3, H, W]` and `[T, 3, H, W]`; masks bool `[L]`, True = removed.
        positions: float `[L, D]`; patch: side of a token, px.
    """
    side = photo.shape[-1] // patch
    still = np.asarray(photo_mask).reshape(side, side)
    moving = np.asarray(clip_mask).reshape(-1, side, side)
    fig, axes = figure(PAGE, 3.45, 3, 8)
    show(photo, axes[0, 0], "photo")
    show(photo, axes[0, 1], f"{still.size} tokens")
    show(covered(photo, still, patch), axes[0, 2], f"{(~still).sum()} of {still.size} visible")
    for column, t in enumerate(np.linspace(0, len(clip) - 1, 8).round().astype(int)):
        show(clip[t], axes[1, column], f"frame {t + 1}" if column else "clip, frame 1")
        show(covered(clip[t], moving[t // 2], patch), axes[2, column],
             "" if column else f"{(~moving).sum()} of {moving.size} visible")
    for ax, i in product((axes[0, 1], *axes[1]), range(1, side)):
        ax.axhline(i * patch - 0.5, color="w", lw=0.5)
        ax.axvline(i * patch - 0.5, color="w", lw=0.5)
    for ax in axes[0, 3:]:
        ax.set_axis_off()
    table = np.asarray(positions)                     # even dimensions are sines, odd ones cosines
    ax = axes[0, 3].inset_axes([0.8, 0.2, 4.5, 0.66])  # names of axes would push pictures apart
    ax.set_in_layout(False)
    ax.imshow(np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1).T, aspect="auto", vmin=-1,
              vmax=1, origin="lower")
    ax.axvline(side * side - 0.5, color="w", lw=1.2)
    ax.axhline(table.shape[1] // 2 - 0.5, color="w", lw=0.6)
    ax.set_yticks([table.shape[1] // 4, 3 * table.shape[1] // 4], ["sine", "cosine"], fontsize=7)
    ax.set_xticks([])
    heading(ax, f"positions: dimension by token; a photo has the first {side * side}", 7,
            loc="center", pad=2)
    return stamp(fig, note)


def reconstructions(pictures: np.ndarray, rows: Sequence[str], columns: Sequence[str],
                    measured: Sequence[str], note: str = "") -> Figure:
    """Draw pictures `[R, C, 3, H, W]`: inputs, and what models make of their visible tokens.

    `measured` is written at the right end of each row.
    """
    side = (PAGE - 0.75) / len(columns)
    fig, axes = figure(PAGE, 0.4 + side * len(rows), len(rows), len(columns), squeeze=False)
    for (r, c), ax in np.ndenumerate(axes):
        show(pictures[r][c], ax, columns[c] if r == 0 else "")
    how = dict(rotation=90, va="center", ma="center", fontsize=7, linespacing=1.1)
    for row, name, score in zip(axes, rows, measured, strict=True):
        row[0].text(-0.06, 0.5, name, transform=row[0].transAxes, ha="right", **how)
        row[-1].text(1.06, 0.5, score, transform=row[-1].transAxes, ha="left", **how)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    return stamp(fig, note)
