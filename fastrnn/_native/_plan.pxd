from fastrnn._native.kernels cimport *

cdef struct Plan:
    int threads, partitions, by_units, fused
    long chunk  # steps of a task on rows

# Whether short calls come one upon the other: take it that they do or do not, or look.
cdef enum Pace: SPARSE, DENSE, ASK

cdef Plan choose_plan(const fr_sequence *q, const fr_sequence_kernels *k, bint forward, Pace pace) noexcept nogil
cdef int weight_partitions(const Plan *plan, long unit_blocks) noexcept nogil
cdef int level_threads(double flops, long levels) noexcept nogil
