"""Losses that compare an input with a target element by element: mse, l1, smooth_l1, huber, binary cross-entropies, kl_div.

All take `reduction`: "mean", "sum" or "none" (the loss of each element), and PyTorch's older `size_average` and `reduce`, which
override it with a warning. Sums run in chunks of fixed length, so they do not depend on the number of threads. Both the input and
the target may require grad. Formulas are those of kernels/losses.h, for input x and target t.
"""
cimport cython
cimport numpy as np
from libc.stdlib cimport free, malloc
from numpy cimport NPY_FLOAT, ndarray

from bpcore.arith cimport ADD, DIV, MUL, arith
from bpcore.arithmetic cimport binary
from bpcore.memory cimport contiguous, empty, empty_like
from bpcore.operand cimport cast_tensor, is_real, matched, same_shape, shape_of
from bpcore.simd cimport (
    bp_table_f32, bp_table_f64, kernels, loss_f32, loss_f64, loss_slope_f32, loss_slope_f64, loss_sum_f32, loss_sum_f64,
)
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records2, wrap
from bpcore.threads cimport parallel_for

import warnings

from bpcore.activation import softplus
from bpcore.reduce import mean as mean_of
from bpcore.reduce import sum as sum_of

np.import_array()


# --- reductions -----------------------------------------------------------------------------------------------------------

cdef int reduction_of(object size_average, object reduce, object reduction) except -1:
    if size_average is not None or reduce is not None:
        if reduce is not None and not reduce:
            reduction = "none"
        else:
            reduction = "sum" if size_average is not None and not size_average else "mean"
        warnings.warn(f"size_average and reduce are deprecated; pass reduction={reduction!r} instead", stacklevel=1)
    if reduction == "mean":
        return MEAN
    if reduction == "sum":
        return SUM
    if reduction == "none":
        return NONE
    raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")


cdef Tensor scalar(double value, int typenum):
    cdef ndarray y = empty(0, NULL, typenum)
    if typenum == NPY_FLOAT:
        (<float *> np.PyArray_DATA(y))[0] = <float> value
    else:
        (<double *> np.PyArray_DATA(y))[0] = value
    return wrap(y)


cdef double number(ndarray dy) noexcept:
    if np.PyArray_TYPE(dy) == NPY_FLOAT:
        return (<float *> np.PyArray_DATA(dy))[0]
    return (<double *> np.PyArray_DATA(dy))[0]


cdef Tensor reduced(Tensor losses, int reduction):
    """The reduction of a tensor of losses, by general operators."""
    return losses if reduction == NONE else mean_of(losses) if reduction == MEAN else sum_of(losses)


# --- arrays ---------------------------------------------------------------------------------------------------------------

ctypedef struct Loss:
    loss_f32 value_f32
    loss_sum_f32 sum_f32
    loss_slope_f32 dx_f32, dt_f32          # dt NULL: it is -dx
    loss_f64 value_f64
    loss_sum_f64 sum_f64
    loss_slope_f64 dx_f64, dt_f64
    double cost                            # nanoseconds an element of float32

cdef enum:
    BLOCK = 16384                          # elements in a partial sum
    PIECE = 64                             # elements that threads share out losses and slopes by

ctypedef struct Job:
    const Loss *f
    void *out                              # losses or slopes; partial sums (double) of blocks where `sums`
    const void *x
    const void *t
    Py_ssize_t n
    double a, scale
    bint sums, slope, by_target


