"""Mixture of Adapter Experts: a routed bottleneck beside the MLP of a transformer block."""
from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ConfigError

# Width from which the product by expert is the faster one on a CPU (`make bench`).
BY_EXPERT_FROM = {torch.float32: 256, torch.bfloat16: 768}


class MoAE(nn.Module):
    """E adapters, each Linear(D, D/4) - GELU - Linear(D/4, D), of which a router picks k per token.

    Images and videos share router and experts. Two formulations give the same sum with static
    shapes: *all experts* multiplies all and gates the hidden units; *by expert* orders the N k
    assignments by expert and multiplies group by group, in half the time of wide layers on CPUs.

    Args:
        top_k: experts per token; 0 has no router: all adapters serve all tokens, with gate 1 / E.
        adapter_reduction: D over the bottleneck's width.
    Attributes:
        noise_mode: of the router's scores: "train" (the paper), "always" (the release), "never".
        capacity_factor: None for no limit; a number c lets an expert take int(N k / E c) of the
            batch's N tokens, in batch-then-token order (the release, docs/method.md section 8).
        by_expert: True or False fixes the formulation; None lets device and width decide.
        record: a list to which each forward pass appends its gates, or None.
    Source: S4D, MoAE; gating of Shazeer et al. 2017; balance loss of the Switch Transformer.
    """

    def __init__(self, embed_dim: int, num_experts: int = 8, top_k: int = 2,
                 adapter_reduction: int = 4):
        super().__init__()
        if not 0 <= top_k <= num_experts:
            raise ConfigError(f"top_k {top_k}: expected 1..{num_experts} for {num_experts} "
                              "experts, or 0 for no routing")
        hidden = embed_dim // adapter_reduction
        self.num_experts, self.top_k = num_experts, top_k
        self.router = nn.Linear(embed_dim, num_experts) if top_k else None
        self.noise_proj = nn.Linear(embed_dim, num_experts) if top_k else None
        self.w1 = nn.Parameter(torch.empty(num_experts, hidden, embed_dim))
        self.b1 = nn.Parameter(torch.zeros(num_experts, hidden))
        self.w2 = nn.Parameter(torch.zeros(num_experts, embed_dim, hidden))    # zero: no effect yet
        self.b2 = nn.Parameter(torch.zeros(num_experts, embed_dim))
        nn.init.trunc_normal_(self.w1, std=0.02)
        self.noise_mode: str = "train"
        self.capacity_factor: float | None = None
        self.by_expert: bool | None = None
        self.record: list[Tensor] | None = None
        self._balance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalised tokens `[B, L, D]` -> the branch's output `[B, L, D]`."""
        if self.top_k:
            gates, chosen, scores = self.route(x)
            if self.training:
                share = chosen.to(scores.dtype).mean((0, 1)) / self.top_k
                probability = scores.softmax(-1).mean((0, 1))
                self._balance = self.num_experts * (share * probability).sum()
        else:
            gates = x.new_full((*x.shape[:-1], self.num_experts), 1 / self.num_experts)
            self._balance = x.new_zeros(())
        if self.record is not None:
            self.record.append(gates.detach())
        by_expert = self.pays(x) if self.by_expert is None else self.by_expert
        if by_expert and self.top_k:
            return self.chosen_experts(x, gates, chosen)
        return self.all_experts(x, gates)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens `[B, L, D]` -> gates (0 if not chosen), chosen (bool), scores `[B, L, E]`."""
        dtype = torch.promote_types(x.dtype, torch.float32)      # half precision would tie
        full = x.to(dtype)

        def linear(layer: nn.Linear) -> Tensor:
            return F.linear(full, layer.weight.to(dtype), layer.bias.to(dtype))

        # Tensors without content know no autocast.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            scores = linear(self.router)
            if self.noise_mode == "always" or (self.noise_mode == "train" and self.training):
                scores = scores + torch.randn_like(scores) * F.softplus(linear(self.noise_proj))
        top, index = scores.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(scores).scatter(-1, index, top.softmax(-1))
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, index, True)
        if self.capacity_factor is not None:
            flat = chosen.flatten(0, 1)
            capacity = int(len(flat) * self.top_k / self.num_experts * self.capacity_factor)
            kept = (flat & (flat.cumsum(0) <= capacity)).view_as(chosen)
            gates = gates * kept      # a dropped token loses that expert; nothing is renormalised
        return gates, chosen, scores

    def pays(self, x: Tensor) -> bool:
        """Whether the product by expert is available and faster; it wants rows of 16 bytes."""
        if x.device.type != "cpu" or x.shape[-1] % 8 or self.w1.shape[1] % 8:
            return False
        return x.shape[-1] >= BY_EXPERT_FROM.get(_product_dtype(x), math.inf)

    def all_experts(self, x: Tensor, gates: Tensor) -> Tensor:
        """Tokens `[B, L, D]` and gates `[B, L, E]` -> `[B, L, D]`, every expert on every token."""
        hidden = F.gelu(F.linear(x, self.w1.flatten(0, 1), self.b1.flatten()))
        gates = gates.to(hidden.dtype)
        hidden = hidden.unflatten(-1, (self.num_experts, -1)) * gates.unsqueeze(-1)
        w2 = self.w2.transpose(1, 2).flatten(0, 1)                       # [E h, D]
        return hidden.flatten(-2) @ w2 + gates @ self.b2

    def chosen_experts(self, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """The same from the chosen experts alone; `chosen` `[B, L, E]` is true k times a token."""
        dtype = _product_dtype(x)                                # autocast passes over grouped_mm
        tokens, gates = x.flatten(0, 1).to(dtype), gates.flatten(0, 1).to(dtype)
        chosen, n = chosen.flatten(0, 1), tokens.shape[0]
        order = chosen.t().flatten().to(torch.uint8).argsort(descending=True, stable=True)
        order = order[: n * self.top_k]                          # by expert, then by token
        expert, token = order // n, order % n
        ends = chosen.sum(0).cumsum(0).to(torch.int32)
        # index_select: the backward pass of indexing by a tensor adds row by row on one core
        weight = gates.t().flatten().index_select(0, order).unsqueeze(1)           # [N k, 1]
        w1, w2 = (w.to(dtype).transpose(1, 2) for w in (self.w1, self.w2))
        hidden = F.grouped_mm(tokens.index_select(0, token), w1, offs=ends)
        hidden = hidden + self.b1.to(dtype).index_select(0, expert)
        out = F.grouped_mm(F.gelu(hidden) * weight, w2, offs=ends)                 # [N k, D]
        return (gates @ self.b2.to(dtype)).index_add(0, token, out).view_as(x)

    def balance_loss(self) -> Tensor:
        """E sum_e f_e P_e of the last forward pass in training mode; 1 when balanced."""
        if self._balance is None:
            raise RuntimeError("no balance loss yet: it is made by a forward pass in training mode")
        return self._balance


def _product_dtype(x: Tensor) -> torch.dtype:
    """The type of matrix products with `x`, under autocast too."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
