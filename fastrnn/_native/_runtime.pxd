"""What the other compiled modules may ask of the C side; see _runtime.pyx."""

from fastrnn._native.kernels cimport *
from libc.stdint cimport uint64_t

# ---- Kernels ----

cdef const fr_build *build_for(int itemsize) noexcept nogil  # of the instruction set in use
cdef const fr_sequence_kernels *sequence_kernels(const fr_sequence *q, int itemsize) noexcept nogil  # of the precision too
cdef const fr_sequence_kernels *stream_kernels(const fr_sequence *q, int itemsize) noexcept nogil  # of single steps

# ---- Threads ----

ctypedef void (*thread_body)(void *arg, int id) noexcept nogil

cdef int max_threads() noexcept nogil  # of a call
cdef bint calls_are_dense() noexcept nogil  # fr_calls_are_dense, pace.h
cdef void run_parallel(int threads, thread_body body, void *arg) noexcept nogil  # fr_parallel, pool.h
cdef void plan_work(fr_work *work, long phases, int partitions, bint pinned) noexcept nogil  # fr_plan_work, work.h
cdef bint next_task(fr_work *work, int id, fr_task *task) noexcept nogil  # fr_next_task, work.h

# ---- Signals ----

cdef bint look(fr_watch *watch) noexcept nogil  # fr_look, work.h
cdef fr_watch own_watch(fr_work *work) noexcept nogil  # of a loop, of which `work` knows only whether it was stopped
cdef enum: LONG_CALL = 20000000  # multiply-adds, 0.2 to 10 ms: shorter calls are finished before a signal is looked for
# Whether a long call was stopped, or a signal came since it looked last: it is then as if it had been stopped. With the GIL.
cdef bint was_stopped(const fr_work *work, double cost) noexcept
cdef int raise_signal() except -1  # what the signal's handler has raised

cdef inline bint stops(fr_watch *watch, double cost) noexcept nogil:  # fr_stops, work.h
    if watch == NULL:
        return False
    watch.spent += cost + FR_LEAST_COST
    return watch.spent >= FR_LOOK_AFTER and look(watch)

# ---- Workspaces ----

cdef class Workspace:
    cdef char *at

cdef Workspace new_workspace(size_t size)
cdef void return_workspace(char *at) noexcept nogil  # fr_release, pool.h

cdef enum: MAX_ROOMS = 12

cdef struct Rooms:  # buffers of one workspace that is to be made; all zeros before the first
    size_t size
    int count
    size_t starts[MAX_ROOMS]
    void **pointers[MAX_ROOMS]

# Ask for room for so many elements; `allot` makes the workspace and writes to `pointer` where they start.
cdef void reserve(Rooms *rooms, void **pointer, long elements, int itemsize) noexcept nogil
cdef Workspace allot(Rooms *rooms)
cdef void point_to_rooms(Rooms *rooms, char *at) noexcept nogil  # `at`, aligned to 64 bytes, has rooms.size bytes
cdef char *allot_nogil(Rooms *rooms) noexcept nogil  # NULL without memory; for return_workspace

# ---- Checksums ----

cdef uint64_t checksum_of(const void *data, size_t bytes, uint64_t start) noexcept nogil  # fr_checksum, checksum.h

cdef class Cache:
    cdef int typenum
    cdef Workspace states  # None: used up
    cdef object arrays  # that the states point into

cdef int check_unused(Cache cache, str forward) except -1
