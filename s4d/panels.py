"""Panels for JupyterLab: controls, and a figure that a trained model draws anew at every move.

A panel finds its runs by the profile and never trains. Models of licensed data have never seen
faces like those that are drawn here.
"""
from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from . import config as configs
from .data import DatasetError
from .data.transforms import normalise
from .emotions import EMOTIONS, vocabulary
from .faces import facs, render, subjects, views
from .models import random_mask
from .models.tokens import TUBELET_SIZE, removed_tokens
from .study import routing, stimuli
from .study.figures.panels import Control, Panel, put, strip
from .study.figures.pretraining import covered
from .study.figures.style import EMOTION_COLOURS, METHOD_COLOURS, METHOD_LABELS, PAGE, figure
from .training import locate

STRENGTH = 1.2                          # of a prototype's actions, as in the corpora's photos
RISE = (0.0, 0.35, 0.8, 1.0)            # of an expression in the first half of a clip
DIM, GREY = 0.25, "#BBBBBB"             # light left on a token that is not meant; other bars
# The actions that take part in one of the seven emotions: each prototype can be set by hand.
SLIDERS = tuple(sorted({a for e in EMOTIONS for a, *_ in (*facs.PROTOTYPES[e],
                                                          *facs.ALTERNATIVES.get(e, ()))}))


class PanelError(RuntimeError):
    """A panel lacks what it shows; the message says what to do first."""


def found(prof: configs.Profile, method: str | None = None):
    """Find a profile's finished pre-training, or a method's first run, and its configuration."""
    name, cfg = "pre-training", prof.pretrain
    if method is not None:
        name = f"run of {METHOD_LABELS[method]}"
        runs = [c for m, pretrained, _, c in prof.methods_grid() if m == method and pretrained]
        cfg = runs[0] if runs else None
    if cfg is None:
        raise PanelError(f"profile {prof.name} has no {name}: it has {', '.join(prof.methods)}")
    try:
        run = locate(cfg, prof.runs)
        missing = None if run.done else f"no finished run in {prof.runs}"
    except DatasetError as error:
        missing = f"its data are not here: {error}"
    if missing:
        raise PanelError(f"the {name} of profile {prof.name} cannot be shown ({missing}): execute "
                         "this notebook's cells above, or `python -m s4d reproduce --profile "
                         f"{prof.name}`, which make it")
    return run, cfg


def face(prof: configs.Profile, subject: int, actions: np.ndarray, img_size: int) -> torch.Tensor:
    """Draw frames of one subject in the corpora's framing: `[T, 2, 23]` -> uint8 `[T, 3, H, W]`."""
    zoom = (prof.faces or configs.Faces()).zoom
    return render(subjects(1, seed=subject, glasses=0), actions, views(1, zoom=zoom), img_size)


def prototype(emotion: str) -> dict[int, float]:
    """Action -> intensity of an emotion without chance: those that half of the expressions have."""
    usual = [(a, m) for a, m, p in facs.PROTOTYPES[emotion] if p >= 0.5]
    usual += facs.ALTERNATIVES.get(emotion, ())[:1]
    return {a: min(1.0, STRENGTH * m) for a, m in usual}


