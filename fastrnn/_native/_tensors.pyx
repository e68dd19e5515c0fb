"""A module's call without training on the tensors of another library, torch's, with no array made. Letters as in _stack.pyx.

Design: a NumPy array of a tensor and a tensor of an array take 0.7 us each, and a step has five of them; asking a tensor
where it lies and for its shape takes as long again. DLPack's table of C functions, which torch has since 2.10 as
`Tensor.__dlpack_c_exchange_api__` (https://dmlc.github.io/dlpack/latest/python_spec.html), fills in a struct with all of it
in 20 ns. Nothing of torch is needed to compile.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport PyObject
from fastrnn._native._runtime cimport Workspace, new_workspace
from fastrnn._native._stack cimport Stack
from fastrnn._native.kernels cimport *
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef extern from "Python.h":
    void PyErr_Clear()
    PyObject *PyDict_GetItem(object, object)
    void *Py_TYPE(PyObject *)
    object PyObject_of "(PyObject *)" (PyObject *)  # takes over the reference

# ---- DLPack's structs, of version 1 ----

cdef enum: CPU = 1, FLOAT = 2, VERSION = 1

cdef struct Tensor:
    void *data
    int32_t device, device_index
    int32_t ndim
    uint8_t kind, bits
    uint16_t lanes
    int64_t *shape
    int64_t *strides
    uint64_t offset

ctypedef void (*set_error)(void *context, const char *kind, const char *message) noexcept
ctypedef int (*new_tensor)(Tensor *like, Made **made, void *context, set_error) noexcept
ctypedef int (*as_object)(Made *made, PyObject **) noexcept
ctypedef int (*look_at)(PyObject *, Tensor *) noexcept

cdef struct Table:
    uint32_t major, minor
    void *older
    new_tensor new
    void *keep
    as_object as_object
    look_at look_at
    void *stream

cdef struct Made:
    uint32_t major, minor
    void *context
    void *deleter
    uint64_t flags
    Tensor tensor

cdef enum: MOST = 3  # dimensions of what is read and made


cdef struct Weight:
    void *data  # NULL: there is none
    int ndim
    int64_t shape[2]


cdef struct Call:
    fr_sequence like  # T, N and rows alone
    fr_series x
    int ndim
    bint is_cell, is_batch


cdef void shape_of(const Call *call, int64_t rows, int64_t width, int64_t *shape) noexcept:
    """(rows, N, width), without rows for a cell and without N where there is no batch."""
    shape[0], shape[call.ndim - 1] = rows, width
    if call.is_batch:
        shape[call.ndim - 2] = call.like.N


cdef void ignore_error(void *context, const char *kind, const char *message) noexcept:
    pass


cdef bint is_dense(const Tensor *t) noexcept:
    """Whether its elements lie one after the other."""
    cdef int i
    cdef int64_t stride = 1
    for i in range(t.ndim - 1, -1, -1):
        if t.strides[i] != stride and t.shape[i] != 1:
            return False
        stride *= t.shape[i]
    return True


cdef class TensorCalls:
    """The calls of one module, the weights of which are those of `stack`.

    table: the type's `__dlpack_c_exchange_api__`. types: of inputs and of weights. is_lazy: says of a tensor whether its numbers
    are not those of its memory, which the table does not tell. names: of the weights in the module's dict.
    A call returns None for what has to be looked at closer: other types, dtypes or shapes, other or moved weights.
    """
    cdef const Table *table
    cdef object capsule, input_type, weight_type, is_lazy
    cdef Stack stack
    cdef tuple names
    cdef Weight *weights

    def __init__(self, table, tuple types, is_lazy, Stack stack not None, tuple names, tuple weights):
        cdef Tensor t
        cdef int i
        self.capsule, self.is_lazy, self.stack, self.names = table, is_lazy, stack, names
        self.input_type, self.weight_type = types
        self.table = <const Table *>PyCapsule_GetPointer(table, "dlpack_exchange_api")
        if self.table.major != VERSION:
            raise ValueError(f"table: expected DLPack's of version {VERSION}, got {self.table.major}")
        self.weights = <Weight *>calloc(len(names), sizeof(Weight))
        if self.weights == NULL:
            raise MemoryError()
        for i, w in enumerate(weights):
            if w is None:
                continue
            if not self._look(<PyObject *>w, self.weight_type, &t) or t.ndim > 2 or not is_dense(&t):
                raise ValueError(f"weights: expected dense ones, got another one as {names[i]}")
            self.weights[i].data, self.weights[i].ndim = t.data, t.ndim
            memcpy(self.weights[i].shape, t.shape, t.ndim * sizeof(int64_t))

    def __dealloc__(self):
        free(self.weights)

    cdef bint _look(self, PyObject *object, type, Tensor *t) noexcept:
        """Whether this is a tensor of exactly that type with numbers as the kernels read them; then `t` says where."""
        if Py_TYPE(object) != <void *>type:
            return False
        if self.table.look_at(object, t):
            PyErr_Clear()
            return False
        t.data = <char *>t.data + t.offset
        return t.data != NULL and t.device == CPU and t.kind == FLOAT and t.lanes == 1 and t.ndim <= MOST

    cdef bint _weights_are_known(self, dict parameters) noexcept:
        cdef Tensor t
        cdef int i
        cdef PyObject *w
        cdef const Weight *known
        for i in range(len(self.names)):
            w, known = PyDict_GetItem(parameters, self.names[i]), &self.weights[i]
            if w == NULL or <object>w is None:
                if known.data != NULL:
                    return False
            elif not self._look(w, self.weight_type, &t) or t.data != known.data or t.bits != 8 * self.stack.itemsize or (
                    t.ndim != known.ndim or t.shape[0] != known.shape[0] or not is_dense(&t)
                    or (t.ndim == 2 and t.shape[1] != known.shape[1])):
                return False
        return True

    cdef bint _is_state(self, object, const int64_t *shape, int ndim, Tensor *t) except -1:
        cdef int i
        if not self._look(<PyObject *>object, self.input_type, t) or t.bits != 8 * self.stack.itemsize or t.ndim != ndim:
            return False
        for i in range(ndim):
            if t.shape[i] != shape[i]:
                return False
        return is_dense(t) and not self.is_lazy(object)

    cdef object _new(self, int64_t *shape, int ndim, void **data):
        """A tensor of this shape, and where it lies."""
        cdef Tensor like
        cdef Made *made = NULL
        cdef PyObject *found = NULL
        memset(&like, 0, sizeof(like))
        like.device, like.ndim, like.shape = CPU, ndim, shape
        like.kind, like.bits, like.lanes = FLOAT, 8 * self.stack.itemsize, 1
        if self.table.new(&like, &made, NULL, ignore_error):
            raise MemoryError("no memory for an output")
        data[0] = <char *>made.tensor.data + made.tensor.offset
        if self.table.as_object(made, &found):
            raise RuntimeError("no tensor could be made for an output")
        return PyObject_of(found)

    def step(self, dict parameters, x, hx):
        """A cell's next state; x (N, D) or (D,), hx None, a state (N, H) or (H,), or an LSTM's pair."""
        return self._call(parameters, x, hx, True, False)

    def run(self, dict parameters, x, hx, bint batch_first):
        """y (T, N, P), states; x (T, N, D), (N, T, D) or (T, D). With batch_first x only is turned."""
        return self._call(parameters, x, hx, False, batch_first)

    cdef bint _read(self, x, bint is_cell, bint batch_first, Call *call) except -1:
        """Sizes, and where x is; False for what has to be looked at closer."""
        cdef Tensor t
        cdef int time = 1 if batch_first else 0
        if not self._look(<PyObject *>x, self.input_type, &t) or t.bits != 8 * self.stack.itemsize:
            return False
        call.ndim, call.is_cell, call.is_batch = t.ndim, is_cell, t.ndim == (2 if is_cell else 3)
        if t.ndim != (1 if is_cell else 2) + call.is_batch or t.shape[t.ndim - 1] != self.stack.layers[0].D or (
                t.strides[t.ndim - 1] != 1):
            return False
        memset(&call.like.rows, 0, sizeof(fr_rows))
        call.like.T, call.like.N, call.x.data, call.x.step, call.x.row = 1, 1, t.data, 0, 0
        if is_cell and call.is_batch:
            call.like.N, call.x.row = t.shape[0], t.strides[0]
        elif not is_cell:
            time = time if call.is_batch else 0
            call.like.T, call.x.step = t.shape[time], t.strides[time]
            if call.is_batch:
                call.like.N, call.x.row = t.shape[1 - time], t.strides[1 - time]
        return call.like.T > 0 and call.like.N > 0 and not self.is_lazy(x)

    cdef object _call(self, dict parameters, x, hx, bint is_cell, bint batch_first):
        cdef Stack stack = self.stack
        cdef Tensor h0, c0
        cdef Call call
        cdef fr_series ys
        cdef void *h_data = NULL
        cdef void *c_data = NULL
        cdef int64_t h_shape[MOST]
        cdef int64_t c_shape[MOST]
        cdef int64_t y_shape[MOST]
        cdef bint is_lstm = stack.cell.cell == FR_LSTM
        if not self._weights_are_known(parameters) or not self._read(x, is_cell, batch_first, &call):
            return None
        ys.row = stack.directions * stack.layers[0].P
        ys.step = call.like.N * ys.row
        shape_of(&call, stack.count, stack.layers[0].P, h_shape)
        shape_of(&call, stack.count, stack.layers[0].H, c_shape)
        shape_of(&call, call.like.T, ys.row, y_shape)
        h0.data = c0.data = NULL
        c = y = None
        if hx is not None:
            h = hx
            if is_lstm:
                if not isinstance(hx, (tuple, list)) or len(hx) != 2:
                    return None
                h, c = hx
                if not self._is_state(c, c_shape, call.ndim, &c0):
                    return None
            if not self._is_state(h, h_shape, call.ndim, &h0):
                return None
        stack._look()
        if not stack.usable:
            return None
        h = self._new(h_shape, call.ndim, &h_data)
        if is_lstm:
            c = self._new(c_shape, call.ndim, &c_data)
        if is_cell:  # its output is its state
            ys.data, h_data = h_data, NULL
        else:
            y = self._new(y_shape, call.ndim, &ys.data)
        cdef Workspace between = None
        if stack.count > stack.directions:  # layers in between write to two places by turns
            between = new_workspace(2 * (call.like.T * ys.step * stack.itemsize + 64))
        stack._run(&call.like, call.x, ys, call.like.T, h0.data, c0.data, h_data, c_data, NULL if between is None else between.at)
        states = (h, c) if is_lstm else h
        return states if is_cell else (y, states)
