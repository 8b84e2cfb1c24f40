"""bpnn: neural networks trained by back-propagation, on the CPU.

PyTorch's names at PyTorch's paths: `bpnn.nn`, `bpnn.nn.functional`, `bpnn.optim`, `bpnn.utils.data`, `bpnn.autograd`.
"""
from typing import TYPE_CHECKING as _TYPE_CHECKING

import numpy as _numpy

from bpnn._tensor import Tensor
from bpnn.creation import (
    arange, as_tensor, asarray, bernoulli, empty, empty_like, eye, from_dlpack, from_numpy, full, full_like, linspace,
    logspace, multinomial, normal, ones, ones_like, rand, rand_like, randint, randint_like, randn, randn_like, randperm,
    scalar_tensor, tensor, tril_indices, triu_indices, zeros, zeros_like,
)
from bpnn.random import Generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from bpnn import autograd
from bpnn.autograd import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled

# tensor algebra
from bpcore.arithmetic import add, div, floor_divide, fmod, mul, neg, positive, remainder, rsub, sub
from bpcore.combine import (
    addcdiv, addcmul, atan2, clamp, clamp_max, clamp_min, copysign, fmax, fmin, hypot, lerp, logaddexp, logaddexp2,
    maximum, minimum, where, xlogy,
)
from bpcore.compare import (
    allclose, bitwise_and, bitwise_left_shift, bitwise_not, bitwise_or, bitwise_right_shift, bitwise_xor, eq, equal,
    ge, gt, isclose, isfinite, isin, isinf, isnan, isneginf, isposinf, isreal, le, logical_and, logical_not,
    logical_or, logical_xor, lt, ne, signbit,
)
from bpcore.einsum import einsum
from bpcore.elementwise import (
    acos, acosh, asin, asinh, atan, atanh, cos, cosh, deg2rad, erf, erfc, erfinv, exp, exp2, expm1, log, log10, log1p,
    log2, logit, rad2deg, reciprocal, rsqrt, sin, sinh, sqrt, square, tan,
)
from bpcore.gather import (
    argwhere, gather, index_add, index_copy, index_fill, index_put, index_select, masked_fill, masked_scatter,
    masked_select, nonzero, scatter, scatter_add, take, take_along_dim,
)
from bpcore.join import (
    atleast_1d, atleast_2d, atleast_3d, cat, chunk, column_stack, dsplit, dstack, hsplit, hstack, split, stack,
    tensor_split, unbind, vsplit, vstack,
)
from bpcore.matmul import addbmm, addmm, addmv, addr, baddbmm, bmm, dot, inner, matmul, mm, mv, outer, tensordot
from bpcore.order import (
    argsort, cummax, cummin, cumprod, cumsum, kthvalue, median, msort, nanmedian, sort, topk, unique,
)
from bpcore.power import float_power, pow
from bpcore.promotion import can_cast, promote_types, result_type
from bpcore.reduce import amax, amin, aminmax, argmax, argmin, max, mean, min, sum
from bpcore.repeat import diag, diag_embed, flip, fliplr, flipud, repeat_interleave, roll, tile, tril, triu
from bpcore.rounding import abs, ceil, floor, frac, nan_to_num, round, sign, trunc
from bpcore.shape import (
    adjoint, broadcast_to, clone, diagonal, flatten, movedim, narrow, permute, ravel, reshape, select, squeeze, t,
    transpose, unflatten, unsqueeze,
)
from bpcore.statistics import (
    all, any, count_nonzero, logsumexp, nanmean, nansum, norm, prod, std, std_mean, var, var_mean,
)

from bpnn.composed import (
    bincount, block_diag, broadcast_shapes, broadcast_tensors, bucketize, cartesian_prod, cross, diagflat, diff, dist, histc, kron,
    meshgrid, rot90, scatter_reduce, searchsorted, select_scatter, sinc, slice_scatter,
)

from bpcore.activation import relu, sigmoid, tanh
from bpcore.dtypes import default_float as get_default_dtype
from bpcore.dtypes import set_default_float as set_default_dtype
from bpcore.memory import empty_cache, memory_stats
from bpcore.softmax import log_softmax, softmax
from bpcore.threads import get_num_threads, set_num_threads

# second names, as PyTorch has them
absolute = abs
arccos = acos
arccosh = acosh
arcsin = asin
arcsinh = asinh
arctan = atan
arctan2 = atan2
arctanh = atanh
clip = clamp
concat = cat
concatenate = cat
divide = div
fix = trunc
ger = outer
greater = gt
greater_equal = ge
less = lt
less_equal = le
moveaxis = movedim
multiply = mul
negative = neg
not_equal = ne
row_stack = vstack
subtract = sub
swapaxes = transpose
swapdims = transpose
true_divide = div

__version__ = "0.1.0"

float16 = half = _numpy.dtype("float16")
float32 = float = _numpy.dtype("float32")
float64 = double = _numpy.dtype("float64")
uint8 = _numpy.dtype("uint8")
int8 = _numpy.dtype("int8")
int16 = short = _numpy.dtype("int16")
int32 = int = _numpy.dtype("int32")
int64 = long = _numpy.dtype("int64")
bool = _numpy.dtype("bool")
inf, nan, pi, e = _numpy.inf, _numpy.nan, _numpy.pi, _numpy.e


def is_tensor(obj):
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


# What importing bpnn does not pay for: loaded when it is first asked for.
_ROOMS = ("data", "finetune", "linalg", "models", "nn", "optim", "pretrained", "train", "transforms", "utils")
_ELSEWHERE = {"load": "serialization", "save": "serialization", "show_versions": "_versions", "versions": "_versions"}

if _TYPE_CHECKING:
    from bpnn import data, finetune, linalg, models, nn, optim, pretrained, train, transforms, utils
    from bpnn._versions import show_versions, versions
    from bpnn.serialization import load, save


def __getattr__(name):
    from importlib import import_module

    if name in _ROOMS:
        return import_module(f"bpnn.{name}")
    if name in _ELSEWHERE:
        globals()[name] = getattr(import_module(f"bpnn.{_ELSEWHERE[name]}"), name)
        return globals()[name]
    raise AttributeError(f"module 'bpnn' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_ROOMS, *_ELSEWHERE})
