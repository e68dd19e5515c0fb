/* Connectionist temporal classification: the loss of a sequence whose labels have no times, and its gradient
 * (Graves et al. 2006). T time steps, M classes, U labels, S = 2U+1 states: a blank before, between and after the labels.
 * The equations are written down in fastrnn/reference/ctc.py.
 *
 * # Design:
 * a) Logarithms in double, whatever the dtype of the logits: those of long sequences run to thousands, of which float32
 *    would leave 1e-4 in the gradient; and an untrained network gives paths that no scaling keeps within a double.
 *    Each step's scores are taken relative to the best of them, which keeps them small; the sum of those goes into the loss.
 * b) One step is one pass over the states, a vector of them at a time. "Impossible" is a large negative number, not
 *    -infinity, whose differences would be NaN. NaN stays NaN.
 * c) Forward keeps alpha of all steps; backward keeps one row of beta and writes posteriors over alpha.
 */
#ifndef FASTRNN_CTC_H
#define FASTRNN_CTC_H

#include "cross_entropy.h"

#define CTC_NEVER (-1e300)

INLINE double ctc_bounded(double score) { return score < CTC_NEVER ? CTC_NEVER : score; }

/* Probabilities of a step's classes, into d. Returns the logarithm of what all of them are divided by. */
static double ctc_softmax(const real *x, real *d, long M) {
    vec most = logits_at(x, 0, M), sums = {0};
    for (long m = VL; m < M; m += VL) {
        const vec v = logits_at(x, m, M);
        most = select_lanes(v > most, v, most);
    }
    real max = most[0];
    for (int i = 1; i < VL; i++) max = most[i] > max ? most[i] : max;
    for (long m = 0; m < M; m += VL) {
        const vec e = vexp_of_negative(logits_at(x, m, M) - max);
        store_part(d + m, e, M - m);
        sums += e;
    }
    double sum = 0;
    for (int i = 0; i < VL; i++) sum += sums[i];
    const real factor = 1 / sum;
    for (long m = 0; m < M; m += VL) store_part(d + m, load_part(d + m, M - m) * factor, M - m);
    return max + __builtin_log(sum);
}

/* Probabilities into dlogits; the states' scores, relative to each step's best, whose sum is q->offset. */
static void ctc_scores(fr_ctc *q) {
    q->offset = 0;
    for (long t = 0; t < q->T; t++) {
        const real *x = (const real *)q->logits + t * q->step;
        double *scores = q->scores + t * q->stride, best;
        const double log_sum = ctc_softmax(x, (real *)q->dlogits + t * q->dstep, q->M);
        for (long s = -FR_CTC_PAD; s < q->stride - FR_CTC_PAD; s++) scores[s] = CTC_NEVER;
        best = scores[0] = ctc_bounded(x[q->blank] - log_sum);
        for (long u = 0; u < q->U; u++) {
            const double score = scores[2 * u + 1] = ctc_bounded(x[q->labels[u]] - log_sum);
            best = score > best ? score : best;
        }
        for (long u = 0; u < q->U; u++) scores[2 * u + 1] -= best;
        const double blank = scores[0] - best;
        for (long u = 0; u <= q->U; u++) scores[2 * u] = blank;
        q->offset += best;
    }
}

/* The gradient in the logits, over the probabilities that stand there, from the states' posteriors, which stand in alpha. */
static void ctc_gradient(const fr_ctc *q) {
    const int impossible = q->loss == __builtin_inf();
    const real fill = q->zero_infinity ? (real)0 : (real)__builtin_nan(""), share = q->share;
    for (long t = 0; t < q->T; t++) {
        real *d = (real *)q->dlogits + t * q->dstep;
        const double *posterior = q->alpha + t * q->stride;
        if (impossible) {
            for (long m = 0; m < q->M; m++) d[m] = fill;
            continue;
        }
        double blank = posterior[0];
        for (long u = 1; u <= q->U; u++) blank += posterior[2 * u];
        d[q->blank] -= (real)blank;
        for (long u = 0; u < q->U; u++) d[q->labels[u]] -= (real)posterior[2 * u + 1];
        for (long m = 0; m < q->M; m += VL) store_part(d + m, load_part(d + m, q->M - m) * share, q->M - m);
    }
}

