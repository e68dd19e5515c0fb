/* The register tile: accumulators in vector registers, panels streamed, left operands broadcast from where they are.
 * Included by tile.h, which says what each function is for.
 *
 * # Design:
 * a) Rows and NV are compile-time constants of each instance, so the accumulators live in registers: 6 x 4 of 32. With
 *    16 registers at most 12 accumulators fit: 3 rows x 4, and from 4 rows on two halves of the panel, 6 x 2 each, which
 *    read it once per 6 rows and leave no odd row. Panels of 3, the GRU's, take 6 rows as 3 + 3 and 5 rows by 2 + 1 vectors.
 *    Panels are packed, so the inner loop streams one array; a is broadcast from memory. Speeds: benches/DECISIONS.md, "Tiles".
 * b) A tile takes a list of products, so that x @ W_ih and h @ W_hh run into the same accumulators without a stop.
 * c) Few accumulators leave the multipliers waiting for each other; such tiles run several sums over k side by side, 2 or
 *    4, as far as registers reach. That changes the order of a sum, hence the result's last bits, with the number of
 *    rows: IN_ORDER forbids it where the cut into tiles depends on the thread count or on T. AS_ONE_ROW gives each row the
 *    sums of a tile of its own, but one after the other, as registers hold no more: who else is in the batch does not show.
 * d) Accumulators go out through memory (L1) and the cell's activations come as a second small function, not inlined
 *    into each of the tile's instances. By count that is 2 x 24 memory operations beside 24 * K multiply-adds of the
 *    largest tile, 2-3% at K = D + H = 64 and under 1% from 192 on; it compiles in 2 s where inlining took 20.
 */
#ifndef FASTRNN_TILE_FMA_H
#define FASTRNN_TILE_FMA_H

enum { ROW_BLOCK = 6, ROW_BLOCK_ALONE = ROW_BLOCK, PROJECTS_AHEAD = 1 << 30 };

/* ---- Left operands are the rows themselves ---- */

#define OPERANDS_APART 0
INLINE long operand_block(long K) { return (void)K, 0; }
INLINE real *operand_line(real *block, long m, long K) { return (void)m, (void)K, block; }
INLINE void put_row(real *line, const real *row, long K) { (void)line, (void)row, (void)K; }
INLINE void put_gates(real *line, const real *row, int slots, int first, int count, long H) {
    (void)line, (void)row, (void)slots, (void)first, (void)count, (void)H;
}
INLINE void multiply_begin(void) {}
INLINE void multiply_end(void) {}

/* ---- The tile ---- */

/* Accumulators of all sums that run side by side: what registers hold beside the operands, and what keeps two multipliers
 * of latency 4 busy twice over. */
#define MOST_CHAINED (VECTOR_REGISTERS == 32 ? 16 : 12)

/* The sums over the first `depth` terms that a tile with so many chains side by side has, one chain after the other. */
INLINE void add_chain_by_chain(const int MR, const int NV, const int WIDTH, const int step, vec acc[ROW_BLOCK][4],
                               const real *const *a, const real *b, long depth, int chains) {
    for (int q = 0; q < chains; q++) {
        vec sum[ROW_BLOCK][4];
        UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) sum[m][v] = q ? (vec){0} : acc[m][v];
        for (long k = q; k < depth; k += chains) {
            vec w[4];
            UNROLL for (int v = 0; v < NV; v++) w[v] = load(b + (k * WIDTH + v) * VL);
            UNROLL for (int m = 0; m < MR; m++) {
                vec s = splat(a[m][k * step]);
                UNROLL for (int v = 0; v < NV; v++) sum[m][v] += s * w[v];
            }
        }
        UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) acc[m][v] =
            q ? acc[m][v] + sum[m][v] : sum[m][v];
    }
}

/* Vectors first .. first + NV - 1 of a panel of WIDTH.
 * step: elements from k to k + 1 of a row; VL where a is packed (K, VL) and its rows are lanes. */
