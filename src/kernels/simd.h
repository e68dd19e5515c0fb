/* One vector of reals, whatever the build: GCC vector extensions, with intrinsics only for what these cannot say. */
#ifndef FASTRNN_SIMD_H
#define FASTRNN_SIMD_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#ifdef FR_DOUBLE
typedef double real;
typedef int64_t lane_int;
#else
typedef float real;
typedef int32_t lane_int;
#endif

#if defined(__AVX512F__) || defined(FR_AMX_TERMS) /* a row of a tile, where tiles are emulated too */
#define VECTOR_BYTES 64
#define VECTOR_REGISTERS 32
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define VECTOR_REGISTERS 16
#else
#define VECTOR_BYTES 16
#ifdef __aarch64__
#define VECTOR_REGISTERS 32
#else
#define VECTOR_REGISTERS 16
#endif
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef lane_int veci __attribute__((vector_size(VECTOR_BYTES)));
typedef real vec_anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

enum { VL = VECTOR_BYTES / sizeof(real) };

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#ifdef FR_EMULATED /* vectors are many instructions there: small rather than fast */
#define INLINE_FAST NOINLINE
#else
#define INLINE_FAST INLINE
#endif
#define UNROLL _Pragma("GCC unroll 16")

INLINE vec load(const real *p) { return *(const vec_anywhere *)p; }
INLINE void store(real *p, vec v) { *(vec_anywhere *)p = v; }
INLINE vec splat(real a) { return a - (vec){0}; }
INLINE vec select_lanes(veci mask, vec yes, vec no) { return (vec)((mask & (veci)yes) | (~mask & (veci)no)); }

/* x bounded by a limit; a NaN in x stays NaN (x86 min and max return their second operand then). */
#if defined(__AVX512F__) && !defined(FR_DOUBLE)
INLINE vec at_most(vec x, real limit) { return (vec)_mm512_min_ps((__m512)splat(limit), (__m512)x); }
INLINE vec at_least(vec x, real limit) { return (vec)_mm512_max_ps((__m512)splat(limit), (__m512)x); }
#elif defined(__AVX512F__)
INLINE vec at_most(vec x, real limit) { return (vec)_mm512_min_pd((__m512d)splat(limit), (__m512d)x); }
INLINE vec at_least(vec x, real limit) { return (vec)_mm512_max_pd((__m512d)splat(limit), (__m512d)x); }
#elif VECTOR_BYTES == 32 && !defined(FR_DOUBLE)
INLINE vec at_most(vec x, real limit) { return (vec)_mm256_min_ps((__m256)splat(limit), (__m256)x); }
INLINE vec at_least(vec x, real limit) { return (vec)_mm256_max_ps((__m256)splat(limit), (__m256)x); }
#elif VECTOR_BYTES == 32
INLINE vec at_most(vec x, real limit) { return (vec)_mm256_min_pd((__m256d)splat(limit), (__m256d)x); }
INLINE vec at_least(vec x, real limit) { return (vec)_mm256_max_pd((__m256d)splat(limit), (__m256d)x); }
#elif VECTOR_BYTES == 16 && defined(__SSE2__) && !defined(FR_DOUBLE)
INLINE vec at_most(vec x, real limit) { return (vec)_mm_min_ps((__m128)splat(limit), (__m128)x); }
INLINE vec at_least(vec x, real limit) { return (vec)_mm_max_ps((__m128)splat(limit), (__m128)x); }
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
INLINE vec at_most(vec x, real limit) { return (vec)_mm_min_pd((__m128d)splat(limit), (__m128d)x); }
INLINE vec at_least(vec x, real limit) { return (vec)_mm_max_pd((__m128d)splat(limit), (__m128d)x); }
#else
INLINE vec at_most(vec x, real limit) { return select_lanes(x > limit, splat(limit), x); }
INLINE vec at_least(vec x, real limit) { return select_lanes(x < limit, splat(limit), x); }
#endif

