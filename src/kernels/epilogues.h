/* Epilogues: what a cell does with the sums of its products. Backward stands under its forward.
 *
 * A product leaves the sums of one panel in `acc`, (rows, accumulators, VL), and the epilogue makes gates, states or gradients
 * of them. `block` is a unit block, units block*VL..block*VL+VL-1 of H; a panel holds all gates of one unit block (LSTM, GRU),
 * or one gate of up to four unit blocks.
 *
 * Each comes twice: for the default cell (sigmoid gates, tanh, no clip, no peepholes), with its activations compiled in, and
 * `_generic` for any other.
 *
 * Saved slots per unit block, gates in forward, gradients of the pre-activations in backward (written over them):
 *     LSTM  i f g o            GRU  n r z hn (hn = W_hn h + b_hn, its gradient feeds the recurrent side)
 *     RNN   -> d               GRU, reset before  n r z
 * so that the input side of a GRU reads slots 0-2 and the recurrent side slots 1-3: contiguous, both.
 *
 * # Design: what waits for a gate (tanh of c, n of the GRU) runs in a loop of its own over the rows. One loop is bound by the
 * time from a row's sums to its h, two loops by the count of instructions. Cycles: benches/DECISIONS.md, "Epilogues".
 */
#ifndef FASTRNN_EPILOGUES_H
#define FASTRNN_EPILOGUES_H

#include "activation.h"
#include "tile.h"

/* What an epilogue sees of one time step. Rows are counted in processing order; pointers by row lead to unit 0
 * of the row, plain pointers to unit 0 of row 0 of arrays whose rows are Hp (times slots) apart. */
typedef struct {
    long H, Hp; /* units, padded units */
    const fr_cell_options *options;
    int activation;            /* of this product: of the candidate, or of the projection */
    const real *peephole;      /* (3, Hp) i, f, o, or NULL */
    const real *const *h_prev; /* zeros where the row starts anew */
    const real *const *c_prev;
    real *const *h; /* in backward the forward's output, read */
    real *c, *gates, *inner, *dstate;
    const real *const *doutput; /* NULL: none */
    const real *const *dh_n;    /* NULL: none; by row NULL unless this is its last step, or masked steps follow it */
} cell_step;

#define EPILOGUE_ARGS const cell_step *s, long row, int rows, long block, int blocks, const real *acc, long acc_row
typedef void epilogue(EPILOGUE_ARGS);

/* Lanes of a unit block that are units; and the gradient that reaches h from outside the recurrence. */
INLINE long lanes_of(const cell_step *s, long block) { return s->H - block * VL; }
INLINE vec dh_from_outside(const cell_step *s, long row, long block) {
    vec dh = {0};
    if (s->doutput) dh = load_part(s->doutput[row] + block * VL, lanes_of(s, block));
    if (s->dh_n && s->dh_n[row]) dh += load_part(s->dh_n[row] + block * VL, lanes_of(s, block));
    return dh;
}

INLINE vec clipped(const cell_step *s, vec x) {
    const real clip = (real)s->options->clip;
    return clip > 0 ? at_least(at_most(x, clip), -clip) : x;
}

/* Activations rise, so x was clipped where y has reached the value at the clip. */
INLINE_FAST vec clipped_backward(const cell_step *s, int activation, vec y, vec dy) {
    const vec dx = activate_backward(activation, y, dy);
    const real clip = (real)s->options->clip;
    if (!(clip > 0)) return dx;
    const vec low = activate(activation, splat(-clip)), high = activate(activation, splat(clip));
    return select_lanes((y <= low) | (y >= high), (vec){0}, dx);
}

/* Of every function that takes `is_default`, which is a constant where it is inlined. */
enum { GENERIC, DEFAULT };

INLINE vec gate(int is_default, const cell_step *s, vec x) {
    return is_default ? vsigmoid(x) : activate(s->options->gate_activation, clipped(s, x));
}
INLINE vec gate_backward(int is_default, const cell_step *s, vec y, vec dy) {
    return is_default ? dy * y * (1 - y) : clipped_backward(s, s->options->gate_activation, y, dy);
}
INLINE vec candidate(int is_default, const cell_step *s, vec x) {
    return is_default ? vtanh(x) : activate(s->activation, clipped(s, x));
}
INLINE vec candidate_backward(int is_default, const cell_step *s, vec y, vec dy) {
    return is_default ? dy * (1 - y * y) : clipped_backward(s, s->activation, y, dy);
}

/* ---- LSTM: acc = i f g o before their activations ---- */

