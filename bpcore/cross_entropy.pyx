"""Cross-entropy from logits, fused with softmax, and nll_loss from log-probabilities.

Shapes: input (N, C, d1, …) or (C), C the classes. Inside, logits are rows (R, C), R = N d1 d2 …, in the order of the targets.
Forward makes the gradient on its way where one is wanted: a row's exponentials are still in the cache, and backward of a
`loss.backward()` has nothing left to compute.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport int64_t
from libc.string cimport memset
from numpy cimport NPY_FLOAT, NPY_INT64, ndarray

from bpcore.arith cimport MUL, arith_number
from bpcore.loss cimport MEAN, NONE, number, reduction_of, scalar
from bpcore.memory cimport contiguous, empty, empty_like
from bpcore.operand cimport cast, cast_tensor, is_real, map2, new, same_shape, shape_of
from bpcore.simd cimport BP_NARROW, BP_NARROW_ROWS, kernels
from bpcore.softmax cimport softmax_forward
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, records2, wrap
from bpcore.threads cimport parallel_for

import numpy

np.import_array()

ctypedef fused real:
    float
    double

cdef double COST = 2.0          # nanoseconds a logit of float32


# --- arrays ---------------------------------------------------------------------------------------------------------------

ctypedef struct Job:
    void *loss                     # (R)
    void *dx                       # (R, C) or NULL
    void *x                        # (R, C)
    int64_t *classes               # (R), or NULL
    void *target                   # (R, C) where classes is NULL
    void *weight                   # (C) or NULL
    Py_ssize_t rows, cols
    Py_ssize_t piece               # rows that are shared out together
    int64_t ignore
    double smoothing, scale


cdef inline char *at(void *p, Py_ssize_t bytes) noexcept nogil:
    return NULL if p is NULL else <char *> p + bytes


cdef void run_f32(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t row = begin * job.piece, n = min(end * job.piece, job.rows) - row, skip = row * job.cols * sizeof(float)
    cdef float *loss = <float *> job.loss + row
    cdef float *dx = <float *> at(job.dx, skip)
    cdef const float *x = <const float *> at(job.x, skip)
    cdef const float *w = <const float *> job.weight
    if job.classes is not NULL:
        kernels().f32.cross_entropy(loss, dx, x, job.classes + row, w, n, job.cols, job.ignore,
                                    <float> job.smoothing, <float> job.scale)
    else:
        kernels().f32.cross_entropy_soft(loss, dx, x, <const float *> at(job.target, skip), w, n, job.cols,
                                         <float> job.smoothing, <float> job.scale)


cdef void run_f64(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t row = begin * job.piece, n = min(end * job.piece, job.rows) - row, skip = row * job.cols * sizeof(double)
    cdef double *loss = <double *> job.loss + row
    cdef double *dx = <double *> at(job.dx, skip)
    cdef const double *x = <const double *> at(job.x, skip)
    cdef const double *w = <const double *> job.weight
    if job.classes is not NULL:
        kernels().f64.cross_entropy(loss, dx, x, job.classes + row, w, n, job.cols, job.ignore,
                                    job.smoothing, job.scale)
    else:
        kernels().f64.cross_entropy_soft(loss, dx, x, <const double *> at(job.target, skip), w, n, job.cols,
                                         job.smoothing, job.scale)


cdef void run(Job *job, int typenum) noexcept nogil:
    job.piece = BP_NARROW_ROWS if job.cols < BP_NARROW else 1
    cdef Py_ssize_t n = (job.rows + job.piece - 1) // job.piece
    cdef double cost = (20 + COST * job.cols) * job.piece
    if typenum == NPY_FLOAT:
        parallel_for(run_f32, job, n, cost)
    else:
        parallel_for(run_f64, job, n, 2 * cost)


cdef double total(ndarray a) noexcept:
    """The sum of a contiguous float32 or float64 array, in an order that is always the same."""
    if np.PyArray_TYPE(a) == NPY_FLOAT:
        return kernels().f32.sum(<const float *> np.PyArray_DATA(a), np.PyArray_SIZE(a))
    return kernels().f64.sum(<const double *> np.PyArray_DATA(a), np.PyArray_SIZE(a))


cdef double weight_sum(ndarray weight, int typenum, const int64_t *t, Py_ssize_t n, int64_t ignore) noexcept:
    """The sum of the weights of all targets; how many there are without weights."""
    cdef const float *w32 = NULL
    cdef const double *w64 = NULL
    cdef double sum = 0
    cdef Py_ssize_t i
    if weight is None:
        pass
    elif typenum == NPY_FLOAT:
        w32 = <const float *> np.PyArray_DATA(weight)
    else:
        w64 = <const double *> np.PyArray_DATA(weight)
    for i in range(n):
        if t[i] != ignore:
            sum += w32[t[i]] if w32 is not NULL else w64[t[i]] if w64 is not NULL else 1
    return sum


# For nll_loss x stays as it is, (N, C, inner): row i has its classes at x[i // inner, :, i % inner].

cdef inline Py_ssize_t inner_of(ndarray x) noexcept:
    """The product of the sizes behind the axis of the classes."""
    cdef Py_ssize_t inner = 1
    cdef int i
    for i in range(2, np.PyArray_NDIM(x)):
        inner *= np.PyArray_DIM(x, i)
    return inner


cdef void nll_forward(real *loss, const real *x, const int64_t *t, const real *weight, Py_ssize_t n, Py_ssize_t cols,
                      Py_ssize_t inner, int64_t ignore) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if t[i] == ignore:
            loss[i] = 0
        else:
            loss[i] = -x[(i // inner * cols + t[i]) * inner + i % inner] * (1 if weight is NULL else weight[t[i]])


cdef void nll_backward(real *dx, const real *dy, Py_ssize_t step, const int64_t *t, const real *weight, Py_ssize_t n,
                       Py_ssize_t cols, Py_ssize_t inner, int64_t ignore, real scale) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if t[i] != ignore:
            dx[(i // inner * cols + t[i]) * inner + i % inner] = (
                -dy[i * step] * scale * (1 if weight is NULL else weight[t[i]]))


# --- checks ---------------------------------------------------------------------------------------------------------------

cdef int class_axis(Tensor x) except -1:
    """The axis of the classes: the only one, or the second."""
    if np.PyArray_NDIM(x.array) == 0:
        raise RuntimeError("input: expected (C) or (N, C, …), got a tensor without axes")
    return 0 if np.PyArray_NDIM(x.array) == 1 else 1


cdef ndarray class_targets(ndarray target, ndarray x, int axis, int64_t ignore):
    """The targets as contiguous int64, checked against the shape of the input and the range of classes."""
    cdef int i, j = 0, ndim = np.PyArray_NDIM(x), typenum = np.PyArray_TYPE(target)
    cdef bint fits = np.PyArray_NDIM(target) == ndim - 1
    for i in range(ndim):
        if i != axis and fits:
            fits = np.PyArray_DIM(target, j) == np.PyArray_DIM(x, i)
            j += 1
    if not fits or not np.NPY_BYTE <= typenum <= np.NPY_ULONGLONG:
        refuse_targets(target, x, axis)
    cdef ndarray classes = contiguous(cast(target, NPY_INT64))
    cdef const int64_t *t = <const int64_t *> np.PyArray_DATA(classes)
    cdef int64_t cols = np.PyArray_DIM(x, axis)
    cdef Py_ssize_t k, n = np.PyArray_SIZE(classes)
    for k in range(n):
        if (t[k] < 0 or t[k] >= cols) and t[k] != ignore:
            where = [int(index) for index in numpy.unravel_index(k, shape_of(target))]
            raise IndexError(
                f"target: expected classes in [0, {cols - 1}] or ignore_index = {ignore}, got {t[k]} at position {where}"
            )
    return classes


cdef int refuse_targets(ndarray target, ndarray x, int axis) except -1:
    shape = shape_of(x)
    expected = shape[:axis] + shape[axis + 1:]
    if target.dtype.kind in "iu":
        raise ValueError(f"target: expected shape {expected} for input {shape}, got {shape_of(target)}")
    raise TypeError(
        f"target: expected classes (integers) of shape {expected}, or probabilities ({x.dtype}) of shape {shape}; "
        f"got {target.dtype} of shape {shape_of(target)}"
    )


cdef ndarray class_weights(object weight, Tensor x, int axis):
    """The weights as a contiguous array of the input's type, or None."""
    if weight is None:
        return None
    cdef Tensor w = as_tensor(weight, "weight")
    if records(w):
        raise RuntimeError("weight: no gradient is computed for class weights; pass weight.detach()")
    if np.PyArray_NDIM(w.array) != 1 or np.PyArray_DIM(w.array, 0) != np.PyArray_DIM(x.array, axis):
        raise RuntimeError(
            f"weight: expected one number for each of {np.PyArray_DIM(x.array, axis)} classes, got shape {shape_of(w.array)}"
        )
    return contiguous(cast(w.array, np.PyArray_TYPE(x.array)))


