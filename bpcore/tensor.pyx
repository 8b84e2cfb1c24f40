# cython: embedsignature=True
"""Tensor, Node and the tape.

An operator computes with arrays and, where the tape is on and an input wants a gradient, hangs a `Node` on its output. A node
knows the nodes its inputs came from (`edges`) and what its backward needs (`saved`). `bpcore.engine` walks them.
"""
cimport cython
cimport numpy as np
from numpy cimport ndarray

import weakref

import numpy

np.import_array()


cdef extern from *:
    """
    #if defined(_MSC_VER)
    static __declspec(thread) int bp_grad_mode = 1;
    #else
    static __thread int bp_grad_mode = 1;
    #endif
    static inline PyObject *bp_new(PyObject *type, PyObject *args) {
        return ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, args, NULL);
    }
    """
    int bp_grad_mode
    object bp_new(object type, object args)


# --- the mode: one switch for each thread ----------------------------------------------------------------------------------

cdef bint grad_mode() noexcept nogil:
    return bp_grad_mode


def is_grad_enabled():
    """Whether operations on this thread are recorded for backward."""
    return bool(bp_grad_mode)


def set_grad_mode(bint enabled):
    """Switch recording on this thread; returns what it was."""
    global bp_grad_mode
    cdef bint before = bp_grad_mode
    bp_grad_mode = enabled
    return before


# --- versions -------------------------------------------------------------------------------------------------------------

@cython.final
@cython.freelist(256)
cdef class Version:
    pass


# --- nodes ----------------------------------------------------------------------------------------------------------------

cdef Py_ssize_t clock = 0


@cython.trashcan(True)
cdef class Node:
    """One operation on the tape. Subclasses implement `backward(grad)`: from the gradient of the output (a tuple of them,
    `None` where nothing came, for a node of several outputs) to the gradient of each input in `edges`: one array for one edge,
    else a tuple; `None` where `needs(i)` is false. They must not write into `grad` but may return it or views of it."""

    cdef object backward(self, object grad):
        raise RuntimeError(f"{type(self).__name__} has no backward")

    cdef void guard(self, Tensor t) except *:
        """Refuse backward if `t`, whose array is saved, is changed in place until then."""
        cdef Version v = t.version
        if self.v0 is None:
            self.v0 = v
            self.n0 = v.n
        elif self.v1 is None:
            self.v1 = v
            self.n1 = v.n
        elif self.v2 is None:
            self.v2 = v
            self.n2 = v.n
        elif self.v3 is None:
            self.v3 = v
            self.n3 = v.n
        else:
            raise RuntimeError("a node guards at most four tensors")

    cdef void check(self) except *:
        """Raise where backward cannot run: its values are gone or were changed."""
        if self.released:
            raise RuntimeError(
                f"{self.name()}: backward through the graph a second time: its saved values were freed by the first; "
                "call backward(retain_graph=True) the first time"
            )
        if (
            (self.v0 is not None and self.v0.n != self.n0) or (self.v1 is not None and self.v1.n != self.n1)
            or (self.v2 is not None and self.v2.n != self.n2) or (self.v3 is not None and self.v3.n != self.n3)
        ):
            raise RuntimeError(
                f"{self.name()}: a tensor needed for backward has been modified by an in-place operation"
            )

    cdef void release(self) noexcept:
        """Drop what backward needed."""
        if self.saved is not None:
            self.saved = None
            self.released = True

    def name(self):
        """The operation's name, such as `AddBackward`."""
        return type(self).__name__.removesuffix("Node") + "Backward"

    def __repr__(self):
        return f"<{self.name()}>"

    @property
    def next_functions(self):
        """`(node, output index)` for each input, as in PyTorch."""
        if self.edges is None:
            return ()
        slots = self.slots or (0,) * len(self.edges)
        return tuple(zip(self.edges, slots))


@cython.final
cdef class Accumulate(Node):
    """The end of the tape at a leaf: its gradient is added to `leaf.grad` (the engine does it)."""


@cython.final
cdef class CallbackNode(Node):
    """A node whose backward is a Python callable of arrays."""
    cdef object callback
    cdef str label

    cdef object backward(self, object grad):
        return self.callback(grad)

    def name(self):
        return self.label


