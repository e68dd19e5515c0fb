"""The compiled core: the loops over time, forward and backward, and what Python calls.

T time steps, N batch, D input_size, H hidden_size, R width of h (H, or P where a projection follows), G gates.

Design:
a) The loops know no cell, dtype or instruction set: a step is a few calls through a table of kernels. A step of the
   smallest network takes 0.3 us, so calls through a pointer cost nothing that shows.
b) A pass is cut into pieces that any thread may take (work.h). By rows of the batch, a piece is some rows over a chunk of
   steps, and threads hardly ever meet; by hidden units, it is some units of one step, and they meet before each step.
c) Arrays come with strides over time and batch: batch-first layouts and the two halves of a bidirectional output are
   views, never copies. Lengths, resets and reversed time are a matter of which row a pointer leads to (rows.h).
d) All checks are made here, once, before the GIL is released for the whole sequence.
"""

import os

import numpy as np

cimport numpy as cnp
from kernels cimport *
from libc.math cimport INFINITY, exp, isfinite, sqrt
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

cnp.import_array()

include "settings.pxi"
include "arrays.pxi"


# ---- The loops over time ----

cdef struct Job:
    fr_sequence sequence
    const fr_sequence_kernels *kernels
    int passes, by_units, packed
    long chunk  # steps of a piece of rows; steps whose inputs are projected together
    int weight_shares  # how many ways the gradients of weights are cut
    void **pointers  # FR_POINTERS * N for each thread
    fr_work work


cdef fr_partition share_of(const Job *job, int id, int count, int worker) noexcept nogil:
    cdef fr_partition share
    share.id, share.count, share.worker, share.by_units = id, count, worker, job.by_units
    share.pointers = job.pointers + worker * FR_POINTERS * job.sequence.N
    return share


cdef long step_phases(const Job *job) noexcept nogil:
    """Phases that the loop over time is cut into: by units one for each pass of each step, by rows one for each chunk."""
    return job.sequence.T * job.passes if job.by_units else (job.sequence.T + job.chunk - 1) // job.chunk


cdef void plan_forward(Job *job, int shares) noexcept nogil:
    """Phases: packing, then the steps."""
    cdef const fr_sequence *q = &job.sequence
    cdef int packing = not job.packed
    # Chunks of rows with lengths have their inputs where another's were in the chunk before.
    cdef bint meet = job.by_units or (q.input_projection == FR_AHEAD and q.rows.order)
    fr_plan_work(&job.work, packing + step_phases(job), shares, job.by_units)
    job.work.meet_until = job.work.phases if meet else packing


cdef void forward_piece(const Job *job, fr_sequence *q, long phase, fr_partition share) noexcept nogil:
    """One piece of a forward pass over the whole sequence. q: a copy of job.sequence, as threads are at different chunks."""
    cdef const fr_sequence_kernels *k = job.kernels
    cdef long s = 0, begin, end
    cdef int p
    if not job.packed:
        if phase == 0:
            k.pack_forward(q, share)
            return
        phase -= 1
    begin = phase * job.chunk
    if job.by_units:
        s = phase // job.passes
        begin = s - s % job.chunk
    end = min(begin + job.chunk, q.T)
    if q.input_projection == FR_AHEAD:
        q.scratch.inputs_start = fr_packed(q, begin)
        if not job.by_units or phase == begin * job.passes:
            k.project(q, begin, end, share)
    if job.by_units:
        k.step_forward(q, phase % job.passes, s, share)
        return
    for s in range(begin, end):
        for p in range(job.passes):
            k.step_forward(q, p, s, share)


cdef void forward_body(void *arg, int id) noexcept nogil:
    """What one thread does of a forward pass."""
    cdef Job *job = <Job *>arg
    cdef fr_sequence q = job.sequence
    cdef fr_piece piece
    memset(&piece, 0, sizeof(piece))
    while fr_next(&job.work, id, &piece):
        forward_piece(job, &q, piece.phase, share_of(job, piece.share, job.work.shares, id))


cdef void plan_backward(Job *job, int shares) noexcept nogil:
    """Phases: packing, the steps from the last to the first, the gradients of weights, those of inputs and of the state."""
    cdef long steps = step_phases(job)
    fr_plan_work(&job.work, steps + 3, shares, job.by_units)
    job.work.meet_until, job.work.meet_at = steps if job.by_units else 1, steps + 1


