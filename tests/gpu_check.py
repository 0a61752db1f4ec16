"""What a GPU says of this project, in eight minutes: `make gpu-check`.

Each part runs in a process of its own with a time limit, and adds its rows to `<out>/<part>.csv`.
A part that fails or runs out of time stops no other: `check.json` says so, with device, clocks and
versions. `--tiny` rehearses with small models. Codecs may be missing: clips are stored as arrays.
"""
import argparse
import copy
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))                   # the package need not be installed
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)        # for the server of new processes
for codec in ("av", "decord"):
    try:
        __import__(codec)
    except ImportError:
        sys.modules[codec] = MagicMock()

from faults import CONTEXT, struck  # noqa: E402

from s4d import bench  # noqa: E402
from s4d import config as configs  # noqa: E402
from s4d.data import cache, packed  # noqa: E402
from s4d.data.dataset import DECODED  # noqa: E402
from s4d.faces import corpus  # noqa: E402
from s4d.models import VARIANTS, MoAE, random_mask, reference, to_released  # noqa: E402
from s4d.training import Run, finetune, plan_batches, samples_of, tables, train  # noqa: E402
from s4d.training.engine import Engine  # noqa: E402

CONTEXT.set_forkserver_preload(["gpu_check"])   # where the codecs are missing too
SECONDS = dict(correct=75, fast=160, faces=35, pretraining=70, finetuning=80, lossless=60)   # 8 min
HALF, TASKS, SIZES = torch.bfloat16, ("video", "image"), ("base", "small")
TINY = dict(img_size=32, num_frames=4, embed_dim=32, depth=1, num_heads=2)
FEW = dict(photos=3000, clips=280, compound=55, speaking=200)
FEWEST = dict(img_size=32, photos=70, clips=35, speaking=8, num_frames=4)
# Ways to compute a layer of experts: `MoAE.grouped`, or as the equations read. Add others here.
LAYERS = {"all experts": False, "chosen experts": True, "reference": None}