def record(outputs, inputs, callback, str label, guarded=()):
    """Put an operation computed in Python on the tape.

    `outputs`: fresh Tensors; `inputs`: Tensors or None; `callback(grad)` gets an array (a tuple for several outputs) and
    returns an array for one input, else a tuple, `None` where nothing flows. `guarded`: tensors (at most four) that must not
    be changed in place before backward. Does nothing where the tape is off or no input wants a gradient."""
    if not recordsn(inputs):
        return
    cdef CallbackNode node = CallbackNode.__new__(CallbackNode)
    node.callback = callback
    node.label = label
    for t in guarded:
        node.guard(t)
    attach_slots(tuple(outputs), node, tuple(inputs), (callback,))


cdef bint records(Tensor a) noexcept:
    return bp_grad_mode and a.wants_grad()


cdef bint records2(Tensor a, Tensor b) noexcept:
    return bp_grad_mode and (a.wants_grad() or b.wants_grad())


cdef bint recordsn(object tensors) except -1:
    if not bp_grad_mode:
        return False
    for t in tensors:
        if t is not None and (<Tensor?> t).wants_grad():
            return True
    return False


cdef int refresh_view(Tensor t) except -1:
    from bpcore.aliases import refresh          # imported late: it stands on this module
    refresh(t)
    return 0


cdef Node edge_of(Tensor t):
    """The node that a gradient for `t` goes to."""
    if t.is_view and t.seen != t.version.recorded:
        refresh_view(t)
    if t.node is not None:
        return t.node
    if not t.leaf_requires_grad:
        return None
    if t.accumulate is None:
        t.accumulate = Accumulate.__new__(Accumulate)
        t.accumulate.n_outputs = 1
        t.accumulate.leaf = weakref.ref(t)
    return t.accumulate


cdef void connect(Node node, tuple inputs, tuple saved) except *:
    global clock
    node.saved = saved
    find_edges(node, inputs)
    clock += 1                                  # after all that it depends on: a stale view gets a new node in there
    node.order = clock


cdef void find_edges(Node node, tuple inputs) except *:
    cdef Tensor t, u
    cdef bint several = False
    cdef list edges
    if len(inputs) == 1:                        # the two common cases, without lists
        t = <Tensor> inputs[0]
        node.edges = (edge_of(t),)
        if t.slot:
            node.slots = (t.slot,)
        return
    if len(inputs) == 2 and inputs[0] is not None and inputs[1] is not None:
        t, u = <Tensor> inputs[0], <Tensor> inputs[1]
        node.edges = (edge_of(t), edge_of(u))
        if t.slot or u.slot:
            node.slots = (t.slot, u.slot)
        return
    edges = []
    for item in inputs:
        t = <Tensor> item
        if t is None:
            edges.append(None)
        else:
            edges.append(edge_of(t))
            several = several or t.slot != 0
    node.edges = tuple(edges)
    if several:
        node.slots = tuple([0 if item is None else (<Tensor> item).slot for item in inputs])


cdef void attach(Tensor out, Node node, tuple inputs, tuple saved) except *:
    """Make `node` the history of `out`."""
    connect(node, inputs, saved)
    node.n_outputs = 1
    out.node = node


cdef void attach_slots(tuple outs, Node node, tuple inputs, tuple saved) except *:
    """Make `node` the history of several outputs."""
    cdef int i
    cdef Tensor out
    connect(node, inputs, saved)
    node.n_outputs = len(outs)
    for i in range(node.n_outputs):
        out = <Tensor?> outs[i]
        if out is not None:
            out.node = node
            out.slot = i


# --- tensors --------------------------------------------------------------------------------------------------------------

cdef object tensor_type
cdef tuple NO_ARGS = ()
DIFFERENTIABLE = "f"        # dtype kinds that can have a gradient


def set_tensor_type(type cls):
    """Make operators return `cls`, a subclass of `Tensor` (bpnn registers its own, with all the methods)."""
    global tensor_type
    if not issubclass(cls, Tensor):
        raise TypeError(f"cls: expected a subclass of bpcore.tensor.Tensor, got {cls!r}")
    tensor_type = cls


cdef Tensor wrap(ndarray array):
    """A tensor without history around `array`."""
    cdef Tensor t = <Tensor> bp_new(tensor_type, NO_ARGS)
    t.array = array
    t.version = Version.__new__(Version)
    return t


cdef Tensor view_of(Tensor base, ndarray array):
    """A tensor around a NumPy view of `base`'s memory: it shares the version counter."""
    cdef Tensor t = <Tensor> bp_new(tensor_type, NO_ARGS)
    t.array = array
    t.version = base.version
    t.is_view = True
    t.seen = base.version.recorded
    if bp_grad_mode:
        t.base = base.base if base.is_view else base
    return t


