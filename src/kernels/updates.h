/* The optimisers' steps and gradient clipping: every array is read and written once.
 *
 * # Design:
 * a) Element by element, so that neither the cut into blocks nor the number of threads can change a result. The end of
 *    an array runs through the same code with fewer lanes.
 * b) Clipping happens on the way. What is scaled is bounded before it is used, which keeps the compiler from drawing the
 *    product into a fused multiply-add: clip(), then update() gives the bits of the one pass.
 * c) Numbers come in double and are rounded once, as NumPy and PyTorch round Python's numbers.
 * The formulas are written down in fastrnn/optim/rules.py.
 */
#ifndef FASTRNN_UPDATES_H
#define FASTRNN_UPDATES_H

#include "update.h"
#include "simd.h"

typedef struct {
    real scale, limit, l2_weight_decay, keep_param, rate, momentum, keep, decay_squares, keep_squares, eps;
} update_numbers; /* by value: stores through a real * cannot change them, so they stay in registers */

/* A product that stays one: of two products that are added, which one becomes part of a fused multiply-add would differ
 * between the whole vectors of an array and its end. */
INLINE vec rounded(vec v) {
#if defined(__SSE2__)
    __asm__("" : "+v"(v));
#elif defined(__aarch64__)
    __asm__("" : "+w"(v));
#endif
    return v;
}

/* Up to a vector of one array; rule, nesterov and mostly lanes are constants where this is inlined. */
INLINE void update_vector(const update_numbers u, int rule, int nesterov, real *param, const real *grad, real *slot0,
                          real *slot1, long lanes) {
    const vec p = load_part(param, lanes);
    vec g = at_least(at_most(load_part(grad, lanes) * u.scale, u.limit), -u.limit);
    if (u.l2_weight_decay) g += p * u.l2_weight_decay; /* 0 * infinity would be nan */
    if (rule == FR_RMSPROP) {
        const vec v = load_part(slot0, lanes) * u.decay_squares + rounded(g * g * u.keep_squares);
        store_part(slot0, v, lanes);
        g /= vsqrt(v) + u.eps;
    } else if (rule == FR_ADAGRAD) {
        const vec s = load_part(slot0, lanes) + g * g;
        store_part(slot0, s, lanes);
        g /= vsqrt(s) + u.eps;
    } else if (rule == FR_ADAM) {
        const vec m = load_part(slot0, lanes), m_new = m + (g - m) * u.keep;
        const vec v = load_part(slot1, lanes) * u.decay_squares + rounded(g * g * u.keep_squares);
        store_part(slot0, m_new, lanes);
        store_part(slot1, v, lanes);
        g = m_new / (vsqrt(v) + u.eps);
    }
    real *momentum = rule == FR_SGD ? slot0 : rule == FR_RMSPROP ? slot1 : 0;
    if (momentum) {
        const vec b = load_part(momentum, lanes) * u.momentum + g;
        store_part(momentum, b, lanes);
        g = nesterov ? g + b * u.momentum : b;
    }
    store_part(param, p * u.keep_param - rounded(g * u.rate), lanes);
}

INLINE void update_array(const fr_update *u, int rule, int nesterov, real *param, const real *grad, real *slot0,
                         real *slot1, long count) {
    const update_numbers numbers = {
        u->scale,    u->limit,     u->l2_weight_decay, 1 - u->decoupled_weight_decay, u->rate,
        u->momentum, 1 - u->decay, u->decay_squares,   1 - u->decay_squares,          u->eps,
    };
    long i = 0;
    for (; i + VL <= count; i += VL)
        update_vector(numbers, rule, nesterov, param + i, grad + i, slot0 ? slot0 + i : 0, slot1 ? slot1 + i : 0, VL);
    if (i < count)
        update_vector(numbers, rule, nesterov, param + i, grad + i, slot0 ? slot0 + i : 0, slot1 ? slot1 + i : 0,
                      count - i);
}

static void update(const fr_update *u, void *param, const void *grad, void *slot0, void *slot1, long count) {
    switch (u->rule) {
    case FR_SGD:
        if (!slot0)
            update_array(u, FR_SGD, 0, param, grad, 0, 0, count);
        else if (u->nesterov)
            update_array(u, FR_SGD, 1, param, grad, slot0, 0, count);
        else
            update_array(u, FR_SGD, 0, param, grad, slot0, 0, count);
        break;
    case FR_RMSPROP:
        if (slot1)
            update_array(u, FR_RMSPROP, 0, param, grad, slot0, slot1, count);
        else
            update_array(u, FR_RMSPROP, 0, param, grad, slot0, 0, count);
        break;
    case FR_ADAGRAD:
        update_array(u, FR_ADAGRAD, 0, param, grad, slot0, 0, count);
        break;
    case FR_ADAM:
        update_array(u, FR_ADAM, 0, param, grad, slot0, slot1, count);
        break;
    }
}

static void clip(void *grad, long count, double scale, double limit) {
    real *g = grad;
    const real s = scale, most = limit;
    for (long i = 0; i < count; i += VL) {
        const long lanes = count - i;
        store_part(g + i, at_least(at_most(load_part(g + i, lanes) * s, most), -most), lanes);
    }
}

/* Summed in double, whatever the dtype, in 8 vectors of sums that are added up at the end. */
typedef double wide __attribute__((vector_size(VECTOR_BYTES)));
enum { WIDE = VECTOR_BYTES / sizeof(double), SUMS = 8 };
typedef real narrow __attribute__((vector_size(WIDE * sizeof(real)), aligned(sizeof(real)), may_alias));

static double sum_of_squares(const void *grad, long count) {
    const real *g = grad;
    wide sums[SUMS] = {{0}};
    long i = 0;
    for (; i + SUMS * WIDE <= count; i += SUMS * WIDE) UNROLL for (int k = 0; k < SUMS; k++) {
            const wide v = __builtin_convertvector(*(const narrow *)(g + i + k * WIDE), wide);
            sums[k] += v * v;
        }
    double sum = 0;
    for (; i < count; i++) sum += (double)g[i] * g[i];
    for (int k = 0; k < SUMS; k++)
        for (int lane = 0; lane < WIDE; lane++) sum += sums[k][lane];
    return sum;
}

#endif