class Part:
    """What a part is given, and its rows; their csv is whole after each of them."""

    def __init__(self, name: str, args: argparse.Namespace):
        self.path, self.rows = args.out / f"{name}.csv", []
        self.device, self.tiny, self.workers = args.device, args.tiny, args.workers
        self.work = args.out if args.tiny else ROOT / "build" / "gpu-check"
        self.seconds = 0.01 if args.tiny else 0.4               # of each timing
        self.backend = "aot_eager" if args.tiny else "inductor"     # traced, no code generated
        for size in SIZES if args.tiny else ():
            VARIANTS[f"{size}_patch16_160"] |= TINY

    def add(self, **row) -> None:
        self.rows.append(row)
        pd.DataFrame(self.rows).to_csv(self.path, index=False, float_format="%.6g")
        print(" ", row, flush=True)

    def models(self, stage: str, size: str) -> tuple[torch.nn.Module, torch.nn.Module]:
        """Our model and the plain reference, with equal weights that make experts matter."""
        torch.manual_seed(0)
        ours = bench.model_of(stage, size)
        with torch.no_grad():
            for weight in ours.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
        return ours.to(self.device), bench.plain_of(stage, size, ours).to(self.device)

    def batch(self, stage: str, size: str, task: str, n: int) -> tuple:
        """Random photos or clips, labels and, for pre-training, a mask."""
        spec, mask = VARIANTS[f"{size}_patch16_160"], None
        side, frames = spec["img_size"], spec["num_frames"] if task == "video" else 2
        if stage == "pre-training":
            ratio, tokens = 0.5 if self.tiny else bench.RATIO[task], (side // 16) ** 2 * frames // 2
            mask = random_mask(n, tokens, ratio, device=self.device)
        x = torch.randn(n, 3, frames, side, side, device=self.device)
        return (x if task == "video" else x[:, :, 0].contiguous(),
                torch.randint(7, (n,), device=self.device), mask)


def correct(part: Part) -> None:
    """Loss and all gradients beside the reference's; then the tests that need a GPU."""
    torch.backends.cudnn.allow_tf32 = False             # float32 convolutions would have ten bits
    VARIANTS["small_patch16_160"] |= {"depth": 1 if part.tiny else 2}    # soon compiled

    def answer(model, way: str, dtype: torch.dtype, *batch) -> tuple:
        model = copy.deepcopy(model)
        if way == "compiled":
            torch.compiler.reset()
            model.compile(backend=part.backend)
        loss = bench.training_step(model, *batch, dtype)()
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(0 if weight.grad is None else weight.grad)
        slopes = model.state_dict() if way == "reference" else to_released(model)
        return loss, torch.cat([slopes[name].flatten() for name in sorted(slopes)])
    for way, stage, task in itertools.product(
            ("eager", "compiled"), (*bench.EXPERTS, "MoAE, released routing"), TASKS):
        if way == "compiled" and (task == "image" or part.tiny and stage != "dense"):
            continue
        kind, capacity = stage.partition(",")[0], 1.0 if "released" in stage else None
        ours, plain = part.models(kind, "small")
        for layer in ours.moae_layers().values() if kind == "MoAE" else ():
            layer.noise_mode, layer.capacity_factor = "never", capacity
        for layer in plain.layers() if kind == "MoAE" else ():
            layer.noise, layer.capacity_factor = False, capacity
        batch = part.batch(kind, "small", task, 4)
        wanted = answer(plain, "reference", torch.float32, *batch)
        for model, name, dtype, limit in ((ours, way, torch.float32, 1e-4), (ours, way, HALF, 0.1),
                                          (plain, "reference", HALF, 0.1)):
            found = answer(model, name, dtype, *batch)
            loss, slope = (((a - b).norm() / b.norm()).item()
                           for a, b in zip(found, wanted, strict=True))
            part.add(stage=stage, task=task, way=name, dtype=str(dtype)[6:], loss_error=loss,
                     gradient_error=slope, limit=limit, passed=max(loss, slope) < limit)
    tests = [str(ROOT / "tests/test_models.py"), "-m", "gpu", "-p", "no:cacheprovider"]
    part.add(stage="tests marked gpu", passed=pytest.main(tests) == 0)


def timed(part: Part, model: torch.nn.Module, batch: tuple, dtype: torch.dtype) -> dict:
    """Seconds of a first training step, milliseconds of others and of a forward pass, memory."""
    step, n, start = bench.training_step(model, *batch, dtype), len(batch[0]), time.perf_counter()
    step().item()
    first = time.perf_counter() - start
    if part.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = bench.seconds_of(step, part.seconds)
    row = dict(batch=n, step_ms=1e3 * taken, samples_per_second=n / taken,
               peak_GB=torch.cuda.max_memory_allocated() / 1e9, first_step_seconds=first)
    model.eval()
    with torch.no_grad(), torch.autocast(part.device, dtype, cache_enabled=False):
        if batch[2] is None:
            row["forward_ms"] = 1e3 * bench.seconds_of(partial(model, batch[0]), part.seconds)
    return row


def fast(part: Part) -> None:
    """Steps in bf16 over batch sizes up to memory, beside reference and matrix products."""
    rate = bench.matmul_rate(part.device, HALF, part.seconds)
    part.add(stage="matrix products", TFLOP_per_second=rate / 1e12)
    x = torch.randn(1 if part.tiny else 8, 800, 768, device=part.device, requires_grad=True)
    for name, grouped in LAYERS.items():
        layer = reference.MixtureOfExperts(768, 8) if name == "reference" else MoAE(768, 8)
        layer.to(part.device).grouped, about = grouped, dict(stage="MoAE layer", model=name)
        with torch.autocast(part.device, HALF, cache_enabled=False):     # each call casts anew
            try:
                taken = bench.seconds_of(lambda layer=layer: layer(x).float().sum().backward(),
                                         part.seconds)
                part.add(**about, size="base", task="video", batch=len(x), step_ms=1e3 * taken)
            except (RuntimeError, AttributeError) as error:         # of another torch
                part.add(**about, said=str(error).partition("\n")[0])
    for size, task, stage in itertools.product(SIZES[part.tiny:], TASKS[part.tiny:], bench.EXPERTS):
        ratio = 0.5 if part.tiny else bench.RATIO[task]
        work = bench.cost(partial(bench.model_of, stage, size), task, ratio, step=True)["GFLOP"]
        ours, plain = part.models(stage, size)
        ways = [("reference", plain, torch.float16), ("reference", plain, HALF),
                ("package", ours, HALF), ("compiled", ours, HALF)]
        known = part.tiny and stage != "pre-training" or not part.tiny and (size, task) != (
            "base", "video")                            # one is enough to know how it compiles
        for name, model, dtype in ways[:-1] if known else ways:
            if name == "compiled":
                model.compile(backend=part.backend)
            best, n = 0.0, 2 if part.tiny else bench.BATCH["cuda"][task]
            while n <= (4 if part.tiny else 4096):
                try:
                    row = timed(part, model, part.batch(stage, size, task, n), dtype)
                except torch.OutOfMemoryError:
                    break
                speed = row["samples_per_second"]
                part.add(size=size, stage=stage, task=task, model=name, dtype=str(dtype)[6:], **row,
                         GFLOP=work, product_percent=1e11 * work * speed / rate)
                if name != "package" or speed < 1.03 * best:
                    break
                best, n = speed, 2 * n
            torch.cuda.empty_cache()


def settings(part: Part) -> tuple[configs.Faces, configs.Pretrain, configs.Finetune]:
    """Small models, a small corpus of 160 px, and no augmentation that makes learning slow."""
    name = "smoke" if part.tiny else "gpu"
    configs.PROFILES[name]["faces"] |= FEWEST if part.tiny else FEW
    both = dict(num_workers=part.workers, amp=True)
    both |= dict(img_size=32, num_frames=4) if part.tiny else {}
    found = configs.profile(name, str(part.work / "data"))
    fine = dict(lr=1e-4, layer_decay=1.0, mixup=0.0, cutmix=0.0, randaugment="", random_erasing=0.0)
    return found.faces, replace(found.pretrain, **both), replace(found.finetune, **both, **fine)


def faces(part: Part) -> None:
    """Frames drawn a second, and the corpora of the next parts, drawn on the GPU and packed."""
    cfg, *stages = settings(part)
    shutil.rmtree(part.work / "data", ignore_errors=True)
    corpus.LARGE, read = 0, cache.read_frames           # a GPU draws this small corpus too
    corpus.write_clip = lambda path, frames, *_: torch.save(torch.from_numpy(frames.copy()), path)
    cache.read_frames = lambda path, *args, **more: (
        torch.load(path) if path.suffix == ".mp4" else read(path, *args, **more))
    count = cfg.photos + (cfg.clips + cfg.compound + cfg.speaking) * cfg.num_frames
    start = time.perf_counter()
    corpus.ensure(cfg, part.work / "data", workers=1)
    drawn = time.perf_counter()
    for stage in stages:
        for task, table in tables(stage).items():
            size, root = DECODED[task] * cfg.img_size, getattr(stage, task).root
            packed(table, root, size, num_workers=part.workers or 1)
    part.add(what="draw and write", frames_per_second=count / (drawn - start))
    part.add(what="pack", frames_per_second=count / (time.perf_counter() - drawn))


def lasting(cfg, steps: int):
    """A configuration of so many steps."""
    data = {task: samples_of(cfg, task, table, "train") for task, table in tables(cfg).items()}
    return replace(cfg, epochs=steps / len(plan_batches(cfg, data, 0)))


def trained(part: Part, cfg) -> Run:
    """Train for most of a minute, by the speed of a short run; tell speed, waiting and losses."""
    ticks, update, runs = [], Engine.update, part.work / part.path.stem
    shutil.rmtree(runs, ignore_errors=True)
    Engine.update = lambda *args: (ticks.append(time.monotonic()), update(*args))[1]
    train(lasting(cfg, 4 if part.tiny else 40), runs)
    steps = 6 if part.tiny else round(40 * 19 / (ticks[39] - ticks[20]))
    ticks.clear()
    run = train(lasting(cfg, steps), runs)
    loop, waiting = ticks[-1] - ticks[0], run.provenance["waiting_seconds"]
    part.add(what="steps a second", value=(steps - 1) / loop, step=steps)
    part.add(what="waiting, per cent", value=100 * waiting / (loop + waiting), step=steps)
    for task in TASKS:
        of = run.metrics().query("modality == @task")
        for piece in np.array_split(np.arange(len(of)), min(20, len(of))):
            part.add(what=f"{task} loss", value=float(of.loss.iloc[piece].mean()),
                     step=int(of.step.iloc[piece[-1]]))
    return run


def pretraining(part: Part) -> None:
    """Pre-train the small model; the losses must fall."""
    trained(part, settings(part)[1])


def finetuning(part: Part) -> None:
    """Fine-tune the small S4D, from the pre-training where there is one; scores beside chance."""
    stage, cfg = sys.modules[finetune.__module__], settings(part)[2]
    predict = stage.predict             # in this process: workers would start for each validation
    stage.predict = lambda *args, num_workers, **more: predict(*args, **more)
    made = part.work.glob("pretraining/*/weights.safetensors")
    for weights in sorted(made, key=os.path.getmtime):          # the longer training's are last
        cfg = replace(cfg, init=str(weights))
    found = trained(part, cfg).predictions().query("split == 'test'")
    for task, of in found.groupby("task"):
        part.add(what=f"{task} WAR", value=100 * float((of.label == of.predicted).mean()))
        part.add(what=f"{task} most frequent class", value=100 * of.label.value_counts(True).max())


def lossless(part: Part) -> None:
    """Kill a bf16 run, resume it, compare it with a whole one; what deterministic=True costs."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    steps = 4 if part.tiny else 12
    cfg = lasting(replace(settings(part)[2], num_workers=0, save_minutes=0.0), steps)
    for deterministic in (False, True)[: 1 if part.tiny else 2]:
        torch.use_deterministic_algorithms(deterministic)
        ours, _ = part.models("MoAE", "small")
        row = timed(part, ours, part.batch("MoAE", "small", "video", 2 if part.tiny else 32), HALF)
        weights, of = [], replace(cfg, deterministic=deterministic)
        for faults in ([None], [("kill", steps // 2), None]):
            runs = part.work / f"lossless/{deterministic}-{len(faults)}"
            shutil.rmtree(runs, ignore_errors=True)
            statuses = [struck(of, runs, fault) for fault in faults]
            weights.append(load_file(next(runs.glob("*/weights.safetensors"))))
        off = max((a - weights[1][k]).abs().max().item() for k, a in weights[0].items())
        part.add(deterministic=deterministic, step_ms=row["step_ms"], killed=statuses == [-9, 0],
                 equal=off == 0.0, largest_difference=off)


def limited(name: str, command: list[str]) -> dict:
    """Run a part in a process group of its own, killed whole at its limit; say how it ended."""
    start, state = time.monotonic(), "out of time"
    print(f"{name} (at most {SECONDS[name]} s)", flush=True)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as it:
        try:
            _, errors = it.communicate(timeout=SECONDS[name])
            state = "failed" if it.returncode else "done"
        except subprocess.TimeoutExpired:
            os.killpg(it.pid, signal.SIGKILL)
            _, errors = it.communicate()
    said = errors.strip().splitlines()[-12:] if state == "failed" else []
    print(state, *said, sep="\n", flush=True)
    return dict(state=state, seconds=round(time.monotonic() - start, 1), said=said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="default: figures/gpu/<device>")
    parser.add_argument("--parts", nargs="+", choices=SECONDS, default=list(SECONDS))
    parser.add_argument("--workers", type=int, default=16, help="loading processes")
    parser.add_argument("--tiny", action="store_true", help="small models and few steps")
    parser.add_argument("--here", action="store_true", help="in this process, without limits")
    args = parser.parse_args()
    if args.device == "cpu" and not args.tiny:
        parser.error("no CUDA device was found: --tiny rehearses the check on a CPU")
    about = {p: version(p) for p in ("torch", "torchvision", "timm", "numpy")}
    about |= dict(device=bench.device_name(torch.device(args.device)), date=time.strftime("%F"))
    ask = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
    about[ask] = subprocess.getoutput(f"nvidia-smi --query-gpu={ask} --format=csv,noheader")
    args.out = args.out or ROOT / "figures/gpu" / re.sub(r"\W+", "-", about["device"]).lower()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.here:
        if "lossless" in args.parts:
            ensure_running()        # its children come from a process without CUDA
        for name in args.parts:
            globals()[name](Part(name, args))
        return 0
    found = dict(environment=about, tiny=args.tiny, parts={})
    for name in args.parts:
        given = [__file__, *sys.argv[1:], "--out", str(args.out), "--here", "--parts", name]
        found["parts"][name] = limited(name, [sys.executable, *given])
        (args.out / "check.json").write_text(json.dumps(found, indent=1) + "\n")
    return int(any(part["state"] != "done" for part in found["parts"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
