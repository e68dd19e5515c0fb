from libc.stdint cimport uint64_t


cdef class Watched:
    cdef object params
    cdef list names
    cdef tuple arrays  # the weights, as last read
    cdef list packed   # what they were packed as, for each build of the kernels
    cdef Py_ssize_t reads, version
    cdef uint64_t checksum
    cdef bint summed, usable, alone
    cdef readonly bint frozen
    cdef readonly long generation  # how often weights were packed

    cdef int _look(self) except -1
    cdef bint read(self, tuple arrays) except -1
    cdef int pack_now(self) except -1
    cdef bint _is_alone(self)
    cdef uint64_t _sum(self, tuple arrays)
