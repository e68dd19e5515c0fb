/* A step on AMX tiles: each pass becomes two, of which the first puts the rows that the second multiplies into `operand`.
 * Rows are dealt out for the first even where the second is shared out by units; there a barrier is between the two. */
#ifndef FASTRNN_AMX_STEPS_H
#define FASTRNN_AMX_STEPS_H

#include "gradients.h"

/* Floats of a block of rows, those of the widest product: passes of different width then keep out of each other's blocks,
 * as threads that share out rows are not at the same pass. */
static long operand_stride(const fr_sequence *q, int backward) {
    long most = 0;
    for (int index = 0; index < products_of(q); index++) {
        const pass_view p = pass_at(q, index);
        const backward_view b = backward_at(q, index);
        const long size =
            backward ? operand_block(b.from.count * padded(b.from.width)) : operand_block(p.D) + operand_block(p.K);
        most = size > most ? size : most;
    }
    return most;
}
static long operand_size(const fr_sequence *q, int backward) {
    return fr_row_blocks(q->N) * operand_stride(q, backward);
}

/* The block of rows that starts at row `begin`. */
INLINE real *operand_from(const fr_sequence *q, row_deal deal, long begin, long stride) {
    return (real *)q->operand + block_from(deal, begin) * stride;
}

static void point_at_operands(const fr_sequence *q, int backward, long D, row_pointers at, long active,
                              fr_share share) {
    const row_deal deal = deal_rows(q->N);
    const long stride = operand_stride(q, backward);
    FOR_ROW_BLOCKS(rows, deal, active, share) {
        at.x[rows.begin] = operand_from(q, deal, rows.begin, stride);
        at.next[rows.begin] = at.x[rows.begin] + operand_block(D);
    }
}

static void put_forward(const fr_sequence *q, int index, long s, fr_share share) {
    const pass_view p = pass_at(q, index);
    const row_deal deal = deal_rows(q->N);
    const long stride = operand_stride(q, 0);
    share.by_units = 0;
    FOR_ROW_BLOCKS(rows, deal, fr_active(q, s), share)
        for (long i = rows.begin; i < rows.end; i++) {
            real *line = operand_line(operand_from(q, deal, rows.begin, stride), i - rows.begin);
            if (p.D) put_row(line, row_of(q, q->x, s, i), p.D);
            const real *h = p.cut->reads_inner ? inner_at(q, s) + i * padded(p.K) : h_before(q, s, i);
            if (p.K) put_row(line + operand_block(p.D), h, p.K);
        }
}

static void put_backward(const fr_sequence *q, int index, long s, long active, fr_share share) {
    const backward_view b = backward_at(q, index);
    const gradient_operand *g = &b.from;
    const row_deal deal = deal_rows(q->N);
    const long stride = operand_stride(q, 1);
    share.by_units = 0;
    FOR_ROW_BLOCKS(rows, deal, g->weight ? active : 0, share)
        for (long i = rows.begin; i < rows.end; i++) {
            real *line = operand_line(operand_from(q, deal, rows.begin, stride), i - rows.begin);
            put_gates(line, gates_into(q, &b, s, i), g->slots, g->first, g->count, g->width);
        }
}

/* ---- The passes and functions of the table ---- */

static int amx_passes(const fr_sequence *q) { return 2 * products_of(q) + has_softmax(q); }

static void amx_step_forward(const fr_sequence *q, int pass, long s, fr_share share) {
    const int is_product = pass < 2 * products_of(q);
    if (is_product && pass % 2 == 0) {
        put_forward(q, pass / 2, s, share);
        return;
    }
    tiles_begin();
    step_forward(q, is_product ? pass / 2 : products_of(q), s, share);
    tiles_end();
}

/* The softmax of a projection comes after its product. */
static void amx_step_backward(const fr_sequence *q, int pass, long s, fr_share share) {
    const int is_softmax = has_softmax(q) && pass == 2, after_softmax = has_softmax(q) && pass > 2;
    const int product = (pass - after_softmax) / 2;
    if (!is_softmax && (pass - after_softmax) % 2 == 0) {
        put_backward(q, product, s, fr_active(q, s), share);
        return;
    }
    tiles_begin();
    step_backward(q, is_softmax ? 1 : product + after_softmax, s, share);
    tiles_end();
}

static void amx_grad_state(const fr_sequence *q, fr_share share) {
    share.by_units = 0; /* no barrier comes before it */
    if (q->T) put_backward(q, 0, -1, q->N, share);
    tiles_begin();
    grad_state(q, share);
    tiles_end();
}

static void amx_grad_input(const fr_sequence *q, fr_share share) {
    tiles_begin();
    grad_input(q, share);
    tiles_end();
}

static void amx_grad_weights(const fr_sequence *q, fr_share share) {
    tiles_begin();
    grad_weights(q, share);
    tiles_end();
}

#endif
