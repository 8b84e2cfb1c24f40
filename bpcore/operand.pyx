"""What operators do with their operands: common types and shapes, axes, and NumPy calls that neither warn nor allocate.

An operator of several tensors first makes them alike (`matched`): casts and broadcasts are recorded as steps of their own,
so that every node deals with one dtype and one shape, and the sum over broadcast axes is written once (`unbroadcast`).
"""
cimport numpy as np
from numpy cimport ndarray, npy_intp

from bpcore.memory cimport empty
from bpcore.promotion cimport category, is_number, promoted
from bpcore.sums cimport axes_in, axes_mask, sum_over
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, view_of, wrap

import contextvars

import numpy

from bpcore.dtypes import to_dtype

np.import_array()


cdef extern from "Python.h":
    object PyContextVar_Set(object var, object value)
    int PyContextVar_Reset(object var, object token) except -1

cdef extern from *:
    """
    static PyObject *bp_view(PyArrayObject *a, int ndim, const npy_intp *dims, const npy_intp *strides, Py_ssize_t offset) {
        PyArray_Descr *descr = PyArray_DESCR(a);
        PyObject *view;
        Py_INCREF(descr);
        view = PyArray_NewFromDescr(&PyArray_Type, descr, ndim, dims, strides, (char *)PyArray_DATA(a) + offset,
                                    PyArray_FLAGS(a) & NPY_ARRAY_WRITEABLE, NULL);
        if (!view) return NULL;
        Py_INCREF(a);
        if (PyArray_SetBaseObject((PyArrayObject *)view, (PyObject *)a) < 0) { Py_DECREF(view); return NULL; }
        return view;
    }
    """
    ndarray bp_view(ndarray a, int ndim, const npy_intp *dims, const npy_intp *strides, Py_ssize_t offset)


# --- NumPy calls ----------------------------------------------------------------------------------------------------------
# Division by zero, overflow and invalid values are results (inf, nan), not warnings. numpy.errstate says so at 1.7
# microseconds a call; setting the context variable behind it costs 0.2, where this NumPy has one.

cdef object errors_var = None, errors_quiet = None
with numpy.errstate(all="ignore"):
    for _var, _value in contextvars.copy_context().items():
        if _var.name == "numpy.ufunc.extobj":
            errors_var, errors_quiet = _var, _value


cdef object quiet_begin():
    """Make NumPy silent about floating-point errors; returns what `quiet_end` wants."""
    if errors_var is not None:
        return PyContextVar_Set(errors_var, errors_quiet)
    state = numpy.errstate(all="ignore")
    state.__enter__()
    return state


cdef int quiet_end(object token) except -1:
    if errors_var is not None:
        return PyContextVar_Reset(errors_var, token)
    token.__exit__(None, None, None)
    return 0


class quiet:
    """Context manager: NumPy is silent about floating-point errors inside."""

    def __enter__(self):
        self.token = quiet_begin()

    def __exit__(self, *_):
        quiet_end(self.token)


cdef ndarray map1(object ufunc, ndarray x):
    """`ufunc(x)` into a pooled array of the same type."""
    cdef ndarray y = empty(np.PyArray_NDIM(x), np.PyArray_DIMS(x), np.PyArray_TYPE(x))
    token = quiet_begin()
    try:
        ufunc(x, y)
    finally:
        quiet_end(token)
    return y


cdef ndarray map2(object ufunc, ndarray a, ndarray b, ndarray out=None):
    """`ufunc(a, b)`, alike in shape and type, into `out` or a pooled array of that type."""
    cdef ndarray y = out if out is not None else empty(np.PyArray_NDIM(a), np.PyArray_DIMS(a), np.PyArray_TYPE(a))
    token = quiet_begin()
    try:
        ufunc(a, b, out=y)
    finally:
        quiet_end(token)
    return y


cdef ndarray map_to(object ufunc, tuple arrays, int typenum):
    """`ufunc(*arrays)`, broadcast, into a pooled array of type `typenum`."""
    cdef list shapes = [shape_of(<ndarray> a) for a in arrays]
    cdef ndarray y = new(broadcast_shapes(shapes), typenum)
    token = quiet_begin()
    try:
        ufunc(*arrays, out=y)
    finally:
        quiet_end(token)
    return y


cdef ndarray new(tuple shape, int typenum):
    """An uninitialised pooled array."""
    cdef npy_intp dims[MAX_DIMS]
    cdef int i
    for i in range(len(shape)):
        dims[i] = shape[i]
    return empty(len(shape), dims, typenum)


# --- types ----------------------------------------------------------------------------------------------------------------

