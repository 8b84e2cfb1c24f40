/* The same with statistics of each image's groups of `width` channels: contiguous memory. mean, rstd: (N, C / width). In backward
 * part (N, C, 2) takes the sums s1 and s2 of each plane, which weight and bias gather over the images. */

static void BP_NAME(group_forward)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    const bp_size size = j->width * j->S, groups = j->C / j->width;
    for (bp_size i = begin; i < end; i++) {
        double all[2] = {0, 0};
        BP_NAME(piece_moments)(all, (const BP_REAL *)j->x + i * size, 1, 0, size);
        BP_NAME(keep)(j, i, all, (double)size);
        for (bp_size c = 0; c < j->width; c++) {
            BP_REAL k[BP_NORM_LINES];
            BP_NAME(constants)(k, 1, j, i % groups * j->width + c, j->mean[i], j->rstd[i]);
            BP_NAME(any_affine)(j, i * size + c * j->S, j->S, k, 1, 0);
        }
    }
}

static void BP_NAME(group_backward)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    const bp_size size = j->width * j->S, groups = j->C / j->width;
    for (bp_size i = begin; i < end; i++) {
        const double mean = j->mean[i], rstd = j->rstd[i], low = mean - (BP_REAL)mean;
        double *part = j->part + 2 * i * j->width, s[2] = {0, 0};
        for (bp_size c = 0; c < j->width; c++) {
            const bp_size channel = i % groups * j->width + c;
            const double w = j->weight ? ((const BP_REAL *)j->weight)[channel] : 1;
            BP_REAL k[BP_NORM_LINES];
            BP_NAME(constants)(k, 1, j, channel, mean, rstd);
            part[2 * c] = part[2 * c + 1] = 0;
            BP_NAME(any_sums)(j, part + 2 * c, i * size + c * j->S, j->S, k);
            part[2 * c + 1] -= low * part[2 * c];
            s[0] += w * part[2 * c];
            s[1] += w * part[2 * c + 1];
        }
        /* dx = rstd (w g - s1 / M - (x - mean) rstd^2 s2 / M), s1 and s2 with w in them */
        for (bp_size c = 0; j->out && c < j->width; c++) {
            const bp_size channel = i % groups * j->width + c;
            const double slope = -rstd * rstd * rstd * s[1] / size;
            BP_REAL k[BP_NORM_LINES];
            BP_NAME(constants)(k, 1, j, channel, mean, rstd);
            k[3] = k[1];
            k[4] = (BP_REAL)slope;
            k[5] = (BP_REAL)(-rstd * s[0] / size - slope * low);
            BP_NAME(any_slopes)(j, i * size + c * j->S, j->S, k, 1, 0);
        }
    }
}

static void BP_NAME(group_merge)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    const bp_size groups = j->C / j->width;
    for (bp_size c = begin; c < end; c++) {
        double dw = 0, db = 0;
        for (bp_size n = 0; n < j->N; n++) {
            const double *one = j->part + 2 * (n * j->C + c);
            dw += one[1] * j->rstd[n * groups + c / j->width];
            db += one[0];
        }
        if (j->dw) ((BP_REAL *)j->dw)[c] = (BP_REAL)dw;
        if (j->db) ((BP_REAL *)j->db)[c] = (BP_REAL)db;
    }
}
