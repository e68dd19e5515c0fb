"""Recurrent nodes of ONNX Runtime that Python computes: this module is a library of custom operators, too.

Design:
a) ONNX Runtime loads a library and calls its RegisterCustomOps, which hands over a table of functions for each operator
   (https://onnxruntime.ai/docs/reference/operators/add-custom-op.html). The package onnxruntime-extensions offers the
   same for Python functions, but turns each output into a list of Python floats: 120 us for three outputs of 128
   numbers, where this takes 3, and 10 ms and more for a batch. So this module talks to ONNX Runtime itself. Nothing of it
   is needed to compile: its functions have places in a table that never change.
b) A node that is called with all its steps in one direction, T = 1 or the usual batch, has a short way (`Node`): from ONNX
   Runtime's memory to ONNX Runtime's memory, with no array made. It takes 1 us, where arrays and Python take 7.
c) One operator for each dtype, domain "fastrnn": inputs X, sequence_lens, initial_h, initial_c (all but X optional),
   outputs Y, Y_h, Y_c (optional), attribute `node`, the key of a callable in `nodes`. Arrays that it gets are ONNX
   Runtime's memory, valid during the call only; what it returns is copied.

Letters as in _stack.pyx.
"""

cimport numpy as cnp
from fastrnn._native._runtime cimport Workspace, new_workspace
from fastrnn._native._stack cimport Stack
from fastrnn._native.kernels cimport *
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cnp.import_array()

nodes = {}  # key -> callable(X, sequence_lens, initial_h, initial_c): arrays (Y, Y_h) or (Y, Y_h, Y_c)

cdef extern from *:
    """
    static void *(*fr_register_operators)(void *, const void *);

    /* What ONNX Runtime looks for in the library. */
    __attribute__((visibility("default"))) void *RegisterCustomOps(void *options, const void *base) {
        return fr_register_operators ? fr_register_operators(options, base) : 0;
    }
    """
    void *(*fr_register_operators)(void *options, const void *base) noexcept nogil

cdef enum:
    API = 16  # the version of the interface that is asked for: ONNX Runtime 1.16, the first whose operators may fail
    FLOAT = 1, INT32 = 6, DOUBLE = 11  # ONNX's numbers of dtypes
    REQUIRED = 0, OPTIONAL = 1
    INPUTS = 4, OUTPUTS = 3
    MOST_DIMENSIONS = 8

# ---- ONNX Runtime's table of functions: the places of those used here ----

cdef enum:
    CREATE_STATUS = 0
    CREATE_DOMAIN = 26, ADD_TO_DOMAIN = 27, ADD_DOMAIN = 28
    DATA_OF = 51
    TYPE_OF = 60, COUNT_DIMENSIONS = 61, GET_DIMENSIONS = 62, SHAPE_OF = 65
    INT_ATTRIBUTE = 86
    COUNT_OUTPUTS = 89, GET_INPUT = 90, GET_OUTPUT = 91
    RELEASE_SHAPE = 99

ctypedef void *Status  # NULL: all went well
ctypedef Status (*create_status)(int code, const char *message) noexcept nogil
ctypedef Status (*create_domain)(const char *name, void **domain) noexcept nogil
ctypedef Status (*add_to)(void *owner, const void *added) noexcept nogil
ctypedef Status (*data_of)(void *value, void **data) noexcept nogil
ctypedef Status (*type_of)(const void *shape, int *type) noexcept nogil
ctypedef Status (*count_of)(const void *owner, size_t *count) noexcept nogil
ctypedef Status (*get_dimensions)(const void *shape, int64_t *dimensions, size_t count) noexcept nogil
ctypedef Status (*shape_of)(const void *value, void **shape) noexcept nogil
ctypedef Status (*int_attribute)(const void *info, const char *name, int64_t *value) noexcept nogil
ctypedef Status (*get_input)(const void *context, size_t index, void **value) noexcept nogil
ctypedef Status (*get_output)(void *context, size_t index, const int64_t *shape, size_t count, void **value) noexcept nogil
ctypedef void (*release)(void *) noexcept nogil

cdef struct Base:
    const void *const *(*api)(uint32_t version) noexcept nogil

cdef const void *const *api = NULL

# ---- The table of an operator ----

cdef struct Operator:  # in ONNX Runtime's order
    uint32_t version
    void *create_without_status
    const char *(*name)(const Operator *) noexcept nogil
    const char *(*provider)(const Operator *) noexcept nogil
    int (*input_type)(const Operator *, size_t) noexcept nogil
    size_t (*input_count)(const Operator *) noexcept nogil
    int (*output_type)(const Operator *, size_t) noexcept nogil
    size_t (*output_count)(const Operator *) noexcept nogil
    void *compute_without_status
    void (*destroy)(void *) noexcept nogil
    int (*input_kind)(const Operator *, size_t) noexcept nogil
    int (*output_kind)(const Operator *, size_t) noexcept nogil
    int (*input_memory)(const Operator *, size_t) noexcept nogil
    int (*one)(const Operator *) noexcept nogil
    int (*same_input_types)(const Operator *) noexcept nogil
    int (*one_output)(const Operator *) noexcept nogil
    int (*same_output_types)(const Operator *) noexcept nogil
    Status (*create)(const Operator *, const void *api, const void *info, void **kernel) noexcept nogil
    Status (*compute)(void *kernel, void *context) noexcept nogil
    void *later[7]  # not asked for in this version

