"""Rotary position embedding (Su et al. 2021): pairs of a vector's elements are rotated by angles that grow with its position.

    y_a = x_a cos - x_b sin,   y_b = x_b cos + x_a sin;      backward rotates dy by the opposite angle

The pairs (a, b) are (i, i + R/2) in the convention of Hugging Face's LLaMA, (2i, 2i + 1) in that of GPT-J and of llama2.c.
One pass over memory; views of a projection, as (B, T, H, D) seen as (B, H, T, D), are read where they lie.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport int64_t
from numpy cimport NPY_FLOAT, NPY_INT64, ndarray

from bpcore.memory cimport contiguous, empty
from bpcore.operand cimport axis_of, cast, is_real, shape_of
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap
from bpcore.threads cimport parallel_for, range_fn

from bpcore.simd import cpu

np.import_array()


cdef extern from "kernels/rotary_table.h":
    ctypedef struct bp_rotary:
        void *y
        const void *x
        const void *cos
        const void *sin
        const int64_t *positions
        Py_ssize_t n[3]
        Py_ssize_t s[3]
        Py_ssize_t p[3]
        Py_ssize_t d, half
        int interleaved, back

    ctypedef struct bp_rotary_kernels:
        range_fn rotate

    ctypedef struct bp_rotary_table:
        bp_rotary_kernels f32
        bp_rotary_kernels f64

    const bp_rotary_table *bp_choose(const char *wanted)


cdef bytes isa = cpu().encode()
cdef const bp_rotary_table *table = bp_choose(isa)


# --- arrays ---------------------------------------------------------------------------------------------------------------

cdef bint readable(ndarray a) noexcept:
    """Whether the kernel can read it where it lies: aligned, whole strides, neighbours in the last axis."""
    cdef Py_ssize_t size = np.PyArray_ITEMSIZE(a)
    cdef int i, ndim = np.PyArray_NDIM(a)
    if ndim > 4 or not np.PyArray_ISALIGNED(a) or np.PyArray_ISBYTESWAPPED(a):
        return False
    if np.PyArray_DIM(a, ndim - 1) != 1 and np.PyArray_STRIDE(a, ndim - 1) != size:
        return False
    for i in range(ndim - 1):
        if np.PyArray_STRIDE(a, i) % size != 0:
            return False
    return True


cdef ndarray rotated(ndarray x, ndarray cos, ndarray sin, ndarray positions, int axis, bint interleaved, bint back):
    """x of at most 4 axes, rotated."""
    if not readable(x):
        x = contiguous(x)
    cdef int i, ndim = np.PyArray_NDIM(x), lead = 4 - ndim
    cdef ndarray y = empty(ndim, np.PyArray_DIMS(x), np.PyArray_TYPE(x))
    cdef bp_rotary j
    cdef Py_ssize_t rows = 1, size = np.PyArray_ITEMSIZE(x)
    for i in range(3):
        j.n[i] = np.PyArray_DIM(x, i - lead) if i >= lead else 1
        j.s[i] = np.PyArray_STRIDE(x, i - lead) // size if i >= lead else 0
        j.p[i] = 1 if i - lead == axis else 0
        rows *= j.n[i]
    if positions is not None and np.PyArray_NDIM(positions) == 2:
        j.p[lead] = np.PyArray_DIM(positions, 1)
    j.y, j.x = np.PyArray_DATA(y), np.PyArray_DATA(x)
    j.cos, j.sin = np.PyArray_DATA(cos), np.PyArray_DATA(sin)
    j.positions = NULL
    if positions is not None:
        j.positions = <const int64_t *> np.PyArray_DATA(positions)
    j.d, j.half = np.PyArray_DIM(x, ndim - 1), np.PyArray_DIM(cos, 1)
    j.interleaved, j.back = interleaved, back
    cdef range_fn rotate = table.f32.rotate if np.PyArray_TYPE(x) == NPY_FLOAT else table.f64.rotate
    with nogil:
        parallel_for(rotate, &j, rows, 5 + 0.05 * size * j.d)
    return y


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class RotaryEmbeddingNode(Node):
    cdef int axis
    cdef bint interleaved

    cdef object backward(self, object dy):
        cos, sin, positions = self.saved
        return rotated(dy, cos, sin, positions, self.axis, self.interleaved, True)


cdef ndarray positions_of(object positions, tuple shape, int axis, Py_ssize_t height):
    """The given positions as contiguous int64, (T) or (B, T), checked; the caller's own memory is copied."""
    cdef Tensor t = as_tensor(positions, "positions")
    cdef tuple one = (shape[axis],), each = (shape[0], shape[axis])
    if t.array.dtype.kind not in "iu":
        raise TypeError(f"positions: expected integers, got {t.dtype}")
    if t.shape != one and (t.shape != each or axis == 0):
        shapes = one if axis == 0 else f"{one} or {each}"
        raise RuntimeError(f"positions: expected shape {shapes} for input {shape}, got {t.shape}")
    cdef ndarray p = contiguous(cast(t.array, NPY_INT64))
    if p is t.array:
        p = (<object> p).copy()
    if np.PyArray_SIZE(p):
        low, high = int(p.min()), int(p.max())
        if low < 0 or high >= height:
            wrong = low if low < 0 else high
            raise IndexError(f"positions: expected numbers in [0, {height - 1}], the rows of cos, got {wrong}")
    return p


