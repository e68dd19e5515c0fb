/* The cells: how each is cut into products, and what it does with their sums. Backward stands under its forward.
 *
 * A pass is one product over K with the sums of one panel in `acc`, (rows, accumulators, VL), and one finishing
 * function. Two kinds of panel: all gates of one unit block (LSTM, GRU), or one gate of up to four unit blocks.
 * `block` is a unit block, units block*VL..block*VL+VL-1 of H.
 *
 * Saved slots per unit block, gates in forward, gradients of the pre-activations in backward (written over them):
 *     LSTM  i f g o            GRU  n r z hn (hn = W_hn h + b_hn, its gradient feeds the recurrent side)
 *     RNN   -> d               GRU, reset before  n r z
 * so that the input side of a GRU reads slots 0-2 and the recurrent side slots 1-3: contiguous, both.
 *
 * # Design: what waits for a gate (tanh of c, n of the GRU) runs in a loop of its own over the rows. One loop is bound by
 * the about 140 cycles from a row's sums to its h, two rows at a time in flight; two loops by the count of instructions. On
 * Zen 3 that is 64 cycles a row and unit block instead of 87 (LSTM) and 42 instead of 55 (GRU), the same bits.
 */
#ifndef FASTRNN_CELLS_H
#define FASTRNN_CELLS_H

#include "tile.h"
#include "vecmath.h"

/* What a finishing function sees of one time step. Rows are counted in processing order; pointers by row lead to unit 0
 * of the row, plain pointers to unit 0 of row 0 of arrays whose rows are Hp (times slots) apart. */
typedef struct {
    long H, Hp; /* units, padded units */
    int activation, gate_activation;
    real clip;                 /* 0: none */
    const real *peephole;      /* (3, Hp) i, f, o, or NULL */
    const real *const *h_prev; /* zeros where the row starts anew */
    const real *const *c_prev;
    real *const *h; /* in backward the forward's output, read */
    real *c, *gates, *inner, *carry;
    const real *const *doutput; /* NULL: none */
    const real *const *dh_n;    /* NULL: none; by row NULL unless this is its last step */
} cell_step;

typedef void finish_function(const cell_step *, long row, int rows, long block, int blocks, const real *acc,
                             long acc_row);
#define FINISH_ARGS const cell_step *s, long row, int rows, long block, int blocks, const real *acc, long acc_row

/* Lanes of a unit block that are units; and the gradient that reaches h from outside the recurrence. */
INLINE long lanes_of(const cell_step *s, long block) { return s->H - block * VL; }
INLINE vec dh_from_outside(const cell_step *s, long row, long block) {
    vec dh = {0};
    if (s->doutput) dh = load_part(s->doutput[row] + block * VL, lanes_of(s, block));
    if (s->dh_n && s->dh_n[row]) dh += load_part(s->dh_n[row] + block * VL, lanes_of(s, block));
    return dh;
}

/* ---- Activations by name; a plain cell, sigmoid and tanh without a clip, has them compiled in ---- */

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

INLINE vec clipped(const cell_step *s, vec x) { return s->clip > 0 ? at_least(at_most(x, s->clip), -s->clip) : x; }

/* Activations rise, so x was clipped where y has reached the value at the clip. */
INLINE_FAST vec clipped_backward(const cell_step *s, int activation, vec y, vec dy) {
    const vec dx = activate_backward(activation, y, dy);
    if (!(s->clip > 0)) return dx;
    const vec low = activate(activation, splat(-s->clip)), high = activate(activation, splat(s->clip));
    return select_lanes((y <= low) | (y >= high), (vec){0}, dx);
}

#define PLAIN 1
INLINE vec gate(int plain, const cell_step *s, vec x) {
    return plain ? vsigmoid(x) : activate(s->gate_activation, clipped(s, x));
}
INLINE vec gate_backward(int plain, const cell_step *s, vec y, vec dy) {
    return plain ? dy * y * (1 - y) : clipped_backward(s, s->gate_activation, y, dy);
}
INLINE vec candidate(int plain, const cell_step *s, vec x) {
    return plain ? vtanh(x) : activate(s->activation, clipped(s, x));
}
INLINE vec candidate_backward(int plain, const cell_step *s, vec y, vec dy) {
    return plain ? dy * (1 - y * y) : clipped_backward(s, s->activation, y, dy);
}

/* ---- LSTM: acc = i f g o before their activations ---- */

