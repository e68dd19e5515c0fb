"""Layers and directions that run in one call without training, from weights that stay packed.

T time steps, N batch, D input_size, H hidden_size, P width of h, G gates.

Design:
a) A call packed its weights anew, which at N = 1 takes as long as tens of steps. A Stack keeps them packed; whether they
   may have changed is what _watched.pyx finds out.
b) What is packed is never written again, so that streams and calls under way keep what they began with. New weights are
   packed into new memory.
c) All layers and directions are one call without the GIL: what lengths mean for rows is worked out once for all.
"""

cimport numpy as cnp
from fastrnn._native._arrays cimport data_of, new_array, new_like
from fastrnn._native._infer cimport infer
from fastrnn._native._lengths cimport read_lengths_and_resets, zeros_past_lengths
from fastrnn._native._runtime cimport (
    Rooms, Workspace, allot, new_workspace, raise_signal, reserve, sequence_kernels, stream_kernels,
)
from fastrnn._native._sequence cimport CompiledCell, SequenceCall
from fastrnn._native._stack_weights cimport read_layers
from fastrnn._native._watched cimport Watched
from fastrnn._native.kernels cimport *
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cnp.import_array()


cdef class Packed:
    """Packed weights of a stack for one build of the kernels; constant once `ready`."""

    def __dealloc__(self):
        free(self.at)


