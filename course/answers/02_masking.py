"""Answers to 02_masking: `f__name` answers f.

`Says:` is what the failing test must tell. Names with `right` must pass.
"""
import torch
import torch.nn.functional as F

from s4d.models import MEAN, STD
from s4d.models.tokens import as_clip, cut


def random_mask__a_coin_a_token(batch, tokens, ratio, generator=None):
    """Removes each token with probability ratio.

    Says: a coin for each token
    """
    return torch.rand(batch, tokens, generator=generator) < ratio


def random_mask__true_is_kept(batch, tokens, ratio, generator=None):
    """Takes True for kept.

    Says: True means REMOVED
    """
    return torch.rand(batch, tokens, generator=generator).argsort(1) >= int(ratio * tokens)


def random_mask__one_for_all(batch, tokens, ratio, generator=None):
    """Draws one mask and repeats it.

    Says: draw one for each sample
    """
    return (torch.rand(1, tokens, generator=generator).argsort(1) < int(ratio * tokens)).expand(
        batch, -1
    )


def random_mask__generator_ignored(batch, tokens, ratio, generator=None):
    """Leaves the generator out.

    Says: pass the generator to the draw
    """
    return torch.rand(batch, tokens).argsort(1) < int(ratio * tokens)


def random_mask__right_row_by_row(batch, tokens, ratio, generator=None):
    """A permutation for each row."""
    mask = torch.zeros(batch, tokens, dtype=torch.bool)
    for row in mask:
        row[torch.randperm(tokens, generator=generator)[: int(ratio * tokens)]] = True
    return mask


def target__all_channels_together(x, patch=16):
    """One mean and variance for a whole token, as MAE for photos has it.

    Says: standardise each channel by itself
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (MEAN, STD))
    pixels = cut(as_clip(x) * std + mean, patch).permute(0, 1, 3, 4, 5, 2).flatten(2)
    return (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()


def target__channel_first(x, patch=16):
    """Lists the channel before the pixels.

    Says: list the channel LAST
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (MEAN, STD))
    pixels = cut(as_clip(x) * std + mean, patch).flatten(3)
    return (
        (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
    ).flatten(2)


def target__biased_variance(x, patch=16):
    """Divides by n instead of n - 1.

    Says: UNBIASED variance
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (MEAN, STD))
    pixels = cut(as_clip(x) * std + mean, patch).permute(0, 1, 3, 4, 5, 2).flatten(2, 4)
    return (
        (pixels - pixels.mean(2, keepdim=True))
        / (pixels.var(2, keepdim=True, correction=0) + 1e-6).sqrt()
    ).flatten(2)


def target__normalisation_left(x, patch=16):
    """Standardises the normalised input.

    Says: undo ImageNet's normalisation BEFORE
    """
    pixels = cut(as_clip(x), patch).permute(0, 1, 3, 4, 5, 2).flatten(2, 4)
    return (
        (pixels - pixels.mean(2, keepdim=True)) / (pixels.var(2, keepdim=True) + 1e-6).sqrt()
    ).flatten(2)


def target__right_by_layer_norm(x, patch=16):
    """LayerNorm divides by the biased variance: a factor brings it to the unbiased one."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (MEAN, STD))
    pixels = cut(as_clip(x) * std + mean, patch).flatten(3)
    n = pixels.shape[-1]
    out = F.layer_norm(pixels, (n,), eps=1e-6 * (n - 1) / n) * ((n - 1) / n) ** 0.5
    return out.transpose(2, 3).flatten(2)


def masked_loss__all_tokens(predicted, wanted, mask):
    """Takes the mean over every token.

    Says: errors on visible tokens must not count
    """
    return (predicted - wanted).square().mean()


def masked_loss__visible_tokens(predicted, wanted, mask):
    """Uses the tokens that were kept.

    Says: errors on visible tokens must not count
    """
    return (predicted - wanted).square().mean(-1)[~mask].mean()


def masked_loss__sum_over_values(predicted, wanted, mask):
    """Sums a token's values.

    Says: divide by the number of REMOVED tokens and by the values
    """
    return ((predicted - wanted).square().sum(-1) * mask).sum() / mask.sum()


def masked_loss__divided_by_all(predicted, wanted, mask):
    """Zeroes visible tokens and then takes the mean over all.

    Says: divide by the number of REMOVED tokens
    """
    return ((predicted - wanted).square().mean(-1) * mask).mean()


def masked_loss__mean_of_samples(predicted, wanted, mask):
    """Averages each sample first.

    Says: do not average samples' means
    """
    error = (predicted - wanted).square().mean(-1)
    return ((error * mask).sum(1) / mask.sum(1)).mean()


def masked_loss__right_by_indexing(predicted, wanted, mask):
    """Boolean indexing."""
    return F.mse_loss(predicted[mask], wanted[mask])
