"""Elements picked by index, mask or position, and elements put there.

All of them reduce to two steps on NumPy's index arrays: picking (`picked`; gradients of an element picked twice add up)
and putting (`put`; the gradient of a replaced element is zero).
"""
cimport numpy as np
from numpy cimport NPY_BOOL, ndarray

from bpcore.arith cimport MUL
from bpcore.arithmetic cimport binary
from bpcore.lines cimport add_rows, put_lines, take_lines, take_rows
from bpcore.memory cimport empty_like
from bpcore.operand cimport axis_of, broadcast_shapes, cast_tensor, is_real, new, shape_of, stretch, typed, unbroadcast
from bpcore.promotion cimport is_number
from bpcore.shape cimport reshaped
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, records2, wrap

import numpy

np.import_array()


# --- picking --------------------------------------------------------------------------------------------------------------

cdef class IndexNode(Node):
    """y = x[where]: dx[where] += dy"""
    cdef tuple shape

    cdef object backward(self, object dy):
        where, = self.saved
        cdef ndarray dx = new(self.shape, np.PyArray_TYPE(<ndarray> dy))
        np.PyArray_FILLWBYTE(dx, 0)
        if of_rows(where) and is_real(np.PyArray_TYPE(dx)):
            add_rows(dx, where[0], dy)
        else:
            add_at(dx, where, dy)
        return dx


cdef bint of_rows(tuple where):
    """Whether an index is one array of positions on the first axis."""
    cdef Py_ssize_t i
    if not (isinstance(where[0], ndarray) and where[0].dtype.kind != "b"):
        return False
    for i in range(1, len(where)):
        if not isinstance(where[i], slice) or where[i] != slice(None):
            return False
    return True


cdef int add_at(object target, tuple where, object values) except -1:
    """`target[where] += values`, also where a place occurs more than once."""
    for i in where:
        if isinstance(i, ndarray) and i.dtype.kind != "b":
            numpy.add.at(target, where, values)
            return 0
    target[where] += values
    return 0


cdef Tensor picked(Tensor x, tuple where):
    """`x[where]` for slices and arrays of integers and bools: a copy."""
    cdef Tensor out
    cdef IndexNode node
    if of_rows(where) and np.PyArray_IS_C_CONTIGUOUS(x.array):
        out = wrap(take_rows(x.array, where[0]))
    else:
        out = wrap(numpy.asarray((<object> x.array)[where]))
    if records(x):
        node = IndexNode.__new__(IndexNode)
        node.shape = shape_of(x.array)
        attach(out, node, (x,), (where,))
    return out


cdef ndarray positions(object index, str name):
    """An index tensor as an array of integers."""
    cdef Tensor i = as_tensor(index, name)
    if i.array.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: expected integers, got {i.array.dtype}")
    return i.array


cdef int in_range(ndarray index, Py_ssize_t n, str name) except -1:
    """Refuse positions outside [0, n)."""
    if np.PyArray_SIZE(index) and (index.min() < 0 or index.max() >= n):
        raise IndexError(f"{name}: expected positions in [0, {n - 1}], got {index.min()} to {index.max()}")
    return 0


cdef Tensor at_least_1d(Tensor x):
    return reshaped(x, (1,)) if np.PyArray_NDIM(x.array) == 0 else x


cdef tuple along(int axis, object index):
    return (slice(None),) * axis + (index,)


cdef tuple grid(ndarray index, int axis):
    """The index arrays of `x[i][j][index[i, j, k]]…`: positions along `axis`, each element's own place along the others."""
    cdef int ndim = np.PyArray_NDIM(index), i
    cdef list where = []
    for i in range(ndim):
        if i == axis:
            where.append(index)
        else:
            where.append(numpy.arange(np.PyArray_DIM(index, i)).reshape((-1,) + (1,) * (ndim - 1 - i)))
    return tuple(where)


cdef class LinesNode(Node):
    """y[o, k, j] = x[o, index[o, k, j], j]: dx there += dy"""
    cdef tuple shape
    cdef int axis

    cdef object backward(self, object dy):
        index, = self.saved
        cdef ndarray dx = new(self.shape, np.PyArray_TYPE(<ndarray> dy))
        np.PyArray_FILLWBYTE(dx, 0)
        if is_real(np.PyArray_TYPE(dx)):
            put_lines(dx, index, dy, self.axis, True)
        else:
            numpy.add.at(dx, grid(index, self.axis), dy)
        return dx


