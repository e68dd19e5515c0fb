"""From lengths (N,) and resets (T, N) to the rows of a sequence."""

from fastrnn._native._runtime cimport Workspace
from fastrnn._native.kernels cimport *

# Rows by their lengths, longest first, and what runs at each step; the longest is `longest`. room: 2 * (N + longest + 1).
cdef void plan_rows(fr_rows *rows, long *room, const long *lengths, long N, long longest) noexcept nogil
cdef void zeros_past_lengths(fr_series y, long T, long N, size_t bytes, int itemsize, const fr_rows *rows) noexcept nogil
cdef object read_lengths_and_resets(fr_sequence *q, lengths, reset_mask)
