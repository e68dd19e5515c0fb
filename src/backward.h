/* Backward through the recurrence: one product of gate gradients with recurrent weights per pass, finished by the cell. */
#ifndef FASTRNN_BACKWARD_H
#define FASTRNN_BACKWARD_H

#include "forward.h"

/* Gate gradients as a left operand: `slots` vectors per unit block, of which a product takes `count` from `first`. */
typedef struct {
    real *data;
    long width; /* its units */
    int slots, first, count;
    const int *gates; /* row blocks of the weights that the slots belong to */
    const real *weight;
} gradient_operand;

INLINE long operand_row(const gradient_operand *g) { return g->slots * padded(g->width); }
INLINE real *operand_at(const fr_sequence *q, const gradient_operand *g, long s) {
    return g->data + fr_packed(q, s) * operand_row(g);
}

/* A pass finds the gradient of `width` units from those of the step after, or from what the pass before it has found. */
typedef struct {
    gradient_operand from;
    long width;
    long panels; /* where its panels start */
    int same_step;
    finish_function *finish;
    int is_projection;
} backward_view;

static backward_view backward_at(const fr_sequence *q, int index) {
    const cell_cut *cut = cut_of(q);
    const backward_pass *first = &cut->backward[0], *bp = &cut->backward[q->weight_hr ? 0 : index];
    const long first_size = gates_depth(first->slots, q->H) * padded(q->R);
    backward_view b = {{q->gates, q->H, cut->slots, bp->first_slot, bp->slots, bp->gates, q->weight_hh},
                       q->R,
                       0,
                       bp->same_step,
                       is_plain(q) ? bp->finish : bp->finish_any,
                       0};
    if (q->weight_hr && !index) /* dh that arrives at the projected h; the cell comes next */
        b.finish = rnn_backward_any, b.is_projection = 1;
    if (index) b.panels = first_size;
    if (q->weight_hr && index) {
        b.from = (gradient_operand){q->dprojected, q->R, 1, 0, 1, projection_gates, q->weight_hr};
        b.width = q->H, b.same_step = 1;
    }
    if (!q->weight_hh) b.from.weight = 0;
    return b;
}

static long panels_h_size(const fr_sequence *q) {
    const backward_view b = backward_at(q, products_of(q) - 1);
    return q->weight_hh ? b.panels + gates_depth(b.from.count, b.from.width) * padded(b.width) : 0;
}
static long panels_x_size(const fr_sequence *q) { return gates_depth(cut_of(q)->x_slots, q->H) * padded(q->D); }

static void pack_backward(const fr_sequence *q, fr_share share) {
    const cell_cut *cut = cut_of(q);
    const range part = part_of(gate_groups(cut->x_slots, q->H), share);
    for (long group = part.begin; group < part.end && q->dx.data; group++)
        pack_gate_rows(q->panels_x, q->weight_ih, cut->x_gates, cut->x_slots, q->H, q->D, group);
    for (int index = 0; index < products_of(q) && q->weight_hh; index++) {
        const backward_view b = backward_at(q, index);
        const range part = part_of(gate_groups(b.from.count, b.from.width), share);
        for (long group = part.begin; group < part.end; group++)
            pack_gate_rows((real *)q->panels_h + b.panels, b.from.weight, b.from.gates, b.from.count, b.from.width,
                           b.width, group);
    }
}

/* The product of gate gradients with recurrent weights, finished by `finish`; at.next leads to the gradients, and is not
 * looked at where there are none at all. */
