/* Gradients of input and weights, from the gate gradients of all steps: products over all rows that ran. */
#ifndef FASTRNN_GRADIENTS_H
#define FASTRNN_GRADIENTS_H

#include "backward.h"

/* The step and the row of a packed row, and the one after it. */
typedef struct {
    long s, i;
} place;
static place place_of(const fr_sequence *q, long m) {
    if (!q->rows.order) return (place){m / q->N, m % q->N};
    long low = 0, high = q->T - 1; /* the last step that starts at m or before */
    while (low < high) {
        const long middle = (low + high + 1) / 2;
        if (q->rows.packed[middle] <= m)
            low = middle;
        else
            high = middle - 1;
    }
    return (place){low, m - q->rows.packed[low]};
}
INLINE void advance(const fr_sequence *q, place *p) {
    if (++p->i == fr_active(q, p->s)) p->i = 0, p->s++;
}

/* ---- Of the input ---- */

enum { MOST_ROWS = 512 };
/* Rows of gate gradients that stay in L2 while panels change. */
static long rows_together(const fr_sequence *q) {
    const long fits = 24 + (long)(512 * 1024 / sizeof(real)) / gates_row(q);
    return MIN(fits, (long)MOST_ROWS);
}

/* Scratch: packed gate gradients of all units, those of the projection, then for each thread a panel of the other operand,
 * or before that the operands of grad_input. */
static long gate_scratch_size(const fr_sequence *q) {
    return packed_gates_size(q->H, cell_of(q)->slots) + (q->args.weight_hr ? packed_gates_size(q->P, 1) : 0);
}
static long thread_scratch_size(const fr_sequence *q) {
    const long blocks = rows_together(q) / ROW_BLOCK + 1, panel = rows_panel_size();
    const long operands = blocks * operand_block(cell_of(q)->x_slots * padded(q->H));
    return panel > operands ? panel : operands;
}
static long gradients_size(const fr_sequence *q, int threads) {
    return gate_scratch_size(q) + threads * thread_scratch_size(q);
}
static real *thread_scratch(const fr_sequence *q, fr_partition partition) {
    return (real *)q->scratch.gradients + gate_scratch_size(q) + partition.worker * thread_scratch_size(q);
}

/* Puts rows of gate gradients into blocks of operands, as next_rows cuts them; gates[first of each] then leads to its block. */
static void put_input_operands(const fr_sequence *q, const real **gates, long count, real *to) {
    const int slots = cell_of(q)->slots, x_slots = cell_of(q)->x_slots;
    for (long k = 0, part; k < count; k += part, to += operand_block(x_slots * padded(q->H))) {
        part = next_rows(count - k, ROW_BLOCK);
        for (long m = 0; m < part; m++) put_gates(operand_line(to, m, 0), gates[k + m], slots, 0, x_slots, q->H);
        gates[k] = to;
    }
}

static void add_or_store(const fr_sequence *q, real *dx, const real *sums, int NV, long columns) {
    for (int v = 0; v < NV; v++) {
        real *at = dx + v * VL;
        const long lanes = columns - v * VL;
        const vec sum = load(sums + v * VL);
        store_part(at, q->args.dx_add ? load_part(at, lanes) + sum : sum, lanes);
    }
}

