"""How fast this machine is: `make bench`. Every row carries its baseline, measured beside it."""
from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cost import cost, saved_bytes
from .models import DECODERS, S4D, VARIANTS, DualMAE, checkpoints, reference
from .models.tokens import random_mask, removed_tokens
from .training.runs import device_name

STAGES = ("dense", "MoAE", "pre-training")
RATIO = {"image": 0.9, "video": 0.95}                             # of pre-training's masks
BATCH = {"cpu": {"image": 8, "video": 1}, "cuda": {"image": 64, "video": 8}}
CURVE = (1, 2, 4, 8, 16, 32, 64, 128)                             # clips a step
SHAPES = ((400, 384, 1536), (1024, 1024, 1024), (800, 768, 3072), (800, 3072, 768),
          (8192, 768, 3072), (8192, 4096, 4096))                  # m, k, n of matrix products


def interleaved(work: dict, seconds: float, device: str, least: int = 3,
                pick: Callable = min) -> dict:
    """Seconds of one call of each function, in turn: a busy moment of the machine hits all alike.

    Args:
        work: name -> function; each is called once before the clock starts.
        seconds: to measure, for all of them together, or until each had `least` calls.
        pick: of a function's calls; `min` asks what the machine does undisturbed.
    """
    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for call in work.values():
        call()
    taken: dict = {name: [] for name in work}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, taken.values())) < least:
        for name, call in work.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            taken[name].append(time.perf_counter() - start)
    return {name: float(pick(t)) for name, t in taken.items()}


def faces(seconds: float, device: str) -> pd.DataFrame:
    """Frames that the renderer draws a second, in batches against one at a time (`ratio`)."""
    from .faces import facs, render, subjects, views
    rng, rows, emotions = np.random.default_rng(0), [], list(facs.PROTOTYPES)[:7]
    for pixels in (64, 160):
        work = {}
        for n in (1, 16) if device == "cpu" else (1, 64, 256, 1024):
            drawn = np.stack([facs.draw(emotions[k % 7], 1.0, rng) for k in range(n)])
            scene = views(n, yaw=torch.from_numpy(rng.normal(0, 4, n)), zoom=1.45)
            crowd, scene = ({k: v.to(device) for k, v in group.items()}
                            for group in (subjects(n, seed=1), scene))
            one = {k: v[:1].expand(n, *v.shape[1:]).contiguous() for k, v in crowd.items()}
            for task, who in (("photos", crowd), ("clips", one)):
                acts = torch.from_numpy(drawn).to(device)
                work[task, n] = partial(render, who, acts, scene, pixels)
        taken = interleaved(work, seconds, device, pick=np.median)
        rows += [{"task": task, "pixels": pixels, "batch": n, "frames_per_second": n / time_of,
                  "ratio": n / time_of * taken[task, 1]}
                 for (task, n), time_of in taken.items() if n > 1]
    return pd.DataFrame(rows)


