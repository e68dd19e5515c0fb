/* The register tile: every flop of the library that is not an activation is done here.
 *
 *     c[m][v] = init[m][v] + sum over products, over k of a[m][k] * panel[k][v]        m < rows, v < NV vectors
 *
 * # Design:
 * a) Rows and NV are compile-time constants of each instance, so the accumulators live in registers: 6 x 4 of 32. With
 *    16 registers at most 12 accumulators fit: 3 rows x 4, and from 4 rows on two halves of the panel, 6 x 2 each, which
 *    read it once per 6 rows and leave no odd row. Against 3 x 4 alone, on one Zen 3 core: LSTM forward 1.05 to 1.17 times
 *    as fast at H = 64 to 512 and 1.37 at (1000,16,32,32), forward and backward 1.03 to 1.13. Panels of 3, the GRU's, take
 *    6 rows as 3 + 3 and 5 rows by 2 + 1 vectors (84 GFLOP/s where 3 + 2 rows have 72, at K <= 256). Panels are packed, so
 *    the inner loop streams one array; a is broadcast from memory.
 * b) A tile takes a list of products, so that x @ W_ih and h @ W_hh run into the same accumulators without a stop.
 * c) Few accumulators leave the multipliers waiting for each other; such tiles run several sums over k side by side, 2 or
 *    4, as far as registers reach. That changes the order of a sum, hence the result's last bits, with the number of
 *    rows: `in_order` forbids it where the cut into tiles depends on the thread count or on T.
 * d) Accumulators go out through memory (L1) and the cell's activations come as a second small function, not inlined
 *    into each of the tile's instances. By count that is 2 x 24 memory operations beside 24 * K multiply-adds of the
 *    largest tile, 2-3% at K = D + H = 64 and under 1% from 192 on; it compiles in 2 s where inlining took 20.
 */
#ifndef FASTRNN_TILE_H
#define FASTRNN_TILE_H

#include "fastrnn.h"
#include "simd.h"

/* One left operand and its panel. Row m, k-th of block b of a is at rows[m] + first + b*block + k (or + k*VL, see `tile`). */
typedef struct {
    const real *const *rows;
    long first, block;
    long blocks, depth; /* K = blocks * depth */
    const real *panel;  /* (K, NV, VL) */
} product;

#define TILE_ARGS \
    real *c, long c_row, const real *init, long init_row, const product *products, int n_products, int in_order

/* The next part when `left` rows are cut into equal parts of at most `most`. */
INLINE int next_rows(long left, int most) {
    long parts = (left + most - 1) / most;
    return (int)((left + parts - 1) / parts);
}

#ifndef FR_AMX_TERMS /* amx.h has other tiles */

/* Accumulators of all sums that run side by side: what registers hold beside the operands, and what keeps two multipliers
 * of latency 4 busy twice over. */
#define MOST_CHAINED (VECTOR_REGISTERS == 32 ? 16 : 12)

/* Vectors first .. first + NV - 1 of a panel of WIDTH.
 * step: elements from k to k + 1 of a row; VL where a is packed (K, VL) and its rows are lanes. */
INLINE void tile(const int MR, const int NV, const int WIDTH, const int first, const int step, TILE_ARGS) {
    vec acc[FR_ROW_BLOCK][4]; /* the largest tile: sizes that depend on MR and NV would make it a VLA, kept in memory */
    UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) acc[m][v] =
        init ? load(init + m * init_row + (first + v) * VL) : (vec){0};
    for (const product *p = products; p < products + n_products; p++) {
        const real *b = p->panel + first * VL;
        for (long block = 0; block < p->blocks; block++) {
            const real *a[FR_ROW_BLOCK];
            UNROLL for (int m = 0; m < MR; m++) a[m] = p->rows[m] + p->first + block * p->block;
            long k = 0;
            const int chains = MR * NV <= MOST_CHAINED / 4 ? 4 : MR * NV <= MOST_CHAINED / 2 ? 2 : 1;
            if (chains > 1 && !in_order) {
                enum { CHAINS = 4 };
                vec more[CHAINS - 1][FR_ROW_BLOCK][4];
                UNROLL for (int q = 0; q < chains - 1; q++) UNROLL for (int m = 0; m < MR; m++)
                    UNROLL for (int v = 0; v < NV; v++) more[q][m][v] = (vec){0};
                for (; k + chains <= p->depth; k += chains, b += chains * WIDTH * VL)
                    UNROLL for (int q = 0; q < chains; q++) UNROLL for (int v = 0; v < NV; v++) {
                        vec w = load(b + (q * WIDTH + v) * VL);
                        UNROLL for (int m = 0; m < MR; m++) {
                            vec *sum = q ? &more[q - 1][m][v] : &acc[m][v];
                            *sum += a[m][(k + q) * step] * w;
                        }
                    }
                UNROLL for (int q = 0; q < chains - 1; q++) UNROLL for (int m = 0; m < MR; m++)
                    UNROLL for (int v = 0; v < NV; v++) acc[m][v] += more[q][m][v];
            }
            _Pragma("GCC unroll 4") for (; k < p->depth; k++, b += WIDTH * VL) {
                if (MR < NV) { /* hold the fewer: 3 x 4 accumulators, 3 and 1 operands fill 16 registers exactly */
                    vec s[FR_ROW_BLOCK];
                    UNROLL for (int m = 0; m < MR; m++) s[m] = splat(a[m][k * step]);
                    UNROLL for (int v = 0; v < NV; v++) {
                        vec w = load(b + v * VL);
                        UNROLL for (int m = 0; m < MR; m++) acc[m][v] += s[m] * w;
                    }
                } else {
                    vec w[4];
                    UNROLL for (int v = 0; v < NV; v++) w[v] = load(b + v * VL);
                    UNROLL for (int m = 0; m < MR; m++) {
                        vec s = splat(a[m][k * step]);
                        UNROLL for (int v = 0; v < NV; v++) acc[m][v] += s * w[v];
                    }
                }
            }
        }
    }
    UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++)
        store(c + m * c_row + (first + v) * VL, acc[m][v]);
}

