/* The tile of int8 weights: products of 16-bit integers, for inference with a quarter of the bytes. Included by tile.h, which
 * says what each function is for.
 *
 *     c[m][v] = init[m][v] + sum over products: a_scale[m] * b_scale[v] * (sum over k of a[m][k] * b[k][v])
 *
 * # Design:
 * a) A step of few rows waits for its weights, so these are int8, with a scale for each row of the weights, a column here. What
 *    they meet is made int16 on the spot, with a scale for each row: the error of that is a hundredth of the weights' own,
 *    and it costs nothing where 8 bits would be read as fast as they come. 16-bit products are summed in pairs by one
 *    instruction (two without VNNI), which is also faster than widening weights to float32 and multiplying there: benches/
 *    DECISIONS.md, "int8 weights".
 * b) Sums are exact: they have the same bits in any order, so with any number of rows and chains, and whether inputs are
 *    projected ahead or not. Pairs of 512 terms fit 32 bits; from there on sums go on in float32, in the order of k.
 * c) A row with an infinity or a NaN has the scale NaN, and so is NaN in all that comes of it.
 */
#ifndef FASTRNN_TILE_INT8_H
#define FASTRNN_TILE_INT8_H

/* PROJECTS_AHEAD: the most inputs of a layer that does, as a block of rows is then put on the stack. */
enum { ROW_BLOCK = VECTOR_REGISTERS == 32 ? 6 : 3, ROW_BLOCK_ALONE = ROW_BLOCK, PROJECTS_AHEAD = 4096 };

/* Pairs of terms whose products' sum fits 32 bits: 512 * 32767 * 128 < 2^31. */
enum { MOST_PAIRS = 256 };

typedef int16_t shorts __attribute__((vector_size(VECTOR_BYTES)));
typedef int16_t half_shorts __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef int16_t half_shorts_anywhere __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));
typedef int8_t half_bytes_anywhere __attribute__((vector_size(VECTOR_BYTES / 2), aligned(1), may_alias));
typedef int32_t pair_anywhere __attribute__((may_alias));

INLINE void multiply_begin(void) {}
INLINE void multiply_end(void) {}

/* ---- Left operands: a block is ROW_BLOCK lines of a scale, and from VL on pairs of int16 ---- */

#define OPERANDS_APART 1

INLINE long pairs_of(long K) { return (K + 3) / 4 * 2; } /* an even number: chains run two by two */
INLINE long operand_row(long K) { return VL + padded(K) / 2; }
INLINE long operand_block(long K) { return ROW_BLOCK * operand_row(K); }
INLINE real *operand_line(real *block, long m, long K) { return block + m * operand_row(K); }

INLINE veci larger_of(veci a, veci b) { return ((a > b) & a) | (~(a > b) & b); }

/* The largest magnitude of a row, infinite or NaN where any is; the bits of magnitudes are in their order. */
static real largest_of(const real *row, long K) {
    veci most = {0};
    for (long k = 0; k < K; k += VL) {
        const veci bits = (veci)load_part(row + k, K - k) & 0x7fffffff;
        most = larger_of(bits, most);
    }
    int32_t lanes[VL], all = 0;
    real largest;
    memcpy(lanes, &most, sizeof lanes);
    for (int lane = 0; lane < VL; lane++) all = lanes[lane] > all ? lanes[lane] : all;
    memcpy(&largest, &all, sizeof largest);
    return largest;
}

/* To the nearest whole numbers, even ones of two. */
INLINE veci rounded(vec x) {
#if VECTOR_BYTES == 64
    return (veci)_mm512_cvtps_epi32((__m512)x);
#elif VECTOR_BYTES == 32
    return (veci)_mm256_cvtps_epi32((__m256)x);
#elif defined(__SSE2__)
    return (veci)_mm_cvtps_epi32((__m128)x);
#else
    return (veci)(x + 12582912.0f) - 0x4b400000; /* 1.5 * 2^23: a sum with it ends at the unit */
#endif
}

/* The lower halves of the lanes. */
INLINE void store_shorts(int16_t *to, veci numbers) {
#if VECTOR_BYTES == 64
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16((__m512i)numbers));
#else
    *(half_shorts_anywhere *)to = __builtin_convertvector(numbers, half_shorts);
#endif
}

static void put_row(real *line, const real *row, long K) {
    const real least = 1e-30f, most = 32767;
    real largest = largest_of(row, K);
    const int finite = largest - largest == 0;
    if (largest < least) largest = least;
    line[0] = finite ? largest / most : __builtin_nanf("");
    const vec scale = splat(finite ? most / largest : 0);
    for (long k = 0; k < K; k += VL)
        store_shorts((int16_t *)(line + VL) + k, rounded(load_part(row + k, K - k) * scale) & -finite);
}

/* ---- Panels: (NV, VL) scales, then (pairs, NV, VL, 2) int8 ---- */

/* Floats of a panel per column. */
INLINE long panel_depth(long K) { return K ? 1 + pairs_of(K) / 2 : 0; }

/* Vector v of the panel: columns are `lanes` rows of a matrix with their scales; the rest is 0. */
static void pack_transposed(real *panel, int NV, int v, const raw_weight *rows, const real *scales, long row,
                            long lanes, long K) {
    int8_t *to = (int8_t *)(panel + NV * VL) + v * VL * 2;
    store(panel + v * VL, load_part(scales, lanes));
    for (long k = 0; k < 2 * pairs_of(K); k += 2, to += NV * VL * 2)
        for (int u = 0; u < VL; u++)
            for (int i = 0; i < 2; i++) to[2 * u + i] = u < lanes && k + i < K ? rows[u * row + k + i] : 0;
}