cdef Tensor as_tensor(object value, str name):
    """`value` as a Tensor: itself, or an array or number wrapped without a copy."""
    if isinstance(value, Tensor):
        return <Tensor> value
    if isinstance(value, ndarray):
        return wrap(check_dtype(<ndarray> value, name))
    if isinstance(value, (bool, int, float, complex, numpy.generic)):
        return wrap(check_dtype(numpy.asarray(value), name))
    raise TypeError(f"{name}: expected a Tensor, an array or a number, got {type(value).__name__}")


cdef ndarray check_dtype(ndarray a, str name):
    """`a` if its type is one that tensors have: bool, integers, floats (bfloat16 too) or complex, in native byte order."""
    dtype = a.dtype
    if dtype.kind in "biufc" or dtype.name == "bfloat16":
        return a if dtype.isnative else a.astype(dtype.newbyteorder("="))
    raise TypeError(f"{name}: expected an array of numbers or bools, got dtype {dtype}")


def from_array(array, bint requires_grad=False):
    """A tensor that shares the memory of `array` (an ndarray)."""
    if not isinstance(array, ndarray):
        raise TypeError(f"array: expected numpy.ndarray, got {type(array).__name__}")
    cdef Tensor t = wrap(check_dtype(<ndarray> array, "array"))
    if requires_grad:
        t.requires_grad = True
    return t