INLINE void lstm_forward_as(const int plain, FINISH_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    const real *peephole = plain ? 0 : s->peephole;
    vec outputs[FR_ROW_BLOCK];
    for (long n = row; n < row + rows; n++, acc += acc_row) {
        const vec c_prev = load(s->c_prev[n] + unit);
        vec a_i = load(acc), a_f = load(acc + VL), a_o = load(acc + 3 * VL);
        if (peephole) a_i += load(peephole + unit) * c_prev, a_f += load(peephole + s->Hp + unit) * c_prev;
        const vec i = gate(plain, s, a_i), f = gate(plain, s, a_f), g = candidate(plain, s, load(acc + 2 * VL));
        const vec c = f * c_prev + i * g;
        if (peephole) a_o += load(peephole + 2 * s->Hp + unit) * c;
        const vec o = gate(plain, s, a_o);
        store(s->c + n * s->Hp + unit, c);
        outputs[n - row] = o;
        if (s->gates) {
            real *gates = s->gates + (n * s->Hp + unit) * 4;
            store(gates, i), store(gates + VL, f), store(gates + 2 * VL, g), store(gates + 3 * VL, o);
        }
    }
    for (long n = row; n < row + rows; n++)
        store_part(s->h[n] + unit, outputs[n - row] * candidate(plain, s, load(s->c + n * s->Hp + unit)), lanes);
}

/* A plain cell whose gates nobody reads again: three divisions instead of five. On a Zen 3 51 cycles a row and unit block
 * instead of 59, and forward 1.01 (H = 256) to 1.06 times as fast (H = 16). */
static void lstm_forward_unkept(FINISH_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    vec below_o[FR_ROW_BLOCK], cells[FR_ROW_BLOCK];
    for (int m = 0; m < rows; m++, acc += acc_row) {
        const vec i = sigmoid_below(load(acc)), f = sigmoid_below(load(acc + VL));
        const fraction g = tanh_fraction(load(acc + 2 * VL));
        below_o[m] = sigmoid_below(load(acc + 3 * VL));
        cells[m] = load(s->c_prev[row + m] + unit) / f + g.num / (g.den * i);
        store(s->c + (row + m) * s->Hp + unit, cells[m]);
    }
    for (int m = 0; m < rows; m++) {
        const fraction t = tanh_fraction(cells[m]);
        store_part(s->h[row + m] + unit, t.num / (t.den * below_o[m]), lanes);
    }
}

/* acc = dh from the step after; carry = dc */
INLINE void lstm_backward_as(const int plain, FINISH_ARGS) {
    const real *peephole = plain ? 0 : s->peephole;
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL;
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 4, *carry = s->carry + n * s->Hp + unit;
            const vec i = load(gates), f = load(gates + VL), g = load(gates + 2 * VL), o = load(gates + 3 * VL);
            const vec dh = load(acc + (n - row) * acc_row + b * VL) + dh_from_outside(s, n, block + b);
            const vec c_prev = load(s->c_prev[n] + unit), act_c = candidate(plain, s, load(s->c + n * s->Hp + unit));
            const vec da_o = gate_backward(plain, s, o, dh * act_c);
            vec dc = load(carry) + candidate_backward(plain, s, act_c, dh * o);
            if (peephole) dc += da_o * load(peephole + 2 * s->Hp + unit);
            const vec da_i = gate_backward(plain, s, i, dc * g), da_f = gate_backward(plain, s, f, dc * c_prev);
            vec dc_prev = dc * f;
            if (peephole) dc_prev += da_i * load(peephole + unit) + da_f * load(peephole + s->Hp + unit);
            store(gates, da_i), store(gates + VL, da_f), store(gates + 3 * VL, da_o);
            store(gates + 2 * VL, candidate_backward(plain, s, g, dc * i));
            store(carry, dc_prev);
        }
    }
}

/* ---- GRU, reset after the product (PyTorch, cuDNN): acc = n's input part, r, z, hn ---- */

INLINE void gru_forward_as(const int plain, FINISH_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    vec resets[FR_ROW_BLOCK], updates[FR_ROW_BLOCK];
    for (int m = 0; m < rows; m++) {
        resets[m] = gate(plain, s, load(acc + m * acc_row + VL));
        updates[m] = gate(plain, s, load(acc + m * acc_row + 2 * VL));
    }
    for (long n = row; n < row + rows; n++, acc += acc_row) {
        const vec hn = load(acc + 3 * VL), r = resets[n - row], z = updates[n - row];
        const vec new = candidate(plain, s, load(acc) + r * hn);
        store_part(s->h[n] + unit, (1 - z) * new + z *load_part(s->h_prev[n] + unit, lanes), lanes);
        if (s->gates) {
            real *gates = s->gates + (n * s->Hp + unit) * 4;
            store(gates, new), store(gates + VL, r), store(gates + 2 * VL, z), store(gates + 3 * VL, hn);
        }
    }
}

