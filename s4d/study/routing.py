"""Routing of a trained model: recorded gates, one expert off, the two ways to route in evaluation.

Gates are kept by block index, from 0; the tables number blocks and experts from 1.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .intervals import cluster_t, holm, mean_interval
from .stimuli import features, probabilities

Routes = dict[int, Tensor]      # block index -> gates [N, L, E]
MODES = {"paper": (None, False), "noise only": (None, True), "capacity only": (1.0, False),
         "released": (1.0, True)}             # capacity factor and noise in evaluation
WORTH = 0.5     # points of probability from which an expert's absence is worth a remark


def _layers(model: nn.Module) -> dict:
    if not model.moae_layers():
        raise ValueError("this model has no MoAE layer (num_experts=0): record the routing of a "
                         "model that was made with experts")
    return model.moae_layers()


@contextmanager
def record_routing(model: nn.Module) -> Iterator[dict[int, list[Tensor]]]:
    """Collect the gates `[B, L, E]` of every forward pass inside the context, by block.

    A token's gates are 0 for experts that were not chosen and sum to 1, less what a limit dropped.
    """
    layers = _layers(model)
    before = {i: layer.record for i, layer in layers.items()}
    records: dict[int, list[Tensor]] = {i: [] for i in layers}
    try:
        for i, layer in layers.items():
            layer.record = records[i]
        yield records
    finally:
        for i, layer in layers.items():
            layer.record = before[i]


def routes_of(model: nn.Module, x: Tensor) -> Routes:
    """Gates of all samples, float32 on the CPU; the model is left in evaluation mode."""
    with record_routing(model) as records:
        features(model, x)
    return {i: torch.cat([g.float().cpu() for g in gates]) for i, gates in records.items()}


@contextmanager
def without_expert(model: nn.Module, block: int, expert: int) -> Iterator[nn.Module]:
    """Inside the context the router of one block never chooses one expert (both from 0)."""
    bias = _layers(model)[block].router.bias.data
    before = bias[expert].clone()
    try:
        bias[expert] = -1e9
        yield model
    finally:
        bias[expert] = before


@contextmanager
def routing_mode(model: nn.Module, capacity_factor: float | None, noise: bool) -> Iterator:
    """`model.set_routing(...)` for the length of the context."""
    before = {i: (m.capacity_factor, m.noise_mode) for i, m in _layers(model).items()}
    try:
        yield model.set_routing(capacity_factor=capacity_factor, noise=noise)
    finally:
        for i, layer in model.moae_layers().items():
            layer.capacity_factor, layer.noise_mode = before[i]


def cost_of_experts(model: nn.Module, x: Tensor, rows: pd.DataFrame, target: np.ndarray,
                    task: str) -> pd.DataFrame:
    """Probability of the true class without each expert in turn, minus that with all experts.

    Probabilities tell more than decisions: a weak branch may shift every answer and turn none.
    Returns: block, expert, task, emotion (or "all"), change (points of probability, negative when
    the expert is missed), and the rest of `cluster_t`.
    """
    def true_class() -> np.ndarray:
        return 100.0 * probabilities(model, x, task)[np.arange(len(target)), target]
    whole, label, out = true_class(), rows.label.to_numpy(), []
    groups = {"all": np.ones(len(rows), bool), **{e: label == e for e in sorted(set(label))}}
    for block, moae in _layers(model).items():
        for expert in range(moae.num_experts):
            with without_expert(model, block, expert):
                change = true_class() - whole
            for emotion, use in groups.items():
                found = cluster_t(change[use], rows.subject[use])
                out.append(dict(block=block + 1, expert=expert + 1, task=task, emotion=emotion,
                                change=found.pop("mean"), **found))
    return pd.DataFrame(out)


def corrected(costs: pd.DataFrame) -> pd.DataFrame:
    """Add p_holm to `cost_of_experts`: over all rows of all samples, and over those of emotions."""
    out, known = costs.assign(p_holm=np.nan), costs.p.notna()
    for part in (costs.emotion == "all", costs.emotion != "all"):
        out.loc[part & known, "p_holm"] = holm(costs.p[part & known].to_numpy())
    return out


def compare_modes(model: nn.Module, x: Tensor, target: np.ndarray, task: str,
                  seed: int = 0) -> pd.DataFrame:
    """Two passes through each of MODES; the second in another sample order.

    Returns: task, mode, sample, correct (share of the two passes), changed (their predictions
    differ), shift (total variation distance of their probabilities), dropped (share of the
    assignments over the capacity limit).
    """
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    layers, out = _layers(model), []
    for mode, (capacity, noise) in MODES.items():
        with (routing_mode(model, capacity, noise), torch.random.fork_rng(),
              record_routing(model) as records):
            torch.manual_seed(seed)
            first = probabilities(model, x, task)
            second = np.empty_like(first)
            second[order.numpy()] = probabilities(model, x[order], task)
        passes = [(gates, layers[i].top_k) for i, batches in records.items() for gates in batches]
        kept = sum(int((gates > 0).sum()) for gates, _ in passes)
        asked = sum(gates[..., 0].numel() * top_k for gates, top_k in passes)
        answers = np.stack([first.argmax(1), second.argmax(1)])
        out.append(pd.DataFrame(dict(
            task=task, mode=mode, sample=range(len(x)), correct=(answers == target).mean(0),
            changed=(answers[0] != answers[1]).astype(float),
            shift=np.abs(first - second).sum(1) / 2, dropped=1 - kept / asked)))
    return pd.concat(out, ignore_index=True)


def modes_table(passes: pd.DataFrame, subjects: dict[str, pd.Series],
                resamples: int = 1000) -> pd.DataFrame:
    """Compare every routing mode of each task with the paper's, all in per cent.

    passes: of `compare_modes`, seeds and tasks stacked; subjects: of each task's samples.
    """
    measures, out = ["correct", "changed", "shift", "dropped"], []
    for task, part in passes.groupby("task", sort=False):
        mean = 100 * part.groupby(["mode", "sample"], sort=False)[measures].mean()
        paper = mean.loc["paper"].correct
        for mode in MODES:
            found = mean.loc[mode]
            change = mean_interval(found.correct - paper, subjects[task], resamples)
            war, *others = found.mean()
            out.append((task, mode, war, *change, *others))
    return pd.DataFrame(out, columns=["task", "mode", "war", "change", "low", "high",
                                      *measures[1:]])


@torch.no_grad()
def branch_size(model: nn.Module, x: Tensor) -> dict[int, float]:
    """Root mean square of a block's MoAE output over that of its MLP, for normalised samples."""
    found = model.forward_intermediates(x)
    inputs = [found["embed"], *found["blocks"][:-1]]
    out = {}
    for i, layer in _layers(model).items():
        block, h = model.blocks[i], inputs[i]
        n = block.norm2(h + block.attn(block.norm1(h)))
        out[i] = float(layer(n).square().mean().sqrt() / block.mlp(n).square().mean().sqrt())
    return out
