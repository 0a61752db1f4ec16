"""Routing of a trained model: recorded gates, one expert off, the two ways to route in evaluation.

Gates are kept by block index, from 0; the tables number blocks and experts from 1.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .stats import cluster_t, mean_interval
from .stimuli import features, probabilities

Routes = dict[int, Tensor]      # block index -> gates [N, L, E]
MODES = {"paper": (None, False), "noise only": (None, True), "capacity only": (1.0, False),
         "released": (1.0, True)}             # capacity factor and noise in evaluation


@contextmanager
def record_routing(model: nn.Module) -> Iterator[dict[int, list[Tensor]]]:
    """Collect the gates `[B, L, E]` of every forward pass inside the context, by block.

    A token's gates are 0 for experts that were not chosen and sum to 1, less what a limit dropped.
    """
    layers = model.moae_layers()
    if not layers:
        raise ValueError("this model has no MoAE layer (num_experts=0): record the routing of a "
                         "model that was made with experts")
    records: dict[int, list[Tensor]] = {i: [] for i in layers}
    try:
        for i, layer in layers.items():
            layer.record = records[i]
        yield records
    finally:
        for layer in layers.values():
            layer.record = None


def routes_of(model: nn.Module, x: Tensor) -> Routes:
    """Gates of all samples, float32 on the CPU; the model is left in evaluation mode."""
    with record_routing(model) as records:
        features(model, x)
    return {i: torch.cat([g.float().cpu() for g in gates]) for i, gates in records.items()}


@contextmanager
def without_expert(model: nn.Module, block: int, expert: int) -> Iterator[nn.Module]:
    """Inside the context the router of one block never chooses one expert (both from 0)."""
    bias = model.moae_layers()[block].router.bias.data
    before = bias[expert].clone()
    try:
        bias[expert] = -1e9
        yield model
    finally:
        bias[expert] = before


def cost_of_experts(model: nn.Module, x: Tensor, rows: pd.DataFrame, target: np.ndarray,
                    task: str) -> pd.DataFrame:
    """Probability of the true class without each expert in turn, minus that with all experts.

    Probabilities tell more than decisions: a weak branch may shift every answer and turn none.
    Returns: block, expert, task, change (points of probability, negative when the expert is
    missed), and the rest of `cluster_t`.
    """
    def true_class() -> np.ndarray:
        return 100.0 * probabilities(model, x, task)[np.arange(len(target)), target]
    whole, out = true_class(), []
    for block, moae in model.moae_layers().items():
        for expert in range(moae.num_experts):
            with without_expert(model, block, expert):
                found = cluster_t(true_class() - whole, rows.subject)
            out.append(dict(block=block + 1, expert=expert + 1, task=task,
                            change=found.pop("mean"), **found))
    return pd.DataFrame(out)


def compare_modes(model: nn.Module, x: Tensor, target: np.ndarray, task: str,
                  seed: int = 0) -> pd.DataFrame:
    """Two passes through each of MODES; the second in another sample order.

    Returns: task, mode, sample, correct (share of the two passes), changed (their predictions
    differ), shift (total variation distance of their probabilities), dropped (share of the
    assignments over the capacity limit).
    """
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    model, out = deepcopy(model), []                        # the caller's keeps its own mode
    layers = model.moae_layers()
    for mode, (capacity, noise) in MODES.items():
        model.set_routing(capacity_factor=capacity, noise=noise)
        with torch.random.fork_rng(), record_routing(model) as records:
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

    Args:
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
