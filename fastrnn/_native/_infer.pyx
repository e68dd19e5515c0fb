"""One layer and direction without training, and no Python object in sight. Letters as in _sequence.pyx."""

from fastrnn._native._runtime cimport Rooms, allot_nogil, reserve, return_workspace
from fastrnn._native._sequence cimport (
    SequenceCall, clear_call, clear_zeros, plan_call, projected_steps, reserve_pointers, reserve_states, run_forward,
)
from fastrnn._native.kernels cimport *
from libc.string cimport memset


cdef int infer(const fr_sequence *q, const fr_sequence_kernels *k, bint packed, const void *c0, void *h_n,
               void *c_n) noexcept nogil:
    """One layer and direction without training, with panels and bias in their places. -1 without memory, 1 where a signal has
    stopped it."""
    cdef SequenceCall call
    cdef Rooms rooms
    cdef void *bias = q.workspace.bias
    clear_call(&call)
    memset(&rooms, 0, sizeof(rooms))
    call.sequence, call.kernels, call.packed = q[0], k, packed
    plan_call(&call, True)
    reserve_states(&rooms, &call, False, q.N)
    if call.sequence.input_projection == FR_AHEAD:
        call.chunk = projected_steps(&call, call.chunk)
        reserve(&rooms, &call.sequence.scratch.inputs, call.chunk * q.N * k.inputs_row(q), k.itemsize)
    reserve(&rooms, &call.sequence.scratch.operands, k.operands_size(q, False), k.itemsize)
    reserve_pointers(&rooms, &call)
    cdef char *at = allot_nogil(&rooms)
    if at == NULL:
        return -1
    call.sequence.workspace.bias = bias
    clear_zeros(&call)
    if q.cell == FR_LSTM:
        k.pack_state(&call.sequence, call.sequence.workspace.c, c0)
    if q.T:
        run_forward(&call)
    k.last_states(&call.sequence, h_n, c_n)
    return_workspace(at)
    return call.work.stopped
