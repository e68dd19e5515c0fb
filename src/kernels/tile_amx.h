/* AMX's tiles: eight registers of 16 rows of 64 bytes, and bfloat16 numbers to fill them with; for set_matmul_precision.
 * Included by tile.h, which says what each function is for. FR_AMX_TERMS is the number of bfloat16 terms that a float32
 * factor is split into.
 *
 * # Design:
 * a) A tile product is c (16, 16) += a (16, 32) b (32, 16), in bfloat16, summed in float32. `a` and `b` hold the 32 terms of
 *    the sum in pairs, one pair in the 32 bits of a float. Which two make a pair is free as long as both agree: here k and
 *    k + 16, so that pairs come from two whole vectors, lane by lane, without a shuffle.
 * b) A float32 x is hi + lo, each rounded to 8 bits: 16 bits of x in all. hi*hi + hi*lo + lo*hi leaves out lo*lo, at most
 *    2^-16 of the product: "high", three products for one. hi*hi alone is "medium". Each is compiled for itself.
 * c) Infinities (and what would round to one) count as the largest bfloat16: lo = inf - inf and inf * 0 would be NaN where
 *    float32 saturates. NaN stays NaN.
 * d) Two by two tiles at a time: 4 loads of operands serve 4 products, and a panel passes once for 32 rows. Rows beyond the
 *    last are calculated from whatever is there, and ignored.
 * e) All but the instructions themselves is the same where they are emulated (FR_EMULATED), so that it can be tested on any
 *    CPU; sums are in the order of the instruction's manual, even and odd terms apart.
 */
#ifndef FASTRNN_TILE_AMX_H
#define FASTRNN_TILE_AMX_H

/* A block of rows is two tiles, which read their panels once; of a batch of no more than that each tile is a block, for two
 * threads. Tiles are for many rows, where projecting ahead would not be faster. */
enum { ROW_BLOCK = 32, ROW_BLOCK_ALONE = 16, PROJECTS_AHEAD = 0 };

/* Floats of a tile; k's of a tile; terms per factor; floats of all terms of a tile. */
enum { TILE = 256, PAIR = 2 * VL, TERMS = FR_AMX_TERMS, TILE_TERMS = TERMS * TILE };

/* ---- The instructions: registers are numbered by constants, rows are `stride` floats apart, 0: all are the same ---- */

#ifdef FR_EMULATED

static _Thread_local veci emulated_tiles[8][16];
static _Thread_local int emulated_configured;

/* As the CPU does, end the program where no configuration is loaded. */
INLINE veci *emulated_tile(int t) {
    if (!emulated_configured) __builtin_trap();
    return emulated_tiles[t];
}
INLINE void multiply_begin(void) { emulated_configured = 1; }
INLINE void multiply_end(void) { emulated_configured = 0; }
INLINE void tile_zero(int t) { memset(emulated_tile(t), 0, TILE * sizeof(real)); }
INLINE void tile_load(int t, const real *from, long stride) {
    for (int m = 0; m < 16; m++) emulated_tile(t)[m] = (veci)load(from + m * stride);
}
INLINE void tile_store(int t, real *to, long stride) {
    for (int m = 0; m < 16; m++) store(to + m * stride, (vec)emulated_tile(t)[m]);
}
/* The first of a pair is in the lower half of its 32 bits; a bfloat16 is the upper half of a float. */
static void tile_product(int c, int a, int b) {
    for (int m = 0; m < 16; m++) {
        vec even = {0}, odd = {0};
        for (int k = 0; k < 16; k++) {
            const veci pair = emulated_tile(a)[m][k] - (veci){0}, row = emulated_tile(b)[k];
            even += (vec)(pair << 16) * (vec)(row << 16);
            odd += (vec)(pair & ~0xffff) * (vec)(row & ~0xffff);
        }
        emulated_tile(c)[m] = (veci)((vec)emulated_tile(c)[m] + (even + odd));
    }
}

#else

static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} whole_tiles __attribute__((aligned(64))) = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

/* The configuration belongs to the thread: from the beginning of a piece of work to its end. Between the two, loads are not
 * known to the compiler to read memory: what they read has to be written out before (memory_is_written). */
