cimport numpy as cnp
from libc.stdint cimport int64_t

cpdef cnp.ndarray row_indices(rows, long N)
cdef cnp.ndarray tokens_of(cnp.ndarray embedding, x, int ndim, long N)
cdef cnp.ndarray embed(cnp.ndarray embedding, x, cnp.ndarray embedded)
cdef void take_rows(char *to, const char *from_, const int64_t *rows, long n, size_t bytes) noexcept nogil
cdef void put_rows(char *to, const char *from_, const int64_t *rows, long n, size_t bytes) noexcept nogil
cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept  # whether two C-contiguous arrays share memory
