"""Other shapes of the same elements. Where memory allows the result is a view: it shares memory and version with its input."""
cimport numpy as np
from numpy cimport ndarray, npy_intp

from bpcore.memory cimport empty_like
from bpcore.operand cimport MAX_DIMS, ExpandNode, axes_of, axis_of, broadcast, new, shape_of, strided
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, view_of, wrap

import numpy

from bpcore.dtypes import to_dtype

np.import_array()


# --- nodes ----------------------------------------------------------------------------------------------------------------

cdef class ReshapeNode(Node):
    """The same elements in the same order."""
    cdef tuple shape

    cdef object backward(self, object dy):
        return dy.reshape(self.shape)


cdef class PermuteNode(Node):
    """The axes in another order; `axes` leads back."""
    cdef tuple axes

    cdef object backward(self, object dy):
        return dy.transpose(self.axes)


cdef class SliceNode(Node):
    """The elements at a basic index: all others have no influence."""
    cdef tuple shape
    cdef object index

    cdef object backward(self, object dy):
        cdef ndarray dx = new(self.shape, np.PyArray_TYPE(<ndarray> dy))
        np.PyArray_FILLWBYTE(dx, 0)
        (<object> dx)[self.index] = dy
        return dx


cdef class DiagonalNode(Node):
    cdef tuple shape
    cdef int offset, axis1, axis2

    cdef object backward(self, object dy):
        dx = numpy.zeros(self.shape, dy.dtype)
        view = dx.diagonal(self.offset, self.axis1, self.axis2)
        view.flags.writeable = True
        view[...] = dy
        return dx


cdef class CopyNode(Node):
    """The same values in other memory."""

    cdef object backward(self, object dy):
        return dy


# --- sizes ----------------------------------------------------------------------------------------------------------------

cdef tuple sizes_of(tuple args, object given, str name):
    """Sizes given as `f(2, 3)`, `f((2, 3))` or by keyword."""
    if given is not None:
        if args:
            raise TypeError(f"{name}: given twice")
        args = (given,)
    if len(args) == 1 and not isinstance(args[0], (int, numpy.integer, Tensor)):
        args = tuple(args[0])
    try:
        return tuple([n.__index__() for n in args])
    except AttributeError:
        raise TypeError(f"{name}: expected integers, got {args}") from None


