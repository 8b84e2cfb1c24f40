# Elementwise functions on arrays and pointers, for other operators (linear fuses them) and other packages.
from numpy cimport ndarray

from bpcore.simd cimport map_backward_f32, map_backward_f64, map_f32, map_f64


ctypedef struct Map:
    const char *name              # "Relu", for the node's name
    map_f32 f32
    map_f64 f64
    map_backward_f32 backward_f32
    map_backward_f64 backward_f64
    bint from_output              # backward reads the output y, not the input x
    double cost                   # nanoseconds an element of float32

cdef Map EXP, LOG, LOG1P, ERF, SIGMOID, TANH
cdef Map RELU, LEAKY_RELU, GELU, GELU_TANH, SILU, SOFTPLUS, HARDTANH, ELU

# y = f(x) for a contiguous float32 or float64 array; `p` are the function's parameters (three, or NULL).
cdef ndarray map_forward(const Map *f, ndarray x, const double *p)
# dx = dy f'(saved); any layout.
cdef ndarray map_backward(const Map *f, ndarray dy, ndarray saved, const double *p)

# The function of this name that a product may apply to its result ("relu" …), NULL for None; ValueError for any other.
cdef const Map *epilogue_map(object activation) except? NULL
