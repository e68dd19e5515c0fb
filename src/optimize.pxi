# Part of _native.pyx: an optimiser's step and gradient clipping, each one call for all arrays of a model.
#
# Every array is cut into blocks of a fixed size, counted through all arrays, and threads take runs of them: the sum
# that a norm is made of is always the same one, and everything else is done element by element.

cdef enum Task: TASK_UPDATE, TASK_SUM, TASK_CLIP

cdef struct Piece:  # one array
    const fr_update_kernels *kernels
    char *param
    char *grad
    char *slot0
    char *slot1
    long size

cdef struct Sweep:  # one pass over all arrays
    Task task
    Piece *pieces
    int count
    long block, blocks
    double *sums  # one for each block
    fr_update update
    fr_work work


cdef void sweep_body(void *arg, int id) noexcept nogil:
    cdef Sweep *sweep = <Sweep *>arg
    cdef fr_piece piece
    cdef int shares = sweep.work.shares
    memset(&piece, 0, sizeof(piece))
    while fr_next(&sweep.work, id, &piece):
        sweep_blocks(sweep, sweep.blocks * piece.share // shares, sweep.blocks * (piece.share + 1) // shares)


cdef void sweep_blocks(const Sweep *sweep, long first, long last) noexcept nogil:
    cdef long before = 0, b, n, count, at
    cdef const Piece *p
    for i in range(sweep.count):
        p = &sweep.pieces[i]
        n = (p.size + sweep.block - 1) // sweep.block
        for b in range(max(first - before, 0), min(last - before, n)):
            count = min(sweep.block, p.size - b * sweep.block)
            at = b * sweep.block * p.kernels.itemsize
            if sweep.task == TASK_SUM:
                sweep.sums[before + b] = p.kernels.sum_of_squares(p.grad + at, count)
            elif sweep.task == TASK_CLIP:
                p.kernels.clip(p.grad + at, count, sweep.update.scale, sweep.update.limit)
            else:
                p.kernels.update(&sweep.update, p.param + at, p.grad + at, p.slot0 + at if p.slot0 else NULL,
                                 p.slot1 + at if p.slot1 else NULL, count)
        before += n


cdef int _run(Sweep *sweep, Task task) except -1:
    """Let the threads sweep over all blocks. One thread where another would cost more than it saves: it takes 2 us to
    hand work over and 10 us for Adam's step of 16K elements. One too where two arrays that are written share memory."""
    cdef long i, k, total = 0
    cdef int threads = fr_get_num_threads()
    cdef char *a
    cdef char *b
    cdef Piece *p = sweep.pieces
    sweep.task = task
    for i in range(sweep.count):
        total += p[i].size
    if total < 1 << 17:
        threads = 1
    for i in range(sweep.count if threads > 1 and task != TASK_SUM else 0):
        for k in range(i):
            a, b = (p[i].param, p[k].param) if task == TASK_UPDATE else (p[i].grad, p[k].grad)
            if a < b + p[k].size * p[k].kernels.itemsize and b < a + p[i].size * p[i].kernels.itemsize:
                threads = 1
    fr_plan_work(&sweep.work, 1, 1 if threads == 1 else min(4 * threads, FR_MAX_SHARES), False)
    with nogil:
        fr_parallel(threads, sweep_body, sweep)
    return 0


cdef Block _room_for_sweep(Sweep *sweep, int count, long block):
    """Start a sweep over `count` arrays."""
    memset(sweep, 0, sizeof(Sweep))
    sweep.block = block
    cdef Block memory = _block(count * sizeof(Piece) + 1)
    sweep.pieces = <Piece *>memory.at
    sweep.update.scale, sweep.update.limit = 1, np.inf
    return memory


cdef int _add_piece(Sweep *sweep, cnp.ndarray grad) except -1:
    cdef Piece *p = &sweep.pieces[sweep.count]
    memset(p, 0, sizeof(Piece))
    p.kernels = fr_build_for(_isa, cnp.PyArray_ITEMSIZE(grad)).update
    p.grad, p.size = <char *>cnp.PyArray_DATA(grad), cnp.PyArray_SIZE(grad)
    sweep.count += 1
    sweep.blocks += (p.size + sweep.block - 1) // sweep.block
    return 0


cdef double _norm(Sweep *sweep) except? -1:
    """The Euclidean norm of all gradients together; what they are to be scaled by goes into the sweep."""
    cdef Block memory = _block(sweep.blocks * sizeof(double) + 1)
    cdef double total = 0
    sweep.sums = <double *>memory.at
    _run(sweep, TASK_SUM)
    for i in range(sweep.blocks):
        total += sweep.sums[i]
    return sqrt(total)


cdef double _norm_to_clip(Sweep *sweep, list grads, double max_norm) except? -1:
    """The norm, and in the sweep the factor that brings it down to max_norm. Squares of finite entries may overflow: then
    the entries are brought down to 1 first."""
    cdef double norm = _norm(sweep), peak, relative
    sweep.update.scale = _scale_to(norm, max_norm)
    if isfinite(norm):
        return norm
    peak = max(float(np.abs(a).max(initial=0)) for a in grads)
    if not isfinite(peak):
        return norm
    relative = sqrt(sum(float(np.square(np.divide(a, peak, dtype=np.float64)).sum()) for a in grads))
    sweep.update.scale = min(1.0, max_norm / peak / relative)
    return peak * relative


cdef object _scale_in_two(Sweep *sweep, list grads, bint in_place):
    """Take a part of a factor that is too small for the dtype out of it and into the gradients, or into copies of them,
    which are returned; None where the factor is large enough."""
    cdef double least = min((np.finfo(a.dtype).tiny for a in grads), default=0)
    cdef double part = np.sqrt(np.finfo(np.float32).tiny) if least > 1e-100 else 1e-150
    if not 0 < sweep.update.scale < 1e3 * least:
        return None
    parts = grads if in_place else [a.copy() for a in grads]
    for i, a in enumerate(parts):
        np.multiply(a, a.dtype.type(part), out=a)
        sweep.pieces[i].grad = <char *>cnp.PyArray_DATA(<cnp.ndarray>a)
    sweep.update.scale /= part
    return parts


cdef double _scale_to(double norm, double max_norm) noexcept:
    """PyTorch's factor; nan stays nan."""
    cdef double scale = max_norm / (norm + 1e-6)
    return 1 if scale >= 1 else scale


cdef cnp.ndarray _like(object a, str what, object name, tuple shape, object dtype, int typenum):
    """An array of the shape and dtype that the first step saw."""
    if not isinstance(a, cnp.ndarray) or cnp.PyArray_TYPE(<cnp.ndarray>a) != typenum or cnp.PyArray_ISBYTESWAPPED(<cnp.ndarray>a):
        raise TypeError(f"{what}[{name!r}]: expected {dtype}, got {getattr(a, 'dtype', type(a).__name__)}")
    if a.shape != shape:
        raise ValueError(f"{what}[{name!r}]: expected shape {shape}, got {a.shape}")
    return <cnp.ndarray>a


def optimizer_step(dict shapes, dtype, list slots, params, grads, long block, int rule, *, double rate, double couple=0,
                   double shrink=1, double momentum=0, bint nesterov=False, double decay=0, double decay_squares=0,
                   double eps=0, clip_norm=None, clip_value=None):
    """Update `params` in place. shapes: those of all parameters by name. slots: the state's flat arrays, in which the
    parameters follow each other. Returns the gradients' norm before clipping, None without clip_norm.

    Errors are raised before anything is written.
    """
    cdef Sweep sweep
    cdef Block memory = _room_for_sweep(&sweep, len(shapes), block)
    cdef int typenum = cnp.PyArray_TYPE(slots[0]) if slots else dtype.num
    cdef cnp.ndarray param, grad
    cdef Piece *p
    cdef long offset = 0, itemsize = dtype.itemsize
    held = []
    for name, shape in shapes.items():
        given = grads.get(name)
        if given is None:
            raise ValueError(f"grads: expected a gradient for {name!r}, got none")
        param = _like(params[name], "params", name, shape, dtype, typenum)
        grad = _like(given, "grads", name, shape, dtype, typenum)
        if not cnp.PyArray_ISCARRAY(param):  # a copy would be updated in its place
            state = "a strided" if cnp.PyArray_ISWRITEABLE(param) else "a read-only"
            raise ValueError(f"params[{name!r}]: expected a C-contiguous, writeable array, got {state} one")
        if not cnp.PyArray_ISCARRAY_RO(grad):
            grad = cnp.PyArray_NewCopy(grad, cnp.NPY_CORDER)
        held.append((param, grad))
        _add_piece(&sweep, grad)
        p = &sweep.pieces[sweep.count - 1]
        p.param = <char *>cnp.PyArray_DATA(param)
        if len(slots) > 0:
            p.slot0 = <char *>cnp.PyArray_DATA(slots[0]) + offset
        if len(slots) > 1:
            p.slot1 = <char *>cnp.PyArray_DATA(slots[1]) + offset
        offset += p.size * itemsize
    norm = None
    if clip_norm is not None:
        gradients = [grad for _, grad in held]
        norm = _norm_to_clip(&sweep, gradients, clip_norm)
        if not isfinite(norm) and not all(np.isfinite(grad).all() for grad in gradients):
            raise FloatingPointError(f"gradient: expected a finite norm, got {norm}")
        scaled = _scale_in_two(&sweep, gradients, False)  # kept until the step is done
    if clip_value is not None:
        sweep.update.limit = clip_value
    sweep.update.rule, sweep.update.nesterov, sweep.update.rate = rule, nesterov, rate
    sweep.update.l2_weight_decay, sweep.update.decoupled_weight_decay, sweep.update.momentum = couple, shrink, momentum
    sweep.update.decay, sweep.update.decay_squares, sweep.update.eps = decay, decay_squares, eps
    _run(&sweep, TASK_UPDATE)
    return norm


def clip_gradients(grads, long block, max_norm, value):
    """Scale `grads` in place to a common norm of at most max_norm, and bound each entry by value; None: not.
    Returns the norm, None without max_norm."""
    cdef Sweep sweep
    cdef Block memory = _room_for_sweep(&sweep, len(grads), block)
    cdef cnp.ndarray array
    held, copies = [], []
    for name, given in grads.items():
        _real_type(given, f"grads[{name!r}]")
        array = <cnp.ndarray>given
        if not cnp.PyArray_ISWRITEABLE(array):
            raise ValueError(f"grads[{name!r}]: expected a writable array, got a read-only one")
        if not cnp.PyArray_ISBEHAVED(array) or not cnp.PyArray_ISONESEGMENT(array):
            array = given.astype(given.dtype.newbyteorder("="), order="C")
            copies.append((given, array))
        held.append(array)
        _add_piece(&sweep, array)
    norm = None
    if max_norm is not None:
        norm = _norm_to_clip(&sweep, held, max_norm)
        _scale_in_two(&sweep, held, True)
    if value is not None:
        sweep.update.limit = value
    if sweep.update.scale != 1 or value is not None:
        _run(&sweep, TASK_CLIP)
        for given, array in copies:
            given[...] = array
    return norm


RULES = {"sgd": FR_SGD, "rmsprop": FR_RMSPROP, "adagrad": FR_ADAGRAD, "adam": FR_ADAM}
