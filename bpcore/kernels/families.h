/* Every kernel family for one instruction set and one type: BP_REAL, BP_F32 (1 for float) and BP_NAME are defined. */
#include "vmath.h"
#include "activation.h"
#include "reduce.h"
#include "rows.h"
#include "losses.h"
#include "dropout.h"
#include "arith.h"
#include "update.h"
