"""The shared encoder, and the classifier: a head per task, adapter experts in the upper blocks."""
import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import ConfigError
from .moae import MoAE
from .tokens import TUBELET_SIZE, TubeletEmbed, as_clip, sincos

EPS = 1e-6             # of every LayerNorm


def plain_is_faster(q: Tensor) -> bool:
    """Whether to attend by two plain products: in bf16 on a CPU, where all weights are kept."""
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and (
        q.shape[0] * q.shape[1] * q.shape[2] ** 2 <= 2**24)


class Attention(nn.Module):
    """Multi-head self-attention without a key bias, which would cancel in the softmax."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(embed_dim)) for _ in range(2))
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).view(b, n, 3, self.num_heads, d // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)                   # [B, heads, L, D / heads]
        if plain_is_faster(q):
            out = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1).to(v.dtype) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    """Pre-norm transformer block; with experts, `x + MLP(n) + MoAE(n)`, n = LN2(x)."""

    def __init__(self, embed_dim: int, num_heads: int, drop_path_rate: float = 0.0,
                 num_experts: int = 0, top_k: int = 2, adapter_reduction: int = 4):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=EPS)
        self.attn = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=EPS)
        self.mlp = Mlp(embed_dim, 4 * embed_dim)
        self.drop_path = DropPath(drop_path_rate)
        experts = embed_dim, num_experts, top_k, adapter_reduction
        self.moae = MoAE(*experts) if num_experts else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        n = self.norm2(x)
        branches = self.mlp(n) if self.moae is None else self.mlp(n) + self.moae(n)
        return x + self.drop_path(branches)


def run_blocks(blocks: nn.ModuleList, x: Tensor, recompute: bool) -> Tensor:
    """Tokens through all blocks; `recompute` computes activations again in the backward pass."""
    for block in blocks:
        x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
    return x


def init_weights(module: nn.Module) -> None:
    """Xavier-uniform for linear maps and the tubelet embedding, zero biases, as in MAE.

    The stem's convolutions get He's variance, so that tokens are as large as their positions.
    """
    if isinstance(module, TubeletEmbed):
        fill = nn.init.kaiming_normal_ if module.stem_dim else nn.init.xavier_uniform_
        for conv in module.modules():
            if isinstance(conv, nn.Conv3d):
                fill(conv.weight.data.flatten(1))      # in place, as one matrix
                nn.init.zeros_(conv.bias)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Encoder(nn.Module):
    """Tubelet embedding, fixed positions, transformer blocks; shared by both stages.

    Args:
        num_experts: experts per MoAE layer; 0 for dense blocks.
        moae_start: first block with experts; None for the upper half.
        drop_path_rate: of stochastic depth in the last block, rising linearly from 0.
        final_norm: LayerNorm on the tokens after the blocks (pre-training only).
    The others are those of `MoAE` and `TubeletEmbed`.
    """

    def __init__(self, img_size: int = 160, num_frames: int = 16, patch_size: int = 16,
                 embed_dim: int = 768, depth: int = 12, num_heads: int = 12, num_experts: int = 0,
                 top_k: int = 2, moae_start: int | None = None, adapter_reduction: int = 4,
                 drop_path_rate: float = 0.0, stem_dim: int = 0, final_norm: bool = False):
        super().__init__()
        for name, size, unit, of in (
                ("patch_size", patch_size, 8 if stem_dim else 1, "for the stem"),
                ("img_size", img_size, patch_size, "patch_size"),
                ("embed_dim", embed_dim, num_heads, "num_heads"),
                ("num_frames", num_frames, TUBELET_SIZE, "the frames of a tubelet")):
            if size % unit:
                raise ConfigError(f"{name} {size}: expected a multiple of {unit}, {of}")
        first = depth // 2 if moae_start is None else moae_start
        if num_experts and not 0 <= first < depth:
            raise ConfigError(f"moae_start {first}: expected a block from 0 to {depth - 1}")
        self.img_size, self.num_frames = img_size, num_frames
        self.patch_size, self.embed_dim = patch_size, embed_dim
        self.side, steps = img_size // patch_size, num_frames // TUBELET_SIZE
        self.num_tokens = {"image": self.side ** 2, "video": steps * self.side ** 2}
        self.patch_embed = TubeletEmbed(embed_dim, patch_size, stem_dim)
        positions = sincos(self.num_tokens["video"], embed_dim)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, drop_path_rate * i / max(depth - 1, 1),
                  num_experts if i >= first else 0, top_k, adapter_reduction) for i in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=EPS) if final_norm else nn.Identity()
        self.grad_checkpointing = False

    def grid(self, x: Tensor) -> tuple[int, int, int]:
        """Tokens along time, rows and columns of an input."""
        steps = 1 if x.ndim == 4 else x.shape[2] // TUBELET_SIZE
        return steps, x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size

    def embed(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Inputs -> tokens with positions `[B, L, D]`, or only those at `keep` `[B, N]`."""
        side, (t, h, w) = self.img_size, as_clip(x).shape[2:]
        if (h, w) != (side, side) or t > self.num_frames or t % TUBELET_SIZE:
            raise ValueError(
                f"input of {t} frames of {h} x {w} px: this model takes an image or up to "
                f"{self.num_frames} frames (an even number) of {side} x {side} px; resize the "
                f"input or create the model with img_size={h}")
        tokens = self.patch_embed(x, keep)
        return tokens + self.positions[slice(tokens.shape[1]) if keep is None else keep]

    def encode(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Inputs -> tokens after all blocks `[B, L, D]`, or only those at `keep` `[B, N]`."""
        x = self.embed(x, keep)
        return self.norm(run_blocks(self.blocks, x, self.grad_checkpointing and self.training))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes activations in the backward pass: less memory, more time."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """The experts' stacked biases: timm spares one-dimensional parameters only."""
        return {n for n, _ in self.named_parameters() if n.endswith((".moae.b1", ".moae.b2"))}


class S4D(Encoder):
    """The fine-tuned model: mean of the tokens, LayerNorm, one linear head per task.

    `kwargs` are those of `Encoder`; `num_experts=0` is the dense multi-task model.
    """

    def __init__(self, image_classes: int = 7, video_classes: int = 7, num_experts: int = 8,
                 **kwargs):
        super().__init__(num_experts=num_experts, **kwargs)
        self.fc_norm = nn.LayerNorm(self.embed_dim, eps=EPS)
        self.head = nn.ModuleDict({"image": nn.Linear(self.embed_dim, image_classes),
                                   "video": nn.Linear(self.embed_dim, video_classes)})
        self.apply(init_weights)
        for head in self.head.values():
            nn.init.trunc_normal_(head.weight, std=0.02)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images or clips -> pooled features after `fc_norm`, `[B, D]`."""
        return self.fc_norm(self.encode(x).mean(1))

    def forward_head(self, features: Tensor, task: str) -> Tensor:
        """Pooled features -> logits of `task`, "image" or "video"."""
        return self.head[task](features)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` -> image logits; clips `[B, 3, T, H, W]` -> video logits."""
        return self.forward_head(self.forward_features(x), "image" if x.ndim == 4 else "video")

    def forward_intermediates(self, x: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """embed `[B, L, D]`, blocks (a list of `[B, L, D]`), pooled `[B, D]`."""
        tokens = [self.embed(x)]
        for block in self.blocks:
            tokens.append(block(tokens[-1]))
        pooled = self.fc_norm(self.norm(tokens[-1]).mean(1))
        return {"embed": tokens[0], "blocks": tokens[1:], "pooled": pooled}

    def moae_layers(self) -> dict[int, MoAE]:
        """Block index -> MoAE layer; empty for a dense model."""
        return {i: b.moae for i, b in enumerate(self.blocks) if b.moae is not None}

    def set_routing(self, capacity_factor: float | None = None, noise: bool = False) -> "S4D":
        """Selects the paper's routing, or the release's: `(1.0, True)`, noise in evaluation too."""
        for layer in self.moae_layers().values():
            layer.capacity_factor = capacity_factor or None       # 0: no limit, as in Finetune
            layer.noise_mode = "always" if noise else "train"
        return self

    def balance_loss(self) -> Tensor:
        """Sum over MoAE layers, of the last training forward pass; 0 for a dense model."""
        losses = [layer.balance for layer in self.moae_layers().values()]
        return torch.stack(losses).sum() if losses else self.fc_norm.weight.new_zeros(())

    def reset_classifier(self, classes: int, task: str) -> None:
        """Replaces the head of `task`, "image" or "video", by a fresh one, and leaves the other."""
        head = nn.Linear(self.head[task].in_features, classes).to(self.fc_norm.weight)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        self.head[task] = head

    def group_matcher(self, coarse: bool = False) -> dict:
        """timm's order of depth for layer-wise learning rates: stem, blocks, the rest (heads)."""
        return dict(stem=r"^patch_embed", blocks=r"^blocks\.(\d+)")
