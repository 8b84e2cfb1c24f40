"""Tensors from values, ranges and random numbers."""
import math

import numpy

from bpcore.combine import where
from bpcore.dtypes import check_device, default_float, to_dtype
from bpcore.random import generator as numpy_generator
from bpcore.tensor import Tensor, from_array

__all__ = [
    "arange", "as_tensor", "asarray", "bernoulli", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full",
    "full_like", "linspace", "logspace", "multinomial", "normal", "one_hot", "ones", "ones_like", "rand", "rand_like",
    "randint", "randint_like", "randn", "randn_like", "randperm", "scalar_tensor", "tensor", "tril_indices",
    "triu_indices", "zeros", "zeros_like",
]


def _finish(array, dtype=None, device=None, requires_grad=False):
    """A Tensor around an array that nobody else has."""
    check_device(device)
    if dtype is not None:
        array = array.astype(to_dtype(dtype), copy=False)
    return from_array(numpy.asarray(array), requires_grad)


def _shape(size, name="size"):
    """A shape from `f(2, 3)` or `f((2, 3))`."""
    if len(size) == 1 and not isinstance(size[0], (int, numpy.integer)):
        size = tuple(size[0])
    for n in size:
        if not isinstance(n, (int, numpy.integer)) or isinstance(n, bool):
            raise TypeError(f"{name}: expected integers, got {type(n).__name__}")
        if n < 0:
            raise RuntimeError(f"{name}: expected sizes of 0 or more, got {tuple(size)}")
    return tuple(int(n) for n in size)


def _values(data, name):
    """An array of `data` with PyTorch's dtype for Python numbers: int64, the default float, bool."""
    if isinstance(data, Tensor):
        return data._array
    if isinstance(data, (list, tuple)) and any(isinstance(item, Tensor) for item in data):
        data = [item._array if isinstance(item, Tensor) else item for item in data]
    from_python = not isinstance(data, (numpy.ndarray, numpy.generic))
    try:
        array = numpy.asarray(data)
    except ValueError as error:
        raise ValueError(f"{name}: expected nested lists of equal lengths ({error})") from None
    if array.dtype.kind not in "biufc" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name}: expected numbers, got {array.dtype} ({type(data).__name__})")
    if from_python and array.dtype.kind == "f" and not _holds_numpy(data):
        array = array.astype(default_float())
    return array


def _holds_numpy(data):
    """Whether nested lists hold NumPy values, which keep their own precision."""
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (numpy.ndarray, numpy.generic))


