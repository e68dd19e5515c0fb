/* Trees: recurrent cells whose "step before" is a node's children (Tai, Socher & Manning 2015, arXiv:1503.00075). The forward pass.
 *
 * V nodes in level order: leaves first, then level by level; all nodes of a level are one product with the weights.
 *
 * # Design:
 * a) Pre-activations, then gates, in backward their gradients are gate-major, (slot, V, Hp): any rows of one slot are an
 *    even operand, any run of slots one operand of slots * H columns.
 *        TreeRNN  a                 TreeLSTM  fx i g o f_1 .. f_N   (children summed: one f, in the row of the child)
 *    fx is the input's part of all forget gates. The input reads slots 0-3, the recurrent side 1 and up: contiguous, both.
 * b) Each node has one parent, so backward only gathers: a node reads its part of the gradient of its parent's operand,
 *    and its parent has left its dc. Nothing is added up by two threads.
 * c) The children's operand of a level is gathered, multiplied and finished for a few rows at a time, which stay in L2;
 *    the projection of inputs too where a level has rows enough. Levels have ever fewer nodes: from the first with
 *    fewer than FR_TREE_FEW rows on (a chain has one per level), inputs are projected all at once before.
 * d) Rows are cut into blocks by the size of a level alone; levels with fewer blocks than threads are shared out by units.
 *    No sum is ever split, so results do not depend on the number of threads.
 */

#ifndef FASTRNN_TREE_FORWARD_H
#define FASTRNN_TREE_FORWARD_H

#include "tree_products.h"

enum { CHUNK_BLOCKS = 16 }; /* row blocks of a chunk */

INLINE range tree_row_blocks(long N, fr_partition partition) {
    const long blocks = row_blocks(N);
    return partition.by_units ? (range){0, blocks} : part_of(blocks, partition);
}
INLINE range all_panels(long vectors) { return (range){0, panels_in(vectors)}; }
INLINE range chunk_rows(long N, range blocks) {
    const row_deal deal = deal_rows(N);
    return (range){block_start(deal, blocks.begin), block_start(deal, blocks.end)};
}

/* Rows of x in level order; where only leaves have inputs, they come in it. */
static void gather_inputs(const fr_trees *t, long begin, long end) {
    if (t->x_ordered == t->x) return;
    for (long n = begin; n < end; n++)
        memcpy((real *)t->x_ordered + n * t->D, (const real *)t->x + t->order[n] * t->D, t->D * sizeof(real));
}

/* Inputs times W_ih plus biases of N nodes from n0 on, which are leaves all or none: leaves have no forget gates. */
static void project_nodes(const fr_trees *t, long n0, long N, range blocks, range panels) {
    const long Hp = padded(t->H), first = t->lstm && n0 < t->leaves;
    const row_product p = {
        .a = (real *)t->x_ordered + n0 * t->D,
        .a_row = t->D,
        .blocks = 1,
        .depth = t->D,
        .panels = (real *)t->panels_x + first * Hp * t->D,
        .slots = x_slots_of(t) - (int)first,
        .vectors = vectors_in(t->H),
        .width = Hp,
        .c = slot_row(t, first, n0),
        .c_row = Hp,
        .c_slot = t->nodes * Hp,
        .init = (real *)t->packed_bias + first * Hp,
        .init_slot = Hp,
    };
    multiply_rows(&p, N, blocks, panels);
}

static void tree_project(const fr_trees *t, long begin, long end, fr_partition partition) {
    for (long n0 = begin, n1; n0 < end; n0 = n1) {
        n1 = n0 < t->leaves && t->leaves < end ? t->leaves : end;
        range blocks = tree_row_blocks(n1 - n0, partition);
        for (range part = blocks; part.begin < blocks.end; part.begin = part.end) {
            part.end = MIN(part.begin + CHUNK_BLOCKS, blocks.end);
            const range rows = chunk_rows(n1 - n0, part);
            gather_inputs(t, n0 + rows.begin, n0 + rows.end);
            project_nodes(t, n0, n1 - n0, part, all_panels(vectors_in(t->H)));
            if (fr_stops(t->watch, (double)(rows.end - rows.begin) * t->D * 4 * t->H)) return;
        }
    }
}

static void gather_children(const fr_trees *t, long begin, long end) {
    const long H = t->H, Hp = padded(t->H);
    for (long n = begin; n < end; n++) {
        real *to = children_row(t, t->operand, n);
        const long *child = t->child + t->first_child[n], *last = t->child + t->first_child[n + 1];
        if (t->children) {
            if (last - child < t->children) memset(to, 0, operand_width(t) * sizeof(real));
            for (; child < last; child++)
                memcpy(to + t->position[*child] * H, (real *)t->h + *child * Hp, H * sizeof(real));
            continue;
        }
        for (long u = 0; u < H; u += VL) {
            vec sum = {0};
            for (const long *k = child; k < last; k++) sum += load((real *)t->h + *k * Hp + u);
            store_part(to + u, sum, H - u);
        }
    }
}

