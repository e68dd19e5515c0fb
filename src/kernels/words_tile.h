/* The core of a step: M inputs against up to GROUP outputs, which AVX2 holds in registers with their updates.
 *
 * M inputs, n outputs of a tile.
 */
#ifndef FASTRNN_WORDS_TILE_H
#define FASTRNN_WORDS_TILE_H

#include "vecmath.h"
#include "words_scratch.h"

enum { GROUP = 6, SLOTS = FR_WORDS_SLOTS };

/* ---- Sums over the lanes of the 8 vectors that a row of scores is made of ---- */

enum { PARTS = VECTOR_BYTES == 16 ? 2 : 1 }; /* vectors of the scores of one input, or of two where they fit in one */

#if VECTOR_BYTES == 16
INLINE void sum_lanes(const vec sums[SLOTS], vec out[PARTS]) {
    UNROLL for (int half = 0; half < 2; half++) {
        vec pair[2];
        UNROLL for (int i = 0; i < 2; i++) {
            const vec a = sums[4 * half + 2 * i], b = sums[4 * half + 2 * i + 1];
            pair[i] = SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
        }
        out[half] = SHUFFLE(pair[0], pair[1], 0, 1, 4, 5) + SHUFFLE(pair[0], pair[1], 2, 3, 6, 7);
    }
}
#else
typedef float octet __attribute__((vector_size(32), may_alias));
#if VECTOR_BYTES == 64
INLINE octet fold(vec v) {
    return (octet)_mm512_castps512_ps256((__m512)v) + (octet)_mm512_extractf32x8_ps((__m512)v, 1);
}
#else
INLINE octet fold(vec v) { return (octet)v; }
#endif
typedef int32_t octet_index __attribute__((vector_size(32)));
#ifdef __clang__
#define SHUFFLE_8(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE_8(a, b, ...) __builtin_shuffle(a, b, (octet_index){__VA_ARGS__})
#endif
INLINE octet sum_octets(const vec sums[SLOTS]) {
    octet pair[4], quad[2];
    UNROLL for (int i = 0; i < 4; i++) {
        const octet a = fold(sums[2 * i]), b = fold(sums[2 * i + 1]);
        pair[i] = SHUFFLE_8(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE_8(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (int i = 0; i < 2; i++) {
        const octet a = pair[2 * i], b = pair[2 * i + 1];
        quad[i] = SHUFFLE_8(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE_8(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    return SHUFFLE_8(quad[0], quad[1], 0, 1, 2, 3, 8, 9, 10, 11) +
           SHUFFLE_8(quad[0], quad[1], 4, 5, 6, 7, 12, 13, 14, 15);
}
#endif

/* The scores of R inputs, 1 or 2, side by side in `out`, which has 2 * PARTS vectors. Returns how many it fills. */
INLINE int sum_rows(vec sums[2][SLOTS], int R, vec *out) {
#if VECTOR_BYTES == 16
    UNROLL for (int r = 0; r < R; r++) sum_lanes(sums[r], out + r * PARTS);
    return R * PARTS;
#elif VECTOR_BYTES == 32
    UNROLL for (int r = 0; r < R; r++) out[r] = (vec)sum_octets(sums[r]);
    return R;
#else
    const __m512 first = _mm512_castps256_ps512((__m256)sum_octets(sums[0]));
    out[0] = R == 1 ? (vec)first : (vec)_mm512_insertf32x8(first, (__m256)sum_octets(sums[1]), 1);
    return 1;
#endif
}

/* ---- Tiles: M inputs by n <= GROUP outputs; n, R and `place` are constants where these are inlined ---- */

enum { IN_PLACE, SET, ADD }; /* where the inputs' updates go: into the inputs, to rows of their own, or onto these */

typedef struct {
    float **x, **dx; /* (M) rows, and where their updates go */
    int M;
    long stride;
    const float *repeats; /* (M, SLOTS) how often an input counts; NULL where once */
    float *scores;        /* (M + 1, SLOTS) */
    float rate, margin;
    int compute_loss;
} tile_inputs;

static double loss_of(const float *scores, int R, int n, const float *labels, const float *times,
                      const float *repeats) {
    double loss = 0;
    for (int r = 0; r < R; r++)
        for (int k = 0; k < n; k++) {
            const double f = scores[r * SLOTS + k], against = labels[k] ? -f : f;
            const double one = (against > 0 ? against : 0) + __builtin_log1p(__builtin_exp(-__builtin_fabs(f)));
            loss += one * times[k] * (repeats ? repeats[r * SLOTS] : 1);
        }
    return loss;
}

/* The scores f = x_m . u_k - margin of R inputs, and from them G = rate * times * (label - s(f)). They go from registers to registers:
 * to read back what narrower stores have just written would stall. */
INLINE double errors_of_rows(const tile_inputs *t, int m, int R, float *const *u, int n, const float *labels,
                             const float *times) {
    vec sums[2][SLOTS] = {{{0}}}, scores[2 * PARTS];
    const float *x[2], *y[GROUP];
    UNROLL for (int r = 0; r < R; r++) x[r] = t->x[m + r];
    UNROLL for (int k = 0; k < n; k++) y[k] = u[k];
    for (long i = 0, stride = t->stride; i < stride; i += VL) {
        vec rows[2];
        UNROLL for (int r = 0; r < R; r++) rows[r] = load(x[r] + i);
        UNROLL for (int k = 0; k < n; k++) {
            const vec out = load(y[k] + i);
            UNROLL for (int r = 0; r < R; r++) sums[r][k] += rows[r] * out;
        }
    }
    const int parts = sum_rows(sums, R, scores);
    UNROLL for (int i = 0; i < parts; i++) scores[i] -= t->margin;
    float *out = t->scores + m * SLOTS;
    double loss = 0;
    if (t->compute_loss) {
        UNROLL for (int i = 0; i < parts; i++) store(out + i * VL, scores[i]);
        loss = loss_of(out, R, n, labels, times, t->repeats ? t->repeats + m * SLOTS : 0);
    }
    UNROLL for (int i = 0; i < parts; i++) {
        const int at = i * VL % SLOTS;
        const vec g = (load(labels + at) - vsigmoid(scores[i])) * (load(times + at) * t->rate);
        store(out + i * VL, t->repeats ? g * load(t->repeats + m * SLOTS + i * VL) : g);
    }
    return loss;
}

/* u_k += sum over m of G_mk x_m, and for x_m the sum over k of G_mk u_k; all x and u on the right are old. */
INLINE void update_rows(const tile_inputs *t, float *const *u, int n, int place) {
    for (long i = 0; i < t->stride; i += VL) {
        vec old[GROUP], new[GROUP];
        UNROLL for (int k = 0; k < n; k++) old[k] = new[k] = load(u[k] + i);
        for (int m = 0; m < t->M; m++) {
            const vec row = load(t->x[m] + i);
            vec sum = place == IN_PLACE ? row : place == SET ? (vec){0} : load(t->dx[m] + i);
            UNROLL for (int k = 0; k < n; k++) {
                const vec g = splat(t->scores[m * SLOTS + k]);
                sum += g * old[k];
                new[k] += g *row;
            }
            store((place == IN_PLACE ? t->x[m] : t->dx[m]) + i, sum);
        }
        UNROLL for (int k = 0; k < n; k++) store(u[k] + i, new[k]);
    }
}

/* The same for one input: all of G stays in registers. */
INLINE void update_one(const tile_inputs *t, float *const *outputs, int n, int place) {
    const float *const x = t->x[0];
    float *const dx = place == IN_PLACE ? t->x[0] : t->dx[0], *u[GROUP];
    const long stride = t->stride;
    vec g[GROUP];
    UNROLL for (int k = 0; k < n; k++) {
        g[k] = splat(t->scores[k]);
        u[k] = outputs[k];
    }
    for (long i = 0; i < stride; i += VL) {
        const vec row = load(x + i);
        vec sums[2] = {place == IN_PLACE ? row : place == SET ? (vec){0} : load(dx + i), {0}};
        UNROLL for (int k = 0; k < n; k++) {
            const vec old = load(u[k] + i);
            sums[k % 2] += g[k] * old;
            store(u[k] + i, old + g[k] * row);
        }
        store(dx + i, sums[0] + sums[1]);
    }
}

/* BODY(n) with a number of outputs that is a constant there, and returns. */
#define FOR_OUTPUTS(n, BODY) \
    switch (n) {             \
    case 1:                  \
        BODY(1);             \
    case 2:                  \
        BODY(2);             \
    case 3:                  \
        BODY(3);             \
    case 4:                  \
        BODY(4);             \
    case 5:                  \
        BODY(5);             \
    default:                 \
        BODY(GROUP);         \
    }

INLINE double errors_of_all(const tile_inputs *t, float *const *u, int n, const float *labels, const float *times) {
    double loss = 0;
    int m = 0;
    for (; m + 2 <= t->M; m += 2) loss += errors_of_rows(t, m, 2, u, n, labels, times);
    if (m < t->M) loss += errors_of_rows(t, m, 1, u, n, labels, times);
    return loss;
}

/* G, into t->scores. labels, times: (2, SLOTS), the same twice, since a vector may hold the scores of two inputs; 0 past n. */
NOINLINE double tile_errors(const tile_inputs *t, float *const *u, int n, const float *labels, const float *times){
#define ERRORS(n) return errors_of_all(t, u, n, labels, times)
    FOR_OUTPUTS(n, ERRORS)
#undef ERRORS
}

INLINE void update_all(const tile_inputs *t, float *const *u, int n, int place) {
    if (t->M == 1)
        update_one(t, u, n, place);
    else
        update_rows(t, u, n, place);
}

INLINE void update_in(const tile_inputs *t, float *const *u, int n, int place) {
    if (place == IN_PLACE)
        update_all(t, u, n, IN_PLACE);
    else if (place == SET)
        update_all(t, u, n, SET);
    else
        update_all(t, u, n, ADD);
}

/* What follows from G. */
NOINLINE void tile_update(const tile_inputs *t, float *const *u, int n, int place) {
#define UPDATE(n) return update_in(t, u, n, place)
    FOR_OUTPUTS(n, UPDATE)
#undef UPDATE
}

#undef FOR_OUTPUTS

#endif
