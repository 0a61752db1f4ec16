"""Tell how far a long work is: a bar on a terminal, elsewhere a plain line a minute."""
from __future__ import annotations

import sys
import time

from tqdm import tqdm


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}" if minutes >= 60 else f"{minutes}:{s:02d}"


def say(sentence: str) -> None:
    """Write a sentence to the error stream, beside a running bar."""
    tqdm.write(f"s4d: {sentence}", file=sys.stderr)


class Progress:
    """Show how many of `total` units are done, what they show, and the time left.

    Args:
        done: units of earlier calls; the rate counts only what comes after.
        every: seconds between two lines where the error stream is no terminal.
    """

    quiet = False                        # set in worker processes, whose parent shows the progress

    def __init__(self, name: str, total: float, done: float = 0, unit: str = "step",
                 every: float = 60.0, quiet: bool = False):
        self.name, self.unit, self.every, self.shown = name, unit, every, {}
        self.total, self.first, self.done = total, done, done
        self.started = self.said = time.monotonic()
        self.quiet = quiet or Progress.quiet
        terminal = sys.stderr.isatty() and not self.quiet
        self.bar = tqdm(total=total, initial=done, desc=name, unit=unit) if terminal else None

    def update(self, count: float = 1, **shown: str) -> None:
        """Count units as done; `shown` replaces what is shown beside the count."""
        self.done += count
        self.shown |= shown
        text = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in sorted(self.shown.items()))
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(count)
        elif not self.quiet and time.monotonic() - self.said >= self.every:
            self.said = time.monotonic()
            gone = self.said - self.started
            rate = (self.done - self.first) / gone if gone else 0.0
            left = clock((self.total - self.done) / rate) if rate else "unknown"
            line = f"s4d: {self.name}: {self.done:.0f} of {self.total:.0f} {self.unit}s"
            line += f", {clock(gone)} gone, {left} left"
            print("; ".join([line, text] if text else [line]), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
