/* Forward: the passes of one step, from panels. */
#ifndef FASTRNN_FORWARD_H
#define FASTRNN_FORWARD_H

#include "inputs.h"

/* ---- Operands in a form of their own ---- */

/* Elements of a block of rows, those of the widest product: products of different width then keep out of each other's
 * blocks, as threads that share out rows are not at the same pass. */
static long forward_operand_stride(const fr_sequence *q) {
    long most = 0;
    for (int index = 0; index < passes_of(q)->products; index++) {
        const forward_product p = forward_product_at(q, index);
        const long size = operand_block(p.D) + operand_block(p.K);
        most = size > most ? size : most;
    }
    return most;
}

/* The operands of the block of rows that starts at row `begin`. */
INLINE real *operands_of(const fr_sequence *q, row_deal deal, long begin, long stride) {
    return (real *)q->scratch.operands + block_from(deal, begin) * stride;
}

/* Where row i finds what the recurrent part of a product multiplies. */
INLINE const real *recurrent_row(const fr_sequence *q, const forward_product *p, long s, long i) {
    return p->form->reads_inner ? inner_at(q, s) + i * padded(p->K) : h_seen(q, s, i);
}

static void put_forward_operands(const fr_sequence *q, int index, long s, fr_partition partition) {
    const forward_product p = forward_product_at(q, index);
    const long stride = forward_operand_stride(q);
    const int reads_x = p.D && q->input_projection != FR_AHEAD;
    partition.by_units = 0;
    block_walk walk = walk_blocks(q->N, fr_active(q, s), partition);
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++) {
            real *block = operands_of(q, walk.deal, walk.rows.begin, stride);
            const long m = i - walk.rows.begin;
            if (reads_x) put_row(operand_line(block, m, p.D), row_of(q, q->args.x, s, i), p.D);
            if (p.K) put_row(operand_line(block + operand_block(p.D), m, p.K), recurrent_row(q, &p, s, i), p.K);
        }
}

/* Lets at.x and at.next of each block's first row lead to its operands; D: depth of what stands before the recurrent part. */
static void point_at_operands(const fr_sequence *q, long stride, long D, row_pointers at, long active,
                              fr_partition partition) {
    block_walk walk = walk_blocks(q->N, active, partition);
    while (next_block(&walk)) {
        at.x[walk.rows.begin] = operands_of(q, walk.deal, walk.rows.begin, stride);
        at.next[walk.rows.begin] = at.x[walk.rows.begin] + operand_block(D);
    }
}

/* ---- One step ---- */

/* One product of every step, for one partition: what is the same at all steps is found once, as finding it takes a fifth of a
 * small step. */
typedef struct {
    forward_product product;
    int index;
    fr_partition partition;
    row_deal deal;
    row_pointers at;
    range panels;
    long in_row, operands; /* of projected inputs, and of left operands in a form of their own */
    cell_step view;        /* its gates, c and inner are those of a step */
    epilogue *epilogue;
    int noise, order, ahead, sequential, writes_inner; /* writes_inner: its h is what the next product projects */
    int regular; /* rows_are_regular, from the output of the step before to that of the step */
} forward_pass;

static void begin_forward_pass(forward_pass *f, const fr_sequence *q, int index, fr_partition partition) {
    find_forward_product(&f->product, q, index);
    const forward_product *p = &f->product;
    f->index = index, f->partition = partition;
    f->deal = deal_rows(q->N);
    f->at = row_pointers_in(partition, q->N);
    f->panels = panels_of(forward_panels(p), partition);
    f->ahead = q->input_projection == FR_AHEAD && p->weight_x, f->sequential = q->input_projection == FR_SEQUENTIAL;
    f->in_row = f->ahead ? inputs_row(q) : 0;
    f->operands = OPERANDS_APART ? forward_operand_stride(q) : 0;
    memset(&f->view, 0, sizeof f->view);
    f->view.H = p->width, f->view.Hp = padded(p->width);
    f->view.options = &q->options;
    f->view.activation = p->is_projection ? q->options.output_activation : q->options.activation;
    f->view.peephole = peephole_of(q);
    f->view.h_prev = f->at.h_prev, f->view.c_prev = f->at.c_prev, f->view.h = f->at.h;
    f->epilogue = is_default_cell(q) ? p->form->epilogue : p->form->generic_epilogue;
    f->noise = has_noise(q), f->order = q->as_one_row ? AS_ONE_ROW : ANY_ORDER;
    f->writes_inner = q->args.weight_hr && !p->is_projection;
    f->regular = rows_are_regular(q) && !f->writes_inner && !p->form->reads_inner;
}

