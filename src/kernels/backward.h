/* Backward through the recurrence: products of gate gradients with recurrent weights, finished by the cell. */
#ifndef FASTRNN_BACKWARD_H
#define FASTRNN_BACKWARD_H

#include "forward.h"
#include "noise_backward.h"

static void softmax_row_backward(real *dy, const real *y, long n) {
    real dot = 0;
    for (long k = 0; k < n; k++) dot += dy[k] * y[k];
    for (long k = 0; k < n; k++) dy[k] = y[k] * (dy[k] - dot);
}

/* dh0 where `h` leads to, `dstate` its direct part where the cell has one. */
static void grad_state_epilogue(EPILOGUE_ARGS) {
    for (int b = 0; b < blocks; b++) {
        const long unit = (block + b) * VL;
        for (long n = row; n < row + rows; n++) {
            vec dh = load(acc + (n - row) * acc_row + b * VL) + dh_from_outside(s, n, block + b);
            if (s->dstate) dh += load(s->dstate + n * s->Hp + unit);
            store_part(s->h[n] + unit, dh, lanes_of(s, block + b));
        }
    }
}

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

/* Finds the gradient of `width` units from gate gradients, those of the step after or those that the product before found. */
typedef struct {
    gradient_operand from;
    long width;
    long panels; /* where its panels start */
    int same_step, is_projection;
    epilogue *epilogue;
} backward_product;

static backward_product backward_product_at(const fr_sequence *q, int index) {
    const cell_descriptor *cell = cell_of(q);
    const int projects = !!q->args.weight_hr;
    const backward_descriptor *first = &cell->backward[0], *form = &cell->backward[projects ? 0 : index];
    backward_product p = {.from = {.data = q->workspace.gates,
                                   .width = q->H,
                                   .slots = cell->slots,
                                   .first = form->first_slot,
                                   .count = form->slots,
                                   .gates = form->gates,
                                   .weight = q->args.weight_hh},
                          .width = q->P,
                          .panels = index ? gates_depth(first->slots, q->H) * padded(q->P) : 0,
                          .same_step = form->same_step,
                          .epilogue = is_default_cell(q) ? form->epilogue : form->generic_epilogue};
    if (projects && !index) /* dh that arrives at the projected h; the cell comes next */
        p.epilogue = rnn_backward_generic, p.is_projection = 1;
    if (projects && index) {
        p.from = (gradient_operand){.data = q->scratch.dprojected,
                                    .width = q->P,
                                    .slots = 1,
                                    .count = 1,
                                    .gates = projection_gates,
                                    .weight = q->args.weight_hr};
        p.width = q->H, p.same_step = 1;
    }
    if (!q->args.weight_hh) p.from.weight = 0;
    return p;
}

INLINE long depth_of_gates(const backward_product *p) { return gates_depth(p->from.count, p->from.width); }

static long panels_h_size(const fr_sequence *q) {
    const backward_product p = backward_product_at(q, passes_of(q)->products - 1);
    return q->args.weight_hh ? p.panels + depth_of_gates(&p) * padded(p.width) : 0;
}
static long panels_x_size(const fr_sequence *q) { return gates_depth(cell_of(q)->x_slots, q->H) * padded(q->D); }

static void pack_backward(const fr_sequence *q, fr_partition partition) {
    const cell_descriptor *cell = cell_of(q);
    const range part = part_of(gate_groups(cell->x_slots, q->H), partition);
    for (long group = part.begin; group < part.end && q->args.dx.data; group++)
        pack_gate_rows(q->scratch.panels_x, q->args.weight_ih, cell->x_gates, cell->x_slots, q->H, q->D, group);
    for (int index = 0; index < passes_of(q)->products && q->args.weight_hh; index++) {
        const backward_product p = backward_product_at(q, index);
        const gradient_operand *from = &p.from;
        const range part = part_of(gate_groups(from->count, from->width), partition);
        for (long group = part.begin; group < part.end; group++)
            pack_gate_rows((real *)q->scratch.panels_h + p.panels, from->weight, from->gates, from->count, from->width,
                           p.width, group);
    }
}

/* ---- Operands ---- */