cdef tuple resolved(tuple shape, ndarray a):
    """`shape` with its -1 worked out. Raises `RuntimeError` where it does not hold as many elements."""
    cdef Py_ssize_t known = 1, size = np.PyArray_SIZE(a)
    cdef int unknown = -1, i
    for i in range(len(shape)):
        n = shape[i]
        if n == -1 and unknown < 0:
            unknown = i
        elif n < 0:
            raise RuntimeError(f"shape: expected sizes of 0 or more and at most one -1, got {shape}")
        else:
            known *= n
    if unknown >= 0:
        if known == 0 or size % known:
            raise RuntimeError(f"shape {shape} is invalid for {size} elements (shape {shape_of(a)})")
        return shape[:unknown] + (size // known,) + shape[unknown + 1:]
    if known != size:
        raise RuntimeError(f"shape {shape} is invalid for {size} elements (shape {shape_of(a)})")
    return shape


# --- the same order -------------------------------------------------------------------------------------------------------

cdef ndarray newshape(ndarray a, tuple shape):
    """`a.reshape(shape)`: a view where the strides allow it, else a copy."""
    cdef npy_intp dims[MAX_DIMS]
    cdef np.PyArray_Dims wanted
    cdef int i
    for i in range(len(shape)):
        dims[i] = shape[i]
    wanted.ptr = dims
    wanted.len = len(shape)
    return np.PyArray_Newshape(a, &wanted, np.NPY_CORDER)


cdef Tensor reshaped(Tensor x, tuple shape):
    """`x` as `shape` (resolved): a view where possible."""
    cdef ndarray y = newshape(x.array, shape)
    cdef Tensor out = view_of(x, y) if np.PyArray_DATA(y) == np.PyArray_DATA(x.array) else wrap(y)
    cdef ReshapeNode node
    if records(x):
        node = ReshapeNode.__new__(ReshapeNode)
        node.shape = shape_of(x.array)
        attach(out, node, (x,), None)
    return out


def reshape(input, *args, shape=None):
    """The elements in row-major order as `shape`, one size of which may be -1: a view where possible, else a copy."""
    cdef Tensor x = as_tensor(input, "input")
    return reshaped(x, resolved(sizes_of(args, shape, "shape"), x.array))


def view(input, *args, size=None, dtype=None):
    """A view as another shape, or of the same bytes as another `dtype`. Raises `RuntimeError` where strides do not allow it."""
    cdef Tensor x = as_tensor(input, "input"), out
    if len(args) == 1 and isinstance(args[0], (numpy.dtype, type)):
        dtype = args[0]
    if dtype is not None:
        return view_of(x, x.array.view(to_dtype(dtype)))
    out = reshaped(x, resolved(sizes_of(args, size, "shape"), x.array))
    if not out.is_view and np.PyArray_SIZE(x.array):
        raise RuntimeError(
            f"view: shape {shape_of(out.array)} is not compatible with size {shape_of(x.array)} and strides "
            f"{(<object> x.array).strides} (bytes); use reshape"
        )
    return out


def view_as(input, other):
    """`input.view(other.shape)`."""
    return view(input, shape_of(as_tensor(other, "other").array))


def reshape_as(input, other):
    """`input.reshape(other.shape)`."""
    return reshape(input, shape_of(as_tensor(other, "other").array))


def flatten(input, start_dim=0, end_dim=-1):
    """The axes from `start_dim` to `end_dim` as one; a 0-dim tensor becomes one element."""
    cdef Tensor x = as_tensor(input, "input")
    cdef tuple shape = shape_of(x.array)
    cdef int first = axis_of(start_dim, len(shape)), last = axis_of(end_dim, len(shape)), i
    cdef Py_ssize_t n = 1
    if first > last:
        raise RuntimeError(f"start_dim: expected at most end_dim, got {start_dim} and {end_dim}")
    if first == last and shape:
        return x
    for i in range(first, last + 1 if shape else 0):
        n *= shape[i]
    return reshaped(x, shape[:first] + (n,) + shape[last + 1:])


def unflatten(input, dim, sizes):
    """Axis `dim` as several axes of `sizes`, one of which may be -1."""
    cdef Tensor x = as_tensor(input, "input")
    cdef tuple shape = shape_of(x.array)
    cdef int axis = axis_of(dim, len(shape))
    if not shape:
        raise RuntimeError("unflatten: expected at least one axis, got a 0-dim tensor")
    cdef tuple inner = sizes_of((sizes,), None, "sizes")
    cdef Py_ssize_t known = 1
    for n in inner:
        if n != -1:
            known *= n
    if -1 in inner and known:
        inner = tuple([shape[axis] // known if n == -1 else n for n in inner])
    known = 1
    for n in inner:
        known *= n
    if known != shape[axis]:
        raise RuntimeError(f"sizes: {tuple(sizes)} do not multiply to {shape[axis]}, the size of axis {dim}")
    return reshaped(x, shape[:axis] + inner + shape[axis + 1:])


def ravel(input):
    """All elements as one axis."""
    cdef Tensor x = as_tensor(input, "input")
    return reshaped(x, (np.PyArray_SIZE(x.array),))


def unsqueeze(input, dim):
    """A new axis of size 1 at `dim`."""
    cdef Tensor x = as_tensor(input, "input")
    cdef tuple shape = shape_of(x.array)
    cdef int axis = axis_of(dim, len(shape) + 1)
    return reshaped(x, shape[:axis] + (1,) + shape[axis:])


def squeeze(input, dim=None):
    """Without the axes of size 1: all of them, or those named in `dim` (an integer or several)."""
    cdef Tensor x = as_tensor(input, "input")
    cdef tuple shape = shape_of(x.array), axes
    axes = () if isinstance(dim, tuple) and not dim else axes_of(dim, len(shape))
    return reshaped(x, tuple([n for i, n in enumerate(shape) if n != 1 or i not in axes]))


# --- another order --------------------------------------------------------------------------------------------------------

cdef Tensor permuted(Tensor x, tuple axes):
    """`x` with axis i taken from `axes[i]`."""
    cdef npy_intp dims[MAX_DIMS]
    cdef npy_intp strides[MAX_DIMS]
    cdef int i, j, ndim = len(axes)
    cdef list back = [0] * ndim
    cdef PermuteNode node
    for i in range(ndim):
        j = axes[i]
        dims[i] = np.PyArray_DIM(x.array, j)
        strides[i] = np.PyArray_STRIDE(x.array, j)
        back[j] = i
    cdef Tensor out = view_of(x, strided(x.array, ndim, dims, strides, 0))
    if records(x):
        node = PermuteNode.__new__(PermuteNode)
        node.axes = tuple(back)
        attach(out, node, (x,), None)
    return out


def permute(input, *args, dims=None):
    """The axes in the order `dims`."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int ndim = np.PyArray_NDIM(x.array)
    cdef tuple order = tuple([axis_of(d, ndim) for d in sizes_of(args, dims, "dims")])
    if sorted(order) != list(range(ndim)):
        raise RuntimeError(f"dims: expected each of {ndim} axes once, got {order}")
    return permuted(x, order)


def transpose(input, dim0, dim1):
    """Axes `dim0` and `dim1` exchanged."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int ndim = np.PyArray_NDIM(x.array), a = axis_of(dim0, ndim), b = axis_of(dim1, ndim)
    cdef list order = list(range(ndim))
    if ndim:
        order[a], order[b] = b, a
    return permuted(x, tuple(order))


def t(input):
    """A matrix transposed; a tensor of fewer axes as it is."""
    cdef Tensor x = as_tensor(input, "input")
    if np.PyArray_NDIM(x.array) > 2:
        raise RuntimeError(f"t: expected at most 2 axes, got {np.PyArray_NDIM(x.array)}")
    return permuted(x, tuple(range(np.PyArray_NDIM(x.array)))[::-1])


def reverse_axes(input):
    """`input.T`: the axes in reverse order."""
    cdef Tensor x = as_tensor(input, "input")
    return permuted(x, tuple(range(np.PyArray_NDIM(x.array)))[::-1])


def adjoint(input):
    """`input.mT`: matrices transposed, in the last two axes."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int ndim = np.PyArray_NDIM(x.array)
    if ndim < 2:
        raise RuntimeError(f"mT: expected at least 2 axes, got {ndim}")
    return permuted(x, tuple(range(ndim - 2)) + (ndim - 1, ndim - 2))


def movedim(input, source, destination):
    """The axes `source` moved to the places `destination`, the others in their order."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int ndim = np.PyArray_NDIM(x.array)
    cdef list order
    cdef tuple src = tuple([axis_of(d, ndim) for d in (source if isinstance(source, (tuple, list)) else (source,))])
    cdef tuple dst = tuple([axis_of(d, ndim) for d in (destination if isinstance(destination, (tuple, list)) else (destination,))])
    if len(src) != len(dst) or len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise RuntimeError(f"movedim: expected as many source axes as destinations, each once, got {source} and {destination}")
    if not ndim:
        return permuted(x, ())
    order = [d for d in range(ndim) if d not in src]
    for to, origin in sorted(zip(dst, src)):
        order.insert(to, origin)
    return permuted(x, tuple(order))


# --- repeated and chosen elements -----------------------------------------------------------------------------------------

cdef Tensor expanded(Tensor x, tuple shape):
    cdef int lead = len(shape) - np.PyArray_NDIM(x.array)
    cdef tuple own = shape_of(x.array)
    cdef ExpandNode node
    if lead < 0:
        raise RuntimeError(f"expand: expected at least {len(own)} sizes, got {shape}")
    if -1 in shape[:lead]:
        raise RuntimeError(f"expand: -1 stands for an existing axis, got {shape} for shape {own}")
    shape = shape[:lead] + tuple([own[i] if n == -1 else n for i, n in enumerate(shape[lead:])])
    cdef Tensor out = view_of(x, broadcast(x.array, shape))
    if records(x):
        node = ExpandNode.__new__(ExpandNode)
        node.shape = own
        attach(out, node, (x,), None)
    return out


def expand(input, *args, size=None):
    """Axes of size 1 repeated to `size` without a copy; -1 keeps an axis, and new axes may come in front."""
    return expanded(as_tensor(input, "input"), sizes_of(args, size, "size"))


def expand_as(input, other):
    """`input.expand(other.shape)`."""
    return expanded(as_tensor(input, "input"), shape_of(as_tensor(other, "other").array))


def broadcast_to(input, size):
    """`input.expand(size)`."""
    return expanded(as_tensor(input, "input"), sizes_of((size,), None, "size"))


cdef Tensor sliced(Tensor x, object index):
    """`x[index]` for a basic index that ends in an ellipsis: a view."""
    cdef Tensor out = view_of(x, (<object> x.array)[index])
    cdef SliceNode node
    if records(x):
        node = SliceNode.__new__(SliceNode)
        node.shape = shape_of(x.array)
        node.index = index
        attach(out, node, (x,), None)
    return out


def narrow(input, dim, start, length):
    """Elements `start` to `start + length` of axis `dim`, a view."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    if np.PyArray_NDIM(x.array) == 0:
        raise RuntimeError("narrow: expected at least one axis, got a 0-dim tensor")
    cdef Py_ssize_t n = np.PyArray_DIM(x.array, axis), first = int(start)
    first += n if first < 0 else 0
    if length < 0 or first < 0 or first + length > n:
        raise RuntimeError(f"narrow: start {start} and length {length} exceed axis {dim} of size {n}")
    return sliced(x, (slice(None),) * axis + (slice(first, first + length), ...))


def select(input, dim, index):
    """The elements at `index` of axis `dim`, which goes: a view."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    if np.PyArray_NDIM(x.array) == 0:
        raise IndexError("select: expected at least one axis, got a 0-dim tensor")
    cdef Py_ssize_t n = np.PyArray_DIM(x.array, axis), i = int(index)
    if not -n <= i < n:
        raise IndexError(f"index: expected to be in [{-n}, {n - 1}] for axis {dim}, got {i}")
    return sliced(x, (slice(None),) * axis + (i, ...))


def diagonal(input, offset=0, dim1=0, dim2=1):
    """The diagonal of axes `dim1` and `dim2`, `offset` above the main one, as the last axis: a view."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int ndim = np.PyArray_NDIM(x.array), a = axis_of(dim1, ndim), b = axis_of(dim2, ndim)
    cdef DiagonalNode node
    if a == b:
        raise RuntimeError(f"diagonal: dim1 and dim2 are the same axis, {dim1} and {dim2}")
    array = (<object> x.array).diagonal(offset, a, b)
    if x.array.flags.writeable:
        array.flags.writeable = True
    cdef Tensor out = view_of(x, array)
    if records(x):
        node = DiagonalNode.__new__(DiagonalNode)
        node.shape = shape_of(x.array)
        node.offset, node.axis1, node.axis2 = offset, a, b
        attach(out, node, (x,), None)
    return out


# --- copies ---------------------------------------------------------------------------------------------------------------

def clone(input, *, memory_format=None):
    """A copy, on the tape."""
    cdef Tensor x = as_tensor(input, "input")
    cdef ndarray y = empty_like(x.array)
    np.PyArray_CopyInto(y, x.array)
    cdef Tensor out = wrap(y)
    if records(x):
        attach(out, CopyNode.__new__(CopyNode), (x,), None)
    return out


def contiguous(input, *, memory_format=None):
    """`input` itself where its elements lie in row-major order without gaps, else such a copy."""
    cdef Tensor x = as_tensor(input, "input")
    return x if np.PyArray_IS_C_CONTIGUOUS(x.array) else clone(x)