cdef class Tensor:
    """An n-dimensional array with a place on the tape.

    This class has the state: memory, gradient, history. `bpnn.Tensor` adds PyTorch's methods.
    """

    def __init__(self, data=None):
        if data is None:
            data = numpy.empty(0, numpy.float32)
        elif isinstance(data, Tensor):
            data = (<Tensor> data).array
        self.array = check_dtype(numpy.asarray(data), "data")
        self.version = Version.__new__(Version)

    # memory
    @property
    def shape(self):
        """The sizes of the axes, a tuple."""
        return (<object> self.array).shape

    @property
    def dtype(self):
        """The NumPy dtype."""
        return self.array.dtype

    @property
    def ndim(self):
        """The number of axes."""
        return np.PyArray_NDIM(self.array)

    @property
    def itemsize(self):
        """Bytes in an element."""
        return np.PyArray_ITEMSIZE(self.array)

    @property
    def nbytes(self):
        """Bytes in all elements."""
        return np.PyArray_NBYTES(self.array)

    @property
    def _array(self):
        """The array itself, whatever the tape says; for code that stands on NumPy. Writers call `_changed()`."""
        return self.array

    @property
    def _version(self):
        """How often this memory was changed in place."""
        return self.version.n

    def _changed(self):
        """Count a change of the memory in place."""
        self.bump()

    def size(self, dim=None):
        """The shape, or the size of axis `dim`."""
        shape = self.shape
        return shape if dim is None else shape[dim]

    def numel(self):
        """The number of elements."""
        return np.PyArray_SIZE(self.array)

    def dim(self):
        """The number of axes."""
        return np.PyArray_NDIM(self.array)

    def item(self):
        """The value of a one-element tensor as a Python number."""
        if np.PyArray_SIZE(self.array) != 1:
            raise RuntimeError(f"item(): expected a tensor of one element, got shape {self.shape}")
        return self.array.item()

    def tolist(self):
        """The values as nested lists of Python numbers."""
        return self.array.tolist()

    def numpy(self, *, bint force=False):
        """The values as an ndarray of the same memory. `force=True` allows a tensor that requires grad."""
        if self.wants_grad() and not force:
            raise RuntimeError("numpy(): this tensor requires grad; use tensor.detach().numpy()")
        return self.array

    def __array__(self, dtype=None, copy=None):
        if self.wants_grad():
            raise RuntimeError("a tensor that requires grad cannot become an array; use tensor.detach().numpy()")
        return numpy.array(self.array, dtype=dtype, copy=copy)

    def __dlpack__(self, **keywords):
        if self.wants_grad():
            raise BufferError("a tensor that requires grad cannot be exported; use tensor.detach()")
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def data_ptr(self):
        """The address of the first element."""
        return <size_t> np.PyArray_DATA(self.array)

    def is_contiguous(self):
        """Whether the elements lie in row-major order without gaps."""
        return bool(np.PyArray_IS_C_CONTIGUOUS(self.array))

    # history
    @property
    def is_leaf(self):
        """Whether no recorded operation computed it."""
        return self.grad_fn is None

    @property
    def grad_fn(self):
        """The node that computed it, or None."""
        if self.is_view and self.stale():
            refresh_view(self)
        return self.node

    @property
    def output_nr(self):
        """Which output of `grad_fn` it is."""
        return self.slot

    @property
    def requires_grad(self):
        """Whether backward computes a gradient for it."""
        return self.wants_grad()

    @requires_grad.setter
    def requires_grad(self, bint value):
        if self.node is not None:
            if not value:
                raise RuntimeError("requires_grad: only leaves can be switched off; use tensor.detach()")
            return
        if value and self.array.dtype.kind not in DIFFERENTIABLE and self.array.dtype.name != "bfloat16":
            raise RuntimeError(f"requires_grad: only floating-point tensors can have gradients, got {self.array.dtype}")
        self.leaf_requires_grad = value

    @property
    def grad(self):
        """The gradient that backward accumulated, a Tensor of the same shape, or None."""
        return self.gradient

    @grad.setter
    def grad(self, value):
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad: expected a Tensor or None, got {type(value).__name__}")
            if value.shape != self.shape or value.dtype != self.dtype:
                raise RuntimeError(
                    f"grad: expected shape {self.shape} and dtype {self.dtype}, got {value.shape} and {value.dtype}"
                )
        self.gradient = value

    @property
    def data(self):
        """The same memory without history. In-place changes through it are not seen by the tape's checks."""
        return wrap(self.array)

    @data.setter
    def data(self, value):
        cdef Tensor other = as_tensor(value, "data")
        if self.array.dtype != other.array.dtype and self.wants_grad() and other.array.dtype.kind not in DIFFERENTIABLE:
            raise RuntimeError(f"data: a tensor that requires grad cannot hold {other.array.dtype}")
        self.array = other.array

    def detach(self):
        """The same memory without history; changes in place are still seen by the tape's checks."""
        cdef Tensor t = wrap(self.array)
        t.version = self.version
        return t

    def detach_(self):
        """Forget the history."""
        self.node = None
        self.slot = 0
        self.leaf_requires_grad = False
        return self

    @property
    def _backward_hooks(self):
        return self.hooks

    def register_hook(self, hook):
        """Call `hook(grad)` whenever a gradient for this tensor has been computed; what it returns, unless None, replaces
        the gradient. Returns a handle with `remove()`."""
        if not self.wants_grad():
            raise RuntimeError("register_hook: this tensor does not require grad")
        cdef list hooks
        if self.node is not None:
            entry = (self.slot, hook)
            if self.node.hooks is None:
                self.node.hooks = []
            hooks = self.node.hooks
        else:
            entry = hook
            if self.hooks is None:
                self.hooks = []
            hooks = self.hooks
        hooks.append(entry)
        return RemovableHandle(hooks, entry)

    def register_post_accumulate_grad_hook(self, hook):
        """Call `hook(tensor)` whenever `tensor.grad` of this leaf has been brought up to date."""
        if not self.leaf_requires_grad or self.node is not None:
            raise RuntimeError("register_post_accumulate_grad_hook: expected a leaf that requires grad")
        entry = (hook,)
        if self.hooks is None:
            self.hooks = []
        self.hooks.append(entry)
        return RemovableHandle(self.hooks, entry)

    def retain_grad(self):
        """Keep the gradient of a non-leaf tensor in `grad` too."""
        if not self.wants_grad():
            raise RuntimeError("retain_grad: this tensor does not require grad")
        if self.node is None or self.retains_grad:
            return
        reference = weakref.ref(self)

        def keep(grad):
            cdef Tensor t = reference()
            if t is not None:
                total = grad._array.copy() if t.gradient is None else t.gradient._array + grad._array
                t.gradient = wrap(total)

        self.register_hook(keep)
        self.retains_grad = True

    def _rebase(self, Tensor other):
        """Take over the history of `other`, which computed the new content of this memory (a recorded in-place change)."""
        if self.node is None and self.leaf_requires_grad:
            raise RuntimeError("a leaf that requires grad is changed in place; do it under bpnn.no_grad()")
        if self.is_view:
            from bpcore.aliases import rebase
            rebase(self, other)
            return
        self.node = other.node
        self.slot = other.slot
        self.version.recorded += 1


class RemovableHandle:
    """Removes what was registered."""

    def __init__(self, entries, entry):
        self._entries, self._entry = entries, entry

    def remove(self):
        """Remove it; a second call does nothing."""
        for i, entry in enumerate(self._entries):
            if entry is self._entry:
                del self._entries[i]
                return


tensor_type = Tensor
