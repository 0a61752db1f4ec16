"""The method in plain torch, as its equations read: what the fast code is compared with.

Written from the paper with the release's tensor names, so `to_released(model)` loads into it.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def positions(length: int, embed_dim: int) -> Tensor:
    """float64 `[L, D]`: sin(p / 10000^(j / D)) in even columns j, the cosine in column j + 1."""
    table = torch.empty(length, embed_dim, dtype=torch.float64)
    for j in range(0, embed_dim, 2):
        angle = torch.arange(length, dtype=torch.float64) / 10000 ** (j / embed_dim)
        table[:, j], table[:, j + 1] = angle.sin(), angle.cos()
    return table


class Attention(nn.Module):
    """Softmax attention with a query bias and a value bias."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(embed_dim)) for _ in range(2))
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        size = d // self.num_heads
        wq, wk, wv = self.qkv.weight.chunk(3)
        q, k, v = F.linear(x, wq) + self.q_bias, F.linear(x, wk), F.linear(x, wv) + self.v_bias
        q, k, v = (t.reshape(b, n, self.num_heads, size).transpose(1, 2) for t in (q, k, v))
        weights = (q @ k.transpose(-2, -1) * size ** -0.5).softmax(-1)           # [B, heads, L, L]
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class MLP(nn.Module):
    """Linear, GELU, Linear; an expert is the same with a narrow middle."""

    def __init__(self, embed_dim: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(embed_dim, hidden), nn.Linear(hidden, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class MixtureOfExperts(nn.Module):
    """Each token goes to its k experts of highest score, weighted by the softmax of those scores.

    Attributes:
        capacity_factor: c, or None: of N tokens an expert takes the first int(N k / E c).
        noise: whether N(0, 1) softplus(noise map) is added to the scores.
        gates, balance: of the last forward pass, `[N, E]` and the balance loss.
    """

    def __init__(self, embed_dim: int, num_experts: int, top_k: int = 2):
        super().__init__()
        self.top_k, self.capacity_factor, self.noise = top_k, None, False
        self.router = nn.ModuleDict({"topkroute_linear": nn.Linear(embed_dim, num_experts),
                                     "noise_linear": nn.Linear(embed_dim, num_experts)})
        self.experts = nn.ModuleList(MLP(embed_dim, embed_dim // 4) for _ in range(num_experts))
        self.gates = self.balance = None

    def forward(self, x: Tensor) -> Tensor:
        tokens, count = x.reshape(-1, x.shape[-1]), len(self.experts)           # [N, D], E
        scores = self.router["topkroute_linear"](tokens)                        # [N, E]
        if self.noise:
            noise = torch.randn_like(scores)
            scores = scores + noise * F.softplus(self.router["noise_linear"](tokens))
        best = scores.topk(self.top_k, dim=-1)                                  # [N, k]
        every = torch.arange(len(scores), device=scores.device)[:, None]
        gates, chosen = torch.zeros_like(scores), torch.zeros_like(scores, dtype=torch.bool)
        gates[every, best.indices] = best.values.softmax(-1)
        chosen[every, best.indices] = True
        share = chosen.to(scores.dtype).mean(0) / self.top_k
        self.balance = count * (share * scores.softmax(-1).mean(0)).sum()
        self.gates, out = torch.zeros_like(gates), torch.zeros_like(tokens)
        for e, expert in enumerate(self.experts):
            rows = chosen[:, e].nonzero()[:, 0]
            if self.capacity_factor is not None:
                rows = rows[: int(len(tokens) * self.top_k / count * self.capacity_factor)]
            self.gates[rows, e] = gates[rows, e].detach()
            out[rows] = out[rows] + (gates[rows, e, None] * expert(tokens[rows])).to(out.dtype)
        return out.view_as(x)


class Block(nn.Module):
    """Attention, then the MLP with the experts beside it; each on normalised tokens."""

    def __init__(self, embed_dim: int, num_heads: int, num_experts: int = 0, top_k: int = 2):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(embed_dim, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = Attention(embed_dim, num_heads), MLP(embed_dim, 4 * embed_dim)
        self.moe_layer = MixtureOfExperts(embed_dim, num_experts, top_k) if num_experts else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        n = self.norm2(x)
        return x + self.mlp(n) + (0 if self.moe_layer is None else self.moe_layer(n))


def clip_of(x: Tensor) -> Tensor:
    """An image `[B, 3, H, W]` as a clip of two equal frames; clips as they are."""
    return torch.stack([x, x], 2) if x.ndim == 4 else x


class Transformer(nn.Module):
    """Embedding, fixed positions and blocks; `norm` after them where pre-training has it."""

    def __init__(self, img_size=160, num_frames=16, patch_size=16, embed_dim=768, depth=12,
                 num_heads=12, num_experts=0, top_k=2, norm=False):
        super().__init__()
        length = num_frames // 2 * (img_size // patch_size) ** 2
        kernel = (2, patch_size, patch_size)     # a token per tubelet in time, row, column order
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, embed_dim, kernel, stride=kernel)})
        self.register_buffer("positions", positions(length, embed_dim), persistent=False)
        self.blocks = nn.Sequential(*(
            Block(embed_dim, num_heads, num_experts if i >= depth // 2 else 0, top_k)
            for i in range(depth)))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6) if norm else nn.Identity()

    def embed(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed["proj"](clip_of(x)).flatten(2).transpose(1, 2)
        return tokens + self.positions[: tokens.shape[1]].to(tokens)


class Classifier(Transformer):
    """The fine-tuned model: mean over tokens, LayerNorm, one linear head a task."""

    def __init__(self, image_classes=7, video_classes=7, num_experts=8, **kwargs):
        super().__init__(num_experts=num_experts, **kwargs)
        embed_dim = self.positions.shape[1]
        self.fc_norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.ModuleDict({"image": nn.Linear(embed_dim, image_classes),
                                   "video": nn.Linear(embed_dim, video_classes)})

    def layers(self) -> list[MixtureOfExperts]:
        return [b.moe_layer for b in self.blocks if b.moe_layer is not None]

    def balance_loss(self) -> Tensor | float:
        return sum(layer.balance for layer in self.layers())

    def forward(self, x: Tensor) -> Tensor:
        features = self.fc_norm(self.blocks(self.embed(x)).mean(1))                 # [B, D]
        return self.head["image" if x.ndim == 4 else "video"](features)


class Autoencoder(nn.Module):
    """The pre-training model; a mask `[B, L]` is True where a token is removed.

    The decoder has half the encoder's width and heads, and a third of its blocks, two at least.
    """

    def __init__(self, patch_size=16, embed_dim=768, depth=12, num_heads=12, **kwargs):
        super().__init__()
        self.patch_size = patch_size
        self.encoder = Transformer(patch_size=patch_size, embed_dim=embed_dim, depth=depth,
                                   num_heads=num_heads, norm=True, **kwargs)
        self.encoder_to_decoder = nn.Linear(embed_dim, embed_dim // 2, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim // 2))
        self.decoder = nn.ModuleDict({
            "blocks": nn.Sequential(*(
                Block(embed_dim // 2, num_heads // 2) for _ in range(max(depth // 3, 2)))),
            "norm": nn.LayerNorm(embed_dim // 2, eps=1e-6),
            "head": nn.Linear(embed_dim // 2, 6 * patch_size ** 2)})
        table = positions(len(self.encoder.positions), embed_dim // 2)
        self.register_buffer("positions", table, persistent=False)

    def targets(self, x: Tensor) -> Tensor:
        """Pixels of a tubelet (t, row, column, channel), standardised by channel: `[B, L, p]`."""
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(1, 3, 1, 1, 1)
                     for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x, p = clip_of(x) * std + mean, self.patch_size
        tubelets = x.unfold(2, 2, 2).unfold(3, p, p).unfold(4, p, p)    # [B, 3, t, h, w, 2, P, P]
        pixels = tubelets.permute(0, 2, 3, 4, 5, 6, 7, 1).flatten(4, 6).flatten(1, 3)
        centred = pixels - pixels.mean(2, keepdim=True)                 # [B, L, 2 P P, 3]
        return (centred / (pixels.var(2, keepdim=True) + 1e-6).sqrt()).flatten(2)

    def reconstruct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Predictions of all tokens in place."""
        tokens = self.encoder.embed(x)
        visible = tokens[~mask].reshape(len(x), -1, tokens.shape[-1])   # [B, L - removed, D]
        latent = self.encoder_to_decoder(self.encoder.norm(self.encoder.blocks(visible)))
        full = self.mask_token.to(latent.dtype).repeat(*mask.shape, 1)
        full[~mask] = latent.flatten(0, 1)
        full = full + self.positions[: full.shape[1]].to(full)
        return self.decoder["head"](self.decoder["norm"](self.decoder["blocks"](full)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error over the removed tokens."""
        target = self.targets(x)[mask]
        return ((self.reconstruct(x, mask)[mask].to(target.dtype) - target) ** 2).mean()
