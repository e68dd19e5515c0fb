"""Arrays that come in, checked; arrays that results go to."""

cimport numpy as cnp
from fastrnn._validate import check_plain
from fastrnn._native.kernels cimport fr_series
from libc.string cimport memcpy

cnp.import_array()


cdef str shape_of(object a):
    return str(a.shape) if isinstance(a, cnp.ndarray) else type(a).__name__


cdef int real_type(object a, str name) except -1:
    """The type number of an array of float32 or float64."""
    if not isinstance(a, cnp.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(a).__name__}")
    cdef int typenum = cnp.PyArray_TYPE(<cnp.ndarray>a)
    if typenum != cnp.NPY_FLOAT32 and typenum != cnp.NPY_FLOAT64:
        raise TypeError(f"{name}: expected float32 or float64, got {a.dtype}")
    return typenum


cdef cnp.ndarray as_array(object a, str name, int typenum):
    """`a` as an aligned array of the right dtype; any strides."""
    if not isinstance(a, cnp.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(a).__name__}")
    if not cnp.PyArray_CheckExact(a):
        check_plain(name, a)
    cdef cnp.ndarray array = <cnp.ndarray>a
    if cnp.PyArray_TYPE(array) != typenum:
        wanted = {cnp.NPY_FLOAT32: "float32 like weight_ih", cnp.NPY_INT8: "int8"}.get(typenum, "float64 like weight_ih")
        real = array.dtype.kind in "fiub" and typenum != cnp.NPY_INT8
        hint = f"; .astype(np.{wanted.partition(' ')[0]}) converts" if real else ""
        raise TypeError(f"{name}: expected {wanted}, got {array.dtype}{hint}")
    if not cnp.PyArray_ISBEHAVED_RO(array):
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    return array


cdef int expect_shape(cnp.ndarray a, str name, str letters, int ndim, long d0, long d1, long d2) except -1:
    """The shape of `a`, -1 standing for any size of at least 1 (0 for the first of three)."""
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(a)
    if cnp.PyArray_NDIM(a) == ndim and (shape[0] == d0 or d0 < 0 and (shape[0] > 0 or ndim == 3)) and (
            ndim < 2 or d1 < 0 or shape[1] == d1) and (ndim < 3 or d2 < 0 or shape[2] == d2):
        return 0
    wanted = [letter if size < 0 else size for letter, size in zip(letters, (d0, d1, d2))]
    raise ValueError(f"{name}: expected shape ({', '.join(map(str, wanted))}{',' if ndim == 1 else ''})"
                     f" = ({', '.join(letters[:ndim])}{',' if ndim == 1 else ''}), got {shape_of(a)}")


cdef bint is_plain(a, int typenum, int ndim, long d0, long d1) noexcept:
    """Whether `a` is an array of this shape that the kernels can read as it is."""
    cdef cnp.ndarray array
    if not cnp.PyArray_CheckExact(a):
        return False
    array = <cnp.ndarray>a
    return cnp.PyArray_TYPE(array) == typenum and cnp.PyArray_NDIM(array) == ndim and cnp.PyArray_ISCARRAY_RO(array) and (
        cnp.PyArray_DIM(array, 0) == d0 and (ndim == 1 or cnp.PyArray_DIM(array, 1) == d1))


cdef cnp.ndarray dense(object a, str name, int typenum, str letters, int ndim, long d0, long d1):
    """A checked, C-contiguous array."""
    cdef cnp.ndarray array = as_array(a, name, typenum)
    expect_shape(array, name, letters, ndim, d0, d1, -1)
    return array if cnp.PyArray_IS_C_CONTIGUOUS(array) else array.copy()


cdef void *hold(list held, object a, str name, int typenum, str letters, int ndim, long d0, long d1) except? NULL:
    """Where the elements of a dense array are, NULL for None; `held` keeps them alive."""
    if a is None:
        return NULL
    cdef cnp.ndarray array = dense(a, name, typenum, letters, ndim, d0, d1)
    held.append(array)
    return cnp.PyArray_DATA(array)


cdef bint has_even_rows(cnp.ndarray a) noexcept:
    """Whether the last axis is contiguous and the others stride by whole elements."""
    cdef int itemsize = cnp.PyArray_ITEMSIZE(a)
    return cnp.PyArray_SIZE(a) == 0 or (  # NumPy gives empty arrays strides of 0
        (cnp.PyArray_STRIDE(a, 2) == itemsize or cnp.PyArray_DIM(a, 2) == 1)
        and cnp.PyArray_STRIDE(a, 0) % itemsize == 0 and cnp.PyArray_STRIDE(a, 1) % itemsize == 0)