cdef Tensor along_lines(Tensor x, ndarray index, int axis):
    """`take_along_axis`, recorded; sizes agree apart from the axis."""
    cdef Tensor out = wrap(take_lines(x.array, index, axis))
    cdef LinesNode node
    if records(x):
        node = LinesNode.__new__(LinesNode)
        node.shape = shape_of(x.array)
        node.axis = axis
        attach(out, node, (x,), (index,))
    return out


def index_select(input, dim, index):
    """The slices at the positions `index` (a vector) along `dim`."""
    cdef Tensor x = as_tensor(input, "input"), whole = at_least_1d(x), out
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef ndarray i = positions(index, "index")
    if np.PyArray_NDIM(i) > 1:
        raise IndexError(f"index: expected a vector, got shape {shape_of(i)}")
    i = i.reshape(-1)
    in_range(i, np.PyArray_DIM(whole.array, axis), "index")
    out = picked(whole, along(axis, i))
    return out if np.PyArray_NDIM(x.array) else reshaped(out, ())


def gather(input, dim, index, *, sparse_grad=False):
    """`out[i][j][k] = input[index[i][j][k]][j][k]` for `dim` 0, likewise for others; of the shape of `index`."""
    cdef Tensor x = as_tensor(input, "input"), whole = at_least_1d(x)
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef ndarray i = positions(index, "index")
    cdef tuple shape = shape_of(i)
    cdef int d
    fits(whole, i, axis, "gather")
    if np.PyArray_SIZE(i) == 0 and len(shape) != np.PyArray_NDIM(whole.array):
        return picked(reshaped(whole, (np.PyArray_SIZE(whole.array),)), (numpy.zeros(shape, numpy.int64),))
    i = numpy.atleast_1d(i)
    for d in range(np.PyArray_NDIM(i)):
        if d != axis and np.PyArray_DIM(i, d) != np.PyArray_DIM(whole.array, d):
            break
    else:
        return reshaped(along_lines(whole, i, axis), shape)
    return reshaped(picked(whole, grid(i, axis)), shape)


cdef int fits(Tensor x, ndarray index, int axis, str name) except -1:
    """Check an index tensor against what it indexes."""
    cdef int d, ndim = np.PyArray_NDIM(index) if np.PyArray_NDIM(index) else 1
    if ndim != np.PyArray_NDIM(x.array) and np.PyArray_SIZE(index):
        raise RuntimeError(f"{name}: index has {ndim} axes, expected {np.PyArray_NDIM(x.array)}")
    for d in range(np.PyArray_NDIM(index)):
        if d != axis and np.PyArray_SIZE(index) and np.PyArray_DIM(index, d) > np.PyArray_DIM(x.array, d):
            raise RuntimeError(
                f"{name}: index of shape {shape_of(index)} does not fit {shape_of(x.array)} apart from axis {axis}"
            )
    in_range(index, np.PyArray_DIM(x.array, axis), name)
    return 0


def take(input, index):
    """The elements at the positions `index` of the flattened tensor."""
    cdef Tensor x = as_tensor(input, "input")
    cdef ndarray i = positions(index, "index")
    if np.PyArray_SIZE(i) and np.PyArray_SIZE(x.array) == 0:
        raise IndexError("take: the tensor is empty")
    return picked(reshaped(x, (np.PyArray_SIZE(x.array),)), (i,))


def take_along_dim(input, indices, dim=None):
    """`gather` whose other axes broadcast; without `dim`, of the flattened tensors."""
    cdef Tensor x = as_tensor(input, "input")
    cdef ndarray i = positions(indices, "indices")
    cdef int axis
    cdef tuple rest
    if dim is None:
        return picked(reshaped(x, (np.PyArray_SIZE(x.array),)), (i.reshape(-1),))
    axis = axis_of(dim, np.PyArray_NDIM(x.array))
    if np.PyArray_NDIM(i) != np.PyArray_NDIM(x.array):
        raise RuntimeError(f"indices: expected {np.PyArray_NDIM(x.array)} axes, got shape {shape_of(i)}")
    sizes = list(shape_of(x.array))
    n, sizes[axis] = sizes[axis], 1
    places = list(shape_of(i))
    m, places[axis] = places[axis], 1
    rest = broadcast_shapes([tuple(sizes), tuple(places)])
    x = stretch(x, rest[:axis] + (n,) + rest[axis + 1:])
    i = numpy.broadcast_to(i, rest[:axis] + (m,) + rest[axis + 1:])
    return picked(x, grid(i, axis))


