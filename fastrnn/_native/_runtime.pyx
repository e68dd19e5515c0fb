"""The one module that the C objects are linked into, and what there is once in a process: threads, workspaces, the
instruction set and the precision in use.

Design: the other compiled modules reach the C functions through the `cdef` functions of `_runtime.pxd`, by pointers that
`cimport` fetches from this module. A pointer costs a nanosecond or two; a second copy of the pool would cost every
promise about threads.
"""

import os
import threading

cimport cython
from fastrnn._native.kernels cimport *
from libc.string cimport memset

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept  # what a handler raises is left for raise_signal
    void *PyErr_Occurred() noexcept

cdef extern from "build.h" nogil:
    int fr_isa_count()
    const char *fr_isa_name(int index)
    int fr_isa_supported(int index)
    const fr_build *fr_build_for(int index, int itemsize)
    const fr_sequence_kernels *fr_int8_kernels(int index, int without_vnni)
    const fr_sequence_kernels *fr_bf16_kernels(int index)
    const fr_sequence_kernels *fr_amx_kernels(int terms, int emulated)
    const char *fr_amx_missing()

cdef extern from "checksum.h" nogil:
    uint64_t fr_checksum(const void *data, size_t bytes, uint64_t start)

cdef extern from "pool.h" nogil:
    void fr_parallel(int threads, thread_body body, void *arg)
    int fr_cpus()
    ctypedef struct fr_openmp:
        void (*parallel)(void (*region)(void *) noexcept, void *data, unsigned threads, unsigned flags) noexcept
        int (*thread_num)() noexcept
        int (*max_threads)() noexcept
    void fr_borrow_threads(fr_openmp)
    int fr_borrows()
    void fr_set_num_threads(int n)
    int fr_get_num_threads()
    void fr_init()
    void fr_watch_signals(int (*look)() noexcept nogil, unsigned long thread)
    void *fr_acquire(size_t size)
    void fr_release(void *)
    size_t fr_kept_bytes()
    size_t fr_free_kept()

cdef extern from "pace.h" nogil:
    int fr_calls_are_dense()

cdef extern from "work.h" nogil:
    void fr_plan_work(fr_work *, long phases, int partitions, int pinned)
    int fr_next_task(fr_work *, int id, fr_task *)
    int fr_look(fr_watch *)


# ---- Instruction set and precision ----

cdef int _isa = 0


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
        raise ValueError(f"instruction set: expected one of {isas()} on this CPU, got {name!r}")
    _isa = [fr_isa_name(i).decode() for i in range(fr_isa_count())].index(name)


cdef dict _TERMS = {"highest": 0, "high": 2, "medium": 1}  # of bfloat16, for one of float32
cdef str _precision = "highest"
cdef int _terms = 0
cdef bint _emulated = False, _at_any_size = False


def set_matmul_precision(precision):
    """How precisely the products of float32 sequences are calculated, by PyTorch's words; float64 is never touched.

    "highest" (the default) float32.
    "high"    each factor is split into two bfloat16 numbers, and three of the four products are summed in float32 (bf16x3).
    "medium"  each factor is rounded to bfloat16, of 8 significant bits; sums stay in float32.

    The last two run on AMX tiles (Intel, from the 4th generation of Xeon Scalable on, under Linux). Where there are none,
    float32 is used, and `fastrnn.show_config()` says why. They hold for RNN, GRU, LSTM, Jordan and Linear, forward and
    backward, where they are faster: from 16 rows (N) on, and from 64 units on for "high", 48 for "medium". What a layer
    calculated forward with, it calculates backward with.

    Inference of fewer than 16 rows and streams wait for weights rather than for products: under "medium" they read weights
    of bfloat16, on every CPU, for layers of more than 8,192 recurrent weights. Rows, states and sums are float32 there, so
    errors are about a half of those below. A stream keeps the precision it was made under.
    Trees, user-written cells, losses and optimisers stay with float32, and so does everything that is no product.

    Largest errors against float64, with PyTorch's initial weights, at (T,N,D,H) = (20,256,300,300), (40,64,128,256),
    (30,64,256,512) and (6,128,512,1024), on emulated tiles; outputs in absolute terms, gradients relative to their largest
    entry:

                 highest             high                medium
                 outputs  gradients  outputs  gradients  outputs  gradients
        LSTM     1.3e-6   2.5e-6     7.5e-6   6.7e-6     5.1e-3   3.5e-3
        GRU      7.8e-7   2.9e-6     8.3e-6   6.4e-6     4.4e-3   3.4e-3
        RNN      2.3e-6   2.4e-6     1.6e-5   8.0e-6     7.6e-3   4.1e-3

    They hold for initial weights: a trained network that amplifies differences can be off by far more. Hidden states of a
    trained 2-layer GRU differed by 4.5e-3 under "high" and by 1.9 under "medium", its accuracy by nothing.

    Speed over float32 on two cores with AMX, forward and forward+backward: at H = 128 1.6 to 2.0 and 1.3 to 1.55 times for
    "high", 2.4 to 3.1 and 1.9 to 2.5 for "medium"; from H = 256 to 1024 1.85 to 2.6 and 1.7 to 2.1, 3.6 to 5.4 and 2.9 to 4.1.

    Infinite inputs or weights count as the largest finite bfloat16, 3.39e38; NaN stays NaN.

    Raises TypeError for anything but a str, ValueError for another word (PyTorch warns, and goes on as before).
    """
    global _precision, _terms
    if not isinstance(precision, str):
        raise TypeError(f"precision: expected a str, got {type(precision).__name__}")
    if precision not in _TERMS:
        raise ValueError(f"precision: expected 'highest', 'high' or 'medium', got {precision!r}")
    _precision, _terms = precision, _TERMS[precision]