def course(actions: np.ndarray, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Let an expression rise and fall in few distinct frames, since drawing takes most of the time.

    Returns actions of the distinct frames `[N, 2, 23]`, the last the full expression, and which of
    them each frame shows `[num_frames]`.
    """
    half = -(-num_frames // 2)
    places = np.linspace(1, 0, min(half, len(RISE)))[::-1]
    levels = np.interp(places, np.linspace(0, 1, len(RISE)), RISE)
    rise = np.round(np.linspace(len(levels) - 1, 0, half)[::-1]).astype(int)
    which = np.concatenate([rise, rise[::-1][num_frames % 2:]])
    return (levels[:, None, None] * actions).astype(np.float32), which


def sliders(start: dict[int, float]) -> dict[str, Control]:
    """A slider an action, under the name `action_<number>`."""
    return {f"action_{a}": Control(f"{a} {facs.NAMES[a]}", start.get(a, 0.0), 0.0, 1.0, 0.05)
            for a in SLIDERS}


def by_hand(levels: dict[str, float]) -> np.ndarray:
    """The values of `sliders` as actions `[2, 23]`."""
    return facs.sheet({int(name.removeprefix("action_")): v for name, v in levels.items()})


SUBJECT = {"subject": Control("subject", 21)}
EMOTION = {"emotion": Control("emotion", "happiness", options=EMOTIONS)}


def actor(subject: dict, start: dict[int, float] | None = None, img_size: int = 160) -> Panel:
    """Move one of `faces.subjects` by hand, from the actions of `start`: actions and pose."""
    fig, ax = figure(2.9, 2.9)

    def draw(yaw: float, pitch: float, **levels: float) -> None:
        put(ax, render(subject, by_hand(levels)[None], views(1, yaw, pitch), img_size)[0])

    pose = {name: Control(f"{name} (degrees)", 0.0, -35.0, 35.0, 5.0) for name in ("yaw", "pitch")}
    return Panel(fig, draw, sliders(start or {}) | pose)


def masking(prof: configs.Profile) -> Panel:
    """Mask a face and have the pre-trained autoencoder fill it in, beside each token's mean.

    Errors are in units of a token's variance.
    """
    run, cfg = found(prof)
    model = run.load()
    side = model.encoder.side
    fig, axes = figure(PAGE, 2.2, 1, 4)

    def draw(removed: float, seed: int, subject: int, emotion: str) -> None:
        picture = face(prof, subject, facs.sheet(prototype(emotion))[None], cfg.img_size)
        x = normalise(picture)
        mask = random_mask(1, side * side, removed, torch.Generator().manual_seed(seed))
        hidden = mask.view(side, side).numpy()
        visible = side * side - removed_tokens(side * side, removed)
        put(axes[0], picture[0], "the face\n ")
        put(axes[1], covered(picture[0].numpy(), hidden, cfg.img_size // side),
            f"what the encoder sees\n{visible} of {side * side} tokens")
        truth = model.patchify(x)
        target = model.standardise(truth)[0]
        guesses = {"filled in by the model": model.reconstruct(x, mask),
                   "each token's mean": torch.zeros_like(target)}
        for ax, (title, guess) in zip(axes[2:], guesses.items(), strict=True):
            filled = torch.where(mask.unsqueeze(-1), model.restore(guess, x), truth)
            error = float((guess - target)[mask].square().mean())
            pixels = model.unpatchify(filled, (1, side, side))[0, :, 0]
            put(ax, pixels, f"{title}\nerror {error:.2f}")

    share = Control("share removed", cfg.image_mask_ratio, 0.1, 0.9, 0.05)
    return Panel(fig, draw, {"removed": share, "seed": Control("seed of the mask", 1, 0, 50),
                             **SUBJECT, **EMOTION})


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
        distinct, which = course(by_hand(levels), cfg.num_frames)
        drawn = face(prof, subject, distinct, cfg.img_size)
        x = {"image": normalise(drawn[-1:]), "video": normalise(drawn[which].transpose(0, 1)[None])}
        titles = ("the photo", "the clip", *[""] * (cfg.num_frames - 1))
        for ax, pixels, title in zip(pictures, (drawn[-1], *drawn[which]), titles, strict=True):
            put(ax, pixels, title)
        for chart, (method, task) in zip(bars, asked, strict=True):
            read = models[method](x[task])[0].softmax(-1)
            for bar, emotion in zip(chart, shared, strict=True):
                bar.set_width(float(read[names[task].index(emotion)]))

    def preset(emotion: str) -> dict[str, float]:
        return {name: slider.value for name, slider in sliders(prototype(emotion)).items()}

    start = {"prototype": Control("start from", "happiness", options=EMOTIONS), **SUBJECT}
    return Panel(fig, draw, start | sliders(prototype("happiness")), prototype=preset)


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

    @lru_cache(maxsize=32)
    def routed(subject: int, emotion: str, kind: str):
        distinct, which = course(facs.sheet(prototype(emotion)), cfg.num_frames)
        if kind == "photo":
            pictures = face(prof, subject, distinct[-1:], cfg.img_size)
            return pictures, routing.routes_of(model, pictures)
        clip = face(prof, subject, distinct, cfg.img_size)[which]
        return clip[::TUBELET_SIZE], routing.routes_of(model, clip.transpose(0, 1)[None])

    def draw(kind: str, block: int, expert: int, subject: int, emotion: str) -> None:
        pictures, routes = routed(subject, emotion, kind)
        gates = routes[block][0].numpy()                                        # [L, E]
        of_one = gates[:, expert - 1].reshape(len(pictures), model.side, model.side)
        patch = np.ones((cfg.img_size // model.side,) * 2)
        for k, ax in enumerate(steps):
            ax.set_visible(k < len(pictures))                                   # a photo has one
        for ax, pixels, gate in zip(steps, pictures.numpy(), of_one, strict=False):
            light = np.kron(DIM + (1 - DIM) * gate, patch)
            asked = f"asked by {(gate > 0).sum()} of {gate.size} tokens"
            put(ax, (pixels * light).astype(np.uint8), asked)
        led = np.bincount(gates.argmax(-1), minlength=len(numbers)) / len(gates)
        for number, bar, share in zip(numbers, bars, led, strict=True):
            bar.set(height=100 * share, color=METHOD_COLOURS["s4d"] if number == expert else GREY)

    _, start = routed(21, "happiness", "photo")
    busiest = int(start[blocks[-1]][0].mean(0).argmax()) + 1
    listed = [(str(b + 1), b) for b in blocks]
    return Panel(fig, draw, {"kind": Control("shown as", "photo", options=("photo", "clip")),
                             "block": Control("block", blocks[-1], options=listed),
                             "expert": Control("expert", busiest, 1, len(numbers)),
                             **SUBJECT, **EMOTION})


def scrub(prof: configs.Profile, method: str = "static", clips: int = 20, folder=None) -> Panel:
    """Move through a test clip, and show what a method's photo head reads in each of its frames.

    `folder` is that of the procedural corpus, for the true intensity.
    """
    run, cfg = found(prof, method)
    model, names = run.load(), vocabulary(cfg.image.num_classes)
    _, rows = stimuli.subset(cfg, "video", limit=clips, unreadable={})
    pictures, table = stimuli.frames_of(cfg, rows, unreadable={})
    groups = [g for _, g in stimuli.truth_of(folder, table).groupby("path", sort=False)]
    labels = [g.label.iloc[0] for g in groups]
    fig, (picture, ax) = figure(PAGE, 2.4, 1, 2, width_ratios=[1, 2.4])
    lines = {e: ax.plot([], [], color=EMOTION_COLOURS[e], label=e)[0] for e in names}
    truth, = ax.plot([], [], color=GREY, lw=3, zorder=0, label="true intensity\n(largest: 1)")
    mark = ax.axvline(0, color="k", lw=0.8)
    ax.set(ylim=(0, 1.02), xlabel="frame", ylabel="probability by the photo head")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=6.5)

    @lru_cache(maxsize=clips)
    def read(clip: int) -> np.ndarray:
        return stimuli.probabilities(model, pictures[torch.tensor(groups[clip].index)], "image")

    def draw(clip: int, frame: int) -> None:
        probabilities, intensity = read(clip), groups[clip].intensity.to_numpy()
        frames = np.arange(1, len(probabilities) + 1)
        for (emotion, line), values in zip(lines.items(), probabilities.T, strict=True):
            line.set(data=(frames, values), linewidth=2.2 if emotion == labels[clip] else 0.8)
        truth.set_data(frames, intensity / max(intensity.max(), 1e-9))      # nothing where unknown
        ax.set_xlim(1, max(2, len(frames)))
        t = min(frame, len(frames))
        mark.set_xdata([t, t])
        answer = names[probabilities[t - 1].argmax()]
        put(picture, pictures[groups[clip].index[t - 1]],
            f"frame {t}, true label: {labels[clip]}\nthe head says: {answer}")

    start = next((k for k, label in enumerate(labels) if label != "neutral"), 0)
    listed = [(f"{k + 1}: {label}", k) for k, label in enumerate(labels)]
    middle = 1 + len(groups[start]) // 2
    return Panel(fig, draw, {"clip": Control("clip", start, options=listed),
                             "frame": Control("frame", middle, 1, max(map(len, groups)))})
