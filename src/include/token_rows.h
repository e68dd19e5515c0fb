/* Rows of a table by token: taken, summed, and updated where they stand. V rows, D numbers each, N tokens.
 *
 * Design:
 * a) Rows are far apart and a table is larger than any cache: what costs is waiting for memory. So rows are asked for
 *    some steps ahead (AHEAD), into the second level of cache, since a core waits for three times as many lines there as
 *    in its first; and there is one build for all instruction sets: wider vectors would wait as long.
 * b) A sum is made by one thread, in the order of its places, so bits do not depend on the number of threads.
 */
#ifndef FASTRNN_TOKEN_ROWS_H
#define FASTRNN_TOKEN_ROWS_H

#include <stdint.h>
#include <string.h>

enum { FR_ROWS_AHEAD = 12, FR_LINE = 64 };

static inline void fr_ask_for(const char *row, long bytes) {
    for (long at = 0; at < bytes; at += FR_LINE) __builtin_prefetch(row + at, 0, 1);
}

/* out (N, row_bytes) = the rows of table that tokens (N,) name. */
static inline void fr_take_rows(char *out, const char *table, const int64_t *tokens, long N, long row_bytes) {
    for (long n = 0; n < N; n++) {
        if (n + FR_ROWS_AHEAD < N) fr_ask_for(table + tokens[n + FR_ROWS_AHEAD] * row_bytes, row_bytes);
        memcpy(out + n * row_bytes, table + tokens[n] * row_bytes, row_bytes);
    }
}

/* For each k from first to last: sums[k] = the sum of rows[order[i]] over i from starts[k] to starts[k + 1]. */
#define FR_SUM_ROWS(name, real)                                                                                    \
    static inline void name(real *sums, const real *rows, const int64_t *order, const int64_t *starts, long first, \
                            long last, long D) {                                                                   \
        for (long k = first; k < last; k++) {                                                                      \
            real *restrict sum = sums + k * D;                                                                     \
            memcpy(sum, rows + order[starts[k]] * D, D * sizeof(real));                                            \
            if (starts[k + 1] + FR_ROWS_AHEAD < starts[last])                                                      \
                fr_ask_for((const char *)(rows + order[starts[k + 1] + FR_ROWS_AHEAD] * D), D * sizeof(real));     \
            for (long i = starts[k] + 1; i < starts[k + 1]; i++) {                                                 \
                const real *row = rows + order[i] * D;                                                             \
                for (long d = 0; d < D; d++) sum[d] += row[d];                                                     \
            }                                                                                                      \
        }                                                                                                          \
    }
FR_SUM_ROWS(fr_sum_rows_float, float)
FR_SUM_ROWS(fr_sum_rows_double, double)

#endif