/* Where row i finds the gate gradients that flow back to it from step s; zeros where nothing does. */
INLINE const real *next_gates(const fr_sequence *q, const gradient_operand *g, long s, long i) {
    return s < q->T && i < fr_active(q, s) && !starts_anew(q, s, i) ? operand_at(q, g, s) + i * operand_row(g)
                                                                    : q->workspace.zeros;
}
/* The same for a product at step s. */
INLINE const real *gates_into(const fr_sequence *q, const backward_product *p, long s, long i) {
    return p->same_step ? operand_at(q, &p->from, s) + i * operand_row(&p->from) : next_gates(q, &p->from, s + 1, i);
}

static long backward_operand_stride(const fr_sequence *q) {
    long most = 0;
    for (int index = 0; index < passes_of(q)->products; index++) {
        const backward_product p = backward_product_at(q, index);
        const long size = operand_block(p.from.count * padded(p.from.width));
        most = size > most ? size : most;
    }
    return most;
}

static void put_backward_operands(const fr_sequence *q, int index, long s, long active, fr_partition partition) {
    const backward_product p = backward_product_at(q, index);
    const gradient_operand *g = &p.from;
    const long stride = backward_operand_stride(q);
    partition.by_units = 0;
    block_walk walk = walk_blocks(q->N, g->weight ? active : 0, partition);
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++) {
            real *line = operand_line(operands_of(q, walk.deal, walk.rows.begin, stride), i - walk.rows.begin, 0);
            put_gates(line, gates_into(q, &p, s, i), g->slots, g->first, g->count, g->width);
        }
}

/* ---- One step ---- */

/* Around the epilogue: noise.h. */
INLINE int gates_inner(const fr_sequence *q, const backward_product *p) { return p->same_step && !q->args.weight_hr; }
INLINE int finds_dc(const fr_sequence *q, const backward_product *p) { return p->same_step || !q->args.weight_hr; }

static void noise_before(const fr_sequence *q, const backward_product *p, long s, const cell_step *view, unit_rows u,
                         real *acc, real *aside) {
    if (q->args.recurrent_mask && !p->same_step) mask_sums(q, u, acc);
    if (q->args.zoneout_h.data && !p->same_step) split_dh(q, s, view, u, acc);
    if (s < 0) return;
    if (q->args.zoneout_c.data && finds_dc(q, p)) split_dc(q, s, u, aside);
    if (q->args.recurrent_mask && gates_inner(q, p)) put_dstate_aside(q, u, aside);
}

static void noise_after(const fr_sequence *q, const backward_product *p, unit_rows u, const real *aside) {
    if (q->args.zoneout_c.data && finds_dc(q, p)) take_back(q, 0, u, aside);
    if (q->args.recurrent_mask && gates_inner(q, p)) take_back(q, 1, u, aside);
}

/* The product of gate gradients with recurrent weights, finished by an epilogue, of step s or, with s = -1, of the initial
 * state; at.next leads to the gradients, and is not looked at where there are none. */
static void multiply_gates(const fr_sequence *q, const backward_product *p, long s, row_pointers at, row_deal deal,
                           const cell_step *view, epilogue *epilogue, fr_partition partition) {
    const long active = s < 0 ? q->N : fr_active(q, s);
    const int any = p->same_step || s + 1 < q->T, falling = s & 1, noise = has_noise(q);
    const int has_all_dh =
        q->args.zoneout_h.data && !p->same_step && s >= 0; /* before the epilogue, from outside too */
    cell_step without = *view;
    without.doutput = without.dh_n = 0;
    const gradient_operand *from = &p->from;
    const long vectors = vectors_in(p->width);
    const range panels = panels_of(panels_in(vectors), partition);
    if (OPERANDS_APART) point_at_operands(q, backward_operand_stride(q), 0, at, active, partition);
    real acc[ROW_BLOCK * PANEL * VL] __attribute__((aligned(64))),
        aside[ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    multiply_begin();
    for (long i = panels.begin; i < panels.end; i++) {
        const long first = (falling ? panels.end - 1 - (i - panels.begin) : i) * PANEL;
        const int NV = panel_width(vectors, first);
        const real *panel = (real *)q->scratch.panels_h + p->panels + first * VL * depth_of_gates(p);
        block_walk walk = walk_dealt(deal, active, partition);
        while (next_block(&walk)) {
            const long row = walk.rows.begin;
            const int rows = (int)(walk.rows.end - row);
            product dh[2];
            int products = 0;
            if (any && from->weight)
                products =
                    gate_products(dh, at.next + row, from->slots, from->first, from->count, from->width, panel, NV);
            multiply(NV, rows, acc, NV * VL, 0, 0, dh, products, 0);
            const unit_rows u = {row, rows, first, NV};
            if (noise) noise_before(q, p, s, view, u, acc, aside);
            epilogue(has_all_dh ? &without : view, row, rows, first, NV, acc, NV * VL);
            if (noise && s >= 0) noise_after(q, p, u, aside);
            if (stops_between_products(q, (double)rows * NV * VL * depth_of_gates(p))) {
                multiply_end();
                return;
            }
        }
    }
    multiply_end();
}

/* Nothing flows back across a reset: what goes past the product, N rows of units, ends there too. */
static void end_at_resets(const fr_sequence *q, real *dstate, long units, long s, fr_partition partition) {
    const long width = padded(units);
    const range panels = panels_of(panels_in(vectors_in(units)), partition);
    const long begin = panels.begin * PANEL * VL, end = MIN(panels.end * PANEL * VL, width);
    block_walk walk = walk_blocks(q->N, fr_active(q, s), partition);
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++)
            if (starts_anew(q, s, i)) memset(dstate + i * width + begin, 0, (end - begin) * sizeof(real));
}

