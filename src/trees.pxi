# Part of _native.pyx: the loops over the levels of trees, forward and backward, and what Python calls. See trees.h.

cdef struct TreeJob:
    fr_trees trees
    const fr_tree_kernels *kernels
    long levels
    fr_work work


cdef fr_partition tree_share(const TreeJob *job, const fr_piece *piece, int worker, long level) noexcept nogil:
    """level: the one that is worked on, -1: none. One of few rows is shared out by units."""
    cdef fr_partition share
    cdef const long *start = job.trees.level
    share.id, share.count, share.worker, share.pointers = piece.share, job.work.shares, worker, NULL
    share.by_units = level >= 0 and job.kernels.row_blocks(start[level + 1] - start[level]) < share.count
    return share


cdef enum: TREE_FORWARD = 3, TREE_BACKWARD = 2  # phases of a level, of which the first does all where rows are shared out


cdef void tree_forward_body(void *arg, int id) noexcept nogil:
    """What one thread does of a forward pass: packing, inputs, then from the leaves to the roots."""
    cdef TreeJob *job = <TreeJob *>arg
    cdef const fr_tree_kernels *k = job.kernels
    cdef const fr_trees *t = &job.trees
    cdef fr_partition share
    cdef fr_piece piece
    cdef long level
    memset(&piece, 0, sizeof(piece))
    while fr_next(&job.work, id, &piece):
        level = (piece.phase - 2) // TREE_FORWARD if piece.phase >= 2 else -1
        share = tree_share(job, &piece, id, level)
        if piece.phase == 0:
            k.pack_forward(t, share)
        elif piece.phase == 1:
            if t.projected < t.inputs:
                k.project(t, t.projected, t.inputs, share)
        elif share.by_units or (piece.phase - 2) % TREE_FORWARD == 0:
            k.forward(t, level, (piece.phase - 2) % TREE_FORWARD, share)


cdef void tree_backward_body(void *arg, int id) noexcept nogil:
    """What one thread does of backpropagation: packing, from the roots to the leaves, the gradients of inputs and weights."""
    cdef TreeJob *job = <TreeJob *>arg
    cdef const fr_tree_kernels *k = job.kernels
    cdef const fr_trees *t = &job.trees
    cdef fr_partition share
    cdef fr_piece piece
    cdef long level
    memset(&piece, 0, sizeof(piece))
    while fr_next(&job.work, id, &piece):
        level = job.levels - 1 - (piece.phase - 1) // TREE_BACKWARD if piece.phase else -1
        share = tree_share(job, &piece, id, level)
        if piece.phase == 0:
            k.pack_backward(t, share)
        elif level >= 0:
            if share.by_units or (piece.phase - 1) % TREE_BACKWARD == 0:
                k.backward(t, level, (piece.phase - 1) % TREE_BACKWARD, share)
        else:
            if t.dx:
                k.grad_input(t, share)
            k.grad_weights(t, share)


cdef class TreeTape:
    """What a forward pass over trees with training=True leaves for its backward pass; used once."""
    cdef fr_trees trees
    cdef const fr_tree_kernels *kernels
    cdef int typenum
    cdef Block states
    cdef tuple arrays

    def __reduce__(self):
        raise TypeError("a forward pass' cache cannot be pickled")


cdef const long *_indices(cnp.ndarray a) except NULL:
    """The data of one of `fastrnn.trees.Levels`' arrays, which are made and checked there."""
    if cnp.PyArray_TYPE(a) != cnp.NPY_LONG or not cnp.PyArray_IS_C_CONTIGUOUS(a):
        raise TypeError(f"trees: expected arrays of C's long, got {a.dtype}")
    return <const long *>cnp.PyArray_DATA(a)


cdef long _tree_rows(const fr_trees *t, bint of_weight_hh) noexcept nogil:
    """Rows of the weights, in multiples of H."""
    return 1 if not t.lstm else 3 + max(t.children, 1) if of_weight_hh else 4


cdef size_t _tree_states(const fr_trees *t, const fr_tree_kernels *k, long Hp, size_t room[5]) noexcept:
    """Room for what backward needs: slots, h, c, x in level order, the children's operand."""
    cdef size_t size = 0
    cdef long slots = 4 + max(t.children, 1) if t.lstm else 1
    room[0] = _room(&size, slots * t.nodes * Hp, k.itemsize)
    room[1] = _room(&size, t.nodes * Hp, k.itemsize)
    room[2] = _room(&size, t.nodes * Hp if t.lstm else 0, k.itemsize)
    room[3] = _room(&size, t.inputs * t.D if t.inputs == t.nodes else 0, k.itemsize)
    room[4] = _room(&size, (t.nodes - t.leaves) * max(t.children, 1) * t.H, k.itemsize)
    return size


