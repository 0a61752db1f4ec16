"""What data-parallel training costs on many GPUs, on paper: bytes moved a step against the time that a step computes."""
from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..config import ConfigError
from ..models import create, random_mask

BUCKET = 25 * 2 ** 20            # bytes of gradients that DDP sends at once
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Machine:
    """What is assumed of the hardware.

    Raises:
        ConfigError: for a rate or a number that is not above 0.
    """

    tflops: float = 400.0        # peak rate of a GPU in bf16, 10^12 operations per second
    use: float = 0.35            # share of it that a transformer of this size reaches
    node: int = 8                # GPUs of a machine
    inside: float = 300.0        # GB/s that a GPU sends to the others of its machine
    between: float = 25.0        # GB/s of the network card that each GPU of a machine has
    latency: float = 10.0        # microseconds of a message

    def __post_init__(self):
        for name, value in vars(self).items():
            if not (value >= 0 if name == "latency" else value > 0):
                raise ConfigError(f"{name} is {value!r}: expected a number {'from' if name == 'latency' else 'above'} 0")


def work(name: str) -> dict[str, float]:
    """Operations of a training step for one photo and for one clip, and parameters, of a model: counted on its forward pass.

    A backward pass takes twice a forward pass. The sample of a masked autoencoder is one crop with its mask.
    """
    model = create(name).train()
    size, frames = (getattr(model, "encoder", model).img_size, getattr(model, "encoder", model).num_frames)
    out = {"parameters": sum(p.numel() for p in model.parameters())}
    for task, ratio in (("image", 0.90), ("video", 0.95)):
        x = torch.zeros(1, 3, *((frames,) if task == "video" else ()), size, size)
        mask = (random_mask(1, model.encoder.num_tokens[task], ratio),) if "mae" in name else ()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x, *mask)
        out[task] = 3.0 * counter.get_total_flops()
    return out


def exchange(parameters: float, gpus: int, machine: Machine) -> tuple[float, float, float]:
    """Bytes that a GPU sends a step, seconds for them, and seconds of the last bucket, which no computing hides.

    Gradients are float32 and summed in rings (2 (n - 1) / n times their size), one through each network card of a machine, so that
    the slower of a GPU's link and all cards of its machine sets the pace; each bucket waits for 2 log2 n messages.
    """
    sent = 2 * (gpus - 1) / gpus * 4 * parameters
    rate = 1e9 * (machine.inside if gpus <= machine.node else min(machine.inside, machine.node * machine.between))
    wait = 2 * math.log2(gpus) * machine.latency * 1e-6
    buckets = math.ceil(4 * parameters / BUCKET)
    return sent, sent / rate + buckets * wait, sent / buckets / rate + wait


def table(model: dict[str, float], batch: dict[str, int], machine: Machine = Machine(), strong: bool = False,
          gpus: tuple[int, ...] = GPUS) -> pd.DataFrame:
    """One row a number of GPUs: GB sent by each a step, milliseconds for it, and for either modality samples on a GPU, milliseconds of
    computing and of the step, and efficiency (the share of the step that computes).

    Args:
        model: of `work`.
        batch: samples a step on one machine, by modality.
        strong: the same batch on all GPUs; otherwise it grows with the machines.
    """
    rows = []
    for n in gpus:
        sent, moving, last = exchange(model["parameters"], n, machine)
        row = {"gpus": n, "gb_sent": sent / 1e9, "ms_moving": 1e3 * moving}
        for task, size in batch.items():
            each = size / n if strong else size / machine.node
            computing = each * model[task] / (machine.tflops * 1e12 * machine.use)
            step = computing + max(last, moving - computing * 2 / 3)          # gradients travel while the backward pass goes on
            possible = each >= 1
            row |= {f"{task}_each": each, f"{task}_ms": 1e3 * computing, f"{task}_step_ms": 1e3 * step if possible else math.nan,
                    f"{task}_efficiency": computing / step if possible else math.nan}
        rows.append(row)
    return pd.DataFrame(rows)


def limit(found: pd.DataFrame, task: str, least: float = 0.8) -> int | None:
    """The largest number of GPUs at which a step still computes for that share of its time."""
    good = found[found[f"{task}_efficiency"] >= least]["gpus"]
    return int(good.max()) if len(good) else None


def text(found: pd.DataFrame) -> str:
    """The table for a terminal, and where it turns."""
    turns = [f"{task}s: at least 80 % of a step computes up to {limit(found, task) or 'no number of'} GPUs" for task in ("image", "video")]
    return "\n".join([found.to_string(index=False, float_format=lambda v: f"{v:.3g}", na_rep="-"), *turns])
