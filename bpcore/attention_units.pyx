"""What attention works on: where its arrays lie, cut into units, and the call of its kernels.

A unit is a sequence and a key-value head with the query heads that share it (kernels/attention_args.h). Packed sequences are units
too, with lengths of their own. A unit's backward, or a query head's forward, is made by one thread in a fixed order.
"""
cimport numpy as np
from numpy cimport NPY_BOOL, NPY_FLOAT, ndarray, npy_intp

from bpcore.memory cimport contiguous, zeros
from bpcore.operand cimport new
from bpcore.simd cimport kernels as tables
from bpcore.threads cimport parallel_for_checked, team_size

from bpcore.simd import cpu

np.import_array()

cdef extern from "kernels/attention_table.h":
    const bp_attention_table *bp_choose(const char *wanted)


cdef bytes isa = cpu().encode()
cdef const bp_attention_table *table = bp_choose(isa)
cdef double RATE = 60                  # multiply-adds in a nanosecond's work of a thread, float32, softmax included
cdef double LONG = 3e7                 # nanoseconds that an item of forward may take


# --- arrays ---------------------------------------------------------------------------------------------------------------

cdef ndarray placed(ndarray a):
    """`a` itself where its last axis is contiguous and its strides are whole elements, else a copy."""
    cdef Py_ssize_t size = np.PyArray_ITEMSIZE(a)
    cdef int i, ndim = np.PyArray_NDIM(a)
    if not np.PyArray_ISBEHAVED_RO(a) or np.PyArray_STRIDE(a, ndim - 1) != size and np.PyArray_DIM(a, ndim - 1) > 1:
        return contiguous(a)
    for i in range(ndim - 1):
        if np.PyArray_STRIDE(a, i) % size:
            return contiguous(a)
    return a


cdef ndarray laid_like(ndarray a, tuple shape):
    """A new array of `shape` (as many axes as `a`) whose axes follow each other in memory as those of `a` do; the last one is
    contiguous."""
    cdef Py_ssize_t last = np.PyArray_NDIM(a) - 1
    cdef tuple strides = <tuple> (<object> a).strides
    cdef list order = sorted(range(last), key=lambda i: -abs(strides[i])) + [last]
    if order == list(range(last + 1)):
        return new(shape, np.PyArray_TYPE(a))
    cdef ndarray made = new(tuple([shape[i] for i in order]), np.PyArray_TYPE(a))
    cdef list back = [0] * (last + 1)
    for i in range(last + 1):
        back[order[i]] = i
    return (<object> made).transpose(back)


cdef Py_ssize_t step(ndarray a, int axis) noexcept:
    """Elements between neighbors on an axis counted from the end; 0 where there is one or no array."""
    if a is None or np.PyArray_NDIM(a) < axis:
        return 0
    cdef int at = np.PyArray_NDIM(a) - axis
    return np.PyArray_STRIDE(a, at) // np.PyArray_ITEMSIZE(a)


# --- units ----------------------------------------------------------------------------------------------------------------

cdef char *unit_of(ndarray a, Py_ssize_t number, Py_ssize_t heads, Py_ssize_t group) noexcept:
    """The first element of a unit's first head: `a` is (…, heads x group, rows, columns), units count (…, heads)."""
    if a is None:
        return NULL
    cdef char *at = <char *> np.PyArray_DATA(a) + number % heads * group * np.PyArray_STRIDE(a, np.PyArray_NDIM(a) - 3)
    cdef int i
    number //= heads
    for i in range(np.PyArray_NDIM(a) - 4, -1, -1):
        at += number % np.PyArray_DIM(a, i) * np.PyArray_STRIDE(a, i)
        number //= np.PyArray_DIM(a, i)
    return at


cdef char *row_of(ndarray a, Py_ssize_t row, Py_ssize_t head) noexcept:
    """The first element of a row of (rows, heads, columns)."""
    if a is None:
        return NULL
    return <char *> np.PyArray_DATA(a) + row * np.PyArray_STRIDE(a, 0) + head * np.PyArray_STRIDE(a, 1)


