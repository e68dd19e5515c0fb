"""One layer of a chain: its start, its step for some rows, its state. Letters as in _stream.pyx."""

cimport numpy as cnp
from fastrnn._native._arrays cimport new_array
from fastrnn._native._plan cimport DENSE, SPARSE, Plan, choose_plan
from fastrnn._native._runtime cimport Rooms, allot, allot_nogil, build_for, reserve, return_workspace, stream_kernels
from fastrnn._native._sequence cimport (
    NO_PHASE, CompiledCell, SequenceCall, clear_zeros, follow_plan, partition_of, plan_call, read_weights, reserve_pointers,
    reserve_states, run_forward,
)
from fastrnn._native._stack cimport Packed, Stack
from fastrnn._native._subset cimport put_rows, take_rows
from fastrnn._native.kernels cimport *
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

cnp.import_array()


cdef enum: LONG_BLOCK = 1 << 20  # steps


cdef int start_layer(ChainLayer *layer, long N, int typenum, CompiledCell cell, dict weights, list held) except -1:
    """Read one layer, give it room and pack its weights."""
    cdef SequenceCall *call = &layer.call
    cdef fr_sequence *q = &call.sequence
    cdef int itemsize = 4 if typenum == cnp.NPY_FLOAT32 else 8
    cell.start(call)
    read_weights(q, [], typenum, build_for(itemsize).sequence.gates(q.cell), None, weights["weight_ih"], weights.get("weight_hh"),
                 weights.get("bias_ih"), weights.get("bias_hh"), weights.get("weight_hr"), None, weights.get("weight_peephole"),
                 weights.get("scale_ih"), weights.get("scale_hh"), weights.get("scale_hr"))
    cdef const fr_sequence_kernels *k = stream_kernels(q, itemsize)
    call.kernels = k
    _read_zoneout(q, typenum, weights.get("zoneout", ()), held)
    q.T, q.N, call.packed = 1, 1, True
    layer.alone_projects_ahead = not choose_plan(q, k, True, SPARSE).fused
    q.N = N
    layer.alone, layer.shared = choose_plan(q, k, True, SPARSE), choose_plan(q, k, True, DENSE)
    layer.projects_ahead = not layer.alone.fused
    q.T = LONG_BLOCK
    layer.threads = max(choose_plan(q, k, True, SPARSE).threads, max(layer.alone.threads, layer.shared.threads))
    q.T = 1
    plan_step(layer, &layer.alone)
    call.threads = layer.threads  # to reserve memory for all of them
    cdef Rooms rooms
    memset(&rooms, 0, sizeof(rooms))
    cdef Stack stack = weights.get("stack")
    cdef Packed shared = None if stack is None else stack.pack(k)
    cdef int index = weights.get("index", 0)
    reserve(&rooms, &q.scratch.panels, k.panels_size(q) if shared is None else 0, itemsize)
    reserve_states(&rooms, call, False, q.N)
    reserve(&rooms, &q.scratch.operands, k.operands_size(q, False), itemsize)
    reserve_pointers(&rooms, call)
    held.append(allot(&rooms))
    call.threads = layer.alone.threads
    clear_zeros(call)
    if q.cell == FR_LSTM:
        k.pack_state(q, q.workspace.c, NULL)
    cdef cnp.ndarray y = new_array(typenum, q.N, q.P, -1, False), h = new_array(typenum, q.N, q.P, -1, True)
    held += [y, h]
    layer.y = cnp.PyArray_DATA(y)
    if q.args.weight_hh != NULL:
        layer.h = cnp.PyArray_DATA(h)
    cdef fr_partition all_of_it = partition_of(call, 0, 1, 0)
    all_of_it.by_units = 0
    if shared is None:
        with nogil:
            k.pack_forward(q, all_of_it)
    else:
        q.scratch.panels, q.workspace.bias = shared.at[2 * index], shared.at[2 * index + 1]
        held.append(shared)
    return 0


cdef void plan_step(ChainLayer *layer, const Plan *plan) noexcept nogil:
    """A single step, which is finished when a signal comes."""
    follow_plan(&layer.call, plan)
    layer.call.chunk, layer.call.may_stop = 1, NO_PHASE
    layer.call.sequence.input_projection = FR_SEQUENTIAL if layer.projects_ahead else FR_FUSED


