"""One call of a layer over a sequence in one direction, as it is put together by `_rnn` and `_stream`."""

from fastrnn._native._plan cimport Pace, Plan
from fastrnn._native._runtime cimport Rooms
from fastrnn._native.kernels cimport *

cdef enum: NO_PHASE, STEPS, EVERY_PHASE

cdef struct SequenceCall:
    fr_sequence sequence
    const fr_sequence_kernels *kernels
    int threads, partitions, by_units, passes
    int packed  # the weights are in panels already
    long chunk  # steps of a task on rows; steps whose inputs are projected together
    int weight_partitions  # how many ways the gradients of weights are cut
    double step_cost  # multiply-adds of one partition's step
    long look_every  # steps between two looks for signals
    int may_stop  # a signal may stop NO_PHASE, the STEPS or EVERY_PHASE
    void **pointers  # FR_POINTERS * N for each thread
    fr_work work


cdef class CompiledCell:
    cdef readonly str family
    cdef int cell
    cdef fr_cell_options options
    cdef void start(self, SequenceCall *call)


cdef void clear_call(SequenceCall *call) noexcept nogil  # before anything else is known of it
# The steps of a call, in their order. read_weights: also sets D, H, P.
cdef int read_weights(fr_sequence *q, list held, int typenum, long G, x, weight_ih, weight_hh, bias_ih, bias_hh,
                      weight_hr, bias_hr, weight_peephole, scale_ih, scale_hh, scale_hr) except -1
cdef int type_of_weights(weight_ih, scale_ih) except -1  # of all that is no int8
cdef void plan_call(SequenceCall *call, bint forward, Pace pace=*) noexcept nogil
cdef void follow_plan(SequenceCall *call, const Plan *plan) noexcept nogil
cdef long projected_steps(const SequenceCall *call, long most) noexcept nogil
cdef void reserve_states(Rooms *rooms, SequenceCall *call, bint training, long rows) noexcept nogil
cdef void reserve_pointers(Rooms *rooms, SequenceCall *call) noexcept nogil
cdef void clear_zeros(SequenceCall *call) noexcept nogil
cdef fr_partition partition_of(const SequenceCall *call, int id, int count, int worker) noexcept nogil
cdef double whole_cost(const SequenceCall *call) noexcept nogil  # multiply-adds of all its steps, forward
cdef void run_forward(SequenceCall *call) noexcept nogil
cdef void run_backward(SequenceCall *call) noexcept nogil