/* The square root of each lane, correctly rounded. */
#if defined(__AVX512F__) && !defined(FR_DOUBLE)
INLINE vec vsqrt(vec x) { return (vec)_mm512_sqrt_ps((__m512)x); }
#elif defined(__AVX512F__)
INLINE vec vsqrt(vec x) { return (vec)_mm512_sqrt_pd((__m512d)x); }
#elif VECTOR_BYTES == 32 && !defined(FR_DOUBLE)
INLINE vec vsqrt(vec x) { return (vec)_mm256_sqrt_ps((__m256)x); }
#elif VECTOR_BYTES == 32
INLINE vec vsqrt(vec x) { return (vec)_mm256_sqrt_pd((__m256d)x); }
#elif VECTOR_BYTES == 16 && defined(__SSE2__) && !defined(FR_DOUBLE)
INLINE vec vsqrt(vec x) { return (vec)_mm_sqrt_ps((__m128)x); }
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
INLINE vec vsqrt(vec x) { return (vec)_mm_sqrt_pd((__m128d)x); }
#else
INLINE vec vsqrt(vec x) {
    UNROLL for (int i = 0; i < VL; i++) x[i] = sizeof(real) == 4 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
    return x;
}
#endif

/* The first `lanes` of a vector; what is not loaded is 0, what is not stored stays as it was. */
#if defined(__AVX512F__) && !defined(FR_DOUBLE)
INLINE vec load_part(const real *p, long lanes) {
    return lanes >= VL ? load(p) : (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << lanes) - 1), p);
}
INLINE void store_part(real *p, vec v, long lanes) {
    if (lanes >= VL)
        store(p, v);
    else
        _mm512_mask_storeu_ps(p, (__mmask16)((1u << lanes) - 1), (__m512)v);
}
#elif defined(__AVX512F__)
INLINE vec load_part(const real *p, long lanes) {
    return lanes >= VL ? load(p) : (vec)_mm512_maskz_loadu_pd((__mmask8)((1u << lanes) - 1), p);
}
INLINE void store_part(real *p, vec v, long lanes) {
    if (lanes >= VL)
        store(p, v);
    else
        _mm512_mask_storeu_pd(p, (__mmask8)((1u << lanes) - 1), (__m512d)v);
}
#elif VECTOR_BYTES == 64
NOINLINE vec load_part(const real *p, long lanes) {
    vec v = {0};
    memcpy(&v, p, (lanes < VL ? lanes : VL) * sizeof(real));
    return v;
}
NOINLINE void store_part(real *p, vec v, long lanes) { memcpy(p, &v, (lanes < VL ? lanes : VL) * sizeof(real)); }
#else
INLINE vec load_part(const real *p, long lanes) {
    if (lanes >= VL) return load(p);
    vec v = {0};
    for (int i = 0; i < VL - 1; i++)
        if (i < lanes) v[i] = p[i];
    return v;
}
INLINE void store_part(real *p, vec v, long lanes) {
    if (lanes >= VL)
        store(p, v);
    else
        for (int i = 0; i < VL - 1; i++)
            if (i < lanes) p[i] = v[i];
}
#endif

/* Transpose a VL x VL block in place: log2(VL) rounds of interleaving rows i and i + VL/2. */
#if VECTOR_BYTES / 8 == 2 && defined(FR_DOUBLE)
#define LOW_HALVES 0, 2
#define HIGH_HALVES 1, 3
#elif (VECTOR_BYTES == 16) || (VECTOR_BYTES == 32 && defined(FR_DOUBLE))
#define LOW_HALVES 0, 4, 1, 5
#define HIGH_HALVES 2, 6, 3, 7
#elif VECTOR_BYTES == 32 || defined(FR_DOUBLE)
#define LOW_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef SHUFFLE /* GCC before 12 */
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (veci){__VA_ARGS__})
#endif
INLINE_FAST void transpose(vec block[VL]) {
    UNROLL for (int round = 1; round < VL; round *= 2) {
        vec next[VL];
        UNROLL for (int i = 0; i < VL / 2; i++) {
            next[2 * i] = SHUFFLE(block[i], block[i + VL / 2], LOW_HALVES);
            next[2 * i + 1] = SHUFFLE(block[i], block[i + VL / 2], HIGH_HALVES);
        }
        UNROLL for (int i = 0; i < VL; i++) block[i] = next[i];
    }
}

#endif
