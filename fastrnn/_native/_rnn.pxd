from fastrnn._native._runtime cimport Cache
from fastrnn._native.kernels cimport *


cdef class SequenceCache(Cache):
    cdef fr_sequence sequence
    cdef const fr_sequence_kernels *kernels  # NULL: made by hand
    cdef long T  # of x; that of `sequence` ends with the longest row
    cdef readonly str family
    cdef tuple lookup  # (tokens, table), or None where x was x
