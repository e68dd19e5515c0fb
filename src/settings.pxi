# Part of _native.pyx: instruction set, precision, threads, and how a call is shared out.

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
        raise ValueError(f"instruction set: expected one of {isas()} on this CPU, came {name!r}")
    _isa = [fr_isa_name(i).decode() for i in range(fr_isa_count())].index(name)


cdef dict _TERMS = {"highest": 0, "high": 2, "medium": 1}  # of bfloat16, for one of float32
cdef str _precision = "highest"
cdef bint _emulated = False


def set_matmul_precision(precision):
    """How precisely the products of float32 sequences are calculated, by PyTorch's words; float64 is never touched.

    "highest" (the default) float32.
    "high"    each factor is split into two bfloat16 numbers, and three of the four products are summed in float32 (bf16x3).
    "medium"  each factor is rounded to bfloat16, of 8 significant bits; sums stay in float32.

    The last two run on AMX tiles (Intel, from the 4th generation of Xeon Scalable on, under Linux). Where there are none,
    all is float32, and `fastrnn.show_config()` says why. They hold for RNN, GRU, LSTM, Jordan and Linear, forward and
    backward, from 16 rows (N) and 32 units on; what a layer calculated forward with, it calculates backward with.
    Streams, trees, user-written cells, losses and optimisers stay with float32, and so does everything that is no product.

    {errors}

    Speed was not measured by us on AMX beyond a prototype's forward pass of the LSTM: 2.3 times float32 for "high", 4.4 to
    5.4 times for "medium". Infinite inputs or weights count as the largest finite bfloat16, 3.39e38; NaN stays NaN.

    Raises TypeError for anything but a str, ValueError for another word (PyTorch warns, and goes on as before).
    """
    global _precision
    if not isinstance(precision, str):
        raise TypeError(f"precision: expected a str, came {type(precision).__name__}")
    if precision not in _TERMS:
        raise ValueError(f"precision: expected 'highest', 'high' or 'medium', came {precision!r}")
    _precision = precision


def get_matmul_precision():
    """The word that `set_matmul_precision` was given last; "highest" before."""
    return _precision


cdef const fr_kernels *_tiles() noexcept:
    """The kernels that the precision asks for, NULL where it is float32."""
    cdef int terms = _TERMS[_precision]
    if not terms or not _emulated and _isa != fr_isa_count() - 1:  # AMX goes with AVX-512, the last
        return NULL
    return fr_amx_kernels(terms, _emulated)


def why_no_amx():
    """Why "high" and "medium" run float32, in words; None where they do not. Asks the system for AMX."""
    cdef const char *missing = fr_amx_missing()
    if _emulated:
        return None
    if missing != NULL:
        return missing.decode()
    return None if _isa == fr_isa_count() - 1 else f"the instruction set in use is {isa()}"


def emulate_amx(bint emulate):
    """For tests: run "high" and "medium" on tiles in plain C, at every size, until called with False."""
    global _emulated
    _emulated = emulate


cdef const fr_kernels *sequence_kernels(const fr_sequence *q, int itemsize) noexcept:
    """Tiles from 16 rows and 32 units on: below, most of a tile, 16 rows by 32 terms of a sum, would be padding."""
    cdef const fr_kernels *tiles = NULL
    if itemsize == 4 and (_emulated or q.N >= 16 and q.H >= 32):
        tiles = _tiles()
    return tiles if tiles != NULL else fr_kernels_for(_isa, itemsize)


def set_num_threads(n):
    """Use at most `n` threads per call, 1 <= n <= 256. Results do not depend on it."""
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: expected an integer number of threads, came {type(n).__name__}")
    if not 1 <= n.__index__() <= FR_MAX_THREADS:
        raise ValueError(f"n: expected 1 to {FR_MAX_THREADS} threads, came {n}")
    fr_set_num_threads(n)


def get_num_threads():
    """The most threads that a call uses."""
    return fr_get_num_threads()


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
    Alone, for calls of less than 1.5 Mflop: to hand over and to wait costs 5 us at best, and far more where the second
    core has something else to do. Two LSTM layers of H = 256 one step at a time, 1 Mflop each: 62-79 us a step alone,
    55-130 with two threads; LSTM (28,1,28,64), 1.3 Mflop: forward 1.07 times as long alone, forward+backward 0.74 to 0.96
    (2-core Zen 3).
    """
    cdef Plan plan
    cdef double weights = <double>gates * q.H * (q.D + q.R) * itemsize
    cdef double step = 2.0 * gates * q.H * (q.D + q.R) * q.N
    plan.fused = q.N > 4 or weights <= 1 << 15 or q.weight_hh == NULL
    plan.by_units = q.weight_hh != NULL and (q.N <= 4 or (q.N <= 16 and weights > 1 << 20))
    plan.threads = 1 if step * q.T < 1.5e6 or (plan.by_units and step < 3e4) else fr_get_num_threads()
    if _forced_threads:
        plan.threads = _forced_threads
    if _forced_by_units >= 0:
        plan.by_units = _forced_by_units
    if _forced_fused >= 0 and q.weight_hh != NULL:
        plan.fused = _forced_fused
    return plan