cdef tuple mask_and(object input, object mask):
    """A tensor and a mask broadcast to one shape."""
    cdef Tensor x = as_tensor(input, "input"), m = as_tensor(mask, "mask")
    if np.PyArray_TYPE(m.array) != NPY_BOOL:
        raise RuntimeError(f"mask: expected bools, got {m.array.dtype}")
    cdef tuple shape = broadcast_shapes([shape_of(x.array), shape_of(m.array)])
    return stretch(x, shape), numpy.broadcast_to(m.array, shape)


def masked_select(input, mask):
    """The elements where `mask` is true, as a vector."""
    x, m = mask_and(input, mask)
    return picked(at_least_1d(x), (numpy.atleast_1d(m),))


def nonzero(input, *, as_tuple=False):
    """Where the elements are not zero: a matrix of one row for each, or with `as_tuple` one vector for each axis."""
    cdef Tensor x = as_tensor(input, "input")
    found = numpy.atleast_1d(x.array).nonzero()
    if as_tuple:
        return tuple([wrap(i) for i in found])
    rows = numpy.stack(found, axis=1)
    return wrap(rows if np.PyArray_NDIM(x.array) else rows[:, :0])


def argwhere(input):
    """`nonzero` as a matrix."""
    return nonzero(input)


# --- putting --------------------------------------------------------------------------------------------------------------

cdef class PutNode(Node):
    """y = x, with y[where] = v or += v: dx = dy (0 where replaced), dv = dy[where]"""
    cdef bint accumulate
    cdef tuple value_shape

    cdef object backward(self, object dy):
        where, = self.saved
        dx = dv = None
        if self.needs(0):
            dx = dy
            if not self.accumulate:
                dx = dy.copy()
                dx[where] = 0
        if self.needs(1):
            dv = unbroadcast(numpy.asarray(dy[where]), self.value_shape)
        return dx, dv


cdef Tensor put(Tensor x, tuple where, Tensor v, bint accumulate):
    """A copy of `x` with `v`, which broadcasts, put or added at `where`."""
    cdef ndarray y = empty_like(x.array)
    cdef Tensor out = wrap(y)
    cdef PutNode node
    np.PyArray_CopyInto(y, x.array)
    if accumulate:
        add_at(y, where, v.array)
    else:
        (<object> y)[where] = v.array
    if records2(x, v):
        node = PutNode.__new__(PutNode)
        node.accumulate = accumulate
        node.value_shape = shape_of(v.array)
        attach(out, node, (x, v), (where,))
    return out


cdef Tensor value_like(object value, Tensor x, str name):
    """A number or a tensor of the dtype of `x`."""
    cdef Tensor v
    if is_number(value):
        return typed(value, np.PyArray_TYPE(x.array), name)
    v = as_tensor(value, name)
    if np.PyArray_NDIM(v.array) and np.PyArray_TYPE(v.array) != np.PyArray_TYPE(x.array):
        raise RuntimeError(f"{name}: expected dtype {x.array.dtype}, got {v.array.dtype}")
    return cast_tensor(v, np.PyArray_TYPE(x.array))


def masked_fill(input, mask, value):
    """`value`, a number or a 0-dim tensor, where `mask` is true, else `input`."""
    cdef Tensor x, v = value_like(value, as_tensor(input, "input"), "value")
    if np.PyArray_NDIM(v.array):
        raise RuntimeError(f"value: expected a number or a 0-dim tensor, got shape {shape_of(v.array)}")
    x, m = mask_and(input, mask)
    return put(x, (m,), v, False)


def masked_scatter(input, mask, source):
    """The elements of `source`, in order, where `mask` is true, else `input`."""
    cdef Tensor x, v = value_like(source, as_tensor(input, "input"), "source")
    x, m = mask_and(input, mask)
    count = numpy.count_nonzero(m)
    if np.PyArray_SIZE(v.array) < count:
        raise RuntimeError(f"source: expected at least {count} elements, got {np.PyArray_SIZE(v.array)}")
    v = picked(reshaped(v, (np.PyArray_SIZE(v.array),)), (slice(0, count),))
    return put(x, (m,), v, False)


