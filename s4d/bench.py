"""How fast this machine is at what the project does most: `make bench`. Every row carries its baseline, measured in the same run."""
from __future__ import annotations

import platform
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch


def interleaved(work: dict[str, Callable[[], None]], seconds: float, device: torch.device) -> dict[str, float]:
    """Median seconds of one call of each function, called in turn so that a busy moment of the machine hits all alike.

    Args:
        work: name -> function; each is called once before the clock starts.
        seconds: to measure, for all of them together.
        device: is waited for around each call.
    """
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for call in work.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in work}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, taken.values())) < 3:
        for name, call in work.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(t)) for name, t in taken.items()}


def faces(seconds: float = 10.0, device: str = "cpu", batches: tuple[int, ...] = (16,)) -> pd.DataFrame:
    """Speed of the renderer: photos (every frame another person) and clips (one person), in batches, against one frame at a time.

    Args:
        seconds: to measure for each size.
        device: "cpu" (one thread: the speed of one core) or "cuda".
        batches: frames drawn together.
    Returns:
        task, pixels, batch, frames_per_second, ratio (to one frame at a time).
    """
    from .faces import facs, people, views
    from .faces.renderer import render
    place, rng, rows = torch.device(device), np.random.default_rng(0), []
    for pixels in (64, 160):
        work = {}
        for n in (1, *batches):
            actions = torch.from_numpy(np.stack([facs.draw(list(facs.PROTOTYPES)[k % 7], 1.0, rng) for k in range(n)])).to(place)
            scene, crowd = ({k: v.to(place) for k, v in drawn.items()} for drawn in (
                views(n, yaw=torch.from_numpy(rng.normal(0, 4, n)), zoom=1.45), people(n, seed=1)))
            one = {k: v[:1].expand(n, *v.shape[1:]).contiguous() for k, v in crowd.items()}
            for task, who in (("photos", crowd), ("clips", one)):
                work[task, n] = lambda who=who, actions=actions, scene=scene: render(who, actions, scene, pixels)
        taken = interleaved(work, seconds, place)
        rows += [{"task": task, "pixels": pixels, "batch": n, "frames_per_second": n / taken[task, n],
                  "ratio": n / taken[task, n] * taken[task, 1]} for task, n in work if n > 1]
    return pd.DataFrame(rows)


def machine(device: str) -> str:
    """The device in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    named = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")] if platform.system() == "Linux" else []
    return f"one thread of {named[0] if named else platform.processor() or platform.machine()}"


def main(device: str, seconds: float) -> None:
    """Prints every table."""
    print(f"faces, {machine(device)}, torch {torch.__version__}; frames/s, and the ratio to drawing one frame at a time")
    table = faces(seconds, device, (16,) if device == "cpu" else (64, 256, 1024))
    print(table.round({"frames_per_second": 0, "ratio": 1}).to_string(index=False))
