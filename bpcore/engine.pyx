"""Backward: the walk over the tape, from the outputs to the leaves."""
cimport cython
cimport numpy as np
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_REFCNT
from numpy cimport ndarray

from bpcore.arith cimport ADD, arith
from bpcore.memory cimport Buffer, empty_like
from bpcore.operand cimport quiet_begin, quiet_end
from bpcore.sparse cimport SparseTensor, add_sparse, add_to_dense, dense_of
from bpcore.tensor cimport Accumulate, Node, Tensor, as_tensor, edge_of, wrap

import numpy

from bpcore.tensor import set_grad_mode

np.import_array()


@cython.final
@cython.freelist(64)
cdef class Pending:
    """A node's state during one backward."""
    cdef Py_ssize_t waiting      # how many gradients are still to come
    cdef object grad             # an array, at a leaf perhaps a SparseTensor; a list of them and Nones for several outputs
    cdef bint owned              # whether `grad` may be added to in place
    cdef bint wanted             # whether what lies behind this node is asked for


cdef object plus(object a, object b, bint owned):
    """a + b of arrays and SparseTensors: a new array or, where `a` is `owned`, that one."""
    if type(a) is SparseTensor:
        if type(b) is SparseTensor:
            return add_sparse(<SparseTensor> a, <SparseTensor> b)
        a, b, owned = b, a, False
    if type(b) is not SparseTensor:
        return arith(ADD, a, b, a if owned else None)
    if not owned:
        a = a.copy()
    add_to_dense(a, <SparseTensor> b)
    return a


cdef inline bint alone(object grad):
    """Whether an array is a pooled one that nobody but the caller holds, so that it may be changed or kept."""
    return Py_REFCNT(grad) <= 1 and type(grad) is not SparseTensor and (
        isinstance(np.get_array_base(<ndarray> grad), Buffer) and np.PyArray_IS_C_CONTIGUOUS(grad))


cdef void add_to(Pending state, Node node, int slot, object grad) except *:
    """Add one gradient to those that arrived at `node`."""
    if node.n_outputs > 1:
        if state.grad is None:
            state.grad = [None] * node.n_outputs
        held = (<list> state.grad)[slot]
        (<list> state.grad)[slot] = grad if held is None else numpy.asarray(held + grad)
    elif state.grad is None:
        state.grad = grad
    else:
        held = state.grad
        state.grad = None
        state.grad = plus(held, grad, state.owned or alone(held))
        state.owned = True


cdef object through_hook(object hook, object grad):
    """`grad` after a hook of a tensor has seen it."""
    result = hook(grad if type(grad) is SparseTensor else wrap(grad))
    if result is None:
        return grad
    if type(result) is SparseTensor:
        if result.shape != grad.shape:
            raise RuntimeError(f"the hook returned a gradient of shape {result.shape}, expected {grad.shape}")
        return result
    cdef object array = as_tensor(result, "the hook's result").array
    if array.shape != grad.shape:
        raise RuntimeError(f"the hook returned a gradient of shape {array.shape}, expected {grad.shape}")
    return numpy.asarray(array, dtype=grad.dtype)


cdef void accumulate(Accumulate node, Pending state, list captured) except *:
    """Run a leaf's hooks and add to its `grad`, or to the captured gradients where the caller asked for this leaf."""
    cdef Tensor leaf = node.leaf()
    cdef object grad = state.grad
    cdef Tensor held
    state.grad = None
    if leaf is None or grad is None:
        return
    if type(grad) is SparseTensor and (<SparseTensor> grad).loose and (
        leaf.hooks is not None or captured is not None or leaf.gradient is None or type(leaf.gradient) is SparseTensor
    ):
        grad = dense_of(<SparseTensor> grad)
        state.owned = True
    if leaf.hooks is not None:
        for hook in leaf.hooks:
            if type(hook) is not tuple:
                grad = through_hook(hook, grad)
    if captured is not None:
        for entry in captured:
            entry[2] = grad
        return
    if type(grad) is SparseTensor or type(leaf.gradient) is SparseTensor:
        accumulate_sparse(leaf, grad)
    elif leaf.gradient is not None:
        held = leaf.gradient
        arith(ADD, held.array, grad, held.array)
        held.bump()
    else:
        # A pooled array that nobody else holds becomes the gradient; anything shared is copied.
        if not (state.owned or alone(grad)):
            fresh = empty_like(grad)
            np.PyArray_CopyInto(fresh, grad)
            grad = fresh
        leaf.gradient = wrap(grad)
    if leaf.hooks is not None:
        for hook in leaf.hooks:
            if type(hook) is tuple:
                hook[0](leaf)


cdef void accumulate_sparse(Tensor leaf, object grad) except *:
    """Add to a leaf's `grad` where it or what is added has only some rows."""
    cdef object held = leaf.gradient
    if held is None:
        leaf.gradient = grad
    elif type(held) is SparseTensor:
        grad = plus(held, grad, False)
        leaf.gradient = grad if type(grad) is SparseTensor else wrap(grad)
    else:
        add_to_dense((<Tensor> held).array, <SparseTensor> grad)
        (<Tensor> held).bump()


cdef dict discover(list roots):
    """Every node that the roots depend on, and how many gradients each will get."""
    cdef dict states = {}
    cdef list stack = []
    cdef Node node
    cdef Pending state
    for root in roots:
        if root not in states:
            states[root] = Pending.__new__(Pending)
            stack.append(root)
    while stack:
        node = <Node> stack.pop()
        if node.edges is None:
            continue
        for item in node.edges:
            if item is None:
                continue
            state = <Pending> states.get(item)
            if state is None:
                state = Pending.__new__(Pending)
                states[item] = state
                stack.append(item)
            state.waiting += 1
    return states


