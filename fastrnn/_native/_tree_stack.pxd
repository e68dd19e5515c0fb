from fastrnn._native._runtime cimport Workspace
from fastrnn._native._watched cimport Watched
from fastrnn._native.kernels cimport *


cdef class PackedTree:
    cdef Workspace memory
    cdef const fr_tree_kernels *kernels
    cdef fr_trees like  # its sizes and panels
    cdef bint ready


cdef class TreeStack(Watched):
    cdef bint lstm
    cdef long children
    cdef int typenum

    # The packed weights for a call of these sizes and weights, or where it is to pack them; None where it keeps none.
    cdef PackedTree packed_for(self, const fr_trees *t, const fr_tree_kernels *k)
    cdef PackedTree _find(self, const fr_trees *t, const fr_tree_kernels *k)


cdef void point_to(fr_trees *t, PackedTree packed) noexcept  # let `t` use these panels
# Room for the panels of a forward pass, where `t` then points.
cdef Workspace make_panels(fr_trees *t, const fr_tree_kernels *k)
cdef long weight_rows(const fr_trees *t, bint of_weight_hh) noexcept nogil  # in multiples of H
cdef long operand_width(const fr_trees *t) noexcept nogil