cdef void backward_piece(const Job *job, long phase, fr_partition share) noexcept nogil:
    """One piece of backpropagation through time, and of the gradients that follow from it."""
    cdef const fr_sequence_kernels *k = job.kernels
    cdef const fr_sequence *q = &job.sequence
    cdef long s, steps = step_phases(job), begin
    cdef int p
    if phase == 0:
        k.pack_backward(q, share)
    elif phase > steps + 1:
        if q.args.dx.data:
            k.grad_input(q, share)
        if q.args.dh0:
            k.grad_state(q, share)
    elif phase > steps:
        share.count = job.weight_shares
        if share.id < share.count:
            k.grad_weights(q, share)
    elif job.by_units:
        k.step_backward(q, (phase - 1) % job.passes, q.T - 1 - (phase - 1) // job.passes, share)
    else:
        begin = (steps - phase) * job.chunk
        for s in range(min(begin + job.chunk, q.T) - 1, begin - 1, -1):
            for p in range(job.passes):
                k.step_backward(q, p, s, share)


cdef void backward_body(void *arg, int id) noexcept nogil:
    """What one thread does of a backward pass."""
    cdef Job *job = <Job *>arg
    cdef fr_piece piece
    memset(&piece, 0, sizeof(piece))
    while fr_next(&job.work, id, &piece):
        backward_piece(job, piece.phase, share_of(job, piece.share, job.work.shares, id))


# ---- What Python calls ----

cdef class Block:
    """Workspace that is handed back with the last reference to it."""
    cdef char *at

    def __dealloc__(self):
        fr_release(self.at)


cdef Block _block(size_t size):
    cdef Block block = Block.__new__(Block)
    block.at = <char *>fr_acquire(size)
    if block.at == NULL:
        raise MemoryError(f"no memory for {size} bytes of workspace")
    return block


cdef class Tape:
    """What a forward pass with training=True leaves for its backward pass; used once."""
    cdef fr_sequence sequence
    cdef const fr_sequence_kernels *kernels
    cdef int typenum
    cdef Block states
    cdef tuple arrays
    cdef str owner  # of what shares the RNN's kernels; "" for the cells themselves

    def __reduce__(self):
        raise TypeError("a forward pass' cache cannot be pickled")


include "lengths.pxi"
include "arguments.pxi"


cdef long _zeros_row(const fr_sequence_kernels *k, const fr_sequence *q) noexcept nogil:
    return max(k.gates_row(q), k.padded(q.H), k.padded(q.P))


def forward(int cell, int activation, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, out, bint training, *,
            int gate_activation=FR_SIGMOID, clip=None, weight_peephole=None, weight_hr=None, bias_hr=None,
            int output_activation=FR_IDENTITY, lengths=None, reset_mask=None, bint reverse=False):
    """Run one layer in one direction over a sequence. Returns (output, h_n, c_n or None, Tape or None)."""
    cdef int typenum = _real_type(weight_ih, "weight_ih")
    cdef int itemsize = 4 if typenum == cnp.NPY_FLOAT32 else 8
    cdef const fr_sequence_kernels *k
    cdef Job job
    cdef fr_sequence *q = &job.sequence
    memset(&job, 0, sizeof(job))
    if not 0 <= cell <= FR_RNN or not (0 <= activation <= FR_HARD_SIGMOID_6 and 0 <= gate_activation <= FR_HARD_SIGMOID_6
                                       and 0 <= output_activation <= FR_SOFTMAX):
        raise ValueError(f"cell, activation: expected values of CELLS and ACTIVATIONS, got {cell}, {activation}")
    q.cell, q.activation, q.gate_activation, q.output_activation = cell, activation, gate_activation, output_activation
    q.clip = 0 if clip is None else clip
    cdef list held = []
    _read_arguments(q, fr_build_for(_isa, itemsize).sequence.gates(cell), typenum, held, x, h0, weight_ih, weight_hh, bias_ih, bias_hh,
                    weight_hr, bias_hr, weight_peephole, out, training)
    job.kernels = k = sequence_kernels(q, itemsize)
    cdef bint is_lstm = cell == FR_LSTM, has_inner = k.has_inner(q), recurrent = q.args.weight_hh != NULL
    cdef cnp.ndarray output = held[1], h_n = None, c_n = None, c0_ = None
    if c0 is not None:
        c0_ = _dense(c0, "c0", typenum, "NH", 2, q.N, q.H)
    if training and isinstance(reset_mask, np.ndarray):
        reset_mask = reset_mask.copy()  # backward reads it again
    _read_rows(q, held, lengths, reset_mask, reverse)
    if recurrent:
        h_n = _new(typenum, q.N, q.P, -1, False)
    if is_lstm:
        c_n = _new(typenum, q.N, q.H, -1, False)

    cdef Plan plan = choose_plan(q, k)
    cdef long slots_Hp = k.gates_row(q), row = k.inputs_row(q), Hp = k.padded(q.H)
    cdef long kept = fr_packed(q, q.T) if training else q.N
    q.input_projection = FR_FUSED if plan.fused else FR_AHEAD
    job.by_units, job.passes = plan.by_units, k.passes(q)
    q.training = training
    job.chunk = plan.chunk if plan.fused else max(1, min(plan.chunk, (1 << 20) // (q.N * row * itemsize)))
    if (<double>kept + q.N) * (slots_Hp + 2 * Hp) * itemsize > <double>(1 << 62):
        raise MemoryError(f"no memory for states of a sequence of shape {x.shape}")

    # Two blocks of workspace: the states, which a backward pass needs, and what only this call needs.
    cdef bint needs_gates = training or cell == FR_GRU_RESET_BEFORE
    cdef size_t of_states = 0, of_call = 0
    cdef size_t gates_at = _room(&of_states, kept * slots_Hp if needs_gates else 0, itemsize)
    cdef size_t c_at = _room(&of_states, (q.N + (kept if training else 0)) * Hp if is_lstm else 0, itemsize)
    cdef size_t inner_at = _room(&of_states, kept * Hp if has_inner else 0, itemsize)
    cdef size_t bias_at = _room(&of_states, k.bias_size(q), itemsize)
    cdef size_t zeros_at = _room(&of_states, _zeros_row(k, q), itemsize)
    cdef size_t panels_at = _room(&of_call, k.panels_size(q), itemsize)
    cdef size_t inputs_at = _room(&of_call, 0 if plan.fused else job.chunk * q.N * row, itemsize)
    cdef size_t operand_at = _room(&of_call, k.operands_size(q, False), itemsize)
    cdef size_t pointers_at = _room(&of_call, plan.threads * FR_POINTERS * q.N, sizeof(void *))
    cdef Block states = _block(of_states), call = _block(of_call)
    q.scratch.panels, q.workspace.bias, q.scratch.inputs = call.at + panels_at, states.at + bias_at, call.at + inputs_at
    q.scratch.operands = call.at + operand_at
    q.workspace.zeros = states.at + zeros_at
    memset(q.workspace.zeros, 0, _zeros_row(k, q) * itemsize)
    job.pointers = <void **>(call.at + pointers_at)
    if needs_gates:
        q.workspace.gates = states.at + gates_at
    if has_inner:
        q.workspace.inner = states.at + inner_at
    if is_lstm:
        q.workspace.c = states.at + c_at
        k.pack_state(q, q.workspace.c, _data(c0_))
    if q.T:
        with nogil:
            plan_forward(&job, plan.shares)
            fr_parallel(plan.threads, forward_body, &job)
    k.last_states(q, _data(h_n), _data(c_n))
    if not training:
        return output, h_n, c_n, None
    cdef Tape tape = Tape.__new__(Tape)
    tape.sequence, tape.kernels, tape.typenum, tape.states, tape.arrays = job.sequence, k, typenum, states, tuple(held)
    tape.owner = "linear_forward" if not recurrent else "jordan_forward" if cell == FR_RNN and q.args.weight_hr else ""
    return output, h_n, c_n, tape


cdef cnp.ndarray _gradient(object into, str name, int typenum, str letters, int ndim, long d0, long d1):
    """The array that a gradient is added to: the caller's, or a new one of zeros."""
    given = into.get(name) if into is not None else None
    if given is None:
        return _new(typenum, d0, d1, -1, True)
    cdef cnp.ndarray array = _dense(given, f"into[{name!r}]", typenum, letters, ndim, d0, d1)
    _check_written(array, given, f"into[{name!r}]")
    return array


cdef void *_sum(dict sums, object into, str name, int typenum, str letters, int ndim, long d0, long d1, bint wanted) except? NULL:
    """Where a weight's gradient is added up, an entry of `sums` from now on; NULL where there is no such weight."""
    if not wanted:
        return NULL
    sums[name] = _gradient(into, name, typenum, letters, ndim, d0, d1)
    return cnp.PyArray_DATA(<cnp.ndarray>sums[name])


def backward(str owner, tuple cells, cache, doutput, dh_n, dc_n, into):
    """Backpropagate through what `forward` ran for `owner`, one of `cells`; returns the dict of gradients."""
    if not isinstance(cache, Tape) or (<Tape>cache).kernels == NULL or (<Tape>cache).sequence.cell not in cells or (
            (<Tape>cache).owner != (owner if owner in ("linear_forward", "jordan_forward") else "")):
        raise TypeError(f"cache: expected the cache of {owner} in training, got {type(cache).__name__}"
                        f"{' of another cell' if isinstance(cache, Tape) else ''}")
    cdef Tape tape = <Tape>cache
    if tape.states is None:
        raise RuntimeError(f"cache: already consumed by an earlier backward; run {owner} again")
    cdef Job job
    cdef fr_sequence *q = &job.sequence
    cdef const fr_sequence_kernels *k = tape.kernels
    cdef int typenum = tape.typenum, itemsize = k.itemsize, G = k.gates(tape.sequence.cell)
    memset(&job, 0, sizeof(job))
    job.sequence, job.kernels = tape.sequence, k
    cdef bint is_lstm = q.cell == FR_LSTM, recurrent = q.args.weight_hh != NULL, has_lengths = q.rows.order != NULL
    names = ["x", "h0", "c0", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "bias_hr", "weight_peephole"]
    for name, there in (("c0", is_lstm), ("bias_ih", q.args.bias_ih != NULL), ("bias_hh", q.args.bias_hh != NULL),
                        ("weight_hr", q.args.weight_hr != NULL), ("bias_hr", q.args.bias_hr != NULL),
                        ("weight_peephole", q.args.weight_peephole != NULL)):
        if not there:
            names.remove(name)
    for name in into or ():
        if name not in names:
            raise ValueError(f"into: expected keys among {', '.join(names)}, got {name!r}")

    cdef cnp.ndarray doutput_ = None, dh_n_ = None, dc_n_ = None
    cdef long T = cnp.PyArray_DIM(<cnp.ndarray>tape.arrays[1], 0)  # q.T ends with the longest sequence
    if doutput is not None:
        doutput_ = _read_series(doutput, "doutput", typenum, "TNH" if q.P == q.H else "TNP", T, q.N, q.P)
        q.args.doutput = _series(doutput_)
    if dh_n is not None:
        dh_n_ = _dense(dh_n, "dh_n", typenum, "NH" if q.P == q.H else "NP", 2, q.N, q.P)
    if dc_n is not None:
        dc_n_ = _dense(dc_n, "dc_n", typenum, "NH", 2, q.N, q.H)
    q.args.dh_n = _data(dh_n_)

    # Parameter gradients are added to, states and x are written, unless they are the caller's: then added too.
    cdef cnp.ndarray dx = None, dh0 = None, dc0 = None
    given = into.get("x") if into is not None else None
    if into is None or "x" not in into:
        dx = _new(typenum, T, q.N, q.D, has_lengths)
    elif given is not None:  # None: nobody wants it
        dx, q.args.dx_add = _written_series(given, "into['x']", typenum, "TND", T, q.N, q.D), True
    if dx is not None:
        q.args.dx = _series(dx)
    gradients = {"x": dx, "h0": None}
    state_sums = {}
    if recurrent:
        dh0 = gradients["h0"] = _new(typenum, q.N, q.P, -1, False)
        for name, width in (("h0", q.P), ("c0", q.H)) if into is not None else ():
            if into.get(name) is not None:
                state_sums[name] = _gradient(into, name, typenum, "NH", 2, q.N, width)
    if is_lstm:
        dc0 = gradients["c0"] = _new(typenum, q.N, q.H, -1, False)
    q.args.dh0 = _data(dh0)
    cdef dict sums = dict.fromkeys(("weight_ih", "weight_hh", "bias_ih", "bias_hh"))  # keys that are there in any case
    q.args.dweight_ih = _sum(sums, into, "weight_ih", typenum, "GD", 2, G * q.H, q.D, True)
    q.args.dweight_hh = _sum(sums, into, "weight_hh", typenum, "GH", 2, G * q.H, q.P, recurrent)
    q.args.dbias_ih = _sum(sums, into, "bias_ih", typenum, "G", 1, G * q.H, -1, q.args.bias_ih != NULL)
    q.args.dbias_hh = _sum(sums, into, "bias_hh", typenum, "G", 1, G * q.H, -1, q.args.bias_hh != NULL)
    q.args.dweight_hr = _sum(sums, into, "weight_hr", typenum, "RH", 2, q.P, q.H, q.args.weight_hr != NULL)
    q.args.dbias_hr = _sum(sums, into, "bias_hr", typenum, "R", 1, q.P, -1, q.args.bias_hr != NULL)
    q.args.dweight_peephole = _sum(sums, into, "weight_peephole", typenum, "H", 1, 3 * q.H, -1, q.args.weight_peephole != NULL)

    cdef Plan plan = choose_plan(q, k)
    job.by_units, job.passes, job.chunk = plan.by_units, k.passes(q), plan.chunk
    job.weight_shares = share_out_weights(&plan, q.H / k.lanes)
    cdef size_t size = 0
    cdef size_t carry_at = _room(&size, q.N * k.padded(q.H), itemsize)
    cdef size_t h_at = _room(&size, k.panels_h_size(q), itemsize), x_at = _room(&size, k.panels_x_size(q) if q.args.dx.data else 0, itemsize)
    cdef size_t operand_at = _room(&size, k.operands_size(q, True), itemsize)
    cdef size_t scratch_at = _room(&size, k.gradients_size(q, plan.threads), itemsize)
    cdef size_t projected_at = _room(&size, fr_packed(q, q.T) * k.padded(q.P) if q.args.weight_hr else 0, itemsize)
    cdef size_t pointers_at = _room(&size, plan.threads * FR_POINTERS * q.N, sizeof(void *))
    cdef Block call = _block(size), states = tape.states  # no-cython-lint: alive until the end
    arrays = tape.arrays  # no-cython-lint: alive until the end
    tape.states, tape.arrays = None, None  # used up from here on
    q.scratch.dstate, q.scratch.panels_h, q.scratch.panels_x, q.scratch.gradients = call.at + carry_at, call.at + h_at, call.at + x_at, call.at + scratch_at
    q.scratch.operands = call.at + operand_at
    q.scratch.dprojected, job.pointers = call.at + projected_at, <void **>(call.at + pointers_at)
    k.pack_state(q, q.scratch.dstate, _data(dc_n_))
    if q.T:
        with nogil:
            plan_backward(&job, plan.shares)
            fr_parallel(plan.threads, backward_body, &job)
    elif recurrent:
        dh0[...] = 0 if dh_n is None else dh_n
    if is_lstm:
        k.unpack_state(q, cnp.PyArray_DATA(dc0), q.scratch.dstate)
    for name, total in state_sums.items():
        with np.errstate(all="ignore"):
            total += gradients[name]
        gradients[name] = into[name]
    gradients.update(sums)
    return gradients


include "infer.pxi"
include "stack.pxi"
include "chooser.pxi"
include "stream.pxi"
include "stream_rows.pxi"

CELLS = {"lstm": FR_LSTM, "gru": FR_GRU, "gru_reset_before": FR_GRU_RESET_BEFORE, "rnn": FR_RNN}
ACTIVATIONS = {"tanh": FR_TANH, "relu": FR_RELU, "sigmoid": FR_SIGMOID, "identity": FR_IDENTITY,
               "hard_sigmoid": FR_HARD_SIGMOID, "hard_sigmoid_6": FR_HARD_SIGMOID_6, "softmax": FR_SOFTMAX}

include "optimize.pxi"
include "losses.pxi"
include "trees.pxi"
