"""Affine maps with a low-rank change beside them (LoRA: Hu et al. 2021): y = x W^T + b + s u A^T B^T, as one node.

Sizes: M rows of x and u, K inputs, N outputs, rank r. u is x, or x with some of its numbers dropped out.
    h = u A^T,  y = x W^T + b + s h B^T
    dh = s dy B,  dB = s dy^T h,  dA = dh^T u,  dx = dy W,  du = dh A,  where u is x: dx = dy W + dh A
The change goes into y and dx where they lie: composed of other operators it would be an array of its own, read and written twice.
"""
cimport cython
cimport numpy as np
from numpy cimport NPY_DOUBLE, NPY_FLOAT, ndarray, npy_intp

from bpcore.again cimport heavy, light
from bpcore.gemm cimport product
from bpcore.linear cimport matrix, sum_rows
from bpcore.memory cimport contiguous, empty
from bpcore.stored cimport StoredMatrix, times, times_transposed
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, recordsn, wrap

np.import_array()


cdef ndarray new(Py_ssize_t rows, Py_ssize_t cols, ndarray like):
    cdef npy_intp dims[2]
    dims[0], dims[1] = rows, cols
    return empty(2, dims, np.PyArray_TYPE(like))


cdef ndarray turned(ndarray a):
    return np.PyArray_Transpose(a, NULL)


@cython.final
cdef class LoraLinearNode(Node):
    """Inputs x, W, b, A, B, u."""
    cdef bint across               # W is stored as (K, N)
    cdef bint same                 # u is x
    cdef bint biased
    cdef double scale

    cdef object backward(self, object grad):
        cdef object source, w
        cdef ndarray dy = contiguous(grad), dz = matrix(dy), a, b, h, dh = None, u = None
        cdef ndarray dx = None, dw = None, db = None, da = None, d_b = None, du = None
        cdef bint back = self.needs(0) if self.same else self.needs(5)
        source, w, a, b, h = self.saved
        cdef Py_ssize_t m = np.PyArray_DIM(dz, 0), k = np.PyArray_DIM(a, 1), n = np.PyArray_DIM(b, 0), r = np.PyArray_DIM(a, 0)
        if self.needs(3) or back:
            dh = new(m, r, dz)
            product(dh, dz, b, self.scale)
        if self.needs(3) or self.needs(1):
            u = matrix(heavy(source))
        if self.needs(3):
            da = new(r, k, dz)
            product(da, turned(dh), u)
        if self.needs(4):
            d_b = new(n, r, dz)
            product(d_b, turned(dz), h, self.scale)
        if self.needs(0):
            dx = new(m, k, dz)
            times(dx, dz, w, self.across, 0)
        if back and self.same:
            product(dx, dh, a, 1, 1)
        elif back:
            du = new(m, k, dz)
            product(du, dh, a)
        if self.needs(1):
            dw = new(w.shape[0], w.shape[1], dz)
            if self.across:
                product(dw, turned(u), dz)
            else:
                product(dw, turned(dz), u)
        if self.biased and self.needs(2):
            db = sum_rows(dz)
        shape = (<object> dy).shape[:-1] + (k,)
        return (None if dx is None else dx.reshape(shape), dw, db, da, d_b, None if du is None else du.reshape(shape))


cdef void expect(Tensor t, tuple shape, object dtype, str name) except *:
    if t.shape != shape or t.dtype != dtype:
        raise RuntimeError(f"{name}: expected {dtype} of shape {shape}, got {t.dtype} of shape {t.shape}")


def lora_linear(input, weight, bias, lora_A, lora_B, double scaling, adapted=None, *, bint transposed=False):
    """`y = x W^T + b + scaling u A^T B^T`.

    input x: (*, K); weight W: (N, K), or (K, N) if `transposed`, or a frozen `StoredMatrix` (N, K); bias b: (N,) or None;
    lora_A A: (r, K); lora_B B: (N, r); adapted u: (*, K), what the low-rank change sees, usually x after dropout; None: x itself.
    y: (*, N). All float32 or all float64. A weight that is trained along takes `adapted` None. Raises `RuntimeError` naming the
    argument whose shape or dtype does not fit.
    """
    cdef bint stored = isinstance(weight, StoredMatrix), same = adapted is None
    cdef Tensor x = as_tensor(input, "input")
    cdef Tensor w = wrap((<StoredMatrix> weight).numbers) if stored else as_tensor(weight, "weight")
    cdef Tensor b = None if bias is None else as_tensor(bias, "bias")
    cdef Tensor ta = as_tensor(lora_A, "lora_A"), tb = as_tensor(lora_B, "lora_B")
    cdef Tensor u = x if same else as_tensor(adapted, "adapted")
    cdef int kind = np.PyArray_TYPE(x.array)
    cdef object factor = weight if stored else w.array
    cdef ndarray rows, wide, a, low, h, y
    cdef LoraLinearNode node
    cdef Tensor out
    if kind != NPY_FLOAT and kind != NPY_DOUBLE:
        raise TypeError(f"input: expected float32 or float64, got {x.dtype}")
    if stored and transposed:
        raise ValueError("transposed: expected False with a StoredMatrix, which is (N, K)")
    if w.ndim != 2 or x.ndim == 0:
        raise RuntimeError(f"weight: expected 2 axes, and input at least one, got shapes {w.shape} and {x.shape}")
    if ta.ndim != 2:
        raise RuntimeError(f"lora_A: expected shape (r, K), got {ta.shape}")
    outputs, inputs = reversed(w.shape) if transposed else w.shape
    if not stored:
        expect(w, w.shape, x.dtype, "weight")
    expect(x, x.shape[:-1] + (inputs,), x.dtype, "input")
    expect(ta, (ta.shape[0], inputs), x.dtype, "lora_A")
    expect(tb, (outputs, ta.shape[0]), x.dtype, "lora_B")
    expect(u, x.shape, x.dtype, "adapted")
    if b is not None:
        expect(b, (outputs,), x.dtype, "bias")
    if w.wants_grad() and not same:
        raise RuntimeError("adapted: expected None with a weight that requires grad")
    rows = contiguous(x.array)
    rows = matrix(rows)
    wide = rows if same else contiguous(u.array)
    wide = matrix(wide)
    a, low = contiguous(ta.array), contiguous(tb.array)
    y = new(np.PyArray_DIM(rows, 0), outputs, rows)
    times_transposed(y, rows, factor, transposed, None if b is None else b.array, NULL, None)
    h = new(np.PyArray_DIM(rows, 0), np.PyArray_DIM(a, 0), rows)
    product(h, wide, turned(a))
    product(y, h, turned(low), scaling, 1)
    out = wrap(y if x.ndim == 2 else y.reshape(x.shape[:-1] + (outputs,)))
    if recordsn((x, w, b, ta, tb, u)):
        node = LoraLinearNode.__new__(LoraLinearNode)
        node.across, node.same, node.biased, node.scale = transposed, same, b is not None, scaling
        if ta.wants_grad() or w.wants_grad():
            node.guard(u)
        if x.wants_grad():
            node.guard(w)
        node.guard(ta)
        node.guard(tb)
        attach(out, node, (x, w, blank if b is None else b, ta, tb, blank if same else u),
               (light(u, wide) if ta.wants_grad() or w.wants_grad() else None, factor, a, low, h))
    return out


cdef Tensor blank = wrap(np.PyArray_SimpleNew(0, NULL, NPY_FLOAT))     # stands where an input is left out: it wants no gradient
