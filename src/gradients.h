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

enum { TOGETHER = 512 };
/* Rows of gate gradients that stay in L2 while panels change. */
static long rows_together(const fr_sequence *q) {
    const long fits = 24 + (long)(512 * 1024 / sizeof(real)) / gates_row(q);
    return MIN(fits, (long)TOGETHER);
}
static real *thread_scratch(const fr_sequence *q, fr_share share);
/* Turns rows into left operands where these are something else (amx.h): each part of next_rows a block of them. */
#ifdef FR_AMX_TERMS
static void gates_as_operands(const fr_sequence *q, const real **gates, long count, real *to);
#else
INLINE void gates_as_operands(const fr_sequence *q, const real **gates, long count, real *to) {
    (void)q, (void)gates, (void)count, (void)to;
}
#endif

static void grad_input(const fr_sequence *q, fr_share share) {
    const cell_cut *cut = cut_of(q);
    const long vectors = vectors_in(q->D), row = gates_row(q), together = rows_together(q);
    const range all = part_of(fr_packed(q, q->T), share);
    const real *gates[TOGETHER];
    real *dx[TOGETHER];
    real acc[FR_ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    place p = place_of(q, all.begin);
    for (long m = all.begin, count; m < all.end; m += count) {
        count = MIN(together, all.end - m);
        for (long k = 0; k < count; k++, advance(q, &p))
            gates[k] = (const real *)q->gates + (m + k) * row, dx[k] = row_of(q, q->dx, p.s, p.i);
        gates_as_operands(q, gates, count, thread_scratch(q, share));
        for (long first = 0; first < vectors; first += PANEL) {
            const int NV = panel_width(vectors, first);
            const real *panel = (real *)q->panels_x + first * VL * gates_depth(cut->x_slots, q->H);
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

/* Packed gate gradients of all units, those of the projection, then for each thread a panel of the other operand. */
static long packed_size(long width, int slots);
static long thread_scratch_size(const fr_sequence *q);
static long gate_scratch_size(const fr_sequence *q) {
    return packed_size(q->H, cut_of(q)->slots) + (q->weight_hr ? packed_size(q->R, 1) : 0);
}
static long scratch_size(const fr_sequence *q, int threads) {
    return gate_scratch_size(q) + threads * thread_scratch_size(q);
}
static real *thread_scratch(const fr_sequence *q, fr_share share) {
    return (real *)q->scratch + gate_scratch_size(q) + share.worker * thread_scratch_size(q);
}

/* dbias += sums: slots first .. first + count - 1 belong to the row blocks `gates`. */
static void add_bias_gradient(real *dbias, const vec *sums, int count, const int *gates, long width, long block) {
    for (int i = 0; dbias && i < count; i++) {
        real *to = dbias + gates[i] * width + block * VL;
        store_part(to, load_part(to, width - block * VL) + sums[i], width - block * VL);
    }
}

/* dpeephole += sum of da_i c_{t-1}, da_f c_{t-1}, da_o c_t over the rows. */
static void add_peephole_gradient(const fr_sequence *q, long block, long m0, long depth) {
    const real *gates = (const real *)q->gates + m0 * gates_row(q) + block * 4 * VL;
    vec sums[3] = {{0}};
    place p = place_of(q, m0);
    for (long k = 0; k < depth; k++, advance(q, &p), gates += gates_row(q)) {
        const vec c_prev = load(c_before(q, p.s, p.i) + block * VL),
                  c = load(c_at(q, p.s) + p.i * padded(q->H) + block * VL);
        sums[0] += load(gates) * c_prev;
        sums[1] += load(gates + VL) * c_prev;
        sums[2] += load(gates + 3 * VL) * c;
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
    case X:
        return row_of(q, q->x, p.s, p.i);
    case H_BEFORE:
        return h_before(q, p.s, p.i);
    default:
        return inner_at(q, p.s) + p.i * padded(q->H);
    }
}

#ifdef FR_AMX_TERMS
#include "amx_gradients.h"
#else

static long packed_size(long width, int slots) { return padded(width) * slots * DEPTH; }
static long thread_scratch_size(const fr_sequence *q) { return (void)q, DEPTH * PANEL * VL; }

/* Gate gradients of one unit block into packed, (block, slot, DEPTH, VL), and their sums. */
static void pack_gate_gradients(const gradient_operand *g, real *packed, long block, long m0, long depth, vec sums[4]) {
    const long row = operand_row(g);
    packed += block * g->slots * DEPTH * VL;
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

static void add_weight_product(const fr_sequence *q, const gradient_operand *g, const weight_product *w,
                               const real *packed_gates, real *packed, range blocks, long m0, long depth) {
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
                    lanes[r] =
                        packed_gates + ((unit + r) / VL * g->slots + w->first_slot + i) * DEPTH * VL + (unit + r) % VL;
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
                        store_part(at, load_part(at, columns - v * VL) + load(acc + (r * NV + v) * VL),
                                   columns - v * VL);
                    }
            }
    }
}

#endif

static void grad_weights(const fr_sequence *q, fr_share share) {
    const cell_cut *cut = cut_of(q);
    real *packed_gates = q->scratch, *packed = thread_scratch(q, share);
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
            pack_gate_gradients(&cell, packed_gates, block, m, depth, sums);
            add_bias_gradient(q->dbias_ih, sums, cut->x_slots, cut->x_gates, q->H, block);
            for (int pass = 0; pass < cut->passes; pass++) {
                const backward_pass *bp = &cut->backward[pass];
                add_bias_gradient(q->dbias_hh, sums + bp->first_slot, bp->slots, bp->gates, q->H, block);
            }
            if (q->dweight_peephole) add_peephole_gradient(q, block, m, depth);
        }
        if (q->D) add_weight_product(q, &cell, &from_x, packed_gates, packed, blocks, m, depth);
        for (int pass = 0; pass < cut->passes && q->weight_hh; pass++) {
            const backward_pass *bp = &cut->backward[pass];
            const weight_product from_h = {q->dweight_hh,  q->R,      bp->same_step ? INNER : H_BEFORE,
                                           bp->first_slot, bp->slots, bp->gates};
            add_weight_product(q, &cell, &from_h, packed_gates, packed, blocks, m, depth);
        }
    }
    packed_gates += packed_size(q->H, cut->slots); /* other threads may still be reading theirs */
    for (long m = 0, depth; q->dweight_hr && m < all; m += depth) {
        depth = MIN(DEPTH, all - m);
        for (long block = projected_blocks.begin; block < projected_blocks.end; block++) {
            pack_gate_gradients(&projected, packed_gates, block, m, depth, sums);
            add_bias_gradient(q->dbias_hr, sums, 1, projection_gates, q->R, block);
        }
        add_weight_product(q, &projected, &from_inner, packed_gates, packed, projected_blocks, m, depth);
    }
}

#endif
