/* The tile of bfloat16 weights: half the bytes, widened to float32 in registers and multiplied there. For inference. Included by
 * tile.h, which says what each function is for.
 *
 * # Design:
 * a) A step of few rows waits for its weights: half of the bytes is nearly half of the time, with sums, rows and states as they
 *    are. The CPU's own bfloat16 products would round rows too, and are no faster here: benches/DECISIONS.md, "bfloat16 weights".
 * b) A panel has two k's of a column in the 32 bits of a float, the first in the lower half: to widen them is one shift, or
 *    one mask.
 * c) Every tile sums even and odd k's apart and joins them at the end of each product, so a row has the same bits in any
 *    number of rows, and with its inputs projected ahead or not.
 */
#ifndef FASTRNN_TILE_BF16_H
#define FASTRNN_TILE_BF16_H

enum { ROW_BLOCK = 3, ROW_BLOCK_ALONE = ROW_BLOCK, PROJECTS_AHEAD = 1 << 30 };

/* ---- Left operands are the rows themselves ---- */

#define OPERANDS_APART 0
INLINE long operand_block(long K) { return (void)K, 0; }
INLINE real *operand_line(real *block, long m, long K) { return (void)m, (void)K, block; }
INLINE void put_row(real *line, const real *row, long K) { (void)line, (void)row, (void)K; }
INLINE void multiply_begin(void) {}
INLINE void multiply_end(void) {}

/* ---- Panels: (ceil(K / 2), NV, VL) pairs ---- */

/* Floats of a panel per column. */
INLINE long panel_depth(long K) { return (K + 1) / 2; }

/* x rounded to the nearest bfloat16, ties to even, in the upper half; what is beyond the largest is that, NaN stays NaN. */
INLINE vec bf16_of(vec x) {
    const real most = 3.3895314e38f; /* the largest bfloat16 */
    x = at_least(at_most(x, most), -most);
    const veci bits = (veci)x, quiet = (x != x) & 0x400000;
    return (vec)(((bits + ((x == x) & (0x7fff + ((bits >> 16) & 1)))) | quiet) & ~0xffff);
}

static void pack_transposed(real *panel, int NV, int v, const raw_weight *rows, const real *scales, long row,
                            long lanes, long K) {
    (void)scales;
    for (long k = 0; k < K; k += VL) {
        vec block[VL];
        for (int u = 0; u < VL; u++) block[u] = u < lanes ? bf16_of(load_part(rows + u * row + k, K - k)) : (vec){0};
        transpose(block);
        for (int i = 0; i < VL && k + i < K; i += 2)
            store(panel + ((k + i) / 2 * NV + v) * VL, (vec)((((veci)block[i] >> 16) & 0xffff) | (veci)block[i + 1]));
    }
}

/* ---- The tile ---- */

INLINE vec first_of(vec pairs) { return (vec)((veci)pairs << 16); }
INLINE vec second_of(vec pairs) { return (vec)((veci)pairs & ~0xffff); }

/* Vectors first .. first + NV - 1 of a panel of WIDTH. */
INLINE void tile(const int MR, const int NV, const int WIDTH, const int first, TILE_ARGS) {
    vec even[ROW_BLOCK][4], odd[ROW_BLOCK][4];
    (void)order;
    UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) even[m][v] =
        init ? load(init + m * init_row + (first + v) * VL) : (vec){0};
    for (const product *p = products; p < products + n_products; p++) {
        const real *b = p->panel + first * VL, *a[ROW_BLOCK];
        UNROLL for (int m = 0; m < MR; m++) a[m] = p->rows[m];
        UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) odd[m][v] = (vec){0};
        long k = 0;
        for (; k + 2 <= p->depth; k += 2, b += WIDTH * VL) UNROLL for (int v = 0; v < NV; v++) {
                const vec pairs = load(b + v * VL), w0 = first_of(pairs), w1 = second_of(pairs);
                UNROLL for (int m = 0; m < MR; m++) {
                    even[m][v] += a[m][k] * w0;
                    odd[m][v] += a[m][k + 1] * w1;
                }
            }
        if (k < p->depth)
            UNROLL for (int v = 0; v < NV; v++) UNROLL for (int m = 0; m < MR; m++) even[m][v] +=
                a[m][k] * first_of(load(b + v * VL));
        UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) even[m][v] += odd[m][v];
    }
    UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++)
        store(c + m * c_row + (first + v) * VL, even[m][v]);
}

#define SAME c, c_row, init, init_row, products, n_products, order
/* With 16 registers a panel of many vectors passes in two parts. */
INLINE void tile_of(const int MR, const int NV, TILE_ARGS) {
    if (VECTOR_REGISTERS == 32 || MR * NV <= 6) {
        tile(MR, NV, NV, 0, SAME);
    } else {
        tile(MR, 2, NV, 0, SAME);
        tile(MR, NV - 2, NV, 2, SAME);
    }
}
#define TILE(MR, NV) \
    NOINLINE void tile_##MR##_##NV(TILE_ARGS) { tile_of(MR, NV, SAME); }
#define TILES(MR) TILE(MR, 1) TILE(MR, 2) TILE(MR, 3) TILE(MR, 4)
typedef void tile_function(TILE_ARGS);
TILES(1)
TILES(2)
TILES(3)
static tile_function *const tiles[ROW_BLOCK + 1][5] = {{0},
                                                       {0, tile_1_1, tile_1_2, tile_1_3, tile_1_4},
                                                       {0, tile_2_1, tile_2_2, tile_2_3, tile_2_4},
                                                       {0, tile_3_1, tile_3_2, tile_3_3, tile_3_4}};

/* A tile of any number of rows. */
INLINE void multiply(int NV, long rows, TILE_ARGS) {
    product moved[4];
    memcpy(moved, products, n_products * sizeof(product));
    while (rows > 0) {
        const int part = next_rows(rows, ROW_BLOCK);
        tiles[part][NV](c, c_row, init, init_row, moved, n_products, order);
        rows -= part;
        c += part * c_row;
        if (init) init += part * init_row;
        for (int i = 0; i < n_products; i++) moved[i].rows += part;
    }
}

#endif
