/* Batch and group normalization of x (N, C, S): y = (x - mean) rstd w + b [+ residual], then relu or relu6 if asked for.
 *
 * Sums run over pieces of fixed length in the type of x, relative to an element of the piece, and are merged in double in a fixed
 * order (Chan, Golub and LeVeque 1979): the relative error of a variance is below the piece's length times the rounding of the
 * type however far the mean lies from zero, and no result depends on the number of threads.
 *
 * The mean is used as (T)mean, and what that rounds away goes into the offset:
 *     y  = (x - m) scale + offset,           m = (T)mean, scale = rstd w, offset = b - (mean - m) scale
 *     dx = a g + c (x - m) + d,              g = dy where the activation passed it on
 *     a = rstd w, c = -a rstd^2 s2 / M, d = -a s1 / M - c (mean - m), s1 = sum(g), s2 = sum(g (x - mean)), M elements
 *     dw = rstd s2, db = s1                  and c = d = 0 where mean and rstd are constants */

#include "norm_lines.h"

/* --- channels ------------------------------------------------------------------------------------------------------------- */

/* The mean of a piece of planes `stride` apart, and its sum of squares about that. */
BP_INLINE void BP_NAME(piece_moments)(double *out, const BP_REAL *x, bp_size planes, bp_size stride, bp_size S) {
    double count = 0;
    if (S <= BP_NORM_PIECE) {
        double s = 0, q = 0;
        count = (double)planes * S;
        for (bp_size p = 0; p < planes; p++) BP_NAME(line_moments)(&s, &q, x + p * stride, S, x[0]);
        out[0] = x[0] + s / count;
        out[1] = q - s * s / count;
        return;
    }
    out[0] = out[1] = 0;
    for (bp_size p = 0; p < planes; p++, x += stride) {
        for (bp_size i = 0; i < S; i += BP_NORM_PIECE) {
            const bp_size n = S - i < BP_NORM_PIECE ? S - i : BP_NORM_PIECE;
            double s = 0, q = 0;
            BP_NAME(line_moments)(&s, &q, x + i, n, x[i]);
            BP_NAME(join)(out, &count, x[i] + s / n, q - s * s / n, (double)n);
        }
    }
}

BP_INLINE bp_size BP_NAME(planes_of)(const bp_norm *j, bp_size piece) {
    return j->N - piece * j->step < j->step ? j->N - piece * j->step : j->step;
}

BP_INLINE bp_size BP_NAME(start_of)(const bp_norm *j, bp_size piece, bp_size c) { return (piece * j->step * j->C + c) * j->S; }

BP_INLINE void BP_NAME(one_moments)(bp_norm *j, bp_size piece, bp_size c) {
    BP_NAME(piece_moments)(j->part + 2 * (c * j->pieces + piece), (const BP_REAL *)j->x + BP_NAME(start_of)(j, piece, c),
                           BP_NAME(planes_of)(j, piece), j->C * j->S, j->S);
}

BP_INLINE void BP_NAME(one_merge)(bp_norm *j, bp_size c) {
    double all[2] = {0, 0}, count = 0;
    for (bp_size p = 0; p < j->pieces; p++) {
        const double *one = j->part + 2 * (c * j->pieces + p);
        BP_NAME(join)(all, &count, one[0], one[1], (double)(BP_NAME(planes_of)(j, p) * j->S));
    }
    BP_NAME(keep)(j, c, all, count);
}

BP_INLINE void BP_NAME(one_affine)(bp_norm *j, bp_size piece, bp_size c) {
    const bp_size at = BP_NAME(start_of)(j, piece, c), planes = BP_NAME(planes_of)(j, piece);
    BP_REAL k[BP_NORM_LINES];
    BP_NAME(constants)(k, 1, j, c, j->mean[c], j->rstd[c]);
    for (bp_size p = 0; p < planes; p++) BP_NAME(any_affine)(j, at + p * j->C * j->S, j->S, k, 1, 0);
}

