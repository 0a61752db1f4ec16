"""How fast this machine is at what the project does most: `make bench`. Every row carries its baseline, measured in the same run."""
from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .models import DECODERS, S4D, VARIANTS, DualMAE, MoAE, random_mask, removed_tokens, to_released
from .models import reference as naive
from .models.cost import flops, saved_bytes

SIZES = ("small", "base")
STAGES = ("dense", "MoAE", "pre-training")
RATIO = {"image": 0.9, "video": 0.95}                             # of pre-training's masks: the paper's
BATCH = {"cpu": {"image": 8, "video": 1}, "cuda": {"image": 64, "video": 8}}
CURVE = (1, 2, 4, 8, 16, 32, 64, 128)                             # clips a step
SHAPES = ((400, 384, 1536), (1024, 1024, 1024), (800, 768, 3072), (800, 3072, 768), (8192, 768, 3072), (8192, 4096, 4096))   # m, k, n


def interleaved(work: dict, seconds: float, device: torch.device, least: int = 3, pick: Callable = np.median) -> dict:
    """Seconds of one call of each function, called in turn so that a busy moment of the machine hits all alike.

    Args:
        work: name -> function; each is called once before the clock starts.
        seconds: to measure, for all of them together.
        device: is waited for around each call.
        least: calls of each, however long they take.
        pick: of a function's calls; `min` asks what the machine does undisturbed, as a limit does.
    """
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for call in work.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in work}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, taken.values())) < least:
        for name, call in work.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            taken[name].append(time.perf_counter() - start)
    return {name: float(pick(t)) for name, t in taken.items()}


def faces(seconds: float = 10.0, device: str = "cpu", batches: tuple[int, ...] = (16,)) -> pd.DataFrame:
    """Speed of the renderer: photos (every frame another person) and clips (one person), in batches, against one frame at a time.

    Args:
        seconds: to measure for each size.
        device: "cpu" (one thread: the speed of one core) or "cuda".
        batches: frames drawn together.
    Returns:
        task, pixels, batch, frames_per_second, ratio (to one frame at a time).
    """
    from .faces import facs, render, subjects, views
    place, rng, rows = torch.device(device), np.random.default_rng(0), []
    for pixels in (64, 160):
        work = {}
        for n in (1, *batches):
            actions = torch.from_numpy(np.stack([facs.draw(list(facs.PROTOTYPES)[k % 7], 1.0, rng) for k in range(n)])).to(place)
            scene, crowd = ({k: v.to(place) for k, v in drawn.items()} for drawn in (
                views(n, yaw=torch.from_numpy(rng.normal(0, 4, n)), zoom=1.45), subjects(n, seed=1)))
            one = {k: v[:1].expand(n, *v.shape[1:]).contiguous() for k, v in crowd.items()}
            for task, who in (("photos", crowd), ("clips", one)):
                work[task, n] = lambda who=who, actions=actions, scene=scene: render(who, actions, scene, pixels)
        taken = interleaved(work, seconds, place)
        rows += [{"task": task, "pixels": pixels, "batch": n, "frames_per_second": n / taken[task, n],
                  "ratio": n / taken[task, n] * taken[task, 1]} for task, n in work if n > 1]
    return pd.DataFrame(rows)


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """The machine's own rate of matrix products, FLOP/s: the best call over a few shapes of transformer layers."""
    shapes, repeats = (SHAPES, 10) if device.type == "cuda" else (SHAPES[:4], 1)
    given = [(torch.randn(m, k, device=device, dtype=dtype), torch.randn(n, k, device=device, dtype=dtype)) for m, k, n in shapes]
    wait, best, end = torch.cuda.synchronize if device.type == "cuda" else lambda: None, 0.0, time.perf_counter() + seconds
    for a, b in given:
        F.linear(a, b)
    while best == 0.0 or time.perf_counter() < end:
        for (m, k, n), (a, b) in zip(shapes, given):
            wait()
            start = time.perf_counter()
            for _ in range(repeats):
                F.linear(a, b)
            wait()
            best = max(best, repeats * 2 * m * k * n / (time.perf_counter() - start))
    return best


