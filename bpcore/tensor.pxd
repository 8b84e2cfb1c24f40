# Tensor, Node and the tape.
from numpy cimport ndarray


cdef class Version:
    cdef Py_ssize_t n                  # how often the memory was changed in place; shared by all views of it
    cdef Py_ssize_t recorded           # how many of these changes are on the tape


cdef class Tensor:
    cdef ndarray array
    cdef Version version
    cdef Node node                     # what computed it while the tape was on; None for a leaf
    cdef int slot                      # which of the node's outputs it is
    cdef bint leaf_requires_grad
    cdef bint is_view                  # an alias of another tensor's memory with history of its own
    cdef Tensor base                   # a view: the tensor it looks into, where the tape was on
    cdef Py_ssize_t seen               # a view: version.recorded when it was taken
    cdef bint retains_grad
    cdef object gradient               # Tensor or None
    cdef Accumulate accumulate         # a leaf's end of the tape, made on first use
    cdef list hooks
    cdef object __weakref__

    cdef inline bint wants_grad(self) noexcept:
        return self.leaf_requires_grad or self.node is not None or (self.is_view and self.stale())

    cdef inline bint stale(self) noexcept:
        """Whether a view's memory got a history that it has not taken over yet."""
        return self.seen != self.version.recorded and self.base is not None and self.base.wants_grad()

    cdef inline void bump(self) noexcept:
        self.version.n += 1


cdef class Node:
    cdef object __weakref__
    cdef Py_ssize_t order              # later nodes have larger numbers: the topological order
    cdef int n_outputs
    cdef tuple edges                   # for each input: the Node it came from, or None
    cdef tuple slots                   # for each input: which output of that node; None where all are 0
    cdef tuple saved                   # what backward needs; dropped after backward
    cdef bint released
    cdef list hooks                    # (slot, hooks of a non-leaf tensor) pairs
    cdef Version v0, v1, v2, v3
    cdef Py_ssize_t n0, n1, n2, n3

    cdef object backward(self, object grad)
    cdef void check(self) except *
    cdef void release(self) noexcept
    cdef void guard(self, Tensor t) except *

    cdef inline bint needs(self, int i) noexcept:
        return self.edges[i] is not None


cdef class Accumulate(Node):
    cdef object leaf                   # weak reference: the tape does not keep a leaf alive that nobody can ask


cdef bint grad_mode() noexcept nogil
cdef Node edge_of(Tensor t)
cdef Tensor wrap(ndarray array)
cdef Tensor view_of(Tensor base, ndarray array)
cdef Tensor as_tensor(object value, str name)
cdef bint records(Tensor a) noexcept
cdef bint records2(Tensor a, Tensor b) noexcept
cdef bint recordsn(object tensors) except -1
cdef void attach(Tensor out, Node node, tuple inputs, tuple saved) except *
cdef void attach_slots(tuple outs, Node node, tuple inputs, tuple saved) except *
