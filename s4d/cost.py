"""What models cost: operations and parameters, counted on tensors without content."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .models import VARIANTS, DualMAE, MoAE, create, removed_tokens


def cost(build: Callable[[], nn.Module], task: str, ratio: float, step: bool) -> dict[str, float]:
    """What one sample costs the `S4D` or `DualMAE` that `build` makes, counted without content.

    Args:
        ratio: share of tokens that pre-training removes.
        step: count a training step, not a forward pass in evaluation.
    Returns:
        tokens; M: parameters, in millions; GFLOP: of matrix products with the chosen experts, an
        addition and a multiplication are two.
    """
    with torch.device("meta"):
        model = build().train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        encoder = getattr(model, "encoder", model)
        length, side = encoder.num_tokens[task], encoder.img_size
        frames = (encoder.num_frames,) if task == "video" else ()
        call = partial(model, torch.empty(1, 3, *frames, side, side))
        if isinstance(model, DualMAE):
            mask = torch.zeros(1, length, dtype=torch.bool)
            call = partial(model, *call.args, mask, removed_tokens(length, ratio))
        model.train(step)
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:   # whose backward pass computes nothing twice
            out = call()
            if step:
                out.sum().backward()
    unchosen = sum(4 * length * (layer.num_experts - layer.top_k) * layer.w1[0].numel()
                   for layer in model.modules() if isinstance(layer, MoAE) and layer.top_k)
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