cdef ndarray table_of(object value, str name, Tensor x):
    cdef Tensor t = as_tensor(value, name)
    if records(t):
        raise RuntimeError(f"{name}: no gradient is computed for it; pass {name}.detach()")
    if t.ndim != 2 or t.array.dtype != x.array.dtype:
        raise RuntimeError(f"{name}: expected {x.dtype} of shape (positions, rotary_dim / 2), got {t.dtype} of shape {t.shape}")
    return contiguous(t.array)


def rotary_embedding(input, cos, sin, positions=None, *, bint interleaved=False, int seq_dim=-2):
    """Rotate the vectors of `input`, one for each token and head, by the angles of their positions.

    input: (B, H, T, D), (H, T, D) or (T, D); T is axis `seq_dim`, so (B, T, H, D) and (T, H, D) take `seq_dim=-3`. cos, sin:
    (P, R/2), row p for position p, R <= D; elements from R on are copied. positions: integers (T,), or (B, T) for each sequence of
    a batch; None: 0 … T - 1. `interleaved`: pairs are neighbours (GPT-J, llama2.c) instead of R/2 apart (Hugging Face's LLaMA).
    The result is contiguous. Raises `RuntimeError` that names the argument whose shape or dtype does not fit, `IndexError` for a
    position without a row. Su et al. 2021, RoFormer."""
    cdef Tensor x = as_tensor(input, "input"), out
    if not is_real(np.PyArray_TYPE(x.array)):
        raise TypeError(f"input: expected float32 or float64, got {x.dtype}")
    cdef tuple shape = x.shape
    cdef int ndim = len(shape)
    if not 2 <= ndim <= 4:
        raise RuntimeError(f"input: expected 2 to 4 axes, the last one the elements of a vector, got shape {shape}")
    cdef int axis = axis_of(seq_dim, ndim)
    if axis == ndim - 1:
        raise RuntimeError(f"seq_dim: expected an axis before the last of shape {shape}, got {seq_dim}")
    cdef ndarray c = table_of(cos, "cos", x), s = table_of(sin, "sin", x), p = None
    if shape_of(c) != shape_of(s):
        raise RuntimeError(f"sin: expected the shape of cos, {shape_of(c)}, got {shape_of(s)}")
    if 2 * np.PyArray_DIM(c, 1) > shape[ndim - 1]:
        raise RuntimeError(f"cos: expected at most {shape[ndim - 1] // 2} columns for input {shape}, got shape {shape_of(c)}")
    if positions is not None:
        p = positions_of(positions, shape, axis, np.PyArray_DIM(c, 0))
    elif shape[axis] > np.PyArray_DIM(c, 0):
        raise IndexError(f"input: expected at most {np.PyArray_DIM(c, 0)} tokens, the rows of cos, got shape {shape}")
    cdef RotaryEmbeddingNode node
    out = wrap(rotated(x.array, c, s, p, axis, interleaved, False))
    if records(x):
        node = RotaryEmbeddingNode.__new__(RotaryEmbeddingNode)
        node.axis, node.interleaved = axis, interleaved
        if isinstance(cos, Tensor):
            node.guard(<Tensor> cos)
        if isinstance(sin, Tensor):
            node.guard(<Tensor> sin)
        attach(out, node, (x,), (c, s, p))
    return out
