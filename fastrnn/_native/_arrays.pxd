"""Checks of arrays. `letters` name the sizes in errors, a letter each; -1 stands for any size."""

cimport numpy as cnp
from fastrnn._native.kernels cimport fr_series

# ---- Arrays that are read ----

cdef str shape_of(object a)
cdef int real_type(object a, str name) except -1
cdef cnp.ndarray as_array(object a, str name, int typenum)
cdef int expect_shape(cnp.ndarray a, str name, str letters, int ndim, long d0, long d1, long d2) except -1
cdef bint is_plain(a, int typenum, int ndim, long d0, long d1) noexcept
cdef cnp.ndarray dense(object a, str name, int typenum, str letters, int ndim, long d0, long d1)
cdef void *hold(list held, object a, str name, int typenum, str letters, int ndim, long d0, long d1) except? NULL
cdef cnp.ndarray read_series(object a, str name, int typenum, str letters, long T, long N, long width)
cdef fr_series series_of(cnp.ndarray a) noexcept
# H of weight_ih (rows * H, D), an array; D may be 0 where x has no features.
cdef long hidden_size(object weight_ih, long rows, object x) except -1

# ---- Arrays that are written ----

cdef cnp.ndarray new_array(int typenum, long d0, long d1, long d2, bint zeros)
cdef cnp.ndarray new_like(cnp.ndarray a, long width)  # (..., width); `a` has at most 32 axes
cdef cnp.ndarray written_series(object a, str name, int typenum, str letters, long T, long N, long width)
# The array that a gradient is added to: the caller's, from the dict `into`, or a new one of zeros.
cdef cnp.ndarray gradient(object into, str name, int typenum, str letters, int ndim, long d0, long d1)
cdef int check_names(object into, object names) except -1


cdef inline void *data_of(cnp.ndarray a) noexcept:
    return NULL if a is None else cnp.PyArray_DATA(a)
