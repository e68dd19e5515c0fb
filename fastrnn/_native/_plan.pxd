from fastrnn._native.kernels cimport *

cdef struct Plan:
    int threads, partitions, by_units, fused
    long chunk  # steps of a task on rows

cdef Plan choose_plan(const fr_sequence *q, const fr_sequence_kernels *k, bint forward) noexcept nogil
cdef int weight_partitions(const Plan *plan, long unit_blocks) noexcept nogil
cdef int level_threads(double flops, long levels) noexcept nogil
