"""Losses. N rows, M classes."""

cimport numpy as cnp
from fastrnn._native._arrays cimport new_array, real_type, shape_of
from fastrnn._native._runtime cimport build_for, max_threads, next_task, plan_work, run_parallel
from fastrnn._native.kernels cimport *
from libc.stdint cimport int64_t
from libc.string cimport memset

cnp.import_array()

cdef struct LossCall:
    const fr_loss_kernels *kernels
    char *logits
    char *losses
    char *dlogits
    int64_t *classes
    int64_t ignored
    long N, M
    double share
    fr_work work


cdef void _cross_entropy_body(void *arg, int id) noexcept nogil:
    cdef LossCall *call = <LossCall *>arg
    cdef long first, last, size = call.kernels.itemsize
    cdef fr_piece task
    memset(&task, 0, sizeof(task))
    while next_task(&call.work, id, &task):
        first, last = call.N * task.share // call.work.shares, call.N * (task.share + 1) // call.work.shares
        call.kernels.cross_entropy(call.logits + first * call.M * size, call.classes + first, last - first, call.M,
                                   call.ignored, call.share, call.losses + first * size, call.dlogits + first * call.M * size)


def count_classes(cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] classes, long M, int64_t ignored):
    """How many classes are not the ignored one; -1 if one of those is not in 0..M-1."""
    cdef long counted = 0, n
    for n in range(classes.shape[0]):
        if classes[n] != ignored:
            if not 0 <= classes[n] < M:
                return -1
            counted += 1
    return counted


def cross_entropy(cnp.ndarray logits, cnp.ndarray[cnp.int64_t, ndim=1, mode="c"] classes, int64_t ignored, double share):
    """Losses (N,) and the gradient (N, M) of their sum times share. logits (N, M): C-contiguous, float32 or float64;
    classes (N,): as `count_classes` has found them."""
    cdef LossCall call
    call.N, call.M = cnp.PyArray_DIM(logits, 0), cnp.PyArray_DIM(logits, 1)
    cdef int typenum = real_type(logits, "logits")
    if not cnp.PyArray_ISCARRAY_RO(logits) or classes.shape[0] != call.N or count_classes(classes, call.M, ignored) < 0:
        raise ValueError(f"logits, classes: expected C-contiguous (N, M) and N classes, got {shape_of(logits)}")
    cdef cnp.ndarray losses = new_array(typenum, call.N, -1, -1, False), dlogits = new_array(typenum, call.N, call.M, -1, False)
    call.kernels = build_for(cnp.PyArray_ITEMSIZE(logits)).loss
    call.logits, call.losses = <char *>cnp.PyArray_DATA(logits), <char *>cnp.PyArray_DATA(losses)
    call.dlogits, call.classes = <char *>cnp.PyArray_DATA(dlogits), <int64_t *>cnp.PyArray_DATA(classes)
    call.ignored, call.share = ignored, share
    cdef int threads = 1 if call.N * call.M < 1 << 14 else max_threads()
    plan_work(&call.work, 1, 1 if threads == 1 else min(4 * threads, FR_MAX_SHARES), False)
    with nogil:
        run_parallel(threads, _cross_entropy_body, &call)
    return losses, dlogits
