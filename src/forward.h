/* Forward: weights into panels, inputs ahead of the recurrence where that is faster, and one step of one pass. */
#ifndef FASTRNN_FORWARD_H
#define FASTRNN_FORWARD_H

#include "rows.h"

INLINE const cell_cut *cut_of(const fr_sequence *q) { return &cuts[q->cell]; }
INLINE int is_plain(const fr_sequence *q) {
    return q->gate_activation == FR_SIGMOID && q->activation == FR_TANH && !(q->clip > 0) && !q->weight_peephole;
}

/* ---- Passes: those of the cell, then the projection, then a softmax over the rows of its result ---- */

typedef struct {
    const forward_pass *cut;
    long width, blocks; /* its units and their blocks */
    long D, K;          /* depth of its input part and of its recurrent part, 0: none */
    const real *weight_x, *weight_h, *bias_x, *bias_h;
    long columns,
        accumulators; /* where its panels, depth_of per column, and its accumulators start among all passes' */
} pass_view;

INLINE long depth_of(const pass_view *p) { return panel_depth(p->D) + panel_depth(p->K); }
INLINE int products_of(const fr_sequence *q) { return cut_of(q)->passes + !!q->weight_hr; }
INLINE int has_softmax(const fr_sequence *q) { return q->weight_hr && q->output_activation == FR_SOFTMAX; }
static long gates_row(const fr_sequence *q) { return cut_of(q)->slots * padded(q->H); }
static int passes(const fr_sequence *q) { return products_of(q) + has_softmax(q); }
static int has_inner(const fr_sequence *q) { return products_of(q) > 1; }

static pass_view pass_at(const fr_sequence *q, int index) {
    const cell_cut *cut = cut_of(q);
    pass_view p = {0};
    for (int i = 0; i <= index; i++) {
        if (i) {
            p.columns += p.blocks * p.cut->gates * VL * depth_of(&p);
            p.accumulators += p.blocks * p.cut->accumulators * VL;
        }
        if (i < cut->passes) {
            p.cut = &cut->forward[i], p.width = q->H, p.D = q->D, p.K = q->weight_hh ? q->R : 0;
            p.weight_x = q->weight_ih, p.weight_h = q->weight_hh, p.bias_x = q->bias_ih, p.bias_h = q->bias_hh;
        } else {
            p.cut = &projection_forward, p.width = q->R, p.D = 0, p.K = q->H;
            p.weight_x = 0, p.weight_h = q->weight_hr, p.bias_x = 0, p.bias_h = q->bias_hr;
        }
        p.blocks = vectors_in(p.width);
    }
    return p;
}

static long panels_size(const fr_sequence *q) {
    const pass_view p = pass_at(q, products_of(q) - 1);
    return p.columns + p.blocks * p.cut->gates * VL * depth_of(&p);
}
static long inputs_row(const fr_sequence *q) {
    const pass_view p = pass_at(q, products_of(q) - 1);
    return p.accumulators + p.blocks * p.cut->accumulators * VL;
}
static long bias_size(const fr_sequence *q) { return inputs_row(q) + (q->weight_peephole ? 3 * padded(q->H) : 0); }
static const real *peephole_of(const fr_sequence *q) {
    return q->weight_peephole ? (real *)q->bias + inputs_row(q) : 0;
}

/* ---- Panels of [W_ih; W_hh], one after the other ---- */

typedef struct {
    long first;
    int blocks, NV, accumulators; /* unit blocks; vectors per k; accumulators of the whole panel */
    const real *x, *h, *bias;     /* (D, NV, VL), (K, NV, VL), (accumulators, VL) */
    long inputs;                  /* where its projected inputs stand in a row of them */
} forward_panel;

INLINE long panel_step(const pass_view *p) { return p->cut->gates > 1 ? 1 : PANEL; }
INLINE long forward_panels(const pass_view *p) { return (p->blocks + panel_step(p) - 1) / panel_step(p); }

static forward_panel forward_panel_at(const fr_sequence *q, const pass_view *p, long index) {
    forward_panel panel;
    panel.first = index * panel_step(p);
    panel.blocks = p->cut->gates > 1 ? 1 : panel_width(p->blocks, panel.first);
    panel.NV = p->cut->gates * panel.blocks;
    panel.accumulators = p->cut->accumulators * panel.blocks;
    panel.x = (real *)q->panels + p->columns + panel.first * p->cut->gates * VL * depth_of(p);
    panel.h = panel.x + panel_depth(p->D) * panel.NV * VL;
    panel.inputs = p->accumulators + panel.first * p->cut->accumulators * VL;
    panel.bias = (real *)q->bias + panel.inputs;
    return panel;
}