static void grad_input(const fr_sequence *q, fr_partition partition) {
    const cell_descriptor *cell = cell_of(q);
    const long vectors = vectors_in(q->D), row = gates_row(q), together = rows_together(q);
    const range all = part_of(fr_packed(q, q->T), partition);
    const real *gates[MOST_ROWS];
    real *dx[MOST_ROWS];
    real acc[ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    place p = place_of(q, all.begin);
    multiply_begin();
    for (long m = all.begin, count; m < all.end; m += count) {
        count = MIN(together, all.end - m);
        for (long k = 0; k < count; k++, advance(q, &p))
            gates[k] = (const real *)q->workspace.gates + (m + k) * row, dx[k] = row_of(q, q->args.dx, p.s, p.i);
        if (OPERANDS_APART) put_input_operands(q, gates, count, thread_scratch(q, partition));
        for (long first = 0; first < vectors; first += PANEL) {
            const int NV = panel_width(vectors, first);
            const real *panel = (real *)q->scratch.panels_x + first * VL * gates_depth(cell->x_slots, q->H);
            for (long k = 0, part; k < count; k += part) {
                part = next_rows(count - k, ROW_BLOCK);
                product products[2];
                const int n = gate_products(products, gates + k, cell->slots, 0, cell->x_slots, q->H, panel, NV);
                multiply(NV, part, acc, NV * VL, 0, 0, products, n, 1);
                for (long r = 0; r < part; r++)
                    add_or_store(q, dx[k + r] + first * VL, acc + r * NV * VL, NV, q->D - first * VL);
            }
        }
        if (stops_between_products(q, (double)count * gates_depth(cell->x_slots, q->H) * q->D)) break;
    }
    multiply_end();
}

/* ---- Of weights and biases ---- */

/* dbias += sums: slots first .. first + count - 1 belong to the row blocks `gates`. */
static void add_bias_gradient(real *dbias, const vec *sums, int count, const int *gates, long width, long block) {
    for (int i = 0; dbias && i < count; i++) {
        real *to = dbias + gates[i] * width + block * VL;
        store_part(to, load_part(to, width - block * VL) + sums[i], width - block * VL);
    }
}

/* dpeephole += sum of da_i c_{t-1}, da_f c_{t-1}, da_o c_t over the rows. */
static void add_peephole_gradient(const fr_sequence *q, long block, long m0, long depth) {
    const real *gates = (const real *)q->workspace.gates + m0 * gates_row(q) + block * 4 * VL;
    vec sums[3] = {{0}};
    place p = place_of(q, m0);
    for (long k = 0; k < depth; k++, advance(q, &p), gates += gates_row(q)) {
        const vec c_prev = load(c_before(q, p.s, p.i) + block * VL),
                  c = load(c_made_at(q, p.s) + p.i * padded(q->H) + block * VL);
        sums[0] += load(gates) * c_prev;
        sums[1] += load(gates + VL) * c_prev;
        sums[2] += load(gates + 3 * VL) * c;
    }
    static const int all[3] = {0, 1, 2};
    add_bias_gradient(q->args.dweight_peephole, sums, 3, all, q->H, block);
}

/* dweight (gate rows, width) += gate gradients, transposed, times the rows of the other operand. */
typedef struct {
    real *dweight;
    long width;
    enum { X, H_BEFORE, INNER } operand;
    int first_slot, slots;
    const int *gates;
} weight_product;

INLINE const real *operand_row_of(const fr_sequence *q, const weight_product *w, place p) {
    switch (w->operand) {
    case X:
        return row_of(q, q->args.x, p.s, p.i);
    case H_BEFORE:
        return h_seen(q, p.s, p.i);
    default:
        return inner_at(q, p.s) + p.i * padded(q->H);
    }
}

/* The product of the packed gate gradients of unit blocks `blocks` with rows m0 .. m0 + depth - 1 of the other operand. */
static void add_weight_product(const fr_sequence *q, const gradient_operand *g, const weight_product *w,
                               const real *packed_gates, real *panel, range blocks, long m0, long depth) {
    const long vectors = vectors_in(w->width);
    const real *rows[DEPTH];
    place p = place_of(q, m0);
    for (long k = 0; k < depth; k++, advance(q, &p)) rows[k] = operand_row_of(q, w, p);
    for (long first = 0; first < vectors; first += PANEL) {
        const int NV = panel_width(vectors, first);
        pack_rows(panel, NV, rows, first * VL, w->width - first * VL, depth);
        for (int i = 0; i < w->slots; i++) {
            const outer_target target = {.dweight = w->dweight + w->gates[i] * g->width * w->width + first * VL,
                                         .units = g->width,
                                         .width = w->width,
                                         .columns = w->width - first * VL};
            add_outer_product(&target, packed_gates, g->slots, w->first_slot + i, blocks, panel, NV, depth);
        }
    }
}

/* Packs the gate gradients of rows m .. m + depth - 1 of some unit blocks, and adds them up to those of the biases. */
static void pack_cell_gradients(const fr_sequence *q, real *packed, range blocks, long m, long depth) {
    const cell_descriptor *cell = cell_of(q);
    const real *gates = (const real *)q->workspace.gates + m * gates_row(q);
    vec sums[4];
    for (long block = blocks.begin; block < blocks.end; block++) {
        pack_gate_gradients(packed, gates, gates_row(q), cell->slots, block, depth, sums);
        add_bias_gradient(q->args.dbias_ih, sums, cell->x_slots, cell->x_gates, q->H, block);
        for (int i = 0; i < cell->products; i++) {
            const backward_descriptor *form = &cell->backward[i];
            add_bias_gradient(q->args.dbias_hh, sums + form->first_slot, form->slots, form->gates, q->H, block);
        }
        if (q->args.dweight_peephole) add_peephole_gradient(q, block, m, depth);
    }
}

static void grad_cell_weights(const fr_sequence *q, fr_partition partition) {
    const cell_descriptor *cell = cell_of(q);
    real *packed = q->scratch.gradients, *panel = thread_scratch(q, partition);
    const gradient_operand gates = {.width = q->H, .slots = cell->slots};
    const weight_product from_x = {q->args.dweight_ih, q->D, X, 0, cell->x_slots, cell->x_gates};
    const range blocks = part_of(vectors_in(q->H), partition);
    const long all = fr_packed(q, q->T);
    for (long m = 0, depth; m < all; m += depth) {
        depth = MIN(DEPTH, all - m);
        pack_cell_gradients(q, packed, blocks, m, depth);
        if (q->D && q->args.dweight_ih) add_weight_product(q, &gates, &from_x, packed, panel, blocks, m, depth);
        for (int i = 0; i < cell->products && q->args.weight_hh; i++) {
            const backward_descriptor *form = &cell->backward[i];
            const weight_product from_h = {q->args.dweight_hh, q->P,        form->same_step ? INNER : H_BEFORE,
                                           form->first_slot,   form->slots, form->gates};
            add_weight_product(q, &gates, &from_h, packed, panel, blocks, m, depth);
        }
        const long units = (blocks.end - blocks.begin) * VL;
        if (stops_between_products(q, (double)depth * units * cell->slots * (q->D + q->P))) return;
    }
}

static void grad_projection_weights(const fr_sequence *q, fr_partition partition) {
    /* Behind the cell's, of which other threads may still be reading theirs. */
    real *packed = (real *)q->scratch.gradients + packed_gates_size(q->H, cell_of(q)->slots);
    const gradient_operand gates = {.width = q->P, .slots = 1};
    const weight_product from_inner = {q->args.dweight_hr, q->H, INNER, 0, 1, projection_gates};
    const range blocks = part_of(vectors_in(q->P), partition);
    const long all = fr_packed(q, q->T), row = padded(q->P);
    vec sums[4];
    for (long m = 0, depth; m < all; m += depth) {
        depth = MIN(DEPTH, all - m);
        for (long block = blocks.begin; block < blocks.end; block++) {
            pack_gate_gradients(packed, (const real *)q->scratch.dprojected + m * row, row, 1, block, depth, sums);
            add_bias_gradient(q->args.dbias_hr, sums, 1, projection_gates, q->P, block);
        }
        add_weight_product(q, &gates, &from_inner, packed, thread_scratch(q, partition), blocks, m, depth);
        if (stops_between_products(q, (double)depth * (blocks.end - blocks.begin) * VL * q->H)) return;
    }
}

static void grad_weights(const fr_sequence *q, fr_partition partition) {
    multiply_begin();
    grad_cell_weights(q, partition);
    if (q->args.dweight_hr) grad_projection_weights(q, partition);
    multiply_end();
}

#endif
