/* The kernels of convolution, compiled. */
#ifndef BP_CONV_TABLE_H
#define BP_CONV_TABLE_H

#include "conv_args.h"
#include "gemm_scratch.h"

#define BP_FAMILY bp_conv_table
#define BP_KERNELS BP_CONV_KERNELS
#define BP_BODIES "conv.h"
#include "dispatch.h"

#endif