cdef ndarray cast(ndarray a, int typenum):
    """`a` itself where it has the type, else a converted copy."""
    if np.PyArray_TYPE(a) == typenum:
        return a
    cdef ndarray y = empty(np.PyArray_NDIM(a), np.PyArray_DIMS(a), typenum)
    token = quiet_begin()
    try:
        numpy.copyto(y, a, "unsafe")
    finally:
        quiet_end(token)
    return y


cdef class ToNode(Node):
    cdef int typenum

    cdef object backward(self, object dy):
        return cast(<ndarray> dy, self.typenum)


cdef Tensor cast_tensor(Tensor t, int typenum):
    """`t` in type `typenum`; itself where it has the type."""
    if np.PyArray_TYPE(t.array) == typenum:
        return t
    cdef Tensor out = wrap(cast(t.array, typenum))
    cdef ToNode node
    if records(t) and category(typenum) >= 2:
        if category(typenum) == 3:
            raise RuntimeError("a tensor that requires grad cannot become complex: complex gradients are not available")
        node = ToNode.__new__(ToNode)
        node.typenum = np.PyArray_TYPE(t.array)
        attach(out, node, (t,), None)
    return out


def to_type(input, dtype):
    """`input` as another dtype; itself where it has it."""
    cdef Tensor x = as_tensor(input, "input")
    dtype = to_dtype(dtype)
    return x if x.array.dtype == dtype else cast_tensor(x, dtype.num)


cdef Tensor typed(object value, int typenum, str name):
    """A tensor or number as a tensor of type `typenum`."""
    if is_number(value):
        if isinstance(value, (complex, numpy.complexfloating)) and category(typenum) < 3:
            raise RuntimeError(f"{name}: a complex number does not fit {np.PyArray_DescrFromType(typenum)}")
        return wrap(numpy.asarray(value).astype(np.PyArray_DescrFromType(typenum)))
    return cast_tensor(as_tensor(value, name), typenum)


# --- shapes ---------------------------------------------------------------------------------------------------------------

cdef ndarray strided(ndarray a, int ndim, const npy_intp *dims, const npy_intp *strides, Py_ssize_t offset):
    """A view of `a`'s memory with other sizes and strides (bytes), `offset` bytes from its first element."""
    return bp_view(a, ndim, dims, strides, offset)


cdef ndarray broadcast(ndarray a, tuple shape):
    """A read-only view of `a` as `shape`, which it must broadcast to."""
    cdef npy_intp dims[MAX_DIMS]
    cdef int i
    for i in range(len(shape)):
        dims[i] = shape[i]
    return broadcast_dims(a, len(shape), dims)


cdef ndarray broadcast_dims(ndarray a, int ndim, const npy_intp *dims):
    cdef npy_intp strides[MAX_DIMS]
    cdef int i, lead = ndim - np.PyArray_NDIM(a)
    if lead < 0:
        raise RuntimeError(f"shape {shape_of(a)} does not broadcast to {tuple([dims[j] for j in range(ndim)])}")
    for i in range(ndim):
        strides[i] = 0
        if i >= lead and np.PyArray_DIM(a, i - lead) == dims[i]:
            strides[i] = np.PyArray_STRIDE(a, i - lead)
        elif i >= lead and np.PyArray_DIM(a, i - lead) != 1:
            raise RuntimeError(f"shape {shape_of(a)} does not broadcast to {tuple([dims[j] for j in range(ndim)])}")
    cdef ndarray view = strided(a, ndim, dims, strides, 0)
    np.PyArray_CLEARFLAGS(view, np.NPY_ARRAY_WRITEABLE)
    return view


cdef tuple broadcast_shapes(list shapes):
    """The shape that all shapes broadcast to."""
    cdef int ndim = max([len(s) for s in shapes]), i, at
    cdef list result = [1] * ndim
    for shape in shapes:
        for i in range(len(shape)):
            at = ndim - len(shape) + i
            if result[at] == 1:
                result[at] = shape[i]
            elif shape[i] != 1 and shape[i] != result[at]:
                raise RuntimeError(
                    f"shapes {', '.join([str(s) for s in shapes])} do not broadcast: sizes {result[at]} and {shape[i]} "
                    f"at axis {at} of {ndim}"
                )
    return tuple(result)


cdef tuple common_shape(tuple tensors):
    """The shape that all tensors broadcast to."""
    return broadcast_shapes([shape_of((<Tensor> t).array) for t in tensors])