cdef void *data(ndarray a):
    return NULL if a is None else np.PyArray_DATA(a)


cdef ndarray as_rows(ndarray a):
    """(N, C, d1, …) as contiguous (R, C) in another order; itself where it has no d."""
    if np.PyArray_NDIM(a) <= 2:
        return contiguous(a)
    cdef Py_ssize_t cols = np.PyArray_DIM(a, 1)
    cdef ndarray turned = (<object> a).transpose(0, *range(2, np.PyArray_NDIM(a)), 1)
    return (<object> contiguous(turned)).reshape(np.PyArray_SIZE(a) // cols if cols else <Py_ssize_t> 0, cols)


cdef ndarray from_rows(ndarray rows, tuple shape):
    """The inverse of `as_rows`."""
    if len(shape) <= 2:
        return rows
    cdef int last = len(shape) - 1
    return (<object> rows).reshape(shape[:1] + shape[2:] + shape[1:2]).transpose(0, last, *range(1, last))


# --- nodes ----------------------------------------------------------------------------------------------------------------

cdef ndarray times(ndarray dx, ndarray dy, int reduction):
    """The rows of dx (R, C) times the gradient of their losses: one number, or one a row."""
    if reduction != NONE or np.PyArray_NDIM(dx) == 1:
        return dx if number(dy) == 1 else arith_number(MUL, dx, number(dy))
    return map2(numpy.multiply, dx, (<object> dy).reshape(-1, 1))


@cython.final
cdef class CrossEntropyNode(Node):
    """dx = dy scale (softmax(x) sum(q) - q) for the target distribution q of a row; dq = -dy scale keep w log_softmax(x)"""
    cdef tuple shape               # of the input
    cdef int reduction
    cdef double keep               # 1 - label_smoothing
    cdef double scale

    cdef object backward(self, object dy):
        cdef ndarray unit, x, weight, dq
        unit, x, weight = self.saved
        cdef object dx = from_rows(times(unit, dy, self.reduction), self.shape) if self.needs(0) else None
        if not self.needs(1):
            return dx, None
        dq = arith_number(MUL, softmax_forward(x, True), -self.scale * self.keep)
        if weight is not None:
            dq = map2(numpy.multiply, dq, weight)
        return dx, from_rows(times(dq, dy, self.reduction), self.shape)


@cython.final
cdef class NllLossNode(Node):
    """dx[n, t] = -dy w[t] scale at the target t of each row, else 0"""
    cdef tuple shape               # of the input
    cdef int reduction
    cdef double scale
    cdef int64_t ignore

    cdef object backward(self, object dy):
        cdef ndarray classes, weight, g = contiguous(dy), dx
        cdef int axis = 0 if len(self.shape) == 1 else 1
        cdef Py_ssize_t step = self.reduction == NONE
        classes, weight = self.saved
        dx = new(self.shape, np.PyArray_TYPE(g))
        memset(np.PyArray_DATA(dx), 0, np.PyArray_NBYTES(dx))
        cdef const int64_t *t = <const int64_t *> np.PyArray_DATA(classes)
        cdef Py_ssize_t n = np.PyArray_SIZE(classes), cols = np.PyArray_DIM(dx, axis), inner = inner_of(dx)
        if np.PyArray_TYPE(g) == NPY_FLOAT:
            nll_backward[float](<float *> np.PyArray_DATA(dx), <const float *> np.PyArray_DATA(g), step, t,
                                <const float *> data(weight), n, cols, inner, self.ignore, <float> self.scale)
        else:
            nll_backward[double](<double *> np.PyArray_DATA(dx), <const double *> np.PyArray_DATA(g), step, t,
                                 <const double *> data(weight), n, cols, inner, self.ignore, self.scale)
        return dx


# --- public ---------------------------------------------------------------------------------------------------------------

def cross_entropy(input, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean",
                  double label_smoothing=0.0):
    """`-sum(q log softmax(x))` over the classes, for the target distribution q of each row of logits x.

    input: (N, C, d1, …) or (C). target: classes, any integers of the input's shape without C; or probabilities of the input's
    shape, which may require grad. With e = `label_smoothing`, q is `(1 - e) target + e / C`, and then multiplied by `weight` (C).

    Rows whose class is `ignore_index` cost nothing. "mean" divides by the sum of the weights of the classes that are met, for
    probabilities by the number of rows; "none" returns a loss for each row.

    Raises `IndexError` for a class out of range, before anything is computed; `TypeError` and `ValueError` for types and shapes
    that do not fit, `RuntimeError` for `label_smoothing` outside [0, 1]."""
    cdef Tensor x = as_tensor(input, "input"), t = as_tensor(target, "target"), out
    cdef int code = reduction_of(size_average, reduce, reduction), typenum = np.PyArray_TYPE(x.array)
    if not is_real(typenum):
        return half(cross_entropy, x, (target, weight, None, ignore_index, None, reduction, label_smoothing), typenum)
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing}")
    cdef int axis = class_axis(x)
    cdef bint soft = same_shape(x.array, t.array)
    cdef ndarray classes = None, rows, losses, w = class_weights(weight, x, axis)
    cdef CrossEntropyNode node
    cdef Job job
    if soft:
        if t.array.dtype.kind != "f":
            raise TypeError(f"target: of the input's shape and so probabilities, expected {x.array.dtype}, got {t.array.dtype}")
        if ignore_index >= 0:
            raise RuntimeError(f"ignore_index: expected none for probabilities, got {ignore_index}")
        t = cast_tensor(t, typenum)
        classes = as_rows(t.array)
    else:
        classes = class_targets(t.array, x.array, axis, ignore_index)
    rows = as_rows(x.array)
    job.cols = np.PyArray_DIM(x.array, axis)
    cdef Py_ssize_t n = np.PyArray_SIZE(rows) // job.cols if soft and job.cols else np.PyArray_SIZE(classes)
    job.rows = n
    losses = new(without(x, axis), typenum) if soft else empty(np.PyArray_NDIM(classes), np.PyArray_DIMS(classes), typenum)
    job.loss = np.PyArray_DATA(losses)
    job.x = np.PyArray_DATA(rows)
    job.classes = NULL if soft else <int64_t *> np.PyArray_DATA(classes)
    job.target = np.PyArray_DATA(classes) if soft else NULL
    job.weight = data(w)
    job.ignore = ignore_index
    job.smoothing = label_smoothing
    cdef double mass = 1
    if code == MEAN:
        mass = n if soft else weight_sum(w, typenum, job.classes, n, ignore_index)
    job.scale = 1 / mass
    job.dx = NULL
    cdef bint recorded = records2(x, t) if soft else records(x)
    cdef ndarray unit = None
    if recorded and x.wants_grad():
        unit = empty_like(rows)
        job.dx = np.PyArray_DATA(unit)
    with nogil:
        run(&job, typenum)
    out = wrap(losses) if code == NONE else scalar(total(losses) / mass, typenum)
    if recorded:
        node = CrossEntropyNode.__new__(CrossEntropyNode)
        node.shape = shape_of(x.array)
        node.reduction = code
        node.keep = 1 - label_smoothing
        node.scale = job.scale
        soft = soft and t.wants_grad()
        if soft:
            node.guard(x)
        attach(out, node, (x, t if soft else None), (unit, rows if soft else None, w))
    return out