def matmul_rate(device: str, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """The machine's own rate of matrix products, FLOP/s: the best call over a few shapes."""
    shapes, repeats = (SHAPES, 10) if device == "cuda" else (SHAPES[:4], 1)

    def product(a: Tensor, b: Tensor) -> None:
        for _ in range(repeats):
            F.linear(a, b)

    work = {(m, k, n): partial(product, torch.randn(m, k, device=device, dtype=dtype),
                               torch.randn(n, k, device=device, dtype=dtype)) for m, k, n in shapes}
    taken = interleaved(work, seconds, device)
    return max(2 * repeats * math.prod(shape) / time_of for shape, time_of in taken.items())


def model_of(stage: str, size: str, plain: bool = False) -> nn.Module:
    """The model of a stage and a size, ours or the plain reference."""
    name = f"{size}_patch16_160"
    if stage == "pre-training":
        cls = reference.Autoencoder if plain else DualMAE
        return cls(**VARIANTS[name], **DECODERS[name])
    cls = reference.Classifier if plain else S4D
    model = cls(**VARIANTS[name], num_experts=8 if stage == "MoAE" else 0)
    for layer in model.layers() if plain else ():
        layer.noise = True                        # as ours in training
    return model


class Task:
    """One model on one random batch: a forward pass of inference, and a training step."""

    def __init__(self, model: nn.Module, size: str, task: str, batch: int, device: str, half: bool):
        spec = VARIANTS[f"{size}_patch16_160"]
        side, frames = spec["img_size"], (spec["num_frames"],) if task == "video" else ()
        tokens = (side // spec["patch_size"]) ** 2 * (spec["num_frames"] // 2 if frames else 1)
        self.model, self.device, self.half = model.to(device), device, half
        self.x = torch.randn(batch, 3, *frames, side, side).to(device)
        self.y = torch.randint(7, (batch,)).to(device)
        self.mask = [random_mask(batch, tokens, RATIO[task], device=device)]
        if isinstance(model, DualMAE):
            self.mask.append(removed_tokens(tokens, RATIO[task]))
        fused = isinstance(model, S4D | DualMAE) or None       # None: PyTorch's default
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused)

    def loss(self) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            if isinstance(self.model, DualMAE | reference.Autoencoder):
                return self.model(self.x, *self.mask)
            loss = F.cross_entropy(self.model(self.x).float(), self.y)
        return loss + 1e-3 * self.model.balance_loss() if self.model.training else loss

    @torch.no_grad()
    def forward(self) -> None:
        self.model.eval()
        self.loss()

    def step(self) -> None:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()

    def memory(self) -> float:
        """MB: peak of a GPU in a step; on a CPU the activations kept for the backward pass."""
        if self.device == "cpu":
            return saved_bytes(self.model.train(), self.loss) / 1e6
        torch.cuda.reset_peak_memory_stats()
        self.step()
        return torch.cuda.max_memory_allocated() / 1e6


def measure(stage: str, size: str, task: str, batch: int, device: str, half: bool, rate: float,
            seconds: float, compare: bool = True) -> dict:
    """One row: GFLOP, milliseconds, share of `rate`, the time of the reference over ours."""
    model = model_of(stage, size)
    tasks = {"ours": Task(model, size, task, batch, device, half)}
    if compare:
        plain = model_of(stage, size, plain=True)
        plain.load_state_dict(checkpoints.to_released(model))
        tasks["reference"] = Task(plain, size, task, batch, device, half)
    work = {(who, kind): getattr(t, kind) for who, t in tasks.items()
            for kind in ("forward", "step")}
    taken = interleaved(work, seconds, device, 2)
    row = {"size": size, "stage": stage, "input": task, "batch": batch}
    for kind in ("forward", "step"):
        counted = cost(partial(model_of, stage, size), task, RATIO[task], step=kind == "step")
        count, ms = batch * counted["GFLOP"], 1e3 * taken["ours", kind]
        row |= {f"{kind}_GFLOP": count, f"{kind}_ms": ms,
                f"{kind}_limit_%": 100 * (1e9 * count) / (1e-3 * ms) / rate}
        if compare:
            row[f"{kind}_vs_reference"] = taken["reference", kind] / taken["ours", kind]
    return row | {f"{who}_MB": t.memory() for who, t in tasks.items()}


def curve(stage: str, size: str, rate: float, seconds: float, device: str = "cuda",
          half: bool = True) -> pd.DataFrame:
    """A model on clips by batch size, until memory ends."""
    rows = []
    with contextlib.suppress(torch.OutOfMemoryError):
        for n in CURVE:
            rows.append(measure(stage, size, "video", n, device, half, rate, seconds / len(CURVE),
                                compare=False))
    return pd.DataFrame(rows)


def show(title: str, table: pd.DataFrame) -> None:
    print(f"\n{title}")
    print(table.to_string(index=False, float_format="{:.1f}".format, na_rep="-"), flush=True)


def main(device: str, seconds: float, part: str = "all") -> None:
    """Prints every table of a part ("faces", "models" or "all") for "cpu" or "cuda"."""
    print(f"{device_name(torch.device(device))}, torch {torch.__version__}")
    if part in ("all", "faces"):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        show("faces, one thread; ratio to one frame at a time", faces(seconds, device))
        torch.set_num_threads(threads)
    if part not in ("all", "models"):
        return
    rate = {half: matmul_rate(device, torch.bfloat16 if half else torch.float32, min(2.0, seconds))
            for half in (False, True)}
    for half in (False, True) if device == "cpu" else (True,):
        if device == "cpu" and half and rate[True] < 1.1 * rate[False]:
            print("bf16 products are not faster than float32 here: bf16 is left out")
            continue
        rows = [measure(stage, size, task, n, device, half, rate[half], seconds)
                for size in ("small", "base") for stage in STAGES
                for task, n in BATCH[device].items()]
        show(f"{'bf16 autocast' if half else 'float32'}; matrix products {rate[half] / 1e9:,.0f} "
             "GFLOP/s, limit: share of it; MB: peak of a GPU in a step, on a CPU the activations "
             "kept for the backward pass", pd.DataFrame(rows))
    for stage in STAGES[1:] if device == "cuda" else ():
        show(f"base, {stage}, clips, by batch size", curve(stage, "base", rate[True], seconds))
