/* sigmoid and tanh of a vector, both from one exponential: x = n ln 2 + r, e^x = 2^n (1 + p), p = e^r - 1.
 *
 * Measured over both signs and all exponents against long double, worst of the three builds (tests/test_vecmath.py):
 * sigmoid 2.4 ulp, tanh 2.1 ulp, in both dtypes. With p at hand, e^x - 1 = 2^n p + (2^n - 1) does not cancel, so tanh needs no second
 * branch near 0; from 20 (40 in float64) it is 1 exactly.
 * NaN stays NaN: bounds keep it, and 2^n is multiplied in (added to the exponent bits it could turn NaN into a number).
 * Division is a true division, not a reciprocal estimate with a Newton step: it costs no more and rounds once.
 */
#ifndef FASTRNN_VECMATH_H
#define FASTRNN_VECMATH_H

#include "simd.h"

typedef struct {
    vec p, scale; /* e^x = scale * (1 + p), |p| < 0.42 */
} exponential;

#ifdef FR_DOUBLE

enum { EXP_MOST = 709, EXP_LEAST = -708, TANH_FULL = 40 };

INLINE exponential split_exp(vec x) { /* EXP_LEAST <= x <= EXP_MOST */
    const vec shifted = x * 1.4426950408889634074 + 6755399441055744.0; /* 1.5 * 2^52: rounds, leaves n in the low bits */
    const vec n = shifted - 6755399441055744.0;
    const vec r = x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
    vec p = splat(1.0 / 6227020800.0); /* Taylor: |r| <= ln(2) / 2, the next term is 4e-18 */
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    return (exponential){p * (r * r) + r, (vec)(((veci)shifted + 1023) << 52)};
}

#else

enum { EXP_MOST = 88, EXP_LEAST = -87, TANH_FULL = 20 };

INLINE exponential split_exp(vec x) { /* EXP_LEAST <= x <= EXP_MOST */
    const vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds, and leaves n in the low bits */
    const vec n = shifted - 12582912.0f;
    const vec r = x - n * 0.693359375f - n * -2.12194440e-4f;
    vec p = splat(1.9875691500e-4f); /* Cephes' expf */
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (exponential){p * (r * r) + r, (vec)(((veci)shifted + 127) << 23)};
}

#endif

/* e^x for x <= 0, 0 where it is below the smallest normal number. NaN stays NaN. */
INLINE_FAST vec vexp_of_negative(vec x) {
    const exponential e = split_exp(at_least(x, EXP_LEAST));
    return select_lanes(x < EXP_LEAST, (vec){0}, e.scale * e.p + e.scale);
}

INLINE_FAST vec vsigmoid(vec x) {
    const exponential e = split_exp(at_least(at_most(-x, EXP_MOST), EXP_LEAST));
    return 1 / (1 + (e.scale * e.p + e.scale));
}

INLINE_FAST vec vtanh(vec x) {
    const veci sign_bit = (veci)splat((real)-0.0), sign = (veci)x & sign_bit;
    const exponential e = split_exp(at_most(2 * (vec)((veci)x & ~sign_bit), TANH_FULL));
    const vec expm1 = e.scale * e.p + (e.scale - 1);
    return (vec)((veci)(expm1 / (expm1 + 2)) | sign);
}

INLINE vec vrelu(vec x) { return select_lanes(x < 0, (vec){0}, x); }

#endif
