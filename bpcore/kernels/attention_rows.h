/* The rows of a tile of scores: masks, the running softmax, its slopes. Part of attention.h.
 *
 * A row's loops pass over whole vectors, so that there are no single elements left over: scores at either end that it does not see
 * are hidden by -inf, which makes them 0. */

/* The columns of one row: it sees a..b; its loops pass over a0..b1, whole vectors, with hidden scores outside of a..b. */
typedef struct {
    bp_size query, a, b, a0, b1;
} BP_NAME(row_at);
#define row_at BP_NAME(row_at)

BP_INLINE row_at BP_NAME(row_of)(const bp_attention *s, const bp_attention_unit *u, const tile_at *t, bp_size r) {
    row_at w = {t->i + r, 0, 0, 0, 0};
    w.a = BP_MAX(BP_NAME(first_key)(s, u, w.query) - t->j0, t->c0);
    w.b = BP_MIN(BP_NAME(end_key)(s, u, w.query) - t->j0, t->c1);
    if (w.a >= w.b) w.a = w.b = t->c0;
    w.a0 = w.a / s->nr * s->nr;
    w.b1 = w.b > w.a ? (w.b + s->nr - 1) / s->nr * s->nr : w.a0;
    return w;
}

/* What the loops pass over but the row does not see becomes `value`. */
BP_INLINE void BP_NAME(hide)(const row_at *w, BP_REAL *x, BP_REAL value) {
    for (bp_size c = w->a0; c < w->a; c++) x[c] = value;
    for (bp_size c = w->b; c < w->b1; c++) x[c] = value;
}

/* What they do not pass over becomes 0. */
BP_INLINE void BP_NAME(blank)(const row_at *w, const tile_at *t, BP_REAL *x) {
    for (bp_size c = t->c0; c < w->a0; c++) x[c] = 0;
    for (bp_size c = w->b1; c < t->c1; c++) x[c] = 0;
}

/* The scores of one row under the mask; returns the factor, a positive one, that they still want. */
BP_INLINE BP_REAL BP_NAME(masked)(const bp_attention *s, const bp_attention_unit *u, const tile_at *t, bp_size g, const row_at *w,
                                  BP_REAL *x) {
    const BP_REAL scale = (BP_REAL)s->scale;
    const bp_size at = g * s->mask_head + w->query * s->mask_row + t->j0 * s->mask_column, a = w->a, b = w->b;
    if (s->mask_kind == BP_NO_MASK && scale > 0) {
        BP_NAME(hide)(w, x, -BP_INF);
        return scale;
    }
    if (s->mask_kind == BP_NO_MASK) {
        BP_SIMD for (bp_size c = a; c < b; c++) x[c] *= scale;
    } else if (s->mask_kind == BP_BOOL_MASK) {
        const char *mask = (const char *)u->mask + at;
        if (s->mask_column) {
            BP_SIMD for (bp_size c = a; c < b; c++) x[c] = mask[c] ? x[c] * scale : -BP_INF;
        } else {
            for (bp_size c = a; c < b; c++) x[c] = *mask ? x[c] * scale : -BP_INF;
        }
    } else {
        const BP_REAL *mask = (const BP_REAL *)u->mask + at;
        if (s->mask_column) {
            BP_SIMD for (bp_size c = a; c < b; c++) x[c] = x[c] * scale + mask[c];
        } else {
            for (bp_size c = a; c < b; c++) x[c] = x[c] * scale + *mask;
        }
    }
    BP_NAME(hide)(w, x, -BP_INF);
    return 1;
}

/* What dropout makes of the weights of a block of keys: 0 or 1 / (1 - p). */
static void BP_NAME(drop)(const bp_attention *s, const tile_at *t, bp_size query, BP_REAL *kept) {
    uint32_t words[BP_KEYS];
    BP_CAT(attention_words, BP_ISA)(words, s->seed, t->j0 / BP_KEYS, query, t->head);
    const BP_REAL share = (BP_REAL)s->kept;
    const uint32_t threshold = s->threshold;
    BP_SIMD for (bp_size c = 0; c < BP_KEYS; c++) kept[c] = words[c] >= threshold ? share : 0;
}

