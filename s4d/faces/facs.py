"""Facial actions (FACS): the list, what each emotion is made of, and how an expression unfolds."""
import numpy as np

NAMES = {1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer", 5: "upper lid raiser",
         6: "cheek raiser", 7: "lid tightener", 9: "nose wrinkler", 10: "upper lip raiser",
         12: "lip corner puller", 14: "dimpler", 15: "lip corner depressor",
         16: "lower lip depressor", 17: "chin raiser", 18: "lip pucker", 20: "lip stretcher",
         22: "lip funneler", 23: "lip tightener", 24: "lip pressor", 25: "lips part",
         26: "jaw drop", 27: "mouth stretch", 28: "lip suck", 43: "eyes closed"}
ACTIONS = tuple(NAMES)
INDEX = {a: i for i, a in enumerate(ACTIONS)}
MOUTH = (10, 12, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28)
SPEECH = (25, 26, 18, 22, 20, 16, 24, 10)         # what talking moves, whatever is felt

# Emotion -> (action, mean intensity 0..1, probability that it takes part). EMFACS (Ekman and
# Friesen 1978) and Du, Tao and Martinez (PNAS 2014). None is published for anxiety, helplessness or
# disappointment: those three are conventions of this project, made to overlap fear and sadness.
PROTOTYPES = {
    "neutral": ((25, .25, .10),),
    "happiness": ((12, .8, 1), (6, .6, 1), (25, .5, .8), (7, .3, 1), (26, .3, .3)),
    "sadness": ((1, .7, .75), (4, .5, 1), (15, .6, 1), (17, .5, .65)),
    "surprise": ((1, .8, 1), (2, .8, 1), (5, .6, .7), (25, .6, 1), (26, .6, 1)),
    "fear": ((1, .7, 1), (4, .5, 1), (20, .6, 1), (25, .6, 1), (5, .8, .65), (2, .5, .6),
             (26, .4, .35)),
    "disgust": ((9, .7, 1), (10, .7, 1), (17, .5, 1), (4, .4, .35), (7, .4, 1), (15, .3, 1)),
    "anger": ((4, .85, 1), (7, .6, 1), (5, .4, .4), (17, .4, .5), (10, .4, .25), (25, .4, .25)),
    "contempt": ((14, .7, 1), (12, .4, 1)),
    "anxiety": ((1, .6, 1), (4, .4, 1), (20, .4, .7), (24, .4, .4), (5, .4, .5)),
    "helplessness": ((1, .7, 1), (4, .4, .7), (15, .4, .8), (25, .3, .5)),
    "disappointment": ((15, .5, 1), (14, .4, .6), (17, .4, .6), (1, .4, .5))}
ALTERNATIVES = {"anger": ((23, .6), (24, .6))}     # one of them, at random
ONE_SIDED = ("contempt",)

# Median seconds of onset, apex and offset (log-normal), from the literature on facial dynamics.
TIMING = {"surprise": (.25, .40, .50), "fear": (.35, .70, .70), "disgust": (.40, .70, .70),
          "anger": (.45, 1.0, .90), "happiness": (.55, 1.0, .90), "contempt": (.50, .80, .70),
          "sadness": (.90, 1.5, 1.2), "neutral": (.50, 1.0, .90), "anxiety": (.45, .80, .80),
          "helplessness": (.80, 1.2, 1.0), "disappointment": (.70, 1.0, 1.0)}
SPREAD = .35              # standard deviation of the logarithm of a duration
JITTER = .15              # standard deviation of an action's intensity about its mean
REST = .08                # largest intensity of an action that takes no part
BLEND = .40               # share of expressions with a trace of a second emotion
BLEND_RANGE = (.30, .80)  # how strong it is
EARLY = (5, 7, 9)         # actions that lead
FLUTTER = .06             # standard deviation of an action's slow fluctuation about its course
# What an emotion is mistaken for most easily, by annotators and by the procedural faces alike.
NEIGHBOUR = {"neutral": "sadness", "happiness": "neutral", "sadness": "neutral",
             "surprise": "fear", "fear": "surprise", "disgust": "anger", "anger": "disgust",
             "contempt": "neutral", "anxiety": "fear", "helplessness": "sadness",
             "disappointment": "sadness"}
