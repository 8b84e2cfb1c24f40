"""In-place changes through views, on the tape.

A view knows the tensor whose memory it looks into, its base. Changing a view gives the base a new history: the gradient of
what was changed goes to the new content, the rest to the base's old history (`CopySlicesNode`). All views of that memory are
then parts of the new base (`AsStridedNode`).
"""
cimport numpy as np

from bpcore.tensor cimport Node, Tensor, attach, wrap

import numpy

np.import_array()


cdef class Place:
    """Where a view lies in the memory of its base: both seen in one buffer of bytes."""
    cdef tuple base_shape, base_strides, shape, strides
    cdef Py_ssize_t size, base_offset, offset

    def __init__(self, base, view):
        self.base_shape, self.base_strides = base.shape, base.strides
        self.shape, self.strides = view.shape, view.strides
        reach = [(n - 1) * step for n, step in zip(base.shape, base.strides)]
        self.base_offset = -sum([r for r in reach if r < 0])
        self.size = self.base_offset + sum([r for r in reach if r > 0]) + base.itemsize
        self.offset = self.base_offset + view.ctypes.data - base.ctypes.data

    cdef tuple layout(self, object dtype):
        """Zeros in the base's layout, and the view into them."""
        buffer = numpy.zeros(self.size, numpy.uint8)
        return (numpy.ndarray(self.base_shape, dtype, buffer, self.base_offset, self.base_strides),
                numpy.ndarray(self.shape, dtype, buffer, self.offset, self.strides))


cdef class CopySlicesNode(Node):
    """y = the base with new content at `place`: dbase = dy, zero there; dcontent = dy there"""
    cdef Place place

    cdef object backward(self, object dy):
        whole, part = self.place.layout(dy.dtype)
        whole[...] = dy
        content = part.copy()
        part[...] = 0
        return whole, content


cdef class AsStridedNode(Node):
    """y = the base at `place`: dbase there = dy, elsewhere zero"""
    cdef Place place

    cdef object backward(self, object dy):
        whole, part = self.place.layout(dy.dtype)
        if 0 in part.strides:                  # an expanded view: the repetitions add up
            axes = tuple([i for i, step in enumerate(part.strides) if step == 0])
            part[tuple([slice(0, 1) if i in axes else slice(None) for i in range(part.ndim)])] = dy.sum(axes, keepdims=True)
        else:
            part[...] = dy
        return whole


def refresh(Tensor view):
    """Make the history of a view what its base's is by now."""
    cdef AsStridedNode node
    cdef Tensor stand_in
    if view.base is None:
        raise RuntimeError(
            "this view was taken without the tape, and a recorded in-place operation has changed its memory since; take it again"
        )
    view.seen = view.version.recorded
    view.node, view.slot = None, 0
    if not view.base.wants_grad() or view.array.size == 0:
        return
    if view.array.dtype != view.base.array.dtype:
        raise RuntimeError("a view as another dtype cannot follow a recorded in-place operation")
    node = AsStridedNode.__new__(AsStridedNode)
    node.place = Place(view.base.array, view.array)
    stand_in = wrap(view.array)
    attach(stand_in, node, (view.base,), None)
    view.node = stand_in.node


def rebase(Tensor view, Tensor content):
    """`view`'s memory takes the values of `content`, which was computed on the tape: give its base that history."""
    cdef Tensor base = view.base, stand_in
    cdef CopySlicesNode node
    if base is None:
        raise RuntimeError("a view taken without the tape is changed by a recorded in-place operation; take it on the tape")
    if base.node is None and base.leaf_requires_grad:
        raise RuntimeError("a view of a leaf that requires grad is changed in place; do it under bpnn.no_grad()")
    if view.array.dtype != base.array.dtype:
        raise RuntimeError("a view as another dtype cannot be changed by a recorded in-place operation")
    if view.array.size:
        node = CopySlicesNode.__new__(CopySlicesNode)
        node.place = Place(base.array, view.array)
        stand_in = wrap(base.array)
        attach(stand_in, node, (base, content), None)
        base.node, base.slot = stand_in.node, 0
    view.version.recorded += 1
    refresh(view)