cdef int _tree_threads(const fr_trees *t, long levels) noexcept nogil:
    """One thread where starting others, or meeting them after each level, would cost more than they do (`choose_plan`
    has the measurements)."""
    cdef double flops = 2.0 * t.H * (<double>t.inputs * t.D * _tree_rows(t, False)
                                     + <double>(t.nodes - t.leaves) * max(t.children, 1) * t.H * _tree_rows(t, True))
    return min(_forced_threads, FR_MAX_SHARES) if _forced_threads else 1 if flops < 7e5 or flops < 3e4 * levels else min(fr_get_num_threads(), FR_MAX_SHARES)


def tree_forward(bint lstm, int activation, long children, x, levels, long num_trees, weight_ih, weight_hh, bias, bint training):
    """Run TreeRNN or TreeLSTM over trees, given as `fastrnn.trees.Levels`. Returns (h, c of the roots or None, TreeTape
    or None); the caller has checked that no node has more than `children` children, unless it is 0."""
    cdef int typenum = _real_type(weight_ih, "weight_ih")
    cdef int itemsize = 4 if typenum == cnp.NPY_FLOAT32 else 8
    cdef const fr_tree_kernels *k = fr_build_for(_isa, itemsize).tree
    cdef TreeJob job
    cdef fr_trees *t = &job.trees
    memset(&job, 0, sizeof(job))
    job.kernels = k
    t.lstm, t.activation, t.children = lstm, activation, children
    start, order, parent, position, first_child, child = levels
    t.level, t.order, t.parent, t.position = _indices(start), _indices(order), _indices(parent), _indices(position)
    t.first_child, t.child = _indices(first_child), _indices(child)
    job.levels = len(start) - 1
    t.nodes, t.leaves = len(order), start[1]

    cdef cnp.ndarray w_ih = <cnp.ndarray>weight_ih, w_hh, x_, b = None, h, c_root = None
    cdef long G = _tree_rows(t, False)
    if cnp.PyArray_NDIM(w_ih) != 2 or cnp.PyArray_SIZE(w_ih) == 0 or cnp.PyArray_DIM(w_ih, 0) % G:
        raise ValueError(f"weight_ih: expected shape ({'' if G == 1 else f'{G}*'}H, D), got {_shape_of(w_ih)}")
    t.H, t.D = cnp.PyArray_DIM(w_ih, 0) // G, cnp.PyArray_DIM(w_ih, 1)
    w_ih = _dense(w_ih, "weight_ih", typenum, "GD", 2, G * t.H, t.D)
    w_hh = _dense(weight_hh, "weight_hh", typenum, "GH", 2, _tree_rows(t, True) * t.H, max(children, 1) * t.H)
    if bias is not None:
        b = _dense(bias, "bias", typenum, "G", 1, G * t.H, -1)
    x_ = _array(x, "x", typenum)
    if cnp.PyArray_NDIM(x_) != 2 or cnp.PyArray_DIM(x_, 1) != t.D or cnp.PyArray_DIM(x_, 0) not in (t.nodes, t.leaves):
        raise ValueError(f"x: expected shape ({t.nodes}, {t.D}), a row per node, or ({t.leaves}, {t.D}), a row per leaf, "
                         f"got {_shape_of(x_)}")
    x_ = _dense(x_, "x", typenum, "VD", 2, -1, t.D)
    t.inputs = cnp.PyArray_DIM(x_, 0)
    h = _new(typenum, t.nodes, t.H, -1, False)
    if lstm:
        c_root = _new(typenum, num_trees, t.H, -1, False)
    t.x, t.weight_ih, t.weight_hh, t.bias = _data(x_), _data(w_ih), _data(w_hh), _data(b)
    t.output, t.c_root = _data(h), _data(c_root)

    cdef long level, Hp = k.padded(t.H), W = max(children, 1) * t.H
    t.projected = t.nodes
    for level in range(job.levels):
        if t.level[level + 1] - t.level[level] < FR_TREE_FEW:
            t.projected = t.level[level]
            break
    cdef size_t room[5]
    cdef Block states = _block(_tree_states(t, k, Hp, room))
    t.slots, t.h, t.c, t.operand = states.at + room[0], states.at + room[1], states.at + room[2], states.at + room[4]
    t.x_ordered = states.at + room[3] if t.inputs == t.nodes else <void *>t.x
    cdef size_t size = 0
    cdef size_t x_at = _room(&size, G * Hp * t.D, itemsize)
    cdef size_t h_at = _room(&size, _tree_rows(t, True) * Hp * W, itemsize), f_at = _room(&size, Hp * t.H, itemsize)
    cdef size_t bias_at = _room(&size, G * Hp, itemsize)
    cdef Block call = _block(size)
    t.panels_x, t.panels_h, t.panels_f, t.packed_bias = call.at + x_at, call.at + h_at, call.at + f_at, call.at + bias_at
    cdef int threads = _tree_threads(t, job.levels)
    fr_plan_work(&job.work, 2 + TREE_FORWARD * job.levels, threads, threads > 1)
    with nogil:
        fr_parallel(threads, tree_forward_body, &job)
    if not training:
        return h, c_root, None
    cdef TreeTape tape = TreeTape.__new__(TreeTape)
    tape.trees, tape.kernels, tape.typenum, tape.states = job.trees, k, typenum, states
    tape.arrays = (levels, num_trees, x_, w_ih, w_hh, b)
    return h, c_root, tape


