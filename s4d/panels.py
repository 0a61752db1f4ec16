"""Panels for JupyterLab: controls, and a figure that a trained model draws anew at every move."""
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import Image, display
from matplotlib.figure import Figure

from . import config as configs
from .data import DatasetError
from .data.transforms import normalise
from .emotions import EMOTIONS, vocabulary
from .faces import facs, render, subjects, views
from .faces.renderer import drawing
from .models import random_mask
from .models.tokens import TUBELET_SIZE
from .study import stimuli
from .study.figures import pretraining, style
from .study.figures.style import EMOTION_COLOURS, METHOD_COLOURS, METHOD_LABELS, PAGE, figure
from .training import RunError, locate

DPI = 110
STRENGTH = 1.2                          # of a prototype's actions, as in the corpora's photos
DIM, GREY = 0.25, "#BBBBBB"             # light left on a token that is not meant; other bars


@dataclass(frozen=True)
class Control:
    """A number from `low` to `high`, whole where `step` is, or one of `options`."""

    label: str
    value: object
    low: float = 0
    high: float = 200
    step: float = 1
    options: Sequence = ()

    def widget(self) -> widgets.Widget:
        look = dict(description=self.label, style={"description_width": "140px"},
                    layout=widgets.Layout(width="345px"))
        if self.options:
            return widgets.Dropdown(options=self.options, value=self.value, **look)
        slider = widgets.FloatSlider if isinstance(self.step, float) else widgets.IntSlider
        return slider(self.value, min=self.low, max=self.high, step=self.step, **look)


SUBJECT = {"subject": Control("subject", 21)}
EMOTION = {"emotion": Control("emotion", "happiness", options=EMOTIONS)}


class Panel:
    """Controls above a figure that follows them; a notebook run as a batch gets a picture.

    `draw` takes the controls' values by name. A preset turns the value of its control into others'.
    """

    def __init__(self, fig: Figure, draw: Callable, controls: dict[str, Control], **presets):
        self.fig, self.draw, self.controls, self.presets = fig, draw, controls, presets
        fig.set_dpi(DPI)

    @torch.no_grad()
    def png(self, **changed) -> bytes:
        """Draw the picture at the controls' first values, but for those that are given."""
        first = {name: control.value for name, control in self.controls.items()}
        with drawing(torch.device("cpu")):
            self.draw(**first | changed)
        buffer = io.BytesIO()
        self.fig.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
        self.fig.set_layout_engine("none")
        return buffer.getvalue()

    def box(self) -> widgets.VBox:
        """Make the widgets: controls in rows above the picture."""
        made = {name: control.widget() for name, control in self.controls.items()}
        view = widgets.Image(format="png", width=int(DPI * self.fig.get_figwidth()))
        busy = []

        def moved(change) -> None:
            if busy:                                      # a preset moves several, and draws once
                return
            busy.append(True)
            try:
                for name, preset in self.presets.items():
                    if made[name] is change["owner"]:
                        for other, control in preset(change["new"]).items():
                            made[other].value = control.value
                view.value = self.png(**{n: w.value for n, w in made.items()})
            finally:
                busy.clear()                              # a failing picture must not freeze them

        for widget in made.values():
            widget.observe(moved, "value")
        view.value = self.png()
        rows = widgets.Box(list(made.values()), layout=widgets.Layout(flex_flow="row wrap"))
        return widgets.VBox([rows, view])

    def _ipython_display_(self) -> None:
        """Show widgets where somebody sits: batch runs announce that nobody can answer."""
        kernel = getattr(get_ipython(), "kernel", None)
        request = kernel.get_parent("shell").get("content", {}) if kernel else {}
        display(self.box() if request.get("allow_stdin") else Image(self.png(), format="png"))


def put(ax, picture, title: str = "") -> None:
    """Show uint8 or floats in 0..1 `[3, H, W]`; later pictures replace the first."""
    if not ax.images:
        style.show(picture, ax, title or " ")
    pixels = np.asarray(picture).transpose(1, 2, 0)
    ax.images[0].set_data(pixels if pixels.dtype == np.uint8 else pixels.clip(0, 1))
    ax.title.set_text(title)


