"""Some rows of a batch: which, and what they have in arrays of rows."""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t
from libc.string cimport memcpy

cnp.import_array()


cpdef cnp.ndarray row_indices(rows, long N):
    """Indices of rows as int64 (n,), from indices 0..N-1 or -N..-1 in any order or a mask (N,)."""
    cdef cnp.ndarray indices
    cdef int64_t *at
    cdef long i, n
    a = np.asarray(rows)
    if a.dtype == np.bool_:
        if a.shape != (N,):
            raise ValueError(f"rows: expected a mask of shape ({N},), got {a.shape}")
        return np.flatnonzero(a).astype(np.int64)
    if a.size and a.dtype.kind not in "iu":
        raise TypeError(f"rows: expected indices or a mask of bool, got {a.dtype}")
    indices = np.array(a, np.int64, order="C", ndmin=1)  # a copy
    if cnp.PyArray_NDIM(indices) != 1:
        raise ValueError(f"rows: expected shape (n,), got {a.shape}")
    at, n = <int64_t *>cnp.PyArray_DATA(indices), cnp.PyArray_DIM(indices, 0)
    cdef bytes marks = bytes(N)
    cdef char *seen = marks
    for i in range(n):
        if not -N <= at[i] < N:
            raise IndexError(f"rows: expected indices 0..{N - 1}, got {at[i]}")
        at[i] += N if at[i] < 0 else 0
        if seen[at[i]]:
            raise ValueError(f"rows: expected each index once, got {a}; flags are a mask of bool, rows.astype(bool)")
        seen[at[i]] = 1
    return indices


cdef cnp.ndarray tokens_of(cnp.ndarray embedding, x, int ndim, long N):
    """Tokens (N,), or (T, N) with ndim 2, that embedding (V, D) has rows for."""
    tokens = np.ascontiguousarray(x)
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"x: expected integer tokens, got {tokens.dtype}")
    if tokens.ndim != ndim or tokens.shape[ndim - 1] != N:
        raise ValueError(f"x: expected shape ({'T, ' if ndim == 2 else ''}{N},), got {tokens.shape}")
    V = embedding.shape[0]
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < V:
        raise IndexError(f"x: expected tokens 0..{V - 1}, got values from {tokens.min()} to {tokens.max()}")
    return tokens


cdef cnp.ndarray embed(cnp.ndarray embedding, x, cnp.ndarray embedded):
    """The vectors of tokens (N,) in `embedded` (N, D). NumPy takes 6 us to check and take one, as long as many a step."""
    cdef cnp.ndarray tokens = x if cnp.PyArray_CheckExact(x) else np.asarray(x)
    cdef long n, N = cnp.PyArray_DIM(embedded, 0), V = cnp.PyArray_DIM(embedding, 0)
    cdef const int64_t *at = <const int64_t *>cnp.PyArray_DATA(tokens)
    cdef bint plain = cnp.PyArray_TYPE(tokens) == cnp.NPY_INT64 and cnp.PyArray_ISCARRAY_RO(tokens) and (
        cnp.PyArray_NDIM(tokens) == 1 and cnp.PyArray_DIM(tokens, 0) == N)
    for n in range(N if plain else 0):
        plain = plain and 0 <= at[n] < V
    if not plain:  # to be converted or refused
        return np.take(embedding, tokens_of(embedding, x, 1, N), axis=0, out=embedded)
    take_rows(<char *>cnp.PyArray_DATA(embedded), <const char *>cnp.PyArray_DATA(embedding), at, N, cnp.PyArray_STRIDE(embedding, 0))
    return embedded


cdef void take_rows(char *to, const char *from_, const int64_t *rows, long n, size_t bytes) noexcept nogil:
    cdef long i
    for i in range(n):
        memcpy(to + i * bytes, from_ + rows[i] * bytes, bytes)


cdef void put_rows(char *to, const char *from_, const int64_t *rows, long n, size_t bytes) noexcept nogil:
    cdef long i
    for i in range(n):
        memcpy(to + rows[i] * bytes, from_ + i * bytes, bytes)


cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share memory."""
    cdef char *a0 = <char *>cnp.PyArray_DATA(a)
    cdef char *b0 = <char *>cnp.PyArray_DATA(b)
    return a0 < b0 + cnp.PyArray_NBYTES(b) and b0 < a0 + cnp.PyArray_NBYTES(a)
