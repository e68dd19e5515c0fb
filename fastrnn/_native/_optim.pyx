"""An optimiser's step and gradient clipping, each one call for all arrays of a model.

Design: every array is cut into blocks of a fixed size, counted through all arrays, and threads take runs of them: the sum
that a norm is made of is always the same one, and everything else is done element by element.
"""

from math import prod as math_prod

import numpy as np

cimport numpy as cnp
from fastrnn._native._arrays cimport real_type
from fastrnn._native._runtime cimport Workspace, build_for, max_threads, new_workspace, next_task, plan_work, run_parallel
from fastrnn._native.kernels cimport *
from fastrnn._native.token_rows cimport FR_ROWS_AHEAD, fr_ask_for
from libc.math cimport isfinite, sqrt
from libc.stdint cimport int64_t
from libc.string cimport memset

cnp.import_array()

cdef dict _RULES = {"sgd": FR_SGD, "rmsprop": FR_RMSPROP, "adagrad": FR_ADAGRAD, "adam": FR_ADAM}

cdef enum Kind: UPDATE, SUM, CLIP

cdef struct UpdatedArray:
    const fr_update_kernels *kernels
    char *param
    char *grad
    char *slot0
    char *slot1
    long size
    fr_update update
    const int64_t *rows  # which rows of param, of `width` elements, the rows of grad belong to; NULL: all of them
    long width, extent  # extent: elements of param

cdef struct OptimizerPass:  # one pass over all arrays
    Kind kind
    UpdatedArray *arrays
    int count
    long block, blocks
    double *sums  # one for each block
    fr_update update
    fr_work work


