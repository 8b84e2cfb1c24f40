"""Normalizations that other operations do well enough: local_response_norm on NumPy, normalize on tensors."""
from numpy cimport NPY_FLOAT, ndarray

from bpcore.operand cimport cast_tensor, is_real
from bpcore.promotion cimport float_type
from bpcore.tensor cimport Tensor, as_tensor, wrap

import numpy

from bpcore.arithmetic import div
from bpcore.combine import clamp_min
from bpcore.statistics import norm
from bpcore.tensor import record


cdef ndarray window_sum(ndarray a, Py_ssize_t before, Py_ssize_t after):
    """out[:, c] = the sum of a[:, c - before .. c + after], as far as there are such channels."""
    cdef Py_ssize_t offset, channels = a.shape[1]
    total = a.copy()
    for offset in range(1, min(before, channels - 1) + 1):
        total[:, offset:] += a[:, :channels - offset]
    for offset in range(1, min(after, channels - 1) + 1):
        total[:, :channels - offset] += a[:, offset:]
    return total


cdef ndarray power(ndarray d, double exponent):
    """d ** exponent; the customary -0.75 by square roots, which are several times faster."""
    if exponent == -0.75:
        root = numpy.sqrt(d)
        return 1 / (root * numpy.sqrt(root))
    return d ** d.dtype.type(exponent)


def local_response_norm(input, Py_ssize_t size, double alpha=1e-4, double beta=0.75, double k=1.0):
    """`y_c = x_c (k + alpha / size * sum(x_i^2))^-beta`, i the `size` channels around c (Krizhevsky et al. 2012).

    input x: (N, C, *), at least three axes, of a floating-point type (half types are computed in float32); y likewise. The window
    starts size // 2 channels before c; channels outside count as 0. Raises `ValueError` for fewer axes or `size` < 1.
    """
    cdef Tensor t = as_tensor(input, "input"), out
    cdef int typenum = t.array.dtype.num
    if t.ndim < 3:
        raise ValueError(f"input: expected shape (N, C, *) with at least three axes, got {t.shape}")
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    if t.array.size == 0:
        return t
    if not is_real(typenum):
        if float_type(typenum) != typenum or t.array.dtype.kind == "c":
            raise TypeError(f"input: expected a floating-point tensor, got {t.dtype}")
        return cast_tensor(local_response_norm(cast_tensor(t, NPY_FLOAT), size, alpha, beta, k), typenum)
    cdef ndarray x = t.array
    kind = x.dtype.type
    before, after = size // 2, (size - 1) // 2
    d = kind(k) + kind(alpha / size) * window_sum(x * x, before, after)
    scale = power(d, -beta)
    y = x * scale

    def backward(dy):
        # Channel i is in the windows of i - after .. i + before.
        return dy * scale - kind(2 * alpha * beta / size) * x * window_sum(dy * y / d, after, before)

    out = wrap(y)
    record((out,), (t,), backward, "LocalResponseNormBackward", (t, out))
    return out


def normalize(input, double p=2.0, dim=1, double eps=1e-12):
    """`x / max(norm_p(x), eps)`, the norm over axis or axes `dim`. Raises `IndexError` where `dim` is out of range."""
    return div(input, clamp_min(norm(input, p, dim, True), eps))