def get_matmul_precision():
    """The word that `set_matmul_precision` was given last; "highest" before."""
    return _precision


cdef const fr_sequence_kernels *_tiles() noexcept nogil:
    """The kernels that the precision asks for, NULL where it is float32."""
    if not _terms or (not _emulated and _isa != fr_isa_count() - 1):  # AMX goes with AVX-512, the last
        return NULL
    return fr_amx_kernels(_terms, _emulated)


def why_no_amx():
    """Why "high" and "medium" run float32, in words; None where they do not. Asks the system for AMX."""
    cdef const char *missing = fr_amx_missing()
    if _emulated:
        return None
    if missing != NULL:
        return missing.decode()
    return None if _isa == fr_isa_count() - 1 else f"the instruction set in use is {isa()}"


def emulate_amx(bint emulate, bint at_any_size=True):
    """For tests: run "high" and "medium" on tiles in plain C, by default at any size, until called with False."""
    global _emulated, _at_any_size
    _emulated, _at_any_size = emulate, emulate and at_any_size


cdef const fr_build *build_for(int itemsize) noexcept nogil:
    return fr_build_for(_isa, itemsize)


cdef const fr_sequence_kernels *sequence_kernels(const fr_sequence *q, int itemsize) noexcept nogil:
    """Tiles where they are faster than float32 (DECISIONS.md, "Where AMX tiles win"); below, most of a tile, 16 rows by 32
    terms of a sum, would be padding."""
    cdef const fr_sequence_kernels *tiles = NULL
    if q.args.scale_ih != NULL:
        return fr_int8_kernels(_isa, _without_vnni)
    if itemsize == 4 and q.N < 16 and not q.training and not _at_any_size and takes_bf16(q):
        return fr_bf16_kernels(_isa)
    if itemsize == 4 and (_at_any_size or (q.N >= 16 and q.H >= (64 if _terms > 1 else 48))):
        tiles = _tiles()
    return tiles if tiles != NULL else fr_build_for(_isa, itemsize).sequence


cdef const fr_sequence_kernels *stream_kernels(const fr_sequence *q, int itemsize) noexcept nogil:
    """Of steps one by one."""
    if q.args.scale_ih != NULL:
        return fr_int8_kernels(_isa, _without_vnni)
    return fr_bf16_kernels(_isa) if itemsize == 4 and takes_bf16(q) else fr_build_for(_isa, itemsize).sequence


cdef bint takes_bf16(const fr_sequence *q) noexcept nogil:
    """Whether few rows read bfloat16 weights: where the precision allows it, and weights do not stay in the first-level cache.
    All layers of a stack have the same answer."""
    cdef long columns = q.P if q.args.weight_hh != NULL else q.D
    return _terms == 1 and columns * q.H * fr_build_for(_isa, 4).sequence.gates(q.cell) > 1 << 13


cdef bint _without_vnni = False


def use_vnni(bint use):
    """For tests: let int8 weights run without VNNI where the CPU has it, until called with True."""
    global _without_vnni
    _without_vnni = not use


# ---- Threads ----

def set_num_threads(n):
    """Use at most `n` threads per call, 1 <= n <= 256. Results do not depend on it."""
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: expected an integer number of threads, got {type(n).__name__}")
    if not 1 <= n.__index__() <= FR_MAX_THREADS:
        raise ValueError(f"n: expected 1 to {FR_MAX_THREADS} threads, got {n}")
    fr_set_num_threads(n)


cdef object _lender = ""


