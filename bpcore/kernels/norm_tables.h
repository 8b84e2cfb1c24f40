/* norm.h compiled for every instruction set; included by batch_norm.pyx alone. */
#include "norm_table.h"

#define BP_FAMILY bp_norm_table
#define BP_KERNELS BP_NORM_KERNELS
#define BP_BODIES "norm.h"
#include "dispatch.h"