cdef class Work:
    """One attention, arrays only. Dense: (…, heads, rows, columns), all of the same leading axes. Packed: (rows, heads, columns)
    with the first rows of the sequences in `starts_q` and `starts_k`."""

    cdef int lay_units(self, ndarray q, ndarray k, ndarray v) except -1:
        """The units and their lengths."""
        cdef Py_ssize_t i, n, axis = 2 if self.packed else 3, row = 0
        cdef npy_intp bytes
        cdef bp_attention_unit *u
        cdef const Py_ssize_t *at_q = NULL
        cdef const Py_ssize_t *at_k = NULL
        self.heads = np.PyArray_DIM(k, np.PyArray_NDIM(k) - axis)
        self.s.group = np.PyArray_DIM(q, np.PyArray_NDIM(q) - axis) // self.heads if self.heads else 0
        self.s.d = np.PyArray_DIM(q, np.PyArray_NDIM(q) - 1)
        self.s.dv = np.PyArray_DIM(v, np.PyArray_NDIM(v) - 1)
        if self.packed:
            self.count = (np.PyArray_SIZE(self.starts_q) - 1) * self.heads
        else:
            self.count = self.heads
            for i in range(np.PyArray_NDIM(q) - 3):
                self.count *= np.PyArray_DIM(q, i)
        bytes = self.count * sizeof(bp_attention_unit)
        self.store = zeros(1, &bytes, NPY_BOOL)
        self.units = <bp_attention_unit *> np.PyArray_DATA(self.store)
        self.s.units = self.units
        self.pairs = 0
        if self.packed:
            at_q = <const Py_ssize_t *> np.PyArray_DATA(self.starts_q)
            at_k = <const Py_ssize_t *> np.PyArray_DATA(self.starts_k)
        for i in range(self.count):
            u = self.units + i
            n = i // self.heads
            if self.packed:
                u.tq = at_q[n + 1] - at_q[n]
                u.tk = u.keys = at_k[n + 1] - at_k[n]
            else:
                u.tq = np.PyArray_DIM(q, np.PyArray_NDIM(q) - 2)
                u.tk = u.keys = np.PyArray_DIM(k, np.PyArray_NDIM(k) - 2)
                if self.lengths is not None:
                    u.tk = (<const Py_ssize_t *> np.PyArray_DATA(self.lengths))[n]
            u.row = row
            row += u.tq * self.s.group
            self.pairs += <double> u.tq * u.tk * self.s.group * (0.6 if self.s.causal else 1)
        return 0

    cdef int point(self, ndarray q, ndarray k, ndarray v, ndarray o, ndarray mask, ndarray dout, ndarray dq, ndarray dk, ndarray dv,
                   ndarray dmask) except -1:
        """Where everything lies."""
        cdef bp_attention *s = &self.s
        cdef bp_attention_unit *u
        cdef Py_ssize_t i, head, q0, k0, group = s.group
        cdef int row = 3 if self.packed else 2, head_axis = 5 - row
        cdef int typenum = np.PyArray_TYPE(q)
        s.q_row, s.k_row, s.v_row, s.o_row = step(q, row), step(k, row), step(v, row), step(o, row)
        s.dout_row, s.dq_row, s.dk_row, s.dv_row = step(dout, row), step(dq, row), step(dk, row), step(dv, row)
        s.q_head, s.o_head = step(q, head_axis), step(o, head_axis)
        s.dout_head, s.dq_head = step(dout, head_axis), step(dq, head_axis)
        s.mask_head, s.mask_row, s.mask_column = step(mask, 3), step(mask, 2), step(mask, 1)
        s.dmask_head, s.dmask_row = step(dmask, 3), step(dmask, 2)
        for i in range(self.count):
            u = self.units + i
            if self.packed:
                head = i % self.heads
                q0 = (<const Py_ssize_t *> np.PyArray_DATA(self.starts_q))[i // self.heads]
                k0 = (<const Py_ssize_t *> np.PyArray_DATA(self.starts_k))[i // self.heads]
                u.q, u.o, u.dq = row_of(q, q0, head * group), row_of(o, q0, head * group), row_of(dq, q0, head * group)
                u.dout = row_of(dout, q0, head * group)
                u.k, u.v, u.dk, u.dv = row_of(k, k0, head), row_of(v, k0, head), row_of(dk, k0, head), row_of(dv, k0, head)
            else:
                u.q, u.o = unit_of(q, i, self.heads, group), unit_of(o, i, self.heads, group)
                u.k, u.v = unit_of(k, i, self.heads, 1), unit_of(v, i, self.heads, 1)
                u.mask = unit_of(mask, i, self.heads, group)
                u.dout, u.dq = unit_of(dout, i, self.heads, group), unit_of(dq, i, self.heads, group)
                u.dk, u.dv = unit_of(dk, i, self.heads, 1), unit_of(dv, i, self.heads, 1)
                u.dmask = unit_of(dmask, i, self.heads, group)
        if typenum == NPY_FLOAT:
            s.gemm, s.nr = tables().f32.gemm, tables().f32.gemm_nr()
        else:
            s.gemm, s.nr = tables().f64.gemm, tables().f64.gemm_nr()
        s.pack_f32, s.pack_f64 = tables().f32.gemm_pack, tables().f64.gemm_pack
        s.failed = 0
        return 0

    cdef Py_ssize_t rows(self) noexcept:
        """Query rows of all heads."""
        if self.count == 0:
            return 0
        cdef const bp_attention_unit *last = self.units + self.count - 1
        return last.row + last.tq * self.s.group

    cdef int run(self, bint backward, int typenum) except -1:
        cdef const bp_attention_kernels *family = &table.f32 if typenum == NPY_FLOAT else &table.f64
        cdef Py_ssize_t items = self.count * (1 if backward else self.s.group), longest = 0, i
        cdef double each, ns = self.pairs * (self.s.d + self.s.dv + 32) / RATE * (2.5 if backward else 1)
        if items == 0:
            return 0
        if typenum != NPY_FLOAT:
            ns *= 2
        each = ns / items + 200
        if not backward:               # how rows are shared out changes no bit of them
            for i in range(self.count):
                longest = max(longest, self.units[i].tq)
            self.s.chunks = 1
            if items < 4 * team_size(ns) and team_size(ns) > 1:
                self.s.chunks = (4 * team_size(ns) + items - 1) // items
            self.s.chunks = max(self.s.chunks, <Py_ssize_t> (each / LONG) + 1)
            self.s.chunks = max(1, min(self.s.chunks, longest // (2 * BP_QUERIES)))
            items *= self.s.chunks
            each /= self.s.chunks
        parallel_for_checked(family.backward if backward else family.forward, &self.s, items, each)
        if self.s.failed:
            raise MemoryError("attention: no memory for a tile")
        return 0
