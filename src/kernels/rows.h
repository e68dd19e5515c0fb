/* Who does what, and where rows of the user's arrays are: the kernels reach every row through a pointer, and that is all
 * it takes for sequences of different lengths, for a reversed time axis and for states that start anew.
 *
 * # Design:
 * a) Rows are cut into blocks by N alone and dealt out whole to the partitions, units by panels: no sum is ever split between
 *    partitions, hence results do not depend on their number, bit for bit. Blocks are dealt like cards, there and back, since
 *    with lengths the first blocks have the most work.
 * b) Rows run in the order of their lengths, so those still running at a step are a prefix of them and work follows
 *    the sum of lengths. Nothing is copied: the order is in the pointers.
 * c) A row that starts anew reads its state from a row of zeros, and so does the gradient that would flow back across
 *    that start. A mask of resets costs the look at one byte per row and step.
 * d) Partitions of rows with lengths have equal work, but at different steps: the one with the longest row is alone at the end.
 *    So a chunk of steps is a part of the partition's work rather than of the time, and those that have done equally many
 *    chunks end together.
 * e) A row with masked steps is a shorter row, whose steps are at other times: no work is done for masked steps, what x holds
 *    there is not looked at, and the loops do not know of them. What they show and hand on is written and added up at the end
 *    (carry_outputs, gather_late).
 */
#ifndef FASTRNN_ROWS_H
#define FASTRNN_ROWS_H

#include "cells.h"

INLINE range part_of(long n, fr_partition partition) {
    return (range){n * partition.id / partition.count, n * (partition.id + 1) / partition.count};
}
/* Whether a signal stops a task that has just done products of so many multiply-adds; call between multiply_begin and
 * multiply_end. A signal's handler may have used the tiles, which are then set up anew. */
INLINE int stops_between_products(const fr_sequence *q, double cost) {
    if (!q->watch) return 0;
    if (fr_stops(q->watch, cost)) return 1;
    multiply_begin();
    return 0;
}

INLINE range panels_of(long n, fr_partition partition) {
    return partition.by_units ? part_of(n, partition) : (range){0, n};
}

/* N rows in equal blocks of at most ROW_BLOCK, the first `longer` of them one row longer than the others. */
typedef struct {
    long blocks, rows, longer;
} row_deal;
INLINE row_deal deal_rows(long N) {
    if (N <= ROW_BLOCK_ALONE) return (row_deal){1, N, 0};
    const long blocks = row_blocks(N);
    return (row_deal){blocks, N / blocks, N % blocks};
}
INLINE long block_start(row_deal deal, long block) { return block * deal.rows + MIN(block, deal.longer); }
INLINE long block_from(row_deal deal, long start) { /* the block that starts there */
    return start < deal.longer * (deal.rows + 1) ? start / (deal.rows + 1) : (start - deal.longer) / deal.rows;
}

/* A walk over the blocks of rows of one partition, each cut off at the first `active` rows:
 *     block_walk walk = walk_blocks(N, active, partition);
 *     while (next_block(&walk)) ... walk.rows ...
 */
typedef struct {
    row_deal deal;
    long active, j;
    fr_partition partition;
    range rows;
} block_walk;
INLINE block_walk walk_dealt(row_deal deal, long active, fr_partition partition) {
    return (block_walk){.deal = deal, .active = active, .partition = partition};
}
INLINE block_walk walk_blocks(long N, long active, fr_partition partition) {
    return walk_dealt(deal_rows(N), active, partition);
}
INLINE int next_block(block_walk *w) {
    const long count = w->partition.count, id = w->partition.id, j = w->j++;
    const long block = w->partition.by_units ? j : j * count + (j & 1 ? count - 1 - id : id);
    if (block >= w->deal.blocks) return 0;
    w->rows = (range){block_start(w->deal, block), MIN(block_start(w->deal, block + 1), w->active)};
    return w->rows.begin < w->active; /* blocks come in rising order: after an empty one there is none */
}

/* Whether no more than one of the partition's blocks has rows that still run. */
INLINE int has_one_block(const fr_sequence *q, row_deal deal, long active, fr_partition partition) {
    const long second = partition.by_units ? 1 : 2 * partition.count - 1 - partition.id;
    return q->N <= ROW_BLOCK || block_start(deal, second) >= active;
}

/* ---- Chunks of steps ---- */

/* What a partition does before step s, in steps of rows. A block counts as one row more, as the panels pass by for it. */
static long work_before(const fr_sequence *q, fr_partition partition, long s) {
    long work = 0;
    block_walk walk = walk_blocks(q->N, q->N, partition);
    while (next_block(&walk)) {
        work += MIN(q->rows.lengths[walk.rows.begin], s);
        for (long i = walk.rows.begin; i < walk.rows.end; i++) work += MIN(q->rows.lengths[i], s);
    }
    return work;
}