def strip(height: float, ratio: float, pictures: int, charts: int):
    """A page-wide figure, a row of pictures above a row of charts."""
    fig, blank = figure(PAGE, height)
    blank.remove()
    top, bottom = fig.add_gridspec(2, 1, height_ratios=[ratio, 1])
    return (fig, [fig.add_subplot(cell) for cell in top.subgridspec(1, pictures, wspace=0.05)],
            [fig.add_subplot(cell) for cell in bottom.subgridspec(1, charts, wspace=0.08)])


def found(prof: configs.Profile, method: str | None = None):
    """Find a profile's finished pre-training, or a method's first run, and its configuration."""
    name, cfg, why = "pre-training", prof.pretrain, f"no finished run in {prof.runs}"
    if method is not None:
        name = f"run of {METHOD_LABELS[method]}"
        cfg = next(c for m, pretrained, _, c in prof.methods_grid() if m == method and pretrained)
    try:
        if (run := locate(cfg, prof.runs)).done:
            return run, cfg
    except DatasetError as error:
        why = f"its data are not here: {error}"
    raise RunError(f"the {name} of profile {prof.name} cannot be shown ({why}): execute this "
                     f"notebook's cells above, or `python -m s4d reproduce --profile {prof.name}`")


def face(prof: configs.Profile, subject: int, actions: Sequence, img_size: int) -> torch.Tensor:
    """Draw a subject as the corpora do: actions of each frame -> uint8 `[T, 3, H, W]`."""
    scene = views(1, zoom=(prof.faces or configs.Faces()).zoom)
    return render(subjects(1, seed=subject, glasses=0), np.stack(actions), scene, img_size)


def prototype(emotion: str) -> dict[int, float]:
    """Action -> intensity of an emotion without chance: those that half of the expressions have."""
    usual = [(a, m) for a, m, p in facs.PROTOTYPES[emotion] if p >= 0.5]
    usual += facs.ALTERNATIVES.get(emotion, ())[:1]
    return {a: min(1.0, STRENGTH * m) for a, m in usual}


SLIDERS = tuple(sorted({a for emotion in EMOTIONS for a in prototype(emotion)}))


def course(actions: np.ndarray, num_frames: int) -> np.ndarray:
    """Let an expression `[2, 23]` rise to the middle of a clip and fall: `[T, 2, 23]`."""
    level = facs.ramp(2 - 2 * np.abs(np.linspace(-1, 1, num_frames)))
    return (level[:, None, None] * actions).astype(np.float32)


def sliders(start: dict[int, float]) -> dict[str, Control]:
    """A slider for each action, named `action_<number>`."""
    return {f"action_{a}": Control(f"{a} {facs.NAMES[a]}", start.get(a, 0.0), 0.0, 1.0, 0.05)
            for a in SLIDERS}


def by_hand(levels: dict[str, float]) -> np.ndarray:
    """What the sliders say, as actions `[2, 23]`."""
    return facs.sheet({int(name.removeprefix("action_")): v for name, v in levels.items()})


def actor(subject: dict, start: dict[int, float] | None = None) -> Panel:
    """Move one of `faces.subjects` by hand, from the actions of `start`: actions and pose."""
    fig, ax = figure(2.9, 2.9)

    def draw(yaw: float, pitch: float, **levels: float) -> None:
        put(ax, render(subject, by_hand(levels)[None], views(1, yaw, pitch), 160)[0])

    pose = {name: Control(f"{name} (degrees)", 0.0, -35.0, 35.0, 5.0) for name in ("yaw", "pitch")}
    return Panel(fig, draw, sliders(start or {}) | pose)


