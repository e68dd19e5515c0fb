/* One build of the kernels: compiled once per instruction set and dtype, with FR_BUILD naming the table it exports and
 * FR_DOUBLE set for float64 (setup.py holds the list).
 *
 * # Design:
 * a) Weights are packed into panels that a tile streams through; panels outside, row blocks inside, so that a panel
 *    stays in L1/L2 while all rows of the thread pass over it.
 * b) Panels are visited in alternating direction from step to step (zigzag): what the last step left in cache is what
 *    the next one starts with.
 * c) Rows are cut into blocks by N alone and dealt out whole, units by panels: no sum is ever split between threads,
 *    hence results do not depend on their number, bit for bit.
 * d) Gates are unit-blocked, (HB, S, VL): a tile's epilogue writes whole, neighbouring lines, and backward's K loop
 *    reads them contiguously. Backward overwrites them with their gradients.
 * e) No software prefetch of the next panel: on a 2-core Zen 4 with 1 MB L2 it ran at 0.96-1.01 times the plain loop's
 *    speed for LSTM, GRU and RNN at H = 256, 512, 1024 (1.09 for the RNN at H = 256 alone, and 0.99 at 512). A CPU with a
 *    slow L3 may differ.
 */
#include "pack.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
INLINE long hidden_blocks(const fr_sequence *q) { return vectors_in(q->H); }
static long padded(const fr_sequence *q) { return hidden_blocks(q) * VL; }
INLINE const cell_cut *cut_of(const fr_sequence *q) { return &cuts[q->cell]; }
INLINE long recurrent_depth(const fr_sequence *q) { return q->weight_hh ? q->H : 0; } /* 0: a Linear */

/* ---- Shares ---- */

typedef struct {
    long begin, end;
} range;
INLINE range part_of(long n, fr_share share) { return (range){n * share.id / share.threads, n * (share.id + 1) / share.threads}; }
INLINE range panels_of(long n, fr_share share) { return share.by_units ? part_of(n, share) : (range){0, n}; }
INLINE range row_blocks_of(long N, fr_share share) {
    const long blocks = fr_row_blocks(N);
    return share.by_units ? (range){0, blocks} : part_of(blocks, share);
}
INLINE long block_start(long N, long block) { return N * block / fr_row_blocks(N); }

/* ---- Forward: panels of [W_ih; W_hh], one after the other ---- */

INLINE long forward_panel_step(const cell_cut *cut, int pass) { return cut->forward[pass].gates > 1 ? 1 : PANEL; }
INLINE long columns_before(const fr_sequence *q, int pass) { /* vectors per k of the passes before this one */
    return pass ? hidden_blocks(q) * cut_of(q)->forward[0].gates : 0;
}
INLINE long accumulators_before(const fr_sequence *q, int pass) {
    return pass ? hidden_blocks(q) * cut_of(q)->forward[0].accumulators : 0;
}
static long all_columns(const fr_sequence *q) {
    const int last = cut_of(q)->passes - 1;
    return columns_before(q, last) + hidden_blocks(q) * cut_of(q)->forward[last].gates;
}
static long inputs_row(const fr_sequence *q) {
    const int last = cut_of(q)->passes - 1;
    return (accumulators_before(q, last) + hidden_blocks(q) * cut_of(q)->forward[last].accumulators) * VL;
}
static long panels_size(const fr_sequence *q) { return all_columns(q) * VL * (q->D + recurrent_depth(q)); }

/* A forward panel: unit blocks first .. first + blocks - 1. */
typedef struct {
    long first;
    int blocks, NV, accumulators; /* NV vectors per k; accumulators of the whole panel */
    const real *x, *h, *bias;     /* (D, NV, VL), (H, NV, VL), (accumulators, VL) */
    long inputs;                  /* where its projected inputs stand in a row of them */
} forward_panel;

