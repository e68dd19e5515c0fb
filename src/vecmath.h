/* exp, sigmoid and tanh of a vector.
 *
 * Largest errors over the whole range are checked by tests/test_vecmath.py through the RNN cell: at most 4 ulp.
 * NaN stays NaN: bounds keep it, and 2^n is multiplied in (added to the exponent bits it could turn NaN into a number).
 * Division is a true division: a reciprocal estimate with one Newton step saves nothing that can be measured here.
 */
#ifndef FASTRNN_VECMATH_H
#define FASTRNN_VECMATH_H

#include "simd.h"

#ifdef FR_DOUBLE

INLINE vec vexp(vec x) {
    x = at_least(at_most(x, 709.0), -708.0);
    vec shifted = x * 1.4426950408889634074 + 6755399441055744.0; /* 1.5 * 2^52: rounds, and leaves n in the low bits */
    vec n = shifted - 6755399441055744.0;
    vec r = x - n * 6.93145751953125e-1;
    r = r - n * 1.42860682030941723212e-6;
    vec p = splat(1.0 / 6227020800.0); /* Taylor: |r| <= ln(2)/2, the next term is 4e-18 */
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
    p = p * (r * r) + r + 1.0;
    return p * (vec)(((veci)shifted + 1023) << 52);
}

INLINE vec vtanh(vec x) {
    veci sign = (veci)x & (veci)splat(-0.0);
    vec magnitude = (vec)((veci)x & ~(veci)splat(-0.0));
    /* Cephes' rational near 0, where 1 - 2 / (exp(2x) + 1) would cancel. */
    vec z = x * x;
    vec p = (z * -9.64399179425052238628e-1 - 9.92877231001918586564e1) * z - 1.61468768441708447952e3;
    vec q = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z + 4.84406305325125486048e3;
    vec near = x + x * z * (p / q);
    vec far = 1.0 - 2.0 / (vexp(magnitude + magnitude) + 1.0);
    return select_lanes(magnitude < 0.625, near, (vec)((veci)far | sign));
}

#else

INLINE vec vexp(vec x) {
    x = at_least(at_most(x, 88.0f), -87.0f);
    vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds, and leaves n in the low bits */
    vec n = shifted - 12582912.0f;
    vec r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vec p = splat(1.9875691500e-4f); /* Cephes' expf */
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * (vec)(((veci)shifted + 127) << 23);
}

INLINE vec vtanh(vec x) {
    x = at_least(at_most(x, 7.90531110763549805f), -7.90531110763549805f); /* tanh rounds to 1 from there */
    vec z = x * x; /* odd over even minimax, degrees 13 and 6, as in Eigen */
    vec p = splat(-2.76076847742355e-16f);
    p = p * z + 2.00018790482477e-13f;
    p = p * z - 8.60467152213735e-11f;
    p = p * z + 5.12229709037114e-08f;
    p = p * z + 1.48572235717979e-05f;
    p = p * z + 6.37261928875436e-04f;
    p = p * z + 4.89352455891786e-03f;
    vec q = splat(1.19825839466702e-06f);
    q = q * z + 1.18534705686654e-04f;
    q = q * z + 2.26843463243900e-03f;
    q = q * z + 4.89352518554385e-03f;
    return x * p / q;
}

#endif

INLINE vec vsigmoid(vec x) { return 1 / (1 + vexp(-x)); }
INLINE vec vrelu(vec x) { return select_lanes(x < 0, (vec){0}, x); }

#endif