# Emotions that turn into each other; the label is the one that the clip ends in.
TURNS = {"surprise": "happiness", "happiness": "surprise", "fear": "sadness", "sadness": "fear",
         "disgust": "anger", "anger": "disgust"}


def draw(emotion: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the actions at an apex, left and right `[2, 23]` in the order of ACTIONS."""
    out = np.repeat(rng.uniform(0, REST, len(ACTIONS))[None], 2, axis=0)
    out[:, [INDEX[a] for a in (25, 26, 27, 43)]] *= .25      # closed lips and open eyes at rest
    _add(out, emotion, strength, rng)
    if emotion != "neutral" and rng.random() < BLEND:
        others = [e for e in list(PROTOTYPES)[1:7] if e != emotion]
        _add(out, others[rng.integers(len(others))], strength * rng.uniform(*BLEND_RANGE), rng)
    out *= 1 + rng.uniform(-.1, .1, (2, 1))
    return out.clip(0, 1).astype(np.float32)


def _add(out: np.ndarray, emotion: str, strength: float, rng: np.random.Generator) -> None:
    """Raise the actions of an emotion in place; an action that is already stronger stays."""
    taking_part = [(a, m) for a, m, p in PROTOTYPES[emotion] if rng.random() < p]
    if choices := ALTERNATIVES.get(emotion):
        taking_part.append(choices[rng.integers(len(choices))])
    sides = [int(rng.random() >= .5)] if emotion in ONE_SIDED else [0, 1]
    for action, mean in taking_part:
        level = strength * (mean + JITTER * rng.standard_normal())
        out[sides, INDEX[action]] = np.maximum(out[sides, INDEX[action]], level)


def sheet(spec: dict, level: float = 1.0) -> np.ndarray:
    """Write down actions by hand `[2, 23]`: {12: .8} for both sides, {(14, "left"): .7} for one."""
    out = np.zeros((2, len(ACTIONS)), np.float32)
    sides = {"left": 0, "right": 1, "both": slice(None)}
    for key, value in spec.items():
        action, side = key if isinstance(key, tuple) else (key, "both")
        if action not in INDEX:
            raise KeyError(f"unknown action {action}: choose one of {', '.join(map(str, ACTIONS))}")
        out[sides[side], INDEX[action]] = value * level
    return out


def ramp(x: np.ndarray) -> np.ndarray:
    """The minimum-jerk transition from 0 (x <= 0) to 1 (x >= 1)."""
    x = np.clip(x, 0, 1)
    return x * x * x * (10 - 15 * x + 6 * x * x)


def perform(emotion: str, strength: float, num_frames: int, fps: float, rng: np.random.Generator,
            talk: bool = False, before: str | None = None, life: float = 1.0) -> dict:
    """Draw an expression in time: onset, apex, offset; blinks, fluctuations, talking if asked for.

    Args:
        talk: mouth actions of speech are added, unrelated to the emotion.
        before: an emotion that is shown first and turns into this one.
        life: 0 holds the apex from the first frame to the last, as a photo would .. 1 moves.
    Returns: actions float32 `[T, 2, 23]`; intensity `[T]`, 0 to strength; T phases; apex frame.
    """
    t, length = np.arange(num_frames) / fps, num_frames / fps
    peak = draw(emotion, strength, rng)
    if before is None:
        actions, level = _rise_and_fall(emotion, peak, t, length, life, rng)
    else:
        actions, level = turn(draw(before, strength, rng), peak, t, length,
                              length * rng.uniform(.45, .55))
    actions, level = peak + life * (actions - peak), 1 + life * (level - 1)
    if talk:
        quiet = actions * np.where(np.isin(ACTIONS, MOUTH), .85, 1)
        actions = np.maximum(quiet, speech(t, rng)[:, None])
    flutter = np.stack([wander(t, FLUTTER, rng) for _ in ACTIONS], 1)
    actions = actions * (1 + life * flutter[:, None])
    closed = np.zeros(num_frames)                            # 18 blinks a minute of 0.1 to 0.4 s
    for _ in range(rng.poisson(18 / 60 * (t[-1] + .2))):
        middle, lasts = rng.uniform(-.1, t[-1] + .1), rng.uniform(.1, .4)
        closed = np.maximum(closed, (1.4 - np.abs((t - middle) / (lasts / 2))).clip(0, 1))
    lids = actions[:, :, INDEX[43]]
    actions[:, :, INDEX[43]] = np.maximum(lids, life * closed[:, None])
    frames, held = np.arange(num_frames), np.flatnonzero(level > .95)     # apex: middle of plateau
    apex = int(held[len(held) // 2] if len(held) else np.argmax(level + 1e-9 * frames))
    still = (level < .05) | (emotion == "neutral")
    phase = np.select([still, level > .95, frames < apex], ["neutral", "apex", "onset"], "offset")
    return {"actions": actions.clip(0, 1).astype(np.float32), "phase": phase, "apex": apex,
            "intensity": level * strength * (emotion != "neutral")}


def _rise_and_fall(emotion: str, peak: np.ndarray, t: np.ndarray, length: float, life: float, rng):
    """Actions `[T, 2, 23]`, each and either side with a lag, and envelope `[T]`."""
    spread = np.exp(SPREAD * rng.standard_normal(3).clip(-2, 2))
    onset, hold, offset = np.array(TIMING[emotion]) * spread
    centre = length * (.5 + life * rng.uniform(-.45, .45))
    start = centre - hold / 2 - onset

    def envelope(lag):
        fall = ramp((t - start - lag - onset - hold) / offset) ** .85
        return ramp((t - start - lag) / onset) * (1 - fall)
    lags = rng.uniform(0, .15, len(ACTIONS))
    lags[[INDEX[a] for a in EARLY]] *= .2
    late = rng.uniform(-.03, .03)                            # of the right side
    sides = [np.stack([envelope(lag + extra) for lag in lags], 1) for extra in (0, late)]
    return np.stack(sides, 1) * peak, envelope(0)


def turn(first: np.ndarray, then: np.ndarray, t: np.ndarray, length: float, cross: float):
    """Turn one expression into another; backwards it is the turn of the second into the first.

    The clip of frames at t seconds `[T]` lasts `length`; both are equally strong at `cross`.
    Returns actions `[T, 2, 23]` and the envelope of the second `[T]`.
    """
    away = np.abs(t - (t[0] + t[-1]) / 2)
    outer = ramp((length / 2 - away) / (.2 * length))        # from neutral and back
    second = ramp((t - cross) / (.3 * length) + .5)
    new, old = (outer * second)[:, None, None], (outer * (1 - second))[:, None, None]
    return new * then + old * first, outer * second


def speech(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mouth actions of talking `[T, 23]`: three syllables a second, each with its mouth shape."""
    out = np.zeros((len(t), len(ACTIONS)))
    at = -rng.uniform(0, .3)
    while at < t[-1] + .3:
        width = rng.uniform(.10, .18)
        pulse = np.exp(-((t - at) / width) ** 2)
        shape = {25: rng.uniform(.4, .9), 26: rng.uniform(.1, .6),
                 SPEECH[rng.integers(2, len(SPEECH))]: rng.uniform(.2, .6)}
        for action, level in shape.items():
            out[:, INDEX[action]] = np.maximum(out[:, INDEX[action]], level * pulse)
        at += rng.uniform(.22, .45)
    return out


def wander(t: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """A slow, smooth course of about that standard deviation `[T]`: head motion, drifting gaze."""
    speed, phase = rng.uniform(.15, .7, 3), rng.uniform(0, 2 * np.pi, 3)
    return size * np.sqrt(2 / 3) * np.sin(2 * np.pi * speed * t[:, None] + phase).sum(1)
