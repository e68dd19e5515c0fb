/* The kernels of recurrent layers whose weights are narrower than reals: forward alone, without what backward would need. See
 * tile_int8.h and tile_bf16.h. */
#include "forward.h"

static int gates_of(int cell) { return cells[cell].x_slots; }
static long operands_size(const fr_sequence *q, int backward) {
    return backward ? 0 : row_blocks(q->N) * forward_operand_stride(q);
}

const fr_sequence_kernels FR_TABLE(rnn) = {
    .lanes = VL,
    .itemsize = sizeof(real),
    .projects_ahead = PROJECTS_AHEAD,
    .row_blocks = row_blocks,
    .padded = padded,
    .gates = gates_of,
    .passes = passes,
    .has_inner = has_inner,
    .gates_row = gates_row,
    .panels_size = panels_size,
    .bias_size = bias_size,
    .inputs_row = inputs_row,
    .operands_size = operands_size,
    .pack_forward = pack_forward,
    .chunk_start = chunk_start,
    .project = project,
    .project_table = project_table,
    .step_forward = step_forward,
    .steps_forward = steps_forward,
    .pack_state = pack_state,
    .unpack_state = unpack_state,
    .last_states = last_states,
    .carry_outputs = carry_outputs,
    .gather_late = gather_late,
};
