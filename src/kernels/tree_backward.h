/* Trees: the backward pass, under the design of tree_forward.h, and the gradients of inputs and weights. */
#ifndef FASTRNN_TREE_BACKWARD_H
#define FASTRNN_TREE_BACKWARD_H

#include "gradients.h"
#include "tree_forward.h"

enum { WEIGHT_ROWS = 256 }; /* nodes whose weight gradients are added at a time */

/* dh that a node's own forget gate in its parent sends back: of summed children. */
static void grad_forget_operand(const fr_trees *t, long n0, long N, range blocks, range panels) {
    const long Hp = padded(t->H);
    const row_product p = {
        .a = slot_row(t, 4, n0),
        .a_row = Hp,
        .blocks = 1,
        .depth = t->H,
        .panels = t->panels_f,
        .slots = 1,
        .vectors = vectors_in(t->H),
        .width = Hp,
        .c = (real *)t->dh + n0 * Hp,
        .c_row = Hp,
    };
    multiply_rows(&p, N, blocks, panels);
}

static void finish_backward(const fr_trees *t, range nodes, range units) {
    const long H = t->H, Hp = padded(t->H), slots = x_slots_of(t) + t->children;
    for (long n = nodes.begin; n < nodes.end; n++) {
        const long first = t->first_child[n], last = t->first_child[n + 1], parent = t->parent[n], root = -1 - parent;
        const real *from_output = t->doutput ? (const real *)t->doutput + t->order[n] * H : 0;
        const real *from_parent = parent >= 0
                                      ? children_row(t, t->doperand, parent) + (t->children ? t->position[n] * H : 0)
                                  : t->dh_root ? (const real *)t->dh_root + root * H
                                               : 0;
        const real *from_forget = parent >= 0 && forgets_apart(t) ? (real *)t->dh + n * Hp : 0;
        real *s0 = slot_row(t, 0, n), *i_ = slot_row(t, 1, n), *g_ = slot_row(t, 2, n), *o_ = slot_row(t, 3, n);
        for (long v = units.begin * VL; v < units.end * VL; v += VL) {
            const long lanes = H - v;
            vec dh = {0};
            if (from_output) dh = load_part(from_output + v, lanes);
            if (from_parent) dh += load_part(from_parent + v, lanes);
            if (from_forget) dh += load(from_forget + v);
            if (!t->lstm) {
                store(s0 + v, activate_backward(t->activation, load((real *)t->h + n * Hp + v), dh));
                continue;
            }
            vec i = load(i_ + v), g = load(g_ + v), o = load(o_ + v), tanh_c = vtanh(load((real *)t->c + n * Hp + v));
            vec dc = dh * o * (1 - tanh_c * tanh_c), dfx = {0};
            if (parent >= 0)
                dc += load((real *)t->dc + n * Hp + v);
            else if (t->dc_root)
                dc += load_part((const real *)t->dc_root + root * H + v, lanes);
            store(i_ + v, dc * g * i * (1 - i));
            store(g_ + v, dc * i * (1 - g * g));
            store(o_ + v, dh * tanh_c * o * (1 - o));
            if (n >= t->leaves && last - first < t->children) /* forget gates of children that are not there */
                for (long s = 4; s < slots; s++) {
                    int there = 0;
                    for (long e = first; e < last; e++) there |= t->position[t->child[e]] == s - 4;
                    if (!there) store(slot_row(t, s, n) + v, (vec){0});
                }
            for (long e = first; e < last; e++) {
                const long k = t->child[e];
                real *at = forget_row(t, n, k) + v;
                vec f = load(at), df = dc * load((real *)t->c + k * Hp + v) * f * (1 - f);
                store(at, df);
                store((real *)t->dc + k * Hp + v, dc * f);
                dfx += df;
            }
            if (n >= t->leaves) store(s0 + v, dfx);
        }
    }
}

/* A root has no parent, so its forget gate has no gradient. Not in phase 0, in which other threads multiply the same rows. */
static void clear_forgets_of_roots(const fr_trees *t, range nodes, range units) {
    for (long n = nodes.begin; n < nodes.end; n++)
        for (long v = units.begin * VL; t->parent[n] < 0 && v < units.end * VL; v += VL)
            store(slot_row(t, 4, n) + v, (vec){0});
}

/* Gradients of the children's operand. */
static void grad_operand(const fr_trees *t, long n0, long N, range blocks, range panels) {
    const long Hp = padded(t->H), W = operand_width(t);
    const row_product p = {
        .a = slot_row(t, h_first_of(t), n0),
        .a_row = Hp,
        .a_block = t->nodes * Hp,
        .blocks = h_slots_of(t),
        .depth = t->H,
        .panels = t->panels_h,
        .slots = 1,
        .vectors = vectors_in(W),
        .width = W,
        .c = children_row(t, t->doperand, n0),
        .c_row = W,
    };
    multiply_rows(&p, N, blocks, panels);
}

