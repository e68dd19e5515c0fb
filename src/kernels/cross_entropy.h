/* Softmax cross entropy and its gradient, row by row: three short loops over a row that stays in L1.
 * N rows, M classes. Rows and classes may have weights, and targets may be smoothed: see fr_classes. The equations are
 * written down in fastrnn/losses/classes.py.
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

/* What one row counts for: its target's weight `own` and the smoothed part `all` of each class, both in the gradient. */
typedef struct {
    double loss, own, all;
} row_shares;

INLINE row_shares shares_of(const fr_classes *t, long n) {
    const double row = t->row_weights ? t->row_weights[n] : 1;
    const double class = t->class_weights ? (double)((const real *)t->class_weights)[t->classes[n]] : 1;
    const double own = row * class * t->kept, all = row * t->smoothing;
    return (row_shares){own, own * t->share, all * t->share};
}

/* The sum over all classes of their weight times (max - x), which smoothing adds to the loss beside log(sum). */
static double weighted_distances(const fr_classes *t, const real *x, real max, long M) {
    const real *w = t->class_weights;
    double sum = 0;
    for (long m = 0; m < M; m++) sum += (w ? (double)w[m] : 1) * ((double)max - x[m]);
    return sum;
}

/* d = what the smoothed targets of a row leave of its probabilities d / sum; the target itself is subtracted after. */
INLINE void smoothed_gradient(const fr_classes *t, row_shares s, double sum, real *d, long M) {
    const real factor = (s.own + s.all * t->class_total) / sum, all = s.all;
    const real *w = t->class_weights;
    for (long m = 0; m < M; m += VL) {
        const vec each = w ? load_part(w + m, M - m) * all : splat(all);
        store_part(d + m, load_part(d + m, M - m) * factor - each, M - m);
    }
}

/* Rows n from first on, whose logits, losses and gradients begin where the pointers lead; of rows whose class is the
 * ignored one, loss and gradient are 0. */
static void cross_entropy(const void *logits, const fr_classes *t, long first, long rows, long M, void *losses,
                          void *dlogits) {
    for (long n = 0; n < rows; n++) {
        const real *x = (const real *)logits + n * M;
        real *d = (real *)dlogits + n * M;
        const int64_t class = t->classes[first + n];
        if (class == t->ignored) {
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
        const row_shares s = shares_of(t, first + n);
        double loss = s.loss * (__builtin_log(sum) - ((double)x[class] - max));
        if (t->smoothing) {
            const double row = t->row_weights ? t->row_weights[first + n] : 1;
            loss += row * t->smoothing * (t->class_total * __builtin_log(sum) + weighted_distances(t, x, max, M));
            smoothed_gradient(t, s, sum, d, M);
        } else {
            const real factor = s.own / sum;
            for (long m = 0; m < M; m += VL) store_part(d + m, load_part(d + m, M - m) * factor, M - m);
        }
        d[class] -= (real)s.own;
        ((real *)losses)[n] = loss;
    }
}

#endif
