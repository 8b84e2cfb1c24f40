/* Every kernel family for one instruction set and one type: BP_REAL, BP_F32 (1 for float) and BP_NAME are defined. */
#include "vmath.h"