/* Phases as in tree_forward: 0 takes what comes back from the parents, 1 makes what goes back to the children. */
static void tree_backward(const fr_trees *t, long level, int phase, fr_partition partition) {
    const long n0 = t->level[level], N = t->level[level + 1] - n0, vectors = vectors_in(t->H);
    const range blocks = tree_row_blocks(N, partition), panels = panels_of(panels_in(vectors), partition);
    const range units = {panels.begin * PANEL, MIN(panels.end * PANEL, vectors)};
    for (range part = blocks; part.begin < blocks.end; part.begin = part.end) {
        part.end = partition.by_units ? blocks.end : MIN(part.begin + CHUNK_BLOCKS, blocks.end);
        const range rows = chunk_rows(N, part), nodes = {n0 + rows.begin, n0 + rows.end};
        if (phase == 0) {
            if (forgets_apart(t) && n0 + N < t->nodes) grad_forget_operand(t, n0, N, part, panels);
            finish_backward(t, nodes, units);
        }
        if (phase == 1 || !partition.by_units) {
            if (forgets_apart(t)) clear_forgets_of_roots(t, nodes, units);
            if (level) grad_operand(t, n0, N, part, panels_of(panels_in(vectors_in(operand_width(t))), partition));
        }
        if (fr_stops(t->watch, (double)(rows.end - rows.begin) * t->H * (units.end - units.begin) * VL)) return;
    }
}

static void tree_grad_input(const fr_trees *t, fr_partition partition) {
    const long Hp = padded(t->H);
    for (long n0 = 0, n1; n0 < t->inputs; n0 = n1) {
        n1 = n0 < t->leaves ? t->leaves : t->inputs;
        const long first = t->lstm && n0 < t->leaves, slots = x_slots_of(t) - first; /* leaves have no forget gates */
        const range blocks = tree_row_blocks(n1 - n0, partition);
        row_product p = {
            .a = slot_row(t, first, n0),
            .a_row = Hp,
            .a_block = t->nodes * Hp,
            .blocks = slots,
            .depth = t->H,
            .panels = t->panels_x,
            .skip = first * t->H,
            .slots = 1,
            .vectors = vectors_in(t->D),
            .width = t->D,
            .c = t->dx,
            .c_row = t->D,
            .index = t->inputs == t->nodes ? t->order + n0 : 0,
        };
        for (range part = blocks; part.begin < blocks.end; part.begin = part.end) {
            part.end = MIN(part.begin + CHUNK_BLOCKS, blocks.end);
            multiply_rows(&p, n1 - n0, part, all_panels(p.vectors));
            if (fr_stops(t->watch, (double)(part.end - part.begin) * ROW_BLOCK * slots * t->H * t->D)) return;
        }
    }
}

/* A slot's weights as those of a Linear of one step. */
static fr_sequence slot_sequence(const fr_trees *t) {
    return (fr_sequence){
        .T = 1, .H = t->H, .P = t->H, .cell = FR_RNN, .options = {.activation = FR_IDENTITY, .generic = 1}};
}
static long tree_gradients_size(const fr_trees *t, int threads) {
    const fr_sequence q = slot_sequence(t);
    return gradients_size(&q, threads);
}

/* dweight (H rows of a weight, width) += gradients of one slot, transposed, times rows of an operand: what a Linear does. */
static void add_slot_weights(const fr_trees *t, const real *slot, real *operand, long row, long width, long row_block,
                             real *dweight, long N, fr_partition partition) {
    fr_sequence q = slot_sequence(t);
    q.N = N, q.D = width;
    q.args.x = (fr_series){operand, N * row, row};
    q.args.dweight_ih = dweight + row_block * t->H * width;
    q.workspace.gates = (real *)slot;
    q.scratch.gradients = t->gradients;
    grad_weights(&q, partition);
}

static void tree_grad_weights(const fr_trees *t, fr_partition partition) {
    const long Hp = padded(t->H), W = operand_width(t);
    const range units = part_of(vectors_in(t->H), partition);
    for (long n = 0, N; n < t->nodes; n += N) {
        const int leaf = n < t->leaves;
        N = MIN(WEIGHT_ROWS, (leaf ? t->leaves : t->nodes) - n);
        for (int s = t->lstm && leaf; s < x_slots_of(t); s++) {
            const long block = x_weight_block(t, s);
            for (long v = units.begin * VL; t->dbias && v < units.end * VL; v += VL) {
                vec sum = {0};
                for (long m = n; m < n + N; m++) sum += load(slot_row(t, s, m) + v);
                real *to = (real *)t->dbias + block * t->H + v;
                store_part(to, load_part(to, t->H - v) + sum, t->H - v);
            }
            if (n < t->inputs)
                add_slot_weights(t, slot_row(t, s, n), (real *)t->x_ordered + n * t->D, t->D, t->D, block,
                                 t->dweight_ih, N, partition);
        }
        for (int s = h_first_of(t); !leaf && s < h_first_of(t) + h_slots_of(t); s++)
            add_slot_weights(t, slot_row(t, s, n), children_row(t, t->operand, n), W, W, h_weight_block(t, s),
                             t->dweight_hh, N, partition);
        if (forgets_apart(t))
            add_slot_weights(t, slot_row(t, 4, n), (real *)t->h + n * Hp, Hp, t->H, h_weight_block(t, 4), t->dweight_hh,
                             N, partition);
        if (fr_stops(t->watch, (double)N * (units.end - units.begin) * VL * (t->D + W))) return;
    }
}

#endif
