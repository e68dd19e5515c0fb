from fastrnn._native.kernels cimport *

cdef int infer(const fr_sequence *q, const fr_sequence_kernels *k, bint packed, const void *c0, void *h_n,
               void *c_n) noexcept nogil
