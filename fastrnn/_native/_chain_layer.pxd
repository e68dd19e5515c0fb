cimport numpy as cnp
from fastrnn._native._plan cimport Plan
from fastrnn._native._sequence cimport CompiledCell, SequenceCall
from fastrnn._native.kernels cimport *
from libc.stdint cimport int64_t

cdef struct ChainLayer:
    SequenceCall call
    Plan alone, shared  # of a single step: as a rule, and where short steps come one upon the other
    int threads         # that `pointers` has room for
    int projects_ahead  # blocks of steps have their inputs projected ahead, single steps in turn: the same sums
    int alone_projects_ahead  # the same of a batch of one row
    void *h     # (N, P) state of the step before, or NULL: a layer without state
    void *y     # (N, P) output of one step, for the next layer
    void *wide  # (T, N, P) the same for a block of steps

# weights: see Chain; `held` keeps alive what the layer leads to.
cdef int start_layer(ChainLayer *layer, long N, int typenum, CompiledCell cell, dict weights, list held) except -1
cdef void plan_block(ChainLayer *layer, long T) noexcept nogil  # of steps, until plan_step
cdef void plan_step(ChainLayer *layer, const Plan *plan) noexcept nogil
cdef int advance_rows(ChainLayer *layer, fr_series x, fr_series out, const int64_t *rows, long n) noexcept nogil
cdef tuple state_of_rows(const ChainLayer *layer, int typenum, const int64_t *rows, long n)  # (h,) or (h, c), copies
cdef void set_state_of_rows(ChainLayer *layer, cnp.ndarray h, cnp.ndarray c, const int64_t *rows, long n) noexcept
