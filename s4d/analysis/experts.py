"""Which expert serves whom: routing records, usage, specificity in bits, agreement between seeds, what switching off changes.

Gates are kept by block index, from 0 as in `model.blocks`; the tables number blocks and experts from 1, as they are read.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor, nn

from .stats import mean_interval
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
    if block not in layers or not 0 <= expert < layers[block].experts:
        raise ValueError(f"no expert {expert} in block {block}: blocks with experts are {sorted(layers)}, "
                         f"experts 0..{next(iter(layers.values())).experts - 1}")
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
    before = {i: (layer.capacity_factor, layer.noisy) for i, layer in _layers(model).items()}
    try:
        yield model.set_routing(capacity_factor=capacity_factor, noise=noise)
    finally:
        for i, layer in model.moae_layers().items():
            layer.capacity_factor, layer.noisy = before[i]


def sample_usage(gates: Tensor) -> np.ndarray:
    """Share of a sample's assignments that each expert takes: gates `[N, L, E]` -> `[N, E]`, rows sum to 1."""
    chosen = (gates > 0).double().sum(1)
    return (chosen / chosen.sum(1, keepdim=True).clamp(min=1)).numpy()


def usage_table(routes: Routes, rows: pd.DataFrame, task: str) -> pd.DataFrame:
    """Share of the token assignments per expert, block and emotion.

    Args:
        routes: of one task.
        rows: table with `label` of the same samples.
    Returns:
        tidy table: block, task, emotion ("all" over all samples), expert, share (sums to 1 over experts), gate (mean gate of
        a token), samples.
    """
    out = []
    for block, gates in routes.items():
        share, weight = sample_usage(gates), gates.double().mean(1).numpy()
        for emotion in ("all", *sorted(rows.label.unique())):
            use = np.ones(len(rows), bool) if emotion == "all" else (rows.label == emotion).to_numpy()
            for e in range(gates.shape[-1]):
                out.append((block + 1, task, emotion, e + 1, share[use, e].mean(), weight[use, e].mean(), int(use.sum())))
    return pd.DataFrame(out, columns=["block", "task", "emotion", "expert", "share", "gate", "samples"])


def token_maps(gates: Tensor, grid: tuple[int, int, int]) -> np.ndarray:
    """Mean gate of every expert at every place of the face: `[N, L, E]`, grid (t, rows, columns) -> `[E, rows, columns]`.

    Raises:
        ValueError: when the grid does not hold L tokens.
    """
    if gates.shape[1] != np.prod(grid):
        raise ValueError(f"{gates.shape[1]} tokens do not fill a grid of {' x '.join(map(str, grid))}")
    return gates.double().mean(0).view(*grid, -1).mean(0).permute(2, 0, 1).numpy()


def maps_table(routes: Routes, grid: tuple[int, int, int], task: str) -> pd.DataFrame:
    """`token_maps` of every block as a tidy table: block, task, expert, row and column (from 0), gate."""
    rows = [(block + 1, task, e + 1, *place, g) for block, gates in routes.items()
            for (e, *place), g in np.ndenumerate(token_maps(gates, grid))]
    return pd.DataFrame(rows, columns=["block", "task", "expert", "row", "column", "gate"])


def entropy(p: np.ndarray, axis: int = -1) -> np.ndarray:
    """Shannon entropy in bits along an axis of probabilities; 0 log 0 = 0."""
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(axis)


def entropy_table(routes: Routes, task: str) -> pd.DataFrame:
    """How evenly the experts of a block are used, and how decided a token's gates are.

    Returns:
        block, task, effective_experts (2 to the entropy of the usage: 1..E), gate_bits (mean entropy of a token's gates,
        at most log2 of top k), unused (experts that take under 1 % of the assignments).
    """
    rows = []
    for block, gates in routes.items():
        share = sample_usage(gates).mean(0)
        rows.append((block + 1, task, 2 ** float(entropy(share)), float(entropy(gates.double().numpy()).mean()), int((share < 0.01).sum())))
    return pd.DataFrame(rows, columns=["block", "task", "effective_experts", "gate_bits", "unused"])