INLINE void multiply_begin(void) { _tile_loadconfig(&whole_tiles); }
INLINE void multiply_end(void) { _tile_release(); }
#define tile_zero(t) _tile_zero(t)
#define tile_load(t, from, stride) _tile_loadd(t, from, (stride) * 4)
#define tile_store(t, to, stride) _tile_stored(t, to, (stride) * 4)
#define tile_product(c, a, b) _tile_dpbf16ps(c, a, b)

#endif

INLINE void memory_is_written(void) { __asm__ volatile("" ::: "memory"); }

/* ---- float32 to pairs of bfloat16 ---- */

/* x rounded to the nearest bfloat16, ties to even, as a float. A NaN is marked in its upper half: the lower one goes. */
INLINE vec rounded(vec x) {
    const veci bits = (veci)x, quiet = (x != x) & 0x400000;
    return (vec)(((bits + ((x == x) & (0x7fff + ((bits >> 16) & 1)))) | quiet) & ~0xffff);
}
INLINE vec pair_of(vec x, vec y) { return (vec)((((veci)x >> 16) & 0xffff) | (veci)y); }

/* terms[0] holds hi of the pairs (x, y), terms[1] lo. */
INLINE_FAST void split(vec terms[TERMS], vec x, vec y) {
    const real most = 3.3895314e38f; /* the largest bfloat16 */
    x = at_least(at_most(x, most), -most), y = at_least(at_most(y, most), -most);
    const vec hi_x = rounded(x), hi_y = rounded(y);
    terms[0] = pair_of(hi_x, hi_y);
    if (TERMS == 2) terms[TERMS - 1] = pair_of(rounded(x - hi_x), rounded(y - hi_y));
}

/* The vector at k of a row of K elements, 0 beyond them. */
INLINE vec vector_at(const real *row, long k, long K) { return k < K ? load_part(row + k, K - k) : (vec){0}; }

/* ---- Left operands: blocks of up to two tiles of rows, (chunks of 32 k's, 2, TERMS, 16, 16) ---- */

#define OPERANDS_APART 1

INLINE long chunks_of(long K) { return (K + PAIR - 1) / PAIR; }
INLINE long operand_block(long K) { return chunks_of(K) * 2 * TILE_TERMS; }
/* Where the terms of row m of a block start. */
INLINE real *operand_line(real *block, long m, long K) { return (void)K, block + m / 16 * TILE_TERMS + m % 16 * VL; }

INLINE_FAST void put_operand(real *line, vec x, vec y) {
    vec terms[TERMS];
    split(terms, x, y);
    for (int t = 0; t < TERMS; t++) store(line + t * TILE, terms[t]);
}

/* K elements of a row of the user's. */
static void put_row(real *line, const real *row, long K) {
    for (long k = 0; k < K; k += PAIR, line += 2 * TILE_TERMS)
        put_operand(line, vector_at(row, k, K), vector_at(row, k + VL, K));
}

/* Gate gradients of a row, unit block by unit block `count` vectors from the first of `slots` (operands of gate_products). */
static void put_gates(real *line, const real *row, int slots, int first, int count, long H) {
    const long vectors = vectors_in(H) * count;
    long block = 0;
    int slot = 0;
    for (long v = 0; v < vectors; v += 2, line += 2 * TILE_TERMS) {
        vec pair[2];
        UNROLL for (int i = 0; i < 2; i++) {
            pair[i] = v + i < vectors ? load_part(row + (block * slots + first + slot) * VL, H - block * VL) : (vec){0};
            if (++slot == count) slot = 0, block++;
        }
        put_operand(line, pair[0], pair[1]);
    }
}

/* ---- Panels: (chunks of 32 k's, NV, TERMS, 16, 16), two floats in the place of each 32 k's and column per term ---- */

/* Floats of a panel per column. */
INLINE long panel_depth(long K) { return chunks_of(K) * VL * TERMS; }
INLINE long gates_depth(long slots, long H) { return panel_depth(slots * padded(H)); }

/* Vector v of the panel: columns are `lanes` rows of a matrix, from `rows`, `row` elements apart; the rest is 0. */
static void pack_transposed(real *panel, int NV, int v, const real *rows, const real *scales, long row, long lanes,
                            long K) {
    (void)scales;
    real *to = panel + v * TILE_TERMS;
    for (long k = 0; k < K; k += PAIR, to += NV * TILE_TERMS) {
        vec block[TERMS][VL];
        for (int u = 0; u < VL; u++) {
            vec terms[TERMS];
            const long within = u < lanes ? K : 0;
            split(terms, vector_at(rows + u * row, k, within), vector_at(rows + u * row, k + VL, within));
            for (int t = 0; t < TERMS; t++) block[t][u] = terms[t];
        }
        for (int t = 0; t < TERMS; t++) {
            transpose(block[t]);
            for (int i = 0; i < VL; i++) store(to + t * TILE + i * VL, block[t][i]);
        }
    }
}