/* A tile of scores becomes e^(s - peak); o's rows are rescaled to the new peaks, where they hold anything yet. */
static void BP_NAME(exponentials)(const bp_attention *s, const bp_attention_unit *u, const tile_at *t, bp_size g, BP_REAL *x,
                                  BP_REAL *o, BP_REAL *peak, BP_REAL *rsum) {
    for (bp_size r = 0; r < t->m; r++, x += BP_KEYS, o += s->o_row) {
        const row_at w = BP_NAME(row_of)(s, u, t, r);
        BP_NAME(blank)(&w, t, x);
        if (w.a == w.b) continue;
        const BP_REAL factor = BP_NAME(masked)(s, u, t, g, &w, x), before = peak[r];
        const bp_size half = (w.b1 - w.a0) / 2; /* two chains of each reduction, to keep the units busy */
        BP_REAL *y = x + w.a0, *z = y + half, top = -BP_INF, top2 = -BP_INF, sum = 0, sum2 = 0;
        BP_SIMD_MAX(top, top2) for (bp_size c = 0; c < half; c++) {
            top = y[c] > top ? y[c] : top;
            top2 = z[c] > top2 ? z[c] : top2;
        }
        top = BP_MAX(BP_MAX(top, top2) * factor, before);
        if (top == -BP_INF) { /* nothing but hidden keys and NaN */
            for (bp_size c = w.a0; c < w.b1; c++) sum += x[c] = x[c] != x[c] ? x[c] : 0;
            rsum[r] += sum;
            continue;
        }
        BP_SIMD_SUM(sum, sum2) for (bp_size c = 0; c < half; c++) {
            const BP_REAL e = BP_NAME(v_exp_ftz)(y[c] * factor - top), e2 = BP_NAME(v_exp_ftz)(z[c] * factor - top);
            y[c] = e;
            z[c] = e2;
            sum += e;
            sum2 += e2;
        }
        if (top != before) {
            peak[r] = top;
            if (before != -BP_INF) {
                const BP_REAL back = BP_NAME(v_exp_ftz)(before - top);
                rsum[r] *= back;
                BP_SIMD for (bp_size c = 0; c < s->dv; c++) o[c] *= back;
            }
        }
        rsum[r] += sum + sum2;
        if (s->kept != 0) {
            BP_REAL kept[BP_KEYS];
            BP_NAME(drop)(s, t, w.query, kept);
            BP_SIMD for (bp_size c = w.a0; c < w.b1; c++) x[c] *= kept[c];
        }
    }
}

/* A tile of scores x becomes p (under dropout), and dp becomes scale p (dp - delta). */
static void BP_NAME(slopes)(const bp_attention *s, const bp_attention_unit *u, const tile_at *t, bp_size g, BP_REAL *x, BP_REAL *dp,
                            const BP_REAL *peaks, const BP_REAL *rsums, const BP_REAL *deltas) {
    const BP_REAL scale = (BP_REAL)s->scale, outer = u->dmask ? 1 : scale;
    for (bp_size r = 0; r < t->m; r++, x += BP_KEYS, dp += BP_KEYS) {
        const row_at w = BP_NAME(row_of)(s, u, t, r);
        BP_NAME(blank)(&w, t, x);
        BP_NAME(blank)(&w, t, dp);
        if (w.a == w.b) continue;
        const BP_REAL factor = BP_NAME(masked)(s, u, t, g, &w, x);
        const BP_REAL peak = peaks[r], rsum = rsums[r], delta = deltas[r];
        if (s->kept != 0) {
            BP_REAL kept[BP_KEYS];
            BP_NAME(drop)(s, t, w.query, kept);
            BP_SIMD for (bp_size c = w.a0; c < w.b1; c++) {
                const BP_REAL p = BP_NAME(v_exp_ftz)(x[c] * factor - peak) * rsum;
                x[c] = p * kept[c];
                dp[c] = p * (dp[c] * kept[c] - delta) * outer;
            }
        } else {
            BP_SIMD for (bp_size c = w.a0; c < w.b1; c++) {
                const BP_REAL p = BP_NAME(v_exp_ftz)(x[c] * factor - peak) * rsum;
                x[c] = p;
                dp[c] = p * (dp[c] - delta) * outer;
            }
        }
        BP_NAME(hide)(&w, x, 0);
        BP_NAME(hide)(&w, dp, 0);
        if (u->dmask) {
            BP_REAL *to = (BP_REAL *)u->dmask + g * s->dmask_head + w.query * s->dmask_row + t->j0;
            for (bp_size c = w.a; c < w.b; c++) {
                to[c] = dp[c];
                dp[c] *= scale;
            }
        }
    }
}
