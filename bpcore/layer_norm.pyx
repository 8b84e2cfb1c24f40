"""Layer normalization and its root-mean-square form: over the last axes, row by row. Formulas: kernels/layer_norm.h.

The input is seen as (rows, cols), cols elements in the normalized axes. Forward reads x once and writes y; backward reads x and dy
once, writes dx, and sums the gradients of weight and bias on the way. With a residual the same passes also write the sum that is
normalized, and add the gradient that comes back for it.
"""
cimport cython
cimport numpy as np
from numpy cimport NPY_DOUBLE, NPY_FLOAT, ndarray, npy_intp

from bpcore.again cimport Again, worth
from bpcore.batch_norm cimport data, widened
from bpcore.memory cimport contiguous, empty, empty_like
from bpcore.operand cimport cast_tensor, is_real, new, same_shape
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, attach_slots, recordsn, wrap
from bpcore.threads cimport parallel_for, parallel_for_checked, range_fn

from operator import index

from bpcore.simd import cpu

np.import_array()


cdef extern from "kernels/layer_norm_table.h":
    const Py_ssize_t BP_ROWS_TILE

    ctypedef struct bp_layer_norm:
        void *out
        void *sum
        const void *x
        const void *residual
        const void *dy
        const void *ds
        const void *weight
        const void *bias
        void *dw
        void *db
        double *mean
        double *rstd
        void *part
        Py_ssize_t rows, cols, piece
        double eps

    ctypedef struct bp_layer_norm_kernels:
        range_fn forward, again, backward, merge

    ctypedef struct bp_layer_norm_table:
        bp_layer_norm_kernels f32
        bp_layer_norm_kernels f64

    const bp_layer_norm_table *bp_choose(const char *wanted)


cdef bytes isa = cpu().encode()
cdef const bp_layer_norm_table *table = bp_choose(isa)

cdef enum:
    ROWS = 32                      # the fewest rows in a piece
    PIECES = 64                    # the most pieces
cdef double COST = 0.3             # nanoseconds an element, float32


# --- arrays ---------------------------------------------------------------------------------------------------------------

cdef const bp_layer_norm_kernels *kernels_of(int typenum) noexcept nogil:
    return &table.f32 if typenum == NPY_FLOAT else &table.f64


cdef double row_cost(int typenum, Py_ssize_t cols) noexcept:
    return 20 + COST * cols * (1 if typenum == NPY_FLOAT else 2)


