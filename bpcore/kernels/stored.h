/* Stored numbers as real ones. bfloat16 is the upper half of a float32. int8: out_i = scale_b q_i, one scale for each block b of
 * BP_STORED_BLOCK numbers of a row; the last block may be short. */
static void BP_NAME(widen_bfloat16)(BP_REAL *out, const uint16_t *bits, bp_size n) {
    BP_SIMD for (bp_size i = 0; i < n; i++) {
        const union {
            uint32_t bits;
            float value;
        } wide = {(uint32_t)bits[i] << 16};
        out[i] = wide.value;
    }
}

static void BP_NAME(widen_int8)(BP_REAL *out, const int8_t *q, const float *scale, bp_size n) {
    for (bp_size b = 0; b < n; b += BP_STORED_BLOCK) {
        const bp_size last = b + BP_STORED_BLOCK < n ? b + BP_STORED_BLOCK : n;
        const float s = scale[b / BP_STORED_BLOCK];
        BP_SIMD for (bp_size i = b; i < last; i++) out[i] = s * (float)q[i];
    }
}
