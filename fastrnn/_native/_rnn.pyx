"""A recurrent layer over a sequence, in one direction: what `fastrnn.functional` calls. Letters as in _sequence.pyx."""

import numpy as np

cimport numpy as cnp
from fastrnn._native._arrays cimport (
    check_names, data_of, dense, gradient, hold, new_array, read_series, series_of, written_series,
)
from fastrnn._native._lookup cimport gradients_of_table, project_table
from fastrnn._native._rows cimport read_rows
from fastrnn._native._runtime cimport (
    Cache, Rooms, Workspace, allot, build_for, check_unused, raise_signal, reserve, sequence_kernels, was_stopped,
)
from fastrnn._native._sequence cimport (
    EVERY_PHASE, STEPS, CompiledCell, SequenceCall, clear_call, clear_zeros, partition_of, plan_call, projected_steps, read_weights,
    reserve_pointers, reserve_states, run_backward, run_forward, type_of_weights, whole_cost,
)
from fastrnn._native.kernels cimport *
from libc.stdint cimport int64_t
from libc.string cimport memset

cnp.import_array()


cdef class SequenceCache(Cache):
    """What `forward` with training=True leaves for `backward`; used once. family: of the cell that ran."""

    def __repr__(self):
        used = ", used up" if self.states is None else ""
        return f"<cache of {self.family}_forward: T={self.T}, N={self.sequence.N}, H={self.sequence.H}{used}>"


# ---- Forward ----

def forward(CompiledCell cell not None, x, weight_ih, weight_hh=None, bias_ih=None, bias_hh=None, h0=None, c0=None,
            weight_hr=None, bias_hr=None, weight_peephole=None, scale_ih=None, scale_hh=None, scale_hr=None, lengths=None,
            reset_mask=None, mask=None, recurrent_mask=None, zoneout_h=None, zoneout_c=None, bint reverse=False, out=None,
            bint training=False, table=None):
    """Run one layer in one direction over a sequence. Returns (output, h_n, c_n or None, SequenceCache or None).

    scale_ih, scale_hh (G*H,), scale_hr (P,): of int8 weights, in inference.
    table: (V, D) vectors, x then being tokens (T, N), int64, C-contiguous, each in 0..V-1: the same as x = table[x], but each
    vector is projected once. `backward` then has a pair (tokens (K,), gradients (K, D)) of the vectors looked up for "x"."""
    if training and scale_ih is not None:
        raise TypeError("training: expected False for int8 weights, which are for inference, got True")
    cdef int typenum = type_of_weights(weight_ih, scale_ih), itemsize = 4 if typenum == cnp.NPY_FLOAT32 else 8
    cdef SequenceCall call
    cdef fr_sequence *q = &call.sequence
    cdef list held = []
    cell.start(&call)
    cdef long G = build_for(itemsize).sequence.gates(q.cell)
    read_weights(q, held, typenum, G, x, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, bias_hr, weight_peephole,
                 scale_ih, scale_hh, scale_hr)
    cdef cnp.ndarray output, h_n = None, c_n = None
    output = _read_x(q, held, typenum, x, out) if table is None else _read_tokens(q, held, typenum, x, table, out)
    _read_h0(q, held, typenum, h0, training or out is not None)
    cdef cnp.ndarray c0_ = None if c0 is None else dense(c0, "c0", typenum, "NH", 2, q.N, q.H)
    read_rows(q, held, lengths, reset_mask, mask, reverse, training, output)
    if recurrent_mask is not None or zoneout_h is not None or zoneout_c is not None:
        _read_noise(q, held, typenum, cnp.PyArray_DIM(output, 0), recurrent_mask, zoneout_h, zoneout_c)
    if q.args.weight_hh != NULL:
        h_n = new_array(typenum, q.N, q.P, -1, False)
    if q.cell == FR_LSTM:
        c_n = new_array(typenum, q.N, q.H, -1, False)

    q.training = training
    call.kernels = sequence_kernels(q, itemsize) if table is None else build_for(itemsize).sequence
    cdef Workspace states = pass_forward(&call, typenum, table, data_of(c0_), data_of(h_n), data_of(c_n))
    if not training:
        return output, h_n, c_n, None
    cdef SequenceCache cache = SequenceCache.__new__(SequenceCache)
    cache.sequence, cache.kernels, cache.typenum, cache.states, cache.arrays = call.sequence, call.kernels, typenum, states, held
    cache.T, cache.family = cnp.PyArray_DIM(output, 0), cell.family
    cache.lookup = None if table is None else (x, table)
    return output, h_n, c_n, cache


