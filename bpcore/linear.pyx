"""Affine maps: y = f(x W^T + b), with the activation f applied while the panel of the product is still in the cache.

Sizes: M rows of x, K inputs, N outputs; z = x W^T + b.
    dz = dy f'(z),  dx = dz W,  dW = dz^T x,  db = sum of the rows of dz
A weight may lie transposed, (K, N); `across` says so. Its gradient, x^T dz, lies as it does. A StoredMatrix has none.
"""
cimport cython
cimport numpy as np
from numpy cimport ndarray, npy_intp

from bpcore.activation cimport Map, epilogue_map, map_backward, map_forward
from bpcore.again cimport Again, heavy, light, worth
from bpcore.gemm cimport product
from bpcore.memory cimport contiguous, empty
from bpcore.simd cimport kernels
from bpcore.stored cimport StoredMatrix, times, times_transposed
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, recordsn, wrap
from bpcore.threads cimport parallel_for

from bpcore.arithmetic import add, mul
from bpcore.matmul import matmul
from bpcore.reduce import sum as total
from bpcore.shape import permute, reshape, unsqueeze

np.import_array()


# --- sums of rows ---------------------------------------------------------------------------------------------------------

cdef struct Rows:
    char *out
    const char *x
    Py_ssize_t rows, cols
    bint is_double


cdef void sum_rows_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Rows *r = <Rows *> ctx
    cdef Py_ssize_t first = begin * 16, n = min(end * 16, r.cols) - begin * 16
    if r.is_double:
        kernels().f64.sum_rows(<double *> r.out + first, <const double *> r.x + first, r.rows, n, r.cols)
    else:
        kernels().f32.sum_rows(<float *> r.out + first, <const float *> r.x + first, r.rows, n, r.cols)