cdef void _pass_body(void *arg, int id) noexcept nogil:
    cdef OptimizerPass *todo = <OptimizerPass *>arg
    cdef fr_task task
    cdef int partitions = todo.work.partitions
    memset(&task, 0, sizeof(task))
    while next_task(&todo.work, id, &task):
        _pass_over_blocks(todo, todo.blocks * task.partition // partitions, todo.blocks * (task.partition + 1) // partitions)


cdef void _pass_over_blocks(const OptimizerPass *todo, long first, long last) noexcept nogil:
    cdef long before = 0, b, n, count, at
    cdef const UpdatedArray *p
    for i in range(todo.count):
        p = &todo.arrays[i]
        n = (p.size + todo.block - 1) // todo.block
        for b in range(max(first - before, 0), min(last - before, n)):
            count = min(todo.block, p.size - b * todo.block)
            at = b * todo.block * p.kernels.itemsize
            if todo.kind == SUM:
                todo.sums[before + b] = p.kernels.sum_of_squares(p.grad + at, count)
            elif todo.kind == CLIP:
                p.kernels.clip(p.grad + at, count, todo.update.scale, todo.update.limit)
            elif p.rows != NULL:
                _update_rows(p, b * todo.block, b * todo.block + count)
            else:
                p.kernels.update(&p.update, p.param + at, p.grad + at, p.slot0 + at if p.slot0 else NULL,
                                 p.slot1 + at if p.slot1 else NULL, count)
        before += n


cdef void _update_rows(const UpdatedArray *p, long first, long last) noexcept nogil:
    """Elements first to last of a gradient of some rows: an update of each row, or of the part of it within them."""
    cdef long size = p.kernels.itemsize, count, k, at, later, bytes = p.width * size
    cdef long rows = p.size // p.width
    while first < last:
        k = first // p.width
        if k + FR_ROWS_AHEAD < rows:
            later = p.rows[k + FR_ROWS_AHEAD] * bytes
            fr_ask_for(p.param + later, bytes)
            if p.slot0:
                fr_ask_for(p.slot0 + later, bytes)
            if p.slot1:
                fr_ask_for(p.slot1 + later, bytes)
        count = min(last, (k + 1) * p.width) - first
        at = (p.rows[k] * p.width + first - k * p.width) * size
        p.kernels.update(&p.update, p.param + at, p.grad + first * size, p.slot0 + at if p.slot0 else NULL,
                         p.slot1 + at if p.slot1 else NULL, count)
        first += count


cdef int _run(OptimizerPass *todo, Kind kind) except -1:
    """Let the threads go over all blocks. One thread where another would cost more than it saves: it takes 2 us to
    hand work over and 10 us for Adam's step of 16K elements. One too where two arrays that are written share memory."""
    cdef long i, k, total = 0
    cdef int threads = max_threads()
    cdef char *a
    cdef char *b
    cdef UpdatedArray *p = todo.arrays
    todo.kind = kind
    for i in range(todo.count):
        total += p[i].size
    if total < 1 << 17:
        threads = 1
    for i in range(todo.count if threads > 1 and kind != SUM else 0):
        for k in range(i):
            a, b = (p[i].param, p[k].param) if kind == UPDATE else (p[i].grad, p[k].grad)
            if a < b + p[k].extent * p[k].kernels.itemsize and b < a + p[i].extent * p[i].kernels.itemsize:
                threads = 1
    plan_work(&todo.work, 1, 1 if threads == 1 else min(4 * threads, FR_MAX_PARTITIONS), False)
    with nogil:
        run_parallel(threads, _pass_body, todo)
    return 0


cdef Workspace _start_pass(OptimizerPass *todo, int count, long block):
    """Start a pass over `count` arrays."""
    memset(todo, 0, <char *>&todo.work - <char *>todo)  # `plan_work` starts the rest
    todo.block = block
    cdef Workspace memory = new_workspace(count * sizeof(UpdatedArray) + 1)
    todo.arrays = <UpdatedArray *>memory.at
    todo.update.scale, todo.update.limit = 1, np.inf
    return memory


cdef int _add_array(OptimizerPass *todo, cnp.ndarray grad) except -1:
    cdef UpdatedArray *p = &todo.arrays[todo.count]
    memset(p, 0, sizeof(UpdatedArray))
    p.kernels = build_for(cnp.PyArray_ITEMSIZE(grad)).update
    p.grad, p.size = <char *>cnp.PyArray_DATA(grad), cnp.PyArray_SIZE(grad)
    p.extent = p.size
    todo.count += 1
    todo.blocks += (p.size + todo.block - 1) // todo.block
    return 0


cdef double _norm(OptimizerPass *todo) except? -1:
    """The Euclidean norm of all gradients together; what they are to be scaled by goes into the pass."""
    cdef Workspace memory = new_workspace(todo.blocks * sizeof(double) + 1)
    cdef double total = 0
    todo.sums = <double *>memory.at
    _run(todo, SUM)
    for i in range(todo.blocks):
        total += todo.sums[i]
    return sqrt(total)


cdef double _norm_to_clip(OptimizerPass *todo, list grads, double max_norm) except? -1:
    """The norm, and in the pass the factor that brings it down to max_norm. Squares of finite entries may overflow: then
    the entries are brought down to 1 first."""
    cdef double norm = _norm(todo), peak, relative
    todo.update.scale = _scale_to(norm, max_norm)
    if isfinite(norm):
        return norm
    peak = max(float(np.abs(a).max(initial=0)) for a in grads)
    if not isfinite(peak):
        return norm
    relative = sqrt(sum(float(np.square(np.divide(a, peak, dtype=np.float64)).sum()) for a in grads))
    todo.update.scale = min(1.0, max_norm / peak / relative)
    return peak * relative


cdef object _scale_in_two(OptimizerPass *todo, list grads, bint in_place):
    """Take a part of a factor that is too small for the dtype out of it and into the gradients, or into copies of them,
    which are returned; None where the factor is large enough."""
    cdef double least = min((np.finfo(a.dtype).tiny for a in grads), default=0)
    cdef double part = np.sqrt(np.finfo(np.float32).tiny) if least > 1e-100 else 1e-150
    if not 0 < todo.update.scale < 1e3 * least:
        return None
    parts = grads if in_place else [a.copy() for a in grads]
    for i, a in enumerate(parts):
        np.multiply(a, a.dtype.type(part), out=a)
        todo.arrays[i].grad = <char *>cnp.PyArray_DATA(<cnp.ndarray>a)
    todo.update.scale /= part
    return parts


cdef double _scale_to(double norm, double max_norm) noexcept:
    """PyTorch's factor; nan stays nan."""
    cdef double scale = max_norm / (norm + 1e-6)
    return 1 if scale >= 1 else scale


cdef cnp.ndarray _like(object a, str what, object name, tuple shape, object dtype, int typenum):
    """An array of the shape and dtype that the first step saw."""
    if not isinstance(a, cnp.ndarray) or cnp.PyArray_TYPE(<cnp.ndarray>a) != typenum or cnp.PyArray_ISBYTESWAPPED(<cnp.ndarray>a):
        raise TypeError(f"{what}[{name!r}]: expected {dtype}, got {getattr(a, 'dtype', type(a).__name__)}")
    if not _has_shape(<cnp.ndarray>a, shape):
        raise ValueError(f"{what}[{name!r}]: expected shape {shape}, got {a.shape}")
    return <cnp.ndarray>a


cdef bint _has_shape(cnp.ndarray a, tuple shape) except -1:
    """a.shape == shape, without making a tuple for each array of each step."""
    cdef int i
    if cnp.PyArray_NDIM(a) != len(shape):
        return False
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, i) != <Py_ssize_t>shape[i]:
            return False
    return True