# Multiply-adds, some microseconds of them, for which a pass keeps the GIL: to hand it over would take longer than others gain.
cdef enum: SMALL_PASS = 20000


cdef Workspace pass_forward(SequenceCall *call, int typenum, table, const void *c0, void *h_n, void *c_n):
    """Run a call that has been read; returns what its backward pass needs."""
    cdef fr_sequence *q = &call.sequence
    cdef cnp.ndarray projected = None
    plan_call(call, True)
    if table is not None:
        q.input_projection = FR_AHEAD
    cdef Workspace states = _make_states(call), scratch = _make_scratch(call)  # no-cython-lint: scratch lives to the end
    if q.cell == FR_LSTM:
        call.kernels.pack_state(q, q.workspace.c, c0)
    if table is not None:
        projected = project_table(call, typenum, table)  # no-cython-lint: lives to the end
    if q.T:
        if call.threads == 1 and whole_cost(call) < SMALL_PASS:
            run_forward(call)
        else:
            with nogil:
                run_forward(call)
        if was_stopped(&call.work, whole_cost(call)):
            raise_signal()
    call.kernels.last_states(q, h_n, c_n)
    call.kernels.carry_outputs(q)
    return states


cdef cnp.ndarray _read_x(fr_sequence *q, list held, int typenum, x, out):
    """The output, new or `out`; `held` has the weights."""
    cdef cnp.ndarray output, x_ = read_series(x, "x", typenum, "TND", -1, -1, q.D)
    q.T, q.N = cnp.PyArray_DIM(x_, 0), cnp.PyArray_DIM(x_, 1)
    if q.N < 1:
        raise ValueError(f"x: expected shape (T, N, {q.D}) with N of at least 1, got {x.shape}")
    output = _make_output(q, held, typenum, x_, out)
    q.args.x = series_of(x_)
    held.append(x_)
    return output


cdef cnp.ndarray _read_tokens(fr_sequence *q, list held, int typenum, cnp.ndarray x, table, out):
    """The same for tokens, which are checked already."""
    q.args.x.data = hold(held, table, "table", typenum, "VD", 2, -1, q.D)
    q.T, q.N = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    q.args.tokens = <const int64_t *>cnp.PyArray_DATA(x)
    held.append(x)
    return _make_output(q, held, typenum, x, out)


cdef cnp.ndarray _make_output(fr_sequence *q, list held, int typenum, cnp.ndarray x_, out):
    cdef cnp.ndarray output, array
    if out is None:
        output = new_array(typenum, q.T, q.N, q.P, False)
    else:
        output = written_series(out, "out", typenum, "TNH" if q.P == q.H else "TNP", q.T, q.N, q.P)
        for array in (x_, *held):
            if np.may_share_memory(output, array) and np.shares_memory(output, array):
                name = "x" if array is x_ else "the weights"
                raise ValueError(f"out: expected an array apart from {name}, got one that overlaps it")
    q.args.output = series_of(output)
    held.append(output)
    return output


cdef int _read_h0(fr_sequence *q, list held, int typenum, h0, bint may_change) except -1:
    """may_change: h0 is often a view of the output of the call before, which may be written again."""
    if h0 is None:
        return 0
    cdef cnp.ndarray array = dense(h0, "h0", typenum, "NH" if q.P == q.H else "NP", 2, q.N, q.P)
    if array is h0 and may_change:
        array = array.copy()
    q.args.h0 = cnp.PyArray_DATA(array)
    held.append(array)
    return 0


