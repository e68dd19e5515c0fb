# Part of _native.pyx: losses. N rows, M classes.

cdef struct Rows:
    const fr_loss_kernels *kernels
    char *logits
    char *losses
    char *dlogits
    int64_t *classes
    int64_t ignored
    long N, M
    double share
    fr_work work


cdef void cross_entropy_body(void *arg, int id) noexcept nogil:
    cdef Rows *rows = <Rows *>arg
    cdef long first, last, size = rows.kernels.itemsize
    cdef fr_piece piece
    memset(&piece, 0, sizeof(piece))
    while fr_next(&rows.work, id, &piece):
        first, last = rows.N * piece.share // rows.work.shares, rows.N * (piece.share + 1) // rows.work.shares
        rows.kernels.cross_entropy(rows.logits + first * rows.M * size, rows.classes + first, last - first, rows.M,
                                   rows.ignored, rows.share, rows.losses + first * size, rows.dlogits + first * rows.M * size)


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
    cdef Rows rows
    rows.N, rows.M = cnp.PyArray_DIM(logits, 0), cnp.PyArray_DIM(logits, 1)
    cdef int typenum = _real_type(logits, "logits")
    if not cnp.PyArray_ISCARRAY_RO(logits) or classes.shape[0] != rows.N or count_classes(classes, rows.M, ignored) < 0:
        raise ValueError(f"logits, classes: expected C-contiguous (N, M) and N classes, got {_shape_of(logits)}")
    cdef cnp.ndarray losses = _new(typenum, rows.N, -1, -1, False), dlogits = _new(typenum, rows.N, rows.M, -1, False)
    rows.kernels = fr_build_for(_isa, cnp.PyArray_ITEMSIZE(logits)).loss
    rows.logits, rows.losses = <char *>cnp.PyArray_DATA(logits), <char *>cnp.PyArray_DATA(losses)
    rows.dlogits, rows.classes = <char *>cnp.PyArray_DATA(dlogits), <int64_t *>cnp.PyArray_DATA(classes)
    rows.ignored, rows.share = ignored, share
    cdef int threads = 1 if rows.N * rows.M < 1 << 14 else fr_get_num_threads()
    fr_plan_work(&rows.work, 1, 1 if threads == 1 else min(4 * threads, FR_MAX_SHARES), False)
    with nogil:
        fr_parallel(threads, cross_entropy_body, &rows)
    return losses, dlogits
