/* Forward: weights into panels, and inputs ahead of the recurrence where that is faster. */
#ifndef FASTRNN_INPUTS_H
#define FASTRNN_INPUTS_H

#include "noise.h"

/* ---- The products of a step ---- */

typedef struct {
    const forward_descriptor *form;
    long width, blocks; /* its units and their blocks */
    long D, K;          /* depth of its input part and of its recurrent part, 0: none */
    const raw_weight *weight_x, *weight_h;
    const real *scale_x, *scale_h; /* of int8 weights, one for each row */
    const real *bias_x, *bias_h;
    long columns,
        accumulators; /* where its panels, depth_of per column, and its accumulators start among those of all */
    int is_projection;
} forward_product;

INLINE long depth_of(const forward_product *p) { return panel_depth(p->D) + panel_depth(p->K); }
INLINE long columns_end(const forward_product *p) {
    return p->columns + p->blocks * p->form->gate_blocks * VL * depth_of(p);
}
INLINE long accumulators_end(const forward_product *p) {
    return p->accumulators + p->blocks * p->form->accumulators * VL;
}

INLINE void find_forward_product(forward_product *p, const fr_sequence *q, int index) {
    const cell_descriptor *cell = cell_of(q);
    const fr_sequence_arguments *a = &q->args;
    p->columns = p->accumulators = 0;
    for (int i = 0; i <= index; i++) {
        if (i) p->columns = columns_end(p), p->accumulators = accumulators_end(p);
        p->is_projection = i >= cell->products;
        if (p->is_projection) {
            p->form = &projection_forward, p->width = q->P, p->D = 0, p->K = q->H;
            p->weight_x = 0, p->weight_h = a->weight_hr;
            p->scale_x = 0, p->scale_h = a->scale_hr, p->bias_x = 0, p->bias_h = a->bias_hr;
        } else {
            p->form = &cell->forward[i], p->width = q->H, p->D = q->D, p->K = a->weight_hh ? q->P : 0;
            p->weight_x = a->weight_ih, p->weight_h = a->weight_hh;
            p->scale_x = a->scale_ih, p->scale_h = a->scale_hh, p->bias_x = a->bias_ih, p->bias_h = a->bias_hh;
        }
        p->blocks = vectors_in(p->width);
    }
}
static forward_product forward_product_at(const fr_sequence *q, int index) {
    forward_product p;
    find_forward_product(&p, q, index);
    return p;
}
INLINE forward_product last_product(const fr_sequence *q) { return forward_product_at(q, passes_of(q)->products - 1); }

static long panels_size(const fr_sequence *q) {
    const forward_product p = last_product(q);
    return columns_end(&p);
}
static long inputs_row(const fr_sequence *q) {
    const forward_product p = last_product(q);
    return accumulators_end(&p);
}
static long bias_size(const fr_sequence *q) { return inputs_row(q) + (q->args.weight_peephole ? 3 * padded(q->H) : 0); }
static const real *peephole_of(const fr_sequence *q) {
    return q->args.weight_peephole ? (real *)q->workspace.bias + inputs_row(q) : 0;
}

/* ---- Panels of [W_ih; W_hh], one after the other ---- */

typedef struct {
    long first;
    int blocks, NV, accumulators; /* unit blocks; vectors per k; accumulators of the whole panel */
    real *x, *h, *bias;           /* (D, NV, VL), (K, NV, VL), (accumulators, VL) */
    long inputs;                  /* where its projected inputs stand in a row of them */
} forward_panel;

INLINE long panel_step(const forward_product *p) { return p->form->gate_blocks > 1 ? 1 : PANEL; }
INLINE long forward_panels(const forward_product *p) { return (p->blocks + panel_step(p) - 1) / panel_step(p); }

static forward_panel forward_panel_at(const fr_sequence *q, const forward_product *p, long index) {
    forward_panel panel;
    panel.first = index * panel_step(p);
    panel.blocks = p->form->gate_blocks > 1 ? 1 : panel_width(p->blocks, panel.first);
    panel.NV = p->form->gate_blocks * panel.blocks;
    panel.accumulators = p->form->accumulators * panel.blocks;
    panel.x = (real *)q->scratch.panels + p->columns + panel.first * p->form->gate_blocks * VL * depth_of(p);
    panel.h = panel.x + panel_depth(p->D) * panel.NV * VL;
    panel.inputs = p->accumulators + panel.first * p->form->accumulators * VL;
    panel.bias = (real *)q->workspace.bias + panel.inputs;
    return panel;
}

/* Vector v of a panel: one gate of one unit block, its biases added up. */
static void pack_vector(const forward_product *p, const forward_panel *panel, int v) {
    const int all_gates = p->form->gate_blocks > 1, gate = all_gates ? v : 0;
    const long block = all_gates ? panel->first : panel->first + v, lanes = p->width - block * VL;
    const long x_unit = p->form->x_gates[gate] * p->width + block * VL;
    const long h_unit = p->form->h_gates[gate] * p->width + block * VL;
    const real *x_scales = p->scale_x ? p->scale_x + x_unit : 0, *h_scales = p->scale_h ? p->scale_h + h_unit : 0;
    if (p->D) pack_transposed(panel->x, panel->NV, v, p->weight_x + x_unit * p->D, x_scales, p->D, lanes, p->D);
    if (p->K) pack_transposed(panel->h, panel->NV, v, p->weight_h + h_unit * p->K, h_scales, p->K, lanes, p->K);
    real *x_bias = panel->bias + v * VL, *h_bias = x_bias + p->form->recurrent_offset * VL;
    if (p->bias_x) store(x_bias, load(x_bias) + load_part(p->bias_x + x_unit, lanes));
    if (p->bias_h) store(h_bias, load(h_bias) + load_part(p->bias_h + h_unit, lanes));
}

