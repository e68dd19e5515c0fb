"""One step of a cell in training: what `fastrnn.functional`'s cells call. Letters as in _sequence.pyx.

Design: a small step takes less time than the checks of `forward` and what it makes for a sequence. So arrays that are all
as the kernels read them, the usual ones, have a short way, and others are left to `forward`, which converts or refuses them.
The room for states has the step's output and a copy of h0 as well, as who called may write to what h and h0 are. What a
step needs only while it runs is on the stack where it is small, and a small step keeps the GIL: to hand it over and to take it
back takes longer than anybody would wait.
"""

cimport cython
cimport numpy as cnp
from fastrnn._native._arrays cimport data_of, is_plain, new_array
from fastrnn._native._rnn cimport SequenceCache
from fastrnn._native._runtime cimport (
    Rooms, allot, allot_nogil, build_for, point_to_rooms, raise_signal, reserve, return_workspace, sequence_kernels, was_stopped,
)
from fastrnn._native._sequence cimport (
    CompiledCell, SequenceCall, clear_zeros, plan_call, reserve_pointers, reserve_states, run_forward, whole_cost,
)
from fastrnn._native.kernels cimport *
from libc.string cimport memcpy, memset

cnp.import_array()


@cython.freelist(16)
cdef class StepCache:
    """What one step of a cell keeps: the cache of its sequence of T = 1, what it returned, and its output, if it has one."""

    cdef readonly str cell
    cdef readonly object sequence, h, c, head

    def __init__(self, str cell, sequence, h, c, head):
        self.cell, self.sequence, self.h, self.c, self.head = cell, sequence, h, c, head

    def __reduce__(self):
        raise TypeError("a step's cache cannot be pickled")


cdef bint read_plain(fr_sequence *q, int typenum, cnp.ndarray x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh) noexcept:
    """Fill in `q`; False where one of them is not plain or does not fit."""
    cdef long GH = cnp.PyArray_DIM(<cnp.ndarray>weight_ih, 0), G = build_for(4).sequence.gates(q.cell)
    q.T, q.N, q.D, q.H = 1, cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), GH // G
    q.P, q.training = q.H, True
    if GH % G or q.H < 1 or q.N < 1 or q.D < 1 or not is_plain(x, typenum, 2, q.N, q.D):
        return False
    if not is_plain(weight_ih, typenum, 2, GH, q.D) or not is_plain(weight_hh, typenum, 2, GH, q.H):
        return False
    if (bias_ih is not None and not is_plain(bias_ih, typenum, 1, GH, -1)) or (
            bias_hh is not None and not is_plain(bias_hh, typenum, 1, GH, -1)):
        return False
    if (h0 is not None and not is_plain(h0, typenum, 2, q.N, q.H)) or (c0 is not None and not is_plain(c0, typenum, 2, q.N, q.H)):
        return False
    q.args.x.data, q.args.x.row = cnp.PyArray_DATA(x), q.D
    q.args.weight_ih, q.args.weight_hh = cnp.PyArray_DATA(<cnp.ndarray>weight_ih), cnp.PyArray_DATA(<cnp.ndarray>weight_hh)
    q.args.bias_ih, q.args.bias_hh, q.args.h0 = data_of(bias_ih), data_of(bias_hh), data_of(h0)
    return True


def cell_forward(CompiledCell cell not None, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh):
    """One step in training: h, (c of an LSTM,) StepCache. None for arrays that are not plain."""
    cdef SequenceCall call
    cdef int typenum
    cdef cnp.ndarray h, c = None
    if not cnp.PyArray_CheckExact(x) or not cnp.PyArray_CheckExact(weight_ih):
        return None
    typenum = cnp.PyArray_TYPE(<cnp.ndarray>x)
    if (typenum != cnp.NPY_FLOAT32 and typenum != cnp.NPY_FLOAT64) or cnp.PyArray_NDIM(<cnp.ndarray>x) != 2 or (
            cnp.PyArray_NDIM(<cnp.ndarray>weight_ih) != 2):
        return None
    cell.start(&call)
    if not read_plain(&call.sequence, typenum, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh):
        return None
    h = new_array(typenum, call.sequence.N, call.sequence.H, -1, False)
    if cell.cell == FR_LSTM:
        c = new_array(typenum, call.sequence.N, call.sequence.H, -1, False)
    cdef SequenceCache cache = SequenceCache.__new__(SequenceCache)
    run_step(&call, cache, 4 if typenum == cnp.NPY_FLOAT32 else 8, data_of(c0), cnp.PyArray_DATA(h), data_of(c))
    cache.arrays, cache.typenum, cache.family, cache.T = (x, weight_ih, weight_hh, bias_ih, bias_hh), typenum, cell.family, 1
    cdef StepCache kept = StepCache.__new__(StepCache)
    kept.cell, kept.sequence, kept.h, kept.c = cell.family, cache, h, c
    return (h, kept) if c is None else (h, c, kept)


cdef enum: SMALL_SCRATCH = 24576, SMALL_STEP = 20000  # bytes; multiply-adds, a microsecond of them


cdef int run_step(SequenceCall *call, SequenceCache cache, int itemsize, const void *c0, void *h, void *c) except -1:
    cdef fr_sequence *q = &call.sequence
    cdef const fr_sequence_kernels *k = sequence_kernels(q, itemsize)
    cdef size_t state = q.N * q.H * itemsize
    cdef Rooms rooms
    cdef void *first = NULL
    call.kernels = k
    plan_call(call, True)
    memset(&rooms, 0, sizeof(rooms))
    reserve_states(&rooms, call, True, q.N)
    reserve(&rooms, &q.args.output.data, q.N * q.H, itemsize)
    reserve(&rooms, &first, q.N * q.H, itemsize)
    cache.states = allot(&rooms)
    memset(&rooms, 0, sizeof(rooms))
    reserve(&rooms, &q.scratch.panels, k.panels_size(q), itemsize)
    if q.input_projection == FR_AHEAD:
        call.chunk = 1
        reserve(&rooms, &q.scratch.inputs, q.N * k.inputs_row(q), itemsize)
    reserve(&rooms, &q.scratch.operands, k.operands_size(q, False), itemsize)
    reserve_pointers(&rooms, call)
    cdef char room[SMALL_SCRATCH + 64]
    cdef char *scratch = NULL
    if rooms.size <= SMALL_SCRATCH:
        point_to_rooms(&rooms, <char *>((<size_t>&room[0] + 63) & ~<size_t>63))
    else:
        scratch = allot_nogil(&rooms)
        if scratch == NULL:
            raise MemoryError("no memory for the workspace of a step")
    clear_zeros(call)
    q.args.output.row = q.H
    if q.args.h0 != NULL:
        memcpy(first, q.args.h0, state)
        q.args.h0 = first
    if q.cell == FR_LSTM:
        k.pack_state(q, q.workspace.c, c0)
    if call.threads == 1 and whole_cost(call) < SMALL_STEP:
        run_forward(call)
    else:
        with nogil:
            run_forward(call)
    return_workspace(scratch)
    if was_stopped(&call.work, whole_cost(call)):
        raise_signal()
    k.last_states(q, h, c)
    cache.sequence, cache.kernels = q[0], k
    return 0
