"""Similarities and distances of vectors, the losses made of them, and gates: operators composed of others."""
import math

import numpy as np

from bpnn.composed import broadcast_tensors

from bpcore.activation import logsigmoid, sigmoid, softplus, tanh
from bpcore.arithmetic import add, mul, neg, sub
from bpcore.combine import clamp_min, minimum, where
from bpcore.elementwise import exp, log, sqrt, square
from bpcore.join import chunk
from bpcore.reduce import mean
from bpcore.reduce import sum as total
from bpcore.shape import reshape
from bpcore.statistics import vector_norm
from bpcore.tensor import from_array

__all__ = [
    "cosine_embedding_loss", "cosine_similarity", "gaussian_nll_loss", "glu", "hinge_embedding_loss", "margin_ranking_loss",
    "multilabel_soft_margin_loss", "pairwise_distance", "poisson_nll_loss", "prelu", "soft_margin_loss", "tanhshrink",
    "triplet_margin_loss",
]


def _reduced(losses, reduction, size_average=None, reduce=None):
    """Mean, sum or nothing, after PyTorch's older arguments have had their say."""
    if size_average is not None or reduce is not None:
        summed = size_average is not None and not size_average
        reduction = "none" if reduce is not None and not reduce else "sum" if summed else "mean"
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
    return losses if reduction == "none" else mean(losses) if reduction == "mean" else total(losses)


# --- gates ----------------------------------------------------------------------------------------------------------------

def glu(input, dim=-1):
    """`a sigmoid(b)` for the two halves a, b of `input` along `dim`. Dauphin et al. 2017."""
    if input.ndim == 0 or input.shape[dim] % 2:
        raise RuntimeError(f"input: expected an even size along axis {dim}, got shape {input.shape}")
    a, b = chunk(input, 2, dim)
    return mul(a, sigmoid(b))


def tanhshrink(input):
    """`x - tanh(x)`"""
    return sub(input, tanh(input))


def prelu(input, weight):
    """`max(0, x) + weight min(0, x)`; weight: one number, or one for each channel (axis 1). He et al. 2015."""
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or (weight.numel() != 1 and weight.numel() != channels):
        raise RuntimeError(f"weight: expected 1 number, or {channels} for the channels of {input.shape}, got shape {weight.shape}")
    slope = reshape(weight, (1, -1) + (1,) * (input.ndim - 2)) if weight.numel() != 1 else reshape(weight, ())
    return where(from_array(np.asarray(input._array > 0)), input, mul(slope, input))


# --- vectors --------------------------------------------------------------------------------------------------------------

def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """`x1 . x2 / (max(|x1|, eps) max(|x2|, eps))` along `dim`; the shapes broadcast."""
    a, b = (x / clamp_min(vector_norm(x, 2, dim, True), eps) for x in broadcast_tensors(x1, x2))
    return total(mul(a, b), dim)


def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    """The p-norm of `x1 - x2 + eps` along the last axis; the shapes broadcast."""
    return vector_norm(add(sub(x1, x2), eps), p, -1, keepdim)


# --- losses ---------------------------------------------------------------------------------------------------------------

def _signs(target):
    """target == 1 and target == -1, as masks."""
    return from_array(np.asarray(target._array == 1)), from_array(np.asarray(target._array == -1))


def cosine_embedding_loss(input1, input2, target, margin=0, size_average=None, reduce=None, reduction="mean"):
    """`1 - cos` where target is 1, `max(0, cos - margin)` where it is -1; inputs (N, D) or (D), target (N) or a number."""
    if input1.ndim - 1 != target.ndim or input1.ndim not in (1, 2):
        raise RuntimeError(f"target: expected an axis less than the inputs (N, D) or (D), got {target.shape} for {input1.shape}")
    a, b = add(total(square(input1), -1), 1e-12), add(total(square(input2), -1), 1e-12)
    cosine = total(mul(input1, input2), -1) / sqrt(mul(a, b))
    same, other = _signs(target)
    zero = mul(cosine, 0)
    return _reduced(where(same, 1 - cosine, where(other, clamp_min(sub(cosine, margin), 0), zero)), reduction, size_average, reduce)


