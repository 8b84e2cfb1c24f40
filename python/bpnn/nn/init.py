"""Starting values for weights. Each function fills a tensor in place, untaped, and returns it."""
import contextlib
import contextvars
import functools
import math

import numpy

from bpcore.random import generator as numpy_generator

_skipped = contextvars.ContextVar("_skipped", default=False)


@contextlib.contextmanager
def skip_init():
    """Inside, the functions of this page leave tensors as they are: for networks whose weights come from a file.

    >>> from bpnn import nn
    >>> with nn.init.skip_init():
    ...     layer = nn.Linear(1000, 1000)               # no random numbers are drawn
    """
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def _start(function):
    """A function of this page: does nothing within `skip_init`."""
    @functools.wraps(function)
    def start(tensor, *args, **keywords):
        return tensor if _skipped.get() else function(tensor, *args, **keywords)
    return start


def _fill(tensor, values):
    """Write `values` into the tensor's memory."""
    tensor._array[...] = values
    tensor._changed()
    return tensor


def _width(tensor):
    return numpy.float64 if tensor.dtype == numpy.float64 else numpy.float32


def calculate_gain(nonlinearity, param=None):
    """The factor by which an activation shrinks the spread of its input.

    linear, conv and sigmoid: 1; tanh: 5/3; relu: sqrt(2); leaky_relu: sqrt(2 / (1 + slope^2)); selu: 3/4.
    """
    if nonlinearity in ("linear", "sigmoid", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
                        "conv_transpose3d"):
        return 1.0
    if nonlinearity == "tanh":
        return 5 / 3
    if nonlinearity == "relu":
        return math.sqrt(2)
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity == "selu":
        return 3 / 4
    raise ValueError(f"nonlinearity: unknown {nonlinearity!r}")


def _fans(tensor):
    """Inputs and outputs of one unit: axes 1 and 0, times the size of the receptive field."""
    if tensor.ndim < 2:
        raise ValueError(f"tensor: expected at least two axes, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor, mode):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode: expected 'fan_in' or 'fan_out', got {mode!r}")
    return _fans(tensor)[mode == "fan_out"]


@_start
def uniform_(tensor, a=0.0, b=1.0, generator=None):
    """Uniform in [a, b)."""
    return _fill(tensor, numpy_generator(generator).random(tensor.shape, _width(tensor)) * (b - a) + a)


@_start
def normal_(tensor, mean=0.0, std=1.0, generator=None):
    """Normal of the given mean and standard deviation."""
    return _fill(tensor, numpy_generator(generator).standard_normal(tensor.shape, _width(tensor)) * std + mean)


@_start
def trunc_normal_(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0, generator=None):
    """Normal, drawn again wherever it falls outside [a, b]."""
    if a >= b:
        raise ValueError(f"a, b: expected a < b, got {a} and {b}")
    draw = numpy_generator(generator)
    edges = [(1 + math.erf((edge - mean) / std / math.sqrt(2))) / 2 for edge in (a, b)]
    if edges[1] - edges[0] < 1e-3:
        raise ValueError(f"a, b: [{a}, {b}] holds almost nothing of a normal of mean {mean} and std {std}")
    values = draw.standard_normal(tensor.shape) * std + mean
    outside = (values < a) | (values > b)
    while outside.any():
        values[outside] = draw.standard_normal(int(outside.sum())) * std + mean
        outside = (values < a) | (values > b)
    return _fill(tensor, values)


@_start
def constant_(tensor, val):
    """`val` everywhere."""
    return _fill(tensor, val)


@_start
def ones_(tensor):
    """Ones."""
    return _fill(tensor, 1)


@_start
def zeros_(tensor):
    """Zeros."""
    return _fill(tensor, 0)


@_start
def eye_(tensor):
    """The identity matrix."""
    if tensor.ndim != 2:
        raise ValueError(f"tensor: expected two axes, got shape {tensor.shape}")
    return _fill(tensor, numpy.eye(*tensor.shape))


def xavier_uniform_(tensor, gain=1.0, generator=None):
    """Uniform in ±gain sqrt(6 / (fan_in + fan_out)). Glorot and Bengio 2010."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor, gain=1.0, generator=None):
    """Normal of deviation gain sqrt(2 / (fan_in + fan_out)). Glorot and Bengio 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), generator)


def kaiming_uniform_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """Uniform in ±gain sqrt(3 / fan), the gain that of `nonlinearity` (slope `a`). He et al. 2015."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / max(_fan(tensor, mode), 1))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """Normal of deviation gain / sqrt(fan), the gain that of `nonlinearity` (slope `a`). He et al. 2015."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(max(_fan(tensor, mode), 1)), generator)


def classic_normal_(tensor, generator=None):
    """Normal of deviation 1 / sqrt(fan_in): the weighted sum of unit inputs has variance 1. LeCun et al. 1998."""
    return normal_(tensor, 0.0, 1 / math.sqrt(_fan(tensor, "fan_in")), generator)


@_start
def orthogonal_(tensor, gain=1.0, generator=None):
    """A (semi-)orthogonal matrix times `gain`, the axes after the first flattened. Saxe et al. 2014."""
    if tensor.ndim < 2:
        raise ValueError(f"tensor: expected at least two axes, got shape {tensor.shape}")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    if rows * columns == 0:
        return tensor
    tall = numpy_generator(generator).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = numpy.linalg.qr(tall)
    q = q * numpy.sign(numpy.diag(r))          # makes the distribution uniform (Mezzadri 2007)
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


@_start
def sparse_(tensor, sparsity, std=0.01, generator=None):
    """Normal, with the fraction `sparsity` of each column zero. Martens 2010."""
    if tensor.ndim != 2:
        raise ValueError(f"tensor: expected two axes, got shape {tensor.shape}")
    normal_(tensor, 0.0, std, generator)
    draw = numpy_generator(generator)
    rows, columns = tensor.shape
    for column in range(columns):
        tensor._array[draw.permutation(rows)[:math.ceil(sparsity * rows)], column] = 0
    return tensor
