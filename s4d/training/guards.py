"""Stop or warn where training goes wrong: unreadable samples, numbers, idle experts."""
from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from tqdm import tqdm

from ..config import Finetune, Pretrain
from ..models import MoAE
from .runs import RunError
from .setup import rank

EVERY, LEAST, PATIENCE = 10, 0.01, 500     # steps between looks; least share of tokens; steps
IN_A_ROW = 10                              # skipped steps after which a run stops all the same


def say(sentence: str) -> None:
    """Write a sentence of the main process to the error stream, beside a running bar."""
    if rank() == 0:
        tqdm.write(f"s4d: {sentence}", file=sys.stderr)


class Guard:
    """Look at every step of a run on so many samples; say each warning once."""

    saved = ("unreadable", "warned", "idle_since", "skipped")       # with each checkpoint

    def __init__(self, cfg: Pretrain | Finetune, samples: int):
        self.cfg, self.samples = cfg, samples
        self.unreadable: dict[str, str] = {}       # path -> cause
        self.warned: dict[str, str] = {}           # kind -> sentence
        self.idle_since: dict[str, int] = {}       # expert -> step since which it has no tokens
        self.skipped = self.in_a_row = 0

    def warn(self, kind: str, sentence: str) -> None:
        if kind not in self.warned:
            self.warned[kind] = sentence
            say(sentence)

    def media(self, unreadable: list[tuple[str, str]]) -> None:
        """Count unreadable samples, each once; raise RunError when they are too many."""
        self.unreadable.update(unreadable)
        if len(self.unreadable) > self.cfg.max_unreadable * self.samples:
            path, cause = next(iter(self.unreadable.items()))
            raise RunError(f"{len(self.unreadable)} of {self.samples} training samples are "
                           f"unreadable, more than max_unreadable={self.cfg.max_unreadable:g}; "
                           f"the first is {path} ({cause}): run `python -m s4d audit`, repair the "
                           "files or raise max_unreadable")

    def finite(self, loss: float, norm: float, place: str) -> bool:
        """Return whether both numbers are; raise RunError unless such steps are skipped."""
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.skipped += 1
        self.in_a_row += 1
        value = f"gradient norm is {norm}" if math.isfinite(loss) else f"loss is {loss}"
        if not self.cfg.skip_nonfinite or self.in_a_row > IN_A_ROW:
            raise RunError(f"{value} {place}: lower the learning rate or set clip_grad. "
                           f"skip_nonfinite=True passes over up to {IN_A_ROW} such steps in a row")
        self.warn("skipped", f"{value} {place}: skipped; provenance.json will count such steps")
        return False

    @contextmanager
    def experts(self, model: nn.Module, step: int) -> Iterator[None]:
        """Look at the gates of every tenth step; warn of an expert that is idle for long."""
        layers = {name: layer for name, layer in model.named_modules()
                  if step % EVERY == 0 and isinstance(layer, MoAE) and layer.top_k}
        for layer in layers.values():
            layer.record = []
        yield
        for name, layer in layers.items():
            gates, layer.record = layer.record, None           # one [B, L, E] a forward pass
            used = (gates[0] > 0).float().mean((0, 1)).tolist() if gates else []
            for expert, share in enumerate(used):
                key = f"{name} {expert}"
                if share >= LEAST * layer.top_k:
                    self.idle_since.pop(key, None)
                elif step - self.idle_since.setdefault(key, step) >= PATIENCE:
                    self.warn(name, f"expert {expert} of {name} has had under {LEAST:.0%} of the "
                                    f"tokens since step {self.idle_since[key]}: its router has "
                                    "collapsed; raise aux_loss_weight, or use fewer experts")