def model_of(stage: str, spec: dict, decoder: dict, reference: bool = False) -> nn.Module:
    """The model of a stage, ours or the naive reference."""
    ours, plain = (DualMAE, naive.Autoencoder) if stage == "pre-training" else (S4D, naive.Classifier)
    more = decoder if stage == "pre-training" else {"num_experts": 8 if stage == "MoAE" else 0}
    model = (plain if reference else ours)(**spec, **more)
    for layer in model.layers() if isinstance(model, naive.Classifier) else ():
        layer.noise = True                       # as ours in training
    return model


class Task:
    """One model on one batch: `loss`, an inference forward pass, and a training step with AdamW, fused as in training for ours, PyTorch's
    default for the reference.

    Args:
        model: ours or the reference, already on its device.
        task: "image" or "video".
        amp: bf16 autocast.
    """

    def __init__(self, model: nn.Module, task: str, batch: int, spec: dict, device: torch.device, amp: bool,
                 optimizer: torch.optim.Optimizer | None = None):
        frames = (spec["num_frames"],) if task == "video" else ()
        self.model, self.device, self.amp = model, device, amp
        self.x = torch.randn(batch, 3, *frames, spec["img_size"], spec["img_size"]).to(device)
        self.y = torch.randint(7, (batch,)).to(device)
        tokens = (spec["img_size"] // spec["patch_size"]) ** 2 * (spec["num_frames"] // 2 if frames else 1)
        self.removed = removed_tokens(tokens, RATIO[task])
        self.mask = random_mask(batch, tokens, RATIO[task], device=device)
        self.optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05,
                                                        fused=isinstance(model, (S4D, DualMAE)) or None)

    def loss(self) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16) if self.amp else nullcontext():
            if isinstance(self.model, DualMAE):
                return self.model(self.x, self.mask, self.removed)
            if isinstance(self.model, naive.Autoencoder):
                return self.model(self.x, self.mask)
            logits = self.model(self.x)
        return F.cross_entropy(logits.float(), self.y) + (1e-3 * self.model.balance_loss() if self.model.training else 0)

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
        """MB: peak of the device in a step; on a CPU the activations kept for the backward pass."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.step()
            return torch.cuda.max_memory_allocated() / 1e6
        self.model.train()
        return saved_bytes(self.model, self.loss) / 1e6


def group(stages: tuple[str, ...], spec: dict, decoder: dict, batch: dict[str, int], device: torch.device, half: bool,
          seconds: float) -> list[dict]:
    """Rows of one size: `stages` measured side by side, ours and the reference, on images and on clips."""
    torch.manual_seed(0)
    ours = {s: model_of(s, spec, decoder) for s in stages}
    plain = {s: model_of(s, spec, decoder, reference=True) for s in stages}
    for s in stages:
        plain[s].load_state_dict(to_released(ours[s]))
    amp, rows = device.type == "cuda", []
    for task, n in batch.items():
        tasks = {(s, who): Task(of[s].to(device), task, n, spec, device, amp)
                 for s in stages for who, of in (("ours", ours), ("naive", plain))}
        work = {(*key, kind): getattr(t, kind) for key, t in tasks.items() for kind in ("forward", "step")}
        if half and not amp:
            work |= {(*key, "bf16"): Task(t.model, task, n, spec, device, True, t.optimizer).step for key, t in tasks.items()}
        taken = interleaved(work, seconds, device, 2, min)
        for s in stages:
            removed = tasks[s, "ours"].removed if s == "pre-training" else 0
            row = {"stage": s, "input": task, "batch": n} | {f"{kind}_GFLOP": n * flops(ours[s], task, removed, step=kind == "step") / 1e9
                                                             for kind in ("forward", "step")}
            for kind in ("forward", "step", "bf16") if half and not amp else ("forward", "step"):
                row |= {f"{kind}_ms": 1e3 * taken[s, "ours", kind], f"{kind}_vs_naive": taken[s, "naive", kind] / taken[s, "ours", kind]}
            if "bf16_ms" in row:
                row["bf16_vs_naive_float32"] = taken[s, "naive", "step"] / taken[s, "ours", "bf16"]
            rows.append(row | {"memory_MB": tasks[s, "ours"].memory(), "naive_MB": tasks[s, "naive"].memory()})
    return rows


def models(sizes: dict[str, tuple[dict, dict]], batch: dict[str, int], device: torch.device, rate: dict[torch.dtype, float],
           seconds: float) -> pd.DataFrame:
    """Training and inference against the reference and the arithmetic limit.

    Args:
        sizes: name -> arguments of the encoder and of the decoder.
        batch: task -> samples a step.
        rate: dtype -> FLOP/s of the machine; bf16 on a CPU only where it is the faster one. It is measured again between the groups,
            and the best rate is kept: a busy moment of the machine must not make the limit look near.
        seconds: to measure for each group of models, each input.
    Returns:
        a row for each size, stage and input: GFLOP and milliseconds of a forward pass (inference) and of a training step, the
        reference's time over ours, the share of the machine's matrix-product rate; on a CPU the same for steps in bf16 autocast;
        MB as in `Task.memory`.
    """
    rows = []
    for name, (spec, decoder) in sizes.items():
        for stages in (STAGES[:2], STAGES[2:]):
            print(f"measuring {name}: {' and '.join(stages)}", file=sys.stderr, flush=True)
            rows += [{"size": name, **row} for row in group(stages, spec, decoder, batch, device, torch.bfloat16 in rate, seconds)]
            for dtype in rate:
                rate[dtype] = max(rate[dtype], matmul_rate(device, dtype, min(1.0, seconds)))
    table = pd.DataFrame(rows)
    single = torch.bfloat16 if device.type == "cuda" else torch.float32
    for kind, need, dtype in (("forward", "forward", single), ("step", "step", single), ("bf16", "step", torch.bfloat16)):
        if f"{kind}_ms" in table:
            place = table.columns.get_loc(f"{kind}_vs_naive") + 1
            table.insert(place, f"{kind}_limit_%", 100 * table[f"{need}_GFLOP"] / table[f"{kind}_ms"] * 1e12 / rate[dtype])
    return table


def formulations(seconds: float, device: torch.device, widths: tuple[int, ...] = (128, 384, 768), tokens: int = 1600) -> pd.DataFrame:
    """The MoAE layer, forward and backward, by its two formulations: width, milliseconds of each, their ratio; NaN where one is missing."""
    rows = []
    for width in widths:
        layer, x = MoAE(width).to(device).train(), torch.randn(1, tokens, width, device=device, requires_grad=True)
        nn.init.trunc_normal_(layer.w2, std=0.02)

        def run(by_expert: bool) -> None:
            layer.by_expert = by_expert
            with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext():
                out = layer(x)
            out.float().square().mean().backward()
            layer.zero_grad(set_to_none=True)
        work = {"all_experts": lambda: run(False), "by_expert": lambda: run(True)}
        try:
            run(True)
        except RuntimeError:                     # devices without a grouped product
            del work["by_expert"]
        taken = interleaved(work, seconds / len(widths), device, pick=min)
        ms = {f"{k}_ms": 1e3 * taken.get(k, float("nan")) for k in ("all_experts", "by_expert")}
        rows.append({"width": width, "tokens": tokens, **ms, "ratio": ms["all_experts_ms"] / ms["by_expert_ms"]})
    return pd.DataFrame(rows)


def curve(spec: dict, decoder: dict, device: torch.device, rate: float, seconds: float, batches: tuple[int, ...] = CURVE) -> pd.DataFrame:
    """Training steps on clips by batch size, until memory ends: samples a second, share of the matrix-product rate, MB."""
    rows = []
    for stage in STAGES[1:]:
        model = model_of(stage, spec, decoder).to(device)
        for n in batches:
            try:
                task = Task(model, "video", n, spec, device, amp=device.type == "cuda")
                taken = interleaved({"step": task.step}, seconds / len(batches), device, pick=min)["step"]
                removed = task.removed if stage == "pre-training" else 0
                rows.append({"stage": stage, "batch": n, "step_ms": 1e3 * taken, "clips_per_second": n / taken, "memory_MB": task.memory(),
                             "limit_%": 100 * n * flops(model, "video", removed=removed, step=True) / taken / rate})
            except torch.OutOfMemoryError:
                break
    return pd.DataFrame(rows)


def over_dense(table: pd.DataFrame, sizes: dict[str, tuple[dict, dict]]) -> pd.DataFrame:
    """What experts add to a dense training step, in per cent: measured, and by the arithmetic of the chosen experts and of all."""
    rows = []
    for (size, task), part in table.groupby(["size", "input"], sort=False):
        ms = part.set_index("stage")["step_ms"]
        with torch.device("meta"):
            dense, mixed = (model_of(s, *sizes[size]) for s in STAGES[:2])
        base = flops(dense, task, step=True)
        rows.append({"size": size, "input": task, "measured_%": 100 * (ms["MoAE"] / ms["dense"] - 1),
                     "chosen_%": 100 * (flops(mixed, task, step=True) / base - 1),
                     "all_%": 100 * (flops(mixed, task, every_expert=True, step=True) / base - 1)})
    return pd.DataFrame(rows)


def machine(device: str) -> str:
    """The device in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    lines, count = open("/proc/cpuinfo") if platform.system() == "Linux" else (), torch.get_num_threads()
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{count} thread{'s' if count > 1 else ''} of {named[0] if named else platform.processor() or platform.machine()}"