def hinge_embedding_loss(input, target, margin=1.0, size_average=None, reduce=None, reduction="mean"):
    """x where target is 1, `max(0, margin - x)` where it is -1."""
    same, other = _signs(target)
    zero = from_array(np.zeros((), input.dtype))
    far = where(same, zero, clamp_min(sub(margin, input), 0))
    return _reduced(add(far, where(other, zero, input)), reduction, size_average, reduce)


def margin_ranking_loss(input1, input2, target, margin=0, size_average=None, reduce=None, reduction="mean"):
    """`max(0, -target (x1 - x2) + margin)`"""
    return _reduced(clamp_min(add(mul(neg(target), sub(input1, input2)), margin), 0), reduction, size_average, reduce)


def triplet_margin_loss(anchor, positive, negative, margin=1.0, p=2, eps=1e-6, swap=False, size_average=None, reduce=None,
                        reduction="mean"):
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)` with p-norms d; `swap`: the nearer of anchor and positive counts
    for the negative. Balntas et al. 2016."""
    if margin <= 0:
        raise ValueError(f"margin: expected more than 0, got {margin}")
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduced(clamp_min(add(sub(near, far), margin), 0), reduction, size_average, reduce)


def soft_margin_loss(input, target, size_average=None, reduce=None, reduction="mean"):
    """`log(1 + e^(-target x))`"""
    return _reduced(softplus(mul(neg(target), input)), reduction, size_average, reduce)


def multilabel_soft_margin_loss(input, target, weight=None, size_average=None, reduce=None, reduction="mean"):
    """The mean over classes (the last axis) of `-w (t log sigmoid(x) + (1 - t) log sigmoid(-x))`."""
    losses = neg(add(mul(target, logsigmoid(input)), mul(sub(1, target), logsigmoid(neg(input)))))
    return _reduced(mean(losses if weight is None else mul(losses, weight), -1), reduction, size_average, reduce)


def poisson_nll_loss(input, target, log_input=True, full=False, size_average=None, eps=1e-8, reduce=None, reduction="mean"):
    """`e^x - t x` for logarithms x of a rate, `x - t log(x + eps)` for rates; `full` adds Stirling's
    `t log t - t + log(2 pi t) / 2` where t > 1."""
    losses = sub(exp(input), mul(target, input)) if log_input else sub(input, mul(target, log(add(input, eps))))
    if full:
        large = from_array(np.asarray(target._array > 1))
        t = where(large, target, from_array(np.ones((), target.dtype)))
        stirling = add(sub(mul(t, log(t)), t), mul(log(mul(t, 2 * math.pi)), 0.5))
        losses = add(losses, where(large, stirling, from_array(np.zeros((), target.dtype))))
    return _reduced(losses, reduction, size_average, reduce)


def gaussian_nll_loss(input, target, var, full=False, eps=1e-6, reduction="mean"):
    """`(log v + (x - t)^2 / v) / 2` with `v = max(var, eps)`; `full` adds `log(2 pi) / 2`. var: a number, the shape of input, or
    that without its last axis or with 1 there. Nix and Weigend 1994."""
    if isinstance(var, (int, float)):
        var = from_array(np.full(input.shape, var, input.dtype))
    elif var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = reshape(var, (*var.shape, 1))
        elif var.shape != (*input.shape[:-1], 1) and not (var.ndim == input.ndim and var.numel() == 1):
            raise ValueError(f"var: expected shape {input.shape}, {input.shape[:-1]} or {(*input.shape[:-1], 1)}, got {var.shape}")
    if (var._array < 0).any():
        raise ValueError("var: expected 0 or more, got a negative number")
    # PyTorch clamps without a gradient of its own: what is below eps still gets that of v.
    v = add(var, from_array(np.maximum(eps - var._array, 0).astype(var.dtype)))
    losses = mul(add(log(v), square(sub(input, target)) / v), 0.5)
    return _reduced(add(losses, 0.5 * math.log(2 * math.pi)) if full else losses, reduction)
