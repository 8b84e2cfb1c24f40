/* The kernels of attention, compiled. */
#ifndef BP_ATTENTION_TABLE_H
#define BP_ATTENTION_TABLE_H

#include "attention_args.h"
#include "gemm_scratch.h"

static void *bp_attention_take(size_t bytes) { return bytes <= BP_SCRATCH_BYTES ? bp_scratch_take() : malloc(bytes); }

static void bp_attention_give(void *scratch, size_t bytes) {
    if (bytes <= BP_SCRATCH_BYTES)
        bp_scratch_give(scratch);
    else
        free(scratch);
}

#define BP_FAMILY bp_attention_table
#define BP_KERNELS BP_ATTENTION_KERNELS
#define BP_BODIES "attention.h"
#include "dispatch.h"

#endif
