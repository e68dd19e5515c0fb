"""Recurrent networks over trees: the loops over levels, forward and backward, and what `fastrnn.functional` calls. See trees.h.

V nodes of all trees, D input_size, H hidden_size, N children per node in the N-ary forms, W = max(N, 1) * H.
"""

import numpy as np

cimport numpy as cnp
from fastrnn._native._arrays cimport as_array, check_names, data_of, dense, gradient, hidden_size, hold, new_array, real_type, shape_of
from fastrnn._native._plan cimport level_threads
from fastrnn._native._runtime cimport (
    Cache, Rooms, Workspace, allot, build_for, check_unused, next_task, plan_work, raise_signal, reserve, run_parallel, stops, thread_body, was_stopped,
)
from fastrnn._native._sequence cimport CompiledCell
from fastrnn._native._tree_stack cimport PackedTree, TreeStack, make_panels, operand_width, point_to, weight_rows
from fastrnn._native.kernels cimport *
from libc.string cimport memset

cnp.import_array()

cdef struct TreeCall:
    fr_trees trees
    const fr_tree_kernels *kernels
    long levels
    double cost  # multiply-adds of a forward pass
    int may_stop  # a signal may stop all phases, or all but the last, of gradients
    int packed  # the weights are in panels already
    fr_work work


cdef void clear_call(TreeCall *call) noexcept nogil:
    memset(call, 0, <char *>&call.work - <char *>call)  # `plan_work` starts the rest


cdef fr_partition _partition_of(const TreeCall *call, const fr_task *task, int worker, long level) noexcept nogil:
    """level: the one that is worked on, -1: none. One of few rows is shared out by units."""
    cdef fr_partition part
    cdef const long *start = call.trees.level
    part.id, part.count, part.worker, part.pointers = task.partition, call.work.partitions, worker, NULL
    part.by_units = level >= 0 and call.kernels.row_blocks(start[level + 1] - start[level]) < part.count
    return part


cdef fr_watch _start_watch(TreeCall *call, int id, fr_task *task) noexcept nogil:
    """A thread's watch, and `task` before its first task."""
    cdef fr_watch watch
    memset(&watch, 0, sizeof(watch))
    memset(task, 0, sizeof(fr_task))
    watch.stopped, watch.caller = &call.work.stopped, id == 0
    return watch


cdef enum: FORWARD_PHASES = 3, BACKWARD_PHASES = 2  # phases of a level, of which the first does all where rows are shared out


cdef void _forward_body(void *arg, int id) noexcept nogil:
    """What one thread does of a forward pass: packing, inputs, then from the leaves to the roots."""
    cdef TreeCall *call = <TreeCall *>arg
    cdef const fr_tree_kernels *k = call.kernels
    cdef fr_trees own = call.trees
    cdef fr_trees *t = &own
    cdef fr_partition part
    cdef fr_task task
    cdef fr_watch watch = _start_watch(call, id, &task)
    cdef double cost = call.cost / (call.work.phases * call.work.partitions)
    cdef long level
    while next_task(&call.work, id, &task):
        level = (task.phase - 2) // FORWARD_PHASES if task.phase >= 2 else -1
        part = _partition_of(call, &task, id, level)
        t.watch = &watch
        if stops(&watch, cost):
            return
        if task.phase == 0:
            if not call.packed:
                k.pack_forward(t, part)
        elif task.phase == 1:
            if t.projected < t.inputs:
                k.project(t, t.projected, t.inputs, part)
        elif part.by_units or (task.phase - 2) % FORWARD_PHASES == 0:
            k.forward(t, level, (task.phase - 2) % FORWARD_PHASES, part)


cdef void _backward_body(void *arg, int id) noexcept nogil:
    """What one thread does of backpropagation: packing, from the roots to the leaves, the gradients of inputs and weights. All
    have a barrier before each phase, so no thread is at the last one while another may stop in the phase before."""
    cdef TreeCall *call = <TreeCall *>arg
    cdef const fr_tree_kernels *k = call.kernels
    cdef fr_trees own = call.trees
    cdef fr_trees *t = &own
    cdef fr_partition part
    cdef fr_task task
    cdef fr_watch watch = _start_watch(call, id, &task)
    cdef double cost = call.cost / (call.work.phases * call.work.partitions)
    cdef long level
    while next_task(&call.work, id, &task):
        level = call.levels - 1 - (task.phase - 1) // BACKWARD_PHASES if task.phase else -1
        part = _partition_of(call, &task, id, level)
        if task.phase == 0:
            k.pack_backward(t, part)
        elif level >= 0:
            t.watch = &watch
            if stops(&watch, cost):
                return
            if part.by_units or (task.phase - 1) % BACKWARD_PHASES == 0:
                k.backward(t, level, (task.phase - 1) % BACKWARD_PHASES, part)
        else:
            t.watch = &watch if call.may_stop else NULL
            if t.dx:
                k.grad_input(t, part)
            k.grad_weights(t, part)


