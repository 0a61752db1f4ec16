"""Dual-modal masked autoencoder: one encoder and one light decoder for images and videos."""
import math

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN as MEAN
from timm.data import IMAGENET_DEFAULT_STD as STD
from torch import Tensor, nn

from .tokens import TUBELET_SIZE, as_clip, cut, pick, sincos
from .vit import EPS, Block, Encoder, init_weights, run_blocks


class Decoder(nn.Module):
    """Light transformer over all tokens in place; its head predicts normalised pixels."""

    def __init__(self, length: int, embed_dim: int, depth: int, num_heads: int, out: int):
        super().__init__()
        self.register_buffer("positions", sincos(length, embed_dim), persistent=False)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=EPS)
        self.head = nn.Linear(embed_dim, out)
        self.grad_checkpointing = False

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Tokens `[B, L, D_dec]` -> predictions `[B, L, 2 P P 3]`; of those at `at` `[B, N]` alone,
        channel by channel, `[B, N, 3, 2 P P]`."""
        x = x + self.positions[:x.shape[1]]
        x = run_blocks(self.blocks, x, self.grad_checkpointing and self.training)
        if at is None:
            return self.head(self.norm(x))
        weight, bias = (p.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)    # not the pixels:
                        for p in (self.head.weight, self.head.bias))             # those are more
        return F.linear(self.norm(pick(x, at)), weight, bias).unflatten(-1, (3, -1))


class DualMAE(nn.Module):
    """Masked autoencoder for images and clips; `kwargs` are those of `Encoder`.

    The decoder has half the encoder's width and heads, and a third of its blocks, two at least.
    Everywhere `mask` is bool `[B, L]`, True = removed, the same count in each row. `removed` is
    that count; left out, it is counted, and a GPU waits.
    Source: docs/method.md section 4; He et al. 2022 (MAE), Tong et al. 2022 (VideoMAE).
    """

    def __init__(self, **kwargs):
        super().__init__()
        self.encoder = Encoder(final_norm=True, **kwargs)
        width, blocks = self.encoder.embed_dim // 2, self.encoder.blocks
        self.encoder_to_decoder = nn.Linear(self.encoder.embed_dim, width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder = Decoder(self.encoder.num_tokens["video"], width, max(len(blocks) // 3, 2),
                               blocks[0].attn.num_heads // 2,
                               TUBELET_SIZE * self.encoder.patch_size ** 2 * 3)
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1, 1), persistent=False)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, x: Tensor, mask: Tensor, removed: int | None = None) -> Tensor:
        """Normalised images `[B, 3, H, W]` or clips `[B, 3, T, H, W]` -> mean squared error of the
        removed tokens' values."""
        visible, masked = self.separate(x, mask, removed)
        predicted = self.decoder(self.encode(x, visible, mask.shape[1]), masked)
        return F.mse_loss(predicted.to(x.dtype), self.targets(x, masked))

    @torch.no_grad()
    def targets(self, x: Tensor, at: Tensor) -> Tensor:
        """Standardised pixels of the tokens at `at` `[B, N]`, by channel: `[B, N, 3, 2 P P]`.

        `standardise(patchify(x))` in place: the normalisation of the input cancels, but in 1e-6.
        """
        pixels = cut(x, self.encoder.patch_size, keep=at).flatten(3)
        pixels -= pixels.mean(-1, keepdim=True)
        norm = torch.linalg.vector_norm(pixels, dim=-1, keepdim=True)     # no copy of the pixels
        variance = norm.square() / (pixels.shape[-1] - 1)
        return pixels.mul_((variance + 1e-6 / self.std.view(3, 1).square()).rsqrt())

    def reconstruct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalised predictions of ALL tokens in place, `[B, L, 2 P P 3]`."""
        visible, _ = self.separate(x, mask, None)
        return self.decoder(self.encode(x, visible, mask.shape[1]))

    def encode(self, x: Tensor, visible: Tensor, length: int) -> Tensor:
        """Encodes the visible tokens -> the decoder's input `[B, length, D_dec]`."""
        latent = self.encoder_to_decoder(self.encoder.encode(x, visible))
        full = self.mask_token.to(latent.dtype).expand(latent.shape[0], length, -1)
        return full.scatter(1, visible.unsqueeze(-1).expand_as(latent), latent)

    def separate(self, x: Tensor, mask: Tensor, removed: int | None) -> tuple[Tensor, Tensor]:
        """The mask of an input -> indices of its visible and of its removed tokens, `[B, N]`."""
        tokens = math.prod(self.encoder.grid(x))
        if mask.shape != (len(x), tokens) or mask.dtype != torch.bool:
            raise ValueError(f"mask of {mask.dtype} of shape {tuple(mask.shape)}: expected "
                             f"booleans [{len(x)}, {tokens}], True = token removed")
        if removed is None:
            counts = mask.sum(1).tolist()
            removed = counts[0]
            if set(counts) != {removed} or not 0 < removed < tokens:
                raise ValueError(f"mask with {min(counts)} to {max(counts)} of {tokens} tokens "
                                 "removed a row: expected one count, at least one token removed "
                                 "and one visible")
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)
        return order[:, : tokens - removed], order[:, tokens - removed:]

    def patchify(self, x: Tensor) -> Tensor:
        """Normalised inputs -> pixels in 0..1 `[B, L, 2 P P 3]`: time, row, column, channel."""
        x = as_clip(x) * self.std + self.mean
        return cut(x, self.encoder.patch_size).permute(0, 1, 3, 4, 5, 2).flatten(2)

    def unpatchify(self, tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Pixels of tokens `[B, L, 2 P P 3]` -> clips `[B, 3, 2 t, H, W]` in 0..1."""
        (t, h, w), p = grid, self.encoder.patch_size
        x = tokens.view(-1, t, h, w, TUBELET_SIZE, p, p, 3).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(-1, 3, t * TUBELET_SIZE, h * p, w * p)

    @staticmethod
    def standardise(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Zero mean, unit (unbiased) variance per token and channel -> targets, mean, scale."""
        pixels = tokens.unflatten(-1, (-1, 3))
        mean = pixels.mean(-2, keepdim=True)
        centred = pixels - mean
        variance = centred.square().sum(-2, keepdim=True) / (pixels.shape[-2] - 1)
        scale = (variance + 1e-6).sqrt()
        return (centred / scale).flatten(-2), mean, scale

    def restore(self, predictions: Tensor, x: Tensor) -> Tensor:
        """Predictions -> pixels in 0..1, with each token's own mean and scale from `x`."""
        _, mean, scale = self.standardise(self.patchify(x))
        return (predictions.unflatten(-1, (-1, 3)) * scale + mean).flatten(-2)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes activations of encoder and decoder blocks in the backward pass."""
        self.encoder.grad_checkpointing = self.decoder.grad_checkpointing = enable
