# Part of _native.pyx: streams of which some rows step and others wait.

cdef bint _overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share memory."""
    cdef char *a0 = <char *>cnp.PyArray_DATA(a)
    cdef char *b0 = <char *>cnp.PyArray_DATA(b)
    return a0 < b0 + cnp.PyArray_NBYTES(b) and b0 < a0 + cnp.PyArray_NBYTES(a)


cpdef cnp.ndarray row_indices(rows, long N):
    """Indices of rows as int64 (n,), from indices 0..N-1 or -N..-1 in any order or a mask (N,)."""
    cdef cnp.ndarray indices
    cdef int64_t *at
    cdef long i, n
    a = np.asarray(rows)
    if a.dtype == np.bool_:
        if a.shape != (N,):
            raise ValueError(f"rows: expected a mask of shape ({N},), got {a.shape}")
        return np.flatnonzero(a).astype(np.int64)
    if a.size and a.dtype.kind not in "iu":
        raise TypeError(f"rows: expected indices or a mask of bool, got {a.dtype}")
    indices = np.array(a, np.int64, order="C", ndmin=1)  # a copy
    if cnp.PyArray_NDIM(indices) != 1:
        raise ValueError(f"rows: expected shape (n,), got {a.shape}")
    at, n = <int64_t *>cnp.PyArray_DATA(indices), cnp.PyArray_DIM(indices, 0)
    cdef bytes marks = bytes(N)
    cdef char *seen = marks
    for i in range(n):
        if not -N <= at[i] < N:
            raise IndexError(f"rows: expected indices 0..{N - 1}, got {at[i]}")
        at[i] += N if at[i] < 0 else 0
        if seen[at[i]]:
            raise ValueError(f"rows: expected each index once, got {a}; flags are a mask of bool, rows.astype(bool)")
        seen[at[i]] = 1
    return indices


cdef void take_rows(char *to, const char *from_, const int64_t *rows, long n, size_t bytes) noexcept nogil:
    cdef long i
    for i in range(n):
        memcpy(to + i * bytes, from_ + rows[i] * bytes, bytes)


cdef void put_rows(char *to, const char *from_, const int64_t *rows, long n, size_t bytes) noexcept nogil:
    cdef long i
    for i in range(n):
        memcpy(to + rows[i] * bytes, from_ + i * bytes, bytes)


cdef int advance_rows(Link *link, fr_series x, fr_series out, const int64_t *rows, long n) noexcept nogil:
    """One step of one layer for n rows, each with the bits of a stream of its own. -1 without memory."""
    cdef Job job = link.job
    cdef fr_sequence *q = &job.sequence
    cdef const fr_sequence_kernels *k = job.kernels
    cdef int itemsize = k.itemsize, threads
    cdef char *c = <char *>q.workspace.c
    q.N, q.T, q.as_one_row = n, 1, True
    q.input_projection = FR_SEQUENTIAL if link.alone_projects else FR_FUSED
    cdef Plan plan = choose_plan(q, k)
    cdef size_t size = 0, h_row = q.P * itemsize, c_row = k.padded(q.H) * itemsize
    cdef size_t h_at = _room(&size, n * q.P, itemsize), c_at = _room(&size, n * k.padded(q.H) if c != NULL else 0, itemsize)
    cdef size_t pointers_at = _room(&size, plan.threads * FR_POINTERS * n, sizeof(void *))
    cdef char *at = <char *>fr_acquire(size)
    if at == NULL:
        return -1
    job.by_units, job.pointers = plan.by_units, <void **>(at + pointers_at)
    q.args.x, q.args.output, q.args.h0 = x, out, NULL
    if link.h != NULL:
        take_rows(at + h_at, <char *>link.h, rows, n, h_row)
        q.args.h0 = at + h_at
    if c != NULL:
        take_rows(at + c_at, c, rows, n, c_row)
        q.workspace.c = at + c_at
    plan_forward(&job, plan.shares)
    fr_parallel(plan.threads, forward_body, &job)
    if link.h != NULL:
        put_rows(<char *>link.h, <char *>out.data, rows, n, h_row)
    if c != NULL:
        put_rows(c, at + c_at, rows, n, c_row)
    fr_release(at)
    return 0
