# What a recurrent layer is given: see recurrent_layer.pyx.
cimport numpy as np
from numpy cimport ndarray

from bpcore.tensor cimport Tensor
from bpcore.timesteps cimport GRU, LSTM, Steps

cdef enum:
    PER_DIRECTION = 5               # parameters: w_ih, w_hh, b_ih, b_hh, w_hr
    PAD = 16                        # numbers behind each row of dz: rows whole pages apart would share few places in the cache


cdef class Layer:
    cdef int kind, typenum, itemsize, D
    cdef Py_ssize_t T, B, K, H, P, W, N
    cdef bint projected
    cdef ndarray plan               # T numbers of sequences, one for each step, and then the T + 1 first rows of the steps
    cdef tuple shape                # of the input
    cdef Tensor x, h0, c0           # dropped, with the parameters, when forward is done
    cdef list parameters            # for each direction: W, U, b_ih, b_hh, projection; None where there is none

    cdef void read(self, int kind, object input, object h0, object c0, object weights, object batch_sizes) except *
    cdef Steps steps(self, int d)
    cdef Py_ssize_t calm(self, double factor)


cdef ndarray raw(Py_ssize_t size)
cdef ndarray rows_of(ndarray a, Py_ssize_t rows)
cdef ndarray copy_of(object given, tuple shape, int typenum)
cdef ndarray biases(Layer layer, tuple parameters)


cdef inline int gates_of(int kind) noexcept:
    """Gates in the weights."""
    return 4 if kind == LSTM else 3 if kind == GRU else 1


cdef inline char *data(ndarray a) noexcept:
    return NULL if a is None else <char *> np.PyArray_DATA(a)