/* What the epilogues of a step see, and the pointers to the rows that this thread works on. */
static void go_to_step(const fr_sequence *q, forward_pass *f, long s) {
    const forward_product *p = &f->product;
    const row_pointers at = f->at;
    f->view.c = c_at(q, s), f->view.inner = inner_at(q, s);
    if (q->workspace.gates)
        f->view.gates = (real *)q->workspace.gates + first_row(q, s) * cell_of(q)->slots * f->view.Hp;
    block_walk walk = walk_dealt(f->deal, fr_active(q, s), f->partition);
    if (f->regular && s) {
        const long t = time_of(q, s, 0), before = time_of(q, s - 1, 0);
        const fr_series xs = q->args.x, hs = q->args.output;
        const real *x = (real *)xs.data + t * xs.step, *h_prev = (real *)hs.data + before * hs.step;
        const real *c_prev = q->workspace.c ? c_at(q, s - 1) : q->workspace.zeros;
        const long c_row = q->workspace.c ? f->view.Hp : 0;
        real *h = (real *)hs.data + t * hs.step;
        while (next_block(&walk))
            for (long i = walk.rows.begin; i < walk.rows.end; i++) {
                at.x[i] = x + i * xs.row, at.next[i] = at.h_prev[i] = h_prev + i * hs.row;
                at.h[i] = h + i * hs.row, at.c_prev[i] = c_prev + i * c_row;
            }
        return;
    }
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++) {
            at.x[i] = row_of(q, q->args.x, s, i);
            at.h_prev[i] = h_before(q, s, i);
            if (q->workspace.c) at.c_prev[i] = c_before(q, s, i);
            at.h[i] = f->writes_inner ? f->view.inner + i * f->view.Hp : row_of(q, q->args.output, s, i);
            at.next[i] = p->form->reads_inner ? f->view.inner + i * padded(p->K) : at.h_prev[i];
        }
}

/* The same with noise: what the weights see of h, and where h and c go before a part of the state before is kept. */
COLD static void go_to_step_of_noise(const fr_sequence *q, forward_pass *f, long s) {
    const forward_product *p = &f->product;
    const row_pointers at = f->at;
    const int gates_inner = cell_of(q)->products > 1 && !p->form->reads_inner; /* r * h is, as the weights see h */
    f->view.c = c_made_at(q, s);
    block_walk walk = walk_dealt(f->deal, fr_active(q, s), f->partition);
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++) {
            if (!f->writes_inner) at.h[i] = h_made(q, s, i);
            at.next[i] = recurrent_row(q, p, s, i);
            if (gates_inner) at.h_prev[i] = at.next[i];
        }
}

/* Sums of a panel for rows n .. n + rows - 1; `in`: their projected inputs, NULL where these are part of the product. */
static void sum_panel(const forward_product *p, const forward_panel *panel, row_pointers at, const real *in,
                      long in_row, long n, int rows, real *acc, int sequential, int order) {
    const long acc_row = panel->accumulators * VL, shift = p->form->recurrent_offset * VL;
    product both[2];
    int x_part = 0, parts = 0;
    if (!in && p->D)
        both[parts++] = (product){.rows = at.x + n, .blocks = 1, .depth = p->D, .panel = panel->x}, x_part = 1;
    if (p->K) both[parts++] = (product){.rows = at.next + n, .blocks = 1, .depth = p->K, .panel = panel->h};
    const real *init = in ? in + n * in_row + panel->inputs : panel->bias;
    if (!in) in_row = 0;
    if (!shift && !(sequential && x_part)) {
        multiply(panel->NV, rows, acc, acc_row, init, in_row, both, parts, p->K ? order : IN_ORDER);
        return;
    }
    /* Accumulators of the two parts overlap, but are not the same. */
    if (!in) multiply(panel->NV, rows, acc, acc_row, init, 0, both, x_part, sequential ? IN_ORDER : order);
    for (int m = 0; m < rows; m++)
        for (long v = in ? 0 : panel->NV * VL; v < acc_row; v += VL)
            store(acc + m * acc_row + v, load(init + m * in_row + v));
    multiply(panel->NV, rows, acc + shift, acc_row, acc + shift, acc_row, both + x_part, 1, order);
}

