/* All kernels for one instruction set. No include guard: simd_tables.h includes this once for each set with
 * BP_ISA (a name such as avx2) and BP_WIDTH (vector bytes) defined, under the matching target pragma. */

#define BP_REAL float
#define BP_F32 1
#define BP_TYPE f32
#define BP_NAME(name) BP_CAT(BP_CAT(name, BP_TYPE), BP_ISA)
#include "families.h"
#undef BP_REAL
#undef BP_F32
#undef BP_TYPE

#define BP_REAL double
#define BP_F32 0
#define BP_TYPE f64
#include "families.h"

#define BP_ENTRIES(type)                                                            \
    {                                                                               \
        .exp = BP_CAT(BP_CAT(exp, type), BP_ISA),                                   \
    }
#define BP_STRING_(x) #x
#define BP_STRING(x) BP_STRING_(x)

static const bp_table BP_CAT(bp_table, BP_ISA) = {
    .name = BP_STRING(BP_ISA),
    .f32 = BP_ENTRIES(f32),
    .f64 = BP_ENTRIES(f64),
};

#undef BP_REAL
#undef BP_F32
#undef BP_TYPE
#undef BP_NAME
#undef BP_ENTRIES
#undef BP_STRING
#undef BP_STRING_
