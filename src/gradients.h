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
        if (q->rows.packed[middle] <= m) low = middle;
        else high = middle - 1;
    }
    return (place){low, m - q->rows.packed[low]};
}
INLINE void advance(const fr_sequence *q, place *p) {
    if (++p->i == fr_active(q, p->s)) p->i = 0, p->s++;
}

static void grad_input(const fr_sequence *q, fr_share share) {
    enum { TOGETHER = 512 };
    const cell_cut *cut = cut_of(q);
    const long vectors = vectors_in(q->D), row = cut->slots * padded(q->H);
    const long fits = 24 + (long)(512 * 1024 / sizeof(real)) / row, together = MIN(fits, (long)TOGETHER); /* rows that stay in L2 while panels change */
    const range all = part_of(fr_packed(q, q->T), share);
    const real *gates[TOGETHER];
    real *dx[TOGETHER];
    real acc[FR_ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    place p = place_of(q, all.begin);
    for (long m = all.begin, count; m < all.end; m += count) {
        count = MIN(together, all.end - m);
        for (long k = 0; k < count; k++, advance(q, &p))
            gates[k] = (const real *)q->gates + (m + k) * row, dx[k] = row_of(q, q->dx, p.s, p.i);
        for (long first = 0; first < vectors; first += PANEL) {
            const int NV = panel_width(vectors, first);
            const real *panel = (real *)q->panels_x + first * VL * cut->x_slots * q->H;
            for (long k = 0, part; k < count; k += part) {
                part = next_rows(count - k, FR_ROW_BLOCK);
                product products[2];
                const int n = gate_products(products, gates + k, cut->slots, 0, cut->x_slots, q->H, panel, NV);
                multiply(NV, part, acc, NV * VL, 0, 0, products, n, 1);
                for (long r = 0; r < part; r++)
                    for (int v = 0; v < NV; v++) {
                        real *at = dx[k + r] + (first + v) * VL;
                        const long lanes = q->D - (first + v) * VL;
                        const vec sum = load(acc + (r * NV + v) * VL);
                        store_part(at, q->dx_add ? load_part(at, lanes) + sum : sum, lanes);
                    }
            }
        }
    }
}

enum { DEPTH = 256 }; /* rows (time steps x batch) that one packed panel of dW spans: 64 KB in float32 */

/* Packed gate gradients of all units, those of the projection, then a panel of the other operand for each thread. */
static long gate_scratch_size(const fr_sequence *q) {
    return (padded(q->H) * cut_of(q)->slots + (q->weight_hr ? padded(q->R) : 0)) * DEPTH;
}
static long scratch_size(const fr_sequence *q, int threads) { return gate_scratch_size(q) + threads * DEPTH * PANEL * VL; }

/* Gate gradients of one unit block, slot by slot, as (slot, DEPTH, VL), and their sums. */
static void pack_gate_gradients(const gradient_operand *g, real *packed, long block, long m0, long depth, vec sums[4]) {
    const long row = operand_row(g);
    for (int slot = 0; slot < g->slots; slot++) {
        const real *from = g->data + m0 * row + (block * g->slots + slot) * VL;
        sums[slot] = (vec){0};
        for (long k = 0; k < depth; k++) {
            const vec v = load(from + k * row);
            store(packed + (slot * DEPTH + k) * VL, v);
            sums[slot] += v;
        }
    }
}

/* dbias += sums: slots first .. first + count - 1 belong to the row blocks `gates`. */
static void add_bias_gradient(real *dbias, const vec *sums, int count, const int *gates, long width, long block) {
    for (int i = 0; dbias && i < count; i++) {
        real *to = dbias + gates[i] * width + block * VL;
        store_part(to, load_part(to, width - block * VL) + sums[i], width - block * VL);
    }
}

/* dpeephole += sum of da_i c_{t-1}, da_f c_{t-1}, da_o c_t over the rows. */
static void add_peephole_gradient(const fr_sequence *q, const real *packed, long block, long m0, long depth) {
    vec sums[3] = {{0}};
    place p = place_of(q, m0);
    for (long k = 0; k < depth; k++, advance(q, &p)) {
        const vec c_prev = load(c_before(q, p.s, p.i) + block * VL), c = load(c_at(q, p.s) + p.i * padded(q->H) + block * VL);
        sums[0] += load(packed + k * VL) * c_prev;
        sums[1] += load(packed + (DEPTH + k) * VL) * c_prev;
        sums[2] += load(packed + (3 * DEPTH + k) * VL) * c;
    }
    static const int all[3] = {0, 1, 2};
    add_bias_gradient(q->dweight_peephole, sums, 3, all, q->H, block);
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
    case X: return row_of(q, q->x, p.s, p.i);
    case H_BEFORE: return h_before(q, p.s, p.i);
    default: return inner_at(q, p.s) + p.i * padded(q->H);
    }
}

