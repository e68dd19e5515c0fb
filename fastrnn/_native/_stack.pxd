cimport numpy as cnp
from fastrnn._native._sequence cimport CompiledCell
from fastrnn._native._watched cimport Watched
from fastrnn._native.kernels cimport *


cdef class Packed:
    cdef list memory
    cdef const fr_sequence_kernels *kernels
    cdef void **at  # [2 * index] panels, [2 * index + 1] bias
    cdef bint ready, claimed


cdef struct Given:  # what a call is given
    long T, N
    int ndim  # 2 for one sequence
    fr_series x
    char *h0  # NULL: zeros
    char *c0


cdef class Stack(Watched):
    cdef CompiledCell cell
    cdef int count, directions, typenum, itemsize
    cdef fr_sequence *layers  # sizes and weights of each, as last read

    cdef Packed _packed(self, const fr_sequence_kernels *k)
    cdef void _keep_one(self, Packed packed)
    cdef Packed _pack(self, const fr_sequence_kernels *k)
    cdef Packed pack(self, const fr_sequence_kernels *k)
    cdef bint read_call(self, x, state, bint batch_first, Given *given) except -1
    cdef bint strides(self, cnp.ndarray x, int ndim, int time, fr_series *xs)
    cdef bint read_state(self, state, int ndim, long N, char **h, char **c) except -1
    cdef bint _fits(self, a, int ndim, long N, long width, char **at)
    cdef cnp.ndarray read_rows(self, x)
    cdef cnp.ndarray new_state(self, int ndim, long N, long width)
    cdef int _run(self, const fr_sequence *like, fr_series x, fr_series y, long T, const void *h0,
                  const void *c0, void *h_n, void *c_n, void *between) except -1
