/* Trees: recurrent cells whose "step before" is a node's children (Tai, Socher & Manning 2015, arXiv:1503.00075). Included by
 * kernels.c, after gradients.h. Backward stands under its forward.
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

enum { CHUNK = 16, WEIGHT_ROWS = 256 }; /* row blocks of a chunk; nodes whose weight gradients are added at a time */

#include "trees_pack.h"

/* ---- Forward ---- */

INLINE range tree_row_blocks(long N, fr_share share) {
    const long blocks = fr_row_blocks(N);
    return share.by_units ? (range){0, blocks} : part_of(blocks, share);
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

static void tree_project(const fr_trees *t, long begin, long end, fr_share share) {
    for (long n0 = begin, n1; n0 < end; n0 = n1) {
        n1 = n0 < t->leaves && t->leaves < end ? t->leaves : end;
        range blocks = tree_row_blocks(n1 - n0, share);
        for (range part = blocks; part.begin < blocks.end; part.begin = part.end) {
            part.end = MIN(part.begin + CHUNK, blocks.end);
            const range rows = chunk_rows(n1 - n0, part);
            gather_inputs(t, n0 + rows.begin, n0 + rows.end);
            project_nodes(t, n0, n1 - n0, part, all_panels(vectors_in(t->H)));
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
static void tree_forward(const fr_trees *t, long level, int phase, fr_share share) {
    const long n0 = t->level[level], N = t->level[level + 1] - n0, vectors = vectors_in(t->H);
    const range blocks = tree_row_blocks(N, share), panels = panels_of(panels_in(vectors), share);
    const range units = {panels.begin * PANEL, MIN(panels.end * PANEL, vectors)};
    const int project = n0 < t->projected && n0 < t->inputs;
    for (range part = blocks; part.begin < blocks.end; part.begin = part.end) {
        part.end = share.by_units ? blocks.end : MIN(part.begin + CHUNK, blocks.end);
        const range rows = chunk_rows(N, part), nodes = {n0 + rows.begin, n0 + rows.end};
        if (phase == 0) {
            const range mine = share.by_units ? part_of(N, share) : rows;
            if (project) gather_inputs(t, n0 + mine.begin, n0 + mine.end);
            if (level) gather_children(t, n0 + mine.begin, n0 + mine.end);
        }
        if (phase == 1 || !share.by_units) {
            if (project) project_nodes(t, n0, N, part, panels);
            if (level) add_children(t, n0, N, part, panels);
            finish_forward(t, nodes, units);
        }
        if ((phase == 2 || !share.by_units) && forgets_apart(t) && n0 + N < t->nodes)
            multiply_for_parents(t, n0, N, part, panels);
    }
}

/* ---- Backward ---- */

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

/* A root is nobody's child: its forget gate has no gradient. Not in phase 0, in which others multiply the same rows. */
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
static void tree_backward(const fr_trees *t, long level, int phase, fr_share share) {
    const long n0 = t->level[level], N = t->level[level + 1] - n0, vectors = vectors_in(t->H);
    const range blocks = tree_row_blocks(N, share), panels = panels_of(panels_in(vectors), share);
    const range units = {panels.begin * PANEL, MIN(panels.end * PANEL, vectors)};
    for (range part = blocks; part.begin < blocks.end; part.begin = part.end) {
        part.end = share.by_units ? blocks.end : MIN(part.begin + CHUNK, blocks.end);
        const range rows = chunk_rows(N, part), nodes = {n0 + rows.begin, n0 + rows.end};
        if (phase == 0) {
            if (forgets_apart(t) && n0 + N < t->nodes) grad_forget_operand(t, n0, N, part, panels);
            finish_backward(t, nodes, units);
        }
        if (phase == 1 || !share.by_units) {
            if (forgets_apart(t)) clear_forgets_of_roots(t, nodes, units);
            if (level) grad_operand(t, n0, N, part, panels_of(panels_in(vectors_in(operand_width(t))), share));
        }
    }
}

static void tree_grad_input(const fr_trees *t, fr_share share) {
    const long Hp = padded(t->H);
    for (long n0 = 0, n1; n0 < t->inputs; n0 = n1) {
        n1 = n0 < t->leaves ? t->leaves : t->inputs;
        const long first = t->lstm && n0 < t->leaves, slots = x_slots_of(t) - first; /* leaves have no forget gates */
        const range blocks = tree_row_blocks(n1 - n0, share);
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
            part.end = MIN(part.begin + CHUNK, blocks.end);
            multiply_rows(&p, n1 - n0, part, all_panels(p.vectors));
        }
    }
}

/* dweight (H rows of a weight, width) += gradients of one slot, transposed, times rows of an operand: what a Linear does. */
static void add_slot_weights(const fr_trees *t, const real *slot, real *operand, long row, long width, long row_block,
                             real *dweight, long N, fr_share share) {
    const fr_sequence q = {
        .T = 1,
        .N = N,
        .D = width,
        .H = t->H,
        .R = t->H,
        .cell = FR_RNN,
        .activation = FR_IDENTITY,
        .fused = 1,
        .x = {operand, N * row, row},
        .gates = (real *)slot,
        .dweight_ih = dweight + row_block * t->H * width,
        .scratch = t->scratch,
    };
    grad_weights(&q, share);
}

static void tree_grad_weights(const fr_trees *t, fr_share share) {
    const long Hp = padded(t->H), W = operand_width(t);
    const range units = part_of(vectors_in(t->H), share);
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
                                 t->dweight_ih, N, share);
        }
        for (int s = h_first_of(t); !leaf && s < h_first_of(t) + h_slots_of(t); s++)
            add_slot_weights(t, slot_row(t, s, n), children_row(t, t->operand, n), W, W, h_weight_block(t, s),
                             t->dweight_hh, N, share);
        if (forgets_apart(t))
            add_slot_weights(t, slot_row(t, 4, n), (real *)t->h + n * Hp, Hp, t->H, h_weight_block(t, 4), t->dweight_hh,
                             N, share);
    }
}
