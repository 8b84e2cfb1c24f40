"""Activation functions: relu, sigmoid, gelu and their relatives. The formulas are those of kernels/activation.h.

All take `input` of float32 or float64 (half types are computed in float32) and any shape, and return the same shape and type.
Those that can compute backward from the output keep only that. `inplace=True` writes the result into `input` and returns it; a leaf
that requires grad refuses that. An integer `input` raises `TypeError`, except where the function's docstring says what it gives.
"""
cimport cython
cimport numpy as np
from numpy cimport NPY_FLOAT, ndarray

from bpcore.inplace cimport may_change, store
from bpcore.memory cimport contiguous, empty_like
from bpcore.operand cimport cast_tensor, is_real, map_to
from bpcore.promotion cimport float_type
from bpcore.simd cimport (
    bp_table_f32, bp_table_f64, kernels, map_backward_f32, map_backward_f64, map_f32, map_f64,
)
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap
from bpcore.threads cimport parallel_for

import numpy

np.import_array()


# --- arrays ---------------------------------------------------------------------------------------------------------------

cdef enum:
    PARAMETERS = 3
    PIECE = 64                     # threads share out pieces of so many elements, so that vectors start at the same places

ctypedef struct Job:
    const Map *f
    void *out
    const void *dy                 # NULL: forward
    const void *x
    Py_ssize_t n
    float p32[PARAMETERS]
    double p64[PARAMETERS]


