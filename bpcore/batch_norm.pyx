"""Batch normalization, with the addition and the activation that follow it in residual networks in the same passes.

The loops are those of kernels/norm.h, the formulas too. Sizes: N images, C channels, S elements of a plane; x: (N, C, *).
A training step reads every array as few times as it can: forward reads x twice and writes y; backward reads x and dy twice and
writes dx. What relu let through is seen from x again, and from y only where a residual was added.
"""
cimport cython
cimport numpy as np
from libc.math cimport sqrt
from numpy cimport NPY_DOUBLE, NPY_FLOAT, ndarray, npy_intp

from bpcore.memory cimport contiguous, empty, empty_like, zeros
from bpcore.operand cimport cast_tensor, is_real, same_shape
from bpcore.promotion cimport float_type
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, recordsn, wrap
from bpcore.threads cimport parallel_for, parallel_for_checked

from bpcore.shape import reshape
from bpcore.simd import cpu

np.import_array()


cdef extern from "kernels/norm_tables.h":
    const bp_norm_table *bp_choose(const char *wanted)


cdef bytes isa = cpu().encode()
cdef const bp_norm_table *table = bp_choose(isa)

cdef enum:
    COLUMNS = 80                   # planes smaller than this are worked on as columns

cdef double COST = 0.25            # nanoseconds an element and pass, float32
ACTIVATIONS = {None: 0, "relu": 1, "relu6": 2}


# --- what group normalization needs too -----------------------------------------------------------------------------------

cdef const bp_norm_kernels *kernels_of(int typenum) noexcept nogil:
    return &table.f32 if typenum == NPY_FLOAT else &table.f64


cdef void *data(ndarray a) noexcept:
    return NULL if a is None else np.PyArray_DATA(a)


cdef Tensor parameter(object value, str name, Py_ssize_t n, Tensor x):
    """A weight or bias: n contiguous numbers of the type of x (or of float32 beside half types), or None."""
    if value is None:
        return None
    cdef Tensor t = as_tensor(value, name)
    if np.PyArray_NDIM(t.array) != 1 or np.PyArray_DIM(t.array, 0) != n:
        raise RuntimeError(f"{name}: expected shape ({n},), got {t.shape}")
    cdef int typenum = np.PyArray_TYPE(t.array)
    if typenum != np.PyArray_TYPE(x.array):
        raise RuntimeError(f"{name}: expected the dtype of input, {x.dtype}, got {t.dtype}")
    return t


cdef Tensor widened(object value, str name):
    """A tensor of a half type in float32."""
    if value is None:
        return None
    cdef Tensor t = as_tensor(value, name)
    cdef int typenum = np.PyArray_TYPE(t.array)
    if float_type(typenum) != typenum or t.array.dtype.kind == "c":
        raise TypeError(f"{name}: expected a floating-point tensor, got {t.dtype}")
    return cast_tensor(t, NPY_FLOAT)


cdef int known(double *out, object value, str name, Py_ssize_t n) except -1:
    """Read n running statistics."""
    cdef Tensor t = as_tensor(value, name)
    cdef int typenum = np.PyArray_TYPE(t.array)
    cdef Py_ssize_t i
    if np.PyArray_NDIM(t.array) != 1 or np.PyArray_DIM(t.array, 0) != n:
        raise RuntimeError(f"{name}: expected shape ({n},), got {t.shape}")
    if float_type(typenum) != typenum or t.array.dtype.kind == "c":
        raise TypeError(f"{name}: expected a floating-point tensor, got {t.dtype}")
    cdef const char *at = <const char *> np.PyArray_DATA(t.array)
    for i in range(n):
        if typenum == NPY_FLOAT:
            out[i] = (<const float *> at)[0]
        elif typenum == NPY_DOUBLE:
            out[i] = (<const double *> at)[0]
        else:
            out[i] = float(t.array[i])
        at += np.PyArray_STRIDE(t.array, 0)
    return 0