static forward_panel forward_panel_at(const fr_sequence *q, int pass, long index) {
    const forward_pass *fp = &cut_of(q)->forward[pass];
    forward_panel p;
    p.first = index * forward_panel_step(cut_of(q), pass);
    p.blocks = fp->gates > 1 ? 1 : panel_width(hidden_blocks(q), p.first);
    p.NV = fp->gates * p.blocks;
    p.accumulators = fp->accumulators * p.blocks;
    p.x = (real *)q->panels + (columns_before(q, pass) + p.first * fp->gates) * VL * (q->D + recurrent_depth(q));
    p.h = p.x + q->D * p.NV * VL;
    p.inputs = (accumulators_before(q, pass) + p.first * fp->accumulators) * VL;
    p.bias = (real *)q->bias + p.inputs;
    return p;
}
INLINE long forward_panels(const fr_sequence *q, int pass) {
    const long step = forward_panel_step(cut_of(q), pass);
    return (hidden_blocks(q) + step - 1) / step;
}

static void pack_forward(const fr_sequence *q, fr_share share) {
    const long H = q->H;
    for (int pass = 0; pass < cut_of(q)->passes; pass++) {
        const forward_pass *fp = &cut_of(q)->forward[pass];
        const range panels = part_of(forward_panels(q, pass), share);
        for (long index = panels.begin; index < panels.end; index++) {
            const forward_panel p = forward_panel_at(q, pass, index);
            memset((real *)p.bias, 0, p.accumulators * VL * sizeof(real));
            for (int v = 0; v < p.NV; v++) {
                const long block = fp->gates > 1 ? p.first : p.first + v, gate = fp->gates > 1 ? v : 0;
                const long lanes = H - block * VL;
                const long x_unit = fp->x_gates[gate] * H + block * VL, h_unit = fp->h_gates[gate] * H + block * VL;
                pack_transposed((real *)p.x, p.NV, v, (const real *)q->weight_ih + x_unit * q->D, q->D, lanes, q->D);
                if (q->weight_hh)
                    pack_transposed((real *)p.h, p.NV, v, (const real *)q->weight_hh + h_unit * H, H, lanes, H);
                real *x_bias = (real *)p.bias + v * VL, *h_bias = x_bias + fp->h_first * VL;
                if (q->bias_ih) store(x_bias, load(x_bias) + load_part((const real *)q->bias_ih + x_unit, lanes));
                if (q->bias_hh) store(h_bias, load(h_bias) + load_part((const real *)q->bias_hh + h_unit, lanes));
            }
        }
    }
}

/* Rows of one left operand over time: where row (s, n) is, and how many follow it at an even distance. */
INLINE int even_over_time(fr_series a, long N) { return N == 1 || a.step == N * a.row; }
INLINE long even_row(fr_series a, long N) { return N == 1 ? a.step : a.row; }
INLINE const real *row_of(fr_series a, long s, long n) { return (const real *)a.data + s * a.step + n * a.row; }

/* Inputs times W_ih plus biases, for all steps of a chunk ahead of the recurrence. In order: the cut into tiles depends
 * on T here, and a stream that advances one step at a time must get the same bits. */
static void project_rows(const fr_sequence *q, const real *x, long x_row, real *out, long rows, fr_share share) {
    const long row = inputs_row(q);
    const long row_bytes = (q->D > 64 ? q->D : 64) * sizeof(real);
    const long together = 48 + 400 * 1024 / row_bytes; /* rows of x that stay in L2 while panels change */
    for (long m = 0; m < rows; m += together)
        for (int pass = 0; pass < cut_of(q)->passes; pass++) {
            const forward_pass *fp = &cut_of(q)->forward[pass];
            const range panels = panels_of(forward_panels(q, pass), share);
            for (long index = panels.begin; index < panels.end; index++) {
                const forward_panel p = forward_panel_at(q, pass, index);
                const long now = MIN(together, rows - m);
                real *to = out + m * row + p.inputs;
                product xw = {x + m * x_row, x_row, 0, 1, q->D, p.x};
                multiply(p.NV, now, to, row, p.bias, 0, &xw, 1, 1);
                for (int v = p.NV; v < fp->h_first + p.NV; v++) /* accumulators without an input part */
                    for (long r = 0; r < now; r++) store(to + r * row + v * VL, load(p.bias + v * VL));
            }
        }
}

