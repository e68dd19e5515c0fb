"""All layers and directions of a stack, or a linear map, in training: one call forward, one back. Letters as in _stack.pyx, L layers.

Design: of a small step of training two thirds went by in Python, layer by layer: dicts of weights and gradients, views of
states, checks. So what most calls are has a short way here, and the rest is left to the loop of `fastrnn.layers`, which
converts or refuses it. Both leave the same caches, so that either way back may follow either way forward.
"""

cimport numpy as cnp
from fastrnn._native._arrays cimport data_of, new_array, new_like
from fastrnn._native._rnn cimport SequenceCache, pass_backward, pass_forward
from fastrnn._native._rows cimport read_rows
from fastrnn._native._runtime cimport sequence_kernels
from fastrnn._native._sequence cimport SequenceCall, clear_call
from fastrnn._native._stack cimport Given, Stack
from fastrnn._native._stack_weights cimport read_gradients
from fastrnn._native.kernels cimport *
from libc.string cimport memcpy

cnp.import_array()


cdef inline void *at(void *start, size_t offset) noexcept:
    """NULL stays NULL, which stands for zeros or for what nobody wants."""
    return NULL if start == NULL else <char *>start + offset


cdef cnp.ndarray new_rows(int typenum, int ndim, long T, long N, long width, bint zeros, fr_series *rows):
    """A new (T, N, width), or (T, width) for one sequence, and where its rows are."""
    cdef cnp.ndarray a
    if ndim == 3:
        a = new_array(typenum, T, N, width, zeros)
    else:
        a = new_array(typenum, T, width, -1, zeros)
    rows.data, rows.step, rows.row = cnp.PyArray_DATA(a), N * width, width
    return a


cdef cnp.ndarray as_given(cnp.ndarray a, bint batch_first):
    return cnp.PyArray_SwapAxes(a, 0, 1) if batch_first and cnp.PyArray_NDIM(a) == 3 else a


# ---- Forward ----

