/* Recurrent dropout and zoneout, backward: see noise.h. */
#ifndef FASTRNN_NOISE_BACKWARD_H
#define FASTRNN_NOISE_BACKWARD_H

#include "noise.h"

/* ---- Backward: before and after the epilogue of a product with sums in acc ---- */

/* Sums that are gradients of `dropped`. */
static void mask_sums(const fr_sequence *q, unit_rows u, real *acc) {
    for (long n = u.row; n < u.row + u.rows; n++) {
        const real *mask = recurrent_mask_of(q, n);
        for (long unit = u.first * VL; unit < (u.first + u.blocks) * VL; unit += VL, acc += VL)
            store(acc, load(acc) * load_part(mask + unit, q->P - unit));
    }
}

/* All of dh is in acc then, and a part of it goes past the cell. s = -1: the initial state, which has no cell. */
static void split_dh(const fr_sequence *q, long s, const cell_step *outside, unit_rows u, real *acc) {
    const int in_dstate = cell_of(q)->dstate_is_dh;
    for (long n = u.row; n < u.row + u.rows; n++)
        for (int b = 0; b < u.blocks; b++, acc += VL) {
            const long unit = (u.first + b) * VL;
            real *past = (real *)q->scratch.dkept + n * padded(q->P) + unit;
            vec dh = load(acc) + load(past);
            if (s >= 0) {
                const vec part = load_part((const real *)row_of(q, q->args.zoneout_h, s, n) + unit, q->P - unit);
                real *dstate = (real *)q->scratch.dstate + n * padded(q->H) + unit;
                dh += dh_from_outside(outside, n, u.first + b);
                if (in_dstate) dh += load(dstate), store(dstate, (vec){0});
                store(past, part * dh);
                dh *= 1 - part;
            }
            store(acc, dh);
        }
}

/* dstate = (1 - k) * dstate, and k * dstate is put aside. */
static void split_dc(const fr_sequence *q, long s, unit_rows u, real *aside) {
    for (long n = u.row; n < u.row + u.rows; n++)
        for (long unit = u.first * VL; unit < (u.first + u.blocks) * VL; unit += VL, aside += VL) {
            const vec part = load_part((const real *)row_of(q, q->args.zoneout_c, s, n) + unit, q->H - unit);
            real *dstate = (real *)q->scratch.dstate + n * padded(q->H) + unit;
            const vec dc = load(dstate);
            store(aside, part * dc), store(dstate, (1 - part) * dc);
        }
}

/* dstate is put aside, and the epilogue adds to zeros. */
static void put_dstate_aside(const fr_sequence *q, unit_rows u, real *aside) {
    for (long n = u.row; n < u.row + u.rows; n++)
        for (long unit = u.first * VL; unit < (u.first + u.blocks) * VL; unit += VL, aside += VL) {
            real *dstate = (real *)q->scratch.dstate + n * padded(q->H) + unit;
            store(aside, load(dstate)), store(dstate, (vec){0});
        }
}

/* What was put aside comes back to what the epilogue made; masked: that is a gradient of `dropped`. */
static void take_back(const fr_sequence *q, int masked, unit_rows u, const real *aside) {
    for (long n = u.row; n < u.row + u.rows; n++) {
        const real *mask = masked ? recurrent_mask_of(q, n) : 0;
        for (long unit = u.first * VL; unit < (u.first + u.blocks) * VL; unit += VL, aside += VL) {
            real *dstate = (real *)q->scratch.dstate + n * padded(q->H) + unit;
            vec made = load(dstate);
            if (masked) made *= load_part(mask + unit, q->P - unit);
            store(dstate, load(aside) + made);
        }
    }
}

#endif