def show(title: str, table: pd.DataFrame, digits: int = 1) -> None:
    print(f"\n{title}")
    print(table.to_string(index=False, float_format=f"{{:.{digits}f}}".format, na_rep="-"), flush=True)


def main(device: str, seconds: float, part: str = "all") -> None:
    """Prints every table of a part: "faces", "data", "models" or "all"."""
    if part in ("all", "faces"):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        print(f"faces, {machine(device)}, torch {torch.__version__}; frames/s, and the ratio to drawing one frame at a time")
        table = faces(seconds, device, (16,) if device == "cpu" else (64, 256, 1024))
        print(table.round({"frames_per_second": 0, "ratio": 1}).to_string(index=False), flush=True)
        torch.set_num_threads(threads)
    if part in ("all", "data"):
        from .data.throughput import throughput
        print("\nmedia of 256 px to augmented clips of 160 px, one core; ratio to decoding and transforming frame by frame with PIL")
        print(throughput(min(5.0, seconds)).round({"frames_per_second": 0, "ratio": 1}).to_string(index=False), flush=True)
    if part in ("all", "models"):
        model_tables(torch.device(device), seconds)


def model_tables(device: torch.device, seconds: float) -> None:
    """Prints the tables of the models."""
    cpu = device.type == "cpu"
    sizes = {s: (VARIANTS[f"{s}_patch16_160"], DECODERS[f"{s}_patch16_160"]) for s in SIZES}
    rate = {dtype: matmul_rate(device, dtype, min(2.0, seconds)) for dtype in (torch.float32, torch.bfloat16)}
    print(f"\nmodels, {machine(device.type)}, torch {torch.__version__}", flush=True)
    if cpu and rate[torch.bfloat16] < 1.1 * rate[torch.float32]:
        del rate[torch.bfloat16]
        print("bf16 products are not faster than float32 here: bf16 autocast is left out")
    table = models(sizes, BATCH[device.type], device, rate, seconds)
    print("matrix products: " + ", ".join(f"{str(d).removeprefix('torch.')} {r / 1e9:,.0f} GFLOP/s" for d, r in rate.items()))
    show(f"{'float32' if cpu else 'bf16 autocast'}; vs_naive: the reference's time over ours; limit: share of the matrix-product rate; "
         f"memory: {'activations kept for the backward pass' if cpu else 'peak of the device in a step'}", table)
    if "bf16_ms" in table:
        wins = (table["bf16_ms"] < table["step_ms"]).sum()
        print(f"bf16 autocast makes {wins} of {len(table)} training steps faster than float32")
    show("what experts add to the dense training step: measured; arithmetic of the chosen experts, and of all", over_dense(table, sizes))
    show("one MoAE layer, forward and backward", formulations(seconds, device), 2)
    if device.type == "cuda":
        show("base, clips, by batch size", curve(*sizes["base"], device, rate[torch.bfloat16], seconds))