def tree_backward(str owner, bint lstm, cache, dh, dh_root, dc_root, into):
    """Backpropagate through what `tree_forward` ran for `owner`; returns the dict of gradients."""
    if not isinstance(cache, TreeTape) or (<TreeTape>cache).kernels == NULL or (<TreeTape>cache).trees.lstm != lstm:
        raise TypeError(f"cache: expected the cache of {owner} in training, got {type(cache).__name__}"
                        f"{' of another cell' if isinstance(cache, TreeTape) else ''}")
    cdef TreeTape tape = <TreeTape>cache
    if tape.states is None:
        raise RuntimeError(f"cache: already consumed by an earlier backward; run {owner} again")
    cdef TreeJob job
    cdef fr_trees *t = &job.trees
    cdef const fr_tree_kernels *k = tape.kernels
    cdef int typenum = tape.typenum, itemsize = k.itemsize
    memset(&job, 0, sizeof(job))
    job.trees, job.kernels = tape.trees, k
    job.levels = len(tape.arrays[0].start) - 1
    cdef long num_trees = tape.arrays[1], G = _tree_rows(t, False), rows = _tree_rows(t, True)
    cdef long Hp = k.padded(t.H), W = max(t.children, 1) * t.H
    names = ("x", "weight_ih", "weight_hh", *(("bias",) if t.bias else ()))
    for name in into or ():
        if name not in names:
            raise ValueError(f"into: expected keys among {', '.join(names)}, got {name!r}")

    cdef cnp.ndarray dh_ = None, dh_root_ = None, dc_root_ = None, dx, db = None
    if dh is not None:
        dh_ = _dense(dh, "dh", typenum, "VH", 2, t.nodes, t.H)
    if dh_root is not None:
        dh_root_ = _dense(dh_root, "dh_root", typenum, "KH", 2, num_trees, t.H)
    if dc_root is not None:
        dc_root_ = _dense(dc_root, "dc_root", typenum, "KH", 2, num_trees, t.H)
    t.doutput, t.dh_root, t.dc_root = _data(dh_), _data(dh_root_), _data(dc_root_)
    dx_sum = _gradient(into, "x", typenum, "VD", 2, t.inputs, t.D) if into is not None and into.get("x") is not None else None
    dx = _new(typenum, t.inputs, t.D, -1, False)
    cdef cnp.ndarray dw_ih = _gradient(into, "weight_ih", typenum, "GD", 2, G * t.H, t.D)
    cdef cnp.ndarray dw_hh = _gradient(into, "weight_hh", typenum, "GH", 2, rows * t.H, W)
    if t.bias:
        db = _gradient(into, "bias", typenum, "G", 1, G * t.H, -1)
    t.dx, t.dweight_ih, t.dweight_hh, t.dbias = _data(dx), _data(dw_ih), _data(dw_hh), _data(db)

    cdef int threads = _tree_threads(t, job.levels)
    cdef bint apart = lstm and t.children == 0
    cdef size_t size = 0
    cdef size_t dh_at = _room(&size, t.nodes * Hp if apart else 0, itemsize)
    cdef size_t dc_at = _room(&size, t.nodes * Hp if lstm else 0, itemsize)
    cdef size_t operand_at = _room(&size, (t.nodes - t.leaves) * W, itemsize)
    cdef size_t x_at = _room(&size, G * t.H * (t.D + k.lanes), itemsize)
    cdef size_t h_at = _room(&size, rows * t.H * (W + k.lanes), itemsize), f_at = _room(&size, t.H * Hp, itemsize)
    cdef size_t scratch_at = _room(&size, k.gradients_size(t, threads), itemsize)
    cdef Block call = _block(size), states = tape.states
    arrays = tape.arrays  # alive until the end
    tape.states, tape.arrays = None, None  # used up from here on
    t.dh, t.dc, t.doperand, t.gradients = call.at + dh_at, call.at + dc_at, call.at + operand_at, call.at + scratch_at
    t.panels_x, t.panels_h, t.panels_f = call.at + x_at, call.at + h_at, call.at + f_at
    fr_plan_work(&job.work, 2 + TREE_BACKWARD * job.levels, threads, threads > 1)
    with nogil:
        fr_parallel(threads, tree_backward_body, &job)
    if dx_sum is not None:
        with np.errstate(all="ignore"):
            dx_sum += dx
        dx = dx_sum
    return {"x": dx, "weight_ih": dw_ih, "weight_hh": dw_hh, "bias": db}
