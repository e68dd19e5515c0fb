# What src/include/token_rows.h offers.

from libc.stdint cimport int64_t

cdef extern from "token_rows.h" nogil:
    enum: FR_ROWS_AHEAD
    void fr_ask_for(const char *row, long bytes)
    void fr_take_rows(char *out, const char *table, const int64_t *tokens, long N, long row_bytes)
    void fr_sum_rows_float(float *sums, const float *rows, const int64_t *order, const int64_t *starts, long first,
                           long last, long D)
    void fr_sum_rows_double(double *sums, const double *rows, const int64_t *order, const int64_t *starts, long first,
                            long last, long D)
