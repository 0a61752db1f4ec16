"""Pictures of the panels: each figure is made once and then changed, which takes a tenth of the time of making it anew."""
from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ..study.figures.style import EMOTION_COLOURS, METHOD_COLOURS, PAGE, figure, show

DPI = 110               # of a panel on the screen
DIM = 0.25              # light left on a token that is not meant


class Board:
    """A figure of which only some artists change: the rest is drawn once and kept as a picture.

    Args:
        fig: the figure; its layout is settled by the first picture.
        moving: artists that change.
    """

    def __init__(self, fig: Figure, moving: Iterable):
        self.fig, self.canvas, self.moving, self.still = fig, FigureCanvasAgg(fig), list(moving), None
        fig.set_dpi(DPI)
        for artist in self.moving:
            artist.set_animated(True)

    def png(self) -> bytes:
        """The figure as it stands."""
        if self.still is None:
            self.canvas.draw()
            self.fig.set_layout_engine("none")
            self.still = self.canvas.copy_from_bbox(self.fig.bbox)
        self.canvas.restore_region(self.still)
        for artist in self.moving:
            self.fig.draw_artist(artist)
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3]).save(buffer, "png", compress_level=1)
        return buffer.getvalue()

    @staticmethod
    def put(ax, pixels, title: str | None = None) -> None:
        """Changes the picture of an axes that `show` filled: uint8 or floats in 0..1, `[3, H, W]`."""
        pixels = np.asarray(pixels)
        ax.images[0].set_data(pixels.transpose(1, 2, 0) if pixels.dtype == np.uint8 else pixels.transpose(1, 2, 0).clip(0, 1))
        if title is not None:
            ax.title.set_text(title)


def _changing(axes) -> list:
    """Picture and title of every axes."""
    return [artist for ax in axes for artist in (ax.images[0], ax.title)]


def _pictures(axes, side: int, titles: Sequence[str]) -> None:
    for ax, title in zip(axes, titles):
        show(np.zeros((3, side, side), np.uint8), ax)
        ax.set_title(title, fontsize=7, fontweight="normal", loc="center", pad=2, y=1.0)      # a fixed height: hidden titles are not placed


class Masking(Board):
    """A face, what a mask leaves of it, what the autoencoder and what the mere mean of each token make of that."""

    TITLES = ("the face", "what the encoder sees\n", "filled in by the model\n", "each token's mean\n")

    def __init__(self, side: int):
        fig, self.axes = figure(PAGE, 2.2, 1, 4)
        _pictures(self.axes, side, self.TITLES)
        super().__init__(fig, _changing(self.axes))

    def update(self, pictures: Sequence, removed: int, tokens: int, errors: tuple[float, float]) -> bytes:
        """Four pictures `[3, H, W]`, the number of removed tokens of all, and the errors of the two guesses (in units of a token's variance)."""
        said = ("", f"{tokens - removed} of {tokens} tokens", *(f"error {e:.2f}" for e in errors))
        for ax, pixels, title, more in zip(self.axes, pictures, self.TITLES, said):
            self.put(ax, pixels, title + more)
        return self.png()


class Heads(Board):
    """A face, its clip, and the probabilities that each head gives: one panel a head, one bar an emotion."""

    def __init__(self, side: int, frames: int, heads: Sequence[str], emotions: Sequence[str]):
        fig, blank = figure(PAGE, 3.1)
        blank.remove()
        top, bottom = fig.add_gridspec(2, 1, height_ratios=[1, 2.1])
        self.strip = [fig.add_subplot(cell) for cell in top.subgridspec(1, frames + 1, wspace=0.04)]
        _pictures(self.strip, side, ("the photo", "the clip"))
        self.strip[0].set_title("the photo", fontsize=7, fontweight="bold", loc="center", pad=2)
        for ax in self.strip[2:]:
            show(np.zeros((3, side, side), np.uint8), ax)
        self.bars = []
        for i, (cell, name) in enumerate(zip(bottom.subgridspec(1, len(heads), wspace=0.08), heads)):
            ax = fig.add_subplot(cell)
            self.bars.append(ax.barh(list(emotions), [0] * len(emotions), color=[EMOTION_COLOURS[e] for e in emotions]))
            ax.set(xlim=(0, 1), title=name, xlabel="probability")
            ax.invert_yaxis()
            if i:
                ax.set_yticklabels([])
        super().__init__(fig, [*(ax.images[0] for ax in self.strip), *(bar for bars in self.bars for bar in bars)])

    def update(self, photo, clip, probabilities: Sequence[np.ndarray]) -> bytes:
        """A photo `[3, H, W]`, a clip `[T, 3, H, W]`, and for each head its probabilities `[K]`."""
        for ax, pixels in zip(self.strip, (photo, *clip)):
            self.put(ax, pixels)
        for bars, values in zip(self.bars, probabilities):
            for bar, value in zip(bars, values):
                bar.set_width(value)
        return self.png()


