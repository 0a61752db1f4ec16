"""Mixture of Adapter Experts: a routed bottleneck beside the MLP of a transformer block."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ConfigError


class MoAE(nn.Module):
    """E adapters, each Linear(D, D/r) - GELU - Linear(D/r, D), of which a router picks k per token.

    Images and videos share router and experts.

    Args:
        top_k: experts per token; 0 has no router: all adapters serve all tokens, with gate 1 / E.
        adapter_reduction: r, the width D over that of the bottleneck.
    Attributes:
        noise_mode: of the router's scores: "train" (the paper), "always" (the release), "never".
        capacity_factor: None for no limit. A number c lets an expert take int(N k / E c) of the
            batch's N tokens, sample by sample (the release, docs/method.md section 8).
        grouped: True computes the chosen experts alone, False all of them, with gates of 0. None:
            the chosen ones on CPUs; all on GPUs, which would wait for the number of rows, and in
            compiled code.
        record: a list to which each forward pass appends its gates, or None.
        balance: E sum_e f_e P_e of the last training pass; 1 when balanced, 0 without a router.
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
        self.grouped: bool | None = None
        self.record: list[Tensor] | None = None
        self.balance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalised tokens `[B, L, D]` -> the branch's output `[B, L, D]`."""
        if self.top_k:
            gates, chosen, scores = self.route(x)
            if self.training:
                share = chosen.to(scores.dtype).mean((0, 1)) / self.top_k          # f_e
                probability = scores.softmax(-1).mean((0, 1))                      # P_e
                self.balance = self.num_experts * (share * probability).sum()
        else:
            gates = x.new_full((*x.shape[:-1], self.num_experts), 1 / self.num_experts)
            self.balance = x.new_zeros(())
        if self.record is not None:
            self.record.append(gates.detach())
        cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
        grouped = self.top_k and (cpu if self.grouped is None else self.grouped)
        return self.of_chosen(x, gates, chosen) if grouped else self.of_all(x, gates)

    def of_all(self, x: Tensor, gates: Tensor) -> Tensor:
        """Tokens `[B, L, D]` through every expert, as two dense products."""
        hidden = F.gelu(F.linear(x, self.w1.flatten(0, 1), self.b1.flatten()))     # [B, L, E D/r]
        gates = gates.to(hidden.dtype)
        hidden = hidden.unflatten(-1, (self.num_experts, -1)) * gates.unsqueeze(-1)
        w2 = self.w2.transpose(1, 2).flatten(0, 1)                                 # [E D/r, D]
        return hidden.flatten(-2) @ w2 + gates @ self.b2

    def of_chosen(self, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """Tokens `[B, L, D]` through their own experts, each on as many rows: N = B L tokens.

        Rows that an expert does not need have a gate of 0. Their number R is a multiple of 32, so
        that few products of new sizes are prepared.
        """
        tokens, gates, chosen = (t.flatten(0, 1) for t in (x, gates, chosen))
        e, rows = self.num_experts, -(-int(chosen.sum(0).max()) // 32) * 32
        expert, token = chosen.t().nonzero(as_tuple=True)                          # [N k]
        place = expert * rows + chosen.cumsum(0)[token, expert] - 1
        token_of = place.new_zeros(e * rows).scatter(0, place, token)
        gate_of = gates.new_zeros(e * rows).scatter(0, place, gates[token, expert])
        inputs = tokens.index_select(0, token_of).view(e, rows, -1)                # [E, R, D]
        hidden = F.gelu(torch.baddbmm(self.b1[:, None], inputs, self.w1.transpose(1, 2)))
        hidden = hidden * gate_of.to(hidden.dtype).view(e, rows, 1)
        out = hidden @ self.w2.transpose(1, 2)
        bias = gates.to(out.dtype) @ self.b2
        return bias.index_add(0, token_of, out.flatten(0, 1)).view_as(x)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens `[B, L, D]` -> gates (0 if not chosen), chosen (bool), scores `[B, L, E]`."""
        dtype = torch.promote_types(x.dtype, torch.float32)      # half precision would tie
        noisy = self.noise_mode == "always" or (self.noise_mode == "train" and self.training)
        maps = (self.router, self.noise_proj) if noisy else (self.router,)
        with torch.autocast(x.device.type, enabled=False):       # both maps as one product
            weight, bias = (torch.cat([getattr(m, name) for m in maps]).to(dtype)
                            for name in ("weight", "bias"))
            scores, *width = F.linear(x.to(dtype), weight, bias).split(self.num_experts, -1)
            if noisy:
                scores = scores + torch.randn_like(scores) * F.softplus(width[0])
        top, index = scores.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(scores).scatter(-1, index, top.softmax(-1))
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, index, True)
        if self.capacity_factor is not None:
            flat = chosen.flatten(0, 1)
            capacity = int(len(flat) * self.top_k / self.num_experts * self.capacity_factor)
            kept = (flat & (flat.cumsum(0) <= capacity)).view_as(chosen)
            gates = gates * kept      # a dropped token loses that expert; nothing is renormalised
        return gates, chosen, scores
