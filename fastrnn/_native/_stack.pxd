cimport numpy as cnp
from fastrnn._native._sequence cimport CompiledCell
from fastrnn._native.kernels cimport *
from libc.stdint cimport uint64_t


cdef class Packed:
    cdef list memory
    cdef const fr_sequence_kernels *kernels
    cdef void **at  # [2 * index] panels, [2 * index + 1] bias
    cdef bint ready, claimed


cdef class Stack:
    cdef object params
    cdef list names
    cdef CompiledCell cell
    cdef int count, directions, typenum, itemsize
    cdef fr_sequence *layers  # sizes and weights of each, as last read
    cdef tuple arrays         # the same weights as Python objects
    cdef list packed          # of Packed
    cdef Py_ssize_t reads, version
    cdef uint64_t checksum
    cdef bint summed, usable, alone
    cdef readonly bint frozen
    cdef readonly long generation  # how often weights were packed

    cdef int _look(self) except -1
    cdef bint _is_alone(self)
    cdef uint64_t _sum(self, tuple arrays)
    cdef int _read(self, tuple arrays) except -1
    cdef Packed _packed(self, const fr_sequence_kernels *k)
    cdef void _keep_one(self, Packed packed)
    cdef Packed _pack(self, const fr_sequence_kernels *k)
    cdef Packed pack(self, const fr_sequence_kernels *k)
    cdef bint _strides(self, cnp.ndarray x, int ndim, int time, fr_series *xs)
    cdef bint _fits(self, a, int ndim, long N, long width)
    cdef cnp.ndarray _new_state(self, int ndim, long N, long width)
    cdef int _run(self, const fr_sequence *like, fr_series x, fr_series y, long T, const void *h0,
                  const void *c0, void *h_n, void *c_n, void *between) except -1