cdef ndarray unbroadcast(ndarray grad, tuple shape):
    """The gradient of something of shape `shape` that was broadcast to the shape of `grad`: its sum over the new axes."""
    cdef int i, ndim = np.PyArray_NDIM(grad), lead = ndim - len(shape)
    cdef axes_mask mask = (<axes_mask> 1 << lead) - 1
    for i in range(lead, ndim):
        if <Py_ssize_t> shape[i - lead] == 1 and np.PyArray_DIM(grad, i) != 1:
            mask |= <axes_mask> 1 << i
    if mask == 0:
        return grad
    cdef ndarray total = sum_over(grad, mask, True)
    return (<object> total).reshape(shape) if lead else total


cdef class ExpandNode(Node):
    """Repeated elements: the gradients of the repetitions add up."""

    cdef object backward(self, object dy):
        return unbroadcast(<ndarray> dy, self.shape)


cdef Tensor stretch(Tensor t, tuple shape):
    """A view of `t` broadcast to `shape`; itself where it has the shape."""
    if shape_of(t.array) == shape:
        return t
    return stretched(t, broadcast(t.array, shape))


cdef Tensor stretched(Tensor t, ndarray view):
    cdef Tensor out = view_of(t, view)
    cdef ExpandNode node
    if records(t):
        node = ExpandNode.__new__(ExpandNode)
        node.shape = shape_of(t.array)
        attach(out, node, (t,), None)
    return out


cdef tuple alike(Tensor a, Tensor b):
    """Two tensors of one type as tensors of one shape."""
    cdef npy_intp dims[MAX_DIMS]
    cdef int na = np.PyArray_NDIM(a.array), nb = np.PyArray_NDIM(b.array), ndim = max(na, nb), i
    cdef npy_intp n, m
    cdef bint keep_a = na == ndim, keep_b = nb == ndim
    for i in range(1, ndim + 1):
        n = np.PyArray_DIM(a.array, na - i) if i <= na else 1
        m = np.PyArray_DIM(b.array, nb - i) if i <= nb else 1
        if n != m:
            if n == 1:
                keep_a = False
                n = m
            elif m == 1:
                keep_b = False
            else:
                common_shape((a, b))               # raises
        dims[ndim - i] = n
    if not keep_a:
        a = stretched(a, broadcast_dims(a.array, ndim, dims))
    if not keep_b:
        b = stretched(b, broadcast_dims(b.array, ndim, dims))
    return a, b


cdef tuple matched(tuple values, str name):
    """Tensors and numbers as tensors of one type and one shape. `name` lists the arguments' names for errors."""
    cdef list names = name.split()
    cdef list items = [
        value if is_number(value) else as_tensor(value, names[i]) for i, value in enumerate(values)
    ]
    cdef int typenum = promoted(tuple(items))
    cdef tuple tensors = tuple([typed(value, typenum, names[i]) for i, value in enumerate(items)])
    cdef tuple shape = common_shape(tensors)
    return tuple([stretch(<Tensor> t, shape) for t in tensors])


# --- axes -----------------------------------------------------------------------------------------------------------------

cdef int axis_of(object dim, int ndim) except -1:
    """`dim` as 0..ndim-1; a 0-dim tensor takes 0 and -1. Raises `IndexError` outside."""
    cdef Py_ssize_t d
    try:
        d = dim
    except TypeError:
        raise TypeError(f"dim: expected an integer, got {type(dim).__name__}") from None
    cdef int n = ndim if ndim else 1
    if not -n <= d < n:
        raise IndexError(f"dim: expected to be in [{-n}, {n - 1}], got {d}")
    return <int> (d + n if d < 0 else d)


cdef axes_mask mask_of(object dims, int ndim) except? 0:
    """The axes that a reduction runs over, as bits: all for None and ()."""
    cdef axes_mask mask = 0, bit
    if dims is None:
        return (<axes_mask> 1 << ndim) - 1
    if isinstance(dims, (tuple, list)):
        if not dims:
            return (<axes_mask> 1 << ndim) - 1
        for d in dims:
            bit = <axes_mask> 1 << axis_of(d, ndim)
            if mask & bit:
                raise RuntimeError(f"dim: {tuple(dims)} names an axis twice")
            mask |= bit
    else:
        mask = <axes_mask> 1 << axis_of(dims, ndim)
    return mask if ndim else 0


cdef tuple axes_of(object dims, int ndim):
    """The axes that a reduction runs over, ascending: all for None and ()."""
    return axes_in(mask_of(dims, ndim))


cdef tuple kept(tuple shape, tuple axes):
    """`shape` with size 1 at `axes`."""
    return tuple([1 if i in axes else n for i, n in enumerate(shape)])