cdef void plan_block(ChainLayer *layer, long T) noexcept nogil:
    """T steps, with as many threads as such a sequence has, but no more than there is memory for."""
    cdef fr_sequence *q = &layer.call.sequence
    q.T = T
    cdef Plan plan = choose_plan(q, layer.call.kernels, True, SPARSE)
    plan.threads = min(plan.threads, layer.threads)
    if plan.by_units:
        plan.partitions, plan.by_units = plan.threads, plan.threads > 1
    follow_plan(&layer.call, &plan)
    q.input_projection = FR_AHEAD if layer.projects_ahead else FR_FUSED


cdef int _read_zoneout(fr_sequence *q, int typenum, parts, list held) except -1:
    """The part of each state that is kept at a step, for inference the same for all units."""
    cdef cnp.ndarray row
    for series, part, width in zip("hc", parts, (q.P, q.H)):
        if part:
            row = new_array(typenum, width, -1, -1, False)
            row[...] = part
            held.append(row)
            if series == "h":
                q.args.zoneout_h.data = cnp.PyArray_DATA(row)
            else:
                q.args.zoneout_c.data = cnp.PyArray_DATA(row)
    return 0


cdef int advance_rows(ChainLayer *layer, fr_series x, fr_series out, const int64_t *rows, long n) noexcept nogil:
    """One step of one layer for n rows, each with the bits of a stream of its own. -1 without memory."""
    cdef SequenceCall call = layer.call
    cdef fr_sequence *q = &call.sequence
    cdef const fr_sequence_kernels *k = call.kernels
    cdef size_t h_row = q.P * k.itemsize, c_row = k.padded(q.H) * k.itemsize
    cdef char *c = <char *>q.workspace.c  # of all rows
    cdef void *h = NULL
    cdef Rooms rooms
    q.N, q.T, q.as_one_row = n, 1, True
    plan_call(&call, True)
    q.input_projection, call.chunk = FR_SEQUENTIAL if layer.alone_projects_ahead else FR_FUSED, 1
    memset(&rooms, 0, sizeof(rooms))
    reserve(&rooms, &h, n * q.P, k.itemsize)
    if c != NULL:
        reserve(&rooms, &q.workspace.c, n * k.padded(q.H), k.itemsize)
    reserve(&rooms, &q.scratch.operands, k.operands_size(q, False), k.itemsize)
    reserve_pointers(&rooms, &call)
    cdef char *at = allot_nogil(&rooms)
    if at == NULL:
        return -1
    q.args.x, q.args.output, q.args.h0 = x, out, NULL
    if layer.h != NULL:
        take_rows(<char *>h, <char *>layer.h, rows, n, h_row)
        q.args.h0 = h
    if c != NULL:
        take_rows(<char *>q.workspace.c, c, rows, n, c_row)
    run_forward(&call)
    if layer.h != NULL:
        put_rows(<char *>layer.h, <char *>out.data, rows, n, h_row)
    if c != NULL:
        put_rows(c, <char *>q.workspace.c, rows, n, c_row)
    return_workspace(at)
    return 0


cdef tuple state_of_rows(const ChainLayer *layer, int typenum, const int64_t *rows, long n):
    cdef const fr_sequence *q = &layer.call.sequence
    cdef int itemsize = layer.call.kernels.itemsize
    cdef size_t wide = layer.call.kernels.padded(q.H) * itemsize
    cdef cnp.ndarray c, h = new_array(typenum, n, q.P, -1, False)
    cdef long i
    take_rows(<char *>cnp.PyArray_DATA(h), <char *>layer.h, rows, n, q.P * itemsize)
    if q.cell != FR_LSTM:
        return (h,)
    c = new_array(typenum, n, q.H, -1, False)
    for i in range(n):
        memcpy(<char *>cnp.PyArray_DATA(c) + i * q.H * itemsize, <char *>q.workspace.c + rows[i] * wide, q.H * itemsize)
    return h, c


cdef void set_state_of_rows(ChainLayer *layer, cnp.ndarray h, cnp.ndarray c, const int64_t *rows, long n) noexcept:
    cdef const fr_sequence *q = &layer.call.sequence
    cdef int itemsize = layer.call.kernels.itemsize
    cdef size_t wide = layer.call.kernels.padded(q.H) * itemsize
    cdef long i
    put_rows(<char *>layer.h, <char *>cnp.PyArray_DATA(h), rows, n, q.P * itemsize)
    for i in range(n if c is not None else 0):
        memcpy(<char *>q.workspace.c + rows[i] * wide, <char *>cnp.PyArray_DATA(c) + i * q.H * itemsize, q.H * itemsize)
