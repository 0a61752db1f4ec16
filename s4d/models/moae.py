"""Mixture of Adapter Experts: a routed bottleneck beside the MLP of a transformer block."""
from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ConfigError

# Width from which the product by expert is the faster one on a CPU, by what is multiplied (`make bench`).
BY_EXPERT_FROM = {torch.float32: 256, torch.bfloat16: 768}


class MoAE(nn.Module):
    """E adapters, each Linear(D, D/4) - GELU - Linear(D/4, D), of which a router picks k per token.

    Images and videos share router and experts. There are two formulations of the same sum, both without a loop over experts and
    with static shapes. *All experts*: their first layers are one matrix product, the gates (zero for experts not chosen) scale
    the hidden units, and their second layers are one more; it does E / k times the arithmetic that is needed. *By expert*: the N k
    assignments are ordered by expert and multiplied group by group. The second takes about half the time of wide layers
    on CPUs (`make bench`) and serves them from `BY_EXPERT_FROM` on; other devices, and float64, have the first.

    Args:
        width: D.
        experts: E.
        top_k: experts kept per token; 0 has no router: every adapter serves every token, with gate 1 / E, as many weights as with one.
        reduction: D over the bottleneck's width.
        noise: noise on the router's scores: "train" (paper mode) or "always" (the released code) or "never".
        by_expert: True or False fixes the formulation; None lets the device and the width decide.
        capacity_factor: None for no limit; a number c lets an expert take int(tokens k / E c) tokens of the batch, in
            batch-then-token order, and drops the rest (the released code, METHOD section 7.2).
    Source: S4D section on MoAE; noisy top-k gating after Shazeer et al. 2017; balance loss after the Switch Transformer.
    """

    def __init__(self, embed_dim: int, num_experts: int = 8, top_k: int = 2, adapter_reduction: int = 4):
        super().__init__()
        if not 0 <= top_k <= num_experts:
            raise ConfigError(f"top_k {top_k}: expected 1..{num_experts} for {num_experts} experts, or 0 for no routing")
        hidden = embed_dim // adapter_reduction
        self.num_experts, self.top_k = num_experts, top_k
        self.router = nn.Linear(embed_dim, num_experts) if top_k else None
        self.noise_proj = nn.Linear(embed_dim, num_experts) if top_k else None
        self.w1 = nn.Parameter(torch.empty(num_experts, hidden, embed_dim))
        self.b1 = nn.Parameter(torch.zeros(num_experts, hidden))
        self.w2 = nn.Parameter(torch.zeros(num_experts, embed_dim, hidden))   # zero: the new branch changes nothing at step 0
        self.b2 = nn.Parameter(torch.zeros(num_experts, embed_dim))
        nn.init.trunc_normal_(self.w1, std=0.02)
        self.by_expert: bool | None = None
        self.capacity_factor: float | None = None
        self.noise_mode: str = "train"
        self.record: list[Tensor] | None = None    # set by study.routing.record_routing
        self._balance: Tensor | None = None

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens `[B, L, D]` -> gates `[B, L, E]` (0 where not chosen), chosen `[B, L, E]` bool, scores `[B, L, E]`."""
        full = torch.promote_types(x.dtype, torch.float32)
        score = lambda layer: F.linear(x.to(full), layer.weight.to(full), layer.bias.to(full))
        # Products in half precision would tie scores. Tensors without content know no autocast.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            scores = score(self.router)
            if self.noise_mode == "always" or (self.noise_mode == "train" and self.training):
                scores = scores + torch.randn_like(scores) * F.softplus(score(self.noise_proj))
        top, index = scores.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(scores).scatter(-1, index, top.softmax(-1))
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, index, True)
        if self.capacity_factor is not None:
            flat = chosen.flatten(0, 1)
            capacity = int(flat.shape[0] * self.top_k / self.num_experts * self.capacity_factor)
            kept = (flat & (flat.cumsum(0) <= capacity)).view_as(chosen)
            gates = gates * kept          # a dropped token loses that expert's weight; nothing is renormalised
        return gates, chosen, scores

    def forward(self, x: Tensor) -> Tensor:
        """Normalised tokens `[B, L, D]` -> the branch's output `[B, L, D]`."""
        if not self.top_k:
            gates, chosen = x.new_full((*x.shape[:-1], self.num_experts), 1 / self.num_experts), None
            self._balance = x.new_zeros(())
        else:
            gates, chosen, scores = self.route(x)
        if self.training and self.top_k:
            share = chosen.to(scores.dtype).mean((0, 1)) / self.top_k
            self._balance = self.num_experts * (share * scores.softmax(-1).mean((0, 1))).sum()
        if self.record is not None:
            self.record.append(gates.detach())
        by_expert = self.pays(x) if self.by_expert is None else self.by_expert
        return self.chosen_experts(x, gates, chosen) if by_expert and self.top_k else self.all_experts(x, gates)

    def pays(self, x: Tensor) -> bool:
        """Whether the product by expert is available and faster for these tokens; grouped_mm wants rows of whole 16 bytes."""
        if x.device.type != "cpu" or x.shape[-1] % 8 or self.w1.shape[1] % 8:
            return False
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        return x.shape[-1] >= BY_EXPERT_FROM.get(dtype, math.inf)

    def all_experts(self, x: Tensor, gates: Tensor) -> Tensor:
        """Tokens `[B, L, D]` and gates `[B, L, E]` -> `[B, L, D]`, every expert on every token."""
        hidden = F.gelu(F.linear(x, self.w1.flatten(0, 1), self.b1.flatten()))
        gates = gates.to(hidden.dtype)
        hidden = hidden.unflatten(-1, (self.num_experts, -1)) * gates.unsqueeze(-1)
        w2 = self.w2.transpose(1, 2).flatten(0, 1)                       # [E h, D]
        return hidden.flatten(-2) @ w2 + gates @ self.b2

    def chosen_experts(self, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """The same from the chosen experts alone; `chosen` `[B, L, E]` bool has k true entries a token."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype       # autocast passes over grouped_mm
        tokens, chosen, gates = x.flatten(0, 1).to(dtype), chosen.flatten(0, 1), gates.flatten(0, 1).to(dtype)
        n = tokens.shape[0]
        order = chosen.t().flatten().to(torch.uint8).argsort(descending=True, stable=True)[: n * self.top_k]
        expert, token, ends = order // n, order % n, chosen.sum(0).cumsum(0).to(torch.int32)         # by expert, then by token
        # index_select: the backward pass of indexing by a tensor adds row by row on one core
        weight = gates.t().flatten().index_select(0, order).unsqueeze(1)                             # [N k, 1]
        hidden = F.grouped_mm(tokens.index_select(0, token), self.w1.to(dtype).transpose(1, 2), offs=ends)
        hidden = hidden + self.b1.to(dtype).index_select(0, expert)
        out = F.grouped_mm(F.gelu(hidden) * weight, self.w2.to(dtype).transpose(1, 2), offs=ends)    # [N k, D]
        return (gates @ self.b2.to(dtype)).index_add(0, token, out).view_as(x)

    def balance_loss(self) -> Tensor:
        """E sum_e f_e P_e of the last training forward; 1 when balanced.

        Raises:
            RuntimeError: before any forward in training mode.
        """
        if self._balance is None:
            raise RuntimeError("no balance loss yet: it is made by a forward pass in training mode")
        return self._balance
