"""Answers to 01_tubelets: `f__name` answers f.

`Says:` is what the failing test must tell. Names with `right` must pass.
"""
import torch
import torch.nn.functional as F


def tubelets__reshape_alone(x, patch=16):
    """Cuts by one reshape: the numbers of tokens and values are right, their pixels are not.

    Says: mixes pixels of different places
    """
    b, c, t, h, w = x.shape
    return x.reshape(b, (t // 2) * (h // patch) * (w // patch), -1)


def tubelets__rows_run_fastest(x, patch=16):
    """Numbers the tokens down the columns, as x before y suggests.

    Says: columns run fastest
    """
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t // 2, 2, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 6, 4, 1, 3, 5, 7).reshape(b, -1, c * 2 * patch * patch)


def tubelets__far_frames(x, patch=16):
    """Splits time into (2, T / 2) instead of (T / 2, 2), so a tubelet holds frames of two halves.

    Says: two frames that follow each other
    """
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, 2, t // 2, h // patch, patch, w // patch, patch)
    return x.permute(0, 3, 4, 6, 1, 2, 5, 7).reshape(b, -1, c * 2 * patch * patch)


def tubelets__channel_last(x, patch=16):
    """Lists a token's pixels with the channel last, as the reconstruction target does.

    Says: order channel, frame, row, column
    """
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t // 2, 2, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, -1, c * 2 * patch * patch)


def tubelets__right_by_unfold(x, patch=16):
    """Windows by unfold."""
    windows = x.unfold(2, 2, 2).unfold(3, patch, patch).unfold(4, patch, patch)
    return windows.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(1, 3)


def embed__no_bias(x, weight, bias):
    """Forgets the bias.

    Says: a black clip must give the bias
    """
    return tubelets(x, weight.shape[-1]) @ weight.flatten(1).T


def embed__weight_in_another_order(x, weight, bias):
    """Flattens the weight with the channel last.

    Says: weight of its own channel, frame, row and column
    """
    return tubelets(x, weight.shape[-1]) @ weight.permute(0, 2, 3, 4, 1).flatten(1).T + bias


def embed__transposed_pixels(x, weight, bias):
    """Flattens the weight with columns before rows.

    Says: weight of its own channel, frame, row and column
    """
    return tubelets(x, weight.shape[-1]) @ weight.transpose(3, 4).flatten(1).T + bias


def embed__right_by_convolution(x, weight, bias):
    """The convolution itself."""
    return F.conv3d(x, weight, bias, stride=weight.shape[2:]).flatten(2).transpose(1, 2)


def positions__two_halves(length, width):
    """All sines first, then all cosines.

    Says: sine and cosine alternate
    """
    angle = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.cat([angle.sin(), angle.cos()], 1)


def positions__an_angle_for_each_feature(length, width):
    """Leaves out the floor: sine and cosine of different angles.

    Says: of ONE angle
    """
    j = torch.arange(width)
    angle = torch.arange(length)[:, None] / 10000 ** (j / width)
    return torch.where(j % 2 == 0, angle.sin(), angle.cos())


def positions__from_one(length, width):
    """Counts positions from 1.

    Says: p counts from 0
    """
    angle = torch.arange(1, length + 1)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def positions__right_column_by_column(length, width):
    """A loop over pairs in float32."""
    out = torch.empty(length, width)
    for j in range(0, width, 2):
        angle = torch.arange(length, dtype=torch.float32) / 10000 ** (j / width)
        out[:, j], out[:, j + 1] = angle.sin(), angle.cos()
    return out


def as_clip__black_second_frame(x):
    """Pads with zeros.

    Says: a flicker that no camera saw
    """
    return torch.stack([x, torch.zeros_like(x)], 2) if x.ndim == 4 else x


def as_clip__time_first(x):
    """Puts the time axis before the channels.

    Says: the time axis stands third
    """
    return torch.stack([x, x], 1) if x.ndim == 4 else x


def as_clip__right_by_expand(x):
    """A view instead of a copy."""
    return x if x.ndim == 5 else x.unsqueeze(2).expand(-1, -1, 2, -1, -1)
