/* A box of the input as planes (conv_table.h): what the taps of its places see, with zeros where the input ends. */

/* One row: its phases, each with every step-th element. */
static void BP_NAME(plane_row)(const bp_conv *g, BP_REAL *BP_RESTRICT out, const BP_REAL *BP_RESTRICT in, bp_size first,
                               bp_size count) {
    const bp_size step = g->step[2], n = count + g->reach[2] / step;
    for (bp_size f = 0; f < step; f++, out += g->phase) {
        if (!g->used[2][f]) continue;
        const bp_size base = first * step + g->lo[2] + f; /* of element 0 */
        if (!in || base >= g->in[2]) {
            for (bp_size j = 0; j < n; j++) out[j] = 0;
            continue;
        }
        bp_size j0 = base < 0 ? (step - 1 - base) / step : 0, j1 = (g->in[2] - base + step - 1) / step;
        if (j0 > n) j0 = n;
        if (j1 > n) j1 = n;
        if (j1 < j0) j1 = j0;
        bp_size j = 0;
        for (; j < j0; j++) out[j] = 0;
        if (step == 1) {
            BP_SIMD for (bp_size i = j0; i < j1; i++) out[i] = in[base + i];
        } else if (step == 2) {
            BP_SIMD for (bp_size i = j0; i < j1; i++) out[i] = in[base + 2 * i];
        } else {
            for (bp_size i = j0; i < j1; i++) out[i] = in[base + i * step];
        }
        for (j = j1; j < n; j++) out[j] = 0;
    }
}

/* The planes of channels c0 to c1 of a box's group, for all of its images. */
static void BP_NAME(conv_planes)(const bp_conv *g, const bp_box *box, bp_size c0, bp_size c1, BP_REAL *out) {
    const bp_size size = g->in[0] * g->in[1] * g->in[2];
    const bp_size depths = (box->count[0] - 1) * g->step[0] + g->reach[0] + 1;
    const bp_size rows = (box->count[1] - 1) * g->step[1] + g->reach[1] + 1;
    const bp_size d0 = box->first[0] * g->step[0] + g->lo[0], h0 = box->first[1] * g->step[1] + g->lo[1];
    for (bp_size n = box->image0; n < box->image1; n++)
        for (bp_size c = c0; c < c1; c++) {
            const BP_REAL *in = (const BP_REAL *)g->x + ((n * g->groups + box->group) * g->channels + c) * size;
            for (bp_size d = 0; d < depths; d++) {
                if (!g->used[0][d % g->step[0]]) continue;
                BP_REAL *to = out + (n - box->image0) * g->image + (c - c0) * g->plane + d * g->depth;
                for (bp_size h = 0; h < rows; h++) {
                    if (!g->used[1][h % g->step[1]]) continue;
                    const int inside = d0 + d >= 0 && d0 + d < g->in[0] && h0 + h >= 0 && h0 + h < g->in[1];
                    BP_NAME(plane_row)(g, to + h * g->row, inside ? in + ((d0 + d) * g->in[1] + h0 + h) * g->in[2] : NULL,
                                       box->first[2], box->count[2]);
                }
            }
        }
}

/* Elements of the planes of so many channels, and a vector beyond that may be read. */
static bp_size BP_NAME(conv_planes_size)(const bp_conv *g, const bp_box *box, bp_size channels) {
    const bp_size n = (box->image1 - box->image0 - 1) * g->image + channels * g->plane;
    return (n + 2 * BP_VL) / BP_VL * BP_VL;
}

/* From a box's first place to row r of it (image, depth, height in turn): in the planes, and in y. */
BP_INLINE bp_size BP_NAME(row_in)(const bp_conv *g, const bp_box *box, bp_size r) {
    const bp_size h = r % box->count[1], d = r / box->count[1] % box->count[0], n = r / box->count[1] / box->count[0];
    return n * g->image + d * g->step[0] * g->depth + h * g->step[1] * g->row;
}

BP_INLINE bp_size BP_NAME(row_out)(const bp_conv *g, const bp_box *box, bp_size r) {
    const bp_size h = box->first[1] + r % box->count[1], d = box->first[0] + r / box->count[1] % box->count[0];
    const bp_size n = r / box->count[1] / box->count[0];
    const bp_size size = g->whole[0] * g->whole[1] * g->whole[2];
    return n * g->groups * g->outputs * size + (d * g->spread[0] + g->start[0]) * g->whole[1] * g->whole[2] +
           (h * g->spread[1] + g->start[1]) * g->whole[2] + box->first[2] * g->spread[2] + g->start[2];
}

/* Where the planes of a box begin: laid out in scratch, or x itself. */
static const BP_REAL *BP_NAME(conv_input)(const bp_conv *g, const bp_box *box, bp_size c0, bp_size c1, BP_REAL *scratch) {
    if (!g->in_place) {
        BP_NAME(conv_planes)(g, box, c0, c1, scratch);
        return scratch;
    }
    return (const BP_REAL *)g->x + box->image0 * g->image + (box->group * g->channels + c0) * g->plane +
           (box->first[0] * g->step[0] + g->lo[0]) * g->depth + (box->first[1] * g->step[1] + g->lo[1]) * g->row +
           box->first[2] + g->lo[2];
}