/* acc + carry = dh from the step after; carry becomes the direct part of dh_prev */
INLINE void gru_backward_as(const int plain, FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 4, *carry = s->carry + n * s->Hp + unit;
            const vec new = load(gates), r = load(gates + VL), z = load(gates + 2 * VL), hn = load(gates + 3 * VL);
            const vec dh = load(acc + (n - row) * acc_row + b * VL) + load(carry) + dh_from_outside(s, n, block + b);
            const vec h_prev = load_part(s->h_prev[n] + unit, lanes);
            const vec dn = candidate_backward(plain, s, new, dh * (1 - z));
            store(gates, dn);
            store(gates + VL, gate_backward(plain, s, r, dn * hn));
            store(gates + 2 * VL, gate_backward(plain, s, z, dh * (h_prev - new)));
            store(gates + 3 * VL, dn * r);
            store(carry, dh * z);
        }
    }
}

#define FINISH(name, cell_way, plain) \
    static void name(FINISH_ARGS) { cell_way##_as(plain, s, row, rows, block, blocks, acc, acc_row); }
#define PLAIN_AND_ANY(cell, way) \
    FINISH(cell##_##way, cell##_##way, PLAIN) FINISH(cell##_##way##_any, cell##_##way, !PLAIN)
FINISH(lstm_forward_kept, lstm_forward, PLAIN);

FINISH(lstm_forward_any, lstm_forward, !PLAIN);
static void lstm_forward(FINISH_ARGS) {
    (s->gates ? lstm_forward_kept : lstm_forward_unkept)(s, row, rows, block, blocks, acc, acc_row);
}
PLAIN_AND_ANY(lstm, backward);
PLAIN_AND_ANY(gru, forward);
PLAIN_AND_ANY(gru, backward);

/* ---- GRU, reset before the product (Cho et al., ONNX default): r and z first, then n from inner = r * h ---- */

static void gru_reset_before_gates_forward(FINISH_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    for (long n = row; n < row + rows; n++, acc += acc_row) {
        real *gates = s->gates + (n * s->Hp + unit) * 3;
        const vec r = gate(!PLAIN, s, load(acc));
        store(gates + VL, r), store(gates + 2 * VL, gate(!PLAIN, s, load(acc + VL)));
        store(s->inner + n * s->Hp + unit, r * load_part(s->h_prev[n] + unit, lanes));
    }
}

static void gru_reset_before_forward(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 3;
            const vec new = candidate(!PLAIN, s, load(acc + (n - row) * acc_row + b * VL)), z = load(gates + 2 * VL);
            store(gates, new);
            store_part(s->h[n] + unit, (1 - z) * new + z *load_part(s->h_prev[n] + unit, lanes), lanes);
        }
    }
}

/* First pass: acc + carry = dh from the step after. */
static void gru_reset_before_backward(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 3, *carry = s->carry + n * s->Hp + unit;
            const vec new = load(gates), z = load(gates + 2 * VL), h_prev = load_part(s->h_prev[n] + unit, lanes);
            const vec dh = load(acc + (n - row) * acc_row + b * VL) + load(carry) + dh_from_outside(s, n, block + b);
            store(gates, candidate_backward(!PLAIN, s, new, dh * (1 - z)));
            store(gates + 2 * VL, gate_backward(!PLAIN, s, z, dh * (h_prev - new)));
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
            const vec dinner = load(acc + (n - row) * acc_row + b * VL), r = load(gates + VL);
            store(gates + VL, gate_backward(!PLAIN, s, r, dinner * load_part(s->h_prev[n] + unit, lanes)));
            store(carry, load(carry) + dinner * r);
        }
    }
}

/* ---- Elman RNN, and the projection of any cell's h: acc = the pre-activation. With tanh compiled in 13 cycles a row and
 * unit block instead of 19 forward, 10 instead of 12 backward, and forward 1.02 to 1.09 times as fast (Zen 3). ---- */

INLINE void rnn_forward_as(const int plain, FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            const vec a = load(acc + (n - row) * acc_row + b * VL);
            store_part(s->h[n] + unit, plain ? vtanh(a) : activate(s->activation, a), lanes);
        }
    }
}