cdef int blend(Tensor running, const double *values, double scale, double momentum) except -1:
    """running = (1 - momentum) running + momentum scale values, in place."""
    cdef Py_ssize_t i, n = np.PyArray_SIZE(running.array)
    cdef char *at = <char *> np.PyArray_DATA(running.array)
    cdef int typenum = np.PyArray_TYPE(running.array)
    if running.wants_grad():
        raise RuntimeError("running_mean, running_var: expected tensors that do not require grad")
    for i in range(n):
        if typenum == NPY_FLOAT:
            (<float *> at)[0] = <float> ((1 - momentum) * (<float *> at)[0] + momentum * scale * values[i])
        elif typenum == NPY_DOUBLE:
            (<double *> at)[0] = (1 - momentum) * (<double *> at)[0] + momentum * scale * values[i]
        else:
            running.array[i] = (1 - momentum) * float(running.array[i]) + momentum * scale * values[i]
        at += np.PyArray_STRIDE(running.array, 0)
    running.bump()
    return 0


cdef int clip_of(object activation) except -1:
    code = ACTIVATIONS.get(activation)
    if code is None:
        raise ValueError(f"activation: expected None, 'relu' or 'relu6', got {activation!r}")
    return code


# --- arrays ---------------------------------------------------------------------------------------------------------------

