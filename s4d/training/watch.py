"""Numbers that go wrong: losses and gradients that are no numbers, exploding norms, experts and classes that nobody uses."""
from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from ..emotions import vocabulary
from ..models import MoAE
from .runs import RunError


class MediaGuard:
    """Counts unreadable training samples, each once, and stops a run that meets too many."""

    def __init__(self, samples: int, limit: float, bad: dict[str, str] | None = None):
        self.samples, self.limit, self.bad = samples, limit, dict(bad or {})

    def see(self, bad: list[tuple[str, str]]) -> None:
        """Raises RunError when more than the configured share of the samples is unreadable."""
        self.bad.update(dict(bad))
        if len(self.bad) > self.limit * self.samples:
            path, cause = next(iter(self.bad.items()))
            raise RunError(f"{len(self.bad)} of {self.samples} training samples are unreadable, more than max_bad={self.limit:g}; the "
                           f"first is {path} ({cause}): run `python -m s4d audit`, repair the files or raise max_bad")


class Watch:
    """Looks at every step's numbers; says each warning once in a run.

    Args:
        say: is given a sentence.
        said: sentences of earlier calls, by their kind.
        skipped: steps passed over so far.
        unused: experts without tokens, and since which step.
        skip: pass over steps whose numbers are none, instead of stopping.
    """

    HISTORY, TIMES = 50, 100.0             # steps whose median a norm is compared with, and how often it must exceed it
    EVERY, LOW, LONG = 10, 0.01, 500       # steps between two looks at the routers; the share that is too low; for how many steps
    IN_A_ROW = 10                          # skipped steps after which a run stops all the same

    def __init__(self, say, said: dict[str, str] | None = None, skipped: int = 0, unused: dict[str, int] | None = None,
                 skip: bool = False):
        self.say, self.said, self.skipped, self.unused, self.skip = say, dict(said or {}), skipped, dict(unused or {}), skip
        self.norms, self.row = deque(maxlen=self.HISTORY), 0

    def once(self, kind: str, sentence: str) -> None:
        if kind not in self.said:
            self.said[kind] = sentence
            self.say(sentence)

    def step(self, loss: float, norm: float, step: int, run: Path, samples: Callable[[], list[str]], state: int | None) -> bool:
        """Whether the optimizer may take the step.

        Args:
            loss: of the whole batch.
            norm: of all gradients, before clipping.
            samples: gives the paths of the batch.
            state: step of the last state, None before the first.
        Raises:
            RunError: for a loss or gradient that is no number, unless such steps are to be skipped.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            self.row = 0
            usual = statistics.median(self.norms) if len(self.norms) == self.HISTORY else math.inf
            if norm > self.TIMES * usual:
                self.once("norm", f"gradient norm {norm:.3g} at step {step} of {run.name} is {norm / usual:.0f} times "
                                  "its median: lower the learning rate, lengthen warmup or set clip_grad, if the loss rises")
            self.norms.append(norm)
            return True
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm} (loss {loss:.4g})"
        paths = samples()
        named = ", ".join(paths[:4]) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
        good = "no state was saved yet" if state is None else f"the last good state is that of step {state}"
        sentence = f"{what} at step {step} of {run.name}, with samples {named}"
        remedy = f"lower the learning rate or clip gradients; {good}"
        self.skipped, self.row = self.skipped + 1, self.row + 1
        if not self.skip or self.row > self.IN_A_ROW:
            many = f", after {self.row - 1} steps in a row that were skipped" if self.skip else ""
            raise RunError(f"{sentence}{many}: {remedy}, or pass over single such steps with skip_nonfinite=True")
        self.once("skipped", f"{sentence}: skipped, as skip_nonfinite asks; provenance.json will say how many were")
        return False

    def listen(self, model: nn.Module, step: int) -> None:
        """Before a step: has the routers keep their gates, now and then."""
        for layer in model.modules():
            if isinstance(layer, MoAE) and layer.top_k:
                layer.record = [] if step % self.EVERY == 0 else None

    def routers(self, model: nn.Module, step: int) -> None:
        """After a step: warns of an expert that has had almost no tokens for long."""
        for name, layer in model.named_modules():
            if not isinstance(layer, MoAE) or not layer.top_k or not layer.record:
                continue
            shares = (layer.record[0] > 0).float().mean((0, 1)) / layer.top_k
            layer.record = None
            for e, share in enumerate(shares.tolist()):
                key = f"{name} {e}"
                since = self.unused.setdefault(key, step) if share < self.LOW else self.unused.pop(key, None)
                if share < self.LOW and step - since >= self.LONG:
                    self.once(f"router {name}", f"expert {e} of {name} has had under {self.LOW:.0%} of the tokens since step {since}: its "
                                                "router has collapsed; raise balance, or use fewer experts")

    def classes(self, task: str, labels: list[int], classes: int, balanced: bool) -> None:
        """Before training: warns of classes without a sample, and of some that balancing would repeat very often."""
        counts = Counter(labels)
        names = vocabulary(classes)
        dead = [name for k, name in enumerate(names) if not counts[k]]
        if dead:
            self.once(f"dead {task}", f"no {task} training sample shows {', '.join(dead)}: its head cannot learn "
                                      f"{'it' if len(dead) == 1 else 'them'}; check the labels with `python -m s4d audit`, "
                                      "or choose a vocabulary without")
        most = max(counts.values())
        rare = [f"{names[k]} ({n})" for k, n in sorted(counts.items()) if most > 100 * n]
        if balanced and rare:
            self.once(f"rare {task}", f"balancing repeats each {task} sample of {', '.join(rare)} over a hundred times as often as "
                                      "the most frequent class's: it will be learned by heart; gather more, or set balanced=False")


def gradient_norm(model: nn.Module, limit: float) -> Tensor:
    """The norm of all gradients; scales them down to `limit` where it is above 0."""
    if limit:
        return nn.utils.clip_grad_norm_(model.parameters(), limit)
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