/* Whether gradients enter beside doutput, and that of row i at step s, or NULL; step -1 is the initial state. They are those
 * of the final state and of masked steps. */
INLINE int has_late(const fr_sequence *q) { return q->rows.times || q->args.dh_n; }
INLINE const real *late_gradient(const fr_sequence *q, long s, long i) {
    if (!q->rows.times)
        return s == length_of(q, i) - 1 ? (const real *)q->args.dh_n + user_row(q, i) * q->P : (const real *)0;
    const long late = q->rows.late[fr_packed(q, s < 0 ? q->T : s) + i];
    return late < 0 ? (const real *)0 : (const real *)q->scratch.dlate + late * q->P;
}

/* One product of every step, for one partition, with what is the same at all steps (see forward_pass). */
typedef struct {
    backward_product product;
    int index;
    fr_partition partition;
    row_deal deal;
    row_pointers at;
    cell_step view;        /* its c, gates and inner are those of a step */
    int behind_projection; /* what arrives from outside was the projection's */
    int seen;              /* h of the step before is wanted as the weights see it */
    int regular;           /* rows_are_regular, from the output of the step before to that of the step */
} backward_pass;

static void begin_backward_pass(backward_pass *b, const fr_sequence *q, int index, fr_partition partition) {
    b->product = backward_product_at(q, index), b->index = index, b->partition = partition;
    const backward_product *p = &b->product;
    b->deal = deal_rows(q->N);
    b->at = row_pointers_in(partition, q->N);
    b->behind_projection = q->args.weight_hr && index, b->seen = gates_inner(q, p);
    b->view = (cell_step){
        .H = p->width,
        .Hp = padded(p->width),
        .options = &q->options,
        .activation = p->is_projection ? q->options.output_activation : q->options.activation,
        .peephole = peephole_of(q),
        .h_prev = b->at.h_prev,
        .c_prev = b->at.c_prev,
        .h = b->at.h,
        .dstate = q->scratch.dstate,
        .doutput = q->args.doutput.data && !b->behind_projection ? b->at.doutput : 0,
        .dh_n = has_late(q) && !b->behind_projection ? b->at.dh_n : 0,
    };
    b->regular = rows_are_regular(q) && !has_noise(q) && !q->args.weight_hr && !p->same_step;
}

/* What the epilogues of a step see, and the pointers to the rows that this thread works on. */
static void go_back_to_step(const fr_sequence *q, backward_pass *b, long s) {
    const backward_product *p = &b->product;
    const row_pointers at = b->at;
    cell_step *v = &b->view;
    const long packed = fr_packed(q, s);
    v->c = c_made_at(q, s), v->inner = inner_at(q, s);
    v->gates = p->is_projection ? (real *)q->scratch.dprojected + packed * v->Hp
                                : (real *)q->workspace.gates + packed * cell_of(q)->slots * v->Hp;
    block_walk walk = walk_dealt(b->deal, fr_active(q, s), b->partition);
    if (b->regular && s && s + 1 < q->T) {
        const long t = time_of(q, s, 0), before = time_of(q, s - 1, 0), next_row = operand_row(&p->from);
        const fr_series hs = q->args.output, dys = q->args.doutput;
        const real *h_prev = (real *)hs.data + before * hs.step, *next = operand_at(q, &p->from, s + 1);
        real *h = (real *)hs.data + t * hs.step;
        while (next_block(&walk))
            for (long i = walk.rows.begin; i < walk.rows.end; i++) {
                at.h_prev[i] = h_prev + i * hs.row, at.h[i] = h + i * hs.row, at.next[i] = next + i * next_row;
                if (q->workspace.c) at.c_prev[i] = c_at(q, s - 1) + i * v->Hp;
                if (v->doutput) at.doutput[i] = (real *)dys.data + t * dys.step + i * dys.row;
                if (v->dh_n) at.dh_n[i] = 0;
            }
        return;
    }
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++) {
            at.h_prev[i] = b->seen ? h_seen(q, s, i) : h_before(q, s, i);
            if (q->workspace.c) at.c_prev[i] = c_before(q, s, i);
            at.h[i] = b->behind_projection ? v->inner + i * v->Hp : h_made(q, s, i);
            if (v->doutput) at.doutput[i] = row_of(q, q->args.doutput, s, i);
            if (v->dh_n) at.dh_n[i] = late_gradient(q, s, i);
            at.next[i] = gates_into(q, p, s, i);
        }
}

