"""Stop or warn where training goes wrong: numbers, unreadable samples, idle experts, rare classes.
"""
from __future__ import annotations

import math
import statistics
from collections import Counter, deque

from torch import Tensor, nn

from ..emotions import vocabulary
from ..models import MoAE
from .runs import RunError

HISTORY, TIMES = 50, 100.0             # a norm is compared with the median of so many steps
EVERY, LOW, LONG = 10, 0.01, 500       # steps between looks at a router; too low a share; how long
IN_A_ROW = 10                          # skipped steps after which a run stops all the same


class Guard:
    """Look at every step; say each warning once in a run.

    Args:
        name: of the run.
        samples: that the run trains on.
        max_unreadable: largest share of them that may be unreadable.
        skip: pass over steps whose loss or gradient is not finite, instead of stopping.
        say: is given a sentence.
    """

    def __init__(self, name: str, samples: int, max_unreadable: float, skip: bool, say):
        self.name, self.samples, self.max_unreadable = name, samples, max_unreadable
        self.skip, self.say = skip, say
        self.unreadable: dict[str, str] = {}       # path -> cause
        self.warned: dict[str, str] = {}           # kind -> sentence
        self.unused: dict[str, int] = {}           # expert -> step since which it has no tokens
        self.skipped = self.in_a_row = 0
        self.norms = deque(maxlen=HISTORY)

    def state_dict(self) -> dict:
        """Return what a resumed run must know."""
        return {k: getattr(self, k) for k in ("unreadable", "warned", "unused", "skipped")}

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state)

    def once(self, kind: str, sentence: str) -> None:
        if kind not in self.warned:
            self.warned[kind] = sentence
            self.say(sentence)

    def media(self, unreadable: list[tuple[str, str]]) -> None:
        """Count unreadable samples, each once; raise RunError when they are too many."""
        self.unreadable.update(dict(unreadable))
        if len(self.unreadable) > self.max_unreadable * self.samples:
            path, cause = next(iter(self.unreadable.items()))
            raise RunError(f"{len(self.unreadable)} of {self.samples} training samples are "
                           f"unreadable, more than max_unreadable={self.max_unreadable:g}; the "
                           f"first is {path} ({cause}): run `python -m s4d audit`, repair the "
                           "files or raise max_unreadable")

    def numbers(self, loss: float, norm: float, step: int, paths, saved: int | None) -> bool:
        """Return whether the optimizer may take the step.

        Args:
            norm: of all gradients, before clipping.
            paths: function that gives the paths of the batch.
            saved: step of the last checkpoint, None before the first.
        Raises:
            RunError: for a loss or gradient that is not finite, unless such steps are skipped.
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
        value = f"gradient norm is {norm} (loss {loss:.4g})"
        if not math.isfinite(loss):
            value = f"loss is {loss}"
        last = "no checkpoint yet" if saved is None else f"the last checkpoint is of step {saved}"
        sentence = f"{value} at step {step} of {self.name}, with samples {', '.join(paths()[:4])}"
        if not self.skip or self.in_a_row > IN_A_ROW:
            raise RunError(f"{sentence}: lower the learning rate or set clip_grad; {last}. "
                           f"skip_nonfinite=True passes over up to {IN_A_ROW} such steps in a row")
        self.once("skipped", f"{sentence}: skipped; provenance.json will count such steps")
        return False

    def listen(self, model: nn.Module, step: int) -> None:
        """Have the routers keep the gates of the coming step, now and then."""
        for layer in model.modules():
            if isinstance(layer, MoAE) and layer.top_k:
                layer.record = [] if step % EVERY == 0 else None

    def routers(self, model: nn.Module, step: int) -> None:
        """Warn of an expert that has had almost no tokens for long."""
        for name, layer in model.named_modules():
            if not isinstance(layer, MoAE) or not layer.record:
                continue
            shares = (layer.record[0] > 0).float().mean((0, 1)) / layer.top_k
            layer.record = None
            for e, share in enumerate(shares.tolist()):
                key = f"{name} {e}"
                if share >= LOW:
                    self.unused.pop(key, None)
                elif step - self.unused.setdefault(key, step) >= LONG:
                    self.once(name, f"expert {e} of {name} has had under {LOW:.0%} of the tokens "
                                    f"since step {self.unused[key]}: its router has collapsed; "
                                    "raise aux_loss_weight, or use fewer experts")

    def classes(self, task: str, labels: list[int], num_classes: int) -> None:
        """Warn of classes without a training sample."""
        counts, names = Counter(labels), vocabulary(num_classes)
        absent = [name for k, name in enumerate(names) if not counts[k]]
        if absent:
            self.once(f"classes {task}", f"no {task} training sample shows {', '.join(absent)}: "
                                         "check the labels with `python -m s4d audit`")


def gradient_norm(model: nn.Module, limit: float) -> Tensor:
    """Return the norm of all gradients; scale them down to `limit` where it is above 0."""
    if limit:
        return nn.utils.clip_grad_norm_(model.parameters(), limit)
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
