"""The compiled core: the loops over time, forward and backward, and what Python calls.

T time steps, N batch, D input_size, H hidden_size, G gates.

Design:
a) The loops know no cell, dtype or instruction set: a step is a few calls through a table of kernels. A step of the
   smallest network takes 0.3 us, so calls through a pointer cost nothing that shows.
b) One loop each way serves both ways of sharing work out. By rows of the batch, threads never meet; by hidden units they
   meet at a barrier before each step.
c) Arrays come with strides over time and batch: batch-first layouts, the reverse direction (a negative time stride) and
   the two halves of a bidirectional output are views, never copies.
d) All checks are made here, once, before the GIL is released for the whole sequence.
"""

import os

import numpy as np

cimport numpy as cnp
from kernels cimport *
from libc.string cimport memset

cnp.import_array()

include "settings.pxi"
include "arrays.pxi"


# ---- The loops over time ----

cdef struct Job:
    fr_sequence sequence
    const fr_kernels *kernels
    int passes, by_units
    long chunk  # steps whose inputs are projected together
    fr_barrier barrier


cdef void forward_part(void *arg, int id, int threads) noexcept nogil:
    """One thread's part of a forward pass over the whole sequence."""
    cdef Job *job = <Job *>arg
    cdef const fr_kernels *k = job.kernels
    cdef fr_sequence q = job.sequence  # a copy: threads are at different chunks
    cdef fr_share share
    cdef long s, begin = 0, end
    cdef int p
    share.id, share.threads, share.by_units = id, threads, job.by_units
    k.pack_forward(&q, share)
    fr_barrier_wait(&job.barrier, threads)
    while begin < q.T:
        end = min(begin + job.chunk, q.T)
        if not q.fused:
            q.inputs_start = begin
            k.project(&q, begin, end, share)
        for s in range(begin, end):
            for p in range(job.passes):
                if job.by_units and s + p > 0:
                    fr_barrier_wait(&job.barrier, threads)
                k.step_forward(&q, p, s, share)
        begin = end


cdef void backward_part(void *arg, int id, int threads) noexcept nogil:
    """One thread's part of backpropagation through time, and of the gradients that follow from it."""
    cdef Job *job = <Job *>arg
    cdef const fr_kernels *k = job.kernels
    cdef const fr_sequence *q = &job.sequence
    cdef fr_share share
    cdef long s
    cdef int p
    share.id, share.threads, share.by_units = id, threads, job.by_units
    k.pack_backward(q, share)
    fr_barrier_wait(&job.barrier, threads)
    for s in range(q.T - 1, -1, -1):
        for p in range(job.passes):
            if job.by_units and (s + 1 < q.T or p > 0):
                fr_barrier_wait(&job.barrier, threads)
            k.step_backward(q, p, s, share)
    fr_barrier_wait(&job.barrier, threads)
    if q.dx.data:
        k.grad_input(q, 0, q.T, share)
    k.grad_weights(q, 0, q.T, share)
    if q.dh0:
        k.grad_state(q, share)


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
    cdef const fr_kernels *kernels
    cdef int typenum
    cdef Block states
    cdef tuple arrays

    def __reduce__(self):
        raise TypeError("a forward pass' cache cannot be pickled")


