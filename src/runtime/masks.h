/* Masked steps: which steps of a row are real, and what the others hand on. Of one module, _rows. Letters as in sequence.h. */
#ifndef FASTRNN_MASKS_H
#define FASTRNN_MASKS_H

#include "sequence.h"

/* The user's booleans (T, N). */
typedef struct {
    const unsigned char *data;
    long step, row;
} fr_flags;
static inline int fr_is_set(fr_flags f, long t, long n) { return f.data[t * f.step + n * f.row]; }

/* How many of the first until[n] steps of each row are real. */
static inline void fr_count_real(fr_flags mask, const long *until, long N, long *counts) {
    for (long n = 0; n < N; n++) {
        counts[n] = 0;
        for (long t = 0; t < until[n]; t++) counts[n] += fr_is_set(mask, t, n);
    }
}

/* What comes of a mask: `times`, `late`, `ends` and `carried` as in fr_rows. */
typedef struct {
    long *times, *late, *ends;
    fr_carried *carried;
    unsigned char
        *resets; /* (T, N) zeros; set at real steps that start anew, by a reset at masked steps before them too */
} fr_mask_plan;

/* The row of late gradients of a place, a new one where it has none yet. */
static inline long fr_late_of(long *late, long place, long *count) {
    if (late[place] < 0) late[place] = (*count)++;
    return late[place];
}

/* Fills the plan, for rows that are ordered by their counts of real steps; returns how many late gradients there are. */
static inline long fr_follow_mask(const fr_sequence *q, fr_flags mask, fr_flags reset_mask, const long *until,
                                  fr_mask_plan plan) {
    const long all = fr_packed(q, q->T);
    long count = 0;
    fr_carried *carried = plan.carried;
    for (long place = 0; place < all + q->N; place++) plan.late[place] = -1;
    for (long i = 0; i < q->N; i++) {
        const long n = q->rows.order[i];
        long s = 0, place = all + i, from = FR_FROM_START;
        int is_zero = 0; /* by a reset since the last real step */
        for (long k = 0; k < until[n]; k++) {
            const long t = q->rows.reverse ? until[n] - 1 - k : k;
            if (reset_mask.data && fr_is_set(reset_mask, t, n)) is_zero = 1;
            if (fr_is_set(mask, t, n)) {
                plan.resets[t * q->N + n] = is_zero;
                place = fr_packed(q, s++) + i;
                plan.times[place] = from = t;
                is_zero = 0;
            } else
                *carried++ = is_zero ? (fr_carried){t, n, FR_FROM_ZERO, -1}
                                     : (fr_carried){t, n, from, fr_late_of(plan.late, place, &count)};
        }
        plan.ends[n] = is_zero ? -1 : fr_late_of(plan.late, place, &count);
    }
    return count;
}

#endif
