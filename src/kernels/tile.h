/* Panels and tiles: every flop of the library that is not an activation is done by `multiply`.
 *
 *     c[m][v] = init[m][v] + sum over products, over k of a[m][k] * panel[k][v]        m < rows, v < NV vectors
 *
 * There are three kinds of tile with one interface, chosen here: tile_fma.h multiplies in vector registers, tile_amx.h in
 * AMX's tiles of bfloat16 (FR_AMX_TERMS: the terms that a float32 factor is split into), and tile_int8.h has weights of int8
 * (FR_INT8), for forward alone. Each of them defines
 *
 *   ROW_BLOCK, ROW_BLOCK_ALONE, PROJECTS_AHEAD       how rows are cut, and up to which D inputs may be projected ahead
 *   OPERANDS_APART, operand_block, operand_line,     whether left operands are put into a form of their own before they are
 *   put_row, put_gates, multiply_begin, multiply_end    multiplied, and how; what stands around products
 *   panel_depth, gates_depth                         elements of a panel per column
 *   pack_transposed, gate_groups, pack_gate_rows     weights into panels
 *   gate_products, multiply                          products with panels
 *   packed_gates_size, rows_panel_size,              the operands of weights' gradients, and their product
 *   pack_gate_gradients, pack_rows, add_outer_product
 *
 * A panel is (K, NV, VL): what one tile streams through, once per block of rows.
 */
#ifndef FASTRNN_TILE_H
#define FASTRNN_TILE_H

#include "simd.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

typedef struct {
    long begin, end;
} range;

/* How a matrix' columns are cut into panels of up to four vectors. */
enum { PANEL = 4 };
INLINE long vectors_in(long columns) { return (columns + VL - 1) / VL; }
INLINE long padded(long columns) { return vectors_in(columns) * VL; }
INLINE long panels_in(long vectors) { return (vectors + PANEL - 1) / PANEL; }
INLINE int panel_width(long vectors, long first) { return vectors - first < PANEL ? (int)(vectors - first) : PANEL; }

/* One left operand and its panel. Row m, k-th of block b of a is at rows[m] + first + b*block + k. */
typedef struct {
    const real *const *rows;
    long first, block;
    long blocks, depth; /* K = blocks * depth */
    const real *panel;  /* (K, NV, VL) */
} product;

/* In what order sums run over k. IN_ORDER: one term after the other. AS_ONE_ROW: as in a tile of a single row. With either
 * the bits do not depend on the number of rows. */
enum { ANY_ORDER, IN_ORDER, AS_ONE_ROW };
#define TILE_ARGS \
    real *c, long c_row, const real *init, long init_row, const product *products, int n_products, int order

/* The next part when `left` rows are cut into equal parts of at most `most`. */
INLINE int next_rows(long left, int most) {
    long parts = (left + most - 1) / most;
    return (int)((left + parts - 1) / parts);
}

/* Where gradients of a weight's rows go: row `unit` of `units` is at dweight + unit * width, `columns` of it from there on. */
typedef struct {
    real *dweight;
    long units, width, columns;
} outer_target;

/* to[u][v] += sums[u][v]: `rows` rows of NV vectors, of which the last may stand out past the columns. */
INLINE void add_sums(const outer_target *t, long unit, long rows, const real *sums, int NV) {
    for (long u = 0; u < rows; u++)
        for (int v = 0; v < NV; v++) {
            real *at = t->dweight + (unit + u) * t->width + v * VL;
            const long lanes = t->columns - v * VL;
            store_part(at, load_part(at, lanes) + load(sums + (u * NV + v) * VL), lanes);
        }
}

enum { DEPTH = 256 }; /* rows (time steps x batch) that one packed panel of dW spans: 64 KB in float32 */

#ifdef FR_INT8
typedef int8_t raw_weight; /* what weights are before they are packed */
#include "tile_int8.h"
#elif defined(FR_AMX_TERMS)
typedef real raw_weight;
#include "tile_amx.h"
#else
typedef real raw_weight;
#include "tile_fma.h"
#endif

/* A batch is dealt in blocks of at most ROW_BLOCK rows, whatever the thread count. */
static long row_blocks(long n) { return n > ROW_BLOCK_ALONE && n <= ROW_BLOCK ? 2 : (n + ROW_BLOCK - 1) / ROW_BLOCK; }

#endif
