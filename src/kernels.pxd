# What the C side offers; each name is explained in its header.

from libc.stdint cimport int64_t

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

    ctypedef struct fr_share:
        int id, threads, by_units

    enum: FR_SGD, FR_RMSPROP, FR_ADAGRAD, FR_ADAM
    ctypedef struct fr_update:
        int rule, nesterov
        double scale, limit, couple, shrink, rate, momentum, decay, decay_squares, eps

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
        void (*update)(const fr_update *, void *param, const void *grad, void *slot0, void *slot1, long count) noexcept nogil
        double (*sum_of_squares)(const void *grad, long count) noexcept nogil
        void (*clip)(void *grad, long count, double scale, double limit) noexcept nogil
        void (*cross_entropy)(const void *logits, const int64_t *classes, long rows, long M, int64_t ignored, double share,
                              void *losses, void *dlogits) noexcept nogil

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
