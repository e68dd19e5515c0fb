/* Softmax cross entropy and its gradient, row by row: three short loops over a row that stays in L1.
 * N rows, M classes. The equations are written down in fastrnn/losses/classes.py.
 */
#ifndef FASTRNN_LOSS_KERNELS_H
#define FASTRNN_LOSS_KERNELS_H

#include "loss.h"
#include "vecmath.h"

/* The next VL logits of a row; past its end -infinity, which no maximum and no sum of exponentials notices. */
INLINE vec logits_at(const real *row, long m, long M) {
    const long lanes = M - m;
    if (lanes >= VL) return load(row + m);
    vec x = splat((real)-__builtin_inf());
    for (int i = 0; i < VL - 1; i++)
        if (i < lanes) x[i] = row[m + i];
    return x;
}

/* Of rows whose class is `ignored`, loss and gradient are 0; `weight`: what a row counts for in the gradient. */
static void cross_entropy(const void *logits, const int64_t *classes, long rows, long M, int64_t ignored, double weight,
                          void *losses, void *dlogits) {
    for (long n = 0; n < rows; n++) {
        const real *x = (const real *)logits + n * M;
        real *d = (real *)dlogits + n * M;
        if (classes[n] == ignored) {
            memset(d, 0, M * sizeof(real));
            ((real *)losses)[n] = 0;
            continue;
        }
        vec most = logits_at(x, 0, M), sums = {0};
        for (long m = VL; m < M; m += VL) {
            const vec v = logits_at(x, m, M);
            most = select_lanes(v > most, v, most);
        }
        real max = most[0]; /* a NaN may be lost here; the sum has it */
        for (int i = 1; i < VL; i++) max = most[i] > max ? most[i] : max;
        for (long m = 0; m < M; m += VL) {
            const vec e = vexp_of_negative(logits_at(x, m, M) - max);
            store_part(d + m, e, M - m);
            sums += e;
        }
        double sum = 0;
        for (int i = 0; i < VL; i++) sum += sums[i];
        const real factor = weight / sum;
        for (long m = 0; m < M; m += VL) store_part(d + m, load_part(d + m, M - m) * factor, M - m);
        d[classes[n]] -= (real)weight;
        ((real *)losses)[n] = __builtin_log(sum) - ((double)x[classes[n]] - max);
    }
}

#endif
