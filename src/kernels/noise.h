/* Recurrent dropout and zoneout. They stand around products and epilogues, which do not know of them.
 *
 *     dropped = recurrent_mask * h_{t-1}, what the recurrent weights see            (N, P), the same for all steps
 *     h_t = k * h_{t-1} + (1 - k) * h_made, c_t likewise, with its own k            k = zoneout_h[t], zoneout_c[t]
 *
 * # Design: h_made and c_made have memory of their own, as the backward of a cell starts from what the cell made. Without noise
 * a step asks for three pointers that are NULL, once for each panel and block of rows.
 */
#ifndef FASTRNN_NOISE_H
#define FASTRNN_NOISE_H

#include "passes.h"

/* What runs with noise only stays out of the loops of all other calls. */
#define COLD __attribute__((noinline, cold))

/* Rows `row` .. row + rows - 1 of units first * VL .. (first + blocks) * VL - 1: what an epilogue works on. */
typedef struct {
    long row;
    int rows;
    long first;
    int blocks;
} unit_rows;

INLINE int has_noise(const fr_sequence *q) {
    return q->args.recurrent_mask || q->args.zoneout_h.data || q->args.zoneout_c.data;
}

INLINE const real *recurrent_mask_of(const fr_sequence *q, long i) {
    return (const real *)q->args.recurrent_mask + user_row(q, i) * q->P;
}
INLINE real *dropped_at(const fr_sequence *q, long s) {
    return (real *)q->workspace.dropped + first_row(q, s) * padded(q->P);
}
/* h of the step before, as the recurrent weights see it. */
INLINE const real *h_seen(const fr_sequence *q, long s, long i) {
    return q->args.recurrent_mask ? dropped_at(q, s) + i * padded(q->P) : h_before(q, s, i);
}

/* What the cell itself makes of h and c, before a part of the state before is kept. */
INLINE real *h_made(const fr_sequence *q, long s, long i) {
    if (!q->args.zoneout_h.data) return row_of(q, q->args.output, s, i);
    return (real *)q->workspace.h_made + (first_row(q, s) + i) * padded(q->P);
}
INLINE real *c_made_at(const fr_sequence *q, long s) {
    if (!q->args.zoneout_c.data) return c_at(q, s);
    return (real *)q->workspace.c_made + first_row(q, s) * padded(q->H);
}

/* ---- Forward ---- */

/* Whole rows, which are dealt out even where panels are for the product after it. */
COLD static void dropout_forward(const fr_sequence *q, long s, fr_partition partition) {
    partition.by_units = 0;
    block_walk walk = walk_blocks(q->N, fr_active(q, s), partition);
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++) {
            const real *h = h_before(q, s, i), *mask = recurrent_mask_of(q, i);
            real *to = dropped_at(q, s) + i * padded(q->P);
            for (long unit = 0; unit < q->P; unit += VL)
                store(to + unit, load_part(h + unit, q->P - unit) * load_part(mask + unit, q->P - unit));
        }
}

INLINE vec mix(vec part, vec kept, vec made) { return part * kept + (1 - part) * made; }

static void keep_h(const fr_sequence *q, long s, row_pointers at, unit_rows u) {
    for (long n = u.row; n < u.row + u.rows; n++) {
        const real *part = row_of(q, q->args.zoneout_h, s, n), *made = h_made(q, s, n);
        real *h = row_of(q, q->args.output, s, n);
        for (long unit = u.first * VL; unit < (u.first + u.blocks) * VL; unit += VL) {
            const long lanes = q->P - unit;
            store_part(h + unit,
                       mix(load_part(part + unit, lanes), load_part(at.h_prev[n] + unit, lanes), load(made + unit)),
                       lanes);
        }
    }
}

static void keep_c(const fr_sequence *q, long s, row_pointers at, unit_rows u) {
    for (long n = u.row; n < u.row + u.rows; n++) {
        const real *part = row_of(q, q->args.zoneout_c, s, n), *made = c_made_at(q, s) + n * padded(q->H);
        real *c = c_at(q, s) + n * padded(q->H);
        for (long unit = u.first * VL; unit < (u.first + u.blocks) * VL; unit += VL)
            store(c + unit, mix(load_part(part + unit, q->H - unit), load(at.c_prev[n] + unit), load(made + unit)));
    }
}

/* After the epilogue of a product: c comes of the cell's first, h of the last of all. */
COLD static void keep_states(const fr_sequence *q, int index, long s, row_pointers at, unit_rows u) {
    if (q->args.zoneout_c.data && index == 0) keep_c(q, s, at, u);
    if (q->args.zoneout_h.data && index == passes_of(q)->products - 1) keep_h(q, s, at, u);
}

#endif
