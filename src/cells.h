/* The cells: how each is cut into products, and what it does with their sums. Backward stands under its forward.
 *
 * A pass is one product over K with the sums of one panel in `acc`, (rows, accumulators, VL), and one finishing
 * function. Two kinds of panel: all gates of one unit block (LSTM, GRU), or one gate of up to four unit blocks.
 * Rows are counted within the batch; `block` is a unit block, units block*VL..block*VL+VL-1 of H.
 *
 * Saved slots per unit block, gates in forward, gradients of the pre-activations in backward (written over them):
 *     LSTM  i f g o            GRU  n r z hn (hn = W_hn h + b_hn, its gradient feeds the recurrent side)
 *     RNN   -> d               GRU, reset before  n r z
 * so that the input side of a GRU reads slots 0-2 and the recurrent side slots 1-3: contiguous, both.
 */
#ifndef FASTRNN_CELLS_H
#define FASTRNN_CELLS_H

#include "tile.h"
#include "vecmath.h"

/* What a finishing function sees of one time step: pointers to row 0 of the batch, unit 0. */
typedef struct {
    long H, Hp;
    int activation;
    const real *h_prev; /* (N, H) rows h_prev_row apart */
    long h_prev_row;
    real *h; /* (N, H) rows h_row apart; in backward the forward's output, read */
    long h_row;
    const real *c_prev; /* (N, Hp) */
    real *c;            /* (N, Hp) */
    real *gates;        /* (N, HB, S, VL) or NULL */
    real *reset;        /* (N, Hp) r * h_prev */
    const real *doutput; /* (N, H) rows doutput_row apart, or NULL */
    long doutput_row;
    const real *dh_n; /* (N, H) on the last step, else NULL */
    real *carry;      /* (N, Hp) */
} cell_step;

typedef void finish_function(const cell_step *, long row, int rows, long block, int blocks, const real *acc, long acc_row);
#define FINISH_ARGS const cell_step *s, long row, int rows, long block, int blocks, const real *acc, long acc_row

/* Lanes of a unit block that are units; and the gradient that reaches h from outside the recurrence. */
INLINE long lanes_of(const cell_step *s, long block) { return s->H - block * VL; }
INLINE vec dh_from_outside(const cell_step *s, long row, long block) {
    vec dh = {0};
    if (s->doutput) dh = load_part(s->doutput + row * s->doutput_row + block * VL, lanes_of(s, block));
    if (s->dh_n) dh += load_part(s->dh_n + row * s->H + block * VL, lanes_of(s, block));
    return dh;
}

/* ---- LSTM: acc = i f g o before their activations ---- */

static void lstm_forward(FINISH_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    for (long n = row; n < row + rows; n++, acc += acc_row) {
        vec i = vsigmoid(load(acc)), f = vsigmoid(load(acc + VL));
        vec g = vtanh(load(acc + 2 * VL)), o = vsigmoid(load(acc + 3 * VL));
        vec c = f * load(s->c_prev + n * s->Hp + unit) + i * g;
        store(s->c + n * s->Hp + unit, c);
        store_part(s->h + n * s->h_row + unit, o * vtanh(c), lanes);
        if (s->gates) {
            real *gates = s->gates + (n * s->Hp + unit) * 4;
            store(gates, i), store(gates + VL, f), store(gates + 2 * VL, g), store(gates + 3 * VL, o);
        }
    }
}

/* acc = dh from the step after; carry = dc */
static void lstm_backward(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL;
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 4, *carry = s->carry + n * s->Hp + unit;
            vec i = load(gates), f = load(gates + VL), g = load(gates + 2 * VL), o = load(gates + 3 * VL);
            vec dh = load(acc + (n - row) * acc_row + b * VL) + dh_from_outside(s, n, block + b);
            vec tanh_c = vtanh(load(s->c + n * s->Hp + unit));
            vec dc = load(carry) + dh * o * (1 - tanh_c * tanh_c);
            store(gates, dc * g * i * (1 - i));
            store(gates + VL, dc * load(s->c_prev + n * s->Hp + unit) * f * (1 - f));
            store(gates + 2 * VL, dc * i * (1 - g * g));
            store(gates + 3 * VL, dh * tanh_c * o * (1 - o));
            store(carry, dc * f);
        }
    }
}

