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


# ---- Settings: instruction set and threads ----

cdef int _isa = 0
cdef int _threads = 1


def isas():
    """Names of the instruction-set builds that this CPU runs, slowest first."""
    return [fr_isa_name(i).decode() for i in range(fr_isa_count()) if fr_isa_supported(i)]


def isa():
    """Name of the build in use."""
    return fr_isa_name(_isa).decode()


def use_isa(str name):
    """Use the build `name` from now on (not while other threads compute)."""
    global _isa
    if name not in isas():
        raise ValueError(f"instruction set: expected one of {isas()} on this CPU, came {name!r}")
    _isa = [fr_isa_name(i).decode() for i in range(fr_isa_count())].index(name)


def set_num_threads(n):
    """Use at most `n` threads per call, 1 <= n <= 256. Results do not depend on it."""
    global _threads
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: expected an integer number of threads, came {type(n).__name__}")
    if not 1 <= n.__index__() <= FR_MAX_THREADS:
        raise ValueError(f"n: expected 1 to {FR_MAX_THREADS} threads, came {n}")
    _threads = n


def get_num_threads():
    """The most threads that a call uses."""
    return _threads


def kept_bytes():
    """Bytes of workspace kept for the next call."""
    return fr_kept_bytes()


def _read_environment():
    name, threads = os.environ.get("FASTRNN_ISA"), os.environ.get("FASTRNN_NUM_THREADS")
    try:
        use_isa(name or isas()[len(isas()) - 1])
    except ValueError as error:
        raise RuntimeError(f"environment variable FASTRNN_ISA: {error}") from None
    try:
        set_num_threads(int(threads) if threads else min(fr_cpus(), FR_MAX_THREADS))
    except ValueError:
        raise RuntimeError(
            f"environment variable FASTRNN_NUM_THREADS: expected 1 to {FR_MAX_THREADS}, came {threads!r}") from None


fr_init()
_read_environment()


# ---- How a call is run ----

cdef struct Plan:
    int threads, by_units, fused

cdef int _forced_threads = 0, _forced_by_units = -1, _forced_fused = -1


def force_plan(threads=None, by_units=None, fused=None):
    """For benchmarks and tests: override the choice of `choose_plan` until called without arguments."""
    global _forced_threads, _forced_by_units, _forced_fused
    if threads is not None and not 1 <= threads <= FR_MAX_THREADS:
        raise ValueError(f"threads: expected 1 to {FR_MAX_THREADS}, came {threads}")
    _forced_threads = threads or 0
    _forced_by_units = -1 if by_units is None else bool(by_units)
    _forced_fused = -1 if fused is None else bool(fused)


cdef Plan choose_plan(const fr_sequence *q, int gates, int itemsize) noexcept nogil:
    """How to share the work out. Ratios are torch's time over ours on a 2-core Zen 4 (T, N, D, H as named).

    Project first, for N <= 4: the recurrence alone streams W_hh from L2 for one row, while the projection of all steps
    uses each panel of W_ih for 6 rows at a time: LSTM (100,1,64,128) 2.5 against 2.2 fused, GRU 10.2 against 8.9. Not
    where all weights stay in L1: RNN (28,1,28,64) 23.5 fused, 19.8 projected. From N = 5 on fused is as fast or faster.
    By units, for N <= 4 (one block of rows cannot be shared out) and up to 16 where weights exceed a core's L2: each
    thread keeps its half. A barrier costs 0.2 us, so a step has to be worth it: LSTM (28,1,28,64), 47 kflop a step, 9.0
    against 6.7 alone; RNN, 12 kflop, 17 against 23.
    """
    cdef Plan plan
    cdef double weights = <double>gates * q.H * (q.D + q.H) * itemsize
    cdef double step = 2.0 * gates * q.H * (q.D + q.H) * q.N
    plan.fused = q.N > 4 or weights <= 1 << 15 or q.weight_hh == NULL
    plan.by_units = q.weight_hh != NULL and (q.N <= 4 or (q.N <= 16 and weights > 1 << 20))
    plan.threads = 1 if step * q.T < 7e5 or (plan.by_units and step < 3e4) else _threads
    if _forced_threads:
        plan.threads = _forced_threads
    if _forced_by_units >= 0:
        plan.by_units = _forced_by_units
    if _forced_fused >= 0 and q.weight_hh != NULL:
        plan.fused = _forced_fused
    return plan


cdef struct Job:
    fr_sequence sequence
    const fr_kernels *kernels
    int passes, by_units
    long chunk  # steps between two looks up from the recurrence
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
    cdef long s, begin, end = q.T
    cdef int p
    share.id, share.threads, share.by_units = id, threads, job.by_units
    k.pack_backward(q, share)
    fr_barrier_wait(&job.barrier, threads)
    while end > 0:
        begin = max(end - job.chunk, 0)
        for s in range(end - 1, begin - 1, -1):
            for p in range(job.passes):
                if job.by_units and (s + 1 < end or p > 0):
                    fr_barrier_wait(&job.barrier, threads)
                k.step_backward(q, p, s, share)
        fr_barrier_wait(&job.barrier, threads)
        if q.dx.data:
            k.grad_input(q, begin, end, share)
        k.grad_weights(q, begin, end, share)
        end = begin
    if q.dh0:
        k.grad_state(q, share)


# ---- Arrays in and out ----

cdef str _shape_of(object a):
    return str(a.shape) if isinstance(a, cnp.ndarray) else type(a).__name__


