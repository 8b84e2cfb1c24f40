# What operators do with their operands before and after computing: types, shapes, axes, quiet NumPy calls.
cimport numpy as np
from numpy cimport ndarray, npy_intp

from bpcore.sums cimport axes_mask
from bpcore.tensor cimport Node, Tensor

cdef enum:
    MAX_DIMS = 64


cdef class ExpandNode(Node):
    cdef tuple shape               # before


cdef object quiet_begin()
cdef int quiet_end(object token) except -1
cdef ndarray map1(object ufunc, ndarray x)
cdef ndarray map2(object ufunc, ndarray a, ndarray b, ndarray out=*)
cdef ndarray map_to(object ufunc, tuple arrays, int typenum)

cdef Tensor typed(object value, int typenum, str name)
cdef ndarray cast(ndarray a, int typenum)
cdef Tensor cast_tensor(Tensor t, int typenum)

cdef tuple broadcast_shapes(list shapes)
cdef tuple common_shape(tuple tensors)
cdef Tensor stretch(Tensor t, tuple shape)
cdef tuple alike(Tensor a, Tensor b)
cdef tuple matched(tuple values, str name)
cdef ndarray unbroadcast(ndarray grad, tuple shape)
cdef ndarray broadcast(ndarray a, tuple shape)
cdef ndarray strided(ndarray a, int ndim, const npy_intp *dims, const npy_intp *strides, Py_ssize_t offset)

cdef int axis_of(object dim, int ndim) except -1
cdef axes_mask mask_of(object dims, int ndim) except? 0
cdef tuple axes_of(object dims, int ndim)
cdef ndarray new(tuple shape, int typenum)
cdef tuple kept(tuple shape, tuple axes)


cdef inline tuple shape_of(ndarray a):
    return <tuple> (<object> a).shape


cdef inline bint same_shape(ndarray a, ndarray b) noexcept:
    cdef int i, ndim = np.PyArray_NDIM(a)
    if ndim != np.PyArray_NDIM(b):
        return False
    for i in range(ndim):
        if np.PyArray_DIM(a, i) != np.PyArray_DIM(b, i):
            return False
    return True


cdef inline bint is_real(int typenum) noexcept nogil:
    """float32 or float64: what own kernels exist for."""
    return typenum == np.NPY_FLOAT or typenum == np.NPY_DOUBLE
