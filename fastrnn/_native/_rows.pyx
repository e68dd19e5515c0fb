"""Lengths, resets and masked steps: what users say of rows, as the kernels read it. T time steps, N batch."""

import numpy as np

cimport numpy as cnp
from fastrnn._native._lengths cimport plan_rows, zeros_past_lengths
from fastrnn._native._runtime cimport Workspace, new_workspace
from fastrnn._native.kernels cimport *
from libc.string cimport memset

cnp.import_array()

cdef extern from "masks.h" nogil:
    ctypedef struct fr_flags:
        const unsigned char *data
        long step, row
    ctypedef struct fr_mask_plan:
        long *times
        long *late
        long *ends
        fr_carried *carried
        unsigned char *resets
    void fr_count_real(fr_flags mask, const long *until, long N, long *counts)
    long fr_follow_mask(const fr_sequence *, fr_flags mask, fr_flags reset_mask, const long *until, fr_mask_plan plan)


cdef int read_rows(fr_sequence *q, list held, lengths, reset_mask, mask, bint reverse, bint training, cnp.ndarray output) except -1:
    """Fill `q.rows`; `held` keeps alive what it leads to. q.T becomes the most steps of a row; output past lengths is zeros."""
    cdef fr_flags resets, real
    cdef cnp.ndarray until = None, steps
    cdef int itemsize = cnp.PyArray_ITEMSIZE(output)
    cdef long T
    memset(&resets, 0, sizeof(resets))
    q.rows.reverse = reverse
    if reset_mask is not None:
        _read_flags(&resets, q, held, reset_mask, "reset_mask", training)  # backward reads it again
        if q.T:
            q.rows.reset_mask, q.rows.reset_step, q.rows.reset_row = resets.data, resets.step, resets.row
    if mask is not None:
        _read_flags(&real, q, held, mask, "mask", False)
    if lengths is not None:
        until = _read_lengths(q, lengths)
    if mask is not None and not mask.all():
        if until is None:
            until = np.full(q.N, q.T, np.int_)
        steps = np.empty(q.N, np.int_)
        fr_count_real(real, <const long *>cnp.PyArray_DATA(until), q.N, <long *>cnp.PyArray_DATA(steps))
        if (steps != until).any():
            output.fill(0)
            _order_rows(q, held, steps)
            return _follow_mask(q, held, real, resets, until, steps, cnp.PyArray_DIM(output, 0))
    if until is not None:
        T = q.T
        _order_rows(q, held, until)
        zeros_past_lengths(q.args.output, T, q.N, q.P * itemsize, itemsize, &q.rows)
    return 0


cdef int _read_flags(fr_flags *flags, fr_sequence *q, list held, given, str name, bint copy) except -1:
    """Booleans (T, N)."""
    cdef cnp.ndarray array
    if not isinstance(given, np.ndarray) or given.dtype != np.bool_:
        got = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise TypeError(f"{name}: expected a NumPy array of bool, got {got}")
    if given.shape != (q.T, q.N):
        raise ValueError(f"{name}: expected shape ({q.T}, {q.N}) = (T, N), got {given.shape}")
    array = given.copy() if copy else given
    flags.data = <const unsigned char *>cnp.PyArray_DATA(array)
    flags.step, flags.row = cnp.PyArray_STRIDE(array, 0), cnp.PyArray_STRIDE(array, 1)
    held.append(array)
    return 0


cdef cnp.ndarray _read_lengths(fr_sequence *q, lengths):
    """lengths (N,); None where all rows are T long."""
    cdef cnp.ndarray values
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    if lengths.shape != (q.N,):
        raise ValueError(f"lengths: expected shape ({q.N},) = (N,), got {lengths.shape}")
    values = np.ascontiguousarray(lengths, np.int_)
    cdef const long *at = <const long *>cnp.PyArray_DATA(values)
    cdef long n, low = q.T, high = 0
    for n in range(q.N):
        low, high = min(low, at[n]), max(high, at[n])
    if low < 0 or high > q.T:
        raise ValueError(f"lengths: expected values from 0 to {q.T}, got {low if low < 0 else high}")
    return None if low == q.T else values


cdef int _order_rows(fr_sequence *q, list held, cnp.ndarray steps) except -1:
    """Put the row of most steps first; q.T becomes their number."""
    cdef const long *at = <const long *>cnp.PyArray_DATA(steps)
    cdef long n, most = 0
    for n in range(q.N):
        most = max(most, at[n])
    cdef Workspace room = new_workspace(2 * (q.N + most + 1) * sizeof(long))
    plan_rows(&q.rows, <long *>room.at, at, q.N, most)
    q.T = most
    held.append(room)
    return 0


cdef int _follow_mask(fr_sequence *q, list held, fr_flags real, fr_flags resets, cnp.ndarray until, cnp.ndarray steps, long T) except -1:
    """Where the real steps are, and what the others show and hand on. until (N,): the lengths; steps: how many are real."""
    cdef long all_steps = steps.sum(), masked = until.sum() - all_steps
    cdef cnp.ndarray times = np.empty(all_steps, np.int_), late = np.empty(all_steps + q.N, np.int_), ends = np.empty(q.N, np.int_)
    cdef cnp.ndarray starts = np.zeros((T, q.N), np.uint8), carried = np.empty((masked, 4), np.int_)
    cdef fr_mask_plan plan
    plan.times, plan.late = <long *>cnp.PyArray_DATA(times), <long *>cnp.PyArray_DATA(late)
    plan.ends, plan.resets = <long *>cnp.PyArray_DATA(ends), <unsigned char *>cnp.PyArray_DATA(starts)
    plan.carried = <fr_carried *>cnp.PyArray_DATA(carried)
    q.rows.late_count = fr_follow_mask(q, real, resets, <const long *>cnp.PyArray_DATA(until), plan)
    q.rows.times, q.rows.late, q.rows.ends, q.rows.carried = plan.times, plan.late, plan.ends, plan.carried
    q.rows.carried_count = masked
    if resets.data != NULL:
        q.rows.reset_mask, q.rows.reset_step, q.rows.reset_row = plan.resets, q.N, 1
    held.extend((times, late, ends, starts, carried))
    return 0
