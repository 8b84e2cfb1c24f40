"""Group and instance normalization: statistics of the channels of one image. The loops are those of kernels/norm_groups.h.

Sizes: N images, C channels in G groups, S elements of a plane; x: (N, C, *).
"""
cimport cython
cimport numpy as np
from numpy cimport NPY_DOUBLE, NPY_FLOAT, ndarray, npy_intp

from bpcore.batch_norm cimport blend, bp_norm, data, kernels_of, known, parameter, point, widened
from bpcore.memory cimport contiguous, empty, empty_like, zeros
from bpcore.operand cimport cast_tensor, is_real
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, recordsn, wrap
from bpcore.threads cimport parallel_for, parallel_for_checked

from bpcore.batch_norm import batch_norm

np.import_array()

cdef double COST = 0.4             # nanoseconds an element, float32


# --- arrays ---------------------------------------------------------------------------------------------------------------

cdef void plan(bp_norm *j, ndarray x, ndarray w, ndarray b, ndarray statistics, Py_ssize_t groups) noexcept:
    """What forward and backward share."""
    j.N, j.C = np.PyArray_DIM(x, 0), np.PyArray_DIM(x, 1)
    j.width = j.C // groups
    j.S = np.PyArray_SIZE(x) // (j.N * j.C)
    j.x, j.r, j.y, j.weight, j.bias = data(x), NULL, NULL, data(w), data(b)
    j.dr = NULL
    j.clip, j.train = 0, 1
    point(j, statistics)


cdef double item_cost(const bp_norm *j, int typenum) noexcept nogil:
    return j.width * (10 + j.S * COST * (1 if typenum == NPY_FLOAT else 2))


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class GroupNormNode(Node):
    """y = (x - mean) rstd w + b with statistics of each image's groups; inputs x, w, b."""
    cdef Py_ssize_t groups

    cdef object backward(self, object grad):
        cdef ndarray x, w, statistics, part, dy = contiguous(grad), dx = None, dw = None, db = None
        cdef bp_norm j
        x, w, statistics = self.saved
        cdef int typenum = np.PyArray_TYPE(x)
        cdef npy_intp size = np.PyArray_DIM(x, 1)
        if self.needs(0):
            dx = empty_like(x)
        if self.needs(1):
            dw = zeros(1, &size, typenum)
        if self.needs(2):
            db = zeros(1, &size, typenum)
        if np.PyArray_SIZE(x) == 0:
            return dx, dw, db
        plan(&j, x, w, None, statistics, self.groups)
        size = 2 * j.N * j.C
        part = empty(1, &size, NPY_DOUBLE)
        j.out, j.dy, j.dw, j.db, j.part = data(dx), data(dy), data(dw), data(db), <double *> data(part)
        parallel_for_checked(kernels_of(typenum).group_backward, &j, j.N * self.groups, 2 * item_cost(&j, typenum))
        if dw is not None or db is not None:
            with nogil:
                parallel_for(kernels_of(typenum).group_merge, &j, j.C, 3.0 * j.N)
        return dx, dw, db


cdef Tensor apply(Tensor x, Py_ssize_t groups, Tensor w, Tensor b, double eps, ndarray statistics):
    """The normalization; `statistics` (3, N G) takes mean, variance and 1 / deviation."""
    cdef int typenum = np.PyArray_TYPE(x.array)
    cdef ndarray source = contiguous(x.array), scale = None if w is None else contiguous(w.array)
    cdef ndarray offset = None if b is None else contiguous(b.array), y = empty_like(source)
    cdef bp_norm j
    cdef GroupNormNode node
    if np.PyArray_SIZE(source):
        plan(&j, source, scale, offset, statistics, groups)
        j.out, j.eps = data(y), eps
        parallel_for_checked(kernels_of(typenum).group_forward, &j, j.N * groups, item_cost(&j, typenum))
    cdef Tensor out = wrap(y)
    if recordsn((x, w, b)):
        node = GroupNormNode.__new__(GroupNormNode)
        node.groups = groups
        node.guard(x)
        if w is not None:
            node.guard(w)
        attach(out, node, (x, w, b), (source, scale, statistics))
    return out


cdef ndarray new_statistics(Tensor x, Py_ssize_t groups):
    cdef npy_intp[2] dims
    dims[0], dims[1] = 3, np.PyArray_DIM(x.array, 0) * groups
    return zeros(2, dims, NPY_DOUBLE)


