"""Recurrent nodes of ONNX Runtime that Python computes: this module is a library of custom operators, too.

Design:
a) ONNX Runtime loads a library and calls its RegisterCustomOps, which hands over a table of functions for each operator
   (https://onnxruntime.ai/docs/reference/operators/add-custom-op.html). The package onnxruntime-extensions offers the
   same for Python functions, but turns each output into a list of Python floats: 120 us for three outputs of 128
   numbers, where this takes 3, and 10 ms and more for a batch. So this module talks to ONNX Runtime itself. Nothing of it
   is needed to compile: its functions have places in a table that never change.
b) One operator for each dtype, domain "fastrnn": inputs X, sequence_lens, initial_h, initial_c (all but X optional),
   outputs Y, Y_h, Y_c (optional), attribute `node`, the key of a callable in `nodes`. Arrays that it gets are ONNX
   Runtime's memory, valid during the call only; what it returns is copied.
"""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

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


# ---- A call ----

cdef Status run(node, void *context) except? NULL:
    cdef void *value
    cdef void *data
    cdef int64_t dimensions[MOST_DIMENSIONS]
    cdef cnp.ndarray result
    cdef size_t index, count
    cdef int axis
    cdef Status failed
    cdef list given = []
    for index in range(<size_t>INPUTS):
        failed = (<get_input>api[GET_INPUT])(context, index, &value)
        if failed != NULL:
            return failed
        given.append(None if value == NULL else array_of(value))
    results = node(*given)
    given = None
    failed = (<count_of>api[COUNT_OUTPUTS])(context, &count)
    if failed != NULL:
        return failed
    for index in range(min(count, <size_t>len(results))):
        result = cnp.PyArray_GETCONTIGUOUS(results[index])
        for axis in range(cnp.PyArray_NDIM(result)):
            dimensions[axis] = cnp.PyArray_DIM(result, axis)
        failed = (<get_output>api[GET_OUTPUT])(context, index, dimensions, cnp.PyArray_NDIM(result), &value)
        if failed == NULL and value != NULL:  # an output that nobody reads has no value
            failed = (<data_of>api[DATA_OF])(value, &data)
            if failed == NULL:
                memcpy(data, cnp.PyArray_DATA(result), cnp.PyArray_NBYTES(result))
        if failed != NULL:
            return failed
    return NULL


cdef cnp.ndarray array_of(void *value):
    """A tensor of ONNX Runtime's as an array over its memory."""
    cdef void *shape = NULL
    cdef void *data
    cdef size_t count = 0
    cdef int type = 0
    cdef int64_t dimensions[MOST_DIMENSIONS]
    cdef cnp.npy_intp sizes[MOST_DIMENSIONS]
    (<shape_of>api[SHAPE_OF])(value, &shape)
    (<count_of>api[COUNT_DIMENSIONS])(shape, &count)
    (<type_of>api[TYPE_OF])(shape, &type)
    if count <= MOST_DIMENSIONS:
        (<get_dimensions>api[GET_DIMENSIONS])(shape, dimensions, count)
    (<release>api[RELEASE_SHAPE])(shape)
    if count > MOST_DIMENSIONS or type not in (FLOAT, DOUBLE, INT32):
        raise TypeError(f"input: expected float32, float64 or int32 in at most 8 dimensions, got type {type}")
    (<data_of>api[DATA_OF])(value, &data)
    for axis in range(count):
        sizes[axis] = dimensions[axis]
    typenum = cnp.NPY_FLOAT32 if type == FLOAT else cnp.NPY_FLOAT64 if type == DOUBLE else cnp.NPY_INT32
    return cnp.PyArray_SimpleNewFromData(count, sizes, typenum, data)


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
