"""Weights of a layer that stay packed, and whether they may have changed.

Design: to write to a weight somebody must hold its array, or a dict that has it, or a view, all of which are references
that Python counts. So as long as nobody has asked the layer for its parameters since the last look (`reads`), and nobody
else holds the dict or an array of it now, nothing can have changed: 20 ns, and exact. Otherwise a checksum over all weights
decides (checksum.c: 2 MB in 27 us, where packing takes 60). A write through a bare address, with no reference held, is the
one way past this; `release` is for that.
"""

cimport numpy as cnp
from fastrnn._native._runtime cimport checksum_of
from libc.stdint cimport uint64_t

cnp.import_array()

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED /* where every thread counts its own, nobody knows the sum */
    #define fr_references(object) ((Py_ssize_t)1 << 30)
    #else
    #define fr_references(object) Py_REFCNT((PyObject *)(object))
    #endif
    #define fr_entry(tuple, index) ((void *)PyTuple_GET_ITEM(tuple, index))
    """
    Py_ssize_t fr_references(void *)
    void *fr_entry(object, Py_ssize_t)


cdef class Watched:
    """Weights by name in `params`, which counts its `reads`, and what they are packed as.

    names: for each part a dict from the names of the functional core to those in `params`.
    """

    def __init__(self, params, list names):
        self.params, self.names, self.packed = params, names, []

    cdef bint read(self, tuple arrays) except -1:
        """Sizes and weights from `arrays`, those of all names in their order; whether all are as the layer made them."""
        raise NotImplementedError

    cdef int pack_now(self) except -1:
        """Pack the weights as they were read."""
        raise NotImplementedError

    cdef int _look(self) except -1:
        """Find out whether the weights are those that were packed; if not, forget what was packed."""
        if self.frozen or (self.alone and <Py_ssize_t>self.params.reads == self.reads):
            return 0
        cdef Py_ssize_t reads = self.params.reads, version = self.params.version
        cdef tuple arrays = tuple([dict.get(self.params, names[kind]) for names in self.names for kind in names])
        cdef uint64_t sum
        cdef bint same = self.arrays is not None
        for a, b in zip(arrays, self.arrays or ()):
            same = same and a is b
        if not same:
            self.arrays, self.packed, self.usable, self.summed = arrays, [], False, False
            self.usable = self.read(arrays)
        if self.usable:
            if not same or version != self.version:  # an optimiser was here: no need to ask
                self.packed, self.summed = [], False
            elif self.packed:
                sum = self._sum(arrays)
                if not self.summed or sum != self.checksum:
                    self.packed = []
                self.checksum, self.summed = sum, True
        a = b = arrays = None  # no references of our own
        self.reads, self.version, self.alone = reads, version, self._is_alone()
        return 0

    cdef bint _is_alone(self):
        """Whether only the layer and this object refer to the parameters, and they to memory of their own."""
        cdef int i
        if not self.usable or fr_references(<void *>self.params) > 2:
            return False
        for i in range(len(self.arrays)):
            if self.arrays[i] is not None and (fr_references(fr_entry(self.arrays, i)) > 2
                                               or cnp.PyArray_BASE(<cnp.ndarray>fr_entry(self.arrays, i)) != NULL):
                return False
        return True

    cdef uint64_t _sum(self, tuple arrays):
        cdef uint64_t sum = 0
        cdef size_t bytes
        cdef const void *data
        for a in arrays:
            if a is not None:
                data, bytes = cnp.PyArray_DATA(<cnp.ndarray>a), cnp.PyArray_NBYTES(<cnp.ndarray>a)
                with nogil:
                    sum = checksum_of(data, bytes, sum)
        return sum

    def freeze(self, bint frozen):
        """While frozen, weights are taken for unchanged: their arrays are read-only meanwhile."""
        self.frozen = False
        if frozen:
            self._look()
            if self.usable:
                self.pack_now()
        self.frozen = frozen

    def forget(self):
        """Let go of what is packed, and of the weights: the next look reads them anew."""
        self.packed, self.arrays, self.frozen, self.alone = [], None, False, False

    @property
    def trusts(self):
        """Whether the next call takes the weights for unchanged without a checksum."""
        return self.frozen or (self.alone and self.params.reads == self.reads)
