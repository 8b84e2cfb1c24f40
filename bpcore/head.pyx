"""The head of a language model: a linear layer and its cross-entropy, a chunk of rows at a time.

Sizes: M rows of x, K inputs, V classes (the vocabulary); z = x W^T + b are the logits, p = softmax(z), q the target distributions.
    dz = scale (p sum(q) - q),  dx = dz W,  dW = dz^T x,  db = the sum of the rows of dz
The logits of all rows never exist: those of a chunk are turned into dz in place, multiplied on, and forgotten. Forward does all
three products where gradients are wanted, so nothing is computed twice (Hsu et al. 2024, Liger Kernel). Rows of `ignore_index` are
left out of the products.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport int64_t
from numpy cimport NPY_DOUBLE, NPY_FLOAT, NPY_INT64, ndarray, npy_intp

from bpcore.arith cimport MUL, arith_number
from bpcore.gemm cimport product
from bpcore.loss cimport MEAN, NONE, number, reduction_of, scalar
from bpcore.memory cimport contiguous, empty
from bpcore.stored cimport StoredMatrix, times, times_transposed
from bpcore.operand cimport cast, is_real, new, shape_of
from bpcore.simd cimport kernels
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, recordsn, wrap
from bpcore.threads cimport parallel_for

import numpy

from bpcore.cross_entropy import cross_entropy
from bpcore.linear import linear
from bpcore.shape import reshape
from bpcore.simd import cpu

np.import_array()


cdef extern from "kernels/head_table.h":
    ctypedef struct bp_head_f32:
        void (*head_rows)(float *loss, float *z, const int64_t *t, const float *weight, const float *each, Py_ssize_t rows,
                          Py_ssize_t cols, float smoothing, float spread, float scale, int wanted) noexcept nogil
    ctypedef struct bp_head_f64:
        void (*head_rows)(double *loss, double *z, const int64_t *t, const double *weight, const double *each, Py_ssize_t rows,
                          Py_ssize_t cols, double smoothing, double spread, double scale, int wanted) noexcept nogil
    ctypedef struct bp_head:
        bp_head_f32 f32
        bp_head_f64 f64
    const bp_head *bp_choose(const char *wanted)


cdef bytes isa = cpu().encode()
cdef const bp_head *table = bp_choose(isa)

# Every chunk packs W and reads and writes dW once. For 1024 rows, K 768, V 50257 chunks of 512 cost nothing that can be measured
# against all rows at once, of 256 7 %, of 128 10 %.
cdef enum:
    ROWS = 512                 # the fewest rows in a chunk
    FROZEN_ROWS = 256          # the same where W gets no gradient
    BYTES = 8 << 20            # more of them where their logits take less than this


# --- rows of logits -------------------------------------------------------------------------------------------------------

cdef struct Rows:
    char *loss
    char *z
    const int64_t *t
    const char *weight         # (V) or NULL
    const char *each           # (rows) or NULL
    Py_ssize_t cols
    double smoothing, spread, scale
    bint wanted, is_double


cdef void rows_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Rows *j = <Rows *> ctx
    cdef Py_ssize_t size = 8 if j.is_double else 4, n = end - begin
    cdef char *loss = j.loss + begin * size
    cdef char *z = j.z + begin * j.cols * size
    cdef const char *each = j.each
    if each is not NULL:
        each += begin * size
    if j.is_double:
        table.f64.head_rows(<double *> loss, <double *> z, j.t + begin, <const double *> j.weight, <const double *> each, n,
                            j.cols, j.smoothing, j.spread, j.scale, j.wanted)
    else:
        table.f32.head_rows(<float *> loss, <float *> z, j.t + begin, <const float *> j.weight, <const float *> each, n,
                            j.cols, <float> j.smoothing, <float> j.spread, <float> j.scale, j.wanted)


cdef inline char *data(ndarray a) noexcept:
    return NULL if a is None else <char *> np.PyArray_DATA(a)


# --- the head -------------------------------------------------------------------------------------------------------------

@cython.final
cdef class Head:
    """What one pass over the rows needs, and what it makes."""
    cdef ndarray x, b                          # (M, K), (V) or None
    cdef object w                              # (V, K), an array or a StoredMatrix
    cdef ndarray classes, weight               # (M), (V) or None
    cdef ndarray losses, dx, dw, db            # (M), (M, K), (V, K), (V); the gradients None where not wanted
    cdef double smoothing, scale
    cdef Py_ssize_t chunk

    cdef int run(self, ndarray each, bint wanted) except -1:
        """The losses of all rows and, where `wanted`, the gradients of their sum times `scale` and `each`."""
        cdef Py_ssize_t begin, end, m = np.PyArray_DIM(self.x, 0), cols = self.w.shape[0]
        cdef int typenum = np.PyArray_TYPE(self.x)
        cdef npy_intp dims[2]
        cdef ndarray z, room, x, ones = None
        cdef Rows j
        cdef double cost = 20 + cols * (1.0 if typenum == NPY_FLOAT else 2.0)
        cdef Py_ssize_t pieces = max(1, (m + self.chunk - 1) // self.chunk)
        dims[0], dims[1] = (m + pieces - 1) // pieces, cols
        room = empty(2, dims, typenum)
        if self.db is not None:
            ones = numpy.ones((1, dims[0]), self.x.dtype)
        j.weight = data(self.weight)
        j.cols = cols
        j.smoothing, j.scale = self.smoothing, self.scale
        j.spread = 0
        if self.smoothing:
            j.spread = self.smoothing / cols * (cols if self.weight is None else self.weight.sum(dtype=float))
        j.wanted, j.is_double = wanted, typenum == NPY_DOUBLE
        begin = 0
        for piece in range(pieces):
            end = m * (piece + 1) // pieces
            z, x = room[:end - begin], self.x[begin:end]
            times_transposed(z, x, self.w, False, self.b, NULL, None)
            j.loss = data(self.losses) + begin * np.PyArray_ITEMSIZE(self.x)
            j.z = data(z)
            j.t = <const int64_t *> np.PyArray_DATA(self.classes) + begin
            j.each = NULL if each is None else data(each) + begin * np.PyArray_ITEMSIZE(self.x)
            with nogil:
                parallel_for(rows_range, &j, end - begin, cost)
            if self.dx is not None:
                times(self.dx[begin:end], z, self.w, False, 0)
            if self.dw is not None:
                product(self.dw, z.T, x, 1, piece > 0)
            if self.db is not None:
                product(self.db.reshape(1, -1), ones[:, :end - begin], z, 1, piece > 0)
            begin = end
        return 0

    cdef void ask(self, Py_ssize_t rows, bint dx, bint dw, bint db):
        """Make room for these gradients."""
        cdef int typenum = np.PyArray_TYPE(self.x)
        self.dx = new((rows, np.PyArray_DIM(self.x, 1)), typenum) if dx else None
        self.dw = new(self.w.shape, typenum) if dw else None
        self.db = new((self.w.shape[0],), typenum) if db else None


cdef ndarray spread_rows(ndarray part, ndarray kept, tuple shape):
    """The rows of `part` at the places `kept` of an array of this shape that is 0 elsewhere; `kept` None: at all places."""
    cdef ndarray out
    if kept is None:
        return part if shape_of(part) == shape else (<object> part).reshape(shape)
    out = new(shape, np.PyArray_TYPE(part))
    np.PyArray_FILLWBYTE(out, 0)
    (<object> out).reshape(-1, *shape_of(part)[1:])[kept] = part
    return out


@cython.final
cdef class LinearCrossEntropyNode(Node):
    """The gradients that forward made, times the number dy."""
    cdef tuple shape                           # of the input
    cdef ndarray kept                          # which rows are not ignored; None for all

    cdef object backward(self, object dy):
        dx, dw, db = self.saved
        if number(dy) != 1:
            dx, dw, db = [None if a is None else arith_number(MUL, a, number(dy)) for a in (dx, dw, db)]
        return (None if dx is None else spread_rows(dx, self.kept, self.shape)), dw, db


@cython.final
cdef class LinearCrossEntropyRowsNode(Node):
    """reduction="none": each row has a dy of its own, so the logits are computed again."""
    cdef tuple shape
    cdef ndarray kept

    cdef object backward(self, object dy):
        cdef Head head = self.saved[0]
        cdef ndarray each = contiguous((<object> dy).reshape(-1) if self.kept is None else (<object> dy).reshape(-1)[self.kept])
        head.ask(np.PyArray_DIM(head.x, 0), self.needs(0), self.needs(1), self.needs(2))
        head.run(each, True)
        cdef ndarray dx = head.dx, dw = head.dw, db = head.db
        head.dx = head.dw = head.db = None
        return (None if dx is None else spread_rows(dx, self.kept, self.shape)), dw, db

    def name(self):
        return "LinearCrossEntropyBackward"


# --- public ---------------------------------------------------------------------------------------------------------------

cdef int check(Tensor x, Tensor w, Tensor b, bint stored) except -1:
    """Raise where dtypes or shapes do not fit; a `stored` weight fits an input of any real type."""
    cdef object kind = x.dtype if stored else w.dtype
    if stored and not is_real(np.PyArray_TYPE(x.array)):
        raise TypeError(f"input: expected float32 or float64, got {x.dtype}")
    if not stored and not is_real(np.PyArray_TYPE(w.array)):
        raise TypeError(f"linear_weight: expected float32 or float64, got {w.dtype}")
    if w.ndim < 2:
        raise RuntimeError(f"linear_weight: expected shape (classes, in_features) or (classes, …, in_features), got {w.shape}")
    if x.ndim == 0 or x.shape[x.ndim - 1] != w.shape[w.ndim - 1]:
        raise RuntimeError(
            f"input: expected shape (*, {w.shape[w.ndim - 1]}) for a linear_weight of shape {w.shape}, got {x.shape}")
    if x.array.dtype != kind:
        raise RuntimeError(f"input: expected the dtype of linear_weight, {w.dtype}, got {x.dtype}")
    if b is not None and (b.array.dtype != kind or b.shape != w.shape[:w.ndim - 1]):
        raise RuntimeError(f"linear_bias: expected {kind} of shape {w.shape[:w.ndim - 1]}, got {b.dtype} of shape {b.shape}")
    return 0


cdef ndarray classes_of(Tensor t, tuple shape, Py_ssize_t cols, int64_t ignore):
    """The targets as flat contiguous int64, checked."""
    cdef Py_ssize_t i, n
    if t.array.dtype.kind not in "iu":
        raise TypeError(f"target: expected classes (integers) of shape {shape} or probabilities of shape {shape + (cols,)}, "
                        f"got {t.dtype} of shape {t.shape}")
    if t.shape != shape:
        raise ValueError(f"target: expected shape {shape}, got {t.shape}")
    cdef ndarray classes = contiguous(cast(t.array, NPY_INT64)).reshape(-1)
    cdef const int64_t *p = <const int64_t *> np.PyArray_DATA(classes)
    n = np.PyArray_SIZE(classes)
    for i in range(n):
        if (p[i] < 0 or p[i] >= cols) and p[i] != ignore:
            where = [int(index) for index in numpy.unravel_index(i, shape)]
            raise IndexError(
                f"target: expected classes in [0, {cols - 1}] or ignore_index = {ignore}, got {p[i]} at position {where}"
            )
    return classes


cdef Tensor composed(Tensor x, object given, Tensor w, Tensor t, Tensor b, object weight, object reduction, object ignore,
                     double smoothing):
    """With all logits at once: for probabilities as targets, and for a loss over several axes."""
    cdef tuple lead = x.shape[:x.ndim - 1], more = w.shape[1:w.ndim - 1]
    cdef Py_ssize_t cols = w.shape[0]
    if more:
        if x.ndim != 2:
            raise RuntimeError(f"input: expected shape (N, in_features) for a linear_weight of shape {w.shape}, got {x.shape}")
        given = reshape(w, (-1, w.shape[w.ndim - 1]))
        b = None if b is None else reshape(b, -1)
    logits = linear(x, given, b)
    if more:
        logits = reshape(logits, lead + (cols,) + more)
    elif x.ndim > 2:
        logits, t = reshape(logits, (-1, cols)), reshape(t, (-1, cols))
    loss = cross_entropy(logits, t, weight=weight, reduction=reduction, ignore_index=-100 if ignore is None else ignore,
                         label_smoothing=smoothing)
    return reshape(loss, lead) if reduction == "none" and not more else loss


def linear_cross_entropy(input, linear_weight, target, *, linear_bias=None, weight=None, reduction="mean", ignore_index=None,
                         double label_smoothing=0.0, options=None):
    """`cross_entropy(linear(input, linear_weight, linear_bias), target, …)` without the logits of all rows at once.

    input x: (*, K); linear_weight W: (V, K), or a `StoredMatrix`; linear_bias: (V,) or None; target: classes, integers of shape
    (*), or probabilities of shape (*, V). `weight` (V,), `reduction`, `ignore_index` (None: -100) and `label_smoothing` are
    those of `cross_entropy`.
    `options`: how many rows of logits exist at a time, an integer or an object that has it as `batch_chunk_size`; None, there too,
    chooses 512 or more, 256 where W gets no gradient. Rows of `ignore_index` are not computed.

    With "mean" and "sum" forward computes the gradients too, where they are wanted; with "none" backward computes the logits again.
    Probabilities, and a W of shape (V, d1, …, K) with a target (N, d1, …), are computed with all logits at once.

    Raises `RuntimeError` that names the argument whose shape or dtype does not fit, `IndexError` for a class out of range,
    `TypeError` and `ValueError` for other targets."""
    cdef bint stored = isinstance(linear_weight, StoredMatrix)
    cdef Tensor x = as_tensor(input, "input"), t = as_tensor(target, "target"), out
    cdef Tensor w = wrap((<StoredMatrix> linear_weight).numbers) if stored else as_tensor(linear_weight, "linear_weight")
    cdef Tensor b = None if linear_bias is None else as_tensor(linear_bias, "linear_bias"), p
    cdef int code = reduction_of(None, None, reduction), typenum = np.PyArray_TYPE(x.array)
    check(x, w, b, stored)
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing}")
    cdef tuple shape = x.shape, lead = shape[:len(shape) - 1]
    cdef Py_ssize_t cols = w.shape[0], rows, m
    cdef bint soft = t.shape == lead + w.shape[:1] + w.shape[1:w.ndim - 1] and t.array.dtype.kind == "f"
    if soft and ignore_index is not None:
        raise RuntimeError(f"ignore_index: expected None for probabilities, got {ignore_index}")
    if soft or w.ndim > 2:
        return composed(x, linear_weight, w, t, b, weight, reduction, ignore_index, label_smoothing)
    cdef int64_t ignore = -100 if ignore_index is None else ignore_index
    cdef ndarray classes = classes_of(t, lead, cols, ignore), kept = None, values
    cdef Head head = Head()
    if weight is not None:
        p = as_tensor(weight, "weight")
        if records(p):
            raise RuntimeError("weight: no gradient is computed for class weights; pass weight.detach()")
        if p.shape != (cols,):
            raise RuntimeError(f"weight: expected one number for each of {cols} classes, got shape {p.shape}")
        head.weight = contiguous(cast(p.array, typenum))
    rows = np.PyArray_SIZE(classes)
    head.x = (<object> contiguous(x.array)).reshape(rows, shape[len(shape) - 1])
    head.w, head.b = linear_weight if stored else w.array, None if b is None else contiguous(b.array)
    counts = classes != ignore
    if not counts.all():
        kept = numpy.flatnonzero(counts)
        classes, head.x = classes[kept], head.x[kept]
    head.classes = classes
    m = np.PyArray_SIZE(classes)
    head.chunk = chunk_of(options, cols * np.PyArray_ITEMSIZE(x.array), w.wants_grad())
    head.smoothing = label_smoothing
    cdef double mass = 1
    if code == MEAN:
        mass = m if head.weight is None else head.weight[classes].sum(dtype=float)
    head.scale = 1 / mass
    cdef bint recorded = recordsn((x, w, b)), wanted = recorded and code != NONE
    head.losses = new((m,), typenum)
    if wanted:
        head.ask(m, x.wants_grad(), w.wants_grad(), b is not None and b.wants_grad())
    head.run(None, wanted)
    values = head.losses
    if code == NONE:
        out = wrap(spread_rows(values, kept, lead))
    else:
        out = scalar(total(values) / mass, typenum)
    if recorded and code == NONE:
        attach_rows(out, x, w, b, head, kept, shape)
    elif recorded:
        attach_sum(out, x, w, b, head, kept, shape)
    return out


cdef Py_ssize_t chunk_of(object options, Py_ssize_t bytes, bint trained) except -1:
    """How many rows of logits, of so many bytes each, exist at a time; fewer where there is no dW to go over."""
    rows = getattr(options, "batch_chunk_size", options)
    if rows is None:
        return max(<Py_ssize_t> ROWS if trained else <Py_ssize_t> FROZEN_ROWS, BYTES // max(<Py_ssize_t> 1, bytes))
    if not isinstance(rows, int) or rows < 1:
        raise ValueError(f"options: expected a number of rows, 1 or more, or an object with batch_chunk_size, got {options!r}")
    return rows


cdef double total(ndarray a) noexcept:
    """The sum, in an order that is always the same."""
    if np.PyArray_TYPE(a) == NPY_FLOAT:
        return kernels().f32.sum(<const float *> np.PyArray_DATA(a), np.PyArray_SIZE(a))
    return kernels().f64.sum(<const double *> np.PyArray_DATA(a), np.PyArray_SIZE(a))


cdef int attach_sum(Tensor out, Tensor x, Tensor w, Tensor b, Head head, ndarray kept, tuple shape) except -1:
    cdef LinearCrossEntropyNode node = LinearCrossEntropyNode.__new__(LinearCrossEntropyNode)
    node.shape, node.kept = shape, kept
    attach(out, node, (x, w, b), (head.dx, head.dw, head.db))
    return 0


cdef int attach_rows(Tensor out, Tensor x, Tensor w, Tensor b, Head head, ndarray kept, tuple shape) except -1:
    cdef LinearCrossEntropyRowsNode node = LinearCrossEntropyRowsNode.__new__(LinearCrossEntropyRowsNode)
    node.shape, node.kept = shape, kept
    head.classes = head.classes.copy()         # perhaps the caller's own memory
    node.guard(x)
    node.guard(w)
    if b is not None:
        node.guard(b)
    attach(out, node, (x, w, b), (head,))
    return 0
