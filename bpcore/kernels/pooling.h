/* Windows that slide over planes: maxima, and the place of each for backward.
 *
 * A maximum is the first of equal elements, in row-major order, and the last NaN, as in PyTorch: element by element, `v` replaces
 * the best so far where `v > best` or `v` is NaN. */
#define BP_LANES ((bp_size)(BP_WIDTH / sizeof(BP_REAL)))
#define BP_SPAN 64 /* elements of a window beyond the first that are laid out */
#define BP_BEATS(v, best) (((v) > (best)) | ((v) != (v)))

/* The even and the odd elements of two vectors. */
#undef BP_EVEN
#undef BP_ODD
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#if BP_WIDTH == (BP_F32 ? 8 : 16)
#define BP_EVEN 0, 2
#define BP_ODD 1, 3
#elif BP_WIDTH == (BP_F32 ? 16 : 32)
#define BP_EVEN 0, 2, 4, 6
#define BP_ODD 1, 3, 5, 7
#elif BP_WIDTH == (BP_F32 ? 32 : 64)
#define BP_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define BP_ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
#define BP_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define BP_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#endif
#endif

/* --- any window ------------------------------------------------------------------------------------------------------------ */

/* The number of a window's element, as wide as an element; and vectors: compilers do not find these by themselves. */
#define place BP_NAME(place)
#if BP_F32
typedef int32_t place;
#else
typedef int64_t place;
#endif
#ifdef BP_EVEN
#define vreal BP_NAME(vreal)
#define vmask BP_NAME(vmask)
#define vbytes BP_NAME(vbytes)
typedef BP_REAL vreal __attribute__((vector_size(BP_WIDTH), aligned(sizeof(BP_REAL)), may_alias));
typedef place vmask __attribute__((vector_size(BP_WIDTH), aligned(sizeof(BP_REAL)), may_alias));
typedef uint8_t vbytes __attribute__((vector_size(BP_WIDTH / sizeof(BP_REAL)), aligned(1), may_alias));
#endif

/* Element k of n windows, x[0], x[stride], ..., against the best so far. */
BP_INLINE void BP_NAME(max_step)(BP_REAL *best, place *tap, const BP_REAL *x, bp_size stride, bp_size n, place k) {
    bp_size j = 0;
#ifdef BP_EVEN
    for (; stride == 1 && j + BP_LANES <= n; j += BP_LANES) {
        const vreal v = *(const vreal *)(x + j), b = *(const vreal *)(best + j);
        const vmask more = BP_BEATS(v, b), t = *(const vmask *)(tap + j);
        *(vreal *)(best + j) = (vreal)(((vmask)v & more) | ((vmask)b & ~more));
        *(vmask *)(tap + j) = (k & more) | (t & ~more);
    }
#endif
    for (; j < n; j++) {
        if (BP_BEATS(x[j * stride], best[j])) {
            best[j] = x[j * stride];
            tap[j] = k;
        }
    }
}

/* Every `stride`th element of a padded row, from element q of the window at `ow` on; -inf beyond the row. */
static void BP_NAME(lay)(BP_REAL *to, const BP_REAL *row, const bp_window *w, bp_size q, bp_size ow, bp_size count) {
    const bp_size s = w->stride[2], start = ow * s + q - w->pad[2], room = w->size[2] - 1 - start;
    bp_size lo = start < 0 ? (-start + s - 1) / s : 0, hi = room < 0 ? 0 : room / s + 1;
    lo = lo < count ? lo : count;
    hi = hi < count ? hi : count;
    const BP_REAL *from = row + start;
    for (bp_size i = 0; i < lo; i++) to[i] = -INFINITY;
    if (s == 2)
        BP_SIMD for (bp_size i = lo; i < hi; i++) to[i] = from[2 * i];
    else
        for (bp_size i = lo; i < hi; i++) to[i] = from[i * s];
    for (bp_size i = hi > lo ? hi : lo; i < count; i++) to[i] = -INFINITY;
}

/* Where windows are at most two elements apart, each row is first laid out as its even and its odd elements, within its padding:
 * so element k of neighboring windows is contiguous, and all loops are over whole vectors. */