static void pack_forward(const fr_sequence *q, fr_partition partition) {
    for (int index = 0; index < passes_of(q)->products; index++) {
        const forward_product p = forward_product_at(q, index);
        const range panels = part_of(forward_panels(&p), partition);
        for (long i = panels.begin; i < panels.end; i++) {
            const forward_panel panel = forward_panel_at(q, &p, i);
            memset(panel.bias, 0, panel.accumulators * VL * sizeof(real));
            for (int v = 0; v < panel.NV; v++) pack_vector(&p, &panel, v);
        }
    }
    if (!q->args.weight_peephole || partition.id) return;
    real *to = (real *)q->workspace.bias + inputs_row(q);
    const real *from = q->args.weight_peephole;
    for (int gate = 0; gate < 3; gate++, from += q->H)
        for (long unit = 0; unit < q->H; unit += VL, to += VL) store(to, load_part(from + unit, q->H - unit));
}

/* ---- Inputs times W_ih plus biases, for all steps of a chunk ahead of the recurrence ---- */

/* In order: the cut into tiles depends on T here, and a stream that advances one step at a time must get the same bits. */
static void project_rows(const fr_sequence *q, const real **x, real *out, long rows, fr_partition partition) {
    const long row = inputs_row(q);
#if OPERANDS_APART
    real block[operand_block(q->D) + 1]; /* D is at most PROJECTS_AHEAD */
    for (long m = 0; m < rows; m++) put_row(operand_line(block, m, q->D), x[m], q->D);
    x[0] = block;
#endif
    for (int index = 0; index < cell_of(q)->products; index++) {
        const forward_product p = forward_product_at(q, index);
        const range panels = panels_of(forward_panels(&p), partition);
        for (long i = panels.begin; i < panels.end; i++) {
            const forward_panel panel = forward_panel_at(q, &p, i);
            real *to = out + panel.inputs;
            const product xw = {.rows = x, .blocks = 1, .depth = p.D, .panel = panel.x};
            multiply(panel.NV, rows, to, row, panel.bias, 0, &xw, 1, IN_ORDER);
            for (int v = panel.NV; v < p.form->recurrent_offset + panel.NV;
                 v++) /* accumulators without an input part */
                for (long r = 0; r < rows; r++) store(to + r * row + v * VL, load(panel.bias + v * VL));
        }
    }
}

enum { MOST_TOGETHER = 96 }; /* rows of x that stay in L2 while panels change */

/* A table of vectors instead: what stands in x is one of few rows, so each is projected once, and then looked up. */
INLINE void project_table(const fr_sequence *q, void *projected, const void *table, long V) {
    const fr_partition all = {.count = 1};
    const real *x[MOST_TOGETHER];
    for (long v = 0, count; v < V; v += count) {
        count = MIN(V - v, OPERANDS_APART ? (long)ROW_BLOCK : (long)MOST_TOGETHER);
        for (long k = 0; k < count; k++) x[k] = (const real *)table + (v + k) * q->D;
        project_rows(q, x, (real *)projected + v * inputs_row(q), count, all);
    }
}

/* Of one product the columns first .. first + count - 1 of the projected inputs. */
static void copy_projected(const fr_sequence *q, long first, long count, long s, range rows) {
    const long row = inputs_row(q);
    for (long i = rows.begin; i < rows.end; i++) {
        const int64_t token = q->args.tokens[time_of(q, s, i) * q->N + user_row(q, i)];
        real *to = (real *)q->scratch.inputs + (fr_packed(q, s) + i - q->scratch.inputs_start) * row;
        memcpy(to + first, (const real *)q->args.projected + token * row + first, count * sizeof(real));
    }
}

static void look_up_projected(const fr_sequence *q, long s_begin, long s_end, fr_partition partition) {
    for (int index = 0; index < cell_of(q)->products; index++) {
        const forward_product p = forward_product_at(q, index);
        const range panels = panels_of(forward_panels(&p), partition);
        if (panels.begin == panels.end) continue;
        const long first = forward_panel_at(q, &p, panels.begin).inputs;
        const long end =
            panels.end == forward_panels(&p) ? accumulators_end(&p) : forward_panel_at(q, &p, panels.end).inputs;
        for (long s = s_begin; s < s_end; s++) {
            block_walk walk = walk_blocks(q->N, fr_active(q, s), partition);
            while (next_block(&walk)) copy_projected(q, first, end - first, s, walk.rows);
        }
    }
}

static void project(const fr_sequence *q, long s_begin, long s_end, fr_partition partition) {
    if (q->args.tokens) {
        look_up_projected(q, s_begin, s_end, partition);
        return;
    }
    const real *x[MOST_TOGETHER];
    const int all_rows = partition.by_units || partition.count == 1;
    const long row = inputs_row(q);
    long together = (long)(400 * 1024 / sizeof(real)) / (q->D > 64 ? q->D : 64), count = 0;
    together = OPERANDS_APART ? ROW_BLOCK : together < 24 ? 24 : MIN(together, (long)MOST_TOGETHER);
    for (long s = s_begin; s < s_end; s++) {
        block_walk walk = walk_blocks(q->N, fr_active(q, s), partition);
        while (next_block(&walk))
            for (long i = walk.rows.begin; i < walk.rows.end; i++) {
                x[count++] = row_of(q, q->args.x, s, i);
                const int last = i + 1 == walk.rows.end && (!all_rows || (s + 1 == s_end && i + 1 == fr_active(q, s)));
                if (count < together && !last) continue;
                const long end = fr_packed(q, s) + i + 1 - q->scratch.inputs_start;
                project_rows(q, x, (real *)q->scratch.inputs + (end - count) * row, count, partition);
                count = 0;
            }
    }
}

#endif