def group_norm(input, Py_ssize_t num_groups, weight=None, bias=None, double eps=1e-5):
    """`y = (x - mean) / sqrt(var + eps) * w + b`, mean and variance of each image's groups of channels (Wu and He 2018).

    input x: (N, C, *), float32 or float64 (half types are computed in float32), C a multiple of num_groups; weight w and bias b:
    (C,) or None. Raises `ValueError` for one value a group, and `RuntimeError` that names the argument whose shape or dtype does
    not fit.
    """
    cdef Tensor x = as_tensor(input, "input"), y
    if not is_real(np.PyArray_TYPE(x.array)):
        y = group_norm(widened(x, "input"), num_groups, widened(weight, "weight"), widened(bias, "bias"), eps)
        return cast_tensor(y, np.PyArray_TYPE(x.array))
    if np.PyArray_NDIM(x.array) < 2:
        raise RuntimeError(f"input: expected shape (N, C, *), got {x.shape}")
    cdef Py_ssize_t channels = np.PyArray_DIM(x.array, 1), images = np.PyArray_DIM(x.array, 0)
    if num_groups < 1 or channels % num_groups:
        raise RuntimeError(f"num_groups: expected a divisor of the {channels} channels of an input {x.shape}, got {num_groups}")
    if images * channels // num_groups == 1 and np.PyArray_SIZE(x.array) == channels:
        raise ValueError(f"input: expected more than 1 value per group, got shape {x.shape} and num_groups={num_groups}")
    return apply(x, num_groups, parameter(weight, "weight", channels, x), parameter(bias, "bias", channels, x), eps,
                 new_statistics(x, num_groups))


def instance_norm(input, running_mean=None, running_var=None, weight=None, bias=None, bint use_input_stats=True,
                  double momentum=0.1, double eps=1e-5):
    """`y = (x - mean) / sqrt(var + eps) * w + b`, mean and variance of each channel of each image (Ulyanov et al. 2016).

    input x: (N, C, *), float32 or float64 (half types are computed in float32); weight w and bias b: (C,) or None.
    `use_input_stats`: the statistics are those of x; running_mean and running_var, (C,) or None, change in place to
    `(1 - momentum) running + momentum (mean over the images)`, the variance with the divisor S - 1. Otherwise they are the
    statistics. Raises `ValueError` where S = 1, and `RuntimeError` that names the argument whose shape or dtype does not fit.
    """
    cdef Tensor x = as_tensor(input, "input"), y
    cdef ndarray statistics, old, mean
    cdef bp_norm j
    if not is_real(np.PyArray_TYPE(x.array)):
        y = instance_norm(widened(x, "input"), running_mean, running_var, widened(weight, "weight"), widened(bias, "bias"),
                          use_input_stats, momentum, eps)
        return cast_tensor(y, np.PyArray_TYPE(x.array))
    if np.PyArray_NDIM(x.array) < 2:
        raise RuntimeError(f"input: expected shape (N, C, *), got {x.shape}")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean, running_var: expected both or neither")
    if not use_input_stats:
        if running_mean is None:
            raise RuntimeError("running_mean, running_var: expected tensors where use_input_stats is False, got None")
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    cdef Py_ssize_t channels = np.PyArray_DIM(x.array, 1), size = 1
    for n in x.shape[2:]:
        size *= n
    if size == 1:
        raise ValueError(f"input: expected more than 1 spatial element when training, got shape {x.shape}")
    statistics = new_statistics(x, channels)
    if running_mean is not None:
        old = new_statistics(x, channels)
        if np.PyArray_SIZE(x.array):
            point(&j, old)
            known(j.mean, running_mean, "running_mean", channels)
            known(j.var, running_var, "running_var", channels)
    y = apply(x, channels, parameter(weight, "weight", channels, x), parameter(bias, "bias", channels, x), eps, statistics)
    if running_mean is not None and np.PyArray_SIZE(x.array):
        mean = contiguous(statistics[:2].reshape(2, -1, channels).mean(1))
        blend(running_mean, <double *> data(mean), 1, momentum)
        blend(running_var, <double *> data(mean) + channels, <double> size / (size - 1), momentum)
    return y
