/* placeholder body, owned by the kernels' author */
static void BP_NAME(exp)(BP_REAL *BP_RESTRICT out, const BP_REAL *BP_RESTRICT x, bp_size n) {
    for (bp_size i = 0; i < n; i++) out[i] = BP_F32 ? expf(x[i]) : exp(x[i]);
}