INLINE void lstm_forward_as(const int is_default, EPILOGUE_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    const real *peephole = is_default ? 0 : s->peephole;
    vec outputs[ROW_BLOCK];
    for (long n = row; n < row + rows; n++, acc += acc_row) {
        const vec c_prev = load(s->c_prev[n] + unit);
        vec a_i = load(acc), a_f = load(acc + VL), a_o = load(acc + 3 * VL);
        if (peephole) a_i += load(peephole + unit) * c_prev, a_f += load(peephole + s->Hp + unit) * c_prev;
        const vec i = gate(is_default, s, a_i), f = gate(is_default, s, a_f),
                  g = candidate(is_default, s, load(acc + 2 * VL));
        const vec c = f * c_prev + i * g;
        if (peephole) a_o += load(peephole + 2 * s->Hp + unit) * c;
        const vec o = gate(is_default, s, a_o);
        store(s->c + n * s->Hp + unit, c);
        outputs[n - row] = o;
        if (s->gates) {
            real *gates = s->gates + (n * s->Hp + unit) * 4;
            store(gates, i), store(gates + VL, f), store(gates + 2 * VL, g), store(gates + 3 * VL, o);
        }
    }
    for (long n = row; n < row + rows; n++)
        store_part(s->h[n] + unit, outputs[n - row] * candidate(is_default, s, load(s->c + n * s->Hp + unit)), lanes);
}

/* The default cell in inference, where no backward reads the gates again: three divisions instead of five. */
static void lstm_inference(EPILOGUE_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    vec below_o[ROW_BLOCK], cells[ROW_BLOCK];
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

static void lstm_training(EPILOGUE_ARGS) { lstm_forward_as(DEFAULT, s, row, rows, block, blocks, acc, acc_row); }
static void lstm_forward(EPILOGUE_ARGS) {
    (s->gates ? lstm_training : lstm_inference)(s, row, rows, block, blocks, acc, acc_row);
}
static void lstm_forward_generic(EPILOGUE_ARGS) { lstm_forward_as(GENERIC, s, row, rows, block, blocks, acc, acc_row); }

/* acc = dh from the step after; dstate = dc */
INLINE void lstm_backward_as(const int is_default, EPILOGUE_ARGS) {
    const real *peephole = is_default ? 0 : s->peephole;
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL;
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 4, *dstate = s->dstate + n * s->Hp + unit;
            const vec i = load(gates), f = load(gates + VL), g = load(gates + 2 * VL), o = load(gates + 3 * VL);
            const vec dh = load(acc + (n - row) * acc_row + b * VL) + dh_from_outside(s, n, block + b);
            const vec c_prev = load(s->c_prev[n] + unit),
                      act_c = candidate(is_default, s, load(s->c + n * s->Hp + unit));
            const vec da_o = gate_backward(is_default, s, o, dh * act_c);
            vec dc = load(dstate) + candidate_backward(is_default, s, act_c, dh * o);
            if (peephole) dc += da_o * load(peephole + 2 * s->Hp + unit);
            const vec da_i = gate_backward(is_default, s, i, dc * g),
                      da_f = gate_backward(is_default, s, f, dc * c_prev);
            vec dc_prev = dc * f;
            if (peephole) dc_prev += da_i * load(peephole + unit) + da_f * load(peephole + s->Hp + unit);
            store(gates, da_i), store(gates + VL, da_f), store(gates + 3 * VL, da_o);
            store(gates + 2 * VL, candidate_backward(is_default, s, g, dc * i));
            store(dstate, dc_prev);
        }
    }
}

static void lstm_backward(EPILOGUE_ARGS) { lstm_backward_as(DEFAULT, s, row, rows, block, blocks, acc, acc_row); }
static void lstm_backward_generic(EPILOGUE_ARGS) {
    lstm_backward_as(GENERIC, s, row, rows, block, blocks, acc, acc_row);
}

/* ---- GRU, reset after the product (PyTorch, cuDNN): acc = n's input part, r, z, hn ---- */

INLINE void gru_forward_as(const int is_default, EPILOGUE_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    vec resets[ROW_BLOCK], updates[ROW_BLOCK];
    for (int m = 0; m < rows; m++) {
        resets[m] = gate(is_default, s, load(acc + m * acc_row + VL));
        updates[m] = gate(is_default, s, load(acc + m * acc_row + 2 * VL));
    }
    for (long n = row; n < row + rows; n++, acc += acc_row) {
        const vec hn = load(acc + 3 * VL), r = resets[n - row], z = updates[n - row];
        const vec new = candidate(is_default, s, load(acc) + r * hn);
        store_part(s->h[n] + unit, (1 - z) * new + z *load_part(s->h_prev[n] + unit, lanes), lanes);
        if (s->gates) {
            real *gates = s->gates + (n * s->Hp + unit) * 4;
            store(gates, new), store(gates + VL, r), store(gates + 2 * VL, z), store(gates + 3 * VL, hn);
        }
    }
}

static void gru_forward(EPILOGUE_ARGS) { gru_forward_as(DEFAULT, s, row, rows, block, blocks, acc, acc_row); }
static void gru_forward_generic(EPILOGUE_ARGS) { gru_forward_as(GENERIC, s, row, rows, block, blocks, acc, acc_row); }