INLINE void tile(const int MR, const int NV, const int WIDTH, const int first, const int step, const int as_one_row,
                 TILE_ARGS) {
    vec acc[ROW_BLOCK][4]; /* the largest tile: sizes that depend on MR and NV would make it a VLA, kept in memory */
    UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) acc[m][v] =
        init ? load(init + m * init_row + (first + v) * VL) : (vec){0};
    for (const product *p = products; p < products + n_products; p++) {
        const real *b = p->panel + first * VL;
        for (long block = 0; block < p->blocks; block++) {
            const real *a[ROW_BLOCK];
            UNROLL for (int m = 0; m < MR; m++) a[m] = p->rows[m] + p->first + block * p->block;
            long k = 0;
            const int chains = MR * NV <= MOST_CHAINED / 4 ? 4 : MR * NV <= MOST_CHAINED / 2 ? 2 : 1;
            if (chains > 1 && order == ANY_ORDER) {
                enum { CHAINS = 4 };
                vec more[CHAINS - 1][ROW_BLOCK][4];
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
            const int alone = WIDTH <= MOST_CHAINED / 4 ? 4 : WIDTH <= MOST_CHAINED / 2 ? 2 : 1; /* chains of one row */
            if (as_one_row) {
                k = p->depth - p->depth % alone;
                add_chain_by_chain(MR, NV, WIDTH, step, acc, a, b, k, alone);
                b += k * WIDTH * VL;
            }
            _Pragma("GCC unroll 4") for (; k < p->depth; k++, b += WIDTH * VL) {
                if (MR < NV) { /* hold the fewer: 3 x 4 accumulators, 3 and 1 operands fill 16 registers exactly */
                    vec s[ROW_BLOCK];
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

#define SAME c, c_row, init, init_row, products, n_products, order
#define WHOLE(MR, NV, step, as_one_row) tile(MR, NV, NV, 0, step, as_one_row, SAME);
#define HALVES(MR, NV, step, as_one_row)             \
    tile(MR, NV / 2, NV, 0, step, as_one_row, SAME); \
    tile(MR, NV / 2, NV, NV / 2, step, as_one_row, SAME);
#define TWO_AND_ONE(MR, NV, step, as_one_row)   \
    tile(MR, 2, NV, 0, step, as_one_row, SAME); \
    tile(MR, 1, NV, 2, step, as_one_row, SAME);
/* rows_name multiplies rows; lanes_name what is packed (K, VL), whose rows are lanes: never AS_ONE_ROW. */
#define TILE(rows_name, lanes_name, MR, NV, PARTS) \
    NOINLINE void rows_name(TILE_ARGS) {           \
        if (order == AS_ONE_ROW) {                 \
            PARTS(MR, NV, 1, 1)                    \
        } else {                                   \
            PARTS(MR, NV, 1, 0)                    \
        }                                          \
    }                                              \
    NOINLINE void lanes_name(TILE_ARGS) { PARTS(MR, NV, VL, 0) }
TILE(tile_1_1, outer_1_1, 1, 1, WHOLE)
TILE(tile_2_1, outer_2_1, 2, 1, WHOLE)
TILE(tile_3_1, outer_3_1, 3, 1, WHOLE)
TILE(tile_4_1, outer_4_1, 4, 1, WHOLE)
TILE(tile_5_1, outer_5_1, 5, 1, WHOLE)
TILE(tile_6_1, outer_6_1, 6, 1, WHOLE)
TILE(tile_1_2, outer_1_2, 1, 2, WHOLE)
TILE(tile_2_2, outer_2_2, 2, 2, WHOLE)
TILE(tile_3_2, outer_3_2, 3, 2, WHOLE)
TILE(tile_4_2, outer_4_2, 4, 2, WHOLE)
TILE(tile_5_2, outer_5_2, 5, 2, WHOLE)
TILE(tile_6_2, outer_6_2, 6, 2, WHOLE)
TILE(tile_1_3, outer_1_3, 1, 3, WHOLE)
TILE(tile_2_3, outer_2_3, 2, 3, WHOLE)
TILE(tile_3_3, outer_3_3, 3, 3, WHOLE)
TILE(tile_4_3, outer_4_3, 4, 3, WHOLE)
TILE(tile_1_4, outer_1_4, 1, 4, WHOLE)
TILE(tile_2_4, outer_2_4, 2, 4, WHOLE)
TILE(tile_3_4, outer_3_4, 3, 4, WHOLE)
#if VECTOR_REGISTERS == 32
TILE(tile_5_3, outer_5_3, 5, 3, WHOLE)
TILE(tile_6_3, outer_6_3, 6, 3, WHOLE)
TILE(tile_4_4, outer_4_4, 4, 4, WHOLE)
TILE(tile_5_4, outer_5_4, 5, 4, WHOLE)
TILE(tile_6_4, outer_6_4, 6, 4, WHOLE)
static const int max_rows[5] = {0, 6, 6, 6, 6};
#else
TILE(tile_5_3, outer_5_3, 5, 3, TWO_AND_ONE)
TILE(tile_4_4, outer_4_4, 4, 4, HALVES)
TILE(tile_5_4, outer_5_4, 5, 4, HALVES)
TILE(tile_6_4, outer_6_4, 6, 4, HALVES)
static const int max_rows[5] = {0, 6, 6, 5, 6};
#endif

typedef void tile_function(TILE_ARGS);
static tile_function *const row_tiles[5][7] = {
    [1] = {0, tile_1_1, tile_2_1, tile_3_1, tile_4_1, tile_5_1, tile_6_1},
    [2] = {0, tile_1_2, tile_2_2, tile_3_2, tile_4_2, tile_5_2, tile_6_2},
    [3] = {0, tile_1_3, tile_2_3, tile_3_3, tile_4_3, tile_5_3},
    [4] = {0, tile_1_4, tile_2_4, tile_3_4, tile_4_4, tile_5_4, tile_6_4},
#if VECTOR_REGISTERS == 32
    [3][6] = tile_6_3,
#endif
};
static tile_function *const lane_tiles[5][7] = {
    [1] = {0, outer_1_1, outer_2_1, outer_3_1, outer_4_1, outer_5_1, outer_6_1},
    [2] = {0, outer_1_2, outer_2_2, outer_3_2, outer_4_2, outer_5_2, outer_6_2},
    [3] = {0, outer_1_3, outer_2_3, outer_3_3, outer_4_3, outer_5_3},
    [4] = {0, outer_1_4, outer_2_4, outer_3_4, outer_4_4, outer_5_4, outer_6_4},
#if VECTOR_REGISTERS == 32
    [3][6] = outer_6_3,
#endif
};

/* A tile of any number of rows: as few register tiles as hold them. Moves the products' left operands. */
INLINE void multiply(int NV, long rows, TILE_ARGS) {
    if (rows <= max_rows[NV]) { /* nearly always; without copies and divisions 3% faster at H = 64 and 128 */
        if (rows) row_tiles[NV][rows](c, c_row, init, init_row, products, n_products, order);
        return;
    }
    product moved[4];
    memcpy(moved, products, n_products * sizeof(product));
    while (rows > 0) {
        int part = next_rows(rows, max_rows[NV]);
        row_tiles[NV][part](c, c_row, init, init_row, moved, n_products, order);
        rows -= part;
        c += part * c_row;
        if (init) init += part * init_row;
        for (int i = 0; i < n_products; i++) moved[i].rows += part;
    }
}

/* ---- Weights into panels ---- */

/* Elements of a panel per column: of one over K elements of a row, and of one over the gate gradients of H units. */
INLINE long panel_depth(long K) { return K; }
INLINE long gates_depth(long slots, long H) { return slots * H; }

/* VL whole rows, `row` apart, as VL columns, `step` apart. By itself, and with pointers that move: a loop around it makes the
 * compiler keep 2 * VL addresses where the block should be. */
NOINLINE void pack_block(real *out, long step, const real *rows, long row) {
    vec block[VL];
    UNROLL for (int u = 0; u < VL; u++, rows += row) block[u] = load(rows);
    transpose(block);
    UNROLL for (int i = 0; i < VL; i++, out += step) store(out, block[i]);
}

/* `lanes` rows of `left` elements, where one of both is less. */
NOINLINE void pack_part(real *out, long step, const real *rows, long row, long lanes, long left) {
    vec block[VL];
    UNROLL for (int u = 0; u < VL; u++, rows += row) block[u] = u < lanes ? load_part(rows, left) : (vec){0};
    transpose(block);
    for (int i = 0; i < left; i++, out += step) store(out, block[i]);
}

/* Vector v of the panel's row k = column k of `lanes` rows of the matrix, from `rows`, `row` elements apart; rest 0. */
static void pack_transposed(real *panel, int NV, int v, const real *rows, const real *scales, long row, long lanes,
                            long K) {
    (void)scales;
    for (long k = 0; k < K; k += VL) {
        const long left = K - k < VL ? K - k : VL;
        real *out = panel + (k * NV + v) * VL;
        if (lanes >= VL && left == VL)
            pack_block(out, NV * VL, rows + k, row);
        else
            pack_part(out, NV * VL, rows + k, row, lanes, left);
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

/* ---- Gradients of weights: gate gradients, transposed, times rows ---- */

/* Elements of the packed gate gradients of `width` units; of a panel of rows. */
static long packed_gates_size(long width, int slots) { return padded(width) * slots * DEPTH; }
static long rows_panel_size(void) { return DEPTH * PANEL * VL; }

/* `depth` gate gradients of unit block `block`, the first at `from` and `row` apart, into packed, (block, slot, DEPTH, VL);
 * and their sums. */
static void pack_gate_gradients(real *packed, const real *from, long row, int slots, long block, long depth,
                                vec sums[4]) {
    packed += block * slots * DEPTH * VL;
    for (int slot = 0; slot < slots; slot++) {
        sums[slot] = (vec){0};
        for (long k = 0; k < depth; k++) {
            const vec v = load(from + k * row + (block * slots + slot) * VL);
            store(packed + (slot * DEPTH + k) * VL, v);
            sums[slot] += v;
        }
    }
}

/* Columns first .. first + columns - 1 of `depth` rows into a panel. */
static void pack_rows(real *panel, int NV, const real *const *rows, long first, long columns, long depth) {
    for (long k = 0; k < depth; k++) pack_row(panel + k * NV * VL, NV, rows[k] + first, columns);
}

/* Adds the products of slot `slot` of unit blocks `blocks` with a panel to their rows of the target. */
static void add_outer_product(const outer_target *t, const real *packed, int slots, int slot, range blocks,
                              const real *panel, int NV, long depth) {
    real acc[ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    const long end = MIN(blocks.end * VL, t->units);
    for (long unit = blocks.begin * VL, part; unit < end; unit += part) {
        part = next_rows(end - unit, max_rows[NV]);
        const real *lanes[ROW_BLOCK];
        for (int r = 0; r < part; r++)
            lanes[r] = packed + ((unit + r) / VL * slots + slot) * DEPTH * VL + (unit + r) % VL;
        const product gates = {.rows = lanes, .blocks = 1, .depth = depth, .panel = panel};
        real *to = t->dweight + unit * t->width;
        if (t->columns >= NV * VL) {
            lane_tiles[NV][part](to, t->width, to, t->width, &gates, 1, 1);
            continue;
        }
        lane_tiles[NV][part](acc, NV * VL, 0, 0, &gates, 1, 1);
        add_sums(t, unit, part, acc, NV);
    }
}

#endif
