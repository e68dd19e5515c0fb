"""Losses. N rows, M classes."""

import numpy as np

cimport numpy as cnp
from fastrnn._native._arrays cimport dense, new_array, read_series, real_type, series_of, shape_of, written_series
from fastrnn._native._runtime cimport (Workspace, build_for, max_threads, new_workspace, next_task, plan_work,
                                       run_parallel)
from fastrnn._native.kernels cimport *
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.string cimport memset

cnp.import_array()

cdef struct LossCall:
    const fr_loss_kernels *kernels
    char *logits
    char *losses
    char *dlogits
    fr_classes targets
    long N, M
    fr_work work


cdef void _cross_entropy_body(void *arg, int id) noexcept nogil:
    cdef LossCall *call = <LossCall *>arg
    cdef long first, last, size = call.kernels.itemsize
    cdef fr_task task
    memset(&task, 0, sizeof(task))
    while next_task(&call.work, id, &task):
        first, last = call.N * task.partition // call.work.partitions, call.N * (task.partition + 1) // call.work.partitions
        call.kernels.cross_entropy(call.logits + first * call.M * size, &call.targets, first, last - first, call.M,
                                   call.losses + first * size, call.dlogits + first * call.M * size)


def count_classes(cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] classes, long M, int64_t ignored):
    """How many classes are not the ignored one; -1 if one of those is not in 0..M-1."""
    cdef long counted = 0, n
    for n in range(classes.shape[0]):
        if classes[n] != ignored:
            if not 0 <= classes[n] < M:
                return -1
            counted += 1
    return counted


def cross_entropy(cnp.ndarray logits, cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] classes, int64_t ignored, double share,
                  *, row_weights=None, class_weights=None, double smoothing=0):
    """Losses (N,) and the gradient (N, M) of their sum times share. logits (N, M): C-contiguous, float32 or float64;
    classes (N,): as `count_classes` has found them. row_weights (N,) float64, class_weights (M,) like the logits.
    smoothing: the part of each target that is shared out evenly among all classes."""
    cdef LossCall call
    call.N, call.M = cnp.PyArray_DIM(logits, 0), cnp.PyArray_DIM(logits, 1)
    cdef int typenum = real_type(logits, "logits")
    if not cnp.PyArray_ISCARRAY_RO(logits) or classes.shape[0] != call.N or count_classes(classes, call.M, ignored) < 0:
        raise ValueError(f"logits, classes: expected C-contiguous (N, M) and N classes, got {shape_of(logits)}")
    cdef cnp.ndarray losses = new_array(typenum, call.N, -1, -1, False), dlogits = new_array(typenum, call.N, call.M, -1, False)
    cdef cnp.ndarray by_row = None, by_class = None
    call.kernels = build_for(cnp.PyArray_ITEMSIZE(logits)).loss
    call.logits, call.losses = <char *>cnp.PyArray_DATA(logits), <char *>cnp.PyArray_DATA(losses)
    call.dlogits = <char *>cnp.PyArray_DATA(dlogits)
    memset(&call.targets, 0, sizeof(fr_classes))
    call.targets.classes, call.targets.ignored = <int64_t *>cnp.PyArray_DATA(classes), ignored
    call.targets.share, call.targets.kept = share, 1 - smoothing
    call.targets.smoothing, call.targets.class_total = smoothing / max(call.M, 1), call.M
    if row_weights is not None:
        by_row = dense(row_weights, "row_weights", cnp.NPY_FLOAT64, "N", 1, call.N, -1)
        call.targets.row_weights = <const double *>cnp.PyArray_DATA(by_row)
    if class_weights is not None:
        by_class = dense(class_weights, "class_weights", typenum, "M", 1, call.M, -1)
        call.targets.class_weights, call.targets.class_total = cnp.PyArray_DATA(by_class), by_class.sum(dtype=np.float64)
    cdef int threads = 1 if call.N * call.M < 1 << 14 else max_threads()
    plan_work(&call.work, 1, 1 if threads == 1 else min(4 * threads, FR_MAX_PARTITIONS), False)
    with nogil:
        run_parallel(threads, _cross_entropy_body, &call)
    return losses, dlogits


# ---- CTC. T time steps, N batch, M classes, U labels of a sequence. ----

cdef struct CtcBatch:
    const fr_loss_kernels *kernels  # of the logits' dtype
    const fr_loss_kernels *wide  # for double
    fr_ctc first  # sequence 0, as far as all are alike
    const int64_t *lengths
    const int64_t *ends  # where each sequence's labels end
    const double *shares
    double *losses
    double *workspace
    long N, row, drow, room
    fr_work work


