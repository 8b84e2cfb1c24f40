"""The types that tensors have, the default one for floats, and their one device."""
import numpy

_default = numpy.dtype(numpy.float32)


def default_float():
    """The dtype of floats that are given none: float32 until `set_default_float`."""
    return _default


def set_default_float(dtype):
    """Make `dtype`, float32 or float64, the default for floats."""
    global _default
    dtype = to_dtype(dtype)
    if dtype not in (numpy.float32, numpy.float64):
        raise TypeError(f"dtype: expected float32 or float64, got {dtype}")
    _default = dtype


def to_dtype(dtype):
    """A NumPy dtype from a dtype, a NumPy scalar type, a name, or Python's float, int or bool (float: the default)."""
    if dtype is float:
        return _default
    if isinstance(dtype, str) and dtype == "bfloat16":
        import ml_dtypes

        return numpy.dtype(ml_dtypes.bfloat16)
    try:
        result = numpy.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype: expected a NumPy dtype such as bpnn.float32, got {dtype!r}") from None
    if result.kind not in "biufc" and result.name != "bfloat16":
        raise TypeError(f"dtype: expected numbers or bools, got {result}")
    return result


def is_device(value):
    """Whether `value` is a string that names a device, such as `"cpu"` or `"cuda:0"`."""
    return isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda", "meta", "mps", "xpu")


def check_device(device):
    """Raise `ValueError` for any device but the CPU; None is no device."""
    if device is not None and str(device).split(":")[0] != "cpu":
        raise ValueError(f"device: expected 'cpu', got {device!r}")
