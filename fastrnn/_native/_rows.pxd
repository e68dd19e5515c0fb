"""Which rows of a sequence run at which step, as users say it."""

cimport numpy as cnp
from fastrnn._native.kernels cimport fr_sequence

cdef int read_rows(fr_sequence *q, list held, lengths, reset_mask, mask, bint reverse, bint training, cnp.ndarray output) except -1