static void BP_NAME(max_row)(BP_REAL *best, place *tap, const BP_REAL *x, const bp_window *w, bp_size od, bp_size oh,
                             bp_size ow, bp_size n) {
    const bp_size depth = w->size[0], height = w->size[1], width = w->size[2], s = w->stride[2];
    const bp_size whole = (n + BP_LANES - 1) / BP_LANES * BP_LANES, span = ((w->kernel[2] - 1) * w->dilation[2]) / s + 1;
    BP_REAL phase[2][BP_TILE_COLS + BP_SPAN];
    place first = -1;
    for (bp_size j = 0; j < whole; j++) best[j] = -INFINITY;
    for (bp_size kd = 0; kd < w->kernel[0]; kd++) {
        const bp_size d = od * w->stride[0] - w->pad[0] + kd * w->dilation[0];
        if (d < 0 || d >= depth) continue;
        for (bp_size kh = 0; kh < w->kernel[1]; kh++) {
            const bp_size h = oh * w->stride[1] - w->pad[1] + kh * w->dilation[1];
            if (h < 0 || h >= height) continue;
            const BP_REAL *row = x + (d * height + h) * width;
            const place k0 = (place)((kd * w->kernel[1] + kh) * w->kernel[2]);
            if (first < 0) { /* where all elements are -inf, the place is that of the first within the plane */
                first = k0;
                for (bp_size j = 0; j < whole; j++) tap[j] = first;
                for (bp_size k = w->kernel[2] - 1; k > 0; k--)
                    for (bp_size j = ow; j < bp_window_lo(w, 2, k - 1) && j < ow + n; j++)
                        if (j >= bp_window_lo(w, 2, k)) tap[j - ow] = first + (place)k;
            }
            if (s <= 2 && span <= BP_SPAN) {
                for (bp_size q = 0; q < s; q++) BP_NAME(lay)(phase[q], row, w, q, ow, whole + span);
                for (bp_size k = 0; k < w->kernel[2]; k++) {
                    const bp_size at = k * w->dilation[2];
                    BP_NAME(max_step)(best, tap, phase[at % s] + at / s, 1, whole, k0 + (place)k);
                }
                continue;
            }
            for (bp_size k = 0; k < w->kernel[2]; k++) {
                bp_size lo = bp_window_lo(w, 2, k), hi = bp_window_hi(w, 2, k);
                lo = lo > ow ? lo : ow;
                hi = hi < ow + n ? hi : ow + n;
                if (lo >= hi) continue;
                BP_NAME(max_step)(best + (lo - ow), tap + (lo - ow), row + lo * s - w->pad[2] + k * w->dilation[2], s, hi - lo,
                                  k0 + (place)k);
            }
        }
    }
}

static void BP_NAME(max_rows)(BP_REAL *y, void *taps, int wide, const BP_REAL *x, const bp_window *w, bp_size begin,
                              bp_size end) {
    const bp_size rows = w->out[0] * w->out[1], cols = w->out[2], plane = w->size[0] * w->size[1] * w->size[2];
    BP_REAL best[BP_TILE_COLS];
    place tap[BP_TILE_COLS];
    for (bp_size r = begin; r < end; r++) {
        const bp_size p = r / rows, od = r % rows / w->out[1], oh = r % w->out[1];
        for (bp_size ow = 0; ow < cols; ow += BP_TILE_COLS) {
            const bp_size n = cols - ow < BP_TILE_COLS ? cols - ow : BP_TILE_COLS;
            BP_NAME(max_row)(best, tap, x + p * plane, w, od, oh, ow, n);
            memcpy(y + r * cols + ow, best, n * sizeof *best);
            if (wide)
                for (bp_size j = 0; j < n; j++) ((int32_t *)taps)[r * cols + ow + j] = (int32_t)tap[j];
            else
                for (bp_size j = 0; j < n; j++) ((uint8_t *)taps)[r * cols + ow + j] = (uint8_t)tap[j];
        }
    }
}

/* offset[k] is the distance of element k from the start of its window. Windows may overlap: a plane is cleared, and while it is
 * still in the cache its gradients are added in their order. */
static void BP_NAME(max_scatter)(BP_REAL *dx, const BP_REAL *dy, const void *taps, int wide, const bp_size *offset,
                                 const bp_window *w, bp_size begin, bp_size end) {
    const bp_size cols = w->out[2], s = w->stride[2], plane = w->size[0] * w->size[1] * w->size[2];
    for (bp_size p = begin; p < end; p++) {
        memset(dx + p * plane, 0, plane * sizeof *dx);
        for (bp_size od = 0; od < w->out[0]; od++)
            for (bp_size oh = 0; oh < w->out[1]; oh++) {
                const bp_size at = ((p * w->out[0] + od) * w->out[1] + oh) * cols;
                const bp_size d = od * w->stride[0] - w->pad[0], h = oh * w->stride[1] - w->pad[1];
                const bp_size start = p * plane + (d * w->size[1] + h) * w->size[2] - w->pad[2];
                if (wide)
                    for (bp_size j = 0; j < cols; j++) dx[start + j * s + offset[((const int32_t *)taps)[at + j]]] += dy[at + j];
                else
                    for (bp_size j = 0; j < cols; j++) dx[start + j * s + offset[((const uint8_t *)taps)[at + j]]] += dy[at + j];
            }
    }
}

/* --- maxima of 2 by 2 without overlap ------------------------------------------------------------------------------------- */

/* Small images have rows shorter than a vector or two. So a row is worked on in whole vectors that may run over its end: what
 * they spoil is the start of the next row, which is written after it. Only what belongs to others is left alone. */