cdef class TreeCache(Cache):
    """What `tree_forward` with training=True leaves for `tree_backward`; used once."""
    cdef fr_trees trees
    cdef const fr_tree_kernels *kernels  # NULL: made by hand
    cdef long levels, num_trees

    def __repr__(self):
        used = ", used up" if self.states is None else ""
        return f"<cache of tree_forward: {self.trees.nodes} nodes of {self.num_trees} trees, H={self.trees.H}{used}>"


# ---- Forward ----

def tree_forward(CompiledCell cell not None, x, *, long children, levels, long num_trees, weight_ih, weight_hh, bias,
                 bint training, TreeStack stack=None):
    """Run the RNN or LSTM over trees, given as `fastrnn.Trees.levels`. Returns (h, c of the roots or None, TreeCache or
    None); the caller has checked that no node has more than `children` children, unless it is 0.

    stack: keeps these weights packed for calls without training, and has been asked to `look`."""
    cdef int typenum = real_type(weight_ih, "weight_ih")
    cdef TreeCall call
    cdef fr_trees *t = &call.trees
    clear_call(&call)
    call.kernels = build_for(4 if typenum == cnp.NPY_FLOAT32 else 8).tree
    t.lstm, t.activation, t.children = cell.cell == FR_LSTM, cell.options.activation, children
    cdef list held = [levels]
    _read_levels(&call, levels)
    _read_weights(t, held, typenum, weight_ih, weight_hh, bias)
    _read_x(t, held, typenum, x)
    cdef cnp.ndarray h = new_array(typenum, t.nodes, t.H, -1, False), c_root = None
    if t.lstm:
        c_root = new_array(typenum, num_trees, t.H, -1, False)
    t.output, t.c_root, t.projected = data_of(h), data_of(c_root), _first_projected(&call)
    cdef Workspace states = _make_states(&call), scratch = None  # no-cython-lint: scratch lives to the end
    cdef PackedTree packed = None if training or stack is None else stack.packed_for(t, call.kernels)
    if packed is None:
        scratch = make_panels(t, call.kernels)  # no-cython-lint: lives to the end
    else:
        point_to(t, packed)
        call.packed = packed.ready
    call.may_stop = True
    _run(&call, _forward_body, 2 + FORWARD_PHASES * call.levels)
    if packed is not None:
        packed.ready = True
    if not training:
        return h, c_root, None
    cdef TreeCache cache = TreeCache.__new__(TreeCache)
    cache.trees, cache.kernels, cache.typenum, cache.states, cache.arrays = call.trees, call.kernels, typenum, states, held
    cache.levels, cache.num_trees = call.levels, num_trees
    return h, c_root, cache


cdef int _run(TreeCall *call, thread_body body, long phases) except -1:
    cdef int threads = _threads(call)
    call.cost = _flops(call) / 2
    plan_work(&call.work, phases, threads, threads > 1)
    with nogil:
        run_parallel(threads, body, call)
    return raise_signal() if was_stopped(&call.work, call.cost if call.may_stop else 0) else 0


cdef int _threads(const TreeCall *call) noexcept nogil:
    return level_threads(_flops(call), call.levels)


cdef double _flops(const TreeCall *call) noexcept nogil:
    cdef const fr_trees *t = &call.trees
    return 2.0 * t.H * (<double>t.inputs * t.D * weight_rows(t, False)
                        + <double>(t.nodes - t.leaves) * operand_width(t) * weight_rows(t, True))


cdef int _read_levels(TreeCall *call, levels) except -1:
    cdef fr_trees *t = &call.trees
    start, order, parent, position, first_child, child = levels
    t.level, t.order, t.parent, t.position = _indices(start), _indices(order), _indices(parent), _indices(position)
    t.first_child, t.child = _indices(first_child), _indices(child)
    call.levels = len(start) - 1
    t.nodes, t.leaves = len(order), start[1]
    return 0