static void multiply_forward(const fr_sequence *q, forward_pass *f, long s) {
    const forward_product *p = &f->product;
    go_to_step(q, f, s);
    if (f->noise) go_to_step_of_noise(q, f, s);
    const range panels = f->panels;
    const long active = fr_active(q, s);
    if (OPERANDS_APART) point_at_operands(q, f->operands, p->D, f->at, active, f->partition);
    const real *in = f->ahead ? (real *)q->scratch.inputs + (fr_packed(q, s) - q->scratch.inputs_start) * f->in_row : 0;
    /* Where a thread has one block of rows, panels are finished by four, so that their activations overlap. */
    enum { MOST_PANELS = 4 };
    const long together = has_one_block(q, f->deal, active, f->partition) ? MOST_PANELS : 1;
    real acc[MOST_PANELS][ROW_BLOCK * 4 * VL] __attribute__((aligned(64)));
    multiply_begin();
    for (long i = panels.begin; i < panels.end; i += together) {
        forward_panel group[MOST_PANELS];
        const long count = MIN(together, panels.end - i);
        for (long j = 0; j < count; j++)
            group[j] = forward_panel_at(q, p, s & 1 ? panels.end - 1 - (i + j - panels.begin) : i + j);
        block_walk walk = walk_dealt(f->deal, active, f->partition);
        while (next_block(&walk)) {
            const long row = walk.rows.begin;
            const int rows = (int)(walk.rows.end - row);
            for (long j = 0; j < count; j++)
                sum_panel(p, &group[j], f->at, in, f->in_row, row, rows, acc[j], f->sequential, f->order);
            for (long j = 0; j < count; j++)
                f->epilogue(&f->view, row, rows, group[j].first, group[j].blocks, acc[j], group[j].accumulators * VL);
            for (long j = 0; j < count && f->noise; j++)
                keep_states(q, f->index, s, f->at, (unit_rows){row, rows, group[j].first, group[j].blocks});
            if (stops_between_products(q, (double)rows * count * PANEL * VL * (p->D + p->K))) {
                multiply_end();
                return;
            }
        }
    }
    multiply_end();
}

/* A pass of its own, as it needs whole rows: those are dealt out even where panels were. */
static void softmax_forward(const fr_sequence *q, long s, fr_partition partition) {
    partition.by_units = 0;
    block_walk walk = walk_blocks(q->N, fr_active(q, s), partition);
    while (next_block(&walk))
        for (long i = walk.rows.begin; i < walk.rows.end; i++) softmax_row(row_of(q, q->args.output, s, i), q->P);
}

INLINE void run_forward_pass(const fr_sequence *q, enum pass_kind kind, forward_pass *f, long s) {
    switch (kind) {
    case OPERANDS:
        put_forward_operands(q, f->index, s, f->partition);
        break;
    case PRODUCT:
        multiply_forward(q, f, s);
        break;
    case SOFTMAX:
        softmax_forward(q, s, f->partition);
        break;
    }
}

static void step_forward(const fr_sequence *q, int index, long s, fr_partition partition) {
    if (q->args.recurrent_mask && index-- == 0) {
        dropout_forward(q, s, partition);
        return;
    }
    const pass pass = passes_of(q)->forward[index];
    forward_pass f;
    begin_forward_pass(&f, q, pass.product, partition);
    run_forward_pass(q, pass.kind, &f, s);
}

static void steps_forward(const fr_sequence *q, long begin, long end, fr_partition partition) {
    const pass_list *passes = passes_of(q);
    forward_pass products[MOST_PRODUCTS];
    for (int index = 0; index < passes->products; index++) begin_forward_pass(&products[index], q, index, partition);
    for (long s = begin; s < end; s++) {
        if (q->args.recurrent_mask) dropout_forward(q, s, partition);
        for (const pass *pass = passes->forward; pass < passes->forward + passes->count; pass++)
            run_forward_pass(q, pass->kind, &products[pass->product], s);
    }
}

#endif