static void pack_forward(const fr_sequence *q, fr_share share) {
    for (int index = 0; index < products_of(q); index++) {
        const pass_view p = pass_at(q, index);
        const range panels = part_of(forward_panels(&p), share);
        for (long i = panels.begin; i < panels.end; i++) {
            const forward_panel panel = forward_panel_at(q, &p, i);
            memset((real *)panel.bias, 0, panel.accumulators * VL * sizeof(real));
            for (int v = 0; v < panel.NV; v++) {
                const long block = p.cut->gates > 1 ? panel.first : panel.first + v, gate = p.cut->gates > 1 ? v : 0;
                const long lanes = p.width - block * VL;
                const long x_unit = p.cut->x_gates[gate] * p.width + block * VL;
                const long h_unit = p.cut->h_gates[gate] * p.width + block * VL;
                if (p.D) pack_transposed((real *)panel.x, panel.NV, v, p.weight_x + x_unit * p.D, p.D, lanes, p.D);
                if (p.K) pack_transposed((real *)panel.h, panel.NV, v, p.weight_h + h_unit * p.K, p.K, lanes, p.K);
                real *x_bias = (real *)panel.bias + v * VL, *h_bias = x_bias + p.cut->h_first * VL;
                if (p.bias_x) store(x_bias, load(x_bias) + load_part(p.bias_x + x_unit, lanes));
                if (p.bias_h) store(h_bias, load(h_bias) + load_part(p.bias_h + h_unit, lanes));
            }
        }
    }
    if (q->weight_peephole && share.id == 0)
        for (int gate = 0; gate < 3; gate++)
            for (long block = 0; block < vectors_in(q->H); block++)
                store((real *)peephole_of(q) + gate * padded(q->H) + block * VL,
                      load_part((const real *)q->weight_peephole + gate * q->H + block * VL, q->H - block * VL));
}

/* ---- Inputs times W_ih plus biases, for all steps of a chunk ahead of the recurrence ---- */

#ifndef FR_AMX_TERMS

/* In order: the cut into tiles depends on T here, and a stream that advances one step at a time must get the same bits. */
static void project_rows(const fr_sequence *q, const real *const *x, real *out, long rows, fr_share share) {
    const long row = inputs_row(q);
    for (int index = 0; index < cut_of(q)->passes; index++) {
        const pass_view p = pass_at(q, index);
        const range panels = panels_of(forward_panels(&p), share);
        for (long i = panels.begin; i < panels.end; i++) {
            const forward_panel panel = forward_panel_at(q, &p, i);
            real *to = out + panel.inputs;
            const product xw = {x, 0, 0, 1, p.D, panel.x};
            multiply(panel.NV, rows, to, row, panel.bias, 0, &xw, 1, 1);
            for (int v = panel.NV; v < p.cut->h_first + panel.NV; v++) /* accumulators without an input part */
                for (long r = 0; r < rows; r++) store(to + r * row + v * VL, load(panel.bias + v * VL));
        }
    }
}

static void project(const fr_sequence *q, long s_begin, long s_end, fr_share share) {
    enum { TOGETHER = 96 }; /* rows of x that stay in L2 while panels change */
    const real *x[TOGETHER];
    const int all_rows = share.by_units || share.count == 1;
    const row_deal deal = deal_rows(q->N);
    const long row = inputs_row(q);
    long together = (long)(400 * 1024 / sizeof(real)) / (q->D > 64 ? q->D : 64), count = 0;
    together = together < 24 ? 24 : MIN(together, (long)TOGETHER);
    for (long s = s_begin; s < s_end; s++)
        FOR_ROW_BLOCKS(rows, deal, fr_active(q, s), share) {
            for (long i = rows.begin; i < rows.end; i++) {
                x[count++] = row_of(q, q->x, s, i);
                const int last = i + 1 == rows.end && (!all_rows || (s + 1 == s_end && i + 1 == fr_active(q, s)));
                if (count < together && !last) continue;
                const long end = fr_packed(q, s) + i + 1 - q->inputs_start;
                project_rows(q, x, (real *)q->inputs + (end - count) * row, count, share);
                count = 0;
            }
        }
}

#endif

/* ---- One step ---- */

