"""What a model costs: floating-point operations by formula, and the activations that training keeps."""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from .mae import DualMAE
from .vit import S4D, Block
from .tokens import TUBELET_SIZE, TubeletEmbed, removed_tokens


def _embedding(embed: TubeletEmbed, tokens: int) -> tuple[int, int]:
    """Operations of the embedding, and of its first layer."""
    shape, counts = (TUBELET_SIZE, embed.patch_size, embed.patch_size), []
    for conv in embed.modules():
        if isinstance(conv, nn.Conv3d):
            shape = tuple(s // k for s, k in zip(shape, conv.kernel_size))
            counts.append(2 * tokens * math.prod(shape) * conv.weight.numel())
    return sum(counts), counts[0]


def _block(block: Block, tokens: int, every: bool, step: bool) -> int:
    """Operations of a block on one sample."""
    layers = (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2)
    embed_dim = block.norm1.normalized_shape[0]
    count = sum(2 * tokens * layer.weight.numel() for layer in layers) + 4 * tokens ** 2 * embed_dim
    if block.moae is not None:
        m = block.moae
        noise = m.noise_mode == "always" or (m.noise_mode == "train" and step)
        router = m.router.weight.numel() * (1 + noise) if m.top_k else 0
        expert = (m.w1.numel() + m.w2.numel()) // m.num_experts
        count += 2 * tokens * (router + expert * (m.num_experts if every or not m.top_k else m.top_k) + m.b2.numel())
    return count


def flops(model: S4D | DualMAE, task: str, removed: int = 0, every_expert: bool = False, step: bool = False) -> int:
    """Floating-point operations of matrix products for one sample, as the equations ask for them; an addition and a multiplication
    are two. Norms, activation functions, softmax and the optimizer are left out: they are limited by memory, not by arithmetic.

    Per token and dense block: 24 D^2 (6 for q, k, v, 2 after attention, 16 in the MLP) + 4 L D for attention over L tokens. Per
    token and MoAE layer with bottleneck D / 4: D^2 for each of the k chosen experts (of all E with `every_expert`), and the router.

    Args:
        model: on any device, `meta` too.
        task: "image" or "video".
        removed: masked tokens (autoencoder only); 0 is a reconstruction that sees everything and predicts all tokens.
        every_expert: count all experts, not the chosen ones.
        step: forward and backward of a training step. A product costs two more for its two gradients; the embedding's first layer
            needs one of them, since pixels have none.
    """
    encoder = model.encoder if isinstance(model, DualMAE) else model
    length = encoder.num_tokens[task]
    seen = length - removed
    embedding, first = _embedding(encoder.patch_embed, seen)
    count = embedding + sum(_block(b, seen, every_expert, step) for b in encoder.blocks)
    if isinstance(model, DualMAE):
        count += 2 * seen * model.encoder_to_decoder.weight.numel() + sum(_block(b, length, False, step) for b in model.decoder.blocks)
        count += 2 * (removed or length) * model.decoder.head.weight.numel()
    else:
        count += 2 * model.head[task].weight.numel()
    return 3 * count - first if step else count


def saved_bytes(model: nn.Module, call: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps from `call`'s forward pass for its backward pass, parameters and buffers not counted.

    It depends on shapes alone, so `call` may run on fake tensors, as in `sizes`.
    """
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        result = call()         # keeps the graph, and with it every storage, alive: no number is used twice
    del result
    return sum(kept.values())


def sizes(ratio: dict[str, float]) -> list[dict]:
    """Tokens, parameters, operations and memory of every registered variant, for one image and one clip; built without memory.

    Args:
        ratio: share of tokens that pre-training removes, for "image" and "video".
    Returns:
        rows: variant, task, tokens, parameters of the dense model, of S4D and of the autoencoder (M), operations
        of one forward pass of S4D and of pre-training (GFLOP), activations kept for the backward pass (MB, float32).
    """
    from . import VARIANTS, count_parameters, create
    rows = []
    for variant, spec in VARIANTS.items():
        with torch.device("meta"):
            dense, s4d, mae = create(f"s4d_{variant}", num_experts=0), create(f"s4d_{variant}"), create(f"s4d_mae_{variant}")
        counted = {f"{k}, M": count_parameters(m) / 1e6 for k, m in (("dense", dense), ("S4D", s4d), ("autoencoder", mae))}
        with FakeTensorMode(allow_non_fake_inputs=True):
            s4d, mae = (m.to_empty(device="cpu").train() for m in (s4d, mae))
            for task, num_frames in (("image", ()), ("video", (spec["num_frames"],))):
                x, length = torch.empty(1, 3, *num_frames, spec["img_size"], spec["img_size"]), s4d.num_tokens[task]
                gone = removed_tokens(length, ratio[task])
                seen, hidden = (torch.zeros(1, n, dtype=torch.long) for n in (length - gone, gone))
                kept = saved_bytes(s4d, lambda: s4d(x)), saved_bytes(mae, lambda: mae.decode(x, seen, length, hidden))
                rows.append({"variant": variant, "task": task, "tokens": length, **counted,
                             "S4D, GFLOP": flops(s4d, task) / 1e9, "pre-training, GFLOP": flops(mae, task, gone) / 1e9,
                             "S4D, MB": kept[0] / 1e6, "pre-training, MB": kept[1] / 1e6})
    return rows
