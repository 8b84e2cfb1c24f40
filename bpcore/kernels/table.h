/* The kernel table: one instance for each instruction set, chosen once at import (see simd.pyx).
 *
 * A kernel is a single-threaded loop over contiguous memory: outputs first, then inputs, then sizes. Every kernel
 * exists for float and for double; KERNELS(T) below is the only list of their signatures. To add a kernel: one line here,
 * its body in the header of its family, and one line in isa.h.
 */
#ifndef BP_TABLE_H
#define BP_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef ptrdiff_t bp_size;

#define KERNELS(T)                                                                                        \
    /* activation.h: out[n] = f(x[n]) and dx[n] = dy[n] * f'(saved[n]) */                                 \
    void (*exp)(T *out, const T *x, bp_size n);                                                           \

typedef struct { KERNELS(float) } bp_kernels_f32;
typedef struct { KERNELS(double) } bp_kernels_f64;

typedef struct {
    const char *name; /* "baseline", "avx2", "avx512", "neon" */
    bp_kernels_f32 f32;
    bp_kernels_f64 f64;
} bp_table;

#endif
