"""Answers to 04_router: `f__name` answers f.

`Says:` is what the failing test must tell. Names with `right` must pass.
"""
import torch
import torch.nn.functional as F


def gates__softmax_before_choosing(scores, k):
    """Takes the softmax over all experts and keeps the best: Switch's gates, not S4D's.

    Says: over the KEPT scores
    """
    share = scores.softmax(-1)
    return share * torch.zeros_like(scores).scatter(-1, share.topk(k, -1).indices, 1.0)


def gates__zero_for_minus_infinity(scores, k):
    """Sets the other scores to 0 before the softmax.

    Says: a score of 0 is not 'off'
    """
    kept = torch.zeros_like(scores).scatter(-1, scores.topk(k, -1).indices, 1.0)
    return (scores * kept).softmax(-1)


def gates__same_experts_for_all(scores, k):
    """Chooses once, by the mean over tokens.

    Says: every token chooses for itself
    """
    index = scores.mean((0, 1)).topk(k).indices.expand(*scores.shape[:2], k)
    return torch.zeros_like(scores).scatter(-1, index, scores.gather(-1, index).softmax(-1))


def gates__equal_shares(scores, k):
    """Gives each kept expert 1 / k.

    Says: the gates differ from the model's
    """
    return torch.zeros_like(scores).scatter(-1, scores.topk(k, -1).indices, 1.0 / k)


def gates__right_by_masking(scores, k):
    """Minus infinity for the others; ties aside the same."""
    least = scores.topk(k, -1).values[..., -1:]
    return scores.masked_fill(scores < least, float("-inf")).softmax(-1)


def gates__right_by_renormalising(scores, k):
    """Softmax over all, then the kept ones divided by their sum: the same numbers."""
    share = scores.softmax(-1)
    kept = share * torch.zeros_like(scores).scatter(-1, share.topk(k, -1).indices, 1.0)
    return kept / kept.sum(-1, keepdim=True)


def noisy__in_evaluation_too(scores, raw, training, generator=None):
    """Keeps the noise on, as the released code does.

    Says: two passes over one clip differ
    """
    return scores + torch.randn(scores.shape, generator=generator) * F.softplus(raw)


def noisy__no_softplus(scores, raw, training, generator=None):
    """Scales by n itself.

    Says: n itself is no size
    """
    return scores + torch.randn(scores.shape, generator=generator) * raw if training else scores


def noisy__one_number_a_sample(scores, raw, training, generator=None):
    """Draws for samples and experts, not for tokens.

    Says: draw a number for each token
    """
    draw = torch.randn(len(scores), 1, scores.shape[-1], generator=generator)
    return scores + draw * F.softplus(raw) if training else scores


def noisy__one_number_a_token(scores, raw, training, generator=None):
    """Draws for tokens, not for experts.

    Says: a shift that top k and softmax cannot see
    """
    draw = torch.randn(*scores.shape[:2], 1, generator=generator)
    return scores + draw * F.softplus(raw) if training else scores


def noisy__uniform(scores, raw, training, generator=None):
    """Uniform numbers.

    Says: a NORMAL number
    """
    return (
        scores + torch.rand(scores.shape, generator=generator) * F.softplus(raw)
        if training
        else scores
    )


def noisy__right_by_logaddexp(scores, raw, training, generator=None):
    """Softplus written out."""
    size = torch.logaddexp(raw, torch.zeros_like(raw))
    return scores + training * size * torch.normal(
        torch.zeros(scores.shape), torch.ones(scores.shape), generator=generator
    )


def mixture__mean_of_experts(x, gate, w1, b1, w2, b2):
    """Divides by the number of experts used.

    Says: you took a mean
    """
    out = torch.zeros_like(x)
    for e in range(len(w1)):
        out = out + gate[..., e, None] * F.linear(F.gelu(F.linear(x, w1[e], b1[e])), w2[e], b2[e])
    return out / (gate > 0).sum(-1, keepdim=True).clamp(min=1)


def mixture__skip_in_the_expert(x, gate, w1, b1, w2, b2):
    """Gives each expert a skip connection of its own.

    Says: the WHOLE expert
    """
    out = torch.zeros_like(x)
    for e in range(len(w1)):
        out = out + gate[..., e, None] * (
            x + F.linear(F.gelu(F.linear(x, w1[e], b1[e])), w2[e], b2[e])
        )
    return out


def mixture__gate_misses_the_bias(x, gate, w1, b1, w2, b2):
    """Scales the hidden units and adds the last bias unscaled.

    Says: its last bias too
    """
    out = torch.zeros_like(x)
    for e in range(len(w1)):
        out = out + F.linear(gate[..., e, None] * F.gelu(F.linear(x, w1[e], b1[e])), w2[e], b2[e])
    return out


def mixture__gate_inside_the_gelu(x, gate, w1, b1, w2, b2):
    """Scales before the non-linearity.

    Says: the WHOLE expert
    """
    out = torch.zeros_like(x)
    for e in range(len(w1)):
        g = gate[..., e, None]
        out = out + F.linear(F.gelu(g * F.linear(x, w1[e], b1[e])), w2[e]) + g * b2[e]
    return out


def mixture__right_without_a_loop(x, gate, w1, b1, w2, b2):
    """All experts at once."""
    hidden = F.gelu(torch.einsum("bld,ehd->bleh", x, w1) + b1)
    return torch.einsum("ble,bled->bld", gate, torch.einsum("bleh,edh->bled", hidden, w2) + b2)


def score_gradient__detached_gates(x, scores, k, experts):
    """Detaches the gates; zeros come back.

    Says: the way from the gates back to the scores is cut
    """
    leaf = scores.detach().clone().requires_grad_()
    loss = mixture(x, gates(leaf, k).detach(), *experts).square().mean() + 0 * leaf.sum()
    return torch.autograd.grad(loss, leaf)[0]


def score_gradient__of_the_gates(x, scores, k, experts):
    """Differentiates by the gates instead of the scores.

    Says: a token's gradient reaches
    """
    leaf = gates(scores, k).detach().requires_grad_()
    return torch.autograd.grad(mixture(x, leaf, *experts).square().mean(), leaf)[0]


def score_gradient__plain_softmax(x, scores, k, experts):
    """Weights all experts while differentiating.

    Says: had no part in the output
    """
    leaf = scores.detach().clone().requires_grad_()
    return torch.autograd.grad(mixture(x, leaf.softmax(-1), *experts).square().mean(), leaf)[0]


def score_gradient__summed(x, scores, k, experts):
    """Sums the squares instead of their mean.

    Says: differs from the slope
    """
    leaf = scores.detach().clone().requires_grad_()
    return torch.autograd.grad(mixture(x, gates(leaf, k), *experts).square().sum(), leaf)[0]


def score_gradient__right_by_chain_rule(x, scores, k, experts):
    """The softmax's Jacobian by hand: dL/ds = g (dL/dg - sum g dL/dg)."""
    g = gates(scores, k).detach().requires_grad_()
    slope = torch.autograd.grad(mixture(x, g, *experts).square().mean(), g)[0]
    g = g.detach()
    return g * (slope - (g * slope).sum(-1, keepdim=True))