BP_INLINE void BP_NAME(max2_row)(BP_REAL *y, uint8_t *taps, const BP_REAL *x0, const BP_REAL *x1, bp_size n) {
    bp_size j = 0;
#ifdef BP_EVEN
    for (; j + BP_LANES <= n; j += BP_LANES) {
        const vreal p = *(const vreal *)(x0 + 2 * j), q = *(const vreal *)(x0 + 2 * j + BP_LANES);
        const vreal r = *(const vreal *)(x1 + 2 * j), s = *(const vreal *)(x1 + 2 * j + BP_LANES);
        const vreal a = __builtin_shufflevector(p, q, BP_EVEN), b = __builtin_shufflevector(p, q, BP_ODD);
        const vreal c = __builtin_shufflevector(r, s, BP_EVEN), d = __builtin_shufflevector(r, s, BP_ODD);
        const vmask right0 = BP_BEATS(b, a), right1 = BP_BEATS(d, c); /* -1 where true */
        const vreal top = (vreal)(((vmask)b & right0) | ((vmask)a & ~right0));
        const vreal low = (vreal)(((vmask)d & right1) | ((vmask)c & ~right1));
        const vmask below = BP_BEATS(low, top);
        *(vreal *)(y + j) = (vreal)(((vmask)low & below) | ((vmask)top & ~below));
        *(vbytes *)(taps + j) = __builtin_convertvector(((2 - right1) & below) | (-right0 & ~below), vbytes);
    }
#endif
    for (; j < n; j++) {
        const BP_REAL a = x0[2 * j], b = x0[2 * j + 1], c = x1[2 * j], d = x1[2 * j + 1];
        const BP_REAL top = BP_BEATS(b, a) ? b : a, low = BP_BEATS(d, c) ? d : c;
        const int t = BP_BEATS(b, a) ? 1 : 0, u = BP_BEATS(d, c) ? 3 : 2;
        y[j] = BP_BEATS(low, top) ? low : top;
        taps[j] = (uint8_t)(BP_BEATS(low, top) ? u : t);
    }
}

static void BP_NAME(max2_rows)(BP_REAL *y, uint8_t *taps, const BP_REAL *x, bp_size total, const bp_window *w, bp_size begin,
                               bp_size end) {
    const bp_size rows = w->out[1], cols = w->out[2], width = w->size[2], limit = end * cols;
    for (bp_size r = begin; r < end; r++) {
        const bp_size from = (r / rows * w->size[1] + 2 * (r % rows)) * width, at = r * cols;
        bp_size n = (cols + BP_LANES - 1) / BP_LANES * BP_LANES;
        if (at + n > limit || from + width + 2 * n > total) n = cols;
        BP_NAME(max2_row)(y + at, taps + at, x + from, x + from + width, n);
    }
}

BP_INLINE void BP_NAME(max2_put)(BP_REAL *BP_RESTRICT dx, const BP_REAL *BP_RESTRICT dy, const uint8_t *BP_RESTRICT taps,
                                 int32_t k, bp_size n) {
    BP_SIMD for (bp_size j = 0; j < n; j++) {
        const int32_t t = taps[j];
        const BP_REAL g = dy[j];
        dx[2 * j] = t == k ? g : 0;
        dx[2 * j + 1] = t == k + 1 ? g : 0;
    }
}

static void BP_NAME(max2_backward)(BP_REAL *dx, const BP_REAL *dy, const uint8_t *taps, const bp_window *w, bp_size begin,
                                   bp_size end) {
    const bp_size rows = w->out[1], cols = w->out[2], height = w->size[1], width = w->size[2];
    const bp_size limit = (end / rows * height + 2 * (end % rows)) * width; /* where the next thread's rows start */
    for (bp_size r = begin; r < end; r++) {
        BP_REAL *row = dx + (r / rows * height + 2 * (r % rows)) * width;
        for (int32_t k = 0; k < 4; k += 2, row += width) {
            bp_size n = (cols + BP_LANES - 1) / BP_LANES * BP_LANES;
            if (r * cols + n > end * cols || row - dx + 2 * n > limit) n = cols;
            bp_size j = 0;
            for (; j + BP_LANES <= n; j += BP_LANES)
                BP_NAME(max2_put)(row + 2 * j, dy + r * cols + j, taps + r * cols + j, k, BP_LANES);
            BP_NAME(max2_put)(row + 2 * j, dy + r * cols + j, taps + r * cols + j, k, n - j);
            if (width > 2 * cols) row[2 * cols] = 0;
        }
        if (r % rows == rows - 1)
            for (bp_size h = 2 * rows; h < height; h++, row += width) memset(row, 0, width * sizeof *row);
    }
}

#undef BP_LANES
#undef BP_SPAN
#undef BP_BEATS
#undef place
#undef vreal
#undef vmask
#undef vbytes