cdef const long *_indices(cnp.ndarray a) except NULL:
    """The data of one of `fastrnn.Trees.levels`' arrays, which are made and checked there."""
    if cnp.PyArray_TYPE(a) != cnp.NPY_LONG or not cnp.PyArray_IS_C_CONTIGUOUS(a):
        raise TypeError(f"trees: expected arrays of C's long, got {a.dtype}")
    return <const long *>cnp.PyArray_DATA(a)


cdef int _read_weights(fr_trees *t, list held, int typenum, weight_ih, weight_hh, bias) except -1:
    cdef long G = weight_rows(t, False)
    t.H = hidden_size(weight_ih, G, None)
    t.D = cnp.PyArray_DIM(<cnp.ndarray>weight_ih, 1)
    t.weight_ih = hold(held, weight_ih, "weight_ih", typenum, "GD", 2, G * t.H, t.D)
    cdef cnp.ndarray w_hh = dense(weight_hh, "weight_hh", typenum, "GH", 2, weight_rows(t, True) * t.H, operand_width(t))
    held.append(w_hh)
    t.weight_hh = cnp.PyArray_DATA(w_hh)
    t.bias = hold(held, bias, "bias", typenum, "G", 1, G * t.H, -1)
    return 0


cdef int _read_x(fr_trees *t, list held, int typenum, x) except -1:
    cdef cnp.ndarray x_ = as_array(x, "x", typenum)
    if cnp.PyArray_NDIM(x_) != 2 or cnp.PyArray_DIM(x_, 1) != t.D or cnp.PyArray_DIM(x_, 0) not in (t.nodes, t.leaves):
        raise ValueError(f"x: expected shape ({t.nodes}, {t.D}), a row per node, or ({t.leaves}, {t.D}), a row per leaf, "
                         f"got {shape_of(x_)}")
    t.x = hold(held, x_, "x", typenum, "VD", 2, -1, t.D)
    t.inputs = cnp.PyArray_DIM(x_, 0)
    return 0


cdef long _first_projected(const TreeCall *call) noexcept:
    """The first node of the first small level: from there on inputs are projected ahead, all together."""
    cdef const fr_trees *t = &call.trees
    cdef long level
    for level in range(call.levels):
        if t.level[level + 1] - t.level[level] < FR_TREE_FEW:
            return t.level[level]
    return t.nodes


cdef Workspace _make_states(TreeCall *call):
    """Room for what backward needs: slots, h, c, x in level order, the children's operand."""
    cdef fr_trees *t = &call.trees
    cdef int itemsize = call.kernels.itemsize
    cdef long Hp = call.kernels.padded(t.H), slots = 4 + max(t.children, 1) if t.lstm else 1
    cdef Rooms rooms
    memset(&rooms, 0, sizeof(rooms))
    reserve(&rooms, &t.slots, slots * t.nodes * Hp, itemsize)
    reserve(&rooms, &t.h, t.nodes * Hp, itemsize)
    reserve(&rooms, &t.c, t.nodes * Hp if t.lstm else 0, itemsize)
    if t.inputs == t.nodes:
        reserve(&rooms, &t.x_ordered, t.inputs * t.D, itemsize)
    else:
        t.x_ordered = <void *>t.x
    reserve(&rooms, &t.operand, (t.nodes - t.leaves) * operand_width(t), itemsize)
    return allot(&rooms)


# ---- Backward ----

cdef enum: WORTH_COPIES = 1000000000, MANY_NODES = 2000  # floating-point operations; nodes


