"""The C kernels of convolution, compiled once for each instruction set, and scratch memory for them."""
from libc.stdlib cimport free, malloc

from bpcore.simd import cpu


cdef extern from "kernels/conv_table.h":
    size_t BP_SCRATCH_BYTES
    void *bp_scratch_take() noexcept nogil
    void bp_scratch_give(void *p) noexcept nogil
    const bp_conv_table *bp_choose(const char *wanted)


cdef bytes instructions = cpu().encode()
cdef const bp_conv_table *chosen = bp_choose(instructions)


cdef const bp_conv_table *kernels() noexcept nogil:
    return chosen


cdef void *take_scratch(Py_ssize_t bytes) noexcept nogil:
    return bp_scratch_take() if bytes <= <Py_ssize_t> BP_SCRATCH_BYTES else malloc(bytes)


cdef void give_scratch(void *scratch, Py_ssize_t bytes) noexcept nogil:
    if bytes <= <Py_ssize_t> BP_SCRATCH_BYTES:
        bp_scratch_give(scratch)
    else:
        free(scratch)