static void project(const fr_sequence *q, long s_begin, long s_end, fr_share share) {
    const long N = q->N, row = inputs_row(q);
    const range blocks = row_blocks_of(N, share);
    const long n0 = block_start(N, blocks.begin), n1 = block_start(N, blocks.end);
    real *out = (real *)q->inputs + (s_begin - q->inputs_start) * N * row;
    if (n1 - n0 == N && even_over_time(q->x, N))
        project_rows(q, row_of(q->x, s_begin, 0), even_row(q->x, N), out, (s_end - s_begin) * N, share);
    else
        for (long s = s_begin; s < s_end; s++, out += N * row)
            project_rows(q, row_of(q->x, s, n0), q->x.row, out + n0 * row, n1 - n0, share);
}

static cell_step view_of(const fr_sequence *q, long s) {
    cell_step v = {.H = q->H, .Hp = padded(q), .activation = q->activation};
    v.h_prev = s ? row_of(q->output, s - 1, 0) : q->h0;
    v.h_prev_row = s ? q->output.row : q->H;
    v.h = (real *)row_of(q->output, s, 0);
    v.h_row = q->output.row;
    v.c_prev = (real *)q->c + s * q->c_step;
    v.c = (real *)q->c + (s + 1) * q->c_step;
    v.gates = q->gates ? (real *)q->gates + s * q->gates_step : 0;
    v.reset = (real *)q->reset + s * q->reset_step;
    v.doutput = q->doutput.data ? row_of(q->doutput, s, 0) : 0;
    v.doutput_row = q->doutput.row;
    v.dh_n = s == q->T - 1 ? q->dh_n : 0;
    v.carry = q->carry;
    return v;
}

static void step_forward(const fr_sequence *q, int pass, long s, fr_share share) {
    const forward_pass *fp = &cut_of(q)->forward[pass];
    const cell_step view = view_of(q, s);
    const range panels = panels_of(forward_panels(q, pass), share), blocks = row_blocks_of(q->N, share);
    const real *operand = fp->reads_reset ? view.reset : view.h_prev;
    const long operand_row = fp->reads_reset ? view.Hp : view.h_prev_row;
    const long in_row = inputs_row(q), H = recurrent_depth(q);
    const real *in = q->fused ? 0 : (real *)q->inputs + (s - q->inputs_start) * q->N * in_row;
    real acc[FR_ROW_BLOCK * 4 * VL] __attribute__((aligned(64)));
    for (long i = panels.begin; i < panels.end; i++) {
        const forward_panel p = forward_panel_at(q, pass, s & 1 ? panels.end - 1 - (i - panels.begin) : i);
        const long acc_row = p.accumulators * VL, shift = fp->h_first * VL;
        for (long block = blocks.begin; block < blocks.end; block++) {
            const long n = block_start(q->N, block);
            const int rows = (int)(block_start(q->N, block + 1) - n);
            const product both[2] = {{row_of(q->x, s, n), q->x.row, 0, 1, q->D, p.x},
                                     {operand + n * operand_row, operand_row, 0, 1, H, p.h}};
            if (q->fused && !shift)
                multiply(p.NV, rows, acc, acc_row, p.bias, 0, both, q->weight_hh ? 2 : 1, !q->weight_hh);
            else {
                if (q->fused) {
                    multiply(p.NV, rows, acc, acc_row, p.bias, 0, both, 1, 0);
                    for (int m = 0; m < rows; m++)
                        for (long v = p.NV * VL; v < acc_row; v += VL) store(acc + m * acc_row + v, load(p.bias + v));
                } else if (shift)
                    for (int m = 0; m < rows; m++)
                        for (long v = 0; v < acc_row; v += VL)
                            store(acc + m * acc_row + v, load(in + (n + m) * in_row + p.inputs + v));
                const real *init = q->fused || shift ? acc : in + n * in_row + p.inputs;
                multiply(p.NV, rows, acc + shift, acc_row, init + shift, init == acc ? acc_row : in_row, both + 1, 1, 0);
            }
            fp->finish(&view, n, rows, p.first, p.blocks, acc, acc_row);
        }
    }
}

/* ---- Backward through the recurrence ---- */

static long panels_h_size(const fr_sequence *q) {
    const cell_cut *cut = cut_of(q);
    long slots = 0;
    for (int pass = 0; pass < cut->passes; pass++) slots += cut->backward[pass].slots;
    return q->weight_hh ? slots * q->H * padded(q) : 0;
}
static long panels_x_size(const fr_sequence *q) { return cut_of(q)->x_slots * q->H * vectors_in(q->D) * VL; }