cdef Py_ssize_t plan(bp_norm *j, ndarray x) noexcept:
    """The sizes of x and its pieces; how many items these make."""
    cdef int i
    j.N, j.C, j.S = np.PyArray_DIM(x, 0), np.PyArray_DIM(x, 1), 1
    for i in range(2, np.PyArray_NDIM(x)):
        j.S *= np.PyArray_DIM(x, i)
    j.step = BP_NORM_ROWS if j.S < COLUMNS else max(1, BP_NORM_PIECE // j.S)
    j.pieces = (j.N + j.step - 1) // j.step
    return j.pieces * ((j.C * j.S + BP_NORM_TILE - 1) // BP_NORM_TILE if j.S < COLUMNS else j.C)


cdef ndarray scratch(Py_ssize_t n, int typenum):
    cdef npy_intp size = n
    return empty(1, &size, typenum)


cdef bint by_channel(const bp_norm *j, int typenum) noexcept:
    """Whether to take channels one after another, both passes over each, rather than images: measured to pay where all of x is
    more than the last cache holds and a plane is at least a page. (Both ways give the same bits.)"""
    cdef Py_ssize_t plane = j.S * (4 if typenum == NPY_FLOAT else 8)
    return j.C >= 8 and plane >= 4096 and plane * j.C * j.N > 48 << 20


cdef int forward(bp_norm *j, Py_ssize_t items, int typenum) except -1:
    """y in j.out; mean, var and rstd too where they are those of x."""
    cdef const bp_norm_kernels *k = kernels_of(typenum)
    cdef double pass_ns = COST * j.N * j.C * j.S * (1 if typenum == NPY_FLOAT else 2), item_ns = pass_ns / items
    cdef ndarray part = scratch(2 * j.pieces * j.C * (j.S if j.S < COLUMNS else 1), NPY_DOUBLE), lines
    j.part = <double *> data(part)
    if j.S < COLUMNS:
        lines = scratch(BP_NORM_LINES * j.C * j.S, typenum)
        j.lines = data(lines)
        if j.train:
            parallel_for_checked(k.column_moments, j, items, item_ns)
        with nogil:
            parallel_for(k.column_merge, j, j.C, 10.0 * j.pieces * j.S)
        parallel_for_checked(k.column_affine, j, items, item_ns)
    elif not j.train:
        parallel_for_checked(k.affine, j, items, item_ns)
    elif by_channel(j, typenum):
        parallel_for_checked(k.forward, j, j.C, 2 * pass_ns / j.C)
    else:
        parallel_for_checked(k.moments, j, items, item_ns)
        with nogil:
            parallel_for(k.merge, j, j.C, 10.0 * j.pieces)
        parallel_for_checked(k.affine, j, items, item_ns)
    return 0


cdef int backward(bp_norm *j, Py_ssize_t items, int typenum) except -1:
    """dx in j.out, the residual's gradient in j.dr, dw and db: those that are not NULL."""
    cdef const bp_norm_kernels *k = kernels_of(typenum)
    cdef double pass_ns = COST * j.N * j.C * j.S * (1 if typenum == NPY_FLOAT else 2), item_ns = pass_ns / items
    cdef ndarray part = scratch(2 * j.pieces * j.C * (j.S if j.S < COLUMNS else 1), NPY_DOUBLE), lines
    j.part = <double *> data(part)
    if j.S < COLUMNS:
        lines = scratch(BP_NORM_LINES * j.C * j.S, typenum)
        j.lines = data(lines)
        with nogil:
            parallel_for(k.column_constants, j, j.C, 5.0 * j.S)
        parallel_for_checked(k.column_sums, j, items, item_ns)
        with nogil:
            parallel_for(k.column_merge_sums, j, j.C, 10.0 * j.pieces * j.S)
        if j.out is not NULL:
            parallel_for_checked(k.column_slopes, j, items, item_ns)
    elif by_channel(j, typenum):
        parallel_for_checked(k.backward, j, j.C, 2 * pass_ns / j.C)
    else:
        parallel_for_checked(k.sums, j, items, item_ns)
        with nogil:
            parallel_for(k.merge_sums, j, j.C, 2.0 * j.pieces)
        if j.out is not NULL:
            parallel_for_checked(k.slopes, j, items, item_ns)
    return 0


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class BatchNormNode(Node):
    """y = act((x - mean) rstd w + b + residual); inputs x, residual, w, b."""
    cdef double eps
    cdef int clip, train

    cdef object backward(self, object grad):
        cdef ndarray x, w, b, y, statistics, dy = contiguous(grad), dx = None, dr = None, dw = None, db = None
        cdef bp_norm j
        x, w, b, y, statistics = self.saved
        cdef Py_ssize_t items = plan(&j, x)
        cdef npy_intp channels = j.C
        cdef int typenum = np.PyArray_TYPE(x)
        if self.needs(0):
            dx = empty_like(x)
        if self.needs(1):
            dr = empty_like(x) if self.clip else dy
        if self.needs(2):
            dw = zeros(1, &channels, typenum)
        if self.needs(3):
            db = zeros(1, &channels, typenum)
        if np.PyArray_SIZE(x) == 0 or (dx is None and dw is None and db is None and not self.clip):
            return dx, dr, dw, db
        j.out, j.dr, j.dw, j.db = data(dx), data(dr) if self.clip else NULL, data(dw), data(db)
        j.x, j.r, j.dy, j.y, j.weight, j.bias = data(x), NULL, data(dy), data(y), data(w), data(b)
        point(&j, statistics)
        j.eps, j.clip, j.train = self.eps, self.clip, self.train
        backward(&j, items, typenum)
        return dx, dr, dw, db


cdef void point(bp_norm *j, ndarray statistics) noexcept:
    """mean, var and rstd: the rows of `statistics`."""
    cdef Py_ssize_t n = np.PyArray_DIM(statistics, 1)
    j.mean = <double *> np.PyArray_DATA(statistics)
    j.var = j.mean + n
    j.rstd = j.var + n


def batch_norm(input, running_mean, running_var, weight=None, bias=None, bint training=False, double momentum=0.1,
               double eps=1e-5, *, residual=None, activation=None):
    """`y = act((x - mean) / sqrt(var + eps) * w + b + residual)`, channel by channel (Ioffe and Szegedy 2015).

    input x: (N, C, *), float32 or float64 (half types are computed in float32); weight w and bias b: (C,) or None. `training`: mean
    and variance are those of x over all axes but the second, the variance with the divisor M = N * …; running_mean and running_var,
    (C,) or None, change in place to `(1 - momentum) running + momentum new`, the new variance with the divisor M - 1. Otherwise
    they are the mean and variance. Keyword-only extras, computed in the same passes: `residual`, a tensor of the shape of x, and
    `activation`: None, "relu" or "relu6".

    Raises `ValueError` in training for M = 1 and for `eps` <= 0, and `RuntimeError` that names the argument whose shape or dtype
    does not fit.
    """
    cdef Tensor x = as_tensor(input, "input"), w, b, r = None, out
    cdef int typenum = np.PyArray_TYPE(x.array), clip = clip_of(activation)
    cdef bint taped
    cdef bp_norm j
    cdef Py_ssize_t items, c
    cdef ndarray source, y, statistics
    cdef npy_intp[2] dims
    cdef BatchNormNode node
    if not is_real(typenum):
        return batch_norm_half(x, running_mean, running_var, weight, bias, training, momentum, eps, residual, activation)
    if np.PyArray_NDIM(x.array) < 2:
        if x.shape != (0,):
            raise ValueError(f"input: expected shape (N, C, *), got {x.shape}")
        return reshape(batch_norm(reshape(x, (0, 0)), running_mean, running_var, weight, bias, training, momentum, eps), (0,))
    source = contiguous(x.array)
    items = plan(&j, source)
    if training and j.N * j.S == 1:
        raise ValueError(f"input: expected more than 1 value per channel when training, got shape {x.shape}")
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"eps: expected a {'positive' if training else 'non-negative'} number, got {eps}")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean, running_var: expected both or neither")
    if running_mean is None and not training:
        raise RuntimeError("running_mean, running_var: expected tensors where training is off, got None")
    w, b = parameter(weight, "weight", j.C, x), parameter(bias, "bias", j.C, x)
    if residual is not None:
        r = as_tensor(residual, "residual")
        if not same_shape(r.array, x.array):
            raise RuntimeError(f"residual: expected the shape of input, {x.shape}, got {r.shape}")
        if np.PyArray_TYPE(r.array) != typenum:
            raise RuntimeError(f"residual: expected the dtype of input, {x.dtype}, got {r.dtype}")
    dims[0], dims[1] = 3, j.C
    statistics = zeros(2, dims, NPY_DOUBLE)
    point(&j, statistics)
    if running_mean is not None:
        known(j.mean, running_mean, "running_mean", j.C)
        known(j.var, running_var, "running_var", j.C)
        for c in range(j.C):
            j.rstd[c] = 1 / sqrt(j.var[c] + eps)
    y = empty_like(source)
    taped = recordsn((x, r, w, b))
    cdef ndarray addend = None if r is None else contiguous(r.array)
    cdef ndarray scale = None if w is None else contiguous(w.array), offset = None if b is None else contiguous(b.array)
    if np.PyArray_SIZE(source):
        j.out, j.x, j.r, j.weight, j.bias = data(y), data(source), data(addend), data(scale), data(offset)
        j.eps, j.clip, j.train = eps, clip, training
        forward(&j, items, typenum)
        if training and running_mean is not None:
            blend(running_mean, j.mean, 1, momentum)
            blend(running_var, j.var, <double> (j.N * j.S) / (j.N * j.S - 1), momentum)
    out = wrap(y)
    if taped:
        node = BatchNormNode.__new__(BatchNormNode)
        node.eps, node.clip, node.train = eps, clip, training
        node.guard(x)
        if w is not None:
            node.guard(w)
        if clip and r is not None:
            node.guard(out)
        elif clip and b is not None:
            node.guard(b)
        attach(out, node, (x, r, w, b), (source, scale, offset, y if clip and r is not None else None, statistics))
    return out


cdef Tensor batch_norm_half(Tensor x, object running_mean, object running_var, object weight, object bias, bint training,
                            double momentum, double eps, object residual, object activation):
    """The same for half types: computed in float32."""
    cdef Tensor y = batch_norm(widened(x, "input"), running_mean, running_var, widened(weight, "weight"), widened(bias, "bias"),
                               training, momentum, eps, residual=widened(residual, "residual"), activation=activation)
    return cast_tensor(y, np.PyArray_TYPE(x.array))