#define WHOLE(MR, NV, step) tile(MR, NV, NV, 0, step, c, c_row, init, init_row, products, n_products, in_order);
#define HALVES(MR, NV, step)                                                                 \
    tile(MR, NV / 2, NV, 0, step, c, c_row, init, init_row, products, n_products, in_order); \
    tile(MR, NV / 2, NV, NV / 2, step, c, c_row, init, init_row, products, n_products, in_order);
#define TWO_AND_ONE(MR, NV, step)                                                       \
    tile(MR, 2, NV, 0, step, c, c_row, init, init_row, products, n_products, in_order); \
    tile(MR, 1, NV, 2, step, c, c_row, init, init_row, products, n_products, in_order);
#define TILE(MR, NV, PARTS)                                         \
    NOINLINE void tile_##MR##_##NV(TILE_ARGS) { PARTS(MR, NV, 1); } \
    NOINLINE void outer_##MR##_##NV(TILE_ARGS) { PARTS(MR, NV, VL); }
TILE(1, 1, WHOLE);
TILE(2, 1, WHOLE);
TILE(3, 1, WHOLE);
TILE(4, 1, WHOLE);
TILE(5, 1, WHOLE);
TILE(6, 1, WHOLE);
TILE(1, 2, WHOLE);
TILE(2, 2, WHOLE);
TILE(3, 2, WHOLE);
TILE(4, 2, WHOLE);
TILE(5, 2, WHOLE);
TILE(6, 2, WHOLE);
TILE(1, 3, WHOLE);
TILE(2, 3, WHOLE);
TILE(3, 3, WHOLE);
TILE(4, 3, WHOLE);
TILE(1, 4, WHOLE);
TILE(2, 4, WHOLE);
TILE(3, 4, WHOLE);
#if VECTOR_REGISTERS == 32
TILE(5, 3, WHOLE);
TILE(6, 3, WHOLE);
TILE(4, 4, WHOLE);
TILE(5, 4, WHOLE);
TILE(6, 4, WHOLE);
#define SIX_BY_THREE(kind) kind##_6_3
static const int max_rows[5] = {0, 6, 6, 6, 6};
#else
TILE(5, 3, TWO_AND_ONE);
TILE(4, 4, HALVES);
TILE(5, 4, HALVES);
TILE(6, 4, HALVES);
#define SIX_BY_THREE(kind) 0
static const int max_rows[5] = {0, 6, 6, 5, 6};
#endif

typedef void tile_function(TILE_ARGS);
#define TILES(kind)                                                                                \
    {                                                                                              \
        {0}, {0, kind##_1_1, kind##_2_1, kind##_3_1, kind##_4_1, kind##_5_1, kind##_6_1},          \
            {0, kind##_1_2, kind##_2_2, kind##_3_2, kind##_4_2, kind##_5_2, kind##_6_2},           \
            {0, kind##_1_3, kind##_2_3, kind##_3_3, kind##_4_3, kind##_5_3, SIX_BY_THREE(kind)}, { \
            0, kind##_1_4, kind##_2_4, kind##_3_4, kind##_4_4, kind##_5_4, kind##_6_4              \
        }                                                                                          \
    }
static tile_function *const tiles[5][7] = TILES(tile);
static tile_function *const outer_tiles[5][7] = TILES(outer);

/* A tile of any number of rows: as few register tiles as hold them. Moves the products' left operands. */
INLINE void multiply(int NV, long rows, TILE_ARGS) {
    if (rows <= max_rows[NV]) { /* nearly always; without copies and divisions 3% faster at H = 64 and 128 */
        if (rows) tiles[NV][rows](c, c_row, init, init_row, products, n_products, in_order);
        return;
    }
    product moved[4];
    memcpy(moved, products, n_products * sizeof(product));
    while (rows > 0) {
        int part = next_rows(rows, max_rows[NV]);
        tiles[NV][part](c, c_row, init, init_row, moved, n_products, in_order);
        rows -= part;
        c += part * c_row;
        if (init) init += part * init_row;
        for (int i = 0; i < n_products; i++) moved[i].rows += part;
    }
}

#endif
#endif
