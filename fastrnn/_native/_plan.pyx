"""How a call is shared out among threads, and the hook by which tests and benchmarks choose for themselves."""

from fastrnn._native._runtime cimport *

cdef extern from "cache.h" nogil:
    long fr_l2_bytes()

cdef long _l2_bytes = fr_l2_bytes()  # of a core, asked for once; 0: not known

cdef int _forced_threads = 0, _forced_by_units = -1, _forced_fused = -1, _forced_partitions = 0
cdef long _forced_chunk = 0


def force_plan(threads=None, by_units=None, fused=None, partitions=None, chunk=None):
    """For benchmarks and tests: override the choice of `choose_plan` until called without arguments.

    by_units: hidden units are shared out, otherwise rows of the batch. fused: the input projection runs in the same loop as
    the recurrent product. partitions, chunk: how many ways rows are cut, and steps of one task (`partition_rows`).
    """
    global _forced_threads, _forced_by_units, _forced_fused, _forced_partitions, _forced_chunk
    if threads is not None and not 1 <= threads <= FR_MAX_THREADS:
        raise ValueError(f"threads: expected 1 to {FR_MAX_THREADS}, got {threads}")
    if partitions is not None and not 1 <= partitions <= FR_MAX_PARTITIONS:
        raise ValueError(f"partitions: expected 1 to {FR_MAX_PARTITIONS}, got {partitions}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    _forced_threads = threads or 0
    _forced_by_units = -1 if by_units is None else bool(by_units)
    _forced_fused = -1 if fused is None else bool(fused)
    _forced_partitions, _forced_chunk = partitions or 0, chunk or 0


cdef enum: SHORT_CALL = 1500000, LEAST_CALL = 250000  # flops: too short to wake a thread; too short for two in any case


cdef Plan choose_plan(const fr_sequence *q, const fr_sequence_kernels *k, bint forward, Pace pace) noexcept nogil:
    """How to share the work out. Ratios are torch's time over ours on a 2-core Zen 4 (T, N, D, H as named).

    Project first, for N <= 4: the recurrence alone streams W_hh from L2 for one row, while the projection of all steps
    uses each panel of W_ih for 6 rows at a time: LSTM (100,1,64,128) 2.5 against 2.2 fused, GRU 10.2 against 8.9. Not
    where all weights stay in L1: RNN (28,1,28,64) 23.5 fused, 19.8 projected. From N = 5 on fused is as fast or faster.
    By units, for N <= 4 (one block of rows cannot be shared out) and up to 16 where weights exceed a core's L2: each
    thread keeps its half. A barrier costs 0.2 us, so a step has to be worth it: RNN (100,1,64,128), 49 kflop a step, 0.43
    of the time alone; GRU, 147 kflop, 1.25 times (2-core Zen 3).
    Alone, for calls of less than 1.5 Mflop: to hand over and to wait costs 5 us at best, and far more where the second
    core sleeps or has something else to do. With 1 ms between calls two threads take 1.36 (LSTM (28,1,28,64), 1.3 Mflop),
    1.38 (GRU) and 1.7 times (RNN) as long forward as one, call upon call 0.7, 0.6 to 1.5, 1.7 times; two LSTM layers of
    H = 256 one step at a time, 1 Mflop each: 62-79 us a step alone, 55-130 with two threads (2-core Zen 3).
    Unless such calls come one upon the other (pace.h), in inference: two threads then take 0.52 to 0.9 of the time from 0.25
    Mflop on, where the weights are packed.
    """
    cdef Plan plan
    cdef double products = <double>k.gates(q.cell) * q.H * (q.D + q.P)
    cdef double weights = products * (k.itemsize if q.args.scale_ih == NULL else 1)
    cdef double step = 2.0 * products * max(fr_packed(q, q.T), 1) / max(q.T, 1)  # on average, where rows have lengths
    plan.fused = q.N > 4 or weights <= 1 << 15 or q.args.weight_hh == NULL
    plan.by_units = q.args.weight_hh != NULL and (
        q.N <= 4 or (q.N <= 16 and weights > 1 << 20) or halves_stay_closer(q, k, weights, forward))
    plan.threads = max_threads()
    if step * q.T < SHORT_CALL:
        plan.threads = min(2, plan.threads) if forward and not q.training and is_dense(step * q.T, pace) else 1
    if plan.by_units and step < 6e4:
        plan.threads = 1
    if _forced_threads:
        plan.threads = _forced_threads
    if _forced_by_units >= 0:
        plan.by_units = _forced_by_units
    if _forced_fused >= 0 and q.args.weight_hh != NULL:
        plan.fused = _forced_fused
    plan.fused = plan.fused or q.D > k.projects_ahead  # tiles are for many rows, where fused is as fast or faster
    plan.threads = min(plan.threads, FR_MAX_PARTITIONS)
    plan.partitions, plan.chunk = plan.threads, max(q.T, 1)
    plan.by_units = plan.by_units and plan.threads > 1
    if plan.threads > 1 and not plan.by_units:
        partition_rows(&plan, q, k.row_blocks(q.N), weights, step)
    return plan


cdef bint is_dense(double flops, Pace pace) noexcept nogil:
    return flops >= LEAST_CALL and max_threads() > 1 and (pace == DENSE or (pace == ASK and calls_are_dense()))


cdef bint halves_stay_closer(const fr_sequence *q, const fr_sequence_kernels *k, double weights, bint forward) noexcept nogil:
    """Whether two threads share a larger batch by units, too, as half of the weights stays close to L2 where all do not.

    LSTM and GRU, H = 512, N = 32 and 64, L2 of 2 MB before a slow L3: forward 1.14 to 1.20 times as fast. Where L3 is fast
    1.00 to 1.04 times in the same place by the size of L2. With fewer weights rows are better (0.83 to 1.0), and with more neither.
    Backward 1.01 to 1.08 times with 64 rows from one L2 of weights on, and 0.97 to 1.01 with 32.
    (benches/DECISIONS.md) A projection or a second product would double the barriers; rows with lengths are fewer and fewer.
    """
    cdef bint fit = 2 * _l2_bytes < weights <= 4 * _l2_bytes if forward else q.N > 32 and 0 < _l2_bytes < weights
    return fit and q.N <= 64 and max_threads() == 2 and (
        q.rows.order == NULL and q.args.scale_ih == NULL and k.passes(q) == 1)


cdef void partition_rows(Plan *plan, const fr_sequence *q, long blocks, double weights, double step) noexcept nogil:
    """Cut rows into more partitions than there are threads, and time into chunks, so that threads of unequal speed end together.

    A partition reads all weights at each step: two blocks of rows pay for that where weights are in L2, four where they come from
    L3, and where they fill that, 25 MB at H = 1024, only as many partitions as threads do (133 GFLOP/s with 2, 118 with 6; at
    H <= 512, 2 to 22 make no difference on a quiet machine). Unequal partitions get one more, so that threads alternate: three
    blocks of rows, (50,17,30,50), 1.2 times as fast with three partitions as with two. About 32 tasks for each thread end
    together within 3%; the longer they are, the longer a partition's states stay in the cache. (2-core Zen 3.) Tasks of 0.5
    Mflop instead of 1 make more of them in short calls: GRU (50,17,30,50) 1.88 instead of 1.79 times as fast as one thread.
    """
    cdef long together = 2 if weights <= 1 << 19 else 4 if weights <= 1 << 23 else blocks
    plan.partitions = max(blocks // together, plan.threads)
    if blocks % plan.partitions:
        plan.partitions = max(plan.partitions, plan.threads + 1)
    plan.partitions = min(plan.partitions, min(blocks, FR_MAX_PARTITIONS))
    if _forced_partitions:
        plan.partitions = min(_forced_partitions, blocks)
    plan.threads = min(plan.threads, plan.partitions)
    cdef double task = max(step * q.T / (32 * plan.threads), 5e5)
    plan.chunk = max(1, min(q.T, <long>(task * plan.partitions / step)))
    if _forced_chunk:
        plan.chunk = min(_forced_chunk, q.T)


cdef int weight_partitions(const Plan *plan, long unit_blocks) noexcept nogil:
    """How many ways to cut the gradients of weights. Each part packs the other operand for itself, which 8 unit blocks pay for."""
    return min(max(unit_blocks // 8, plan.threads), plan.partitions)


cdef int level_threads(double flops, long levels) noexcept nogil:
    """Threads for a pass over trees: one where starting others, or a barrier after each level, would cost more than they
    do (`choose_plan` has the measurements)."""
    if _forced_threads:
        return min(_forced_threads, FR_MAX_PARTITIONS)
    return 1 if flops < 7e5 or flops < 3e4 * levels else min(max_threads(), FR_MAX_PARTITIONS)
