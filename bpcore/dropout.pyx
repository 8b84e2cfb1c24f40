"""Dropout: elements, or whole feature maps, are set to zero at random while training.

The random word of an element depends on a seed drawn from `bpcore.random` and on its position (kernels/dropout.h), so the
result does not depend on the number of threads, and backward makes the mask again instead of keeping it.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport uint32_t, uint64_t
from numpy cimport NPY_FLOAT, NPY_UINT32, ndarray, npy_intp

from bpcore.inplace cimport may_change, store
from bpcore.memory cimport contiguous, empty, empty_like
from bpcore.operand cimport cast_tensor, is_real, map2, new, shape_of
from bpcore.simd cimport BP_DROPOUT_GROUP, kernels
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap
from bpcore.threads cimport parallel_for

import math
import warnings

import numpy

from bpcore.random import next_seed

np.import_array()


# --- arrays ---------------------------------------------------------------------------------------------------------------

ctypedef struct Mask:
    uint64_t seed
    uint32_t threshold             # an element whose word is below it is dropped
    double kept, shift, floor      # x becomes x kept + shift, or x 0 + floor

ctypedef struct Job:
    const Mask *mask
    void *y
    const void *x
    Py_ssize_t n
    double shift, floor


cdef void run_f32(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t at = begin * BP_DROPOUT_GROUP
    kernels().f32.dropout(
        <float *> job.y + at, <const float *> job.x + at, min(end * BP_DROPOUT_GROUP, job.n) - at, job.mask.seed, begin,
        job.mask.threshold, <float> job.mask.kept, <float> job.shift, <float> job.floor)


cdef void run_f64(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t at = begin * BP_DROPOUT_GROUP
    kernels().f64.dropout(
        <double *> job.y + at, <const double *> job.x + at, min(end * BP_DROPOUT_GROUP, job.n) - at, job.mask.seed, begin,
        job.mask.threshold, job.mask.kept, job.shift, job.floor)


cdef ndarray masked(const Mask *mask, ndarray x, bint slope):
    """A contiguous array under the mask; with `slope` the linear part alone, which is backward."""
    cdef ndarray y = empty_like(x)
    cdef Job job
    job.mask = mask
    job.y = np.PyArray_DATA(y)
    job.x = np.PyArray_DATA(x)
    job.n = np.PyArray_SIZE(x)
    job.shift = 0 if slope else mask.shift
    job.floor = 0 if slope else mask.floor
    cdef Py_ssize_t groups = (job.n + BP_DROPOUT_GROUP - 1) // BP_DROPOUT_GROUP
    with nogil:
        parallel_for(run_f32 if np.PyArray_TYPE(x) == NPY_FLOAT else run_f64, &job, groups, 0.8 * BP_DROPOUT_GROUP)
    return y


cdef double SATURATION = 1.7580993408473766       # -selu(-inf): alpha dropout sends what it drops to an affine map of -this


cdef Mask draw(double p, bint alpha):
    """A mask that drops with probability p, to 2^-32."""
    cdef Mask mask
    mask.seed = next_seed()
    mask.threshold = <uint32_t> min(math.ldexp(p, 32), 4294967295.0)
    mask.kept = mask.shift = mask.floor = 0
    if p == 1:
        return mask
    if not alpha:
        mask.kept = 1 / (1 - p)
        return mask
    mask.kept = 1 / math.sqrt((SATURATION * SATURATION * p + 1) * (1 - p))
    mask.shift = SATURATION * mask.kept * p
    mask.floor = mask.shift - SATURATION * mask.kept
    return mask


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class DropoutNode(Node):
    """y = x kept + shift or floor: dx = dy kept or 0, under the same mask"""
    cdef Mask mask

    cdef object backward(self, object dy):
        return masked(&self.mask, contiguous(dy), True)


@cython.final
cdef class FeatureDropoutNode(Node):
    """y = x scale + shift, one scale a feature map: dx = dy scale"""

    cdef object backward(self, object dy):
        scale, = self.saved
        return map2(numpy.multiply, dy, scale)

    def name(self):
        return "DropoutBackward"


cdef Tensor apply(Tensor x, double p, bint alpha):
    """Dropout of single elements while training, of any p."""
    cdef Tensor out
    cdef DropoutNode node
    cdef Mask mask
    if not is_real(np.PyArray_TYPE(x.array)):
        return cast_tensor(apply(cast_tensor(x, NPY_FLOAT), p, alpha), np.PyArray_TYPE(x.array))
    mask = draw(p, alpha)
    out = wrap(masked(&mask, contiguous(x.array), False))
    if records(x):
        node = DropoutNode.__new__(DropoutNode)
        node.mask = mask
        attach(out, node, (x,), None)
    return out


cdef Tensor apply_maps(Tensor x, double p, bint alpha, int lead):
    """Dropout of whole feature maps while training: those that the first `lead` axes count."""
    cdef int typenum = np.PyArray_TYPE(x.array)
    cdef tuple shape = shape_of(x.array)
    cdef tuple maps = shape[:lead] + (1,) * (len(shape) - lead)
    cdef Tensor out
    cdef ndarray scale, ones
    cdef Mask mask
    if not is_real(typenum):
        return cast_tensor(apply_maps(cast_tensor(x, NPY_FLOAT), p, alpha, lead), typenum)
    mask = draw(p, alpha)
    ones = new(maps, typenum)
    ones.fill(1)
    scale = masked(&mask, ones, True)
    out = wrap(map2(numpy.multiply, x.array, scale))
    if alpha:                                  # the shift alone: what the mask makes of zeros
        ones.fill(0)
        numpy.add(out.array, masked(&mask, ones, False), out=out.array)
    if records(x):
        attach(out, FeatureDropoutNode.__new__(FeatureDropoutNode), (x,), (scale,))
    return out


cdef Tensor run(object input, object p, bint training, bint inplace, bint alpha, int lead, str name):
    """Dropout of single elements (`lead` 0) or of feature maps; the input itself where nothing is dropped."""
    cdef Tensor x = as_tensor(input, "input"), out
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability in [0, 1], got {p}")
    if x.array.dtype.kind in "biuc":
        raise TypeError(f"{name}: expected a floating-point input, got {x.array.dtype}")
    if not training or p == 0 or np.PyArray_SIZE(x.array) == 0:
        return x
    if inplace:
        may_change(x)
    out = apply_maps(x, p, alpha, lead) if lead else apply(x, p, alpha)
    return store(x, out) if inplace else out


# --- public ---------------------------------------------------------------------------------------------------------------

def dropout(input, p=0.5, training=True, inplace=False):
    """While training: 0 with probability `p`, else `x / (1 - p)` (Srivastava et al. 2014). Otherwise `input` itself.

    Raises `ValueError` for `p` outside [0, 1]. With `inplace` the result replaces the content of `input`."""
    return run(input, p, training, inplace, False, 0, "dropout")


def alpha_dropout(input, p=0.5, training=False, inplace=False):
    """While training: elements are set, with probability `p`, to the value that selu saturates at, and all are rescaled such
    that mean and variance stay those of standard normal input (Klambauer et al. 2017). Otherwise `input` itself."""
    return run(input, p, training, inplace, True, 0, "alpha_dropout")


def dropout1d(input, p=0.5, training=True, inplace=False):
    """Dropout of whole channels of (N, C, L) or (C, L): each is kept, times `1 / (1 - p)`, or zero (Tompson et al. 2015)."""
    cdef int ndim = as_tensor(input, "input").array.ndim
    if ndim not in (2, 3):
        raise RuntimeError(f"input: expected (N, C, L) or (C, L), got {ndim} axes")
    return run(input, p, training, inplace, False, ndim - 1, "dropout1d")


def dropout2d(input, p=0.5, training=True, inplace=False):
    """Dropout of whole channels of (N, C, H, W): each is kept, times `1 / (1 - p)`, or zero. Three axes are taken as (N, C, L)."""
    cdef int ndim = as_tensor(input, "input").array.ndim
    if ndim < 2:
        raise RuntimeError(f"input: expected (N, C, H, W), got {ndim} axes")
    if ndim != 4:
        warnings.warn(f"dropout2d: expected (N, C, H, W), got {ndim} axes; the first two are taken as N and C", stacklevel=1)
    return run(input, p, training, inplace, False, 2, "dropout2d")


def dropout3d(input, p=0.5, training=True, inplace=False):
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W): each is kept, times `1 / (1 - p)`, or zero."""
    cdef int ndim = as_tensor(input, "input").array.ndim
    if ndim < 2:
        raise RuntimeError(f"input: expected (N, C, D, H, W), got {ndim} axes")
    if ndim not in (4, 5):
        warnings.warn(f"dropout3d: expected (N, C, D, H, W), got {ndim} axes; the first is taken as C", stacklevel=1)
    return run(input, p, training, inplace, False, 2 if ndim == 5 else 1, "dropout3d")


def feature_alpha_dropout(input, p=0.5, training=False, inplace=False):
    """`alpha_dropout` of whole channels of (N, C, …)."""
    cdef int ndim = as_tensor(input, "input").array.ndim
    if ndim < 2 and training and p:
        raise RuntimeError(f"input: expected (N, C, …), got {ndim} axes")
    return run(input, p, training, inplace, True, 2, "feature_alpha_dropout")


def random_words(n, seed):
    """The first `n` random words (uint32) behind the mask of `seed`: Philox4x32-10."""
    cdef npy_intp count = n
    cdef ndarray words = empty(1, &count, NPY_UINT32)
    kernels().f32.random_words(<uint32_t *> np.PyArray_DATA(words), count, seed)
    return words