#ifdef FR_DOUBLE /* for logits of either dtype */

/* log x for 1 <= x <= 3: 2 artanh of (x-1) / (x+1), after halving x above 1.5; relative error below 2^-52. */
INLINE vec ctc_log(vec x) {
    const veci large = x > 1.5;
    const vec half = select_lanes(large, x * 0.5, x), z = (half - 1) / (half + 1), z2 = z * z;
    vec p = z2 * (1.0 / 23) + 1.0 / 21;
    UNROLL for (int k = 19; k >= 1; k -= 2) p = p * z2 + 1.0 / k;
    return 2 * z * p + select_lanes(large, splat(0.69314718055994530942), (vec){0});
}

/* log(e^a + e^b + e^c) */
INLINE vec ctc_sum(vec a, vec b, vec c) {
    vec most = select_lanes(b > a, b, a);
    most = select_lanes(c > most, c, most);
    return most + ctc_log(vexp_of_negative(a - most) + vexp_of_negative(b - most) + vexp_of_negative(c - most));
}

static void ctc_forward(const fr_ctc *q) {
    const long S = 2 * q->U + 1;
    for (long t = 0; t < q->T; t++) {
        double *alpha = q->alpha + t * q->stride, *before = alpha - q->stride;
        const double *scores = q->scores + t * q->stride;
        for (long s = -FR_CTC_PAD; s < q->stride - FR_CTC_PAD; s++) alpha[s] = CTC_NEVER;
        if (t == 0) {
            alpha[0] = scores[0];
            if (q->U) alpha[1] = scores[1];
            continue;
        }
        for (long s = 0; s < S; s += VL) {
            const vec skipped = load(before + s - 2) + load(q->skips + s);
            store(alpha + s,
                  at_least(load(scores + s) + ctc_sum(load(before + s), load(before + s - 1), skipped), CTC_NEVER));
        }
    }
}

/* From the last step to the first; `beta` has room for two rows: beta plus scores, and beta. */
static void ctc_backward(const fr_ctc *q, double log_likelihood) {
    const long S = 2 * q->U + 1;
    double *ahead = q->beta, *beta = q->beta + q->stride;
    for (long s = -FR_CTC_PAD; s < q->stride - FR_CTC_PAD; s++) ahead[s] = beta[s] = CTC_NEVER;
    beta[S - 1] = 0;
    if (q->U) beta[S - 2] = 0;
    for (long t = q->T - 1; t >= 0; t--) {
        double *alpha = q->alpha + t * q->stride;
        const double *scores = q->scores + t * q->stride;
        if (t < q->T - 1)
            for (long s = 0; s < S; s += VL) {
                const vec skipped = load(ahead + s + 2) + load(q->skips + s + 2);
                store(beta + s, at_least(ctc_sum(load(ahead + s), load(ahead + s + 1), skipped), CTC_NEVER));
            }
        for (long s = 0; s < S; s += VL) {
            const vec b = load(beta + s);
            store(ahead + s, at_least(b + load(scores + s), CTC_NEVER));
            store(alpha + s, vexp_of_negative(load(alpha + s) + b - log_likelihood));
        }
    }
}

/* The loss, and the states' posteriors in place of alpha. */
static void ctc_paths(fr_ctc *q) {
    if (q->T == 0) {
        q->loss = q->U ? __builtin_inf() : 0;
        return;
    }
    ctc_forward(q);
    const double *last = q->alpha + (q->T - 1) * q->stride + 2 * q->U;
    const vec both = ctc_sum(splat(last[0]), splat(q->U ? last[-1] : CTC_NEVER), splat(CTC_NEVER));
    q->loss = -(both[0] + q->offset);
    if (q->loss > -CTC_NEVER / 2)
        q->loss = __builtin_inf();
    else
        ctc_backward(q, both[0]);
}

#endif

#endif
