"""Clips to tokens: tubelets, positions, random masks. An image is a clip with one time step."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TUBELET_SIZE = 2   # frames that a token spans


def sincos(length: int, embed_dim: int) -> Tensor:
    """Fixed positions `[L, D]` over the flattened token index (docs/method.md section 2)."""
    p = torch.arange(length, dtype=torch.float64)[:, None]
    j = torch.arange(embed_dim, dtype=torch.float64)[None]
    angle = p / 10000 ** (2 * (j // 2) / embed_dim)
    return torch.where(j % 2 == 0, angle.sin(), angle.cos()).float()


def as_clip(x: Tensor) -> Tensor:
    """`[B, 3, H, W]` or `[B, 3, T, H, W]` -> `[B, 3, T, H, W]`; an image fills one tubelet."""
    if x.ndim not in (4, 5) or x.shape[1] != 3 or not x.is_floating_point():
        raise ValueError(f"input of shape {tuple(x.shape)} and {x.dtype}: expected images "
                         "[B, 3, H, W] or clips [B, 3, T, H, W], RGB, as floats that "
                         "s4d.data.transforms.normalise makes of pixels")
    return x.unsqueeze(2).expand(-1, -1, TUBELET_SIZE, -1, -1) if x.ndim == 4 else x


def cut(x: Tensor, patch_size: int, parts: int = 1, keep: Tensor | None = None) -> Tensor:
    """Cuts clips into tubelets `[B, L, 3, 2, P, P]`, L in time, row, column order.

    With `parts` > 1, also each tubelet into rows and columns: `[B, L, parts, parts, 3, 2, p, p]`.
    With `keep` `[B, N]`, only those tubelets: N instead of L. Rows of p pixels are copied by
    number, which is faster than to permute single pixels. Images are clips of a frame repeated.
    """
    (b, c, *time, h, w), side, device = x.shape, patch_size // parts, x.device
    rows = x.reshape(b, -1, side)
    number = torch.arange(rows.shape[1], device=device).view(c, *time or (1,), h, w // side)
    number = number if time else number.expand(-1, TUBELET_SIZE, -1, -1)
    number = number.view(c, -1, TUBELET_SIZE, h // patch_size, parts, side, w // patch_size, parts)
    number = number.permute(1, 3, 6, 4, 7, 0, 2, 5).flatten(3).flatten(0, 2)       # [L, rows]
    shape = *((parts, parts) if parts > 1 else ()), c, TUBELET_SIZE, side, side
    if keep is None:
        return rows.index_select(1, number.flatten()).view(b, -1, *shape)
    number = number[keep] + rows.shape[1] * torch.arange(b, device=device).view(b, 1, 1)
    return F.embedding(number, rows.flatten(0, 1)).view(b, -1, *shape)


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """Picks tokens: `[B, L, ...]` at `[B, N]` -> `[B, N, ...]`, with static shapes."""
    index = index.view(*index.shape, *[1] * (tokens.ndim - 2)).expand(-1, -1, *tokens.shape[2:])
    return tokens.gather(1, index)


class TubeletEmbed(nn.Module):
    """Tubelets -> tokens by the paper's single Conv3d, or by a stem with `stem_dim` first channels.

    A nano transformer on few data stays at chance without the stem. It never looks past its
    tubelet, so nothing masked leaks.
    """

    def __init__(self, embed_dim: int, patch_size: int, stem_dim: int = 0):
        super().__init__()
        self.patch_size, self.stem_dim = patch_size, stem_dim

        def conv(channels: int, out: int, time: int, side: int) -> nn.Conv3d:
            return nn.Conv3d(channels, out, (time, side, side), stride=(time, side, side))

        # The convolutions hold the weights; `forward` computes the same by matrix products.
        self.proj = conv(3, embed_dim, TUBELET_SIZE, patch_size) if not stem_dim else nn.Sequential(
            conv(3, stem_dim, TUBELET_SIZE, 4), nn.GELU(),
            conv(stem_dim, 2 * stem_dim, 1, 2), nn.GELU(),
            conv(2 * stem_dim, embed_dim, 1, patch_size // 8))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Clips `[B, 3, T, H, W]` -> tokens `[B, L, D]`, or only those at `keep` `[B, N]`."""
        tubelets = cut(x, self.patch_size, self.patch_size // 4 if self.stem_dim else 1, keep)
        if not self.stem_dim:   # a convolution whose kernel is its stride is a matrix product
            return F.linear(tubelets.flatten(2), self.proj.weight.flatten(1), self.proj.bias)
        first, _, *stages = self.proj       # parts [B N, s, s, 3, 2, 4, 4] -> [B N, s, s, C]
        x = F.linear(tubelets.flatten(0, 1).flatten(3), first.weight.flatten(1), first.bias)
        for conv in stages[::2]:            # channels last: a CPU copies whole rows faster
            k, (n, rows, columns, c) = conv.kernel_size[1], x.shape
            x = F.gelu(x).reshape(n, rows // k, k, columns // k, k, c).transpose(2, 3).flatten(3)
            x = F.linear(x, conv.weight.permute(0, 2, 3, 4, 1).flatten(1), conv.bias)
        return x.view(*tubelets.shape[:2], -1)


def removed_tokens(tokens: int, ratio: float) -> int:
    """How many of L tokens a mask of this ratio removes: at least one, and at least one stays."""
    return min(max(int(ratio * tokens), 1), tokens - 1)


def random_mask(batch: int, tokens: int, ratio: float, generator: torch.Generator | None = None,
                device: torch.device | str = "cpu") -> Tensor:
    """Draws a mask per sample: bool `[B, L]`, True = removed, the same count in each row."""
    rank = torch.rand(batch, tokens, generator=generator).argsort(1)
    return (rank < removed_tokens(tokens, ratio)).to(device)