/* Line i of a chunk's tiles: the pairs of what two rows hold in the panel's columns; a row may be NULL: zeros. */
INLINE void pack_pair(real *chunk, int NV, int i, const real *x, const real *y, long columns) {
    for (int v = 0; v < NV; v++)
        put_operand(chunk + v * TILE_TERMS + i * VL, vector_at(x, v * VL, x ? columns : 0),
                    vector_at(y, v * VL, y ? columns : 0));
}

/* Panels for a product with gate gradients, as `put_gates` lines them up: their chunk `chunk` of gate_groups. */
INLINE long gate_groups(int slots, long H) { return chunks_of(slots * padded(H)); }
static void pack_gate_rows(real *panels, const real *weight, const int *gates, int slots, long H, long width,
                           long chunk) {
    const long vectors = vectors_in(width), depth = gates_depth(slots, H);
    for (int i = 0; i < VL; i++) {
        const real *rows[2];
        for (int e = 0; e < 2; e++) {
            const long v = 2 * chunk + e, unit = v / slots * VL + i;
            rows[e] = unit < H ? weight + (gates[v % slots] * H + unit) * width : 0;
        }
        for (long first = 0; first < vectors; first += PANEL) {
            const int NV = panel_width(vectors, first);
            pack_pair(panels + first * VL * depth + chunk * NV * TILE_TERMS, NV, i, rows[0] ? rows[0] + first * VL : 0,
                      rows[1] ? rows[1] + first * VL : 0, width - first * VL);
        }
    }
}

INLINE int gate_products(product out[2], const real *const *operand, int all_slots, int first_slot, int slots, long H,
                         const real *panel, int NV) {
    (void)all_slots, (void)first_slot, (void)NV;
    out[0] = (product){.rows = operand, .blocks = 1, .depth = slots * padded(H), .panel = panel};
    return 1;
}

/* ---- Products ---- */

/* R x C tiles of c: rows 0 .. 16 R - 1, vectors v .. v + C - 1. Registers 0-3 are sums, 4-5 rows, 6-7 columns. */
INLINE void tile_block(const int R, const int C, int NV, int v, TILE_ARGS) {
    (void)order;
    if (init) {
        tile_load(0, init + v * VL, init_row);
        if (C == 2) tile_load(1, init + (v + 1) * VL, init_row);
        if (R == 2) tile_load(2, init + 16 * init_row + v * VL, init_row);
        if (R == 2 && C == 2) tile_load(3, init + 16 * init_row + (v + 1) * VL, init_row);
    } else {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    }
#define ALL_FOUR                       \
    tile_product(0, 4, 6);             \
    if (C == 2) tile_product(1, 4, 7); \
    if (R == 2) tile_product(2, 5, 6); \
    if (R == 2 && C == 2) tile_product(3, 5, 7);
#define ROWS(term)                       \
    tile_load(4, a + (term) * TILE, VL); \
    if (R == 2) tile_load(5, a + TILE_TERMS + (term) * TILE, VL);
#define COLUMNS(term)                    \
    tile_load(6, b + (term) * TILE, VL); \
    if (C == 2) tile_load(7, b + TILE_TERMS + (term) * TILE, VL);
    for (const product *p = products; p < products + n_products; p++) {
        const real *a = p->rows[0], *b = p->panel + v * TILE_TERMS;
        for (long k = 0; k < p->depth; k += PAIR, a += 2 * TILE_TERMS, b += NV * TILE_TERMS) {
            ROWS(0)
            if (TERMS == 2) {
                COLUMNS(TERMS - 1)
                ALL_FOUR
            }
            COLUMNS(0)
            ALL_FOUR
            if (TERMS == 2) {
                ROWS(TERMS - 1)
                ALL_FOUR
            }
        }
    }
    tile_store(0, c + v * VL, c_row);
    if (C == 2) tile_store(1, c + (v + 1) * VL, c_row);
    if (R == 2) tile_store(2, c + 16 * c_row + v * VL, c_row);
    if (R == 2 && C == 2) tile_store(3, c + 16 * c_row + (v + 1) * VL, c_row);
}

