/* Takes back the names of vectors.h. */
#undef vec
#undef vecu
#undef quad
#undef quadu
#undef BP_VL
#undef BP_NR
#undef BP_MR
#undef BP_Q
#undef BP_PANEL
#undef BP_IN_REGISTER