cdef void run_f32(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t at = begin * PIECE, n = min(end * PIECE, job.n) - at
    cdef float *out = <float *> job.out + at
    cdef const float *x = <const float *> job.x + at
    if job.dy is NULL:
        job.f.f32(out, x, n, job.p32)
    else:
        job.f.backward_f32(out, <const float *> job.dy + at, x, n, job.p32)


cdef void run_f64(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t at = begin * PIECE, n = min(end * PIECE, job.n) - at
    cdef double *out = <double *> job.out + at
    cdef const double *x = <const double *> job.x + at
    if job.dy is NULL:
        job.f.f64(out, x, n, job.p64)
    else:
        job.f.backward_f64(out, <const double *> job.dy + at, x, n, job.p64)


cdef void run(Job *job, const double *p, int typenum, Py_ssize_t n) noexcept nogil:
    cdef int i
    for i in range(PARAMETERS):
        job.p64[i] = 0 if p is NULL else p[i]
        job.p32[i] = <float> job.p64[i]
    job.n = n
    if typenum == NPY_FLOAT:
        parallel_for(run_f32, job, (n + PIECE - 1) // PIECE, PIECE * job.f.cost)
    else:
        parallel_for(run_f64, job, (n + PIECE - 1) // PIECE, 3 * PIECE * job.f.cost)


cdef ndarray map_forward(const Map *f, ndarray x, const double *p):
    cdef ndarray y = empty_like(x)
    cdef Job job
    job.f = f
    job.out = np.PyArray_DATA(y)
    job.dy = NULL
    job.x = np.PyArray_DATA(x)
    with nogil:
        run(&job, p, np.PyArray_TYPE(x), np.PyArray_SIZE(x))
    return y


cdef ndarray map_backward(const Map *f, ndarray dy, ndarray saved, const double *p):
    cdef ndarray g = contiguous(dy), dx = empty_like(g)
    cdef Job job
    job.f = f
    job.out = np.PyArray_DATA(dx)
    job.dy = np.PyArray_DATA(g)
    job.x = np.PyArray_DATA(saved)
    with nogil:
        run(&job, p, np.PyArray_TYPE(saved), np.PyArray_SIZE(saved))
    return dx


# --- the functions --------------------------------------------------------------------------------------------------------

cdef Map make(const char *name, map_f32 f32, map_f64 f64, map_backward_f32 backward_f32, map_backward_f64 backward_f64,
              bint from_output, double cost) noexcept:
    cdef Map f
    f.name = name
    f.f32 = f32
    f.f64 = f64
    f.backward_f32 = backward_f32
    f.backward_f64 = backward_f64
    f.from_output = from_output
    f.cost = cost
    return f


cdef const bp_table_f32 *s = &kernels().f32
cdef const bp_table_f64 *d = &kernels().f64

EXP = make(b"Exp", s.exp, d.exp, NULL, NULL, True, 0.5)
LOG = make(b"Log", s.log, d.log, NULL, NULL, False, 0.7)
LOG1P = make(b"Log1p", s.log1p, d.log1p, NULL, NULL, False, 0.9)
ERF = make(b"Erf", s.erf, d.erf, NULL, NULL, False, 0.9)
RELU = make(b"Relu", s.relu, d.relu, s.relu_backward, d.relu_backward, True, 0.25)
LEAKY_RELU = make(b"LeakyRelu", s.leaky_relu, d.leaky_relu, s.leaky_relu_backward, d.leaky_relu_backward, True, 0.25)
HARDTANH = make(b"Hardtanh", s.hardtanh, d.hardtanh, s.hardtanh_backward, d.hardtanh_backward, False, 0.25)
SIGMOID = make(b"Sigmoid", s.sigmoid, d.sigmoid, s.sigmoid_backward, d.sigmoid_backward, True, 0.5)
TANH = make(b"Tanh", s.tanh, d.tanh, s.tanh_backward, d.tanh_backward, True, 0.5)
GELU = make(b"Gelu", s.gelu, d.gelu, s.gelu_backward, d.gelu_backward, False, 0.9)
GELU_TANH = make(b"Gelu", s.gelu_tanh, d.gelu_tanh, s.gelu_tanh_backward, d.gelu_tanh_backward, False, 0.9)
SILU = make(b"Silu", s.silu, d.silu, s.silu_backward, d.silu_backward, False, 0.6)
SOFTPLUS = make(b"Softplus", s.softplus, d.softplus, s.softplus_backward, d.softplus_backward, False, 1.0)
ELU = make(b"Elu", s.elu, d.elu, s.elu_backward, d.elu_backward, True, 0.5)
cdef Map ELU_INPUT = make(b"Elu", s.elu_input, d.elu_input, s.elu_input_backward, d.elu_input_backward, False, 1.0)
# A negative slope: the sign of y does not tell that of x.
cdef Map LEAKY_RELU_INPUT = make(
    b"LeakyRelu", s.leaky_relu, d.leaky_relu, s.leaky_relu_backward, d.leaky_relu_backward, False, 0.25)
cdef Map THRESHOLD = make(b"Threshold", s.threshold, d.threshold, s.threshold_backward, d.threshold_backward, False, 0.25)
cdef Map HARDSHRINK = make(
    b"Hardshrink", s.hardshrink, d.hardshrink, s.hardshrink_backward, d.hardshrink_backward, False, 0.25)
cdef Map SOFTSHRINK = make(
    b"Softshrink", s.softshrink, d.softshrink, s.softshrink_backward, d.softshrink_backward, False, 0.25)
cdef Map HARDSIGMOID = make(
    b"Hardsigmoid", s.hardsigmoid, d.hardsigmoid, s.hardsigmoid_backward, d.hardsigmoid_backward, False, 0.25)
cdef Map HARDSWISH = make(b"Hardswish", s.hardswish, d.hardswish, s.hardswish_backward, d.hardswish_backward, False, 0.25)
cdef Map SOFTSIGN = make(b"Softsign", s.softsign, d.softsign, s.softsign_backward, d.softsign_backward, False, 0.3)
cdef Map LOGSIGMOID = make(
    b"LogSigmoid", s.logsigmoid, d.logsigmoid, s.logsigmoid_backward, d.logsigmoid_backward, False, 1.0)
cdef Map MISH = make(b"Mish", s.mish, d.mish, s.mish_backward, d.mish_backward, False, 1.0)


cdef const Map *epilogue_map(object activation) except? NULL:
    if activation is None:
        return NULL
    if activation == "relu":
        return &RELU
    if activation == "sigmoid":
        return &SIGMOID
    if activation == "tanh":
        return &TANH
    if activation == "gelu":
        return &GELU
    if activation == "gelu_tanh":
        return &GELU_TANH
    if activation == "silu":
        return &SILU
    raise ValueError(f"activation: expected relu, sigmoid, tanh, gelu, gelu_tanh, silu or None, got {activation!r}")


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class MapNode(Node):
    """y = f(x): dx = dy f'(x), from the saved x or y."""
    cdef const Map *f
    cdef double p[PARAMETERS]

    cdef object backward(self, object dy):
        saved, = self.saved
        return map_backward(self.f, dy, saved, self.p)

    def name(self):
        return self.f.name.decode() + "Backward"


cdef Tensor apply(const Map *f, object input, bint inplace, double a=0, double b=0, double c=0):
    """`f(input)` with parameters a, b, c."""
    cdef Tensor x = as_tensor(input, "input"), out
    cdef int typenum = np.PyArray_TYPE(x.array)
    if inplace:
        may_change(x)
    if not is_real(typenum):
        return apply_other(f, x, inplace, a, b, c)
    cdef ndarray source = contiguous(x.array)
    cdef double[PARAMETERS] p = [a, b, c]
    cdef MapNode node
    out = wrap(map_forward(f, source, p))
    if records(x):
        node = MapNode.__new__(MapNode)
        node.f = f
        node.p = p
        if f.from_output:
            node.guard(out)
            attach(out, node, (x,), (out.array,))
        elif inplace:
            attach(out, node, (x,), (source.copy(),))
        else:
            node.guard(x)
            attach(out, node, (x,), (source,))
    return store(x, out) if inplace else out


cdef Tensor apply_other(const Map *f, Tensor x, bint inplace, double a, double b, double c):
    """The same for half types: computed in float32."""
    cdef int typenum = np.PyArray_TYPE(x.array)
    if float_type(typenum) != typenum or x.array.dtype.kind == "c":
        raise TypeError(f"input: expected a floating-point tensor, got {x.array.dtype}")
    cdef Tensor out = cast_tensor(apply(f, cast_tensor(x, NPY_FLOAT), False, a, b, c), typenum)
    return store(x, out) if inplace else out


cdef Tensor as_float(object input):
    """Integers and bools become the default float."""
    cdef Tensor x = as_tensor(input, "input")
    return cast_tensor(x, float_type(np.PyArray_TYPE(x.array)))


def relu(input, inplace=False):
    """`max(x, 0)`, of integers too. The gradient at 0 is 0, and NaN stays NaN."""
    cdef Tensor x = as_tensor(input, "input")
    if np.PyArray_TYPE(x.array) == np.NPY_BOOL:
        raise TypeError("input: expected numbers, got bool")
    if x.array.dtype.kind in "iu":
        out = wrap(map_to(numpy.maximum, (x.array, numpy.zeros((), x.array.dtype)), np.PyArray_TYPE(x.array)))
        return store(x, out) if inplace else out
    return apply(&RELU, x, inplace)


def sigmoid(input):
    """`1 / (1 + exp(-x))`; integers give floats. Results below the smallest normal number are 0."""
    return apply(&SIGMOID, as_float(input), False)


def tanh(input):
    """The hyperbolic tangent; integers give floats."""
    return apply(&TANH, as_float(input), False)


def leaky_relu(input, double negative_slope=0.01, inplace=False):
    """`x` where positive, else `negative_slope * x` (Maas et al. 2013)."""
    return apply(&LEAKY_RELU if negative_slope >= 0 else &LEAKY_RELU_INPUT, input, inplace, negative_slope)


def hardtanh(input, double min_val=-1.0, double max_val=1.0, inplace=False):
    """`x` cut off at `min_val` and `max_val`. Raises `ValueError` where these are the wrong way round."""
    if min_val > max_val:
        raise ValueError(f"min_val: expected at most max_val = {max_val}, got {min_val}")
    return apply(&HARDTANH, input, inplace, min_val, max_val)


def relu6(input, inplace=False):
    """`x` cut off at 0 and 6."""
    return apply(&HARDTANH, input, inplace, 0, 6)


def gelu(input, *, str approximate="none"):
    """`x Phi(x)` with the normal distribution function Phi; `approximate="tanh"`:
    `x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2` (Hendrycks and Gimpel 2016)."""
    if approximate == "none":
        return apply(&GELU, input, False)
    if approximate == "tanh":
        return apply(&GELU_TANH, input, False)
    raise RuntimeError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")


def silu(input, inplace=False):
    """`x sigmoid(x)`, also called swish (Elfwing et al. 2017)."""
    return apply(&SILU, input, inplace)


def softplus(input, double beta=1.0, double threshold=20.0):
    """`log(1 + exp(beta x)) / beta`, and `x` itself where `beta x > threshold`."""
    return apply(&SOFTPLUS, input, False, beta, threshold)


def elu(input, double alpha=1.0, inplace=False):
    """`x` where positive, else `alpha (exp(x) - 1)` (Clevert et al. 2015)."""
    return exponential(input, inplace, alpha, 1.0, 1.0)


def selu(input, inplace=False):
    """`scale * elu(x, alpha)` with the alpha and scale that keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    return exponential(input, inplace, 1.7580993408473766, 1.0507009873554805, 1.0)


def celu(input, double alpha=1.0, inplace=False):
    """`x` where positive, else `alpha (exp(x / alpha) - 1)` (Barron 2017). Raises `RuntimeError` for `alpha = 0`."""
    if alpha == 0:
        raise RuntimeError("alpha: expected a number other than 0, got 0")
    return exponential(input, inplace, alpha, 1.0, 1.0 / alpha)


cdef Tensor exponential(object input, bint inplace, double a, double b, double c):
    """`b x` where x is positive, else `a (exp(c x) - 1)`."""
    return apply(&ELU if a >= 0 and c > 0 else &ELU_INPUT, input, inplace, a, b, c)


def softsign(input):
    """`x / (1 + |x|)`; integers give floats."""
    return apply(&SOFTSIGN, as_float(input), False)


def logsigmoid(input):
    """`log(sigmoid(x)) = -log(1 + exp(-x))`."""
    return apply(&LOGSIGMOID, input, False)


def hardsigmoid(input, inplace=False):
    """`min(max(x + 3, 0), 6) / 6`."""
    return apply(&HARDSIGMOID, input, inplace)


def hardswish(input, inplace=False):
    """`x min(max(x + 3, 0), 6) / 6` (Howard et al. 2019)."""
    return apply(&HARDSWISH, input, inplace)


def mish(input, inplace=False):
    """`x tanh(log(1 + exp(x)))` (Misra 2019)."""
    return apply(&MISH, input, inplace)


def threshold(input, double threshold, double value, inplace=False):
    """`x` where it is above `threshold`, else `value`."""
    return apply(&THRESHOLD, input, inplace, threshold, value)


def hardshrink(input, double lambd=0.5):
    """`x` where `|x| > lambd`, else 0."""
    return apply(&HARDSHRINK, input, False, lambd)


def softshrink(input, double lambd=0.5):
    """`x` moved towards 0 by `lambd`, and 0 where it is nearer. Raises `RuntimeError` for a negative `lambd`."""
    if not lambd >= 0:
        raise RuntimeError(f"lambd: expected at least 0, got {lambd}")
    return apply(&SOFTSHRINK, input, False, lambd)
