# Part of _native.pyx: layers that run step by step, with their weights packed once and their states kept in place.

cdef struct Link:  # one layer of a chain
    Job job
    int threads, shares
    int projects  # blocks of steps have their inputs projected ahead, single steps in turn: the same sums
    int alone_projects  # the same of a stream of one row
    void *h     # (N, R) state of the step before, or NULL: a layer without state
    void *y     # (N, R) output of one step, for the next layer
    void *wide  # (T, N, R) the same for a block of steps


cdef class Chain:
    """Layers of one dtype, one after the other, each a dict of the arguments of `forward` by name; an embedding may stand
    before them. Later changes of the weights do not show: they are packed, or shared with the other chains and calls of a
    `Stack` that has them packed ("stack", and "index" within it). N is the batch.

    One thread at a time may use a chain, another one meets a RuntimeError; several chains may run at once.
    """
    cdef Link *links
    cdef int count, typenum, itemsize
    cdef readonly long N, D, R
    cdef long widest
    cdef bint running
    cdef list held
    cdef cnp.ndarray embedding, embedded

    def __init__(self, long N, list layers, embedding=None):
        cdef Link *link
        cdef fr_sequence *q
        cdef int index
        if self.links != NULL or not layers:
            raise ValueError("layers: expected at least one, and a chain that is not in use")
        self.N, self.held = N, []
        self.typenum = _real_type(layers[0]["weight_ih"], "weight_ih")
        self.itemsize = 4 if self.typenum == cnp.NPY_FLOAT32 else 8
        self.links = <Link *>fr_acquire(len(layers) * sizeof(Link))  # barriers ask for more alignment than malloc gives
        if self.links == NULL:
            raise MemoryError("no memory for a chain")
        memset(self.links, 0, len(layers) * sizeof(Link))
        for index, layer in enumerate(layers):
            self._start(&self.links[index], layer["cell"], layer["activation"], layer["weight_ih"], layer.get("weight_hh"),
                        layer.get("bias_ih"), layer.get("bias_hh"), layer.get("weight_hr"), layer.get("weight_peephole"),
                        layer.get("gate_activation", FR_SIGMOID), layer.get("clip") or 0, layer.get("stack"),
                        layer.get("index", 0))
            q = &self.links[index].job.sequence
            if index and q.D != self.R:
                raise ValueError(f"layers: expected layer {index} to read {self.R} features, got {q.D}")
            self.R = q.P
            self.widest = max(self.widest, q.P)
            self.count += 1
        self.D = self.links[0].job.sequence.D
        if embedding is not None:
            self.embedding = _dense(embedding.copy(), "embedding", self.typenum, "VD", 2, -1, self.D)
            self.embedded = _new(self.typenum, N, self.D, -1, False)

    def __dealloc__(self):
        fr_release(self.links)

    cdef object _start(self, Link *link, int cell, int activation, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr,
                       weight_peephole, int gate_activation, double clip, Stack stack, int index):
        """Read one layer, give it room, and have its weights packed."""
        cdef Job *job = &link.job
        cdef fr_sequence *q = &job.sequence
        cdef const fr_sequence_kernels *k = fr_build_for(_isa, self.itemsize).sequence
        cdef list held = []
        job.kernels = k
        q.cell, q.activation, q.gate_activation, q.clip, q.output_activation = cell, activation, gate_activation, clip, FR_IDENTITY
        x = np.empty((1, self.N, weight_ih.shape[1]), weight_ih.dtype)
        _read_arguments(q, k.gates(cell), self.typenum, held, x, None, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, None,
                        weight_peephole, None, False)
        cdef Plan plan = choose_plan(q, k)
        cdef long Hp = k.padded(q.H)
        cdef size_t size = 0
        cdef Packed shared = None if stack is None else stack.pack(k)
        cdef size_t panels_at = _room(&size, 0 if shared is not None else k.panels_size(q), self.itemsize)
        cdef size_t bias_at = _room(&size, 0 if shared is not None else k.bias_size(q), self.itemsize)
        cdef size_t zeros_at = _room(&size, _zeros_row(k, q), self.itemsize)
        cdef size_t gates_at = _room(&size, q.N * k.gates_row(q) if cell == FR_GRU_RESET_BEFORE else 0, self.itemsize)
        cdef size_t inner_at = _room(&size, q.N * Hp if k.has_inner(q) else 0, self.itemsize)
        cdef size_t c_at = _room(&size, q.N * Hp if cell == FR_LSTM else 0, self.itemsize)
        cdef size_t pointers_at = _room(&size, plan.threads * FR_POINTERS * q.N, sizeof(void *))
        cdef Block block = _block(size)
        cdef fr_sequence alone = q[0]
        alone.N = 1
        link.projects, link.alone_projects = not plan.fused, not choose_plan(&alone, k).fused
        q.input_projection, job.chunk = FR_SEQUENTIAL if link.projects else FR_FUSED, 1
        job.by_units, job.passes, job.packed = plan.by_units, k.passes(q), True
        q.scratch.panels, q.workspace.bias, q.workspace.zeros = block.at + panels_at, block.at + bias_at, block.at + zeros_at
        job.pointers = <void **>(block.at + pointers_at)
        memset(q.workspace.zeros, 0, _zeros_row(k, q) * self.itemsize)
        if cell == FR_GRU_RESET_BEFORE:
            q.workspace.gates = block.at + gates_at
        if k.has_inner(q):
            q.workspace.inner = block.at + inner_at
        if cell == FR_LSTM:
            q.workspace.c = block.at + c_at
            k.pack_state(q, q.workspace.c, NULL)
        cdef cnp.ndarray h = _new(self.typenum, q.N, q.P, -1, True)
        if weight_hh is not None:
            link.h = cnp.PyArray_DATA(h)
        link.y, link.threads, link.shares = q.args.output.data, plan.threads, plan.shares
        cdef fr_partition share = share_of(job, 0, 1, 0)
        share.by_units = 0
        if shared is not None:
            q.scratch.panels, q.workspace.bias = shared.at[2 * index], shared.at[2 * index + 1]
        else:
            with nogil:
                k.pack_forward(q, share)
        self.held += [held[:3], h, block, shared]  # not the weights
        return None

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
        cdef Link *link
        cdef fr_sequence *q
        cdef fr_series between
        for index in range(self.count):
            link = &self.links[index]
            q = &link.job.sequence
            between.data, between.row, between.step = link.y if T == 1 else link.wide, q.P, q.N * q.P
            q.T, q.args.x, q.args.h0 = T, x, link.h
            q.args.output = out if index == self.count - 1 else between
            plan_forward(&link.job, link.shares)
            fr_parallel(link.threads, forward_body, &link.job)
            if link.h != NULL:
                link.job.kernels.last_states(q, link.h, NULL)
            x = q.args.output

    def step(self, x, cnp.ndarray out=None, rows=None):
        """One time step: x (N, D), or (D,) where N is 1, or tokens (N,) where an embedding comes first -> (N, R), or (R,).

        rows: indices (n,) or a mask (N,) of those that step, x (n, D) -> (n, R); the others stay as they are. Each has
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
        cdef char *between = NULL
        if self.embedding is not None:
            x_ = np.take(self.embedding, self._tokens(x, 1, n), axis=0)
        else:
            x_ = _array(x, "x", self.typenum)
            if cnp.PyArray_NDIM(x_) != 2 or cnp.PyArray_DIM(x_, 0) != n or cnp.PyArray_DIM(x_, 1) != self.D:
                raise ValueError(f"x: expected shape ({n}, {self.D}), a row for each of rows, got {_shape_of(x)}")
            x_ = np.ascontiguousarray(x_)
        if out is None:
            out = _new(self.typenum, n, self.R, -1, False)
        elif cnp.PyArray_TYPE(out) != self.typenum or cnp.PyArray_NDIM(out) != 2 or cnp.PyArray_DIM(out, 0) != n or (
                cnp.PyArray_DIM(out, 1) != self.R or not cnp.PyArray_ISCARRAY(out) or _overlap(out, x_)):
            raise ValueError(f"out: expected a writable, C-contiguous array ({n}, {self.R}) of the dtype of x, apart from it, "
                             f"got {_shape_of(out)} of {out.dtype}")
        if n == 0:
            return out
        cdef Block block = _block(2 * (n * self.widest * self.itemsize + 64))
        xs.data, xs.row, xs.step = cnp.PyArray_DATA(x_), self.D, 0
        with nogil:
            for index in range(self.count):
                ys.data = block.at + (index % 2) * (n * self.widest * self.itemsize + 64)
                if index == self.count - 1:
                    ys.data = cnp.PyArray_DATA(out)
                ys.row, ys.step = self.links[index].job.sequence.P, 0
                failed = failed or advance_rows(&self.links[index], xs, ys, <int64_t *>cnp.PyArray_DATA(rows), n)
                xs = ys
        if failed:
            raise MemoryError("no memory for a step")
        return out

    def step_frames(self, dict rows, frames):
        """A step of those rows that have a frame: rows is id -> row, frames id -> x_t (D,) or a token; id -> y_t (R,)."""
        cdef long n = len(frames), i = 0
        cdef cnp.ndarray indices = _new(cnp.NPY_INT64, n, -1, -1, False)
        cdef cnp.ndarray x = _new(cnp.NPY_INT64, n, -1, -1, False) if self.embedding is not None else (
            _new(self.typenum, n, self.D, -1, False))
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
            x_ = self._embed(x)
        else:
            if not (type(x) is np.ndarray and cnp.PyArray_TYPE(<cnp.ndarray>x) == self.typenum and cnp.PyArray_IS_C_CONTIGUOUS(x)
                    and cnp.PyArray_ISBEHAVED_RO(x)):
                x = np.ascontiguousarray(_array(x, "x", self.typenum)).reshape(np.shape(x))
            x_ = <cnp.ndarray>x
            flat = cnp.PyArray_NDIM(x_) == 1 and self.N == 1
            if not (flat and cnp.PyArray_DIM(x_, 0) == self.D):
                _expect(x_, "x", "ND", 2, self.N, self.D, -1)
        if out is None:
            out = _new(self.typenum, self.R if flat else self.N, -1 if flat else self.R, -1, False)
        else:
            if cnp.PyArray_TYPE(out) != self.typenum:
                raise TypeError(f"out: expected {x_.dtype}, got {out.dtype}")
            _expect(out, "out", "R" if flat else "NR", 1 if flat else 2, self.R if flat else self.N, self.R, -1)
            if not cnp.PyArray_ISCARRAY(out) or _overlap(out, x_):
                raise ValueError("out: expected a writable, C-contiguous array apart from x, got another")
        xs.data, xs.row, xs.step = cnp.PyArray_DATA(x_), self.D, 0
        ys.data, ys.row, ys.step = cnp.PyArray_DATA(out), self.R, 0
        with nogil:
            self._advance(xs, ys, 1)
        return out

    def run(self, x):
        """A block of steps: x (T, N, D), or tokens (T, N) -> (T, N, R). Equal to that many calls of `step`, bit for bit."""
        cdef cnp.ndarray x_, out
        cdef Link *link
        cdef fr_sequence *q
        cdef long T, chunk
        cdef int index
        cdef fr_series xs, ys
        if self.embedding is not None:
            x = self.embedding[self._tokens(x, 2, self.N)]
        x_ = _read_series(x, "x", self.typenum, "TND", -1, self.N, self.D)
        T = cnp.PyArray_DIM(x_, 0)
        out = _new(self.typenum, T, self.N, self.R, False)
        if T == 0:
            return out
        kept = []
        xs, ys = _series(x_), _series(out)
        self._begin()
        try:
            for index in range(self.count):
                link = &self.links[index]
                q = &link.job.sequence
                wide = _new(self.typenum, T if index + 1 < self.count else 0, q.N, q.P, False)
                kept.append(wide)
                link.wide = cnp.PyArray_DATA(<cnp.ndarray>wide)
                if link.projects:
                    q.input_projection = FR_AHEAD
                    chunk = max(1, min(T, (1 << 20) // (q.N * link.job.kernels.inputs_row(q) * self.itemsize)))
                    inputs = _block(chunk * q.N * link.job.kernels.inputs_row(q) * self.itemsize)
                    kept.append(inputs)
                    q.scratch.inputs, link.job.chunk = (<Block>inputs).at, chunk
                else:
                    link.job.chunk = T
            with nogil:
                self._advance(xs, ys, T)
        finally:  # memory may have run out halfway
            for index in range(self.count):
                link = &self.links[index]
                link.job.chunk = 1
                link.job.sequence.input_projection = FR_SEQUENTIAL if link.projects else FR_FUSED
            self.running = False
        return out

    cdef cnp.ndarray _tokens(self, x, int ndim, long N):
        tokens = np.ascontiguousarray(x)
        if tokens.dtype.kind not in "iu":
            raise TypeError(f"x: expected integer tokens, got {tokens.dtype}")
        if tokens.ndim != ndim or tokens.shape[ndim - 1] != N:
            raise ValueError(f"x: expected shape ({'T, ' if ndim == 2 else ''}{N},), got {tokens.shape}")
        V = self.embedding.shape[0]
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < V:
            raise IndexError(f"x: expected tokens 0..{V - 1}, got values from {tokens.min()} to {tokens.max()}")
        return tokens

    cdef cnp.ndarray _embed(self, x):
        np.take(self.embedding, self._tokens(x, 1, self.N), axis=0, out=self.embedded)
        return self.embedded

    # ---- States ----

    def states(self, rows=None):
        """For each layer None or a tuple of copies, (h (N, R),) or, of an LSTM, (h, c (N, H)); or of some rows (n, ...)."""
        cdef Link *link
        cdef fr_sequence *q
        cdef cnp.ndarray a, indices = np.arange(self.N) if rows is None else row_indices(rows, self.N)
        cdef const int64_t *at = <int64_t *>cnp.PyArray_DATA(indices)
        cdef long i, n = cnp.PyArray_DIM(indices, 0)
        result = []
        for index in range(self.count):
            link = &self.links[index]
            q = &link.job.sequence
            if link.h == NULL:
                result.append(None)
                continue
            a = _new(self.typenum, n, q.P, -1, False)
            take_rows(<char *>cnp.PyArray_DATA(a), <char *>link.h, at, n, q.P * self.itemsize)
            state = (a,)
            if q.cell == FR_LSTM:
                a = _new(self.typenum, n, q.H, -1, False)
                for i in range(n):
                    memcpy(<char *>cnp.PyArray_DATA(a) + i * q.H * self.itemsize,
                           <char *>q.workspace.c + at[i] * link.job.kernels.padded(q.H) * self.itemsize, q.H * self.itemsize)
                state = (state[0], a)
            result.append(state)
        return result

    def set_states(self, list states, rows=None):
        """Take over what `states` gave, of a chain of the same layers and batch; nothing is changed where it does not fit."""
        cdef Link *link
        cdef fr_sequence *q
        cdef cnp.ndarray h, c, indices = np.arange(self.N) if rows is None else row_indices(rows, self.N)
        cdef const int64_t *at = <int64_t *>cnp.PyArray_DATA(indices)
        cdef long i, n = cnp.PyArray_DIM(indices, 0)
        checked = []
        if len(states) != self.count:
            raise ValueError(f"state: expected one entry per layer, {self.count}, got {len(states)}")
        for index in range(self.count):
            link = &self.links[index]
            q = &link.job.sequence
            entry = states[index]
            if (entry is None) != (link.h == NULL):
                raise ValueError(f"state: expected {'None' if link.h == NULL else 'arrays'} for layer {index}")
            if entry is not None and n:
                h = _dense(entry[0], "h of state", self.typenum, "NH", 2, n, q.P)
                c = _dense(entry[1], "c of state", self.typenum, "NH", 2, n, q.H) if q.cell == FR_LSTM else None
                checked.append((index, h, c))
        for index, h, c in checked:
            link = &self.links[index]
            q = &link.job.sequence
            put_rows(<char *>link.h, <char *>cnp.PyArray_DATA(h), at, n, q.P * self.itemsize)
            if c is not None:
                for i in range(n):
                    memcpy(<char *>q.workspace.c + at[i] * link.job.kernels.padded(q.H) * self.itemsize,
                           <char *>cnp.PyArray_DATA(c) + i * q.H * self.itemsize, q.H * self.itemsize)

    # ---- Generation ----

    def generate(self, cnp.ndarray y, long steps, cnp.ndarray uniform, double temperature, long top_k, long end):
        """Tokens (steps, N): the first chosen from logits y (N, R), then each from what follows the token before.

        uniform (steps, N): random numbers of [0, 1) to draw with, from softmax(logits / temperature) over the top_k
        largest (0: all); None: the largest logit. end: a token that ends a row, which is filled up with it; -1: none.
        """
        cdef cnp.ndarray tokens = np.empty((steps, self.N), np.int64)
        cdef cnp.ndarray logits = _dense(y, "y", self.typenum, "NR", 2, self.N, self.R).copy()
        if uniform is not None:
            uniform = np.ascontiguousarray(uniform, np.float64)
            _expect(uniform, "uniform", "TN", 2, steps, self.N, -1)
        cdef Chooser chooser = Chooser(self.R, temperature, top_k)
        cdef int64_t *to = <int64_t *>cnp.PyArray_DATA(tokens)
        cdef const double *u = NULL if uniform is None else <double *>cnp.PyArray_DATA(uniform)
        cdef char *rows = <char *>cnp.PyArray_DATA(logits)
        cdef char *embedded
        cdef const char *table
        cdef long t, n, running = self.N, width = self.D * self.itemsize
        cdef int64_t token, V
        cdef fr_series xs, ys
        if self.embedding is None or self.embedding.shape[0] < self.R:
            raise ValueError(f"layers: expected an embedding of at least {self.R} tokens first, to read what comes out")
        embedded, table = <char *>cnp.PyArray_DATA(self.embedded), <const char *>cnp.PyArray_DATA(self.embedding)
        xs.data, xs.row, xs.step = embedded, self.D, 0
        ys.data, ys.row, ys.step = rows, self.R, 0
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
                        token = chooser.choose(rows + n * self.R * self.itemsize, self.itemsize, u, t * self.N + n)
                        running -= token == end
                    to[t * self.N + n] = token
                if running == 0:
                    for n in range((t + 1) * self.N, steps * self.N):
                        to[n] = end
                    break
        self.running = False
        return tokens

    def feed_back(self, cnp.ndarray y, long steps):
        """Outputs (steps, N, R): y (N, R), then what follows when each output is the next input; R = D."""
        cdef cnp.ndarray out = _new(self.typenum, steps, self.N, self.R, False)
        cdef fr_series xs, ys
        cdef long t
        if self.R != self.D or self.embedding is not None:
            raise ValueError(f"layers: expected outputs as wide as inputs, {self.D}, got {self.R}")
        if steps:
            out[0] = y
        xs = ys = _series(out)
        self._begin()
        with nogil:
            for t in range(1, steps):
                ys.data = <char *>xs.data + self.N * self.R * self.itemsize
                self._advance(xs, ys, 1)
                xs.data = ys.data
        self.running = False
        return out
