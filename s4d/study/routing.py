"""Routing of a trained model: recording the gates, switching an expert off, the two ways to route in evaluation.

Gates are kept by block index, from 0 as in `model.blocks`; the tables number blocks and experts from 1, as they are read.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from .intervals import FEWEST, cluster_t, holm, mean_interval, units_of

from .stimuli import batches, probabilities

Routes = dict[int, Tensor]      # block index -> gates [N, L, E]


def _layers(model: nn.Module) -> dict:
    layers = model.moae_layers()
    if not layers:
        raise ValueError("this model has no MoAE layer (experts=0): record the routing of a model that was made with experts")
    return layers


@contextmanager
def record_routing(model: nn.Module) -> Iterator[dict[int, list[Tensor]]]:
    """Collects the gates of every forward pass inside the context.

    Yields:
        block index -> list with one float tensor `[B, L, E]` a forward pass; a gate is 0 where the expert was not chosen,
        and the gates of a token sum to 1 (to less where a capacity limit dropped an assignment).
    Raises:
        ValueError: for a model without experts.
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


@torch.no_grad()
def routes_of(model: nn.Module, x: Tensor) -> Routes:
    """Gates of all samples, float32 `[N, L, E]` on the CPU by block index; the model is left in evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    with record_routing(model) as records:
        for batch in batches(x):
            model.forward_features(batch.to(device))
    return {i: torch.cat([g.float().cpu() for g in gates]) for i, gates in records.items()}


@contextmanager
def without_expert(model: nn.Module, block: int, expert: int) -> Iterator[nn.Module]:
    """Inside the context the router of one block never chooses one expert: its tokens go to their next best ones.

    Raises:
        ValueError: for a block without experts or an expert number outside it (both counted from 0).
    """
    layers = _layers(model)
    if block not in layers or not 0 <= expert < layers[block].num_experts:
        raise ValueError(f"no expert {expert} in block {block}: blocks with experts are {sorted(layers)}, "
                         f"experts 0..{next(iter(layers.values())).num_experts - 1}")
    bias = layers[block].router.bias.data
    before = bias[expert].clone()
    try:
        bias[expert] = -1e9
        yield model
    finally:
        bias[expert] = before


@contextmanager
def routing_mode(model: nn.Module, capacity_factor: float | None, noise: bool) -> Iterator[nn.Module]:
    """`model.set_routing(...)` for the length of the context; the mode before it comes back."""
    before = {i: (layer.capacity_factor, layer.noise_mode) for i, layer in _layers(model).items()}
    try:
        yield model.set_routing(capacity_factor=capacity_factor, noise=noise)
    finally:
        for i, layer in model.moae_layers().items():
            layer.capacity_factor, layer.noise_mode = before[i]


WORTH = 0.5     # points of probability from which an expert's absence is worth a remark


def cost_of_experts(model: nn.Module, x: Tensor, rows: pd.DataFrame, target: np.ndarray, task: str) -> pd.DataFrame:
    """Probability of the true class without each expert in turn, minus that with all experts, over all samples and by emotion.

    Probabilities tell more than decisions: a quiet branch may shift every answer and turn none.

    Args:
        x: uint8 samples of the task.
        rows: table of the samples (label, subject).
        target: class number of each.
    Returns:
        block, expert, task, emotion ("all" over all samples), change (points of probability, negative when the expert is missed),
        low, high, p (of `over_people`), samples, subjects.
    """
    true = lambda: 100.0 * probabilities(model, x, task)[np.arange(len(target)), target]
    whole, out = true(), []
    label = rows.label.to_numpy()
    groups = {"all": np.ones(len(rows), bool), **{e: label == e for e in sorted(set(label))}}
    for block, moae in _layers(model).items():
        for expert in range(moae.num_experts):
            with without_expert(model, block, expert):
                change = true() - whole
            for emotion, use in groups.items():
                found = cluster_t(change[use], rows.subject[use])
                out.append(dict(block=block + 1, expert=expert + 1, task=task, emotion=emotion, change=found.pop("mean"), **found))
    return pd.DataFrame(out)


def cluster_t(values: np.ndarray, subjects: pd.Series) -> dict:
    """Mean of paired differences with its 95 % interval and p, where people may have several samples and be few.

    A percentile bootstrap of eight people is too narrow, and its p has a floor that no correction over hundreds of cells outlasts.

    Args:
        values: `[N]`, one a sample.
        subjects: N names; a sample without one is a person of its own.
    Returns:
        mean, low, high, p (two-sided; missing, as the limits, with fewer than FEWEST people), samples, subjects.
    Source: linearised ratio estimate over clusters, Student's t with people - 1 degrees of freedom (Cochran 1977, section 6).
    """
    unit, mean = units_of(subjects), float(values.mean())
    people = unit.max() + 1
    low = high = p = np.nan
    if people >= FEWEST:
        squares = np.square(np.bincount(unit, weights=values - mean)).sum()
        error = np.sqrt(people / (people - 1) * squares) / len(values)
        half = student.ppf(0.975, people - 1) * error
        low, high, p = mean - half, mean + half, 2 * student.sf(abs(mean) / max(error, 1e-300), people - 1)
    return dict(mean=mean, low=low, high=high, p=p, samples=len(values), subjects=int(people))


def corrected(costs: pd.DataFrame) -> pd.DataFrame:
    """Adds p_holm to `cost_of_experts`, tasks stacked: Holm's correction over the means of all samples, and over all cells of emotions."""
    out, known = costs.assign(p_holm=np.nan), costs.p.notna()
    for part in (costs.emotion == "all", costs.emotion != "all"):
        out.loc[part & known, "p_holm"] = holm(costs.p[part & known].to_numpy())
    return out


