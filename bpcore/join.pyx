"""Tensors put together and taken apart."""
cimport numpy as np
from numpy cimport ndarray

from bpcore.operand cimport axis_of, cast_tensor, new, shape_of
from bpcore.promotion cimport promoted
from bpcore.shape cimport reshaped, sliced
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, attach_slots, records, recordsn, view_of, wrap

import numpy

np.import_array()


# --- together -------------------------------------------------------------------------------------------------------------

cdef class CatNode(Node):
    """Parts side by side along one axis."""
    cdef int axis
    cdef tuple ends               # where each part ends

    cdef object backward(self, object dy):
        cdef Py_ssize_t start = 0
        cdef list parts = []
        lead = (slice(None),) * self.axis
        for end in self.ends:
            parts.append(dy[lead + (slice(start, end),)])
            start = end
        return tuple(parts)


cdef class StackNode(Node):
    """Parts side by side along a new axis."""
    cdef int axis

    cdef object backward(self, object dy):
        return tuple(numpy.moveaxis(dy, self.axis, 0))


cdef tuple members(object tensors, str name):
    """A sequence of tensors, cast to one type."""
    if isinstance(tensors, (Tensor, ndarray)) and tensors.ndim == 0:
        raise TypeError(f"{name}: expected a sequence of tensors, got a 0-dim tensor")
    cdef tuple items = tuple([as_tensor(t, f"{name}[{i}]") for i, t in enumerate(tensors)])
    if not items:
        raise RuntimeError(f"{name}: expected at least one tensor")
    cdef int typenum = promoted(items)
    return tuple([cast_tensor(t, typenum) for t in items])


def cat(tensors, dim=0):
    """Tensors joined along the existing axis `dim`; the other sizes must agree. Tensors of shape (0,) are skipped."""
    cdef tuple items = members(tensors, "tensors"), kept = tuple([t for t in items if t.shape != (0,)])
    cdef Tensor first = <Tensor> (kept[0] if kept else items[0]), out
    cdef tuple shape = shape_of(first.array), other
    cdef int axis
    cdef Py_ssize_t total = 0
    cdef list ends = []
    cdef CatNode node
    if not kept:
        kept = items
    if not shape:
        raise RuntimeError("cat: expected tensors of at least one axis, got a 0-dim tensor; use stack")
    axis = axis_of(dim, len(shape))
    for t in kept:
        other = shape_of((<Tensor> t).array)
        if len(other) != len(shape) or other[:axis] + other[axis + 1:] != shape[:axis] + shape[axis + 1:]:
            raise RuntimeError(f"cat: expected sizes to agree except at axis {axis}, got {shape} and {other}")
        total += other[axis]
        ends.append(total)
    out = wrap(new(shape[:axis] + (total,) + shape[axis + 1:], np.PyArray_TYPE(first.array)))
    numpy.concatenate([(<Tensor> t).array for t in kept], axis, out.array)
    if recordsn(kept):
        node = CatNode.__new__(CatNode)
        node.axis = axis
        node.ends = tuple(ends)
        attach(out, node, kept, None)
    return out


def stack(tensors, dim=0):
    """Tensors of one shape joined along a new axis `dim`."""
    cdef tuple items = members(tensors, "tensors")
    cdef tuple shape = shape_of((<Tensor> items[0]).array)
    cdef int axis = axis_of(dim, len(shape) + 1)
    cdef StackNode node
    for t in items:
        if shape_of((<Tensor> t).array) != shape:
            raise RuntimeError(f"stack: expected tensors of one shape, got {shape} and {shape_of((<Tensor> t).array)}")
    cdef Tensor out = wrap(new(shape[:axis] + (len(items),) + shape[axis:], np.PyArray_TYPE((<Tensor> items[0]).array)))
    numpy.stack([(<Tensor> t).array for t in items], axis, out.array)
    if recordsn(items):
        node = StackNode.__new__(StackNode)
        node.axis = axis
        attach(out, node, items, None)
    return out


cdef Tensor at_least(object t, int ndim):
    """A tensor with axes of size 1 added, as `atleast_1d`, `_2d` and `_3d` do."""
    cdef Tensor x = as_tensor(t, "tensors")
    cdef tuple shape = shape_of(x.array)
    if len(shape) >= ndim:
        return x
    if ndim == 1 or not shape:
        return reshaped(x, (1,) * ndim)
    if ndim == 2:
        return reshaped(x, (1,) + shape)
    return reshaped(x, (1,) + shape + (1,) if len(shape) == 1 else shape + (1,))


cdef object each_at_least(tuple tensors, int ndim):
    if len(tensors) == 1:
        if isinstance(tensors[0], (tuple, list)):
            return tuple([at_least(t, ndim) for t in tensors[0]])
        return at_least(tensors[0], ndim)
    return tuple([at_least(t, ndim) for t in tensors])


def atleast_1d(*tensors):
    """Each tensor with at least one axis."""
    return each_at_least(tensors, 1)


def atleast_2d(*tensors):
    """Each tensor with at least two axes, new ones in front."""
    return each_at_least(tensors, 2)


def atleast_3d(*tensors):
    """Each tensor with at least three axes."""
    return each_at_least(tensors, 3)


def hstack(tensors):
    """Tensors joined along axis 1; vectors along axis 0."""
    items = [at_least(t, 1) for t in tensors]
    return cat(items, 0 if items and (<Tensor> items[0]).array.ndim == 1 else 1)


def vstack(tensors):
    """Tensors joined along axis 0; vectors become rows."""
    return cat([at_least(t, 2) for t in tensors], 0)