cdef ndarray sum_rows(ndarray x):
    """The sum over axis 0 of a contiguous matrix of a real type: columns are shared out 16 at a time."""
    cdef npy_intp cols = np.PyArray_DIM(x, 1)
    cdef ndarray out = empty(1, &cols, np.PyArray_TYPE(x))
    cdef Rows r = Rows(<char *> np.PyArray_DATA(out), <const char *> np.PyArray_DATA(x), np.PyArray_DIM(x, 0), cols,
                       np.PyArray_TYPE(x) == np.NPY_DOUBLE)
    with nogil:
        parallel_for(sum_rows_range, &r, (cols + 15) // 16, 16 * 0.1 * r.rows)
    return out


# --- linear ---------------------------------------------------------------------------------------------------------------

cdef ndarray matrix(ndarray a):
    """A contiguous array as a matrix of its last axis."""
    if np.PyArray_NDIM(a) == 2:
        return a
    cdef Py_ssize_t last = np.PyArray_DIM(a, np.PyArray_NDIM(a) - 1)
    return a.reshape(np.PyArray_SIZE(a) // last if last else <Py_ssize_t> 0, last)


cdef ndarray turned(ndarray a):
    return np.PyArray_Transpose(a, NULL)


@cython.final
cdef class LinearAgain(Again):
    """f(z), from the z that backward keeps."""
    cdef const Map *f
    cdef ndarray z

    cdef ndarray make(self):
        return map_forward(self.f, self.z, NULL).reshape(self.shape)


@cython.final
cdef class LinearNode(Node):
    cdef const Map *f            # the activation, or NULL
    cdef bint across             # W is stored as (K, N)
    cdef LinearAgain made        # f(z), where it is large and z is kept beside it

    def again(self, int slot):
        return self.made

    cdef void release(self) noexcept:
        self.made = None
        Node.release(self)

    cdef object backward(self, object grad):
        cdef object source, w
        cdef ndarray x, saved, dz, dx = None, dw = None, db = None, matrix_dx
        cdef npy_intp dims[2]
        cdef npy_intp inputs
        source, w, saved = self.saved
        inputs = w.shape[0 if self.across else 1]
        cdef ndarray dy = contiguous(grad)
        dz = dy if self.f is NULL else map_backward(self.f, dy, saved, NULL)
        dz = matrix(dz)
        if self.needs(0):
            # The shape of x is that of dy but for the last axis.
            if np.PyArray_NDIM(dy) == 2:
                dims[0] = np.PyArray_DIM(dy, 0)
                dims[1] = inputs
                dx = matrix_dx = empty(2, dims, np.PyArray_TYPE(dy))
            else:
                dims[0] = np.PyArray_DIM(dz, 0)
                dims[1] = inputs
                matrix_dx = empty(2, dims, np.PyArray_TYPE(dy))
                dx = matrix_dx.reshape((<object> dy).shape[:-1] + (dims[1],))
            times(matrix_dx, dz, w, self.across, 0)
        if self.needs(1):
            dims[0], dims[1] = w.shape
            dw = empty(2, dims, np.PyArray_TYPE(dy))
            x = matrix(heavy(source))
            if self.across:
                product(dw, turned(x), dz)
            else:
                product(dw, turned(dz), x)
        if len(self.edges) == 3 and self.needs(2):
            db = sum_rows(dz)
        return (dx, dw, db) if len(self.edges) == 3 else (dx, dw)


cdef void check(Tensor x, Tensor w, Tensor b, bint across, bint stored) except *:
    """Raise where dtypes or shapes do not fit; a `stored` weight fits an input of any real type."""
    cdef Py_ssize_t ends = 0 if across else 1        # the axis of w that x has too
    cdef int kind = np.PyArray_TYPE(x.array if stored else w.array)
    if kind != np.NPY_FLOAT and kind != np.NPY_DOUBLE:
        raise TypeError(f"{'input' if stored else 'weight'}: expected float32 or float64, got {x.dtype if stored else w.dtype}")
    if np.PyArray_TYPE(x.array) != kind:
        raise RuntimeError(f"input: expected the dtype of weight, {w.dtype}, got {x.dtype}")
    if np.PyArray_NDIM(w.array) != 2:
        expected = "(in_features, out_features)" if across else "(out_features, in_features)"
        raise RuntimeError(f"weight: expected shape {expected}, got {w.shape}")
    if np.PyArray_NDIM(x.array) == 0 or (
        np.PyArray_DIM(x.array, np.PyArray_NDIM(x.array) - 1) != np.PyArray_DIM(w.array, ends)
    ):
        raise RuntimeError(f"input: expected shape (*, {w.shape[ends]}) for a weight of shape {w.shape}, got {x.shape}")
    if b is not None:
        if np.PyArray_TYPE(b.array) != kind:
            raise RuntimeError(f"bias: expected the dtype of {'input' if stored else 'weight'}, {x.dtype}, got {b.dtype}")
        if np.PyArray_NDIM(b.array) != 1 or np.PyArray_DIM(b.array, 0) != np.PyArray_DIM(w.array, 1 - ends):
            raise RuntimeError(f"bias: expected shape ({w.shape[1 - ends]},), got {b.shape}")


def linear(input, weight, bias=None, activation=None, *, bint transposed=False):
    """`y = f(x W^T + b)`.

    input x: (*, K); weight W: (N, K), or (K,) for an output without the last axis; bias b: (N,) or None; y: (*, N). All float32 or
    all float64. `activation` f: None, "relu", "sigmoid", "tanh", "gelu", "gelu_tanh" or "silu", computed in the same pass.
    `transposed`: the weight is given as W^T, (K, N), as in GPT-2's files. The weight may be a `StoredMatrix`, too. Raises
    `RuntimeError` that names the argument whose shape or dtype does not fit, `ValueError` for an unknown activation.
    """
    cdef bint stored = isinstance(weight, StoredMatrix), taped
    cdef Tensor x = as_tensor(input, "input")
    cdef Tensor w = wrap((<StoredMatrix> weight).numbers) if stored else as_tensor(weight, "weight")
    cdef Tensor b = None if bias is None else as_tensor(bias, "bias")
    cdef const Map *f = epilogue_map(activation)
    cdef object factor = weight if stored else w.array
    cdef ndarray rows, wide, z, y
    cdef npy_intp dims[2]
    cdef LinearNode node
    cdef Tensor out
    if np.PyArray_NDIM(w.array) == 1 and not transposed:
        return linear(input, weight.unsqueeze(0), None if b is None else bias.reshape(1), activation).squeeze(-1)
    if stored and transposed:
        raise ValueError("transposed: expected False with a StoredMatrix, which is (N, K)")
    check(x, w, b, transposed, stored)
    rows = contiguous(x.array)
    rows = matrix(rows)
    dims[0] = np.PyArray_DIM(rows, 0)
    dims[1] = np.PyArray_DIM(w.array, 1 if transposed else 0)
    taped = recordsn((x, w, b))
    z = wide = empty(2, dims, np.PyArray_TYPE(x.array))
    if f is not NULL and taped and not f.from_output:
        wide = empty(2, dims, np.PyArray_TYPE(x.array))
    times_transposed(z, rows, factor, transposed, None if b is None else b.array, f, wide)
    y = wide
    if np.PyArray_NDIM(x.array) != 2:
        y = wide.reshape(x.shape[:-1] + (dims[1],))
    out = wrap(y)
    if taped:
        node = LinearNode.__new__(LinearNode)
        node.f = f
        node.across = transposed
        if w.wants_grad():
            node.guard(x)
        if x.wants_grad():
            node.guard(w)
        if f is not NULL and f.from_output:
            node.guard(out)
        elif f is not NULL and worth(y):
            node.made = LinearAgain.__new__(LinearAgain)
            node.made.f, node.made.z = f, z
            node.made.watch(node, y)
        attach(out, node, (x, w) if b is None else (x, w, b),
               (light(x, rows) if w.wants_grad() else None, factor, None if f is NULL else z))
    return out


# --- bilinear -------------------------------------------------------------------------------------------------------------

def bilinear(input1, input2, weight, bias=None):
    """`y_k = x1^T A_k x2 + b_k`.

    input1 x1: (*, I), input2 x2: (*, J), weight A: (N, I, J), bias b: (N,) or None; y: (*, N). Raises `RuntimeError` where the
    shapes or dtypes do not fit.
    """
    cdef Tensor a = as_tensor(input1, "input1"), b = as_tensor(input2, "input2"), w = as_tensor(weight, "weight")
    if w.ndim != 3:
        raise RuntimeError(f"weight: expected shape (out_features, in1_features, in2_features), got {w.shape}")
    if a.ndim == 0 or b.ndim == 0 or a.shape[:-1] != b.shape[:-1]:
        raise RuntimeError(f"input2: expected the shape of input1 but for the last axis, got {a.shape} and {b.shape}")
    if a.shape[-1] != w.shape[1] or b.shape[-1] != w.shape[2]:
        raise RuntimeError(f"weight: expected shape (*, {a.shape[-1]}, {b.shape[-1]}), got {w.shape}")
    if not (a.dtype == b.dtype == w.dtype):
        raise RuntimeError(f"weight: expected the dtype of both inputs, {a.dtype} and {b.dtype}, got {w.dtype}")
    if bias is not None and bias.shape != w.shape[:1]:
        raise RuntimeError(f"bias: expected shape ({w.shape[0]},), got {bias.shape}")
    # One product for all k: x1 times the A_k side by side, (*, N, J); then the scalar products with x2.
    outputs, inputs1, inputs2 = w.shape
    halves = matmul(reshape(a, (-1, inputs1)), reshape(permute(w, (1, 0, 2)), (inputs1, outputs * inputs2)))
    y = total(mul(reshape(halves, a.shape[:-1] + (outputs, inputs2)), unsqueeze(b, -2)), -1)
    return y if bias is None else add(y, bias)
