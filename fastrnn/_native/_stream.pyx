"""Layers that run step by step, with their weights packed once and their states kept in place."""

import numpy as np

cimport numpy as cnp
from fastrnn._native._arrays cimport as_array, dense, expect_shape, new_array, read_series, real_type, series_of
from fastrnn._native._choose cimport Chooser
from fastrnn._native._runtime cimport Rooms, Workspace, allot, build_for, new_workspace, reserve
from fastrnn._native._sequence cimport (
    CompiledCell, SequenceCall, clear_zeros, partition_of, plan_call, projected_steps, read_weights, reserve_pointers,
    reserve_states, run_forward,
)
from fastrnn._native.kernels cimport *
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

cnp.import_array()

cdef struct ChainLayer:
    SequenceCall call
    int projects_ahead  # blocks of steps have their inputs projected ahead, single steps in turn: the same sums
    void *h     # (N, P) state of the step before, or NULL: a layer without state
    void *y     # (N, P) output of one step, for the next layer
    void *wide  # (T, N, P) the same for a block of steps
    void *c_before  # (N, Hp) c of the step before, where a mask is given


cdef class Chain:
    """Layers of one dtype, one after the other, each a dict of its `CompiledCell` ("cell") and its weights by the names of
    `forward`; an embedding may stand before them. Weights are copied: later changes of the arrays do not show. N is the
    batch.

    One thread at a time may use a chain, another one meets a RuntimeError; several chains may run at once.
    """
    cdef ChainLayer *layers
    cdef const unsigned char *mask  # (N,) of the step that runs: 0 for a row that does not take it; NULL: all do
    cdef int count, typenum, itemsize
    cdef readonly long N, D, P
    cdef bint running
    cdef list held
    cdef cnp.ndarray embedding, embedded

    def __init__(self, long N, list layers, embedding=None):
        cdef fr_sequence *q
        cdef int index
        if self.layers != NULL or not layers or N < 1:
            raise ValueError("layers: expected at least one, of a batch of at least 1, and a chain that is not in use")
        self.N = N
        self.typenum = real_type(layers[0]["weight_ih"], "weight_ih")
        self.itemsize = 4 if self.typenum == cnp.NPY_FLOAT32 else 8
        # Barriers ask for more alignment than malloc gives.
        cdef Workspace memory = new_workspace(len(layers) * sizeof(ChainLayer))
        self.held, self.layers = [memory], <ChainLayer *>memory.at
        memset(self.layers, 0, len(layers) * sizeof(ChainLayer))
        for index, layer in enumerate(layers):
            self._start(&self.layers[index], layer["cell"], layer)
            q = &self.layers[index].call.sequence
            if index and q.D != self.P:
                raise ValueError(f"layers: expected layer {index} to read {self.P} features, got {q.D}")
            self.P = q.P
            self.count += 1
        self.D = self.layers[0].call.sequence.D
        if embedding is not None:
            self.embedding = dense(embedding.copy(), "embedding", self.typenum, "VD", 2, -1, self.D)
            self.embedded = new_array(self.typenum, N, self.D, -1, False)

    cdef int _start(self, ChainLayer *layer, CompiledCell cell, dict weights) except -1:
        """Read one layer, give it room and pack its weights."""
        cdef SequenceCall *call = &layer.call
        cdef fr_sequence *q = &call.sequence
        cdef const fr_sequence_kernels *k = build_for(self.itemsize).sequence
        cell.start(call)
        call.kernels = k
        read_weights(q, [], self.typenum, k.gates(q.cell), None, weights["weight_ih"], weights.get("weight_hh"),
                     weights.get("bias_ih"), weights.get("bias_hh"), weights.get("weight_hr"), None, weights.get("weight_peephole"))
        q.T, q.N, call.packed = 1, self.N, True
        for state, part, width in zip("hc", weights.get("zoneout", ()), (q.P, q.H)):
            if part:
                self.held.append(np.full(width, part, weights["weight_ih"].dtype))
                (&q.args.zoneout_h if state == "h" else &q.args.zoneout_c).data = cnp.PyArray_DATA(<cnp.ndarray>self.held[len(self.held) - 1])
        plan_call(call, True)
        layer.projects_ahead = q.input_projection == FR_AHEAD
        q.input_projection, call.chunk = FR_SEQUENTIAL if layer.projects_ahead else FR_FUSED, 1
        cdef Rooms rooms
        memset(&rooms, 0, sizeof(rooms))
        reserve(&rooms, &q.scratch.panels, k.panels_size(q), self.itemsize)
        reserve_states(&rooms, call, False, q.N)
        reserve_pointers(&rooms, call)
        self.held.append(allot(&rooms))
        clear_zeros(call)
        if q.cell == FR_LSTM:
            k.pack_state(q, q.workspace.c, NULL)
        cdef cnp.ndarray y = new_array(self.typenum, q.N, q.P, -1, False), h = new_array(self.typenum, q.N, q.P, -1, True)
        self.held += [y, h]
        layer.y = cnp.PyArray_DATA(y)
        if q.args.weight_hh != NULL:
            layer.h = cnp.PyArray_DATA(h)
        cdef fr_partition all_of_it = partition_of(call, 0, 1, 0)
        all_of_it.by_units = 0
        with nogil:
            k.pack_forward(q, all_of_it)
        return 0

    # ---- Running ----

    cdef int _begin(self) except -1:
        """Until `running` is False again, nobody else may run the chain."""
        if self.running:
            raise RuntimeError("stream: expected one thread at a time, got a call while another one runs")
        self.running = True
        return 0

    cdef void _advance(self, fr_series x, fr_series out, long T) noexcept nogil:
        """T steps of all layers, from x to out; layers in between write to `y`, or to `wide` where T > 1."""
        cdef int index
        cdef ChainLayer *layer
        cdef fr_sequence *q
        cdef fr_series between
        for index in range(self.count):
            layer = &self.layers[index]
            q = &layer.call.sequence
            between.data, between.row, between.step = layer.y if T == 1 else layer.wide, q.P, q.N * q.P
            q.T, q.args.x, q.args.h0 = T, x, layer.h
            q.args.output = out if index == self.count - 1 else between
            if self.mask != NULL and layer.c_before != NULL:
                memcpy(layer.c_before, q.workspace.c, q.N * layer.call.kernels.padded(q.H) * self.itemsize)
            run_forward(&layer.call)
            if layer.h != NULL:
                if self.mask != NULL:
                    self._carry(layer)
                layer.call.kernels.last_states(q, layer.h, NULL)
            x = q.args.output

    cdef void _carry(self, ChainLayer *layer) noexcept nogil:
        """Give rows that do not take the step their state back; what they put out is h."""
        cdef fr_sequence *q = &layer.call.sequence
        cdef size_t h_row = q.P * self.itemsize, c_row = layer.call.kernels.padded(q.H) * self.itemsize
        cdef long n
        for n in range(q.N):
            if self.mask[n]:
                continue
            memcpy(<char *>q.args.output.data + n * q.args.output.row * self.itemsize, <char *>layer.h + n * h_row, h_row)
            if layer.c_before != NULL:
                memcpy(<char *>q.workspace.c + n * c_row, <char *>layer.c_before + n * c_row, c_row)

    cdef int _mask_step(self, cnp.ndarray mask) except -1:
        """mask (N,): which rows take the next step."""
        cdef ChainLayer *layer
        cdef Workspace room
        cdef int index
        for index in range(self.count):
            layer = &self.layers[index]
            if layer.c_before == NULL and layer.call.sequence.workspace.c != NULL:
                room = new_workspace(self.N * layer.call.kernels.padded(layer.call.sequence.H) * self.itemsize)
                self.held.append(room)
                layer.c_before = room.at
        self.mask = <const unsigned char *>cnp.PyArray_DATA(mask)
        return 0

    def step(self, x, cnp.ndarray out=None, mask=None):
        """One time step: x (N, D), or (D,) where N is 1, or tokens (N,) where an embedding comes first -> (N, P), or (P,).

        out: an array of that shape that receives the result and is returned: the step then allocates nothing.
        mask: bool (N,), where False a row does not take the step: its state stays, and it puts out its h of before.
        Raises TypeError for a wrong dtype, ValueError for a wrong shape.
        """
        self._begin()
        try:
            if mask is not None:
                mask = self._row_mask(mask)
                self._mask_step(mask)
            return self._step(x, out)
        finally:
            self.mask = NULL
            self.running = False

    cdef cnp.ndarray _row_mask(self, mask):
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            got = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(f"mask: expected a NumPy array of bool, got {got}")
        if mask.shape != (self.N,):
            raise ValueError(f"mask: expected shape ({self.N},) = (N,), got {mask.shape}")
        return np.ascontiguousarray(mask)

    cdef cnp.ndarray _step(self, x, cnp.ndarray out):
        cdef cnp.ndarray x_
        cdef fr_series xs, ys
        cdef bint flat = False
        if self.embedding is not None:
            x_ = np.take(self.embedding, self._tokens(x, 1), axis=0, out=self.embedded)
        else:
            if not (type(x) is np.ndarray and cnp.PyArray_TYPE(<cnp.ndarray>x) == self.typenum and cnp.PyArray_IS_C_CONTIGUOUS(x)
                    and cnp.PyArray_ISBEHAVED_RO(x)):
                if np.ndim(x) == 2:  # before a copy
                    expect_shape(as_array(x, "x", self.typenum), "x", "ND", 2, self.N, self.D, -1)
                x = np.ascontiguousarray(as_array(x, "x", self.typenum)).reshape(np.shape(x))
            x_ = <cnp.ndarray>x
            flat = cnp.PyArray_NDIM(x_) == 1 and self.N == 1
            if not (flat and cnp.PyArray_DIM(x_, 0) == self.D):
                expect_shape(x_, "x", "ND", 2, self.N, self.D, -1)
        if out is None:
            out = new_array(self.typenum, self.P if flat else self.N, -1 if flat else self.P, -1, False)
        else:
            if cnp.PyArray_TYPE(out) != self.typenum:
                raise TypeError(f"out: expected {x_.dtype}, got {out.dtype}")
            expect_shape(out, "out", "P" if flat else "NP", 1 if flat else 2, self.P if flat else self.N, self.P, -1)
            if not cnp.PyArray_ISCARRAY(out) or _overlap(out, x_):
                raise ValueError("out: expected a writable, C-contiguous array apart from x, got another")
        xs.data, xs.row, xs.step = cnp.PyArray_DATA(x_), self.D, 0
        ys.data, ys.row, ys.step = cnp.PyArray_DATA(out), self.P, 0
        with nogil:
            self._advance(xs, ys, 1)
        return out

    def run(self, x):
        """A block of steps: x (T, N, D), or tokens (T, N) -> (T, N, P). Equal to that many calls of `step`, bit for bit."""
        cdef cnp.ndarray x_, out, wide
        cdef ChainLayer *layer
        cdef fr_sequence *q
        cdef Workspace inputs
        cdef long T, chunk
        cdef int index
        cdef fr_series xs, ys
        if self.embedding is not None:
            x = self.embedding[self._tokens(x, 2)]
        x_ = read_series(x, "x", self.typenum, "TND", -1, self.N, self.D)
        T = cnp.PyArray_DIM(x_, 0)
        out = new_array(self.typenum, T, self.N, self.P, False)
        if T == 0:
            return out
        kept = []
        xs, ys = series_of(x_), series_of(out)
        self._begin()
        try:
            for index in range(self.count):
                layer = &self.layers[index]
                q = &layer.call.sequence
                wide = new_array(self.typenum, T if index + 1 < self.count else 0, q.N, q.P, False)
                kept.append(wide)
                layer.wide = cnp.PyArray_DATA(wide)
                if layer.projects_ahead:
                    q.input_projection = FR_AHEAD
                    chunk = projected_steps(&layer.call, T)
                    inputs = new_workspace(chunk * q.N * layer.call.kernels.inputs_row(q) * self.itemsize)
                    kept.append(inputs)
                    q.scratch.inputs, layer.call.chunk = inputs.at, chunk
                else:
                    layer.call.chunk = T
            with nogil:
                self._advance(xs, ys, T)
        finally:  # memory may have run out halfway
            for index in range(self.count):
                layer = &self.layers[index]
                layer.call.chunk = 1
                layer.call.sequence.input_projection = FR_SEQUENTIAL if layer.projects_ahead else FR_FUSED
            self.running = False
        return out

    cdef cnp.ndarray _tokens(self, x, int ndim):
        tokens = np.ascontiguousarray(x)
        if tokens.dtype.kind not in "iu":
            raise TypeError(f"x: expected integer tokens, got {tokens.dtype}")
        if tokens.ndim != ndim or tokens.shape[ndim - 1] != self.N:
            raise ValueError(f"x: expected shape ({'T, ' if ndim == 2 else ''}{self.N},), got {tokens.shape}")
        V = self.embedding.shape[0]
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < V:
            raise IndexError(f"x: expected tokens 0..{V - 1}, got values from {tokens.min()} to {tokens.max()}")
        return tokens

    # ---- States ----

    def states(self):
        """For each layer None or a tuple of copies, (h (N, P),) or, of an LSTM, (h, c (N, H))."""
        cdef ChainLayer *layer
        cdef fr_sequence *q
        cdef cnp.ndarray h, c
        result = []
        self._begin()
        self.running = False  # the GIL is held from here on
        for index in range(self.count):
            layer = &self.layers[index]
            q = &layer.call.sequence
            if layer.h == NULL:
                result.append(None)
                continue
            h = new_array(self.typenum, q.N, q.P, -1, False)
            memcpy(cnp.PyArray_DATA(h), layer.h, q.N * q.P * self.itemsize)
            if q.cell != FR_LSTM:
                result.append((h,))
                continue
            c = new_array(self.typenum, q.N, q.H, -1, False)
            layer.call.kernels.unpack_state(q, cnp.PyArray_DATA(c), q.workspace.c)
            result.append((h, c))
        return result

    def set_states(self, list states):
        """Take over what `states` gave, of a chain of the same layers and batch; nothing is changed where it does not fit."""
        cdef ChainLayer *layer
        cdef fr_sequence *q
        cdef cnp.ndarray h, c
        checked = []
        if len(states) != self.count:
            raise ValueError(f"state: expected one entry per layer, {self.count}, got {len(states)}")
        for index in range(self.count):
            layer = &self.layers[index]
            q = &layer.call.sequence
            entry = states[index]
            if (entry is None) != (layer.h == NULL):
                raise ValueError(f"state: expected {'None' if layer.h == NULL else 'arrays'} for layer {index}")
            if entry is not None:
                h = dense(entry[0], "h of state", self.typenum, "NH", 2, q.N, q.P)
                c = dense(entry[1], "c of state", self.typenum, "NH", 2, q.N, q.H) if q.cell == FR_LSTM else None
                checked.append((index, h, c))
        self._begin()
        self.running = False  # the GIL is held from here on
        for index, h, c in checked:
            layer = &self.layers[index]
            memcpy(layer.h, cnp.PyArray_DATA(h), cnp.PyArray_NBYTES(h))
            if c is not None:
                layer.call.kernels.pack_state(&layer.call.sequence, layer.call.sequence.workspace.c, cnp.PyArray_DATA(c))

    # ---- Generation ----

    def generate(self, cnp.ndarray y, long steps, cnp.ndarray uniform, double temperature, long top_k, long end):
        """Tokens (steps, N): the first chosen from logits y (N, P), then each from what follows the token before.

        uniform (steps, N): random numbers of [0, 1) to draw with, from softmax(logits / temperature) over the top_k
        largest (0: all); None: the largest logit. end: a token that ends a row, which is filled up with it; -1: none.
        """
        cdef cnp.ndarray tokens = np.empty((steps, self.N), np.int64)
        cdef cnp.ndarray logits = dense(y, "y", self.typenum, "NP", 2, self.N, self.P).copy()
        if uniform is not None:
            uniform = np.ascontiguousarray(uniform, np.float64)
            expect_shape(uniform, "uniform", "TN", 2, steps, self.N, -1)
        cdef Chooser chooser = Chooser(self.P, temperature, top_k)
        cdef int64_t *to = <int64_t *>cnp.PyArray_DATA(tokens)
        cdef const double *u = NULL if uniform is None else <double *>cnp.PyArray_DATA(uniform)
        cdef char *rows = <char *>cnp.PyArray_DATA(logits)
        cdef char *embedded
        cdef const char *table
        cdef long t, n, running = self.N, width = self.D * self.itemsize
        cdef int64_t token
        cdef fr_series xs, ys
        if self.embedding is None or self.embedding.shape[0] < self.P:
            raise ValueError(f"layers: expected an embedding of at least {self.P} tokens first, to read what comes out")
        embedded, table = <char *>cnp.PyArray_DATA(self.embedded), <const char *>cnp.PyArray_DATA(self.embedding)
        xs.data, xs.row, xs.step = embedded, self.D, 0
        ys.data, ys.row, ys.step = rows, self.P, 0
        self._begin()
        with nogil:
            for t in range(steps):
                if t:
                    for n in range(self.N):
                        memcpy(embedded + n * width, table + to[(t - 1) * self.N + n] * width, width)
                    self._advance(xs, ys, 1)
                for n in range(self.N):
                    if t and end >= 0 and to[(t - 1) * self.N + n] == end:
                        token = end
                    else:
                        token = chooser.choose(rows + n * self.P * self.itemsize, self.itemsize, u, t * self.N + n)
                        if token < 0:
                            with gil:
                                self.running = False
                                raise FloatingPointError(f"model: expected outputs without NaN, got NaN in row {n}")
                        running -= token == end
                    to[t * self.N + n] = token
                if running == 0:
                    for n in range((t + 1) * self.N, steps * self.N):
                        to[n] = end
                    break
        self.running = False
        return tokens

    def feed_back(self, cnp.ndarray y, long steps):
        """Outputs (steps, N, P): y (N, P), then what follows when each output is the next input; P = D."""
        cdef cnp.ndarray out = new_array(self.typenum, steps, self.N, self.P, False)
        cdef fr_series xs, ys
        cdef long _t
        if self.P != self.D or self.embedding is not None:
            raise ValueError(f"layers: expected outputs as wide as inputs, {self.D}, got {self.P}")
        out[:1] = y
        xs = ys = series_of(out)
        self._begin()
        with nogil:
            for _t in range(1, steps):
                ys.data = <char *>xs.data + self.N * self.P * self.itemsize
                self._advance(xs, ys, 1)
                xs.data = ys.data
        self.running = False
        return out


cdef bint _overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share memory."""
    cdef char *a0 = <char *>cnp.PyArray_DATA(a)
    cdef char *b0 = <char *>cnp.PyArray_DATA(b)
    return a0 < b0 + cnp.PyArray_NBYTES(b) and b0 < a0 + cnp.PyArray_NBYTES(a)
