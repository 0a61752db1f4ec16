"""What models cost: operations and parameters, counted, and time on this machine (`make bench`)."""
import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .config import ConfigError
from .models import S4D, VARIANTS, DualMAE, MoAE, create, reference, removed_tokens, to_released
from .models.tokens import as_clip, random_mask
from .training.runs import device_name
from .training.setup import keep_memory, optimizer_for, set_lr

EXPERTS = {"dense": 0, "MoAE": 8, "pre-training": None}            # of each stage
RATIO = {"image": 0.9, "video": 0.95}                             # of pre-training's masks
BATCH = {"cpu": {"image": 8, "video": 1}, "cuda": {"image": 64, "video": 8}}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
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
    from torch.utils.benchmark import Timer  # whose import looks for a CUDA compiler, aloud
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


class Peer(nn.Module):
    """Hugging Face's VideoMAE of the same size: dense fine-tuning, or pre-training."""

    def __init__(self, stage: str, size: str, task: str):
        super().__init__()
        try:
            library = import_module("transformers")              # no dependency of ours
        except ImportError as error:
            raise ConfigError("transformers is not installed, so there is no peer to measure: "
                              "`pip install transformers`, or call without peers") from error
        spec = VARIANTS[f"{size}_patch16_160"]
        width, depth, heads = (spec[key] for key in ("embed_dim", "depth", "num_heads"))
        config = library.VideoMAEConfig(
            image_size=spec["img_size"], num_labels=7,
            num_frames=spec["num_frames"] if task == "video" else 2,
            hidden_size=width, intermediate_size=4 * width, decoder_intermediate_size=2 * width,
            num_hidden_layers=depth, decoder_num_hidden_layers=max(depth // 3, 2),
            num_attention_heads=heads, decoder_num_attention_heads=heads // 2,
            decoder_hidden_size=width // 2)
        kind = "PreTraining" if stage == "pre-training" else "VideoClassification"
        self.model = getattr(library, f"VideoMAEFor{kind}")(config)
        self.balance_loss = int                                     # 0: there are no experts

    def forward(self, x: Tensor, *mask: Tensor) -> Tensor:
        out = self.model(as_clip(x).transpose(1, 2), *mask)         # [B, T, 3, H, W]
        return out.loss if mask else out.logits


def training_step(model: nn.Module, x: Tensor, y: Tensor, mask: Tensor | None,
                  dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a function that trains one step on one batch in `dtype`, and returns the loss.

    Each has its authors' AdamW: ours and the peer's are fused, the reference's is plain.
    """
    bare = getattr(model.train(), "_orig_mod", model)             # of a compiled model
    if isinstance(bare, S4D | DualMAE):
        optimizer = optimizer_for(model, (0.9, 0.999), 0.05)
        set_lr(optimizer, 1e-5)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=isinstance(model, Peer))
    inputs = [x] if mask is None else [x, mask]
    if isinstance(bare, DualMAE):
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


def race(calls: dict[str, Callable[[], Tensor]], least: float) -> dict[str, float]:
    """Return the seconds of the fastest of three or more calls of each, called in turns."""
    best, begun = dict.fromkeys(calls, math.inf), time.monotonic()
    for turn in itertools.count():
        for name, call in calls.items():
            start = time.perf_counter()
            call().item()                                 # waits for a GPU
            if turn:                                      # the first call warms up
                best[name] = min(best[name], time.perf_counter() - start)
        if turn >= 3 and time.monotonic() - begun > least * len(calls):
            return best


def measure(stage: str, size: str, task: str, device: str, rates: dict[str, float],
            least: float, peers: bool = False) -> dict:
    """Return a row of training steps: of each precision milliseconds, per cent of what matrix
    products do at `rates` FLOP/s, and over ours the time of the float32 reference and the peer."""
    counted = cost(partial(model_of, stage, size), task, RATIO[task], step=True)
    spec, batch, mask = VARIANTS[f"{size}_patch16_160"], BATCH[device][task], None
    frames = (spec["num_frames"],) if task == "video" else ()
    x = torch.randn(batch, 3, *frames, spec["img_size"], spec["img_size"], device=device)
    y = torch.randint(7, (batch,), device=device)
    if stage == "pre-training":
        mask = random_mask(batch, counted["tokens"], RATIO[task], device=device)
    ours = model_of(stage, size)
    plain = plain_of(stage, size, ours).to(device)
    peer = Peer(stage, size, task).to(device) if peers and stage != "MoAE" else None
    calls = {"reference": training_step(plain, x, y, mask, torch.float32)}
    for name, dtype in DTYPES.items():
        calls[name] = training_step(ours.to(device), x, y, mask, dtype)
        if peer is not None:
            calls[f"peer {name}"] = training_step(peer, x, y, mask, dtype)
    taken, work = race(calls, least), batch * counted["GFLOP"]
    row = {"size": size, "stage": stage, "input": task, "batch": batch, "GFLOP": work}
    for name in DTYPES:
        row |= {f"{name}: ms": 1e3 * taken[name],
                f"{name}: %": 1e11 * work / taken[name] / rates[name],
                f"{name}: reference": taken["reference"] / taken[name]}
        if peer is not None:
            row[f"{name}: peer"] = taken[f"peer {name}"] / taken[name]
    return row


def main(device: str, seconds: float, peers: bool = False) -> None:
    """Print training steps of every stage on "cpu" or "cuda", in float32 and in bf16."""
    keep_memory()
    rates = {name: matmul_rate(device, dtype, min(1.0, seconds)) for name, dtype in DTYPES.items()}
    said = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
    print(f"{device_name(torch.device(device))}, torch {torch.__version__}; "
          f"matrix products: {said}", flush=True)
    rows = [measure(stage, size, task, device, rates, seconds, peers)
            for size in ("small", "base") for stage in EXPERTS for task in BATCH[device]]
    print(pd.DataFrame(rows).to_string(index=False, na_rep="", float_format="{:.2f}".format))
