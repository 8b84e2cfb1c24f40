"""Tensors repeated, turned, and masked by position."""
cimport numpy as np
from numpy cimport ndarray

from bpcore.operand cimport axes_of, axis_of, shape_of
from bpcore.shape cimport reshaped, sizes_of
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap

import numpy

from bpcore.shape import clone, diagonal as diagonal_of

np.import_array()


# --- repeated -------------------------------------------------------------------------------------------------------------

cdef class RepeatNode(Node):
    """Whole copies side by side: `shape` interleaves the counts and the sizes."""
    cdef tuple shape, own

    cdef object backward(self, object dy):
        return numpy.add.reduce(dy.reshape(self.shape), tuple(range(0, len(self.shape), 2))).reshape(self.own)


cdef Tensor repeated(Tensor x, tuple counts):
    cdef tuple own = shape_of(x.array), sizes
    cdef RepeatNode node
    if len(counts) < len(own):
        raise RuntimeError(f"repeat: expected at least {len(own)} numbers, got {counts}")
    if counts and min(counts) < 0:
        raise RuntimeError(f"repeat: expected numbers of 0 or more, got {counts}")
    cdef Tensor out = wrap(numpy.asarray(numpy.tile(x.array, counts)))
    if records(x):
        node = RepeatNode.__new__(RepeatNode)
        node.own = own
        sizes = (1,) * (len(counts) - len(own)) + own
        node.shape = tuple([n for both in zip(counts, sizes) for n in both])
        attach(out, node, (x,), None)
    return out


def repeat(input, *args, repeats=None):
    """The tensor copied `repeats[i]` times along each axis i; new axes may come in front."""
    return repeated(as_tensor(input, "input"), sizes_of(args, repeats, "repeats"))


def tile(input, *args, dims=None):
    """As `repeat`; where fewer numbers than axes are given they are for the last ones."""
    cdef Tensor x = as_tensor(input, "input")
    cdef tuple counts = sizes_of(args, dims, "dims")
    return repeated(x, (1,) * (np.PyArray_NDIM(x.array) - len(counts)) + counts)


cdef class RepeatInterleaveNode(Node):
    """Each slice repeated: the gradients of the repetitions add up."""
    cdef int axis
    cdef tuple own

    cdef object backward(self, object dy):
        rows, = self.saved
        shape = self.own or (1,)
        dx = numpy.zeros(shape, dy.dtype)
        numpy.add.at(dx, (slice(None),) * self.axis + (rows,), dy)
        return dx.reshape(self.own)


def repeat_interleave(input, repeats=None, dim=None, *, output_size=None):
    """Each slice along `dim` (without one, each element) repeated: as often as `repeats`, a number or one for each, says."""
    cdef Tensor x = as_tensor(input, "input"), flat, out
    cdef ndarray counts
    cdef RepeatInterleaveNode node
    if repeats is None:                           # PyTorch's short form: positions repeated by the numbers given
        return wrap(numpy.repeat(numpy.arange(np.PyArray_SIZE(x.array)), x.array))
    flat = x if dim is not None else reshaped(x, (np.PyArray_SIZE(x.array),))
    cdef int axis = axis_of(0 if dim is None else dim, np.PyArray_NDIM(flat.array))
    counts = as_tensor(repeats, "repeats").array
    if counts.dtype.kind not in "iu":
        raise RuntimeError(f"repeats: expected integers, got {counts.dtype}")
    n = np.PyArray_DIM(flat.array, axis) if np.PyArray_NDIM(flat.array) else 1
    if np.PyArray_SIZE(counts) != 1 and np.PyArray_SIZE(counts) != n:
        raise RuntimeError(f"repeats: expected one number or {n}, got {np.PyArray_SIZE(counts)}")
    rows = numpy.repeat(numpy.arange(n), numpy.broadcast_to(counts.reshape(-1), (n,)))
    out = wrap(numpy.take(numpy.atleast_1d(flat.array), rows, axis))
    if records(flat):
        node = RepeatInterleaveNode.__new__(RepeatInterleaveNode)
        node.axis = axis
        node.own = shape_of(flat.array)
        attach(out, node, (flat,), (rows,))
    return out


# --- turned and masked by position ----------------------------------------------------------------------------------------

cdef class FlipNode(Node):
    cdef tuple axes

    cdef object backward(self, object dy):
        return numpy.flip(dy, self.axes)


cdef class RollNode(Node):
    cdef object shifts, axes

    cdef object backward(self, object dy):
        return numpy.roll(dy, self.shifts, self.axes)


cdef class TriangleNode(Node):
    cdef int diagonal
    cdef object keep

    cdef object backward(self, object dy):
        return self.keep(dy, self.diagonal)


