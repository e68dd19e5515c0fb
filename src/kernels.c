/* One build of the kernels: compiled once per instruction set and dtype, with FR_BUILD naming the table it exports and
 * FR_DOUBLE set for float64 (setup.py holds the list). What it consists of, each file resting on the one before:
 * simd.h, vecmath.h, tile.h, cells.h, pack.h, rows.h, forward.h, backward.h, gradients.h, trees.h; and
 * on simd.h and vecmath.h alone: losses.h, ctc.h, optimize.h. With FR_AMX_TERMS, amx.h stands in for most of tile.h and pack.h,
 * amx_gradients.h for a part of gradients.h, and amx_steps.h comes last.
 *
 * # Design:
 * a) Weights are packed into panels that a tile streams through; panels outside, row blocks inside, so that a panel
 *    stays in L1/L2 while all rows of the thread pass over it.
 * b) Panels are visited in alternating direction from step to step (zigzag): what the last step left in cache is what
 *    the next one starts with.
 * c) Gates are unit-blocked, (HB, S, VL): a tile's epilogue writes whole, neighbouring lines, and backward's K loop
 *    reads them contiguously. Backward overwrites them with their gradients.
 * d) No software prefetch of the next panel: on a 2-core Zen 4 with 1 MB L2 it ran at 0.96-1.01 times the plain loop's
 *    speed for LSTM, GRU and RNN at H = 256, 512, 1024 (1.09 for the RNN at H = 256 alone, and 0.99 at 512); on a Zen 3 with
 *    512 KB at 0.90-1.07 for the LSTM, and prefetching 1 or 4 KB ahead within a panel at N = 1 at 0.90-1.01. A CPU with a
 *    slow L3 may differ.
 */
#include "gradients.h"

static int gates_of(int cell) { return cuts[cell].x_slots; }

#ifdef FR_AMX_TERMS
#include "amx_steps.h"

const fr_kernels FR_BUILD = {
    VL,
    sizeof(real),
    fr_row_blocks,
    gates_of,
    amx_passes,
    has_inner,
    padded,
    gates_row,
    panels_size,
    bias_size,
    inputs_row,
    operand_size,
    panels_h_size,
    panels_x_size,
    scratch_size,
    pack_forward,
    0,
    amx_step_forward,
    pack_backward,
    amx_step_backward,
    amx_grad_state,
    amx_grad_input,
    amx_grad_weights,
    enter_state,
    leave_state,
    last_states,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
};
#else
#include "trees.h"
#include "ctc.h"
#include "optimize.h"

const fr_kernels FR_BUILD = {
    VL,
    sizeof(real),
    fr_row_blocks,
    gates_of,
    passes,
    has_inner,
    padded,
    gates_row,
    panels_size,
    bias_size,
    inputs_row,
    operand_size,
    panels_h_size,
    panels_x_size,
    scratch_size,
    pack_forward,
    project,
    step_forward,
    pack_backward,
    step_backward,
    grad_state,
    grad_input,
    grad_weights,
    enter_state,
    leave_state,
    last_states,
    update,
    sum_of_squares,
    clip,
    cross_entropy,
    ctc_scores,
    ctc_paths,
    ctc_gradient,
    tree_pack_forward,
    tree_project,
    tree_forward,
    tree_pack_backward,
    tree_backward,
    tree_grad_input,
    tree_grad_weights,
};
#endif
