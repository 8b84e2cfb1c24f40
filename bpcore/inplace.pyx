"""Changes in place. Off the tape they write into the memory and count its version; on it, the tensor takes over the history of
its new content (`Tensor._rebase`), computed from a copy of the old one, so that nothing saved for backward is overwritten."""
cimport numpy as np
from numpy cimport ndarray

from bpcore.arith cimport ADD, DIV, MUL, SUB, arith, arith_number
from bpcore.arithmetic cimport binary
from bpcore.memory cimport empty_like
from bpcore.operand cimport broadcast, cast_tensor, is_real, same_shape, shape_of, stretch, typed
from bpcore.promotion cimport category, is_number
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, edge_of, grad_mode, records, records2, wrap

import numpy

from bpcore.arithmetic import add, div, mul, sub
from bpcore.random import generator as numpy_generator

np.import_array()


cdef int may_change(Tensor x) except -1:
    """Refuse what must not be changed: a leaf on the tape, memory that several elements share or that is read-only."""
    if grad_mode() and x.leaf_requires_grad and x.node is None:
        raise RuntimeError("a leaf that requires grad is changed in place; do it under bpnn.no_grad()")
    if not np.PyArray_ISWRITEABLE(x.array):
        raise RuntimeError("this memory cannot be changed in place: it is read-only, or an expanded view; clone() it first")
    return 0


cdef Tensor snapshot(Tensor x):
    """The old content of `x`, with its history."""
    cdef ndarray copy = empty_like(x.array)
    np.PyArray_CopyInto(copy, x.array)
    cdef Tensor old = wrap(copy)
    edge_of(x)                                # a view may have to catch up first
    old.node = x.node
    old.slot = x.slot
    return old


cdef class ConstantNode(Node):
    """The new content does not depend on the old one."""

    cdef object backward(self, object dy):
        return numpy.zeros_like(dy)


cdef class HandOverNode(Node):
    """The new content is that of another tensor."""

    cdef object backward(self, object dy):
        return dy


cdef Tensor store(Tensor x, Tensor result):
    """Make `result` the content of `x`, and its history where that is recorded."""
    cdef Tensor constant, leaf
    if not same_shape(x.array, result.array):
        raise RuntimeError(f"in-place: the result has shape {shape_of(result.array)}, the tensor {shape_of(x.array)}")
    if category(np.PyArray_TYPE(result.array)) > category(np.PyArray_TYPE(x.array)):
        raise RuntimeError(f"in-place: the result has type {result.array.dtype}, which {x.array.dtype} cannot hold")
    result = cast_tensor(result, np.PyArray_TYPE(x.array))
    if records(result):
        if result.node is None:                   # a leaf: the content comes from it
            leaf, result = result, wrap(result.array)
            attach(result, HandOverNode.__new__(HandOverNode), (leaf,), None)
        x._rebase(result)
    elif records(x):
        constant = wrap(result.array)
        attach(constant, ConstantNode.__new__(ConstantNode), (x,), None)
        x._rebase(constant)
    if result.array is not x.array:
        np.PyArray_CopyInto(x.array, result.array)
    x.bump()
    return x


def change(input, function, *args, **keywords):
    """`input = function(input, *args, **keywords)` in place."""
    cdef Tensor x = <Tensor?> input
    may_change(x)
    old = x
    if grad_mode():
        for value in (x, *args, *keywords.values()):
            if isinstance(value, Tensor) and (<Tensor> value).wants_grad():
                old = snapshot(x)
                args = tuple([old if arg is x else arg for arg in args])
                break
    return store(x, function(old, *args, **keywords))


# --- arithmetic -----------------------------------------------------------------------------------------------------------

cdef Tensor arith_(int op, object input, object other):
    """`input = input (op) other`, straight into the memory where the tape is not concerned."""
    cdef Tensor x = <Tensor?> input, b
    cdef int typenum = np.PyArray_TYPE(x.array)
    may_change(x)
    if is_number(other):
        if not grad_mode() or not x.wants_grad():
            if is_real(typenum) and isinstance(other, (int, float)):
                arith_number(op, x.array, other, x.array)
                x.bump()
                return x
        elif op != DIV or isinstance(other, (int, float)):
            return store(x, binary(op, x, other))
    elif isinstance(other, Tensor):
        b = <Tensor> other
        if not records2(x, b) and np.PyArray_TYPE(b.array) == typenum and is_real(typenum):
            arith(op, x.array, apart(b.array, x.array), x.array)
            x.bump()
            return x
    return change(x, div if op == DIV else mul if op == MUL else sub if op == SUB else add, other)


