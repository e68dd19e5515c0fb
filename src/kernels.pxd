# What the C side offers; each name is explained in its header.

cdef extern from "fastrnn.h" nogil:
    enum: FR_LSTM, FR_GRU, FR_GRU_RESET_BEFORE, FR_RNN
    enum: FR_TANH, FR_RELU, FR_SIGMOID, FR_IDENTITY

    ctypedef struct fr_series:
        void *data
        long step, row

    ctypedef struct fr_sequence:
        long T, N, D, H
        int cell, activation, fused
        fr_series x, output
        const void *h0
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        void *panels
        void *bias
        void *inputs
        long inputs_start
        void *gates
        void *c
        void *reset
        long gates_step, c_step, reset_step
        fr_series doutput
        const void *dh_n
        fr_series dx
        int dx_add
        void *dh0
        void *dweight_ih
        void *dweight_hh
        void *dbias_ih
        void *dbias_hh
        void *carry
        void *panels_h
        void *panels_x
        void *scratch

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
        void *scratch

    ctypedef struct fr_share:
        int id, threads, by_units

    ctypedef struct fr_kernels:
        int lanes, itemsize
        int (*gates)(int cell) noexcept nogil
        int (*slots)(int cell) noexcept nogil
        int (*passes)(int cell) noexcept nogil
        long (*panels_size)(const fr_sequence *) noexcept nogil
        long (*padded)(const fr_sequence *) noexcept nogil
        long (*inputs_row)(const fr_sequence *) noexcept nogil
        long (*panels_h_size)(const fr_sequence *) noexcept nogil
        long (*panels_x_size)(const fr_sequence *) noexcept nogil
        long (*scratch_size)(const fr_sequence *, int threads) noexcept nogil
        void (*pack_forward)(const fr_sequence *, fr_share) noexcept nogil
        void (*project)(const fr_sequence *, long s_begin, long s_end, fr_share) noexcept nogil
        void (*step_forward)(const fr_sequence *, int step_pass, long s, fr_share) noexcept nogil
        void (*pack_backward)(const fr_sequence *, fr_share) noexcept nogil
        void (*step_backward)(const fr_sequence *, int step_pass, long s, fr_share) noexcept nogil
        void (*grad_state)(const fr_sequence *, fr_share) noexcept nogil
        void (*grad_input)(const fr_sequence *, long s_begin, long s_end, fr_share) noexcept nogil
        void (*grad_weights)(const fr_sequence *, long s_begin, long s_end, fr_share) noexcept nogil
        void (*pad)(void *padded, const void *plain, long rows, long width) noexcept nogil
        void (*unpad)(void *plain, const void *padded, long rows, long width) noexcept nogil
        void (*tree_pack_forward)(const fr_trees *, fr_share) noexcept nogil
        void (*tree_project)(const fr_trees *, long begin, long end, fr_share) noexcept nogil
        void (*tree_forward)(const fr_trees *, long level, int phase, fr_share) noexcept nogil
        void (*tree_pack_backward)(const fr_trees *, fr_share) noexcept nogil
        void (*tree_backward)(const fr_trees *, long level, int phase, fr_share) noexcept nogil
        void (*tree_grad_input)(const fr_trees *, fr_share) noexcept nogil
        void (*tree_grad_weights)(const fr_trees *, fr_share) noexcept nogil

    long fr_row_blocks(long n)
    int fr_isa_count()
    const char *fr_isa_name(int index)
    int fr_isa_supported(int index)
    const fr_kernels *fr_kernels_for(int index, int itemsize)

cdef extern from "pool.h" nogil:
    enum: FR_MAX_THREADS
    ctypedef struct fr_barrier:
        pass
    void fr_parallel(int threads, void (*body)(void *arg, int id, int threads) noexcept nogil, void *arg)
    void fr_barrier_wait(fr_barrier *, int threads)
    int fr_cpus()
    void fr_init()
    void *fr_acquire(size_t size)
    void fr_release(void *)
    size_t fr_kept_bytes()