cdef void _ctc_body(void *arg, int id) noexcept nogil:
    cdef CtcBatch *batch = <CtcBatch *>arg
    cdef fr_task task
    cdef int partitions = batch.work.partitions
    memset(&task, 0, sizeof(task))
    while next_task(&batch.work, id, &task):
        for n in range(batch.N * task.partition // partitions, batch.N * (task.partition + 1) // partitions):
            _ctc_sequence(batch, n, batch.workspace + id * batch.room)


cdef void _ctc_sequence(CtcBatch *batch, long n, double *room) noexcept nogil:
    cdef fr_ctc q = batch.first
    cdef int size = batch.kernels.itemsize
    cdef long begin = batch.ends[n - 1] if n else 0, s, u
    cdef double *skips
    q.logits, q.dlogits = <char *>q.logits + n * batch.row * size, <char *>q.dlogits + n * batch.drow * size
    q.T, q.U, q.labels, q.share = batch.lengths[n], batch.ends[n] - begin, q.labels + begin, batch.shares[n]
    q.stride = (2 * q.U + FR_CTC_LANES) // FR_CTC_LANES * FR_CTC_LANES + 2 * FR_CTC_PAD
    skips = room + FR_CTC_PAD
    q.skips, q.beta = skips, skips + q.stride
    q.scores = q.beta + 2 * q.stride
    q.alpha = q.scores + q.T * q.stride
    for s in range(-FR_CTC_PAD, q.stride - FR_CTC_PAD):
        skips[s] = -1e300
    for u in range(1, q.U):  # a label other than the one before can follow it at once
        if q.labels[u] != q.labels[u - 1]:
            skips[2 * u + 1] = 0
    batch.kernels.ctc_scores(&q)
    batch.wide.ctc_paths(&q)
    batch.kernels.ctc_gradient(&q)
    batch.losses[n] = 0 if q.zero_infinity and not q.loss < INFINITY and q.loss == q.loss else q.loss


def ctc(cnp.ndarray logits, cnp.ndarray dlogits, cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] labels,
        cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] ends, cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] lengths,
        int64_t blank, cnp.ndarray[cnp.float64_t, ndim=1, mode="c"] shares, bint zero_infinity):
    """Losses (N,) of logits (T, N, M), and in dlogits, which come as zeros, the gradient of their sum, each times its
    share. labels: those of all sequences, one after the other, whose ends are given; all in range."""
    cdef CtcBatch batch
    cdef int typenum = real_type(logits, "logits")
    cdef long T = cnp.PyArray_DIM(logits, 0), N = cnp.PyArray_DIM(logits, 1), M = cnp.PyArray_DIM(logits, 2), most, longest
    logits = read_series(logits, "logits", typenum, "TNM", T, N, M)
    dlogits = written_series(dlogits, "dlogits", typenum, "TNM", T, N, M)
    if ends.shape[0] != N or lengths.shape[0] != N or shares.shape[0] != N or not 0 <= blank < M:
        raise ValueError(f"ends, lengths, shares: expected {N} of each, got {len(ends)}, {len(lengths)}, {len(shares)}")
    sizes = np.diff(ends, prepend=0)
    if N and (sizes.min() < 0 or ends[N - 1] != labels.shape[0] or lengths.min() < 0 or lengths.max() > T):
        raise ValueError("ends, lengths: expected those of sequences within labels and logits, got others")
    if count_classes(labels, M, blank) != labels.shape[0]:
        raise ValueError(f"labels: expected classes 0..{M - 1} without the blank {blank}, got others")
    cdef cnp.ndarray losses = new_array(cnp.NPY_FLOAT64, N, -1, -1, True)
    cdef fr_series x = series_of(logits), dx = series_of(dlogits)
    memset(&batch, 0, sizeof(CtcBatch))
    batch.kernels, batch.wide = build_for(cnp.PyArray_ITEMSIZE(logits)).loss, build_for(8).loss
    batch.first.M, batch.first.blank, batch.first.zero_infinity = M, blank, zero_infinity
    batch.first.logits, batch.first.step, batch.row = x.data, x.step, x.row
    batch.first.dlogits, batch.first.dstep, batch.drow = dx.data, dx.step, dx.row
    batch.first.labels, batch.lengths = <int64_t *>cnp.PyArray_DATA(labels), <int64_t *>cnp.PyArray_DATA(lengths)
    batch.ends, batch.shares = <int64_t *>cnp.PyArray_DATA(ends), <double *>cnp.PyArray_DATA(shares)
    batch.losses, batch.N = <double *>cnp.PyArray_DATA(losses), N
    most, longest = sizes.max(initial=0), lengths.max(initial=0)
    cdef int threads = 1 if longest * N * (M + 20 * most) < 1 << 14 else max_threads()
    batch.room = (2 * longest + 3) * (2 * most + 2 * FR_CTC_LANES + 2 * FR_CTC_PAD) + 64
    cdef Workspace memory = new_workspace(threads * batch.room * sizeof(double))
    batch.workspace = <double *>memory.at
    plan_work(&batch.work, 1, 1 if threads == 1 else min(max(N, 1), FR_MAX_PARTITIONS), False)
    with nogil:
        run_parallel(threads, _ctc_body, &batch)
    return losses
