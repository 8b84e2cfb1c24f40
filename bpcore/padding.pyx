"""Padding: images with a border of a number, of their own mirror image, of their edge, or of their other side.

`pad` is (left, right) of the last axis, then of the one before, and so on; negative numbers cut off instead.
"""
cimport numpy as np


from bpcore.operand cimport new, shape_of
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap

np.import_array()


cdef tuple part(int axis, object where):
    """An index that takes `where` along one axis and all along those before."""
    return (slice(None),) * axis + (where,)


cdef tuple inner(tuple shape, list pads, bint of_result):
    """The part of x (or, `of_result`, of y) that the two have in common."""
    cdef list index = []
    for n, (left, right) in zip(shape, pads):
        if of_result:
            index.append(slice(max(left, 0), max(left, 0) + n + min(left, 0) + min(right, 0)))
        else:
            index.append(slice(max(-left, 0), n - max(-right, 0)))
    return tuple(index)


cdef list borders(str mode, int axis, Py_ssize_t n, Py_ssize_t left, Py_ssize_t right):
    """Pairs (border, source) of parts of y along an axis, n elements of which lie between the borders."""
    cdef list pairs = []
    cdef Py_ssize_t end
    left, right = max(left, 0), max(right, 0)
    end = left + n
    if mode == "reflect":
        if left:
            pairs.append((slice(0, left), slice(2 * left, left, -1)))
        if right:
            stop = end - 2 - right
            pairs.append((slice(end, end + right), slice(end - 2, stop if stop >= 0 else None, -1)))
    elif mode == "replicate":
        if left:
            pairs.append((slice(0, left), slice(left, left + 1)))
        if right:
            pairs.append((slice(end, end + right), slice(end - 1, end)))
    else:
        if left:
            pairs.append((slice(0, left), slice(n, n + left)))
        if right:
            pairs.append((slice(end, end + right), slice(left, left + right)))
    return [(part(axis, a), part(axis, b)) for a, b in pairs]


cdef class PadNode(Node):
    """y = x within a border: dx = dy there, plus, of a border copied from x, the gradients of the copies"""
    cdef list pads
    cdef str mode
    cdef tuple shape

    cdef object backward(self, object dy):
        cdef int axis
        whole = dy
        if self.mode != "constant":
            whole = dy.copy()
            for axis in range(len(self.shape) - 1, -1, -1):           # the axes were filled from the first to the last
                left, right = self.pads[axis]
                n = self.shape[axis] + min(left, 0) + min(right, 0)
                for border, source in borders(self.mode, axis, n, left, right):
                    given = whole[border]
                    if self.mode == "replicate":
                        given = given.sum(axis=axis, keepdims=True)
                    whole[source] += given
        center = whole[inner(self.shape, self.pads, True)]
        if all([left >= 0 and right >= 0 for left, right in self.pads]):
            return center
        dx = new(self.shape, np.PyArray_TYPE(center))
        dx[...] = 0
        dx[inner(self.shape, self.pads, False)] = center
        return dx


cdef list pairs_of(object pad, tuple shape, str mode):
    """(left, right) for each axis of `shape`."""
    cdef list given = list(pad) if isinstance(pad, (tuple, list)) else [pad]
    cdef list pads
    cdef int i, ndim = len(shape), axes = len(given) // 2
    if len(given) % 2 or axes > ndim:
        raise RuntimeError(f"pad: expected two numbers for each axis to pad, at most {2 * ndim}, got {pad}")
    if mode != "constant" and not 1 <= ndim - axes <= 2:
        raise ValueError(f"pad: expected numbers for the last {ndim - 2} or {ndim - 1} axes of shape {shape} in mode {mode!r}, "
                         f"got {pad}")
    pads = [(0, 0)] * (ndim - axes)
    for i in range(axes - 1, -1, -1):
        pads.append((int(given[2 * i]), int(given[2 * i + 1])))
    if mode == "replicate":                       # the edge is repeated even where it is cut off itself: keep it instead
        for i, n in enumerate(shape):
            left, right = pads[i]
            if n and left <= -n < 0 < right:
                pads[i] = 1 - n, right + left + n - 1
            elif n and right <= -n < 0 < left:
                pads[i] = left + right + n - 1, 1 - n
    for n, (left, right) in zip(shape, pads):
        if n + left + right < 0 or n + min(left, 0) + min(right, 0) < 0:
            raise RuntimeError(f"pad: expected to leave 0 or more elements of {n}, got {(left, right)}")
    return pads


cdef int fits(tuple shape, list pads, str mode) except -1:
    """Whether there is enough to copy a border from."""
    for n, (left, right) in zip(shape, pads):
        most = max(left, right)
        if most > 0:
            n += min(left, 0) + min(right, 0)
            room = {"reflect": n - 1, "circular": n, "replicate": most if n else 0}[mode]
            if most > room:
                raise RuntimeError(f"pad: expected at most {room} of {n} elements in mode {mode!r}, got {(left, right)}")
    return 0


def pad(input, pad, mode="constant", value=None):
    """`input` with a border; any shape for mode "constant", whose border is `value` (0), else (N, C, *) or (C, *).

    "reflect" mirrors without repeating the edge (`pad` is less than the size), "replicate" repeats the edge, "circular" goes on
    at the other side. Raises `RuntimeError` where the border does not fit, `ValueError` for another mode or a `value` that it has
    no use for.
    """
    cdef Tensor x = as_tensor(input, "input"), out
    cdef tuple shape = shape_of(x.array)
    cdef int axis
    cdef PadNode node
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise ValueError(f"mode: expected 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    if mode != "constant" and value:
        raise ValueError(f"value: expected None in mode {mode!r}, got {value}")
    cdef list pads = pairs_of(pad, shape, mode)
    y = new(tuple([n + left + right for n, (left, right) in zip(shape, pads)]), np.PyArray_TYPE(x.array))
    if mode == "constant":
        y[...] = 0 if value is None else value
    else:
        fits(shape, pads, mode)
    y[inner(shape, pads, True)] = x.array[inner(shape, pads, False)]
    if mode != "constant":
        for axis in range(len(shape)):
            left, right = pads[axis]
            for border, source in borders(mode, axis, shape[axis] + min(left, 0) + min(right, 0), left, right):
                y[border] = y[source]
    out = wrap(y)
    if records(x):
        node = PadNode.__new__(PadNode)
        node.pads = pads
        node.mode = mode
        node.shape = shape
        attach(out, node, (x,), None)
    return out
