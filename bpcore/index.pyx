"""`x[index]` and `x[index] = value`, with PyTorch's rules.

An index is applied in two steps: numbers, slices, None and the ellipsis give a view; then arrays of integers and masks pick
elements of that view. (NumPy counts a number among the arrays where both occur, which puts the axes in another order.)
"""
cimport numpy as np
from cpython.long cimport PyLong_CheckExact
from numpy cimport ndarray

from bpcore.gather cimport picked
from bpcore.inplace cimport may_change
from bpcore.operand cimport shape_of, typed, unbroadcast
from bpcore.shape cimport sliced
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records2, wrap

import numpy

np.import_array()


# --- what an index means --------------------------------------------------------------------------------------------------

cdef bint plain(object item) noexcept:
    """A number, slice, None or the ellipsis, of the exact types that need no care."""
    if PyLong_CheckExact(item) or item is None or item is ...:
        return True
    return type(item) is slice and ((<object> item).step is None or PyLong_CheckExact((<object> item).step)
                                    and (<object> item).step > 0)


cdef object normalized(object item):
    """One item of an index as an int, slice, None, Ellipsis, or an array of integers or bools."""
    if item is None or item is ... or isinstance(item, int):
        return item
    if isinstance(item, slice):
        if item.step is not None and item.step <= 0:
            raise ValueError(f"index: expected a step greater than zero, got {item.step}")
        return item
    if isinstance(item, Tensor):
        array = (<Tensor> item).array
    else:
        array = numpy.asarray([as_tensor(i, "index").array for i in item] if _holds_tensors(item) else item)
        if array.size == 0 and array.dtype.kind == "f" and not isinstance(item, ndarray):
            array = array.astype(numpy.int64)
    if array.dtype == numpy.uint8 and isinstance(item, Tensor):
        array = array.astype(bool)          # masks of an older age
    if array.dtype.kind not in "biu":
        raise IndexError(f"index: expected integers, slices, bools or arrays of them, got {array.dtype}")
    if array.ndim == 0:
        return bool(array) if array.dtype.kind == "b" else int(array)
    return array


def _holds_tensors(item):
    return isinstance(item, (list, tuple)) and any(isinstance(i, Tensor) for i in item)


cdef tuple steps(ndarray a, object index):
    """The basic index that gives a view and the index of arrays into that view, or None."""
    cdef tuple items = index if isinstance(index, tuple) else (index,)
    cdef list basic, picks
    cdef Py_ssize_t consumed = 0, missing
    cdef bint simple = True, any_pick = False, dots = False
    for item in items:
        if not plain(item):
            simple = False
            break
    if simple:
        return (items if ... in items else items + (...,)), None
    items = tuple([normalized(item) for item in items])
    for item in items:
        if item is ...:
            dots = True
        elif isinstance(item, ndarray):
            consumed += item.ndim if item.dtype.kind == "b" else 1
        elif item is not None and not isinstance(item, bool):
            consumed += 1
    missing = np.PyArray_NDIM(a) - consumed
    if missing < 0:
        raise IndexError(f"index: too many for {np.PyArray_NDIM(a)} axes: {consumed}")
    basic, picks = [], []
    for item in items if dots else items + (...,):
        if item is ...:
            basic += [slice(None)] * missing
            picks += [slice(None)] * missing
            missing = 0
        elif isinstance(item, bool):
            basic.append(None)
            picks.append(numpy.zeros(1 if item else 0, numpy.int64))
            any_pick = True
        elif isinstance(item, ndarray):
            basic += [slice(None)] * (item.ndim if item.dtype.kind == "b" else 1)
            picks.append(item)
            any_pick = True
        else:
            basic.append(item)
            if not isinstance(item, int):
                picks.append(slice(None))
    return tuple(basic) + (...,), tuple(picks) if any_pick else None


cdef bint whole(tuple basic):
    """Whether a basic index keeps everything as it is."""
    for item in basic:
        if not (item is ... or isinstance(item, slice) and item == slice(None)):
            return False
    return True


# --- reading --------------------------------------------------------------------------------------------------------------

def getitem(input, index):
    """`input[index]`: numbers, slices, None and `...` give a view; arrays, lists and tensors of integers or bools a copy."""
    cdef Tensor x = <Tensor?> input
    cdef tuple basic, where
    basic, where = steps(x.array, index)
    if where is None:
        return sliced(x, basic)
    return picked(x if whole(basic) else sliced(x, basic), where)


# --- writing --------------------------------------------------------------------------------------------------------------

cdef class SetItemNode(Node):
    """y = x with `value` at an index: dx = dy, zero there; dvalue = dy there."""
    cdef tuple basic, where, value_shape

    cdef object backward(self, object dy):
        dvalue = dy[self.basic] if self.where is None else dy[self.basic][self.where]
        if self.needs(1):
            dvalue = unbroadcast(without_leading_ones(dvalue, len(self.value_shape)), self.value_shape)
        if not self.needs(0):
            return None, dvalue
        dx = dy.copy()
        if self.where is None:
            dvalue = dvalue.copy() if self.needs(1) else None
            dx[self.basic] = 0
        else:
            dx[self.basic][self.where] = 0
        return dx, dvalue


cdef ndarray without_leading_ones(object a, int ndim):
    """A gradient with as many axes as the value, which may have more axes of size 1 in front than its place."""
    return a.reshape((1,) * (ndim - a.ndim) + a.shape) if ndim > a.ndim else a


def setitem(input, index, value):
    """`input[index] = value`: the value is cast and broadcast; recorded where the tape is on."""
    cdef Tensor x = <Tensor?> input, v, out
    cdef tuple basic, where
    cdef SetItemNode node
    cdef object place
    may_change(x)
    v = typed(value, np.PyArray_TYPE(x.array), "value")
    basic, where = steps(x.array, index)
    cdef bint recorded = records2(x, v)
    if recorded:
        node = SetItemNode.__new__(SetItemNode)
        node.basic, node.where, node.value_shape = basic, where, shape_of(v.array)
        out = wrap(x.array)
        attach(out, node, (x, v), None)
        x._rebase(out)
    place = (<object> x.array)[basic]
    try:
        if where is None:
            place[...] = v.array
        else:
            place[where] = v.array
    except ValueError:
        raise RuntimeError(f"value: shape {shape_of(v.array)} does not broadcast to the place assigned to") from None
    x.bump()
