# Arithmetic on arrays, for the backward passes of other families too.
from numpy cimport ndarray

# The codes are those of kernels/arith.h; a reversed one is 4 more.
cdef enum:
    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    RSUB = 5
    RDIV = 7

cdef ndarray arith(int op, ndarray a, ndarray b, ndarray out=*)
cdef ndarray arith_number(int op, ndarray a, object number, ndarray out=*)