#define BLOCK(R, C)                                                                     \
    NOINLINE void tile_block_##R##_##C(int NV, int v, TILE_ARGS) {                      \
        tile_block(R, C, NV, v, c, c_row, init, init_row, products, n_products, order); \
    }
BLOCK(1, 1);
BLOCK(1, 2);
BLOCK(2, 1);
BLOCK(2, 2);

/* The same as of register tiles, for a block of operand rows (products' rows[0]); c and init have room for 16 or 32. */
static void multiply(int NV, long rows, TILE_ARGS) {
    static void (*const blocks[2][2])(int, int, TILE_ARGS) = {{tile_block_1_1, tile_block_1_2},
                                                              {tile_block_2_1, tile_block_2_2}};
    memory_is_written();
    for (int v = 0; v < NV; v += 2)
        blocks[rows > 16][v + 1 < NV](NV, v, c, c_row, init, init_row, products, n_products, order);
}

/* ---- Gradients of weights: the sum runs over rows, so pairs are of two rows, 16 apart ---- */

/* Two unit blocks and a slot are one operand block, their units its rows. */
static long packed_gates_size(long width, int slots) {
    return (vectors_in(width) + 1) / 2 * slots * operand_block(DEPTH);
}
INLINE long packed_gates_at(long block, int slots, int slot) {
    return (block / 2 * slots + slot) * operand_block(DEPTH) + block % 2 * TILE_TERMS;
}
static long rows_panel_size(void) { return chunks_of(DEPTH) * PANEL * TILE_TERMS; }

static void pack_gate_gradients(real *packed, const real *from, long row, int slots, long block, long depth,
                                vec sums[4]) {
    for (int slot = 0; slot < slots; slot++) {
        const real *gates = from + (block * slots + slot) * VL;
        real *to = packed + packed_gates_at(block, slots, slot);
        sums[slot] = (vec){0};
        for (long k = 0; k < depth; k += PAIR, to += 2 * TILE_TERMS) {
            vec tiles[TERMS][VL];
            for (long i = 0; i < VL; i++) {
                vec terms[TERMS];
                const vec x = k + i < depth ? load(gates + (k + i) * row) : (vec){0};
                const vec y = k + VL + i < depth ? load(gates + (k + VL + i) * row) : (vec){0};
                sums[slot] += x + y;
                split(terms, x, y);
                for (int t = 0; t < TERMS; t++) tiles[t][i] = terms[t];
            }
            for (int t = 0; t < TERMS; t++) {
                transpose(tiles[t]);
                for (int u = 0; u < VL; u++) store(to + t * TILE + u * VL, tiles[t][u]);
            }
        }
    }
}

static void pack_rows(real *panel, int NV, const real *const *rows, long first, long columns, long depth) {
    for (long k = 0; k < depth; k += PAIR)
        for (int i = 0; i < VL; i++) {
            const real *x = k + i < depth ? rows[k + i] + first : 0;
            const real *y = k + VL + i < depth ? rows[k + VL + i] + first : 0;
            pack_pair(panel + k / PAIR * NV * TILE_TERMS, NV, i, x, y, columns);
        }
}

static void add_outer_product(const outer_target *t, const real *packed, int slots, int slot, range blocks,
                              const real *panel, int NV, long depth) {
    real acc[ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    for (long block = blocks.begin, next; block < blocks.end; block = next) {
        /* Whole blocks in pairs, a partial one alone: whether sums start from dweight or are added to it rounds
         * differently, and must not depend on where partitions are cut. */
        next = block % 2 == 0 && block + 2 <= blocks.end && (block + 2) * VL <= t->units ? block + 2 : block + 1;
        const long units = MIN(next * VL, t->units) - block * VL;
        const real *gates = packed + packed_gates_at(block, slots, slot);
        const product p = {.rows = &gates, .blocks = 1, .depth = depth, .panel = panel};
        real *to = t->dweight + block * VL * t->width;
        if (units % 16 == 0 && t->columns >= NV * VL) {
            multiply(NV, units, to, t->width, to, t->width, &p, 1, 1);
            continue;
        }
        multiply(NV, units, acc, NV * VL, 0, 0, &p, 1, 1);
        add_sums(t, block * VL, units, acc, NV);
    }
}

#endif
