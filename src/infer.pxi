# Part of _native.pyx: one layer and direction without training, and no Python object in sight.

cdef int infer(fr_sequence *given, const fr_sequence_kernels *k, bint packed, const void *c0, void *h_n, void *c_n) noexcept nogil:
    """One layer and direction without training, with panels and bias in their places. -1 without memory."""
    cdef Job job
    cdef fr_sequence *q = &job.sequence
    cdef int itemsize = k.itemsize
    memset(&job, 0, sizeof(job))
    job.sequence, job.kernels, job.packed = given[0], k, packed
    cdef Plan plan = choose_plan(q, k)
    cdef long row = k.inputs_row(q), Hp = k.padded(q.H)
    cdef size_t size = 0
    q.input_projection = FR_FUSED if plan.fused else FR_AHEAD
    job.by_units, job.passes = plan.by_units, k.passes(q)
    job.chunk = plan.chunk if plan.fused else max(1, min(plan.chunk, (1 << 20) // (q.N * row * itemsize)))
    cdef size_t gates_at = _room(&size, q.N * k.gates_row(q) if q.cell == FR_GRU_RESET_BEFORE else 0, itemsize)
    cdef size_t c_at = _room(&size, q.N * Hp if q.cell == FR_LSTM else 0, itemsize)
    cdef size_t inner_at = _room(&size, q.N * Hp if k.has_inner(q) else 0, itemsize)
    cdef size_t zeros_at = _room(&size, _zeros_row(k, q), itemsize)
    cdef size_t inputs_at = _room(&size, 0 if plan.fused else job.chunk * q.N * row, itemsize)
    cdef size_t operand_at = _room(&size, k.operands_size(q, False), itemsize)
    cdef size_t pointers_at = _room(&size, plan.threads * FR_POINTERS * q.N, sizeof(void *))
    cdef char *at = <char *>fr_acquire(size)
    if at == NULL:
        return -1
    q.scratch.inputs, q.scratch.operands, q.workspace.zeros, job.pointers = at + inputs_at, at + operand_at, at + zeros_at, <void **>(at + pointers_at)
    memset(q.workspace.zeros, 0, _zeros_row(k, q) * itemsize)
    if q.cell == FR_GRU_RESET_BEFORE:
        q.workspace.gates = at + gates_at
    if k.has_inner(q):
        q.workspace.inner = at + inner_at
    if q.cell == FR_LSTM:
        q.workspace.c = at + c_at
        k.pack_state(q, q.workspace.c, c0)
    if q.T:
        plan_forward(&job, plan.shares)
        fr_parallel(plan.threads, forward_body, &job)
    k.last_states(q, h_n, c_n)
    fr_release(at)
    return 0