MODES = {"paper": (None, False), "noise only": (None, True), "capacity only": (1.0, False), "released": (1.0, True)}


def compare_modes(model: nn.Module, x: Tensor, target: np.ndarray, task: str, seed: int = 0) -> pd.DataFrame:
    """The four combinations of noise and capacity limit in evaluation, two passes each; the second in another sample order.

    Args:
        x: uint8 samples of the task.
        target: class number of each.
        seed: of the noise and of the order.
    Returns:
        one row a sample and mode: task, mode, sample, correct (share of the two passes), changed (predictions differ between
        the passes), shift (total variation distance of the two probability vectors), dropped (share of the assignments
        that the capacity limit removed, over the whole mode).
    """
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    out = []
    for mode, (capacity, noise) in MODES.items():
        with routing_mode(model, capacity, noise), torch.random.fork_rng(), record_routing(model) as records:
            torch.manual_seed(seed)
            first, second = probabilities(model, x, task), np.empty((len(x), model.head[task].out_features))
            second[order.numpy()] = probabilities(model, x[order], task)
        kept = sum(int((g > 0).sum()) for gates in records.values() for g in gates)
        asked = sum(g.shape[0] * g.shape[1] * model.moae_layers()[i].top_k for i, gates in records.items() for g in gates)
        hits = np.stack([p.argmax(1) == target for p in (first, second)])
        out.append(pd.DataFrame(dict(task=task, mode=mode, sample=range(len(x)), correct=hits.mean(0),
                                     changed=(first.argmax(1) != second.argmax(1)).astype(float),
                                     shift=np.abs(first - second).sum(1) / 2, dropped=1 - kept / asked)))
    return pd.concat(out, ignore_index=True)


def modes_table(passes: pd.DataFrame, subjects: dict[str, pd.Series], resamples: int = 1000) -> pd.DataFrame:
    """Every routing mode of each task, against the paper's.

    Args:
        passes: of `compare_modes`, seeds and tasks stacked.
        subjects: task -> subject of each sample.
    Returns:
        task, mode, war (%), change (points of WAR against the paper's mode, negative is a loss), low, high (95 % over subjects), changed (%
        of the predictions that differ between two passes), shift (total variation, %), dropped (% of the assignments).
    """
    out = []
    for task, part in passes.groupby("task", sort=False):
        mean = 100 * part.groupby(["mode", "sample"], sort=False)[["correct", "changed", "shift", "dropped"]].mean()
        for mode in MODES:
            m = mean.loc[mode]
            change, low, high = mean_interval((m.correct - mean.loc["paper"].correct).to_numpy(), subjects[task], resamples)
            out.append((task, mode, m.correct.mean(), change, low, high, m.changed.mean(), m["shift"].mean(), m.dropped.mean()))
    return pd.DataFrame(out, columns=["task", "mode", "war", "change", "low", "high", "changed", "shift", "dropped"])


def modes_as_read(table: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """`modes_table` as it is printed: one decimal throughout, and no change of the mode against which changes are counted.

    Args:
        kinds: task -> its name, with the number of samples.
    """
    out = pd.DataFrame({"samples": table.task.map(kinds), "evaluation": table["mode"], "WAR (%)": table.war.map("{:.1f}".format)})
    change = [f"{r.change:+z.1f} [{r.low:+z.1f}, {r.high:+z.1f}]".replace("-", "\N{MINUS SIGN}") for r in table.itertuples()]
    out["change of WAR (points)"] = np.where(table["mode"] == "paper", "--", change)
    for name, column in (("answers that differ (%)", "changed"), ("shift of probability (%)", "shift"), ("dropped (%)", "dropped")):
        out[name] = table[column].map("{:.1f}".format)
    return out


@torch.no_grad()
def branch_size(model: nn.Module, x: Tensor) -> dict[int, float]:
    """How loud the experts are: root mean square of a block's MoAE output over that of its MLP, by block index.

    Args:
        x: normalised photos `[B, 3, H, W]` or clips `[B, 3, T, H, W]`.
    Returns:
        0 where the experts say nothing (a model before its first step), 1 where both branches are of one size.
    """
    found = model.forward_intermediates(x)
    inputs = [found["embed"], *found["blocks"][:-1]]
    out = {}
    for i, layer in _layers(model).items():
        block, h = model.blocks[i], inputs[i]
        n = block.norm2(h + block.attn(block.norm1(h)))
        out[i] = float(layer(n).square().mean().sqrt() / block.mlp(n).square().mean().sqrt())
    return out
