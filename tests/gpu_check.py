"""What one GPU says of this project, in eight minutes: `make gpu-check`.

Every part runs in a process of its own with a time limit and writes its rows to `<out>/<part>.csv`
as they come. A part that fails or runs out of time is said in `check.json` and stops no other.
`--tiny` rehearses all of it with small models, on a CPU too.
"""
from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))                    # the machine need not have installed the package

for missing in ("av", "decord"):                 # codecs, which such a machine may lack
    try:
        __import__(missing)
    except ImportError:
        sys.modules[missing] = MagicMock()

from s4d import bench  # noqa: E402
from s4d import config as configs  # noqa: E402
from s4d.data import cache  # noqa: E402
from s4d.faces import corpus, facs, render, subjects, views  # noqa: E402
from s4d.files import write_text  # noqa: E402
from s4d.models import S4D, VARIANTS, DualMAE, reference, to_released  # noqa: E402
from s4d.models.tokens import random_mask, removed_tokens  # noqa: E402
from s4d.training import Run, plan_batches, samples_of, tables, train  # noqa: E402

SECONDS = {"correct": 50, "fast": 100, "compiled": 70, "faces": 60, "pretraining": 70,
           "finetuning": 70, "lossless": 60}     # limits; their sum is what the check may take
TINY = dict(img_size=32, num_frames=4, depth=2)
STAGES = ("dense", "MoAE", "pre-training")


class Rows:
    """The rows of a part; its csv is whole after each of them."""

    def __init__(self, part: str, out: Path):
        self.rows, self.path = [], out / f"{part}.csv"

    def add(self, **row) -> None:
        self.rows.append(row)
        write_text(self.path, pd.DataFrame(self.rows).to_csv(index=False, float_format="%.6g"))
        print(" ", *(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}"
                     for k, v in row.items()), flush=True)


def models(size: str, stage: str, tiny: bool, device: str) -> tuple[torch.nn.Module, ...]:
    """Our model of a stage and the plain reference, with equal weights that make experts matter."""
    name = f"{size}_patch16_160"
    sizes = VARIANTS[name] | (TINY if tiny else {})
    torch.manual_seed(0)
    if stage == "pre-training":
        ours, plain = DualMAE(**sizes), reference.Autoencoder(**sizes)
    else:
        experts = 8 if stage == "MoAE" else 0
        ours, plain = S4D(**sizes, num_experts=experts), reference.Classifier(
            **sizes, num_experts=experts)
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    plain.load_state_dict(to_released(ours))
    ours.sizes = plain.sizes = sizes
    return ours.to(device), plain.to(device)


