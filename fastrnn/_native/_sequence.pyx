"""The loops over time, forward and backward, and how a call is put together for them.

T time steps, N batch, D input_size, H hidden_size, P width of h (H, or less where a projection follows), G gates.

Design:
a) The loops know no cell, dtype or instruction set: a step is a few calls through a table of kernels. A step of the
   smallest network takes 0.3 us, so calls through a pointer cost nothing that shows.
b) A pass is cut into tasks that any thread may take (work.h). By rows of the batch, a task is some rows over a chunk of
   steps, and threads hardly ever wait; by hidden units, it is some units of one step, with a barrier before each step.
c) Arrays come with strides over time and batch: batch-first layouts and the two halves of a bidirectional output are
   views, never copies. Lengths, resets and reversed time are a matter of which row a pointer leads to (rows.h).
d) All checks are made once, before the GIL is released for the whole sequence.
e) A signal may stop a long call between two steps, and within one that takes long (work.h). What is thrown away then is
   the call's own: gradients that are added to the caller's arrays are either finished, or those arrays restored.
"""

cimport numpy as cnp
from fastrnn._native._arrays cimport hidden_size, hold, real_type
from fastrnn._native._plan cimport ASK, Pace, Plan, choose_plan, weight_partitions
from fastrnn._native._runtime cimport Rooms, build_for, look, next_task, plan_work, reserve, run_parallel, stops
from fastrnn._native.kernels cimport *
from libc.string cimport memset

cnp.import_array()


cdef dict _numbers_of_cells():
    cdef const fr_sequence_kernels *kernels = build_for(4).sequence
    numbers = {}
    while kernels.cell_name(len(numbers)) != NULL:
        numbers[kernels.cell_name(len(numbers)).decode()] = len(numbers)
    return numbers


cdef dict _CELLS = _numbers_of_cells()
cdef dict _ACTIVATIONS = {
    "tanh": FR_TANH, "relu": FR_RELU, "sigmoid": FR_SIGMOID, "identity": FR_IDENTITY,
    "hard_sigmoid": FR_HARD_SIGMOID, "hard_sigmoid_6": FR_HARD_SIGMOID_6, "softmax": FR_SOFTMAX,
}


cdef class CompiledCell:
    """A `CellSpec` in the numbers of the C side. spec: checked, as it checks itself when it is made."""

    def __init__(self, spec):
        self.family = spec.family
        self.cell = _CELLS["gru_reset_before" if spec.cell == "gru" and not spec.reset_after else spec.cell]
        self.options.activation = _ACTIVATIONS[spec.activation]
        self.options.gate_activation = _ACTIVATIONS[spec.gate_activation]
        self.options.output_activation = _ACTIVATIONS[spec.output_activation]
        self.options.generic, self.options.clip = spec.generic, spec.clip or 0

    cdef void start(self, SequenceCall *call):
        """Make `call` an empty one of this cell."""
        clear_call(call)
        call.sequence.cell, call.sequence.options = self.cell, self.options


cdef void clear_call(SequenceCall *call) noexcept nogil:
    """All zeros but `work`, 4 KB of tickets that `plan_work` starts: to clear them would be a twentieth of a small call."""
    memset(call, 0, <char *>&call.work - <char *>call)
    call.work.stopped = False


# ---- Reading arguments ----

cdef int type_of_weights(weight_ih, scale_ih) except -1:
    return real_type(weight_ih, "weight_ih") if scale_ih is None else real_type(scale_ih, "scale_ih")