BP_INLINE void BP_NAME(one_sums)(bp_norm *j, bp_size piece, bp_size c) {
    const bp_size at = BP_NAME(start_of)(j, piece, c), planes = BP_NAME(planes_of)(j, piece);
    double *s = j->part + 2 * (c * j->pieces + piece);
    BP_REAL k[BP_NORM_LINES];
    BP_NAME(constants)(k, 1, j, c, j->mean[c], j->rstd[c]);
    s[0] = s[1] = 0;
    for (bp_size p = 0; p < planes; p++) BP_NAME(any_sums)(j, s, at + p * j->C * j->S, j->S, k);
}

/* s = s1 and s2 of a channel. */
BP_INLINE void BP_NAME(one_merge_sums)(const bp_norm *j, double *s, bp_size c) {
    const double mean = j->mean[c];
    s[0] = s[1] = 0;
    for (bp_size p = 0; p < j->pieces; p++) {
        s[0] += j->part[2 * (c * j->pieces + p)];
        s[1] += j->part[2 * (c * j->pieces + p) + 1];
    }
    s[1] -= (mean - (BP_REAL)mean) * s[0];
    if (j->dw) ((BP_REAL *)j->dw)[c] = (BP_REAL)(s[1] * j->rstd[c]);
    if (j->db) ((BP_REAL *)j->db)[c] = (BP_REAL)s[0];
}

BP_INLINE void BP_NAME(one_slopes)(bp_norm *j, bp_size piece, bp_size c, const double *s) {
    const bp_size at = BP_NAME(start_of)(j, piece, c), planes = BP_NAME(planes_of)(j, piece);
    BP_REAL k[BP_NORM_LINES];
    BP_NAME(constants)(k, 1, j, c, j->mean[c], j->rstd[c]);
    BP_NAME(slope_constants)(k, 1, j, c, j->mean[c], j->rstd[c], s, (double)j->N * j->S);
    for (bp_size p = 0; p < planes; p++) BP_NAME(any_slopes)(j, at + p * j->C * j->S, j->S, k, 1, 0);
}

/* Piece by piece, all channels of an image after one another … */
static void BP_NAME(moments)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size i = begin; i < end; i++) BP_NAME(one_moments)(j, i / j->C, i % j->C);
}

static void BP_NAME(merge)(void *job, bp_size begin, bp_size end) {
    for (bp_size c = begin; c < end; c++) BP_NAME(one_merge)(job, c);
}

static void BP_NAME(affine)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size i = begin; i < end; i++) BP_NAME(one_affine)(j, i / j->C, i % j->C);
}

static void BP_NAME(sums)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size i = begin; i < end; i++) BP_NAME(one_sums)(j, i / j->C, i % j->C);
}

static void BP_NAME(merge_sums)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size c = begin; c < end; c++) {
        double s[2];
        BP_NAME(one_merge_sums)(j, s, c);
        j->part[2 * c * j->pieces] = s[0]; /* slopes finds them in the place of the first piece */
        j->part[2 * c * j->pieces + 1] = s[1];
    }
}

static void BP_NAME(slopes)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size i = begin; i < end; i++) {
        const bp_size c = i % j->C;
        BP_NAME(one_slopes)(j, i / j->C, c, j->part + 2 * c * j->pieces);
    }
}

/* … or channel by channel, both passes over one after another, while it is in a cache. */
static void BP_NAME(forward)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size c = begin; c < end; c++) {
        for (bp_size p = 0; p < j->pieces; p++) BP_NAME(one_moments)(j, p, c);
        BP_NAME(one_merge)(j, c);
        for (bp_size p = 0; p < j->pieces; p++) BP_NAME(one_affine)(j, p, c);
    }
}

static void BP_NAME(backward)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size c = begin; c < end; c++) {
        double s[2];
        for (bp_size p = 0; p < j->pieces; p++) BP_NAME(one_sums)(j, p, c);
        BP_NAME(one_merge_sums)(j, s, c);
        for (bp_size p = 0; j->out && p < j->pieces; p++) BP_NAME(one_slopes)(j, p, c, s);
    }
}

#include "norm_columns.h"
#include "norm_groups.h"
