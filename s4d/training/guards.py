"""Stop or warn where training goes wrong: numbers, unreadable samples, idle experts, classes."""
from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..emotions import vocabulary
from ..models import MoAE
from .runs import RunError

HISTORY, TIMES = 50, 100.0             # a norm is compared with the median of so many steps
EVERY, LOW, LONG = 10, 0.01, 500       # steps between looks at a router; too low a share; how long
IN_A_ROW = 10                          # skipped steps after which a run stops all the same


class Guard:
    """Look at every step of a run on so many samples; `say` each warning once."""

    def __init__(self, name: str, samples: int, max_unreadable: float, skip: bool, say):
        self.name, self.samples, self.max_unreadable = name, samples, max_unreadable
        self.skip, self.say = skip, say
        self.unreadable: dict[str, str] = {}       # path -> cause
        self.warned: dict[str, str] = {}           # kind -> sentence
        self.unused: dict[str, int] = {}           # expert -> step since which it has no tokens
        self.skipped = self.in_a_row = 0
        self.norms = deque(maxlen=HISTORY)

    def once(self, kind: str, sentence: str) -> None:
        if kind not in self.warned:
            self.warned[kind] = sentence
            self.say(sentence)

    def media(self, unreadable: list[tuple[str, str]]) -> None:
        """Count unreadable samples, each once; raise RunError when they are too many."""
        self.unreadable.update(unreadable)
        if len(self.unreadable) > self.max_unreadable * self.samples:
            path, cause = next(iter(self.unreadable.items()))
            raise RunError(f"{len(self.unreadable)} of {self.samples} training samples are "
                           f"unreadable, more than max_unreadable={self.max_unreadable:g}; the "
                           f"first is {path} ({cause}): run `python -m s4d audit`, repair the "
                           "files or raise max_unreadable")

    def numbers(self, loss: float, norm: float, step: int, paths: list[str],
                saved: int | None) -> bool:
        """Return whether the optimizer may take the step; raise RunError unless such are skipped.

        Args:
            norm: of all gradients, before clipping.
            paths: of the batch's first samples.
            saved: step of the last checkpoint.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            usual = statistics.median(self.norms) if len(self.norms) == HISTORY else math.inf
            if norm > TIMES * usual:
                self.once("norm", f"gradient norm {norm:.3g} at step {step} of {self.name} is "
                                  f"{norm / usual:.0f} times its median: lower the learning rate, "
                                  "lengthen warmup_ratio or set clip_grad, if the loss rises")
            self.norms.append(norm)
            return True
        self.skipped += 1
        self.in_a_row += 1
        value = f"loss is {loss}"
        if math.isfinite(loss):
            value = f"gradient norm is {norm} (loss {loss:.4g})"
        last = "no checkpoint yet" if saved is None else f"the last checkpoint is of step {saved}"
        sentence = f"{value} at step {step} of {self.name}, with samples {', '.join(paths)}"
        if not self.skip or self.in_a_row > IN_A_ROW:
            raise RunError(f"{sentence}: lower the learning rate or set clip_grad; {last}. "
                           f"skip_nonfinite=True passes over up to {IN_A_ROW} such steps in a row")
        self.once("skipped", f"{sentence}: skipped; provenance.json will count such steps")
        return False

    @contextmanager
    def routers(self, model: nn.Module, step: int) -> Iterator[None]:
        """Look at the gates of a step, now and then; warn of an expert idle for long."""
        layers = [(name, layer) for name, layer in model.named_modules()
                  if step % EVERY == 0 and isinstance(layer, MoAE) and layer.top_k]
        for _, layer in layers:
            layer.record = []
        yield
        for name, layer in layers:
            gates, layer.record = layer.record, None
            shares = (gates[0] > 0).float().mean((0, 1)) / layer.top_k if gates else None
            for e, share in enumerate([] if shares is None else shares.tolist()):
                key = f"{name} {e}"
                if share >= LOW:
                    self.unused.pop(key, None)
                elif step - self.unused.setdefault(key, step) >= LONG:
                    self.once(name, f"expert {e} of {name} has had under {LOW:.0%} of the tokens "
                                    f"since step {self.unused[key]}: its router has collapsed; "
                                    "raise aux_loss_weight, or use fewer experts")

    def classes(self, task: str, labels: list[int], num_classes: int) -> None:
        """Warn of classes without a training sample."""
        absent = [n for k, n in enumerate(vocabulary(num_classes)) if k not in labels]
        if absent:
            self.once(f"classes {task}", f"no {task} training sample shows {', '.join(absent)}: "
                                         "check the labels with `python -m s4d audit`")
