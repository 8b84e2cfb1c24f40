"""Elements picked by index, mask or position, and elements put there."""
cimport numpy as np
from numpy cimport ndarray

from bpcore.tensor cimport Tensor, as_tensor, wrap

import numpy

np.import_array()


def nonzero(input, *, as_tuple=False):
    """Where the elements are not zero: a matrix of one row for each, or with `as_tuple` one vector for each axis."""
    cdef Tensor x = as_tensor(input, "input")
    found = numpy.atleast_1d(x.array).nonzero()
    if as_tuple:
        return tuple([wrap(i) for i in found])
    stacked = numpy.stack(found, axis=1)
    return wrap(stacked if np.PyArray_NDIM(x.array) else stacked[:, :0])
