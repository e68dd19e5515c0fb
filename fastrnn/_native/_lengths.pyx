"""Lengths and resets, worked out once for all layers and directions of a call."""

import numpy as np

cimport numpy as cnp
from fastrnn._native._runtime cimport Workspace, new_workspace
from fastrnn._native.kernels cimport *
from libc.string cimport memcpy, memset

cnp.import_array()


cdef void plan_rows(fr_rows *rows, long *room, const long *lengths, long N, long longest) noexcept nogil:
    """The order of rows by their lengths, longest first, and what runs at each step. room: 2 * (N + longest + 1)."""
    cdef long *order = room
    cdef long *ordered = room + N
    cdef long *active = room + 2 * N
    cdef long *packed = active + longest + 1
    cdef long n, s, i
    memset(packed, 0, (longest + 1) * sizeof(long))
    for n in range(N):
        packed[lengths[n]] += 1
    active[longest] = 0
    for s in range(longest - 1, -1, -1):
        active[s] = active[s + 1] + packed[s + 1]
    memcpy(packed, active, (longest + 1) * sizeof(long))  # where the next row of each length goes
    for n in range(N):
        i = packed[lengths[n]]
        packed[lengths[n]] += 1
        order[i], ordered[i] = n, lengths[n]
    packed[0] = 0
    for s in range(longest):
        packed[s + 1] = packed[s] + active[s]
    rows.order, rows.lengths, rows.active, rows.packed = order, ordered, active, packed


cdef void zeros_past_lengths(fr_series y, long T, long N, size_t bytes, int itemsize, const fr_rows *rows) noexcept nogil:
    """Outputs of `bytes` a row past the length of each."""
    cdef long i, t
    for i in range(N):
        for t in range(rows.lengths[i], T):
            memset(<char *>y.data + (t * y.step + rows.order[i] * y.row) * itemsize, 0, bytes)


cdef object read_lengths_and_resets(fr_sequence *q, lengths, reset_mask):
    """Into q.rows; q.T becomes the longest. Returns what has to live as long as the call, None for what is not right.
    Lengths that are all T change nothing, and cost next to nothing: rows are not ordered then.

    A second (T, N) mask follows the first: for a direction that runs from the end, a boundary before step t is one before step
    t - 1, and what stands past the end of a row is no boundary.
    """
    cdef cnp.ndarray a = None, mask = None
    cdef const long *values = NULL
    cdef const char *from_
    cdef long n, t, T = q.T, N = q.N, longest = T, least = T, end
    cdef size_t of_rows = 2 * (N + T + 1) * sizeof(long)
    cdef char *to
    if lengths is not None:
        if isinstance(lengths, (list, tuple)):
            lengths = np.asarray(lengths)
        if not cnp.PyArray_CheckExact(lengths):
            return None
        a = lengths
        if not cnp.PyTypeNum_ISINTEGER(cnp.PyArray_TYPE(a)) or cnp.PyArray_NDIM(a) != 1 or cnp.PyArray_DIM(a, 0) != N:
            return None
        if cnp.PyArray_TYPE(a) != cnp.NPY_LONG or not cnp.PyArray_ISCARRAY_RO(a):
            a = np.ascontiguousarray(a, np.int_)
        values, longest = <const long *>cnp.PyArray_DATA(a), 0
        for n in range(N):
            if not 0 <= values[n] <= T:
                return None
            longest, least = max(longest, values[n]), min(least, values[n])
    if reset_mask is not None:
        if not cnp.PyArray_CheckExact(reset_mask):
            return None
        mask = reset_mask
        if cnp.PyArray_TYPE(mask) != cnp.NPY_BOOL or cnp.PyArray_NDIM(mask) != 2 or (
                cnp.PyArray_DIM(mask, 0) != T or cnp.PyArray_DIM(mask, 1) != N):
            return None
    if least == T and (mask is None or not T):
        return True
    cdef Workspace room = new_workspace(of_rows + (2 * T * N if mask is not None else 0))
    if values != NULL and least < T:
        plan_rows(&q.rows, <long *>room.at, values, N, longest)
        q.T = longest
    if mask is not None and T:
        to = room.at + of_rows
        q.rows.reset_mask, q.rows.reset_step, q.rows.reset_row = <unsigned char *>to, N, 1
        memset(to, 0, 2 * T * N)
        for t in range(T):
            from_ = <const char *>cnp.PyArray_DATA(mask) + t * cnp.PyArray_STRIDE(mask, 0)
            for n in range(N):
                to[t * N + n] = from_[n * cnp.PyArray_STRIDE(mask, 1)]
        for t in range(T - 1):
            memcpy(to + (T + t) * N, to + (t + 1) * N, N)
        if values != NULL:
            for n in range(N):
                end = max(values[n], 1) - 1
                to[(T + end) * N + n] = 0
    return room