static void multiply_backward(const fr_sequence *q, backward_pass *b, long s) {
    go_back_to_step(q, b, s);
    multiply_gates(q, &b->product, s, b->at, b->deal, &b->view, b->product.epilogue, b->partition);
    if (!q->rows.reset_mask || b->index < passes_of(q)->products - 1) return;
    end_at_resets(q, q->scratch.dstate, q->H, s, b->partition);
    if (q->args.zoneout_h.data) end_at_resets(q, q->scratch.dkept, q->P, s, b->partition);
}

static void softmax_backward(const fr_sequence *q, long s, fr_partition partition) {
    partition.by_units = 0;
    real *dprojected = (real *)q->scratch.dprojected + fr_packed(q, s) * padded(q->P);
    block_walk walk = walk_blocks(q->N, fr_active(q, s), partition);
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++)
            softmax_row_backward(dprojected + i * padded(q->P), row_of(q, q->args.output, s, i), q->P);
}

INLINE void run_backward_pass(const fr_sequence *q, enum pass_kind kind, backward_pass *b, long s) {
    switch (kind) {
    case OPERANDS:
        put_backward_operands(q, b->index, s, fr_active(q, s), b->partition);
        break;
    case PRODUCT:
        multiply_backward(q, b, s);
        break;
    case SOFTMAX:
        softmax_backward(q, s, b->partition);
        break;
    }
}

static void step_backward(const fr_sequence *q, int index, long s, fr_partition partition) {
    if (index == passes_of(q)->count) return; /* the pass of recurrent dropout */
    const pass pass = passes_of(q)->backward[index];
    backward_pass b;
    begin_backward_pass(&b, q, pass.product, partition);
    run_backward_pass(q, pass.kind, &b, s);
}

/* From end - 1 down to begin. */
static void steps_backward(const fr_sequence *q, long begin, long end, fr_partition partition) {
    const pass_list *passes = passes_of(q);
    backward_pass products[MOST_PRODUCTS];
    for (int index = 0; index < passes->products; index++) begin_backward_pass(&products[index], q, index, partition);
    for (long s = end; s-- > begin;)
        for (const pass *pass = passes->backward; pass < passes->backward + passes->count; pass++)
            run_backward_pass(q, pass->kind, &products[pass->product], s);
}

static void grad_state(const fr_sequence *q, fr_partition partition) {
    const backward_product p = backward_product_at(q, 0);
    if (OPERANDS_APART) { /* by rows, as no barrier comes between the two */
        partition.by_units = 0;
        if (q->T) put_backward_operands(q, 0, -1, q->N, partition);
    }
    const row_pointers at = row_pointers_in(partition, q->N);
    const cell_step view = {.H = q->P,
                            .Hp = padded(q->P),
                            .h = at.h,
                            .dh_n = has_late(q) ? at.dh_n : 0,
                            .dstate = cell_of(q)->dstate_is_dh ? q->scratch.dstate : 0};
    block_walk walk = walk_blocks(q->N, q->N, partition);
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++) {
            at.h[i] = (real *)q->args.dh0 + user_row(q, i) * q->P;
            at.next[i] = next_gates(q, &p.from, 0, i);
            if (view.dh_n) at.dh_n[i] = late_gradient(q, -1, i);
        }
    multiply_gates(q, &p, -1, at, deal_rows(q->N), &view, grad_state_epilogue, partition);
}

#endif