class Experts(Board):
    """Time steps of a face on which the tokens of one expert are lit, above the share of the assignments that each expert takes."""

    def __init__(self, side: int, steps: int, experts: int):
        fig, blank = figure(PAGE, 3.0)
        blank.remove()
        top, bottom = fig.add_gridspec(2, 1, height_ratios=[1.6, 1])
        self.strip = [fig.add_subplot(cell) for cell in top.subgridspec(1, steps, wspace=0.05)]
        _pictures(self.strip, side, [" "] * steps)
        ax = fig.add_subplot(bottom)
        self.bars = ax.bar(range(1, experts + 1), [0] * experts, color="#BBBBBB")
        ax.axhline(100 / experts, color="k", lw=0.8, ls=":")
        ax.set(ylim=(0, 100), xlabel="expert (dotted: an even share)", ylabel="tokens led, %", xticks=range(1, experts + 1))
        super().__init__(fig, [*_changing(self.strip), *self.bars])

    def update(self, pictures: Sequence, gates: np.ndarray, expert: int, led: np.ndarray) -> bytes:
        """Time steps.

        Args:
            pictures: one uint8 `[3, H, W]` a step.
            gates: of the chosen expert `[steps, rows, columns]`, 0 where it was not asked.
            expert: its number, from 1.
            led: share of the tokens whose largest gate each expert has `[E]`.
        """
        for k, ax in enumerate(self.strip):
            ax.images[0].set_visible(k < len(pictures))      # a photo has one step
            ax.title.set_visible(k < len(pictures))
        for ax, pixels, gate in zip(self.strip, pictures, gates):
            light = np.kron(DIM + (1 - DIM) * gate, np.ones([s // g for s, g in zip(pixels.shape[1:], gate.shape)]))
            self.put(ax, (np.asarray(pixels) * light).astype(np.uint8), f"asked by {(gate > 0).sum()} of {gate.size} tokens")
        for number, (bar, share) in enumerate(zip(self.bars, led), 1):
            bar.set(height=100 * share, color=METHOD_COLOURS["s4d"] if number == expert else "#BBBBBB")
        return self.png()


class Scrub(Board):
    """One frame of a clip beside what a photo head reads in every frame; a line marks the frame."""

    def __init__(self, side: int, emotions: Sequence[str]):
        fig, (self.frame, self.ax) = figure(PAGE, 2.4, 1, 2, width_ratios=[1, 2.4])
        show(np.zeros((3, side, side), np.uint8), self.frame, " \n ")
        self.lines = {e: self.ax.plot([], [], color=EMOTION_COLOURS[e], label=e)[0] for e in emotions}
        self.mark = self.ax.axvline(0, color="k", lw=0.8)
        self.truth = self.ax.plot([], [], color="#BBBBBB", lw=3, zorder=0, label="true intensity\n(largest: 1)")[0]
        self.ax.set(ylim=(0, 1.02), xlabel="frame", ylabel="probability by the photo head")
        self.ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=6.5)
        super().__init__(fig, [*_changing([self.frame]), self.mark])

    def clip(self, label: str, probabilities: np.ndarray, intensity: np.ndarray | None) -> None:
        """Changes the curves: the true emotion, probabilities `[T, K]`, and the true intensity `[T]` where it is known."""
        frames = np.arange(1, len(probabilities) + 1)
        for (emotion, line), values in zip(self.lines.items(), probabilities.T):
            line.set_data(frames, values)
            line.set_linewidth(2.2 if emotion == label else 0.8)
        self.truth.set_data((frames, intensity / max(intensity.max(), 1e-9)) if intensity is not None else ([], []))
        self.ax.set_xlim(1, max(2, len(frames)))
        self.still = None
        self.label, self.read = label, [list(self.lines)[k] for k in probabilities.argmax(1)]

    def update(self, pixels, t: int) -> bytes:
        """Frame `t`, from 0, uint8 `[3, H, W]`."""
        self.put(self.frame, pixels, f"frame {t + 1}, true label: {self.label}\nthe head says: {self.read[t]}")
        self.mark.set_xdata([t + 1, t + 1])
        return self.png()