def _order(Node node):
    return -node.order


def run_backward(list tensors, list grads, bint retain_graph=False, inputs=None, bint allow_unused=False):
    """Propagate `grads` (arrays, or None for a scalar's 1) from `tensors` to the leaves.

    Without `inputs` the leaves' `grad` is accumulated and None is returned. With `inputs`, a list of tensors, nothing is
    accumulated and the list of their gradients (arrays or SparseTensors, None where unused) is returned."""
    cdef Tensor t
    cdef Node node, behind
    cdef Pending state
    cdef list roots = [], order, ready, captures = None
    cdef dict states, captured = {}
    cdef tuple edges, slots, several
    cdef object result, grad
    cdef int i
    cdef bint mode

    for i in range(len(tensors)):
        t = <Tensor?> tensors[i]
        if not t.wants_grad():
            raise RuntimeError(f"tensor {i} does not require grad and has no grad_fn")
        if grads[i] is None and np.PyArray_SIZE(t.array) != 1:
            raise RuntimeError(f"grad can be implicitly created only for scalar outputs, got shape {t.shape}")
        if grads[i] is not None and grads[i].shape != t.shape:
            raise RuntimeError(f"gradient {i}: expected shape {t.shape}, got {grads[i].shape}")
        roots.append(edge_of(t))
    states = discover(roots)
    if inputs is not None:
        captures = []
        for item in inputs:
            t = <Tensor?> item
            if not t.wants_grad():
                raise RuntimeError("inputs: one of the tensors does not require grad")
            node = t.node if t.node is not None else t.accumulate
            entry = [node, t.slot, None]
            captures.append(entry)
            if node is not None and node in states:
                captured.setdefault(node, []).append(entry)
    for i in range(len(tensors)):
        t = <Tensor> tensors[i]
        grad = grads[i]
        if grad is None:
            grad = empty_like(t.array)
            grad.fill(1)
        elif grad.dtype != t.dtype:
            grad = grad.astype(t.dtype)
        add_to(<Pending> states[roots[i]], <Node> roots[i], t.slot, grad)
    order = [node for node in states if type(node) is not Accumulate]
    order.sort(key=_order)
    if captures is not None:
        for node in captured:
            (<Pending> states[node]).wanted = True
        for node in reversed(order):
            state = <Pending> states[node]
            for item in node.edges:
                if item is not None and (<Pending> states[item]).wanted:
                    state.wanted = True
                    break
    for item in roots:
        if type(item) is Accumulate and (<Pending> states[item]).waiting == 0:
            if captures is None or item in captured:
                accumulate(<Accumulate> item, <Pending> states[item], captured.get(item))

    mode = set_grad_mode(False)
    quiet = quiet_begin()
    try:
        for item in order:
            PyErr_CheckSignals()
            node = <Node> item
            state = <Pending> states.pop(node)
            edges = node.edges
            slots = node.slots
            grad = state.grad
            state.grad = None
            if captures is not None and not state.wanted:
                grad = None
            if grad is not None:
                if node.n_outputs > 1:
                    grad = tuple(grad)
                if node.hooks is not None:
                    grad = run_hooks(node, grad)
                if captures is not None and node in captured:
                    for entry in captured[node]:
                        entry[2] = grad[entry[1]] if node.n_outputs > 1 else grad
                node.check()
                result = node.backward(grad)
                if not retain_graph:
                    node.release()
            else:
                result = None
            grad = None
            ready = None
            several = <tuple> result if type(result) is tuple else None
            for i in range(len(edges)):
                behind = <Node> edges[i]
                if behind is None:
                    continue
                state = <Pending> states[behind]
                state.waiting -= 1
                if result is not None:
                    grad = result if several is None else several[i]
                    if grad is not None and (captures is None or state.wanted):
                        if not isinstance(grad, ndarray):       # NumPy makes scalars of results without axes
                            if type(grad) is not SparseTensor:
                                grad = numpy.asarray(grad)
                            elif type(behind) is not Accumulate:
                                grad = dense_of(<SparseTensor> grad)
                        add_to(state, behind, 0 if slots is None else slots[i], grad)
                    grad = None
                if state.waiting == 0 and type(behind) is Accumulate:
                    if ready is None:
                        ready = []
                    ready.append(behind)
            result = several = None
            if ready is not None:
                for behind in ready:
                    if captures is None or behind in captured:
                        accumulate(<Accumulate> behind, <Pending> states[behind], captured.get(behind))
    finally:
        quiet_end(quiet)
        set_grad_mode(mode)
    if captures is None:
        return None
    for i in range(len(captures)):
        if captures[i][2] is None and not allow_unused:
            raise RuntimeError(
                f"inputs[{i}]: the outputs do not depend on it; set allow_unused=True to get None for it"
            )
    return [entry[2] for entry in captures]


cdef object run_hooks(Node node, object grad):
    """The gradients of a node's outputs after the hooks of its tensors have seen them."""
    cdef list grads = list(grad) if node.n_outputs > 1 else [grad]
    for slot, hook in list(node.hooks):
        if grads[slot] is not None:
            grads[slot] = through_hook(hook, grads[slot])
    return tuple(grads) if node.n_outputs > 1 else grads[0]