def dstack(tensors):
    """Tensors joined along axis 2."""
    return cat([at_least(t, 3) for t in tensors], 2)


def column_stack(tensors):
    """Tensors joined along axis 1; vectors and numbers become columns."""
    items = [as_tensor(t, "tensors") for t in tensors]
    return cat([reshaped(t, ((<Tensor> t).array.size, 1)) if (<Tensor> t).array.ndim < 2 else t for t in items], 1)


# --- apart ----------------------------------------------------------------------------------------------------------------

cdef class SplitNode(Node):
    """All of a tensor in pieces: one gradient is put together from theirs."""
    cdef tuple shape, places
    cdef int typenum

    cdef object backward(self, object dy):
        cdef object dx = new(self.shape, self.typenum)
        for place, part in zip(self.places, dy if isinstance(dy, tuple) else (dy,)):
            dx[place] = 0 if part is None else part
        return dx


cdef tuple views_at(Tensor x, list places):
    """Views of `x` at basic indices that cover all of it."""
    cdef tuple parts = tuple([view_of(x, (<object> x.array)[place]) for place in places])
    cdef SplitNode node
    if records(x):
        node = SplitNode.__new__(SplitNode)
        node.shape, node.places, node.typenum = shape_of(x.array), tuple(places), np.PyArray_TYPE(x.array)
        attach_slots(parts, node, (x,), None)
    return parts


cdef tuple pieces(Tensor x, int axis, list ends):
    """Views of `x` between the positions `ends` of an axis."""
    cdef Py_ssize_t start = 0
    cdef list places = []
    lead = (slice(None),) * axis
    for end in ends:
        places.append(lead + (slice(start, end), ...))
        start = end
    return views_at(x, places)


cdef Tensor with_axes(object input, str name):
    cdef Tensor x = as_tensor(input, "input")
    if np.PyArray_NDIM(x.array) == 0:
        raise RuntimeError(f"{name}: expected at least one axis, got a 0-dim tensor")
    return x


def split(tensor, split_size_or_sections, dim=0):
    """Views of pieces along `dim`: of one size (the last may be smaller), or of the sizes listed."""
    cdef Tensor x = with_axes(tensor, "split")
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef Py_ssize_t n = np.PyArray_DIM(x.array, axis), size
    if isinstance(split_size_or_sections, (tuple, list)):
        if sum(split_size_or_sections) != n or min(split_size_or_sections, default=0) < 0:
            raise RuntimeError(f"split: expected sizes that sum to {n}, got {tuple(split_size_or_sections)}")
        return pieces(x, axis, numpy.cumsum(split_size_or_sections, dtype=int).tolist())
    size = split_size_or_sections
    if size < 0 or (size == 0 and n):
        raise RuntimeError(f"split: expected a positive size, got {size}")
    return pieces(x, axis, [min(i + size, n) for i in range(0, n, size)] if n else [0])


def chunk(input, chunks, dim=0):
    """Views of at most `chunks` pieces along `dim`, of one size but for the last."""
    cdef Tensor x = with_axes(input, "chunk")
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef Py_ssize_t n = np.PyArray_DIM(x.array, axis)
    if chunks < 1:
        raise RuntimeError(f"chunks: expected a positive number, got {chunks}")
    if n == 0:
        return pieces(x, axis, [0] * chunks)
    return split(x, (n + chunks - 1) // chunks, axis)


def tensor_split(input, indices_or_sections, dim=0):
    """Views of pieces along `dim`: of sizes as equal as possible, or between the positions listed."""
    cdef Tensor x = with_axes(input, "tensor_split")
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef Py_ssize_t n = np.PyArray_DIM(x.array, axis), parts, i
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        parts = indices_or_sections
        if parts < 1:
            raise RuntimeError(f"tensor_split: expected a positive number of sections, got {parts}")
        return pieces(x, axis, [(n // parts) * (i + 1) + min(i + 1, n % parts) for i in range(parts)])
    lead = (slice(None),) * axis
    bounds = [0, *indices_or_sections, n]
    return tuple([sliced(x, lead + (slice(bounds[i], bounds[i + 1]), ...)) for i in range(len(bounds) - 1)])


def hsplit(input, indices_or_sections):
    """`tensor_split` along axis 1; along axis 0 for a vector."""
    cdef Tensor x = with_axes(input, "hsplit")
    return even_split(x, indices_or_sections, 0 if np.PyArray_NDIM(x.array) == 1 else 1)


def vsplit(input, indices_or_sections):
    """`tensor_split` along axis 0."""
    return even_split(with_axes(input, "vsplit"), indices_or_sections, 0)


def dsplit(input, indices_or_sections):
    """`tensor_split` along axis 2."""
    return even_split(with_axes(input, "dsplit"), indices_or_sections, 2)


cdef object even_split(Tensor x, object sections, int axis):
    if axis >= np.PyArray_NDIM(x.array):
        raise RuntimeError(f"expected at least {axis + 1} axes, got shape {shape_of(x.array)}")
    if isinstance(sections, int) and (sections < 1 or np.PyArray_DIM(x.array, axis) % sections):
        raise RuntimeError(f"axis {axis} of size {np.PyArray_DIM(x.array, axis)} does not split into {sections} equal pieces")
    return tensor_split(x, sections, axis)


def unbind(input, dim=0):
    """Views of the slices along `dim`, which goes."""
    cdef Tensor x = with_axes(input, "unbind")
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef Py_ssize_t i
    lead = (slice(None),) * axis
    return views_at(x, [lead + (i, ...) for i in range(np.PyArray_DIM(x.array, axis))])