static void through_recurrent_weights(const fr_sequence *q, const backward_view *b, int any, row_pointers at,
                                      long active, const cell_step *view, finish_function *finish, int backwards,
                                      fr_share share) {
    const long blocks_of_units = vectors_in(b->width);
    const row_deal deal = deal_rows(q->N);
    const range panels = panels_of(panels_in(blocks_of_units), share);
    point_at_operands(q, 1, 0, at, active, share);
    real acc[FR_ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    for (long i = panels.begin; i < panels.end; i++) {
        const long first = (backwards ? panels.end - 1 - (i - panels.begin) : i) * PANEL;
        const int NV = panel_width(blocks_of_units, first);
        const real *panel = (real *)q->panels_h + b->panels + first * VL * gates_depth(b->from.count, b->from.width);
        FOR_ROW_BLOCKS(block, deal, active, share) {
            const int rows = (int)(block.end - block.begin);
            product dh[2];
            int products = 0;
            if (any && b->from.weight)
                products = gate_products(dh, at.next + block.begin, b->from.slots, b->from.first, b->from.count,
                                         b->from.width, panel, NV);
            multiply(NV, rows, acc, NV * VL, 0, 0, dh, products, 0);
            finish(view, block.begin, rows, first, NV, acc, NV * VL);
        }
    }
}

/* Where row i finds the gate gradients that flow back to it from step s; zeros where nothing does. */
INLINE const real *next_gates(const fr_sequence *q, const gradient_operand *g, long s, long i) {
    return s < q->T && i < fr_active(q, s) && !starts_anew(q, s, i) ? operand_at(q, g, s) + i * operand_row(g)
                                                                    : q->zeros;
}
/* The same for a pass at step s. */
INLINE const real *gates_into(const fr_sequence *q, const backward_view *b, long s, long i) {
    return b->same_step ? operand_at(q, &b->from, s) + i * operand_row(&b->from) : next_gates(q, &b->from, s + 1, i);
}

/* Nothing flows back across a reset: what a cell carries past the product ends there too. */
static void end_carry_at_resets(const fr_sequence *q, long s, long width, fr_share share) {
    const range panels = panels_of(panels_in(vectors_in(width)), share);
    const row_deal deal = deal_rows(q->N);
    const long begin = panels.begin * PANEL * VL, end = MIN(panels.end * PANEL * VL, padded(width));
    FOR_ROW_BLOCKS(rows, deal, fr_active(q, s), share)
        for (long i = rows.begin; i < rows.end; i++)
            if (starts_anew(q, s, i))
                memset((real *)q->carry + i * padded(width) + begin, 0, (end - begin) * sizeof(real));
}

static void step_softmax_backward(const fr_sequence *q, long s, fr_share share) {
    share.by_units = 0;
    const row_deal deal = deal_rows(q->N);
    FOR_ROW_BLOCKS(rows, deal, fr_active(q, s), share)
        for (long i = rows.begin; i < rows.end; i++)
            softmax_row_backward((real *)q->dprojected + (fr_packed(q, s) + i) * padded(q->R),
                                 row_of(q, q->output, s, i), q->R);
}

static void step_backward(const fr_sequence *q, int index, long s, fr_share share) {
    const int last = index == passes(q) - 1;
    if (has_softmax(q) && index == 1) {
        step_softmax_backward(q, s, share);
        return;
    }
    if (has_softmax(q) && index) index--;
    const backward_view b = backward_at(q, index);
    const row_pointers at = row_pointers_in(share, q->N);
    const row_deal deal = deal_rows(q->N);
    const long active = fr_active(q, s), source = b.same_step ? s : s + 1;
    const int cell_behind = q->weight_hr && index, any = source < q->T;
    cell_step v = {.H = b.width,
                   .Hp = padded(b.width),
                   .clip = (real)q->clip,
                   .peephole = peephole_of(q),
                   .activation = b.is_projection ? q->output_activation : q->activation,
                   .gate_activation = q->gate_activation};
    v.c = c_at(q, s);
    v.inner = inner_at(q, s);
    v.carry = q->carry;
    v.gates = b.is_projection ? (real *)q->dprojected + fr_packed(q, s) * v.Hp
                              : (real *)q->gates + fr_packed(q, s) * cut_of(q)->slots * v.Hp;
    v.h_prev = at.h_prev, v.c_prev = at.c_prev, v.h = at.h;
    v.doutput = q->doutput.data && !cell_behind ? at.doutput : 0;
    v.dh_n = q->dh_n && !cell_behind ? at.dh_n : 0;
    FOR_ROW_BLOCKS(rows, deal, active, share)
        for (long i = rows.begin; i < rows.end; i++) {
            at.h_prev[i] = h_before(q, s, i);
            if (q->c) at.c_prev[i] = c_before(q, s, i);
            at.h[i] = cell_behind ? v.inner + i * v.Hp : row_of(q, q->output, s, i);
            if (v.doutput) at.doutput[i] = row_of(q, q->doutput, s, i);
            if (v.dh_n) at.dh_n[i] = s == length_of(q, i) - 1 ? (const real *)q->dh_n + user_row(q, i) * q->R : 0;
            at.next[i] = gates_into(q, &b, s, i);
        }
    through_recurrent_weights(q, &b, any, at, active, &v, b.finish, s & 1, share);
    if (q->rows.reset_mask && last) end_carry_at_resets(q, s, q->H, share);
}

/* dh0: `h` is where it goes, `carry` its direct part where the cell has one. */
static void finish_grad_state(FINISH_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL;
        for (long n = row; n < row + rows; n++) {
            vec dh = load(acc + (n - row) * acc_row + b * VL) + dh_from_outside(s, n, block + b);
            if (s->carry) dh += load(s->carry + n * s->Hp + unit);
            store_part(s->h[n] + unit, dh, lanes_of(s, block + b));
        }
    }
}

static void grad_state(const fr_sequence *q, fr_share share) {
    const backward_view b = backward_at(q, 0);
    const row_deal deal = deal_rows(q->N);
    const row_pointers at = row_pointers_in(share, q->N);
    const cell_step view = {.H = q->R,
                            .Hp = padded(q->R),
                            .h = at.h,
                            .dh_n = q->dh_n ? at.dh_n : 0,
                            .carry = cut_of(q)->carries_dh ? q->carry : 0};
    FOR_ROW_BLOCKS(rows, deal, q->N, share)
        for (long i = rows.begin; i < rows.end; i++) {
            at.h[i] = (real *)q->dh0 + user_row(q, i) * q->R;
            at.next[i] = next_gates(q, &b.from, 0, i);
            if (view.dh_n) at.dh_n[i] = length_of(q, i) ? 0 : (const real *)q->dh_n + user_row(q, i) * q->R;
        }
    through_recurrent_weights(q, &b, q->T > 0, at, q->N, &view, finish_grad_state, 1, share);
}

#endif
