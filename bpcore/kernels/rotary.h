/* Pairs (a, b) of a row's elements, rotated: (a cos - b sin, b cos + a sin); backward by the opposite angle. Interleaved pairs are
 * neighbours, the others lie half of the rotated part apart. */
BP_INLINE void BP_NAME(rotate_halves)(BP_REAL *BP_RESTRICT y, const BP_REAL *BP_RESTRICT x, const BP_REAL *BP_RESTRICT c,
                                      const BP_REAL *BP_RESTRICT s, bp_size half, BP_REAL sign) {
    BP_SIMD for (bp_size i = 0; i < half; i++) {
        const BP_REAL a = x[i], b = x[i + half], t = sign * s[i];
        y[i] = a * c[i] - b * t;
        y[i + half] = b * c[i] + a * t;
    }
}

BP_INLINE void BP_NAME(rotate_pairs)(BP_REAL *BP_RESTRICT y, const BP_REAL *BP_RESTRICT x, const BP_REAL *BP_RESTRICT c,
                                     const BP_REAL *BP_RESTRICT s, bp_size half, BP_REAL sign) {
    BP_SIMD for (bp_size i = 0; i < half; i++) {
        const BP_REAL a = x[2 * i], b = x[2 * i + 1], t = sign * s[i];
        y[2 * i] = a * c[i] - b * t;
        y[2 * i + 1] = b * c[i] + a * t;
    }
}

static void BP_NAME(rotate)(void *job, bp_size begin, bp_size end) {
    const bp_rotary *j = job;
    const BP_REAL sign = j->back ? -1 : (BP_REAL)1;
    for (bp_size row = begin; row < end; row++) {
        const bp_size c = row % j->n[2], b = row / j->n[2] % j->n[1], a = row / j->n[2] / j->n[1];
        const bp_size place = a * j->p[0] + b * j->p[1] + c * j->p[2];
        const bp_size at = (j->positions ? (bp_size)j->positions[place] : place) * j->half;
        const BP_REAL *x = (const BP_REAL *)j->x + a * j->s[0] + b * j->s[1] + c * j->s[2];
        const BP_REAL *cosine = (const BP_REAL *)j->cos + at, *sine = (const BP_REAL *)j->sin + at;
        BP_REAL *y = (BP_REAL *)j->y + row * j->d;
        if (j->interleaved) {
            BP_NAME(rotate_pairs)(y, x, cosine, sine, j->half, sign);
        } else {
            BP_NAME(rotate_halves)(y, x, cosine, sine, j->half, sign);
        }
        for (bp_size i = 2 * j->half; i < j->d; i++) y[i] = x[i];
    }
}
