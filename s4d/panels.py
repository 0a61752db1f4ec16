"""Panels for JupyterLab: controls, and a picture that a trained model of the run store draws anew at every move.

A panel finds its runs by the profile and never trains. Where nobody sits at the notebook (papermill, nbconvert), only its picture
is shown. Faces are drawn on the spot; a model that was trained on licensed data has not seen such faces.
"""
from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import Image, display

from . import config as configs
from .study import routing, stimuli
from .data import DatasetError
from .data.transforms import normalise
from .emotions import EMOTIONS, vocabulary
from .faces import facs, people, render, views
from .faces.portrait import SLIDERS, portrait
from .faces.renderer import one_thread
from .models import random_mask
from .models.tokens import TUBELET_SIZE, removed_tokens
from .plots import panels as boards
from .study.figures.style import METHOD_LABELS
from .study.figures.pretraining import covered
from .training import locate
from .training.runs import Run

STRENGTH = 1.2                                     # of a prototype's actions, as in the corpora's photos
RISE = (0.0, 0.35, 0.8, 1.0)                       # of an expression in the first half of a clip; the second half mirrors it


class PanelError(RuntimeError):
    """A panel lacks what it shows; the message says what to do first."""


def attended() -> bool:
    """Whether somebody sits at the notebook: batch runs say in every request that nobody can be asked for input."""
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high`; whole ones where `step` is whole."""

    label: str
    value: float
    low: float
    high: float
    step: float = 1

    def widget(self, **look):
        kind = widgets.FloatSlider if isinstance(self.step, float) else widgets.IntSlider
        return kind(self.value, min=self.low, max=self.high, step=self.step, description=self.label, **look)


@dataclass(frozen=True)
class Choice:
    """One of several options, or of (label, option) pairs."""

    label: str
    value: object
    options: Sequence

    def widget(self, **look):
        return widgets.Dropdown(options=self.options, value=self.value, description=self.label, **look)


class Panel:
    """Controls beside a picture that follows them. Widgets are made only to be shown, so that a batch run leaves none in a notebook.

    Args:
        draw: called with the value of each control by name; returns PNG bytes.
        controls: name -> Slider or Choice.
        presets: name of a control -> function of its value that gives values of others.
        width: of the picture, px.
    """

    def __init__(self, draw: Callable[..., bytes], controls: dict[str, Slider | Choice], presets: dict[str, Callable] | None = None,
                 width: int = 780):
        self.draw, self.controls, self.presets, self.width = draw, controls, presets or {}, width

    def png(self, **changed) -> bytes:
        """The picture at the controls' first values, but for those that are given. A single sample keeps one thread busy: more would
        only wait for each other."""
        with one_thread():
            return self.draw(**{name: control.value for name, control in self.controls.items()} | changed)

    def box(self) -> widgets.VBox:
        """Controls in rows above the picture."""
        look = {"style": {"description_width": "140px"}, "layout": widgets.Layout(width="345px")}
        made = {name: control.widget(**look) for name, control in self.controls.items()}
        view, busy = widgets.Image(format="png", width=self.width), []

        def moved(change) -> None:
            if busy:                                      # a preset moves several, and draws once
                return
            busy.append(True)
            try:
                name = next((n for n, w in made.items() if w is change["owner"]), None)
                for other, value in self.presets.get(name, lambda _: {})(change["new"]).items():
                    made[other].value = value
                view.value = self.png(**{n: w.value for n, w in made.items()})
            finally:
                busy.clear()                              # a picture that fails must not freeze the controls

        for widget in made.values():
            widget.observe(moved, "value")
        view.value = self.png()
        return widgets.VBox([widgets.Box(list(made.values()), layout=widgets.Layout(flex_flow="row wrap")), view])

    def _ipython_display_(self) -> None:
        display(self.box() if attended() else Image(self.png(), format="png"))


def found(prof: configs.Profile, method: str | None = None, seed: int | None = None) -> tuple[Run, configs.Pretrain | configs.Finetune]:
    """The finished run of a profile's pre-training, or of one of its pre-trained methods, and its configuration with the data where they are now.

    Args:
        method: a key of `configs.METHODS`; None is the pre-training.
        seed: of the method; None is the profile's first.
    Raises:
        PanelError: when the profile has no such run, or it is not trained yet.
    """
    seed = prof.seeds[0] if seed is None else seed
    grid = {(m, s): cfg for m, pretrained, s, cfg in prof.methods_grid() if pretrained}
    name = "pre-training" if method is None else f"run of {METHOD_LABELS.get(method, method)}, seed {seed}"
    cfg = prof.pretrain if method is None else grid.get((method, seed))
    if cfg is None:
        raise PanelError(f"profile {prof.name} has no {name}: it has the methods {', '.join(prof.methods)} with seeds "
                         f"{', '.join(map(str, prof.seeds))}")
    remedy = f"execute this notebook's cells above, or `python -m s4d reproduce --profile {prof.name}`, which make it"
    try:
        run = locate(cfg, prof.runs)
    except DatasetError as error:
        raise PanelError(f"the {name} of profile {prof.name} cannot be looked up without its data ({error}): {remedy}") from error
    if not run.done:
        raise PanelError(f"there is no finished {name} of profile {prof.name} in {prof.runs}: {remedy}")
    return run, cfg


@lru_cache(maxsize=8)
def _person(seed: int) -> dict:
    return people(1, seed=seed, glasses=0)


def _zoom(prof: configs.Profile) -> float:
    return (prof.faces or configs.Faces()).zoom


def face(prof: configs.Profile, person: int, actions: np.ndarray, size: int) -> torch.Tensor:
    """Frames of one person in the corpora's framing: actions `[T, 2, 23]` -> uint8 `[T, 3, size, size]`."""
    return render(_person(person), actions, views(1, zoom=_zoom(prof)), size)


def prototype(emotion: str) -> np.ndarray:
    """The actions of an emotion at their means, without chance, `[2, 23]`."""
    return facs.sheet(prototype_spec(emotion)).clip(0, 1)


def prototype_spec(emotion: str) -> dict[int, float]:
    """Action -> intensity of an emotion, without chance: those that more than half of the expressions have, and the first alternative."""
    own = {a: m for a, m, p in facs.PROTOTYPES[emotion] if p >= 0.5}
    return {a: min(1.0, STRENGTH * m) for a, m in (*own.items(), *facs.ALTERNATIVES.get(emotion, ())[:1])}


def course(actions: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A clip that rises to an expression and falls again, with few distinct frames, since drawing them takes most of the time.

    Returns:
        actions of the distinct frames `[N, 2, 23]`, the last the full expression; which of them each frame shows `[frames]`.
    """
    half = -(-frames // 2)
    levels = np.interp(np.linspace(1, 0, min(half, len(RISE)))[::-1], np.linspace(0, 1, len(RISE)), RISE)
    rise = np.round(np.linspace(len(levels) - 1, 0, half)[::-1]).astype(int)
    return (levels[:, None, None] * actions).astype(np.float32), np.concatenate([rise, rise[::-1][frames % 2:]])


def actor(person: dict, start: dict[int, float] | None = None, size: int = 160) -> Panel:
    """One face, a slider for each action of the seven emotions, and the pose.

    Args:
        person: of `people`.
        start: action -> intensity at the beginning.
        size: pixels a side.
    """
    def draw(yaw: float, pitch: float, **levels: float) -> bytes:
        buffer = io.BytesIO()
        portrait(person, _spec(levels), yaw, pitch, size).save(buffer, "png")
        return buffer.getvalue()

    pose = {name: Slider(f"{name} (degrees)", 0.0, -35.0, 35.0, 5.0) for name in ("yaw", "pitch")}
    return Panel(draw, {**_actions(start or {}), **pose}, width=2 * size)


def _actions(start: dict[int, float]) -> dict:
    """A slider an action, under the name `action_<number>`."""
    return {f"action_{a}": Slider(f"{a} {facs.NAMES[a]}", start.get(a, 0.0), 0.0, 1.0, 0.05) for a in SLIDERS}


def _spec(levels: dict[str, float]) -> dict[int, float]:
    return {int(name.removeprefix("action_")): value for name, value in levels.items()}


def masking(prof: configs.Profile) -> Panel:
    """Masks a face and has the pre-trained autoencoder fill it in.

    Raises:
        PanelError: without a finished pre-training.
    """
    run, cfg = found(prof)
    model = run.load()
    side, board = model.encoder.side, boards.Masking(cfg.img_size)

    @torch.no_grad()
    def draw(removed: float, seed: int, person: int, emotion: str) -> bytes:
        picture = face(prof, person, prototype(emotion)[None], cfg.img_size)
        x = normalise(picture)
        mask = random_mask(1, side * side, removed, torch.Generator().manual_seed(seed))
        target = model.standardise(model.patchify(x))[0]
        truth, shown, errors = model.patchify(x), [], []
        for guess in (model.reconstruct(x, mask), torch.zeros_like(target)):
            filled = torch.where(mask.unsqueeze(-1), model.restore(guess, x), truth)
            shown.append(model.unpatchify(filled, (1, side, side))[0, :, 0])
            errors.append(float((guess - target)[mask].square().mean()))
        seen = covered(picture[0].numpy(), mask.view(side, side).numpy(), cfg.img_size // side)
        return board.update((picture[0], seen, *shown), removed_tokens(side * side, removed), side * side, tuple(errors))

    return Panel(draw, {"removed": Slider("share removed", cfg.image_mask_ratio, 0.1, 0.9, 0.05), "seed": Slider("seed of the mask", 1, 0, 50),
                        "person": Slider("person", 21, 0, 200), "emotion": Choice("emotion", "happiness", EMOTIONS)})


def heads(prof: configs.Profile, seed: int | None = None) -> Panel:
    """Facial actions by hand, and what the photo head and the clip head make of them: of the static-only network and of S4D.

    Args:
        seed: of the runs; None is the profile's first.
    Raises:
        PanelError: without the finished runs.
    """
    runs = {m: found(prof, m, seed) for m in ("static", "s4d")}
    models, cfg = {m: run.load() for m, (run, _) in runs.items()}, runs["s4d"][1]
    asked = (("static", "image", "photo"), ("s4d", "image", "photo"), ("s4d", "video", "clip"))
    names = [vocabulary(getattr(cfg, task).num_classes) for _, task, _ in asked]
    shared = [e for e in EMOTIONS if all(e in n for n in names)]
    columns = [[n.index(e) for e in shared] for n in names]
    board = boards.Heads(cfg.img_size, cfg.num_frames, [f"{METHOD_LABELS[m]}, {what}" for m, _, what in asked], shared)

    @torch.no_grad()
    def draw(prototype, person: int, **levels: float) -> bytes:
        distinct, which = course(facs.sheet(_spec(levels)), cfg.num_frames)
        pictures = face(prof, person, distinct, cfg.img_size)
        photo, clip = normalise(pictures[-1:]), normalise(pictures[which].transpose(0, 1)[None])
        found = [models[m](photo if task == "image" else clip)[0].softmax(-1).numpy()[keep] for (m, task, _), keep in zip(asked, columns)]
        return board.update(pictures[-1], pictures[which], found)

    preset = lambda emotion: {f"action_{a}": prototype_spec(emotion).get(a, 0.0) for a in SLIDERS}
    return Panel(draw, {"prototype": Choice("start from", "happiness", EMOTIONS), "person": Slider("person", 21, 0, 200),
                        **_actions(prototype_spec("happiness"))}, {"prototype": preset})


def experts(prof: configs.Profile, seed: int | None = None) -> Panel:
    """Lights the tokens of a face that ask one expert of S4D, as brightly as the expert's gate is open.

    Args:
        seed: of the run; None is the profile's first.
    Raises:
        PanelError: without the finished run.
    """
    run, cfg = found(prof, "s4d", seed)
    model = run.load()
    blocks, steps = list(model.moae_layers()), cfg.num_frames // TUBELET_SIZE
    board = boards.Experts(cfg.img_size, steps, cfg.num_experts)

    @lru_cache(maxsize=32)
    def routed(person: int, emotion: str, kind: str):
        distinct, which = course(prototype(emotion), cfg.num_frames)
        pictures = face(prof, person, distinct if kind == "clip" else distinct[-1:], cfg.img_size)
        if kind == "photo":
            return pictures, routing.routes_of(model, pictures)
        clip = pictures[which]
        return clip[::TUBELET_SIZE], routing.routes_of(model, clip.transpose(0, 1)[None])

    _, start = routed(21, "happiness", "photo")
    busiest = int(start[blocks[-1]][0].mean(0).argmax()) + 1

    def draw(kind: str, block: int, expert: int, person: int, emotion: str) -> bytes:
        pictures, routes = routed(person, emotion, kind)
        gates = routes[block][0].numpy()                                        # [L, E]
        of_one = gates[:, expert - 1].reshape(len(pictures), model.side, model.side)
        led = np.bincount(gates.argmax(-1), minlength=cfg.num_experts) / len(gates)
        return board.update(pictures, of_one, expert, led)

    return Panel(draw, {"kind": Choice("shown as", "photo", ("photo", "clip")),
                        "block": Choice("block", blocks[-1], [(str(b + 1), b) for b in blocks]),
                        "expert": Slider("expert", busiest, 1, cfg.num_experts), "person": Slider("person", 21, 0, 200),
                        "emotion": Choice("emotion", "happiness", EMOTIONS)})


def scrub(prof: configs.Profile, method: str = "static", seed: int | None = None, clips: int = 20, folder=None) -> Panel:
    """Moves through a test clip, and shows what a photo head reads in each of its frames.

    Args:
        method: "static" or "s4d": whose photo head.
        seed: of the run; None is the profile's first.
        clips: test clips to choose from.
        folder: of the procedural corpus, for the true intensity; None leaves it out.
    Raises:
        PanelError: without the finished run.
        StimuliError: when no test clip can be read.
    """
    run, cfg = found(prof, method, seed)
    model = run.load()
    names, unreadable = vocabulary(cfg.image.num_classes), {}
    _, rows = stimuli.subset(cfg, "video", limit=clips, unreadable=unreadable)
    pictures, table = stimuli.frames_of(cfg, rows, unreadable=unreadable)
    table = stimuli.truth_of(folder, table)
    places = [list(group.index) for _, group in table.groupby("path", sort=False)]
    board = boards.Scrub(cfg.img_size, names)

    @lru_cache(maxsize=clips)
    def read(clip: int) -> np.ndarray:
        return stimuli.probabilities(model, pictures[torch.tensor(places[clip])], "image")

    def draw(clip: int, frame: int) -> bytes:
        at = places[clip]
        if clip != draw.shown:
            intensity = table.intensity.loc[at].to_numpy() if table.intensity.notna().any() else None
            board.clip(table.label.loc[at[0]], read(clip), intensity)
            draw.shown = clip
        t = min(frame, len(at)) - 1
        return board.update(pictures[at[t]], t)

    draw.shown = None
    longest = max(map(len, places))
    listed = [(f"{k + 1}: {table.label.loc[at[0]]}", k) for k, at in enumerate(places)]
    start = next((k for k, at in enumerate(places) if table.label.loc[at[0]] != "neutral"), 0)
    return Panel(draw, {"clip": Choice("clip", start, listed), "frame": Slider("frame", 1 + len(places[start]) // 2, 1, longest)})
