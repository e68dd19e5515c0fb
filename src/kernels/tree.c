/* The kernels of trees. */
#include "tree_backward.h"

const fr_tree_kernels FR_TABLE(tree) = {
    .lanes = VL,
    .itemsize = sizeof(real),
    .row_blocks = row_blocks,
    .padded = padded,
    .gradients_size = tree_gradients_size,
    .pack_forward = tree_pack_forward,
    .project = tree_project,
    .forward = tree_forward,
    .pack_backward = tree_pack_backward,
    .backward = tree_backward,
    .grad_input = tree_grad_input,
    .grad_weights = tree_grad_weights,
};