cdef cnp.ndarray _rows_of(object grad, object name, tuple shape):
    """The rows that a `RowGradient` has entries for, in range."""
    cdef cnp.ndarray rows = np.ascontiguousarray(grad.indices, np.int64)
    if grad.shape != shape or len(shape) != 2:
        raise ValueError(f"grads[{name!r}]: expected shape {shape}, got {grad.shape}")
    if rows.shape[0] and (rows[0] < 0 or rows[rows.shape[0] - 1] >= shape[0]):
        raise IndexError(f"grads[{name!r}]: expected rows 0..{shape[0] - 1}, got {rows[0]}..{rows[rows.shape[0] - 1]}")
    return rows


cdef void _hand_out_numbers(OptimizerPass *todo, list names, own):
    """To each array those of the pass, or what it has of its own: rate, both weight decays and eps."""
    cdef UpdatedArray *p
    for i, name in enumerate(names):
        p = &todo.arrays[i]
        p.update = todo.update
        if name in own:
            p.update.rate, p.update.l2_weight_decay, p.update.decoupled_weight_decay, p.update.eps = own[name]


cdef tuple _read_gradient(object given, object name, tuple shape, object dtype, int typenum):
    """A gradient, C-contiguous, and the rows that it is of; None: all."""
    cdef cnp.ndarray grad, rows = None
    if isinstance(given, cnp.ndarray) or not hasattr(given, "indices"):
        grad = _like(given, "grads", name, shape, dtype, typenum)
    else:
        rows = _rows_of(given, name, shape)
        grad = _like(given.values, "grads", name, (rows.shape[0], shape[1]), dtype, typenum)
    return grad if cnp.PyArray_ISCARRAY_RO(grad) else cnp.PyArray_NewCopy(grad, cnp.NPY_CORDER), rows