cdef int read_weights(fr_sequence *q, list held, int typenum, long G, x, weight_ih, weight_hh, bias_ih, bias_hh,
                      weight_hr, bias_hr, weight_peephole, scale_ih, scale_hh, scale_hr) except -1:
    cdef int stored = typenum if scale_ih is None else cnp.NPY_INT8  # of the weights that have scales
    if stored == cnp.NPY_INT8 and typenum != cnp.NPY_FLOAT32:
        raise TypeError(f"scale_ih: expected float32, got {scale_ih.dtype}")
    if (scale_hh is None) != (weight_hh is None or scale_ih is None) or (scale_hr is None) != (weight_hr is None or scale_ih is None):
        raise TypeError("scale_hh, scale_hr: expected an array for each weight with scale_ih, and None without it, got others")
    if not isinstance(weight_ih, cnp.ndarray):
        raise TypeError(f"weight_ih: expected a NumPy array, got {type(weight_ih).__name__}")
    q.H = hidden_size(weight_ih, G, x)
    q.D = cnp.PyArray_DIM(<cnp.ndarray>weight_ih, 1)
    q.args.weight_hr = hold(held, weight_hr, "weight_hr", stored, "PH", 2, -1, q.H)
    q.P = q.H if weight_hr is None else cnp.PyArray_DIM(<cnp.ndarray>weight_hr, 0)
    q.args.weight_ih = hold(held, weight_ih, "weight_ih", stored, "GD", 2, G * q.H, q.D)
    q.args.weight_hh = hold(held, weight_hh, "weight_hh", stored, "GH" if q.P == q.H else "GP", 2, G * q.H, q.P)
    q.args.scale_ih = hold(held, scale_ih, "scale_ih", typenum, "G", 1, G * q.H, -1)
    q.args.scale_hh = hold(held, scale_hh, "scale_hh", typenum, "G", 1, G * q.H, -1)
    q.args.scale_hr = hold(held, scale_hr, "scale_hr", typenum, "P", 1, q.P, -1)
    q.args.bias_ih = hold(held, bias_ih, "bias_ih", typenum, "G", 1, G * q.H, -1)
    q.args.bias_hh = hold(held, bias_hh, "bias_hh", typenum, "G", 1, G * q.H, -1)
    q.args.bias_hr = hold(held, bias_hr, "bias_hr", typenum, "P", 1, q.P, -1)
    q.args.weight_peephole = hold(held, weight_peephole, "weight_peephole", typenum, "H", 1, 3 * q.H, -1)
    q.options.generic = q.options.generic or weight_peephole is not None  # whatever the CellSpec said
    return 0


# ---- Plan and workspaces ----

cdef void plan_call(SequenceCall *call, bint forward, Pace pace=ASK) noexcept nogil:
    """Who does what; backward runs with the form of projection that its forward pass had."""
    cdef fr_sequence *q = &call.sequence
    cdef Plan plan = choose_plan(q, call.kernels, forward, pace)
    follow_plan(call, &plan)
    if forward:
        q.input_projection = FR_FUSED if plan.fused else FR_AHEAD