static void add_weight_product(const fr_sequence *q, const gradient_operand *g, const weight_product *w, const real *packed_gates,
                               real *packed, range blocks, long m0, long depth) {
    const long vectors = vectors_in(w->width);
    real acc[FR_ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    for (long first = 0; first < vectors; first += PANEL) {
        const int NV = panel_width(vectors, first);
        const long columns = w->width - first * VL;
        place p = place_of(q, m0);
        for (long k = 0; k < depth; k++, advance(q, &p))
            pack_row(packed + k * NV * VL, NV, operand_row_of(q, w, p) + first * VL, columns);
        const long end = MIN(blocks.end * VL, g->width);
        for (int i = 0; i < w->slots; i++)
            for (long unit = blocks.begin * VL, part; unit < end; unit += part) {
                part = next_rows(end - unit, max_rows[NV]);
                const real *lanes[FR_ROW_BLOCK];
                for (int r = 0; r < part; r++)
                    lanes[r] = packed_gates + ((unit + r) / VL * g->slots + w->first_slot + i) * DEPTH * VL + (unit + r) % VL;
                const product gp = {lanes, 0, 0, 1, depth, packed};
                real *to = w->dweight + (w->gates[i] * g->width + unit) * w->width + first * VL;
                if (columns >= NV * VL) {
                    outer_tiles[NV][part](to, w->width, to, w->width, &gp, 1, 1);
                    continue;
                }
                outer_tiles[NV][part](acc, NV * VL, 0, 0, &gp, 1, 1);
                for (long r = 0; r < part; r++)
                    for (int v = 0; v < NV; v++) {
                        real *at = to + r * w->width + v * VL;
                        store_part(at, load_part(at, columns - v * VL) + load(acc + (r * NV + v) * VL), columns - v * VL);
                    }
            }
    }
}

static void grad_weights(const fr_sequence *q, fr_share share) {
    const cell_cut *cut = cut_of(q);
    real *packed_gates = q->scratch, *packed = packed_gates + gate_scratch_size(q) + share.worker * DEPTH * PANEL * VL;
    const gradient_operand cell = {q->gates, q->H, cut->slots, 0, cut->slots, 0, 0};
    const gradient_operand projected = {q->dprojected, q->R, 1, 0, 1, 0, 0};
    const weight_product from_x = {q->dweight_ih, q->D, X, 0, cut->x_slots, cut->x_gates};
    const weight_product from_inner = {q->dweight_hr, q->H, INNER, 0, 1, projection_gates};
    const range blocks = part_of(vectors_in(q->H), share), projected_blocks = part_of(vectors_in(q->R), share);
    const long all = fr_packed(q, q->T);
    vec sums[4];
    for (long m = 0, depth; m < all; m += depth) {
        depth = MIN(DEPTH, all - m);
        for (long block = blocks.begin; block < blocks.end; block++) {
            real *to = packed_gates + block * cut->slots * DEPTH * VL;
            pack_gate_gradients(&cell, to, block, m, depth, sums);
            add_bias_gradient(q->dbias_ih, sums, cut->x_slots, cut->x_gates, q->H, block);
            for (int pass = 0; pass < cut->passes; pass++) {
                const backward_pass *bp = &cut->backward[pass];
                add_bias_gradient(q->dbias_hh, sums + bp->first_slot, bp->slots, bp->gates, q->H, block);
            }
            if (q->dweight_peephole) add_peephole_gradient(q, to, block, m, depth);
        }
        if (q->D) add_weight_product(q, &cell, &from_x, packed_gates, packed, blocks, m, depth);
        for (int pass = 0; pass < cut->passes && q->weight_hh; pass++) {
            const backward_pass *bp = &cut->backward[pass];
            const weight_product from_h = {q->dweight_hh, q->R, bp->same_step ? INNER : H_BEFORE, bp->first_slot, bp->slots, bp->gates};
            add_weight_product(q, &cell, &from_h, packed_gates, packed, blocks, m, depth);
        }
    }
    packed_gates += padded(q->H) * cut->slots * DEPTH; /* other threads may still be reading theirs */
    for (long m = 0, depth; q->dweight_hr && m < all; m += depth) {
        depth = MIN(DEPTH, all - m);
        for (long block = projected_blocks.begin; block < projected_blocks.end; block++) {
            pack_gate_gradients(&projected, packed_gates + block * DEPTH * VL, block, m, depth, sums);
            add_bias_gradient(q->dbias_hr, sums, 1, projection_gates, q->R, block);
        }
        add_weight_product(q, &projected, &from_inner, packed_gates, packed, projected_blocks, m, depth);
    }
}

#endif