cdef class Stack(Watched):
    """Recurrent layers, in one direction or two, and their weights by name in `params`, which counts its `reads`.

    names: for each layer and direction, layer by layer, a dict from the names of the functional core to those in
    `params`. cell: what a CellSpec has as `compiled`. A dict without "weight_hh" is a linear map: one alone, for `map`.
    """

    def __init__(self, params, list names, int directions, CompiledCell cell not None):
        cdef SequenceCall call
        Watched.__init__(self, params, names)
        self.count, self.directions, self.cell = len(names), directions, cell
        self.layers = <fr_sequence *>malloc(self.count * sizeof(fr_sequence))
        if self.layers == NULL:
            raise MemoryError()
        cell.start(&call)
        for index in range(self.count):
            self.layers[index] = call.sequence
            self.layers[index].rows.reverse = index % directions

    def __dealloc__(self):
        free(self.layers)

    # ---- Weights ----

    cdef bint read(self, tuple arrays) except -1:
        cdef bint usable = read_layers(self.layers, self.names, arrays, self.directions, &self.typenum)
        self.itemsize = 4 if self.typenum == cnp.NPY_FLOAT32 else 8
        return usable

    cdef int pack_now(self) except -1:
        self._pack(stream_kernels(self.layers, self.itemsize))
        return 0

    cdef Packed _packed(self, const fr_sequence_kernels *k):
        """The packed weights for these kernels, or where to pack them."""
        cdef Packed packed
        cdef int index
        cdef Rooms rooms
        for packed in self.packed:
            if packed.kernels == k and (packed.ready or not packed.claimed):
                return packed
        cdef list held = []
        packed = Packed.__new__(Packed)
        packed.kernels = k
        packed.at = <void **>malloc(2 * self.count * sizeof(void *))
        if packed.at == NULL:
            raise MemoryError()
        for index in range(self.count):
            memset(&rooms, 0, sizeof(rooms))
            reserve(&rooms, &packed.at[2 * index], k.panels_size(&self.layers[index]), self.itemsize)
            reserve(&rooms, &packed.at[2 * index + 1], k.bias_size(&self.layers[index]), self.itemsize)
            held.append(allot(&rooms))
        packed.memory = held
        self.packed = [*self.packed, packed]
        self.generation += 1
        return packed

    cdef void _keep_one(self, Packed packed):
        """Of what several threads packed at once for the same kernels."""
        cdef Packed other
        if any([other is packed for other in self.packed]):
            self.packed = [other for other in self.packed if other is packed or other.kernels != packed.kernels]

    cdef Packed _pack(self, const fr_sequence_kernels *k):
        """Weights packed for these kernels, now."""
        cdef Packed packed = self._packed(k)
        cdef fr_partition share
        cdef fr_sequence q
        memset(&share, 0, sizeof(share))
        share.count = 1
        if not packed.ready:
            for index in range(self.count):
                q = self.layers[index]
                q.scratch.panels, q.workspace.bias = packed.at[2 * index], packed.at[2 * index + 1]
                k.pack_forward(&q, share)
            packed.ready = True
        return packed

    cdef Packed pack(self, const fr_sequence_kernels *k):
        """The weights as they are, packed for these kernels; None for such as the layer did not make."""
        self._look()
        return self._pack(k) if self.usable else None

    def kept_bytes(self):
        """Bytes of packed weights."""
        cdef Packed p
        return sum([p.kernels.panels_size(&self.layers[i]) * self.itemsize for p in self.packed for i in range(self.count)])

    # ---- A call ----

    def run(self, x, state, lengths, reset_mask, bint batch_first):
        """y, state_n without training, as the layer gives them; None for what has to be converted or refused first."""
        cdef cnp.ndarray y, h_n, c_n = None
        cdef Given given
        cdef fr_sequence q
        cdef fr_series ys
        cdef long T, N, width
        cdef int ndim, S = self.directions
        cdef bint is_lstm = self.cell.cell == FR_LSTM
        if isinstance(state, list):
            state = tuple(state)  # which keeps its arrays
        if not self.read_call(x, state, batch_first, &given):
            return None
        T, N, ndim = given.T, given.N, given.ndim
        q.T, q.N = T, N
        memset(&q.rows, 0, sizeof(fr_rows))
        held = None
        if lengths is not None or reset_mask is not None:
            held = read_lengths_and_resets(&q, lengths, reset_mask) if ndim == 3 else None
            if held is None:
                return None

        width = S * self.layers[0].P
        y = new_array(self.typenum, T, N if ndim == 3 else width, width if ndim == 3 else -1, False)
        ys.data, ys.step, ys.row = cnp.PyArray_DATA(y), N * width, width
        h_n = self.new_state(ndim, N, self.layers[0].P)
        if is_lstm:
            c_n = self.new_state(ndim, N, self.layers[0].H)
        cdef Workspace between = None
        if self.count > S:  # layers in between write to two places by turns
            between = new_workspace(2 * (T * N * width * self.itemsize + 64))
        self._run(&q, given.x, ys, T, given.h0, given.c0, data_of(h_n), data_of(c_n), NULL if between is None else between.at)
        if batch_first and ndim == 3:
            y = cnp.PyArray_SwapAxes(y, 0, 1)
        return y, (h_n if not is_lstm else (h_n, c_n))

    cdef bint read_call(self, x, state, bint batch_first, Given *given) except -1:
        """Whether x and the state can be read as they are, and the weights; where they are. `x` and `state` keep them alive."""
        cdef cnp.ndarray x_
        cdef int ndim, time
        if not cnp.PyArray_CheckExact(x):
            return False
        x_, ndim = x, cnp.PyArray_NDIM(x)
        if ndim != 3 and ndim != 2:
            return False
        self._look()
        if not self.usable or cnp.PyArray_TYPE(x_) != self.typenum or not cnp.PyArray_ISBEHAVED_RO(x_) or (
                cnp.PyArray_DIM(x_, ndim - 1) != self.layers[0].D):
            return False
        time = 1 if batch_first and ndim == 3 else 0
        given.T, given.N = cnp.PyArray_DIM(x_, time), cnp.PyArray_DIM(x_, 1 - time) if ndim == 3 else 1
        given.ndim = ndim
        return given.N > 0 and self.strides(x_, ndim, time, &given.x) and self.read_state(
            state, ndim, given.N, &given.h0, &given.c0)

    cdef bint strides(self, cnp.ndarray x, int ndim, int time, fr_series *xs):
        """Where x (T, N, ...), (N, T, ...) or (T, ...) is; False for strides that are not whole elements."""
        cdef long step = cnp.PyArray_STRIDE(x, time), row = cnp.PyArray_STRIDE(x, 1 - time) if ndim == 3 else 0
        xs.data, xs.step, xs.row = cnp.PyArray_DATA(x), step // self.itemsize, row // self.itemsize
        return cnp.PyArray_SIZE(x) == 0 or (step % self.itemsize == 0 and row % self.itemsize == 0 and (
            cnp.PyArray_DIM(x, ndim - 1) == 1 or cnp.PyArray_STRIDE(x, ndim - 1) == self.itemsize))

    cdef bint read_state(self, state, int ndim, long N, char **h, char **c) except -1:
        """Whether a state, or its gradient, can be read as it is; where its parts are, NULL for None."""
        h[0] = c[0] = NULL
        if state is None:
            return True
        first, second = state, None
        if self.cell.cell == FR_LSTM:
            if not isinstance(state, (tuple, list)) or len(state) != 2:
                return False
            first, second = state
        return self._fits(first, ndim, N, self.layers[0].P, h) and self._fits(second, ndim, N, self.layers[0].H, c)

    cdef bint _fits(self, a, int ndim, long N, long width, char **at):
        """Whether `a` is a state of this width, to be read as it is, or None."""
        at[0] = NULL
        if a is None:
            return True
        if not (cnp.PyArray_CheckExact(a) and cnp.PyArray_TYPE(<cnp.ndarray>a) == self.typenum
                and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>a) and cnp.PyArray_NDIM(<cnp.ndarray>a) == ndim
                and cnp.PyArray_DIM(<cnp.ndarray>a, 0) == self.count and cnp.PyArray_DIM(<cnp.ndarray>a, ndim - 1) == width
                and (ndim == 2 or cnp.PyArray_DIM(<cnp.ndarray>a, 1) == N)):
            return False
        at[0] = <char *>cnp.PyArray_DATA(<cnp.ndarray>a)
        return True

    cdef cnp.ndarray new_state(self, int ndim, long N, long width):
        return new_array(self.typenum, self.count, N if ndim == 3 else width, width if ndim == 3 else -1, False)

    def map(self, x):
        """W x + b on the last axis of x, for a stack of one linear map; None as for `run`."""
        cdef cnp.ndarray x_ = self.read_rows(x), y
        cdef fr_sequence q
        cdef fr_series xs, ys
        if x_ is None:
            return None
        y = new_like(x_, self.layers[0].P)
        q.T, q.N = 1, cnp.PyArray_SIZE(x_) // self.layers[0].D
        memset(&q.rows, 0, sizeof(fr_rows))
        xs.data, xs.step, xs.row = cnp.PyArray_DATA(x_), 0, self.layers[0].D
        ys.data, ys.step, ys.row = cnp.PyArray_DATA(y), 0, self.layers[0].P
        self._run(&q, xs, ys, 1, NULL, NULL, NULL, NULL, NULL)
        return y

    cdef cnp.ndarray read_rows(self, x):
        """The rows of x (..., D) one behind the other, a copy where they are not; None as for `run`."""
        cdef cnp.ndarray x_
        if not cnp.PyArray_CheckExact(x):
            return None
        x_ = x
        self._look()
        cdef int ndim = cnp.PyArray_NDIM(x_)
        if not self.usable or cnp.PyArray_TYPE(x_) != self.typenum or not cnp.PyArray_ISNOTSWAPPED(x_) or not 0 < ndim <= 32 or (
                cnp.PyArray_SIZE(x_) == 0 or cnp.PyArray_DIM(x_, ndim - 1) != self.layers[0].D):
            return None
        return x_ if cnp.PyArray_ISCARRAY_RO(x_) else cnp.PyArray_NewCopy(x_, cnp.NPY_CORDER)

    cdef int _run(self, const fr_sequence *like, fr_series x, fr_series y, long T, const void *h0, const void *c0,
                  void *h_n, void *c_n, void *between) except -1:
        """like: T, N and rows of the call. T: of the output, the rows of which past their lengths become zeros."""
        cdef StackCall call
        cdef fr_sequence q = self.layers[0]
        cdef int failed
        q.T, q.N = like.T, like.N
        call.kernels = sequence_kernels(&q, self.itemsize)
        cdef Packed packed = self._packed(call.kernels)
        # Another thread may come upon new weights meanwhile: this call goes on with the old.
        arrays = self.arrays  # no-cython-lint: alive until the end
        cdef fr_sequence few[2]
        call.layers = &few[0]
        if self.count > 2:
            call.layers = <fr_sequence *>malloc(self.count * sizeof(fr_sequence))
        if call.layers == NULL:
            raise MemoryError()
        memcpy(call.layers, self.layers, self.count * sizeof(fr_sequence))
        call.ready, call.packed = packed.ready, packed.at
        if not call.ready:
            packed.claimed = True  # another thread that comes now packs for itself
        call.like, call.T, call.x, call.y = like, T, x, y
        call.count, call.directions, call.itemsize = self.count, self.directions, self.itemsize
        call.h0, call.c0, call.h_n, call.c_n = <char *>h0, <char *>c0, <char *>h_n, <char *>c_n
        call.turns[0], call.turns[1] = between, <char *>between + T * q.N * self.directions * q.P * self.itemsize + 64
        if <double>q.T * q.N * self.count * call.kernels.gates(q.cell) * q.H * (q.D + q.P) < SMALL_CALL:
            failed = run_layers(&call)
        else:
            with nogil:
                failed = run_layers(&call)
        if call.layers != &few[0]:
            free(call.layers)
        if not call.ready:
            packed.claimed, packed.ready = False, not failed and like.T > 0
            if packed.ready:
                self._keep_one(packed)
        if failed > 0:
            raise_signal()
        if failed:
            raise MemoryError("no memory for the workspace of a sequence")
        return 0