cdef void run_f32(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef const float *x = <const float *> job.x
    cdef const float *t = <const float *> job.t
    cdef float a = <float> job.a
    cdef Py_ssize_t i
    cdef loss_slope_f32 slope = job.f.dt_f32 if job.by_target else job.f.dx_f32
    if job.sums:
        for i in range(begin, end):
            (<double *> job.out)[i] = job.f.sum_f32(x + i * BLOCK, t + i * BLOCK, min(<Py_ssize_t> BLOCK, job.n - i * BLOCK), &a)
        return
    i = begin * PIECE
    if job.slope:
        slope(<float *> job.out + i, x + i, t + i, min(end * PIECE, job.n) - i, <float> job.scale, &a)
    else:
        job.f.value_f32(<float *> job.out + i, x + i, t + i, min(end * PIECE, job.n) - i, &a)


cdef void run_f64(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef const double *x = <const double *> job.x
    cdef const double *t = <const double *> job.t
    cdef double a = job.a
    cdef Py_ssize_t i
    cdef loss_slope_f64 slope = job.f.dt_f64 if job.by_target else job.f.dx_f64
    if job.sums:
        for i in range(begin, end):
            (<double *> job.out)[i] = job.f.sum_f64(x + i * BLOCK, t + i * BLOCK, min(<Py_ssize_t> BLOCK, job.n - i * BLOCK), &a)
        return
    i = begin * PIECE
    if job.slope:
        slope(<double *> job.out + i, x + i, t + i, min(end * PIECE, job.n) - i, job.scale, &a)
    else:
        job.f.value_f64(<double *> job.out + i, x + i, t + i, min(end * PIECE, job.n) - i, &a)


cdef void run(Job *job, int typenum) noexcept nogil:
    cdef Py_ssize_t size = BLOCK if job.sums else PIECE, n = (job.n + size - 1) // size
    cdef double cost = job.f.cost * size
    if typenum == NPY_FLOAT:
        parallel_for(run_f32, job, n, cost)
    else:
        parallel_for(run_f64, job, n, 3 * cost)


cdef double total_of(Job *job, int typenum) except? -1:
    """The sum of all losses: partial sums of blocks, added in order."""
    cdef Py_ssize_t i, blocks = (job.n + BLOCK - 1) // BLOCK
    cdef double few[64]
    cdef double *partial = few
    cdef double total = 0
    if blocks > 64:
        partial = <double *> malloc(blocks * sizeof(double))
        if partial is NULL:
            raise MemoryError("no memory for the partial sums of a loss")
    job.out = partial
    job.sums = True
    with nogil:
        run(job, typenum)
    for i in range(blocks):
        total += partial[i]
    if partial is not few:
        free(partial)
    return total


# --- the losses -----------------------------------------------------------------------------------------------------------

cdef const bp_table_f32 *s = &kernels().f32
cdef const bp_table_f64 *d = &kernels().f64

cdef Loss MSE = Loss(s.mse, s.mse_sum, s.mse_dx, NULL, d.mse, d.mse_sum, d.mse_dx, NULL, 0.3)
cdef Loss L1 = Loss(s.l1, s.l1_sum, s.l1_dx, NULL, d.l1, d.l1_sum, d.l1_dx, NULL, 0.3)
cdef Loss SMOOTH_L1 = Loss(
    s.smooth_l1, s.smooth_l1_sum, s.smooth_l1_dx, NULL, d.smooth_l1, d.smooth_l1_sum, d.smooth_l1_dx, NULL, 0.4)
cdef Loss HUBER = Loss(s.huber, s.huber_sum, s.huber_dx, NULL, d.huber, d.huber_sum, d.huber_dx, NULL, 0.4)
cdef Loss BCE = Loss(s.bce, s.bce_sum, s.bce_dx, s.bce_dt, d.bce, d.bce_sum, d.bce_dx, d.bce_dt, 2.0)
cdef Loss BCE_LOGITS = Loss(
    s.bce_logits, s.bce_logits_sum, s.bce_logits_dx, s.bce_logits_dt,
    d.bce_logits, d.bce_logits_sum, d.bce_logits_dx, d.bce_logits_dt, 1.2)
cdef Loss KL_DIV = Loss(
    s.kl_div, s.kl_div_sum, s.kl_div_dx, s.kl_div_dt, d.kl_div, d.kl_div_sum, d.kl_div_dx, d.kl_div_dt, 0.9)
cdef Loss KL_DIV_LOG = Loss(
    s.kl_div_log, s.kl_div_log_sum, s.kl_div_log_dx, s.kl_div_log_dt,
    d.kl_div_log, d.kl_div_log_sum, d.kl_div_log_dx, d.kl_div_log_dt, 0.7)


@cython.final
cdef class LossNode(Node):
    """loss = reduction of f(x, t): dx = dy scale df/dx, dt = dy scale df/dt"""
    cdef const Loss *f
    cdef int reduction
    cdef double a, scale

    cdef ndarray slope(self, ndarray dy, bint by_target):
        cdef ndarray x, t, out
        cdef Job job
        x, t = self.saved
        out = empty_like(x)
        job.f = self.f
        job.out = np.PyArray_DATA(out)
        job.x = np.PyArray_DATA(x)
        job.t = np.PyArray_DATA(t)
        job.n = np.PyArray_SIZE(x)
        job.a = self.a
        job.scale = 1 if self.reduction == NONE else number(dy) * self.scale
        job.sums = False
        job.slope = True
        job.by_target = by_target and self.f.dt_f32 is not NULL
        if by_target and not job.by_target:
            job.scale = -job.scale
        with nogil:
            run(&job, np.PyArray_TYPE(x))
        return arith(MUL, out, contiguous(dy)) if self.reduction == NONE else out

    cdef object backward(self, object dy):
        return self.slope(dy, False) if self.needs(0) else None, self.slope(dy, True) if self.needs(1) else None


cdef Tensor apply(const Loss *f, Tensor x, Tensor t, int reduction, double a=0):
    """The loss of an input and a target alike in shape and type."""
    cdef ndarray xs, ts, y
    cdef Tensor out
    cdef LossNode node
    cdef Job job
    cdef int typenum = np.PyArray_TYPE(x.array)
    if not is_real(typenum):
        if x.array.dtype.kind in "biuc":
            raise TypeError(f"input: expected a floating-point tensor, got {x.array.dtype}")
        return cast_tensor(apply(f, cast_tensor(x, NPY_FLOAT), cast_tensor(t, NPY_FLOAT), reduction, a), typenum)
    xs, ts = contiguous(x.array), contiguous(t.array)
    job.f = f
    job.x = np.PyArray_DATA(xs)
    job.t = np.PyArray_DATA(ts)
    job.n = np.PyArray_SIZE(xs)
    job.a = a
    job.slope = job.by_target = False
    if reduction == NONE:
        y = empty_like(xs)
        job.out = np.PyArray_DATA(y)
        job.sums = False
        with nogil:
            run(&job, typenum)
        out = wrap(y)
    elif reduction == MEAN:
        out = scalar(total_of(&job, typenum) / <double> job.n, typenum)
    else:
        out = scalar(total_of(&job, typenum), typenum)
    if records2(x, t):
        node = LossNode.__new__(LossNode)
        node.f = f
        node.reduction = reduction
        node.a = a
        node.scale = 1 / <double> job.n if reduction == MEAN else 1
        node.guard(x)
        node.guard(t)
        attach(out, node, (x, t), (xs, ts))
    return out


cdef Tensor compare(const Loss *f, object input, object target, int reduction, object weight, double a=0):
    """The loss of an input and a target that may have to be broadcast, which PyTorch warns of; times `weight` if that is given."""
    cdef Tensor x = as_tensor(input, "input"), t = as_tensor(target, "target"), w, losses
    cdef tuple shape
    if not same_shape(x.array, t.array):
        warnings.warn(
            f"target: expected the shape of input {shape_of(x.array)}, got {shape_of(t.array)}; both are broadcast, "
            "which is seldom what is meant", stacklevel=1)
    if weight is None:
        x, t = alike(x, t)
        return apply(f, x, t, reduction, a)
    shape = shape_of(x.array)
    w = as_tensor(weight, "weight")
    if shape_of(w.array) != shape:
        raise ValueError(f"weight: expected the shape of input {shape}, got {shape_of(w.array)}")
    x, t = alike(x, t)
    losses = binary(MUL, apply(f, x, t, NONE, a), w)
    if reduction == MEAN and f is not &HUBER:
        return binary(DIV, sum_of(losses), sum_of(w))
    return reduced(losses, reduction)


cdef tuple alike(Tensor x, Tensor t):
    """Both in one type and shape."""
    if np.PyArray_TYPE(x.array) == np.PyArray_TYPE(t.array) and same_shape(x.array, t.array):
        return x, t
    return matched((x, t), "input target")


# --- public ---------------------------------------------------------------------------------------------------------------

def mse_loss(input, target, size_average=None, reduce=None, reduction="mean", weight=None):
    """`(x - t)^2`. With `weight` (the input's shape) each is multiplied, and the mean divides by the sum of the weights."""
    return compare(&MSE, input, target, reduction_of(size_average, reduce, reduction), weight)


def l1_loss(input, target, size_average=None, reduce=None, reduction="mean", weight=None):
    """`|x - t|`, with slope 0 at 0. `weight` as in `mse_loss`."""
    return compare(&L1, input, target, reduction_of(size_average, reduce, reduction), weight)


def smooth_l1_loss(input, target, size_average=None, reduce=None, reduction="mean", double beta=1.0):
    """`(x - t)^2 / (2 beta)` where `|x - t| < beta`, else `|x - t| - beta / 2`; `l1_loss` for `beta = 0`.

    Raises `RuntimeError` for a negative `beta`."""
    if not beta >= 0:
        raise RuntimeError(f"beta: expected at least 0, got {beta}")
    return compare(
        &L1 if beta == 0 else &SMOOTH_L1, input, target, reduction_of(size_average, reduce, reduction), None, beta)


def huber_loss(input, target, reduction="mean", double delta=1.0, weight=None):
    """`(x - t)^2 / 2` where `|x - t| < delta`, else `delta (|x - t| - delta / 2)` (Huber 1964).

    `weight` (the input's shape) multiplies each loss; the mean divides by the number of elements, as in PyTorch.
    Raises `RuntimeError` where `delta` is not positive."""
    if not delta > 0:
        raise RuntimeError(f"delta: expected a positive number, got {delta}")
    return compare(&HUBER, input, target, reduction_of(None, None, reduction), weight, delta)


def binary_cross_entropy(input, target, weight=None, size_average=None, reduce=None, reduction="mean"):
    """`-(t log x + (1 - t) log(1 - x))` of probabilities x, with logarithms cut off at -100.

    `weight`, which must broadcast to the input, multiplies each loss. Raises `ValueError` where the shapes differ and
    `RuntimeError` where x or t is not in [0, 1]."""
    cdef Tensor x = as_tensor(input, "input"), t = as_tensor(target, "target")
    cdef int code = reduction_of(size_average, reduce, reduction)
    if not same_shape(x.array, t.array):
        raise ValueError(f"target: expected the shape of input {shape_of(x.array)}, got {shape_of(t.array)}")
    x, t = alike(x, t)
    check_unit(x.array, "input")
    check_unit(t.array, "target")
    if weight is None:
        return apply(&BCE, x, t, code)
    return reduced(binary(MUL, apply(&BCE, x, t, NONE), as_tensor(weight, "weight")), code)


cdef int check_unit(ndarray a, str name) except -1:
    """Refuse elements outside [0, 1], NaN too."""
    if np.PyArray_SIZE(a) and not (a.min() >= 0 and a.max() <= 1):
        raise RuntimeError(f"{name}: expected all elements in [0, 1], got values from {a.min()} to {a.max()}")
    return 0


def binary_cross_entropy_with_logits(input, target, weight=None, size_average=None, reduce=None, reduction="mean",
                                     pos_weight=None):
    """`-(p t log s(x) + (1 - t) log(1 - s(x)))` with the sigmoid s and p = `pos_weight` (1 without it), computed from the logits x
    without overflow.

    `weight` and `pos_weight` must broadcast to the input. Raises `ValueError` where input and target differ in shape."""
    cdef Tensor x = as_tensor(input, "input"), t = as_tensor(target, "target"), losses
    cdef int code = reduction_of(size_average, reduce, reduction)
    if not same_shape(x.array, t.array):
        raise ValueError(f"target: expected the shape of input {shape_of(x.array)}, got {shape_of(t.array)}")
    x, t = alike(x, t)
    if weight is None and pos_weight is None:
        return apply(&BCE_LOGITS, x, t, code)
    if pos_weight is None:
        losses = apply(&BCE_LOGITS, x, t, NONE)
    else:
        losses = weighted_logits(x, t, as_tensor(pos_weight, "pos_weight"))
    if weight is not None:
        losses = binary(MUL, losses, as_tensor(weight, "weight"))
    return reduced(losses, code)


cdef Tensor weighted_logits(Tensor x, Tensor t, Tensor p):
    """(1 - t) x + (1 + (p - 1) t) log(1 + e^-x), by general operators."""
    cdef Tensor rest = binary(ADD, binary(MUL, binary(ADD, p, -1), t), 1)
    cdef Tensor log = softplus(binary(MUL, x, -1), 1.0, float("inf"))
    return binary(ADD, binary(MUL, binary(ADD, binary(MUL, t, -1), 1), x), binary(MUL, rest, log))


def kl_div(input, target, size_average=None, reduce=None, reduction="mean", bint log_target=False):
    """`t (log t - x)`, the Kullback-Leibler divergence of log-probabilities x from probabilities t; with `log_target`, t is
    given as its logarithm. Input and target broadcast.

    `reduction="batchmean"` divides the sum by the first size of the input, which is the divergence by its definition; "mean"
    divides by the number of elements, and warns."""
    cdef Tensor x = as_tensor(input, "input"), t, total
    cdef bint batchmean = isinstance(reduction, str) and reduction == "batchmean" and size_average is None and reduce is None
    cdef int code = SUM if batchmean else reduction_of(size_average, reduce, reduction)
    cdef Py_ssize_t batch = np.PyArray_DIM(x.array, 0) if np.PyArray_NDIM(x.array) else 1
    if code == MEAN and size_average is None and reduce is None:
        warnings.warn("kl_div: reduction='mean' divides by the number of elements; 'batchmean' is the divergence", stacklevel=1)
    x, t = alike(x, as_tensor(target, "target"))
    total = apply(&KL_DIV_LOG if log_target else &KL_DIV, x, t, code)
    return binary(DIV, total, batch) if batchmean else total