cdef Operator[2] operators  # of float32, of float64


cdef const char *name(const Operator *self) noexcept nogil:
    return "SequenceFloat" if self == &operators[0] else "SequenceDouble"

cdef const char *provider(const Operator *self) noexcept nogil:
    return NULL  # the CPU

cdef int input_type(const Operator *self, size_t index) noexcept nogil:
    return INT32 if index == 1 else output_type(self, 0)

cdef int output_type(const Operator *self, size_t index) noexcept nogil:
    return FLOAT if self == &operators[0] else DOUBLE

cdef size_t input_count(const Operator *self) noexcept nogil:
    return INPUTS

cdef size_t output_count(const Operator *self) noexcept nogil:
    return OUTPUTS

cdef int input_kind(const Operator *self, size_t index) noexcept nogil:
    return OPTIONAL if index else REQUIRED

cdef int output_kind(const Operator *self, size_t index) noexcept nogil:
    return OPTIONAL

cdef int in_cpu_memory(const Operator *self, size_t index) noexcept nogil:
    return 0

cdef int one(const Operator *self) noexcept nogil:
    return 1

cdef Status create(const Operator *self, const void *table, const void *info, void **kernel) noexcept nogil:
    cdef int64_t *key = <int64_t *>malloc(sizeof(int64_t))
    kernel[0] = key
    if key == NULL:
        return (<create_status>api[CREATE_STATUS])(1, "no memory for a node")
    return (<int_attribute>api[INT_ATTRIBUTE])(info, "node", key)

cdef void destroy(void *kernel) noexcept nogil:
    free(kernel)

cdef Status compute(void *kernel, void *context) noexcept nogil:
    with gil:
        try:
            return run(nodes[(<int64_t *>kernel)[0]], context)
        except BaseException as error:
            message = f"fastrnn: {type(error).__name__}: {error}".encode()
            return (<create_status>api[CREATE_STATUS])(1, message)


# ---- Tensors ----

cdef struct Tensor:
    void *data
    int type  # 0: there is none
    size_t ndim
    int64_t shape[MOST_DIMENSIONS]


cdef Status look_at_input(void *context, size_t index, Tensor *t) noexcept:
    cdef void *value = NULL
    cdef void *shape = NULL
    memset(t, 0, sizeof(t[0]))
    cdef Status failed = (<get_input>api[GET_INPUT])(context, index, &value)
    if failed != NULL or value == NULL:
        return failed
    (<shape_of>api[SHAPE_OF])(value, &shape)
    (<count_of>api[COUNT_DIMENSIONS])(shape, &t.ndim)
    (<type_of>api[TYPE_OF])(shape, &t.type)
    if t.ndim <= MOST_DIMENSIONS:
        (<get_dimensions>api[GET_DIMENSIONS])(shape, t.shape, t.ndim)
    (<release>api[RELEASE_SHAPE])(shape)
    return (<data_of>api[DATA_OF])(value, &t.data)


cdef Status new_output(void *context, size_t index, const int64_t *shape, size_t ndim, void **data) noexcept:
    """Where to write it; NULL for an output that nobody reads."""
    cdef void *value = NULL
    data[0] = NULL
    cdef Status failed = (<get_output>api[GET_OUTPUT])(context, index, shape, ndim, &value)
    return failed if failed != NULL or value == NULL else (<data_of>api[DATA_OF])(value, data)


cdef object array_of(const Tensor *t):
    """A tensor of ONNX Runtime's as an array over its memory; None for none."""
    cdef cnp.npy_intp sizes[MOST_DIMENSIONS]
    if not t.type:
        return None
    if t.ndim > MOST_DIMENSIONS or t.type not in (FLOAT, DOUBLE, INT32):
        raise TypeError(f"input: expected float32, float64 or int32 in at most 8 dimensions, got type {t.type}")
    for axis in range(t.ndim):
        sizes[axis] = t.shape[axis]
    typenum = cnp.NPY_FLOAT32 if t.type == FLOAT else cnp.NPY_FLOAT64 if t.type == DOUBLE else cnp.NPY_INT32
    return cnp.PyArray_SimpleNewFromData(t.ndim, sizes, typenum, t.data)


# ---- A call ----