static const real *panels_h_of(const fr_sequence *q, int pass) {
    return (real *)q->panels_h + (pass ? cut_of(q)->backward[0].slots * q->H * padded(q) : 0);
}

static void pack_backward(const fr_sequence *q, fr_share share) {
    const cell_cut *cut = cut_of(q);
    const range blocks = part_of(hidden_blocks(q), share);
    for (long block = blocks.begin; block < blocks.end; block++) {
        if (q->dx.data)
            pack_gate_rows(q->panels_x, q->weight_ih, cut->x_gates, cut->x_slots, q->H, q->D, block);
        for (int pass = 0; pass < cut->passes && q->weight_hh; pass++)
            pack_gate_rows((real *)panels_h_of(q, pass), q->weight_hh, cut->backward[pass].gates,
                           cut->backward[pass].slots, q->H, q->H, block);
    }
}

/* The product of gate gradients with W_hh, finished by `finish`; `gates` NULL: there is none yet, the product is 0. */
static void through_recurrent_weights(const fr_sequence *q, int pass, const real *gates, const cell_step *view,
                                      finish_function *finish, int backwards, fr_share share) {
    const cell_cut *cut = cut_of(q);
    const backward_pass *bp = &cut->backward[pass];
    const long blocks_of_units = hidden_blocks(q), row = cut->slots * padded(q);
    const range panels = panels_of(panels_in(blocks_of_units), share), blocks = row_blocks_of(q->N, share);
    real acc[FR_ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    for (long i = panels.begin; i < panels.end; i++) {
        const long first = (backwards ? panels.end - 1 - (i - panels.begin) : i) * PANEL;
        const int NV = panel_width(blocks_of_units, first);
        const real *panel = panels_h_of(q, pass) + first * VL * bp->slots * q->H;
        for (long block = blocks.begin; block < blocks.end; block++) {
            const long n = block_start(q->N, block);
            const int rows = (int)(block_start(q->N, block + 1) - n);
            product dh[2];
            int products = 0;
            if (gates && q->weight_hh)
                products = gate_products(dh, gates + n * row, row, cut->slots, bp->first_slot, bp->slots, q->H, panel, NV);
            multiply(NV, rows, acc, NV * VL, 0, 0, dh, products, 0);
            finish(view, n, rows, first, NV, acc, NV * VL);
        }
    }
}

static void step_backward(const fr_sequence *q, int pass, long s, fr_share share) {
    const backward_pass *bp = &cut_of(q)->backward[pass];
    const cell_step view = view_of(q, s);
    const real *gates = bp->same_step ? view.gates : s + 1 < q->T ? view.gates + q->gates_step : 0;
    through_recurrent_weights(q, pass, gates, &view, bp->finish, s & 1, share);
}

/* dh0: `h` is where it goes, `carry` its direct part where the cell has one. */
static void finish_grad_state(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL;
        for (long n = row; n < row + rows; n++) {
            vec dh = load(acc + (n - row) * acc_row + b * VL);
            if (s->carry) dh += load(s->carry + n * s->Hp + unit);
            store_part(s->h + n * s->h_row + unit, dh, lanes_of(s, block + b));
        }
    }
}

static void grad_state(const fr_sequence *q, fr_share share) {
    const cell_step view = {.H = q->H, .Hp = padded(q), .h = q->dh0, .h_row = q->H, .carry = cut_of(q)->carries_dh ? q->carry : 0};
    through_recurrent_weights(q, 0, q->gates, &view, finish_grad_state, 1, share);
}

/* ---- Gradients of input and weights, for the steps of a chunk ---- */

