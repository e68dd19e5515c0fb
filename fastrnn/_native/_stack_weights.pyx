"""The weights of a Stack, as the kernels read them. Letters as in _stack.pyx."""

cimport numpy as cnp
from fastrnn._native._runtime cimport build_for
from fastrnn._native.kernels cimport *
from libc.string cimport memset

cnp.import_array()

cdef enum: IH, HH, BIAS_IH, BIAS_HH, HR, BIAS_HR, PEEPHOLE, SCALE_IH, SCALE_HH, SCALE_HR, KINDS
cdef tuple KIND_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "bias_hr", "weight_peephole",
                         "scale_ih", "scale_hh", "scale_hr")

cdef struct Found:  # by kind
    void *data[KINDS]
    long rows[KINDS]
    long columns[KINDS]


cdef bint read_layers(fr_sequence *layers, list names, tuple arrays, int directions, int *typenum) except -1:
    cdef int index
    cdef Py_ssize_t at = 0
    cdef Found found
    cdef bint is_int8 = "scale_ih" in names[0]  # then all matrices are, and have scales
    first = arrays[list(names[0]).index("scale_ih")] if is_int8 else arrays[0]
    if not cnp.PyArray_Check(first):
        return False
    typenum[0] = cnp.PyArray_TYPE(<cnp.ndarray>first)
    if typenum[0] != cnp.NPY_FLOAT32 and (is_int8 or typenum[0] != cnp.NPY_FLOAT64):
        return False
    for index in range(len(names)):
        if not find_arrays(&found, names[index], arrays[at:at + len(names[index])], typenum[0], is_int8):
            return False
        at += len(names[index])
        if not read_layer(&layers[index], &found, is_int8) or layers[index].H != layers[0].H or layers[index].P != layers[0].P:
            return False
        if layers[index].D != (layers[0].D if index < directions else directions * layers[index].P):
            return False
    return True


cdef bint have_same(const fr_sequence_arguments *a, const fr_sequence_arguments *b) noexcept:
    """Whether the same weights are there."""
    return (a.weight_hh == NULL) == (b.weight_hh == NULL) and (a.weight_hr == NULL) == (b.weight_hr == NULL) and (
        (a.bias_ih == NULL) == (b.bias_ih == NULL)) and (a.bias_hh == NULL) == (b.bias_hh == NULL) and (
        (a.weight_peephole == NULL) == (b.weight_peephole == NULL))


cdef bint read_gradients(fr_sequence *q, dict names, dict gradients, int typenum, list added) except -1:
    cdef Found found
    cdef fr_sequence like = q[0]
    cdef tuple arrays = tuple([gradients.get(names[kind_name]) for kind_name in names])
    if not find_arrays(&found, names, arrays, typenum, False) or not read_layer(&like, &found, False):
        return False
    if like.D != q.D or like.H != q.H or like.P != q.P or not have_same(&like.args, &q.args):
        return False
    for a in arrays:
        if a is not None:
            if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>a):
                return False
            added.append(a)
    q.args.dweight_ih, q.args.dweight_hh, q.args.dweight_hr = found.data[IH], found.data[HH], found.data[HR]
    q.args.dbias_ih, q.args.dbias_hh, q.args.dbias_hr = found.data[BIAS_IH], found.data[BIAS_HH], found.data[BIAS_HR]
    q.args.dweight_peephole = found.data[PEEPHOLE]
    return True


cdef int kind_of(str name) except -1:
    """The kind of this name, which nearly always is the very object."""
    cdef int kind
    for kind in range(KINDS):
        if KIND_NAMES[kind] is name:
            return kind
    return KIND_NAMES.index(name)


cdef bint find_arrays(Found *found, dict names, tuple arrays, int typenum, bint is_int8) except -1:
    cdef int kind, index = 0
    cdef bint is_matrix
    cdef cnp.ndarray a
    memset(found, 0, sizeof(Found))
    for name in names:
        given = arrays[index]
        index += 1
        if given is None:
            continue
        if not cnp.PyArray_CheckExact(given):
            return False
        a, kind = <cnp.ndarray>given, kind_of(name)
        is_matrix = kind == IH or kind == HH or kind == HR
        if cnp.PyArray_TYPE(a) != (cnp.NPY_INT8 if is_matrix and is_int8 else typenum) or not cnp.PyArray_ISCARRAY_RO(a) or (
                cnp.PyArray_NDIM(a) != (2 if is_matrix else 1)):
            return False
        found.data[kind], found.rows[kind] = cnp.PyArray_DATA(a), cnp.PyArray_DIM(a, 0)
        found.columns[kind] = cnp.PyArray_DIM(a, 1) if is_matrix else 0
    return True


cdef bint is_vector(const Found *found, int kind, long rows, bint needed) noexcept:
    """Whether there is one of so many numbers; or none, where that is no need."""
    return found.rows[kind] == rows if found.data[kind] != NULL else not needed


cdef bint read_layer(fr_sequence *q, const Found *found, bint is_int8) noexcept:
    cdef int gates = build_for(4).sequence.gates(q.cell)
    cdef long GH = found.rows[IH]
    if found.data[IH] == NULL or GH == 0 or GH % gates or found.columns[IH] == 0:
        return False
    q.H, q.D = GH // gates, found.columns[IH]
    q.P = found.rows[HR] if found.data[HR] != NULL else q.H
    if found.data[HH] != NULL and (found.rows[HH] != GH or found.columns[HH] != q.P):
        return False
    if found.data[HR] != NULL and found.columns[HR] != q.H:
        return False
    if not (is_vector(found, BIAS_IH, GH, False) and is_vector(found, BIAS_HH, GH, False) and is_vector(found, BIAS_HR, q.P, False)
            and is_vector(found, PEEPHOLE, 3 * q.H, False) and is_vector(found, SCALE_IH, GH, is_int8)
            and is_vector(found, SCALE_HH, GH, is_int8 and found.data[HH] != NULL)
            and is_vector(found, SCALE_HR, q.P, is_int8 and found.data[HR] != NULL)):
        return False
    q.args.weight_ih, q.args.weight_hh, q.args.weight_hr = found.data[IH], found.data[HH], found.data[HR]
    q.args.bias_ih, q.args.bias_hh, q.args.bias_hr = found.data[BIAS_IH], found.data[BIAS_HH], found.data[BIAS_HR]
    q.args.weight_peephole = found.data[PEEPHOLE]
    q.args.scale_ih, q.args.scale_hh, q.args.scale_hr = found.data[SCALE_IH], found.data[SCALE_HH], found.data[SCALE_HR]
    return True
