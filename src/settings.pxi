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
    all is float32, and `fastrnn.show_config()` says why. They hold for RNN, GRU, LSTM, Jordan and Linear, forward and
    backward, from 16 rows (N) and 32 units on; what a layer calculated forward with, it calculates backward with.
    Streams, trees, user-written cells, losses and optimisers stay with float32, and so does everything that is no product.

    Largest errors against float64, with PyTorch's initial weights, at (T,N,D,H) = (20,256,300,300), (40,64,128,256),
    (30,64,256,512) and (6,128,512,1024), on emulated tiles; outputs in absolute terms, gradients relative to their largest
    entry:

                 highest             high                medium
                 outputs  gradients  outputs  gradients  outputs  gradients
        LSTM     1.3e-6   2.5e-6     7.5e-6   6.7e-6     5.1e-3   3.5e-3
        GRU      7.8e-7   2.9e-6     8.3e-6   6.4e-6     4.4e-3   3.4e-3
        RNN      2.3e-6   2.4e-6     1.6e-5   8.0e-6     7.6e-3   4.1e-3

    Their speed was not measured: neither these kernels nor a whole training step ran on a CPU with AMX. A prototype's forward
    pass of the LSTM did: 2.3 times as fast as float32 for "high", 4.4 to 5.4 times for "medium".

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


cdef const fr_sequence_kernels *_tiles() noexcept:
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


cdef const fr_sequence_kernels *sequence_kernels(const fr_sequence *q, int itemsize) noexcept:
    """Tiles from 16 rows and 32 units on: below, most of a tile, 16 rows by 32 terms of a sum, would be padding."""
    cdef const fr_sequence_kernels *tiles = NULL
    if itemsize == 4 and (_at_any_size or (q.N >= 16 and q.H >= 32)):
        tiles = _tiles()
    return tiles if tiles != NULL else fr_build_for(_isa, itemsize).sequence


def set_num_threads(n):
    """Use at most `n` threads per call, 1 <= n <= 256. Results do not depend on it."""
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: expected an integer number of threads, got {type(n).__name__}")
    if not 1 <= n.__index__() <= FR_MAX_THREADS:
        raise ValueError(f"n: expected 1 to {FR_MAX_THREADS} threads, got {n}")
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
            f"environment variable FASTRNN_NUM_THREADS: expected 1 to {FR_MAX_THREADS}, got {threads!r}") from None


fr_init()
_read_environment()


# ---- How a call is run ----

cdef struct Plan:
    int threads, shares, by_units, fused
    long chunk  # steps of a piece of work on rows

cdef int _forced_threads = 0, _forced_by_units = -1, _forced_fused = -1, _forced_shares = 0
cdef long _forced_chunk = 0


