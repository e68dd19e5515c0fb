/* Packing: weights into panels before the loop over time, activations and gate gradients into panels for dW.
 * A panel is (K, NV, VL): what one tile streams through, once per row block.
 */
#ifndef FASTRNN_PACK_H
#define FASTRNN_PACK_H

#include "cells.h"

/* How a matrix' columns are cut into panels of up to four vectors. */
enum { PANEL = 4 };
INLINE long vectors_in(long columns) { return (columns + VL - 1) / VL; }
INLINE long panels_in(long vectors) { return (vectors + PANEL - 1) / PANEL; }
INLINE int panel_width(long vectors, long first) { return vectors - first < PANEL ? (int)(vectors - first) : PANEL; }

#ifdef FR_AMX_TERMS
#include "amx.h"
#else

/* Elements of a panel per column: of one over K elements of a row, and of one over the gate gradients of H units. */
INLINE long panel_depth(long K) { return K; }
INLINE long gates_depth(long slots, long H) { return slots * H; }

/* Vector v of the panel's row k = column k of `lanes` rows of the matrix, from `rows`, `row` elements apart; rest 0. */
static void pack_transposed(real *panel, int NV, int v, const real *rows, long row, long lanes, long K) {
    for (long k = 0; k < K; k += VL) {
        const long left = K - k < VL ? K - k : VL;
        vec block[VL];
        UNROLL for (int u = 0; u < VL; u++) block[u] = u < lanes ? load_part(rows + u * row + k, left) : (vec){0};
        transpose(block);
        real *out = panel + (k * NV + v) * VL;
        if (left == VL)
            UNROLL for (int i = 0; i < VL; i++) store(out + i * NV * VL, block[i]);
        else
            for (int i = 0; i < left; i++) store(out + i * NV * VL, block[i]);
    }
}

/* One row of a panel = `columns` (or fewer than NV*VL) contiguous elements, rest 0. */
INLINE void pack_row(real *panel_row, int NV, const real *from, long columns) {
    if (columns >= NV * VL)
        for (int v = 0; v < NV; v++) store(panel_row + v * VL, load(from + v * VL));
    else
        for (int v = 0; v < NV; v++) {
            const long lanes = columns - v * VL;
            store(panel_row + v * VL, lanes > 0 ? load_part(from + v * VL, lanes) : (vec){0});
        }
}

/* Panels for a product with gate gradients: K runs over unit blocks, slots, lanes (as `gate_products` reads them), the
 * columns over `width` of the weights (G*H, width). Packs the k of unit block `block`, of gate_groups, into all panels. */
INLINE long gate_groups(int slots, long H) { return (void)slots, vectors_in(H); }
static void pack_gate_rows(real *panels, const real *weight, const int *gates, int slots, long H, long width,
                           long block) {
    const long vectors = vectors_in(width), lanes = H - block * VL < VL ? H - block * VL : VL;
    const long K = slots * H, k0 = block * slots * VL;
    for (int slot = 0; slot < slots; slot++)
        for (long u = 0; u < lanes; u++) {
            const real *from = weight + (gates[slot] * H + block * VL + u) * width;
            const long k = k0 + slot * lanes + u;
            for (long first = 0; first < vectors; first += PANEL) {
                const int NV = panel_width(vectors, first);
                pack_row(panels + (first * K + k * NV) * VL, NV, from + first * VL, width - first * VL);
            }
        }
}

/* The product of gate gradients (rows of unit blocks of `all_slots` vectors) with such a panel: whole blocks, then the
 * last, partial one. Returns how many products that is. */
INLINE int gate_products(product out[2], const real *const *gates, int all_slots, int first_slot, int slots, long H,
                         const real *panel, int NV) {
    const long whole = H / VL, rest = H % VL;
    int n = 0;
    if (whole) out[n++] = (product){gates, first_slot * VL, all_slots * VL, whole, slots * VL, panel};
    if (rest)
        out[n++] = (product){gates, (whole * all_slots + first_slot) * VL, VL, slots,
                             rest,  panel + whole * slots * VL * NV * VL};
    return n;
}

#endif
#endif
