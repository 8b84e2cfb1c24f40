"""What a piece of the tape depends on, for code that throws the piece away and computes it again in backward."""
cimport numpy as np

from bpcore.tensor cimport Accumulate, Node, Tensor, attach, wrap

import numpy

np.import_array()


cdef class MarkNode(Node):
    """Remembers a moment: what is recorded later has a larger `order`."""


def mark():
    """A node that is newer than everything recorded before it."""
    cdef Tensor none = wrap(numpy.zeros(0, numpy.float32))
    cdef MarkNode node = MarkNode.__new__(MarkNode)
    attach(none, node, (none,), ())
    return node


def leaves_since(tensors, MarkNode begin):
    """`(leaves, closed)`: the tensors whose `grad` a backward from `tensors` adds to, in the order of their first use, and whether
    everything between was recorded after `begin`. Older nodes are not entered."""
    cdef list stack = [t.grad_fn for t in tensors if isinstance(t, Tensor)], leaves = []
    cdef set seen = set()
    cdef bint closed = True
    cdef Node node
    for t in tensors:
        if isinstance(t, Tensor) and t.is_leaf and t.requires_grad:
            leaves.append(t)
    stack.reverse()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node) is Accumulate:
            leaf = (<Accumulate> node).leaf()
            if leaf is not None:
                leaves.append(leaf)
        elif node.order < begin.order:
            closed = False
        else:
            stack.extend(reversed(node.edges))
    return leaves, closed