/* acc + dstate = dh from the step after; dstate becomes the direct part of dh_prev */
INLINE void gru_backward_as(const int is_default, EPILOGUE_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 4, *dstate = s->dstate + n * s->Hp + unit;
            const vec new = load(gates), r = load(gates + VL), z = load(gates + 2 * VL), hn = load(gates + 3 * VL);
            const vec dh = load(acc + (n - row) * acc_row + b * VL) + load(dstate) + dh_from_outside(s, n, block + b);
            const vec h_prev = load_part(s->h_prev[n] + unit, lanes);
            const vec dn = candidate_backward(is_default, s, new, dh * (1 - z));
            store(gates, dn);
            store(gates + VL, gate_backward(is_default, s, r, dn * hn));
            store(gates + 2 * VL, gate_backward(is_default, s, z, dh * (h_prev - new)));
            store(gates + 3 * VL, dn * r);
            store(dstate, dh * z);
        }
    }
}

static void gru_backward(EPILOGUE_ARGS) { gru_backward_as(DEFAULT, s, row, rows, block, blocks, acc, acc_row); }
static void gru_backward_generic(EPILOGUE_ARGS) { gru_backward_as(GENERIC, s, row, rows, block, blocks, acc, acc_row); }

/* ---- GRU, reset before the product (Cho et al., ONNX default): r and z first, then n from inner = r * h ---- */

static void gru_reset_before_gates(EPILOGUE_ARGS) {
    (void)blocks;
    const long unit = block * VL, lanes = lanes_of(s, block);
    for (long n = row; n < row + rows; n++, acc += acc_row) {
        real *gates = s->gates + (n * s->Hp + unit) * 3;
        const vec r = gate(GENERIC, s, load(acc));
        store(gates + VL, r), store(gates + 2 * VL, gate(GENERIC, s, load(acc + VL)));
        store(s->inner + n * s->Hp + unit, r * load_part(s->h_prev[n] + unit, lanes));
    }
}

static void gru_reset_before_forward(EPILOGUE_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 3;
            const vec new = candidate(GENERIC, s, load(acc + (n - row) * acc_row + b * VL)), z = load(gates + 2 * VL);
            store(gates, new);
            store_part(s->h[n] + unit, (1 - z) * new + z *load_part(s->h_prev[n] + unit, lanes), lanes);
        }
    }
}

/* First pass: acc + dstate = dh from the step after. */
static void gru_reset_before_backward(EPILOGUE_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 3, *dstate = s->dstate + n * s->Hp + unit;
            const vec new = load(gates), z = load(gates + 2 * VL), h_prev = load_part(s->h_prev[n] + unit, lanes);
            const vec dh = load(acc + (n - row) * acc_row + b * VL) + load(dstate) + dh_from_outside(s, n, block + b);
            store(gates, candidate_backward(GENERIC, s, new, dh * (1 - z)));
            store(gates + 2 * VL, gate_backward(GENERIC, s, z, dh * (h_prev - new)));
            store(dstate, dh * z);
        }
    }
}

/* Second pass: acc = d(r * h_prev), from dn of the same step. */
static void gru_reset_before_gates_backward(EPILOGUE_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            real *gates = s->gates + (n * s->Hp + unit) * 3, *dstate = s->dstate + n * s->Hp + unit;
            const vec dinner = load(acc + (n - row) * acc_row + b * VL), r = load(gates + VL);
            store(gates + VL, gate_backward(GENERIC, s, r, dinner * load_part(s->h_prev[n] + unit, lanes)));
            store(dstate, load(dstate) + dinner * r);
        }
    }
}

/* ---- Elman RNN, and the projection of any cell's h: acc = the pre-activation ---- */

INLINE void rnn_forward_as(const int is_default, EPILOGUE_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            const vec a = load(acc + (n - row) * acc_row + b * VL);
            store_part(s->h[n] + unit, is_default ? vtanh(a) : activate(s->activation, a), lanes);
        }
    }
}

static void rnn_forward(EPILOGUE_ARGS) { rnn_forward_as(DEFAULT, s, row, rows, block, blocks, acc, acc_row); }
static void rnn_forward_generic(EPILOGUE_ARGS) { rnn_forward_as(GENERIC, s, row, rows, block, blocks, acc, acc_row); }

INLINE void rnn_backward_as(const int is_default, EPILOGUE_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL, lanes = lanes_of(s, block + b);
        for (long n = row; n < row + rows; n++) {
            const vec dh = load(acc + (n - row) * acc_row + b * VL) + dh_from_outside(s, n, block + b);
            store(s->gates + n * s->Hp + unit,
                  activate_backward(is_default ? FR_TANH : s->activation, load_part(s->h[n] + unit, lanes), dh));
        }
    }
}

static void rnn_backward(EPILOGUE_ARGS) { rnn_backward_as(DEFAULT, s, row, rows, block, blocks, acc, acc_row); }
static void rnn_backward_generic(EPILOGUE_ARGS) { rnn_backward_as(GENERIC, s, row, rows, block, blocks, acc, acc_row); }

#endif