/* ---- GRU, reset after the product (PyTorch, cuDNN): acc = n's input part, r, z, hn ---- */

static void gru_forward(FINISH_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    for (long n = row; n < row + rows; n++, acc += acc_row) {
        vec hn = load(acc + 3 * VL);
        vec r = vsigmoid(load(acc + VL)), z = vsigmoid(load(acc + 2 * VL));
        vec candidate = vtanh(load(acc) + r * hn);
        vec h = candidate + z * (load_part(s->h_prev + n * s->h_prev_row + unit, lanes) - candidate);
        store_part(s->h + n * s->h_row + unit, h, lanes);
        if (s->gates) {
            real *gates = s->gates + (n * s->Hp + unit) * 4;
            store(gates, candidate), store(gates + VL, r), store(gates + 2 * VL, z), store(gates + 3 * VL, hn);
        }
    }
}

/* acc + carry = dh from the step after; carry becomes the direct part of dh_prev */
static void gru_backward(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 4, *carry = s->carry + n * s->Hp + unit;
            vec candidate = load(gates), r = load(gates + VL), z = load(gates + 2 * VL), hn = load(gates + 3 * VL);
            vec dh = load(acc + (n - row) * acc_row + b * VL) + load(carry) + dh_from_outside(s, n, block + b);
            vec h_prev = load_part(s->h_prev + n * s->h_prev_row + unit, lanes);
            vec dn = dh * (1 - z) * (1 - candidate * candidate);
            store(gates, dn);
            store(gates + VL, dn * hn * r * (1 - r));
            store(gates + 2 * VL, dh * (h_prev - candidate) * z * (1 - z));
            store(gates + 3 * VL, dn * r);
            store(carry, dh * z);
        }
    }
}

/* ---- GRU, reset before the product (Cho et al., ONNX default): r and z first, then n from r * h ---- */

static void gru_reset_before_gates_forward(FINISH_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    for (long n = row; n < row + rows; n++, acc += acc_row) {
        real *gates = s->gates + (n * s->Hp + unit) * 3;
        vec r = vsigmoid(load(acc));
        store(gates + VL, r), store(gates + 2 * VL, vsigmoid(load(acc + VL)));
        store(s->reset + n * s->Hp + unit, r * load_part(s->h_prev + n * s->h_prev_row + unit, lanes));
    }
}

static void gru_reset_before_forward(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 3;
            vec candidate = vtanh(load(acc + (n - row) * acc_row + b * VL));
            vec h_prev = load_part(s->h_prev + n * s->h_prev_row + unit, lanes);
            store(gates, candidate);
            store_part(s->h + n * s->h_row + unit, candidate + load(gates + 2 * VL) * (h_prev - candidate), lanes);
        }
    }
}

/* First pass: acc + carry = dh from the step after. */
static void gru_reset_before_backward(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 3, *carry = s->carry + n * s->Hp + unit;
            vec candidate = load(gates), z = load(gates + 2 * VL);
            vec dh = load(acc + (n - row) * acc_row + b * VL) + load(carry) + dh_from_outside(s, n, block + b);
            vec h_prev = load_part(s->h_prev + n * s->h_prev_row + unit, lanes);
            store(gates, dh * (1 - z) * (1 - candidate * candidate));
            store(gates + 2 * VL, dh * (h_prev - candidate) * z * (1 - z));
            store(carry, dh * z);
        }
    }
}

