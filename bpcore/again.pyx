"""Cheap recomputation: what an activation, a normalization or a gated unit gave to a product is not kept for backward, but made
again from what its own backward keeps anyway. That costs about a pass over memory; the array is often the largest of a layer.

A node whose output can be made again has a method `again(slot)`; an operator that saves an input saves `light(x, array)` and reads
`heavy(saved)` in backward. Small arrays, those that were changed in place, and views are kept as they are.
"""
cimport numpy as np
from numpy cimport ndarray

import weakref

np.import_array()


# Bytes. What is smaller stays in the cache, and a pass over it is not cheap beside small products.
cdef size_t least = 2 << 20


cdef class Again:
    """An array that `make` computes a second time; subclasses hold what it needs."""

    cdef ndarray make(self):
        raise RuntimeError(f"{type(self).__name__} has no make")

    cdef void watch(self, Node node, ndarray array) except *:
        """Stand for `array`, an output of `node`, which has guarded all that it is made of."""
        self.held = weakref.ref(array)
        self.shape = <tuple> (<object> array).shape
        self.label = node.name()
        self.v0, self.v1, self.v2, self.v3 = node.v0, node.v1, node.v2, node.v3
        self.n0, self.n1, self.n2, self.n3 = node.n0, node.n1, node.n2, node.n3

    cdef ndarray array(self):
        """The array: itself where somebody still has it, else made again, once for all that saved it."""
        cdef object a = self.held()
        self.left -= 1
        if a is None:
            self.check()
            a = self.kept if self.kept is not None else self.make()
            self.kept = a
        if self.left <= 0:
            self.kept, self.left = None, self.uses
        return a

    cdef void check(self) except *:
        if (
            (self.v0 is not None and self.v0.n != self.n0) or (self.v1 is not None and self.v1.n != self.n1)
            or (self.v2 is not None and self.v2.n != self.n2) or (self.v3 is not None and self.v3.n != self.n3)
        ):
            raise RuntimeError(f"{self.label}: a tensor needed for backward has been modified by an in-place operation")


cdef bint worth(ndarray a) noexcept:
    return <size_t> np.PyArray_NBYTES(a) >= least


cdef object light(Tensor x, ndarray a):
    cdef Again one
    if x.node is None or x.is_view or x.version.n or not worth(a):
        return a
    made = getattr(x.node, "again", None)
    if made is None:
        return a
    made = made(x.slot)
    if made is None:
        return a
    one = <Again> made
    one.uses += 1
    one.left += 1
    return one


cdef ndarray heavy(object saved):
    return saved if saved is None or isinstance(saved, ndarray) else (<Again> saved).array()


def set_least(size_t size):
    """Make arrays of at least `size` bytes again; returns what it was (2 MiB at first)."""
    global least
    before, least = least, size
    return before