cdef void plan(bp_layer_norm *j, ndarray x, ndarray w, ndarray statistics, Py_ssize_t cols) noexcept:
    """What forward and backward share; `statistics` holds rstd, and the means below it unless they are 0."""
    j.cols = cols
    j.rows = np.PyArray_SIZE(x) // cols
    j.piece = max(<Py_ssize_t> ROWS, (j.rows + PIECES - 1) // PIECES)
    j.x, j.weight = data(x), data(w)
    j.sum = NULL
    j.residual = j.ds = NULL
    j.rstd = <double *> np.PyArray_DATA(statistics)
    j.mean = j.rstd + j.rows if np.PyArray_DIM(statistics, 0) == 2 else NULL


cdef int backward(bp_layer_norm *j, int typenum) except -1:
    cdef Py_ssize_t pieces = (j.rows + j.piece - 1) // j.piece, tiles = (j.cols + BP_ROWS_TILE - 1) // BP_ROWS_TILE
    cdef npy_intp size = 4 * pieces * j.cols
    cdef ndarray part = None
    if j.dw is not NULL or j.db is not NULL:
        part = empty(1, &size, typenum)
    j.part = data(part)
    parallel_for_checked(kernels_of(typenum).backward, j, pieces, 2 * j.piece * row_cost(typenum, j.cols))
    if part is not None:
        with nogil:
            parallel_for(kernels_of(typenum).merge, j, tiles, 1.0 * BP_ROWS_TILE * pieces)
    return 0


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class LayerNormAgain(Again):
    """y, from what backward keeps and the bias."""
    cdef tuple arrays              # x, w, b, statistics
    cdef Py_ssize_t cols

    cdef ndarray make(self):
        cdef ndarray x, w, b, statistics, y
        cdef bp_layer_norm j
        x, w, b, statistics = self.arrays
        y = empty_like(x)
        plan(&j, x, w, statistics, self.cols)
        j.out, j.bias = data(y), data(b)
        parallel_for_checked(kernels_of(np.PyArray_TYPE(x)).again, &j, j.rows, row_cost(np.PyArray_TYPE(x), j.cols))
        return y


@cython.final
cdef class LayerNormNode(Node):
    """y = (x - mean) rstd w + b; inputs x, w, b. With a residual r the outputs are y and s = x + r, of which y is made as of x;
    inputs x, w, b, r: x and r get the same gradient."""
    cdef tuple shape               # of the normalized axes
    cdef bint center
    cdef LayerNormAgain made       # y, where it is large

    def again(self, int slot):
        return self.made if slot == 0 else None

    cdef void release(self) noexcept:
        self.made = None
        Node.release(self)

    cdef object backward(self, object grad):
        cdef bint residual = self.n_outputs == 2, wanted = self.needs(0) or (residual and self.needs(3))
        cdef ndarray x, w, statistics, dy, ds = None, dx = None, dw = None, db = None
        cdef bp_layer_norm j
        x, w, statistics = self.saved
        cdef int typenum = np.PyArray_TYPE(x)
        if residual:
            grad, ds = grad
            if grad is None:
                return ds, None, None, ds
        dy = contiguous(grad)
        if wanted:
            dx = empty_like(x)
            if ds is not None:
                ds = contiguous(ds)
        if self.needs(1):
            dw = new(self.shape, typenum)
        if self.needs(2):
            db = new(self.shape, typenum)
        if np.PyArray_SIZE(x) == 0:
            for one in (dw, db):
                if one is not None:
                    one.fill(0)
            return dx, dw, db, dx
        plan(&j, x, w, statistics, size_of(self.shape))
        j.out, j.dy, j.ds, j.dw, j.db = data(dx), data(dy), data(ds), data(dw), data(db)
        backward(&j, typenum)
        return dx, dw, db, dx

    def name(self):
        return "LayerNormBackward" if self.center else "RmsNormBackward"


cdef Py_ssize_t size_of(tuple shape) except -1:
    cdef Py_ssize_t size = 1
    for n in shape:
        size *= <Py_ssize_t> n
    return size


cdef tuple normalized(object shape, Tensor x):
    """`normalized_shape` as a tuple: the last axes of x."""
    cdef tuple axes
    try:
        axes = (index(shape),) if hasattr(shape, "__index__") else tuple([index(n) for n in shape])
    except TypeError:
        raise TypeError(f"normalized_shape: expected an integer or integers, got {shape!r}") from None
    if not axes:
        raise RuntimeError("normalized_shape: expected at least one axis, got none")
    if x.shape[-len(axes):] != axes:
        raise RuntimeError(f"input: expected shape (*, {', '.join([str(n) for n in axes])}), got {x.shape}")
    return axes


cdef Tensor factor(object value, str name, tuple shape, Tensor x):
    """A weight or bias of the normalized shape and the type of x, or None."""
    if value is None:
        return None
    cdef Tensor t = as_tensor(value, name)
    if t.shape != shape:
        raise RuntimeError(f"{name}: expected the normalized shape {shape}, got {t.shape}")
    if np.PyArray_TYPE(t.array) != np.PyArray_TYPE(x.array):
        raise RuntimeError(f"{name}: expected the dtype of input, {x.dtype}, got {t.dtype}")
    return t


cdef ndarray beside(object value, Tensor x):
    """The array of a residual, of the shape and type of x."""
    cdef Tensor t = as_tensor(value, "residual")
    if not same_shape(t.array, x.array):
        raise RuntimeError(f"residual: expected the shape of input, {x.shape}, got {t.shape}")
    if np.PyArray_TYPE(t.array) != np.PyArray_TYPE(x.array):
        raise RuntimeError(f"residual: expected the dtype of input, {x.dtype}, got {t.dtype}")
    return contiguous(t.array)


cdef object wide(Tensor x, object normalized_shape, object weight, object bias, object residual, double eps, bint center):
    """The same for half types: computed in float32."""
    cdef int typenum = np.PyArray_TYPE(x.array)
    if residual is not None and np.PyArray_TYPE(as_tensor(residual, "residual").array) != typenum:
        raise RuntimeError(f"residual: expected the dtype of input, {x.dtype}, got {residual.dtype}")
    out = apply(widened(x, "input"), normalized_shape, widened(weight, "weight"), widened(bias, "bias"),
                widened(residual, "residual"), eps, center)
    if residual is None:
        return cast_tensor(out, typenum)
    return cast_tensor(out[0], typenum), cast_tensor(out[1], typenum)


cdef object apply(object input, object normalized_shape, object weight, object bias, object residual, double eps, bint center):
    """y, or (y, s) with a residual."""
    cdef Tensor x = as_tensor(input, "input"), w, b, out, total = None
    cdef int typenum = np.PyArray_TYPE(x.array)
    if not is_real(typenum):
        return wide(x, normalized_shape, weight, bias, residual, eps, center)
    cdef tuple shape = normalized(normalized_shape, x), inputs
    w, b = factor(weight, "weight", shape, x), factor(bias, "bias", shape, x)
    cdef ndarray source = contiguous(x.array), scale = None if w is None else contiguous(w.array)
    cdef ndarray offset = None if b is None else contiguous(b.array), y = empty_like(source), statistics = None
    cdef ndarray other = None, s = None
    cdef bp_layer_norm j
    cdef npy_intp[2] dims
    cdef LayerNormNode node
    if residual is not None:
        other, s = beside(residual, x), empty_like(source)
    if np.PyArray_SIZE(source):
        dims[0], dims[1] = 1 + center, np.PyArray_SIZE(source) // size_of(shape)
        statistics = empty(2, dims, NPY_DOUBLE)
        plan(&j, source, scale, statistics, size_of(shape))
        j.out, j.sum, j.residual, j.bias, j.eps = data(y), data(s), data(other), data(offset), eps
        parallel_for_checked(kernels_of(typenum).forward, &j, j.rows, row_cost(typenum, j.cols))
    out = wrap(y)
    inputs = (x, w, b)
    if residual is not None:
        total = wrap(s)
        inputs = (x, w, b, as_tensor(residual, "residual"))
    if recordsn(inputs):
        node = LayerNormNode.__new__(LayerNormNode)
        node.shape = shape
        node.center = center
        node.guard(x if total is None else total)
        if w is not None:
            node.guard(w)
        if b is not None:
            node.guard(b)              # y may have to be made again
        if worth(y):
            node.made = LayerNormAgain.__new__(LayerNormAgain)
            node.made.arrays, node.made.cols = (source if s is None else s, scale, offset, statistics), size_of(shape)
            node.made.watch(node, y)
        if total is None:
            attach(out, node, inputs, (source, scale, statistics))
        else:
            attach_slots((out, total), node, inputs, (s, scale, statistics))
    return out if total is None else (out, total)


def layer_norm(input, normalized_shape, weight=None, bias=None, double eps=1e-5, *, residual=None):
    """`y = (x - mean) / sqrt(var + eps) * w + b` over the last axes (Ba, Kiros and Hinton 2016).

    input x: (*, normalized_shape), float32 or float64 (half types are computed in float32); normalized_shape: an integer or
    integers; weight w, bias b: (normalized_shape) or None. Mean and variance (divisor: the number of elements) are those of the
    normalized axes. With a `residual` r of the shape and dtype of x the result is the pair `(y, s)`: the sum `s = x + r`, and y
    made of s instead of x, in one pass over memory. Raises `RuntimeError` that names the argument whose shape or dtype does not
    fit.
    """
    return apply(input, normalized_shape, weight, bias, residual, eps, True)


def rms_norm(input, normalized_shape, weight=None, eps=None, *, residual=None):
    """`y = x / sqrt(mean(x^2) + eps) * w` over the last axes (Zhang and Sennrich 2019).

    Shapes, types, `residual` and errors as for `layer_norm`; `eps`: by default the rounding of the type computed in, 2^-23 or
    2^-52.
    """
    cdef Tensor x = as_tensor(input, "input")
    if eps is None:
        eps = 2.0**-52 if np.PyArray_TYPE(x.array) == NPY_DOUBLE else 2.0**-23
    return apply(x, normalized_shape, weight, None, residual, eps, False)
