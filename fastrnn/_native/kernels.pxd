# The types and numbers of the C side; each name is explained in its header. The functions are reached through `_runtime`,
# the one module that they are linked into: a second copy would have threads and memory of its own.

from libc.stdint cimport int64_t

cdef extern from "build.h" nogil:
    enum: FR_LSTM, FR_GRU_RESET_BEFORE  # the others are known by their names alone
    enum: FR_TANH, FR_RELU, FR_SIGMOID, FR_IDENTITY, FR_HARD_SIGMOID, FR_HARD_SIGMOID_6, FR_SOFTMAX

    ctypedef struct fr_cell_options:
        int activation, gate_activation, output_activation, generic
        double clip

    ctypedef struct fr_watch:  # work.h
        int *stopped
        int caller
        double spent

    ctypedef struct fr_partition:
        int id, count, by_units, worker
        void **pointers
    enum: FR_POINTERS

    # ---- Sequences ----

    ctypedef struct fr_series:
        void *data
        long step, row

    ctypedef struct fr_carried:
        long time, row, late
        long source "from"

    ctypedef struct fr_rows:
        const long *order
        const long *lengths
        const long *active
        const long *packed
        const unsigned char *reset_mask
        long reset_step, reset_row
        int reverse
        const long *times
        const long *late
        const long *ends
        const fr_carried *carried
        long carried_count, late_count

    enum: FR_FUSED, FR_SEQUENTIAL, FR_AHEAD

    ctypedef struct fr_sequence_arguments:
        fr_series x, output
        const int64_t *tokens
        const void *projected
        const void *h0
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *weight_hr
        const void *bias_hr
        const void *weight_peephole
        const void *scale_ih
        const void *scale_hh
        const void *scale_hr
        const void *recurrent_mask
        fr_series zoneout_h, zoneout_c
        fr_series doutput
        const void *dh_n
        fr_series dx
        int dx_add
        void *dh0
        void *dweight_ih
        void *dweight_hh
        void *dbias_ih
        void *dbias_hh
        void *dweight_hr
        void *dbias_hr
        void *dweight_peephole

    ctypedef struct fr_sequence_workspace:
        void *bias
        void *zeros
        void *gates
        void *c
        void *inner
        void *dropped
        void *h_made
        void *c_made

    ctypedef struct fr_sequence_scratch:
        void *panels
        void *inputs
        long inputs_start
        void *operands
        void *dstate
        void *dprojected
        void *panels_h
        void *panels_x
        void *gradients
        void *dkept
        void *dlate

    ctypedef struct fr_sequence:
        long T, N, D, H, P
        int cell
        fr_cell_options options
        int input_projection, as_one_row, training
        fr_rows rows
        fr_sequence_arguments args
        fr_sequence_workspace workspace
        fr_sequence_scratch scratch
        fr_watch *watch

    ctypedef struct fr_sequence_kernels:
        int lanes, itemsize
        long projects_ahead
        long (*row_blocks)(long n) noexcept nogil
        long (*padded)(long width) noexcept nogil
        const char *(*cell_name)(int cell) noexcept nogil
        int (*gates)(int cell) noexcept nogil
        int (*passes)(const fr_sequence *) noexcept nogil
        int (*has_inner)(const fr_sequence *) noexcept nogil
        long (*gates_row)(const fr_sequence *) noexcept nogil
        long (*panels_size)(const fr_sequence *) noexcept nogil
        long (*bias_size)(const fr_sequence *) noexcept nogil
        long (*inputs_row)(const fr_sequence *) noexcept nogil
        long (*operands_size)(const fr_sequence *, int backward) noexcept nogil
        long (*panels_h_size)(const fr_sequence *) noexcept nogil
        long (*panels_x_size)(const fr_sequence *) noexcept nogil
        long (*gradients_size)(const fr_sequence *, int threads) noexcept nogil
        long (*chunk_start)(const fr_sequence *, fr_partition, long chunk, long chunks) noexcept nogil
        void (*pack_forward)(const fr_sequence *, fr_partition) noexcept nogil
        void (*project)(const fr_sequence *, long s_begin, long s_end, fr_partition) noexcept nogil
        void (*project_table)(const fr_sequence *, void *projected, const void *table, long V) noexcept nogil
        void (*step_forward)(const fr_sequence *, int step_pass, long s, fr_partition) noexcept nogil
        void (*steps_forward)(const fr_sequence *, long begin, long end, fr_partition) noexcept nogil
        void (*pack_backward)(const fr_sequence *, fr_partition) noexcept nogil
        void (*step_backward)(const fr_sequence *, int step_pass, long s, fr_partition) noexcept nogil
        void (*steps_backward)(const fr_sequence *, long begin, long end, fr_partition) noexcept nogil
        void (*grad_state)(const fr_sequence *, fr_partition) noexcept nogil
        void (*grad_input)(const fr_sequence *, fr_partition) noexcept nogil
        void (*grad_weights)(const fr_sequence *, fr_partition) noexcept nogil
        void (*pack_state)(const fr_sequence *, void *padded, const void *plain) noexcept nogil
        void (*unpack_state)(const fr_sequence *, void *plain, const void *padded) noexcept nogil
        void (*last_states)(const fr_sequence *, void *h_n, void *c_n) noexcept nogil
        void (*carry_outputs)(const fr_sequence *) noexcept nogil
        void (*gather_late)(const fr_sequence *) noexcept nogil

    long fr_active(const fr_sequence *, long s)
    long fr_packed(const fr_sequence *, long s)

    # ---- Trees ----

    enum: FR_TREE_FEW
    ctypedef struct fr_trees:
        long nodes, leaves, inputs, D, H, children
        int lstm, activation
        const long *level
        const long *order
        const long *parent
        const long *position
        const long *first_child
        const long *child
        long projected
        const void *x
        const void *weight_ih
        const void *weight_hh
        const void *bias
        void *output
        void *c_root
        const void *doutput
        const void *dh_root
        const void *dc_root
        void *dx
        void *dweight_ih
        void *dweight_hh
        void *dbias
        void *slots
        void *h
        void *c
        void *x_ordered
        void *operand
        void *panels_x
        void *panels_h
        void *panels_f
        void *packed_bias
        void *dh
        void *dc
        void *doperand
        void *gradients
        void *dkept
        void *dlate
        fr_watch *watch

    ctypedef struct fr_tree_kernels:
        int lanes, itemsize
        long (*row_blocks)(long n) noexcept nogil
        long (*padded)(long width) noexcept nogil
        long (*gradients_size)(const fr_trees *, int threads) noexcept nogil
        void (*pack_forward)(const fr_trees *, fr_partition) noexcept nogil
        void (*project)(const fr_trees *, long begin, long end, fr_partition) noexcept nogil
        void (*forward)(const fr_trees *, long level, int phase, fr_partition) noexcept nogil
        void (*pack_backward)(const fr_trees *, fr_partition) noexcept nogil
        void (*backward)(const fr_trees *, long level, int phase, fr_partition) noexcept nogil
        void (*grad_input)(const fr_trees *, fr_partition) noexcept nogil
        void (*grad_weights)(const fr_trees *, fr_partition) noexcept nogil

    # ---- Optimisers and losses ----

    enum: FR_SGD, FR_RMSPROP, FR_ADAGRAD, FR_ADAM
    ctypedef struct fr_update:
        int rule, nesterov
        double scale, limit, l2_weight_decay, decoupled_weight_decay, rate, momentum, decay, decay_squares, eps

    ctypedef struct fr_update_kernels:
        int itemsize
        void (*update)(const fr_update *, void *param, const void *grad, void *slot0, void *slot1, long count) noexcept nogil
        double (*sum_of_squares)(const void *grad, long count) noexcept nogil
        void (*clip)(void *grad, long count, double scale, double limit) noexcept nogil

    ctypedef struct fr_classes:
        const int64_t *classes
        int64_t ignored
        double share
        const double *row_weights
        const void *class_weights
        double class_total, smoothing, kept

    enum: FR_CTC_PAD, FR_CTC_LANES
    ctypedef struct fr_ctc:
        long T, M, U
        const void *logits
        void *dlogits
        long step, dstep
        const int64_t *labels
        int64_t blank
        double share
        int zero_infinity
        long stride
        double *scores
        double *alpha
        double *beta
        const double *skips
        double offset, loss

    ctypedef struct fr_loss_kernels:
        int itemsize
        void (*cross_entropy)(const void *logits, const fr_classes *, long first, long rows, long M, void *losses,
                              void *dlogits) noexcept nogil
        void (*ctc_scores)(fr_ctc *) noexcept nogil
        void (*ctc_paths)(fr_ctc *) noexcept nogil
        void (*ctc_gradient)(const fr_ctc *) noexcept nogil

    # ---- Words, see words.pxd ----

    ctypedef struct fr_words_kernels:
        pass

    # ---- Builds ----

    ctypedef struct fr_build:
        const fr_sequence_kernels *sequence
        const fr_tree_kernels *tree
        const fr_update_kernels *update
        const fr_loss_kernels *loss
        const fr_words_kernels *words

cdef extern from "pool.h" nogil:
    enum: FR_MAX_THREADS

cdef extern from "work.h" nogil:
    enum: FR_MAX_PARTITIONS
    ctypedef struct fr_work:
        long phases, barrier_until, barrier_at
        int partitions, stopped
    ctypedef struct fr_task:
        long phase
        int partition
        fr_watch *watch
    enum: FR_LOOK_AFTER, FR_LEAST_COST
