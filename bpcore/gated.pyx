"""Gated linear units: one half of a layer, put through an activation, multiplies the other. Formulas: kernels/gated.h.

One pass forward; one pass backward makes both gradients from the inputs alone. Written as two operators the activation's output
would be stored too, and read and written twice more.
"""
cimport cython
cimport numpy as np
from numpy cimport NPY_FLOAT, ndarray

from bpcore.again cimport Again, worth
from bpcore.memory cimport contiguous, empty_like
from bpcore.operand cimport cast_tensor, is_real, same_shape
from bpcore.promotion cimport float_type
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records2, wrap
from bpcore.threads cimport parallel_for_checked, range_fn

from bpcore.simd import cpu

np.import_array()


cdef extern from "kernels/gated_table.h":
    const Py_ssize_t BP_GATED_PIECE

    ctypedef struct bp_gated:
        void *y
        const void *gate
        const void *up
        const void *dy
        void *dgate
        void *dup
        Py_ssize_t n

    ctypedef struct bp_gated_kernels:
        range_fn silu, silu_backward, gelu, gelu_backward, gelu_tanh, gelu_tanh_backward

    ctypedef struct bp_gated_table:
        bp_gated_kernels f32
        bp_gated_kernels f64

    const bp_gated_table *bp_choose(const char *wanted)


cdef bytes isa = cpu().encode()
cdef const bp_gated_table *table = bp_choose(isa)

cdef enum Gate:
    SILU
    GELU
    GELU_TANH

cdef double[3] COST = [0.7, 1.0, 0.8]       # nanoseconds an element, float32


# --- arrays ---------------------------------------------------------------------------------------------------------------

cdef void *data(ndarray a) noexcept:
    return NULL if a is None else np.PyArray_DATA(a)


cdef range_fn chosen(Gate gate, int typenum, bint backward) noexcept:
    cdef const bp_gated_kernels *k = &table.f32 if typenum == NPY_FLOAT else &table.f64
    if gate == SILU:
        return k.silu_backward if backward else k.silu
    if gate == GELU:
        return k.gelu_backward if backward else k.gelu
    return k.gelu_tanh_backward if backward else k.gelu_tanh


cdef int run(Gate gate, bp_gated *j, ndarray like, bint backward) except -1:
    cdef int typenum = np.PyArray_TYPE(like)
    j.n = np.PyArray_SIZE(like)
    parallel_for_checked(chosen(gate, typenum, backward), j, (j.n + BP_GATED_PIECE - 1) // BP_GATED_PIECE,
                         BP_GATED_PIECE * COST[<int> gate] * (1 if typenum == NPY_FLOAT else 4) * (1.5 if backward else 1))
    return 0


cdef ndarray forward(Gate gate, ndarray g, ndarray u):
    cdef ndarray y = empty_like(g)
    cdef bp_gated j
    j.y, j.gate, j.up = data(y), data(g), data(u)
    run(gate, &j, g, False)
    return y


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class GatedAgain(Again):
    """y, from the inputs."""
    cdef Gate gate
    cdef ndarray g, u

    cdef ndarray make(self):
        return forward(self.gate, self.g, self.u)


@cython.final
cdef class GatedNode(Node):
    """y = f(gate) up; inputs gate, up."""
    cdef Gate gate
    cdef GatedAgain made           # y, where it is large

    def again(self, int slot):
        return self.made

    cdef void release(self) noexcept:
        self.made = None
        Node.release(self)

    cdef object backward(self, object grad):
        cdef ndarray g, u, dy = contiguous(grad), dg = None, du = None
        cdef bp_gated j
        g, u = self.saved
        if self.needs(0):
            dg = empty_like(g)
        if self.needs(1):
            du = empty_like(g)
        j.gate, j.up, j.dy, j.dgate, j.dup = data(g), data(u), data(dy), data(dg), data(du)
        run(self.gate, &j, g, True)
        return dg, du

    def name(self):
        return "SwigluBackward" if self.gate == SILU else "GegluBackward"


cdef Tensor apply(Gate f, object gate, object up):
    cdef Tensor g = as_tensor(gate, "gate"), u = as_tensor(up, "up"), out
    cdef int typenum = np.PyArray_TYPE(g.array)
    if not same_shape(g.array, u.array):
        raise RuntimeError(f"up: expected the shape of gate, {g.shape}, got {u.shape}")
    if np.PyArray_TYPE(u.array) != typenum:
        raise RuntimeError(f"up: expected the dtype of gate, {g.dtype}, got {u.dtype}")
    if not is_real(typenum):
        if float_type(typenum) != typenum or g.array.dtype.kind == "c":
            raise TypeError(f"gate: expected a floating-point tensor, got {g.dtype}")
        return cast_tensor(apply(f, cast_tensor(g, NPY_FLOAT), cast_tensor(u, NPY_FLOAT)), typenum)
    cdef ndarray left = contiguous(g.array), right = contiguous(u.array)
    cdef ndarray y = forward(f, left, right)
    cdef GatedNode node
    out = wrap(y)
    if records2(g, u):
        node = GatedNode.__new__(GatedNode)
        node.gate = f
        node.guard(g)
        if g.wants_grad():
            node.guard(u)
        else:
            right = None
        if right is not None and worth(y):
            node.made = GatedAgain.__new__(GatedAgain)
            node.made.gate, node.made.g, node.made.u = f, left, right
            node.made.watch(node, y)
        attach(out, node, (g, u), (left, right))
    return out


def swiglu(gate, up):
    """`silu(gate) * up` with `silu(x) = x sigmoid(x)`, the gated unit of LLaMA's layers (Shazeer 2020).

    gate, up: the same shape and dtype, float32 or float64 (half types are computed in float32); the result likewise. Raises
    `RuntimeError` that names the argument whose shape or dtype does not fit.
    """
    return apply(SILU, gate, up)


def geglu(gate, up, str approximate="none"):
    """`gelu(gate) * up` (Shazeer 2020), with the `approximate` of `gelu`: "none" or "tanh".

    Shapes, types and errors as for `swiglu`.
    """
    if approximate != "none" and approximate != "tanh":
        raise RuntimeError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")
    return apply(GELU if approximate == "none" else GELU_TANH, gate, up)