def train_forward(Stack stack not None, x, state, lengths, reset_mask, bint batch_first, draw):
    """y and state_n as the layer gives them, (T, N, width of y), the caches [k*S + s], and what x was multiplied by in front of
    layer k: draw((T, N, width)), for dropout, where draw is not None. None for what has to be converted or refused first."""
    cdef Given given
    if isinstance(state, list):
        state = tuple(state)  # `given` points into its arrays, which others could take out of a list meanwhile
    if (reset_mask is not None and stack.directions == 2) or not stack.read_call(x, state, batch_first, &given):
        return None
    cdef long T = given.T, N = given.N, H = stack.layers[0].H, P = stack.layers[0].P
    cdef int typenum = stack.typenum, itemsize = stack.itemsize, S = stack.directions, index
    cdef size_t h_size = N * P * itemsize, c_size = N * H * itemsize
    cdef cnp.ndarray y = x, h0 = None, h_n = stack.new_state(given.ndim, N, P), c_n = None
    if stack.cell.cell == FR_LSTM:
        c_n = stack.new_state(given.ndim, N, H)
    if given.h0 != NULL:  # often a view of the output of the call before, which may be written again
        h0 = stack.new_state(given.ndim, N, P)
        memcpy(cnp.PyArray_DATA(h0), given.h0, cnp.PyArray_NBYTES(h0))

    cdef SequenceCall call
    cdef fr_sequence *q = &call.sequence
    cdef SequenceCache cache
    cdef fr_series read, written = given.x
    cdef list caches = _new_caches(stack, T), held
    cdef dict masks = {}
    arrays = stack.arrays  # those that the caches point to: another thread may come upon new ones meanwhile
    for index in range(stack.count):
        if index % S == 0:
            source, read = y, written
            if index and draw is not None:
                masks[index // S] = mask = draw((T, N, S * P))
                source = y * (mask if given.ndim == 3 else mask[:, 0])
                read.data = cnp.PyArray_DATA(<cnp.ndarray>source)
            y = new_rows(typenum, given.ndim, T, N, S * P, False, &written)
        cache = caches[index]
        clear_call(&call)
        call.sequence = cache.sequence
        q.T, q.N, q.training = T, N, True
        q.args.x, q.args.output, q.args.h0 = read, written, at(data_of(h0), index * h_size)
        q.args.output.data = at(written.data, index % S * P * itemsize)
        cache.arrays = held = [source, y, h0, arrays]
        read_rows(q, held, lengths, reset_mask, None, q.rows.reverse, True, y)
        call.kernels = sequence_kernels(q, itemsize)
        cache.states = pass_forward(&call, typenum, None, at(given.c0, index * c_size), at(data_of(h_n), index * h_size),
                                    at(data_of(c_n), index * c_size))
        cache.sequence, cache.kernels = call.sequence, call.kernels
    return as_given(y, batch_first), h_n if c_n is None else (h_n, c_n), (T, N, S * P), caches, masks


cdef list _new_caches(Stack stack, long T):
    """With the sizes and weights of each layer and direction."""
    cdef SequenceCache cache
    cdef list caches = []
    for index in range(stack.count):
        cache = SequenceCache.__new__(SequenceCache)
        cache.sequence, cache.typenum, cache.T, cache.family = stack.layers[index], stack.typenum, T, stack.cell.family
        caches.append(cache)
    return caches


# ---- Backward ----

def train_backward(Stack stack not None, list caches not None, dict masks not None, dy, dstate_n, dict gradients, bint batched,
                   bint batch_first, bint need_dx):
    """dx, None unless it is needed, and dstate0; adds to `gradients`, which has those of the weights by name. None for what has
    to be converted or refused first, and then nothing has happened."""
    cdef SequenceCache cache = caches[0]
    cdef long T = cache.T, N = cache.sequence.N, H = cache.sequence.H, P = cache.sequence.P
    cdef int typenum = cache.typenum, itemsize = 4 if typenum == cnp.NPY_FLOAT32 else 8, ndim = 3 if batched else 2
    cdef int S = stack.directions, index, k
    cdef size_t h_size = N * P * itemsize, c_size = N * H * itemsize
    cdef fr_series dys, dxs
    cdef char *dh_n
    cdef char *dc_n
    if isinstance(dstate_n, list):
        dstate_n = tuple(dstate_n)  # as in `train_forward`
    if stack.arrays is None:
        stack._look()  # the loop has made the caches
    if typenum != stack.typenum or H != stack.layers[0].H or P != stack.layers[0].P:
        return None
    if not _read_dy(stack, dy, ndim, T, N, batch_first, &dys) or not stack.read_state(dstate_n, ndim, N, &dh_n, &dc_n):
        return None
    cdef list added = []
    for index in range(stack.count):
        cache = caches[index]
        added.append([])
        if cache.states is None or cache.lookup is not None or not read_gradients(
                &cache.sequence, stack.names[index], gradients, typenum, added[index]):
            return None

    cdef SequenceCall call
    cdef fr_sequence *q = &call.sequence
    cdef cnp.ndarray dx = dy, dh0 = stack.new_state(ndim, N, P), dc0 = None
    if stack.cell.cell == FR_LSTM:
        dc0 = stack.new_state(ndim, N, H)
    for k in range(stack.count // S - 1, -1, -1):
        above, dx, dxs.data = dx, None, NULL  # no-cython-lint: `dys` points into it
        for index in range(k * S, k * S + S):
            cache = caches[index]
            clear_call(&call)
            call.sequence, call.kernels = cache.sequence, cache.kernels
            if dx is None and (k or need_dx):
                dx = new_rows(typenum, ndim, T, N, q.D, q.rows.order != NULL, &dxs)
            q.args.doutput, q.args.dx, q.args.dx_add = dys, dxs, index % S
            q.args.doutput.data = at(dys.data, index % S * P * itemsize)
            q.args.dh_n, q.args.dh0 = at(dh_n, index * h_size), at(data_of(dh0), index * h_size)
            pass_backward(&call, cache, at(dc_n, index * c_size), at(data_of(dc0), index * c_size), added[index])
        if k in masks:
            dx *= masks[k] if batched else masks[k][:, 0]
        dys = dxs
    return None if dx is None else as_given(dx, batch_first), dh0 if dc0 is None else (dh0, dc0)


cdef bint _read_dy(Stack stack, dy, int ndim, long T, long N, bint batch_first, fr_series *dys) except -1:
    """Whether the gradient of y is an array to be read as it is, or None; where its rows are."""
    cdef cnp.ndarray dy_
    cdef int time = 1 if batch_first and ndim == 3 else 0
    if dy is None:
        dys.data = NULL
        return True
    if not cnp.PyArray_CheckExact(dy):
        return False
    dy_ = dy
    if cnp.PyArray_TYPE(dy_) != stack.typenum or cnp.PyArray_NDIM(dy_) != ndim or not cnp.PyArray_ISBEHAVED_RO(dy_) or (
            cnp.PyArray_DIM(dy_, ndim - 1) != stack.directions * stack.layers[0].P):
        return False
    return cnp.PyArray_DIM(dy_, time) == T and (ndim == 2 or cnp.PyArray_DIM(dy_, 1 - time) == N) and (
        stack.strides(dy_, ndim, time, dys))


# ---- A linear map ----

def map_forward(Stack stack not None, x):
    """y = W x + b on the last axis of x, and its cache; None as for `train_forward`."""
    cdef cnp.ndarray x_ = stack.read_rows(x), y
    if x_ is None:
        return None
    cdef SequenceCache cache = _new_caches(stack, 1)[0]
    cdef SequenceCall call
    cdef fr_sequence *q = &call.sequence
    y = new_like(x_, stack.layers[0].P)
    clear_call(&call)
    call.sequence = cache.sequence
    q.T, q.N, q.training = 1, cnp.PyArray_SIZE(x_) // q.D, True
    q.args.x.data, q.args.x.row = cnp.PyArray_DATA(x_), q.D
    q.args.output.data, q.args.output.row = cnp.PyArray_DATA(y), q.P
    call.kernels = sequence_kernels(q, stack.itemsize)
    cache.arrays = x_, y, stack.arrays
    cache.states = pass_forward(&call, stack.typenum, None, NULL, NULL, NULL)
    cache.sequence, cache.kernels = call.sequence, call.kernels
    return y, cache


def map_backward(Stack stack not None, SequenceCache cache not None, tuple shape, dy, dict gradients, bint need_dx):
    """dx, None unless it is needed, and None for the state that there is not; adds to `gradients`. shape: of x. None as for
    `train_backward`."""
    cdef cnp.ndarray dy_, dx = None
    cdef int axis, ndim = len(shape)
    cdef list added = []
    if not cnp.PyArray_CheckExact(dy) or cache.states is None or cache.T != 1:
        return None
    dy_ = dy
    if cnp.PyArray_TYPE(dy_) != cache.typenum or cnp.PyArray_NDIM(dy_) != ndim or ndim > 32 or (
            not cnp.PyArray_ISNOTSWAPPED(dy_) or cnp.PyArray_DIM(dy_, ndim - 1) != cache.sequence.P):
        return None
    for axis in range(ndim - 1):
        if cnp.PyArray_DIM(dy_, axis) != shape[axis]:
            return None
    if not read_gradients(&cache.sequence, stack.names[0], gradients, cache.typenum, added):
        return None
    if not cnp.PyArray_ISCARRAY_RO(dy_):
        dy_ = cnp.PyArray_NewCopy(dy_, cnp.NPY_CORDER)
    cdef SequenceCall call
    cdef fr_sequence *q = &call.sequence
    clear_call(&call)
    call.sequence, call.kernels = cache.sequence, cache.kernels
    q.args.doutput.data, q.args.doutput.row = cnp.PyArray_DATA(dy_), q.P
    if need_dx:
        dx = new_like(dy_, q.D)
        q.args.dx.data, q.args.dx.row = cnp.PyArray_DATA(dx), q.D
    pass_backward(&call, cache, NULL, NULL, added)
    return dx, None