def masking(prof: configs.Profile) -> Panel:
    """Mask a face for the pre-trained autoencoder to fill in; errors in a token's variance."""
    run, cfg = found(prof)
    model = run.load()
    side = model.encoder.side
    fig, axes = figure(PAGE, 2.2, 1, 4)

    def draw(removed: float, seed: int, subject: int, emotion: str) -> None:
        picture = face(prof, subject, [facs.sheet(prototype(emotion))], cfg.img_size)
        x = normalise(picture)
        mask = random_mask(1, side * side, removed, torch.Generator().manual_seed(seed))
        hidden = mask.view(side, side).numpy()
        seen = pretraining.covered(picture[0].numpy(), hidden, cfg.img_size // side)
        put(axes[0], picture[0], "the face\n ")
        put(axes[1], seen, f"what the encoder sees\n{(~hidden).sum()} of {hidden.size} tokens")
        truth = model.patchify(x)
        target = model.standardise(truth)[0]
        guesses = {"filled in by the model": model.reconstruct(x, mask),
                   "each token's mean": torch.zeros_like(target)}
        for ax, (title, guess) in zip(axes[2:], guesses.items(), strict=True):
            filled = torch.where(mask.unsqueeze(-1), model.restore(guess, x), truth)
            error = (guess - target)[mask].square().mean()
            pixels = model.unpatchify(filled, (1, side, side))[0, :, 0]
            put(ax, pixels, f"{title}\nerror {error:.2f}")

    return Panel(fig, draw, {
        "removed": Control("share removed", cfg.image_mask_ratio, 0.1, 0.9, 0.05),
        "seed": Control("seed of the mask", 1, 0, 50), **SUBJECT, **EMOTION})


def heads(prof: configs.Profile) -> Panel:
    """Set facial actions by hand; three heads read them: static's, and S4D's photo and clip."""
    runs = {m: found(prof, m) for m in ("static", "s4d")}
    models, cfg = {m: run.load() for m, (run, _) in runs.items()}, runs["s4d"][1]
    asked = (("static", "image"), ("s4d", "image"), ("s4d", "video"))
    names = {task: vocabulary(getattr(cfg, task).num_classes) for task in ("image", "video")}
    shared = [e for e in EMOTIONS if all(e in n for n in names.values())]
    fig, pictures, charts = strip(3.1, 1 / 2.1, cfg.num_frames + 1, len(asked))
    bars, colours = [], [EMOTION_COLOURS[e] for e in shared]
    for ax, (method, task) in zip(charts, asked, strict=True):
        bars.append(ax.barh(shared, [0] * len(shared), color=colours))
        what = f"{METHOD_LABELS[method]}, {'photo' if task == 'image' else 'clip'}"
        ax.set(xlim=(0, 1), title=what, xlabel="probability")
        ax.invert_yaxis()
        ax.tick_params(labelleft=ax is charts[0])

    def draw(prototype: str, subject: int, **levels: float) -> None:
        apex = by_hand(levels)
        drawn = face(prof, subject, [apex, *course(apex, cfg.num_frames)], cfg.img_size)
        x = {"image": normalise(drawn[:1]), "video": normalise(drawn[1:].transpose(0, 1)[None])}
        for k, (ax, pixels) in enumerate(zip(pictures, drawn, strict=True)):
            put(ax, pixels, {0: "the photo", 1: "the clip"}.get(k, ""))
        for chart, (method, task) in zip(bars, asked, strict=True):
            read = models[method](x[task])[0].softmax(-1)
            for bar, emotion in zip(chart, shared, strict=True):
                bar.set_width(float(read[names[task].index(emotion)]))

    return Panel(fig, draw, {
        "prototype": Control("start from", "happiness", options=EMOTIONS), **SUBJECT,
        **sliders(prototype("happiness"))}, prototype=lambda e: sliders(prototype(e)))


def experts(prof: configs.Profile) -> Panel:
    """Light the tokens of a face that ask one expert of S4D, as brightly as its gate is open."""
    run, cfg = found(prof, "s4d")
    model = run.load()
    blocks, numbers = list(model.moae_layers()), range(1, cfg.num_experts + 1)
    fig, steps, (chart,) = strip(3.0, 1.6, cfg.num_frames // TUBELET_SIZE, 1)
    bars = chart.bar(numbers, [0] * len(numbers))
    chart.axhline(100 / len(numbers), color="k", lw=0.8, ls=":")
    chart.set(ylim=(0, 100), xlabel="expert (dotted: an even share)", ylabel="tokens led, %",
              xticks=numbers)

    def draw(kind: str, block: int, expert: int, subject: int, emotion: str) -> None:
        apex = facs.sheet(prototype(emotion))
        actions = [apex] if kind == "photo" else course(apex, cfg.num_frames)
        drawn = face(prof, subject, actions, cfg.img_size)
        x = drawn if kind == "photo" else drawn.transpose(0, 1)[None]
        gates, pictures = stimuli.routes_of(model, x)[block][0].numpy(), drawn[::TUBELET_SIZE]
        of_one = gates[:, expert - 1].reshape(len(pictures), model.side, model.side)
        patch = np.ones((cfg.img_size // model.side,) * 2)
        for k, ax in enumerate(steps):
            ax.set_visible(k < len(pictures))                                   # a photo has one
        for ax, pixels, gate in zip(steps, pictures.numpy(), of_one, strict=False):
            lit = pixels * np.kron(DIM + (1 - DIM) * gate, patch)
            put(ax, lit.astype(np.uint8), f"asked by {(gate > 0).sum()} of {gate.size} tokens")
        led = np.bincount(gates.argmax(-1), minlength=len(numbers)) / len(gates)
        for number, bar, share in zip(numbers, bars, led, strict=True):
            bar.set(height=100 * share, color=METHOD_COLOURS["s4d"] if number == expert else GREY)

    photo = face(prof, 21, [facs.sheet(prototype("happiness"))], cfg.img_size)
    busiest = int(stimuli.routes_of(model, photo)[blocks[-1]][0].mean(0).argmax()) + 1
    listed = [(str(b + 1), b) for b in blocks]
    return Panel(fig, draw, {
        "kind": Control("shown as", "photo", options=("photo", "clip")),
        "block": Control("block", blocks[-1], options=listed),
        "expert": Control("expert", busiest, 1, len(numbers)), **SUBJECT, **EMOTION})


def scrub(prof: configs.Profile, method: str = "static", folder=None) -> Panel:
    """Show what a photo head reads in each frame of a clip; `folder` knows the true intensity."""
    run, cfg = found(prof, method)
    model, names = run.load(), vocabulary(cfg.image.num_classes)
    _, rows = stimuli.subset(cfg, "video", limit=20, unreadable={})
    pictures, table = stimuli.frames_of(cfg, rows, unreadable={})
    groups = [g for _, g in stimuli.truth_of(folder, table).groupby("path", sort=False)]
    labels = [g.label.iloc[0] for g in groups]
    fig, (picture, ax) = figure(PAGE, 2.4, 1, 2, width_ratios=[1, 2.4])
    lines = {e: ax.plot([], [], color=EMOTION_COLOURS[e], label=e)[0] for e in names}
    truth, = ax.plot([], [], color=GREY, lw=3, zorder=0, label="true intensity\n(largest: 1)")
    mark = ax.axvline(0, color="k", lw=0.8)
    ax.set(ylim=(0, 1.02), xlabel="frame", ylabel="probability by the photo head")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=6.5)

    def draw(clip: int, frame: int) -> None:
        rows, intensity = groups[clip].index, groups[clip].intensity.to_numpy()
        probabilities = stimuli.probabilities(model, pictures[torch.tensor(rows)], "image")
        frames = np.arange(1, len(probabilities) + 1)
        for (emotion, line), values in zip(lines.items(), probabilities.T, strict=True):
            line.set(data=(frames, values), linewidth=2.2 if emotion == labels[clip] else 0.8)
        truth.set_data(frames, intensity / max(intensity.max(), 1e-9))      # nothing where unknown
        ax.set_xlim(1, max(2, len(frames)))
        t = min(frame, len(frames))
        mark.set_xdata([t, t])
        answer = names[probabilities[t - 1].argmax()]
        put(picture, pictures[rows[t - 1]],
            f"frame {t}, true label: {labels[clip]}\nthe head says: {answer}")

    start = next((k for k, label in enumerate(labels) if label != "neutral"), 0)
    listed = [(f"{k + 1}: {label}", k) for k, label in enumerate(labels)]
    middle = 1 + len(groups[start]) // 2
    return Panel(fig, draw, {"clip": Control("clip", start, options=listed),
                             "frame": Control("frame", middle, 1, max(map(len, groups)))})