/* What the finishing functions of a step see; fills the pointers to the rows that this thread works on. */
static cell_step view_of(const fr_sequence *q, const pass_view *p, long s, fr_share share, row_pointers at) {
    const row_deal deal = deal_rows(q->N);
    const int projects = p->cut == &projection_forward;
    const long base = kept_row(q, s);
    cell_step v = {.H = p->width, .Hp = padded(p->width), .clip = (real)q->clip, .peephole = peephole_of(q)};
    v.activation = projects ? q->output_activation : q->activation;
    v.gate_activation = q->gate_activation;
    v.c = c_at(q, s);
    v.inner = inner_at(q, s);
    v.gates = q->gates ? (real *)q->gates + base * cut_of(q)->slots * v.Hp : 0;
    v.h_prev = at.h_prev, v.c_prev = at.c_prev, v.h = at.h;
    const int inner_h = q->weight_hr && !projects; /* this pass' h is what the next one projects */
    FOR_ROW_BLOCKS(rows, deal, fr_active(q, s), share)
        for (long i = rows.begin; i < rows.end; i++) {
            at.x[i] = row_of(q, q->x, s, i);
            at.h_prev[i] = h_before(q, s, i);
            if (q->c) at.c_prev[i] = c_before(q, s, i);
            at.h[i] = inner_h ? v.inner + i * v.Hp : row_of(q, q->output, s, i);
            at.next[i] = p->cut->reads_inner ? v.inner + i * padded(p->K) : at.h_prev[i];
        }
    return v;
}

/* Sums of a panel for rows n .. n + rows - 1; `in`: their projected inputs, NULL where these are part of the product. */
static void sum_panel(const pass_view *p, const forward_panel *panel, row_pointers at, const real *in, long in_row,
                      long n, int rows, real *acc, int in_turn) {
    const long acc_row = panel->accumulators * VL, shift = p->cut->h_first * VL;
    product both[2];
    int x_part = 0, parts = 0;
    if (!in && p->D) both[parts++] = (product){at.x + n, 0, 0, 1, p->D, panel->x}, x_part = 1;
    if (p->K) both[parts++] = (product){at.next + n, 0, 0, 1, p->K, panel->h};
    const real *init = in ? in + n * in_row + panel->inputs : panel->bias;
    if (!in) in_row = 0;
    if (!shift && !(in_turn && x_part)) {
        multiply(panel->NV, rows, acc, acc_row, init, in_row, both, parts, !p->K);
        return;
    }
    /* Accumulators of the two parts overlap, but are not the same. */
    if (!in) multiply(panel->NV, rows, acc, acc_row, init, 0, both, x_part, in_turn);
    for (int m = 0; m < rows; m++)
        for (long v = in ? 0 : panel->NV * VL; v < acc_row; v += VL)
            store(acc + m * acc_row + v, load(init + m * in_row + v));
    multiply(panel->NV, rows, acc + shift, acc_row, acc + shift, acc_row, both + x_part, 1, 0);
}

/* A pass of its own, as it needs whole rows: those are dealt out even where panels were. */
static void step_softmax(const fr_sequence *q, long s, fr_share share) {
    share.by_units = 0;
    const row_deal deal = deal_rows(q->N);
    FOR_ROW_BLOCKS(rows, deal, fr_active(q, s), share)
        for (long i = rows.begin; i < rows.end; i++) softmax_row(row_of(q, q->output, s, i), q->R);
}

static void step_forward(const fr_sequence *q, int index, long s, fr_share share) {
    if (index == products_of(q)) {
        step_softmax(q, s, share);
        return;
    }
    const pass_view p = pass_at(q, index);
    const row_pointers at = row_pointers_in(share, q->N);
    const cell_step view = view_of(q, &p, s, share, at);
    const row_deal deal = deal_rows(q->N);
    const range panels = panels_of(forward_panels(&p), share);
    const long active = fr_active(q, s), in_row = inputs_row(q);
    point_at_operands(q, 0, p.D, at, active, share);
    const int fused = q->fused || !p.weight_x;
    const real *in = fused ? 0 : (real *)q->inputs + (fr_packed(q, s) - q->inputs_start) * in_row;
    finish_function *finish = is_plain(q) ? p.cut->finish : p.cut->finish_any;
    /* Where there is one block of rows, panels are finished by four, so that their activations overlap: 1.02 to 1.07
     * times as fast at N = 1 to 3, H = 32 to 128 on a Zen 3. With more blocks, rows overlap already. */
    enum { TOGETHER = 4 };
    const long together = q->N > FR_ROW_BLOCK ? 1 : TOGETHER;
    real acc[TOGETHER][FR_ROW_BLOCK * 4 * VL] __attribute__((aligned(64)));
    for (long i = panels.begin; i < panels.end; i += together) {
        forward_panel group[TOGETHER];
        const long count = MIN(together, panels.end - i);
        for (long j = 0; j < count; j++)
            group[j] = forward_panel_at(q, &p, s & 1 ? panels.end - 1 - (i + j - panels.begin) : i + j);
        FOR_ROW_BLOCKS(block, deal, active, share) {
            const int rows = (int)(block.end - block.begin);
            for (long j = 0; j < count; j++)
                sum_panel(&p, &group[j], at, in, in_row, block.begin, rows, acc[j], q->in_turn);
            for (long j = 0; j < count; j++)
                finish(&view, block.begin, rows, group[j].first, group[j].blocks, acc[j], group[j].accumulators * VL);
        }
    }
}

#endif