cdef int _read_noise(fr_sequence *q, list held, int typenum, long T, recurrent_mask, zoneout_h, zoneout_c) except -1:
    """Recurrent dropout and zoneout; backward reads them again."""
    cdef str state = "NH" if q.P == q.H else "NP"
    cdef cnp.ndarray part
    q.args.recurrent_mask = hold(held, recurrent_mask, "recurrent_mask", typenum, state, 2, q.N, q.P)
    if zoneout_h is not None:
        part = read_series(zoneout_h, "zoneout_h", typenum, f"T{state}", T, q.N, q.P)
        q.args.zoneout_h = series_of(part)
        held.append(part)
    if zoneout_c is not None:
        part = read_series(zoneout_c, "zoneout_c", typenum, "TNH", T, q.N, q.H)
        q.args.zoneout_c = series_of(part)
        held.append(part)
    return 0


cdef Workspace _make_states(SequenceCall *call):
    """Room for what a backward pass needs."""
    cdef fr_sequence *q = &call.sequence
    cdef long rows = fr_packed(q, q.T) if q.training else q.N
    cdef double row = call.kernels.gates_row(q) + 2 * call.kernels.padded(q.H)
    cdef Rooms rooms
    if (<double>rows + q.N) * row * call.kernels.itemsize > <double>(1 << 62):
        raise MemoryError(f"no memory for states of a sequence of shape ({q.T}, {q.N}, {q.D})")
    memset(&rooms, 0, sizeof(rooms))
    reserve_states(&rooms, call, q.training, rows)
    cdef Workspace states = allot(&rooms)
    clear_zeros(call)
    return states


cdef Workspace _make_scratch(SequenceCall *call):
    """Room for what a forward pass alone needs."""
    cdef fr_sequence *q = &call.sequence
    cdef const fr_sequence_kernels *k = call.kernels
    cdef Rooms rooms
    memset(&rooms, 0, sizeof(rooms))
    if q.input_projection == FR_AHEAD:
        call.chunk = projected_steps(call, call.chunk)
    reserve(&rooms, &q.scratch.panels, k.panels_size(q), k.itemsize)
    reserve(&rooms, &q.scratch.inputs, 0 if q.input_projection != FR_AHEAD else call.chunk * q.N * k.inputs_row(q), k.itemsize)
    reserve(&rooms, &q.scratch.operands, k.operands_size(q, False), k.itemsize)
    reserve_pointers(&rooms, call)
    return allot(&rooms)


# ---- Backward ----

cdef enum: WORTH_COPIES = 500000000, MANY_ROWS = 2000  # multiply-adds; rows of all steps


def backward(SequenceCache cache not None, doutput, dh_n, dc_n, into):
    """Backpropagate through what `forward` ran; returns the dict of gradients."""
    if cache.kernels == NULL:
        raise TypeError("cache: expected one that a forward pass has made")
    check_unused(cache, f"{cache.family}_forward")
    cdef SequenceCall call
    clear_call(&call)
    call.sequence, call.kernels = cache.sequence, cache.kernels
    cdef fr_sequence *q = &call.sequence
    cdef int typenum = cache.typenum
    cdef bint is_lstm = q.cell == FR_LSTM
    check_names(into, _names(q))
    cdef str state = "NH" if q.P == q.H else "NP"
    cdef cnp.ndarray doutput_ = None, dh_n_ = None, dc_n_ = None
    if doutput is not None:
        doutput_ = read_series(doutput, "doutput", typenum, "TNH" if q.P == q.H else "TNP", cache.T, q.N, q.P)
        q.args.doutput = series_of(doutput_)
    if dh_n is not None:
        dh_n_ = dense(dh_n, "dh_n", typenum, state, 2, q.N, q.P)
    if dc_n is not None:
        dc_n_ = dense(dc_n, "dc_n", typenum, "NH", 2, q.N, q.H)
    q.args.dh_n = data_of(dh_n_)

    cdef dict gradients = {"x": _dx(cache, q, into), "h0": None}, sums = {}
    cdef cnp.ndarray dh0 = None, dc0 = None
    if q.args.weight_hh != NULL:
        dh0 = gradients["h0"] = new_array(typenum, q.N, q.P, -1, False)
    if is_lstm:
        dc0 = gradients["c0"] = new_array(typenum, q.N, q.H, -1, False)
    cdef dict state_sums = _state_gradients(q, into, typenum) if into is not None and dh0 is not None else {}
    q.args.dh0 = data_of(dh0)
    _weight_gradients(&call, typenum, sums, into, cache.lookup is not None)

    cdef list added = [] if into is None else [array for array in into.values() if array is not None]
    states, arrays = cache.states, cache.arrays  # no-cython-lint: alive until the end
    pass_backward(&call, cache, data_of(dc_n_), data_of(dc0), added)
    if cache.lookup is not None:
        gradients["x"] = gradients_of_table(&call, cache.lookup, sums["weight_ih"], into is None or "x" not in into)
    for name, total in state_sums.items():
        with np.errstate(all="ignore"):
            total += gradients[name]
        gradients[name] = into[name]
    gradients.update(sums)
    return gradients


