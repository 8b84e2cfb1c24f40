/* A family's kernel tables for every instruction set this compiler can produce, and the choice among them.
 *
 * Included once by a module that brings kernels, with defined before it: BP_FAMILY, the type of the table (BP_DECLARE_TABLE);
 * BP_KERNELS, its list; BP_BODIES, the header of the bodies, which is compiled once for each set and type. */
#ifndef BP_DISPATCH_H
#define BP_DISPATCH_H

#include <math.h>
#include <string.h>

#include "macros.h"

#if defined(__aarch64__) || defined(_M_ARM64)
#define BP_ISA neon /* part of the architecture: the baseline is already NEON */
#define BP_WIDTH 16
#include "isa.h"
#undef BP_ISA
#undef BP_WIDTH
static const BP_FAMILY *bp_choose(const char *wanted) {
    return !wanted || !strcmp(wanted, "neon") || !strcmp(wanted, "baseline") ? &BP_CAT(BP_FAMILY, neon) : NULL;
}

#else

#define BP_ISA baseline
#define BP_WIDTH 16
#include "isa.h"
#undef BP_ISA
#undef BP_WIDTH

#if (defined(__x86_64__) || defined(__i386__)) && defined(__clang__)
#define BP_SEVERAL 1
#define BP_TARGET_AVX2 BP_PRAGMA(clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function))
#define BP_TARGET_AVX512 \
    BP_PRAGMA(clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl"))), apply_to = function))
#define BP_TARGET_END BP_PRAGMA(clang attribute pop)
#elif (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#define BP_SEVERAL 1
#define BP_TARGET_AVX2 BP_PRAGMA(GCC push_options) BP_PRAGMA(GCC target("avx2,fma"))
#define BP_TARGET_AVX512 \
    BP_PRAGMA(GCC push_options) BP_PRAGMA(GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512"))
#define BP_TARGET_END BP_PRAGMA(GCC pop_options)
#endif

#ifdef BP_SEVERAL
BP_TARGET_AVX2
#define BP_ISA avx2
#define BP_WIDTH 32
#include "isa.h"
#undef BP_ISA
#undef BP_WIDTH
BP_TARGET_END

BP_TARGET_AVX512
#define BP_ISA avx512
#define BP_WIDTH 64
#include "isa.h"
#undef BP_ISA
#undef BP_WIDTH
BP_TARGET_END

static int bp_has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int bp_has_avx512(void) {
    return bp_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

/* The best table this processor can run, or the one that is asked for by name; NULL where it cannot run. */
static const BP_FAMILY *bp_choose(const char *wanted) {
#ifdef BP_SEVERAL
    if (wanted ? !strcmp(wanted, "avx512") : bp_has_avx512()) return bp_has_avx512() ? &BP_CAT(BP_FAMILY, avx512) : NULL;
    if (wanted ? !strcmp(wanted, "avx2") : bp_has_avx2()) return bp_has_avx2() ? &BP_CAT(BP_FAMILY, avx2) : NULL;
#endif
    return !wanted || !strcmp(wanted, "baseline") ? &BP_CAT(BP_FAMILY, baseline) : NULL;
}
#endif
#endif