cdef fr_series series_of(cnp.ndarray a) noexcept:
    cdef fr_series s
    s.data = cnp.PyArray_DATA(a)
    s.step = cnp.PyArray_STRIDE(a, 0) // cnp.PyArray_ITEMSIZE(a)
    s.row = cnp.PyArray_STRIDE(a, 1) // cnp.PyArray_ITEMSIZE(a)
    return s


cdef cnp.ndarray read_series(object a, str name, int typenum, str letters, long T, long N, long width):
    cdef cnp.ndarray array = as_array(a, name, typenum)
    expect_shape(array, name, letters, 3, T, N, width)
    return array if has_even_rows(array) else array.copy()


cdef cnp.ndarray written_series(object a, str name, int typenum, str letters, long T, long N, long width):
    cdef cnp.ndarray array = as_array(a, name, typenum)
    expect_shape(array, name, letters, 3, T, N, width)
    check_written(array, a, name)
    if not has_even_rows(array):
        raise ValueError(f"{name}: expected an array whose last axis is contiguous, got strides {a.strides}")
    return array


cdef int check_written(cnp.ndarray checked, object given, str name) except -1:
    """What results go into must be the caller's own array: no copy of it would do."""
    if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>given):
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    if not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>given):
        raise ValueError(f"{name}: expected an aligned array in native byte order, got {given.dtype!r}")
    if checked is not given and cnp.PyArray_NDIM(checked) < 3:
        raise ValueError(f"{name}: expected a C-contiguous array, got strides {given.strides}")
    return 0


cdef cnp.ndarray new_array(int typenum, long d0, long d1, long d2, bint zeros):
    """A new (d0, d1, d2), (d0, d1) or (d0,) array; sizes after the last are -1."""
    cdef cnp.npy_intp shape[3]
    shape[0], shape[1], shape[2] = d0, d1, d2
    cdef int ndim = 1 if d1 < 0 else 2 if d2 < 0 else 3
    return cnp.PyArray_ZEROS(ndim, shape, typenum, 0) if zeros else cnp.PyArray_EMPTY(ndim, shape, typenum, 0)


cdef cnp.ndarray new_like(cnp.ndarray a, long width):
    """A new array of the type and the shape of `a`, with another last axis."""
    cdef cnp.npy_intp shape[32]
    cdef int ndim = cnp.PyArray_NDIM(a)
    memcpy(shape, cnp.PyArray_DIMS(a), ndim * sizeof(cnp.npy_intp))
    shape[ndim - 1] = width
    return cnp.PyArray_EMPTY(ndim, shape, cnp.PyArray_TYPE(a), 0)


cdef cnp.ndarray gradient(object into, str name, int typenum, str letters, int ndim, long d0, long d1):
    given = into.get(name) if into is not None else None
    if given is None:
        return new_array(typenum, d0, d1, -1, True)
    if is_plain(given, typenum, ndim, d0, d1) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>given):
        return given  # nearly always; the names of the checks below take as long as the rest of them
    cdef cnp.ndarray array = dense(given, f"into[{name!r}]", typenum, letters, ndim, d0, d1)
    check_written(array, given, f"into[{name!r}]")
    return array


cdef int check_names(object into, object names) except -1:
    for name in into or ():
        if name not in names:
            raise ValueError(f"into: expected keys among {', '.join(names)}, got {name!r}")
    return 0


cdef long hidden_size(object weight_ih, long rows, object x) except -1:
    cdef cnp.ndarray w = <cnp.ndarray>weight_ih
    if cnp.PyArray_NDIM(w) == 2 and cnp.PyArray_DIM(w, 0) > 0 and cnp.PyArray_DIM(w, 0) % rows == 0 and (
            cnp.PyArray_DIM(w, 1) > 0 or (isinstance(x, cnp.ndarray) and x.ndim > 0 and x.shape[x.ndim - 1] == 0)):
        return cnp.PyArray_DIM(w, 0) // rows
    raise ValueError(f"weight_ih: expected shape ({'' if rows == 1 else f'{rows}*'}H, D), got {shape_of(w)}")
