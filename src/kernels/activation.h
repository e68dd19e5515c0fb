/* Activations by name and their derivatives, for a vector; softmax for a whole row. */
#ifndef FASTRNN_ACTIVATION_H
#define FASTRNN_ACTIVATION_H

#include "cell.h"
#include "vecmath.h"

INLINE_FAST vec activate(int activation, vec x) {
    switch (activation) {
    case FR_TANH:
        return vtanh(x);
    case FR_RELU:
        return vrelu(x);
    case FR_SIGMOID:
        return vsigmoid(x);
    case FR_HARD_SIGMOID:
        return at_least(at_most((real)0.2 * x + (real)0.5, 1), 0);
    case FR_HARD_SIGMOID_6:
        return at_least(at_most(x + 3, 6), 0) / 6;
    default:
        return x;
    }
}

/* The derivative from the output y = activate(x). */
INLINE_FAST vec activate_backward(int activation, vec y, vec dy) {
    switch (activation) {
    case FR_TANH:
        return dy * (1 - y * y);
    case FR_RELU:
        return select_lanes(y <= 0, (vec){0}, dy);
    case FR_SIGMOID:
        return dy * y * (1 - y);
    case FR_HARD_SIGMOID:
        return select_lanes((y <= 0) | (y >= 1), (vec){0}, dy * (real)0.2);
    case FR_HARD_SIGMOID_6:
        return select_lanes((y <= 0) | (y >= 1), (vec){0}, dy / 6);
    default:
        return dy;
    }
}

/* ---- Softmax over the whole of a row, shifted by its largest entry so that it cannot overflow ---- */

static void softmax_row(real *y, long n) {
    real most = y[0], sum = 0;
    for (long k = 1; k < n; k++) most = y[k] > most ? y[k] : most;
    for (long k = 0; k < n; k += VL) store_part(y + k, vexp_of_negative(load_part(y + k, n - k) - most), n - k);
    for (long k = 0; k < n; k++) sum += y[k];
    for (long k = 0; k < n; k++) y[k] /= sum;
}

#endif
