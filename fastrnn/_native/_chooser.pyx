"""Which token comes next."""

from libc.math cimport INFINITY, exp
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy


cdef class Chooser:
    """Which token comes next: the largest logit, or one drawn from the softmax of all or the top_k largest; -1 for NaN."""

    def __cinit__(self, long V, double temperature, long top_k):
        self.V, self.temperature, self.top_k = V, temperature, top_k
        self.weights, self.sorted = <double *>malloc(V * sizeof(double)), <double *>malloc(V * sizeof(double))
        if self.weights == NULL or self.sorted == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.weights)
        free(self.sorted)

    cdef int64_t choose(self, const void *logits, int itemsize, const double *uniform, long draw) noexcept nogil:
        cdef long v, best = 0
        cdef double total = 0, largest, threshold, u
        for v in range(self.V):
            self.weights[v] = (<const float *>logits)[v] if itemsize == 4 else (<const double *>logits)[v]
            if self.weights[v] != self.weights[v]:
                return -1
            if self.weights[v] > self.weights[best]:
                best = v
        if uniform == NULL or self.temperature == 0:
            return best
        largest = self.weights[best]
        threshold = -INFINITY
        if 0 < self.top_k < self.V:
            memcpy(self.sorted, self.weights, self.V * sizeof(double))
            qsort(self.sorted, self.V, sizeof(double), larger_first)
            threshold = self.sorted[self.top_k - 1]
        for v in range(self.V):
            if self.weights[v] >= threshold:  # the largest may be infinite
                total += 1 if self.weights[v] == largest else exp((self.weights[v] - largest) / self.temperature)
            self.weights[v] = total
        u = uniform[draw] * total
        for v in range(self.V):
            if self.weights[v] > u:
                return v
        return self.V - 1


cdef int larger_first(const void *a, const void *b) noexcept nogil:
    cdef double x = (<const double *>a)[0], y = (<const double *>b)[0]
    return (x < y) - (x > y)