/* c (rows, columns) = or += rows of gate gradients times panels. */
static void grad_input_rows(const fr_sequence *q, const real *gates, real *dx, long dx_row, long rows) {
    const cell_cut *cut = cut_of(q);
    const long vectors = vectors_in(q->D), row = cut->slots * padded(q);
    real acc[FR_ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    for (long first = 0; first < vectors; first += PANEL) {
        const int NV = panel_width(vectors, first);
        const long columns = q->D - first * VL;
        const real *panel = (real *)q->panels_x + first * VL * cut->x_slots * q->H;
        for (long m = 0, part; m < rows; m += part) {
            part = next_rows(rows - m, FR_ROW_BLOCK);
            product p[2];
            const int products = gate_products(p, gates + m * row, row, cut->slots, 0, cut->x_slots, q->H, panel, NV);
            real *to = dx + m * dx_row + first * VL;
            if (columns >= NV * VL) {
                multiply(NV, part, to, dx_row, q->dx_add ? to : 0, dx_row, p, products, 1);
                continue;
            }
            multiply(NV, part, acc, NV * VL, 0, 0, p, products, 1);
            for (long r = 0; r < part; r++)
                for (int v = 0; v < NV; v++) {
                    real *at = to + r * dx_row + v * VL;
                    const long lanes = columns - v * VL;
                    vec sum = load(acc + (r * NV + v) * VL);
                    store_part(at, q->dx_add ? load_part(at, lanes) + sum : sum, lanes);
                }
        }
    }
}

static void grad_input(const fr_sequence *q, long s_begin, long s_end, fr_share share) {
    const long N = q->N, row = cut_of(q)->slots * padded(q);
    const long together = 24 + (long)(512 * 1024 / sizeof(real)) / row; /* rows that stay in L2 while panels change */
    const range all = part_of((s_end - s_begin) * N, share);
    const int even = even_over_time(q->dx, N);
    for (long m = all.begin, part; m < all.end; m += part) {
        const long s = s_begin + m / N, n = m % N;
        part = MIN(together, MIN(all.end - m, even ? all.end : N - n));
        grad_input_rows(q, (real *)q->gates + (s * N + n) * row, (real *)row_of(q->dx, s, n), even ? even_row(q->dx, N) : q->dx.row, part);
    }
}

enum { DEPTH = 256 }; /* rows (time steps x batch) that one packed panel of dW spans: 64 KB in float32 */

/* Packed gate gradients of all units, then a panel of the other operand for each thread. */
static long gate_scratch_size(const fr_sequence *q) { return padded(q) * cut_of(q)->slots * DEPTH; }
static long scratch_size(const fr_sequence *q, int threads) { return gate_scratch_size(q) + threads * DEPTH * PANEL * VL; }

/* Gate gradients of one unit block, slot by slot, as (slot, DEPTH, VL); their sums are the bias gradients. */
static void pack_gate_gradients(const fr_sequence *q, real *packed, long block, const real *gates, long depth) {
    const cell_cut *cut = cut_of(q);
    const long row = cut->slots * padded(q), lanes = q->H - block * VL;
    vec sums[4] = {{0}};
    for (int slot = 0; slot < cut->slots; slot++) {
        const real *from = gates + (block * cut->slots + slot) * VL;
        for (long k = 0; k < depth; k++) {
            vec g = load(from + k * row);
            store(packed + (slot * DEPTH + k) * VL, g);
            sums[slot] += g;
        }
    }
    for (int slot = 0; q->dbias_ih && slot < cut->x_slots; slot++) {
        real *to = (real *)q->dbias_ih + cut->x_gates[slot] * q->H + block * VL;
        store_part(to, load_part(to, lanes) + sums[slot], lanes);
    }
    for (int pass = 0; q->dbias_hh && pass < cut->passes; pass++)
        for (int i = 0; i < cut->backward[pass].slots; i++) {
            real *to = (real *)q->dbias_hh + cut->backward[pass].gates[i] * q->H + block * VL;
            store_part(to, load_part(to, lanes) + sums[cut->backward[pass].first_slot + i], lanes);
        }
}

/* dweight (gate rows, width) += gate gradients, transposed, times rows of `operand`, (s, n) of one with (s, n) of the
 * other. */
typedef struct {
    real *dweight;
    long width;
    fr_series operand;
    const real *first; /* rows of s = 0 where they stand elsewhere (h0), `width` apart; else NULL */
    int first_slot, slots;
    const int *gates;
} weight_product;

static void add_weight_product(const fr_sequence *q, const weight_product *w, const real *packed_gates, real *packed, range blocks,
                               long m0, long depth) {
    const int all_slots = cut_of(q)->slots;
    const long vectors = vectors_in(w->width);
    real acc[FR_ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    for (long first = 0; first < vectors; first += PANEL) {
        const int NV = panel_width(vectors, first);
        const long columns = w->width - first * VL;
        long s = m0 / q->N, n = m0 % q->N;
        for (long k = 0; k < depth; k++) {
            const real *from = !s && w->first ? w->first + n * w->width : row_of(w->operand, s, n);
            pack_row(packed + k * NV * VL, NV, from + first * VL, columns);
            if (++n == q->N) n = 0, s++;
        }
        for (long block = blocks.begin; block < blocks.end; block++)
            for (int i = 0; i < w->slots; i++) {
                const long units = MIN(VL, q->H - block * VL);
                const real *gates = packed_gates + (block * all_slots + w->first_slot + i) * DEPTH * VL;
                for (long u = 0, part; u < units; u += part) {
                    part = next_rows(units - u, max_rows[NV]);
                    const product p = {gates + u, 1, 0, 1, depth, packed};
                    real *to = w->dweight + (w->gates[i] * q->H + block * VL + u) * w->width + first * VL;
                    if (columns >= NV * VL) {
                        outer_tiles[NV][part](to, w->width, to, w->width, &p, 1, 1);
                        continue;
                    }
                    outer_tiles[NV][part](acc, NV * VL, 0, 0, &p, 1, 1);
                    for (long r = 0; r < part; r++)
                        for (int v = 0; v < NV; v++) {
                            real *at = to + r * w->width + v * VL;
                            store_part(at, load_part(at, columns - v * VL) + load(acc + (r * NV + v) * VL), columns - v * VL);
                        }
                }
            }
    }
}

static void grad_weights(const fr_sequence *q, long s_begin, long s_end, fr_share share) {
    const cell_cut *cut = cut_of(q);
    const long N = q->N, row = cut->slots * padded(q);
    const range blocks = part_of(hidden_blocks(q), share);
    real *packed_gates = q->scratch, *packed = packed_gates + gate_scratch_size(q) + share.id * DEPTH * PANEL * VL;
    for (long m = s_begin * N, depth; m < s_end * N; m += depth) {
        depth = MIN(DEPTH, s_end * N - m);
        for (long block = blocks.begin; block < blocks.end; block++)
            pack_gate_gradients(q, packed_gates + block * cut->slots * DEPTH * VL, block, (real *)q->gates + m * row, depth);
        const weight_product from_x = {q->dweight_ih, q->D, q->x, 0, 0, cut->x_slots, cut->x_gates};
        add_weight_product(q, &from_x, packed_gates, packed, blocks, m, depth);
        for (int pass = 0; pass < cut->passes && q->weight_hh; pass++) {
            const backward_pass *bp = &cut->backward[pass];
            const fr_series before = {(real *)q->output.data - q->output.step, q->output.step, q->output.row};
            const fr_series reset = {q->reset, q->reset_step, padded(q)};
            const weight_product from_h = {q->dweight_hh, q->H, bp->same_step ? reset : before, bp->same_step ? 0 : q->h0,
                                           bp->first_slot, bp->slots, bp->gates};
            add_weight_product(q, &from_h, packed_gates, packed, blocks, m, depth);
        }
    }
}

/* ---- Padded states ---- */

static void pad(void *to, const void *from, long rows, long width) {
    const long wide = vectors_in(width) * VL;
    for (long r = 0; r < rows; r++) {
        real *row = (real *)to + r * wide;
        if (from) memcpy(row, (const real *)from + r * width, width * sizeof(real));
        else memset(row, 0, width * sizeof(real));
        memset(row + width, 0, (wide - width) * sizeof(real));
    }
}

static void unpad(void *to, const void *from, long rows, long width) {
    const long wide = vectors_in(width) * VL;
    for (long r = 0; r < rows; r++) memcpy((real *)to + r * width, (const real *)from + r * wide, width * sizeof(real));
}

static int gates_of(int cell) { return cuts[cell].x_slots; }
static int slots_of(int cell) { return cuts[cell].slots; }
static int passes_of(int cell) { return cuts[cell].passes; }

#include "trees.h"

const fr_kernels FR_BUILD = {
    VL, sizeof(real), gates_of, slots_of, passes_of, padded, panels_size, inputs_row, panels_h_size, panels_x_size, scratch_size,
    pack_forward, project, step_forward, pack_backward, step_backward, grad_state, grad_input, grad_weights,
    pad, unpad,
    tree_pack_forward, tree_project, tree_forward, tree_pack_backward, tree_backward, tree_grad_input, tree_grad_weights,
};