cdef class Node:
    """A node of one direction, X (T, N, D): what computes it from arrays, and the stack that may do it at once."""
    cdef object from_arrays
    cdef Stack stack

    def __init__(self, from_arrays, Stack stack not None):
        self.from_arrays, self.stack = from_arrays, stack

    def __call__(self, *given):
        return self.from_arrays(*given)

    cdef bint _takes(self, const Tensor *given) except -1:
        cdef const Tensor *x = &given[0]
        cdef const Tensor *lengths = &given[1]
        cdef int64_t n, N = x.shape[1]
        self.stack._look()
        if not self.stack.usable or self.stack.count != 1 or x.ndim != 3 or not x.shape[0] or not N:
            return False
        if x.type != (FLOAT if self.stack.itemsize == 4 else DOUBLE) or x.shape[2] != self.stack.layers[0].D:
            return False
        if lengths.type:
            if lengths.type != INT32 or lengths.ndim != 1 or lengths.shape[0] != N:
                return False
            for n in range(N):
                if (<int32_t *>lengths.data)[n] != x.shape[0]:
                    return False
        return self._is_state(&given[2], x, self.stack.layers[0].P) and self._is_state(&given[3], x, self.stack.layers[0].H)

    cdef bint _is_state(self, const Tensor *state, const Tensor *x, long width) noexcept:
        return not state.type or (state.type == x.type and state.ndim == 3 and state.shape[0] == 1
                                  and state.shape[1] == x.shape[1] and state.shape[2] == width)

    cdef Status _run(self, const Tensor *given, void *context, size_t outputs) except? NULL:
        cdef fr_sequence like
        cdef fr_series x, y
        cdef void *states[OUTPUTS]  # from 1 on
        cdef int64_t shape[4]
        cdef size_t index
        cdef Status failed
        cdef Workspace unread
        cdef long T = given.shape[0], N = given.shape[1], P = self.stack.layers[0].P
        memset(&like.rows, 0, sizeof(like.rows))
        like.T, like.N = T, N
        shape[0], shape[1], shape[2], shape[3] = T, 1, N, P
        failed = new_output(context, 0, shape, 4, &y.data)
        for index in range(<size_t>1, <size_t>OUTPUTS):
            states[index] = NULL
            shape[3] = P if index == 1 else self.stack.layers[0].H
            if failed == NULL and index < outputs:
                failed = new_output(context, index, &shape[1], 3, &states[index])
        if failed != NULL:
            return failed
        if y.data == NULL:
            unread = new_workspace(T * N * P * self.stack.itemsize)
            y.data = unread.at
        x.data, x.step, x.row = given.data, N * given.shape[2], given.shape[2]
        y.step, y.row = N * P, P
        self.stack._run(&like, x, y, T, given[2].data, given[3].data, states[1], states[2], NULL)
        return NULL


cdef Status run(node, void *context) except? NULL:
    cdef Tensor given[INPUTS]
    cdef void *data
    cdef int64_t shape[MOST_DIMENSIONS]
    cdef cnp.ndarray result
    cdef size_t index, count
    cdef int axis
    cdef Status failed = (<count_of>api[COUNT_OUTPUTS])(context, &count)
    for index in range(<size_t>INPUTS):
        if failed == NULL:
            failed = look_at_input(context, index, &given[index])
    if failed != NULL:
        return failed
    if isinstance(node, Node) and (<Node>node)._takes(given):
        return (<Node>node)._run(given, context, count)
    results = node(*[array_of(&given[index]) for index in range(<size_t>INPUTS)])
    for index in range(min(count, <size_t>len(results))):
        result = cnp.PyArray_GETCONTIGUOUS(results[index])
        for axis in range(cnp.PyArray_NDIM(result)):
            shape[axis] = cnp.PyArray_DIM(result, axis)
        failed = new_output(context, index, shape, cnp.PyArray_NDIM(result), &data)
        if failed != NULL:
            return failed
        if data != NULL:
            memcpy(data, cnp.PyArray_DATA(result), cnp.PyArray_NBYTES(result))
    return NULL


# ---- Registration ----

cdef void *register_operators(void *options, const void *base) noexcept nogil:
    global api
    cdef void *domain = NULL
    cdef Status failed
    cdef int i
    api = (<Base *>base).api(API)
    if api == NULL:
        return NULL  # an older ONNX Runtime: sessions say that the operators are not registered
    failed = (<create_domain>api[CREATE_DOMAIN])("fastrnn", &domain)
    for i in range(2):
        if failed == NULL:
            failed = (<add_to>api[ADD_TO_DOMAIN])(domain, &operators[i])
    if failed == NULL:
        failed = (<add_to>api[ADD_DOMAIN])(options, domain)
    return failed


for i in range(2):
    operators[i].version = API
    operators[i].name, operators[i].provider = name, provider
    operators[i].input_type, operators[i].input_count = input_type, input_count
    operators[i].output_type, operators[i].output_count = output_type, output_count
    operators[i].input_kind, operators[i].output_kind, operators[i].input_memory = input_kind, output_kind, in_cpu_memory
    operators[i].one = operators[i].same_input_types = one
    operators[i].one_output = operators[i].same_output_types = one
    operators[i].create, operators[i].destroy, operators[i].compute = create, destroy, compute
fr_register_operators = register_operators
