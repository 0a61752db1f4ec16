"""Figures of pre-training: masks, losses and reconstructions."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLUMN, PAGE, TASK_COLOURS, figure, show, stamp

GREY, PALE = "#777777", 200                           # lines of baselines; level of a removed token's pixels, 0..255


def pretraining_loss(table: pd.DataFrame, names: dict[str, str], note: str = "") -> Figure:
    """Loss of both modalities over the steps of pre-training: every step faint, the running median drawn over it.

    The median of a step looks as far back as ahead, so it starts and ends half a window inside: a shorter window at the edges would
    show a fast first descent as if it had happened before.

    Args:
        table: step, modality (image or video), loss (1: predicting each token's mean).
        names: modality -> what is written at its curve.
        note: stamp.
    """
    fig, ax = figure(COLUMN, 2.3)
    ax.axhline(1, color=GREY, lw=0.8, ls=":")
    ax.annotate("predicting each token's mean", (1, 1), (0, 2), ax.get_yaxis_transform(), "offset points", color=GREY, fontsize=6.5,
                ha="right", va="bottom")
    levels, ends = [1.0], {}
    for task in names:
        rows = table[table["modality"] == task].sort_values("step").set_index("step")["loss"]
        middle = rows.rolling(median_window(len(rows)), center=True).median()
        ax.plot(rows.index, rows, color=TASK_COLOURS[task], lw=0.4, alpha=0.3)
        few = "o" if middle.count() < 20 else None     # a single point makes no line
        ax.plot(rows.index, middle, color=TASK_COLOURS[task], lw=1.4, marker=few, ms=2.5)
        levels += [middle.min(), min(middle.max(), 1.25)]
        ends[task] = middle.last_valid_index(), middle.dropna().iloc[-1]
    late = table.loc[table["step"] >= 0.5 * table["step"].max(), "loss"]               # names stand above and below it, off the line at 1
    below, above = min(late.min(), 1.0) - 0.02, 0.02 + (late.max() if late.max() < 0.88 else max(late.max(), 1.06))
    order = sorted(ends, key=lambda task: ends[task][1])
    for task, (at, side, foot) in {order[0]: (below, "top", 1), order[-1]: (above, "bottom", 0)}.items():
        ax.annotate(names[task], ends[task], (1, at), "data", ax.get_yaxis_transform(), fontsize=7, ha="right", va=side,
                    arrowprops=dict(arrowstyle="-", color=TASK_COLOURS[task], lw=0.8, relpos=(0.7, foot), shrinkA=0, shrinkB=0))
    ax.set(xlabel="step of pre-training", ylabel="masked squared error\n(share of a token's variance)",
           ylim=(min(*levels, below) - 0.08, max(*levels, above) + 0.07))
    stamp(fig, note)
    return fig


def median_window(steps: int) -> int:
    """Steps of one modality in a running median: an odd number, one in 25, at least 3 where there are as many."""
    return min(max(3, steps // 25 // 2 * 2 + 1), (steps - 1) // 2 * 2 + 1)


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
    photo, clip = np.asarray(photo), np.asarray(clip)
    side = photo.shape[-1] // patch
    still, moving = np.asarray(photo_mask).reshape(side, side), np.asarray(clip_mask).reshape(-1, side, side)
    times = np.linspace(0, len(clip) - 1, 8).round().astype(int)
    fig, axes = figure(PAGE, 3.45, 3, 8)
    for ax, picture, title in zip(axes[0], (photo, photo, covered(photo, still, patch)),
                                  ("photo", f"{side * side} tokens", f"{(~still).sum()} of {side * side} visible")):
        show(picture, ax, title)
    _grid(axes[0, 1], side, patch)
    for column, t in enumerate(times):
        show(clip[t], axes[1, column], f"frame {t + 1}" if column else "clip, frame 1")
        show(covered(clip[t], moving[t // 2], patch), axes[2, column],
             f"{(~moving).sum()} of {moving.size} visible" if column == 0 else "")
        _grid(axes[1, column], side, patch)
    for ax in axes[0, 3:]:
        ax.remove()
    _positions(fig.add_subplot(axes[0, 0].get_gridspec()[0, 3:]), np.asarray(positions), side * side)
    stamp(fig, note)
    return fig


def _positions(place, table: np.ndarray, first: int) -> None:
    """The table of positions `[L, D]`, a column a token, sines apart from cosines so that their waves show; a line behind `first` tokens.

    It stands inside `place`: beside axes of its own, ticks and bar would push the columns of pictures apart.
    """
    place.set_axis_off()
    ax, beside = place.inset_axes([0.15, 0.3, 0.78, 0.58]), place.inset_axes([0.945, 0.3, 0.012, 0.58])
    half = table.shape[1] // 2                                                    # even dimensions are sines, odd ones cosines
    picture = ax.imshow(np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1).T, aspect="auto", cmap="cividis", vmin=-1, vmax=1,
                        origin="lower", interpolation="nearest")
    ax.axvline(first - 0.5, color="w", lw=1.2)
    ax.axhline(half - 0.5, color="w", lw=0.6)
    ax.set_xlabel(f"token; a photo has the first {first}", fontsize=7, labelpad=1)
    quarter = half // 2
    ax.set_yticks([0, quarter, half, half + quarter], [str(d) for d in (0, 2 * quarter, 1, 2 * quarter + 1)], fontsize=6.5)
    ax.tick_params(axis="x", labelsize=6.5)
    for y, wave in ((0.25, "sine"), (0.75, "cosine")):
        ax.text(-0.08, y, wave, transform=ax.transAxes, ha="right", va="center", fontsize=7)
    ax.set_title("table of positions: dimension (rows) by token (columns)", fontsize=7, fontweight="normal", loc="center", pad=2)
    place.figure.colorbar(picture, cax=beside, ticks=[-1, 0, 1]).ax.tick_params(labelsize=6.5)
    for inset in (ax, beside):
        inset.set_in_layout(False)


def reconstructions(pictures: np.ndarray, rows: Sequence[str], columns: Sequence[str], measured: Sequence[str] = (), note: str = "") -> Figure:
    """Rows of pictures: inputs and what models make of their visible tokens.

    Args:
        pictures: `[R, C, 3, H, W]`, uint8 or floats in 0..1.
        rows, columns: names; an empty column name leaves the title out.
        measured: what is written at the right end of each row, of one line or more.
    """
    fig, axes = figure(PAGE, 0.4 + (PAGE - 0.75) / len(columns) * len(rows), len(rows), len(columns), squeeze=False)
    for r, name in enumerate(rows):
        for c, title in enumerate(columns):
            show(pictures[r][c], axes[r, c], title if r == 0 else "")
        for ax, x, text, side in ((axes[r, 0], -0.06, name, "right"), (axes[r, -1], 1.06, measured[r] if measured else "", "left")):
            ax.text(x, 0.5, text, transform=ax.transAxes, rotation=90, ha=side, va="center", ma="center", fontsize=7, linespacing=1.1)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    stamp(fig, note)
    return fig