cdef ndarray apart(ndarray b, ndarray a):
    """`b` in the shape of `a`, copied where writing to `a` would change what is still to be read of it."""
    cdef char *pa = <char *> np.PyArray_DATA(a)
    cdef char *pb = <char *> np.PyArray_DATA(b)
    cdef bint overlap
    if np.PyArray_IS_C_CONTIGUOUS(a) and np.PyArray_IS_C_CONTIGUOUS(b):
        overlap = pa != pb and pa < pb + np.PyArray_NBYTES(b) and pb < pa + np.PyArray_NBYTES(a)
    else:
        overlap = numpy.may_share_memory(a, b)
    if overlap or (pa == pb and np.PyArray_SIZE(a) != np.PyArray_SIZE(b)):
        b = b.copy()
    return b if same_shape(a, b) else broadcast(b, shape_of(a))


def add_(input, other, *, alpha=1):
    """`input += alpha * other`."""
    if alpha is not 1:
        return change(input, add, other, alpha=alpha)
    return arith_(ADD, input, other)


def sub_(input, other, *, alpha=1):
    """`input -= alpha * other`."""
    if alpha is not 1:
        return change(input, sub, other, alpha=alpha)
    return arith_(SUB, input, other)


def mul_(input, other):
    """`input *= other`."""
    return arith_(MUL, input, other)


def div_(input, other, *, rounding_mode=None):
    """`input /= other`."""
    if rounding_mode is not None:
        return change(input, div, other, rounding_mode=rounding_mode)
    return arith_(DIV, input, other)


# --- filling --------------------------------------------------------------------------------------------------------------

def zero_(input):
    """Every element becomes 0."""
    return fill_(input, 0)


def fill_(input, value):
    """Every element becomes `value`, a number or a 0-dim tensor."""
    cdef Tensor x = <Tensor?> input, v
    may_change(x)
    v = typed(value, np.PyArray_TYPE(x.array), "value")
    if np.PyArray_NDIM(v.array):
        raise RuntimeError(f"value: expected a number or a 0-dim tensor, got shape {shape_of(v.array)}")
    if records2(x, v):
        return store(x, stretch(v, shape_of(x.array)))
    np.PyArray_CopyInto(x.array, v.array)
    x.bump()
    return x


def copy_(input, src, non_blocking=False):
    """The elements become those of `src`, cast and broadcast."""
    cdef Tensor x = <Tensor?> input, v
    may_change(x)
    v = typed(src, np.PyArray_TYPE(x.array), "src") if not is_number(src) and records2(x, as_tensor(src, "src")) else None
    if v is not None:
        return store(x, stretch(v, shape_of(x.array)))
    v = as_tensor(src, "src")
    try:
        numpy.copyto(x.array, v.array, "unsafe")
    except ValueError:
        raise RuntimeError(f"src: shape {shape_of(v.array)} does not broadcast to {shape_of(x.array)}") from None
    x.bump()
    return x


def set_values(input, array):
    """Every element becomes that of an array of the same shape, drawn or computed elsewhere; there is no gradient."""
    cdef Tensor x = <Tensor?> input
    may_change(x)
    return store(x, wrap(numpy.asarray(array, x.array.dtype)))


def uniform_(input, a=0.0, b=1.0, *, generator=None):
    """Independent draws from [a, b)."""
    return set_values(input, numpy_generator(generator).uniform(a, b, input.shape))


def normal_(input, mean=0.0, std=1.0, *, generator=None):
    """Independent draws from N(mean, std²)."""
    return set_values(input, numpy_generator(generator).normal(mean, std, input.shape))


def bernoulli_(input, p=0.5, *, generator=None):
    """Independent draws of 1 with probability `p`, else 0."""
    return set_values(input, numpy_generator(generator).random(input.shape) < p)


def exponential_(input, lambd=1.0, *, generator=None):
    """Independent draws with density `lambd * exp(-lambd * x)`."""
    return set_values(input, numpy_generator(generator).exponential(1 / lambd, input.shape))


def random_(input, from_=0, to=None, *, generator=None):
    """Independent draws from the integers `from_` to `to - 1`; by default all that the type holds exactly."""
    if to is None:
        from_, to = (0, from_) if from_ else (0, _limit(input.dtype))
    return set_values(input, numpy_generator(generator).integers(from_, to, input.shape))


def _limit(dtype):
    if dtype.kind == "b":
        return 2
    return numpy.iinfo(dtype).max if dtype.kind in "iu" else 2 ** (numpy.finfo(dtype).nmant + 1)