cdef int _real_type(object a, str name) except -1:
    """The type number of an array of float32 or float64."""
    if not isinstance(a, cnp.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, came {type(a).__name__}")
    cdef int typenum = cnp.PyArray_TYPE(<cnp.ndarray>a)
    if typenum != cnp.NPY_FLOAT32 and typenum != cnp.NPY_FLOAT64:
        raise TypeError(f"{name}: expected float32 or float64, came {a.dtype}")
    return typenum


cdef cnp.ndarray _array(object a, str name, int typenum):
    """`a` as an aligned array of the right dtype; any strides."""
    if not isinstance(a, cnp.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, came {type(a).__name__}")
    cdef cnp.ndarray array = <cnp.ndarray>a
    if cnp.PyArray_TYPE(array) != typenum:
        wanted = "float32" if typenum == cnp.NPY_FLOAT32 else "float64"
        raise TypeError(f"{name}: expected {wanted} like weight_ih, came {array.dtype}")
    if not cnp.PyArray_ISBEHAVED_RO(array):
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    return array


cdef int _expect(cnp.ndarray a, str name, str letters, int ndim, long d0, long d1, long d2) except -1:
    """The shape of `a`, -1 standing for any size of at least 1 (0 for the first of three)."""
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(a)
    if cnp.PyArray_NDIM(a) == ndim and (d0 < 0 or shape[0] == d0) and (ndim < 2 or d1 < 0 or shape[1] == d1) and (
            ndim < 3 or d2 < 0 or shape[2] == d2):
        return 0
    wanted = [letter if size < 0 else size for letter, size in zip(letters, (d0, d1, d2))]
    raise ValueError(f"{name}: expected shape ({', '.join(map(str, wanted))}{',' if ndim == 1 else ''})"
                     f" = ({', '.join(letters[:ndim])}{',' if ndim == 1 else ''}), came {_shape_of(a)}")


cdef cnp.ndarray _dense(object a, str name, int typenum, str letters, int ndim, long d0, long d1):
    """A checked, C-contiguous array."""
    cdef cnp.ndarray array = _array(a, name, typenum)
    _expect(array, name, letters, ndim, d0, d1, -1)
    return array if cnp.PyArray_IS_C_CONTIGUOUS(array) else array.copy()


cdef bint _even_rows(cnp.ndarray a) noexcept:
    """Whether the last axis is contiguous and the others stride by whole elements."""
    cdef int itemsize = cnp.PyArray_ITEMSIZE(a)
    return cnp.PyArray_SIZE(a) == 0 or (  # NumPy gives empty arrays strides of 0
        (cnp.PyArray_STRIDE(a, 2) == itemsize or cnp.PyArray_DIM(a, 2) == 1)
        and cnp.PyArray_STRIDE(a, 0) % itemsize == 0 and cnp.PyArray_STRIDE(a, 1) % itemsize == 0)


cdef fr_series _series(cnp.ndarray a) noexcept:
    cdef fr_series s
    s.data = cnp.PyArray_DATA(a)
    s.step = cnp.PyArray_STRIDE(a, 0) // cnp.PyArray_ITEMSIZE(a)
    s.row = cnp.PyArray_STRIDE(a, 1) // cnp.PyArray_ITEMSIZE(a)
    return s


cdef cnp.ndarray _read_series(object a, str name, int typenum, str letters, long T, long N, long width):
    cdef cnp.ndarray array = _array(a, name, typenum)
    _expect(array, name, letters, 3, T, N, width)
    return array if _even_rows(array) else array.copy()


cdef cnp.ndarray _written_series(object a, str name, int typenum, str letters, long T, long N, long width):
    cdef cnp.ndarray array = _array(a, name, typenum)
    _expect(array, name, letters, 3, T, N, width)
    _check_written(array, a, name)
    if not _even_rows(array):
        raise ValueError(f"{name}: expected an array whose last axis is contiguous, came strides {a.strides}")
    return array


cdef int _check_written(cnp.ndarray checked, object given, str name) except -1:
    """What results go into must be the caller's own array: no copy of it would do."""
    if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>given):
        raise ValueError(f"{name}: expected a writable array, came a read-only one")
    if not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>given):
        raise ValueError(f"{name}: expected an aligned array in native byte order, came {given.dtype!r}")
    if checked is not given and cnp.PyArray_NDIM(checked) < 3:
        raise ValueError(f"{name}: expected a C-contiguous array, came strides {given.strides}")
    return 0


cdef cnp.ndarray _new(int typenum, long d0, long d1, long d2, bint zeros):
    """A new (d0, d1, d2), (d0, d1) or (d0,) array; sizes after the last are -1."""
    cdef cnp.npy_intp shape[3]
    shape[0], shape[1], shape[2] = d0, d1, d2
    cdef int ndim = 1 if d1 < 0 else 2 if d2 < 0 else 3
    return cnp.PyArray_ZEROS(ndim, shape, typenum, 0) if zeros else cnp.PyArray_EMPTY(ndim, shape, typenum, 0)


cdef inline void *_data(cnp.ndarray a) noexcept:
    return NULL if a is None else cnp.PyArray_DATA(a)


cdef size_t _room(size_t *total, long elements, int itemsize) noexcept:
    """Where the next buffer starts in a block of workspace. Starts are staggered: buffers that are walked side by side
    would fall into the same cache sets if all of them began on a page."""
    cdef size_t start = total[0]
    total[0] += ((elements * itemsize + 4095) & ~<size_t>4095) + 320
    return start


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
    job.by_units, job.passes, job.chunk = plan.by_units and plan.threads > 1, k.passes(q.cell), max(q.T, 1)
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
