"""The weights of a layer over trees, packed once for all calls without training. Letters as in _tree.pyx.

Design: as in _stack.pyx, what is packed is never written again. A call that finds none packs into memory of its own, as a
part of its work, and hands that in: two threads that come upon new weights at once both pack.
"""

cimport numpy as cnp
from fastrnn._native._runtime cimport Rooms, Workspace, allot, build_for, reserve
from fastrnn._native._sequence cimport CompiledCell
from fastrnn._native._watched cimport Watched
from fastrnn._native.kernels cimport *
from libc.string cimport memset

cnp.import_array()


cdef class PackedTree:
    """Packed weights for one build of the kernels; constant once `ready`."""


cdef class TreeStack(Watched):
    """The weights of a TreeRNN or TreeLSTM by name in `params`, which counts its `reads`.

    names: from weight_ih, weight_hh and, if there is one, bias, in this order, to those in `params`. children: of the N-ary
    forms, else 0. cell: what a CellSpec has as `compiled`.
    """

    def __init__(self, params, dict names, long children, CompiledCell cell not None):
        Watched.__init__(self, params, [names])
        self.children, self.lstm = children, cell.cell == FR_LSTM

    cdef bint read(self, tuple arrays) except -1:
        if not cnp.PyArray_Check(arrays[0]):
            return False
        self.typenum = cnp.PyArray_TYPE(<cnp.ndarray>arrays[0])
        if self.typenum != cnp.NPY_FLOAT32 and self.typenum != cnp.NPY_FLOAT64:
            return False
        for index, a in enumerate(arrays):
            if not cnp.PyArray_CheckExact(a) or cnp.PyArray_TYPE(<cnp.ndarray>a) != self.typenum or (
                    not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>a)) or cnp.PyArray_NDIM(<cnp.ndarray>a) != (2 if index < 2 else 1):
                return False
        return True

    cdef int pack_now(self) except -1:
        cdef fr_trees t
        cdef fr_partition share
        memset(&t, 0, sizeof(t))
        memset(&share, 0, sizeof(share))
        share.count = 1
        cdef cnp.ndarray weight_ih = self.arrays[0], weight_hh = self.arrays[1]
        t.lstm, t.children, t.H, t.D = self.lstm, self.children, 0, cnp.PyArray_DIM(weight_ih, 1)
        t.H = cnp.PyArray_DIM(weight_ih, 0) // weight_rows(&t, False)
        if t.H < 1 or cnp.PyArray_DIM(weight_ih, 0) != t.H * weight_rows(&t, False) or (
                cnp.PyArray_DIM(weight_hh, 0) != t.H * weight_rows(&t, True)) or cnp.PyArray_DIM(weight_hh, 1) != operand_width(&t):
            return 0  # a call refuses them
        t.weight_ih, t.weight_hh = cnp.PyArray_DATA(weight_ih), cnp.PyArray_DATA(weight_hh)
        if len(self.arrays) > 2:
            if cnp.PyArray_DIM(<cnp.ndarray>self.arrays[2], 0) != t.H * weight_rows(&t, False):
                return 0
            t.bias = cnp.PyArray_DATA(<cnp.ndarray>self.arrays[2])
        cdef const fr_tree_kernels *k = build_for(4 if self.typenum == cnp.NPY_FLOAT32 else 8).tree
        cdef PackedTree packed = self._find(&t, k)
        if not packed.ready:
            point_to(&t, packed)
            k.pack_forward(&t, share)
            packed.ready = True
        return 0

    def look(self):
        """Find out whether the weights have changed; False where they cannot be kept packed. The caller asks before it
        reaches for the weights: that alone would be a reason to look at them again."""
        self._look()
        return self.usable

    cdef PackedTree packed_for(self, const fr_trees *t, const fr_tree_kernels *k):
        if not self.usable or t.weight_ih != cnp.PyArray_DATA(<cnp.ndarray>self.arrays[0]) or (
                t.weight_hh != cnp.PyArray_DATA(<cnp.ndarray>self.arrays[1])):
            return None
        return self._find(t, k)

    cdef PackedTree _find(self, const fr_trees *t, const fr_tree_kernels *k):
        cdef PackedTree packed
        for packed in self.packed:
            if packed.ready and packed.kernels == k and packed.like.H == t.H and packed.like.D == t.D:
                return packed
        packed = PackedTree.__new__(PackedTree)
        packed.kernels, packed.like = k, t[0]
        packed.memory = make_panels(&packed.like, k)
        # Others that are ready for these kernels were of other sizes.
        self.packed = [*[other for other in self.packed if (<PackedTree>other).kernels != k], packed]
        self.generation += 1
        return packed


cdef void point_to(fr_trees *t, PackedTree packed) noexcept:
    t.panels_x, t.panels_h, t.panels_f = packed.like.panels_x, packed.like.panels_h, packed.like.panels_f
    t.packed_bias = packed.like.packed_bias


cdef long weight_rows(const fr_trees *t, bint of_weight_hh) noexcept nogil:
    return 1 if not t.lstm else 3 + max(t.children, 1) if of_weight_hh else 4


cdef long operand_width(const fr_trees *t) noexcept nogil:
    return max(t.children, 1) * t.H


cdef Workspace make_panels(fr_trees *t, const fr_tree_kernels *k):
    cdef long Hp = k.padded(t.H), G = weight_rows(t, False)
    cdef Rooms rooms
    memset(&rooms, 0, sizeof(rooms))
    reserve(&rooms, &t.panels_x, G * Hp * t.D, k.itemsize)
    reserve(&rooms, &t.panels_h, weight_rows(t, True) * Hp * operand_width(t), k.itemsize)
    reserve(&rooms, &t.panels_f, Hp * t.H, k.itemsize)
    reserve(&rooms, &t.packed_bias, G * Hp, k.itemsize)
    return allot(&rooms)
