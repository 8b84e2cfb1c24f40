"""The text of a tensor, in PyTorch's manner."""
import math

import numpy

from bpcore.dtypes import default_float

DIGITS = 4


def _float_style(array):
    """A function from a float to its text: integers as `1.`, else four digits, in powers of ten where sizes differ much."""
    sizes = numpy.abs(array[numpy.isfinite(array) & (array != 0)]).astype(numpy.float64)
    if sizes.size == 0:
        style = "{:.0f}."
    else:
        low, high = sizes.min(), sizes.max()
        if (sizes == numpy.ceil(sizes)).all() and high <= 1e8:
            style = f"{{:.{DIGITS}e}}" if high / low > 1000 and high > 1e8 else "{:.0f}."
        elif high > 1e8 or low < 1e-4 or high / low > 1000:
            style = f"{{:.{DIGITS}e}}"
        else:
            style = f"{{:.{DIGITS}f}}"
    return lambda value: style.format(value) if math.isfinite(value) else str(float(value))


def _values(array):
    """The nested lists of values."""
    formatter = None
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        array = array.astype(numpy.float64)
        text = _float_style(array)
        sample = array if array.size <= 1000 else numpy.concatenate([array.ravel()[:100], array.ravel()[-100:]])
        width = max((len(text(value)) for value in sample.ravel()), default=0)
        if array.ndim == 0:
            return text(array.item())
        formatter = {"float_kind": lambda value: text(value).rjust(width)}
    elif array.dtype.kind == "b":
        width = 5 if array.size and not array.all() else 4
        formatter = {"bool": lambda value: str(bool(value)).rjust(width)}
    return numpy.array2string(array, separator=", ", prefix="tensor(", formatter=formatter, max_line_width=80)


def tensor_text(tensor):
    """`tensor([1., 2.], grad_fn=<AddBackward>)`: values, dtype where it is not a usual one, place on the tape."""
    array = tensor._array
    parts = [_values(array) if array.size else "[]"]
    if array.size == 0 and array.ndim != 1:
        parts.append(f"size={array.shape}")
    usual = {"float": default_float(), "int": numpy.dtype(numpy.int64), "bool": numpy.dtype(bool)}
    if array.dtype not in usual.values() or (array.size == 0 and array.dtype != default_float()):
        parts.append(f"dtype=bpnn.{array.dtype.name}")
    if tensor.grad_fn is not None:
        parts.append(f"grad_fn={tensor.grad_fn!r}")
    elif tensor.requires_grad:
        parts.append("requires_grad=True")
    return f"tensor({', '.join(parts)})"