def tensor(data, *, dtype=None, device=None, requires_grad=False, pin_memory=False):
    """A new leaf with a copy of `data`: a number, nested lists, an array or a Tensor.

    >>> import bpnn
    >>> bpnn.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    array = _values(data, "data")
    return _finish(numpy.array(array, to_dtype(dtype) if dtype is not None else array.dtype), None, device, requires_grad)


def as_tensor(data, dtype=None, device=None):
    """`data` as a Tensor, without a copy where it is a Tensor or an array of the right dtype."""
    if isinstance(data, Tensor):
        return data if dtype is None or data.dtype == to_dtype(dtype) else data.to(dtype)
    return _finish(_values(data, "data"), dtype, device)


def asarray(obj, *, dtype=None, device=None, copy=None, requires_grad=False):
    """`obj` as a Tensor; `copy=True` always copies."""
    result = tensor(obj, dtype=dtype, device=device) if copy else as_tensor(obj, dtype, device)
    return result.requires_grad_() if requires_grad else result


def scalar_tensor(value, *, dtype=None, device=None, requires_grad=False):
    """A tensor of no axes, of the default dtype."""
    return full((), value, dtype=dtype or default_float(), device=device, requires_grad=requires_grad)


def from_numpy(array):
    """A Tensor that shares the memory of `array`.

    >>> import bpnn, numpy
    >>> a = numpy.zeros(2)
    >>> t = bpnn.from_numpy(a)
    >>> a[0] = 1
    >>> t
    tensor([1., 0.], dtype=bpnn.float64)
    """
    return from_array(array)


def from_dlpack(array):
    """A Tensor that shares the memory of anything on the CPU that speaks DLPack."""
    return from_array(numpy.from_dlpack(array))


def empty(*size, dtype=None, device=None, requires_grad=False):
    """Uninitialised memory of shape `size`."""
    return _finish(numpy.empty(_shape(size), to_dtype(dtype or default_float())), None, device, requires_grad)


def zeros(*size, dtype=None, device=None, requires_grad=False):
    """Zeros of shape `size`."""
    return _finish(numpy.zeros(_shape(size), to_dtype(dtype or default_float())), None, device, requires_grad)


def ones(*size, dtype=None, device=None, requires_grad=False):
    """Ones of shape `size`."""
    return _finish(numpy.ones(_shape(size), to_dtype(dtype or default_float())), None, device, requires_grad)


def full(size, fill_value, *, dtype=None, device=None, requires_grad=False):
    """`fill_value` everywhere; the dtype is that of the value."""
    value = fill_value._array if isinstance(fill_value, Tensor) else fill_value
    dtype = to_dtype(dtype) if dtype is not None else _values(value, "fill_value").dtype
    shape = _shape((size,)) if not isinstance(size, int) else (size,)
    return _finish(numpy.full(shape, value, dtype), None, device, requires_grad)


def _like(function):
    def like(input, *, dtype=None, device=None, requires_grad=False):
        return function(tuple(input.shape), dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)

    like.__name__ = like.__qualname__ = function.__name__ + "_like"
    like.__doc__ = f"`{function.__name__}` of the shape and dtype of `input`."
    return like


empty_like = _like(empty)
zeros_like = _like(zeros)
ones_like = _like(ones)


def full_like(input, fill_value, *, dtype=None, device=None, requires_grad=False):
    """`full` of the shape and dtype of `input`."""
    return full(tuple(input.shape), fill_value, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def arange(start, end=None, step=1, *, dtype=None, device=None, requires_grad=False):
    """Numbers from `start` (0 where only one bound is given) up to but not including `end`."""
    start, end = (0, start) if end is None else (start, end)
    bounds = [x.item() if isinstance(x, Tensor) else x for x in (start, end, step)]
    if bounds[2] == 0 or (bounds[1] - bounds[0]) * bounds[2] < 0:
        raise RuntimeError(f"step: expected to lead from {bounds[0]} to {bounds[1]}, got {bounds[2]}")
    if dtype is None:
        dtype = numpy.int64 if all(isinstance(x, (int, numpy.integer)) for x in bounds) else default_float()
    count = math.ceil((bounds[1] - bounds[0]) / bounds[2])
    values = bounds[0] + numpy.arange(count) * bounds[2]
    return _finish(values, dtype, device, requires_grad)


def linspace(start, end, steps, *, dtype=None, device=None, requires_grad=False):
    """`steps` evenly spaced numbers from `start` to `end`, both included."""
    start, end = (x.item() if isinstance(x, Tensor) else x for x in (start, end))
    return _finish(numpy.linspace(start, end, steps), dtype or default_float(), device, requires_grad)


def logspace(start, end, steps, base=10.0, *, dtype=None, device=None, requires_grad=False):
    """`base` to the power of `steps` evenly spaced numbers from `start` to `end`."""
    start, end = (x.item() if isinstance(x, Tensor) else x for x in (start, end))
    return _finish(numpy.logspace(start, end, steps, base=base), dtype or default_float(), device, requires_grad)


def eye(n, m=None, *, dtype=None, device=None, requires_grad=False):
    """An `n` by `m` matrix (`n` by `n`) of ones on the diagonal."""
    return _finish(numpy.eye(n, m, dtype=to_dtype(dtype or default_float())), None, device, requires_grad)


def tril_indices(row, col, offset=0, *, dtype=numpy.int64):
    """The rows and columns of the lower triangle, shape (2, count)."""
    return _finish(numpy.stack(numpy.tril_indices(row, offset, col)), dtype)


def triu_indices(row, col, offset=0, *, dtype=numpy.int64):
    """The rows and columns of the upper triangle, shape (2, count)."""
    return _finish(numpy.stack(numpy.triu_indices(row, offset, col)), dtype)


def one_hot(input, num_classes=-1):
    """Class indices (*) as rows of zeros with a one at the index, (*, num_classes); int64. -1: as many as the indices need."""
    indices = input._array
    if indices.dtype.kind not in "iu":
        raise RuntimeError(f"input: expected integers, got {indices.dtype}")
    if indices.size == 0 and num_classes <= 0:
        raise RuntimeError("num_classes: expected a positive number for an empty input")
    if indices.size and indices.min() < 0:
        raise RuntimeError(f"input: expected class indices of 0 or more, got {indices.min()}")
    needed = int(indices.max()) + 1 if indices.size else 0
    if num_classes == -1:
        num_classes = needed
    elif needed > num_classes:
        raise RuntimeError(f"num_classes: expected more than the largest index, {needed - 1}, got {num_classes}")
    return _finish((indices[..., None] == numpy.arange(num_classes)).astype(numpy.int64))


# --- random ---------------------------------------------------------------------------------------------------------------

def _draw(method, shape, dtype, generator):
    """Floats from the NumPy generator's `method`, in single precision where that is enough."""
    dtype = to_dtype(dtype or default_float())
    if dtype.kind != "f" and dtype.name != "bfloat16":
        raise RuntimeError(f"dtype: expected a floating-point type, got {dtype}")
    width = numpy.float64 if dtype == numpy.float64 else numpy.float32
    return getattr(numpy_generator(generator), method)(shape, width).astype(dtype, copy=False)


