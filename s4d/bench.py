"""What models cost: operations and parameters, counted, and time on this machine (`make bench`)."""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from .models import S4D, VARIANTS, DualMAE, MoAE, create, reference, removed_tokens, to_released
from .models.tokens import random_mask
from .training.runs import device_name

EXPERTS = {"dense": 0, "MoAE": 8, "pre-training": None}            # of each stage
RATIO = {"image": 0.9, "video": 0.95}                             # of pre-training's masks
BATCH = {"cpu": {"image": 8, "video": 1}, "cuda": {"image": 64, "video": 8}}
SHAPES = ((1024, 1024, 1024), (800, 768, 3072), (8192, 768, 3072))    # m, k, n of matrix products


def cost(build: Callable[[], nn.Module], task: str, ratio: float, step: bool) -> dict[str, float]:
    """What one sample costs the `S4D` or `DualMAE` that `build` makes, counted without content.

    Pre-training removes a share `ratio` of the tokens. Counted is a training `step`, or a forward
    pass in evaluation. Returns: tokens; M: parameters, in millions; GFLOP: of matrix products with
    the chosen experts, an addition and a multiplication are two.
    """
    with torch.device("meta"):
        model = build().train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        encoder = getattr(model, "encoder", model)
        length, side = encoder.num_tokens[task], encoder.img_size
        frames = (encoder.num_frames,) if task == "video" else ()
        inputs = [torch.empty(1, 3, *frames, side, side)]
        if isinstance(model, DualMAE):
            inputs += [torch.zeros(1, length, dtype=torch.bool), removed_tokens(length, ratio)]
        model.train(step)
        mixed = [m for m in model.modules() if isinstance(m, MoAE)]
        for layer in mixed:
            layer.grouped = False
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            out = model(*inputs)
            if step:
                out.sum().backward()             # of plain attention: computes nothing twice
    unchosen = sum(4 * length * (layer.num_experts - layer.top_k) * layer.w1[0].numel()
                   for layer in mixed if layer.top_k)
    flops = counter.get_total_flops() - (3 if step else 1) * unchosen
    parameters = sum(p.numel() for p in model.parameters())
    return {"tokens": length, "M": parameters / 1e6, "GFLOP": flops / 1e9}


def sizes(ratio: dict[str, float]) -> list[dict]:
    """Tokens, parameters and operations of every variant, for an image and for a clip."""
    rows = []
    for variant in VARIANTS:
        builds = (partial(create, f"s4d_{variant}", num_experts=0),
                  partial(create, f"s4d_{variant}"), partial(create, f"s4d_mae_{variant}"))
        for task, share in ratio.items():
            dense, s4d, mae = (cost(build, task, share, step=False) for build in builds)
            rows.append({
                "variant": variant, "task": task, "tokens": s4d["tokens"], "dense, M": dense["M"],
                "S4D, M": s4d["M"], "autoencoder, M": mae["M"], "S4D, GFLOP": s4d["GFLOP"],
                "pre-training, GFLOP": mae["GFLOP"]})
    return rows


def seconds_of(call: Callable, least: float) -> float:
    """Return the seconds of the fastest of several calls, which take `least` seconds together."""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=least).times)


def matmul_rate(device: str, dtype: torch.dtype, least: float) -> float:
    """Return the machine's own rate of matrix products, FLOP/s: the best of a few shapes."""
    rates = []
    for m, k, n in SHAPES:
        a, b = (torch.randn(rows, k, device=device, dtype=dtype) for rows in (m, n))
        rates.append(2 * math.prod((m, k, n)) / seconds_of(partial(F.linear, a, b), least))
    return max(rates)


def model_of(stage: str, size: str) -> nn.Module:
    spec = VARIANTS[f"{size}_patch16_160"]
    if stage == "pre-training":
        return DualMAE(**spec)
    return S4D(**spec, num_experts=EXPERTS[stage])


def plain_of(stage: str, size: str, model: nn.Module) -> nn.Module:
    """Return the plain reference of a model, with its weights."""
    spec = VARIANTS[f"{size}_patch16_160"]
    if stage == "pre-training":
        plain = reference.Autoencoder(**spec)
    else:
        plain = reference.Classifier(**spec, num_experts=EXPERTS[stage])
        for layer in plain.layers():
            layer.noise = True                        # as ours in training
    plain.load_state_dict(to_released(model))
    return plain


def training_step(model: nn.Module, x: Tensor, y: Tensor, mask: Tensor | None,
                  dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a function that trains one step on one batch in `dtype`, and returns the loss."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5)
    inputs = [x] if mask is None else [x, mask]
    if isinstance(model, DualMAE):
        inputs.append(int(mask[0].sum()))                 # a GPU need not wait to count it

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            loss = model(*inputs)
            if mask is None:
                loss = F.cross_entropy(loss.float(), y) + 1e-3 * model.balance_loss()
        loss.backward()
        optimizer.step()
        return loss.detach()
    return step


def measure(stage: str, size: str, task: str, device: str, dtype: torch.dtype, rate: float,
            least: float) -> dict:
    """Return a row: one training step beside matrix products at `rate` FLOP/s and the reference."""
    counted = cost(partial(model_of, stage, size), task, RATIO[task], step=True)
    spec, batch, mask = VARIANTS[f"{size}_patch16_160"], BATCH[device][task], None
    frames = (spec["num_frames"],) if task == "video" else ()
    x = torch.randn(batch, 3, *frames, spec["img_size"], spec["img_size"], device=device)
    y = torch.randint(7, (batch,), device=device)
    if stage == "pre-training":
        mask = random_mask(batch, counted["tokens"], RATIO[task], device=device)
    ours = model_of(stage, size)
    taken = [seconds_of(training_step(model.to(device), x, y, mask, dtype), least)
             for model in (ours, plain_of(stage, size, ours))]
    work = batch * counted["GFLOP"]
    return {"size": size, "stage": stage, "input": task, "batch": batch, "GFLOP": work,
            "ms": 1e3 * taken[0], "% of matrix products": 1e11 * work / taken[0] / rate,
            "times the reference": taken[1] / taken[0]}


def main(device: str, seconds: float) -> None:
    """Print training steps of every stage on "cpu" or "cuda", in float32 and in bf16."""
    print(f"{device_name(torch.device(device))}, torch {torch.__version__}")
    for dtype in (torch.float32, torch.bfloat16):
        rate = matmul_rate(device, dtype, min(1.0, seconds))
        rows = [measure(stage, size, task, device, dtype, rate, seconds)
                for size in ("small", "base") for stage in EXPERTS for task in BATCH[device]]
        print(f"\n{dtype}; matrix products: {rate / 1e9:,.0f} GFLOP/s")
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.1f}".format), flush=True)
