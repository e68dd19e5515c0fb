/* sigmoid and tanh of a vector, both from one exponential: x = n ln 2 + r, e^x = 2^n (1 + p), p = e^r - 1.
 *
 * Measured over both signs and all exponents against long double, worst of the three builds (tests/test_vecmath.py):
 * sigmoid 2.4 ulp, tanh 2.8 ulp, in both dtypes. With p at hand, e^x - 1 = 2^n p + (2^n - 1) does not cancel, so tanh needs
 * no second branch near 0; from 10 (20 in float64) on it is 1 exactly.
 * The polynomial is evaluated in pairs and 2^n +- 1 beside it, for a short chain from x to the result.
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
    const vec shifted =
        x * 1.4426950408889634074 + 6755399441055744.0; /* 1.5 * 2^52: rounds, leaves n in the low bits */
    const vec n = shifted - 6755399441055744.0;
    const vec r = x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
    const vec r2 = r * r, r4 = r2 * r2; /* as below, relative error 0.4 * 2^-53 */
    const vec a = r * 0.16666666666666667 + 0.5, b = r * 8.3333333333300513e-3 + 4.1666666666623992e-2;
    const vec c = r * 1.9841269863105969e-4 + 1.3888888917281793e-3,
              d = r * 2.7557268378684193e-6 + 2.4801521190217728e-5;
    const vec e = r * 2.5100424157005067e-8 + 2.7620138719733996e-7;
    const vec q = (e * r4 + (d * r2 + c)) * r4 + (b * r2 + a);
    return (exponential){q * r2 + r, (vec)(((veci)shifted + 1023) << 52)};
}

#else

enum { EXP_MOST = 88, EXP_LEAST = -87, TANH_FULL = 20 };

INLINE exponential split_exp(vec x) {                  /* EXP_LEAST <= x <= EXP_MOST */
    const vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds, and leaves n in the low bits */
    const vec n = shifted - 12582912.0f;
    const vec r = x - n * 0.693359375f - n * -2.12194440e-4f;
    const vec r2 = r * r; /* e^r - 1 = r + r^2 q(r), q fitted for the least relative error, 0.2 * 2^-24 */
    const vec low = r * 1.6666543178e-1f + 4.9999998144e-1f, high = r * 8.3665803352e-3f + 4.1667201780e-2f;
    const vec q = (r2 * 1.3882510110e-3f + high) * r2 + low;
    return (exponential){q * r2 + r, (vec)(((veci)shifted + 127) << 23)};
}

#endif

/* e^x for x <= 0, 0 where it is below the smallest normal number. NaN stays NaN. */
INLINE_FAST vec vexp_of_negative(vec x) {
    const exponential e = split_exp(at_least(x, EXP_LEAST));
    return select_lanes(x < EXP_LEAST, (vec){0}, e.scale * e.p + e.scale);
}

/* sigmoid = 1 / sigmoid_below and tanh = num / den: a caller that divides by other things too divides once by the product.
 * All three are finite. */
typedef struct {
    vec num, den;
} fraction;

INLINE_FAST vec sigmoid_below(vec x) {
    const exponential e = split_exp(at_least(at_most(-x, EXP_MOST), EXP_LEAST));
    return e.scale * e.p + (e.scale + 1);
}

INLINE_FAST fraction tanh_fraction(vec x) {
    const exponential e = split_exp(at_least(at_most(x + x, TANH_FULL), -TANH_FULL));
    return (fraction){e.scale * e.p + (e.scale - 1), e.scale * e.p + (e.scale + 1)};
}

INLINE_FAST vec vsigmoid(vec x) { return 1 / sigmoid_below(x); }

INLINE_FAST vec vtanh(vec x) {
    const fraction t = tanh_fraction(x);
    return t.num / t.den;
}

INLINE vec vrelu(vec x) { return select_lanes(x < 0, (vec){0}, x); }

#endif
