"""Rows of a table by token, see token_rows.h. V rows of D numbers, N tokens, K different ones."""

cimport numpy as cnp
from fastrnn._native._arrays cimport new_array, real_type, shape_of
from fastrnn._native._runtime cimport max_threads, next_task, plan_work, run_parallel
from fastrnn._native.kernels cimport *
from fastrnn._native.token_rows cimport *
from libc.stdint cimport int64_t
from libc.string cimport memset

cnp.import_array()

cdef struct TokenRows:  # of one call
    char *out
    const char *rows
    const int64_t *tokens  # what to take, or the order of summing
    const int64_t *starts  # NULL: take
    long count, D, itemsize
    fr_work work


cdef void _token_rows_body(void *arg, int id) noexcept nogil:
    cdef TokenRows *t = <TokenRows *>arg
    cdef long first, last, row_bytes = t.D * t.itemsize
    cdef fr_task task
    memset(&task, 0, sizeof(task))
    while next_task(&t.work, id, &task):
        first, last = t.count * task.partition // t.work.partitions, t.count * (task.partition + 1) // t.work.partitions
        if t.starts == NULL:
            fr_take_rows(t.out + first * row_bytes, t.rows, t.tokens + first, last - first, row_bytes)
        elif t.itemsize == sizeof(float):
            fr_sum_rows_float(<float *>t.out, <const float *>t.rows, t.tokens, t.starts, first, last, t.D)
        else:
            fr_sum_rows_double(<double *>t.out, <const double *>t.rows, t.tokens, t.starts, first, last, t.D)


cdef int _run_token_rows(TokenRows *t) except -1:
    cdef int threads = 1 if t.count * t.D < 1 << 16 else max_threads()
    plan_work(&t.work, 1, 1 if threads == 1 else min(4 * threads, FR_MAX_PARTITIONS), False)
    with nogil:
        run_parallel(threads, _token_rows_body, t)
    return 0


def take_rows(cnp.ndarray table, cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] tokens):
    """(N, D): rows of table (V, D), C-contiguous, at tokens (N,). Raises IndexError that names a token out of range."""
    cdef TokenRows t
    cdef long V = cnp.PyArray_DIM(table, 0), n
    cdef int typenum = real_type(table, "table")
    if not cnp.PyArray_ISCARRAY_RO(table) or cnp.PyArray_NDIM(table) != 2:
        raise ValueError(f"table: expected a C-contiguous array (V, D), got {shape_of(table)}")
    for n in range(tokens.shape[0]):
        if not 0 <= tokens[n] < V:
            raise IndexError(f"x: expected tokens 0..{V - 1}, got {tokens[n]}")
    t.count, t.D, t.itemsize = tokens.shape[0], cnp.PyArray_DIM(table, 1), cnp.PyArray_ITEMSIZE(table)
    cdef cnp.ndarray out = new_array(typenum, t.count, t.D, -1, False)
    t.out, t.rows, t.starts = <char *>cnp.PyArray_DATA(out), <const char *>cnp.PyArray_DATA(table), NULL
    t.tokens = <const int64_t *>cnp.PyArray_DATA(tokens)
    _run_token_rows(&t)
    return out


def sum_rows(cnp.ndarray rows, cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] order,
             cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] starts):
    """(K, D): for each k the sum of rows (N, D), C-contiguous, at order[starts[k] : starts[k + 1]]. order: a permutation of
    0..N-1; starts (K + 1,): ascending strictly from 0 to N."""
    cdef TokenRows t
    cdef int typenum = real_type(rows, "rows")
    cdef long N = cnp.PyArray_DIM(rows, 0)
    if not cnp.PyArray_ISCARRAY_RO(rows) or cnp.PyArray_NDIM(rows) != 2 or order.shape[0] != N or starts.shape[0] < 1:
        raise ValueError(f"rows: expected a C-contiguous array (N, D) and N places, got {shape_of(rows)}")
    t.count, t.D, t.itemsize = starts.shape[0] - 1, cnp.PyArray_DIM(rows, 1), cnp.PyArray_ITEMSIZE(rows)
    cdef cnp.ndarray out = new_array(typenum, t.count, t.D, -1, False)
    t.out, t.rows = <char *>cnp.PyArray_DATA(out), <const char *>cnp.PyArray_DATA(rows)
    t.tokens, t.starts = <const int64_t *>cnp.PyArray_DATA(order), <const int64_t *>cnp.PyArray_DATA(starts)
    _run_token_rows(&t)
    return out