cdef void follow_plan(SequenceCall *call, const Plan *plan) noexcept nogil:
    cdef fr_sequence *q = &call.sequence
    call.threads, call.partitions, call.by_units, call.chunk = plan.threads, plan.partitions, plan.by_units, plan.chunk
    call.weight_partitions = weight_partitions(plan, q.H // call.kernels.lanes)
    call.passes = call.kernels.passes(q)
    call.step_cost = <double>call.kernels.gates(q.cell) * q.H * (q.D + q.P) * q.N / call.partitions
    call.look_every = <long>(FR_LOOK_AFTER / (call.step_cost + FR_LEAST_COST)) + 1
    call.may_stop = EVERY_PHASE


cdef long projected_steps(const SequenceCall *call, long most) noexcept nogil:
    """Steps whose inputs are projected together: a MB of them stays in the cache."""
    cdef const fr_sequence *q = &call.sequence
    return max(1, min(most, (1 << 20) // (q.N * call.kernels.inputs_row(q) * call.kernels.itemsize)))


cdef void reserve_states(Rooms *rooms, SequenceCall *call, bint training, long rows) noexcept nogil:
    """What a step hands to the next one, or a forward pass to its backward pass. rows: of all steps that are kept."""
    cdef fr_sequence *q = &call.sequence
    cdef const fr_sequence_kernels *k = call.kernels
    cdef int itemsize = k.itemsize
    cdef long Hp = k.padded(q.H)
    if training or q.cell == FR_GRU_RESET_BEFORE:
        reserve(rooms, &q.workspace.gates, rows * k.gates_row(q), itemsize)
    if q.cell == FR_LSTM:
        reserve(rooms, &q.workspace.c, (q.N + (rows if training else 0)) * Hp, itemsize)
    if k.has_inner(q):
        reserve(rooms, &q.workspace.inner, rows * Hp, itemsize)
    if q.args.recurrent_mask != NULL:
        reserve(rooms, &q.workspace.dropped, rows * k.padded(q.P), itemsize)
    if q.args.zoneout_h.data != NULL:
        reserve(rooms, &q.workspace.h_made, rows * k.padded(q.P), itemsize)
    if q.args.zoneout_c.data != NULL:
        reserve(rooms, &q.workspace.c_made, rows * Hp, itemsize)
    reserve(rooms, &q.workspace.bias, k.bias_size(q), itemsize)
    reserve(rooms, &q.workspace.zeros, _zeros_size(call), itemsize)


cdef void reserve_pointers(Rooms *rooms, SequenceCall *call) noexcept nogil:
    reserve(rooms, <void **>&call.pointers, call.threads * FR_POINTERS * call.sequence.N, sizeof(void *))


cdef void clear_zeros(SequenceCall *call) noexcept nogil:
    memset(call.sequence.workspace.zeros, 0, _zeros_size(call) * call.kernels.itemsize)


cdef long _zeros_size(const SequenceCall *call) noexcept nogil:
    cdef const fr_sequence *q = &call.sequence
    cdef const fr_sequence_kernels *k = call.kernels
    return max(k.gates_row(q), k.padded(q.H), k.padded(q.P))


# ---- The loops ----

cdef enum: LONG_STEP = 100000000  # multiply-adds of a step that signals are looked for within, 1 to 10 ms


cdef fr_partition partition_of(const SequenceCall *call, int id, int count, int worker) noexcept nogil:
    cdef fr_partition part
    part.id, part.count, part.worker, part.by_units = id, count, worker, call.by_units
    part.pointers = call.pointers + worker * FR_POINTERS * call.sequence.N
    return part


cdef double whole_cost(const SequenceCall *call) noexcept nogil:
    return call.sequence.T * (call.step_cost * call.partitions + FR_LEAST_COST)


cdef fr_watch *start_watch(fr_watch *watch, SequenceCall *call, int id) noexcept nogil:
    """A thread's watch before its first task; NULL where signals are not looked for."""
    if not call.may_stop:
        return NULL
    memset(watch, 0, sizeof(fr_watch))
    watch.stopped, watch.caller = &call.work.stopped, id == 0
    return watch


cdef long step_phases(const SequenceCall *call) noexcept nogil:
    """Phases that the loop over time is cut into: by units one for each pass of each step, by rows one for each chunk."""
    return call.sequence.T * call.passes if call.by_units else (call.sequence.T + call.chunk - 1) // call.chunk


cdef void steps_of_chunk(const SequenceCall *call, const fr_sequence *q, fr_partition part, long chunk, long *begin, long *end) noexcept nogil:
    """Equally many steps, or, for one of several partitions of rows with lengths, steps of equal work (rows.h)."""
    cdef long chunks = (q.T + call.chunk - 1) // call.chunk
    if q.rows.order != NULL and part.count > 1 and q.input_projection != FR_AHEAD:
        begin[0] = call.kernels.chunk_start(q, part, chunk, chunks)
        end[0] = call.kernels.chunk_start(q, part, chunk + 1, chunks)
    else:
        begin[0] = chunk * call.chunk
        end[0] = min(begin[0] + call.chunk, q.T)


cdef void run_forward(SequenceCall *call) noexcept nogil:
    """Phases: packing, then the steps."""
    cdef const fr_sequence *q = &call.sequence
    cdef int packing = not call.packed
    if call.threads == 1:
        call.work.stopped = 0
        run_parallel(1, forward_alone, call)
        return
    # Chunks of rows with lengths have their inputs where another's were in the chunk before.
    cdef bint barriers = call.by_units or (q.input_projection == FR_AHEAD and q.rows.order)
    plan_work(&call.work, packing + step_phases(call), call.partitions, call.by_units)
    call.work.barrier_until = call.work.phases if barriers else packing
    run_parallel(call.threads, forward_body, call)


cdef void forward_task(const SequenceCall *call, fr_sequence *q, long phase, fr_partition part, fr_watch *watch) noexcept nogil:
    """One task of a forward pass over the whole sequence. q: of the thread, as threads are at different chunks."""
    cdef const fr_sequence_kernels *k = call.kernels
    cdef long s = 0, begin = 0, end = 0
    if not call.packed:
        if phase == 0:
            k.pack_forward(q, part)
            return
        phase -= 1
    q.watch = watch if call.step_cost > LONG_STEP else NULL
    if call.by_units:
        s = phase // call.passes
        begin = s - s % call.chunk
        end = min(begin + call.chunk, q.T)
    else:
        steps_of_chunk(call, q, part, phase, &begin, &end)
    if q.input_projection == FR_AHEAD:
        q.scratch.inputs_start = fr_packed(q, begin)
        if not call.by_units or phase == begin * call.passes:
            k.project(q, begin, end, part)
    if call.by_units:
        k.step_forward(q, phase % call.passes, s, part)
        stops(watch, call.step_cost)
        return
    s = begin
    while s < end:
        k.steps_forward(q, s, min(s + call.look_every, end), part)
        s += call.look_every
        if s < end and watch != NULL and look(watch):
            return
    stops(watch, (end - begin) * call.step_cost)


cdef void forward_body(void *arg, int id) noexcept nogil:
    """What one thread does of a forward pass."""
    cdef SequenceCall *call = <SequenceCall *>arg
    cdef fr_sequence q = call.sequence
    cdef fr_task task
    cdef fr_watch own
    cdef fr_watch *watch = start_watch(&own, call, id)
    memset(&task, 0, sizeof(task))
    task.watch = watch
    while next_task(&call.work, id, &task):
        forward_task(call, &q, task.phase, partition_of(call, task.partition, call.work.partitions, id), watch)


cdef void forward_alone(void *arg, int id) noexcept nogil:
    """The same for one thread, which needs no tickets: they would be a tenth of a small step."""
    cdef SequenceCall *call = <SequenceCall *>arg
    cdef fr_watch own
    cdef fr_watch *watch = start_watch(&own, call, id)
    cdef long phase
    call.work.stopped = False
    for phase in range((not call.packed) + step_phases(call)):
        forward_task(call, &call.sequence, phase, partition_of(call, 0, 1, 0), watch)
        if call.work.stopped:
            return


cdef void run_backward(SequenceCall *call) noexcept nogil:
    """Phases: packing, the steps from the last to the first, the gradients of weights, those of inputs and of the state."""
    cdef long steps = step_phases(call)
    plan_work(&call.work, steps + 3, call.partitions, call.by_units)
    call.work.barrier_until, call.work.barrier_at = steps if call.by_units else 1, steps + 1
    run_parallel(call.threads, backward_body, call)


cdef void backward_task(const SequenceCall *call, fr_sequence *q, long phase, fr_partition part, fr_watch *watch) noexcept nogil:
    """One task of backpropagation through time, and of the gradients that follow from it."""
    cdef const fr_sequence_kernels *k = call.kernels
    cdef long s, steps = step_phases(call), begin = 0, end = 0
    q.watch = watch if (call.may_stop == EVERY_PHASE if phase > steps else call.step_cost > LONG_STEP) else NULL
    if phase == 0:
        k.pack_backward(q, part)
    elif phase > steps + 1:
        if q.args.dx.data:
            k.grad_input(q, part)
        if q.args.dh0:
            k.grad_state(q, part)
    elif phase > steps:
        part.count = call.weight_partitions
        if part.id < part.count:
            k.grad_weights(q, part)
    elif call.by_units:
        k.step_backward(q, (phase - 1) % call.passes, q.T - 1 - (phase - 1) // call.passes, part)
        stops(watch, call.step_cost)
    else:
        steps_of_chunk(call, q, part, steps - phase, &begin, &end)
        s = end
        while s > begin:
            k.steps_backward(q, max(s - call.look_every, begin), s, part)
            s -= call.look_every
            if s > begin and watch != NULL and look(watch):
                return
        stops(watch, (end - begin) * call.step_cost)


cdef void backward_body(void *arg, int id) noexcept nogil:
    """What one thread does of a backward pass. Where a signal may stop the steps alone, it looks within its own: none of them
    ends before all do, so no thread is at the gradients of weights yet."""
    cdef SequenceCall *call = <SequenceCall *>arg
    cdef fr_sequence q = call.sequence
    cdef fr_task task
    cdef fr_watch own
    cdef fr_watch *watch = start_watch(&own, call, id)
    memset(&task, 0, sizeof(task))
    if call.may_stop == EVERY_PHASE:
        task.watch = watch
    while next_task(&call.work, id, &task):
        backward_task(call, &q, task.phase, partition_of(call, task.partition, call.work.partitions, id), watch)