/* Second pass: acc = d(r * h_prev), from dn of the same step. */
static void gru_reset_before_gates_backward(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 3, *carry = s->carry + n * s->Hp + unit;
            vec dreset = load(acc + (n - row) * acc_row + b * VL), r = load(gates + VL);
            vec h_prev = load_part(s->h_prev + n * s->h_prev_row + unit, lanes);
            store(gates + VL, dreset * h_prev * r * (1 - r));
            store(carry, load(carry) + dreset * r);
        }
    }
}

/* ---- Elman RNN: acc = the pre-activation ---- */

INLINE vec activate(int activation, vec x) {
    switch (activation) {
    case FR_TANH: return vtanh(x);
    case FR_RELU: return vrelu(x);
    case FR_SIGMOID: return vsigmoid(x);
    default: return x;
    }
}

/* The derivative from the output y = activate(x). */
INLINE vec activate_backward(int activation, vec y, vec dy) {
    switch (activation) {
    case FR_TANH: return dy * (1 - y * y);
    case FR_RELU: return select_lanes(y <= 0, (vec){0}, dy);
    case FR_SIGMOID: return dy * y * (1 - y);
    default: return dy;
    }
}

static void rnn_forward(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++)
            store_part(s->h + n * s->h_row + unit, activate(s->activation, load(acc + (n - row) * acc_row + b * VL)), lanes);
    }
}

static void rnn_backward(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            vec dh = load(acc + (n - row) * acc_row + b * VL) + dh_from_outside(s, n, block + b);
            vec h = load_part(s->h + n * s->h_row + unit, lanes);
            store(s->gates + n * s->Hp + unit, activate_backward(s->activation, h, dh));
        }
    }
}

/* ---- The cut of each cell ---- */

typedef struct {
    int gates;                     /* per panel; 1: a panel holds one gate of up to four unit blocks */
    int x_gates[4], h_gates[4];    /* row blocks of weight_ih and weight_hh, in panel order */
    int accumulators;              /* per unit block */
    int h_first;                   /* accumulator at which the recurrent product starts (the input's starts at 0) */
    int reads_reset;               /* the recurrent operand is r * h_prev, made by the pass before */
    finish_function *finish;
} forward_pass;

typedef struct {
    int first_slot, slots;         /* of the gate gradients that are multiplied with weight_hh */
    int gates[4];                  /* their row blocks of weight_hh */
    int same_step;                 /* of this step (the forward's operand was r * h_prev), else of the step after */
    finish_function *finish;
} backward_pass;

typedef struct {
    int slots, passes;
    forward_pass forward[2];
    int x_slots, x_gates[4]; /* gate gradients that reach the input, from slot 0, and their row blocks of weight_ih */
    backward_pass backward[2];
    int carries_dh; /* the direct part of dh_prev is in carry */
} cell_cut;

static const cell_cut cuts[] = {
    [FR_LSTM] = {4, 1, {{4, {0, 1, 2, 3}, {0, 1, 2, 3}, 4, 0, 0, lstm_forward}},
                 4, {0, 1, 2, 3}, {{0, 4, {0, 1, 2, 3}, 0, lstm_backward}}, 0},
    [FR_GRU] = {4, 1, {{3, {2, 0, 1}, {0, 1, 2}, 4, 1, 0, gru_forward}},
                3, {2, 0, 1}, {{1, 3, {0, 1, 2}, 0, gru_backward}}, 1},
    [FR_GRU_RESET_BEFORE] = {3, 2, {{2, {0, 1}, {0, 1}, 2, 0, 0, gru_reset_before_gates_forward},
                                    {1, {2}, {2}, 1, 0, 1, gru_reset_before_forward}},
                             3, {2, 0, 1}, {{1, 2, {0, 1}, 0, gru_reset_before_backward},
                                            {0, 1, {2}, 1, gru_reset_before_gates_backward}}, 1},
    [FR_RNN] = {1, 1, {{1, {0}, {0}, 1, 0, 0, rnn_forward}}, 1, {0}, {{0, 1, {0}, 0, rnn_backward}}, 0},
};

#endif