INLINE void rnn_backward_as(const int plain, FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            const vec dh = load(acc + (n - row) * acc_row + b * VL) + dh_from_outside(s, n, block + b);
            store(s->gates + n * s->Hp + unit,
                  activate_backward(plain ? FR_TANH : s->activation, load_part(s->h[n] + unit, lanes), dh));
        }
    }
}
PLAIN_AND_ANY(rnn, forward);
PLAIN_AND_ANY(rnn, backward);

/* ---- Softmax over the whole of a row, shifted by its largest entry so that it cannot overflow ---- */

static void softmax_row(real *y, long n) {
    real most = y[0], sum = 0;
    for (long k = 1; k < n; k++) most = y[k] > most ? y[k] : most;
    for (long k = 0; k < n; k += VL) store_part(y + k, vexp_of_negative(load_part(y + k, n - k) - most), n - k);
    for (long k = 0; k < n; k++) sum += y[k];
    for (long k = 0; k < n; k++) y[k] /= sum;
}

static void softmax_row_backward(real *dy, const real *y, long n) {
    real dot = 0;
    for (long k = 0; k < n; k++) dot += dy[k] * y[k];
    for (long k = 0; k < n; k++) dy[k] = y[k] * (dy[k] - dot);
}

/* ---- The cut of each cell ---- */

typedef struct {
    int gates;                  /* per panel; 1: a panel holds one gate of up to four unit blocks */
    int x_gates[4], h_gates[4]; /* row blocks of weight_ih and weight_hh, in panel order */
    int accumulators;           /* per unit block */
    int h_first;                /* accumulator at which the recurrent product starts (the input's starts at 0) */
    int reads_inner;            /* the recurrent operand is `inner`, made by the pass before, instead of h_prev */
    finish_function *finish, *finish_any; /* of a plain cell, and of one with named activations, clip or peepholes */
} forward_pass;

typedef struct {
    int first_slot, slots; /* of the gate gradients that are multiplied with the recurrent weights */
    int gates[4];          /* their row blocks of these */
    int same_step;         /* of this step (the forward's operand was `inner`), else of the step after */
    finish_function *finish, *finish_any;
} backward_pass;

typedef struct {
    int slots, passes;
    forward_pass forward[2];
    int x_slots, x_gates[4]; /* gate gradients that reach the input, from slot 0, and their row blocks of weight_ih */
    backward_pass backward[2];
    int carries_dh; /* the direct part of dh_prev is in carry */
} cell_cut;

static const cell_cut cuts[] = {
    [FR_LSTM] = {4,
                 1,
                 {{4, {0, 1, 2, 3}, {0, 1, 2, 3}, 4, 0, 0, lstm_forward, lstm_forward_any}},
                 4,
                 {0, 1, 2, 3},
                 {{0, 4, {0, 1, 2, 3}, 0, lstm_backward, lstm_backward_any}},
                 0},
    [FR_GRU] = {4,
                1,
                {{3, {2, 0, 1}, {0, 1, 2}, 4, 1, 0, gru_forward, gru_forward_any}},
                3,
                {2, 0, 1},
                {{1, 3, {0, 1, 2}, 0, gru_backward, gru_backward_any}},
                1},
    [FR_GRU_RESET_BEFORE] =
        {3,
         2,
         {{2, {0, 1}, {0, 1}, 2, 0, 0, gru_reset_before_gates_forward, gru_reset_before_gates_forward},
          {1, {2}, {2}, 1, 0, 1, gru_reset_before_forward, gru_reset_before_forward}},
         3,
         {2, 0, 1},
         {{1, 2, {0, 1}, 0, gru_reset_before_backward, gru_reset_before_backward},
          {0, 1, {2}, 1, gru_reset_before_gates_backward, gru_reset_before_gates_backward}},
         1},
    [FR_RNN] = {1,
                1,
                {{1, {0}, {0}, 1, 0, 0, rnn_forward, rnn_forward_any}},
                1,
                {0},
                {{0, 1, {0}, 0, rnn_backward, rnn_backward_any}},
                0},
};

/* A projection is one more pass: h = g(W_hr inner + b_hr), inner being the cell's own h. Its gradient is one slot wide. */
static const forward_pass projection_forward = {1, {0}, {0}, 1, 0, 1, rnn_forward_any, rnn_forward_any};
static const int projection_gates[4] = {0};

#endif