# Multiply-adds, about 5 us of them, for which a call keeps the GIL: to hand it over would take longer than others gain.
cdef enum: SMALL_CALL = 200000

cdef struct StackCall:
    const fr_sequence_kernels *kernels
    fr_sequence *layers
    void **packed  # as Packed has them
    bint ready
    const fr_sequence *like  # T, N and rows
    long T  # of the output
    fr_series x, y
    int count, directions, itemsize
    char *h0
    char *c0
    char *h_n
    char *c_n
    void *turns[2]  # where layers in between write to


cdef int run_layers(const StackCall *call) noexcept nogil:
    """All layers and directions. 0, or what `infer` returned for the one that did not come to its end."""
    cdef const fr_sequence *like = call.like
    cdef fr_sequence q = call.layers[0]
    cdef int index, reverse, failed, S = call.directions, itemsize = call.itemsize
    cdef size_t h_size = like.N * q.P * itemsize, c_size = like.N * q.H * itemsize
    cdef fr_series read = call.x, written = call.y
    if like.rows.order != NULL:
        zeros_past_lengths(call.y, call.T, like.N, S * q.P * itemsize, itemsize, &like.rows)
    for index in range(call.count):
        q = call.layers[index]
        if index % S == 0:
            if index:
                read = written
            written = call.y
            if index < call.count - S:
                written.data = call.turns[index // S % 2]
                written.step, written.row = like.N * S * q.P, S * q.P
        reverse = q.rows.reverse
        q.T, q.N, q.rows = like.T, like.N, like.rows
        q.rows.reverse = reverse
        if reverse and q.rows.reset_mask != NULL:  # the mask for who comes from the end follows
            q.rows.reset_mask += like.rows.reset_step * call.T
        q.args.x, q.args.output = read, written
        q.args.output.data = <char *>q.args.output.data + (index % S) * q.P * itemsize
        q.args.h0 = NULL if call.h0 == NULL else call.h0 + index * h_size
        q.scratch.panels, q.workspace.bias = call.packed[2 * index], call.packed[2 * index + 1]
        failed = infer(&q, call.kernels, call.ready, NULL if call.c0 == NULL else call.c0 + index * c_size,
                       NULL if call.h_n == NULL else call.h_n + index * h_size,
                       NULL if call.c_n == NULL else call.c_n + index * c_size)
        if failed:
            return failed
    return 0