cdef int _read_arguments(fr_sequence *q, int G, int typenum, list held, x, h0, weight_ih, weight_hh, bias_ih, bias_hh,
                         out, bint training) except -1:
    """Check a forward pass' arrays and point `q` at them; `held` keeps them alive: x, output, h0 first."""
    cdef bint recurrent = weight_hh is not None
    cdef cnp.ndarray x_, output, h0_ = None, w_hh = None, b_ih = None, b_hh = None, w_ih = <cnp.ndarray>weight_ih
    if cnp.PyArray_NDIM(w_ih) != 2 or cnp.PyArray_SIZE(w_ih) == 0 or cnp.PyArray_DIM(w_ih, 0) % G:
        raise ValueError(f"weight_ih: expected shape ({'' if G == 1 else f'{G}*'}H, D), came {_shape_of(w_ih)}")
    q.H, q.D = cnp.PyArray_DIM(w_ih, 0) // G, cnp.PyArray_DIM(w_ih, 1)
    w_ih = _dense(w_ih, "weight_ih", typenum, "GD", 2, G * q.H, q.D)
    if recurrent:
        w_hh = _dense(weight_hh, "weight_hh", typenum, "GH", 2, G * q.H, q.H)
    x_ = _read_series(x, "x", typenum, "TND", -1, -1, q.D)
    q.T, q.N = cnp.PyArray_DIM(x_, 0), cnp.PyArray_DIM(x_, 1)
    if q.N < 1:
        raise ValueError(f"x: expected shape (T, N, {q.D}) with N of at least 1, came {x.shape}")
    if bias_ih is not None:
        b_ih = _dense(bias_ih, "bias_ih", typenum, "G", 1, G * q.H, -1)
    if bias_hh is not None:
        b_hh = _dense(bias_hh, "bias_hh", typenum, "G", 1, G * q.H, -1)
    if h0 is not None:
        h0_ = _dense(h0, "h0", typenum, "NH", 2, q.N, q.H)
        if h0_ is h0 and (training or out is not None):
            h0_ = h0_.copy()  # often a view of the output of the call before, which may be written again
    elif recurrent:
        h0_ = _new(typenum, q.N, q.H, -1, True)
    if out is None:
        output = _new(typenum, q.T, q.N, q.H, False)
    else:
        output = _written_series(out, "out", typenum, "TNH", q.T, q.N, q.H)
        for name, array in (("x", x_), ("weight_ih", w_ih), ("weight_hh", w_hh), ("bias_ih", b_ih), ("bias_hh", b_hh)):
            if array is not None and np.may_share_memory(output, array) and np.shares_memory(output, array):
                raise ValueError(f"out: expected an array apart from {name}, came one that overlaps it")
    q.x, q.output, q.h0 = _series(x_), _series(output), _data(h0_)
    q.weight_ih, q.weight_hh, q.bias_ih, q.bias_hh = _data(w_ih), _data(w_hh), _data(b_ih), _data(b_hh)
    held.extend((x_, output, h0_, w_ih, w_hh, b_ih, b_hh))
    return 0


