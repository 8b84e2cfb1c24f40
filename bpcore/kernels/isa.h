/* A family's kernels for one instruction set. No include guard: dispatch.h includes this once for each set with
 * BP_ISA (a name such as avx2) and BP_WIDTH (vector bytes) defined, under the matching target pragma. */

#define BP_REAL float
#define BP_F32 1
#define BP_TYPE f32
#define BP_NAME(name) BP_CAT(BP_CAT(name, BP_TYPE), BP_ISA)
#include BP_BODIES
#undef BP_REAL
#undef BP_F32
#undef BP_TYPE

#define BP_REAL double
#define BP_F32 0
#define BP_TYPE f64
#include BP_BODIES

#define BP_ENTRY_F32(result, name, arguments) .name = BP_CAT(BP_CAT(name, f32), BP_ISA),
#define BP_ENTRY_F64(result, name, arguments) .name = BP_CAT(BP_CAT(name, f64), BP_ISA),

static const BP_FAMILY BP_CAT(BP_FAMILY, BP_ISA) = {
    .name = BP_STRING(BP_ISA),
    .f32 = {BP_KERNELS(BP_ENTRY_F32, float)},
    .f64 = {BP_KERNELS(BP_ENTRY_F64, double)},
};

#undef BP_REAL
#undef BP_F32
#undef BP_TYPE
#undef BP_NAME
#undef BP_ENTRY_F32
#undef BP_ENTRY_F64