def optimizer_step(dict shapes, dtype, list slots, params, grads, long block, str rule, *, double rate,
                   double l2_weight_decay=0, double decoupled_weight_decay=0, double momentum=0, bint nesterov=False,
                   double decay=0, double decay_squares=0, double eps=0, clip_norm=None, clip_value=None, own=None, idle=()):
    """Update `params` in place. shapes: those of all parameters by name. slots: the state's flat arrays, in which the
    parameters follow each other. own: rate, l2 and decoupled weight decay, and eps of parameters with others. idle: names
    of those that stay as they are, and whose gradients count nothing. Returns the gradients' norm before clipping, None
    without clip_norm.

    Errors are raised before anything is written.
    """
    cdef OptimizerPass todo
    cdef Workspace memory = _start_pass(&todo, len(shapes), block)  # no-cython-lint: holds the arrays
    cdef int typenum = cnp.PyArray_TYPE(slots[0]) if slots else dtype.num
    cdef cnp.ndarray param, grad, rows
    cdef UpdatedArray *p
    cdef long offset = 0, itemsize = dtype.itemsize
    held, names = [], []
    for name, shape in shapes.items():
        if name in idle:
            offset += math_prod(shape) * itemsize
            continue
        given = grads.get(name)
        if given is None:
            raise ValueError(f"grads: expected a gradient for {name!r}, got none")
        param = _like(params[name], "params", name, shape, dtype, typenum)
        grad, rows = _read_gradient(given, name, shape, dtype, typenum)
        if not cnp.PyArray_ISCARRAY(param):  # a copy would be updated in its place
            state = "a strided" if cnp.PyArray_ISWRITEABLE(param) else "a read-only"
            raise ValueError(f"params[{name!r}]: expected a C-contiguous, writeable array, got {state} one")
        held.append((param, grad, rows))
        names.append(name)
        _add_array(&todo, grad)
        p = &todo.arrays[todo.count - 1]
        p.extent = cnp.PyArray_SIZE(param)
        if rows is not None:
            p.rows, p.width = <const int64_t *>cnp.PyArray_DATA(rows), shape[1]
        p.param = <char *>cnp.PyArray_DATA(param)
        if len(slots) > 0:
            p.slot0 = <char *>cnp.PyArray_DATA(slots[0]) + offset
        if len(slots) > 1:
            p.slot1 = <char *>cnp.PyArray_DATA(slots[1]) + offset
        offset += p.extent * itemsize
    norm = None
    if clip_norm is not None:
        gradients = [grad for _, grad, _ in held]
        norm = _norm_to_clip(&todo, gradients, clip_norm)
        if not isfinite(norm) and not all(np.isfinite(grad).all() for grad in gradients):
            raise FloatingPointError(f"gradient: expected a finite norm, got {norm}")
        scaled = _scale_in_two(&todo, gradients, False)  # no-cython-lint: kept until the step is done
    if clip_value is not None:
        todo.update.limit = clip_value
    todo.update.rule, todo.update.nesterov, todo.update.rate = _RULES[rule], nesterov, rate
    todo.update.l2_weight_decay, todo.update.decoupled_weight_decay = l2_weight_decay, decoupled_weight_decay
    todo.update.momentum, todo.update.eps = momentum, eps
    todo.update.decay, todo.update.decay_squares = decay, decay_squares
    _hand_out_numbers(&todo, names, own or {})
    _run(&todo, UPDATE)
    return norm


def clip_gradients(grads, long block, max_norm, value):
    """Scale `grads` in place to a common norm of at most max_norm, and bound each entry by value; None: not.
    Returns the norm, None without max_norm."""
    cdef OptimizerPass todo
    cdef Workspace memory = _start_pass(&todo, len(grads), block)  # no-cython-lint: holds the arrays
    cdef cnp.ndarray array
    held, copies = [], []
    for name, given in grads.items():
        if not isinstance(given, cnp.ndarray) and hasattr(given, "indices"):
            given = given.values  # of a RowGradient, whose rows are all that is not zero
        real_type(given, f"grads[{name!r}]")
        array = <cnp.ndarray>given
        if not cnp.PyArray_ISWRITEABLE(array):
            raise ValueError(f"grads[{name!r}]: expected a writable array, got a read-only one")
        if not cnp.PyArray_ISBEHAVED(array) or not cnp.PyArray_ISONESEGMENT(array):
            array = given.astype(given.dtype.newbyteorder("="), order="C")
            copies.append((given, array))
        held.append(array)
        _add_array(&todo, array)
    norm = None
    if max_norm is not None:
        norm = _norm_to_clip(&todo, held, max_norm)
        _scale_in_two(&todo, held, True)
    if value is not None:
        todo.update.limit = value
    if todo.update.scale != 1 or value is not None:
        _run(&todo, CLIP)
        for given, array in copies:
            given[...] = array
    return norm


# ---- Zeros ----

cdef enum: SMALL_ARRAY = 1 << 16  # bytes: larger ones are cleared by NumPy, which lets other threads run meanwhile


def zero_gradients(gradients):
    """Set all gradients of a layer to 0, what `fill(0)` does in 0.2 us an array."""
    for grad in gradients.values():
        if cnp.PyArray_CheckExact(grad) and cnp.PyArray_ISCARRAY(<cnp.ndarray>grad) and cnp.PyArray_ISFLOAT(<cnp.ndarray>grad) and (
                cnp.PyArray_NBYTES(<cnp.ndarray>grad) < SMALL_ARRAY):
            memset(cnp.PyArray_DATA(<cnp.ndarray>grad), 0, cnp.PyArray_NBYTES(<cnp.ndarray>grad))
        else:
            grad.fill(0)
