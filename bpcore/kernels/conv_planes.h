/* A box of the input as planes (conv_table.h): what the taps of its places see, with zeros where the input ends. */

/* n zeros: whole vectors, which go up to a vector beyond them. */
BP_INLINE void BP_NAME(zero_row)(BP_REAL *out, bp_size n) {
#ifdef BP_VECTORS
    for (bp_size j = 0; j < n; j += BP_VL) *(vecu *)(out + j) = (vec){0};
#else
    for (bp_size j = 0; j < n; j++) out[j] = 0;
#endif
}

/* `rows` rows of n elements, ldo and ldi apart: zeros up to j0, in[j0 * step] to in[(j1 - 1) * step], zeros up to n. What exists
 * is read in whole vectors where that stays before `end`, and written so. */
BP_INLINE void BP_NAME(copy_rows)(BP_REAL *out, bp_size ldo, const BP_REAL *in, bp_size ldi, bp_size rows, bp_size n, bp_size j0,
                                  bp_size j1, const bp_size step, const BP_REAL *end) {
    for (bp_size h = 0; h < rows; h++, out += ldo, in += ldi) {
        if (j0 == 1)
            out[0] = 0;
        else if (j0)
            BP_NAME(zero_row)(out, j0);
#ifdef BP_VECTORS
        if (step == 1 && in + j1 <= end) {
            for (bp_size j = j0; j < j1; j += BP_VL) *(vecu *)(out + j) = *(const vecu *)(in + j);
        } else
#endif
            if (step == 2) {
            BP_SIMD for (bp_size j = j0; j < j1; j++) out[j] = in[2 * j];
        } else {
            for (bp_size j = j0; j < j1; j++) out[j] = in[j * step];
        }
        if (j1 == n - 1)
            out[j1] = 0;
        else if (j1 < n)
            BP_NAME(zero_row)(out + j1, n - j1);
    }
}

/* One depth of one channel: rows h0 to h0 + rows, of each of them n elements of each phase from w0 on. */
BP_INLINE void BP_NAME(plane_rows)(const bp_conv *g, BP_REAL *out, const BP_REAL *in, bp_size h0, bp_size rows, bp_size w0,
                                   bp_size n, const bp_size step, const BP_REAL *end) {
    const bp_size ldo = g->row, ldi = g->in[2], phase = g->phase, height = g->in[1], width = g->in[2], every = g->step[1];
    /* All rows at once where each is used and has one phase: the common case. */
    const bp_size first = h0 < 0 ? (-h0 < rows ? -h0 : rows) : 0, last = height - h0 < rows ? height - h0 : rows;
    const bp_size many = step == 1 && every == 1 && last > first ? last - first : 1;
    for (bp_size h = 0; h < rows; h++) {
        if (every > 1 && !g->used[1][h % every]) continue;
        const int inside = h >= first && h < last;
        for (bp_size f = 0; f < step; f++) {
            if (step > 1 && !g->used[2][f]) continue;
            const bp_size w = w0 + f; /* of element 0 */
            bp_size j0 = w < 0 ? (step - 1 - w) / step : 0, j1 = w < width ? (width - w + step - 1) / step : 0;
            if (j0 > n) j0 = n;
            if (j1 > n) j1 = n;
            if (j1 < j0) j1 = j0;
            if (inside)
                BP_NAME(copy_rows)(out + h * ldo + f * phase, ldo, in + (h0 + h) * ldi + w, ldi, many, n, j0, j1, step, end);
            else
                BP_NAME(zero_row)(out + h * ldo + f * phase, n);
        }
        if (inside) h += many - 1;
    }
}

/* The planes of channels c0 to c1 of a box's group, for all of its images. They are laid out from the first row to the last, so
 * that what is written beyond one is overwritten by the next. */
static void BP_NAME(conv_planes)(const bp_conv *g, const bp_box *box, bp_size c0, bp_size c1, BP_REAL *out) {
    const bp_size size = g->in[0] * g->in[1] * g->in[2], step = g->step[2], n = box->count[2] + g->reach[2] / step;
    const bp_size depths = (box->count[0] - 1) * g->step[0] + g->reach[0] + 1;
    const bp_size rows = (box->count[1] - 1) * g->step[1] + g->reach[1] + 1;
    const bp_size d0 = box->first[0] * g->step[0] + g->lo[0], h0 = box->first[1] * g->step[1] + g->lo[1];
    const bp_size w0 = box->first[2] * step + g->lo[2];
    const BP_REAL *const end = (const BP_REAL *)g->x + g->images * g->groups * g->channels * size - BP_VL;
    for (bp_size m = box->image0; m < box->image1; m++)
        for (bp_size c = c0; c < c1; c++) {
            const BP_REAL *in = (const BP_REAL *)g->x + ((m * g->groups + box->group) * g->channels + c) * size;
            for (bp_size d = 0; d < depths; d++) {
                if (!g->used[0][d % g->step[0]]) continue;
                const int inside = d0 + d >= 0 && d0 + d < g->in[0];
                BP_REAL *to = out + (m - box->image0) * g->image + (c - c0) * g->plane + d * g->depth;
                const BP_REAL *from = in + (d0 + d) * g->in[1] * g->in[2];
                if (!inside)
                    BP_NAME(zero_row)(to, g->depth);
                else if (step == 1)
                    BP_NAME(plane_rows)(g, to, from, h0, rows, w0, n, 1, end);
                else if (step == 2)
                    BP_NAME(plane_rows)(g, to, from, h0, rows, w0, n, 2, end);
                else
                    BP_NAME(plane_rows)(g, to, from, h0, rows, w0, n, step, end);
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