def information(usage: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Mutual information between expert and group, in bits, every group weighing the same.

    With equal weights it equals the Jensen-Shannon divergence of the groups' usage: 0 when all groups use the experts
    alike, log2 of the number of groups when no expert is shared. It does not depend on how many samples a group has.

    Args:
        usage: `[N, E]`, rows sum to 1.
        member: bool or counts `[..., V, N]`, which samples (how often) belong to group v.
    Returns:
        `[...]`.
    """
    total = member.sum(-1, keepdims=True)
    p = member @ usage / np.maximum(total, 1)                            # [..., V, E]: usage of each group
    present = (total > 0).astype(float)
    weight = present / present.sum(-2, keepdims=True)
    return entropy((weight * p).sum(-2)) - (weight[..., 0] * entropy(p)).sum(-1)


def units_of(subjects: pd.Series) -> np.ndarray:
    """Integer unit of each sample: its subject, or itself where the subject is unknown."""
    text = [s if isinstance(s, str) else f"row {i}" for i, s in enumerate(subjects)]
    return np.unique(text, return_inverse=True)[1]


def specificity(usage: np.ndarray, groups: np.ndarray, units: np.ndarray, blocks: bool, permutations: int = 500, seed: int = 0) -> dict:
    """How much a sample's group says about the experts that serve it.

    Args:
        usage: `[N, E]` of `sample_usage`.
        groups: `[N]`, task or emotion.
        units: `[N]`, subjects.
        blocks: the null model deals groups to whole units (a unit has one group, as with tasks), not to single samples
            (groups vary inside a unit, as with emotions).
        permutations: of the null, and resamples of units for the interval.
    Returns:
        bits, low, high (95 %, basic bootstrap over units, which corrects the upward bias of the plug-in value), null_mean,
        null_95 (95th percentile), p (one-sided).
    """
    rng = np.random.default_rng(seed)
    names, group = np.unique(groups, return_inverse=True)
    unit_names, unit = np.unique(units, return_inverse=True)
    onehot = np.eye(len(names))[group].T                                 # [V, N]
    bits = float(information(usage, onehot))
    null, boot = np.empty(permutations), np.empty(permutations)
    first = np.unique(unit, return_index=True)[1]
    for r in range(permutations):
        dealt = rng.permutation(group[first])[unit] if blocks else rng.permutation(group)
        null[r] = information(usage, np.eye(len(names))[dealt].T)
        times = np.bincount(rng.integers(len(unit_names), size=len(unit_names)), minlength=len(unit_names))[unit]
        boot[r] = information(usage, onehot * times)
    low, high = 2 * bits - np.percentile(boot, [97.5, 2.5])
    return dict(bits=bits, low=max(0.0, low), high=max(0.0, high), null_mean=null.mean(), null_95=np.percentile(null, 95),
                p=(1 + (null >= bits).sum()) / (1 + permutations))


def place_specificity(gates: Tensor, permutations: int = 100, seed: int = 0) -> dict:
    """Mutual information between expert and token position, in bits; the null shuffles the tokens inside every sample."""
    rng = np.random.default_rng(seed)
    chosen = (gates > 0).double().numpy()
    chosen /= np.maximum(chosen.sum(-1, keepdims=True), 1)               # [N, L, E]
    eye = np.eye(chosen.shape[1])
    bits = float(information(chosen.mean(0), eye))
    null = np.empty(permutations)
    for r in range(permutations):
        order = rng.random(chosen.shape[:2]).argsort(1)
        null[r] = information(np.take_along_axis(chosen, order[..., None], 1).mean(0), eye)
    return dict(bits=bits, null_mean=null.mean(), null_95=np.percentile(null, 95), p=(1 + (null >= bits).sum()) / (1 + permutations))


def specificity_table(image: Routes, video: Routes, rows: dict[str, pd.DataFrame], permutations: int = 500, seed: int = 0) -> pd.DataFrame:
    """Specificity of every block for the task, for the emotion (within each task) and for the place on the face.

    The task is also read on the clips' first time step alone: a photo has the positions of time step 0, so a router that
    merely reads positions would look task-specific when all time steps of a clip are counted.

    Args:
        image, video: gates of photos and clips.
        rows: {"image": table, "video": table} with label and subject.
    Returns:
        tidy table: block, about, limit (largest possible bits), bits, low, high, null_mean, null_95, p.
    """
    out = []
    units = {t: units_of(r.subject) for t, r in rows.items()}
    task = np.repeat(["image", "video"], [len(rows["image"]), len(rows["video"])])
    both = np.concatenate([units["image"], units["video"] + len(rows["image"])])      # nobody is in both corpora
    for block in image:
        photo, clip = image[block], video[block]
        cap = np.log2(photo.shape[-1])
        for about, seen in (("task", clip), ("task, first time step", clip[:, :photo.shape[1]])):
            usage = np.concatenate([sample_usage(photo), sample_usage(seen)])
            out.append(dict(block=block + 1, about=about, limit=1.0, **specificity(usage, task, both, True, permutations, seed)))
        for name, gates in (("image", photo), ("video", clip)):
            label = rows[name].label.to_numpy()
            found = specificity(sample_usage(gates), label, units[name], False, permutations, seed)
            out.append(dict(block=block + 1, about=f"emotion, {name}", limit=min(cap, np.log2(len(set(label)))), **found))
            out.append(dict(block=block + 1, about=f"place, {name}", limit=min(cap, np.log2(gates.shape[1])),
                            **place_specificity(gates, max(20, permutations // 5), seed)))
    return pd.DataFrame(out)


def seed_agreement(routes: dict[int, Routes]) -> pd.DataFrame:
    """Whether two training runs divide the same tokens alike, whatever numbers their experts have.

    Args:
        routes: seed -> gates of the same stimuli.
    Returns:
        block, seed_a, seed_b, agreement: adjusted mutual information of the tokens' leading experts (0 chance, 1 the same
        division). Empty with a single seed.
    """
    rows = []
    for a, b in combinations(sorted(routes), 2):
        for block in routes[a]:
            leading = [routes[s][block].argmax(-1).flatten().numpy() for s in (a, b)]
            rows.append((block + 1, a, b, adjusted_mutual_info_score(*leading)))
    return pd.DataFrame(rows, columns=["block", "seed_a", "seed_b", "agreement"])


def cost_of_experts(model: nn.Module, x: Tensor, rows: pd.DataFrame, target: np.ndarray, task: str, resamples: int = 1000) -> pd.DataFrame:
    """Probability of the true class without each expert in turn, minus that with all experts.

    Probabilities tell more than decisions: a quiet branch may shift every answer and turn none.

    Args:
        x: uint8 samples of the task.
        rows: table of the samples (subject).
        target: class number of each.
    Returns:
        block, expert, task, change (points of probability, negative when the expert is missed), low, high (95 % over subjects).
    """
    true = lambda: 100.0 * probabilities(model, x, task)[np.arange(len(target)), target]
    whole, out = true(), []
    for block, moae in _layers(model).items():
        for expert in range(moae.experts):
            with without_expert(model, block, expert):
                out.append((block + 1, expert + 1, task, *mean_interval(true() - whole, rows.subject, resamples)))
    return pd.DataFrame(out, columns=["block", "expert", "task", "change", "low", "high"])


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
