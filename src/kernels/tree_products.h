/* Trees: where things stand in the workspaces, weights packed into panels, and products of rows with them. See tree_forward.h. */
#ifndef FASTRNN_TREE_PRODUCTS_H
#define FASTRNN_TREE_PRODUCTS_H

#include "rows.h"
#include "tree.h"

INLINE long operand_width(const fr_trees *t) { return (t->children ? t->children : 1) * t->H; }
INLINE int x_slots_of(const fr_trees *t) { return t->lstm ? 4 : 1; }
INLINE int h_first_of(const fr_trees *t) { return t->lstm ? 1 : 0; }
/* Slots that the children's operand reaches: not the one forget gate of summed children, which sees each child alone. */
INLINE int h_slots_of(const fr_trees *t) { return t->lstm ? 3 + t->children : 1; }
INLINE int forgets_apart(const fr_trees *t) { return t->lstm && !t->children; }
INLINE real *slot_row(const fr_trees *t, long slot, long n) {
    return (real *)t->slots + (slot * t->nodes + n) * padded(t->H);
}
INLINE real *children_row(const fr_trees *t, void *rows, long n) {
    return (real *)rows + (n - t->leaves) * operand_width(t);
}

/* Row blocks of the weights, i f g o and i f_1 .. f_N g o, that belong to a slot. */
static long x_weight_block(const fr_trees *t, int slot) {
    static const long lstm[] = {1, 0, 2, 3};
    return t->lstm ? lstm[slot] : 0;
}
static long h_weight_block(const fr_trees *t, int slot) {
    const long forgets = t->children ? t->children : 1;
    return !t->lstm || slot == 1 ? 0 : slot < 4 ? slot - 1 + forgets : slot - 3;
}

/* ---- Packing ---- */

/* For a product with rows of inputs: (slot, panels of units), K = columns of the weight. */
static void pack_tree_units(const fr_trees *t, real *panels, const real *weight, long row_block, long K,
                            fr_partition partition) {
    const long vectors = vectors_in(t->H);
    const range part = part_of(vectors, partition);
    for (long v = part.begin; v < part.end; v++) {
        const long first = v - v % PANEL;
        pack_transposed(panels + first * K * VL, panel_width(vectors, first), (int)(v - first),
                        weight + (row_block * t->H + v * VL) * K, 0, K, t->H - v * VL, K);
    }
}

static void tree_pack_forward(const fr_trees *t, fr_partition partition) {
    const long Hp = padded(t->H), W = operand_width(t);
    real *panels_x = t->panels_x, *panels_h = t->panels_h;
    for (int s = 0; s < x_slots_of(t); s++) {
        pack_tree_units(t, panels_x + s * Hp * t->D, t->weight_ih, x_weight_block(t, s), t->D, partition);
        const real *bias = (real *)t->bias + x_weight_block(t, s) * t->H;
        real *to = (real *)t->packed_bias + s * Hp;
        if (partition.id) continue;
        memset(to, 0, Hp * sizeof(real));
        if (t->bias) memcpy(to, bias, t->H * sizeof(real));
    }
    for (int s = 0; s < h_slots_of(t); s++)
        pack_tree_units(t, panels_h + s * Hp * W, t->weight_hh, h_weight_block(t, s + h_first_of(t)), W, partition);
    if (forgets_apart(t)) pack_tree_units(t, t->panels_f, t->weight_hh, h_weight_block(t, 4), t->H, partition);
}

/* For a product with gradients of `slots` slots, from `first` on: panels of the weight's columns, K = slots * H. */
static void pack_tree_columns(const fr_trees *t, real *panels, const real *weight, int first_slot, int slots,
                              long (*row_block)(const fr_trees *, int slot), long width, fr_partition partition) {
    const long vectors = vectors_in(width), K = slots * t->H;
    const range part = part_of(K, partition);
    for (long k = part.begin; k < part.end; k++) {
        const real *from = weight + (row_block(t, first_slot + (int)(k / t->H)) * t->H + k % t->H) * width;
        for (long first = 0; first < vectors; first += PANEL) {
            const int NV = panel_width(vectors, first);
            pack_row(panels + (first * K + k * NV) * VL, NV, from + first * VL, width - first * VL);
        }
    }
}

static void tree_pack_backward(const fr_trees *t, fr_partition partition) {
    pack_tree_columns(t, t->panels_x, t->weight_ih, 0, x_slots_of(t), x_weight_block, t->D, partition);
    pack_tree_columns(t, t->panels_h, t->weight_hh, h_first_of(t), h_slots_of(t), h_weight_block, operand_width(t),
                      partition);
    if (forgets_apart(t)) pack_tree_columns(t, t->panels_f, t->weight_hh, 4, 1, h_weight_block, t->H, partition);
}

/* ---- Products of rows with panels ---- */

/* c (slots, rows, width) = init + a times panels; row n of c is row index[n] of it, where there is an index. */
typedef struct {
    const real *a; /* (rows, blocks, depth) in rows of a_row and blocks of a_block elements: K = blocks * depth */
    long a_row, a_block, blocks, depth;
    const real *panels;
    long skip; /* k's of each panel that come before the first in use */
    int slots;
    long vectors, width, c_row, c_slot, init_row, init_slot;
    real *c;
    const real *init;
    const long *index;
} row_product;

static void multiply_rows(const row_product *p, long N, range blocks, range panels) {
    const long K = p->skip + p->blocks * p->depth;
    const row_deal deal = deal_rows(N);
    real acc[ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    for (int slot = 0; slot < p->slots; slot++)
        for (long i = panels.begin; i < panels.end; i++) {
            const long first = i * PANEL;
            const int NV = panel_width(p->vectors, first);
            const int direct = !p->index && (first + NV) * VL <= p->width;
            for (long block = blocks.begin; block < blocks.end; block++) {
                const long n = block_start(deal, block);
                const int rows = (int)(block_start(deal, block + 1) - n);
                const real *at[ROW_BLOCK];
                for (int m = 0; m < rows; m++) at[m] = p->a + (n + m) * p->a_row;
                const product a = {.rows = at,
                                   .block = p->a_block,
                                   .blocks = p->blocks,
                                   .depth = p->depth,
                                   .panel = p->panels + (slot * p->vectors + first) * K * VL + p->skip * NV * VL};
                const real *init = p->init ? p->init + slot * p->init_slot + n * p->init_row + first * VL : 0;
                real *c = p->c + slot * p->c_slot + first * VL;
                if (direct) {
                    multiply(NV, rows, c + n * p->c_row, p->c_row, init, p->init_row, &a, 1, 0);
                    continue;
                }
                multiply(NV, rows, acc, NV * VL, init, p->init_row, &a, 1, 0);
                for (int m = 0; m < rows; m++)
                    for (int v = 0; v < NV; v++)
                        store_part(c + (p->index ? p->index[n + m] : n + m) * p->c_row + v * VL,
                                   load(acc + (m * NV + v) * VL), p->width - (first + v) * VL);
            }
        }
}

#endif