def batch_of(model: torch.nn.Module, task: str, n: int, device: str) -> dict:
    """Random inputs of a batch of photos or clips, with labels and mask."""
    side, frames = model.sizes["img_size"], model.sizes["num_frames"]
    tokens = (side // model.sizes["patch_size"]) ** 2 * (frames // 2 if task == "video" else 1)
    ratio = {"image": 0.9, "video": 0.95}[task] if tokens > 10 else 0.5
    x = torch.randn(n, 3, *[frames] * (task == "video"), side, side, device=device)
    return dict(x=x, y=torch.randint(7, (n,), device=device), removed=removed_tokens(tokens, ratio),
                mask=random_mask(n, tokens, ratio, torch.Generator().manual_seed(1), device))


def loss_of(model: torch.nn.Module, net, batch: dict, device: str, dtype) -> torch.Tensor:
    """The loss of training; `net` is the model, or its compiled form."""
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        if isinstance(model, DualMAE):
            return net(batch["x"], batch["mask"], batch["removed"])
        if isinstance(model, reference.Autoencoder):
            return net(batch["x"], batch["mask"])
        logits = net(batch["x"])
    loss = F.cross_entropy(logits.float(), batch["y"])
    balance = model.balance_loss() if model.training else 0.0
    return loss + 1e-3 * balance


def loss_and_slope(model, net, batch: dict, device: str, dtype) -> tuple:
    """The loss, and its gradient at the input."""
    loss = loss_of(model, net, batch, device, dtype)
    return loss.detach(), torch.autograd.grad(loss, batch["x"])[0].float()


def correct(rows: Rows, tiny: bool, device: str) -> None:
    """Loss and gradient at the input, against the reference in float32 (limit 1e-4 there)."""
    for stage in STAGES:
        ours, plain = models("small", stage, tiny, device)
        for layer in ours.moae_layers().values() if stage == "MoAE" else ():
            layer.noise_mode = "never"
        for task in ("image", "video"):
            batch = batch_of(ours, task, 4, device)
            batch["x"].requires_grad_()

            wanted = loss_and_slope(plain, plain, batch, device, torch.float32)
            for way in ("eager",) if tiny and task == "video" else ("eager", "compiled"):
                net = compile_of(ours, tiny) if way == "compiled" else ours
                for dtype in (torch.float32, torch.bfloat16):
                    loss, slope = loss_and_slope(ours, net, batch, device, dtype)
                    off = ((loss - wanted[0]).abs() / wanted[0].abs()).item()
                    turn = ((slope - wanted[1]).norm() / wanted[1].norm()).item()
                    limit = 1e-4 if dtype == torch.float32 else 0.3
                    rows.add(stage=stage, task=task, way=way, dtype=str(dtype)[6:], loss_error=off,
                             gradient_error=turn, limit=limit, passed=max(off, turn) < limit)
    ours, plain = models("small", "MoAE", tiny, device)
    ours.eval().set_routing(capacity_factor=1.0)
    for layer in plain.layers():
        layer.capacity_factor = 1.0
    batch = batch_of(ours, "video", 4, device)
    with torch.no_grad():
        wanted, found = plain(batch["x"]), ours(batch["x"])
    off = ((found - wanted).norm() / wanted.norm()).item()
    rows.add(stage="released routing", task="video", way="eager", dtype="float32",
             loss_error=off, gradient_error=math.nan, limit=1e-4, passed=off < 1e-4)
    for stage in STAGES if device == "cuda" else ():
        ours, _ = models("small", stage, tiny, device)
        step = stepper(ours, ours, batch_of(ours, "video", 4, device), device, torch.bfloat16)
        step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        rows.add(stage=stage, task="video", way="no wait for the host", dtype="bfloat16",
                 passed=True)


def compile_of(model: torch.nn.Module, tiny: bool):
    """The compiled model; the rehearsal traces it and generates no code."""
    return torch.compile(model, backend="aot_eager" if tiny else "inductor")


def stepper(model: torch.nn.Module, net, batch: dict, device: str, dtype):
    """A training step as a function without arguments."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device == "cuda" or None)

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, net, batch, device, dtype).backward()
        optimizer.step()
    return step


def timed(model, net, task: str, n: int, device: str, dtype, seconds: float) -> dict:
    """Milliseconds of a forward pass and a training step, and the step's peak memory."""
    batch = batch_of(model, task, n, device)
    step = stepper(model, net, batch, device, dtype)

    @torch.no_grad()
    def forward() -> None:
        model.eval()
        loss_of(model, net, batch, device, dtype)

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = bench.seconds_of(step, seconds)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else math.nan
    return dict(forward_ms=1e3 * bench.seconds_of(forward, seconds), step_ms=1e3 * taken,
                samples_per_second=n / taken, peak_GB=peak)


def flops(model: torch.nn.Module, task: str, device: str) -> float:
    """Floating-point operations of a training step of one sample."""
    from torch.utils.flop_counter import FlopCounterMode
    batch = batch_of(model, task, 1, device)
    model.train()
    with FlopCounterMode(display=False) as counter:
        loss_of(model, model, batch, device, torch.float32).backward()
    return counter.get_total_flops()


def fast(rows: Rows, tiny: bool, device: str) -> None:
    """Training steps in bf16 over batch sizes, against reference and matrix product."""
    half = torch.bfloat16
    rate = bench.matmul_rate(device, half, 0.2 if tiny else 2.0)
    rows.add(size="", stage="matrix product", TFLOPs=rate / 1e12)
    seconds = 0.02 if tiny else 0.6
    for size in ("small",) if tiny else ("base", "small"):
        for stage in STAGES:
            for task in ("video", "image"):
                ours, plain = models(size, stage, tiny, device)
                work, best = flops(ours, task, device), 0.0
                n = 2 if tiny else {"video": 8, "image": 64}[task]
                while n <= (2 if tiny else 4096):
                    try:
                        row = timed(ours, ours, task, n, device, half, seconds)
                    except torch.OutOfMemoryError:
                        break
                    share = 100 * work * row["samples_per_second"] / rate
                    rows.add(size=size, stage=stage, task=task, batch=n, model="ours",
                             GFLOP=work / 1e9, **row, product_percent=share)
                    if row["samples_per_second"] < 1.03 * best:
                        break
                    best, n = max(best, row["samples_per_second"]), 2 * n
                torch.cuda.empty_cache()
                n = 2 if tiny else {"video": 8, "image": 64}[task]
                for dtype in (torch.float16, half) if device == "cuda" else (half,):
                    try:
                        row = timed(plain, plain, task, n, device, dtype, seconds)
                        rows.add(size=size, stage=stage, task=task, batch=n,
                                 model=f"reference, {str(dtype)[6:]}", **row)
                    except torch.OutOfMemoryError:
                        rows.add(size=size, stage=stage, task=task, batch=n, model="reference",
                                 step_ms=math.nan)
                del ours, plain
                torch.cuda.empty_cache()


def compiled(rows: Rows, tiny: bool, device: str) -> None:
    """The same steps compiled, with the seconds that compiling took."""
    size = "small" if tiny else "base"
    for stage in STAGES[:1] if tiny else STAGES[::-1]:
        ours, _ = models(size, stage, tiny, device)
        n, start = 2 if tiny else 16, time.perf_counter()
        net = compile_of(ours, tiny)
        stepper(ours, net, batch_of(ours, "video", n, device), device, torch.bfloat16)()
        spent = time.perf_counter() - start
        for name, way in (("eager", ours), ("compiled", net)):
            row = timed(ours, way, "video", n, device, torch.bfloat16, 0.02 if tiny else 1.0)
            rows.add(size=size, stage=stage, task="video", batch=n, way=name, **row,
                     compile_seconds=spent if name == "compiled" else 0.0)


def settings(tiny: bool, out: Path, device: str) -> tuple:
    """Corpus, pre-training and fine-tuning of the last parts: 160 px, small model."""
    prof = configs.profile("smoke" if tiny else "gpu", str(out / "data"))
    few = dict(compound=55, compound_subjects=11)
    few |= (dict(photos=140, photo_subjects=70, clips=42, clip_subjects=14, speaking=20,
                 speaking_subjects=10) if tiny else
            dict(photos=4000, photo_subjects=1000, clips=700, clip_subjects=100, speaking=500,
                 speaking_subjects=100))
    faces = replace(prof.faces, **few)
    root = out / "data" / faces.folder

    def moved(cfg, **changes):
        sources = {task: replace(getattr(cfg, task), root=str(root / getattr(cfg, task).name))
                   for task in ("image", "video")}
        return replace(cfg, **sources, cache=True, amp=True, **changes)

    workers = 16 if device == "cuda" else 0
    return (faces, moved(prof.pretrain, num_workers=workers),
            moved(prof.finetune, num_workers=workers, init=None))


def faces(rows: Rows, tiny: bool, device: str) -> None:
    """Frames drawn a second, and the corpora of the next parts, packed.

    Clips are stored as arrays under their names: the machine has no codec.
    """
    cfg, pre, fine = settings(tiny, rows.path.parent, device)
    size = cfg.img_size
    for n in (8,) if tiny else (64, 256, 1024):
        people = {k: v.to(device) for k, v in subjects(n, seed=1).items()}
        scene = {k: v.to(device) for k, v in views(n, zoom=cfg.zoom).items()}
        acts = torch.rand(n, 2, len(facs.ACTIONS), device=device) * 0.5
        taken = bench.seconds_of(partial(render, people, acts, scene, size), 0.1 if tiny else 2.0)
        rows.add(what="render", pixels=size, batch=n, frames_per_second=n / taken)
    corpus.LARGE = 0                            # a GPU draws this small corpus too
    corpus.write_clip = lambda path, frames, *_: path.write_bytes(save_npy(frames))
    read = cache.read_frames
    cache.read_frames = lambda path, **given: (
        torch.from_numpy(np.load(path)) if path.suffix == ".mp4" else read(path, **given))
    start = time.perf_counter()
    corpus.ensure(cfg, rows.path.parent / "data", workers=1)
    spent = time.perf_counter() - start
    drawn = cfg.photos + (cfg.clips + cfg.compound + cfg.speaking) * cfg.num_frames
    rows.add(what="draw and write", pixels=size, batch=0, frames_per_second=drawn / spent)
    start = time.perf_counter()
    for cfg_of in (pre, fine):
        for task, table in tables(cfg_of).items():
            cache.packed(table, getattr(cfg_of, task).root, size, num_workers=16)
    rows.add(what="pack", pixels=size, batch=0,
             frames_per_second=drawn / (time.perf_counter() - start))


def save_npy(frames: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, frames)
    return buffer.getvalue()


def trained(rows: Rows, tiny: bool, cfg, seconds: float) -> Run:
    """Train for about so long, by the speed of a short run; say how long the GPU waited."""
    data = {task: samples_of(cfg, task, table, "train") for task, table in tables(cfg).items()}
    per_epoch = len(plan_batches(cfg, data, 0))
    runs, short = rows.path.parent / "runs", 3 if tiny else 40
    first = train(replace(cfg, epochs=short / per_epoch), runs)
    spent = first.metrics()
    steps = 6 if tiny else round(seconds / first.provenance["seconds"] * len(spent))
    run = train(replace(cfg, epochs=max(1, steps) / per_epoch), runs)
    curve = run.metrics()
    curve.to_csv(rows.path.with_name(f"{rows.path.stem}_curve.csv"), index=False)
    known, steps = run.provenance, int(curve.step.max()) + 1
    for task, of in curve[curve.modality.isin(["image", "video"])].groupby("modality"):
        tenth = max(1, len(of) // 10)
        rows.add(what=f"{task} loss", first=float(of.loss.iloc[:tenth].mean()),
                 last=float(of.loss.iloc[-tenth:].mean()), steps=steps,
                 steps_per_second=steps / known["seconds"],
                 waiting_percent=100 * known["waiting_seconds"] / known["seconds"])
    return run


def pretraining(rows: Rows, tiny: bool, device: str) -> None:
    """Pre-train the small model; the loss must fall."""
    trained(rows, tiny, settings(tiny, rows.path.parent, device)[1], 35)


def finetuning(rows: Rows, tiny: bool, device: str) -> None:
    """Fine-tune the small S4D from scratch; its scores must be above chance."""
    run = trained(rows, tiny, settings(tiny, rows.path.parent, device)[2], 35)
    found = run.predictions()
    for task, of in found[found.split == "test"].groupby("task"):
        war = float((of.label == of.predicted).mean())
        rows.add(what=f"{task} WAR", value=100 * war, chance=100 / of.label.nunique(),
                 samples=len(of))


def lossless(rows: Rows, tiny: bool, device: str) -> None:
    """Kill a bf16 run at once in its middle, resume it, and compare it with one never stopped."""
    cfg = settings(tiny, rows.path.parent, device)[2]
    for deterministic in (False, True) if device == "cuda" else (False,):
        steps, weights = 4 if tiny else 30, []
        of = replace(cfg, epochs=steps / 40, save_minutes=0.0, deterministic=deterministic)
        for stopped in (False, True):
            runs = rows.path.parent / f"lossless-{deterministic}-{stopped}"
            code = ("import sys, json; from s4d import config; from s4d.training import finetune; "
                    "finetune(config.from_dict(json.loads(sys.argv[1])), sys.argv[2])")
            call = [sys.executable, "-c", code, json.dumps(configs.to_dict(of)), str(runs)]
            if stopped:
                with subprocess.Popen(call, cwd=ROOT) as process:
                    while process.poll() is None and not list(runs.glob("*/checkpoint.pt")):
                        time.sleep(0.02)
                    killed = process.poll() is None
                    process.kill()
            start = time.perf_counter()
            subprocess.run(call, cwd=ROOT, check=True)
            spent = time.perf_counter() - start
            weights.append(load_file(next(runs.glob("*/weights.safetensors"))))
        off = max((a - weights[1][k]).abs().max().item() for k, a in weights[0].items())
        rows.add(deterministic=deterministic, killed=killed, equal=off == 0.0,
                 largest_difference=off, seconds=spent)


def environment(device: str) -> dict:
    """The machine, in words and numbers."""
    found = {p: version(p) for p in ("torch", "torchvision", "timm", "numpy")}
    found |= dict(python=platform.python_version(), device=platform.machine(),
                  threads=torch.get_num_threads(), date=time.strftime("%Y-%m-%d"))
    if device == "cuda":
        ask = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
        said = subprocess.run(["nvidia-smi", f"--query-gpu={ask}", "--format=csv,noheader"],
                              capture_output=True, text=True, check=False).stdout.strip()
        found |= dict(device=torch.cuda.get_device_name(), cuda=torch.version.cuda, nvidia_smi=said)
    return found


def run_part(part: str, args: argparse.Namespace) -> dict:
    """Run a part in a process group of its own, killed whole at its limit."""
    command = [sys.executable, __file__, "--part", part, "--device", args.device, "--out",
               str(args.out), *["--tiny"] * args.tiny]
    limit, start = SECONDS[part], time.monotonic()
    print(f"{part} (at most {limit} s)", flush=True)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True
                          ) as process:
        try:
            _, errors = process.communicate(timeout=limit)
            state = "done" if process.returncode == 0 else "failed"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, errors = process.communicate()
            state = "out of time"
    found = dict(state=state, seconds=round(time.monotonic() - start, 1))
    if state == "failed":
        found["error"] = errors.strip().splitlines()[-12:]
        print("\n".join(found["error"]), flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"),
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "gpu")
    parser.add_argument("--parts", nargs="+", choices=SECONDS, default=list(SECONDS))
    parser.add_argument("--part", choices=SECONDS, help="run this one here (used by the check)")
    parser.add_argument("--tiny", action="store_true", help="small models and few steps")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        globals()[args.part](Rows(args.part, args.out), args.tiny, args.device)
        return 0
    result = dict(environment=environment(args.device), tiny=args.tiny, parts={})
    for part in args.parts:
        result["parts"][part] = run_part(part, args)
        write_text(args.out / "check.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["parts"], indent=1))
    return int(any(p["state"] != "done" for p in result["parts"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