def tree_backward(bint lstm, cache, dh, dh_root, dc_root, into):
    """Backpropagate through what `tree_forward` ran; returns the dict of gradients."""
    forward = "tree_lstm_forward" if lstm else "tree_rnn_forward"
    if not isinstance(cache, TreeCache) or (<TreeCache>cache).kernels == NULL or (<TreeCache>cache).trees.lstm != lstm:
        raise TypeError(f"cache: expected the cache of {forward} in training, got {type(cache).__name__}"
                        f"{' of another cell' if isinstance(cache, TreeCache) else ''}")
    cdef TreeCache used = <TreeCache>cache
    check_unused(used, forward)
    cdef TreeCall call
    cdef fr_trees *t = &call.trees
    clear_call(&call)
    call.trees, call.kernels, call.levels = used.trees, used.kernels, used.levels
    cdef int typenum = used.typenum
    check_names(into, ("x", "weight_ih", "weight_hh", "bias") if t.bias else ("x", "weight_ih", "weight_hh"))
    cdef cnp.ndarray dh_ = None, dh_root_ = None, dc_root_ = None
    if dh is not None:
        dh_ = dense(dh, "dh", typenum, "VH", 2, t.nodes, t.H)
    if dh_root is not None:
        dh_root_ = dense(dh_root, "dh_root", typenum, "KH", 2, used.num_trees, t.H)
    if dc_root is not None:
        dc_root_ = dense(dc_root, "dc_root", typenum, "KH", 2, used.num_trees, t.H)
    t.doutput, t.dh_root, t.dc_root = data_of(dh_), data_of(dh_root_), data_of(dc_root_)
    dx_sum = None
    if into is not None and into.get("x") is not None:
        dx_sum = gradient(into, "x", typenum, "VD", 2, t.inputs, t.D)
    gradients = _new_gradients(t, typenum, into)

    cdef Workspace scratch = _make_backward_scratch(&call), states = used.states  # no-cython-lint: alive until the end
    arrays = used.arrays  # no-cython-lint: alive until the end
    used.states = used.arrays = None  # used up from here on
    # Copies of what is added to, for a signal that stops a long call; of a short one, or few nodes, the last phase is finished.
    cdef dict saved = {}
    call.may_stop = into is None or (t.nodes > MANY_NODES and _flops(&call) > WORTH_COPIES)
    if call.may_stop and into is not None:
        saved = {name: array.copy() for name, array in into.items() if array is not None and name != "x"}
    try:
        _run(&call, _backward_body, 2 + BACKWARD_PHASES * call.levels)
    except BaseException:
        for name, array in saved.items():
            into[name][...] = array
        raise
    if dx_sum is not None:
        with np.errstate(all="ignore"):
            dx_sum += gradients["x"]
        gradients["x"] = dx_sum
    return gradients


cdef dict _new_gradients(fr_trees *t, int typenum, into):
    """x is written to, the others are added to."""
    cdef long G = weight_rows(t, False), rows = weight_rows(t, True)
    cdef cnp.ndarray dx = new_array(typenum, t.inputs, t.D, -1, False), db = None
    cdef cnp.ndarray dw_ih = gradient(into, "weight_ih", typenum, "GD", 2, G * t.H, t.D)
    cdef cnp.ndarray dw_hh = gradient(into, "weight_hh", typenum, "GH", 2, rows * t.H, operand_width(t))
    if t.bias:
        db = gradient(into, "bias", typenum, "G", 1, G * t.H, -1)
    t.dx, t.dweight_ih, t.dweight_hh, t.dbias = data_of(dx), data_of(dw_ih), data_of(dw_hh), data_of(db)
    return {"x": dx, "weight_ih": dw_ih, "weight_hh": dw_hh, "bias": db}


cdef Workspace _make_backward_scratch(TreeCall *call):
    cdef fr_trees *t = &call.trees
    cdef const fr_tree_kernels *k = call.kernels
    cdef int itemsize = k.itemsize
    cdef long Hp = k.padded(t.H), W = operand_width(t)
    cdef bint sums_of_children = t.lstm and t.children == 0
    cdef Rooms rooms
    memset(&rooms, 0, sizeof(rooms))
    reserve(&rooms, &t.dh, t.nodes * Hp if sums_of_children else 0, itemsize)
    reserve(&rooms, &t.dc, t.nodes * Hp if t.lstm else 0, itemsize)
    reserve(&rooms, &t.doperand, (t.nodes - t.leaves) * W, itemsize)
    reserve(&rooms, &t.panels_x, weight_rows(t, False) * t.H * (t.D + k.lanes), itemsize)
    reserve(&rooms, &t.panels_h, weight_rows(t, True) * t.H * (W + k.lanes), itemsize)
    reserve(&rooms, &t.panels_f, t.H * Hp, itemsize)
    reserve(&rooms, &t.gradients, k.gradients_size(t, _threads(call)), itemsize)
    return allot(&rooms)