def force_plan(threads=None, by_units=None, fused=None, shares=None, chunk=None):
    """For benchmarks and tests: override the choice of `choose_plan` until called without arguments.

    by_units: hidden units are shared out, otherwise rows of the batch. fused: the input projection runs in the same loop as
    the recurrent product. shares, chunk: how many ways rows are cut, and steps of one piece (`share_out_rows`).
    """
    global _forced_threads, _forced_by_units, _forced_fused, _forced_shares, _forced_chunk
    if threads is not None and not 1 <= threads <= FR_MAX_THREADS:
        raise ValueError(f"threads: expected 1 to {FR_MAX_THREADS}, got {threads}")
    if shares is not None and not 1 <= shares <= FR_MAX_SHARES:
        raise ValueError(f"shares: expected 1 to {FR_MAX_SHARES}, got {shares}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    _forced_threads = threads or 0
    _forced_by_units = -1 if by_units is None else bool(by_units)
    _forced_fused = -1 if fused is None else bool(fused)
    _forced_shares, _forced_chunk = shares or 0, chunk or 0


cdef Plan choose_plan(const fr_sequence *q, const fr_sequence_kernels *k) noexcept nogil:
    """How to share the work out. Ratios are torch's time over ours on a 2-core Zen 4 (T, N, D, H as named).

    Project first, for N <= 4: the recurrence alone streams W_hh from L2 for one row, while the projection of all steps
    uses each panel of W_ih for 6 rows at a time: LSTM (100,1,64,128) 2.5 against 2.2 fused, GRU 10.2 against 8.9. Not
    where all weights stay in L1: RNN (28,1,28,64) 23.5 fused, 19.8 projected. From N = 5 on fused is as fast or faster.
    By units, for N <= 4 (one block of rows cannot be shared out) and up to 16 where weights exceed a core's L2: each
    thread keeps its half. To meet costs 0.2 us, so a step has to be worth it: RNN (100,1,64,128), 49 kflop a step, 0.43
    of the time alone; GRU, 147 kflop, 1.25 times (2-core Zen 3).
    Alone, for calls of less than 1.5 Mflop: to hand over and to wait costs 5 us at best, and far more where the second
    core sleeps or has something else to do. With 1 ms between calls two threads take 1.36 (LSTM (28,1,28,64), 1.3 Mflop),
    1.38 (GRU) and 1.7 times (RNN) as long forward as one, call upon call 0.7, 0.6 to 1.5, 1.7 times; two LSTM layers of
    H = 256 one step at a time, 1 Mflop each: 62-79 us a step alone, 55-130 with two threads (2-core Zen 3).
    """
    cdef Plan plan
    cdef double products = <double>k.gates(q.cell) * q.H * (q.D + q.P)
    cdef double weights = products * k.itemsize, step = 2.0 * products * q.N
    plan.fused = q.N > 4 or weights <= 1 << 15 or q.args.weight_hh == NULL
    plan.by_units = q.args.weight_hh != NULL and (q.N <= 4 or (q.N <= 16 and weights > 1 << 20))
    plan.threads = 1 if step * q.T < 1.5e6 or (plan.by_units and step < 6e4) else fr_get_num_threads()
    if _forced_threads:
        plan.threads = _forced_threads
    if _forced_by_units >= 0:
        plan.by_units = _forced_by_units
    if _forced_fused >= 0 and q.args.weight_hh != NULL:
        plan.fused = _forced_fused
    plan.fused = plan.fused or not k.projects_ahead  # tiles are for many rows, where fused is as fast or faster
    plan.threads = min(plan.threads, FR_MAX_SHARES)
    plan.shares, plan.chunk = plan.threads, max(q.T, 1)
    plan.by_units = plan.by_units and plan.threads > 1
    if plan.threads > 1 and not plan.by_units:
        share_out_rows(&plan, q, k.row_blocks(q.N), weights, step)
    return plan


cdef void share_out_rows(Plan *plan, const fr_sequence *q, long blocks, double weights, double step) noexcept nogil:
    """Cut rows into more shares than there are threads, and time into chunks, so that threads of unequal speed end together.

    A share reads all weights at each step: two blocks of rows pay for that where weights are in L2, four where they come from
    L3, and where they fill that, 25 MB at H = 1024, only as many shares as threads do (133 GFLOP/s with 2, 118 with 6; at
    H <= 512, 2 to 22 make no difference on a quiet machine). Unequal shares get one more, so that they take turns: three
    blocks of rows, (50,17,30,50), 1.2 times as fast with three shares as with two. About 32 pieces for each thread end
    together within 3%; the longer they are, the longer a share's states stay in the cache. (2-core Zen 3.)
    """
    cdef long together = 2 if weights <= 1 << 19 else 4 if weights <= 1 << 23 else blocks
    plan.shares = max(blocks // together, plan.threads)
    if blocks % plan.shares:
        plan.shares = max(plan.shares, plan.threads + 1)
    plan.shares = min(plan.shares, min(blocks, FR_MAX_SHARES))
    if _forced_shares:
        plan.shares = min(_forced_shares, blocks)
    plan.threads = min(plan.threads, plan.shares)
    cdef double piece = max(step * q.T / (32 * plan.threads), 1e6)
    plan.chunk = max(1, min(q.T, <long>(piece * plan.shares / step)))
    if _forced_chunk:
        plan.chunk = min(_forced_chunk, q.T)


cdef int share_out_weights(const Plan *plan, long unit_blocks) noexcept nogil:
    """How many ways to cut the gradients of weights. Each part packs the other operand for itself, which 8 unit blocks pay for."""
    return min(max(unit_blocks // 8, plan.threads), plan.shares)
