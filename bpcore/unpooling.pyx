"""The reverse of max pooling: each maximum put back where it was found, zeros elsewhere."""
cimport cython
cimport numpy as np
from numpy cimport NPY_INT64

from bpcore.memory cimport contiguous
from bpcore.operand cimport new, same_shape, shape_of
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap
from bpcore.windows cimport numbers, planes_of

import math

import numpy

np.import_array()


@cython.final
cdef class MaxUnpoolNode(Node):
    """y[index] = x in each plane: dx = dy[index]"""
    cdef Py_ssize_t planes, most, each         # how many planes, of how many elements, of which how many are put back

    cdef object backward(self, object dy):
        where, = self.saved
        dx = numpy.take_along_axis(contiguous(dy).reshape(self.planes, self.most), where.reshape(self.planes, self.each), 1)
        return dx.reshape(where.shape)


cdef tuple size_after(tuple size, int axes, object kernel_size, object stride, object padding, object output_size):
    """The sizes that max pooling of such windows could have started from."""
    cdef Py_ssize_t[3] k, s, p
    cdef list default = []
    cdef int a
    numbers(kernel_size, axes, "kernel_size", k)
    numbers(kernel_size if stride is None or stride == [] or stride == () else stride, axes, "stride", s)
    numbers(padding, axes, "padding", p)
    for a in range(axes):
        default.append((size[a] - 1) * s[3 - axes + a] + k[3 - axes + a] - 2 * p[3 - axes + a])
    if output_size is None:
        return tuple(default)
    outs = tuple(output_size)[-axes:]
    if len(output_size) not in (axes, axes + 1, axes + 2):
        raise ValueError(f"output_size: expected {axes} numbers, got {tuple(output_size)}")
    for a in range(axes):
        if not default[a] - s[3 - axes + a] < outs[a] < default[a] + s[3 - axes + a]:
            raise ValueError(f"output_size: expected less than the stride away from {tuple(default)}, got {outs}")
    return tuple([int(n) for n in outs])


cdef Tensor unpool(object input, object indices, int axes, object kernel_size, object stride, object padding, object output_size,
                   str name):
    cdef Tensor x = planes_of(input, axes, name), i = as_tensor(indices, "indices"), out
    cdef MaxUnpoolNode node
    cdef tuple shape = shape_of(x.array), lead, size
    if np.PyArray_TYPE(i.array) != NPY_INT64 or not same_shape(i.array, x.array):
        raise RuntimeError(f"indices: expected int64 of the input's shape {shape}, got {i.array.dtype} of {shape_of(i.array)}")
    lead = shape[:len(shape) - axes]
    size = size_after(shape[len(shape) - axes:], axes, kernel_size, stride, padding, output_size)
    planes, most, each = math.prod(lead), math.prod(size), math.prod(shape[len(lead):])
    where = i.array.copy()
    if where.size and not (0 <= where.min() and where.max() < most):
        raise RuntimeError(f"indices: expected places within planes of {size}, got {where.min()} to {where.max()}")
    y = new((planes, most), np.PyArray_TYPE(x.array))
    y[...] = 0
    numpy.put_along_axis(y, where.reshape(planes, each), x.array.reshape(planes, each), 1)
    out = wrap(y.reshape(lead + size))
    if records(x):
        node = MaxUnpoolNode.__new__(MaxUnpoolNode)
        node.planes, node.most, node.each = planes, most, each
        attach(out, node, (x,), (where,))
    return out


def max_unpool1d(input, indices, kernel_size, stride=None, padding=0, output_size=None):
    """(N, C, L) put back to where `max_pool1d` found it; `output_size` chooses among the sizes that it could have started from."""
    return unpool(input, indices, 1, kernel_size, stride, padding, output_size, "max_unpool1d")


def max_unpool2d(input, indices, kernel_size, stride=None, padding=0, output_size=None):
    """(N, C, H, W) put back to where `max_pool2d` found it; `output_size` chooses among the sizes that it could have started
    from."""
    return unpool(input, indices, 2, kernel_size, stride, padding, output_size, "max_unpool2d")


def max_unpool3d(input, indices, kernel_size, stride=None, padding=0, output_size=None):
    """(N, C, D, H, W) put back to where `max_pool3d` found it; `output_size` chooses among the sizes that it could have started
    from."""
    return unpool(input, indices, 3, kernel_size, stride, padding, output_size, "max_unpool3d")