def forward(int cell, int activation, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, out, bint training):
    """Run one layer in one direction over a sequence. Returns (output, h_n, c_n or None, Tape or None)."""
    if not 0 <= cell <= FR_RNN or not 0 <= activation <= FR_IDENTITY:
        raise ValueError(f"cell, activation: expected values of CELLS and ACTIVATIONS, came {cell}, {activation}")
    cdef int typenum = _real_type(weight_ih, "weight_ih")
    cdef int itemsize = 4 if typenum == cnp.NPY_FLOAT32 else 8
    cdef const fr_kernels *k = fr_kernels_for(_isa, itemsize)
    cdef Job job
    cdef fr_sequence *q = &job.sequence
    memset(&job, 0, sizeof(job))
    job.kernels = k
    q.cell, q.activation = cell, activation
    cdef list held = []
    _read_arguments(q, k.gates(cell), typenum, held, x, h0, weight_ih, weight_hh, bias_ih, bias_hh, out, training)
    cdef bint is_lstm = cell == FR_LSTM, two_passes = k.passes(cell) > 1, recurrent = q.weight_hh != NULL
    cdef cnp.ndarray output = held[1], h_n = None, c_n = None, c0_ = None
    if c0 is not None:
        c0_ = _dense(c0, "c0", typenum, "NH", 2, q.N, q.H)
    if is_lstm:
        c_n = _new(typenum, q.N, q.H, -1, False)

    cdef Plan plan = choose_plan(q, k.gates(cell), itemsize)
    cdef long slots = k.slots(cell), row = k.inputs_row(q), Hp = k.padded(q)
    q.fused, job.by_units, job.passes = plan.fused, plan.by_units and plan.threads > 1, k.passes(cell)
    job.chunk = q.T if plan.fused else max(1, min(q.T, (1 << 20) // (q.N * row * itemsize)))
    q.gates_step = q.N * slots * Hp if training else 0
    q.c_step = q.reset_step = q.N * Hp if training else 0
    if (<double>q.T + 1) * q.N * (slots + 2) * Hp * itemsize > <double>(1 << 62):
        raise MemoryError(f"no memory for states of a sequence of shape {x.shape}")

    # Two blocks of workspace: the states, which a backward pass needs, and what only this call needs.
    cdef long steps = q.T if training else 1
    cdef size_t of_states = 0, of_call = 0
    cdef size_t gates_at = _room(&of_states, steps * q.N * slots * Hp if training or two_passes else 0, itemsize)
    cdef size_t c_at = _room(&of_states, ((q.T if training else 0) + 1) * q.N * Hp if is_lstm else 0, itemsize)
    cdef size_t reset_at = _room(&of_states, steps * q.N * Hp if two_passes else 0, itemsize)
    cdef size_t panels_at = _room(&of_call, k.panels_size(q), itemsize)
    cdef size_t bias_at = _room(&of_call, row, itemsize)
    cdef size_t inputs_at = _room(&of_call, 0 if plan.fused else job.chunk * q.N * row, itemsize)
    cdef Block states = _block(of_states), call = _block(of_call)
    q.panels, q.bias, q.inputs = call.at + panels_at, call.at + bias_at, call.at + inputs_at
    if training or two_passes:
        q.gates = states.at + gates_at
    q.c, q.reset = states.at + c_at, states.at + reset_at
    if is_lstm:
        k.pad(q.c, _data(c0_), q.N, q.H)
    if q.T:
        with nogil:
            fr_parallel(plan.threads, forward_part, &job)

    if recurrent:
        h_n = cnp.PyArray_NewCopy(output[q.T - 1] if q.T else held[2], cnp.NPY_CORDER)
    if is_lstm:
        k.unpad(cnp.PyArray_DATA(c_n), <char *>q.c + q.T * q.c_step * itemsize, q.N, q.H)
    if not training:
        return output, h_n, c_n, None
    cdef Tape tape = Tape.__new__(Tape)
    tape.sequence, tape.kernels, tape.typenum, tape.states, tape.arrays = job.sequence, k, typenum, states, tuple(held)
    return output, h_n, c_n, tape


cdef cnp.ndarray _gradient(object into, str name, int typenum, str letters, int ndim, long d0, long d1):
    """The array that a gradient is added to: the caller's, or a new one of zeros."""
    given = into.get(name) if into is not None else None
    if given is None:
        return _new(typenum, d0, d1, -1, True)
    cdef cnp.ndarray array = _dense(given, f"into[{name!r}]", typenum, letters, ndim, d0, d1)
    _check_written(array, given, f"into[{name!r}]")
    return array


def backward(str owner, tuple cells, cache, doutput, dh_n, dc_n, into):
    """Backpropagate through what `forward` ran for `owner`, one of `cells`; returns the dict of gradients."""
    if not isinstance(cache, Tape) or (<Tape>cache).kernels == NULL or (<Tape>cache).sequence.cell not in cells:
        raise TypeError(f"cache: expected the cache of {owner} in training, came {type(cache).__name__}"
                        f"{' of another cell' if isinstance(cache, Tape) else ''}")
    cdef Tape tape = <Tape>cache
    if tape.states is None:
        raise RuntimeError(f"cache: already consumed by an earlier backward; run {owner} again")
    cdef Job job
    cdef fr_sequence *q = &job.sequence
    cdef const fr_kernels *k = tape.kernels
    cdef int typenum = tape.typenum, itemsize = k.itemsize, G = k.gates(tape.sequence.cell)
    memset(&job, 0, sizeof(job))
    job.sequence, job.kernels = tape.sequence, k
    cdef bint is_lstm = q.cell == FR_LSTM, recurrent = q.weight_hh != NULL
    names = ("x", "h0", *(("c0",) if is_lstm else ()), "weight_ih", "weight_hh", *(("bias_ih",) if q.bias_ih else ()),
             *(("bias_hh",) if q.bias_hh else ()))
    for name in into or ():
        if name not in names:
            raise ValueError(f"into: expected keys among {', '.join(names)}, came {name!r}")

    cdef cnp.ndarray doutput_ = None, dh_n_ = None, dc_n_ = None
    if doutput is not None:
        doutput_ = _read_series(doutput, "doutput", typenum, "TNH", q.T, q.N, q.H)
        q.doutput = _series(doutput_)
    if dh_n is not None:
        dh_n_ = _dense(dh_n, "dh_n", typenum, "NH", 2, q.N, q.H)
    if dc_n is not None:
        dc_n_ = _dense(dc_n, "dc_n", typenum, "NH", 2, q.N, q.H)
    q.dh_n = _data(dh_n_)

    # Parameter gradients are added to, states and x are written, unless they are the caller's: then added too.
    cdef cnp.ndarray dx, dh0 = None, dc0 = None, dw_hh = None, db_ih = None, db_hh = None
    given = into.get("x") if into is not None else None
    if given is None:
        dx = _new(typenum, q.T, q.N, q.D, False)
    else:
        dx, q.dx_add = _written_series(given, "into['x']", typenum, "TND", q.T, q.N, q.D), True
    q.dx = _series(dx)
    cdef cnp.ndarray dw_ih = _gradient(into, "weight_ih", typenum, "GD", 2, G * q.H, q.D)
    q.dweight_ih = _data(dw_ih)
    state_sums = {}
    if recurrent:
        dw_hh = _gradient(into, "weight_hh", typenum, "GH", 2, G * q.H, q.H)
        dh0 = _new(typenum, q.N, q.H, -1, False)
        for name in ("h0", "c0") if into is not None else ():
            if into.get(name) is not None:
                state_sums[name] = _gradient(into, name, typenum, "NH", 2, q.N, q.H)
    if is_lstm:
        dc0 = _new(typenum, q.N, q.H, -1, False)
    q.dweight_hh, q.dh0 = _data(dw_hh), _data(dh0)
    if q.bias_ih:
        db_ih = _gradient(into, "bias_ih", typenum, "G", 1, G * q.H, -1)
    if q.bias_hh:
        db_hh = _gradient(into, "bias_hh", typenum, "G", 1, G * q.H, -1)
    q.dbias_ih, q.dbias_hh = _data(db_ih), _data(db_hh)

    cdef Plan plan = choose_plan(q, G, itemsize)
    job.by_units, job.passes = plan.by_units and plan.threads > 1, k.passes(q.cell)
    cdef size_t size = 0
    cdef size_t carry_at = _room(&size, q.N * k.padded(q), itemsize)
    cdef size_t h_at = _room(&size, k.panels_h_size(q), itemsize), x_at = _room(&size, k.panels_x_size(q), itemsize)
    cdef size_t scratch_at = _room(&size, k.scratch_size(q, plan.threads), itemsize)
    cdef Block call = _block(size), states = tape.states
    arrays = tape.arrays  # alive until the end
    tape.states, tape.arrays = None, None  # used up from here on
    q.carry, q.panels_h, q.panels_x, q.scratch = call.at + carry_at, call.at + h_at, call.at + x_at, call.at + scratch_at
    k.pad(q.carry, _data(dc_n_), q.N, q.H)
    if q.T:
        with nogil:
            fr_parallel(plan.threads, backward_part, &job)
    elif recurrent:
        dh0[...] = 0 if dh_n is None else dh_n

    gradients = {"x": dx, "h0": dh0}
    if is_lstm:
        k.unpad(cnp.PyArray_DATA(dc0), q.carry, q.N, q.H)
        gradients["c0"] = dc0
    for name, total in state_sums.items():
        with np.errstate(all="ignore"):
            total += gradients[name]
        gradients[name] = into[name]
    gradients.update(weight_ih=dw_ih, weight_hh=dw_hh, bias_ih=db_ih, bias_hh=db_hh)
    return gradients


CELLS = {"lstm": FR_LSTM, "gru": FR_GRU, "gru_reset_before": FR_GRU_RESET_BEFORE, "rnn": FR_RNN}
ACTIVATIONS = {"tanh": FR_TANH, "relu": FR_RELU, "sigmoid": FR_SIGMOID, "identity": FR_IDENTITY}

include "trees.pxi"