/* ---- The tile ---- */

/* Pairs of int8 as pairs of int16. GCC makes two halves of a whole vector's conversion. */
INLINE shorts widened(const int8_t *from) {
#if VECTOR_BYTES == 64
    return (shorts)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)from));
#elif VECTOR_BYTES == 32
    return (shorts)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from));
#else
    return __builtin_convertvector(*(const half_bytes_anywhere *)from, shorts);
#endif
}

/* sums + the products of a pair of numbers, the same in all lanes, with the pairs of b's lanes. */
INLINE veci add_pairs(veci sums, veci pair, shorts b) {
#if defined(__AVX512VNNI__)
    return (veci)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)pair, (__m512i)b);
#elif VECTOR_BYTES == 64 && defined(__AVX512BW__)
    return sums + (veci)_mm512_madd_epi16((__m512i)pair, (__m512i)b);
#elif VECTOR_BYTES == 32 && defined(__AVX2__)
    return sums + (veci)_mm256_madd_epi16((__m256i)pair, (__m256i)b);
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
    return sums + (veci)_mm_madd_epi16((__m128i)pair, (__m128i)b);
#else /* little-endian: the first of a pair is in the lower half */
    return sums + ((veci)b << 16 >> 16) * (pair << 16 >> 16) + ((veci)b >> 16) * (pair >> 16);
#endif
}

INLINE vec float_of(veci numbers) { return __builtin_convertvector(numbers, vec); }

/* a * b + c with one rounding where there is such an instruction: left to the compiler, tiles would differ in the last bit. */
INLINE vec fused(vec a, vec b, vec c) {
#if VECTOR_BYTES == 64
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VECTOR_BYTES == 32
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* Sums over pairs begin .. end - 1, an even number of them: few sums leave the multipliers waiting for each other, so those
 * take every second pair apart. */
INLINE void sum_pairs(const int MR, const int NV, veci sums[ROW_BLOCK][4], const real *const *a, const int8_t *b,
                      long begin, long end) {
    const int chains = MR * NV * 2 <= VECTOR_REGISTERS / 2 ? 2 : 1;
    veci more[ROW_BLOCK][4];
    UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) sums[m][v] = more[m][v] = (veci){0};
    for (long k = begin; k < end; k += 2) UNROLL for (int i = 0; i < 2; i++) {
            veci pair[ROW_BLOCK];
            UNROLL for (int m = 0; m < MR; m++) pair[m] = ((const pair_anywhere *)a[m])[k + i] - (veci){0};
            UNROLL for (int v = 0; v < NV; v++) {
                const shorts wide = widened(b + ((k + i) * NV + v) * VL * 2);
                UNROLL for (int m = 0; m < MR; m++) {
                    veci *sum = chains == 2 && i ? &more[m][v] : &sums[m][v];
                    *sum = add_pairs(*sum, pair[m], wide);
                }
            }
        }
    if (chains == 2) UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) sums[m][v] += more[m][v];
}

INLINE void tile(const int MR, const int NV, TILE_ARGS) {
    (void)order;
    for (int m = 0; !n_products && m < MR; m++)
        for (int v = 0; v < NV; v++)
            store(c + m * c_row + v * VL, init ? load(init + m * init_row + v * VL) : (vec){0});
    for (const product *p = products; p < products + n_products; p++) {
        const long pairs = pairs_of(p->depth);
        const real *lines[ROW_BLOCK], *scales[ROW_BLOCK];
        UNROLL for (int m = 0; m < MR; m++) {
            scales[m] = p->rows[0] + m * operand_row(p->depth);
            lines[m] = scales[m] + VL;
        }
        for (long k = 0; k < pairs; k += MOST_PAIRS, init = c, init_row = c_row) {
            veci sums[ROW_BLOCK][4];
            sum_pairs(MR, NV, sums, lines, (const int8_t *)(p->panel + NV * VL), k, MIN(k + MOST_PAIRS, pairs));
            UNROLL for (int m = 0; m < MR; m++) UNROLL for (int v = 0; v < NV; v++) {
                const vec before = init ? load(init + m * init_row + v * VL) : (vec){0};
                store(c + m * c_row + v * VL,
                      fused(float_of(sums[m][v]), *scales[m] * load(p->panel + v * VL), before));
            }
        }
    }
}

#define TILE(MR, NV) \
    NOINLINE void tile_##MR##_##NV(TILE_ARGS) { tile(MR, NV, c, c_row, init, init_row, products, n_products, order); }
#define TILES(MR) TILE(MR, 1) TILE(MR, 2) TILE(MR, 3) TILE(MR, 4)
typedef void tile_function(TILE_ARGS);
TILES(1)
TILES(2)
TILES(3)
#if VECTOR_REGISTERS == 32
TILES(4)
TILES(5)
TILES(6)
#endif
static tile_function *const tiles[ROW_BLOCK + 1][5] = {
    {0},
    {0, tile_1_1, tile_1_2, tile_1_3, tile_1_4},
    {0, tile_2_1, tile_2_2, tile_2_3, tile_2_4},
    {0, tile_3_1, tile_3_2, tile_3_3, tile_3_4},
#if VECTOR_REGISTERS == 32
    {0, tile_4_1, tile_4_2, tile_4_3, tile_4_4},
    {0, tile_5_1, tile_5_2, tile_5_3, tile_5_4},
    {0, tile_6_1, tile_6_2, tile_6_3, tile_6_4},
#endif
};

/* Of a block of operand rows, products' rows[0]. */
INLINE void multiply(int NV, long rows, TILE_ARGS) {
    if (rows) tiles[rows][NV](c, c_row, init, init_row, products, n_products, order);
}

#endif