def borrow_threads(str lender, size_t parallel, size_t thread_num, size_t max_threads):
    """Compute on another library's OpenMP threads from now on: its name, and the addresses of its GOMP_parallel,
    omp_get_thread_num and omp_get_max_threads. "", 0, 0, 0: on threads of our own again, as a forked child does."""
    global _lender
    cdef fr_openmp openmp
    (<size_t *>&openmp.parallel)[0] = parallel
    (<size_t *>&openmp.thread_num)[0] = thread_num
    (<size_t *>&openmp.max_threads)[0] = max_threads
    fr_borrow_threads(openmp)
    _lender = lender


def threads_of():
    """Who lends the threads: a name, "" where they are our own."""
    return _lender if fr_borrows() else ""


def get_num_threads():
    """The most threads that a call uses."""
    return fr_get_num_threads()


cdef int max_threads() noexcept nogil:
    return fr_get_num_threads()


cdef bint calls_are_dense() noexcept nogil:
    return fr_calls_are_dense()


cdef void run_parallel(int threads, thread_body body, void *arg) noexcept nogil:
    fr_parallel(threads, body, arg)


cdef void plan_work(fr_work *work, long phases, int partitions, bint pinned) noexcept nogil:
    fr_plan_work(work, phases, partitions, pinned)


cdef bint next_task(fr_work *work, int id, fr_task *task) noexcept nogil:
    return fr_next_task(work, id, task)


# ---- Signals ----

cdef int _look_for_signals() noexcept nogil:
    """Whether a signal has come whose handler raises; that then is the current exception."""
    with gil:
        return PyErr_CheckSignals() != 0


cdef bint look(fr_watch *watch) noexcept nogil:
    return fr_look(watch)


cdef fr_watch own_watch(fr_work *work) noexcept nogil:
    cdef fr_watch watch
    memset(&watch, 0, sizeof(watch))
    work.stopped = False
    watch.stopped, watch.caller = &work.stopped, True
    return watch


cdef bint was_stopped(const fr_work *work, double cost) noexcept:
    return work.stopped or (cost > LONG_CALL and PyErr_CheckSignals() != 0)


cdef int raise_signal() except -1:
    if PyErr_Occurred() == NULL:
        raise KeyboardInterrupt
    return -1


# ---- Workspaces ----

@cython.freelist(32)
cdef class Workspace:
    """Memory that is handed back with the last reference to it."""

    def __dealloc__(self):
        fr_release(self.at)


cdef Workspace new_workspace(size_t size):
    cdef Workspace workspace = Workspace.__new__(Workspace)
    workspace.at = <char *>fr_acquire(size)
    if workspace.at == NULL:
        raise MemoryError(f"no memory for {size} bytes of workspace")
    return workspace


cdef void reserve(Rooms *rooms, void **pointer, long elements, int itemsize) noexcept nogil:
    """Starts are staggered: buffers that are walked side by side would fall into the same cache sets if all of them began on
    a page."""
    rooms.pointers[rooms.count], rooms.starts[rooms.count] = pointer, rooms.size
    rooms.count += 1
    rooms.size += ((elements * itemsize + 4095) & ~<size_t>4095) + 320


cdef void point_to_rooms(Rooms *rooms, char *at) noexcept nogil:
    cdef int i
    for i in range(rooms.count):
        rooms.pointers[i][0] = at + rooms.starts[i]


cdef Workspace allot(Rooms *rooms):
    cdef Workspace workspace = new_workspace(rooms.size)
    point_to_rooms(rooms, workspace.at)
    return workspace


cdef char *allot_nogil(Rooms *rooms) noexcept nogil:
    cdef char *at = <char *>fr_acquire(rooms.size)
    if at != NULL:
        point_to_rooms(rooms, at)
    return at


cdef void return_workspace(char *at) noexcept nogil:
    fr_release(at)


cdef uint64_t checksum_of(const void *data, size_t bytes, uint64_t start) noexcept nogil:
    return fr_checksum(data, bytes, start)


cdef class Cache:
    """What a forward pass with training=True leaves for its backward pass; used once."""

    def __reduce__(self):
        raise TypeError("a forward pass' cache cannot be pickled")


cdef int check_unused(Cache cache, str forward) except -1:
    if cache.states is None:
        raise RuntimeError(f"cache: already consumed by an earlier backward; run {forward} again")
    return 0


def kept_bytes():
    """Bytes of workspace kept for the next call."""
    return fr_kept_bytes()


def free_kept():
    """Give the workspace that is kept back to the system; returns how many bytes it was."""
    return fr_free_kept()


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
            f"environment variable FASTRNN_NUM_THREADS: expected 1 to {FR_MAX_THREADS}, got {threads!r}") from None


fr_init()
fr_watch_signals(_look_for_signals, threading.main_thread().ident)
_read_environment()
