"""Layers that run step by step, with their weights packed once and their states kept in place."""

import numpy as np

cimport numpy as cnp
from fastrnn._native._arrays cimport as_array, dense, expect_shape, new_array, read_series, series_of, shape_of
from fastrnn._native._chain_layer cimport ChainLayer, advance_rows, plan_block, plan_step, set_state_of_rows, start_layer, state_of_rows
from fastrnn._native._chooser cimport Chooser
from fastrnn._native._runtime cimport LONG_CALL, Workspace, calls_are_dense, new_workspace, own_watch, raise_signal, stops, was_stopped
from fastrnn._native._sequence cimport EVERY_PHASE, NO_PHASE, projected_steps, run_forward, type_of_weights, whole_cost
from fastrnn._native._subset cimport embed, overlap, row_indices, tokens_of
from fastrnn._native.kernels cimport *
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

cnp.import_array()


cdef class Chain:
    """Layers of one dtype, one after the other, each a dict of its `CompiledCell` ("cell") and its weights by the names of
    `forward`; an embedding may stand before them. N is the batch. Later changes of the weights do not show: they are packed,
    or shared with the other chains and the calls of a `Stack` ("stack") that has them packed, as its "index".

    One thread at a time may use a chain, another one meets a RuntimeError; several chains may run at once.
    """
    cdef ChainLayer *layers
    cdef int count, typenum, itemsize
    cdef readonly long N, D, P
    cdef long widest
    cdef bint running
    cdef list held
    cdef cnp.ndarray embedding, embedded

    def __init__(self, long N, list layers, embedding=None):
        cdef fr_sequence *q
        cdef int index
        if self.layers != NULL or not layers or N < 1:
            raise ValueError("layers: expected at least one, of a batch of at least 1, and a chain that is not in use")
        self.N = N
        self.typenum = type_of_weights(layers[0]["weight_ih"], layers[0].get("scale_ih"))
        self.itemsize = 4 if self.typenum == cnp.NPY_FLOAT32 else 8
        # Barriers ask for more alignment than malloc gives.
        cdef Workspace memory = new_workspace(len(layers) * sizeof(ChainLayer))
        self.held, self.layers = [memory], <ChainLayer *>memory.at
        memset(self.layers, 0, len(layers) * sizeof(ChainLayer))
        for index, layer in enumerate(layers):
            start_layer(&self.layers[index], N, self.typenum, layer["cell"], layer, self.held)
            q = &self.layers[index].call.sequence
            if index and q.D != self.P:
                raise ValueError(f"layers: expected layer {index} to read {self.P} features, got {q.D}")
            self.P = q.P
            self.widest = max(self.widest, q.P)
            self.count += 1
        self.D = self.layers[0].call.sequence.D
        if embedding is not None:
            self.embedding = dense(embedding.copy(), "embedding", self.typenum, "VD", 2, -1, self.D)
            self.embedded = new_array(self.typenum, N, self.D, -1, False)

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
            if T == 1 and layer.shared.threads > layer.alone.threads:
                plan_step(layer, &layer.shared if calls_are_dense() else &layer.alone)
            run_forward(&layer.call)
            if layer.call.work.stopped:
                return
            if layer.h != NULL:
                layer.call.kernels.last_states(q, layer.h, NULL)
            x = q.args.output

    cdef double _step_cost(self) noexcept nogil:
        """Multiply-adds of one step of all layers."""
        cdef int index
        cdef double cost = 0
        for index in range(self.count):
            cost += whole_cost(&self.layers[index].call) / max(self.layers[index].call.sequence.T, 1)
        return cost

    cdef int _end(self, fr_work *work, double cost, list before) except -1:
        """After a call of such a cost. Where a signal has stopped it: go back to the states before, and raise what its handler
        has raised."""
        self.running = False
        if not was_stopped(work, cost):
            return 0
        try:
            raise_signal()
        except BaseException:
            self.set_states(before)
            raise

    def step(self, x, cnp.ndarray out=None, rows=None):
        """One time step: x (N, D), or (D,) where N is 1, or tokens (N,) where an embedding comes first -> (N, P), or (P,).

        rows: indices (n,) or a mask (N,) of those that step, x (n, D) -> (n, P); the others stay as they are. Each has
            the bits then of a stream of its own.
        out: an array of that shape that receives the result and is returned: the step then allocates nothing.
        Raises TypeError for a wrong dtype, ValueError for a wrong shape.
        """
        self._begin()
        try:
            return self._step(x, out) if rows is None else self._step_rows(x, row_indices(rows, self.N), out)
        finally:
            self.running = False

    cdef cnp.ndarray _step_rows(self, x, cnp.ndarray rows, cnp.ndarray out):
        """rows: distinct indices."""
        cdef cnp.ndarray x_
        cdef long n = cnp.PyArray_DIM(rows, 0)
        cdef fr_series xs, ys
        cdef int index, failed = 0
        if self.embedding is not None:
            x_ = np.take(self.embedding, tokens_of(self.embedding, x, 1, n), axis=0)
        else:
            x_ = as_array(x, "x", self.typenum)
            if cnp.PyArray_NDIM(x_) != 2 or cnp.PyArray_DIM(x_, 0) != n or cnp.PyArray_DIM(x_, 1) != self.D:
                raise ValueError(f"x: expected shape ({n}, {self.D}), a row for each of rows, got {shape_of(x)}")
            x_ = np.ascontiguousarray(x_)
        if out is None:
            out = new_array(self.typenum, n, self.P, -1, False)
        elif cnp.PyArray_TYPE(out) != self.typenum or cnp.PyArray_NDIM(out) != 2 or cnp.PyArray_DIM(out, 0) != n or (
                cnp.PyArray_DIM(out, 1) != self.P or not cnp.PyArray_ISCARRAY(out) or overlap(out, x_)):
            raise ValueError(f"out: expected a writable, C-contiguous array ({n}, {self.P}) of the dtype of x, apart from it, "
                             f"got {shape_of(out)} of {out.dtype}")
        if n == 0:
            return out
        cdef Workspace room = new_workspace(2 * (n * self.widest * self.itemsize + 64))
        xs.data, xs.row, xs.step = cnp.PyArray_DATA(x_), self.D, 0
        with nogil:
            for index in range(self.count):
                ys.data = room.at + (index % 2) * (n * self.widest * self.itemsize + 64)
                if index == self.count - 1:
                    ys.data = cnp.PyArray_DATA(out)
                ys.row, ys.step = self.layers[index].call.sequence.P, 0
                failed = failed or advance_rows(&self.layers[index], xs, ys, <int64_t *>cnp.PyArray_DATA(rows), n)
                xs = ys
        if failed:
            raise MemoryError("no memory for a step")
        return out

    def step_frames(self, dict rows, frames):
        """A step of those rows that have a frame: rows is id -> row, frames id -> x_t (D,) or a token; id -> y_t (P,)."""
        cdef long n = len(frames), i = 0
        cdef cnp.ndarray indices = new_array(cnp.NPY_INT64, n, -1, -1, False)
        cdef cnp.ndarray x = new_array(cnp.NPY_INT64, n, -1, -1, False) if self.embedding is not None else (
            new_array(self.typenum, n, self.D, -1, False))
        cdef int64_t *at = <int64_t *>cnp.PyArray_DATA(indices)
        cdef size_t bytes = self.D * self.itemsize
        for id, frame in frames.items():
            row = rows.get(id)
            if row is None:
                raise KeyError(f"frames: expected ids that are open, got {id!r}")
            at[i] = row
            if self.embedding is None and cnp.PyArray_CheckExact(frame) and (
                    cnp.PyArray_TYPE(<cnp.ndarray>frame) == self.typenum and cnp.PyArray_NDIM(<cnp.ndarray>frame) == 1
                    and cnp.PyArray_DIM(<cnp.ndarray>frame, 0) == self.D and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>frame)):
                memcpy(<char *>cnp.PyArray_DATA(x) + i * bytes, cnp.PyArray_DATA(<cnp.ndarray>frame), bytes)
            else:
                self._put_frame(x, i, id, np.asarray(frame))
            i += 1
        self._begin()
        try:
            y = self._step_rows(x, indices, None)
        finally:
            self.running = False
        return dict(zip(frames, y))

    def _put_frame(self, x, long i, id, frame):
        shape, kinds, wanted = ((), "iu", "a token") if self.embedding is not None else ((self.D,), "fiu", f"shape ({self.D},)")
        if frame.shape != shape or frame.dtype.kind not in kinds:
            raise ValueError(f"frames[{id!r}]: expected {wanted}, got shape {frame.shape} of {frame.dtype}")
        x[i] = frame

    cdef cnp.ndarray _step(self, x, cnp.ndarray out):
        cdef cnp.ndarray x_
        cdef fr_series xs, ys
        cdef bint flat = False
        if self.embedding is not None:
            x_ = embed(self.embedding, x, self.embedded)
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
            if not cnp.PyArray_ISCARRAY(out) or overlap(out, x_):
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
            x = self.embedding[tokens_of(self.embedding, x, 2, self.N)]
        x_ = read_series(x, "x", self.typenum, "TND", -1, self.N, self.D)
        T = cnp.PyArray_DIM(x_, 0)
        out = new_array(self.typenum, T, self.N, self.P, False)
        if T == 0:
            return out
        kept = []
        xs, ys = series_of(x_), series_of(out)
        cdef fr_work work
        cdef double cost = T * self._step_cost()
        cdef bint is_long = cost > LONG_CALL
        cdef list before = self.states() if is_long else None
        work.stopped = False
        self._begin()
        try:
            for index in range(self.count):
                layer = &self.layers[index]
                q = &layer.call.sequence
                plan_block(layer, T)
                layer.call.may_stop = EVERY_PHASE if is_long else NO_PHASE
                wide = new_array(self.typenum, T if index + 1 < self.count else 0, q.N, q.P, False)
                kept.append(wide)
                layer.wide = cnp.PyArray_DATA(wide)
                if layer.projects_ahead:
                    chunk = projected_steps(&layer.call, layer.call.chunk)
                    inputs = new_workspace(chunk * q.N * layer.call.kernels.inputs_row(q) * self.itemsize)
                    kept.append(inputs)
                    q.scratch.inputs, layer.call.chunk = inputs.at, chunk
            with nogil:
                self._advance(xs, ys, T)
        finally:  # memory may have run out halfway
            for index in range(self.count):
                layer = &self.layers[index]
                work.stopped |= layer.call.work.stopped
                plan_step(layer, &layer.alone)
            self.running = False
        self._end(&work, cost, before)
        return out

    # ---- States ----

    def states(self, rows=None):
        """For each layer None or a tuple of copies, (h (N, P),) or, of an LSTM, (h, c (N, H)); or of some rows (n, ...)."""
        cdef ChainLayer *layer
        cdef cnp.ndarray indices = np.arange(self.N) if rows is None else row_indices(rows, self.N)
        cdef const int64_t *at = <int64_t *>cnp.PyArray_DATA(indices)
        cdef long n = cnp.PyArray_DIM(indices, 0)
        result = []
        self._begin()
        self.running = False  # the GIL is held from here on
        for index in range(self.count):
            layer = &self.layers[index]
            result.append(None if layer.h == NULL else state_of_rows(layer, self.typenum, at, n))
        return result

    def set_states(self, list states, rows=None):
        """Take over what `states` gave, of a chain of the same layers and batch; nothing is changed where it does not fit."""
        cdef ChainLayer *layer
        cdef fr_sequence *q
        cdef cnp.ndarray h, c, indices = np.arange(self.N) if rows is None else row_indices(rows, self.N)
        cdef const int64_t *at = <int64_t *>cnp.PyArray_DATA(indices)
        cdef long n = cnp.PyArray_DIM(indices, 0)
        checked = []
        if len(states) != self.count:
            raise ValueError(f"state: expected one entry per layer, {self.count}, got {len(states)}")
        for index in range(self.count):
            layer = &self.layers[index]
            q = &layer.call.sequence
            entry = states[index]
            if (entry is None) != (layer.h == NULL):
                raise ValueError(f"state: expected {'None' if layer.h == NULL else 'arrays'} for layer {index}")
            if entry is not None and n:
                h = dense(entry[0], "h of state", self.typenum, "NH", 2, n, q.P)
                c = dense(entry[1], "c of state", self.typenum, "NH", 2, n, q.H) if q.cell == FR_LSTM else None
                checked.append((index, h, c))
        self._begin()
        self.running = False  # the GIL is held from here on
        for index, h, c in checked:
            layer = &self.layers[index]
            q = &layer.call.sequence
            set_state_of_rows(layer, h, c, at, n)

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
        cdef fr_work work
        cdef fr_watch watch = own_watch(&work)
        cdef double cost = self._step_cost() + self.N * self.P * 8.0
        cdef list before = self.states()
        self._begin()
        with nogil:
            for t in range(steps):
                if stops(&watch, cost):
                    break
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
        self._end(&work, steps * cost, before)
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
        cdef fr_work work
        cdef fr_watch watch = own_watch(&work)
        cdef double cost = self._step_cost()
        cdef list before = self.states()
        self._begin()
        with nogil:
            for _t in range(1, steps):
                if stops(&watch, cost):
                    break
                ys.data = <char *>xs.data + self.N * self.P * self.itemsize
                self._advance(xs, ys, 1)
                xs.data = ys.data
        self._end(&work, steps * cost, before)
        return out
