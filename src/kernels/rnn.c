/* The kernels of recurrent layers.
 *
 * # Design:
 * a) Weights are packed into panels that a tile streams through; panels outside, row blocks inside, so that a panel
 *    stays in L1/L2 while all rows of the thread pass over it.
 * b) Panels are visited in alternating direction from step to step (zigzag): what the last step left in cache is what
 *    the next one starts with.
 * c) Gates are unit-blocked, (HB, S, VL): a tile's epilogue writes whole, neighbouring lines, and backward's K loop
 *    reads them contiguously. Backward overwrites them with their gradients.
 * d) No software prefetch of the next panel: see benches/DECISIONS.md.
 */
#include "gradients.h"

static const char *cell_name(int cell) { return cell < (int)(sizeof cells / sizeof *cells) ? cells[cell].name : 0; }
static int gates_of(int cell) { return cells[cell].x_slots; }
static long operands_size(const fr_sequence *q, int backward) {
    return row_blocks(q->N) * (backward ? backward_operand_stride(q) : forward_operand_stride(q));
}

const fr_sequence_kernels FR_TABLE(rnn) = {
    .lanes = VL,
    .itemsize = sizeof(real),
    .projects_ahead = PROJECTS_AHEAD,
    .row_blocks = row_blocks,
    .padded = padded,
    .cell_name = cell_name,
    .gates = gates_of,
    .passes = passes,
    .has_inner = has_inner,
    .gates_row = gates_row,
    .panels_size = panels_size,
    .bias_size = bias_size,
    .inputs_row = inputs_row,
    .operands_size = operands_size,
    .panels_h_size = panels_h_size,
    .panels_x_size = panels_x_size,
    .gradients_size = gradients_size,
    .pack_forward = pack_forward,
    .chunk_start = chunk_start,
    .project = PROJECTS_AHEAD ? project : 0,
    .project_table = PROJECTS_AHEAD ? project_table : 0,
    .step_forward = step_forward,
    .steps_forward = steps_forward,
    .pack_backward = pack_backward,
    .step_backward = step_backward,
    .steps_backward = steps_backward,
    .grad_state = grad_state,
    .grad_input = grad_input,
    .grad_weights = grad_weights,
    .pack_state = pack_state,
    .unpack_state = unpack_state,
    .last_states = last_states,
    .carry_outputs = carry_outputs,
    .gather_late = gather_late,
};