def _apart(values, *inputs):
    """Drawn `values`; the tensors that shaped the draw get a gradient of zero, as in PyTorch."""
    out = _finish(values)
    for x in inputs:
        if isinstance(x, Tensor) and x.requires_grad:
            out = where(from_array(numpy.asarray(True)), out, x)
    return out


def rand(*size, generator=None, dtype=None, device=None, requires_grad=False):
    """Uniform numbers in [0, 1)."""
    return _finish(_draw("random", _shape(size), dtype, generator), None, device, requires_grad)


def randn(*size, generator=None, dtype=None, device=None, requires_grad=False):
    """Normal numbers of mean 0 and variance 1."""
    return _finish(_draw("standard_normal", _shape(size), dtype, generator), None, device, requires_grad)


def rand_like(input, *, generator=None, dtype=None, device=None, requires_grad=False):
    """`rand` of the shape and dtype of `input`."""
    return rand(tuple(input.shape), generator=generator, dtype=dtype or input.dtype, device=device,
                requires_grad=requires_grad)


def randn_like(input, *, generator=None, dtype=None, device=None, requires_grad=False):
    """`randn` of the shape and dtype of `input`."""
    return randn(tuple(input.shape), generator=generator, dtype=dtype or input.dtype, device=device,
                 requires_grad=requires_grad)


def randint(low, high=None, size=None, *, generator=None, dtype=numpy.int64, device=None, requires_grad=False):
    """Integers from `low` up to but not including `high`: `randint(10, (3,))` or `randint(2, 10, (3,))`."""
    if size is None:
        low, high, size = 0, low, high
    if size is None or high is None:
        raise TypeError("size: expected a tuple of integers")
    if low >= high:
        raise RuntimeError(f"randint: expected low < high, got {low} and {high}")
    values = numpy_generator(generator).integers(low, high, _shape((size,)))
    return _finish(values, dtype, device, requires_grad)


def randint_like(input, low, high=None, *, generator=None, dtype=None):
    """`randint` of the shape and dtype of `input`."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, tuple(input.shape), generator=generator, dtype=dtype or input.dtype)


def randperm(n, *, generator=None, dtype=numpy.int64, device=None, requires_grad=False):
    """The integers 0 to n - 1 in random order."""
    return _finish(numpy_generator(generator).permutation(n), dtype, device, requires_grad)


def normal(mean, std=1.0, size=None, *, generator=None, dtype=None, device=None):
    """Normal numbers of the given means and standard deviations (numbers with a `size`, or Tensors)."""
    values = [x._array if isinstance(x, Tensor) else x for x in (mean, std)]
    if numpy.any(numpy.asarray(values[1]) < 0):
        raise RuntimeError("std: expected 0 or more")
    if size is None:
        size = numpy.broadcast_shapes(*(numpy.shape(x) for x in values))
        dtype = dtype or next((x.dtype for x in (mean, std) if isinstance(x, Tensor)), None)
    noise = _draw("standard_normal", _shape((size,)), dtype, generator)
    check_device(device)
    return _apart((noise * values[1] + values[0]).astype(noise.dtype, copy=False), mean, std)


def bernoulli(input, p=None, *, generator=None):
    """1 with the probability that each element of `input` (or `p`) gives, else 0."""
    chance = input._array if p is None else numpy.full(input.shape, p)
    if not ((chance >= 0) & (chance <= 1)).all():
        raise RuntimeError("bernoulli: expected probabilities between 0 and 1")
    return _apart((numpy_generator(generator).random(chance.shape) < chance).astype(input.dtype), input)


def multinomial(input, num_samples, replacement=False, *, generator=None):
    """`num_samples` column numbers drawn from each row of weights in `input` (N, C) or (C,); int64."""
    weights = numpy.atleast_2d(input._array).astype(numpy.float64)
    if input.ndim not in (1, 2):
        raise RuntimeError(f"input: expected one or two axes, got shape {input.shape}")
    if not numpy.isfinite(weights).all() or (weights < 0).any() or (weights.sum(1) <= 0).any():
        raise RuntimeError("input: expected finite weights of 0 or more with a positive sum in each row")
    if num_samples < 1 or (not replacement and num_samples > (weights > 0).sum(1).min()):
        raise RuntimeError(f"num_samples: expected from 1 to the number of positive weights, got {num_samples}")
    draw = numpy_generator(generator)
    if replacement:
        edges = weights.cumsum(1)
        points = draw.random((len(weights), num_samples)) * edges[:, -1:]
        picked = numpy.stack([numpy.searchsorted(e, p, "right") for e, p in zip(edges, points, strict=True)])
    else:
        # The largest of Exp(1)/w race: equal to drawing without replacement (Efraimidis and Spirakis 2006).
        with numpy.errstate(divide="ignore"):
            race = draw.standard_exponential(weights.shape) / weights
        picked = race.argsort(1)[:, :num_samples]
    return _finish(picked.reshape(num_samples) if input.ndim == 1 else picked, numpy.int64)
