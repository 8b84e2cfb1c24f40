"""Clipping gradients. To clip by the norm on the way to a step, at no cost of its own, see `Optimizer.step(max_norm=…)`."""
import math
import warnings
from types import GeneratorType

import numpy as np

from bpcore.sparse import SparseTensor
from bpcore.sweep import clip_coefficient, rescale, total_norm
from bpcore.tensor import Tensor, from_array


def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False, foreach=None):
    """Scale the gradients of `parameters` in place so that their norm, all taken as one vector, is at most `max_norm`.

    They are multiplied by min(1, max_norm / (norm + 1e-6)).

    Args:
        parameters: a Tensor or an iterable of Tensors; those without a gradient are left out. Of a sparse gradient its values
            count.
        max_norm: the largest norm, 0 or more.
        norm_type: which norm, such as 2, 1 or infinity.
        error_if_nonfinite: raise `RuntimeError`, before anything is changed, where the norm is infinite or NaN.
        foreach: accepted and without effect.

    Returns the norm before clipping, a Tensor.
    """
    grads = _gradients(parameters)
    norm = get_total_norm(grads, norm_type, error_if_nonfinite)
    _rescale(grads, max_norm, norm)
    return norm


def clip_grads_with_norm_(parameters, max_norm, total_norm, foreach=None):
    """Scale the gradients of `parameters` in place as `clip_grad_norm_` does, by a norm that is known."""
    _rescale(_gradients(parameters), max_norm, total_norm)


def clip_grad_value_(parameters, clip_value, foreach=None):
    """Bring every element of the gradients of `parameters` into [-clip_value, clip_value], in place."""
    clip_value = float(clip_value)
    for grad in _gradients(parameters):
        values = grad.numpy(force=True)
        np.clip(values, -clip_value, clip_value, out=values)
        grad._changed()


def get_total_norm(tensors, norm_type=2.0, error_if_nonfinite=False, foreach=None):
    """The norm of all `tensors` (a Tensor or an iterable of them) taken as one vector, a Tensor of their dtype.

    norm_type p: (sum |x|^p)^(1/p); infinity: the largest |x|; 0: the number of elements that are not 0 (by tensor, then of
    these numbers, as in PyTorch). Sums are in double. Raises `RuntimeError` with `error_if_nonfinite` where the norm is infinite
    or NaN.
    """
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    norm_type = float(norm_type)
    if not tensors:
        return from_array(np.zeros((), np.float32))
    dtype = np.result_type(*(tensor.dtype for tensor in tensors))
    if norm_type == 2.0 and all(tensor.dtype in (np.float32, np.float64) for tensor in tensors):
        norm = total_norm(tensors)
    else:
        norm = _norm([_norm(tensor.numpy(force=True).astype(np.float64), norm_type) for tensor in tensors], norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite ({norm}), so it cannot be "
            "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return from_array(np.asarray(norm, dtype))


def _norm(values, p):
    values = np.abs(np.asarray(values)).ravel()
    if p == 0:
        return float(np.count_nonzero(values))
    if math.isinf(p):
        return float(values.max(initial=0.0) if p > 0 else values.min(initial=math.inf))
    with np.errstate(all="ignore"):
        return float((values**p).sum() ** (1 / p))


def _gradients(parameters):
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    items = list(parameters)
    if not items and isinstance(parameters, GeneratorType):
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3)
    grads = [item.grad for item in items if item.grad is not None]
    return [grad.values() if type(grad) is SparseTensor else grad for grad in grads]


def _rescale(grads, max_norm, norm):
    factor = clip_coefficient(float(norm), float(max_norm))
    if factor != 1.0:
        rescale(grads, factor)
