cimport numpy as cnp
from fastrnn._native._runtime cimport Cache, Workspace
from fastrnn._native._sequence cimport SequenceCall
from fastrnn._native.kernels cimport *


cdef class SequenceCache(Cache):
    cdef fr_sequence sequence
    cdef const fr_sequence_kernels *kernels  # NULL: made by hand
    cdef long T  # of x; that of `sequence` ends with the longest row
    cdef readonly str family
    cdef tuple lookup  # (tokens, table), or None where x was x

# The passes of a call whose arguments have been read. Forward returns what a backward pass needs, backward uses `cache` up.
cdef Workspace pass_forward(SequenceCall *call, int typenum, table, const void *c0, void *h_n, void *c_n)
cdef int pass_backward(SequenceCall *call, SequenceCache cache, const void *dc_n, void *dc0, list added) except -1
