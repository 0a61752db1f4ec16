"""Answers to 05_balance: `f__name` answers f.

`Says:` is what the failing test must tell. Names with `right` must pass.
"""
import torch


def balance_loss__no_factor(scores, chosen):
    """Forgets E.

    Says: the factor E
    """
    share = chosen.float().mean(0) / chosen.float().sum(-1).mean()
    return (share * scores.softmax(-1).mean(0)).sum()


def balance_loss__share_of_tokens(scores, chosen):
    """Takes the share of tokens for the share of assignments: k instead of 1.

    Says: f shares out ASSIGNMENTS
    """
    return scores.shape[-1] * (chosen.float().mean(0) * scores.softmax(-1).mean(0)).sum()


def balance_loss__raw_scores(scores, chosen):
    """Puts the scores where probabilities belong, as the released code does.

    Says: and not 1
    """
    share = chosen.float().mean(0) / chosen.float().sum(-1).mean()
    return scores.shape[-1] * (share * scores.mean(0)).sum()


def balance_loss__squared_probabilities(scores, chosen):
    """Takes P for f too.

    Says: f counts choices
    """
    p = scores.softmax(-1).mean(0)
    return scores.shape[-1] * (p * p).sum()


def balance_loss__squared_shares(scores, chosen):
    """Takes f for P too: no gradient is left.

    Says: f counts choices
    """
    f = chosen.float().sum(0) / chosen.sum()
    return scores.shape[-1] * (f * f).sum()


def balance_loss__right_by_loops(scores, chosen):
    """Expert by expert."""
    n, experts = scores.shape
    p = torch.exp(scores - torch.logsumexp(scores, 1, keepdim=True))
    return experts * sum(
        (chosen[:, e].sum() / chosen.sum()) * p[:, e].sum() / n for e in range(experts)
    )


def push__no_jacobian(scores, chosen):
    """Differentiates by the probability alone.

    Says: the term - p_ne sum_j f_j p_nj
    """
    n, e = scores.shape
    share = chosen.float().mean(0) / chosen.float().sum(-1).mean()
    return e / n * scores.softmax(-1) * share


def push__downhill(scores, chosen):
    """Gives the step instead of the gradient.

    Says: the gradient points uphill
    """
    n, e = scores.shape
    p = scores.softmax(-1)
    share = chosen.float().mean(0) / chosen.float().sum(-1).mean()
    return -e / n * p * (share - (p * share).sum(-1, keepdim=True))


def push__no_mean_over_tokens(scores, chosen):
    """Forgets 1 / N.

    Says: a factor 1 / N
    """
    p = scores.softmax(-1)
    share = chosen.float().mean(0) / chosen.float().sum(-1).mean()
    return scores.shape[-1] * p * (share - (p * share).sum(-1, keepdim=True))


def push__no_factor(scores, chosen):
    """Forgets E.

    Says: check the factors E and 1 / N
    """
    p = scores.softmax(-1)
    share = chosen.float().mean(0) / chosen.float().sum(-1).mean()
    return p * (share - (p * share).sum(-1, keepdim=True)) / len(scores)


def push__right_by_the_jacobian(scores, chosen):
    """The whole Jacobian of the softmax, contracted with f."""
    p = scores.softmax(-1)
    jacobian = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    share = chosen.float().sum(0) / chosen.sum()
    return torch.einsum("nje,j->ne", jacobian, share) * scores.shape[1] / scores.shape[0]


def effective__entropy_of_each_token(chosen):
    """Averages the tokens' own entropies.

    Says: the shares over ALL tokens
    """
    share = chosen.float() / chosen.float().sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1).exp().mean().item()


def effective__bits(chosen):
    """Mixes base 2 and base e.

    Says: with the natural logarithm
    """
    share = chosen.float().sum(0) / chosen.sum()
    return (torch.special.entr(share).sum() / torch.tensor(2.0).log()).exp().item()


def effective__zero_times_minus_infinity(chosen):
    """Writes the formula as it stands.

    Says: 0 ln 0 counts as 0
    """
    share = chosen.float().sum(0) / chosen.sum()
    return (-(share * share.log()).sum()).exp().item()


def effective__entropy_itself(chosen):
    """Returns H.

    Says: and not 4
    """
    share = chosen.float().sum(0) / chosen.sum()
    return torch.special.entr(share).sum().item()


def effective__right_by_power(chosen):
    """The product of f^-f."""
    share = chosen.double().sum(0) / chosen.sum()
    return float(torch.prod(share ** -share))