def flip(input, *args, dims=None):
    """A copy with the order along the axes `dims` reversed."""
    cdef Tensor x = as_tensor(input, "input")
    cdef tuple given = sizes_of(args, dims, "dims")
    cdef tuple axes = axes_of(given, np.PyArray_NDIM(x.array)) if given else ()
    cdef FlipNode node
    cdef Tensor out = wrap(numpy.flip(x.array, axes).copy())
    if records(x):
        node = FlipNode.__new__(FlipNode)
        node.axes = axes
        attach(out, node, (x,), None)
    return out


def fliplr(input):
    """`flip` along axis 1."""
    return flip(input, 1)


def flipud(input):
    """`flip` along axis 0."""
    return flip(input, 0)


def roll(input, shifts, dims=None):
    """The elements moved `shifts` places along `dims`, round the end; without `dims`, in the flattened tensor."""
    cdef Tensor x = as_tensor(input, "input")
    cdef RollNode node
    shifts = tuple(shifts) if isinstance(shifts, (tuple, list)) else (shifts,)
    axes = tuple(dims) if isinstance(dims, (tuple, list)) else () if dims is None else (dims,)
    if len(shifts) != len(axes) and not (len(shifts) == 1 and not axes):
        raise RuntimeError(f"roll: expected as many shifts as dims, got {shifts} and {axes}")
    places = tuple([axis_of(d, np.PyArray_NDIM(x.array)) for d in axes]) or None
    if places is None:
        shifts = shifts[0]
    elif np.PyArray_NDIM(x.array) == 0:
        shifts, places = 0, None
    cdef Tensor out = wrap(numpy.roll(x.array, shifts, places))
    if records(x):
        node = RollNode.__new__(RollNode)
        node.shifts = tuple([-s for s in shifts]) if isinstance(shifts, tuple) else -shifts
        node.axes = places
        attach(out, node, (x,), None)
    return out


cdef Tensor triangle(object input, int diagonal, object keep):
    cdef Tensor x = as_tensor(input, "input")
    cdef TriangleNode node
    if np.PyArray_NDIM(x.array) < 2:
        raise RuntimeError(f"{keep.__name__}: expected at least 2 axes, got {np.PyArray_NDIM(x.array)}")
    cdef Tensor out = wrap(keep(x.array, diagonal))
    if records(x):
        node = TriangleNode.__new__(TriangleNode)
        node.diagonal = diagonal
        node.keep = keep
        attach(out, node, (x,), None)
    return out


def tril(input, diagonal=0):
    """The elements on and below a diagonal of the last two axes, else 0."""
    return triangle(input, diagonal, numpy.tril)


def triu(input, diagonal=0):
    """The elements on and above a diagonal of the last two axes, else 0."""
    return triangle(input, diagonal, numpy.triu)


cdef class DiagNode(Node):
    """A vector put on a diagonal."""
    cdef int offset, axis1, axis2

    cdef object backward(self, object dy):
        return dy.diagonal(self.offset, self.axis1, self.axis2)


def diag_embed(input, offset=0, dim1=-2, dim2=-1):
    """Matrices, in axes `dim1` and `dim2` of the result, with the last axis of `input` on a diagonal."""
    cdef Tensor x = as_tensor(input, "input"), out
    cdef tuple shape = shape_of(x.array)
    cdef int ndim = len(shape) + 1, a = axis_of(dim1, ndim), b = axis_of(dim2, ndim)
    cdef DiagNode node
    if not shape:
        raise RuntimeError("diag_embed: expected at least one axis, got a 0-dim tensor")
    if a == b:
        raise RuntimeError(f"diag_embed: dim1 and dim2 are the same axis, {dim1} and {dim2}")
    n = shape[len(shape) - 1] + (offset if offset >= 0 else -offset)
    sizes = list(shape[:-1])
    for axis in sorted((a, b)):
        sizes.insert(axis, n)
    y = numpy.zeros(sizes, x.array.dtype)
    view = y.diagonal(offset, a, b)
    view.flags.writeable = True
    view[...] = x.array
    out = wrap(y)
    if records(x):
        node = DiagNode.__new__(DiagNode)
        node.offset, node.axis1, node.axis2 = offset, a, b
        attach(out, node, (x,), None)
    return out


def diag(input, diagonal=0):
    """A vector as a diagonal matrix; the diagonal of a matrix."""
    cdef Tensor x = as_tensor(input, "input")
    if np.PyArray_NDIM(x.array) == 1:
        return diag_embed(x, diagonal)
    if np.PyArray_NDIM(x.array) != 2:
        raise RuntimeError(f"diag: expected 1 or 2 axes, got {np.PyArray_NDIM(x.array)}")
    return clone(diagonal_of(x, diagonal))
