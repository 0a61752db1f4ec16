"""Answers to 03_attention: `f__name` answers f.

`Says:` is what the failing test must tell. Names with `right` must pass.
"""
import torch
import torch.nn.functional as F


def split_heads__heads_before_the_three(qkv, heads):
    """Reads the last axis as heads x 3.

    Says: the 3 stands before the heads
    """
    b, n, _ = qkv.shape
    q, k, v = qkv.view(b, n, heads, 3, -1).permute(3, 0, 2, 1, 4)
    return q, k, v


def split_heads__reshape_instead_of_transpose(qkv, heads):
    """Gets the right shape by reshape.

    Says: heads and tokens are mixed up
    """
    b, n, width = qkv.shape
    q, k, v = qkv.chunk(3, -1)
    return tuple(t.reshape(b, heads, n, width // 3 // heads) for t in (q, k, v))


def split_heads__tokens_before_heads(qkv, heads):
    """Leaves the heads after the tokens, so that attention would run over heads.

    Says: tokens come after heads
    """
    b, n, _ = qkv.shape
    q, k, v = qkv.view(b, n, 3, heads, -1).unbind(2)
    return q, k, v


def split_heads__right_by_chunks(qkv, heads):
    """Chunks, then unflatten and transpose."""
    return tuple(t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))


def attend__no_scale(q, k, v):
    """Forgets the scale.

    Says: without the factor 1 / sqrt(d)
    """
    weights = (q @ k.transpose(-2, -1)).softmax(-1)
    return weights @ v, weights


def attend__scaled_by_d(q, k, v):
    """Divides by d.

    Says: not by d and not by the root of the whole D
    """
    weights = (q @ k.transpose(-2, -1) / q.shape[-1]).softmax(-1)
    return weights @ v, weights


def attend__scaled_by_whole_width(q, k, v):
    """Takes the whole width D for d.

    Says: width of ONE head
    """
    weights = (q @ k.transpose(-2, -1) / (q.shape[1] * q.shape[-1]) ** 0.5).softmax(-1)
    return weights @ v, weights


def attend__softmax_over_queries(q, k, v):
    """Normalises over the wrong axis.

    Says: over the KEYS
    """
    weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-2)
    return weights @ v, weights


def attend__right_by_einsum(q, k, v):
    """Index notation, exponentials by hand."""
    scores = torch.einsum("bhid,bhjd->bhij", q * q.shape[-1] ** -0.5, k)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.einsum("bhij,bhjd->bhid", weights, v), weights


def key_shift__for_each_key(q, key_bias):
    """Takes the shift for one number a key.

    Says: the index j of the key does not occur in it
    """
    return (q * key_bias[:, None]).sum(-1)[:, :, None, :] / q.shape[-1] ** 0.5


def key_shift__no_scale(q, key_bias):
    """Forgets that scores are scaled.

    Says: the shift is scaled by 1 / sqrt(d)
    """
    return (q * key_bias[:, None]).sum(-1, keepdim=True)


def key_shift__zero(q, key_bias):
    """Thinks that an idle bias does not change the scores.

    Says: differ by another number than yours
    """
    return torch.zeros(*q.shape[:3], 1)


def key_shift__right_as_product(q, key_bias):
    """Matrix product, expanded to all keys."""
    return (q @ key_bias.unsqueeze(-1) * q.shape[-1] ** -0.5).expand(-1, -1, -1, q.shape[2])


def effect__bias_on_the_wrong_third(x, qkv_weight, heads, which, bias):
    """Counts k before q.

    Says: a key bias changed the output
    """
    whole = torch.zeros(3, len(bias))
    whole["kqv".index(which)] = bias
    without, _ = attend(*split_heads(F.linear(x, qkv_weight), heads))
    having, _ = attend(*split_heads(F.linear(x, qkv_weight, whole.flatten()), heads))
    return (having - without).abs().max().item()


def effect__on_the_scores(x, qkv_weight, heads, which, bias):
    """Compares scores instead of outputs: there the key bias does show.

    Says: a key bias changed the output
    """
    whole = torch.zeros(3, len(bias))
    whole["qkv".index(which)] = bias
    q, k, _ = split_heads(F.linear(x, qkv_weight), heads)
    q1, k1, _ = split_heads(F.linear(x, qkv_weight, whole.flatten()), heads)
    return (q1 @ k1.transpose(-2, -1) - q @ k.transpose(-2, -1)).abs().max().item()


def effect__on_all_three(x, qkv_weight, heads, which, bias):
    """Adds the bias to the tokens, and so to queries, keys and values.

    Says: a key bias changed the output
    """
    without, _ = attend(*split_heads(F.linear(x, qkv_weight), heads))
    having, _ = attend(*split_heads(F.linear(x + bias, qkv_weight), heads))
    return (having - without).abs().max().item()


def effect__right_after_splitting(x, qkv_weight, heads, which, bias):
    """Adds the bias after the heads are split."""
    parts = dict(zip("qkv", split_heads(F.linear(x, qkv_weight), heads), strict=True))
    before, _ = attend(*parts.values())
    parts[which] = parts[which] + bias.view(heads, 1, -1)
    after, _ = attend(*parts.values())
    return float((after - before).abs().max())


def merge_bias__values_before_keys(q_bias, v_bias):
    """Puts the zeros at the end.

    Says: the middle third, of the keys, is zero
    """
    return torch.cat([q_bias, v_bias, torch.zeros_like(q_bias)])


def merge_bias__two_thirds(q_bias, v_bias):
    """Leaves the keys out.

    Says: expected [3 D]
    """
    return torch.cat([q_bias, v_bias])


def merge_bias__right_any_key_bias(q_bias, v_bias):
    """Whatever stands in the middle: the function is the same."""
    return torch.cat([q_bias, torch.full_like(q_bias, 0.7), v_bias])
