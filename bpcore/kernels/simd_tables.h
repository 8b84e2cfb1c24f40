/* The tables of the kernels that the whole core shares. */
#include "table.h"

#define BP_FAMILY bp_table
#define BP_KERNELS BP_CORE_KERNELS
#define BP_BODIES "families.h"
#include "dispatch.h"
