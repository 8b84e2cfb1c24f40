"""The kernel table: inner loops compiled once for each instruction set, chosen when the package is imported.

`BPNN_CPU=baseline|avx2|avx512|neon` forces a table; without it the best that the processor can run is taken.
"""
import os

from bpcore.simd cimport bp_table


cdef extern from "kernels/simd_tables.h":
    const bp_table *bp_choose(const char *wanted)


cdef const bp_table *chosen = NULL


cdef const bp_table *kernels() noexcept nogil:
    return chosen


def cpu():
    """Name of the instruction set in use: `"baseline"`, `"avx2"`, `"avx512"` or `"neon"`."""
    return chosen.name.decode()


def _choose():
    global chosen
    wanted = os.environ.get("BPNN_CPU")
    if not wanted:
        chosen = bp_choose(NULL)
        return
    name = wanted.encode()
    chosen = bp_choose(name)
    if chosen is NULL:
        raise RuntimeError(
            f"BPNN_CPU={wanted!r}: this build or processor has no such instruction set; "
            "expected baseline, avx2, avx512 or neon"
        )


_choose()