cdef Tensor scattered(object input, object dim, object index, object src, str reduce):
    cdef Tensor x = as_tensor(input, "input"), whole = at_least_1d(x), v, out
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array)), d
    cdef ndarray i = numpy.atleast_1d(positions(index, "index"))
    cdef tuple where
    fits(whole, i, axis, "scatter")
    where = grid(i, axis)
    v = value_like(src, x, "src")
    if not is_number(src) and (np.PyArray_NDIM(v.array) or np.PyArray_NDIM(positions(index, "index")) == 0):
        v = at_least_1d(v)
        if np.PyArray_NDIM(v.array) != np.PyArray_NDIM(i):
            raise RuntimeError(f"src: expected {np.PyArray_NDIM(i)} axes, got shape {shape_of(v.array)}")
        for d in range(np.PyArray_NDIM(i)):
            if np.PyArray_DIM(v.array, d) < np.PyArray_DIM(i, d):
                raise RuntimeError(f"src: shape {shape_of(v.array)} is smaller than that of the index, {shape_of(i)}")
        corner = tuple([slice(0, n) for n in shape_of(i)])
        if shape_of(v.array) != shape_of(i):
            v = picked(v, corner)
    if reduce == "multiply":
        if records2(x, v):
            raise RuntimeError("scatter: reduce='multiply' has no gradient")
        y = whole.array.copy()
        numpy.multiply.at(y, where, v.array)
        out = wrap(y)
    else:
        out = put(whole, where, v, reduce == "add")
    return out if np.PyArray_NDIM(x.array) else reshaped(out, ())


def scatter(input, dim, index, src=None, *, value=None, reduce=None):
    """`out[index[i][j][k]][j][k] = src[i][j][k]` for `dim` 0, likewise for others; `src` is a tensor or a number. With `reduce`
    "add" or "multiply" the elements there are added to or multiplied. One of several values for a place wins."""
    if reduce is not None and reduce != "add" and reduce != "multiply":
        raise RuntimeError(f"reduce: expected None, 'add' or 'multiply', got {reduce!r}")
    return scattered(input, dim, index, value if src is None else src, reduce or "")


def scatter_add(input, dim, index, src):
    """`out[index[i][j][k]][j][k] += src[i][j][k]` for `dim` 0, likewise for others."""
    return scattered(input, dim, index, src, "add")


cdef Tensor along_axis(object input, object dim, object index, object source, bint accumulate, bint filling, object alpha):
    """Slices put or added at the positions `index` (a vector) along `dim`."""
    cdef Tensor x = as_tensor(input, "input"), whole = at_least_1d(x), v = value_like(source, x, "source"), out
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef ndarray i = positions(index, "index")
    if np.PyArray_NDIM(i) > 1:
        raise IndexError(f"index: expected a vector, got shape {shape_of(i)}")
    i = i.reshape(-1)
    i = numpy.where(i < 0, i + np.PyArray_DIM(whole.array, axis), i) if filling else i
    in_range(i, np.PyArray_DIM(whole.array, axis), "index")
    if filling:
        i = numpy.unique(i)                      # a place named twice is filled once
    else:
        place = list(shape_of(whole.array))
        place[axis] = np.PyArray_SIZE(i)
        if np.PyArray_SIZE(v.array) != numpy.prod(place, dtype=int):
            raise RuntimeError(f"source: expected shape {tuple(place)}, got {shape_of(v.array)}")
        v = reshaped(v, tuple(place))
    if alpha != 1:
        v = binary(MUL, v, alpha)
    out = put(whole, along(axis, i), v, accumulate)
    return out if np.PyArray_NDIM(x.array) else reshaped(out, ())


def index_add(input, dim, index, source, *, alpha=1):
    """`alpha * source` added to the slices at the positions `index` along `dim`."""
    return along_axis(input, dim, index, source, True, False, alpha)


def index_copy(input, dim, index, source):
    """The slices of `source` at the positions `index` along `dim`."""
    return along_axis(input, dim, index, source, False, False, 1)


def index_fill(input, dim, index, value):
    """`value`, a number or a 0-dim tensor, at the positions `index` along `dim`."""
    return along_axis(input, dim, index, value, False, True, 1)


def index_put(input, indices, values, accumulate=False):
    """A copy with `values` put, or added, at `input[indices]`; `indices` is a tuple of integer and bool tensors."""
    cdef Tensor x = as_tensor(input, "input"), v = value_like(values, x, "values")
    where = tuple([slice(None) if i is None else as_tensor(i, "indices").array for i in indices])
    return put(x, where, v, accumulate)