/* Where chunk `chunk` of `chunks` begins: at the first step that has so large a part of the partition's work before it. */
static long chunk_start(const fr_sequence *q, fr_partition partition, long chunk, long chunks) {
    const long all = work_before(q, partition, q->T);
    long low = 0, high = q->T;
    while (low < high) {
        const long middle = (low + high) / 2;
        if (work_before(q, partition, middle) * chunks >= all * chunk)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* ---- Where a row is at a step ---- */

INLINE long user_row(const fr_sequence *q, long i) { return q->rows.order ? q->rows.order[i] : i; }
INLINE long length_of(const fr_sequence *q, long i) { return q->rows.order ? q->rows.lengths[i] : q->T; }
INLINE long time_of(const fr_sequence *q, long s, long i) {
    if (q->rows.times) return q->rows.times[fr_packed(q, s) + i];
    return q->rows.reverse ? length_of(q, i) - 1 - s : s;
}
/* Whether every row runs at every step, all at the same time, and goes on from the step before. */
INLINE int rows_are_regular(const fr_sequence *q) { return !q->rows.order && !q->rows.times && !q->rows.reset_mask; }
INLINE int starts_anew(const fr_sequence *q, long s, long i) {
    const fr_rows *r = &q->rows;
    return r->reset_mask && r->reset_mask[time_of(q, s, i) * r->reset_step + user_row(q, i) * r->reset_row];
}
INLINE real *row_of(const fr_sequence *q, fr_series a, long s, long i) {
    return (real *)a.data + time_of(q, s, i) * a.step + user_row(q, i) * a.row;
}

/* First rows of a step in workspaces over time: those of c come after the initial state. */
INLINE long first_row(const fr_sequence *q, long s) { return q->training ? fr_packed(q, s) : 0; }
INLINE real *c_at(const fr_sequence *q, long s) {
    return (real *)q->workspace.c + (q->training && s >= 0 ? q->N + fr_packed(q, s) : 0) * padded(q->H);
}
INLINE real *inner_at(const fr_sequence *q, long s) {
    return (real *)q->workspace.inner + first_row(q, s) * padded(q->H);
}

INLINE const real *h_at_start(const fr_sequence *q, long n) {
    return q->args.h0 ? (const real *)q->args.h0 + n * q->P : q->workspace.zeros;
}
INLINE const real *h_before(const fr_sequence *q, long s, long i) {
    if (starts_anew(q, s, i)) return q->workspace.zeros;
    if (s) return row_of(q, q->args.output, s - 1, i);
    return h_at_start(q, user_row(q, i));
}
INLINE const real *c_before(const fr_sequence *q, long s, long i) {
    return starts_anew(q, s, i) ? q->workspace.zeros : c_at(q, s - 1) + i * padded(q->H);
}

/* Pointers to the rows of one step that a thread works on, each at the row's own index. */
typedef struct {
    const real **x, **h_prev, **c_prev, **doutput, **dh_n, **next;
    real **h;
} row_pointers;

INLINE row_pointers row_pointers_in(fr_partition partition, long N) {
    void **p = partition.pointers;
    return (row_pointers){(const real **)p,           (const real **)(p + N),     (const real **)(p + 2 * N),
                          (const real **)(p + 3 * N), (const real **)(p + 4 * N), (const real **)(p + 5 * N),
                          (real **)(p + 6 * N)};
}

/* ---- States between the user's order and ours ---- */

static void pack_state(const fr_sequence *q, void *to, const void *from) {
    const long width = q->H, wide = padded(width);
    for (long i = 0; i < q->N; i++) {
        real *row = (real *)to + i * wide;
        memset(row, 0, wide * sizeof(real));
        if (from) memcpy(row, (const real *)from + user_row(q, i) * width, width * sizeof(real));
    }
}

static void unpack_state(const fr_sequence *q, void *to, const void *from) {
    for (long i = 0; i < q->N; i++)
        memcpy((real *)to + user_row(q, i) * q->H, (const real *)from + i * padded(q->H), q->H * sizeof(real));
}

static void last_states(const fr_sequence *q, void *h_n, void *c_n) {
    for (long i = 0; i < q->N; i++) {
        const long s = length_of(q, i) - 1, n = user_row(q, i);
        const int is_zero = q->rows.ends && q->rows.ends[n] < 0;
        const real *zeros = q->workspace.zeros;
        const real *h = is_zero ? zeros : s >= 0 ? row_of(q, q->args.output, s, i) : h_at_start(q, n);
        if (h_n) memcpy((real *)h_n + n * q->P, h, q->P * sizeof(real));
        const real *c = is_zero || !c_n ? zeros : c_at(q, s) + i * padded(q->H);
        if (c_n) memcpy((real *)c_n + n * q->H, c, q->H * sizeof(real));
    }
}

/* ---- Masked steps ---- */

static void carry_outputs(const fr_sequence *q) {
    const fr_series output = q->args.output;
    for (long j = 0; j < q->rows.carried_count; j++) {
        const fr_carried at = q->rows.carried[j];
        real *row = (real *)output.data + at.row * output.row;
        const real *from = at.from == FR_FROM_ZERO    ? q->workspace.zeros
                           : at.from == FR_FROM_START ? h_at_start(q, at.row)
                                                      : row + at.from * output.step;
        memcpy(row + at.time * output.step, from, q->P * sizeof(real));
    }
}

static void add_late(const fr_sequence *q, long late, const real *row) {
    real *to = (real *)q->scratch.dlate + late * q->P;
    for (long unit = 0; unit < q->P; unit += VL)
        store_part(to + unit, load_part(to + unit, q->P - unit) + load_part(row + unit, q->P - unit), q->P - unit);
}

static void gather_late(const fr_sequence *q) {
    const fr_series dy = q->args.doutput;
    memset(q->scratch.dlate, 0, q->rows.late_count * q->P * sizeof(real));
    for (long i = 0; i < q->N; i++) {
        const long n = user_row(q, i), late = q->rows.ends[n];
        if (late >= 0 && q->args.dh_n) add_late(q, late, (const real *)q->args.dh_n + n * q->P);
        if (late < 0) memset((real *)q->scratch.dstate + i * padded(q->H), 0, padded(q->H) * sizeof(real));
    }
    for (long j = 0; dy.data && j < q->rows.carried_count; j++) {
        const fr_carried at = q->rows.carried[j];
        if (at.late >= 0) add_late(q, at.late, (const real *)dy.data + at.time * dy.step + at.row * dy.row);
    }
}

#endif