cdef int pass_backward(SequenceCall *call, SequenceCache cache, const void *dc_n, void *dc0, list added) except -1:
    """Run a call that has been read, from what `cache` keeps, which it uses up. added: the caller's arrays that it adds to."""
    cdef fr_sequence *q = &call.sequence
    cdef double cost
    plan_call(call, False)
    cost = whole_cost(call)
    cdef list saved = _save(call, added)
    cdef Workspace scratch = _make_backward_scratch(call), states = cache.states  # no-cython-lint: alive until the end
    arrays = cache.arrays  # no-cython-lint: alive until the end
    cache.states = cache.arrays = None  # used up from here on
    call.kernels.pack_state(q, q.scratch.dstate, dc_n)
    if q.rows.times != NULL:
        call.kernels.gather_late(q)
    if q.args.zoneout_h.data != NULL:
        memset(q.scratch.dkept, 0, q.N * call.kernels.padded(q.P) * call.kernels.itemsize)
    if q.T:
        if call.threads == 1 and cost < SMALL_PASS:
            run_backward(call)
        else:
            with nogil:
                run_backward(call)
        if was_stopped(&call.work, cost if call.may_stop == EVERY_PHASE else 0):
            _stop(added, saved)
    elif q.args.dh0 != NULL:
        call.kernels.grad_state(q, partition_of(call, 0, 1, 0))
    if q.cell == FR_LSTM:
        call.kernels.unpack_state(q, dc0, q.scratch.dstate)
    return 0


cdef list _save(SequenceCall *call, list added):
    """Copies of the arrays that a long backward pass adds to, for a signal that stops it. Where there are few rows to add, the
    copies would cost more than 1% of the call: gradients that it has begun to add are finished instead."""
    if whole_cost(call) < WORTH_COPIES or fr_packed(&call.sequence, call.sequence.T) < MANY_ROWS:
        call.may_stop = STEPS
        return []
    return [array.copy() for array in added]


cdef int _stop(list added, list saved) except -1:
    """Raise what the handler of the signal has raised, with the caller's arrays as they were."""
    try:
        raise_signal()
    except BaseException:
        for array, before in zip(added, saved):
            array[...] = before
        raise


cdef list _names(const fr_sequence *q):
    """Of the arrays that have gradients."""
    cdef list names = ["x", "h0", "c0"] if q.cell == FR_LSTM else ["x", "h0"]
    names += ["weight_ih", "weight_hh"]
    if q.args.bias_ih != NULL:
        names.append("bias_ih")
    if q.args.bias_hh != NULL:
        names.append("bias_hh")
    if q.args.weight_hr != NULL:
        names.append("weight_hr")
    if q.args.bias_hr != NULL:
        names.append("bias_hr")
    if q.args.weight_peephole != NULL:
        names.append("weight_peephole")
    return names