def nll_loss(input, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"):
    """`-w[t] x[t]` for log-probabilities x (N, C, d1, …) or (C) and classes t. Arguments, reductions and errors as in
    `cross_entropy`, which takes logits and does both steps at once."""
    cdef Tensor x = as_tensor(input, "input"), t = as_tensor(target, "target"), out
    cdef int code = reduction_of(size_average, reduce, reduction), typenum = np.PyArray_TYPE(x.array)
    if not is_real(typenum):
        return half(nll_loss, x, (target, weight, None, ignore_index, None, reduction), typenum)
    cdef int axis = class_axis(x)
    cdef ndarray classes = class_targets(t.array, x.array, axis, ignore_index), w = class_weights(weight, x, axis)
    cdef ndarray source = contiguous(x.array), losses = new(without(x, axis), typenum)
    cdef const int64_t *c = <const int64_t *> np.PyArray_DATA(classes)
    cdef Py_ssize_t n = np.PyArray_SIZE(classes), cols = np.PyArray_DIM(source, axis), inner = inner_of(source)
    cdef NllLossNode node
    if typenum == NPY_FLOAT:
        nll_forward[float](<float *> np.PyArray_DATA(losses), <const float *> np.PyArray_DATA(source), c,
                           <const float *> data(w), n, cols, inner, ignore_index)
    else:
        nll_forward[double](<double *> np.PyArray_DATA(losses), <const double *> np.PyArray_DATA(source), c,
                            <const double *> data(w), n, cols, inner, ignore_index)
    cdef double mass = weight_sum(w, typenum, c, n, ignore_index) if code == MEAN else 1
    out = wrap(losses) if code == NONE else scalar(total(losses) / mass, typenum)
    if records(x):
        node = NllLossNode.__new__(NllLossNode)
        node.shape = shape_of(source)
        node.reduction = code
        node.scale = 1 / mass
        node.ignore = ignore_index
        node.guard(t)
        attach(out, node, (x,), (classes, w))
    return out


cdef tuple without(Tensor x, int axis):
    """The shape of the losses: that of x without its classes."""
    cdef tuple shape = shape_of(x.array)
    return shape[:axis] + shape[axis + 1:]


cdef Tensor half(object function, Tensor x, tuple rest, int typenum):
    """The same for half types: computed in float32."""
    if x.array.dtype.kind in "biuc":
        raise TypeError(f"input: expected a floating-point tensor, got {x.array.dtype}")
    return cast_tensor(function(cast_tensor(x, NPY_FLOAT), *rest), typenum)