/* The children's operand times W_hh, on top of the projected inputs, or of the biases where there are none. */
static void add_children(const fr_trees *t, long n0, long N, range blocks, range panels) {
    const long Hp = padded(t->H), W = operand_width(t), slot_step = t->nodes * Hp, first = h_first_of(t);
    const int given = n0 < t->inputs;
    row_product p = {
        .a = children_row(t, t->operand, n0),
        .a_row = W,
        .blocks = 1,
        .depth = W,
        .panels = t->panels_h,
        .slots = t->lstm ? 3 : 1,
        .vectors = vectors_in(t->H),
        .width = Hp,
        .c = slot_row(t, first, n0),
        .c_row = Hp,
        .c_slot = slot_step,
        .init = given ? slot_row(t, first, n0) : (real *)t->packed_bias + first * Hp,
        .init_row = given ? Hp : 0,
        .init_slot = given ? slot_step : Hp,
    };
    multiply_rows(&p, N, blocks, panels);
    if (!t->lstm || !t->children) return;
    p.slots = (int)t->children; /* every forget gate starts from the one input part */
    p.panels += 3 * Hp * W;
    p.c = slot_row(t, 4, n0);
    p.init = given ? slot_row(t, 0, n0) : t->packed_bias;
    p.init_slot = 0;
    multiply_rows(&p, N, blocks, panels);
}

/* W_hf h of each node, for the forget gate that its parent has for it: the last level has no parents. */
static void multiply_for_parents(const fr_trees *t, long n0, long N, range blocks, range panels) {
    const long Hp = padded(t->H);
    const row_product p = {
        .a = (real *)t->h + n0 * Hp,
        .a_row = Hp,
        .blocks = 1,
        .depth = t->H,
        .panels = t->panels_f,
        .slots = 1,
        .vectors = vectors_in(t->H),
        .width = Hp,
        .c = slot_row(t, 4, n0),
        .c_row = Hp,
    };
    multiply_rows(&p, N, blocks, panels);
}

/* The row of the forget gate of n for its child k. */
INLINE real *forget_row(const fr_trees *t, long n, long k) {
    return t->children ? slot_row(t, 4 + t->position[k], n) : slot_row(t, 4, k);
}

static void finish_forward(const fr_trees *t, range nodes, range units) {
    const long H = t->H, Hp = padded(t->H);
    for (long n = nodes.begin; n < nodes.end; n++) {
        const long first = t->first_child[n], last = t->first_child[n + 1], root = -1 - t->parent[n];
        real *h = (real *)t->h + n * Hp, *c = (real *)t->c + n * Hp;
        real *out = (real *)t->output + t->order[n] * H;
        real *s0 = slot_row(t, 0, n), *i_ = slot_row(t, 1, n), *g_ = slot_row(t, 2, n), *o_ = slot_row(t, 3, n);
        const real *fx = n < t->inputs ? s0 : t->packed_bias;
        for (long v = units.begin * VL; v < units.end * VL; v += VL) {
            vec value;
            if (t->lstm) {
                vec i = vsigmoid(load(i_ + v)), g = vtanh(load(g_ + v)), o = vsigmoid(load(o_ + v)), sum = i * g;
                for (long e = first; e < last; e++) {
                    const long k = t->child[e];
                    real *at = forget_row(t, n, k) + v;
                    vec f = vsigmoid(t->children ? load(at) : load(at) + load(fx + v));
                    store(at, f);
                    sum += f * load((real *)t->c + k * Hp + v);
                }
                store(i_ + v, i), store(g_ + v, g), store(o_ + v, o), store(c + v, sum);
                if (root >= 0) store_part((real *)t->c_root + root * H + v, sum, H - v);
                value = o * vtanh(sum);
            } else
                value = activate(t->activation, load(s0 + v));
            store(h + v, value);
            store_part(out + v, value, H - v);
        }
    }
}

/* Phases of a level, each complete in all threads before the next where a level is shared out by units: 0 gathers,
 * 1 multiplies and finishes, 2 multiplies for the parents. By rows, phase 0 is all of them. */
static void tree_forward(const fr_trees *t, long level, int phase, fr_partition partition) {
    const long n0 = t->level[level], N = t->level[level + 1] - n0, vectors = vectors_in(t->H);
    const range blocks = tree_row_blocks(N, partition), panels = panels_of(panels_in(vectors), partition);
    const range units = {panels.begin * PANEL, MIN(panels.end * PANEL, vectors)};
    const int project = n0 < t->projected && n0 < t->inputs;
    for (range part = blocks; part.begin < blocks.end; part.begin = part.end) {
        part.end = partition.by_units ? blocks.end : MIN(part.begin + CHUNK_BLOCKS, blocks.end);
        const range rows = chunk_rows(N, part), nodes = {n0 + rows.begin, n0 + rows.end};
        if (phase == 0) {
            const range mine = partition.by_units ? part_of(N, partition) : rows;
            if (project) gather_inputs(t, n0 + mine.begin, n0 + mine.end);
            if (level) gather_children(t, n0 + mine.begin, n0 + mine.end);
        }
        if (phase == 1 || !partition.by_units) {
            if (project) project_nodes(t, n0, N, part, panels);
            if (level) add_children(t, n0, N, part, panels);
            finish_forward(t, nodes, units);
        }
        if ((phase == 2 || !partition.by_units) && forgets_apart(t) && n0 + N < t->nodes)
            multiply_for_parents(t, n0, N, part, panels);
        if (fr_stops(t->watch, (double)(rows.end - rows.begin) * (t->D + t->H) * (units.end - units.begin) * VL))
            return;
    }
}

#endif
