from libc.stdint cimport int64_t


cdef class Chooser:
    cdef double temperature
    cdef long V, top_k
    cdef double *weights
    cdef double *sorted
    cdef int64_t choose(self, const void *logits, int itemsize, const double *uniform, long draw) noexcept nogil