cdef object _dx(SequenceCache cache, fr_sequence *q, into):
    """Written, unless it is the caller's: then added to. None where it is not asked for."""
    cdef cnp.ndarray dx
    if cache.lookup is not None:
        return None
    if into is None or "x" not in into:
        dx = new_array(cache.typenum, cache.T, q.N, q.D, q.rows.order != NULL)
    elif into["x"] is None:
        return None
    else:
        dx, q.args.dx_add = written_series(into["x"], "into['x']", cache.typenum, "TND", cache.T, q.N, q.D), True
    q.args.dx = series_of(dx)
    return dx


cdef dict _state_gradients(const fr_sequence *q, into, int typenum):
    """The caller's arrays that gradients of the first state are added to."""
    cdef dict found = {}
    if into.get("h0") is not None:
        found["h0"] = gradient(into, "h0", typenum, "NH", 2, q.N, q.P)
    if into.get("c0") is not None:
        found["c0"] = gradient(into, "c0", typenum, "NH", 2, q.N, q.H)
    return found


cdef int _weight_gradients(SequenceCall *call, int typenum, dict sums, into, bint looked_up) except -1:
    """Where the gradients of weights are added up, entries of `sums` from now on."""
    cdef fr_sequence *q = &call.sequence
    cdef long GH = call.kernels.gates(q.cell) * q.H
    sums.update({"weight_ih": None, "weight_hh": None, "bias_ih": None, "bias_hh": None})  # keys that are there in any case
    q.args.dweight_ih = _sum(sums, into, "weight_ih", typenum, "GD", 2, GH, q.D, True)
    if looked_up:
        q.args.dweight_ih = NULL  # of few rows, at the end: gradients_of_table
    q.args.dweight_hh = _sum(sums, into, "weight_hh", typenum, "GH", 2, GH, q.P, q.args.weight_hh != NULL)
    q.args.dbias_ih = _sum(sums, into, "bias_ih", typenum, "G", 1, GH, -1, q.args.bias_ih != NULL)
    q.args.dbias_hh = _sum(sums, into, "bias_hh", typenum, "G", 1, GH, -1, q.args.bias_hh != NULL)
    q.args.dweight_hr = _sum(sums, into, "weight_hr", typenum, "PH", 2, q.P, q.H, q.args.weight_hr != NULL)
    q.args.dbias_hr = _sum(sums, into, "bias_hr", typenum, "P", 1, q.P, -1, q.args.bias_hr != NULL)
    q.args.dweight_peephole = _sum(sums, into, "weight_peephole", typenum, "H", 1, 3 * q.H, -1, q.args.weight_peephole != NULL)
    return 0


cdef void *_sum(dict sums, object into, str name, int typenum, str letters, int ndim, long d0, long d1, bint wanted) except? NULL:
    """NULL where there is no such weight."""
    if not wanted:
        return NULL
    cdef cnp.ndarray array = gradient(into, name, typenum, letters, ndim, d0, d1)
    sums[name] = array
    return cnp.PyArray_DATA(array)


cdef Workspace _make_backward_scratch(SequenceCall *call):
    cdef fr_sequence *q = &call.sequence
    cdef const fr_sequence_kernels *k = call.kernels
    cdef int itemsize = k.itemsize
    cdef Rooms rooms
    memset(&rooms, 0, sizeof(rooms))
    reserve(&rooms, &q.scratch.dstate, q.N * k.padded(q.H), itemsize)
    reserve(&rooms, &q.scratch.panels_h, k.panels_h_size(q), itemsize)
    reserve(&rooms, &q.scratch.panels_x, k.panels_x_size(q) if q.args.dx.data else 0, itemsize)
    reserve(&rooms, &q.scratch.operands, k.operands_size(q, True), itemsize)
    reserve(&rooms, &q.scratch.gradients, k.gradients_size(q, call.threads), itemsize)
    reserve(&rooms, &q.scratch.dprojected, fr_packed(q, q.T) * k.padded(q.P) if q.args.weight_hr else 0, itemsize)
    if q.args.zoneout_h.data != NULL:
        reserve(&rooms, &q.scratch.dkept, q.N * k.padded(q.P), itemsize)
    if q.rows.times != NULL:
        reserve(&rooms, &q.scratch.dlate, q.rows.late_count * q.P, itemsize)
    reserve_pointers(&rooms, call)
    return allot(&rooms)
