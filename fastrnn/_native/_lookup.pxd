"""Vectors that a layer looks up in a table; see _lookup.pyx."""

cimport numpy as cnp
from fastrnn._native._sequence cimport SequenceCall

cdef cnp.ndarray project_table(SequenceCall *call, int typenum, cnp.ndarray table)
cdef object gradients_of_table(SequenceCall *call, tuple lookup, cnp.ndarray dweight_ih, bint wants_dx)
